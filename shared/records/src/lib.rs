//! What Everleaf keeps: one DynamoDB table of records, and one secret a certificate. Nothing else touches either.
//!
//! - [`table`]: records and bindings, written whole under their revision
//! - [`secrets`]: a secret's versions and their labels
//! - [`halt`]: what stands against a certificate until a person has seen to it
//! - [`install`]: a new pair from staged to current, and a record made to agree with its secret again
//! - [`rotation`]: Secrets Manager's own way to ask for a new pair
//! - [`trust`]: what is kept of trust stores, and which certificates need a CA

pub mod halt;
pub mod install;
pub mod rotation;
pub mod secrets;
mod setback;
pub mod table;
pub mod trust;

use aws_config::SdkConfig;
use runtime::vars::Vars;
use runtime::{Seldom, seldom};

/// The table and the managed secrets of one stack.
pub struct Records {
    dynamodb: aws_sdk_dynamodb::Client,
    secretsmanager: Seldom<aws_sdk_secretsmanager::Client>,
    pub settings: Settings,
}

impl Records {
    pub fn new(sdk: &SdkConfig, settings: Settings) -> Self {
        let secretsmanager = seldom(sdk, aws_sdk_secretsmanager::Client::new);
        Self { dynamodb: aws_sdk_dynamodb::Client::new(sdk), secretsmanager, settings }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Secrets are called `<prefix>/<name>`; own events carry it.
    pub prefix: String,
    pub table: String,
    /// The KMS key of new secrets; `None`: the account's key for Secrets Manager.
    pub kms_key: Option<String>,
    /// The regions that are to hold a replica of every secret.
    pub replica_regions: Vec<String>,
}

impl Settings {
    /// For a function that creates and replicates no secrets.
    pub fn of_reader(vars: &mut Vars<'_>) -> Option<Self> {
        let (prefix, table) = (vars.required("EVERLEAF_PREFIX"), vars.required("EVERLEAF_TABLE"));
        Some(Self { prefix: prefix?, table: table?, kms_key: None, replica_regions: Vec::new() })
    }

    pub fn of_writer(vars: &mut Vars<'_>) -> Option<Self> {
        let kms_key: Option<String> = vars.optional("EVERLEAF_KMS_KEY");
        let replica_regions = vars.list("EVERLEAF_REPLICA_REGIONS");
        if !replica_regions.is_empty() && kms_key.as_ref().is_some_and(|key| !key.contains(":key/mrk-")) {
            vars.fault(
                "EVERLEAF_REPLICA_REGIONS",
                "KmsKeyArn must be a multi-Region key (key/mrk-…) with a replica in each region",
            );
        }
        Some(Self { kms_key, replica_regions, ..Self::of_reader(vars)? })
    }
}
