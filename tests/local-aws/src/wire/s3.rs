//! S3's REST API: the bucket stands in the host or is the first part of the path, and much of the input and output in headers.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAPI.html>

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::xml::{Lists, content, document};
use super::{Call, Reply, Request, decoded, parameters};
use crate::AwsError;

/// The headers that are members of inputs or outputs.
const HEADERS: &[(&str, &str)] = &[
    ("content-length", "ContentLength"),
    ("content-type", "ContentType"),
    ("etag", "ETag"),
    ("if-match", "IfMatch"),
    ("if-none-match", "IfNoneMatch"),
    ("last-modified", "LastModified"),
    ("x-amz-bucket-region", "BucketRegion"),
    ("x-amz-checksum-crc32", "ChecksumCRC32"),
    ("x-amz-checksum-crc32c", "ChecksumCRC32C"),
    ("x-amz-checksum-crc64nvme", "ChecksumCRC64NVME"),
    ("x-amz-checksum-mode", "ChecksumMode"),
    ("x-amz-checksum-sha1", "ChecksumSHA1"),
    ("x-amz-checksum-sha256", "ChecksumSHA256"),
    ("x-amz-delete-marker", "DeleteMarker"),
    ("x-amz-expected-bucket-owner", "ExpectedBucketOwner"),
    ("x-amz-server-side-encryption", "ServerSideEncryption"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "SSEKMSKeyId"),
    ("x-amz-version-id", "VersionId"),
];

/// Headers that ask for nothing.
const TRANSPORT: &[&str] = &[
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-trailer",
    "x-amz-user-agent",
];

const PARAMETERS: &[(&str, &str)] = &[
    ("X-Amz-Signature", "Signature"),
    ("continuation-token", "ContinuationToken"),
    ("delimiter", "Delimiter"),
    ("encoding-type", "EncodingType"),
    ("max-keys", "MaxKeys"),
    ("prefix", "Prefix"),
    ("start-after", "StartAfter"),
    ("versionId", "VersionId"),
];

pub(super) fn speaks(request: &Request<'_>) -> bool {
    let signed = request.header("authorization").is_some_and(|signature| signature.contains("/s3/aws4_request"));
    let presigned = request.query.contains("X-Amz-Signature=");
    signed || presigned || request.host.starts_with("s3.") || request.host.contains(".s3.")
}

pub(super) fn call(request: &Request<'_>) -> Call {
    let path = decoded(request.path.trim_start_matches('/'));
    let (bucket, key) = match bucket_of_host(request.host) {
        Some(bucket) => (bucket, path.as_str()),
        None => path.split_once('/').unwrap_or((&path, "")),
    };
    let mut input = json!({});
    let mut resource = None;
    for (name, value) in parameters(request.query) {
        match (name.as_str(), PARAMETERS.iter().find(|(known, _)| *known == name)) {
            (_, Some((_, "MaxKeys"))) => {
                let not_a_number = |_| error(400, "InvalidArgument", "Provided max-keys not an integer or within integer range");
                input["MaxKeys"] = json!(value.parse::<u32>().map_err(not_a_number)?);
            }
            (_, Some((_, member))) => input[*member] = json!(value),
            ("list-type" | "location" | "versioning", _) => resource = Some(name),
            (known, _) if known == "x-id" || known.starts_with("X-Amz-") => {}
            (unknown, _) => return Err(not_implemented(unknown)),
        }
    }
    if input.get("Signature").is_some() && request.header("authorization").is_some() {
        let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
                       parameter or the Authorization header should be specified";
        return Err(error(400, "InvalidArgument", message));
    }
    let operation = match (request.method, resource.as_deref(), key) {
        ("PUT", None, "") => "CreateBucket",
        ("HEAD", None, "") => "HeadBucket",
        ("GET", Some("location"), "") => "GetBucketLocation",
        ("GET", Some("list-type"), "") => "ListObjectsV2",
        ("PUT", Some("versioning"), "") => "PutBucketVersioning",
        ("PUT", None, _) => "PutObject",
        ("GET", None, _) if !key.is_empty() => "GetObject",
        ("HEAD", None, _) => "HeadObject",
        ("DELETE", None, _) if !key.is_empty() => "DeleteObject",
        (method, _, _) => return Err(not_implemented(&format!("{method} {}?{}", request.path, request.query))),
    };
    input["Bucket"] = json!(bucket);
    if !key.is_empty() {
        input["Key"] = json!(key);
    }
    let chunked = request.header("content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"));
    let (body, trailer) = if chunked { unchunked(request.body)? } else { (request.body.to_vec(), Vec::new()) };
    let trailer = trailer.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in request.headers.iter().copied().chain(trailer) {
        match HEADERS.iter().find(|(known, _)| *known == name) {
            Some((_, "ContentLength")) => {}
            Some((_, "ContentType")) if operation != "PutObject" => {}
            Some((_, member)) => input[*member] = json!(value),
            None if name == "range" || name.starts_with("x-amz-") && !TRANSPORT.contains(&name) => {
                return Err(not_implemented(name));
            }
            None => {}
        }
    }
    match operation {
        "PutObject" => input["Body"] = json!(BASE64.encode(body)),
        "PutBucketVersioning" => {
            let text = String::from_utf8_lossy(&body);
            let status = text.split_once("<Status>").and_then(|(_, rest)| rest.split('<').next());
            input["VersioningConfiguration"] = json!({"Status": status});
        }
        _ => {}
    }
    Ok(("s3", operation.to_owned(), input))
}

fn bucket_of_host(host: &str) -> Option<&str> {
    let host = host.split(':').next().unwrap_or(host);
    host.split_once(".s3.").map(|(bucket, _)| bucket).or_else(|| host.strip_suffix(".localhost"))
}

type Trailer = Vec<(String, String)>;

/// The body and the headers that follow it:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>
fn unchunked(mut rest: &[u8]) -> Result<(Vec<u8>, Trailer), AwsError> {
    let incomplete = || error(400, "IncompleteBody", "The request body terminated unexpectedly");
    let mut body = Vec::new();
    loop {
        let (line, after) = line(rest).ok_or_else(incomplete)?;
        let size = line.split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or_else(incomplete)?;
        if size == 0 {
            rest = after;
            break;
        }
        let (chunk, after) = after.split_at_checked(size).ok_or_else(incomplete)?;
        body.extend(chunk);
        rest = after.strip_prefix(b"\r\n").ok_or_else(incomplete)?;
    }
    let mut trailer = Vec::new();
    while let Some((header, after)) = line(rest).filter(|(header, _)| !header.is_empty()) {
        let (name, value) = header.split_once(':').ok_or_else(incomplete)?;
        // The signature of the trailer is one of its lines.
        if name != "x-amz-trailer-signature" {
            trailer.push((name.to_lowercase(), value.trim().to_owned()));
        }
        rest = after;
    }
    Ok((body, trailer))
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 2..]))
}

pub(super) fn answer(operation: &str, output: &Value) -> Reply {
    let mut headers = headers(output);
    let mut xml = |root: &str| {
        headers = vec![("content-type", "application/xml".to_owned())];
        let text = output.get("LocationConstraint").unwrap_or(output);
        let content = content(text, Lists::Flat);
        document(&format!("<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{content}</{root}>"))
    };
    let body = match operation {
        "GetBucketLocation" => xml("LocationConstraint"),
        "GetObject" => BASE64.decode(output["Body"].as_str().unwrap_or_default()).unwrap_or_default(),
        "ListObjectsV2" => xml("ListBucketResult"),
        _ => Vec::new(),
    };
    headers.extend(output["Location"].as_str().map(|location| ("location", location.to_owned())));
    Reply { status: if operation == "DeleteObject" { 204 } else { 200 }, headers, body }
}

pub(super) fn refusal(method: &str, error: &AwsError) -> Reply {
    let mut members = json!({"Code": error.code, "Message": error.message});
    let header_members = Value::Object(error.members.clone());
    let mut headers = headers(&header_members);
    for (name, value) in error.members.iter().filter(|(name, _)| HEADERS.iter().all(|(_, member)| member != name)) {
        members[name] = value.clone();
    }
    let body = if method == "HEAD" || error.status == 304 {
        Vec::new()
    } else {
        headers.push(("content-type", "application/xml".to_owned()));
        document(&format!("<Error>{}</Error>", content(&members, Lists::Flat)))
    };
    Reply { status: error.status, headers, body }
}

fn headers(output: &Value) -> Vec<(&'static str, String)> {
    let text = |member: &str, value: &Value| match (member, value) {
        (_, Value::Null) => None,
        ("LastModified", Value::String(at)) => OffsetDateTime::parse(at, &Rfc3339).ok().map(http_date),
        (_, Value::String(text)) => Some(text.clone()),
        (_, other) => Some(other.to_string()),
    };
    HEADERS.iter().filter_map(|(header, member)| Some((*header, text(member, &output[*member])?))).collect()
}

fn http_date(at: OffsetDateTime) -> String {
    let form = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    at.format(form).unwrap_or_default()
}

fn not_implemented(what: &str) -> AwsError {
    error(501, "NotImplemented", &format!("Local AWS does not answer {what}"))
}

fn error(status: u16, code: &str, message: &str) -> AwsError {
    AwsError { status, ..AwsError::new(code, message) }
}
