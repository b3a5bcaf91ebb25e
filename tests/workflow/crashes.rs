//! A handler that ends after each single call of AWS, and the event again: by Lambda's retry, as another event at once, and as one
//! six minutes later. The stack is alive meanwhile.

use local_aws::Fault;
use workflow::Stack;

use crate::account::{Seen, Since, Watch, assert_settled, keys_asked_for};
use crate::scenario::{Scenario, minutes, run};

mod a_handler_that_ends_after_any_call_loses_nothing {
    of_each! { ends_after_each_call:
        issue_by_hand sign_a_callers_csr replace_by_hand certificate_due acm_available_issuance acm_available_renewal
        approaching_expiration sweep look_by_hand certificate_current ecs_completed ecs_failed
    }
}

#[derive(Clone, Copy, Debug)]
enum Again {
    /// Under the same request id: Lambda repeats an invocation that ended without an answer.
    ByLambda,
    AtOnce,
    SixMinutesLater,
}

fn ends_after_each_call(scenario: &Scenario) {
    for again in [Again::ByLambda, Again::AtOnce, Again::SixMinutesLater] {
        for number in 0.. {
            if !run(one(scenario, again, number)) {
                break;
            }
        }
    }
}

/// Whether there was a call of that number.
async fn one(scenario: &Scenario, again: Again, number: usize) -> bool {
    let (stack, event) = scenario.begin().await;
    stack.aws.set_deliveries(None);
    let function = scenario.function;
    let mut calls = 0;
    let (tell, told) = std::sync::mpsc::channel();
    let watch = Watch::over(&stack, move |call| {
        if call.caller != function {
            return None;
        }
        calls += 1;
        (calls == number + 1).then(|| {
            tell.send(call.action()).unwrap();
            Fault::Crash
        })
    });
    let since = Since::now(&stack);
    tokio::select! {
        () = stack.aws.hung() => {}
        answer = stack.handle(function, event.clone(), "first") => {
            answer.unwrap();
            return false;
        }
    }
    let story = format!("{function}, {}, ends after call {number}, {}, then {again:?}", scenario.name, told.recv().unwrap());
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
    minutes(130).await;

    watch.assert_good(&stack, &story);
    let Seen { effects, calls, .. } = since.seen(&stack);
    assert_settled(&stack, &story).await;
    let seen = format!("{story}: {effects}");
    assert!(effects.of("deployed ").iter().all(|(_, count)| *count == 1), "{seen}");
    assert!(effects.count("renewed by ACM") <= 1, "{seen}");
    println!("{seen}");
    if scenario.name == "by hand, with a CSR" {
        // The key is its caller's, who sends it again.
        assert!(effects.count("issued") <= 2, "{seen}");
    } else {
        assert_eq!(keys_asked_for(&calls), effects.count("issued") - effects.count("renewed by ACM"), "{seen}");
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
