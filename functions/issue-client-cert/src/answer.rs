//! What the function answers: public facts only.

use std::collections::BTreeSet;

use lifecycle::issuance::Order;
use lifecycle::names::StoreName;
use lifecycle::record::{Moment, Record};
use runtime::Failure;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

#[derive(Debug, Serialize)]
pub struct Answer {
    pub outcome: Outcome,
    pub certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_arn: Option<String>,
    /// The certificate in ACM that holds the pair as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acm_certificate_arn: Option<String>,
    /// For a caller's CSR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_chain_pem: Option<String>,
    /// Why a planned certificate would be issued, what it waits for, or why one that is due is not renewed now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Issued,
    Unchanged,
    Planned,
    WaitingForTrust,
}

impl Answer {
    pub(crate) fn of(outcome: Outcome, record: &Record, public: Option<(String, String)>) -> Result<Self, Failure> {
        let current = record.current.as_ref();
        let (certificate_pem, certificate_chain_pem) = public.unzip();
        Ok(Self {
            outcome,
            certificate: record.name.to_string(),
            secret_arn: record.secret_arn.as_ref().map(ToString::to_string),
            version_id: current.map(|pair| pair.version_id.clone()),
            serial_number: current.map(|pair| pair.serial.to_string()),
            not_before: current.map(|pair| pair.not_before),
            not_after: current.map(|pair| pair.not_after),
            fingerprint_sha256: current.map(|pair| pair.fingerprint.clone()),
            certificate_authority_arn: current.and_then(|pair| pair.issuer.as_ref()).map(ToString::to_string),
            acm_certificate_arn: record.acm_certificate().map(ToString::to_string),
            certificate_pem,
            certificate_chain_pem,
            reason: None,
        })
    }

    pub(crate) fn planned(order: &Order, now: OffsetDateTime, reason: &'static str) -> Self {
        Self {
            outcome: Outcome::Planned,
            certificate: order.name.to_string(),
            secret_arn: None,
            version_id: None,
            serial_number: None,
            not_before: None,
            not_after: Some((now + order.specification.lifetime).into()),
            fingerprint_sha256: None,
            certificate_authority_arn: Some(order.specification.certificate_authority_arn.to_string()),
            acm_certificate_arn: order.import_into.as_ref().map(ToString::to_string),
            certificate_pem: None,
            certificate_chain_pem: None,
            reason: Some(reason.to_owned()),
        }
    }

    /// The pair is staged; what is current, if anything, stays so until these stores hold its CA.
    pub(crate) fn waiting(record: &Record, stores: &BTreeSet<StoreName>) -> Result<Self, Failure> {
        let stores: Vec<_> = stores.iter().map(ToString::to_string).collect();
        let reason = match &stores[..] {
            [] => "it is not known yet which trust stores have to hold its CA; refresh-truststore is asked".to_owned(),
            stores => format!(
                "the trust stores {} do not hold its CA yet; refresh-truststore is asked to see to them",
                stores.join(", ")
            ),
        };
        Ok(Self { reason: Some(reason), ..Self::of(Outcome::WaitingForTrust, record, None)? })
    }

    pub(crate) fn into_json(self) -> Result<Value, Failure> {
        serde_json::to_value(self).map_err(|error| Failure::permanent("write the answer", error))
    }
}
