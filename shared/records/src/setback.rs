//! A secret goes back to the pair before: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>.

use lifecycle::events::{Event, Kind};
use lifecycle::record::Record;
use lifecycle::renewal::ROLLOUT_GRACE;
use lifecycle::rollout::Lock;
use lifecycle::setback::Setback;
use runtime::Failure;
use time::OffsetDateTime;

use crate::Records;

/// What is to be published of a setback.
#[derive(Default)]
pub struct GoneBack {
    /// Before the record is saved: nothing else tells of it.
    pub told: Vec<Event>,
    /// After that, for whoever hears of it reads the record. What is lost is asked for again at the next look.
    pub asked: Vec<Event>,
}

impl Records {
    /// Notes that the current pair is rejected and gives way to the one before it: whoever finds that goes on with [`Self::go_back`].
    pub async fn set_back(&self, record: &mut Record, setback: Setback, lock: Lock) -> Result<(), Failure> {
        record.reject(&setback.rejected, &setback.serial);
        record.look_at = lock.until.unix_timestamp();
        record.setback = Some(Setback { lock: Some(lock), ..setback });
        self.update(record).await
    }

    /// Finishes what was noted, where it was. The record is the caller's to save: what is recorded as done is told no more.
    /// What is not good any more by now does not become current; where it is already, the sweep replaces it.
    pub async fn go_back(&self, record: &mut Record, lock: Lock, now: OffsetDateTime) -> Result<Option<GoneBack>, Failure> {
        let Some(setback) = record.setback.clone().filter(|setback| !setback.done) else { return Ok(None) };
        let name = record.name.clone();
        if let Some(until) = setback.lock.as_ref().and_then(|held| held.keeps_out(&lock.holder, now)) {
            return Err(Failure::busy(format!("bring the secret of `{name}` back to the pair before"), until));
        }
        if setback.lock.as_ref().is_none_or(|held| held.holder != lock.holder) {
            record.look_at = lock.until.unix_timestamp();
            record.setback.iter_mut().for_each(|setback| setback.lock = Some(lock.clone()));
            self.update(record).await?;
        }
        if let Some(why) = record.cannot_go_back(&setback, now)
            && self.describe(&name).await?.is_some_and(|state| state.current.as_ref() == Some(&setback.rejected))
        {
            // It stays current, as a pair does that has none to go back to.
            if !record.is_revoked(&setback.serial) {
                record.rejected.remove(&setback.serial);
            }
            record.setback.iter_mut().for_each(Setback::finish);
            let told = self.tell(record, "rollout-failed", &why, now);
            return Ok(Some(GoneBack { told: told.into_iter().collect(), asked: Vec::new() }));
        }
        let Setback { rejected, serial, restored, reason, .. } = setback;
        let doing = || format!("bring the secret of `{name}` back to version {restored}");
        self.reject(&name, &rejected).await?;
        self.move_current(&name, &rejected, &restored).await?;
        let Some(state) = self.describe(&name).await? else { return Err(Failure::permanent(doing(), "the secret is gone")) };
        record.look_at = (now + ROLLOUT_GRACE).unix_timestamp();
        if state.current.as_ref() != Some(&restored) {
            // Somebody has made another version current meanwhile, and knows more than the deployment that failed.
            record.setback.iter_mut().for_each(Setback::finish);
            return Ok(Some(GoneBack::default()));
        }
        record.go_back(state.changed);
        // Tags decide nothing: the next look writes them anew, and tells of what is refused there.
        if let Err(failure) = self.tag(record).await {
            tracing::warn!("{failure}");
        }
        let prefix = &self.settings.prefix;
        let message = format!("serial {serial} of `{name}` gave way to the one before it: {reason}");
        let mut told = vec![Event::about(Kind::CertificateRolledBack, prefix, record, reason)];
        let mut asked = vec![Event::about(Kind::CertificateCurrent, prefix, record, "the pair before is current again")];
        if record.options.import_to_acm {
            let event = Event::about(Kind::CertificateDue, prefix, record, "ACM holds the pair that was rejected");
            asked.push(event.keeping_pair());
        }
        told.extend(self.tell(record, "rolled-back", &message, now));
        tracing::warn!(certificate.name = %name, certificate.serial = %serial, "Rejected serial {serial} of `{name}` and went back");
        Ok(Some(GoneBack { told, asked }))
    }
}
