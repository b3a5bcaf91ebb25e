//! Local AWS: the operations that Everleaf calls, with AWS's own semantics, real X.509, quotas, events and faults to order.
//!
//! Two ways in, one behaviour. In the process it is the SDK's HTTP client ([`LocalAws::http_client`]): under tokio's paused clock
//! time is virtual, and years take minutes. Over HTTP ([`server`]) it serves the real function binaries, the AWS CLI and boto3 on
//! the machine's clock. Where time matters, nothing here polls: the next thing to happen is a timer of [`World`].

pub mod acm;
pub mod clock;
pub mod cloudwatch;
mod connector;
pub mod dynamodb;
pub mod ecs;
pub mod elbv2;
mod error;
pub mod events;
pub mod iam;
mod input;
pub mod lambda;
pub mod pca;
pub mod processes;
pub mod quotas;
mod rotation;
pub mod s3;
pub mod secrets;
pub mod server;
pub mod sqs;
pub mod template;
mod wire;
mod world;
mod x509;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::Notify;

pub use crate::error::AwsError;
pub use crate::world::{ACCOUNT, REGION, Timer, World};

use crate::clock::Clock;
use crate::quotas::Quotas;

/// One account in one region. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct LocalAws(Arc<Inner>);

struct Inner {
    clock: Clock,
    world: Mutex<World>,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Option<FaultPlan>>,
    deliveries: Mutex<Option<DeliveryPlan>>,
    quotas: Mutex<Quotas>,
    /// What was answered when lists were last asked for, by the question.
    listed: Mutex<BTreeMap<String, Value>>,
    latency: Duration,
    wake: Notify,
    hung: Notify,
}

/// One call that arrived, as it was answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: OffsetDateTime,
    /// The function that made it, or `user` for everyone else.
    pub caller: String,
    /// The IAM prefix of the service: `acm`, `acm-pca`, `secretsmanager`, `dynamodb`, `ecs`, `events`, `sqs`, `lambda`, `s3`,
    /// `elasticloadbalancing`.
    pub service: &'static str,
    pub operation: String,
    pub input: Value,
    /// What it needs its caller's role to allow. Empty for a fault plan: AWS looks at that later.
    pub needs: Vec<iam::Need>,
    /// The error's code where one was answered.
    pub error: Option<String>,
}

impl Call {
    /// `acm:ExportCertificate`
    pub fn action(&self) -> String {
        format!("{}:{}", self.service, self.operation)
    }

    /// Whether the operation can change anything.
    pub fn writes(&self) -> bool {
        !["Describe", "Get", "Head", "List", "Query", "BatchGet", "Scan"].iter().any(|read| self.operation.starts_with(read))
    }
}

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// AWS answers with this error and does nothing.
    Refuse(AwsError),
    /// The connection breaks before the request arrives.
    Reset,
    /// AWS does what was asked, and the answer is lost on the way.
    LoseAnswer,
    /// The request never arrives, and the caller waits.
    Hang,
    /// AWS does what was asked and answers after that time.
    Delay(Duration),
    /// AWS answers a list as it was when it was last asked for, and with the certificate of a CA that was asked for last.
    Stale,
    /// AWS does what was asked, and the caller never runs again: an invocation ends; for anyone else [`LocalAws::hung`] tells, and
    /// the caller's future is to be dropped.
    Crash,
    /// AWS does what was asked and answers this.
    Answer(Value),
}

/// Looks at each call before it is answered and may spoil it. `error` and `at` of the call are not set yet.
pub type FaultPlan = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// Looks at each delivery of an event or a schedule before it is made: its payload and the function it goes to. Each entry of the
/// answer is one delivery after that delay; none means that it is lost.
pub type DeliveryPlan = Box<dyn FnMut(&Value, &str) -> Vec<Duration> + Send>;

/// Why a request got no ordinary answer.
pub(crate) enum NoAnswer {
    Error(AwsError),
    ConnectionReset,
}

impl LocalAws {
    /// An empty account whose clock shows `start`. Call it inside a tokio runtime; `latency` passes before each answer.
    pub fn new(start: OffsetDateTime, latency: Duration) -> Self {
        let aws = Self(Arc::new(Inner {
            clock: Clock::starting_at(start),
            world: Mutex::new(World::new(ACCOUNT, REGION)),
            calls: Mutex::default(),
            faults: Mutex::default(),
            deliveries: Mutex::default(),
            quotas: Mutex::default(),
            listed: Mutex::default(),
            latency,
            wake: Notify::new(),
            hung: Notify::new(),
        }));
        tokio::spawn(drive(aws.clone()));
        aws
    }

    pub fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    /// What the clock of a service shows.
    pub fn clock(&self, service: &str) -> OffsetDateTime {
        lock(&self.0.world).clock(service, self.now())
    }

    /// The SDK's HTTP client for `caller`: every request goes here instead of to the network.
    pub fn http_client(&self, caller: &str) -> SharedHttpClient {
        SharedHttpClient::new(connector::Connector::new(self.clone(), caller))
    }

    /// Looks at the account, or changes it behind everyone's back.
    pub fn world<T>(&self, look: impl FnOnce(&mut World, OffsetDateTime) -> T) -> T {
        let seen = self.world_now(look);
        self.0.wake.notify_one();
        seen
    }

    /// As [`world`](Self::world), without waking the driver to what the look may have brought.
    fn world_now<T>(&self, look: impl FnOnce(&mut World, OffsetDateTime) -> T) -> T {
        let now = self.now();
        let (seen, deliveries, rotations) = {
            let mut world = lock(&self.0.world);
            world.advance(now);
            let seen = look(&mut world, now);
            (seen, deliveries(&mut world, now), std::mem::take(&mut world.secrets.rotations))
        };
        self.deliver(deliveries);
        rotations.into_iter().for_each(|due| _ = tokio::spawn(rotation::carry_out(self.clone(), due)));
        seen
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *lock(&self.0.calls))
    }

    /// The events that were on the bus since the last time this was asked.
    pub fn take_events(&self) -> Vec<events::BusEvent> {
        std::mem::take(&mut lock(&self.0.world).events.log)
    }

    /// The invocations that ended since the last time this was asked.
    pub fn take_invocations(&self) -> Vec<lambda::Invocation> {
        std::mem::take(&mut lock(&self.0.world).lambda.log)
    }

    /// A function has written this line to its log.
    pub fn log(&self, line: &str) {
        let now = self.now();
        lock(&self.0.world).cloudwatch.log(now, line);
    }

    /// Puts any event on the bus, even one of AWS's own; the answer names the functions it is delivered to.
    pub fn put_event(&self, event: Value) -> Vec<String> {
        self.world(|world, _| {
            let functions = world.events.deliveries(&event).into_iter().map(|(function, _)| function).collect();
            world.put(event);
            functions
        })
    }

    /// Spoils calls by `plan` from now on, or none.
    pub fn set_faults(&self, plan: Option<FaultPlan>) {
        *lock(&self.0.faults) = plan;
    }

    /// Spoils deliveries by `plan` from now on, or none.
    pub fn set_deliveries(&self, plan: Option<DeliveryPlan>) {
        *lock(&self.0.deliveries) = plan;
    }

    /// Returns when a call met [`Fault::Crash`].
    pub async fn hung(&self) {
        self.0.hung.notified().await;
    }

    /// One call of a user, without an SDK: `action` such as `acm:RequestCertificate`, and its input as it stands on the wire.
    pub async fn call(&self, action: &str, input: Value) -> Result<Value, AwsError> {
        self.call_as("user", action, input).await
    }

    /// As [`call`](Self::call), with the role of a function.
    pub async fn call_as(&self, caller: &str, action: &str, input: Value) -> Result<Value, AwsError> {
        let (service, operation) = action.split_once(':').unwrap_or_default();
        let known =
            ["acm", "acm-pca", "dynamodb", "ecs", "elasticloadbalancing", "events", "lambda", "s3", "secretsmanager", "sqs"];
        let known = known.into_iter().find(|known| *known == service);
        let service = known.ok_or_else(|| AwsError::unknown_operation(service, operation))?;
        self.serve(caller, service, operation, input).await.map_err(|no_answer| match no_answer {
            NoAnswer::Error(error) => error,
            NoAnswer::ConnectionReset => AwsError::internal(),
        })
    }

    /// Answers one call as the service would.
    pub(crate) async fn serve(
        &self,
        caller: &str,
        service: &'static str,
        operation: &str,
        input: Value,
    ) -> Result<Value, NoAnswer> {
        let (caller, operation) = (caller.to_owned(), operation.to_owned());
        let mut call = Call { at: self.now(), caller, service, operation, input, needs: Vec::new(), error: None };
        let fault = lock(&self.0.faults).as_mut().and_then(|plan| plan(&call));
        match fault {
            Some(Fault::Reset) => return Err(NoAnswer::ConnectionReset),
            Some(Fault::Hang) => std::future::pending().await,
            _ => {}
        }
        if !self.0.latency.is_zero() {
            tokio::time::sleep(self.0.latency).await;
        }
        let allowed = {
            let world = lock(&self.0.world);
            call.needs = iam::needs(&world, service, &call.operation, &call.input);
            iam::check(&world, &call.caller, &call.needs)
        };
        let answer = match &fault {
            Some(Fault::Refuse(error)) => Err(error.clone()),
            _ if !lock(&self.0.quotas).admits(service, &call.operation, self.now()) => Err(AwsError::throttled_by(service)),
            _ => match allowed {
                Err(denied) => Err(denied),
                Ok(()) if service == "lambda" => lambda::call(self, &call.operation, &call.input).await,
                Ok(()) => self.world(|world, now| answer(world, now, service, &call.operation, &call.input)),
            },
        };
        let answer = answer.map(|answer| {
            let before = question(&call).and_then(|question| lock(&self.0.listed).insert(question, answer.clone()));
            before.filter(|_| matches!(fault, Some(Fault::Stale))).unwrap_or(answer)
        });
        call.at = self.now();
        call.error = answer.as_ref().err().map(|error| error.code.clone());
        lock(&self.0.calls).push(call);
        match fault {
            Some(Fault::LoseAnswer) => Err(NoAnswer::ConnectionReset),
            Some(Fault::Answer(instead)) => answer.map(|_| instead).map_err(NoAnswer::Error),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                answer.map_err(NoAnswer::Error)
            }
            Some(Fault::Crash) => {
                if !lambda::crash() {
                    self.0.hung.notify_one();
                }
                std::future::pending().await
            }
            _ => answer.map_err(NoAnswer::Error),
        }
    }

    /// Each delivery is an asynchronous invocation of its own.
    fn deliver(&self, deliveries: Vec<(String, Value)>) {
        for (function, payload) in deliveries {
            let delays = match lock(&self.0.deliveries).as_mut() {
                Some(plan) => plan(&payload, &function),
                None => vec![Duration::ZERO],
            };
            for delay in delays {
                let invocation = lambda::invoke_later(self.clone(), function.clone(), payload.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    invocation.await;
                });
            }
        }
    }
}

/// What the rules make of the events on the bus, and what the schedules ask for.
fn deliveries(world: &mut World, now: OffsetDateTime) -> Vec<(String, Value)> {
    let mut all = world.take_invocations();
    for event in world.take_outbox() {
        world.events.tell(&event);
        let deliveries = world.events.deliveries(&event);
        let functions = deliveries.iter().map(|(function, _)| function.clone()).collect();
        all.extend(deliveries);
        world.events.log.push(events::BusEvent { at: now, event, functions });
    }
    all
}

/// What was asked, where [`Fault::Stale`] has an answer to it.
fn question(call: &Call) -> Option<String> {
    match call.operation.as_str() {
        "ListCertificates" | "ListSecrets" | "ListTagsForCertificate" => Some(format!("{} {}", call.operation, call.input)),
        "GetCertificate" => Some(call.action()),
        _ => None,
    }
}

fn answer(world: &mut World, now: OffsetDateTime, service: &str, operation: &str, input: &Value) -> Result<Value, AwsError> {
    let now = world.clock(service, now);
    match service {
        "acm" => acm::call(world, now, operation, input),
        "acm-pca" => pca::call(world, now, operation, input),
        "dynamodb" => dynamodb::call(world, now, operation, input),
        "ecs" => ecs::call(world, now, operation, input),
        "elasticloadbalancing" => elbv2::call(world, now, operation, input),
        "events" => events::call(world, now, operation, input),
        "s3" => s3::call(world, now, operation, input),
        "secretsmanager" => secrets::call(world, now, operation, input),
        "sqs" => sqs::call(world, now, operation, input),
        _ => Err(AwsError::unknown_operation(service, operation)),
    }
}

/// Lets time pass in the account: sleeps until the next timer, or until a call may have set an earlier one.
async fn drive(aws: LocalAws) {
    loop {
        match aws.world_now(|world, _| world.next_timer()) {
            Some(when) => tokio::select! {
                () = tokio::time::sleep_until(aws.0.clock.instant(when)) => {}
                () = aws.0.wake.notified() => {}
            },
            None => aws.0.wake.notified().await,
        }
    }
}

/// A poisoned lock means that a test has already failed; what it holds is still worth looking at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
