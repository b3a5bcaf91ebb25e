//! The heart of the sweep: a record, what AWS shows, and the time go in; what to do and why comes out.
//!
//! ```text
//!   not_before                                       due, spread over a tenth of the window
//!       │                                            │····│            late: a person is told     not_after
//!       ├────────────────────────────────────────────┼────┴─────────────────┼───────────────────────────┤
//!       │                 lifetime                   │◀── window: the last third, or `renew_before` ───▶│
//! ```
//!
//! ACM renews its own certificates 60 days before they expire; from [`ACM_WINDOW`] on it is asked to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;

use crate::attempt::{self, Turn};
use crate::date;
use crate::export::{self, Export, Held};
use crate::import;
use crate::names::{Arn, CertificateName, ServiceName, StoreName};
use crate::record::{Origin, Pair, Record};
use crate::rollout::{self, BindingState};
use crate::setback::Setback;
use crate::window::Hold;

/// What AWS shows of a certificate at this look.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub secret: Secret,
    /// The tags of the secret, where they do not say what the record says.
    pub astray: Option<BTreeMap<String, String>>,
    /// The regions whose replica of the secret is not as it should be.
    pub replicas: BTreeMap<String, Replica>,
    /// What ACM holds, for a certificate of ACM's and for one that ACM is to hold as well; `None` when ACM does not know it any more.
    pub held: Option<Held>,
    /// Whether ACM's certificate, for one of ACM's, has lost the tag with this certificate's name.
    pub untagged: bool,
    pub services: BTreeMap<ServiceName, BindingState>,
    /// Where the CA of the current pair is retired.
    pub rollover: Option<Rollover>,
    /// The trust stores that a staged pair waits for.
    pub waits_for: BTreeSet<StoreName>,
}

/// A CA that issues in the place of a retired one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollover {
    pub retired: Arn,
    pub successor: Arn,
    /// The trust stores that do not hold the successor yet: nothing is issued from it before they do.
    pub missing: BTreeSet<StoreName>,
}

/// A certificate's secret. That it holds the record's current pair was seen to before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Good,
    Missing,
    PendingDeletion,
    /// What is current in it is not a pair that can be read.
    Unreadable(String),
}

/// What is wrong with a replica of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replica {
    Missing,
    /// As Secrets Manager says it.
    Failed(String),
}

/// What to do, in this order, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub look_at: OffsetDateTime,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Let `issue-client-cert` make a new pair.
    Issue { reason: String },
    /// Let `export-to-secrets` fetch what ACM holds.
    Export { reason: String },
    /// Let `issue-client-cert` import the current pair into ACM.
    Import { reason: String },
    /// Ask ACM to renew.
    Renew { reason: String },
    /// Let `issue-client-cert` tell the CA what is to be revoked.
    Revoke { reason: String },
    /// Let `refresh-truststore` see to the stores that do not hold this CA.
    Trust { authority: Arn, reason: String },
    /// Let `force-redeploy` see to the services again.
    Redeploy { services: Vec<ServiceName> },
    /// Write the tags of the secret anew, in the place of these.
    Tag { has: BTreeMap<String, String> },
    /// Have these regions hold a replica of the secret.
    Replicate { regions: Vec<String> },
    /// Tell a person.
    Tell { code: &'static str, message: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issue { reason } => write!(f, "issue a new pair: {reason}"),
            Self::Export { reason } => write!(f, "export it from ACM: {reason}"),
            Self::Import { reason } => write!(f, "import it into ACM: {reason}"),
            Self::Renew { reason } => write!(f, "ask ACM to renew it: {reason}"),
            Self::Revoke { reason } => write!(f, "revoke: {reason}"),
            Self::Trust { reason, .. } => write!(f, "refresh trust stores: {reason}"),
            Self::Redeploy { services } => {
                let services: Vec<_> = services.iter().map(ToString::to_string).collect();
                write!(f, "redeploy {}", services.join(", "))
            }
            Self::Tag { .. } => f.write_str("write the tags of its secret anew"),
            Self::Replicate { regions } => write!(f, "replicate its secret to {}", regions.join(", ")),
            Self::Tell { code, message } => write!(f, "tell a person: {code}: {message}"),
        }
    }
}

/// ACM's renewal has had two weeks when this begins: <https://docs.aws.amazon.com/acm/latest/userguide/renew-private-cert.html>.
pub const ACM_WINDOW: Duration = Duration::from_secs(45 * 24 * 60 * 60);

/// A renewal of ACM that shows nothing after this long will show nothing.
/// <https://docs.aws.amazon.com/acm/latest/userguide/check-certificate-renewal-status.html>
pub const ACM_PATIENCE: Duration = Duration::from_secs(72 * 60 * 60);

/// ACM renews no certificate earlier than this before its end: <https://docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html>.
pub(crate) const ACM_RENEWS: Duration = Duration::from_secs(60 * 24 * 60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A rollout that was asked for this recently is left to the event that asked.
pub const ROLLOUT_GRACE: Duration = Duration::from_secs(10 * 60);

/// When the current pair is to be replaced by a new one, by its own dates. `None` when nothing is current.
pub fn due(record: &Record, sweep_interval: Duration) -> Option<OffsetDateTime> {
    let current = record.current.as_ref()?;
    let window = window(record, current);
    // A tenth of the window, but never so much that fewer than two sweeps are left.
    let spread = (window / 10).min(window.saturating_sub(sweep_interval * 2)).mul_f64(crate::fraction(&record.name.to_string()));
    Some(*current.not_after - window + spread)
}

/// Whether a certificate that is issued here is to get a new pair now: it wants one, or something is under way. After a setback that
/// has to wait.
pub fn is_due(record: &Record, sweep_interval: Duration, now: OffsetDateTime) -> bool {
    let next_may = record.set_back().is_none_or(|setback| setback.next(rest(record, sweep_interval)).is_some_and(|at| at <= now));
    record.attempt.is_some() || record.is_compromised() || wants(record, sweep_interval, now) && next_may
}

/// Nothing is current, its time has come, it is or will be revoked, it is of another CA than it is to be, or it came back in the
/// place of the pair that was wanted.
fn wants(record: &Record, sweep_interval: Duration, now: OffsetDateTime) -> bool {
    let authority = record.specification().map(|wanted| &wanted.certificate_authority_arn);
    record.current.as_ref().is_none_or(|current| current.issuer.as_ref() != authority)
        || due(record, sweep_interval).is_none_or(|due| due <= now)
        || record.revocation_of_current().is_some()
        || record.set_back().is_some()
}

/// Why a certificate that is issued here and wants a new pair does not get it now; `None`: it does, or wants none.
pub fn held_up(record: &Record, sweep_interval: Duration, now: OffsetDateTime) -> Option<String> {
    if record.attempt.is_some() || record.is_compromised() || !wants(record, sweep_interval, now) {
        return None;
    }
    kept(record, sweep_interval, now)
}

/// Why the current pair is to stay, whoever wants another one.
pub fn kept(record: &Record, sweep_interval: Duration, now: OffsetDateTime) -> Option<String> {
    match record.set_back().map(|setback| setback.next(rest(record, sweep_interval))) {
        Some(None) => {
            let retry = format!("{{\"retry\": \"{}\"}}", record.name);
            Some(format!(
                "deployments failed on new pairs in a row; see to its services, then invoke renew-on-expiry with {retry}"
            ))
        }
        Some(Some(at)) if now < at => {
            Some(format!("a deployment failed on the last pair; another one may be tried from {}", date(at)))
        }
        _ => record.held_back(now).map(|hold| hold.to_string()),
    }
}

/// From when on a pair should have been replaced: half its window before it ends.
pub fn late(record: &Record, current: &Pair) -> OffsetDateTime {
    *current.not_after - window(record, current) / 2
}

/// How long before its end a pair is to be replaced.
pub(crate) fn window(record: &Record, current: &Pair) -> Duration {
    let lifetime =
        Duration::try_from(*current.not_after - *current.not_before).unwrap_or_default().saturating_sub(crate::leaf::BACKDATED);
    match record.origin {
        Origin::Exported { .. } => (lifetime / 3).min(ACM_RENEWS),
        _ => record.options.renew_before.filter(|window| *window < lifetime).unwrap_or(lifetime / 3),
    }
}

/// How long what failed for good stands against another attempt: a day, or less where a day would be much of the window.
pub(crate) fn rest(record: &Record, sweep_interval: Duration) -> Duration {
    record.current.as_ref().map_or(DAY, |current| DAY.min(window(record, current) / 4).max(sweep_interval))
}

/// How long what failed then stands. No longer than a quarter of what was left: somebody may have moved the label back to a pair
/// that ends soon.
fn rest_after(record: &Record, failed: OffsetDateTime, sweep_interval: Duration) -> Duration {
    let rest = rest(record, sweep_interval);
    let left = |pair: &Pair| Duration::try_from(*pair.not_after - failed).unwrap_or_default();
    record.current.as_ref().map_or(rest, |pair| rest.min(left(pair) / 4).max(sweep_interval))
}

/// One look at one certificate.
pub fn plan(record: &Record, facts: &Facts, sweep_interval: Duration, now: OffsetDateTime) -> Plan {
    let mut plan = Plan { steps: Vec::new(), look_at: now + DAY };
    let name = &record.name;
    match &facts.secret {
        Secret::PendingDeletion => {
            plan.tell("secret-deleted", format!("the secret of `{name}` is scheduled for deletion; restore it, or leave it be"));
            return plan;
        }
        Secret::Missing if record.current.is_some() => {
            let way_out = match record.origin {
                Origin::Exported { .. } => {
                    format!("invoke export-to-secrets with {{\"certificate\": \"{name}\", \"replace\": true}}")
                }
                _ => "send its request to issue-client-cert again, with \"replace\": true".to_owned(),
            };
            plan.tell("secret-missing", format!("the secret of `{name}` is gone; to have it made anew, {way_out}"));
            return plan;
        }
        Secret::Unreadable(why) => {
            plan.tell(
                "secret-unreadable",
                format!("the current version of the secret of `{name}` is not a good pair ({why}); nothing was overwritten: put AWSCURRENT back on a good version"),
            );
            return plan;
        }
        Secret::Good | Secret::Missing => {}
    }
    plan.steps.extend(facts.astray.clone().filter(|_| record.current.is_some()).map(|has| Step::Tag { has }));
    plan.replicas(name, &facts.replicas);
    if record.setback.as_ref().is_some_and(|setback| !setback.done) {
        // `force-redeploy` brings it back first.
        plan.steps.push(Step::Redeploy { services: record.options.services.iter().cloned().collect() });
        plan.look_by(now + sweep_interval);
        return plan;
    }
    match &record.origin {
        _ if !facts.untagged && plan.waits(record, facts, sweep_interval, now) => {}
        Origin::Issued(_) => plan.ours(record, facts.held.as_ref(), facts.rollover.as_ref(), sweep_interval, now),
        Origin::Adopted { .. } => plan.adopted(record, facts.held.as_ref(), sweep_interval, now),
        Origin::CallerKey(_) => plan.callers(record, facts.rollover.as_ref(), sweep_interval, now),
        Origin::Exported { certificate_arn } => match &facts.held {
            Some(_) if facts.untagged => plan.tell(
                "acm-untagged",
                format!(
                    "{certificate_arn} has lost its tag everleaf:certificate with the name of `{name}`, and is not exported any more; put the tag back, or retire `{name}`; another certificate of ACM that has the tag now takes its place within a day"
                ),
            ),
            Some(held) => plan.acms(record, held, facts.rollover.as_ref(), sweep_interval, now),
            None => plan.tell("acm-missing", format!("ACM has no {certificate_arn} any more; `{name}` will not be renewed")),
        },
    }
    plan.hold_back(record, now);
    plan.import(record, facts.held.as_ref(), sweep_interval, now);
    plan.revocations(record, &facts.services, sweep_interval, now);
    plan.services(record, &facts.services, sweep_interval, now);
    plan
}

impl Plan {
    fn tell(&mut self, code: &'static str, message: String) {
        self.steps.push(Step::Tell { code, message });
    }

    fn look_by(&mut self, when: OffsetDateTime) {
        self.look_at = self.look_at.min(when);
    }

    fn trust(&mut self, missing: &BTreeSet<StoreName>, authority: &Arn, why: &str) {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let reason = format!("{} does not hold {authority} yet; {why}", missing.join(", "));
        self.steps.push(Step::Trust { authority: authority.clone(), reason });
    }

    fn replicas(&mut self, name: &CertificateName, replicas: &BTreeMap<String, Replica>) {
        let missing = replicas.iter().filter(|(_, replica)| **replica == Replica::Missing);
        let regions: Vec<_> = missing.map(|(region, _)| region.clone()).collect();
        if !regions.is_empty() {
            self.steps.push(Step::Replicate { regions });
        }
        for (region, replica) in replicas {
            if let Replica::Failed(why) = replica {
                self.tell(
                    "replica-failed",
                    format!("the replica of the secret of `{name}` in {region} failed ({why}); mend that, and remove the region from the secret's replication: within a day it is replicated anew"),
                );
            }
        }
    }

    /// Whether a staged pair waits for trust stores. They are then asked for, and nothing else is.
    fn waits(&mut self, record: &Record, facts: &Facts, sweep_interval: Duration, now: OffsetDateTime) -> bool {
        let staged = record.attempt.as_ref().and_then(|attempt| attempt.staged.as_ref());
        let issuer = staged.and_then(|staged| staged.issuer.as_ref());
        let Some(issuer) = issuer.filter(|_| !facts.waits_for.is_empty()) else { return false };
        self.trust(&facts.waits_for, issuer, "a new pair waits");
        self.look_by(now + sweep_interval);
        if let (Origin::Exported { .. }, Some(held)) = (&record.origin, &facts.held) {
            self.ca_of_acm(record, held, facts.rollover.as_ref());
        }
        self.late(record, facts.held.as_ref(), now);
        true
    }

    fn ours(
        &mut self,
        record: &Record,
        held: Option<&Held>,
        rollover: Option<&Rollover>,
        sweep_interval: Duration,
        now: OffsetDateTime,
    ) {
        let due = due(record, sweep_interval);
        let reason = match (&record.current, &record.attempt, due) {
            (_, Some(attempt), _) if attempt.staged.is_some() && attempt.rotation.is_none() => {
                format!("attempt {} waits for trust stores to hold its CA", attempt.number)
            }
            (_, Some(attempt), _) => format!("attempt {} was left unfinished", attempt.number),
            (Some(current), None, Some(due)) if due <= now => format!("expires {}", date(*current.not_after)),
            (Some(_), None, due) => match (record.revocation_of_current(), rollover) {
                (Some(revocation), _) => revocation.in_words(),
                (None, Some(Rollover { retired, successor, .. })) => {
                    format!("{retired} is retired; {successor} issues in its place")
                }
                (None, None) if record.set_back().is_some() => "a deployment failed on the pair after it".to_owned(),
                (None, None) => {
                    self.look_by(due.unwrap_or(now));
                    return;
                }
            },
            (None, None, _) => "not issued yet".to_owned(),
        };
        let may_rest = record.attempt.is_none() && !record.is_compromised();
        match rollover.filter(|rollover| record.attempt.is_none() && !rollover.missing.is_empty()) {
            _ if may_rest && self.rests(record, sweep_interval, now) => {}
            Some(Rollover { successor, missing, .. }) => {
                self.trust(missing, successor, &reason);
                self.look_by(now + sweep_interval);
            }
            None => self.when_its_turn(record, sweep_interval, now, Step::Issue { reason }),
        }
        self.late(record, held, now);
    }

    /// Nothing is begun outside of the maintenance window, or while the certificate is paused. What has begun is finished.
    fn hold_back(&mut self, record: &Record, now: OffsetDateTime) {
        let begins = |step: &Step| matches!(step, Step::Issue { .. } | Step::Export { .. } | Step::Renew { .. });
        let Some(hold) = record.held_back(now).filter(|_| self.steps.iter().any(begins)) else { return };
        self.steps.retain(|step| !begins(step));
        if let Hold::Until(opens) = hold {
            self.look_by(opens);
        }
    }

    /// Tells of a pair that ends soon, or has ended; half its window before, its renewal is late. While there is none yet, it is
    /// what ACM holds that ends.
    fn late(&mut self, record: &Record, held: Option<&Held>, now: OffsetDateTime) {
        let name = &record.name;
        let in_acm = held.and_then(|held| held.not_before.zip(held.not_after));
        let (not_after, window) = match (&record.current, in_acm) {
            (Some(current), _) => (*current.not_after, window(record, current)),
            (None, Some((not_before, not_after))) => (not_after, import::adoption_window(not_before, not_after)),
            (None, None) => return,
        };
        let late = not_after - window / 2;
        if not_after <= now {
            self.tell("expired", format!("`{name}` expired {}; no renewal has succeeded", date(not_after)));
        } else if late <= now {
            self.tell("renewal-late", format!("`{name}` expires {} and is not renewed yet", date(not_after)));
            self.look_by(not_after);
        } else {
            self.look_by(late);
        }
    }

    /// A certificate that was imported into ACM by hand. One that is gone, or has lost its tag, is left alone.
    fn adopted(&mut self, record: &Record, held: Option<&Held>, sweep_interval: Duration, now: OffsetDateTime) {
        let Some(held) = held else { return };
        let arn = &held.certificate_arn;
        if record.current.is_some() {
            let message = format!(
                "the tag everleaf:certificate of {arn} names `{0}`, and the secret of `{0}` holds another certificate; give the tag another name",
                record.name
            );
            return self.tell("adoption-refused", message);
        }
        let Some((not_before, not_after)) = held.not_before.zip(held.not_after) else {
            return self.look_by(now + sweep_interval);
        };
        match import::adoption_hold(&record.options, (not_before, not_after), now) {
            Some(Hold::Until(at)) => self.look_by(at),
            Some(Hold::Paused) => {}
            None => match import::usages_stay(held) {
                Ok(()) => {
                    let reason = format!("{arn} expires {}", date(not_after));
                    self.when_its_turn(record, sweep_interval, now, Step::Issue { reason });
                }
                Err(why) => self.tell("adoption-refused", format!("`{}` cannot be replaced: {why}", record.name)),
            },
        }
        self.late(record, Some(held), now);
    }

    /// What ACM is to hold as well. A pair that is about to be replaced is left to the next one.
    fn import(&mut self, record: &Record, held: Option<&Held>, sweep_interval: Duration, now: OffsetDateTime) {
        let gone = record.acm_certificate().filter(|_| record.options.import_to_acm && held.is_none());
        if let Some(arn) = gone {
            let message =
                format!("ACM has no {arn} any more; `{}` is imported under another ARN, for listeners to be given", record.name);
            self.tell("acm-missing", message);
        }
        let under_way = record.attempt.as_ref().is_some_and(|attempt| *attempt.lease > now);
        match import::turn(record, "", now) {
            import::Turn::Nothing => {}
            _ if under_way || self.steps.iter().any(|step| matches!(step, Step::Issue { .. })) => {}
            import::Turn::Busy { until } | import::Turn::Rest { until } => self.look_by(until),
            import::Turn::Import => {
                let held = held.and_then(|held| held.serial.as_ref());
                let holds = held.map_or_else(|| "nothing of it".to_owned(), |serial| format!("serial {serial}"));
                self.steps.push(Step::Import { reason: format!("ACM holds {holds}") });
                self.look_by(now + sweep_interval);
            }
        }
    }

    fn callers(&mut self, record: &Record, rollover: Option<&Rollover>, sweep_interval: Duration, now: OffsetDateTime) {
        if let Some(attempt) = &record.attempt {
            match *attempt.lease > now {
                true => self.look_by(*attempt.lease),
                false if attempt.staged.is_some() => {
                    let reason = format!("attempt {} waits for trust stores to hold its CA", attempt.number);
                    self.when_its_turn(record, sweep_interval, now, Step::Issue { reason });
                }
                false => self.tell(
                    "callers-key-unfinished",
                    format!(
                        "attempt {} at `{}` was left unfinished and its key is its caller's; send the same CSR again",
                        attempt.number, record.name
                    ),
                ),
            }
        }
        if let Some(Rollover { retired, successor, .. }) = rollover {
            self.tell(
                "callers-key-retired",
                format!(
                    "`{}` is issued by {retired}, which is retired, and its key is its caller's; send a CSR again, and {successor} signs it",
                    record.name
                ),
            );
        }
        match (&record.current, due(record, sweep_interval)) {
            (Some(_), Some(due)) if due > now && record.revocation_of_current().is_none() => self.look_by(due),
            (Some(_), Some(due)) if due > now => self.tell(
                "callers-key-revoked",
                format!(
                    "the certificate of `{}` is revoked, or is to be, and its key is its caller's; send a CSR with a new key",
                    record.name
                ),
            ),
            (Some(current), _) => self.tell(
                "callers-key-due",
                format!("`{}` expires {} and its key is its caller's; send a CSR again", record.name, date(*current.not_after)),
            ),
            (None, _) => {}
        }
    }

    fn acms(&mut self, record: &Record, held: &Held, rollover: Option<&Rollover>, sweep_interval: Duration, now: OffsetDateTime) {
        self.ca_of_acm(record, held, rollover);
        let before = self.steps.len();
        self.next_of_acm(record, held, sweep_interval, now);
        // Who is told what stands in the way need not be told that it takes long.
        let is_told = self.steps[before..].iter().any(|step| matches!(step, Step::Tell { .. }));
        if record.current.is_some() && !is_told {
            self.late(record, Some(held), now);
        }
    }

    /// What ACM has is exported, and it is asked for what it has not.
    fn next_of_acm(&mut self, record: &Record, held: &Held, sweep_interval: Duration, now: OffsetDateTime) {
        let arn = &held.certificate_arn;
        match export::export(held, Some(record), None, now) {
            Export::Take { reason, .. } => {
                self.when_its_turn(record, sweep_interval, now, Step::Export { reason: reason.to_owned() });
                return;
            }
            Export::TooEarly(_) => {
                self.look_by(now + sweep_interval);
                return;
            }
            Export::Never(_)
                if held.serial.as_ref().is_some_and(|serial| record.rejected.contains(serial) && !record.is_revoked(serial)) =>
            {
                if !self.rests(record, sweep_interval, now) {
                    self.renew_rejected(record, held, sweep_interval, now);
                }
                return;
            }
            Export::Never(why) => {
                self.tell("acm-refused", why);
                return;
            }
            Export::Unchanged if record.set_back().is_some_and(Setback::waits_for_a_person) => {
                self.rests(record, sweep_interval, now);
            }
            Export::Unchanged => {}
        }
        let Some(current) = &record.current else { return };
        let window = *current.not_after - ACM_WINDOW;
        let revocation = record.revocation_of_current();
        if now < window && revocation.is_none() {
            return self.look_by(window);
        }
        let failing = held.renewal.as_ref().filter(|renewal| renewal.status != "SUCCESS");
        let why = failing.map_or_else(String::new, |renewal| {
            format!(" ({}{})", renewal.status, renewal.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())
        });
        match record.renewal_asked.as_ref().filter(|asked| asked.serial == current.serial) {
            Some(asked) if now - *asked.at < ACM_PATIENCE => self.look_by(now + sweep_interval),
            Some(asked) => {
                self.tell(
                    "renewal-stuck",
                    format!(
                        "ACM was asked to renew {arn} {} and has not{why}; it expires {}",
                        date(*asked.at),
                        date(*current.not_after)
                    ),
                );
                if held.eligible {
                    self.steps.push(Step::Renew { reason: "the renewal asked for before came to nothing".to_owned() });
                    self.look_by(now + sweep_interval);
                }
            }
            None if held.eligible => {
                let reason = match revocation {
                    Some(revocation) => revocation.in_words(),
                    None => format!("expires {} and ACM has not renewed it{why}", date(*current.not_after)),
                };
                self.steps.push(Step::Renew { reason });
                self.look_by(now + sweep_interval);
            }
            None => self.tell(
                "renewal-refused",
                format!(
                    "{arn} expires {} and ACM calls it ineligible for renewal{why}; see to it in ACM",
                    date(*current.not_after)
                ),
            ),
        }
    }

    /// Whether the next pair has to wait because a deployment failed on the last one.
    fn rests(&mut self, record: &Record, sweep_interval: Duration, now: OffsetDateTime) -> bool {
        let Some(setback) = record.set_back() else { return false };
        match setback.next(rest(record, sweep_interval)) {
            Some(at) if at <= now => return false,
            Some(at) => self.look_by(at),
            None => self.tell(
                "rejected-again",
                format!(
                    "deployments failed on {} new pairs of `{2}` in a row, last {}; see to its services, then invoke renew-on-expiry with {{\"retry\": \"{2}\"}}",
                    setback.in_a_row, setback.reason, record.name
                ),
            ),
        }
        true
    }

    /// ACM has nothing else to give than what was rejected, until it renews.
    fn renew_rejected(&mut self, record: &Record, held: &Held, sweep_interval: Duration, now: OffsetDateTime) {
        let arn = &held.certificate_arn;
        let current = record.current.as_ref().map(|current| &current.serial);
        match record.renewal_asked.as_ref().filter(|asked| Some(&asked.serial) == current) {
            Some(asked) if now - *asked.at < ACM_PATIENCE => self.look_by(now + sweep_interval),
            _ if held.eligible => {
                self.steps.push(Step::Renew { reason: "a deployment failed on what ACM holds".to_owned() });
                self.look_by(now + sweep_interval);
            }
            _ => self.tell(
                "renewal-refused",
                format!("{arn} holds what was rejected, and ACM calls it ineligible for renewal; see to it in ACM"),
            ),
        }
    }

    /// Tells that ACM's certificate is of a retired CA.
    fn ca_of_acm(&mut self, record: &Record, held: &Held, rollover: Option<&Rollover>) {
        let has_moved = |successor: &Arn| held.certificate_authority_arn.as_ref() == Some(successor);
        let Some(Rollover { retired, successor, .. }) = rollover.filter(|rollover| !has_moved(&rollover.successor)) else {
            return;
        };
        self.tell(
            "acm-ca-retired",
            format!(
                "{} is issued by {retired}, which is retired, and ACM never moves a certificate to another CA; request a new one of {successor} in ACM, move the tags of `{}` to it, then delete the old one",
                held.certificate_arn, record.name
            ),
        );
    }

    /// Takes `step` when nobody else is at it, the day's attempts are not used up, and nothing permanent stands against it.
    fn when_its_turn(&mut self, record: &Record, sweep_interval: Duration, now: OffsetDateTime, step: Step) {
        let rested = record.halted.as_ref().map(|halt| *halt.at + rest_after(record, *halt.at, sweep_interval));
        if let Some(at) = rested.filter(|at| now < *at) {
            return self.look_by(at);
        }
        let replaces = record.current.as_ref().map(|pair| pair.version_id.as_str());
        match attempt::turn(record, "", "", replaces, now) {
            Turn::Busy { until } => self.look_by(until),
            Turn::Exhausted { until } => {
                self.tell(
                    "attempts-exhausted",
                    format!(
                        "{} attempts at `{}` began today, which is all for a day; the next is made {}",
                        attempt::A_DAY,
                        record.name,
                        date(until)
                    ),
                );
                self.look_by(until);
            }
            Turn::Begin(_) | Turn::Resume(_) => {
                self.steps.push(step);
                self.look_by(now + sweep_interval);
            }
        }
    }

    fn revocations(
        &mut self,
        record: &Record,
        services: &BTreeMap<ServiceName, BindingState>,
        sweep_interval: Duration,
        now: OffsetDateTime,
    ) {
        let pending = || record.revocations.iter().filter(|revocation| revocation.done.is_none());
        if pending().next().is_some() {
            self.look_by(now + sweep_interval);
        }
        if let Some(ready) = pending().find(|revocation| revocation.is_ready(record, services, now)) {
            self.steps.push(Step::Revoke { reason: ready.in_words() });
        }
    }

    fn services(
        &mut self,
        record: &Record,
        states: &BTreeMap<ServiceName, BindingState>,
        sweep_interval: Duration,
        now: OffsetDateTime,
    ) {
        let Some(current) = &record.current else { return };
        self.slow(record, states, *current.since, now);
        let mut services = Vec::new();
        for service in &record.options.services {
            let state = states.get(service);
            if rollout::waits(service, std::slice::from_ref(record), |service| states.get(service), now) {
                self.look_by(now + sweep_interval);
                continue;
            }
            let since = *current.since;
            let is_judged = |state: &BindingState| !state.lags(since) && state.fault.is_none() && !state.failed_on(since);
            if state.is_some_and(|state| state.is_on(since) || is_judged(state)) {
                continue;
            }
            // What stands against a service is a person's to mend: asked again once a day.
            if let Some(fault) = state.and_then(|state| state.fault.as_ref())
                && *current.since <= *fault.at
                && now - *fault.at < DAY
            {
                self.look_by(*fault.at + DAY);
            } else if now - *current.since < ROLLOUT_GRACE {
                self.look_by(*current.since + ROLLOUT_GRACE);
            } else {
                services.push(service.clone());
                self.look_by(now + sweep_interval);
            }
        }
        if !services.is_empty() {
            self.steps.push(Step::Redeploy { services });
        }
    }

    /// A deployment that neither completes nor fails.
    fn slow(
        &mut self,
        record: &Record,
        states: &BTreeMap<ServiceName, BindingState>,
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) {
        let began = |service: &ServiceName| states.get(service)?.slow(since, now);
        let slow =
            record.options.services.iter().filter_map(|service| Some(format!("{service} (since {})", date(began(service)?))));
        let slow: Vec<_> = slow.collect();
        if !slow.is_empty() {
            let message = format!(
                "deployments for `{}` neither complete nor fail: {}; look at the events and the tasks of each service in ECS",
                record.name,
                slow.join(", ")
            );
            self.tell("rollout-slow", message);
        }
    }
}

#[cfg(test)]
mod tests;
