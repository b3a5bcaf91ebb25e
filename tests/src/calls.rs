//! Counts what a fleet asks of AWS, for `make cost`: on a day on which nothing is due, and for one renewal with its rollout.
//!
//! Two fleets differ by ten certificates, each with a service of its own. What they differ by is a certificate's share; the rest
//! is the stack's. Time is virtual; each call takes 15 ms, and AWS Private CA its seconds.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::collections::BTreeMap;
use std::time::Duration;

use local_aws::{AwsError, ecs};
use serde_json::{Value, json};
use workflow::Stack;

/// How often each was done: `service:Operation`, `function invocations`, and `function ms`.
type Counts = BTreeMap<String, f64>;

const CERTIFICATES: usize = 10;
/// Certificates of 30 days are renewed after 20, and the spread is two days at most.
const IDLE_DAYS: u64 = 15;
const DAYS: u64 = 23;

fn main() -> Result<(), AwsError> {
    let measured = |size| -> Result<_, AwsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime can be built").block_on(life(size))
    };
    let ((small_idle, small), (large_idle, large)) = (measured(1)?, measured(1 + CERTIFICATES)?);
    let day = |counts: &Counts| scaled(counts, 1.0 / IDLE_DAYS as f64);
    let share = day(&scaled(&less(&large_idle, &small_idle), 1.0 / CERTIFICATES as f64));
    let renewal = less(&scaled(&less(&large, &small), 1.0 / CERTIFICATES as f64), &scaled(&share, (DAYS - IDLE_DAYS) as f64));
    println!("{}", json!({"stack_day": less(&day(&small_idle), &share), "certificate_day": share, "renewal": renewal}));
    Ok(())
}

/// What is done while nothing is due, and then until all certificates have been renewed once.
async fn life(size: usize) -> Result<(Counts, Counts), AwsError> {
    let stack = Stack::deploy().await;
    stack.aws.world(|world, now| ecs::call(world, now, "CreateCluster", &json!({"clusterName": "main"})))?;
    let task = json!({"family": "app", "containerDefinitions": [{"name": "app", "image": "app", "memory": 128}]});
    stack.aws.world(|world, now| ecs::call(world, now, "RegisterTaskDefinition", &task))?;
    for number in 0..size {
        let name = format!("app-{number}");
        let service = json!({"cluster": "main", "serviceName": name, "taskDefinition": "app", "desiredCount": 1});
        stack.aws.world(|world, now| ecs::call(world, now, "CreateService", &service))?;
        let order = json!({"name": name, "subject": {"common_name": name}, "services": [format!("main/{name}")]});
        let input = json!({"FunctionName": "everleaf-issue-client-cert", "Payload": order});
        let answer = stack.aws.call("lambda:Invoke", input).await?;
        assert_eq!(answer["Payload"]["outcome"], "issued", "{answer}");
    }
    pass(1).await;
    take(&stack);
    pass(IDLE_DAYS).await;
    let idle = take(&stack);
    assert_eq!(idle.get("acm-pca:IssueCertificate"), None, "nothing is due yet");
    pass(DAYS - IDLE_DAYS).await;
    let busy = take(&stack);
    assert_eq!(busy["acm-pca:IssueCertificate"] as usize, size, "each certificate is renewed once");
    Ok((idle, busy))
}

async fn pass(days: u64) {
    tokio::time::sleep(Duration::from_secs(days * 86_400)).await;
}

fn take(stack: &Stack) -> Counts {
    let mut counts = Counts::new();
    for call in stack.aws.take_calls().iter().filter(|call| call.caller != "user") {
        *counts.entry(call.action()).or_default() += 1.0;
    }
    for invocation in stack.aws.take_invocations() {
        let took = (invocation.ended - invocation.at).as_seconds_f64() * 1_000.0;
        *counts.entry(format!("{} invocations", invocation.function)).or_default() += 1.0;
        *counts.entry(format!("{} ms", invocation.function)).or_default() += took;
    }
    let events = |event: &Value| event["source"] == "everleaf";
    let published = stack.aws.take_events().iter().filter(|event| events(&event.event)).count();
    counts.insert("events".to_owned(), published as f64);
    counts
}

fn less(counts: &Counts, others: &Counts) -> Counts {
    let names = counts.keys().chain(others.keys());
    let of = |counts: &Counts, name: &String| counts.get(name).copied().unwrap_or_default();
    names.map(|name| (name.clone(), of(counts, name) - of(others, name))).collect()
}

fn scaled(counts: &Counts, factor: f64) -> Counts {
    counts.iter().map(|(name, count)| (name.clone(), count * factor)).collect()
}
