//! The daily walk: managed secrets and certificates of ACM that the table does not know. It is how a lost table comes back, and
//! how a certificate is found whose every event was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_acm::types::{CertificateExport, CertificateStatus, CertificateSummary, CertificateType};
use lifecycle::names::Arn;
use lifecycle::record::{Origin, Record};
use records::table::{Place, Walk};
use runtime::{Failure, Failures, Invocation};
use time::OffsetDateTime;

use crate::look::{Shared, look, look_in_sweep};
use crate::{App, enough_time};

/// A little less than a day, so that the hour of what is done daily does not move.
pub(crate) const DAILY: i64 = 23 * 60 * 60 + 30 * 60;

/// ACM lists tags ten times a second; this walk leaves three quarters of that to others, another stack's walk among them.
const BETWEEN_TAGS: Duration = Duration::from_millis(400);

/// Whether the walk is on its way, or a day has passed since it last began.
pub(crate) fn is_due(walk: &Walk, now: OffsetDateTime) -> bool {
    walk.place.is_some() || now.unix_timestamp() - walk.began >= DAILY
}

/// Goes on with the walk, or begins it. Says how many certificates it found, and how long it has not come to its end; what it could
/// not take over goes to `failures` and does not keep it from going on.
pub(crate) async fn go_on(
    app: &App,
    mut walk: Walk,
    failures: &mut Failures,
    invocation: &Invocation,
) -> Result<(usize, time::Duration), Failure> {
    if walk.place.is_none() {
        let now = invocation.now().unix_timestamp();
        // A first one has not come to its end before it began.
        let ended = if walk.ended == 0 { now - 1 } else { walk.ended };
        walk = Walk { place: Some(Place::Secrets(None)), began: now, ended, ..walk };
    }
    let mut found = 0;
    while let Some(place) = walk.place.clone()
        && enough_time(invocation)
    {
        let step = match &place {
            Place::Secrets(token) => secrets(app, token.clone(), failures, invocation).await,
            Place::Certificates(token) => certificates(app, token.clone(), failures, invocation).await,
        };
        let (more, next) = match step {
            Ok(Some(step)) => step,
            // The page is read again by the next sweep.
            Ok(None) => break,
            // A continuation token does not last for ever: the walk ends here and begins anew tomorrow.
            Err(failure) if failure.is_permanent() => {
                failures.push(failure);
                walk.place = None;
                break;
            }
            Err(failure) => {
                failures.push(failure);
                break;
            }
        };
        found += more;
        walk.place = match (place, next) {
            (Place::Secrets(_), Some(token)) => Some(Place::Secrets(Some(token))),
            (Place::Secrets(_), None) => Some(Place::Certificates(None)),
            (Place::Certificates(_), Some(token)) => Some(Place::Certificates(Some(token))),
            (Place::Certificates(_), None) => {
                walk.ended = invocation.now().unix_timestamp();
                None
            }
        };
    }
    app.records.save_walk(&walk).await?;
    Ok((found, walk.age(invocation.now())))
}

/// One page of secrets; what has no record gets one, and one that somebody has altered is looked at. `None` when the time is up.
async fn secrets(
    app: &App,
    token: Option<String>,
    failures: &mut Failures,
    invocation: &Invocation,
) -> Result<Option<(usize, Option<String>)>, Failure> {
    let (names, next) = app.records.list(token).await?;
    let missed = app.records.missed(names, invocation.now()).await?;
    failures.extend(missed.unreadable);
    let mut found = 0;
    for mut record in missed.records {
        if !enough_time(invocation) {
            return Ok(None);
        }
        // Not as it was found: so it is written.
        record.look_at = invocation.now().unix_timestamp();
        let looked = look_in_sweep(app, record, &mut Shared::unlimited(), invocation).await;
        found += taken(looked.map(|_| true), failures)?;
    }
    for name in missed.unknown {
        if !enough_time(invocation) {
            return Ok(None);
        }
        // `None`: never issued, or ACM's; that is found in ACM.
        let rebuilt = app.records.rebuild(&name, invocation.now()).await;
        found += taken(rebuilt.map(|record| record.is_some()), failures)?;
    }
    Ok(Some((found, next)))
}

/// How many came of it: one or none. What failed for good goes to `failures`; after anything else the page is read again, because
/// until the walk has come to its end no CA leaves a trust store.
fn taken(taken: Result<bool, Failure>, failures: &mut Failures) -> Result<usize, Failure> {
    match taken {
        Ok(taken) => Ok(usize::from(taken)),
        Err(failure) if failure.is_permanent() => {
            failures.push(failure);
            Ok(0)
        }
        Err(failure) => Err(failure),
    }
}

/// One page of ACM's certificates that can be exported or replaced; what is tagged for this stack and has no record is looked at.
/// `None` when the time is up.
/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_ListCertificates.html>
async fn certificates(
    app: &App,
    token: Option<String>,
    failures: &mut Failures,
    invocation: &Invocation,
) -> Result<Option<(usize, Option<String>)>, Failure> {
    let answer = app
        .acm
        .list_certificates()
        .certificate_statuses(CertificateStatus::Issued)
        .includes(acm::any_key())
        .max_items(100)
        .set_next_token(token)
        .send()
        .await
        .map_err(|error| Failure::aws("list ACM's certificates", error))?;
    let manageable = answer.certificate_summary_list().iter().filter(|summary| {
        matches!(summary.r#type(), Some(CertificateType::Private | CertificateType::Imported))
            || summary.export_option() == Some(&CertificateExport::Enabled)
    });
    let is_imported = |summary: &CertificateSummary| summary.r#type() == Some(&CertificateType::Imported);
    let listed: BTreeMap<Arn, bool> =
        manageable.filter_map(|summary| Some((summary.certificate_arn()?.parse().ok()?, is_imported(summary)))).collect();
    let arns: Vec<Arn> = listed.keys().cloned().collect();
    let known = app.records.known_arns(&arns).await?;
    let mut found = 0;
    for (arn, imported) in listed.into_iter().filter(|(arn, _)| !known.contains(arn)) {
        if !enough_time(invocation) {
            return Ok(None);
        }
        found += taken(certificate(app, arn, imported, invocation).await, failures)?;
        tokio::time::sleep(BETWEEN_TAGS).await;
    }
    Ok(Some((found, answer.next_token)))
}

async fn certificate(app: &App, arn: Arn, imported: bool, invocation: &Invocation) -> Result<bool, Failure> {
    let Some(managed) = acm::managed(&app.acm, &arn, &app.records.settings.prefix).await? else { return Ok(false) };
    let origin = Origin::Exported { certificate_arn: arn.clone() };
    let record = match app.records.load(&managed.name).await? {
        // What was issued here says so in its secret. The walk may have passed that before the record was lost.
        None if imported && app.records.rebuild(&managed.name, invocation.now()).await?.is_some() => return Ok(true),
        None => Record::new(managed.name.clone(), origin, managed.options.clone(), invocation.now()),
        Some(record) if has_lost_its_tag(app, &record, &origin).await? => Record { origin, attempt: None, ..record },
        // Its event came while the walk was on its way, or its name is still another certificate's.
        Some(_) => return Ok(false),
    };
    look(app, record, None, &mut Shared::tagged(arn, managed), invocation).await?;
    Ok(true)
}

/// Whether the tag of this name was moved from the record's certificate of ACM to the one of this origin.
async fn has_lost_its_tag(app: &App, record: &Record, origin: &Origin) -> Result<bool, Failure> {
    let (Origin::Exported { certificate_arn } | Origin::Adopted { certificate_arn }) = &record.origin else { return Ok(false) };
    if record.origin == *origin {
        return Ok(false);
    }
    let managed = acm::managed(&app.acm, certificate_arn, &app.records.settings.prefix).await?;
    Ok(managed.is_none_or(|managed| managed.name != record.name))
}
