//! What a payments team has: its certificates, the services that use them, and how it asks for both.

use std::collections::BTreeSet;

use aws_sdk_acm::types::{KeyAlgorithm as AcmKey, Tag};
use aws_sdk_ecs::types::{ContainerDefinition, DeploymentCircuitBreaker, DeploymentConfiguration, Secret};
use lifecycle::leaf::{Csr, KeyAlgorithm, Usage};
use lifecycle::record::KeyFormat;
use local_aws::{AwsError, elbv2, pca, s3};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use workflow::Stack;

use crate::Outcome;

/// A certificate as it was asked for.
pub(crate) struct Certificate {
    pub(crate) name: &'static str,
    pub(crate) origin: Origin,
    pub(crate) key_algorithm: KeyAlgorithm,
    pub(crate) usage: Usage,
    pub(crate) days: u64,
    pub(crate) key_format: KeyFormat,
    pub(crate) common_name: &'static str,
    pub(crate) names: &'static [&'static str],
    /// In the cluster [`CLUSTER`].
    pub(crate) services: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Origin {
    /// Issued and renewed by ACM.
    Acm,
    /// Issued by Everleaf from AWS Private CA.
    Everleaf,
    /// The same, on a CSR of a caller who keeps the key.
    Caller,
}

pub(crate) const CLUSTER: &str = "payments";
const TASKS: i32 = 2;

pub(crate) const GATEWAY: Certificate = Certificate {
    name: "gateway-tls",
    origin: Origin::Acm,
    key_algorithm: KeyAlgorithm::Rsa2048,
    usage: Usage::ClientAndServer,
    days: 395,
    key_format: KeyFormat::Encrypted,
    common_name: "gateway.example.internal",
    names: &["dns:gateway.example.internal"],
    services: &["gateway"],
};

pub(crate) const EDGE: Certificate = Certificate {
    name: "edge-tls",
    key_algorithm: KeyAlgorithm::EcPrime256v1,
    key_format: KeyFormat::Plain,
    common_name: "edge.example.internal",
    names: &["dns:edge.example.internal", "dns:api.example.internal"],
    services: &["edge"],
    ..GATEWAY
};

pub(crate) const ORDERS_CLIENT: Certificate = Certificate {
    name: "orders-client",
    origin: Origin::Everleaf,
    key_algorithm: KeyAlgorithm::EcPrime256v1,
    usage: Usage::Client,
    days: 30,
    key_format: KeyFormat::Encrypted,
    common_name: "orders",
    names: &["dns:orders.example.internal", "uri:spiffe://example.internal/payments/orders"],
    services: &["orders"],
};

pub(crate) const MESH: Certificate = Certificate {
    name: "mesh",
    key_algorithm: KeyAlgorithm::EcSecp384r1,
    usage: Usage::ClientAndServer,
    days: 7,
    common_name: "payments",
    names: &["uri:spiffe://example.internal/payments"],
    services: &["billing", "refunds"],
    ..ORDERS_CLIENT
};

pub(crate) const PARTNER: Certificate = Certificate {
    name: "partner",
    origin: Origin::Caller,
    days: 180,
    common_name: "partner",
    names: &["dns:partner.example.internal"],
    services: &[],
    ..ORDERS_CLIENT
};

pub(crate) const FLEET: &[Certificate] = &[
    GATEWAY,
    EDGE,
    ORDERS_CLIENT,
    Certificate {
        name: "orders-server",
        key_algorithm: KeyAlgorithm::Rsa2048,
        usage: Usage::Server,
        days: 90,
        names: &["dns:orders.example.internal", "ip:10.0.7.20"],
        ..ORDERS_CLIENT
    },
    MESH,
    Certificate {
        name: "ledger",
        key_algorithm: KeyAlgorithm::Rsa3072,
        days: 150,
        key_format: KeyFormat::Plain,
        common_name: "ledger",
        names: &["email:ledger@example.internal"],
        services: &["ledger"],
        ..ORDERS_CLIENT
    },
    Certificate {
        name: "reports",
        days: 14,
        common_name: "reports",
        names: &["dns:reports.example.internal"],
        services: &["reports"],
        ..ORDERS_CLIENT
    },
    PARTNER,
];

/// Those that the listener lets in.
pub(crate) const CLIENTS: [&str; 5] = [ORDERS_CLIENT.name, MESH.name, "ledger", "reports", PARTNER.name];

/// Every service once.
pub(crate) fn services() -> BTreeSet<&'static str> {
    FLEET.iter().flat_map(|certificate| certificate.services).copied().collect()
}

/// The environment variable in which a container finds one value of a secret: `ORDERS_CLIENT_PRIVATE_KEY`.
pub(crate) fn variable(certificate: &str, value: &str) -> String {
    format!("{certificate}_{value}").replace('-', "_").to_uppercase()
}

pub(crate) const NEW_ROOT: &str = "Example New Root CA";
pub(crate) const NEW_ISSUING: &str = "Example New Issuing CA";

/// The bucket of the CRLs, and how long each is good for.
const CRLS: &str = "crls";
const CRL_DAYS: u16 = 30;

/// What the team chooses for the stack.
pub(crate) const PARAMETERS: [(&str, &str); 3] = [
    ("AllowedNames", "example.internal,10.0.0.0/8"),
    ("AllowedTrustDomains", "example.internal"),
    ("CrlBucketArns", "arn:aws:s3:::crls"),
];

/// The team's own clients, and what it has beside the fleet.
pub(crate) struct Team {
    acm: aws_sdk_acm::Client,
    ecs: aws_sdk_ecs::Client,
    /// For ACM's EC certificates: ACM wants a CA whose key is of the same family.
    pub(crate) ec_ca: String,
    /// Of an internal load balancer.
    pub(crate) listener: String,
}

impl Team {
    pub(crate) async fn of(stack: &Stack) -> Outcome<Self> {
        let sdk = stack.sdk("user");
        let account = stack.aws.world(|world, now| {
            s3::create_bucket(world, CRLS);
            pca::enable_crl(world, now, &stack.issuing_ca, CRLS, CRL_DAYS)?;
            let ec_ca = pca::create_active_subordinate(world, now, &stack.root_ca, "Example EC Issuing CA", "EC_prime256v1")?;
            Ok::<_, AwsError>((ec_ca, elbv2::create_listener(world, now, "internal", 8443)))
        });
        let (ec_ca, listener) = account.map_err(|error| error.message)?;
        Ok(Self { acm: aws_sdk_acm::Client::new(&sdk), ecs: aws_sdk_ecs::Client::new(&sdk), ec_ca, listener })
    }

    /// A new root CA, and an issuing CA below it.
    pub(crate) fn create_authorities(&self, stack: &Stack) -> Outcome<(String, String)> {
        let made = stack.aws.world(|world, now| {
            let root = pca::create_active_root(world, now, NEW_ROOT, "RSA_2048")?;
            let issuing = pca::create_active_subordinate(world, now, &root, NEW_ISSUING, "RSA_2048")?;
            pca::enable_crl(world, now, &issuing, CRLS, CRL_DAYS)?;
            Ok::<_, AwsError>((root, issuing))
        });
        Ok(made.map_err(|error| error.message)?)
    }

    /// A service whose container takes every value of each of its certificates from Secrets Manager. Its tasks start once the
    /// secrets hold a pair.
    pub(crate) async fn create_service(&self, stack: &Stack, service: &str) -> Outcome<()> {
        let mut container = ContainerDefinition::builder().name(service).image(format!("example/{service}"));
        for certificate in FLEET.iter().filter(|certificate| certificate.services.contains(&service)) {
            let secret =
                stack.aws.world(|world, _| world.arn("secretsmanager", &format!("secret:everleaf/{}", certificate.name)));
            let passphrase = Some("passphrase").filter(|_| certificate.key_format == KeyFormat::Encrypted);
            for value in ["certificate", "certificate_chain", "private_key"].into_iter().chain(passphrase) {
                let from = format!("{secret}:{value}::");
                container =
                    container.secrets(Secret::builder().name(variable(certificate.name, value)).value_from(from).build()?);
            }
        }
        self.ecs.create_cluster().cluster_name(CLUSTER).send().await?;
        self.ecs.register_task_definition().family(service).container_definitions(container.build()).send().await?;
        let create = self.ecs.create_service().cluster(CLUSTER).service_name(service).task_definition(service);
        let breaker = DeploymentCircuitBreaker::builder().enable(true).rollback(true).build();
        let configuration = DeploymentConfiguration::builder().deployment_circuit_breaker(breaker).build();
        create.desired_count(TASKS).deployment_configuration(configuration).send().await?;
        Ok(())
    }

    /// Asks ACM. The tags are all that Everleaf needs to know.
    pub(crate) async fn request_in_acm(&self, stack: &Stack, wanted: &Certificate) -> Outcome<String> {
        let (key_algorithm, authority) = match wanted.key_algorithm {
            KeyAlgorithm::EcPrime256v1 => (AcmKey::EcPrime256v1, &self.ec_ca),
            _ => (AcmKey::Rsa2048, &stack.issuing_ca),
        };
        let request =
            self.acm.request_certificate().domain_name(wanted.common_name).set_subject_alternative_names(Some(dns_names(wanted)));
        let request = request.set_tags(Some(tags(wanted)?));
        let request = request.key_algorithm(key_algorithm).certificate_authority_arn(authority);
        Ok(request.send().await?.certificate_arn.unwrap_or_default())
    }

    /// ACM's certificate keeps nothing of what made it Everleaf's.
    pub(crate) async fn untag_in_acm(&self, wanted: &Certificate, arn: &str) -> Outcome<()> {
        self.acm.remove_tags_from_certificate().certificate_arn(arn).set_tags(Some(tags(wanted)?)).send().await?;
        Ok(())
    }

    pub(crate) async fn delete_in_acm(&self, arn: &str) -> Outcome<()> {
        self.acm.delete_certificate().certificate_arn(arn).send().await?;
        Ok(())
    }
}

fn tags(wanted: &Certificate) -> Outcome<Vec<Tag>> {
    let plain = wanted.key_format == KeyFormat::Plain;
    let tags = [
        ("everleaf:certificate", format!("everleaf/{}", wanted.name)),
        ("everleaf:service-1", format!("{CLUSTER}/{}", wanted.services[0])),
        ("everleaf:key-format", if plain { "plain" } else { "encrypted" }.to_owned()),
    ];
    Ok(tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect::<Result<_, _>>()?)
}

/// What `refresh-truststore` is asked for.
pub(crate) fn declaration(authority: &str, listener: &str) -> Value {
    json!({"declare": {
        "name": "clients", "certificate_authority_arns": [authority],
        "listeners": [{"listener_arn": listener, "clients": CLIENTS}],
    }})
}

/// A client of nobody that the team knows: its certificate, in PEM.
pub(crate) fn stranger() -> Outcome<String> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(CertificateParams::new(vec!["orders.example.internal".to_owned()])?.self_signed(&key)?.pem())
}

/// What `issue-client-cert` is asked for.
pub(crate) fn request(wanted: &Certificate) -> Value {
    let services: Vec<_> = wanted.services.iter().map(|service| format!("{CLUSTER}/{service}")).collect();
    json!({
        "name": wanted.name,
        "subject": {"common_name": wanted.common_name},
        "subject_alternative_names": wanted.names,
        "key_algorithm": wanted.key_algorithm.as_str(),
        "usage": wanted.usage.as_str(),
        "validity": {"days": wanted.days},
        "key_format": if wanted.key_format == KeyFormat::Plain { "plain" } else { "encrypted" },
        "services": services,
    })
}

/// The same from a caller who makes a key and keeps it, and the fingerprint of its public half.
pub(crate) fn csr(wanted: &Certificate, number: usize) -> Outcome<(Value, String)> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(dns_names(wanted))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, wanted.common_name);
    let csr = params.serialize_request(&key)?.pem()?;
    let fingerprint = Csr::from_pem(&csr)?.key_fingerprint;
    Ok((json!({"name": wanted.name, "csr": csr, "validity": {"days": wanted.days}, "replace": number > 0}), fingerprint))
}

fn dns_names(certificate: &Certificate) -> Vec<String> {
    certificate.names.iter().filter_map(|name| name.strip_prefix("dns:")).map(str::to_owned).collect()
}
