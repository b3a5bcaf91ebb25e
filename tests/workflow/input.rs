//! Bad input of any kind: one clear error that names field and remedy, and nothing is changed.

use serde_json::{Value, json};
use workflow::Stack;

use crate::scenario::{minutes, run};

#[test]
fn bad_input_gets_one_permanent_error_that_says_what_to_do_and_changes_nothing() {
    let acm = |resource: &str| json!({"detail-type": "ACM Certificate Available", "source": "aws.acm", "resources": [resource], "detail": {}});
    let ours = |detail_type: &str, detail: Value| json!({"detail-type": detail_type, "source": "everleaf", "resources": [], "detail": detail});
    let stranger = ours("Certificate Renamed", json!({"prefix": "everleaf"}));
    let unknown = "neither the table nor a secret knows it";
    run(async {
        let stack = Stack::deploy().await;
        // The first sweep comes with the schedule itself.
        minutes(5).await;
        for (function, event, says) in [
            ("issue-client-cert", json!(null), &["not a JSON object", "`name`"][..]),
            ("issue-client-cert", json!([]), &["not a JSON object"]),
            ("issue-client-cert", json!({}), &["name: is missing", "subject: is empty"]),
            (
                "issue-client-cert",
                json!({"name": "a b", "key_algorithm": "RSA_1024", "usage": "both", "validity": {"weeks": 1}, "color": "red"}),
                &[
                    "name: `a b`",
                    "key_algorithm: `RSA_1024` is not one of EC_prime256v1",
                    "usage: `both`",
                    "validity:",
                    "color: is not a field",
                ],
            ),
            ("issue-client-cert", json!({"name": "x", "csr": "no PEM"}), &["csr: the CSR is not readable"]),
            (
                "issue-client-cert",
                json!({"name": "x", "subject": {"common_name": "x"}, "certificate_authority_arn":
                    "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/00000000-0000-4000-8000-000000000000"}),
                &["certificate_authority_arn:", "AllowedCaArns"],
            ),
            ("issue-client-cert", stranger.clone(), &["`Certificate Renamed` is not for this function", "mend the rule"]),
            ("issue-client-cert", ours("Certificate Due", json!({"prefix": "everleaf"})), &["failed to read the request"]),
            (
                "issue-client-cert",
                ours("Certificate Due", json!({"prefix": "everleaf", "certificate": "ghost"})),
                &["`ghost`", unknown],
            ),
            ("export-to-secrets", json!({}), &["give either `certificate` (its name) or `certificate_arn`"]),
            ("export-to-secrets", json!({"arn": "x"}), &["unknown field `arn`"]),
            ("export-to-secrets", json!({"certificate_arn": "x"}), &["`x` is not an ARN"]),
            ("export-to-secrets", json!({"certificate": "ghost"}), &["`ghost`", "tag the certificate in ACM"]),
            ("export-to-secrets", acm("arn:aws:s3:::bucket"), &["arn:aws:acm:region:account:certificate/"]),
            ("export-to-secrets", stranger.clone(), &["not for this function"]),
            ("renew-on-expiry", json!({}), &["{\"sweep\": true}"]),
            ("renew-on-expiry", json!({"sweep": true, "certificate": "x"}), &["give either"]),
            ("renew-on-expiry", json!({"certificate": "ghost"}), &["`ghost`", unknown]),
            ("renew-on-expiry", stranger.clone(), &["not for this function"]),
            ("force-redeploy", json!({}), &["give either `certificate`"]),
            ("force-redeploy", json!({"services": ["orders"]}), &["`orders` is not a service", "cluster/service"]),
            ("force-redeploy", json!({"services": ["payments/ghost"]}), &["payments/ghost", "no certificate is bound to it"]),
            ("force-redeploy", json!({"certificate": "ghost"}), &["`ghost`", "no such certificate"]),
            ("force-redeploy", stranger, &["not for this function"]),
        ] {
            stack.aws.take_calls();
            let error = stack.handle(function, event.clone(), "request").await.expect_err(&event.to_string());
            assert_eq!(error.error_type, "Permanent", "{function} {event}: {}", error.error_message);
            for part in says {
                assert!(error.error_message.contains(part), "{function} {event}: `{part}` is not in: {}", error.error_message);
            }
            let writes: Vec<_> =
                stack.aws.take_calls().into_iter().filter(local_aws::Call::writes).map(|call| call.action()).collect();
            assert!(writes.is_empty(), "{function} {event}: {writes:?}");
        }
    });
}

#[test]
fn the_issuance_policy_of_the_stack_refuses_with_every_reason_at_once() {
    run(async {
        let parameters =
            [("AllowedNames", "example.internal"), ("AllowedTrustDomains", "example.internal"), ("MaxValidityDays", "30")];
        let stack = Stack::deploy_with(&[&parameters[..], &[("AllowedKeyAlgorithms", "EC_prime256v1")]].concat()).await;
        let request = json!({
            "name": "orders", "subject": {"common_name": "orders.example.com"}, "key_algorithm": "RSA_2048", "validity": {"days": 31},
            "subject_alternative_names": ["dns:orders.evilexample.internal", "uri:spiffe://example.com/orders", "ip:10.0.0.1"],
        });
        let error = stack.handle("issue-client-cert", request, "request").await.unwrap_err().error_message;
        for part in
            ["subject.common_name:", "evilexample.internal", "spiffe://example.com", "ip:10.0.0.1", "key_algorithm:", "31 days"]
        {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    });
}
