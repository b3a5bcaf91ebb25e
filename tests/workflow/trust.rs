//! Trust stores by what a client sees: whom a listener lets in, before, during and after everything that happens to CAs.

use local_aws::{AwsError, Fault, elbv2, pca, s3};
use serde_json::{Value, json};
use workflow::Stack;

use crate::account::staged;
use crate::recovery::empty_the_table;
use crate::scenario::{act, days, last_event, lose_deliveries, minutes, order, request, run, service, user};

pub(crate) const BUCKET: &str = "crls";

/// Root and issuing CA publish CRLs, and there is a listener.
pub(crate) struct Site {
    pub(crate) stack: Stack,
    pub(crate) listener: String,
}

impl Site {
    pub(crate) async fn with(parameters: &[(&str, &str)]) -> Self {
        let others = [("SweepMinutes", "240"), ("CrlBucketArns", "arn:aws:s3:::crls")];
        let others = others.into_iter().filter(|(name, _)| !parameters.iter().any(|(given, _)| given == name));
        let parameters: Vec<_> = others.chain(parameters.iter().copied()).collect();
        let stack = Stack::deploy_on("EC_prime256v1", &parameters).await;
        Self::of(stack).await
    }

    pub(crate) async fn of(stack: Stack) -> Self {
        let listener = stack.aws.world(|world, now| {
            s3::create_bucket(world, BUCKET);
            for authority in [&stack.root_ca, &stack.issuing_ca] {
                pca::enable_crl(world, now, authority, BUCKET, 7).unwrap();
            }
            elbv2::create_listener(world, now, "clients", 8443)
        });
        minutes(1).await;
        Self { stack, listener }
    }

    pub(crate) async fn declare(&self, declaration: Value) -> Value {
        act(&self.stack, "refresh-truststore", json!({"declare": declaration})).await["trust_stores"][0].clone()
    }

    /// The store `clients` with the issuing CA and the listener, and nothing else.
    pub(crate) fn declaration(&self) -> Value {
        json!({
            "name": "clients", "certificate_authority_arns": [self.stack.issuing_ca],
            "listeners": [{"listener_arn": self.listener}],
        })
    }

    /// What the load balancer says of a client that uses the pair at this stage of a secret.
    pub(crate) fn client(&self, certificate: &str, stage: &str) -> String {
        self.verdict(&self.chain(certificate, stage))
    }

    fn chain(&self, certificate: &str, stage: &str) -> String {
        let secret = format!("everleaf/{certificate}");
        self.stack.aws.world(|world, _| {
            let secret = world.secrets.secrets().find(|found| found.name == secret).unwrap();
            let value: Value = serde_json::from_str(staged(secret, stage).unwrap().secret_string.as_deref().unwrap()).unwrap();
            [&value["certificate"], &value["certificate_chain"]].map(|pem| pem.as_str().unwrap().to_owned()).concat()
        })
    }

    pub(crate) fn verdict(&self, chain: &str) -> String {
        self.stack.aws.world(|world, now| elbv2::tls_verify_status(world, now, &self.listener, chain)).unwrap()
    }

    /// The subjects of the CAs in the store, as the function tells them.
    pub(crate) async fn subjects(&self) -> Vec<String> {
        let answer = act(&self.stack, "refresh-truststore", json!({"refresh": true, "dry_run": true})).await;
        let all = answer["trust_stores"][0]["certificate_authorities"].as_array().unwrap().clone();
        all.iter().map(|one| one["subject"].as_str().unwrap().trim_start_matches("CN=").to_owned()).collect()
    }

    pub(crate) fn new_authority(&self, name: &str) -> String {
        self.stack.aws.world(|world, now| {
            let arn = pca::create_active_subordinate(world, now, &self.stack.root_ca, name, "EC_prime256v1").unwrap();
            pca::enable_crl(world, now, &arn, BUCKET, 7).unwrap();
            arn
        })
    }

    pub(crate) fn bucket(&self) -> String {
        self.stack.template.function("refresh-truststore").unwrap().environment["EVERLEAF_BUCKET"].clone()
    }

    pub(crate) fn put_extra(&self, key: &str, body: &str) {
        let bucket = self.bucket();
        self.stack.aws.world(|world, now| s3::put(world, now, &bucket, key, body.as_bytes().to_vec())).unwrap();
    }
}

pub(crate) fn published(stack: &Stack, detail_type: &str) -> Vec<Value> {
    let events = stack.aws.take_events();
    events.into_iter().map(|event| event.event).filter(|event| event["detail-type"] == detail_type).collect()
}

fn writes(stack: &Stack) -> Vec<String> {
    let calls = stack.aws.take_calls();
    calls.iter().filter(|call| call.caller == "refresh-truststore" && call.writes()).map(local_aws::Call::action).collect()
}

#[test]
fn a_declared_store_is_made_its_listener_verifies_and_the_second_time_nothing_is_written() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        let before = user(&site.stack, "elasticloadbalancing:DescribeListeners", json!({"ListenerArns": [site.listener]})).await;
        let report = site.declare(site.declaration()).await;
        assert_eq!(
            (&report["outcome"], &report["listeners"][0]["outcome"]),
            (&json!("created"), &json!("modified")),
            "{report:#}"
        );
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        assert_eq!(site.verdict(""), "Failed:UnmappedConnectionError");
        // Only how the listener authenticates clients has changed.
        let mut after =
            user(&site.stack, "elasticloadbalancing:DescribeListeners", json!({"ListenerArns": [site.listener]})).await;
        assert_eq!(after["Listeners"][0]["MutualAuthentication"]["Mode"], "verify");
        after["Listeners"][0]["MutualAuthentication"] = before["Listeners"][0]["MutualAuthentication"].clone();
        assert_eq!(after, before);
        site.stack.aws.take_calls();
        let again = act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        assert_eq!(again["outcome"], "unchanged", "{again:#}");
        let calls = site.stack.aws.take_calls();
        assert!(calls.iter().all(|call| !call.writes()), "{calls:#?}");
        // The least there is: what is known; the store and what it holds; the CA, its CRL's place, the CRL; the CRLs and extra
        // objects; the listener.
        let mut read: Vec<_> = calls.iter().map(local_aws::Call::action).collect();
        read.sort();
        assert_eq!(
            read,
            [
                "acm-pca:DescribeCertificateAuthority",
                "acm-pca:GetCertificateAuthorityCertificate",
                "dynamodb:GetItem",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeTrustStoreRevocations",
                "elasticloadbalancing:DescribeTrustStores",
                "elasticloadbalancing:GetTrustStoreCaCertificatesBundle",
                "s3:GetObject",
                "s3:GetObject",
                "s3:ListObjectsV2",
            ]
        );
    });
}

#[test]
fn a_pair_of_a_ca_that_a_store_declares_and_does_not_hold_waits_and_then_becomes_current_by_itself() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        lose_deliveries(stack);
        act(stack, "issue-client-cert", order()).await;
        site.declare(site.declaration()).await;
        // Nobody has told the store yet that it is to hold more.
        let mut stores = stack.records().stores().await.unwrap().unwrap();
        let store = stores.stores.values_mut().next().unwrap();
        store.held.clear();
        assert_eq!(stack.records().save_stores(&mut stores).await.unwrap(), records::table::Saved::Done);
        let refunds = json!({"name": "refunds", "subject": {"common_name": "refunds"}});
        let answer = act(stack, "issue-client-cert", refunds.clone()).await;
        assert_eq!(answer["outcome"], "waiting-for-trust", "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains("clients"), "{answer}");
        let secret = |stage: &str| {
            stack.aws.world(|world, _| {
                let found = world.secrets.secrets().find(|found| found.name == "everleaf/refunds").unwrap();
                staged(found, stage).map(|version| version.secret_string.clone().unwrap())
            })
        };
        assert_eq!(secret("AWSCURRENT").as_deref(), Some("{}"), "nothing is current");
        assert!(secret("AWSPENDING").unwrap().contains("PRIVATE KEY"), "the pair is complete and pending");
        // A renewal of the CA that works already waits for nobody.
        let mut replaced = order();
        (replaced["usage"], replaced["replace"]) = (json!("client-and-server"), json!(true));
        assert_eq!(act(stack, "issue-client-cert", replaced).await["outcome"], "issued");
        // Asked again while it waits it is issued no second time.
        let (event, _) = (last_event(stack, "Trust Due"), stack.aws.take_calls());
        assert_eq!(act(stack, "issue-client-cert", refunds).await["outcome"], "waiting-for-trust");
        let issued = stack.aws.take_calls().iter().filter(|call| call.operation == "IssueCertificate").count();
        assert_eq!(issued, 0);
        act(stack, "refresh-truststore", event).await;
        let due = last_event(stack, "Certificate Due");
        assert_eq!(due["detail"]["certificate"], "refunds");
        assert_eq!(act(stack, "issue-client-cert", due).await["outcome"], "issued");
        assert_eq!(site.client("refunds", "AWSCURRENT"), "Success");
    });
}

#[test]
fn where_no_store_is_declared_nothing_waits_and_where_none_is_known_only_what_works_does() {
    run(async {
        let mut site = Site::with(&[]).await;
        service(&site.stack, "payments/orders", &["orders"]).await;
        assert_eq!(act(&site.stack, "issue-client-cert", order()).await["outcome"], "issued");
        minutes(5).await;
        let second = site.new_authority("Example Second CA");
        site.stack.update(&[("AllowedCaArns", &second)]).await;
        let mut replaced = order();
        (replaced["certificate_authority_arn"], replaced["replace"]) = (json!(second), json!(true));
        assert_eq!(act(&site.stack, "issue-client-cert", replaced.clone()).await["outcome"], "issued", "no store is declared");
        // The table is lost, and with it what was declared by hand, until the function has looked.
        let table = site.stack.records().settings.table;
        user(&site.stack, "dynamodb:DeleteItem", json!({"TableName": table, "Key": {"id": {"S": "trust"}}})).await;
        replaced["certificate_authority_arn"] = json!(site.stack.issuing_ca);
        let answer = act(&site.stack, "issue-client-cert", replaced.clone()).await;
        assert_eq!(answer["outcome"], "waiting-for-trust", "{answer}");
        minutes(5).await;
        assert_eq!(site.stack.record("orders").await.unwrap().attempt, None, "`Trust Due` was enough");
    });
}

#[test]
fn a_declaration_made_by_hand_outlives_the_table() {
    run(async {
        let site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        let table = site.stack.records().settings.table;
        user(&site.stack, "dynamodb:DeleteItem", json!({"TableName": table, "Key": {"id": {"S": "trust"}}})).await;
        days(1).await;
        let stores = site.stack.records().stores().await.unwrap().unwrap();
        assert_eq!(stores.stores.keys().map(ToString::to_string).collect::<Vec<_>>(), ["clients"]);
        let answer = act(&site.stack, "refresh-truststore", json!({"undeclare": "clients"})).await;
        assert_eq!(answer["outcome"], "undeclared");
        days(1).await;
        assert_eq!(site.stack.records().stores().await.unwrap().unwrap().stores.len(), 0);
        assert!(!store_arn(&site.stack).await.is_empty(), "the store itself stays");
    });
}

#[test]
fn a_store_that_somebody_changed_is_put_right_and_that_is_told() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        site.declare(site.declaration()).await;
        let foreign = site.stack.aws.world(|world, now| {
            let arn = pca::create_active_root(world, now, "Somebody's CA", "EC_prime256v1").unwrap();
            let pem = world.pca.certificate(&arn).unwrap();
            s3::put(world, now, BUCKET, "theirs.pem", pem.into_bytes()).unwrap();
            arn
        });
        let stores = user(&site.stack, "elasticloadbalancing:DescribeTrustStores", json!({})).await;
        let arn = stores["TrustStores"][0]["TrustStoreArn"].clone();
        let theirs =
            json!({"TrustStoreArn": arn, "CaCertificatesBundleS3Bucket": BUCKET, "CaCertificatesBundleS3Key": "theirs.pem"});
        user(&site.stack, "elasticloadbalancing:ModifyTrustStore", theirs).await;
        assert_eq!(site.client("orders", "AWSCURRENT"), "Failed:ClientCertUntrusted", "{foreign}");
        published(&site.stack, "Trust Store Refreshed");
        days(1).await;
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        let told = published(&site.stack, "Trust Store Refreshed");
        let reason = told[0]["detail"]["reason"].as_str().unwrap();
        assert!(reason.contains("somebody else has changed") && reason.contains("Somebody's CA"), "{reason}");
    });
}

#[test]
fn a_store_from_before_everleaf_is_not_emptied_of_what_nobody_declared() {
    run(async {
        let site = Site::with(&[]).await;
        let theirs = site.stack.aws.world(|world, now| {
            let arn = pca::create_active_root(world, now, "Partner CA", "EC_prime256v1").unwrap();
            let pem = world.pca.certificate(&arn).unwrap();
            s3::put(world, now, BUCKET, "theirs.pem", pem.clone().into_bytes()).unwrap();
            pem
        });
        let create =
            json!({"Name": "clients", "CaCertificatesBundleS3Bucket": BUCKET, "CaCertificatesBundleS3Key": "theirs.pem"});
        user(&site.stack, "elasticloadbalancing:CreateTrustStore", create).await;
        minutes(1).await;
        let report = site.declare(site.declaration()).await;
        assert_eq!(report["outcome"], "unchanged", "{report:#}");
        let why = report["action_required"][0].as_str().unwrap();
        assert!(why.contains("Partner CA") && why.contains("trust/extra/clients/"), "{why}");
        days(2).await;
        let count = async || {
            user(&site.stack, "elasticloadbalancing:DescribeTrustStores", json!({})).await["TrustStores"][0]["NumberOfCaCertificates"].clone()
        };
        assert_eq!(count().await, 1, "nor at the looks after the first");
        site.put_extra("trust/extra/clients/partner.pem", &theirs);
        minutes(1).await;
        assert_eq!(site.subjects().await, ["Example Issuing CA", "Example Root CA", "Partner CA"]);
        assert_eq!(count().await, 3);
    });
}

#[test]
fn one_bad_object_is_refused_and_told_once_a_day_and_keeps_nobody_out() {
    run(async {
        let site = Site::with(&[]).await;
        let pem = site.stack.aws.world(|world, now| {
            let arn = pca::create_active_root(world, now, "Partner CA", "RSA_2048").unwrap();
            world.pca.certificate(&arn).unwrap()
        });
        site.put_extra(
            "trust/extra/clients/bad.pem",
            "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
        );
        site.put_extra("trust/extra/clients/huge.pem", &pem.repeat(10_000));
        site.put_extra("trust/extra/clients/partner.pem", &pem);
        let report = site.declare(site.declaration()).await;
        assert_eq!(report["certificate_authorities"].as_array().unwrap().len(), 3, "{report:#}");
        assert_eq!(report["refused"].as_array().unwrap().len(), 2, "{report:#}");
        let told = published(&site.stack, "Action Required");
        assert!(told[0]["detail"]["reason"].as_str().unwrap().contains("trust/extra/clients/bad.pem"), "{told:#?}");
        act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        assert_eq!(published(&site.stack, "Action Required").len(), 0, "not twice a day");
        days(1).await;
        let told = published(&site.stack, "Action Required");
        let said = told[0]["detail"]["reason"].as_str().unwrap();
        assert!(told.len() == 1 && said.contains("/bad.pem: ") && said.contains("/huge.pem: "), "{told:#?}");
        // By S3's own event, within a minute.
        let bucket = site.bucket();
        site.stack.aws.world(|world, now| s3::delete(world, now, &bucket, "trust/extra/clients/partner.pem")).unwrap();
        minutes(1).await;
        assert_eq!(site.subjects().await, ["Example Issuing CA", "Example Root CA"]);
    });
}

/// Each object is an event, and each event a look at all of them.
#[test]
fn many_bad_objects_are_told_together_once_a_day() {
    run(async {
        let site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        published(&site.stack, "Action Required");
        for number in 0..40 {
            site.put_extra(&format!("trust/extra/clients/{number}.pem"), "no PEM\n");
            minutes(1).await;
        }
        let told = published(&site.stack, "Action Required");
        assert_eq!(told.len(), 1, "{told:#?}");
        days(1).await;
        let told = published(&site.stack, "Action Required");
        let said = told[0]["detail"]["reason"].as_str().unwrap();
        assert!(told.len() == 1 && said.contains("/0.pem: line 1") && said.ends_with("; and 35 more"), "{told:#?}");
    });
}

#[test]
fn a_listener_does_not_begin_to_verify_before_its_clients_can_pass() {
    run(async {
        let site = Site::with(&[]).await;
        let mut declaration = site.declaration();
        declaration["listeners"][0]["clients"] = json!(["orders"]);
        service(&site.stack, "payments/orders", &["orders"]).await;
        let report = site.declare(declaration).await;
        assert_eq!(report["outcome"], "created", "the store itself is made");
        assert_eq!(report["listeners"][0]["outcome"], "waiting", "{report:#}");
        assert!(report["listeners"][0]["missing"][0].as_str().unwrap().contains("`orders` is not known"), "{report:#}");
        assert_eq!(site.verdict(""), "-", "no client is asked for a certificate");
        lose_deliveries(&site.stack);
        act(&site.stack, "issue-client-cert", order()).await;
        let report = act(&site.stack, "refresh-truststore", json!({"refresh": true})).await["trust_stores"][0].clone();
        assert!(
            report["listeners"][0]["missing"][0].as_str().unwrap().contains("payments/orders has not been redeployed"),
            "{report:#}"
        );
        act(&site.stack, "force-redeploy", json!({"certificate": "orders"})).await;
        minutes(10).await;
        act(&site.stack, "force-redeploy", json!({"certificate": "orders"})).await;
        let report = act(&site.stack, "refresh-truststore", json!({"refresh": true})).await["trust_stores"][0].clone();
        assert_eq!(report["listeners"][0]["outcome"], "modified", "{report:#}");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}

#[test]
fn a_revoked_certificate_is_refused_once_its_crl_is_out_and_the_same_crl_is_loaded_once() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        let serial = site.stack.record("orders").await.unwrap().current.unwrap().serial;
        site.declare(site.declaration()).await;
        let request = json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"});
        let answer = act(&site.stack, "issue-client-cert", request.clone()).await;
        assert_eq!((&answer["outcome"], &answer["replacement"]["outcome"]), (&json!("revoked"), &json!("issued")), "{answer:#}");
        let current = last_event(&site.stack, "Certificate Current");
        assert_eq!(current["detail"]["reason"], format!("serial {serial} was revoked (KEY_COMPROMISE)"));
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        assert_eq!(site.client("orders", "AWSPREVIOUS"), "Success", "no CRL is out yet");
        minutes(35).await;
        assert_eq!(site.client("orders", "AWSPREVIOUS"), "Failed:ClientCertCrlHit");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
        site.stack.aws.take_calls();
        let again = act(&site.stack, "issue-client-cert", request).await;
        assert_eq!(again["outcome"], "revoked", "{again}");
        act(&site.stack, "refresh-truststore", last_crl_event(&site.stack)).await;
        assert_eq!(writes(&site.stack), [""; 0], "the same CRL is loaded once");
        let lists = user(
            &site.stack,
            "elasticloadbalancing:DescribeTrustStoreRevocations",
            json!({"TrustStoreArn": store_arn(&site.stack).await}),
        )
        .await;
        assert_eq!(lists["TrustStoreRevocations"].as_array().unwrap().len(), 1, "the superseded one is gone: {lists:#}");
    });
}

#[test]
fn of_a_living_certificate_the_ca_is_asked_again_whatever_it_calls_the_request() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        act(stack, "issue-client-cert", order()).await;
        let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
        let request = json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"});
        for (code, kind) in [("RequestFailedException", "Retryable"), ("InvalidRequestException", "Permanent")] {
            stack.aws.set_faults(Some(Box::new(move |call| {
                let refused = AwsError::new(code, "The CRL cannot be written.");
                (call.operation == "RevokeCertificate").then_some(Fault::Refuse(refused))
            })));
            let error = stack.handle("issue-client-cert", request.clone(), code).await.unwrap_err();
            assert_eq!(error.error_type, kind, "{error:?}");
            minutes(30).await;
        }
        assert_ne!(stack.record("orders").await.unwrap().current.unwrap().serial, serial, "it is replaced all the same");
        stack.aws.set_faults(None);
        days(2).await;
        assert!(stack.record("orders").await.unwrap().is_revoked(&serial));
    });
}

fn last_crl_event(stack: &Stack) -> Value {
    let authority = &stack.issuing_ca;
    let mut event: Value = serde_json::from_str(include_str!("../../events/refresh-truststore.crl-generation.json")).unwrap();
    event["resources"] = json!([authority]);
    event
}

pub(crate) async fn store_arn(stack: &Stack) -> String {
    let stores = user(stack, "elasticloadbalancing:DescribeTrustStores", json!({})).await;
    stores["TrustStores"][0]["TrustStoreArn"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_not_compromised_is_replaced_and_rolled_out_before_it_is_revoked() {
    run(async {
        let site = Site::with(&[]).await;
        service(&site.stack, "payments/orders", &["orders"]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        minutes(30).await;
        let serial = site.stack.record("orders").await.unwrap().current.unwrap().serial;
        site.stack.aws.take_calls();
        let request = json!({"revoke": "orders", "serial_number": serial, "reason": "SUPERSEDED"});
        let answer = act(&site.stack, "issue-client-cert", request).await;
        assert_eq!((&answer["outcome"], &answer["replacement"]["outcome"]), (&json!("recorded"), &json!("issued")), "{answer:#}");
        days(1).await;
        let calls = site.stack.aws.take_calls();
        let at =
            |operation: &str| calls.iter().find(|call| call.operation == operation && call.error.is_none()).map(|call| call.at);
        assert!(at("IssueCertificate") < at("UpdateService") && at("UpdateService") < at("RevokeCertificate"), "{calls:#?}");
        let revoked = published(&site.stack, "Certificate Revoked");
        assert_eq!((revoked.len(), &revoked[0]["detail"]["serial_number"]), (1, &json!(serial)));
        assert_eq!(calls.iter().filter(|call| call.operation == "RevokeCertificate").count(), 1);
        // One that is not current is only revoked, and one of no certificate of this name is refused by the CA.
        let current = site.stack.record("orders").await.unwrap().current.unwrap().serial;
        let mut replaced = order();
        (replaced["usage"], replaced["replace"]) = (json!("client-and-server"), json!(true));
        act(&site.stack, "issue-client-cert", replaced).await;
        let request = json!({"revoke": "orders", "serial_number": current, "reason": "SUPERSEDED"});
        let answer = act(&site.stack, "issue-client-cert", request).await;
        assert_eq!((&answer["outcome"], answer.get("replacement")), (&json!("revoked"), None), "{answer:#}");
        let request = json!({"revoke": "orders", "serial_number": "0badc0de", "reason": "SUPERSEDED"});
        let error = site.stack.handle("issue-client-cert", request, "unknown").await.unwrap_err();
        assert_eq!(error.error_type, "Permanent", "{error:?}");
    });
}

/// As a person moves what ACM never moves to another CA.
#[test]
fn a_secret_goes_to_another_certificate_of_acm_once_the_tags_have_gone_there_and_the_event_says_so() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[("SweepMinutes", "240")]).await;
        lose_deliveries(&stack);
        let old = request(&stack, "gateway", false).await;
        act(&stack, "export-to-secrets", json!({"certificate_arn": old})).await;
        let new = request(&stack, "gateway", false).await;
        let export = json!({"certificate_arn": new});
        let error = stack.handle("export-to-secrets", export.clone(), "too early").await.unwrap_err();
        assert!(error.error_message.contains(&format!("the name `gateway` is taken by {old}")), "{error:?}");
        let tag = json!([{"Key": "everleaf:certificate"}]);
        user(&stack, "acm:RemoveTagsFromCertificate", json!({"CertificateArn": old, "Tags": tag})).await;
        assert_eq!(act(&stack, "export-to-secrets", export.clone()).await["outcome"], "exported");
        let current = last_event(&stack, "Certificate Current");
        assert_eq!(current["detail"]["reason"], "another certificate of ACM has its tags now");
        assert_eq!(act(&stack, "export-to-secrets", export).await["outcome"], "unchanged");
    });
}

#[test]
fn what_acm_says_of_a_certificate_brings_its_tags_to_no_other_that_has_its_name() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let first = request(&stack, "gateway", false).await;
        act(&stack, "export-to-secrets", json!({"certificate_arn": first})).await;
        let second = request(&stack, "gateway", false).await;
        let tags = json!([{"Key": "everleaf:service-1", "Value": "payments/other"}]);
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": second, "Tags": tags})).await;
        let before = stack.record("gateway").await.unwrap();
        let event = include_str!("../../events/renew-on-expiry.acm-approaching-expiration.json");
        let mut event: Value = serde_json::from_str(event).unwrap();
        event["resources"] = json!([second]);
        act(&stack, "renew-on-expiry", event).await;
        assert_eq!(stack.record("gateway").await.unwrap().options, before.options);
    });
}

/// From one issuing CA to another below the same root or another one: nobody is refused at any hour, and the retired one leaves
/// when nothing needs it any more.
#[test]
fn a_ca_rollover_shuts_nobody_out_and_ends() {
    run(async {
        let stores = |ca: &str, listener: &str| {
            json!([{"name": "clients", "certificate_authority_arns": [ca], "listeners": [{"listener_arn": listener}]}])
                .to_string()
        };
        let mut site = Site::with(&[("SweepMinutes", "60")]).await;
        let declared = stores(&site.stack.issuing_ca, &site.listener);
        site.stack.update(&[("TrustStores", &declared)]).await;
        act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
        let names = ["orders", "refunds", "billing"];
        for name in names {
            let order = json!({"name": name, "subject": {"common_name": name}, "validity": {"days": 10}});
            act(&site.stack, "issue-client-cert", order).await;
        }
        minutes(20).await;
        let (old, new) = site.stack.aws.world(|world, now| {
            let root = pca::create_active_root(world, now, "Example New Root CA", "EC_prime256v1").unwrap();
            let new = pca::create_active_subordinate(world, now, &root, "Example New Issuing CA", "EC_prime256v1").unwrap();
            pca::enable_crl(world, now, &new, BUCKET, 7).unwrap();
            (site.stack.issuing_ca.clone(), new)
        });
        minutes(1).await;
        site.stack.update(&[("IssuingCaArn", &new), ("RetiredCas", &format!("{old}={new}"))]).await;
        site.stack.aws.take_calls();
        let mut gone = None;
        for hour in 0..24 * 25 {
            minutes(60).await;
            for name in names {
                assert_eq!(site.client(name, "AWSCURRENT"), "Success", "{name}, hour {hour}");
                let record = site.stack.record(name).await.unwrap();
                let previous = record.previous.is_some_and(|pair| pair.is_valid_at(site.stack.aws.now()));
                if previous {
                    assert_eq!(site.client(name, "AWSPREVIOUS"), "Success", "{name}, hour {hour}");
                }
            }
            if hour == 48 {
                let issuers: Vec<_> = {
                    let mut all = Vec::new();
                    for name in names {
                        all.push(site.stack.record(name).await.unwrap().current.unwrap().issuer.unwrap().to_string());
                    }
                    all
                };
                assert_eq!(issuers, [new.as_str(); 3], "two days on everybody has moved");
            }
            let stores = site.stack.records().stores().await.unwrap().unwrap();
            let holds_old = stores.stores.values().next().unwrap().held.keys().any(|ca| ca.as_str() == old);
            if !holds_old && gone.is_none() {
                gone = Some(hour);
            }
        }
        let calls = site.stack.aws.take_calls();
        let first = |operation: &str, caller: &str| {
            calls.iter().find(|call| call.operation == operation && call.caller == caller).unwrap().at
        };
        assert!(
            first("ModifyTrustStore", "refresh-truststore") < first("IssueCertificate", "issue-client-cert"),
            "trust comes first"
        );
        let gone = gone.expect("the retired CA leaves");
        assert!(gone > 24 * 3, "not while a previous pair is valid: hour {gone}");
        assert_eq!(site.subjects().await, ["Example New Issuing CA", "Example New Root CA"]);
    });
}

#[test]
fn a_revocation_that_the_ca_refuses_keeps_no_certificate_from_being_renewed() {
    run(async {
        let site = Site::with(&[]).await;
        let stack = &site.stack;
        let order = json!({"name": "orders", "subject": {"common_name": "orders"}, "validity": {"days": 9}});
        act(stack, "issue-client-cert", order).await;
        let first = stack.record("orders").await.unwrap().current.unwrap().serial;
        // A slip of the pen: the CA knows no such serial, and nothing of it stays.
        let slip = json!({"revoke": "orders", "serial_number": "0badc0de", "reason": "KEY_COMPROMISE"});
        let error = stack.handle("issue-client-cert", slip, "a slip").await.unwrap_err();
        assert!(error.error_message.contains("check the serial number"), "{error:?}");
        assert_eq!(stack.record("orders").await.unwrap().revocations, []);
        // The role may not revoke: the certificate is renewed all the same, and a person is told once a day.
        stack.aws.set_faults(Some(Box::new(|call| {
            let denied = AwsError::new("AccessDeniedException", "User is not authorized to perform this");
            (call.operation == "RevokeCertificate").then_some(Fault::Refuse(denied))
        })));
        let request = json!({"revoke": "orders", "serial_number": first, "reason": "SUPERSEDED"});
        act(stack, "issue-client-cert", request.clone()).await;
        assert_ne!(stack.record("orders").await.unwrap().current.unwrap().serial, first, "it is replaced at once");
        published(stack, "Action Required");
        days(3).await;
        let told = published(stack, "Action Required");
        let refused = told.iter().filter(|event| event["detail"]["reason"].as_str().unwrap().starts_with("revoke-failed"));
        assert!((2..=4).contains(&refused.count()), "{told:#?}");
        days(7).await;
        let renewed = stack.record("orders").await.unwrap();
        assert!(renewed.previous.unwrap().serial != first, "renewed since");
        // It turns out to be urgent, and the role is mended.
        stack.aws.set_faults(None);
        let current = renewed.current.unwrap().serial;
        let slow = json!({"revoke": "orders", "serial_number": current, "reason": "SUPERSEDED"});
        lose_deliveries(stack);
        assert_eq!(act(stack, "issue-client-cert", slow).await["outcome"], "recorded");
        let urgent = json!({"revoke": "orders", "serial_number": current, "reason": "KEY_COMPROMISE"});
        assert_eq!(act(stack, "issue-client-cert", urgent).await["outcome"], "revoked");
    });
}

#[test]
fn a_listener_has_one_store_and_does_not_verify_by_one_that_lacks_a_declared_ca() {
    run(async {
        let site = Site::with(&[]).await;
        let configuration = json!({
            "KeyAlgorithm": "EC_prime256v1", "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {"CommonName": "Not set up yet"},
        });
        let input = json!({"CertificateAuthorityType": "SUBORDINATE", "CertificateAuthorityConfiguration": configuration});
        let pending = user(&site.stack, "acm-pca:CreateCertificateAuthority", input).await["CertificateAuthorityArn"].clone();
        minutes(1).await;
        let mut declaration = site.declaration();
        declaration["certificate_authority_arns"] = json!([site.stack.issuing_ca, pending]);
        let request = json!({"declare": declaration});
        let error = site.stack.handle("refresh-truststore", request, "declared").await.unwrap_err();
        assert!(error.error_message.contains(pending.as_str().unwrap()), "{error:?}");
        let report = act(&site.stack, "refresh-truststore", json!({"refresh": true, "dry_run": true})).await;
        let listener = &report["trust_stores"][0]["listeners"][0];
        assert_eq!(listener["outcome"], "waiting", "{report:#}");
        assert!(listener["missing"][0].as_str().unwrap().contains("is declared and not in the trust store"), "{report:#}");
        assert_eq!(site.verdict(""), "-", "it does not verify");
        assert_eq!(site.declare(site.declaration()).await["listeners"][0]["outcome"], "modified");
        let mut other = site.declaration();
        other["name"] = json!("others");
        let error = site.stack.handle("refresh-truststore", json!({"declare": other}), "twice").await.unwrap_err();
        assert!(error.error_message.contains("is a listener of `clients`; take it out there"), "{error:?}");
    });
}

#[test]
fn many_certificates_that_wait_for_a_store_ask_for_it_once_a_sweep() {
    run(async {
        let mut site = Site::with(&[("SweepMinutes", "60")]).await;
        for number in 0..5 {
            let name = format!("client-{number}");
            act(&site.stack, "issue-client-cert", json!({"name": name, "subject": {"common_name": name}})).await;
        }
        site.declare(site.declaration()).await;
        minutes(90).await;
        let (old, new) = (site.stack.issuing_ca.clone(), site.new_authority("Example Second CA"));
        site.stack.update(&[("IssuingCaArn", &new), ("RetiredCas", &format!("{old}={new}"))]).await;
        // Nothing that is asked for is done.
        site.stack.aws.set_deliveries(Some(Box::new(|payload, _| {
            if payload["sweep"] == true { vec![std::time::Duration::ZERO] } else { Vec::new() }
        })));
        published(&site.stack, "Trust Due");
        // Each is looked at within a day, and from then on every hour.
        days(3).await;
        let asked = published(&site.stack, "Trust Due").len();
        assert!((30..=72).contains(&asked), "{asked}");
    });
}

/// Its successor may come long after, and nothing has kept the CA in the store meanwhile.
#[test]
fn a_pair_whose_ca_is_leaving_a_store_waits_where_the_current_one_of_that_ca_has_expired_or_is_revoked() {
    run(async {
        for revoked in [false, true] {
            let site = Site::with(&[]).await;
            site.declare(site.declaration()).await;
            let mut order = order();
            order["validity"] = json!({"days": 9});
            act(&site.stack, "issue-client-cert", order.clone()).await;
            minutes(1).await;
            lose_deliveries(&site.stack);
            let second = site.new_authority("Example Second CA");
            let mut declaration = site.declaration();
            declaration["certificate_authority_arns"] = json!([second]);
            site.declare(declaration).await;
            match revoked {
                true => {
                    let mut record = site.stack.record("orders").await.unwrap();
                    let (serial, now) = (record.current.as_ref().unwrap().serial.clone(), site.stack.aws.now());
                    record.ask_to_revoke(lifecycle::revocation::Revocation {
                        serial: serial.clone(),
                        certificate_authority_arn: site.stack.issuing_ca.parse().unwrap(),
                        reason: lifecycle::revocation::Reason::KeyCompromise,
                        asked: now.into(),
                        after_rollout: false,
                        done: None,
                        refused: None,
                    });
                    record.revoked(&serial, now);
                    site.stack.records().update(&mut record).await.unwrap();
                    minutes(1).await;
                }
                false => days(10).await,
            }
            act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
            let answer = act(&site.stack, "issue-client-cert", order.clone()).await;
            assert_eq!(answer["outcome"], "waiting-for-trust", "revoked: {revoked}: {answer}");
            site.stack.aws.set_deliveries(None);
            days(1).await;
            let record = site.stack.record("orders").await.unwrap();
            assert_eq!(record.attempt, None, "nobody declares it any more");
            assert!(record.current.unwrap().is_valid_at(site.stack.aws.now()));
        }
    });
}

/// Some days after `orders` has moved to a new CA: its pair before is still good.
async fn moved_to_a_new_ca() -> Site {
    let mut site = Site::with(&[]).await;
    site.declare(site.declaration()).await;
    act(&site.stack, "issue-client-cert", order()).await;
    let new = site.stack.aws.world(|world, now| {
        let root = pca::create_active_root(world, now, "Example New Root CA", "EC_prime256v1").unwrap();
        pca::create_active_subordinate(world, now, &root, "Example New Issuing CA", "EC_prime256v1").unwrap()
    });
    let retired = format!("{}={new}", site.stack.issuing_ca);
    site.stack.update(&[("IssuingCaArn", &new), ("RetiredCas", &retired)]).await;
    days(3).await;
    assert_eq!(site.stack.record("orders").await.unwrap().current.unwrap().issuer.unwrap().as_str(), new);
    assert_eq!(["AWSCURRENT", "AWSPREVIOUS"].map(|stage| site.client("orders", stage)), ["Success"; 2]);
    site
}

#[test]
fn a_lost_table_takes_no_ca_from_the_pairs_that_need_it() {
    run(async {
        let site = moved_to_a_new_ca().await;
        let both = || ["AWSCURRENT", "AWSPREVIOUS"].map(|stage| site.client("orders", stage));
        lose_deliveries(&site.stack);
        empty_the_table(&site.stack).await;
        for _ in 0..3 {
            act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
            minutes(90).await;
        }
        assert_eq!(both(), ["Success"; 2], "before anybody was found again");
        site.stack.aws.set_deliveries(None);
        days(3).await;
        assert_eq!(both(), ["Success"; 2], "after everybody was found again");
        days(30).await;
        assert_eq!(site.subjects().await, ["Example New Issuing CA", "Example New Root CA"]);
    });
}

/// The first walk after the table was lost meets what it cannot get past, and the next one comes a day later.
#[test]
fn a_walk_that_was_given_up_takes_no_ca_from_the_pairs_that_need_it() {
    run(async {
        let site = moved_to_a_new_ca().await;
        empty_the_table(&site.stack).await;
        let denied = || AwsError::new("InvalidNextTokenException", "The NextToken value is invalid.");
        site.stack.aws.set_faults(Some(Box::new(move |call| (call.operation == "ListSecrets").then(|| Fault::Refuse(denied())))));
        minutes(300).await;
        site.stack.aws.set_faults(None);
        for _ in 0..3 {
            act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
            minutes(90).await;
        }
        assert_eq!(["AWSCURRENT", "AWSPREVIOUS"].map(|stage| site.client("orders", stage)), ["Success"; 2]);
        days(31).await;
        assert_eq!(site.subjects().await, ["Example New Issuing CA", "Example New Root CA"]);
    });
}

/// Nobody hears that a CA was added; the CA is undeclared, and then its first pair becomes current and waits for no store.
#[test]
fn a_ca_that_was_added_unheard_of_is_not_taken_from_the_pairs_that_need_it() {
    run(async {
        for table_is_lost in [false, true] {
            let mut site = Site::with(&[]).await;
            site.declare(site.declaration()).await;
            let second = site.stack.aws.world(|world, now| {
                let root = pca::create_active_root(world, now, "Example Second Root CA", "EC_prime256v1").unwrap();
                pca::create_active_subordinate(world, now, &root, "Example Second CA", "EC_prime256v1").unwrap()
            });
            site.stack.update(&[("AllowedCaArns", &second)]).await;
            days(1).await;
            lose_deliveries(&site.stack);
            let first = site.declaration();
            let mut both = first.clone();
            both["certificate_authority_arns"].as_array_mut().unwrap().push(json!(second));
            site.stack.aws.set_faults(Some(Box::new(|call| (call.operation == "ModifyTrustStore").then_some(Fault::Crash))));
            tokio::select! {
                () = site.stack.aws.hung() => {}
                answer = site.stack.handle("refresh-truststore", json!({"declare": both}), "unheard of") => panic!("{answer:?}"),
            }
            minutes(3).await;
            site.stack.aws.set_faults(Some(Box::new(|call| (call.service == "elasticloadbalancing").then_some(Fault::Reset))));
            site.stack.handle("refresh-truststore", json!({"declare": first}), "not looked at").await.unwrap_err();
            site.stack.aws.set_faults(None);
            let mut order = order();
            order["certificate_authority_arn"] = json!(second);
            act(&site.stack, "issue-client-cert", order).await;
            assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
            if table_is_lost {
                empty_the_table(&site.stack).await;
            }
            for _ in 0..3 {
                act(&site.stack, "refresh-truststore", json!({"refresh": true})).await;
                minutes(90).await;
                assert_eq!(site.client("orders", "AWSCURRENT"), "Success", "the table is lost: {table_is_lost}");
            }
        }
    });
}

/// A CA that leaves takes its CRL with it, and below a root that stays whoever it has revoked would get in again.
#[test]
fn what_is_revoked_stays_refused_when_its_ca_is_retired_below_a_root_that_stays() {
    run(async {
        let mut site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        let mut order = order();
        order["validity"] = json!({"days": 9});
        act(&site.stack, "issue-client-cert", order).await;
        // The new CA has its chain with the root's next certificate, the old one with the first.
        site.stack.aws.world(|world, now| pca::renew_authority(world, now, &site.stack.root_ca)).unwrap();
        let new = site.new_authority("Example New Issuing CA");
        let retired = format!("{}={new}", site.stack.issuing_ca);
        site.stack.update(&[("IssuingCaArn", &new), ("RetiredCas", &retired)]).await;
        days(2).await;
        let previous = site.stack.record("orders").await.unwrap().previous.unwrap();
        let request = json!({"revoke": "orders", "serial_number": previous.serial, "reason": "KEY_COMPROMISE"});
        assert_eq!(act(&site.stack, "issue-client-cert", request).await["outcome"], "revoked");
        let revoked = site.chain("orders", "AWSPREVIOUS");
        minutes(35).await;
        for _ in 0..24 * 5 {
            assert_eq!(site.verdict(&revoked), "Failed:ClientCertCrlHit");
            assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
            minutes(60).await;
        }
        days(12).await;
        assert_eq!(site.subjects().await, ["Example New Issuing CA", "Example Root CA"], "it is named no longer");
    });
}

/// An order for another CA does not say who issued what is current.
#[test]
fn the_issuer_of_a_pair_that_is_taken_over_is_the_one_that_was_tagged_with_it() {
    run(async {
        let site = Site::with(&[]).await;
        act(&site.stack, "issue-client-cert", order()).await;
        let mut record = site.stack.record("orders").await.unwrap();
        let issuer = record.current.take().unwrap().issuer;
        let lifecycle::record::Origin::Issued(wanted) = &mut record.origin else { panic!("{record:?}") };
        wanted.certificate_authority_arn = site.new_authority("Example Other CA").parse().unwrap();
        site.stack.records().agree(&mut record, site.stack.aws.now()).await.unwrap();
        assert_eq!(record.current.unwrap().issuer, issuer);
    });
}

/// A pair that waited for the newer certificate would have been asked for, and have waited, round and round.
#[test]
fn a_store_that_holds_a_ca_by_an_earlier_certificate_keeps_no_pair_waiting() {
    run(async {
        let mut site = Site::with(&[]).await;
        lose_deliveries(&site.stack);
        let second = site.new_authority("Example Second CA");
        site.stack.update(&[("AllowedCaArns", &second)]).await;
        let mut declaration = site.declaration();
        declaration["certificate_authority_arns"] = json!([site.stack.issuing_ca, second]);
        site.declare(declaration).await;
        act(&site.stack, "issue-client-cert", order()).await;
        site.stack.aws.world(|world, now| pca::renew_authority(world, now, &second)).unwrap();
        let mut replaced = order();
        (replaced["certificate_authority_arn"], replaced["replace"]) = (json!(second), json!(true));
        assert_eq!(act(&site.stack, "issue-client-cert", replaced).await["outcome"], "issued");
        assert_eq!(site.client("orders", "AWSCURRENT"), "Success");
    });
}

#[test]
fn a_pair_that_waits_is_given_up_when_its_ca_is_retired_before_any_store_holds_it() {
    run(async {
        let mut site = Site::with(&[]).await;
        site.declare(site.declaration()).await;
        act(&site.stack, "issue-client-cert", order()).await;
        // Whoever hears of it has done what is to be done.
        minutes(1).await;
        lose_deliveries(&site.stack);
        let [second, third] = ["Example Second CA", "Example Third CA"].map(|name| site.new_authority(name));
        let first = site.stack.issuing_ca.clone();
        site.stack.update(&[("IssuingCaArn", &second), ("RetiredCas", &format!("{first}={second}"))]).await;
        assert_eq!(act(&site.stack, "issue-client-cert", order()).await["outcome"], "waiting-for-trust");
        let retired = format!("{first}={second},{second}={third}");
        site.stack.update(&[("IssuingCaArn", &third), ("RetiredCas", &retired)]).await;
        site.stack.aws.set_deliveries(None);
        days(2).await;
        let record = site.stack.record("orders").await.unwrap();
        assert_eq!((record.current.unwrap().issuer.unwrap().as_str(), record.attempt), (third.as_str(), None));
    });
}
