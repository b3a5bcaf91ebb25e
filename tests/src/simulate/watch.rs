//! The promises, checked from the outside: by the calls that reached AWS, the events on the bus, what the secrets hold, what tasks
//! loaded when they started, and what a listener makes of the pairs. Nothing of the functions' code is asked or used.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda_runtime::tracing::dispatcher::{self, DefaultGuard};
use local_aws::{Call, World, elbv2};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use workflow::Stack;
use workflow::leaks::{Leaks, Log, open, said};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::account::{Account, CLUSTER, host, secret, user, variable};
use crate::plan::{Certificate, Counts, Origin, Plan, What, day};

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>
const TOKEN_LIFETIME: Duration = Duration::minutes(5);

/// By how much the clocks of ECS and Secrets Manager may differ, and a little more: who is not sure deploys once more.
const CLOCKS: Duration = Duration::minutes(7);

/// What a service may wait for a new pair, with a canary before it, when nothing fails.
const ROLLOUT: Duration = Duration::hours(60);

/// When a deployment that failed has been seen to, by its event or by the daily look.
const SEEN_TO: Duration = Duration::hours(36);

/// A promise and what broke it.
pub(crate) type Broken = (u8, String);

pub(crate) struct Watch {
    plan: Arc<Plan>,
    begin: OffsetDateTime,
    listener: String,
    pub(crate) broken: Vec<Broken>,
    pub(crate) counts: Totals,
    /// Public keys that are durable in a secret, and those that a CA was asked to sign, when and under which token.
    durable: HashSet<Vec<u8>>,
    asked: HashMap<Vec<u8>, (OffsetDateTime, Value)>,
    /// What became current, by certificate, the oldest first, and whether Everleaf did it.
    promotions: BTreeMap<String, Vec<Promotion>>,
    /// By the text of the secret, and those that the listener has let in since its trust store changed last.
    pairs: HashMap<String, Pair>,
    let_in: HashSet<String>,
    services: BTreeMap<String, Deployed>,
    recorded: BTreeMap<String, Recorded>,
    /// When the secret of a certificate was last written to.
    changed: BTreeMap<String, OffsetDateTime>,
    /// The serials of versions, and which version Everleaf had recorded as current when each was put.
    put: HashMap<String, (Option<String>, Option<String>)>,
    /// The versions that deployments failed on, and their serials but for those that the version before has too: what ACM holds
    /// can be exported twice.
    rejected: HashSet<String>,
    /// When a CA refused a certificate for good, time and again.
    refused: BTreeMap<String, Vec<OffsetDateTime>>,
    told: BTreeMap<(String, String), OffsetDateTime>,
    leaks: Leaks,
    /// What the functions log, as long as this listens.
    log: Log,
    _listening: DefaultGuard,
    trace: bool,
}

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) expired_in_use: u64,
    pub(crate) keys_asked_twice: u64,
    pub(crate) issued: u64,
    pub(crate) exported: u64,
    pub(crate) imported: u64,
    pub(crate) pairs: u64,
    pub(crate) undone: u64,
    pub(crate) rollouts: u64,
    pub(crate) told: u64,
    pub(crate) invocations: Counts,
    pub(crate) calls: Counts,
    pub(crate) events: Counts,
}

struct Promotion {
    version: String,
    /// Where it was seen as it was put.
    serial: Option<String>,
    at: OffsetDateTime,
    by_everleaf: bool,
    /// Since when it is current as far as Everleaf can know: AWS dates no label, only the last change to the whole secret. That of
    /// its own promotions is read at once; what somebody else moved has that of when it was found.
    since: OffsetDateTime,
}

/// The record of a certificate as it was last written with its current pair.
struct Recorded {
    version: String,
    at: OffsetDateTime,
    /// When it was written for the first time after a loss.
    found: Option<OffsetDateTime>,
}

struct Pair {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    serial: String,
    /// What a client sends.
    chain: String,
    /// What is wrong with it, whenever.
    fault: Option<String>,
}

#[derive(Clone, Copy)]
struct Deployed {
    created: OffsetDateTime,
    began: OffsetDateTime,
    /// When Everleaf deployed it last.
    ours: OffsetDateTime,
    /// When a deployment of it failed last, and when one came to a good end.
    failed: Option<OffsetDateTime>,
    completed: Option<OffsetDateTime>,
}

impl Watch {
    /// `trace` tells everything that writes or is told as it comes.
    pub(crate) fn new(account: &Account, trace: bool) -> Self {
        let log = Log::default();
        let writer = log.clone();
        Self {
            _listening: dispatcher::set_default(&runtime::logging(true, move || writer.clone())),
            log,
            plan: account.plan.clone(),
            begin: account.begin,
            listener: account.listener.clone(),
            broken: Vec::new(),
            counts: Totals::default(),
            durable: HashSet::new(),
            asked: HashMap::new(),
            promotions: BTreeMap::new(),
            pairs: HashMap::new(),
            let_in: HashSet::new(),
            services: BTreeMap::new(),
            recorded: BTreeMap::new(),
            changed: BTreeMap::new(),
            put: HashMap::new(),
            rejected: HashSet::new(),
            refused: BTreeMap::new(),
            told: BTreeMap::new(),
            leaks: Leaks::default(),
            trace,
        }
    }

    fn last(&self, name: &str) -> Option<&Promotion> {
        self.promotions.get(name)?.last()
    }

    fn breaks(&mut self, promise: u8, at: OffsetDateTime, what: impl AsRef<str>) {
        self.broken.push((promise, format!("{}: {}", day(at - self.begin), what.as_ref())));
    }

    /// Takes in what has happened since the last time, and looks at how things stand; what people were told.
    pub(crate) fn look(&mut self, account: &Account) -> Vec<Value> {
        let (aws, mut told) = (&account.stack.aws, Vec::new());
        for call in aws.take_calls() {
            self.call(&call);
        }
        for event in aws.take_events() {
            self.event(event.at, &event.event, &mut told);
        }
        for invocation in aws.take_invocations() {
            self.trace(invocation.at, || {
                format!("{} try {} {} -> {:?}", invocation.function, invocation.attempt, invocation.payload, invocation.outcome)
            });
            let (outcome, text) = match &invocation.outcome {
                Ok(answer) => ("done", answer.to_string()),
                Err(error) => (error.error_type.as_str(), error.error_message.clone()),
            };
            *self.counts.invocations.entry(outcome.to_owned()).or_default() += 1;
            self.search(invocation.ended, "an answer", &text);
            if outcome == "Panic" {
                self.breaks(8, invocation.ended, format!("{} panicked: {text}", invocation.function));
            }
        }
        let now = aws.now();
        let log = self.log.take();
        self.search(now, "the log", &log);
        aws.world(|world, _| self.standing(world, now));
        told
    }

    fn search(&mut self, at: OffsetDateTime, what: &str, text: &str) {
        if self.leaks.are_in(text) {
            self.breaks(7, at, format!("a private key or a passphrase is in {what}"));
        }
    }

    fn trace(&self, at: OffsetDateTime, what: impl FnOnce() -> String) {
        if self.trace {
            _ = writeln!(io::stderr(), "{} {}", day(at - self.begin), what());
        }
    }

    fn call(&mut self, call: &Call) {
        if call.writes() && call.operation != "PutEvents" {
            self.trace(call.at, || format!("  {} {} {:?} {}", call.caller, call.action(), call.error, call.input));
        }
        if call.caller != "user" {
            *self.counts.calls.entry(call.action()).or_default() += 1;
            if !["PutSecretValue", "ExportCertificate", "ImportCertificate"].contains(&call.operation.as_str()) {
                self.search(call.at, &call.action(), &said(call));
            }
        }
        if call.operation == "IssueCertificate" {
            self.is_not_refused(call);
        }
        if call.error.is_some() {
            return;
        }
        if call.service == "secretsmanager" && call.writes() {
            self.changed.extend(self.name_of(call).map(|name| (name, call.at)));
        }
        if call.service == "elasticloadbalancing" && call.writes() {
            self.let_in.clear();
        }
        match call.action().as_str() {
            "secretsmanager:PutSecretValue" => self.put(call),
            "secretsmanager:UpdateSecretVersionStage" if call.input["VersionStage"] == "AWSCURRENT" => self.promoted(call),
            "secretsmanager:UpdateSecretVersionStage" if call.input["VersionStage"] == "everleaf-rejected" => self.rejected(call),
            "secretsmanager:TagResource" => self.tags(call),
            "acm-pca:IssueCertificate" => self.asks(call),
            "dynamodb:PutItem" | "dynamodb:TransactWriteItems" if call.caller != "user" => self.records(call),
            "acm:ExportCertificate" => self.counts.exported += 1,
            "acm:ImportCertificate" => self.counts.imported += 1,
            "ecs:CreateService" => self.deployed(call.input["serviceName"].as_str(), false, call.at),
            "ecs:UpdateService" => {
                let service = call.input["service"].as_str();
                if call.caller != "user" {
                    self.counts.rollouts += 1;
                    self.was_due(service.unwrap_or_default(), call.at);
                }
                self.deployed(service, call.caller != "user", call.at);
            }
            _ => {}
        }
    }

    /// Tags are written last: what they say is current by then.
    fn tags(&mut self, call: &Call) {
        let Some(name) = self.name_of(call) else { return };
        let tags = call.input["Tags"].as_array().into_iter().flatten();
        let serial = tags.filter(|tag| tag["Key"] == "everleaf:serial").find_map(|tag| tag["Value"].as_str());
        let Some(serial) = serial else { return };
        let is_current = |last: &Promotion| last.serial.as_deref().is_none_or(|current| current == serial);
        if !self.last(&name).is_some_and(is_current) {
            self.breaks(1, call.at, format!("the tags of {name} say serial {serial} before it is current"));
        }
    }

    /// A record with its current pair, perhaps for the first time since it was lost.
    fn records(&mut self, call: &Call) {
        let written = call.input["TransactItems"].as_array().into_iter().flatten().map(|write| &write["Put"]["Item"]);
        for item in written.chain([&call.input["Item"]]).filter(|item| !item["current"].is_null()) {
            let name = item["id"]["S"].as_str().and_then(|id| id.strip_prefix("certificate#")).unwrap_or_default();
            let version = item["current"]["M"]["version_id"]["S"].as_str().unwrap_or_default().to_owned();
            let before = self.recorded.get(name);
            let is_lost = self.is_lost(name, before.map_or(call.at, |before| before.at), call.at);
            let found = if is_lost { Some(call.at) } else { before.and_then(|before| before.found) };
            let is_known = before.is_some_and(|before| before.version == version);
            let last = self.promotions.get_mut(name).and_then(|promotions| promotions.last_mut());
            if let Some(last) = last.filter(|last| last.version == version && !is_known) {
                last.since = self.changed[name];
            }
            self.recorded.insert(name.to_owned(), Recorded { version, at: call.at, found });
        }
    }

    fn deployed(&mut self, service: Option<&str>, ours: bool, at: OffsetDateTime) {
        let deployed = self.services.entry(service.unwrap_or_default().to_owned());
        let deployed = deployed.or_insert(Deployed { created: at, began: at, ours: at, failed: None, completed: None });
        (deployed.began, deployed.ours) = (at, if ours { at } else { deployed.ours });
    }

    /// Everleaf deploys a service: one of its pairs must have become current since the last deployment began. When that was is
    /// forgotten with the record: then once more does no harm.
    fn was_due(&mut self, service: &str, at: OffsetDateTime) {
        let deployed = self.services.get(service);
        let [began, ours] = deployed.map_or([self.begin; 2], |deployed| [deployed.began - CLOCKS, deployed.ours - CLOCKS]);
        let plan = self.plan.clone();
        let is_new = |certificate: &Certificate| {
            let last = self.last(&certificate.name);
            last.is_some_and(|last| last.since > began || self.is_forgotten(&certificate.name, ours, at))
        };
        if !plan.of_service(service).any(is_new) {
            self.breaks(3, at, format!("{service} was deployed again, and no pair of it is new"));
        }
    }

    /// Whether the record of a certificate was lost in that time, or came back in it.
    fn is_forgotten(&self, name: &str, from: OffsetDateTime, to: OffsetDateTime) -> bool {
        let found = self.recorded.get(name).and_then(|recorded| recorded.found);
        self.is_lost(name, from, to) || found.is_some_and(|found| (from..=to).contains(&found))
    }

    fn is_lost(&self, name: &str, from: OffsetDateTime, to: OffsetDateTime) -> bool {
        self.plan.incidents.iter().filter(|incident| (from..to).contains(&(self.begin + incident.from))).any(|incident| {
            match &incident.what {
                What::TableEmptied => true,
                What::ItemDeleted { certificate } | What::ItemAltered { certificate } => certificate == name,
                _ => false,
            }
        })
    }

    /// A secret gets a version: a key that waits with its CSR, or a pair.
    fn put(&mut self, call: &Call) {
        let text = call.input["SecretString"].as_str().unwrap_or_default();
        let values: Value = serde_json::from_str(text).unwrap_or_default();
        if let (Some(version), Some(name)) = (call.input["ClientRequestToken"].as_str(), self.name_of(call)) {
            let decided = self.recorded.get(&name).map(|recorded| recorded.version.clone());
            self.put.entry(version.to_owned()).or_insert_with(|| (serial(text), decided));
        }
        let Some(pem) = values["private_key"].as_str() else { return };
        let passphrase = values["passphrase"].as_str();
        let key = open(pem, passphrase).and_then(|key| {
            let key = KeyPair::try_from(key.as_bytes()).map_err(|error| error.to_string())?;
            Ok(key.subject_public_key_info())
        });
        match key {
            Ok(public) => _ = self.durable.insert(public),
            Err(why) => self.breaks(2, call.at, format!("a key that was put cannot be read: {why}")),
        }
        drop(self.leaks.learn(pem, passphrase));
    }

    /// What is permanent is not repeated for a quarter of the time to renew, or of what the current pair has left, or for a day.
    /// Lambda tries each event three times, and an event may come twice, and late.
    fn is_not_refused(&mut self, call: &Call) {
        let Some((name, _)) = csr(call) else { return };
        let plan = self.plan.clone();
        // Until there is a first pair it is people who ask, and once an hour.
        let Some(certificate) = plan.certificate(&name).filter(|_| self.promotions.contains_key(&name)) else { return };
        let serial = self.last(&name).and_then(|last| last.serial.as_ref());
        let current = self.pairs.values().find(|pair| Some(&pair.serial) == serial);
        let left = current.map_or(Duration::MAX, |pair| pair.not_after - call.at);
        let rest = Duration::min(certificate.lifetime / 12, Duration::DAY).min(left / 4) - Duration::minutes(15);
        let refused = self.refused.entry(name.clone()).or_default();
        refused.retain(|at| call.at - *at < rest);
        if call.error.as_deref() == Some("InvalidStateException") {
            refused.push(call.at);
        }
        let times = refused.len();
        if times > 9 {
            self.breaks(8, call.at, format!("a CA that refuses {name} for good was asked {times} times in {rest}"));
        }
    }

    fn asks(&mut self, call: &Call) {
        let Some((_, public)) = csr(call) else { return };
        if !self.durable.contains(&public) {
            self.breaks(2, call.at, "a CA was asked to sign a key that is in no secret");
        }
        let token = call.input["IdempotencyToken"].clone();
        match self.asked.insert(public, (call.at, token.clone())) {
            Some((before, known)) if known == token && !token.is_null() && call.at - before < TOKEN_LIFETIME => {}
            Some((before, _)) => {
                self.counts.keys_asked_twice += 1;
                self.breaks(2, call.at, format!("a key was asked for twice, first on {}", day(before - self.begin)));
            }
            None => self.counts.issued += 1,
        }
    }

    /// The certificate whose secret a call names, by its name or by its ARN, which ends in six characters more.
    fn name_of(&self, call: &Call) -> Option<String> {
        let asked = call.input["SecretId"].as_str()?;
        let is_it = |name: &&String| {
            let secret = secret(name);
            asked == secret || asked.rsplit_once('-').is_some_and(|(arn, _)| arn.ends_with(&format!(":secret:{secret}")))
        };
        self.plan.certificates.iter().map(|certificate| &certificate.name).find(is_it).cloned()
    }

    fn promoted(&mut self, call: &Call) {
        let Some(name) = self.name_of(call) else { return };
        let version = call.input["MoveToVersionId"].as_str().unwrap_or_default().to_owned();
        let by_everleaf = call.caller != "user";
        let (serial, decided) = self.put.get(&version).cloned().unwrap_or_default();
        let promotions = self.promotions.entry(name.clone()).or_default();
        let current = promotions.last().map(|last| last.version.clone());
        if current.as_ref() == Some(&version) {
            return;
        }
        let is_rejected =
            self.rejected.contains(&version) || serial.as_ref().is_some_and(|serial| self.rejected.contains(serial));
        let is_rotated = version.contains('-');
        let is_new = promotions.iter().all(|before| before.version != version);
        self.counts.pairs += u64::from(is_new);
        promotions.push(Promotion { version: version.clone(), serial, at: call.at, by_everleaf, since: call.at });
        // What Secrets Manager asks for is decided anew at each of its tries.
        if by_everleaf && is_new && decided != current && !is_rotated {
            self.breaks(
                2,
                call.at,
                format!("a pair of {name} became current in the place of one that was not known when it was put"),
            );
        }
        if !by_everleaf {
            // Whoever makes a rejected version current vouches for it.
            self.rejected.remove(&version);
        } else if is_rejected {
            self.breaks(6, call.at, format!("a pair of {name} that was rejected became current again"));
        }
    }

    fn rejected(&mut self, call: &Call) {
        let Some((name, version)) = self.name_of(call).zip(call.input["MoveToVersionId"].as_str()) else { return };
        let serial = self.put.get(version).and_then(|(serial, _)| serial.clone());
        let before = self.promotions.get(&name).and_then(|promotions| promotions.iter().rev().find(|it| it.version != version));
        self.rejected.extend(serial.filter(|serial| before.is_none_or(|before| before.serial.as_ref() != Some(serial))));
        self.rejected.insert(version.to_owned());
    }

    fn event(&mut self, at: OffsetDateTime, event: &Value, told: &mut Vec<Value>) {
        let source = event["source"].as_str().unwrap_or_default();
        *self.counts.events.entry(source.to_owned()).or_default() += 1;
        self.search(at, "an event", &event.to_string());
        self.trace(at, || format!("    {} {} {}", event["detail-type"], event["resources"], event["detail"]));
        let detail = &event["detail"];
        match event["detail-type"].as_str().unwrap_or_default() {
            "ECS Deployment State Change" => {
                let service = event["resources"][0].as_str().and_then(|arn| arn.rsplit('/').next()).unwrap_or_default();
                if let Some(deployed) = self.services.get_mut(service) {
                    match detail["eventName"].as_str() {
                        Some("SERVICE_DEPLOYMENT_FAILED") => deployed.failed = Some(at),
                        Some("SERVICE_DEPLOYMENT_COMPLETED") => deployed.completed = Some(at),
                        Some("SERVICE_DEPLOYMENT_IN_PROGRESS") => deployed.began = deployed.began.max(at),
                        _ => {}
                    }
                }
            }
            "Certificate Rolled Back" => self.counts.undone += 1,
            "Action Required" => {
                self.counts.told += 1;
                told.push(detail.clone());
                let (certificate, reason) = (&detail["certificate"], detail["reason"].as_str().unwrap_or_default());
                let code = reason.split(':').next().unwrap_or_default().to_owned();
                let last = self.told.insert((certificate.to_string(), code.clone()), at);
                // Who is not sure that it was told tells it again.
                let spoilt = self.plan.incidents.iter().any(|incident| {
                    let lasts = incident.from - Duration::DAY..incident.to + Duration::DAY;
                    !matches!(incident.what, What::Clocks { .. } | What::IndexesLate { .. } | What::Events { .. })
                        && lasts.contains(&(at - self.begin))
                });
                // What is told of a new pair is another matter.
                let current = certificate.as_str().and_then(|name| self.last(name)).map(|pair| pair.at + CLOCKS);
                let again = last.is_some_and(|last| at - last < Duration::hours(23) && current.is_none_or(|pair| pair < last));
                if !spoilt && again {
                    self.breaks(8, at, format!("`{code}` was told twice within a day of {certificate}"));
                }
            }
            _ => {}
        }
    }

    fn standing(&mut self, world: &mut World, now: OffsetDateTime) {
        let plan = self.plan.clone();
        for certificate in &plan.certificates {
            let Some(found) = world.secrets.find(&secret(&certificate.name)) else {
                if self.promotions.contains_key(&certificate.name) {
                    self.breaks(1, now, format!("the secret of {} is gone", certificate.name));
                }
                continue;
            };
            let staged = |label: &str| found.versions.iter().find(|version| version.stages.contains(label));
            let (current, previous) = (staged("AWSCURRENT"), staged("AWSPREVIOUS").map(|version| version.id.clone()));
            let (version, text) = match current.map(|version| (&version.id, version.secret_string.as_deref().unwrap_or_default()))
            {
                Some((_, "{}")) if !self.promotions.contains_key(&certificate.name) => continue,
                Some((version, text)) => (version.clone(), text.to_owned()),
                None => continue,
            };
            match self.promotions.get(&certificate.name).map(Vec::as_slice) {
                Some([.., before, last])
                    if last.by_everleaf && last.version == version && previous.as_deref() != Some(&before.version) =>
                {
                    self.breaks(2, now, format!("AWSPREVIOUS of {} is not the pair that was current before", certificate.name));
                }
                Some([.., last]) if last.version == version => {}
                _ => self.breaks(1, now, format!("AWSCURRENT of {} is on a version that was never promoted", certificate.name)),
            }
            self.judge(world, now, certificate, "AWSCURRENT", text);
        }
        for service in &plan.services {
            self.tasks(world, now, &service.name);
            self.is_seen_to(now, &service.name);
        }
    }

    /// A pair that is current, or that a task has loaded.
    fn judge(&mut self, world: &mut World, now: OffsetDateTime, certificate: &Certificate, holder: &str, text: String) {
        if !self.pairs.contains_key(&text) {
            match pair(certificate, &text) {
                Ok(pair) => _ = self.pairs.insert(text.clone(), pair),
                Err(why) => return self.breaks(1, now, format!("{}: {why}", certificate.name)),
            }
        }
        let Pair { not_before, not_after, serial, chain, fault } = &self.pairs[&text];
        let holds = format!("{holder} of {} holds {serial}", certificate.name);
        if let Some(fault) = fault {
            self.breaks(1, now, format!("{holds}: {fault}"));
        } else if now >= *not_after {
            let ended = day(*not_after - self.begin);
            self.counts.expired_in_use += 1;
            self.breaks(4, now, format!("{holds}, expired {ended}"));
        } else if now < *not_before {
            self.breaks(1, now, format!("{holds}, which is not valid yet"));
        } else if !self.let_in.contains(&text) {
            let verdict = elbv2::tls_verify_status(world, now, &self.listener, chain).unwrap_or_else(|error| error.message);
            if verdict == "Success" || certificate.usage == "server" && verdict == "Failed:ClientCertPurposeInvalid" {
                self.let_in.insert(text);
            } else {
                self.breaks(5, now, format!("{holds}: the listener says {verdict}"));
            }
        }
    }

    fn tasks(&mut self, world: &mut World, now: OffsetDateTime, service: &str) {
        let Some(deployed) = self.services.get(service).copied() else { return };
        let (plan, tasks) = (self.plan.clone(), world.ecs.running_values(CLUSTER, service));
        for certificate in plan.of_service(service) {
            let Some(last) = self.last(&certificate.name) else { continue };
            let (name, since, leaf) = (&certificate.name, last.at.max(deployed.created), current_leaf(world, certificate));
            let lags = tasks.is_empty()
                || leaf.is_some_and(|leaf| tasks.iter().any(|task| loaded(task, certificate, "certificate") != Some(&leaf)));
            for task in &tasks {
                self.judge(world, now, certificate, "a task", loaded_pair(task, certificate).to_string());
            }
            let failed = deployed.failed.is_some_and(|failed| failed > since - Duration::DAY);
            if lags && !failed && now - since > ROLLOUT + self.troubled(since, now) {
                let since = day(since - self.begin);
                self.breaks(4, now, format!("{service} is not on the pair of {name} that became current {since}"));
            }
        }
    }

    /// When a deployment of Everleaf's fails the pair before is current again, or a person is told; unless the tasks that ECS then
    /// starts work with what is current.
    fn is_seen_to(&mut self, now: OffsetDateTime, service: &str) {
        let Some(Deployed { began, ours, failed: Some(failed), completed, .. }) = self.services.get(service).copied() else {
            return;
        };
        if began - ours > CLOCKS || completed >= Some(failed) {
            return;
        }
        let plan = self.plan.clone();
        let answered = plan.of_service(service).any(|Certificate { name, .. }| {
            let named = json!(name).to_string();
            let told = |((of, _), at): (&(String, String), &OffsetDateTime)| *of == named && *at >= failed;
            self.last(name).is_some_and(|last| last.at >= failed) || self.told.iter().any(told)
        });
        if began <= failed && !answered && now - failed > SEEN_TO + self.troubled(failed, now) {
            let failed = day(failed - self.begin);
            self.breaks(6, now, format!("the deployment of {service} that failed on {failed} was left alone"));
        }
    }

    /// How long AWS has worked badly in that time, twice over: what failed is tried again at the next sweep.
    fn troubled(&self, from: OffsetDateTime, to: OffsetDateTime) -> Duration {
        let (from, to) = (from - self.begin, to - self.begin);
        let calls = self.plan.incidents.iter().filter(|incident| {
            matches!(incident.what, What::Calls { .. } | What::Events { own: true, .. } | What::AuthorityDisabled)
        });
        calls.map(|incident| (incident.to.min(to) - incident.from.max(from)).max(Duration::ZERO) * 2).sum()
    }

    /// Long after the last thing that went wrong nothing is left to do.
    pub(crate) async fn rests(&mut self, account: &Account) {
        let now = account.stack.aws.now();
        let mut wrong = Vec::new();
        if !account.asks_nothing() {
            wrong.push("what people ask for still fails".to_owned());
        }
        for certificate in &self.plan.certificates {
            let name = &certificate.name;
            let held = account.stack.aws.world(|world, _| {
                let found = world.secrets.find(&secret(name))?;
                let text = world.secrets.value(&found.name, None, None)?.to_owned();
                Some((found.tags.clone(), text))
            });
            let Some((tags, text)) = held else {
                wrong.push(format!("{name} was never issued"));
                continue;
            };
            let Some(pair) = self.pairs.get(&text) else {
                wrong.push(format!("{name} holds no pair"));
                continue;
            };
            let left = pair.not_after - now;
            let window = if certificate.origin == Origin::Exported { Duration::days(57) } else { certificate.lifetime / 3 };
            // A maintenance window is waited for until then; the next sweep but one is late.
            if left < window / 2 - Duration::minutes(2 * self.plan.sweep_minutes) {
                wrong.push(format!("{name} is not renewed"));
            }
            let tag = |key: &str| tags.get(&format!("everleaf:{key}")).map(String::as_str).unwrap_or_default().to_owned();
            if tag("certificate") != secret(name) || tag("serial") != pair.serial {
                wrong.push(format!(
                    "the tags of {name} say `{}` and {}, it is {}",
                    tag("certificate"),
                    tag("serial"),
                    pair.serial
                ));
            }
            if let Some(arn) = account.arns.get(name) {
                let acm = user(&account.stack.aws, "acm:DescribeCertificate", json!({"CertificateArn": arn})).await;
                if acm["Certificate"]["Serial"].as_str().unwrap_or_default().replace(':', "").trim_start_matches('0')
                    != pair.serial
                {
                    wrong.push(format!("ACM is ahead of {name}"));
                }
            }
            wrong.extend(unfinished(&account.stack, name));
        }
        for service in &self.plan.services {
            let tasks = account.stack.aws.world(|world, _| world.ecs.running_values(CLUSTER, &service.name));
            if !self.services.contains_key(&service.name) {
                continue;
            }
            // With a canary before it a service follows at the second sweep.
            let is_settled =
                |certificate: &&Certificate| self.last(&certificate.name).is_none_or(|last| last.at < now - Duration::DAY);
            for certificate in self.plan.of_service(&service.name).filter(is_settled) {
                let leaf = account.stack.aws.world(|world, _| current_leaf(world, certificate));
                let on_it = |task: &Task| loaded(task, certificate, "certificate") == leaf.as_deref();
                if tasks.len() != service.tasks as usize || !tasks.iter().all(on_it) {
                    wrong.push(format!("{} does not run on the current pair of {}", service.name, certificate.name));
                }
            }
        }
        wrong.into_iter().for_each(|what| self.breaks(4, now, format!("at rest: {what}")));
    }

    /// Certificates that were issued, and are in no secret.
    pub(crate) fn beyond_need(&self) -> u64 {
        let names: BTreeSet<_> =
            self.plan.certificates.iter().filter(|one| one.origin != Origin::Exported).map(|one| &one.name).collect();
        let versions = |(name, all): (&String, &Vec<Promotion>)| {
            let versions: BTreeSet<_> = all.iter().map(|promotion| &promotion.version).collect();
            if names.contains(name) { versions.len() as u64 } else { 0 }
        };
        self.counts.issued.saturating_sub(self.promotions.iter().map(versions).sum())
    }
}

/// What is wrong with what the table says of a certificate, by the item itself.
fn unfinished(stack: &Stack, name: &str) -> Option<String> {
    let id = json!(format!("certificate#{name}"));
    let item = |world: &mut World| world.dynamodb.items().find(|(_, item)| item["id"]["S"] == id).map(|(_, item)| json!(item));
    match stack.aws.world(|world, _| item(world)) {
        None => Some(format!("there is no record of {name}")),
        Some(item) if !item["attempt"].is_null() => Some(format!("an attempt at {name} is under way: {}", item["attempt"])),
        Some(_) => None,
    }
}

/// What a task has loaded, by the name of the variable.
type Task = BTreeMap<String, String>;

fn loaded<'a>(task: &'a Task, certificate: &Certificate, value: &str) -> Option<&'a str> {
    task.get(&variable(certificate, value)).map(String::as_str)
}

/// The pair as it stands in a secret.
fn loaded_pair(task: &Task, certificate: &Certificate) -> Value {
    let values = ["certificate", "certificate_chain", "private_key", "passphrase"];
    values.into_iter().filter_map(|name| Some((name, loaded(task, certificate, name)?))).collect()
}

fn current_leaf(world: &World, certificate: &Certificate) -> Option<String> {
    let values: Value = serde_json::from_str(world.secrets.value(&secret(&certificate.name), None, None)?).ok()?;
    values["certificate"].as_str().map(str::to_owned)
}

/// The common name and the public key of what a CA is asked for.
fn csr(call: &Call) -> Option<(String, Vec<u8>)> {
    let csr = BASE64_STANDARD.decode(call.input["Csr"].as_str()?).ok()?;
    let der = Pem::iter_from_buffer(&csr).next()?.ok()?.contents;
    let (_, csr) = X509CertificationRequest::from_der(&der).ok()?;
    let info = csr.certification_request_info;
    let name = info.subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    Some((name, info.subject_pki.raw.to_vec()))
}

/// What is read of the leaf in the text of a secret.
fn of_leaf<T>(text: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let values: Value = serde_json::from_str(text).ok()?;
    let pem = Pem::iter_from_buffer(values["certificate"].as_str()?.as_bytes()).next()?.ok()?;
    let (_, leaf) = parse_x509_certificate(&pem.contents).ok()?;
    Some(read(&leaf))
}

pub(crate) fn not_after(text: &str) -> Option<OffsetDateTime> {
    of_leaf(text, |leaf| leaf.validity().not_after.to_datetime())
}

fn serial(text: &str) -> Option<String> {
    of_leaf(text, |leaf| format!("{:x}", leaf.serial))
}

/// Reads a pair and says what is wrong with it for its certificate, whatever the time.
fn pair(certificate: &Certificate, text: &str) -> Result<Pair, String> {
    let values: Value = serde_json::from_str(text).map_err(|_| "its value is not JSON".to_owned())?;
    let text = |name: &str| values[name].as_str().ok_or_else(|| format!("there is no `{name}`"));
    let (leaf_pem, chain_pem, key_pem) = (text("certificate")?, text("certificate_chain")?, text("private_key")?);
    let blocks = |pem: &str| {
        Pem::iter_from_buffer(pem.as_bytes()).map(|block| block.map(|block| block.contents)).collect::<Result<Vec<_>, _>>()
    };
    let leaves = blocks(leaf_pem).map_err(|error| format!("the leaf is not PEM: {error}"))?;
    let chain = blocks(chain_pem).map_err(|error| format!("the chain is not PEM: {error}"))?;
    let [der] = &leaves[..] else { return Err(format!("there are {} leaves", leaves.len())) };
    let (_, leaf) = parse_x509_certificate(der).map_err(|error| format!("the leaf does not parse: {error}"))?;
    let passphrase = values["passphrase"].as_str();
    let key = open(key_pem, passphrase)?;
    let key = KeyPair::try_from(key.as_bytes()).map_err(|error| format!("the key does not parse: {error}"))?;
    let names: Vec<_> = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                other => format!("{other:?}"),
            })
            .collect(),
        _ => Vec::new(),
    };
    let usage =
        leaf.extended_key_usage().ok().flatten().map(|extension| (extension.value.client_auth, extension.value.server_auth));
    let wanted = (certificate.usage != "server", certificate.usage != "client");
    let mut issuer = leaf.issuer().as_raw().to_vec();
    let mut complete = !chain.is_empty();
    for der in &chain {
        let Ok((_, authority)) = parse_x509_certificate(der) else { return Err("the chain does not parse".to_owned()) };
        complete &= authority.subject().as_raw() == issuer;
        issuer = authority.issuer().as_raw().to_vec();
        complete &= authority.is_ca();
    }
    complete &=
        chain.last().is_some_and(|der| parse_x509_certificate(der).is_ok_and(|(_, root)| root.subject() == root.issuer()));
    let validity = leaf.validity();
    let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    let lifetime = not_after - not_before - Duration::HOUR;
    let faults = [
        (key.subject_public_key_info() != leaf.public_key().raw, "the key is not the leaf's".to_owned()),
        (passphrase.is_some() != certificate.encrypted, "the key's format is another".to_owned()),
        (names != [host(&certificate.name)], format!("its names are {names:?}")),
        (usage != Some(wanted), format!("its usage is {usage:?}")),
        (!complete, "the chain does not lead to a root".to_owned()),
        (
            certificate.origin != Origin::Exported && (lifetime - certificate.lifetime).abs() > Duration::MINUTE * 10,
            format!("it lives {lifetime}"),
        ),
    ];
    let fault = faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what));
    let serial = format!("{:x}", leaf.serial);
    let chain = format!("{}\n{chain_pem}", leaf_pem.trim_end());
    Ok(Pair { not_before, not_after, serial, chain, fault })
}
