//! Certificates that are replaced at certain hours only, or not at all for now.

use lifecycle::leaf::Serial;
use serde_json::{Value, json};
use time::Weekday;
use workflow::Stack;

use crate::recovery::empty_the_table;
use crate::scenario::{days, lose_deliveries, minutes, order, request, run, self_signed, service, user};

async fn current(stack: &Stack, name: &str) -> Serial {
    stack.record(name).await.unwrap().current.unwrap().serial
}

async fn issued(changes: Value) -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    service(&stack, "payments/orders", &["orders"]).await;
    let mut order = order();
    for (field, value) in changes.as_object().unwrap() {
        order[field] = value.clone();
    }
    stack.handle("issue-client-cert", order, "first").await.unwrap();
    stack
}

/// Hour by hour until another pair is current, at most so many days.
async fn until_replaced(stack: &Stack, name: &str, days: u32) -> bool {
    let serial = current(stack, name).await;
    for _ in 0..days * 24 {
        minutes(60).await;
        if current(stack, name).await != serial {
            return true;
        }
    }
    false
}

#[test]
fn a_pair_is_replaced_in_its_window_and_the_table_may_be_lost_before() {
    run(async {
        let stack = issued(json!({"maintenance_window": "Sat Sun 01:00-05:00", "validity": {"days": 60}})).await;
        days(1).await;
        empty_the_table(&stack).await;
        days(2).await;
        for _ in 0..4 {
            assert!(until_replaced(&stack, "orders", 60).await);
            let since = *stack.record("orders").await.unwrap().current.unwrap().since;
            assert!([Weekday::Saturday, Weekday::Sunday].contains(&since.weekday()) && (1..5).contains(&since.hour()), "{since}");
        }
    });
}

#[test]
fn a_window_that_does_not_come_in_time_is_not_waited_for() {
    run(async {
        // Its last third is two days and a half.
        let stack = issued(json!({"maintenance_window": "Sat 01:00-01:30", "validity": {"hours": 180}})).await;
        for _ in 0..6 {
            assert!(until_replaced(&stack, "orders", 8).await);
            let record = stack.record("orders").await.unwrap();
            let before = record.previous.unwrap();
            assert!(*record.current.unwrap().since < *before.not_after - time::Duration::hours(24), "there is a day left");
        }
    });
}

#[test]
fn what_acm_renews_waits_for_the_window_too() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = request(&stack, "gateway", false).await;
        let tag = json!([{"Key": "everleaf:maintenance-window", "Value": "Sun 01:00-05:00"}]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
        days(1).await;
        let first = current(&stack, "gateway").await;
        while stack.aws.now().weekday() != Weekday::Monday {
            days(1).await;
        }
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
        days(5).await;
        assert_eq!(current(&stack, "gateway").await, first);
        assert!(until_replaced(&stack, "gateway", 2).await);
        let since = *stack.record("gateway").await.unwrap().current.unwrap().since;
        assert!(since.weekday() == Weekday::Sunday && (1..5).contains(&since.hour()), "{since}");
    });
}

#[test]
fn acms_own_renewal_waits_for_the_window_and_for_the_canary() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = request(&stack, "gateway", false).await;
        let tags = json!([
            {"Key": "everleaf:maintenance-window", "Value": "Sun 01:00-05:00"}, {"Key": "everleaf:canary", "Value": "payments/gateway"},
            {"Key": "everleaf:service-2", "Value": "payments/portal"},
        ]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tags})).await;
        for name in ["payments/gateway", "payments/portal"] {
            service(&stack, name, &["gateway"]).await;
        }
        days(1).await;
        lose_deliveries(&stack);
        days(333).await;
        stack.aws.set_deliveries(None);
        let first = current(&stack, "gateway").await;
        crate::rollbacks::break_service(&stack, "payments/gateway", 1);
        stack.aws.take_calls();
        let held = || async {
            let described = user(&stack, "acm:DescribeCertificate", json!({"CertificateArn": arn})).await;
            Serial::from_hex(described["Certificate"]["Serial"].as_str().unwrap())
        };
        let mut deployed = Vec::new();
        for _ in 0..14 * 24 {
            minutes(60).await;
            let calls = stack.aws.take_calls().into_iter().filter(|call| call.operation == "UpdateService");
            deployed.extend(calls.map(|call| (call.at, call.input["service"].as_str().unwrap().to_owned())));
        }
        assert_ne!(held().await, first, "ACM renews sixty days before the end");
        assert_eq!(current(&stack, "gateway").await, first, "it failed, and went back");
        // The canary alone on what failed; all once that went back.
        let (at, services): (Vec<_>, Vec<_>) = deployed.into_iter().unzip();
        assert_eq!(services, ["gateway", "gateway", "portal"]);
        assert!(at[0].weekday() == Weekday::Sunday && (1..5).contains(&at[0].hour()), "{at:?}");
    });
}

#[test]
fn what_is_paused_stays_as_it_is_and_a_person_hears_when_it_is_late() {
    run(async {
        let stack = issued(json!({"paused": true})).await;
        let first = current(&stack, "orders").await;
        stack.aws.take_events();
        days(26).await;
        let due = json!({"prefix": "everleaf", "certificate": "orders"});
        let event = json!({"detail-type": "Certificate Due", "source": "everleaf", "resources": [], "detail": due});
        let answer = stack.handle("issue-client-cert", event, "a late event").await.unwrap();
        assert_eq!((&answer["outcome"], current(&stack, "orders").await), (&json!("unchanged"), first.clone()));
        let late = |event: &Value| event["detail"]["reason"].as_str().is_some_and(|reason| reason.starts_with("renewal-late"));
        assert!(stack.aws.take_events().iter().any(|event| late(&event.event)));
        let serial = json!({"revoke": "orders", "serial_number": first, "reason": "KEY_COMPROMISE"});
        stack.handle("issue-client-cert", serial, "lost").await.unwrap();
        let second = current(&stack, "orders").await;
        assert_ne!(second, first, "a lost key is replaced all the same");
        days(26).await;
        assert_eq!(current(&stack, "orders").await, second);
        let mut order = order();
        order["replace"] = json!(true);
        stack.handle("issue-client-cert", order, "go on").await.unwrap();
        assert_ne!(current(&stack, "orders").await, second, "a person asked");
    });
}

#[test]
fn what_was_imported_by_hand_waits_for_its_window_and_while_it_is_paused_whatever_event_comes_late() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = self_signed(&stack, "web", 90).await;
        // It is due after sixty days, a few days before the window, and late after seventy-five.
        let opens = (stack.aws.now() + time::Duration::days(65)).weekday();
        let window = format!("{} 01:00-05:00", &opens.to_string()[..3]);
        let tag = async |key: &str, value: &str| {
            let tags = json!([{"Key": format!("everleaf:{key}"), "Value": value}]);
            user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tags})).await;
        };
        let held = async || {
            user(&stack, "acm:DescribeCertificate", json!({"CertificateArn": arn})).await["Certificate"]["Serial"].clone()
        };
        let late_event = async |what: &str| {
            let due = json!({"prefix": "everleaf", "certificate": "web"});
            let event = json!({"detail-type": "Certificate Due", "source": "everleaf", "resources": [], "detail": due});
            let before = held().await;
            let answer = stack.handle("issue-client-cert", event, what).await.unwrap();
            assert_eq!((&answer["outcome"], held().await), (&json!("unchanged"), before), "{what}");
        };
        tag("maintenance-window", &window).await;
        minutes(30).await;
        days(59).await;
        late_event("it is not due").await;
        days(3).await;
        late_event("its window is closed").await;
        tag("paused", "true").await;
        late_event("it is paused since").await;
        days(7).await;
        let first = held().await;
        assert_eq!(stack.record("web").await.unwrap().current, None, "paused through its window");
        tag("paused", "false").await;
        days(7).await;
        let since = *stack.record("web").await.unwrap().current.unwrap().since;
        assert!(since.weekday() == opens && (1..5).contains(&since.hour()), "{since}");
        assert_ne!(held().await, first);
    });
}

#[test]
fn what_was_imported_by_hand_is_left_alone_when_its_event_comes_after_its_tag_or_its_name_is_gone() {
    for what in ["tag", "name"] {
        run(async {
            let stack = issued(json!({})).await;
            lose_deliveries(&stack);
            let arn = self_signed(&stack, "web", 90).await;
            days(61).await;
            let look = async || stack.handle("renew-on-expiry", json!({"sweep": true}), "sweep").await.unwrap();
            look().await;
            let mut events = stack.aws.take_events().into_iter().map(|event| event.event);
            let due = |event: &Value| event["detail-type"] == "Certificate Due" && event["detail"]["certificate"] == "web";
            let event = events.find(due).unwrap();
            if what == "tag" {
                let tag = json!([{"Key": "everleaf:certificate"}]);
                user(&stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
            } else {
                let value =
                    user(&stack, "secretsmanager:GetSecretValue", json!({"SecretId": "everleaf/orders"})).await["SecretString"]
                        .clone();
                let tags = json!([{"Key": "everleaf:certificate", "Value": "everleaf/web"}, {"Key": "everleaf:origin", "Value": "exported"}]);
                let theirs =
                    json!({"Name": "everleaf/web", "SecretString": value, "ClientRequestToken": "0".repeat(32), "Tags": tags});
                user(&stack, "secretsmanager:CreateSecret", theirs).await;
                minutes(60).await;
                look().await;
            }
            stack.aws.take_calls();
            let answer = stack.handle("issue-client-cert", event, "late").await.unwrap();
            assert_eq!(answer["outcome"], "unchanged", "{what}");
            let written: Vec<_> = stack.aws.take_calls().into_iter().filter(local_aws::Call::writes).collect();
            assert!(written.is_empty(), "{what}: {written:?}");
        });
    }
}

#[test]
fn the_same_order_again_goes_past_no_pause_and_no_window_and_says_why() {
    run(async {
        for (changes, why) in [
            (json!({"paused": true}), "it is paused"),
            (json!({"maintenance_window": "Sun 01:00-01:30"}), "its maintenance window opens"),
        ] {
            let stack = issued(changes.clone()).await;
            let mut again = order();
            for (field, value) in changes.as_object().unwrap() {
                again[field] = value.clone();
            }
            let first = current(&stack, "orders").await;
            lose_deliveries(&stack);
            days(22).await;
            while stack.aws.now().weekday() == Weekday::Sunday {
                days(1).await;
            }
            for dry_run in [true, false] {
                again["dry_run"] = json!(dry_run);
                let answer = stack.handle("issue-client-cert", again.clone(), "again").await.unwrap();
                assert_eq!(
                    (&answer["outcome"], current(&stack, "orders").await),
                    (&json!("unchanged"), first.clone()),
                    "{changes}"
                );
                let reason = answer["reason"].as_str().unwrap_or_default();
                assert!(reason.starts_with("it is due and not renewed now: ") && reason.contains(why), "{changes}: {answer}");
            }
            let mut freed = order();
            freed["replace"] = json!(true);
            let answer = stack.handle("issue-client-cert", freed, "freed").await.unwrap();
            assert_eq!(answer["outcome"], "issued", "{changes}");
        }
    });
}

#[test]
fn what_is_due_can_be_paused_by_a_request_and_is_not_renewed_by_it() {
    run(async {
        let stack = issued(json!({})).await;
        let first = current(&stack, "orders").await;
        lose_deliveries(&stack);
        days(22).await;
        let mut pause = order();
        (pause["paused"], pause["replace"]) = (json!(true), json!(true));
        let answer = stack.handle("issue-client-cert", pause, "pause").await.unwrap();
        assert_eq!((&answer["outcome"], current(&stack, "orders").await), (&json!("unchanged"), first));
        assert!(stack.record("orders").await.unwrap().options.paused);
    });
}
