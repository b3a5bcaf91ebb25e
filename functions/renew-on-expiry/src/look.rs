//! One look at one certificate: gather, decide, do.

use aws_sdk_acm::Client as Acm;
use lifecycle::events::{Event, Kind};
use lifecycle::names::Arn;
use lifecycle::record::{Origin, Record, RenewalAsked};
use lifecycle::renewal::{Facts, Plan, Step, plan};
use records::table::Saved;
use runtime::{Failure, Invocation, publish};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::App;

/// What came of a look.
pub(crate) struct Looked {
    pub(crate) certificate: String,
    /// What was done, in words.
    pub(crate) steps: Vec<String>,
    pub(crate) look_at: OffsetDateTime,
}

impl Looked {
    pub(crate) fn into_json(self) -> Value {
        let outcome = if self.steps.is_empty() { "unchanged" } else { "acted" };
        json!({"outcome": outcome, "certificate": self.certificate, "steps": self.steps, "look_at": lifecycle::date(self.look_at)})
    }
}

/// How much a sweep may still ask for. Taken from the hour's counter only when something is to be asked for.
pub(crate) struct Budget {
    /// `None`: no limit, for what a person or ACM asks for.
    limit: Option<u32>,
    in_hand: u32,
    used_up: bool,
}

/// Taken from the counter at once, so that a busy sweep does not ask it for each certificate.
const HANDFUL: u32 = 10;

impl Budget {
    pub(crate) fn unlimited() -> Self {
        Self { limit: None, in_hand: 0, used_up: false }
    }

    pub(crate) fn of_this_hour(limit: u32) -> Self {
        Self { limit: Some(limit), in_hand: 0, used_up: false }
    }

    async fn take(&mut self, app: &App, now: OffsetDateTime) -> Result<bool, Failure> {
        let Some(limit) = self.limit else { return Ok(true) };
        if self.in_hand == 0 && !self.used_up {
            self.in_hand = app.records.take_from_budget(HANDFUL, limit, now).await?;
            self.used_up = self.in_hand == 0;
        }
        let granted = self.in_hand > 0;
        self.in_hand = self.in_hand.saturating_sub(1);
        Ok(granted)
    }
}

/// As [`look`]. A permanent failure is one certificate's own: a person is told once a day, and only then does the sweep fail by it.
pub(crate) async fn look_in_sweep(
    app: &App,
    record: Record,
    budget: &mut Budget,
    invocation: &Invocation,
) -> Result<Looked, Failure> {
    let name = record.name.clone();
    match look(app, record, None, budget, invocation).await {
        Err(failure) if failure.is_permanent() => {
            let now = invocation.now();
            let Some(mut record) = app.records.load(&name).await? else { return Err(failure) };
            let Some(event) = app.records.tell(&mut record, "look-failed", &failure.to_string(), now) else {
                return Ok(Looked { certificate: name.to_string(), steps: Vec::new(), look_at: now });
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
    budget: &mut Budget,
    invocation: &Invocation,
) -> Result<Looked, Failure> {
    let now = invocation.now();
    if let Some(attempt) = record.attempt.as_ref().filter(|attempt| *attempt.lease > now) {
        // Somebody is at it. Half-way through, secret and record need not agree.
        return Ok(Looked { certificate: record.name.to_string(), steps: Vec::new(), look_at: *attempt.lease });
    }
    let found = record.clone();
    let facts = gather(app, &mut record, now).await?;
    let mut plan = plan(&record, &facts, app.sweep_interval, now);
    if let Some(reason) = acm_says {
        plan.steps
            .push(Step::Tell { code: "acm-renewal-failed", message: format!("ACM could not renew `{}`: {reason}", record.name) });
    }
    let Plan { steps, look_at } = plan;
    let asks = steps.iter().any(|step| matches!(step, Step::Issue { .. } | Step::Export { .. } | Step::Renew { .. }));
    if asks && !budget.take(app, now).await? {
        // Not recorded: it stays due, and comes first in the next hour.
        return Ok(Looked { certificate: record.name.to_string(), steps: Vec::new(), look_at: now });
    }
    carry_out(app, record, &found, steps, look_at, now).await
}

/// What AWS shows of the certificate. The record is made to agree with its secret and with the tags in ACM on the way.
async fn gather(app: &App, record: &mut Record, now: OffsetDateTime) -> Result<Facts, Failure> {
    let secret = app.records.agree(record, now).await?;
    let held = match record.origin.clone() {
        Origin::Exported { certificate_arn } => {
            if let Some(managed) = acm::managed(&app.acm, &certificate_arn, &app.records.settings.prefix).await? {
                record.options = managed.options;
            }
            acm::describe(&app.acm, &certificate_arn).await?
        }
        Origin::Issued(_) | Origin::CallerKey(_) => None,
    };
    let bindings = match record.options.services.is_empty() {
        true => Default::default(),
        false => app.records.bindings(&record.options.services).await?,
    };
    Ok(Facts { secret, held, services: bindings.into_iter().map(|(service, binding)| (service, binding.state)).collect() })
}

/// Records first, so that nobody decides the same again; then asks. What is lost between the two is asked for at the next look.
async fn carry_out(
    app: &App,
    mut record: Record,
    found: &Record,
    steps: Vec<Step>,
    look_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Looked, Failure> {
    let prefix = &app.records.settings.prefix;
    let mut looked = Looked { certificate: record.name.to_string(), steps: Vec::new(), look_at };
    let (mut events, mut renew) = (Vec::new(), None);
    for step in steps {
        match step {
            Step::Issue { reason } => events.push(Event::about(Kind::CertificateDue, prefix, &record, reason)),
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
        return Ok(looked);
    }
    record.look_at = look_at.unix_timestamp();
    let before = if first { Default::default() } else { found.options.services.clone() };
    if app.records.save(&mut record, &before).await? == Saved::Overtaken {
        // Somebody else has just changed this very certificate, and knows more than this look.
        looked.steps.clear();
        return Ok(looked);
    }
    if let (Some(_), Origin::Exported { certificate_arn }) = (&renew, &record.origin) {
        renew_certificate(&app.acm, certificate_arn).await?;
        // Noted only now: to ask ACM twice does no harm, and what is noted and was never asked would be waited for in vain.
        record.renewal_asked = renew;
        let services = record.options.services.clone();
        app.records.save(&mut record, &services).await?.or_retry(format_args!("the record of `{}`", record.name))?;
    }
    if let (true, Origin::Exported { certificate_arn }) = (first, &record.origin) {
        app.records.note_arn(certificate_arn, &record.name).await?;
    }
    looked.steps.extend(
        events
            .iter()
            .map(|event| format!("{}: {}", event.kind.detail_type(), event.detail.reason.as_deref().unwrap_or_default())),
    );
    publish(&app.eventbridge, &events).await?;
    Ok(looked)
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
