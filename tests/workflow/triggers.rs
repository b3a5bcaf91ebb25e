//! Every trigger of every function: the first run does it, a second run of the same event makes no writing call, and two runs at
//! once do it once. What each costs in calls of AWS stands in `calls.txt`, which the test run shows.

use std::collections::BTreeMap;
use std::io::Write;

use local_aws::Call;
use serde_json::json;
use workflow::Stack;

use crate::account::{Seen, Since, Watch};
use crate::scenario::{Moment, Scenario, act, asked, lose_deliveries, minutes, run, service};

const CALLS: &str = include_str!("calls.txt");

macro_rules! of_every_trigger {
    ($check:ident) => {
        of_each! { $check:
            issue_by_hand sign_a_callers_csr replace_by_hand certificate_due
            import_by_hand import_later reimport_due adoption_due approaching_expiration_imported
            acm_available_issuance acm_available_issuance_public acm_available_renewal acm_available_renewal_public
            export_due export_by_arn export_by_name
            approaching_expiration renewal_action_required expired revoked sweep look_by_hand
            certificate_current redeploy_by_certificate redeploy_by_service ecs_completed ecs_failed
            revoke_by_hand revocation_due declare_by_hand refresh_daily refresh_idle trust_due crl_generation extra_created
        }
    };
}

mod the_first_run_does_it_and_a_second_one_writes_nothing {
    of_every_trigger! { done_once }
}

mod two_runs_at_the_same_moment_do_it_once {
    of_every_trigger! { done_once_at_the_same_moment }
}

mod a_second_run_that_begins_with_any_call_of_the_first_does_nothing {
    of_each! { done_once_at_any_call:
        issue_by_hand sign_a_callers_csr certificate_due import_by_hand import_later reimport_due adoption_due
        acm_available_issuance acm_available_renewal
        approaching_expiration sweep look_by_hand certificate_current ecs_completed ecs_failed
        revoke_by_hand revocation_due declare_by_hand refresh_daily trust_due crl_generation
    }
}

fn done_once(scenario: &Scenario) {
    run(async {
        let Scenario { function, effects, .. } = *scenario;
        let (stack, event) = scenario.begin().await;
        let watch = Watch::over(&stack, |_| None);
        let since = Since::now(&stack);
        let answer = stack.handle(function, event.clone(), "first").await.unwrap();
        let first = since.seen(&stack);
        assert_eq!(first.effects.to_string(), effects, "{answer}");
        // What was asked of others and is not done would be asked for again: the asking may have been lost.
        for event in first.events.into_iter() {
            if let Some(function) = asked(&event) {
                act(&stack, function, event).await;
            }
        }

        let since = Since::now(&stack);
        let answer = stack.handle(function, event, "second").await.unwrap();
        let second = since.seen(&stack);
        assert_eq!(second.effects.to_string(), "", "{answer}");
        let writes: Vec<_> = second.calls.iter().filter(|call| call.writes()).map(Call::action).collect();
        assert!(writes.is_empty(), "{writes:?}, {answer}");
        watch.assert_good(&stack, scenario.name);

        let measured = section(scenario, &first.calls, &second.calls);
        assert!(CALLS.contains(&measured), "calls.txt has not\n{measured}");
    });
}

fn done_once_at_the_same_moment(scenario: &Scenario) {
    run(twice_at_once(scenario, 0));
}

fn done_once_at_any_call(scenario: &Scenario) {
    for begins_at in 1.. {
        if !run(twice_at_once(scenario, begins_at)) {
            break;
        }
    }
}

/// The second run begins with that call of the first; whether there was one.
async fn twice_at_once(scenario: &Scenario, begins_at: usize) -> bool {
    let Scenario { function, effects, name, .. } = *scenario;
    let story = format!("{name}, the second run at call {begins_at} of the first");
    let (stack, event) = scenario.begin().await;
    let moment = Moment::of_call(function, begins_at);
    let seen = moment.clone();
    let watch = Watch::over(&stack, move |call| {
        seen.see(call);
        None
    });
    let since = Since::now(&stack);
    let first = stack.handle(function, event.clone(), "first");
    let (first, second, there_was_one) = moment.join(first, stack.handle(function, event.clone(), "second")).await;
    assert!(first.is_ok() || second.is_ok(), "{story}: {first:?}, {second:?}");
    for (answer, id) in [(first, "first"), (second, "second")] {
        if let Err(error) = answer {
            assert_eq!(error.error_type, "Retryable", "{story}: {error:?}");
            // Lambda tries again a minute later and then two.
            minutes(3).await;
            stack.handle(function, event.clone(), id).await.unwrap();
        }
    }
    let Seen { effects: mut seen, events, .. } = since.seen(&stack);
    if effects.starts_with("deployed") {
        // Whoever came too late and comes again may find the deployment complete.
        seen.0.remove("Services Redeployed");
    }
    if effects == "Certificate Due 1" || effects.starts_with("Export Due 1, Trust") {
        // Who looks again before it is done asks again, for the asking may be lost; whoever is asked twice does it once.
        for event in events {
            if let Some(function) = asked(&event) {
                act(&stack, function, event).await;
            }
        }
        assert_eq!(since.seen(&stack).effects.count("Certificate Current"), 1, "{story}");
        seen.0.iter_mut().filter(|(what, _)| what.ends_with(" Due")).for_each(|(_, count)| *count = 1);
    }
    assert_eq!(seen.to_string(), effects, "{story}");
    watch.assert_good(&stack, &story);
    there_was_one
}

#[test]
fn a_certificate_of_which_nothing_is_due_costs_a_sweep_two_calls_of_its_own() {
    let [one, three] = [1, 3].map(|certificates| run(swept(certificates)));
    let more = |action: &str| three[action] - one.get(action).copied().unwrap_or_default();
    let differs: Vec<_> = three.keys().map(|action| (action.as_str(), more(action))).filter(|(_, more)| *more != 0).collect();
    assert_eq!(differs, [("dynamodb:PutItem", 2), ("secretsmanager:DescribeSecret", 2)], "{three:#?}");
    // Two, three for each hundred certificates, two for the one, and four for the daily walk.
    assert_eq!(one.values().sum::<usize>(), 2 + 3 + 2 + 4, "{one:#?}");
}

/// What a sweep calls a day after the last one, where each certificate has a service that runs on it.
async fn swept(certificates: usize) -> BTreeMap<String, usize> {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    lose_deliveries(&stack);
    for number in 0..certificates {
        let (name, on) = (format!("app-{number}"), format!("payments/app-{number}"));
        let order = json!({"name": name, "subject": {"common_name": name}, "services": [on]});
        act(&stack, "issue-client-cert", order).await;
        service(&stack, &on, &[&name]).await;
        for _ in 0..2 {
            act(&stack, "force-redeploy", json!({"certificate": name})).await;
            minutes(5).await;
        }
    }
    for _ in 0..2 {
        minutes(25 * 60).await;
        stack.aws.take_calls();
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
    }
    let mut calls = BTreeMap::new();
    stack.aws.take_calls().iter().for_each(|call| *calls.entry(call.action()).or_default() += 1);
    calls
}

/// What the scenario costs, as it stands in `calls.txt`: how many calls, how many of them can change anything, how many one after
/// another, and how many when there is nothing left to do; then which.
fn section(scenario: &Scenario, first: &[Call], again: &[Call]) -> String {
    let depth = first.iter().map(|call| call.at).collect::<std::collections::BTreeSet<_>>().len();
    let (calls, writes, again) = (first.len(), first.iter().filter(|call| call.writes()).count(), again.len());
    let title = format!("{}: {}", scenario.function, scenario.name);
    let mut section = format!("{title:<64} {calls:>5} {writes:>7} {depth:>6} {again:>6}\n");
    let mut operations: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for call in first {
        *operations.entry(call.service).or_default().entry(&call.operation).or_default() += 1;
    }
    for (service, operations) in operations {
        let operations: Vec<_> = operations.into_iter().map(|(operation, count)| format!("{operation} {count}")).collect();
        section += &format!("    {service}: {}\n", operations.join(", "));
    }
    section
}

/// Past the harness, which shows a passing test's output to nobody.
#[test]
fn the_calls_of_each_trigger_are_shown() {
    let triggers = CALLS.lines().filter(|line| !line.starts_with([' ', '#']) && !line.is_empty()).count();
    assert_eq!(triggers, crate::scenario::all().len());
    std::io::stderr().write_all(format!("\n{CALLS}\n").as_bytes()).unwrap();
}
