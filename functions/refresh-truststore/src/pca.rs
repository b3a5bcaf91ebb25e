//! What a CA in AWS Private CA tells of itself: <https://docs.aws.amazon.com/privateca/latest/APIReference/>.

use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::types::CrlType;
use lifecycle::authority::certificates;
use lifecycle::names::Arn;
use runtime::Failure;

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

/// `None` for a CA that publishes no CRL.
pub(crate) async fn crl_location(pca: &Client, authority: &Arn) -> Result<Option<CrlLocation>, Failure> {
    let doing = || format!("look at {authority}");
    let describe = pca.describe_certificate_authority().certificate_authority_arn(authority.as_str());
    let answer = describe.send().await.map_err(|error| Failure::aws(doing(), error))?;
    let configuration = answer.certificate_authority.and_then(|found| found.revocation_configuration?.crl_configuration);
    let Some(crl) = configuration.filter(|crl| crl.enabled()) else { return Ok(None) };
    if crl.crl_type() == Some(&CrlType::Partitioned) {
        return Err(Failure::permanent(
            doing(),
            "it publishes partitioned CRLs, and AWS does not say what ALB makes of them; let it publish complete ones",
        ));
    }
    let id = authority.resource().trim_start_matches("certificate-authority/");
    let folder = crl.custom_path().filter(|path| !path.is_empty()).unwrap_or("crl");
    let bucket = crl.s3_bucket_name().unwrap_or_default().to_owned();
    Ok(Some(CrlLocation { bucket, key: format!("{}/{id}.crl", folder.trim_matches('/')) }))
}
