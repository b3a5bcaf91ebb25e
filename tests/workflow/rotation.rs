//! Rotation as Secrets Manager knows it: *Rotate secret immediately*, and schedules.

use local_aws::Fault;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::{assert_settled, keys_asked_for, staged};
use crate::recovery::empty_the_table;
use crate::scenario::{act, days, lose_deliveries, minutes, order, request, run, service, user};
use crate::trust::Site;

const SECRET: &str = "everleaf/orders";

/// `orders` is issued, and its service runs on it.
async fn issued() -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    act(&stack, "issue-client-cert", order()).await;
    service(&stack, "payments/orders", &["orders"]).await;
    minutes(90).await;
    stack
}

fn function(stack: &Stack, binary: &str) -> String {
    stack.template.function(binary).unwrap().arn.clone()
}

/// Somebody has the secret rotated by this function, and its steps come to their end.
async fn rotate(stack: &Stack, binary: &str) -> String {
    let ask = json!({"SecretId": SECRET, "RotationLambdaARN": function(stack, binary), "ClientRequestToken": token(stack)});
    let version = user(stack, "secretsmanager:RotateSecret", ask).await["VersionId"].as_str().unwrap().to_owned();
    minutes(1).await;
    version
}

fn token(stack: &Stack) -> String {
    stack.aws.world(|world, _| world.uuid())
}

/// The versions that are current and previous, and the one that is pending.
fn stages(stack: &Stack) -> [Option<String>; 3] {
    let of = |stage: &str| {
        stack.aws.world(|world, _| staged(world.secrets.find(SECRET).unwrap(), stage).map(|version| version.id.clone()))
    };
    ["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"].map(of)
}

fn value(stack: &Stack, version: &str) -> Value {
    stack.aws.world(|world, _| serde_json::from_str(world.secrets.value(SECRET, Some(version), None).unwrap()).unwrap())
}

fn rotated(stack: &Stack) -> bool {
    stack.aws.world(|world, _| world.secrets.find(SECRET).unwrap().rotation.as_ref().unwrap().rotated.is_some())
}

#[test]
fn a_secret_that_is_rotated_gets_a_new_key_in_the_version_that_secrets_manager_names() {
    run(async {
        let stack = issued().await;
        let before = stages(&stack)[0].clone().unwrap();
        let version = rotate(&stack, "issue-client-cert").await;
        assert_eq!(stages(&stack), [Some(version.clone()), Some(before.clone()), Some(version.clone())]);
        assert_ne!(value(&stack, &version)["private_key"], value(&stack, &before)["private_key"]);
        assert!(rotated(&stack));
        assert_eq!(stack.record("orders").await.unwrap().current.unwrap().version_id, version);
        days(2).await;
        assert_settled(&stack, "rotated").await;
        // A step that comes again finds it done.
        stack.aws.take_calls();
        for step in ["createSecret", "setSecret", "testSecret", "finishSecret"] {
            let arn = stack.record("orders").await.unwrap().secret_arn.unwrap();
            let event = json!({"Step": step, "SecretId": arn, "ClientRequestToken": version});
            assert_eq!(act(&stack, "issue-client-cert", event).await["outcome"], "unchanged", "{step}");
        }
        assert_eq!(stack.aws.take_calls().iter().filter(|call| call.writes()).count(), 0);
    });
}

#[test]
fn a_schedule_rotates_again_and_again() {
    run(async {
        let stack = issued().await;
        let every = json!({"AutomaticallyAfterDays": 3});
        let ask = json!({"SecretId": SECRET, "RotationLambdaARN": function(&stack, "issue-client-cert"), "RotationRules": every, "RotateImmediately": false, "ClientRequestToken": token(&stack)});
        user(&stack, "secretsmanager:RotateSecret", ask).await;
        minutes(5).await;
        let mut seen = vec![stages(&stack)[0].clone()];
        for _ in 0..4 {
            days(3).await;
            seen.push(stages(&stack)[0].clone());
        }
        seen.dedup();
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert_settled(&stack, "after four rotations").await;
    });
}

#[test]
fn a_certificate_of_acm_is_exported_again_under_a_new_passphrase() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        for public in [false, true] {
            let name = if public { "public" } else { "private" };
            let secret = format!("everleaf/{name}");
            request(&stack, name, public).await;
            minutes(200).await;
            let read = |stage: &str| -> (String, Value) {
                stack.aws.world(|world, _| {
                    let version = staged(world.secrets.find(&secret).unwrap(), stage).unwrap();
                    (version.id.clone(), serde_json::from_str(version.secret_string.as_deref().unwrap()).unwrap())
                })
            };
            let (_, before) = read("AWSCURRENT");
            let ask = json!({"SecretId": secret, "RotationLambdaARN": function(&stack, "export-to-secrets"), "ClientRequestToken": token(&stack)});
            let version = user(&stack, "secretsmanager:RotateSecret", ask).await["VersionId"].clone();
            minutes(1).await;
            let (current, after) = read("AWSCURRENT");
            assert_eq!(version, current.as_str(), "{name}");
            assert_eq!(after["certificate"], before["certificate"], "{name}");
            assert_ne!(after["passphrase"], before["passphrase"], "{name}");
            assert_eq!(read("AWSPREVIOUS").1, before, "{name}");
        }
        days(2).await;
        assert_settled(&stack, "rotated").await;
    });
}

/// The last answer that a step waits for never comes, or its process ends right after any of its calls.
#[test]
fn a_crash_after_any_call_of_any_step_loses_nothing_and_issues_nothing_twice() {
    run(async {
        let mut calls = 1;
        loop {
            let stack = issued().await;
            stack.aws.take_calls();
            let mut seen = 0;
            stack.aws.set_faults(Some(Box::new(move |call| {
                seen += usize::from(call.caller == "issue-client-cert");
                (call.caller == "issue-client-cert" && seen == calls).then_some(Fault::Crash)
            })));
            let version = rotate(&stack, "issue-client-cert").await;
            let ended = rotated(&stack);
            minutes(200).await;
            stack.aws.set_faults(None);
            assert_eq!(stages(&stack)[0].as_deref(), Some(version.as_str()), "crashed after call {calls}");
            let all = stack.aws.take_calls();
            let issued = all.iter().filter(|call| call.operation == "IssueCertificate" && call.error.is_none()).count();
            // The CA may have issued what nobody heard of: then another key is asked for.
            assert!((1..=2).contains(&issued), "{issued} after a crash at call {calls}");
            assert_eq!(keys_asked_for(&all), issued, "after a crash at call {calls}");
            days(2).await;
            assert_settled(&stack, &format!("crashed after call {calls}")).await;
            calls += 1;
            if ended {
                break;
            }
        }
        assert!(calls > 15, "{calls}");
    });
}

#[test]
fn what_is_left_staged_becomes_current_by_the_sweep() {
    run(async {
        let stack = issued().await;
        // Secrets Manager gets no answer to any step after the first.
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "UpdateSecretVersionStage").then_some(Fault::Crash))));
        let version = rotate(&stack, "issue-client-cert").await;
        user(&stack, "secretsmanager:CancelRotateSecret", json!({"SecretId": SECRET})).await;
        stack.aws.set_faults(None);
        days(1).await;
        assert_eq!(stages(&stack)[0], Some(version));
        assert_settled(&stack, "promoted by the sweep").await;
    });
}

/// ACM holds nothing newer, so that nothing else would have it looked at.
#[test]
fn a_rotation_of_a_certificate_of_acm_that_stopped_half_way_is_finished_by_the_sweep() {
    run(async {
        for stopped_at in ["ExportCertificate", "PutSecretValue"] {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            request(&stack, "orders", false).await;
            service(&stack, "payments/orders", &["orders"]).await;
            minutes(200).await;
            stack.aws.set_faults(Some(Box::new(move |call| (call.operation == stopped_at).then_some(Fault::Crash))));
            let version = rotate(&stack, "export-to-secrets").await;
            user(&stack, "secretsmanager:CancelRotateSecret", json!({"SecretId": SECRET})).await;
            stack.aws.set_faults(None);
            days(1).await;
            assert_eq!(stages(&stack)[0], Some(version), "{stopped_at}");
            assert_settled(&stack, stopped_at).await;
        }
    });
}

/// Else Secrets Manager would go on with what came to nothing in place of every later rotation.
#[test]
fn a_pair_whose_place_was_taken_does_not_stand_against_the_next_rotation() {
    run(async {
        let stack = issued().await;
        rotate(&stack, "issue-client-cert").await;
        let [current, previous, _] = stages(&stack);
        let stages_a_pair = |call: &local_aws::Call| call.input["VersionStages"] == json!(["AWSPENDING"]);
        stack.aws.set_faults(Some(Box::new(move |call| stages_a_pair(call).then_some(Fault::Crash))));
        let mut other = order();
        (other["key_format"], other["replace"]) = (json!("plain"), json!(true));
        tokio::select! {
            () = stack.aws.hung() => {}
            answer = stack.handle("issue-client-cert", other.clone(), "other") => panic!("{answer:?}"),
        }
        stack.aws.set_faults(None);
        let overtaken = stages(&stack)[2].clone();
        assert!(overtaken.is_some() && overtaken != current);
        let back = json!({"SecretId": SECRET, "VersionStage": "AWSCURRENT", "MoveToVersionId": previous, "RemoveFromVersionId": current});
        user(&stack, "secretsmanager:UpdateSecretVersionStage", back).await;
        stack.handle("issue-client-cert", other, "other").await.unwrap_err();
        assert_eq!(stages(&stack)[..], [previous, current, None]);
        minutes(5).await;
        let next = rotate(&stack, "issue-client-cert").await;
        assert_ne!(Some(&next), overtaken.as_ref());
        assert_eq!(stages(&stack)[0], Some(next));
        assert_settled(&stack, "rotated").await;
    });
}

#[test]
fn a_pair_that_is_not_good_is_not_rotated_in() {
    run(async {
        let stack = issued().await;
        let other = json!({"name": "other", "subject": {"common_name": "other"}, "key_format": "plain"});
        act(&stack, "issue-client-cert", other).await;
        minutes(30).await;
        let before = stages(&stack)[0].clone();
        let text = |secret: &str| stack.aws.world(|world, _| world.secrets.value(secret, None, None).unwrap().to_owned());
        for (what, value, why) in [
            ("another certificate's pair", text("everleaf/other"), "orders"),
            ("no pair", "{}".to_owned(), "is not a pair"),
            ("no JSON", "secret".to_owned(), "is not a pair"),
        ] {
            let token = token(&stack);
            // Before the function gets to it.
            lose_deliveries(&stack);
            stack.aws.set_faults(Some(Box::new(|call| (call.caller != "user").then_some(Fault::Reset))));
            let ask = json!({"SecretId": SECRET, "RotationLambdaARN": function(&stack, "issue-client-cert"), "ClientRequestToken": token});
            user(&stack, "secretsmanager:RotateSecret", ask).await;
            let put =
                json!({"SecretId": SECRET, "ClientRequestToken": token, "SecretString": value, "VersionStages": ["AWSPENDING"]});
            user(&stack, "secretsmanager:PutSecretValue", put).await;
            minutes(10).await;
            stack.aws.set_faults(None);
            stack.aws.set_deliveries(None);
            let arn = stack.record("orders").await.unwrap().secret_arn.unwrap();
            for step in ["createSecret", "testSecret", "finishSecret"] {
                let event = json!({"Step": step, "SecretId": arn, "ClientRequestToken": token});
                let refused = stack.handle("issue-client-cert", event, &format!("{what} {step}")).await.unwrap_err();
                assert!(refused.error_message.contains(why), "{what}, {step}: {refused:?}");
            }
            assert_eq!(stages(&stack)[0], before, "{what}");
            let take = json!({"SecretId": SECRET, "VersionStage": "AWSPENDING", "RemoveFromVersionId": token});
            user(&stack, "secretsmanager:UpdateSecretVersionStage", take).await;
            days(1).await;
        }
        assert_settled(&stack, "after all of them").await;
    });
}

#[test]
fn what_is_not_to_be_rotated_is_refused_with_what_to_do() {
    run(async {
        let stack = issued().await;
        request(&stack, "exported", false).await;
        let paused = json!({"name": "paused", "subject": {"common_name": "paused"}, "paused": true});
        act(&stack, "issue-client-cert", paused).await;
        minutes(200).await;
        let pending = |secret: &str| {
            let token = token(&stack);
            stack.aws.world(|world, now| {
                let input = json!({"SecretId": secret, "RotationLambdaARN": function(&stack, "issue-client-cert"), "ClientRequestToken": token});
                local_aws::secrets::call(world, now, "RotateSecret", &input).unwrap();
            });
            token
        };
        lose_deliveries(&stack);
        for (binary, secret, labelled, why) in [
            ("export-to-secrets", "everleaf/orders", true, "everleaf-issue-client-cert"),
            ("issue-client-cert", "everleaf/exported", true, "everleaf-export-to-secrets"),
            ("issue-client-cert", "everleaf/paused", true, "it is paused"),
            ("issue-client-cert", "everleaf/orders", false, "does not wait to be rotated in"),
        ] {
            stack.aws.set_faults(Some(Box::new(|call| (call.caller != "user").then_some(Fault::Reset))));
            let token = if labelled { pending(secret) } else { "0".repeat(32) };
            minutes(2).await;
            stack.aws.set_faults(None);
            let arn = stack.aws.world(|world, _| world.secrets.find(secret).unwrap().arn.clone());
            let event = json!({"Step": "createSecret", "SecretId": arn, "ClientRequestToken": token});
            let refused = stack.handle(binary, event, &format!("{binary} {secret} {why}")).await.unwrap_err();
            assert!(refused.error_type == "Permanent" && refused.error_message.contains(why), "{refused:?}");
        }
        let foreign = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:other/orders-AbCdEf";
        let event = json!({"Step": "createSecret", "SecretId": foreign, "ClientRequestToken": "0".repeat(32)});
        let refused = stack.handle("issue-client-cert", event, "foreign").await.unwrap_err();
        assert!(refused.error_message.contains("not of this stack"), "{refused:?}");
    });
}

#[test]
fn a_lost_table_keeps_no_rotation_from_its_end() {
    run(async {
        let stack = issued().await;
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "UpdateSecretVersionStage").then_some(Fault::Crash))));
        let ask = json!({"SecretId": SECRET, "RotationLambdaARN": function(&stack, "issue-client-cert"), "ClientRequestToken": token(&stack)});
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "UpdateSecretVersionStage").then_some(Fault::Reset))));
        let version = user(&stack, "secretsmanager:RotateSecret", ask).await["VersionId"].as_str().unwrap().to_owned();
        minutes(2).await;
        empty_the_table(&stack).await;
        stack.aws.set_faults(None);
        minutes(120).await;
        assert_eq!(stages(&stack)[0], Some(version));
        assert!(rotated(&stack));
        days(2).await;
        assert_settled(&stack, "after the loss").await;
    });
}

#[test]
fn a_rotation_to_a_ca_that_no_store_holds_yet_waits_for_the_stores() {
    run(async {
        let mut site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        act(&site.stack, "issue-client-cert", order()).await;
        days(1).await;
        let second = site.stack.aws.world(|world, now| {
            let root = local_aws::pca::create_active_root(world, now, "Example Second Root CA", "EC_prime256v1").unwrap();
            local_aws::pca::create_active_subordinate(world, now, &root, "Example Second CA", "EC_prime256v1").unwrap()
        });
        let first = site.stack.issuing_ca.clone();
        lose_deliveries(&site.stack);
        site.stack.update(&[("IssuingCaArn", &second), ("RetiredCas", &format!("{first}={second}"))]).await;
        let before = stages(&site.stack)[0].clone();
        let version = rotate(&site.stack, "issue-client-cert").await;
        let [current, _, pending] = stages(&site.stack);
        assert_eq!((current, pending), (before, Some(version.clone())));
        assert!(!rotated(&site.stack));
        site.stack.aws.set_deliveries(None);
        act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        minutes(180).await;
        assert_eq!(stages(&site.stack)[0], Some(version));
        assert_eq!(["AWSCURRENT", "AWSPREVIOUS"].map(|stage| site.client("orders", stage)), ["Success"; 2]);
        assert!(rotated(&site.stack));
    });
}

#[test]
fn a_rotation_brings_what_waits_elsewhere_into_the_version_that_secrets_manager_names() {
    run(async {
        let mut site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        act(&site.stack, "issue-client-cert", order()).await;
        days(1).await;
        let second = site.new_authority("Example Second CA");
        let first = site.stack.issuing_ca.clone();
        lose_deliveries(&site.stack);
        site.stack.update(&[("IssuingCaArn", &second), ("RetiredCas", &format!("{first}={second}"))]).await;
        site.stack.aws.take_calls();
        let mut asked = order();
        asked["replace"] = json!(true);
        assert_eq!(act(&site.stack, "issue-client-cert", asked).await["outcome"], "waiting-for-trust");
        let [before, _, elsewhere] = stages(&site.stack);
        let elsewhere = elsewhere.unwrap();
        // What Secrets Manager advises who wants a new rotation.
        let take = json!({"SecretId": SECRET, "VersionStage": "AWSPENDING", "RemoveFromVersionId": elsewhere});
        user(&site.stack, "secretsmanager:UpdateSecretVersionStage", take).await;
        let version = rotate(&site.stack, "issue-client-cert").await;
        assert_ne!(version, elsewhere);
        assert_eq!(stages(&site.stack)[..1], [before]);
        assert_eq!(stages(&site.stack)[2], Some(version.clone()));
        for member in ["certificate", "private_key"] {
            assert!(value(&site.stack, &version)[member].is_string(), "{member}");
        }
        site.stack.aws.set_deliveries(None);
        act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        minutes(180).await;
        assert_eq!(stages(&site.stack)[0], Some(version));
        assert!(rotated(&site.stack));
        let calls = site.stack.aws.take_calls();
        assert_eq!(calls.iter().filter(|call| call.operation == "IssueCertificate").count(), 1, "nothing is issued twice");
    });
}

/// Else Secrets Manager would go on with the expired pair in place of every later rotation.
#[test]
fn a_pair_that_expired_while_it_waited_does_not_stand_against_the_next_rotation() {
    run(async {
        let mut site = Site::with(&[("SweepMinutes", "60")]).await;
        site.declare(site.declaration()).await;
        let mut asked = order();
        (asked["validity"], asked["services"]) = (json!({"hours": 9}), json!([]));
        act(&site.stack, "issue-client-cert", asked).await;
        let second = site.new_authority("Example Second CA");
        let first = site.stack.issuing_ca.clone();
        lose_deliveries(&site.stack);
        site.stack.update(&[("IssuingCaArn", &second), ("RetiredCas", &format!("{first}={second}"))]).await;
        let expired = rotate(&site.stack, "issue-client-cert").await;
        days(2).await;
        assert_eq!(stages(&site.stack)[2], Some(expired.clone()));
        let ask = json!({"SecretId": SECRET, "ClientRequestToken": token(&site.stack)});
        site.stack.aws.call("secretsmanager:RotateSecret", ask).await.unwrap_err();
        minutes(1).await;
        assert_eq!(stages(&site.stack)[2], None);
        let next = rotate(&site.stack, "issue-client-cert").await;
        assert_ne!(next, expired);
        site.stack.aws.set_deliveries(None);
        act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        minutes(125).await;
        assert_eq!(stages(&site.stack)[0], Some(next));
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}

/// Else Secrets Manager would go on with the rejected version in place of every later rotation.
#[test]
fn a_pair_that_was_rejected_does_not_stand_against_the_next_rotation() {
    run(async {
        let stack = issued().await;
        let good = stages(&stack)[0].clone();
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "orders", 1));
        let bad = rotate(&stack, "issue-client-cert").await;
        minutes(60).await;
        assert_eq!(stages(&stack)[0], good, "rolled back");
        assert_eq!(stages(&stack)[2], None);
        days(2).await;
        let next = rotate(&stack, "issue-client-cert").await;
        assert_ne!(next, bad);
        assert_eq!(stages(&stack)[0], Some(next));
    });
}

/// `gateway` is ACM's, and is rotated; its service fails so often on whatever it reads. The version of before, and the new one.
async fn rotated_in_vain(failures: u32) -> (Stack, String, String) {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    service(&stack, "payments/gateway", &["gateway"]).await;
    request(&stack, "gateway", false).await;
    minutes(200).await;
    let good = stack.record("gateway").await.unwrap().current.unwrap().version_id;
    stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "gateway", failures));
    let ask = json!({"SecretId": "everleaf/gateway", "RotationLambdaARN": function(&stack, "export-to-secrets"), "ClientRequestToken": token(&stack)});
    let bad = user(&stack, "secretsmanager:RotateSecret", ask).await["VersionId"].as_str().unwrap().to_owned();
    minutes(60).await;
    (stack, good, bad)
}

fn current_of_gateway(stack: &Stack) -> String {
    stack.aws.world(|world, _| staged(world.secrets.find("everleaf/gateway").unwrap(), "AWSCURRENT").unwrap().id.clone())
}

#[test]
fn a_deployment_that_failed_stands_for_a_day_against_the_next_rotation_of_what_acm_holds() {
    run(async {
        let (stack, good, _) = rotated_in_vain(1).await;
        let ask = || json!({"SecretId": "everleaf/gateway", "ClientRequestToken": token(&stack)});
        let next = user(&stack, "secretsmanager:RotateSecret", ask()).await["VersionId"].as_str().unwrap().to_owned();
        minutes(60 * 21).await;
        // The one before is not complete, and is tried again each hour.
        stack.aws.call("secretsmanager:RotateSecret", ask()).await.unwrap_err();
        minutes(60).await;
        assert_eq!(current_of_gateway(&stack), good);
        minutes(60 * 3).await;
        assert_eq!(current_of_gateway(&stack), next);
    });
}

/// Both versions hold the same certificate.
#[test]
fn what_acm_holds_and_fails_under_its_new_passphrase_goes_back_to_the_one_before() {
    run(async {
        let (stack, good, bad) = rotated_in_vain(1).await;
        let versions = || {
            let version = |stage| {
                stack.aws.world(|world, _| {
                    staged(world.secrets.find("everleaf/gateway").unwrap(), stage).map(|version| version.id.clone())
                })
            };
            ["AWSCURRENT", "everleaf-rejected"].map(version)
        };
        assert_eq!(versions(), [Some(good.clone()), Some(bad)]);
        assert_settled(&stack, "gone back").await;
        // Nor is it renewed for that, though the table is lost as well.
        empty_the_table(&stack).await;
        days(2).await;
        assert_eq!(versions()[0], Some(good));
        assert!(stack.record("gateway").await.unwrap().rejected.is_empty());
    });
}

#[test]
fn what_was_rejected_is_not_gone_back_to_though_it_is_the_same_certificate() {
    run(async {
        let (stack, good, _) = rotated_in_vain(9).await;
        days(1).await;
        assert_eq!(stack.record("gateway").await.unwrap().current.unwrap().version_id, good);
        let rolled_back =
            stack.aws.take_events().iter().filter(|it| it.event["detail-type"] == "Certificate Rolled Back").count();
        assert_eq!(rolled_back, 1);
    });
}

#[test]
fn what_was_rejected_is_not_gone_back_to_when_the_same_certificate_fails_after_the_table_was_lost() {
    run(async {
        let (stack, good, _) = rotated_in_vain(1).await;
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "gateway", 1));
        // A change to the secret, and nothing else tells since when its version is current.
        let tag = json!({"SecretId": "everleaf/gateway", "Tags": [{"Key": "team", "Value": "payments"}]});
        user(&stack, "secretsmanager:TagResource", tag).await;
        stack.aws.take_events();
        empty_the_table(&stack).await;
        days(2).await;
        let failed = stack.aws.take_events().iter().any(|it| it.event["detail"]["eventName"] == "SERVICE_DEPLOYMENT_FAILED");
        assert!(failed, "whoever knows nothing deploys it anew");
        assert_eq!(current_of_gateway(&stack), good);
    });
}

#[test]
fn the_certificate_of_which_only_another_version_was_rejected_is_gone_back_to_after_the_table_was_lost() {
    run(async {
        let (stack, good, _) = rotated_in_vain(1).await;
        let arn = stack.record("gateway").await.unwrap().in_acm().unwrap().to_string();
        lose_deliveries(&stack);
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
        minutes(5).await;
        act(&stack, "export-to-secrets", json!({"certificate": "gateway"})).await;
        empty_the_table(&stack).await;
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "gateway", 1));
        stack.aws.set_deliveries(None);
        minutes(60 * 20).await;
        assert_eq!(current_of_gateway(&stack), good);
    });
}

#[test]
fn what_waits_to_be_rotated_in_gives_way_to_a_newer_pair() {
    run(async {
        let stack = issued().await;
        lose_deliveries(&stack);
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "UpdateSecretVersionStage").then_some(Fault::Reset))));
        let staged = rotate(&stack, "issue-client-cert").await;
        stack.aws.set_faults(None);
        assert_eq!(stages(&stack)[2], Some(staged));
        minutes(5).await;
        act(&stack, "issue-client-cert", json!({"name": "newer", "subject": {"common_name": "newer"}})).await;
        let text = stack.aws.world(|world, _| world.secrets.value("everleaf/newer", None, None).unwrap().to_owned());
        let newer = token(&stack);
        let put = json!({"SecretId": SECRET, "ClientRequestToken": newer, "SecretString": text});
        user(&stack, "secretsmanager:PutSecretValue", put).await;
        minutes(300).await;
        let [current, _, pending] = stages(&stack);
        assert_eq!((current, pending), (Some(newer), None));
    });
}
