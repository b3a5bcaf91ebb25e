use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use x509_parser::oid_registry::*;

use super::revocation::Revocation;
use super::serial;
use crate::input::{invalid, seconds, text};
use crate::x509::{self, Certificate, Draft, PrivateKey, Profile, Request, SignatureAlgorithm};
use crate::{AwsError, World};

pub(super) const PERMITTED_ACTIONS: [&str; 3] = ["IssueCertificate", "GetCertificate", "ListPermissions"];

/// A CA with its key.
pub(crate) struct Authority {
    pub(super) arn: String,
    pub(super) kind: String,
    pub(super) configuration: Value,
    pub(super) usage_mode: String,
    pub(super) key: PrivateKey,
    pub(super) algorithm: &'static SignatureAlgorithm,
    pub(super) csr: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) changed_at: OffsetDateTime,
    /// What was set; what it is, [`Self::status`] tells.
    pub(super) status: &'static str,
    pub(super) certificate: Option<Certificate>,
    pub(super) chain: Vec<Certificate>,
    pub(super) permission: Option<Value>,
    pub(super) revocation: Revocation,
    /// The templates from which this account may issue, where another one owns the CA and shares it.
    pub(super) shared: Option<Vec<String>>,
}

/// A certificate that a CA is to sign.
pub(super) struct Order {
    pub(super) authority_arn: String,
    pub(super) draft: Draft,
    pub(super) algorithm: &'static SignatureAlgorithm,
    /// The CA's own, as a root.
    pub(super) own: bool,
}

impl Authority {
    pub(crate) fn root(world: &mut World, now: OffsetDateTime, subject: Value, key_algorithm: &str) -> Result<Self, AwsError> {
        let serial = serial(world);
        let mut root = Self::simple(world, now, "ROOT", subject, key_algorithm)?;
        let (certificate, chain) = root.sign_itself(serial, now)?;
        root.activate(now, certificate, chain);
        Ok(root)
    }

    /// A CA that another has signed, for ten years.
    pub(crate) fn below(
        &self,
        world: &mut World,
        now: OffsetDateTime,
        subject: Value,
        key_algorithm: &str,
    ) -> Result<Self, AwsError> {
        let serial = serial(world);
        let mut authority = Self::simple(world, now, "SUBORDINATE", subject, key_algorithm)?;
        let request = Request::from_pem(authority.csr.as_bytes()).map_err(malformed_csr)?;
        let profile = Profile::Authority { path_length: None };
        let (certificate, chain) = self.sign(&self.order(request, profile, serial, now, now + Duration::days(10 * 365)))?;
        authority.activate(now, certificate, chain);
        Ok(authority)
    }

    /// For twenty years.
    pub(super) fn sign_itself(&self, serial: [u8; 16], now: OffsetDateTime) -> Result<(Certificate, Vec<Certificate>), AwsError> {
        let request = Request::from_pem(self.csr.as_bytes()).map_err(malformed_csr)?;
        let profile = Profile::Authority { path_length: None };
        self.sign(&Order { own: true, ..self.order(request, profile, serial, now, now + Duration::days(20 * 365)) })
    }

    pub(super) fn simple(
        world: &mut World,
        now: OffsetDateTime,
        kind: &str,
        subject: Value,
        key: &str,
    ) -> Result<Self, AwsError> {
        let signing = match key {
            "EC_prime256v1" => "SHA256WITHECDSA",
            "EC_secp384r1" => "SHA384WITHECDSA",
            _ => "SHA256WITHRSA",
        };
        let configuration = json!({"KeyAlgorithm": key, "SigningAlgorithm": signing, "Subject": subject});
        Self::new(world, now, kind, configuration, "GENERAL_PURPOSE")
    }

    pub(super) fn new(
        world: &mut World,
        now: OffsetDateTime,
        kind: &str,
        configuration: Value,
        usage: &str,
    ) -> Result<Self, AwsError> {
        const KEY_ALGORITHMS: [&str; 5] = ["RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1"];
        const SUBJECT: [(&str, Oid<'static>); 14] = [
            ("Country", OID_X509_COUNTRY_NAME),
            ("Organization", OID_X509_ORGANIZATION_NAME),
            ("OrganizationalUnit", OID_X509_ORGANIZATIONAL_UNIT),
            ("DistinguishedNameQualifier", OID_X509_DN_QUALIFIER),
            ("State", OID_X509_STATE_OR_PROVINCE_NAME),
            ("CommonName", OID_X509_COMMON_NAME),
            ("SerialNumber", OID_X509_SERIALNUMBER),
            ("Locality", OID_X509_LOCALITY_NAME),
            ("Title", OID_X509_TITLE),
            ("Surname", OID_X509_SURNAME),
            ("GivenName", OID_X509_GIVEN_NAME),
            ("Initials", OID_X509_INITIALS),
            ("Pseudonym", x509_parser::asn1_rs::oid!(2.5.4.65)),
            ("GenerationQualifier", OID_X509_GENERATION_QUALIFIER),
        ];
        let key_algorithm = text(&configuration, "KeyAlgorithm")?;
        if !KEY_ALGORITHMS.contains(&key_algorithm) {
            return Err(invalid_args(format!(
                "Local AWS has CAs with the keys {}, not {key_algorithm}.",
                KEY_ALGORITHMS.join(", ")
            )));
        }
        let algorithm = signing_algorithm(&configuration, key_algorithm)?;
        let subject: Vec<_> =
            SUBJECT.into_iter().filter_map(|(member, oid)| Some((oid, configuration["Subject"][member].as_str()?))).collect();
        if subject.is_empty() {
            return Err(invalid_args("The subject of the certificate authority is empty."));
        }
        let key = PrivateKey::generate(key_algorithm)?;
        let csr = Request::new(x509::name(subject), &[], &key)?.signed(&key, algorithm)?;
        let id = world.uuid();
        Ok(Self {
            arn: world.arn("acm-pca", &format!("certificate-authority/{id}")),
            kind: kind.to_owned(),
            configuration,
            usage_mode: usage.to_owned(),
            key,
            algorithm,
            csr,
            created_at: now,
            changed_at: now,
            status: "CREATING",
            certificate: None,
            chain: Vec::new(),
            permission: None,
            revocation: Revocation::default(),
            shared: None,
        })
    }

    /// Ends the set-up of a CA in one go: it is `ACTIVE`, and ACM may use it.
    pub(super) fn activate(&mut self, now: OffsetDateTime, certificate: Certificate, chain: Vec<Certificate>) {
        (self.certificate, self.chain) = (Some(certificate), chain);
        self.permission = Some(permission(&self.arn, now, json!(PERMITTED_ACTIONS)));
        self.turn(now, "ACTIVE");
    }

    pub(super) fn turn(&mut self, now: OffsetDateTime, status: &'static str) {
        (self.status, self.changed_at) = (status, now);
    }

    pub(super) fn status(&self, now: OffsetDateTime) -> &'static str {
        match &self.certificate {
            Some(certificate) if now > certificate.not_after => "EXPIRED",
            _ => self.status,
        }
    }

    /// A root may sign its own certificate before it has one, and when it has expired.
    pub(super) fn may_issue(&self, now: OffsetDateTime, order: &Order) -> bool {
        let status = self.status(now);
        status == "ACTIVE" || order.own && ["PENDING_CERTIFICATE", "EXPIRED"].contains(&status)
    }

    /// Whether a certificate may last as long.
    pub(super) fn outlives(&self, now: OffsetDateTime, not_after: OffsetDateTime) -> Result<(), AwsError> {
        if self.certificate.as_ref().is_none_or(|certificate| not_after > certificate.not_after) {
            return Err(invalid("The certificate validity specified exceeds the certificate authority validity."));
        }
        if self.usage_mode == "SHORT_LIVED_CERTIFICATE" && not_after > now + Duration::days(7) {
            return Err(invalid(
                "The certificate validity specified exceeds seven days, the limit of a short-lived certificate CA.",
            ));
        }
        Ok(())
    }

    pub(super) fn order(
        &self,
        request: Request,
        profile: Profile,
        serial: [u8; 16],
        now: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Order {
        let crl_url = self.revocation.distribution_point(&self.arn);
        let ocsp_url = self.revocation.ocsp_url(&self.arn);
        let draft = Draft { request, profile, serial, not_before: now - Duration::hours(1), not_after, crl_url, ocsp_url };
        Order { authority_arn: self.arn.clone(), draft, algorithm: self.algorithm, own: false }
    }

    /// The certificate, and its chain from this CA to the root.
    pub(super) fn sign(&self, order: &Order) -> Result<(Certificate, Vec<Certificate>), AwsError> {
        let issuer = self.certificate.as_ref().filter(|_| !order.own);
        let certificate = order.draft.sign(issuer, &self.key, order.algorithm)?;
        let chain = issuer.map(|issuer| std::iter::once(issuer).chain(&self.chain).cloned().collect());
        Ok((certificate, chain.unwrap_or_default()))
    }

    /// Makes a key and signs a certificate for the first name as the subject and all names as alternatives.
    pub(crate) fn issue_for_names(
        &self,
        names: &[String],
        key_algorithm: &str,
        profile: Profile,
        serial: [u8; 16],
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<(PrivateKey, Certificate, Vec<Certificate>), AwsError> {
        let key = PrivateKey::generate(key_algorithm)?;
        let subject = x509::name(names.first().map(|name| (OID_X509_COMMON_NAME, name.as_str())));
        let request = Request::new(subject, names, &key)?;
        let (certificate, chain) = self.sign(&self.order(request, profile, serial, now, now + lifetime))?;
        Ok((key, certificate, chain))
    }

    pub(super) fn description(&self, now: OffsetDateTime) -> Value {
        let status = self.status(now);
        let mut description = json!({
            "Arn": self.arn, "OwnerAccount": self.arn.split(':').nth(4), "CreatedAt": seconds(self.created_at), "Type": self.kind,
            "LastStateChangeAt": seconds(self.changed_at), "Status": status, "CertificateAuthorityConfiguration": self.configuration,
            "RevocationConfiguration": self.revocation.configuration,
            "KeyStorageSecurityStandard": "FIPS_140_2_LEVEL_3_OR_HIGHER", "UsageMode": self.usage_mode,
        });
        if let Some(certificate) = &self.certificate {
            description["Serial"] = json!(certificate.serial);
            description["NotBefore"] = seconds(certificate.not_before);
            description["NotAfter"] = seconds(certificate.not_after);
            if status == "EXPIRED" {
                description["LastStateChangeAt"] = seconds(certificate.not_after);
            }
        }
        description
    }

    /// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_ImportCertificateAuthorityCertificate.html>
    pub(super) fn accepts(&self, now: OffsetDateTime, certificate: &Certificate, chain: &[Certificate]) -> Result<(), AwsError> {
        let malformed = |message| Err(AwsError::new("MalformedCertificateException", message));
        let refused = |message| Err(AwsError::new("InvalidRequestException", message));
        let mismatch = |message| Err(AwsError::new("CertificateMismatchException", message));
        if certificate.public_key != self.key.public_key()? {
            return mismatch("The public key of the certificate is not that of the certificate authority.");
        }
        if certificate.authority.is_none() || !certificate.key_usages.contains(&"CERTIFICATE_SIGNING") {
            return malformed("The certificate is not that of a certificate authority.");
        }
        match (self.kind.as_str(), certificate.is_self_signed()) {
            ("ROOT", false) => return refused("Only a self-signed certificate can be imported as a root CA."),
            ("ROOT", true) if !chain.is_empty() => return refused("A root CA has no certificate chain."),
            ("SUBORDINATE", true) => return refused("A self-signed certificate cannot be imported as a subordinate CA."),
            ("SUBORDINATE", false) if chain.is_empty() => return refused("A subordinate CA needs a certificate chain."),
            _ => {}
        }
        let links = std::iter::once(certificate).chain(chain);
        for (below, (subject, issuer)) in (1..).zip(links.clone().zip(chain)) {
            if !subject.is_signed_by(issuer) {
                return malformed("The certificate chain does not verify, from the issuing CA to the root.");
            }
            match issuer.authority {
                Some(path_length) if path_length.is_none_or(|length| length >= below) => {}
                Some(_) => return mismatch("The certificate chain is longer than a path length in it allows."),
                None => return malformed("The certificate chain holds a certificate that is not a CA's."),
            }
        }
        if chain.last().is_some_and(|root| !root.is_self_signed()) {
            return malformed("The certificate chain does not end with a root.");
        }
        if !links.clone().all(|link| link.is_valid_at(now)) {
            return malformed("The certificate, or one of its chain, is not valid now.");
        }
        Ok(())
    }
}

pub(super) fn signing_algorithm(input: &Value, key_algorithm: &str) -> Result<&'static SignatureAlgorithm, AwsError> {
    let name = text(input, "SigningAlgorithm")?;
    let algorithm =
        SignatureAlgorithm::named(name).ok_or_else(|| invalid_args(format!("Local AWS does not sign with {name}.")))?;
    if !algorithm.fits(key_algorithm) {
        return Err(invalid_args(format!(
            "The signing algorithm {name} does not fit the key of the certificate authority, {key_algorithm}."
        )));
    }
    if !algorithm.signs_with(key_algorithm) {
        return Err(invalid_args(format!(
            "Local AWS signs with the hash of the curve only, not with {name} and {key_algorithm}."
        )));
    }
    Ok(algorithm)
}

pub(super) fn permission(authority_arn: &str, now: OffsetDateTime, actions: Value) -> Value {
    json!({
        "CertificateAuthorityArn": authority_arn, "CreatedAt": seconds(now), "Principal": "acm.amazonaws.com",
        "SourceAccount": authority_arn.split(':').nth(4), "Actions": actions,
    })
}

pub(super) fn invalid_args(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidArgsException", message)
}

pub(super) fn malformed_csr(reason: String) -> AwsError {
    AwsError::new("MalformedCSRException", format!("The certificate signing request is malformed: {reason}."))
}
