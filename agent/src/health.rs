//! What `watch` writes down for the container's health check.
//!
//! A fault of AWS's is told and is not ill health: a task that is replaced because Secrets Manager is away would lose the good
//! certificate that it has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Serialize, Deserialize)]
pub struct Health {
    #[serde(with = "time::serde::rfc3339")]
    pub looked: OffsetDateTime,
    /// By then there must have been another look.
    #[serde(with = "time::serde::rfc3339")]
    pub stale_after: OffsetDateTime,
    pub certificates: BTreeMap<String, Certificate>,
    /// Why the program could not be told of a new certificate.
    pub not_told: Option<String>,
    /// Why there is nobody to tell: where the program does not run yet, it will read the new files when it starts.
    pub nobody_told: Option<String>,
}

/// What is there of a certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Certificate {
    pub version: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_after: Option<OffsetDateTime>,
    /// What the last look met.
    pub fault: Option<String>,
}

/// A look may be late by so many intervals, and by the time that AWS takes.
const MISSED: u32 = 3;
const SLOW: Duration = Duration::from_secs(120);

impl Health {
    pub fn at(now: OffsetDateTime, interval: Duration) -> Self {
        let stale_after = now + interval * MISSED + SLOW;
        Self { looked: now, stale_after, certificates: BTreeMap::new(), not_told: None, nobody_told: None }
    }

    /// The state in a line; an error when it is not good.
    pub fn judge(&self, now: OffsetDateTime) -> Result<String, String> {
        if self.stale_after < now {
            return Err(format!("stale: the last look was at {}", rfc3339(self.looked)));
        }
        self.judge_certificates(now)
    }

    /// As [`judge`](Self::judge), for who has just looked.
    pub fn judge_certificates(&self, now: OffsetDateTime) -> Result<String, String> {
        for (name, certificate) in &self.certificates {
            match certificate.not_after {
                None => return Err(format!("missing: {name}: {}", certificate.fault.as_deref().unwrap_or("it is not there"))),
                Some(not_after) if not_after <= now => return Err(format!("expired: {name} at {}", rfc3339(not_after))),
                Some(_) => {}
            }
        }
        if let Some(why) = &self.not_told {
            return Err(format!("not reloaded: {why}"));
        }
        let until = self.certificates.iter().filter_map(|(name, it)| Some(format!("{name} until {}", rfc3339(it.not_after?))));
        let faults = self.certificates.iter().filter_map(|(name, it)| Some(format!("{name}: {}", it.fault.as_ref()?)));
        let faults = faults.chain(self.nobody_told.iter().map(|why| format!("nobody is told of the new certificate: {why}")));
        let (until, faults): (Vec<_>, Vec<_>) = (until.collect(), faults.collect());
        let but = if faults.is_empty() { String::new() } else { format!(", but {}", faults.join("; ")) };
        Ok(format!("good: {}{but}", until.join(", ")))
    }

    pub fn write(&self, directory: &Path) -> Result<(), String> {
        let file = file(directory);
        let next = file.with_extension("next");
        let text = serde_json::to_vec_pretty(self).map_err(|error| error.to_string())?;
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&next, text));
        written.and_then(|()| fs::rename(&next, &file)).map_err(|error| format!("write {}: {error}", file.display()))
    }

    pub fn read(directory: &Path) -> Result<Self, String> {
        let file = file(directory);
        let text = fs::read(&file).map_err(|error| format!("missing: no agent has looked yet: {}: {error}", file.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("missing: {} is not legible: {error}", file.display()))
    }
}

/// A time as people and programs read it.
pub fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// In a directory of its own: the one above is watched for what is moved into it.
fn file(directory: &Path) -> PathBuf {
    directory.join(".agent/health.json")
}
