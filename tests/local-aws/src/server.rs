//! The HTTP side, on 127.0.0.1: AWS's own protocols, Lambda's Runtime API under `/_runtime/`, and `POST` of
//! `/_local/event`, `/_local/handshake` and `/_local/parameters`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::processes::Processes;
use crate::wire::{self, Reply};
use crate::{LocalAws, NoAnswer, elbv2};

pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    site: Arc<Site>,
}

/// Updates the stack to these parameters, or says why not.
type Update = Box<dyn Fn(Vec<(String, String)>) -> Result<(), String> + Send + Sync>;

struct Site {
    aws: LocalAws,
    update: OnceLock<Update>,
    processes: Processes,
    requests: AtomicU64,
}

impl Server {
    /// Port 0 takes a free one.
    pub async fn bind(aws: LocalAws, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        aws.world(|world, _| {
            world.sqs.endpoint = format!("http://{address}");
            world.s3.endpoint = Some(format!("http://{address}"));
        });
        let site = Site { aws, update: OnceLock::new(), processes: Processes::new(address), requests: AtomicU64::new(0) };
        Ok(Self { listener, address, site: Arc::new(site) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn processes(&self) -> &Processes {
        &self.site.processes
    }

    /// What `/_local/parameters` does.
    pub fn on_update(&self, update: impl Fn(Vec<(String, String)>) -> Result<(), String> + Send + Sync + 'static) {
        // There is one stack, and it is deployed once.
        drop(self.site.update.set(Box::new(update)));
    }

    /// Answers until it is dropped.
    pub async fn run(self) -> io::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            tokio::spawn(converse(stream, self.site.clone()));
        }
    }
}

async fn converse(stream: TcpStream, site: Arc<Site>) {
    // Without it a small reply waits for the acknowledgement of the one before. It fails only on a connection that is gone.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| site.answer(request));
    // A connection that breaks concerns its client alone, and breaking one is how a lost answer is shown.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Site {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = head.uri.path();
        let reply = if let Some(path) = path.strip_prefix("/_runtime/") {
            self.processes.answer(path, &body).await
        } else if path == "/_local/event" {
            self.event(&body)
        } else if path == "/_local/handshake" {
            self.handshake(&body)
        } else if path == "/_local/parameters" {
            self.parameters(&body)
        } else {
            let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
            let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let query = head.uri.query().unwrap_or_default();
            let request = wire::Request { method: head.method.as_str(), host, path, query, headers, body: &body };
            match wire::reply(&self.aws, &self.caller(&head.headers), request).await {
                Ok(reply) => reply,
                Err(NoAnswer::Error(error)) => return Err(io::Error::other(error.message)),
                Err(NoAnswer::ConnectionReset) => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        };
        let mut response = Response::builder().status(reply.status);
        for (name, value) in reply.headers {
            response = response.header(name, value);
        }
        let serial = self.requests.fetch_add(1, Ordering::Relaxed);
        response = response.header("x-amzn-requestid", format!("00000000-0000-4000-8000-{serial:012x}"));
        response.body(Full::from(reply.body)).map_err(io::Error::other)
    }

    /// Any event of `events/`, even one of AWS's own, which `PutEvents` refuses.
    fn event(&self, body: &[u8]) -> Reply {
        match serde_json::from_slice::<Value>(body) {
            Ok(event) if event["source"].is_string() && event["detail-type"].is_string() => {
                json_reply(200, &json!({"functions": self.aws.put_event(event)}))
            }
            Ok(_) => json_reply(400, &json!({"message": "this is not an event: it needs a source and a detail-type"})),
            Err(error) => json_reply(400, &json!({"message": format!("this is not JSON: {error}")})),
        }
    }

    /// What a load balancer would log of a client that sends the chain to the listener.
    fn handshake(&self, body: &[u8]) -> Reply {
        let input: Value = serde_json::from_slice(body).unwrap_or_default();
        let (Some(listener_arn), Some(chain)) = (input["listener_arn"].as_str(), input["chain"].as_str()) else {
            let message = "a handshake is JSON with listener_arn and chain, which is PEM or empty";
            return json_reply(400, &json!({"message": message}));
        };
        match self.aws.world(|world, now| elbv2::tls_verify_status(world, now, listener_arn, chain)) {
            Ok(status) => json_reply(200, &json!({"tls_verify_status": status})),
            Err(error) => json_reply(error.status, &json!({"message": error.message})),
        }
    }

    /// The stack's parameters from now on, besides those that it was started with.
    fn parameters(&self, body: &[u8]) -> Reply {
        let given: BTreeMap<String, String> = match serde_json::from_slice(body) {
            Ok(given) => given,
            Err(error) => return json_reply(400, &json!({"message": format!("parameters are JSON, names with texts: {error}")})),
        };
        let updated =
            self.update.get().map_or_else(|| Err("there is no stack".to_owned()), |update| update(given.into_iter().collect()));
        match updated {
            Ok(()) => json_reply(200, &json!({"status": "UPDATE_COMPLETE"})),
            Err(message) => json_reply(400, &json!({"message": message})),
        }
    }

    /// Whose access key signed: a function's process signs with the function's name.
    fn caller(&self, headers: &HeaderMap) -> String {
        let signature = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let key = signature.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        let known = self.aws.world(|world, _| world.lambda.functions.contains_key(key));
        if known { key.to_owned() } else { "user".to_owned() }
    }
}

fn json_reply(status: u16, answer: &Value) -> Reply {
    Reply { status, headers: vec![("content-type", "application/json".into())], body: answer.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use time::macros::datetime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::lambda::{Runner, runner};
    use crate::template::{Template, tests::TEMPLATE};

    /// Deploys the test template's function, which `handler` runs.
    async fn served(handler: impl Fn(&Processes, &Template) -> Runner) -> (LocalAws, SocketAddr) {
        let template = Template::parse(&TEMPLATE.replace("rate(1 hour)", "cron(0 0 1 1 ? 2099)"), "demo", &[]).unwrap();
        let aws = LocalAws::new(datetime!(2026-11-22 06:00 UTC), Duration::ZERO);
        let server = Server::bind(aws.clone(), 0).await.unwrap();
        let address = server.address();
        aws.deploy(&template, |_| handler(server.processes(), &template)).unwrap();
        tokio::spawn(server.run());
        (aws, address)
    }

    /// The head and the body of the answer; both empty when the connection broke.
    async fn send(address: SocketAddr, request: &str, headers: &str, body: &str) -> (String, Value) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let text =
            format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    #[tokio::test]
    async fn the_json_protocol_names_the_operation_in_a_header_and_the_caller_in_the_signature() {
        let (aws, address) = served(|_, _| runner(|_, _| async { Ok(Value::Null) })).await;
        let signed =
            |key: &str| format!("authorization: AWS4-HMAC-SHA256 Credential={key}/20261122/eu-central-1/events/aws4_request\r\n");
        let list = "x-amz-target: AWSEvents.ListRules\r\n";
        let (head, body) = send(address, "POST /", &(list.to_owned() + &signed("everleaf-renew")), "{}").await;
        assert!(head.starts_with("http/1.1 400"), "{head}");
        assert_eq!(body["__type"], "AccessDeniedException", "its role does not have it: {body}");
        let (head, body) = send(address, "POST /", list, "{}").await;
        assert!(
            head.starts_with("http/1.1 200") && head.contains("x-amz-json-1.1") && head.contains("x-amzn-requestid"),
            "{head}"
        );
        assert_eq!(body["Rules"].as_array().unwrap().len(), 1);
        let (head, body) = send(address, "POST /", "x-amz-target: AWSEvents.Nothing\r\n", "").await;
        assert!(head.starts_with("http/1.1 400"), "{head}");
        assert_eq!(body["__type"], "UnknownOperationException");
        let queues = "x-amz-target: AmazonSQS.ListQueues\r\n".to_owned() + &signed("AKIA1");
        let (head, _) = send(address, "POST /", &queues, "{}").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("x-amz-json-1.0"), "{head}");
        let callers: Vec<String> = aws.take_calls().into_iter().map(|call| call.caller).collect();
        assert_eq!(callers, ["everleaf-renew", "user", "user", "user"]);
    }

    #[tokio::test]
    async fn a_lost_answer_is_a_broken_connection() {
        let (aws, address) = served(|_, _| runner(|_, _| async { Ok(Value::Null) })).await;
        aws.set_faults(Some(Box::new(|_| Some(crate::Fault::LoseAnswer))));
        assert_eq!(send(address, "POST /", "x-amz-target: AWSEvents.ListRules\r\n", "{}").await, (String::new(), Value::Null));
        assert_eq!(aws.take_calls().len(), 1);
    }

    #[tokio::test]
    async fn lambda_answers_over_rest_and_any_event_can_be_put_on_the_bus() {
        let handler = |event: Value, _| async move {
            if event["fail"].is_null() { Ok(event) } else { Err(crate::lambda::FunctionError::new("Permanent", "told to")) }
        };
        let (aws, address) = served(|_, _| runner(handler)).await;
        let invoke = "POST /2015-03-31/functions/everleaf-renew/invocations";
        let (head, body) = send(address, invoke, "", r#"{"a":1}"#).await;
        assert!(head.starts_with("http/1.1 200") && !head.contains("x-amz-function-error"), "{head}");
        assert_eq!(body, json!({"a": 1}));
        let (head, body) = send(address, invoke, "", r#"{"fail":1}"#).await;
        assert!(head.starts_with("http/1.1 200") && head.contains("x-amz-function-error: unhandled"), "{head}");
        assert_eq!(body, json!({"errorType": "Permanent", "errorMessage": "told to"}));
        let (head, _) = send(address, invoke, "x-amz-invocation-type: Event\r\n", "{}").await;
        assert!(head.starts_with("http/1.1 202"), "{head}");
        let (head, _) = send(address, &invoke.replace("renew", "other"), "", "{}").await;
        assert!(head.starts_with("http/1.1 404") && head.contains("x-amzn-errortype: resourcenotfoundexception"), "{head}");
        let event = json!({"source": "aws.acm", "detail-type": "ACM Certificate Expired"}).to_string();
        let (_, body) = send(address, "POST /_local/event", "", &event).await;
        assert_eq!(body, json!({"functions": ["everleaf-renew"]}));
        assert!(send(address, "POST /_local/event", "", "{}").await.0.starts_with("http/1.1 400"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(aws.take_invocations().len(), 4);
    }

    #[tokio::test]
    async fn a_handshake_is_asked_for_by_listener_and_chain() {
        let (aws, address) = served(|_, _| runner(|_, _| async { Ok(Value::Null) })).await;
        let listener = aws.world(|world, now| elbv2::create_listener(world, now, "clients", 8443));
        let ask = |input: Value| async move { send(address, "POST /_local/handshake", "", &input.to_string()).await };
        let (head, body) = ask(json!({"listener_arn": listener, "chain": ""})).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, json!({"tls_verify_status": "-"}));
        for input in [json!({"listener_arn": "none", "chain": ""}), json!({"listener_arn": listener}), Value::Null] {
            let (head, body) = ask(input).await;
            assert!(head.starts_with("http/1.1 400") && body["message"].is_string(), "{head}");
        }
    }

    #[tokio::test]
    async fn parameters_are_given_by_name_to_what_updates_the_stack() {
        let aws = LocalAws::new(datetime!(2026-11-22 06:00 UTC), Duration::ZERO);
        let server = Server::bind(aws, 0).await.unwrap();
        let address = server.address();
        server.on_update(|given| if given[0].0 == "Prefix" { Ok(()) } else { Err(format!("there is no {}", given[0].0)) });
        tokio::spawn(server.run());
        let update = |body: &'static str| send(address, "POST /_local/parameters", "", body);
        assert_eq!(update(r#"{"Prefix": "other"}"#).await.1, json!({"status": "UPDATE_COMPLETE"}));
        for (body, why) in [(r#"{"Size": "1"}"#, "there is no Size"), (r#"{"Prefix": 1}"#, "names with texts"), ("x", "JSON")] {
            let (head, answer) = update(body).await;
            assert!(head.starts_with("http/1.1 400") && answer["message"].as_str().unwrap().contains(why), "{head} {answer}");
        }
    }

    /// The script does in bash what `lambda_runtime` does.
    #[tokio::test]
    async fn a_process_is_handed_invocations_by_the_runtime_api() {
        let script = write_script(
            "runtime",
            r#"#!/bin/bash
server=${AWS_LAMBDA_RUNTIME_API#http://}; path=/${server#*/}/2018-06-01/runtime; server=${server%%/*}
call() {
    exec 3<>/dev/tcp/${server/:/\/}
    printf '%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s' "$1" "$path$2" ${#3} "$3" >&3
    cat <&3
}
echo "starting as $AWS_ACCESS_KEY_ID"
while answer=$(call GET /invocation/next ""); do
    id=$(echo "$answer" | tr -d '\r' | sed -n 's/^lambda-runtime-aws-request-id: //p')
    deadline=$(echo "$answer" | tr -d '\r' | sed -n 's/^lambda-runtime-deadline-ms: //p')
    case "$answer" in
        *fail*) call POST "/invocation/$id/error" '{"errorType":"Permanent","errorMessage":"told to"}' >/dev/null ;;
        *hang*) exec sleep 60 ;;
        *exit*) exit 3 ;;
        *) call POST "/invocation/$id/response" "{\"pid\":$$,\"deadline\":$deadline,\"table\":\"$TABLE\"}" >/dev/null ;;
    esac
done
"#,
        );
        let (aws, address) = served(|processes, template| processes.runner(&template.functions[0], script.clone())).await;
        let invoke = |body: &'static str| send(address, "POST /2015-03-31/functions/everleaf-renew/invocations", "", body);
        let (_, first) = invoke("{}").await;
        assert!(first["table"].as_str().unwrap().starts_with("demo-Table-"), "{first}");
        let deadline = (aws.now() + Duration::from_secs(2)).unix_timestamp() * 1000;
        assert!((deadline - first["deadline"].as_i64().unwrap()).abs() < 2000, "{first}");
        assert_eq!(invoke(r#"{"fail":1}"#).await.1, json!({"errorType": "Permanent", "errorMessage": "told to"}));
        assert_eq!(invoke("{}").await.1["pid"], first["pid"], "the process stays");
        let (_, ended) = invoke(r#"{"exit":1}"#).await;
        assert_eq!(ended["errorType"], "Runtime.ExitError", "{ended}");
        let (_, second) = invoke("{}").await;
        assert_ne!(second["pid"], first["pid"]);
        assert_eq!(invoke(r#"{"hang":1}"#).await.1["errorType"], "Sandbox.Timedout");
        let timed_out = format!("/proc/{}", second["pid"]);
        for _ in 0..100 {
            if Path::new(&timed_out).exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(!Path::new(&timed_out).exists(), "a process that timed out is ended");
        let (one, other) = tokio::join!(invoke(r#"{"a":1}"#), invoke(r#"{"a":2}"#));
        assert_ne!(one.1["pid"], other.1["pid"], "two at once take two processes");
        std::fs::remove_file(script).unwrap();
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there_is_a_function_error() {
        let (_, address) = served(|processes, template| processes.runner(&template.functions[0], "/nowhere/renew".into())).await;
        let (_, body) = send(address, "POST /2015-03-31/functions/everleaf-renew/invocations", "", "{}").await;
        assert_eq!(body["errorType"], "Runtime.InvalidEntrypoint");
    }

    fn write_script(name: &str, text: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("local-aws-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}
