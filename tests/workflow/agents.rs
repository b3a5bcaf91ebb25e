//! Services whose agents bring them each new pair: they are left running.

use serde_json::{Value, json};
use workflow::Stack;

use crate::recovery::empty_the_table;
use crate::scenario::{act, days, lose_deliveries, minutes, order, run, service, user};
use crate::trust::Site;

/// `orders` with one service that is redeployed and one whose agent reloads.
fn both() -> Value {
    let mut request = order();
    request["services"] = json!(["payments/orders", {"service": "payments/refunds", "reload": "agent"}]);
    request
}

async fn stack() -> Stack {
    let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
    service(&stack, "payments/orders", &["orders"]).await;
    service(&stack, "payments/refunds", &[]).await;
    stack
}

/// The same a day after `orders` was issued for both.
async fn issued() -> Stack {
    let stack = stack().await;
    act(&stack, "issue-client-cert", both()).await;
    days(1).await;
    deployed(&stack);
    stack
}

/// The services that were deployed since the last question, one entry for each deployment.
fn deployed(stack: &Stack) -> Vec<String> {
    let calls = stack.aws.take_calls().into_iter().filter(|call| call.operation == "UpdateService" && call.error.is_none());
    calls.map(|call| call.input["service"].as_str().unwrap().to_owned()).collect()
}

async fn serial(stack: &Stack) -> String {
    stack.record("orders").await.unwrap().current.unwrap().serial.to_string()
}

#[test]
fn a_renewal_deploys_the_one_service_and_leaves_the_other_running() {
    run(async {
        let stack = issued().await;
        let first = serial(&stack).await;
        stack.aws.take_events();
        days(29).await;
        assert_ne!(serial(&stack).await, first, "it is renewed");
        assert_eq!(deployed(&stack), ["orders"]);
        let current = stack.aws.take_events().into_iter().find(|event| event.event["detail-type"] == "Certificate Current");
        assert_eq!(current.unwrap().event["detail"]["services"], json!(["payments/orders"]));
        let asked = stack.handle("force-redeploy", json!({"services": ["payments/refunds"]}), "by hand").await.unwrap_err();
        assert!(asked.error_message.contains("where its agent reloads nothing is to be done"), "{asked:?}");
    });
}

#[test]
fn a_service_whose_way_to_reload_changes_keeps_its_certificate_and_is_deployed_only_for_the_way_by_deployment() {
    run(async {
        let stack = issued().await;
        let first = serial(&stack).await;
        let refused = stack.handle("issue-client-cert", order(), "without replace").await.unwrap_err();
        assert!(refused.error_message.contains("differs in services"), "{refused:?}");
        for (services, expected) in [
            (json!(["payments/orders", "payments/refunds"]), &["refunds"][..]),
            (json!([{"service": "payments/orders", "reload": "agent"}, {"service": "payments/refunds", "reload": "agent"}]), &[]),
            // What was deployed since the pair became current is not deployed again.
            (both()["services"].clone(), &[]),
        ] {
            let mut changed = order();
            (changed["services"], changed["replace"]) = (services.clone(), json!(true));
            assert_eq!(act(&stack, "issue-client-cert", changed).await["outcome"], "unchanged", "{services}");
            days(1).await;
            assert_eq!(deployed(&stack), expected, "{services}");
        }
        assert_eq!(serial(&stack).await, first);
    });
}

#[test]
fn a_lost_table_gets_both_kinds_of_services_back_from_the_tags() {
    run(async {
        let stack = issued().await;
        let options = stack.record("orders").await.unwrap().options;
        assert_eq!((options.services.len(), options.agent_services.len()), (1, 1));
        empty_the_table(&stack).await;
        days(2).await;
        assert_eq!(stack.record("orders").await.unwrap().options, options);
        assert_eq!(deployed(&stack), [""; 0]);
    });
}

#[test]
fn a_tag_left_from_before_makes_a_service_of_a_lost_table_one_that_is_redeployed() {
    run(async {
        let stack = stack().await;
        act(&stack, "issue-client-cert", both()).await;
        let stale = json!({"SecretId": "everleaf/orders", "Tags": [{"Key": "everleaf:service-3", "Value": "payments/refunds"}]});
        user(&stack, "secretsmanager:TagResource", stale).await;
        empty_the_table(&stack).await;
        days(2).await;
        let options = stack.record("orders").await.unwrap().options;
        assert_eq!((options.services.len(), options.agent_services.len()), (2, 0));
    });
}

#[test]
fn a_tag_on_acms_certificate_says_which_way_its_service_reloads() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        service(&stack, "payments/gateway", &[]).await;
        let tag = |value: &str| json!([{"Key": "everleaf:service-1", "Value": value}]);
        let mut request = json!({
            "DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": stack.issuing_ca,
            "Tags": tag("payments/gateway reload=agent"),
        });
        let ours = json!({"Key": "everleaf:certificate", "Value": "everleaf/gateway"});
        request["Tags"].as_array_mut().unwrap().push(ours);
        let arn = user(&stack, "acm:RequestCertificate", request).await["CertificateArn"].clone();
        days(1).await;
        assert!(stack.record("gateway").await.unwrap().current.is_some());
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
        days(1).await;
        assert!(stack.record("gateway").await.unwrap().previous.is_some(), "it is renewed");
        assert_eq!(deployed(&stack), [""; 0]);
        // The table knows what the tags say, and so does the secret.
        empty_the_table(&stack).await;
        days(2).await;
        let options = stack.record("gateway").await.unwrap().options;
        assert_eq!((options.services.len(), options.agent_services.len()), (0, 1));
        let described = user(&stack, "secretsmanager:DescribeSecret", json!({"SecretId": "everleaf/gateway"})).await;
        assert!(described["Tags"].as_array().unwrap().contains(&tag("payments/gateway reload=agent")[0]), "{described:#}");
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tag("payments/gateway")})).await;
        days(2).await;
        assert_eq!(deployed(&stack), ["gateway"]);
    });
}

#[test]
fn what_is_superseded_is_revoked_an_hour_after_the_agents_could_fetch_its_successor() {
    run(async {
        let stack = stack().await;
        let mut request = order();
        request["services"] = json!([{"service": "payments/refunds", "reload": "agent"}]);
        act(&stack, "issue-client-cert", request).await;
        days(1).await;
        let revoke = json!({"revoke": "orders", "serial_number": serial(&stack).await, "reason": "SUPERSEDED"});
        let answer = act(&stack, "issue-client-cert", revoke).await;
        assert_eq!((&answer["outcome"], &answer["replacement"]["outcome"]), (&json!("recorded"), &json!("issued")), "{answer:#}");
        let since = *stack.record("orders").await.unwrap().current.unwrap().since;
        stack.aws.take_calls();
        days(1).await;
        let calls = stack.aws.take_calls();
        let revoked: Vec<_> = calls.iter().filter(|call| call.operation == "RevokeCertificate").map(|call| call.at).collect();
        let hour = time::Duration::hours(1);
        assert!(revoked.len() == 1 && revoked[0] >= since + hour && revoked[0] < since + hour * 3, "{since} {revoked:?}");
        assert!(!calls.iter().any(|call| call.operation == "UpdateService"));
    });
}

#[test]
fn a_listener_begins_to_verify_an_hour_after_the_agents_of_its_clients_could_fetch_their_pair() {
    run(async {
        let site = Site::with(&[]).await;
        let mut declaration = site.declaration();
        declaration["listeners"][0]["clients"] = json!(["orders"]);
        let mut request = order();
        request["services"] = json!([{"service": "payments/refunds", "reload": "agent"}]);
        act(&site.stack, "issue-client-cert", request).await;
        lose_deliveries(&site.stack);
        let report = site.declare(declaration).await;
        let missing = report["listeners"][0]["missing"].to_string();
        assert!(missing.contains("the agent of payments/refunds may not have fetched `orders` before"), "{report:#}");
        minutes(61).await;
        let report = act(&site.stack, "refresh-truststore", json!({"refresh": true})).await["trust_stores"][0].clone();
        assert_eq!(report["listeners"][0]["outcome"], "modified", "{report:#}");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}
