//! Rotation of secrets: Secrets Manager labels a version that is still empty, and has a function fill it in four steps.
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::secrets::{CURRENT, PENDING, Version, invalid_request};
use crate::world::Timer;
use crate::{AwsError, LocalAws, World, lambda};

/// How a secret is rotated.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub function: String,
    pub every: Option<Duration>,
    /// When it was last rotated to the end.
    pub rotated: Option<OffsetDateTime>,
    next: Option<OffsetDateTime>,
}

/// A rotation that is to be carried out now.
pub(crate) struct Due {
    secret: String,
    function: String,
    token: String,
}

/// How often a rotation is tried, and how long after a failure the next time. AWS names neither.
const TRIES: usize = 5;
const REST: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// `RotateSecret`. Without `RotateImmediately` nothing is tested here.
pub(crate) fn rotate(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let secret = world.secrets.living(now, input)?;
    let (name, arn, known) = (secret.name.clone(), secret.arn.clone(), secret.rotation.clone());
    let given = input["RotationLambdaARN"].as_str().map(str::to_owned);
    let function = given.or_else(|| known.as_ref().map(|rotation| rotation.function.clone()));
    let function = function.ok_or_else(|| invalid_request("No Lambda rotation function ARN is associated with this secret."))?;
    let may = lambda::find(world, &function).is_some_and(|function| world.lambda.rotators.contains(&function.config.name));
    if !may {
        return Err(AwsError::new(
            "AccessDeniedException",
            "Secrets Manager cannot invoke the specified Lambda function. Ensure that the function policy grants access to the \
             principal secretsmanager.amazonaws.com.",
        ));
    }
    let days = input["RotationRules"]["AutomaticallyAfterDays"].as_i64().map(Duration::days);
    let every = days.or_else(|| known.as_ref().and_then(|rotation| rotation.every));
    let rotation = Rotation { function, every, rotated: known.and_then(|rotation| rotation.rotated), next: None };
    world.secrets.living(now, input)?.rotation = Some(rotation);
    schedule(world, now, &name);
    let mut answer = json!({"ARN": arn, "Name": name});
    if input["RotateImmediately"] != false {
        let token = input["ClientRequestToken"].as_str().map_or_else(|| world.uuid(), str::to_owned);
        answer["VersionId"] = begin(world, now, &name, token)?.into();
    }
    Ok(answer)
}

pub(crate) fn cancel(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let secret = world.secrets.living(now, input)?;
    secret.rotation = None;
    Ok(json!({"ARN": secret.arn, "Name": secret.name}))
}

/// The secret's day has come, or has been moved.
pub(crate) fn due(world: &mut World, now: OffsetDateTime, name: &str) {
    let Some(Rotation { next: Some(next), .. }) = world.secrets.find(name).and_then(|secret| secret.rotation.clone()) else {
        return;
    };
    if next <= now {
        let token = world.uuid();
        // Where one is still unfinished, that one is begun again.
        _ = begin(world, now, name, token);
        schedule(world, now, name);
    }
}

fn schedule(world: &mut World, now: OffsetDateTime, name: &str) {
    let rotation = world.secrets.by_name(name).and_then(|secret| secret.rotation.as_mut());
    let Some(rotation) = rotation else { return };
    rotation.next = rotation.every.map(|every| now + every);
    if let Some(next) = rotation.next {
        world.at(next, Timer::Rotation { secret: name.to_owned() });
    }
}

/// Labels the version that is to be filled. One that was left unfinished is taken up again instead, and that is an error.
fn begin(world: &mut World, now: OffsetDateTime, name: &str, token: String) -> Result<String, AwsError> {
    let Some(secret) = world.secrets.by_name(name) else { return Ok(token) };
    let Some(Rotation { function, .. }) = secret.rotation.clone() else { return Ok(token) };
    let pending = secret.versions.iter().find(|version| version.stages.contains(PENDING) && !version.stages.contains(CURRENT));
    let unfinished = pending.map(|version| version.id.clone());
    let token = match &unfinished {
        Some(unfinished) => unfinished.clone(),
        None => {
            let empty = Version::empty(now, &token);
            secret.add(now, empty, [PENDING.to_owned()].into())?;
            token
        }
    };
    world.secrets.rotations.push(Due { secret: name.to_owned(), function, token: token.clone() });
    match unfinished {
        Some(_) => Err(invalid_request("A previous rotation isn't complete. That rotation will be reattempted.")),
        None => Ok(token),
    }
}

/// The four steps, each an invocation of its own; after a failure all of them again.
pub(crate) async fn carry_out(aws: LocalAws, Due { secret, function, token }: Due) {
    let arn = aws.world(|world, _| world.secrets.find(&secret).map(|secret| secret.arn.clone())).unwrap_or_default();
    'tries: for _ in 0..TRIES {
        for step in ["createSecret", "setSecret", "testSecret", "finishSecret"] {
            let event = json!({"Step": step, "SecretId": arn, "ClientRequestToken": token});
            if lambda::invoke_once(&aws, &function, event).await.is_err() {
                tokio::time::sleep(REST).await;
                continue 'tries;
            }
        }
        aws.world(|world, now| {
            let Some(secret) = world.secrets.by_name(&secret) else { return };
            let is_current = secret.versions.iter().any(|version| version.id == token && version.stages.contains(CURRENT));
            if let (Some(rotation), true) = (&mut secret.rotation, is_current) {
                rotation.rotated = Some(now);
            }
        });
        return;
    }
}
