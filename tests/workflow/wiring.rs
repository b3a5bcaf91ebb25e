//! `events/`, `template.yaml` and the code, held against one another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use local_aws::{AwsError, Call, Fault, elbv2, pca, s3};
use runtime::vars::Vars;
use serde_json::{Value, json};
use workflow::{Stack, root};

use crate::recovery::empty_the_table;
use crate::scenario::{
    Scenario, acm_available_renewal, days, declare_by_hand, issue_by_hand, lose_deliveries, minutes, order, order_for_listener,
    request, run, self_signed, service, user,
};

/// Every file of `events/`: the function it is for, its name, what it holds.
fn files() -> Vec<(String, String, Value)> {
    let mut files: Vec<_> = std::fs::read_dir(root().join("events"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let event: Value = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
            (name.split('.').next().unwrap().to_owned(), name, event)
        })
        .collect();
    files.sort_by(|left, right| left.1.cmp(&right.1));
    files
}

#[test]
fn every_file_in_events_is_understood_by_its_function() {
    for (function, name, event) in files() {
        run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            let outcome = stack.handle(&function, event, "request").await;
            if let Err(error) = outcome {
                for not_understood in ["failed to read", "failed to take", "failed to accept"] {
                    assert!(!error.error_message.starts_with(not_understood), "{name}: {}", error.error_message);
                }
            }
        });
    }
}

#[test]
fn every_event_in_events_reaches_its_function_by_a_rule_of_the_template() {
    run(async {
        let stack = Stack::deploy().await;
        let mut reached = BTreeSet::new();
        for (function, name, mut event) in files().into_iter().filter(|(.., event)| event.get("detail-type").is_some()) {
            if event["source"] == "aws.s3" {
                // Its name is the deployment's to choose.
                let environment = &stack.template.function("refresh-truststore").unwrap().environment;
                event["detail"]["bucket"]["name"] = json!(environment["EVERLEAF_BUCKET"]);
            }
            let expected = &stack.template.function(&function).unwrap().name;
            assert_eq!(stack.aws.put_event(event), std::slice::from_ref(expected), "{name}");
            reached.insert(function);
        }
        let all: BTreeSet<_> = stack.template.functions.iter().map(|function| function.binary.clone()).collect();
        assert_eq!(reached, all, "every function has an event in events/");
        // The event of another stack on the same bus is nobody's.
        let mut other: Value =
            serde_json::from_str(include_str!("../../events/force-redeploy.certificate-current.json")).unwrap();
        other["detail"]["prefix"] = json!("other");
        assert_eq!(stack.aws.put_event(other), [""; 0]);
    });
}

#[test]
fn each_function_reads_the_variables_that_the_template_sets_and_no_others() {
    run(async {
        let stack = Stack::deploy().await;
        let sdk = stack.sdk("user").await;
        for function in &stack.template.functions {
            let read = RefCell::new(BTreeSet::new());
            let vars = || {
                Vars::new(|name| {
                    read.borrow_mut().insert(name.to_owned());
                    function.environment.get(name).cloned()
                })
            };
            match function.binary.as_str() {
                "export-to-secrets" => export_to_secrets::App::new(vars(), &sdk).map(drop),
                "force-redeploy" => force_redeploy::App::new(vars(), &sdk).map(drop),
                "issue-client-cert" => issue_client_cert::App::new(vars(), &sdk).map(drop),
                "refresh-truststore" => refresh_truststore::App::new(vars(), &sdk).map(drop),
                "renew-on-expiry" => renew_on_expiry::App::new(vars(), &sdk).map(drop),
                other => panic!("{other}"),
            }
            .unwrap();
            let set: BTreeSet<_> = function.environment.keys().cloned().collect();
            assert_eq!(read.into_inner(), set, "{}", function.binary);
        }
    });
}

#[test]
fn a_setting_that_is_missing_or_wrong_stops_the_start_and_all_are_named() {
    run(async {
        let stack = Stack::deploy().await;
        let sdk = stack.sdk("user").await;
        let bad = |name: &str| match name {
            "EVERLEAF_ISSUING_CA" => Some("arn:aws:acm:eu-central-1:111122223333:certificate/1".to_owned()),
            "EVERLEAF_ALLOWED_NAMES" => Some("example.com,not a domain".to_owned()),
            "EVERLEAF_MAX_VALIDITY_DAYS" => Some("a year".to_owned()),
            _ => None,
        };
        let Err(faults) = issue_client_cert::App::new(Vars::new(bad), &sdk) else { panic!("it started") };
        for variable in ["ISSUING_CA", "ALLOWED_NAMES", "MAX_VALIDITY_DAYS", "SWEEP_MINUTES", "PREFIX", "TABLE"] {
            assert!(faults.contains(&format!("EVERLEAF_{variable}")), "{variable}: {faults}");
        }
    });
}

/// Months in which everything happens that calls for a call: the actions each function used.
async fn used(stack: &Stack) -> BTreeMap<String, BTreeSet<String>> {
    stack.handle("issue-client-cert", order(), "first").await.unwrap();
    service(stack, "payments/orders", &["orders"]).await;
    service(stack, "payments/gateway", &["gateway"]).await;
    request(stack, "gateway", false).await;
    let ghost = json!({"name": "ghost", "subject": {"common_name": "ghost"}, "services": ["payments/ghost"]});
    stack.handle("issue-client-cert", ghost, "of a service that is not there").await.unwrap();
    imports(stack).await;
    days(1).await;
    trust(stack).await;
    stack.handle("issue-client-cert", json!({"retire": "web"}), "retired").await.unwrap();
    // A new pair fails in its service.
    stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "orders", 1));
    let mut other = order();
    (other["usage"], other["replace"]) = (json!("client-and-server"), json!(true));
    stack.handle("issue-client-cert", other, "fails").await.unwrap();
    minutes(60).await;
    // A service leaves a certificate, another certificate gets one.
    let mut fewer = order();
    (fewer["services"], fewer["replace"]) = (json!([]), json!(true));
    stack.handle("issue-client-cert", fewer, "second").await.unwrap();
    stack.aws.world(|world, _| world.acm.renewal_fails = Some("PCA_ACCESS_DENIED".to_owned()));
    // Nothing that a function does in these months it does not do later too.
    lose_deliveries(stack);
    days(351).await;
    stack.aws.set_deliveries(None);
    days(1).await;
    stack.aws.world(|world, _| world.acm.renewal_fails = None);
    days(4).await;
    let arns = user(stack, "acm:ListCertificates", json!({"Includes": {"keyTypes": ["EC_prime256v1"]}})).await;
    let arn = arns["CertificateSummaryList"][0]["CertificateArn"].clone();
    let tag = json!([{"Key": "everleaf:service-1", "Value": "payments/gateway"}]);
    user(stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
    user(stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
    minutes(5).await;
    let table = stack.records().await.settings.table;
    let ids: Vec<Value> = stack.aws.world(|world, _| world.dynamodb.items().map(|(_, item)| item["id"].clone()).collect());
    for id in ids {
        user(stack, "dynamodb:DeleteItem", json!({"TableName": table, "Key": {"id": id}})).await;
    }
    days(2).await;
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for call in stack.aws.take_calls().into_iter().filter(|call| call.caller != "user") {
        let actions = actions(&call);
        used.entry(call.caller).or_default().extend(actions);
    }
    used
}

/// What a call needs to be allowed.
fn actions(call: &Call) -> Vec<String> {
    match call.operation.as_str() {
        // It has no right of its own: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html>.
        "TransactWriteItems" => vec!["dynamodb:PutItem".to_owned(), "dynamodb:UpdateItem".to_owned()],
        "ImportCertificate" if !call.input["Tags"].is_null() => vec![call.action(), "acm:AddTagsToCertificate".to_owned()],
        "ListObjectsV2" => vec!["s3:ListBucket".to_owned()],
        // Elastic Load Balancing reads what it is told of with its caller's rights.
        "CreateTrustStore" => {
            vec![call.action(), "elasticloadbalancing:AddTags".to_owned(), "s3:GetObjectVersion".to_owned()]
        }
        _ => vec![call.action()],
    }
}

/// Three certificates on listeners: one is made for it, one takes the place of somebody else's, one is adopted.
async fn imports(stack: &Stack) {
    let mut front = order_for_listener();
    front["name"] = json!("front");
    stack.handle("issue-client-cert", front, "imported").await.unwrap();
    minutes(1).await;
    let mut web = order_for_listener();
    (web["name"], web["import_to_acm"]) = (json!("web"), json!(self_signed(stack, "web", 30).await));
    minutes(1).await;
    stack.handle("issue-client-cert", web, "in its place").await.unwrap();
    minutes(1).await;
    self_signed(stack, "old", 3).await;
}

/// A trust store in use: made, attached once its client is there, changed, told of a revocation, left by a CA.
async fn trust(stack: &Stack) {
    let (listener, second) = stack.aws.world(|world, now| {
        s3::create_bucket(world, "crls");
        pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
        let second = pca::create_active_subordinate(world, now, &stack.root_ca, "Example Second CA", "EC_prime256v1").unwrap();
        (elbv2::create_listener(world, now, "clients", 8443), second)
    });
    minutes(1).await;
    let mut declaration = json!({
        "name": "clients", "certificate_authority_arns": [stack.issuing_ca, second],
        "listeners": [{"listener_arn": listener, "clients": ["orders"]}],
    });
    stack.handle("refresh-truststore", json!({"declare": declaration}), "made").await.unwrap();
    let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
    let revoke = json!({"revoke": "orders", "serial_number": serial, "reason": "SUPERSEDED"});
    stack.handle("issue-client-cert", revoke, "revoked").await.unwrap();
    days(1).await;
    declaration["certificate_authority_arns"] = json!([stack.issuing_ca]);
    stack.handle("refresh-truststore", json!({"declare": declaration}), "left").await.unwrap();
    days(2).await;
}

/// What a function calls only after something went wrong half-way; the module `crashes` has it happen.
const SELDOM: &[(&str, &str)] = &[
    ("export-to-secrets", "secretsmanager:GetSecretValue"),
    ("issue-client-cert", "acm:ListCertificates"),
    ("refresh-truststore", "elasticloadbalancing:GetTrustStoreRevocationContent"),
    // AWS Private CA asks for these of whoever revokes, and uses rights of its own.
    ("issue-client-cert", "s3:GetBucketAcl"),
    ("issue-client-cert", "s3:GetBucketLocation"),
    ("issue-client-cert", "s3:PutObject"),
    ("issue-client-cert", "s3:PutObjectAcl"),
];

#[test]
fn each_role_allows_what_its_function_calls_and_nothing_else() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[("SweepMinutes", "240"), ("CrlBucketArns", "arn:aws:s3:::crls")]).await;
        let used = used(&stack).await;
        for function in &stack.template.functions {
            let used = &used[&function.binary];
            for action in used {
                assert!(function.allows(action, None), "the role of {} lacks {action}", function.binary);
            }
            let granted: BTreeSet<_> = function
                .statements
                .iter()
                .filter(|statement| statement.allow)
                .flat_map(|statement| statement.actions.clone())
                .collect();
            // Lambda itself writes to the queue of failures, with the function's role.
            let seldom = |action: &str| SELDOM.contains(&(function.binary.as_str(), action));
            let idle: Vec<_> =
                granted.difference(used).filter(|action| !seldom(action) && *action != "sqs:SendMessage").collect();
            assert!(idle.is_empty(), "the role of {} allows what it never calls: {idle:?}", function.binary);
        }
    });
}

#[test]
fn without_any_one_of_its_rights_a_function_fails_in_some_scenario() {
    let template = run(async { Stack::deploy().await.template.functions });
    let mut needed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let retire = Scenario::of("issue-client-cert", "retire", |stack| {
        Box::pin(async move {
            issue_by_hand().set_up(stack).await;
            stack.handle("issue-client-cert", order_for_listener(), "first").await.unwrap();
            json!({"retire": "orders"})
        })
    });
    let fewer = Scenario::of("issue-client-cert", "fewer services", |stack| {
        Box::pin(async move {
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            let mut fewer = order();
            (fewer["services"], fewer["usage"], fewer["replace"]) = (json!([]), json!("server"), json!(true));
            fewer
        })
    });
    let untagged = Scenario::of("export-to-secrets", "fewer services", |stack| {
        Box::pin(async move {
            let event = acm_available_renewal().set_up(stack).await;
            let tag = json!([{"Key": "everleaf:service-1", "Value": "payments/gateway"}]);
            let arn = event["resources"][0].clone();
            user(stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": arn, "Tags": tag})).await;
            event
        })
    });
    let in_its_place = Scenario::of("issue-client-cert", "import into a certificate that is there", |stack| {
        Box::pin(async move {
            let mut web = order_for_listener();
            (web["name"], web["import_to_acm"]) = (json!("web"), json!(self_signed(stack, "web", 30).await));
            web
        })
    });
    let a_ca_leaves = Scenario::of("refresh-truststore", "a CA leaves", |stack| {
        Box::pin(async move {
            let mut declaration = declare_by_hand().set_up(stack).await;
            stack.handle("refresh-truststore", declaration.clone(), "first").await.unwrap();
            declaration["declare"]["certificate_authority_arns"] = json!([stack.root_ca]);
            declaration
        })
    });
    let clients_first = Scenario::of("refresh-truststore", "a listener waits for its clients", |stack| {
        Box::pin(async move {
            let mut declaration = declare_by_hand().set_up(stack).await;
            declaration["declare"]["listeners"][0]["clients"] = json!(["orders"]);
            declaration
        })
    });
    let lost_table = Scenario::of("renew-on-expiry", "a lost table", |stack| {
        Box::pin(async move {
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            empty_the_table(stack).await;
            json!({"certificate": "orders"})
        })
    });
    let more = [retire, fewer, untagged, in_its_place, a_ca_leaves, clients_first, lost_table];
    for scenario in crate::scenario::all().into_iter().chain(more) {
        let calls = run(async {
            let (stack, event) = scenario.begin().await;
            stack.handle(scenario.function, event, "allowed").await.unwrap();
            stack.aws.take_calls()
        });
        let needed = needed.entry(scenario.function).or_default();
        let mine = calls.iter().filter(|call| call.caller == scenario.function);
        for action in mine.flat_map(actions).collect::<BTreeSet<_>>() {
            let fails = !needed.contains(&action)
                && run(async {
                    let (stack, event) = scenario.begin().await;
                    let (function, denied) = (scenario.function, action.clone());
                    stack.aws.set_faults(Some(Box::new(move |call| {
                        let is_denied = call.caller == function && actions(call).contains(&denied);
                        is_denied.then(|| {
                            Fault::Refuse(AwsError::new("AccessDeniedException", "User is not authorized to perform this"))
                        })
                    })));
                    stack.handle(function, event, "denied").await.is_err()
                });
            if fails {
                needed.insert(action);
            }
        }
    }
    let mut idle = Vec::new();
    for function in &template {
        let allows = function.statements.iter().filter(|statement| statement.allow);
        let granted: BTreeSet<_> = allows.flat_map(|statement| statement.actions.clone()).collect();
        let seldom = |action: &str| SELDOM.contains(&(function.binary.as_str(), action)) || action == "sqs:SendMessage";
        let needed = needed.remove(function.binary.as_str()).unwrap_or_default();
        let unneeded = granted.difference(&needed).filter(|action| !seldom(action));
        idle.extend(unneeded.map(|action| format!("{} {action}", function.binary)));
    }
    assert!(idle.is_empty(), "done without: {idle:?}");
}
