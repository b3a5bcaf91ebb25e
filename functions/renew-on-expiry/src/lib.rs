//! `renew-on-expiry`: looks at certificates and lets happen what is due.
//!
//! ```text
//!   event of ACM ─▶ one certificate ─┐
//!   schedule ─▶ the sweep: every     ├─▶ facts gathered ─▶ plan ─▶ recorded ─▶ asked for, or told
//!   certificate whose time has come ─┘
//! ```
//!
//! It issues and exports nothing itself. What it asks for by an event that is lost, it asks for again at the next look.
//! Once a day the sweep writes the report on all certificates and trust stores to the stack's bucket.

mod look;
mod pace;
mod report;
mod sweep;
mod walk;

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_acm::Client as Acm;
use aws_sdk_eventbridge::Client as EventBridge;
use aws_sdk_s3::Client as S3;
use lifecycle::date;
use lifecycle::events::AcmDetail;
use lifecycle::names::{Arn, CertificateName};
use lifecycle::record::{Origin, Record};
use lifecycle::trust::Trust;
use records::{Records, Settings};
use runtime::vars::Vars;
use runtime::{Failure, Invocation, Seldom, Trigger, seldom};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::look::Shared;

pub struct App {
    pub records: Records,
    pub acm: Acm,
    pub eventbridge: EventBridge,
    /// For the report, with the stack's bucket.
    pub s3: Seldom<S3>,
    pub bucket: String,
    pub sweep_interval: Duration,
    /// Renewals, issuances and exports that the sweep may ask for in an hour.
    pub hourly_budget: u32,
    pub trust: Trust,
}

impl App {
    pub fn new(mut vars: Vars<'_>, sdk: &SdkConfig) -> Result<Self, String> {
        let settings = Settings::of_writer(&mut vars);
        let minutes: Option<u64> = vars.required("EVERLEAF_SWEEP_MINUTES");
        let budget: Option<u32> = vars.required("EVERLEAF_HOURLY_BUDGET");
        let bucket: Option<String> = vars.required("EVERLEAF_BUCKET");
        let trust = records::trust::settings(&mut vars);
        let (settings, ((minutes, hourly_budget), bucket)) = vars.finish(settings.zip(minutes.zip(budget).zip(bucket)))?;
        Ok(Self {
            records: Records::new(sdk, settings),
            acm: acm::client(sdk, acm::PATIENCE),
            eventbridge: EventBridge::new(sdk),
            s3: seldom(sdk, report::client),
            bucket,
            sweep_interval: Duration::from_secs(minutes * 60),
            hourly_budget,
            trust,
        })
    }
}

/// The schedule's input, or a request by hand, as [`USAGE`] has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    sweep: bool,
    /// Only say what would be done.
    #[serde(default)]
    plan: bool,
    /// Write the report now.
    #[serde(default)]
    report: bool,
    certificate: Option<CertificateName>,
    retry: Option<CertificateName>,
}

const USAGE: &str = "give one of {\"sweep\": true}, {\"plan\": true}, {\"report\": true}, {\"certificate\": \"name\"} and {\"retry\": \"name\"}; `plan` may stand beside `certificate` too";

pub async fn handle(app: &App, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    match Trigger::parse(event)? {
        Trigger::Event { source, resource, detail, .. } if source == "aws.acm" => {
            let arn = Arn::of(resource.as_deref().unwrap_or_default(), "acm", "certificate/");
            let arn = arn.map_err(|error| Failure::permanent("read which certificate the event is about", error))?;
            acm_event(app, &arn, Trigger::body(detail)?, invocation).await
        }
        Trigger::Event { detail_type, .. } => Err(Failure::permanent(
            "take the event",
            format!("`{detail_type}` is not for this function; mend the rule that sent it"),
        )),
        Trigger::ByHand(request) => match Trigger::request(request, USAGE)? {
            Request { sweep: true, plan: false, report: false, certificate: None, retry: None } => {
                sweep::sweep(app, invocation).await
            }
            Request { sweep: false, plan: true, report: false, certificate, retry: None } => {
                foresee(app, certificate, invocation).await
            }
            Request { sweep: false, plan: false, report: true, certificate: None, retry: None } => {
                report::by_request(app, invocation).await
            }
            Request { sweep: false, plan: false, report: false, certificate: Some(name), retry: None } => {
                by_name(app, &name, false, invocation).await
            }
            Request { sweep: false, plan: false, report: false, certificate: None, retry: Some(name) } => {
                by_name(app, &name, true, invocation).await
            }
            _ => Err(Failure::permanent("read the request", USAGE)),
        },
    }
}

/// ACM spoke of a certificate. What it said may be old or late, so the certificate is looked at, and that decides.
async fn acm_event(app: &App, arn: &Arn, detail: AcmDetail, invocation: &Invocation) -> Result<Value, Failure> {
    let Some(managed) = acm::managed(&app.acm, arn, &app.records.settings.prefix).await? else {
        return Ok(json!({"outcome": "unmanaged", "certificate_arn": arn}));
    };
    let known = app.records.find(&managed.name, invocation.now()).await?;
    let origin = Origin::Exported { certificate_arn: arn.clone() };
    let new = || Record::new(managed.name.clone(), origin, managed.options.clone(), invocation.now());
    let (record, mut shared) = (known.unwrap_or_else(new), Shared::tagged(arn.clone(), managed));
    let looked = look::look(app, record, detail.renewal_status_reason.as_deref(), &mut shared, invocation).await?;
    Ok(looked.into_json())
}

/// `retry`: what made the last attempts fail is mended.
async fn by_name(app: &App, name: &CertificateName, retry: bool, invocation: &Invocation) -> Result<Value, Failure> {
    let Some(mut record) = app.records.find(name, invocation.now()).await? else {
        return Err(Failure::permanent(format!("look at `{name}`"), "neither the table nor a secret knows it"));
    };
    if retry {
        record.retry();
        app.records.update(&mut record).await?;
    }
    Ok(look::look(app, record, None, &mut Shared::unlimited(), invocation).await?.into_json())
}

/// What the sweep would do now, or what would be done about one certificate. Nothing is written and nobody is asked.
async fn foresee(app: &App, name: Option<CertificateName>, invocation: &Invocation) -> Result<Value, Failure> {
    let (mut planned, mut failed, mut looked_at) = (Vec::new(), Vec::new(), 0);
    let (mut shared, mut after) = (Shared::unlimited(), None);
    'pages: loop {
        let records = match &name {
            Some(name) => match app.records.load(name).await? {
                Some(record) => vec![record],
                None => return Err(Failure::permanent(format!("look at `{name}`"), "the table does not know it")),
            },
            None => {
                let page = app.records.due(invocation.now(), after).await?;
                failed.extend(page.unreadable.iter().map(ToString::to_string));
                (after, shared.services) = (page.next, page.services);
                page.records
            }
        };
        for record in records {
            if !enough_time(invocation) {
                failed.push("the time is up before every certificate was looked at".to_owned());
                break 'pages;
            }
            looked_at += 1;
            match look::foresee(app, record, &mut shared, invocation.now()).await {
                Ok(looked) if looked.steps.is_empty() && name.is_none() => {}
                Ok(looked) => planned.push(looked),
                Err(failure) => failed.push(failure.to_string()),
            }
        }
        if after.is_none() {
            break;
        }
    }
    let line = |looked: &look::Looked| {
        let steps = if looked.steps.is_empty() { "nothing to do".to_owned() } else { looked.steps.join("; ") };
        format!("{}: {steps}; next look {}\n", looked.certificate, date(looked.look_at))
    };
    let text: String = planned.iter().map(line).collect();
    let certificates: Vec<_> = planned.into_iter().map(look::Looked::into_plan).collect();
    Ok(json!({"outcome": "planned", "looked_at": looked_at, "certificates": certificates, "failed": failed, "text": text}))
}

/// What is left for more. A minute is kept for what is under way.
fn time_for_more(invocation: &Invocation) -> Duration {
    invocation.time_left().saturating_sub(Duration::from_secs(60))
}

fn enough_time(invocation: &Invocation) -> bool {
    !time_for_more(invocation).is_zero()
}
