//! The promises of Everleaf, checked from the outside: by the calls that reach AWS, the events on the bus, what the secrets hold
//! and what the tasks run with. The functions are never asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda_runtime::tracing::{Level, subscriber};
use lifecycle::leaf::{Csr, Leaf};
use lifecycle::record::KeyFormat;
use local_aws::events::BusEvent;
use local_aws::lambda::Invocation;
use local_aws::{Call, World};
use material::{Material, Wanted};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};
use workflow::Stack;
use workflow::leaks::{Leaks, Log, said};

use crate::END;
use crate::fleet::{CLIENTS, CLUSTER, Certificate, FLEET, Origin, services, variable};
use crate::trust::Trust;

/// A service may wait this long for its deployment: the sweep asks hourly, and in the week without events two of three are lost.
const ROLLOUT_LIMIT: Duration = Duration::hours(8);
/// Every certificate is looked at once a day; then the export may be lost as above.
const EXPORT_LIMIT: Duration = Duration::hours(32);

/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>
const TOKEN_LIFETIME: Duration = Duration::minutes(5);

#[derive(Default)]
pub(crate) struct Watch {
    /// By certificate, the oldest first.
    pub(crate) promotions: BTreeMap<&'static str, Vec<Promotion>>,
    pub(crate) notes: Vec<Note>,
    /// The first thing that broke each promise.
    pub(crate) broken: BTreeMap<u8, String>,
    pub(crate) counts: Counts,
    /// Something out of the ordinary is going on: every renewal is worth a line.
    pub(crate) special: bool,
    pub(crate) callers_keys: BTreeSet<String>,
    /// When every event came twice, and when none of AWS came.
    pub(crate) doubled: Option<Range<OffsetDateTime>>,
    pub(crate) without_events: Option<Range<OffsetDateTime>>,
    /// Public keys that are durable in the secret of a certificate, and those that a CA was asked to sign.
    durable: BTreeMap<String, String>,
    asked: BTreeMap<String, Asked>,
    /// Every pair that was current, by its certificate.
    pairs: HashMap<String, Pair>,
    arns: BTreeMap<String, &'static str>,
    /// When a deployment of a service failed.
    failed_rollouts: Vec<(OffsetDateTime, String)>,
    /// Certificates that ACM has ahead of the secret, since when.
    ahead: BTreeMap<&'static str, OffsetDateTime>,
    told: BTreeMap<(String, String), OffsetDateTime>,
    /// Certificates of which a person was told something since it was last asked.
    news_of: BTreeSet<String>,
    /// Requests whose last try failed: those to be tried again, and those whose input goes to the queue.
    failed: BTreeMap<String, String>,
    given_up: BTreeMap<String, String>,
    pub(crate) queued: usize,
    /// A task may have started since the last look.
    rolling: bool,
    leaks: Leaks,
    pub(crate) trust: Trust,
    log: Log,
}

/// A pair that became current.
pub(crate) struct Promotion {
    pub(crate) at: OffsetDateTime,
    pub(crate) certificate: &'static Certificate,
    /// It was current before, and a deployment failed on the one after it.
    pub(crate) back: bool,
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
    /// Empty when it is about none.
    pub(crate) certificate: String,
    pub(crate) what: String,
    pub(crate) why: String,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) calls: BTreeMap<&'static str, usize>,
    pub(crate) invocations: usize,
    pub(crate) events: usize,
    pub(crate) throttled: usize,
    pub(crate) failed_tries: usize,
    issuances: BTreeMap<String, usize>,
    /// The ids of those that hold a pair: whoever puts one again makes no second one.
    versions: BTreeMap<String, BTreeSet<String>>,
    tasks: usize,
    actions: usize,
    log: usize,
}

/// What a CA was asked for, without the key.
struct Asked {
    at: OffsetDateTime,
    token: Option<String>,
}

impl Asked {
    /// Whether the CA answers with the certificate that it made before: a try whose answer was not recorded is tried again.
    fn repeats(&self, before: &Self) -> bool {
        self.token.is_some() && self.token == before.token && self.at - before.at < TOKEN_LIFETIME
    }
}

struct Pair {
    values: Map<String, Value>,
    valid: Range<OffsetDateTime>,
}

impl Watch {
    /// From now on everything that the functions log is kept until it has been looked at.
    pub(crate) fn listening() -> Self {
        let watch = Self::default();
        let log = watch.log.clone();
        subscriber::fmt().with_max_level(Level::INFO).with_writer(move || log.clone()).init();
        watch
    }

    /// Looks at everything that has happened since the last time, and at how things stand now.
    pub(crate) fn look(&mut self, stack: &Stack) {
        for call in stack.aws.take_calls() {
            self.call(stack, &call);
        }
        self.rolling = false;
        for event in stack.aws.take_events() {
            self.event(&event);
        }
        for invocation in stack.aws.take_invocations() {
            self.invocation(&invocation);
        }
        let (now, log) = (stack.aws.now(), self.log.take());
        self.counts.log += log.len();
        self.scan(now, "the log", &log);
        for message in self.queue(stack).into_iter().skip(self.queued) {
            self.queued += 1;
            self.scan(now, "the on-failure queue", &message.to_string());
            self.given_up.remove(message["requestContext"]["requestId"].as_str().unwrap_or_default());
        }
        for (promise, fault) in stack.aws.world(|world, now| self.standing(world, now)) {
            self.breaks(promise, now, fault);
        }
        for fault in stack.aws.world(|world, now| self.trust.look(world, now)) {
            self.breaks(5, now, fault);
        }
        self.notes.append(&mut self.trust.notes);
    }

    /// At the end nothing may be half done, and a promise that was never put to the test is not kept.
    pub(crate) fn finish(&mut self) {
        let mut faults = Vec::new();
        for certificate in FLEET {
            let issued = self.counts.issuances.get(certificate.name).copied().unwrap_or_default();
            let versions = self.counts.versions.get(certificate.name).map_or(0, BTreeSet::len);
            let new = self.of(certificate.name).iter().filter(|promotion| !promotion.back).count();
            if new == 0 || versions != new || certificate.origin == Origin::Everleaf && issued != new {
                faults.push((3, format!("`{}` has {new} pairs of {issued} issuances and {versions} versions", certificate.name)));
            }
        }
        if self.all().any(|promotion| promotion.rollouts.values().any(|rollout| *rollout == Rollout::Waiting)) {
            faults.push((4, "a service still waits for its deployment".to_owned()));
        }
        if self.trust.holds_a_retired_ca() {
            faults.push((5, "a retired CA is still in the trust store".to_owned()));
        }
        faults.extend(self.failed.values().map(|why| (8, format!("never tried again to success: {why}"))));
        faults.extend(self.given_up.values().map(|why| (8, format!("its input is not in the on-failure queue: {why}"))));
        for (promise, untested) in [
            (1, self.counts.tasks == 0),
            (3, self.during(&self.doubled) == (0, 0)),
            (4, self.during(&self.without_events) == (0, 0)),
            (5, self.trust.is_untested()),
            (6, self.failed_rollouts.is_empty()),
            (7, self.counts.log == 0 || self.leaks.keys.is_empty()),
            (8, self.counts.throttled == 0 || self.queued == 0),
        ] {
            faults.extend(untested.then(|| (promise, "nothing happened that could have broken it".to_owned())));
        }
        faults.into_iter().for_each(|(promise, fault)| self.breaks(promise, END, fault));
    }

    /// Each promise with what was seen of it.
    pub(crate) fn verdicts(&self) -> [(u8, &'static str, String); 8] {
        let Counts { tasks, throttled, failed_tries, actions, .. } = &self.counts;
        let (pairs, queued) = (self.all().count(), self.queued);
        let ((doubled, doubled_rollouts), (alone, alone_rollouts)) =
            (self.during(&self.doubled), self.during(&self.without_events));
        let (keys, searched) = (self.leaks.keys.len(), self.leaks.searched / 1_000_000);
        [
            (
                1,
                "Current is always good",
                format!("{pairs} pairs verified as they became current, {tasks} looks at running tasks"),
            ),
            (2, "Nothing is lost", format!("{} keys, durable before a CA was asked, and asked for once each", self.asked.len())),
            (
                3,
                "Repeat-safe",
                format!(
                    "one issuance, version and deployment each; {doubled} pairs, {doubled_rollouts} rollouts when all came twice"
                ),
            ),
            (4, "Level-triggered", format!("{alone} pairs and {alone_rollouts} rollouts by the sweep alone; nothing expired")),
            (5, "Trust before use", self.trust.seen_of_it()),
            (
                6,
                "A bad rollout goes back",
                format!(
                    "{} deployments failed; secrets went back to the pair before: {}",
                    self.failed_rollouts.len(),
                    self.all().filter(|promotion| promotion.back).count()
                ),
            ),
            (7, "Keys stay in", format!("{keys} keys looked for in {searched} MB of answers, calls, events, logs, queue")),
            (
                8,
                "Transient is not terminal",
                format!(
                    "{throttled} throttles, {failed_tries} failed tries, {queued} inputs kept, {actions} times Action Required"
                ),
            ),
        ]
    }

    fn call(&mut self, stack: &Stack, call: &Call) {
        *self.counts.calls.entry(call.service).or_default() += 1;
        let action = call.action();
        match action.as_str() {
            // The two places where a secret belongs.
            "secretsmanager:PutSecretValue" => self.put(call),
            "acm:ExportCertificate" => {}
            _ => self.scan(call.at, &action, &said(call)),
        }
        if call.error.is_none() && ["acm-pca", "elasticloadbalancing"].contains(&call.service) {
            let broken = stack.aws.world(|world, _| self.trust.call(world, call));
            broken.into_iter().for_each(|what| self.breaks(5, call.at, what));
        }
        match (&call.error, action.as_str()) {
            (Some(error), _) => self.counts.throttled += usize::from(error == "ThrottlingException"),
            (None, "acm-pca:IssueCertificate") => self.asked(call),
            (None, "secretsmanager:UpdateSecretVersionStage") if call.input["VersionStage"] == "AWSCURRENT" => {
                self.promoted(stack, call);
            }
            (None, "ecs:UpdateService") => self.deployed(call),
            (None, "elasticloadbalancing:ModifyListener") => self.verifies(call),
            _ => {}
        }
    }

    /// A secret gets a version: a pair, or a key that waits with its CSR.
    fn put(&mut self, call: &Call) {
        let fields: Value = serde_json::from_str(call.input["SecretString"].as_str().unwrap_or_default()).unwrap_or_default();
        let (name, text) = (name_of(call), |field: &str| fields[field].as_str());
        if let Some(Err(why)) = text("private_key").map(|pem| self.leaks.learn(pem, text("passphrase"))) {
            self.breaks(2, call.at, format!("a key of `{name}` cannot be opened: {why}"));
        }
        match text("csr").map(Csr::from_pem) {
            _ if call.error.is_some() => {}
            Some(Ok(csr)) => _ = self.durable.insert(csr.key_fingerprint, name),
            Some(Err(why)) => self.breaks(2, call.at, format!("a key of `{name}` waits with a bad CSR: {why}")),
            None => {
                let id = call.input["ClientRequestToken"].as_str().unwrap_or_default();
                self.counts.versions.entry(name).or_default().insert(id.to_owned());
            }
        }
    }

    /// A CA was asked for a certificate, and took it.
    fn asked(&mut self, call: &Call) {
        let pem = BASE64_STANDARD.decode(call.input["Csr"].as_str().unwrap_or_default()).unwrap_or_default();
        let key = match Csr::from_pem(&String::from_utf8_lossy(&pem)) {
            Ok(csr) => csr.key_fingerprint,
            Err(why) => return self.breaks(2, call.at, format!("a CA took a CSR that cannot be read: {why}")),
        };
        let asked = Asked { at: call.at, token: call.input["IdempotencyToken"].as_str().map(str::to_owned) };
        if self.asked.get(&key).is_some_and(|before| asked.repeats(before)) {
            return;
        }
        match self.durable.get(&key) {
            Some(name) => *self.counts.issuances.entry(name.clone()).or_default() += 1,
            None if self.callers_keys.contains(&key) => {}
            None => self.breaks(2, call.at, "a certificate was asked for before its key was durable"),
        }
        if self.asked.insert(key, asked).is_some() {
            self.breaks(2, call.at, "one key was asked for twice");
        }
    }

    /// `AWSCURRENT` moved: what it moved to must be a good pair at that moment, and the one asked for.
    fn promoted(&mut self, stack: &Stack, call: &Call) {
        let (name, at) = (name_of(call), call.at);
        let version = call.input["MoveToVersionId"].as_str().unwrap_or_default();
        let Some(certificate) = FLEET.iter().find(|certificate| certificate.name == name) else { return };
        let value = stack.aws.world(|world, _| world.secrets.value(&secret(&name), Some(version), None).map(str::to_owned));
        let value = value.unwrap_or_default();
        let (leaf, fault) = match self.judged(certificate, &value, at) {
            Ok(judged) => judged,
            Err(why) => return self.breaks(1, at, format!("what became current of `{name}` is no pair: {why}")),
        };
        if let Some(fault) = fault {
            self.breaks(1, at, format!("what became current of `{name}` is no good pair: {fault}"));
        }
        if certificate.origin == Origin::Everleaf && !self.asked.contains_key(&leaf.key_fingerprint) {
            self.breaks(2, at, format!("`{name}` has a key that no CA was asked to sign"));
        }
        if self.of(certificate.name).last().is_some_and(|before| before.not_after <= at) {
            self.breaks(1, at, format!("`{name}` had expired before it was replaced"));
        }
        let values: Map<String, Value> = serde_json::from_str(&value).unwrap_or_default();
        let pem = |key| values.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (pem, chain) = (pem("certificate"), pem("certificate_chain"));
        let untrusted = self.trust.promoted(certificate.name, leaf.serial.as_str(), leaf.not_after, [&pem, &chain]);
        untrusted.into_iter().for_each(|what| self.breaks(5, at, what));
        self.pairs.insert(pem, Pair { values, valid: leaf.not_before..leaf.not_after });
        self.ahead.remove(certificate.name);
        let (number, special) = (self.of(certificate.name).len(), self.special);
        let back = self.of(certificate.name).iter().any(|before| before.version == version);
        self.promotions.entry(certificate.name).or_default().push(Promotion {
            at,
            certificate,
            back,
            number,
            serial: leaf.serial.to_string(),
            not_after: leaf.not_after,
            reason: String::new(),
            rollouts: certificate.services.iter().map(|service| (*service, Rollout::Waiting)).collect(),
            special,
            version: version.to_owned(),
        });
    }

    /// The leaf of the pair that a version holds, and the first thing that is wrong with the pair or not as it was asked for.
    fn judged(&self, asked: &Certificate, value: &str, at: OffsetDateTime) -> Result<(Leaf, Option<String>), String> {
        let material = Material::read(&value.into())?.ok_or("it is empty")?;
        let leaf = Leaf::from_pem(&material.certificate).map_err(|error| error.to_string())?;
        let names: BTreeSet<_> = asked.names.iter().filter_map(|name| name.parse().ok()).collect();
        let encrypted = material.key.as_ref().map(|key| key.passphrase.is_some());
        let asked_encrypted = (asked.origin != Origin::Caller).then_some(asked.key_format == KeyFormat::Encrypted);
        let differs = [
            ("common name", leaf.subject.common_name.as_deref() != Some(asked.common_name)),
            ("list of names", leaf.names != names),
            ("key algorithm", leaf.key_algorithm != Some(asked.key_algorithm)),
            ("usage", leaf.usage != Some(asked.usage)),
            ("lifetime", leaf.lifetime().as_secs() != asked.days * 24 * 60 * 60),
            ("key format", encrypted != asked_encrypted),
            ("root", !self.trust.leads_to_root(&material.certificate_chain)),
            ("validity", !(leaf.not_before..leaf.not_after).contains(&at)),
        ];
        let differs =
            differs.iter().find(|(_, differs)| *differs).map(|(what, _)| format!("its {what} is not what it should be"));
        let fault = material.verify(&Wanted::Found, at).err().or(differs);
        Ok((leaf, fault))
    }

    /// A deployment was begun: one of the service's pairs must have waited for it.
    fn deployed(&mut self, call: &Call) {
        let service = call.input["service"].as_str().unwrap_or_default();
        let mut wanted = false;
        for rollout in self.rollouts(service).filter(|rollout| **rollout == Rollout::Waiting) {
            (*rollout, wanted) = (Rollout::Deploying, true);
        }
        if !wanted {
            self.breaks(3, call.at, format!("{service} was deployed again, and no new pair had come"));
        }
    }

    /// A listener begins to verify: each of its clients must be on its pair in every service.
    fn verifies(&mut self, call: &Call) {
        let is_ready = |promotion: &Promotion| promotion.rollouts.values().all(|rollout| matches!(rollout, Rollout::Done(_)));
        if let Some(name) = CLIENTS.iter().find(|name| !self.of(name).last().is_some_and(is_ready)) {
            self.breaks(5, call.at, format!("the listener begins to verify before `{name}` can pass"));
        }
    }

    fn event(&mut self, BusEvent { at, event, .. }: &BusEvent) {
        self.counts.events += 1;
        self.scan(*at, "an event", &event.to_string());
        let (resource, detail) = (event["resources"][0].as_str().unwrap_or_default(), &event["detail"]);
        let text = |member: &str| detail[member].as_str().unwrap_or_default().to_owned();
        match event["detail-type"].as_str().unwrap_or_default() {
            "ACM Certificate Available" => {
                let Some(name) = self.arns.get(resource).copied() else { return };
                if self.of(name).last().is_none_or(|promotion| promotion.at < *at) {
                    self.ahead.insert(name, *at);
                }
                if detail["Action"] == "RENEWAL" {
                    self.note(*at, name, "ACM has renewed it by itself", "60 days before it expires");
                }
            }
            "ECS Deployment State Change" => {
                self.rolling = true;
                let service = resource.rsplit('/').next().unwrap_or_default();
                let done = detail["eventName"] == "SERVICE_DEPLOYMENT_COMPLETED";
                if detail["eventName"] == "SERVICE_DEPLOYMENT_FAILED" {
                    self.failed_rollouts.push((*at, service.to_owned()));
                }
                for rollout in self.rollouts(service).filter(|rollout| done && **rollout == Rollout::Deploying) {
                    *rollout = Rollout::Done(*at);
                }
            }
            "Certificate Current" => {
                let version = text("version_id");
                let mut latest = self.promotions.values_mut().filter_map(|promotions| promotions.last_mut());
                let fresh = latest.find(|promotion| promotion.version == version && promotion.reason.is_empty());
                let reason = self.trust.in_short(&text("reason"));
                fresh.into_iter().for_each(|promotion| promotion.reason.clone_from(&reason));
            }
            "ACM Private CA CRL Generation" => self.trust.published(resource, *at),
            "Action Required" => self.told(*at, text("certificate"), &text("reason")),
            _ => {}
        }
    }

    /// A person was told: once a day for each reason, give or take the hour at which the sweep looks.
    fn told(&mut self, at: OffsetDateTime, certificate: String, message: &str) {
        self.counts.actions += 1;
        self.news_of.insert(certificate.clone());
        let (code, why) = message.split_once(": ").unwrap_or((message, ""));
        // What to do stands at the end.
        let to_do = self.trust.in_short(why.rsplit("; ").next().unwrap_or_default());
        self.note(at, &certificate, format!("Action Required: {code}"), &to_do);
        if self.told.insert((certificate, code.to_owned()), at).is_some_and(|last| at - last < Duration::hours(23)) {
            self.breaks(8, at, format!("`{code}` was told twice within a day"));
        }
    }

    fn invocation(&mut self, Invocation { ended, function, request_id, attempt, outcome, .. }: &Invocation) {
        self.counts.invocations += 1;
        self.failed.remove(request_id);
        self.given_up.remove(request_id);
        match outcome {
            Ok(answer) => self.scan(*ended, "an answer", &answer.to_string()),
            Err(error) => {
                self.counts.failed_tries += 1;
                self.scan(*ended, "an error", &error.error_message);
                let why = format!("{function}, try {attempt}: {}: {}", error.error_type, error.error_message);
                match error.error_type.as_str() {
                    "Retryable" => _ = self.failed.insert(request_id.clone(), why),
                    "Permanent" => _ = self.given_up.insert(request_id.clone(), why),
                    _ => self.breaks(8, *ended, why),
                }
            }
        }
    }

    /// What is wrong at this moment, each with the promise that it breaks.
    fn standing(&mut self, world: &World, now: OffsetDateTime) -> Vec<(u8, String)> {
        let mut faults = Vec::new();
        let without_events = self.without_events.as_ref().is_some_and(|week| week.contains(&now));
        for (&name, promotions) in &self.promotions {
            let [before @ .., current] = &promotions[..] else { continue };
            let labelled = |label: &str| {
                let versions = world.secrets.find(&secret(name)).map_or(&[][..], |secret| &secret.versions);
                versions.iter().find(|version| version.stages.contains(label)).map(|version| version.id.as_str())
            };
            // The second half of its window: whoever renews now was late.
            let late = current.not_after - Duration::days(current.certificate.days as i64) / 6;
            let waits_too_long = |promotion: &Promotion| {
                now - promotion.at > ROLLOUT_LIMIT && promotion.rollouts.values().any(|rollout| *rollout == Rollout::Waiting)
            };
            for (promise, wrong, what) in [
                (1, labelled("AWSCURRENT") != Some(&current.version), "AWSCURRENT is on a version that was never promoted"),
                (1, current.not_after <= now, "it has expired"),
                (
                    2,
                    before.last().is_some_and(|before| labelled("AWSPREVIOUS") != Some(&before.version)),
                    "AWSPREVIOUS is not the pair before",
                ),
                (4, without_events && current.certificate.origin == Origin::Everleaf && late <= now, "it is not renewed in time"),
                (
                    4,
                    self.ahead.get(name).is_some_and(|since| now - *since > EXPORT_LIMIT),
                    "ACM is ahead of it for more than a day",
                ),
                (4, promotions.iter().rev().take(2).any(waits_too_long), "a service waits too long for it"),
            ] {
                faults.extend(wrong.then(|| (promise, format!("`{name}`: {what}"))));
            }
        }
        for (at, service) in self.failed_rollouts.iter().filter(|(at, _)| now - *at > ROLLOUT_LIMIT) {
            let mine = self
                .promotions
                .iter()
                .filter(|(_, promotions)| promotions.last().is_some_and(|last| last.rollouts.contains_key(service.as_str())));
            for (name, _) in mine.filter(|(_, promotions)| promotions.last().is_some_and(|last| last.at <= *at)) {
                faults.push((6, format!("the deployment of {service} failed and `{name}` did not go back")));
            }
        }
        let due = if self.rolling || now.hour().is_multiple_of(6) { services() } else { BTreeSet::new() };
        for service in due {
            faults.extend(self.tasks(world, service, now).err().map(|why| (1, format!("a task of {service} {why}"))));
        }
        faults
    }

    /// Every running task of a service holds, of each of its certificates, a whole pair that is valid now.
    fn tasks(&mut self, world: &World, service: &str, now: OffsetDateTime) -> Result<(), String> {
        let tasks = world.ecs.running_values(CLUSTER, service);
        self.counts.tasks += tasks.len();
        if tasks.is_empty() && self.rollouts(service).any(|rollout| matches!(rollout, Rollout::Done(_))) {
            return Err("does not run any more".to_owned());
        }
        let mine =
            || FLEET.iter().filter(|certificate| certificate.services.contains(&service)).map(|certificate| certificate.name);
        for (task, name) in tasks.iter().flat_map(|task| mine().map(move |name| (task, name))) {
            let leaf = task.get(&variable(name, "certificate")).ok_or_else(|| format!("has no `{name}`"))?;
            let pair = self.pairs.get(leaf).ok_or_else(|| format!("holds a `{name}` that never was current"))?;
            if !pair.values.iter().all(|(key, value)| task.get(&variable(name, key)).is_some_and(|held| value == held)) {
                return Err(format!("holds parts of two pairs of `{name}`"));
            }
            if !pair.valid.contains(&now) {
                return Err(format!("holds a `{name}` that is not valid now"));
            }
        }
        Ok(())
    }

    fn scan(&mut self, at: OffsetDateTime, what: &str, text: &str) {
        if self.leaks.are_in(text) {
            self.breaks(7, at, format!("a private key or a passphrase is in {what}"));
        }
    }

    fn breaks(&mut self, promise: u8, at: OffsetDateTime, what: impl Into<String>) {
        let what = what.into();
        if !self.broken.contains_key(&promise) {
            self.note(at, "", what.clone(), &format!("promise {promise} is broken"));
            self.broken.insert(promise, what);
        }
    }

    fn of(&self, name: &str) -> &[Promotion] {
        self.promotions.get(name).map_or(&[], Vec::as_slice)
    }

    fn rollouts(&mut self, service: &str) -> impl Iterator<Item = &mut Rollout> {
        self.promotions.values_mut().flatten().filter_map(move |promotion| promotion.rollouts.get_mut(service))
    }

    /// How many pairs became current in a week, for how many services.
    fn during(&self, week: &Option<Range<OffsetDateTime>>) -> (usize, usize) {
        let new = || self.all().filter(|promotion| week.as_ref().is_some_and(|week| week.contains(&promotion.at)));
        (new().count(), new().map(|promotion| promotion.rollouts.len()).sum())
    }

    fn queue(&self, stack: &Stack) -> Vec<Value> {
        let arn = stack.template.queues.first().map_or("", |queue| &queue.arn);
        let read = |message: &local_aws::sqs::Message| serde_json::from_str(&message.body).unwrap_or_default();
        stack.aws.world(|world, _| world.sqs.messages(arn).iter().map(read).collect())
    }
}

/// What the story tells the watch, and asks of it.
impl Watch {
    pub(crate) fn note(&mut self, at: OffsetDateTime, certificate: &str, what: impl Into<String>, why: &str) {
        self.notes.push(Note { at, certificate: certificate.to_owned(), what: what.into(), why: why.to_owned() });
    }

    pub(crate) fn answered(&mut self, at: OffsetDateTime, answer: &Value) {
        self.scan(at, "an answer", &answer.to_string());
    }

    pub(crate) fn in_acm(&mut self, arn: String, name: &'static str) {
        self.arns.insert(arn, name);
    }

    /// What ACM calls a certificate.
    pub(crate) fn arn(&self, name: &str) -> Option<String> {
        self.arns.iter().find(|(_, known)| **known == name).map(|(arn, _)| arn.clone())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Promotion> {
        self.promotions.values().flatten()
    }

    pub(crate) fn expires(&self, name: &str) -> Option<OffsetDateTime> {
        self.of(name).last().map(|promotion| promotion.not_after)
    }

    /// Whether a person was told something of a certificate since this was last asked.
    pub(crate) fn is_news_of(&mut self, name: &str) -> bool {
        self.news_of.remove(name)
    }

    /// The serial of the current pair of a certificate, or of the one `before` it.
    pub(crate) fn serial(&self, name: &str, before: usize) -> Option<&str> {
        self.of(name).iter().rev().nth(before).map(|promotion| promotion.serial.as_str())
    }

    /// How many certificates the table knows: all of them, if nothing was lost.
    pub(crate) fn expect_records(&mut self, stack: &Stack) -> usize {
        let is_record = |item: &Map<String, Value>| item["id"]["S"].as_str().is_some_and(|id| id.starts_with("certificate#"));
        let known = stack.aws.world(|world, _| world.dynamodb.items().filter(|(_, item)| is_record(item)).count());
        if known != self.promotions.len() {
            self.breaks(2, stack.aws.now(), format!("{known} of {} records came back", self.promotions.len()));
        }
        known
    }

    /// The inputs in the on-failure queue, those aside that were there before.
    pub(crate) fn waiting(&self, stack: &Stack, before: usize) -> Vec<Value> {
        self.queue(stack).into_iter().skip(before).map(|mut message| message["requestPayload"].take()).collect()
    }
}

fn secret(certificate: &str) -> String {
    format!("everleaf/{certificate}")
}

/// The certificate whose secret a call is about.
fn name_of(call: &Call) -> String {
    let secret = call.input["SecretId"].as_str().unwrap_or_default();
    secret.strip_prefix("everleaf/").unwrap_or(secret).to_owned()
}
