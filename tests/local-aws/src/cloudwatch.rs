//! CloudWatch: metrics out of log lines, those that Lambda and SQS say of themselves, and alarms as the template defines them.
//!
//! An alarm is looked at when somebody asks, over the periods that end at that moment. CloudWatch aligns periods with its own
//! clock and looks a few further back where data are missing, so it can be late by those.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

/// No alarm looks further back than a week.
const KEPT: Duration = Duration::days(8);

#[derive(Default)]
pub struct CloudWatch {
    pub(crate) alarms: Vec<Alarm>,
    series: BTreeMap<Metric, VecDeque<(OffsetDateTime, f64)>>,
    /// Lines that were meant as metrics and cannot be read as such.
    pub refused: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    pub namespace: String,
    pub name: String,
    pub dimensions: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Alarm {
    pub logical_id: String,
    pub description: String,
    pub actions: Vec<String>,
    pub ok_actions: Vec<String>,
    /// Several are added up.
    pub metrics: Vec<Metric>,
    statistic: Statistic,
    period: Duration,
    periods: usize,
    datapoints: usize,
    comparison: Comparison,
    threshold: f64,
    missing: Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    Alarm,
    InsufficientData,
}

#[derive(Clone, Copy, Debug)]
enum Statistic {
    Maximum,
    Minimum,
    Sum,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    GreaterOrEqual,
    Greater,
    Less,
    LessOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Breaching,
    NotBreaching,
    Ignore,
    Unknown,
}

impl CloudWatch {
    /// A line of a function's log: whether it holds metrics, which are then filed.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
    pub fn log(&mut self, now: OffsetDateTime, line: &str) -> bool {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
        let Some(metadata) = line.get("_aws") else { return false };
        match embedded(&line, metadata) {
            Some(values) => values.into_iter().for_each(|(metric, value)| self.file(now, metric, value)),
            None => self.refused.push(line.to_string()),
        }
        true
    }

    /// What Lambda says of a function.
    pub(crate) fn lambda(&mut self, now: OffsetDateTime, function: &str, values: &[(&str, f64)]) {
        for (name, value) in values {
            let dimensions = [("FunctionName".to_owned(), function.to_owned())].into();
            let metric = Metric { namespace: "AWS/Lambda".to_owned(), name: (*name).to_owned(), dimensions };
            self.file(now, metric, *value);
        }
    }

    fn file(&mut self, now: OffsetDateTime, metric: Metric, value: f64) {
        let series = self.series.entry(metric).or_default();
        while series.front().is_some_and(|(at, _)| *at < now - KEPT) {
            series.pop_front();
        }
        series.push_back((now, value));
    }

    /// Every metric that was ever filed.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.series.keys()
    }

    /// Of all that was filed under a name and one dimension.
    pub fn sum(&self, name: &str) -> f64 {
        let filed = self.series.iter().filter(|(metric, _)| metric.name == name && metric.dimensions.len() == 1);
        filed.flat_map(|(_, series)| series).map(|(_, value)| value).sum()
    }

    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    fn value(&self, metric: &Metric, statistic: Statistic, from: OffsetDateTime, to: OffsetDateTime) -> Option<f64> {
        let series = self.series.get(metric)?;
        let values = series.iter().rev().skip_while(|(at, _)| *at > to).take_while(|(at, _)| *at > from);
        values.map(|(_, value)| *value).reduce(match statistic {
            Statistic::Maximum => f64::max,
            Statistic::Minimum => f64::min,
            Statistic::Sum => |left, right| left + right,
        })
    }
}

impl crate::World {
    /// The state of an alarm, by the template's logical id.
    pub fn alarm(&mut self, now: OffsetDateTime, logical_id: &str) -> Option<State> {
        let alarm = self.cloudwatch.alarms.iter().find(|alarm| alarm.logical_id == logical_id)?.clone();
        for metric in alarm.metrics.iter().filter(|metric| metric.namespace == "AWS/SQS") {
            // SQS says it each minute; here when somebody looks.
            let arn = self.arn("sqs", &metric.dimensions["QueueName"]);
            let visible = self.sqs.messages(&arn).iter().filter(|message| message.visible_at <= now).count();
            self.cloudwatch.file(now, metric.clone(), visible as f64);
        }
        Some(alarm.state(&self.cloudwatch, now))
    }
}

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>
impl Alarm {
    fn state(&self, cloudwatch: &CloudWatch, now: OffsetDateTime) -> State {
        let period = |back: usize| {
            let to = now - self.period * back as i32;
            let values = self.metrics.iter().filter_map(|metric| cloudwatch.value(metric, self.statistic, to - self.period, to));
            values.reduce(|left, right| left + right)
        };
        let breaches = |value: f64| match self.comparison {
            Comparison::GreaterOrEqual => value >= self.threshold,
            Comparison::Greater => value > self.threshold,
            Comparison::Less => value < self.threshold,
            Comparison::LessOrEqual => value <= self.threshold,
        };
        let known: Vec<Option<bool>> = match self.missing {
            // The state stays what the last data made it.
            Missing::Ignore => {
                let all = (KEPT.whole_seconds() / self.period.whole_seconds()) as usize;
                (0..all).filter_map(period).take(self.periods).map(|value| Some(breaches(value))).collect()
            }
            _ => (0..self.periods).map(|back| period(back).map(breaches)).collect(),
        };
        if known.iter().all(Option::is_none) && matches!(self.missing, Missing::Unknown | Missing::Ignore) {
            return State::InsufficientData;
        }
        let breaching = known.iter().filter(|known| known.unwrap_or(self.missing == Missing::Breaching)).count();
        if breaching >= self.datapoints { State::Alarm } else { State::Ok }
    }

    /// An alarm's properties, resolved. What is not understood is an error, never passed over.
    pub(crate) fn parse(logical_id: &str, properties: &Value) -> Result<Self, String> {
        only(
            properties,
            "AlarmName AlarmDescription AlarmActions OKActions Namespace MetricName Dimensions Statistic Period Metrics EvaluationPeriods DatapointsToAlarm ComparisonOperator Threshold TreatMissingData Tags",
        )?;
        let (metrics, statistic, period) = match properties.get("Metrics") {
            None => (vec![metric(properties)?], &properties["Statistic"], &properties["Period"]),
            Some(metrics) => added_up(metrics)?,
        };
        let periods = number(&properties["EvaluationPeriods"])? as usize;
        let period = number(period)?;
        if period < 60.0 || period % 60.0 != 0.0 {
            return Err(format!("a period of {period} seconds"));
        }
        // <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>
        let longest = if period < 3600.0 { 86_400.0 } else { 7.0 * 86_400.0 };
        if period * periods as f64 > longest {
            return Err(format!("{periods} periods of {period} seconds are more than CloudWatch looks at"));
        }
        let datapoints =
            properties.get("DatapointsToAlarm").map_or(Ok(periods), |value| number(value).map(|value| value as usize))?;
        let texts = |name: &str| properties[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        Ok(Self {
            logical_id: logical_id.to_owned(),
            description: properties["AlarmDescription"].as_str().unwrap_or_default().to_owned(),
            actions: texts("AlarmActions").collect(),
            ok_actions: texts("OKActions").collect(),
            metrics,
            statistic: match statistic.as_str() {
                Some("Maximum") => Statistic::Maximum,
                Some("Minimum") => Statistic::Minimum,
                Some("Sum") => Statistic::Sum,
                _ => return Err(format!("the statistic {statistic}")),
            },
            period: Duration::seconds_f64(period),
            periods,
            datapoints,
            comparison: match properties["ComparisonOperator"].as_str() {
                Some("GreaterThanOrEqualToThreshold") => Comparison::GreaterOrEqual,
                Some("GreaterThanThreshold") => Comparison::Greater,
                Some("LessThanThreshold") => Comparison::Less,
                Some("LessThanOrEqualToThreshold") => Comparison::LessOrEqual,
                _ => return Err(format!("the comparison {}", properties["ComparisonOperator"])),
            },
            threshold: number(&properties["Threshold"])?,
            missing: match properties["TreatMissingData"].as_str() {
                Some("breaching") => Missing::Breaching,
                Some("notBreaching") => Missing::NotBreaching,
                Some("ignore") => Missing::Ignore,
                Some("missing") | None => Missing::Unknown,
                _ => return Err(format!("missing data as {}", properties["TreatMissingData"])),
            },
        })
    }
}

/// Metrics whose sum is the alarm's; their statistic, and their period.
fn added_up(metrics: &Value) -> Result<(Vec<Metric>, &Value, &Value), String> {
    let (mut all, mut settings, mut sums) = (Vec::new(), None, 0);
    for one in metrics.as_array().into_iter().flatten() {
        only(one, "Id Label ReturnData Expression MetricStat")?;
        let returned = one["ReturnData"] == true || one["ReturnData"] == "true";
        match (one.get("Expression"), returned) {
            (Some(expression), true) if expression == "SUM(METRICS())" => sums += 1,
            (None, false) => {
                let stat = &one["MetricStat"];
                only(stat, "Metric Period Stat")?;
                only(&stat["Metric"], "Namespace MetricName Dimensions")?;
                all.push(metric(&stat["Metric"])?);
                if settings.is_some_and(|settings| settings != (&stat["Stat"], &stat["Period"])) {
                    return Err("metrics of different statistics or periods".to_owned());
                }
                settings = Some((&stat["Stat"], &stat["Period"]));
            }
            _ => return Err(format!("the metric {one}")),
        }
    }
    match (settings, sums) {
        (Some((statistic, period)), 1) => Ok((all, statistic, period)),
        _ => Err("metrics without one sum of them all".to_owned()),
    }
}

fn metric(of: &Value) -> Result<Metric, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("a metric without a name: {of}"));
    let mut dimensions = BTreeMap::new();
    for dimension in of["Dimensions"].as_array().into_iter().flatten() {
        dimensions.insert(text(&dimension["Name"])?, text(&dimension["Value"])?);
    }
    Ok(Metric { namespace: text(&of["Namespace"])?, name: text(&of["MetricName"])?, dimensions })
}

fn only(properties: &Value, known: &str) -> Result<(), String> {
    let mut names = properties.as_object().into_iter().flatten().map(|(name, _)| name);
    match names.find(|name| !known.split(' ').any(|known| known == name.as_str())) {
        Some(name) => Err(format!("Local AWS does not read {name}")),
        None => Ok(()),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| format!("{value} is not a number"))
}

/// The values of a line, each under every set of dimensions; `None` where CloudWatch would not take it.
fn embedded(line: &Value, metadata: &Value) -> Option<Vec<(Metric, f64)>> {
    metadata["Timestamp"].as_i64()?;
    let mut all = Vec::new();
    for directive in metadata["CloudWatchMetrics"].as_array()? {
        let metrics = directive["Metrics"].as_array().filter(|metrics| metrics.len() <= 100)?;
        for set in directive["Dimensions"].as_array()? {
            let mut dimensions = BTreeMap::new();
            for name in set.as_array().filter(|set| set.len() <= 30)? {
                let value = line[name.as_str()?].as_str().filter(|value| (1..=1024).contains(&value.len()))?;
                dimensions.insert(name.as_str()?.to_owned(), value.to_owned());
            }
            for metric in metrics {
                let (namespace, name) = (directive["Namespace"].as_str()?.to_owned(), metric["Name"].as_str()?.to_owned());
                let value = line[&name].as_f64()?;
                all.push((Metric { namespace, name, dimensions: dimensions.clone() }, value));
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 06:00 UTC);

    fn line(value: f64) -> Value {
        json!({
            "_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Dimensions": [["A"]], "Metrics": [{"Name": "M"}]}]},
            "A": "a", "M": value,
        })
    }

    fn properties() -> Value {
        json!({
            "AlarmDescription": "why", "AlarmActions": ["topic"], "Namespace": "N", "MetricName": "M",
            "Dimensions": [{"Name": "A", "Value": "a"}], "Statistic": "Sum", "Period": "60", "EvaluationPeriods": "3",
            "ComparisonOperator": "GreaterThanOrEqualToThreshold", "Threshold": "2", "TreatMissingData": "notBreaching",
        })
    }

    /// The state at `NOW`, when values were logged so many seconds before.
    fn state(changes: Value, values: &[(i64, f64)]) -> State {
        let mut properties = properties();
        properties.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let alarm = Alarm::parse("M", &properties).unwrap();
        let mut cloudwatch = CloudWatch::default();
        for (before, value) in values {
            assert!(cloudwatch.log(NOW - Duration::seconds(*before), &line(*value).to_string()));
        }
        assert_eq!(cloudwatch.refused, [""; 0]);
        alarm.state(&cloudwatch, NOW)
    }

    /// What is changed of the alarm, the values, and the state.
    type Row<'a> = (Value, &'a [(i64, f64)], State);

    #[test]
    fn an_alarm_is_raised_as_it_is_defined() {
        let one = json!({"DatapointsToAlarm": 1});
        let missing = |how: &str| json!({"TreatMissingData": how});
        let with = |changes: &Value, more: Value| {
            let mut all = changes.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let all = [(170, 2.0), (110, 2.0), (50, 2.0)];
        let rows: [Row<'_>; 20] = [
            (json!({}), &all, State::Alarm),
            (json!({}), &all[1..], State::Ok),
            (json!({}), &[(170, 2.0), (110, 1.0), (50, 2.0)], State::Ok),
            // Of one period, added up.
            (json!({}), &[(170, 2.0), (110, 1.0), (70, 1.0), (50, 2.0)], State::Alarm),
            (json!({"Statistic": "Maximum"}), &[(170, 2.0), (110, 1.0), (70, 1.0), (50, 2.0)], State::Ok),
            (one.clone(), &[(170, 2.0)], State::Alarm),
            (one.clone(), &[(180, 2.0)], State::Ok),
            (one.clone(), &[(0, 1.0)], State::Ok),
            (with(&one, json!({"ComparisonOperator": "GreaterThanThreshold"})), &[(0, 2.0)], State::Ok),
            (with(&one, json!({"ComparisonOperator": "LessThanThreshold"})), &[(0, 2.0)], State::Ok),
            (with(&one, json!({"ComparisonOperator": "LessThanThreshold"})), &[(0, 1.5)], State::Alarm),
            (with(&one, json!({"ComparisonOperator": "LessThanOrEqualToThreshold"})), &[(0, 2.0)], State::Alarm),
            (
                with(&one, json!({"Statistic": "Minimum", "ComparisonOperator": "LessThanThreshold"})),
                &[(5, 9.0), (0, 1.0)],
                State::Alarm,
            ),
            (json!({}), &[], State::Ok),
            (missing("breaching"), &[], State::Alarm),
            (missing("breaching"), &[(170, 0.0)], State::Ok),
            (missing("missing"), &[], State::InsufficientData),
            (missing("ignore"), &[], State::InsufficientData),
            (missing("ignore"), &[(7000, 2.0), (6000, 2.0), (5000, 2.0)], State::Alarm),
            (missing("ignore"), &[(7000, 2.0), (6000, 2.0), (5000, 1.0)], State::Ok),
        ];
        for (changes, values, expected) in rows {
            assert_eq!(state(changes.clone(), values), expected, "{changes} {values:?}");
        }
    }

    #[test]
    fn metrics_of_an_alarm_are_added_up() {
        let stat = |name: &str| {
            let metric = json!({"Namespace": "N", "MetricName": name, "Dimensions": [{"Name": "A", "Value": "a"}]});
            json!({"Id": name, "ReturnData": false, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}})
        };
        let sum = json!({"Id": "all", "Expression": "SUM(METRICS())", "ReturnData": true});
        let mut properties = properties();
        for name in ["Namespace", "MetricName", "Dimensions", "Statistic", "Period"] {
            properties.as_object_mut().unwrap().remove(name);
        }
        properties["EvaluationPeriods"] = json!(1);
        properties["Metrics"] = json!([sum, stat("M"), stat("L")]);
        let alarm = Alarm::parse("M", &properties).unwrap();
        let mut cloudwatch = CloudWatch::default();
        cloudwatch.log(NOW, &line(1.0).to_string());
        assert_eq!(alarm.state(&cloudwatch, NOW), State::Ok);
        cloudwatch.log(NOW, &line(1.0).to_string().replace("\"M\"", "\"L\""));
        assert_eq!(alarm.state(&cloudwatch, NOW), State::Alarm);
        for wrong in
            [json!([stat("M")]), json!([sum, sum, stat("M")]), json!([{"Id": "a", "Expression": "m/2", "ReturnData": true}])]
        {
            properties["Metrics"] = wrong;
            assert!(Alarm::parse("M", &properties).is_err(), "{properties}");
        }
    }

    #[test]
    fn what_an_alarm_says_and_is_not_understood_is_an_error() {
        for (name, value) in [
            ("Unit", json!("Count")),
            ("ExtendedStatistic", json!("p90")),
            ("Statistic", json!("Average")),
            ("Period", json!(90)),
            ("Period", json!("soon")),
            ("EvaluationPeriods", json!(1441)),
            ("ComparisonOperator", json!("Above")),
            ("TreatMissingData", json!("hope")),
            ("Threshold", json!("high")),
        ] {
            let mut properties = properties();
            properties[name] = value;
            assert!(Alarm::parse("M", &properties).is_err(), "{name}: {properties}");
        }
    }

    #[test]
    fn a_line_that_cloudwatch_would_not_take_is_refused_and_one_without_metrics_is_none() {
        let mut cloudwatch = CloudWatch::default();
        assert!(!cloudwatch.log(NOW, "text") && !cloudwatch.log(NOW, "{\"level\":\"INFO\"}"));
        let without = |name: &str| {
            let mut line = line(1.0);
            line.as_object_mut().unwrap().remove(name);
            line
        };
        let mut timeless = line(1.0);
        timeless["_aws"]["Timestamp"].take();
        let mut empty = line(1.0);
        empty["A"] = json!("");
        let bad = [without("A"), without("M"), timeless, empty];
        for line in &bad {
            assert!(cloudwatch.log(NOW, &line.to_string()), "{line}");
        }
        assert_eq!((cloudwatch.refused.len(), cloudwatch.metrics().count()), (bad.len(), 0));
    }
}
