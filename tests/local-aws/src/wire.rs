//! What stands on the wire: from a request to a call, and from the answer back to bytes.

mod query;
mod s3;
mod xml;

use serde_json::{Map, Value, json};

use crate::{AwsError, LocalAws, NoAnswer};

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Without host and query.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Their names in lower case.
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// `X-Amz-Target` names the service's API and the operation. Of the protocols that a service offers all SDKs choose JSON.
const TARGETS: &[(&str, &str, &str)] = &[
    ("ACMPrivateCA", "acm-pca", JSON_1_1),
    ("AWSEvents", "events", JSON_1_1),
    ("AmazonEC2ContainerServiceV20141113", "ecs", JSON_1_1),
    ("AmazonSQS", "sqs", JSON_1_0),
    ("CertificateManager", "acm", JSON_1_1),
    ("DynamoDB_20120810", "dynamodb", JSON_1_0),
    ("secretsmanager", "secretsmanager", JSON_1_1),
];
const JSON_1_0: &str = "application/x-amz-json-1.0";
const JSON_1_1: &str = "application/x-amz-json-1.1";

/// How a service speaks.
enum Protocol {
    Json { content_type: &'static str },
    Lambda,
    Query,
    S3,
}

/// Answers one HTTP request; `Err` where the connection is to break instead.
pub(crate) async fn reply(aws: &LocalAws, caller: &str, request: Request<'_>) -> Result<Reply, NoAnswer> {
    let (protocol, call) = match request.header("x-amz-target") {
        Some(target) => json_call(target, request.body),
        None if query::speaks(&request) => (Protocol::Query, query::call(&request)),
        None if s3::speaks(&request) => (Protocol::S3, s3::call(&request)),
        None => (Protocol::Lambda, lambda_call(&request)),
    };
    let answer = match call {
        Ok((service, operation, input)) => aws.serve(caller, service, &operation, input).await.map(|output| (operation, output)),
        Err(error) => Err(NoAnswer::Error(error)),
    };
    match (answer, protocol) {
        (Ok((operation, output)), Protocol::Query) => Ok(query::answer(&operation, &output)),
        (Ok((operation, output)), Protocol::S3) => Ok(s3::answer(&operation, &output)),
        (Ok((operation, output)), Protocol::Lambda) if operation == "Invoke" => Ok(invoked(output)),
        (Ok((_, output)), protocol) => {
            let headers = vec![("content-type", protocol.content_type().to_owned())];
            Ok(Reply { status: 200, headers, body: output.to_string().into_bytes() })
        }
        (Err(NoAnswer::Error(error)), Protocol::Query) => Ok(query::refusal(&error)),
        (Err(NoAnswer::Error(error)), Protocol::S3) => Ok(s3::refusal(request.method, &error)),
        (Err(NoAnswer::Error(error)), protocol) => {
            let headers = vec![("content-type", protocol.content_type().to_owned()), ("x-amzn-errortype", error.code.clone())];
            Ok(Reply { status: error.status, headers, body: error.body().to_string().into_bytes() })
        }
        (Err(reset @ NoAnswer::ConnectionReset), _) => Err(reset),
    }
}

impl Protocol {
    fn content_type(&self) -> &'static str {
        if let Self::Json { content_type } = self { content_type } else { "application/json" }
    }
}

fn invoked(mut output: Value) -> Reply {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    for (member, header) in [("FunctionError", "x-amz-function-error"), ("ExecutedVersion", "x-amz-executed-version")] {
        headers.extend(output[member].as_str().map(|value| (header, value.to_owned())));
    }
    let status = output["StatusCode"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or(200);
    let body = output.get_mut("Payload").map(Value::take).map_or_else(Vec::new, |payload| payload.to_string().into_bytes());
    Reply { status, headers, body }
}

type Call = Result<(&'static str, String, Value), AwsError>;

fn json_call(target: &str, body: &[u8]) -> (Protocol, Call) {
    let (api, operation) = target.rsplit_once('.').unwrap_or((target, ""));
    let Some((_, service, content_type)) = TARGETS.iter().find(|(name, ..)| *name == api) else {
        return (Protocol::Json { content_type: JSON_1_1 }, Err(AwsError::unknown_operation(api, operation)));
    };
    let input = if body.is_empty() { Ok(Value::Object(Map::new())) } else { serde_json::from_slice(body) };
    let input = input.map_err(|error| AwsError::new("SerializationException", error.to_string()));
    (Protocol::Json { content_type }, input.map(|input| (*service, operation.to_owned(), input)))
}

/// Lambda's REST API: <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.
fn lambda_call(request: &Request<'_>) -> Call {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let (operation, function) = match (request.method, parts.as_slice()) {
        ("GET", ["2015-03-31", "functions"]) => ("ListFunctions", ""),
        ("GET", ["2015-03-31", "functions", function]) => ("GetFunction", *function),
        ("GET", ["2015-03-31", "functions", function, "configuration"]) => ("GetFunctionConfiguration", *function),
        ("POST", ["2015-03-31", "functions", function, "invocations"]) => ("Invoke", *function),
        (method, _) => {
            let message = format!("Local AWS knows no operation {method} {} without X-Amz-Target", request.path);
            return Err(AwsError { status: 404, ..AwsError::new("UnknownOperationException", message) });
        }
    };
    let mut input = json!({"FunctionName": function.replace("%3A", ":").replace("%24", "$")});
    if operation == "Invoke" {
        input["InvocationType"] = json!(request.header("x-amz-invocation-type").unwrap_or("RequestResponse"));
        let payload = if request.body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(request.body) };
        input["Payload"] = payload.map_err(|error| {
            AwsError::new("InvalidRequestContentException", format!("Could not parse request body into json: {error}"))
        })?;
    }
    Ok(("lambda", operation.to_owned(), input))
}

/// The names and values of a query or a form.
fn parameters(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| decoded(&text.replace('+', " "));
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (plain(name), plain(value))).collect()
}

/// `%41` is `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
