//! A rotation by Secrets Manager: what ACM holds is exported again, under a new passphrase. When it renews is ACM's to say.

use lifecycle::export::{Export, Held, export};
use lifecycle::record::{Origin, Record};
use lifecycle::renewal;
use material::Wanted;
use records::install::Installed;
use records::rotation::{Rotation, Step};
use runtime::{Failure, Invocation, Trigger};
use serde_json::{Value, json};

use crate::{App, Asked, answer, take};

pub(crate) async fn step(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let Some(rotation) = app.records.rotation(Trigger::body(event)?).await? else { return Ok(json!({"outcome": "unchanged"})) };
    let refused = |why: &str| Failure::permanent(format!("rotate the secret of `{}`", rotation.name), why);
    let Some(record) = app.records.load(&rotation.name).await? else {
        return Err(refused("the table does not know it; it is found within a day by its tags in ACM"));
    };
    let Origin::Exported { certificate_arn } = record.origin.clone() else {
        let prefix = &app.records.settings.prefix;
        return Err(refused(&format!("it is not ACM's; give it the rotation function {prefix}-issue-client-cert")));
    };
    let held = acm::describe(&app.acm, &certificate_arn).await?;
    let held = held.ok_or_else(|| refused(&format!("ACM has no {certificate_arn} any more")))?;
    app.records.give_way(&rotation, &record, invocation.now()).await?;
    match rotation.step {
        Step::CreateSecret => {
            let kept = renewal::kept(&record, app.sweep_interval, invocation.now());
            match (kept, export(&held, Some(&record), None, invocation.now())) {
                _ if record.attempt.is_some() => {}
                (Some(why), _) => return Err(refused(&why)),
                (None, Export::Never(why)) => return Err(refused(&why)),
                (None, Export::TooEarly(why)) => {
                    return Err(Failure::retryable(format!("rotate the secret of `{}`", rotation.name), why));
                }
                (None, Export::Take { .. } | Export::Unchanged) => {}
            }
            bring(app, record, &rotation, &held, invocation).await?;
            Ok(json!({"outcome": "staged", "certificate": rotation.name, "version_id": rotation.token}))
        }
        // Who trusts it is seen to before it becomes current.
        Step::SetSecret => Ok(json!({"outcome": "unchanged"})),
        Step::TestSecret => {
            let (material, leaf) = rotation.pair()?;
            material.verify(&Wanted::Exported { serial: &leaf.serial }, invocation.now()).map_err(|why| refused(&why))?;
            Ok(json!({"outcome": "good", "certificate": rotation.name, "serial_number": leaf.serial}))
        }
        Step::FinishSecret => {
            rotation.pair()?;
            match bring(app, record, &rotation, &held, invocation).await? {
                (record, Installed::Current) => Ok(answer("exported", &record)),
                (_, Installed::Waiting(stores)) => Err(rotation.waits(&stores)),
            }
        }
    }
}

async fn bring(
    app: &App,
    record: Record,
    rotation: &Rotation,
    held: &Held,
    invocation: &Invocation,
) -> Result<(Record, Installed), Failure> {
    let before = record.options.services.clone();
    let asked = Asked { held, before: &before, rotation: Some(rotation) };
    take(app, record, &asked, "Secrets Manager rotates its secret", invocation).await
}
