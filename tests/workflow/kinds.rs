//! Every kind of certificate, with `openssl` as the second opinion.

use std::io::Write;
use std::process::{Command, Stdio};

use local_aws::pca;
use serde_json::{Value, json};
use workflow::Stack;

use crate::scenario::{days, run};

/// What `openssl` prints; it must succeed.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn secret(stack: &Stack, name: &str) -> Value {
    let value =
        stack.aws.world(|world, _| world.secrets.value(&format!("everleaf/{name}"), None, Some("AWSCURRENT")).map(str::to_owned));
    serde_json::from_str(&value.unwrap()).unwrap()
}

/// Key, leaf and chain belong together, in the eyes of `openssl` at the time of the account; the leaf in words.
fn check(stack: &Stack, value: &Value) -> String {
    let text = |field: &str| value[field].as_str().unwrap();
    if value.get("private_key").is_some() {
        let password = value.get("passphrase").map_or_else(|| "pass:".to_owned(), |_| format!("pass:{}", text("passphrase")));
        let of_key = openssl(&["pkey", "-passin", &password, "-pubout"], text("private_key"));
        assert_eq!(of_key, openssl(&["x509", "-noout", "-pubkey"], text("certificate")));
    }
    let roots = std::env::temp_dir().join(format!("everleaf-{}-{:?}.pem", std::process::id(), std::thread::current().id()));
    std::fs::write(&roots, text("certificate_chain")).unwrap();
    let at = stack.aws.now().unix_timestamp().to_string();
    let verified = openssl(&["verify", "-x509_strict", "-attime", &at, "-CAfile", roots.to_str().unwrap()], text("certificate"));
    std::fs::remove_file(&roots).unwrap();
    assert!(verified.contains("OK"), "{verified}");
    openssl(&["x509", "-noout", "-text"], text("certificate"))
}

mod every_usage_comes_out_as_asked_with_a_key_of {
    use super::comes_out_as_asked as check;

    #[test]
    fn ec_prime256v1_from_a_ca_of_ec_secp384r1() {
        check("EC_prime256v1", "NIST CURVE: P-256", "EC_secp384r1");
    }

    #[test]
    fn ec_secp384r1_from_a_ca_of_ec_prime256v1() {
        check("EC_secp384r1", "NIST CURVE: P-384", "EC_prime256v1");
    }

    #[test]
    fn rsa_2048_from_a_ca_of_rsa_4096() {
        check("RSA_2048", "(2048 bit)", "RSA_4096");
    }

    #[test]
    fn rsa_3072_from_a_ca_of_rsa_2048() {
        check("RSA_3072", "(3072 bit)", "RSA_2048");
    }

    #[test]
    fn rsa_4096_from_a_ca_of_ec_prime256v1() {
        check("RSA_4096", "(4096 bit)", "EC_prime256v1");
    }
}

fn comes_out_as_asked(algorithm: &str, key: &str, ca: &str) {
    run(async {
        let stack = Stack::deploy_on(ca, &[]).await;
        let (client, server) = ("TLS Web Client Authentication", "TLS Web Server Authentication");
        for (usage, format, expected) in [
            ("client", "encrypted", vec![client]),
            ("server", "plain", vec![server]),
            ("client-and-server", "encrypted", vec![server, client]),
        ] {
            let request = json!({"name": usage, "subject": {"common_name": usage}, "key_algorithm": algorithm, "usage": usage, "key_format": format});
            stack.handle("issue-client-cert", request, usage).await.unwrap();
            let value = secret(&stack, usage).await;
            let text = check(&stack, &value);
            assert!(text.contains(key), "{algorithm}: {text}");
            assert!(text.contains(&format!("{}\n", expected.join(", "))), "{usage}: {text}");
            assert!(text.contains("Digital Signature, Key Encipherment"), "{text}");
            assert_eq!(value.get("passphrase").is_some(), format == "encrypted");
            let header =
                if format == "encrypted" { "-----BEGIN ENCRYPTED PRIVATE KEY-----" } else { "-----BEGIN PRIVATE KEY-----" };
            assert!(value["private_key"].as_str().unwrap().starts_with(header));
        }
    });
}

#[test]
fn every_kind_of_name_and_every_attribute_of_the_subject_is_in_the_leaf() {
    run(async {
        let stack = Stack::deploy().await;
        let request = json!({
            "name": "names", "usage": "client",
            "subject": {"common_name": "Jürgen", "organization": "Example Ltd", "organizational_unit": "Payments", "country": "DE",
                        "state": "Hessen", "locality": "Frankfurt"},
            "subject_alternative_names": ["dns:a.example.com", "dns:*.b.example.com", "uri:spiffe://example.com/a", "uri:https://example.com/x",
                                          "ip:10.1.2.3", "ip:2001:db8::7", "email:ops@example.com"],
        });
        stack.handle("issue-client-cert", request, "names").await.unwrap();
        let value = secret(&stack, "names").await;
        let text = check(&stack, &value);
        for part in [
            "DNS:a.example.com",
            "DNS:*.b.example.com",
            "URI:spiffe://example.com/a",
            "URI:https://example.com/x",
            "IP Address:10.1.2.3",
            "IP Address:2001:DB8:0:0:0:0:0:7",
            "email:ops@example.com",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        let subject =
            openssl(&["x509", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8"], value["certificate"].as_str().unwrap());
        assert_eq!(subject.trim(), "subject=CN=Jürgen,OU=Payments,O=Example Ltd,L=Frankfurt,ST=Hessen,C=DE");
    });
}

#[test]
fn a_callers_key_stays_with_the_caller_and_the_answer_carries_the_certificate() {
    run(async {
        let stack = Stack::deploy().await;
        let key = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "");
        let file = std::env::temp_dir().join(format!("everleaf-csr-{}.pem", std::process::id()));
        std::fs::write(&file, &key).unwrap();
        let csr = openssl(
            &[
                "req",
                "-new",
                "-key",
                file.to_str().unwrap(),
                "-subj",
                "/CN=partner",
                "-addext",
                "subjectAltName=DNS:partner.example.com",
                "-addext",
                "basicConstraints=CA:TRUE",
                "-addext",
                "extendedKeyUsage=codeSigning",
            ],
            "",
        );
        std::fs::remove_file(&file).unwrap();
        let request = json!({"name": "partner", "csr": csr});
        let answer = stack.handle("issue-client-cert", request.clone(), "first").await.unwrap();
        let value = secret(&stack, "partner").await;
        assert!(value.get("private_key").is_none() && value.get("passphrase").is_none());
        assert_eq!(answer["certificate_pem"], value["certificate"]);
        assert_eq!(answer["certificate_chain_pem"], value["certificate_chain"]);
        let text = check(&stack, &value);
        assert!(
            text.contains("DNS:partner.example.com") && text.contains("CA:FALSE") && !text.contains("Code Signing"),
            "{text}"
        );
        let public = openssl(&["pkey", "-pubout"], &key);
        assert_eq!(public, openssl(&["x509", "-noout", "-pubkey"], value["certificate"].as_str().unwrap()));
        let again = stack.handle("issue-client-cert", request, "second").await.unwrap();
        assert_eq!((&again["outcome"], &again["certificate_pem"]), (&json!("unchanged"), &value["certificate"]));
    });
}

#[test]
fn dry_run_replace_and_unchanged_do_what_they_say() {
    run(async {
        let stack = Stack::deploy().await;
        let ask = async |extra: Value| {
            let mut request = json!({"name": "orders", "subject": {"common_name": "orders"}, "validity": {"days": 10}});
            request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            stack.aws.take_calls();
            let answer = stack.handle("issue-client-cert", request, &extra.to_string()).await;
            let wrote = stack.aws.take_calls().iter().any(local_aws::Call::writes);
            (answer, wrote)
        };
        let outcome = |answer: &Result<Value, _>| answer.as_ref().map(|answer| answer["outcome"].clone()).ok();
        let (planned, wrote) = ask(json!({"dry_run": true})).await;
        assert_eq!((outcome(&planned), wrote), (Some(json!("planned")), false));
        let (issued, _) = ask(json!({})).await;
        assert_eq!(outcome(&issued), Some(json!("issued")));
        for request in [json!({}), json!({"dry_run": true}), json!({"replace": true})] {
            let (unchanged, wrote) = ask(request.clone()).await;
            assert_eq!((outcome(&unchanged), wrote), (Some(json!("unchanged")), false), "{request}");
        }
        let (refused, wrote) = ask(json!({"usage": "server"})).await;
        let refused = refused.unwrap_err();
        assert!(
            refused.error_message.contains("differs in usage") && refused.error_message.contains("`replace`"),
            "{}",
            refused.error_message
        );
        assert!(!wrote);
        let (planned, wrote) = ask(json!({"usage": "server", "replace": true, "dry_run": true})).await;
        assert_eq!((outcome(&planned), wrote), (Some(json!("planned")), false));
        let (replaced, _) = ask(json!({"usage": "server", "replace": true})).await;
        assert_eq!(outcome(&replaced), Some(json!("issued")));
        assert_ne!(replaced.unwrap()["serial_number"], issued.unwrap()["serial_number"]);
        let (options, _) = ask(json!({"usage": "server", "services": ["payments/orders"], "replace": true})).await;
        assert_eq!(outcome(&options), Some(json!("unchanged")), "services change, the certificate does not");
        let services = stack.record("orders").await.unwrap().options.services;
        assert_eq!(services, ["payments/orders".parse().unwrap()].into());
    });
}

#[test]
fn an_end_that_was_asked_for_stays_the_end_though_the_ca_issues_days_later_and_the_request_is_repeated() {
    run(async {
        let stack = Stack::deploy().await;
        let end = (stack.aws.now() + time::Duration::days(40)).replace_nanosecond(0).unwrap();
        let until = end.format(&time::format_description::well_known::Rfc3339).unwrap();
        let ask = json!({"name": "by-end", "subject": {"common_name": "by-end"}, "validity": {"end": until}});
        let enable = |enabled| stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, enabled)).unwrap();
        enable(false);
        for _ in 0..2 {
            stack.handle("issue-client-cert", ask.clone(), "disabled").await.unwrap_err();
            days(1).await;
        }
        enable(true);
        days(2).await;
        let not_after = |record: lifecycle::record::Record| *record.current.expect("issued by the sweep").not_after;
        assert_eq!(not_after(stack.record("by-end").await.unwrap()), end);
        assert_eq!(stack.handle("issue-client-cert", ask, "again").await.unwrap()["outcome"], "unchanged");
        // The next one lives as long, from then on.
        days(35).await;
        assert!(not_after(stack.record("by-end").await.unwrap()) > end + time::Duration::days(20));
    });
}

#[test]
fn validity_in_hours_days_and_to_an_end_is_kept_to_the_second() {
    run(async {
        let stack = Stack::deploy().await;
        let until = "2027-03-01T12:00:00Z";
        for (name, validity) in
            [("by-hours", json!({"hours": 36})), ("by-days", json!({"days": 45})), ("by-end", json!({"end": until}))]
        {
            let began = stack.aws.now();
            let request = json!({"name": name, "subject": {"common_name": name}, "validity": validity});
            let answer = stack.handle("issue-client-cert", request, name).await.unwrap();
            let parse = |field: &str| {
                let format = &time::format_description::well_known::Rfc3339;
                time::OffsetDateTime::parse(answer[field].as_str().unwrap(), format).unwrap()
            };
            let (not_before, not_after) = (parse("not_before"), parse("not_after"));
            assert!(not_before <= began - time::Duration::minutes(59), "backdated by an hour: {not_before}");
            match name {
                "by-end" => assert_eq!(answer["not_after"], json!(until)),
                _ => {
                    let hours = if name == "by-hours" { 36 } else { 45 * 24 };
                    let error = not_after - began - time::Duration::hours(hours);
                    assert!(error.abs() < time::Duration::seconds(5), "{name}: {error}");
                }
            }
        }
    });
}
