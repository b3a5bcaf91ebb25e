//! The query protocol, which Elastic Load Balancing alone still speaks here: a form comes in, XML goes out.
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>

use serde_json::{Value, json};

use super::xml::{Lists, content, document};
use super::{Call, Reply, Request, parameters};
use crate::AwsError;

const VERSION: &str = "2015-12-01";

/// Members that are no text in the API's model.
const BOOLEANS: &[&str] = &["Enabled", "IgnoreClientCertificateExpiry", "IsDefault", "UseExistingClientSecret"];
const INTEGERS: &[&str] =
    &["DurationSeconds", "Order", "PageSize", "Port", "RevocationId", "RevocationIds", "SessionTimeout", "Weight"];

/// More items in one list of a request are none of ours.
const MOST_ITEMS: usize = 1000;

pub(super) fn speaks(request: &Request<'_>) -> bool {
    let form = request.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    form && parameters(&String::from_utf8_lossy(request.body)).iter().any(|(name, _)| name == "Action")
}

pub(super) fn call(request: &Request<'_>) -> Call {
    let (mut operation, mut version, mut input) = (String::new(), String::new(), json!({}));
    for (name, value) in parameters(&String::from_utf8_lossy(request.body)) {
        match name.as_str() {
            "Action" => operation = value,
            "Version" => version = value,
            _ => {
                let path: Vec<&str> = name.split('.').collect();
                let member = path.iter().rfind(|part| **part != "member" && part.parse::<usize>().is_err());
                insert(&mut input, &path, scalar(member.unwrap_or(&""), value)?)?;
            }
        }
    }
    if version != VERSION {
        return Err(AwsError::new("InvalidAction", format!("Could not find operation {operation} for version {version}")));
    }
    Ok(("elasticloadbalancing", operation, input))
}

/// `A.member.1.B=c` is `{"A": [{"B": "c"}]}`.
fn insert(into: &mut Value, path: &[&str], value: Value) -> Result<(), AwsError> {
    match path {
        [] => *into = value,
        ["member", place, rest @ ..] => {
            let place = place.parse().ok().filter(|place| (1..=MOST_ITEMS).contains(place));
            let place: usize = place.ok_or_else(|| malformed(format!("{} is not a place in a list", path.join("."))))?;
            if !into.is_array() {
                *into = json!([]);
            }
            if let Some(items) = into.as_array_mut() {
                items.resize(items.len().max(place), Value::Null);
                insert(&mut items[place - 1], rest, value)?;
            }
        }
        [name, rest @ ..] => {
            if !into.is_object() {
                *into = json!({});
            }
            insert(&mut into[*name], rest, value)?;
        }
    }
    Ok(())
}

fn scalar(member: &str, value: String) -> Result<Value, AwsError> {
    let typed = if BOOLEANS.contains(&member) {
        value.parse::<bool>().ok().map(Value::from)
    } else if INTEGERS.contains(&member) && !value.is_empty() {
        value.parse::<i64>().ok().map(Value::from)
    } else {
        return Ok(Value::from(value));
    };
    typed.ok_or_else(|| malformed(format!("{value} does not fit {member}")))
}

fn malformed(message: String) -> AwsError {
    AwsError::new("MalformedInput", message)
}

pub(super) fn answer(operation: &str, output: &Value) -> Reply {
    let result = content(output, Lists::Members);
    let text = format!(
        "<{operation}Response xmlns=\"{}\"><{operation}Result>{result}</{operation}Result>{}</{operation}Response>",
        namespace(),
        "<ResponseMetadata><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ResponseMetadata>",
    );
    Reply { status: 200, headers: vec![("content-type", "text/xml".into())], body: document(&text) }
}

pub(super) fn refusal(error: &AwsError) -> Reply {
    let kind = if error.status < 500 { "Sender" } else { "Receiver" };
    let error_content = content(&json!({"Type": kind, "Code": error.code, "Message": error.message}), Lists::Members);
    let text = format!("<ErrorResponse xmlns=\"{}\"><Error>{error_content}</Error></ErrorResponse>", namespace());
    Reply { status: error.status, headers: vec![("content-type", "text/xml".into())], body: document(&text) }
}

fn namespace() -> String {
    format!("http://elasticloadbalancing.amazonaws.com/doc/{VERSION}/")
}
