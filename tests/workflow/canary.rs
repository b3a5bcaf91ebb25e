//! No key and no passphrase leaves the secrets: everything that a flow logs, answers, publishes, tags or stores is looked through.

use std::collections::BTreeSet;

use lambda_runtime::tracing::dispatcher;
use local_aws::{Fault, elbv2, pca, s3};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use workflow::Stack;
use workflow::leaks::Log;

use crate::scenario::{days, order, order_for_listener, request, run, service, user};

/// The needles: every passphrase, and lines out of the middle of every private key, as they stand in any version of any secret; and
/// the same of each key without its encryption.
fn needles(stack: &Stack) -> BTreeSet<String> {
    let values: Vec<String> = stack.aws.world(|world, _| {
        let versions = world.secrets.secrets().flat_map(|secret| &secret.versions);
        versions.filter_map(|version| version.secret_string.clone()).collect()
    });
    let mut needles = BTreeSet::from(["PRIVATE KEY-----".to_owned()]);
    for value in values {
        let value: Value = serde_json::from_str(&value).unwrap();
        let (Some(pem), passphrase) = (value["private_key"].as_str(), value["passphrase"].as_str()) else { continue };
        needles.extend(passphrase.map(str::to_owned));
        let middle = |pem: &str| {
            pem.lines().filter(|line| line.len() >= 40 && !line.starts_with("--")).map(str::to_owned).collect::<Vec<_>>()
        };
        needles.extend(middle(pem));
        let key = material::Key { pem: pem.into(), passphrase: passphrase.map(Into::into) };
        let plain = material::Key::seal(key.open().unwrap().as_bytes(), lifecycle::record::KeyFormat::Plain).unwrap();
        needles.extend(middle(plain.pem.expose_secret()));
    }
    needles
}

fn found(haystack: &str, needles: &BTreeSet<String>) -> Vec<String> {
    // Text may stand escaped inside of text.
    let haystack = haystack.replace("\\\\n", "\n").replace("\\n", "\n");
    needles.iter().filter(|needle| haystack.contains(needle.as_str())).cloned().collect()
}

#[test]
fn keys_and_passphrases_are_in_the_secrets_and_nowhere_else() {
    let log = Log::default();
    let writer = log.clone();
    // As the functions log, for every crate and every test of the process from now on.
    dispatcher::set_global_default(runtime::logging(true, move || writer.clone())).unwrap();
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[("CrlBucketArns", "arn:aws:s3:::crls")]).await;
        let listener = stack.aws.world(|world, now| {
            s3::create_bucket(world, "crls");
            pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
            elbv2::create_listener(world, now, "clients", 8443)
        });
        let mut said = String::new();
        let mut plain = order();
        (plain["name"], plain["key_format"]) = (json!("plain"), json!("plain"));
        for request in [order(), plain, json!({"name": "refused", "usage": "none"})] {
            said += &format!("{:?}", stack.handle("issue-client-cert", request, "request").await);
        }
        let mut listener_too = order_for_listener();
        listener_too["name"] = json!("listener");
        said += &format!("{:?}", stack.handle("issue-client-cert", listener_too, "request").await);
        service(&stack, "payments/orders", &["orders"]).await;
        request(&stack, "gateway", false).await;
        // Somebody puts a key where CAs belong, and takes it for lost.
        let bucket = stack.template.function("refresh-truststore").unwrap().environment["EVERLEAF_BUCKET"].clone();
        let lost = stack.aws.world(|world, now| {
            let secret = world.secrets.value("everleaf/plain", None, Some("AWSCURRENT")).unwrap();
            let key = serde_json::from_str::<Value>(secret).unwrap()["private_key"].as_str().unwrap().as_bytes().to_vec();
            s3::put(world, now, &bucket, "trust/extra/clients/key.pem", key)
        });
        lost.unwrap();
        let declaration = json!({
            "name": "clients", "certificate_authority_arns": [stack.issuing_ca],
            "listeners": [{"listener_arn": listener, "clients": ["orders"]}],
        });
        said += &format!("{:?}", stack.handle("refresh-truststore", json!({"declare": declaration}), "declare").await);
        assert!(said.contains("it holds a `PRIVATE KEY`"), "{said}");
        for (name, reason) in [("plain", "KEY_COMPROMISE"), ("orders", "SUPERSEDED")] {
            let serial = stack.record(name).await.unwrap().current.unwrap().serial;
            let revoke = json!({"revoke": name, "serial_number": serial, "reason": reason});
            said += &format!("{:?}", stack.handle("issue-client-cert", revoke, name).await);
        }
        // The key of a first attempt is read again, and the answer with it is not understood.
        stack.aws.set_faults(Some(Box::new(|call| {
            (call.operation == "IssueCertificate").then(|| Fault::Refuse(local_aws::AwsError::internal()))
        })));
        let mut garbled = order();
        garbled["name"] = json!("garbled");
        said += &format!("{:?}", stack.handle("issue-client-cert", garbled.clone(), "first").await);
        let secret =
            stack.aws.world(|world, _| world.secrets.value("everleaf/orders", None, Some("AWSCURRENT")).unwrap().to_owned());
        stack.aws.set_faults(Some(Box::new(move |call| {
            let answer = json!({"SecretString": secret, "CreatedDate": "today"});
            (call.operation == "GetSecretValue").then_some(Fault::Answer(answer))
        })));
        let error = stack.handle("issue-client-cert", garbled, "first").await.unwrap_err();
        assert!(error.error_message.contains("failed to parse JSON"), "{}", error.error_message);
        said += &format!("{error:?}");
        // Each writing call fails once in the course of the weeks, some for good.
        let mut count = 0;
        stack.aws.set_faults(Some(Box::new(move |call| {
            count += 1;
            match count % 23 {
                _ if call.caller == "user" => None,
                0 => Some(Fault::Refuse(local_aws::AwsError::new("AccessDeniedException", "not you"))),
                7 => Some(Fault::LoseAnswer),
                11 => Some(Fault::Refuse(local_aws::AwsError::internal())),
                _ => None,
            }
        })));
        days(60).await;
        stack.aws.set_faults(None);
        days(2).await;
        let needles = needles(&stack);
        assert!(needles.len() > 20, "there is something to look for");
        stack.aws.world(|world, _| {
            for (table, item) in world.dynamodb.items() {
                said += &format!("{table:?} {item:?}\n");
            }
            for secret in world.secrets.secrets() {
                said += &format!("{} {:?}\n", secret.name, secret.tags);
            }
            let written = [(bucket.as_str(), "trust/out/"), (bucket.as_str(), "report/"), ("crls", "")];
            for (bucket, key) in
                written.iter().flat_map(|(bucket, below)| world.s3.keys(bucket, below).into_iter().map(move |key| (bucket, key)))
            {
                said += &format!("{key} {}\n", String::from_utf8_lossy(world.s3.object(bucket, &key).unwrap()));
            }
        });
        let queues: BTreeSet<_> =
            stack.template.functions.iter().filter_map(|function| function.on_failure_queue_arn.clone()).collect();
        stack.aws.world(|world, _| {
            for queue in &queues {
                let messages = world.sqs.messages(queue);
                assert!(!messages.is_empty(), "failures left their inputs");
                said +=
                    &messages.iter().map(|message| format!("{} {:?}\n", message.body, message.attributes)).collect::<String>();
            }
        });
        for event in stack.aws.take_events() {
            said += &event.event.to_string();
        }
        for kept in [
            "\"trust\"",
            "acm_certificate_arn",
            "Certificate Revoked",
            "trust/out/stores.json {",
            "trust/out/clients/",
            "report/report.html <!doctype html>",
            "\"certificate\":\"orders\"",
            ".crl.pem -----BEGIN X509 CRL-----",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(said.contains(kept), "{kept} was looked through");
        }
        for invocation in stack.aws.take_invocations() {
            said += &format!("{:?}\n", invocation);
        }
        for call in
            stack.aws.take_calls().iter().filter(|call| call.service != "secretsmanager" && call.operation != "ExportCertificate")
        {
            said += &format!("{:?}\n", call);
        }
        let environment: Vec<_> = stack.template.functions.iter().map(|function| function.environment.clone()).collect();
        said += &format!("{environment:?}");
        assert_eq!(found(&said, &needles), [""; 0]);
        let logged = log.take();
        assert!(logged.contains("Made serial"), "the functions' own lines were caught");
        assert_eq!(found(&logged, &needles), [""; 0]);
        // The scanner sees a leak: in an event, escaped in a log line, a passphrase in an error.
        let secret =
            stack.aws.world(|world, _| world.secrets.value("everleaf/orders", None, Some("AWSCURRENT")).unwrap().to_owned());
        let passphrase = serde_json::from_str::<Value>(&secret).unwrap()["passphrase"].as_str().unwrap().to_owned();
        user(&stack, "events:PutEvents", json!({"Entries": [{"Source": "leak", "DetailType": "Leak", "Detail": secret}]})).await;
        let leaked = stack.aws.take_events().iter().map(|event| event.event.to_string()).collect::<String>();
        assert!(found(&leaked, &needles).len() > 3);
        assert!(found(&format!("{secret:?}"), &needles).len() > 3);
        assert_eq!(found(&format!("failed with {passphrase}"), &needles), [passphrase]);
    });
}
