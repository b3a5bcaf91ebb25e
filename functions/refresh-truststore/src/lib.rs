//! `refresh-truststore`: the trust stores of Application Load Balancers, in step with the CAs.
//!
//! ```text
//!   declarations ─┐
//!   CAs, CRLs ────┼─▶ what a store is to hold ─▶ compared with what it really holds ─▶ S3 ─▶ store ─▶ CRLs ─▶ listeners
//!   trust/extra/ ─┘                                    (nothing differs: nothing is written)
//! ```
//!
//! A store is replaced as a whole, so everything is judged before anything is written, and what would shut out a pair that is in
//! use is never uploaded. What waited for a store is asked for again once the store is ready.

mod elb;
mod pca;
mod s3;
mod store;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_acmpca::Client as PrivateCa;
use aws_sdk_elasticloadbalancingv2::Client as LoadBalancing;
use aws_sdk_eventbridge::Client as EventBridge;
use aws_sdk_s3::Client as S3;
use lifecycle::events::{Detail, Event, Kind};
use lifecycle::names::{Arn, AuthorityArn, StoreName};
use lifecycle::record::Record;
use lifecycle::refresh::{First, Scope, announce};
use lifecycle::rollout::Lock;
use lifecycle::trust::{Declaration, Store, Stores, Trust};
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Failures, Invocation, Trigger, metrics, publish};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::store::{Look, Refreshed};

pub struct App {
    pub records: Records,
    pub pca: PrivateCa,
    pub s3: S3,
    pub elb: LoadBalancing,
    pub eventbridge: EventBridge,
    /// Holds `trust/extra/` (input), and `trust/out/` (bundles and CRLs).
    pub bucket: String,
    pub trust: Trust,
    /// The CAs that the stack issues from.
    pub issuers: BTreeSet<Arn>,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &aws_config::SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_reader(&mut vars);
        let bucket: Option<String> = vars.required("EVERLEAF_BUCKET");
        let trust = records::trust::settings(&mut vars);
        let issuing: Option<AuthorityArn> = vars.optional("EVERLEAF_ISSUING_CA");
        let issuers = issuing.into_iter().chain(vars.list("EVERLEAF_ALLOWED_CAS")).map(|AuthorityArn(arn)| arn);
        let issuers = issuers.filter(|arn| trust.successors.of(arn).is_none()).collect();
        let (settings, bucket) = vars.finish(settings.zip(bucket))?;
        Ok(Self {
            records: Records::new(sdk, settings),
            pca: PrivateCa::new(sdk),
            s3: S3::new(sdk),
            elb: LoadBalancing::new(sdk),
            eventbridge: EventBridge::new(sdk),
            bucket,
            trust,
            issuers,
        })
    }
}

/// The schedule's input, or a request by hand: one of the four.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    refresh: bool,
    trust_store: Option<StoreName>,
    declare: Option<Value>,
    undeclare: Option<StoreName>,
    #[serde(default)]
    dry_run: bool,
}

const USAGE: &str = "give one of {\"refresh\": true}, {\"trust_store\": \"name\"}, {\"declare\": {…}} and {\"undeclare\": \"name\"}, and `dry_run` beside it where nothing is to change";

/// Which stores are to be seen to, and how.
struct Asked<'a> {
    scope: Scope,
    /// Why a CA could not publish its CRL.
    ca_says: Option<&'a str>,
    dry_run: bool,
}

impl Asked<'_> {
    fn of(scope: Scope) -> Self {
        Self { scope, ca_says: None, dry_run: false }
    }
}

pub async fn handle(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let not_ours = |what: &str| {
        Failure::permanent("take the event", format!("`{what}` is not for this function; mend the rule that sent it"))
    };
    match Trigger::parse(event)? {
        Trigger::Event { source, detail_type, resource, detail } if source == "aws.acm-pca" => {
            let authority = resource.unwrap_or_default().parse();
            let AuthorityArn(authority) =
                authority.map_err(|error| Failure::permanent("read which CA the event is about", error))?;
            let ca_says = if detail_type.ends_with("CRL Generation") { crl_failed(&detail) } else { None };
            refresh(app, None, Asked { ca_says, ..Asked::of(Scope::Of(authority)) }, invocation).await
        }
        Trigger::Event { source, detail, .. } if source == "aws.s3" => {
            // What lies beside the stores' folders, or stands for a folder, is for none.
            let key = detail["object"]["key"].as_str().unwrap_or_default();
            let name = key.strip_prefix(EXTRA).and_then(|rest| rest.split_once('/')).and_then(|(name, _)| name.parse().ok());
            match name {
                Some(name) => refresh(app, None, Asked::of(Scope::Extra(name)), invocation).await,
                None => Ok(json!({"outcome": "unchanged", "trust_stores": []})),
            }
        }
        Trigger::Event { detail_type, detail, .. } if detail_type == Kind::TrustDue.detail_type() => {
            let Detail { certificate, .. } = Trigger::body(detail)?;
            refresh(app, None, Asked::of(Scope::Waiting(Trigger::body(Value::from(certificate))?)), invocation).await
        }
        Trigger::Event { detail_type, .. } => Err(not_ours(&detail_type)),
        Trigger::ByHand(request) => match Trigger::request(request, USAGE)? {
            Request { refresh: true, trust_store: None, declare: None, undeclare: None, dry_run } => {
                refresh(app, None, Asked { dry_run, ..Asked::of(Scope::All) }, invocation).await
            }
            Request { refresh: false, trust_store: Some(name), declare: None, undeclare: None, dry_run } => {
                refresh(app, None, Asked { dry_run, ..Asked::of(Scope::One(name)) }, invocation).await
            }
            Request { refresh: false, trust_store: None, declare: Some(declaration), undeclare: None, dry_run } => {
                declare(app, &declaration, dry_run, invocation).await
            }
            Request { refresh: false, trust_store: None, declare: None, undeclare: Some(name), dry_run } => {
                undeclare(app, &name, dry_run).await
            }
            _ => Err(Failure::permanent("read the request", USAGE)),
        },
    }
}

pub(crate) const EXTRA: &str = "trust/extra/";
pub(crate) const OUT: &str = "trust/out/";
/// Everything that is kept of the stores, for when the table is lost: what was declared by hand stands nowhere else.
const BACKUP: &str = "trust/out/stores.json";

/// Why a CA could not publish its CRL, as its event says.
fn crl_failed(detail: &Value) -> Option<&str> {
    (detail["result"] == "failure").then(|| detail["reason"].as_str().unwrap_or("no reason was given"))
}

/// Looks at stores, and then puts right what differs. One that fails does not keep the others waiting. `known`: what is kept of the
/// stores, where it was read just now.
async fn refresh(app: &App, known: Option<Stores>, asked: Asked<'_>, invocation: &Invocation) -> Result<Value, Failure> {
    let Gathered { kept, mut stores, waiting, looks } = gather(app, known, &asked.scope, invocation).await?;
    if asked.dry_run {
        return planned(looks);
    }
    let unseen = match asked.scope {
        Scope::All => look_at_issuers(app, &stores, invocation.now()).await,
        _ => Vec::new(),
    };
    let plans = looks.iter().filter_map(|(name, look)| Some((name, &look.as_ref().ok()?.plan)));
    let First { lock: changes, copy: adds } = announce(&mut stores, plans);
    if changes {
        lock(app, &mut stores, invocation).await?;
    }
    if adds {
        copy(app, &stores).await?;
    }
    let others = stores.keeps_out(&invocation.id, invocation.now()).is_some();
    let Done { reports, events, mut failures } = carry_out(app, &mut stores, looks, &asked, invocation).await;
    failures.extend(unseen);
    // Told first: what is kept as told, or as done, is told no more.
    publish(&app.eventbridge, &events).await?;
    // While somebody else changes stores, what is known of them is theirs to write.
    if !others {
        stores.lock = None;
        keep(app, kept, &mut stores).await?;
    }
    let next = waiting.and_then(|record| may_go_on(app, &stores, &record));
    publish(&app.eventbridge, next.as_slice()).await?;
    if let Scope::All = asked.scope {
        // Every store and CA was looked at. What was found or refused there has alarms of its own.
        metrics(&[("Stack", &app.records.settings.prefix)], &[("RefreshCompleted", 1.0)]);
    }
    failures.into_result("refresh trust stores")?;
    let changed = reports.iter().any(|report| report["outcome"] != "unchanged");
    Ok(json!({"outcome": if changed { "refreshed" } else { "unchanged" }, "trust_stores": reports}))
}

/// What there is before anything is done.
struct Gathered {
    kept: Option<Stores>,
    stores: Stores,
    /// The certificate that waits for stores.
    waiting: Option<Record>,
    looks: Vec<(StoreName, Result<Look, Failure>)>,
}

async fn gather(app: &App, known: Option<Stores>, scope: &Scope, invocation: &Invocation) -> Result<Gathered, Failure> {
    let kept = async {
        match known {
            Some(known) => Ok(Some(known)),
            None => load(app).await,
        }
    };
    let waiting = async {
        match scope {
            Scope::Waiting(name) => app.records.load(name).await,
            _ => Ok(None),
        }
    };
    let (kept, waiting) = tokio::try_join!(kept, waiting)?;
    let stores = kept.clone().unwrap_or_default().declared_by(&app.trust.declared);
    let names = scope.names(&app.trust, &stores, waiting.as_ref());
    let mut looks = Vec::new();
    // One after another: Elastic Load Balancing answers ten reads a second.
    for name in names.map_err(|why| Failure::permanent("refresh trust stores", why))? {
        let look = store::look(app, &name, &stores.stores[&name], invocation.now()).await;
        looks.push((name, look));
    }
    Ok(Gathered { kept, stores, waiting, looks })
}

/// What was done.
#[derive(Default)]
struct Done {
    reports: Vec<Value>,
    events: Vec<Event>,
    failures: Failures,
}

async fn carry_out(
    app: &App,
    stores: &mut Stores,
    looks: Vec<(StoreName, Result<Look, Failure>)>,
    asked: &Asked<'_>,
    invocation: &Invocation,
) -> Done {
    let mut done = Done::default();
    for (name, look) in looks {
        let Some(store) = stores.stores.get_mut(&name) else { continue };
        if let (Some(why), Scope::Of(authority)) = (asked.ca_says, &asked.scope) {
            let message =
                format!("{authority} could not publish its CRL: {why}; the trust store `{name}` goes on with the last one");
            done.events.extend(tell(app, store, "trust-crl", &message, invocation));
        }
        let met = match look {
            Ok(look) => {
                let Refreshed { report, events, failures } = store::carry_out(app, &name, store, look, invocation).await;
                say_usage(app, &name, store);
                done.reports.push(report);
                done.events.extend(events);
                failures
            }
            Err(failure) => {
                done.events.extend(tell_failure(app, store, &failure, invocation));
                vec![failure]
            }
        };
        done.failures.extend(met);
    }
    done
}

/// Looks at the CAs that the stack issues from and no store is to hold: nobody else would before a certificate is due.
async fn look_at_issuers(app: &App, stores: &Stores, now: OffsetDateTime) -> Vec<Failure> {
    let looked_at: BTreeSet<_> = stores.stores.values().flat_map(|store| app.trust.authorities(store).wanted).collect();
    let mut failures = Vec::new();
    for authority in app.issuers.difference(&looked_at) {
        match pca::describe(&app.pca, authority).await {
            Ok(found) => pca::say_health(&app.records.settings.prefix, authority, Some(&found), true, now),
            Err(failure) => {
                if failure.is_permanent() {
                    pca::say_health(&app.records.settings.prefix, authority, None, true, now);
                }
                failures.push(failure);
            }
        }
    }
    failures
}

/// Says how much a store uses of what ALB allows one, and of which quota the most, in per cent.
fn say_usage(app: &App, name: &StoreName, store: &Store) {
    let usage = store.usage();
    let used = usage.map(|(what, used, _)| (what, used as f64));
    let most = usage.map(|(_, used, quota)| 100.0 * used as f64 / quota as f64).into_iter().fold(0.0, f64::max);
    let values: Vec<_> = used.into_iter().chain([("QuotaUsed", most)]).collect();
    metrics(&[("Stack", &app.records.settings.prefix), ("TrustStore", &name.to_string())], &values);
}

fn planned(looks: Vec<(StoreName, Result<Look, Failure>)>) -> Result<Value, Failure> {
    let looks: Vec<Value> =
        looks.into_iter().map(|(name, look)| Ok(look?.report(&name, true))).collect::<Result<_, Failure>>()?;
    Ok(json!({"outcome": "planned", "trust_stores": looks}))
}

/// The lock outlasts an invocation, and no more.
const LOCK: Duration = Duration::from_secs(150);

/// Lets nobody else change a store until this invocation has.
async fn lock(app: &App, stores: &mut Stores, invocation: &Invocation) -> Result<(), Failure> {
    let now = invocation.now();
    if let Some(until) = stores.keeps_out(&invocation.id, now) {
        return Err(Failure::busy("refresh trust stores", until));
    }
    stores.lock = Some(Lock { holder: invocation.id.clone(), until: (now + LOCK).into(), newest: None });
    app.records.save_stores(stores).await?.or_retry("the lock of the trust stores")
}

/// The event that lets a certificate go on that has waited for its stores, once they are ready.
fn may_go_on(app: &App, stores: &Stores, record: &Record) -> Option<Event> {
    let (kind, authority) = app.trust.due(stores, record)?;
    let reason = format!("every trust store that declares {authority} holds it");
    Some(Event::about(kind, &app.records.settings.prefix, record, reason))
}

/// What is kept of the stores; from the copy in the bucket where the table has nothing.
async fn load(app: &App) -> Result<Option<Stores>, Failure> {
    if let Some(stores) = app.records.stores().await? {
        return Ok(Some(stores));
    }
    let Some(copy) = s3::get(&app.s3, &app.bucket, BACKUP).await? else { return Ok(None) };
    let stores: Stores = serde_json::from_slice(&copy).map_err(|error| {
        Failure::permanent(format!("read {BACKUP} of {}", app.bucket), format!("{error}; mend it, or delete it"))
    })?;
    tracing::info!("Found what is known of the trust stores in {BACKUP}");
    Ok(Some(Stores { revision: 0, ..stores }))
}

/// Writes down what has changed.
async fn keep(app: &App, before: Option<Stores>, stores: &mut Stores) -> Result<(), Failure> {
    if before.is_some_and(|before| before.stores == stores.stores && before.revision == stores.revision && before.revision > 0) {
        return Ok(());
    }
    // The copy first: what stands in the table alone would never be copied once it is there.
    copy(app, stores).await?;
    app.records.save_stores(stores).await?.or_retry("what is known of the trust stores")
}

async fn copy(app: &App, stores: &Stores) -> Result<(), Failure> {
    let copy = serde_json::to_string(stores).map_err(|error| Failure::permanent(format!("write {BACKUP}"), error))?;
    s3::put(&app.s3, &app.bucket, BACKUP, copy).await
}

async fn declare(app: &App, declaration: &Value, dry_run: bool, invocation: &Invocation) -> Result<Value, Failure> {
    let declaration = Declaration::read(declaration).map_err(|refusal| Failure::permanent("accept the declaration", refusal))?;
    let name = declaration.name.clone();
    by_hand(app, &name)?;
    let kept = load(app).await?;
    let mut stores = kept.clone().unwrap_or_default().declared_by(&app.trust.declared);
    if let Some(collision) = stores.collision(&declaration) {
        return Err(Failure::permanent("accept the declaration", collision));
    }
    let store = stores.stores.entry(name.clone()).or_insert_with(|| Store::new(declaration.clone(), true));
    (store.declaration, store.by_hand) = (declaration, true);
    if dry_run {
        let look = store::look(app, &name, store, invocation.now()).await;
        return planned(vec![(name, look)]);
    }
    keep(app, kept, &mut stores).await?;
    refresh(app, Some(stores), Asked::of(Scope::One(name)), invocation).await
}

/// Everleaf lets go of a store. What is in it stays in it, and so do the listeners.
async fn undeclare(app: &App, name: &StoreName, dry_run: bool) -> Result<Value, Failure> {
    by_hand(app, name)?;
    let kept = load(app).await?;
    let mut stores = kept.clone().unwrap_or_default().declared_by(&app.trust.declared);
    let outcome = match (stores.stores.remove(name), dry_run) {
        (None, _) => "unchanged",
        (Some(_), true) => "planned",
        (Some(_), false) => {
            keep(app, kept, &mut stores).await?;
            tracing::info!(trust_store.name = %name, "Let go of the trust store `{name}`");
            "undeclared"
        }
    };
    Ok(json!({"outcome": outcome, "trust_store": name}))
}

fn by_hand(app: &App, name: &StoreName) -> Result<(), Failure> {
    let declared: BTreeSet<_> = app.trust.declared.iter().map(|declaration| &declaration.name).collect();
    match declared.contains(name) {
        true => Err(Failure::permanent(
            "accept the declaration",
            format!("name: `{name}` is declared by the stack's parameter TrustStores; change it there"),
        )),
        false => Ok(()),
    }
}

pub(crate) fn tell_failure(app: &App, store: &mut Store, failure: &Failure, invocation: &Invocation) -> Option<Event> {
    failure.is_permanent().then(|| tell(app, store, "trust-store", &failure.to_string(), invocation)).flatten()
}

/// The event that tells a person of something about a store, once a day.
pub(crate) fn tell(app: &App, store: &mut Store, code: &str, message: &str, invocation: &Invocation) -> Option<Event> {
    let reason = format!("{code}: {message}");
    let event =
        |store: &Store| Event::about_store(Kind::ActionRequired, &app.records.settings.prefix, &store.declaration, reason);
    store.tells(code, message, invocation.now()).then(|| event(store))
}
