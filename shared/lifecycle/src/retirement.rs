//! A certificate that is not wanted any more.

use serde_json::Value;
use time::OffsetDateTime;

use crate::fields::{Fields, Refusal};
use crate::names::CertificateName;
use crate::record::Record;
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

/// What is revoked with a certificate: its pairs that AWS Private CA issued, that have not expired and are not revoked yet.
pub fn revocations(record: &Record, reason: Reason, now: OffsetDateTime) -> Vec<Revocation> {
    let pairs = [&record.current, &record.previous].into_iter().flatten();
    let valid = pairs.filter(|pair| now < *pair.not_after && !record.is_revoked(&pair.serial));
    valid
        .filter_map(|pair| {
            let authority = pair.issuer.clone().filter(|issuer| issuer.service() == "acm-pca")?;
            Some(Revocation {
                serial: pair.serial.clone(),
                certificate_authority_arn: authority,
                reason,
                asked: now.into(),
                after_rollout: false,
                done: None,
                refused: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::leaf::Serial;
    use crate::record::Pair;
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
        revocations(&both, Reason::Superseded, now).into_iter().take(1).for_each(|revocation| revoked.ask_to_revoke(revocation));
        revoked.revoked(&pair().serial, now);
        for (what, record, serials) in [
            ("both", both, &["a01", "b02"][..]),
            ("one has expired", expired, &["a01"]),
            ("one is not of Private CA", of_acm, &["a01"]),
            ("nobody knows of whom", unknown, &[]),
            ("one is revoked", revoked, &["b02"]),
            ("nothing was issued", Record { current: None, ..issued() }, &[]),
        ] {
            let found = revocations(&record, Reason::Superseded, now);
            let found: Vec<_> = found.iter().map(|revocation| revocation.serial.as_str().to_owned()).collect();
            assert_eq!(found, serials, "{what}");
        }
        assert!(revocations(&issued(), Reason::Superseded, now + DAY * 300).is_empty());
    }
}
