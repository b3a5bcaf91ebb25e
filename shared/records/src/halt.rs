//! What stands against a certificate until a person has seen to it.

use std::collections::BTreeSet;

use lifecycle::events::Event;
use lifecycle::names::CertificateName;
use lifecycle::record::{Halt, Record};
use runtime::{Failure, Invocation};
use time::OffsetDateTime;

use crate::Records;
use crate::table::Saved;

impl Records {
    /// Notes that an attempt met a permanent failure: it is over, and the sweep begins no other for a day. Gives the event that
    /// tells a person, once a day for the same `code`.
    pub async fn halt(
        &self,
        name: &CertificateName,
        code: &str,
        failure: &Failure,
        invocation: &Invocation,
    ) -> Result<Option<Event>, Failure> {
        let Some(mut record) = self.load(name).await? else { return Ok(None) };
        let now = invocation.now();
        record.attempt = None;
        record.halted = Some(Halt { at: now.into(), reason: failure.to_string(), holder: Some(invocation.id.clone()) });
        let event = self.tell(&mut record, code, &failure.to_string(), now);
        let services: BTreeSet<_> = record.options.services.clone();
        match self.save(&mut record, &services).await? {
            Saved::Done => Ok(event),
            // Whoever overtook knows more than this failed invocation.
            Saved::Overtaken => Ok(None),
        }
    }

    /// Notes in the record that a person is told, and gives the event that does it; `None` when they were within a day.
    pub fn tell(&self, record: &mut Record, code: &str, message: &str, now: OffsetDateTime) -> Option<Event> {
        if !record.may_tell(code, now) {
            return None;
        }
        record.told.insert(code.to_owned(), now.into());
        record.messages.insert(code.to_owned(), message.to_owned());
        Some(Event::action_required(&self.settings.prefix, record, code, message))
    }
}
