//! A certificate is let go of. Whatever stops it, the same request goes on: the record goes last.

use lifecycle::attempt::{Turn, turn};
use lifecycle::names::Arn;
use lifecycle::record::{Origin, Record};
use lifecycle::retirement::{self, Request};
use runtime::{Failure, Invocation};
use serde_json::{Value, json};

use crate::{App, busy, import, revoke};

pub(crate) async fn by_hand(app: &App, request: &Value, invocation: &Invocation) -> Result<Value, Failure> {
    let request = retirement::request(request).map_err(|refusal| Failure::permanent("accept the request", refusal))?;
    let (Request { name, reason, dry_run }, now) = (request, invocation.now());
    let Some(mut record) = app.records.find(&name, now).await? else {
        return Err(Failure::permanent(format!("retire `{name}`"), "there is no such certificate; check its name"));
    };
    if let Turn::Busy { until } = turn(&record, &invocation.id, "", None, now) {
        return Err(busy(&name, until));
    }
    let revocations = reason.map_or_else(Vec::new, |reason| retirement::revocations(&record, reason, now));
    let mut answer = json!({
        "outcome": "planned", "certificate": name, "secret_arn": record.secret_arn, "acm_certificate_arn": in_acm(&record),
        "revoked": revocations.iter().map(|revocation| &revocation.serial).collect::<Vec<_>>(),
        "services": record.options.tagged_services().map(|service| service.name).collect::<Vec<_>>(),
    });
    if dry_run {
        return Ok(answer);
    }
    if !revocations.is_empty() {
        revocations.into_iter().for_each(|revocation| record.ask_to_revoke(revocation));
        app.records.update(&mut record).await?;
        let (after, refused) = revoke::due(app, record, invocation).await?;
        if let Some(failure) = refused {
            return Err(failure.within(format!("retire `{name}`")));
        }
        record = after;
    }
    if let Some(arn) = in_acm(&record) {
        untag(app, &record, arn).await?;
    }
    let deleted = app.records.delete_secret(&name).await?;
    app.records.forget(record).await?;
    tracing::info!(certificate.name = %name, "Retired `{name}`");
    answer["outcome"] = json!("retired");
    answer["deleted"] = json!(deleted.map(lifecycle::date));
    Ok(answer)
}

/// The certificate of ACM that bears the stack's tag for it.
fn in_acm(record: &Record) -> Option<&Arn> {
    match &record.origin {
        Origin::Exported { certificate_arn } => Some(certificate_arn),
        _ => record.acm_certificate(),
    }
}

/// The certificate stays in ACM as it is, and is not the stack's any more.
async fn untag(app: &App, record: &Record, arn: &Arn) -> Result<(), Failure> {
    if !import::is_of(app, arn, &record.name).await? {
        // It is gone, or another certificate's by now; the role has no right over what is not tagged.
        return Ok(());
    }
    let doing = || format!("take the tag everleaf:certificate off {arn}");
    let tag = aws_sdk_acm::types::Tag::builder().key("everleaf:certificate").value(app.records.secret_name(&record.name)).build();
    let tag = tag.map_err(|error| Failure::permanent(doing(), error))?;
    match app.acm.remove_tags_from_certificate().certificate_arn(arn.as_str()).tags(tag).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => Ok(()),
        Err(error) => Err(Failure::aws(doing(), error)),
    }
}
