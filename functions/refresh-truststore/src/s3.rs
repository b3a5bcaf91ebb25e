//! The stack's bucket, the CAs' buckets with their CRLs, and what Elastic Load Balancing gives by pre-signed URLs:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/>.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use futures_util::future::try_join_all;
use lifecycle::bundle::{Extra, LARGEST_OBJECT};
use runtime::Failure;

use crate::pca::CrlLocation;

/// Every object below `prefix`, in the order of their keys.
pub(crate) async fn extras(s3: &Client, bucket: &str, prefix: &str) -> Result<Vec<Extra>, Failure> {
    let mut pages = s3.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    let mut extras = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| Failure::aws(format!("list what is under {prefix} in {bucket}"), error))?;
        // Consoles make objects that stand for folders.
        let keys = page.contents().iter().filter_map(|object| object.key()).filter(|key| !key.ends_with('/'));
        let keys: Vec<_> = keys.map(str::to_owned).collect();
        for some in keys.chunks(10) {
            extras.extend(try_join_all(some.iter().map(|key| extra(s3, bucket, key))).await?.into_iter().flatten());
        }
    }
    Ok(extras)
}

/// `None` when it was deleted just now.
async fn extra(s3: &Client, bucket: &str, key: &str) -> Result<Option<Extra>, Failure> {
    let doing = || format!("read {key} of {bucket}");
    match s3.get_object().bucket(bucket).key(key).send().await {
        Ok(object) => {
            let body = beginning(object.body, LARGEST_OBJECT, doing()).await?;
            Ok(Some(Extra { key: key.to_owned(), body }))
        }
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => Ok(None),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

/// Writes an object whose key tells its content, and gives its version. Where it is there already, that one is taken.
pub(crate) async fn put_once(s3: &Client, bucket: &str, key: &str, text: String) -> Result<Option<String>, Failure> {
    let doing = || format!("write {key} to {bucket}");
    let put = s3.put_object().bucket(bucket).key(key).if_none_match("*").content_type("application/x-pem-file");
    match put.body(ByteStream::from(text.into_bytes())).send().await {
        Ok(answer) => Ok(answer.version_id),
        Err(error) if error.code() == Some("PreconditionFailed") => {
            let head = s3.head_object().bucket(bucket).key(key).send().await;
            Ok(head.map_err(|error| Failure::aws(doing(), error))?.version_id)
        }
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

pub(crate) async fn put(s3: &Client, bucket: &str, key: &str, text: String) -> Result<(), Failure> {
    let put = s3.put_object().bucket(bucket).key(key).content_type("application/json").body(ByteStream::from(text.into_bytes()));
    put.send().await.map(|_| ()).map_err(|error| Failure::aws(format!("write {key} to {bucket}"), error))
}

/// An object; `None` when there is none.
pub(crate) async fn get(s3: &Client, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, Failure> {
    let doing = || format!("read {key} of {bucket}");
    match s3.get_object().bucket(bucket).key(key).send().await {
        Ok(object) => body(object.body, doing()).await.map(Some),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => Ok(None),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

/// A CRL that a CA has published.
pub(crate) enum Object {
    /// It has the entity tag that was asked for.
    Same,
    New {
        body: Vec<u8>,
        e_tag: Option<String>,
    },
    /// The CA has published none yet, or somebody has deleted it.
    Missing,
}

pub(crate) async fn crl(s3: &Client, location: &CrlLocation, known: Option<&str>) -> Result<Object, Failure> {
    let CrlLocation { bucket, key } = location;
    let doing = || format!("read the CRL {key} of {bucket}");
    match s3.get_object().bucket(bucket).key(key).set_if_none_match(known.map(str::to_owned)).send().await {
        Ok(object) => {
            let e_tag = object.e_tag().map(str::to_owned);
            Ok(Object::New { body: body(object.body, doing()).await?, e_tag })
        }
        Err(error) if error.raw_response().is_some_and(|answer| answer.status().as_u16() == 304) => Ok(Object::Same),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => Ok(Object::Missing),
        Err(error) if error.code() == Some("AccessDenied") => Err(Failure::permanent(
            doing(),
            format!(
                "AWS denies it (AccessDenied: {}); name arn:…:s3:::{bucket} in the stack's parameter CrlBucketArns, and where a \
                 customer's key encrypts the bucket, let its policy give this role kms:Decrypt",
                error.message().unwrap_or("no reason given"),
            ),
        )),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}

/// What stands behind a pre-signed URL. The S3 client is the HTTP client that is at hand: its own address and signature give way.
pub(crate) async fn download(s3: &Client, bucket: &str, url: &str) -> Result<Vec<u8>, Failure> {
    let doing = || "read what the trust store holds".to_owned();
    let get = s3.get_object().bucket(bucket).key("presigned").customize().interceptor(Presigned(url.to_owned()));
    let object = get.send().await.map_err(|error| Failure::aws(doing(), error))?;
    body(object.body, doing()).await
}

/// Not much more than `most` bytes: whoever may write there may write gigabytes.
async fn beginning(mut stream: ByteStream, most: usize, doing: String) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        match stream.try_next().await.map_err(|error| Failure::retryable(&doing, error))? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(bytes)
}

async fn body(stream: ByteStream, doing: String) -> Result<Vec<u8>, Failure> {
    stream.collect().await.map(|bytes| bytes.to_vec()).map_err(|error| Failure::retryable(doing, error))
}

#[derive(Debug)]
struct Presigned(String);

#[dyn_dispatch_hint]
impl Intercept for Presigned {
    fn name(&self) -> &'static str {
        "Presigned"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        request.set_uri(self.0.as_str())?;
        // S3 takes one signature, and no header of its own that is not part of it.
        let signed = |name: &str| name == "authorization" || name.starts_with("x-amz-");
        let names: Vec<String> = request.headers().iter().map(|(name, _)| name.to_owned()).filter(|name| signed(name)).collect();
        for name in names {
            request.headers_mut().remove(&name);
        }
        Ok(())
    }
}
