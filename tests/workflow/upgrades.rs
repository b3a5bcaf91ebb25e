//! What each version has written in an account is read by this one, which goes on with it. `tests/fixtures/<version>/` holds the
//! table, the secrets, the bucket and the events of an account in which much has happened. A new version adds its own by
//!
//! ```sh
//! cargo test --locked -p workflow --test workflow -- --ignored what_this_version_writes_is_kept
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lifecycle::events::{Detail, Event, Kind};
use lifecycle::record::{Record, RenewalAsked};
use lifecycle::trust::Declaration;
use local_aws::{AwsError, Call, Fault, s3};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use workflow::{Stack, root};

use crate::account::{current_is_good, imported, staged};
use crate::recovery::empty_the_table;
use crate::rollbacks::{break_service, until_set_back};
use crate::scenario::{
    act, days, imported_by_hand, lose_deliveries, minutes, order, order_for_listener, request, run, self_made, self_signed,
    service, user,
};
use crate::trust::Site;

/// What an item of a record has for its table and the indexes.
const BESIDE_THE_RECORD: &[&str] =
    &["id", "issuer", "issuer_until", "previous_issuer", "previous_issuer_until", "queue", "write"];

const THIS: &str = env!("CARGO_PKG_VERSION");

/// What a version left behind in an account.
struct Account {
    /// When, and what it was called there.
    about: Value,
    table: Vec<Map<String, Value>>,
    secrets: Vec<Value>,
    bucket: BTreeMap<String, String>,
    events: Vec<Value>,
}

fn versions() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("tests/fixtures")).unwrap();
    folder.map(|version| version.unwrap().path()).collect()
}

async fn deploy() -> Site {
    Site::with(&[]).await
}

/// Much has happened, and something is under way.
async fn live(site: &Site) {
    let stack = &site.stack;
    service(stack, "payments/orders", &["orders"]).await;
    service(stack, "payments/gateway", &["gateway"]).await;
    act(stack, "issue-client-cert", order()).await;
    let mut listener = order_for_listener();
    (listener["name"], listener["services"]) = (json!("listener"), json!([]));
    act(stack, "issue-client-cert", listener).await;
    let mut csr: Value = serde_json::from_str(include_str!("../../events/issue-client-cert.csr.json")).unwrap();
    csr["validity"] = json!({"days": 300});
    act(stack, "issue-client-cert", csr).await;
    let options = json!({
        "name": "options", "subject": {"common_name": "options", "organization": "Example Ltd"}, "validity": {"days": 300},
        "renew_before": {"days": 100}, "maintenance_window": "Sat Sun 01:00-05:00", "paused": true, "key_format": "plain",
        "services": ["shipping/a", "shipping/b", {"service": "shipping/c", "reload": "agent"}], "canary": "shipping/a",
    });
    act(stack, "issue-client-cert", options).await;
    request(stack, "gateway", false).await;
    self_signed(stack, "web", 90).await;
    site.declare(site.declaration()).await;
    site.put_extra("trust/extra/clients/root.pem", &stack.aws.world(|world, _| world.pca.certificate(&stack.root_ca)).unwrap());
    // The first renewal of `orders` works, the second is undone.
    days(24).await;
    break_service(stack, "payments/orders", 1);
    until_set_back(stack, 1).await;
    let serial = stack.record("listener").await.unwrap().current.unwrap().serial;
    act(stack, "issue-client-cert", json!({"revoke": "listener", "serial_number": serial, "reason": "SUPERSEDED"})).await;
    lose_deliveries(stack);
    for (name, operation, code) in
        [("refused", "GetCertificate", "AccessDeniedException"), ("unfinished", "IssueCertificate", "ThrottlingException")]
    {
        let fault = move |call: &Call| (call.operation == operation).then(|| Fault::Refuse(AwsError::new(code, "no")));
        stack.aws.set_faults(Some(Box::new(fault)));
        let order = json!({"name": name, "subject": {"common_name": name}});
        stack.handle("issue-client-cert", order, name).await.unwrap_err();
    }
    stack.aws.set_faults(None);
    // ACM is asked 45 days before the expiry, which is long after this.
    let (records, now) = (stack.records(), stack.aws.now());
    let mut gateway = stack.record("gateway").await.unwrap();
    gateway.renewal_asked = Some(RenewalAsked { at: now.into(), serial: gateway.current.clone().unwrap().serial });
    records.update(&mut gateway).await.unwrap();
    assert!(
        records.first_today("budget-spent", now).await.unwrap() && records.take_from_budget(1, 9, now).await.unwrap() == (1, 8)
    );
}

async fn account(site: &Site) -> Account {
    let (stack, bucket) = (&site.stack, site.bucket());
    let orders = stack.record("orders").await.unwrap();
    let mut in_acm = Map::new();
    for name in ["listener", "web"] {
        in_acm.insert(name.to_owned(), imported(stack, name).await[0]["CertificateArn"].clone());
    }
    let gateway = stack.record("gateway").await.unwrap();
    in_acm.insert("gateway".to_owned(), json!(gateway.origin)["certificate_arn"].clone());
    let declaration = Declaration::read(&site.declaration()).unwrap();
    let event = |kind: Kind| {
        let detail = match kind {
            Kind::TrustStoreRefreshed => Event::about_store(kind, "everleaf", &declaration, "why").detail,
            Kind::ExportDue => Event::about(kind, "everleaf", &gateway, "why").detail,
            _ => Event::about(kind, "everleaf", &orders, "why").detail,
        };
        json!({"source": "everleaf", "detail-type": kind.detail_type(), "detail": detail})
    };
    stack.aws.world(|world, now| {
        Account {
        about: json!({
            "at": now.unix_timestamp(), "issuing_ca": stack.issuing_ca, "root_ca": stack.root_ca, "listener": site.listener,
            "in_acm": in_acm,
        }),
        table: world.dynamodb.items().map(|(_, item)| item.clone()).collect(),
        secrets: world
            .secrets
            .secrets()
            .map(|secret| {
                let version = |version: &local_aws::secrets::Version| {
                    json!({"id": version.id, "stages": version.stages, "secret_string": version.secret_string})
                };
                let versions: Vec<_> = secret.versions.iter().map(version).collect();
                json!({"name": secret.name, "tags": secret.tags, "versions": versions})
            })
            .collect(),
        bucket: {
            let keys = world.s3.keys(&bucket, "").into_iter();
            let read = |key: String| (key.clone(), String::from_utf8(world.s3.object(&bucket, &key).unwrap().to_vec()).unwrap());
            keys.map(read).collect()
        },
        events: Kind::ALL.map(event).into(),
    }
    })
}

/// It, in another account: what is there under another name there is called so.
async fn restore(version: &Path) -> (Site, Account) {
    let read = |file: &str| std::fs::read_to_string(version.join(file)).unwrap();
    let about: Value = serde_json::from_str(&read("account.json")).unwrap();
    let site = deploy().await;
    let stack = &site.stack;
    lose_deliveries(stack);
    let at = OffsetDateTime::from_unix_timestamp(about["at"].as_i64().unwrap()).unwrap();
    minutes((at - stack.aws.now()).whole_minutes().unsigned_abs()).await;
    service(stack, "payments/orders", &[]).await;
    service(stack, "payments/gateway", &[]).await;
    let mut names = vec![
        (about["issuing_ca"].clone(), stack.issuing_ca.clone()),
        (about["root_ca"].clone(), stack.root_ca.clone()),
        (about["listener"].clone(), site.listener.clone()),
    ];
    names.push((about["in_acm"]["gateway"].clone(), request(stack, "gateway", false).await));
    for name in ["listener", "web"] {
        let made = self_made(stack, name, 90, vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
        names.push((about["in_acm"][name].clone(), imported_by_hand(stack, name, made).await));
        // Below the quotas, here and below.
        minutes(1).await;
    }
    let renamed = |file: &str| names.iter().fold(read(file), |text, (there, here)| text.replace(there.as_str().unwrap(), here));
    let account = Account {
        about,
        table: serde_json::from_str(&renamed("table.json")).unwrap(),
        secrets: serde_json::from_str(&renamed("secrets.json")).unwrap(),
        bucket: serde_json::from_str(&renamed("bucket.json")).unwrap(),
        events: serde_json::from_str(&renamed("events.json")).unwrap(),
    };
    let table = stack.records().settings.table;
    for item in &account.table {
        user(stack, "dynamodb:PutItem", json!({"TableName": table, "Item": item})).await;
    }
    for secret in &account.secrets {
        restore_secret(stack, secret).await;
        minutes(1).await;
    }
    for (key, body) in &account.bucket {
        stack.aws.world(|world, now| s3::put(world, now, &site.bucket(), key, body.clone().into_bytes())).unwrap();
    }
    (site, account)
}

/// With its versions and their labels.
async fn restore_secret(stack: &Stack, secret: &Value) {
    let name = &secret["name"];
    let tags: Vec<_> =
        secret["tags"].as_object().unwrap().iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    let mut moves = BTreeMap::new();
    for (place, version) in secret["versions"].as_array().unwrap().iter().enumerate() {
        let (id, value) = (&version["id"], &version["secret_string"]);
        match place {
            0 => {
                let create = json!({"Name": name, "ClientRequestToken": id, "SecretString": value, "Tags": tags});
                user(stack, "secretsmanager:CreateSecret", create).await;
            }
            _ => {
                let put =
                    json!({"SecretId": name, "ClientRequestToken": id, "SecretString": value, "VersionStages": ["restored"]});
                user(stack, "secretsmanager:PutSecretValue", put).await;
            }
        }
        for stage in version["stages"].as_array().unwrap() {
            moves.insert(stage.as_str().unwrap(), id);
        }
    }
    // `AWSPREVIOUS` goes to where `AWSCURRENT` was.
    let labels =
        [("AWSPREVIOUS", "AWSCURRENT"), ("AWSCURRENT", "AWSCURRENT")].into_iter().filter(|(label, _)| moves.contains_key(label));
    let others = moves.keys().filter(|label| !label.starts_with("AWSCURRENT") && !label.starts_with("AWSPREVIOUS"));
    for (held, label) in labels.chain(others.map(|label| (*label, *label))) {
        let to = moves[held];
        let from = stack.aws.world(|world, _| {
            let secret = world.secrets.find(name.as_str().unwrap()).unwrap();
            staged(secret, label).map(|version| version.id.clone())
        });
        if from.as_ref().is_none_or(|from| to != from) {
            let update = json!({"SecretId": name, "VersionStage": label, "MoveToVersionId": to, "RemoveFromVersionId": from});
            user(stack, "secretsmanager:UpdateSecretVersionStage", update).await;
        }
    }
}

fn certificates(account: &Account) -> BTreeSet<String> {
    let ids = account.table.iter().map(|item| item["id"]["S"].as_str().unwrap());
    ids.filter_map(|id| id.strip_prefix("certificate#").map(str::to_owned)).collect()
}

#[test]
fn what_each_version_wrote_is_read_and_gone_on_with() {
    for version in versions() {
        run(async {
            let (site, account) = restore(&version).await;
            let (stack, story) = (&site.stack, version.display());
            let mut before = BTreeMap::new();
            for name in certificates(&account) {
                let record = stack.record(&name).await.unwrap();
                let item = account.table.iter().find(|item| item["id"]["S"] == format!("certificate#{name}")).unwrap();
                for field in item.keys().filter(|field| !BESIDE_THE_RECORD.contains(&field.as_str())) {
                    assert!(json!(record).get(field).is_some(), "{story}: {name}: {field} was not read");
                }
                let plan = act(stack, "renew-on-expiry", json!({"plan": true, "certificate": name})).await;
                assert!(!plan.to_string().contains("secret-"), "{story}: {plan:#}");
                before.insert(name, record);
            }
            stack.aws.take_events();
            stack.aws.set_deliveries(None);
            days(65).await;
            let mut renewed = BTreeSet::new();
            for (name, before) in &before {
                let after = stack.record(name).await.unwrap();
                let secret = format!("everleaf/{name}");
                let good = stack.aws.world(|world, now| current_is_good(world.secrets.find(&secret).unwrap(), Some(now)));
                assert_eq!(good, Ok(()), "{story}: {name}");
                assert!(after.current.is_some() && after.rejected.is_superset(&before.rejected), "{story}: {name}: {after:#?}");
                if before.current != after.current {
                    renewed.insert(name.as_str());
                }
            }
            assert_eq!(renewed, ["gateway", "listener", "orders", "refused", "unfinished", "web"].into(), "{story}");
            let told = stack.aws.take_events().into_iter().filter(|event| event.event["detail-type"] == "Action Required");
            let told: Vec<_> = told.map(|event| event.event["detail"]["reason"].to_string()).collect();
            assert!(!told.iter().any(|reason| reason.contains("look-failed")), "{story}: {told:#?}");
            assert_eq!(site.client("orders", "AWSCURRENT"), "Success", "{story}");
            // The last is the object under `trust/extra/`, of a CA with the same name.
            assert_eq!(site.subjects().await, ["Example Issuing CA", "Example Root CA", "Example Root CA"], "{story}");
        });
    }
}

#[test]
fn a_record_that_is_lost_is_made_anew_from_the_secret_and_the_tags_that_each_version_wrote() {
    for version in versions() {
        run(async {
            let (site, account) = restore(&version).await;
            let (stack, story) = (&site.stack, version.display());
            let mut made = BTreeSet::new();
            let mut records = Vec::new();
            for name in certificates(&account) {
                records.push(stack.record(&name).await.unwrap());
            }
            empty_the_table(stack).await;
            for before in records {
                let (name, now) = (before.name.to_string(), stack.aws.now());
                let after = stack.records().rebuild(&before.name, now).await.unwrap();
                // What is ACM's, or was never issued, comes from elsewhere.
                let Some(after) = after else { continue };
                assert_eq!((&after.origin, &after.options), (&before.origin, &before.options), "{story}: {name}");
                let facts = |record: &Record| {
                    let pairs =
                        [&record.current, &record.previous].map(|pair| pair.clone().map(|pair| (pair.serial, pair.issuer)));
                    (pairs, record.acm_certificate().cloned(), record.rejected.clone())
                };
                assert_eq!(facts(&after), facts(&before), "{story}: {name}");
                made.insert(name);
            }
            assert_eq!(made, ["billing-mtls", "listener", "options", "orders"].map(str::to_owned).into(), "{story}");
        });
    }
}

#[test]
fn every_event_of_each_version_is_understood() {
    for version in versions() {
        run(async {
            let (site, account) = restore(&version).await;
            let mut known = BTreeSet::new();
            for event in &account.events {
                let kind = event["detail-type"].as_str().unwrap();
                let detail: Detail = serde_json::from_value(event["detail"].clone()).unwrap();
                assert_eq!(json!(detail), event["detail"], "{kind}");
                for function in site.stack.aws.put_event(event.clone()) {
                    let binary = function.trim_start_matches("everleaf-");
                    site.stack.handle(binary, event.clone(), "an earlier event").await.unwrap();
                }
                known.insert(kind);
            }
            assert!(Kind::ALL.iter().all(|kind| known.contains(kind.detail_type())), "{}: {known:?}", version.display());
        });
    }
}

#[test]
fn what_this_version_writes_is_among_the_fixtures_with_every_kind_of_item() {
    let table =
        std::fs::read_to_string(root().join("tests/fixtures").join(THIS).join("table.json")).expect("see the module's head");
    let table: Vec<Map<String, Value>> = serde_json::from_str(&table).unwrap();
    let ids = table.iter().map(|item| item["id"]["S"].as_str().unwrap());
    let kinds: BTreeSet<_> = ids.map(|id| id.split('#').next().unwrap()).collect();
    assert_eq!(kinds, ["acm", "budget", "certificate", "service", "told", "trust", "walk"].into());
    let records = table.iter().filter(|item| item["id"]["S"].as_str().unwrap().starts_with("certificate#"));
    let records: Vec<_> = records.collect();
    let origins: BTreeSet<_> = records.iter().map(|item| item["origin"]["M"]["kind"]["S"].as_str().unwrap()).collect();
    assert_eq!(origins, ["adopted", "caller-key", "exported", "issued"].into());
    for field in [
        "attempt",
        "attempts",
        "current",
        "halted",
        "imported",
        "previous",
        "rejected",
        "renewal_asked",
        "revocations",
        "secret_arn",
        "setback",
        "told",
    ] {
        assert!(records.iter().any(|item| item.contains_key(field)), "{field}");
    }
}

#[test]
#[ignore = "it adds the fixtures of a new version, once"]
fn what_this_version_writes_is_kept() {
    let account = run(async {
        let site = deploy().await;
        live(&site).await;
        account(&site).await
    });
    let folder = root().join("tests/fixtures").join(THIS);
    std::fs::create_dir(&folder).expect("a version is recorded once");
    let Account { about, table, secrets, bucket, events } = account;
    for (file, content) in [
        ("account.json", about),
        ("table.json", json!(table)),
        ("secrets.json", json!(secrets)),
        ("bucket.json", json!(bucket)),
        ("events.json", json!(events)),
    ] {
        std::fs::write(folder.join(file), serde_json::to_string_pretty(&content).unwrap() + "\n").unwrap();
    }
}
