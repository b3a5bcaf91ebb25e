use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Failure;

/// What a function was invoked with.
#[derive(Debug)]
pub enum Trigger {
    /// An event of EventBridge.
    Event {
        source: String,
        detail_type: String,
        /// The ARN that the event is about: the first of its resources.
        resource: Option<String>,
        detail: Value,
    },
    /// Anything else: a request of a person or a program, or the input of a schedule.
    ByHand(Value),
}

impl Trigger {
    /// Tells the two apart by the envelope's field `detail-type`, which no request has.
    pub fn parse(event: Value) -> Result<Self, Failure> {
        if event.get("detail-type").is_none() {
            return Ok(Self::ByHand(event));
        }
        let event = EventBridgeEvent::<Value>::deserialize(event)
            .map_err(|error| Failure::permanent("read the event's envelope", error))?;
        Ok(Self::Event {
            source: event.source,
            detail_type: event.detail_type,
            resource: event.resources.and_then(|resources| resources.into_iter().next()),
            detail: event.detail,
        })
    }

    /// A request by hand as `T`; `usage` says what it may be.
    pub fn request<T: DeserializeOwned>(value: Value, usage: &str) -> Result<T, Failure> {
        T::deserialize(value).map_err(|error| Failure::permanent("read the request", format!("{error}; {usage}")))
    }

    /// A detail as `T`.
    pub fn body<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
        T::deserialize(value).map_err(|error| Failure::permanent("read the request", error))
    }
}
