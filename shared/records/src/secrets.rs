//! A secret's versions and their labels. Every write carries a token of ours as its version's id, so that a repeat meets what
//! the first try left.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, ReplicaRegionType, SecretListEntry, StatusType, Tag};
use lifecycle::attempt::empty_version;
use lifecycle::import::Imported;
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::{Origin, Record};
use lifecycle::renewal::Replica;
use runtime::Failure;
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use crate::Records;

/// The stages of a version. `AWSPENDING` marks only a complete, verified pair.
pub const CURRENT: &str = "AWSCURRENT";
pub const PREVIOUS: &str = "AWSPREVIOUS";
pub const PENDING: &str = "AWSPENDING";
/// A key and its CSR that wait for their certificate.
pub const KEY: &str = "everleaf-key";

/// The last pair that a deployment failed on; never promoted again.
pub const REJECTED: &str = "everleaf-rejected";

/// A secret without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub arn: Arn,
    /// The version that `AWSCURRENT` is on.
    pub current: Option<String>,
    /// The version that a deployment failed on.
    pub rejected: Option<String>,
    /// The version that `AWSPENDING` is on.
    pub pending: Option<String>,
    /// Secrets Manager has been told which function rotates it.
    pub rotates: bool,
    /// When anything about the secret was last changed, by the clock of Secrets Manager.
    pub changed: OffsetDateTime,
    pub pending_deletion: bool,
    /// The region whose replica it is.
    pub replica_of: Option<String>,
    /// By region, with what Secrets Manager says of one that failed.
    pub replicas: BTreeMap<String, Option<String>>,
    pub tags: BTreeMap<String, String>,
}

/// A version that was to be written.
pub enum Put {
    Written,
    /// Our own token had been there before, with other bytes. Those win.
    AlreadyThere,
}

/// A promotion that was to be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Promotion {
    Done,
    /// `AWSCURRENT` was not on the version that the decision was made on.
    Overtaken,
}

impl Records {
    pub fn secret_name(&self, name: &CertificateName) -> String {
        format!("{}/{name}", self.settings.prefix)
    }

    /// The secret's state; `None` when there is no such secret.
    pub async fn describe(&self, name: &CertificateName) -> Result<Option<State>, Failure> {
        let doing = || format!("look at the secret of `{name}`");
        let answer = self.secretsmanager.describe_secret().secret_id(self.secret_name(name)).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                return Ok(None);
            }
            Err(error) => return Err(Failure::aws(doing(), error)),
        };
        let legible = |what: &str| Failure::permanent(doing(), format!("AWS answered without a legible {what}"));
        let stages = answer.version_ids_to_stages.unwrap_or_default();
        let version = |stage: &str| {
            let found = stages.iter().find(|(_, labels)| labels.iter().any(|label| label == stage));
            found.map(|(version, _)| version.clone())
        };
        let arn: Arn = answer.arn.as_deref().unwrap_or_default().parse().map_err(|_| legible("ARN"))?;
        Ok(Some(State {
            replica_of: answer.primary_region.filter(|region| is_elsewhere(arn.as_str(), region)),
            arn,
            current: version(CURRENT),
            rejected: version(REJECTED),
            pending: version(PENDING),
            rotates: answer.rotation_enabled == Some(true),
            changed: answer.last_changed_date.and_then(moment).ok_or_else(|| legible("LastChangedDate"))?,
            pending_deletion: answer.deleted_date.is_some(),
            replicas: answer
                .replication_status
                .unwrap_or_default()
                .into_iter()
                .filter_map(|replica| {
                    let failed = replica.status == Some(StatusType::Failed);
                    Some((replica.region?, failed.then(|| replica.status_message.unwrap_or_default())))
                })
                .collect(),
            tags: answer.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?))).collect(),
        }))
    }

    /// Creates the secret holding `{}`: a secret's first version always becomes current, so it must be one that breaks nothing.
    /// `None` when a secret of that name exists.
    pub async fn create(&self, name: &CertificateName, origin: &Origin) -> Result<Option<Arn>, Failure> {
        let doing = || format!("create the secret of `{name}`");
        let answer = self
            .secretsmanager
            .create_secret()
            .name(self.secret_name(name))
            .client_request_token(empty_version(&self.settings.prefix, name))
            .description("Certificate and private key, kept and renewed by Everleaf")
            .set_kms_key_id(self.settings.kms_key.clone())
            .secret_string("{}")
            .set_add_replica_regions(self.replicas(&self.settings.replica_regions))
            .tags(tag("everleaf:certificate", &self.secret_name(name)))
            .tags(tag("everleaf:origin", origin.as_str()))
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let arn = answer.arn().unwrap_or_default().parse();
                arn.map(Some).map_err(|_| Failure::permanent(doing(), "AWS answered without the secret's ARN"))
            }
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_exists_exception()) => Ok(None),
            Err(error) if error.code() == Some("InvalidRequestException") => Err(Failure::permanent(
                doing(),
                "a secret of that name is scheduled for deletion; restore it, or wait until it is gone",
            )),
            Err(error) => Err(Failure::aws(doing(), error)),
        }
    }

    /// Has these regions hold a replica of the secret too.
    pub async fn replicate(&self, name: &CertificateName, regions: &[String]) -> Result<(), Failure> {
        let request = self.secretsmanager.replicate_secret_to_regions().secret_id(self.secret_name(name));
        match request.set_add_replica_regions(self.replicas(regions)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::aws(format!("replicate the secret of `{name}` to {}", regions.join(", ")), error)),
        }
    }

    /// The regions whose replica of the secret is not as it should be.
    pub fn faulty_replicas(&self, state: &State) -> BTreeMap<String, Replica> {
        let fault = |region: &String| match state.replicas.get(region) {
            None => Some((region.clone(), Replica::Missing)),
            Some(failed) => Some((region.clone(), Replica::Failed(failed.clone()?))),
        };
        self.settings.replica_regions.iter().filter_map(fault).collect()
    }

    /// A multi-Region key has the same ARN in each of its regions, but for the region.
    fn replicas(&self, regions: &[String]) -> Option<Vec<ReplicaRegionType>> {
        let key_in = |region: &String| {
            let key = self.settings.kms_key.as_deref()?;
            let parts = key.split(':').enumerate().map(|(place, part)| if place == 3 { region } else { part });
            Some(parts.collect::<Vec<_>>().join(":"))
        };
        let replica = |region: &String| ReplicaRegionType::builder().region(region).set_kms_key_id(key_in(region)).build();
        (!regions.is_empty()).then(|| regions.iter().map(replica).collect())
    }

    /// Writes a version under `token`, with `stage` on it.
    pub async fn put_version(
        &self,
        name: &CertificateName,
        token: &str,
        stage: &str,
        value: &SecretString,
    ) -> Result<Put, Failure> {
        let put = self.secretsmanager.put_secret_value().secret_id(self.secret_name(name)).client_request_token(token);
        match put.version_stages(stage).secret_string(value.expose_secret()).send().await {
            Ok(_) => Ok(Put::Written),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_exists_exception()) => {
                Ok(Put::AlreadyThere)
            }
            // One that was just created may not be known everywhere yet; one that is gone the sweep tells of.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                Err(Failure::retryable(format!("write to the secret of `{name}`"), error.into_service_error()))
            }
            Err(error) => Err(Failure::aws(format!("write to the secret of `{name}`"), error)),
        }
    }

    /// The value of a version; `None` when there is no such version.
    pub async fn value_of_version(&self, name: &CertificateName, version: &str) -> Result<Option<SecretString>, Failure> {
        let get = self.secretsmanager.get_secret_value().secret_id(self.secret_name(name)).version_id(version);
        Ok(self.value(name, get).await?.map(|(_, value)| value))
    }

    /// The version that `stage` is on, with its value; `None` when it is on none.
    pub async fn value_at_stage(&self, name: &CertificateName, stage: &str) -> Result<Option<(String, SecretString)>, Failure> {
        let get = self.secretsmanager.get_secret_value().secret_id(self.secret_name(name)).version_stage(stage);
        self.value(name, get).await
    }

    async fn value(
        &self,
        name: &CertificateName,
        get: aws_sdk_secretsmanager::operation::get_secret_value::builders::GetSecretValueFluentBuilder,
    ) -> Result<Option<(String, SecretString)>, Failure> {
        match get.send().await {
            Ok(answer) => {
                let version = answer.version_id.unwrap_or_default();
                Ok(Some((version, answer.secret_string.unwrap_or_default().into())))
            }
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => Ok(None),
            Err(error) => Err(Failure::aws(format!("read the secret of `{name}`"), error)),
        }
    }

    /// Moves `AWSCURRENT` from the version that the decision was made on to another; `AWSPREVIOUS` follows by itself.
    pub async fn move_current(&self, name: &CertificateName, from: &str, to: &str) -> Result<Promotion, Failure> {
        let update = self.secretsmanager.update_secret_version_stage().secret_id(self.secret_name(name)).version_stage(CURRENT);
        match update.move_to_version_id(to).remove_from_version_id(from).send().await {
            Ok(_) => Ok(Promotion::Done),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_invalid_parameter_exception()) => {
                Ok(Promotion::Overtaken)
            }
            Err(error) => Err(Failure::aws(format!("make the new pair of `{name}` current"), error)),
        }
    }

    /// Schedules the secret for deletion and says when that is; until then it can be restored. `None`: there is none, or it was
    /// scheduled before.
    pub async fn delete_secret(&self, name: &CertificateName) -> Result<Option<OffsetDateTime>, Failure> {
        let refused = |why| Err(Failure::retryable(format!("delete the secret of `{name}`"), why));
        let deleted = self.delete(name).await?;
        if deleted.is_some() {
            return Ok(deleted);
        }
        let Some(State { replicas, .. }) = self.describe(name).await?.filter(|state| !state.pending_deletion) else {
            return Ok(None);
        };
        if replicas.is_empty() {
            return refused("Secrets Manager does not delete it yet");
        }
        // It deletes no secret that has any.
        let request = self.secretsmanager.remove_regions_from_replication().secret_id(self.secret_name(name));
        let removed = request.set_remove_replica_regions(Some(replicas.into_keys().collect())).send().await;
        removed.map_err(|error| Failure::aws(format!("remove the replicas of the secret of `{name}`"), error))?;
        match self.delete(name).await? {
            None => refused("its replicas are not gone yet"),
            deleted => Ok(deleted),
        }
    }

    async fn delete(&self, name: &CertificateName) -> Result<Option<OffsetDateTime>, Failure> {
        match self.secretsmanager.delete_secret().secret_id(self.secret_name(name)).send().await {
            Ok(answer) => Ok(answer.deletion_date.and_then(moment)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception() || error.is_invalid_request_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(Failure::aws(format!("delete the secret of `{name}`"), error)),
        }
    }

    /// Marks this version as the one that a deployment failed on, and no other.
    pub async fn reject(&self, name: &CertificateName, version: &str) -> Result<(), Failure> {
        let doing = || format!("mark version {version} of the secret of `{name}` as rejected");
        let Some(state) = self.describe(name).await? else { return Err(Failure::permanent(doing(), "the secret is gone")) };
        if state.pending.as_deref() == Some(version) {
            self.give_up(name, version).await?;
        }
        if state.rejected.as_deref() == Some(version) {
            return Ok(());
        }
        let update = self.secretsmanager.update_secret_version_stage().secret_id(self.secret_name(name)).version_stage(REJECTED);
        let update = update.move_to_version_id(version).set_remove_from_version_id(state.rejected);
        update.send().await.map(|_| ()).map_err(|error| Failure::aws(doing(), error))
    }

    /// Takes the label `AWSPENDING` off a version. Else Secrets Manager would take it up again in place of each new rotation.
    pub async fn give_up(&self, name: &CertificateName, version: &str) -> Result<(), Failure> {
        let update = self.secretsmanager.update_secret_version_stage().secret_id(self.secret_name(name)).version_stage(PENDING);
        match update.remove_from_version_id(version).send().await {
            Ok(_) => Ok(()),
            // Somebody else has just taken it off.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_invalid_parameter_exception()) => Ok(()),
            Err(error) => Err(Failure::aws(format!("take the label {PENDING} off version {version} of `{name}`"), error)),
        }
    }

    /// Tags for people, policies and rebuilding. They are written last and decide nothing.
    pub async fn tag(&self, record: &Record) -> Result<(), Failure> {
        let tags = self.tags(record).iter().map(|(key, value)| tag(key, value)).collect();
        let request = self.secretsmanager.tag_resource().secret_id(self.secret_name(&record.name)).set_tags(Some(tags));
        request.send().await.map(|_| ()).map_err(|error| Failure::aws(format!("tag the secret of `{}`", record.name), error))
    }

    fn tags(&self, record: &Record) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        let mut add = |key: &str, value: String| _ = tags.insert(key.to_owned(), value);
        add("everleaf:certificate", self.secret_name(&record.name));
        add("everleaf:origin", record.origin.as_str().to_owned());
        if let Some(pair) = &record.current {
            add(SERIAL_TAG, pair.serial.to_string());
            add("everleaf:not-after", rfc3339(*pair.not_after));
            pair.issuer.iter().for_each(|issuer| add(ISSUER_TAG, issuer.to_string()));
        }
        let before = record.previous.as_ref().and_then(|pair| pair.issuer.as_ref());
        before.into_iter().for_each(|issuer| add(PREVIOUS_ISSUER_TAG, issuer.to_string()));
        if let Some(window) = record.options.renew_before {
            add(RENEW_BEFORE_TAG, format!("{} hours", window.as_secs() / 3600));
        }
        record.options.canary.iter().for_each(|canary| add(CANARY_TAG, canary.to_string()));
        record.options.maintenance_window.iter().for_each(|window| add(WINDOW_TAG, window.to_string()));
        if record.options.paused {
            add(PAUSED_TAG, "true".to_owned());
        }
        if let Some(Imported { certificate_arn: Some(arn), .. }) = &record.imported {
            add(IMPORT_TAG, arn.to_string());
        }
        for (index, service) in record.options.tagged_services().enumerate() {
            add(&format!("{SERVICE_TAG}{}", index + 1), service.to_string());
        }
        tags
    }

    /// Whether the tags that a secret has say what its record says.
    pub fn is_tagged(&self, record: &Record, has: &BTreeMap<String, String>) -> bool {
        self.tags(record).iter().all(|(key, value)| has.get(key) == Some(value)) && gone(record, has).next().is_none()
    }

    /// Takes the tags away of what the record no longer has. `has` is what stands on the secret.
    pub async fn untag(&self, record: &Record, has: &BTreeMap<String, String>) -> Result<(), Failure> {
        let gone: Vec<_> = gone(record, has).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let request = self.secretsmanager.untag_resource().secret_id(self.secret_name(&record.name)).set_tag_keys(Some(gone));
        request.send().await.map(|_| ()).map_err(|error| Failure::aws(format!("untag the secret of `{}`", record.name), error))
    }

    /// One page of the stack's secrets by their certificate names, and where the next page starts. Those that are replicas of another
    /// region's belong to a stack there.
    pub async fn list(&self, token: Option<String>) -> Result<(Vec<CertificateName>, Option<String>), Failure> {
        let prefix = format!("{}/", self.settings.prefix);
        let filter = |key, value: &str| Filter::builder().key(key).values(value).build();
        let answer = self
            .secretsmanager
            .list_secrets()
            .filters(filter(FilterNameStringType::Name, &prefix))
            .filters(filter(FilterNameStringType::TagKey, "everleaf:certificate"))
            .max_results(100)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| Failure::aws("list the stack's secrets", error))?;
        let replicas = |secret: &&SecretListEntry| {
            secret.primary_region().is_some_and(|region| is_elsewhere(secret.arn().unwrap_or_default(), region))
        };
        let own = answer.secret_list().iter().filter(|secret| !replicas(secret));
        let names = own.filter_map(|secret| secret.name()?.strip_prefix(&prefix)?.parse().ok()).collect();
        Ok((names, answer.next_token))
    }
}

pub(crate) const ISSUER_TAG: &str = "everleaf:issuer";
pub(crate) const PREVIOUS_ISSUER_TAG: &str = "everleaf:previous-issuer";
pub(crate) const SERIAL_TAG: &str = "everleaf:serial";
pub(crate) const RENEW_BEFORE_TAG: &str = "everleaf:renew-before";
/// The certificate in ACM that holds the pair as well.
pub(crate) const IMPORT_TAG: &str = "everleaf:acm-certificate";
pub(crate) const CANARY_TAG: &str = "everleaf:canary";
pub(crate) const WINDOW_TAG: &str = "everleaf:maintenance-window";
pub(crate) const PAUSED_TAG: &str = "everleaf:paused";
pub(crate) const SERVICE_TAG: &str = "everleaf:service-";

/// The tags of a secret that stand for what its record no longer has.
fn gone<'a>(record: &'a Record, has: &'a BTreeMap<String, String>) -> impl Iterator<Item = &'a String> {
    let services = record.options.tagged_services().count();
    let kept = move |index: &str| index.parse::<usize>().is_ok_and(|index| (1..=services).contains(&index));
    has.keys().filter(move |key| match key.strip_prefix(SERVICE_TAG) {
        Some(index) => !kept(index),
        None if *key == IMPORT_TAG => record.imported.is_none(),
        None => match key.as_str() {
            ISSUER_TAG => record.current.as_ref().is_some_and(|pair| pair.issuer.is_none()),
            PREVIOUS_ISSUER_TAG => record.previous.as_ref().is_some_and(|pair| pair.issuer.is_none()),
            RENEW_BEFORE_TAG => record.options.renew_before.is_none(),
            CANARY_TAG => record.options.canary.is_none(),
            WINDOW_TAG => record.options.maintenance_window.is_none(),
            PAUSED_TAG => !record.options.paused,
            _ => false,
        },
    })
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

/// Whether a secret's ARN is of another region than this one.
fn is_elsewhere(arn: &str, region: &str) -> bool {
    arn.split(':').nth(3) != Some(region)
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

fn moment(at: aws_sdk_secretsmanager::primitives::DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanos()).ok()
}
