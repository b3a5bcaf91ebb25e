//! ACM: certificates that live by themselves. They are validated, issued, renewed and expire as time passes, and tell it in events:
//! <https://docs.aws.amazon.com/acm/latest/userguide/supported-events.html>.
//!
//! Public certificates come from a stand-in for Amazon's CA, and their domains are always found validated.

mod certificate;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use self::certificate::{AcmCertificate, Body, Kind, Work};
use crate::input::{Tokens, blob, constraint, has, in_progress, invalid, invalid_arn, not_found, one_of, page, text, token};
use crate::pca::Authority;
use crate::x509::{Certificate, PrivateKey};
use crate::{AwsError, Timer, World};

/// How long a certificate is `PENDING_VALIDATION`.
const VALIDATION_TIME: Duration = Duration::seconds(8);

/// How long a renewal runs. AWS promises nothing; hours have been seen.
const RENEWAL_TIME: Duration = Duration::minutes(1);

const TOKEN_LIFETIME: Duration = Duration::hours(1);

#[derive(Default)]
pub struct Acm {
    /// Lets every renewal fail with this `RenewalStatusReason`.
    pub renewal_fails: Option<String>,
    certificates: BTreeMap<String, AcmCertificate>,
    tokens: Tokens,
    days_before_expiry: Option<i64>,
    amazon: Option<Authority>,
}

impl Acm {
    /// The tags of a certificate.
    pub(crate) fn tags(&self, certificate_arn: &str) -> impl Iterator<Item = (&String, &String)> {
        self.certificates.get(certificate_arn).into_iter().flat_map(|entry| &entry.tags)
    }

    /// Says which resources of other services use a certificate; none to begin with.
    pub fn set_in_use_by(&mut self, certificate_arn: &str, resource_arns: &[&str]) {
        if let Some(entry) = self.certificates.get_mut(certificate_arn) {
            entry.in_use_by = resource_arns.iter().map(|&arn| arn.to_owned()).collect();
        }
    }
}

/// Another certificate with the body of this one, as if it had been asked for with these tags. ACM looks after it by itself only half
/// a day after the other.
pub fn copy(world: &mut World, now: OffsetDateTime, certificate_arn: &str, tags: &Value) -> Result<String, AwsError> {
    let tags = read_tags(tags)?;
    let arn = new_arn(world);
    let like = find(world, &json!({"CertificateArn": certificate_arn}))?.clone();
    let next_mark = like.next_mark.map(|mark| mark.max(now) + Duration::hours(12));
    let entry = AcmCertificate { arn: arn.clone(), tags, next_mark, ..like };
    entry.set_timer(world);
    world.acm.certificates.insert(arn.clone(), entry);
    Ok(arn)
}

/// Revokes a certificate, as one can who has its CA.
pub fn revoke(world: &mut World, now: OffsetDateTime, certificate_arn: &str) {
    revoke_for(world, now, certificate_arn, "UNSPECIFIED");
}

/// Private CA has revoked a certificate: what holds it now is revoked in ACM too.
pub(crate) fn revoked_by_authority(world: &mut World, now: OffsetDateTime, revoked: &Certificate, reason: &str) {
    let reason = if reason == "CERTIFICATE_AUTHORITY_COMPROMISE" { "CA_COMPROMISE" } else { reason };
    let holds = |entry: &&AcmCertificate| {
        entry.kind == Kind::Private && entry.body.as_ref().is_some_and(|body| body.certificate == *revoked)
    };
    if let Some(arn) = world.acm.certificates.values().find(holds).map(|entry| entry.arn.clone()) {
        revoke_for(world, now, &arn, reason);
    }
}

fn revoke_for(world: &mut World, now: OffsetDateTime, certificate_arn: &str, reason: &str) {
    if let Some(mut entry) = world.acm.certificates.remove(certificate_arn) {
        entry.become_revoked(world, now, reason);
        world.acm.certificates.insert(certificate_arn.to_owned(), entry);
    }
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    match operation {
        "RequestCertificate" => request(world, now, input),
        "DescribeCertificate" => Ok(json!({"Certificate": find(world, input)?.description()})),
        "GetCertificate" => {
            let body = find(world, input)?.body()?;
            let mut answer = json!({"Certificate": body.certificate.pem()});
            if !body.chain.is_empty() {
                answer["CertificateChain"] = json!(body.chain_pem());
            }
            Ok(answer)
        }
        "ListCertificates" => list(world, input),
        "ExportCertificate" => export(world, input),
        "RenewCertificate" => renew(world, now, input),
        "ImportCertificate" => import(world, now, input),
        "DeleteCertificate" => {
            let entry = find(world, input)?;
            if !entry.in_use_by.is_empty() {
                return Err(AwsError::new("ResourceInUseException", format!("Certificate {} is in use.", entry.arn)));
            }
            let arn = entry.arn.clone();
            world.acm.certificates.remove(&arn);
            Ok(json!({}))
        }
        "AddTagsToCertificate" => {
            let entry = find(world, input)?;
            let mut tags = entry.tags.clone();
            tags.extend(read_tags(&input["Tags"])?);
            if tags.len() > 50 {
                return Err(AwsError::new("TooManyTagsException", "A certificate can have at most 50 tags."));
            }
            entry.tags = tags;
            Ok(json!({}))
        }
        "RemoveTagsFromCertificate" => {
            let entry = find(world, input)?;
            for tag in input["Tags"].as_array().into_iter().flatten() {
                let key = text(tag, "Key")?;
                if tag["Value"].as_str().is_none_or(|value| entry.tags.get(key).is_some_and(|tag| tag == value)) {
                    entry.tags.remove(key);
                }
            }
            Ok(json!({}))
        }
        "ListTagsForCertificate" => {
            let tags = find(world, input)?.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value}));
            Ok(json!({"Tags": tags.collect::<Vec<_>>()}))
        }
        "GetAccountConfiguration" => {
            Ok(json!({"ExpiryEvents": {"DaysBeforeExpiry": world.acm.days_before_expiry.unwrap_or(45)}}))
        }
        "PutAccountConfiguration" => {
            text(input, "IdempotencyToken")?;
            let Some(token) = word_token(input)? else { return Ok(json!({})) };
            let key = format!("configure {token}");
            if world.acm.tokens.recall(now, &key).is_none() {
                if let Some(days) = input["ExpiryEvents"]["DaysBeforeExpiry"].as_i64() {
                    if !(1..=45).contains(&days) {
                        return Err(invalid("DaysBeforeExpiry must be between 1 and 45."));
                    }
                    world.acm.days_before_expiry = Some(days);
                }
                world.acm.tokens.remember(now + TOKEN_LIFETIME, key, "");
            }
            Ok(json!({}))
        }
        _ => Err(AwsError::unknown_operation("acm", operation)),
    }
}

/// A certificate may have something to do.
pub(crate) fn due(world: &mut World, now: OffsetDateTime, arn: &str) {
    let Some(mut entry) = world.acm.certificates.remove(arn) else { return };
    let work = entry.work.take_if(|work| work.done_at <= now);
    let marked = entry.next_mark.is_some_and(|mark| mark <= now);
    match &work {
        Some(_) if entry.status == "PENDING_VALIDATION" => entry.become_issued(world, now),
        Some(work) => entry.become_renewed(world, now, work.managed),
        None => {}
    }
    if marked {
        entry.pass_mark(world, now);
    }
    // A timer that found nothing to do was left from before; its successor is set already.
    if work.is_some() || marked {
        entry.set_timer(world);
    }
    world.acm.certificates.insert(arn.to_owned(), entry);
}

/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_RequestCertificate.html>. What Private CA has against it shows only
/// later, as a status.
fn request(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let token = word_token(input)?.map(|token| format!("request {token}"));
    let known = token.as_ref().and_then(|token| world.acm.tokens.recall(now, token));
    if let Some(arn) = known.filter(|arn| world.acm.certificates.contains_key(arn)) {
        return Ok(json!({"CertificateArn": arn}));
    }
    let mut names = vec![text(input, "DomainName")?.to_owned()];
    for name in input["SubjectAlternativeNames"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if let Some(name) = names.iter().find(|name| !is_domain_name(name)) {
        return Err(constraint("DomainName", name, "Member must be a domain name of at least two labels"));
    }
    if names[0].len() > 64 {
        return Err(AwsError::new("InvalidParameterException", "The first domain name can be at most 64 characters long."));
    }
    if names.len() > 10 {
        return Err(AwsError::new("LimitExceededException", "A certificate can have at most 10 domain names."));
    }
    let key_algorithm = match &input["KeyAlgorithm"] {
        Value::Null => "RSA_2048",
        _ => one_of(input, "KeyAlgorithm", &["RSA_2048", "EC_prime256v1", "EC_secp384r1"])?,
    };
    let authority = input["CertificateAuthorityArn"].as_str();
    if let Some(arn) = authority.filter(|arn| !arn.starts_with("arn:aws:acm-pca:")) {
        return Err(invalid_arn(arn));
    }
    if authority.is_some() && !input["Options"]["Export"].is_null() {
        let message = "One or more of the options specified in the request are not supported for PRIVATE certificate types";
        return Err(invalid(message));
    }
    let tags = read_tags(&input["Tags"])?;

    let kind = if authority.is_some() { Kind::Private } else { Kind::Public };
    let arn = new_arn(world);
    let mut entry = AcmCertificate::new(arn.clone(), kind, names, key_algorithm, now);
    entry.authority_arn = authority.map(str::to_owned);
    entry.exportable |= input["Options"]["Export"] == "ENABLED";
    entry.validation_method = input["ValidationMethod"].as_str().unwrap_or("EMAIL").to_owned();
    entry.tags = tags;
    entry.work = Some(Work { done_at: now + VALIDATION_TIME, managed: true });
    entry.set_timer(world);
    world.acm.certificates.insert(arn.clone(), entry);
    if let Some(token) = token {
        world.acm.tokens.remember(now + TOKEN_LIFETIME, token, &arn);
    }
    Ok(json!({"CertificateArn": arn}))
}

/// The default filter hides every key but RSA of at most 2048 bits, and certificates without a domain name.
fn list(world: &World, input: &Value) -> Result<Value, AwsError> {
    let filters = &input["Includes"];
    let any = |wanted: &Value, of: &Value| match wanted {
        Value::Null => true,
        wanted => of.as_array().into_iter().flatten().filter_map(Value::as_str).any(|name| has(wanted, name)),
    };
    let shown = |entry: &&AcmCertificate| {
        let summary = entry.summary();
        let statuses = &input["CertificateStatuses"];
        (statuses.is_null() || has(statuses, entry.status))
            && match &filters["keyTypes"] {
                Value::Null => ["RSA_1024", "RSA_2048"].contains(&entry.key_algorithm.as_str()) && !entry.names.is_empty(),
                types => has(types, &entry.key_algorithm),
            }
            && any(&filters["keyUsage"], &summary["KeyUsages"])
            && any(&filters["extendedKeyUsage"], &summary["ExtendedKeyUsages"])
            && (filters["exportOption"].is_null() || filters["exportOption"] == summary["ExportOption"])
    };
    let mut entries: Vec<_> = world.acm.certificates.values().filter(shown).collect();
    if input["SortBy"].is_null() != input["SortOrder"].is_null() {
        return Err(invalid("SortBy and SortOrder go together."));
    }
    entries.sort_by_key(|entry| (entry.created_at, &entry.arn));
    if input["SortOrder"] == "DESCENDING" {
        entries.reverse();
    }
    let entries = entries.into_iter().map(|entry| (entry.arn.clone(), entry.summary())).collect();
    page("CertificateSummaryList", entries, input).map_err(|error| invalid(error.message))
}

/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html>. While a renewal runs, the old body comes.
fn export(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    let entry = find(world, input)?;
    let passphrase = blob(input, "Passphrase", 4..=128)?;
    if let Some(byte) = passphrase.iter().find(|byte| !byte.is_ascii() || b"#$%".contains(byte)) {
        let message =
            if byte.is_ascii() { "The passphrase must not contain #, $ or %." } else { "The passphrase must be ASCII." };
        return Err(invalid(message));
    }
    if !entry.exportable {
        return Err(invalid(format!("Certificate ARN: {} is not a private certificate", entry.arn)));
    }
    let body = entry.body()?;
    if entry.status != "ISSUED" {
        return Err(invalid(format!("Certificate {} is {}.", entry.arn, entry.status)));
    }
    let private_key = body.key.encrypted_pem(&passphrase)?;
    let answer = json!({"Certificate": body.certificate.pem(), "CertificateChain": body.chain_pem(), "PrivateKey": private_key});
    (entry.exported, entry.exported_body) = (true, true);
    Ok(answer)
}

/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_RenewCertificate.html>: answers at once, and does it later.
fn renew(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let entry = find(world, input)?;
    if entry.work.is_some() {
        return Err(in_progress(&format!("Certificate {} is being issued or renewed.", entry.arn)));
    }
    if entry.kind == Kind::Imported || !entry.exported_body {
        let why = "has not been exported so it is not eligible for the Renew Certificate API.";
        return Err(invalid(format!("Certificate ARN {} {why}", entry.arn)));
    }
    if entry.status != "ISSUED" {
        return Err(invalid(format!("Certificate {} is {}.", entry.arn, entry.status)));
    }
    let (done_at, certificate_arn) = (entry.start_renewal(now, false), entry.arn.clone());
    world.at(done_at, Timer::Acm { certificate_arn });
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate.html>, and
/// <https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html> when an ARN is given.
fn import(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let tags = read_tags(&input["Tags"])?;
    let read = |member, limit| match Certificate::all_from_pem(&blob(input, member, 1..=limit)?) {
        Some(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(invalid(format!("The {member} is not in PEM, or cannot be read."))),
    };
    let certificates = read("Certificate", 32_768)?;
    let chain = if input["CertificateChain"].is_null() { Vec::new() } else { read("CertificateChain", 2_097_152)? };
    let [certificate] = <[_; 1]>::try_from(certificates).map_err(|_| {
        invalid("The certificate field contains more than one certificate. You can specify only one certificate in this field.")
    })?;
    let key = PrivateKey::from_pem(&blob(input, "PrivateKey", 1..=5120)?)
        .ok_or_else(|| invalid("The private key is not supported, or it is encrypted."))?;
    if key.public_key()? != certificate.public_key {
        return Err(invalid("The private key does not match the certificate."));
    }
    if !certificate.is_valid_at(now) {
        return Err(invalid("The certificate is not valid now: it has expired, or its time has not come."));
    }
    let mut links = std::iter::once(&certificate).chain(&chain).zip(&chain);
    if !links.all(|(subject, issuer)| subject.is_signed_by(issuer) && issuer.authority.is_some()) {
        return Err(invalid("Could not validate the certificate with the certificate chain."));
    }

    let mut names: Vec<_> = certificate.common_name.iter().chain(&certificate.dns_names).cloned().collect();
    names.dedup();
    let (mut entry, action) = if input["CertificateArn"].is_null() {
        (AcmCertificate::new(new_arn(world), Kind::Imported, names, certificate.key_algorithm, now), "IMPORT")
    } else {
        find(world, input)?.accepts(&certificate)?;
        if !tags.is_empty() {
            return Err(invalid("Tagging is not permitted on re-import."));
        }
        // `find` has just found it.
        let found = input["CertificateArn"].as_str().and_then(|arn| world.acm.certificates.remove(arn));
        (AcmCertificate { names, ..found.ok_or_else(AwsError::internal)? }, "REIMPORT")
    };
    entry.status = "ISSUED";
    entry.tags.extend(tags);
    entry.hold(Body { certificate, chain, key: key.into(), since: now }, now);
    entry.announce(world, now, action);
    entry.set_timer(world);
    let arn = entry.arn.clone();
    world.acm.certificates.insert(arn.clone(), entry);
    Ok(json!({"CertificateArn": arn}))
}

fn find<'a>(world: &'a mut World, input: &Value) -> Result<&'a mut AcmCertificate, AwsError> {
    let arn = text(input, "CertificateArn")?;
    if !arn.starts_with("arn:aws:acm:") || !arn.contains(":certificate/") {
        return Err(invalid_arn(arn));
    }
    world.acm.certificates.get_mut(arn).ok_or_else(|| not_found(format!("Could not find certificate {arn}.")))
}

fn new_arn(world: &mut World) -> String {
    let id = world.uuid();
    world.arn("acm", &format!("certificate/{id}"))
}

/// Without hyphens, unlike Private CA's.
fn word_token(input: &Value) -> Result<Option<&str>, AwsError> {
    let token = token(input, 32)?;
    match token.filter(|token| !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
        Some(token) => Err(constraint("IdempotencyToken", token, "Member must satisfy regular expression pattern: \\w+")),
        None => Ok(token),
    }
}

fn read_tags(tags: &Value) -> Result<BTreeMap<String, String>, AwsError> {
    let tags = tags.as_array().map_or(&[][..], Vec::as_slice);
    if tags.len() > 50 {
        return Err(AwsError::new("TooManyTagsException", "A certificate can have at most 50 tags."));
    }
    let read = |tag: &Value| {
        let (key, value) = (text(tag, "Key")?, tag["Value"].as_str().unwrap_or_default());
        let known = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
        if key.starts_with("aws:")
            || !(1..=128).contains(&key.len())
            || value.len() > 256
            || !(key.chars().chain(value.chars())).all(known)
        {
            return Err(AwsError::new("InvalidTagException", format!("The tag {key} is not valid.")));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    tags.iter().map(read).collect()
}

/// At least two labels, and a wildcard only as the whole first one.
fn is_domain_name(name: &str) -> bool {
    let labels: Vec<_> = name.strip_prefix("*.").unwrap_or(name).split('.').collect();
    let good = |label: &&str| {
        let hyphens = !label.starts_with('-') && !label.ends_with('-');
        (1..=63).contains(&label.len()) && hyphens && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && labels.len() >= 2 && labels.iter().all(good)
}

#[cfg(test)]
mod tests;
