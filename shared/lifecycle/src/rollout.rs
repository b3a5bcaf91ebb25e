//! A service and the pairs that its tasks read: is every task new enough?

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::names::{CertificateName, ServiceName};
use crate::record::{Moment, Record};
use crate::renewal;

/// What is kept of a service: whose certificates it reads, and the last deployment known to have begun after they became current.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    pub service: ServiceName,
    pub certificates: BTreeSet<CertificateName>,
    pub state: BindingState,
    pub revision: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BindingState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// Whoever is about to deploy the service, until when. Keeps two from deploying it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Why the service cannot be deployed, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// When the last deployment of another task definition began that was followed before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Moment>,
    /// The last deployment that was seen to succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Success>,
}

/// A deployment that succeeded: its tasks worked with the pairs that were current when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    pub began: Moment,
    pub task_definition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub holder: String,
    pub until: Moment,
    /// When the newest pair became current that the service is about to be deployed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Moment>,
}

impl Lock {
    /// Until when it keeps this invocation out.
    pub fn keeps_out(&self, holder: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
        (*self.until > now && self.holder != holder).then_some(*self.until)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub at: Moment,
    pub reason: String,
}

/// A deployment of ECS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// `ecs-svc/…`
    pub id: String,
    /// By the clock of Secrets Manager, as pairs are dated, and no later than it was.
    pub began: Moment,
    /// By the clock of ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Moment>,
    pub progress: Progress,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task_definition: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    Running,
    Completed,
    Failed,
}

/// A service as ECS describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `ACTIVE`, `DRAINING` or `INACTIVE`.
    pub status: String,
    /// `ECS`, `CODE_DEPLOY` or `EXTERNAL`.
    pub controller: String,
    /// The deployment whose tasks are to run.
    pub primary: Option<Deployment>,
    /// When the oldest deployment was created that has tasks, by the clock of ECS.
    pub oldest: Option<Moment>,
}

impl Service {
    /// A deployment is not complete as long as tasks of an older one run beside its own, whatever ECS calls it.
    pub fn beside_older(&self, deployment: Deployment) -> Deployment {
        let older = self.oldest.zip(deployment.created).is_some_and(|(oldest, created)| oldest < created);
        match deployment.progress {
            Progress::Completed if older => Deployment { progress: Progress::Running, ..deployment },
            _ => deployment,
        }
    }
}

/// What ECS keeps of a deployment as a service deployment: of every strategy, and with its rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDeployment {
    /// By the clock of ECS.
    pub created: Moment,
    pub status: String,
    pub reason: Option<String>,
}

impl ServiceDeployment {
    /// The two are created together, and nothing else tells which belongs to which.
    pub const APART: Duration = Duration::from_secs(60);

    /// That of the deployment which was created then.
    pub fn of(created: OffsetDateTime, all: Vec<Self>) -> Option<Self> {
        let apart = |found: &Self| (*found.created - created).unsigned_abs();
        all.into_iter().filter(|found| apart(found) <= Self::APART).min_by_key(apart)
    }

    /// How far the deployment has come whose tasks are to run.
    pub fn progress(&self) -> Progress {
        match self.status.as_str() {
            "SUCCESSFUL" => Progress::Completed,
            "STOPPED" => Progress::Failed,
            _ if self.is_rolled_back() => Progress::Failed,
            _ => Progress::Running,
        }
    }

    /// Whether it failed and the one before it takes its place, or is to.
    pub fn is_rolled_back(&self) -> bool {
        self.status.starts_with("ROLLBACK_")
    }
}

/// What ECS shows of a deployment.
#[derive(Debug)]
pub struct Shown<'a> {
    /// `COMPLETED`, `FAILED` or `IN_PROGRESS`. Not every kind of service has one.
    pub rollout_state: Option<&'a str>,
    pub listed: Option<&'a ServiceDeployment>,
    pub desired: i32,
    pub running: i32,
    /// Tasks that could not be started or did not stay.
    pub failed: i32,
}

/// Without a circuit breaker ECS tries for ever. A deployment none of whose tasks runs for so long after some have failed counts as
/// failed: the circuit breaker would have given up after as many tasks.
const STUCK: Duration = Duration::from_secs(30 * 60);

impl Shown<'_> {
    /// How far the deployment has come that began then.
    pub fn progress(&self, began: OffsetDateTime, now: OffsetDateTime) -> Progress {
        let progress = match (self.rollout_state, self.listed) {
            (Some("COMPLETED"), _) => Progress::Completed,
            (Some("FAILED"), _) => Progress::Failed,
            (Some(_), _) => Progress::Running,
            (None, Some(listed)) => listed.progress(),
            (None, None) if self.running >= self.desired => Progress::Completed,
            (None, None) => Progress::Running,
        };
        let is_stuck = self.failed > 0 && self.running == 0 && began + STUCK <= now;
        if progress == Progress::Running && is_stuck { Progress::Failed } else { progress }
    }
}

impl Deployment {
    /// Begun here, after a pair became current, whatever the clock of ECS shows.
    pub fn begun_after(self, pair: OffsetDateTime) -> Self {
        let at_least = pair + Duration::from_millis(1);
        Self { began: at_least.max(*self.began - CLOCKS_APART).into(), ..self }
    }
}

/// What is to be done with a service.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    /// Its tasks may hold an older pair.
    Redeploy,
    /// This deployment began after the newest of its pairs became current.
    Covered(Deployment),
    /// It cannot be deployed, for a reason that only a person can mend.
    Refused(String),
}

/// By how much the clocks of ECS and Secrets Manager may differ.
const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);

/// So long a clock goes right, whatever it shows.
const CLOCKS_KEEP: Duration = Duration::from_secs(60 * 60);

/// Judges a service by the moment when the newest of its pairs became current. A deployment that began at that very moment may have
/// started tasks before it.
pub fn rollout(service: Option<&Service>, newest_pair: OffsetDateTime) -> Rollout {
    let Some(Service { status, controller, primary, .. }) = service else {
        return Rollout::Refused("ECS knows no such service; remove it from the certificate, or create it".to_owned());
    };
    if status != "ACTIVE" {
        return Rollout::Refused(format!("it is {status}; remove it from the certificate"));
    }
    match primary {
        Some(deployment) if *deployment.began > newest_pair => Rollout::Covered(deployment.clone()),
        _ if controller != "ECS" => Rollout::Refused(format!(
            "its deployment controller is {controller}, which takes deployments only by its own means; deploy it there"
        )),
        _ => Rollout::Redeploy,
    }
}

/// Whether a service that reads these certificates has to wait until the new pair of one of them works with its canary; what was
/// current before is known to work. The canary of a pair that has yet to reach it waits for nobody: two that are each other's would
/// wait for ever. And nobody waits once what may still run is late to be replaced: a pair that nobody has tried is better than one
/// that expires.
pub fn waits<'a>(
    service: &ServiceName,
    certificates: &[Record],
    state: impl Fn(&ServiceName) -> Option<&'a BindingState>,
    now: OffsetDateTime,
) -> bool {
    let with_canary = |record: &Record| Some((record.options.canary.clone()?, *record.current.as_ref()?.since));
    let is_first = certificates
        .iter()
        .filter_map(with_canary)
        .any(|(canary, since)| canary == *service && state(service).is_none_or(|state| state.lags(since)));
    let new = certificates.iter().filter(|record| record.set_back().is_none());
    let untried =
        |(canary, since): (ServiceName, _)| canary != *service && !state(&canary).is_some_and(|state| state.is_on(since));
    let is_late = certificates.iter().any(|record| {
        let Some(current) = &record.current else { return false };
        // What went back may have nothing before it: its tasks hold the same certificate.
        let Some(previous) = record.previous.as_ref().or_else(|| record.set_back().and(Some(current))) else { return false };
        let state = state(service);
        // Tasks that hold what came before the previous pair: that was replaced when it had about such a window left.
        let is_older = |deployment: &Deployment| {
            *deployment.began <= *previous.since && *previous.since + renewal::window(record, previous) / 2 <= now
        };
        state.is_none_or(|state| state.lags(*current.since))
            && (renewal::late(record, previous) <= now || state.and_then(|state| state.deployment.as_ref()).is_some_and(is_older))
    });
    !is_first && !is_late && new.filter_map(with_canary).any(untried)
}

/// After so long a pair is taken to have reached the tasks that an agent brings it to: nothing in AWS tells. The agent looks every
/// five minutes by default, and no later after a failure.
pub const AGENT_GRACE: Duration = Duration::from_secs(60 * 60);

/// A deployment that takes longer will hardly end by itself.
const SLOW: Duration = Duration::from_secs(6 * 60 * 60);

impl BindingState {
    /// Follows this deployment from now on, or notes how far it has come.
    pub fn follow(&mut self, deployment: Deployment) {
        if deployment.progress == Progress::Completed {
            let Deployment { began, task_definition, .. } = deployment.clone();
            self.success = Some(Success { began, task_definition });
        }
        if let Some(before) = self.deployment.replace(deployment)
            && self.deployment.as_ref().is_some_and(|deployment| deployment.task_definition != before.task_definition)
        {
            self.before = Some(before.began);
        }
    }

    /// A deployment as ECS shows it, with its beginning by the clock of Secrets Manager. What is followed has it already, and what was
    /// created soon after that by ECS's clock, such as its rollback, began so much later. Else nobody knows how far the clocks are
    /// apart, so it is taken to have begun as early as may be. One that may be Everleaf's, whose end was not seen, began after the
    /// pair that it was for: else it would be begun a second time.
    pub fn dated(&self, deployment: Deployment) -> Deployment {
        let Some(followed) = &self.deployment else { return deployment };
        let began = match (&self.lock, followed.created, deployment.created) {
            _ if followed.id == deployment.id => *followed.began,
            (Some(Lock { newest: Some(newest), .. }), ..) if *deployment.began > **newest => {
                return deployment.begun_after(**newest);
            }
            (Some(_), ..) => *deployment.began,
            (None, Some(before), Some(created)) if (*before..*before + CLOCKS_KEEP).contains(&*created) => {
                (*followed.began + (*created - *before)).max(*deployment.began - CLOCKS_APART)
            }
            _ => *deployment.began - CLOCKS_APART,
        };
        Deployment { began: began.into(), ..deployment }
    }

    /// The followed deployment, where another one has taken its place before its end was seen: that may be its rollback, which ECS
    /// does not always tell of.
    pub fn replaced(&self, service: &Service, newest_pair: OffsetDateTime) -> Option<&Deployment> {
        let other = service.primary.as_ref().filter(|_| service.status == "ACTIVE" && service.controller == "ECS")?;
        let runs = |followed: &&Deployment| followed.progress == Progress::Running && *followed.began > newest_pair;
        self.deployment.as_ref().filter(runs).filter(|followed| followed.id != other.id)
    }

    /// Follows a deployment that is new enough. Gives the certificates on whose new pair it failed, and the others that the service
    /// reads; `None` when nothing is new and nothing has failed.
    pub fn cover(&mut self, deployment: Deployment, certificates: Vec<Record>) -> Option<(Vec<Record>, Vec<Record>)> {
        let known = self.deployment.as_ref() == Some(&deployment) && self.fault.is_none();
        self.follow(deployment);
        let fails = |record: &Record| record.current.as_ref().is_some_and(|pair| self.failed_on(*pair.since));
        let (to_blame, others): (Vec<_>, Vec<_>) = certificates.into_iter().partition(fails);
        (!known || !to_blame.is_empty()).then_some((to_blame, others))
    }

    /// What stands against the service now that the pairs on which its deployment failed were taken back, but those that are `stuck`
    /// for the reason beside them. Gives the certificates of which a person is told, each with what. `failed` says that it failed.
    pub fn conclude(
        &mut self,
        failed: &str,
        undone: bool,
        stuck: Vec<(Record, String)>,
        others: &[Record],
        now: OffsetDateTime,
    ) -> Vec<(Record, String)> {
        let ended = self.deployment.as_ref().filter(|deployment| deployment.progress == Progress::Failed);
        let (told, stands) = match ended {
            Some(Deployment { began, .. }) if !undone && stuck.is_empty() => {
                // What became current since has another deployment.
                let is_before = |record: &&Record| record.current.as_ref().is_some_and(|pair| *pair.since < **began);
                let reason = format!("{failed}; see to the service, then deploy it");
                let told = others.iter().filter(is_before).map(|record| (record.clone(), reason.clone())).collect();
                (told, others.iter().all(|record| is_before(&record)).then_some(reason))
            }
            _ => {
                let stands = stuck.first().map(|(_, reason)| reason.clone());
                (stuck, stands)
            }
        };
        (self.lock, self.fault) = (None, stands.map(|reason| Fault { at: now.into(), reason }));
        told
    }

    /// Whether the followed deployment failed on the pair that became current at `since`: its task definition had worked before, and
    /// since then no deployment has worked, and none was of another task definition.
    pub fn failed_on(&self, since: OffsetDateTime) -> bool {
        let (Some(deployment), Some(success)) = (&self.deployment, &self.success) else { return false };
        deployment.progress == Progress::Failed
            && *deployment.began > since
            && self.before.is_none_or(|before| *before <= since)
            && *success.began <= since
            && success.task_definition == deployment.task_definition
    }

    /// Whether the service still has to be seen to for a pair that became current at `since`.
    pub fn lags(&self, since: OffsetDateTime) -> bool {
        match &self.deployment {
            Some(deployment) => *deployment.began <= since || deployment.progress == Progress::Running,
            None => true,
        }
    }

    /// When the deployment for the pair that became current at `since` began, if it should have ended by now.
    pub fn slow(&self, since: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let Deployment { began, progress, .. } = self.deployment.as_ref()?;
        (*progress == Progress::Running && **began > since && **began + SLOW <= now).then_some(**began)
    }

    /// Whether a deployment began after a pair became current at `since`, whatever came of it.
    pub fn has_begun(&self, since: OffsetDateTime) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| *deployment.began > since)
    }

    /// Whether every task is known to read the pair that became current at `since`. After a deployment that failed, older tasks
    /// may still run, though nothing more is to be done for it.
    pub fn is_on(&self, since: OffsetDateTime) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| *deployment.began > since && deployment.progress == Progress::Completed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, at};

    const PAIR: &str = "2026-11-22T06:00:00.5Z";

    fn deployment(began: &str, progress: Progress) -> Deployment {
        Deployment {
            id: "ecs-svc/1".to_owned(),
            began: at(began).into(),
            created: Some(at(began).into()),
            progress,
            task_definition: "web:1".to_owned(),
        }
    }

    fn service(status: &str, controller: &str, began: Option<&str>) -> Service {
        let primary = began.map(|began| deployment(began, Progress::Completed));
        Service { status: status.to_owned(), controller: controller.to_owned(), primary, oldest: None }
    }

    #[test]
    fn a_service_is_deployed_unless_its_deployment_began_after_its_newest_pair() {
        for (what, service, expected) in [
            ("began before", Some(service("ACTIVE", "ECS", Some("2026-11-22T06:00:00.499Z"))), "redeploy"),
            ("began at the same moment", Some(service("ACTIVE", "ECS", Some(PAIR))), "redeploy"),
            ("began after", Some(service("ACTIVE", "ECS", Some("2026-11-22T06:00:00.501Z"))), "covered"),
            ("was never deployed", Some(service("ACTIVE", "ECS", None)), "redeploy"),
            ("is not there", None, "ECS knows no such service"),
            ("is draining", Some(service("DRAINING", "ECS", Some("2026-11-22T07:00:00Z"))), "it is DRAINING"),
            ("is deleted", Some(service("INACTIVE", "ECS", None)), "it is INACTIVE"),
            ("is CodeDeploy's", Some(service("ACTIVE", "CODE_DEPLOY", Some(PAIR))), "controller is CODE_DEPLOY"),
            ("is somebody's, without a deployment", Some(service("ACTIVE", "EXTERNAL", None)), "controller is EXTERNAL"),
            ("is CodeDeploy's, deployed since", Some(service("ACTIVE", "CODE_DEPLOY", Some("2026-11-22T07:00:00Z"))), "covered"),
        ] {
            match rollout(service.as_ref(), at(PAIR)) {
                Rollout::Redeploy => assert_eq!(expected, "redeploy", "{what}"),
                Rollout::Covered(by) => {
                    assert_eq!(expected, "covered", "{what}");
                    assert_eq!(Some(by), service.and_then(|service| service.primary), "{what}");
                }
                Rollout::Refused(why) => assert!(why.contains(expected), "{what}: {why}"),
            }
        }
    }

    #[test]
    fn a_deployment_is_complete_once_no_older_task_runs_beside_its_own() {
        let began = "2026-11-22T07:00:00Z";
        let undated = |progress| Deployment { created: None, ..deployment(began, progress) };
        for (what, oldest, deployment, expected) in [
            ("an older task runs", Some("2026-11-22T06:59:59Z"), deployment(began, Progress::Completed), Progress::Running),
            ("its own run", Some(began), deployment(began, Progress::Completed), Progress::Completed),
            (
                "one of a newer one runs",
                Some("2026-11-22T08:00:00Z"),
                deployment(began, Progress::Completed),
                Progress::Completed,
            ),
            ("none is to run", None, deployment(began, Progress::Completed), Progress::Completed),
            ("it is of an earlier version", Some(PAIR), undated(Progress::Completed), Progress::Completed),
            ("it failed beside older ones", Some(PAIR), deployment(began, Progress::Failed), Progress::Failed),
        ] {
            let service = Service { oldest: oldest.map(|oldest| at(oldest).into()), ..service("ACTIVE", "ECS", None) };
            assert_eq!(service.beside_older(deployment).progress, expected, "{what}");
        }
    }

    #[test]
    fn how_far_a_deployment_has_come_is_said_by_ecs_by_its_list_or_by_the_tasks() {
        let listed = |status: &str| Some(ServiceDeployment { created: at(PAIR).into(), status: status.to_owned(), reason: None });
        let (begins, young, old) = ("2026-11-22T07:00:00Z", "2026-11-22T07:29:59Z", "2026-11-22T07:30:00Z");
        // Tasks that are to run, that do, and that failed.
        for (what, rollout_state, listed, [desired, running, failed], now, expected) in [
            ("ECS says so", Some("COMPLETED"), None, [2, 0, 9], old, Progress::Completed),
            ("ECS says that it failed", Some("FAILED"), listed("SUCCESSFUL"), [2, 2, 0], young, Progress::Failed),
            ("ECS is at it", Some("IN_PROGRESS"), listed("SUCCESSFUL"), [2, 2, 0], old, Progress::Running),
            ("ECS is at it in vain", Some("IN_PROGRESS"), None, [2, 0, 1], old, Progress::Failed),
            ("and has tried too little", Some("IN_PROGRESS"), None, [2, 0, 1], young, Progress::Running),
            ("one task stays", Some("IN_PROGRESS"), None, [2, 1, 9], old, Progress::Running),
            ("none has failed", Some("IN_PROGRESS"), None, [2, 0, 0], old, Progress::Running),
            ("the list says so", None, listed("SUCCESSFUL"), [2, 1, 0], young, Progress::Completed),
            ("the list says that it went back", None, listed("ROLLBACK_IN_PROGRESS"), [2, 2, 0], young, Progress::Failed),
            ("the list says that it goes on, in vain", None, listed("IN_PROGRESS"), [2, 0, 1], old, Progress::Failed),
            ("all tasks run", None, None, [2, 2, 0], young, Progress::Completed),
            ("more run than are to", None, None, [2, 3, 0], young, Progress::Completed),
            ("not all run yet", None, None, [2, 1, 0], old, Progress::Running),
            ("none is to run", None, None, [0, 0, 1], old, Progress::Completed),
        ] {
            let shown = Shown { rollout_state, listed: listed.as_ref(), desired, running, failed };
            assert_eq!(shown.progress(at(begins), at(now)), expected, "{what}");
        }
    }

    #[test]
    fn the_service_deployment_created_nearest_to_a_deployment_within_a_minute_says_how_far_that_is() {
        let listed = |created: &str, status: &str| ServiceDeployment {
            created: at(created).into(),
            status: status.to_owned(),
            reason: None,
        };
        let all = || {
            vec![
                listed("2026-11-22T06:59:30Z", "STOPPED"),
                listed("2026-11-22T06:59:58Z", "SUCCESSFUL"),
                listed("2026-11-22T07:00:10Z", "PENDING"),
                listed("2026-11-22T09:01:00Z", "ROLLBACK_FAILED"),
            ]
        };
        for (created, expected) in [
            ("2026-11-22T07:00:00Z", Some("SUCCESSFUL")),
            ("2026-11-22T06:59:20Z", Some("STOPPED")),
            ("2026-11-22T09:00:00Z", Some("ROLLBACK_FAILED")),
            ("2026-11-22T08:59:59Z", None),
        ] {
            let found = ServiceDeployment::of(at(created), all());
            assert_eq!(found.as_ref().map(|found| found.status.as_str()), expected, "{created}");
        }
        for (status, progress, is_rolled_back) in [
            ("PENDING", Progress::Running, false),
            ("IN_PROGRESS", Progress::Running, false),
            ("STOP_REQUESTED", Progress::Running, false),
            ("SUCCESSFUL", Progress::Completed, false),
            ("STOPPED", Progress::Failed, false),
            ("ROLLBACK_REQUESTED", Progress::Failed, true),
            ("ROLLBACK_IN_PROGRESS", Progress::Failed, true),
            ("ROLLBACK_SUCCESSFUL", Progress::Failed, true),
            ("ROLLBACK_FAILED", Progress::Failed, true),
        ] {
            let found = listed(PAIR, status);
            assert_eq!((found.progress(), found.is_rolled_back()), (progress, is_rolled_back), "{status}");
        }
    }

    #[test]
    fn what_was_running_for_the_newest_pair_when_another_took_its_place_may_have_been_rolled_back() {
        let after = "2026-11-22T07:00:00Z";
        let is_other = |service: Service| Service {
            primary: service.primary.map(|primary| Deployment { id: "ecs-svc/2".to_owned(), ..primary }),
            ..service
        };
        let (shown, other) =
            (|| service("ACTIVE", "ECS", Some(after)), |status, controller| is_other(service(status, controller, Some(after))));
        for (what, service, followed, expected) in [
            ("another is there", other("ACTIVE", "ECS"), Some(deployment(after, Progress::Running)), true),
            ("it is there", shown(), Some(deployment(after, Progress::Running)), false),
            ("nothing is there", service("ACTIVE", "ECS", None), Some(deployment(after, Progress::Running)), false),
            ("nothing was followed", other("ACTIVE", "ECS"), None, false),
            ("it was for an older pair", other("ACTIVE", "ECS"), Some(deployment(PAIR, Progress::Running)), false),
            ("it is known to have failed", other("ACTIVE", "ECS"), Some(deployment(after, Progress::Failed)), false),
            ("it is known to have worked", other("ACTIVE", "ECS"), Some(deployment(after, Progress::Completed)), false),
            ("the service is deleted", other("DRAINING", "ECS"), Some(deployment(after, Progress::Running)), false),
            ("it is a task set", other("ACTIVE", "EXTERNAL"), Some(deployment(after, Progress::Running)), false),
        ] {
            let state = BindingState { deployment: followed.clone(), ..BindingState::default() };
            assert_eq!(state.replaced(&service, at(PAIR)), followed.as_ref().filter(|_| expected), "{what}");
        }
    }

    #[test]
    fn nobody_waits_for_a_canary_once_what_runs_is_late_to_be_replaced() {
        use crate::record::Pair;
        let [first, second] = ["a/first", "a/second"].map(|name| name.parse::<ServiceName>().unwrap());
        let mut new = samples::issued();
        new.options.canary = Some(first);
        // Thirty days that end on 1 December, 01:00: late five days before that.
        new.previous = new.current.replace(Pair { since: at("2026-11-22T06:00:00Z").into(), ..samples::pair() });
        let on =
            |began: &str| Some(BindingState { deployment: Some(deployment(began, Progress::Completed)), ..Default::default() });
        let (on_new, on_previous) = (on("2026-11-22T07:00:00Z"), on("2026-11-02T00:00:00Z"));
        let replaced = on("2026-11-01T01:00:05.25Z");
        // What the previous pair replaced, five days after that.
        for (now, of_second, waiting) in [
            ("2026-11-26T00:59:59Z", None, true),
            ("2026-11-26T01:00:00Z", None, false),
            ("2026-11-26T01:00:00Z", on_new.as_ref(), true),
            ("2026-11-26T00:59:59Z", on_previous.as_ref(), true),
            ("2026-11-26T01:00:00Z", on_previous.as_ref(), false),
            ("2026-11-06T01:00:05.2Z", replaced.as_ref(), true),
            ("2026-11-06T01:00:05.25Z", replaced.as_ref(), false),
        ] {
            let state = |service: &ServiceName| of_second.filter(|_| *service == second);
            assert_eq!(waits(&second, std::slice::from_ref(&new), state, at(now)), waiting, "{now} {of_second:?}");
        }
    }

    #[test]
    fn what_is_deployed_for_a_pair_began_after_it_and_not_much_before_ecs_says_so() {
        for (what, created, began) in [
            ("the clock of ECS is behind", "2026-11-22T05:58:00Z", "2026-11-22T06:00:00.501Z"),
            ("it is ahead", "2026-11-22T06:04:00Z", "2026-11-22T06:00:00.501Z"),
            ("the pair is old", "2026-11-22T09:00:00Z", "2026-11-22T08:55:00Z"),
        ] {
            let deployment = deployment(created, Progress::Running).begun_after(at(PAIR));
            assert_eq!((*deployment.began, deployment.created), (at(began), Some(at(created).into())), "{what}");
        }
    }

    #[test]
    fn what_somebody_else_deployed_is_taken_to_have_begun_as_early_as_the_clocks_allow() {
        let seen = |id: &str, began: &str, created: &str| Deployment {
            id: id.to_owned(),
            created: Some(at(created).into()),
            ..deployment(began, Progress::Running)
        };
        // The clock of ECS shows three minutes more than that of Secrets Manager.
        let (pair, created, later) = ("2026-11-22T06:00:00.501Z", "2026-11-22T06:03:00Z", "2026-11-22T06:04:00Z");
        let followed = BindingState { deployment: Some(seen("1", pair, created)), ..BindingState::default() };
        let undated = Deployment { created: None, ..seen("1", pair, created) };
        let undated = BindingState { deployment: Some(undated), ..BindingState::default() };
        let locked = |newest: Option<&str>| {
            let newest = newest.map(|newest| at(newest).into());
            BindingState {
                lock: Some(Lock { holder: "somebody".to_owned(), until: at(pair).into(), newest }),
                ..followed.clone()
            }
        };
        let before = "2026-11-22T06:02:59Z";
        for (what, state, (id, created), began) in [
            ("it is followed", &followed, ("1", created), pair),
            ("it is followed since an earlier version", &undated, ("1", created), pair),
            ("it came a minute later", &followed, ("2", later), "2026-11-22T06:01:00.501Z"),
            ("it came much later", &followed, ("2", "2026-11-23T06:00:00Z"), "2026-11-23T05:55:00Z"),
            ("it came within the hour", &followed, ("2", "2026-11-22T07:02:59Z"), "2026-11-22T06:59:59.501Z"),
            ("it came an hour later", &followed, ("2", "2026-11-22T07:03:00Z"), "2026-11-22T06:58:00Z"),
            ("it came before", &followed, ("2", before), "2026-11-22T05:57:59Z"),
            ("it came later than one of an earlier version", &undated, ("2", later), "2026-11-22T05:59:00Z"),
            ("whoever was at it was not heard of again", &locked(Some(pair)), ("2", later), "2026-11-22T06:00:00.502Z"),
            ("nor for a long time", &locked(Some(pair)), ("2", "2026-11-22T09:00:00Z"), "2026-11-22T08:55:00Z"),
            ("it came before whoever was at it", &locked(Some("2026-11-22T06:05:00Z")), ("2", later), later),
            ("it came at the very moment of the pair", &locked(Some(later)), ("2", later), later),
            ("whoever was at it was of an earlier version", &locked(None), ("2", later), later),
            ("nothing was followed", &BindingState::default(), ("2", later), later),
        ] {
            assert_eq!(state.dated(seen(id, created, created)), seen(id, began, created), "{what}");
        }
        let old = BindingState { deployment: Some(seen("1", "2026-11-01T06:00:00Z", "2026-11-22T06:03:00Z")), ..followed };
        assert_eq!(
            old.dated(seen("2", later, later)),
            seen("2", "2026-11-22T05:59:00Z", later),
            "what was followed began long after its pair"
        );
    }

    #[test]
    fn a_service_lags_until_a_deployment_that_began_after_the_pair_has_ended_and_is_on_it_once_that_succeeded() {
        for (deployment, lags, is_on) in [
            (None, true, false),
            (Some(deployment("2026-11-22T05:00:00Z", Progress::Completed)), true, false),
            (Some(deployment(PAIR, Progress::Completed)), true, false),
            (Some(deployment("2026-11-22T07:00:00Z", Progress::Running)), true, false),
            (Some(deployment("2026-11-22T07:00:00Z", Progress::Completed)), false, true),
            (Some(deployment("2026-11-22T07:00:00Z", Progress::Failed)), false, false),
        ] {
            let state = BindingState { deployment, ..BindingState::default() };
            assert_eq!((state.lags(at(PAIR)), state.is_on(at(PAIR))), (lags, is_on), "{state:?}");
        }
    }

    #[test]
    fn a_pair_is_to_blame_when_nothing_else_has_changed_since_and_nothing_has_worked() {
        let after = |hour: u32, progress| deployment(&format!("2026-11-22T{hour:02}:00:00Z"), progress);
        let id = |id: &str, deployment: Deployment| Deployment { id: id.to_owned(), ..deployment };
        let of = |definition: &str, deployment| Deployment { task_definition: definition.to_owned(), ..deployment };
        let (worked, ran) = (id("0", after(5, Progress::Completed)), id("0", after(5, Progress::Running)));
        let failed = id("9", after(9, Progress::Failed));
        for (what, followed, blamed) in [
            ("the first one", vec![worked.clone(), failed.clone()], true),
            ("it is still running", vec![worked.clone(), id("9", after(9, Progress::Running))], false),
            ("it runs, then fails", vec![worked.clone(), id("9", after(9, Progress::Running)), failed.clone()], true),
            ("of another task definition", vec![worked.clone(), of("web:2", failed.clone())], false),
            (
                "another one in between",
                vec![worked.clone(), of("web:2", id("8", after(8, Progress::Failed))), failed.clone()],
                false,
            ),
            ("the second of its kind", vec![worked.clone(), id("8", after(8, Progress::Running)), failed.clone()], true),
            ("one has worked since", vec![worked.clone(), id("8", after(8, Progress::Completed)), failed.clone()], false),
            ("nothing is known to have worked", vec![ran, failed], false),
            ("it began before", vec![worked, id("6", deployment(PAIR, Progress::Failed))], false),
        ] {
            let mut state = BindingState::default();
            followed.into_iter().for_each(|deployment| state.follow(deployment));
            assert_eq!(state.failed_on(at(PAIR)), blamed, "{what}: {state:?}");
        }
        assert!(!BindingState::default().failed_on(at(PAIR)));
    }

    #[test]
    fn what_is_known_of_a_deployment_is_of_no_further_account_unless_a_pair_is_to_blame() {
        let record = |name: &str, since: &str| Record {
            name: name.parse().unwrap(),
            current: Some(crate::record::Pair { since: at(since).into(), ..samples::pair() }),
            ..samples::issued()
        };
        let worked = deployment("2026-11-22T05:00:00Z", Progress::Completed);
        let ended = |progress| Deployment { id: "9".to_owned(), ..deployment("2026-11-22T09:00:00Z", progress) };
        let (old, new, newer) =
            (record("old", "2026-11-22T04:00:00Z"), record("new", PAIR), record("newer", "2026-11-22T10:00:00Z"));
        let all = || vec![old.clone(), new.clone(), newer.clone()];
        let after = |followed: &[Deployment]| {
            let mut state = BindingState::default();
            followed.iter().for_each(|deployment| state.follow(deployment.clone()));
            state
        };
        let faulty = BindingState {
            fault: Some(Fault { at: at(PAIR).into(), reason: "it is DRAINING".to_owned() }),
            ..after(&[ended(Progress::Completed)])
        };
        let none: &[&str] = &[];
        for (what, mut state, progress, expected) in [
            ("it runs", after(std::slice::from_ref(&worked)), Progress::Running, Some((none, &["old", "new", "newer"][..]))),
            ("it runs on", after(&[ended(Progress::Running)]), Progress::Running, None),
            ("it worked", after(&[ended(Progress::Running)]), Progress::Completed, Some((none, &["old", "new", "newer"]))),
            ("it has worked", after(&[ended(Progress::Completed)]), Progress::Completed, None),
            ("a fault is over", faulty, Progress::Completed, Some((none, &["old", "new", "newer"]))),
            ("it failed", after(std::slice::from_ref(&worked)), Progress::Failed, Some((&["new"], &["old", "newer"]))),
            (
                "it has failed, and nobody has seen to it",
                after(&[worked.clone(), ended(Progress::Failed)]),
                Progress::Failed,
                Some((&["new"], &["old", "newer"])),
            ),
            ("it has failed, for another reason", after(&[ended(Progress::Failed)]), Progress::Failed, None),
        ] {
            let names = |records: Vec<Record>| records.iter().map(|record| record.name.to_string()).collect::<Vec<_>>();
            let covered = state.cover(ended(progress), all()).map(|(to_blame, others)| (names(to_blame), names(others)));
            let expected = expected.map(|(to_blame, others)| {
                let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
                (owned(to_blame), owned(others))
            });
            assert_eq!(covered, expected, "{what}");
            assert_eq!(state.deployment, Some(ended(progress)), "{what}");
        }
    }

    #[test]
    fn a_service_is_faulty_by_what_cannot_be_undone_or_by_itself_and_whoever_it_concerns_is_told() {
        let record = |since: &str| Record {
            current: Some(crate::record::Pair { since: at(since).into(), ..samples::pair() }),
            ..samples::issued()
        };
        let (before, with, since) = (record(PAIR), record("2026-11-22T07:00:00Z"), record("2026-11-22T08:00:00Z"));
        let stuck = vec![(before.clone(), "nothing to go back to".to_owned())];
        let itself = "it failed; see to the service, then deploy it";
        for (what, progress, undone, stuck, others, fault, told) in [
            ("it runs", Progress::Running, false, vec![], vec![&before], None, vec![]),
            ("it works", Progress::Completed, false, vec![], vec![&before], None, vec![]),
            ("it was undone", Progress::Failed, true, vec![], vec![&before], None, vec![]),
            (
                "there is nothing to go back to",
                Progress::Failed,
                false,
                stuck.clone(),
                vec![&before],
                Some("nothing to go back to"),
                vec!["nothing to go back to"],
            ),
            (
                "another pair was undone",
                Progress::Failed,
                true,
                stuck,
                vec![&before],
                Some("nothing to go back to"),
                vec!["nothing to go back to"],
            ),
            ("no pair is to blame", Progress::Failed, false, vec![], vec![&before], Some(itself), vec![itself]),
            ("no pair is left", Progress::Failed, false, vec![], vec![], Some(itself), vec![]),
            ("one is newer than it", Progress::Failed, false, vec![], vec![&before, &since], None, vec![itself]),
            ("one is no older than it", Progress::Failed, false, vec![], vec![&before, &with], None, vec![itself]),
        ] {
            let lock = Some(Lock { holder: "me".to_owned(), until: at(PAIR).into(), newest: None });
            let followed = Some(deployment("2026-11-22T07:00:00Z", progress));
            let mut state = BindingState { deployment: followed, lock, ..BindingState::default() };
            let others: Vec<_> = others.into_iter().cloned().collect();
            let said = state.conclude("it failed", undone, stuck, &others, at(PAIR));
            assert_eq!(said.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>(), told, "{what}");
            assert!(said.iter().all(|(record, _)| *record == before), "{what}");
            assert_eq!(state.fault.map(|fault| fault.reason).as_deref(), fault, "{what}");
            assert_eq!(state.lock, None, "{what}");
        }
    }

    #[test]
    fn a_lock_keeps_everybody_out_but_its_holder_until_it_is_over() {
        let lock = Lock { holder: "me".to_owned(), until: at(PAIR).into(), newest: None };
        for (what, holder, now, expected) in [
            ("another", "somebody", "2026-11-22T06:00:00.499Z", Some(at(PAIR))),
            ("its holder", "me", "2026-11-22T06:00:00.499Z", None),
            ("when it is over", "somebody", PAIR, None),
        ] {
            assert_eq!(lock.keeps_out(holder, at(now)), expected, "{what}");
        }
    }

    #[test]
    fn a_service_waits_until_a_pair_works_with_its_canary_unless_it_is_itself_the_canary_of_one_to_be_tried() {
        use crate::record::{Options, Pair};
        use crate::setback::Setback;
        let [one, other, third] = ["a/one", "a/other", "a/third"].map(|name| name.parse::<ServiceName>().unwrap());
        let of = |canary: Option<&ServiceName>, since: &str| {
            let current = Some(Pair { since: at(since).into(), ..samples::pair() });
            let services = [&one, &other, &third].map(Clone::clone).into();
            Record { current, options: Options { services, canary: canary.cloned(), ..Options::default() }, ..samples::issued() }
        };
        let (before, after, later) = ("2026-11-22T05:00:00Z", "2026-11-22T07:00:00Z", "2026-11-22T08:00:00Z");
        let at_one = of(Some(&one), PAIR);
        let setback = Setback { at: at(PAIR).into(), ..samples::setback() };
        let back = Record { setback: Some(setback), ..at_one.clone() };
        let ends = Some(Pair { not_after: at(later).into(), ..samples::pair() });
        let back_and_late = Record { current: ends, previous: None, ..back.clone() };
        let new = Record { current: None, ..at_one.clone() };
        let (works, fails) = (Some((after, Progress::Completed)), Some((after, Progress::Failed)));
        let (runs, old) = (Some((after, Progress::Running)), Some((before, Progress::Completed)));
        for (what, certificates, states, waiting) in [
            ("its canary was never deployed", vec![at_one.clone()], [None, None], &[&other, &third][..]),
            ("its canary works with the one before", vec![at_one.clone()], [old, None], &[&other, &third]),
            ("it is tried", vec![at_one.clone()], [runs, None], &[&other, &third]),
            ("it failed", vec![at_one.clone()], [fails, None], &[&other, &third]),
            ("it works", vec![at_one.clone()], [works, None], &[]),
            ("there is no canary", vec![of(None, PAIR)], [None, None], &[]),
            ("what was there before is known to work", vec![back.clone()], [None, None], &[]),
            ("nothing is current", vec![new], [None, None], &[]),
            ("beside one without", vec![of(None, PAIR), at_one.clone()], [None, None], &[&other, &third]),
            ("beside one that went back and ends", vec![back_and_late, at_one.clone()], [None, None], &[]),
            ("crossed", vec![at_one.clone(), of(Some(&other), PAIR)], [old, old], &[&third]),
            ("crossed, one is tried", vec![at_one.clone(), of(Some(&other), PAIR)], [runs, old], &[&third]),
            ("crossed, one works", vec![at_one.clone(), of(Some(&other), PAIR)], [works, old], &[&one, &third]),
            ("crossed, one fails", vec![at_one.clone(), of(Some(&other), PAIR)], [fails, old], &[&one, &third]),
            ("crossed, both work", vec![at_one.clone(), of(Some(&other), PAIR)], [works, works], &[]),
            ("crossed, one is newer", vec![at_one, of(Some(&other), later)], [works, works], &[&one, &third]),
            ("crossed, one went back", vec![back, of(Some(&other), PAIR)], [old, old], &[&third]),
        ] {
            let state = |(began, progress)| BindingState { deployment: Some(deployment(began, progress)), ..Default::default() };
            let [of_one, of_other] = states.map(|known| known.map(state));
            let state = |service: &ServiceName| match service {
                service if *service == one => of_one.as_ref(),
                service if *service == other => of_other.as_ref(),
                _ => None,
            };
            let waits = [&one, &other, &third].into_iter().filter(|service| waits(service, &certificates, state, at(later)));
            assert_eq!(waits.collect::<Vec<_>>(), waiting, "{what}");
        }
    }

    #[test]
    fn a_bindings_state_reads_back_as_it_was_written_and_an_empty_one_is_empty() {
        let moment = at(PAIR).into();
        let full = BindingState {
            deployment: Some(deployment(PAIR, Progress::Running)),
            lock: Some(Lock { holder: "me".to_owned(), until: moment, newest: Some(moment) }),
            fault: Some(Fault { at: moment, reason: "it is DRAINING".to_owned() }),
            before: Some(moment),
            success: Some(Success { began: moment, task_definition: "web:1".to_owned() }),
        };
        for (state, text) in [
            (BindingState::default(), "{}".to_owned()),
            (
                full,
                format!(
                    r#"{{"deployment":{{"id":"ecs-svc/1","began":"{PAIR}","created":"{PAIR}","progress":"running","task_definition":"web:1"}},"#
                ) + &format!(
                    r#""lock":{{"holder":"me","until":"{PAIR}","newest":"{PAIR}"}},"fault":{{"at":"{PAIR}","reason":"it is DRAINING"}},"before":"{PAIR}","success":{{"began":"{PAIR}","task_definition":"web:1"}}}}"#
                ),
            ),
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
            assert_eq!(serde_json::from_str::<BindingState>(&text).unwrap(), state);
        }
    }
}
