//! The keys of KMS under which others encrypt what the functions read and write.

use local_aws::s3;
use serde_json::{Value, json};
use workflow::Stack;

use crate::scenario::{CRL_KEY, KMS_KEY, act, days, minutes, order, request, run, user};
use crate::trust::{BUCKET, Site};

const ANOTHER: &str = "arn:aws:kms:eu-central-1:111122223333:key/00000000-1111-2222-3333-444444444444";
const THEIRS: &str = "arn:aws:kms:eu-central-1:444455556666:key/00000000-1111-2222-3333-444444444444";

async fn serial(stack: &Stack, name: &str) -> String {
    stack.record(name).await.unwrap().current.unwrap().serial.to_string()
}

async fn key(stack: &Stack, name: &str) -> Value {
    user(stack, "secretsmanager:DescribeSecret", json!({"SecretId": format!("everleaf/{name}")})).await["KmsKeyId"].clone()
}

/// A secret keeps the key that it was made with.
#[test]
fn a_stack_that_gets_another_key_or_none_renews_what_it_has_and_makes_new_secrets_under_the_new_one() {
    for (before, after) in [(KMS_KEY, ""), (KMS_KEY, ANOTHER), ("", THEIRS), (THEIRS, THEIRS)] {
        run(async {
            let mut stack = Stack::deploy_on("EC_prime256v1", &[("KmsKeyArn", before), ("SweepMinutes", "240")]).await;
            act(&stack, "issue-client-cert", order()).await;
            let arn = request(&stack, "gateway", false).await;
            minutes(5).await;
            let first = [serial(&stack, "orders").await, serial(&stack, "gateway").await];
            stack.update(&[("KmsKeyArn", after)]).await;
            user(&stack, "acm:RenewCertificate", json!({"CertificateArn": arn})).await;
            days(21).await;
            for (name, first) in ["orders", "gateway"].into_iter().zip(first) {
                assert_ne!(serial(&stack, name).await, first, "{name} from {before} to {after}");
                assert_eq!(key(&stack, name).await.as_str().unwrap_or_default(), before);
            }
            let later = json!({"name": "later", "subject": {"common_name": "later"}});
            act(&stack, "issue-client-cert", later).await;
            assert_eq!(key(&stack, "later").await.as_str().unwrap_or_default(), after);
        });
    }
}

#[test]
fn crls_in_a_bucket_under_a_customers_key_are_read_and_where_kms_denies_it_that_is_said() {
    run(async {
        let site = Site::with(&[]).await;
        site.stack.aws.world(|world, _| s3::encrypt_bucket(world, BUCKET, CRL_KEY));
        act(&site.stack, "issue-client-cert", order()).await;
        site.declare(site.declaration()).await;
        let serial = serial(&site.stack, "orders").await;
        act(&site.stack, "issue-client-cert", json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"}))
            .await;
        days(1).await;
        assert_ne!(site.client("orders", "AWSPREVIOUS"), "Success");
        let mut statements = site.stack.template.function("refresh-truststore").unwrap().statements.clone();
        statements.retain(|statement| !statement.conditions.iter().any(|condition| condition.key.ends_with("aws:s3:arn")));
        site.stack.aws.set_role("refresh-truststore", statements);
        let denied = site.stack.handle("refresh-truststore", json!({"refresh": true}), "denied").await.unwrap_err();
        for said in ["not authorized to perform: kms:Decrypt", CRL_KEY, "CrlBucketArns"] {
            assert!(denied.error_message.contains(said), "{said}: {denied:?}");
        }
    });
}
