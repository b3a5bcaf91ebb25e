//! What a call needs of its caller's role: <https://docs.aws.amazon.com/service-authorization/latest/reference/>.

use std::sync::Arc;

use local_aws::Call;
use local_aws::template::Function;
use serde_json::Value;

/// Why the role of the function that makes this call does not allow it; `None` when it does, or when a user makes the call.
pub(crate) fn denies(functions: &[Arc<Function>], call: &Call) -> Option<String> {
    let function = functions.iter().find(|function| function.binary == call.caller)?;
    let lacks = |(action, resource): (String, String)| {
        (!function.allows(&action, Some(&resource))).then(|| format!("the role of {} lacks {action} on {resource}", call.caller))
    };
    needs(call).into_iter().find_map(lacks).or_else(|| breaks_condition(function, call))
}

fn needs(call: &Call) -> Vec<(String, String)> {
    let text = |member: &str| call.input[member].as_str().unwrap_or_default().to_owned();
    let arn = |resource: String| format!("arn:aws:{}:{}:{}:{resource}", call.service, local_aws::REGION, local_aws::ACCOUNT);
    let table = |name: &str| arn(format!("table/{name}"));
    let secret = |name: String| arn(format!("secret:{name}-AbCd3F"));
    let resource = match (call.service, call.operation.as_str()) {
        ("acm", "ListCertificates") | ("secretsmanager", "ListSecrets") => "*".to_owned(),
        ("acm", "ImportCertificate") => {
            let known = Some(text("CertificateArn")).filter(|arn| !arn.is_empty());
            let certificate = known.unwrap_or_else(|| arn("certificate/new".to_owned()));
            let tags = (!call.input["Tags"].is_null()).then(|| ("acm:AddTagsToCertificate".to_owned(), certificate.clone()));
            return tags.into_iter().chain([(call.action(), certificate)]).collect();
        }
        ("acm", _) => text("CertificateArn"),
        ("acm-pca", _) => text("CertificateAuthorityArn"),
        ("dynamodb", "BatchGetItem") => {
            let tables = call.input["RequestItems"].as_object().into_iter().flatten();
            return tables.map(|(name, _)| (call.action(), table(name))).collect();
        }
        // It has no right of its own: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html>.
        ("dynamodb", "TransactWriteItems") => {
            let writes = call.input["TransactItems"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
            let table = |write: &Value| table(write["TableName"].as_str().unwrap_or_default());
            return writes.map(|(kind, write)| (format!("dynamodb:{kind}Item"), table(write))).collect();
        }
        ("dynamodb", "Query") if !call.input["IndexName"].is_null() => {
            format!("{}/index/{}", table(&text("TableName")), text("IndexName"))
        }
        ("dynamodb", _) => table(&text("TableName")),
        ("ecs", "UpdateService") => arn(format!("service/{}/{}", text("cluster"), text("service"))),
        ("ecs", _) => {
            let services = call.input["services"].as_array().into_iter().flatten().filter_map(Value::as_str);
            return services.map(|service| (call.action(), arn(format!("service/{}/{service}", text("cluster"))))).collect();
        }
        ("elasticloadbalancing", operation) if operation.starts_with("Describe") => "*".to_owned(),
        ("elasticloadbalancing", "CreateTrustStore") => arn(format!("truststore/{}/0123456789abcdef", text("Name"))),
        ("elasticloadbalancing", "ModifyListener") => text("ListenerArn"),
        ("elasticloadbalancing", _) => text("TrustStoreArn"),
        ("events", _) => arn("event-bus/default".to_owned()),
        // Whoever has the URL has the right.
        ("s3", _) if !call.input["Signature"].is_null() => return Vec::new(),
        ("s3", "ListObjectsV2") => return vec![("s3:ListBucket".to_owned(), format!("arn:aws:s3:::{}", text("Bucket")))],
        ("s3", operation) => {
            // A HEAD is a GET without the body.
            let action = operation.replace("Head", "Get");
            return vec![(format!("s3:{action}"), format!("arn:aws:s3:::{}/{}", text("Bucket"), text("Key")))];
        }
        ("secretsmanager", "CreateSecret") => secret(text("Name")),
        ("secretsmanager", _) => secret(text("SecretId")),
        _ => String::new(),
    };
    vec![(call.action(), resource)]
}

/// The conditions that a call can be held against by itself.
fn breaks_condition(function: &Function, call: &Call) -> Option<String> {
    let (key, given) = match call.operation.as_str() {
        "IssueCertificate" => ("acm-pca:TemplateArn", vec![&call.input["TemplateArn"]]),
        "PutEvents" => ("events:source", call.input["Entries"].as_array()?.iter().map(|entry| &entry["Source"]).collect()),
        _ => return None,
    };
    let statement = function.statements.iter().find(|statement| statement.actions.contains(&call.action()))?;
    let allowed = &statement.condition.as_ref()?["StringEquals"][key];
    let holds = |given: &Value| given == allowed || allowed.as_array().is_some_and(|allowed| allowed.contains(given));
    let other = given.into_iter().find(|given| !holds(given))?;
    Some(format!("the role of {} allows {} only for {allowed}, not for {other}", call.caller, call.action()))
}
