//! Many certificates due at once, each with a service of its own, under the quotas of the account.

use std::time::Duration;

use local_aws::{AwsError, Fault};
use serde_json::json;
use workflow::Stack;
use workflow::storms::{Kind, LONGEST, Storm, storm};

use crate::scenario::{act, days, lose_deliveries, minutes, order, request, run, service, user};

const CERTIFICATES: usize = 300;

/// ACM takes a minute to renew, whatever its quotas are.
const RENEWAL: Duration = Duration::from_secs(60);

fn passes(kind: Kind, stacks: usize) {
    let Storm { allowed, took, deployments, renewed, failed, waiting, .. } = run(storm(kind, CERTIFICATES, stacks)).unwrap();
    let took = if kind == Kind::Exported { took - RENEWAL } else { took };
    assert!(took <= allowed.mul_f64(LONGEST), "the quotas allow it in {allowed:?}, and it took {took:?}");
    assert_eq!((renewed, deployments), (CERTIFICATES, CERTIFICATES));
    assert_eq!((failed, waiting), (0, 0));
}

#[test]
fn what_is_issued_here_passes_at_the_pace_of_the_quotas() {
    passes(Kind::Issued, 1);
}

#[test]
fn what_is_acms_passes_at_the_pace_of_the_quotas() {
    passes(Kind::Exported, 1);
}

#[test]
fn two_stacks_that_share_the_quotas_pass_it_as_fast_as_one() {
    passes(Kind::Issued, 2);
}

#[test]
fn two_stacks_with_certificates_of_acms_leave_room_to_each_other() {
    passes(Kind::Exported, 2);
}

#[test]
fn a_service_for_which_ecs_has_no_room_is_left_to_the_next_look_and_nothing_fails() {
    run(async {
        let stack = Stack::deploy_with(&[("SweepMinutes", "15")]).await;
        service(&stack, "payments/orders", &[]).await;
        let no_room = |call: &local_aws::Call| call.operation == "UpdateService";
        stack.aws.set_faults(Some(Box::new(move |call| no_room(call).then(|| Fault::Refuse(AwsError::throttled_by("ecs"))))));
        act(&stack, "issue-client-cert", order()).await;
        minutes(10).await;
        let left: Vec<_> = stack.aws.take_invocations().into_iter().filter(|one| one.function.ends_with("redeploy")).collect();
        let answers: Vec<_> = left.iter().filter_map(|one| one.outcome.as_ref().ok()).collect();
        assert!(
            left.len() == answers.len() && answers.iter().any(|answer| answer["left"] == json!(["payments/orders"])),
            "{left:?}"
        );
        stack.aws.set_faults(None);
        stack.aws.take_calls();
        minutes(60).await;
        let calls = stack.aws.take_calls();
        assert_eq!(calls.iter().filter(|call| no_room(call)).count(), 1);
        assert!(stack.aws.take_invocations().iter().all(|one| one.outcome.is_ok()));
    });
}

/// Certificates of ACM's whose renewal is due.
async fn due_at_acm(names: &[&str], parameters: &[(&str, &str)]) -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", parameters).await;
    lose_deliveries(&stack);
    for name in names {
        let arn = request(&stack, name, false).await;
        act(&stack, "export-to-secrets", json!({"certificate_arn": arn})).await;
    }
    stack.aws.world(|world, _| world.acm.renewal_fails = Some("PCA_ACCESS_DENIED".to_owned()));
    days(365).await;
    // ACM's own attempt of the day is over.
    minutes(10).await;
    stack.aws.take_calls();
    stack
}

fn asks_for_renewal(call: &local_aws::Call) -> bool {
    call.operation == "RenewCertificate"
}

/// Whether ACM has granted a renewal since the calls were last taken.
fn has_renewed(stack: &Stack) -> bool {
    stack.aws.take_calls().iter().any(|call| asks_for_renewal(call) && call.error.is_none())
}

#[test]
fn a_renewal_for_which_acm_has_no_room_is_asked_for_again_by_the_next_sweep() {
    run(async {
        let stack = due_at_acm(&["gateway"], &[]).await;
        let no_room = |call: &local_aws::Call| asks_for_renewal(call).then(|| Fault::Refuse(AwsError::throttled_by("acm")));
        stack.aws.set_faults(Some(Box::new(no_room)));
        let looked = stack.handle("renew-on-expiry", json!({"certificate": "gateway"}), "of the story").await;
        assert!(looked.is_err(), "{looked:?}");
        // The sweep does not fail: Lambda would run it again beside the next one.
        assert_eq!(act(&stack, "renew-on-expiry", json!({"sweep": true})).await["left"], 1);
        stack.aws.set_faults(None);
        assert!(!has_renewed(&stack));
        minutes(1).await;
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert!(has_renewed(&stack));
    });
}

#[test]
fn a_renewal_for_which_acm_has_room_a_little_later_is_asked_for_in_the_same_sweep() {
    run(async {
        // What was granted of the hour's budget and not asked for does for the second time.
        let stack = due_at_acm(&["gateway"], &[("HourlyBudget", "1")]).await;
        // More often than one look tries.
        let mut refused = 0;
        stack.aws.set_faults(Some(Box::new(move |call| {
            refused += usize::from(asks_for_renewal(call));
            (asks_for_renewal(call) && refused <= 30).then(|| Fault::Refuse(AwsError::throttled_by("acm")))
        })));
        let swept = act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!((&swept["looked_at"], &swept["left"]), (&json!(1), &json!(0)));
        assert!(has_renewed(&stack));
    });
}

#[test]
fn what_somebody_else_has_looked_at_meanwhile_is_not_looked_at_again() {
    run(async {
        let stack = due_at_acm(&["gateway", "portal"], &[]).await;
        // ACM has no room while the sweep looks at each of them; the second is being looked at when somebody does the first.
        let (seen, first) = tokio::sync::watch::channel(Vec::new());
        stack.aws.set_faults(Some(Box::new(move |call| {
            let asked = asks_for_renewal(call).then(|| call.input["CertificateArn"].as_str().unwrap().to_owned())?;
            seen.send_if_modified(|arns| (!arns.contains(&asked)).then(|| arns.push(asked)).is_some());
            Some(Fault::Refuse(AwsError::throttled_by("acm")))
        })));
        let by_hand = async {
            let arns = first.clone().wait_for(|arns| arns.len() == 2).await.unwrap().clone();
            stack.aws.set_faults(None);
            let tags = user(&stack, "acm:ListTagsForCertificate", json!({"CertificateArn": arns[0]})).await;
            let name = tags["Tags"][0]["Value"].as_str().unwrap().trim_start_matches("everleaf/").to_owned();
            act(&stack, "renew-on-expiry", json!({"certificate": name})).await
        };
        let (swept, looked) = tokio::join!(act(&stack, "renew-on-expiry", json!({"sweep": true})), by_hand);
        assert_eq!(looked["outcome"], "acted", "{looked}");
        assert_eq!((&swept["looked_at"], &swept["left"]), (&json!(1), &json!(0)));
        let granted = stack.aws.take_calls().into_iter().filter(|call| asks_for_renewal(call) && call.error.is_none()).count();
        assert_eq!(granted, 2);
    });
}

#[test]
fn a_certificate_whose_record_has_no_room_either_is_left_to_the_next_sweep() {
    run(async {
        let stack = due_at_acm(&["gateway"], &[]).await;
        let mut asked = false;
        stack.aws.set_faults(Some(Box::new(move |call| {
            asked |= asks_for_renewal(call);
            let service = match call.operation.as_str() {
                "RenewCertificate" => "acm",
                "GetItem" | "Query" if asked && call.input.to_string().contains("gateway") => "dynamodb",
                _ => return None,
            };
            Some(Fault::Refuse(AwsError::throttled_by(service)))
        })));
        let swept = act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!((&swept["looked_at"], &swept["left"]), (&json!(0), &json!(1)), "{swept}");
    });
}
