//! The sweep: every certificate whose time has come, no faster than the account's quotas grant what that leads to.

use lifecycle::names::CertificateName;
use lifecycle::record::Record;
use runtime::{Failure, Failures, Invocation, metrics};
use serde_json::{Value, json};

use crate::look::{Shared, look_in_sweep};
use crate::pace::Pace;
use crate::{App, enough_time, report, walk};

/// Looks at what is due; then goes on with the daily walk, or writes the daily report. Stops in time; what is left is still due.
pub(crate) async fn sweep(app: &App, invocation: &Invocation) -> Result<Value, Failure> {
    let stack = ("Stack", app.records.settings.prefix.as_str());
    let mut looks = Looks::new(app.hourly_budget);
    // What is said is not worth a sweep.
    looks.failures.extend(say_expiries(app, invocation).await.err());
    looks.at_what_is_due(app, invocation).await?;
    let Looks { mut shared, mut failures, looked_at, asked, left_over, .. } = looks;
    let (walk, put_back) = tokio::join!(app.records.walk(), shared.put_back(app));
    failures.extend(put_back.err());
    let walked = match walk {
        Ok(walk) if walk::is_due(&walk, invocation.now()) => walk::go_on(app, walk, &mut failures, invocation).await,
        // Not in one sweep with the walk: what that found is not in the table's index yet.
        Ok(walk) => {
            let age = walk.age(invocation.now());
            failures.extend(report::daily(app, walk, invocation).await.err());
            Ok((0, age))
        }
        Err(failure) => Err(failure),
    };
    let found = match walked {
        Ok((found, age)) => {
            metrics(&[stack], &[("WalkAge", age.as_seconds_f64() / 3600.0)]);
            found
        }
        Err(failure) => {
            failures.push(failure);
            0
        }
    };
    if let Err(failure) = shared.tell(app, invocation.now()).await {
        failures.push(failure);
    }
    tracing::info!(
        sweep.looked_at = looked_at,
        sweep.asked = asked,
        sweep.found = found,
        sweep.failed = failures.count(),
        "Swept {looked_at} certificates"
    );
    let values = [
        ("LookedAt", looked_at),
        ("Failed", failures.count()),
        ("LeftOver", left_over),
        ("BudgetLeft", shared.budget_left() as usize),
        ("SweepCompleted", usize::from(left_over == 0)),
    ];
    metrics(&[stack], &values.map(|(name, count)| (name, count as f64)));
    failures.into_result("sweep")?;
    Ok(json!({"outcome": "swept", "looked_at": looked_at, "asked": asked, "found": found, "left": left_over}))
}

/// The looks of one sweep, and what came of them.
struct Looks {
    shared: Shared,
    pace: Pace,
    failures: Failures,
    looked_at: usize,
    asked: usize,
    left_over: usize,
    /// What AWS had no room for.
    throttled: Vec<CertificateName>,
}

impl Looks {
    fn new(hourly_budget: u32) -> Self {
        Self {
            shared: Shared::of_this_hour(hourly_budget),
            pace: Pace::new(),
            failures: Failures::default(),
            looked_at: 0,
            asked: 0,
            left_over: 0,
            throttled: Vec::new(),
        }
    }

    async fn at_what_is_due(&mut self, app: &App, invocation: &Invocation) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let page = app.records.due(invocation.now(), after).await?;
            self.failures.extend(page.unreadable);
            self.shared.services = page.services;
            let mut due = page.records.into_iter();
            while let Some(record) = due.next() {
                if !self.at(app, record, invocation).await {
                    self.left_over += 1 + due.len() + self.throttled.len();
                    return Ok(());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // Once more, and afresh: whoever used the quotas up may have done by now.
        self.shared.services.clear();
        let mut again = std::mem::take(&mut self.throttled).into_iter();
        while let Some(name) = again.next() {
            match app.records.load(&name).await {
                Ok(Some(record)) if record.look_at <= invocation.now().unix_timestamp() => {
                    if !self.at(app, record, invocation).await {
                        self.left_over += 1 + again.len();
                        break;
                    }
                }
                // Somebody else has looked at it.
                Ok(_) => {}
                Err(failure) if failure.is_throttled() => self.throttled.push(name),
                Err(failure) => self.failures.push(failure),
            }
        }
        // Still due, for the next sweep. Were this one to fail, Lambda would run it again beside that.
        self.left_over += self.throttled.len();
        Ok(())
    }

    /// One certificate; `false` when the time is up.
    async fn at(&mut self, app: &App, record: Record, invocation: &Invocation) -> bool {
        self.failures.extend(self.pace.wait(app, invocation).await.err());
        if !enough_time(invocation) {
            return false;
        }
        let name = record.name.clone();
        match look_in_sweep(app, record, &mut self.shared, invocation).await {
            Err(failure) if failure.is_throttled() => {
                tracing::warn!("{failure}");
                self.pace.give_way();
                self.throttled.push(name);
                return true;
            }
            Ok(looked) => {
                self.asked += looked.steps.len();
                self.pace.note(looked);
            }
            Err(failure) => self.failures.push(failure),
        }
        self.looked_at += 1;
        true
    }
}

/// How many certificates, soonest expiry first, CloudWatch is told of one by one: each is a metric of its own, and is paid for.
const SOONEST: i32 = 20;

/// What a stack without certificates says: nothing in it can expire within the longest lifetime that a request may ask for.
const NOTHING_EXPIRES: f64 = 3650.0;

/// Says in how many days the certificates expire that do so soonest. The lowest of them is the stack's.
async fn say_expiries(app: &App, invocation: &Invocation) -> Result<(), Failure> {
    let prefix = &app.records.settings.prefix;
    let soonest = app.records.soonest(SOONEST).await?;
    if soonest.is_empty() {
        metrics(&[("Stack", prefix)], &[("DaysToExpiry", NOTHING_EXPIRES)]);
    }
    for (name, expires) in soonest {
        let days = (expires - invocation.now().unix_timestamp()) as f64 / 86_400.0;
        metrics(&[("Stack", prefix), ("Certificate", &name)], &[("DaysToExpiry", days)]);
    }
    Ok(())
}
