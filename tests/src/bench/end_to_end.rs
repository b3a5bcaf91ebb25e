//! From an event of ACM to the deployments, and from a request to a promoted pair: real binaries, called and calling by HTTP.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::account::{Account, SERVICES};
use crate::start::ms;
use crate::{Outcome, told};

const ROUNDS: usize = 5;

pub(crate) async fn measure(binaries: &Path) -> Outcome<()> {
    let mut account = Account::set_up(2 * ROUNDS).await?;
    let aws = account.stack.aws.clone();
    let (mut orders, mut renewals) = (take(&mut account, "issue-client-cert"), take(&mut account, "renewed"));
    let mut samples: [Vec<f64>; 4] = Default::default();
    aws.set_deliveries(None);
    for _ in 0..ROUNDS {
        let processes = account.processes.clone();
        aws.update(&account.stack.template, |function| processes.runner(function, binaries.join(&function.binary)));
        let next = |events: &mut Vec<Value>| events.pop().ok_or("too few events");
        samples[0].push(renewed(&account, &next(&mut renewals)?).await?);
        samples[1].push(renewed(&account, &next(&mut renewals)?).await?);
        aws.update(&account.stack.template, |function| processes.runner(function, binaries.join(&function.binary)));
        samples[2].push(issued(&account, next(&mut orders)?).await?);
        samples[3].push(issued(&account, next(&mut orders)?).await?);
    }
    let names =
        ["renewal to deployments, cold", "renewal to deployments, warm", "request to pair, cold", "request to pair, warm"];
    for (name, samples) in names.into_iter().zip(samples) {
        crate::print(json!({"end_to_end": name, "ms": samples}));
    }
    Ok(())
}

fn take(account: &mut Account, events: &str) -> Vec<Value> {
    account.events.remove(events).unwrap_or_default()
}

/// From ACM's event until the deployment of the last service has begun.
async fn renewed(account: &Account, event: &Value) -> Outcome<f64> {
    let aws = &account.stack.aws;
    aws.take_calls();
    let began = aws.now();
    aws.put_event(event.clone());
    let mut deployed: Vec<OffsetDateTime> = Vec::new();
    for _ in 0..10_000 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let calls = aws.take_calls();
        deployed
            .extend(calls.iter().filter(|call| call.operation == "UpdateService" && call.error.is_none()).map(|call| call.at));
        if deployed.len() == SERVICES {
            // What the functions still write down is not part of the next one.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok((deployed[SERVICES - 1] - began).as_seconds_f64() * 1_000.0);
        }
    }
    Err(format!("{} of {SERVICES} services were deployed after {event}", deployed.len()).into())
}

async fn issued(account: &Account, order: Value) -> Outcome<f64> {
    let began = std::time::Instant::now();
    let input = json!({"FunctionName": "everleaf-issue-client-cert", "Payload": order});
    let answer = account.stack.aws.call("lambda:Invoke", input).await.map_err(told)?;
    match answer["Payload"]["outcome"] == "issued" {
        true => Ok(ms(began.elapsed())),
        false => Err(format!("not issued: {answer}").into()),
    }
}
