//! A certificate that is not wanted any more.

use serde_json::Value;
use time::OffsetDateTime;

use crate::fields::{Fields, Refusal};
use crate::names::CertificateName;
use crate::record::{Pair, Record};
use crate::revocation::{Reason, Revocation};

/// A request to let go of a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub name: CertificateName,
    /// Why its pairs are revoked, where they are.
    pub reason: Option<Reason>,
    pub dry_run: bool,
}

/// Reads a request.
///
/// ```json
/// {"retire": "orders-mtls", "reason": "CESSATION_OF_OPERATION"}
/// ```
pub fn request(request: &Value) -> Result<Request, Refusal> {
    let mut fields = Fields::of(request, "request", "retire")?;
    let name = fields.required("retire", "the certificate's name");
    let reason = fields.text("reason");
    let dry_run = fields.flag("dry_run");
    fields.nothing_else("retire, reason, dry_run");
    match name {
        Some(name) if fields.reasons.is_empty() => Ok(Request { name, reason, dry_run }),
        _ => Err(Refusal { reasons: fields.reasons }),
    }
}

/// What is revoked with a certificate, at once: what was to be revoked anyway, and, for a reason, its pairs that AWS Private CA
/// issued, that have not expired and are not revoked yet.
pub fn revocations(record: &Record, reason: Option<Reason>, now: OffsetDateTime) -> Vec<Revocation> {
    let worse = |asked| reason.filter(|reason| reason.is_compromise()).unwrap_or(asked);
    let at_once =
        |known: &Revocation| Revocation { reason: worse(known.reason), after_rollout: false, refused: None, ..known.clone() };
    let is_new = |pair: &&Pair| record.revocations.iter().all(|known| known.serial != pair.serial);
    let valid = record.pairs().filter(|pair| now < *pair.not_after);
    let of_pairs = valid.filter(is_new).filter_map(|pair| {
        let certificate_authority_arn = pair.issuer.clone().filter(|issuer| issuer.service() == "acm-pca")?;
        let (serial, reason, asked) = (pair.serial.clone(), reason?, now.into());
        Some(Revocation { serial, certificate_authority_arn, reason, asked, after_rollout: false, done: None, refused: None })
    });
    let has_ended = |known: &Revocation| record.pairs().any(|pair| pair.serial == known.serial && *pair.not_after <= now);
    let pending = record.revocations.iter().filter(|known| known.done.is_none() && !has_ended(known));
    pending.map(at_once).chain(of_pairs).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::leaf::Serial;
    use crate::samples::{DAY, IN_ACM, arn, at, issued, pair};

    #[test]
    fn a_request_names_the_certificate_and_may_say_why_it_is_revoked() {
        let name = "orders-mtls".parse::<CertificateName>().unwrap();
        for (fields, reason, dry_run) in [
            (json!({"retire": "orders-mtls"}), None, false),
            (json!({"retire": "orders-mtls", "reason": "SUPERSEDED", "dry_run": true}), Some(Reason::Superseded), true),
        ] {
            assert_eq!(request(&fields), Ok(Request { name: name.clone(), reason, dry_run }));
        }
        for (fields, parts) in [
            (json!({"retire": "a b", "reason": "BORED", "force": 1}), &["retire: ", "reason: ", "force: "][..]),
            (json!({"retire": "orders-mtls", "reason": "BORED"}), &["reason: "]),
            (json!({"retire": null}), &["retire: is missing"]),
            (json!(null), &["not a JSON object"]),
        ] {
            let reasons = request(&fields).unwrap_err().reasons;
            assert_eq!(reasons.len(), parts.len(), "{reasons:?}");
            assert!(parts.iter().zip(&reasons).all(|(part, reason)| reason.contains(part)), "{reasons:?}");
        }
    }

    #[test]
    fn what_private_ca_issued_and_is_still_good_is_revoked() {
        let now = at("2026-11-10T06:00:00Z");
        let other = |serial: &str| Pair { serial: Serial::from_hex(serial), ..pair() };
        let both = Record { previous: Some(other("0b02")), ..issued() };
        let expired = Record { previous: Some(Pair { not_after: now.into(), ..other("0b02") }), ..issued() };
        let of_acm = Record { previous: Some(Pair { issuer: Some(arn(IN_ACM)), ..other("0b02") }), ..issued() };
        let unknown = Record { current: Some(Pair { issuer: None, ..pair() }), ..issued() };
        let mut revoked = both.clone();
        revocations(&both, Some(Reason::Superseded), now)
            .into_iter()
            .take(1)
            .for_each(|revocation| revoked.ask_to_revoke(revocation));
        revoked.revoked(&pair().serial, now);
        for (what, record, serials) in [
            ("both", both, &["a01", "b02"][..]),
            ("one has expired", expired, &["a01"]),
            ("one is not of Private CA", of_acm, &["a01"]),
            ("nobody knows of whom", unknown, &[]),
            ("one is revoked", revoked, &["b02"]),
            ("nothing was issued", Record { current: None, ..issued() }, &[]),
        ] {
            let found = revocations(&record, Some(Reason::Superseded), now);
            let found: Vec<_> = found.iter().map(|revocation| revocation.serial.as_str().to_owned()).collect();
            assert_eq!(found, serials, "{what}");
        }
        assert!(revocations(&issued(), Some(Reason::Superseded), now + DAY * 300).is_empty());
    }

    #[test]
    fn what_was_to_be_revoked_is_revoked_for_no_better_a_reason() {
        let now = at("2026-11-10T06:00:00Z");
        let waits = |reason| {
            let asked = revocations(&issued(), Some(reason), now - DAY).remove(0);
            let asked = Revocation { after_rollout: true, refused: Some(now.into()), ..asked };
            Record { revocations: vec![asked], ..issued() }
        };
        use Reason::{CessationOfOperation, KeyCompromise, Superseded};
        for (before, with, reason) in [
            (Superseded, None, Superseded),
            (Superseded, Some(CessationOfOperation), Superseded),
            (Superseded, Some(KeyCompromise), KeyCompromise),
            (KeyCompromise, Some(Superseded), KeyCompromise),
        ] {
            let found = revocations(&waits(before), with, now);
            let expected =
                Revocation { reason, asked: (now - DAY).into(), ..revocations(&issued(), Some(reason), now).remove(0) };
            assert_eq!(found, [expected], "{before:?}, {with:?}");
        }
        assert!(revocations(&issued(), None, now).is_empty());
        // What has ended no CA revokes; of a pair that is gone nobody knows when it ends.
        let end = *pair().not_after;
        let mut record = waits(Superseded);
        let gone = Revocation { serial: Serial::from_hex("0c03"), ..record.revocations[0].clone() };
        record.revocations.push(gone);
        let serials = |at| revocations(&record, None, at).into_iter().map(|asked| asked.serial).collect::<Vec<_>>();
        assert_eq!(serials(end - DAY), [pair().serial, Serial::from_hex("0c03")]);
        assert_eq!(serials(end), [Serial::from_hex("0c03")]);
    }
}
