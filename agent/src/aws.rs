//! What the agent asks of AWS: which version of a secret is current, and its value.

use std::error::Error;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use secrecy::SecretString;

/// A client with the credentials of the environment or of the ECS task. `region` is that of AWS's variables when it is `None`.
pub async fn client(region: Option<String>) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(8))
        .operation_timeout(Duration::from_secs(25))
        .build();
    let credentials = CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("ECS task", EcsCredentialsProvider::builder().build());
    let mut settings = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).credentials_provider(credentials);
    if let Some(region) = region {
        settings = settings.region(Region::new(region));
    }
    Client::new(&settings.load().await)
}

/// The version that `AWSCURRENT` is on.
pub async fn current_version(client: &Client, secret: &str) -> Result<String, String> {
    let answer = client.describe_secret().secret_id(secret).send().await.map_err(explain)?;
    let mut stages = answer.version_ids_to_stages.unwrap_or_default().into_iter();
    let current = stages.find(|(_, labels)| labels.iter().any(|label| label == "AWSCURRENT"));
    current.map(|(version, _)| version).ok_or_else(|| "the secret has no current version".to_owned())
}

/// The current version and its value.
pub async fn current_value(client: &Client, secret: &str) -> Result<(String, SecretString), String> {
    let answer = client.get_secret_value().secret_id(secret).send().await.map_err(explain)?;
    match (answer.version_id, answer.secret_string) {
        (Some(version), Some(value)) => Ok((version, value.into())),
        _ => Err("the secret's current version holds no text".to_owned()),
    }
}

/// An error's code and message, or its causes: never its `Debug`, which shows the answer and with it what the secret holds.
fn explain<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> String {
    if let (Some(code), message) = (error.code(), error.message()) {
        return format!("{code}: {}", message.unwrap_or("no message"));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
