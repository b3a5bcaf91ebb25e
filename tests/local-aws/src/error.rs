use serde_json::{Map, Value, json};

/// An error as AWS puts it on the wire: a code, an HTTP status and a message.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsError {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// Members beside the message, such as DynamoDB's `CancellationReasons`.
    pub members: Map<String, Value>,
}

impl AwsError {
    /// A client error: HTTP 400, as every JSON service of AWS answers, throttling included.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into(), members: Map::new() }
    }

    pub fn throttled() -> Self {
        Self::new("ThrottlingException", "Rate exceeded")
    }

    /// As each service says it: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> for S3.
    pub fn throttled_by(service: &str) -> Self {
        match service {
            "elasticloadbalancing" => Self::new("Throttling", "Rate exceeded"),
            "s3" => Self { status: 503, ..Self::new("SlowDown", "Please reduce your request rate.") },
            _ => Self::throttled(),
        }
    }

    pub fn internal() -> Self {
        Self { status: 500, ..Self::new("InternalServerError", "The request processing has failed because of an unknown error") }
    }

    pub fn unknown_operation(service: &str, operation: &str) -> Self {
        Self::new("UnknownOperationException", format!("Local AWS does not answer {service} {operation}"))
    }

    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.members.insert(member.to_owned(), value);
        self
    }

    /// The body of the JSON protocols. DynamoDB spells the member `message`, the others `message` or `Message`; SDKs read both.
    pub(crate) fn body(&self) -> Value {
        let mut body = self.members.clone();
        body.insert("__type".into(), json!(self.code));
        body.insert("message".into(), json!(self.message));
        Value::Object(body)
    }
}
