//! `ExportCertificate`: <https://docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html>.

use std::time::Duration;

use aws_sdk_acm::Client;
use aws_sdk_acm::error::ProvideErrorMetadata;
use aws_sdk_acm::primitives::Blob;
use lifecycle::names::Arn;
use lifecycle::record::Record;
use material::{Key, Material, passphrase};
use runtime::{Failure, Invocation};
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};

/// How long a certificate that is still being issued is waited for; after that it is a later try's.
const PATIENCE: Duration = Duration::from_secs(45);

/// Exports under a passphrase made for this one export.
pub(crate) async fn export(acm: &Client, record: &Record, arn: &Arn, invocation: &Invocation) -> Result<Material, Failure> {
    let doing = || format!("export `{}` ({arn})", record.name);
    let passphrase = passphrase();
    let give_up = Instant::now() + PATIENCE.min(invocation.time_left().saturating_sub(Duration::from_secs(15)));
    let mut pause = Duration::from_secs(1);
    let answer = loop {
        let blob = Blob::new(passphrase.expose_secret());
        let error = match acm.export_certificate().certificate_arn(arn.as_str()).passphrase(blob).send().await {
            Ok(answer) => break answer,
            Err(error) => error,
        };
        let in_progress = error.as_service_error().is_some_and(|error| error.is_request_in_progress_exception());
        // For a moment after a renewal ACM may take for not exportable what was exported before.
        let not_yet = record.current.is_some() && error.code() == Some("ValidationException");
        if !(in_progress || not_yet) || Instant::now() + pause >= give_up {
            return Err(match not_yet {
                true => Failure::retryable(doing(), error.into_service_error()),
                false => Failure::aws(doing(), error),
            });
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(8));
    };
    let (Some(certificate), Some(certificate_chain), Some(pem)) =
        (answer.certificate, answer.certificate_chain, answer.private_key)
    else {
        return Err(Failure::permanent(doing(), "AWS answered without certificate, chain or key"));
    };
    let key = Key { pem: pem.into(), passphrase: Some(passphrase) };
    let key = key.reseal(record.options.key_format).map_err(|why| Failure::permanent(doing(), why))?;
    Ok(Material { certificate, certificate_chain, key: Some(key) })
}
