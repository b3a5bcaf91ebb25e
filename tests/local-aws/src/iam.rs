//! What a call needs of its caller's role, and whether the role allows it. Functions have roles; users may do everything.
//!
//! - <https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html>
//! - <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition.html>

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{AwsError, World};

/// A statement of an IAM policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub allow: bool,
    pub actions: Vec<String>,
    pub resources: Vec<String>,
    pub conditions: Vec<Condition>,
}

/// One key of a statement's `Condition`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    operator: Operator,
    pub key: String,
    /// One of them is enough.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    StringEquals,
    StringLike,
    Bool,
    /// Whether the call says nothing of the key.
    Null,
}

/// One right that a call needs, with what a condition on it is held against.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub action: String,
    pub resource: String,
    pub context: BTreeMap<String, String>,
}

impl Statement {
    pub fn applies(&self, need: &Need) -> bool {
        self.actions.iter().any(|pattern| like(&pattern.to_lowercase(), &need.action.to_lowercase()))
            && self.resources.iter().any(|pattern| like(pattern, &need.resource))
            && self.conditions.iter().all(|condition| condition.holds(&need.context))
    }
}

/// Whether a role of these statements allows it.
pub fn allows(statements: &[Statement], need: &Need) -> bool {
    let mut allowed = false;
    for statement in statements.iter().filter(|statement| statement.applies(need)) {
        if !statement.allow {
            return false;
        }
        allowed = true;
    }
    allowed
}

impl Condition {
    /// Reads `Condition`. What is not understood here is refused: it would change what a role may do.
    pub(crate) fn read(conditions: &Value) -> Result<Vec<Self>, String> {
        let mut read = Vec::new();
        for (operator, tests) in conditions.as_object().into_iter().flatten() {
            let operator = match operator.as_str() {
                "StringEquals" => Operator::StringEquals,
                "StringLike" => Operator::StringLike,
                "Bool" => Operator::Bool,
                "Null" => Operator::Null,
                _ => return Err(format!("Local AWS does not know the operator {operator}")),
            };
            for (key, values) in tests.as_object().into_iter().flatten() {
                let known = [
                    "acm-pca:TemplateArn",
                    "events:source",
                    "kms:ViaService",
                    "lambda:SourceFunctionArn",
                    "secretsmanager:ForceDeleteWithoutRecovery",
                ];
                let open = ["aws:RequestTag/", "aws:ResourceTag/", "kms:EncryptionContext:"];
                if !known.contains(&key.as_str()) && !open.iter().any(|kind| key.starts_with(kind)) {
                    return Err(format!("Local AWS does not know the condition key {key}"));
                }
                let values = match values {
                    Value::Array(values) => values.iter().map(Value::as_str).collect(),
                    one => vec![one.as_str()],
                };
                let values: Option<Vec<_>> = values.into_iter().map(|value| value.map(str::to_owned)).collect();
                let values = values.ok_or_else(|| format!("{key} must be compared with texts"))?;
                read.push(Self { operator, key: key.clone(), values });
            }
        }
        Ok(read)
    }

    fn holds(&self, context: &BTreeMap<String, String>) -> bool {
        if self.operator == Operator::Null {
            return self.values.contains(&(!context.contains_key(&self.key)).to_string());
        }
        context.get(&self.key).is_some_and(|actual| {
            self.values.iter().any(|value| match self.operator {
                Operator::StringEquals | Operator::Bool => value == actual,
                Operator::StringLike => like(value, actual),
                Operator::Null => false,
            })
        })
    }
}

/// As AWS does before it answers: an error when the caller is a function whose role lacks something that the call needs.
pub(crate) fn check(world: &World, caller: &str, needs: &[Need]) -> Result<(), AwsError> {
    let functions = &world.lambda.functions;
    let by_binary = || functions.values().find(|function| function.config.binary == caller);
    let Some(function) = functions.get(caller).or_else(by_binary) else { return Ok(()) };
    let denied = needs.iter().find(|need| !allows(&function.config.statements, need));
    let Some(Need { action, resource, .. }) = denied else { return Ok(()) };
    let message = format!("User: the role of {caller} is not authorized to perform: {action} on resource: {resource}");
    // It is spelled by the service that was called, not by one that this asked in turn.
    let service = needs.first().and_then(|need| need.action.split(':').next());
    Err(match service {
        Some("s3" | "elasticloadbalancing") => AwsError { status: 403, ..AwsError::new("AccessDenied", message) },
        _ => AwsError::new("AccessDeniedException", message),
    })
}

/// All that a call needs; first the right that is called as the operation is.
pub(crate) fn needs(world: &World, service: &str, operation: &str, input: &Value) -> Vec<Need> {
    let text = |member: &str| input[member].as_str().unwrap_or_default().to_owned();
    let action = format!("{service}:{operation}");
    let of = |resource: String| vec![need(&action, resource)];
    match service {
        "acm" => acm(world, operation, input, &action),
        "acm-pca" => private_ca(world, operation, input, &action),
        "dynamodb" => dynamodb(world, operation, input),
        "ecs" if ["DescribeServices", "ListServiceDeployments", "UpdateService"].contains(&operation) => {
            let named = input["services"].as_array().map_or(&[][..], Vec::as_slice).iter().chain(input.get("service"));
            let service = |name: &Value| format!("service/{}/{}", text("cluster"), name.as_str().unwrap_or_default());
            named.map(|name| need(&action, world.arn("ecs", &service(name)))).collect()
        }
        "elasticloadbalancing" if operation.starts_with("Describe") => of("*".to_owned()),
        "elasticloadbalancing" => load_balancing(world, operation, input, &action),
        "events" if operation == "PutEvents" => {
            let sources = input["Entries"].as_array().into_iter().flatten().map(|entry| entry["Source"].as_str());
            let of_source = |source| {
                let mut put = need(&action, world.arn("events", "event-bus/default"));
                put.says("events:source", source);
                put
            };
            sources.map(of_source).collect()
        }
        // Whoever has the URL has the right.
        "s3" if !input["Signature"].is_null() => Vec::new(),
        "s3" if operation == "ListObjectsV2" => vec![need("s3:ListBucket", format!("arn:aws:s3:::{}", text("Bucket")))],
        // A HEAD is a GET without the body.
        "s3" if ["GetObject", "HeadObject"].contains(&operation) => {
            let get = get_object(&text("Bucket"), &text("Key"), input["VersionId"].as_str());
            // Who may not list a bucket is not told what is not in it.
            let absent = world.s3.object(&text("Bucket"), &text("Key")).is_none();
            let list = absent.then(|| need("s3:ListBucket", format!("arn:aws:s3:::{}", text("Bucket"))));
            let of_key = of_object(world, &["kms:Decrypt"], &text("Bucket"), &text("Key"));
            [get].into_iter().chain(list).chain(of_key).collect()
        }
        "s3" => {
            let of_key = of_object(world, &["kms:GenerateDataKey"], &text("Bucket"), &text("Key"));
            of(format!("arn:aws:s3:::{}/{}", text("Bucket"), text("Key"))).into_iter().chain(of_key).collect()
        }
        "secretsmanager" if operation == "ListSecrets" => of("*".to_owned()),
        "secretsmanager" => secrets(world, operation, input, &action),
        _ => of("*".to_owned()),
    }
}

fn acm(world: &World, operation: &str, input: &Value, action: &str) -> Vec<Need> {
    let resource = match input["CertificateArn"].as_str() {
        _ if ["ListCertificates", "RequestCertificate"].contains(&operation) => "*".to_owned(),
        Some(arn) => arn.to_owned(),
        None => world.arn("acm", "certificate/new"),
    };
    let mut own = need(action, resource);
    for (key, value) in world.acm.tags(&own.resource) {
        own.context.insert(format!("aws:ResourceTag/{key}"), value.clone());
    }
    for tag in input["Tags"].as_array().into_iter().flatten() {
        own.says(&format!("aws:RequestTag/{}", tag["Key"].as_str().unwrap_or_default()), tag["Value"].as_str());
    }
    let tags = ["ImportCertificate", "RequestCertificate"].contains(&operation) && !input["Tags"].is_null();
    let add_tags = tags.then(|| Need { action: "acm:AddTagsToCertificate".to_owned(), ..own.clone() });
    [own].into_iter().chain(add_tags).collect()
}

fn private_ca(world: &World, operation: &str, input: &Value, action: &str) -> Vec<Need> {
    let mut needs = vec![need(action, input["CertificateAuthorityArn"].as_str().unwrap_or_default().to_owned())];
    needs[0].says("acm-pca:TemplateArn", input["TemplateArn"].as_str());
    // It refuses a revocation to whoever may not write the CRL.
    let crl = world.pca.crl(&needs[0].resource).filter(|_| operation == "RevokeCertificate");
    if let Some((bucket, key)) = crl {
        // <https://docs.aws.amazon.com/privateca/latest/userguide/crl-planning.html#crl-encryption>
        needs.extend(of_object(world, &["kms:GenerateDataKey", "kms:Decrypt"], &bucket, &key));
        let bucket = format!("arn:aws:s3:::{bucket}");
        needs.extend(["s3:PutObject", "s3:PutObjectAcl"].map(|action| need(action, format!("{bucket}/{key}"))));
        needs.extend(["s3:GetBucketAcl", "s3:GetBucketLocation"].map(|action| need(action, bucket.clone())));
    }
    needs
}

fn dynamodb(world: &World, operation: &str, input: &Value) -> Vec<Need> {
    let of_kind = |kind: &str, name: &str| (format!("dynamodb:{kind}"), name.to_owned());
    let calls: Vec<(String, String)> = match operation {
        "BatchGetItem" => {
            input["RequestItems"].as_object().into_iter().flatten().map(|(name, _)| of_kind(operation, name)).collect()
        }
        // It has no right of its own: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html>.
        "TransactWriteItems" => {
            let writes = input["TransactItems"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
            writes.map(|(kind, one)| of_kind(&format!("{kind}Item"), one["TableName"].as_str().unwrap_or_default())).collect()
        }
        _ => vec![of_kind(operation, input["TableName"].as_str().unwrap_or_default())],
    };
    let mut needs = Vec::new();
    for (action, name) in calls {
        let index = input["IndexName"].as_str().map(|index| format!("/index/{index}")).unwrap_or_default();
        let key = world.dynamodb.kms_key(&name);
        // <https://docs.aws.amazon.com/kms/latest/developerguide/services-dynamodb.html>
        let writes = ["Put", "Update", "Delete"].iter().any(|kind| action.contains(kind));
        needs.push(need(&action, world.arn("dynamodb", &format!("table/{name}{index}"))));
        needs.extend(key.map(|key| via(world, "kms:Decrypt", key, "dynamodb")));
        needs.extend(key.filter(|_| writes).map(|key| via(world, "kms:GenerateDataKey", key, "dynamodb")));
    }
    needs
}

/// Elastic Load Balancing reads what it is told of with its caller's rights.
fn load_balancing(world: &World, operation: &str, input: &Value, action: &str) -> Vec<Need> {
    let text = |of: &Value, member: &str| of[member].as_str().unwrap_or_default().to_owned();
    let resource = match operation {
        "CreateTrustStore" => world.arn("elasticloadbalancing", &format!("truststore/{}/0123456789abcdef", text(input, "Name"))),
        "ModifyListener" => text(input, "ListenerArn"),
        _ => text(input, "TrustStoreArn"),
    };
    let mut needs = vec![need(action, resource.clone())];
    if !input["Tags"].is_null() {
        needs.push(need("elasticloadbalancing:AddTags", resource));
    }
    let bundle = "CaCertificatesBundleS3";
    if let Some(bucket) = input[format!("{bundle}Bucket")].as_str() {
        let version = input[format!("{bundle}ObjectVersion")].as_str();
        needs.push(get_object(bucket, &text(input, &format!("{bundle}Key")), version));
    }
    for crl in input["RevocationContents"].as_array().into_iter().flatten() {
        needs.push(get_object(&text(crl, "S3Bucket"), &text(crl, "S3Key"), crl["S3ObjectVersion"].as_str()));
    }
    needs
}

/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html>
fn secrets(world: &World, operation: &str, input: &Value, action: &str) -> Vec<Need> {
    let id = input["SecretId"].as_str().or_else(|| input["Name"].as_str()).unwrap_or_default();
    let found = world.secrets.find(id).map(|secret| secret.arn.clone());
    let is_arn = id.starts_with("arn:").then(|| id.to_owned());
    let new = || world.arn("secretsmanager", &format!("secret:{id}-AbCd3F"));
    let mut own = need(action, found.or(is_arn).unwrap_or_else(new));
    let forced = input["ForceDeleteWithoutRecovery"].as_bool().map(|forced| forced.to_string());
    own.says("secretsmanager:ForceDeleteWithoutRecovery", forced.as_deref());
    let tag = (operation == "CreateSecret" && !input["Tags"].is_null())
        .then(|| Need { action: "secretsmanager:TagResource".to_owned(), ..own.clone() });
    let key = input["KmsKeyId"].as_str().or_else(|| world.secrets.kms_key(id));
    let of_key: &[&str] = match operation {
        "CreateSecret" | "PutSecretValue" => &["kms:GenerateDataKey", "kms:Decrypt"],
        "GetSecretValue" | "ReplicateSecretToRegions" => &["kms:Decrypt"],
        _ => &[],
    };
    let of_key = key.into_iter().flat_map(|key| of_key.iter().map(move |action| via(world, action, key, "secretsmanager")));
    let of_key: Vec<_> = of_key.map(|need| need.of("SecretARN", &own.resource)).collect();
    let replicas = input["AddReplicaRegions"].as_array().map_or(&[][..], Vec::as_slice);
    let replicate = (operation == "CreateSecret" && !replicas.is_empty())
        .then(|| Need { action: "secretsmanager:ReplicateSecretToRegions".to_owned(), ..own.clone() });
    // <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ReplicateSecretToRegions.html>
    let of_replicas = replicas.iter().filter_map(|replica| Some((replica["Region"].as_str()?, replica["KmsKeyId"].as_str()?)));
    let of_replicas = of_replicas.flat_map(|(region, key)| {
        ["kms:GenerateDataKey", "kms:Encrypt"].map(|action| via_region(action, key, "secretsmanager", region))
    });
    [own].into_iter().chain(tag).chain(replicate).chain(of_key).chain(of_replicas).collect()
}

fn get_object(bucket: &str, key: &str, version: Option<&str>) -> Need {
    let action = if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" };
    need(action, format!("arn:aws:s3:::{bucket}/{key}"))
}

/// What S3 asks of KMS for an object of a bucket that a customer's key encrypts.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html>
fn of_object(world: &World, actions: &[&str], bucket: &str, key: &str) -> Vec<Need> {
    let arn = format!("arn:aws:s3:::{bucket}/{key}");
    let of_key = world.s3.kms_key(bucket).into_iter().flat_map(|key| actions.iter().map(move |action| (action, key)));
    of_key.map(|(action, key)| via(world, action, key, "s3").of("aws:s3:arn", &arn)).collect()
}

/// What a service asks of KMS with its caller's rights.
fn via(world: &World, action: &str, key: &str, service: &str) -> Need {
    via_region(action, key, service, &world.region)
}

fn via_region(action: &str, key: &str, service: &str, region: &str) -> Need {
    let mut need = need(action, key.to_owned());
    need.says("kms:ViaService", Some(&format!("{service}.{region}.amazonaws.com")));
    need
}

fn need(action: &str, resource: String) -> Need {
    Need { action: action.to_owned(), resource, context: BTreeMap::new() }
}

impl Need {
    fn says(&mut self, key: &str, value: Option<&str>) {
        self.context.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }

    /// With what a service gives KMS as encryption context.
    fn of(mut self, key: &str, value: &str) -> Self {
        self.says(&format!("kms:EncryptionContext:{key}"), Some(value));
        self
    }
}

/// IAM's wildcards: `*` is any text, `?` any one character.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([b'*', pattern @ ..], _) => (0..=text.len()).any(|at| matches(pattern, &text[at..])),
            ([b'?', pattern @ ..], [_, text @ ..]) => matches(pattern, text),
            ([wanted, pattern @ ..], [found, text @ ..]) => wanted == found && matches(pattern, text),
            _ => pattern.is_empty() && text.is_empty(),
        }
    }
    matches(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_holds_for_what_the_call_says_and_never_for_what_it_does_not_say() {
        let rows = [
            (json!({"StringEquals": {"events:source": "everleaf"}}), "events:source", "everleaf", true),
            (json!({"StringEquals": {"events:source": "everleaf"}}), "events:source", "everleaf2", false),
            (json!({"StringEquals": {"events:source": "ever*"}}), "events:source", "everleaf", false),
            (json!({"StringEquals": {"events:source": ["other", "everleaf"]}}), "events:source", "everleaf", true),
            (json!({"StringLike": {"aws:ResourceTag/a": "everleaf/*"}}), "aws:ResourceTag/a", "everleaf/orders", true),
            (json!({"StringLike": {"aws:ResourceTag/a": "everleaf/*"}}), "aws:ResourceTag/a", "everleaf2/orders", false),
            (json!({"StringLike": {"aws:ResourceTag/a": "*"}}), "aws:RequestTag/a", "everleaf/orders", false),
            (json!({"StringEquals": {"events:source": "a"}, "StringLike": {"kms:ViaService": "*"}}), "events:source", "a", false),
            (json!({"Bool": {"secretsmanager:ForceDeleteWithoutRecovery": "true"}}), "events:source", "true", false),
            (
                json!({"Bool": {"secretsmanager:ForceDeleteWithoutRecovery": "true"}}),
                "secretsmanager:ForceDeleteWithoutRecovery",
                "true",
                true,
            ),
            (json!({"Null": {"lambda:SourceFunctionArn": "true"}}), "events:source", "a", true),
            (json!({"Null": {"lambda:SourceFunctionArn": "false"}}), "events:source", "a", false),
            (json!({"Null": {"lambda:SourceFunctionArn": "false"}}), "lambda:SourceFunctionArn", "a", true),
        ];
        for (condition, key, value, holds) in rows {
            let mut put = need("events:PutEvents", "bus".to_owned());
            put.says(key, Some(value));
            let conditions = Condition::read(&condition).unwrap();
            let one = Statement { allow: true, actions: vec!["events:*".into()], resources: vec!["*".into()], conditions };
            assert_eq!(allows(&[one], &put), holds, "{condition} of {value}");
        }
    }

    #[test]
    fn a_condition_that_is_not_understood_is_refused_by_name() {
        let rows = [
            (json!({"StringNotEquals": {"events:source": "a"}}), "StringNotEquals"),
            (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}), "ForAllValues:StringEquals"),
            (json!({"StringEquals": {"ecs:cluster": "a"}}), "ecs:cluster"),
            (json!({"StringEquals": {"events:source": [1]}}), "events:source"),
        ];
        for (condition, named) in rows {
            assert!(Condition::read(&condition).unwrap_err().contains(named), "{condition}");
        }
    }
}
