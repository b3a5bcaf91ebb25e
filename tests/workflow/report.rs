//! The report on the fleet, as it lies in the bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use local_aws::{AwsError, Fault};
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::Since;
use crate::recovery::empty_the_table;
use crate::scenario::{act, days, declare_by_hand, lose_deliveries, minutes, order, request, run, service, user};

/// `orders` is issued, and its service runs on it.
async fn fleet() -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    act(&stack, "issue-client-cert", order()).await;
    service(&stack, "payments/orders", &["orders"]).await;
    stack
}

fn bucket(stack: &Stack) -> String {
    stack.template.function("renew-on-expiry").unwrap().environment["EVERLEAF_BUCKET"].clone()
}

fn object(stack: &Stack, key: &str) -> Option<String> {
    let bucket = bucket(stack);
    stack.aws.world(|world, _| world.s3.object(&bucket, key).map(|body| String::from_utf8(body.to_vec()).unwrap()))
}

fn report(stack: &Stack) -> Option<Value> {
    object(stack, "report/report.json").map(|text| serde_json::from_str(&text).unwrap())
}

fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut rows = report["certificates"].as_array().unwrap().iter();
    rows.find(|row| row["certificate"] == name).unwrap_or_else(|| panic!("nothing is told of {name}: {report}"))
}

/// How often a report was written since this was last asked.
fn written(stack: &Stack) -> usize {
    let puts = stack.aws.take_calls().into_iter().filter(|call| call.operation == "PutObject" && call.error.is_none());
    puts.filter(|call| call.input["Key"] == "report/report.html").count()
}

#[test]
fn a_report_is_written_once_a_day_without_anybody_asking() {
    run(async {
        let stack = fleet().await;
        assert_eq!(report(&stack), None);
        minutes(65).await;
        let first = report(&stack).unwrap();
        assert_eq!((&first["prefix"], &first["region"]), (&json!("everleaf"), &json!("eu-central-1")));
        assert_eq!((&first["counts"], &of(&first, "orders")["state"]), (&json!({"good": 1}), &json!("good")));
        written(&stack);
        days(7).await;
        assert_eq!(written(&stack), 7);
        assert!(report(&stack).unwrap()["generated_at"].as_str() > first["generated_at"].as_str());
    });
}

#[test]
fn a_report_by_request_says_where_it_lies_and_the_page_holds_the_same() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        act(&stack, "refresh-truststore", declare_by_hand().set_up(&stack).await).await;
        let answer = act(&stack, "renew-on-expiry", json!({"report": true})).await;
        let place = |name: &str| format!("s3://{}/report/{name}", bucket(&stack));
        let expected = json!({
            "outcome": "reported", "report": place("report.html"), "data": place("report.json"), "counts": {"good": 1},
        });
        assert_eq!(answer, expected);
        let (text, page) = (object(&stack, "report/report.json").unwrap(), object(&stack, "report/report.html").unwrap());
        assert!(page.contains(&format!("<script type=\"application/json\" id=\"report\">{text}</script>")));
        let told = report(&stack).unwrap();
        assert_eq!(of(&told, "orders")["services"], json!(["payments/orders"]));
        let clients = &told["trust_stores"][0];
        assert_eq!((&clients["trust_store"], &clients["state"]), (&json!("clients"), &json!("good")));
        assert_eq!(clients["certificate_authorities"], json!([{"certificate_authority_arn": stack.issuing_ca, "state": "held"}]));
        assert_eq!(clients["listeners"].as_array().map(Vec::len), Some(1));
        for request in [json!({"report": true, "sweep": true}), json!({"report": true, "certificate": "orders"})] {
            let error = stack.handle("renew-on-expiry", request, "both").await.unwrap_err();
            assert!(error.error_message.contains("give one of"), "{}", error.error_message);
        }
    });
}

/// By its names a person looks for it: of ACM's certificates, ACM says them, to whoever looks first.
#[test]
fn the_names_of_a_certificate_of_acms_are_told_as_soon_as_it_was_looked_at() {
    run(async {
        for function in ["export-to-secrets", "renew-on-expiry"] {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            lose_deliveries(&stack);
            let arn = request(&stack, "gateway", false).await;
            let asks = if function == "export-to-secrets" { json!({"certificate_arn": arn}) } else { json!({"sweep": true}) };
            act(&stack, function, asks).await;
            minutes(1).await;
            act(&stack, "renew-on-expiry", json!({"report": true})).await;
            let (told, acm) =
                (report(&stack).unwrap(), stack.aws.call("acm:DescribeCertificate", json!({"CertificateArn": arn})));
            let (told, acm) = (of(&told, "gateway").clone(), acm.await.unwrap()["Certificate"].clone());
            let names: Vec<_> = acm["SubjectAlternativeNames"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| format!("dns:{}", name.as_str().unwrap()))
                .collect();
            assert_eq!((&told["subject"], &told["names"]), (&acm["Subject"], &json!(names)), "{function}");
            assert_eq!(told["key_algorithm"], "EC_prime256v1", "{function}");
        }
    });
}

/// One of each kind of trouble.
#[test]
fn what_is_told_agrees_with_the_records_and_what_cannot_be_read_is_told_too() {
    run(async {
        let stack = fleet().await;
        let mut paused = order();
        (paused["name"], paused["services"], paused["paused"]) = (json!("paused"), json!([]), json!(true));
        act(&stack, "issue-client-cert", paused).await;
        for name in ["ghost", "broken", "bound"] {
            let services = json!([format!("payments/{name}")]);
            act(&stack, "issue-client-cert", json!({"name": name, "subject": {"common_name": name}, "services": services})).await;
        }
        request(&stack, "gateway", false).await;
        service(&stack, "payments/gateway", &["gateway"]).await;
        days(1).await;
        // Somebody spoils a record and what is known of a service.
        lose_deliveries(&stack);
        let spoil = |id: &str, member: &str| {
            let found = stack.aws.world(|world, _| {
                let mut items = world.dynamodb.items().map(|(table, item)| (table.to_owned(), item.clone()));
                items.find(|(_, item)| item["id"]["S"] == id).unwrap()
            });
            let (table, mut item) = found;
            item[member] = json!({"S": "spoilt"});
            user(&stack, "dynamodb:PutItem", json!({"TableName": table, "Item": item}))
        };
        spoil("certificate#broken", "options").await;
        spoil("service#payments/bound", "state").await;
        let request = json!({"revoke": "orders", "serial_number": stack.record("orders").await.unwrap().current.unwrap().serial, "reason": "SUPERSEDED"});
        act(&stack, "issue-client-cert", request).await;
        act(&stack, "renew-on-expiry", json!({"report": true})).await;
        let told = report(&stack).unwrap();
        assert_eq!(told["counts"], json!({"attention": 2, "due": 2, "good": 1, "paused": 1}));
        for (name, state, reason) in [
            ("bound", "due", "payments/bound is redeployed with the new pair"),
            ("broken", "attention", "failed to read the item of `certificate#broken` in the table"),
            ("gateway", "good", ""),
            ("ghost", "attention", "the service payments/ghost cannot be redeployed: ECS knows no such service"),
            ("orders", "due", "payments/orders is redeployed with the new pair"),
            ("paused", "paused", "it is paused"),
        ] {
            let row = of(&told, name);
            assert_eq!(row["state"], state, "{row}");
            assert!(row["reason"].as_str().unwrap().starts_with(reason), "{row}");
        }
        for name in ["gateway", "ghost", "orders", "paused"] {
            let (row, record) = (of(&told, name), stack.record(name).await.unwrap());
            let current = record.current.unwrap();
            assert_eq!(row["serial_number"], json!(current.serial), "{name}");
            assert_eq!(row["not_after"], json!(current.not_after), "{name}");
            assert_eq!(row["origin"], record.origin.as_str(), "{name}");
        }
        // What a person was told stands there with when.
        let ghost = &of(&told, "ghost")["told"][0];
        assert!(ghost["message"].as_str().unwrap().contains("payments/ghost") && ghost["at"].is_string(), "{ghost}");
    });
}

#[test]
fn a_bucket_that_refuses_the_report_fails_no_sweep_and_is_told_once_a_day() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        days(21).await;
        let refuses = Arc::new(AtomicBool::new(true));
        let still = refuses.clone();
        stack.aws.set_faults(Some(Box::new(move |call| {
            let denied = AwsError { status: 403, ..AwsError::new("AccessDenied", "Access Denied") };
            (call.operation == "PutObject" && still.load(Ordering::Relaxed)).then_some(Fault::Refuse(denied))
        })));
        let since = Since::now(&stack);
        // The first has the daily walk to do.
        for _ in 0..3 {
            let swept = act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
            assert_eq!(swept["outcome"], "swept");
            minutes(60).await;
        }
        let seen = since.seen(&stack);
        assert_eq!((seen.effects.count("Certificate Due"), seen.effects.count("Action Required")), (3, 1), "{}", seen.effects);
        let mut told = seen.events.iter().filter(|event| event["detail-type"] == "Action Required");
        let reason = told.next().unwrap()["detail"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("report-failed: failed to write report/report.json to "), "{reason}");
        let asked = stack.handle("renew-on-expiry", json!({"report": true}), "by request").await.unwrap_err();
        assert!(asked.error_type == "Permanent" && asked.error_message.contains("AccessDenied"), "{}", asked.error_message);
        assert_eq!(report(&stack), None);
        refuses.store(false, Ordering::Relaxed);
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!(of(&report(&stack).unwrap(), "orders")["state"], "due");
    });
}

#[test]
fn no_report_is_written_of_a_table_that_was_lost_before_all_is_found_again() {
    run(async {
        let stack = fleet().await;
        days(1).await;
        lose_deliveries(&stack);
        empty_the_table(&stack).await;
        written(&stack);
        let fails = Arc::new(AtomicBool::new(true));
        let still = fails.clone();
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == "ListSecrets" && still.load(Ordering::Relaxed)).then(|| Fault::Refuse(AwsError::internal()))
        })));
        for _ in 0..2 {
            stack.handle("renew-on-expiry", json!({"sweep": true}), "first").await.unwrap_err();
        }
        fails.store(false, Ordering::Relaxed);
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!(written(&stack), 0);
        minutes(60).await;
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!((written(&stack), &report(&stack).unwrap()["counts"]), (1, &json!({"due": 1})));
    });
}

#[test]
fn a_name_that_is_markup_stays_text_in_the_page() {
    run(async {
        let stack = fleet().await;
        let mut hostile = order();
        (hostile["name"], hostile["subject"]) =
            (json!("hostile"), json!({"common_name": "</script><img src=x onerror=alert(1)>"}));
        act(&stack, "issue-client-cert", hostile).await;
        act(&stack, "renew-on-expiry", json!({"report": true})).await;
        let page = object(&stack, "report/report.html").unwrap();
        assert!(page.contains("\\u003c/script\\u003e\\u003cimg src=x") && !page.contains("<img"), "it is escaped");
        assert_eq!(of(&report(&stack).unwrap(), "hostile")["subject"], "CN=</script><img src=x onerror=alert(1)>");
    });
}
