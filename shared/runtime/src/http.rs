//! One HTTP client for all the SDK's clients of a function, made ready by the first call.

use std::net::UdpSocket;
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use crate::trace::{self, Traced};

/// The SDK's own default, but shared: left to itself each client of a service parses the system's root certificates for itself, once
/// when it is made and once more when it is used, which is most of what a start and a first event would cost.
pub(crate) fn shared() -> impl HttpClient + 'static {
    let client = Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    });
    Lazy { client, daemon: OnceLock::new() }
}

/// Does nothing when a client is made, where the one inside would parse the roots.
#[derive(Debug)]
struct Lazy {
    client: SharedHttpClient,
    daemon: OnceLock<Option<Arc<UdpSocket>>>,
}

impl HttpClient for Lazy {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        match self.daemon.get_or_init(trace::daemon) {
            Some(daemon) => SharedHttpConnector::new(Traced { connector, daemon: Arc::clone(daemon) }),
            None => connector,
        }
    }
}
