//! AWS Private CA: CAs with keys of their own, and certificates that templates decide, signed a moment after they are asked for.
//!
//! What fails in here fails as <https://docs.aws.amazon.com/privateca/latest/APIReference/Welcome.html> says. CRLs are written;
//! OCSP is configured and named in certificates, and nobody answers it.

mod authority;
mod revocation;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{Date, Duration, Month, OffsetDateTime, Time};

pub(crate) use self::authority::Authority;
use self::authority::{Order, PERMITTED_ACTIONS, invalid_args, malformed_csr, permission, signing_algorithm};
use crate::input::{Tokens, blob, has, in_progress, invalid, invalid_arn, not_found, one_of, page, text, token};
use crate::x509::{Certificate, PrivateKey, Profile, Request};
use crate::{AwsError, Timer, World};

/// How long a CA is `CREATING`.
const CREATION_TIME: Duration = Duration::seconds(5);

/// How long `GetCertificate` answers `RequestInProgressException`.
const ISSUANCE_TIME: Duration = Duration::milliseconds(2500);

const TOKEN_LIFETIME: Duration = Duration::minutes(5);

/// Who owns the CAs that are shared with this account.
const OTHER_ACCOUNT: &str = "999988887777";

/// The templates that AWS RAM's default permission `AWSRAMDefaultPermissionCertificateAuthority` lets a shared CA issue from.
pub const DEFAULT_SHARE: &[&str] = &["EndEntityCertificate/V1"];

const TEMPLATE_PREFIX: &str = "arn:aws:acm-pca:::template/";

#[derive(Default)]
pub struct PrivateCa {
    authorities: BTreeMap<String, Authority>,
    certificates: BTreeMap<String, Issuance>,
    tokens: Tokens,
}

impl PrivateCa {
    /// The CA's own certificate, in PEM.
    pub fn certificate(&self, authority_arn: &str) -> Option<String> {
        self.authorities.get(authority_arn)?.certificate.as_ref().map(Certificate::pem)
    }

    fn add(&mut self, authority: Authority) -> String {
        let arn = authority.arn.clone();
        self.authorities.insert(arn.clone(), authority);
        arn
    }
}

/// Makes a root CA that is `ACTIVE` at once and lets ACM use it; `key_algorithm` as in the API. Returns its ARN.
pub fn create_active_root(
    world: &mut World,
    now: OffsetDateTime,
    common_name: &str,
    key_algorithm: &str,
) -> Result<String, AwsError> {
    let root = Authority::root(world, now, json!({"CommonName": common_name}), key_algorithm)?;
    Ok(world.pca.add(root))
}

/// Makes a CA that issues leaves only, below `parent_arn`; otherwise as [`create_active_root`].
pub fn create_active_subordinate(
    world: &mut World,
    now: OffsetDateTime,
    parent_arn: &str,
    common_name: &str,
    key_algorithm: &str,
) -> Result<String, AwsError> {
    let mut authority = Authority::simple(world, now, "SUBORDINATE", json!({"CommonName": common_name}), key_algorithm)?;
    let (certificate, chain) = certify(world, now, &authority.csr, parent_arn)?;
    authority.activate(now, certificate, chain);
    Ok(world.pca.add(authority))
}

/// Gives an active or expired CA a new certificate for its key: a root its own for twenty years, another one that of the CA above,
/// to a day before that CA's end.
pub fn renew_authority(world: &mut World, now: OffsetDateTime, authority_arn: &str) -> Result<(), AwsError> {
    let serial = serial(world);
    let authority = find(world, &json!({"CertificateAuthorityArn": authority_arn}))?;
    let (certificate, chain) = match authority.chain.first().map(|above| above.public_key.clone()) {
        None => authority.sign_itself(serial, now)?,
        Some(key) => {
            let csr = authority.csr.clone();
            let has_key = |authority: &&Authority| authority.certificate.as_ref().is_some_and(|own| own.public_key == key);
            let parent = world.pca.authorities.values().find(has_key).map(|parent| parent.arn.clone());
            let parent = parent.ok_or_else(|| not_found(format!("The CA above {authority_arn} is not here.")))?;
            certify(world, now, &csr, &parent)?
        }
    };
    install(world, now, authority_arn, certificate, chain)
}

/// Lets a CA issue nothing that lasts longer than seven days, as AWS does from its creation or never.
pub fn make_short_lived(world: &mut World, authority_arn: &str) -> Result<(), AwsError> {
    find(world, &json!({"CertificateAuthorityArn": authority_arn}))?.usage_mode = "SHORT_LIVED_CERTIFICATE".to_owned();
    Ok(())
}

/// Disables a CA, or enables it again.
pub fn enable(world: &mut World, now: OffsetDateTime, authority_arn: &str, enabled: bool) -> Result<(), AwsError> {
    let status = if enabled { "ACTIVE" } else { "DISABLED" };
    update(world, now, &json!({"CertificateAuthorityArn": authority_arn, "Status": status})).map(drop)
}

/// Lets a CA publish CRLs that are good for `days` in a bucket that is there, the first one ten seconds later.
pub fn enable_crl(world: &mut World, now: OffsetDateTime, authority_arn: &str, bucket: &str, days: u16) -> Result<(), AwsError> {
    let crl = json!({
        "Enabled": true, "ExpirationInDays": days, "S3BucketName": bucket, "S3ObjectAcl": "BUCKET_OWNER_FULL_CONTROL",
    });
    let revocation = json!({"CrlConfiguration": crl});
    update(world, now, &json!({"CertificateAuthorityArn": authority_arn, "RevocationConfiguration": revocation})).map(drop)
}

/// Revokes a certificate as the owner of its CA does, even where that is another account; `reason` as in the API.
pub fn revoke(world: &mut World, now: OffsetDateTime, authority_arn: &str, serial: &str, reason: &str) -> Result<(), AwsError> {
    let input = json!({"CertificateAuthorityArn": authority_arn, "CertificateSerial": serial, "RevocationReason": reason});
    revocation::revoke(world, now, &input).map(drop)
}

/// Hands a CA, before it issues anything, to another account that shares it with this one: `templates`, such as [`DEFAULT_SHARE`],
/// are what may be issued from. Returns the ARN it has there. What the functions in here do is done by its owner from then on, and
/// its events go to the owner.
///
/// <https://docs.aws.amazon.com/privateca/latest/userguide/pca-ram.html>
pub fn share(world: &mut World, now: OffsetDateTime, authority_arn: &str, templates: &[&str]) -> Result<String, AwsError> {
    find(world, &json!({"CertificateAuthorityArn": authority_arn}))?;
    let mut authority = world.pca.authorities.remove(authority_arn).ok_or_else(AwsError::internal)?;
    authority.arn = authority_arn.replacen(&world.account, OTHER_ACCOUNT, 1);
    authority.permission = None;
    authority.shared = Some(templates.iter().map(|name| (*name).to_owned()).collect());
    let arn = world.pca.add(authority);
    revocation::reconsider(world, now, &arn);
    Ok(arn)
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    authorize(world, operation, input)?;
    match operation {
        "CreateCertificateAuthority" => create(world, now, input),
        "DescribeCertificateAuthority" => Ok(json!({"CertificateAuthority": find(world, input)?.description(now)})),
        "ListCertificateAuthorities" => {
            let others = match &input["ResourceOwner"] {
                Value::Null => false,
                _ => one_of(input, "ResourceOwner", &["SELF", "OTHER_ACCOUNTS"])? == "OTHER_ACCOUNTS",
            };
            let listed = world.pca.authorities.values().filter(|authority| authority.shared.is_some() == others);
            let authorities = listed.map(|authority| (authority.arn.clone(), authority.description(now)));
            page("CertificateAuthorities", authorities.collect(), input)
        }
        "GetCertificateAuthorityCsr" => match find(world, input)? {
            Authority { status: "CREATING", .. } => Err(in_progress("The certificate authority is still being created.")),
            authority => Ok(json!({"Csr": authority.csr.trim_end()})),
        },
        "ImportCertificateAuthorityCertificate" => import(world, now, input),
        "GetCertificateAuthorityCertificate" => {
            let authority = find(world, input)?;
            let wrong = format!("The certificate authority {} is not in the correct state to have a certificate.", authority.arn);
            let certificate = authority.certificate.as_ref().ok_or_else(|| invalid_state(wrong))?;
            Ok(with_chain(certificate, &authority.chain))
        }
        "UpdateCertificateAuthority" => update(world, now, input),
        "RevokeCertificate" => revocation::revoke(world, now, input),
        "IssueCertificate" => issue(world, now, input),
        "GetCertificate" => {
            find(world, input)?;
            let arn = text(input, "CertificateArn")?;
            let below = format!("{}/certificate/", text(input, "CertificateAuthorityArn")?);
            match world.pca.certificates.get(arn).filter(|_| arn.starts_with(&below)) {
                Some(Issuance::Pending(_)) => Err(in_progress("The certificate is still being issued.")),
                Some(Issuance::Failed) => Err(AwsError::new("RequestFailedException", "The certificate could not be issued.")),
                Some(Issuance::Issued(certificate, chain)) => Ok(with_chain(certificate, chain)),
                None => Err(not_found(format!("Could not find certificate {arn}"))),
            }
        }
        "CreatePermission" => permit(world, now, input),
        "ListPermissions" => {
            let permission = find(world, input)?.permission.clone();
            page("Permissions", permission.into_iter().map(|permission| ("acm".to_owned(), permission)).collect(), input)
        }
        "DeletePermission" => {
            let authority = find(world, input)?;
            let principal = text(input, "Principal")?;
            match authority.permission.take_if(|permission| permission["Principal"] == principal) {
                Some(_) => Ok(json!({})),
                None => Err(not_found(format!("There is no permission for {principal}"))),
            }
        }
        _ => Err(AwsError::unknown_operation("acm-pca", operation)),
    }
}

/// Whether this account may do it: with its own CAs everything, with those of others what they share.
fn authorize(world: &mut World, operation: &str, input: &Value) -> Result<(), AwsError> {
    const SHARED: [&str; 4] =
        ["DescribeCertificateAuthority", "GetCertificate", "GetCertificateAuthorityCertificate", "ListPermissions"];
    let user = format!("arn:aws:sts::{}:assumed-role/local/local", world.account);
    let Ok(authority) = find(world, input) else { return Ok(()) };
    let Some(templates) = &authority.shared else { return Ok(()) };
    let default = || format!("{TEMPLATE_PREFIX}EndEntityCertificate/V1");
    let template = input["TemplateArn"].as_str().map_or_else(default, str::to_owned);
    let from_template = || templates.iter().any(|name| template == format!("{TEMPLATE_PREFIX}{name}"));
    if SHARED.contains(&operation) || operation == "IssueCertificate" && from_template() {
        return Ok(());
    }
    let message = format!(
        "User: {user} is not authorized to perform: acm-pca:{operation} on resource: {} because no resource-based policy allows the \
         acm-pca:{operation} action",
        authority.arn
    );
    Err(AwsError::new("AccessDeniedException", message))
}

/// A CA has been created or has a CRL to publish, or a certificate is to be signed.
pub(crate) fn due(world: &mut World, now: OffsetDateTime, arn: &str) {
    let PrivateCa { authorities, certificates, .. } = &mut world.pca;
    if let Some(authority) = authorities.get_mut(arn) {
        if authority.status == "CREATING" {
            authority.turn(now, "PENDING_CERTIFICATE");
            emit(world, now, "Creation", &[arn.to_owned()], json!({"result": "success"}));
        } else {
            revocation::publish(world, now, arn);
        }
    } else if let Some(issuance @ Issuance::Pending(_)) = certificates.get_mut(arn)
        && let Issuance::Pending(order) = std::mem::replace(issuance, Issuance::Failed)
    {
        let authority = authorities.get(&order.authority_arn);
        let signed = authority.filter(|authority| authority.may_issue(now, &order)).map(|authority| authority.sign(&order));
        if let Some(Ok((certificate, chain))) = signed {
            *issuance = Issuance::Issued(certificate, chain);
        }
        let result = if matches!(issuance, Issuance::Issued(..)) { "success" } else { "failure" };
        emit(world, now, "Certificate Issuance", &[order.authority_arn, arn.to_owned()], json!({"result": result}));
    }
}

/// What ACM gets from a private CA: a new key, its certificate, and the chain. `Err` holds ACM's `FailureReason`.
pub(crate) fn issue_for_acm(
    world: &mut World,
    now: OffsetDateTime,
    authority_arn: &str,
    names: &[String],
    key_algorithm: &str,
    lifetime: Duration,
) -> Result<(PrivateKey, Certificate, Vec<Certificate>), &'static str> {
    let serial = serial(world);
    let authority = world.pca.authorities.get(authority_arn).ok_or("PCA_RESOURCE_NOT_FOUND")?;
    let granted = authority.permission.as_ref().map(|permission| &permission["Actions"]);
    let permitted = match &authority.shared {
        Some(templates) => templates.iter().any(|name| name == "EndEntityCertificate/V1"),
        None => PERMITTED_ACTIONS.iter().all(|action| granted.is_some_and(|granted| has(granted, action))),
    };
    if !permitted {
        return Err("PCA_ACCESS_DENIED");
    }
    if authority.status(now) != "ACTIVE" {
        return Err("PCA_INVALID_STATE");
    }
    if !authority.algorithm.fits(key_algorithm) {
        return Err("PCA_INVALID_ARGS");
    }
    if authority.outlives(now, now + lifetime).is_err() {
        return Err("PCA_INVALID_DURATION");
    }
    let issued =
        authority.issue_for_names(names, key_algorithm, Profile::Leaf { server: true, client: true }, serial, now, lifetime);
    let (key, certificate, chain) = issued.map_err(|_| "PCA_REQUEST_FAILED")?;
    let arn = certificate_arn(authority_arn, u128::from_be_bytes(serial));
    world.pca.certificates.insert(arn.clone(), Issuance::Issued(certificate.clone(), chain.clone()));
    emit(world, now, "Certificate Issuance", &[authority_arn.to_owned(), arn], json!({"result": "success"}));
    Ok((key, certificate, chain))
}

enum Issuance {
    Pending(Order),
    Issued(Certificate, Vec<Certificate>),
    Failed,
}

fn create(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let token = token(input, 36)?.map(|token| format!("create {token}"));
    if let Some(arn) = token.as_ref().and_then(|token| world.pca.tokens.recall(now, token)) {
        return Ok(json!({"CertificateAuthorityArn": arn}));
    }
    let kind = one_of(input, "CertificateAuthorityType", &["ROOT", "SUBORDINATE"])?;
    let usage = match &input["UsageMode"] {
        Value::Null => "GENERAL_PURPOSE",
        _ => one_of(input, "UsageMode", &["GENERAL_PURPOSE", "SHORT_LIVED_CERTIFICATE"])?,
    };
    let mut authority = Authority::new(world, now, kind, input["CertificateAuthorityConfiguration"].clone(), usage)?;
    let was = &authority.revocation.configuration;
    authority.revocation.configuration = revocation::configuration(world, was, &input["RevocationConfiguration"])?;
    let arn = world.pca.add(authority);
    if let Some(token) = token {
        world.pca.tokens.remember(now + TOKEN_LIFETIME, token, &arn);
    }
    world.at(now + CREATION_TIME, Timer::Pca { arn: arn.clone() });
    Ok(json!({"CertificateAuthorityArn": arn}))
}

fn import(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let arn = find(world, input)?.arn.clone();
    let malformed =
        || AwsError::new("MalformedCertificateException", "The certificate or its chain is not in PEM, or cannot be read.");
    let certificates = Certificate::all_from_pem(&blob(input, "Certificate", 1..=32_768)?).ok_or_else(malformed)?;
    let chain = match &input["CertificateChain"] {
        Value::Null => Vec::new(),
        _ => Certificate::all_from_pem(&blob(input, "CertificateChain", 0..=2_097_152)?).ok_or_else(malformed)?,
    };
    let [certificate] = <[_; 1]>::try_from(certificates).map_err(|_| malformed())?;
    install(world, now, &arn, certificate, chain)?;
    Ok(json!({}))
}

/// Gives a CA its certificate, from which it is active.
fn install(
    world: &mut World,
    now: OffsetDateTime,
    authority_arn: &str,
    certificate: Certificate,
    chain: Vec<Certificate>,
) -> Result<(), AwsError> {
    let authority = find(world, &json!({"CertificateAuthorityArn": authority_arn}))?;
    if !["PENDING_CERTIFICATE", "ACTIVE", "EXPIRED"].contains(&authority.status(now)) {
        return Err(invalid_state("The certificate authority is not in a valid state for importing a certificate."));
    }
    authority.accepts(now, &certificate, &chain)?;
    (authority.certificate, authority.chain) = (Some(certificate), chain);
    authority.turn(now, "ACTIVE");
    revocation::reconsider(world, now, authority_arn);
    Ok(())
}

/// What `parent_arn` makes of the CSR of a CA that issues leaves only.
fn certify(
    world: &mut World,
    now: OffsetDateTime,
    csr: &str,
    parent_arn: &str,
) -> Result<(Certificate, Vec<Certificate>), AwsError> {
    let serial = serial(world);
    let parent = find(world, &json!({"CertificateAuthorityArn": parent_arn}))?;
    let Some(above) = parent.certificate.as_ref().filter(|_| parent.status(now) == "ACTIVE") else {
        return Err(invalid_state(format!("{parent_arn} is not active.")));
    };
    let not_after = above.not_after - Duration::days(1);
    let request = Request::from_pem(csr.as_bytes()).map_err(malformed_csr)?;
    let profile = Profile::Authority { path_length: Some(0) };
    let (certificate, chain) = parent.sign(&parent.order(request, profile, serial, now, not_after))?;
    let arn = certificate_arn(parent_arn, u128::from_be_bytes(serial));
    world.pca.certificates.insert(arn, Issuance::Issued(certificate.clone(), chain.clone()));
    Ok((certificate, chain))
}

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_UpdateCertificateAuthority.html>
fn update(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let authority = find(world, input)?;
    if !["ACTIVE", "DISABLED"].contains(&authority.status(now)) {
        return Err(invalid_state("The certificate authority is not in a valid state for updates."));
    }
    let status = match input["Status"].as_str() {
        None => authority.status,
        Some("ACTIVE") => "ACTIVE",
        Some("DISABLED") => "DISABLED",
        Some(other) => return Err(invalid_args(format!("A certificate authority cannot be updated to {other}."))),
    };
    let was = authority.revocation.configuration.clone();
    let configuration = revocation::configuration(world, &was, &input["RevocationConfiguration"])?;
    let authority = find(world, input)?;
    if input["Status"].is_string() {
        authority.turn(now, status);
    }
    if configuration != was {
        let arn = authority.arn.clone();
        authority.revocation.configuration = configuration;
        revocation::reconsider(world, now, &arn);
    }
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>. Whoever repeats a token gets what its
/// first use made, whatever else is asked.
fn issue(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let serial = serial(world);
    let authority_arn = find(world, input)?.arn.clone();
    let token = token(input, 36)?.map(|token| format!("issue {authority_arn} {token}"));
    if let Some(arn) = token.as_ref().and_then(|token| world.pca.tokens.recall(now, token)) {
        return Ok(json!({"CertificateArn": arn}));
    }
    let authority = find(world, input)?;
    let request = Request::from_pem(&blob(input, "Csr", 1..=32_768)?).map_err(malformed_csr)?;
    let (profile, own) = template(input["TemplateArn"].as_str())?;
    let not_after = validity(now, &input["Validity"])?;
    let mut order = Order { own, ..authority.order(request, profile, serial, now, not_after) };
    order.algorithm = signing_algorithm(input, authority.key.algorithm)?;
    if let Some(kind) = input["ValidityNotBefore"]["Type"].as_str() {
        if kind != "ABSOLUTE" {
            return Err(invalid_args("ValidityNotBefore must be of the type ABSOLUTE."));
        }
        order.draft.not_before = validity(now, &input["ValidityNotBefore"])?;
    }
    if !authority.may_issue(now, &order) {
        return Err(invalid_state("The certificate authority is not in a valid state for issuing certificates."));
    }
    if not_after <= now.max(order.draft.not_before) {
        return Err(invalid("The certificate validity specified ends before it starts."));
    }
    if own {
        if authority.kind != "ROOT" || order.draft.request.public_key != authority.key.public_key()? {
            return Err(invalid_args("RootCACertificate/V1 takes the CSR of the root CA itself."));
        }
    } else {
        authority.outlives(now, not_after)?;
        let room = authority.certificate.as_ref().and_then(|certificate| certificate.authority.flatten());
        if let (Profile::Authority { path_length: Some(wanted) }, Some(room)) = (profile, room)
            && u32::from(wanted) >= room
        {
            return Err(invalid(
                "The path length of the template exceeds what the certificate authority's own certificate allows.",
            ));
        }
    }
    let arn = certificate_arn(&authority_arn, u128::from_be_bytes(serial));
    world.pca.certificates.insert(arn.clone(), Issuance::Pending(order));
    if let Some(token) = token {
        world.pca.tokens.remember(now + TOKEN_LIFETIME, token, &arn);
    }
    world.at(now + ISSUANCE_TIME, Timer::Pca { arn: arn.clone() });
    Ok(json!({"CertificateArn": arn}))
}

fn template(arn: Option<&str>) -> Result<(Profile, bool), AwsError> {
    let Some(arn) = arn else { return Ok((Profile::Leaf { server: true, client: true }, false)) };
    let name = arn.strip_prefix(TEMPLATE_PREFIX).and_then(|name| name.strip_suffix("/V1"));
    let profile = match name.ok_or_else(|| invalid_arn(arn))? {
        "EndEntityCertificate" => Profile::Leaf { server: true, client: true },
        "EndEntityClientAuthCertificate" => Profile::Leaf { server: false, client: true },
        "EndEntityServerAuthCertificate" => Profile::Leaf { server: true, client: false },
        "RootCACertificate" => return Ok((Profile::Authority { path_length: None }, true)),
        "SubordinateCACertificate_PathLen0" => Profile::Authority { path_length: Some(0) },
        "SubordinateCACertificate_PathLen1" => Profile::Authority { path_length: Some(1) },
        "SubordinateCACertificate_PathLen2" => Profile::Authority { path_length: Some(2) },
        "SubordinateCACertificate_PathLen3" => Profile::Authority { path_length: Some(3) },
        _ => return Err(invalid_args(format!("{arn} is not a template that Local AWS issues from."))),
    };
    Ok((profile, false))
}

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_Validity.html>
fn validity(now: OffsetDateTime, validity: &Value) -> Result<OffsetDateTime, AwsError> {
    let kind = one_of(validity, "Type", &["END_DATE", "ABSOLUTE", "DAYS", "MONTHS", "YEARS"])?;
    let value = validity["Value"].as_i64().filter(|value| *value >= 1);
    let end = value.and_then(|value| match kind {
        "DAYS" => now.checked_add(Duration::seconds(value.checked_mul(86_400)?)),
        "MONTHS" => months_after(now, value),
        "YEARS" => months_after(now, value.checked_mul(12)?),
        "ABSOLUTE" => OffsetDateTime::from_unix_timestamp(value).ok(),
        _ => end_date(value),
    });
    end.filter(|end| end.year() <= 9999).ok_or_else(|| invalid(format!("{validity} is not a validity.")))
}

fn months_after(at: OffsetDateTime, months: i64) -> Option<OffsetDateTime> {
    let months = (i64::from(at.year()) * 12 + i64::from(u8::from(at.month())) - 1).checked_add(months)?;
    let (year, month) = (i32::try_from(months / 12).ok()?, Month::try_from(u8::try_from(months % 12 + 1).ok()?).ok()?);
    Some(at.replace_date(Date::from_calendar_date(year, month, at.day().min(month.length(year))).ok()?))
}

/// `YYMMDDHHMMSS`, of the years 1950 to 2049, or `YYYYMMDDHHMMSS`.
fn end_date(digits: i64) -> Option<OffsetDateTime> {
    let pair = |place: u32| u8::try_from(digits / 100_i64.pow(place) % 100).ok();
    let year = match i32::try_from(digits / 10_000_000_000).ok()? {
        short @ 0..50 => 2000 + short,
        short @ 50..100 => 1900 + short,
        long => long,
    };
    let date = Date::from_calendar_date(year, Month::try_from(pair(4)?).ok()?, pair(3)?).ok()?;
    Some(date.with_time(Time::from_hms(pair(2)?, pair(1)?, pair(0)?).ok()?).assume_utc())
}

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_CreatePermission.html>
fn permit(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let authority = find(world, input)?;
    one_of(input, "Principal", &["acm.amazonaws.com"])?;
    let actions = input["Actions"].as_array().filter(|actions| !actions.is_empty());
    let known = |action: &Value| action.as_str().is_some_and(|action| PERMITTED_ACTIONS.contains(&action));
    if !actions.is_some_and(|actions| actions.iter().all(known)) {
        return Err(invalid(format!("The actions to permit are some of {}.", PERMITTED_ACTIONS.join(", "))));
    }
    if authority.status(now) != "ACTIVE" {
        return Err(invalid_state("The certificate authority is not in a valid state for permissions."));
    }
    if authority.permission.is_some() {
        return Err(AwsError::new(
            "PermissionAlreadyExistsException",
            "The designated permission has already been given to the user.",
        ));
    }
    authority.permission = Some(permission(&authority.arn, now, input["Actions"].clone()));
    Ok(json!({}))
}

fn find<'a>(world: &'a mut World, input: &Value) -> Result<&'a mut Authority, AwsError> {
    let arn = text(input, "CertificateAuthorityArn")?;
    if !arn.starts_with("arn:aws:acm-pca:") || !arn.contains(":certificate-authority/") {
        return Err(invalid_arn(arn));
    }
    world.pca.authorities.get_mut(arn).ok_or_else(|| not_found(format!("Could not find certificate authority {arn}")))
}

/// What happens to a CA is told in the account that owns it: `resources` begin with the CA.
fn emit(world: &mut World, now: OffsetDateTime, what: &str, resources: &[String], detail: Value) {
    let owner = resources.first().and_then(|arn| arn.split(':').nth(4));
    if owner == Some(&world.account) {
        world.emit(now, "aws.acm-pca", &format!("ACM Private CA {what}"), resources, detail);
    }
}

/// 128 bits, positive: the account's own source of identifiers, so that a run can be repeated.
pub(crate) fn serial(world: &mut World) -> [u8; 16] {
    let digits = world.uuid().replace('-', "");
    (u128::from_str_radix(&digits, 16).unwrap_or_default() >> 1).to_be_bytes()
}

fn certificate_arn(authority_arn: &str, serial: u128) -> String {
    format!("{authority_arn}/certificate/{serial:032x}")
}

/// PEM without a line feed at the end, as Private CA answers.
fn with_chain(certificate: &Certificate, chain: &[Certificate]) -> Value {
    let mut answer = json!({"Certificate": certificate.pem().trim_end()});
    if !chain.is_empty() {
        let chain: String = chain.iter().map(Certificate::pem).collect();
        answer["CertificateChain"] = json!(chain.trim_end());
    }
    answer
}

fn invalid_state(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidStateException", message)
}

#[cfg(test)]
pub(crate) mod tests;
