//! A handler that ends after each single call of AWS, and the event again: by Lambda's retry, as another event at once, and as one
//! six minutes later. Of calls that it makes side by side, any may have arrived and the others not. The stack is alive meanwhile.

use std::sync::Arc;
use std::time::Duration;

use local_aws::Fault;
use tokio::sync::Notify;
use workflow::Stack;

use crate::account::{Effects, Seen, Since, Watch, assert_settled, assert_tagged, keys_asked_for};
use crate::scenario::{Scenario, come_to_rest, minutes, run};

mod a_handler_that_ends_after_any_call_loses_nothing {
    of_each! { ends_after_each_call:
        issue_by_hand sign_a_callers_csr replace_by_hand certificate_due import_by_hand import_later reimport_due adoption_due
        acm_available_issuance acm_available_renewal
        approaching_expiration sweep look_by_hand certificate_current ecs_completed ecs_failed
        revoke_by_hand revocation_due declare_by_hand refresh_daily trust_due crl_generation
    }
}

mod a_handler_that_ends_with_a_write_that_never_arrives_though_those_beside_it_do_loses_nothing {
    of_each! { ends_without_each_write:
        issue_by_hand certificate_due import_by_hand acm_available_issuance acm_available_renewal ecs_failed
    }
}

/// How a handler ends by a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    /// It arrived; what was to arrive in the same moment may have.
    Behind,
    /// It is a write and never arrives; everything beside it does.
    Without,
}

#[derive(Clone, Copy, Debug)]
enum Again {
    /// Under the same request id: Lambda repeats an invocation that ended without an answer.
    ByLambda,
    AtOnce,
    SixMinutesLater,
}

fn ends_after_each_call(scenario: &Scenario) {
    ends_by(scenario, Ends::Behind);
}

fn ends_without_each_write(scenario: &Scenario) {
    ends_by(scenario, Ends::Without);
}

fn ends_by(scenario: &Scenario, ends: Ends) {
    let clean = run(async {
        let (stack, event) = scenario.begin().await;
        stack.aws.set_deliveries(None);
        let since = Since::now(&stack);
        stack.handle(scenario.function, event, "first").await.unwrap();
        come_to_rest(&stack).await;
        since.seen(&stack).effects
    });
    // Without leases it is all one who comes again.
    let leases = scenario.function != "renew-on-expiry";
    for again in [Again::AtOnce, Again::SixMinutesLater].into_iter().chain(leases.then_some(Again::ByLambda)) {
        for number in 0.. {
            if !run(one(scenario, &clean, ends, again, number)) {
                break;
            }
        }
    }
}

/// Whether there was a call of that number.
async fn one(scenario: &Scenario, clean: &Effects, ends: Ends, again: Again, number: usize) -> bool {
    let (stack, event) = scenario.begin().await;
    stack.aws.set_deliveries(None);
    let function = scenario.function;
    let (mut calls, (tell, told)) = (0, std::sync::mpsc::channel());
    let (never_arrives, waits) = (Arc::new(Notify::new()), ends == Ends::Without);
    let lost = never_arrives.clone();
    let watch = Watch::over(&stack, move |call| {
        if call.caller != function || waits && !call.writes() {
            return None;
        }
        calls += 1;
        (calls == number + 1).then(|| {
            tell.send(call.action()).unwrap();
            lost.notify_one();
            if waits { Fault::Hang } else { Fault::Crash }
        })
    });
    let since = Since::now(&stack);
    let beside = async {
        never_arrives.notified().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = stack.aws.hung() => {}
        () = beside, if waits => {}
        answer = stack.handle(function, event.clone(), "first") => {
            answer.unwrap();
            return false;
        }
    }
    let story = format!("{function}, {}, ends {ends:?} call {number}, {}, then {again:?}", scenario.name, told.recv().unwrap());
    watch.assert_good(&stack, &story);
    match again {
        Again::ByLambda => {
            minutes(1).await;
            stack.handle(function, event, "first").await.unwrap();
        }
        Again::AtOnce => tried_until_it_works(&stack, scenario, &event).await,
        Again::SixMinutesLater => {
            minutes(6).await;
            stack.handle(function, event, "second").await.unwrap();
        }
    }
    come_to_rest(&stack).await;

    watch.assert_good(&stack, &story);
    let Seen { effects, calls, .. } = since.seen(&stack);
    let seen = format!("{story}: {effects}; without that: {clean}");
    assert_settled(&stack, &seen).await;
    assert_tagged(&stack, &seen).await;
    assert_eq!(effects.of("deployed "), clean.of("deployed "), "{seen}");
    assert_eq!(effects.count("renewed by ACM"), clean.count("renewed by ACM"), "{seen}");
    let versions = |effects: &Effects| effects.of("version of ").iter().map(|(_, count)| count).sum::<usize>();
    assert!((0..=1).contains(&(versions(&effects) - versions(clean))), "{seen}");
    let issued = effects.count("issued") - effects.count("renewed by ACM");
    if scenario.name == "by hand, with a CSR" {
        // The key is its caller's, who sends it again.
        assert!(issued <= 2, "{seen}");
    } else {
        assert_eq!(keys_asked_for(&calls), issued, "{seen}");
    }
    true
}

/// As Lambda tries an asynchronous invocation.
async fn tried_until_it_works(stack: &Stack, scenario: &Scenario, event: &serde_json::Value) {
    for pause in [1, 2, 0] {
        match stack.handle(scenario.function, event.clone(), "second").await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.error_type, "Retryable", "{error:?}"),
        }
        minutes(pause).await;
    }
    panic!("{}: three tries were not enough", scenario.name);
}
