//! How a function of Everleaf starts, reads its settings, is triggered, publishes events, says figures, and fails.

mod failure;
mod http;
mod metrics;
mod publish;
mod sdk;
mod trace;
mod trigger;
pub mod vars;

use std::time::Duration;

use lambda_runtime::tracing::subscriber::fmt::MakeWriter;
use lambda_runtime::tracing::{Dispatch, Level, dispatcher, subscriber};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;

pub use crate::failure::{Failure, Failures, is_throttle};
pub use crate::metrics::{NAMESPACE, metrics};
pub use crate::publish::publish;
pub use crate::sdk::{Seldom, sdk_config, sdk_settings, seldom};
pub use crate::trigger::Trigger;

use crate::metrics::Lines;

/// One invocation: who it is, what time it is, and how long it may go on.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Lambda's request id. A retry of a failed asynchronous invocation has the same one.
    pub id: String,
    began: OffsetDateTime,
    zero: Instant,
    limit: Duration,
}

impl Invocation {
    pub fn new(id: impl Into<String>, now: OffsetDateTime, limit: Duration) -> Self {
        Self { id: id.into(), began: now, zero: Instant::now(), limit }
    }

    pub fn now(&self) -> OffsetDateTime {
        self.began + self.zero.elapsed()
    }

    /// What is left before Lambda ends the invocation.
    pub fn time_left(&self) -> Duration {
        self.limit.saturating_sub(self.zero.elapsed())
    }
}

/// Runs a function until Lambda ends the process: each event goes to `handle` with the invocation it belongs to.
pub async fn run(handle: impl AsyncFn(Value, &Invocation) -> Result<Value, Failure>) -> Result<(), lambda_runtime::Error> {
    let json = vars::Vars::of_environment().optional::<String>("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format == "JSON");
    dispatcher::set_global_default(logging(json, std::io::stdout))?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| {
        let now = now();
        let deadline = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.context.deadline) * 1_000_000).unwrap_or(now);
        let limit = Duration::try_from(deadline - now).unwrap_or_default();
        handle(event.payload, &Invocation::new(event.context.request_id, now, limit)).await
    }))
    .await
}

/// Log lines from INFO upwards, whatever the environment asks for: below that the SDK writes down what it sends and receives, keys
/// and passphrases with it.
pub fn logging(json: bool, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Dispatch {
    let lines =
        subscriber::fmt().with_max_level(Level::INFO).with_target(false).without_time().with_ansi(false).with_writer(writer);
    if json { lines.json().map_event_format(Lines).into() } else { lines.map_event_format(Lines).into() }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a function reads the clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
