//! What goes wrong for longer than a call: a lost table, moved labels, lost events, a certificate that cannot be issued.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifecycle::record::{Origin, Record};
use local_aws::{AwsError, Fault};
use records::table::Place;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::{assert_settled, staged};
use crate::scenario::{
    acm_available_renewal, act, days, issue_by_hand, lose_deliveries, minutes, order, request, run, self_signed, service, user,
};

pub(crate) async fn empty_the_table(stack: &Stack) {
    let table = stack.records().settings.table;
    let ids: Vec<Value> = stack.aws.world(|world, _| world.dynamodb.items().map(|(_, item)| item["id"].clone()).collect());
    for id in ids {
        user(stack, "dynamodb:DeleteItem", json!({"TableName": table, "Key": {"id": id}})).await;
    }
}

/// Somebody alters the item of `orders`.
async fn alter_the_record(stack: &Stack, alter: fn(&mut serde_json::Map<String, Value>)) {
    let found = stack.aws.world(|world, _| {
        let mut items = world.dynamodb.items().map(|(table, item)| (table.to_owned(), item.clone()));
        items.find(|(_, item)| item["id"]["S"] == "certificate#orders")
    });
    let (table, mut item) = found.unwrap();
    alter(&mut item);
    user(stack, "dynamodb:PutItem", json!({"TableName": table, "Item": item})).await;
}

/// Two certificates with a service each, one issued and one of ACM's, after a quiet day.
async fn fleet() -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    stack.handle("issue-client-cert", order(), "first").await.unwrap();
    service(&stack, "payments/orders", &["orders"]).await;
    request(&stack, "gateway", false).await;
    service(&stack, "payments/gateway", &["gateway"]).await;
    days(1).await;
    stack.aws.take_events();
    stack.aws.take_calls();
    stack
}

/// How often an event of that type was published since this was last asked for any type, and its reasons.
fn published(stack: &Stack, detail_type: &str) -> Vec<String> {
    let of_type = |event: &Value| event["detail-type"] == detail_type;
    let events = stack.aws.take_events().into_iter().map(|event| event.event).filter(of_type);
    events.map(|event| event["detail"]["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn serial(stack: &Stack, name: &str) -> Option<String> {
    stack.record(name).await?.current.map(|pair| pair.serial.to_string())
}

#[test]
fn a_lost_table_is_rebuilt_from_the_secrets_and_from_acm_and_nothing_is_issued_again() {
    run(async {
        let stack = fleet().await;
        let before = (stack.record("orders").await.unwrap(), stack.record("gateway").await.unwrap());
        empty_the_table(&stack).await;
        assert_eq!(stack.record("orders").await, None);
        stack.aws.take_calls();
        days(1).await;
        let after = (stack.record("orders").await.unwrap(), stack.record("gateway").await.unwrap());
        assert_eq!((&after.0.origin, &after.1.origin), (&before.0.origin, &before.1.origin));
        assert_eq!((&after.0.options, &after.1.options), (&before.0.options, &before.1.options));
        let pair = |record: &Record| record.current.clone().map(|pair| (pair.version_id, pair.serial, pair.issuer));
        assert_eq!((pair(&after.0), pair(&after.1)), (pair(&before.0), pair(&before.1)));
        assert!(after.0.attempts.last >= before.0.attempts.last, "attempts are counted on");
        let bound = stack.records().bindings(&after.0.options.services).await.unwrap();
        assert!(bound.values().all(|binding| binding.certificates == [after.0.name.clone()].into()));
        let calls = stack.aws.take_calls();
        for costly in ["IssueCertificate", "PutSecretValue", "CreateSecret", "RenewCertificate"] {
            assert!(!calls.iter().any(|call| call.operation == costly && call.error.is_none()), "{costly}");
        }
    });
}

#[test]
fn a_walk_that_could_not_read_a_secret_reads_it_at_the_next_sweep_and_not_a_day_later() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        empty_the_table(&stack).await;
        stack.aws.set_faults(Some(Box::new(|call| {
            (call.operation == "GetSecretValue").then_some(Fault::Refuse(AwsError::throttled()))
        })));
        stack.handle("renew-on-expiry", json!({"sweep": true}), "throttled").await.unwrap_err();
        stack.aws.set_faults(None);
        stack.handle("renew-on-expiry", json!({"sweep": true}), "next").await.unwrap();
        assert!(stack.record("orders").await.is_some());
    });
}

#[test]
fn a_walk_that_could_not_look_at_an_altered_record_does_so_at_the_next_sweep_and_not_a_day_later() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        alter_the_record(&stack, |item| item["look_at"]["N"] = json!("1900000000")).await;
        days(1).await;
        stack.aws.set_faults(Some(Box::new(|call| {
            (call.operation == "DescribeSecret").then_some(Fault::Refuse(AwsError::throttled()))
        })));
        stack.handle("renew-on-expiry", json!({"sweep": true}), "throttled").await.unwrap_err();
        stack.aws.set_faults(None);
        stack.handle("renew-on-expiry", json!({"sweep": true}), "next").await.unwrap();
        let look_at = stack.record("orders").await.unwrap().look_at;
        assert!(look_at < (stack.aws.now() + time::Duration::days(2)).unix_timestamp(), "{look_at}");
    });
}

#[test]
fn a_walk_through_an_acm_that_hardly_answers_ends_in_time_and_goes_on_with_the_next_sweep() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        for number in 0..130 {
            let domain = format!("of-others-{number}.example.com");
            let input =
                json!({"DomainName": domain, "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": stack.issuing_ca});
            user(&stack, "acm:RequestCertificate", input).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        days(1).await;
        let slow =
            |call: &local_aws::Call| (call.operation == "ListTagsForCertificate").then_some(Fault::Delay(Duration::from_secs(7)));
        stack.aws.set_faults(Some(Box::new(slow)));
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        let walk = stack.records().walk().await.unwrap();
        assert!(matches!(walk.place, Some(Place::Certificates(Some(_)))), "{walk:?}");
        stack.aws.set_faults(None);
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!(stack.records().walk().await.unwrap().place, None);
    });
}

#[test]
fn where_record_and_secret_differ_the_secret_wins() {
    run(async {
        let stack = fleet().await;
        let mut other = order();
        (other["subject_alternative_names"], other["replace"]) = (json!(["dns:orders.example.com"]), json!(true));
        stack.handle("issue-client-cert", other, "second").await.unwrap();
        days(1).await;
        let (current, previous) = stack.aws.world(|world, _| {
            let secret = world.secrets.find("everleaf/orders").unwrap();
            (staged(secret, "AWSCURRENT").unwrap().id.clone(), staged(secret, "AWSPREVIOUS").unwrap().id.clone())
        });
        let back = json!({"SecretId": "everleaf/orders", "VersionStage": "AWSCURRENT", "MoveToVersionId": previous, "RemoveFromVersionId": current});
        user(&stack, "secretsmanager:UpdateSecretVersionStage", back).await;
        stack.aws.take_events();
        stack.handle("renew-on-expiry", json!({"certificate": "orders"}), "look").await.unwrap();
        let record = stack.record("orders").await.unwrap();
        assert_eq!((record.current.unwrap().version_id, record.previous.unwrap().version_id), (previous, current));
        // The service reads it: its tasks hold the pair that was taken back.
        days(1).await;
        assert_eq!(published(&stack, "Services Redeployed").len(), 1);
    });
}

#[test]
fn a_secret_that_holds_something_else_is_told_once_a_day_and_never_overwritten() {
    run(async {
        let stack = fleet().await;
        user(
            &stack,
            "secretsmanager:PutSecretValue",
            json!({"SecretId": "everleaf/orders", "SecretString": "mine now",
            "ClientRequestToken": "00000000000000000000000000000000"}),
        )
        .await;
        days(3).await;
        let told = published(&stack, "Action Required");
        assert!((3..=4).contains(&told.len()) && told.iter().all(|reason| reason.starts_with("secret-unreadable")), "{told:?}");
        let held =
            stack.aws.world(|world, _| world.secrets.value("everleaf/orders", None, Some("AWSCURRENT")).map(str::to_owned));
        assert_eq!(held.as_deref(), Some("mine now"));
        days(30).await;
        let held =
            stack.aws.world(|world, _| world.secrets.value("everleaf/orders", None, Some("AWSCURRENT")).map(str::to_owned));
        assert_eq!(held.as_deref(), Some("mine now"), "not even when it would have been due");
    });
}

#[test]
fn a_record_that_somebody_altered_is_put_right_within_a_day() {
    run(async {
        let alterations: [fn(&mut serde_json::Map<String, Value>); 3] = [
            |item| {
                item["look_at"]["N"] = json!("1900000000");
                item.retain(|member, _| member != "current" && member != "previous");
            },
            |item| item["look_at"]["N"] = json!("1900000000"),
            |item| item.retain(|member, _| member != "queue"),
        ];
        for alter in alterations {
            let stack = fleet().await;
            let version = async || stack.record("orders").await.unwrap().current.unwrap().version_id;
            let before = version().await;
            alter_the_record(&stack, alter).await;
            days(1).await;
            minutes(90).await;
            assert_eq!(version().await, before);
            days(30).await;
            assert_ne!(version().await, before, "it is renewed");
        }
    });
}

#[test]
fn tags_that_somebody_changed_are_back_within_a_day() {
    run(async {
        let stack = fleet().await;
        let tags = || stack.aws.world(|world, _| world.secrets.find("everleaf/orders").unwrap().tags.clone());
        let before = tags();
        let keys: Vec<_> = before.keys().collect();
        user(&stack, "secretsmanager:UntagResource", json!({"SecretId": "everleaf/orders", "TagKeys": keys})).await;
        let theirs = json!([
            {"Key": "everleaf:serial", "Value": "1"}, {"Key": "everleaf:service-7", "Value": "payments/other"},
            {"Key": "team", "Value": "payments"},
        ]);
        user(&stack, "secretsmanager:TagResource", json!({"SecretId": "everleaf/orders", "Tags": theirs})).await;
        days(1).await;
        minutes(90).await;
        let mut after = tags();
        assert_eq!(after.remove("team").as_deref(), Some("payments"));
        assert_eq!(after, before);
        stack.aws.take_calls();
        days(2).await;
        let written = stack.aws.take_calls().into_iter().filter(|call| call.operation.ends_with("agResource")).count();
        assert_eq!(written, 0, "nothing is written once they are right");
    });
}

#[test]
fn a_tag_of_what_is_not_asked_for_any_more_is_taken_off() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let tags = || stack.aws.world(|world, _| world.secrets.find("everleaf/orders").unwrap().tags.clone());
        let mut asked = order();
        asked["renew_before"] = json!({"days": 9});
        lose_deliveries(&stack);
        stack.handle("issue-client-cert", asked, "first").await.unwrap();
        assert_eq!(tags()["everleaf:renew-before"], "216 hours");
        let mut without = order();
        (without["usage"], without["replace"]) = (json!("server"), json!(true));
        stack.handle("issue-client-cert", without, "without").await.unwrap();
        assert!(!tags().contains_key("everleaf:renew-before"), "{:?}", tags());
    });
}

#[test]
fn a_service_whose_item_somebody_deleted_emptied_or_broke_is_on_the_next_pair_all_the_same() {
    run(async {
        for (what, damaged) in [
            ("deleted", None),
            ("emptied", Some(json!({"revision": {"N": "3"}}))),
            ("broken", Some(json!({"revision": {"N": "3"}, "state": {"S": "?"}, "certificates": {"SS": ["Not A Name"]}}))),
        ] {
            let stack = fleet().await;
            let (table, id) = (stack.records().settings.table, json!({"S": "service#payments/orders"}));
            user(&stack, "dynamodb:DeleteItem", json!({"TableName": table, "Key": {"id": id}})).await;
            if let Some(mut item) = damaged {
                item["id"] = id;
                user(&stack, "dynamodb:PutItem", json!({"TableName": table, "Item": item})).await;
            }
            let before = serial(&stack, "orders").await;
            days(25).await;
            assert_ne!(serial(&stack, "orders").await, before, "{what}");
            assert_settled(&stack, what).await;
        }
    });
}

#[test]
fn what_is_compromised_is_replaced_though_the_hours_budget_is_spent() {
    run(async {
        let stack = Stack::deploy_with(&[("HourlyBudget", "1")]).await;
        lose_deliveries(&stack);
        for name in ["first", "second", "leaked"] {
            let days = if name == "leaked" { 60 } else { 30 };
            let request =
                json!({"name": name, "subject": {"common_name": name}, "validity": {"days": days}, "renew_before": {"days": 15}});
            stack.handle("issue-client-cert", request, name).await.unwrap();
        }
        days(16).await;
        stack.aws.take_events();
        let leaked = serial(&stack, "leaked").await;
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "IssueCertificate").then_some(Fault::Reset))));
        let revoke = json!({"revoke": "leaked", "serial_number": leaked, "reason": "KEY_COMPROMISE"});
        stack.handle("issue-client-cert", revoke, "leaked").await.unwrap_err();
        stack.aws.set_faults(None);
        minutes(30).await;
        stack.aws.take_events();
        stack.handle("renew-on-expiry", json!({"sweep": true}), "sweep").await.unwrap();
        let due: Vec<_> = stack.aws.take_events().into_iter().filter(|it| it.event["detail-type"] == "Certificate Due").collect();
        let names: BTreeSet<_> = due.iter().map(|it| it.event["detail"]["certificate"].as_str().unwrap()).collect();
        assert!(names.contains("leaked") && names.len() == 2, "{names:?}");
    });
}

#[test]
fn a_certificate_of_acm_that_has_lost_its_tag_is_told_once_a_day_and_nothing_is_asked_for() {
    run(async {
        let stack = fleet().await;
        let arn = json!(stack.record("gateway").await.unwrap().origin)["certificate_arn"].clone();
        let tag = json!([{"Key": "everleaf:certificate", "Value": "everleaf/gateway"}]);
        user(&stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
        let before = serial(&stack, "gateway").await;
        days(3).await;
        let events: Vec<Value> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
        assert!(events.iter().all(|event| event["detail-type"] != "Export Due"), "{events:#?}");
        let told: Vec<_> = events.iter().filter(|event| event["detail-type"] == "Action Required").collect();
        let untagged = |event: &&Value| {
            let reason = event["detail"]["reason"].as_str().unwrap();
            reason.starts_with("acm-untagged: ") && reason.contains(arn.as_str().unwrap()) && reason.contains("`gateway`")
        };
        assert!((3..=4).contains(&told.len()) && told.iter().all(untagged), "{told:#?}");
        let by_hand = json!({"certificate": "gateway"});
        let refusal = stack.handle("export-to-secrets", by_hand, "by hand").await.unwrap_err().error_message;
        assert!(refusal.contains(arn.as_str().unwrap()) && refusal.contains("tag it, then ask again"), "{refusal}");

        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
        days(2).await;
        assert_ne!(serial(&stack, "gateway").await, before);
    });
}

/// Nothing tells of it.
#[test]
fn a_certificate_of_acm_that_is_given_another_name_is_managed_under_that_one_within_a_day_or_two() {
    run(async {
        for moved in [false, true] {
            let stack = fleet().await;
            let arn = json!(stack.record("gateway").await.unwrap().origin)["certificate_arn"].clone();
            let tag = |name: &str| json!([{"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")}]);
            user(&stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": arn, "Tags": tag("gateway")})).await;
            if moved {
                let input = json!({
                    "DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1",
                    "CertificateAuthorityArn": stack.issuing_ca, "Tags": tag("gateway"),
                });
                user(&stack, "acm:RequestCertificate", input).await;
                days(2).await;
            }
            user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tag("portal")})).await;
            days(2).await;
            let portal = stack.record("portal").await.expect("it is managed");
            assert_eq!(json!(portal.origin)["certificate_arn"], arn);
            assert!(portal.current.is_some());
        }
    });
}

#[test]
fn what_was_imported_by_hand_and_is_given_another_name_is_adopted_under_that_one_within_a_day() {
    run(async {
        let stack = fleet().await;
        let arn = self_signed(&stack, "web", 90).await;
        days(1).await;
        assert!(stack.record("web").await.unwrap().is_adopted());
        lose_deliveries(&stack);
        let tags = json!([{"Key": "everleaf:certificate", "Value": "everleaf/front"}]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tags})).await;
        days(1).await;
        for _ in 0..2 {
            act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        }
        assert!(stack.record("front").await.expect("the walk finds it").is_adopted());
    });
}

#[test]
fn one_bad_item_in_a_sweep_fails_alone_and_is_named() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        let table = stack.records().settings.table;
        let bad = json!({"id": {"S": "certificate#broken"}, "queue": {"S": "certificates"}, "look_at": {"N": "1"}, "revision": {"N": "7"}});
        user(&stack, "dynamodb:PutItem", json!({"TableName": table, "Item": bad})).await;
        days(25).await;
        let error = stack.handle("renew-on-expiry", json!({"sweep": true}), "sweep").await.unwrap_err();
        assert!(error.error_type == "Permanent" && error.error_message.contains("certificate#broken"), "{error:?}");
        assert_eq!(published(&stack, "Certificate Due").len(), 1, "the others were looked at");
    });
}

#[test]
fn with_every_event_of_aws_lost_the_sweep_carries_everything() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[("SweepMinutes", "240")]).await;
        // What AWS says never arrives; schedules and our own events do.
        stack.aws.set_deliveries(Some(Box::new(|event, _| match event["source"].as_str() {
            Some(source) if source.starts_with("aws.") => Vec::new(),
            _ => vec![Duration::ZERO],
        })));
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        service(&stack, "payments/orders", &["orders"]).await;
        request(&stack, "gateway", false).await;
        service(&stack, "payments/gateway", &["gateway"]).await;
        days(2).await;
        let first =
            (serial(&stack, "orders").await.unwrap(), serial(&stack, "gateway").await.expect("exported by the daily walk"));
        days(345).await;
        let second = (serial(&stack, "orders").await.unwrap(), serial(&stack, "gateway").await.unwrap());
        assert!(first.0 != second.0 && first.1 != second.1, "both were renewed: {first:?} {second:?}");
        for (service, name) in [("orders", "orders"), ("gateway", "gateway")] {
            let (holds, current) = stack.aws.world(|world, _| {
                let holds = world.ecs.running_values("payments", service);
                let current = world.secrets.value(&format!("everleaf/{name}"), None, Some("AWSCURRENT")).unwrap().to_owned();
                (holds, serde_json::from_str::<Value>(&current).unwrap())
            });
            assert!(!holds.is_empty() && holds.iter().all(|task| current["certificate"] == json!(task[name])), "{service}");
        }
    });
}

#[test]
fn a_permanent_failure_is_told_once_a_day_its_input_waits_and_all_is_well_once_it_is_mended() {
    run(async {
        let stack = fleet().await;
        let first = serial(&stack, "orders").await;
        let ca = stack.issuing_ca.clone();
        stack.aws.world(|world, now| local_aws::pca::enable(world, now, &ca, false)).unwrap();
        // Due after twenty days; three days without a CA.
        days(23).await;
        let told: Vec<_> =
            published(&stack, "Action Required").into_iter().filter(|reason| reason.starts_with("issue-failed")).collect();
        assert!((2..=4).contains(&told.len()), "{told:#?}");
        assert!(told.iter().all(|reason| reason.contains("make the CA active again")), "{told:#?}");
        let readable =
            |reason: &String| reason.contains("InvalidStateException: ") && !reason.contains('{') && reason.len() < 500;
        assert!(told.iter().all(readable), "what AWS said, on a line: {told:#?}");
        let queue = stack.template.function("issue-client-cert").unwrap().on_failure_queue_arn.clone().unwrap();
        let waiting =
            stack.aws.world(|world, _| world.sqs.messages(&queue).iter().map(|message| message.body.clone()).collect::<Vec<_>>());
        assert_eq!(waiting.len(), told.len(), "each failed input waits");
        stack.aws.world(|world, now| local_aws::pca::enable(world, now, &ca, true)).unwrap();
        let input: Value = serde_json::from_str::<Value>(&waiting[0]).unwrap()["requestPayload"].clone();
        let answer = stack.handle("issue-client-cert", input, "redrive").await.unwrap();
        assert_eq!(answer["outcome"], "issued");
        assert_ne!(serial(&stack, "orders").await, first);
        assert_eq!(stack.record("orders").await.unwrap().halted, None);
    });
}

#[test]
fn what_failed_for_good_is_one_of_the_five_a_day_however_often_lambda_repeats_it() {
    run(async {
        let stack = fleet().await;
        stack.aws.set_faults(Some(Box::new(|call| {
            let refused = AwsError::new("AccessDeniedException", "Somebody took the right away.");
            let is_asked = ["IssueCertificate", "ExportCertificate"].contains(&call.operation.as_str());
            is_asked.then_some(Fault::Refuse(refused))
        })));
        let Origin::Exported { certificate_arn } = stack.record("gateway").await.unwrap().origin else {
            panic!("it is not ACM's")
        };
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": certificate_arn})).await;
        minutes(60).await;
        let mut replace = order();
        (replace["replace"], replace["validity"]) = (json!(true), json!({"days": 20}));
        for (function, name, request) in
            [("issue-client-cert", "orders", replace), ("export-to-secrets", "gateway", json!({"certificate": "gateway"}))]
        {
            let mut counted = Vec::new();
            for _ in 0..3 {
                let failed = stack.handle(function, request.clone(), "repeated").await.unwrap_err();
                assert_eq!(failed.error_type, "Permanent", "{name}");
                assert!(failed.error_message.contains("Somebody took the right away."), "{name}: {failed:?}");
                counted.push(stack.record(name).await.unwrap().attempts.on_day);
                minutes(2).await;
            }
            stack.handle(function, request, "another").await.unwrap_err();
            counted.push(stack.record(name).await.unwrap().attempts.on_day);
            assert_eq!(counted, [counted[0], counted[0], counted[0], counted[0] + 1], "{name}");
        }
    });
}

#[test]
fn what_keeps_failing_is_tried_five_times_a_day_and_then_a_person_is_told() {
    run(async {
        let stack = fleet().await;
        let first = serial(&stack, "orders").await;
        days(18).await;
        stack.aws.take_calls();
        stack.aws.take_events();
        // The CA takes each order and comes to nothing.
        stack.aws.set_faults(Some(Box::new(|call| {
            let failed = AwsError::new("RequestFailedException", "The certificate could not be issued.");
            (call.operation == "GetCertificate").then_some(Fault::Refuse(failed))
        })));
        days(5).await;
        let calls = stack.aws.take_calls();
        let orders = calls.iter().filter(|call| call.operation == "IssueCertificate" && call.error.is_none());
        let mut by_day: BTreeMap<_, usize> = BTreeMap::new();
        orders.for_each(|call| *by_day.entry(call.at.date()).or_default() += 1);
        assert!((2..=5).contains(&by_day.len()) && by_day.values().all(|orders| *orders <= 5), "{by_day:?}");
        assert!(by_day.values().any(|orders| *orders == 5), "{by_day:?}");
        let told = published(&stack, "Action Required");
        let exhausted = told.iter().filter(|reason| reason.starts_with("attempts-exhausted")).count();
        assert!((by_day.len() - 1..=by_day.len()).contains(&exhausted), "{by_day:?} {told:#?}");
        assert_eq!(serial(&stack, "orders").await, first);
        stack.aws.set_faults(None);
        days(1).await;
        assert_ne!(serial(&stack, "orders").await, first);
    });
}

#[test]
fn certificates_that_change_together_share_one_deployment() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        for name in ["left", "right"] {
            let request = json!({"name": name, "subject": {"common_name": name}, "services": ["payments/both"]});
            stack.handle("issue-client-cert", request, name).await.unwrap();
        }
        service(&stack, "payments/both", &["left", "right"]).await;
        for name in ["left", "right"] {
            let request = json!({"name": name, "subject": {"common_name": name}, "services": ["payments/both"], "usage": "server", "replace": true});
            stack.handle("issue-client-cert", request, "again").await.unwrap();
        }
        stack.aws.take_calls();
        for name in ["left", "right"] {
            stack.handle("force-redeploy", json!({"certificate": name}), name).await.unwrap();
        }
        let deployments = stack.aws.take_calls().iter().filter(|call| call.operation == "UpdateService").count();
        assert_eq!(deployments, 1);
    });
}

#[test]
fn a_service_that_cannot_be_deployed_fails_alone_and_says_why() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        service(&stack, "payments/good", &[]).await;
        service(&stack, "payments/ended", &[]).await;
        user(
            &stack,
            "ecs:CreateService",
            json!({"cluster": "payments", "serviceName": "other", "taskDefinition": "good", "desiredCount": 1,
            "deploymentController": {"type": "CODE_DEPLOY"}}),
        )
        .await;
        user(&stack, "ecs:DeleteService", json!({"cluster": "payments", "service": "ended", "force": true})).await;
        minutes(2).await;
        let services = ["payments/good", "payments/ended", "payments/other", "payments/never", "nowhere/never"];
        let request = json!({"name": "shared", "subject": {"common_name": "shared"}, "services": services});
        stack.handle("issue-client-cert", request, "first").await.unwrap();
        stack.aws.take_calls();
        let error = stack.handle("force-redeploy", json!({"certificate": "shared"}), "first").await.unwrap_err();
        assert_eq!(error.error_type, "Permanent");
        for (service, why) in [
            ("payments/ended", "remove it from the certificate"),
            ("payments/other", "CODE_DEPLOY"),
            ("payments/never", "no such service"),
            ("nowhere/never", "no such service"),
        ] {
            let said = error.error_message.split("; failed to").any(|part| part.contains(service) && part.contains(why));
            assert!(said, "{service}: {}", error.error_message);
        }
        let deployed: Vec<_> = stack
            .aws
            .take_calls()
            .into_iter()
            .filter(|call| call.operation == "UpdateService")
            .map(|call| call.input["service"].clone())
            .collect();
        assert_eq!(deployed, ["good"]);
        let told = published(&stack, "Action Required");
        assert!(!told.is_empty() && told.iter().all(|reason| reason.starts_with("service-refused")), "{told:?}");
    });
}

#[test]
fn the_sweep_asks_for_no_more_than_the_hours_budget_soonest_expiry_first() {
    run(async {
        let stack = Stack::deploy_with(&[("HourlyBudget", "10")]).await;
        lose_deliveries(&stack);
        for index in 0..14 {
            let name = format!("fleet-{index:02}");
            let days = if index < 7 { 31 } else { 30 };
            let request =
                json!({"name": name, "subject": {"common_name": name}, "validity": {"days": days}, "renew_before": {"days": 15}});
            stack.handle("issue-client-cert", request, &name).await.unwrap();
        }
        days(20).await;
        stack.aws.take_events();
        stack.handle("renew-on-expiry", json!({"sweep": true}), "first").await.unwrap();
        let events: Vec<Value> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
        let of = |detail_type: &str, member: &str| {
            let of_type = events.iter().filter(|event| event["detail-type"] == detail_type);
            of_type.map(|event| event["detail"][member].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let asked = of("Certificate Due", "certificate");
        let told = of("Action Required", "reason");
        assert!(told.len() == 1 && told[0].starts_with("budget-spent: more than 10 certificates"), "{told:?}");
        assert_eq!(asked.len(), 10);
        let soonest: Vec<String> = (7..14).map(|index| format!("fleet-{index:02}")).collect();
        assert!(soonest.iter().all(|name| asked[..7].contains(name)), "{asked:?}");
        stack.handle("renew-on-expiry", json!({"sweep": true}), "again").await.unwrap();
        assert_eq!(published(&stack, "Action Required"), Vec::<String>::new(), "once a day");
        minutes(60).await;
        stack.handle("renew-on-expiry", json!({"sweep": true}), "second").await.unwrap();
        assert!(published(&stack, "Certificate Due").len() >= 4, "the rest comes in the next hour");
    });
}

#[test]
fn a_plan_says_what_the_sweep_would_do_and_touches_nothing() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        days(22).await;
        let ask = |event: Value| stack.handle("renew-on-expiry", event, "plan");
        let items = || stack.aws.world(|world, _| world.dynamodb.items().map(|(_, item)| json!(item)).collect::<Vec<_>>());
        let before = items();
        stack.aws.take_calls();
        stack.aws.take_events();
        let plan = ask(json!({"plan": true})).await.unwrap();
        assert_eq!(
            (&plan["outcome"], &plan["looked_at"], &plan["failed"]),
            (&json!("planned"), &json!(2), &json!([])),
            "{plan:#}"
        );
        assert_eq!(plan["certificates"].as_array().unwrap().len(), 1, "{plan:#}");
        assert_eq!(plan["certificates"][0]["certificate"], "orders");
        let step = plan["certificates"][0]["steps"][0].as_str().unwrap();
        assert!(step.starts_with("issue a new pair: expires "), "{step}");
        assert!(plan["text"].as_str().unwrap().starts_with(&format!("orders: {step}; next look ")), "{plan:#}");
        let one = ask(json!({"plan": true, "certificate": "gateway"})).await.unwrap();
        assert_eq!(one["certificates"][0]["steps"], json!([]));
        let after = items();
        assert_eq!(before, after);
        let writes: Vec<_> = stack.aws.take_calls().into_iter().filter(|call| call.writes()).map(|call| call.action()).collect();
        assert!(
            writes.is_empty() && stack.aws.take_events().iter().all(|event| event.event["source"] != "everleaf"),
            "{writes:?}"
        );

        // What it said is what is done.
        let done = ask(json!({"certificate": "orders"})).await.unwrap();
        assert!(done["steps"][0].as_str().unwrap().contains(step.split_once(": ").unwrap().1), "{done:#}");
    });
}

#[test]
fn a_request_repeated_after_the_table_was_lost_finds_the_secret_as_it_is() {
    run(async {
        let stack = Stack::deploy().await;
        act(&stack, "issue-client-cert", order()).await;
        days(1).await;
        let before = stack.record("orders").await.unwrap();
        empty_the_table(&stack).await;
        stack.aws.take_calls();
        assert_eq!(act(&stack, "issue-client-cert", order()).await["outcome"], "unchanged");
        assert!(!stack.aws.take_calls().iter().any(|call| call.operation == "IssueCertificate"));
        let after = stack.record("orders").await.unwrap();
        let serial = |record: &Record| record.current.as_ref().map(|pair| pair.serial.clone());
        assert_eq!((serial(&after), &after.options), (serial(&before), &before.options));
    });
}

/// Without the secret there is no key: what the record says of it is of no use to anybody.
#[test]
fn the_same_name_on_the_same_ca_within_minutes_has_a_certificate_of_its_own() {
    run(async {
        // For the CA, the stack without table and secret is that of another account which shares it, with the same prefix.
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let first = act(&stack, "issue-client-cert", order()).await;
        empty_the_table(&stack).await;
        let gone = json!({"SecretId": "everleaf/orders", "ForceDeleteWithoutRecovery": true});
        user(&stack, "secretsmanager:DeleteSecret", gone).await;
        minutes(2).await;
        let second = act(&stack, "issue-client-cert", order()).await;
        assert_eq!((&first["outcome"], &second["outcome"]), (&json!("issued"), &json!("issued")));
        assert_ne!(first["serial_number"], second["serial_number"]);
        let asked = stack.aws.take_calls().iter().filter(|call| call.operation == "IssueCertificate").count();
        assert_eq!(asked, 2);
    });
}

#[test]
fn a_secret_that_is_gone_for_good_is_made_anew_for_whoever_asks_with_replace_as_the_advice_says() {
    run(async {
        let mut other = order();
        other["subject_alternative_names"] = json!(["dns:orders.example.com"]);
        let acms = json!({"certificate": "gateway"});
        for (name, function, mut asked, outcome) in [
            ("orders", "issue-client-cert", order(), "issued"),
            ("orders", "issue-client-cert", other, "issued"),
            ("gateway", "export-to-secrets", acms, "exported"),
        ] {
            let stack = fleet().await;
            let gone = json!({"SecretId": format!("everleaf/{name}"), "ForceDeleteWithoutRecovery": true});
            user(&stack, "secretsmanager:DeleteSecret", gone).await;
            days(1).await;
            let told = published(&stack, "Action Required");
            let advice =
                |reason: &String| ["secret-missing: ", function, "\"replace\": true"].iter().all(|part| reason.contains(part));
            assert!(!told.is_empty() && told.iter().all(advice), "{told:#?}");
            asked["replace"] = json!(true);
            if function == "issue-client-cert" {
                let planned = Value::Object(
                    [("dry_run".to_owned(), json!(true))].into_iter().chain(asked.as_object().unwrap().clone()).collect(),
                );
                stack.aws.take_calls();
                assert_eq!(act(&stack, function, planned).await["outcome"], "planned");
                assert!(!stack.aws.take_calls().iter().any(local_aws::Call::writes));
            }
            let answer = act(&stack, function, asked.clone()).await;
            let (arn, version) = stack.aws.world(|world, _| {
                let secret = world.secrets.find(&format!("everleaf/{name}")).unwrap();
                (secret.arn.clone(), staged(secret, "AWSCURRENT").unwrap().id.clone())
            });
            let expected = (&json!(outcome), &json!(arn), &json!(version));
            assert_eq!((&answer["outcome"], &answer["secret_arn"], &answer["version_id"]), expected, "{answer}");
            days(2).await;
            assert_settled(&stack, name).await;
            assert_eq!(act(&stack, function, asked).await["outcome"], "unchanged");
            assert_eq!(published(&stack, "Action Required"), [""; 0]);
        }
    });
}

#[test]
fn a_crash_while_a_secret_is_made_anew_leaves_nothing_for_a_person() {
    run(async {
        for (name, function, mut asked) in
            [("orders", "issue-client-cert", order()), ("gateway", "export-to-secrets", json!({"certificate": "gateway"}))]
        {
            let stack = fleet().await;
            let gone = json!({"SecretId": format!("everleaf/{name}"), "ForceDeleteWithoutRecovery": true});
            user(&stack, "secretsmanager:DeleteSecret", gone).await;
            minutes(1).await;
            asked["replace"] = json!(true);
            stack.aws.set_faults(Some(Box::new(|call| (call.operation == "CreateSecret").then_some(Fault::Crash))));
            tokio::select! {
                () = stack.aws.hung() => {}
                answer = stack.handle(function, asked, "first") => panic!("{answer:?}"),
            }
            stack.aws.set_faults(None);
            days(2).await;
            assert_settled(&stack, name).await;
            assert_eq!(published(&stack, "Action Required"), [""; 0]);
        }
    });
}

#[test]
fn what_aws_does_not_know_yet_is_tried_again() {
    run(async {
        // A secret right after it was created, and a certificate of ACM's right after its renewal.
        for (scenario, operation, code, outcome) in [
            (issue_by_hand(), "PutSecretValue", "ResourceNotFoundException", Err("Retryable")),
            (acm_available_renewal(), "ExportCertificate", "ValidationException", Ok("exported")),
        ] {
            let (stack, event) = scenario.begin().await;
            let mut refused = 0;
            stack.aws.set_faults(Some(Box::new(move |call| {
                refused += usize::from(call.operation == operation);
                (call.operation == operation && refused <= 1).then(|| Fault::Refuse(AwsError::new(code, "not yet")))
            })));
            let answer = stack.handle(scenario.function, event.clone(), "first").await;
            let said =
                answer.as_ref().map(|answer| answer["outcome"].as_str().unwrap()).map_err(|error| error.error_type.as_str());
            assert_eq!(said, outcome, "{operation}");
            minutes(1).await;
            stack.handle(scenario.function, event, "first").await.unwrap();
        }
    });
}

#[test]
fn what_a_sweep_does_not_use_of_the_hours_budget_is_there_for_the_next_one() {
    run(async {
        let stack = Stack::deploy_with(&[("HourlyBudget", "10")]).await;
        lose_deliveries(&stack);
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        days(25).await;
        act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
        assert_eq!(published(&stack, "Certificate Due").len(), 1);
        assert_eq!(stack.records().take_from_budget(10, 10, stack.aws.now()).await.unwrap(), (9, 0));
    });
}

#[test]
fn no_budget_is_so_large_that_nothing_is_granted() {
    run(async {
        let stack = Stack::deploy().await;
        let granted = stack.records().take_from_budget(10, u32::MAX, stack.aws.now()).await;
        assert_eq!(granted.ok(), Some((10, u32::MAX - 10)));
    });
}

#[test]
fn what_is_late_is_not_kept_waiting_by_what_has_used_the_hours_budget_up() {
    run(async {
        let stack = Stack::deploy_with(&[("HourlyBudget", "10")]).await;
        let issue = async |name: &str, validity: Value| {
            let request = json!({"name": name, "subject": {"common_name": name}, "validity": validity});
            stack.handle("issue-client-cert", request, name).await.unwrap();
        };
        // What a day's budget does not reach fills a page of the table's index.
        for index in 0..220 {
            issue(&format!("fleet-{index:03}"), json!({"days": 30})).await;
        }
        lose_deliveries(&stack);
        days(20).await;
        issue("short", json!({"hours": 24})).await;
        let (first, mut swept) = (serial(&stack, "short").await, 0);
        while serial(&stack, "short").await == first && swept < 24 {
            minutes(60).await;
            swept += 1;
            stack.aws.take_events();
            act(&stack, "renew-on-expiry", json!({"sweep": true})).await;
            // Of what is asked for nothing is done but this: the others stay due.
            for event in stack.aws.take_events().into_iter().map(|event| event.event) {
                if event["detail-type"] == "Certificate Due" && event["detail"]["certificate"] == "short" {
                    act(&stack, "issue-client-cert", event).await;
                }
            }
        }
        assert!((16..22).contains(&swept), "{swept}");
    });
}

#[test]
fn what_lives_for_hours_is_renewed_all_day() {
    run(async {
        let stack = Stack::deploy_with(&[("SweepMinutes", "15")]).await;
        let request = json!({"name": "short", "subject": {"common_name": "short"}, "validity": {"hours": 3}});
        stack.handle("issue-client-cert", request, "first").await.unwrap();
        let mut serials = BTreeSet::new();
        for _ in 0..2 * 24 * 4 {
            minutes(15).await;
            let current = stack.record("short").await.unwrap().current.unwrap();
            assert!(current.is_valid_at(stack.aws.now()), "{} at {}", current.serial, stack.aws.now());
            serials.insert(current.serial);
        }
        assert!(serials.len() > 20, "{}", serials.len());
    });
}

#[test]
fn what_a_ca_failed_to_issue_is_still_asked_for_whoever_comes_next() {
    run(async {
        for by_hand in [true, false] {
            let stack = fleet().await;
            let before = serial(&stack, "orders").await;
            let mut other = order();
            (other["usage"], other["replace"]) = (json!("server"), json!(true));
            stack.aws.set_faults(Some(Box::new(|call| {
                let failed = || Fault::Refuse(AwsError::new("RequestFailedException", "the request failed"));
                (call.operation == "GetCertificate").then(failed)
            })));
            let failure = stack.handle("issue-client-cert", other.clone(), "first").await.unwrap_err();
            assert_eq!(failure.error_type, "Retryable", "{}", failure.error_message);
            stack.aws.set_faults(None);
            if by_hand {
                assert_eq!(stack.handle("issue-client-cert", other, "first").await.unwrap()["outcome"], "issued");
            } else {
                minutes(3 * 60).await;
            }
            let record = stack.record("orders").await.unwrap();
            assert!(record.attempt.is_none() && serial(&stack, "orders").await != before, "{by_hand}");
        }
    });
}

/// Else its tags would be written over those of the next pair.
#[test]
fn tags_are_written_before_the_next_pair_is_asked_for() {
    run(async {
        let stack = fleet().await;
        lose_deliveries(&stack);
        days(21).await;
        let tags = json!({"SecretId": "everleaf/orders", "TagKeys": ["everleaf:serial"]});
        user(&stack, "secretsmanager:UntagResource", tags).await;
        stack.aws.take_calls();
        act(&stack, "renew-on-expiry", json!({"certificate": "orders"})).await;
        let calls = stack.aws.take_calls().into_iter().map(|call| call.operation);
        let both: Vec<_> = calls.filter(|operation| ["TagResource", "PutEvents"].contains(&operation.as_str())).collect();
        assert_eq!(both, ["TagResource", "PutEvents"]);
    });
}

#[test]
fn a_version_that_was_written_and_is_not_there_yet_is_read_again() {
    run(async {
        // A key of ours, and a pair of ACM's, whose key has other bytes at each export: whoever finds one written goes on with it.
        for (scenario, outcome) in [(issue_by_hand(), "issued"), (acm_available_renewal(), "exported")] {
            let (stack, event) = scenario.begin().await;
            stack.aws.set_faults(Some(Box::new(|call| (call.operation == "PutSecretValue").then_some(Fault::Crash))));
            tokio::select! {
                () = stack.aws.hung() => {}
                answer = stack.handle(scenario.function, event.clone(), "first") => panic!("{answer:?}"),
            }
            minutes(3).await;
            stack.aws.set_faults(Some(Box::new(|call| {
                let not_yet = || Fault::Refuse(AwsError::new("ResourceNotFoundException", "not yet"));
                (call.operation == "GetSecretValue").then(not_yet)
            })));
            let failure = stack.handle(scenario.function, event.clone(), "second").await.unwrap_err();
            assert_eq!(failure.error_type, "Retryable", "{outcome}: {}", failure.error_message);
            minutes(3).await;
            stack.aws.set_faults(None);
            assert_eq!(stack.handle(scenario.function, event, "second").await.unwrap()["outcome"], outcome);
        }
    });
}
