//! What ACM and Private CA both read from requests and put into answers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::AwsError;

/// Idempotency tokens that still count, and what each has made.
#[derive(Default)]
pub(crate) struct Tokens(BTreeMap<String, (OffsetDateTime, String)>);

impl Tokens {
    pub(crate) fn recall(&mut self, now: OffsetDateTime, token: &str) -> Option<String> {
        self.0.retain(|_, (until, _)| now < *until);
        self.0.get(token).map(|(_, made)| made.clone())
    }

    pub(crate) fn remember(&mut self, until: OffsetDateTime, token: String, made: &str) {
        self.0.insert(token, (until, made.to_owned()));
    }
}

/// The `IdempotencyToken`, where there is one.
pub(crate) fn token(input: &Value, longest: usize) -> Result<Option<&str>, AwsError> {
    match &input["IdempotencyToken"] {
        Value::Null => Ok(None),
        _ => match text(input, "IdempotencyToken")? {
            token if (1..=longest).contains(&token.len()) => Ok(Some(token)),
            token => Err(constraint("IdempotencyToken", token, &format!("Member must have length between 1 and {longest}"))),
        },
    }
}

pub(crate) fn text<'a>(input: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    input[member].as_str().ok_or_else(|| constraint(member, "null", "Member must not be null"))
}

pub(crate) fn one_of<'a>(input: &'a Value, member: &str, values: &[&str]) -> Result<&'a str, AwsError> {
    let value = text(input, member)?;
    let known = format!("Member must satisfy enum value set: [{}]", values.join(", "));
    if values.contains(&value) { Ok(value) } else { Err(constraint(member, value, &known)) }
}

pub(crate) fn blob(input: &Value, member: &str, sizes: RangeInclusive<usize>) -> Result<Vec<u8>, AwsError> {
    let blob = BASE64.decode(text(input, member)?).map_err(|error| AwsError::new("SerializationException", error.to_string()))?;
    if !sizes.contains(&blob.len()) {
        let sizes = format!("Member must have length between {} and {}", sizes.start(), sizes.end());
        return Err(constraint(member, "****", &sizes));
    }
    Ok(blob)
}

/// The answer of one page: `items`, each with a key that no other has, from behind `NextToken` on.
pub(crate) fn page(member: &str, items: Vec<(String, Value)>, input: &Value) -> Result<Value, AwsError> {
    let size = input["MaxResults"].as_u64().or_else(|| input["MaxItems"].as_u64()).unwrap_or(100);
    if !(1..=1000).contains(&size) {
        return Err(invalid("The size of a page must be between 1 and 1000."));
    }
    let start = match input["NextToken"].as_str() {
        None => 0,
        Some(token) => match items.iter().position(|(key, _)| BASE64.encode(key) == token) {
            Some(last) => last + 1,
            None => {
                return Err(AwsError::new(
                    "InvalidNextTokenException",
                    "The token specified in the NextToken argument is not valid.",
                ));
            }
        },
    };
    let mut answer = json!({});
    let end = items.len().min(start + size as usize);
    if end < items.len() {
        answer["NextToken"] = json!(BASE64.encode(&items[end - 1].0));
    }
    answer[member] = items.into_iter().skip(start).take(end - start).map(|(_, item)| item).collect();
    Ok(answer)
}

/// Whether a JSON list holds a text.
pub(crate) fn has(list: &Value, text: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|item| item == text))
}

/// A timestamp of the JSON protocols: seconds, with milliseconds.
pub(crate) fn seconds(at: OffsetDateTime) -> Value {
    json!((at.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0)
}

pub(crate) fn constraint(member: &str, value: &str, constraint: &str) -> AwsError {
    let member: String = member.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_lowercase() } else { c }).collect();
    let value = if value == "null" { "null".to_owned() } else { format!("'{value}'") };
    invalid(format!("1 validation error detected: Value {value} at '{member}' failed to satisfy constraint: {constraint}"))
}

pub(crate) fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("ValidationException", message)
}

pub(crate) fn in_progress(message: &str) -> AwsError {
    AwsError::new("RequestInProgressException", message)
}

pub(crate) fn not_found(message: String) -> AwsError {
    AwsError::new("ResourceNotFoundException", message)
}

pub(crate) fn invalid_arn(arn: &str) -> AwsError {
    AwsError::new("InvalidArnException", format!("The ARN {arn} is not valid."))
}
