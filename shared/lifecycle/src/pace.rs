//! How fast the sweep may hand out work: what one second of it leads to, the account's quotas grant in that second. Others use them
//! too, another stack among them: so only so much may be under way at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

use crate::attempt::LEASE;
use crate::names::ServiceName;
use crate::record::{Origin, Record};
use crate::renewal::Step;
use crate::rollout::{self, BindingState};

/// What AWS grants an account in a second, in one region.
///
/// - [ACM](https://docs.aws.amazon.com/acm/latest/userguide/acm-limits.html)
/// - [AWS Private CA](https://docs.aws.amazon.com/general/latest/gr/pca.html)
/// - [Secrets Manager](https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html)
/// - [ECS](https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html)
mod per_second {
    pub(super) const DESCRIBE_CERTIFICATE: u32 = 10;
    pub(super) const EXPORT_CERTIFICATE: u32 = 10;
    pub(super) const GET_CERTIFICATE: u32 = 75;
    pub(super) const IMPORT_CERTIFICATE: u32 = 1;
    pub(super) const RENEW_CERTIFICATE: u32 = 5;
    pub(super) const REVOKE_CERTIFICATE: u32 = 20;
    pub(super) const UPDATE_SERVICE: u32 = 5;
    pub(super) const WRITE_SECRET: u32 = 50;
}

/// How long the tightest quota takes to grant what a look with these steps leads to, down to the deployments of the services.
pub fn time_for(record: &Record, steps: &[Step]) -> Duration {
    let times = |calls: usize, per_second: u32| Duration::from_secs(calls as u64) / per_second;
    let rollout = |services: usize| times(services, per_second::UPDATE_SERVICE);
    let new_pair = rollout(record.options.services.len());
    let import = times(usize::from(record.options.import_to_acm), per_second::IMPORT_CERTIFICATE);
    let is_exported = matches!(record.origin, Origin::Exported { .. });
    // ACM is asked what it holds; half of that quota is for exports, which ask too.
    let look =
        times(if is_exported { 2 } else { usize::from(record.acm_certificate().is_some()) }, per_second::DESCRIBE_CERTIFICATE);
    let of_each = steps.iter().map(|step| match step {
        // The CA is asked for the certificate until it is there.
        Step::Issue { .. } => {
            new_pair.max(import).max(times(3, per_second::WRITE_SECRET)).max(times(5, per_second::GET_CERTIFICATE))
        }
        Step::Export { .. } => new_pair.max(times(1, per_second::EXPORT_CERTIFICATE)),
        Step::Renew { .. } => new_pair.max(times(1, per_second::RENEW_CERTIFICATE)),
        Step::Import { .. } => import,
        Step::Revoke { .. } => times(1, per_second::REVOKE_CERTIFICATE),
        Step::Redeploy { services } => rollout(services.len()),
        Step::Trust { .. } | Step::Tag { .. } | Step::Replicate { .. } | Step::Tell { .. } => Duration::ZERO,
    });
    of_each.max().unwrap_or_default().max(look)
}

/// What the sweep has under way may take the quotas so long: longer than AWS Private CA takes to issue, so that there is always
/// something for ECS to do, and a small part of what an invocation waits for, so that nobody waits in vain when others do the same.
pub const UNDER_WAY: Duration = Duration::from_secs(10);

/// What was asked of the other functions about a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub at: OffsetDateTime,
    /// How long the account's quotas take to grant it.
    pub takes: Duration,
    /// The version of the secret that a new pair is to replace; `None` where only services are to be seen to, or nothing is current.
    pub replaces: Option<String>,
}

impl Asked {
    /// What these steps ask.
    pub fn of(record: &Record, steps: &[Step], now: OffsetDateTime) -> Option<Self> {
        let asks_for_pair = steps.iter().any(|step| matches!(step, Step::Issue { .. } | Step::Export { .. }));
        let asks = asks_for_pair || steps.iter().any(|step| matches!(step, Step::Redeploy { .. }));
        let current = record.current.as_ref().filter(|_| asks_for_pair);
        asks.then(|| Self { at: now, takes: time_for(record, steps), replaces: current.map(|pair| pair.version_id.clone()) })
    }

    /// Whether somebody is still at it, as far as the table tells: neither done, nor failed, nor waiting for anything else than AWS.
    /// After the time that an invocation has, nobody is.
    pub fn is_under_way(&self, record: &Record, states: &BTreeMap<ServiceName, BindingState>, now: OffsetDateTime) -> bool {
        let has_failed = record.halted.as_ref().is_some_and(|halt| *halt.at >= self.at);
        let is_staged = record.attempt.as_ref().is_some_and(|attempt| attempt.staged.is_some());
        if now - self.at >= LEASE || has_failed || is_staged {
            return false;
        }
        let Some(current) = &record.current else { return true };
        let is_seen_to = |service: &ServiceName| {
            states.get(service).is_some_and(|state| state.has_begun(*current.since) || state.fault.is_some())
                || rollout::waits(service, std::slice::from_ref(record), |service| states.get(service), now)
        };
        self.replaces.as_ref() == Some(&current.version_id) || !record.options.services.iter().all(is_seen_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Attempt, Staged};
    use crate::record::{Options, Pair};
    use crate::rollout::{Deployment, Fault, Progress};
    use crate::samples::{at, attempt, exported, halt, issued, pair};

    fn with_services(count: usize, record: Record) -> Record {
        let services = (0..count).map(|number| format!("main/app-{number}").parse().unwrap()).collect();
        Record { options: Options { services, ..record.options }, ..record }
    }

    #[test]
    fn steps_take_as_long_as_the_tightest_of_the_quotas_that_they_use() {
        let reason = || "due".to_owned();
        let (issue, export) = (Step::Issue { reason: reason() }, Step::Export { reason: reason() });
        let renew = Step::Renew { reason: reason() };
        let redeploy = Step::Redeploy { services: (0..3).map(|n| format!("main/app-{n}").parse().unwrap()).collect() };
        let mut for_listeners = issued();
        for_listeners.options.import_to_acm = true;
        for (what, record, steps, millis) in [
            ("nothing", issued(), vec![], 0),
            ("a look that asks ACM too", exported(), vec![], 200),
            ("a word to a person", issued(), vec![Step::Tell { code: "expired", message: reason() }], 0),
            ("a new pair for nobody", with_services(0, issued()), vec![issue.clone()], 66),
            ("a new pair for a service", with_services(1, issued()), vec![issue.clone()], 200),
            ("a new pair for ten", with_services(10, issued()), vec![issue.clone()], 2_000),
            ("a new pair for listeners", for_listeners.clone(), vec![issue.clone()], 1_000),
            ("an export for nobody", with_services(0, exported()), vec![export.clone()], 200),
            ("an export for two", with_services(2, exported()), vec![export], 400),
            ("a renewal for nobody", with_services(0, exported()), vec![renew.clone()], 200),
            ("a renewal for three", with_services(3, exported()), vec![renew], 600),
            ("an import", for_listeners, vec![Step::Import { reason: reason() }], 1_000),
            ("a revocation", issued(), vec![Step::Revoke { reason: reason() }], 50),
            ("a rollout that was asked for before", with_services(9, issued()), vec![redeploy.clone()], 600),
            ("several at once", with_services(1, issued()), vec![issue, redeploy], 600),
        ] {
            assert_eq!(time_for(&record, &steps).as_millis(), millis, "{what}");
        }
    }

    #[test]
    fn what_was_asked_is_under_way_until_it_is_done_or_failed_or_waits_for_something_else() {
        let asked_at = at("2026-11-22T12:00:00Z");
        let old = with_services(1, issued());
        let new_pair = Pair { version_id: "version-2".to_owned(), since: (asked_at + Duration::from_secs(6)).into(), ..pair() };
        let new = Record { current: Some(new_pair), ..old.clone() };
        let staged = Some(Staged { version_id: "version-2".to_owned(), serial: pair().serial, issuer: None });
        let waiting = Record { attempt: Some(Attempt { staged, ..attempt(asked_at) }), ..old.clone() };
        let halted = |at: OffsetDateTime| Record { halted: Some(halt(at)), ..old.clone() };
        let begun = |seconds: u64| BindingState {
            deployment: Some(Deployment {
                id: "ecs-svc/1".to_owned(),
                began: (asked_at + Duration::from_secs(seconds)).into(),
                created: None,
                progress: Progress::Running,
                task_definition: String::new(),
            }),
            ..BindingState::default()
        };
        let faulty = BindingState {
            fault: Some(Fault { at: asked_at.into(), reason: "it is DRAINING".to_owned() }),
            ..BindingState::default()
        };
        let (of_pair, of_services) =
            (&[Step::Issue { reason: "due".to_owned() }][..], &[Step::Redeploy { services: vec![] }][..]);
        for (what, steps, record, state, passed, expected) in [
            ("a pair that is not there yet", of_pair, &old, begun(0), 5, true),
            ("a pair that nobody made in the time of an invocation", of_pair, &old, begun(0), 150, false),
            ("a pair that cannot be made", of_pair, &halted(asked_at), begun(0), 5, false),
            ("a pair that could not be made before", of_pair, &halted(asked_at - Duration::from_secs(1)), begun(0), 5, true),
            ("a pair that waits for trust", of_pair, &waiting, begun(0), 5, false),
            ("a new pair before its service is deployed", of_pair, &new, begun(6), 9, true),
            ("a new pair of a service that nobody knows", of_pair, &new, BindingState::default(), 9, true),
            ("a new pair and its deployment", of_pair, &new, begun(7), 9, false),
            ("a new pair of a service that cannot be deployed", of_pair, &new, faulty, 9, false),
            ("a rollout that has not begun", of_services, &new, begun(6), 9, true),
            ("a rollout that has begun", of_services, &new, begun(7), 9, false),
        ] {
            let asked = Asked::of(&old, steps, asked_at).unwrap();
            let states = record.options.services.iter().map(|service| (service.clone(), state.clone())).collect();
            let now = asked_at + Duration::from_secs(passed);
            assert_eq!(asked.is_under_way(record, &states, now), expected, "{what}");
        }
        assert_eq!(Asked::of(&old, &[Step::Revoke { reason: "asked for".to_owned() }], asked_at), None);
    }
}
