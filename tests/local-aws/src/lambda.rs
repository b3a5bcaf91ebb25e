//! Lambda: synchronous and asynchronous invocation of the functions that the template deploys.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Notify;

use crate::{AwsError, LocalAws, World, lock, template};

#[derive(Default)]
pub struct Lambda {
    pub(crate) functions: BTreeMap<String, Function>,
    /// Kept until someone asks: see [`LocalAws::take_invocations`].
    pub(crate) log: Vec<Invocation>,
    /// Those that Secrets Manager may invoke.
    pub(crate) rotators: BTreeSet<String>,
    /// How many invocations of other functions run in the account.
    pub others: usize,
    running: usize,
    /// The most of its functions' invocations that ever ran at once.
    pub peak: usize,
}

/// How many invocations an account may run at once; a new one may run 10.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html>
pub const CONCURRENCY: usize = 1_000;

#[derive(Clone)]
pub struct Function {
    pub config: Arc<template::Function>,
    pub runner: Runner,
}

/// What runs a function's code: its handler in this process, or the real binary ([`crate::processes`]).
pub type Runner = Arc<dyn Fn(Value, Context) -> Running + Send + Sync>;
pub type Running = Pin<Box<dyn Future<Output = Result<Value, FunctionError>> + Send>>;

/// A [`Runner`] of an asynchronous function.
pub fn runner<F, R>(handler: F) -> Runner
where
    F: Fn(Value, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, FunctionError>> + Send + 'static,
{
    Arc::new(move |event, context| Box::pin(handler(event, context)))
}

/// What the runtime tells a handler.
#[derive(Clone, Debug)]
pub struct Context {
    /// All attempts of an asynchronous invocation share it.
    pub request_id: String,
    pub deadline: OffsetDateTime,
    pub function: String,
    /// From 1. AWS does not tell it; it is here for logs.
    pub attempt: u32,
}

/// A handler's error as it leaves the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionError {
    pub error_type: String,
    pub error_message: String,
}

impl FunctionError {
    pub fn new(error_type: &str, error_message: impl Into<String>) -> Self {
        Self { error_type: error_type.to_owned(), error_message: error_message.into() }
    }

    fn payload(&self) -> Value {
        json!({"errorType": self.error_type, "errorMessage": self.error_message})
    }
}

/// One attempt that has ended.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub at: OffsetDateTime,
    pub ended: OffsetDateTime,
    pub function: String,
    pub request_id: String,
    pub attempt: u32,
    pub payload: Value,
    pub outcome: Result<Value, FunctionError>,
}

/// The operations of Lambda's own API. `Payload` is JSON here, not a blob: [`crate::wire`] has read it.
pub(crate) async fn call(aws: &LocalAws, operation: &str, input: &Value) -> Result<Value, AwsError> {
    if operation == "ListFunctions" {
        return Ok(
            aws.world(|world, _| json!({"Functions": world.lambda.functions.values().map(configuration).collect::<Vec<_>>()}))
        );
    }
    let asked = input["FunctionName"].as_str().unwrap_or_default();
    let function = aws.world(|world, _| find(world, asked)).ok_or_else(|| {
        let arn = aws.world(|world, _| world.arn("lambda", &format!("function:{asked}")));
        AwsError { status: 404, ..AwsError::new("ResourceNotFoundException", format!("Function not found: {arn}")) }
    })?;
    match operation {
        "GetFunctionConfiguration" => Ok(configuration(&function)),
        "GetFunction" => Ok(json!({"Configuration": configuration(&function)})),
        "Invoke" => invoke(aws, function, input).await,
        _ => Err(AwsError::unknown_operation("lambda", operation)),
    }
}

/// An asynchronous invocation: a function error is tried again after one minute and two more, and what fails for good goes to the
/// function's on-failure queue. <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>
pub(crate) async fn invoke_later(aws: LocalAws, function: String, payload: Value) {
    let request_id = aws.world(|world, _| world.uuid());
    let Some(function) = aws.world(|world, _| find(world, &function)) else { return };
    let config = function.config.clone();
    let too_old = aws.now() + config.max_event_age;
    for attempt in 1.. {
        // For as long as its age allows, ever more seldom.
        let mut pause = Duration::from_secs(1);
        while throttled(&aws, &function) && aws.now() + pause < too_old {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(300));
        }
        let Err(error) = run(&aws, &function, &payload, &request_id, attempt).await else { return };
        let pause = if aws.world(|world, _| world.hurry) { 1 } else { 60 };
        let delay = Duration::from_secs(pause * u64::from(attempt));
        let condition = if attempt > config.retry_attempts {
            "RetriesExhausted"
        } else if aws.now() + delay > too_old {
            tokio::time::sleep_until(aws.0.clock.instant(too_old)).await;
            "EventAgeExceeded"
        } else {
            tokio::time::sleep(delay).await;
            continue;
        };
        if let Some(queue) = &config.on_failure_queue_arn {
            let error = error.payload();
            aws.world(|world, now| {
                // The format has only members that every time has.
                let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
                let record = json!({
                    "version": "1.0",
                    "timestamp": now.format(format).unwrap_or_default(),
                    "requestContext": {
                        "requestId": request_id, "functionArn": format!("{}:$LATEST", config.arn), "condition": condition,
                        "approximateInvokeCount": attempt,
                    },
                    "requestPayload": payload,
                    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                    "responsePayload": error,
                });
                // Lambda drops a record that the queue refuses, and only counts it.
                drop(world.sqs.send(now, queue, &record.to_string(), &[]));
            });
        }
        return;
    }
}

async fn invoke(aws: &LocalAws, function: Function, input: &Value) -> Result<Value, AwsError> {
    let kind = input["InvocationType"].as_str().unwrap_or("RequestResponse");
    let payload = input["Payload"].clone();
    let (size, limit) = (payload.to_string().len(), if kind == "Event" { 1_048_576 } else { 6_291_456 });
    if size > limit {
        let message = format!("{size} byte payload is too large for the {kind} invocation type (limit {limit} bytes)");
        return Err(AwsError { status: 413, ..AwsError::new("RequestTooLargeException", message) });
    }
    match kind {
        "DryRun" => Ok(json!({"StatusCode": 204})),
        "Event" => {
            tokio::spawn(invoke_later(aws.clone(), function.config.name.clone(), payload));
            Ok(json!({"StatusCode": 202}))
        }
        "RequestResponse" if throttled(aws, &function) => {
            Err(AwsError { status: 429, ..AwsError::new("TooManyRequestsException", "Rate Exceeded.") })
        }
        "RequestResponse" => {
            let request_id = aws.world(|world, _| world.uuid());
            Ok(match run(aws, &function, &payload, &request_id, 1).await {
                Ok(answer) => json!({"StatusCode": 200, "ExecutedVersion": "$LATEST", "Payload": answer}),
                Err(error) => {
                    json!({"StatusCode": 200, "ExecutedVersion": "$LATEST", "FunctionError": "Unhandled", "Payload": error.payload()})
                }
            })
        }
        _ => Err(AwsError::new(
            "InvalidParameterValueException",
            format!("Value {kind} at 'invocationType' is not an invocation type"),
        )),
    }
}

/// Whether there is no room for another invocation now; CloudWatch hears of it.
fn throttled(aws: &LocalAws, function: &Function) -> bool {
    aws.world(|world, now| {
        let is_full = world.lambda.running + world.lambda.others >= CONCURRENCY;
        if is_full {
            world.cloudwatch.lambda(now, &function.config.name, &[("Throttles", 1.0)]);
        }
        is_full
    })
}

/// An invocation that runs, however it ends.
struct Room(LocalAws);

impl Room {
    fn take(aws: &LocalAws) -> Self {
        let lambda = &mut lock(&aws.0.world).lambda;
        lambda.running += 1;
        lambda.peak = lambda.peak.max(lambda.running);
        Self(aws.clone())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.0.0.world).lambda.running -= 1;
    }
}

tokio::task_local! {
    /// Of the attempt that runs: its process has ended.
    static CRASHED: Arc<Notify>;
}

/// Ends the attempt in which this is called; whether there is one.
pub(crate) fn crash() -> bool {
    CRASHED.try_with(|crashed| crashed.notify_one()).is_ok()
}

/// One attempt. At its deadline the handler's future is dropped wherever it stands, as AWS ends the sandbox.
async fn run(
    aws: &LocalAws,
    function: &Function,
    payload: &Value,
    request_id: &str,
    attempt: u32,
) -> Result<Value, FunctionError> {
    let _room = Room::take(aws);
    let at = aws.now();
    let Function { config, runner } = function;
    let context = Context {
        request_id: request_id.to_owned(),
        deadline: aws.clock("lambda") + config.timeout,
        function: config.name.clone(),
        attempt,
    };
    let running = without_panic(runner(payload.clone(), context));
    let crashed = Arc::new(Notify::new());
    let ended = |error_type, why: String| Err(FunctionError::new(error_type, format!("RequestId: {request_id} Error: {why}")));
    let outcome = tokio::select! {
        biased;
        outcome = CRASHED.scope(crashed.clone(), running) => outcome,
        () = crashed.notified() => ended("Runtime.ExitError", "Runtime exited without providing a reason".to_owned()),
        () = tokio::time::sleep(config.timeout) => {
            ended("Sandbox.Timedout", format!("Task timed out after {:.2} seconds", config.timeout.as_secs_f64()))
        }
    };
    aws.world(|world, now| {
        let errors = if outcome.is_err() { 1.0 } else { 0.0 };
        let values = [("Invocations", 1.0), ("Errors", errors), ("Duration", (now - at).as_seconds_f64() * 1000.0)];
        world.cloudwatch.lambda(now, &config.name, &values);
        world.lambda.log.push(Invocation {
            at,
            ended: now,
            function: config.name.clone(),
            request_id: request_id.to_owned(),
            attempt,
            payload: payload.clone(),
            outcome: outcome.clone(),
        });
    });
    outcome
}

/// The runtime turns a panic into a function error.
async fn without_panic(mut running: Running) -> Result<Value, FunctionError> {
    std::future::poll_fn(move |context| {
        std::panic::catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Poll::Ready(Err(FunctionError::new("Panic", format!("Lambda panicked: {}", text.unwrap_or_default()))))
        })
    })
    .await
}

/// One attempt, for a service that waits for its end.
pub(crate) async fn invoke_once(aws: &LocalAws, function: &str, payload: Value) -> Result<Value, FunctionError> {
    let (function, request_id) = aws.world(|world, _| (find(world, function), world.uuid()));
    let Some(function) = function else {
        return Err(FunctionError::new("ResourceNotFoundException", "there is no such function"));
    };
    run(aws, &function, &payload, &request_id, 1).await
}

/// By name, ARN or partial ARN, with or without a qualifier.
pub(crate) fn find(world: &World, asked: &str) -> Option<Function> {
    let parts: Vec<&str> = asked.split(':').collect();
    let name = match parts.iter().position(|part| *part == "function") {
        Some(at) => parts.get(at + 1)?,
        None => parts.first()?,
    };
    world.lambda.functions.get(*name).cloned()
}

fn configuration(function: &Function) -> Value {
    let config = &function.config;
    json!({
        "FunctionName": config.name, "FunctionArn": config.arn, "Runtime": "provided.al2023", "Handler": "bootstrap", "State": "Active",
        "Timeout": config.timeout.as_secs(), "MemorySize": config.memory, "PackageType": "Zip", "Version": "$LATEST",
        "Environment": {"Variables": config.environment},
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use time::macros::datetime;

    use super::*;
    use crate::lock;
    use crate::template::{Template, tests::TEMPLATE};

    const START: OffsetDateTime = datetime!(2026-11-22 06:00 UTC);

    /// Deploys the one function of the test template without its schedule; a retry of its own, an age of one hour, two seconds.
    fn deployed(changes: &[(&str, &str)], handler: Runner) -> (LocalAws, Arc<template::Function>) {
        let text = changes
            .iter()
            .fold(TEMPLATE.replace("rate(1 hour)", "cron(0 0 1 1 ? 2030)"), |text, (from, to)| text.replace(from, to));
        let template = Template::parse(&text, "demo", &[]).unwrap();
        let aws = LocalAws::new(START, Duration::ZERO);
        aws.deploy(&template, |_| handler.clone()).unwrap();
        (aws, template.functions[0].clone())
    }

    fn failing() -> Runner {
        runner(|_, _| async { Err(FunctionError::new("Permanent", "the certificate is gone")) })
    }

    fn event() -> Value {
        json!({"source": "aws.acm", "detail-type": "ACM Certificate Expired", "detail": {}})
    }

    fn times(invocations: &[Invocation]) -> Vec<(u32, i64)> {
        invocations.iter().map(|invocation| (invocation.attempt, (invocation.at - START).whole_seconds())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_event_is_retried_under_the_same_id_and_then_kept_in_the_queue() {
        let (aws, function) = deployed(&[("MaximumRetryAttempts: 1", "MaximumRetryAttempts: 2")], failing());
        assert_eq!(aws.put_event(event()), ["everleaf-renew"]);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let invocations = aws.take_invocations();
        assert_eq!(times(&invocations), [(1, 0), (2, 60), (3, 180)]);
        assert!(invocations.iter().all(|one| one.request_id == invocations[0].request_id));
        let queue = function.on_failure_queue_arn.as_deref().unwrap();
        let bodies: Vec<String> = aws.world(|world, _| world.sqs.messages(queue).iter().map(|one| one.body.clone()).collect());
        let record: Value = serde_json::from_str(&bodies[0]).unwrap();
        let expected = json!({
            "version": "1.0",
            "timestamp": "2026-11-22T06:03:00.000Z",
            "requestContext": {
                "requestId": invocations[0].request_id, "functionArn": format!("{}:$LATEST", function.arn),
                "condition": "RetriesExhausted", "approximateInvokeCount": 3,
            },
            "requestPayload": event(),
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorType": "Permanent", "errorMessage": "the certificate is gone"},
        });
        assert_eq!((record, bodies.len()), (expected, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_waits_until_the_account_has_room_for_it() {
        let handler = |_, _| async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Ok(Value::Null)
        };
        let (aws, _) = deployed(&[], runner(handler));
        aws.world(|world, _| world.lambda.others = CONCURRENCY - 1);
        aws.put_event(event());
        aws.put_event(event());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began: Vec<_> = aws.take_invocations().iter().map(|one| (one.at - START).whole_seconds()).collect();
        assert_eq!((began, aws.world(|world, _| world.lambda.peak)), (vec![0, 3], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_not_retried_beyond_its_age() {
        let age = ("MaximumEventAgeInSeconds: 3600", "MaximumEventAgeInSeconds: 90");
        let (aws, function) = deployed(&[("MaximumRetryAttempts: 1", "MaximumRetryAttempts: 2"), age], failing());
        aws.put_event(event());
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(times(&aws.take_invocations()), [(1, 0), (2, 60)]);
        let queue = function.on_failure_queue_arn.as_deref().unwrap();
        let body = aws.world(|world, _| world.sqs.messages(queue)[0].body.clone());
        assert!(body.contains(r#""condition":"EventAgeExceeded""#) && body.contains("T06:01:30.000Z"), "{body}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_succeeds_at_the_second_try_leaves_no_record() {
        let handler = |_, context: Context| async move {
            if context.attempt == 1 { Err(FunctionError::new("Throttled", "later")) } else { Ok(json!({})) }
        };
        let (aws, function) = deployed(&[], runner(handler));
        aws.put_event(event());
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(times(&aws.take_invocations()), [(1, 0), (2, 60)]);
        let queue = function.on_failure_queue_arn.as_deref().unwrap();
        assert!(aws.world(|world, _| world.sqs.messages(queue).is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_is_dropped_at_its_deadline_and_a_panic_is_an_error() {
        struct Dropped(Arc<Mutex<bool>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                *lock(&self.0) = true;
            }
        }
        let dropped = Arc::new(Mutex::new(false));
        let guard = dropped.clone();
        let handler = move |event: Value, context: Context| {
            let guard = Dropped(guard.clone());
            async move {
                assert_eq!(context.deadline, START + Duration::from_secs(2));
                assert!(event["panic"].is_null(), "told to");
                let _guard = guard;
                std::future::pending().await
            }
        };
        let (aws, _) = deployed(&[], runner(handler));
        let invoke = |payload: Value| json!({"FunctionName": "everleaf-renew", "Payload": payload});
        let answer = call(&aws, "Invoke", &invoke(json!({"panic": true}))).await.unwrap();
        assert_eq!(answer["Payload"]["errorMessage"], "Lambda panicked: told to");
        *lock(&dropped) = false;
        let answer = call(&aws, "Invoke", &invoke(json!({}))).await.unwrap();
        assert!(*lock(&dropped));
        assert_eq!(
            (&answer["FunctionError"], &answer["Payload"]["errorType"]),
            (&json!("Unhandled"), &json!("Sandbox.Timedout"))
        );
        assert_eq!(aws.now(), START + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_can_be_lost_delayed_and_doubled() {
        let (aws, _) = deployed(&[], runner(|_, _| async { Ok(Value::Null) }));
        let mut plans = vec![vec![], vec![Duration::from_secs(5), Duration::from_secs(9)], vec![Duration::ZERO]].into_iter();
        aws.set_deliveries(Some(Box::new(move |_, _| plans.next().unwrap())));
        for _ in 0..3 {
            aws.put_event(event());
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(times(&aws.take_invocations()), [(1, 0), (1, 5), (1, 9)]);
        assert_eq!(aws.take_events().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn schedules_invoke_with_their_input_or_the_scheduled_event() {
        let template = Template::parse(TEMPLATE, "demo", &[("Stage", "live")]).unwrap();
        let aws = LocalAws::new(START, Duration::ZERO);
        aws.deploy(&template, |_| runner(|_, _| async { Ok(Value::Null) })).unwrap();
        tokio::time::sleep(Duration::from_secs(24 * 3600 - 60)).await;
        let (daily, hourly): (Vec<_>, Vec<_>) =
            aws.take_invocations().into_iter().partition(|one| one.payload["sweep"].is_null());
        let hours: Vec<_> = hourly.iter().map(|one| (one.at - START).whole_seconds()).collect();
        assert_eq!(hours, (0..24).map(|hour| hour * 3600).collect::<Vec<_>>());
        let [scheduled] = daily.as_slice() else { panic!("{daily:?}") };
        assert_eq!(
            (&scheduled.payload["detail-type"], &scheduled.payload["source"]),
            (&json!("Scheduled Event"), &json!("aws.events"))
        );
        assert_eq!(scheduled.payload["time"], "2026-11-23T03:00:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_rule_or_schedule_invokes_nothing() {
        let (aws, function) =
            deployed(&[("            RetryPolicy:", "            State: DISABLED\n            RetryPolicy:")], failing());
        assert!(function.schedules.iter().any(|schedule| !schedule.target.enabled));
        assert!(aws.put_event(event()).is_empty());
        tokio::time::sleep(Duration::from_secs(3 * 24 * 3600)).await;
        assert!(aws.take_invocations().is_empty());
        assert_eq!(aws.take_events().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_is_told_from_a_function_that_is_not_there() {
        let (aws, function) = deployed(&[], runner(|event, _| async { Ok(event) }));
        for name in ["everleaf-renew", "everleaf-renew:$LATEST", "111122223333:function:everleaf-renew", function.arn.as_str()] {
            let input = json!({"FunctionName": name, "Payload": [1]});
            assert_eq!(call(&aws, "Invoke", &input).await.unwrap()["Payload"], json!([1]), "{name}");
        }
        let error = call(&aws, "Invoke", &json!({"FunctionName": "other", "Payload": {}})).await.unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (404, "ResourceNotFoundException"));
        let accepted =
            call(&aws, "Invoke", &json!({"FunctionName": function.name, "InvocationType": "Event", "Payload": 7})).await;
        assert_eq!(accepted.unwrap(), json!({"StatusCode": 202}));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(aws.take_invocations().last().unwrap().payload, 7);
    }
}
