//! Revocation: asked for once, recorded first, and done when its time has come.
//!
//! ```text
//!   of a compromised key:    asked ─▶ revoked ─▶ replaced
//!   for any other reason:    asked ─▶ replaced ─▶ rolled out ─▶ revoked
//!   of one not current:      asked ─▶ revoked
//! ```

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::fields::{Fields, Refusal};
use crate::leaf::Serial;
use crate::names::{Arn, AuthorityArn, BadName, CertificateName, ServiceName, one_of};
use crate::record::{Moment, Origin, Record};
use crate::renewal::ROLLOUT_GRACE;
use crate::rollout::{AGENT_GRACE, BindingState};

/// One serial that is to be revoked, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub serial: Serial,
    pub certificate_authority_arn: Arn,
    pub reason: Reason,
    pub asked: Moment,
    /// The pair was current and its key is safe: first another one is brought to every service.
    #[serde(default)]
    pub after_rollout: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Moment>,
    /// When the CA last refused it for good. It is asked again a day later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Moment>,
}

/// Why a certificate is revoked, as AWS Private CA spells it.
/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_RevokeCertificate.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    AACompromise,
    AffiliationChanged,
    CertificateAuthorityCompromise,
    CessationOfOperation,
    KeyCompromise,
    PrivilegeWithdrawn,
    Superseded,
    Unspecified,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::AACompromise,
        Self::AffiliationChanged,
        Self::CertificateAuthorityCompromise,
        Self::CessationOfOperation,
        Self::KeyCompromise,
        Self::PrivilegeWithdrawn,
        Self::Superseded,
        Self::Unspecified,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AACompromise => "A_A_COMPROMISE",
            Self::AffiliationChanged => "AFFILIATION_CHANGED",
            Self::CertificateAuthorityCompromise => "CERTIFICATE_AUTHORITY_COMPROMISE",
            Self::CessationOfOperation => "CESSATION_OF_OPERATION",
            Self::KeyCompromise => "KEY_COMPROMISE",
            Self::PrivilegeWithdrawn => "PRIVILEGE_WITHDRAWN",
            Self::Superseded => "SUPERSEDED",
            Self::Unspecified => "UNSPECIFIED",
        }
    }

    /// Somebody else may use the key: better no certificate than this one.
    pub fn is_compromise(self) -> bool {
        matches!(self, Self::AACompromise | Self::CertificateAuthorityCompromise | Self::KeyCompromise)
    }
}

impl FromStr for Reason {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        one_of(text, Self::ALL, Self::as_str)
    }
}

/// A request to revoke.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub name: CertificateName,
    pub serial: Serial,
    pub reason: Reason,
    /// For a serial that Everleaf does not remember the CA of.
    pub certificate_authority_arn: Option<Arn>,
    pub dry_run: bool,
}

impl FromStr for Serial {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let hexadecimal = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        let serial = Self::from_hex(text);
        // Nothing is left of zero, which is nobody's serial.
        match hexadecimal && !serial.as_str().is_empty() {
            true => Ok(serial),
            false => Err(BadName(format!("`{text}` is not a serial number in hexadecimal digits, with or without colons"))),
        }
    }
}

/// Reads a request.
///
/// ```json
/// {"revoke": "orders-mtls", "serial_number": "4a6f…", "reason": "KEY_COMPROMISE"}
/// ```
pub fn request(request: &Value) -> Result<Request, Refusal> {
    let mut fields = Fields::of(request, "request", "revoke")?;
    let name = fields.required("revoke", "the certificate's name");
    let serial =
        fields.required("serial_number", "the serial number in hexadecimal, so that no other certificate is revoked by mistake");
    let reason = fields.required("reason", &format!("one of {}", Reason::ALL.map(Reason::as_str).join(", ")));
    let authority = fields.text::<AuthorityArn>("certificate_authority_arn");
    let dry_run = fields.flag("dry_run");
    fields.nothing_else("revoke, serial_number, reason, certificate_authority_arn, dry_run");
    match (fields.reasons.is_empty(), name, serial, reason) {
        (true, Some(name), Some(serial), Some(reason)) => {
            Ok(Request { name, serial, reason, certificate_authority_arn: authority.map(|AuthorityArn(arn)| arn), dry_run })
        }
        _ => Err(Refusal { reasons: fields.reasons }),
    }
}

/// What a request means for a certificate. One that was made before is answered by what was recorded then.
pub fn revocation(request: &Request, record: &Record, now: OffsetDateTime) -> Result<Revocation, Refusal> {
    let Request { name, serial, reason, certificate_authority_arn, dry_run: _ } = request;
    if let Some(known) = record.revocations.iter().find(|known| known.serial == *serial) {
        let worse = known.done.is_none() && known.after_rollout && reason.is_compromise();
        // Asked again by hand, it is tried again at once.
        let again = Revocation { refused: None, ..known.clone() };
        return Ok(if worse { Revocation { reason: *reason, after_rollout: false, ..again } } else { again });
    }
    let pair = record.pairs().find(|pair| pair.serial == *serial);
    let authority = match (pair, record.specification()) {
        (Some(pair), _) => pair.issuer.clone(),
        (None, Some(specification)) => {
            certificate_authority_arn.clone().or_else(|| Some(specification.certificate_authority_arn.clone()))
        }
        (None, None) => certificate_authority_arn.clone(),
    };
    let Some(authority) = authority.filter(|authority| authority.service() == "acm-pca") else {
        return Err(Refusal::because(match pair {
            Some(_) => {
                format!("serial_number: {serial} of `{name}` was not issued by AWS Private CA; revoke it where it was issued")
            }
            None => format!(
                "certificate_authority_arn: is missing, and serial {serial} is neither the current nor the previous one of `{name}`; name the CA that issued it"
            ),
        }));
    };
    let is_current = record.current.as_ref().is_some_and(|current| current.serial == *serial);
    Ok(Revocation {
        serial: serial.clone(),
        certificate_authority_arn: authority,
        reason: *reason,
        asked: now.into(),
        after_rollout: is_current && !reason.is_compromise(),
        done: None,
        refused: None,
    })
}

impl Revocation {
    /// Text for people: `serial 4a6f… is to be revoked (SUPERSEDED)`.
    pub fn in_words(&self) -> String {
        let what = if self.done.is_some() { "was revoked" } else { "is to be revoked" };
        format!("serial {} {what} ({})", self.serial, self.reason.as_str())
    }

    /// Whether the CA is to be told now.
    pub fn is_ready(&self, record: &Record, services: &BTreeMap<ServiceName, BindingState>, now: OffsetDateTime) -> bool {
        let rests = self.refused.is_some_and(|refused| now - *refused < REST);
        if self.done.is_some() || rests {
            return false;
        }
        let Some(current) = &record.current else { return true };
        let replaced = current.serial != self.serial && now >= *current.since + ROLLOUT_GRACE;
        let on_current = |service: &ServiceName| services.get(service).is_some_and(|state| state.is_on(*current.since));
        let by_agents = record.options.agent_services.is_empty() || now >= *current.since + AGENT_GRACE;
        !self.after_rollout || replaced && by_agents && record.options.services.iter().all(on_current)
    }
}

/// How long the CA is left in peace that has refused for good.
const REST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many revocations that are done are remembered.
const REMEMBERED: usize = 20;

impl Record {
    /// The revocations of the other pairs, a staged one too, that have the compromised key of this one, which its caller has had
    /// signed again.
    pub fn of_the_same_key(&self, revocation: &Revocation, now: OffsetDateTime) -> Vec<Revocation> {
        let key = self.pairs().find(|pair| pair.serial == revocation.serial && revocation.reason.is_compromise());
        let Some(key) = key.map(|pair| &pair.key_fingerprint) else { return Vec::new() };
        let others = self.pairs().filter(|pair| pair.serial != revocation.serial && pair.key_fingerprint == *key);
        let alive = others.filter(|pair| now < *pair.not_after && !self.is_revoked(&pair.serial));
        let asked = Revocation { done: None, refused: None, ..revocation.clone() };
        let staged = self.attempt.as_ref().filter(|attempt| attempt.callers_key.as_ref() == Some(key));
        let staged = staged.and_then(|attempt| attempt.staged.as_ref()).map(|staged| (&staged.serial, staged.issuer.as_ref()));
        let alive = alive.map(|pair| (&pair.serial, pair.issuer.as_ref()));
        let of = |(serial, issuer): (&Serial, Option<&Arn>)| {
            let authority = issuer.unwrap_or(&asked.certificate_authority_arn);
            Revocation { serial: serial.clone(), certificate_authority_arn: authority.clone(), ..asked.clone() }
        };
        alive.chain(staged).map(of).collect()
    }

    /// Whether this key is not to be signed again. What version 0.1 recorded says it by the serial alone.
    pub fn has_compromised(&self, key_fingerprint: &str) -> bool {
        let compromised =
            |serial: &Serial| self.revocations.iter().any(|known| known.serial == *serial && known.reason.is_compromise());
        self.compromised_keys.contains(key_fingerprint)
            || self.pairs().any(|pair| pair.key_fingerprint == key_fingerprint && compromised(&pair.serial))
    }

    /// Notes a revocation that was asked for, once for each serial.
    pub fn ask_to_revoke(&mut self, revocation: Revocation) {
        if matches!(self.origin, Origin::CallerKey(_)) && revocation.reason.is_compromise() {
            let compromised = self.pairs().filter(|pair| pair.serial == revocation.serial);
            let keys: Vec<_> = compromised.map(|pair| pair.key_fingerprint.clone()).collect();
            self.compromised_keys.extend(keys);
        }
        match self.revocations.iter_mut().find(|known| known.serial == revocation.serial) {
            Some(known) => *known = revocation,
            None => self.revocations.push(revocation),
        }
    }

    /// Whether this is the serial of a pair of the secret that has not expired.
    pub fn knows_alive(&self, serial: &Serial, now: OffsetDateTime) -> bool {
        self.pairs().any(|pair| pair.serial == *serial && *pair.not_after > now)
    }

    /// Notes that the CA refused to revoke a serial: for now, or for ever because it knows no such certificate, or an expired one.
    pub fn not_revoked(&mut self, serial: &Serial, for_ever: bool, now: OffsetDateTime) {
        if for_ever {
            self.revocations.retain(|known| known.serial != *serial);
        } else if let Some(known) = self.revocations.iter_mut().find(|known| known.serial == *serial) {
            known.refused = Some(now.into());
        }
    }

    /// Notes that the CA has revoked a serial. It never becomes current again.
    pub fn revoked(&mut self, serial: &Serial, now: OffsetDateTime) {
        if let Some(revocation) = self.revocations.iter_mut().find(|revocation| revocation.serial == *serial) {
            revocation.done = Some(now.into());
        }
        self.rejected.insert(serial.clone());
        // That of the current pair is the reason why it is to be replaced.
        let current = self.current.as_ref().map(|pair| &pair.serial);
        let may_go = |known: &Revocation| known.done.is_some() && Some(&known.serial) != current;
        if self.revocations.iter().filter(|known| may_go(known)).count() > REMEMBERED
            && let Some(oldest) = self.revocations.iter().position(may_go)
        {
            self.revocations.remove(oldest);
        }
    }

    /// Whether the CA has revoked this serial.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revocations.iter().any(|revocation| revocation.serial == *serial && revocation.done.is_some())
    }

    /// Whether this serial is revoked, or is to be without anything to wait for.
    pub(crate) fn revokes_at_once(&self, serial: &Serial) -> bool {
        self.revocations.iter().any(|revocation| revocation.serial == *serial && !revocation.after_rollout)
    }

    /// The revocation of the current pair, asked for or done: it is to be replaced.
    pub fn revocation_of_current(&self) -> Option<&Revocation> {
        let serial = &self.current.as_ref()?.serial;
        self.revocations.iter().find(|revocation| revocation.serial == *serial)
    }

    /// Whether the current pair's key is known to others, so that nothing is a reason to wait with the next one.
    pub fn is_compromised(&self) -> bool {
        self.revocation_of_current().is_some_and(|revocation| !revocation.after_rollout)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attempt::{Attempt, Staged};
    use crate::record::{Options, Pair};
    use crate::rollout::Progress;
    use crate::samples::{CA, DAY, HOUR, IN_ACM, arn, at, attempt, exported, followed, issued, pair, specification};

    const NOW: &str = "2026-11-22T06:00:00Z";
    const OTHER_CA: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/33333333-3333-3333-3333-333333333333";

    fn serial(text: &str) -> Serial {
        text.parse().unwrap()
    }

    fn asked(serial: &str, reason: Reason) -> Request {
        Request { name: issued().name, serial: self::serial(serial), reason, certificate_authority_arn: None, dry_run: false }
    }

    /// Of the pair of [`issued`], which is current, for a reason that can wait.
    fn superseded() -> Revocation {
        revocation(&asked("a01", Reason::Superseded), &issued(), at(NOW)).unwrap()
    }

    /// [`issued`] with a pair before the current one.
    fn renewed() -> Record {
        let previous = Pair { serial: serial("0b:02"), issuer: Some(arn(OTHER_CA)), ..pair() };
        Record { previous: Some(previous), ..issued() }
    }

    #[test]
    fn a_pair_of_the_secret_is_known_to_live_until_it_expires() {
        let expiry = *pair().not_after;
        for (what, known, now, expected) in [
            ("the current one", "a01", at(NOW), true),
            ("the one before", "b02", at(NOW), true),
            ("another", "c03", at(NOW), false),
            ("at its expiry", "a01", expiry, false),
            ("the moment before", "a01", expiry - Duration::from_secs(1), true),
        ] {
            assert_eq!(renewed().knows_alive(&serial(known), now), expected, "{what}");
        }
    }

    #[test]
    fn every_field_of_a_request_is_read() {
        let least = json!({"revoke": "orders-client", "serial_number": "0A:01", "reason": "KEY_COMPROMISE"});
        let expected = asked("a01", Reason::KeyCompromise);
        assert_eq!(request(&least), Ok(expected.clone()));
        let all = json!({
            "revoke": "orders-client", "serial_number": "a01", "reason": "KEY_COMPROMISE",
            "certificate_authority_arn": CA, "dry_run": true
        });
        assert_eq!(request(&all), Ok(Request { certificate_authority_arn: Some(arn(CA)), dry_run: true, ..expected }));
    }

    #[test]
    fn a_bad_request_is_told_everything_that_is_wrong_with_it_at_once() {
        let with = |field: &str, value: Value| {
            let mut request = json!({"revoke": "orders-client", "serial_number": "a01", "reason": "SUPERSEDED"});
            request[field] = value;
            request
        };
        let long = "a".repeat(129);
        let not_hexadecimal = "is not a serial number in hexadecimal digits, with or without colons";
        for (bad, expected) in [
            (with("revoke", json!(null)), &[("revoke", "is missing; give the certificate's name")][..]),
            (with("revoke", json!("a b")), &[("revoke", "has a character other than")]),
            (with("serial_number", json!(null)), &[("serial_number", "is missing; give the serial number in hexadecimal")]),
            (with("serial_number", json!(7)), &[("serial_number", "`7` is not text")]),
            (with("serial_number", json!("")), &[("serial_number", not_hexadecimal)]),
            (with("serial_number", json!("0x0a01")), &[("serial_number", not_hexadecimal)]),
            (with("serial_number", json!("a 1")), &[("serial_number", not_hexadecimal)]),
            (with("serial_number", json!(":")), &[("serial_number", not_hexadecimal)]),
            (with("serial_number", json!("00:00")), &[("serial_number", not_hexadecimal)]),
            (with("serial_number", json!(long)), &[("serial_number", not_hexadecimal)]),
            (with("reason", json!(null)), &[("reason", "is missing; give one of A_A_COMPROMISE, AFFILIATION_CHANGED,")]),
            (with("reason", json!("superseded")), &[("reason", "`superseded` is not one of A_A_COMPROMISE,")]),
            (
                with("certificate_authority_arn", json!(IN_ACM)),
                &[("certificate_authority_arn", "is not an ARN of the form arn:aws:acm-pca:")],
            ),
            (with("dry_run", json!("yes")), &[("dry_run", "`\"yes\"` is neither true nor false")]),
            (
                with("name", json!("orders-client")),
                &[("name", "known are revoke, serial_number, reason, certificate_authority_arn, dry_run")],
            ),
            (
                json!({"revoke": "/", "serial_number": "g", "certificate_authority_arn": 7, "dry_run": 1, "why": "so"}),
                &[
                    ("revoke", "has an empty part"),
                    ("serial_number", not_hexadecimal),
                    ("reason", "is missing"),
                    ("certificate_authority_arn", "`7` is not text"),
                    ("dry_run", "`1` is neither"),
                    ("why", "is not a field"),
                ],
            ),
        ] {
            let said = request(&bad).expect_err(&bad.to_string()).reasons;
            assert_eq!(said.len(), expected.len(), "{bad}: {said:#?}");
            for (said, (field, part)) in said.iter().zip(expected) {
                assert!(said.starts_with(&format!("{field}: ")) && said.contains(part), "{bad}: {said}");
            }
        }
        let said = request(&json!("orders-client")).unwrap_err().to_string();
        assert_eq!(said, "the request is not a JSON object; give one with at least `revoke`");
    }

    #[test]
    fn a_serial_is_the_same_whoever_writes_it_up_to_128_characters() {
        for text in ["a01", "0A:01", "00:00:0a:01", &format!("{}a01", "0".repeat(125))] {
            assert_eq!(serial(text).as_str(), "a01", "{text}");
        }
    }

    #[test]
    fn a_reason_reads_back_as_aws_spells_it_in_text_and_in_json() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        let compromises: Vec<_> = Reason::ALL.into_iter().filter(|reason| reason.is_compromise()).map(Reason::as_str).collect();
        assert_eq!(compromises, ["A_A_COMPROMISE", "CERTIFICATE_AUTHORITY_COMPROMISE", "KEY_COMPROMISE"]);
    }

    #[test]
    fn a_serial_is_revoked_by_the_ca_that_issued_it_and_the_current_one_after_its_replacement_unless_it_is_compromised() {
        let acm = |issuer: Option<&str>| Record {
            current: Some(Pair { issuer: issuer.map(arn), ..pair() }),
            previous: None,
            ..exported()
        };
        let (wait, at_once) = (true, false);
        for (what, record, serial, reason, named, expected) in [
            ("current", renewed(), "a01", Reason::Superseded, None, Ok((CA, wait))),
            ("current, for no reason", renewed(), "a01", Reason::Unspecified, None, Ok((CA, wait))),
            ("current, its owner gone", renewed(), "a01", Reason::CessationOfOperation, None, Ok((CA, wait))),
            ("current, its key lost", renewed(), "a01", Reason::KeyCompromise, None, Ok((CA, at_once))),
            ("current, its CA lost", renewed(), "a01", Reason::CertificateAuthorityCompromise, None, Ok((CA, at_once))),
            ("current, another CA named", renewed(), "a01", Reason::Superseded, Some(OTHER_CA), Ok((CA, wait))),
            ("previous", renewed(), "b02", Reason::Superseded, None, Ok((OTHER_CA, at_once))),
            ("older, of the CA that issues now", renewed(), "c03", Reason::Superseded, None, Ok((CA, at_once))),
            ("older, of the CA that is named", renewed(), "c03", Reason::Superseded, Some(OTHER_CA), Ok((OTHER_CA, at_once))),
            ("nothing current", Record { current: None, ..issued() }, "a01", Reason::Superseded, None, Ok((CA, at_once))),
            ("ACM's, private", acm(Some(CA)), "a01", Reason::Superseded, None, Ok((CA, wait))),
            (
                "ACM's, public",
                acm(None),
                "a01",
                Reason::Superseded,
                None,
                Err("serial_number: a01 of `orders-client` was not issued by AWS Private CA; revoke it where it was issued"),
            ),
            (
                "ACM's, public, and a CA named",
                acm(None),
                "a01",
                Reason::KeyCompromise,
                Some(CA),
                Err("was not issued by AWS Private CA"),
            ),
            (
                "of an issuer that is no CA of AWS Private CA",
                acm(Some(IN_ACM)),
                "a01",
                Reason::Superseded,
                None,
                Err("was not issued by AWS Private CA"),
            ),
            (
                "ACM's, older",
                acm(Some(CA)),
                "c03",
                Reason::Superseded,
                None,
                Err("certificate_authority_arn: is missing, and serial c03 is neither the current nor the previous one of"),
            ),
            ("ACM's, older, and a CA named", acm(None), "c03", Reason::Superseded, Some(CA), Ok((CA, at_once))),
        ] {
            let request = Request { certificate_authority_arn: named.map(arn), ..asked(serial, reason) };
            match (revocation(&request, &record, at(NOW)), expected) {
                (Ok(revocation), Ok((authority, after_rollout))) => assert_eq!(
                    revocation,
                    Revocation {
                        serial: self::serial(serial),
                        certificate_authority_arn: arn(authority),
                        reason,
                        asked: at(NOW).into(),
                        after_rollout,
                        done: None,
                        refused: None,
                    },
                    "{what}"
                ),
                (Err(refusal), Err(why)) => {
                    assert!(refusal.reasons.len() == 1 && refusal.to_string().contains(why), "{what}: {refusal}");
                }
                (said, _) => panic!("{what}: {said:?}"),
            }
        }
    }

    #[test]
    fn what_the_ca_refuses_rests_for_a_day_or_is_forgotten() {
        let mut record = issued();
        let compromised = Revocation { reason: Reason::KeyCompromise, after_rollout: false, ..superseded() };
        record.ask_to_revoke(compromised.clone());
        record.not_revoked(&compromised.serial, false, at(NOW));
        let refused = record.revocations[0].clone();
        for (passed, ready) in [(Duration::ZERO, false), (DAY - Duration::from_secs(1), false), (DAY, true)] {
            assert_eq!(refused.is_ready(&record, &BTreeMap::new(), at(NOW) + passed), ready, "{passed:?}");
        }
        assert!(!record.is_revoked(&compromised.serial) && record.revocation_of_current().is_some());
        let again = revocation(&asked("a01", Reason::KeyCompromise), &record, at(NOW) + HOUR).unwrap();
        assert_eq!(again.refused, None, "asked for again by hand, it is tried at once");
        record.not_revoked(&compromised.serial, true, at(NOW));
        assert_eq!(record.revocations, []);
    }

    #[test]
    fn what_is_asked_for_twice_is_answered_by_what_was_recorded_the_first_time() {
        let mut record = issued();
        record.ask_to_revoke(superseded());
        assert!(!record.is_compromised());
        for reason in [Reason::Superseded, Reason::PrivilegeWithdrawn] {
            assert_eq!(revocation(&asked("a01", reason), &record, at(NOW) + HOUR).unwrap(), superseded());
        }
        // Unless it has become urgent meanwhile: then nothing is waited for.
        let worse = revocation(&asked("a01", Reason::KeyCompromise), &record, at(NOW) + HOUR).unwrap();
        assert_eq!(worse, Revocation { reason: Reason::KeyCompromise, after_rollout: false, ..superseded() });
        record.ask_to_revoke(worse.clone());
        assert!(record.is_compromised());
        assert_eq!(record.revocations, std::slice::from_ref(&worse));
        assert!(worse.is_ready(&record, &BTreeMap::new(), at(NOW) + HOUR));
        record.ask_to_revoke(superseded());
        record.revoked(&superseded().serial, at(NOW) + HOUR);
        let done = revocation(&asked("a01", Reason::Superseded), &record, at(NOW) + HOUR * 2).unwrap();
        assert_eq!(done.done, Some((at(NOW) + HOUR).into()));
        assert_eq!(revocation(&asked("a01", Reason::KeyCompromise), &record, at(NOW)).unwrap(), done, "it is done");
        assert_eq!(superseded().in_words(), "serial a01 is to be revoked (SUPERSEDED)");
        assert_eq!(done.in_words(), "serial a01 was revoked (SUPERSEDED)");
    }

    #[test]
    fn the_ca_is_told_once_the_replacement_runs_everywhere_and_of_a_compromised_key_at_once() {
        let since = at("2026-11-22T07:00:00Z");
        let (second, grace) = (Duration::from_secs(1), since + Duration::from_secs(600));
        let services: [ServiceName; 2] = ["payments/orders", "payments/refunds"].map(|name| name.parse().unwrap());
        let options = Options { services: services.clone().into(), ..Options::default() };
        let old = Record { options, ..issued() };
        let new = Record { current: Some(Pair { serial: serial("c03"), since: since.into(), ..pair() }), ..old.clone() };
        let without_services = Record { options: Options::default(), ..new.clone() };
        let agents = |deployed: &[ServiceName], by_agent: &[ServiceName]| {
            let [services, agent_services] = [deployed, by_agent].map(|names| names.iter().cloned().collect());
            Record { options: Options { services, agent_services, ..Options::default() }, ..new.clone() }
        };
        let (by_agents, mixed) = (agents(&[], &services), agents(&services[..1], &services[1..]));
        let completed = || followed(since + second, Progress::Completed);
        let of = |states: Vec<BindingState>| services.iter().cloned().zip(states).collect::<BTreeMap<_, _>>();
        let everywhere = || of(vec![completed(), completed()]);
        let compromised = Revocation { reason: Reason::KeyCompromise, after_rollout: false, ..superseded() };
        let done = |revocation: Revocation| Revocation { done: Some(at(NOW).into()), ..revocation };
        for (what, revocation, record, services, now, ready) in [
            ("not replaced", superseded(), &old, everywhere(), grace, false),
            ("replaced everywhere", superseded(), &new, everywhere(), grace, true),
            ("replaced everywhere a moment ago", superseded(), &new, everywhere(), grace - second, false),
            ("replaced, nothing deployed", superseded(), &new, BTreeMap::new(), grace, false),
            ("replaced, one of two deployed", superseded(), &new, of(vec![completed()]), grace, false),
            (
                "one deployed before",
                superseded(),
                &new,
                of(vec![completed(), followed(since, Progress::Completed)]),
                grace,
                false,
            ),
            (
                "one being deployed",
                superseded(),
                &new,
                of(vec![followed(since + second, Progress::Running), completed()]),
                grace,
                false,
            ),
            (
                "one failed, so that older tasks may still run",
                superseded(),
                &new,
                of(vec![completed(), followed(since + second, Progress::Failed)]),
                grace,
                false,
            ),
            ("replaced, without services", superseded(), &without_services, BTreeMap::new(), grace, true),
            ("replaced, without services, a moment ago", superseded(), &without_services, BTreeMap::new(), grace - second, false),
            ("by agents, in less than an hour", superseded(), &by_agents, BTreeMap::new(), since + HOUR - second, false),
            ("by agents, after an hour", superseded(), &by_agents, BTreeMap::new(), since + HOUR, true),
            ("one by its agent, one not deployed", superseded(), &mixed, BTreeMap::new(), since + HOUR, false),
            ("one by its agent, one deployed", superseded(), &mixed, of(vec![completed()]), since + HOUR, true),
            ("one by its agent too soon, one deployed", superseded(), &mixed, of(vec![completed()]), grace, false),
            ("nothing current", superseded(), &Record { current: None, ..old.clone() }, BTreeMap::new(), since, true),
            ("done", done(superseded()), &new, everywhere(), grace, false),
            ("compromised", compromised.clone(), &old, BTreeMap::new(), since, true),
            ("compromised, done", done(compromised.clone()), &old, BTreeMap::new(), since, false),
            ("done, nothing current", done(compromised), &Record { current: None, ..old.clone() }, BTreeMap::new(), since, false),
        ] {
            assert_eq!(revocation.is_ready(record, &services, now), ready, "{what}");
        }
    }

    #[test]
    fn a_revoked_serial_is_known_as_such_and_never_becomes_current_again() {
        let mut record = renewed();
        assert_eq!(record.revocation_of_current(), None);
        record.ask_to_revoke(Revocation { serial: serial("b02"), ..superseded() });
        assert_eq!(record.revocation_of_current(), None);
        record.ask_to_revoke(superseded());
        assert_eq!(record.revocation_of_current(), Some(&superseded()));
        assert!(!record.is_revoked(&serial("a01")) && record.rejected.is_empty());
        record.revoked(&serial("a01"), at(NOW));
        assert!(record.is_revoked(&serial("a01")) && !record.is_revoked(&serial("b02")));
        assert_eq!(record.rejected, [serial("a01")].into());
        assert_eq!(record.revocation_of_current().and_then(|known| known.done), Some(at(NOW).into()));
        record.current = None;
        assert_eq!(record.revocation_of_current(), None);
        // One that nobody asked for here.
        record.revoked(&serial("d04"), at(NOW));
        assert!(record.rejected.contains(&serial("d04")) && !record.is_revoked(&serial("d04")));
    }

    #[test]
    fn a_compromised_key_is_known_by_whatever_was_signed_of_it() {
        let before = Pair { serial: serial("b02"), ..pair() };
        let callers = Record { origin: Origin::CallerKey(specification()), previous: Some(before.clone()), ..issued() };
        let compromised = Revocation { reason: Reason::KeyCompromise, after_rollout: false, ..superseded() };
        let also = |record: &Record, revocation: &Revocation| {
            let found = record.of_the_same_key(revocation, at(NOW));
            found.iter().map(|asked| asked.serial.as_str().to_owned()).collect::<Vec<_>>()
        };
        let other = Record { previous: Some(Pair { key_fingerprint: "other".to_owned(), ..before.clone() }), ..callers.clone() };
        let ended = Record { previous: Some(Pair { not_after: at(NOW).into(), ..before }), ..callers.clone() };
        let mut revoked = callers.clone();
        revoked.ask_to_revoke(Revocation { serial: serial("b02"), ..superseded() });
        revoked.revoked(&serial("b02"), at(NOW));
        for (what, record, revocation, serials) in [
            ("of the same key", &callers, &compromised, &["b02"][..]),
            ("superseded", &callers, &superseded(), &[]),
            ("of another key", &other, &compromised, &[]),
            ("ended", &ended, &compromised, &[]),
            ("revoked before", &revoked, &compromised, &[]),
        ] {
            assert_eq!(also(record, revocation), serials, "{what}");
        }
        let done = Revocation { done: Some(at(NOW).into()), refused: Some(at(NOW).into()), ..compromised.clone() };
        assert_eq!(callers.of_the_same_key(&done, at(NOW)), [Revocation { serial: serial("b02"), ..compromised.clone() }]);

        let staged = Staged { version_id: "version-3".to_owned(), serial: serial("e05"), issuer: Some(arn(OTHER_CA)) };
        let signed_again = |key: &str| {
            let attempt = Attempt { callers_key: Some(key.to_owned()), staged: Some(staged.clone()), ..attempt(at(NOW)) };
            Record { attempt: Some(attempt), ..ended.clone() }
        };
        let waits = Revocation { serial: serial("e05"), certificate_authority_arn: arn(OTHER_CA), ..compromised };
        assert_eq!(signed_again(&pair().key_fingerprint).of_the_same_key(&compromised, at(NOW)), [waits]);
        assert_eq!(signed_again("other").of_the_same_key(&compromised, at(NOW)), []);

        let key = pair().key_fingerprint;
        for (what, origin, revocation, known) in [
            ("superseded", callers.origin.clone(), superseded(), false),
            ("compromised", callers.origin.clone(), compromised.clone(), true),
            ("compromised, of a key that was made here", issued().origin, compromised.clone(), false),
        ] {
            let mut record = Record { origin, ..callers.clone() };
            record.ask_to_revoke(revocation);
            (record.current, record.previous) = (None, None);
            assert_eq!(record.has_compromised(&key), known, "{what}");
        }
        // Of a serial that is in neither pair nobody knows the key.
        let mut of_another = callers.clone();
        of_another.ask_to_revoke(Revocation { serial: serial("c03"), ..compromised.clone() });
        assert!(!of_another.has_compromised(&key));
        // As version 0.1 recorded it.
        let old = Record { revocations: vec![compromised], ..callers };
        assert!(old.has_compromised(&key) && !old.has_compromised("other"));
    }

    #[test]
    fn the_last_twenty_done_are_remembered_and_all_that_are_to_be_done_and_that_of_the_current_pair() {
        let mut record = issued();
        let of = |number: usize| Revocation { serial: serial(&format!("{number:x}")), ..superseded() };
        record.ask_to_revoke(superseded());
        record.revoked(&superseded().serial, at(NOW));
        record.ask_to_revoke(of(1));
        for number in 2..=50 {
            record.ask_to_revoke(of(number));
            record.revoked(&of(number).serial, at(NOW));
        }
        let remembered: Vec<_> = record.revocations.iter().map(|known| known.serial.clone()).collect();
        let expected: Vec<_> = [superseded().serial, of(1).serial].into_iter().chain((31..=50).map(|n| of(n).serial)).collect();
        assert_eq!(remembered, expected);
        assert_eq!(record.rejected.len(), 50);
    }

    #[test]
    fn a_revocation_reads_back_as_it_was_written() {
        for revocation in [superseded(), Revocation { after_rollout: false, done: Some(at(NOW).into()), ..superseded() }] {
            let text = serde_json::to_string(&revocation).unwrap();
            assert_eq!(serde_json::from_str::<Revocation>(&text).unwrap(), revocation, "{text}");
        }
        let least = json!({"serial": "a01", "certificate_authority_arn": CA, "reason": "SUPERSEDED", "asked": NOW});
        let read: Revocation = serde_json::from_value(least).unwrap();
        assert_eq!(read, Revocation { after_rollout: false, ..superseded() });
    }
}
