use std::fmt::{self, Debug, Write};

use lambda_runtime::tracing::field::Field;
use lambda_runtime::tracing::subscriber::fmt::format::Writer;
use lambda_runtime::tracing::subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use lambda_runtime::tracing::subscriber::registry::LookupSpan;
use lambda_runtime::tracing::{Event, Subscriber};
use serde_json::{Value, json};

/// The namespace of all metrics in CloudWatch.
pub const NAMESPACE: &str = "Everleaf";

/// What is logged under it is a line of its own already.
const TARGET: &str = "metrics";

/// Files values in CloudWatch under the first dimension alone, and under all of them together: the first is the stack, which alarms
/// look at. It takes no call: CloudWatch reads them from the log, where each line of its Embedded Metric Format is JSON.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
pub fn metrics(dimensions: &[(&str, &str)], values: &[(&str, f64)]) {
    tracing::info!(target: TARGET, "{}", line(dimensions, values, crate::now().unix_timestamp_nanos() / 1_000_000));
}

fn line(dimensions: &[(&str, &str)], values: &[(&str, f64)], milliseconds: i128) -> Value {
    let all: Vec<_> = dimensions.iter().map(|(name, _)| *name).collect();
    let mut sets = vec![&all[..all.len().min(1)], &all[..]];
    sets.dedup();
    let names: Vec<_> = values.iter().map(|(name, _)| json!({"Name": name})).collect();
    let metadata = json!({
        "Timestamp": i64::try_from(milliseconds).unwrap_or(i64::MAX),
        "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": sets, "Metrics": names}],
    });
    let dimensions = dimensions.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    Value::Object(dimensions.chain(values).chain([("_aws".to_owned(), metadata)]).collect())
}

/// Log lines as `F` writes them, and metrics as they are.
pub(crate) struct Lines<F>(pub(crate) F);

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != TARGET {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        event.record(&mut |_: &Field, message: &dyn Debug| _ = write!(line, "{message:?}"));
        writeln!(writer, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use lambda_runtime::tracing::dispatcher;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn metrics_are_lines_of_the_embedded_metric_format_among_those_of_the_log() {
        for json in [true, false] {
            let log = Log::default();
            let writer = log.clone();
            dispatcher::with_default(&crate::logging(json, move || writer.clone()), || {
                tracing::info!("before");
                metrics(&[("Stack", "everleaf"), ("Certificate", "orders")], &[("DaysToExpiry", 6.5), ("Failed", 0.0)]);
                tracing::info!("after");
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert!(lines.len() == 3 && lines[0].contains("before") && lines[2].contains("after"), "{text}");
            let mut line: Value = serde_json::from_str(lines[1]).unwrap();
            let now = crate::now().unix_timestamp() * 1000;
            let milliseconds = line["_aws"]["Timestamp"].take().as_i64().unwrap();
            assert!((now - 60_000..=now + 1000).contains(&milliseconds), "{milliseconds}");
            let expected = json!({
                "_aws": {
                    "Timestamp": null,
                    "CloudWatchMetrics": [{
                        "Namespace": "Everleaf", "Dimensions": [["Stack"], ["Stack", "Certificate"]],
                        "Metrics": [{"Name": "DaysToExpiry"}, {"Name": "Failed"}],
                    }],
                },
                "Stack": "everleaf", "Certificate": "orders", "DaysToExpiry": 6.5, "Failed": 0.0,
            });
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn a_metric_of_the_stack_alone_is_filed_once() {
        let line = line(&[("Stack", "everleaf")], &[("SweepCompleted", 1.0)], 0);
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["Stack"]]));
    }
}
