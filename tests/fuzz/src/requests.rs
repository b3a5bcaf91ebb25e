//! What a person, a program or EventBridge sends.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use lifecycle::Refusal;
use lifecycle::events::{AcmDetail, Detail, EcsDetail};
use lifecycle::issuance::{Order, Policy, order};
use lifecycle::leaf::KeyAlgorithm;
use lifecycle::names::{Arn, CertificateName, StoreName, TaggedService};
use lifecycle::record::{Origin, Record};
use lifecycle::trust::{Declaration, Declarations, Stores, Successors};
use records::rotation;
use runtime::Trigger;
use serde_json::Value;

use crate::{NOW, text};

const CA: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/11111111-1111-1111-1111-111111111111";

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
    issuing_ca: CA.parse().ok(),
    other_cas: BTreeSet::new(),
    successors: Successors::default(),
    names: ["example.com", "10.0.0.0/8", "2001:db8::/32"].iter().filter_map(|scope| scope.parse().ok()).collect(),
    trust_domains: ["example.com".to_owned()].into(),
    key_algorithms: KeyAlgorithm::ALL.into(),
    longest_validity: Duration::from_secs(90 * 24 * 60 * 60),
    sweep_interval: Duration::from_secs(60 * 60),
});

pub(crate) fn issuance(input: &[u8]) -> bool {
    serde_json::from_slice(input).is_ok_and(|request| judge(&request))
}

/// Has a request judged, and judges again what is accepted. Whether it is.
pub(crate) fn judge(request: &Value) -> bool {
    let Some(order) = accepted(request, order(request, &POLICY, NOW)) else { return false };
    let Order { name, specification, options, csr, .. } = order;
    for name in &specification.names {
        assert!(is_inside(&name.to_string()), "{name} is outside the policy: {request}");
    }
    for (field, _, longest, value) in specification.subject.attributes() {
        let Some(value) = value else { continue };
        assert!(value.chars().count() <= longest && !value.contains(char::is_control), "{field} of {request}");
    }
    if let Some(common_name) = &specification.subject.common_name {
        assert!(!is_host(common_name) || is_below(&common_name.to_lowercase()), "{common_name} is outside the policy: {request}");
    }
    assert!(!specification.subject.is_empty() || !specification.names.is_empty(), "it names nobody: {request}");
    assert!(specification.lifetime <= POLICY.longest_validity, "it lives too long: {request}");
    assert_eq!(specification.certificate_authority_arn.as_str(), CA);
    let origin = if csr.is_some() { Origin::CallerKey(specification) } else { Origin::Issued(specification) };
    crate::items::reads_back(&Record::new(name, origin, options, NOW));
    true
}

/// The policy again, by the text of a name alone.
fn is_inside(name: &str) -> bool {
    match name.split_once(':') {
        Some(("dns", host)) => is_below(host),
        Some(("email", address)) => address.split_once('@').is_some_and(|(_, host)| is_below(host)),
        Some(("ip", address)) => address.starts_with("10.") || address.starts_with("2001:db8:"),
        Some(("uri", id)) => id == "spiffe://example.com" || id.starts_with("spiffe://example.com/") && !id.contains(".."),
        _ => false,
    }
}

/// Ends in the one domain of the policy, and is nothing but a host's name.
fn is_below(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "example.com"
        || host.strip_suffix(".example.com").is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '/', ' ']))
}

/// Whether somebody could take a common name for a host's: dots, nothing that no host has, and no number at its end.
fn is_host(name: &str) -> bool {
    let name = name.trim_matches('.');
    let last = name.rsplit('.').next().unwrap_or_default();
    name.contains('.')
        && name.chars().all(|one| one.is_alphanumeric() || "-_.*".contains(one))
        && last.contains(char::is_alphabetic)
}

pub(crate) fn revocation(input: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<Value>(input) else { return false };
    let Some(asked) = accepted(&request, lifecycle::revocation::request(&request)) else { return false };
    assert!(asked.serial.as_str().starts_with(|first: char| first.is_ascii_hexdigit() && first != '0'), "{request}");
    assert_eq!(asked.serial.to_string().parse(), Ok(asked.serial));
    assert_eq!(asked.reason.as_str().parse(), Ok(asked.reason));
    true
}

pub(crate) fn retirement(input: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<Value>(input) else { return false };
    let Some(asked) = accepted(&request, lifecycle::retirement::request(&request)) else { return false };
    assert_eq!(request["retire"], asked.name.to_string(), "another certificate: {request}");
    assert_eq!(request.get("reason").and_then(Value::as_str), asked.reason.map(|reason| reason.as_str()), "{request}");
    assert_eq!(request["dry_run"] == true, asked.dry_run, "{request}");
    true
}

/// A step of a rotation, as Secrets Manager asks for it.
pub(crate) fn rotation(input: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<Value>(input) else { return false };
    let Ok(asked) = serde_json::from_value::<rotation::Request>(request.clone()) else { return false };
    let Ok(name) = asked.certificate("everleaf") else { return false };
    let secret = request["SecretId"].as_str().and_then(|arn| arn.splitn(7, ':').nth(6)).unwrap_or_default();
    let end = secret.strip_prefix(&format!("everleaf/{name}-"));
    assert!(end.is_some_and(|end| !end.contains('-')), "another secret's certificate, `{name}`: {request}");
    true
}

/// What every other request by hand names: a certificate, services, a trust store, a certificate of ACM's or a CA.
pub(crate) fn name(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let plain = |text: &str, beside: &str| text.chars().all(|one| one.is_ascii_alphanumeric() || beside.contains(one));
    let (certificate, service) = (text.parse::<CertificateName>(), text.parse::<TaggedService>());
    let arns = [("acm", "certificate/"), ("acm-pca", "certificate-authority/")];
    let arns = arns.map(|(service, kind)| Arn::of(text, service, kind).ok().map(|arn| (arn, format!(":{service}:"))));
    if let Ok(name) = &certificate {
        assert!(reread(name).to_string() == text && plain(text, "/_+=.@-") && text.len() <= 200, "{text}");
    }
    if let Ok(name) = text.parse::<StoreName>() {
        assert!(reread(&name).to_string() == text && plain(text, "-") && text.len() <= 32, "{text}");
    }
    if let Ok(tagged) = &service {
        let name = reread(&tagged.name).to_string();
        assert!(plain(&name, "/_-") && name.matches('/').count() == 1 && text.contains(&name), "{text} became {name}");
        assert_eq!(tagged.to_string().parse().as_ref(), Ok(tagged));
    }
    for (arn, service) in arns.iter().flatten() {
        assert!(reread(arn).as_str() == text && text.contains(service), "{text}");
    }
    certificate.is_ok() || service.is_ok() || arns.iter().any(Option::is_some)
}

/// What was read; a refusal has a reason.
fn accepted<T>(request: &Value, read: Result<T, Refusal>) -> Option<T> {
    read.map_err(|refusal| assert!(!refusal.reasons.is_empty(), "refused for no reason: {request}")).ok()
}

/// A declaration by a request, or all of them by the stack's parameter.
pub(crate) fn declaration(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && let Ok(declaration) = Declaration::read(&value)
    {
        assert!(declaration.certificate_authority_arns.iter().all(|arn| arn.service() == "acm-pca"));
        assert_eq!(reread(&declaration), declaration);
        // As the one declaration of a stack it is taken too, and stands in no other's way.
        assert_eq!(format!("[{text}]").parse(), Ok(Declarations(vec![declaration.clone()])));
        let stores = Stores::default().declared_by(&[declaration]);
        assert_eq!(reread(&stores), stores);
        return true;
    }
    let Ok(Declarations(declared)) = text.parse() else { return false };
    for declaration in &declared {
        assert_eq!(reread(declaration), *declaration);
        assert_eq!(Stores::default().declared_by(&declared).collision(declaration), None);
    }
    true
}

/// What EventBridge delivers, or a person sends by hand.
pub(crate) fn event(input: &[u8]) -> bool {
    let Ok(event) = serde_json::from_slice::<Value>(input) else { return false };
    let is_event = event.get("detail-type").is_some();
    let Ok(trigger) = Trigger::parse(event) else { return false };
    match trigger {
        Trigger::ByHand(_) => assert!(!is_event),
        Trigger::Event { detail, .. } => {
            assert!(is_event);
            if let Ok(detail) = Trigger::body::<Detail>(detail.clone()) {
                assert_eq!(reread(&detail), detail);
            }
            if let Ok(detail) = Trigger::body::<AcmDetail>(detail.clone()) {
                assert!(detail.expires().is_none() || detail.certificate_expiration_date.is_some());
            }
            _ = Trigger::body::<EcsDetail>(detail);
        }
    }
    true
}

/// Written and read again.
fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("what was read can be written");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
