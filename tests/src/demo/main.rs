//! `make demo`: a year of a small fleet on Local AWS, in under a minute. The story is on this page.
//!
//! - [`fleet`]: the certificates and services, and how people ask for them
//! - [`watch`], [`trust`] and [`leaks`](workflow::leaks): the promises of Everleaf, checked from the outside
//! - [`mod@print`]: what a person gets to see of it

mod fleet;
mod print;
mod trust;
mod watch;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use local_aws::{AwsError, Fault, pca};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use workflow::{START, Stack};

use crate::fleet::{
    CLUSTER, Certificate, EDGE, FLEET, GATEWAY, MESH, NEW_ISSUING, NEW_ROOT, ORDERS_CLIENT, Origin, PARTNER, Team,
};
use crate::print::Show;
use crate::trust::Standing;
use crate::watch::Watch;

/// When the story ends.
pub(crate) const END: OffsetDateTime = datetime!(2028-01-04 09:00 UTC);

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Time is virtual: whenever everybody waits, the clock jumps to what happens next.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> ExitCode {
    match demo().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo could not go on: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Outcome<bool> {
    let watch = Watch::listening();
    let show = Show::new();
    show.header()?;
    let stack = Stack::deploy_with(&fleet::PARAMETERS).await;
    let team = Team::of(&stack).await?;
    let mut demo = Demo { stack, team, watch, show };
    demo.year().await?;
    demo.watch.finish();
    demo.show.footer(&mut demo.watch)?;
    Ok(demo.watch.broken.is_empty())
}

struct Demo {
    stack: Stack,
    team: Team,
    watch: Watch,
    show: Show,
}

impl Demo {
    async fn year(&mut self) -> Outcome<()> {
        self.first_day().await?;
        self.until(datetime!(2027-01-18 10:30 UTC)).await?;
        self.request_in_acm(&EDGE, "that is all Everleaf needs").await?;
        self.until(datetime!(2027-03-09 10:30 UTC)).await?;
        self.a_key_is_lost().await?;
        self.until(datetime!(2027-04-20 14:30 UTC)).await?;
        self.the_table_is_emptied().await?;
        self.until(datetime!(2027-05-10 10:30 UTC)).await?;
        self.a_rollout_fails().await?;
        self.until(datetime!(2027-06-07 00:30 UTC)).await?;
        self.throttling().await?;
        self.until(datetime!(2027-07-12 10:30 UTC)).await?;
        self.the_ca_is_replaced().await?;
        self.until(datetime!(2027-09-06 00:30 UTC)).await?;
        self.the_ca_is_disabled().await?;
        self.until(datetime!(2027-12-01 00:30 UTC)).await?;
        self.a_week_of_doubled_events().await?;
        self.until(datetime!(2027-12-15 00:30 UTC)).await?;
        self.a_week_without_events().await?;
        self.until(END).await
    }

    /// Services first, so that each certificate finds its own; then the certificates. From here on nobody asks for a renewal.
    async fn first_day(&mut self) -> Outcome<()> {
        for service in fleet::services() {
            self.team.create_service(&self.stack, service).await?;
        }
        self.note("the services are created; their tasks wait for secrets", "`secrets[].valueFrom` names what is not there yet");
        self.declare_trust_store().await?;
        self.request_in_acm(&GATEWAY, "that is all Everleaf needs").await?;
        for certificate in FLEET.iter().filter(|certificate| certificate.origin == Origin::Everleaf) {
            self.by_hand("issue-client-cert", fleet::request(certificate)).await?;
        }
        self.partner_sends_csr().await
    }

    /// Whose clients an internal load balancer lets in.
    async fn declare_trust_store(&mut self) -> Outcome<()> {
        let (root, issuing, listener) = (&self.stack.root_ca, &self.stack.issuing_ca, &self.team.listener);
        let trust = &mut self.watch.trust;
        trust.begin(listener, fleet::stranger()?);
        self.stack.aws.world(|world, _| {
            trust.knows(world, root, root, "Example Root CA", Standing::Undeclared);
            trust.knows(world, issuing, root, "Example Issuing CA", Standing::Declared);
            trust.knows(world, &self.team.ec_ca, root, "Example EC Issuing CA", Standing::Undeclared);
        });
        let answer = self.by_hand("refresh-truststore", fleet::declaration(issuing, listener)).await?;
        let missing = answer["trust_stores"][0]["listeners"][0]["missing"].as_array().map_or(0, Vec::len);
        self.note(
            format!(
                "a trust store is declared; its listener does not verify yet: {} would be refused",
                print::count(missing, "client")
            ),
            "none of them is issued yet",
        );
        Ok(())
    }

    /// Revoked at once, then replaced: before the CRL is out the service runs on another key.
    async fn a_key_is_lost(&mut self) -> Outcome<()> {
        let name = ORDERS_CLIENT.name;
        self.note(
            format!("the key of `{name}` was on a laptop that is lost; a person revokes its certificate"),
            "KEY_COMPROMISE",
        );
        let serial = self.watch.serial(name, 0).unwrap_or_default();
        let request = json!({"revoke": name, "serial_number": serial, "reason": "KEY_COMPROMISE"});
        self.watch.special = true;
        self.by_hand("issue-client-cert", request).await?;
        self.listener_says(name, "no CRL is out yet");
        self.pass(1).await?;
        self.listener_says(name, "the CRL came half an hour later, and went into the trust store");
        self.watch.special = false;
        Ok(())
    }

    /// Two parameters of the stack change. Only what holds a key of its own, or is ACM's, needs a person.
    async fn the_ca_is_replaced(&mut self) -> Outcome<()> {
        let (root, issuing) = self.team.create_authorities(&self.stack)?;
        let retired = std::mem::replace(&mut self.stack.issuing_ca, issuing.clone());
        let trust = &mut self.watch.trust;
        self.stack.aws.world(|world, _| {
            trust.knows(world, &root, &root, NEW_ROOT, Standing::Undeclared);
            trust.knows(world, &issuing, &root, NEW_ISSUING, Standing::Successor);
        });
        self.note("a new root CA and an issuing CA below it are set up", "nothing uses them yet");
        self.pass(24).await?;
        self.watch.trust.stands(&retired, Standing::Retired);
        self.stack.update(&[("IssuingCaArn", &issuing), ("RetiredCas", &format!("{retired}={issuing}"))]).await;
        self.note("the new CA issues and the old one is retired", "the stack's parameters IssuingCaArn and RetiredCas say so");
        self.watch.special = true;
        self.watch.is_news_of(GATEWAY.name);
        while !self.watch.is_news_of(GATEWAY.name) {
            self.pass(1).await?;
        }
        let old = self.watch.arn(GATEWAY.name).unwrap_or_default();
        self.team.untag_in_acm(&GATEWAY, &old).await?;
        self.request_in_acm(&GATEWAY, "a new one, of the new CA; the old one has lost its tags").await?;
        self.pass(24).await?;
        self.team.delete_in_acm(&old).await?;
        let serial = self.watch.serial(GATEWAY.name, 1).unwrap_or_default();
        let request = json!({"revoke": GATEWAY.name, "serial_number": serial, "reason": "SUPERSEDED"});
        self.by_hand("issue-client-cert", request).await?;
        let what = format!("a person revokes the old pair of `{}`", GATEWAY.name);
        self.note(what, "else the old CA would stay as long as that is good, until February");
        self.pass(24).await?;
        self.watch.special = false;
        Ok(())
    }

    /// Everything in the table can be made again from the secrets and ACM.
    async fn the_table_is_emptied(&mut self) -> Outcome<()> {
        let table = &self.stack.records().settings.table;
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.stack.sdk("user"));
        let items = dynamodb.scan().table_name(table).send().await?.items.unwrap_or_default();
        for item in &items {
            let key = item.get("id").cloned().ok_or("an item of the table has no id")?;
            dynamodb.delete_item().table_name(table).key("id", key).send().await?;
        }
        self.note(format!("the table is emptied: {} items are gone", items.len()), "somebody cleans up in the wrong account");
        self.pass(2).await?;
        let rebuilt = self.watch.expect_records(&self.stack);
        self.note(
            format!("the records of {rebuilt} certificates are back"),
            "the sweep made them from the secrets and ACM's tags",
        );
        Ok(())
    }

    /// One of two services that share a certificate cannot start with its next pair. The circuit breaker tries in vain with the task
    /// definition from before.
    async fn a_rollout_fails(&mut self) -> Outcome<()> {
        let [billing, refunds] = MESH.services else { return Err("`mesh` has two services".into()) };
        self.stack.aws.world(|world, _| world.ecs.fail_deployments(CLUSTER, billing, 2));
        self.watch.special = true;
        self.watch.is_news_of(MESH.name);
        while !self.watch.is_news_of(MESH.name) {
            self.pass(1).await?;
        }
        self.note(
            format!("the tasks of `{billing}` did not start with it; `{refunds}` goes back too"),
            "the same secret is in both",
        );
        self.pass(24).await?;
        self.watch.special = false;
        Ok(())
    }

    /// It begins when a certificate is asked for. AWS refuses everything that a function calls in its first 40 seconds, which is
    /// longer than the SDK tries; after that every second one of each function, those aside that the SDK does not repeat.
    async fn throttling(&mut self) -> Outcome<()> {
        const LENGTH: time::Duration = time::Duration::minutes(90);
        // When each function made its first call, and whether the last one was to be refused.
        let callers: Arc<Mutex<BTreeMap<String, (OffsetDateTime, bool)>>> = Arc::default();
        let calls = callers.clone();
        self.stack.aws.set_faults(Some(Box::new(move |call| {
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            if call.caller == "user" || calls.is_empty() && call.caller != "issue-client-cert" {
                return None;
            }
            let (first, odd) = calls.entry(call.caller.clone()).or_insert((call.at, false));
            *odd = !*odd;
            let (first, odd) = (*first, *odd);
            let (begun, _) = calls.values().min().copied()?;
            let refused = call.at - first < time::Duration::seconds(40) || odd && call.operation != "UpdateService";
            (refused && call.at - begun < LENGTH).then(|| Fault::Refuse(AwsError::throttled()))
        })));
        let begun = || callers.lock().unwrap_or_else(PoisonError::into_inner).values().min().map(|(first, _)| *first);
        let tries_before = self.watch.counts.failed_tries;
        self.watch.special = true;
        while begun().is_none_or(|begun| self.stack.aws.now() < begun + LENGTH) {
            self.pass(1).await?;
        }
        self.watch.special = false;
        self.stack.aws.set_faults(None);
        let (refused, tries) = (self.watch.counts.throttled, self.watch.counts.failed_tries - tries_before);
        let what = format!("AWS throttles for 90 minutes: {refused} calls refused, {tries} tries of functions fail");
        self.watch.note(begun().unwrap_or(START), "", what, "the SDK tries again, then Lambda");
        Ok(())
    }

    /// Begun an hour before `mesh` can be due, so that there is something that fails.
    async fn the_ca_is_disabled(&mut self) -> Outcome<()> {
        let window = time::Duration::days(MESH.days as i64) / 3 + time::Duration::hours(1);
        while self.watch.expires(MESH.name).is_some_and(|end| self.stack.aws.now() < end - window) {
            self.pass(1).await?;
        }
        let queued = self.watch.queued;
        self.watch.special = true;
        self.enable_ca(false)?;
        self.note("the issuing CA is disabled for a day", "somebody takes it for unused");
        self.pass(24).await?;
        self.enable_ca(true)?;
        let waiting = self.watch.waiting(&self.stack, queued);
        let what =
            format!("the CA is enabled; a person sends {} of the on-failure queue again", print::count(waiting.len(), "input"));
        self.note(what, "the cause is mended");
        for input in waiting {
            self.stack.aws.put_event(input);
        }
        self.pass(12).await?;
        self.watch.special = false;
        Ok(())
    }

    /// Every event and every sweep comes twice: at once, or seven minutes apart.
    async fn a_week_of_doubled_events(&mut self) -> Outcome<()> {
        self.note("for a week every event and every sweep comes twice", "EventBridge delivers at least once");
        let mut late = false;
        let twice = move |_: &Value, _: &str| {
            late = !late;
            vec![Duration::ZERO, Duration::from_secs(if late { 420 } else { 0 })]
        };
        let now = self.stack.aws.now();
        self.watch.doubled = Some(now..now + time::Duration::WEEK);
        self.week(twice).await
    }

    /// No event of AWS arrives, and of our own only every third. The schedule is all that is certain.
    async fn a_week_without_events(&mut self) -> Outcome<()> {
        self.note(
            "for a week no event of AWS arrives, and one in three of our own",
            "events are best effort; the sweep is certain",
        );
        let mut own = 0_u32;
        let schedule_and_few = move |payload: &Value, _: &str| {
            own += u32::from(payload["source"] == "everleaf");
            let arrives = payload["source"].is_null() || payload["source"] == "everleaf" && own.is_multiple_of(3);
            if arrives { vec![Duration::ZERO] } else { Vec::new() }
        };
        let now = self.stack.aws.now();
        self.watch.without_events = Some(now..now + time::Duration::WEEK);
        self.week(schedule_and_few).await
    }

    async fn week(&mut self, deliveries: impl FnMut(&Value, &str) -> Vec<Duration> + Send + 'static) -> Outcome<()> {
        self.watch.special = true;
        self.stack.aws.set_deliveries(Some(Box::new(deliveries)));
        self.pass(7 * 24).await?;
        self.stack.aws.set_deliveries(None);
        self.watch.special = false;
        Ok(())
    }

    async fn pass(&mut self, hours: i64) -> Outcome<()> {
        self.until(self.stack.aws.now() + time::Duration::hours(hours)).await
    }

    /// Lets time pass, looks every hour, and prints a month when it is over.
    async fn until(&mut self, end: OffsetDateTime) -> Outcome<()> {
        while self.stack.aws.now() < end {
            let before = self.stack.aws.now();
            tokio::time::sleep(Duration::try_from(end - before)?.min(Duration::from_secs(3600))).await;
            self.watch.look(&self.stack);
            self.show.passed(before, self.stack.aws.now(), &mut self.watch)?;
            if self.watch.is_news_of(PARTNER.name) {
                self.partner_sends_csr().await?;
            }
        }
        Ok(())
    }

    async fn request_in_acm(&mut self, certificate: &'static Certificate, why: &str) -> Outcome<()> {
        let arn = self.team.request_in_acm(&self.stack, certificate).await?;
        self.watch.in_acm(arn, certificate.name);
        let what = "requested in ACM, with the tag everleaf:certificate";
        self.watch.note(self.stack.aws.now(), certificate.name, what, why);
        Ok(())
    }

    async fn partner_sends_csr(&mut self) -> Outcome<()> {
        let (request, key) = fleet::csr(&PARTNER, self.watch.callers_keys.len())?;
        self.watch.callers_keys.insert(key);
        self.by_hand("issue-client-cert", request).await?;
        Ok(())
    }

    async fn by_hand(&mut self, function: &str, request: Value) -> Outcome<Value> {
        let now = self.stack.aws.now();
        let answer = self.stack.handle(function, request, &format!("by hand {now}")).await;
        let answer = answer.map_err(|error| error.error_message)?;
        self.watch.answered(now, &answer);
        Ok(answer)
    }

    fn listener_says(&mut self, client: &str, why: &str) {
        self.watch.look(&self.stack);
        self.stack.aws.world(|world, now| self.watch.trust.tell(world, now, client, why));
    }

    fn enable_ca(&self, on: bool) -> Outcome<()> {
        let enabled = self.stack.aws.world(|world, now| pca::enable(world, now, &self.stack.issuing_ca, on));
        Ok(enabled.map_err(|error| error.message)?)
    }

    fn note(&mut self, what: impl Into<String>, why: &str) {
        self.watch.note(self.stack.aws.now(), "", what, why);
    }
}
