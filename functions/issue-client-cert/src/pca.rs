//! The calls to AWS Private CA: <https://docs.aws.amazon.com/privateca/latest/APIReference/>.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{SigningAlgorithm, Validity, ValidityPeriodType};
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::Specification;
use runtime::{Failure, Invocation};
use time::OffsetDateTime;

pub struct PrivateCa {
    client: Client,
    /// By the CA's ARN: a CA's key never changes.
    signing_algorithms: Mutex<HashMap<Arn, SigningAlgorithm>>,
}

/// How long a certificate is waited for. It takes the CA a few seconds; what takes longer is fetched by the next try.
const PATIENCE: Duration = Duration::from_secs(60);

impl PrivateCa {
    pub fn new(client: Client) -> Self {
        Self { client, signing_algorithms: Mutex::default() }
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
            .signing_algorithm(self.signing_algorithm(authority).await?)
            .template_arn(format!("arn:{}:acm-pca:::template/{}", authority.partition(), wanted.usage.template()))
            .validity(validity.map_err(|error| Failure::permanent(doing(), error))?)
            .idempotency_token(token)
            .send()
            .await
            .map_err(|error| Failure::aws(doing(), error))?;
        let arn = answer.certificate_arn().unwrap_or_default().parse();
        arn.map_err(|_| Failure::permanent(doing(), "AWS answered without the certificate's ARN"))
    }

    /// Certificate and chain, both PEM, once they are there; `None` when the CA failed to issue.
    pub(crate) async fn fetch(
        &self,
        name: &CertificateName,
        authority: &Arn,
        certificate: &Arn,
        invocation: &Invocation,
    ) -> Result<Option<(String, String)>, Failure> {
        let doing = || format!("fetch the certificate `{name}` ({certificate})");
        let patience = PATIENCE.min(invocation.time_left().saturating_sub(Duration::from_secs(15)));
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(500);
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

    /// The algorithm must be of the family of the CA's key, which the CA was set up with.
    async fn signing_algorithm(&self, authority: &Arn) -> Result<SigningAlgorithm, Failure> {
        let known = self.signing_algorithms.lock().unwrap_or_else(PoisonError::into_inner).get(authority).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let doing = || format!("look at the CA {authority}");
        let describe = self.client.describe_certificate_authority().certificate_authority_arn(authority.as_str());
        let answer = describe.send().await.map_err(|error| Failure::aws(doing(), error))?;
        let configuration = answer.certificate_authority.and_then(|authority| authority.certificate_authority_configuration);
        let algorithm = configuration.map(|configuration| configuration.signing_algorithm);
        let algorithm = algorithm.ok_or_else(|| Failure::permanent(doing(), "AWS answered without its signing algorithm"))?;
        self.signing_algorithms.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.clone(), algorithm.clone());
        Ok(algorithm)
    }
}

/// AWS Private CA's PEM lacks the last line's end, without which certificate and chain cannot be put together into one file.
fn line_ended(mut pem: String) -> String {
    if !pem.ends_with('\n') {
        pem.push('\n');
    }
    pem
}
