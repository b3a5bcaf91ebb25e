//! Revocation, and the CRLs that tell of it: <https://docs.aws.amazon.com/privateca/latest/userguide/crl-planning.html>.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{Issuance, PrivateCa, certificate_arn, find, invalid_args, invalid_state};
use crate::input::{constraint, in_progress, invalid, not_found, one_of, text};
use crate::x509::{Certificate, RevocationList, RevokedEntry};
use crate::{AwsError, Timer, World, acm, s3};

/// How long after CRLs were enabled the first one comes.
const FIRST_CRL: Duration = Duration::seconds(10);

/// How long after a revocation the CRL has it.
const PUBLICATION_TIME: Duration = Duration::minutes(30);

const RETRY_TIME: Duration = Duration::minutes(15);

/// With their codes: <https://www.rfc-editor.org/rfc/rfc5280#section-5.3.1>.
const REASONS: [(&str, u8); 8] = [
    ("UNSPECIFIED", 0),
    ("KEY_COMPROMISE", 1),
    ("CERTIFICATE_AUTHORITY_COMPROMISE", 2),
    ("AFFILIATION_CHANGED", 3),
    ("SUPERSEDED", 4),
    ("CESSATION_OF_OPERATION", 5),
    ("PRIVILEGE_WITHDRAWN", 9),
    ("A_A_COMPROMISE", 10),
];

/// What a CA has revoked, and how it tells.
pub(super) struct Revocation {
    /// As `RevocationConfiguration`.
    pub(super) configuration: Value,
    revoked: BTreeMap<u128, Revoked>,
    /// When the next CRL is due.
    next: Option<OffsetDateTime>,
    /// The last CRL, by its number and time.
    last: Option<(u64, OffsetDateTime)>,
}

struct Revoked {
    at: OffsetDateTime,
    reason: u8,
    not_after: OffsetDateTime,
}

impl Default for Revocation {
    fn default() -> Self {
        let disabled = json!({"Enabled": false});
        let configuration = json!({"CrlConfiguration": disabled, "OcspConfiguration": disabled});
        Self { configuration, revoked: BTreeMap::new(), next: None, last: None }
    }
}

impl Revocation {
    fn has_crl(&self) -> bool {
        self.configuration["CrlConfiguration"]["Enabled"] == true
    }

    /// Asks for a CRL at `when`, unless one comes earlier. Returns whether that is news.
    fn wants(&mut self, when: OffsetDateTime) -> bool {
        let news = self.has_crl() && self.next.is_none_or(|next| when < next);
        if news {
            self.next = Some(when);
        }
        news
    }

    /// The key of the CRL in its bucket. A path `/` is none.
    fn key(&self, authority_arn: &str) -> String {
        let id = authority_arn.rsplit('/').next().unwrap_or_default();
        match self.configuration["CrlConfiguration"]["CustomPath"].as_str() {
            Some("/") => format!("{id}.crl"),
            path => format!("{}/{id}.crl", path.unwrap_or("crl")),
        }
    }

    fn crl_url(&self, authority_arn: &str) -> Option<String> {
        let crl = &self.configuration["CrlConfiguration"];
        let host = match crl["CustomCname"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("{}.s3.{}.amazonaws.com", crl["S3BucketName"].as_str()?, region(authority_arn)),
        };
        Some(format!("http://{host}/{}", self.key(authority_arn)))
    }

    /// What the CRL distribution points of a certificate name.
    pub(super) fn distribution_point(&self, authority_arn: &str) -> Option<String> {
        let omitted = &self.configuration["CrlConfiguration"]["CrlDistributionPointExtensionConfiguration"]["OmitExtension"];
        self.crl_url(authority_arn).filter(|_| omitted != true)
    }

    /// What the authority information access of a certificate names. Nobody answers there.
    pub(super) fn ocsp_url(&self, authority_arn: &str) -> Option<String> {
        let ocsp = &self.configuration["OcspConfiguration"];
        let host = match ocsp["OcspCustomCname"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("ocsp.acm-pca.{}.amazonaws.com", region(authority_arn)),
        };
        (ocsp["Enabled"] == true).then(|| format!("http://{host}"))
    }

    /// Everything revoked that has not expired, and what has expired since the last CRL.
    fn entries(&self, now: OffsetDateTime) -> Vec<RevokedEntry> {
        let since = self.last.map_or(now, |(_, at)| at);
        let listed = self.revoked.iter().filter(|(_, revoked)| revoked.not_after >= since);
        listed.map(|(&serial, revoked)| RevokedEntry { serial, revoked_at: revoked.at, reason: revoked.reason }).collect()
    }
}

impl PrivateCa {
    /// The bucket and the key of a CA's CRL, if it publishes one.
    pub(crate) fn crl(&self, authority_arn: &str) -> Option<(String, String)> {
        let revocation = &self.authorities.get(authority_arn)?.revocation;
        let bucket = revocation.configuration["CrlConfiguration"]["S3BucketName"].as_str().filter(|_| revocation.has_crl())?;
        Some((bucket.to_owned(), revocation.key(authority_arn)))
    }
}

fn region(authority_arn: &str) -> &str {
    authority_arn.split(':').nth(3).unwrap_or_default()
}

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_RevokeCertificate.html>
pub(super) fn revoke(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    const SELF_SIGNED: &str = "The self-signed certificate of a root CA cannot be revoked.";
    let authority = find(world, input)?;
    let authority_arn = authority.arn.clone();
    let serial = read_serial(text(input, "CertificateSerial")?)?;
    let reason = one_of(input, "RevocationReason", &REASONS.map(|(name, _)| name))?;
    if !["ACTIVE", "DISABLED"].contains(&authority.status(now)) {
        return Err(invalid_state("The certificate authority is not in a valid state for revoking certificates."));
    }
    let prohibited = |why: &str| Err(AwsError::new("InvalidRequestException", why));
    let own = authority.certificate.as_ref().filter(|_| authority.kind == "ROOT").and_then(number);
    if own.is_some() && own == serial {
        return prohibited(SELF_SIGNED);
    }
    let unknown = || not_found(format!("Could not find a certificate with the serial {}", input["CertificateSerial"]));
    let serial = serial.ok_or_else(unknown)?;
    let arn = certificate_arn(&authority_arn, serial);
    let certificate = match world.pca.certificates.get(&arn).ok_or_else(unknown)? {
        Issuance::Issued(certificate, _) => certificate.clone(),
        Issuance::Pending(_) => return Err(in_progress("The certificate is still being issued.")),
        Issuance::Failed => return Err(AwsError::new("RequestFailedException", "The certificate could not be issued.")),
    };
    if certificate.is_self_signed() {
        return prohibited(SELF_SIGNED);
    }
    let revocation = &mut find(world, input)?.revocation;
    if revocation.revoked.contains_key(&serial) {
        return Err(AwsError::new("RequestAlreadyProcessedException", "Your request has already been completed."));
    }
    if now > certificate.not_after {
        return prohibited("The certificate has expired.");
    }
    let code = REASONS.iter().find(|(name, _)| *name == reason).map_or(0, |(_, code)| *code);
    revocation.revoked.insert(serial, Revoked { at: now, reason: code, not_after: certificate.not_after });
    want_crl(world, &authority_arn, now + PUBLICATION_TIME);
    super::emit(world, now, "Certificate Revocation", &[authority_arn, arn], json!({"result": "success"}));
    acm::revoked_by_authority(world, now, &certificate, reason);
    Ok(json!({}))
}

/// Hexadecimal, with a colon between the bytes or without. No certificate here has a serial beyond 128 bits.
fn read_serial(text: &str) -> Result<Option<u128>, AwsError> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if text.len() > 128 || digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(constraint("CertificateSerial", text, "Member must be hexadecimal, with a length of at most 128"));
    }
    Ok(u128::from_str_radix(&digits, 16).ok())
}

fn number(certificate: &Certificate) -> Option<u128> {
    u128::from_str_radix(&certificate.serial.replace(':', ""), 16).ok()
}

/// A `RevocationConfiguration` from a request, what it leaves out as it was. The buckets here are as AWS makes them by default:
/// nobody can put a public object there.
///
/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_CrlConfiguration.html>
pub(super) fn configuration(world: &World, was: &Value, input: &Value) -> Result<Value, AwsError> {
    let mut configuration = was.clone();
    let name = |of: &Value, member: &str, others: &str, longest: usize| match of[member].as_str() {
        Some(name) if name.len() > longest || !name.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c)) => {
            Err(constraint(member, name, &format!("Member must have length at most {longest}, of letters, digits and {others}")))
        }
        Some(name) if name.contains("://") => Err(invalid_args(format!("{member} must not have a protocol."))),
        _ => Ok(()),
    };
    let switched = |of: &Value| of["Enabled"].as_bool().ok_or_else(|| constraint("Enabled", "null", "Member must not be null"));
    let crl = &input["CrlConfiguration"];
    if !crl.is_null() {
        let enabled = switched(crl)?;
        name(crl, "CustomCname", "-;/?:@&=+$,%_.!~*()'", 253)?;
        name(crl, "CustomPath", "-;/?:@&=+$,%_.!~*()'", 253)?;
        name(crl, "S3BucketName", "-._/", 255)?;
        if crl["CustomPath"].as_str().is_some_and(|path| path != "/" && path.split('/').any(str::is_empty)) {
            return Err(invalid("CustomPath must not begin or end with a slash."));
        }
        let days = &crl["ExpirationInDays"];
        if !days.is_null() && !days.as_i64().is_some_and(|days| (1..=5000).contains(&days)) {
            return Err(constraint("ExpirationInDays", &days.to_string(), "Member must be between 1 and 5000"));
        }
        if !crl["S3ObjectAcl"].is_null() {
            one_of(crl, "S3ObjectAcl", &["PUBLIC_READ", "BUCKET_OWNER_FULL_CONTROL"])?;
        }
        if !crl["CrlType"].is_null() && one_of(crl, "CrlType", &["COMPLETE", "PARTITIONED"])? == "PARTITIONED" {
            return Err(invalid_args("Local AWS has complete CRLs only."));
        }
        if enabled {
            let bucket = crl["S3BucketName"].as_str().filter(|_| !days.is_null());
            let bucket = bucket.ok_or_else(|| invalid_args("A CRL needs S3BucketName and ExpirationInDays."))?;
            if crl["S3ObjectAcl"] != "BUCKET_OWNER_FULL_CONTROL" || !world.s3.has_bucket(bucket) {
                return Err(invalid(format!(
                    "Permission error with your S3 bucket '{bucket}'. Check that your bucket policy, encryption settings, S3 Block \
                     Public Access settings, and global account permissions are configured correctly. For more information, check \
                     the service documentation."
                )));
            }
        }
        configuration["CrlConfiguration"] = if enabled { crl.clone() } else { json!({"Enabled": false}) };
    }
    let ocsp = &input["OcspConfiguration"];
    if !ocsp.is_null() {
        let enabled = switched(ocsp)?;
        name(ocsp, "OcspCustomCname", "-;/?:@&=+$,%_.!~*()'", 253)?;
        configuration["OcspConfiguration"] = if enabled { ocsp.clone() } else { json!({"Enabled": false}) };
    }
    Ok(configuration)
}

/// A CA may have become one that publishes CRLs, or elsewhere, or no longer.
pub(super) fn reconsider(world: &mut World, now: OffsetDateTime, authority_arn: &str) {
    let Some(authority) = world.pca.authorities.get_mut(authority_arn) else { return };
    authority.revocation.next = None;
    want_crl(world, authority_arn, now + FIRST_CRL);
}

fn want_crl(world: &mut World, authority_arn: &str, when: OffsetDateTime) {
    let authority = world.pca.authorities.get_mut(authority_arn);
    if authority.is_some_and(|authority| authority.revocation.wants(when)) {
        world.at(when, Timer::Pca { arn: authority_arn.to_owned() });
    }
}

/// Writes the CRL that is due. AWS dates it an hour back, and numbers it by the milliseconds since 1970.
pub(super) fn publish(world: &mut World, now: OffsetDateTime, authority_arn: &str) {
    let Some(authority) = world.pca.authorities.get_mut(authority_arn) else { return };
    if authority.revocation.next.take_if(|next| *next <= now).is_none() {
        return;
    }
    let Some(issuer) = authority.certificate.as_ref().filter(|_| ["ACTIVE", "DISABLED"].contains(&authority.status(now))) else {
        return;
    };
    let revocation = &authority.revocation;
    let crl = &revocation.configuration["CrlConfiguration"];
    let days = crl["ExpirationInDays"].as_i64().unwrap_or(1);
    let last = revocation.last.map_or(0, |(number, _)| number);
    let number = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default().max(last + 1);
    let list = RevocationList {
        number,
        this_update: now - Duration::hours(1),
        next_update: now + Duration::days(days),
        entries: revocation.entries(now),
    };
    let (bucket, key) = (crl["S3BucketName"].as_str().unwrap_or_default().to_owned(), revocation.key(authority_arn));
    let url = revocation.crl_url(authority_arn);
    let signed = list.sign(issuer, &authority.key, authority.algorithm).map_err(AwsError::from);
    let written = signed.and_then(|der| s3::put(world, now, &bucket, &key, der));
    let (next, detail) = match written {
        Ok(_) => {
            if let Some(authority) = world.pca.authorities.get_mut(authority_arn) {
                authority.revocation.last = Some((number, now));
            }
            let half = if days == 1 { Duration::hours(6) } else { Duration::days(days) / 2 };
            (now + half, json!({"result": "success", "CrlUrl": url}))
        }
        Err(_) => {
            let reason = "Failed to write CRL to S3. Check your S3 bucket permissions.";
            (now + RETRY_TIME, json!({"result": "failure", "reason": reason}))
        }
    };
    want_crl(world, authority_arn, next);
    super::emit(world, now, "CRL Generation", &[authority_arn.to_owned()], detail);
}

#[cfg(test)]
mod tests;
