//! The calls to ECS: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/>.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::types::DeploymentRolloutState;
use lifecycle::fraction;
use lifecycle::names::ServiceName;
use lifecycle::rollout::{Deployment, Progress, Service};
use runtime::{Failure, Invocation, is_throttle};
use time::OffsetDateTime;
use tokio::time::sleep;

/// Services as ECS describes them, ten a call; what ECS does not know is left out.
pub(crate) async fn describe<'a>(
    ecs: &Client,
    services: impl Iterator<Item = &'a ServiceName>,
    now: OffsetDateTime,
) -> Result<BTreeMap<ServiceName, Service>, Failure> {
    let mut by_cluster: BTreeMap<&str, Vec<&ServiceName>> = BTreeMap::new();
    for service in services.collect::<BTreeSet<_>>() {
        by_cluster.entry(&service.cluster).or_default().push(service);
    }
    let mut described = BTreeMap::new();
    for (cluster, services) in by_cluster {
        for services in services.chunks(10) {
            let names = services.iter().map(|service| service.service.clone()).collect();
            let answer = match ecs.describe_services().cluster(cluster).set_services(Some(names)).send().await {
                Ok(answer) => answer,
                Err(error) if error.as_service_error().is_some_and(|error| error.is_cluster_not_found_exception()) => continue,
                Err(error) => return Err(Failure::aws(format!("look at services of the cluster {cluster}"), error)),
            };
            for service in answer.services() {
                if let Some(name) = services.iter().find(|name| service.service_name() == Some(name.service.as_str())) {
                    described.insert((*name).clone(), of(service, now));
                }
            }
        }
    }
    Ok(described)
}

/// A new deployment of the service as it is; `None` when ECS had no room for it in the time of this invocation. The SDK does not try
/// again by itself: each call that arrives makes another deployment. One that was throttled has made none.
pub(crate) async fn redeploy(
    ecs: &Client,
    service: &ServiceName,
    invocation: &Invocation,
) -> Result<Option<Deployment>, Failure> {
    let doing = || format!("redeploy {service}");
    let once = aws_sdk_ecs::config::Builder::new().retry_config(RetryConfig::disabled());
    let update = ecs.update_service().cluster(&service.cluster).service(&service.service).force_new_deployment(true);
    for tries in 0.. {
        match update.clone().customize().config_override(once.clone()).send().await {
            Ok(answer) => {
                let primary = answer.service().and_then(|service| of(service, invocation.now()).primary);
                let why = "ECS answered without the new deployment; it is looked for next time";
                return primary.ok_or_else(|| Failure::retryable(doing(), why)).map(Some);
            }
            Err(error) if !is_throttle(&error) => return Err(Failure::aws(doing(), error)),
            Err(_) if invocation.time_left() < RESERVE => break,
            Err(_) => {}
        }
        // Ever more often: else who waits longest would be left behind by those who come. Services that were refused in one moment
        // come back in different ones.
        let spread = 0.5 + fraction(&format!("{service} {tries}"));
        sleep(invocation.time_left().mul_f64(spread / 30.0)).await;
    }
    Ok(None)
}

/// Left of the invocation for what follows the call.
const RESERVE: Duration = Duration::from_secs(20);

/// Without a circuit breaker ECS tries for ever. A deployment none of whose tasks runs for so long after some have failed counts as
/// failed: the circuit breaker would have given up after as many tasks.
const STUCK: Duration = Duration::from_secs(30 * 60);

fn of(service: &aws_sdk_ecs::types::Service, now: OffsetDateTime) -> Service {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let controller = service.deployment_controller().map_or("ECS", |controller| controller.r#type().as_str());
    let primary = service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"));
    Service {
        status: text(service.status()),
        controller: controller.to_owned(),
        primary: primary.and_then(|deployment| {
            let began = OffsetDateTime::from_unix_timestamp_nanos(deployment.created_at()?.as_nanos()).ok()?;
            let is_stuck = deployment.failed_tasks() > 0 && deployment.running_count() == 0 && began + STUCK <= now;
            let progress = match deployment.rollout_state() {
                Some(DeploymentRolloutState::Completed) => Progress::Completed,
                Some(DeploymentRolloutState::Failed) => Progress::Failed,
                Some(DeploymentRolloutState::InProgress) if is_stuck => Progress::Failed,
                Some(_) => Progress::Running,
                // Not every kind of service has a rollout state; then the tasks tell.
                None if deployment.running_count() >= deployment.desired_count() => Progress::Completed,
                None => Progress::Running,
            };
            let task_definition = text(deployment.task_definition());
            let began = began.into();
            Some(Deployment { id: deployment.id()?.to_owned(), began, created: Some(began), progress, task_definition })
        }),
    }
}
