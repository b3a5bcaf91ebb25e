//! A certificate is let go of. Whatever stops it, the same request goes on: the record goes last.

use lifecycle::attempt::{Turn, turn};
use lifecycle::record::Origin;
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
    if let Some(until) = record.imported.as_ref().and_then(|imported| imported.busy(&invocation.id, now)) {
        return Err(busy(&name, until));
    }
    let in_acm = match (&record.origin, &record.imported) {
        (Origin::Exported { certificate_arn } | Origin::Adopted { certificate_arn }, _) => vec![certificate_arn.clone()],
        (_, Some(imported)) => import::held(app, &name, imported).await?,
        (_, None) => Vec::new(),
    };
    let revocations = retirement::revocations(&record, reason, now);
    let mut answer = json!({
        "outcome": "planned", "certificate": name, "secret_arn": record.secret_arn, "acm_certificate_arn": in_acm.last(),
        "revoked": revocations.iter().map(|revocation| &revocation.serial).collect::<Vec<_>>(),
        "services": record.options.tagged_services().map(|service| service.name).collect::<Vec<_>>(),
    });
    if dry_run {
        return Ok(answer);
    }
    if !revocations.is_empty() {
        let asked: Vec<_> = revocations.iter().map(|revocation| revocation.serial.clone()).collect();
        revocations.into_iter().for_each(|revocation| record.ask_to_revoke(revocation));
        app.records.update(&mut record).await?;
        let (after, refused) = revoke::due(app, record, invocation).await?;
        if let Some(failure) = refused.filter(|_| reason.is_some()) {
            return Err(failure.within(format!("retire `{name}`")));
        }
        // Nobody asks that it be revoked now: what its CA refuses is said, and keeps nothing from being let go of.
        let (done, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(|serial| after.is_revoked(serial));
        answer["revoked"] = json!(done);
        if !left.is_empty() {
            answer["not_revoked"] = json!(left);
        }
        record = after;
    }
    for arn in &in_acm {
        import::untag(app, &name, arn).await?;
    }
    let deleted = app.records.delete_secret(&name).await?;
    app.records.forget(record).await?;
    tracing::info!(certificate.name = %name, "Retired `{name}`");
    answer["outcome"] = json!("retired");
    answer["deleted"] = json!(deleted.map(lifecycle::date));
    Ok(answer)
}
