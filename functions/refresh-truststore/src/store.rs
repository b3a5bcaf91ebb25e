//! One store: gather, decide, do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_acmpca::types::CertificateAuthority;
use futures_util::future::{join_all, try_join_all};
use lifecycle::authority::{Crl, certificates};
use lifecycle::date;
use lifecycle::events::{Event, Kind};
use lifecycle::names::{Arn, CertificateName, ServiceName, StoreName};
use lifecycle::record::Record;
use lifecycle::refresh::{Facts, Plan, Published, is_used, plan};
use lifecycle::rollout::BindingState;
use lifecycle::trust::{Attach, Authorities, LoadedCrl, Mode, Store};
use runtime::{Failure, Invocation};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::elb::{Described, File};
use crate::s3::Object;
use crate::{App, EXTRA, OUT, elb, pca, s3, tell, tell_failure};

/// What a store is and is to be, and what is to be done about it.
pub(crate) struct Look {
    facts: Facts,
    pub(crate) plan: Plan,
    /// What could not be read of a CA for good. The rest goes on without it.
    failures: Vec<Failure>,
}

/// What was done.
pub(crate) struct Refreshed {
    pub(crate) report: Value,
    pub(crate) events: Vec<Event>,
    pub(crate) failures: Vec<Failure>,
}

pub(crate) async fn look(app: &App, name: &StoreName, store: &Store, now: OffsetDateTime) -> Result<Look, Failure> {
    let authorities = app.trust.authorities(store);
    let (facts, failures) = gather(app, name, store, &authorities, now).await?;
    let plan = plan(store, &authorities, &facts, now);
    Ok(Look { facts, plan, failures })
}

/// Puts right what differs. What is then known of the store stands in `store`, to be kept.
pub(crate) async fn carry_out(app: &App, name: &StoreName, store: &mut Store, look: Look, invocation: &Invocation) -> Refreshed {
    let report = look.report(name, false);
    let Look { facts, plan, mut failures } = look;
    let mut events = Vec::new();
    for (code, message) in &plan.tell {
        events.extend(tell(app, store, code, message, invocation));
    }
    let met = failures.len();
    if let Err(failure) = act(app, name, store, &plan, &facts, &mut failures, invocation).await {
        failures.push(failure);
    }
    // What could not be read of a CA is told by then, as what became of it.
    for failure in &failures[met..] {
        events.extend(tell_failure(app, store, failure, invocation));
    }
    let uploaded = plan.upload.is_some() && store.bundle == plan.bundle.fingerprints();
    if !plan.changes_nothing() && (failures.len() == met || uploaded) {
        let reason = in_words(&plan);
        tracing::info!(trust_store.name = %name, "Refreshed the trust store `{name}`: {reason}");
        events.push(Event::about_store(Kind::TrustStoreRefreshed, &app.records.settings.prefix, &store.declaration, reason));
    }
    Refreshed { report, events, failures }
}

async fn gather(
    app: &App,
    name: &StoreName,
    store: &Store,
    authorities: &Authorities,
    now: OffsetDateTime,
) -> Result<(Facts, Vec<Failure>), Failure> {
    let extra = format!("{EXTRA}{name}/");
    let arns: Vec<_> = store.declaration.listeners.iter().map(|listener| &listener.listener_arn).collect();
    let ((arn, held, ids), (needed, table_is_new, shown), extras, listeners, (clients, services)) = tokio::try_join!(
        in_load_balancing(app, name),
        in_private_ca(app, store, authorities, now),
        s3::extras(&app.s3, &app.bucket, &extra),
        elb::listeners(&app.elb, &arns),
        clients(app, store),
    )?;
    let taken = app.trust.taken(store);
    let mut facts = Facts { arn, held, needed, table_is_new, extras, listeners, taken, clients, services, ..Facts::default() };
    let mut failures = Vec::new();
    // One after another: a CRL may have 50 MB.
    for Shown { authority, chain, found } in shown {
        let mut of_no_use = Vec::new();
        let failures = if is_used(authorities, &facts, &authority) { &mut failures } else { &mut of_no_use };
        facts.chains.insert(authority.clone(), noted(chain, failures)?);
        let loaded = store.crls.get(&authority).filter(|loaded| ids.contains(&loaded.revocation_id));
        let wanted = authorities.wanted.contains(&authority);
        match noted(published(app, &authority, found, loaded, wanted, now).await, failures)? {
            Ok(None) => {}
            Ok(Some(published)) => _ = facts.published.insert(authority, Ok(published)),
            Err(why) => _ = facts.published.insert(authority, Err(why)),
        }
    }
    let noted: BTreeSet<i64> = store.crls.values().map(|loaded| loaded.revocation_id).collect();
    for id in ids {
        let crl = match &facts.arn {
            Some(arn) if !noted.contains(&id) => loaded_crl(app, arn, id).await?,
            _ => None,
        };
        facts.loaded.insert(id, crl);
    }
    Ok((facts, failures))
}

/// The store where there is one, the certificates (DER) that it really holds, and the ids of its CRLs.
async fn in_load_balancing(app: &App, name: &StoreName) -> Result<(Option<Arn>, Vec<Vec<u8>>, Vec<i64>), Failure> {
    let Some(Described { arn, .. }) = elb::find(&app.elb, name).await? else { return Ok((None, Vec::new(), Vec::new())) };
    let (held, ids) = tokio::try_join!(held(app, &arn), elb::revocations(&app.elb, &arn))?;
    Ok((Some(arn), held, ids))
}

/// What AWS Private CA shows of a CA.
struct Shown {
    authority: Arn,
    chain: Result<Vec<Vec<u8>>, Failure>,
    found: Result<CertificateAuthority, Failure>,
}

/// Which of the retiring CAs are needed, whether the table may be too new to tell, and what AWS Private CA shows of all that matter.
async fn in_private_ca(
    app: &App,
    store: &Store,
    authorities: &Authorities,
    now: OffsetDateTime,
) -> Result<(BTreeMap<Arn, CertificateName>, bool, Vec<Shown>), Failure> {
    let Authorities { wanted, retiring } = authorities;
    let needed = async |authority: &Arn| Ok(app.records.needs(authority, now).await?.map(|by| (authority.clone(), by)));
    let needed: BTreeMap<_, _> = try_join_all(retiring.iter().map(needed)).await?.into_iter().flatten().collect();
    let table_is_new = retiring.len() > needed.len() && !app.records.walk().await?.has_been_everywhere();
    // Of those that retire only what is there or needed is worth a look.
    let stays = |authority: &&Arn| {
        needed.contains_key(*authority) || store.held.contains_key(*authority) || store.adding.contains_key(*authority)
    };
    let all: Vec<_> = wanted.iter().chain(retiring.iter().filter(stays)).collect();
    let shown = async |authority: &&Arn| {
        let (chain, found) = tokio::join!(pca::chain(&app.pca, authority), pca::describe(&app.pca, authority));
        Shown { authority: (*authority).clone(), chain, found }
    };
    let mut all_shown = Vec::new();
    // AWS answers twenty of each a second.
    for some in all.chunks(10) {
        all_shown.extend(join_all(some.iter().map(shown)).await);
    }
    Ok((needed, table_is_new, all_shown))
}

/// The clients of all listeners that are known, and what is known of their services.
async fn clients(
    app: &App,
    store: &Store,
) -> Result<(BTreeMap<CertificateName, Record>, BTreeMap<ServiceName, BindingState>), Failure> {
    let clients: BTreeSet<_> = store.declaration.listeners.iter().flat_map(|listener| &listener.clients).collect();
    let records = app.records.load_all(clients).await?;
    let services: BTreeSet<_> = records.iter().flat_map(|record| &record.options.services).collect();
    let services = app.records.bindings(services).await?.into_iter().map(|(service, binding)| (service, binding.state)).collect();
    Ok((records.into_iter().map(|record| (record.name.clone(), record)).collect(), services))
}

/// A permanent failure says something of what was asked for, and is noted; any other ends the look.
fn noted<T>(answer: Result<T, Failure>, failures: &mut Vec<Failure>) -> Result<Result<T, String>, Failure> {
    match answer {
        Err(failure) if failure.is_permanent() => {
            let why = failure.to_string();
            failures.push(failure);
            Ok(Err(why))
        }
        Err(failure) => Err(failure),
        Ok(answer) => Ok(Ok(answer)),
    }
}

/// The certificates that a store really holds, DER.
async fn held(app: &App, store: &Arn) -> Result<Vec<Vec<u8>>, Failure> {
    let location = elb::bundle_location(&app.elb, store).await?;
    let bundle = s3::download(&app.s3, &app.bucket, &location).await?;
    let unreadable = |why: String| Failure::permanent(format!("read what {store} holds"), why);
    certificates(&String::from_utf8(bundle).map_err(|error| unreadable(error.to_string()))?).map_err(unreadable)
}

/// What a CA has published since the CRL that is loaded; `None` when it publishes none. How one is that the store is to hold for
/// good is said by the way.
async fn published(
    app: &App,
    authority: &Arn,
    found: Result<CertificateAuthority, Failure>,
    loaded: Option<&LoadedCrl>,
    wanted: bool,
    now: OffsetDateTime,
) -> Result<Option<Published>, Failure> {
    // One that is not found, or not shared any more, is of no use.
    if wanted && found.as_ref().err().is_none_or(Failure::is_permanent) {
        pca::say_health(&app.records.settings.prefix, authority, found.as_ref().ok(), app.issuers.contains(authority), now);
    }
    let found = found?;
    let Some(location) = pca::crl_location(authority, found)? else { return Ok(None) };
    let known = loaded.and_then(|loaded| loaded.e_tag.as_deref());
    Ok(Some(match s3::crl(&app.s3, &location, known).await? {
        Object::Same => Published::Same,
        Object::Missing => Published::Missing,
        Object::New { body, e_tag } => {
            let unreadable = |why| Failure::permanent(format!("read the CRL of {authority}"), why);
            Published::Crl { crl: Crl::read(&body).map_err(unreadable)?, e_tag }
        }
    }))
}

/// A CRL of the store that nobody noted; `None` when it cannot be read.
async fn loaded_crl(app: &App, store: &Arn, id: i64) -> Result<Option<Crl>, Failure> {
    let Some(location) = elb::crl_location(&app.elb, store, id).await? else { return Ok(None) };
    Ok(Crl::read(&s3::download(&app.s3, &app.bucket, &location).await?).ok())
}

/// In this order: no listener verifies before the store holds what it is to hold, CRLs included.
async fn act(
    app: &App,
    name: &StoreName,
    store: &mut Store,
    plan: &Plan,
    facts: &Facts,
    failures: &mut Vec<Failure>,
    invocation: &Invocation,
) -> Result<(), Failure> {
    let (mut arn, mut bundle) = (facts.arn.clone(), facts.held.clone());
    if plan.upload.is_some() {
        let (uploaded, held) = upload(app, name, plan, facts.arn.as_ref(), invocation).await?;
        (arn, bundle) = (Some(uploaded), held);
    }
    let met = failures.len();
    if let Some(arn) = &arn {
        // One from before Everleaf stays so until it holds what is declared, and nothing else.
        if plan.fits {
            store.arn = Some(arn.clone());
        }
        store.bundle = bundle.iter().map(|der| lifecycle::refresh::fingerprint(der)).collect();
        (store.held, store.leaving, store.crls) = (plan.held.clone(), plan.leaving.clone(), plan.crls.clone());
        store.adding.clear();
        if plan.fits {
            store.extras = plan.extras.clone();
        }
        let mut refused = BTreeSet::new();
        for (authority, crl, e_tag) in &plan.add_crls {
            match add_crl(app, name, arn, authority, crl, e_tag.clone()).await {
                Ok(loaded) => _ = store.crls.insert(authority.clone(), loaded),
                Err(failure) => {
                    refused.insert(authority);
                    failures.push(failure);
                }
            }
        }
        // What is superseded goes when what supersedes it has come.
        let superseded = plan.remove_crls.iter().filter(|(authority, _)| !refused.contains(authority));
        let superseded: Vec<_> = superseded.map(|(_, id)| *id).collect();
        if !superseded.is_empty() {
            elb::remove_crls(&app.elb, arn, &superseded).await?;
        }
    }
    let complete = failures.len() == met;
    for listener in &store.declaration.listeners {
        let modify = plan.listeners.contains(&(listener.listener_arn.clone(), Attach::Modify));
        // One that does not verify needs no store, and no CRL.
        if modify
            && (complete || listener.authentication.mode != Mode::Verify)
            && let Err(failure) = elb::attach(&app.elb, listener, arn.as_ref()).await
        {
            failures.push(failure);
        }
    }
    Ok(())
}

/// Brings a bundle into the store, made where there is none, and sees that it holds it.
async fn upload(
    app: &App,
    name: &StoreName,
    plan: &Plan,
    arn: Option<&Arn>,
    invocation: &Invocation,
) -> Result<(Arn, Vec<Vec<u8>>), Failure> {
    let text = plan.bundle.pem();
    let key = format!("{OUT}{name}/{}.pem", lifecycle::refresh::fingerprint(text.as_bytes()));
    let version = s3::put_once(&app.s3, &app.bucket, &key, text).await?;
    let file = File { bucket: &app.bucket, key: &key, version };
    let written = match arn {
        Some(arn) => elb::modify(&app.elb, arn, &file).await?,
        None => elb::create(&app.elb, name, &app.records.settings.prefix, &file).await?,
    };
    let arn = elb::wait_until_active(&app.elb, name, written, invocation).await?;
    for pause in [0, 1, 2, 4] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let held = held(app, &arn).await?;
        let holds: BTreeSet<String> = held.iter().map(|der| lifecycle::refresh::fingerprint(der)).collect();
        if holds == plan.bundle.fingerprints() {
            return Ok((arn, held));
        }
    }
    Err(Failure::retryable(format!("bring {key} into the trust store `{name}`"), "the store does not show it yet"))
}

async fn add_crl(
    app: &App,
    name: &StoreName,
    arn: &Arn,
    authority: &Arn,
    crl: &Crl,
    e_tag: Option<String>,
) -> Result<LoadedCrl, Failure> {
    let id = authority.resource().trim_start_matches("certificate-authority/");
    let key = format!("{OUT}{name}/{id}-{}.crl.pem", crl.number);
    let version = s3::put_once(&app.s3, &app.bucket, &key, crl.pem()).await?;
    let revocation_id = elb::add_crl(&app.elb, arn, &File { bucket: &app.bucket, key: &key, version }).await?;
    Ok(LoadedCrl::of(crl, revocation_id, e_tag))
}

/// What was changed, in one line.
fn in_words(plan: &Plan) -> String {
    let mut words = Vec::new();
    if let Some(why) = &plan.upload {
        words.push(why.clone());
    }
    let list = |what: &str, all: &[String]| (!all.is_empty()).then(|| format!("{what} {}", all.join(", ")));
    words.extend(list("added", &plan.added));
    words.extend(list("removed", &plan.removed));
    words.extend(plan.add_crls.iter().map(|(authority, crl, _)| format!("loaded CRL {} of {authority}", crl.number)));
    if !plan.remove_crls.is_empty() {
        words.push(format!("removed {} superseded CRLs", plan.remove_crls.len()));
    }
    let attached = plan.listeners.iter().filter(|(_, attach)| *attach == Attach::Modify);
    words.extend(attached.map(|(listener, _)| format!("set how {listener} authenticates clients")));
    words.extend(plan.notes.iter().cloned());
    words.join("; ")
}

impl Look {
    pub(crate) fn report(&self, name: &StoreName, dry_run: bool) -> Value {
        let Self { facts, plan, .. } = self;
        let outcome = match (plan.changes_nothing(), dry_run, &facts.arn, &plan.upload) {
            (true, ..) => "unchanged",
            (false, true, ..) => "planned",
            (false, false, None, Some(_)) => "created",
            (false, false, ..) => "refreshed",
        };
        let authorities: Vec<_> = plan
            .bundle
            .authorities
            .iter()
            .map(|one| json!({"subject": one.subject, "fingerprint_sha256": one.fingerprint, "not_after": date(one.not_after)}))
            .collect();
        let listeners: Vec<_> = plan
            .listeners
            .iter()
            .map(|(arn, attach)| match attach {
                Attach::Keep => json!({"listener_arn": arn, "outcome": "unchanged"}),
                Attach::Modify => json!({"listener_arn": arn, "outcome": if dry_run { "planned" } else { "modified" }}),
                Attach::Wait { missing } => json!({"listener_arn": arn, "outcome": "waiting", "missing": missing}),
            })
            .collect();
        let mut crls: BTreeMap<&Arn, &str> =
            plan.crls.iter().map(|(authority, loaded)| (authority, loaded.number.as_str())).collect();
        crls.extend(plan.add_crls.iter().map(|(authority, crl, _)| (authority, crl.number.as_str())));
        let crls: Vec<_> = crls
            .into_iter()
            .map(|(authority, number)| json!({"certificate_authority_arn": authority, "crl_number": number}))
            .collect();
        let refused: Vec<_> =
            plan.bundle.refused.iter().map(|refused| json!({"what": refused.what, "why": refused.why})).collect();
        json!({
            "trust_store": name, "trust_store_arn": facts.arn, "outcome": outcome, "reason": plan.upload,
            "certificate_authorities": authorities, "added": plan.added, "removed": plan.removed, "refused": refused,
            "revocation_lists": crls, "listeners": listeners, "action_required": plan.tell.iter().map(|(_, message)| message).collect::<Vec<_>>(),
            "notes": plan.notes,
        })
    }
}
