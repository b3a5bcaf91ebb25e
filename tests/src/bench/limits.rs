//! How much of a processor Lambda's memory setting buys, and what functions make of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::Outcome;
use crate::account::{Account, rest};
use crate::sandbox::Sandbox;
use crate::start::{FUNCTIONS, Machine, ms};

/// In MiB. Lambda gives one whole vCPU at 1,769: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>.
const SETTINGS: [u64; 6] = [128, 192, 256, 384, 512, 1769];
const EVENTS: usize = 4;

/// A control group of Linux, which takes root to set up.
struct Share(PathBuf);

impl Share {
    fn of(memory: u64) -> std::io::Result<Self> {
        let place = Path::new("/sys/fs/cgroup/cpu").join(format!("everleaf-{}-{memory}", std::process::id()));
        std::fs::create_dir(&place)?;
        let share = Self(place);
        let period = 20_000;
        std::fs::write(share.0.join("cpu.cfs_period_us"), period.to_string())?;
        std::fs::write(share.0.join("cpu.cfs_quota_us"), (period * memory / 1769).to_string())?;
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It is empty, or left for the system to be looked at.
        drop(std::fs::remove_dir(&self.0));
    }
}

/// A function starts with a whole processor, as in Lambda, and has its share from the first event on.
pub(crate) async fn measure(binaries: &Path) -> Outcome<()> {
    let mut account = Account::set_up(SETTINGS.len() * EVENTS).await?;
    let machine = Machine::new(&account).await?;
    for function in FUNCTIONS {
        let events = account.events.remove(function).unwrap_or_default();
        for (memory, events) in SETTINGS.into_iter().zip(events.chunks(EVENTS)) {
            let share = match Share::of(memory) {
                Ok(share) => share,
                Err(error) => {
                    crate::print(json!({"memory": null, "why": format!("no control group of its own: {error}")}));
                    return Ok(());
                }
            };
            rest().await;
            let mut sandbox =
                Sandbox::start(&[&binaries.join(function).display().to_string()], &machine.environment(function)).await?;
            sandbox.join(&share.0.join("cgroup.procs"))?;
            let mut took = Vec::new();
            for event in events {
                took.push(ms(sandbox.invoke(event, Duration::from_secs(120)).await?.1));
            }
            sandbox.end().await?;
            crate::print(json!({"memory": memory, "function": function, "first_ms": took[0], "later_ms": &took[1..]}));
        }
    }
    Ok(())
}
