//! Each call of AWS that a function makes goes wrong once in each way there is. The outcome says rightly whether to try again, what
//! is current is good at every moment, and repeats of the same event bring about what the first was to.

use local_aws::{AwsError, Call, Fault};

use crate::account::{Seen, Since, Watch, assert_settled, keys_asked_for};
use crate::scenario::{Scenario, minutes, run};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Throttled,
    ServerError,
    Reset,
    LostAnswer,
    Denied,
}

mod each_call_goes_wrong_once_and_all_ends_well {
    of_each! { goes_wrong:
        issue_by_hand sign_a_callers_csr certificate_due acm_available_issuance acm_available_renewal approaching_expiration
        renewal_action_required sweep certificate_current ecs_completed ecs_failed
    }
}

fn goes_wrong(scenario: &Scenario) {
    use Kind::{Denied, LostAnswer, Reset, ServerError, Throttled};
    for kind in [Throttled, ServerError, Reset, LostAnswer, Denied] {
        for number in 0.. {
            if !run(one(scenario, kind, number)) {
                break;
            }
        }
    }
}

/// Whether there was a call of that number.
async fn one(scenario: &Scenario, kind: Kind, number: usize) -> bool {
    let (stack, event) = scenario.begin().await;
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
            kind.fault()
        })
    });
    let since = Since::now(&stack);
    let outcome = stack.handle(function, event.clone(), "first").await;
    let Ok(action) = told.try_recv() else { return false };
    let told: String = format!("{outcome:?}").chars().take(300).collect();
    let story = format!("{function}, {}, call {number}, {action} {kind:?}: {told}", scenario.name);
    watch.assert_good(&stack, &story);
    let outcome = outcome.map_err(|error| error.error_type);
    let outcome = outcome.as_ref().map_or_else(String::as_str, |_| "Ok");
    assert!(kind.right_outcomes(&action).contains(&outcome), "{story}");

    if outcome == "Ok" {
        let Seen { mut effects, .. } = since.seen(&stack);
        if action == "events:PutEvents" && kind == Kind::LostAnswer {
            // The SDK sends again what had arrived.
            let twice = effects.0.iter_mut().filter(|(what, count)| !what.starts_with("version") && **count == 2);
            twice.for_each(|(_, count)| *count = 1);
        }
        assert_eq!(effects.to_string(), scenario.effects, "{story}");
        let again = stack.handle(function, event, "second").await;
        let writes: Vec<_> = stack.aws.take_calls().into_iter().filter(Call::writes).map(|call| call.action()).collect();
        assert!(again.is_ok() && writes.is_empty(), "{story}, then {again:?}: {writes:?}");
        return true;
    }
    // Lambda's retries of an asynchronous invocation, and another event of the same kind.
    for (pause, id) in [(1, "first"), (2, "first"), (4, "second")] {
        minutes(pause).await;
        let again = stack.handle(function, event.clone(), id).await;
        watch.assert_good(&stack, &story);
        assert!(again.is_ok(), "{story}, then {again:?}");
    }
    // What the function could not tell the others the sweep makes up for.
    stack.aws.set_deliveries(None);
    minutes(130).await;
    watch.assert_good(&stack, &story);
    let Seen { effects, calls, .. } = since.seen(&stack);
    let seen = format!("{story}, ends in {effects}");
    assert_settled(&stack, &seen).await;
    assert!(effects.of("deployed ").iter().all(|(_, count)| *count == 1), "{seen}");
    let issued = effects.count("issued") - effects.count("renewed by ACM");
    assert!(issued <= 2 && effects.of("version of ").iter().all(|(_, count)| *count <= 4), "{seen}");
    if scenario.name != "by hand, with a CSR" {
        assert_eq!(keys_asked_for(&calls), issued, "{seen}");
    }
    true
}

impl Kind {
    fn fault(self) -> Fault {
        match self {
            Self::Throttled => Fault::Refuse(AwsError::throttled()),
            Self::ServerError => Fault::Refuse(AwsError::internal()),
            Self::Reset => Fault::Reset,
            Self::LostAnswer => Fault::LoseAnswer,
            Self::Denied => Fault::Refuse(AwsError::new("AccessDeniedException", "User is not authorized to perform this")),
        }
    }

    /// What the function may make of it: the SDK tries again by itself, and nobody tries again what is denied.
    fn right_outcomes(self, action: &str) -> &'static [&'static str] {
        match (self, action) {
            (Self::Denied, _) => &["Permanent"],
            // It takes no token, so nobody calls again before having looked.
            (_, "ecs:UpdateService") => &["Retryable"],
            // The SDK's own retry meets the write of the first try, which looks like somebody else's.
            (Self::LostAnswer, "dynamodb:UpdateItem") => &["Ok", "Retryable"],
            _ => &["Ok"],
        }
    }
}
