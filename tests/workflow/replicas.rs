//! Secrets that other regions hold too. Secrets Manager keeps them in step; here it is seen that there is one in each region.

use std::collections::BTreeMap;

use local_aws::{AwsError, Fault, secrets};
use runtime::vars::Vars;
use serde_json::{Value, json};
use workflow::Stack;

use crate::recovery::empty_the_table;
use crate::scenario::{KMS_KEY, act, days, minutes, order, request, run, service, user};

/// The regions that hold a replica, and the keys that encrypt it there.
async fn replicas(stack: &Stack, name: &str) -> BTreeMap<String, String> {
    let secret = user(stack, "secretsmanager:DescribeSecret", json!({"SecretId": format!("everleaf/{name}")})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let replicas = secret["ReplicationStatus"].as_array().into_iter().flatten();
    replicas.map(|replica| (text(&replica["Region"]), text(&replica["KmsKeyId"]))).collect()
}

fn under_the_key(regions: &[&str]) -> BTreeMap<String, String> {
    regions.iter().map(|region| ((*region).to_owned(), KMS_KEY.replace("eu-central-1", region))).collect()
}

#[test]
fn every_secret_has_a_replica_in_each_region_from_its_first_day_under_the_key_of_that_region() {
    run(async {
        let parameters = [("KmsKeyArn", KMS_KEY), ("ReplicaRegions", "eu-west-1,eu-west-3")];
        let stack = Stack::deploy_on("EC_prime256v1", &parameters).await;
        act(&stack, "issue-client-cert", order()).await;
        let arn = request(&stack, "gateway", false).await;
        act(&stack, "export-to-secrets", json!({"certificate_arn": arn})).await;
        for name in ["orders", "gateway"] {
            assert_eq!(replicas(&stack, name).await, under_the_key(&["eu-west-1", "eu-west-3"]), "{name}");
        }
    });
}

#[test]
fn a_region_that_is_added_and_one_that_somebody_took_away_have_their_replicas_within_a_day_and_none_is_removed() {
    run(async {
        let mut stack = Stack::deploy_with(&[("KmsKeyArn", KMS_KEY)]).await;
        act(&stack, "issue-client-cert", order()).await;
        assert_eq!(replicas(&stack, "orders").await, BTreeMap::new());
        stack.update(&[("ReplicaRegions", "eu-west-1,eu-west-3")]).await;
        let plan = act(&stack, "renew-on-expiry", json!({"plan": true, "certificate": "orders"})).await;
        assert!(plan.to_string().contains("replicate its secret to eu-west-1, eu-west-3"), "{plan:#}");
        days(1).await;
        assert_eq!(replicas(&stack, "orders").await, under_the_key(&["eu-west-1", "eu-west-3"]));
        let gone = json!({"SecretId": "everleaf/orders", "RemoveReplicaRegions": ["eu-west-1"]});
        user(&stack, "secretsmanager:RemoveRegionsFromReplication", gone).await;
        days(1).await;
        assert_eq!(replicas(&stack, "orders").await, under_the_key(&["eu-west-1", "eu-west-3"]));
        stack.update(&[("ReplicaRegions", "eu-west-3")]).await;
        days(1).await;
        assert_eq!(replicas(&stack, "orders").await, under_the_key(&["eu-west-1", "eu-west-3"]));
    });
}

#[test]
fn a_replica_that_failed_is_told_once_a_day_and_keeps_nothing_from_being_renewed() {
    run(async {
        let stack = Stack::deploy_with(&[("ReplicaRegions", "eu-west-1")]).await;
        act(&stack, "issue-client-cert", json!({"name": "orders", "subject": {"common_name": "orders"}})).await;
        let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
        stack.aws.world(|world, _| secrets::fail_replica(world, "everleaf/orders", "eu-west-1", "a secret of that name exists"));
        stack.aws.take_events();
        days(30).await;
        let events = stack.aws.take_events();
        let told =
            events.iter().filter(|event| event.event["detail-type"] == "Action Required").map(|event| &event.event["detail"]);
        let told: Vec<_> = told.map(|detail| detail["reason"].to_string()).collect();
        assert!((29..=31).contains(&told.len()), "{told:#?}");
        let said = |reason: &String| reason.contains("eu-west-1 failed (a secret of that name exists)");
        assert!(told.iter().all(said), "{told:#?}");
        assert_ne!(stack.record("orders").await.unwrap().current.unwrap().serial, serial);
    });
}

#[test]
fn a_region_or_a_tag_that_is_refused_is_told_and_keeps_nothing_from_being_renewed_and_deployed() {
    run(async {
        for refused in ["ReplicateSecretToRegions", "TagResource"] {
            let mut stack = Stack::deploy_with(&[]).await;
            service(&stack, "payments/orders", &["orders"]).await;
            act(&stack, "issue-client-cert", order()).await;
            days(1).await;
            let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
            stack.update(&[("ReplicaRegions", "eu-west-1")]).await;
            stack.aws.set_faults(Some(Box::new(move |call| {
                let denied = AwsError::new("AccessDeniedException", "with an explicit deny in a service control policy");
                (call.operation == refused).then_some(Fault::Refuse(denied))
            })));
            stack.aws.take_events();
            stack.aws.take_calls();
            days(29).await;
            let told = stack.aws.take_events().into_iter().map(|event| event.event);
            let told: Vec<_> = told.filter(|event| event["detail-type"] == "Action Required").collect();
            assert!(told.len() <= 30 && told.iter().any(|event| event.to_string().contains("explicit deny")), "{told:#?}");
            assert_ne!(stack.record("orders").await.unwrap().current.unwrap().serial, serial, "{refused}");
            let deployed = stack.aws.take_calls().into_iter().filter(|call| call.operation == "UpdateService").count();
            assert_eq!(deployed, 1, "{refused}");
        }
    });
}

#[test]
fn a_certificate_with_replicas_is_retired_with_them() {
    run(async {
        let stack = Stack::deploy_with(&[("ReplicaRegions", "eu-west-1,eu-west-3")]).await;
        act(&stack, "issue-client-cert", order()).await;
        minutes(1).await;
        let retired = act(&stack, "issue-client-cert", json!({"retire": "orders"})).await;
        assert!(retired["deleted"].is_string(), "{retired:#}");
        let secret = user(&stack, "secretsmanager:DescribeSecret", json!({"SecretId": "everleaf/orders"})).await;
        assert!(secret["DeletedDate"].is_number() && secret["ReplicationStatus"].is_null(), "{secret:#}");
    });
}

/// Nobody has taken its replicas away when the parameter has no region any more.
#[test]
fn a_certificate_with_replicas_of_an_earlier_setting_is_retired_with_them() {
    run(async {
        let mut stack = Stack::deploy_with(&[("ReplicaRegions", "eu-west-1")]).await;
        act(&stack, "issue-client-cert", order()).await;
        minutes(1).await;
        stack.update(&[("ReplicaRegions", "")]).await;
        let retired = act(&stack, "issue-client-cert", json!({"retire": "orders"})).await;
        assert!(retired["deleted"].is_string(), "{retired:#}");
    });
}

#[test]
fn a_key_of_one_region_alone_stops_the_start_where_there_are_to_be_replicas() {
    run(async {
        let stack = Stack::deploy().await;
        let sdk = stack.sdk("user");
        let environment = &stack.template.function("export-to-secrets").unwrap().environment;
        let with_key = |key: &'static str| {
            Vars::new(move |name| match name {
                "EVERLEAF_KMS_KEY" => Some(key.to_owned()),
                "EVERLEAF_REPLICA_REGIONS" => Some("eu-west-1".to_owned()),
                _ => environment.get(name).cloned(),
            })
        };
        let single = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555";
        let Err(faults) = export_to_secrets::App::new(with_key(single), &sdk) else { panic!("it started") };
        assert!(faults.contains("KmsKeyArn must be a multi-Region key"), "{faults}");
        assert!(export_to_secrets::App::new(with_key(KMS_KEY), &sdk).is_ok());
    });
}

#[test]
fn a_replica_of_another_regions_stack_is_left_to_it() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        act(&stack, "issue-client-cert", order()).await;
        stack.aws.world(|world, _| secrets::make_replica(world, "everleaf/orders", "eu-west-1"));
        empty_the_table(&stack).await;
        stack.aws.take_events();
        days(2).await;
        assert!(stack.record("orders").await.is_none());
        let told = stack.aws.take_events();
        assert!(!told.iter().any(|event| event.event["detail-type"] == "Action Required"), "{told:#?}");
        assert!(stack.aws.take_invocations().iter().all(|one| one.outcome.is_ok()));
        let refused = stack.handle("issue-client-cert", order(), "by hand").await.unwrap_err();
        assert!(refused.error_message.contains("it is a replica of the one in eu-west-1"), "{refused:?}");
    });
}
