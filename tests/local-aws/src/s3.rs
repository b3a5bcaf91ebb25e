//! Amazon S3: objects with their versions, presigned URLs, and events to EventBridge for the buckets that send them.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html>

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{AwsError, World, events};

/// How long a presigned URL of an AWS service opens.
pub(crate) const PRESIGNED_LIFETIME: Duration = Duration::minutes(10);

#[derive(Default)]
pub struct S3 {
    /// Where presigned URLs point; each bucket's own host at AWS where this is `None`.
    pub endpoint: Option<String>,
    buckets: BTreeMap<String, Bucket>,
    /// What presigned URLs open, by their signatures.
    presigned: BTreeMap<String, Presigned>,
    sequence: u64,
}

#[derive(Default)]
struct Bucket {
    versioned: bool,
    sends_events: bool,
    /// The customer's key that encrypts what is put there.
    kms_key: Option<String>,
    /// The versions of each key, oldest first.
    objects: BTreeMap<String, Vec<Version>>,
}

#[derive(Clone)]
struct Version {
    id: String,
    modified: OffsetDateTime,
    /// `None` in a delete marker.
    body: Option<Vec<u8>>,
    etag: String,
    /// What else the request said of it: content type, encryption, checksum.
    stored: Map<String, Value>,
}

struct Presigned {
    bucket: String,
    key: String,
    until: OffsetDateTime,
    body: Vec<u8>,
}

impl S3 {
    /// What a key holds now.
    pub fn object(&self, bucket: &str, key: &str) -> Option<&[u8]> {
        self.buckets.get(bucket)?.current(key)?.body.as_deref()
    }

    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let keys = self.buckets.get(bucket).into_iter().flat_map(Bucket::current_objects).map(|(key, _)| key);
        keys.filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub(crate) fn has_bucket(&self, name: &str) -> bool {
        self.buckets.contains_key(name)
    }

    pub(crate) fn kms_key(&self, bucket: &str) -> Option<&str> {
        self.buckets.get(bucket)?.kms_key.as_deref()
    }
}

impl Bucket {
    fn current(&self, key: &str) -> Option<&Version> {
        self.objects.get(key)?.last().filter(|version| version.body.is_some())
    }

    fn current_objects(&self) -> impl Iterator<Item = (&String, &Version)> {
        let current = self.objects.iter().filter_map(|(key, versions)| Some((key, versions.last()?)));
        current.filter(|(_, version)| version.body.is_some())
    }
}

/// Makes a bucket that keeps versions and sends no events; one that exists is left as it is.
pub fn create_bucket(world: &mut World, name: &str) {
    add_bucket(world, name, true, false);
}

/// Encrypts a bucket with a customer's key from now on.
pub fn encrypt_bucket(world: &mut World, name: &str, kms_key: &str) {
    world.s3.buckets.entry(name.to_owned()).and_modify(|bucket| bucket.kms_key = Some(kms_key.to_owned()));
}

pub(crate) fn add_bucket(world: &mut World, name: &str, versioned: bool, sends_events: bool) {
    let bucket = || Bucket { versioned, sends_events, ..Bucket::default() };
    world.s3.buckets.entry(name.to_owned()).or_insert_with(bucket);
}

/// What a service or a test puts. Returns the version's identifier.
pub fn put(world: &mut World, now: OffsetDateTime, bucket: &str, key: &str, body: Vec<u8>) -> Result<String, AwsError> {
    store(world, now, bucket, key, body, Map::new()).map(|version| version.id)
}

pub fn delete(world: &mut World, now: OffsetDateTime, bucket: &str, key: &str) -> Result<(), AwsError> {
    call(world, now, "DeleteObject", &json!({"Bucket": bucket, "Key": key})).map(drop)
}

/// What a service reads in the name of its caller: one version, or the current one.
pub(crate) fn read(world: &World, bucket: &str, key: &str, version: Option<&str>) -> Result<Vec<u8>, AwsError> {
    find(world, &json!({"Bucket": bucket, "Key": key, "VersionId": version}))
        .map(|version| version.body.clone().unwrap_or_default())
}

/// A URL that opens `body` for ten minutes, as services hand them out for objects in buckets of their own.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
pub(crate) fn presign(world: &mut World, now: OffsetDateTime, bucket: &str, key: &str, body: Vec<u8>) -> String {
    for expired in world.s3.presigned.values_mut().filter(|presigned| presigned.until <= now) {
        expired.body = Vec::new();
    }
    let signature = format!("{}{}", world.uuid(), world.uuid()).replace('-', "");
    let (date, region) = (events::timestamp(now).replace(['-', ':'], ""), &world.region);
    let lifetime = PRESIGNED_LIFETIME.whole_seconds();
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=LOCALAWS%2F{}%2F{region}%2Fs3%2Faws4_request&X-Amz-Date={date}\
         &X-Amz-Expires={lifetime}&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}",
        &date[..8],
    );
    let place = match &world.s3.endpoint {
        Some(endpoint) => format!("{endpoint}/{bucket}"),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    };
    let url = format!("{place}/{key}?{query}");
    let presigned = Presigned { bucket: bucket.to_owned(), key: key.to_owned(), until: now + PRESIGNED_LIFETIME, body };
    world.s3.presigned.insert(signature, presigned);
    url
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    let owner = input["ExpectedBucketOwner"].as_str();
    if owner.is_some_and(|owner| owner != world.account) {
        return Err(error(403, "AccessDenied", "Access Denied"));
    }
    if input.get("Signature").is_some() {
        return presigned_object(world, now, operation, input);
    }
    match operation {
        "CreateBucket" => create(world, input),
        "DeleteObject" => remove(world, now, input),
        "GetBucketLocation" => {
            let location = json!({"LocationConstraint": world.region});
            find_bucket(world, input).map(|_| location)
        }
        "GetObject" => {
            let version = found(world, input)?;
            let mut answer = described(version);
            answer["Body"] = json!(BASE64.encode(version.body.as_deref().unwrap_or_default()));
            Ok(with_asked_checksums(input, answer))
        }
        "HeadBucket" => {
            let region = json!({"BucketRegion": world.region});
            find_bucket(world, input).map(|_| region).map_err(without_body)
        }
        "HeadObject" => {
            let answer = described(found(world, input).map_err(without_body)?);
            Ok(with_asked_checksums(input, answer))
        }
        "ListObjectsV2" => list(world, input),
        "PutBucketVersioning" => {
            let enabled = input["VersioningConfiguration"]["Status"] == "Enabled";
            find_bucket_mut(world, text(input, "Bucket")?)?.versioned |= enabled;
            Ok(json!({}))
        }
        "PutObject" => put_object(world, now, input),
        _ => Err(error(501, "NotImplemented", &format!("Local AWS does not answer s3 {operation}"))),
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
fn create(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    let name = text(input, "Bucket")?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if !(3..=63).contains(&name.len()) || !name.bytes().all(allowed) || name.starts_with('-') || name.ends_with('-') {
        return Err(error(400, "InvalidBucketName", "The specified bucket is not valid."));
    }
    if world.s3.buckets.contains_key(name) {
        let message = "Your previous request to create the named bucket succeeded and you already own it.";
        return Err(error(409, "BucketAlreadyOwnedByYou", message));
    }
    add_bucket(world, name, false, false);
    Ok(json!({"Location": format!("/{name}")}))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>
fn put_object(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let (bucket, key) = (text(input, "Bucket")?, text(input, "Key")?);
    let body = BASE64.decode(input["Body"].as_str().unwrap_or_default());
    let body = body.map_err(|error_in_body| error(400, "InvalidRequest", &error_in_body.to_string()))?;
    let current = find_bucket(world, input)?.current(key);
    let held = match (input["IfNoneMatch"].as_str(), input["IfMatch"].as_str()) {
        (Some("*"), None) => current.map(|_| "If-None-Match"),
        (None, Some(etag)) => {
            let current = current.ok_or_else(no_such_key)?;
            (current.etag.trim_matches('"') != etag.trim_matches('"')).then_some("If-Match")
        }
        (None, None) => None,
        _ => return Err(error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")),
    };
    if let Some(condition) = held {
        let message = "At least one of the pre-conditions you specified did not hold";
        return Err(error(412, "PreconditionFailed", message).with("Condition", json!(condition)));
    }
    let mut stored = input.as_object().cloned().unwrap_or_default();
    stored.retain(|member, _| {
        ["ContentType", "Metadata", "ServerSideEncryption", "SSEKMSKeyId"].contains(&member.as_str()) || is_checksum(member)
    });
    let version = store(world, now, bucket, key, body, stored)?;
    let mut answer = json!({"ETag": version.etag});
    for (member, value) in &version.stored {
        if member != "ContentType" && member != "Metadata" {
            answer[member] = value.clone();
        }
    }
    if version.id != "null" {
        answer["VersionId"] = json!(version.id);
    }
    Ok(answer)
}

fn store(
    world: &mut World,
    now: OffsetDateTime,
    bucket: &str,
    key: &str,
    body: Vec<u8>,
    mut stored: Map<String, Value>,
) -> Result<Version, AwsError> {
    if !(1..=1024).contains(&key.len()) {
        return Err(error(400, "KeyTooLongError", "Your key is too long"));
    }
    let id = world.uuid().replace('-', "");
    stored.entry("ServerSideEncryption").or_insert_with(|| json!("AES256"));
    let etag = Md5::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut version = Version { id, modified: now, etag: format!("\"{etag}\""), body: Some(body), stored };
    let holder = find_bucket_mut(world, bucket)?;
    let versions = holder.objects.entry(key.to_owned()).or_default();
    if !holder.versioned {
        version.id = "null".to_owned();
        versions.retain(|older| older.id != "null");
    }
    versions.push(version.clone());
    let size = version.body.as_ref().map(Vec::len);
    let object = json!({"key": key, "size": size, "etag": etag, "version-id": version.id});
    announce(world, now, bucket, "Object Created", object, json!({"reason": "PutObject"}));
    Ok(version)
}

/// Without a version's identifier the object is hidden behind a delete marker, where the bucket keeps versions.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html>
fn remove(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let (bucket, key) = (text(input, "Bucket")?, text(input, "Key")?);
    let id = world.uuid().replace('-', "");
    let holder = find_bucket_mut(world, bucket)?;
    let versions = holder.objects.entry(key.to_owned()).or_default();
    let (mut object, mut answer) = (json!({"key": key}), json!({}));
    let kind = match input["VersionId"].as_str() {
        None if holder.versioned => {
            let etag = Md5::digest(b"").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            (object["etag"], object["version-id"]) = (json!(etag), json!(id));
            answer = json!({"DeleteMarker": true, "VersionId": id});
            versions.push(Version { id, modified: now, body: None, etag, stored: Map::new() });
            "Delete Marker Created"
        }
        asked => {
            let asked = asked.unwrap_or("null");
            let before = versions.len();
            versions.retain(|version| version.id != asked);
            if versions.len() == before {
                return Ok(answer);
            }
            if asked != "null" {
                (object["version-id"], answer["VersionId"]) = (json!(asked), json!(asked));
            }
            "Permanently Deleted"
        }
    };
    holder.objects.retain(|_, versions| !versions.is_empty());
    announce(world, now, bucket, "Object Deleted", object, json!({"reason": "DeleteObject", "deletion-type": kind}));
    Ok(answer)
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
fn announce(world: &mut World, now: OffsetDateTime, bucket: &str, detail_type: &str, mut object: Value, mut detail: Value) {
    world.s3.sequence += 1;
    if !world.s3.buckets.get(bucket).is_some_and(|bucket| bucket.sends_events) {
        return;
    }
    if object["version-id"] == "null" {
        object.as_object_mut().map(|object| object.remove("version-id"));
    }
    object["sequencer"] = json!(format!("{:08X}{:08X}", now.unix_timestamp(), world.s3.sequence));
    let request = world.uuid().replace('-', "")[..16].to_uppercase();
    (detail["version"], detail["object"], detail["bucket"]) = (json!("0"), object, json!({"name": bucket}));
    (detail["request-id"], detail["requester"]) = (json!(request), json!(world.account));
    detail["source-ip-address"] = json!("127.0.0.1");
    world.emit(now, "aws.s3", detail_type, &[format!("arn:aws:s3:::{bucket}")], detail);
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
fn list(world: &World, input: &Value) -> Result<Value, AwsError> {
    let bucket = find_bucket(world, input)?;
    let asked = |member: &str| input[member].as_str().unwrap_or_default();
    let (prefix, delimiter) = (asked("Prefix"), asked("Delimiter"));
    let most = input["MaxKeys"].as_u64().map_or(1000, |most| most.min(1000)) as usize;
    let mut after = asked("StartAfter").to_owned();
    if let Some(token) = input["ContinuationToken"].as_str() {
        let last = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        after = last.ok_or_else(|| error(400, "InvalidArgument", "The continuation token provided is incorrect"))?;
    }
    let encoded = |key: &str| if input["EncodingType"] == "url" { encode(key) } else { key.to_owned() };
    let (mut contents, mut prefixes, mut last, mut truncated) = (Vec::new(), Vec::<String>::new(), String::new(), false);
    for (key, version) in bucket.current_objects().filter(|(key, _)| key.starts_with(prefix)) {
        let cut = if delimiter.is_empty() { None } else { key[prefix.len()..].find(delimiter) };
        let common = cut.map(|at| key[..prefix.len() + at + delimiter.len()].to_owned());
        let place = common.as_ref().unwrap_or(key);
        if *place <= after || prefixes.last() == Some(place) {
            continue;
        }
        if contents.len() + prefixes.len() == most {
            truncated = most > 0;
            break;
        }
        last.clone_from(place);
        match common {
            Some(common) => prefixes.push(common),
            None => contents.push(json!({
                "Key": encoded(key), "LastModified": events::timestamp(version.modified), "ETag": version.etag,
                "Size": version.body.as_ref().map(Vec::len), "StorageClass": "STANDARD",
            })),
        }
    }
    let mut answer = json!({
        "Name": input["Bucket"], "Prefix": encoded(prefix), "MaxKeys": most, "KeyCount": contents.len() + prefixes.len(),
        "IsTruncated": truncated,
    });
    for (member, value) in [
        ("NextContinuationToken", truncated.then(|| json!(BASE64.encode(last)))),
        ("Contents", (!contents.is_empty()).then(|| json!(contents))),
        ("Delimiter", (!delimiter.is_empty()).then(|| json!(encoded(delimiter)))),
        ("StartAfter", input["StartAfter"].as_str().map(|after| json!(encoded(after)))),
        ("ContinuationToken", input.get("ContinuationToken").cloned()),
        ("EncodingType", input.get("EncodingType").cloned()),
    ] {
        answer
            .as_object_mut()
            .into_iter()
            .for_each(|answer| answer.extend(value.clone().map(|value| (member.to_owned(), value))));
    }
    if !prefixes.is_empty() {
        answer["CommonPrefixes"] = prefixes.iter().map(|prefix| json!({"Prefix": encoded(prefix)})).collect();
    }
    Ok(answer)
}

/// What a URL of [`presign`] opens.
fn presigned_object(world: &World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    let presigned = world.s3.presigned.get(text(input, "Signature")?).filter(|_| operation == "GetObject");
    let presigned = presigned.filter(|presigned| input["Bucket"] == presigned.bucket && input["Key"] == presigned.key);
    let Some(presigned) = presigned else {
        let message =
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
        return Err(error(403, "SignatureDoesNotMatch", message));
    };
    if presigned.until <= now {
        return Err(error(403, "AccessDenied", "Request has expired"));
    }
    Ok(
        json!({"Body": BASE64.encode(&presigned.body), "ContentLength": presigned.body.len(), "ContentType": "binary/octet-stream"}),
    )
}

/// The version that a read asks for, once its conditions hold.
fn found<'a>(world: &'a World, input: &Value) -> Result<&'a Version, AwsError> {
    let version = find(world, input)?;
    let same = |etag: &str| etag == "*" || etag.trim_matches('"') == version.etag.trim_matches('"');
    if input["IfMatch"].as_str().is_some_and(|etag| !same(etag)) {
        let message = "At least one of the pre-conditions you specified did not hold";
        return Err(error(412, "PreconditionFailed", message).with("Condition", json!("If-Match")));
    }
    if input["IfNoneMatch"].as_str().is_some_and(same) {
        return Err(error(304, "NotModified", "Not Modified").with("ETag", json!(version.etag)));
    }
    Ok(version)
}

fn find<'a>(world: &'a World, input: &Value) -> Result<&'a Version, AwsError> {
    let key = text(input, "Key")?;
    let versions = find_bucket(world, input)?.objects.get(key).map_or(&[][..], Vec::as_slice);
    let version = match input["VersionId"].as_str() {
        None => return versions.last().filter(|version| version.body.is_some()).ok_or_else(no_such_key),
        Some(id) => versions.iter().find(|version| version.id == id),
    };
    let version = version.ok_or_else(|| error(404, "NoSuchVersion", "The specified version does not exist."))?;
    match version.body {
        Some(_) => Ok(version),
        None => Err(error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")),
    }
}

fn find_bucket<'a>(world: &'a World, input: &Value) -> Result<&'a Bucket, AwsError> {
    world.s3.buckets.get(text(input, "Bucket")?).ok_or_else(no_such_bucket)
}

fn find_bucket_mut<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Bucket, AwsError> {
    world.s3.buckets.get_mut(name).ok_or_else(no_such_bucket)
}

fn described(version: &Version) -> Value {
    let mut answer = Value::Object(version.stored.clone());
    answer["ETag"] = json!(version.etag);
    answer["LastModified"] = json!(events::timestamp(version.modified));
    answer["ContentLength"] = json!(version.body.as_ref().map(Vec::len));
    if answer["ContentType"].is_null() {
        answer["ContentType"] = json!("binary/octet-stream");
    }
    if version.id != "null" {
        answer["VersionId"] = json!(version.id);
    }
    answer
}

/// Checksums are told to those who ask for them.
fn with_asked_checksums(input: &Value, mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut().filter(|_| input["ChecksumMode"] != "ENABLED") {
        members.retain(|member, _| !is_checksum(member));
    }
    answer
}

fn is_checksum(member: &str) -> bool {
    member.starts_with("Checksum") && member != "ChecksumMode"
}

/// The answer to HEAD has no body that could hold the code: SDKs make this of the status.
fn without_body(error: AwsError) -> AwsError {
    if error.status == 404 { AwsError { code: "NotFound".into(), ..error } } else { error }
}

/// What may stand in a URL as it is stays; everything else becomes `%XX`.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn text<'a>(input: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    let missing = || error(400, "InvalidRequest", &format!("The request has no {member}"));
    input[member].as_str().filter(|text| !text.is_empty()).ok_or_else(missing)
}

fn no_such_key() -> AwsError {
    error(404, "NoSuchKey", "The specified key does not exist.")
}

fn no_such_bucket() -> AwsError {
    error(404, "NoSuchBucket", "The specified bucket does not exist")
}

fn error(status: u16, code: &str, message: &str) -> AwsError {
    AwsError { status, ..AwsError::new(code, message) }
}

#[cfg(test)]
mod tests;
