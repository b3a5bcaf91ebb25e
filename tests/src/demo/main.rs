//! `make demo`: a year of a small fleet on Local AWS, in under a minute. The story is on this page.
//!
//! - [`fleet`]: the certificates and services, and how people ask for them
//! - [`watch`]: the promises of Everleaf, checked from the outside
//! - [`print`]: what a person gets to see of it

mod fleet;
mod print;
mod watch;

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use local_aws::{AwsError, Fault, pca};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;
use workflow::{START, Stack};

use crate::fleet::{EDGE, FLEET, GATEWAY, MESH, Origin, PARTNER, Team};
use crate::print::Show;
use crate::watch::{Watch, Week};

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
    eprintln!("LOOK {} ms", LOOK.load(std::sync::atomic::Ordering::Relaxed) / 1000);
    demo.watch.finish();
    demo.show.footer(&mut demo.watch)?;
    Ok(demo.watch.broken.is_empty())
}

static LOOK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
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
        self.a_latecomer().await?;
        self.until(datetime!(2027-04-20 14:30 UTC)).await?;
        self.the_table_is_emptied().await?;
        self.until(datetime!(2027-06-07 00:30 UTC)).await?;
        self.an_hour_of_throttling().await?;
        self.until(datetime!(2027-09-06 00:30 UTC)).await?;
        self.the_ca_is_disabled().await?;
        self.until(datetime!(2027-12-01 00:30 UTC)).await?;
        self.a_week_of_doubled_events().await?;
        self.until(datetime!(2027-12-15 00:30 UTC)).await?;
        self.a_week_without_events().await?;
        self.until(START + time::Duration::days(365)).await
    }

    /// Services first, so that each certificate finds its own; then the certificates. From here on nobody asks for a renewal.
    async fn first_day(&mut self) -> Outcome<()> {
        for service in fleet::services() {
            self.team.create_service(&self.stack, service).await?;
        }
        self.note("six services are created; their tasks wait for secrets", "`secrets[].valueFrom` names what is not there yet");
        self.request_in_acm(&GATEWAY).await?;
        for certificate in FLEET.iter().filter(|certificate| certificate.origin == Origin::Everleaf) {
            let answer = fleet::issue(&self.stack, fleet::request(certificate)).await?;
            self.watch.answered(&answer);
        }
        self.partner_sends_csr().await
    }

    async fn a_latecomer(&mut self) -> Outcome<()> {
        self.request_in_acm(&EDGE).await
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
        self.note(&format!("the table is emptied: {} items are gone", items.len()), "somebody cleans up in the wrong account");
        self.pass(2).await?;
        let rebuilt = self.watch.expect_records(&self.stack);
        self.note(
            &format!("the records of {rebuilt} certificates are back"),
            "the sweep rebuilt them from the secrets and ACM's tags",
        );
        Ok(())
    }

    /// From the first issuance on: for an hour AWS refuses all calls of the functions during 20 of every 50 seconds, longer than
    /// the SDK tries.
    async fn an_hour_of_throttling(&mut self) -> Outcome<()> {
        let hour: Arc<Mutex<Option<OffsetDateTime>>> = Arc::default();
        let seen = hour.clone();
        self.stack.aws.set_faults(Some(Box::new(move |call| {
            let mut hour = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if hour.is_none() && call.caller == "issue-client-cert" {
                *hour = Some(call.at);
            }
            let second = (call.at - (*hour)?).whole_seconds();
            let throttled = second < 3600 && second % 50 < 20 && call.caller != "user";
            throttled.then(|| Fault::Refuse(AwsError::throttled()))
        })));
        let begun = || *hour.lock().unwrap_or_else(PoisonError::into_inner);
        while begun().is_none() {
            self.pass(1).await?;
        }
        self.watch.special = true;
        self.pass(2).await?;
        self.stack.aws.set_faults(None);
        self.watch.special = false;
        let (refused, tries) = self.watch.throttled();
        let what = format!("an hour of throttling began: {refused} calls refused, {tries} tries of functions failed");
        self.watch.note(begun().unwrap_or(START), &what, "the SDK waits, then Lambda tries again: nothing is left over");
        Ok(())
    }

    /// Begun an hour before `mesh` can be due, so that there is something that fails.
    async fn the_ca_is_disabled(&mut self) -> Outcome<()> {
        let window = time::Duration::days(MESH.days as i64) / 3 + time::Duration::hours(1);
        while self.watch.expires(MESH.name).is_some_and(|end| self.stack.aws.now() < end - window) {
            self.pass(1).await?;
        }
        let since = self.stack.aws.now();
        self.enable_ca(false)?;
        self.note("the issuing CA is disabled for a day", "somebody takes it for unused");
        self.watch.special = true;
        self.pass(24).await?;
        self.enable_ca(true)?;
        let waiting = self.watch.queued_since(&self.stack, since);
        self.note(
            &format!(
                "the CA is active again; a person sends {} from the on-failure queue again",
                print::count(waiting.len(), "input")
            ),
            "the cause is mended",
        );
        for input in waiting {
            self.stack.aws.put_event(input);
        }
        self.pass(1).await?;
        self.watch.special = false;
        Ok(())
    }

    /// Every event and every sweep comes twice: at once, or seven minutes apart.
    async fn a_week_of_doubled_events(&mut self) -> Outcome<()> {
        self.note("for a week every event and every sweep comes twice", "EventBridge delivers at least once");
        let mut count = 0_u64;
        let plan = move |_: &Value, _: &str| {
            count += 1;
            vec![Duration::ZERO, Duration::from_secs(if count.is_multiple_of(2) { 420 } else { 0 })]
        };
        self.stack.aws.set_deliveries(Some(Box::new(plan)));
        self.week(Week::Doubled).await
    }

    /// No event of AWS arrives, and of our own only every third. The schedule is all that is certain.
    async fn a_week_without_events(&mut self) -> Outcome<()> {
        self.note(
            "for a week no event of AWS arrives, and one in three of our own",
            "events are best effort; the sweep makes it certain",
        );
        let mut own = 0_u64;
        let plan = move |payload: &Value, _: &str| match payload["source"].as_str() {
            Some("everleaf") => {
                own += 1;
                if own.is_multiple_of(3) { vec![Duration::ZERO] } else { Vec::new() }
            }
            Some(_) => Vec::new(),
            None => vec![Duration::ZERO],
        };
        self.stack.aws.set_deliveries(Some(Box::new(plan)));
        self.week(Week::WithoutEvents).await
    }

    async fn week(&mut self, week: Week) -> Outcome<()> {
        self.watch.begin(week, self.stack.aws.now());
        self.pass(7 * 24).await?;
        self.watch.special = false;
        self.stack.aws.set_deliveries(None);
        Ok(())
    }

    async fn pass(&mut self, hours: i64) -> Outcome<()> {
        self.until(self.stack.aws.now() + time::Duration::hours(hours)).await
    }

    /// Lets time pass, looks every hour, and prints a month when it is over.
    async fn until(&mut self, end: OffsetDateTime) -> Outcome<()> {
        while self.stack.aws.now() < end {
            let now = self.stack.aws.now();
            let rest = Duration::try_from(end - now)?;
            tokio::time::sleep(rest.min(Duration::from_secs(3600))).await;
            let t0 = std::time::Instant::now();
            self.watch.look(&self.stack);
            LOOK.fetch_add(t0.elapsed().as_micros() as u64, std::sync::atomic::Ordering::Relaxed);
            self.show.passed(now, self.stack.aws.now(), &mut self.watch)?;
            if self.watch.partner_is_told() {
                self.partner_sends_csr().await?;
            }
        }
        Ok(())
    }

    async fn request_in_acm(&mut self, certificate: &'static fleet::Certificate) -> Outcome<()> {
        let arn = self.team.request_in_acm(&self.stack, certificate).await?;
        self.watch.in_acm(&arn, certificate.name);
        self.note(
            &format!("`{}` is requested in ACM, with the tag everleaf:certificate", certificate.name),
            "that is all Everleaf needs",
        );
        Ok(())
    }

    async fn partner_sends_csr(&mut self) -> Outcome<()> {
        let (request, fingerprint) = fleet::csr(&PARTNER, self.watch.callers_keys.len())?;
        self.watch.callers_keys.insert(fingerprint);
        let answer = fleet::issue(&self.stack, request).await?;
        self.watch.answered(&answer);
        Ok(())
    }

    fn enable_ca(&self, on: bool) -> Outcome<()> {
        let enabled = self.stack.aws.world(|world, now| pca::enable(world, now, &self.stack.issuing_ca, on));
        Ok(enabled.map_err(|error| error.message)?)
    }

    fn note(&mut self, what: &str, why: &str) {
        self.watch.note(self.stack.aws.now(), what, why);
    }
}
