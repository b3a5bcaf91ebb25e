//! As much XML as S3 and the query protocol write.

use serde_json::Value;

/// How a list stands inside an element: each item as a `member` of it, or as an element of that name again.
#[derive(Clone, Copy)]
pub(super) enum Lists {
    Members,
    Flat,
}

pub(super) fn element(name: &str, value: &Value, lists: Lists) -> String {
    match (value, lists) {
        (Value::Array(items), Lists::Flat) => items.iter().map(|item| element(name, item, lists)).collect(),
        _ => format!("<{name}>{}</{name}>", content(value, lists)),
    }
}

/// What stands between the tags of an element.
pub(super) fn content(value: &Value, lists: Lists) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(members) => members.iter().map(|(name, value)| element(name, value, lists)).collect(),
        Value::Array(items) => items.iter().map(|item| element("member", item, lists)).collect(),
        Value::String(text) => escaped(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\r', "&#13;")
}

pub(super) fn document(root: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{root}").into_bytes()
}
