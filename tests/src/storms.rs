//! A storm: every certificate of a fleet is due in one hour, and each has a service of its own.
//!
//! The budget is what it needs, and the sweep comes as often as it can. ACM's own events of approaching expiries stay out of it: they
//! come over the day. Whether the deployments work does not matter; what counts is that each was begun on its new pair.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local_aws::{AwsError, LocalAws, acm, quotas};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::Stack;
use crate::fleet::{Original, create_service};

/// Who issues the certificates of the fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Everleaf, from AWS Private CA.
    Issued,
    /// ACM: Everleaf asks it to renew, and exports.
    Exported,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Exported => "of ACM's",
        }
    }
}

/// A storm may take so many times what the quotas allow.
pub const LONGEST: f64 = 1.5;

/// What came of it.
#[derive(Debug)]
pub struct Storm {
    /// The quota that takes longest to grant the calls that were made.
    pub quota: String,
    pub allowed: Duration,
    /// From the first call of the sweep until the last service was deployed anew.
    pub took: Duration,
    pub deployments: usize,
    /// Secrets with a new pair.
    pub renewed: usize,
    /// Calls that found their quota used up.
    pub throttled: usize,
    /// Attempts that ended in an error, those that Lambda made good by another one as well.
    pub errors: usize,
    /// Invocations that ended in an error for good.
    pub failed: usize,
    /// What waits in the on-failure queues.
    pub waiting: usize,
    /// The most invocations that ran at once.
    pub peak: usize,
}

impl Storm {
    /// The time it took by the time that the quotas allow.
    pub fn ratio(&self) -> f64 {
        self.took.as_secs_f64() / self.allowed.as_secs_f64()
    }
}

/// After that nobody waits for it to end.
const PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);

/// Lets a storm come over so many certificates, shared evenly by so many stacks of one account.
pub async fn storm(kind: Kind, certificates: usize, stacks: usize) -> Result<Storm, AwsError> {
    let budget = certificates.to_string();
    let parameters = [("SweepMinutes", "15"), ("HourlyBudget", budget.as_str())];
    let mut all = vec![Stack::deploy_on("EC_prime256v1", &parameters).await];
    for number in 1..stacks {
        let other = all[0].beside(&format!("stack-{number}"), &parameters).await;
        all.push(other);
    }
    let aws = all[0].aws.clone();
    aws.world(|world, _| world.acm.renewal_fails = Some("OTHER".to_owned()));
    for stack in &all {
        begin(stack, kind).await?;
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    aws.set_deliveries(Some(Box::new(|_, _| Vec::new())));
    // Past the spread of the one, and within ACM's window for the other.
    let days = match kind {
        Kind::Issued => 21.5,
        Kind::Exported => 350.5,
    };
    tokio::time::sleep(Duration::from_secs_f64(days * 86_400.0)).await;
    aws.world(|world, _| world.acm.renewal_fails = None);
    for stack in &all {
        multiply(stack, certificates / stacks)?;
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before = values(&aws);
    aws.take_calls();
    aws.take_events();
    aws.take_invocations();
    aws.world(|world, _| world.lambda.peak = 0);
    aws.set_deliveries(None);

    let mut seen = Seen::default();
    let limit = aws.now() + PATIENCE;
    while seen.deployed.len() < certificates && aws.now() < limit {
        tokio::time::sleep(Duration::from_secs(10)).await;
        seen.take(&aws);
    }
    let (quota, allowed) = quotas::shortest(&seen.granted);
    let took = seen.ended.zip(seen.began).map_or(time::Duration::ZERO, |(ended, began)| ended - began);
    // What is left of it comes to its end, and the next sweep finds nothing to mend.
    for _ in 0..180 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        seen.take(&aws);
    }
    let functions = all.iter().flat_map(|stack| &stack.template.functions);
    let queues: BTreeSet<_> = functions.filter_map(|function| function.on_failure_queue_arn.as_deref()).collect();
    let after = values(&aws);
    Ok(Storm {
        quota,
        allowed: allowed.unsigned_abs(),
        took: took.unsigned_abs(),
        deployments: seen.deployments,
        renewed: after.iter().filter(|(secret, value)| before.get(*secret) != Some(*value)).count(),
        throttled: seen.throttled,
        errors: seen.errors,
        failed: seen.failed.len(),
        waiting: aws.world(|world, _| queues.iter().map(|queue| world.sqs.messages(queue).len()).sum()),
        peak: aws.world(|world, _| world.lambda.peak),
    })
}

/// What is current in each secret.
fn values(aws: &LocalAws) -> BTreeMap<String, String> {
    aws.world(|world, _| {
        let secrets: Vec<_> = world.secrets.secrets().map(|secret| secret.arn.clone()).collect();
        let value = |arn: String| {
            let value = world.secrets.value(&arn, None, None).unwrap_or_default().to_owned();
            (arn, value)
        };
        secrets.into_iter().map(value).collect()
    })
}

#[derive(Default)]
struct Seen {
    began: Option<OffsetDateTime>,
    ended: Option<OffsetDateTime>,
    deployed: BTreeSet<String>,
    deployments: usize,
    granted: BTreeMap<String, usize>,
    throttled: usize,
    errors: usize,
    failed: BTreeSet<String>,
}

impl Seen {
    fn take(&mut self, aws: &LocalAws) {
        for call in aws.take_calls() {
            self.began.get_or_insert(call.at);
            if call.error.as_ref().is_some_and(|code| code.starts_with("Throttling")) {
                self.throttled += 1;
                continue;
            }
            *self.granted.entry(call.action()).or_default() += 1;
            if call.operation == "UpdateService" && call.error.is_none() {
                self.deployments += 1;
                if self.deployed.insert(call.input["service"].to_string()) {
                    self.ended = Some(call.at);
                }
            }
        }
        for invocation in aws.take_invocations() {
            match invocation.outcome {
                Ok(_) => _ = self.failed.remove(&invocation.request_id),
                Err(_) => {
                    self.errors += 1;
                    self.failed.insert(invocation.request_id);
                }
            }
        }
        aws.take_events();
    }
}

/// The name of the service of a certificate.
fn service_of(stack: &Stack, name: &str) -> String {
    format!("main/{}-{name}", stack.template.stack)
}

/// The certificate that is copied, in its service.
async fn begin(stack: &Stack, kind: Kind) -> Result<(), AwsError> {
    let service = service_of(stack, "orders");
    stack.aws.world(|world, now| create_service(world, now, &service))?;
    match kind {
        Kind::Issued => {
            let order = json!({"name": "orders", "subject": {"common_name": "orders"}, "services": [service]});
            let function = format!("{}-issue-client-cert", stack.template.stack);
            let answer = stack.aws.call("lambda:Invoke", json!({"FunctionName": function, "Payload": order})).await?;
            assert_eq!(answer["Payload"]["outcome"], "issued", "{answer}");
        }
        Kind::Exported => {
            let request = json!({
                "DomainName": "orders.example.internal", "KeyAlgorithm": "EC_prime256v1",
                "CertificateAuthorityArn": stack.issuing_ca, "Tags": tags(stack, "orders"),
            });
            stack.aws.call("acm:RequestCertificate", request).await?;
        }
    }
    Ok(())
}

fn tags(stack: &Stack, name: &str) -> Value {
    json!([
        {"Key": "everleaf:certificate", "Value": format!("{}/{name}", stack.template.stack)},
        {"Key": "everleaf:service-1", "Value": service_of(stack, name)},
    ])
}

fn multiply(stack: &Stack, certificates: usize) -> Result<(), AwsError> {
    stack.aws.world(|world, now| {
        let orders = Original::of(world, &stack.template.stack, "orders");
        // The daily walk and the report have their time on another hour.
        let today = json!({"N": now.unix_timestamp().to_string()});
        orders.put(world, now, &json!({"id": {"S": "walk"}, "began": today, "ended": today, "reported": today}))?;
        for number in 1..certificates {
            let name = format!("orders-{number}");
            let arn = match orders.certificate_arn() {
                Some(arn) => {
                    let arn = acm::copy(world, now, arn, &tags(stack, &name))?;
                    orders.put(world, now, &json!({"id": {"S": format!("acm#{arn}")}, "certificate": {"S": name}}))?;
                    Some(arn)
                }
                None => None,
            };
            orders.copy(world, now, &name, Some(&service_of(stack, &name)), |record| {
                record["look_at"] = json!({"N": now.unix_timestamp().to_string()});
                if let Some(arn) = arn {
                    record["origin"]["M"]["certificate_arn"] = json!({"S": arn});
                }
            })?;
        }
        Ok(())
    })
}
