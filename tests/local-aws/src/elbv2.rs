//! Elastic Load Balancing: as much of Application Load Balancers as mutual TLS needs, and trust stores.
//!
//! A trust store copies what lies in S3 when it is asked to, judges it by
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/mutual-authentication.html>, and [`tls_verify_status`] tells
//! what a load balancer would make of a client's certificates.

mod certificate;
mod handshake;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use self::certificate::RevocationList;
pub use self::handshake::tls_verify_status;
use crate::{AwsError, World, events, s3};

/// How long a load balancer is `provisioning` and a trust store `CREATING`.
pub const CREATION_TIME: Duration = Duration::seconds(5);

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
const MOST_TRUST_STORES: usize = 20;
const MOST_VERIFYING_LISTENERS: usize = 2;
const MOST_REVOCATION_LISTS: usize = 30;
const MOST_REVOKED_ENTRIES: usize = 500_000;
const MOST_TAGS: usize = 50;

/// AWS's own bucket, to which the URLs of contents point.
const CONTENT_BUCKET: &str = "elb-trust-stores";

#[derive(Default)]
pub struct LoadBalancing {
    load_balancers: BTreeMap<String, LoadBalancer>,
    listeners: BTreeMap<String, Listener>,
    trust_stores: BTreeMap<String, TrustStore>,
    tags: BTreeMap<String, BTreeMap<String, String>>,
}

struct LoadBalancer {
    name: String,
    created_at: OffsetDateTime,
    /// The members of the API that were chosen when it was made.
    settings: Map<String, Value>,
}

struct Listener {
    load_balancer_arn: String,
    settings: Settings,
}

/// The members of the API that `ModifyListener` can change.
type Settings = Map<String, Value>;

struct TrustStore {
    name: String,
    created_at: OffsetDateTime,
    bundle: Vec<u8>,
    /// The certificates of the bundle, in DER.
    authorities: Vec<Vec<u8>>,
    revocation_lists: BTreeMap<i64, RevocationList>,
    last_revocation_id: i64,
}

impl TrustStore {
    fn status(&self, now: OffsetDateTime) -> &'static str {
        if now < self.created_at + CREATION_TIME { "CREATING" } else { "ACTIVE" }
    }

    fn revoked_entries(&self) -> usize {
        self.revocation_lists.values().map(|list| list.entries).sum()
    }
}

/// An HTTPS listener of the internal load balancer of that name, which is made where there is none. Returns its ARN; one that
/// listens on the port already is left as it is.
pub fn create_listener(world: &mut World, now: OffsetDateTime, load_balancer: &str, port: u16) -> String {
    let existing = world.elbv2.load_balancers.iter().find(|(_, existing)| existing.name == load_balancer);
    let load_balancer_arn = match existing.map(|(arn, _)| arn.clone()) {
        Some(arn) => arn,
        None => {
            let subnets = json!(["subnet-0a1b2c3d4e5f60001", "subnet-0a1b2c3d4e5f60002"]);
            add_load_balancer(world, now, load_balancer, &json!({"Scheme": "internal", "Subnets": subnets}))
        }
    };
    let listeners = &world.elbv2.listeners;
    if let Some((arn, _)) = listeners.iter().find(|(_, listener)| listener.is_at(&load_balancer_arn, port.into())) {
        return arn.clone();
    }
    let certificate = format!("certificate/{}", world.uuid());
    let target_group = format!("targetgroup/{load_balancer}/{}", short_id(world));
    let settings = json!({
        "Port": port, "Protocol": "HTTPS", "SslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        "Certificates": [{"CertificateArn": world.arn("acm", &certificate)}],
        "DefaultActions": [{"Type": "forward", "TargetGroupArn": world.arn("elasticloadbalancing", &target_group)}],
        "MutualAuthentication": {"Mode": "off"},
    });
    add_listener(world, load_balancer_arn, settings.as_object().cloned().unwrap_or_default())
}

/// The certificates (DER) that the trust store of that name holds; none where there is no such store.
pub fn trusted<'a>(world: &'a World, trust_store: &str) -> &'a [Vec<u8>] {
    let found = world.elbv2.trust_stores.values().find(|found| found.name == trust_store);
    found.map_or(&[], |found| &found.authorities)
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    match operation {
        "AddTags" => add_tags(world, input),
        "AddTrustStoreRevocations" => add_revocations(world, input),
        "CreateListener" => {
            let load_balancer_arn = text(input, "LoadBalancerArn")?.to_owned();
            if !world.elbv2.load_balancers.contains_key(&load_balancer_arn) {
                return Err(not_found("LoadBalancer", &load_balancer_arn));
            }
            let settings = checked(world, now, &load_balancer_arn, None, input)?;
            let tags = tags_of(input)?;
            let arn = add_listener(world, load_balancer_arn, settings);
            world.elbv2.tags.insert(arn.clone(), tags);
            Ok(json!({"Listeners": [listener_description(world, &arn)]}))
        }
        "CreateLoadBalancer" => create_load_balancer(world, now, input),
        "CreateTrustStore" => create_trust_store(world, now, input),
        "DeleteTrustStore" => {
            let arn = find_trust_store(world, input)?.0;
            if !associations(world, &arn).is_empty() {
                return Err(AwsError::new("TrustStoreInUse", format!("Trust store '{arn}' is currently in use by a listener")));
            }
            world.elbv2.trust_stores.remove(&arn);
            world.elbv2.tags.remove(&arn);
            Ok(json!({}))
        }
        "DescribeListeners" => describe_listeners(world, input),
        "DescribeLoadBalancers" => {
            let all = world.elbv2.load_balancers.iter();
            let named = all.map(|(arn, one)| (arn, one.name.as_str(), load_balancer_description(world, now, arn)));
            page("LoadBalancers", chosen(named, input, "LoadBalancer")?, input)
        }
        "DescribeTags" => describe_tags(world, input),
        "DescribeTrustStoreAssociations" => {
            let arn = find_trust_store(world, input)?.0;
            let associations = associations(world, &arn).into_iter();
            page("TrustStoreAssociations", associations.map(|arn| (arn.clone(), json!({"ResourceArn": arn}))).collect(), input)
        }
        "DescribeTrustStoreRevocations" => {
            let (arn, trust_store) = find_trust_store(world, input)?;
            let asked = revocation_ids(input, trust_store)?;
            let lists = trust_store.revocation_lists.iter().filter(|(id, _)| asked.is_empty() || asked.contains(id));
            let lists = lists.map(|(id, list)| (id.to_string(), revocation_description(&arn, *id, list)));
            page("TrustStoreRevocations", lists.collect(), input)
        }
        "DescribeTrustStores" => {
            let all = world.elbv2.trust_stores.iter();
            let named = all.map(|(arn, one)| (arn, one.name.as_str(), trust_store_description(now, arn, one)));
            page("TrustStores", chosen(named, input, "TrustStore")?, input)
        }
        "GetTrustStoreCaCertificatesBundle" => {
            let (arn, trust_store) = find_trust_store(world, input)?;
            let bundle = trust_store.bundle.clone();
            Ok(json!({"Location": location(world, now, &arn, "ca-certificates", bundle)}))
        }
        "GetTrustStoreRevocationContent" => {
            let (arn, trust_store) = find_trust_store(world, input)?;
            let id = input["RevocationId"].as_i64().ok_or_else(|| missing("RevocationId"))?;
            let list = trust_store.revocation_lists.get(&id).ok_or_else(|| no_revocation(id))?;
            let content = list.content.clone();
            Ok(json!({"Location": location(world, now, &arn, &format!("revocations/{id}"), content)}))
        }
        "ModifyListener" => {
            let arn = text(input, "ListenerArn")?.to_owned();
            let listener = world.elbv2.listeners.get(&arn).ok_or_else(|| not_found("Listener", &arn))?;
            let load_balancer_arn = listener.load_balancer_arn.clone();
            let settings = checked(world, now, &load_balancer_arn, Some(&arn), input)?;
            world.elbv2.listeners.insert(arn.clone(), Listener { load_balancer_arn, settings });
            Ok(json!({"Listeners": [listener_description(world, &arn)]}))
        }
        "ModifyTrustStore" => {
            let arn = find_trust_store(world, input)?.0;
            let (bundle, authorities) = read_bundle(world, now, input)?;
            let missing = || not_found("TrustStore", &arn);
            let trust_store = world.elbv2.trust_stores.get_mut(&arn).ok_or_else(missing)?;
            (trust_store.bundle, trust_store.authorities) = (bundle, authorities);
            Ok(json!({"TrustStores": [trust_store_description(now, &arn, trust_store)]}))
        }
        "RemoveTrustStoreRevocations" => {
            let (arn, trust_store) = find_trust_store(world, input)?;
            let ids = revocation_ids(input, trust_store)?;
            if ids.is_empty() {
                return Err(missing("RevocationIds"));
            }
            let trust_store = world.elbv2.trust_stores.get_mut(&arn);
            trust_store.into_iter().for_each(|one| one.revocation_lists.retain(|id, _| !ids.contains(id)));
            Ok(json!({}))
        }
        _ => {
            let message = format!("Could not find operation {operation} for version 2015-12-01");
            Err(AwsError::new("InvalidAction", message))
        }
    }
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTrustStore.html>
fn create_trust_store(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = text(input, "Name")?.to_owned();
    let well_formed = name.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if name.len() > 32 || !well_formed {
        return Err(invalid(format!("The trust store name '{name}' must be 1 to 32 letters, digits and single hyphens")));
    }
    if world.elbv2.trust_stores.values().any(|trust_store| trust_store.name == name) {
        return Err(AwsError::new("DuplicateTrustStoreName", format!("A trust store with name '{name}' already exists")));
    }
    if world.elbv2.trust_stores.len() >= MOST_TRUST_STORES {
        return Err(AwsError::new("TooManyTrustStores", "You've reached the limit on the number of trust stores"));
    }
    let tags = tags_of(input)?;
    let (bundle, authorities) = read_bundle(world, now, input)?;
    let resource = format!("truststore/{name}/{}", short_id(world));
    let arn = world.arn("elasticloadbalancing", &resource);
    let revocation_lists = BTreeMap::new();
    let trust_store = TrustStore { name, created_at: now, bundle, authorities, revocation_lists, last_revocation_id: 0 };
    let description = trust_store_description(now, &arn, &trust_store);
    world.elbv2.trust_stores.insert(arn.clone(), trust_store);
    world.elbv2.tags.insert(arn, tags);
    Ok(json!({"TrustStores": [description]}))
}

/// The bundle that lies in S3 now, with its certificates.
fn read_bundle(world: &World, now: OffsetDateTime, input: &Value) -> Result<(Vec<u8>, Vec<Vec<u8>>), AwsError> {
    let (bucket, key) = (text(input, "CaCertificatesBundleS3Bucket")?, text(input, "CaCertificatesBundleS3Key")?);
    let bundle = s3::read(world, bucket, key, input["CaCertificatesBundleS3ObjectVersion"].as_str());
    let bundle = bundle.map_err(|error| AwsError::new("CaCertificatesBundleNotFound", error.message))?;
    let authorities = certificate::authorities(&bundle, now).map_err(|reason| {
        AwsError::new("InvalidCaCertificatesBundle", format!("The CA certificates bundle is not valid: {reason}"))
    })?;
    Ok((bundle, authorities))
}

/// All of the lists are added, or none. Adding a list twice makes two of it.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddTrustStoreRevocations.html>
fn add_revocations(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    let (arn, trust_store) = find_trust_store(world, input)?;
    let mut lists = Vec::new();
    for content in list(&input["RevocationContents"]) {
        if content["RevocationType"].as_str().is_some_and(|kind| kind != "CRL") {
            return Err(invalid("Revocation type must be CRL".into()));
        }
        let (bucket, key) = (text(content, "S3Bucket")?, text(content, "S3Key")?);
        let text = s3::read(world, bucket, key, content["S3ObjectVersion"].as_str());
        let text = text.map_err(|error| AwsError::new("RevocationContentNotFound", error.message))?;
        let list = RevocationList::read(text, &trust_store.authorities);
        lists.push(list.map_err(|reason| {
            AwsError::new("InvalidRevocationContent", format!("The revocation content is not valid: {reason}"))
        })?);
    }
    let entries: usize = lists.iter().map(|list| list.entries).sum();
    let (all_lists, all_entries) = (trust_store.revocation_lists.len() + lists.len(), trust_store.revoked_entries() + entries);
    if all_lists > MOST_REVOCATION_LISTS || all_entries > MOST_REVOKED_ENTRIES {
        let message = "The specified trust store has too many revocation entries";
        return Err(AwsError::new("TooManyTrustStoreRevocationEntries", message));
    }
    let mut added = Vec::new();
    if let Some(trust_store) = world.elbv2.trust_stores.get_mut(&arn) {
        for list in lists {
            trust_store.last_revocation_id += 1;
            added.push(revocation_description(&arn, trust_store.last_revocation_id, &list));
            trust_store.revocation_lists.insert(trust_store.last_revocation_id, list);
        }
    }
    Ok(json!({"TrustStoreRevocations": added}))
}

fn revocation_description(trust_store_arn: &str, id: i64, list: &RevocationList) -> Value {
    json!({
        "TrustStoreArn": trust_store_arn, "RevocationId": id, "RevocationType": "CRL", "NumberOfRevokedEntries": list.entries,
    })
}

/// The identifiers that the input names, each of a list that is there.
fn revocation_ids(input: &Value, trust_store: &TrustStore) -> Result<Vec<i64>, AwsError> {
    let ids: Vec<i64> = list(&input["RevocationIds"]).filter_map(Value::as_i64).collect();
    match ids.iter().find(|id| !trust_store.revocation_lists.contains_key(id)) {
        Some(unknown) => Err(no_revocation(*unknown)),
        None => Ok(ids),
    }
}

fn no_revocation(id: i64) -> AwsError {
    AwsError::new("RevocationIdNotFound", format!("Revocation ID '{id}' not found"))
}

fn trust_store_description(now: OffsetDateTime, arn: &str, trust_store: &TrustStore) -> Value {
    json!({
        "Name": trust_store.name, "TrustStoreArn": arn, "Status": trust_store.status(now),
        "NumberOfCaCertificates": trust_store.authorities.len(), "TotalRevokedEntries": trust_store.revoked_entries(),
    })
}

fn find_trust_store<'a>(world: &'a World, input: &Value) -> Result<(String, &'a TrustStore), AwsError> {
    let arn = text(input, "TrustStoreArn")?;
    world.elbv2.trust_stores.get(arn).map(|found| (arn.to_owned(), found)).ok_or_else(|| not_found("TrustStore", arn))
}

/// The listeners that verify by a trust store.
fn associations(world: &World, trust_store_arn: &str) -> Vec<String> {
    let listeners = world.elbv2.listeners.iter();
    let listeners = listeners.filter(|(_, listener)| listener.mutual_authentication()["TrustStoreArn"] == trust_store_arn);
    listeners.map(|(arn, _)| arn.clone()).collect()
}

/// A URL of what a trust store holds.
fn location(world: &mut World, now: OffsetDateTime, trust_store_arn: &str, what: &str, content: Vec<u8>) -> String {
    let id = trust_store_arn.rsplit('/').next().unwrap_or_default();
    let key = format!("{}/{id}/{what}", world.account);
    s3::presign(world, now, CONTENT_BUCKET, &key, content)
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateLoadBalancer.html>
fn create_load_balancer(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = text(input, "Name")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.len() > 32 || !name.bytes().all(allowed) || name.starts_with('-') || name.ends_with('-') {
        return Err(invalid(format!("The load balancer name '{name}' must be 1 to 32 letters, digits and hyphens between them")));
    }
    if input["Type"].as_str().is_some_and(|kind| kind != "application") {
        return Err(invalid("Local AWS has load balancers of the type application only".into()));
    }
    if list(&input["Subnets"]).chain(list(&input["SubnetMappings"])).count() < 2 {
        return Err(invalid("At least two subnets in two different Availability Zones must be specified".into()));
    }
    let tags = tags_of(input)?;
    if world.elbv2.load_balancers.values().any(|existing| existing.name == name) {
        let message = format!("A load balancer with the name '{name}' already exists");
        return Err(AwsError::new("DuplicateLoadBalancerName", message));
    }
    let arn = add_load_balancer(world, now, name, input);
    world.elbv2.tags.insert(arn.clone(), tags);
    Ok(json!({"LoadBalancers": [load_balancer_description(world, now, &arn)]}))
}

fn add_load_balancer(world: &mut World, now: OffsetDateTime, name: &str, input: &Value) -> String {
    let resource = format!("loadbalancer/app/{name}/{}", short_id(world));
    let arn = world.arn("elasticloadbalancing", &resource);
    let scheme = input["Scheme"].as_str().unwrap_or("internet-facing");
    let prefix = if scheme == "internal" { "internal-" } else { "" };
    let number = u32::from_str_radix(&short_id(world)[..7], 16).unwrap_or_default();
    let subnets = list(&input["SubnetMappings"]).map(|mapping| &mapping["SubnetId"]).chain(list(&input["Subnets"]));
    let zones: Vec<_> = subnets
        .zip(["a", "b", "c"])
        .map(|(subnet, zone)| json!({"SubnetId": subnet, "ZoneName": format!("{}{zone}", world.region)}))
        .collect();
    let settings = json!({
        "DNSName": format!("{prefix}{name}-{number}.{}.elb.amazonaws.com", world.region), "Scheme": scheme, "Type": "application",
        "IpAddressType": input["IpAddressType"].as_str().unwrap_or("ipv4"), "AvailabilityZones": zones,
        "SecurityGroups": list(&input["SecurityGroups"]).collect::<Vec<_>>(), "VpcId": "vpc-0a1b2c3d4e5f60000",
        "CanonicalHostedZoneId": "Z215JYRZR1TBD5",
    });
    let settings = settings.as_object().cloned().unwrap_or_default();
    world.elbv2.load_balancers.insert(arn.clone(), LoadBalancer { name: name.to_owned(), created_at: now, settings });
    arn
}

fn load_balancer_description(world: &World, now: OffsetDateTime, arn: &str) -> Value {
    let Some(load_balancer) = world.elbv2.load_balancers.get(arn) else { return Value::Null };
    let mut description = Value::Object(load_balancer.settings.clone());
    let state = if now < load_balancer.created_at + CREATION_TIME { "provisioning" } else { "active" };
    (description["LoadBalancerArn"], description["LoadBalancerName"]) = (json!(arn), json!(load_balancer.name));
    description["CreatedTime"] = json!(events::timestamp(load_balancer.created_at));
    description["State"] = json!({"Code": state});
    description
}

fn add_listener(world: &mut World, load_balancer_arn: String, settings: Settings) -> String {
    let below = load_balancer_arn.replacen(":loadbalancer/", ":listener/", 1);
    let arn = format!("{below}/{}", short_id(world));
    world.elbv2.listeners.insert(arn.clone(), Listener { load_balancer_arn, settings });
    arn
}

impl Listener {
    fn is_at(&self, load_balancer_arn: &str, port: u64) -> bool {
        self.load_balancer_arn == load_balancer_arn && self.settings.get("Port").and_then(Value::as_u64) == Some(port)
    }

    fn mutual_authentication(&self) -> &Value {
        self.settings.get("MutualAuthentication").unwrap_or(&Value::Null)
    }
}

/// The settings of a new listener, or of the one with `listener_arn` as the input changes them: what is not given stays.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ModifyListener.html>
fn checked(
    world: &World,
    now: OffsetDateTime,
    load_balancer_arn: &str,
    listener_arn: Option<&str>,
    input: &Value,
) -> Result<Settings, AwsError> {
    let others = || world.elbv2.listeners.iter().filter(|(arn, _)| Some(arn.as_str()) != listener_arn);
    let before = listener_arn.and_then(|arn| world.elbv2.listeners.get(arn));
    let mut settings = before.map(|listener| listener.settings.clone()).unwrap_or_default();
    for member in ["AlpnPolicy", "Certificates", "DefaultActions", "MutualAuthentication", "Port", "Protocol", "SslPolicy"] {
        settings.extend(input.get(member).map(|given| (member.to_owned(), given.clone())));
    }
    let given = |member: &str| settings.get(member).unwrap_or(&Value::Null).clone();
    let port = given("Port").as_u64().filter(|port| (1..=65_535).contains(port)).ok_or_else(|| missing("Port"))?;
    if others().any(|(_, listener)| listener.is_at(load_balancer_arn, port)) {
        let message = format!("A listener already exists on port {port} for this load balancer '{load_balancer_arn}'");
        return Err(AwsError::new("DuplicateListener", message));
    }
    if list(&given("DefaultActions")).count() == 0 {
        return Err(missing("DefaultActions"));
    }
    let secure = match given("Protocol").as_str() {
        Some("HTTPS") => true,
        Some("HTTP") => false,
        None => return Err(missing("Protocol")),
        Some(other) => {
            let message = format!("Protocol {other} is not supported by load balancers with type 'application'");
            return Err(AwsError::new("UnsupportedProtocol", message));
        }
    };
    let mutual_authentication = checked_mutual_authentication(world, now, &given("MutualAuthentication"))?;
    let verifies = mutual_authentication["Mode"] == "verify";
    if !secure {
        if mutual_authentication["Mode"] != "off" {
            return Err(configuration("Mutual authentication is only supported on HTTPS listeners"));
        }
        if !given("Certificates").is_null() || !given("SslPolicy").is_null() {
            return Err(configuration("Certificates and SSL policies are only supported on HTTPS listeners"));
        }
        settings.remove("MutualAuthentication");
        return Ok(settings);
    }
    if list(&given("Certificates")).filter(|certificate| certificate["CertificateArn"].is_string()).count() != 1 {
        return Err(invalid("A certificate must be specified for HTTPS listeners".into()));
    }
    let policy = settings.entry("SslPolicy").or_insert_with(|| json!("ELBSecurityPolicy-2016-08"));
    if !policy.as_str().is_some_and(|policy| policy.starts_with("ELBSecurityPolicy-")) {
        return Err(AwsError::new("SSLPolicyNotFound", format!("SSL policy {policy} not found")));
    }
    let verifying = others()
        .filter(|(_, other)| other.load_balancer_arn == load_balancer_arn && other.mutual_authentication()["Mode"] == "verify");
    if verifies && verifying.count() >= MOST_VERIFYING_LISTENERS {
        // Which code AWS answers is not documented.
        return Err(configuration("A load balancer can have two listeners with mutual authentication in verify mode"));
    }
    settings.insert("MutualAuthentication".into(), mutual_authentication);
    Ok(settings)
}

fn checked_mutual_authentication(world: &World, now: OffsetDateTime, given: &Value) -> Result<Value, AwsError> {
    let mode = given["Mode"].as_str().unwrap_or("off");
    let trust_store_arn = given["TrustStoreArn"].as_str();
    match (mode, trust_store_arn) {
        ("off" | "passthrough", _) => {
            let only_verify = ["TrustStoreArn", "IgnoreClientCertificateExpiry", "AdvertiseTrustStoreCaNames"];
            match only_verify.iter().find(|member| given.get(**member).is_some()) {
                Some(member) => Err(configuration(&format!("{member} can only be set in the mutual authentication mode verify"))),
                None => Ok(json!({"Mode": mode})),
            }
        }
        ("verify", None) => Err(configuration("A trust store ARN is required in the mutual authentication mode verify")),
        ("verify", Some(arn)) => {
            let trust_store = world.elbv2.trust_stores.get(arn).ok_or_else(|| not_found("TrustStore", arn))?;
            if trust_store.status(now) != "ACTIVE" {
                return Err(AwsError::new("TrustStoreNotReady", format!("Trust store '{arn}' is not active")));
            }
            let advertise = given["AdvertiseTrustStoreCaNames"].as_str().unwrap_or("off");
            if !["on", "off"].contains(&advertise) {
                return Err(invalid(format!("AdvertiseTrustStoreCaNames must be on or off, not '{advertise}'")));
            }
            Ok(json!({
                "Mode": "verify", "TrustStoreArn": arn, "AdvertiseTrustStoreCaNames": advertise,
                "IgnoreClientCertificateExpiry": given["IgnoreClientCertificateExpiry"] == true,
            }))
        }
        _ => Err(invalid(format!("Mutual authentication mode must be off, passthrough or verify, not '{mode}'"))),
    }
}

fn listener_description(world: &World, arn: &str) -> Value {
    let Some(listener) = world.elbv2.listeners.get(arn) else { return Value::Null };
    let mut description = Value::Object(listener.settings.clone());
    (description["ListenerArn"], description["LoadBalancerArn"]) = (json!(arn), json!(listener.load_balancer_arn));
    if listener.mutual_authentication()["Mode"] == "verify" {
        description["MutualAuthentication"]["TrustStoreAssociationStatus"] = json!("active");
    }
    description
}

fn describe_listeners(world: &World, input: &Value) -> Result<Value, AwsError> {
    let listeners = &world.elbv2.listeners;
    let arns: Vec<&str> = match input["LoadBalancerArn"].as_str() {
        Some(arn) if !world.elbv2.load_balancers.contains_key(arn) => return Err(not_found("LoadBalancer", arn)),
        Some(arn) => {
            listeners.iter().filter(|(_, listener)| listener.load_balancer_arn == arn).map(|(arn, _)| arn.as_str()).collect()
        }
        None => list(&input["ListenerArns"]).filter_map(Value::as_str).collect(),
    };
    if arns.is_empty() && input["LoadBalancerArn"].is_null() {
        return Err(invalid("You must specify either listener ARNs or a load balancer ARN".into()));
    }
    if let Some(unknown) = arns.iter().find(|arn| !listeners.contains_key(**arn)) {
        return Err(not_found("Listener", unknown));
    }
    page("Listeners", arns.into_iter().map(|arn| (arn.to_owned(), listener_description(world, arn))).collect(), input)
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddTags.html>
fn add_tags(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    let tags = tags_of(input)?;
    let arns = tagged_resources(world, input)?;
    let all = arns.iter().map(|arn| {
        let mut all = world.elbv2.tags.get(arn).cloned().unwrap_or_default();
        all.extend(tags.clone());
        (arn.clone(), all)
    });
    let all: Vec<_> = all.collect();
    if all.iter().any(|(_, tags)| tags.len() > MOST_TAGS) {
        return Err(too_many_tags());
    }
    world.elbv2.tags.extend(all);
    Ok(json!({}))
}

fn describe_tags(world: &World, input: &Value) -> Result<Value, AwsError> {
    let described = tagged_resources(world, input)?.into_iter().map(|arn| {
        let tags = world.elbv2.tags.get(&arn).into_iter().flatten();
        let tags: Vec<_> = tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        json!({"ResourceArn": arn, "Tags": tags})
    });
    Ok(json!({"TagDescriptions": described.collect::<Vec<_>>()}))
}

fn tagged_resources(world: &World, input: &Value) -> Result<Vec<String>, AwsError> {
    let LoadBalancing { load_balancers, listeners, trust_stores, .. } = &world.elbv2;
    let arns: Vec<String> = list(&input["ResourceArns"]).filter_map(Value::as_str).map(str::to_owned).collect();
    if !(1..=20).contains(&arns.len()) {
        return Err(invalid("1 to 20 resource ARNs must be specified".into()));
    }
    for arn in &arns {
        let (kind, known) = match arn.split([':', '/']).nth(5) {
            Some("loadbalancer") => ("LoadBalancer", load_balancers.contains_key(arn)),
            Some("listener") => ("Listener", listeners.contains_key(arn)),
            Some("truststore") => ("TrustStore", trust_stores.contains_key(arn)),
            _ => return Err(invalid(format!("'{arn}' is not a valid resource ARN"))),
        };
        if !known {
            return Err(not_found(kind, arn));
        }
    }
    Ok(arns)
}

fn tags_of(input: &Value) -> Result<BTreeMap<String, String>, AwsError> {
    let mut tags = BTreeMap::new();
    for tag in list(&input["Tags"]) {
        let key = text(tag, "Key")?.to_owned();
        if tags.insert(key.clone(), tag["Value"].as_str().unwrap_or_default().to_owned()).is_some() {
            return Err(AwsError::new("DuplicateTagKeys", format!("The tag key '{key}' is specified more than once")));
        }
    }
    if tags.len() > MOST_TAGS { Err(too_many_tags()) } else { Ok(tags) }
}

fn too_many_tags() -> AwsError {
    AwsError::new("TooManyTags", "You've reached the limit on the number of tags for this resource")
}

/// The resources that the input names by ARN or by name, or else all.
fn chosen<'a>(
    all: impl Iterator<Item = (&'a String, &'a str, Value)>,
    input: &Value,
    kind: &str,
) -> Result<Vec<(String, Value)>, AwsError> {
    let asked = |member: &str| list(&input[member]).filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let (arns, names) = (asked(&format!("{kind}Arns")), asked("Names"));
    if !arns.is_empty() && !names.is_empty() {
        return Err(invalid("ARNs and names cannot be specified at the same time".into()));
    }
    let mut found: Vec<(String, String, Value)> =
        all.map(|(arn, name, description)| (arn.clone(), name.to_owned(), description)).collect();
    if !arns.is_empty() || !names.is_empty() {
        if let Some(unknown) = arns.iter().find(|arn| !found.iter().any(|(known, ..)| known == *arn)) {
            return Err(not_found(kind, unknown));
        }
        if let Some(unknown) = names.iter().find(|name| !found.iter().any(|(_, known, _)| known == *name)) {
            return Err(not_found(kind, unknown));
        }
        found.retain(|(arn, name, _)| arns.contains(arn) || names.contains(name));
    }
    Ok(found.into_iter().map(|(arn, _, description)| (arn, description)).collect())
}

/// The answer of one page: `items`, each with a key that no other has, from behind `Marker` on.
fn page(member: &str, items: Vec<(String, Value)>, input: &Value) -> Result<Value, AwsError> {
    let size = input["PageSize"].as_u64().unwrap_or(400);
    if !(1..=400).contains(&size) {
        return Err(invalid("The page size must be between 1 and 400".into()));
    }
    let start = match input["Marker"].as_str() {
        None => 0,
        Some(marker) => match items.iter().position(|(key, _)| BASE64.encode(key) == marker) {
            Some(last) => last + 1,
            None => return Err(invalid("The marker is not valid".into())),
        },
    };
    let end = items.len().min(start + size as usize);
    let next = (end < items.len()).then(|| BASE64.encode(&items[end - 1].0));
    let items: Vec<_> = items.into_iter().take(end).skip(start).map(|(_, item)| item).collect();
    Ok(match next {
        Some(next) => json!({member: items, "NextMarker": next}),
        None => json!({member: items}),
    })
}

/// Sixteen hexadecimal digits, as the ARNs end.
fn short_id(world: &mut World) -> String {
    world.uuid().replace('-', "")[..16].to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'a>(input: &'a Value, member: &str) -> Result<&'a str, AwsError> {
    input[member].as_str().filter(|text| !text.is_empty()).ok_or_else(|| missing(member))
}

fn missing(member: &str) -> AwsError {
    let member: String = member.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_lowercase() } else { c }).collect();
    invalid(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
    ))
}

/// `LoadBalancer`, `Listener` or `TrustStore`.
fn not_found(kind: &str, name: &str) -> AwsError {
    AwsError::new(&format!("{kind}NotFound"), format!("One or more resources not found: '{name}'"))
}

fn configuration(message: &str) -> AwsError {
    AwsError::new("InvalidConfigurationRequest", message)
}

fn invalid(message: String) -> AwsError {
    AwsError::new("ValidationError", message)
}

#[cfg(test)]
mod tests;
