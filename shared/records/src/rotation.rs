//! The rotation of a secret, as Secrets Manager asks for it step by step:
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>.

use std::collections::BTreeSet;

use lifecycle::attempt::{Attempt, Staged};
use lifecycle::leaf::Leaf;
use lifecycle::names::{Arn, CertificateName, StoreName};
use lifecycle::record::Record;
use material::Material;
use runtime::Failure;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::Records;

/// A step of a rotation that is still to be taken.
pub struct Rotation {
    pub name: CertificateName,
    pub step: Step,
    /// The version that the new pair is to stand in, labelled `AWSPENDING` already.
    pub token: String,
    /// The pair in it, once there is one.
    pub pair: Option<(Material, Leaf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    CreateSecret,
    SetSecret,
    TestSecret,
    FinishSecret,
}

/// What Secrets Manager sends.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    step: Step,
    secret_id: String,
    client_request_token: String,
}

impl Request {
    /// The certificate whose secret is to be rotated, where secrets begin with `prefix`. Secrets Manager ends the ARN of a secret
    /// with its name, a hyphen and six characters.
    pub fn certificate(&self, prefix: &str) -> Result<CertificateName, String> {
        let Self { secret_id, .. } = self;
        let arn: Arn = secret_id.parse().map_err(|error| format!("{secret_id}: {error}"))?;
        let named = arn.resource().strip_prefix("secret:").and_then(|rest| rest.rsplit_once('-'));
        let ours = named.and_then(|(secret, _)| secret.strip_prefix(prefix)?.strip_prefix('/'));
        let name = ours.and_then(|name| name.parse().ok());
        name.ok_or_else(|| format!("{secret_id} is not of this stack; its secrets begin with {prefix}/"))
    }
}

impl Records {
    /// What Secrets Manager asks for; `None` when the version that it means is current already.
    pub async fn rotation(&self, request: Request) -> Result<Option<Rotation>, Failure> {
        let name = request.certificate(&self.settings.prefix).map_err(|why| Failure::permanent("rotate the secret", why))?;
        let Request { step, secret_id, client_request_token: token } = request;
        let refused = |why: String| Failure::permanent(format!("rotate the secret of `{name}`"), why);
        let Some(state) = self.describe(&name).await?.filter(|state| state.arn.as_str() == secret_id) else {
            return Err(refused(format!("there is no {secret_id} any more")));
        };
        if state.current.as_ref() == Some(&token) {
            return Ok(None);
        }
        if !state.rotates || state.pending.as_ref() != Some(&token) {
            return Err(refused(format!(
                "version {token} does not wait to be rotated in; have Secrets Manager rotate the secret"
            )));
        }
        let pair = match self.value_of_version(&name, &token).await?.map(|text| Material::read(&text)) {
            None => None,
            Some(Ok(Some(material))) => {
                let leaf = Leaf::from_pem(&material.certificate).map_err(|error| refused(error.to_string()))?;
                Some((material, leaf))
            }
            Some(_) => {
                let why = format!("version {token} is labelled AWSPENDING and is not a pair; take the label off it");
                return Err(refused(why));
            }
        };
        Ok(Some(Rotation { name, step, token, pair }))
    }

    /// Fails when what waits to be rotated in has ended, or is older than what has become current meanwhile: the next rotation
    /// begins anew.
    pub async fn give_way(&self, rotation: &Rotation, record: &Record, now: OffsetDateTime) -> Result<(), Failure> {
        let Some((_, leaf)) = &rotation.pair else { return Ok(()) };
        let why = if record.current.as_ref().is_some_and(|current| leaf.not_before < *current.not_before) {
            "a newer pair has become current meanwhile; have Secrets Manager rotate it again if that is not enough"
        } else if leaf.not_after <= now {
            "what waited to be rotated in has expired; have Secrets Manager rotate it again"
        } else {
            return Ok(());
        };
        self.give_up(&rotation.name, &rotation.token).await?;
        Err(Failure::permanent(format!("rotate the secret of `{}`", rotation.name), why))
    }
}

impl Rotation {
    /// Whether it is not time yet for the pair to become current.
    pub fn stays_staged(&self) -> bool {
        self.step != Step::FinishSecret
    }

    /// Makes it the attempt's task to bring about the version that is asked for, from what is there already.
    pub fn join(&self, attempt: &mut Attempt, issuer: Option<&Arn>) {
        attempt.rotation = Some(self.token.clone());
        let Some((_, leaf)) = &self.pair else {
            // What waits in another version goes into this one.
            attempt.staged = None;
            return;
        };
        let (version_id, serial, issuer) = (self.token.clone(), leaf.serial.clone(), issuer.cloned());
        attempt.staged = Some(Staged { version_id, serial, issuer });
        attempt.end = Some(leaf.not_after.into());
    }

    /// What to say of a pair that these trust stores keep from becoming current.
    pub fn waits(&self, stores: &BTreeSet<StoreName>) -> Failure {
        let stores: Vec<_> = stores.iter().map(|store| format!("`{store}`")).collect();
        let why = format!("it becomes current once these trust stores hold its CA: {}", stores.join(", "));
        Failure::retryable(format!("rotate the secret of `{}`", self.name), why)
    }

    /// The pair, which the step `createSecret` has to have brought.
    pub fn pair(&self) -> Result<&(Material, Leaf), Failure> {
        let why = || format!("version {} holds no pair yet", self.token);
        self.pair.as_ref().ok_or_else(|| Failure::permanent(format!("rotate the secret of `{}`", self.name), why()))
    }
}
