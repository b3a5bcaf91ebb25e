//! Revocation: recorded first, done when its time has come, told to the outside.

use std::collections::BTreeMap;

use lifecycle::date;
use lifecycle::events::{Event, Kind};
use lifecycle::leaf::Serial;
use lifecycle::record::{Origin, Record};
use lifecycle::revocation::{self, Request, Revocation};
use runtime::{Failure, Invocation, publish};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::App;

/// A request to revoke. A compromised key's certificate is revoked and then replaced, in this invocation where the key is made
/// here; any other is first replaced and rolled out.
pub(crate) async fn by_hand(app: &App, request: &Value, invocation: &Invocation) -> Result<Value, Failure> {
    let refused = |refusal| Failure::permanent("accept the request", refusal);
    let request = revocation::request(request).map_err(refused)?;
    let Request { name, serial, dry_run, .. } = &request;
    let now = invocation.now();
    let Some(mut record) = app.records.find(name, now).await? else {
        return Err(Failure::permanent(
            format!("revoke serial {serial} of `{name}`"),
            "there is no such certificate; check its name",
        ));
    };
    let revocation = revocation::revocation(&request, &record, now).map_err(refused)?;
    let same_key = record.of_the_same_key(&revocation, now);
    let with_it: Vec<_> = same_key.iter().map(|other| other.serial.clone()).collect();
    if *dry_run {
        return Ok(answer("planned", &record, &revocation, &with_it, None));
    }
    if !record.revocations.contains(&revocation) {
        for asked in same_key.into_iter().chain([revocation.clone()]) {
            record.ask_to_revoke(asked);
        }
        record.look_at = now.unix_timestamp();
        app.records.update(&mut record).await?;
        tracing::info!(certificate.name = %name, certificate.serial = %serial, "Recorded that {}", revocation.in_words());
    }
    let (record, refused) = due(app, record, invocation).await?;
    let of_current = record.revocation_of_current().filter(|of_current| of_current.serial == *serial);
    let replaced = match (&record.origin, of_current) {
        (Origin::Issued(_), Some(of_current)) => {
            let replaced = crate::renew(app, record.clone(), &of_current.in_words(), invocation).await;
            let doing = format!("replace `{name}`, serial {serial} being recorded to be revoked");
            Some(replaced.map_err(|failure| failure.within(doing))?)
        }
        _ => None,
    };
    if let Some(failure) = refused {
        return Err(failure);
    }
    let outcome = if record.is_revoked(serial) { "revoked" } else { "recorded" };
    Ok(answer(outcome, &record, &revocation, &with_it, replaced.map(crate::Answer::into_json).transpose()?))
}

/// Revokes what is ready for it. What a CA refuses for good is told once a day and keeps nothing else from going on.
pub(crate) async fn due(app: &App, mut record: Record, invocation: &Invocation) -> Result<(Record, Option<Failure>), Failure> {
    let pending = || record.revocations.iter().filter(|revocation| revocation.done.is_none());
    let services = match pending().any(|revocation| revocation.after_rollout) {
        true => app.records.bindings(&record.options.services).await?,
        false => BTreeMap::new(),
    };
    let services = services.into_iter().map(|(service, binding)| (service, binding.state)).collect();
    let now = invocation.now();
    let ready: Vec<Revocation> = pending().filter(|revocation| revocation.is_ready(&record, &services, now)).cloned().collect();
    let mut refused = None;
    for revocation in &ready {
        let event = match revoke(app, &mut record, revocation, now).await {
            Ok(event) => Some(event),
            Err(failure) if failure.is_permanent() => {
                let event = app.records.tell(&mut record, "revoke-failed", &failure.to_string(), now);
                refused = Some(failure);
                event
            }
            Err(failure) => return Err(failure),
        };
        app.records.update(&mut record).await?;
        publish(&app.eventbridge, event.as_slice()).await?;
    }
    Ok((record, refused))
}

/// One revocation. What comes of it stands in the record, which is not saved yet; the event tells of it.
async fn revoke(app: &App, record: &mut Record, revocation: &Revocation, now: OffsetDateTime) -> Result<Event, Failure> {
    let (name, Revocation { serial, certificate_authority_arn, reason, .. }) = (record.name.clone(), revocation);
    match app.pca.revoke(&name, revocation, record.knows_alive(serial, now)).await {
        Ok(true) => record.revoked(serial, now),
        Ok(false) => {
            record.not_revoked(serial, true, now);
            return Err(Failure::permanent(
                format!("revoke serial {serial} of `{name}`"),
                format!(
                    "{certificate_authority_arn} has no such certificate that has not expired; check the serial number, and name the CA that issued it"
                ),
            ));
        }
        Err(failure) => {
            record.not_revoked(serial, false, now);
            return Err(failure);
        }
    }
    tracing::info!(certificate.name = %name, certificate.serial = %serial, "Revoked serial {serial} of `{name}`");
    let mut event = Event::about(Kind::CertificateRevoked, &app.records.settings.prefix, record, reason.as_str());
    event.detail.serial_number = Some(serial.to_string());
    (event.detail.version_id, event.detail.not_after) = (None, None);
    Ok(event)
}

/// `with_it`: the serials of the same key.
fn answer(outcome: &str, record: &Record, revocation: &Revocation, with_it: &[Serial], replaced: Option<Value>) -> Value {
    let Revocation { serial, certificate_authority_arn, reason, asked, after_rollout, .. } = revocation;
    let next = match (outcome, after_rollout) {
        ("revoked", _) => "the CA publishes it in its next CRL, within about half an hour".to_owned(),
        ("planned", false) => "it would be revoked at once".to_owned(),
        ("planned", true) => "it would be replaced, brought to the services, and then revoked".to_owned(),
        _ => "it is revoked once it is replaced and every service is redeployed, or its agent has had an hour; the sweep sees to it".to_owned(),
    };
    let mut answer = json!({
        "outcome": outcome, "certificate": record.name, "serial_number": serial, "reason": reason.as_str(),
        "certificate_authority_arn": certificate_authority_arn, "asked": date(**asked), "next": next,
    });
    if !with_it.is_empty() {
        answer["of_the_same_key"] = json!(with_it);
    }
    if let Some(replaced) = replaced {
        answer["replacement"] = replaced;
    }
    answer
}
