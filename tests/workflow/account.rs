//! What is seen of an account from the outside, without asking a function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lifecycle::leaf::{Csr, Leaf, Serial};
use lifecycle::rollout::{Binding, Progress};
use local_aws::secrets::{Secret, Version};
use local_aws::{Call, Fault};
use material::{Material, Wanted};
use serde_json::{Value, json};
use time::OffsetDateTime;
use workflow::Stack;

/// What came about, by AWS's own events and by what the secrets hold: `issued 1, version of orders 2, Certificate Current 1`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effects(pub(crate) BTreeMap<String, usize>);

impl Effects {
    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Those whose name begins so.
    pub(crate) fn of(&self, kind: &str) -> Vec<(&str, usize)> {
        self.0.iter().filter_map(|(what, count)| Some((what.strip_prefix(kind)?, *count))).collect()
    }
}

impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&all.join(", "))
    }
}

/// What came about, the calls that did it, and the events that told of it.
pub(crate) struct Seen {
    pub(crate) effects: Effects,
    pub(crate) calls: Vec<Call>,
    pub(crate) events: Vec<Value>,
}

/// Where counting begins.
pub(crate) struct Since(BTreeMap<String, usize>);

impl Since {
    pub(crate) fn now(stack: &Stack) -> Self {
        stack.aws.take_events();
        stack.aws.take_calls();
        Self(versions(stack))
    }

    pub(crate) fn seen(&self, stack: &Stack) -> Seen {
        let mut effects = BTreeMap::new();
        let (calls, events) = (stack.aws.take_calls(), stack.aws.take_events());
        let events: Vec<_> = events.into_iter().map(|event| event.event).collect();
        let renewals = calls.iter().filter(|call| call.operation == "RenewCertificate" && call.error.is_none()).count();
        if renewals > 0 {
            effects.insert("renewal asked of ACM".to_owned(), renewals);
        }
        for (name, count) in versions(stack) {
            let new = count - self.0.get(&name).copied().unwrap_or_default();
            if new > 0 {
                effects.insert(format!("version of {name}"), new);
            }
        }
        for event in &events {
            if let Some(what) = effect(event) {
                *effects.entry(what).or_default() += 1;
            }
        }
        Seen { effects: Effects(effects), calls, events }
    }
}

fn effect(event: &Value) -> Option<String> {
    let (detail_type, detail) = (event["detail-type"].as_str()?, &event["detail"]);
    let service = || Some(event["resources"][0].as_str()?.split_once(":service/")?.1.to_owned());
    match (event["source"].as_str()?, detail_type) {
        ("everleaf", _) => Some(detail_type.to_owned()),
        ("aws.acm-pca", "ACM Private CA Certificate Issuance") if detail["result"] == "success" => Some("issued".to_owned()),
        ("aws.acm", "ACM Certificate Available") if detail["Action"] == "RENEWAL" => Some("renewed by ACM".to_owned()),
        ("aws.acm", "ACM Certificate Available") if detail["Action"] == "IMPORT" => Some("imported into ACM".to_owned()),
        ("aws.acm", "ACM Certificate Available") if detail["Action"] == "REIMPORT" => Some("reimported into ACM".to_owned()),
        ("aws.ecs", _) if detail["eventName"] == "SERVICE_DEPLOYMENT_IN_PROGRESS" => Some(format!("deployed {}", service()?)),
        _ => None,
    }
}

/// How many versions each secret has that came after the empty one.
fn versions(stack: &Stack) -> BTreeMap<String, usize> {
    let count = |secret: &Secret| secret.versions.iter().filter(|version| text(version) != "{}").count();
    stack.aws.world(|world, _| world.secrets.secrets().map(|secret| (name(secret), count(secret))).collect())
}

fn name(secret: &Secret) -> String {
    secret.name.trim_start_matches("everleaf/").to_owned()
}

fn text(version: &Version) -> &str {
    version.secret_string.as_deref().unwrap_or_default()
}

pub(crate) fn staged<'a>(secret: &'a Secret, stage: &str) -> Option<&'a Version> {
    secret.versions.iter().find(|version| version.stages.contains(stage))
}

/// Promise 1, watched: before each call that arrives every secret is looked at.
pub(crate) struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    good: BTreeSet<(String, String)>,
    bad: BTreeSet<String>,
}

impl Watch {
    /// Spoils calls by `plan` on the way.
    pub(crate) fn over(stack: &Stack, mut plan: impl FnMut(&Call) -> Option<Fault> + Send + 'static) -> Self {
        let watched: Arc<Mutex<Watched>> = Arc::default();
        // What is current by now may have expired long ago.
        stack.aws.world(|world, _| watched.lock().unwrap().look(world.secrets.secrets(), None));
        let (watch, aws) = (watched.clone(), stack.aws.clone());
        stack.aws.set_faults(Some(Box::new(move |call| {
            aws.world(|world, now| watch.lock().unwrap().look(world.secrets.secrets(), Some(now)));
            plan(call)
        })));
        Self(watched)
    }

    /// Panics when some version that was current was not a good pair.
    pub(crate) fn assert_good(&self, stack: &Stack, story: &str) {
        let mut watched = self.0.lock().unwrap();
        stack.aws.world(|world, now| watched.look(world.secrets.secrets(), Some(now)));
        assert!(watched.bad.is_empty(), "{story}: {:?}", watched.bad);
    }
}

impl Watched {
    fn look<'a>(&mut self, secrets: impl Iterator<Item = &'a Secret>, now: Option<OffsetDateTime>) {
        for secret in secrets {
            let seen = (secret.name.clone(), staged(secret, "AWSCURRENT").map_or_else(String::new, |version| version.id.clone()));
            if !self.good.contains(&seen) {
                match current_is_good(secret, now) {
                    Ok(()) => _ = self.good.insert(seen),
                    Err(why) => _ = self.bad.insert(format!("{}: {why}", secret.name)),
                }
            }
        }
    }
}

/// Whether what is current is `{}`, or a complete and verified pair that is valid `now`, if that matters.
pub(crate) fn current_is_good(secret: &Secret, now: Option<OffsetDateTime>) -> Result<(), String> {
    let current = staged(secret, "AWSCURRENT").ok_or("AWSCURRENT is on no version")?;
    let Some(material) = Material::read(&text(current).into())? else { return Ok(()) };
    let leaf = Leaf::from_pem(&material.certificate).map_err(|error| error.to_string())?;
    material.verify(&Wanted::Found, now.unwrap_or(leaf.not_before))?;
    if now.is_some_and(|now| now < leaf.not_before || leaf.not_after <= now) {
        return Err(format!("serial {} is not valid now", leaf.serial));
    }
    let callers_key = secret.tags.get("everleaf:origin").is_some_and(|origin| origin == "caller-key");
    match (callers_key, &material.key) {
        (false, Some(_)) | (true, None) => Ok(()),
        _ => Err("the key is missing, or it is there and should not be".to_owned()),
    }
}

/// Panics unless the tags of each secret say what its record says.
pub(crate) async fn assert_tagged(stack: &Stack, story: &str) {
    let records = stack.records();
    let names: Vec<_> = stack.aws.world(|world, _| world.secrets.secrets().map(name).collect());
    for name in names {
        let record = stack.record(&name).await.unwrap();
        let tags = records.describe(&record.name).await.unwrap().unwrap().tags;
        assert!(records.is_tagged(&record, &tags), "{story}: {name} is tagged {tags:?}");
    }
}

/// Panics unless everything has come to rest: each record agrees with its secret, nothing is under way, and every task of every
/// service holds what is current.
pub(crate) async fn assert_settled(stack: &Stack, story: &str) {
    let records = stack.records();
    let secrets = stack.aws.world(|world, _| {
        let stages = |secret: &Secret| {
            ["AWSCURRENT", "AWSPREVIOUS", "everleaf-rejected"]
                .map(|stage| staged(secret, stage).map(|found| (found.id.clone(), text(found).to_owned())))
        };
        world.secrets.secrets().map(|secret| (name(secret), stages(secret))).collect::<Vec<_>>()
    });
    let certificate = |text: &str| serde_json::from_str::<Value>(text).unwrap()["certificate"].as_str().unwrap().to_owned();
    for (name, [current, previous, rejected]) in secrets {
        let record = stack.record(&name).await.unwrap_or_else(|| panic!("{story}: there is no record of {name}"));
        let (version, text) = current.unwrap();
        assert_eq!(record.current.as_ref().map(|pair| &pair.version_id), Some(&version), "{story}: {name}, current");
        if let Some(previous) = previous.filter(|(_, text)| text != "{}") {
            // Nothing to go back to: what was rejected is the same certificate in another version.
            let known = rejected.as_ref() != Some(&previous) || certificate(&previous.1) != certificate(&text);
            let expected = known.then_some(&previous.0);
            assert_eq!(record.previous.as_ref().map(|pair| &pair.version_id), expected, "{story}: {name}, previous");
        }
        assert_eq!(record.attempt, None, "{story}: {name}");
        if record.options.import_to_acm {
            let held = imported(stack, &name).await;
            let serials: Vec<_> =
                held.iter().map(|certificate| Serial::from_hex(certificate["Serial"].as_str().unwrap())).collect();
            assert_eq!(serials, [record.current.as_ref().unwrap().serial.clone()], "{story}: {name}, in ACM");
        }
        let certificate = certificate(&text);
        let bindings = records.bindings(&record.options.services).await.unwrap();
        for (service, Binding { state, .. }) in bindings {
            assert_eq!(state.lock, None, "{story}: {service}");
            if state.deployment.is_some_and(|deployment| deployment.progress == Progress::Failed) {
                continue;
            }
            let tasks = stack.aws.world(|world, _| world.ecs.running_values(&service.cluster, &service.service));
            assert!(tasks.iter().all(|values| values[&name] == certificate), "{story}: {service} holds another pair of {name}");
        }
    }
}

/// What ACM holds of the certificates that were imported into it under this name, as it describes them.
pub(crate) async fn imported(stack: &Stack, name: &str) -> Vec<Value> {
    let keys = json!({"keyTypes": ["RSA_2048", "EC_prime256v1", "EC_secp384r1"]});
    let list = stack.aws.call("acm:ListCertificates", json!({"Includes": keys, "MaxItems": 1000})).await.unwrap();
    let mut found = Vec::new();
    for summary in list["CertificateSummaryList"].as_array().unwrap().iter().filter(|summary| summary["Type"] == "IMPORTED") {
        let arn = json!({"CertificateArn": summary["CertificateArn"]});
        let tags = stack.aws.call("acm:ListTagsForCertificate", arn.clone()).await.unwrap();
        let ours = json!({"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")});
        if tags["Tags"].as_array().unwrap().contains(&ours) {
            found.push(stack.aws.call("acm:DescribeCertificate", arn).await.unwrap()["Certificate"].clone());
        }
    }
    found
}

/// For how many different keys Private CA took an order.
pub(crate) fn keys_asked_for(calls: &[Call]) -> usize {
    let asked = calls.iter().filter(|call| call.operation == "IssueCertificate" && call.error.is_none());
    let keys = asked.map(|call| {
        let pem = BASE64_STANDARD.decode(call.input["Csr"].as_str().unwrap()).unwrap();
        Csr::from_pem(&String::from_utf8(pem).unwrap()).unwrap().key_fingerprint
    });
    keys.collect::<BTreeSet<_>>().len()
}
