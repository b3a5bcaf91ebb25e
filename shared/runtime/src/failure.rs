use std::error::Error;
use std::fmt;

use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lambda_runtime::Diagnostic;
use lifecycle::date;
use time::OffsetDateTime;

/// Why an invocation failed. The one question asked of it is whether to try again, and it is answered where the failure arose.
///
/// It is printed on one line, as `failed to …: …`, because that line is what a person finds in the log and in the on-failure queue.
pub struct Failure {
    again: bool,
    throttled: bool,
    doing: String,
    why: String,
    advice: Option<&'static str>,
}

impl Failure {
    /// Trying again may help.
    pub fn retryable(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { again: true, throttled: false, doing: doing.into(), why: why.to_string(), advice: None }
    }

    /// Somebody else does this, until then at the latest.
    pub fn busy(doing: impl Into<String>, until: OffsetDateTime) -> Self {
        Self::retryable(doing, format!("another invocation is at it; it may be tried again after {}", date(until)))
    }

    /// Trying again would only fail again.
    pub fn permanent(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { again: false, throttled: false, doing: doing.into(), why: why.to_string(), advice: None }
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
        Self { again, throttled: is_throttle(&error), doing: doing.into(), why: said(&error), advice }
    }

    /// The same failure, as a part of something larger.
    pub fn within(self, doing: impl Into<String>) -> Self {
        Self { why: self.to_string(), doing: doing.into(), advice: None, ..self }
    }

    /// Why, without what was being done, and what to do about it.
    pub fn reason(&self) -> String {
        let advice = self.advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{}{advice}", self.why)
    }

    pub fn is_permanent(&self) -> bool {
        !self.again
    }

    /// AWS had no room for the call as long as it was tried.
    pub fn is_throttled(&self) -> bool {
        self.throttled
    }
}

/// What failed of the items of one invocation. However many fail, it holds no more than the first, which the invocation's error
/// names; the others are logged as they come.
#[derive(Default)]
pub struct Failures {
    named: Vec<Failure>,
    count: usize,
    again: bool,
}

/// An error that names thousands is too long for the on-failure queue, and Lambda drops what the queue does not take.
const NAMED: usize = 50;

impl Failures {
    pub fn push(&mut self, failure: Failure) {
        self.count += 1;
        self.again |= failure.again;
        match self.named.len() < NAMED {
            true => self.named.push(failure),
            false => tracing::error!("{failure}"),
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// One that is worth another try makes the whole so.
    pub fn into_result(mut self, doing: &str) -> Result<(), Failure> {
        match self.count {
            0 => Ok(()),
            1 => Err(self.named.remove(0)),
            count => {
                let logged = count - self.named.len();
                let named = self.named.iter().map(ToString::to_string);
                let rest = (logged > 0).then(|| format!("{logged} more, which the log names"));
                Err(Failure {
                    again: self.again,
                    throttled: false,
                    doing: format!("{doing} ({count} failures)"),
                    why: named.chain(rest).collect::<Vec<_>>().join("; "),
                    advice: None,
                })
            }
        }
    }
}

impl Extend<Failure> for Failures {
    fn extend<T: IntoIterator<Item = Failure>>(&mut self, failures: T) {
        failures.into_iter().for_each(|failure| self.push(failure));
    }
}

/// Whether AWS had no room for the call, and so has done nothing.
pub fn is_throttle(error: &impl ProvideErrorMetadata) -> bool {
    error.code().is_some_and(|code| code != LIMIT_EXCEEDED && THROTTLING_ERRORS.contains(&code))
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

/// The SDK counts it among the throttles; in the services that Everleaf calls it is a quota that waiting does not lift.
const LIMIT_EXCEEDED: &str = "LimitExceededException";

/// Codes that say "not now". `AccessDenied` during the first seconds of a deployment would pass, but is better seen.
fn passes(code: &str) -> bool {
    const NOT_NOW: &[&str] = &[
        "RequestInProgressException",
        "ConcurrentModificationException",
        "InternalServiceError",
        "InternalFailure",
        "ServiceUnavailable",
        "ConditionalRequestConflict",
        // ACM: "Wait for the previous operation to finish and try again."
        "ConflictException",
        // A write met somebody else's transaction on the item.
        "TransactionConflictException",
        "TrustStoreNotReady",
    ];
    code != LIMIT_EXCEEDED && [THROTTLING_ERRORS, TRANSIENT_ERRORS, NOT_NOW].iter().any(|codes| codes.contains(&code))
}

/// What the reader of a permanent failure should do, where the code says enough.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" => "let the function's role do this, or look for a policy that denies it",
        LIMIT_EXCEEDED => "raise the quota that the message names",
        "InvalidStateException" => "make the CA active again: it is disabled, expired or not yet set up",
        "DecryptionFailure" | "EncryptionFailure" => "see to the KMS key: it is disabled, or the function's role may not use it",
        "ResourceNotFoundException" => "check that it exists in this account and region",
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.doing, self.reason())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(count: usize) -> Result<(), Failure> {
        let mut failures = Failures::default();
        failures.extend((0..count).map(|number| Failure::permanent(format!("look at `orders-{number}`"), "it is gone")));
        failures.into_result("sweep")
    }

    #[test]
    fn of_many_failures_the_first_are_named_and_the_others_counted() {
        assert!(failed(0).is_ok());
        let rows: [(usize, &str, &str); 3] = [
            (1, "failed to look at `orders-0`: it is gone", "orders-0`: it is gone"),
            (2, "failed to sweep (2 failures): failed to look at `orders-0`: it is gone; ", "orders-1`: it is gone"),
            (100_000, "failed to sweep (100000 failures): failed to ", "orders-49`: it is gone; 99950 more, which the log names"),
        ];
        for (count, begin, end) in rows {
            let failure = failed(count).unwrap_err();
            let told = failure.to_string();
            assert!(told.starts_with(begin) && told.ends_with(end) && failure.is_permanent(), "{count}: {told}");
        }
    }

    #[test]
    fn one_failure_that_is_worth_another_try_makes_the_whole_so_even_when_it_is_not_named() {
        for place in [0, NAMED, 2 * NAMED] {
            let mut failures = Failures::default();
            for number in 0..=2 * NAMED {
                failures.push(match number == place {
                    true => Failure::retryable("look", "later"),
                    false => Failure::permanent("look", "never"),
                });
            }
            assert!(!failures.into_result("sweep").unwrap_err().is_permanent(), "{place}");
        }
    }
}
