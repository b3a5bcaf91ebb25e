//! What a CA in AWS Private CA tells of itself: <https://docs.aws.amazon.com/privateca/latest/APIReference/>.

use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::types::{CertificateAuthority, CertificateAuthorityStatus, CrlType};
use lifecycle::authority::certificates;
use lifecycle::names::Arn;
use runtime::{Failure, metrics};
use time::OffsetDateTime;

/// A CA's certificate and those above it, DER.
pub(crate) async fn chain(pca: &Client, authority: &Arn) -> Result<Vec<Vec<u8>>, Failure> {
    let doing = || format!("read the certificate of {authority}");
    let get = pca.get_certificate_authority_certificate().certificate_authority_arn(authority.as_str());
    let answer = get.send().await.map_err(|error| Failure::aws(doing(), error))?;
    let own = answer.certificate().unwrap_or_default();
    let above = answer.certificate_chain().unwrap_or_default();
    certificates(&format!("{}\n{above}", own.trim_end())).map_err(|why| Failure::permanent(doing(), why))
}

/// Where a CA publishes its CRL.
pub(crate) struct CrlLocation {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

pub(crate) async fn describe(pca: &Client, authority: &Arn) -> Result<CertificateAuthority, Failure> {
    let doing = || format!("look at {authority}");
    let describe = pca.describe_certificate_authority().certificate_authority_arn(authority.as_str());
    let answer = describe.send().await.map_err(|error| Failure::aws(doing(), error))?;
    answer.certificate_authority.ok_or_else(|| Failure::permanent(doing(), "AWS answered without it"))
}

/// Says in how many days a CA expires, and whether it can be used; one that is not found cannot. One that only has to be trusted may
/// be disabled: a root often is.
pub(crate) fn say_health(stack: &str, authority: &Arn, found: Option<&CertificateAuthority>, issues: bool, now: OffsetDateTime) {
    let days =
        found.and_then(CertificateAuthority::not_after).map(|end| (end.as_secs_f64() - now.unix_timestamp() as f64) / 86_400.0);
    let good = match found.and_then(CertificateAuthority::status) {
        Some(CertificateAuthorityStatus::Active) => true,
        Some(CertificateAuthorityStatus::Disabled) => !issues,
        _ => false,
    };
    let unusable = !good || days.is_none_or(|days| days <= 0.0);
    let unusable = ("CaUnusable", if unusable { 1.0 } else { 0.0 });
    let values: Vec<_> = days.map(|days| ("CaDaysToExpiry", days)).into_iter().chain([unusable]).collect();
    metrics(&[("Stack", stack), ("CertificateAuthority", authority.as_str())], &values);
}

/// `None` for a CA that publishes no CRL.
pub(crate) fn crl_location(authority: &Arn, found: CertificateAuthority) -> Result<Option<CrlLocation>, Failure> {
    let configuration = found.revocation_configuration.and_then(|revocation| revocation.crl_configuration);
    let Some(crl) = configuration.filter(|crl| crl.enabled()) else { return Ok(None) };
    if crl.crl_type() == Some(&CrlType::Partitioned) {
        return Err(Failure::permanent(
            format!("look at {authority}"),
            "it publishes partitioned CRLs, and AWS does not say what ALB makes of them; let it publish complete ones",
        ));
    }
    let id = authority.resource().trim_start_matches("certificate-authority/");
    let folder = crl.custom_path().filter(|path| !path.is_empty()).unwrap_or("crl");
    let bucket = crl.s3_bucket_name().unwrap_or_default().to_owned();
    Ok(Some(CrlLocation { bucket, key: format!("{}/{id}.crl", folder.trim_matches('/')) }))
}
