//! Keeps the sweep from asking for more than the account has room for.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::names::CertificateName;
use lifecycle::pace::{Asked, UNDER_WAY};
use runtime::{Failure, Invocation};
use tokio::time::{Instant, sleep};

use crate::look::Looked;
use crate::{App, enough_time, time_for_more};

pub(crate) struct Pace {
    /// When the last look began.
    began: Instant,
    /// From then on the quotas have room for what the next look leads to.
    free_at: Instant,
    under_way: BTreeMap<CertificateName, Asked>,
}

/// How often the table is asked what is still under way, while that is too much.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A look that takes longer has waited for a quota, and leaves it to others for as long.
const UNHINDERED: Duration = Duration::from_secs(1);

impl Pace {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), free_at: Instant::now(), under_way: BTreeMap::new() }
    }

    /// Waits until the next certificate may be looked at, or the time is up.
    pub(crate) async fn wait(&mut self, app: &App, invocation: &Invocation) -> Result<(), Failure> {
        sleep(self.free_at.saturating_duration_since(Instant::now()).min(time_for_more(invocation))).await;
        while self.is_full() && enough_time(invocation) {
            // What the table does not tell is not waited for.
            let asked = std::mem::take(&mut self.under_way);
            self.under_way = under_way(app, asked, invocation).await?;
            if self.is_full() {
                sleep(LOOK_AGAIN).await;
            }
        }
        self.began = Instant::now();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.under_way.values().map(|asked| asked.takes).sum::<Duration>() >= UNDER_WAY
    }

    /// What the last look led to.
    pub(crate) fn note(&mut self, looked: Looked) {
        self.give_way();
        self.free_at = self.free_at.max(self.began + looked.takes);
        self.under_way.extend(looked.asked.map(|asked| (looked.certificate, asked)));
    }

    /// What the last look waited for, others have as long.
    pub(crate) fn give_way(&mut self) {
        self.free_at = Instant::now() + self.began.elapsed().saturating_sub(UNHINDERED);
    }
}

/// What is still under way of what was asked.
async fn under_way(
    app: &App,
    mut asked: BTreeMap<CertificateName, Asked>,
    invocation: &Invocation,
) -> Result<BTreeMap<CertificateName, Asked>, Failure> {
    let names: Vec<_> = asked.keys().cloned().collect();
    let mut still = BTreeMap::new();
    for (name, known) in app.records.load_each(&names).await? {
        if let (Some(asked), Ok(known)) = (asked.remove(&name), known)
            && asked.is_under_way(&known.record, &known.services, invocation.now())
        {
            still.insert(name, asked);
        }
    }
    Ok(still)
}
