//! AWS Secrets Manager: versions never change, labels move between them.
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/Welcome.html>

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, Time, UtcOffset};

use crate::{AwsError, World, rotation};

pub(crate) const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
pub(crate) const PENDING: &str = "AWSPENDING";

/// Beyond these, versions older than a day that carry no label are removed.
const KEPT_VERSIONS: usize = 100;
/// AWS warns of its quota above one new version in ten minutes, sustained; the exact number is not published.
const MOST_VERSIONS_A_DAY: usize = 144;
/// A forced deletion runs in the background: the name stays taken for a moment.
const FORCED_DELETION: Duration = Duration::seconds(2);

#[derive(Default)]
pub struct SecretsManager {
    secrets: BTreeMap<String, Secret>,
    /// The names in the order of creation, by [`Secret::number`]; of some the secret is gone.
    ever_created: BTreeMap<u64, String>,
    pub(crate) rotations: Vec<rotation::Due>,
}

pub struct Secret {
    pub arn: String,
    pub name: String,
    pub tags: BTreeMap<String, String>,
    /// The oldest first.
    pub versions: Vec<Version>,
    pub rotation: Option<rotation::Rotation>,
    description: Value,
    kms_key_id: Value,
    /// By region, as `ReplicationStatus` shows it.
    pub replicas: BTreeMap<String, Value>,
    /// The region whose replica this is.
    replica_of: Option<String>,
    number: u64,
    created: OffsetDateTime,
    changed: OffsetDateTime,
    accessed: Option<OffsetDateTime>,
    deletion: Option<OffsetDateTime>,
}

pub struct Version {
    pub id: String,
    pub secret_string: Option<String>,
    /// In Base64, as on the wire.
    pub secret_binary: Option<String>,
    pub stages: BTreeSet<String>,
    created: OffsetDateTime,
    accessed: Option<OffsetDateTime>,
}

impl SecretsManager {
    /// The string that `GetSecretValue` would answer for a name or an ARN: of the version, of the stage, or of `AWSCURRENT`.
    pub fn value(&self, secret: &str, version_id: Option<&str>, stage: Option<&str>) -> Option<&str> {
        let secret = self.find(secret).filter(|secret| secret.deletion.is_none())?;
        secret.versions[secret.version(version_id, stage).ok()?].secret_string.as_deref()
    }

    /// A secret by its name, its ARN, or its ARN without the random suffix.
    pub fn find(&self, id: &str) -> Option<&Secret> {
        let Some((_, named)) = id.split_once(":secret:") else { return self.secrets.get(id) };
        let whole = named.rsplit_once('-').and_then(|(name, _)| self.secrets.get(name)).filter(|secret| secret.arn == id);
        whole.or_else(|| self.secrets.get(named).filter(|secret| secret.arn.starts_with(id)))
    }

    /// The customer's key that a secret is encrypted with.
    pub(crate) fn kms_key(&self, id: &str) -> Option<&str> {
        self.find(id)?.kms_key_id.as_str()
    }

    /// All secrets, those that wait for their deletion too.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.values()
    }

    /// The secret that the input names, even when it waits for its deletion.
    fn named(&mut self, now: OffsetDateTime, input: &Value) -> Result<&mut Secret, AwsError> {
        let name = input["SecretId"].as_str().and_then(|id| self.find(id)).map(|secret| secret.name.clone()).unwrap_or_default();
        if self.secrets.get(&name).is_some_and(|secret| secret.deletion.is_some_and(|when| when <= now)) {
            self.secrets.remove(&name);
        }
        self.secrets.get_mut(&name).ok_or_else(|| not_found("secret."))
    }

    pub(crate) fn by_name(&mut self, name: &str) -> Option<&mut Secret> {
        self.secrets.get_mut(name)
    }

    /// The secret that the input names, to be read or changed.
    pub(crate) fn living(&mut self, now: OffsetDateTime, input: &Value) -> Result<&mut Secret, AwsError> {
        let secret = self.named(now, input)?;
        match secret.deletion {
            Some(_) => Err(invalid_request("You can't perform this operation on the secret because it was marked for deletion.")),
            None => Ok(secret),
        }
    }
}

pub fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    check_model(input)?;
    let secrets = &mut world.secrets;
    let reads = ["DescribeSecret", "GetSecretValue", "ListSecretVersionIds"].contains(&operation);
    if !reads && secrets.named(now, input).is_ok_and(|secret| secret.replica_of.is_some()) {
        return Err(AwsError::new("InvalidParameterException", "Operation not permitted on a replica secret."));
    }
    match operation {
        "CancelRotateSecret" => rotation::cancel(world, now, input),
        "CreateSecret" => create(world, now, input),
        "DeleteSecret" => delete(world, now, input),
        "DescribeSecret" => Ok(secrets.named(now, input)?.described("VersionIdsToStages")),
        "GetRandomPassword" => random_password(world, input),
        "GetSecretValue" => secrets.living(now, input)?.read(now, input),
        "RemoveRegionsFromReplication" => {
            let secret = secrets.living(now, input)?;
            secret.replicas.retain(|region, _| strings(&input["RemoveReplicaRegions"]).all(|gone| gone != region));
            secret.changed = now;
            Ok(secret.replication())
        }
        "ReplicateSecretToRegions" => {
            let region = world.region.clone();
            let secret = world.secrets.living(now, input)?;
            secret.replicate(&region, input)?;
            secret.changed = now;
            Ok(secret.replication())
        }
        "ListSecretVersionIds" => secrets.named(now, input)?.list_versions(input),
        "ListSecrets" => list(secrets, now, input),
        "PutSecretValue" => put(world, now, input),
        "RestoreSecret" => {
            let secret = secrets.named(now, input)?;
            secret.deletion = None;
            Ok(secret.changed_at(now))
        }
        "RotateSecret" => rotation::rotate(world, now, input),
        "TagResource" => secrets.living(now, input)?.tag(now, &input["Tags"]),
        "UntagResource" => secrets.living(now, input)?.untag(now, &input["TagKeys"]),
        "UpdateSecretVersionStage" => move_label(world, now, input),
        _ => Err(AwsError::unknown_operation("secretsmanager", operation)),
    }
}

fn create(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let name = input["Name"].as_str().ok_or_else(|| invalid("You must provide a value for the Name parameter."))?;
    let version = Version::from_input(now, input)?;
    match world.secrets.named(now, &json!({ "SecretId": name })) {
        Ok(secret) if secret.deletion.is_some() => {
            let message = "You can't create this secret because a secret with this name is already scheduled for deletion.";
            return Err(invalid_request(message));
        }
        Ok(secret) => match version {
            Some(version) if secret.knows(&version)? => {
                return Ok(json!({ "ARN": secret.arn, "Name": name, "VersionId": version.id }));
            }
            _ => {
                return Err(AwsError::new(
                    "ResourceExistsException",
                    format!("The operation failed because the secret {name} already exists."),
                ));
            }
        },
        Err(_) => {}
    }
    let suffix = world.suffix();
    let mut secret = Secret {
        arn: world.arn("secretsmanager", &format!("secret:{name}-{suffix}")),
        name: name.to_owned(),
        tags: BTreeMap::new(),
        versions: Vec::new(),
        rotation: None,
        description: input["Description"].clone(),
        kms_key_id: input["KmsKeyId"].clone(),
        replicas: BTreeMap::new(),
        replica_of: None,
        number: world.secrets.ever_created.len() as u64,
        created: now,
        changed: now,
        accessed: None,
        deletion: None,
    };
    secret.tag(now, &input["Tags"])?;
    secret.replicate(&world.region, input)?;
    let mut answer = json!({ "ARN": secret.arn, "Name": name });
    if let Some(version) = version {
        answer["VersionId"] = json!(version.id);
        let labels = secret.add(now, version, BTreeSet::new())?;
        announce(world, now, &answer, &labels);
    }
    world.secrets.ever_created.insert(secret.number, name.to_owned());
    world.secrets.secrets.insert(name.to_owned(), secret);
    Ok(answer)
}

/// From now on the secret is the replica of one in that region, and is changed there alone.
pub fn make_replica(world: &mut World, secret: &str, region: &str) {
    let secret = world.secrets.secrets.get_mut(secret).expect("there is such a secret");
    secret.replica_of = Some(region.to_owned());
}

/// What is put from now on is encrypted with this key.
pub fn encrypt(world: &mut World, secret: &str, kms_key: &str) {
    world.secrets.secrets.get_mut(secret).expect("there is such a secret").kms_key_id = json!(kms_key);
}

/// From now on the replica in this region is not kept in step.
pub fn fail_replica(world: &mut World, secret: &str, region: &str, why: &str) {
    let replica = world.secrets.secrets.get_mut(secret).and_then(|secret| secret.replicas.get_mut(region));
    let replica = replica.expect("the secret has a replica there");
    (replica["Status"], replica["StatusMessage"]) = (json!("Failed"), json!(why));
}

fn put(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let secret = world.secrets.living(now, input)?;
    let Some(version) = Version::from_input(now, input)? else {
        return Err(invalid_request("You must provide either SecretString or SecretBinary."));
    };
    let id = version.id.clone();
    let mut labels: BTreeSet<_> = strings(&input["VersionStages"]).map(str::to_owned).collect();
    if labels.is_empty() {
        labels.insert(CURRENT.to_owned());
    }
    let labels = if secret.knows(&version)? { BTreeSet::new() } else { secret.add(now, version, labels)? };
    let stages = &secret.versions[secret.version(Some(&id), None)?].stages;
    let answer = json!({ "ARN": secret.arn, "Name": secret.name, "VersionId": id, "VersionStages": stages });
    announce(world, now, &answer, &labels);
    Ok(answer)
}

/// `UpdateSecretVersionStage`. A label that sits elsewhere is moved only by one who says from where: an optimistic lock.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>
fn move_label(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let label =
        input["VersionStage"].as_str().ok_or_else(|| invalid("You must provide a value for the VersionStage parameter."))?;
    let (from, to) = (input["RemoveFromVersionId"].as_str(), input["MoveToVersionId"].as_str());
    let secret = world.secrets.living(now, input)?;
    for id in [from, to].into_iter().flatten() {
        secret.version(Some(id), None)?;
    }
    let holder = secret.versions.iter().find(|version| version.stages.contains(label)).map(|version| version.id.clone());
    match (from, to, holder.as_deref()) {
        (None, None, _) => return Err(invalid("You must provide MoveToVersionId, RemoveFromVersionId, or both.")),
        (Some(from), _, holder) if holder != Some(from) => {
            return Err(invalid(format!("Staging label {label} isn't attached to version {from}.")));
        }
        (None, Some(to), Some(holder)) if to != holder => {
            return Err(invalid(format!(
                "The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached to version \
                 {holder}, so you must explicitly reference that version in RemoveFromVersionId."
            )));
        }
        (_, None, _) if label == CURRENT => {
            let message =
                "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.";
            return Err(invalid(message));
        }
        (_, None, _) => secret.versions.iter_mut().for_each(|version| _ = version.stages.remove(label)),
        (_, Some(to), _) => {
            secret.check_labels(&[label.to_owned()].into())?;
            secret.attach(label, to);
        }
    }
    let answer = secret.changed_at(now);
    if let Some(to) = to.filter(|to| holder.as_deref() != Some(to)) {
        let moved = json!({ "ARN": answer["ARN"], "Name": answer["Name"], "VersionId": to });
        announce(world, now, &moved, &[label.to_owned()].into());
    }
    Ok(answer)
}

/// AWS tells of every label but `AWSPENDING` and `AWSPREVIOUS`.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/monitoring-eventbridge.html>
fn announce(world: &mut World, now: OffsetDateTime, version: &Value, labels: &BTreeSet<String>) {
    for label in labels.iter().filter(|label| ![PENDING, PREVIOUS].contains(&label.as_str())) {
        let detail = json!({ "name": version["Name"], "labelUpdated": label, "versionId": version["VersionId"] });
        let resources: Vec<_> = version["ARN"].as_str().into_iter().map(str::to_owned).collect();
        world.emit(now, "aws.secretsmanager", "Secret Label Updated", &resources, detail);
    }
}

fn delete(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let wait = match (input["RecoveryWindowInDays"].as_i64(), input["ForceDeleteWithoutRecovery"].as_bool()) {
        (Some(_), Some(true)) => {
            return Err(invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays."));
        }
        (Some(days), _) if !(7..=30).contains(&days) => {
            return Err(invalid("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive)."));
        }
        (_, Some(true)) => FORCED_DELETION,
        (days, _) => Duration::days(days.unwrap_or(30)),
    };
    let secret = world.secrets.named(now, input)?;
    if !secret.replicas.is_empty() {
        return Err(invalid_request("You can't delete secret that still has replica regions."));
    }
    if secret.deletion.is_some() && wait != FORCED_DELETION {
        return Err(invalid_request("You tried to perform the operation on a secret that's currently marked deleted."));
    }
    secret.deletion = Some(now + wait);
    let mut answer = secret.changed_at(now);
    answer["DeletionDate"] = seconds(now + wait);
    Ok(answer)
}

/// Pages go by creation, so that what is created or deleted between two pages neither hides nor repeats another secret.
fn list(secrets: &SecretsManager, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    if input["SortBy"].as_str().is_some_and(|by| by != "created-date") {
        return Err(invalid("Local AWS sorts secrets by created-date only."));
    }
    let filters = input["Filters"].as_array().map_or(&[][..], Vec::as_slice);
    let known = ["name", "description", "tag-key", "tag-value", "all"];
    if let Some(filter) = filters.iter().find(|filter| !known.contains(&filter["Key"].as_str().unwrap_or_default())) {
        return Err(invalid(format!("Local AWS does not filter by {}.", filter["Key"])));
    }
    let start = match input["NextToken"].as_str().map(str::parse::<u64>) {
        Some(number) => Some(number.map_err(|_| AwsError::new("InvalidNextTokenException", "The NextToken value is invalid."))?),
        None => None,
    };
    let start = start.map_or(Bound::Unbounded, Bound::Excluded);
    let created: Box<dyn Iterator<Item = _>> = match input["SortOrder"] == "desc" {
        true => Box::new(secrets.ever_created.range((Bound::Unbounded, start)).rev()),
        false => Box::new(secrets.ever_created.range((start, Bound::Unbounded))),
    };
    let living = created.filter_map(|(number, name)| secrets.secrets.get(name).filter(|secret| secret.number == *number));
    let listed = living.filter(|secret| {
        secret.deletion.is_none_or(|when| when > now && input["IncludePlannedDeletion"] == true)
            && filters.iter().all(|filter| secret.passes(filter))
    });
    let found: Vec<_> = listed.take(page_size(input) + 1).collect();
    let page = &found[..found.len().min(page_size(input))];
    let entries: Vec<_> = page.iter().map(|secret| secret.described("SecretVersionsToStages")).collect();
    let mut answer = json!({ "SecretList": entries });
    if let Some(last) = page.last().filter(|_| found.len() > page.len()) {
        answer["NextToken"] = json!(last.number.to_string());
    }
    Ok(answer)
}

/// A run gives the same passwords each time, like everything random in [`World`].
fn random_password(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    let kinds = [
        (input["ExcludeLowercase"] != true, "abcdefghijklmnopqrstuvwxyz"),
        (input["ExcludeUppercase"] != true, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (input["ExcludeNumbers"] != true, "0123456789"),
        (input["ExcludePunctuation"] != true, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        (input["IncludeSpace"] == true, " "),
    ];
    let excluded = input["ExcludeCharacters"].as_str().unwrap_or_default();
    let left = |kind: &str| kind.chars().filter(|character| !excluded.contains(*character)).collect();
    let kinds: Vec<Vec<char>> = kinds.iter().filter(|(included, _)| *included).map(|(_, kind)| left(kind)).collect();
    let (all, each) = (kinds.concat(), input["RequireEachIncludedType"] != false);
    if all.is_empty() || each && kinds.iter().any(Vec::is_empty) {
        return Err(invalid("The password can't be generated: the characters that you exclude leave none of a required type."));
    }
    let length = input["PasswordLength"].as_u64().unwrap_or(32) as usize;
    if each && length < kinds.len() {
        return Err(invalid("Password length is too short based on the required types."));
    }
    loop {
        let mut dice = || world.uuid().bytes().take(8).fold(0, |sum, byte| sum * 31 + usize::from(byte));
        let password: String = (0..length).map(|_| all[dice() % all.len()]).collect();
        if !each || kinds.iter().all(|kind| password.contains(kind.as_slice())) {
            return Ok(json!({ "RandomPassword": password }));
        }
    }
}

impl Secret {
    /// The place of a version: by its identifier, by the label on it, or the current one.
    fn version(&self, id: Option<&str>, stage: Option<&str>) -> Result<usize, AwsError> {
        let label = stage.unwrap_or(CURRENT);
        let is_it = |version: &Version| id.map_or_else(|| version.stages.contains(label), |id| version.id == id);
        match (self.versions.iter().position(is_it), id) {
            (None, Some(id)) => Err(not_found(&format!("secret value for VersionId: {id}"))),
            (None, None) => Err(not_found(&format!("secret value for staging label: {label}"))),
            (Some(place), Some(_)) if stage.is_some() && !self.versions[place].stages.contains(label) => {
                Err(invalid_request("You provided a VersionStage that is not associated to the provided VersionId."))
            }
            (Some(place), _) => Ok(place),
        }
    }

    fn read(&mut self, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
        let place = self.version(input["VersionId"].as_str(), input["VersionStage"].as_str())?;
        if !self.versions[place].has_value() {
            return Err(not_found(&format!("secret value for VersionId: {}", self.versions[place].id)));
        }
        let today = Some(now.to_offset(UtcOffset::UTC).replace_time(Time::MIDNIGHT));
        self.accessed = today;
        self.versions[place].accessed = today;
        let version = &self.versions[place];
        Ok(without_nulls(json!({
            "ARN": self.arn, "Name": self.name, "VersionId": version.id, "VersionStages": version.stages,
            "CreatedDate": seconds(version.created), "SecretString": version.secret_string, "SecretBinary": version.secret_binary,
        })))
    }

    /// Whether the version is here already; an error when its identifier is here with other data.
    fn knows(&self, new: &Version) -> Result<bool, AwsError> {
        match self.versions.iter().find(|version| version.id == new.id) {
            None => Ok(false),
            Some(old) if !old.has_value() => Ok(false),
            Some(old) if (&old.secret_string, &old.secret_binary) == (&new.secret_string, &new.secret_binary) => Ok(true),
            Some(_) => Err(AwsError::new(
                "ResourceExistsException",
                format!(
                    "You can't use ClientRequestToken {} because that value is already in use for a version of secret {}.",
                    new.id, self.arn
                ),
            )),
        }
    }

    /// Adds a version and moves the labels to it; answers which. The first one is current, whatever was asked.
    pub(crate) fn add(
        &mut self,
        now: OffsetDateTime,
        version: Version,
        mut labels: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, AwsError> {
        let a_day_ago = now - Duration::DAY;
        if self.versions.iter().filter(|version| version.created > a_day_ago).count() >= MOST_VERSIONS_A_DAY {
            return Err(AwsError::new("LimitExceededException", "You've reached the maximum number of versions of this secret."));
        }
        if self.versions.is_empty() {
            labels.insert(CURRENT.to_owned());
        }
        self.check_labels(&labels)?;
        let id = version.id.clone();
        // One that waited for its value keeps its labels.
        if let Some(place) = self.versions.iter().position(|known| known.id == id) {
            labels.append(&mut self.versions.remove(place).stages);
        }
        self.versions.push(version);
        if labels.contains(CURRENT) {
            // As recorded from AWS: here, and not in UpdateSecretVersionStage, what stops being current stops pending too.
            for left in self.versions.iter_mut().filter(|version| version.stages.contains(CURRENT)) {
                left.stages.remove(PENDING);
            }
        }
        labels.iter().for_each(|label| self.attach(label, &id));
        let mut surplus = self.versions.len().saturating_sub(KEPT_VERSIONS);
        self.versions.retain(|version| {
            let kept = surplus == 0 || !version.stages.is_empty() || version.created > a_day_ago;
            surplus -= usize::from(!kept);
            kept
        });
        self.changed = now;
        Ok(labels)
    }

    /// Moves a label without asking. `AWSPREVIOUS` follows to the version that `AWSCURRENT` leaves.
    fn attach(&mut self, label: &str, to: &str) {
        let mut left = None;
        for version in &mut self.versions {
            if version.id == to {
                version.stages.insert(label.to_owned());
            } else if version.stages.remove(label) {
                left = Some(version.id.clone());
            }
        }
        if let Some(left) = left.filter(|_| label == CURRENT) {
            self.attach(PREVIOUS, &left);
        }
    }

    /// The quota counts the labels on all versions; each label sits on one.
    fn check_labels(&self, new: &BTreeSet<String>) -> Result<(), AwsError> {
        let labels: BTreeSet<_> = self.versions.iter().flat_map(|version| &version.stages).chain(new).collect();
        match labels.len() {
            ..=20 => Ok(()),
            _ => Err(AwsError::new(
                "LimitExceededException",
                "You exceeded the maximum number of staging labels allowed on a secret.",
            )),
        }
    }

    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/managing-secrets_tagging.html>
    fn tag(&mut self, now: OffsetDateTime, given: &Value) -> Result<Value, AwsError> {
        let mut tags = self.tags.clone();
        let allowed = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "+-=._:/@".contains(c));
        for tag in given.as_array().into_iter().flatten() {
            let (key, value) = (tag["Key"].as_str().unwrap_or_default(), tag["Value"].as_str().unwrap_or_default());
            let fits = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
            if !fits || !allowed(key) || !allowed(value) || key.starts_with("aws:") {
                return Err(invalid(format!("The tag {key:?} breaks the rules for tags.")));
            }
            tags.insert(key.to_owned(), value.to_owned());
        }
        if tags.len() > 50 {
            return Err(invalid("A secret can have at most 50 tags."));
        }
        self.tags = tags;
        self.changed = now;
        Ok(json!({}))
    }

    fn untag(&mut self, now: OffsetDateTime, keys: &Value) -> Result<Value, AwsError> {
        self.tags.retain(|key, _| strings(keys).all(|gone| gone != key));
        self.changed = now;
        Ok(json!({}))
    }

    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/replicate-secrets.html>
    fn replicate(&mut self, own_region: &str, input: &Value) -> Result<(), AwsError> {
        for replica in input["AddReplicaRegions"].as_array().into_iter().flatten() {
            let region = replica["Region"].as_str().unwrap_or_default();
            if region == own_region || self.replicas.contains_key(region) {
                return Err(invalid(format!("The secret is already in the region {region}.")));
            }
            let key = replica["KmsKeyId"].as_str().unwrap_or("alias/aws/secretsmanager");
            let status = json!({ "Region": region, "KmsKeyId": key, "Status": "InSync" });
            self.replicas.insert(region.to_owned(), status);
        }
        Ok(())
    }

    fn replication(&self) -> Value {
        json!({ "ARN": self.arn, "ReplicationStatus": self.replicas.values().collect::<Vec<_>>() })
    }

    fn changed_at(&mut self, now: OffsetDateTime) -> Value {
        self.changed = now;
        json!({ "ARN": self.arn, "Name": self.name })
    }

    fn described(&self, versions_member: &str) -> Value {
        let labelled = self.versions.iter().filter(|version| !version.stages.is_empty());
        let versions: BTreeMap<_, _> = labelled.map(|version| (&version.id, &version.stages)).collect();
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        without_nulls(json!({
            "ARN": self.arn, "Name": self.name, "Description": self.description, "KmsKeyId": self.kms_key_id,
            "CreatedDate": seconds(self.created), "LastChangedDate": seconds(self.changed),
            "RotationEnabled": self.rotation.as_ref().map(|_| true), "RotationLambdaARN": self.rotation.as_ref().map(|rotation| &rotation.function),
            "LastRotatedDate": self.rotation.as_ref().and_then(|rotation| rotation.rotated).map(seconds),
            "LastAccessedDate": self.accessed.map(seconds), "DeletedDate": self.deletion.map(seconds),
            "Tags": Some(tags).filter(|tags| !tags.is_empty()),
            "PrimaryRegion": self.replica_of.as_deref().or_else(|| self.arn.split(':').nth(3).filter(|_| !self.replicas.is_empty())),
            "ReplicationStatus": (!self.replicas.is_empty()).then(|| self.replication()["ReplicationStatus"].take()),
            versions_member: Some(versions).filter(|versions| !versions.is_empty()),
        }))
    }

    fn list_versions(&self, input: &Value) -> Result<Value, AwsError> {
        let start = match input["NextToken"].as_str() {
            Some(token) => 1 + self.version(Some(token), None)?,
            None => 0,
        };
        let listed = |version: &&Version| input["IncludeDeprecated"] == true || !version.stages.is_empty();
        let mut found: Vec<_> = self.versions[start..].iter().filter(listed).collect();
        let more = found.len() > page_size(input);
        found.truncate(page_size(input));
        let entries = found.iter().map(|version| {
            let key = self.kms_key_id.as_str().unwrap_or("DefaultEncryptionKey");
            without_nulls(json!({
                "VersionId": version.id, "CreatedDate": seconds(version.created), "KmsKeyIds": [key],
                "VersionStages": Some(&version.stages).filter(|stages| !stages.is_empty()),
                "LastAccessedDate": version.accessed.map(seconds),
            }))
        });
        Ok(without_nulls(json!({
            "ARN": self.arn, "Name": self.name, "Versions": entries.collect::<Vec<_>>(),
            "NextToken": found.last().filter(|_| more).map(|last| &last.id),
        })))
    }

    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/manage_search-secret.html>
    fn passes(&self, filter: &Value) -> bool {
        let mut texts = vec![self.name.as_str(), self.description.as_str().unwrap_or_default()];
        texts.extend(self.tags.iter().flat_map(|(key, value)| [key.as_str(), value]));
        strings(&filter["Values"]).any(|value| {
            let (wanted, value) = value.strip_prefix('!').map_or((true, value), |value| (false, value));
            let found = match filter["Key"].as_str() {
                Some("name") => self.name.starts_with(value),
                Some("description") => texts[1].to_lowercase().starts_with(&value.to_lowercase()),
                Some("tag-key") => self.tags.keys().any(|key| key.starts_with(value)),
                Some("tag-value") => self.tags.values().any(|tag| tag.starts_with(value)),
                _ => words(value).all(|word| texts.iter().any(|text| words(text).any(|found| found.starts_with(&word)))),
            };
            found == wanted
        })
    }
}

impl Version {
    pub(crate) fn empty(now: OffsetDateTime, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret_string: None,
            secret_binary: None,
            stages: BTreeSet::new(),
            created: now,
            accessed: None,
        }
    }

    fn has_value(&self) -> bool {
        self.secret_string.is_some() || self.secret_binary.is_some()
    }

    /// `None` when the input has no value. The token becomes the identifier; SDKs fill it in when the caller does not.
    fn from_input(now: OffsetDateTime, input: &Value) -> Result<Option<Self>, AwsError> {
        let id = input["ClientRequestToken"]
            .as_str()
            .ok_or_else(|| invalid_request("You must provide a ClientRequestToken value. We recommend a UUID-type value."))?;
        let text = |member: &str| input[member].as_str().map(str::to_owned);
        let (secret_string, secret_binary) = (text("SecretString"), text("SecretBinary"));
        if secret_string.is_some() && secret_binary.is_some() {
            return Err(invalid("You can't specify both a binary secret value and a string secret value in the same secret."));
        }
        let given = secret_string.is_some() || secret_binary.is_some();
        let version =
            Self { id: id.to_owned(), secret_string, secret_binary, stages: BTreeSet::new(), created: now, accessed: None };
        Ok(given.then_some(version))
    }
}

/// What the API's model says of sizes, and of names. The value is not repeated: it may be the secret.
fn check_model(input: &Value) -> Result<(), AwsError> {
    const SIZES: &[(&str, usize, usize)] = &[
        ("ClientRequestToken", 32, 64),
        ("MaxResults", 1, 100),
        ("Name", 1, 512),
        ("PasswordLength", 1, 4096),
        ("SecretBinary", 1, 65_536),
        ("SecretString", 1, 65_536),
        ("VersionStage", 1, 256),
        ("VersionStages", 1, 20),
    ];
    for (member, least, most) in SIZES {
        let size = match &input[*member] {
            Value::Null => continue,
            Value::String(text) if *member == "SecretBinary" => BASE64_STANDARD.decode(text).map_or(0, |bytes| bytes.len()),
            Value::String(text) => text.len(),
            Value::Array(members) => members.len(),
            number => number.as_u64().unwrap_or(0) as usize,
        };
        if !(*least..=*most).contains(&size) {
            let broken = format!("1 validation error detected: Value at '{member}' failed to satisfy constraint");
            return Err(AwsError::new(
                "ValidationException",
                format!("{broken}: Member must have length between {least} and {most}"),
            ));
        }
    }
    let name =
        input["SecretId"].as_str().filter(|id| !id.starts_with("arn:")).or_else(|| input["Name"].as_str()).unwrap_or_default();
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte)) {
        return Ok(());
    }
    let message = "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!";
    Err(AwsError::new("ValidationException", message))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn page_size(input: &Value) -> usize {
    input["MaxResults"].as_u64().unwrap_or(100) as usize
}

fn without_nulls(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    answer
}

/// Epoch seconds with milliseconds, as the service answers.
fn seconds(when: OffsetDateTime) -> Value {
    json!((when.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0)
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidParameterException", message)
}

pub(crate) fn invalid_request(message: &str) -> AwsError {
    AwsError::new("InvalidRequestException", message)
}

fn not_found(what: &str) -> AwsError {
    AwsError::new("ResourceNotFoundException", format!("Secrets Manager can't find the specified {what}"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-03-01 10:00:00.25 UTC);

    struct Account {
        world: World,
        now: OffsetDateTime,
    }

    impl Account {
        /// With the secret `s`, whose version 1 holds `one`.
        fn new() -> Self {
            let mut account = Self { world: World::new("111122223333", "eu-central-1"), now: START };
            account.ask("CreateSecret", json!({ "Name": "s", "SecretString": "one", "ClientRequestToken": id(1) })).unwrap();
            account
        }

        fn ask(&mut self, operation: &str, input: Value) -> Result<Value, AwsError> {
            call(&mut self.world, self.now, operation, &input)
        }

        fn put(&mut self, version: u32, stages: Value) -> Result<Value, AwsError> {
            let value = format!("value {version}");
            let input =
                json!({ "SecretId": "s", "SecretString": value, "ClientRequestToken": id(version), "VersionStages": stages });
            self.ask("PutSecretValue", input)
        }

        fn move_label(&mut self, label: &str, from: Option<u32>, to: Option<u32>) -> Result<Value, AwsError> {
            let (from, to) = (from.map(id), to.map(id));
            let input = json!({ "SecretId": "s", "VersionStage": label, "RemoveFromVersionId": from, "MoveToVersionId": to });
            self.ask("UpdateSecretVersionStage", input)
        }

        /// `1: AWSPREVIOUS, 2: AWSCURRENT x`
        fn labels(&self) -> String {
            let versions = self.world.secrets.find("s").unwrap().versions.iter();
            let line = |version: &Version| {
                let stages: Vec<_> = version.stages.iter().map(String::as_str).collect();
                format!("{}: {}", version.id.trim_start_matches('0'), stages.join(" "))
            };
            versions.map(line).collect::<Vec<_>>().join(", ")
        }
    }

    fn id(version: u32) -> String {
        format!("{version:0>32}")
    }

    #[test]
    fn a_secret_is_replicated_once_to_each_other_region_and_not_deleted_while_it_has_replicas() {
        let mut account = Account::new();
        let regions = |account: &mut Account| {
            let secret = account.ask("DescribeSecret", json!({ "SecretId": "s" })).unwrap();
            let replicas = secret["ReplicationStatus"].as_array().into_iter().flatten();
            replicas.map(|replica| format!("{} {}", replica["Region"], replica["Status"])).collect::<Vec<_>>()
        };
        let add = |region: &str| json!({ "SecretId": "s", "AddReplicaRegions": [{ "Region": region }] });
        account.ask("ReplicateSecretToRegions", add("eu-west-1")).unwrap();
        for region in ["eu-west-1", "eu-central-1"] {
            let error = account.ask("ReplicateSecretToRegions", add(region)).unwrap_err();
            assert_eq!(error.code, "InvalidParameterException", "{region}");
        }
        fail_replica(&mut account.world, "s", "eu-west-1", "no such key");
        assert_eq!(regions(&mut account), [r#""eu-west-1" "Failed""#]);
        assert_eq!(account.ask("DeleteSecret", json!({ "SecretId": "s" })).unwrap_err().code, "InvalidRequestException");
        let remove = json!({ "SecretId": "s", "RemoveReplicaRegions": ["eu-west-1"] });
        account.ask("RemoveRegionsFromReplication", remove).unwrap();
        assert!(regions(&mut account).is_empty());
        account.ask("DeleteSecret", json!({ "SecretId": "s" })).unwrap();
    }

    #[test]
    fn the_first_version_is_current_whatever_is_asked() {
        let mut account = Account::new();
        account.ask("CreateSecret", json!({ "Name": "empty", "ClientRequestToken": id(1) })).unwrap();
        let described = account.ask("DescribeSecret", json!({ "SecretId": "empty" })).unwrap();
        assert_eq!(described.get("VersionIdsToStages"), None);
        let input = json!({ "SecretId": "empty", "SecretString": "x", "ClientRequestToken": id(1), "VersionStages": ["mine"] });
        assert_eq!(account.ask("PutSecretValue", input).unwrap()["VersionStages"], json!(["AWSCURRENT", "mine"]));
    }

    #[test]
    fn labels_move_silently_with_a_new_version_and_previous_follows_current() {
        let mut account = Account::new();
        let steps = [
            (2, json!(["AWSPENDING", "x"]), "1: AWSCURRENT, 2: AWSPENDING x"),
            (3, json!(["x"]), "1: AWSCURRENT, 2: AWSPENDING, 3: x"),
            (4, Value::Null, "1: AWSPREVIOUS, 2: AWSPENDING, 3: x, 4: AWSCURRENT"),
            (5, json!(["AWSCURRENT", "AWSPENDING"]), "1: , 2: , 3: x, 4: AWSPREVIOUS, 5: AWSCURRENT AWSPENDING"),
            (6, Value::Null, "1: , 2: , 3: x, 4: , 5: AWSPREVIOUS, 6: AWSCURRENT"),
        ];
        for (version, stages, labels) in steps {
            account.put(version, stages).unwrap();
            assert_eq!(account.labels(), labels);
        }
    }

    #[test]
    fn a_label_is_moved_only_from_the_version_that_is_named() {
        let mut account = Account::new();
        account.put(2, json!(["AWSPENDING"])).unwrap();
        let refused = "
            AWSCURRENT - 2 => The parameter RemoveFromVersionId can't be empty. Staging label AWSCURRENT is currently attached to version 00000000000000000000000000000001, so you must explicitly reference that version in RemoveFromVersionId.
            AWSCURRENT 2 2 => Staging label AWSCURRENT isn't attached to version 00000000000000000000000000000002.
            new 1 2 => Staging label new isn't attached to version 00000000000000000000000000000001.
            AWSCURRENT 1 - => You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.
            AWSCURRENT - - => You must provide MoveToVersionId, RemoveFromVersionId, or both.";
        for (asked, message) in refused.lines().filter_map(|line| line.trim().split_once(" => ")) {
            let [label, from, to] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{asked}") };
            assert_eq!(account.move_label(label, from.parse().ok(), to.parse().ok()), Err(invalid(message)));
        }
        assert_eq!(account.move_label(CURRENT, Some(1), Some(9)).unwrap_err().code, "ResourceNotFoundException");
        let moves = [
            (CURRENT, Some(1), Some(2), "1: AWSPREVIOUS, 2: AWSCURRENT AWSPENDING"),
            (CURRENT, None, Some(2), "1: AWSPREVIOUS, 2: AWSCURRENT AWSPENDING"),
            ("new", None, Some(1), "1: AWSPREVIOUS new, 2: AWSCURRENT AWSPENDING"),
            (PENDING, Some(2), None, "1: AWSPREVIOUS new, 2: AWSCURRENT"),
            (CURRENT, Some(2), Some(1), "1: AWSCURRENT new, 2: AWSPREVIOUS"),
            (PREVIOUS, Some(2), Some(1), "1: AWSCURRENT AWSPREVIOUS new, 2: "),
        ];
        for (label, from, to, labels) in moves {
            account.move_label(label, from, to).unwrap();
            assert_eq!(account.labels(), labels);
        }
        let told: Vec<_> = account.world.take_outbox().iter().map(|event| event["detail"].clone()).collect();
        let detail = |label, version| json!({ "name": "s", "labelUpdated": label, "versionId": id(version) });
        assert_eq!(told, [detail(CURRENT, 1), detail(CURRENT, 2), detail("new", 1), detail(CURRENT, 1)]);
    }

    #[test]
    fn a_token_stands_for_one_value() {
        let mut account = Account::new();
        account.put(2, json!(["x"])).unwrap();
        assert_eq!(account.put(2, json!(["y"])).unwrap()["VersionStages"], json!(["x"]));
        for (operation, name) in [("PutSecretValue", "SecretId"), ("CreateSecret", "Name")] {
            let mut input = json!({ name: "s", "SecretString": "one", "ClientRequestToken": id(1) });
            assert_eq!(account.ask(operation, input.clone()).unwrap()["VersionId"], id(1));
            input["SecretString"] = json!("two");
            assert_eq!(account.ask(operation, input).unwrap_err().code, "ResourceExistsException");
        }
        let other = account.ask("CreateSecret", json!({ "Name": "s", "SecretString": "one", "ClientRequestToken": id(9) }));
        assert_eq!(other.unwrap_err().message, "The operation failed because the secret s already exists.");
        assert_eq!(account.labels(), "1: AWSCURRENT, 2: x");
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_changes_nothing() {
        let mut account = Account::new();
        let table = r#"
            CreateSecret {"Name":"a b","ClientRequestToken":"TOKEN"} => ValidationException
            CreateSecret {"Name":"t","SecretString":"x"} => InvalidRequestException
            CreateSecret {"Name":"t","SecretString":"x","ClientRequestToken":"short"} => ValidationException
            CreateSecret {"Name":"t","SecretString":"LONG","ClientRequestToken":"TOKEN"} => ValidationException
            CreateSecret {"Name":"t","SecretString":"x","SecretBinary":"eA==","ClientRequestToken":"TOKEN"} => InvalidParameterException
            PutSecretValue {"SecretId":"s","ClientRequestToken":"TOKEN"} => InvalidRequestException
            PutSecretValue {"SecretId":"none","SecretString":"x","ClientRequestToken":"TOKEN"} => ResourceNotFoundException
            GetSecretValue {"SecretId":"none"} => ResourceNotFoundException
            GetSecretValue {"SecretId":"s","VersionStage":"AWSPENDING"} => ResourceNotFoundException
            GetSecretValue {"SecretId":"s","VersionId":"00000000000000000000000000000001","VersionStage":"x"} => InvalidRequestException
            TagResource {"SecretId":"s","Tags":[{"Key":"aws:x","Value":"y"}]} => InvalidParameterException
            TagResource {"SecretId":"s","Tags":[{"Key":"x","Value":"*"}]} => InvalidParameterException
            DeleteSecret {"SecretId":"s","RecoveryWindowInDays":6} => InvalidParameterException
            DeleteSecret {"SecretId":"s","RecoveryWindowInDays":7,"ForceDeleteWithoutRecovery":true} => InvalidParameterException
            ListSecrets {"Filters":[{"Key":"primary-region","Values":["x"]}]} => InvalidParameterException
            ListSecrets {"NextToken":"x"} => InvalidNextTokenException
            GetRandomPassword {"PasswordLength":3} => InvalidParameterException
            GetRandomPassword {"PasswordLength":4097} => ValidationException"#;
        let table = table.replace("TOKEN", &id(2)).replace("LONG", &format!("x{}", "é".repeat(32_768)));
        for (asked, code) in table.lines().filter_map(|line| line.trim().split_once(" => ")) {
            let (operation, input) = asked.split_once(' ').unwrap();
            assert_eq!(account.ask(operation, serde_json::from_str(input).unwrap()).unwrap_err().code, code, "{asked}");
        }
        assert_eq!((account.labels().as_str(), account.world.secrets.secrets.len()), ("1: AWSCURRENT", 1));
        let largest = json!({ "Name": "t", "SecretString": "é".repeat(32_768), "ClientRequestToken": id(2) });
        account.ask("CreateSecret", largest).unwrap();
    }

    #[test]
    fn a_deleted_secret_keeps_its_name_until_the_window_ends_and_can_come_back() {
        let mut account = Account::new();
        let (named, created) = (json!({ "SecretId": "s" }), json!({ "Name": "s", "ClientRequestToken": id(5) }));
        let deleted = account.ask("DeleteSecret", json!({ "SecretId": "s", "RecoveryWindowInDays": 7 })).unwrap();
        assert_eq!(deleted["DeletionDate"], seconds(START + Duration::days(7)));
        for operation in ["GetSecretValue", "PutSecretValue", "UntagResource", "DeleteSecret"] {
            assert_eq!(account.ask(operation, named.clone()).unwrap_err().code, "InvalidRequestException", "{operation}");
        }
        assert_eq!(account.ask("CreateSecret", created.clone()).unwrap_err().code, "InvalidRequestException");
        assert_eq!(account.ask("ListSecrets", json!({})).unwrap()["SecretList"], json!([]));
        assert_eq!(account.world.secrets.value("s", None, None), None);
        account.ask("RestoreSecret", named.clone()).unwrap();
        assert_eq!(account.world.secrets.value("s", None, None), Some("one"));
        account.ask("DeleteSecret", json!({ "SecretId": "s", "ForceDeleteWithoutRecovery": true })).unwrap();
        account.now += FORCED_DELETION;
        assert_eq!(account.ask("DescribeSecret", named).unwrap_err().code, "ResourceNotFoundException");
        account.ask("CreateSecret", created).unwrap();
    }

    #[test]
    fn labels_and_new_versions_are_limited_and_old_ones_without_label_go() {
        let mut account = Account::new();
        let many: Vec<_> = (0..19).map(|label| label.to_string()).collect();
        account.put(2, json!(many)).unwrap();
        assert_eq!(account.put(3, json!(["x"])).unwrap_err().code, "LimitExceededException");
        assert_eq!(account.move_label("x", None, Some(1)).unwrap_err().code, "LimitExceededException");
        for version in 3..=144 {
            account.put(version, json!(["0"])).unwrap();
        }
        assert_eq!(account.put(145, json!(["0"])).unwrap_err().code, "LimitExceededException");
        account.now += Duration::DAY;
        account.put(145, json!(["0"])).unwrap();
        let versions = &account.world.secrets.find("s").unwrap().versions;
        assert_eq!((versions.len(), versions[0].id.clone(), versions[2].id.clone()), (KEPT_VERSIONS, id(1), id(48)));
        let listed = account.ask("ListSecretVersionIds", json!({ "SecretId": "s", "MaxResults": 2 })).unwrap();
        assert_eq!((listed["Versions"].as_array().unwrap().len(), &listed["NextToken"]), (2, &json!(id(2))));
        let input = json!({ "SecretId": "s", "NextToken": id(2), "IncludeDeprecated": true });
        assert_eq!(account.ask("ListSecretVersionIds", input).unwrap()["Versions"].as_array().unwrap().len(), 98);
    }

    #[test]
    fn lists_filter_and_go_by_pages_in_order_of_creation() {
        let mut account = Account::new();
        for (name, tag) in [("everleaf/b", "server"), ("everleaf/a", "client-1"), ("Other", "client-2")] {
            let tags = json!([{ "Key": format!("kind:{name}"), "Value": tag }]);
            account.ask("CreateSecret", json!({ "Name": name, "ClientRequestToken": id(1), "Tags": tags })).unwrap();
        }
        let table = r#"
            {} => s everleaf/b everleaf/a Other
            {"SortOrder":"desc"} => Other everleaf/a everleaf/b s
            {"Filters":[{"Key":"name","Values":["everleaf/","s"]}]} => s everleaf/b everleaf/a
            {"Filters":[{"Key":"name","Values":["!everleaf/"]}]} => s Other
            {"Filters":[{"Key":"tag-value","Values":["client"]}]} => everleaf/a Other
            {"Filters":[{"Key":"tag-key","Values":["kind:e"]},{"Key":"all","Values":["SERV"]}]} => everleaf/b"#;
        for (input, names) in table.lines().filter_map(|line| line.trim().split_once(" => ")) {
            let mut input: Value = serde_json::from_str(input).unwrap();
            input["MaxResults"] = json!(1);
            let mut found = Vec::new();
            loop {
                let page = account.ask("ListSecrets", input.clone()).unwrap();
                found.extend(
                    page["SecretList"].as_array().unwrap().iter().map(|entry| entry["Name"].as_str().unwrap().to_owned()),
                );
                match page.get("NextToken") {
                    Some(token) => input["NextToken"] = token.clone(),
                    None => break,
                }
            }
            assert_eq!(found.join(" "), names, "{input}");
        }
    }

    #[test]
    fn a_secret_is_found_by_name_and_by_whole_and_partial_arn() {
        let mut account = Account::new();
        let input = json!({ "Name": "p/s-abcdef", "SecretString": "two", "ClientRequestToken": id(1) });
        let arn = account.ask("CreateSecret", input).unwrap()["ARN"].as_str().unwrap().to_owned();
        let partial = &arn[..arn.len() - 7];
        for id in ["p/s-abcdef", &arn, partial] {
            assert_eq!(account.world.secrets.value(id, None, Some(CURRENT)), Some("two"), "{id}");
        }
        assert_eq!(account.world.secrets.value(&partial[..partial.len() - 7], None, None), None);
        assert_eq!(account.world.secrets.value(&arn.replace("eu-", "us-"), None, None), None);
    }

    #[test]
    fn every_change_has_its_date_and_a_read_leaves_the_day() {
        let mut account = Account::new();
        account.now += Duration::HOUR;
        account.ask("GetSecretValue", json!({ "SecretId": "s" })).unwrap();
        let described = account.ask("DescribeSecret", json!({ "SecretId": "s" })).unwrap();
        assert_eq!(described["LastChangedDate"], 1_772_359_200.25);
        assert_eq!(described["LastAccessedDate"], seconds(datetime!(2026-03-01 0:00 UTC)));
        account.ask("TagResource", json!({ "SecretId": "s", "Tags": [{ "Key": "k", "Value": "v" }] })).unwrap();
        let described = account.ask("DescribeSecret", json!({ "SecretId": "s" })).unwrap();
        assert_eq!(described["LastChangedDate"], seconds(account.now));
        assert_eq!(described["Tags"], json!([{ "Key": "k", "Value": "v" }]));
    }

    #[test]
    fn a_password_has_each_kind_and_nothing_excluded() {
        let mut account = Account::new();
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let answer = account.ask("GetRandomPassword", json!({ "PasswordLength": 4, "ExcludeCharacters": "#$%aB1" })).unwrap();
            let password = answer["RandomPassword"].as_str().unwrap().to_owned();
            let kinds: [fn(&char) -> bool; 4] =
                [char::is_ascii_lowercase, char::is_ascii_uppercase, char::is_ascii_digit, char::is_ascii_punctuation];
            assert!(kinds.iter().all(|kind| password.chars().any(|character| kind(&character))), "{password}");
            assert!(!password.contains(['#', '$', '%', 'a', 'B', '1']), "{password}");
            seen.insert(password);
        }
        assert_eq!(seen.len(), 50);
    }
}
