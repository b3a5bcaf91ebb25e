//! EventBridge: the default bus, its rules, and schedules.

mod pattern;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

pub use self::pattern::Pattern;

use crate::{AwsError, Timer, World};

#[derive(Default)]
pub struct EventBridge {
    pub(crate) rules: Vec<Rule>,
    /// Each with when it fires next.
    schedules: BTreeMap<String, (Schedule, OffsetDateTime)>,
    /// Kept until someone asks: see [`crate::LocalAws::take_events`].
    pub(crate) log: Vec<BusEvent>,
    pub(crate) notices: Vec<Notice>,
    /// What rules have published to topics: the topic's ARN and the message.
    pub published: Vec<(String, String)>,
}

/// A rule that tells a topic of events in words.
#[derive(Clone, Debug)]
pub struct Notice {
    pub pattern: Pattern,
    pub topic: String,
    /// Where each variable of the template stands in the event: `$.detail.reason`.
    pub paths: BTreeMap<String, String>,
    pub template: String,
}

/// An event that was on the bus, with the functions it was handed to.
#[derive(Clone, Debug)]
pub struct BusEvent {
    pub at: OffsetDateTime,
    pub event: Value,
    pub functions: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub arn: String,
    pub pattern: Pattern,
    pub target: Target,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub name: String,
    pub arn: String,
    pub source: ScheduleSource,
    pub expression: Expression,
    pub target: Target,
}

/// What a rule or a schedule invokes, and how.
#[derive(Clone, Debug)]
pub struct Target {
    pub function: String,
    /// Replaces the event when present.
    pub input: Option<Value>,
    pub enabled: bool,
    /// This and the queue guard the hop into Lambda's own queue, which does not fail here.
    pub retry_policy: Value,
    pub dead_letter_queue_arn: Option<String>,
}

/// Who fires: SAM makes a rule of `Schedule`, and a schedule of EventBridge Scheduler of `ScheduleV2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScheduleSource {
    Rule,
    Scheduler,
}

pub(crate) fn call(world: &mut World, now: OffsetDateTime, operation: &str, input: &Value) -> Result<Value, AwsError> {
    match operation {
        "PutEvents" => put_events(world, now, input),
        "ListRules" => {
            let prefix = input["NamePrefix"].as_str().unwrap_or_default();
            let rules = world.events.rules.iter().filter(|rule| rule.name.starts_with(prefix)).map(description);
            Ok(json!({"Rules": rules.collect::<Vec<_>>()}))
        }
        "DescribeRule" => {
            let name = input["Name"].as_str().unwrap_or_default();
            let missing =
                || AwsError::new("ResourceNotFoundException", format!("Rule {name} does not exist on EventBus default."));
            world.events.rules.iter().find(|rule| rule.name == name).map(description).ok_or_else(missing)
        }
        "TestEventPattern" => {
            let json = |member: &str| serde_json::from_str::<Value>(input[member].as_str().unwrap_or_default());
            let invalid = |reason: String| {
                AwsError::new("InvalidEventPatternException", format!("Event pattern is not valid. Reason: {reason}"))
            };
            let pattern = Pattern::parse(&json("EventPattern").map_err(|error| invalid(error.to_string()))?).map_err(invalid)?;
            let event = json("Event").map_err(|_| AwsError::new("ValidationException", "Parameter Event is not valid."))?;
            Ok(json!({"Result": pattern.matches(&event)}))
        }
        _ => Err(AwsError::unknown_operation("events", operation)),
    }
}

/// A schedule's time has come.
pub(crate) fn due(world: &mut World, now: OffsetDateTime, what: &str) {
    let Some((schedule, when)) = world.events.schedules.get(what).cloned() else { return };
    let id = world.uuid();
    let (source, detail) = match schedule.source {
        ScheduleSource::Rule => ("aws.events", json!({})),
        ScheduleSource::Scheduler => ("aws.scheduler", json!("{}")),
    };
    let envelope = json!({
        "version": "0", "id": id, "detail-type": "Scheduled Event", "source": source, "account": world.account,
        "time": timestamp(when), "region": world.region, "resources": [schedule.arn], "detail": detail,
    });
    world.invoke(schedule.target.function.clone(), schedule.target.input.clone().unwrap_or(envelope));
    // Times that passed while the machine slept are not made up for.
    let mut next = schedule.expression.next(when);
    while let Some(missed) = next.filter(|next| *next <= now) {
        next = schedule.expression.next(missed);
    }
    if let Some(next) = next {
        plan(world, schedule, next);
    }
}

/// Starts a schedule. EventBridge Scheduler fires a rate at once, a rule only after the first interval.
pub(crate) fn start(world: &mut World, now: OffsetDateTime, schedule: Schedule) {
    let first = match (&schedule.expression, schedule.source) {
        (Expression::Rate(_), ScheduleSource::Scheduler) => Some(now),
        (expression, _) => expression.next(now),
    };
    if let Some(first) = first.filter(|_| schedule.target.enabled) {
        plan(world, schedule, first);
    }
}

fn plan(world: &mut World, schedule: Schedule, when: OffsetDateTime) {
    world.at(when, Timer::Schedule { name: schedule.name.clone() });
    world.events.schedules.insert(schedule.name.clone(), (schedule, when));
}

impl EventBridge {
    /// The functions whose rules match `event`, each with what it is to be invoked with.
    pub(crate) fn deliveries(&self, event: &Value) -> Vec<(String, Value)> {
        let matching = self.rules.iter().filter(|rule| rule.target.enabled && rule.pattern.matches(event));
        matching.map(|rule| (rule.target.function.clone(), rule.target.input.clone().unwrap_or_else(|| event.clone()))).collect()
    }
}

impl EventBridge {
    pub(crate) fn tell(&mut self, event: &Value) {
        let matching = self.notices.iter().filter(|notice| notice.pattern.matches(event));
        self.published.extend(matching.map(|notice| (notice.topic.clone(), notice.message(event))));
    }
}

impl Notice {
    /// Variables stand in quotes here, so what takes their place is escaped as JSON has it; what the event lacks is nothing.
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html>
    fn message(&self, event: &Value) -> String {
        self.paths.iter().fold(self.template.trim_end().to_owned(), |message, (name, path)| {
            let found = event.pointer(&path.trim_start_matches('$').replace('.', "/"));
            let text = match found {
                None => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            message.replace(&format!("<{name}>"), json!(text).to_string().trim_matches('"'))
        })
    }
}

fn description(rule: &Rule) -> Value {
    let state = if rule.target.enabled { "ENABLED" } else { "DISABLED" };
    json!({"Name": rule.name, "Arn": rule.arn, "EventPattern": rule.pattern.to_string(), "State": state, "EventBusName": "default"})
}

/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>: an entry fails alone, and a bus that does
/// not exist swallows the event without an error.
fn put_events(world: &mut World, now: OffsetDateTime, input: &Value) -> Result<Value, AwsError> {
    let entries = input["Entries"].as_array().map_or(&[][..], Vec::as_slice);
    let limit = match entries.len() {
        0 => Some("greater than or equal to 1"),
        1..=10 => None,
        _ => Some("less than or equal to 10"),
    };
    if let Some(limit) = limit {
        let message = format!(
            "1 validation error detected: Value at 'entries' failed to satisfy constraint: Member must have length {limit}"
        );
        return Err(AwsError::new("ValidationException", message));
    }
    if entries.iter().map(size).sum::<usize>() > 1_048_576 {
        return Err(AwsError::new("ValidationException", "Total size of the entries in the request is over the limit."));
    }
    let mut failed = 0;
    let mut results = Vec::new();
    for entry in entries {
        results.push(match checked(entry) {
            Ok((source, detail_type, detail)) => {
                let time = entry["Time"].as_f64().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds as i64).ok());
                let resources: Vec<String> = entry["Resources"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|arn| arn.as_str().map(str::to_owned))
                    .collect();
                let event = world.event(time.unwrap_or(now), source, detail_type, &resources, detail);
                let id = event["id"].clone();
                if matches!(entry["EventBusName"].as_str(), None | Some("default")) || entry["EventBusName"] == bus_arn(world) {
                    world.put(event);
                }
                json!({"EventId": id})
            }
            Err((code, message)) => {
                failed += 1;
                json!({"ErrorCode": code, "ErrorMessage": message})
            }
        });
    }
    Ok(json!({"FailedEntryCount": failed, "Entries": results}))
}

fn checked(entry: &Value) -> Result<(&str, &str, Value), (&'static str, String)> {
    let text = |member: &str| {
        let required =
            || ("InvalidArgument", format!("Parameter {member} is not valid. Reason: {member} is a required argument."));
        entry[member].as_str().filter(|text| !text.is_empty()).ok_or_else(required)
    };
    let (source, detail_type, detail) = (text("Source")?, text("DetailType")?, text("Detail")?);
    if source.starts_with("aws.") {
        return Err(("NotAuthorizedForSourceException", "Not authorized for the source.".into()));
    }
    if detail_type.len() > 128 {
        return Err((
            "InvalidArgument",
            "Parameter DetailType is not valid. Reason: DetailType is longer than 128 characters.".into(),
        ));
    }
    match serde_json::from_str(detail) {
        Ok(detail @ Value::Object(_)) => Ok((source, detail_type, detail)),
        _ => Err(("MalformedDetail", "Detail is malformed.".into())),
    }
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size>
fn size(entry: &Value) -> usize {
    let text = |member: &str| entry[member].as_str().map_or(0, str::len);
    let resources = entry["Resources"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::len).sum::<usize>();
    let time = if entry["Time"].is_null() { 0 } else { 14 };
    time + text("Source") + text("DetailType") + text("Detail") + resources
}

fn bus_arn(world: &World) -> String {
    world.arn("events", "event-bus/default")
}

/// To the second, as events carry it.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    // Zero is a valid nanosecond, and the years of a test have four digits.
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>, in UTC: `rate(…)`, and `cron(…)` in numbers.
#[derive(Clone, Debug)]
pub enum Expression {
    Rate(Duration),
    /// Minute, hour, day of the month, month, day of the week (Sunday is 1), year; `None` is any.
    Cron([Option<Vec<u32>>; 6]),
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, String> {
        let unfit = || format!("Local AWS does not read the schedule {text}");
        let inner = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(rate) = inner("rate") {
            let (count, unit) = rate.split_once(' ').ok_or_else(unfit)?;
            let seconds = match unit.trim_end_matches('s') {
                "minute" => 60,
                "hour" => 3600,
                "day" => 86400,
                _ => return Err(unfit()),
            };
            let count = count.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(unfit)?;
            return Ok(Self::Rate(Duration::from_secs(count * seconds)));
        }
        let fields: Vec<&str> = inner("cron").ok_or_else(unfit)?.split_whitespace().collect();
        let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199)];
        let parsed = fields
            .iter()
            .zip(ranges)
            .map(|(field, range)| cron_field(field, range).ok_or_else(unfit))
            .collect::<Result<Vec<_>, _>>()?;
        parsed.try_into().map(Self::Cron).map_err(|_| unfit())
    }

    /// The next time after `now`, to the minute for `cron`. A rate counts from `now`.
    pub fn next(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let fields = match self {
            Self::Rate(every) => return Some(now + *every),
            Self::Cron(fields) => fields,
        };
        let allows = |index: usize, value: u32| fields[index].as_ref().is_none_or(|values| values.contains(&value));
        let day_fits = |date: Date| {
            allows(2, date.day().into())
                && allows(3, u8::from(date.month()).into())
                && allows(4, date.weekday().number_from_sunday().into())
                && u32::try_from(date.year()).is_ok_and(|year| allows(5, year))
        };
        let from = now.replace_second(0).ok()?.replace_nanosecond(0).ok()? + Duration::from_secs(60);
        let mut date = from.date();
        // A leap day that has to be a Monday comes within 40 years.
        for _ in 0..40 * 366 {
            if day_fits(date) {
                let earliest = if date == from.date() { u32::from(from.hour()) * 60 + u32::from(from.minute()) } else { 0 };
                if let Some(minute) = (earliest..24 * 60).find(|minute| allows(1, minute / 60) && allows(0, minute % 60)) {
                    return Some(date.midnight().assume_utc() + Duration::from_secs(u64::from(minute) * 60));
                }
            }
            date = date.next_day()?;
        }
        None
    }
}

/// `None` for what is not understood, `Some(None)` for any value.
fn cron_field(field: &str, (lowest, highest): (u32, u32)) -> Option<Option<Vec<u32>>> {
    if matches!(field, "*" | "?") {
        return Some(None);
    }
    let mut values = Vec::new();
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (from, to) = match (range.split_once('-'), range) {
            (Some((from, to)), _) => (from.parse().ok()?, to.parse().ok()?),
            (None, "*") => (lowest, highest),
            (None, one) => (one.parse().ok()?, if step.is_some() { highest } else { one.parse().ok()? }),
        };
        let step = step.map_or(Some(1), |step| step.parse().ok().filter(|step| *step > 0))?;
        if from < lowest || to > highest || from > to {
            return None;
        }
        values.extend((from..=to).step_by(step));
    }
    Some(Some(values))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn schedules_come_when_they_say() {
        let now = datetime!(2026-11-22 06:07:08 UTC);
        let rows = [
            ("rate(1 hour)", Some(datetime!(2026-11-22 07:07:08 UTC))),
            ("rate(10 minutes)", Some(datetime!(2026-11-22 06:17:08 UTC))),
            ("cron(0 * * * ? *)", Some(datetime!(2026-11-22 07:00 UTC))),
            ("cron(7 6 * * ? *)", Some(datetime!(2026-11-23 06:07 UTC))),
            ("cron(0/15 * * * ? *)", Some(datetime!(2026-11-22 06:15 UTC))),
            ("cron(30 2 1 * ? *)", Some(datetime!(2026-12-01 02:30 UTC))),
            ("cron(0 10 ? * 2-6 *)", Some(datetime!(2026-11-23 10:00 UTC))),
            ("cron(0 0 29 2 ? *)", Some(datetime!(2028-02-29 00:00 UTC))),
            ("cron(0 0 1 1 ? 2026)", None),
        ];
        for (text, expected) in rows {
            assert_eq!(Expression::parse(text).unwrap().next(now), expected, "{text}");
        }
        for text in [
            "rate(1 week)",
            "rate(0 hours)",
            "cron(0 * * *)",
            "cron(0 25 * * ? *)",
            "cron(0 0 ? * MON *)",
            "at(2026-01-01T00:00:00)",
        ] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_does_not_make_up_for_what_the_machine_slept_through() {
        let (mut world, now) = (World::new("111122223333", "eu-central-1"), datetime!(2026-11-22 06:07:08 UTC));
        let target = Target {
            function: "renew".into(),
            input: None,
            enabled: true,
            retry_policy: Value::Null,
            dead_letter_queue_arn: None,
        };
        let expression = Expression::parse("rate(1 hour)").unwrap();
        let (name, arn, source) = ("sweep".into(), world.arn("scheduler", "schedule/default/sweep"), ScheduleSource::Scheduler);
        start(&mut world, now, Schedule { name, arn, source, expression, target });
        world.advance(now + Duration::from_secs(10 * 3600 + 1800));
        let invocations = world.take_invocations();
        assert_eq!((invocations.len(), &invocations[0].1["time"]), (1, &json!("2026-11-22T06:07:08Z")));
        assert_eq!(world.next_timer(), Some(now + Duration::from_secs(11 * 3600)));
    }

    #[test]
    fn a_bad_entry_fails_alone() {
        let (mut world, now) = (World::new("111122223333", "eu-central-1"), datetime!(2026-11-22 06:07:08 UTC));
        let entry = |source: &str, detail: &str| json!({"Source": source, "DetailType": "Certificate Due", "Detail": detail});
        let mut elsewhere = entry("everleaf", "{}");
        elsewhere["EventBusName"] = json!("nowhere");
        let entries = [
            entry("everleaf", r#"{"a": 1}"#),
            entry("aws.acm", "{}"),
            entry("everleaf", "[1]"),
            json!({"Source": "everleaf"}),
            elsewhere,
        ];
        let answer = call(&mut world, now, "PutEvents", &json!({"Entries": entries})).unwrap();
        let codes: Vec<_> = answer["Entries"].as_array().unwrap().iter().map(|entry| entry["ErrorCode"].as_str()).collect();
        assert_eq!(
            codes,
            [None, Some("NotAuthorizedForSourceException"), Some("MalformedDetail"), Some("InvalidArgument"), None]
        );
        assert_eq!(answer["FailedEntryCount"], 3);
        let events = world.take_outbox();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["id"], answer["Entries"][0]["EventId"]);
        assert_eq!((&events[0]["detail"]["a"], &events[0]["time"]), (&json!(1), &json!("2026-11-22T06:07:08Z")));
        for entries in [vec![], vec![entry("everleaf", "{}"); 11]] {
            let error = call(&mut world, now, "PutEvents", &json!({"Entries": entries})).unwrap_err();
            assert_eq!(error.code, "ValidationException");
        }
    }
}
