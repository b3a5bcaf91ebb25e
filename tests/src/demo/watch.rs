//! The promises of Everleaf, checked from the outside: by the calls that reach AWS, the events on the bus, what the secrets hold
//! and what the tasks run with. The functions are never asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda_runtime::tracing::subscriber;
use lifecycle::leaf::{Csr, Leaf};
use lifecycle::record::KeyFormat;
use local_aws::events::BusEvent;
use local_aws::lambda::Invocation;
use local_aws::{Call, World};
use records::material::{Key, Material, Wanted};
use secrecy::SecretString;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};
use workflow::Stack;

use crate::fleet::{CLUSTER, Certificate, FLEET, Origin, PARTNER, services, variable};

/// A service may wait this long for its deployment: the sweep asks hourly, and in the week without events two of three are lost.
const ROLLOUT_LIMIT: Duration = Duration::hours(8);
/// Every certificate is looked at once a day; then the export may be lost as above.
const EXPORT_LIMIT: Duration = Duration::hours(32);
/// A run of this many characters of a key or passphrase is a leak, wherever it stands.
const RUN: usize = 12;

#[derive(Default)]
pub(crate) struct Watch {
    log: Log,
    pub(crate) promotions: Vec<Promotion>,
    pub(crate) notes: Vec<Note>,
    /// The first thing that broke each promise.
    pub(crate) broken: BTreeMap<u8, String>,
    pub(crate) counts: Counts,
    /// Something out of the ordinary is going on: every renewal is worth a line.
    pub(crate) special: bool,
    pub(crate) callers_keys: BTreeSet<String>,
    /// Public keys that were durable in the secret of a certificate, and those that a CA was asked to sign.
    durable: BTreeMap<String, String>,
    asked: BTreeSet<String>,
    pairs: HashMap<String, Pair>,
    arns: BTreeMap<String, &'static str>,
    /// Certificates that ACM has ahead of the secret, since when.
    ahead: BTreeMap<&'static str, OffsetDateTime>,
    told: BTreeMap<(String, String), OffsetDateTime>,
    partner_told: bool,
    /// Tries that failed and are not made good yet, by request.
    failed: BTreeMap<String, String>,
    given_up: BTreeSet<String>,
    needles: HashSet<[u8; RUN]>,
    messages: usize,
    weeks: BTreeMap<Week, (OffsetDateTime, OffsetDateTime)>,
}

/// A pair that became current.
pub(crate) struct Promotion {
    pub(crate) at: OffsetDateTime,
    pub(crate) certificate: &'static Certificate,
    /// 0 is the first one of its certificate.
    pub(crate) number: usize,
    pub(crate) serial: String,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) reason: String,
    pub(crate) rollouts: BTreeMap<&'static str, Rollout>,
    pub(crate) special: bool,
    version: String,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Rollout {
    Waiting,
    Deploying,
    Done(OffsetDateTime),
}

/// Something else that a person may want to read.
pub(crate) struct Note {
    pub(crate) at: OffsetDateTime,
    pub(crate) certificate: String,
    pub(crate) what: String,
    pub(crate) why: String,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) invocations: u64,
    pub(crate) events: u64,
    issuances: BTreeMap<String, u64>,
    versions: BTreeMap<String, u64>,
    deployments: u64,
    looks_at_tasks: u64,
    throttled: u64,
    failed_tries: u64,
    actions: u64,
    scanned: u64,
    keys: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Week {
    Doubled,
    WithoutEvents,
}

struct Pair {
    values: Map<String, Value>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Watch {
    /// From now on everything that the functions log is kept until it has been looked at.
    pub(crate) fn listening() -> Self {
        let watch = Self::default();
        let log = watch.log.clone();
        subscriber::fmt().with_max_level(lambda_runtime::tracing::Level::INFO).with_writer(move || log.clone()).init();
        watch
    }

    /// Everything that has happened since the last look, and how things stand now.
    pub(crate) fn look(&mut self, stack: &Stack) {
        for call in stack.aws.take_calls() {
            self.call(stack, &call);
        }
        for event in stack.aws.take_events() {
            self.event(&event);
        }
        for invocation in stack.aws.take_invocations() {
            self.invocation(&invocation);
        }
        let log = std::mem::take(&mut *self.log.lines());
        self.scan(stack.aws.now(), "a log line", &String::from_utf8_lossy(&log));
        self.queue(stack);
        let faults = stack.aws.world(|world, now| self.standing(world, now));
        for (promise, fault) in faults {
            self.breaks(promise, stack.aws.now(), fault);
        }
    }

    /// Before the verdict: nothing may be left half done.
    pub(crate) fn finish(&mut self) {
        let left = self.failed.values().next().cloned();
        if let Some(left) = left {
            self.breaks(8, workflow::START, format!("was never retried to success: {left}"));
        }
        for certificate in FLEET {
            let new = self.of(certificate.name).count() as u64;
            let made = |counts: &BTreeMap<String, u64>| counts.get(certificate.name).copied().unwrap_or_default();
            let (issued, versions) = (made(&self.counts.issuances), made(&self.counts.versions));
            if new == 0 || versions != new || (certificate.origin == Origin::Everleaf && issued != new) {
                let what = format!("`{}` has {new} pairs of {issued} issuances and {versions} versions", certificate.name);
                self.breaks(3, workflow::START, what);
            }
        }
        let waiting =
            self.promotions.iter().any(|promotion| promotion.rollouts.values().any(|rollout| *rollout == Rollout::Waiting));
        if waiting {
            self.breaks(4, workflow::START, "a service still waits for a deployment".to_owned());
        }
    }

    /// One line a promise: what it is, and what was seen of it.
    pub(crate) fn verdicts(&self) -> Vec<(u8, &'static str, String)> {
        let Counts { deployments, looks_at_tasks, throttled, failed_tries, actions, scanned, keys, .. } = &self.counts;
        let pairs = self.promotions.len();
        let week = |week| {
            let (from, to) = self.weeks.get(&week).copied().unwrap_or((workflow::START, workflow::START));
            let new: Vec<_> = self.promotions.iter().filter(|promotion| (from..to).contains(&promotion.at)).collect();
            (new.len(), new.iter().map(|promotion| promotion.rollouts.len()).sum::<usize>())
        };
        let ((doubled, doubled_rollouts), (alone, alone_rollouts)) = (week(Week::Doubled), week(Week::WithoutEvents));
        vec![
            (
                1,
                "Current is always good",
                format!("{pairs} pairs verified as they became current; {looks_at_tasks} looks at running tasks"),
            ),
            (
                2,
                "Nothing is lost",
                format!("{} keys asked for once each, durable before; AWSPREVIOUS always the pair before", self.asked.len()),
            ),
            (
                3,
                "Repeat-safe",
                format!(
                    "{pairs} pairs, as many issuances and versions, {deployments} deployments; {doubled} pairs and {doubled_rollouts} \
                     rollouts in the doubled week"
                ),
            ),
            (
                4,
                "Level-triggered",
                format!("{alone} renewals and {alone_rollouts} rollouts in the week without events; nothing expired"),
            ),
            (
                7,
                "Keys stay in",
                format!("{keys} keys and passphrases looked for in {} MB of all that left a function", scanned / 1_000_000),
            ),
            (
                8,
                "Transient and permanent",
                format!(
                    "{throttled} throttled calls, {failed_tries} failed tries, all made good or in the queue; {actions} times Action \
                     Required"
                ),
            ),
        ]
    }

    fn call(&mut self, stack: &Stack, call: &Call) {
        *self.counts.calls.entry(call.service).or_default() += 1;
        let mut sent = call.input.clone();
        let action = call.action();
        if let Some(members) = sent.as_object_mut() {
            // The two places where a secret belongs.
            match action.as_str() {
                "secretsmanager:PutSecretValue" => _ = members.remove("SecretString").map(|value| self.learn(call, &value)),
                "acm:ExportCertificate" => _ = members.remove("Passphrase"),
                _ => {}
            }
        }
        self.scan(call.at, &action, &sent.to_string());
        if let Some(error) = &call.error {
            self.counts.throttled += u64::from(error == "ThrottlingException");
            return;
        }
        match action.as_str() {
            "acm-pca:IssueCertificate" => self.asked(call),
            "secretsmanager:UpdateSecretVersionStage" if call.input["VersionStage"] == "AWSCURRENT" => self.promoted(stack, call),
            "ecs:UpdateService" => self.deployed(call),
            _ => {}
        }
    }

    /// What a secret was given: from now on nothing of it may be seen elsewhere.
    fn learn(&mut self, call: &Call, value: &Value) {
        let fields: Value = serde_json::from_str(value.as_str().unwrap_or_default()).unwrap_or_default();
        let text = |field: &str| fields[field].as_str();
        if call.error.is_none() {
            match text("csr").map(Csr::from_pem) {
                Some(Ok(csr)) => _ = self.durable.insert(csr.key_fingerprint, name_of(call)),
                Some(Err(error)) => self.breaks(2, call.at, format!("a key waits with a CSR that cannot be read: {error}")),
                None => *self.counts.versions.entry(name_of(call)).or_default() += 1,
            }
        }
        let Some(pem) = text("private_key") else { return };
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        // The beginning of PKCS#8 says how a key is encrypted, and half of an RSA key is public.
        match text("passphrase") {
            Some(passphrase) => {
                self.look_for(passphrase);
                self.look_for(&body[body.len().min(200)..]);
            }
            None => self.look_for_key(&body),
        }
        let key = Key { pem: pem.into(), passphrase: text("passphrase").map(SecretString::from) };
        match key.open() {
            Ok(der) => self.look_for_key(&BASE64_STANDARD.encode(der.as_bytes())),
            Err(why) => self.breaks(2, call.at, format!("a key in the secret {} cannot be opened: {why}", name_of(call))),
        }
    }

    /// The private part of an unencrypted key, by where it stands in PKCS#8.
    fn look_for_key(&mut self, base64: &str) {
        let private = if base64.len() > 400 { base64.len() / 2..base64.len() } else { 48..88 };
        self.look_for(base64.get(private).unwrap_or_default());
    }

    fn look_for(&mut self, secret: &str) {
        self.counts.keys += 1;
        self.needles.extend(secret.as_bytes().windows(RUN).filter_map(|run| <[u8; RUN]>::try_from(run).ok()));
    }

    /// Every [`RUN`]th place of a text is compared with every place of every secret, so that a run of twice that length is found.
    fn scan(&mut self, at: OffsetDateTime, what: &str, text: &str) {
        self.counts.scanned += text.len() as u64;
        let mut runs = text.as_bytes().chunks_exact(RUN);
        if runs.any(|run| self.needles.contains(run)) || text.contains("PRIVATE KEY-----") {
            self.breaks(7, at, format!("a private key or a passphrase is in {what}"));
        }
    }

    /// A CA was asked for a certificate, and took it.
    fn asked(&mut self, call: &Call) {
        let pem = BASE64_STANDARD.decode(call.input["Csr"].as_str().unwrap_or_default()).unwrap_or_default();
        let key = match Csr::from_pem(&String::from_utf8_lossy(&pem)) {
            Ok(csr) => csr.key_fingerprint,
            Err(error) => return self.breaks(2, call.at, format!("a CA took a CSR that cannot be read: {error}")),
        };
        match self.durable.get(&key) {
            Some(name) => *self.counts.issuances.entry(name.clone()).or_default() += 1,
            None if self.callers_keys.contains(&key) => {}
            None => self.breaks(2, call.at, "a certificate was asked for before its key was durable".to_owned()),
        }
        if !self.asked.insert(key) {
            self.breaks(2, call.at, "one key was asked for twice".to_owned());
        }
    }

    /// `AWSCURRENT` moved: what it moved to must be a good pair at that moment, and the one asked for.
    fn promoted(&mut self, stack: &Stack, call: &Call) {
        let (name, at) = (name_of(call), call.at);
        let version = call.input["MoveToVersionId"].as_str().unwrap_or_default();
        let Some(certificate) = FLEET.iter().find(|certificate| certificate.name == name) else { return };
        let value =
            stack.aws.world(|world, _| world.secrets.value(&format!("everleaf/{name}"), Some(version), None).map(str::to_owned));
        let value = value.unwrap_or_default();
        let leaf = match good(stack, certificate, &value, at) {
            Ok(leaf) => leaf,
            Err(why) => return self.breaks(1, at, format!("`{name}` became something that is no good pair: {why}")),
        };
        if certificate.origin == Origin::Everleaf && !self.asked.contains(&leaf.key_fingerprint) {
            self.breaks(2, at, format!("`{name}` has a key that nobody asked a certificate for"));
        }
        if let Some(before) = self.of(certificate.name).last().filter(|before| before.not_after <= at) {
            let what = format!("`{name}` had expired {} before it was replaced", before.not_after);
            self.breaks(1, at, what);
        }
        let number = self.of(certificate.name).count();
        let rollouts = certificate.services.iter().map(|service| (*service, Rollout::Waiting)).collect();
        let values: Map<String, Value> = serde_json::from_str(&value).unwrap_or_default();
        let pem = values.get("certificate").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.pairs.insert(pem, Pair { values, not_before: leaf.not_before, not_after: leaf.not_after });
        self.ahead.remove(certificate.name);
        self.promotions.push(Promotion {
            at,
            certificate,
            number,
            serial: leaf.serial.to_string(),
            not_after: leaf.not_after,
            reason: String::new(),
            rollouts,
            special: self.special,
            version: version.to_owned(),
        });
    }

    /// A deployment was begun: one of the service's pairs must have waited for it.
    fn deployed(&mut self, call: &Call) {
        self.counts.deployments += 1;
        let service = call.input["service"].as_str().unwrap_or_default();
        let mut wanted = false;
        for rollout in self.promotions.iter_mut().filter_map(|promotion| promotion.rollouts.get_mut(service)) {
            wanted |= *rollout == Rollout::Waiting;
            if *rollout == Rollout::Waiting {
                *rollout = Rollout::Deploying;
            }
        }
        if !wanted {
            self.breaks(3, call.at, format!("{service} was deployed though no new pair had come since its last deployment"));
        }
    }

    fn event(&mut self, event: &BusEvent) {
        self.counts.events += 1;
        let BusEvent { at, event, .. } = event;
        self.scan(*at, "an event", &event.to_string());
        let resource = event["resources"][0].as_str().unwrap_or_default();
        let detail = &event["detail"];
        let text = |member: &str| detail[member].as_str().unwrap_or_default().to_owned();
        match event["detail-type"].as_str().unwrap_or_default() {
            "ACM Certificate Available" => {
                let Some(name) = self.arns.get(resource).copied() else { return };
                if self.of(name).last().is_none_or(|promotion| promotion.at < *at) {
                    self.ahead.insert(name, *at);
                }
                if detail["Action"] == "RENEWAL" {
                    self.notes.push(Note {
                        at: *at,
                        certificate: name.to_owned(),
                        what: "ACM has renewed it by itself".to_owned(),
                        why: "60 days before it expires".to_owned(),
                    });
                }
            }
            "ECS Deployment State Change" if detail["eventName"] == "SERVICE_DEPLOYMENT_COMPLETED" => {
                let service = resource.rsplit('/').next().unwrap_or_default();
                for rollout in self.promotions.iter_mut().filter_map(|promotion| promotion.rollouts.get_mut(service)) {
                    if *rollout == Rollout::Deploying {
                        *rollout = Rollout::Done(*at);
                    }
                }
            }
            "Certificate Current" => {
                let version = text("version_id");
                let fresh = self
                    .promotions
                    .iter_mut()
                    .rev()
                    .find(|promotion| promotion.version == version && promotion.reason.is_empty());
                fresh.into_iter().for_each(|promotion| promotion.reason = text("reason"));
            }
            "Action Required" => self.told(*at, text("certificate"), text("reason")),
            _ => {}
        }
    }

    /// A person was told: once a day for each reason.
    fn told(&mut self, at: OffsetDateTime, certificate: String, message: String) {
        self.counts.actions += 1;
        let (code, why) = message.split_once(": ").unwrap_or((&message, ""));
        if self.told.insert((certificate.clone(), code.to_owned()), at).is_some_and(|last| at - last < Duration::days(1)) {
            self.breaks(8, at, format!("Action Required came twice within a day: `{certificate}`, {code}"));
        }
        self.partner_told |= certificate == PARTNER.name;
        // What to do stands at the end.
        let why = why.rsplit("; ").next().unwrap_or_default().to_owned();
        self.notes.push(Note { at, certificate, what: format!("Action Required: {code}"), why });
    }

    fn invocation(&mut self, invocation: &Invocation) {
        let Invocation { ended, function, request_id, attempt, outcome, .. } = invocation;
        self.counts.invocations += 1;
        match outcome {
            Ok(answer) => {
                self.scan(*ended, "an answer", &answer.to_string());
                self.failed.remove(request_id);
            }
            Err(error) => {
                self.counts.failed_tries += 1;
                self.scan(*ended, "an error", &error.error_message);
                let why = format!("{function}, try {attempt}: {}: {}", error.error_type, error.error_message);
                match error.error_type.as_str() {
                    "Retryable" => _ = self.failed.insert(request_id.clone(), why),
                    "Permanent" => {
                        self.failed.remove(request_id);
                        self.given_up.insert(request_id.clone());
                    }
                    _ => self.breaks(8, *ended, why),
                }
            }
        }
    }

    /// What waits for a person: every input that failed for good must be there.
    fn queue(&mut self, stack: &Stack) {
        let now = stack.aws.now();
        let bodies = stack.aws.world(|world, _| bodies(world, stack).map(str::to_owned).collect::<Vec<_>>());
        for body in bodies.iter().skip(self.messages) {
            self.scan(now, "a message of the on-failure queue", body);
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            self.given_up.remove(body["requestContext"]["requestId"].as_str().unwrap_or_default());
        }
        self.messages = bodies.len();
    }

    /// How things stand at this moment.
    fn standing(&mut self, world: &World, now: OffsetDateTime) -> Vec<(u8, String)> {
        let mut faults = Vec::new();
        let without_events = self.weeks.get(&Week::WithoutEvents).is_some_and(|(from, to)| (*from..*to).contains(&now));
        for certificate in FLEET {
            let name = certificate.name;
            let mut pairs = self.of(name).rev();
            let Some(current) = pairs.next() else { continue };
            let labelled = |label: &str| {
                let versions = world.secrets.find(&format!("everleaf/{name}")).map_or(&[][..], |secret| &secret.versions);
                versions.iter().find(|version| version.stages.contains(label)).map(|version| version.id.as_str())
            };
            if labelled("AWSCURRENT") != Some(&current.version) {
                faults.push((1, format!("AWSCURRENT of `{name}` is on a version that was never promoted")));
            }
            if current.not_after <= now {
                faults.push((1, format!("`{name}` has expired")));
            }
            if let Some(before) = pairs.next().filter(|before| labelled("AWSPREVIOUS") != Some(&before.version)) {
                faults.push((2, format!("AWSPREVIOUS of `{name}` is not the pair before, of serial {}", before.serial)));
            }
            let late = current.not_after - Duration::days(certificate.days as i64) / 6;
            if without_events && (current.not_after <= now || certificate.origin == Origin::Everleaf && late <= now) {
                faults.push((4, format!("`{name}` is not renewed in time")));
            }
            if self.ahead.get(name).is_some_and(|since| now - *since > EXPORT_LIMIT) {
                faults.push((4, format!("`{name}` is not exported, a day after ACM renewed it")));
            }
        }
        for promotion in &self.promotions {
            let late = now - promotion.at > ROLLOUT_LIMIT;
            if let Some((service, _)) = promotion.rollouts.iter().find(|(_, rollout)| **rollout == Rollout::Waiting && late) {
                faults
                    .push((4, format!("{service} is not deployed, hours after `{}` became current", promotion.certificate.name)));
            }
        }
        for service in services() {
            faults.extend(self.tasks(world, service, now).err().map(|why| (1, format!("a task of {service} {why}"))));
        }
        faults
    }

    /// Every running task of a service holds, of each of its certificates, a whole pair that is valid now.
    fn tasks(&mut self, world: &World, service: &str, now: OffsetDateTime) -> Result<(), String> {
        let mine = || FLEET.iter().filter(|certificate| certificate.services.contains(&service));
        let tasks = world.ecs.running_values(CLUSTER, service);
        self.counts.looks_at_tasks += tasks.len() as u64;
        let all =
            || mine().all(|certificate| self.of(certificate.name).any(|one| matches!(one.rollouts[service], Rollout::Done(_))));
        if tasks.is_empty() && all() {
            return Err("does not run any more".to_owned());
        }
        for (task, certificate) in tasks.iter().flat_map(|task| mine().map(move |certificate| (task, certificate))) {
            let name = certificate.name;
            let leaf = task.get(&variable(name, "certificate")).ok_or_else(|| format!("has no `{name}`"))?;
            let pair = self.pairs.get(leaf).ok_or_else(|| format!("holds a `{name}` that never was current"))?;
            if !pair.values.iter().all(|(key, value)| task.get(&variable(name, key)).is_some_and(|held| value == held)) {
                return Err(format!("holds parts of two different pairs of `{name}`"));
            }
            if now < pair.not_before || pair.not_after <= now {
                return Err(format!("holds a `{name}` that is not valid now"));
            }
        }
        Ok(())
    }

    fn of(&self, name: &str) -> impl DoubleEndedIterator<Item = &Promotion> {
        self.promotions.iter().filter(move |promotion| promotion.certificate.name == name)
    }

    fn breaks(&mut self, promise: u8, at: OffsetDateTime, what: String) {
        if self.broken.insert(promise, what.clone()).is_none() {
            self.notes.push(Note { at, certificate: String::new(), what, why: format!("promise {promise} is broken") });
        }
    }
}

/// What the story asks of the watch, and tells it.
impl Watch {
    pub(crate) fn note(&mut self, at: OffsetDateTime, what: &str, why: &str) {
        self.notes.push(Note { at, certificate: String::new(), what: what.to_owned(), why: why.to_owned() });
    }

    pub(crate) fn answered(&mut self, answer: &Value) {
        self.scan(workflow::START, "an answer", &answer.to_string());
    }

    pub(crate) fn in_acm(&mut self, arn: &str, name: &'static str) {
        self.arns.insert(arn.to_owned(), name);
    }

    pub(crate) fn last(&self) -> Option<OffsetDateTime> {
        self.promotions.last().map(|promotion| promotion.at)
    }

    pub(crate) fn expires(&self, name: &str) -> Option<OffsetDateTime> {
        self.of(name).last().map(|promotion| promotion.not_after)
    }

    /// Whether the partner was asked for a CSR since this was last asked.
    pub(crate) fn partner_is_told(&mut self) -> bool {
        std::mem::take(&mut self.partner_told)
    }

    pub(crate) fn throttled(&self) -> (u64, u64) {
        (self.counts.throttled, self.counts.failed_tries)
    }

    /// How many certificates the table knows; all of them, if nothing was lost.
    pub(crate) fn expect_records(&mut self, stack: &Stack) -> usize {
        let is_record = |id: Option<&str>| id.is_some_and(|id| id.starts_with("certificate#"));
        let known =
            stack.aws.world(|world, _| world.dynamodb.items().filter(|(_, item)| is_record(item["id"]["S"].as_str())).count());
        let lost = FLEET.iter().filter(|certificate| self.of(certificate.name).next().is_some()).count() - known;
        if lost > 0 {
            self.breaks(2, stack.aws.now(), format!("{lost} records did not come back after the table was lost"));
        }
        known
    }

    /// The inputs that have come into the on-failure queue since.
    pub(crate) fn queued_since(&mut self, stack: &Stack, since: OffsetDateTime) -> Vec<Value> {
        if let Some(request) = self.given_up.first().cloned() {
            self.breaks(8, stack.aws.now(), format!("the input of the failed request {request} is not in the queue"));
        }
        stack.aws.world(|world, _| {
            let arn = stack.template.queues.first().map_or("", |queue| &queue.arn);
            let new = world.sqs.messages(arn).iter().filter(|message| message.sent_at >= since);
            new.filter_map(|message| Some(serde_json::from_str::<Value>(&message.body).ok()?["requestPayload"].clone())).collect()
        })
    }

    pub(crate) fn begin(&mut self, week: Week, from: OffsetDateTime) {
        self.special = true;
        self.weeks.insert(week, (from, from + Duration::days(7)));
    }
}

/// The pair that a version holds, when it is what was asked for and valid.
fn good(stack: &Stack, asked: &Certificate, value: &str, at: OffsetDateTime) -> Result<Leaf, String> {
    let material = Material::read(&SecretString::from(value))?.ok_or("it is empty")?;
    let leaf = material.verify(&Wanted::Found, at)?;
    let names = asked.names.iter().map(|name| name.parse().map_err(|error| format!("{error}"))).collect::<Result<_, _>>()?;
    let days = leaf.lifetime().as_secs() / (24 * 60 * 60);
    let format = material.key.as_ref().map(|key| if key.passphrase.is_some() { KeyFormat::Encrypted } else { KeyFormat::Plain });
    let root = stack.aws.world(|world, _| world.pca.certificate(&stack.root_ca)).unwrap_or_default();
    let differs = [
        ("common name", leaf.subject.common_name.as_deref() != Some(asked.common_name)),
        ("names", leaf.names != names),
        ("key algorithm", leaf.key_algorithm != Some(asked.key_algorithm)),
        ("usage", leaf.usage != Some(asked.usage)),
        ("lifetime", days != asked.days),
        ("key format", format != Some(asked.key_format).filter(|_| asked.origin != Origin::Caller)),
        ("root", !material.certificate_chain.trim_end().ends_with(root.trim())),
        ("validity", at < leaf.not_before || leaf.not_after <= at),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(format!("its {what} is not what was asked for")),
        None => Ok(leaf),
    }
}

fn bodies<'a>(world: &'a World, stack: &Stack) -> impl Iterator<Item = &'a str> {
    let arn = stack.template.queues.first().map_or("", |queue| &queue.arn);
    world.sqs.messages(arn).iter().map(|message| message.body.as_str())
}

/// The certificate whose secret a call is about.
fn name_of(call: &Call) -> String {
    let secret = call.input["SecretId"].as_str().unwrap_or_default();
    secret.strip_prefix("everleaf/").unwrap_or(secret).to_owned()
}

/// What the functions log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
