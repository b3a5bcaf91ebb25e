//! Amazon ECS: services whose deployments progress with the clock, and tasks that read their secrets when they start.
//!
//! A deployment starts its tasks one after another; for each that runs, one of an older deployment stops; when all run, the
//! deployment is complete. Tasks that do not start are tried again, ever more slowly, and trip the
//! [circuit breaker](https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html) where it is on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::{AwsError, Timer, World};

/// From a deployment to its first running task; all run before twice that is over.
const TASK_START: Duration = Duration::seconds(30);
/// Between two tries of a task that never starts.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-throttle-logic.html>
const SLOWEST_RETRY: Duration = Duration::minutes(27);
/// What a service deployment takes from `PENDING` to `IN_PROGRESS`, and from `STOP_REQUESTED` to `STOPPED`.
const SETTLING: Duration = Duration::seconds(2);
/// What a deleted service takes to stop its tasks.
const DRAINING: Duration = Duration::seconds(30);
/// How long service deployments are listed.
const HISTORY: Duration = Duration::days(90);

#[derive(Default)]
pub struct Ecs {
    /// The tags by the name.
    clusters: BTreeMap<String, Value>,
    /// The revisions by the family.
    task_definitions: BTreeMap<String, Vec<Value>>,
    /// By `cluster/service`, the end of the ARN. Networks, load balancers and capacity are accepted and mean nothing.
    services: BTreeMap<String, Service>,
    failing: BTreeMap<String, u32>,
    lingering: BTreeSet<String>,
}

struct Service {
    key: String,
    arn: String,
    status: &'static str,
    created_at: OffsetDateTime,
    desired_count: usize,
    task_definition: String,
    controller: String,
    configuration: Value,
    tags: Value,
    events: Vec<Value>,
    /// The newest first: the `PRIMARY` one. Task sets, for another controller than `ECS`.
    deployments: Vec<Deployment>,
    /// As `DescribeServiceDeployments` shows them, the oldest first: one update each, with its rollback, if any.
    service_deployments: Vec<Value>,
    revisions: Vec<Value>,
    /// What a rollback goes back to, task definition and service revision; nothing once one has begun.
    completed: Option<(String, String)>,
    drained_at: Option<OffsetDateTime>,
    timer: Option<OffsetDateTime>,
}

struct Deployment {
    id: String,
    revision: String,
    task_definition: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    state: &'static str,
    reason: String,
    tasks: Vec<Task>,
    /// Counted until the first task runs, and zero from then on.
    failed_tasks: usize,
    has_run: bool,
    /// By [`Ecs::fail_deployments`].
    fails: bool,
}

struct Task {
    arn: String,
    created_at: OffsetDateTime,
    starts_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    /// How many tasks before this one did not start in its place.
    failures: u32,
    values: BTreeMap<String, String>,
}

impl Ecs {
    /// What each running task of a service read from its secrets when it started, by the name of the environment variable.
    pub fn running_values(&self, cluster: &str, service: &str) -> Vec<BTreeMap<String, String>> {
        let key = format!("{cluster}/{service}");
        self.tasks()
            .filter(|(service, _, task)| service.key == key && task.runs())
            .map(|(.., task)| task.values.clone())
            .collect()
    }

    /// No task of the next `count` deployments of a service starts. A rollback is a deployment too.
    pub fn fail_deployments(&mut self, cluster: &str, service: &str, count: u32) {
        self.failing.insert(format!("{cluster}/{service}"), count);
    }

    /// Whether tasks of older deployments run on beside those of a new one, and when that is complete.
    pub fn old_tasks_linger(&mut self, cluster: &str, service: &str, linger: bool) {
        let key = format!("{cluster}/{service}");
        if linger {
            self.lingering.insert(key);
        } else {
            self.lingering.remove(&key);
            self.services.get_mut(&key).into_iter().for_each(Service::stop_surplus);
        }
    }

    fn tasks(&self) -> impl Iterator<Item = (&Service, &Deployment, &Task)> {
        let deployments =
            self.services.values().flat_map(|service| service.deployments.iter().map(move |found| (service, found)));
        deployments.flat_map(|(service, deployment)| deployment.tasks.iter().map(move |task| (service, deployment, task)))
    }

    /// By ARN, `family:revision` or `family`, which means the latest.
    fn task_definition(&self, name: &str) -> Option<&Value> {
        let name = name.rsplit('/').next()?;
        match name.split_once(':') {
            Some((family, revision)) => self.task_definitions.get(family)?.get(revision.parse::<usize>().ok()?.checked_sub(1)?),
            None => self.task_definitions.get(name)?.last(),
        }
    }
}

/// Answers one operation.
pub fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    match operation {
        "CreateCluster" => {
            let name = input["clusterName"].as_str().unwrap_or("default");
            world.ecs.clusters.entry(name.to_owned()).or_insert_with(|| input["tags"].clone());
            Ok(json!({ "cluster": cluster_description(world, name) }))
        }
        "DescribeClusters" => {
            let default = ["default".into()];
            let asked = input["clusters"].as_array().map_or(&default[..], Vec::as_slice);
            Ok(described("clusters", asked, |name| {
                let name = name.rsplit('/').next().filter(|name| world.ecs.clusters.contains_key(*name));
                name.map(|name| cluster_description(world, name))
            }))
        }
        "ListClusters" => {
            let clusters = world.ecs.clusters.keys().map(|name| world.arn("ecs", &format!("cluster/{name}")).into());
            page(input, "clusterArns", clusters.collect(), 100)
        }
        "RegisterTaskDefinition" => register_task_definition(world, now, input),
        "DescribeTaskDefinition" => match world.ecs.task_definition(required(input, "taskDefinition")?) {
            Some(found) => Ok(json!({ "taskDefinition": found, "tags": [] })),
            None => Err(AwsError::new("ClientException", "Unable to describe task definition.")),
        },
        "CreateService" => create_service(world, now, input),
        "UpdateService" => update_service(world, now, input),
        "DeleteService" => delete_service(world, now, input),
        "DescribeServices" => {
            let (cluster, asked) = (cluster(world, input)?, at_most(input, "services", 10)?);
            let tags = input["include"].as_array().is_some_and(|include| include.contains(&"TAGS".into()));
            for name in asked.iter().filter_map(Value::as_str) {
                service_key(&cluster, name)?;
            }
            Ok(described("services", asked, |name| Some(service(world, &cluster, name).ok()?.description(world, tags))))
        }
        "ListServices" => {
            let prefix = format!("{}/", cluster(world, input)?);
            let services = world.ecs.services.values();
            let services = services.filter(|service| service.key.starts_with(&prefix) && service.status != "INACTIVE");
            page(input, "serviceArns", services.map(|service| service.arn.clone().into()).collect(), 10)
        }
        "ListServiceDeployments" => list_service_deployments(world, now, input),
        "DescribeServiceDeployments" => {
            let all: Vec<_> = world.ecs.services.values().flat_map(|service| &service.service_deployments).collect();
            let find = |arn: &str| all.iter().find(|found| found["serviceDeploymentArn"] == arn).copied().cloned();
            Ok(described("serviceDeployments", at_most(input, "serviceDeploymentArns", 20)?, find))
        }
        "DescribeServiceRevisions" => {
            let all: Vec<_> = world.ecs.services.values().flat_map(|service| &service.revisions).collect();
            let find = |arn: &str| all.iter().find(|found| found["serviceRevisionArn"] == arn).copied().cloned();
            Ok(described("serviceRevisions", at_most(input, "serviceRevisionArns", 20)?, find))
        }
        "StopServiceDeployment" => stop_service_deployment(world, now, input),
        "ListTasks" => {
            let cluster = cluster(world, input)?;
            let of = input["serviceName"].as_str().map(|name| service(world, &cluster, name)).transpose()?;
            let listed = |found: &Service| of.map_or_else(|| found.cluster() == cluster, |of| of.key == found.key);
            let stopped = input["desiredStatus"] == "STOPPED";
            let tasks = world.ecs.tasks().filter(|(service, ..)| !stopped && listed(service));
            page(input, "taskArns", tasks.map(|(.., task)| task.arn.clone().into()).collect(), 100)
        }
        "DescribeTasks" => {
            let (cluster, asked) = (cluster(world, input)?, at_most(input, "tasks", 100)?);
            Ok(described("tasks", asked, |name| {
                let arn = world.arn("ecs", &format!("task/{cluster}/{}", name.rsplit('/').next()?));
                let (service, deployment, task) = world.ecs.tasks().find(|(.., task)| task.arn == arn)?;
                Some(task.description(world, service, deployment))
            }))
        }
        _ => Err(AwsError::unknown_operation("ecs", operation)),
    }
}

/// A timer asked for earlier has come.
pub(crate) fn due(world: &mut World, now: OffsetDateTime, service_arn: &str) {
    let key = service_arn.split_once(":service/").map_or("", |(_, key)| key);
    if let Some(mut service) = world.ecs.services.remove(key) {
        progress(world, now, &mut service);
        keep(world, now, service);
    }
}

fn register_task_definition(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let family = required(input, "family")?.to_owned();
    if input["containerDefinitions"].as_array().is_none_or(Vec::is_empty) {
        return Err(AwsError::new("ClientException", "Container list cannot be empty."));
    }
    let revision = world.ecs.task_definitions.get(&family).map_or(0, Vec::len) + 1;
    let mut definition = input.clone();
    let tags = definition.as_object_mut().and_then(|members| members.remove("tags")).unwrap_or_else(|| json!([]));
    definition["taskDefinitionArn"] = world.arn("ecs", &format!("task-definition/{family}:{revision}")).into();
    definition["revision"] = revision.into();
    definition["status"] = "ACTIVE".into();
    definition["registeredAt"] = epoch(now);
    world.ecs.task_definitions.entry(family).or_default().push(definition.clone());
    Ok(json!({ "taskDefinition": definition, "tags": tags }))
}

fn create_service(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let key = format!("{}/{}", cluster(world, input)?, required(input, "serviceName")?);
    match world.ecs.services.get(&key).map(|service| service.status) {
        Some("ACTIVE") => return Err(invalid("Creation of service was not idempotent.")),
        Some("DRAINING") => return Err(invalid("Unable to Start a service that is still Draining.")),
        _ => {}
    }
    let desired_count = input["desiredCount"].as_u64().ok_or_else(|| invalid("desiredCount cannot be null."))?;
    let mut service = Service {
        arn: world.arn("ecs", &format!("service/{key}")),
        key,
        status: "ACTIVE",
        created_at: now,
        desired_count: desired_count as usize,
        task_definition: task_definition_arn(world, required(input, "taskDefinition")?)?,
        controller: input["deploymentController"]["type"].as_str().unwrap_or("ECS").to_owned(),
        configuration: json!({
            "strategy": "ROLLING", "maximumPercent": 200, "minimumHealthyPercent": 100, "bakeTimeInMinutes": 0,
            "deploymentCircuitBreaker": { "enable": false, "rollback": false },
        }),
        tags: input["tags"].clone(),
        events: Vec::new(),
        deployments: Vec::new(),
        service_deployments: Vec::new(),
        revisions: Vec::new(),
        completed: None,
        drained_at: None,
        timer: None,
    };
    service.configure(input);
    if service.controller == "ECS" {
        deploy(world, now, &mut service, None);
    }
    Ok(json!({ "service": keep(world, now, service) }))
}

/// There is no client token: every call with `forceNewDeployment` starts a deployment, and supersedes one that is under way.
fn update_service(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let cluster = cluster(world, input)?;
    let current = service(world, &cluster, required(input, "service")?)?;
    if current.status != "ACTIVE" {
        return Err(AwsError::new("ServiceNotActiveException", "Service was not ACTIVE."));
    }
    let forced = input["forceNewDeployment"] == true;
    let definition = input["taskDefinition"].as_str().map(|name| task_definition_arn(world, name)).transpose()?;
    if current.controller != "ECS" && (forced || definition.is_some()) {
        let (what, controller) = (if forced { "force a new deployment" } else { "update task definition" }, &current.controller);
        let instead = if controller == "CODE_DEPLOY" { " Use AWS CodeDeploy to trigger a new deployment." } else { "" };
        return Err(invalid(&format!("Unable to {what} on services with a {controller} deployment controller.{instead}")));
    }
    let mut service = take(world, &current.key.clone())?;
    service.configure(input);
    if let Some(desired_count) = input["desiredCount"].as_u64() {
        service.desired_count = desired_count as usize;
    }
    let definition = definition.filter(|definition| *definition != service.task_definition);
    if forced || definition.is_some() {
        service.task_definition = definition.unwrap_or(service.task_definition);
        deploy(world, now, &mut service, None);
    } else {
        scale(world, now, &mut service);
    }
    Ok(json!({ "service": keep(world, now, service) }))
}

fn delete_service(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let cluster = cluster(world, input)?;
    let current = service(world, &cluster, required(input, "service")?)?;
    if current.status != "ACTIVE" {
        return Err(service_not_found());
    }
    if current.desired_count > 0 && input["force"] != true {
        return Err(invalid("The service cannot be stopped while it is scaled above 0."));
    }
    let mut service = take(world, &current.key.clone())?;
    service.status = "DRAINING";
    service.desired_count = 0;
    service.drained_at = Some(now + DRAINING);
    service.service_deployments.clear();
    service.deployments.iter_mut().for_each(|deployment| deployment.tasks.retain(Task::runs));
    Ok(json!({ "service": keep(world, now, service) }))
}

fn list_service_deployments(world: &World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let cluster = cluster(world, input)?;
    let service = service(world, &cluster, required(input, "service")?)?;
    let bounds = &input["createdAt"];
    let (after, before) = (bounds["after"].as_f64(), bounds["before"].as_f64());
    let oldest = epoch(now - HISTORY);
    let wanted = |found: &&Value| {
        let created = found["createdAt"].as_f64();
        created > oldest.as_f64()
            && after.is_none_or(|after| created > Some(after))
            && before.is_none_or(|before| created < Some(before))
            && input["status"].as_array().is_none_or(|statuses| statuses.is_empty() || statuses.contains(&found["status"]))
    };
    let brief = |found: &Value| {
        let mut brief = json!({
            "serviceDeploymentArn": found["serviceDeploymentArn"], "serviceArn": service.arn, "clusterArn": found["clusterArn"],
            "targetServiceRevisionArn": found["targetServiceRevision"]["arn"], "createdAt": found["createdAt"],
            "startedAt": found["startedAt"], "finishedAt": found["finishedAt"], "status": found["status"],
            "statusReason": found["statusReason"],
        });
        brief.as_object_mut().into_iter().for_each(|members| members.retain(|_, value| !value.is_null()));
        brief
    };
    page(input, "serviceDeployments", service.service_deployments.iter().rev().filter(wanted).map(brief).collect(), 20)
}

/// A person has the deployment under way rolled back.
fn stop_service_deployment(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let arn = required(input, "serviceDeploymentArn")?;
    if input["stopType"].as_str().is_some_and(|kind| kind != "ROLLBACK") {
        return Err(invalid("stopType must be ROLLBACK."));
    }
    let has = |service: &&Service| service.service_deployments.iter().any(|found| found["serviceDeploymentArn"] == arn);
    let Some(key) = world.ecs.services.values().find(has).map(|service| service.key.clone()) else {
        return Err(AwsError::new("ServiceDeploymentNotFoundException", "Service deployment not found."));
    };
    let mut service = take(world, &key)?;
    let last = service.service_deployments.last().filter(|last| last["serviceDeploymentArn"] == arn);
    let is_under_way = last.is_some_and(|last| last["finishedAt"].is_null() && last["rollback"].is_null());
    if is_under_way {
        fail(world, now, &mut service, "Service deployment was stopped by a user.", true);
    }
    keep(world, now, service);
    match is_under_way {
        true => Ok(json!({ "serviceDeploymentArn": arn })),
        false => Err(AwsError::new("ConflictException", "The service deployment is not in progress.")),
    }
}

/// As CodeDeploy does it, or whoever controls the service: a new task set, `PRIMARY` from the start.
pub fn deploy_task_set(world: &mut World, now: OffsetDateTime, cluster: &str, service: &str) -> Result<(), AwsError> {
    let mut service = take(world, &format!("{cluster}/{service}"))?;
    deploy(world, now, &mut service, None);
    keep(world, now, service);
    Ok(())
}

/// Starts a deployment of what the service is now. A rollback, to a revision that has been there, is part of the service
/// deployment that failed, and has new tasks like any other.
fn deploy(world: &mut World, now: OffsetDateTime, service: &mut Service, rolling_back_to: Option<String>) {
    let id = format!("ecs-svc/{}", digits(world));
    let (revision, reason) = match rolling_back_to {
        Some(revision) => (revision, format!("ECS deployment circuit breaker: rolling back to deploymentId {id}.")),
        None if service.controller != "ECS" => (String::new(), String::new()),
        None => (start_service_deployment(world, now, service), format!("ECS deployment {id} in progress.")),
    };
    service.deployments.iter_mut().for_each(|older| older.tasks.retain(Task::runs));
    let failing = world.ecs.failing.get_mut(&service.key).filter(|count| **count > 0);
    let deployment = Deployment {
        id: id.clone(),
        revision,
        task_definition: service.task_definition.clone(),
        created_at: now,
        updated_at: now,
        state: "IN_PROGRESS",
        reason: reason.clone(),
        tasks: Vec::new(),
        failed_tasks: 0,
        has_run: false,
        fails: failing.map(|count| *count -= 1).is_some(),
    };
    service.deployments.insert(0, deployment);
    scale(world, now, service);
    announce(world, now, service, "INFO", "SERVICE_DEPLOYMENT_IN_PROGRESS", &id, &reason);
}

/// Supersedes a service deployment that is under way, and records the new one with its service revision, whose ARN it returns.
fn start_service_deployment(world: &mut World, now: OffsetDateTime, service: &mut Service) -> String {
    if let Some(last) = service.service_deployments.last_mut().filter(|last| last["finishedAt"].is_null()) {
        let status = if last["rollback"].is_null() { "STOP_REQUESTED" } else { "ROLLBACK_FAILED" };
        update(last, now, status, Some("Superseded by a new service deployment."));
    }
    let number = digits(world);
    let target = world.arn("ecs", &format!("service-revision/{}/{number}", service.key));
    service.revisions.push(json!({
        "serviceRevisionArn": target, "serviceArn": service.arn, "clusterArn": service.cluster_arn(world),
        "taskDefinition": service.task_definition, "createdAt": epoch(now),
    }));
    let sources = service.deployments.iter().filter(|deployment| deployment.running() > 0);
    let sources = sources.map(|source| revision_summary(&source.revision, source.running(), source.running()));
    let breaker = if service.configuration["deploymentCircuitBreaker"]["enable"] == true { "MONITORING" } else { "DISABLED" };
    let id = &world.uuid().replace('-', "")[..21];
    service.service_deployments.push(json!({
        "serviceDeploymentArn": world.arn("ecs", &format!("service-deployment/{}/{id}", service.key)),
        "serviceArn": service.arn, "clusterArn": service.cluster_arn(world), "createdAt": epoch(now), "updatedAt": epoch(now),
        "sourceServiceRevisions": sources.collect::<Vec<_>>(), "status": "PENDING",
        "targetServiceRevision": revision_summary(&target, service.desired_count, 0),
        "deploymentConfiguration": service.configuration,
        "deploymentCircuitBreaker": { "status": breaker, "failureCount": 0, "threshold": service.threshold() },
    }));
    target
}

fn task_start(world: &World) -> Duration {
    if world.hurry { Duration::seconds(1) } else { TASK_START }
}

/// Gives the newest deployment as many tasks as are wanted.
fn scale(world: &mut World, now: OffsetDateTime, service: &mut Service) {
    let (wanted, cluster) = (service.desired_count, service.cluster().to_owned());
    let Some(primary) = service.deployments.first_mut().filter(|primary| primary.state != "FAILED") else { return };
    primary.tasks.truncate(wanted);
    for number in primary.tasks.len()..wanted {
        let starts_at = now + task_start(world) * (1.0 + number as f64 / wanted as f64);
        primary.tasks.push(Task::new(world, &cluster, now, starts_at, 0));
    }
}

/// Does what is due by `now`.
fn progress(world: &mut World, now: OffsetDateTime, service: &mut Service) {
    if let Some(drained_at) = service.drained_at {
        if drained_at <= now {
            service.deployments.clear();
            service.status = "INACTIVE";
        }
        return;
    }
    for found in &mut service.service_deployments {
        match found["status"].as_str() {
            Some("PENDING") => {
                update(found, now, "IN_PROGRESS", None);
                found["startedAt"] = epoch(now);
            }
            Some("STOP_REQUESTED") => update(found, now, "STOPPED", None),
            _ => {}
        }
    }
    start_tasks(world, now, service);
    if !world.ecs.lingering.contains(&service.key) {
        service.stop_surplus();
    }
    let (desired_count, threshold) = (service.desired_count, service.threshold());
    let breaker = service.configuration["deploymentCircuitBreaker"]["enable"] == true;
    let Some(primary) = service.deployments.first().filter(|primary| primary.state == "IN_PROGRESS") else { return };
    if let Some(last) = service.service_deployments.last_mut().filter(|last| last["rollback"].is_null()) {
        last["targetServiceRevision"] = revision_summary(&primary.revision, desired_count, primary.running());
        last["deploymentCircuitBreaker"]["failureCount"] = primary.failed_tasks.into();
    }
    if primary.running() == desired_count {
        complete(world, now, service);
    } else if breaker && primary.failed_tasks >= threshold {
        trip(world, now, service);
    }
}

fn start_tasks(world: &mut World, now: OffsetDateTime, service: &mut Service) {
    let (cluster, name) = (service.cluster().to_owned(), service.name().to_owned());
    let Some(primary) = service.deployments.first_mut() else { return };
    for task in primary.tasks.iter_mut().filter(|task| !task.runs() && task.starts_at <= now) {
        let started = if primary.fails {
            Err("Essential container in task exited".to_owned())
        } else {
            read_secrets(world, &primary.task_definition)
        };
        match started {
            Ok(values) => {
                (task.started_at, task.values) = (Some(now), values);
                (primary.has_run, primary.failed_tasks) = (true, 0);
            }
            Err(reason) => {
                let message = format!("(service {name}) (task {}) failed to start: {reason}", task.arn);
                service.events.insert(0, json!({ "id": world.uuid(), "createdAt": epoch(now), "message": message }));
                service.events.truncate(100);
                primary.failed_tasks += usize::from(!primary.has_run);
                let pause = (task_start(world) * 2_i32.pow(task.failures.min(8))).min(SLOWEST_RETRY);
                *task = Task::new(world, &cluster, now, now + pause, task.failures + 1);
            }
        }
    }
}

fn complete(world: &mut World, now: OffsetDateTime, service: &mut Service) {
    let mut number = 0;
    service.deployments.retain(|deployment| {
        number += 1;
        number == 1 || deployment.running() > 0
    });
    let Some(primary) = service.deployments.first_mut() else { return };
    let id = primary.id.clone();
    let reason = format!("ECS deployment {id} completed.");
    primary.update(now, "COMPLETED", &reason);
    service.completed = Some((primary.task_definition.clone(), primary.revision.clone()));
    if let Some(last) = service.service_deployments.last_mut() {
        let status = if last["rollback"].is_null() { "SUCCESSFUL" } else { "ROLLBACK_SUCCESSFUL" };
        update(last, now, status, None);
    }
    announce(world, now, service, "INFO", "SERVICE_DEPLOYMENT_COMPLETED", &id, &reason);
}

/// The circuit breaker: too many tasks have not started.
fn trip(world: &mut World, now: OffsetDateTime, service: &mut Service) {
    if let Some(last) = service.service_deployments.last_mut() {
        last["deploymentCircuitBreaker"]["status"] = "TRIGGERED".into();
    }
    let rollback = service.configuration["deploymentCircuitBreaker"]["rollback"] == true;
    fail(world, now, service, "ECS deployment circuit breaker: task failed to start.", rollback);
}

/// The deployment has failed; with rollback, and where a deployment completed before, back to that one. Only with the circuit
/// breaker on there is an event of it.
fn fail(world: &mut World, now: OffsetDateTime, service: &mut Service, reason: &str, rollback: bool) {
    let Some(primary) = service.deployments.first_mut() else { return };
    primary.update(now, "FAILED", reason);
    primary.tasks.clear();
    let id = primary.id.clone();
    if service.configuration["deploymentCircuitBreaker"]["enable"] == true {
        announce(world, now, service, "ERROR", "SERVICE_DEPLOYMENT_FAILED", &id, reason);
    }
    let Some(last) = service.service_deployments.last_mut() else { return };
    if !last["rollback"].is_null() {
        update(last, now, "ROLLBACK_FAILED", None);
    } else if let Some((task_definition, revision)) = service.completed.take_if(|_| rollback) {
        update(last, now, "ROLLBACK_IN_PROGRESS", Some(reason));
        last["rollback"] = json!({ "reason": reason, "startedAt": epoch(now), "serviceRevisionArn": revision });
        service.task_definition = task_definition;
        deploy(world, now, service, Some(revision));
    } else {
        update(last, now, "STOP_REQUESTED", Some(reason));
    }
}

/// Takes a service out while it changes; [`keep`] puts it back.
fn take(world: &mut World, key: &str) -> Result<Service, AwsError> {
    world.ecs.services.remove(key).ok_or_else(service_not_found)
}

/// Puts a service back, asks for the timer of what comes next unless that is asked for already, and describes the service.
fn keep(world: &mut World, now: OffsetDateTime, mut service: Service) -> Value {
    let settling =
        service.service_deployments.iter().any(|found| found["status"] == "PENDING" || found["status"] == "STOP_REQUESTED");
    let tasks = service.deployments.iter().flat_map(|deployment| &deployment.tasks).filter(|task| !task.runs());
    let drained_at = service.drained_at.filter(|drained_at| *drained_at > now);
    let next = tasks.map(|task| task.starts_at).chain(settling.then_some(now + SETTLING)).chain(drained_at).min();
    if let Some(next) = next.filter(|next| service.timer.is_none_or(|timer| timer <= now || *next < timer)) {
        world.at(next, Timer::Ecs { service_arn: service.arn.clone() });
        service.timer = Some(next);
    }
    let description = service.description(world, true);
    world.ecs.services.insert(service.key.clone(), service);
    description
}

/// Changes the state of a service deployment.
fn update(found: &mut Value, now: OffsetDateTime, status: &str, reason: Option<&str>) {
    found["status"] = status.into();
    found["updatedAt"] = epoch(now);
    if let Some(reason) = reason {
        found["statusReason"] = reason.into();
    }
    if ["ROLLBACK_FAILED", "ROLLBACK_SUCCESSFUL", "STOPPED", "SUCCESSFUL"].contains(&status) {
        found["finishedAt"] = epoch(now);
        let breaker = &mut found["deploymentCircuitBreaker"]["status"];
        if *breaker == "MONITORING" {
            *breaker = "MONITORING_COMPLETE".into();
        }
    }
}

fn announce(world: &mut World, now: OffsetDateTime, service: &Service, kind: &str, name: &str, deployment: &str, reason: &str) {
    if service.controller != "ECS" {
        return;
    }
    let updated_at = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    let detail =
        json!({ "eventType": kind, "eventName": name, "deploymentId": deployment, "updatedAt": updated_at, "reason": reason });
    world.emit(now, "aws.ecs", "ECS Deployment State Change", std::slice::from_ref(&service.arn), detail);
}

/// The values of all `secrets` of a task, as the container agent reads them.
fn read_secrets(world: &World, task_definition: &str) -> Result<BTreeMap<String, String>, String> {
    let definition = world.ecs.task_definition(task_definition).ok_or("TaskDefinition not found.")?;
    let containers = definition["containerDefinitions"].as_array().into_iter().flatten();
    let secrets = containers.flat_map(|container| container["secrets"].as_array().into_iter().flatten());
    let read = secrets.map(|secret| {
        let (name, value_from) = (secret["name"].as_str().unwrap_or_default(), secret["valueFrom"].as_str().unwrap_or_default());
        let value = read_secret(world, value_from);
        let value = value.map_err(|reason| format!("ResourceInitializationError: unable to pull secrets: {reason}"))?;
        Ok((name.to_owned(), value))
    });
    read.collect()
}

/// `arn:aws:secretsmanager:region:account:secret:name-AbCdEf:json-key:version-stage:version-id`, with the last three together or
/// not at all, and empty where not used.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>
fn read_secret(world: &World, value_from: &str) -> Result<String, String> {
    let parts: Vec<_> = value_from.split(':').collect();
    let (arn, key, stage, version) = match parts[..] {
        ["arn", _, "secretsmanager", _, _, "secret", _] => (value_from.to_owned(), "", "", ""),
        ["arn", _, "secretsmanager", _, _, "secret", _, key, stage, version] => (parts[..7].join(":"), key, stage, version),
        _ => return Err(format!("unexpected ARN format with parameters when trying to retrieve ASM secret: {value_from}")),
    };
    let (version, stage) = [version, stage].map(|part| Some(part).filter(|part| !part.is_empty())).into();
    let value = world.secrets.value(&arn, version, stage);
    let value = value.ok_or_else(|| format!("ResourceNotFoundException: can't find the specified secret value: {value_from}"))?;
    if key.is_empty() {
        return Ok(value.to_owned());
    }
    let members: Value = serde_json::from_str(value).map_err(|_| format!("the value of {arn} is not JSON"))?;
    match &members[key] {
        Value::Null => Err(format!("retrieved secret from Secrets Manager did not contain json key {key}")),
        Value::String(text) => Ok(text.clone()),
        other => Ok(other.to_string()),
    }
}

impl Service {
    fn cluster(&self) -> &str {
        self.key.split_once('/').map_or("", |(cluster, _)| cluster)
    }

    fn name(&self) -> &str {
        self.key.split_once('/').map_or("", |(_, name)| name)
    }

    fn cluster_arn(&self, world: &World) -> String {
        world.arn("ecs", &format!("cluster/{}", self.cluster()))
    }

    /// How many tasks have to fail before the circuit breaker trips.
    fn threshold(&self) -> usize {
        self.desired_count.div_ceil(2).clamp(3, 200)
    }

    fn configure(&mut self, input: &Value) {
        for (member, value) in input["deploymentConfiguration"].as_object().into_iter().flatten() {
            self.configuration[member] = value.clone();
        }
    }

    /// Stops an old task for each new one that runs, the oldest deployment's first.
    fn stop_surplus(&mut self) {
        let mut surplus = self.running().saturating_sub(self.desired_count);
        let mut older = self.deployments.split_off(self.deployments.len().min(1));
        for deployment in older.iter_mut().rev() {
            let stopping = surplus.min(deployment.tasks.len());
            deployment.tasks.drain(..stopping);
            surplus -= stopping;
        }
        self.deployments.extend(older.into_iter().filter(|found| found.state == "FAILED" || !found.tasks.is_empty()));
    }

    fn running(&self) -> usize {
        self.deployments.iter().map(Deployment::running).sum()
    }

    fn description(&self, world: &World, tags: bool) -> Value {
        let (is_rolling, is_ours) = (self.configuration["strategy"] == "ROLLING", self.controller == "ECS");
        let deployments = self.deployments.iter().enumerate().map(|(number, found)| {
            let (status, desired) = if number == 0 { ("PRIMARY", self.desired_count) } else { ("ACTIVE", found.running()) };
            let mut deployment = json!({
                "id": found.id, "status": status, "taskDefinition": found.task_definition, "desiredCount": desired,
                "pendingCount": found.tasks.len() - found.running(), "runningCount": found.running(),
                "failedTasks": found.failed_tasks, "createdAt": epoch(found.created_at), "updatedAt": epoch(found.updated_at),
            });
            if is_ours && is_rolling {
                (deployment["rolloutState"], deployment["rolloutStateReason"]) =
                    (found.state.into(), found.reason.clone().into());
            } else if !is_ours {
                let is_steady = found.state == "COMPLETED";
                deployment["stabilityStatus"] = if is_steady { "STEADY_STATE" } else { "STABILIZING" }.into();
            }
            deployment
        });
        let (deployments, task_sets): (Vec<_>, Vec<_>) = deployments.partition(|_| is_ours);
        let all: usize = self.deployments.iter().map(|deployment| deployment.tasks.len()).sum();
        let mut description = json!({
            "serviceArn": self.arn, "serviceName": self.name(), "clusterArn": self.cluster_arn(world), "status": self.status,
            "desiredCount": self.desired_count, "runningCount": self.running(), "pendingCount": all - self.running(),
            "taskDefinition": self.task_definition, "deploymentConfiguration": self.configuration, "schedulingStrategy": "REPLICA",
            "deploymentController": { "type": self.controller }, "deployments": deployments, "taskSets": task_sets,
            "events": self.events, "createdAt": epoch(self.created_at),
        });
        if tags && !self.tags.is_null() {
            description["tags"] = self.tags.clone();
        }
        description
    }
}

impl Deployment {
    fn running(&self) -> usize {
        self.tasks.iter().filter(|task| task.runs()).count()
    }

    fn update(&mut self, now: OffsetDateTime, state: &'static str, reason: &str) {
        (self.updated_at, self.state, self.reason) = (now, state, reason.to_owned());
    }
}

impl Task {
    fn new(world: &mut World, cluster: &str, now: OffsetDateTime, starts_at: OffsetDateTime, failures: u32) -> Self {
        let id = world.uuid().replace('-', "");
        let arn = world.arn("ecs", &format!("task/{cluster}/{id}"));
        Self { arn, created_at: now, starts_at, started_at: None, failures, values: BTreeMap::new() }
    }

    fn runs(&self) -> bool {
        self.started_at.is_some()
    }

    fn description(&self, world: &World, service: &Service, deployment: &Deployment) -> Value {
        let status = if self.runs() { "RUNNING" } else { "PENDING" };
        let mut description = json!({
            "taskArn": self.arn, "clusterArn": service.cluster_arn(world), "taskDefinitionArn": deployment.task_definition,
            "group": format!("service:{}", service.name()), "startedBy": deployment.id, "desiredStatus": "RUNNING",
            "lastStatus": status, "createdAt": epoch(self.created_at), "containers": [],
        });
        if let Some(started_at) = self.started_at {
            description["startedAt"] = epoch(started_at);
        }
        description
    }
}

fn revision_summary(arn: &str, requested: usize, running: usize) -> Value {
    let pending = requested.saturating_sub(running);
    json!({ "arn": arn, "requestedTaskCount": requested, "runningTaskCount": running, "pendingTaskCount": pending })
}

fn cluster_description(world: &World, name: &str) -> Value {
    let services = world.ecs.services.values().filter(|service| service.cluster() == name);
    let tasks = world.ecs.tasks().filter(|(service, ..)| service.cluster() == name);
    let (running, pending): (Vec<_>, Vec<_>) = tasks.partition(|(.., task)| task.runs());
    json!({
        "clusterArn": world.arn("ecs", &format!("cluster/{name}")), "clusterName": name, "status": "ACTIVE",
        "registeredContainerInstancesCount": 0, "activeServicesCount": services.filter(|found| found.status == "ACTIVE").count(),
        "runningTasksCount": running.len(), "pendingTasksCount": pending.len(), "tags": world.ecs.clusters[name],
    })
}

/// The cluster's name: `default` where none is given.
fn cluster(world: &World, input: &Value) -> Result<String, AwsError> {
    let given = input["cluster"].as_str().unwrap_or("default");
    let name = given.rsplit('/').next().unwrap_or(given);
    let known = world.ecs.clusters.contains_key(name);
    if known { Ok(name.to_owned()) } else { Err(AwsError::new("ClusterNotFoundException", "Cluster not found.")) }
}

fn service<'a>(world: &'a World, cluster: &str, name: &str) -> Result<&'a Service, AwsError> {
    world.ecs.services.get(&service_key(cluster, name)?).ok_or_else(service_not_found)
}

/// `cluster/service`, from a name or an ARN. An ARN does not name the cluster in the caller's stead.
fn service_key(cluster: &str, service: &str) -> Result<String, AwsError> {
    match service.split_once(":service/").map(|(_, key)| key) {
        Some(key) if key.starts_with(&format!("{cluster}/")) => Ok(key.to_owned()),
        Some(key) => {
            let other = key.split('/').next().unwrap_or(key);
            Err(invalid(&format!("Identifier is for cluster {other}. Your cluster is {cluster}")))
        }
        None => Ok(format!("{cluster}/{service}")),
    }
}

fn task_definition_arn(world: &World, name: &str) -> Result<String, AwsError> {
    let found = world.ecs.task_definition(name).and_then(|found| found["taskDefinitionArn"].as_str());
    found.map(str::to_owned).ok_or_else(|| AwsError::new("ClientException", "TaskDefinition not found."))
}

/// What is found, and what is missing, which is not an error.
fn described(member: &str, asked: &[Value], find: impl Fn(&str) -> Option<Value>) -> Value {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in asked.iter().filter_map(Value::as_str) {
        match find(name) {
            Some(value) => found.push(value),
            None => failures.push(json!({ "arn": name, "reason": "MISSING" })),
        }
    }
    json!({ member: found, "failures": failures })
}

/// One page of a list: `maxResults`, or as many as AWS gives unasked, after `nextToken`.
fn page(input: &Value, member: &str, items: Vec<Value>, unasked: usize) -> Result<Value, AwsError> {
    let most = input["maxResults"].as_u64().map_or(unasked, |most| most as usize);
    if !(1..=100).contains(&most) {
        return Err(invalid("maxResults must be between 1 and 100."));
    }
    let start = input["nextToken"].as_str().map_or(Ok(0), |token| token.parse().map_err(|_| invalid("Invalid token.")))?;
    let mut answer = json!({ member: items.iter().skip(start).take(most).collect::<Vec<_>>() });
    if start + most < items.len() {
        answer["nextToken"] = (start + most).to_string().into();
    }
    Ok(answer)
}

fn at_most<'a>(input: &'a Value, member: &str, most: usize) -> Result<&'a [Value], AwsError> {
    let list = input[member].as_array().filter(|list| (1..=most).contains(&list.len()));
    list.map(Vec::as_slice).ok_or_else(|| invalid(&format!("{member} must have between 1 and {most} items.")))
}

fn required<'a>(input: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    input[member].as_str().filter(|text| !text.is_empty()).ok_or_else(|| invalid(&format!("{member} cannot be null or empty.")))
}

fn invalid(message: &str) -> AwsError {
    AwsError::new("InvalidParameterException", message)
}

fn service_not_found() -> AwsError {
    AwsError::new("ServiceNotFoundException", "Service not found.")
}

/// Nineteen digits, as deployments and service revisions end.
fn digits(world: &mut World) -> u64 {
    let number = world.uuid().bytes().fold(0_u64, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
    1_000_000_000_000_000_000 + number % 9_000_000_000_000_000_000
}

/// Seconds since 1970 with milliseconds, as JSON 1.1 has timestamps.
fn epoch(time: OffsetDateTime) -> Value {
    json!((time.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = time::macros::datetime!(2026-01-01 00:00:00.250 UTC);

    struct Account {
        world: World,
        now: OffsetDateTime,
        secret: String,
    }

    impl Account {
        /// A cluster, a secret with a certificate `one`, and the service `web` whose tasks read it.
        fn new(desired_count: u32, breaker: Value) -> Self {
            let mut account = Self { world: World::new("111122223333", "eu-central-1"), now: START, secret: String::new() };
            let secret =
                json!({ "Name": "web", "SecretString": r#"{"certificate":"one"}"#, "ClientRequestToken": "1".repeat(32) });
            let secret = crate::secrets::call(&mut account.world, START, "CreateSecret", &secret).unwrap();
            account.secret = secret["ARN"].as_str().unwrap().to_owned();
            account.call("CreateCluster", json!({ "clusterName": "main" }));
            let value_from = format!("{}:certificate::", account.secret);
            account.define(&value_from);
            account.call(
                "CreateService",
                json!({
                    "cluster": "main", "serviceName": "web", "taskDefinition": "web", "desiredCount": desired_count,
                    "deploymentConfiguration": { "deploymentCircuitBreaker": breaker },
                }),
            );
            account
        }

        fn try_call(&mut self, operation: &str, input: &Value) -> Result<Value, String> {
            call(&mut self.world, self.now, operation, input).map_err(|error| error.code)
        }

        fn call(&mut self, operation: &str, input: Value) -> Value {
            self.try_call(operation, &input).unwrap()
        }

        fn define(&mut self, value_from: &str) {
            let container = json!({ "name": "web", "image": "web", "secrets": [{ "name": "TLS", "valueFrom": value_from }] });
            self.call("RegisterTaskDefinition", json!({ "family": "web", "containerDefinitions": [container] }));
        }

        /// Updates the service and returns the id of its newest deployment.
        fn update(&mut self, mut input: Value) -> String {
            (input["cluster"], input["service"]) = ("main".into(), "web".into());
            self.call("UpdateService", input)["service"]["deployments"][0]["id"].as_str().unwrap().to_owned()
        }

        fn put(&mut self, value: &str) {
            let input = json!({ "SecretId": self.secret, "SecretString": value, "ClientRequestToken": self.world.uuid() });
            crate::secrets::call(&mut self.world, self.now, "PutSecretValue", &input).unwrap();
        }

        /// Lets seconds pass, one by one.
        fn pass(&mut self, seconds: u32) {
            for _ in 0..seconds {
                self.now += Duration::SECOND;
                self.world.advance(self.now);
            }
        }

        fn service(&mut self) -> Value {
            self.call("DescribeServices", json!({ "cluster": "main", "services": ["web"] }))["services"][0].clone()
        }

        /// The states of the deployments, the newest first.
        fn states(&mut self) -> Vec<Value> {
            let service = self.service();
            service["deployments"].as_array().unwrap().iter().map(|found| found["rolloutState"].clone()).collect()
        }

        /// The statuses of the service deployments, the newest first.
        fn statuses(&mut self) -> Vec<Value> {
            let listed = self.call("ListServiceDeployments", json!({ "cluster": "main", "service": "web" }));
            listed["serviceDeployments"].as_array().unwrap().iter().map(|found| found["status"].clone()).collect()
        }

        /// What the running tasks have read.
        fn certificates(&self) -> Vec<String> {
            self.world.ecs.running_values("main", "web").into_iter().map(|mut values| values.remove("TLS").unwrap()).collect()
        }

        /// The names of the deployment events since the last time, each with its deployment.
        fn events(&mut self) -> Vec<(String, String)> {
            let events = self.world.take_outbox().into_iter().filter(|event| event["source"] == "aws.ecs");
            events
                .map(|event| {
                    assert_eq!(event["resources"], json!(["arn:aws:ecs:eu-central-1:111122223333:service/main/web"]));
                    let text = |member: &str| event["detail"][member].as_str().unwrap().to_owned();
                    (text("eventName").replace("SERVICE_DEPLOYMENT_", ""), text("deploymentId"))
                })
                .collect()
        }
    }

    #[test]
    fn a_deployment_replaces_task_after_task_and_completes() {
        let mut account = Account::new(2, json!({}));
        account.pass(60);
        assert_eq!((account.states(), account.statuses()), (vec!["COMPLETED".into()], vec!["SUCCESSFUL".into()]));
        account.events();

        account.put(r#"{"certificate":"two"}"#);
        let id = account.update(json!({ "forceNewDeployment": true }));
        assert_eq!(account.events(), [("IN_PROGRESS".into(), id.clone())]);
        assert_eq!(
            (account.states(), account.statuses()[0].clone()),
            (vec!["IN_PROGRESS".into(), "COMPLETED".into()], "PENDING".into())
        );
        account.pass(30);
        assert_eq!(account.certificates(), ["two", "one"]);
        assert_eq!(account.statuses(), ["IN_PROGRESS", "SUCCESSFUL"]);
        account.pass(30);
        assert_eq!(account.certificates(), ["two", "two"]);
        assert_eq!((account.states(), account.statuses()), (vec!["COMPLETED".into()], vec!["SUCCESSFUL".into(); 2]));
        assert_eq!(account.events(), [("COMPLETED".into(), id.clone())]);

        let service = account.service();
        assert_eq!(service["deployments"][0]["id"], id);
        assert_eq!(service["deployments"][0]["createdAt"], 1_767_225_660.25);
        assert_eq!(account.world.next_timer(), None, "nothing more to come");
    }

    #[test]
    fn every_forced_update_supersedes_the_deployment_under_way() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        let first = account.update(json!({ "forceNewDeployment": true }));
        account.pass(10);
        let second = account.update(json!({ "forceNewDeployment": true }));
        assert_ne!(first, second);
        assert_eq!(account.statuses(), ["PENDING", "STOP_REQUESTED", "SUCCESSFUL"]);
        account.pass(2);
        assert_eq!(account.statuses(), ["IN_PROGRESS", "STOPPED", "SUCCESSFUL"]);
        account.events();
        account.pass(60);
        assert_eq!(account.statuses(), ["SUCCESSFUL", "STOPPED", "SUCCESSFUL"]);
        assert_eq!(account.events(), [("COMPLETED".into(), second)]);
    }

    #[test]
    fn an_update_without_force_deploys_only_what_needs_it() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        account.update(json!({ "taskDefinition": "web:1" }));
        account.update(json!({ "desiredCount": 3 }));
        assert_eq!(account.states(), ["COMPLETED"]);
        account.pass(60);
        assert_eq!(account.certificates().len(), 3);
        let pinned = account.secret.clone();
        account.define(&pinned);
        account.update(json!({ "taskDefinition": "web", "desiredCount": 0 }));
        account.pass(2);
        assert_eq!((account.states(), account.certificates().len()), (vec!["COMPLETED".into()], 0));
        assert_eq!(account.service()["taskDefinition"], "arn:aws:ecs:eu-central-1:111122223333:task-definition/web:2");
    }

    #[test]
    fn a_secret_is_read_by_key_stage_and_version() {
        let mut account = Account::new(0, json!({}));
        account.put(r#"{"certificate":"two","depth":3}"#);
        let described =
            crate::secrets::call(&mut account.world, START, "DescribeSecret", &json!({ "SecretId": account.secret })).unwrap();
        let versions = described["VersionIdsToStages"].as_object().unwrap();
        let (previous, _) = versions.iter().find(|(_, stages)| **stages == json!(["AWSPREVIOUS"])).unwrap();
        for (rest, expected) in [
            ("", Some(r#"{"certificate":"two","depth":3}"#)),
            (":certificate::", Some("two")),
            (":depth::", Some("3")),
            (":certificate:AWSPREVIOUS:", Some("one")),
            (&format!(":certificate::{previous}"), Some("one")),
            (":private_key::", None),
            (":certificate:AWSPENDING:", None),
            (":certificate", None),
        ] {
            let value_from = format!("{}{rest}", account.secret);
            assert_eq!(read_secret(&account.world, &value_from).ok().as_deref(), expected, "{rest}");
        }
    }

    #[test]
    fn without_the_circuit_breaker_a_failing_deployment_goes_on_ever_more_slowly() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        account.put("{}");
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(3600);
        assert_eq!(account.states(), ["IN_PROGRESS", "COMPLETED"]);
        let failed = account.service()["deployments"][0]["failedTasks"].as_u64().unwrap();
        assert!((6..=8).contains(&failed), "{failed}");
        assert_eq!(account.certificates(), ["one"]);
        account.put(r#"{"certificate":"two"}"#);
        account.pass(1620);
        assert_eq!((account.states(), account.certificates()), (vec!["COMPLETED".into()], vec!["two".into()]));
        assert_eq!(account.service()["deployments"][0]["failedTasks"], 0);
    }

    #[test]
    fn the_circuit_breaker_brings_the_task_definition_back_but_not_the_secret() {
        let mut account = Account::new(2, json!({ "enable": true, "rollback": true }));
        account.pass(60);
        let value_from = format!("{}:private_key::", account.secret);
        account.define(&value_from);
        account.put(r#"{"certificate":"two"}"#);
        account.events();
        let failed = account.update(json!({ "taskDefinition": "web:2" }));
        account.pass(75);
        assert_eq!(account.states(), ["IN_PROGRESS", "FAILED", "COMPLETED"]);
        assert_eq!(account.statuses(), ["ROLLBACK_IN_PROGRESS", "SUCCESSFUL"]);
        let rollback = account.service()["deployments"][0].clone();
        let id = rollback["id"].as_str().unwrap().to_owned();
        let reason = format!("ECS deployment circuit breaker: rolling back to deploymentId {id}.");
        assert_eq!(rollback["rolloutStateReason"], reason);
        let expected = [("IN_PROGRESS", &failed), ("FAILED", &failed), ("IN_PROGRESS", &id)];
        assert_eq!(account.events(), expected.map(|(name, id)| (name.to_owned(), id.clone())));
        account.pass(60);
        assert_eq!((account.states(), account.certificates()), (vec!["COMPLETED".into()], vec!["two".into(); 2]));
        assert_eq!(account.statuses(), ["ROLLBACK_SUCCESSFUL", "SUCCESSFUL"]);
        assert_eq!(account.service()["taskDefinition"], "arn:aws:ecs:eu-central-1:111122223333:task-definition/web:1");
        assert_eq!(account.events(), [("COMPLETED".into(), id)]);
    }

    #[test]
    fn a_rollback_fails_when_the_secret_is_what_is_wrong() {
        let mut account = Account::new(1, json!({ "enable": true, "rollback": true }));
        account.pass(60);
        account.put("{}");
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(300);
        assert_eq!(account.states(), ["FAILED", "FAILED", "COMPLETED"]);
        assert_eq!((account.statuses()[0].clone(), account.certificates()), ("ROLLBACK_FAILED".into(), vec!["one".into()]));
        assert_eq!(account.world.next_timer(), None);
    }

    #[test]
    fn without_rollback_a_failed_deployment_is_stopped() {
        let mut account = Account::new(8, json!({ "enable": true, "rollback": false }));
        account.pass(60);
        account.world.ecs.fail_deployments("main", "web", 1);
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(60);
        assert_eq!(
            (account.states(), account.statuses()[0].clone()),
            (vec!["FAILED".into(), "COMPLETED".into()], "STOPPED".into())
        );
        let mut arns = |filter: Value| {
            let listed = account.call("ListServiceDeployments", filter)["serviceDeployments"].clone();
            listed.as_array().unwrap().iter().map(|found| found["serviceDeploymentArn"].clone()).collect::<Vec<_>>()
        };
        let all = arns(json!({ "cluster": "main", "service": "web" }));
        assert_eq!(arns(json!({ "cluster": "main", "service": "web", "status": ["STOPPED"] })), all[..1]);
        let described = account.call("DescribeServiceDeployments", json!({ "serviceDeploymentArns": all }));
        let [newest, oldest] = [0, 1].map(|number| &described["serviceDeployments"][number]);
        let breaker = |status, failed| json!({ "status": status, "failureCount": failed, "threshold": 4 });
        assert_eq!(newest["deploymentCircuitBreaker"], breaker("TRIGGERED", 4));
        assert_eq!(oldest["deploymentCircuitBreaker"], breaker("MONITORING_COMPLETE", 0));
        assert_eq!(newest["sourceServiceRevisions"][0]["arn"], oldest["targetServiceRevision"]["arn"]);
        let target = &newest["targetServiceRevision"]["arn"];
        let revisions = account.call("DescribeServiceRevisions", json!({ "serviceRevisionArns": [target, "none"] }));
        assert_eq!(revisions["serviceRevisions"][0]["serviceRevisionArn"], *target);
        assert_eq!(revisions["failures"], json!([{ "arn": "none", "reason": "MISSING" }]));
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(60);
        assert_eq!(account.states(), ["COMPLETED"]);
    }

    #[test]
    fn what_a_person_stops_is_rolled_back_without_an_event_that_it_failed() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        account.world.ecs.fail_deployments("main", "web", 1);
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(60);
        account.events();
        let listed = account.call("ListServiceDeployments", json!({ "cluster": "main", "service": "web" }));
        let arns: Vec<_> = [0, 1].map(|number| listed["serviceDeployments"][number]["serviceDeploymentArn"].clone()).into();
        let stop = |arn: &Value, kind| json!({ "serviceDeploymentArn": arn, "stopType": kind });
        for (input, code) in [
            (stop(&arns[0], "ABORT"), "InvalidParameterException"),
            (stop(&arns[1], "ROLLBACK"), "ConflictException"),
            (stop(&"none".into(), "ROLLBACK"), "ServiceDeploymentNotFoundException"),
        ] {
            assert_eq!(account.try_call("StopServiceDeployment", &input), Err(code.into()), "{input}");
        }
        account.call("StopServiceDeployment", stop(&arns[0], "ROLLBACK"));
        assert_eq!(account.statuses(), ["ROLLBACK_IN_PROGRESS", "SUCCESSFUL"]);
        account.pass(60);
        assert_eq!((account.states(), account.statuses()[0].clone()), (vec!["COMPLETED".into()], "ROLLBACK_SUCCESSFUL".into()));
        let names: Vec<_> = account.events().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["IN_PROGRESS", "COMPLETED"]);
    }

    #[test]
    fn a_strategy_that_shifts_traffic_has_no_rollout_state() {
        let mut account = Account::new(1, json!({}));
        account.update(json!({ "deploymentConfiguration": { "strategy": "CANARY" } }));
        account.pass(60);
        assert_eq!((account.states(), account.statuses()), (vec![Value::Null], vec!["SUCCESSFUL".into()]));
    }

    #[test]
    fn other_controllers_have_task_sets_in_the_place_of_deployments() {
        let mut account = Account::new(1, json!({}));
        let controller = json!({ "type": "EXTERNAL" });
        let input = json!({ "cluster": "main", "serviceName": "theirs", "taskDefinition": "web", "desiredCount": 2, "deploymentController": controller });
        account.call("CreateService", input);
        let shown = |account: &mut Account| {
            let input = json!({ "cluster": "main", "services": ["theirs"] });
            let service = account.call("DescribeServices", input)["services"][0].clone();
            assert_eq!(service["deployments"], json!([]));
            let sets = service["taskSets"].as_array().unwrap().iter();
            sets.map(|set| (set["status"].clone(), set["stabilityStatus"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(shown(&mut account), []);
        account.pass(60);
        account.events();
        for _ in 0..2 {
            deploy_task_set(&mut account.world, account.now, "main", "theirs").unwrap();
            assert_eq!(shown(&mut account)[0], ("PRIMARY".into(), "STABILIZING".into()));
            account.pass(60);
            assert_eq!(shown(&mut account), [("PRIMARY".into(), "STEADY_STATE".into())]);
        }
        assert_eq!(account.events(), []);
    }

    #[test]
    fn old_tasks_run_on_for_as_long_as_they_are_let() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        account.world.ecs.old_tasks_linger("main", "web", true);
        account.put(r#"{"certificate":"two"}"#);
        account.update(json!({ "forceNewDeployment": true }));
        account.pass(3600);
        assert_eq!((account.states(), account.certificates()), (vec!["COMPLETED".into(); 2], vec!["two".into(), "one".into()]));
        account.world.ecs.old_tasks_linger("main", "web", false);
        assert_eq!((account.states(), account.certificates()), (vec!["COMPLETED".into()], vec!["two".into()]));
    }

    #[test]
    fn a_deleted_service_drains_and_is_then_inactive() {
        let mut account = Account::new(1, json!({}));
        account.pass(60);
        let delete = json!({ "cluster": "main", "service": "web", "force": true });
        assert_eq!(account.call("DeleteService", delete.clone())["service"]["status"], "DRAINING");
        assert_eq!(account.certificates().len(), 1);
        assert_eq!(account.try_call("UpdateService", &delete), Err("ServiceNotActiveException".into()));
        account.pass(30);
        assert_eq!((account.service()["status"].clone(), account.certificates().len()), ("INACTIVE".into(), 0));
        assert_eq!(account.call("ListServices", json!({ "cluster": "main" }))["serviceArns"], json!([]));
        assert_eq!(account.try_call("DeleteService", &delete), Err("ServiceNotFoundException".into()));
    }

    #[test]
    fn lists_come_in_pages_and_by_date() {
        let mut account = Account::new(0, json!({}));
        for number in 0..12 {
            let input =
                json!({ "cluster": "main", "serviceName": format!("s{number}"), "taskDefinition": "web", "desiredCount": 0 });
            account.call("CreateService", input);
        }
        let first = account.call("ListServices", json!({ "cluster": "main" }));
        assert_eq!(first["serviceArns"].as_array().unwrap().len(), 10);
        let rest = account.call("ListServices", json!({ "cluster": "main", "nextToken": first["nextToken"] }));
        assert_eq!((rest["serviceArns"].as_array().unwrap().len(), &rest["nextToken"]), (3, &Value::Null));

        account.pass(60);
        account.update(json!({ "forceNewDeployment": true }));
        let mut since = |after: f64| {
            let input = json!({ "cluster": "main", "service": "web", "createdAt": { "after": after } });
            account.call("ListServiceDeployments", input)["serviceDeployments"].as_array().unwrap().len()
        };
        assert_eq!([1_767_225_600.0, 1_767_225_660.0, 1_767_225_660.25].map(&mut since), [2, 1, 0]);
    }

    #[test]
    fn tasks_are_listed_and_described() {
        let mut account = Account::new(2, json!({}));
        account.pass(30);
        let tasks = account.call("ListTasks", json!({ "cluster": "main", "serviceName": "web" }))["taskArns"].clone();
        let tasks = account.call("DescribeTasks", json!({ "cluster": "main", "tasks": tasks }))["tasks"].clone();
        let mut statuses: Vec<_> = tasks.as_array().unwrap().iter().map(|task| task["lastStatus"].clone()).collect();
        statuses.sort_by_key(Value::to_string);
        assert_eq!(statuses, ["PENDING", "RUNNING"]);
        let cluster = account.call("DescribeClusters", json!({ "clusters": ["main"] }))["clusters"][0].clone();
        assert_eq!((&cluster["runningTasksCount"], &cluster["activeServicesCount"]), (&json!(1), &json!(1)));
    }

    #[test]
    fn errors_have_the_codes_of_aws() {
        let mut account = Account::new(1, json!({}));
        let controlled = |name: &str| {
            let controller = json!({ "type": name });
            json!({ "cluster": "main", "serviceName": name, "taskDefinition": "web", "desiredCount": 1, "deploymentController": controller })
        };
        account.call("CreateService", controlled("CODE_DEPLOY"));
        account.call("CreateService", controlled("EXTERNAL"));
        let other = "arn:aws:ecs:eu-central-1:111122223333:service/other/web";
        let eleven: Vec<_> = (0..11).map(|number| number.to_string()).collect();
        for (operation, input, code) in [
            ("UpdateService", json!({ "service": "web" }), "ClusterNotFoundException"),
            ("UpdateService", json!({ "cluster": "main", "service": "none" }), "ServiceNotFoundException"),
            ("UpdateService", json!({ "cluster": "main", "service": other }), "InvalidParameterException"),
            ("UpdateService", json!({ "cluster": "main", "service": "web", "taskDefinition": "none" }), "ClientException"),
            (
                "UpdateService",
                json!({ "cluster": "main", "service": "CODE_DEPLOY", "forceNewDeployment": true }),
                "InvalidParameterException",
            ),
            (
                "UpdateService",
                json!({ "cluster": "main", "service": "EXTERNAL", "taskDefinition": "web" }),
                "InvalidParameterException",
            ),
            ("DeleteService", json!({ "cluster": "main", "service": "web" }), "InvalidParameterException"),
            ("DescribeServices", json!({ "cluster": "main", "services": eleven }), "InvalidParameterException"),
            ("ListServices", json!({ "cluster": "main", "maxResults": 101 }), "InvalidParameterException"),
            ("ListServiceDeployments", json!({ "cluster": "main", "service": "none" }), "ServiceNotFoundException"),
            ("CreateService", controlled("EXTERNAL"), "InvalidParameterException"),
            ("DescribeTaskDefinition", json!({ "taskDefinition": "none" }), "ClientException"),
        ] {
            assert_eq!(account.try_call(operation, &input), Err(code.into()), "{operation} {input}");
        }
        let missing = account.call("DescribeServices", json!({ "cluster": "main", "services": ["web", "none"] }));
        assert_eq!(missing["failures"], json!([{ "arn": "none", "reason": "MISSING" }]));
        assert_eq!(missing["services"].as_array().unwrap().len(), 1);
    }
}
