//! A rotation by Secrets Manager: a new pair now, due or not, in the version that Secrets Manager names.

use lifecycle::record::{Origin, Record};
use lifecycle::renewal;
use material::Wanted;
use records::install::Installed;
use records::rotation::{Rotation, Step};
use runtime::{Failure, Invocation, Trigger};
use serde_json::{Value, json};

use crate::{App, Asked, Issued, issue, to_successor};

pub(crate) async fn step(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let Some(rotation) = app.records.rotation(Trigger::body(event)?).await? else { return Ok(json!({"outcome": "unchanged"})) };
    let refused = |why: String| Failure::permanent(format!("rotate the secret of `{}`", rotation.name), why);
    let Some(mut record) = app.records.find(&rotation.name, invocation.now()).await? else {
        return Err(refused("neither the table nor its tags say what it is; issue it by hand".to_owned()));
    };
    let Origin::Issued(_) = &record.origin else {
        let prefix = &app.records.settings.prefix;
        let why = match &record.origin {
            Origin::Exported { .. } => format!("it is ACM's; give it the rotation function {prefix}-export-to-secrets"),
            _ => "its key is not Everleaf's to make; turn its rotation off".to_owned(),
        };
        return Err(refused(why));
    };
    app.records.give_way(&rotation, &record, invocation.now()).await?;
    match rotation.step {
        Step::CreateSecret => {
            if record.attempt.is_none()
                && let Some(why) = renewal::kept(&record, app.policy.sweep_interval, invocation.now())
            {
                return Err(refused(why));
            }
            to_successor(app, &mut record, invocation);
            bring(app, record, &rotation, invocation).await?;
            Ok(json!({"outcome": "staged", "certificate": rotation.name, "version_id": rotation.token}))
        }
        // Who trusts it is seen to before it becomes current.
        Step::SetSecret => Ok(json!({"outcome": "unchanged"})),
        Step::TestSecret => {
            let (material, leaf) = rotation.pair()?;
            let Some(specification) = record.specification() else { return Err(refused("it is not issued here".to_owned())) };
            let wanted = Wanted::Issued { specification, not_after: leaf.not_after, key_fingerprint: None };
            material.verify(&wanted, invocation.now()).map_err(refused)?;
            Ok(json!({"outcome": "good", "certificate": rotation.name, "serial_number": leaf.serial}))
        }
        Step::FinishSecret => {
            rotation.pair()?;
            let issued = bring(app, record, &rotation, invocation).await?;
            match &issued.installed {
                Installed::Current => issued.answer(app, invocation).await?.into_json(),
                Installed::Waiting(stores) => Err(rotation.waits(stores)),
            }
        }
    }
}

async fn bring(app: &App, record: Record, rotation: &Rotation, invocation: &Invocation) -> Result<Issued, Failure> {
    let before = record.options.services.clone();
    let asked = Asked { rotation: Some(rotation), ..Asked::default() };
    issue(app, record, before, asked, "Secrets Manager rotates its secret", invocation).await
}
