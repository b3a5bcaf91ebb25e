//! One look at one certificate: gather, decide, do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use acm::Managed;
use aws_sdk_acm::Client as Acm;
use lifecycle::events::{Event, Kind};
use lifecycle::export::Held;
use lifecycle::names::{Arn, CertificateName, ServiceName, StoreName};
use lifecycle::pace::{self, Asked};
use lifecycle::record::{Origin, Record, RenewalAsked};
use lifecycle::renewal::{Facts, Plan, Rollover, Step, late, plan};
use lifecycle::rollout::{Binding, BindingState};
use lifecycle::trust::Stores;
use records::table::Saved;
use runtime::{Failure, Invocation, publish};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::App;

/// What came of a look.
pub(crate) struct Looked {
    pub(crate) certificate: CertificateName,
    /// What was done, in words.
    pub(crate) steps: Vec<String>,
    pub(crate) look_at: OffsetDateTime,
    /// How long the account's quotas take to grant what this look led to.
    pub(crate) takes: Duration,
    pub(crate) asked: Option<Asked>,
}

impl Looked {
    fn unchanged(name: &CertificateName, look_at: OffsetDateTime) -> Self {
        Self { certificate: name.clone(), steps: Vec::new(), look_at, takes: Duration::ZERO, asked: None }
    }

    pub(crate) fn into_json(self) -> Value {
        let outcome = if self.steps.is_empty() { "unchanged" } else { "acted" };
        json!({"outcome": outcome, "certificate": self.certificate, "steps": self.steps, "look_at": lifecycle::date(self.look_at)})
    }

    pub(crate) fn into_plan(self) -> Value {
        json!({"certificate": self.certificate, "steps": self.steps, "look_at": lifecycle::date(self.look_at)})
    }
}

/// What the looks of one invocation share: how much it may still ask for, taken from the hour's counter only when something is to
/// be asked for; the trust stores, read when the first retired CA is met; and what was read before, for all of them at once.
pub(crate) struct Shared {
    /// What stands in the table of services.
    pub(crate) services: BTreeMap<ServiceName, Binding>,
    /// What the tags in ACM say of a certificate.
    managed: Option<(Arn, Managed)>,
    stores: Option<Stores>,
    /// The CAs that `Trust Due` was published for: once is enough for all certificates.
    trust_asked: BTreeSet<Arn>,
    /// `None`: no limit, for what a person or ACM asks for.
    limit: Option<u32>,
    in_hand: u32,
    /// When that was taken: each hour has its own.
    taken: Option<OffsetDateTime>,
    /// What the counter had when it was last asked.
    left: u32,
    used_up: bool,
}

/// Taken from the counter at once, so that a busy sweep does not ask it for each certificate.
const HANDFUL: u32 = 10;

impl Shared {
    pub(crate) fn unlimited() -> Self {
        Self {
            services: BTreeMap::new(),
            managed: None,
            stores: None,
            trust_asked: BTreeSet::new(),
            limit: None,
            in_hand: 0,
            taken: None,
            left: 0,
            used_up: false,
        }
    }

    pub(crate) fn of_this_hour(limit: u32) -> Self {
        Self { limit: Some(limit), left: limit, ..Self::unlimited() }
    }

    /// For a certificate of ACM whose tags are known.
    pub(crate) fn tagged(arn: Arn, managed: Managed) -> Self {
        Self { managed: Some((arn, managed)), ..Self::unlimited() }
    }

    async fn take(&mut self, app: &App, now: OffsetDateTime) -> Result<bool, Failure> {
        let Some(limit) = self.limit else { return Ok(true) };
        if self.in_hand == 0 && !self.used_up {
            (self.in_hand, self.left) = app.records.take_from_budget(HANDFUL, limit, now).await?;
            self.taken = Some(now);
            self.used_up = self.in_hand == 0;
        }
        let granted = self.in_hand > 0;
        self.in_hand = self.in_hand.saturating_sub(1);
        Ok(granted)
    }

    /// What was granted was not asked for.
    fn give_back(&mut self) {
        self.in_hand += u32::from(self.limit.is_some());
    }

    /// What was taken and never asked for is there for the next sweep.
    pub(crate) async fn put_back(&mut self, app: &App) -> Result<(), Failure> {
        let Some(taken) = self.taken.filter(|_| self.in_hand > 0) else { return Ok(()) };
        let unused = std::mem::take(&mut self.in_hand);
        self.left += unused;
        app.records.put_back_into_budget(unused, taken).await
    }

    /// What this sweep left of the hour's budget: all of it, as far as it knows, when it asked for nothing.
    pub(crate) fn budget_left(&self) -> u32 {
        self.left + self.in_hand
    }

    /// Tells a person, once a day, that more was due in an hour than the budget allows.
    pub(crate) async fn tell(&self, app: &App, now: OffsetDateTime) -> Result<(), Failure> {
        const CODE: &str = "budget-spent";
        let Some(limit) = self.limit.filter(|_| self.used_up) else { return Ok(()) };
        if !app.records.first_today(CODE, now).await? {
            return Ok(());
        }
        let reason = format!(
            "{CODE}: more than {limit} certificates are due in this hour; the rest follow hour by hour, and what is late at once; raise the parameter HourlyBudget where that is too slow"
        );
        publish(&app.eventbridge, &[Event::general(Kind::ActionRequired, &app.records.settings.prefix, reason)]).await
    }

    /// The rollover that a certificate of this CA is part of, when the CA is retired.
    async fn rollover(&mut self, app: &App, authority: &Arn) -> Result<Option<Rollover>, Failure> {
        let Some(successor) = app.trust.successors.of(authority) else { return Ok(None) };
        let missing = self.missing(app, successor).await?;
        Ok(Some(Rollover { retired: authority.clone(), successor: successor.clone(), missing }))
    }

    /// The trust stores that declare this CA and do not hold it.
    async fn missing(&mut self, app: &App, authority: &Arn) -> Result<BTreeSet<StoreName>, Failure> {
        if self.stores.is_none() {
            self.stores = app.records.stores().await?;
        }
        Ok(app.trust.missing(self.stores.get_or_insert_default(), authority))
    }
}

/// As [`look`]. A permanent failure is one certificate's own: a person is told once a day, and only then does the sweep fail by it.
pub(crate) async fn look_in_sweep(
    app: &App,
    record: Record,
    shared: &mut Shared,
    invocation: &Invocation,
) -> Result<Looked, Failure> {
    let name = record.name.clone();
    match look(app, record, None, shared, invocation).await {
        Err(failure) if failure.is_permanent() => {
            let now = invocation.now();
            let Some(mut record) = app.records.load(&name).await? else { return Err(failure) };
            let Some(event) = app.records.tell(&mut record, "look-failed", &failure.to_string(), now) else {
                return Ok(Looked::unchanged(&name, now));
            };
            let services = record.options.services.clone();
            if app.records.save(&mut record, &services).await? == Saved::Done {
                publish(&app.eventbridge, &[event]).await?;
            }
            Err(failure)
        }
        looked => looked,
    }
}

/// Looks at a certificate, decides, and lets it happen. `acm_says` is the reason ACM gave for a renewal that did not succeed.
pub(crate) async fn look(
    app: &App,
    mut record: Record,
    acm_says: Option<&str>,
    shared: &mut Shared,
    invocation: &Invocation,
) -> Result<Looked, Failure> {
    let now = invocation.now();
    if let Some(until) = record.busy_until(now) {
        return Ok(Looked::unchanged(&record.name, until));
    }
    let found = record.clone();
    let facts = gather(app, &mut record, shared, now).await?;
    let mut plan = plan(&record, &facts, app.sweep_interval, now);
    if let Some(reason) = acm_says {
        // Who is told why need not be told that it takes long.
        plan.steps.retain(|step| !matches!(step, Step::Tell { code: "renewal-late", .. }));
        plan.steps
            .push(Step::Tell { code: "acm-renewal-failed", message: format!("ACM could not renew `{}`: {reason}", record.name) });
    }
    let asks = plan.steps.iter().any(|step| matches!(step, Step::Issue { .. } | Step::Export { .. } | Step::Renew { .. }));
    // What is late to be replaced, or compromised, is not kept waiting by what is not.
    let is_urgent = record.is_compromised() || record.current.as_ref().is_some_and(|pair| late(&record, pair) <= now);
    if asks && !shared.take(app, now).await? && !is_urgent {
        // Not recorded: it stays due, and comes first in the next hour.
        return Ok(Looked::unchanged(&record.name, now));
    }
    let (takes, asked) = (pace::time_for(&record, &plan.steps), Asked::of(&record, &plan.steps, now));
    // A service whose item is gone, or has lost the certificate, is bound to it anew.
    let bound = found.options.services.iter().filter(|service| facts.services.contains_key(service)).cloned().collect();
    let looked = carry_out(app, record, &found, bound, plan, shared, now).await;
    if asks && looked.as_ref().is_err_and(Failure::is_throttled) {
        shared.give_back();
    }
    Ok(Looked { takes, asked, ..looked? })
}

/// What [`look`] would do.
pub(crate) async fn foresee(app: &App, mut record: Record, shared: &mut Shared, now: OffsetDateTime) -> Result<Looked, Failure> {
    if let Some(until) = record.busy_until(now) {
        return Ok(Looked::unchanged(&record.name, until));
    }
    let facts = gather(app, &mut record, shared, now).await?;
    let Plan { steps, look_at } = plan(&record, &facts, app.sweep_interval, now);
    let is_said = |step: &&Step| !matches!(step, Step::Tell { code, .. } if !record.may_tell(code, now));
    let steps = steps.iter().filter(is_said).map(ToString::to_string).collect();
    Ok(Looked { steps, ..Looked::unchanged(&record.name, look_at) })
}

/// What AWS shows of the certificate. The record is made to agree with its secret and with the tags in ACM on the way.
async fn gather(app: &App, record: &mut Record, shared: &mut Shared, now: OffsetDateTime) -> Result<Facts, Failure> {
    let before = record.clone();
    let ((secret, state), (managed, held), services) =
        tokio::try_join!(app.records.agree(record, now), in_acm(app, &before, shared), states(app, &before, shared))?;
    let replicas = state.as_ref().map_or_else(BTreeMap::new, |state| app.records.faulty_replicas(state));
    let tags = state.map_or_else(BTreeMap::new, |state| state.tags);
    let managed = managed.filter(|managed| managed.name == record.name);
    let untagged = managed.is_none() && matches!(record.origin, Origin::Exported { .. });
    let held = held.filter(|_| managed.is_some() || !record.is_adopted());
    if let Some(managed) = managed {
        // A service that is new by it is not known in this look, and is seen to.
        record.options = managed.options;
    }
    if let (Origin::Exported { .. } | Origin::Adopted { .. }, Some(held)) = (&record.origin, &held) {
        record.contents = Some(held.contents());
    }
    match record.origin.clone() {
        Origin::Exported { certificate_arn } if record.current.is_none() && held.as_ref().is_some_and(Held::is_imported) => {
            record.origin = Origin::Adopted { certificate_arn };
        }
        Origin::Issued(_) | Origin::CallerKey(_) if record.acm_certificate().is_some() => record.found_in_acm(held.as_ref()),
        _ => {}
    }
    let of_acm = || held.as_ref().and_then(|held| held.certificate_authority_arn.as_ref());
    let asked = || record.specification().map(|wanted| &wanted.certificate_authority_arn);
    let rollover = match record.current.as_ref().and_then(|pair| pair.issuer.as_ref()).or_else(asked).or_else(of_acm) {
        Some(authority) => shared.rollover(app, authority).await?,
        None => None,
    };
    let waits_for = match record.attempt.as_ref().and_then(|attempt| attempt.staged.as_ref()?.issuer.as_ref()) {
        // No store takes up a retired CA: its pair is given up for one of the successor.
        Some(issuer) if app.trust.successors.of(issuer).is_none() => shared.missing(app, issuer).await?,
        _ => BTreeSet::new(),
    };
    Ok(Facts {
        secret,
        replicas,
        astray: (!app.records.is_tagged(record, &tags)).then_some(tags),
        held,
        untagged,
        rollover,
        waits_for,
        services,
    })
}

/// What the tags of a certificate in ACM say, where they decide anything, and how ACM describes it.
async fn in_acm(app: &App, record: &Record, shared: &Shared) -> Result<(Option<Managed>, Option<Held>), Failure> {
    let tags = async |arn| match &shared.managed {
        Some((known, managed)) if known == arn => Ok(Some(managed.clone())),
        _ => acm::managed(&app.acm, arn, &app.records.settings.prefix).await,
    };
    match (&record.origin, record.acm_certificate()) {
        (Origin::Exported { certificate_arn } | Origin::Adopted { certificate_arn }, _) => {
            tokio::try_join!(tags(certificate_arn), acm::describe(&app.acm, certificate_arn))
        }
        (_, Some(holds)) => Ok((None, acm::describe(&app.acm, holds).await?)),
        (_, None) => Ok((None, None)),
    }
}

/// What stands in the table of its services. One that knows nothing of the certificate is left out.
async fn states(app: &App, record: &Record, shared: &Shared) -> Result<BTreeMap<ServiceName, BindingState>, Failure> {
    let wanted = &record.options.services;
    let known = wanted.iter().filter_map(|service| Some((service.clone(), shared.services.get(service)?.clone())));
    let mut known: BTreeMap<_, _> = known.collect();
    if known.len() < wanted.len() {
        known = app.records.bindings(wanted).await?;
    }
    known.retain(|_, binding| binding.certificates.contains(&record.name));
    Ok(known.into_iter().map(|(service, binding)| (service, binding.state)).collect())
}

/// Records first, so that nobody decides the same again; then asks. What is lost between the two is asked for at the next look.
/// Before both come the secret's tags, which would be written over those of the next pair once that is asked for, and its replicas:
/// nothing is decided by them, and what is refused there keeps nothing else from being done.
async fn carry_out(
    app: &App,
    mut record: Record,
    found: &Record,
    bound: BTreeSet<ServiceName>,
    plan: Plan,
    shared: &mut Shared,
    now: OffsetDateTime,
) -> Result<Looked, Failure> {
    let Plan { steps, look_at } = plan;
    let prefix = &app.records.settings.prefix;
    let mut looked = Looked::unchanged(&record.name, look_at);
    let (mut events, mut renew, mut refused) = (Vec::new(), None, None);
    let mut is_done = |done: Result<(), Failure>| match done {
        Err(failure) if failure.is_permanent() => {
            refused.get_or_insert(failure);
            Ok(false)
        }
        done => done.map(|()| true),
    };
    for step in steps {
        match step {
            Step::Issue { reason } => events.push(Event::about(Kind::CertificateDue, prefix, &record, reason)),
            // One event does for all of these.
            Step::Revoke { .. } | Step::Import { .. }
                if events.iter().any(|event: &Event| event.kind == Kind::CertificateDue) => {}
            Step::Revoke { reason } | Step::Import { reason } => {
                events.push(Event::about(Kind::CertificateDue, prefix, &record, reason).keeping_pair());
            }
            Step::Trust { authority, .. } if !shared.trust_asked.insert(authority.clone()) => {}
            Step::Trust { reason, .. } => events.push(Event::about(Kind::TrustDue, prefix, &record, reason)),
            Step::Export { reason } => events.push(Event::about(Kind::ExportDue, prefix, &record, reason)),
            Step::Redeploy { services } => {
                let mut event = Event::about(Kind::CertificateCurrent, prefix, &record, "services are older than the pair");
                event.detail.services = services.into_iter().collect();
                events.push(event);
            }
            Step::Renew { reason } => {
                renew = record.current.as_ref().map(|current| RenewalAsked { at: now.into(), serial: current.serial.clone() });
                looked.steps.push(format!("RenewCertificate: {reason}"));
            }
            Step::Tag { has } => {
                if is_done(app.records.tag(&record).await)? && is_done(app.records.untag(&record, &has).await)? {
                    looked.steps.push("wrote the tags of its secret anew".to_owned());
                }
            }
            Step::Replicate { regions } => {
                if is_done(app.records.replicate(&record.name, &regions).await)? {
                    looked.steps.push(format!("replicated its secret to {}", regions.join(", ")));
                }
            }
            Step::Tell { code, message } => events.extend(app.records.tell(&mut record, code, &message, now)),
        }
    }
    let first = found.revision == 0;
    if events.is_empty()
        && renew.is_none()
        && record == *found
        && !first
        && (now.unix_timestamp() + 1..=look_at.unix_timestamp()).contains(&found.look_at)
    {
        // An early look at a certificate that is as it was: the next one comes when it would have come.
        return refused.map_or(Ok(looked), Err);
    }
    record.look_at = look_at.unix_timestamp();
    let before = if first { Default::default() } else { bound };
    if let (Some(_), Origin::Exported { certificate_arn }) = (&renew, &record.origin) {
        // Noted only then: to ask ACM twice does no harm, and what is noted and was never asked would be waited for in vain.
        renew_certificate(&app.acm, certificate_arn).await?;
        record.renewal_asked = renew;
    }
    if app.records.save(&mut record, &before).await? == Saved::Overtaken {
        // Somebody else has just changed this very certificate, and knows more than this look.
        looked.steps.clear();
        return Ok(looked);
    }
    looked.steps.extend(
        events
            .iter()
            .map(|event| format!("{}: {}", event.kind.detail_type(), event.detail.reason.as_deref().unwrap_or_default())),
    );
    publish(&app.eventbridge, &events).await?;
    refused.map_or(Ok(looked), Err)
}

/// Asks ACM to renew. It answers at once and renews later, under the same ARN:
/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_RenewCertificate.html>.
async fn renew_certificate(acm: &Acm, arn: &Arn) -> Result<(), Failure> {
    match acm.renew_certificate().certificate_arn(arn.as_str()).send().await {
        Ok(_) => {
            tracing::info!(certificate.arn = %arn, "Asked ACM to renew {arn}");
            Ok(())
        }
        Err(error) if error.as_service_error().is_some_and(|error| error.is_request_in_progress_exception()) => Ok(()),
        Err(error) => Err(Failure::aws(format!("ask ACM to renew {arn}"), error)),
    }
}
