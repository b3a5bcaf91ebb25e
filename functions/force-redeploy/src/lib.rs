//! `force-redeploy`: services onto the pair that is current.
//!
//! A task reads its secrets once, when it starts. So a service is deployed anew when its running deployment began before the
//! newest of its pairs became current, both by AWS's clock. One deployment serves all pairs that were current before it began.
//!
//! A deployment that fails on a new pair is undone: the secret goes back to the pair before, and the services follow.

mod ecs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::Client as Ecs;
use aws_sdk_eventbridge::Client as EventBridge;
use lifecycle::date;
use lifecycle::events::{Detail, EcsDetail, Event, Kind};
use lifecycle::names::{CertificateName, ServiceName};
use lifecycle::record::Record;
use lifecycle::rollout::{Binding, Deployment, Fault, Lock, Progress, Rollout, Service, ServiceDeployment, rollout, waits};
use lifecycle::setback::{Blame, blame};
use records::table::Saved;
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Failures, Invocation, Trigger, metrics, publish};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub struct App {
    pub records: Records,
    pub ecs: Ecs,
    pub eventbridge: EventBridge,
    pub sweep_interval: Duration,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &aws_config::SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_reader(&mut vars);
        let minutes: Option<u64> = vars.required("EVERLEAF_SWEEP_MINUTES");
        let (settings, minutes) = vars.finish(settings.zip(minutes))?;
        Ok(Self {
            records: Records::new(sdk, settings),
            ecs: Ecs::new(sdk),
            eventbridge: EventBridge::new(sdk),
            sweep_interval: Duration::from_secs(minutes * 60),
        })
    }
}

/// A service is deployed by one invocation at a time, and a pair taken back by one. The lock outlasts an invocation, and no more.
fn lock(invocation: &Invocation, newest: Option<OffsetDateTime>) -> Lock {
    let until = invocation.now() + Duration::from_secs(150);
    Lock { holder: invocation.id.clone(), until: until.into(), newest: newest.map(Into::into) }
}

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
            // Services that have kept their old, short ARNs show no cluster there: what is ours among them the sweep sees to.
            let Ok(service) = resource.as_deref().unwrap_or_default().parse() else {
                return Ok(json!({"outcome": "unmanaged", "service": resource}));
            };
            deployment_changed(app, service, Trigger::body(detail)?, invocation).await
        }
        Trigger::Event { detail_type, detail, .. } if detail_type == Kind::CertificateCurrent.detail_type() => {
            let Detail { certificate, services, .. } = Trigger::body(detail)?;
            if let (Some(name), true) = (certificate, services.is_empty()) {
                let name = Trigger::body(Value::from(name))?;
                go_back(app, app.records.load_all([&name]).await?.iter_mut(), invocation).await?;
            }
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
            let (certificates, shown) = tokio::try_join!(app.records.load_all(&binding.certificates), async {
                match progress {
                    // Tasks of older deployments may still run.
                    Progress::Completed => ecs::describe(&app.ecs, [&service].into_iter(), invocation.now()).await,
                    _ => Ok(BTreeMap::new()),
                }
            })?;
            let ended = Deployment { progress, ..followed };
            let ended = match shown.get(&service) {
                Some(shown) => shown.beside_older(ended),
                None => ended,
            };
            covered(app, &mut binding, ended, certificates, detail.reason.as_deref(), invocation).await?;
            Ok(json!({"outcome": "followed", "service": service}))
        }
        _ => see_to(app, [service].into(), invocation).await,
    }
}

/// Looks at services and deploys those whose tasks may hold an older pair.
async fn see_to(app: &App, services: BTreeSet<ServiceName>, invocation: &Invocation) -> Result<Value, Failure> {
    let (bound, mut certificates, described) = gather(app, &services, invocation.now()).await?;
    go_back(app, certificates.values_mut(), invocation).await?;
    let (mut redeployed, mut unchanged, mut left, mut failures) = (Vec::new(), Vec::new(), Vec::new(), Failures::default());
    for service in services {
        let Some(binding) = bound.get(&service).cloned() else {
            failures.push(Failure::permanent(
                format!("redeploy {service}"),
                "no certificate has it redeployed; where its agent reloads nothing is to be done, else name it in a certificate's services",
            ));
            continue;
        };
        let certificates: Vec<_> = binding.certificates.iter().filter_map(|name| certificates.get(name).cloned()).collect();
        let waits = waits(&service, &certificates, |service| bound.get(service).map(|bound| &bound.state), invocation.now());
        match one(app, binding, described.get(&service).cloned(), certificates, waits, invocation).await {
            Ok(Done::Redeployed) => redeployed.push(service),
            Ok(Done::Unchanged) => unchanged.push(service),
            Ok(Done::Left) => left.push(service),
            Err(failure) => failures.push(failure),
        }
    }
    failures.into_result("redeploy services")?;
    let outcome = if redeployed.is_empty() { "unchanged" } else { "redeployed" };
    Ok(json!({"outcome": outcome, "redeployed": redeployed, "unchanged": unchanged, "left": left}))
}

/// What became of one service.
enum Done {
    Redeployed,
    Unchanged,
    /// ECS had no room for it. The next look at its certificates asks again.
    Left,
}

type Gathered = (BTreeMap<ServiceName, Binding>, BTreeMap<CertificateName, Record>, BTreeMap<ServiceName, Service>);

async fn gather(app: &App, services: &BTreeSet<ServiceName>, now: OffsetDateTime) -> Result<Gathered, Failure> {
    let mut bound = app.records.bindings(services).await?;
    let names: BTreeSet<_> = bound.values().flat_map(|binding| &binding.certificates).collect();
    let (records, described) = tokio::try_join!(app.records.load_all(names), ecs::describe(&app.ecs, bound.keys(), now))?;
    let canaries = records.iter().filter_map(|record| record.options.canary.as_ref());
    let canaries: BTreeSet<_> = canaries.filter(|canary| !services.contains(canary)).collect();
    if !canaries.is_empty() {
        bound.extend(app.records.bindings(canaries).await?);
    }
    Ok((bound, records.into_iter().map(|record| (record.name.clone(), record)).collect(), described))
}

/// Finishes setbacks that were begun. What follows from them is asked for at the end: else it would be tried beside this.
async fn go_back(app: &App, records: impl Iterator<Item = &mut Record>, invocation: &Invocation) -> Result<(), Failure> {
    let (mut asked, mut failures) = (Vec::new(), Failures::default());
    for record in records {
        match finish(app, record, invocation).await {
            Ok(events) => asked.extend(events),
            Err(failure) => failures.push(failure),
        }
    }
    publish(&app.eventbridge, &asked).await?;
    failures.into_result("go back to the pairs before")
}

async fn finish(app: &App, record: &mut Record, invocation: &Invocation) -> Result<Vec<Event>, Failure> {
    let Some(gone) = app.records.go_back(record, lock(invocation, None), invocation.now()).await? else { return Ok(Vec::new()) };
    publish(&app.eventbridge, &gone.told).await?;
    app.records.update(record).await?;
    Ok(gone.asked)
}

/// One service. One that waits is not deployed, and what somebody else has deployed is followed all the same.
async fn one(
    app: &App,
    mut binding: Binding,
    service: Option<Service>,
    certificates: Vec<Record>,
    waits: bool,
    invocation: &Invocation,
) -> Result<Done, Failure> {
    let newest = certificates.iter().filter_map(|record| record.current.as_ref()).map(|pair| *pair.since).max();
    let Some(newest) = newest else { return Ok(Done::Unchanged) };
    let dated = |service: Service| Service { primary: service.primary.map(|primary| binding.state.dated(primary)), ..service };
    // Once more than needed is the safe side, and nobody here can deploy what has a controller of its own.
    let service = service.map(|service| if service.controller == "ECS" { dated(service) } else { service });
    if let Some(followed) = service.as_ref().and_then(|service| binding.state.replaced(service, newest)).cloned()
        && let Some(rolled_back) = rolled_back(app, &binding.service, &followed).await?
    {
        let failed = Deployment { progress: Progress::Failed, ..followed };
        covered(app, &mut binding, failed, certificates, rolled_back.reason.as_deref(), invocation).await?;
        return Ok(Done::Unchanged);
    }
    match rollout(service.as_ref(), newest) {
        Rollout::Covered(deployment) => {
            covered(app, &mut binding, deployment, certificates, None, invocation).await?;
            Ok(Done::Unchanged)
        }
        _ if waits => Ok(Done::Unchanged),
        Rollout::Redeploy => {
            if let Some(running) = service.and_then(|service| service.primary) {
                binding.state.follow(running);
            }
            redeploy(app, &mut binding, certificates, newest, invocation).await
        }
        Rollout::Refused(reason) => Err(refused(app, &mut binding, certificates, reason, invocation.now()).await?),
    }
}

/// The service deployment of a deployment that was rolled back. ECS has an event for that only where its circuit breaker is on: none
/// for an alarm, a hook, a person, or a strategy that shifts traffic.
async fn rolled_back(app: &App, service: &ServiceName, followed: &Deployment) -> Result<Option<ServiceDeployment>, Failure> {
    let Some(created) = followed.created else { return Ok(None) };
    Ok(ecs::service_deployment(&app.ecs, service, *created).await?.filter(ServiceDeployment::is_rolled_back))
}

/// Locks the service, deploys it, and notes which deployment to follow. ECS takes no token with this call, so after an unknown
/// outcome nobody calls again before having looked.
async fn redeploy(
    app: &App,
    binding: &mut Binding,
    certificates: Vec<Record>,
    newest: OffsetDateTime,
    invocation: &Invocation,
) -> Result<Done, Failure> {
    let (now, service) = (invocation.now(), binding.service.clone());
    let doing = format!("redeploy {service}");
    if let Some(until) = binding.state.lock.as_ref().and_then(|lock| lock.keeps_out(&invocation.id, now)) {
        return Err(Failure::busy(doing, until));
    }
    binding.state.lock = Some(lock(invocation, Some(newest)));
    app.records.save_binding(binding).await?.or_retry(format_args!("the lock of {service}"))?;
    let deployment = match ecs::redeploy(&app.ecs, &service, invocation).await {
        Err(failure) if failure.is_permanent() => {
            return Err(refused(app, binding, certificates, failure.reason(), invocation.now()).await?);
        }
        answer => answer?,
    };
    let Some(deployment) = deployment else {
        binding.state.lock = None;
        // Overtaken: a certificate was bound meanwhile, and the lock ends by itself.
        let _: Saved = app.records.save_binding(binding).await?;
        tracing::info!(service.name = %service, "ECS had no room for a deployment of {service}: it is left to the next look");
        return Ok(Done::Left);
    };
    metrics(&[("Stack", &app.records.settings.prefix)], &[("RolloutsStarted", 1.0)]);
    let deployment = deployment.begun_after(newest);
    let id = deployment.id.clone();
    binding.state.lock = None;
    binding.state.fault = None;
    binding.state.follow(deployment);
    // Overtaken: a certificate was bound meanwhile. The deployment is then found by looking at the service.
    let _: Saved = app.records.save_binding(binding).await?;
    tracing::info!(service.name = %service, deployment.id = id, "Redeployed {service} for what became current {}", date(newest));
    Ok(Done::Redeployed)
}

/// This deployment is new enough. Notes how far it is, and sees to what follows when it has come to its end.
async fn covered(
    app: &App,
    binding: &mut Binding,
    deployment: Deployment,
    certificates: Vec<Record>,
    reason: Option<&str>,
    invocation: &Invocation,
) -> Result<(), Failure> {
    let (service, now) = (binding.service.clone(), invocation.now());
    let message = format!(
        "the deployment {} of {service} failed{}",
        deployment.id,
        reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
    );
    let progress = deployment.progress;
    let Some((to_blame, others)) = binding.state.cover(deployment, certificates) else { return Ok(()) };
    let (undone, stuck) = undo(app, to_blame, &message, invocation).await?;
    let told = binding.state.conclude(&message, undone, stuck, &others, now);
    app.records.save_binding(binding).await?.or_retry(format_args!("what is known of {service}"))?;
    if progress == Progress::Completed {
        // What became current while it was under way has another deployment.
        let is_on = |record: &Record| record.current.as_ref().is_some_and(|pair| binding.state.is_on(*pair.since));
        completed(app, &service, others.into_iter().filter(is_on).collect()).await?;
    }
    for (record, reason) in told {
        tell(app, vec![record], "rollout-failed", &reason, now).await?;
    }
    Ok(())
}

/// Takes the pairs back that a deployment failed on. Whether there was one, and those that cannot go back, with the reason.
async fn undo(
    app: &App,
    records: Vec<Record>,
    message: &str,
    invocation: &Invocation,
) -> Result<(bool, Vec<(Record, String)>), Failure> {
    let (now, mut undone, mut stuck) = (invocation.now(), Vec::new(), Vec::new());
    for mut record in records {
        match blame(&record, message, app.sweep_interval, now) {
            Blame::Stuck(why) => {
                stuck.push((record, format!("{message}, and {why}")));
                continue;
            }
            // Another invocation is at it, or was.
            Blame::None => {}
            Blame::Undo(setback) => app.records.set_back(&mut record, setback, lock(invocation, None)).await?,
        }
        undone.push(record);
    }
    go_back(app, undone.iter_mut(), invocation).await?;
    Ok((undone.iter().any(|record| record.set_back().is_some()), stuck))
}

/// Every task of the service reads what is current: that is told, the services that waited for this one follow, and a pair that works
/// everywhere ends the row of those that did not.
async fn completed(app: &App, service: &ServiceName, certificates: Vec<Record>) -> Result<(), Failure> {
    let prefix = &app.records.settings.prefix;
    let mut events = Vec::new();
    for record in &certificates {
        let mut event = Event::about(Kind::ServicesRedeployed, prefix, record, "deployment completed");
        event.detail.services = [service.clone()].into();
        events.push(event);
        if record.options.canary.as_ref() == Some(service) {
            let mut event = Event::about(Kind::CertificateCurrent, prefix, record, "the canary works with it");
            event.detail.services.remove(service);
            events.extend((!event.detail.services.is_empty()).then_some(event));
        }
    }
    publish(&app.eventbridge, &events).await?;
    for mut record in certificates {
        let (Some(_), None, Some(current)) = (&record.setback, record.set_back(), &record.current) else { continue };
        let services = record.options.services.clone();
        let bound = app.records.bindings(&services).await?;
        if services.iter().all(|service| bound.get(service).is_some_and(|bound| bound.state.is_on(*current.since))) {
            record.setback = None;
            // Overtaken: it is found again at the next pair.
            let _: Saved = app.records.save(&mut record, &services).await?;
        }
    }
    Ok(())
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
        if let Some(event) = app.records.tell(&mut record, code, message, now) {
            app.records.update(&mut record).await?;
            publish(&app.eventbridge, &[event]).await?;
        }
    }
    Ok(())
}
