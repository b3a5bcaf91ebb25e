use std::error::Error;
use std::fmt;

use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lambda_runtime::Diagnostic;

/// Why an invocation failed. The one question asked of it is whether to try again, and it is answered where the failure arose.
///
/// It is printed on one line, as `failed to …: …`, because that line is what a person finds in the log and in the on-failure queue.
pub struct Failure {
    again: bool,
    doing: String,
    why: String,
    advice: Option<&'static str>,
}

impl Failure {
    /// Trying again may help.
    pub fn retryable(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { again: true, doing: doing.into(), why: why.to_string(), advice: None }
    }

    /// Trying again would only fail again.
    pub fn permanent(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { again: false, doing: doing.into(), why: why.to_string(), advice: None }
    }

    /// A call to AWS that failed: judged by its code, never by its text or its HTTP status alone.
    pub fn aws<E>(doing: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let again = match &error {
            SdkError::ConstructionFailure(_) => false,
            SdkError::ServiceError(answer) => answer.raw().status().is_server_error() || error.code().is_some_and(passes),
            _ => true,
        };
        let advice = error.code().and_then(advice);
        Self { again, doing: doing.into(), why: said(&error), advice }
    }

    /// Several items of one invocation that failed: each is named, and one that is worth another try makes the whole so.
    pub fn several(doing: impl Into<String>, mut failures: Vec<Self>) -> Result<(), Self> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            count => Err(Self {
                again: failures.iter().any(|failure| failure.again),
                doing: format!("{} ({count} failures)", doing.into()),
                why: failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                advice: None,
            }),
        }
    }

    /// The same failure, as a part of something larger.
    pub fn within(self, doing: impl Into<String>) -> Self {
        Self { again: self.again, why: self.to_string(), doing: doing.into(), advice: None }
    }

    pub fn is_permanent(&self) -> bool {
        !self.again
    }
}

/// What AWS answered, with the request's id for its support; where it did not answer, what kept it from it. Never the `Debug` of the
/// error, which has the whole answer in it: an answer of `GetSecretValue` is a private key.
fn said<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let Some(code) = error.code() else {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        return std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ");
    };
    let message = error.message().map(|message| format!(": {message}")).unwrap_or_default();
    let headers = error.raw_response().map(HttpResponse::headers);
    let id = headers.and_then(|headers| headers.get("x-amzn-requestid").or_else(|| headers.get("x-amz-request-id")));
    format!("{code}{message}{}", id.map(|id| format!(" (request {id})")).unwrap_or_default())
}

/// Codes that say "not now". The SDK counts `LimitExceededException` among the throttles; in the services that Everleaf calls it is a
/// quota that waiting does not lift. `AccessDenied` during the first seconds of a deployment would pass, but is better seen.
fn passes(code: &str) -> bool {
    const NOT_NOW: &[&str] = &[
        "RequestInProgressException",
        "ConcurrentModificationException",
        "InternalServiceError",
        "InternalFailure",
        "ServiceUnavailable",
        "ConditionalRequestConflict",
        "TrustStoreNotReady",
    ];
    code != "LimitExceededException" && [THROTTLING_ERRORS, TRANSIENT_ERRORS, NOT_NOW].iter().any(|codes| codes.contains(&code))
}

/// What the reader of a permanent failure should do, where the code says enough.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" => "let the function's role do this, or look for a policy that denies it",
        "LimitExceededException" => "raise the quota that the message names",
        "InvalidStateException" => "make the CA active again: it is disabled, expired or not yet set up",
        "DecryptionFailure" | "EncryptionFailure" => "see to the KMS key: it is disabled, or the function's role may not use it",
        "ResourceNotFoundException" => "check that it exists in this account and region",
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.doing, self.why)?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// The runtime logs a handler's error by `Debug`, once.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, if self.again { "to be tried again" } else { "permanent" })
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let error_type = if failure.again { "Retryable" } else { "Permanent" };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}
