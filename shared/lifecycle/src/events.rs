//! What the functions tell one another and the outside: events of source `everleaf` on the account's default bus. They carry
//! public facts only; the names and fields are an interface that other people's rules match.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::date;
use crate::names::{ServiceName, StoreName};
use crate::record::{Moment, Record};
use crate::trust::Declaration;

pub const SOURCE: &str = "everleaf";

/// An event of ours, as `detail-type` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To `issue-client-cert`: a certificate wants a new pair.
    CertificateDue,
    /// To `export-to-secrets`: ACM holds a certificate that the secret does not.
    ExportDue,
    /// To `force-redeploy` and the outside: a new pair is current.
    CertificateCurrent,
    /// To the outside: every task of these services was started with the current pair.
    ServicesRedeployed,
    /// To `refresh-truststore`: a certificate waits for trust stores to hold its CA.
    TrustDue,
    /// To the outside: a trust store was changed, or put right.
    TrustStoreRefreshed,
    /// To the outside: the CA has revoked a serial.
    CertificateRevoked,
    /// To the outside: a deployment failed on the current pair, and the secret has gone back to the one before it.
    CertificateRolledBack,
    /// To a person.
    ActionRequired,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::CertificateDue,
        Self::ExportDue,
        Self::CertificateCurrent,
        Self::ServicesRedeployed,
        Self::TrustDue,
        Self::TrustStoreRefreshed,
        Self::CertificateRevoked,
        Self::CertificateRolledBack,
        Self::ActionRequired,
    ];

    pub fn detail_type(self) -> &'static str {
        match self {
            Self::CertificateDue => "Certificate Due",
            Self::ExportDue => "Export Due",
            Self::CertificateCurrent => "Certificate Current",
            Self::ServicesRedeployed => "Services Redeployed",
            Self::TrustDue => "Trust Due",
            Self::TrustStoreRefreshed => "Trust Store Refreshed",
            Self::CertificateRevoked => "Certificate Revoked",
            Self::CertificateRolledBack => "Certificate Rolled Back",
            Self::ActionRequired => "Action Required",
        }
    }

    /// What CloudWatch counts it under.
    pub fn metric(self) -> String {
        self.detail_type().replace(' ', "")
    }
}

/// One event of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: Kind,
    pub detail: Detail,
}

/// The body of each event of ours; what does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The stack's, so that several stacks live side by side on one bus.
    pub prefix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_arn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Moment>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<ServiceName>,
    /// The trust store that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_store: Option<StoreName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// No new pair is due, but something else: an import into ACM, a revocation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_pair: bool,
    /// To a person: what it is about, in words, and the command that goes on once they have seen to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Event {
    /// An event about nothing in particular.
    pub fn general(kind: Kind, prefix: &str, reason: impl Into<String>) -> Self {
        let detail = Detail { prefix: prefix.to_owned(), reason: Some(reason.into()), ..Detail::default() };
        Self { kind, detail }.told("the whole stack".to_owned(), "renew-on-expiry", &json!({"plan": true}))
    }

    /// An event about a trust store.
    pub fn about_store(kind: Kind, prefix: &str, declaration: &Declaration, reason: impl Into<String>) -> Self {
        let (prefix, reason, store) = (prefix.to_owned(), Some(reason.into()), &declaration.name);
        let about = match &declaration.listeners[..] {
            [] => format!("the trust store `{store}`, of no listener"),
            listeners => {
                let listeners: Vec<_> = listeners.iter().map(|listener| listener.listener_arn.as_str()).collect();
                format!("the trust store `{store}` of {}", listeners.join(", "))
            }
        };
        let detail = Detail { prefix, trust_store: Some(store.clone()), reason, ..Detail::default() };
        Self { kind, detail }.told(about, "refresh-truststore", &json!({"trust_store": store}))
    }

    /// A person has to see to a certificate, or to one of its services, of which it knows nothing itself.
    pub fn action_required(prefix: &str, record: &Record, code: &str, message: &str) -> Self {
        let (function, request) = match code {
            "service-refused" => ("force-redeploy", json!({"certificate": record.name})),
            _ => ("renew-on-expiry", json!({"retry": record.name})),
        };
        Self::with_command(Kind::ActionRequired, prefix, record, format!("{code}: {message}"), function, &request)
    }

    /// An event about a certificate: its name, its secret and its current pair.
    pub fn about(kind: Kind, prefix: &str, record: &Record, reason: impl Into<String>) -> Self {
        Self::with_command(kind, prefix, record, reason.into(), "renew-on-expiry", &json!({"retry": record.name}))
    }

    fn with_command(kind: Kind, prefix: &str, record: &Record, reason: String, function: &str, request: &Value) -> Self {
        let current = record.current.as_ref();
        let services: Vec<_> = record.options.services.iter().map(ToString::to_string).collect();
        let services = if services.is_empty() { "no service".to_owned() } else { services.join(", ") };
        let expires = current.map(|pair| format!(", which expires {}", date(*pair.not_after))).unwrap_or_default();
        let about = format!("the certificate `{}` of {services}{expires}", record.name);
        Self {
            kind,
            detail: Detail {
                prefix: prefix.to_owned(),
                certificate: Some(record.name.to_string()),
                secret_arn: record.secret_arn.as_ref().map(ToString::to_string),
                version_id: current.map(|pair| pair.version_id.clone()),
                serial_number: current.map(|pair| pair.serial.to_string()),
                not_after: current.map(|pair| pair.not_after),
                services: record.options.services.clone(),
                trust_store: None,
                reason: Some(reason),
                keeps_pair: false,
                about: None,
                command: None,
            },
        }
        .told(about, function, request)
    }

    /// The same, of a certificate whose current pair is to stay.
    pub fn keeping_pair(mut self) -> Self {
        self.detail.keeps_pair = true;
        self
    }

    /// Adds what a person is told; events to functions go without it. The shell reads the quotes of the request with a backslash
    /// before them too, which EventBridge puts there when it writes the message.
    fn told(mut self, about: String, function: &str, request: &Value) -> Self {
        if matches!(self.kind, Kind::ActionRequired | Kind::CertificateRolledBack) {
            let function = format!("--function-name {}-{function}", self.detail.prefix);
            self.detail.about = Some(about);
            // Longer than any function runs: after its usual minute the CLI would ask once more, beside the first that still runs.
            let options = "--cli-binary-format raw-in-base64-out --cli-read-timeout 910";
            self.detail.command = Some(format!("aws lambda invoke {function} {options} --payload $'{request}' /dev/stdout"));
        }
        self
    }
}

/// What is read of the events of ACM. Every field may be absent, and AWS adds fields:
/// <https://docs.aws.amazon.com/acm/latest/userguide/supported-events.html>.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AcmDetail {
    pub action: Option<String>,
    pub certificate_type: Option<String>,
    pub certificate_expiration_date: Option<String>,
    pub renewal_status_reason: Option<String>,
}

impl AcmDetail {
    /// The expiry that the event speaks of, when it is legible.
    pub fn expires(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.certificate_expiration_date.as_deref()?, &Rfc3339).ok()
    }
}

/// What is read of `ECS Deployment State Change`:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_service_deployment_events.html>.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EcsDetail {
    pub event_name: String,
    pub deployment_id: String,
    #[serde(default)]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{arn, at, issued};

    #[test]
    fn cloud_watch_counts_each_kind_under_its_name_without_spaces() {
        let metrics = [
            "CertificateDue",
            "ExportDue",
            "CertificateCurrent",
            "ServicesRedeployed",
            "TrustDue",
            "TrustStoreRefreshed",
            "CertificateRevoked",
            "CertificateRolledBack",
            "ActionRequired",
        ];
        assert_eq!(Kind::ALL.map(Kind::metric), metrics);
    }

    #[test]
    fn an_event_about_a_certificate_carries_the_documented_fields_and_no_other() {
        let mut record = issued();
        record.secret_arn = Some(arn("arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/orders-client-AbCd3F"));
        record.options.services = ["payments/orders".parse().unwrap()].into();
        let Event { kind, detail } = Event::about(Kind::CertificateCurrent, "everleaf", &record, "due");
        let written = serde_json::to_value(&detail).unwrap();
        assert_eq!(
            written,
            json!({
                "prefix": "everleaf",
                "certificate": "orders-client",
                "secret_arn": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/orders-client-AbCd3F",
                "version_id": "version-1",
                "serial_number": "a01",
                "not_after": "2026-12-01T01:00:00Z",
                "services": ["payments/orders"],
                "reason": "due"
            })
        );
        assert_eq!(kind, Kind::CertificateCurrent);
        assert_eq!(serde_json::from_value::<Detail>(written).unwrap(), detail);
    }

    #[test]
    fn an_event_about_a_trust_store_names_it_and_no_certificate() {
        let store = declaration(json!([]));
        let event = Event::about_store(Kind::TrustStoreRefreshed, "everleaf", &store, "added `CN=orders`");
        let written = serde_json::to_value(&event.detail).unwrap();
        assert_eq!(written, json!({"prefix": "everleaf", "trust_store": "clients", "reason": "added `CN=orders`"}));
        assert_eq!(serde_json::from_value::<Detail>(written).unwrap(), event.detail);
        assert_eq!(event.kind, Kind::TrustStoreRefreshed);
    }

    fn declaration(listeners: Value) -> Declaration {
        let ca = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/11111111-1111-1111-1111-111111111111";
        Declaration::read(&json!({"name": "clients", "certificate_authority_arns": [ca], "listeners": listeners})).unwrap()
    }

    #[test]
    fn a_person_is_told_what_it_is_about_and_how_to_go_on() {
        let kind = Kind::ActionRequired;
        let mut record = issued();
        let alone = Event::about(kind, "everleaf", &Record { current: None, ..issued() }, "why");
        record.options.services = ["payments/orders".parse().unwrap(), "payments/refunds".parse().unwrap()].into();
        let listener = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:listener/app/clients/1/2";
        let rows = [
            (
                Event::about(kind, "everleaf", &record, "why"),
                "the certificate `orders-client` of payments/orders, payments/refunds, which expires 2026-12-01 01:00 UTC",
                r#"everleaf-renew-on-expiry … $'{"retry":"orders-client"}'"#,
            ),
            (
                Event::about(Kind::CertificateRolledBack, "blue", &record, "why"),
                "the certificate `orders-client` of payments/orders, payments/refunds, which expires 2026-12-01 01:00 UTC",
                r#"blue-renew-on-expiry … $'{"retry":"orders-client"}'"#,
            ),
            (
                Event::action_required("everleaf", &record, "service-refused", "it is DRAINING"),
                "the certificate `orders-client` of payments/orders, payments/refunds, which expires 2026-12-01 01:00 UTC",
                r#"everleaf-force-redeploy … $'{"certificate":"orders-client"}'"#,
            ),
            (
                alone,
                "the certificate `orders-client` of no service",
                r#"everleaf-renew-on-expiry … $'{"retry":"orders-client"}'"#,
            ),
            (
                Event::about_store(kind, "everleaf", &declaration(json!([{"listener_arn": listener}])), "why"),
                &format!("the trust store `clients` of {listener}"),
                r#"everleaf-refresh-truststore … $'{"trust_store":"clients"}'"#,
            ),
            (
                Event::about_store(kind, "everleaf", &declaration(json!([])), "why"),
                "the trust store `clients`, of no listener",
                r#"everleaf-refresh-truststore … $'{"trust_store":"clients"}'"#,
            ),
            (Event::general(kind, "everleaf", "why"), "the whole stack", r#"everleaf-renew-on-expiry … $'{"plan":true}'"#),
        ];
        for (Event { detail, .. }, about, command) in rows {
            assert_eq!(detail.about.as_deref(), Some(about));
            let (function, request) = command.split_once(" … ").unwrap();
            let options = format!("--function-name {function} --cli-binary-format raw-in-base64-out --cli-read-timeout 910");
            assert_eq!(detail.command, Some(format!("aws lambda invoke {options} --payload {request} /dev/stdout")));
        }
    }

    #[test]
    fn an_event_about_nothing_in_particular_has_a_reason() {
        let Event { kind, detail } = Event::general(Kind::ActionRequired, "everleaf", "the table cannot be read");
        assert_eq!((kind, detail.reason.as_deref()), (Kind::ActionRequired, Some("the table cannot be read")));
        assert_eq!((detail.prefix.as_str(), detail.certificate, detail.trust_store), ("everleaf", None, None));
    }

    #[test]
    fn what_does_not_apply_to_an_event_is_left_out() {
        let new = Record { current: None, ..issued() };
        let Event { detail, .. } = Event::about(Kind::CertificateDue, "everleaf", &new, "not issued yet");
        assert_eq!(
            serde_json::to_value(detail).unwrap(),
            json!({"prefix": "everleaf", "certificate": "orders-client", "reason": "not issued yet"})
        );
        let least: Detail = serde_json::from_value(json!({"prefix": "everleaf", "of_a_later_version": 1})).unwrap();
        assert_eq!(least, Detail { prefix: "everleaf".to_owned(), ..Detail::default() });
    }

    #[test]
    fn events_are_called_as_documented() {
        assert_eq!(SOURCE, "everleaf");
        assert_eq!(
            Kind::ALL.map(Kind::detail_type),
            [
                "Certificate Due",
                "Export Due",
                "Certificate Current",
                "Services Redeployed",
                "Trust Due",
                "Trust Store Refreshed",
                "Certificate Revoked",
                "Certificate Rolled Back",
                "Action Required"
            ]
        );
    }

    /// <https://docs.aws.amazon.com/acm/latest/userguide/supported-events.html>
    #[test]
    fn the_documented_events_of_acm_are_read() {
        let expires = Some(at("2019-12-22T18:43:48Z"));
        let text = |text: &str| Some(text.to_owned());
        let ends = || text("2019-12-22T18:43:48Z");
        for (detail, expected, expiry) in [
            // ACM Certificate Approaching Expiration
            (json!({"DaysToExpiry": 31, "CommonName": "example.com"}), AcmDetail::default(), None),
            // The same by the schema registry
            (json!({"DaysToExpiry": 31.5, "Exportable": true}), AcmDetail::default(), None),
            // ACM Certificate Expired
            (
                json!({
                    "CertificateType": "PRIVATE", "CommonName": "example.com",
                    "CertificateCreatedDate": "2018-12-22T18:43:48Z", "CertificateExpirationDate": "2019-12-22T18:43:48Z",
                    "InUse": true, "Exported": true
                }),
                AcmDetail { certificate_type: text("PRIVATE"), certificate_expiration_date: ends(), ..AcmDetail::default() },
                expires,
            ),
            // ACM Certificate Available
            (
                json!({
                    "Action": "RENEWAL", "CertificateType": "PRIVATE", "CommonName": "example.com", "DomainValidationMethod": "DNS",
                    "CertificateCreatedDate": "2019-12-22T18:43:48Z", "CertificateExpirationDate": "2019-12-22T18:43:48Z",
                    "DaysToExpiry": 198, "InUse": true, "Exported": true,
                    "FirstSubjectAlternativeName": "example.com", "ValidityInDays": 395, "CertificateKeyPairOrigin": "AWS_MANAGED"
                }),
                AcmDetail {
                    action: text("RENEWAL"),
                    certificate_type: text("PRIVATE"),
                    certificate_expiration_date: ends(),
                    ..AcmDetail::default()
                },
                expires,
            ),
            // ACM Certificate Renewal Action Required
            (
                json!({
                    "CertificateType": "PRIVATE", "CommonName": "example.com", "RenewalStatusReason": "PCA_ACCESS_DENIED",
                    "DaysToExpiry": 30, "CertificateExpirationDate": "2019-12-22T18:43:48Z", "InUse": true, "Exported": true
                }),
                AcmDetail {
                    certificate_type: text("PRIVATE"),
                    certificate_expiration_date: ends(),
                    renewal_status_reason: text("PCA_ACCESS_DENIED"),
                    ..AcmDetail::default()
                },
                expires,
            ),
            // ACM Certificate Revoked
            (
                json!({
                    "CertificateType": "PRIVATE", "CommonName": "example.com",
                    "CertificateExpirationDate": "2019-12-22T18:43:48Z", "Exportable": true
                }),
                AcmDetail { certificate_type: text("PRIVATE"), certificate_expiration_date: ends(), ..AcmDetail::default() },
                expires,
            ),
            (json!({}), AcmDetail::default(), None),
            (
                json!({"CertificateExpirationDate": "soon"}),
                AcmDetail { certificate_expiration_date: text("soon"), ..AcmDetail::default() },
                None,
            ),
        ] {
            let read: AcmDetail = serde_json::from_value(detail).unwrap();
            assert_eq!((read.expires(), read), (expiry, expected));
        }
    }

    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_service_deployment_events.html>
    #[test]
    fn the_documented_events_of_ecs_are_read() {
        let failed = json!({
            "eventType": "ERROR", "eventName": "SERVICE_DEPLOYMENT_FAILED", "deploymentId": "ecs-svc/123",
            "updatedAt": "2020-05-23T11:11:11Z", "reason": "ECS deployment circuit breaker: task failed to start."
        });
        let without_reason = json!({"eventName": "SERVICE_DEPLOYMENT_COMPLETED", "deploymentId": "ecs-svc/123"});
        let read = |detail: Value| serde_json::from_value::<EcsDetail>(detail).unwrap();
        assert_eq!(
            read(failed),
            EcsDetail {
                event_name: "SERVICE_DEPLOYMENT_FAILED".to_owned(),
                deployment_id: "ecs-svc/123".to_owned(),
                reason: Some("ECS deployment circuit breaker: task failed to start.".to_owned())
            }
        );
        assert_eq!(read(without_reason).reason, None);
    }
}
