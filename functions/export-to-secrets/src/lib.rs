//! `export-to-secrets`: what ACM issues and renews, brought into the secret.
//!
//! ACM renews by itself, and says so only by `ACM Certificate Available`. Until the renewed certificate is exported, ACM will not
//! renew it again. The event may come before ACM shows the new body everywhere: what is exported is told by its serial.

mod acm_export;
mod rotate;

use std::collections::BTreeSet;
use std::time::Duration;

use acm::Managed;
use aws_sdk_acm::Client as Acm;
use aws_sdk_eventbridge::Client as EventBridge;
use lifecycle::attempt::{A_DAY, Attempt, Turn, turn};
use lifecycle::date;
use lifecycle::events::{AcmDetail, Detail, Event, Kind};
use lifecycle::export::{Export, Held, WAS_IMPORTED, export};
use lifecycle::names::{Arn, CertificateName, ServiceName};
use lifecycle::record::{Origin, Record};
use lifecycle::renewal::Secret;
use lifecycle::trust::Trust;
use lifecycle::window::Hold;
use material::Wanted;
use records::install::{Candidate, Installed};
use records::rotation::Rotation;
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Invocation, Trigger, publish};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub struct App {
    pub records: Records,
    pub acm: Acm,
    pub eventbridge: EventBridge,
    pub trust: Trust,
    pub sweep_interval: Duration,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &aws_config::SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_writer(&mut vars);
        let trust = records::trust::settings(&mut vars);
        let minutes: Option<u64> = vars.required("EVERLEAF_SWEEP_MINUTES");
        let (settings, minutes) = vars.finish(settings.zip(minutes))?;
        Ok(Self {
            records: Records::new(sdk, settings),
            acm: acm::client(sdk, PATIENCE),
            eventbridge: EventBridge::new(sdk),
            trust,
            sweep_interval: Duration::from_secs(minutes * 60),
        })
    }
}

/// How long ACM is waited for: half of what an invocation has. An export has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request by hand: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    certificate: Option<CertificateName>,
    certificate_arn: Option<String>,
    /// Beside the name: a secret that is gone is made anew.
    #[serde(default)]
    replace: bool,
}

const USAGE: &str = "give either `certificate` (its name) or `certificate_arn`; `replace` only beside the name";

/// ACM speaks of every certificate in the account; most are not the stack's.
const UNMANAGED: &str = "unmanaged";

pub async fn handle(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let not_ours = |what: &str| Failure::permanent("take the event", format!("{what}; mend the rule or the request"));
    match Trigger::parse(event)? {
        Trigger::Event { source, resource, detail, .. } if source == "aws.acm" => {
            let arn = certificate_arn(resource.as_deref().unwrap_or_default())?;
            let detail: AcmDetail = Trigger::body(detail)?;
            by_arn(app, &arn, detail.expires(), invocation).await
        }
        Trigger::Event { detail_type, detail, .. } if detail_type == Kind::ExportDue.detail_type() => {
            let Detail { certificate, .. } = Trigger::body(detail)?;
            by_name(app, &Trigger::body(Value::from(certificate))?, invocation).await
        }
        Trigger::Event { detail_type, .. } => Err(not_ours(&format!("`{detail_type}` is not for this function"))),
        Trigger::ByHand(request) if request.get("Step").is_some() => rotate::step(app, request, invocation).await,
        Trigger::ByHand(request) => {
            let answer = match Trigger::request(request, USAGE)? {
                Request { certificate: Some(name), certificate_arn: None, replace } => {
                    if replace {
                        forget_gone(app, &name).await?;
                    }
                    by_name(app, &name, invocation).await?
                }
                Request { certificate: None, certificate_arn: Some(arn), replace: false } => {
                    by_arn(app, &certificate_arn(&arn)?, None, invocation).await?
                }
                _ => return Err(Failure::permanent("read the request", USAGE)),
            };
            if answer["outcome"] == UNMANAGED {
                let why = "ACM does not know it, or it has no tag everleaf:certificate of this stack; tag it, then ask again";
                return Err(Failure::permanent(
                    format!("export {}", answer["certificate_arn"].as_str().unwrap_or_default()),
                    why,
                ));
            }
            Ok(answer)
        }
    }
}

fn certificate_arn(text: &str) -> Result<Arn, Failure> {
    Arn::of(text, "acm", "certificate/").map_err(|error| Failure::permanent("read which certificate it is about", error))
}

/// Forgets the pair of a secret that is gone for good, and not only scheduled for deletion: it is exported as a first one.
async fn forget_gone(app: &App, name: &CertificateName) -> Result<(), Failure> {
    let record = app.records.load(name).await?.filter(|record| matches!(record.origin, Origin::Exported { .. }));
    if let Some(mut record) = record
        && app.records.describe(name).await?.is_none()
    {
        record.forget_secret();
        app.records.update(&mut record).await?;
    }
    Ok(())
}

async fn by_name(app: &App, name: &CertificateName, invocation: &Invocation) -> Result<Value, Failure> {
    let refused = |why: &str| Err(Failure::permanent(format!("export `{name}`"), why));
    let Some(record) = app.records.load(name).await? else {
        return refused(
            "it is not known; tag the certificate in ACM with everleaf:certificate and invoke with its `certificate_arn`",
        );
    };
    let Origin::Exported { certificate_arn: arn } = record.origin.clone() else {
        return match record.is_adopted() {
            true => refused(&format!("it {WAS_IMPORTED}")),
            false => refused("it was issued here, not by ACM; renew it with issue-client-cert"),
        };
    };
    let (managed, held) =
        tokio::try_join!(acm::managed(&app.acm, &arn, &app.records.settings.prefix), acm::describe(&app.acm, &arn))?;
    let Some(managed) = managed else { return Ok(unmanaged(&arn)) };
    let record = if managed.name == *name { Some(record) } else { app.records.load(&managed.name).await? };
    see_to(app, &arn, Found { managed, held, record }, None, invocation).await
}

/// One certificate of ACM: `expected` is the expiry that an event spoke of.
async fn by_arn(app: &App, arn: &Arn, expected: Option<OffsetDateTime>, invocation: &Invocation) -> Result<Value, Failure> {
    let Some(managed) = acm::managed(&app.acm, arn, &app.records.settings.prefix).await? else { return Ok(unmanaged(arn)) };
    let (held, record) = tokio::try_join!(acm::describe(&app.acm, arn), app.records.load(&managed.name))?;
    see_to(app, arn, Found { managed, held, record }, expected, invocation).await
}

fn unmanaged(arn: &Arn) -> Value {
    json!({"outcome": UNMANAGED, "certificate_arn": arn})
}

/// What is known of a certificate of ACM that the stack manages.
struct Found {
    managed: Managed,
    held: Option<Held>,
    record: Option<Record>,
}

/// Brings the secret in step with ACM, where it is not.
async fn see_to(
    app: &App,
    arn: &Arn,
    found: Found,
    expected: Option<OffsetDateTime>,
    invocation: &Invocation,
) -> Result<Value, Failure> {
    let (Found { managed, held, record }, now) = (found, invocation.now());
    let name = managed.name;
    let Some(held) = held else {
        return Err(Failure::permanent(format!("export `{name}`"), format!("ACM has no {arn} any more")));
    };
    if held.is_imported() {
        return Err(Failure::permanent(format!("export `{name}`"), format!("{arn} {WAS_IMPORTED}")));
    }
    let origin = Origin::Exported { certificate_arn: arn.clone() };
    let before = record.as_ref().map(|record| record.options.services.clone()).unwrap_or_default();
    let has_moved = record.as_ref().is_some_and(|record| record.origin != origin);
    let mut record = match record {
        Some(record) => move_to(app, record, arn, &held).await?,
        None => Record::new(name.clone(), origin, managed.options.clone(), now),
    };
    if record.secret_arn.is_none() {
        record = with_secret(app, record, &held, invocation).await?;
    }
    let services_changed = record.options.services != before;
    let options_changed = record.options != managed.options;
    record.options = managed.options;
    record.contents = Some(held.contents());
    match export(&held, Some(&record), expected, now) {
        Export::Unchanged => {
            if record.revision == 0 || options_changed || services_changed {
                keep(app, &mut record, &before).await?;
            }
            Ok(answer("unchanged", &record))
        }
        Export::TooEarly(why) => Err(Failure::retryable(format!("export `{name}`"), why)),
        Export::Never(why) => Err(halted(app, &name, Failure::permanent(format!("export `{name}`"), why), invocation).await?),
        // ACM's event: the sweep takes it when its time has come.
        Export::Take { .. } if expected.is_some() && record.held_back(now).is_some() => {
            let opens = match record.held_back(now) {
                Some(Hold::Until(opens)) => opens.unix_timestamp(),
                _ => record.look_at,
            };
            if options_changed || services_changed || opens < record.look_at {
                record.look_at = record.look_at.min(opens);
                keep(app, &mut record, &before).await?;
            }
            Ok(answer("held-back", &record))
        }
        Export::Take { reason, .. } => {
            let reason = if has_moved { "another certificate of ACM has its tags now" } else { reason };
            let asked = Asked { held: &held, before: &before, rotation: None };
            let (record, installed) = take(app, record, &asked, reason, invocation).await?;
            Ok(match installed {
                Installed::Current => answer("exported", &record),
                // Staged: what is current, if anything, stays so until the trust stores hold its CA.
                Installed::Waiting(_) => answer("waiting-for-trust", &record),
            })
        }
    }
}

/// What is exported, and who asked for it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    held: &'a Held,
    before: &'a BTreeSet<ServiceName>,
    rotation: Option<&'a Rotation>,
}

/// Brings what ACM holds into the secret: begins an attempt or goes on with the one that was left.
async fn take(
    app: &App,
    mut record: Record,
    asked: &Asked<'_>,
    reason: &str,
    invocation: &Invocation,
) -> Result<(Record, Installed), Failure> {
    let (name, now) = (record.name.clone(), invocation.now());
    let replaces = record.current.as_ref().map(|pair| pair.version_id.clone());
    let mut attempt = match turn(&record, &invocation.id, reason, replaces.as_deref(), now) {
        Turn::Begin(attempt) | Turn::Resume(attempt) => attempt,
        Turn::Busy { until } => return Err(Failure::busy(format!("export `{name}`"), until)),
        Turn::Exhausted { until } => {
            let why =
                format!("{A_DAY} attempts began today, which is all for a day; see why, and try again after {}", date(until));
            return Err(halted(app, &name, Failure::permanent(format!("export `{name}`"), why), invocation).await?);
        }
    };
    if let Some(rotation) = asked.rotation {
        rotation.join(&mut attempt, asked.held.certificate_authority_arn.as_ref());
    }
    record.look_at = attempt.lease.unix_timestamp();
    record.take_up(attempt.clone());
    app.records.save(&mut record, asked.before).await?.or_retry(format_args!("the record of `{name}`"))?;
    match attempted(app, &mut record, &attempt, asked, invocation).await {
        Ok(installed) => {
            let event =
                installed.kind(asked.rotation).map(|kind| Event::about(kind, &app.records.settings.prefix, &record, reason));
            publish(&app.eventbridge, event.as_slice()).await?;
            Ok((record, installed))
        }
        Err(failure) if failure.is_permanent() => Err(halted(app, &name, failure, invocation).await?),
        Err(failure) => Err(failure),
    }
}

/// A certificate without a secret that is known: it is made, or taken over with the pair that is current in it.
async fn with_secret(app: &App, mut record: Record, held: &Held, invocation: &Invocation) -> Result<Record, Failure> {
    if let Export::Never(_) | Export::TooEarly(_) = export(held, None, None, invocation.now()) {
        return Ok(record);
    }
    let name = record.name.clone();
    if let Some(arn) = app.records.create(&name, &record.origin).await? {
        record.secret_arn = Some(arn);
        return Ok(record);
    }
    match app.records.agree(&mut record, invocation.now()).await?.0 {
        Secret::Good => Ok(record),
        Secret::Missing => {
            Err(Failure::retryable(format!("export `{name}`"), "its secret was there and is gone; it is made anew next time"))
        }
        Secret::PendingDeletion => {
            Err(Failure::permanent(format!("export `{name}`"), "its secret is scheduled for deletion; restore it"))
        }
        Secret::Unreadable(why) => Err(Failure::permanent(
            format!("export `{name}`"),
            format!("its secret holds something else ({why}); nothing was overwritten: choose another name, or mend the secret"),
        )),
    }
}

/// The record, when it is of this certificate. A name moves to another certificate of ACM only once the tag has moved.
async fn move_to(app: &App, mut record: Record, arn: &Arn, held: &Held) -> Result<Record, Failure> {
    let taken = |by: &str| {
        Failure::permanent(
            format!("export {arn}"),
            format!("the name `{}` is taken by {by}; change the tag everleaf:certificate", record.name),
        )
    };
    match &record.origin {
        Origin::Exported { certificate_arn } if certificate_arn == arn => {}
        Origin::Exported { certificate_arn } | Origin::Adopted { certificate_arn } => {
            let other = acm::managed(&app.acm, certificate_arn, &app.records.settings.prefix).await?;
            if other.is_some_and(|other| other.name == record.name) {
                return Err(taken(certificate_arn.as_str()));
            }
            record.origin = Origin::Exported { certificate_arn: held.certificate_arn.clone() };
            record.attempt = None;
        }
        Origin::Issued(_) | Origin::CallerKey(_) => return Err(taken("a certificate that was issued here")),
    }
    Ok(record)
}

/// The attempt itself: exported, opened, verified, made current.
async fn attempted(
    app: &App,
    record: &mut Record,
    attempt: &Attempt,
    asked: &Asked<'_>,
    invocation: &Invocation,
) -> Result<Installed, Failure> {
    let (name, Asked { held, rotation, .. }) = (record.name.clone(), *asked);
    let Some(serial) = &held.serial else {
        return Err(Failure::retryable(format!("export `{name}`"), "ACM shows no serial of it yet"));
    };
    // ACM has renewed since Secrets Manager's version got its pair: that is left to Secrets Manager.
    let overtaken = match &attempt.rotation {
        Some(version) => app.records.serial_of_version(&name, version).await?.is_some_and(|there| there != *serial),
        None => false,
    };
    let attempt = &Attempt { rotation: attempt.rotation.clone().filter(|_| !overtaken), ..attempt.clone() };
    let issuer = held.certificate_authority_arn.clone();
    let candidate = Candidate { attempt, wanted: Wanted::Exported { serial }, issuer, trust: &app.trust, rotation };
    if let Some(staged) = attempt.staged.clone().filter(|staged| staged.serial == *serial) {
        return app.records.install_staged(record, &candidate, staged.version_id, invocation.now()).await;
    }
    let material = acm_export::export(&app.acm, record, &held.certificate_arn, invocation).await?;
    let leaf = lifecycle::leaf::Leaf::from_pem(&material.certificate);
    if leaf.as_ref().is_ok_and(|leaf| leaf.serial != *serial) {
        let why = format!("ACM describes serial {serial} and gave another; it is renewing just now");
        return Err(Failure::retryable(format!("export `{name}`"), why));
    }
    app.records.install(record, &candidate, &material, invocation.now()).await
}

/// What Everleaf does with the certificate has changed, or the record is new; services that are new to it are seen to at once.
async fn keep(app: &App, record: &mut Record, before: &BTreeSet<ServiceName>) -> Result<(), Failure> {
    let name = record.name.clone();
    app.records.save(record, before).await?.or_retry(format_args!("the record of `{name}`"))?;
    app.records.tag(record).await?;
    if !record.options.services.is_subset(before) {
        let event = Event::about(Kind::CertificateCurrent, &app.records.settings.prefix, record, "services changed by tag");
        publish(&app.eventbridge, &[event]).await?;
    }
    Ok(())
}

/// What is permanent stands against the next attempt and is told to a person once a day.
async fn halted(app: &App, name: &CertificateName, failure: Failure, invocation: &Invocation) -> Result<Failure, Failure> {
    let event = app.records.halt(name, "export-failed", &failure, invocation).await?;
    publish(&app.eventbridge, event.as_slice()).await?;
    Ok(failure)
}

fn answer(outcome: &str, record: &Record) -> Value {
    let current = record.current.as_ref();
    json!({
        "outcome": outcome,
        "certificate": record.name,
        "secret_arn": record.secret_arn,
        "version_id": current.map(|pair| &pair.version_id),
        "serial_number": current.map(|pair| &pair.serial),
        "not_after": current.map(|pair| pair.not_after),
    })
}
