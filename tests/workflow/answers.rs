//! AWS answers something else than what was asked for: it never becomes current, and a person is told.

use local_aws::Fault;
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::{Since, Watch, staged};
use crate::scenario::{acm_available_renewal, act, certificate_due, run, user};

/// What is known of the right answer, to make wrong ones of.
struct Right {
    certificate: String,
    chain: String,
    /// Of another certificate of the same CA, as its secret holds it.
    other: Value,
}

impl Right {
    fn answers(&self) -> Vec<(&'static str, &'static str, Value)> {
        let Self { certificate, chain, other } = self;
        let end = "-----END CERTIFICATE-----\n";
        let (issuing, root) = chain.split_at(chain.find(end).unwrap() + end.len());
        let answer = |certificate: &str, chain: &str| json!({"Certificate": certificate, "CertificateChain": chain});
        vec![
            (
                "the leaf of another key",
                "does not belong to the certificate",
                answer(other["certificate"].as_str().unwrap(), chain),
            ),
            ("no PEM", "not readable", answer("certificate", chain)),
            ("two leaves", "2 certificates in place of one", answer(&format!("{certificate}\n{certificate}"), chain)),
            ("no root", "out of order", answer(certificate, issuing)),
            ("no issuing CA", "out of order", answer(certificate, root)),
            ("the chain upside down", "out of order", answer(certificate, &format!("{root}{issuing}"))),
            ("a chain that is no PEM", "there is no chain", answer(certificate, "chain")),
        ]
    }
}

#[test]
fn a_wrong_answer_of_the_ca_never_becomes_current() {
    for number in 0.. {
        let over = run(async {
            let (stack, event) = certificate_due().begin().await;
            let right = asked_for(&stack, &event).await;
            let Some((what, why, answer)) = right.answers().into_iter().nth(number) else { return true };
            refuses(&stack, "issue-client-cert", event, "GetCertificate", &answer, what, why).await;
            false
        });
        if over {
            break;
        }
    }
}

/// Same key, same CA: but another usage, another end.
#[test]
fn a_certificate_that_is_not_what_was_asked_for_never_becomes_current() {
    for (template, days, why) in [
        ("EndEntityServerAuthCertificate/V1", 30, "its extended key usage is not what was asked for"),
        ("EndEntityClientAuthCertificate/V1", 20, "its expiry is not what was asked for"),
    ] {
        run(async {
            let (stack, event) = certificate_due().begin().await;
            asked_for(&stack, &event).await;
            let csr = stack.aws.world(|world, _| {
                let waiting = staged(world.secrets.find("everleaf/orders").unwrap(), "everleaf-key").unwrap();
                serde_json::from_str::<Value>(waiting.secret_string.as_ref().unwrap()).unwrap()["csr"].clone()
            });
            let issue = json!({
                "CertificateAuthorityArn": stack.issuing_ca, "Csr": base64(csr.as_str().unwrap()), "SigningAlgorithm": "SHA256WITHECDSA",
                "TemplateArn": format!("arn:aws:acm-pca:::template/{template}"), "Validity": {"Type": "DAYS", "Value": days},
            });
            let certificate_arn = user(&stack, "acm-pca:IssueCertificate", issue).await["CertificateArn"].clone();
            let answer = fetched(&stack, &certificate_arn).await;
            refuses(&stack, "issue-client-cert", event, "GetCertificate", &answer, template, why).await;
        });
    }
}

#[test]
fn a_wrong_export_of_acm_never_becomes_current() {
    for number in 0.. {
        let over = run(async {
            let (stack, event) = acm_available_renewal().begin().await;
            let arn = json!({"CertificateArn": event["resources"][0]});
            let right = user(&stack, "acm:GetCertificate", arn.clone()).await;
            let under_another = json!({"CertificateArn": arn["CertificateArn"], "Passphrase": base64("another one")});
            let exported = user(&stack, "acm:ExportCertificate", under_another).await;
            let chain = right["CertificateChain"].as_str().unwrap();
            let root = &chain[chain.find("-----END CERTIFICATE-----\n").unwrap() + 26..];
            let with = |member: &str, value: Value| {
                let mut answer = exported.clone();
                answer[member] = value;
                answer
            };
            let answers = [
                ("a key under another passphrase", "the passphrase does not open", exported.clone()),
                ("a key that is no PEM", "not PEM", with("PrivateKey", json!("key"))),
                ("no key", "without certificate, chain or key", with("PrivateKey", Value::Null)),
                ("no issuing CA", "does not open", with("CertificateChain", json!(root))),
            ];
            let Some((what, why, answer)) = answers.get(number) else { return true };
            refuses(&stack, "export-to-secrets", event, "ExportCertificate", answer, what, why).await;
            false
        });
        if over {
            break;
        }
    }
}

/// Lets the handler ask the CA and end there, and has a certificate of the same kind issued beside it.
async fn asked_for(stack: &Stack, event: &Value) -> Right {
    act(stack, "issue-client-cert", json!({"name": "other", "subject": {"common_name": "other"}})).await;
    let other = stack.aws.world(|world, _| world.secrets.value("everleaf/other", None, None).map(str::to_owned)).unwrap();
    stack.aws.set_faults(Some(Box::new(|call| (call.operation == "GetCertificate").then_some(Fault::Crash))));
    tokio::select! {
        () = stack.aws.hung() => {}
        answer = stack.handle("issue-client-cert", event.clone(), "first") => panic!("{answer:?}"),
    }
    stack.aws.set_faults(None);
    let attempt = stack.record("orders").await.unwrap().attempt.unwrap();
    let answer = fetched(stack, &json!(attempt.certificate_arn)).await;
    let text = |member: &str| answer[member].as_str().unwrap().to_owned();
    Right { certificate: text("Certificate"), chain: text("CertificateChain"), other: serde_json::from_str(&other).unwrap() }
}

async fn fetched(stack: &Stack, certificate_arn: &Value) -> Value {
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let input = json!({"CertificateAuthorityArn": stack.issuing_ca, "CertificateArn": certificate_arn});
    user(stack, "acm-pca:GetCertificate", input).await
}

/// The handler meets that answer: it fails for good and says why, nothing is staged, and what was current still is.
async fn refuses(stack: &Stack, function: &str, event: Value, operation: &'static str, answer: &Value, what: &str, why: &str) {
    let stages = || {
        let stages = |stage| {
            let current =
                |name| stack.aws.world(|world, _| staged(world.secrets.find(name)?, stage).map(|version| version.id.clone()));
            ["everleaf/orders", "everleaf/gateway"].map(current)
        };
        ["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"].map(stages)
    };
    let (before, instead) = (stages(), answer.clone());
    let watch = Watch::over(stack, move |call| (call.operation == operation).then(|| Fault::Answer(instead.clone())));
    let since = Since::now(stack);
    let error = stack.handle(function, event, "first").await.expect_err(what);
    assert_eq!((error.error_type.as_str(), error.error_message.contains(why)), ("Permanent", true), "{what}: {error:?}");
    assert_eq!(stages(), before, "{what}");
    assert_eq!(since.seen(stack).effects.count("Action Required"), 1, "{what}");
    watch.assert_good(stack, what);
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}
