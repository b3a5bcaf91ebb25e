//! A certificate that is not wanted any more: nothing is left of it but what can be restored.

use lifecycle::leaf::Serial;
use local_aws::{AwsError, Fault};
use records::table::Saved;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::imported;
use crate::scenario::{days, lose_deliveries, minutes, order, order_for_listener, request, run, service, user};

async fn issued() -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[("CrlBucketArns", "arn:aws:s3:::crls")]).await;
    stack.aws.world(|world, now| {
        local_aws::s3::create_bucket(world, "crls");
        local_aws::pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
    });
    service(&stack, "payments/orders", &["orders"]).await;
    stack.handle("issue-client-cert", order(), "first").await.unwrap();
    days(25).await;
    stack.aws.take_events();
    stack.aws.take_calls();
    stack
}

/// Whether the secret is there, and not on its way out.
async fn lives(stack: &Stack, name: &str) -> bool {
    let secret = user(stack, "secretsmanager:DescribeSecret", json!({"SecretId": format!("everleaf/{name}")})).await;
    secret["DeletedDate"].is_null()
}

async fn quiet(stack: &Stack) {
    stack.aws.take_events();
    days(3).await;
    let loud = |event: &Value| event["source"] == "everleaf" || event["detail-type"] == "ECS Deployment State Change";
    let events: Vec<Value> = stack.aws.take_events().into_iter().map(|event| event.event).filter(loud).collect();
    assert!(events.is_empty(), "{events:#?}");
}

#[test]
fn what_is_retired_is_revoked_where_asked_and_left_alone_until_somebody_restores_it() {
    run(async {
        let stack = issued().await;
        let record = stack.record("orders").await.unwrap();
        let serials = [record.current.unwrap().serial, record.previous.unwrap().serial];
        let mut ask = json!({"retire": "orders", "reason": "CESSATION_OF_OPERATION", "dry_run": true});
        let planned = stack.handle("issue-client-cert", ask.clone(), "plan").await.unwrap();
        assert_eq!(
            (&planned["outcome"], &planned["revoked"], &planned["services"]),
            (&json!("planned"), &json!(serials), &json!(["payments/orders"]))
        );
        assert!(lives(&stack, "orders").await && stack.aws.take_calls().iter().all(|call| !call.writes()));

        ask["dry_run"] = json!(false);
        let retired = stack.handle("issue-client-cert", ask.clone(), "retire").await.unwrap();
        assert_eq!((&retired["outcome"], &retired["revoked"]), (&json!("retired"), &json!(serials)));
        assert!(retired["deleted"].as_str().is_some(), "{retired:#}");
        let revoked = stack.aws.take_calls().iter().filter(|call| call.operation == "RevokeCertificate").count();
        assert_eq!((revoked, lives(&stack, "orders").await, stack.record("orders").await.is_none()), (2, false, true));
        let services = ["payments/orders".parse().unwrap()];
        let bound = stack.records().bindings(&services).await.unwrap();
        assert!(bound.values().all(|binding| binding.certificates.is_empty()));
        quiet(&stack).await;
        let again = stack.handle("issue-client-cert", ask, "again").await.unwrap_err();
        assert!(again.error_message.contains("there is no such certificate"), "{again:?}");

        user(&stack, "secretsmanager:RestoreSecret", json!({"SecretId": "everleaf/orders"})).await;
        days(2).await;
        assert!(stack.record("orders").await.is_some_and(|record| record.current.is_some()), "it is managed again");
    });
}

/// `orders` is to be revoked after its rollout, which does not come; its serial.
async fn to_be_revoked(stack: &Stack) -> Serial {
    let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
    stack.aws.set_deliveries(None);
    let revoke = json!({"revoke": "orders", "serial_number": serial, "reason": "SUPERSEDED"});
    assert_eq!(stack.handle("issue-client-cert", revoke, "revoke").await.unwrap()["outcome"], "recorded");
    stack.aws.take_calls();
    serial
}

#[test]
fn what_was_to_be_revoked_after_its_rollout_is_revoked_before_it_is_forgotten() {
    run(async {
        let stack = issued().await;
        let serial = to_be_revoked(&stack).await;
        let retired = stack.handle("issue-client-cert", json!({"retire": "orders"}), "retire").await.unwrap();
        assert_eq!(retired["revoked"], json!([serial]));
        let calls = stack.aws.take_calls();
        let revoked: Vec<_> = calls.iter().filter(|call| call.operation == "RevokeCertificate").collect();
        assert_eq!(revoked.len(), 1);
        assert_eq!(revoked[0].input["RevocationReason"], "SUPERSEDED");
    });
}

#[test]
fn a_certificate_of_acm_stays_there_without_its_tag() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = request(&stack, "gateway", false).await;
        days(1).await;
        assert!(stack.record("gateway").await.is_some());
        stack.handle("issue-client-cert", json!({"retire": "gateway"}), "retire").await.unwrap();
        minutes(1).await;
        quiet(&stack).await;
        assert!(!lives(&stack, "gateway").await && stack.record("gateway").await.is_none());
        let tags = user(&stack, "acm:ListTagsForCertificate", json!({"CertificateArn": arn})).await;
        assert_eq!(tags["Tags"], json!([{"Key": "everleaf:service-1", "Value": "payments/gateway"}]));
    });
}

#[test]
fn what_has_lost_its_tag_in_acm_can_be_retired_though_the_role_has_no_right_over_it_any_more() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = request(&stack, "gateway", false).await;
        days(1).await;
        let moved = json!([{"Key": "everleaf:certificate", "Value": "everleaf/other"}]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": moved})).await;
        let denied = AwsError::new("AccessDeniedException", "User is not authorized to perform this");
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == "RemoveTagsFromCertificate").then(|| Fault::Refuse(denied.clone()))
        })));
        stack.handle("issue-client-cert", json!({"retire": "gateway"}), "retire").await.unwrap();
        assert!(!lives(&stack, "gateway").await && stack.record("gateway").await.is_none());
        let tags = user(&stack, "acm:ListTagsForCertificate", json!({"CertificateArn": arn})).await;
        assert!(tags["Tags"].as_array().unwrap().contains(&moved[0]), "the name that it has now is kept");
    });
}

#[test]
fn what_acm_was_asked_to_import_and_never_said_is_let_go_of_too() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "ImportCertificate").then_some(Fault::Crash))));
        tokio::select! {
            () = stack.aws.hung() => {}
            answer = stack.handle("issue-client-cert", order_for_listener(), "first") => panic!("{answer:?}"),
        }
        stack.aws.set_faults(None);
        let ask = json!({"retire": "orders"});
        let busy = stack.handle("issue-client-cert", ask.clone(), "at once").await.unwrap_err();
        assert_eq!(busy.error_type, "Retryable", "{busy:?}");
        minutes(3).await;
        let left = imported(&stack, "orders").await;
        let retired = stack.handle("issue-client-cert", ask, "retire").await.unwrap();
        assert_eq!((left.len(), &retired["acm_certificate_arn"]), (1, &left[0]["CertificateArn"]));
        assert!(imported(&stack, "orders").await.is_empty());
        stack.aws.set_deliveries(None);
        days(2).await;
        assert_eq!(stack.record("orders").await, None);
    });
}

#[test]
fn what_somebody_has_changed_meanwhile_is_not_forgotten() {
    run(async {
        let stack = issued().await;
        let (records, read) = (stack.records(), stack.record("orders").await.unwrap());
        let mut changed = read.clone();
        changed.options.services.clear();
        assert_eq!(records.save(&mut changed, &read.options.services).await.unwrap(), Saved::Done);
        let stale = changed.clone();
        records.update(&mut changed).await.unwrap();
        assert!(!records.forget(stale).await.unwrap_err().is_permanent());
        assert_eq!(stack.record("orders").await.as_ref(), Some(&changed));
        // The second time as the SDK does after a lost answer.
        for _ in 0..2 {
            records.forget(changed.clone()).await.unwrap();
            assert_eq!(stack.record("orders").await, None);
        }
    });
}

#[test]
fn what_its_ca_refuses_to_revoke_is_said_and_keeps_nothing_from_being_retired_but_where_a_reason_is_given() {
    run(async {
        let stack = issued().await;
        let serial = to_be_revoked(&stack).await;
        let denied = AwsError::new("AccessDeniedException", "User is not authorized to perform this");
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == "RevokeCertificate").then(|| Fault::Refuse(denied.clone()))
        })));
        let with_reason = json!({"retire": "orders", "reason": "SUPERSEDED"});
        stack.handle("issue-client-cert", with_reason, "retire").await.unwrap_err();
        let retired = stack.handle("issue-client-cert", json!({"retire": "orders"}), "again").await.unwrap();
        assert_eq!((&retired["outcome"], &retired["revoked"]), (&json!("retired"), &json!([])));
        assert!(retired["not_revoked"].as_array().unwrap().contains(&json!(serial)), "{retired:#}");
        assert!(!lives(&stack, "orders").await);
    });
}

/// Such as for a replica that it does not list any more.
#[test]
fn what_secrets_manager_does_not_delete_yet_is_not_forgotten() {
    run(async {
        let stack = issued().await;
        stack.aws.set_faults(Some(Box::new(|call| {
            let refused =
                || Fault::Refuse(AwsError::new("InvalidRequestException", "You can't delete a secret that is replicated"));
            (call.operation == "DeleteSecret").then(refused)
        })));
        let retire = json!({"retire": "orders"});
        let error = stack.handle("issue-client-cert", retire.clone(), "retire").await.unwrap_err();
        assert_eq!(error.error_type, "Retryable", "{error:?}");
        assert!(lives(&stack, "orders").await && stack.record("orders").await.is_some());
        stack.aws.set_faults(None);
        assert_eq!(stack.handle("issue-client-cert", retire, "retire").await.unwrap()["outcome"], "retired");
    });
}

#[test]
fn what_a_crash_leaves_half_retired_the_same_request_retires() {
    for number in 0.. {
        let more = run(async {
            let stack = issued().await;
            lose_deliveries(&stack);
            let ask = json!({"retire": "orders", "reason": "CESSATION_OF_OPERATION"});
            let mut calls = 0;
            stack.aws.set_faults(Some(Box::new(move |call| {
                calls += usize::from(call.caller == "issue-client-cert");
                (call.caller == "issue-client-cert" && calls == number + 1).then_some(Fault::Crash)
            })));
            let crashed = tokio::select! {
                () = stack.aws.hung() => true,
                answer = stack.handle("issue-client-cert", ask.clone(), "first") => answer.is_err(),
            };
            if stack.record("orders").await.is_some() {
                stack.handle("issue-client-cert", ask, "second").await.unwrap();
            }
            assert!(!lives(&stack, "orders").await && stack.record("orders").await.is_none(), "a crash after call {number}");
            crashed
        });
        if !more {
            break;
        }
    }
}
