//! How functions start, and what their first and later events cost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::account::{Account, behind_tls, rest};
use crate::sandbox::Sandbox;

/// Processes of each function, and events for each of them.
const RUNS: usize = 10;
const EVENTS: usize = 3;

pub(crate) const FUNCTIONS: [&str; 5] =
    ["issue-client-cert", "export-to-secrets", "renew-on-expiry", "force-redeploy", "refresh-truststore"];

/// What processes find around them.
pub(crate) struct Machine {
    environments: BTreeMap<String, BTreeMap<String, String>>,
    common: BTreeMap<String, String>,
    roots: PathBuf,
}

impl Machine {
    pub(crate) async fn new(account: &Account) -> Outcome<Self> {
        let (url, certificate) = behind_tls(account.address).await?;
        // About as many roots as Lambda has, and ours.
        let roots = std::env::temp_dir().join(format!("everleaf-bench-{}.pem", std::process::id()));
        std::fs::write(&roots, std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt")? + &certificate)?;
        let common = [
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_REGION", local_aws::REGION),
            ("AWS_DEFAULT_REGION", local_aws::REGION),
            ("AWS_ENDPOINT_URL", &url),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("SSL_CERT_FILE", &roots.display().to_string()),
            ("AWS_CA_BUNDLE", &roots.display().to_string()),
            ("LAMBDA_TASK_ROOT", HANDLER),
            ("PYTHONPATH", HANDLER),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let common = common.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let functions = &account.stack.template.functions;
        let environments = functions.iter().map(|function| {
            let mut environment = function.environment.clone();
            environment.insert("AWS_LAMBDA_FUNCTION_NAME".to_owned(), function.name.clone());
            // The server tells by the key who is calling.
            environment.insert("AWS_ACCESS_KEY_ID".to_owned(), function.name.clone());
            (function.binary.clone(), environment)
        });
        Ok(Self { environments: environments.collect(), common, roots })
    }

    pub(crate) fn environment(&self, function: &str) -> BTreeMap<String, String> {
        let mut environment = self.common.clone();
        environment.insert("AWS_LAMBDA_FUNCTION_NAME".to_owned(), function.to_owned());
        environment.insert("AWS_ACCESS_KEY_ID".to_owned(), function.to_owned());
        environment
            .extend(self.environments.get(function).into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        environment
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It is below the folder for temporary files.
        drop(std::fs::remove_file(&self.roots));
    }
}

/// Where the handler in Python is.
const HANDLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench");

/// `binaries` has the functions, `hello` is the floor, and `python` the interpreter with awslambdaric and boto3.
pub(crate) async fn measure(binaries: &Path, hello: &Path, python: &Path) -> Outcome<()> {
    let mut account = Account::set_up(RUNS * EVENTS).await?;
    let machine = Machine::new(&account).await?;
    let text = |path: &Path| path.display().to_string();
    let mut programs = vec![("hello", vec![text(hello)])];
    programs.extend(FUNCTIONS.map(|function| (function, vec![text(&binaries.join(function))])));
    programs.push(("python", [&text(python), "-m", "awslambdaric", "renewal.handler"].map(str::to_owned).into()));
    for (name, program) in &programs {
        let (program, environment) = (program.iter().map(String::as_str).collect::<Vec<_>>(), machine.environment(name));
        let events = account.events.remove(name).unwrap_or_else(|| vec![json!({"greeting": "hello"}); RUNS * EVENTS]);
        let mut samples = BTreeMap::<&str, Vec<f64>>::new();
        for events in events.chunks(EVENTS) {
            let mut note = |what, value: f64| samples.entry(what).or_default().push(value);
            rest().await;
            let mut sandbox = Sandbox::start(&program, &environment).await?;
            let mut before = sandbox.usage()?;
            note("start_ms", ms(sandbox.started_in));
            note("start_cpu_ms", ms(before.cpu));
            note("start_kib", before.peak_kib as f64);
            account.stack.aws.take_calls();
            for (place, event) in events.iter().enumerate() {
                let (answer, took) = sandbox.invoke(event, Duration::from_secs(60)).await?;
                check(name, &answer)?;
                let after = sandbox.usage()?;
                let [time, cpu, calls] = match place {
                    0 => ["first_ms", "first_cpu_ms", "first_calls"],
                    _ => ["later_ms", "later_cpu_ms", "later_calls"],
                };
                note(time, ms(took));
                note(cpu, ms(after.cpu - before.cpu));
                note(calls, account.stack.aws.take_calls().len() as f64);
                before = after;
            }
            note("peak_kib", before.peak_kib as f64);
            sandbox.end().await?;
        }
        let size = std::fs::metadata(program[0])?.len();
        crate::print(json!({"start": name, "bytes": size, "samples": samples}));
    }
    Ok(())
}

/// The event was really handled.
fn check(function: &str, answer: &Value) -> Outcome<()> {
    let expected = match function {
        "issue-client-cert" => "issued",
        "export-to-secrets" => "exported",
        "renew-on-expiry" => "acted",
        "python" => "renewed",
        _ => return Ok(()),
    };
    match answer["outcome"] == expected {
        true => Ok(()),
        false => Err(format!("{function} answers {answer}").into()),
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
