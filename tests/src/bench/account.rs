//! An account in which each function has enough to do, set up in virtual time up to this very moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use local_aws::processes::Processes;
use local_aws::server::Server;
use local_aws::{LocalAws, elbv2, pca, s3};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use workflow::Stack;

use crate::{Outcome, told};

/// How long ago the account begins: a year's certificate of ACM is due to be renewed.
const BEFORE: time::Duration = time::Duration::days(366);

/// Of each certificate that ACM has renewed.
pub(crate) const SERVICES: usize = 2;

pub(crate) struct Account {
    pub(crate) stack: Stack,
    /// Of Local AWS, without TLS.
    pub(crate) address: SocketAddr,
    pub(crate) processes: Processes,
    /// By function: an event for each invocation.
    pub(crate) events: BTreeMap<&'static str, Vec<Value>>,
}

impl Account {
    /// From here on time is the machine's. Nothing is delivered by itself.
    pub(crate) async fn set_up(events: usize) -> Outcome<Self> {
        let began = now() - BEFORE;
        let stack =
            Stack::deploy_in(LocalAws::new(began, Duration::ZERO), "EC_prime256v1", &[("CrlBucketArns", "arn:aws:s3:::crls")])
                .await;
        stack.aws.set_deliveries(Some(Box::new(|_, _| Vec::new())));
        let events = prepare(&stack, events).await?;
        tokio::time::sleep((now() - stack.aws.now()).try_into()?).await;
        tokio::time::resume();
        let server = Server::bind(stack.aws.clone(), 0).await?;
        let (address, processes) = (server.address(), server.processes().clone());
        tokio::spawn(server.run());
        Ok(Self { stack, address, processes, events })
    }
}

const AVAILABLE: &str = "ACM Certificate Available";

async fn prepare(stack: &Stack, count: usize) -> Outcome<BTreeMap<&'static str, Vec<Value>>> {
    let names = |kind: &str| (0..count).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>();
    call(stack, "ecs:CreateCluster", json!({"clusterName": "main"})).await?;
    let task = json!({"family": "app", "containerDefinitions": [{"name": "app", "image": "app", "memory": 128}]});
    call(stack, "ecs:RegisterTaskDefinition", task).await?;
    let (mut old, mut by_python) = (Vec::new(), Vec::new());
    for name in names("old") {
        let arn = request(stack, &name).await?;
        handle(stack, "export-to-secrets", json!({"certificate_arn": arn})).await?;
        old.push(json!({
            "version": "0", "id": name, "detail-type": "ACM Certificate Approaching Expiration", "source": "aws.acm",
            "account": "111122223333", "time": "2027-11-07T06:51:08Z", "region": "eu-central-1", "resources": [arn],
            "detail": {"DaysToExpiry": 29, "CommonName": name},
        }));
    }
    for name in names("python") {
        let (arn, services) = with_services(stack, &name).await?;
        let secret = format!("everleaf/{name}");
        by_python.push(json!({"certificate_arn": arn, "secret": secret, "cluster": "main", "services": services}));
    }
    stack.aws.world(|world, _| world.acm.renewal_fails = Some("PCA_ACCESS_DENIED".to_owned()));
    tokio::time::sleep((now() - stack.aws.now() - time::Duration::hours(4)).try_into()?).await;
    stack.aws.world(|world, _| world.acm.renewal_fails = None);

    for name in names("renewed") {
        let (arn, _) = with_services(stack, &name).await?;
        call(stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await?;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let events = stack.aws.take_events().into_iter().map(|event| event.event);
    let renewed = events.filter(|event| event["detail"]["Action"] == "RENEWAL" && event["detail-type"] == AVAILABLE).collect();

    for name in names("held") {
        request(stack, &name).await?;
    }
    let held = stack.aws.take_events().into_iter().map(|event| event.event);
    let held = held.filter(|event| event["detail-type"] == AVAILABLE).collect();

    let services = names("service");
    for service in &services {
        run_service(stack, service).await?;
    }
    let services: Vec<String> = services.iter().map(|service| format!("main/{service}")).collect();
    let mut shared = order("shared");
    shared["services"] = json!(services);
    handle(stack, "issue-client-cert", shared).await?;
    let current = stack.aws.take_events().into_iter().rev().find(|event| event.event["detail-type"] == "Certificate Current");
    let current = current.ok_or("nobody said that `shared` is current")?.event;
    let redeploy = services.iter().map(|service| {
        let mut event = current.clone();
        event["detail"]["services"] = json!([service]);
        event
    });

    let (listener, enabled) = stack.aws.world(|world, now| {
        s3::create_bucket(world, "crls");
        let enabled = pca::enable_crl(world, now, &stack.issuing_ca, "crls", 30);
        (elbv2::create_listener(world, now, "internal", 8443), enabled)
    });
    enabled.map_err(told)?;
    let store = json!({
        "name": "clients", "certificate_authority_arns": [stack.issuing_ca], "listeners": [{"listener_arn": listener}],
    });
    handle(stack, "refresh-truststore", json!({"declare": store})).await?;
    Ok([
        ("issue-client-cert", names("new").iter().map(|name| order(name)).collect()),
        ("export-to-secrets", held),
        ("renew-on-expiry", old),
        ("force-redeploy", redeploy.collect()),
        ("refresh-truststore", vec![json!({"refresh": true}); count]),
        ("python", by_python),
        ("renewed", renewed),
    ]
    .into())
}

/// A certificate of ACM that is in its secret, and the services that use it.
async fn with_services(stack: &Stack, name: &str) -> Outcome<(String, Vec<String>)> {
    let services: Vec<String> = (1..=SERVICES).map(|number| format!("{name}-{number}")).collect();
    for service in &services {
        run_service(stack, service).await?;
    }
    let arn = request(stack, name).await?;
    let tags = services
        .iter()
        .zip(1..)
        .map(|(service, number)| json!({"Key": format!("everleaf:service-{number}"), "Value": format!("main/{service}")}));
    call(stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": tags.collect::<Vec<_>>()})).await?;
    handle(stack, "export-to-secrets", json!({"certificate_arn": arn})).await?;
    handle(stack, "force-redeploy", json!({"certificate": name})).await?;
    Ok((arn, services))
}

fn order(name: &str) -> Value {
    json!({
        "name": name, "subject": {"common_name": name}, "subject_alternative_names": [format!("dns:{name}.example.internal")],
    })
}

/// A certificate of ACM for the stack; its ARN.
async fn request(stack: &Stack, name: &str) -> Outcome<String> {
    let input = json!({
        "DomainName": format!("{name}.example.com"), "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": stack.issuing_ca,
        "Tags": [{"Key": "everleaf:certificate", "Value": format!("everleaf/{name}")}],
    });
    let answer = call(stack, "acm:RequestCertificate", input).await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(answer["CertificateArn"].as_str().ok_or("ACM told no ARN")?.to_owned())
}

async fn run_service(stack: &Stack, name: &str) -> Outcome<()> {
    let input = json!({"cluster": "main", "serviceName": name, "taskDefinition": "app", "desiredCount": 1});
    call(stack, "ecs:CreateService", input).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn call(stack: &Stack, action: &str, input: Value) -> Outcome<Value> {
    stack.aws.call(action, input).await.map_err(told)
}

async fn handle(stack: &Stack, function: &str, event: Value) -> Outcome<Value> {
    stack.handle(function, event, &stack.aws.now().to_string()).await.map_err(|error| error.error_message.into())
}

/// Lets the quotas fill up again that an earlier process has used.
pub(crate) async fn rest() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Local AWS by TLS, as AWS is; its URL, and the PEM of the certificate that it shows.
pub(crate) async fn behind_tls(plain: SocketAddr) -> Outcome<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private)?;
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(("127.0.0.1", 0)).await?);
    let url = format!("https://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let (mut outside, mut inside) = (acceptor.accept(stream).await?, TcpStream::connect(plain).await?);
                inside.set_nodelay(true)?;
                copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    Ok((url, certificate.pem()))
}

#[expect(clippy::disallowed_methods, reason = "the start of a program")]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
