use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::RENEWAL_TIME;
use crate::input::{in_progress, invalid, not_found, seconds};
use crate::pca::{self, Authority};
use crate::x509::{Certificate, PrivateKey, Profile};
use crate::{AwsError, Timer, World};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Imported,
    Private,
    Public,
}

#[derive(Clone)]
pub(super) struct AcmCertificate {
    pub(super) arn: String,
    pub(super) kind: Kind,
    pub(super) status: &'static str,
    pub(super) failure: Option<String>,
    /// When and why, as ACM's `RevocationReason`.
    pub(super) revoked: Option<(OffsetDateTime, String)>,
    /// The first one is the `DomainName`.
    pub(super) names: Vec<String>,
    pub(super) key_algorithm: String,
    pub(super) authority_arn: Option<String>,
    pub(super) validation_method: String,
    pub(super) exportable: bool,
    pub(super) created_at: OffsetDateTime,
    pub(super) body: Option<Body>,
    /// Ever, and since the body is this one.
    pub(super) exported: bool,
    pub(super) exported_body: bool,
    pub(super) in_use_by: Vec<String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) renewal: Option<Renewal>,
    /// Validation or a renewal that runs.
    pub(super) work: Option<Work>,
    /// The next time, whole days before the end, to look whether to renew or to warn.
    pub(super) next_mark: Option<OffsetDateTime>,
}

#[derive(Clone)]
pub(super) struct Body {
    pub(super) certificate: Certificate,
    pub(super) chain: Vec<Certificate>,
    pub(super) key: Arc<PrivateKey>,
    pub(super) since: OffsetDateTime,
}

#[derive(Clone)]
pub(super) struct Renewal {
    pub(super) status: &'static str,
    pub(super) reason: Option<String>,
    pub(super) updated_at: OffsetDateTime,
}

#[derive(Clone)]
pub(super) struct Work {
    pub(super) done_at: OffsetDateTime,
    /// Begun by ACM itself.
    pub(super) managed: bool,
}

impl Body {
    pub(super) fn chain_pem(&self) -> String {
        self.chain.iter().map(Certificate::pem).collect()
    }
}

impl AcmCertificate {
    pub(super) fn new(arn: String, kind: Kind, names: Vec<String>, key_algorithm: &str, now: OffsetDateTime) -> Self {
        Self {
            arn,
            kind,
            status: "PENDING_VALIDATION",
            failure: None,
            revoked: None,
            names,
            key_algorithm: key_algorithm.to_owned(),
            authority_arn: None,
            validation_method: String::new(),
            exportable: kind == Kind::Private,
            created_at: now,
            body: None,
            exported: false,
            exported_body: false,
            in_use_by: Vec::new(),
            tags: BTreeMap::new(),
            renewal: None,
            work: None,
            next_mark: None,
        }
    }

    pub(super) fn body(&self) -> Result<&Body, AwsError> {
        match &self.body {
            Some(body) => Ok(body),
            None if self.status == "FAILED" => Err(not_found(format!("Certificate {} was not issued.", self.arn))),
            None => Err(in_progress(&format!("Certificate {} has not been issued yet.", self.arn))),
        }
    }

    /// Whether a certificate may be imported over this one: same key type, no usage lost but the two that ACM lets go, and none
    /// added where there was no such extension: <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-prerequisites.html>.
    pub(super) fn accepts(&self, new: &Certificate) -> Result<(), AwsError> {
        let Some(Body { certificate: old, .. }) = self.body.as_ref().filter(|_| self.kind == Kind::Imported) else {
            return Err(invalid(format!("Certificate {} was not imported.", self.arn)));
        };
        if old.key_algorithm != new.key_algorithm {
            let (old, new) = (old.key_algorithm, new.key_algorithm);
            return Err(invalid(format!("The key of the certificate is {new}, and that of the one to replace is {old}.")));
        }
        let ecdsa = new.key_algorithm.starts_with("EC");
        let lost =
            old.key_usages.iter().find(|usage| !(new.key_usages.contains(usage) || ecdsa && **usage == "KEY_ENCIPHERMENT"));
        let kept = |usage: &(&'static str, String)| {
            new.extended_key_usages.contains(usage) || usage.0 == "TLS_WEB_CLIENT_AUTHENTICATION"
        };
        let lost_extended = old.extended_key_usages.iter().find(|usage| !kept(usage)).map(|(name, _)| name);
        let added = [
            ("KeyUsage", old.key_usages.is_empty() && !new.key_usages.is_empty()),
            ("ExtendedKeyUsage", old.extended_key_usages.is_empty() && !new.extended_key_usages.is_empty()),
        ];
        if let Some((extension, _)) = added.into_iter().find(|(_, added)| *added) {
            return Err(invalid(format!("The extension {extension} cannot be added to a certificate that has none.")));
        }
        match lost.or(lost_extended) {
            Some(usage) => Err(invalid(format!("The certificate lacks the usage {usage} of the one to replace."))),
            None => Ok(()),
        }
    }

    pub(super) fn become_issued(&mut self, world: &mut World, now: OffsetDateTime) {
        match self.issue(world, now) {
            Ok(body) => {
                self.status = "ISSUED";
                self.hold(body, now);
                self.announce(world, now, "ISSUANCE");
            }
            Err(reason) => (self.status, self.failure) = ("FAILED", Some(reason)),
        }
    }

    pub(super) fn become_renewed(&mut self, world: &mut World, now: OffsetDateTime, managed: bool) {
        let renewed = match &world.acm.renewal_fails {
            Some(reason) => Err(reason.clone()),
            None => self.issue(world, now),
        };
        match renewed {
            Ok(body) => {
                self.hold(body, now);
                self.renewal = Some(Renewal { status: "SUCCESS", reason: None, updated_at: now });
                self.announce(world, now, "RENEWAL");
            }
            Err(reason) => {
                // ACM tries again by itself when the time has come for it.
                let status = if managed { "PENDING_AUTO_RENEWAL" } else { "FAILED" };
                self.renewal = Some(Renewal { status, reason: Some(reason.clone()), updated_at: now });
                let days = self.days_left(now);
                let told = if self.kind == Kind::Private { &[45, 30, 15, 3, 1][..] } else { &[30, 15, 3, 1] };
                if managed && told.contains(&days) {
                    let mut detail = self.facts();
                    detail["RenewalStatusReason"] = json!(reason);
                    detail["DaysToExpiry"] = json!(days);
                    self.emit(world, now, "Renewal Action Required", detail);
                }
            }
        }
    }

    pub(super) fn become_revoked(&mut self, world: &mut World, now: OffsetDateTime, reason: &str) {
        (self.status, self.next_mark, self.work) = ("REVOKED", None, None);
        self.revoked = Some((now, reason.to_owned()));
        let mut detail = self.facts();
        detail["Exportable"] = json!(self.exportable);
        self.emit(world, now, "Revoked", detail);
    }

    /// A new key and its certificate, or a `FailureReason`.
    fn issue(&self, world: &mut World, now: OffsetDateTime) -> Result<Body, String> {
        let (names, key_algorithm) = (&self.names, &self.key_algorithm);
        let issued = match &self.authority_arn {
            Some(authority) => pca::issue_for_acm(world, now, authority, names, key_algorithm, Duration::days(395)),
            None => issue_public(world, now, names, key_algorithm).map_err(|_| "OTHER"),
        };
        let (key, certificate, chain) = issued?;
        Ok(Body { certificate, chain, key: key.into(), since: now })
    }

    /// Has a new body from now on.
    pub(super) fn hold(&mut self, body: Body, now: OffsetDateTime) {
        let not_after = body.certificate.not_after;
        let first = self.first_attempt().min(days_between(now, not_after) - 1);
        self.next_mark = Some(not_after - Duration::days(first));
        self.exported_body = false;
        self.body = Some(body);
    }

    /// What happens each day when the end is near, and at the end.
    pub(super) fn pass_mark(&mut self, world: &mut World, now: OffsetDateTime) {
        let Some(not_after) = self.body.as_ref().map(|body| body.certificate.not_after) else { return };
        if now >= not_after {
            self.status = "EXPIRED";
            self.next_mark = None;
            self.work = None;
            if let Some(renewal) = self.renewal.as_mut().filter(|renewal| renewal.status != "SUCCESS") {
                *renewal = Renewal { status: "FAILED", updated_at: now, reason: renewal.reason.take() };
            }
            if self.kind != Kind::Imported {
                self.emit(world, now, "Expired", self.facts());
            }
            return;
        }
        let days = self.days_left(now);
        if self.eligible() && days <= self.first_attempt() && self.work.is_none() {
            self.start_renewal(now, true);
        }
        let first_warning = if self.kind == Kind::Public { 30 } else { 45 };
        if days <= world.acm.days_before_expiry.unwrap_or(first_warning) {
            self.emit(world, now, "Approaching Expiration", json!({"DaysToExpiry": days, "CommonName": self.names.first()}));
        }
        self.next_mark = Some(not_after - Duration::days(days - 1));
    }

    /// Returns when it will be done.
    pub(super) fn start_renewal(&mut self, now: OffsetDateTime, managed: bool) -> OffsetDateTime {
        let done_at = now + RENEWAL_TIME;
        let reason = self.renewal.take().filter(|renewal| renewal.status != "SUCCESS").and_then(|renewal| renewal.reason);
        self.renewal = Some(Renewal { status: "PENDING_AUTO_RENEWAL", reason, updated_at: now });
        self.work = Some(Work { done_at, managed });
        done_at
    }

    pub(super) fn set_timer(&self, world: &mut World) {
        let work = self.work.as_ref().map(|work| work.done_at);
        if let Some(next) = work.into_iter().chain(self.next_mark).min() {
            world.at(next, Timer::Acm { certificate_arn: self.arn.clone() });
        }
    }

    /// <https://docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html>
    fn eligible(&self) -> bool {
        self.kind != Kind::Imported && self.status == "ISSUED" && (self.exported_body || !self.in_use_by.is_empty())
    }

    /// How many days before the end ACM begins to look after a certificate.
    fn first_attempt(&self) -> i64 {
        if self.kind == Kind::Private { 60 } else { 45 }
    }

    fn days_left(&self, now: OffsetDateTime) -> i64 {
        self.body.as_ref().map_or(0, |body| days_between(now, body.certificate.not_after))
    }

    pub(super) fn announce(&self, world: &mut World, now: OffsetDateTime, action: &str) {
        let mut detail = self.facts();
        detail["Action"] = json!(action);
        detail["DaysToExpiry"] = json!(self.days_left(now));
        self.emit(world, now, "Available", detail);
    }

    fn emit(&self, world: &mut World, now: OffsetDateTime, what: &str, detail: Value) {
        world.emit(now, "aws.acm", &format!("ACM Certificate {what}"), std::slice::from_ref(&self.arn), detail);
    }

    /// What most events tell of a certificate.
    fn facts(&self) -> Value {
        let date = |at: OffsetDateTime| at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
        let mut facts = json!({
            "CertificateType": self.type_name(), "CommonName": self.names.first(), "CertificateCreatedDate": date(self.created_at),
            "CertificateExpirationDate": self.body.as_ref().map(|body| date(body.certificate.not_after)),
            "InUse": !self.in_use_by.is_empty(), "Exported": self.exported,
        });
        if self.kind == Kind::Public {
            facts["DomainValidationMethod"] = json!(self.validation_method);
        }
        facts
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Imported => "IMPORTED",
            Kind::Private => "PRIVATE",
            Kind::Public => "AMAZON_ISSUED",
        }
    }

    /// What `DescribeCertificate` and `ListCertificates` both tell. The wire has `RSA-2048` where the API's list of values has
    /// `RSA_2048`.
    fn outline(&self) -> Value {
        let mut outline = json!({
            "CertificateArn": self.arn, "Status": self.status, "Type": self.type_name(), "CreatedAt": seconds(self.created_at),
            "KeyAlgorithm": self.key_algorithm.replace('_', "-"),
            "RenewalEligibility": if self.eligible() { "ELIGIBLE" } else { "INELIGIBLE" },
            "CertificateKeyPairOrigin": if self.kind == Kind::Imported { "CUSTOMER_PROVIDED" } else { "AWS_MANAGED" },
        });
        if let Some(name) = self.names.first() {
            outline["DomainName"] = json!(name);
        }
        if let Some((at, _)) = &self.revoked {
            outline["RevokedAt"] = seconds(*at);
        }
        if let Some(body) = &self.body {
            outline["NotBefore"] = seconds(body.certificate.not_before);
            outline["NotAfter"] = seconds(body.certificate.not_after);
            match self.kind {
                Kind::Imported => outline["ImportedAt"] = seconds(body.since),
                Kind::Public => outline["IssuedAt"] = seconds(body.since),
                Kind::Private => {}
            }
        }
        outline
    }

    pub(super) fn description(&self) -> Value {
        let mut detail = self.outline();
        detail["SubjectAlternativeNames"] = json!(self.names);
        detail["InUseBy"] = json!(self.in_use_by);
        if let Some(authority) = &self.authority_arn {
            detail["CertificateAuthorityArn"] = json!(authority);
        }
        if let Some(reason) = &self.failure {
            detail["FailureReason"] = json!(reason);
        }
        if let Some((_, reason)) = &self.revoked {
            detail["RevocationReason"] = json!(reason);
        }
        let status = if self.body.is_some() { "SUCCESS" } else { "PENDING_VALIDATION" };
        let public = self.kind == Kind::Public;
        let validations = self.names.iter().map(|name| match public {
            true => json!({"DomainName": name, "ValidationStatus": status, "ValidationMethod": self.validation_method}),
            false => json!({"DomainName": name}),
        });
        let validations = Value::from(validations.collect::<Vec<_>>());
        if let Some(Renewal { status, reason, updated_at }) = &self.renewal {
            let updated_at = seconds(*updated_at);
            let mut summary = json!({"RenewalStatus": status, "DomainValidationOptions": validations, "UpdatedAt": updated_at});
            if let Some(reason) = reason {
                summary["RenewalStatusReason"] = json!(reason);
            }
            detail["RenewalSummary"] = summary;
        }
        if public {
            let export = if self.exportable { "ENABLED" } else { "DISABLED" };
            detail["Options"] = json!({"CertificateTransparencyLoggingPreference": "ENABLED", "Export": export});
            detail["DomainValidationOptions"] = validations;
        }
        if let Some(Body { certificate, .. }) = &self.body {
            let extended = certificate.extended_key_usages.iter().map(|(name, oid)| json!({"Name": name, "OID": oid}));
            detail["Serial"] = json!(certificate.serial);
            detail["Subject"] = json!(certificate.subject_text);
            detail["Issuer"] = json!(certificate.issuer_text);
            detail["SignatureAlgorithm"] = json!(certificate.signature_algorithm);
            detail["KeyUsages"] = certificate.key_usages.iter().map(|name| json!({"Name": name})).collect();
            detail["ExtendedKeyUsages"] = extended.collect();
        }
        detail
    }

    pub(super) fn summary(&self) -> Value {
        let mut summary = self.outline();
        summary["SubjectAlternativeNameSummaries"] = json!(self.names);
        summary["HasAdditionalSubjectAlternativeNames"] = json!(false);
        summary["InUse"] = json!(!self.in_use_by.is_empty());
        summary["Exported"] = json!(self.exported);
        if self.kind == Kind::Public {
            summary["ExportOption"] = json!(if self.exportable { "ENABLED" } else { "DISABLED" });
        }
        if let Some(Body { certificate, .. }) = &self.body {
            let some = |names: Vec<&'static str>, none| if names.is_empty() { json!([none]) } else { json!(names) };
            summary["KeyUsages"] = some(certificate.key_usages.clone(), "ANY");
            let extended = certificate.extended_key_usages.iter().map(|(name, _)| *name).collect();
            summary["ExtendedKeyUsages"] = some(extended, "NONE");
        }
        summary
    }
}

/// A leaf of the stand-in for Amazon's CA, which is made when it is first needed. Its chain ends where Amazon's does: at a root of
/// Amazon's that an older one has signed, which clients trust by itself.
/// <https://www.amazontrust.com/repository/>
fn issue_public(
    world: &mut World,
    now: OffsetDateTime,
    names: &[String],
    key_algorithm: &str,
) -> Result<(PrivateKey, Certificate, Vec<Certificate>), AwsError> {
    let serial = pca::serial(world);
    let amazon = match world.acm.amazon.take() {
        Some(amazon) => amazon,
        None => {
            let subject = |organization: &str, name: &str| json!({"Country": "US", "Organization": organization, "CommonName": format!("{name} (Local AWS)")});
            let starfield = subject("Starfield Technologies, Inc.", "Starfield Services Root Certificate Authority - G2");
            let starfield = Authority::root(world, now, starfield, "EC_prime256v1")?;
            let root = starfield.below(world, now, subject("Amazon", "Amazon Root CA 1"), "EC_prime256v1")?;
            root.below(world, now, subject("Amazon", "Amazon RSA 2048"), "RSA_2048")?
        }
    };
    let profile = Profile::Leaf { server: true, client: false };
    let issued = amazon.issue_for_names(names, key_algorithm, profile, serial, now, Duration::days(198));
    world.acm.amazon = Some(amazon);
    let (key, certificate, mut chain) = issued?;
    chain.pop();
    Ok((key, certificate, chain))
}

/// A day begun counts.
fn days_between(now: OffsetDateTime, end: OffsetDateTime) -> i64 {
    ((end - now).as_seconds_f64() / 86_400.0).ceil() as i64
}
