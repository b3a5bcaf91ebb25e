//! The calls to AWS Private CA: <https://docs.aws.amazon.com/privateca/latest/APIReference/>.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::operation::revoke_certificate::RevokeCertificateError;
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{CertificateAuthorityUsageMode, SigningAlgorithm, Validity, ValidityPeriodType};
use lifecycle::date;
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::Specification;
use lifecycle::revocation::Revocation;
use runtime::{Failure, Invocation};
use time::OffsetDateTime;

pub struct PrivateCa {
    client: Client,
    /// By the CA's ARN: what it was set up with never changes, but for its end, which may come later when it is renewed.
    authorities: Mutex<HashMap<Arn, Authority>>,
}

/// What a CA was set up with.
#[derive(Clone)]
struct Authority {
    signing_algorithm: SigningAlgorithm,
    short_lived: bool,
    not_after: Option<OffsetDateTime>,
}

impl Authority {
    /// Why it would never issue this, and what to do.
    fn refuses(&self, wanted: &Specification, now: OffsetDateTime) -> Option<String> {
        if self.short_lived && wanted.lifetime > LONGEST_OF_SHORT_LIVED {
            let mode = "is in short-lived mode, whose certificates last 7 days at most";
            return Some(format!("{mode}; ask for {{\"days\": 7}} or less, or name another CA"));
        }
        let end = self.not_after.filter(|end| now + wanted.lifetime > *end)?;
        Some(format!("ends {} itself; ask for less, renew the CA, or name another one", date(end)))
    }
}

/// <https://docs.aws.amazon.com/privateca/latest/userguide/short-lived-certificates.html>
const LONGEST_OF_SHORT_LIVED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a certificate is waited for. It takes the CA a few seconds; what takes longer is fetched by the next try.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a certificate that was asked for just now is looked for first; then after as long again, and twice as long. Three looks are
/// what AWS's quotas leave to each issuance: they last for what the CA has within six seconds.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(1500);

impl PrivateCa {
    pub fn new(client: Client) -> Self {
        Self { client, authorities: Mutex::default() }
    }

    /// Refuses what the CA would never issue, before anything is begun.
    pub(crate) async fn admits(&self, wanted: &Specification, now: OffsetDateTime) -> Result<(), Failure> {
        let arn = &wanted.certificate_authority_arn;
        if self.authority(arn).await?.refuses(wanted, now).is_none() {
            return Ok(());
        }
        // It may have been renewed since it was looked at.
        match self.describe(arn).await?.refuses(wanted, now) {
            Some(why) => Err(Failure::permanent("accept the request", format!("validity: {arn} {why}"))),
            None => Ok(()),
        }
    }

    /// Asks for a certificate. The answer comes before the certificate is there. The CA remembers `token` for five minutes and
    /// gives the same answer to it.
    pub(crate) async fn issue(
        &self,
        name: &CertificateName,
        wanted: &Specification,
        csr: &str,
        not_after: OffsetDateTime,
        token: &str,
    ) -> Result<Arn, Failure> {
        let authority = &wanted.certificate_authority_arn;
        let doing = || format!("ask {authority} for the certificate `{name}`");
        let validity = Validity::builder().r#type(ValidityPeriodType::Absolute).value(not_after.unix_timestamp()).build();
        let answer = self
            .client
            .issue_certificate()
            .certificate_authority_arn(authority.as_str())
            .csr(Blob::new(csr))
            .signing_algorithm(self.authority(authority).await?.signing_algorithm)
            .template_arn(format!("arn:{}:acm-pca:::template/{}", authority.partition(), wanted.usage.template()))
            .validity(validity.map_err(|error| Failure::permanent(doing(), error))?)
            .idempotency_token(token)
            .send()
            .await
            .map_err(|error| Failure::aws(doing(), error))?;
        let arn = answer.certificate_arn().unwrap_or_default().parse();
        arn.map_err(|_| Failure::permanent(doing(), "AWS answered without the certificate's ARN"))
    }

    /// Certificate and chain, both PEM, once they are there; `None` when the CA failed to issue. It is looked for after `first`.
    pub(crate) async fn fetch(
        &self,
        name: &CertificateName,
        authority: &Arn,
        certificate: &Arn,
        first: Duration,
        invocation: &Invocation,
    ) -> Result<Option<(String, String)>, Failure> {
        let doing = || format!("fetch the certificate `{name}` ({certificate})");
        let patience = PATIENCE.min(invocation.time_left().saturating_sub(Duration::from_secs(15)));
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = FIRST_LOOK;
        tokio::time::sleep(first).await;
        loop {
            let get = self.client.get_certificate().certificate_authority_arn(authority.as_str());
            let error = match get.certificate_arn(certificate.as_str()).send().await {
                Ok(answer) => return Ok(answer.certificate.map(line_ended).zip(answer.certificate_chain.map(line_ended))),
                Err(error) => error,
            };
            let service = error.as_service_error();
            if service.is_some_and(|error| error.is_request_failed_exception()) {
                return Ok(None);
            }
            // Right after it was asked for, a certificate may not be known everywhere yet.
            if !service.is_some_and(|error| error.is_request_in_progress_exception() || error.is_resource_not_found_exception()) {
                return Err(Failure::aws(doing(), error));
            }
            if tokio::time::Instant::now() + pause >= give_up {
                return Err(Failure::retryable(doing(), "the CA is still at it; the next try fetches it"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(4));
        }
    }

    /// Tells the CA that a certificate is not to be trusted any more. One that was revoked before stays so. `Ok(false)`: there is no
    /// such certificate at this CA, or it has expired. Of one that `lives` an invalid request says something else.
    /// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_RevokeCertificate.html>
    pub(crate) async fn revoke(&self, name: &CertificateName, revocation: &Revocation, lives: bool) -> Result<bool, Failure> {
        let Revocation { serial, certificate_authority_arn, reason, .. } = revocation;
        let doing = || format!("revoke serial {serial} of `{name}`");
        let revoke = self.client.revoke_certificate().certificate_authority_arn(certificate_authority_arn.as_str());
        // Whole bytes, as AWS writes serial numbers.
        let padding = if serial.as_str().len().is_multiple_of(2) { "" } else { "0" };
        let revoke = revoke.certificate_serial(format!("{padding}{serial}")).revocation_reason(reason.as_str().into());
        let Err(error) = revoke.send().await else { return Ok(true) };
        match error.as_service_error() {
            Some(RevokeCertificateError::RequestAlreadyProcessedException(_)) => Ok(true),
            Some(RevokeCertificateError::ResourceNotFoundException(_)) => Ok(false),
            Some(RevokeCertificateError::InvalidRequestException(_)) if !lives => Ok(false),
            // "A networking problem", by AWS's table of exceptions.
            Some(RevokeCertificateError::RequestFailedException(_)) => {
                Err(Failure::retryable(doing(), error.into_service_error()))
            }
            _ => Err(Failure::aws(doing(), error)),
        }
    }

    async fn authority(&self, authority: &Arn) -> Result<Authority, Failure> {
        let known = self.authorities.lock().unwrap_or_else(PoisonError::into_inner).get(authority).cloned();
        match known {
            Some(known) => Ok(known),
            None => self.describe(authority).await,
        }
    }

    /// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_DescribeCertificateAuthority.html>
    async fn describe(&self, authority: &Arn) -> Result<Authority, Failure> {
        let doing = || format!("look at the CA {authority}");
        let describe = self.client.describe_certificate_authority().certificate_authority_arn(authority.as_str());
        let answer = describe.send().await.map_err(|error| Failure::aws(doing(), error))?.certificate_authority;
        let found = answer.and_then(|found| {
            let short_lived = found.usage_mode == Some(CertificateAuthorityUsageMode::ShortLivedCertificate);
            let signing_algorithm = found.certificate_authority_configuration?.signing_algorithm;
            let not_after = found.not_after.and_then(|end| OffsetDateTime::from_unix_timestamp(end.secs()).ok());
            Some(Authority { signing_algorithm, short_lived, not_after })
        });
        let found = found.ok_or_else(|| Failure::permanent(doing(), "AWS answered without its signing algorithm"))?;
        self.authorities.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.clone(), found.clone());
        Ok(found)
    }
}

/// AWS Private CA's PEM lacks the last line's end, without which certificate and chain cannot be put together into one file.
fn line_ended(mut pem: String) -> String {
    if !pem.ends_with('\n') {
        pem.push('\n');
    }
    pem
}
