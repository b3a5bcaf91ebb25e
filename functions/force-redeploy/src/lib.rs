//! `force-redeploy`: services onto the pair that is current.
//!
//! A task reads its secrets once, when it starts. So a service is deployed anew when its running deployment began before the
//! newest of its pairs became current, both by AWS's clock. One deployment serves all pairs that were current before it began.

mod ecs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::Client as Ecs;
use aws_sdk_eventbridge::Client as EventBridge;
use lifecycle::date;
use lifecycle::events::{Detail, EcsDetail, Event, Kind};
use lifecycle::names::{CertificateName, ServiceName};
use lifecycle::record::Record;
use lifecycle::rollout::{Binding, Deployment, Fault, Lock, Progress, Rollout, Service, rollout};
use records::table::Saved;
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Invocation, Trigger, publish};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub struct App {
    pub records: Records,
    pub ecs: Ecs,
    pub eventbridge: EventBridge,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &aws_config::SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_reader(&mut vars);
        let settings = vars.finish(settings)?;
        Ok(Self {
            records: Records {
                dynamodb: aws_sdk_dynamodb::Client::new(sdk),
                secretsmanager: aws_sdk_secretsmanager::Client::new(sdk),
                settings,
            },
            ecs: Ecs::new(sdk),
            eventbridge: EventBridge::new(sdk),
        })
    }
}

/// A service is deployed by one invocation at a time. The lock outlasts an invocation, and no more.
const LOCK: Duration = Duration::from_secs(150);

/// A request by hand: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    certificate: Option<CertificateName>,
    services: Option<BTreeSet<ServiceName>>,
}

const USAGE: &str = "give either `certificate` (its name) or `services` (a list of `cluster/service`)";

pub async fn handle(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    match Trigger::parse(event)? {
        Trigger::Event { source, resource, detail, .. } if source == "aws.ecs" => {
            let service = resource.unwrap_or_default().parse();
            let service = service.map_err(|error| Failure::permanent("read which service the event is about", error))?;
            deployment_changed(app, service, Trigger::body(detail)?, invocation).await
        }
        Trigger::Event { detail_type, detail, .. } if detail_type == Kind::CertificateCurrent.detail_type() => {
            let Detail { services, .. } = Trigger::body(detail)?;
            see_to(app, services, invocation).await
        }
        Trigger::Event { detail_type, .. } => Err(Failure::permanent(
            "take the event",
            format!("`{detail_type}` is not for this function; mend the rule that sent it"),
        )),
        Trigger::ByHand(request) => match Trigger::request(request, USAGE)? {
            Request { certificate: Some(name), services: None } => match app.records.load(&name).await? {
                Some(record) => see_to(app, record.options.services, invocation).await,
                None => Err(Failure::permanent(format!("redeploy the services of `{name}`"), "there is no such certificate")),
            },
            Request { certificate: None, services: Some(services) } if !services.is_empty() => {
                see_to(app, services, invocation).await
            }
            _ => Err(Failure::permanent("read the request", USAGE)),
        },
    }
}

/// A deployment ended. When it is the one that was followed, that is noted; any other is a reason to look.
async fn deployment_changed(
    app: &App,
    service: ServiceName,
    detail: EcsDetail,
    invocation: &Invocation,
) -> Result<Value, Failure> {
    let Some(mut binding) = app.records.bindings([&service]).await?.remove(&service) else {
        return Ok(json!({"outcome": "unmanaged", "service": service}));
    };
    let progress = match detail.event_name.as_str() {
        "SERVICE_DEPLOYMENT_COMPLETED" => Progress::Completed,
        "SERVICE_DEPLOYMENT_FAILED" => Progress::Failed,
        _ => Progress::Running,
    };
    match binding.state.deployment.clone() {
        Some(followed) if followed.id == detail.deployment_id => {
            let certificates = app.records.load_all(&binding.certificates).await?;
            let ended = Deployment { progress, ..followed };
            covered(app, &mut binding, ended, certificates, detail.reason.as_deref(), invocation.now()).await?;
            Ok(json!({"outcome": "followed", "service": service}))
        }
        _ => see_to(app, [service].into(), invocation).await,
    }
}

/// Looks at services and deploys those whose tasks may hold an older pair.
async fn see_to(app: &App, services: BTreeSet<ServiceName>, invocation: &Invocation) -> Result<Value, Failure> {
    let (bound, certificates, described) = gather(app, &services).await?;
    let (mut redeployed, mut unchanged, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for service in services {
        let Some(binding) = bound.get(&service).cloned() else {
            failures.push(Failure::permanent(
                format!("redeploy {service}"),
                "no certificate has it redeployed; where its agent reloads nothing is to be done, else name it in a certificate's services",
            ));
            continue;
        };
        let certificates: Vec<_> = binding.certificates.iter().filter_map(|name| certificates.get(name).cloned()).collect();
        match one(app, binding, described.get(&service), certificates, invocation).await {
            Ok(true) => redeployed.push(service),
            Ok(false) => unchanged.push(service),
            Err(failure) => failures.push(failure),
        }
    }
    Failure::several("redeploy services", failures)?;
    let outcome = if redeployed.is_empty() { "unchanged" } else { "redeployed" };
    Ok(json!({"outcome": outcome, "redeployed": redeployed, "unchanged": unchanged}))
}

type Gathered = (BTreeMap<ServiceName, Binding>, BTreeMap<CertificateName, Record>, BTreeMap<ServiceName, Service>);

async fn gather(app: &App, services: &BTreeSet<ServiceName>) -> Result<Gathered, Failure> {
    let bound = app.records.bindings(services).await?;
    let names: BTreeSet<_> = bound.values().flat_map(|binding| &binding.certificates).collect();
    let records = app.records.load_all(names).await?;
    let described = ecs::describe(&app.ecs, bound.keys()).await?;
    Ok((bound, records.into_iter().map(|record| (record.name.clone(), record)).collect(), described))
}

/// One service; whether it was deployed.
async fn one(
    app: &App,
    mut binding: Binding,
    service: Option<&Service>,
    certificates: Vec<Record>,
    invocation: &Invocation,
) -> Result<bool, Failure> {
    let newest = certificates.iter().filter_map(|record| record.current.as_ref()).map(|pair| *pair.since).max();
    let Some(newest) = newest else { return Ok(false) };
    match rollout(service, newest) {
        Rollout::Covered(deployment) => {
            covered(app, &mut binding, deployment, certificates, None, invocation.now()).await?;
            Ok(false)
        }
        Rollout::Redeploy => {
            redeploy(app, &mut binding, newest, invocation).await?;
            Ok(true)
        }
        Rollout::Refused(reason) => Err(refused(app, &mut binding, certificates, reason, invocation.now()).await?),
    }
}

/// Locks the service, deploys it, and notes which deployment to follow. ECS takes no token with this call, so after an unknown
/// outcome nobody calls again before having looked.
async fn redeploy(app: &App, binding: &mut Binding, newest: OffsetDateTime, invocation: &Invocation) -> Result<(), Failure> {
    let (now, service) = (invocation.now(), binding.service.clone());
    let doing = format!("redeploy {service}");
    if let Some(lock) = &binding.state.lock
        && *lock.until > now
        && lock.holder != invocation.id
    {
        return Err(Failure::retryable(
            doing,
            format!("another invocation is at it; it may be tried again after {}", date(*lock.until)),
        ));
    }
    binding.state.lock = Some(Lock { holder: invocation.id.clone(), until: (now + LOCK).into() });
    app.records.save_binding(binding).await?.or_retry(format_args!("the lock of {service}"))?;
    let deployment = ecs::redeploy(&app.ecs, &service).await?;
    let id = deployment.id.clone();
    binding.state.lock = None;
    binding.state.fault = None;
    binding.state.deployment = Some(deployment);
    // Overtaken: a certificate was bound meanwhile. The deployment is then found by looking at the service.
    let _: Saved = app.records.save_binding(binding).await?;
    tracing::info!(service.name = %service, deployment.id = id, "Redeployed {service} for what became current {}", date(newest));
    Ok(())
}

/// This deployment is new enough. Notes how far it is, and tells when it has come to its end.
async fn covered(
    app: &App,
    binding: &mut Binding,
    deployment: Deployment,
    certificates: Vec<Record>,
    reason: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), Failure> {
    if binding.state.deployment.as_ref() == Some(&deployment) && binding.state.fault.is_none() {
        return Ok(());
    }
    let service = binding.service.clone();
    binding.state.deployment = Some(deployment.clone());
    (binding.state.lock, binding.state.fault) = (None, None);
    app.records.save_binding(binding).await?.or_retry(format_args!("what is known of {service}"))?;
    match deployment.progress {
        Progress::Running => Ok(()),
        Progress::Completed => {
            let events: Vec<_> = certificates
                .iter()
                .map(|record| {
                    let mut event =
                        Event::about(Kind::ServicesRedeployed, &app.records.settings.prefix, record, "deployment completed");
                    event.detail.services = [service.clone()].into();
                    event
                })
                .collect();
            publish(&app.eventbridge, &events).await
        }
        Progress::Failed => {
            let message = format!(
                "the deployment {} of {service} failed{}; see to the service, then deploy it",
                deployment.id,
                reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
            );
            tell(app, certificates, "rollout-failed", &message, now).await
        }
    }
}

/// Notes why the service cannot be deployed, tells a person once a day, and gives the failure.
async fn refused(
    app: &App,
    binding: &mut Binding,
    certificates: Vec<Record>,
    reason: String,
    now: OffsetDateTime,
) -> Result<Failure, Failure> {
    let service = binding.service.clone();
    binding.state.lock = None;
    binding.state.fault = Some(Fault { at: now.into(), reason: reason.clone() });
    app.records.save_binding(binding).await?.or_retry(format_args!("what is known of {service}"))?;
    let message = format!("{service} cannot be redeployed: {reason}");
    tell(app, certificates, "service-refused", &message, now).await?;
    Ok(Failure::permanent(format!("redeploy {service}"), reason))
}

async fn tell(app: &App, certificates: Vec<Record>, code: &str, message: &str, now: OffsetDateTime) -> Result<(), Failure> {
    for Record { name, .. } in certificates {
        // Afresh: another service of the same certificate may just have been told of.
        let Some(mut record) = app.records.load(&name).await? else { continue };
        let services = record.options.services.clone();
        if let Some(event) = app.records.tell(&mut record, code, message, now) {
            app.records.save(&mut record, &services).await?.or_retry(format_args!("the record of `{}`", record.name))?;
            publish(&app.eventbridge, &[event]).await?;
        }
    }
    Ok(())
}
