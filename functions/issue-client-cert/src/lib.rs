//! `issue-client-cert`: a certificate of AWS Private CA, from the request to the secret.
//!
//! ```text
//! request ─▶ every reason against it, or an order ─▶ attempt recorded ─▶ key and CSR durable ─▶ CA asked, its answer recorded
//!         ─▶ certificate fetched and verified ─▶ staged ─▶ current ─▶ recorded ─▶ `Certificate Current`
//! ```
//!
//! Whatever stops it, the same request or the next sweep goes on from the last step that was reached. A pair of a CA that the trust
//! stores do not hold yet waits, staged, and `Trust Due` asks for them.

pub mod answer;
mod csr;
mod import;
mod pca;
mod retire;
mod revoke;
mod rotate;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_acm::Client as Acm;
use aws_sdk_eventbridge::Client as EventBridge;
use lifecycle::attempt::{Attempt, Staged, TOKEN_LIFE, Turn, turn};
use lifecycle::events::{Detail, Event, Kind};
use lifecycle::issuance::{self, CallersCsr, Order, Policy, Verdict};
use lifecycle::leaf::KeyAlgorithm;
use lifecycle::names::{Arn, AuthorityArn, CertificateName};
use lifecycle::record::{Origin, Record, Specification};
use lifecycle::trust::Trust;
use lifecycle::{date, renewal};
use material::{Material, Wanted};
use records::install::{Candidate, Installed};
use records::rotation::Rotation;
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Invocation, Seldom, Trigger, publish, seldom};
use serde_json::Value;
use time::OffsetDateTime;

use crate::answer::{Answer, Outcome};
use crate::pca::{FIRST_LOOK, PrivateCa};

pub struct App {
    pub records: Records,
    pub pca: PrivateCa,
    pub acm: Seldom<Acm>,
    pub eventbridge: EventBridge,
    pub policy: Policy,
    pub trust: Trust,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &aws_config::SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_writer(&mut vars);
        let trust = records::trust::settings(&mut vars);
        let policy = policy(&mut vars, &trust);
        let (settings, policy) = vars.finish(settings.zip(policy))?;
        Ok(Self {
            records: Records::new(sdk, settings),
            pca: PrivateCa::new(aws_sdk_acmpca::Client::new(sdk)),
            acm: seldom(sdk, |sdk| acm::client(sdk, acm::PATIENCE)),
            eventbridge: EventBridge::new(sdk),
            policy,
            trust,
        })
    }
}

fn policy(vars: &mut Vars<'_>, trust: &Trust) -> Option<Policy> {
    let key_algorithms: BTreeSet<KeyAlgorithm> = vars.list("EVERLEAF_ALLOWED_KEY_ALGORITHMS").into_iter().collect();
    let longest: Option<u64> = vars.required("EVERLEAF_MAX_VALIDITY_DAYS");
    let sweep: Option<u64> = vars.required("EVERLEAF_SWEEP_MINUTES");
    Some(Policy {
        issuing_ca: vars.optional::<AuthorityArn>("EVERLEAF_ISSUING_CA").map(|ca| ca.0),
        other_cas: vars.list::<AuthorityArn>("EVERLEAF_ALLOWED_CAS").into_iter().map(|ca| ca.0).collect(),
        successors: trust.successors.clone(),
        names: vars.list("EVERLEAF_ALLOWED_NAMES"),
        trust_domains: vars.list("EVERLEAF_ALLOWED_TRUST_DOMAINS").into_iter().collect(),
        key_algorithms: if key_algorithms.is_empty() { KeyAlgorithm::ALL.into() } else { key_algorithms },
        longest_validity: Duration::from_secs(longest? * 24 * 60 * 60),
        sweep_interval: Duration::from_secs(sweep? * 60),
    })
}

pub async fn handle(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let answer = match Trigger::parse(event)? {
        Trigger::ByHand(request) if request.get("Step").is_some() => return rotate::step(app, request, invocation).await,
        Trigger::ByHand(request) if request.get("retire").is_some() => return retire::by_hand(app, &request, invocation).await,
        Trigger::ByHand(request) if request.get("revoke").is_some() => return revoke::by_hand(app, &request, invocation).await,
        Trigger::ByHand(request) => by_hand(app, &request, invocation).await?,
        Trigger::Event { detail_type, detail, .. } if detail_type == Kind::CertificateDue.detail_type() => {
            let detail: Detail = Trigger::body(detail)?;
            let name = Trigger::body(Value::from(detail.certificate.clone()))?;
            due(app, &name, detail, invocation).await?
        }
        Trigger::Event { detail_type, .. } => {
            return Err(Failure::permanent(
                "take the event",
                format!("`{detail_type}` is not for this function; mend the rule that sent it"),
            ));
        }
    };
    answer.into_json()
}

/// A request of a person or a program.
async fn by_hand(app: &App, request: &Value, invocation: &Invocation) -> Result<Answer, Failure> {
    let now = invocation.now();
    let refused = |refusal| Failure::permanent("accept the request", refusal);
    let order = issuance::order(request, &app.policy, now).map_err(refused)?;
    let mut record = app.records.find(&order.name, now).await?;
    let there = record.as_ref().and_then(Record::acm_certificate).filter(|_| order.options.import_to_acm);
    let adopted = record.as_ref().is_some_and(Record::is_adopted);
    if let Some(arn) = order.import_into.as_ref().or(there).filter(|arn| adopted || there != Some(arn)) {
        import::admits(app, &order, arn).await?;
    }
    if record.is_none() {
        app.pca.admits(&order.specification, now).await?;
        if !order.dry_run {
            record = create(app, &order, None, now).await?;
        }
    }
    let is_gone = record.is_some() && order.replace && !adopted && app.records.describe(&order.name).await?.is_none();
    if is_gone && let Some(known) = &mut record {
        known.forget_secret();
    }
    let verdict = issuance::verdict(&order, record.as_ref(), &app.policy, now).map_err(refused)?;
    // What the CA has issued already is not asked for again.
    let is_there = record.as_ref().and_then(|record| record.attempt.as_ref()).is_some_and(|it| it.certificate_arn.is_some());
    if let (Verdict::Issue { .. }, false) = (&verdict, is_there) {
        app.pca.admits(&order.specification, now).await?;
    }
    if let Some(known) = record.as_mut().filter(|_| is_gone && !order.dry_run) {
        // First: a new secret would not agree with what is recorded.
        app.records.update(known).await?;
        record = create(app, &order, record, now).await?;
    }
    match verdict {
        Verdict::Issue { reason } if order.dry_run => Ok(Answer::planned(&order, now, reason)),
        Verdict::Issue { reason } => fulfil(app, record, order, reason, invocation).await,
        Verdict::Keep { held } if !order.dry_run => {
            let Some(record) = record else { return Err(Failure::permanent("keep the certificate", "there is no record of it")) };
            Ok(Answer { reason: held, ..keep(app, record, order, invocation).await? })
        }
        Verdict::Keep { held } | Verdict::Unchanged { held } => {
            let answer = match record {
                Some(record) if order.dry_run => as_it_is(app, &record).await?,
                Some(record) => unchanged(app, record, invocation).await?,
                None => return Err(Failure::permanent("answer", "there is no record of the certificate")),
            };
            Ok(Answer { reason: held, ..answer })
        }
    }
}

/// The secret of what is ordered, or the record that the table has lost: then the secret is there already.
async fn create(app: &App, order: &Order, record: Option<Record>, now: OffsetDateTime) -> Result<Option<Record>, Failure> {
    match app.records.create(&order.name, &origin(order, record.as_ref())).await? {
        Some(_) => Ok(record),
        None => Ok(app.records.rebuild(&order.name, now).await?.or(record)),
    }
}

/// Issues what was ordered.
async fn fulfil(
    app: &App,
    record: Option<Record>,
    order: Order,
    reason: &str,
    invocation: &Invocation,
) -> Result<Answer, Failure> {
    let record = match record {
        // What was imported by hand has no secret yet.
        Some(adopted) if adopted.is_adopted() => create(app, &order, Some(adopted), invocation.now()).await?,
        record => record,
    };
    let origin = origin(&order, record.as_ref());
    let before = record.as_ref().map(|record| record.options.services.clone()).unwrap_or_default();
    let mut record =
        record.unwrap_or_else(|| Record::new(order.name.clone(), origin.clone(), order.options.clone(), invocation.now()));
    change(app, &mut record, origin, &order, invocation).await?;
    record.end = order.end.map(Into::into);
    let asked = Asked { csr: order.csr.as_ref(), ..Asked::default() };
    let issued = issue(app, record, before, asked, reason, invocation).await?;
    issued.answer(app, invocation).await
}

/// Replaces a certificate that was imported into ACM by hand, where that is still to be done: its key is lost with it. One that has
/// lost its tag, or whose name another one has taken, is left alone.
async fn adopt(app: &App, record: Record, arn: &Arn, reason: &str, invocation: &Invocation) -> Result<Answer, Failure> {
    let name = record.name.clone();
    let managed = acm::managed(&app.acm, arn, &app.records.settings.prefix).await?;
    let Some(managed) = managed.filter(|managed| managed.name == name && record.current.is_none()) else {
        return unchanged(app, record, invocation).await;
    };
    let adopted = async {
        let as_tagged = Record { options: managed.options, ..record.clone() };
        let order = import::adoption(app, &as_tagged, arn, invocation.now()).await?;
        if let Some(order) = &order {
            app.pca.admits(&order.specification, invocation.now()).await?;
        }
        Ok(order)
    };
    match adopted.await {
        Ok(Some(order)) => fulfil(app, Some(record), order, reason, invocation).await,
        Ok(None) => unchanged(app, record, invocation).await,
        Err(failure) => Err(halted(app, &name, failure, invocation).await?),
    }
}

/// What the sweep found due. It is looked at anew: the event may be late, or have come twice.
async fn due(app: &App, name: &CertificateName, detail: Detail, invocation: &Invocation) -> Result<Answer, Failure> {
    let unknown = || Failure::permanent(format!("renew `{name}`"), "neither the table nor a secret knows it; issue it by hand");
    let record = app.records.find(name, invocation.now()).await?.ok_or_else(unknown)?;
    if !detail.keeps_pair {
        return renew(app, record, detail.reason.as_deref().unwrap_or("due"), invocation).await;
    }
    // A CA that refuses the next pair is not asked for it again because of that.
    let (record, refused) = revoke::due(app, record, invocation).await?;
    let answer = unchanged(app, record, invocation).await;
    refused.map_or(answer, Err)
}

/// What is due of a certificate.
async fn renew(app: &App, record: Record, reason: &str, invocation: &Invocation) -> Result<Answer, Failure> {
    let (name, now) = (record.name.clone(), invocation.now());
    if let Origin::Adopted { certificate_arn } = &record.origin {
        let arn = certificate_arn.clone();
        return adopt(app, record, &arn, reason, invocation).await;
    }
    let (mut record, refused) = revoke::due(app, record, invocation).await?;
    to_successor(app, &mut record, invocation);
    let goes_on = match &record.origin {
        Origin::Issued(_) => renewal::is_due(&record, app.policy.sweep_interval, now) && record.held_back(now).is_none(),
        Origin::CallerKey(_) => record.attempt.as_ref().is_some_and(|attempt| attempt.staged.is_some()),
        Origin::Exported { .. } | Origin::Adopted { .. } => false,
    };
    let refusal = |why: &str| Err(Failure::permanent(format!("renew `{name}`"), why));
    let answer = match &record.origin {
        _ if goes_on => {
            let before = record.options.services.clone();
            issue(app, record, before, Asked::default(), reason, invocation).await?.answer(app, invocation).await
        }
        // The revocations are what was due.
        _ if !record.revocations.is_empty() => unchanged(app, record, invocation).await,
        Origin::CallerKey(_) => refusal("its key is its caller's; send a CSR again"),
        Origin::Exported { .. } => refusal("it is ACM's; let ACM renew it"),
        Origin::Issued(_) | Origin::Adopted { .. } => unchanged(app, record, invocation).await,
    };
    refused.map_or(answer, Err)
}

/// A certificate of a retired CA gets its next one from the successor; what was under way at the retired one comes to nothing.
fn to_successor(app: &App, record: &mut Record, invocation: &Invocation) {
    let Origin::Issued(wanted) = &record.origin else { return };
    let Some(successor) = app.trust.successors.of(&wanted.certificate_authority_arn) else { return };
    let wanted = Specification { certificate_authority_arn: successor.clone(), ..wanted.clone() };
    if !matches!(turn(record, &invocation.id, "", None, invocation.now()), Turn::Busy { .. }) {
        (record.origin, record.attempt) = (Origin::Issued(wanted), None);
    }
}

/// What was ordered. An order that names its end is for a shorter lifetime each time it is repeated; one for the same end that has
/// not come to a pair yet keeps the one it began with.
fn origin(order: &Order, record: Option<&Record>) -> Origin {
    let mut wanted = order.specification.clone();
    let before = record.and_then(|record| record.end_asked_for().zip(record.specification()));
    if let (Some(end), Some((before, has))) = (order.end, before)
        && (end - *before).abs() < time::Duration::minutes(1)
    {
        wanted.lifetime = has.lifetime;
    }
    match order.csr {
        Some(_) => Origin::CallerKey(wanted),
        None => Origin::Issued(wanted),
    }
}

/// Makes the record want what was ordered. An attempt at something else is over, unless somebody is at it right now.
async fn change(app: &App, record: &mut Record, origin: Origin, order: &Order, invocation: &Invocation) -> Result<(), Failure> {
    let Order { options, import_into, csr, .. } = order;
    let adopted = record.acm_certificate().filter(|_| record.is_adopted()).cloned();
    // What an older version began does not say its key.
    let began_with = record.attempt.as_ref().and_then(|attempt| attempt.callers_key.as_ref());
    let same_key = began_with.is_none_or(|key| csr.as_ref().is_some_and(|csr| csr.key_fingerprint == *key));
    let same = record.origin == origin && record.options.key_format == options.key_format && same_key;
    if !same && let Turn::Busy { until } = turn(record, &invocation.id, "", None, invocation.now()) {
        return Err(busy(&record.name, until));
    }
    if let Origin::Exported { certificate_arn } = &record.origin {
        // Else it would be exported again, once its name is free.
        import::untag(app, &record.name, certificate_arn).await?;
    }
    if !same {
        (record.attempt, record.origin) = (None, origin);
    }
    record.options = options.clone();
    import::move_to(app, record, import_into.clone().or(adopted), invocation).await
}

fn busy(name: &CertificateName, until: OffsetDateTime) -> Failure {
    Failure::retryable(format!("issue `{name}`"), format!("another invocation is at it; ask again after {}", date(until)))
}

/// What was issued, and what a caller with a key of its own gets to see of it.
struct Issued {
    record: Record,
    installed: Installed,
    /// Certificate and chain, PEM, for a caller's key.
    public: Option<(String, String)>,
}

impl Issued {
    /// The answer, once ACM holds the pair as well where it is to.
    async fn answer(mut self, app: &App, invocation: &Invocation) -> Result<Answer, Failure> {
        match self.installed {
            Installed::Current => {
                import::see_to(app, &mut self.record, invocation).await?;
                Answer::of(Outcome::Issued, &self.record, self.public)
            }
            Installed::Waiting(stores) => Answer::waiting(&self.record, &stores),
        }
    }
}

/// What only whoever asks can say of a new pair.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    csr: Option<&'a CallersCsr>,
    rotation: Option<&'a Rotation>,
}

/// Brings a new pair into the secret: begins an attempt or goes on with the one that was left.
async fn issue(
    app: &App,
    mut record: Record,
    before: BTreeSet<lifecycle::names::ServiceName>,
    asked: Asked<'_>,
    reason: &str,
    invocation: &Invocation,
) -> Result<Issued, Failure> {
    let (name, now) = (record.name.clone(), invocation.now());
    let replaces = record.current.as_ref().map(|pair| pair.version_id.clone());
    let mut attempt = match turn(&record, &invocation.id, reason, replaces.as_deref(), now) {
        Turn::Begin(_) if asked.csr.is_none() && matches!(record.origin, Origin::CallerKey(_)) => {
            let why = "what waited came to nothing, and its key is its caller's; send a CSR again";
            return Err(halted(app, &name, Failure::permanent(format!("issue `{name}`"), why), invocation).await?);
        }
        Turn::Begin(attempt) | Turn::Resume(attempt) => attempt,
        Turn::Busy { until } => return Err(busy(&name, until)),
        Turn::Exhausted { until } => {
            let why = format!(
                "{} attempts began today, which is all for a day; see why, and ask again after {}",
                lifecycle::attempt::A_DAY,
                date(until)
            );
            return Err(Failure::permanent(format!("issue `{name}`"), why));
        }
    };
    attempt.end = attempt.end.or_else(|| record.next_end(app.policy.sweep_interval, now));
    attempt.callers_key = attempt.callers_key.or_else(|| asked.csr.map(|csr| csr.key_fingerprint.clone()));
    if let Some(rotation) = asked.rotation {
        rotation.join(&mut attempt, record.specification().map(|wanted| &wanted.certificate_authority_arn));
    }
    record.look_at = attempt.lease.unix_timestamp();
    record.take_up(attempt);
    app.records.save(&mut record, &before).await?.or_retry(format_args!("the record of `{name}`"))?;
    match attempted(app, &mut record, &asked, invocation).await {
        Ok((installed, public)) => {
            let event =
                installed.kind(asked.rotation).map(|kind| Event::about(kind, &app.records.settings.prefix, &record, reason));
            publish(&app.eventbridge, event.as_slice()).await?;
            Ok(Issued { record, installed, public })
        }
        Err(failure) => Err(halted(app, &name, failure, invocation).await?),
    }
}

/// What is permanent stands against the next attempt and is told to a person.
async fn halted(app: &App, name: &CertificateName, failure: Failure, invocation: &Invocation) -> Result<Failure, Failure> {
    if failure.is_permanent() {
        let event = app.records.halt(name, "issue-failed", &failure, invocation).await?;
        publish(&app.eventbridge, event.as_slice()).await?;
    }
    Ok(failure)
}

/// The attempt itself. Each step meets what an earlier try of it left.
async fn attempted(
    app: &App,
    record: &mut Record,
    asked: &Asked<'_>,
    invocation: &Invocation,
) -> Result<(Installed, Option<(String, String)>), Failure> {
    let (name, Asked { csr, rotation, .. }) = (record.name.clone(), *asked);
    let (Some(mut attempt), Some(wanted)) = (record.attempt.clone(), record.specification().cloned()) else {
        return Err(Failure::permanent(
            format!("issue `{name}`"),
            "its record has no attempt or is not of a certificate issued here",
        ));
    };
    let not_after = attempt.not_after(&wanted);
    let issuer = wanted.certificate_authority_arn.clone();
    let wants =
        Wanted::Issued { specification: &wanted, not_after, key_fingerprint: csr.map(|csr| csr.key_fingerprint.as_str()) };
    if let Some(Staged { version_id, .. }) = attempt.staged.clone() {
        let candidate = Candidate { attempt: &attempt, wanted: wants, issuer: Some(issuer), trust: &app.trust, rotation };
        let installed = app.records.install_staged(record, &candidate, version_id, invocation.now()).await?;
        let public = if csr.is_some() { public(app, record).await? } else { None };
        return Ok((installed, public));
    }
    let (key, pem) = match csr {
        Some(csr) => (None, csr.pem.clone()),
        None => {
            let waiting = csr::durable_key(&app.records, record, &wanted, &attempt).await?;
            (Some(waiting.key), waiting.csr)
        }
    };
    let issued = match attempt.certificate_arn.clone() {
        Some(arn) => app.pca.fetch(&name, &issuer, &arn, Duration::ZERO, invocation).await?,
        None => {
            if invocation.now() >= *attempt.started + TOKEN_LIFE {
                // Making the key took so long that the CA may have forgotten the token of an earlier try.
                return Err(Failure::retryable(
                    format!("issue `{name}`"),
                    "this attempt is too old; the next try begins another",
                ));
            }
            // Another account that shares the CA may have a stack of this prefix and a certificate of this name. Callers may write
            // the CSR of their key anew; what waits in the secret stays.
            let request = csr.map_or(&pem, |csr| &csr.key_fingerprint);
            let token = attempt.token(&app.records.settings.prefix, &name, &format!("issue {request}"));
            let arn = app.pca.issue(&name, &wanted, &pem, not_after, &token).await?;
            attempt.certificate_arn = Some(arn.clone());
            record.attempt = Some(attempt.clone());
            // Recorded while the CA is at it: to look for a certificate changes nothing.
            let fetched = app.pca.fetch(&name, &issuer, &arn, FIRST_LOOK, invocation);
            tokio::try_join!(app.records.update(record), fetched)?.1
        }
    };
    let Some((certificate, certificate_chain)) = issued else { return Err(dead(app, record, &attempt, invocation.now()).await?) };
    let public = csr.map(|_| (certificate.clone(), certificate_chain.clone()));
    let material = Material { certificate, certificate_chain, key };
    let candidate = Candidate { attempt: &attempt, wanted: wants, issuer: Some(issuer), trust: &app.trust, rotation };
    let installed = app.records.install(record, &candidate, &material, invocation.now()).await?;
    Ok((installed, public))
}

/// The CA took the request and could not serve it: this attempt can come to nothing, the next one may.
async fn dead(app: &App, record: &mut Record, attempt: &Attempt, now: OffsetDateTime) -> Result<Failure, Failure> {
    record.attempt = Some(attempt.clone().in_vain(now));
    app.records.update(record).await?;
    let why = format!("the CA failed to issue what attempt {} asked for; the next try begins another", attempt.number);
    Ok(Failure::retryable(format!("issue `{}`", record.name), why))
}

/// Only what Everleaf does with the certificate changes; services that are new to it are seen to at once.
async fn keep(app: &App, mut record: Record, order: Order, invocation: &Invocation) -> Result<Answer, Failure> {
    let (before, name) = (record.options.services.clone(), record.name.clone());
    record.options = order.options;
    import::move_to(app, &mut record, order.import_into, invocation).await?;
    app.records.save(&mut record, &before).await?.or_retry(format_args!("the record of `{name}`"))?;
    app.records.tag(&record).await?;
    if !record.options.services.is_subset(&before) {
        let event = Event::about(Kind::CertificateCurrent, &app.records.settings.prefix, &record, "services changed by request");
        publish(&app.eventbridge, &[event]).await?;
    }
    unchanged(app, record, invocation).await
}

/// The answer for what exists already, once ACM holds it as well where it is to.
async fn unchanged(app: &App, mut record: Record, invocation: &Invocation) -> Result<Answer, Failure> {
    import::see_to(app, &mut record, invocation).await?;
    as_it_is(app, &record).await
}

/// A caller with a key of its own gets its certificate again.
async fn as_it_is(app: &App, record: &Record) -> Result<Answer, Failure> {
    let public = match &record.origin {
        Origin::CallerKey(_) => public(app, record).await?,
        _ => None,
    };
    Answer::of(Outcome::Unchanged, record, public)
}

/// The current certificate and its chain, PEM.
async fn public(app: &App, record: &Record) -> Result<Option<(String, String)>, Failure> {
    let Some(current) = &record.current else { return Ok(None) };
    let text = app.records.value_of_version(&record.name, &current.version_id).await?;
    let material = text.map(|text| Material::read(&text)).transpose();
    let material = material.map_err(|why| Failure::permanent(format!("read the secret of `{}`", record.name), why))?.flatten();
    Ok(material.map(|material| (material.certificate, material.certificate_chain)))
}
