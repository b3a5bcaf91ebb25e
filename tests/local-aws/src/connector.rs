use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

use crate::{LocalAws, wire};

/// The SDK's HTTP client that never leaves the process.
#[derive(Clone)]
pub(crate) struct Connector {
    aws: LocalAws,
    caller: String,
}

impl Connector {
    pub(crate) fn new(aws: LocalAws, caller: &str) -> Self {
        Self { aws, caller: caller.to_owned() }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { aws, caller } = self.clone();
        HttpConnectorFuture::new(async move {
            let mut request = request;
            // A body that is signed or summed up as it goes comes in pieces.
            let body = ByteStream::new(request.take_body()).collect().await;
            let body = body.map_err(|error| ConnectorError::user(error.into()))?.into_bytes();
            let uri = request.uri();
            let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
            let (host, target) = after_scheme.find('/').map_or((after_scheme, "/"), |at| after_scheme.split_at(at));
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let headers = request.headers().iter().collect();
            let request = wire::Request { method: request.method(), host, path, query, headers, body: &body };
            let reply = wire::reply(&aws, &caller, request)
                .await
                .map_err(|_| ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()))?;
            let status = reply.status.try_into().map_err(|error| ConnectorError::user(Box::new(error)))?;
            let mut response = HttpResponse::new(status, SdkBody::from(reply.body));
            for (name, value) in reply.headers {
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        })
    }
}
