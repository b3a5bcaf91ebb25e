//! A pair that a deployment failed on: back to the one before it, and when another one may be tried.
//!
//! ECS's circuit breaker restores the task definition, but its tasks read the secret as it is: so it is the secret that goes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::date;
use crate::leaf::Serial;
use crate::record::{Moment, Pair, Record};
use crate::renewal;
use crate::rollout::Lock;

/// A pair was rejected, and the secret goes or went back to the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    pub at: Moment,
    /// The version that was rejected, and its serial.
    pub rejected: String,
    pub serial: Serial,
    /// The version that takes its place.
    pub restored: String,
    /// How many pairs were rejected in a row, since a person has seen to it last.
    pub in_a_row: u32,
    /// Whether the secret has gone back.
    pub done: bool,
    /// Who is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    pub reason: String,
}

/// What a deployment that failed means for a certificate that its tasks read.
#[derive(Clone, Debug, PartialEq)]
pub enum Blame {
    /// The certificate has nothing to do with it, or has been dealt with.
    None,
    /// Back to the pair before.
    Undo(Setback),
    /// It is the certificate, and there is nothing to go back to.
    Stuck(String),
}

/// A pair that was rejected once is followed by another one after a day; what comes of that one is a person's.
const MOST_IN_A_ROW: u32 = 2;

/// What to do about the certificate of a deployment that its current pair made fail.
pub fn blame(record: &Record, reason: &str, sweep_interval: Duration, now: OffsetDateTime) -> Blame {
    let Some(current) = &record.current else { return Blame::None };
    if record.setback.as_ref().is_some_and(|setback| !setback.done && setback.rejected == current.version_id) {
        return Blame::None;
    }
    let last = record
        .setback
        .as_ref()
        .filter(|setback| record.previous.as_ref().is_some_and(|pair| pair.version_id == setback.restored));
    let in_a_row = last.map_or(1, |setback| setback.in_a_row.saturating_add(1));
    // Good for the next attempt, and for one more that might fail too.
    let previous = match fit(record, record.previous.as_ref(), now + renewal::rest(record, sweep_interval) * 2) {
        Ok(previous) => previous,
        Err(why) => return Blame::Stuck(why),
    };
    Blame::Undo(Setback {
        at: now.into(),
        rejected: current.version_id.clone(),
        serial: current.serial.clone(),
        restored: previous.version_id.clone(),
        in_a_row,
        done: false,
        lock: None,
        reason: reason.to_owned(),
    })
}

/// The pair, where it may become current again and stay so until then; or why not, and what to do.
fn fit<'a>(record: &Record, pair: Option<&'a Pair>, until: OffsetDateTime) -> Result<&'a Pair, String> {
    let why = match pair {
        None if record.set_back().is_some() => "what came after it was rejected before".to_owned(),
        None => "there is no pair before it to go back to".to_owned(),
        // Two versions may hold the same certificate: what ACM has, exported twice.
        Some(Pair { serial, version_id, .. })
            if record.setback.as_ref().is_some_and(|setback| setback.rejected == *version_id)
                || record.rejected.contains(serial)
                || record.revokes_at_once(serial) =>
        {
            format!("serial {serial} before it was rejected or revoked too")
        }
        Some(Pair { serial, not_after, .. }) if **not_after <= until => {
            format!("serial {serial} before it expires {}, too soon to go back to", date(**not_after))
        }
        Some(pair) => return Ok(pair),
    };
    Err(format!("{why}; see to the service, or replace the certificate"))
}

impl Setback {
    /// When another pair may be tried; `None`: when a person says so.
    pub fn next(&self, rest: Duration) -> Option<OffsetDateTime> {
        match self.in_a_row {
            0 => Some(*self.at),
            _ => (!self.waits_for_a_person()).then(|| *self.at + rest),
        }
    }

    pub fn finish(&mut self) {
        (self.done, self.lock) = (true, None);
    }

    pub fn waits_for_a_person(&self) -> bool {
        self.in_a_row >= MOST_IN_A_ROW
    }
}

impl Record {
    /// The setback after which the current pair is current again.
    pub fn set_back(&self) -> Option<&Setback> {
        let current = self.current.as_ref()?;
        self.setback.as_ref().filter(|setback| setback.restored == current.version_id)
    }

    /// Why a setback that was begun must not be finished: what it would bring back is not good any more.
    pub fn cannot_go_back(&self, setback: &Setback, now: OffsetDateTime) -> Option<String> {
        let restored = self.previous.as_ref().filter(|pair| pair.version_id == setback.restored);
        fit(self, restored, now).err().map(|why| format!("{}, and {why}", setback.reason))
    }

    /// The pair before the current one is current again, since that moment.
    pub fn go_back(&mut self, since: OffsetDateTime) {
        let Some(setback) = &mut self.setback else { return };
        setback.finish();
        if self.previous.as_ref().is_some_and(|previous| previous.version_id == setback.restored) {
            std::mem::swap(&mut self.current, &mut self.previous);
        }
        let rejected = setback.rejected.clone();
        if let Some(current) = &mut self.current {
            current.since = since.into();
        }
        self.leave_behind(&rejected);
        (self.attempt, self.renewal_asked) = (None, None);
    }

    /// A version was rejected, and its serial with it: but where another version holds the same certificate, as of what ACM holds and
    /// was exported once more, it is the version alone.
    pub fn reject(&mut self, version_id: &str, serial: &Serial) {
        let mut others = [&self.current, &self.previous].into_iter().flatten().filter(|pair| pair.version_id != version_id);
        if others.all(|pair| pair.serial != *serial) {
            self.rejected.insert(serial.clone());
        }
    }

    /// In a rejected version that holds the same certificate as the current one there is nothing to go back to.
    fn leave_behind(&mut self, version_id: &str) {
        let Some(current) = &mut self.current else { return };
        if let Some(same) = self.previous.take_if(|pair| pair.version_id == version_id && pair.serial == current.serial) {
            current.issuer = current.issuer.take().or(same.issuer);
        }
    }

    /// What its secret still tells, for a record that has nothing but the current pair: the pair before it, and the version that was
    /// rejected, with its serial. That is where the secret came from when nothing has become current since.
    pub fn recall(&mut self, previous: Option<Pair>, rejected: Option<(String, Serial)>, changed: OffsetDateTime) {
        self.previous = previous;
        let (Some(current), Some((version_id, serial))) = (&self.current, rejected) else { return };
        if current.version_id == version_id {
            // Somebody has made it current again.
            return;
        }
        if self.previous.as_ref().is_some_and(|pair| pair.version_id == version_id) {
            self.setback = Some(Setback {
                at: changed.into(),
                rejected: version_id.clone(),
                restored: current.version_id.clone(),
                in_a_row: 1,
                done: true,
                lock: None,
                reason: format!("a deployment failed on serial {serial}"),
                serial: serial.clone(),
            });
        }
        self.reject(&version_id, &serial);
        self.leave_behind(&version_id);
    }

    /// A person has seen to what stood in the way: the next attempt may be made now.
    pub fn retry(&mut self) {
        self.setback.iter_mut().for_each(|setback| setback.in_a_row = 0);
        self.halted = None;
        self.attempts.on_day = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Origin, Specification};
    use crate::revocation::{Reason, Revocation};
    use crate::samples::{self, DAY, HOUR, arn, at, issued, pair};

    const NOW: &str = "2026-11-21T06:00:00Z";

    fn version(version_id: &str, serial: &str) -> Pair {
        Pair { version_id: version_id.to_owned(), serial: Serial::from_hex(serial), ..pair() }
    }

    /// The pair `version-2` has followed `version-1`.
    fn renewed() -> Record {
        let current =
            Pair { not_after: at("2026-12-21T06:00:00Z").into(), since: at(NOW).into(), ..version("version-2", "0b02") };
        Record { previous: Some(pair()), current: Some(current), ..issued() }
    }

    fn setback(in_a_row: u32) -> Setback {
        Setback { at: at(NOW).into(), in_a_row, done: false, ..samples::setback() }
    }

    /// Of the pair before the current one.
    fn revocation(after_rollout: bool) -> Revocation {
        Revocation {
            serial: pair().serial,
            certificate_authority_arn: arn(samples::CA),
            reason: Reason::Superseded,
            asked: at(NOW).into(),
            after_rollout,
            done: None,
            refused: None,
        }
    }

    fn gone_back() -> Record {
        let mut record = Record { setback: Some(setback(1)), ..renewed() };
        record.go_back(at(NOW) + HOUR);
        record
    }

    #[test]
    fn a_pair_gives_way_to_the_one_before_when_that_one_is_good_for_long_enough() {
        let blame = |record: &Record| blame(record, "it failed", HOUR, at(NOW));
        assert_eq!(blame(&renewed()), Blame::Undo(setback(1)));
        let again = Record { setback: Some(Setback { rejected: "version-0".to_owned(), ..setback(1) }), ..renewed() };
        assert_eq!(blame(&again), Blame::Undo(setback(2)));
        for (what, record) in [
            ("nothing is current", Record { current: None, ..renewed() }),
            ("it is under way", Record { setback: Some(setback(1)), ..renewed() }),
        ] {
            assert_eq!(blame(&record), Blame::None, "{what}");
        }
        let of_before = |restored: &str| Setback { restored: restored.to_owned(), done: true, ..setback(1) };
        let until =
            |not_after: OffsetDateTime| Record { previous: Some(Pair { not_after: not_after.into(), ..pair() }), ..renewed() };
        let margin = at(NOW) + DAY * 2;
        assert_eq!(blame(&until(margin + Duration::from_secs(1))), Blame::Undo(setback(1)));
        for (what, record, why) in [
            ("the first pair", Record { previous: None, ..renewed() }, "no pair before it"),
            (
                "it went back before",
                Record { previous: None, setback: Some(of_before("version-2")), ..renewed() },
                "what came after it was rejected",
            ),
            (
                "the one before is revoked",
                Record { rejected: [pair().serial].into(), ..renewed() },
                "serial a01 before it was rejected",
            ),
            (
                "the version before was rejected, and holds a certificate that was not",
                Record { setback: Some(Setback { rejected: pair().version_id, ..of_before("version-0") }), ..renewed() },
                "serial a01 before it was rejected",
            ),
            ("the one before ends soon", until(margin), "expires 2026-11-23 06:00 UTC, too soon to go back to"),
        ] {
            match blame(&record) {
                Blame::Stuck(said) => assert!(said.contains(why), "{what}: {said}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_setback_is_finished_while_what_it_brings_back_is_good() {
        let end = *pair().not_after;
        for (what, record, now, why) in [
            ("good", renewed(), at(NOW), None),
            ("a second before it ends", renewed(), end - Duration::from_secs(1), None),
            ("when it ends", renewed(), end, Some("serial a01 before it expires 2026-12-01 01:00 UTC")),
            (
                "to be revoked at once",
                Record { revocations: vec![revocation(false)], ..renewed() },
                at(NOW),
                Some("serial a01 before it was rejected or revoked"),
            ),
            ("to be revoked once it is replaced", Record { revocations: vec![revocation(true)], ..renewed() }, at(NOW), None),
            (
                "revoked",
                Record { rejected: [pair().serial].into(), ..renewed() },
                at(NOW),
                Some("serial a01 before it was rejected"),
            ),
            (
                "another one was before",
                Record { previous: Some(version("version-0", "0a00")), ..renewed() },
                at(NOW),
                Some("no pair before it"),
            ),
        ] {
            let said = record.cannot_go_back(&setback(1), now);
            assert_eq!(said.is_some(), why.is_some(), "{what}: {said:?}");
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()), "{what}");
        }
    }

    #[test]
    fn what_went_back_is_current_since_then_and_the_rejected_pair_stands_behind_it() {
        let record = gone_back();
        let (current, previous) = (record.current.clone().unwrap(), record.previous.clone().unwrap());
        assert_eq!((current.version_id.as_str(), *current.since), ("version-1", at(NOW) + HOUR));
        assert_eq!(previous.version_id, "version-2");
        assert!(record.setback.as_ref().unwrap().done && record.set_back().is_some());
        // Again, after somebody has found the secret changed.
        let mut again = record.clone();
        again.go_back(at(NOW) + HOUR);
        assert_eq!(again, record);
        let promoted = Record { current: Some(version("version-3", "0c03")), ..record };
        assert_eq!(promoted.set_back(), None);
    }

    #[test]
    fn nothing_stands_behind_what_went_back_where_the_rejected_version_holds_the_same_certificate() {
        let known = Pair { issuer: None, ..pair() };
        let found = Record { current: Some(known), previous: Some(version("version-2", "0a01")), ..renewed() };
        for record in [Record { current: found.previous.clone(), previous: found.current.clone(), ..renewed() }, found] {
            let mut record = Record { setback: Some(setback(1)), ..record };
            record.go_back(at(NOW) + HOUR);
            let current = record.current.unwrap();
            assert_eq!((current.version_id.as_str(), current.issuer, record.previous), ("version-1", pair().issuer, None));
        }
    }

    #[test]
    fn a_secret_tells_which_version_was_rejected_and_its_serial_only_where_no_other_version_holds_it() {
        let (first, second) = (version("version-1", "0a01"), version("version-2", "0b02"));
        let twin = version("version-2", "0a01");
        for (what, current, previous, rejected, is_rejected, is_back, keeps) in [
            ("it came back", &first, Some(&second), Some(&second), true, true, true),
            ("the same certificate", &first, Some(&twin), Some(&twin), false, true, false),
            ("another one has followed", &version("version-3", "0c03"), Some(&first), Some(&second), true, false, true),
            ("another one has followed the same", &version("version-3", "0c03"), Some(&first), Some(&twin), false, false, true),
            ("it was made current by hand", &second, Some(&first), Some(&second), false, false, true),
            ("nothing was rejected", &first, Some(&second), None, false, false, true),
        ] {
            let mut record = Record { current: Some(current.clone()), ..issued() };
            let label = rejected.map(|pair| (pair.version_id.clone(), pair.serial.clone()));
            record.recall(previous.cloned(), label, at(NOW));
            assert_eq!(rejected.is_some_and(|pair| record.rejected.contains(&pair.serial)), is_rejected, "{what}");
            assert_eq!(record.set_back().is_some(), is_back, "{what}");
            assert_eq!(record.previous.as_ref(), previous.filter(|_| keeps), "{what}");
        }
    }

    #[test]
    fn another_pair_is_tried_after_a_rest_and_after_a_second_setback_when_a_person_says_so() {
        let authority = arn("arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/other");
        let elsewhere = Specification { certificate_authority_arn: authority, ..samples::specification() };
        let of_another_ca = Record { origin: Origin::Issued(elsewhere), ..gone_back() };
        let (due, rested) = (at("2026-11-22T05:59:59Z"), at(NOW) + DAY);
        for record in [gone_back(), of_another_ca] {
            assert!(!renewal::is_due(&record, HOUR, due) && renewal::is_due(&record, HOUR, rested));
            let twice = Record { setback: record.setback.clone().map(|setback| Setback { in_a_row: 2, ..setback }), ..record };
            assert!(!renewal::is_due(&twice, HOUR, rested + DAY));
            let mut retried = twice;
            retried.retry();
            assert!(renewal::is_due(&retried, HOUR, due));
        }
    }
}
