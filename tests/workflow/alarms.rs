//! What a person sees: each alarm of the template while what it is there for happens, the messages, and the dashboard.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use lambda_runtime::tracing::Dispatch;
use lambda_runtime::tracing::dispatcher::{self, DefaultGuard};
use local_aws::cloudwatch::State;
use local_aws::lambda::CONCURRENCY;
use local_aws::{AwsError, Fault, LocalAws, elbv2, pca, s3};
use serde_json::{Value, json};
use workflow::{Stack, root};

use crate::scenario::{days, lose_deliveries, minutes, order, request, run, service, user};

/// The log of the functions of an account, which CloudWatch reads.
#[derive(Clone)]
struct Log(LocalAws);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.log(std::str::from_utf8(line).unwrap());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A stack whose logs CloudWatch reads, as long as the guard lives; the first sweep has come.
async fn watched(parameters: &[(&str, &str)]) -> (Stack, DefaultGuard) {
    let stack = Stack::deploy_on("EC_prime256v1", parameters).await;
    // Where there is one log in the process, the first thread to come to a line decides for all whether anybody listens to it: a
    // test without one would silence the metrics of this one. With two, both are asked.
    static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
    ANOTHER.get_or_init(|| runtime::logging(true, std::io::sink));
    let log = Log(stack.aws.clone());
    let guard = dispatcher::set_default(&runtime::logging(true, move || log.clone()));
    minutes(5).await;
    (stack, guard)
}

fn state(stack: &Stack, alarm: &str) -> State {
    stack.aws.world(|world, now| world.alarm(now, alarm)).unwrap()
}

/// The alarms that are not OK.
fn raised(stack: &Stack) -> Vec<String> {
    let alarms = stack.template.alarms.iter().map(|alarm| alarm.logical_id.clone());
    alarms.filter(|alarm| state(stack, alarm) != State::Ok).collect()
}

fn assert_all_metrics_taken(stack: &Stack) {
    stack.aws.world(|world, _| assert_eq!(world.cloudwatch.refused, [""; 0]));
}

fn messages(stack: &Stack) -> Vec<String> {
    let published = stack.aws.world(|world, _| std::mem::take(&mut world.events.published));
    assert!(published.iter().all(|(topic, _)| *topic == stack.template.outputs["NotificationsTopic"]));
    published.into_iter().map(|(_, message)| message).collect()
}

/// A test for each alarm: it is OK with all others, is raised, and is OK again.
macro_rules! stories {
    ($($alarm:literal, $name:ident, $parameters:expr, |$stack:ident| $before:block, $cause:block, $mend:block)*) => {
        const STORIES: &[&str] = &[$($alarm),*];
        $(
            #[test]
            fn $name() {
                run(async {
                    let ($stack, _guard) = watched(&$parameters).await;
                    $before
                    assert_eq!(raised(&$stack), [""; 0], "before");
                    $cause
                    assert_eq!(state(&$stack, $alarm), State::Alarm);
                    $mend
                    assert_eq!(state(&$stack, $alarm), State::Ok, "after");
                    assert_all_metrics_taken(&$stack);
                });
            }
        )*
    };
}

const SELDOM: (&str, &str) = ("SweepMinutes", "240");

stories! {
    "ExpiryNear", a_certificate_that_its_disabled_ca_does_not_renew_is_an_alarm_a_week_before_its_expiry, [SELDOM], |stack| {
        service(&stack, "payments/orders", &["orders"]).await;
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        days(1).await;
    }, {
        stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, false)).unwrap();
        // Of the thirty days a quarter are left.
        days(21).await;
        assert_eq!(state(&stack, "ExpiryNear"), State::Ok);
        days(1).await;
        minutes(10 * 60).await;
    }, {
        stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, true)).unwrap();
        stack.handle("renew-on-expiry", json!({"retry": "orders"}), "by hand").await.unwrap();
        minutes(4 * 60).await;
    }

    "SweepMissing", a_sweep_that_does_not_come_is_an_alarm_after_three_intervals, [], |stack| {
        days(1).await;
    }, {
        stack.aws.set_deliveries(Some(Box::new(|payload, _| if payload["sweep"] == true { vec![] } else { vec![Default::default()] })));
        minutes(2 * 60).await;
        assert_eq!(state(&stack, "SweepMissing"), State::Ok);
        minutes(60).await;
    }, {
        stack.aws.set_deliveries(None);
        minutes(60).await;
    }

    "FailuresWaiting", an_input_that_was_given_up_is_an_alarm_until_it_is_out_of_the_queue, [], |stack| {}, {
        let input = json!({"FunctionName": "everleaf-export-to-secrets", "InvocationType": "Event", "Payload": {"certificate": "gone"}});
        user(&stack, "lambda:Invoke", input).await;
        minutes(5).await;
    }, {
        let queue = json!({"QueueUrl": stack.template.outputs["FailureQueueUrl"]});
        let received = user(&stack, "sqs:ReceiveMessage", queue.clone()).await;
        let mut delete = queue;
        delete["ReceiptHandle"] = received["Messages"][0]["ReceiptHandle"].clone();
        user(&stack, "sqs:DeleteMessage", delete).await;
        minutes(6).await;
    }

    "ActionRequired", what_needs_a_person_is_an_alarm_until_it_has_not_been_told_for_a_day, [SELDOM], |stack| {
        days(1).await;
    }, {
        // Its service is not there.
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        for _ in 0..3 {
            days(1).await;
            assert_eq!(state(&stack, "ActionRequired"), State::Alarm);
        }
        let messages = messages(&stack);
        assert!((3..=4).contains(&messages.len()), "{messages:#?}");
        let lines = told(&messages[0]);
        assert_eq!(lines[0], "Everleaf (everleaf in eu-central-1, account 111122223333) needs a person: the certificate `orders` of payments/orders, which expires 2027-02-04 09:05 UTC.");
        assert!(lines[1].starts_with("What happened: service-refused: payments/orders cannot be redeployed: "), "{lines:?}");
        assert_eq!(lines.len(), 4);
        assert_command(&messages[0], "everleaf-force-redeploy", &json!({"certificate": "orders"}));
    }, {
        service(&stack, "payments/orders", &["orders"]).await;
        days(3).await;
    }

    "RolloutUndone", a_rollout_that_was_undone_is_an_alarm_for_a_day, [SELDOM], |stack| {
        service(&stack, "payments/orders", &["orders"]).await;
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        days(1).await;
    }, {
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "orders", 1));
        let mut another = order();
        (another["usage"], another["replace"]) = (json!("client-and-server"), json!(true));
        stack.handle("issue-client-cert", another, "second").await.unwrap();
        minutes(30).await;
        let messages = messages(&stack);
        let [message] = messages.as_slice() else { panic!("{messages:#?}") };
        let lines = told(message);
        let about = "the certificate `orders` of payments/orders, which expires 2027-02-03 09:07 UTC";
        assert_eq!(lines[0], format!("Everleaf (everleaf in eu-central-1, account 111122223333) took a new pair back: {about}. The pair before it is current again, and the services follow."));
        assert!(lines[1].starts_with("What happened: the deployment ecs-svc/"), "{lines:?}");
        assert_command(message, "everleaf-renew-on-expiry", &json!({"retry": "orders"}));
    }, {
        days(1).await;
    }

    "FunctionErrors", a_right_that_was_taken_from_a_role_is_an_alarm_while_its_function_fails, [], |stack| {}, {
        stack.aws.set_role("renew-on-expiry", vec![]);
        minutes(60).await;
    }, {
        let statements = stack.template.function("renew-on-expiry").unwrap().statements.clone();
        stack.aws.set_role("renew-on-expiry", statements);
        minutes(60).await;
    }

    "FunctionThrottles", an_account_without_free_concurrency_is_an_alarm, [], |stack| {}, {
        stack.aws.world(|world, _| world.lambda.others = CONCURRENCY);
        minutes(60).await;
    }, {
        stack.aws.world(|world, _| world.lambda.others = 0);
        minutes(25).await;
    }

    "TrustStoreNearQuota", a_trust_store_that_is_nearly_full_is_an_alarm, [SELDOM], |stack| {
        declare(&stack).await;
    }, {
        put_extras(&stack, 19);
        minutes(10).await;
    }, {
        let bucket = stack.template.outputs["Bucket"].clone();
        stack.aws.world(|world, now| {
            for number in 10..19 {
                s3::delete(world, now, &bucket, &format!("trust/extra/clients/{number}.pem")).unwrap();
            }
        });
        days(2).await;
    }

    "CaNearExpiry", a_ca_that_expires_soon_is_an_alarm_until_it_has_a_new_certificate, [SELDOM], |stack| {}, {
        lose_deliveries(&stack);
        let authority = json!({"CertificateAuthorityArn": stack.issuing_ca});
        let described = user(&stack, "acm-pca:DescribeCertificateAuthority", authority).await;
        let ends = described["CertificateAuthority"]["NotAfter"].as_f64().unwrap() as i64;
        days((ends - stack.aws.now().unix_timestamp()) as u64 / 86_400 - 80).await;
        stack.aws.set_deliveries(None);
        days(1).await;
    }, {
        for authority in [&stack.root_ca, &stack.issuing_ca] {
            stack.aws.world(|world, now| pca::renew_authority(world, now, authority)).unwrap();
        }
        days(3).await;
    }

    "CaUnusable", a_ca_that_is_disabled_is_an_alarm_within_a_day, [SELDOM], |stack| {}, {
        stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, false)).unwrap();
        days(1).await;
    }, {
        stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, true)).unwrap();
        days(3).await;
    }

    "CaUnusable", a_ca_that_a_trust_store_declares_and_its_owner_shares_no_more_is_an_alarm_within_a_day, [SELDOM], |stack| {
        declare(&stack).await;
    }, {
        let look = ["DescribeCertificateAuthority", "GetCertificateAuthorityCertificate"];
        stack.aws.set_faults(Some(Box::new(move |call| {
            let denied = AwsError::new("AccessDeniedException", "no resource-based policy allows it");
            look.contains(&&*call.operation).then_some(Fault::Refuse(denied))
        })));
        days(1).await;
    }, {
        stack.aws.set_faults(None);
        days(3).await;
    }

    "RefreshMissing", a_daily_refresh_of_trust_stores_that_does_not_come_is_an_alarm_after_two_days, [SELDOM], |stack| {
        days(1).await;
    }, {
        stack.aws.set_deliveries(Some(Box::new(|payload, _| if payload["refresh"] == true { vec![] } else { vec![Default::default()] })));
        declare(&stack).await;
        minutes(47 * 60).await;
        assert_eq!(state(&stack, "RefreshMissing"), State::Ok);
        // Neither a look at one store nor what is only planned is a refresh of all.
        for request in [json!({"trust_store": "clients"}), json!({"refresh": true, "dry_run": true})] {
            stack.handle("refresh-truststore", request, "one").await.unwrap();
        }
        minutes(90).await;
        assert_eq!(raised(&stack), ["RefreshMissing"]);
    }, {
        stack.aws.set_deliveries(None);
        days(1).await;
    }

    "BudgetSpent", more_due_in_an_hour_than_the_budget_allows_is_an_alarm_until_it_is_done, [("HourlyBudget", "2")], |stack| {
        for name in ["one", "two", "three"] {
            let order = json!({"name": name, "subject": {"common_name": name}});
            stack.handle("issue-client-cert", order, name).await.unwrap();
        }
        minutes(60).await;
    }, {
        lose_deliveries(&stack);
        days(22).await;
        stack.aws.set_deliveries(None);
        minutes(60).await;
    }, {
        minutes(3 * 60).await;
    }

    "WalkLate", a_daily_walk_that_does_not_come_to_its_end_is_an_alarm_after_two_days, [SELDOM], |stack| {
        days(1).await;
    }, {
        stack.aws.set_faults(Some(Box::new(|call| {
            (call.operation == "ListSecrets").then(|| Fault::Refuse(AwsError::throttled_by("secretsmanager")))
        })));
        minutes(47 * 60).await;
        assert_eq!(state(&stack, "WalkLate"), State::Ok);
        days(1).await;
    }, {
        stack.aws.set_faults(None);
        days(1).await;
    }
}

/// The lines of a message, as EventBridge writes it: each a text in quotes.
fn told(message: &str) -> Vec<String> {
    message.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The command of a message does, as it stands there, what it says: a shell hands this request to that function.
fn assert_command(message: &str, function: &str, request: &Value) {
    let at = message.find("aws lambda invoke").unwrap();
    let command = message[at..].lines().next().unwrap().trim_end_matches('"');
    let shown = Command::new("bash").args(["-c", &format!("aws() {{ printf '%s\\n' \"$@\"; }}; {command}")]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let arguments: Vec<_> = shown.lines().collect();
    assert_eq!(arguments[..4], ["lambda", "invoke", "--function-name", function]);
    assert!(arguments.ends_with(&["--region", "eu-central-1"]), "{arguments:?}");
    let payload = arguments.iter().position(|argument| *argument == "--payload").unwrap();
    assert_eq!(serde_json::from_str::<Value>(arguments[payload + 1]).unwrap(), *request);
}

/// The trust store `clients` of the issuing CA, for a listener.
async fn declare(stack: &Stack) {
    let listener = stack.aws.world(|world, now| elbv2::create_listener(world, now, "clients", 8443));
    let store = json!({
        "name": "clients", "certificate_authority_arns": [stack.issuing_ca], "listeners": [{"listener_arn": listener}],
    });
    stack.handle("refresh-truststore", json!({"declare": store}), "declared").await.unwrap();
    minutes(10).await;
}

/// So many CAs from elsewhere.
fn put_extras(stack: &Stack, count: usize) {
    let bucket = stack.template.outputs["Bucket"].clone();
    stack.aws.world(|world, now| {
        for number in 0..count {
            let arn = pca::create_active_root(world, now, &format!("Partner CA {number}"), "EC_prime256v1").unwrap();
            let pem = world.pca.certificate(&arn).unwrap();
            s3::put(world, now, &bucket, &format!("trust/extra/clients/{number}.pem"), pem.into_bytes()).unwrap();
        }
    });
}

#[test]
fn every_alarm_has_a_story_and_a_runbook_and_tells_the_topic() {
    run(async {
        let stack = Stack::deploy().await;
        let alarms: BTreeSet<_> = stack.template.alarms.iter().map(|alarm| alarm.logical_id.as_str()).collect();
        assert_eq!(alarms, STORIES.iter().copied().collect());
        let topic = [stack.template.outputs["NotificationsTopic"].clone()];
        for alarm in &stack.template.alarms {
            let runbook = alarm.description.rsplit(' ').next().unwrap();
            assert!(runbook.starts_with("docs/runbooks/") && root().join(runbook).is_file(), "{}: {runbook}", alarm.logical_id);
            assert_eq!((&alarm.actions[..], &alarm.ok_actions[..]), (&topic[..], &topic[..]), "{}", alarm.logical_id);
        }
        let runbooks = std::fs::read_dir(root().join("docs/runbooks")).unwrap();
        assert_eq!(runbooks.count(), alarms.len(), "each runbook is some alarm's");
    });
}

/// The requests that runbooks send to functions: the file, the function, the request.
fn requests() -> Vec<(String, String, Value)> {
    let mut requests = Vec::new();
    for file in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap().replace("\\\n", " ");
        for command in text.lines().filter(|line| line.starts_with("aws lambda invoke ")) {
            let waits = !command.contains("--invocation-type Event");
            assert_eq!(command.contains(" --cli-read-timeout 910 "), waits, "{command}");
            let function = command.split_once("--function-name everleaf-").unwrap().1.split(' ').next().unwrap();
            let request = command.split_once("--payload '").unwrap().1.split_once('\'').unwrap().0;
            let name = file.file_name().into_string().unwrap();
            requests.push((name, function.to_owned(), serde_json::from_str(request).unwrap()));
        }
    }
    requests
}

#[test]
fn what_a_runbook_sends_to_a_function_is_understood_by_it() {
    let requests = requests();
    assert!(requests.len() >= 9, "{requests:?}");
    for (file, function, request) in requests {
        run(async {
            let (stack, _guard) = watched(&[SELDOM]).await;
            stack.handle("issue-client-cert", order(), "first").await.unwrap();
            self::request(&stack, "gateway", false).await;
            declare(&stack).await;
            let outcome = stack.handle(&function, request.clone(), "by hand").await;
            assert!(outcome.is_ok(), "{file}, {request}: {outcome:?}");
        });
    }
}

#[test]
fn a_stack_that_manages_nothing_raises_no_alarm_and_one_that_nobody_sweeps_does() {
    run(async {
        let (stack, _guard) = watched(&[("IssuingCaArn", "")]).await;
        for _ in 0..4 {
            assert_eq!(raised(&stack), [""; 0]);
            minutes(11 * 60 + 17).await;
        }
        lose_deliveries(&stack);
        minutes(3 * 60).await;
        assert_eq!(raised(&stack), ["ExpiryNear", "SweepMissing"]);
        assert_all_metrics_taken(&stack);
    });
}

#[test]
fn a_sweep_that_runs_out_of_time_has_not_come_to_its_end() {
    run(async {
        let (stack, _guard) = watched(&[]).await;
        for number in 0..110 {
            let order = json!({"name": format!("client-{number}"), "subject": {"common_name": "client"}});
            stack.handle("issue-client-cert", order, &format!("first {number}")).await.unwrap();
        }
        minutes(60).await;
        assert_eq!(raised(&stack), [""; 0]);
        // Each look takes as long as the SDK has patience: so many are too many for one sweep.
        stack.aws.set_faults(Some(Box::new(|call| (call.operation == "DescribeSecret").then_some(Fault::Hang))));
        days(1).await;
        minutes(3 * 60 + 30).await;
        assert_eq!(state(&stack, "SweepMissing"), State::Alarm);
        assert_eq!(state(&stack, "ExpiryNear"), State::Ok, "it says what it knows at its beginning");
        stack.aws.set_faults(None);
        minutes(2 * 60).await;
        assert_eq!(state(&stack, "SweepMissing"), State::Ok);
    });
}

#[test]
fn certificates_that_live_a_day_raise_no_alarm_under_a_threshold_of_hours_and_one_that_is_not_renewed_does_in_time() {
    run(async {
        let parameters = [("AlarmDaysToExpiry", "0.2"), ("SweepMinutes", "20")];
        let (stack, _guard) = watched(&parameters).await;
        let mut order = order();
        (order["validity"], order["services"]) = (json!({"days": 1}), json!([]));
        stack.handle("issue-client-cert", order, "first").await.unwrap();
        for _ in 0..30 {
            minutes(2 * 60).await;
            assert_eq!(raised(&stack), [""; 0], "{}", stack.aws.now());
        }
        stack.aws.world(|world, now| pca::enable(world, now, &stack.issuing_ca, false)).unwrap();
        let expires = *stack.record("orders").await.unwrap().current.unwrap().not_after;
        while state(&stack, "ExpiryNear") == State::Ok && stack.aws.now() < expires {
            minutes(10).await;
        }
        assert!(expires - stack.aws.now() > time::Duration::hours(4), "{expires}, and it is {}", stack.aws.now());
    });
}

/// What is on the dashboard: namespace, name, and dimensions with their values, or without where it searches for them.
fn shown(stack: &Stack) -> BTreeSet<(String, String, BTreeSet<String>)> {
    let [dashboard] = stack.template.dashboards.as_slice() else { panic!("one dashboard") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut shown = BTreeSet::new();
    for metric in
        dashboard["widgets"].as_array().unwrap().iter().flat_map(|widget| widget["properties"]["metrics"].as_array()).flatten()
    {
        let parts: Vec<_> = metric.as_array().unwrap().iter().filter(|part| part.is_string()).map(text).collect();
        shown.insert(match parts.as_slice() {
            [namespace, name, dimensions @ ..] => {
                let pairs = dimensions.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1]));
                (namespace.clone(), name.clone(), pairs.collect())
            }
            _ => {
                let search = text(&metric[0]["expression"]);
                let schema = search.split_once('{').unwrap().1.split_once('}').unwrap().0;
                let name = search.split_once("MetricName=\"").unwrap().1.split_once('"').unwrap().0;
                let mut schema = schema.split(',').map(str::to_owned);
                (schema.next().unwrap(), name.to_owned(), schema.collect())
            }
        });
    }
    shown
}

#[test]
fn the_dashboard_shows_what_the_functions_and_aws_say_and_nothing_else() {
    run(async {
        let (stack, _guard) = watched(&[("CrlBucketArns", "arn:aws:s3:::crls"), SELDOM]).await;
        stack.aws.world(|world, now| {
            s3::create_bucket(world, "crls");
            pca::enable_crl(world, now, &stack.issuing_ca, "crls", 7).unwrap();
        });
        service(&stack, "payments/orders", &["orders"]).await;
        service(&stack, "payments/gateway", &["gateway"]).await;
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        request(&stack, "gateway", false).await;
        declare(&stack).await;
        let serial = stack.record("orders").await.unwrap().current.unwrap().serial;
        stack.aws.world(|world, _| world.ecs.fail_deployments("payments", "orders", 1));
        let mut another = order();
        (another["usage"], another["replace"]) = (json!("client-and-server"), json!(true));
        stack.handle("issue-client-cert", another, "fails").await.unwrap();
        minutes(60).await;
        let revoke = json!({"revoke": "orders", "serial_number": serial, "reason": "KEY_COMPROMISE"});
        stack.handle("issue-client-cert", revoke, "revoked").await.unwrap();
        let ghost = json!({"name": "ghost", "subject": {"common_name": "ghost"}, "services": ["payments/ghost"]});
        stack.handle("issue-client-cert", ghost, "of a service that is not there").await.unwrap();
        stack.aws.world(|world, _| world.lambda.others = CONCURRENCY);
        minutes(4 * 60).await;
        stack.aws.world(|world, _| world.lambda.others = 0);
        days(1).await;
        state(&stack, "FailuresWaiting");
        let mut said = BTreeSet::new();
        stack.aws.world(|world, _| {
            for metric in world.cloudwatch.metrics() {
                let (namespace, name) = (metric.namespace.clone(), metric.name.clone());
                let pairs = metric.dimensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
                said.insert((namespace.clone(), name.clone(), pairs));
                said.insert((namespace, name, metric.dimensions.keys().cloned().collect()));
            }
        });
        // Of Lambda's each is said of all functions.
        let every = said.iter().filter(|(namespace, ..)| namespace == "AWS/Lambda").map(|(_, name, _)| name.clone());
        let every: BTreeSet<String> = every.collect();
        for (name, function) in
            every.iter().flat_map(|name| stack.template.functions.iter().map(move |function| (name, function)))
        {
            said.insert(("AWS/Lambda".to_owned(), name.clone(), [format!("FunctionName={}", function.name)].into()));
        }
        let shown = shown(&stack);
        let unsaid: Vec<_> = shown.difference(&said).collect();
        assert!(unsaid.is_empty(), "{unsaid:#?}");
        // What alarms look at is on the dashboard.
        for metric in stack.template.alarms.iter().flat_map(|alarm| &alarm.metrics) {
            assert!(shown.iter().any(|(_, name, _)| *name == metric.name), "{metric:?}");
        }
        assert_all_metrics_taken(&stack);
    });
}

#[test]
fn first_pairs_are_told_from_renewals_and_what_changes_no_pair_counts_as_neither() {
    run(async {
        let (stack, _guard) = watched(&[]).await;
        let counted = || stack.aws.world(|world, _| ["Issuances", "Exports", "Renewals"].map(|name| world.cloudwatch.sum(name)));
        service(&stack, "payments/orders", &["orders"]).await;
        stack.handle("issue-client-cert", order(), "first").await.unwrap();
        assert_eq!(counted(), [1.0, 0.0, 0.0]);
        let mut fewer = order();
        (fewer["services"], fewer["replace"]) = (json!([]), json!(true));
        stack.handle("issue-client-cert", fewer.clone(), "fewer services").await.unwrap();
        assert_eq!(counted(), [1.0, 0.0, 0.0]);
        fewer["usage"] = json!("client-and-server");
        stack.handle("issue-client-cert", fewer, "another pair").await.unwrap();
        assert_eq!(counted(), [2.0, 0.0, 1.0]);
        let gateway = request(&stack, "gateway", false).await;
        minutes(60).await;
        assert_eq!(counted(), [2.0, 1.0, 1.0]);
        user(&stack, "acm:RenewCertificate", json!({"CertificateArn": gateway})).await;
        minutes(60).await;
        assert_eq!(counted(), [2.0, 2.0, 2.0]);
    });
}

/// What comes before the colon of each reason why a person is told, as the source has it.
fn codes() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let mut directories = vec![root().join("functions"), root().join("shared")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let text: String = text.split("#[cfg(test)]").next().unwrap().split_whitespace().collect();
                for marker in ["tell(", "halt(", "tell.push((", "Tell{code:", "CODE:&str="] {
                    // The code is the first text of the call.
                    let calls = text.split(marker).skip(1).filter_map(|call| call.split_once('"'));
                    let calls = calls.filter(|(before, _)| !before.contains(['(', ')', '{', ';', ':']));
                    codes.extend(calls.map(|(_, code)| code.split('"').next().unwrap().to_owned()));
                }
            }
        }
    }
    codes
}

#[test]
fn each_reason_why_a_person_is_told_has_a_row_in_the_runbook() {
    let text = std::fs::read_to_string(root().join("docs/runbooks/action-required.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').nth(1).unwrap());
    let rows: Vec<_> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    let codes = codes();
    assert!(codes.len() > 30, "{codes:?}");
    assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), codes);
    assert_eq!(rows.len(), codes.len(), "each once: {rows:?}");
}
