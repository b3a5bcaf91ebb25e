//! Two stacks in one account and region: each lives as if the other were not there.

use std::collections::{BTreeMap, BTreeSet};

use local_aws::{Call, elbv2, s3};
use serde_json::{Value, json};
use workflow::Stack;

use crate::scenario::{act, days, minutes, order, run, service, user};

const OTHER: &str = "second";

/// A stack's names for what both have, and what its functions may not be seen to name.
struct Side<'a> {
    stack: &'a Stack,
    prefix: &'a str,
    service: &'a str,
    store: &'a str,
    listener: String,
}

impl Side<'_> {
    fn environment(&self, name: &str) -> &str {
        &self.stack.template.function("refresh-truststore").unwrap().environment[name]
    }

    /// What is this side's own, as it stands in the input of a call.
    fn marks(&self) -> Vec<String> {
        let marks = [
            &format!("{}/orders", self.prefix),
            &format!("{}/web", self.prefix),
            self.environment("EVERLEAF_TABLE"),
            self.environment("EVERLEAF_BUCKET"),
            &self.listener,
            self.service.rsplit('/').next().unwrap(),
            self.store,
        ];
        marks.map(|mark| format!("\"{mark}\"")).into()
    }

    /// The certificate of ACM.
    async fn begin(&self) -> String {
        service(self.stack, self.service, &[]).await;
        let mut order = order();
        order["services"] = json!([self.service]);
        act(self.stack, "issue-client-cert", order).await;
        let declaration = json!({
            "name": self.store, "certificate_authority_arns": [self.stack.issuing_ca],
            "listeners": [{"listener_arn": self.listener, "clients": ["orders"]}],
        });
        act(self.stack, "refresh-truststore", json!({"declare": declaration})).await;
        let input = json!({
            "DomainName": "web.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": self.stack.issuing_ca,
            "Tags": [{"Key": "everleaf:certificate", "Value": format!("{}/web", self.prefix)}],
        });
        let web = user(self.stack, "acm:RequestCertificate", input).await;
        minutes(10).await;
        web["CertificateArn"].as_str().unwrap().to_owned()
    }

    fn serials(&self) -> BTreeMap<String, Value> {
        let of = |name: &str| {
            let secret = format!("{}/{name}", self.prefix);
            let tags = self.stack.aws.world(|world, _| world.secrets.find(&secret).map(|secret| secret.tags.clone()));
            (name.to_owned(), json!(tags.unwrap()["everleaf:serial"]))
        };
        ["orders", "web"].map(of).into()
    }
}

fn is_of(call: &Call, prefix: &str) -> bool {
    call.caller.starts_with(&format!("{OTHER}-")) == (prefix == OTHER) && call.caller != "user"
}

#[test]
fn two_stacks_live_side_by_side_for_weeks_and_neither_reads_or_writes_what_is_the_others() {
    run(async {
        let parameters = [("CrlBucketArns", "arn:aws:s3:::crls"), ("SweepMinutes", "240")];
        let first = Stack::deploy_on("EC_prime256v1", &parameters).await;
        let second = first.beside(OTHER, &parameters).await;
        let listener = |balancer: &str| first.aws.world(|world, now| elbv2::create_listener(world, now, balancer, 8443));
        first.aws.world(|world, now| {
            s3::create_bucket(world, "crls");
            local_aws::pca::enable_crl(world, now, &first.issuing_ca, "crls", 7).unwrap();
        });
        let sides = [
            Side {
                stack: &first,
                prefix: "everleaf",
                service: "payments/first",
                store: "customers",
                listener: listener("customers"),
            },
            Side { stack: &second, prefix: OTHER, service: "shipping/second", store: "partners", listener: listener("partners") },
        ];
        sides[0].begin().await;
        let web = sides[1].begin().await;
        let before = sides.each_ref().map(Side::serials);
        first.aws.take_events();
        let mut calls = first.aws.take_calls();
        days(25).await;
        // ACM tells both of one stack's certificate, ECS of one stack's service, the CA of its CRL.
        user(&second, "acm:RenewCertificate", json!({"CertificateArn": web})).await;
        let serial = second.record("orders").await.unwrap().previous.unwrap().serial;
        act(&second, "issue-client-cert", json!({"revoke": "orders", "serial_number": serial, "reason": "SUPERSEDED"})).await;
        days(10).await;
        calls.extend(first.aws.take_calls());
        let after = sides.each_ref().map(Side::serials);
        for (name, [first, second]) in [("orders", [true, true]), ("web", [false, true])] {
            let renewed = [0, 1].map(|side| before[side][name] != after[side][name]);
            assert_eq!(renewed, [first, second], "{name}: {before:?} {after:?}");
        }
        for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            let mine: Vec<_> = calls.iter().filter(|call| is_of(call, own.prefix)).collect();
            assert!(mine.iter().all(|call| call.error.as_ref().is_none_or(|error| !error.starts_with("AccessDenied"))));
            for mark in own.marks() {
                assert!(mine.iter().any(|call| call.input.to_string().contains(&mark)), "{} never names {mark}", own.prefix);
            }
            for call in mine {
                let input = call.input.to_string();
                let theirs: Vec<_> = other.marks().into_iter().filter(|mark| input.contains(mark)).collect();
                assert!(theirs.is_empty(), "{} names {theirs:?} in {} of {input}", own.prefix, call.action());
            }
        }
        let events = first.aws.take_events();
        let prefixes: BTreeSet<_> = events.iter().filter_map(|event| event.event["detail"]["prefix"].as_str()).collect();
        assert_eq!(prefixes, ["everleaf", OTHER].into());
        for event in events.iter().filter(|event| event.event["source"] == "everleaf") {
            let prefix = event.event["detail"]["prefix"].as_str().unwrap();
            assert!(event.functions.iter().all(|function| function.starts_with(prefix)), "{event:?}");
            assert_ne!(event.event["detail-type"], "Action Required", "{event:?}");
        }
    });
}

#[test]
fn no_two_stacks_share_a_name_of_what_they_deploy() {
    run(async {
        let first = Stack::deploy().await;
        let second = first.beside(OTHER, &[]).await;
        let names = |stack: &Stack| {
            let mut names: Vec<String> = Vec::new();
            for function in &stack.template.functions {
                names.push(function.arn.clone());
                names.extend(function.rules.iter().map(|rule| rule.arn.clone()));
                names.extend(function.schedules.iter().map(|schedule| schedule.arn.clone()));
            }
            names.extend(stack.template.tables.iter().map(|table| table["TableName"].to_string()));
            names.extend(stack.template.queues.iter().map(|queue| queue.arn.clone()));
            names.extend(stack.template.buckets.iter().map(|bucket| bucket.name.clone()));
            names.extend(stack.template.outputs.values().cloned());
            names
        };
        let (first, second) = (names(&first), names(&second));
        assert_eq!(first.len(), second.len());
        let shared: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
        assert!(first.len() > 20 && shared.is_empty(), "{shared:?}");
    });
}
