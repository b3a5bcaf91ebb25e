//! A secret goes back to the pair before: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>.

use lifecycle::events::{Event, Kind};
use lifecycle::record::Record;
use lifecycle::renewal::ROLLOUT_GRACE;
use lifecycle::setback::Setback;
use runtime::Failure;
use time::OffsetDateTime;

use crate::Records;

impl Records {
    /// Rejects the current pair and makes the one before it current again. Recorded first: whoever finds it unfinished goes on with
    /// [`Self::go_back`].
    pub async fn set_back(&self, record: &mut Record, setback: Setback, now: OffsetDateTime) -> Result<Vec<Event>, Failure> {
        record.rejected.insert(setback.serial.clone());
        record.setback = Some(setback);
        record.look_at = now.unix_timestamp();
        self.update(record).await?;
        self.go_back(record, now).await
    }

    /// Finishes what was begun, where it was. Gives the events that tell of it. What is not good any more by now does not become
    /// current; where it is already, the sweep replaces it.
    pub async fn go_back(&self, record: &mut Record, now: OffsetDateTime) -> Result<Vec<Event>, Failure> {
        let Some(setback) = record.setback.clone().filter(|setback| !setback.done) else { return Ok(Vec::new()) };
        let name = record.name.clone();
        if let Some(why) = record.cannot_go_back(&setback, now)
            && self.describe(&name).await?.is_some_and(|state| state.current.as_ref() == Some(&setback.rejected))
        {
            // It stays current, as a pair does that has none to go back to.
            if !record.is_revoked(&setback.serial) {
                record.rejected.remove(&setback.serial);
            }
            record.setback = Some(Setback { done: true, ..setback });
            let event = self.tell(record, "rollout-failed", &why, now);
            self.update(record).await?;
            return Ok(event.into_iter().collect());
        }
        let Setback { rejected, serial, restored, reason, .. } = setback;
        let doing = || format!("bring the secret of `{name}` back to version {restored}");
        self.reject(&name, &rejected).await?;
        self.move_current(&name, &rejected, &restored).await?;
        let Some(state) = self.describe(&name).await? else { return Err(Failure::permanent(doing(), "the secret is gone")) };
        record.look_at = (now + ROLLOUT_GRACE).unix_timestamp();
        if state.current.as_ref() != Some(&restored) {
            // Somebody has made another version current meanwhile, and knows more than the deployment that failed.
            record.setback.iter_mut().for_each(|setback| setback.done = true);
            self.update(record).await?;
            return Ok(Vec::new());
        }
        record.go_back(state.changed);
        // Before the record: what is recorded as done is told no more.
        self.tag(record).await?;
        let prefix = &self.settings.prefix;
        let message = format!("serial {serial} of `{name}` gave way to the one before it: {reason}");
        let mut events = vec![
            Event::about(Kind::CertificateRolledBack, prefix, record, reason),
            Event::about(Kind::CertificateCurrent, prefix, record, "the pair before is current again"),
        ];
        if record.options.import_to_acm {
            events.push(Event::about(Kind::CertificateDue, prefix, record, "ACM holds the pair that was rejected"));
        }
        events.extend(self.tell(record, "rolled-back", &message, now));
        self.update(record).await?;
        tracing::warn!(certificate.name = %name, certificate.serial = %serial, "Rejected serial {serial} of `{name}` and went back");
        Ok(events)
    }
}
