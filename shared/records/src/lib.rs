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

use runtime::vars::Vars;

/// The table and the managed secrets of one stack.
#[derive(Clone, Debug)]
pub struct Records {
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub secretsmanager: aws_sdk_secretsmanager::Client,
    pub settings: Settings,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Secrets are called `<prefix>/<name>`; own events carry it.
    pub prefix: String,
    pub table: String,
    /// The KMS key of new secrets; `None`: the account's key for Secrets Manager.
    pub kms_key: Option<String>,
}

impl Settings {
    /// For a function that reads secrets and creates none.
    pub fn of_reader(vars: &mut Vars<'_>) -> Option<Self> {
        let (prefix, table) = (vars.required("EVERLEAF_PREFIX"), vars.required("EVERLEAF_TABLE"));
        Some(Self { prefix: prefix?, table: table?, kms_key: None })
    }

    pub fn of_writer(vars: &mut Vars<'_>) -> Option<Self> {
        let kms_key = vars.optional("EVERLEAF_KMS_KEY");
        Some(Self { kms_key, ..Self::of_reader(vars)? })
    }
}
