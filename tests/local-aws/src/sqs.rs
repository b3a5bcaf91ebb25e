use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{AwsError, World};

/// Amazon SQS, standard queues. A receive never waits for messages, whatever `WaitTimeSeconds` says.
pub struct Sqs {
    /// Where queue URLs point. Of a URL that comes back only the name at its end is looked at.
    pub endpoint: String,
    queues: BTreeMap<String, Queue>,
    serial: u64,
}

struct Queue {
    created_at: OffsetDateTime,
    attributes: BTreeMap<String, String>,
    messages: Vec<Message>,
}

/// A message in a queue, whether a receive would find it now or not.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// As on the wire: `{"DataType": …, "StringValue": …}` by name.
    pub attributes: Map<String, Value>,
    pub sent_at: OffsetDateTime,
    pub visible_at: OffsetDateTime,
    pub receive_count: u32,
    first_received_at: Option<OffsetDateTime>,
}

/// The numbers that can be set, with what AWS takes where nothing is said.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html>
const ATTRIBUTES: &[(&str, &str)] = &[
    ("DelaySeconds", "0"),
    ("MaximumMessageSize", "1048576"),
    ("MessageRetentionPeriod", "345600"),
    ("ReceiveMessageWaitTimeSeconds", "0"),
    ("VisibilityTimeout", "30"),
];

/// What can be set too and means nothing here.
const TEXT_ATTRIBUTES: &[&str] = &["KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "Policy", "SqsManagedSseEnabled"];

impl Default for Sqs {
    fn default() -> Self {
        Self { endpoint: "http://127.0.0.1:4566".into(), queues: BTreeMap::new(), serial: 0 }
    }
}

impl Sqs {
    /// Makes a queue and returns its URL; one that exists is left as it is, and must not differ in an attribute given.
    pub fn create_queue(
        &mut self,
        now: OffsetDateTime,
        queue_arn: &str,
        attributes: &[(&str, &str)],
    ) -> Result<String, AwsError> {
        for (name, value) in attributes {
            let number = ATTRIBUTES.iter().any(|(known, _)| known == name);
            if !number && !TEXT_ATTRIBUTES.contains(name) {
                return Err(AwsError::new("InvalidAttributeName", format!("Unknown Attribute {name}.")));
            }
            if number && value.parse::<u32>().is_err() {
                return Err(AwsError::new("InvalidAttributeValue", format!("Invalid value for the parameter {name}.")));
            }
        }
        if let Some(queue) = self.queues.get(queue_arn) {
            let same = |(name, value): &(&str, &str)| queue.attributes.get(*name).is_some_and(|present| present == value);
            if let Some((name, _)) = attributes.iter().find(|attribute| !same(attribute)) {
                let message = format!("A queue already exists with the same name and a different value for attribute {name}");
                return Err(AwsError::new("QueueNameExists", message));
            }
        } else {
            let all = ATTRIBUTES.iter().chain(attributes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let queue = Queue { created_at: now, attributes: all.collect(), messages: Vec::new() };
            self.queues.insert(queue_arn.to_owned(), queue);
        }
        Ok(self.url(queue_arn))
    }

    /// Sends a message whose attributes are all strings.
    pub fn send(
        &mut self,
        now: OffsetDateTime,
        queue_arn: &str,
        body: &str,
        attributes: &[(&str, &str)],
    ) -> Result<(), AwsError> {
        let wire = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), wire(value))).collect();
        self.deliver(now, queue_arn, body, attributes, None).map(drop)
    }

    /// What a queue holds, oldest first; nothing when there is no such queue.
    pub fn messages(&self, queue_arn: &str) -> &[Message] {
        self.queues.get(queue_arn).map_or(&[], |queue| &queue.messages)
    }

    fn deliver(
        &mut self,
        now: OffsetDateTime,
        queue_arn: &str,
        body: &str,
        attributes: Map<String, Value>,
        delay: Option<u64>,
    ) -> Result<&Message, AwsError> {
        self.serial += 1;
        let hash = md5(format!("{queue_arn} {}", self.serial).as_bytes());
        let id = format!("{}-{}-{}-{}-{}", &hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..]);
        let queue = self.queue(queue_arn)?;
        let longest = queue.number("MaximumMessageSize");
        if body.len() as u64 > longest {
            return Err(invalid(format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {longest} bytes."
            )));
        }
        let visible_at = now + seconds(delay.unwrap_or_else(|| queue.number("DelaySeconds")));
        let (body, receive_count, first_received_at) = (body.to_owned(), 0, None);
        queue.messages.push(Message { id, body, attributes, sent_at: now, visible_at, receive_count, first_received_at });
        Ok(&queue.messages[queue.messages.len() - 1])
    }

    fn queue(&mut self, arn: &str) -> Result<&mut Queue, AwsError> {
        self.queues.get_mut(arn).ok_or_else(|| AwsError::new("QueueDoesNotExist", "The specified queue does not exist."))
    }

    fn url(&self, queue_arn: &str) -> String {
        format!("{}/{}", self.endpoint, queue_arn.split(':').skip(4).collect::<Vec<_>>().join("/"))
    }
}

impl Queue {
    fn number(&self, attribute: &str) -> u64 {
        self.attributes.get(attribute).and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    for queue in world.sqs.queues.values_mut() {
        let oldest = now - seconds(queue.number("MessageRetentionPeriod"));
        queue.messages.retain(|message| message.sent_at > oldest);
    }
    match operation {
        "CreateQueue" => create_queue(world, now, input),
        "GetQueueUrl" => {
            let arn = world.arn("sqs", text(input, "QueueName")?);
            world.sqs.queue(&arn)?;
            Ok(json!({ "QueueUrl": world.sqs.url(&arn) }))
        }
        "ListQueues" => {
            let prefix = world.arn("sqs", input["QueueNamePrefix"].as_str().unwrap_or_default());
            let urls = world.sqs.queues.keys().filter(|arn| arn.starts_with(&prefix)).map(|arn| world.sqs.url(arn));
            Ok(json!({ "QueueUrls": urls.collect::<Vec<_>>() }))
        }
        // AWS moves messages only out of the dead-letter queue of another queue, and there is none here: what EventBridge or
        // Lambda left behind is received, sent on its way again and deleted.
        // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
        "StartMessageMoveTask" => Err(invalid("Source queue must be configured as a Dead Letter Queue.".into())),
        _ => {
            let url = text(input, "QueueUrl")?;
            let arn = world.arn("sqs", url.rsplit('/').next().unwrap_or(url));
            world.sqs.queue(&arn)?;
            call_queue(&mut world.sqs, now, operation, &arn, input)
        }
    }
}

fn call_queue(sqs: &mut Sqs, now: OffsetDateTime, operation: &str, arn: &str, input: &Value) -> Result<Value, AwsError> {
    match operation {
        "GetQueueAttributes" => {
            let mut attributes = attributes(sqs.queue(arn)?, arn, now);
            attributes.retain(|name, _| asked(&input["AttributeNames"], name));
            Ok(json!({ "Attributes": attributes }))
        }
        "SendMessage" => {
            let attributes = input["MessageAttributes"].as_object().cloned().unwrap_or_default();
            let message = sqs.deliver(now, arn, text(input, "MessageBody")?, attributes, input["DelaySeconds"].as_u64())?;
            let mut sent = json!({ "MessageId": message.id, "MD5OfMessageBody": md5(message.body.as_bytes()) });
            if !message.attributes.is_empty() {
                sent["MD5OfMessageAttributes"] = md5_of_attributes(&message.attributes).into();
            }
            Ok(sent)
        }
        "ReceiveMessage" => receive(sqs.queue(arn)?, now, input),
        "DeleteMessage" => {
            let (id, receive_count) = receipt(input)?;
            // A handle of an earlier receive is accepted, and deletes nothing.
            sqs.queue(arn)?.messages.retain(|message| message.id != id || message.receive_count != receive_count);
            Ok(json!({}))
        }
        "ChangeMessageVisibility" => {
            let (id, receive_count) = receipt(input)?;
            let timeout = input["VisibilityTimeout"].as_u64().ok_or_else(|| missing("VisibilityTimeout"))?;
            let mut messages = sqs.queue(arn)?.messages.iter_mut();
            let message = messages.find(|message| message.id == id && message.receive_count == receive_count);
            let message = message.filter(|message| message.visible_at > now);
            let message = message.ok_or_else(|| AwsError::new("MessageNotInflight", "The message is not in flight."))?;
            message.visible_at = now + seconds(timeout);
            Ok(json!({}))
        }
        "PurgeQueue" => {
            sqs.queue(arn)?.messages.clear();
            Ok(json!({}))
        }
        _ => Err(AwsError::unknown_operation("sqs", operation)),
    }
}

fn create_queue(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = text(input, "QueueName")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=80).contains(&name.len()) || !name.chars().all(allowed) {
        return Err(invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length".into()));
    }
    let attributes = input["Attributes"].as_object().into_iter().flatten();
    let attributes: Vec<_> = attributes.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect();
    let arn = world.arn("sqs", name);
    Ok(json!({ "QueueUrl": world.sqs.create_queue(now, &arn, &attributes)? }))
}

fn receive(queue: &mut Queue, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let most = input["MaxNumberOfMessages"].as_u64().unwrap_or(1);
    if !(1..=10).contains(&most) {
        let reason = "Must be between 1 and 10, if provided.";
        return Err(invalid(format!("Value {most} for parameter MaxNumberOfMessages is invalid. Reason: {reason}")));
    }
    let timeout = seconds(input["VisibilityTimeout"].as_u64().unwrap_or_else(|| queue.number("VisibilityTimeout")));
    let mut received = Vec::new();
    for message in queue.messages.iter_mut().filter(|message| message.visible_at <= now).take(most as usize) {
        message.receive_count += 1;
        message.visible_at = now + timeout;
        let mut attributes = BTreeMap::from([
            ("ApproximateFirstReceiveTimestamp", millis(*message.first_received_at.get_or_insert(now))),
            ("ApproximateReceiveCount", message.receive_count.to_string()),
            ("SenderId", "AIDALOCALAWS".to_owned()),
            ("SentTimestamp", millis(message.sent_at)),
        ]);
        attributes.retain(|name, _| asked(&input["AttributeNames"], name) || asked(&input["MessageSystemAttributeNames"], name));
        let mut answer = json!({
            "MessageId": message.id, "Body": message.body, "MD5OfBody": md5(message.body.as_bytes()), "Attributes": attributes,
            "ReceiptHandle": STANDARD.encode(format!("{} {}", message.id, message.receive_count)),
        });
        let mut attributes = message.attributes.clone();
        attributes.retain(|name, _| asked(&input["MessageAttributeNames"], name));
        if !attributes.is_empty() {
            answer["MD5OfMessageAttributes"] = md5_of_attributes(&attributes).into();
            answer["MessageAttributes"] = attributes.into();
        }
        received.push(answer);
    }
    Ok(if received.is_empty() { json!({}) } else { json!({ "Messages": received }) })
}

fn attributes(queue: &Queue, arn: &str, now: OffsetDateTime) -> BTreeMap<String, String> {
    let count = |which: fn(bool, u32) -> bool| {
        queue.messages.iter().filter(|message| which(message.visible_at <= now, message.receive_count)).count().to_string()
    };
    let computed = [
        ("QueueArn", arn.to_owned()),
        ("CreatedTimestamp", queue.created_at.unix_timestamp().to_string()),
        ("LastModifiedTimestamp", queue.created_at.unix_timestamp().to_string()),
        ("ApproximateNumberOfMessages", count(|visible, _| visible)),
        ("ApproximateNumberOfMessagesNotVisible", count(|visible, received| !visible && received > 0)),
        ("ApproximateNumberOfMessagesDelayed", count(|visible, received| !visible && received == 0)),
    ];
    queue.attributes.clone().into_iter().chain(computed.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Whether a list of names asks for `name`: by itself, by `All`, or by how it begins (`foo.*`).
fn asked(names: &Value, name: &str) -> bool {
    let covers = |wanted: &str| wanted.strip_suffix(".*").map_or(wanted == name, |prefix| name.starts_with(prefix));
    names.as_array().into_iter().flatten().filter_map(Value::as_str).any(|wanted| wanted == "All" || covers(wanted))
}

/// The message and the receive that a handle stands for.
fn receipt(input: &Value) -> Result<(String, u32), AwsError> {
    let handle = text(input, "ReceiptHandle")?;
    let parts = STANDARD.decode(handle).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = parts.as_deref().and_then(|parts| parts.split_once(' '));
    let receipt = parts.and_then(|(id, receive_count)| Some((id.to_owned(), receive_count.parse().ok()?)));
    let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
    receipt.ok_or_else(|| AwsError::new("ReceiptHandleIsInvalid", message))
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Over names in order, types and values, each after its length; many SDKs compare it.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
fn md5_of_attributes(attributes: &Map<String, Value>) -> String {
    let part = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let sorted: BTreeMap<_, _> = attributes.iter().collect();
    let bytes = sorted.into_iter().flat_map(|(name, attribute)| {
        let member = |name: &str| attribute[name].as_str().unwrap_or_default();
        let value = match attribute["BinaryValue"].as_str() {
            Some(binary) => [vec![2], part(&STANDARD.decode(binary).unwrap_or_default())],
            None => [vec![1], part(member("StringValue").as_bytes())],
        };
        [part(name.as_bytes()), part(member("DataType").as_bytes()), value.concat()].concat()
    });
    md5(&bytes.collect::<Vec<_>>())
}

fn text<'a>(input: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    input[member].as_str().filter(|text| !text.is_empty()).ok_or_else(|| missing(member))
}

fn seconds(seconds: u64) -> Duration {
    Duration::seconds(seconds.min(u32::MAX.into()) as i64)
}

fn millis(time: OffsetDateTime) -> String {
    (time.unix_timestamp_nanos() / 1_000_000).to_string()
}

fn missing(member: &str) -> AwsError {
    AwsError::new("MissingParameter", format!("The request must contain the parameter {member}."))
}

fn invalid(message: String) -> AwsError {
    AwsError::new("InvalidParameterValue", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-01-01 00:00 UTC);
    const DLQ: &str = "arn:aws:sqs:eu-central-1:111122223333:dlq";
    const URL: &str = "http://127.0.0.1:4566/111122223333/dlq";

    fn world() -> World {
        let mut world = World::new("111122223333", "eu-central-1");
        assert_eq!(world.sqs.create_queue(NOW, DLQ, &[]).unwrap(), URL);
        world
    }

    /// Calls some seconds after the start.
    fn at(world: &mut World, after: i64, operation: &str, mut input: Value) -> Result<Value, String> {
        if input.get("QueueUrl").is_none() {
            input["QueueUrl"] = URL.into();
        }
        call(world, NOW + Duration::seconds(after), operation, &input).map_err(|error| error.code)
    }

    #[test]
    fn a_message_is_hidden_once_received_comes_back_and_goes_when_deleted() {
        let mut world = world();
        world.sqs.send(NOW, DLQ, "{}", &[("RULE_ARN", "arn"), ("ERROR_CODE", "x")]).unwrap();
        let receive = json!({ "AttributeNames": ["All"], "MessageAttributeNames": ["RULE.*"] });
        let first = at(&mut world, 0, "ReceiveMessage", receive.clone()).unwrap()["Messages"][0].clone();
        assert_eq!(first["MessageAttributes"], json!({ "RULE_ARN": { "DataType": "String", "StringValue": "arn" } }));
        assert_eq!(at(&mut world, 29, "ReceiveMessage", receive.clone()), Ok(json!({})));
        let second = at(&mut world, 30, "ReceiveMessage", receive).unwrap()["Messages"][0].clone();
        assert_eq!(second["Attributes"]["ApproximateReceiveCount"], "2");

        at(&mut world, 31, "DeleteMessage", json!({ "ReceiptHandle": first["ReceiptHandle"] })).unwrap();
        assert_eq!(world.sqs.messages(DLQ).len(), 1, "an old handle deletes nothing");
        at(&mut world, 31, "DeleteMessage", json!({ "ReceiptHandle": second["ReceiptHandle"] })).unwrap();
        assert!(world.sqs.messages(DLQ).is_empty());
    }

    #[test]
    fn the_attributes_of_a_queue_tell_what_is_visible() {
        let mut world = world();
        let counts = |world: &mut World| {
            let attributes =
                at(world, 0, "GetQueueAttributes", json!({ "AttributeNames": ["All"] })).unwrap()["Attributes"].clone();
            ["", "NotVisible", "Delayed"].map(|which| attributes[format!("ApproximateNumberOfMessages{which}")].clone())
        };
        for delay in [0, 0, 60] {
            at(&mut world, 0, "SendMessage", json!({ "MessageBody": "a", "DelaySeconds": delay })).unwrap();
        }
        let received = at(&mut world, 0, "ReceiveMessage", json!({})).unwrap();
        assert_eq!(counts(&mut world), ["1", "1", "1"]);
        let change = json!({ "ReceiptHandle": received["Messages"][0]["ReceiptHandle"], "VisibilityTimeout": 0 });
        at(&mut world, 0, "ChangeMessageVisibility", change.clone()).unwrap();
        assert_eq!(counts(&mut world), ["2", "0", "1"]);
        assert_eq!(at(&mut world, 0, "ChangeMessageVisibility", change), Err("MessageNotInflight".into()));
        at(&mut world, 0, "PurgeQueue", json!({})).unwrap();
        assert_eq!(counts(&mut world), ["0", "0", "0"]);
    }

    #[test]
    fn messages_are_kept_for_the_retention_period() {
        let mut world = world();
        world.sqs.send(NOW, DLQ, "a", &[]).unwrap();
        assert_ne!(at(&mut world, 345_599, "ReceiveMessage", json!({})), Ok(json!({})));
        assert_eq!(at(&mut world, 345_700, "ReceiveMessage", json!({})), Ok(json!({})));
    }

    #[test]
    fn checksums_are_those_of_aws() {
        let body = json!({ "MessageBody": "This is a test message", "MessageAttributes": {
            "timestamp": { "DataType": "Number", "StringValue": "1493147359900" },
        } });
        let sent = at(&mut world(), 0, "SendMessage", body).unwrap();
        assert_eq!(sent["MD5OfMessageBody"], "fafb00f5732ab283681e124bf8747ed1");
        assert_eq!(sent["MD5OfMessageAttributes"], "235c5c510d26fb653d073faed50ae77c");
    }

    #[test]
    fn errors_have_the_codes_of_aws() {
        let mut world = world();
        for (operation, input, code) in [
            ("GetQueueUrl", json!({ "QueueName": "none" }), "QueueDoesNotExist"),
            ("SendMessage", json!({ "QueueUrl": "http://x/1/none", "MessageBody": "a" }), "QueueDoesNotExist"),
            ("SendMessage", json!({}), "MissingParameter"),
            ("DeleteMessage", json!({ "ReceiptHandle": "?" }), "ReceiptHandleIsInvalid"),
            ("ReceiveMessage", json!({ "MaxNumberOfMessages": 11 }), "InvalidParameterValue"),
            ("CreateQueue", json!({ "QueueName": "dlq", "Attributes": { "VisibilityTimeout": "5" } }), "QueueNameExists"),
            ("CreateQueue", json!({ "QueueName": "x", "Attributes": { "VisibilityTimeout": "soon" } }), "InvalidAttributeValue"),
            ("CreateQueue", json!({ "QueueName": "x", "Attributes": { "FifoQueue": "true" } }), "InvalidAttributeName"),
            ("CreateQueue", json!({ "QueueName": "dlq.fifo" }), "InvalidParameterValue"),
            ("StartMessageMoveTask", json!({ "SourceArn": DLQ }), "InvalidParameterValue"),
        ] {
            assert_eq!(at(&mut world, 0, operation, input), Err(code.into()), "{operation}");
        }
    }
}
