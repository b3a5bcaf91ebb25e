//! The account in which a simulation happens: what people set up and do, and how AWS treats the functions meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as StdDuration;

use local_aws::{AwsError, Call, Fault, LocalAws, elbv2, pca};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use workflow::Stack;
use workflow::dice::Dice;

use crate::plan::{Certificate, Counts, Delivered, Incident, Origin, Plan, Settings, Spoilt, What};

pub(crate) const CLUSTER: &str = "payments";

pub(crate) struct Account {
    pub(crate) plan: Arc<Plan>,
    pub(crate) stack: Stack,
    pub(crate) begin: OffsetDateTime,
    pub(crate) listener: String,
    /// ACM's own certificates, by name.
    pub(crate) arns: BTreeMap<String, String>,
    pub(crate) issuing_ca: String,
    disabled: Vec<String>,
    /// What people have still to ask of functions, and from when on they ask hourly.
    asks: Vec<(OffsetDateTime, &'static str, Value)>,
    without_service: BTreeSet<String>,
    spoiling: Arc<Mutex<Spoiling>>,
}

/// What goes wrong with calls and events.
struct Spoiling {
    plan: Arc<Plan>,
    begin: OffsetDateTime,
    aws_events: bool,
    dice: BTreeMap<usize, Dice>,
    /// Certificates of which somebody does something when their next version is there: whether the label is moved, or else a service
    /// deployed.
    watched: BTreeMap<String, bool>,
    counts: Counts,
}

impl Account {
    pub(crate) async fn set_up(settings: &Settings, plan: Arc<Plan>) -> Self {
        let sweep = plan.sweep_minutes.to_string();
        let mut stack = Stack::deploy_on("EC_prime256v1", &[("SweepMinutes", &sweep), ("HourlyBudget", "1000")]).await;
        stack.aws.set_deliveries(Some(Box::new(|_, _| Vec::new())));
        let exported = plan.certificates.iter().filter(|certificate| certificate.origin == Origin::Exported);
        let mut arns = BTreeMap::new();
        let apart =
            Duration::min(plan.lasts / 12, Duration::days(240) / i32::try_from(plan.certificates.len()).unwrap_or(i32::MAX));
        for certificate in exported {
            let request = json!({
                "DomainName": host(&certificate.name), "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": stack.issuing_ca,
            });
            let arn = user(&stack.aws, "acm:RequestCertificate", request).await["CertificateArn"].as_str().map(str::to_owned);
            arns.extend(arn.map(|arn| (certificate.name.clone(), arn)));
            tokio::time::sleep(std(apart)).await;
        }
        // ACM renews at 60 days: some of it is to happen while somebody looks.
        if !arns.is_empty() && plan.lasts < Duration::days(300) {
            tokio::time::sleep(std(Duration::days(395 - 60) - plan.lasts * 3 / 4)).await;
        }
        let listener = stack.aws.world(|world, now| {
            for incident in &plan.incidents {
                match incident.what {
                    What::Clocks { ecs, secretsmanager, lambda } => {
                        let ahead = [("ecs", ecs), ("secretsmanager", secretsmanager), ("lambda", lambda)];
                        world.ahead = ahead.map(|(service, seconds)| (service, Duration::seconds(seconds))).into();
                    }
                    What::IndexesLate { seconds } => world.dynamodb.set_index_lag(Duration::seconds(seconds as i64)),
                    _ => {}
                }
            }
            elbv2::create_listener(world, now, "internal", 8443)
        });
        user(&stack.aws, "ecs:CreateCluster", json!({"clusterName": CLUSTER})).await;
        let begin = stack.aws.now();
        let spoiling = Spoiling {
            plan: plan.clone(),
            begin,
            aws_events: settings.aws_events,
            dice: plan.incidents.iter().map(|one| (one.number, Dice::of(settings.seed, 100 + one.number))).collect(),
            watched: BTreeMap::new(),
            counts: Counts::new(),
        };
        let issuing_ca = std::mem::take(&mut stack.issuing_ca);
        let declaration = json!({"declare": {
            "name": "clients", "certificate_authority_arns": [issuing_ca], "listeners": [{"listener_arn": listener}],
        }});
        let mut account = Self {
            without_service: plan.services.iter().map(|service| service.name.clone()).collect(),
            asks: vec![(begin, "refresh-truststore", declaration)],
            plan,
            stack,
            begin,
            listener,
            arns,
            issuing_ca,
            disabled: Vec::new(),
            spoiling: Arc::new(Mutex::new(spoiling)),
        };
        account.ask().await;
        account.order();
        account.spoil();
        account
    }

    /// Everybody asks for his certificates when it is time.
    fn order(&mut self) {
        for certificate in self.plan.certificates.iter().filter(|certificate| certificate.origin != Origin::Exported) {
            let (name, hours) = (&certificate.name, certificate.lifetime.whole_hours());
            let mut order = json!({
                "name": name, "subject": {"common_name": name}, "subject_alternative_names": [format!("dns:{}", host(name))],
                "usage": certificate.usage, "validity": {"hours": hours}, "services": services(certificate),
                "key_format": key_format(certificate),
            });
            if certificate.origin == Origin::Imported {
                order["import_to_acm"] = true.into();
            }
            if certificate.canary {
                order["canary"] = format!("{CLUSTER}/{}", certificate.services[0]).into();
            }
            if let Some(window) = certificate.maintenance_window {
                order["maintenance_window"] = window.into();
            }
            self.asks.push((self.begin + certificate.ordered, "issue-client-cert", order));
        }
    }

    fn spoil(&self) {
        let (spoiling, aws) = (self.spoiling.clone(), self.stack.aws.clone());
        self.stack.aws.set_faults(Some(Box::new(move |call| lock(&spoiling).call(&aws, call))));
        let (spoiling, aws) = (self.spoiling.clone(), self.stack.aws.clone());
        self.stack.aws.set_deliveries(Some(Box::new(move |event, _| lock(&spoiling).deliver(aws.now(), event))));
    }

    /// How often what went wrong.
    pub(crate) fn spoilt(&self) -> Counts {
        lock(&self.spoiling).counts.clone()
    }

    pub(crate) async fn begins(&mut self, incident: &Incident) {
        let aws = self.stack.aws.clone();
        match &incident.what {
            What::AuthorityDisabled => {
                self.disabled.push(self.issuing_ca.clone());
                self.enable(&self.issuing_ca, false);
            }
            What::AuthorityReplaced => self.replace_authority().await,
            What::DeploymentFails { service, count } => {
                aws.world(|world, _| world.ecs.fail_deployments(CLUSTER, service, *count));
            }
            What::SomebodyDeploys { service, version } if !self.without_service.contains(service) => {
                let mut update = new_deployment(service);
                if *version {
                    let definition = self.task_definition(service);
                    user(&aws, "ecs:RegisterTaskDefinition", definition).await;
                    update["taskDefinition"] = service.as_str().into();
                }
                user(&aws, "ecs:UpdateService", update).await;
            }
            What::SomebodyDeploysMeanwhile { certificate } => _ = lock(&self.spoiling).watched.insert(certificate.clone(), false),
            What::LabelMovedMeanwhile { certificate } => _ = lock(&self.spoiling).watched.insert(certificate.clone(), true),
            What::Rotated { certificate } => {
                let exported = self.plan.certificate(certificate).is_some_and(|one| one.origin == Origin::Exported);
                let binary = if exported { "export-to-secrets" } else { "issue-client-cert" };
                let function = self.stack.template.function(binary).map(|function| function.arn.clone());
                let token = aws.world(|world, _| world.uuid());
                let rotate = json!({"SecretId": secret(certificate), "RotationLambdaARN": function, "ClientRequestToken": token});
                // There is no secret yet, or the rotation before is taken up again.
                _ = aws.call("secretsmanager:RotateSecret", rotate).await;
            }
            What::LabelMoved { certificate } => move_label(&aws, certificate).await,
            What::TagsRemoved { certificate } => {
                let secret = secret(certificate);
                let tags = aws.world(|world, _| world.secrets.find(&secret).map(|found| found.tags.clone())).unwrap_or_default();
                let keys: Vec<_> = tags.into_keys().filter(|key| key.starts_with("everleaf:")).collect();
                if !keys.is_empty() {
                    user(&aws, "secretsmanager:UntagResource", json!({"SecretId": secret, "TagKeys": keys})).await;
                }
            }
            What::ItemDeleted { certificate } => {
                self.change_items(|id, _| (id == format!("certificate#{certificate}")).then_some(None)).await;
            }
            What::ItemAltered { certificate } => {
                let in_a_year = (aws.now() + Duration::days(365)).unix_timestamp().to_string();
                let alter = |id: &str, item: &Value| {
                    (id == format!("certificate#{certificate}")).then(|| {
                        let mut altered = item.clone();
                        altered["look_at"]["N"] = in_a_year.clone().into();
                        for pair in ["current", "previous"] {
                            altered.as_object_mut()?.remove(pair);
                        }
                        Some(altered)
                    })
                };
                self.change_items(alter).await;
            }
            What::TableEmptied => self.change_items(|_, _| Some(None)).await,
            What::SweptTwice => {
                for _ in 0..2 {
                    let sweep = json!({"FunctionName": "everleaf-renew-on-expiry", "InvocationType": "Event", "Payload": {"sweep": true}});
                    user(&aws, "lambda:Invoke", sweep).await;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn ends(&mut self, incident: &Incident) {
        if matches!(incident.what, What::AuthorityDisabled) {
            std::mem::take(&mut self.disabled).iter().for_each(|authority| self.enable(authority, true));
        }
    }

    fn enable(&self, authority: &str, enabled: bool) {
        // It is already as it is to be where two of these overlap.
        _ = self.stack.aws.world(|world, now| pca::enable(world, now, authority, enabled));
    }

    /// By one below another root: the trust store has to hold that one before its first pair is current, and the other one as long as
    /// a pair needs it.
    async fn replace_authority(&mut self) {
        let successor = self.stack.aws.world(|world, now| {
            let root = pca::create_active_root(world, now, "Example Next Root CA", "EC_prime256v1")?;
            pca::create_active_subordinate(world, now, &root, "Example Next Issuing CA", "EC_prime256v1")
        });
        let successor = successor.expect("a CA can be set up");
        let retired = std::mem::replace(&mut self.issuing_ca, successor.clone());
        self.stack.update(&[("IssuingCaArn", &successor), ("RetiredCas", &format!("{retired}={successor}"))]).await;
        self.spoil();
    }

    /// Items of the table become others, or none.
    async fn change_items(&self, change: impl Fn(&str, &Value) -> Option<Option<Value>>) {
        let items: Vec<(String, Value)> = self
            .stack
            .aws
            .world(|world, _| world.dynamodb.items().map(|(table, item)| (table.to_owned(), json!(item))).collect());
        for (table, item) in items {
            match change(item["id"]["S"].as_str().unwrap_or_default(), &item) {
                Some(Some(altered)) => {
                    user(&self.stack.aws, "dynamodb:PutItem", json!({"TableName": table, "Item": altered})).await;
                }
                Some(None) => {
                    let delete = json!({"TableName": table, "Key": {"id": item["id"]}});
                    user(&self.stack.aws, "dynamodb:DeleteItem", delete).await;
                }
                None => {}
            }
        }
    }

    /// What people do once an hour: they ask again for what has failed, do what they were told, and set up services whose
    /// certificates are there.
    pub(crate) async fn people(&mut self, told: &[Value]) {
        for detail in told {
            match detail["reason"].as_str().unwrap_or_default().split(':').next() {
                Some("rejected-again") => {
                    let later = self.stack.aws.now() + Duration::hours(3);
                    self.asks.push((later, "renew-on-expiry", json!({"retry": detail["certificate"]})));
                }
                Some("rollout-failed") => {
                    for service in detail["services"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                        self.deploy_what_failed(service).await;
                    }
                }
                _ => {}
            }
        }
        self.ask().await;
        self.tag_in_acm().await;
        self.create_services().await;
    }

    async fn deploy_what_failed(&self, service: &str) {
        let (cluster, service) = service.split_once('/').unwrap_or_default();
        let services = json!({"cluster": cluster, "services": [service]});
        let seen = user(&self.stack.aws, "ecs:DescribeServices", services).await;
        // Without a circuit breaker ECS tries for ever.
        let failed = |deployment: &Value| {
            let starts_none = deployment["runningCount"] == 0 && deployment["failedTasks"] != 0;
            deployment["rolloutState"] == "FAILED" || deployment["status"] == "PRIMARY" && starts_none
        };
        if seen["services"][0]["deployments"].as_array().is_some_and(|all| all.iter().any(failed)) {
            user(&self.stack.aws, "ecs:UpdateService", new_deployment(service)).await;
        }
    }

    /// ACM's certificates are Everleaf's once they bear its tags.
    async fn tag_in_acm(&self) {
        for (name, arn) in &self.arns {
            let ordered = |certificate: &&Certificate| self.begin + certificate.ordered <= self.stack.aws.now();
            let Some(certificate) = self.plan.certificate(name).filter(ordered) else { continue };
            let listed = user(&self.stack.aws, "acm:ListTagsForCertificate", json!({"CertificateArn": arn})).await;
            if listed["Tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                continue;
            }
            let tag = |key: &str, value: String| json!({"Key": format!("everleaf:{key}"), "Value": value});
            let services = services(certificate).into_iter().enumerate();
            let services = services.map(|(number, service)| tag(&format!("service-{}", number + 1), service));
            let tags = [tag("certificate", secret(name)), tag("key-format", key_format(certificate).to_owned())];
            let add = json!({"CertificateArn": arn, "Tags": tags.into_iter().chain(services).collect::<Vec<_>>()});
            user(&self.stack.aws, "acm:AddTagsToCertificate", add).await;
        }
    }

    async fn ask(&mut self) {
        let now = self.stack.aws.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.asks).into_iter().partition(|(from, ..)| *from <= now);
        self.asks = later;
        for (from, function, request) in due {
            let invoke = json!({"FunctionName": format!("everleaf-{function}"), "Payload": request});
            let answer = user(&self.stack.aws, "lambda:Invoke", invoke).await;
            if !answer["FunctionError"].is_null() || answer["Payload"]["outcome"] == "waiting-for-trust" {
                self.asks.push((from, function, request));
            }
        }
    }

    async fn create_services(&mut self) {
        let plan = self.plan.clone();
        for service in &plan.services {
            let there = |certificate: &Certificate| {
                let secret = secret(&certificate.name);
                self.stack.aws.world(|world, _| world.secrets.value(&secret, None, None).is_some_and(|value| value != "{}"))
            };
            if !self.without_service.contains(&service.name) || !plan.of_service(&service.name).all(there) {
                continue;
            }
            let definition = self.task_definition(&service.name);
            user(&self.stack.aws, "ecs:RegisterTaskDefinition", definition).await;
            let create = json!({
                "cluster": CLUSTER, "serviceName": service.name, "taskDefinition": service.name, "desiredCount": service.tasks,
                "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": service.breaker, "rollback": service.rollback}},
            });
            user(&self.stack.aws, "ecs:CreateService", create).await;
            self.without_service.remove(&service.name);
        }
    }

    fn task_definition(&self, service: &str) -> Value {
        let mut secrets = Vec::new();
        for certificate in self.plan.of_service(service) {
            let arn =
                self.stack.aws.world(|world, _| world.arn("secretsmanager", &format!("secret:{}", secret(&certificate.name))));
            let values = ["certificate", "certificate_chain", "private_key"].into_iter();
            for value in values.chain(certificate.encrypted.then_some("passphrase")) {
                secrets.push(json!({"name": variable(certificate, value), "valueFrom": format!("{arn}:{value}::")}));
            }
        }
        json!({"family": service, "containerDefinitions": [{"name": "app", "image": "app", "secrets": secrets}]})
    }

    pub(crate) fn asks_nothing(&self) -> bool {
        self.asks.is_empty()
    }
}

impl Spoiling {
    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn call(&mut self, aws: &LocalAws, call: &Call) -> Option<Fault> {
        if call.caller == "user" {
            return None;
        }
        if call.operation == "PutSecretValue" && call.input["VersionStages"][0] == "AWSPENDING" {
            self.somebody_acts(aws, call);
        }
        let after = call.at - self.begin;
        let plan = self.plan.clone();
        for incident in plan.incidents.iter().filter(|incident| incident.is_on(after)) {
            let What::Calls { spoilt, service, one_in } = incident.what else { continue };
            let dice = self.dice.get_mut(&incident.number)?;
            if service.is_some_and(|service| service != call.service) || !dice.one_in(one_in) {
                continue;
            }
            let fault = match spoilt {
                Spoilt::Throttled => Fault::Refuse(AwsError::throttled_by(call.service)),
                Spoilt::Failed => Fault::Refuse(AwsError::internal()),
                Spoilt::Reset => Fault::Reset,
                Spoilt::AnswerLost => Fault::LoseAnswer,
                Spoilt::TimedOut => Fault::Hang,
                Spoilt::Slow(seconds) => Fault::Delay(StdDuration::from_secs(seconds)),
                Spoilt::Crashed => Fault::Crash,
                Spoilt::Stale => Fault::Stale,
            };
            let kind = format!("{spoilt:?}");
            self.count(kind.split('(').next().unwrap_or_default());
            return Some(fault);
        }
        None
    }

    /// A version is put that is promoted next.
    fn somebody_acts(&mut self, aws: &LocalAws, call: &Call) {
        let asked = call.input["SecretId"].as_str().unwrap_or_default();
        let name = self.watched.keys().find(|name| asked.contains(&secret(name))).cloned();
        let Some((name, moves_label)) = name.and_then(|name| self.watched.remove_entry(&name)) else { return };
        let service = self.plan.certificate(&name).and_then(|certificate| certificate.services.first()).cloned();
        self.count("done meanwhile");
        let aws = aws.clone();
        tokio::spawn(async move {
            if moves_label {
                move_label(&aws, &name).await;
            } else if let Some(service) = service {
                // It may not be there yet.
                drop(aws.call("ecs:UpdateService", new_deployment(&service)).await);
            }
        });
    }

    fn deliver(&mut self, now: OffsetDateTime, event: &Value) -> Vec<StdDuration> {
        let source = event["source"].as_str().unwrap_or_default();
        let (own, schedule) = (source == "everleaf", source.is_empty());
        if !self.aws_events && source.starts_with("aws.") {
            self.count("event lost");
            return Vec::new();
        }
        let (after, plan) = (now - self.begin, self.plan.clone());
        for incident in plan.incidents.iter().rev().filter(|incident| incident.is_on(after)) {
            let What::Events { own: concerned, delivered } = incident.what else { continue };
            let Some(dice) = self.dice.get_mut(&incident.number).filter(|_| concerned == (own || schedule)) else { continue };
            let minutes = |dice: &mut Dice, most: u64| StdDuration::from_secs(dice.below(most as usize * 60) as u64);
            let (what, deliveries) = match delivered {
                Delivered::Never if schedule => return vec![StdDuration::ZERO],
                Delivered::Never => ("event lost", Vec::new()),
                Delivered::Twice => ("event twice", vec![StdDuration::ZERO, minutes(dice, 10)]),
                Delivered::Late(most) => ("event late", vec![minutes(dice, most)]),
                Delivered::Anyhow => match dice.below(8) {
                    0 | 1 if !schedule => ("event lost", Vec::new()),
                    2 => ("event twice", vec![StdDuration::ZERO, StdDuration::ZERO]),
                    3 => ("event twice", vec![StdDuration::ZERO, minutes(dice, 200)]),
                    4 => ("event late", vec![minutes(dice, 200)]),
                    5 => ("event late", vec![minutes(dice, 5)]),
                    _ => return vec![StdDuration::ZERO],
                },
            };
            self.count(what);
            return deliveries;
        }
        vec![StdDuration::ZERO]
    }
}

/// Somebody goes back to the pair before, where that is good for two more days: a look comes within one. Nobody does before Everleaf
/// has seen that it was done the last time.
async fn move_label(aws: &LocalAws, certificate: &str) {
    let now = aws.now();
    let versions = aws.world(|world, _| {
        let id = json!({"S": format!("certificate#{certificate}")});
        let (_, record) = world.dynamodb.items().find(|(_, item)| item.get("id") == Some(&id))?;
        let recorded = record.get("current")?["M"]["version_id"]["S"].as_str()?.to_owned();
        let secret = world.secrets.find(&secret(certificate))?;
        let staged = |label: &str| secret.versions.iter().find(|version| version.stages.contains(label));
        let (current, previous) = (staged("AWSCURRENT")?, staged("AWSPREVIOUS")?);
        let not_after = crate::watch::not_after(previous.secret_string.as_deref()?)?;
        (current.id == recorded && not_after > now + Duration::days(2)).then(|| (current.id.clone(), previous.id.clone()))
    });
    if let Some((current, previous)) = versions {
        let back = json!({
            "SecretId": secret(certificate), "VersionStage": "AWSCURRENT", "MoveToVersionId": previous, "RemoveFromVersionId": current,
        });
        user(aws, "secretsmanager:UpdateSecretVersionStage", back).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A person's call is right: only quotas stand against it.
pub(crate) async fn user(aws: &LocalAws, action: &str, input: Value) -> Value {
    loop {
        match aws.call(action, input.clone()).await {
            Err(error) if error.code.starts_with("Throttl") => tokio::time::sleep(StdDuration::from_secs(1)).await,
            answer => return answer.unwrap_or_else(|error| panic!("{action}: {error:?}")),
        }
    }
}

pub(crate) fn secret(certificate: &str) -> String {
    format!("everleaf/{certificate}")
}

pub(crate) fn host(certificate: &str) -> String {
    format!("{certificate}.example.internal")
}

/// The variable in which a container finds one value of a secret.
pub(crate) fn variable(certificate: &Certificate, value: &str) -> String {
    format!("{} {value}", certificate.name)
}

fn key_format(certificate: &Certificate) -> &'static str {
    if certificate.encrypted { "encrypted" } else { "plain" }
}

fn new_deployment(service: &str) -> Value {
    json!({"cluster": CLUSTER, "service": service, "forceNewDeployment": true})
}

fn services(certificate: &Certificate) -> Vec<String> {
    certificate.services.iter().map(|service| format!("{CLUSTER}/{service}")).collect()
}

pub(crate) fn std(time: Duration) -> StdDuration {
    StdDuration::try_from(time).unwrap_or_default()
}
