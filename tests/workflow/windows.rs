//! Certificates that are replaced at certain hours only, or not at all for now.

use lifecycle::leaf::Serial;
use serde_json::{Value, json};
use time::Weekday;
use workflow::Stack;

use crate::recovery::empty_the_table;
use crate::scenario::{days, minutes, order, request, run, service, user};

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
