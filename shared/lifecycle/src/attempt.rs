//! Who may work on a certificate now, and the tokens that make every repeat harmless.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Date, OffsetDateTime, UtcOffset};

use crate::issuance::LEAST_SWEEPS;
use crate::leaf::Serial;
use crate::names::{Arn, CertificateName};
use crate::record::{Moment, Origin, Record, Specification};

/// One try to bring a new pair into a secret. It is recorded before its first effect; whoever finds it later can go on with it,
/// because everything it makes carries a token made from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts up for the life of the certificate.
    pub number: u32,
    pub started: Moment,
    /// Until then it belongs to the invocation `holder`.
    pub lease: Moment,
    pub holder: String,
    /// The version of the secret that was current when the attempt was decided; the only one it may replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// AWS Private CA's answer, kept before the certificate is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_arn: Option<Arn>,
    /// The complete pair, where it waits for trust stores to hold its CA, or for Secrets Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// The version that Secrets Manager wants the pair in, where it asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<String>,
    /// The moment at which the certificate is to end, where it was asked for as a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Moment>,
    /// The caller's key, as [`Csr::key_fingerprint`](crate::leaf::Csr::key_fingerprint), where it is asked for on a CSR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers_key: Option<String>,
    pub reason: String,
}

/// A verified pair that waits in a version of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    pub version_id: String,
    pub serial: Serial,
    /// `None` for a public certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Arn>,
}

/// How often it was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// The number of the last attempt.
    #[serde(default)]
    pub last: u32,
    /// The day of the last attempt, by UTC, and how many began on it.
    #[serde(default, with = "iso_date::option")]
    pub day: Option<Date>,
    #[serde(default)]
    pub on_day: u32,
}

// Without it a date's form would depend on which features of `time` other crates turn on.
time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// An attempt belongs to one invocation for longer than an invocation can last, and for less than the three minutes after which
/// Lambda's second retry comes.
pub const LEASE: Duration = Duration::from_secs(150);

/// AWS Private CA forgets a token after five minutes. With the clocks a minute apart, four are safe: after that an attempt without
/// a certificate's ARN is dead, because asking again could ask a second time for the same key.
pub const TOKEN_LIFE: Duration = Duration::from_secs(4 * 60);

/// More tries in vain than this on one day mean that something is broken which trying does not mend.
pub const A_DAY: u32 = 5;

/// What may be done about a certificate that is to get a new pair.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Begin this attempt.
    Begin(Attempt),
    /// Go on with this one.
    Resume(Attempt),
    /// Another invocation is at it until then.
    Busy { until: OffsetDateTime },
    /// Today's attempts are used up.
    Exhausted { until: OffsetDateTime },
}

/// Whose turn it is. `holder` names this invocation: Lambda repeats a failed one under the same name, and only after it ended.
pub fn turn(record: &Record, holder: &str, reason: &str, replaces: Option<&str>, now: OffsetDateTime) -> Turn {
    if let Some(attempt) = &record.attempt {
        if *attempt.lease > now && attempt.holder != holder {
            return Turn::Busy { until: *attempt.lease };
        }
        // An export asks nobody to sign: however late, it only meets what it stored.
        let asks_a_ca = !matches!(record.origin, Origin::Exported { .. });
        let alive = !asks_a_ca || attempt.certificate_arn.is_some() || now < *attempt.started + TOKEN_LIFE;
        // It waited until it was of no use any more.
        let ended = record.specification().is_some_and(|wanted| attempt.not_after(wanted) <= now);
        if alive && !ended && attempt.replaces.as_deref() == replaces {
            return Turn::Resume(Attempt { lease: (now + LEASE).into(), holder: holder.to_owned(), ..attempt.clone() });
        }
    }
    // Secrets Manager waits for the pair of a dead attempt all the same. A version that has got one takes no other.
    let waited_for = record.attempt.as_ref().filter(|dead| dead.replaces.as_deref() == replaces && dead.staged.is_none());
    let Attempts { last, day, on_day } = &record.attempts;
    let today = now.to_offset(UtcOffset::UTC).date();
    if *day == Some(today) && *on_day >= A_DAY {
        return Turn::Exhausted { until: today.next_day().unwrap_or(today).midnight().assume_utc() };
    }
    Turn::Begin(Attempt {
        number: last.saturating_add(1),
        started: now.into(),
        lease: (now + LEASE).into(),
        holder: holder.to_owned(),
        replaces: replaces.map(str::to_owned),
        certificate_arn: None,
        staged: None,
        rotation: waited_for.and_then(|dead| dead.rotation.clone()),
        end: None,
        callers_key: None,
        reason: reason.to_owned(),
    })
}

impl Record {
    /// When the pair that was asked for last is to end, where that was a date and the pair is not there yet. Version 0.1 noted it
    /// with the attempt alone.
    pub fn end_asked_for(&self) -> Option<Moment> {
        self.end.or_else(|| self.attempt.as_ref()?.end)
    }

    /// When the pair of an attempt that begins now is to end, where that is a date. Where that has come so near that nobody could
    /// ask for it any more, the pair lives for as long as the first was to.
    pub fn next_end(&self, sweep_interval: Duration, now: OffsetDateTime) -> Option<Moment> {
        let shortest = sweep_interval * LEAST_SWEEPS * 3;
        self.end.filter(|end| **end > now + shortest)
    }

    /// Notes the attempt; a new one is counted, unless Lambda only repeats the invocation that failed for good.
    pub fn take_up(&mut self, attempt: Attempt) {
        let today = attempt.started.to_offset(UtcOffset::UTC).date();
        if attempt.number > self.attempts.last {
            let repeats = self.halted.as_ref().is_some_and(|halt| halt.holder.as_ref() == Some(&attempt.holder));
            let on_day =
                if self.attempts.day == Some(today) { self.attempts.on_day.saturating_add(u32::from(!repeats)) } else { 1 };
            self.attempts = Attempts { last: attempt.number, day: Some(today), on_day };
        }
        self.attempt = Some(attempt);
    }
}

impl Attempt {
    /// It can come to nothing any more. It stays until another begins in its place: what was asked for is still to be done.
    pub fn in_vain(self, now: OffsetDateTime) -> Self {
        Self {
            started: (*self.started).min(now - TOKEN_LIFE).into(),
            lease: now.into(),
            certificate_arn: None,
            staged: None,
            ..self
        }
    }

    /// When the certificate that it asks for ends.
    pub fn not_after(&self, wanted: &Specification) -> OffsetDateTime {
        self.end.map_or_else(|| *self.started + wanted.lifetime, |end| *end)
    }

    /// The token of one step: 32 hexadecimal digits, which every service of AWS takes. All tries of one attempt share it, the next
    /// attempt has another; it says nothing about the key.
    ///
    /// The version that the attempt replaces is part of it, so that numbers that begin anew after the table was lost do not meet
    /// the tokens of the first time.
    pub fn token(&self, prefix: &str, name: &CertificateName, step: &str) -> String {
        let Self { number, replaces, .. } = self;
        let text = format!("{prefix}\n{name}\n{number}\n{}\n{step}", replaces.as_deref().unwrap_or("-"));
        crate::leaf::hex(&Sha256::digest(text))[..32].to_owned()
    }

    /// The version of the secret that the pair of this serial goes into.
    pub fn version(&self, prefix: &str, name: &CertificateName, serial: &Serial) -> String {
        self.rotation.clone().unwrap_or_else(|| self.token(prefix, name, &format!("pair {serial}")))
    }
}

/// The token of the version `{}` that a secret is created with.
pub fn empty_version(prefix: &str, name: &CertificateName) -> String {
    crate::leaf::hex(&Sha256::digest(format!("{prefix}\n{name}\nempty")))[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Halt;
    use crate::samples::{CA, arn, at, attempt, exported, halt, issued};

    const NOON: &str = "2026-11-22T12:00:00Z";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn staged() -> Staged {
        Staged { version_id: "version-2".to_owned(), serial: Serial::from_hex("0c03"), issuer: Some(arn(CA)) }
    }

    /// Whose turn it is this long after [`attempt`] began, for `holder` and the version `replaces`.
    fn turn_after(attempt: Attempt, passed: Duration, holder: &str, replaces: Option<&str>) -> Turn {
        let now = *attempt.started + passed;
        let mut record = issued();
        record.take_up(attempt);
        turn(&record, holder, "due", replaces, now)
    }

    #[test]
    fn a_first_attempt_begins_with_everything_that_its_tokens_need() {
        let now = at(NOON);
        let Turn::Begin(begun) = turn(&issued(), "me", "due", Some("version-1"), now) else { panic!("it does not begin") };
        let expected = Attempt { number: 1, holder: "me".to_owned(), lease: (now + LEASE).into(), ..attempt(now) };
        assert_eq!(begun, expected);
    }

    #[test]
    fn an_attempt_goes_on_until_it_is_dead_and_belongs_to_one_at_a_time() {
        #[derive(Debug, PartialEq)]
        enum Is {
            Busy,
            Resumed,
            Dead,
        }
        let begun = attempt(at(NOON));
        let with_arn = Attempt { certificate_arn: Some(arn(&format!("{CA}/certificate/ab"))), ..begun.clone() };
        let waiting = Attempt { staged: Some(staged()), lease: begun.started, ..with_arn.clone() };
        let to_a_date = Attempt { end: Some((at(NOON) + seconds(3600)).into()), ..waiting.clone() };
        let (same, other) = (Some("version-1"), Some("version-2"));
        for (what, attempt, passed, holder, replaces, expected) in [
            ("within another's lease", &begun, 149, "me", same, Is::Busy),
            ("within another's lease, with its answer", &with_arn, 149, "me", same, Is::Busy),
            ("within another's lease, on another version", &begun, 149, "me", other, Is::Busy),
            ("when another's lease ends", &begun, 150, "me", same, Is::Resumed),
            ("within its own lease", &begun, 1, "somebody", same, Is::Resumed),
            ("before four minutes", &begun, 239, "me", same, Is::Resumed),
            ("at four minutes", &begun, 240, "me", same, Is::Dead),
            ("at four minutes, by its own holder", &begun, 240, "somebody", same, Is::Dead),
            ("at four minutes, with its answer", &with_arn, 240, "me", same, Is::Resumed),
            ("days after, with its answer", &with_arn, 9 * 86_400, "me", same, Is::Resumed),
            ("while it waits for trust", &waiting, 1, "me", same, Is::Resumed),
            ("weeks after, still waiting for trust", &waiting, 21 * 86_400, "me", same, Is::Resumed),
            ("a second before its certificate ends", &waiting, 30 * 86_400 - 1, "me", same, Is::Resumed),
            ("when its certificate has ended", &waiting, 30 * 86_400, "me", same, Is::Dead),
            ("when its certificate has ended, not fetched yet", &with_arn, 30 * 86_400, "me", same, Is::Dead),
            ("at the end that was asked for", &to_a_date, 3600, "me", same, Is::Dead),
            ("when another version became current while it waited", &waiting, 1, "me", other, Is::Dead),
            ("when another version became current", &begun, 151, "me", other, Is::Dead),
            ("when another version became current, with its answer", &with_arn, 151, "me", other, Is::Dead),
            ("when nothing is current any more", &with_arn, 151, "me", None, Is::Dead),
        ] {
            let lease = Moment::from(*attempt.started + seconds(passed) + LEASE);
            match turn_after(attempt.clone(), seconds(passed), holder, replaces) {
                Turn::Busy { until } => {
                    assert_eq!((expected, until), (Is::Busy, *attempt.lease), "{what}");
                }
                Turn::Resume(resumed) => {
                    assert_eq!(expected, Is::Resumed, "{what}");
                    assert_eq!(resumed, Attempt { holder: holder.to_owned(), lease, ..attempt.clone() }, "{what}");
                }
                Turn::Begin(next) => {
                    assert_eq!(expected, Is::Dead, "{what}");
                    assert_eq!((next.number, next.certificate_arn, next.staged, next.lease), (8, None, None, lease), "{what}");
                    assert_eq!(next.replaces.as_deref(), replaces, "{what}");
                }
                Turn::Exhausted { .. } => panic!("{what}: exhausted"),
            }
        }
    }

    #[test]
    fn what_was_in_vain_is_followed_by_another_at_once_whoever_comes() {
        let now = at(NOON) + seconds(60);
        let (ca_says, rotation) = (Some(arn(&format!("{CA}/certificate/ab"))), Some("version-9".to_owned()));
        let begun = Attempt { certificate_arn: ca_says, staged: Some(staged()), rotation, ..attempt(at(NOON)) };
        let mut record = issued();
        record.take_up(begun.in_vain(now));
        let Turn::Begin(next) = turn(&record, "me", "due", Some("version-1"), now) else { panic!("it does not begin") };
        assert_eq!((next.number, next.rotation.as_deref(), next.certificate_arn), (8, Some("version-9"), None));
    }

    #[test]
    fn an_export_lives_until_another_version_became_current() {
        let begun = attempt(at(NOON));
        let later = at(NOON) + seconds(9 * 86_400);
        let record = Record { attempt: Some(begun.clone()), ..exported() };
        let Turn::Resume(resumed) = turn(&record, "me", "due", Some("version-1"), later) else { panic!("it does not go on") };
        assert_eq!(resumed, Attempt { holder: "me".to_owned(), lease: (later + LEASE).into(), ..begun });
        assert!(matches!(turn(&record, "me", "due", Some("version-2"), later), Turn::Begin(_)));
    }

    #[test]
    fn five_attempts_begin_a_day_by_utc_and_the_sixth_at_midnight() {
        let mut record = issued();
        for n in 1..=A_DAY {
            let now = at("2026-11-22T00:00:00Z") + seconds(u64::from(n) * 600);
            let Turn::Begin(attempt) = turn(&record, "me", "due", Some("version-1"), now) else {
                panic!("attempt {n} does not begin")
            };
            assert_eq!(attempt.number, n);
            record.take_up(attempt);
            assert_eq!((record.attempts.last, record.attempts.on_day), (n, n));
        }
        let midnight = at("2026-11-23T00:00:00Z");
        for (now, exhausted) in [
            ("2026-11-22T02:00:00Z", true),
            ("2026-11-22T23:59:59.999Z", true),
            ("2026-11-23T00:00:00Z", false),
            // The same moments by other clocks.
            ("2026-11-23T00:59:59+01:00", true),
            ("2026-11-22T23:00:00-01:00", false),
        ] {
            match turn(&record, "me", "due", Some("version-1"), at(now)) {
                Turn::Exhausted { until } => assert_eq!((exhausted, until), (true, midnight), "{now}"),
                Turn::Begin(attempt) => {
                    let mut record = record.clone();
                    record.take_up(attempt);
                    let today = Some(midnight.date());
                    assert_eq!((exhausted, record.attempts), (false, Attempts { last: 6, day: today, on_day: 1 }), "{now}");
                }
                turn => panic!("{now}: {turn:?}"),
            }
        }
    }

    #[test]
    fn an_attempt_that_lives_goes_on_even_when_the_days_attempts_are_used_up() {
        let mut record = issued();
        record.take_up(attempt(at(NOON)));
        record.attempts.on_day = A_DAY;
        let turn = turn(&record, "me", "due", Some("version-1"), at(NOON) + seconds(200));
        assert!(matches!(turn, Turn::Resume(_)), "{turn:?}");
    }

    #[test]
    fn taking_an_attempt_up_again_does_not_count_it_again() {
        let mut record = issued();
        record.take_up(attempt(at(NOON)));
        let counted = record.attempts.clone();
        let resumed = Attempt { holder: "me".to_owned(), ..attempt(at(NOON)) };
        record.take_up(resumed.clone());
        assert_eq!((record.attempts, record.attempt), (counted, Some(resumed)));
    }

    #[test]
    fn what_lambda_repeats_after_it_failed_for_good_is_not_counted_again() {
        for (what, halted_by, on_day) in
            [("nothing failed", None, 2), ("somebody else's", Some("other"), 2), ("its own", Some("me"), 1)]
        {
            let mut record = issued();
            record.take_up(attempt(at(NOON)));
            record.halted = halted_by.map(|holder| Halt { holder: Some(holder.to_owned()), ..halt(at(NOON)) });
            record.take_up(Attempt { number: 8, holder: "me".to_owned(), ..attempt(at(NOON)) });
            assert_eq!((record.attempts.last, record.attempts.on_day), (8, on_day), "{what}");
        }
    }

    #[test]
    fn what_secrets_manager_waits_for_passes_to_the_next_attempt_on_the_same_version() {
        let rotation = Some("version-9".to_owned());
        let dead = Attempt { rotation: rotation.clone(), ..attempt(at(NOON)) };
        let filled = Attempt { staged: Some(staged()), ..dead.clone() };
        for (dead, replaces, expected) in [
            (&dead, Some("version-1"), rotation),
            (&dead, Some("version-2"), None),
            (&dead, None, None),
            (&filled, Some("version-1"), None),
        ] {
            match turn_after(dead.clone(), LEASE + TOKEN_LIFE, "me", replaces) {
                Turn::Begin(next) => assert_eq!(next.rotation, expected, "{replaces:?}"),
                turn => panic!("{replaces:?}: {turn:?}"),
            }
        }
    }

    #[test]
    fn a_pair_goes_into_the_version_that_is_waited_for_or_into_one_of_its_serial() {
        let (begun, name, serial) = (attempt(at(NOON)), issued().name, staged().serial);
        assert_eq!(begun.version("everleaf", &name, &serial), begun.token("everleaf", &name, "pair c03"));
        let rotating = Attempt { rotation: Some("version-9".to_owned()), ..begun };
        assert_eq!(rotating.version("everleaf", &name, &serial), "version-9");
    }

    /// AWS and the secrets out there know these texts: another format would begin what is under way a second time.
    #[test]
    fn the_format_of_tokens_never_changes() {
        let (attempt, name) = (attempt(at(NOON)), issued().name);
        assert_eq!(attempt.token("everleaf", &name, "issue"), "965f46c8ad2abaa0b7cb0d13e975e9c8");
        let first = Attempt { replaces: None, ..attempt };
        assert_eq!(first.token("everleaf", &name, "issue"), "069fbf940b3ac7aeab278a47562b20db");
        assert_eq!(empty_version("everleaf", &name), "f8b76debeda20aac2fee85b05f372308");
    }

    #[test]
    fn a_token_is_32_digits_that_depend_on_everything_but_time_and_holder() {
        let (begun, name) = (attempt(at(NOON)), issued().name);
        let token = begun.token("everleaf", &name, "issue");
        let others = [
            begun.token("other", &name, "issue"),
            begun.token("everleaf", &"other".parse().unwrap(), "issue"),
            begun.token("everleaf", &name, "key"),
            Attempt { number: 8, ..begun.clone() }.token("everleaf", &name, "issue"),
            Attempt { replaces: Some("version-2".to_owned()), ..begun.clone() }.token("everleaf", &name, "issue"),
            Attempt { replaces: None, ..begun.clone() }.token("everleaf", &name, "issue"),
            empty_version("everleaf", &name),
            empty_version("other", &name),
            empty_version("everleaf", &"other".parse().unwrap()),
        ];
        let all: std::collections::BTreeSet<_> = others.iter().chain([&token]).collect();
        assert_eq!(all.len(), others.len() + 1, "{all:?}");
        for token in all {
            assert!(token.len() == 32 && token.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{token}");
        }
        let again = Attempt {
            started: at("2027-01-01T00:00:00Z").into(),
            lease: at("2027-01-01T00:00:00Z").into(),
            holder: "me".to_owned(),
            certificate_arn: Some(arn(CA)),
            staged: Some(staged()),
            rotation: Some("version-9".to_owned()),
            end: None,
            callers_key: Some("c03".to_owned()),
            reason: "asked for".to_owned(),
            ..begun
        };
        assert_eq!(again.token("everleaf", &name, "issue"), token);
    }

    #[test]
    fn an_end_that_was_asked_for_is_the_next_ones_until_it_is_near() {
        let hour = Duration::from_secs(60 * 60);
        let end = at(NOON) + hour * 9;
        let asked = Record { end: Some(end.into()), ..issued() };
        let second = Duration::from_secs(1);
        for (what, record, now, next) in [
            ("no date", issued(), at(NOON), None),
            ("nine sweeps before", asked.clone(), at(NOON), None),
            ("a second earlier", asked.clone(), at(NOON) - second, Some(end)),
            ("past", asked.clone(), end + hour, None),
        ] {
            assert_eq!(record.next_end(hour, now).map(|end| *end), next, "{what}");
        }
        let began = |end: Option<OffsetDateTime>| Some(Attempt { end: end.map(Into::into), ..attempt(at(NOON)) });
        let of_version_0_1 = Record { attempt: began(Some(end)), ..issued() };
        let other = Record { attempt: began(Some(end + hour)), ..asked };
        for (record, before) in [(issued(), None), (of_version_0_1, Some(end)), (other, Some(end))] {
            assert_eq!(record.end_asked_for().map(|end| *end), before);
        }
    }
}
