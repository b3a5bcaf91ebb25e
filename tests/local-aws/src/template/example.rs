//! `examples/private-ca.yaml`, made as CloudFormation makes it: whatever needs nothing that is still missing is made at once.

use std::collections::{BTreeMap, BTreeSet};

use time::Duration;

use super::stack::{Stack, from_yaml, string};
use super::*;
use crate::iam::like;
use crate::pca::tests::{Account, base64};
use crate::s3;

const EXAMPLE: &str = include_str!("../../../../examples/private-ca.yaml");

struct Made {
    account: Account,
    /// The attributes of resources, such as `RootCa.Arn`.
    attributes: BTreeMap<String, String>,
    /// The statement of the bucket's policy.
    statement: Value,
}

fn made(parameters: &[(&str, &str)]) -> Made {
    let stack = Stack::new(source(), "everleaf-ca", parameters).expect("a stack");
    let mut made = Made { account: Account::new(), attributes: BTreeMap::new(), statement: Value::Null };
    let mut done = BTreeSet::new();
    while done.len() < stack.resources.len() {
        let ready = |(id, resource): &(&String, &Value)| !done.contains(*id) && needs(&stack, resource).is_subset(&done);
        // From Z to A, so that the alphabet does not order what the template leaves open.
        let ready: Vec<_> = stack.resources.iter().filter(ready).rev().collect();
        assert!(!ready.is_empty(), "no way to make more than {done:?}");
        for (id, resource) in &ready {
            let properties = stack.resolved(&filled(&resource["Properties"], &made.attributes)).expect("properties");
            made.make(&stack, id, &string(&resource["Type"]).expect("a type"), &properties);
        }
        done.extend(ready.into_iter().map(|(id, _)| id.clone()));
    }
    made
}

fn source() -> Value {
    from_yaml(serde_yaml_ng::from_str(EXAMPLE).expect("YAML")).expect("a template")
}

/// The resources that a piece of the template names.
fn needs(stack: &Stack, value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(map) => map.values().flat_map(|value| needs(stack, value)).collect(),
        Value::Array(items) => items.iter().flat_map(|item| needs(stack, item)).collect(),
        Value::String(text) => {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.filter(|word| stack.resources.contains_key(*word)).map(str::to_owned).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// With the attributes that are known.
fn filled(value: &Value, attributes: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => match map.get("Fn::GetAtt").and_then(|name| attributes.get(name.as_str()?)) {
            Some(attribute) => json!(attribute),
            None => map.iter().map(|(key, value)| (key.clone(), filled(value, attributes))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, attributes)).collect(),
        scalar => scalar.clone(),
    }
}

impl Made {
    fn make(&mut self, stack: &Stack, id: &str, kind: &str, properties: &Value) {
        let authority = properties["CertificateAuthorityArn"].clone();
        let number = |value: &Value| json!(string(value).ok().and_then(|text| text.parse::<i64>().ok()));
        match kind {
            "AWS::S3::Bucket" => s3::create_bucket(&mut self.account.world, &stack.name(id).expect("a name")),
            "AWS::S3::BucketPolicy" => self.statement = properties["PolicyDocument"]["Statement"][0].clone(),
            "AWS::ACMPCA::CertificateAuthority" => {
                let mut revocation = properties["RevocationConfiguration"].clone();
                let crl = &mut revocation["CrlConfiguration"];
                crl["ExpirationInDays"] = number(&crl["ExpirationInDays"]);
                let arn = self.account.pca(
                    "CreateCertificateAuthority",
                    json!({
                        "CertificateAuthorityType": properties["Type"], "UsageMode": properties["UsageMode"],
                        "CertificateAuthorityConfiguration": properties, "RevocationConfiguration": revocation,
                    }),
                )["CertificateAuthorityArn"]
                    .clone();
                self.may_write(&revocation["CrlConfiguration"]["S3BucketName"], &arn);
                self.account.wait(Duration::seconds(5));
                let csr = self.account.pca("GetCertificateAuthorityCsr", json!({"CertificateAuthorityArn": arn}));
                self.learn(id, "Arn", &arn);
                self.learn(id, "CertificateSigningRequest", &csr["Csr"]);
            }
            "AWS::ACMPCA::Certificate" => {
                let mut order = properties.clone();
                order["Csr"] = base64(&string(&properties["CertificateSigningRequest"]).expect("a CSR"));
                order["Validity"]["Value"] = number(&properties["Validity"]["Value"]);
                let arn = self.account.pca("IssueCertificate", order)["CertificateArn"].clone();
                self.account.wait(Duration::seconds(5));
                let get = json!({"CertificateAuthorityArn": authority, "CertificateArn": arn});
                let issued = self.account.pca("GetCertificate", get);
                self.learn(id, "Certificate", &issued["Certificate"]);
            }
            "AWS::ACMPCA::CertificateAuthorityActivation" => {
                assert_eq!(properties["Status"], "ACTIVE");
                let texts = [&properties["Certificate"], &properties["CertificateChain"]];
                let texts: Vec<&str> = texts.into_iter().filter_map(Value::as_str).collect();
                let mut import = json!({"CertificateAuthorityArn": authority, "Certificate": base64(texts[0])});
                if let Some(chain) = texts.get(1) {
                    import["CertificateChain"] = base64(chain);
                }
                self.account.pca("ImportCertificateAuthorityCertificate", import);
                self.learn(id, "CompleteCertificateChain", &json!(texts.join("\n")));
            }
            "AWS::ACMPCA::Permission" => drop(self.account.pca("CreatePermission", properties.clone())),
            _ => panic!("{kind}"),
        }
    }

    fn learn(&mut self, id: &str, attribute: &str, value: &Value) {
        self.attributes.insert(format!("{id}.{attribute}"), string(value).expect("a text"));
    }

    /// Whether the policy lets the CA do with the bucket what AWS asks for:
    /// <https://docs.aws.amazon.com/privateca/latest/userguide/crl-planning.html#s3-policies>.
    fn may_write(&self, bucket: &Value, authority: &Value) {
        let bucket = format!("arn:aws:s3:::{}", string(bucket).expect("a name"));
        let condition = &self.statement["Condition"];
        assert_eq!(self.statement["Effect"], "Allow");
        assert_eq!(self.statement["Principal"], json!({"Service": "acm-pca.amazonaws.com"}));
        assert_eq!(self.statement["Resource"], json!([bucket, format!("{bucket}/*")]));
        let actions = json!(["s3:PutObject", "s3:PutObjectAcl", "s3:GetBucketAcl", "s3:GetBucketLocation"]);
        assert_eq!(self.statement["Action"], actions);
        assert_eq!(condition["StringEquals"]["aws:SourceAccount"], json!(self.account.world.account));
        let source = string(&condition["ArnLike"]["aws:SourceArn"]).expect("a pattern");
        assert!(like(&source, &string(authority).expect("an ARN")), "{source}");
    }
}

#[test]
fn the_example_makes_cas_that_issue_and_publish_crls() {
    let rows = [
        ("RSA_2048", "SHA256WITHRSA", "GENERAL_PURPOSE"),
        ("EC_prime256v1", "SHA256WITHECDSA", "SHORT_LIVED_CERTIFICATE"),
        ("EC_prime256v1", "SHA256WITHECDSA", "GENERAL_PURPOSE"),
        ("EC_secp384r1", "SHA384WITHECDSA", "GENERAL_PURPOSE"),
    ];
    for (key_algorithm, signing_algorithm, mode) in rows {
        let general = mode == "GENERAL_PURPOSE";
        let parameters = [("Organization", "Example Ltd"), ("KeyAlgorithm", key_algorithm), ("IssuingMode", mode)];
        let Made { mut account, attributes, .. } = made(&parameters);
        let (root, issuing) = (&attributes["RootCa.Arn"], &attributes["IssuingCa.Arn"]);
        account.wait(Duration::minutes(1));
        for (arn, mode) in [(root, "GENERAL_PURPOSE"), (issuing, mode)] {
            let this = json!({"CertificateAuthorityArn": arn});
            let authority = account.pca("DescribeCertificateAuthority", this)["CertificateAuthority"].clone();
            assert_eq!((&authority["Status"], &authority["UsageMode"]), (&json!("ACTIVE"), &json!(mode)));
            assert_eq!(authority["CertificateAuthorityConfiguration"]["SigningAlgorithm"], signing_algorithm);
            let crl = &authority["RevocationConfiguration"]["CrlConfiguration"];
            let key = format!("crl/{}.crl", arn.rsplit('/').next().expect("an identifier"));
            assert!(account.world.s3.object(crl["S3BucketName"].as_str().expect("a bucket"), &key).is_some());
        }
        let permissions = account.pca("ListPermissions", json!({"CertificateAuthorityArn": issuing}));
        assert_eq!(permissions["Permissions"].as_array().map(Vec::len), Some(usize::from(general)));
        let request = json!({"DomainName": "a.example.org", "CertificateAuthorityArn": issuing, "KeyAlgorithm": key_algorithm});
        let this = json!({"CertificateArn": account.acm("RequestCertificate", request)["CertificateArn"]});
        account.wait(Duration::minutes(1));
        let status = account.acm("DescribeCertificate", this)["Certificate"]["Status"].clone();
        assert_eq!(status, if general { "ISSUED" } else { "FAILED" });
    }
}

#[test]
fn the_example_leaves_the_cas_at_work_when_its_stack_is_deleted() {
    for (id, resource) in source()["Resources"].as_object().expect("resources") {
        // Nothing happens to a CA when its certificate's resource is deleted.
        let kept = resource["Type"] != "AWS::ACMPCA::Certificate";
        // What a creation that failed would leave costs as much as what is used.
        for (policy, keeps) in [("DeletionPolicy", "RetainExceptOnCreate"), ("UpdateReplacePolicy", "Retain")] {
            assert_eq!(resource[policy] == keeps, kept, "{policy} of {id}");
        }
    }
}
