//! `make simulate`: months and years of a fleet in which everything goes wrong that can, drawn from a seed.
//!
//! The real handlers with the real SDK on Local AWS in this process, on virtual time. Every hour the promises are checked from the
//! outside. Each simulation runs in a process of its own, so that none knows of another, and a seed gives the same line alone and
//! among thousands. When a promise is broken, the incidents without which it is broken just the same are left out one by one.

mod account;
mod plan;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration as StdDuration, Instant};

use serde_json::{Map, Value, json};
use time::Duration;

use crate::account::{Account, std};
use crate::plan::{Faults, Plan, Settings};
use crate::watch::Watch;

const USAGE: &str = "\
simulate: a fleet of certificates on Local AWS, its faults drawn from a seed, and every promise checked each hour

  --seed N           which history (default 1)
  --seeds FROM..TO   all of these, some at once
  --jobs N           how many at once (default: one for each core)
  --certificates N   how many (default: three to six, by the seed)
  --years X          how long, such as 0.25 (the default)
  --faults KIND      none, light or heavy (the default), or all: the seeds take turns
  --events none      no event of AWS ever arrives
  --trace            of one seed, tell every write, event and invocation as it comes
  --only N,N,…       of the incidents of the seed only these, as a broken promise prints them

It ends with a line of JSON: what was seen, or of several seeds the sums. The exit code is 1 when a promise was broken.";

/// After the last incident things come to rest.
const REST: Duration = Duration::days(4);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            _ = writeln!(io::stderr(), "{why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[derive(Clone)]
struct Asked {
    from: u64,
    to: u64,
    jobs: usize,
    certificates: Option<String>,
    years: String,
    faults: String,
    events: String,
    only: Option<String>,
    /// Simulate in this process, and print the line.
    here: bool,
    trace: bool,
}

fn run() -> Result<bool, String> {
    let mut asked = Asked {
        from: 1,
        to: 2,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        certificates: None,
        years: "0.25".to_owned(),
        faults: "heavy".to_owned(),
        events: "some".to_owned(),
        only: None,
        here: false,
        trace: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            return writeln!(io::stdout(), "{USAGE}").map(|()| true).map_err(|error| error.to_string());
        }
        match argument.as_str() {
            "--here" => {
                asked.here = true;
                continue;
            }
            "--trace" => {
                (asked.here, asked.trace) = (true, true);
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{argument}: {text} is not a number"));
        match argument.as_str() {
            "--seed" => (asked.from, asked.to) = (number(&value)?, number(&value)? + 1),
            "--seeds" => {
                let (from, to) = value.split_once("..").ok_or("--seeds: give them as FROM..TO")?;
                (asked.from, asked.to) = (number(from)?, number(to)?);
            }
            "--jobs" => asked.jobs = number(&value)?.max(1) as usize,
            "--certificates" => asked.certificates = Some(value),
            "--years" => asked.years = value,
            "--faults" => asked.faults = value,
            "--events" => asked.events = value,
            "--only" => asked.only = Some(value),
            _ => return Err(format!("{argument} is not known here")),
        }
    }
    let settings = asked.settings(asked.from)?;
    match (asked.here, asked.to - asked.from) {
        (true, _) => {
            let line = simulate(&settings, asked.trace);
            writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())?;
            Ok(line["promises_broken"] == 0)
        }
        (false, 0) => Err("there is no seed among these".to_owned()),
        _ => all(&asked),
    }
}

impl Asked {
    fn settings(&self, seed: u64) -> Result<Settings, String> {
        let faults = match (self.faults.as_str(), seed % 3) {
            ("none", _) | ("all", 0) => Faults::None,
            ("light", _) | ("all", 1) => Faults::Light,
            ("heavy", _) | ("all", _) => Faults::Heavy,
            _ => return Err(format!("--faults: {} is none of none, light, heavy and all", self.faults)),
        };
        let years = self.years.parse().ok().filter(|years| (0.01..=20.0).contains(years));
        let certificates =
            self.certificates.as_ref().map(|count| count.parse().ok().filter(|count| (1..=10_000).contains(count)));
        let only = self
            .only
            .as_ref()
            .map(|list| list.split(',').filter(|one| !one.is_empty()).map(str::parse).collect::<Result<_, _>>());
        Ok(Settings {
            seed,
            certificates: match certificates {
                Some(None) => return Err("--certificates: give 1 to 10000".to_owned()),
                some => some.flatten(),
            },
            years: years.ok_or("--years: give 0.01 to 20")?,
            faults,
            aws_events: match self.events.as_str() {
                "none" => false,
                "some" => true,
                other => return Err(format!("--events: {other} is neither none nor some")),
            },
            only: only.transpose().map_err(|_| "--only: give the numbers of incidents")?,
        })
    }

    /// Simulates a seed in a process of its own; its line.
    fn line(&self, seed: u64, only: Option<&str>) -> Result<Value, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args([
            "--here",
            "--seed",
            &seed.to_string(),
            "--years",
            &self.years,
            "--faults",
            &self.faults,
            "--events",
            &self.events,
        ]);
        let certificates = self.certificates.iter().flat_map(|count| ["--certificates", count]);
        let only = only.or(self.only.as_deref()).into_iter().flat_map(|only| ["--only", only]);
        command.args(certificates).args(only);
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|_| format!("seed {seed} ended without a line: {}", output.status))
    }

    /// Of the incidents of a broken promise those without which it is kept.
    fn shortest(&self, seed: u64, broken: &Value) -> Result<Value, String> {
        let numbers = |line: &Value| -> Vec<u64> {
            line["history"].as_array().into_iter().flatten().filter_map(|one| one["number"].as_u64()).collect()
        };
        let promise = broken["broken"][0]["promise"].clone();
        let (mut line, mut kept) = (broken.clone(), numbers(broken));
        let mut size = kept.len().div_ceil(2);
        while size > 0 && !kept.is_empty() {
            let mut at = 0;
            while at < kept.len() {
                let fewer: Vec<_> =
                    kept.iter().enumerate().filter(|(place, _)| !(at..at + size).contains(place)).map(|(_, one)| *one).collect();
                let only: Vec<_> = fewer.iter().map(u64::to_string).collect();
                let tried = self.line(seed, Some(&only.join(",")))?;
                if tried["broken"][0]["promise"] == promise {
                    // What would have come after it has no part in it.
                    (kept, line) = (numbers(&tried), tried);
                } else {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        Ok(line)
    }

    fn report(&self, seed: u64, line: &Value) -> Result<(), String> {
        let shortest = self.shortest(seed, line)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let history = shortest["history"].as_array().cloned().unwrap_or_default();
        let numbers: Vec<_> = history.iter().map(|one| one["number"].to_string()).collect();
        let mut report = format!("\nseed {seed} broke promise {}; it still does with:\n", line["broken"][0]["promise"]);
        for one in &history {
            report += &format!("  {:>3}  {}\n", one["number"].to_string(), text(&one["what"]));
        }
        for broken in shortest["broken"].as_array().into_iter().flatten().take(5) {
            report += &format!("  promise {}: {}\n", broken["promise"], text(&broken["what"]));
        }
        let certificates = self.certificates.as_ref().map(|count| format!(" CERTIFICATES={count}")).unwrap_or_default();
        let (years, events) = (&self.years, if self.events == "none" { " EVENTS=none" } else { "" });
        let faults = text(&line["faults"]);
        report += &format!(
            "  make simulate SEED={seed}{certificates} YEARS={years} FAULTS={faults}{events} ONLY={}",
            numbers.join(",")
        );
        writeln!(io::stderr(), "{report}").map_err(|error| error.to_string())
    }
}

/// Every seed in a process of its own, some at once.
fn all(asked: &Asked) -> Result<bool, String> {
    let (began, next, count) = (Instant::now(), AtomicU64::new(asked.from), asked.to - asked.from);
    if count > 1 {
        let last = asked.to - 1;
        let lines = [asked.line(last, None)?, asked.line(last, None)?].map(|mut line| {
            line["seconds"] = Value::Null;
            line
        });
        if lines[0] != lines[1] {
            return Err(format!("seed {last} gave two lines:\n{}\n{}", lines[0], lines[1]));
        }
    }
    let sums = Mutex::new((Map::new(), 0_u64));
    let progress = io::stderr().is_terminal();
    let lock = || sums.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> Result<(), String> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= asked.to {
                return Ok(());
            }
            let line = asked.line(seed, None)?;
            if line["promises_broken"] != 0 && asked.only.is_none() {
                asked.report(seed, &line)?;
            }
            let mut sums = lock();
            add(&mut sums.0, &line, count > 1);
            sums.1 += 1;
            if progress && count > 1 {
                let rate = began.elapsed().as_secs_f64() / sums.1 as f64;
                let left = StdDuration::from_secs_f64(rate * (count - sums.1) as f64).as_secs();
                _ = write!(
                    io::stderr(),
                    "\r{} of {count} seeds, {} promises broken, {left} s left   ",
                    sums.1,
                    sums.0["promises_broken"]
                );
            }
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..asked.jobs.min(count as usize)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())).collect()
    });
    outcomes.into_iter().try_for_each(|outcome| outcome?)?;
    let mut line = std::mem::take(&mut lock().0);
    if count > 1 {
        if progress {
            _ = writeln!(io::stderr());
        }
        line.insert("seeds".to_owned(), format!("{}..{}", asked.from, asked.to).into());
        line.insert("faults".to_owned(), asked.faults.as_str().into());
        line.insert("seconds".to_owned(), (began.elapsed().as_secs_f64().round() as u64).into());
    }
    let broken = line["promises_broken"].clone();
    writeln!(io::stdout(), "{}", Value::Object(line)).map_err(|error| error.to_string())?;
    Ok(broken == 0)
}

/// Adds the numbers of a line to the sums; of one line alone everything is kept.
fn add(sums: &mut Map<String, Value>, line: &Value, several: bool) {
    for (name, value) in line.as_object().into_iter().flatten() {
        match value {
            Value::Number(number) if name != "seed" || !several => {
                let before = sums.get(name).and_then(Value::as_f64).unwrap_or_default();
                let sum = before + number.as_f64().unwrap_or_default();
                let sum = if sum.fract() == 0.0 { json!(sum as u64) } else { json!((sum * 1000.0).round() / 1000.0) };
                sums.insert(name.clone(), sum);
            }
            Value::Object(_) => {
                let mut inner = sums.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
                add(&mut inner, value, several);
                sums.insert(name.clone(), inner.into());
            }
            other if !several => _ = sums.insert(name.clone(), other.clone()),
            _ => {}
        }
    }
}

fn simulate(settings: &Settings, trace: bool) -> Value {
    // The SDK spreads its retries by this generator.
    fastrand::seed(settings.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be set up").block_on(history(settings, trace))
}

async fn history(settings: &Settings, trace: bool) -> Value {
    let began = Instant::now();
    let plan = Arc::new(Plan::of(settings));
    let mut account = Account::set_up(settings, plan.clone()).await;
    let mut watch = Watch::new(&account, trace);
    // When incidents begin and end, and every hour.
    let mut moments: Vec<_> =
        plan.incidents.iter().flat_map(|one| [(one.from, Some((one, true))), (one.to, Some((one, false)))]).collect();
    let hours = (plan.lasts + REST).whole_hours();
    moments.extend((0..=hours).map(|hour| (Duration::hours(hour), None)));
    moments.sort_by_key(|(at, what)| (*at, what.map(|(one, begins)| (one.number, begins))));
    let (mut ended, mut shown) = (Duration::ZERO, Instant::now());
    for (at, what) in moments {
        tokio::time::sleep(std(account.begin + at - account.stack.aws.now())).await;
        match what {
            Some((incident, true)) => account.begins(incident).await,
            Some((incident, false)) => account.ends(incident),
            None => {
                let told = watch.look(&account);
                account.people(&told).await;
                ended = at;
            }
        }
        if !watch.broken.is_empty() {
            break;
        }
        if shown.elapsed() > StdDuration::from_secs(2) && io::stderr().is_terminal() {
            shown = Instant::now();
            _ = write!(io::stderr(), "\rday {} of {}   ", at.whole_days(), plan.lasts.whole_days());
        }
    }
    if watch.broken.is_empty() {
        watch.rests(&account).await;
    }
    let before = |one: &&plan::Incident| watch.broken.is_empty() || one.from <= ended;
    let history: Vec<_> =
        plan.incidents.iter().filter(before).map(|one| json!({"number": one.number, "what": one.to_string()})).collect();
    let totals = &watch.counts;
    let mut line = json!({
        "seed": settings.seed,
        "faults": format!("{:?}", settings.faults).to_lowercase(),
        "certificates": plan.certificates.len(),
        "services": plan.services.len(),
        "incidents": history.len(),
        "promises_broken": watch.broken.len(),
        "expired_in_use": totals.expired_in_use,
        "keys_asked_twice": totals.keys_asked_twice,
        "issued": totals.issued,
        "issued_beyond_need": watch.beyond_need(),
        "exported": totals.exported,
        "imported": totals.imported,
        "pairs": totals.pairs,
        "rollouts": totals.rollouts,
        "rollouts_undone": totals.undone,
        "action_required": totals.told,
        "spoilt": account.spoilt(),
        "invocations": totals.invocations,
        "calls": totals.calls.values().sum::<u64>(),
        "by_operation": totals.calls,
        "events": totals.events,
        "virtual_days": ended.whole_days(),
        "seconds": (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    });
    if !watch.broken.is_empty() {
        line["broken"] = watch.broken.iter().map(|(promise, what)| json!({"promise": promise, "what": what})).collect();
        line["history"] = history.into();
    }
    line
}
