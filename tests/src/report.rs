//! `make report`: a fleet after some months on Local AWS, with something of everything, and the report on it.
#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use local_aws::{AwsError, elbv2, pca, s3};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};
use workflow::Stack;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Name, usage, days and services; one is issued every other day.
const FLEET: &[(&str, &str, u64, &[&str])] = &[
    ("gateway-server", "server", 397, &["edge/gateway"]),
    ("ledger", "client", 150, &["payments/ledger"]),
    ("identity-signer", "client", 180, &["identity/signer"]),
    ("orders-client", "client", 30, &["payments/orders"]),
    ("orders-server", "server", 90, &["payments/orders"]),
    ("billing-mtls", "client-and-server", 30, &["payments/billing", "payments/billing-worker"]),
    ("refunds-mtls", "client-and-server", 45, &["payments/refunds"]),
    ("mesh", "client-and-server", 7, &["payments/mesh"]),
    ("catalog-server", "server", 90, &["shop/catalog"]),
    ("basket-client", "client", 30, &["shop/basket"]),
    ("search-mtls", "client-and-server", 60, &["shop/search"]),
    ("checkout-mtls", "client-and-server", 30, &["shop/checkout", "shop/checkout-worker"]),
    ("notify-client", "client", 21, &["shop/notify"]),
    ("pricing-client", "client", 90, &["shop/pricing"]),
    ("stock-server", "server", 42, &["shop/stock"]),
    ("audit-client", "client", 60, &["identity/audit"]),
    ("sessions-server", "server", 90, &["identity/sessions"]),
    ("reports", "client", 14, &["analytics/reports"]),
    ("events-mtls", "client-and-server", 45, &["analytics/events"]),
    ("warehouse-client", "client", 30, &["shop/warehouse"]),
];

/// Of a CA that somebody disables.
const VENDORS: [(&str, u64); 2] = [("vendor-archive", 7), ("vendor-client", 21)];

/// Takes the file to write the page to; the data is written beside it.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Outcome<()> {
    let page = std::env::args().nth(1).map(PathBuf::from).ok_or("give the file to write the page to")?;
    let mut stack = Stack::deploy_on("EC_prime256v1", &[("CrlBucketArns", "arn:aws:s3:::crls")]).await;
    months(&mut stack).await?;
    handle(&stack, "renew-on-expiry", json!({"report": true})).await?;
    let bucket = &stack.template.function("renew-on-expiry").ok_or("there is no such function")?.environment["EVERLEAF_BUCKET"];
    for (key, file) in [("report/report.html", page.clone()), ("report/report.json", page.with_extension("json"))] {
        let text = stack.aws.world(|world, _| world.s3.object(bucket, key).map(<[u8]>::to_vec));
        std::fs::write(&file, text.ok_or("nothing was reported")?)?;
    }
    println!("{}", page.display());
    Ok(())
}

async fn months(stack: &mut Stack) -> Outcome<()> {
    let (listener, vendors_ca) = stack
        .aws
        .world(|world, now| {
            s3::create_bucket(world, "crls");
            pca::enable_crl(world, now, &stack.issuing_ca, "crls", 30)?;
            let vendors = pca::create_active_subordinate(world, now, &stack.root_ca, "Example Vendors CA", "EC_prime256v1")?;
            Ok::<_, AwsError>((elbv2::create_listener(world, now, "internal", 8443), vendors))
        })
        .map_err(told)?;
    stack.update(&[("AllowedCaArns", &vendors_ca)]).await;
    for (store, authorities) in [("clients", json!([stack.issuing_ca])), ("vendors", json!([vendors_ca, stack.issuing_ca]))] {
        let listeners = if store == "clients" { json!([{"listener_arn": listener}]) } else { json!([]) };
        let declaration = json!({"name": store, "certificate_authority_arns": authorities, "listeners": listeners});
        handle(stack, "refresh-truststore", json!({"declare": declaration})).await?;
    }
    for name in ["edge-tls", "api-tls"] {
        request_in_acm(stack, name).await?;
    }
    import_by_hand(stack, "legacy-web").await?;
    for (name, usage, days, services) in FLEET {
        for service in services.iter().filter(|service| !service.contains("warehouse")) {
            run_service(stack, service, name).await?;
        }
        let mut request = json!({
            "name": name, "usage": usage, "validity": {"days": days}, "services": services, "subject": {"common_name": name},
            "subject_alternative_names": [format!("dns:{name}.example.internal")],
        });
        match *name {
            "checkout-mtls" => request["canary"] = json!("shop/checkout"),
            "mesh" => request["services"] = json!([{"service": services[0], "reload": "agent"}]),
            "pricing-client" => request["paused"] = json!(true),
            "stock-server" => request["maintenance_window"] = json!("Sat Sun 01:00-05:00"),
            _ => {}
        }
        handle(stack, "issue-client-cert", request).await?;
        pass_days(2).await;
    }
    handle(stack, "issue-client-cert", csr("partner")?).await?;
    let serial = stack.record("orders-client").await.and_then(|record| record.current).ok_or("`orders-client` is issued")?.serial;
    let revoke = json!({"revoke": "orders-client", "serial_number": serial, "reason": "KEY_COMPROMISE"});
    handle(stack, "issue-client-cert", revoke).await?;
    for (name, days) in VENDORS {
        let request = json!({
            "name": name, "validity": {"days": days}, "subject": {"common_name": name}, "certificate_authority_arn": vendors_ca,
        });
        handle(stack, "issue-client-cert", request).await?;
    }
    stack.aws.world(|world, now| pca::enable(world, now, &vendors_ca, false)).map_err(told)?;
    pass_days(17).await;
    // One more is on its way to its service.
    run_service(stack, "shop/loyalty", "loyalty-client").await?;
    let new = json!({"name": "loyalty-client", "subject": {"common_name": "loyalty"}, "services": ["shop/loyalty"]});
    handle(stack, "issue-client-cert", new).await?;
    Ok(())
}

async fn handle(stack: &Stack, function: &str, request: Value) -> Outcome<Value> {
    let id = format!("{}", stack.aws.now());
    stack.handle(function, request, &id).await.map_err(|error| error.error_message.into())
}

async fn call(stack: &Stack, action: &str, input: Value) -> Outcome<Value> {
    stack.aws.call(action, input).await.map_err(told)
}

/// A service of ECS whose tasks read the certificate.
async fn run_service(stack: &Stack, service: &str, certificate: &str) -> Outcome<()> {
    let (cluster, service) = service.split_once('/').ok_or("a service has a cluster")?;
    let secret = stack.aws.world(|world, _| world.arn("secretsmanager", &format!("secret:everleaf/{certificate}")));
    let secrets = json!([{"name": "CERTIFICATE", "valueFrom": format!("{secret}:certificate::")}]);
    call(stack, "ecs:CreateCluster", json!({"clusterName": cluster})).await?;
    let containers = json!([{"name": "app", "image": "app", "secrets": secrets}]);
    call(stack, "ecs:RegisterTaskDefinition", json!({"family": service, "containerDefinitions": containers})).await?;
    let create = json!({"cluster": cluster, "serviceName": service, "taskDefinition": service, "desiredCount": 1});
    // It may have another certificate, and be there already.
    drop(call(stack, "ecs:CreateService", create).await);
    Ok(())
}

async fn request_in_acm(stack: &Stack, name: &str) -> Outcome<()> {
    let input = json!({
        "DomainName": format!("{name}.example.com"), "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": stack.issuing_ca,
        "Tags": [
            {"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")},
            {"Key": "everleaf:service-1", "Value": format!("edge/{name}")},
        ],
    });
    run_service(stack, &format!("edge/{name}"), name).await?;
    call(stack, "acm:RequestCertificate", input).await.map(drop)
}

/// What somebody has made for itself, to be replaced before it expires.
async fn import_by_hand(stack: &Stack, name: &str) -> Outcome<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![format!("{name}.example.com")])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (stack.aws.now(), stack.aws.now() + time::Duration::days(365));
    let encoded = |pem: String| BASE64_STANDARD.encode(pem);
    let input = json!({
        "Certificate": encoded(params.self_signed(&key)?.pem()), "PrivateKey": encoded(key.serialize_pem()),
        "Tags": [{"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")}],
    });
    call(stack, "acm:ImportCertificate", input).await.map(drop)
}

fn csr(name: &str) -> Outcome<Value> {
    let params = CertificateParams::new(vec![format!("{name}.example.internal")])?;
    let csr = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    Ok(json!({"name": name, "csr": csr, "validity": {"days": 180}}))
}

async fn pass_days(days: u64) {
    tokio::time::sleep(Duration::from_secs(days * 24 * 60 * 60)).await;
}

fn told(error: AwsError) -> Box<dyn Error> {
    error.message.into()
}
