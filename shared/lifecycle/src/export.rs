//! What ACM holds and what the secret holds, compared.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::leaf::{KeyAlgorithm, Serial};
use crate::names::{Arn, San};
use crate::record::{Contents, Record};

/// A certificate as ACM describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub certificate_arn: Arn,
    pub status: String,
    /// `PRIVATE`, `AMAZON_ISSUED` or `IMPORTED`.
    pub kind: String,
    /// A public certificate that was requested with export enabled.
    pub exportable: bool,
    pub subject: String,
    /// ACM tells its DNS names alone.
    pub names: BTreeSet<San>,
    pub key_algorithm: Option<KeyAlgorithm>,
    /// As ACM spells them: `DIGITAL_SIGNATURE`, and `TLS_WEB_SERVER_AUTHENTICATION` among the extended ones.
    pub key_usages: BTreeSet<String>,
    pub extended_key_usages: BTreeSet<String>,
    pub serial: Option<Serial>,
    pub not_before: Option<OffsetDateTime>,
    pub not_after: Option<OffsetDateTime>,
    /// Whether ACM would renew it by itself; it does not until the last renewal was exported.
    pub eligible: bool,
    pub failure: Option<String>,
    pub renewal: Option<Renewal>,
    pub certificate_authority_arn: Option<Arn>,
}

impl Held {
    /// By its owner, or by Everleaf: it is not ACM's to renew.
    pub fn is_imported(&self) -> bool {
        self.kind == "IMPORTED"
    }

    pub fn contents(&self) -> Contents {
        Contents { subject: self.subject.clone(), names: self.names.clone(), key_algorithm: self.key_algorithm }
    }
}

/// ACM's renewal of a certificate, as far as ACM tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub status: String,
    pub reason: Option<String>,
}

/// What is to be done with a certificate of ACM.
#[derive(Clone, Debug, PartialEq)]
pub enum Export {
    /// The secret holds this very certificate.
    Unchanged,
    /// ACM has what the secret has not, or Secrets Manager waits for it under a new passphrase.
    Take { serial: Serial, reason: &'static str },
    /// ACM has not got there yet: ask again.
    TooEarly(String),
    /// It can never be exported as it is.
    Never(String),
}

/// Why what somebody imported is not exported, after its ARN or its name.
pub const WAS_IMPORTED: &str =
    "was imported into ACM, which never gives its key back; renew-on-expiry has it replaced before it expires";

/// Compares. `expected` is the expiry that an event spoke of: a body that ends earlier is the one from before the renewal.
pub fn export(held: &Held, record: Option<&Record>, expected: Option<OffsetDateTime>, now: OffsetDateTime) -> Export {
    let Held { certificate_arn, status, kind, exportable, serial, not_after, failure, .. } = held;
    match (kind.as_str(), *exportable) {
        ("PRIVATE", _) | ("AMAZON_ISSUED", true) => {}
        ("AMAZON_ISSUED", false) => {
            return Export::Never(format!(
                "{certificate_arn} is a public certificate that was requested without export; request one with export enabled, \
                 or remove its tag everleaf:certificate"
            ));
        }
        _ => {
            return Export::Never(format!("{certificate_arn} {WAS_IMPORTED}"));
        }
    }
    let current = record.and_then(|record| record.current.as_ref());
    match (status.as_str(), serial, not_after) {
        ("ISSUED", Some(serial), Some(not_after)) => {
            if expected.is_some_and(|expected| *not_after + time::Duration::minutes(1) < expected) {
                return Export::TooEarly(format!("{certificate_arn} still shows the certificate from before its renewal"));
            }
            if *not_after <= now {
                return Export::Never(format!("{certificate_arn} has expired; request a new certificate"));
            }
            if record.is_some_and(|record| record.rejected.contains(serial)) {
                return Export::Never(format!(
                    "{certificate_arn} holds serial {serial}, which was rejected; renew it in ACM, or request a new one there if it was revoked"
                ));
            }
            let is_rotated = record.and_then(|record| record.attempt.as_ref()).is_some_and(|attempt| attempt.rotation.is_some());
            match current {
                Some(current) if current.serial == *serial && is_rotated => {
                    Export::Take { serial: serial.clone(), reason: "its rotation was left unfinished" }
                }
                Some(current) if current.serial == *serial => Export::Unchanged,
                Some(_) => Export::Take { serial: serial.clone(), reason: "renewed by ACM" },
                None => Export::Take { serial: serial.clone(), reason: "issued by ACM" },
            }
        }
        ("ISSUED" | "PENDING_VALIDATION", ..) => Export::TooEarly(format!("{certificate_arn} is still being issued")),
        (status, ..) => Export::Never(format!(
            "{certificate_arn} is {status}{}; request a new certificate in ACM and move the tags to it",
            failure.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Attempt;
    use crate::record::Pair;
    use crate::samples::{at, attempt, exported, held, pair};

    const NOW: &str = "2026-12-05T12:00:00Z";

    fn renewed() -> Held {
        Held { serial: Some(Serial::from_hex("0c:03")), not_after: Some(at("2028-01-05T00:00:00Z")), ..held() }
    }

    /// The decision in one word, with what goes with it.
    fn words(export: Export) -> (&'static str, String) {
        match export {
            Export::Unchanged => ("unchanged", String::new()),
            Export::Take { serial, reason } => ("take", format!("{serial} {reason}")),
            Export::TooEarly(why) => ("too early", why),
            Export::Never(why) => ("never", why),
        }
    }

    #[test]
    fn what_was_imported_is_not_acms_own() {
        for (kind, expected) in [("IMPORTED", true), ("PRIVATE", false), ("AMAZON_ISSUED", false)] {
            assert_eq!(Held { kind: kind.to_owned(), ..held() }.is_imported(), expected, "{kind}");
        }
    }

    #[test]
    fn what_acm_holds_decides() {
        let record = exported();
        let new = Record { current: None, ..exported() };
        let begun = Record { attempt: Some(attempt(at(NOW))), ..exported() };
        let rotation = Some("version-of-rotation".to_owned());
        let rotated = Record { attempt: Some(Attempt { rotation, ..attempt(at(NOW)) }), ..exported() };
        let rejected = Record { rejected: [Serial::from_hex("0c03")].into(), ..exported() };
        let with = |status: &str| Held { status: status.to_owned(), ..held() };
        let of_kind = |kind: &str, exportable| Held { kind: kind.to_owned(), exportable, ..renewed() };
        let failed = Held { failure: Some("PCA_ACCESS_DENIED".to_owned()), ..with("FAILED") };
        let expired_today = Held { not_after: Some(at(NOW)), ..renewed() };
        let expires_today = Held { not_after: Some(at(NOW) + std::time::Duration::from_secs(1)), ..renewed() };
        for (what, held, record, word, text) in [
            ("the same serial", held(), Some(&record), "unchanged", ""),
            ("the same serial, and a rotation", held(), Some(&rotated), "take", "a01 its rotation was left unfinished"),
            ("the same serial, and another attempt", held(), Some(&begun), "unchanged", ""),
            ("another serial", renewed(), Some(&record), "take", "c03 renewed by ACM"),
            ("another serial, and a rotation", renewed(), Some(&rotated), "take", "c03 renewed by ACM"),
            ("nothing current", held(), Some(&new), "take", "a01 issued by ACM"),
            ("no record", held(), None, "take", "a01 issued by ACM"),
            ("a public one with export", of_kind("AMAZON_ISSUED", true), Some(&record), "take", "c03 renewed by ACM"),
            ("a public one without export", of_kind("AMAZON_ISSUED", false), Some(&record), "never", "requested without export"),
            ("an imported one", of_kind("IMPORTED", true), Some(&record), "never", "never gives its key back"),
            ("not validated", with("PENDING_VALIDATION"), Some(&new), "too early", "still being issued"),
            ("issued, not described yet", Held { serial: None, ..held() }, Some(&new), "too early", "still being issued"),
            ("issued, its dates not yet", Held { not_after: None, ..held() }, Some(&new), "too early", "still being issued"),
            ("a rejected serial", renewed(), Some(&rejected), "never", "serial c03, which was rejected"),
            ("the serial before a rejected one", held(), Some(&rejected), "unchanged", ""),
            ("at its expiry", expired_today, Some(&record), "never", "has expired"),
            ("a second before its expiry", expires_today, Some(&record), "take", "c03 renewed by ACM"),
            ("expired", with("EXPIRED"), Some(&record), "never", "is EXPIRED; request a new certificate"),
            ("revoked", with("REVOKED"), Some(&record), "never", "is REVOKED"),
            ("inactive", with("INACTIVE"), Some(&record), "never", "is INACTIVE"),
            ("not validated in time", with("VALIDATION_TIMED_OUT"), Some(&new), "never", "is VALIDATION_TIMED_OUT"),
            ("failed", failed, Some(&new), "never", "is FAILED (PCA_ACCESS_DENIED); request"),
        ] {
            let (said, why) = words(export(&held, record, None, at(NOW)));
            assert_eq!(said, word, "{what}: {why}");
            assert!(why.contains(text), "{what}: {why}");
            if said == "never" || said == "too early" {
                assert!(why.starts_with("arn:aws:acm:"), "{what}: {why}");
            }
        }
    }

    #[test]
    fn a_body_that_ends_before_the_event_says_is_the_one_from_before_the_renewal() {
        let ends = at("2028-01-05T00:00:00Z");
        for (expected, word) in [
            (None, "take"),
            (Some(ends), "take"),
            // ACM's event and its description may round differently.
            (Some(ends + std::time::Duration::from_secs(60)), "take"),
            (Some(ends + std::time::Duration::from_secs(61)), "too early"),
            // The event of an earlier renewal, late.
            (Some(at("2027-01-31T00:00:00Z")), "take"),
        ] {
            assert_eq!(words(export(&renewed(), Some(&exported()), expected, at(NOW))).0, word, "{expected:?}");
        }
        let before = export(&held(), Some(&exported()), Some(ends), at(NOW));
        assert_eq!(words(before).0, "too early");
    }

    #[test]
    fn after_the_export_of_what_acm_holds_there_is_nothing_to_do() {
        let mut record = exported();
        let Export::Take { serial, .. } = export(&renewed(), Some(&record), None, at(NOW)) else { panic!("nothing to take") };
        record.promote(Pair { serial, version_id: "version-2".to_owned(), ..pair() });
        assert_eq!(export(&renewed(), Some(&record), None, at(NOW)), Export::Unchanged);
    }
}
