//! A new pair from staged to current, and a record made to agree with its secret again: where the two differ, the secret wins.

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::attempt::{Attempt, Attempts, empty_version};
use lifecycle::leaf::{KeyAlgorithm, Leaf, Usage};
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::{KeyFormat, Options, Origin, Pair, Record, Specification};
use lifecycle::renewal::{ROLLOUT_GRACE, Secret};
use runtime::Failure;
use time::OffsetDateTime;

use crate::Records;
use crate::material::{Material, Waiting, Wanted};
use crate::secrets::{CURRENT, KEY, PENDING, Promotion, Put, RENEW_BEFORE_TAG, SERVICE_TAG, State};

impl Records {
    /// Brings a new pair into the secret: verified, staged, promoted from the version that the attempt was decided on, tagged and
    /// recorded. Every step may be repeated; each later one finds what the earlier ones left.
    pub async fn install(
        &self,
        record: &mut Record,
        attempt: &Attempt,
        material: &Material,
        wanted: &Wanted<'_>,
        issuer: Option<Arn>,
        now: OffsetDateTime,
    ) -> Result<(), Failure> {
        let name = record.name.clone();
        let refused = |why: String| Failure::permanent(format!("accept the new pair of `{name}`"), why);
        let mut leaf = material.verify(wanted, now).map_err(refused)?;
        let version = attempt.token(&self.settings.prefix, &name, &format!("pair {}", leaf.serial));
        if let Put::AlreadyThere = self.put_version(&name, &version, PENDING, &material.text()).await? {
            // An exported key differs in bytes at each export. What an earlier try stored is judged in place of this one.
            let stored = self.value_of_version(&name, &version).await?.map(|text| Material::read(&text));
            let Some(Ok(Some(stored))) = stored else {
                return Err(refused(format!("version {version} is there and is not a pair")));
            };
            leaf = stored.verify(wanted, now).map_err(refused)?;
        }
        let replaces = attempt.replaces.clone().unwrap_or_else(|| empty_version(&self.settings.prefix, &name));
        let promotion = self.move_current(&name, &replaces, &version).await?;
        let doing = || format!("make the new pair of `{name}` current");
        let Some(state) = self.describe(&name).await? else { return Err(Failure::permanent(doing(), "its secret is gone")) };
        if promotion == Promotion::Overtaken && state.current.as_ref() != Some(&version) {
            // Stop, and let it be decided anew on what is current now.
            self.agree(record, now).await?;
            record.attempt = None;
            let services = record.options.services.clone();
            self.save(record, &services).await?.or_retry(format_args!("the record of `{name}`"))?;
            return Err(Failure::retryable(doing(), "its secret has meanwhile got another current version"));
        }
        record.secret_arn = Some(state.arn.clone());
        record.promote(Pair::of(&leaf, version, issuer, state.changed));
        record.look_at = (now + ROLLOUT_GRACE).unix_timestamp();
        self.tag(record).await?;
        self.untag(record, &state.tags).await?;
        let services = record.options.services.clone();
        self.save(record, &services).await?.or_retry(format_args!("the record of `{name}`"))?;
        let serial = &leaf.serial;
        tracing::info!(certificate.name = %name, certificate.serial = %serial, "Made serial {serial} of `{name}` current");
        Ok(())
    }

    /// Looks at the secret and makes the record agree with it: a version that somebody else made current is taken over.
    /// The record is changed in memory only.
    pub async fn agree(&self, record: &mut Record, now: OffsetDateTime) -> Result<Secret, Failure> {
        let name = record.name.clone();
        let Some(state) = self.describe(&name).await? else { return Ok(Secret::Missing) };
        if state.pending_deletion {
            return Ok(Secret::PendingDeletion);
        }
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
                    let tagged = || state.tags.get("everleaf:issuer").and_then(|issuer| issuer.parse().ok());
                    let issuer = record.specification().map(|wanted| wanted.certificate_authority_arn.clone()).or_else(tagged);
                    record.promote(Pair::of(&leaf, version, issuer, state.changed));
                    Ok(Secret::Good)
                }
            },
        }
    }

    /// The record of a certificate that the table does not know, made anew from its secret and the tags on it. `None` when there
    /// is no such secret, or one that does not say what the certificate is to be: never issued, or exported, where ACM says it.
    pub async fn rebuild(&self, name: &CertificateName, now: OffsetDateTime) -> Result<Option<Record>, Failure> {
        let Some(state) = self.describe(name).await? else { return Ok(None) };
        let foreign = |why: &str| {
            Failure::permanent(
                format!("take over the secret of `{name}`"),
                format!("{why}; nothing was changed: choose another name, or mend the secret"),
            )
        };
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
        let options = options(&material, &state);
        let mut record = Record::new(name.clone(), origin, options, now);
        let issuer = record.specification().map(|wanted| wanted.certificate_authority_arn.clone());
        record.current = Some(Pair::of(&leaf, version, issuer, state.changed));
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

fn options(material: &Material, state: &State) -> Options {
    let services =
        state.tags.iter().filter(|(key, _)| key.starts_with(SERVICE_TAG)).filter_map(|(_, value)| value.parse().ok()).collect();
    let encrypted = material.key.as_ref().is_none_or(|key| key.passphrase.is_some());
    let key_format = if encrypted { KeyFormat::Encrypted } else { KeyFormat::Plain };
    let hours = state.tags.get(RENEW_BEFORE_TAG).and_then(|text| text.strip_suffix(" hours")?.parse::<u64>().ok());
    Options { services, key_format, renew_before: hours.map(|hours| Duration::from_secs(hours * 3600)) }
}
