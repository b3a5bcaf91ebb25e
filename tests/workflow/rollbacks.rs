//! A deployment that fails on a new pair: the secret goes back, the services follow, a person is told, and another pair is tried.

use std::time::Duration;

use lifecycle::leaf::Serial;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::{assert_settled, imported, staged};
use crate::recovery::empty_the_table;
use crate::scenario::{Moment, act, come_to_rest, days, lose_deliveries, minutes, order, request, run, service, user};

/// The next deployments of this service fail.
pub(crate) fn break_service(stack: &Stack, service: &str, count: u32) {
    let (cluster, service) = service.split_once('/').unwrap();
    stack.aws.world(|world, _| world.ecs.fail_deployments(cluster, service, count));
}

async fn current(stack: &Stack, name: &str) -> Serial {
    stack.record(name).await.unwrap().current.unwrap().serial
}

/// The events of that type since they were last asked for, by certificate, with their reasons.
fn told(stack: &Stack, detail_type: &str) -> Vec<(String, String)> {
    let events = stack.aws.take_events().into_iter().map(|event| event.event);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_type = events.filter(|event| event["detail-type"] == detail_type);
    of_type.map(|event| (text(&event["detail"]["certificate"]), text(&event["detail"]["reason"]))).collect()
}

/// Hour by hour until `orders` has been set back so many times in a row, and what followed that.
pub(crate) async fn until_set_back(stack: &Stack, in_a_row: u32) {
    for _ in 0..24 * 30 {
        minutes(60).await;
        if stack.record("orders").await.unwrap().setback.is_some_and(|setback| setback.done && setback.in_a_row == in_a_row) {
            return minutes(90).await;
        }
    }
    panic!("it was not set back");
}

/// The service is deployed by this strategy. Its breaker rolls back, or there is none.
pub(crate) async fn breaker(stack: &Stack, service: &str, strategy: &str, enable: bool, rollback: bool) {
    let (cluster, name) = service.split_once('/').unwrap();
    let configuration = json!({"strategy": strategy, "deploymentCircuitBreaker": {"enable": enable, "rollback": rollback}});
    let update = json!({"cluster": cluster, "service": name, "deploymentConfiguration": configuration});
    user(stack, "ecs:UpdateService", update).await;
    minutes(5).await;
}

/// Somebody deploys another image of this service, and that fails. Its tasks read the same certificates as before.
async fn deploy_in_vain(stack: &Stack, service: &str, certificates: &[&str]) {
    break_service(stack, service, 1);
    let (cluster, service) = service.split_once('/').unwrap();
    let secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf";
    let read = |name: &&str| json!({"name": name, "valueFrom": format!("{secret}/{name}:certificate::")});
    let secrets: Vec<_> = certificates.iter().map(read).collect();
    let containers = json!([{"name": "app", "image": "app:2", "secrets": secrets}]);
    user(stack, "ecs:RegisterTaskDefinition", json!({"family": service, "containerDefinitions": containers})).await;
    user(stack, "ecs:UpdateService", json!({"cluster": cluster, "service": service, "taskDefinition": service})).await;
}

/// Somebody deploys it once more.
async fn deploy(stack: &Stack, service: &str) {
    let (cluster, service) = service.split_once('/').unwrap();
    user(stack, "ecs:UpdateService", json!({"cluster": cluster, "service": service, "forceNewDeployment": true})).await;
}

/// `orders` is due from now on, and nothing is delivered; the event that asks for another pair.
async fn due(stack: &Stack) -> Value {
    lose_deliveries(stack);
    days(22).await;
    stack.handle("renew-on-expiry", json!({"certificate": "orders"}), "due").await.unwrap();
    crate::scenario::last_event(stack, "Certificate Due")
}

/// `orders` is renewed, and nothing is delivered. Later by so much that nobody deploys a second time for fear that the clocks of ECS
/// and Secrets Manager are apart.
async fn renewed(stack: &Stack) -> Serial {
    let due = due(stack).await;
    stack.handle("issue-client-cert", due, "due").await.unwrap();
    minutes(10).await;
    current(stack, "orders").await
}

/// `orders` is issued for these services, which run on it; its serial.
async fn running(changes: Value, services: &[&str]) -> (Stack, Serial) {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    let mut order = order();
    order["services"] = json!(services);
    for (field, value) in changes.as_object().unwrap() {
        order[field] = value.clone();
    }
    stack.handle("issue-client-cert", order, "first").await.unwrap();
    for name in services {
        service(&stack, name, &["orders"]).await;
    }
    stack.handle("force-redeploy", json!({"certificate": "orders"}), "first").await.unwrap();
    minutes(20).await;
    let serial = current(&stack, "orders").await;
    stack.aws.take_events();
    (stack, serial)
}

#[test]
fn a_bad_rollout_undoes_itself_and_another_pair_is_tried_a_day_later() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        break_service(&stack, "payments/orders", 1);
        until_set_back(&stack, 1).await;
        let rejected = stack.record("orders").await.unwrap().previous.unwrap();
        assert_eq!(current(&stack, "orders").await, first);
        let events = told(&stack, "Certificate Rolled Back");
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0].0 == "orders" && events[0].1.contains("of payments/orders failed"), "{events:?}");
        let label = stack.aws.world(|world, _| {
            let secret = world.secrets.secrets().find(|secret| secret.name == "everleaf/orders").unwrap();
            staged(secret, "everleaf-rejected").map(|version| version.id.clone())
        });
        assert_eq!(label, Some(rejected.version_id.clone()));
        assert_settled(&stack, "gone back").await;
        assert_eq!(current(&stack, "orders").await, first);

        days(1).await;
        minutes(30).await;
        let third = current(&stack, "orders").await;
        assert!(third != first && third != rejected.serial);
        assert_settled(&stack, "renewed").await;
        assert_eq!(stack.record("orders").await.unwrap().setback, None);
    });
}

#[test]
fn a_pair_that_was_asked_for_before_its_time_and_failed_is_tried_again_after_a_day_or_when_a_person_says_so() {
    run(async {
        for retried in [false, true] {
            let (stack, first) = running(json!({}), &["payments/orders"]).await;
            break_service(&stack, "payments/orders", 1);
            let mut both = order();
            (both["usage"], both["replace"], both["services"]) =
                (json!("client-and-server"), json!(true), json!(["payments/orders"]));
            stack.handle("issue-client-cert", both.clone(), "both").await.unwrap();
            let rejected = current(&stack, "orders").await;
            until_set_back(&stack, 1).await;
            assert_eq!(current(&stack, "orders").await, first);
            both["replace"] = json!(false);
            let again = stack.handle("issue-client-cert", both, "the same again").await.unwrap();
            assert!(again["outcome"] == "unchanged" && again.to_string().contains("may be tried from"), "{again}");
            if retried {
                act(&stack, "renew-on-expiry", json!({"retry": "orders"})).await;
                minutes(60).await;
            } else {
                days(1).await;
            }
            let third = current(&stack, "orders").await;
            assert!(third != first && third != rejected, "by a person: {retried}");
            assert_settled(&stack, "as it was asked for").await;
            assert_eq!(stack.record("orders").await.unwrap().setback, None);
        }
    });
}

#[test]
fn clocks_that_are_minutes_apart_bring_neither_a_second_deployment_nor_leave_an_old_pair() {
    run(async {
        for (ecs, secretsmanager) in [(-140, 140), (140, -140)] {
            let (stack, first) = running(json!({}), &["payments/orders"]).await;
            let ahead = [("ecs", ecs), ("secretsmanager", secretsmanager)];
            stack.aws.world(|world, _| {
                world.ahead = ahead.map(|(service, seconds)| (service, time::Duration::seconds(seconds))).into();
            });
            let due = due(&stack).await;
            // Somebody deploys it, and a minute later it gets another pair.
            deploy(&stack, "payments/orders").await;
            minutes(1).await;
            stack.handle("issue-client-cert", due, "due").await.unwrap();
            assert_ne!(current(&stack, "orders").await, first);
            stack.aws.take_calls();
            stack.aws.set_deliveries(None);
            days(2).await;
            let deployed = stack.aws.take_calls().iter().filter(|call| call.operation == "UpdateService").count();
            assert_eq!(deployed, 1, "ECS {ecs} s ahead, Secrets Manager {secretsmanager} s");
            assert_settled(&stack, "on it").await;
        }
    });
}

#[test]
fn whoever_was_deployed_onto_a_pair_just_before_it_went_back_is_deployed_again_though_clocks_are_apart() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders", "payments/refunds"]).await;
        let ahead =
            [("ecs", 140), ("secretsmanager", -140)].map(|(service, seconds)| (service, time::Duration::seconds(seconds)));
        stack.aws.world(|world, _| world.ahead = ahead.into());
        let due = due(&stack).await;
        stack.handle("issue-client-cert", due, "due").await.unwrap();
        break_service(&stack, "payments/orders", 1);
        // Both are deployed, and the function ends before it can note the second.
        stack.aws.set_faults(Some(Box::new(|call| {
            (call.operation == "UpdateService" && call.input["service"] == "refunds").then_some(local_aws::Fault::Crash)
        })));
        stack.aws.set_deliveries(None);
        tokio::select! {
            () = stack.aws.hung() => {}
            answer = stack.handle("force-redeploy", json!({"certificate": "orders"}), "new") => panic!("{answer:?}"),
        }
        stack.aws.set_faults(None);
        minutes(60).await;
        assert_eq!(current(&stack, "orders").await, first);
        assert_settled(&stack, "both are back").await;
    });
}

#[test]
fn services_that_share_a_certificate_go_back_together_and_so_do_certificates_that_changed_together() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        let mut both = order();
        (both["services"], both["replace"]) = (json!(["payments/orders", "payments/refunds"]), json!(true));
        stack.handle("issue-client-cert", both, "both").await.unwrap();
        service(&stack, "payments/refunds", &["orders", "other"]).await;
        let other = json!({"name": "other", "subject": {"common_name": "other"}, "services": ["payments/refunds"]});
        stack.handle("issue-client-cert", other, "other").await.unwrap();
        minutes(30).await;
        let of_other = current(&stack, "other").await;
        lose_deliveries(&stack);
        for name in ["orders", "other"] {
            let serial = current(&stack, name).await;
            let revoke = json!({"revoke": name, "serial_number": serial, "reason": "SUPERSEDED"});
            stack.handle("issue-client-cert", revoke, "replaced").await.unwrap();
        }
        stack.aws.take_events();
        let new = (current(&stack, "orders").await, current(&stack, "other").await);
        assert!(new.0 != first && new.1 != of_other);
        break_service(&stack, "payments/refunds", 1);
        stack.aws.set_deliveries(None);
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "both").await.unwrap();
        minutes(60).await;
        let mut names: Vec<_> = told(&stack, "Certificate Rolled Back").into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["orders", "other"]);
        assert_settled(&stack, "both are back").await;
        let rejected = stack.record("orders").await.unwrap().rejected;
        assert!(rejected.contains(&new.0));
    });
}

#[test]
fn a_deployment_that_fails_for_another_reason_is_left_alone() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        // Somebody deploys another image after the renewal, before the certificate's own deployment has worked.
        let second = renewed(&stack).await;
        assert_ne!(second, first);
        deploy_in_vain(&stack, "payments/orders", &["orders"]).await;
        stack.aws.set_deliveries(None);
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "look").await.unwrap();
        minutes(90).await;
        assert_eq!(current(&stack, "orders").await, second);
        let events: Vec<_> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
        let reasons: Vec<_> = events.iter().filter(|event| event["detail-type"] == "Action Required").collect();
        assert!(events.iter().all(|event| event["detail-type"] != "Certificate Rolled Back"), "{events:#?}");
        assert!(
            reasons.iter().any(|event| event["detail"]["reason"].as_str().unwrap().starts_with("rollout-failed")),
            "{reasons:#?}"
        );
    });
}

#[test]
fn a_second_rejection_in_a_row_waits_for_a_person() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        break_service(&stack, "payments/orders", 1);
        until_set_back(&stack, 1).await;
        assert_eq!(current(&stack, "orders").await, first);
        break_service(&stack, "payments/orders", 1);
        until_set_back(&stack, 2).await;
        let record = stack.record("orders").await.unwrap();
        assert_eq!((&record.current.as_ref().unwrap().serial, record.setback.unwrap().in_a_row), (&first, 2));
        stack.aws.take_events();
        days(2).await;
        assert_eq!(current(&stack, "orders").await, first);
        let reasons = told(&stack, "Action Required");
        assert!(reasons.iter().any(|(_, reason)| reason.contains("{\"retry\": \"orders\"}")), "{reasons:?}");
        stack.handle("renew-on-expiry", json!({"retry": "orders"}), "person").await.unwrap();
        come_to_rest(&stack).await;
        assert_ne!(current(&stack, "orders").await, first);
        assert_settled(&stack, "after the person").await;
        assert_eq!(stack.record("orders").await.unwrap().setback, None);
    });
}

#[test]
fn whoever_was_told_of_a_pair_that_failed_is_told_of_the_next_one_on_the_same_day() {
    run(async {
        let (stack, _) = running(json!({"validity": {"days": 9}}), &["payments/orders"]).await;
        let mut failed = Vec::new();
        for in_a_row in [1, 2] {
            // The way back fails as well, and a person deploys the service.
            break_service(&stack, "payments/orders", 2);
            until_set_back(&stack, in_a_row).await;
            let reasons = told(&stack, "Action Required");
            for code in ["rolled-back: ", "rollout-failed: "] {
                assert_eq!(reasons.iter().filter(|(_, reason)| reason.starts_with(code)).count(), 1, "{in_a_row}: {reasons:#?}");
            }
            failed.push(stack.record("orders").await.unwrap().setback.unwrap().at);
            deploy(&stack, "payments/orders").await;
        }
        assert!(*failed[1] - *failed[0] < time::Duration::hours(20), "{failed:?}");
    });
}

#[test]
fn what_acm_renewed_goes_back_is_never_exported_again_and_acm_renews_once_more() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = request(&stack, "gateway", false).await;
        service(&stack, "payments/gateway", &["gateway"]).await;
        minutes(60).await;
        let first = current(&stack, "gateway").await;
        break_service(&stack, "payments/gateway", 1);
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
        minutes(60).await;
        let record = stack.record("gateway").await.unwrap();
        let rejected = record.previous.unwrap().serial;
        assert_eq!(record.current.unwrap().serial, first);
        stack.aws.take_calls();
        minutes(20 * 60).await;
        let exports = |calls: &[local_aws::Call]| calls.iter().filter(|call| call.operation == "ExportCertificate").count();
        assert_eq!(exports(&stack.aws.take_calls()), 0);
        // The secret says what was rejected, when the table does not.
        lose_deliveries(&stack);
        empty_the_table(&stack).await;
        stack.aws.set_deliveries(None);
        break_service(&stack, "payments/gateway", u32::MAX);
        stack.aws.take_events();
        days(5).await;
        let is_back =
            |event: &Value| event["detail-type"] == "Certificate Current" && event["detail"]["serial_number"] == json!(rejected);
        assert!(!stack.aws.take_events().iter().any(|event| is_back(&event.event)));
        let record = stack.record("gateway").await.unwrap();
        assert!(record.rejected.contains(&rejected) && record.current.unwrap().serial == first);
        assert_eq!(record.setback.unwrap().in_a_row, 2);
        break_service(&stack, "payments/gateway", 0);
        stack.handle("renew-on-expiry", json!({"retry": "gateway"}), "person").await.unwrap();
        days(1).await;
        let last = current(&stack, "gateway").await;
        assert!(last != first && last != rejected);
        assert_settled(&stack, "renewed again").await;
    });
}

#[test]
fn what_a_listener_serves_goes_back_too() {
    run(async {
        let changes = json!({"usage": "server", "import_to_acm": true});
        let (stack, first) = running(changes, &["payments/orders"]).await;
        break_service(&stack, "payments/orders", 1);
        until_set_back(&stack, 1).await;
        assert_eq!(current(&stack, "orders").await, first);
        let held = imported(&stack, "orders").await;
        assert_eq!(Serial::from_hex(held[0]["Serial"].as_str().unwrap()), first);
    });
}

#[test]
fn a_failure_is_found_without_its_event_whatever_the_circuit_breaker_does() {
    for (what, strategy, enable, rollback, fails) in [
        ("it stops", "ROLLING", true, false, 1),
        ("it rolls back", "ROLLING", true, true, 1),
        ("it rolls back in vain", "ROLLING", true, true, 2),
        ("there is none", "ROLLING", false, false, 1),
        ("it stops what has no rollout state", "BLUE_GREEN", true, false, 1),
        ("it rolls back what has none", "LINEAR", true, true, 1),
        ("there is neither", "CANARY", false, false, 1),
    ] {
        run(async {
            let (stack, first) = running(json!({}), &["payments/orders"]).await;
            breaker(&stack, "payments/orders", strategy, enable, rollback).await;
            stack.aws.set_deliveries(Some(Box::new(|event, _| match event["source"].as_str() {
                Some("aws.ecs") => Vec::new(),
                _ => vec![Duration::ZERO],
            })));
            break_service(&stack, "payments/orders", fails);
            until_set_back(&stack, 1).await;
            assert_eq!(current(&stack, "orders").await, first, "{what}");
            let events = told(&stack, "Certificate Rolled Back");
            assert_eq!(events.len(), 1, "{what}: {events:?}");
            assert_settled(&stack, what).await;
        });
    }
}

/// Somebody has the deployment of `orders` that is under way rolled back.
pub(crate) async fn roll_back(stack: &Stack) {
    let service = json!({"cluster": "payments", "service": "orders"});
    let listed = user(stack, "ecs:ListServiceDeployments", service).await;
    let arn = &listed["serviceDeployments"][0]["serviceDeploymentArn"];
    let stop = json!({"serviceDeploymentArn": arn, "stopType": "ROLLBACK"});
    user(stack, "ecs:StopServiceDeployment", stop).await;
}

#[test]
fn what_was_rolled_back_without_an_event_has_failed_and_what_was_superseded_has_not() {
    for (what, strategy, is_stopped) in [
        ("stopped", "ROLLING", true),
        ("stopped", "BLUE_GREEN", true),
        ("superseded", "ROLLING", false),
        ("superseded", "LINEAR", false),
    ] {
        run(async {
            let (stack, first) = running(json!({}), &["payments/orders"]).await;
            breaker(&stack, "payments/orders", strategy, false, false).await;
            let second = renewed(&stack).await;
            stack.aws.set_deliveries(None);
            break_service(&stack, "payments/orders", 1);
            stack.handle("force-redeploy", json!({"certificate": "orders"}), "new").await.unwrap();
            minutes(5).await;
            stack.aws.take_events();
            match is_stopped {
                true => roll_back(&stack).await,
                false => deploy(&stack, "payments/orders").await,
            }
            minutes(30).await;
            let story = format!("{what}, {strategy}");
            assert_eq!(current(&stack, "orders").await, if is_stopped { first } else { second }, "{story}");
            let events = told(&stack, "Certificate Rolled Back");
            assert_eq!(events.len(), usize::from(is_stopped), "{story}: {events:?}");
            assert!(
                events.iter().all(|(_, reason)| reason.contains("(Service deployment was stopped by a user.)")),
                "{events:?}"
            );
            assert_settled(&stack, &story).await;
        });
    }
}

async fn is_on_its_pair(stack: &Stack) -> bool {
    let record = stack.record("orders").await.unwrap();
    let states = stack.records().bindings(&record.options.services).await.unwrap();
    states.values().all(|binding| binding.state.is_on(*record.current.as_ref().unwrap().since))
}

/// How often a person was told of this since the last time.
fn told_of(stack: &Stack, code: &str) -> usize {
    told(stack, "Action Required").iter().filter(|(_, reason)| reason.starts_with(code)).count()
}

#[test]
fn a_service_is_on_a_pair_once_no_older_task_runs_and_a_person_is_told_when_that_takes_long() {
    for strategy in ["ROLLING", "BLUE_GREEN"] {
        run(async {
            let (stack, _) = running(json!({}), &["payments/orders"]).await;
            breaker(&stack, "payments/orders", strategy, true, true).await;
            renewed(&stack).await;
            let linger = |linger| stack.aws.world(|world, _| world.ecs.old_tasks_linger("payments", "orders", linger));
            linger(true);
            stack.aws.set_deliveries(None);
            stack.handle("force-redeploy", json!({"certificate": "orders"}), "new").await.unwrap();
            minutes(5).await;
            assert_eq!(crate::scenario::last_event(&stack, "ECS Deployment State Change")["detail"]["eventName"], COMPLETED);
            assert!(!is_on_its_pair(&stack).await, "after the event");
            minutes(5 * 60).await;
            assert!(!is_on_its_pair(&stack).await, "after some looks");
            let events = stack.aws.take_events().into_iter().map(|event| event.event["detail-type"].clone());
            let events: Vec<_> = events.filter(|kind| kind == "Services Redeployed" || kind == "Action Required").collect();
            assert!(events.is_empty(), "{events:?}");
            for day in 1..3 {
                days(1).await;
                assert_eq!(told_of(&stack, "rollout-slow: "), 1, "day {day}");
            }
            linger(false);
            minutes(90).await;
            assert_eq!(told(&stack, "Services Redeployed").len(), 1);
            assert!(is_on_its_pair(&stack).await);
            assert_settled(&stack, strategy).await;
            days(2).await;
            assert_eq!(told_of(&stack, "rollout-slow: "), 0, "it has ended");
        });
    }
}

const COMPLETED: &str = "SERVICE_DEPLOYMENT_COMPLETED";

#[test]
fn a_service_that_is_deployed_by_other_means_is_told_of_until_it_was_deployed_there() {
    for controller in ["CODE_DEPLOY", "EXTERNAL"] {
        run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            let deploy = || {
                stack.aws.world(|world, now| local_aws::ecs::deploy_task_set(world, now, "payments", "orders")).unwrap();
            };
            service(&stack, "payments/other", &["orders"]).await;
            let create = json!({
                "cluster": "payments", "serviceName": "orders", "taskDefinition": "other", "desiredCount": 2,
                "deploymentController": {"type": controller},
            });
            user(&stack, "ecs:CreateService", create).await;
            deploy();
            minutes(10).await;
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            for _ in 0..2 {
                days(1).await;
                assert_eq!(told_of(&stack, "service-refused: "), 1, "{controller}");
            }
            deploy();
            days(1).await;
            assert_eq!(told(&stack, "Services Redeployed").len(), 1, "{controller}");
            assert!(is_on_its_pair(&stack).await, "{controller}");
            assert_settled(&stack, controller).await;
            days(2).await;
            assert_eq!(told_of(&stack, "service-refused: "), 0, "{controller}");
            // What deploys it may be told of the next pair at once.
            let mut next = order();
            (next["usage"], next["replace"]) = (json!("server"), json!(true));
            stack.handle("issue-client-cert", next, "next").await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            deploy();
            days(1).await;
            told_of(&stack, "service-refused: ");
            days(2).await;
            assert_eq!(told_of(&stack, "service-refused: "), 0, "{controller}, at once");
            assert_settled(&stack, controller).await;
        });
    }
}

#[test]
fn a_service_that_ecs_refuses_to_deploy_is_told_of_and_asked_for_once_a_day_until_it_is_mended() {
    run(async {
        let (stack, _) = running(json!({}), &["payments/orders"]).await;
        renewed(&stack).await;
        stack.aws.set_faults(Some(Box::new(|call| {
            let denied = local_aws::AwsError::new("AccessDeniedException", "User is not authorized to perform this");
            (call.operation == "UpdateService").then_some(local_aws::Fault::Refuse(denied))
        })));
        stack.aws.set_deliveries(None);
        stack.aws.take_events();
        stack.aws.take_calls();
        for day in 1..4 {
            days(1).await;
            let reasons: Vec<_> = told(&stack, "Action Required").into_iter().map(|(_, reason)| reason).collect();
            let [reason] = &reasons[..] else { panic!("day {day}: {reasons:#?}") };
            assert!(reason.starts_with("service-refused: payments/orders cannot be redeployed: AccessDenied"), "{reason}");
            let asked = stack.aws.take_calls().iter().filter(|call| call.operation == "UpdateService").count();
            assert_eq!(asked, 3, "day {day}: Lambda tries again twice");
        }
        let services = ["payments/orders".parse().unwrap()];
        let binding = stack.records().bindings(&services).await.unwrap().remove(&services[0]).unwrap();
        assert!(binding.state.lock.is_none() && binding.state.fault.is_some(), "{binding:?}");
        stack.aws.set_faults(None);
        days(2).await;
        assert!(is_on_its_pair(&stack).await);
        assert_settled(&stack, "mended").await;
    });
}

#[test]
fn where_there_is_nothing_to_go_back_to_a_person_is_told_once_a_day() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        service(&stack, "payments/orders", &[]).await;
        minutes(10).await;
        lose_deliveries(&stack);
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        break_service(&stack, "payments/orders", 1);
        stack.aws.set_deliveries(None);
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "first").await.unwrap();
        minutes(60).await;
        let serial = current(&stack, "orders").await;
        let reasons = told(&stack, "Action Required");
        assert!(reasons.iter().any(|(_, reason)| reason.contains("there is no pair before it to go back to")), "{reasons:?}");
        days(3).await;
        assert!((2..=3).contains(&told(&stack, "Action Required").len()));
        assert_eq!(current(&stack, "orders").await, serial);
    });
}

#[test]
fn a_canary_goes_first_and_the_others_never_see_a_pair_that_fails_there() {
    run(async {
        let services = ["payments/canary", "payments/orders"];
        let (stack, first) = running(json!({"canary": "payments/canary"}), &services).await;
        let value = |stack: &Stack| {
            stack
                .aws
                .world(|world, _| world.ecs.running_values("payments", "orders"))
                .first()
                .map(|values| values["orders"].clone())
        };
        let before = value(&stack);
        break_service(&stack, "payments/canary", 1);
        stack.aws.take_events();
        until_set_back(&stack, 1).await;
        let events: Vec<_> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
        assert!(events.iter().any(|event| event["detail-type"] == "Certificate Rolled Back"));
        assert_eq!((current(&stack, "orders").await, value(&stack)), (first.clone(), before));

        days(2).await;
        let second = current(&stack, "orders").await;
        assert_ne!(second, first);
        assert_settled(&stack, "renewed").await;
        let began = |service: &str| {
            let events = events.iter().filter(|event| event["detail"]["eventName"] == "SERVICE_DEPLOYMENT_IN_PROGRESS");
            events.filter(|event| event["resources"][0].as_str().unwrap().ends_with(service)).count()
        };
        // Forward, and back. The other one is only deployed for the pair that it had before.
        assert_eq!((began("/canary"), began("/orders")), (2, 1));
    });
}

#[test]
fn a_lost_table_remembers_what_was_rejected() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        break_service(&stack, "payments/orders", 1);
        until_set_back(&stack, 1).await;
        let rejected = stack.record("orders").await.unwrap().previous.unwrap().serial;
        assert_eq!(current(&stack, "orders").await, first);
        lose_deliveries(&stack);
        empty_the_table(&stack).await;
        stack.handle("renew-on-expiry", json!({"certificate": "orders"}), "rebuilt").await.unwrap();
        assert!(stack.record("orders").await.unwrap().rejected.contains(&rejected));
        // Nor is another pair tried at once.
        stack.aws.set_deliveries(None);
        minutes(60 * 20).await;
        assert_eq!(current(&stack, "orders").await, first);
        days(1).await;
        assert!(![&first, &rejected].contains(&&current(&stack, "orders").await));
    });
}

#[test]
fn what_became_current_during_a_deployment_is_not_told_as_redeployed_by_it() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let (mut first, mut other) = (order(), order());
        (first["services"], other["services"]) = (json!(["payments/orders"]), json!(["payments/orders"]));
        (other["name"], other["subject"]) = (json!("other"), json!({"common_name": "other"}));
        for order in [first, other.clone()] {
            act(&stack, "issue-client-cert", order).await;
        }
        service(&stack, "payments/orders", &["orders", "other"]).await;
        minutes(60).await;
        lose_deliveries(&stack);
        let mut next = order();
        (next["services"], next["usage"], next["replace"]) = (json!(["payments/orders"]), json!("server"), json!(true));
        stack.handle("issue-client-cert", next, "orders").await.unwrap();
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "orders").await.unwrap();
        (other["usage"], other["replace"]) = (json!("server"), json!(true));
        stack.handle("issue-client-cert", other, "other").await.unwrap();
        minutes(1).await;
        let ended = crate::scenario::last_event(&stack, "ECS Deployment State Change");
        assert_eq!(ended["detail"]["eventName"], "SERVICE_DEPLOYMENT_COMPLETED");
        stack.handle("force-redeploy", ended, "ended").await.unwrap();
        let told = told(&stack, "Services Redeployed");
        assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["orders"]);
    });
}

#[test]
fn a_setback_that_a_crash_interrupts_is_finished_and_what_was_rejected_is_known() {
    for number in 0.. {
        let more = run(async {
            let (stack, event) = crate::scenario::ecs_failed().begin().await;
            let record = stack.record("orders").await.unwrap();
            let (rejected, restored) = (record.current.unwrap().serial, record.previous.unwrap().serial);
            let mut calls = 0;
            stack.aws.set_faults(Some(Box::new(move |call| {
                calls += usize::from(call.caller == "force-redeploy");
                (call.caller == "force-redeploy" && calls == number + 1).then_some(local_aws::Fault::Crash)
            })));
            stack.aws.set_deliveries(None);
            let crashed = tokio::select! {
                () = stack.aws.hung() => true,
                answer = stack.handle("force-redeploy", event, "first") => answer.is_err(),
            };
            come_to_rest(&stack).await;
            let record = stack.record("orders").await.unwrap();
            let story = format!("a crash after call {number}");
            assert!(record.rejected.contains(&rejected), "{story}");
            assert_eq!(record.current.unwrap().serial, restored, "{story}");
            assert!(!told(&stack, "Certificate Rolled Back").is_empty(), "{story}");
            assert_settled(&stack, &story).await;
            crashed
        });
        if !more {
            break;
        }
    }
}

/// Lets `force-redeploy` crash as soon as it has moved this label; then its lock is over.
async fn interrupt(stack: &Stack, event: &Value, label: &'static str) {
    stack.aws.set_faults(Some(Box::new(move |call| {
        (call.caller == "force-redeploy" && call.input["VersionStage"] == label).then_some(local_aws::Fault::Crash)
    })));
    tokio::select! {
        () = stack.aws.hung() => {}
        answer = stack.handle("force-redeploy", event.clone(), "first") => panic!("{answer:?}"),
    }
    stack.aws.set_faults(None);
    minutes(3).await;
}

#[test]
fn a_setback_that_two_find_interrupted_is_finished_by_one() {
    run(async {
        let (stack, event) = crate::scenario::ecs_failed().begin().await;
        interrupt(&stack, &event, "AWSPENDING").await;
        stack.aws.take_events();
        let (one, other) =
            tokio::join!(stack.handle("force-redeploy", event.clone(), "one"), stack.handle("force-redeploy", event, "other"));
        assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
        assert_eq!(told(&stack, "Certificate Rolled Back").len(), 1);
    });
}

#[test]
fn a_look_beside_a_setback_leaves_it_to_whoever_is_at_it() {
    for number in 0.. {
        let more = run(async {
            let (stack, event) = crate::scenario::ecs_failed().begin().await;
            let moment = Moment::of_call("force-redeploy", number);
            let seen = moment.clone();
            stack.aws.set_faults(Some(Box::new(move |call| {
                seen.see(call);
                None
            })));
            let first = stack.handle("force-redeploy", event.clone(), "first");
            let look = stack.handle("renew-on-expiry", json!({"certificate": "orders"}), "look");
            let (first, looked, there_was_one) = moment.join(first, look).await;
            let looked = looked.unwrap();
            if let Err(error) = first {
                // The look was first.
                assert_eq!(error.error_type, "Retryable", "{error:?}");
                minutes(3).await;
                stack.handle("force-redeploy", event, "first").await.unwrap();
            }
            assert_eq!(told(&stack, "Certificate Rolled Back").len(), 1, "a look at call {number}: {looked}");
            there_was_one
        });
        if !more {
            break;
        }
    }
}

#[test]
fn a_pair_that_is_to_be_revoked_is_replaced_no_more_often_than_any_other() {
    run(async {
        let (stack, first) = running(json!({}), &["payments/orders"]).await;
        break_service(&stack, "payments/orders", u32::MAX);
        let revoke = json!({"revoke": "orders", "serial_number": first, "reason": "SUPERSEDED"});
        stack.handle("issue-client-cert", revoke, "replaced").await.unwrap();
        days(6).await;
        let record = stack.record("orders").await.unwrap();
        assert_eq!((&record.current.as_ref().unwrap().serial, record.setback.as_ref().unwrap().in_a_row), (&first, 2));
        let due = json!({"prefix": "everleaf", "certificate": "orders"});
        let event = json!({"detail-type": "Certificate Due", "source": "everleaf", "resources": [], "detail": due});
        stack.handle("issue-client-cert", event, "a late event").await.unwrap();
        let record = stack.record("orders").await.unwrap();
        assert_eq!(record.attempts.last, 3, "the first pair and two others");
        let reasons = told(&stack, "Action Required");
        assert!(reasons.iter().any(|(_, reason)| reason.contains("{\"retry\": \"orders\"}")), "{reasons:?}");
    });
}

#[test]
fn certificates_whose_canaries_cross_do_not_wait_for_each_other() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let crossed = |name: &str, canary: &str, usage: &str| {
            let services = json!(["payments/left", "payments/right"]);
            json!({
                "name": name, "subject": {"common_name": name}, "services": services, "canary": canary, "usage": usage, "replace": true
            })
        };
        let canaries = [("one", "payments/left"), ("other", "payments/right")];
        for usage in ["client", "server", "client-and-server"] {
            for (name, canary) in canaries {
                stack.handle("issue-client-cert", crossed(name, canary, usage), usage).await.unwrap();
            }
            for (_, canary) in canaries {
                match usage {
                    "client" => service(&stack, canary, &["one", "other"]).await,
                    "server" => {}
                    _ => deploy_in_vain(&stack, canary, &["one", "other"]).await,
                }
            }
            if usage == "client-and-server" {
                stack.handle("force-redeploy", json!({"certificate": "one"}), usage).await.unwrap();
                stack.aws.set_deliveries(None);
                minutes(60).await;
                for (_, canary) in canaries {
                    deploy(&stack, canary).await;
                }
            }
            stack.aws.take_events();
            come_to_rest(&stack).await;
            assert_settled(&stack, usage).await;
            let mut redeployed: Vec<_> = told(&stack, "Services Redeployed").into_iter().map(|(name, _)| name).collect();
            redeployed.sort();
            assert_eq!(redeployed, ["one", "one", "other", "other"], "{usage}");
            lose_deliveries(&stack);
        }
    });
}

#[test]
fn a_failure_of_another_cause_that_others_wait_for_is_told_once_a_day_until_it_is_mended() {
    run(async {
        let services = ["payments/canary", "payments/orders"];
        let (stack, first) = running(json!({"canary": "payments/canary"}), &services).await;
        let second = renewed(&stack).await;
        assert_ne!(second, first);
        deploy_in_vain(&stack, "payments/canary", &["orders"]).await;
        stack.aws.set_deliveries(None);
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "look").await.unwrap();
        let failed = |stack: &Stack| {
            let told = told(stack, "Action Required").into_iter();
            told.filter(|(_, reason)| reason.starts_with("rollout-failed: the deployment ")).count()
        };
        minutes(90).await;
        assert_eq!(failed(&stack), 1);
        minutes(20 * 60).await;
        assert_eq!(failed(&stack), 0, "once a day");
        days(3).await;
        assert_eq!(failed(&stack), 3);
        assert_eq!(current(&stack, "orders").await, second);
        deploy(&stack, "payments/canary").await;
        minutes(90).await;
        stack.aws.take_events();
        assert_settled(&stack, "mended").await;
        days(2).await;
        assert_eq!(failed(&stack), 0, "it is mended");
        let states = stack.records().bindings(&stack.record("orders").await.unwrap().options.services).await.unwrap();
        assert!(states.values().all(|binding| binding.state.fault.is_none()), "{states:#?}");
    });
}

#[test]
fn a_failure_from_before_a_newer_pair_does_not_keep_that_one_waiting() {
    run(async {
        let (stack, _) = running(json!({}), &["payments/orders"]).await;
        lose_deliveries(&stack);
        deploy_in_vain(&stack, "payments/orders", &["orders"]).await;
        stack.handle("force-redeploy", json!({"certificate": "orders"}), "look").await.unwrap();
        minutes(10).await;
        let event = crate::scenario::last_event(&stack, "ECS Deployment State Change");
        let other = json!({"name": "other", "subject": {"common_name": "other"}, "services": ["payments/orders"]});
        stack.handle("issue-client-cert", other, "newer").await.unwrap();
        stack.handle("force-redeploy", event, "failed").await.unwrap();
        assert!(told(&stack, "Action Required").iter().any(|(name, _)| name == "orders"));
        stack.aws.set_deliveries(None);
        minutes(150).await;
        let record = stack.record("other").await.unwrap();
        let states = stack.records().bindings(&record.options.services).await.unwrap();
        assert!(states.values().all(|binding| binding.state.is_on(*record.current.as_ref().unwrap().since)), "{states:#?}");
    });
}

#[test]
fn a_setback_that_was_interrupted_does_not_bring_back_what_is_not_good_any_more() {
    for (what, label, moved) in [
        ("revoked", "AWSPENDING", false),
        ("revoked, seen at its event", "AWSPENDING", false),
        ("expired", "AWSPENDING", false),
        ("revoked, and current again", "AWSCURRENT", true),
    ] {
        run(async {
            let (stack, event) = crate::scenario::ecs_failed().begin().await;
            let before = stack.record("orders").await.unwrap();
            let (failed, restored) = (before.current.unwrap(), before.previous.unwrap());
            interrupt(&stack, &event, label).await;
            match what {
                "expired" => days(31).await,
                _ => {
                    let revoke = json!({"revoke": "orders", "serial_number": restored.serial, "reason": "KEY_COMPROMISE"});
                    stack.handle("issue-client-cert", revoke, what).await.unwrap();
                }
            }
            stack.aws.take_events();
            stack.aws.take_calls();
            let again = if what.ends_with("event") { event } else { json!({"certificate": "orders"}) };
            stack.handle("force-redeploy", again, "again").await.unwrap();
            let record = stack.record("orders").await.unwrap();
            let states = stack.records().bindings(&record.options.services).await.unwrap();
            assert!(states.values().all(|binding| binding.state.fault.is_none() == moved), "{what}: {states:#?}");
            let stays = if moved { &restored } else { &failed };
            assert_eq!(record.current.unwrap().version_id, stays.version_id, "{what}");
            assert!(record.setback.unwrap().done, "{what}");
            assert_eq!(record.rejected.contains(&failed.serial), moved, "{what}");
            let calls = stack.aws.take_calls();
            let writes = calls.iter().any(|call| call.operation == "UpdateSecretVersionStage" && call.error.is_none());
            assert!(!writes, "{what}: no label moves");
            let events: Vec<_> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
            let told: Vec<_> = events.iter().filter(|event| event["detail-type"] == "Action Required").collect();
            let reason = match moved {
                true => "gave way to the one before it".to_owned(),
                false => format!(", and serial {} before it ", restored.serial),
            };
            assert!(told.len() == 1 && told[0]["detail"]["reason"].as_str().unwrap().contains(&reason), "{what}: {told:#?}");
            assert_eq!(events.iter().any(|event| event["detail-type"] == "Certificate Rolled Back"), moved, "{what}");
        });
    }
}
