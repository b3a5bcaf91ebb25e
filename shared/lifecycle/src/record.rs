//! What is kept of a certificate between two looks at it. One item of the table each, written whole under its revision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::attempt::{Attempt, Attempts};
use crate::import::Imported;
use crate::leaf::{KeyAlgorithm, Leaf, Serial, Subject, Usage};
use crate::names::{Arn, BadName, CertificateName, Reload, San, ServiceName, TaggedService};
use crate::revocation::Revocation;
use crate::setback::Setback;
use crate::window::Window;

/// Everything known of one certificate. Fields that later versions add are optional: an older record must always be readable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub name: CertificateName,
    pub origin: Origin,
    pub options: Options,
    /// The secret, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_arn: Option<Arn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Pair>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Pair>,
    /// What is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    #[serde(default)]
    pub attempts: Attempts,
    /// Where ACM is to hold the current pair as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
    /// What stands in a certificate of ACM's; of any other the origin says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// When ACM was last asked to renew, and which serial it held then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_asked: Option<RenewalAsked>,
    /// When the next pair is to end, where it was asked for as a date: however often it is tried, until it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Moment>,
    /// What stands against another attempt, for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// What a person was told, by reason, and when last.
    #[serde(default)]
    pub told: BTreeMap<String, Moment>,
    /// What it said, by the same reasons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub messages: BTreeMap<String, String>,
    /// Serials that must never become current again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rejected: BTreeSet<Serial>,
    /// The last pair that had to give way to the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setback: Option<Setback>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
    /// Fingerprints of callers' keys that somebody else may use too: none is signed again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub compromised_keys: BTreeSet<String>,
    /// When it wants to be looked at next, in seconds since 1970: what the sweep's index is sorted by.
    pub look_at: i64,
    /// Grows by one with each write; 0 is not written yet.
    pub revision: u64,
}

/// Where a certificate comes from, with what it is to be where that is ours to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// Issued from AWS Private CA, the key made here.
    Issued(Specification),
    /// Issued from AWS Private CA on a caller's CSR. The key is not here, so it cannot be renewed here.
    CallerKey(Specification),
    /// ACM's: ACM issues and renews, Everleaf exports.
    Exported { certificate_arn: Arn },
    /// Imported into ACM by hand and tagged: replaced under its ARN by one that is issued here before it expires.
    Adopted { certificate_arn: Arn },
}

impl Origin {
    /// As the tag `everleaf:origin` spells it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::CallerKey(_) => "caller-key",
            Self::Exported { .. } => "exported",
            Self::Adopted { .. } => "adopted",
        }
    }
}

/// What stands in a certificate, for people to find it by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// As ACM writes it.
    pub subject: String,
    pub names: BTreeSet<San>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// What a certificate of AWS Private CA is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    pub subject: Subject,
    pub names: BTreeSet<San>,
    pub key_algorithm: KeyAlgorithm,
    pub usage: Usage,
    #[serde(with = "seconds")]
    pub lifetime: Duration,
    pub certificate_authority_arn: Arn,
}

/// What Everleaf does with a certificate; changing it needs no new one, the key's format aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The services that are deployed anew for each pair.
    pub services: BTreeSet<ServiceName>,
    /// The services whose agents fetch each pair; they are left running.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub agent_services: BTreeSet<ServiceName>,
    pub key_format: KeyFormat,
    /// How long before its expiry a certificate is renewed; `None`: when the last third of its lifetime begins.
    #[serde(with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,
    /// The service that gets a new pair first; the others follow once it works there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<ServiceName>,
    /// When the pair may be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<Window>,
    /// Whether the pair stays as it is until a person says otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Whether ACM is to hold the current pair as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub import_to_acm: bool,
}

impl Options {
    /// Takes up a service; whether it is new. It has one way to reload.
    pub fn add(&mut self, service: TaggedService) -> Result<bool, BadName> {
        let TaggedService { name, reload } = service;
        let (same, other) = match reload {
            Reload::Deployment => (&mut self.services, &self.agent_services),
            Reload::Agent => (&mut self.agent_services, &self.services),
        };
        if other.contains(&name) {
            return Err(BadName(format!("`{name}` is to reload both by its agent and by a deployment; choose one")));
        }
        Ok(same.insert(name))
    }

    /// Every service that has the certificate, as tags name them.
    pub fn tagged_services(&self) -> impl Iterator<Item = TaggedService> {
        let deployed = self.services.iter().map(|name| (name, Reload::Deployment));
        let by_agent = self.agent_services.iter().map(|name| (name, Reload::Agent));
        deployed.chain(by_agent).map(|(name, reload)| TaggedService { name: name.clone(), reload })
    }
}

/// How the private key stands in the secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFormat {
    /// PKCS#8 under a passphrase that stands beside it.
    #[default]
    Encrypted,
    /// PKCS#8 as it is.
    Plain,
}

/// A pair of key and certificate that was verified and made current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub version_id: String,
    pub serial: Serial,
    pub not_before: Moment,
    pub not_after: Moment,
    pub fingerprint: String,
    /// SHA-256 over the public key, as [`Leaf::key_fingerprint`].
    pub key_fingerprint: String,
    /// The issuing CA's ARN where AWS tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Arn>,
    /// When it became current, by the clock of Secrets Manager. Tasks started earlier hold an older pair.
    pub since: Moment,
}

impl Pair {
    pub fn of(leaf: &Leaf, version_id: String, issuer: Option<Arn>, since: OffsetDateTime) -> Self {
        Self {
            version_id,
            serial: leaf.serial.clone(),
            not_before: leaf.not_before.into(),
            not_after: leaf.not_after.into(),
            fingerprint: leaf.fingerprint.clone(),
            key_fingerprint: leaf.key_fingerprint.clone(),
            issuer,
            since: since.into(),
        }
    }

    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        *self.not_before <= now && now < *self.not_after
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalAsked {
    pub at: Moment,
    pub serial: Serial,
}

/// A permanent failure: trying again before a person has seen to it would only fail again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub at: Moment,
    pub reason: String,
    /// The invocation that met it. Lambda repeats it all the same, under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

impl Record {
    pub fn new(name: CertificateName, origin: Origin, options: Options, now: OffsetDateTime) -> Self {
        Self {
            name,
            origin,
            options,
            secret_arn: None,
            current: None,
            previous: None,
            attempt: None,
            attempts: Attempts::default(),
            imported: None,
            contents: None,
            renewal_asked: None,
            end: None,
            halted: None,
            told: BTreeMap::new(),
            messages: BTreeMap::new(),
            rejected: BTreeSet::new(),
            setback: None,
            revocations: Vec::new(),
            compromised_keys: BTreeSet::new(),
            look_at: now.unix_timestamp(),
            revision: 0,
        }
    }

    /// Until when somebody is at it: half-way through, secret and record need not agree.
    pub fn busy_until(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let attempt = self.attempt.as_ref().map(|attempt| *attempt.lease);
        let setback = self.setback.as_ref().and_then(|setback| setback.lock.as_ref()).map(|lock| *lock.until);
        attempt.max(setback).filter(|until| *until > now)
    }

    /// The current pair and the one before it.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.current.iter().chain(&self.previous)
    }

    pub fn specification(&self) -> Option<&Specification> {
        match &self.origin {
            Origin::Issued(specification) | Origin::CallerKey(specification) => Some(specification),
            Origin::Exported { .. } | Origin::Adopted { .. } => None,
        }
    }

    /// Makes `pair` the current one. The one before it stays as the previous one; the attempt is over.
    pub fn promote(&mut self, pair: Pair) {
        if self.current.as_ref().is_some_and(|current| current.version_id != pair.version_id) {
            self.previous = self.current.take();
        }
        self.current = Some(pair);
        if self.attempt.take().is_some() {
            // What succeeds is not broken.
            self.attempts.on_day = self.attempts.on_day.saturating_sub(1);
        }
        (self.renewal_asked, self.end, self.halted) = (None, None, None);
    }

    /// The secret is gone for good, and with it each key that was in it: the next pair is a first one.
    pub fn forget_secret(&mut self) {
        (self.secret_arn, self.attempt, self.setback) = (None, None, None);
        (self.current, self.previous) = (None, None);
    }

    /// Whether a person may be told of `reason` now: once a day each, and of each pair. What comes a few minutes earlier in its
    /// day than the day before is the next day's.
    pub fn may_tell(&self, reason: &str, now: OffsetDateTime) -> bool {
        let of_another_pair = |told: &Moment| self.current.as_ref().is_some_and(|pair| *told < pair.since);
        let a_day_ago = |told: &Moment| now - **told >= time::Duration::days(1) - time::Duration::minutes(10);
        self.told.get(reason).is_none_or(|told| of_another_pair(told) || a_day_ago(told))
    }
}

/// A point in time that stands as RFC 3339 text wherever it is written, so that the table can be read by people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "within_reason")] OffsetDateTime);

impl From<OffsetDateTime> for Moment {
    /// A certificate may have no end: year 9999. What is reckoned from there has to stay a time that can be told.
    fn from(at: OffsetDateTime) -> Self {
        Self(at.clamp(datetime!(1970-01-01 00:00 UTC), datetime!(9000-01-01 00:00 UTC)))
    }
}

impl std::ops::Deref for Moment {
    type Target = OffsetDateTime;

    fn deref(&self) -> &OffsetDateTime {
        &self.0
    }
}

mod within_reason {
    pub(super) use time::serde::rfc3339::serialize;

    use super::{Moment, OffsetDateTime};

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        time::serde::rfc3339::deserialize(deserializer).map(|at| *Moment::from(at))
    }
}

/// No request may ask for more.
pub const LONGEST: Duration = Duration::from_secs(100_000 * 24 * 60 * 60);

mod seconds {
    use super::{Deserialize, Duration, LONGEST};

    pub(super) fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(|seconds| Duration::from_secs(seconds).min(LONGEST))
    }
}

mod optional_seconds {
    use super::{Deserialize, Duration, LONGEST};

    pub(super) fn serialize<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&duration.as_secs()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(|seconds| Duration::from_secs(seconds).min(LONGEST)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attempt::{A_DAY, Staged};
    use crate::import::Lease;
    use crate::revocation::Reason;
    use crate::rollout::Lock;
    use crate::samples::{self, DAY, HOUR, arn, at, attempt, exported, halt, issued, pair};

    /// Every field has something in it.
    fn full() -> Record {
        let now = at("2026-11-22T05:47:00.123Z");
        let mut record = issued();
        record.options.services = ["payments/orders", "payments/refunds"].map(|name| name.parse().unwrap()).into();
        record.options.renew_before = Some(HOUR * 36);
        record.secret_arn = Some(arn("arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/orders-client-AbCd3F"));
        record.previous = Some(Pair { version_id: "version-0".to_owned(), issuer: None, ..pair() });
        record.take_up(attempt(now));
        record.attempt = Some(Attempt { certificate_arn: Some(arn(&format!("{}/certificate/ab", samples::CA))), ..attempt(now) });
        record.renewal_asked = Some(RenewalAsked { at: now.into(), serial: Serial::from_hex("0a01") });
        record.halted = Some(halt(now));
        record.told.insert("renewal-late".to_owned(), now.into());
        record.rejected.insert(Serial::from_hex("0b02"));
        record.revision = 12;
        record
    }

    /// [`full`] with what came after version 0.1.
    fn fullest() -> Record {
        let (now, authority) = (at("2026-11-22T05:47:00.123Z"), arn(samples::CA));
        let staged =
            Staged { version_id: "version-2".to_owned(), serial: Serial::from_hex("0c03"), issuer: Some(authority.clone()) };
        let asked = Revocation {
            serial: pair().serial,
            certificate_authority_arn: authority,
            reason: Reason::Superseded,
            asked: now.into(),
            after_rollout: true,
            done: None,
            refused: None,
        };
        let done = Revocation { serial: Serial::from_hex("0b02"), after_rollout: false, done: Some(now.into()), ..asked.clone() };
        let mut record = full();
        record.options.agent_services = ["payments/mesh".parse().unwrap()].into();
        record.messages.insert("renewal-late".to_owned(), "it expires soon".to_owned());
        let (end, callers_key) = (Some(now.into()), Some("5d".repeat(32)));
        let attempt = record.attempt.clone().map(|attempt| Attempt { staged: Some(staged), end, callers_key, ..attempt });
        let options = Options { import_to_acm: true, ..record.options.clone() };
        let imported = Imported {
            certificate_arn: Some(arn(samples::IN_ACM)),
            serial: Some(Serial::from_hex("0a00")),
            lease: Some(Lease { holder: "somebody".to_owned(), until: now.into() }),
            asked: Some(now.into()),
            refused: Some(now.into()),
        };
        let halted = record.halted.clone().map(|halt| Halt { holder: Some("request-1".to_owned()), ..halt });
        let contents = Some(samples::held().contents());
        let lock = Some(Lock { holder: "somebody".to_owned(), until: now.into(), newest: Some(now.into()) });
        let setback = Some(Setback { lock, ..samples::setback() });
        let revocations = vec![asked, done];
        let compromised_keys = ["5d".repeat(32)].into();
        let imported = Some(imported);
        Record { attempt, options, imported, contents, end, halted, setback, revocations, compromised_keys, ..record }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let caller = Record { origin: Origin::CallerKey(samples::specification()), ..issued() };
        let new = Record { current: None, ..issued() };
        let adopted = Record { origin: Origin::Adopted { certificate_arn: arn(samples::IN_ACM) }, ..new.clone() };
        for record in [fullest(), full(), issued(), exported(), adopted, caller, new] {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        }
    }

    #[test]
    fn what_waits_and_what_is_revoked_stand_in_a_record_by_names_that_never_change() {
        let text = serde_json::to_value(fullest()).unwrap();
        assert_eq!(text["attempt"]["staged"], json!({"version_id": "version-2", "serial": "c03", "issuer": samples::CA}));
        let asked = json!({
            "serial": "a01", "certificate_authority_arn": samples::CA, "reason": "SUPERSEDED", "asked": "2026-11-22T05:47:00.123Z",
            "after_rollout": true
        });
        assert_eq!(text["attempt"]["callers_key"], json!("5d".repeat(32)));
        assert_eq!(text["revocations"][0], asked);
        assert_eq!((&text["revocations"][1]["after_rollout"], &text["revocations"][1]["done"]), (&json!(false), &asked["asked"]));
        assert_eq!(text["options"]["import_to_acm"], json!(true));
        let imported = json!({
            "certificate_arn": samples::IN_ACM, "serial": "a00",
            "asked": "2026-11-22T05:47:00.123Z", "refused": "2026-11-22T05:47:00.123Z",
            "lease": {"holder": "somebody", "until": "2026-11-22T05:47:00.123Z"}
        });
        assert_eq!(text["imported"], imported);
        // Of most certificates there is nothing to say.
        let least = serde_json::to_value(issued()).unwrap();
        let unsaid =
            ([least.get("revocations"), least.get("attempt"), least.get("imported")], least["options"].get("import_to_acm"));
        assert_eq!(unsaid, ([None; 3], None));
    }

    #[test]
    fn a_service_reloads_in_one_way_and_is_written_beside_the_others_only_where_its_agent_does() {
        let mut options = Options::default();
        for (service, taken) in [
            ("payments/orders", Ok(true)),
            ("payments/refunds reload=agent", Ok(true)),
            ("payments/refunds reload=agent", Ok(false)),
            ("payments/orders reload=deployment", Ok(false)),
            ("payments/orders reload=agent", Err("`payments/orders` is to reload both")),
            ("payments/refunds", Err("`payments/refunds` is to reload both")),
        ] {
            match (options.add(service.parse().unwrap()), taken) {
                (Ok(new), Ok(expected)) => assert_eq!(new, expected, "{service}"),
                (Err(BadName(why)), Err(part)) => assert!(why.contains(part), "{service}: {why}"),
                (said, _) => panic!("{service}: {said:?}"),
            }
        }
        let tagged: Vec<_> = options.tagged_services().map(|service| service.to_string()).collect();
        assert_eq!(tagged, ["payments/orders", "payments/refunds reload=agent"]);
        assert_eq!(serde_json::to_value(&options).unwrap()["agent_services"], json!(["payments/refunds"]));
        options.agent_services.clear();
        assert_eq!(serde_json::to_value(&options).unwrap().get("agent_services"), None);
    }

    /// These texts stand in tables out there. A change that fails here needs another way; the texts never change.
    #[test]
    fn the_records_of_version_0_1_are_readable() {
        assert_eq!(serde_json::from_str::<Record>(include_str!("../tests-data/record-0.1.json")).unwrap(), full());
        let least = r#"{
            "name": "orders-acm",
            "origin": {"kind": "exported", "certificate_arn": "arn:aws:acm:eu-central-1:111122223333:certificate/2"},
            "options": {},
            "look_at": 1795326420,
            "revision": 1
        }"#;
        let record: Record = serde_json::from_str(least).unwrap();
        assert_eq!((record.options, record.attempts, record.current), (Options::default(), Attempts::default(), None));
        assert_eq!(
            record.origin,
            Origin::Exported { certificate_arn: arn("arn:aws:acm:eu-central-1:111122223333:certificate/2") }
        );
    }

    /// One record that makes the sweep panic would keep all others from being renewed.
    #[test]
    fn no_time_in_a_record_is_so_far_away_that_nothing_can_be_reckoned_from_it() {
        for (text, read) in [
            ("9999-12-31T23:59:59.999999999Z", "9000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59-23:59", "9000-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
            ("2026-11-22T05:47:00.123+01:00", "2026-11-22T04:47:00.123Z"),
        ] {
            let moment: Moment = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(moment, at(read).into(), "{text}");
            assert_eq!(moment, at(text).into(), "{text}");
            assert!(*moment + LONGEST > *moment - LONGEST);
        }
        let mut endless = serde_json::to_value(issued()).unwrap();
        endless["origin"]["lifetime"] = json!(u64::MAX);
        endless["options"]["renew_before"] = json!(u64::MAX);
        let record: Record = serde_json::from_value(endless).unwrap();
        let longest = Some(DAY * 100_000);
        assert_eq!(record.specification().map(|wanted| wanted.lifetime), longest);
        assert_eq!(record.options.renew_before, longest);
    }

    #[test]
    fn whoever_is_at_a_certificate_has_it_until_the_later_of_lease_and_lock_ends() {
        let (early, late) = (at("2026-11-22T06:00:00Z"), at("2026-11-22T06:02:30Z"));
        let moment = Duration::from_millis(1);
        let record = |lease: OffsetDateTime, until: OffsetDateTime| {
            let attempt = fullest().attempt.map(|attempt| Attempt { lease: lease.into(), ..attempt });
            let lock = Some(Lock { holder: "somebody".to_owned(), until: until.into(), newest: None });
            Record { attempt, setback: Some(Setback { lock, ..samples::setback() }), ..issued() }
        };
        let alone = |leased: Record| (Record { setback: None, ..leased.clone() }, Record { attempt: None, ..leased });
        let (leased, locked) = alone(record(late, late));
        for (what, record, now, until) in [
            ("the lease is longer", record(late, early), early, Some(late)),
            ("the lock is longer", record(early, late), early, Some(late)),
            ("only a lease", leased, late - moment, Some(late)),
            ("only a lock", locked, late - moment, Some(late)),
            ("both are over", record(early, late), late, None),
            ("nobody", issued(), early, None),
        ] {
            assert_eq!(record.busy_until(now), until, "{what}");
        }
    }

    #[test]
    fn a_promoted_pair_ends_what_was_under_way_and_keeps_the_one_before_it() {
        let next = Pair { version_id: "version-2".to_owned(), ..pair() };
        let old = fullest();
        let mut record = old.clone();
        record.promote(next.clone());
        let expected = Record {
            current: Some(next.clone()),
            previous: old.current.clone(),
            attempt: None,
            // It was the one of that day, and not in vain.
            attempts: Attempts { on_day: 0, ..old.attempts },
            renewal_asked: None,
            end: None,
            halted: None,
            ..old
        };
        assert_eq!(record, expected);

        // Again, with the moment that Secrets Manager tells now.
        let later = Pair { since: at("2026-11-22T06:00:00Z").into(), ..next };
        record.promote(later.clone());
        assert_eq!(record, Record { current: Some(later), ..expected });

        let mut first = Record { current: None, ..issued() };
        first.promote(pair());
        assert_eq!((first.current, first.previous), (Some(pair()), None));
    }

    #[test]
    fn a_pair_of_a_leaf_holds_the_leafs_facts() {
        let leaf = Leaf::from_pem(samples::leaf("client")).unwrap();
        let since = at("2026-11-01T01:00:05.25Z");
        let Pair { version_id, serial, not_before, not_after, fingerprint, key_fingerprint, issuer, since: recorded } =
            Pair::of(&leaf, "v".to_owned(), Some(arn(samples::CA)), since);
        assert_eq!((version_id.as_str(), serial, *recorded), ("v", leaf.serial, since));
        assert_eq!((*not_before, *not_after), (leaf.not_before, leaf.not_after));
        assert_eq!((fingerprint, key_fingerprint), (leaf.fingerprint, leaf.key_fingerprint));
        assert_eq!(issuer, Some(arn(samples::CA)));
    }

    #[test]
    fn a_pair_is_valid_from_its_first_second_until_before_its_last() {
        for (now, valid) in [
            ("2026-10-31T23:59:59Z", false),
            ("2026-11-01T00:00:00Z", true),
            ("2026-12-01T00:59:59.999Z", true),
            ("2026-12-01T01:00:00Z", false),
        ] {
            assert_eq!(pair().is_valid_at(at(now)), valid, "{now}");
        }
    }

    #[test]
    fn a_person_is_told_once_a_day_for_each_reason_and_pair() {
        let told = at("2026-11-22T05:47:00Z");
        let mut record = issued();
        assert!(record.may_tell("renewal-late", told));
        record.told.insert("renewal-late".to_owned(), told.into());
        assert!(!record.may_tell("renewal-late", told + DAY - HOUR / 5));
        assert!(record.may_tell("renewal-late", told + DAY - HOUR / 6));
        assert!(record.may_tell("expired", told));
        record.promote(Pair { version_id: "version-2".to_owned(), since: (told + HOUR).into(), ..pair() });
        assert!(record.may_tell("renewal-late", told + HOUR * 2));
        record.told.insert("renewal-late".to_owned(), (told + HOUR).into());
        assert!(!record.may_tell("renewal-late", told + HOUR * 2), "the moment it became current it was told");
        record.told.insert("renewal-late".to_owned(), (told + HOUR * 2).into());
        assert!(!record.may_tell("renewal-late", told + HOUR * 3));
    }

    #[test]
    fn only_what_the_ca_issues_here_has_a_specification() {
        let callers = Record { origin: Origin::CallerKey(samples::specification()), ..issued() };
        let adopted = Record { origin: Origin::Adopted { certificate_arn: arn(samples::IN_ACM) }, ..issued() };
        for (record, kind, specified) in [
            (issued(), "issued", true),
            (callers, "caller-key", true),
            (exported(), "exported", false),
            (adopted, "adopted", false),
        ] {
            assert_eq!((record.origin.as_str(), record.specification().is_some()), (kind, specified));
            assert_eq!(record.is_adopted(), kind == "adopted");
            assert_eq!(serde_json::to_value(&record.origin).unwrap()["kind"], kind);
        }
    }

    #[test]
    fn a_new_record_wants_to_be_looked_at_at_once() {
        let now = at("2026-11-22T05:47:00Z");
        let new = Record::new(issued().name, issued().origin, Options::default(), now);
        assert_eq!((new.look_at, new.revision, new.attempts.on_day < A_DAY), (now.unix_timestamp(), 0, true));
    }
}
