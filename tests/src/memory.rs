//! What the sweep needs of memory and time: the real `renew-on-expiry` looks after 1,000 certificates, and then after 100,000.
//!
//! Each fleet has the work of one hour: one record in 24 wants to be looked at, one of 20 of these is due to be renewed, and the
//! daily walk through all secrets begins. The first sweep may look at no secret, so that all its looks fail; the second makes up
//! for it. What counts is the most that their process ever held, as Linux has it. Then a report is asked for: it grows with the
//! fleet, and has to fit the function.
#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use local_aws::server::Server;
use local_aws::template::Template;
use local_aws::{AwsError, Fault, LocalAws, World, dynamodb, pca};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use workflow::fleet::Original;
use workflow::root;

type Outcome<T> = Result<T, Box<dyn Error>>;

const SMALL: usize = 1_000;
const LARGE: usize = 100_000;

/// The peaks may differ by this many percent of the lower one.
const TOLERANCE: u64 = 10;

/// As much of the function's memory may be used, in percent: Lambda counts what the process does not see.
const USABLE: u64 = 85;

/// Takes the directory of the binaries, or has its own; and other sizes of the fleet, of which the last is compared with the first.
fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Outcome<()> {
    let own = std::env::current_exe()?.parent().map(PathBuf::from);
    let binaries = std::env::args().nth(1).map(PathBuf::from).or(own).ok_or("there are no binaries")?.canonicalize()?;
    // The processes end with the runtime that they were started in.
    let peak =
        |size| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(peak_of_sweeps(&binaries, size));
    let mut sizes = std::env::args().skip(2).map(|size| size.parse()).collect::<Result<Vec<usize>, _>>()?;
    if sizes.is_empty() {
        sizes = vec![SMALL, LARGE];
    }
    let peaks = sizes.iter().map(|size| peak(*size)).collect::<Outcome<Vec<_>>>()?;
    let (small, large) = (peaks[0], peaks[peaks.len() - 1]);
    match small.abs_diff(large) * 100 <= small.min(large) * TOLERANCE {
        true => Ok(()),
        false => Err(format!("sweeping {sizes:?} certificates takes {peaks:?} KiB").into()),
    }
}

async fn peak_of_sweeps(binaries: &Path, size: usize) -> Outcome<u64> {
    let aws = LocalAws::new(now(), Duration::ZERO);
    let issuing_ca = aws.world(|world, now| {
        let root = pca::create_active_root(world, now, "Example Root CA", "EC_prime256v1")?;
        pca::create_active_subordinate(world, now, &root, "Example Issuing CA", "EC_prime256v1")
    });
    let parameters = [("IssuingCaArn", issuing_ca.map_err(told)?)];
    let parameters = parameters.each_ref().map(|(name, value)| (*name, value.as_str()));
    let template = Template::read(&root().join("template.yaml"), "everleaf", &parameters)?;
    let server = Server::bind(aws.clone(), 0).await?;
    let processes = server.processes().clone();
    tokio::spawn(server.run());
    // Nothing runs but what is invoked here: what a sweep asks for is not done.
    aws.set_deliveries(Some(Box::new(|_, _| Vec::new())));
    aws.deploy(&template, |function| processes.runner(function, binaries.join(&function.binary))).map_err(told)?;

    invoke(&aws, "issue-client-cert", json!({"name": "orders", "subject": {"common_name": "orders"}})).await?;
    let due = aws.world(|world, now| multiply(world, now, size)).map_err(told)?;
    // No sweep writes the report of the day.
    let walk = json!({"id": {"S": "walk"}, "reported": {"N": now().unix_timestamp().to_string()}});
    let function = template.function("renew-on-expiry").ok_or("there is no such function")?;
    let environment = &function.environment;
    let walk = json!({"TableName": environment["EVERLEAF_TABLE"], "Item": walk});
    aws.call("dynamodb:PutItem", walk).await.map_err(told)?;
    tokio::time::sleep(2 * dynamodb::INDEX_LAG.unsigned_abs()).await;

    let begun = Instant::now();
    let denied = AwsError::new("AccessDeniedException", "User is not authorized to perform secretsmanager:DescribeSecret");
    aws.set_faults(Some(Box::new(move |call| (call.operation == "DescribeSecret").then(|| Fault::Refuse(denied.clone())))));
    let failed = invoke(&aws, "renew-on-expiry", json!({"sweep": true})).await.err().map(|error| error.to_string());
    if !failed.is_some_and(|error| error.contains(&format!("({due} failures)"))) {
        return Err(format!("not all {due} looks failed").into());
    }
    aws.set_faults(None);
    let failing = begun.elapsed().as_secs_f64();
    aws.take_calls();
    let swept = invoke(&aws, "renew-on-expiry", json!({"sweep": true})).await?;
    if swept["looked_at"] != due {
        return Err(format!("{due} wanted to be looked at, and this was done: {swept}").into());
    }
    let (peak, seconds) = (peak_of(&binaries.join("renew-on-expiry"))?, begun.elapsed().as_secs_f64() - failing);
    let (calls, asked) = (aws.take_calls().len(), &swept["asked"]);
    println!(
        "{size:>7} certificates: {peak} KiB at most; {due} looked at in {seconds:.1} s by {calls} calls, {asked} steps taken"
    );
    let begun = Instant::now();
    let reported = invoke(&aws, "renew-on-expiry", json!({"report": true})).await?;
    let counted: u64 = reported["counts"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let (with_report, seconds) = (peak_of(&binaries.join("renew-on-expiry"))?, begun.elapsed().as_secs());
    let written = aws.world(|world, _| world.s3.object(&environment["EVERLEAF_BUCKET"], "report/report.json").map(<[u8]>::len));
    println!("        the report: {with_report} KiB at most, {} bytes of JSON in {seconds} s", written.unwrap_or_default());
    if counted != size as u64 || with_report * 100 > function.memory * 1024 * USABLE {
        return Err(format!("the report on {counted} certificates takes {with_report} KiB of {} MiB", function.memory).into());
    }
    Ok(peak)
}

async fn invoke(aws: &LocalAws, function: &str, request: Value) -> Outcome<Value> {
    let input = json!({"FunctionName": format!("everleaf-{function}"), "Payload": request});
    let mut answer = aws.call("lambda:Invoke", input).await.map_err(told)?;
    match answer.get("FunctionError") {
        Some(_) => Err(answer["Payload"]["errorMessage"].as_str().unwrap_or_default().into()),
        None => Ok(answer["Payload"].take()),
    }
}

/// Makes a fleet of `orders`; how many of its certificates want to be looked at now.
fn multiply(world: &mut World, now: OffsetDateTime, size: usize) -> Result<usize, AwsError> {
    let orders = Original::of(world, "everleaf", "orders");
    for number in 1..size {
        orders.copy(world, now, &format!("orders-{number}-mtls"), None, |record| {
            let look_at = now + time::Duration::hours(number as i64 % 24);
            record["look_at"] = json!({"N": look_at.unix_timestamp().to_string()});
            if number % (24 * 20) == 0 {
                for (member, days) in [("not_before", -25), ("not_after", 5)] {
                    let moment = (now + time::Duration::days(days)).format(&Rfc3339).expect("a moment that can be told");
                    record["current"]["M"][member] = json!({"S": moment});
                }
            }
        })?;
    }
    Ok((size - 1) / 24)
}

/// The most memory, in KiB, that the one process of this program which was started here has held.
fn peak_of(program: &Path) -> Outcome<u64> {
    let mut peaks = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let place = entry?.path();
        // Those of others cannot be read, and some end meanwhile.
        let (Ok(runs), Ok(status)) = (place.join("exe").read_link(), std::fs::read_to_string(place.join("status"))) else {
            continue;
        };
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        if runs == program && value("PPid:") == std::process::id().to_string() {
            peaks.push(value("VmHWM:").trim_end_matches(" kB").parse()?);
        }
    }
    match peaks[..] {
        [peak] => Ok(peak),
        _ => Err(format!("{} processes run {}", peaks.len(), program.display()).into()),
    }
}

fn told(error: AwsError) -> String {
    error.message
}

#[expect(clippy::disallowed_methods, reason = "the start of a program")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
