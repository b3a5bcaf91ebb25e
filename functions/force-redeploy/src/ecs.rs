//! The calls to ECS: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/>.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{CreatedAt, DeploymentRolloutState, DeploymentStrategy, StabilityStatus, TaskSet};
use aws_sdk_ecs::types::{Deployment as Deployed, Service as Described};
use lifecycle::fraction;
use lifecycle::names::ServiceName;
use lifecycle::record::Moment;
use lifecycle::rollout::{Deployment, Progress, Service, ServiceDeployment, Shown};
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
                    let listed = match stateless(service) {
                        Some(created) => service_deployment(ecs, name, created).await?,
                        None => None,
                    };
                    described.insert((*name).clone(), of(service, listed, now));
                }
            }
        }
    }
    Ok(described)
}

/// When the deployment was created whose tasks are to run, where it has no rollout state: with a strategy that shifts traffic it may
/// have none.
fn stateless(service: &Described) -> Option<OffsetDateTime> {
    let strategy = service.deployment_configuration()?.strategy()?;
    let is_stateless = |deployment: &&Deployed| {
        service.status() == Some("ACTIVE") && *strategy != DeploymentStrategy::Rolling && deployment.rollout_state().is_none()
    };
    moment(primary(service).filter(is_stateless)?.created_at()).map(|created| *created)
}

/// The service deployment of the deployment that was created then.
pub(crate) async fn service_deployment(
    ecs: &Client,
    service: &ServiceName,
    created: OffsetDateTime,
) -> Result<Option<ServiceDeployment>, Failure> {
    let after = DateTime::from_secs((created - ServiceDeployment::APART).unix_timestamp());
    let list = ecs.list_service_deployments().cluster(&service.cluster).service(&service.service);
    let list = list.created_at(CreatedAt::builder().after(after).build());
    let (mut listed, mut token) = (Vec::new(), None);
    loop {
        let answer = list.clone().set_next_token(token).send().await;
        let answer = answer.map_err(|error| Failure::aws(format!("look at the deployments of {service}"), error))?;
        listed.extend(answer.service_deployments().iter().filter_map(|found| {
            Some(ServiceDeployment {
                created: moment(found.created_at())?,
                status: found.status()?.as_str().to_owned(),
                reason: found.status_reason().map(str::to_owned),
            })
        }));
        token = answer.next_token().map(str::to_owned);
        if token.is_none() {
            return Ok(ServiceDeployment::of(created, listed));
        }
    }
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
                let primary = answer.service().and_then(|service| of(service, None, invocation.now()).primary);
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

/// A service as it is described, with the service deployment of the deployment whose tasks are to run, where that alone tells how far
/// it is.
fn of(service: &Described, listed: Option<ServiceDeployment>, now: OffsetDateTime) -> Service {
    let deployments = service.deployments().iter().filter(|found| found.running_count() + found.pending_count() > 0);
    let sets = service.task_sets().iter().filter(|found| found.running_count() + found.pending_count() > 0);
    let with_tasks = deployments.map(Deployed::created_at).chain(sets.map(TaskSet::created_at));
    let shown = Service {
        status: service.status().unwrap_or_default().to_owned(),
        controller: service.deployment_controller().map_or("ECS", |controller| controller.r#type().as_str()).to_owned(),
        primary: None,
        oldest: with_tasks.filter_map(moment).min(),
    };
    let primary = primary(service).and_then(|deployment| of_deployment(deployment, listed, now)).or_else(|| of_task_set(service));
    Service { primary: primary.map(|primary| shown.beside_older(primary)), ..shown }
}

fn primary(service: &Described) -> Option<&Deployed> {
    service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"))
}

fn of_deployment(deployment: &Deployed, listed: Option<ServiceDeployment>, now: OffsetDateTime) -> Option<Deployment> {
    let began = moment(deployment.created_at())?;
    let shown = Shown {
        rollout_state: deployment.rollout_state().map(DeploymentRolloutState::as_str),
        listed: listed.as_ref(),
        desired: deployment.desired_count(),
        running: deployment.running_count(),
        failed: deployment.failed_tasks(),
    };
    let progress = shown.progress(*began, now);
    let task_definition = deployment.task_definition().unwrap_or_default().to_owned();
    Some(Deployment { id: deployment.id()?.to_owned(), began, created: Some(began), progress, task_definition })
}

/// Services that CodeDeploy or somebody else deploys have task sets in the place of deployments.
fn of_task_set(service: &Described) -> Option<Deployment> {
    let set = service.task_sets().iter().find(|set| set.status() == Some("PRIMARY"))?;
    let began = moment(set.created_at())?;
    let is_steady = set.stability_status() == Some(&StabilityStatus::SteadyState);
    let progress = if is_steady { Progress::Completed } else { Progress::Running };
    let task_definition = set.task_definition().unwrap_or_default().to_owned();
    Some(Deployment { id: set.id()?.to_owned(), began, created: Some(began), progress, task_definition })
}

fn moment(at: Option<&DateTime>) -> Option<Moment> {
    OffsetDateTime::from_unix_timestamp_nanos(at?.as_nanos()).ok().map(Into::into)
}
