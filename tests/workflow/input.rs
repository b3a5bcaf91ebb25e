//! Bad input of any kind: one clear error that names field and remedy, and nothing is changed.

use local_aws::Call;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::Since;
use crate::scenario::{act, lose_deliveries, minutes, order, request, run, service, user};

#[test]
fn bad_input_gets_one_permanent_error_that_says_what_to_do_and_changes_nothing() {
    let acm = |resource: &str| json!({"detail-type": "ACM Certificate Available", "source": "aws.acm", "resources": [resource], "detail": {}});
    let ours = |detail_type: &str, detail: Value| json!({"detail-type": detail_type, "source": "everleaf", "resources": [], "detail": detail});
    let stranger = ours("Certificate Renamed", json!({"prefix": "everleaf"}));
    let unknown = "neither the table nor a secret knows it";
    run(async {
        let stack = Stack::deploy().await;
        // The first sweep comes with the schedule itself.
        minutes(5).await;
        let foreign = json!({"Name": "everleaf/foreign", "SecretString": "{}", "ClientRequestToken": "0".repeat(32)});
        user(&stack, "secretsmanager:CreateSecret", foreign).await;
        let tags = json!([{"Key": "everleaf:certificate", "Value": "everleaf/a b"}, {"Key": "everleaf:service-1", "Value": "z"}]);
        let request = json!({"DomainName": "a.example.com", "CertificateAuthorityArn": stack.issuing_ca, "Tags": tags});
        let badly_tagged = user(&stack, "acm:RequestCertificate", request).await["CertificateArn"].clone();
        let nobodys = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-4000-8000-000000000000";
        for (function, event, says) in [
            ("issue-client-cert", json!(null), &["not a JSON object", "`name`"][..]),
            ("issue-client-cert", json!([]), &["not a JSON object"]),
            ("issue-client-cert", json!({}), &["name: is missing", "subject: is empty"]),
            (
                "issue-client-cert",
                json!({"name": "a b", "key_algorithm": "RSA_1024", "usage": "both", "validity": {"weeks": 1}, "color": "red"}),
                &[
                    "name: `a b`",
                    "key_algorithm: `RSA_1024` is not one of EC_prime256v1",
                    "usage: `both`",
                    "validity:",
                    "color: is not a field",
                ],
            ),
            ("issue-client-cert", json!({"name": "x", "csr": "no PEM"}), &["csr: the CSR is not readable"]),
            (
                "issue-client-cert",
                json!({"name": "x", "subject": {"common_name": "x"}, "certificate_authority_arn":
                    "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/00000000-0000-4000-8000-000000000000"}),
                &["certificate_authority_arn:", "AllowedCaArns"],
            ),
            ("issue-client-cert", stranger.clone(), &["`Certificate Renamed` is not for this function", "mend the rule"]),
            ("issue-client-cert", ours("Certificate Due", json!({"prefix": "everleaf"})), &["failed to read the request"]),
            (
                "issue-client-cert",
                ours("Certificate Due", json!({"prefix": "everleaf", "certificate": "ghost"})),
                &["`ghost`", unknown],
            ),
            ("issue-client-cert", json!({"name": 5}), &["name: `5` is not text"]),
            (
                "issue-client-cert",
                json!({"name": "x", "subject": "x", "services": "a/b", "dry_run": "yes", "replace": 1, "validity": {"end": "2020-01-01T00:00:00Z"}}),
                &["subject: is not an object", "services:", "dry_run:", "replace:", "validity.end:", "give a later date"],
            ),
            (
                "issue-client-cert",
                json!({"name": "x", "subject": {"common_name": "x"}, "validity": {"hours": 1}}),
                &["validity:", "give a longer one"],
            ),
            ("issue-client-cert", json!({"detail-type": 5}), &["failed to read the event's envelope"]),
            (
                "issue-client-cert",
                json!({"detail-type": "Certificate Due"}),
                &["failed to read the event's envelope", "`source`"],
            ),
            ("issue-client-cert", ours("Certificate Due", json!({"prefix": "everleaf", "certificate": "a b"})), &["`a b`"]),
            // Whether the name is free is asked by creating it.
            (
                "issue-client-cert",
                json!({"name": "foreign", "subject": {"common_name": "x"}}),
                &["not Everleaf's", "choose another name"],
            ),
            ("export-to-secrets", json!({}), &["give either `certificate` (its name) or `certificate_arn`"]),
            ("export-to-secrets", json!({"arn": "x"}), &["unknown field `arn`"]),
            ("export-to-secrets", json!({"certificate_arn": nobodys, "replace": true}), &["`replace` only beside the name"]),
            ("export-to-secrets", json!({"certificate_arn": "x"}), &["`x` is not an ARN"]),
            ("export-to-secrets", json!({"certificate": "ghost"}), &["`ghost`", "tag the certificate in ACM"]),
            ("export-to-secrets", acm("arn:aws:s3:::bucket"), &["arn:aws:acm:region:account:certificate/"]),
            ("export-to-secrets", stranger.clone(), &["not for this function"]),
            ("export-to-secrets", json!(null), &["invalid type: null", "give either `certificate`"]),
            ("export-to-secrets", json!({"certificate": 5}), &["integer `5`", "give either `certificate`"]),
            ("export-to-secrets", json!({"certificate_arn": nobodys}), &[nobodys, "no tag everleaf:certificate"]),
            (
                "export-to-secrets",
                json!({"certificate_arn": badly_tagged}),
                &["everleaf:certificate: `a b`", "everleaf:service-1: `z`"],
            ),
            ("export-to-secrets", acm(""), &["`` is not an ARN"]),
            ("renew-on-expiry", json!({}), &["{\"sweep\": true}"]),
            ("renew-on-expiry", json!({"sweep": "yes"}), &["string \"yes\"", "give one of"]),
            ("renew-on-expiry", json!({"certificate": "a b"}), &["`a b`", "give one of"]),
            ("renew-on-expiry", acm("x"), &["`x` is not an ARN"]),
            ("renew-on-expiry", json!({"sweep": true, "certificate": "x"}), &["give one of"]),
            ("renew-on-expiry", json!({"retry": "x", "certificate": "x"}), &["give one of"]),
            ("renew-on-expiry", json!({"retry": "ghost"}), &["`ghost`", unknown]),
            ("renew-on-expiry", json!({"certificate": "ghost"}), &["`ghost`", unknown]),
            ("renew-on-expiry", stranger.clone(), &["not for this function"]),
            ("force-redeploy", json!({}), &["give either `certificate`"]),
            ("force-redeploy", json!({"services": ["orders"]}), &["`orders` is not a service", "cluster/service"]),
            ("force-redeploy", json!({"services": []}), &["give either `certificate`"]),
            ("force-redeploy", json!({"services": "payments/orders"}), &["string \"payments/orders\"", "give either"]),
            (
                "force-redeploy",
                ours("Certificate Current", json!({"prefix": "everleaf", "services": ["x"]})),
                &["`x` is not a service"],
            ),
            ("force-redeploy", json!({"services": ["payments/ghost"]}), &["payments/ghost", "no certificate has it redeployed"]),
            ("force-redeploy", json!({"certificate": "ghost"}), &["`ghost`", "no such certificate"]),
            ("force-redeploy", stranger, &["not for this function"]),
        ] {
            stack.aws.take_calls();
            let error = stack.handle(function, event.clone(), "request").await.expect_err(&event.to_string());
            assert_eq!(error.error_type, "Permanent", "{function} {event}: {}", error.error_message);
            for part in says {
                assert!(error.error_message.contains(part), "{function} {event}: `{part}` is not in: {}", error.error_message);
            }
            let calls = stack.aws.take_calls();
            let writes: Vec<_> = calls.iter().filter(|call| call.writes() && call.error.is_none()).map(Call::action).collect();
            assert!(writes.is_empty(), "{function} {event}: {writes:?}");
        }
    });
}

/// ECS tells of all services of the account, and old ones may have short ARNs.
#[test]
fn an_event_of_ecs_about_a_service_that_nobody_can_have_named_is_none_of_ours() {
    run(async {
        let stack = Stack::deploy().await;
        let mut event: Value =
            serde_json::from_str(include_str!("../../events/force-redeploy.ecs-deployment-failed.json")).unwrap();
        for resources in [json!(["arn:aws:ecs:eu-central-1:111122223333:service/orders"]), json!(["x"]), json!([])] {
            event["resources"] = resources;
            let answer = stack.handle("force-redeploy", event.clone(), "request").await.unwrap();
            assert_eq!(answer["outcome"], "unmanaged", "{event}");
        }
        let by_hand = json!({"services": ["arn:aws:ecs:eu-central-1:111122223333:service/orders"]});
        let error = stack.handle("force-redeploy", by_hand, "request").await.unwrap_err();
        assert!(error.error_message.contains("write `cluster/service`"), "{error:?}");
    });
}

#[test]
fn the_issuance_policy_of_the_stack_refuses_with_every_reason_at_once() {
    run(async {
        let parameters =
            [("AllowedNames", "example.internal"), ("AllowedTrustDomains", "example.internal"), ("MaxValidityDays", "30")];
        let stack = Stack::deploy_with(&[&parameters[..], &[("AllowedKeyAlgorithms", "EC_prime256v1")]].concat()).await;
        let request = json!({
            "name": "orders", "subject": {"common_name": "orders.example.com"}, "key_algorithm": "RSA_2048", "validity": {"days": 31},
            "subject_alternative_names": ["dns:orders.evilexample.internal", "uri:spiffe://example.com/orders", "ip:10.0.0.1"],
        });
        let error = stack.handle("issue-client-cert", request, "request").await.unwrap_err().error_message;
        for part in
            ["subject.common_name:", "evilexample.internal", "spiffe://example.com", "ip:10.0.0.1", "key_algorithm:", "31 days"]
        {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    });
}

/// Every value of every event in turn: a function refuses what it does not understand, and never panics.
#[test]
fn an_event_in_which_any_value_is_another_is_served_or_refused() {
    let long = "x".repeat(300);
    let odd = json!([null, true, -1, 1e300, "", "\u{0}", "../x", "9999-12-31T23:59:59Z", long, [], [null], {}, {"a": []}]);
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let (mut served, mut refused) = (0, 0);
        for file in std::fs::read_dir(workflow::root().join("events")).unwrap() {
            let file = file.unwrap();
            let event: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let name = file.file_name().into_string().unwrap();
            let function = name.split('.').next().unwrap();
            for place in places(&event) {
                for odd in odd.as_array().unwrap() {
                    let mut event = event.clone();
                    *event.pointer_mut(&place).unwrap() = odd.clone();
                    match stack.handle(function, event, &format!("{name}{place}{odd}")).await {
                        Ok(_) => served += 1,
                        Err(error) => {
                            assert_ne!(error.error_message, "", "{name} {place} {odd}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        assert!(served > 100 && refused > 100, "{served} served, {refused} refused");
    });
}

/// The pointers, RFC 6901, to a value and to all within it.
fn places(value: &Value) -> Vec<String> {
    let within: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!("/{name}"), value)).collect(),
        Value::Array(entries) => entries.iter().enumerate().map(|(index, value)| (format!("/{index}"), value)).collect(),
        _ => Vec::new(),
    };
    let below = within.into_iter().flat_map(|(step, value)| places(value).into_iter().map(move |place| format!("{step}{place}")));
    [String::new()].into_iter().chain(below).collect()
}

/// Each CSR asks for what the stack does not issue, by a means of its own.
#[test]
fn no_hostile_csr_obtains_a_certificate_or_changes_anything() {
    run(async {
        let names = [("AllowedNames", "example.com,10.0.0.0/8,2001:db8::/32"), ("AllowedTrustDomains", "example.com")];
        let stack = Stack::deploy_with(&names).await;
        minutes(5).await;
        stack.aws.take_calls();
        let csrs = std::fs::read_to_string(workflow::root().join("shared/lifecycle/tests-data/hostile.pem")).unwrap();
        for (index, csr) in csrs.split("\n# ").skip(1).enumerate() {
            let (means, pem) = csr.split_once('\n').unwrap();
            for request in [json!({"name": "orders", "csr": pem}), json!({"name": "orders", "csr": pem, "replace": true})] {
                let error = stack.handle("issue-client-cert", request, &format!("request {index}")).await.expect_err(means);
                assert_eq!(error.error_type, "Permanent", "{means}: {}", error.error_message);
            }
            let calls: Vec<_> = stack.aws.take_calls().iter().map(Call::action).collect();
            assert_eq!(calls, [""; 0], "{means}");
        }
        // The same names by a request without a CSR.
        for fields in [
            json!({"subject": {"common_name": "evil.test"}}),
            json!({"subject": {"common_name": "evil。test"}}),
            json!({"subject": {"common_name": "orders", "organization": "a\u{0}b"}}),
            json!({"subject": {"common_name": ["orders", "evil.test"]}}),
            json!({"subject": {"common_name": "orders", "domain_component": "evil.test"}}),
            json!({"subject_alternative_names": ["dns:orders.example.com", "dns:evil.test"]}),
            json!({"subject_alternative_names": ["dns:evil.test\u{0}.example.com"]}),
            json!({"subject_alternative_names": ["DNS:evil.test"]}),
            json!({"subject_alternative_names": ["dns:evil.test,dns:orders.example.com"]}),
            json!({"subject_alternative_names": ["uri:spiffe://example.com@evil.test/orders"]}),
            json!({"subject_alternative_names": ["email:ops@evil.test@example.com"]}),
            json!({"subject_alternative_names": ["ip:::ffff:192.168.0.1"]}),
            json!({"subject_alternative_names": {"dns": "orders.example.com"}}),
        ] {
            let mut request = json!({"name": "orders"});
            request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let error = stack.handle("issue-client-cert", request, "request").await.expect_err(&fields.to_string());
            assert_eq!(error.error_type, "Permanent", "{fields}: {}", error.error_message);
            let calls: Vec<_> = stack.aws.take_calls().iter().map(Call::action).collect();
            assert_eq!(calls, [""; 0], "{fields}");
        }
        assert_eq!(stack.record("orders").await, None);
    });
}

/// Whoever may put events on the bus may put Everleaf's own.
#[test]
fn a_forged_event_brings_about_nothing_that_is_not_due() {
    run(async {
        let stack = Stack::deploy().await;
        act(&stack, "issue-client-cert", order()).await;
        service(&stack, "payments/orders", &["orders"]).await;
        service(&stack, "payments/gateway", &[]).await;
        service(&stack, "payments/bystander", &[]).await;
        request(&stack, "gateway", false).await;
        minutes(60).await;
        lose_deliveries(&stack);
        let mut smuggled = order();
        smuggled["prefix"] = json!("everleaf");
        smuggled["certificate"] = json!("orders");
        smuggled["subject_alternative_names"] = json!(["dns:evil.test"]);
        smuggled["replace"] = json!(true);
        smuggled["services"] = json!(["payments/bystander"]);
        let of = |certificate: &str, services: &[&str]| json!({"prefix": "everleaf", "certificate": certificate, "services": services, "reason": "revoked", "serial_number": "a01"});
        let since = Since::now(&stack);
        for (function, detail_type, detail) in [
            ("issue-client-cert", "Certificate Due", smuggled),
            ("issue-client-cert", "Certificate Due", of("gateway", &[])),
            ("export-to-secrets", "Export Due", of("gateway", &["payments/bystander"])),
            ("export-to-secrets", "Export Due", of("orders", &[])),
            (
                "force-redeploy",
                "Certificate Current",
                of("orders", &["payments/orders", "payments/gateway", "payments/bystander"]),
            ),
            ("refresh-truststore", "Trust Due", of("orders", &[])),
        ] {
            let event = json!({"detail-type": detail_type, "source": "everleaf", "resources": [], "detail": detail});
            // Some are refused, and some find nothing to do.
            _ = stack.handle(function, event, "forged").await;
        }
        let seen = since.seen(&stack);
        let writes: Vec<_> = seen.calls.iter().filter(|call| call.writes() && call.error.is_none()).map(Call::action).collect();
        assert_eq!((seen.effects.to_string(), writes), (String::new(), Vec::new()));
    });
}
