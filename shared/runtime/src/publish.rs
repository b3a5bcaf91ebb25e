use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use lifecycle::events::{Event, SOURCE};

use crate::{Failure, metrics};

/// Puts events on the account's default bus, ten a call, in their order. Entries that EventBridge could not take are sent again;
/// whatever is then still missing is found by the next sweep. Each that was taken is counted under its type.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>
pub async fn publish(eventbridge: &Client, events: &[Event]) -> Result<(), Failure> {
    for events in events.chunks(10) {
        let mut left = events.iter().map(entry).collect::<Result<Vec<_>, Failure>>()?;
        let mut refused = String::new();
        for _ in 0..3 {
            let answer = eventbridge
                .put_events()
                .set_entries(Some(left.clone()))
                .send()
                .await
                .map_err(|error| Failure::aws("publish events", error))?;
            let mut results = answer.entries().iter();
            left.retain(|_| {
                let code = results.next().and_then(|result| result.error_code().map(str::to_owned));
                refused = code.clone().unwrap_or_else(|| std::mem::take(&mut refused));
                code.is_some()
            });
            if left.is_empty() {
                break;
            }
        }
        if !left.is_empty() {
            return Err(Failure::retryable("publish events", format!("EventBridge refused {} of them: {refused}", left.len())));
        }
        for Event { kind, detail } in events {
            let function = eventbridge.config().app_name().map_or("", |name| name.as_ref());
            metrics(&[("Stack", &detail.prefix), ("Function", function)], &[(&kind.metric(), 1.0)]);
            let certificate = detail.certificate.as_deref().unwrap_or_default();
            let store = detail.trust_store.as_ref().map(ToString::to_string);
            let about = detail.certificate.as_deref().or(store.as_deref()).unwrap_or("the whole stack");
            tracing::info!(
                event = kind.detail_type(),
                certificate.name = certificate,
                "Published `{}` for `{about}`: {}",
                kind.detail_type(),
                detail.reason.as_deref().unwrap_or_default()
            );
        }
    }
    Ok(())
}

fn entry(event: &Event) -> Result<PutEventsRequestEntry, Failure> {
    let detail = serde_json::to_string(&event.detail).map_err(|error| Failure::permanent("write an event", error))?;
    Ok(PutEventsRequestEntry::builder().source(SOURCE).detail_type(event.kind.detail_type()).detail(detail).build())
}
