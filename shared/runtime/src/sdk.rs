//! The settings of the SDK's clients.

use std::sync::LazyLock;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::origin::Origin;
use aws_types::sdk_config::Builder;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use crate::http;
use crate::vars::Vars;

/// The settings of every SDK client: credentials and region as Lambda gives them, and no call that waits for ever.
pub fn sdk_config(function: &str) -> SdkConfig {
    sdk_settings(function).build()
}

/// The same before it is built, for whoever brings another HTTP client. CloudTrail shows the function's name with each call, and what
/// it publishes is counted under it.
///
/// Of the SDK's sources the environment alone counts, which is where Lambda has everything:
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime>. Profiles, web identities
/// and metadata services would take a sixth of a start.
pub fn sdk_settings(function: &str) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(8))
        .operation_timeout(Duration::from_secs(25))
        .build();
    // When much is due at once, a call may find its quota used up several times; all tries together stay within the time of one.
    let retries = RetryConfig::standard().with_max_attempts(6).with_max_backoff(Duration::from_secs(8));
    let mut settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .app_name(AppName::new(function.to_owned()).expect("letters and hyphens are a name"))
        .credentials_provider(SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()))
        .region(variable("AWS_REGION").map(Region::new))
        .http_client(http::shared())
        .timeout_config(timeouts)
        .retry_config(retries)
        .service_config(Endpoints);
    // Otherwise DynamoDB's client would have retries of its own.
    settings.insert_origin("retry_config", Origin::shared_config());
    settings.set_endpoint_url(variable("AWS_ENDPOINT_URL"));
    settings.set_use_fips(variable("AWS_USE_FIPS_ENDPOINT").map(|value| value == "true"));
    settings.set_use_dual_stack(variable("AWS_USE_DUALSTACK_ENDPOINT").map(|value| value == "true"));
    settings
}

/// A client that is made when it is first used: each takes a good part of a start, and not every invocation needs it.
pub type Seldom<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

pub fn seldom<T>(sdk: &SdkConfig, client: impl FnOnce(&SdkConfig) -> T + Send + 'static) -> Seldom<T> {
    let sdk = sdk.clone();
    LazyLock::new(Box::new(move || client(&sdk)))
}

/// Endpoints of single services, such as `AWS_ENDPOINT_URL_SECRETS_MANAGER`:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>.
#[derive(Debug)]
struct Endpoints;

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        variable(&format!("{}_{}", key.env(), key.service_id().to_uppercase().replace(' ', "_")))
    }
}

fn variable(name: &str) -> Option<String> {
    Vars::of_environment().optional(name)
}
