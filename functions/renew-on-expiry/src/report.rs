//! The report on the fleet: `report/report.json`, and `report/report.html`, which is a page around the same text.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client as S3;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use lifecycle::events::{Event, Kind};
use lifecycle::record::Moment;
use lifecycle::report::{Row, State, trust_stores};
use records::table::Walk;
use runtime::{Failure, Invocation, metrics, publish};
use serde::Serialize;
use serde_json::{Value, json};

use crate::walk::DAILY;
use crate::{App, enough_time};

/// The page; what is reported takes the place of [`HERE`].
const PAGE: &str = include_str!("report.html");
const HERE: &str = "{{report}}";

/// Writes the report when a day has passed since the last. What S3 refuses fails no sweep: the next one tries again, and a person is
/// told once a day of what does not pass by itself.
pub(crate) async fn daily(app: &App, walk: Walk, invocation: &Invocation) -> Result<(), Failure> {
    let now = invocation.now();
    if now.unix_timestamp() - walk.reported < DAILY || !enough_time(invocation) {
        return Ok(());
    }
    let written = match Report::gather(app, invocation).await {
        Ok(report) => report.write(app).await,
        // Of the table, which the sweep needs too.
        Err(failure) if failure.is_permanent() => return Err(failure),
        Err(failure) => Err(failure),
    };
    let Err(failure) = written else {
        return app.records.save_walk(&Walk { reported: now.unix_timestamp(), ..walk }).await;
    };
    tracing::error!("{failure}");
    const CODE: &str = "report-failed";
    if failure.is_permanent() && app.records.first_today(CODE, now).await? {
        let event = Event::general(Kind::ActionRequired, &app.records.settings.prefix, format!("{CODE}: {failure}"));
        publish(&app.eventbridge, &[event]).await?;
    }
    Ok(())
}

pub(crate) async fn by_request(app: &App, invocation: &Invocation) -> Result<Value, Failure> {
    Report::gather(app, invocation).await?.write(app).await
}

struct Report {
    page: Bytes,
    /// Where in the page the JSON text stands.
    data: Range<usize>,
    counts: BTreeMap<State, usize>,
}

impl Report {
    /// Row by row, so that no more than a hundred records are held at once.
    async fn gather(app: &App, invocation: &Invocation) -> Result<Self, Failure> {
        let now = invocation.now();
        let (head, tail) = PAGE.split_once(HERE).expect("a test sees that the page has a place for the report");
        let stores = app.records.stores().await?.unwrap_or_default();
        let mut page = String::from(head);
        page.push_str("{\"prefix\":");
        add(&mut page, &app.records.settings.prefix)?;
        page.push_str(",\"region\":");
        add(&mut page, &app.s3.config().region().map(AsRef::<str>::as_ref))?;
        page.push_str(",\"generated_at\":");
        add(&mut page, &Moment::from(now))?;
        page.push_str(",\"certificates\":[");
        let mut counts = BTreeMap::<State, usize>::new();
        for names in app.records.names().await?.chunks(100) {
            if !enough_time(invocation) {
                return Err(Failure::retryable("write the report", "the time is up before every certificate was read"));
            }
            for (name, known) in app.records.load_each(names).await? {
                let row = match known {
                    Ok(known) => Row::of(&known.record, &known.services, &app.trust, &stores, app.sweep_interval, now),
                    Err(failure) => Row::unreadable(name, failure.to_string()),
                };
                if !counts.is_empty() {
                    page.push(',');
                }
                *counts.entry(row.state).or_default() += 1;
                add(&mut page, &row)?;
            }
        }
        page.push_str("],\"trust_stores\":");
        add(&mut page, &trust_stores(&app.trust, &stores, app.sweep_interval, now))?;
        page.push_str(",\"counts\":");
        add(&mut page, &counts)?;
        page.push('}');
        let data = head.len()..page.len();
        page.push_str(tail);
        Ok(Self { page: page.into(), data, counts })
    }

    async fn write(self, app: &App) -> Result<Value, Failure> {
        let data = put(app, "report/report.json", "application/json", self.page.slice(self.data)).await?;
        let report = put(app, "report/report.html", "text/html; charset=utf-8", self.page).await?;
        let count: usize = self.counts.values().sum();
        tracing::info!(report.certificates = count, "Wrote the report on {count} certificates");
        for (state, count) in &self.counts {
            let (state, stack) = (json!(state), ("Stack", app.records.settings.prefix.as_str()));
            metrics(&[stack, ("State", state.as_str().unwrap_or_default())], &[("Certificates", *count as f64)]);
        }
        Ok(json!({"outcome": "reported", "report": report, "data": data, "counts": self.counts}))
    }
}

/// Both objects fit into the minute that is kept for them.
pub(crate) fn client(sdk: &SdkConfig) -> S3 {
    let timeout = TimeoutConfig::builder().operation_timeout(Duration::from_secs(25)).build();
    S3::from_conf(Builder::from(sdk).timeout_config(timeout).build())
}

/// Writes an object, and gives its place. <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>
async fn put(app: &App, key: &str, content_type: &str, text: Bytes) -> Result<String, Failure> {
    let App { s3, bucket, .. } = app;
    let put = s3.put_object().bucket(bucket).key(key).content_type(content_type).body(ByteStream::from(text));
    put.send().await.map_err(|error| Failure::aws(format!("write {key} to {bucket}"), error))?;
    Ok(format!("s3://{bucket}/{key}"))
}

/// Adds a value as JSON of which nothing can end the page's script element or be taken for markup.
fn add(page: &mut String, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::permanent("write the report", error))?;
    for character in text.chars() {
        match character {
            // In JSON these stand in texts only.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => page.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => page.push(other),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_page_runs_its_own_script_and_style_and_nothing_else() {
        for element in ["script", "style"] {
            let (_, from) = PAGE.split_once(&format!("<{element}>")).unwrap();
            let (own, _) = from.split_once(&format!("</{element}>")).unwrap();
            let allowed = format!("{element}-src 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(own)));
            assert!(PAGE.contains(&allowed), "the page's Content-Security-Policy is to say {allowed}");
        }
        assert!(PAGE.contains("content=\"default-src 'none';"));
        assert_eq!(PAGE.matches(HERE).count(), 1);
        assert_eq!(PAGE.matches("<script").count(), 2, "its own, and the report's, which is no script");
        for outside in ["http:", "https:", "src=", "url(", "@import", "style=", "onclick="] {
            let found = PAGE.match_indices(outside).map(|(at, _)| &PAGE[at.saturating_sub(20)..at + 20]);
            let found: Vec<_> = found.filter(|place| !place.contains("http://www.w3.org")).collect();
            assert_eq!(found, [""; 0], "{outside}");
        }
    }

    #[test]
    fn nothing_that_is_reported_ends_the_element_that_it_stands_in() {
        let hostile = "</script><script>alert(1)</script><!-- & \u{2028}\u{2029} \" \\ \n";
        let mut text = String::new();
        add(&mut text, &hostile).unwrap();
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n']), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }
}
