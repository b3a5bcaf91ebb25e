//! What a storm takes: ten thousand certificates are due in one hour, under the quotas that AWS grants an account. They are issued
//! here, or ACM's, in one stack and then in two that share the account. Time is virtual. Fails when the storm takes longer than half as
//! much again as the quotas allow, or anything fails.
#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::error::Error;
use std::process::ExitCode;

use workflow::storms::{Kind, LONGEST, storm};

/// Takes how many certificates; when that is absent, ten thousand.
fn main() -> ExitCode {
    match storms() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn storms() -> Result<bool, Box<dyn Error>> {
    let certificates = std::env::args().nth(1).map_or(Ok(10_000), |number| number.parse())?;
    row([
        "certificates",
        "quota",
        "allows s",
        "took s",
        "ratio",
        "pairs",
        "rollouts",
        "throttled",
        "errors",
        "failed",
        "waiting",
        "at once",
    ]);
    let mut holds = true;
    for (kind, stacks) in [(Kind::Issued, 1), (Kind::Exported, 1), (Kind::Issued, 2), (Kind::Exported, 2)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let came = runtime.block_on(storm(kind, certificates, stacks)).map_err(|error| error.message)?;
        let what = format!("{certificates} {} in {stacks} stack{}", kind.name(), if stacks == 1 { "" } else { "s" });
        let cells = [
            what,
            came.quota.clone(),
            came.allowed.as_secs().to_string(),
            came.took.as_secs().to_string(),
            format!("{:.2}", came.ratio()),
            came.renewed.to_string(),
            came.deployments.to_string(),
            came.throttled.to_string(),
            came.errors.to_string(),
            came.failed.to_string(),
            came.waiting.to_string(),
            came.peak.to_string(),
        ];
        row(cells.each_ref().map(String::as_str));
        let is_done = (came.renewed, came.deployments) == (certificates, certificates);
        holds &= is_done && came.ratio() <= LONGEST && came.failed == 0 && came.waiting == 0;
    }
    Ok(holds)
}

fn row([what, quota, allows, took, ratio, pairs, rollouts, throttled, errors, failed, waiting, peak]: [&str; 12]) {
    println!(
        "{what:<32} {quota:<28} {allows:>8} {took:>7} {ratio:>6} {pairs:>6} {rollouts:>8} {throttled:>9} {errors:>6} {failed:>6} {waiting:>7} {peak:>7}"
    );
}
