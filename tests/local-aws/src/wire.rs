//! What stands on the wire: from a request to a call, and from the answer back to bytes.

use serde_json::{Map, Value, json};

use crate::{AwsError, LocalAws, NoAnswer};

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Without query and host.
    pub(crate) path: &'a str,
    /// The header `X-Amz-Target` of the JSON protocols.
    pub(crate) target: Option<&'a str>,
    /// The header `X-Amz-Invocation-Type` of Lambda.
    pub(crate) invocation_type: Option<&'a str>,
    pub(crate) body: &'a [u8],
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

/// Answers one HTTP request; `Err` where the connection is to break instead.
pub(crate) async fn reply(aws: &LocalAws, caller: &str, request: Request<'_>) -> Result<Reply, NoAnswer> {
    let (content_type, call) = match request.target {
        Some(target) => json_call(target, request.body),
        None => ("application/json", lambda_call(&request)),
    };
    let answer = match call {
        Ok((service, operation, input)) => {
            aws.serve(caller, service, &operation, input).await.map(|output| (operation == "Invoke", output))
        }
        Err(error) => Err(NoAnswer::Error(error)),
    };
    let mut headers = vec![("content-type", content_type.to_owned())];
    match answer {
        Ok((true, mut output)) => {
            for (member, header) in [("FunctionError", "x-amz-function-error"), ("ExecutedVersion", "x-amz-executed-version")] {
                headers.extend(output[member].as_str().map(|value| (header, value.to_owned())));
            }
            let status = output["StatusCode"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or(200);
            let body =
                output.get_mut("Payload").map(Value::take).map_or_else(Vec::new, |payload| payload.to_string().into_bytes());
            Ok(Reply { status, headers, body })
        }
        Ok((false, output)) => Ok(Reply { status: 200, headers, body: output.to_string().into_bytes() }),
        Err(NoAnswer::Error(error)) => {
            headers.push(("x-amzn-errortype", error.code.clone()));
            Ok(Reply { status: error.status, headers, body: error.body().to_string().into_bytes() })
        }
        Err(reset @ NoAnswer::ConnectionReset) => Err(reset),
    }
}

type Call = Result<(&'static str, String, Value), AwsError>;

fn json_call(target: &str, body: &[u8]) -> (&'static str, Call) {
    let (api, operation) = target.rsplit_once('.').unwrap_or((target, ""));
    let Some((_, service, content_type)) = TARGETS.iter().find(|(name, ..)| *name == api) else {
        return (JSON_1_1, Err(AwsError::unknown_operation(api, operation)));
    };
    let input = if body.is_empty() { Ok(Value::Object(Map::new())) } else { serde_json::from_slice(body) };
    let input = input.map_err(|error| AwsError::new("SerializationException", error.to_string()));
    (content_type, input.map(|input| (*service, operation.to_owned(), input)))
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
        input["InvocationType"] = json!(request.invocation_type.unwrap_or("RequestResponse"));
        let payload = if request.body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(request.body) };
        input["Payload"] = payload.map_err(|error| {
            AwsError::new("InvalidRequestContentException", format!("Could not parse request body into json: {error}"))
        })?;
    }
    Ok(("lambda", operation.to_owned(), input))
}
