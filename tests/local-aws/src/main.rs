#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use local_aws::server::Server;
use local_aws::template::{Function, Template};
use local_aws::{AwsError, LocalAws, ecs, elbv2, pca, s3};
use serde_json::json;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Local AWS: the AWS operations that Everleaf calls, on this machine, for the AWS CLI, boto3 and any SDK.

It deploys a SAM template: runs the real function binaries, with the environment, roles, rules and schedules of the template.
Everything lives in memory and ends with Ctrl-C.

usage: local-aws [options]

  --template FILE          the SAM template                               [template.yaml]
  --bin-dir DIRECTORY      where `cargo build` put the binaries           [target/debug]
  --port NUMBER            on 127.0.0.1; 0 takes a free port              [4566]
  --stack NAME             the name of the stack                          [everleaf]
  --parameter NAME=VALUE   a parameter of the template, as often as wanted
  --hurry                  tasks start, and Lambda tries again, within seconds
  --help                   this text

From the start there are an issuing CA, which is the stack's unless --parameter says otherwise, and the services billing, gateway
and orders in the cluster payments: what the examples in events/ speak of. There is also an internal Application Load Balancer,
clients, with HTTPS listeners to try a trust store on; POST /_local/handshake tells what it would say of a client:
  {\"listener_arn\": ARN, \"chain\": PEM}
And there is a CA to move to, Local Next CA; POST /_local/parameters updates the stack:
  {\"IssuingCaArn\": ARN, \"RetiredCas\": \"ARN=ARN\"}
";

struct Options {
    template: PathBuf,
    bin_dir: PathBuf,
    port: u16,
    stack: String,
    parameters: Vec<(String, String)>,
    hurry: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let outcome = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => run(options).await,
        Err(error) => Err(format!("{error} (see --help)").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-aws: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    #[expect(clippy::disallowed_methods, reason = "the start of a program")]
    let start = OffsetDateTime::now_utc();
    let aws = LocalAws::new(start, Duration::ZERO);
    let furniture = furnish(&aws).map_err(|error| error.message)?;
    aws.world(|world, _| world.hurry = options.hurry);
    let first = [("IssuingCaArn", furniture.issuing_ca.as_str()), ("CrlBucketArns", CRL_BUCKET_ARN)];
    let mut parameters: BTreeMap<String, String> = first.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    parameters.extend(options.parameters);
    let read = move |parameters: &BTreeMap<String, String>| {
        let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Template::read(&options.template, &options.stack, &parameters)
    };
    let template = read(&parameters)?;
    check_binaries(&template, &options.bin_dir)?;
    let server = Server::bind(aws.clone(), options.port).await.map_err(|error| format!("port {}: {error}", options.port))?;
    let processes = server.processes().clone();
    let runner = move |function: &Arc<Function>| processes.runner(function, options.bin_dir.join(&function.binary));
    aws.deploy(&template, &runner).map_err(|error| error.message)?;
    let account = aws.clone();
    server.on_update(move |given| {
        let wanted = parameters.clone().into_iter().chain(given).collect();
        read(&wanted).map(|template| account.update(&template, &runner)).map_err(|error| error.to_string())
    });
    greet(&template, server.address().to_string(), &furniture);

    // The processes end with the runtime, when this returns.
    tokio::select! {
        result = server.run() => result?,
        () = narrate(&aws, &template) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// What is there from the start, by ARN.
struct Furniture {
    /// The parameter `IssuingCaArn` of the stack unless another is given.
    issuing_ca: String,
    /// Of the load balancer `clients`.
    listeners: Vec<String>,
}

/// Where the issuing CA publishes its CRLs.
const CRL_BUCKET: &str = "local-crls";
const CRL_BUCKET_ARN: &str = "arn:aws:s3:::local-crls";

/// What the examples in `events/` speak of: an issuing CA below a root, and the services of the cluster `payments`; and a load
/// balancer that a trust store can be tried on.
fn furnish(aws: &LocalAws) -> Result<Furniture, AwsError> {
    aws.world(|world, now| {
        let root = pca::create_active_root(world, now, "Local Root CA", "RSA_2048")?;
        let issuing = pca::create_active_subordinate(world, now, &root, "Local Issuing CA", "RSA_2048")?;
        s3::create_bucket(world, CRL_BUCKET);
        pca::enable_crl(world, now, &issuing, CRL_BUCKET, 7)?;
        let next = pca::create_active_subordinate(world, now, &root, "Local Next CA", "RSA_2048")?;
        pca::enable_crl(world, now, &next, CRL_BUCKET, 7)?;
        let mut ecs = |operation, input| ecs::call(world, now, operation, &input);
        ecs("CreateCluster", json!({"clusterName": "payments"}))?;
        let container = json!({"name": "app", "image": "app", "memory": 128});
        ecs("RegisterTaskDefinition", json!({"family": "app", "containerDefinitions": [container]}))?;
        for service in ["billing", "gateway", "orders"] {
            ecs(
                "CreateService",
                json!({"cluster": "payments", "serviceName": service, "taskDefinition": "app", "desiredCount": 1}),
            )?;
        }
        let listeners = [8443, 9443].map(|port| elbv2::create_listener(world, now, "clients", port));
        Ok(Furniture { issuing_ca: issuing, listeners: listeners.to_vec() })
    })
}

fn check_binaries(template: &Template, bin_dir: &Path) -> Result<(), String> {
    let missing: Vec<&str> = template
        .functions
        .iter()
        .map(|function| function.binary.as_str())
        .filter(|binary| !bin_dir.join(binary).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: String = missing.iter().map(|binary| format!(" -p {binary}")).collect();
    Err(format!("no {} in {}: build with\n\n    cargo build{packages}\n", missing.join(", "), bin_dir.display()))
}

fn greet(template: &Template, address: String, furniture: &Furniture) {
    let (url, Furniture { issuing_ca, listeners }) = (format!("http://{address}"), furniture);
    println!("Local AWS answers at {url} and runs the stack {}:", template.stack);
    for function in &template.functions {
        println!("  {:<20} {}", function.binary, function.name);
    }
    println!("The issuing CA is\n  {issuing_ca}");
    println!("The load balancer `clients` listens with");
    listeners.iter().for_each(|arn| println!("  {arn}"));
    let declaration = json!({"declare": {
        "name": "clients", "certificate_authority_arns": [issuing_ca], "listeners": [{"listener_arn": listeners.first()}],
    }});
    println!("Let the first listener verify clients by a trust store:");
    println!("  make invoke FUNCTION=refresh-truststore REQUEST='{declaration}'");
    let first = template.functions.first().map_or("FUNCTION", |function| function.name.as_str());
    println!(
        "
Any access key will do; for instance:
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION={}
  aws --endpoint-url {url} acm-pca list-certificate-authorities
  aws --endpoint-url {url} lambda invoke --function-name {first} --payload '{{}}' /dev/stdout
  curl --data-binary @events/EVENT.json {url}/_local/event
  aws --endpoint-url {url} elbv2 describe-trust-stores
  curl --data-binary @handshake.json {url}/_local/handshake
",
        local_aws::REGION
    );
}

/// One line for each event and each invocation. It looks five times a second, which is as soon as a reader notices.
async fn narrate(aws: &LocalAws, template: &Template) {
    let short = |name: &str| {
        let function = template.functions.iter().find(|function| function.name == name);
        function.map_or_else(|| name.to_owned(), |function| function.binary.clone())
    };
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Nobody reads them here; they would fill the memory.
        drop(aws.take_calls());
        let mut lines = Vec::new();
        for event in aws.take_events() {
            let text = |member: &str| event.event[member].as_str().unwrap_or("?").to_owned();
            let about = event.event["resources"][0].as_str().or_else(|| event.event["detail"]["certificate"].as_str());
            let functions: Vec<String> = event.functions.iter().map(|name| short(name)).collect();
            let goes_to = if functions.is_empty() { "no rule matches".to_owned() } else { functions.join(", ") };
            lines.push((
                event.at,
                format!("event  {}: {} {} → {goes_to}", text("source"), text("detail-type"), about.unwrap_or("")),
            ));
        }
        for invocation in aws.take_invocations() {
            let attempt = if invocation.attempt > 1 { format!(", attempt {}", invocation.attempt) } else { String::new() };
            let took = (invocation.ended - invocation.at).whole_milliseconds();
            let outcome = match &invocation.outcome {
                Ok(answer) => answer["outcome"].as_str().map_or_else(|| "done".to_owned(), str::to_owned),
                Err(error) => format!("FAILED: {}: {}", error.error_type, error.error_message),
            };
            lines.push((invocation.ended, format!("ran    {} in {took} ms{attempt}: {outcome}", short(&invocation.function))));
        }
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            println!("{:02}:{:02}:{:02}  {line}", at.hour(), at.minute(), at.second());
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            template: "template.yaml".into(),
            bin_dir: "target/debug".into(),
            port: 4566,
            stack: "everleaf".into(),
            parameters: Vec::new(),
            hurry: false,
        };
        while let Some(name) = arguments.next() {
            if name == "--hurry" {
                options.hurry = true;
                continue;
            }
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--template" => options.template = value()?.into(),
                "--bin-dir" => options.bin_dir = value()?.into(),
                "--port" => {
                    let value = value()?;
                    options.port = value.parse().map_err(|_| format!("{value} is not a port"))?;
                }
                "--stack" => options.stack = value()?,
                "--parameter" => {
                    let value = value()?;
                    let (name, value) = value.split_once('=').ok_or_else(|| format!("{value} is not NAME=VALUE"))?;
                    options.parameters.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(format!("no option {name}")),
            }
        }
        Ok(options)
    }
}
