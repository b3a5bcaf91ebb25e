//! CAs of every kind, and what their certificates wait for on the way to a listener.

use std::collections::BTreeSet;

use local_aws::pca::DEFAULT_SHARE;
use local_aws::{AwsError, Call, Fault, elbv2, pca, s3};
use serde_json::{Value, json};
use workflow::Stack;

use crate::scenario::{act, days, last_event, lose_deliveries, minutes, order, request, run, service, user};
use crate::trust::{BUCKET, Site, published, store_arn};

/// The reasons of which a person was told since this was last asked.
fn told(stack: &Stack) -> Vec<String> {
    let reason = |event: Value| event["detail"]["reason"].as_str().unwrap().to_owned();
    published(stack, "Action Required").into_iter().map(reason).collect()
}

fn count(calls: &[Call], operation: &str) -> usize {
    calls.iter().filter(|call| call.operation == operation && call.error.is_none()).count()
}

/// What is current in a secret, as text; `{}` before anything is.
fn current(stack: &Stack, name: &str) -> String {
    stack.aws.world(|world, _| world.secrets.value(&format!("everleaf/{name}"), None, Some("AWSCURRENT")).unwrap().to_owned())
}

async fn issuer(stack: &Stack, name: &str) -> Option<String> {
    stack.record(name).await?.current?.issuer.map(|issuer| issuer.to_string())
}

/// The store `clients` of `site` with these CAs, in which every listener may begin at once.
fn with_authorities(site: &Site, authorities: &[&str]) -> Value {
    let mut declaration = site.declaration();
    declaration["certificate_authority_arns"] = json!(authorities);
    declaration
}

/// The stores are declared anew in what is kept, and no function has looked since.
async fn declared_unseen(stack: &Stack, authority: &str) {
    let records = stack.records();
    let mut stores = records.stores().await.unwrap().unwrap();
    for store in stores.stores.values_mut() {
        store.declaration.certificate_authority_arns.insert(authority.parse().unwrap());
    }
    assert_eq!(records.save_stores(&mut stores).await.unwrap(), records::table::Saved::Done);
}

/// The whole days that a CA has left.
async fn days_left(stack: &Stack, authority: &str) -> u64 {
    let asked = json!({"CertificateAuthorityArn": authority});
    let described = user(stack, "acm-pca:DescribeCertificateAuthority", asked).await;
    let end = described["CertificateAuthority"]["NotAfter"].as_f64().unwrap() as i64;
    (end - stack.aws.now().unix_timestamp()) as u64 / 86_400
}

#[test]
fn what_would_outlive_its_ca_is_refused_before_anything_is_begun_until_the_ca_is_renewed() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        act(&stack, "issue-client-cert", order()).await;
        days(days_left(&stack, &stack.issuing_ca).await - 20).await;
        let mut late = order();
        (late["name"], late["validity"]) = (json!("late"), json!({"days": 30}));
        let error = stack.handle("issue-client-cert", late.clone(), "late").await.unwrap_err();
        assert_eq!(error.error_type, "Permanent", "{error:?}");
        let why = "itself; ask for less, renew the CA, or name another one";
        assert!(error.error_message.contains(why) && error.error_message.contains(&stack.issuing_ca), "{error:?}");
        assert!(stack.record("late").await.is_none());
        late["validity"] = json!({"days": 15});
        assert_eq!(act(&stack, "issue-client-cert", late.clone()).await["outcome"], "issued");
        for authority in [&stack.root_ca, &stack.issuing_ca] {
            stack.aws.world(|world, now| pca::renew_authority(world, now, authority)).unwrap();
        }
        (late["name"], late["validity"]) = (json!("later"), json!({"days": 30}));
        assert_eq!(act(&stack, "issue-client-cert", late).await["outcome"], "issued");
    });
}

#[test]
fn what_its_ca_has_issued_and_waits_is_not_held_against_the_end_of_the_ca() {
    run(async {
        let mut site = Site::with(&[]).await;
        let second = site.new_authority("Example Second CA");
        site.stack.update(&[("AllowedCaArns", &second)]).await;
        site.declare(site.declaration()).await;
        let stack = &site.stack;
        declared_unseen(stack, &second).await;
        lose_deliveries(stack);
        days(days_left(stack, &second).await - 31).await;
        let mut asked = order();
        (asked["certificate_authority_arn"], asked["validity"]) = (json!(second), json!({"days": 30}));
        for _ in 0..2 {
            assert_eq!(act(stack, "issue-client-cert", asked.clone()).await["outcome"], "waiting-for-trust");
            days(3).await;
        }
    });
}

#[test]
fn a_short_lived_ca_issues_for_seven_days_at_most_and_more_is_refused_before_anything_is_begun() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        stack.aws.world(|world, _| pca::make_short_lived(world, &stack.issuing_ca)).unwrap();
        for (n, validity) in [json!({"days": 30}), json!(null), json!({"hours": 169})].into_iter().enumerate() {
            for dry_run in [true, false] {
                let mut order = order();
                (order["validity"], order["dry_run"]) = (validity.clone(), json!(dry_run));
                let error = stack.handle("issue-client-cert", order, &format!("{n} {dry_run}")).await.unwrap_err();
                assert_eq!(error.error_type, "Permanent", "{error:?}");
                let why = "is in short-lived mode, whose certificates last 7 days at most; ask for";
                assert!(error.error_message.contains(why), "{error:?}");
            }
        }
        let calls = stack.aws.take_calls();
        let begun: Vec<_> = calls.iter().filter(|call| call.caller == "issue-client-cert" && call.writes()).collect();
        assert!(begun.is_empty() && stack.aws.world(|world, _| world.secrets.secrets().count()) == 0, "{begun:#?}");
        for (name, days) in [("orders", 5), ("longest", 7)] {
            let mut order = order();
            (order["name"], order["validity"]) = (json!(name), json!({"days": days}));
            assert_eq!(act(stack, "issue-client-cert", order).await["outcome"], "issued");
        }
        site.declare(site.declaration()).await;
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        let first = stack.record("orders").await.unwrap().current.unwrap().serial;
        days(5).await;
        assert_ne!(stack.record("orders").await.unwrap().current.unwrap().serial, first, "renewed in time");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}

#[test]
fn a_shared_ca_issues_what_its_owner_shares_and_its_clients_are_let_in() {
    run(async {
        let mut site = Site::with(&[]).await;
        let shared = site.new_authority("Example Shared CA");
        let shared = site.stack.aws.world(|world, now| pca::share(world, now, &shared, DEFAULT_SHARE)).unwrap();
        site.stack.update(&[("AllowedCaArns", &shared)]).await;
        let report = site.declare(with_authorities(&site, &[&shared])).await;
        assert_eq!(report["outcome"], "created", "{report:#}");
        assert_eq!(site.subjects().await, ["Example Root CA", "Example Shared CA"]);
        let ask = |name: &str, usage: &str| {
            json!({
                "name": name, "subject": {"common_name": name}, "usage": usage, "certificate_authority_arn": shared,
            })
        };
        assert_eq!(act(&site.stack, "issue-client-cert", ask("orders", "client-and-server")).await["outcome"], "issued");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        for usage in ["client", "server"] {
            let error = site.stack.handle("issue-client-cert", ask(usage, usage), usage).await.unwrap_err();
            assert_eq!(error.error_type, "Permanent", "{error:?}");
            assert!(error.error_message.contains("AccessDenied") && error.error_message.contains(&shared), "{error:?}");
            assert_eq!(current(&site.stack, usage), "{}");
        }
        // Its renewal needs no more than its first.
        days(25).await;
        assert_eq!(site.client("orders", "AWSPREVIOUS"), "Success");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}

#[test]
fn of_acms_certificate_of_a_retired_ca_a_person_is_told_daily_until_the_tags_are_on_one_of_the_successor() {
    run(async {
        let mut site = Site::with(&[]).await;
        let tags = json!([
            {"Key": "everleaf:certificate", "Value": "everleaf/gateway"}, {"Key": "everleaf:service-1", "Value": "payments/gateway"},
        ]);
        service(&site.stack, "payments/gateway", &["gateway"]).await;
        service(&site.stack, "payments/portal", &["gateway"]).await;
        let old_arn = request(&site.stack, "gateway", false).await;
        site.declare(site.declaration()).await;
        days(1).await;
        assert_eq!(site.client("gateway", "AWSCURRENT"), "Success");
        let (old, new) = (site.stack.issuing_ca.clone(), site.new_authority("Example New Issuing CA"));
        site.stack.update(&[("IssuingCaArn", &new), ("RetiredCas", &format!("{old}={new}"))]).await;
        told(&site.stack);
        days(3).await;
        let daily = told(&site.stack);
        let way_out = format!("{old_arn} is issued by {old}, which is retired, and ACM never moves a certificate to another CA");
        assert!(daily.len() == 3 && daily.iter().all(|reason| reason.contains(&way_out) && reason.contains(&new)), "{daily:#?}");
        let stores = site.stack.records().stores().await.unwrap().unwrap();
        assert_eq!(stores.stores.values().next().unwrap().held.len(), 2, "the successor is there before anybody needs it");
        let input = json!({"DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": new});
        let new_arn = user(&site.stack, "acm:RequestCertificate", input).await["CertificateArn"].clone();
        minutes(5).await;
        user(&site.stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": old_arn, "Tags": tags})).await;
        // Another service reads it by now.
        let mut tags = tags;
        tags[1]["Value"] = json!("payments/portal");
        user(&site.stack, "acm:AddTagsToCertificate", json!({"CertificateArn": new_arn, "Tags": tags})).await;
        site.stack.aws.take_calls();
        // Nothing tells that a tag was moved: the daily walk finds it.
        days(1).await;
        assert_eq!(issuer(&site.stack, "gateway").await, Some(new.clone()));
        let calls = site.stack.aws.take_calls().into_iter().filter(|call| call.operation == "UpdateService");
        let deployed: BTreeSet<_> = calls.map(|call| call.input["service"].as_str().unwrap().to_owned()).collect();
        assert_eq!(deployed, ["portal".to_owned()].into());
        assert_eq!(
            (site.client("gateway", "AWSCURRENT"), site.client("gateway", "AWSPREVIOUS")),
            ("Success".into(), "Success".into())
        );
        told(&site.stack);
        days(2).await;
        assert_eq!(told(&site.stack), [""; 0]);
        assert_eq!(published(&site.stack, "Certificate Current").len(), 0, "and it stays so");
    });
}

#[test]
fn an_export_of_another_ca_waits_and_becomes_current_without_being_exported_again() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        let second = site.new_authority("Example Second CA");
        site.declare(site.declaration()).await;
        declared_unseen(stack, &second).await;
        lose_deliveries(stack);
        let input = json!({
            "DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": second,
            "Tags": [{"Key": "everleaf:certificate", "Value": "everleaf/gateway"}],
        });
        let arn = user(stack, "acm:RequestCertificate", input).await["CertificateArn"].clone();
        minutes(1).await;
        stack.aws.take_calls();
        let answer = act(stack, "export-to-secrets", json!({"certificate_arn": arn})).await;
        assert_eq!((&answer["outcome"], &answer["serial_number"]), (&json!("waiting-for-trust"), &json!(null)), "{answer}");
        assert_eq!(current(stack, "gateway"), "{}");
        // Everything is delivered again; the event that asked for trust is lost.
        stack.aws.set_deliveries(None);
        days(1).await;
        assert_eq!(issuer(stack, "gateway").await, Some(second));
        assert_eq!(site.client("gateway", "AWSCURRENT"), "Success");
        let calls = stack.aws.take_calls();
        assert_eq!(count(&calls, "ExportCertificate"), 1);
    });
}

/// A CA that no trust store holds yet, and a caller's CSR for it: what it signs has to wait.
async fn csr_that_waits() -> (Site, String, Value) {
    let mut site = Site::with(&[]).await;
    let second = site.new_authority("Example Second CA");
    site.stack.update(&[("AllowedCaArns", &second)]).await;
    site.declare(site.declaration()).await;
    declared_unseen(&site.stack, &second).await;
    lose_deliveries(&site.stack);
    let mut asked: Value = serde_json::from_str(include_str!("../../events/issue-client-cert.csr.json")).unwrap();
    asked["certificate_authority_arn"] = json!(second);
    (site, second, asked)
}

#[test]
fn a_callers_certificate_that_waits_becomes_current_by_itself_and_the_caller_gets_it_when_asking_again() {
    run(async {
        let (site, second, asked) = csr_that_waits().await;
        let name = asked["name"].as_str().unwrap().to_owned();
        for _ in 0..2 {
            let answer = act(&site.stack, "issue-client-cert", asked.clone()).await;
            assert_eq!((&answer["outcome"], &answer["certificate_pem"]), (&json!("waiting-for-trust"), &json!(null)), "{answer}");
        }
        site.stack.aws.set_deliveries(None);
        days(1).await;
        assert_eq!(issuer(&site.stack, &name).await, Some(second));
        assert_eq!(count(&site.stack.aws.take_calls(), "IssueCertificate"), 1);
        let answer = act(&site.stack, "issue-client-cert", asked).await;
        assert_eq!(answer["outcome"], "unchanged", "{answer}");
        let chain = [&answer["certificate_pem"], &answer["certificate_chain_pem"]].map(|pem| pem.as_str().unwrap().to_owned());
        assert_eq!(site.verdict(&chain.concat()), "Success");
    });
}

/// What the CSR of `events/` asks for, with a key of its own.
fn csr_of_another_key() -> String {
    let mut params = rcgen::CertificateParams::new(["billing.example.internal".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (rcgen::DnType::CountryName, "DE"),
        (rcgen::DnType::OrganizationName, "Example Ltd"),
        (rcgen::DnType::CommonName, "billing"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[test]
fn with_a_callers_compromised_key_every_pair_of_it_is_revoked_and_it_is_never_signed_again() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let old: Value = serde_json::from_str(include_str!("../../events/issue-client-cert.csr.json")).unwrap();
        let name = old["name"].as_str().unwrap();
        act(&stack, "issue-client-cert", old.clone()).await;
        let mut again = old.clone();
        (again["validity"], again["replace"]) = (json!({"days": 20}), json!(true));
        act(&stack, "issue-client-cert", again.clone()).await;
        let record = stack.record(name).await.unwrap();
        let serials = [record.previous.unwrap().serial, record.current.unwrap().serial];
        let mut revoke = json!({"revoke": name, "serial_number": serials[1], "reason": "KEY_COMPROMISE", "dry_run": true});
        assert_eq!(act(&stack, "issue-client-cert", revoke.clone()).await["of_the_same_key"], json!([serials[0]]));
        revoke["dry_run"] = json!(false);
        let revoked = act(&stack, "issue-client-cert", revoke).await;
        assert_eq!((&revoked["outcome"], &revoked["of_the_same_key"]), (&json!("revoked"), &json!([serials[0]])));
        assert_eq!(count(&stack.aws.take_calls(), "RevokeCertificate"), 2);
        let mut new = old.clone();
        (new["csr"], new["replace"]) = (json!(csr_of_another_key()), json!(true));
        for (asked, is_signed) in [(&again, false), (&new, true), (&again, false), (&new, true)] {
            let answer = stack.handle("issue-client-cert", asked.clone(), &stack.aws.world(|world, _| world.uuid())).await;
            match is_signed {
                true => assert!(answer.is_ok(), "{answer:?}"),
                false => assert!(answer.unwrap_err().error_message.contains("csr: its key is compromised; make a new key")),
            }
            days(1).await;
        }
    });
}

#[test]
fn a_csr_of_another_key_is_not_answered_with_what_waits_for_the_first() {
    run(async {
        let (site, _, mut asked) = csr_that_waits().await;
        assert_eq!(act(&site.stack, "issue-client-cert", asked.clone()).await["outcome"], "waiting-for-trust");
        let csr = csr_of_another_key();
        asked["csr"] = json!(csr);
        for _ in 0..2 {
            let answer = act(&site.stack, "issue-client-cert", asked.clone()).await;
            assert_eq!(answer["outcome"], "waiting-for-trust", "{answer}");
        }
        site.stack.aws.set_deliveries(None);
        days(1).await;
        assert_eq!(count(&site.stack.aws.take_calls(), "IssueCertificate"), 2);
        let current = site.stack.record(asked["name"].as_str().unwrap()).await.unwrap().current.unwrap();
        assert_eq!(current.key_fingerprint, lifecycle::leaf::Csr::from_pem(&csr).unwrap().key_fingerprint);
        assert_eq!(act(&site.stack, "issue-client-cert", asked).await["outcome"], "unchanged");
    });
}

/// Until a store held its CA, or its pause ended.
#[test]
fn a_pair_that_ended_while_it_waited_gives_way_to_a_good_one() {
    run(async {
        for callers in [false, true] {
            let mut site = Site::with(&[("SweepMinutes", "60")]).await;
            let second = site.new_authority("Example Second CA");
            site.stack.update(&[("AllowedCaArns", &second)]).await;
            site.declare(site.declaration()).await;
            declared_unseen(&site.stack, &second).await;
            lose_deliveries(&site.stack);
            let mut asked = match callers {
                true => serde_json::from_str(include_str!("../../events/issue-client-cert.csr.json")).unwrap(),
                false => json!({"name": "orders", "subject": {"common_name": "orders"}}),
            };
            (asked["certificate_authority_arn"], asked["validity"]) = (json!(second), json!({"hours": 9}));
            assert_eq!(act(&site.stack, "issue-client-cert", asked.clone()).await["outcome"], "waiting-for-trust");
            days(2).await;
            told(&site.stack);
            site.stack.aws.set_deliveries(None);
            minutes(125).await;
            let name = asked["name"].as_str().unwrap().to_owned();
            if callers {
                // Its key is not here.
                let said = told(&site.stack);
                assert!(said.len() == 1 && said[0].contains("send a CSR again"), "{said:#?}");
                assert_eq!(site.stack.record(&name).await.unwrap().attempt, None);
                assert_eq!(act(&site.stack, "issue-client-cert", asked).await["outcome"], "issued");
            }
            assert_eq!(site.client(&name, "AWSCURRENT"), "Success");
            assert_eq!(told(&site.stack), [""; 0]);
        }
    });
}

#[test]
fn a_listener_passes_certificates_through_or_asks_for_none_with_and_without_a_store() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        let mode = async || {
            let input = json!({"ListenerArns": [site.listener]});
            user(&site.stack, "elasticloadbalancing:DescribeListeners", input).await["Listeners"][0]["MutualAuthentication"]
                .clone()
        };
        for (authorities, wanted) in [
            (&[][..], "off"),
            (&[], "passthrough"),
            (&[], "off"),
            (&[&*site.stack.issuing_ca], "verify"),
            (&[&site.stack.issuing_ca], "passthrough"),
            (&[&site.stack.issuing_ca], "verify"),
            (&[&site.stack.issuing_ca], "off"),
        ] {
            let was = mode().await["Mode"].clone();
            let mut declaration = with_authorities(&site, authorities);
            declaration["listeners"][0]["mode"] = json!(wanted);
            let report = site.declare(declaration).await;
            let outcome = if was == wanted { "unchanged" } else { "modified" };
            assert_eq!(report["listeners"][0]["outcome"], outcome, "{wanted}: {report:#}");
            assert_eq!(report["action_required"], json!([]), "{wanted}");
            assert_eq!(mode().await["Mode"], wanted, "{authorities:?}");
            assert_eq!(mode().await.get("TrustStoreArn").is_some(), wanted == "verify");
            assert_eq!(site.client("orders", "AWSCURRENT"), if wanted == "verify" { "Success" } else { "-" });
            site.stack.aws.take_events();
            let again = act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
            assert_eq!(again["outcome"], "unchanged", "{wanted}: {again:#}");
            assert_eq!(published(&site.stack, "Trust Store Refreshed").len(), 0);
        }
    });
}

#[test]
fn a_listener_that_verifies_by_another_store_changes_over_when_its_clients_can_pass() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        lose_deliveries(stack);
        act(stack, "issue-client-cert", order()).await;
        // Before Everleaf there was a store that lets in the same clients by their root.
        stack.aws.world(|world, now| {
            let pem = world.pca.certificate(&stack.root_ca).unwrap();
            s3::put(world, now, BUCKET, "theirs.pem", pem.into_bytes()).unwrap();
        });
        let create = json!({"Name": "before", "CaCertificatesBundleS3Bucket": BUCKET, "CaCertificatesBundleS3Key": "theirs.pem"});
        let before =
            user(stack, "elasticloadbalancing:CreateTrustStore", create).await["TrustStores"][0]["TrustStoreArn"].clone();
        minutes(1).await;
        let verify = json!({"ListenerArn": site.listener, "MutualAuthentication": {"Mode": "verify", "TrustStoreArn": before}});
        user(stack, "elasticloadbalancing:ModifyListener", verify).await;
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        service(stack, "payments/orders", &["orders"]).await;
        let mut declaration = site.declaration();
        declaration["listeners"][0]["clients"] = json!(["orders", "refunds"]);
        let by = async || {
            let input = json!({"ListenerArns": [site.listener]});
            let shown = user(stack, "elasticloadbalancing:DescribeListeners", input).await;
            shown["Listeners"][0]["MutualAuthentication"]["TrustStoreArn"].clone()
        };
        let report = site.declare(declaration).await;
        let missing = report["listeners"][0]["missing"].to_string();
        assert!(missing.contains("payments/orders") && missing.contains("`refunds` is not known"), "{report:#}");
        // The store was made by now; the listener goes on as before.
        act(stack, "refresh-truststore", json!({"refresh": true})).await;
        assert_eq!(by().await, before);
        act(stack, "issue-client-cert", json!({"name": "refunds", "subject": {"common_name": "refunds"}})).await;
        for _ in 0..2 {
            act(stack, "force-redeploy", json!({"certificate": "orders"})).await;
            minutes(10).await;
        }
        let report = act(stack, "refresh-truststore", json!({"refresh": true})).await["trust_stores"][0].clone();
        assert_eq!(report["listeners"][0]["outcome"], "modified", "{report:#}");
        assert_ne!(by().await, before);
        for name in ["orders", "refunds"] {
            assert_eq!(site.client(name, "AWSCURRENT"), "Success");
        }
    });
}

#[test]
fn a_listener_that_cannot_be_changed_keeps_no_other_from_verifying() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        let other = site.stack.aws.world(|world, now| elbv2::create_listener(world, now, "others", 8443));
        let mut declaration = site.declaration();
        declaration["listeners"] = json!([{"listener_arn": site.listener}, {"listener_arn": other}]);
        let refused = site.listener.clone();
        site.stack.aws.set_faults(Some(Box::new(move |call| {
            let theirs = call.operation == "ModifyListener" && call.input["ListenerArn"] == refused;
            theirs.then(|| Fault::Refuse(AwsError::new("TooManyTrustStores", "you've reached the limit")))
        })));
        let error = site.stack.handle("refresh-truststore", json!({"declare": declaration}), "declare").await.unwrap_err();
        assert_eq!(error.error_type, "Permanent", "{error:?}");
        assert_eq!(site.client("orders", "AWSCURRENT"), "-");
        assert_eq!(Site { listener: other, ..site }.client("orders", "AWSCURRENT"), "Success");
    });
}

/// Else each refresh would give it to both in turn.
#[test]
fn a_listener_that_the_parameter_names_is_its_alone_and_the_request_that_names_it_is_told_of() {
    run(async {
        let mut site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        let by_parameter = json!([{
            "name": "others", "certificate_authority_arns": [site.stack.issuing_ca],
            "listeners": [{"listener_arn": site.listener}],
        }]);
        site.stack.update(&[("TrustStores", &by_parameter.to_string())]).await;
        told(&site.stack);
        site.stack.aws.take_calls();
        days(3).await;
        assert_eq!(count(&site.stack.aws.take_calls(), "ModifyListener"), 1);
        let input = json!({"ListenerArns": [site.listener]});
        let shown = user(&site.stack, "elasticloadbalancing:DescribeListeners", input).await;
        let store = shown["Listeners"][0]["MutualAuthentication"]["TrustStoreArn"].as_str().unwrap().to_owned();
        assert!(store.contains("truststore/others/"), "{store}");
        let said = told(&site.stack);
        let why = format!("trust-listener: {} is a listener of `others` by the stack's parameter TrustStores", site.listener);
        assert!((3..=4).contains(&said.len()) && said.iter().all(|said| said.starts_with(&why)), "{said:#?}");
    });
}

#[test]
fn a_certificate_waits_only_for_the_stores_that_declare_its_ca() {
    run(async {
        let mut site = Site::with(&[]).await;
        let (first, second) = (site.stack.issuing_ca.clone(), site.new_authority("Example Second CA"));
        site.stack.update(&[("AllowedCaArns", &second)]).await;
        site.declare(site.declaration()).await;
        let partners = site.stack.aws.world(|world, now| elbv2::create_listener(world, now, "partners", 8443));
        let declaration = json!({
            "name": "partners", "certificate_authority_arns": [second], "listeners": [{"listener_arn": partners}],
        });
        site.declare(declaration).await;
        lose_deliveries(&site.stack);
        // `partners` is not known to hold anything any more; `clients` is.
        let mut stores = site.stack.records().stores().await.unwrap().unwrap();
        stores.stores.get_mut(&"partners".parse().unwrap()).unwrap().held.clear();
        assert_eq!(site.stack.records().save_stores(&mut stores).await.unwrap(), records::table::Saved::Done);
        let ask = |name: &str, authority: &str| json!({"name": name, "subject": {"common_name": name}, "certificate_authority_arn": authority});
        assert_eq!(act(&site.stack, "issue-client-cert", ask("orders", &first)).await["outcome"], "issued");
        let answer = act(&site.stack, "issue-client-cert", ask("refunds", &second)).await;
        assert_eq!(answer["outcome"], "waiting-for-trust", "{answer}");
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.contains("partners") && !reason.contains("clients"), "{reason}");
        // Only the store that it waits for is looked at.
        let event = last_event(&site.stack, "Trust Due");
        let report = act(&site.stack, "refresh-truststore", event).await;
        let looked: Vec<_> =
            report["trust_stores"].as_array().unwrap().iter().map(|store| store["trust_store"].clone()).collect();
        assert_eq!(looked, ["partners"]);
        let due = last_event(&site.stack, "Certificate Due");
        assert_eq!(act(&site.stack, "issue-client-cert", due).await["outcome"], "issued");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        let at_partners = Site { listener: partners, ..site };
        assert_eq!(at_partners.client("refunds", "AWSCURRENT"), "Success");
    });
}

/// The CA's identifier in the key of its CRL.
fn id(key: &str) -> &str {
    key.trim_start_matches("crl/").trim_end_matches(".crl")
}

#[test]
fn a_crl_that_a_ca_could_not_publish_is_told_once_a_day_and_the_last_one_stays() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        act(stack, "issue-client-cert", order()).await;
        site.declare(site.declaration()).await;
        let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
        let request = json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"});
        act(stack, "issue-client-cert", request).await;
        minutes(35).await;
        assert_eq!(site.client("orders", "AWSPREVIOUS"), "Failed:ClientCertCrlHit");
        let mut event: Value =
            serde_json::from_str(include_str!("../../events/refresh-truststore.crl-generation-failed.json")).unwrap();
        event["resources"] = json!([stack.issuing_ca]);
        told(stack);
        for hour in [0, 1] {
            event["id"] = json!(format!("00000000-0000-0000-0000-00000000000{hour}"));
            assert_eq!(stack.aws.put_event(event.clone()).len(), 1);
            minutes(60).await;
        }
        let said = told(stack);
        let why = "could not publish its CRL: Failed to write CRL to S3. Check your S3 bucket permissions.";
        assert!(said.len() == 1 && said[0].contains(&stack.issuing_ca) && said[0].contains(why), "{said:#?}");
        assert_eq!(site.client("orders", "AWSPREVIOUS"), "Failed:ClientCertCrlHit", "what was revoked stays so");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        // It stays the last one beyond its end.
        let key =
            stack.aws.world(|world, _| world.s3.keys(BUCKET, "crl/")).into_iter().find(|key| stack.issuing_ca.contains(id(key)));
        let key = key.unwrap();
        let last = stack.aws.world(|world, _| world.s3.object(BUCKET, &key).unwrap().to_vec());
        lose_deliveries(stack);
        days(8).await;
        stack.aws.world(|world, now| s3::put(world, now, BUCKET, &key, last)).unwrap();
        let report = act(stack, "refresh-truststore", json!({"refresh": true})).await["trust_stores"][0].clone();
        let said = report["action_required"].to_string();
        assert!(said.contains("ended") && said.contains("see why the CA publishes no newer one"), "{report:#}");
    });
}

#[test]
fn a_crl_that_load_balancing_refuses_keeps_no_other_from_being_replaced_and_what_is_loaded_is_counted() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        let second = site.new_authority("Example Second CA");
        minutes(1).await;
        act(stack, "issue-client-cert", order()).await;
        site.declare(with_authorities(&site, &[&stack.issuing_ca, &second])).await;
        let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
        let request = json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"});
        act(stack, "issue-client-cert", request).await;
        minutes(35).await;
        let store = async || stack.records().stores().await.unwrap().unwrap().stores.into_values().next().unwrap();
        let before = store().await;
        let refused = stack.issuing_ca.rsplit_once('/').unwrap().1.to_owned();
        stack.aws.set_faults(Some(Box::new(move |call| {
            let theirs = call.operation == "AddTrustStoreRevocations" && call.input.to_string().contains(&refused);
            theirs.then(|| Fault::Refuse(AwsError::new("TooManyTrustStoreRevocationEntries", "you've reached the limit")))
        })));
        // Each publishes its next one twice a week.
        days(8).await;
        let lists = json!({"TrustStoreArn": store_arn(stack).await});
        let lists = user(stack, "elasticloadbalancing:DescribeTrustStoreRevocations", lists).await;
        assert_eq!(lists["TrustStoreRevocations"].as_array().unwrap().len(), 2, "one of each: {lists:#}");
        let after = store().await;
        let id = |store: &lifecycle::trust::Store, authority: &String| store.crls[&authority.parse().unwrap()].revocation_id;
        assert_eq!(id(&after, &stack.issuing_ca), id(&before, &stack.issuing_ca));
        assert_ne!(id(&after, &second), id(&before, &second));
        assert_eq!(after.usage()[1..], before.usage()[1..]);
    });
}

#[test]
fn a_ca_that_cannot_be_read_is_told_as_that_alone() {
    run(async {
        let site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        for (operation, code) in
            [("GetCertificateAuthorityCertificate", "trust-ca: "), ("DescribeCertificateAuthority", "trust-crl: ")]
        {
            days(2).await;
            let denied = || AwsError::new("AccessDeniedException", "User is not authorized to perform this");
            site.stack.aws.set_faults(Some(Box::new(move |call| {
                (call.operation == operation && call.caller == "refresh-truststore").then(|| Fault::Refuse(denied()))
            })));
            told(&site.stack);
            site.stack.handle("refresh-truststore", json!({"refresh": true}), operation).await.unwrap_err();
            site.stack.aws.set_faults(None);
            let said = told(&site.stack);
            assert!(said.len() == 1 && said[0].starts_with(code), "{said:#?}");
        }
    });
}

/// Its key stays the same, so that nobody waits for the new certificate.
#[test]
fn a_renewed_issuing_ca_refuses_nobody_and_is_in_the_store_within_a_day() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        act(stack, "issue-client-cert", order()).await;
        site.declare(site.declaration()).await;
        let fingerprint = || {
            let pem = stack.aws.world(|world, _| world.pca.certificate(&stack.issuing_ca).unwrap());
            lifecycle::refresh::fingerprint(&lifecycle::authority::certificates(&pem).unwrap()[0])
        };
        let old = fingerprint();
        stack.aws.world(|world, now| pca::renew_authority(world, now, &stack.issuing_ca)).unwrap();
        assert_ne!(fingerprint(), old);
        let mut replaced = order();
        (replaced["usage"], replaced["replace"]) = (json!("client-and-server"), json!(true));
        let refunds = json!({"name": "refunds", "subject": {"common_name": "refunds"}});
        for order in [replaced, refunds] {
            assert_eq!(act(stack, "issue-client-cert", order).await["outcome"], "issued");
        }
        let clients = [("orders", "AWSPREVIOUS"), ("orders", "AWSCURRENT"), ("refunds", "AWSCURRENT")];
        for hour in 0..=24 {
            for (name, stage) in clients {
                assert_eq!(site.client(name, stage), "Success", "{name} {stage}, hour {hour}");
            }
            minutes(60).await;
        }
        let stores = stack.records().stores().await.unwrap().unwrap();
        let store = stores.stores.values().next().unwrap();
        assert!(store.bundle.contains(&fingerprint()) && !store.bundle.contains(&old), "{store:#?}");
        assert_eq!(act(stack, "refresh-truststore", json!({"refresh": true})).await["outcome"], "unchanged");
    });
}
