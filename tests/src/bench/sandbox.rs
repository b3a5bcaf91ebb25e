//! One process of a function, and the Runtime API that it polls:
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use crate::Outcome;

/// A process that waits for its next event.
pub(crate) struct Sandbox {
    child: Child,
    calls: mpsc::UnboundedReceiver<Call>,
    poll: oneshot::Sender<String>,
    served: u64,
    /// X-Ray's daemon, which gets the calls of each invocation as in Lambda, and does not read them.
    _daemon: UdpSocket,
    /// From the start of the process to its first poll.
    pub(crate) started_in: Duration,
}

/// A request of the process to the Runtime API.
struct Call {
    path: String,
    body: Vec<u8>,
    at: Instant,
    answer: oneshot::Sender<String>,
}

/// What a process has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: u64,
}

impl Sandbox {
    pub(crate) async fn start(program: &[&str], environment: &BTreeMap<String, String>) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).env_clear().envs(environment);
        command.env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string());
        let daemon = UdpSocket::bind(("127.0.0.1", 0))?;
        command.env("AWS_XRAY_DAEMON_ADDRESS", daemon.local_addr()?.to_string());
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        let (calls, mut heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, calls.clone()));
            }
        });
        let first = heard.recv().await.ok_or("the process did not start")?;
        if !first.path.ends_with("/next") {
            return Err(format!("{} failed to start: {}", program.join(" "), String::from_utf8_lossy(&first.body)).into());
        }
        Ok(Self { child, calls: heard, poll: first.answer, served: 0, _daemon: daemon, started_in: first.at - began })
    }

    /// Has the process handle one event; its answer, and the time that it took.
    pub(crate) async fn invoke(&mut self, event: &Value, timeout: Duration) -> Outcome<(Value, Duration)> {
        self.served += 1;
        let body = event.to_string();
        let deadline = crate::account::now() + timeout;
        let (length, id) = (body.len(), self.served);
        let arn = "arn:aws:lambda:eu-central-1:111122223333:function:bench";
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             lambda-runtime-aws-request-id: bench-{id}\r\nlambda-runtime-deadline-ms: {}\r\n\
             lambda-runtime-invoked-function-arn: {arn}\r\n\
             lambda-runtime-trace-id: Root=1-581cf771-a006649127e371903a2de979;Parent=70de5b6f19ff9a0a;Sampled=1\r\n\r\n{body}",
            deadline.unix_timestamp_nanos() / 1_000_000,
        );
        let (nobody, _) = oneshot::channel();
        let began = Instant::now();
        std::mem::replace(&mut self.poll, nobody).send(reply).map_err(|_| "the process has ended")?;
        let answered = self.calls.recv().await.ok_or("the process has ended")?;
        let took = answered.at - began;
        let value = serde_json::from_slice(&answered.body)?;
        accept(answered.answer)?;
        self.poll = self.calls.recv().await.ok_or("the process has ended")?.answer;
        match answered.path.ends_with("/response") {
            true => Ok((value, took)),
            false => Err(format!("{}", json!({"event": event, "error": value})).into()),
        }
    }

    /// What Linux says of the process, which rests meanwhile.
    pub(crate) fn usage(&self) -> Outcome<Usage> {
        let place = Path::new("/proc").join(self.child.id().ok_or("the process has ended")?.to_string());
        let mut cpu = 0;
        for task in place.join("task").read_dir()? {
            let spent = std::fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += spent.split(' ').next().ok_or("schedstat is empty")?.parse::<u64>()?;
        }
        let status = std::fs::read_to_string(place.join("status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("status has no VmHWM")?;
        Ok(Usage { cpu: Duration::from_nanos(cpu), peak_kib: peak.trim().trim_end_matches(" kB").parse()? })
    }

    /// Puts the process into a control group.
    pub(crate) fn join(&self, group: &Path) -> Outcome<()> {
        Ok(std::fs::write(group, self.child.id().ok_or("the process has ended")?.to_string())?)
    }

    /// Ends the process as Lambda does, and waits for it.
    pub(crate) async fn end(mut self) -> Outcome<()> {
        let pid = self.child.id().ok_or("the process has ended")?.to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await?;
        self.child.wait().await?;
        Ok(())
    }
}

fn accept(answer: oneshot::Sender<String>) -> Outcome<()> {
    let accepted = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"status\":\"OK\"}";
    answer.send(accepted.to_owned()).map_err(|_| "the process has hung up".into())
}

async fn converse(stream: TcpStream, calls: mpsc::UnboundedSender<Call>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut length, mut line) = (String::new(), 0, String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1)?.to_owned();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let (answer, answered) = oneshot::channel();
        calls.send(Call { path, body, at: Instant::now(), answer }).ok()?;
        stream.write_all(answered.await.ok()?.as_bytes()).await.ok()?;
    }
}
