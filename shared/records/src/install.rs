//! A new pair from staged to current, and a record made to agree with its secret again: where the two differ, the secret wins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifecycle::attempt::{Attempt, Attempts, Staged, empty_version};
use lifecycle::events::Kind;
use lifecycle::import::Imported;
use lifecycle::leaf::{KeyAlgorithm, Leaf, Serial, Usage};
use lifecycle::names::{Arn, CertificateName, Reload, StoreName, TaggedService};
use lifecycle::record::{KeyFormat, LONGEST, Options, Origin, Pair, Record, Specification};
use lifecycle::renewal::{ROLLOUT_GRACE, Secret};
use lifecycle::trust::Trust;
use runtime::{Failure, metrics};
use time::OffsetDateTime;

use crate::Records;
use crate::rotation::Rotation;
use crate::secrets::{
    CANARY_TAG, CURRENT, IMPORT_TAG, ISSUER_TAG, KEY, PAUSED_TAG, PENDING, PREVIOUS, PREVIOUS_ISSUER_TAG, Promotion, Put,
    RENEW_BEFORE_TAG, SERIAL_TAG, SERVICE_TAG, State, WINDOW_TAG,
};
use material::{Material, Waiting, Wanted};

/// What became of a new pair.
#[derive(Clone, Debug, PartialEq)]
pub enum Installed {
    Current,
    /// It waits, complete and verified, until these trust stores hold its CA. Empty: it is not known yet which stores there are.
    Waiting(BTreeSet<StoreName>),
}

impl Installed {
    /// The event that tells of it; none where Secrets Manager says how it goes on.
    pub fn kind(&self, rotation: Option<&Rotation>) -> Option<Kind> {
        match self {
            Self::Current => Some(Kind::CertificateCurrent),
            Self::Waiting(_) if rotation.is_some_and(Rotation::stays_staged) => None,
            Self::Waiting(_) => Some(Kind::TrustDue),
        }
    }
}

/// A new pair on its way: which attempt made it, what it has to be, and who has to trust it before it is used.
pub struct Candidate<'a> {
    pub attempt: &'a Attempt,
    pub wanted: Wanted<'a>,
    pub issuer: Option<Arn>,
    pub trust: &'a Trust,
    /// The rotation that asks for it.
    pub rotation: Option<&'a Rotation>,
}

/// How long a pair waits before the sweep asks again whether it may become current.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

impl Records {
    /// Brings a new pair into the secret: verified, staged, promoted from the version that the attempt was decided on, tagged and
    /// recorded. Every step may be repeated; each later one finds what the earlier ones left.
    pub async fn install(
        &self,
        record: &mut Record,
        candidate: &Candidate<'_>,
        material: &Material,
        now: OffsetDateTime,
    ) -> Result<Installed, Failure> {
        let name = record.name.clone();
        let refused = |why: String| Failure::permanent(format!("accept the new pair of `{name}`"), why);
        let verified = material.verify(&candidate.wanted, now).map_err(refused)?;
        let version = candidate.attempt.version(&self.settings.prefix, &name, &verified.serial);
        let text = material.text();
        let (put, missing) =
            tokio::join!(self.put_version(&name, &version, PENDING, &text), self.untrusted(record, candidate, now));
        let leaf = match put? {
            Put::Written => verified,
            // An exported key differs in bytes at each export. What an earlier try stored is judged in place of this one.
            Put::AlreadyThere => self.staged(&name, &version, candidate, now).await?,
        };
        self.promote(record, candidate, (version, leaf), missing?, now).await
    }

    /// The same for a pair that an earlier try has staged in this version.
    pub async fn install_staged(
        &self,
        record: &mut Record,
        candidate: &Candidate<'_>,
        version: String,
        now: OffsetDateTime,
    ) -> Result<Installed, Failure> {
        let (leaf, missing) =
            tokio::try_join!(self.staged(&record.name, &version, candidate, now), self.untrusted(record, candidate, now))?;
        self.promote(record, candidate, (version, leaf), missing, now).await
    }

    /// The pair in a version, verified.
    async fn staged(
        &self,
        name: &CertificateName,
        version: &str,
        candidate: &Candidate<'_>,
        now: OffsetDateTime,
    ) -> Result<Leaf, Failure> {
        let doing = || format!("accept the new pair of `{name}`");
        let Some(stored) = self.value_of_version(name, version).await? else {
            return Err(Failure::retryable(doing(), format!("version {version}, which was just written, is not there")));
        };
        let Ok(Some(material)) = Material::read(&stored) else {
            return Err(Failure::permanent(doing(), format!("version {version} is there and is not a pair")));
        };
        material.verify(&candidate.wanted, now).map_err(|why| Failure::permanent(doing(), why))
    }

    /// `missing`: the trust stores that keep it from becoming current, as [`Self::untrusted`] has them.
    async fn promote(
        &self,
        record: &mut Record,
        candidate: &Candidate<'_>,
        (version, leaf): (String, Leaf),
        missing: Option<BTreeSet<StoreName>>,
        now: OffsetDateTime,
    ) -> Result<Installed, Failure> {
        let (name, Candidate { attempt, issuer, .. }) = (record.name.clone(), candidate);
        if record.rejected.contains(&leaf.serial) {
            // A version that has a pair takes no other.
            record.attempt = Some(Attempt { rotation: None, ..(*attempt).clone().in_vain(now) });
            self.update(record).await?;
            let why = format!("its serial {} was revoked meanwhile; the next try begins another", leaf.serial);
            return Err(Failure::retryable(format!("make the new pair of `{name}` current"), why));
        }
        if let Some(missing) = missing {
            let staged = Some(Staged { version_id: version, serial: leaf.serial, issuer: issuer.clone() });
            record.attempt = Some(Attempt { staged, lease: now.into(), ..(*attempt).clone() });
            record.look_at = (now + ASK_AGAIN).unix_timestamp();
            self.update(record).await?;
            return Ok(Installed::Waiting(missing));
        }
        let replaces = attempt.replaces.clone().unwrap_or_else(|| empty_version(&self.settings.prefix, &name));
        let promotion = self.move_current(&name, &replaces, &version).await?;
        let doing = || format!("make the new pair of `{name}` current");
        let Some(state) = self.describe(&name).await? else { return Err(Failure::retryable(doing(), "its secret is not there")) };
        if promotion == Promotion::Overtaken && state.current.as_ref() != Some(&version) {
            // Stop, and let it be decided anew on what is current now. Secrets Manager's own version waits for its next try.
            if attempt.rotation.is_none() {
                self.give_up(&name, &version).await?;
            }
            self.agree(record, now).await?;
            record.attempt = None;
            self.update(record).await?;
            return Err(Failure::retryable(doing(), "its secret has meanwhile got another current version"));
        }
        record.secret_arn = Some(state.arn.clone());
        let renews = record.current.as_ref().is_some_and(|current| current.serial != leaf.serial);
        record.promote(Pair::of(&leaf, version, issuer.clone(), state.changed));
        record.look_at = (now + ROLLOUT_GRACE).unix_timestamp();
        // In whichever order: tags decide nothing, and the next look writes those anew that differ from the record.
        let said = record.clone();
        let (updated, tagged, untagged) = tokio::join!(self.update(record), self.tag(&said), self.untag(&said, &state.tags));
        updated?;
        for failure in [tagged, untagged].into_iter().filter_map(Result::err) {
            tracing::warn!("{failure}");
        }
        let count = |metric| metrics(&[("Stack", &self.settings.prefix)], &[(metric, 1.0)]);
        count(if matches!(record.origin, Origin::Exported { .. }) { "Exports" } else { "Issuances" });
        if renews {
            count("Renewals");
        }
        let serial = &leaf.serial;
        tracing::info!(certificate.name = %name, certificate.serial = %serial, "Made serial {serial} of `{name}` current");
        Ok(Installed::Current)
    }

    /// The trust stores that declare the CA of a new pair and do not hold it; `None` when nothing keeps the pair from becoming
    /// current. A pair of the same CA as the current one is trusted wherever that is; one that has expired or is revoked keeps its CA
    /// in no store. While Secrets Manager rotates, it waits anyway.
    async fn untrusted(
        &self,
        record: &Record,
        candidate: &Candidate<'_>,
        now: OffsetDateTime,
    ) -> Result<Option<BTreeSet<StoreName>>, Failure> {
        if candidate.rotation.is_some_and(Rotation::stays_staged) {
            return Ok(Some(BTreeSet::new()));
        }
        let Some(issuer) = &candidate.issuer else { return Ok(None) };
        let is_good = |pair: &&Pair| pair.is_valid_at(now) && !record.is_revoked(&pair.serial);
        if record.current.as_ref().filter(is_good).is_some_and(|current| current.issuer.as_ref() == Some(issuer)) {
            return Ok(None);
        }
        let known = self.stores().await?;
        // Not known is not the same as none: the table may have been lost. Only what works now has something to lose.
        let unknown = known.is_none() && record.current.is_some();
        let missing = candidate.trust.missing(&known.unwrap_or_default(), issuer);
        Ok((unknown || !missing.is_empty()).then_some(missing))
    }

    /// Looks at the secret and makes the record agree with it: a version that somebody else made current is taken over.
    /// The record is changed in memory only. The tags of the secret come with it.
    pub async fn agree(&self, record: &mut Record, now: OffsetDateTime) -> Result<(Secret, Option<State>), Failure> {
        let Some(state) = self.describe(&record.name).await? else { return Ok((Secret::Missing, None)) };
        let secret = match state.pending_deletion {
            true => Secret::PendingDeletion,
            false => self.agree_with(&state, record, now).await?,
        };
        Ok((secret, Some(state)))
    }

    async fn agree_with(&self, state: &State, record: &mut Record, now: OffsetDateTime) -> Result<Secret, Failure> {
        let name = record.name.clone();
        record.secret_arn = Some(state.arn.clone());
        let recorded = record.current.as_ref().map(|pair| pair.version_id.clone());
        if recorded.is_some() && recorded == state.current {
            return Ok(Secret::Good);
        }
        let Some((version, text)) = self.value_at_stage(&name, CURRENT).await? else {
            return Ok(if recorded.is_none() {
                Secret::Good
            } else {
                Secret::Unreadable("AWSCURRENT is on no version".to_owned())
            });
        };
        match Material::read(&text) {
            Ok(None) if recorded.is_none() => Ok(Secret::Good),
            Ok(None) => Ok(Secret::Unreadable("it is empty".to_owned())),
            Err(why) => Ok(Secret::Unreadable(why)),
            Ok(Some(material)) => match material.verify(&Wanted::Found, now) {
                Err(why) => Ok(Secret::Unreadable(why)),
                Ok(leaf) => {
                    tracing::info!(certificate.name = %name, "Found version {version} of `{name}` current and took it over");
                    // The CA may have changed in between: what was put back by hand is known, and what was tagged last says its own.
                    let before = record.previous.as_ref().filter(|pair| pair.version_id == version);
                    let before = before.and_then(|pair| pair.issuer.clone());
                    let is_tagged = state.tags.get(SERIAL_TAG).is_some_and(|serial| *serial == leaf.serial.to_string());
                    let last = || tagged(state, ISSUER_TAG);
                    let asked = || record.specification().map(|wanted| wanted.certificate_authority_arn.clone());
                    let issuer = before.or_else(|| last().filter(|_| is_tagged)).or_else(asked).or_else(last);
                    record.promote(Pair::of(&leaf, version, issuer, state.changed));
                    if recorded.is_none() {
                        self.recall(record, state, now).await?;
                    }
                    Ok(Secret::Good)
                }
            },
        }
    }

    /// The record, from the table or, where that has lost it, made anew from the secret.
    pub async fn find(&self, name: &CertificateName, now: OffsetDateTime) -> Result<Option<Record>, Failure> {
        match self.load(name).await? {
            None => self.rebuild(name, now).await,
            known => Ok(known),
        }
    }

    /// The record of a certificate that the table does not know, made anew from its secret and the tags on it. `None` when there
    /// is no such secret, or one that does not say what the certificate is to be: never issued, or exported, where ACM says it.
    pub async fn rebuild(&self, name: &CertificateName, now: OffsetDateTime) -> Result<Option<Record>, Failure> {
        let Some(state) = self.describe(name).await?.filter(|state| !state.pending_deletion) else { return Ok(None) };
        let foreign = |why: &str| {
            Failure::permanent(
                format!("take over the secret of `{name}`"),
                format!("{why}; nothing was changed: choose another name, or mend the secret"),
            )
        };
        if let Some(region) = &state.replica_of {
            return Err(foreign(&format!("it is a replica of the one in {region}, where it is looked after")));
        }
        if state.tags.get("everleaf:certificate") != Some(&self.secret_name(name)) {
            return Err(foreign("it is not Everleaf's: it has no fitting tag everleaf:certificate"));
        }
        let Some((version, text)) = self.value_at_stage(name, CURRENT).await? else { return Ok(None) };
        let Some(material) = Material::read(&text).map_err(|why| foreign(&why))? else { return Ok(None) };
        let leaf = material.verify(&Wanted::Found, now).map_err(|why| foreign(&why))?;
        let origin = match state.tags.get("everleaf:origin").map(String::as_str) {
            Some("exported") => return Ok(None),
            _ if material.key.is_none() => Origin::CallerKey(specification(&leaf, &state).map_err(foreign)?),
            _ => Origin::Issued(specification(&leaf, &state).map_err(foreign)?),
        };
        let options = options(material.key.as_ref().is_none_or(|key| key.passphrase.is_some()), &state.tags);
        let mut record = Record::new(name.clone(), origin, options, now);
        let issuer = record.specification().map(|wanted| wanted.certificate_authority_arn.clone());
        record.current = Some(Pair::of(&leaf, version, issuer, state.changed));
        self.recall(&mut record, &state, now).await?;
        record.imported = tagged(&state, IMPORT_TAG).map(|arn| Imported { certificate_arn: Some(arn), ..Imported::default() });
        record.secret_arn = Some(state.arn);
        if let Some((_, text)) = self.value_at_stage(name, KEY).await? {
            let last = Waiting::read(&text).map_err(|why| foreign(&why))?.attempt;
            record.attempts = Attempts { last, ..Attempts::default() };
        }
        // Every service is bound anew by the save.
        let saved = self.save(&mut record, &BTreeSet::new()).await?;
        saved.or_retry(format_args!("the record of `{name}`"))?;
        tracing::info!(certificate.name = %name, "Rebuilt the record of `{name}` from its secret");
        Ok(Some(record))
    }

    /// Reads what the secret still tells of the past, for a record that does not know of it.
    async fn recall(&self, record: &mut Record, state: &State, now: OffsetDateTime) -> Result<(), Failure> {
        let previous = self.pair_before(&record.name, state, now).await?;
        let rejected = match &state.rejected {
            Some(version) => self.serial_of_version(&record.name, version).await?.map(|serial| (version.clone(), serial)),
            None => None,
        };
        record.recall(previous, rejected, state.changed);
        Ok(())
    }

    /// The serial of the pair in a version; `None` when there is none in it.
    pub async fn serial_of_version(&self, name: &CertificateName, version: &str) -> Result<Option<Serial>, Failure> {
        let text = self.value_of_version(name, version).await?;
        let pair = text.and_then(|text| Material::read(&text).ok().flatten());
        Ok(pair.and_then(|pair| Leaf::from_pem(&pair.certificate).ok()).map(|leaf| leaf.serial))
    }

    /// The valid pair before the current one, for a record that does not know of it: its CA is needed.
    async fn pair_before(&self, name: &CertificateName, state: &State, now: OffsetDateTime) -> Result<Option<Pair>, Failure> {
        let Some((version, text)) = self.value_at_stage(name, PREVIOUS).await? else { return Ok(None) };
        let Ok(Some(material)) = Material::read(&text) else { return Ok(None) };
        let leaf = material.verify(&Wanted::Found, now).ok();
        Ok(leaf.map(|leaf| Pair::of(&leaf, version, tagged(state, PREVIOUS_ISSUER_TAG), state.changed)))
    }
}

fn tagged(state: &State, key: &str) -> Option<Arn> {
    state.tags.get(key).and_then(|issuer| issuer.parse().ok())
}

/// A certificate is its own specification; the issuing CA alone does not stand in it, but in a tag.
fn specification(leaf: &Leaf, state: &State) -> Result<Specification, &'static str> {
    let authority = state.tags.get("everleaf:issuer").and_then(|arn| Arn::of(arn, "acm-pca", "certificate-authority/").ok());
    let key_algorithm: Option<KeyAlgorithm> = leaf.key_algorithm;
    let usage: Option<Usage> = leaf.usage;
    Ok(Specification {
        subject: leaf.subject.clone(),
        names: leaf.names.clone(),
        key_algorithm: key_algorithm.ok_or("its key is of a kind that is not issued here")?,
        usage: usage.ok_or("its extended key usage is not one that is issued here")?,
        lifetime: leaf.lifetime(),
        certificate_authority_arn: authority.ok_or("its tag everleaf:issuer does not name a CA")?,
    })
}

/// What the tags of a secret say of its certificate, whose key is encrypted or not.
pub fn options(encrypted: bool, tags: &BTreeMap<String, String>) -> Options {
    let tagged = tags.iter().filter(|(key, _)| key.starts_with(SERVICE_TAG));
    let tagged: Vec<TaggedService> = tagged.filter_map(|(_, value)| value.parse().ok()).collect();
    let of = |reload| -> BTreeSet<_> {
        tagged.iter().filter(|service| service.reload == reload).map(|service| service.name.clone()).collect()
    };
    let services = of(Reload::Deployment);
    // Where a service has both, one tag is from before: a deployment too many does no harm.
    let agent_services = &of(Reload::Agent) - &services;
    let key_format = if encrypted { KeyFormat::Encrypted } else { KeyFormat::Plain };
    let hours = tags.get(RENEW_BEFORE_TAG).and_then(|text| text.strip_suffix(" hours")?.parse::<u32>().ok());
    Options {
        services,
        agent_services,
        key_format,
        renew_before: hours.map(|hours| Duration::from_secs(u64::from(hours) * 3600).min(LONGEST)),
        import_to_acm: tags.contains_key(IMPORT_TAG),
        maintenance_window: tags.get(WINDOW_TAG).and_then(|text| text.parse().ok()),
        paused: tags.get(PAUSED_TAG).is_some_and(|text| text == "true"),
        canary: tags.get(CANARY_TAG).and_then(|text| text.parse().ok()),
    }
}
