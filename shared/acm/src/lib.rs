//! What more than one function asks of ACM: <https://docs.aws.amazon.com/acm/latest/APIReference/>.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_acm::Client;
use aws_sdk_acm::config::Builder;
use aws_sdk_acm::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_acm::types::{CertificateExport, Filters, RenewalEligibility};
use lifecycle::export::{Held, Renewal};
use lifecycle::issuance::MOST_SERVICES;
use lifecycle::leaf::Serial;
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::{KeyFormat, Options};
use runtime::Failure;
use time::OffsetDateTime;

/// What the tags on a certificate of ACM say: whose it is, and what to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Managed {
    pub name: CertificateName,
    pub options: Options,
}

/// As long as any other call may take.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// A client that waits its turn for about so long, where much is asked of ACM at once: its quotas are small. Each one that waits asks
/// again as often as any other, once a second: the more exports wait, the less is left to the sweep, which looks at what will be
/// exported next.
pub fn client(sdk: &SdkConfig, patience: Duration) -> Client {
    let timeouts =
        sdk.timeout_config().map(TimeoutConfig::to_builder).unwrap_or_default().operation_timeout(patience.mul_f64(1.5)).build();
    let retries = RetryConfig::standard().with_max_attempts(patience.as_secs() as u32).with_max_backoff(Duration::from_secs(2));
    let partition = RetryPartition::custom("acm").token_bucket(TokenBucket::unlimited()).build();
    Client::from_conf(Builder::from(sdk).timeout_config(timeouts).retry_config(retries).retry_partition(partition).build())
}

/// The certificate as ACM describes it; `None` when ACM does not know it.
pub async fn describe(acm: &Client, arn: &Arn) -> Result<Option<Held>, Failure> {
    let certificate = match acm.describe_certificate().certificate_arn(arn.as_str()).send().await {
        Ok(answer) => answer.certificate,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => return Ok(None),
        Err(error) => return Err(Failure::aws(format!("look at {arn}"), error)),
    };
    let Some(certificate) = certificate else { return Ok(None) };
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Ok(Some(Held {
        certificate_arn: arn.clone(),
        status: text(certificate.status().map(|status| status.as_str())),
        kind: text(certificate.r#type().map(|kind| kind.as_str())),
        exportable: certificate.options().and_then(|options| options.export()) == Some(&CertificateExport::Enabled),
        subject: text(certificate.subject()),
        names: certificate.subject_alternative_names().iter().filter_map(|name| format!("dns:{name}").parse().ok()).collect(),
        // ACM answers `RSA-2048` where its own model says `RSA_2048`.
        key_algorithm: certificate.key_algorithm().and_then(|algorithm| algorithm.as_str().replace('-', "_").parse().ok()),
        key_usages: certificate.key_usages().iter().map(|usage| text(usage.name().map(|name| name.as_str()))).collect(),
        extended_key_usages: {
            let usages = certificate.extended_key_usages().iter();
            usages.map(|usage| text(usage.name().map(|name| name.as_str()))).collect()
        },
        serial: certificate.serial().map(Serial::from_hex),
        not_before: certificate.not_before().and_then(moment),
        not_after: certificate.not_after().and_then(moment),
        eligible: certificate.renewal_eligibility() == Some(&RenewalEligibility::Eligible),
        failure: certificate.failure_reason().map(|reason| reason.as_str().to_owned()),
        renewal: certificate.renewal_summary().map(|summary| Renewal {
            status: summary.renewal_status().as_str().to_owned(),
            reason: summary.renewal_status_reason().map(|reason| reason.as_str().to_owned()),
        }),
        certificate_authority_arn: certificate.certificate_authority_arn().and_then(|arn| arn.parse().ok()),
    }))
}

fn moment(at: &aws_sdk_acm::primitives::DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanos()).ok()
}

/// Every kind of key: without them ACM's list leaves out all but RSA keys of at most 2048 bits.
/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_ListCertificates.html>
pub fn any_key() -> Filters {
    use aws_sdk_acm::types::KeyAlgorithm::*;
    let types = vec![Rsa1024, Rsa2048, Rsa3072, Rsa4096, EcPrime256v1, EcSecp384r1, EcSecp521r1];
    Filters::builder().set_key_types(Some(types)).build()
}

/// Whether the certificate is managed by the stack of this prefix. A tag that cannot be read is a fault of whoever set it.
pub async fn managed(acm: &Client, arn: &Arn, prefix: &str) -> Result<Option<Managed>, Failure> {
    let doing = || format!("read the tags of {arn}");
    let answer = match acm.list_tags_for_certificate().certificate_arn(arn.as_str()).send().await {
        Ok(answer) => answer,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => return Ok(None),
        Err(error) => return Err(Failure::aws(doing(), error)),
    };
    let tags = answer.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().unwrap_or_default().to_owned())).collect();
    read_tags(&tags, prefix).map_err(|faults| Failure::permanent(doing(), faults.join("; ")))
}

/// What the tags of a certificate say; `None` when they are not of the stack of this prefix. Every tag that cannot be read is named.
pub fn read_tags(tags: &BTreeMap<String, String>, prefix: &str) -> Result<Option<Managed>, Vec<String>> {
    let Some(name) = tags.get("everleaf:certificate").and_then(|whole| whole.strip_prefix(prefix)?.strip_prefix('/')) else {
        return Ok(None);
    };
    let mut faults = Vec::new();
    let name = name.parse::<CertificateName>().map_err(|error| faults.push(format!("everleaf:certificate: {error}"))).ok();
    let mut options = Options::default();
    for (key, value) in tags.iter().filter(|(key, _)| key.starts_with("everleaf:service-")) {
        if let Err(error) = value.parse().and_then(|service| options.add(service)) {
            faults.push(format!("{key}: {error}"));
        }
    }
    let services = options.tagged_services().count();
    if services > MOST_SERVICES {
        faults.push(format!("everleaf:service-…: are {services}, and one secret has tags for {MOST_SERVICES}"));
    }
    if let Some(canary) = tags.get("everleaf:canary") {
        match canary.parse() {
            Ok(canary) if options.services.contains(&canary) => options.canary = Some(canary),
            Ok(canary) => faults.push(format!("everleaf:canary: `{canary}` is none of the services that are redeployed")),
            Err(error) => faults.push(format!("everleaf:canary: {error}")),
        }
    }
    match tags.get("everleaf:paused").map(String::as_str) {
        None | Some("false") => {}
        Some("true") => options.paused = true,
        Some(other) => faults.push(format!("everleaf:paused: `{other}` is neither `true` nor `false`")),
    }
    match tags.get("everleaf:maintenance-window").map(|text| text.parse()).transpose() {
        Ok(window) => options.maintenance_window = window,
        Err(error) => faults.push(format!("everleaf:maintenance-window: {error}")),
    }
    match tags.get("everleaf:key-format").map(String::as_str) {
        None | Some("encrypted") => {}
        Some("plain") => options.key_format = KeyFormat::Plain,
        Some(other) => faults.push(format!("everleaf:key-format: `{other}` is neither `encrypted` nor `plain`")),
    }
    match name {
        Some(name) if faults.is_empty() => Ok(Some(Managed { name, options })),
        _ => Err(faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_certificate_is_managed_by_the_stack_whose_prefix_its_tag_names() {
        let ours = tags(&[
            ("everleaf:certificate", "everleaf/edge"),
            ("everleaf:service-1", "payments/gateway"),
            ("everleaf:service-2", "payments/refunds reload=agent"),
            ("everleaf:service-3", "payments/gateway"),
            ("everleaf:key-format", "plain"),
        ]);
        let managed = read_tags(&ours, "everleaf").unwrap().unwrap();
        assert_eq!(managed.name.to_string(), "edge");
        assert_eq!(managed.options.services, ["payments/gateway".parse().unwrap()].into());
        assert_eq!(managed.options.agent_services, ["payments/refunds".parse().unwrap()].into());
        assert_eq!(managed.options.key_format, KeyFormat::Plain);
        for other in ["everleaf2/edge", "other/edge", "edge", "everleaf"] {
            assert_eq!(read_tags(&tags(&[("everleaf:certificate", other)]), "everleaf"), Ok(None), "{other}");
        }
        assert_eq!(read_tags(&tags(&[]), "everleaf"), Ok(None));
    }

    #[test]
    fn every_tag_that_cannot_be_read_is_named() {
        let bad = tags(&[
            ("everleaf:certificate", "everleaf/a b"),
            ("everleaf:service-1", "gateway"),
            ("everleaf:service-2", "payments/refunds reload=never"),
            ("everleaf:service-3", "payments/orders"),
            ("everleaf:service-4", "payments/orders reload=agent"),
            ("everleaf:key-format", "pem"),
        ]);
        let faults = read_tags(&bad, "everleaf").unwrap_err();
        for (fault, part) in faults.iter().zip([
            "everleaf:certificate: ",
            "everleaf:service-1: `gateway` is not a service",
            "everleaf:service-2: `never` is not one of deployment, agent",
            "everleaf:service-4: `payments/orders` is to reload both by its agent and by a deployment",
            "everleaf:key-format: ",
        ]) {
            assert!(fault.starts_with(part), "{fault}");
        }
        assert_eq!(faults.len(), 5, "{faults:?}");
    }

    #[test]
    fn more_services_than_the_tags_of_one_secret_are_a_fault() {
        let with = |count: usize| {
            let mut tags = tags(&[("everleaf:certificate", "everleaf/edge")]);
            tags.extend((1..=count).map(|n| (format!("everleaf:service-{n}"), format!("payments/gateway-{n}"))));
            read_tags(&tags, "everleaf").map(|managed| managed.map(|managed| managed.options.services.len()))
        };
        assert_eq!(with(MOST_SERVICES), Ok(Some(MOST_SERVICES)));
        assert_eq!(with(MOST_SERVICES + 1).unwrap_err(), ["everleaf:service-…: are 36, and one secret has tags for 35"]);
    }
}
