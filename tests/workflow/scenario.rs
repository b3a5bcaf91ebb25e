//! Where each story begins: an account in which something has happened, and the event that tells a function of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use local_aws::{Call, elbv2, pca, s3};
use records::table::{Saved, Walk};
use serde_json::{Value, json};
use tokio::sync::Notify;
use workflow::Stack;

/// A call of a function, counted from 0: the moment at which something else begins.
#[derive(Clone)]
pub(crate) struct Moment {
    function: &'static str,
    number: usize,
    calls: Arc<AtomicUsize>,
    comes: Arc<Notify>,
}

impl Moment {
    pub(crate) fn of_call(function: &'static str, number: usize) -> Self {
        Self { function, number, calls: Arc::default(), comes: Arc::default() }
    }

    /// Is told of every call.
    pub(crate) fn see(&self, call: &Call) {
        if call.caller == self.function && self.calls.fetch_add(1, Ordering::Relaxed) == self.number {
            self.comes.notify_one();
        }
    }

    /// The second begins at that call of the first, or after it; whether there was that call.
    pub(crate) async fn join<A, B>(&self, first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B, bool) {
        let first = async {
            let answer = first.await;
            self.comes.notify_one();
            (answer, self.calls.load(Ordering::Relaxed) > self.number)
        };
        let second = async {
            self.comes.notified().await;
            // No two moments are the same.
            tokio::time::sleep(Duration::from_micros(1)).await;
            second.await
        };
        let ((first, there_was_one), second) = tokio::join!(first, second);
        (first, second, there_was_one)
    }
}

/// Of a stack in which everything that a parameter turns on is on. Seldom swept: each of the sweeps that are lost on the way to a
/// story costs time too.
pub(crate) const PARAMETERS: &[(&str, &str)] =
    &[("SweepMinutes", "240"), ("CrlBucketArns", "arn:aws:s3:::crls"), ("KmsKeyArn", KMS_KEY), ("ReplicaRegions", "eu-west-1")];

/// A trigger of a function.
pub(crate) struct Scenario {
    pub(crate) function: &'static str,
    /// As a person says it.
    pub(crate) name: &'static str,
    /// What the function brings about when nobody else does anything, as [`crate::account::effects`] spells it.
    pub(crate) effects: &'static str,
    set_up: SetUp,
}

type SetUp = for<'a> fn(&'a Stack) -> Pin<Box<dyn Future<Output = Value> + 'a>>;

/// Every trigger of every function.
pub(crate) fn all() -> Vec<Scenario> {
    let all: [fn() -> Scenario; 35] = [
        issue_by_hand,
        sign_a_callers_csr,
        replace_by_hand,
        certificate_due,
        import_by_hand,
        import_later,
        reimport_due,
        adoption_due,
        approaching_expiration_imported,
        acm_available_issuance,
        acm_available_issuance_public,
        acm_available_renewal,
        acm_available_renewal_public,
        export_due,
        export_by_arn,
        export_by_name,
        approaching_expiration,
        renewal_action_required,
        expired,
        revoked,
        sweep,
        look_by_hand,
        certificate_current,
        redeploy_by_certificate,
        redeploy_by_service,
        ecs_completed,
        ecs_failed,
        revoke_by_hand,
        revocation_due,
        declare_by_hand,
        refresh_daily,
        refresh_idle,
        trust_due,
        crl_generation,
        extra_created,
    ];
    all.map(|scenario| scenario()).into()
}

impl Scenario {
    pub(crate) fn of(function: &'static str, name: &'static str, set_up: SetUp) -> Self {
        Self { function, name, effects: "", set_up }
    }

    pub(crate) async fn set_up(&self, stack: &Stack) -> Value {
        (self.set_up)(stack).await
    }

    /// A stack of its own to which nothing is delivered by itself, and the event. What led there is forgotten.
    pub(crate) async fn begin(&self) -> (Stack, Value) {
        let stack = Stack::deploy_on("EC_prime256v1", PARAMETERS).await;
        lose_deliveries(&stack);
        let event = (self.set_up)(&stack).await;
        stack.aws.take_calls();
        stack.aws.take_events();
        (stack, event)
    }
}

/// Makes the check of the module above a test of each of these scenarios.
macro_rules! of_each {
    ($check:ident: $($scenario:ident)*) => {
        $(
            #[test]
            fn $scenario() {
                super::$check(&crate::scenario::$scenario());
            }
        )*
    };
}

/// What the stack's secrets, replicas and table are encrypted with.
/// Encrypts the bucket of the CRLs.
pub(crate) const CRL_KEY: &str = "arn:aws:kms:eu-central-1:444455556666:key/11111111-2222-3333-4444-555555555555";

pub(crate) const KMS_KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-11112222333344445555666677778888";

/// Runs a story in a time of its own: what a stack does by the clock ends with it.
pub(crate) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story)
}

pub(crate) async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
}

pub(crate) async fn days(days: u64) {
    minutes(24 * 60 * days).await;
}

/// Everything is delivered again, and two sweeps have come.
pub(crate) async fn come_to_rest(stack: &Stack) {
    stack.aws.set_deliveries(None);
    minutes(490).await;
}

/// From now on no event and no schedule reaches a function.
pub(crate) fn lose_deliveries(stack: &Stack) {
    stack.aws.set_deliveries(Some(Box::new(|_, _| Vec::new())));
}

/// The function does it, as a step of the story.
pub(crate) async fn act(stack: &Stack, function: &str, event: Value) -> Value {
    stack.handle(function, event, "of the story").await.unwrap()
}

pub(crate) async fn user(stack: &Stack, action: &str, input: Value) -> Value {
    stack.aws.call(action, input).await.unwrap()
}

/// Who does what an event of our own asks for.
pub(crate) fn asked(event: &Value) -> Option<&'static str> {
    match event["detail-type"].as_str()? {
        "Certificate Due" => Some("issue-client-cert"),
        "Export Due" => Some("export-to-secrets"),
        _ => None,
    }
}

/// The last event of that type on the bus.
pub(crate) fn last_event(stack: &Stack, detail_type: &str) -> Value {
    let events = stack.aws.take_events();
    let found = events.iter().rev().find(|event| event.event["detail-type"] == detail_type);
    found.unwrap_or_else(|| panic!("no `{detail_type}` among {events:#?}")).event.clone()
}

/// A certificate of ACM for the stack, with a service that uses it; its ARN.
pub(crate) async fn request(stack: &Stack, name: &str, public: bool) -> String {
    let mut input = json!({
        "DomainName": format!("{name}.example.com"), "KeyAlgorithm": "EC_prime256v1",
        "Tags": [
            {"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")},
            {"Key": "everleaf:service-1", "Value": format!("payments/{name}")},
        ],
    });
    match public {
        true => input["Options"] = json!({"Export": "ENABLED"}),
        false => input["CertificateAuthorityArn"] = json!(stack.issuing_ca),
    }
    let arn = user(stack, "acm:RequestCertificate", input).await["CertificateArn"].as_str().unwrap().to_owned();
    minutes(1).await;
    arn
}

/// An ECS service of one task that reads the certificates of these secrets when it starts. Its circuit breaker is on.
pub(crate) async fn service(stack: &Stack, service: &str, certificates: &[&str]) {
    let (cluster, service) = service.split_once('/').unwrap();
    let read = |name: &&str| {
        let secret = format!("arn:aws:secretsmanager:eu-central-1:111122223333:secret:everleaf/{name}");
        json!({"name": name, "valueFrom": format!("{secret}:certificate::")})
    };
    let secrets: Vec<_> = certificates.iter().map(read).collect();
    user(stack, "ecs:CreateCluster", json!({"clusterName": cluster})).await;
    let containers = json!([{"name": "app", "image": "app", "secrets": secrets}]);
    user(stack, "ecs:RegisterTaskDefinition", json!({"family": service, "containerDefinitions": containers})).await;
    user(
        stack,
        "ecs:CreateService",
        json!({
            "cluster": cluster, "serviceName": service, "taskDefinition": service, "desiredCount": 1,
            "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": true, "rollback": false}},
        }),
    )
    .await;
    minutes(2).await;
}

/// What is issued by hand in most stories.
pub(crate) fn order() -> Value {
    json!({
        "name": "orders", "subject": {"common_name": "orders"}, "subject_alternative_names": ["dns:orders.example.internal"],
        "services": ["payments/orders"],
    })
}

fn orders_csr() -> Value {
    let mut request: Value = serde_json::from_str(include_str!("../../events/issue-client-cert.csr.json")).unwrap();
    request["services"] = json!(["payments/billing"]);
    request
}

/// `orders` is issued, and its service runs on it.
async fn issued(stack: &Stack) {
    act(stack, "issue-client-cert", order()).await;
    service(stack, "payments/orders", &["orders"]).await;
    act(stack, "force-redeploy", json!({"certificate": "orders"})).await;
}

/// `gateway` was exported from ACM, and its service runs on it; its ARN.
async fn exported(stack: &Stack, public: bool) -> String {
    let arn = request(stack, "gateway", public).await;
    act(stack, "export-to-secrets", json!({"certificate_arn": arn})).await;
    service(stack, "payments/gateway", &["gateway"]).await;
    act(stack, "force-redeploy", json!({"certificate": "gateway"})).await;
    arn
}

/// The same after ACM renewed it.
async fn renewed_by_acm(stack: &Stack, public: bool) -> String {
    let arn = exported(stack, public).await;
    days(1).await;
    user(stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
    minutes(3).await;
    arn
}

/// The same when ACM has failed to renew it until so many days before its expiry.
async fn not_renewed_by_acm(stack: &Stack, days_left: u64) -> String {
    let arn = exported(stack, false).await;
    stack.aws.world(|world, _| world.acm.renewal_fails = Some("PCA_ACCESS_DENIED".to_owned()));
    days(395 - days_left).await;
    minutes(5).await;
    stack.aws.world(|world, _| world.acm.renewal_fails = None);
    arn
}

macro_rules! scenario {
    ($called:ident, $function:literal, $name:literal, $effects:literal, |$stack:ident| $set_up:expr) => {
        pub(crate) fn $called() -> Scenario {
            Scenario { function: $function, name: $name, effects: $effects, set_up: |$stack| Box::pin(async move { $set_up }) }
        }
    };
}

scenario!(issue_by_hand, "issue-client-cert", "by hand", "Certificate Current 1, issued 1, version of orders 2", |stack| {
    service(stack, "payments/orders", &["orders"]).await;
    order()
});

scenario!(
    sign_a_callers_csr,
    "issue-client-cert",
    "by hand, with a CSR",
    "Certificate Current 1, issued 1, version of billing-mtls 1",
    |stack| {
        service(stack, "payments/billing", &["billing-mtls"]).await;
        orders_csr()
    }
);

scenario!(
    replace_by_hand,
    "issue-client-cert",
    "by hand, replacing",
    "Certificate Current 1, issued 1, version of orders 2",
    |stack| {
        issued(stack).await;
        let mut order = order();
        order["subject_alternative_names"] = json!(["dns:orders.example.internal", "dns:orders.example.com"]);
        order["replace"] = json!(true);
        order
    }
);

/// What is to be on a listener too.
pub(crate) fn order_for_listener() -> Value {
    let mut order = order();
    (order["usage"], order["import_to_acm"]) = (json!("server"), json!(true));
    order
}

scenario!(
    import_by_hand,
    "issue-client-cert",
    "by hand, importing into ACM",
    "Certificate Current 1, imported into ACM 1, issued 1, version of orders 2",
    |stack| {
        service(stack, "payments/orders", &["orders"]).await;
        order_for_listener()
    }
);

scenario!(import_later, "issue-client-cert", "by hand, importing what is issued", "imported into ACM 1", |stack| {
    service(stack, "payments/orders", &["orders"]).await;
    let mut order = order_for_listener();
    order["import_to_acm"] = json!(false);
    act(stack, "issue-client-cert", order).await;
    let mut order = order_for_listener();
    order["replace"] = json!(true);
    order
});

scenario!(
    reimport_due,
    "issue-client-cert",
    "Certificate Due, importing into ACM",
    "Certificate Current 1, issued 1, reimported into ACM 1, version of orders 2",
    |stack| {
        act(stack, "issue-client-cert", order_for_listener()).await;
        days(22).await;
        act(stack, "renew-on-expiry", json!({"sweep": true})).await;
        last_event(stack, "Certificate Due")
    }
);

scenario!(
    adoption_due,
    "issue-client-cert",
    "Certificate Due, adopting",
    "Certificate Current 1, issued 1, reimported into ACM 1, version of web 2",
    |stack| {
        self_signed(stack, "web", 90).await;
        days(61).await;
        act(stack, "renew-on-expiry", json!({"sweep": true})).await;
        last_event(stack, "Certificate Due")
    }
);

scenario!(
    approaching_expiration_imported,
    "renew-on-expiry",
    "ACM Certificate Approaching Expiration, imported",
    "Action Required 1, Certificate Due 1",
    |stack| {
        self_signed(stack, "web", 90).await;
        days(80).await;
        last_event(stack, "ACM Certificate Approaching Expiration")
    }
);

/// A certificate that somebody has made for itself and imported into ACM, for so many days; its ARN.
pub(crate) async fn self_signed(stack: &Stack, name: &str, days: i64) -> String {
    imported_by_hand(stack, name, self_made(stack, name, days, vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth])).await
}

/// Imports what somebody has made, for the stack; its ARN.
pub(crate) async fn imported_by_hand(stack: &Stack, name: &str, mut input: Value) -> String {
    input["Tags"] =
        json!([{"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")}, {"Key": "team", "Value": "web"}]);
    user(stack, "acm:ImportCertificate", input).await["CertificateArn"].as_str().unwrap().to_owned()
}

/// The certificate and its key, as they are imported.
pub(crate) fn self_made(stack: &Stack, name: &str, days: i64, usages: Vec<rcgen::ExtendedKeyUsagePurpose>) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{name}.example.com"));
    if !usages.is_empty() {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    }
    params.extended_key_usages = usages;
    params.not_before = stack.aws.now();
    params.not_after = stack.aws.now() + time::Duration::days(days);
    let certificate = params.self_signed(&key).unwrap();
    let encoded = |pem: String| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem);
    json!({"Certificate": encoded(certificate.pem()), "PrivateKey": encoded(key.serialize_pem())})
}

scenario!(
    certificate_due,
    "issue-client-cert",
    "Certificate Due",
    "Certificate Current 1, issued 1, version of orders 2",
    |stack| {
        issued(stack).await;
        days(22).await;
        act(stack, "renew-on-expiry", json!({"sweep": true})).await;
        last_event(stack, "Certificate Due")
    }
);

scenario!(
    acm_available_issuance,
    "export-to-secrets",
    "ACM Certificate Available, ISSUANCE, private",
    "Certificate Current 1, version of gateway 1",
    |stack| {
        service(stack, "payments/gateway", &["gateway"]).await;
        request(stack, "gateway", false).await;
        last_event(stack, "ACM Certificate Available")
    }
);

scenario!(
    acm_available_issuance_public,
    "export-to-secrets",
    "ACM Certificate Available, ISSUANCE, public",
    "Certificate Current 1, version of gateway 1",
    |stack| {
        request(stack, "gateway", true).await;
        last_event(stack, "ACM Certificate Available")
    }
);

scenario!(
    acm_available_renewal,
    "export-to-secrets",
    "ACM Certificate Available, RENEWAL, private",
    "Certificate Current 1, version of gateway 1",
    |stack| {
        renewed_by_acm(stack, false).await;
        last_event(stack, "ACM Certificate Available")
    }
);

scenario!(
    acm_available_renewal_public,
    "export-to-secrets",
    "ACM Certificate Available, RENEWAL, public",
    "Certificate Current 1, version of gateway 1",
    |stack| {
        renewed_by_acm(stack, true).await;
        last_event(stack, "ACM Certificate Available")
    }
);

scenario!(export_due, "export-to-secrets", "Export Due", "Certificate Current 1, version of gateway 1", |stack| {
    request(stack, "gateway", false).await;
    act(stack, "renew-on-expiry", json!({"sweep": true})).await;
    last_event(stack, "Export Due")
});

scenario!(export_by_arn, "export-to-secrets", "by hand, an ARN", "Certificate Current 1, version of gateway 1", |stack| {
    json!({"certificate_arn": request(stack, "gateway", false).await})
});

scenario!(export_by_name, "export-to-secrets", "by hand, a name", "Certificate Current 1, version of gateway 1", |stack| {
    renewed_by_acm(stack, false).await;
    json!({"certificate": "gateway"})
});

scenario!(
    approaching_expiration,
    "renew-on-expiry",
    "ACM Certificate Approaching Expiration",
    "renewal asked of ACM 1",
    |stack| {
        not_renewed_by_acm(stack, 44).await;
        last_event(stack, "ACM Certificate Approaching Expiration")
    }
);

scenario!(
    renewal_action_required,
    "renew-on-expiry",
    "ACM Certificate Renewal Action Required",
    "Action Required 1, renewal asked of ACM 1",
    |stack| {
        not_renewed_by_acm(stack, 30).await;
        last_event(stack, "ACM Certificate Renewal Action Required")
    }
);

scenario!(expired, "renew-on-expiry", "ACM Certificate Expired", "Action Required 1", |stack| {
    not_renewed_by_acm(stack, 0).await;
    last_event(stack, "ACM Certificate Expired")
});

scenario!(revoked, "renew-on-expiry", "ACM Certificate Revoked", "Action Required 1", |stack| {
    let arn = exported(stack, false).await;
    stack.aws.world(|world, now| local_aws::acm::revoke(world, now, &arn));
    last_event(stack, "ACM Certificate Revoked")
});

// Something of everything that may be due.
scenario!(sweep, "renew-on-expiry", "the sweep", "Certificate Current 1, Certificate Due 1, Export Due 1", |stack| {
    issued(stack).await;
    renewed_by_acm(stack, false).await;
    days(21).await;
    service(stack, "payments/refunds", &["refunds"]).await;
    let refunds = json!({"name": "refunds", "subject": {"common_name": "refunds"}, "services": ["payments/refunds"]});
    act(stack, "issue-client-cert", refunds).await;
    minutes(15).await;
    // The second of two sweeps would write the report of the day.
    let records = stack.records();
    let walk = Walk { reported: stack.aws.now().unix_timestamp(), ..records.walk().await.unwrap() };
    records.save_walk(&walk).await.unwrap();
    json!({"sweep": true})
});

scenario!(look_by_hand, "renew-on-expiry", "by hand", "Certificate Due 1", |stack| {
    issued(stack).await;
    days(22).await;
    json!({"certificate": "orders"})
});

/// A service from before the certificate, and the event that it is there.
async fn current(stack: &Stack) -> Value {
    service(stack, "payments/orders", &["orders"]).await;
    act(stack, "issue-client-cert", order()).await;
    last_event(stack, "Certificate Current")
}

scenario!(certificate_current, "force-redeploy", "Certificate Current", "deployed payments/orders 1", |stack| current(stack)
    .await);

scenario!(redeploy_by_certificate, "force-redeploy", "by hand, a certificate", "deployed payments/orders 1", |stack| {
    current(stack).await;
    json!({"certificate": "orders"})
});

scenario!(redeploy_by_service, "force-redeploy", "by hand, services", "deployed payments/orders 1", |stack| {
    current(stack).await;
    json!({"services": ["payments/orders"]})
});

scenario!(ecs_completed, "force-redeploy", "ECS Deployment State Change, COMPLETED", "Services Redeployed 1", |stack| {
    let event = current(stack).await;
    act(stack, "force-redeploy", event).await;
    minutes(2).await;
    last_event(stack, "ECS Deployment State Change")
});

scenario!(
    ecs_failed,
    "force-redeploy",
    "ECS Deployment State Change, FAILED",
    "Action Required 1, Certificate Current 1, Certificate Rolled Back 1",
    |stack| {
        issued(stack).await;
        let mut order = order();
        order["usage"] = json!("client-and-server");
        order["replace"] = json!(true);
        act(stack, "issue-client-cert", order).await;
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "orders", 1));
        act(stack, "force-redeploy", json!({"certificate": "orders"})).await;
        minutes(10).await;
        last_event(stack, "ECS Deployment State Change")
    }
);

/// `orders` is issued, its CA publishes CRLs, and the store `clients` lets it in; the listener's ARN.
async fn trusted(stack: &Stack) -> String {
    issued(stack).await;
    let listener = stack.aws.world(|world, now| {
        s3::create_bucket(world, "crls");
        s3::encrypt_bucket(world, "crls", CRL_KEY);
        pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
        elbv2::create_listener(world, now, "clients", 8443)
    });
    minutes(1).await;
    act(stack, "refresh-truststore", declaration(stack, &listener)).await;
    listener
}

fn declaration(stack: &Stack, listener: &str) -> Value {
    json!({"declare": {
        "name": "clients", "certificate_authority_arns": [stack.issuing_ca], "listeners": [{"listener_arn": listener}],
    }})
}

async fn revoke(stack: &Stack, reason: &str) -> Value {
    let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
    json!({"revoke": "orders", "serial_number": serial, "reason": reason})
}

scenario!(declare_by_hand, "refresh-truststore", "by hand, a declaration", "Trust Store Refreshed 1", |stack| {
    issued(stack).await;
    let listener = stack.aws.world(|world, now| elbv2::create_listener(world, now, "clients", 8443));
    declaration(stack, &listener)
});

// Somebody has replaced what the store holds.
scenario!(refresh_daily, "refresh-truststore", "daily", "Trust Store Refreshed 1", |stack| {
    trusted(stack).await;
    stack.aws.world(|world, now| {
        let arn = pca::create_active_root(world, now, "Somebody's CA", "EC_prime256v1").unwrap();
        let pem = world.pca.certificate(&arn).unwrap();
        s3::put(world, now, "crls", "theirs.pem", pem.into_bytes()).unwrap();
    });
    let stores = user(stack, "elasticloadbalancing:DescribeTrustStores", json!({})).await;
    let arn = stores["TrustStores"][0]["TrustStoreArn"].clone();
    let theirs = json!({"TrustStoreArn": arn, "CaCertificatesBundleS3Bucket": "crls", "CaCertificatesBundleS3Key": "theirs.pem"});
    user(stack, "elasticloadbalancing:ModifyTrustStore", theirs).await;
    json!({"refresh": true})
});

scenario!(refresh_idle, "refresh-truststore", "daily, nothing differs", "", |stack| {
    trusted(stack).await;
    act(stack, "refresh-truststore", json!({"refresh": true})).await;
    json!({"refresh": true})
});

// ACM's certificate is of a CA that the store declares since this moment, and does not hold yet.
scenario!(trust_due, "refresh-truststore", "Trust Due", "Export Due 1, Trust Store Refreshed 1", |stack| {
    trusted(stack).await;
    let second = stack.aws.world(|world, now| {
        pca::create_active_subordinate(world, now, &stack.root_ca, "Example Second CA", "EC_prime256v1").unwrap()
    });
    let records = stack.records();
    let mut stores = records.stores().await.unwrap().unwrap();
    for store in stores.stores.values_mut() {
        store.declaration.certificate_authority_arns.insert(second.parse().unwrap());
    }
    assert_eq!(records.save_stores(&mut stores).await.unwrap(), Saved::Done);
    let request = json!({
        "DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": second,
        "Tags": [{"Key": "everleaf:certificate", "Value": "everleaf/gateway"}],
    });
    let arn = user(stack, "acm:RequestCertificate", request).await["CertificateArn"].clone();
    minutes(1).await;
    act(stack, "export-to-secrets", json!({"certificate_arn": arn})).await;
    last_event(stack, "Trust Due")
});

scenario!(crl_generation, "refresh-truststore", "ACM Private CA CRL Generation", "Trust Store Refreshed 1", |stack| {
    trusted(stack).await;
    let request = revoke(stack, "KEY_COMPROMISE").await;
    act(stack, "issue-client-cert", request).await;
    minutes(35).await;
    last_event(stack, "ACM Private CA CRL Generation")
});

scenario!(extra_created, "refresh-truststore", "S3 Object Created", "Trust Store Refreshed 1", |stack| {
    trusted(stack).await;
    let bucket = stack.template.function("refresh-truststore").unwrap().environment["EVERLEAF_BUCKET"].clone();
    stack.aws.world(|world, now| {
        let arn = pca::create_active_root(world, now, "Partner CA", "EC_prime256v1").unwrap();
        let pem = world.pca.certificate(&arn).unwrap();
        s3::put(world, now, &bucket, "trust/extra/clients/partner.pem", pem.into_bytes()).unwrap();
    });
    last_event(stack, "Object Created")
});

scenario!(
    revoke_by_hand,
    "issue-client-cert",
    "by hand, revoking a compromised key",
    "Certificate Current 1, Certificate Revoked 1, issued 1, version of orders 2",
    |stack| {
        trusted(stack).await;
        revoke(stack, "KEY_COMPROMISE").await
    }
);

// It was superseded, and every service has the new one.
scenario!(revocation_due, "issue-client-cert", "Certificate Due, revoking", "Certificate Revoked 1", |stack| {
    trusted(stack).await;
    let request = revoke(stack, "SUPERSEDED").await;
    act(stack, "issue-client-cert", request).await;
    for _ in 0..2 {
        act(stack, "force-redeploy", json!({"certificate": "orders"})).await;
        minutes(10).await;
    }
    act(stack, "renew-on-expiry", json!({"certificate": "orders"})).await;
    last_event(stack, "Certificate Due")
});
