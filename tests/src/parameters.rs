//! Judges the parameters of a stack before it is deployed: by the template, and by the functions' own parsers of their settings.
//!
//! ```text
//! parameters NAME=VALUE…
//! ```
//!
//! Prints a line for each fault, and fails when there is one.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::collections::BTreeSet;
use std::process::ExitCode;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use local_aws::template::{Function, Template};
use runtime::vars::Vars;

fn main() -> Result<ExitCode, String> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let pairs = given.iter().map(|word| word.split_once('=').ok_or_else(|| format!("{word} is not NAME=VALUE")));
    let faults = faults(&pairs.collect::<Result<Vec<_>, _>>()?);
    faults.iter().for_each(|fault| println!("{fault}"));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults(parameters: &[(&str, &str)]) -> BTreeSet<String> {
    match Template::parse(include_str!("../../template.yaml"), "everleaf", parameters) {
        Err(error) => BTreeSet::from([error.to_string()]),
        Ok(template) => template.functions.iter().filter_map(|function| refusal(function).err()).collect(),
    }
}

/// What the function would say at its start, and then not start.
fn refusal(function: &Function) -> Result<(), String> {
    let sdk =
        SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::from_static("eu-central-1")).build();
    let vars = Vars::new(|name| function.environment.get(name).cloned());
    match function.binary.as_str() {
        "issue-client-cert" => issue_client_cert::App::new(vars, &sdk).map(drop),
        "export-to-secrets" => export_to_secrets::App::new(vars, &sdk).map(drop),
        "renew-on-expiry" => renew_on_expiry::App::new(vars, &sdk).map(drop),
        "force-redeploy" => force_redeploy::App::new(vars, &sdk).map(drop),
        "refresh-truststore" => refresh_truststore::App::new(vars, &sdk).map(drop),
        other => Err(format!("{other}: nobody here knows its settings")),
    }
}
