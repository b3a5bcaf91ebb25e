//! `events/`, `template.yaml` and the code, held against one another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use local_aws::iam::{Need, Statement, allows};
use local_aws::template::Template;
use local_aws::{Fault, pca, s3, secrets};
use runtime::vars::Vars;
use serde_json::{Value, json};
use workflow::{Stack, root};

use crate::recovery::empty_the_table;
use crate::rollbacks::{break_service, roll_back};
use crate::scenario::{
    CRL_KEY, KMS_KEY, PARAMETERS, Scenario, acm_available_renewal, crl_generation, declare_by_hand, import_by_hand,
    issue_by_hand, lose_deliveries, minutes, order, order_for_listener, request, run, self_signed, service, user,
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
        let sdk = stack.sdk("user");
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
        let sdk = stack.sdk("user");
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

#[test]
fn parameters_that_do_not_fit_together_are_refused_before_the_deployment_and_the_reason_is_said() {
    let ca = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/11111111-1111-1111-1111-111111111111";
    let (subnets, groups) = (("VpcSubnetIds", "subnet-0a,subnet-0b"), ("VpcSecurityGroupIds", "sg-0a"));
    let refused = "functions in a VPC need both";
    for (parameters, reason) in [
        (&[("AllowedCaArns", ca)][..], Some("give the first one as IssuingCaArn")),
        (&[("AllowedCaArns", ca), ("IssuingCaArn", ca)], None),
        (&[("ReplicaRegions", "eu-west-1,eu-central-1")], Some("other regions than the stack's own")),
        (&[("ReplicaRegions", "eu-west-1,eu-west-3")], None),
        (&[subnets], Some(refused)),
        (&[groups], Some(refused)),
        (&[subnets, groups], None),
        (&[("Architecture", "mips")], Some("Architecture")),
        (&[], None),
    ] {
        let outcome = Template::read(&root().join("template.yaml"), "everleaf", parameters);
        let said = outcome.err().map(|error| error.to_string());
        assert_eq!(said.is_some(), reason.is_some(), "{parameters:?}: {said:?}");
        assert!(said.unwrap_or_default().contains(reason.unwrap_or_default()), "{parameters:?}");
    }
}

/// In China and for the government of the US, ARNs and domains are others.
#[test]
fn neither_the_template_nor_the_code_names_a_partition() {
    let mut files = vec![root().join("template.yaml")];
    for package in ["functions", "shared"].into_iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap()) {
        files.extend(std::fs::read_dir(package.unwrap().path().join("src")).unwrap().map(|file| file.unwrap().path()));
    }
    assert!(files.len() > 40, "{files:?}");
    for file in files.iter().filter(|file| file.is_file() && !file.ends_with("samples.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines();
        for line in code.filter(|line| !line.trim_start().starts_with("//")) {
            // The names of services as principals are the same everywhere; and one message shows what an ARN looks like.
            let domain = line.contains("amazonaws.com") && !line.contains("Service: ") && !line.contains("Principal: ");
            let arn = line.contains("arn:aws:") && !line.contains("of the form arn:aws:");
            assert!(!arn && !domain, "{}: {line}", file.display());
        }
    }
}

/// The function ends right behind its first such call; six minutes later nobody is at it any more.
async fn ends_behind(stack: &Stack, function: &'static str, action: &'static str, event: &Value) {
    stack.aws.set_deliveries(None);
    let ends = move |call: &local_aws::Call| (call.caller == function && call.action() == action).then_some(Fault::Crash);
    stack.aws.set_faults(Some(Box::new(ends)));
    tokio::select! {
        () = stack.aws.hung() => {}
        answer = stack.handle(function, event.clone(), "ends") => panic!("{function} never calls {action}: {answer:?}"),
    }
    stack.aws.set_faults(None);
    minutes(6).await;
}

#[test]
fn without_any_one_of_its_rights_a_function_fails_in_some_scenario() {
    let parameters = [("CrlBucketArns", "arn:aws:s3:::crls"), ("KmsKeyArn", KMS_KEY), ("ReplicaRegions", "eu-west-1")];
    let template = run(async { Stack::deploy_with(&parameters).await.template.functions });
    let mut needed: BTreeMap<&str, BTreeSet<(usize, String)>> = BTreeMap::new();
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
    let replica_gone = Scenario::of("renew-on-expiry", "a replica that is gone", |stack| {
        Box::pin(async move {
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            let gone = json!({"SecretId": "everleaf/orders", "RemoveReplicaRegions": ["eu-west-1"]});
            user(stack, "secretsmanager:RemoveRegionsFromReplication", gone).await;
            json!({"certificate": "orders"})
        })
    });
    let old_key = Scenario::of("issue-client-cert", "another pair under the key of an earlier setting", |stack| {
        Box::pin(async move {
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            stack.aws.world(|world, _| secrets::encrypt(world, "everleaf/orders", OLD_KEY));
            let mut another = order();
            (another["usage"], another["replace"]) = (json!("server"), json!(true));
            another
        })
    });
    let old_key_of_acm = Scenario::of("export-to-secrets", "another pair under the key of an earlier setting", |stack| {
        Box::pin(async move {
            let event = acm_available_renewal().set_up(stack).await;
            stack.aws.world(|world, _| secrets::encrypt(world, "everleaf/gateway", OLD_KEY));
            event
        })
    });
    let report = Scenario::of("renew-on-expiry", "a report by request", |_| Box::pin(async { json!({"report": true}) }));
    let no_crl_yet = Scenario::of("refresh-truststore", "a CA that has just begun to publish CRLs", |stack| {
        Box::pin(async move {
            let declaration = declare_by_hand().set_up(stack).await;
            stack.aws.world(|world, now| {
                s3::create_bucket(world, "crls");
                s3::encrypt_bucket(world, "crls", CRL_KEY);
                pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
            });
            declaration
        })
    });
    let rolled_back = Scenario::of("force-redeploy", "rolled back by somebody", |stack| {
        Box::pin(async move {
            service(stack, "payments/orders", &[]).await;
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            break_service(stack, "payments/orders", 1);
            stack.handle("force-redeploy", json!({"certificate": "orders"}), "first").await.unwrap();
            roll_back(stack).await;
            minutes(5).await;
            json!({"certificate": "orders"})
        })
    });
    let tags_changed = Scenario::of("renew-on-expiry", "tags that somebody changed", |stack| {
        Box::pin(async move {
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            let theirs =
                json!([{"Key": "everleaf:serial", "Value": "1"}, {"Key": "everleaf:service-7", "Value": "payments/other"}]);
            user(stack, "secretsmanager:TagResource", json!({"SecretId": "everleaf/orders", "Tags": theirs})).await;
            json!({"certificate": "orders"})
        })
    });
    let half_exported = Scenario::of("export-to-secrets", "a crash before the promotion", |stack| {
        Box::pin(async move {
            let event = acm_available_renewal().set_up(stack).await;
            ends_behind(stack, "export-to-secrets", "secretsmanager:PutSecretValue", &event).await;
            event
        })
    });
    let half_imported = Scenario::of("issue-client-cert", "a crash after the import", |stack| {
        Box::pin(async move {
            let event = import_by_hand().set_up(stack).await;
            ends_behind(stack, "issue-client-cert", "acm:ImportCertificate", &event).await;
            event
        })
    });
    let half_added = Scenario::of("refresh-truststore", "a crash after a CRL was added", |stack| {
        Box::pin(async move {
            let event = crl_generation().set_up(stack).await;
            ends_behind(stack, "refresh-truststore", "elasticloadbalancing:AddTrustStoreRevocations", &event).await;
            event
        })
    });
    let by_hand = [retire, fewer, untagged, in_its_place, rolled_back, report, a_ca_leaves, clients_first, no_crl_yet];
    let repairs = [lost_table, replica_gone, old_key, old_key_of_acm, tags_changed, half_exported, half_imported, half_added];
    for scenario in crate::scenario::all().into_iter().chain(by_hand).chain(repairs) {
        let (calls, statements) = run(async {
            let (stack, event) = scenario.begin().await;
            stack.handle(scenario.function, event, "allowed").await.unwrap();
            (stack.aws.take_calls(), stack.template.function(scenario.function).unwrap().statements.clone())
        });
        let needed = needed.entry(scenario.function).or_default();
        let mine = calls.iter().filter(|call| call.caller == scenario.function);
        let by = |need: &Need| statements.iter().position(|statement| statement.applies(need));
        let used: BTreeSet<_> =
            mine.flat_map(|call| &call.needs).filter_map(|need| Some((by(need)?, need.action.clone()))).collect();
        for right in used {
            let fails = !needed.contains(&right)
                && run(async {
                    let (stack, event) = scenario.begin().await;
                    stack.aws.set_role(scenario.function, without(&statements, &right));
                    let fails = stack.handle(scenario.function, event, "denied").await.is_err();
                    // A pair is current without its tags: what is refused of them is logged.
                    let is_tag = ["secretsmanager:TagResource", "secretsmanager:UntagResource"].contains(&right.1.as_str());
                    let refused = |call: &local_aws::Call| call.action() == right.1 && call.error.is_some();
                    fails || is_tag && stack.aws.take_calls().iter().any(refused)
                });
            if fails {
                needed.insert(right);
            }
        }
    }
    let mut idle = Vec::new();
    for function in &template {
        let needed = needed.remove(function.binary.as_str()).unwrap_or_default();
        for (place, statement) in function.statements.iter().enumerate().filter(|(_, statement)| statement.allow) {
            // Lambda itself writes to the queue of failures, with the function's role.
            let unneeded = statement
                .actions
                .iter()
                .filter(|action| !needed.contains(&(place, (*action).clone())) && *action != "sqs:SendMessage");
            idle.extend(unneeded.map(|action| format!("{} {action} of statement {place}", function.binary)));
        }
    }
    assert!(idle.is_empty(), "done without: {idle:?}");
}

/// Those that AWS knows no resource for: <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>.
const OF_NO_RESOURCE: &[&str] = &[
    "acm:ListCertificates",
    "secretsmanager:ListSecrets",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeTrustStoreRevocations",
    "elasticloadbalancing:DescribeTrustStores",
];

#[test]
fn every_right_is_confined_to_resources_where_aws_knows_any() {
    let template = run(async { Stack::deploy_with(PARAMETERS).await.template.functions });
    for statement in template.iter().flat_map(|function| &function.statements).filter(|statement| statement.allow) {
        let is_wide = statement.resources.iter().any(|resource| resource.trim_matches(['*', ':']).is_empty());
        for action in &statement.actions {
            assert!(!action.contains('*'), "{statement:?}");
            assert_eq!(is_wide, OF_NO_RESOURCE.contains(&action.as_str()), "{action} of {statement:?}");
        }
    }
}

/// The statements without one of their rights; where conditions stand on it, they stay and cannot be met.
fn without(statements: &[Statement], (place, action): &(usize, String)) -> Vec<Statement> {
    let mut statements = statements.to_vec();
    let mut unmet = Statement { actions: vec![action.clone()], ..statements[*place].clone() };
    statements[*place].actions.retain(|allowed| allowed != action);
    unmet.conditions.iter_mut().for_each(|condition| condition.values.clear());
    let conditional = !unmet.conditions.is_empty();
    statements.extend(conditional.then_some(unmet));
    statements
}

/// Calls that a condition is there to deny, for a certificate of ACM that is not the stack's: the function, what it calls, and the
/// key of the condition.
fn denied_by_conditions(arn: &str, ca: &str) -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let (of_resource, of_request) = ("aws:ResourceTag/everleaf:certificate", "aws:RequestTag/everleaf:certificate");
    let (theirs, arn) = (json!([{"Key": "everleaf:certificate", "Value": "everleaf2/web"}]), json!({"CertificateArn": arn}));
    let tagged = json!({"CertificateArn": arn["CertificateArn"], "Tags": theirs});
    let of = |template: &str| format!("arn:aws:acm-pca:::template/{template}/V1");
    let issue = |template: &str| json!({"CertificateAuthorityArn": ca, "TemplateArn": of(template)});
    let mut rows = vec![
        ("issue-client-cert", "acm:GetCertificate", arn.clone(), of_resource),
        ("issue-client-cert", "acm:ImportCertificate", arn.clone(), of_resource),
        ("issue-client-cert", "acm:ImportCertificate", json!({"Tags": theirs}), of_request),
        ("issue-client-cert", "acm:ImportCertificate", json!({}), of_request),
        ("issue-client-cert", "acm:RemoveTagsFromCertificate", tagged.clone(), of_resource),
        ("issue-client-cert", "acm:AddTagsToCertificate", tagged, of_request),
        ("issue-client-cert", "acm-pca:IssueCertificate", issue("SubordinateCACertificate_PathLen0"), "acm-pca:TemplateArn"),
        ("issue-client-cert", "acm-pca:IssueCertificate", issue("EndEntityCertificate_CSRPassthrough"), "acm-pca:TemplateArn"),
        ("issue-client-cert", "acm-pca:IssueCertificate", json!({"CertificateAuthorityArn": ca}), "acm-pca:TemplateArn"),
        ("export-to-secrets", "acm:ExportCertificate", arn.clone(), of_resource),
        ("renew-on-expiry", "acm:RenewCertificate", arn, of_resource),
    ];
    for function in ["issue-client-cert", "export-to-secrets", "renew-on-expiry", "force-redeploy", "refresh-truststore"] {
        let entry = |source: &str| json!({"Source": source, "DetailType": "Certificate Current", "Detail": "{}"});
        // One among others is enough.
        rows.push((function, "events:PutEvents", json!({"Entries": [entry("everleaf"), entry("other")]}), "events:source"));
    }
    rows
}

#[test]
fn what_a_condition_of_a_role_is_there_to_deny_is_denied_by_it_alone() {
    run(async {
        let stack = Stack::deploy_with(PARAMETERS).await;
        lose_deliveries(&stack);
        let arn = request(&stack, "web", false).await;
        let theirs = json!([{"Key": "everleaf:certificate", "Value": "everleaf2/web"}]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": theirs})).await;
        let untagged = user(&stack, "acm:RequestCertificate", json!({"DomainName": "web.example.com"})).await;
        minutes(1).await;
        let arns = [arn.as_str(), untagged["CertificateArn"].as_str().unwrap()];
        let mut shown = BTreeSet::new();
        for (function, action, input, key) in arns.into_iter().flat_map(|arn| denied_by_conditions(arn, &stack.issuing_ca)) {
            // Each has its own second of the quotas.
            let is_denied = async || {
                minutes(1).await;
                let answer = stack.aws.call_as(function, action, input.clone()).await;
                answer.is_err_and(|error| error.code == "AccessDeniedException" && error.message.contains(function))
            };
            assert!(is_denied().await, "{function} {action} {input}");
            let statements = &stack.template.function(function).unwrap().statements;
            stack.aws.set_role(function, lifted(statements, key));
            assert!(!is_denied().await, "{function} {action} {input} without the condition on {key}");
            stack.aws.set_role(function, statements.clone());
            shown.insert((function.to_owned(), action.to_owned(), key.to_owned()));
        }
        // KMS has no calls here: the services ask it on a function's behalf.
        for function in &stack.template.functions {
            for need in asked_of_kms(&function.binary) {
                assert!(allows(&function.statements, &need), "{} {need:?}", function.binary);
                for (key, value) in &need.context {
                    let (mut without, mut another) = (need.clone(), need.clone());
                    without.context.remove(key);
                    another.context.insert(key.clone(), value.replace("everleaf/", "everleaf2/").replace(":::crls", ":::crls2"));
                    if key == "kms:ViaService" {
                        another.context.insert(key.clone(), "ec2.eu-central-1.amazonaws.com".to_owned());
                    }
                    for denied in [without, another] {
                        assert!(!allows(&function.statements, &denied), "{} {denied:?}", function.binary);
                        assert!(allows(&lifted(&function.statements, key), &denied), "{} {denied:?}", function.binary);
                    }
                    shown.insert((function.binary.clone(), need.action.clone(), key.clone()));
                }
            }
            let theirs = Need { resource: THEIR_KEY.to_owned(), ..of_secret("kms:Decrypt") };
            assert!(!allows(&function.statements, &theirs), "{} {theirs:?}", function.binary);
        }
        let mut conditions = BTreeSet::new();
        for function in &stack.template.functions {
            for statement in function.statements.iter().filter(|statement| statement.allow) {
                let keys = statement.conditions.iter().map(|condition| &condition.key);
                let of_each = keys.flat_map(|key| statement.actions.iter().map(move |action| (action.clone(), key.clone())));
                conditions.extend(of_each.map(|(action, key)| (function.binary.clone(), action, key)));
            }
        }
        assert_eq!(shown, conditions, "each condition has a call that it denies");
    });
}

#[test]
fn no_function_may_delete_a_secret_for_good() {
    run(async {
        let stack = Stack::deploy_with(PARAMETERS).await;
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        for (forced, denied) in [(true, true), (false, false)] {
            let input = json!({"SecretId": "everleaf/orders", "ForceDeleteWithoutRecovery": forced});
            let answer = stack.aws.call_as("issue-client-cert", "secretsmanager:DeleteSecret", input).await;
            assert_eq!(answer.as_ref().is_err_and(|error| error.code == "AccessDeniedException"), denied, "{answer:?}");
        }
    });
}

const OLD_KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/00000000-1111-2222-3333-444444444444";
const THEIR_KEY: &str = "arn:aws:kms:eu-central-1:444455556666:key/00000000-1111-2222-3333-444444444444";

/// A secret keeps its key when the parameter names another.
fn of_secret(action: &str) -> Need {
    let arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/orders-AbCd3F";
    let via = ("kms:ViaService", "secretsmanager.eu-central-1.amazonaws.com");
    asked(action, OLD_KEY, &[via, ("kms:EncryptionContext:SecretARN", arn)])
}

fn asked(action: &str, key: &str, context: &[(&str, &str)]) -> Need {
    let context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Need { action: action.to_owned(), resource: key.to_owned(), context }
}

/// What services ask of KMS for a function.
fn asked_of_kms(function: &str) -> Vec<Need> {
    let (decrypt, encrypt, generate) = ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey");
    let table = |action| asked(action, KMS_KEY, &[("kms:ViaService", "dynamodb.eu-central-1.amazonaws.com")]);
    let replica = |action| {
        asked(action, &KMS_KEY.replace("central", "west"), &[("kms:ViaService", "secretsmanager.eu-west-1.amazonaws.com")])
    };
    let crl = |action| {
        let arn = ("kms:EncryptionContext:aws:s3:arn", "arn:aws:s3:::crls/crl/1.crl");
        asked(action, CRL_KEY, &[("kms:ViaService", "s3.eu-central-1.amazonaws.com"), arn])
    };
    let others = match function {
        "issue-client-cert" => {
            vec![of_secret(decrypt), of_secret(generate), replica(encrypt), replica(generate), crl(decrypt), crl(generate)]
        }
        "export-to-secrets" => vec![of_secret(decrypt), of_secret(generate), replica(encrypt), replica(generate)],
        "renew-on-expiry" => vec![of_secret(decrypt), replica(encrypt), replica(generate)],
        "refresh-truststore" => vec![crl(decrypt)],
        _ => vec![],
    };
    [table(decrypt), table(generate)].into_iter().chain(others).collect()
}

/// The statements without the conditions on this key.
fn lifted(statements: &[Statement], key: &str) -> Vec<Statement> {
    let mut statements = statements.to_vec();
    statements.iter_mut().for_each(|statement| statement.conditions.retain(|condition| condition.key != key));
    statements
}
