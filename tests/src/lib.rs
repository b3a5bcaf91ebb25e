//! Everleaf deployed on Local AWS in one process: the real handlers behind the real SDK, wired by `template.yaml`.

pub mod dice;
pub mod fleet;
pub mod leaks;
pub mod storms;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use lambda_runtime::Diagnostic;
use lifecycle::names::CertificateName;
use lifecycle::record::Record;
use local_aws::lambda::{Context, FunctionError, Runner, runner};
use local_aws::template::{Function, Template};
use local_aws::{AwsError, LocalAws, pca};
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Invocation};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A stack that runs.
pub struct Stack {
    pub aws: LocalAws,
    pub template: Template,
    pub root_ca: String,
    pub issuing_ca: String,
    parameters: Vec<(String, String)>,
    runners: BTreeMap<String, Runner>,
}

/// When the stories begin.
pub const START: OffsetDateTime = datetime!(2027-01-04 09:00 UTC);

impl Stack {
    /// A root CA, an issuing CA below it that ACM may use too, and the stack of the template with its defaults.
    pub async fn deploy() -> Self {
        Self::deploy_with(&[]).await
    }

    pub async fn deploy_with(parameters: &[(&str, &str)]) -> Self {
        Self::deploy_on("RSA_2048", parameters).await
    }

    /// With CAs whose keys are of this algorithm.
    pub async fn deploy_on(key_algorithm: &str, parameters: &[(&str, &str)]) -> Self {
        Self::deploy_in(LocalAws::new(START, Duration::from_millis(15)), key_algorithm, parameters).await
    }

    /// In this account, which is new.
    pub async fn deploy_in(aws: LocalAws, key_algorithm: &str, parameters: &[(&str, &str)]) -> Self {
        let (root_ca, issuing_ca) = aws
            .world(|world, now| {
                let root = pca::create_active_root(world, now, "Example Root CA", key_algorithm)?;
                let issuing = pca::create_active_subordinate(world, now, &root, "Example Issuing CA", key_algorithm)?;
                Ok::<_, AwsError>((root, issuing))
            })
            .expect("the CAs can be set up");
        let parameters = [("IssuingCaArn", issuing_ca.as_str())].into_iter().chain(parameters.iter().copied());
        let parameters: Vec<_> = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (template, runners) = set_up(&aws, &parameters).await;
        aws.deploy(&template, |function| runners[&function.binary].clone()).expect("the template can be deployed");
        Self { aws, template, root_ca, issuing_ca, parameters, runners }
    }

    /// Another stack in the same account, which issues from the same CA; its name is its prefix. Its functions call AWS under their
    /// whole names.
    pub async fn beside(&self, prefix: &str, parameters: &[(&str, &str)]) -> Self {
        let own = [("Prefix", prefix), ("IssuingCaArn", &*self.issuing_ca)];
        let parameters = own.into_iter().chain(parameters.iter().copied());
        let parameters: Vec<_> = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (template, runners) = set_up(&self.aws, &parameters).await;
        self.aws.deploy(&template, |function| runners[&function.binary].clone()).expect("the template can be deployed");
        let (aws, root_ca, issuing_ca) = (self.aws.clone(), self.root_ca.clone(), self.issuing_ca.clone());
        Self { aws, template, root_ca, issuing_ca, parameters, runners }
    }

    /// Updates the stack: these parameters change, the others stay.
    pub async fn update(&mut self, parameters: &[(&str, &str)]) {
        self.parameters.retain(|(name, _)| !parameters.iter().any(|(changed, _)| changed == name));
        self.parameters.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        (self.template, self.runners) = set_up(&self.aws, &self.parameters).await;
        self.aws.update(&self.template, |function| self.runners[&function.binary].clone());
    }

    /// Runs a function's handler once, under this request id, as Lambda would synchronously.
    pub async fn handle(&self, function: &str, event: Value, request_id: &str) -> Result<Value, FunctionError> {
        let config = self.template.function(function).expect("a function of the template");
        let deadline = self.aws.clock("lambda") + config.timeout;
        let context = Context { request_id: request_id.to_owned(), deadline, function: config.name.clone(), attempt: 1 };
        self.runners[function](event, context).await
    }

    /// A client of this account for `caller`.
    pub fn sdk(&self, caller: &str) -> SdkConfig {
        sdk(&self.aws, caller)
    }

    /// The table and the secrets, as the functions see them.
    pub fn records(&self) -> Records {
        let sdk = self.sdk("user");
        let environment = &self.template.function("export-to-secrets").expect("a function of the template").environment;
        let mut vars = Vars::new(|name| environment.get(name).cloned());
        let settings = Settings::of_writer(&mut vars).expect("the settings are there");
        Records::new(&sdk, settings)
    }

    pub async fn record(&self, name: &str) -> Option<Record> {
        let name: CertificateName = name.parse().expect("a certificate's name");
        self.records().load(&name).await.expect("the record can be read")
    }
}

/// The prefix of a stack for which none is given.
const EVERLEAF: &str = "everleaf";

async fn set_up(aws: &LocalAws, parameters: &[(String, String)]) -> (Template, BTreeMap<String, Runner>) {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let name = parameters.iter().find(|(name, _)| *name == "Prefix").map_or(EVERLEAF, |(_, prefix)| prefix);
    let template = Template::read(&root().join("template.yaml"), name, &parameters).expect("the template can be read");
    let mut runners = BTreeMap::new();
    for function in &template.functions {
        runners.insert(function.binary.clone(), in_process(aws, function).await);
    }
    (template, runners)
}

fn sdk(aws: &LocalAws, caller: &str) -> SdkConfig {
    runtime::sdk_settings(caller)
        .http_client(aws.http_client(caller))
        .region(Region::from_static(local_aws::REGION))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
        .build()
}

/// The handler of a function, set up from the environment that the template gives it.
async fn in_process(aws: &LocalAws, function: &Arc<Function>) -> Runner {
    let is_everleaf = function.environment.get("EVERLEAF_PREFIX").is_some_and(|prefix| prefix == EVERLEAF);
    let sdk = sdk(aws, if is_everleaf { &function.binary } else { &function.name });
    let environment = function.environment.clone();
    let vars = || Vars::new(|name| environment.get(name).cloned());
    macro_rules! runs {
        ($package:ident) => {{
            let app = Arc::new($package::App::new(vars(), &sdk).expect("the template gives every setting"));
            let aws = aws.clone();
            runner(move |event, context| {
                let (app, now) = (app.clone(), aws.clock("lambda"));
                async move { $package::handle(&app, event, &invocation(context, now)).await.map_err(function_error) }
            })
        }};
    }
    match function.binary.as_str() {
        "export-to-secrets" => runs!(export_to_secrets),
        "force-redeploy" => runs!(force_redeploy),
        "issue-client-cert" => runs!(issue_client_cert),
        "refresh-truststore" => runs!(refresh_truststore),
        "renew-on-expiry" => runs!(renew_on_expiry),
        other => panic!("the template has a function `{other}` that is not known here"),
    }
}

fn invocation(context: Context, now: OffsetDateTime) -> Invocation {
    Invocation::new(context.request_id, now, Duration::try_from(context.deadline - now).unwrap_or_default())
}

fn function_error(failure: Failure) -> FunctionError {
    let Diagnostic { error_type, error_message, .. } = failure.into();
    FunctionError::new(&error_type, error_message)
}
