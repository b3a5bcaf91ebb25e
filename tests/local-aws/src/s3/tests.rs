use std::time::Duration as StdDuration;

use time::macros::datetime;

use super::*;
use crate::wire::{self, Reply};
use crate::{Fault, LocalAws, NoAnswer};

const START: OffsetDateTime = datetime!(2026-11-22 06:07:08.25 UTC);
const BUNDLES: &str = "everleaf-bundles";

/// An account with a versioned bucket that sends events, and one made by hand.
fn world() -> World {
    let mut world = World::new("111122223333", "eu-central-1");
    add_bucket(&mut world, BUNDLES, true, true);
    create_bucket(&mut world, "quiet");
    world
}

fn ask(world: &mut World, operation: &str, mut input: Value) -> Result<Value, AwsError> {
    if input.get("Bucket").is_none() {
        input["Bucket"] = json!(BUNDLES);
    }
    call(world, START, operation, &input)
}

#[track_caller]
fn refused(world: &mut World, operation: &str, input: Value) -> (u16, String) {
    let error = ask(world, operation, input).expect_err(operation);
    (error.status, error.code)
}

#[test]
fn a_bucket_keeps_every_version_and_a_deletion_hides_them() {
    let mut world = world();
    let first = put(&mut world, START, BUNDLES, "a", b"one".to_vec()).unwrap();
    let second = put(&mut world, START, BUNDLES, "a", b"two".to_vec()).unwrap();
    assert_ne!(first, second);
    assert_eq!(world.s3.object(BUNDLES, "a"), Some(&b"two"[..]));
    let old = ask(&mut world, "GetObject", json!({"Key": "a", "VersionId": first})).unwrap();
    assert_eq!((&old["Body"], &old["VersionId"]), (&json!(BASE64.encode("one")), &json!(first)));
    assert_eq!(old["ETag"], "\"f97c5d29941bfb1b2fdab0874906ab82\"", "MD5 in quotes");
    delete(&mut world, START, BUNDLES, "a").unwrap();
    assert_eq!((world.s3.object(BUNDLES, "a"), world.s3.keys(BUNDLES, "")), (None, vec![]));
    assert_eq!(refused(&mut world, "GetObject", json!({"Key": "a"})), (404, "NoSuchKey".into()));
    assert!(ask(&mut world, "GetObject", json!({"Key": "a", "VersionId": second})).is_ok());
    ask(&mut world, "DeleteObject", json!({"Key": "a", "VersionId": second})).unwrap();
    assert_eq!(refused(&mut world, "GetObject", json!({"Key": "a", "VersionId": second})), (404, "NoSuchVersion".into()));
}

#[test]
fn a_bucket_without_versions_keeps_the_last_object_only() {
    let mut world = world();
    ask(&mut world, "CreateBucket", json!({"Bucket": "plain"})).unwrap();
    for body in ["one", "two"] {
        let answer = ask(&mut world, "PutObject", json!({"Bucket": "plain", "Key": "a", "Body": BASE64.encode(body)})).unwrap();
        assert_eq!(answer.get("VersionId"), None);
    }
    assert_eq!(world.s3.object("plain", "a"), Some(&b"two"[..]));
    let only = ask(&mut world, "GetObject", json!({"Bucket": "plain", "Key": "a", "VersionId": "null"})).unwrap();
    assert_eq!(only["Body"], BASE64.encode("two"));
    assert_eq!(ask(&mut world, "DeleteObject", json!({"Bucket": "plain", "Key": "a"})), Ok(json!({})));
    assert_eq!(world.s3.object("plain", "a"), None);
    let versioning = json!({"Bucket": "plain", "VersioningConfiguration": {"Status": "Enabled"}});
    ask(&mut world, "PutBucketVersioning", versioning).unwrap();
    assert!(ask(&mut world, "PutObject", json!({"Bucket": "plain", "Key": "a"})).unwrap()["VersionId"].is_string());
}

#[test]
fn what_is_not_there_or_does_not_hold_is_refused_as_s3_does() {
    let mut world = world();
    put(&mut world, START, BUNDLES, "a", b"one".to_vec()).unwrap();
    let etag = "\"f97c5d29941bfb1b2fdab0874906ab82\"";
    let rows = [
        ("PutObject", json!({"Key": "a", "IfNoneMatch": "*"}), 412, "PreconditionFailed"),
        ("PutObject", json!({"Key": "a", "IfNoneMatch": etag}), 501, "NotImplemented"),
        ("PutObject", json!({"Key": "a", "IfMatch": "\"other\""}), 412, "PreconditionFailed"),
        ("PutObject", json!({"Key": "b", "IfMatch": etag}), 404, "NoSuchKey"),
        ("PutObject", json!({"Bucket": "none", "Key": "a"}), 404, "NoSuchBucket"),
        ("PutObject", json!({"Key": "a".repeat(1025)}), 400, "KeyTooLongError"),
        ("GetObject", json!({"Key": "b"}), 404, "NoSuchKey"),
        ("GetObject", json!({"Bucket": "none", "Key": "a"}), 404, "NoSuchBucket"),
        ("GetObject", json!({"Key": "a", "VersionId": "x"}), 404, "NoSuchVersion"),
        ("GetObject", json!({"Key": "a", "IfNoneMatch": etag}), 304, "NotModified"),
        ("GetObject", json!({"Key": "a", "IfMatch": "\"other\""}), 412, "PreconditionFailed"),
        ("GetObject", json!({"Key": "a", "ExpectedBucketOwner": "999999999999"}), 403, "AccessDenied"),
        ("HeadObject", json!({"Key": "b"}), 404, "NotFound"),
        ("HeadBucket", json!({"Bucket": "none"}), 404, "NotFound"),
        ("ListObjectsV2", json!({"Bucket": "none"}), 404, "NoSuchBucket"),
        ("DeleteObject", json!({"Bucket": "none", "Key": "a"}), 404, "NoSuchBucket"),
        ("CreateBucket", json!({"Bucket": "Capital"}), 400, "InvalidBucketName"),
        ("CreateBucket", json!({"Bucket": BUNDLES}), 409, "BucketAlreadyOwnedByYou"),
        ("PutBucketPolicy", json!({}), 501, "NotImplemented"),
    ];
    for (operation, input, status, code) in rows {
        assert_eq!(refused(&mut world, operation, input.clone()), (status, code.to_owned()), "{operation} {input}");
    }
    assert_eq!(world.s3.object(BUNDLES, "a"), Some(&b"one"[..]));
    ask(&mut world, "PutObject", json!({"Key": "b", "IfNoneMatch": "*", "Body": BASE64.encode("new")})).unwrap();
    ask(&mut world, "PutObject", json!({"Key": "a", "IfMatch": etag})).unwrap();
}

#[test]
fn a_listing_comes_in_pages_and_folds_what_a_delimiter_parts() {
    let mut world = world();
    for key in ["a/1", "a/2", "b", "c/3 4", "d"] {
        put(&mut world, START, BUNDLES, key, key.into()).unwrap();
    }
    delete(&mut world, START, BUNDLES, "d").unwrap();
    let mut pages = |more: Value| {
        let (mut input, mut pages) = (more, Vec::new());
        loop {
            let page = ask(&mut world, "ListObjectsV2", input.clone()).unwrap();
            let keys = page["Contents"].as_array().into_iter().flatten().map(|one| one["Key"].as_str().unwrap().to_owned());
            let prefixes = page["CommonPrefixes"].as_array().into_iter().flatten();
            let prefixes = prefixes.map(|one| one["Prefix"].as_str().unwrap().to_owned());
            pages.push(keys.chain(prefixes).collect::<Vec<_>>().join(" "));
            match page.get("NextContinuationToken") {
                Some(token) => input["ContinuationToken"] = token.clone(),
                None => return pages.join(" | "),
            }
        }
    };
    let rows = [
        (json!({}), "a/1 a/2 b c/3 4"),
        (json!({"MaxKeys": 2}), "a/1 a/2 | b c/3 4"),
        (json!({"MaxKeys": 3}), "a/1 a/2 b | c/3 4"),
        (json!({"Prefix": "a/", "MaxKeys": 1}), "a/1 | a/2"),
        (json!({"Delimiter": "/"}), "b a/ c/"),
        (json!({"Delimiter": "/", "MaxKeys": 1}), "a/ | b | c/"),
        (json!({"StartAfter": "a/2"}), "b c/3 4"),
        (json!({"Prefix": "c", "EncodingType": "url"}), "c/3%204"),
        (json!({"Prefix": "d"}), ""),
    ];
    for (input, expected) in rows {
        assert_eq!(pages(input.clone()), expected, "{input}");
    }
}

#[test]
fn eventbridge_hears_of_what_is_put_and_deleted_where_the_bucket_says_so() {
    let mut world = world();
    put(&mut world, START, "quiet", "a", b"one".to_vec()).unwrap();
    let version = put(&mut world, START, BUNDLES, "a b", b"one".to_vec()).unwrap();
    delete(&mut world, START, BUNDLES, "a b").unwrap();
    ask(&mut world, "DeleteObject", json!({"Key": "a b", "VersionId": version})).unwrap();
    ask(&mut world, "DeleteObject", json!({"Key": "a b", "VersionId": version})).unwrap();
    let events = world.take_outbox();
    let [created, hidden, gone] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&created["source"], &created["detail-type"]), (&json!("aws.s3"), &json!("Object Created")));
    assert_eq!(created["resources"], json!(["arn:aws:s3:::everleaf-bundles"]));
    let mut expected = json!({
        "version": "0", "bucket": {"name": BUNDLES}, "requester": "111122223333", "source-ip-address": "127.0.0.1",
        "reason": "PutObject", "request-id": created["detail"]["request-id"],
        "object": {
            "key": "a b", "size": 3, "etag": "f97c5d29941bfb1b2fdab0874906ab82", "version-id": version,
            "sequencer": created["detail"]["object"]["sequencer"],
        },
    });
    assert_eq!(created["detail"], expected);
    (expected["reason"], expected["deletion-type"]) = (json!("DeleteObject"), json!("Delete Marker Created"));
    expected["request-id"] = hidden["detail"]["request-id"].clone();
    let object = &hidden["detail"]["object"];
    let (marker, sequencer) = (&object["version-id"], &object["sequencer"]);
    expected["object"] = json!({
        "key": "a b", "etag": "d41d8cd98f00b204e9800998ecf8427e", "version-id": marker, "sequencer": sequencer,
    });
    assert_eq!((&hidden["detail-type"], &hidden["detail"]), (&json!("Object Deleted"), &expected));
    assert_eq!(gone["detail"]["deletion-type"], "Permanently Deleted");
    assert_eq!(gone["detail"]["object"]["version-id"], json!(version));
    let sequence: Vec<_> = events.iter().map(|event| event["detail"]["object"]["sequencer"].as_str().unwrap()).collect();
    assert!(sequence.is_sorted() && sequence.iter().all(|one| one.len() == 16), "{sequence:?}");
}

/// Sends one request as it stands on the wire.
async fn send(aws: &LocalAws, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let (host, rest) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = format!("/{path}");
    let request = wire::Request { method, host, path: &path, query, headers: headers.to_vec(), body };
    match wire::reply(aws, "tester", request).await {
        Ok(reply) => reply,
        Err(NoAnswer::Error(error)) => panic!("{error:?}"),
        Err(NoAnswer::ConnectionReset) => panic!("the connection broke"),
    }
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

const VIRTUAL: &str = "https://everleaf-bundles.s3.eu-central-1.amazonaws.com";
const SIGNED: (&str, &str) = ("authorization", "AWS4-HMAC-SHA256 Credential=a/20261122/eu-central-1/s3/aws4_request, x");

async fn aws() -> LocalAws {
    let aws = LocalAws::new(START, StdDuration::ZERO);
    aws.world(|world, _| add_bucket(world, BUNDLES, true, false));
    aws
}

#[tokio::test(start_paused = true)]
async fn the_bucket_stands_in_the_host_or_in_the_path_and_keys_are_decoded() {
    let aws = aws().await;
    let put = send(&aws, "PUT", &format!("{VIRTUAL}/a%20b/%C3%BC%2B+?x-id=PutObject"), &[("if-none-match", "*")], b"one").await;
    assert_eq!((put.status, header(&put, "etag")), (200, "\"f97c5d29941bfb1b2fdab0874906ab82\""));
    let version = header(&put, "x-amz-version-id");
    assert_eq!(aws.world(|world, _| world.s3.keys(BUNDLES, "")), ["a b/ü++"]);
    for url in [
        format!("{VIRTUAL}/a%20b/%C3%BC++?x-id=GetObject&versionId={version}"),
        format!("https://127.0.0.1:4566/{BUNDLES}/a%20b/%C3%BC%2B%2B"),
        "https://everleaf-bundles.localhost:4566/a%20b/%C3%BC%2B%2B".to_owned(),
    ] {
        let got = send(&aws, "GET", &url, &[SIGNED], b"").await;
        assert_eq!((got.status, &got.body[..]), (200, &b"one"[..]), "{url}");
        assert_eq!(header(&got, "last-modified"), "Sun, 22 Nov 2026 06:07:08 GMT");
        assert_eq!((header(&got, "x-amz-version-id"), header(&got, "content-length")), (version, "3"));
        let head = send(&aws, "HEAD", &url, &[SIGNED], b"").await;
        assert_eq!((head.status, head.body.len(), header(&head, "content-length")), (200, 0, "3"));
    }
    let calls = aws.take_calls();
    let first = &calls[0];
    assert_eq!((first.action().as_str(), first.caller.as_str(), first.writes()), ("s3:PutObject", "tester", true));
    let body = BASE64.encode("one");
    assert_eq!(first.input, json!({"Bucket": BUNDLES, "Key": "a b/ü++", "IfNoneMatch": "*", "Body": body}));
    assert!(calls[1..].iter().all(|call| !call.writes()));
    assert_eq!(send(&aws, "DELETE", &format!("{VIRTUAL}/a"), &[], b"").await.status, 204);
    assert!(aws.take_calls()[0].writes());
}

#[tokio::test(start_paused = true)]
async fn errors_are_xml_except_where_there_is_no_body() {
    let aws = aws().await;
    let url = format!("{VIRTUAL}/a");
    let missing = send(&aws, "GET", &url, &[], b"").await;
    let expected = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>";
    assert_eq!((missing.status, header(&missing, "content-type")), (404, "application/xml"));
    assert!(text(&missing).ends_with(expected), "{}", text(&missing));
    let head = send(&aws, "HEAD", &url, &[], b"").await;
    assert_eq!((head.status, head.body.len()), (404, 0));
    send(&aws, "PUT", &url, &[], b"one").await;
    let etag = "\"f97c5d29941bfb1b2fdab0874906ab82\"";
    let same = send(&aws, "GET", &url, &[("if-none-match", etag)], b"").await;
    assert_eq!((same.status, same.body.len(), header(&same, "etag")), (304, 0, etag));
    for (method, url, headers) in [
        ("GET", format!("{url}?acl"), ("x", "y")),
        ("GET", url.clone(), ("range", "bytes=0-1")),
        ("PUT", url.clone(), ("x-amz-copy-source", "b/c")),
        ("POST", url.clone(), ("x", "y")),
    ] {
        assert_eq!(send(&aws, method, &url, &[headers], b"").await.status, 501, "{method} {url} {headers:?}");
    }
    aws.set_faults(Some(Box::new(|_| Some(Fault::Refuse(AwsError::throttled_by("s3"))))));
    let slow = send(&aws, "GET", &url, &[], b"").await;
    assert!(slow.status == 503 && text(&slow).contains("<Code>SlowDown</Code>"));
    aws.set_faults(Some(Box::new(|_| Some(Fault::Answer(json!({"Body": BASE64.encode("other")}))))));
    assert_eq!(send(&aws, "GET", &url, &[], b"").await.body, b"other");
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_xml() {
    let aws = aws().await;
    for key in ["a&b", "c"] {
        aws.world(|world, now| put(world, now, BUNDLES, key, b"one".to_vec())).unwrap();
    }
    let listed = send(&aws, "GET", &format!("{VIRTUAL}/?list-type=2&max-keys=1&prefix="), &[], b"").await;
    let listed = text(&listed);
    for part in [
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
        "<Key>a&amp;b</Key>",
        "<LastModified>2026-11-22T06:07:08Z</LastModified>",
        "<ETag>&quot;f97c5d29941bfb1b2fdab0874906ab82&quot;</ETag>",
        "<Size>3</Size>",
        "<IsTruncated>true</IsTruncated>",
        "<NextContinuationToken>",
    ] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    assert_eq!(listed.matches("<Contents>").count(), 1);
    let location = send(&aws, "GET", &format!("{VIRTUAL}/?location"), &[], b"").await;
    assert!(text(&location).ends_with(">eu-central-1</LocationConstraint>"), "{}", text(&location));
}

#[tokio::test(start_paused = true)]
async fn a_body_in_chunks_is_put_together_and_its_trailing_checksum_kept() {
    let aws = aws().await;
    let url = format!("{VIRTUAL}/a");
    let chunked = [("content-encoding", "aws-chunked"), ("x-amz-trailer", "x-amz-checksum-crc32")];
    let body = b"3;chunk-signature=00\r\none\r\n2\r\n\r\n\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    let put = send(&aws, "PUT", &url, &chunked, body).await;
    assert_eq!((put.status, header(&put, "x-amz-checksum-crc32")), (200, "AAAAAA=="));
    assert_eq!(aws.world(|world, _| world.s3.object(BUNDLES, "a").map(<[u8]>::to_vec)), Some(b"one\r\n".to_vec()));
    let got = send(&aws, "GET", &url, &[("x-amz-checksum-mode", "ENABLED")], b"").await;
    assert_eq!(header(&got, "x-amz-checksum-crc32"), "AAAAAA==");
    let got = send(&aws, "GET", &url, &[], b"").await;
    assert_eq!(header(&got, "x-amz-checksum-crc32"), "");
    for cut in [&b"3\r\non"[..], b"3\r\none", b"5\r\none\r\n0\r\n", b"x\r\n", b""] {
        let reply = send(&aws, "PUT", &url, &chunked, cut).await;
        assert!(reply.status == 400 && text(&reply).contains("IncompleteBody"), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_presigned_url_opens_for_ten_minutes_and_for_nobody_who_signs_as_well() {
    let aws = aws().await;
    let url = aws.world(|world, now| presign(world, now, "elb-trust-stores", "111122223333/1", b"bundle".to_vec()));
    assert!(url.starts_with("https://elb-trust-stores.s3.eu-central-1.amazonaws.com/111122223333/1?X-Amz-"), "{url}");
    let got = send(&aws, "GET", &url, &[], b"").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"bundle"[..]));
    let both = send(&aws, "GET", &url, &[SIGNED], b"").await;
    assert!(both.status == 400 && text(&both).contains("<Code>InvalidArgument</Code><Message>Only one auth mechanism"));
    let mut forged = url.clone();
    forged.pop();
    for forged in [forged + "x", url.replace("3333/1", "3333/2"), url.replace("elb-", "alb-")] {
        let reply = send(&aws, "GET", &forged, &[], b"").await;
        assert!(reply.status == 403 && text(&reply).contains("SignatureDoesNotMatch"), "{forged}");
    }
    assert_eq!(send(&aws, "PUT", &url, &[], b"").await.status, 403);
    tokio::time::sleep(StdDuration::from_secs(599)).await;
    assert_eq!(send(&aws, "GET", &url, &[], b"").await.status, 200);
    tokio::time::sleep(StdDuration::from_secs(1)).await;
    aws.world(|world, now| presign(world, now, "elb-trust-stores", "another", vec![]));
    let late = send(&aws, "GET", &url, &[], b"").await;
    assert!(late.status == 403 && text(&late).contains("<Code>AccessDenied</Code><Message>Request has expired"));
    aws.world(|world, _| world.s3.endpoint = Some("http://127.0.0.1:4566".into()));
    let url = aws.world(|world, now| presign(world, now, "elb-trust-stores", "1", b"bundle".to_vec()));
    assert!(url.starts_with("http://127.0.0.1:4566/elb-trust-stores/1?X-Amz-"), "{url}");
    assert_eq!(send(&aws, "GET", &url.replace("http:", "https:"), &[], b"").await.body, b"bundle");
}
