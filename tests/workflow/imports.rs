//! Certificates that ACM holds too: what a listener serves follows the secret, under the ARN that it was given.

use std::sync::Arc;

use lifecycle::leaf::Serial;
use local_aws::elbv2;
use serde_json::{Value, json};
use tokio::sync::Notify;
use workflow::Stack;

use crate::account::{assert_settled, imported};
use crate::recovery::empty_the_table;
use crate::scenario::{
    act, days, imported_by_hand, last_event, lose_deliveries, minutes, order_for_listener, request, run, self_made, self_signed,
    user,
};

/// The serial that ACM holds under this ARN.
async fn held(stack: &Stack, arn: &Value) -> Serial {
    let described = user(stack, "acm:DescribeCertificate", json!({"CertificateArn": arn})).await;
    Serial::from_hex(described["Certificate"]["Serial"].as_str().unwrap())
}

async fn current(stack: &Stack, name: &str) -> Serial {
    stack.record(name).await.unwrap().current.unwrap().serial
}

async fn tags(stack: &Stack, arn: &Value) -> Value {
    user(stack, "acm:ListTagsForCertificate", json!({"CertificateArn": arn})).await["Tags"].clone()
}

async fn issue(stack: &Stack, changes: Value) -> Result<Value, String> {
    let mut order = order_for_listener();
    for (field, value) in changes.as_object().unwrap() {
        order[field] = value.clone();
    }
    stack.handle("issue-client-cert", order, "by hand").await.map_err(|error| error.error_message)
}

/// Somebody imports a certificate of theirs under this ARN.
async fn import_over(stack: &Stack, arn: &Value) {
    let mut theirs = self_made(stack, "theirs", 300, vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    theirs["CertificateArn"] = arn.clone();
    user(stack, "acm:ImportCertificate", theirs).await;
}

/// Tells when ACM is asked to import.
fn import_begun(stack: &Stack) -> Arc<Notify> {
    let begun = Arc::new(Notify::new());
    let begins = begun.clone();
    stack.aws.set_faults(Some(Box::new(move |call| {
        if call.operation == "ImportCertificate" {
            begins.notify_one();
        }
        None
    })));
    begun
}

/// The function has ACM import for the first time, and never hears that it did.
async fn import_unanswered(stack: &Stack) {
    // ACM takes one import a second.
    minutes(1).await;
    stack.aws.set_faults(Some(Box::new(|call| {
        let first = call.operation == "ImportCertificate" && call.input["CertificateArn"].is_null();
        first.then_some(local_aws::Fault::Crash)
    })));
    tokio::select! {
        () = stack.aws.hung() => {}
        answer = issue(stack, json!({})) => panic!("{answer:?}"),
    }
    stack.aws.set_faults(None);
}

#[test]
fn an_import_whose_tag_is_refused_is_recorded_and_not_repeated() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let refuse = local_aws::AwsError::new("AccessDeniedException", "an explicit deny in a service control policy");
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == "TagResource").then(|| local_aws::Fault::Refuse(refuse.clone()))
        })));
        let answer = issue(&stack, json!({})).await.unwrap();
        assert!(answer["acm_certificate_arn"].is_string(), "{answer}");
        minutes(60 * 5).await;
        let calls = stack.aws.take_calls();
        assert_eq!(calls.iter().filter(|call| call.operation == "ImportCertificate").count(), 1);
        let told = stack.aws.take_events().into_iter().filter(|it| it.event["detail-type"] == "Action Required");
        let told: Vec<_> = told.map(|it| it.event["detail"]["reason"].to_string()).collect();
        assert!(told.iter().any(|reason| reason.contains("tag the secret of `orders`")), "{told:#?}");
    });
}

#[test]
fn a_listener_serves_what_is_current_after_each_renewal_and_nobody_touches_it() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        user(&stack, "acm:AddTagsToCertificate", json!({"CertificateArn": arn, "Tags": [{"Key": "team", "Value": "web"}]})).await;
        let listener = stack.aws.world(|world, now| elbv2::create_listener(world, now, "clients", 8443));
        let certificates = json!([{"CertificateArn": arn}]);
        let change = json!({"ListenerArn": listener, "Certificates": certificates});
        user(&stack, "elasticloadbalancing:ModifyListener", change).await;
        let tagged = tags(&stack, &arn).await;

        let mut serials = vec![current(&stack, "orders").await];
        for _ in 0..4 {
            days(22).await;
            serials.push(current(&stack, "orders").await);
            assert_eq!(Some(&held(&stack, &arn).await), serials.last());
        }
        serials.dedup();
        assert_eq!(serials.len(), 5);
        assert_eq!(tags(&stack, &arn).await, tagged);
        assert_eq!(imported(&stack, "orders").await.len(), 1);
        let listeners = user(&stack, "elasticloadbalancing:DescribeListeners", json!({"ListenerArns": [listener]})).await;
        assert_eq!(listeners["Listeners"][0]["Certificates"], certificates);
        assert_settled(&stack, "after four renewals").await;
    });
}

#[test]
fn what_was_imported_by_hand_is_replaced_under_its_arn_before_it_expires_though_every_event_is_lost() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        // Of AWS's events none comes.
        stack.aws.set_deliveries(Some(Box::new(|event, _| match event["source"].as_str() {
            Some("aws.acm") => Vec::new(),
            _ => vec![std::time::Duration::ZERO],
        })));
        let arn = json!(self_signed(&stack, "web", 90).await);
        let (first, tagged) = (held(&stack, &arn).await, tags(&stack, &arn).await);
        days(59).await;
        assert_eq!((held(&stack, &arn).await, stack.record("web").await.unwrap().current), (first.clone(), None));
        days(2).await;
        let second = held(&stack, &arn).await;
        assert_ne!(second, first);
        assert_eq!((current(&stack, "web").await, tags(&stack, &arn).await), (second.clone(), tagged));
        // Its common name alone would not do for today's clients. It lives as long as the one it replaces did.
        let described = user(&stack, "acm:DescribeCertificate", json!({"CertificateArn": arn})).await["Certificate"].clone();
        assert_eq!(described["SubjectAlternativeNames"], json!(["web.example.com"]));
        assert!(described["Issuer"].as_str().unwrap().contains("Example Issuing CA"), "{described:#}");
        let lifetime = stack.record("web").await.unwrap().specification().unwrap().lifetime;
        assert_eq!(lifetime.as_secs(), 90 * 24 * 60 * 60);

        days(65).await;
        assert_ne!(held(&stack, &arn).await, second);
        assert_settled(&stack, "adopted and renewed").await;
    });
}

#[test]
fn what_is_not_replaced_by_itself_says_which_request_replaces_it() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[("AllowedNames", "example.internal")]).await;
        let arn = json!(self_signed(&stack, "web", 90).await);
        days(62).await;
        let event = last_event(&stack, "Action Required");
        let reason = event["detail"]["reason"].as_str().unwrap();
        assert!(reason.contains("web.example.com") && reason.contains(&format!("\"import_to_acm\": {arn}")), "{reason}");
        assert_eq!(stack.record("web").await.unwrap().current, None);

        let answer = issue(&stack, json!({"name": "web", "import_to_acm": arn})).await.unwrap();
        assert_eq!((&answer["outcome"], &answer["acm_certificate_arn"]), (&json!("issued"), &arn));
        assert_eq!(held(&stack, &arn).await, current(&stack, "web").await);
    });
}

#[test]
fn a_person_is_told_that_what_is_to_be_replaced_in_acm_ends_though_its_replacement_has_begun() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = self_signed(&stack, "web", 90).await;
        days(59).await;
        // The CA takes each order and comes to nothing.
        stack.aws.set_faults(Some(Box::new(|call| {
            let failed = local_aws::AwsError::new("RequestFailedException", "The certificate could not be issued.");
            (call.operation == "GetCertificate" && call.service == "acm-pca").then_some(local_aws::Fault::Refuse(failed))
        })));
        for (passes, code) in [(18, "renewal-late"), (15, "expired")] {
            stack.aws.take_events();
            days(passes).await;
            let record = stack.record("web").await.unwrap();
            assert!(!record.is_adopted() && record.acm_certificate().is_some_and(|held| held.to_string() == arn), "{record:#?}");
            let told = stack
                .aws
                .take_events()
                .into_iter()
                .filter_map(|event| event.event["detail"]["reason"].as_str().map(str::to_owned));
            let told: Vec<_> = told.filter(|reason| reason.starts_with(code)).collect();
            assert!((2..=3).contains(&told.len()), "{code}: {told:?}");
        }
    });
}

#[test]
fn what_acm_would_not_let_be_replaced_is_refused_and_told_and_nothing_is_issued() {
    use rcgen::ExtendedKeyUsagePurpose::{CodeSigning, ServerAuth};
    for (usages, why) in [
        (vec![], "has no key usage, and ACM adds none"),
        (vec![ServerAuth, CodeSigning], "has the extended key usage CODE_SIGNING, and ACM lets go of none"),
    ] {
        run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            let arn = json!(imported_by_hand(&stack, "web", self_made(&stack, "web", 90, usages.clone())).await);
            let first = held(&stack, &arn).await;
            let refusal = issue(&stack, json!({"name": "web", "import_to_acm": arn})).await.unwrap_err();
            assert!(refusal.contains("import_to_acm: ") && refusal.contains(why), "{refusal}");
            days(63).await;
            let events: Vec<Value> = stack.aws.take_events().into_iter().map(|event| event.event).collect();
            assert!(events.iter().all(|event| event["detail-type"] != "Certificate Due"), "{events:#?}");
            let told: Vec<_> = events.iter().filter(|event| event["detail-type"] == "Action Required").collect();
            let reason = |event: &Value| event["detail"]["reason"].as_str().unwrap().to_owned();
            let is_told = |event: &&Value| reason(event).starts_with("adoption-refused: ") && reason(event).contains(why);
            assert!((3..=4).contains(&told.len()) && told.iter().all(is_told), "{told:#?}");
            assert_eq!((held(&stack, &arn).await, stack.record("web").await.unwrap().current), (first, None));
            assert_eq!(stack.aws.world(|world, _| world.secrets.secrets().count()), 0);
        });
    }
}

#[test]
fn a_certificate_is_replaced_only_when_its_owner_has_tagged_it_so_and_acm_will_take_it() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let of_acm = request(&stack, "gateway", false).await;
        let foreign = self_signed(&stack, "web", 90).await;
        lose_deliveries(&stack);
        let untouched = (held(&stack, &json!(foreign)).await, stack.aws.world(|world, _| world.secrets.secrets().count()));
        let gone = format!("{}00000000-0000-0000-0000-000000000000", foreign.split_at(foreign.len() - 36).0);
        for (changes, why) in [
            (json!({"import_to_acm": foreign}), "tag it `everleaf:certificate` = `everleaf/orders` first"),
            (json!({"import_to_acm": gone}), "tag it `everleaf:certificate` = `everleaf/orders` first"),
            (json!({"name": "gateway", "import_to_acm": of_acm}), "was not imported; ACM renews it by itself"),
            (json!({"name": "web", "import_to_acm": foreign, "key_algorithm": "RSA_2048"}), "has a key of EC_prime256v1"),
        ] {
            let refusal = issue(&stack, changes.clone()).await.unwrap_err();
            assert!(refusal.contains("import_to_acm: ") && refusal.contains(why), "{changes}: {refusal}");
        }
        // The sweep has seen it, and no request names it.
        let event = json!({"detail-type": "ACM Certificate Approaching Expiration", "source": "aws.acm", "resources": [foreign], "detail": {}});
        stack.handle("renew-on-expiry", event, "event").await.unwrap();
        assert!(stack.record("web").await.is_some_and(|record| record.is_adopted()));
        let changes = json!({"name": "web", "import_to_acm": true, "key_algorithm": "RSA_2048"});
        let refusal = issue(&stack, changes).await.unwrap_err();
        assert!(refusal.contains("has a key of EC_prime256v1"), "{refusal}");
        let after = (held(&stack, &json!(foreign)).await, stack.aws.world(|world, _| world.secrets.secrets().count()));
        assert_eq!(after, untouched);
        assert!(stack.record("orders").await.is_none());
    });
}

#[test]
fn what_somebody_else_imported_over_it_is_put_right_within_a_day() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        minutes(1).await;
        import_over(&stack, &arn).await;
        assert_ne!(held(&stack, &arn).await, current(&stack, "orders").await);
        days(1).await;
        minutes(10).await;
        assert_eq!(held(&stack, &arn).await, current(&stack, "orders").await);
    });
}

#[test]
fn what_somebody_else_imported_is_put_right_though_the_ca_refuses_the_next_pair_and_it_is_not_asked_again_for_that() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        let ca = stack.issuing_ca.clone();
        stack.aws.world(|world, now| local_aws::pca::enable(world, now, &ca, false)).unwrap();
        // Due after twenty days.
        days(22).await;
        let halted = stack.record("orders").await.unwrap().halted;
        assert!(halted.is_some());
        lose_deliveries(&stack);
        import_over(&stack, &arn).await;
        stack.aws.take_calls();
        act(&stack, "renew-on-expiry", json!({"certificate": "orders"})).await;
        let due = last_event(&stack, "Certificate Due");
        assert!(due["detail"]["reason"].as_str().unwrap().starts_with("ACM holds serial"), "{due}");
        assert_eq!(act(&stack, "issue-client-cert", due).await["outcome"], "unchanged");
        assert!(stack.aws.take_calls().iter().all(|call| call.operation != "IssueCertificate"));
        assert_eq!(held(&stack, &arn).await, current(&stack, "orders").await);
        assert_eq!(stack.record("orders").await.unwrap().halted, halted);
    });
}

#[test]
fn what_somebody_deleted_in_acm_is_imported_anew_and_a_person_is_told() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let first = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        user(&stack, "acm:DeleteCertificate", json!({"CertificateArn": first})).await;
        // IAM grants a reimport by the tag of what is there.
        let denied = local_aws::AwsError::new("AccessDeniedException", "User is not authorized to perform this");
        stack.aws.set_faults(Some(Box::new(move |call| {
            let again = call.operation == "ImportCertificate" && !call.input["CertificateArn"].is_null();
            again.then(|| local_aws::Fault::Refuse(denied.clone()))
        })));
        days(1).await;
        minutes(10).await;
        let reason = last_event(&stack, "Action Required")["detail"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("acm-missing: ") && reason.contains(first.as_str().unwrap()), "{reason}");
        let held = imported(&stack, "orders").await;
        let record = stack.record("orders").await.unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0]["CertificateArn"], json!(record.acm_certificate()));
        assert_ne!(held[0]["CertificateArn"], first);
        stack.aws.take_events();
        days(2).await;
        let told = |event: &local_aws::events::BusEvent| {
            event.event["detail"]["reason"].as_str().is_some_and(|reason| reason.contains("acm-missing"))
        };
        assert!(!stack.aws.take_events().iter().any(told));
    });
}

#[test]
fn a_lost_table_learns_from_the_secrets_what_acm_holds() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        minutes(1).await;
        let adopted = json!(self_signed(&stack, "web", 300).await);
        days(2).await;
        empty_the_table(&stack).await;
        days(2).await;
        let (orders, web) = (stack.record("orders").await.unwrap(), stack.record("web").await.unwrap());
        assert!(orders.options.import_to_acm);
        assert_eq!((json!(orders.acm_certificate()), json!(web.acm_certificate())), (arn.clone(), adopted));
        days(22).await;
        assert_ne!(Some(current(&stack, "orders").await), orders.current.map(|pair| pair.serial));
        assert_settled(&stack, "renewed after the table was lost").await;
        assert_eq!(held(&stack, &arn).await, current(&stack, "orders").await);
    });
}

/// The walk has passed its secret by then, and finds it in ACM.
#[test]
fn a_record_that_is_lost_while_the_walk_waits_for_acm_is_not_taken_for_one_of_acms_own() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        issue(&stack, json!({})).await.unwrap();
        days(1).await;
        let before = stack.record("orders").await.unwrap();
        lose_deliveries(&stack);
        stack.aws.set_faults(Some(Box::new(|call| {
            let lists = call.operation == "ListCertificates";
            lists.then_some(local_aws::Fault::Refuse(local_aws::AwsError::throttled()))
        })));
        days(1).await;
        stack.handle("renew-on-expiry", json!({"sweep": true}), "throttled").await.unwrap_err();
        let table = stack.records().settings.table;
        let item = json!({"TableName": table, "Key": {"id": {"S": "certificate#orders"}}});
        user(&stack, "dynamodb:DeleteItem", item).await;
        stack.aws.set_faults(None);
        stack.handle("renew-on-expiry", json!({"sweep": true}), "ACM answers again").await.unwrap();
        let after = stack.record("orders").await.unwrap();
        assert_eq!((&after.origin, &after.options), (&before.origin, &before.options));
        assert_eq!(after.acm_certificate(), before.acm_certificate());
        stack.aws.set_deliveries(None);
        days(22).await;
        assert_ne!(Some(current(&stack, "orders").await), before.current.map(|pair| pair.serial));
        assert_settled(&stack, "renewed after its record was lost").await;
    });
}

#[test]
fn what_is_not_to_be_in_acm_any_more_stays_there_as_it_is_and_is_let_go_of() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        let last = held(&stack, &arn).await;
        let refusal = issue(&stack, json!({"import_to_acm": false})).await.unwrap_err();
        assert!(refusal.contains("differs in import_to_acm"), "{refusal}");
        let answer = issue(&stack, json!({"import_to_acm": false, "replace": true})).await.unwrap();
        assert_eq!((&answer["outcome"], answer.get("acm_certificate_arn")), (&json!("unchanged"), None));
        days(25).await;
        assert_eq!(held(&stack, &arn).await, last);
        let secret = user(&stack, "secretsmanager:DescribeSecret", json!({"SecretId": "everleaf/orders"})).await;
        let tags = secret["Tags"].as_array().unwrap();
        assert!(tags.iter().all(|tag| tag["Key"] != "everleaf:acm-certificate"), "{tags:?}");
        assert_ne!(current(&stack, "orders").await, last);
    });
}

#[test]
fn who_asks_to_export_what_was_imported_is_told_so_and_nothing_is_changed() {
    run(async {
        let stack = Stack::deploy().await;
        let ours = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
        minutes(1).await;
        let theirs = json!(self_signed(&stack, "adopted", 90).await);
        days(2).await;
        assert!(stack.record("adopted").await.unwrap().is_adopted());
        stack.aws.take_calls();
        for arn in [ours, theirs] {
            let asked = json!({"certificate_arn": arn});
            let error = stack.handle("export-to-secrets", asked, "by hand").await.unwrap_err();
            assert!(error.error_message.contains("was imported into ACM, which never gives its key back"), "{error:?}");
        }
        assert!(stack.aws.take_calls().iter().all(|call| !call.writes()));
    });
}

#[test]
fn what_is_let_go_of_in_acm_loses_its_tag_so_that_nobody_adopts_it_once_its_name_is_free() {
    let no_more = json!({"import_to_acm": false, "replace": true});
    for (what, changes) in [
        ("not in ACM any more", no_more.clone()),
        ("another certificate", json!({"import_to_acm": false, "subject": {"common_name": "other"}, "replace": true})),
        ("under another ARN", json!({"import_to_acm": "theirs", "replace": true})),
        ("before ACM has answered", no_more),
    ] {
        run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            lose_deliveries(&stack);
            if what == "before ACM has answered" {
                import_unanswered(&stack).await;
            } else {
                issue(&stack, json!({})).await.unwrap();
            }
            let first = imported(&stack, "orders").await[0]["CertificateArn"].clone();
            let (mut changes, mut theirs) = (changes.clone(), None);
            if changes["import_to_acm"] == "theirs" {
                minutes(1).await;
                theirs = Some(self_signed(&stack, "orders", 90).await);
                changes["import_to_acm"] = json!(theirs);
                minutes(1).await;
            }
            issue(&stack, changes).await.unwrap();
            assert_eq!(tags(&stack, &first).await, json!([]), "{what}");
            let held = stack.record("orders").await.unwrap().acm_certificate().map(ToString::to_string);
            assert_eq!(held, theirs, "{what}");
            assert_settled(&stack, what).await;

            act(&stack, "issue-client-cert", json!({"retire": "orders"})).await;
            stack.aws.set_deliveries(None);
            days(2).await;
            assert_eq!(stack.record("orders").await, None, "{what}");
        });
    }
}

#[test]
fn whatever_stops_a_request_that_lets_go_of_what_acm_holds_the_same_request_goes_on() {
    for number in 1.. {
        let stopped = run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            lose_deliveries(&stack);
            let arn = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
            let (mut calls, change) = (0, json!({"import_to_acm": false, "replace": true}));
            stack.aws.set_faults(Some(Box::new(move |_| {
                calls += 1;
                (calls == number).then_some(local_aws::Fault::Crash)
            })));
            let stopped = tokio::select! {
                () = stack.aws.hung() => true,
                answer = issue(&stack, change.clone()) => answer.is_err(),
            };
            stack.aws.set_faults(None);
            issue(&stack, change).await.unwrap();
            assert_eq!(tags(&stack, &arn).await, json!([]), "a crash after call {number}");
            assert_eq!(stack.record("orders").await.unwrap().imported, None, "a crash after call {number}");
            stopped
        });
        if !stopped {
            break;
        }
    }
}

#[test]
fn a_certificate_of_acm_in_whose_place_another_is_issued_loses_its_tag_as_well() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        let arn = json!(request(&stack, "gateway", false).await);
        days(1).await;
        assert_eq!(held(&stack, &arn).await, current(&stack, "gateway").await);
        issue(&stack, json!({"name": "gateway", "import_to_acm": false, "replace": true})).await.unwrap();
        assert_ne!(held(&stack, &arn).await, current(&stack, "gateway").await);
        assert_eq!(tags(&stack, &arn).await, json!([{"Key": "everleaf:service-1", "Value": "payments/gateway"}]));
    });
}

#[test]
fn a_request_that_changes_what_is_in_acm_waits_for_the_import_that_is_under_way() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let (begun, import) = (import_begun(&stack), issue(&stack, json!({})));
        let mut order = order_for_listener();
        (order["import_to_acm"], order["replace"]) = (json!(false), json!(true));
        let another = async {
            begun.notified().await;
            stack.handle("issue-client-cert", order.clone(), "another").await
        };
        let (held, busy) = tokio::join!(import, another);
        let arn = held.unwrap()["acm_certificate_arn"].clone();
        let busy = busy.unwrap_err();
        assert!(busy.error_type == "Retryable" && busy.error_message.contains("ask again after"), "{busy:?}");
        act(&stack, "issue-client-cert", order.clone()).await;
        let record = stack.record("orders").await.unwrap();
        assert_eq!((record.options.import_to_acm, record.imported, tags(&stack, &arn).await), (false, None, json!([])));
    });
}

#[test]
fn a_first_import_whose_answer_was_lost_is_found_again_whatever_has_happened_since() {
    let refuse = |stack: &Stack, operation: &'static str| {
        let refused = local_aws::AwsError::new("AccessDeniedException", "User is not authorized to perform this");
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == operation).then(|| local_aws::Fault::Refuse(refused.clone()))
        })));
    };
    for story in ["refused before", "refused to look for it", "replaced meanwhile", "in the place of a deleted one"] {
        run(async {
            let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
            lose_deliveries(&stack);
            match story {
                "refused before" => {
                    refuse(&stack, "ImportCertificate");
                    issue(&stack, json!({})).await.unwrap_err();
                }
                "in the place of a deleted one" => {
                    let deleted = issue(&stack, json!({})).await.unwrap()["acm_certificate_arn"].clone();
                    user(&stack, "acm:DeleteCertificate", json!({"CertificateArn": deleted})).await;
                    act(&stack, "renew-on-expiry", json!({"certificate": "orders"})).await;
                }
                _ => {}
            }
            import_unanswered(&stack).await;
            minutes(3).await;
            match story {
                "refused to look for it" => {
                    refuse(&stack, "ListCertificates");
                    issue(&stack, json!({})).await.unwrap_err();
                    stack.aws.set_faults(None);
                    issue(&stack, json!({})).await.unwrap();
                }
                "replaced meanwhile" => _ = issue(&stack, json!({"validity": {"days": 20}, "replace": true})).await.unwrap(),
                _ => _ = issue(&stack, json!({})).await.unwrap(),
            }
            assert_settled(&stack, story).await;
        });
    }
}

#[test]
fn what_acm_refuses_for_good_is_told_and_tried_again_once_a_day() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        issue(&stack, json!({"import_to_acm": false})).await.unwrap();
        let full = local_aws::AwsError::new("LimitExceededException", "You have reached the maximum number of certificates.");
        stack.aws.set_faults(Some(Box::new(move |call| {
            (call.operation == "ImportCertificate").then(|| local_aws::Fault::Refuse(full.clone()))
        })));
        let refusal = issue(&stack, json!({"replace": true})).await.unwrap_err();
        assert!(refusal.contains("into ACM; the secret holds it") && refusal.contains("LimitExceeded"), "{refusal}");
        let told = last_event(&stack, "Action Required")["detail"]["reason"].as_str().unwrap().to_owned();
        assert!(told.starts_with("import-failed: "), "{told}");
        stack.aws.take_calls();
        days(3).await;
        let tries = stack.aws.take_calls().iter().filter(|call| call.operation == "ImportCertificate").count();
        // With Lambda's two retries each.
        assert!([6, 9].contains(&tries), "{tries}");
        stack.aws.set_faults(None);
        let answer = act(&stack, "issue-client-cert", order_for_listener()).await;
        assert_eq!(answer["outcome"], "unchanged");
        assert_settled(&stack, "once there is room").await;
    });
}

#[test]
fn what_others_record_of_a_certificate_while_it_is_imported_is_kept() {
    run(async {
        let stack = Stack::deploy_on("EC_prime256v1", &[]).await;
        lose_deliveries(&stack);
        let (begun, import) = (import_begun(&stack), issue(&stack, json!({})));
        let serial = "4a6f1c0d2b3e4f5061728394a5b6c7d8";
        let revoke = json!({
            "revoke": "orders", "serial_number": serial, "reason": "SUPERSEDED", "certificate_authority_arn": stack.issuing_ca
        });
        let revoke = async {
            begun.notified().await;
            stack.handle("issue-client-cert", revoke, "another").await
        };
        let (imported, _) = tokio::join!(import, revoke);
        let arn = imported.unwrap()["acm_certificate_arn"].clone();
        let record = stack.record("orders").await.unwrap();
        assert_eq!(json!(record.acm_certificate()), arn);
        assert!(record.told.contains_key("revoke-failed") || !record.revocations.is_empty(), "{record:#?}");
    });
}
