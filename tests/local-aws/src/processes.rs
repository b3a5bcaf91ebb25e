//! The functions' real binaries, run as Lambda runs them: over the Runtime API, one invocation at a time in each process.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::lambda::{self, Context, FunctionError, Runner};
use crate::wire::Reply;
use crate::{REGION, lock, template};

/// More invocations of one function at once wait for a free process.
const MOST_PROCESSES: usize = 4;

/// The processes that call one server.
#[derive(Clone)]
pub struct Processes(Arc<Inner>);

struct Inner {
    server: SocketAddr,
    sandboxes: Mutex<HashMap<u64, Arc<Sandbox>>>,
    serial: AtomicU64,
}

/// A process as the Runtime API sees it.
struct Sandbox {
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>,
    running: Mutex<Option<(String, oneshot::Sender<Outcome>)>>,
    init_error: Mutex<Option<FunctionError>>,
}

struct Waiting {
    payload: Value,
    context: Context,
    function_arn: String,
    answer: oneshot::Sender<Outcome>,
}

type Outcome = Result<Value, FunctionError>;

impl Processes {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self(Arc::new(Inner { server, sandboxes: Mutex::default(), serial: AtomicU64::new(0) }))
    }

    /// Runs a function's binary, from its first invocation on. Its processes end with the runner.
    pub fn runner(&self, function: &Arc<template::Function>, binary: PathBuf) -> Runner {
        let (processes, function) = (self.clone(), function.clone());
        let (idle, free) = (Mutex::default(), Semaphore::new(MOST_PROCESSES));
        let pool = Arc::new(Pool { processes, function, binary, idle, free });
        lambda::runner(move |payload, context| pool.clone().invoke(payload, context))
    }

    /// Answers the Runtime API; `path` is what follows `/_runtime/`.
    pub(crate) async fn answer(&self, path: &str, body: &[u8]) -> Reply {
        let parts: Vec<&str> = path.split('/').collect();
        let [_, process, "2018-06-01", "runtime", call @ ..] = parts.as_slice() else { return refusal(404, "no such path") };
        let sandbox = process.parse().ok().and_then(|id: u64| lock(&self.0.sandboxes).get(&id).cloned());
        let Some(sandbox) = sandbox else { return refusal(410, "this process was given up") };
        match call {
            ["invocation", "next"] => sandbox.next().await,
            ["invocation", id, "response"] => sandbox.finish(id, response(body)),
            ["invocation", id, "error"] => sandbox.finish(id, Err(error(body))),
            ["init", "error"] => {
                *lock(&sandbox.init_error) = Some(error(body));
                accepted()
            }
            _ => refusal(404, "no such path"),
        }
    }

    fn sandbox(&self) -> (u64, Arc<Sandbox>, mpsc::UnboundedSender<Waiting>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let id = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let (running, init_error) = (Mutex::default(), Mutex::default());
        let sandbox = Arc::new(Sandbox { waiting: tokio::sync::Mutex::new(waiting), running, init_error });
        lock(&self.0.sandboxes).insert(id, sandbox.clone());
        (id, sandbox, queue)
    }
}

impl Sandbox {
    async fn next(&self) -> Reply {
        let Some(Waiting { payload, context, function_arn, answer }) = self.waiting.lock().await.recv().await else {
            return refusal(410, "this process was given up");
        };
        let deadline = context.deadline.unix_timestamp_nanos() / 1_000_000;
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("lambda-runtime-aws-request-id", context.request_id.clone()),
            ("lambda-runtime-deadline-ms", deadline.to_string()),
            ("lambda-runtime-invoked-function-arn", function_arn),
            ("lambda-runtime-trace-id", trace(&context)),
        ];
        *lock(&self.running) = Some((context.request_id, answer));
        Reply { status: 200, headers, body: payload.to_string().into_bytes() }
    }

    fn finish(&self, request_id: &str, outcome: Outcome) -> Reply {
        match lock(&self.running).take_if(|(running, _)| running == request_id) {
            // Nobody listens any more when the invocation timed out in this moment.
            Some((_, answer)) => answer.send(outcome).map_or_else(|_| accepted(), |()| accepted()),
            None => refusal(400, "no such invocation is running"),
        }
    }
}

/// The processes of one function.
struct Pool {
    processes: Processes,
    function: Arc<template::Function>,
    binary: PathBuf,
    idle: Mutex<Vec<Process>>,
    free: Semaphore,
}

/// Ends with this value: an invocation that is dropped at its deadline takes its process with it, as in Lambda.
struct Process {
    child: Child,
    queue: mpsc::UnboundedSender<Waiting>,
    sandbox: Arc<Sandbox>,
    id: u64,
    processes: Processes,
}

impl Drop for Process {
    fn drop(&mut self) {
        lock(&self.processes.0.sandboxes).remove(&self.id);
    }
}

impl Pool {
    async fn invoke(self: Arc<Self>, payload: Value, context: Context) -> Outcome {
        let _permit = self.free.acquire().await.map_err(|closed| FunctionError::new("Runtime.Closed", closed.to_string()))?;
        let mut process = match self.idle() {
            Some(process) => process,
            None => self.start()?,
        };
        let (answer, mut answered) = oneshot::channel();
        let invocation = Waiting { payload, context, function_arn: self.function.arn.clone(), answer };
        process.queue.send(invocation).map_err(|_| FunctionError::new("Runtime.ExitError", "the process was given up"))?;
        let outcome = tokio::select! {
            biased;
            Ok(outcome) = &mut answered => outcome,
            ended = process.child.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                let init_error = lock(&process.sandbox.init_error).take();
                let exit = || FunctionError::new("Runtime.ExitError", format!("Runtime exited without answering: {how}"));
                return Err(init_error.unwrap_or_else(exit));
            }
        };
        lock(&self.idle).push(process);
        outcome
    }

    fn idle(&self) -> Option<Process> {
        let mut idle = lock(&self.idle);
        idle.retain_mut(|process| matches!(process.child.try_wait(), Ok(None)));
        idle.pop()
    }

    fn start(&self) -> Result<Process, FunctionError> {
        let (id, sandbox, queue) = self.processes.sandbox();
        let (function, server) = (&self.function, self.processes.0.server);
        // Lambda gives host and port alone; `lambda_runtime` takes a path as well when the scheme is there.
        let runtime_api = format!("http://{server}/_runtime/{}/{id}", function.name);
        #[expect(clippy::disallowed_methods, reason = "Local AWS has no X-Ray; whoever starts it may have one")]
        let daemon = std::env::var_os("AWS_XRAY_DAEMON_ADDRESS").map(|address| ("AWS_XRAY_DAEMON_ADDRESS", address));
        let started = Command::new(&self.binary)
            .env_clear()
            .envs(&function.environment)
            .envs(daemon)
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory.to_string())
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ENDPOINT_URL", format!("http://{server}"))
            // The server tells by the key who is calling; it checks no signature.
            .env("AWS_ACCESS_KEY_ID", &function.name)
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the server, which ends its processes itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = started.map_err(|error| {
            lock(&self.processes.0.sandboxes).remove(&id);
            FunctionError::new("Runtime.InvalidEntrypoint", format!("cannot start {}: {error}", self.binary.display()))
        })?;
        tokio::spawn(pass_on(child.stdout.take(), function.binary.clone()));
        tokio::spawn(pass_on(child.stderr.take(), function.binary.clone()));
        Ok(Process { child, queue, sandbox, id, processes: self.processes.clone() })
    }
}

/// A trace of its own for each invocation, all of them sampled:
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>.
fn trace(context: &Context) -> String {
    let digits = context.request_id.replace('-', "");
    let (began, (parent, rest)) = (context.deadline.unix_timestamp(), digits.split_at(digits.len() / 2));
    format!("Root=1-{began:08x}-{parent}{};Parent={parent};Sampled=1", &rest[..rest.len() / 2])
}

/// Shows what a function logs, behind its name.
async fn pass_on(output: Option<impl AsyncRead + Unpin>, name: String) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name} | {line}");
    }
}

fn response(body: &[u8]) -> Outcome {
    serde_json::from_slice(body).map_err(|error| FunctionError::new("Runtime.InvalidResponse", error.to_string()))
}

fn error(body: &[u8]) -> FunctionError {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |member: &str| error[member].as_str().unwrap_or("Unknown");
    FunctionError::new(text("errorType"), text("errorMessage"))
}

fn accepted() -> Reply {
    Reply { status: 202, headers: vec![], body: json!({"status": "OK"}).to_string().into_bytes() }
}

fn refusal(status: u16, message: &str) -> Reply {
    let body = json!({"errorType": "InvalidRequest", "errorMessage": message});
    Reply { status, headers: vec![], body: body.to_string().into_bytes() }
}
