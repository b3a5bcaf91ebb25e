//! `make demo`: a year of a small fleet on Local AWS, in under a minute. The story is on this page.
//!
//! - [`fleet`]: the certificates and services, and how people ask for them
//! - [`watch`] and [`leaks`]: the promises of Everleaf, checked from the outside
//! - [`mod@print`]: what a person gets to see of it

mod fleet;
mod leaks;
mod print;
mod watch;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use local_aws::{AwsError, Fault, pca};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;
use workflow::{START, Stack};

use crate::fleet::{Certificate, EDGE, FLEET, GATEWAY, MESH, Origin, PARTNER, Team};
use crate::print::Show;
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
    let stack =
        Stack::deploy_with(&[("AllowedNames", "example.internal,10.0.0.0/8"), ("AllowedTrustDomains", "example.internal")]).await;
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
        self.request_in_acm(&EDGE).await?;
        self.until(datetime!(2027-04-20 14:30 UTC)).await?;
        self.the_table_is_emptied().await?;
        self.until(datetime!(2027-06-07 00:30 UTC)).await?;
        self.throttling().await?;
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
        self.request_in_acm(&GATEWAY).await?;
        for certificate in FLEET.iter().filter(|certificate| certificate.origin == Origin::Everleaf) {
            self.issue(fleet::request(certificate)).await?;
        }
        self.partner_sends_csr().await
    }

    /// Everything in the table can be made again from the secrets and ACM.
    async fn the_table_is_emptied(&mut self) -> Outcome<()> {
        let table = &self.stack.records().await.settings.table;
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.stack.sdk("user").await);
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

    /// It begins when a certificate is asked for. AWS refuses everything that a function calls in its first 40 seconds, which is
    /// longer than the SDK tries; after that every second call, those aside that the SDK does not repeat.
    async fn throttling(&mut self) -> Outcome<()> {
        const LENGTH: time::Duration = time::Duration::minutes(90);
        let first_calls: Arc<Mutex<BTreeMap<String, OffsetDateTime>>> = Arc::default();
        let (calls, mut odd) = (first_calls.clone(), false);
        self.stack.aws.set_faults(Some(Box::new(move |call| {
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            if call.caller == "user" || calls.is_empty() && call.caller != "issue-client-cert" {
                return None;
            }
            let first = *calls.entry(call.caller.clone()).or_insert(call.at);
            let begun = calls.values().min().copied()?;
            odd = !odd;
            let refused = call.at - first < time::Duration::seconds(40) || odd && call.operation != "UpdateService";
            (refused && call.at - begun < LENGTH).then(|| Fault::Refuse(AwsError::throttled()))
        })));
        let begun = || first_calls.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied();
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
            if self.watch.partner_is_told() {
                self.partner_sends_csr().await?;
            }
        }
        Ok(())
    }

    async fn request_in_acm(&mut self, certificate: &'static Certificate) -> Outcome<()> {
        let arn = self.team.request_in_acm(&self.stack, certificate).await?;
        self.watch.in_acm(arn, certificate.name);
        let what = "requested in ACM, with the tag everleaf:certificate";
        self.watch.note(self.stack.aws.now(), certificate.name, what, "that is all Everleaf needs");
        Ok(())
    }

    async fn partner_sends_csr(&mut self) -> Outcome<()> {
        let (request, key) = fleet::csr(&PARTNER, self.watch.callers_keys.len())?;
        self.watch.callers_keys.insert(key);
        self.issue(request).await
    }

    /// Invokes `issue-client-cert` by hand.
    async fn issue(&mut self, request: Value) -> Outcome<()> {
        let now = self.stack.aws.now();
        let answer = self.stack.handle("issue-client-cert", request, &format!("by hand {now}")).await;
        self.watch.answered(now, &answer.map_err(|error| error.error_message)?);
        Ok(())
    }

    fn enable_ca(&self, on: bool) -> Outcome<()> {
        let enabled = self.stack.aws.world(|world, now| pca::enable(world, now, &self.stack.issuing_ca, on));
        Ok(enabled.map_err(|error| error.message)?)
    }

    fn note(&mut self, what: impl Into<String>, why: &str) {
        self.watch.note(self.stack.aws.now(), "", what, why);
    }
}
