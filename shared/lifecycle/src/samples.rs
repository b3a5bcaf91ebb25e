//! What the tests of several modules start from.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::attempt::Attempt;
use crate::export::Held;
use crate::leaf::{KeyAlgorithm, Serial, Subject, Usage};
use crate::names::Arn;
use crate::record::{Halt, Options, Origin, Pair, Record, Specification};
use crate::rollout::{BindingState, Deployment, Progress};
use crate::setback::Setback;

pub(crate) const CA: &str =
    "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/11111111-1111-1111-1111-111111111111";
pub(crate) const IN_ACM: &str = "arn:aws:acm:eu-central-1:111122223333:certificate/22222222-2222-2222-2222-222222222222";

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn at(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap()
}

pub(crate) fn arn(text: &str) -> Arn {
    text.parse().unwrap()
}

/// A CSR of `tests-data/csrs.pem`.
pub(crate) fn csr(name: &str) -> &'static str {
    block(include_str!("../tests-data/csrs.pem"), name)
}

/// The CSRs of `tests-data/hostile.pem` by their names.
pub(crate) fn hostile() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../tests-data/hostile.pem").split("\n# ").skip(1).map(|block| block.split_once('\n').unwrap())
}

/// A leaf of `tests-data/leaves.pem`.
pub(crate) fn leaf(name: &str) -> &'static str {
    block(include_str!("../tests-data/leaves.pem"), name)
}

/// A CA of `tests-data/authorities.pem`, or one of the other things there.
pub(crate) fn authority(name: &str) -> &'static str {
    block(include_str!("../tests-data/authorities.pem"), name)
}

/// A CA with its key, made for one test.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// What a CA's certificate is to say: valid throughout 2026 and 2027.
pub(crate) fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn root(params: CertificateParams) -> Ca {
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn below(issuer: &Ca, params: CertificateParams) -> Ca {
    Ca::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

fn block(file: &'static str, name: &str) -> &'static str {
    let (_, from_name) = file.split_once(&format!("# {name}\n")).unwrap_or_else(|| panic!("no block {name}"));
    from_name.split("\n\n").next().unwrap_or_default()
}

pub(crate) fn specification() -> Specification {
    Specification {
        subject: Subject { common_name: Some("orders".to_owned()), ..Subject::default() },
        names: ["dns:orders.example.com".parse().unwrap()].into(),
        key_algorithm: KeyAlgorithm::EcPrime256v1,
        usage: Usage::Client,
        lifetime: DAY * 30,
        certificate_authority_arn: arn(CA),
    }
}

/// Lives from 1 November, 00:00 to 1 December 2026, 01:00: thirty days and the hour by which it is backdated.
pub(crate) fn pair() -> Pair {
    Pair {
        version_id: "version-1".to_owned(),
        serial: Serial::from_hex("0a:01"),
        not_before: at("2026-11-01T00:00:00Z").into(),
        not_after: at("2026-12-01T01:00:00Z").into(),
        fingerprint: "f1".to_owned(),
        key_fingerprint: "k1".to_owned(),
        issuer: Some(arn(CA)),
        since: at("2026-11-01T01:00:05.25Z").into(),
    }
}

/// Issued here and current.
pub(crate) fn issued() -> Record {
    let name = "orders-client".parse().unwrap();
    let record = Record::new(name, Origin::Issued(specification()), Options::default(), at("2026-11-01T01:00:00Z"));
    Record { current: Some(pair()), ..record }
}

/// ACM's: exported and current, for 395 days from 1 January 2026.
pub(crate) fn exported() -> Record {
    let current = Pair { not_before: at("2026-01-01T00:00:00Z").into(), not_after: at("2027-01-31T00:00:00Z").into(), ..pair() };
    Record { origin: Origin::Exported { certificate_arn: arn(IN_ACM) }, current: Some(current), ..issued() }
}

/// What ACM shows of [`exported`].
pub(crate) fn held() -> Held {
    Held {
        certificate_arn: arn(IN_ACM),
        status: "ISSUED".to_owned(),
        kind: "PRIVATE".to_owned(),
        exportable: false,
        subject: "CN=orders.example.com".to_owned(),
        names: ["dns:orders.example.com", "dns:*.example.com"].map(|name| name.parse().unwrap()).into(),
        key_algorithm: Some(KeyAlgorithm::EcPrime256v1),
        key_usages: ["DIGITAL_SIGNATURE", "KEY_ENCIPHERMENT"].map(str::to_owned).into(),
        extended_key_usages: ["TLS_WEB_SERVER_AUTHENTICATION", "TLS_WEB_CLIENT_AUTHENTICATION"].map(str::to_owned).into(),
        serial: Some(pair().serial),
        not_before: Some(at("2026-01-01T00:00:00Z")),
        not_after: Some(at("2027-01-31T00:00:00Z")),
        eligible: true,
        failure: None,
        renewal: None,
        certificate_authority_arn: Some(arn(CA)),
    }
}

/// The pair that followed the current one was rejected, and the secret is back.
pub(crate) fn setback() -> Setback {
    Setback {
        at: at("2026-11-22T05:00:00Z").into(),
        rejected: "version-2".to_owned(),
        serial: Serial::from_hex("0b02"),
        restored: pair().version_id,
        in_a_row: 1,
        done: true,
        lock: None,
        reason: "it failed".to_owned(),
    }
}

/// What failed for good then.
pub(crate) fn halt(at: OffsetDateTime) -> Halt {
    Halt { at: at.into(), reason: "the CA is disabled".to_owned(), holder: None }
}

/// Begun at `started` on the pair of [`issued`] by somebody else.
pub(crate) fn attempt(started: OffsetDateTime) -> Attempt {
    Attempt {
        number: 7,
        started: started.into(),
        lease: (started + crate::attempt::LEASE).into(),
        holder: "somebody".to_owned(),
        replaces: Some(pair().version_id),
        certificate_arn: None,
        staged: None,
        rotation: None,
        end: None,
        callers_key: None,
        reason: "due".to_owned(),
    }
}

/// What is known of a service whose deployment began then.
pub(crate) fn followed(began: OffsetDateTime, progress: Progress) -> BindingState {
    let deployment =
        Deployment { id: "ecs-svc/1".to_owned(), began: began.into(), created: None, progress, task_definition: String::new() };
    BindingState { deployment: Some(deployment), ..BindingState::default() }
}
