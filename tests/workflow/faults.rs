//! Each call of AWS that a function makes goes wrong once in each way there is. The outcome says rightly whether to try again, what
//! is current is good at every moment, and repeats of the same event bring about what the first was to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use local_aws::{AwsError, Call, Fault};

use crate::account::{Seen, Since, Watch, assert_settled, keys_asked_for};
use crate::scenario::{Scenario, come_to_rest, minutes, run};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Throttled,
    ServerError,
    Reset,
    LostAnswer,
    Denied,
    /// Somebody else's transaction is at the item that is written.
    Conflict,
}

mod every_call_fails_once_for_a_moment {
    of_each! { fails_for_a_moment:
        issue_by_hand sign_a_callers_csr replace_by_hand certificate_due import_by_hand import_later reimport_due adoption_due
        acm_available_issuance acm_available_renewal
        approaching_expiration renewal_action_required sweep look_by_hand certificate_current ecs_completed ecs_failed
        revoke_by_hand revocation_due declare_by_hand refresh_daily trust_due crl_generation
    }
}

mod each_call_in_turn_is_denied_or_its_answer_lost {
    of_each! { goes_wrong_in_turn:
        issue_by_hand sign_a_callers_csr certificate_due import_by_hand import_later reimport_due adoption_due
        acm_available_issuance acm_available_renewal
        approaching_expiration renewal_action_required sweep certificate_current ecs_completed ecs_failed
        revoke_by_hand revocation_due declare_by_hand refresh_daily trust_due crl_generation
    }
}

/// One run in which each call fails when it comes first; and one in which a first answer is lost each time.
fn fails_for_a_moment(scenario: &Scenario) {
    for kind in [Kind::Throttled, Kind::ServerError, Kind::Reset, Kind::LostAnswer, Kind::Conflict] {
        let mut seen = BTreeSet::new();
        run(one(scenario, kind, move |call| seen.insert((call.operation.clone(), call.input.to_string()))));
    }
}

fn goes_wrong_in_turn(scenario: &Scenario) {
    for kind in [Kind::LostAnswer, Kind::Denied] {
        for number in 0.. {
            let mut calls = 0..;
            if !run(one(scenario, kind, move |_| calls.next() == Some(number))) {
                break;
            }
        }
    }
}

/// Whether a call went wrong.
async fn one(scenario: &Scenario, kind: Kind, mut goes_wrong: impl FnMut(&Call) -> bool + Send + 'static) -> bool {
    let (stack, event) = scenario.begin().await;
    let function = scenario.function;
    let spoiled: Arc<Mutex<Vec<String>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let (spoils, over) = (spoiled.clone(), done.clone());
    let watch = Watch::over(&stack, move |call| {
        (call.caller == function && !over.load(Ordering::Relaxed) && kind.meets(call) && goes_wrong(call)).then(|| {
            spoils.lock().unwrap().push(call.action());
            kind.fault(call)
        })
    });
    let since = Since::now(&stack);
    let outcome = stack.handle(function, event.clone(), "first").await;
    done.store(true, Ordering::Relaxed);
    let spoiled = spoiled.lock().unwrap().clone();
    let Some(last) = spoiled.iter().find(|action| action.ends_with("AddTrustStoreRevocations")).or_else(|| spoiled.last()) else {
        return false;
    };
    let told: String = format!("{outcome:?}").chars().take(400).collect();
    let story = format!("{function}, {}, {kind:?} at {}, the last {last}: {told}", scenario.name, spoiled.len());
    watch.assert_good(&stack, &story);
    let outcome = outcome.map_err(|error| error.error_type);
    let outcome = outcome.as_ref().map_or_else(String::as_str, |_| "Ok");
    assert!(kind.right_outcomes(last).contains(&outcome), "{story}");

    if outcome == "Ok" {
        let Seen { mut effects, .. } = since.seen(&stack);
        let arrived = |action: &str| kind == Kind::LostAnswer && spoiled.iter().any(|spoiled| spoiled == action);
        if arrived("events:PutEvents") || arrived("acm:ImportCertificate") {
            // The SDK sends again what had arrived.
            let twice = effects.0.iter_mut().filter(|(what, count)| !what.starts_with("version") && **count == 2);
            twice.for_each(|(_, count)| *count = 1);
        }
        assert_eq!(effects.to_string(), scenario.effects, "{story}");
        return true;
    }
    // Lambda's retries of an asynchronous invocation, and another event of the same kind.
    for (pause, id) in [(1, "first"), (2, "first"), (4, "second")] {
        minutes(pause).await;
        let again = stack.handle(function, event.clone(), id).await;
        watch.assert_good(&stack, &story);
        assert!(again.is_ok() || kind != Kind::Denied || id == "first", "{story}, then {again:?}");
    }
    // What the function could not tell the others the sweep makes up for.
    come_to_rest(&stack).await;
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
    fn meets(self, call: &Call) -> bool {
        self != Self::Conflict
            || matches!(
                call.action().as_str(),
                "dynamodb:PutItem" | "dynamodb:UpdateItem" | "dynamodb:DeleteItem" | "acm:ImportCertificate"
            )
    }

    fn fault(self, call: &Call) -> Fault {
        match self {
            Self::Throttled => Fault::Refuse(AwsError::throttled_by(call.service)),
            Self::ServerError => Fault::Refuse(AwsError::internal()),
            Self::Reset => Fault::Reset,
            Self::LostAnswer => Fault::LoseAnswer,
            Self::Conflict if call.service == "acm" => {
                Fault::Refuse(AwsError::new("ConflictException", "Wait for the previous operation to finish and try again"))
            }
            Self::Conflict => Fault::Refuse(AwsError::new("TransactionConflictException", "Transaction is ongoing for the item")),
            Self::Denied => Fault::Refuse(AwsError::new("AccessDeniedException", "User is not authorized to perform this")),
        }
    }

    /// What the function may make of it: the SDK tries again by itself, and nobody tries again what is denied.
    fn right_outcomes(self, action: &str) -> &'static [&'static str] {
        match (self, action) {
            // A pair is current without its tags; the next look writes them.
            (Self::Denied, "secretsmanager:TagResource" | "secretsmanager:UntagResource") => &["Ok", "Permanent"],
            (Self::Denied, _) => &["Permanent"],
            (Self::Conflict, _) => &["Ok", "Retryable"],
            // It takes no token, so nobody calls again before having looked.
            (_, "ecs:UpdateService" | "elasticloadbalancing:AddTrustStoreRevocations") => &["Retryable"],
            // A first import takes none either; a second one is all the same, but ACM takes one a second.
            (_, "acm:ImportCertificate") => &["Ok", "Retryable"],
            // The SDK's own retry meets the write of the first try, which looks like somebody else's.
            (Self::LostAnswer, "dynamodb:UpdateItem") => &["Ok", "Retryable"],
            _ => &["Ok"],
        }
    }
}
