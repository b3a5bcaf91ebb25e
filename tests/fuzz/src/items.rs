//! What is kept in the table, and the tags on secrets and on ACM's certificates: anybody with the right may have written them.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::record::Record;
use lifecycle::renewal::{Facts, Secret, plan};
use lifecycle::rollout::BindingState;
use lifecycle::trust::Stores;
use records::table::{Item, Walk};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{NOW, text};

const SWEEP: Duration = Duration::from_secs(60 * 60);

/// Any item of the table, written as JSON.
pub(crate) fn item(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let record = read::<Record>(text);
    if let Some(record) = &record {
        let services = record.options.services.iter().map(|service| (service.clone(), BindingState::default())).collect();
        let facts = Facts {
            secret: Secret::Good,
            astray: None,
            replicas: Default::default(),
            held: None,
            untagged: false,
            services,
            rollover: None,
            waits_for: Default::default(),
        };
        // The sweep meets every record, and must get past it.
        _ = plan(record, &facts, SWEEP, NOW);
        _ = lifecycle::attempt::turn(record, "me", "due", None, NOW);
        _ = lifecycle::setback::blame(record, "tasks failed", SWEEP, NOW);
    }
    if let Some(state) = read::<BindingState>(text) {
        _ = state.lags(NOW) || state.is_on(NOW);
    }
    let stores = read::<Stores>(text);
    read::<Walk>(text);
    record.is_some() || stores.is_some()
}

fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let value = serde_json::from_str(text).ok()?;
    reads_back(&value);
    Some(value)
}

/// Written as text and as an item of the table, it reads as the same.
pub(crate) fn reads_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert_eq!(serde_json::from_str::<T>(&text).as_ref().ok(), Some(value), "{text}");
    let item: Item = serde_dynamo::to_item(value).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert_eq!(serde_dynamo::from_item::<_, T>(item).as_ref().ok(), Some(value), "{text}");
}

/// Tags, each on a line: `key=value`.
pub(crate) fn tags(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let tags: BTreeMap<_, _> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match acm::read_tags(&tags, "everleaf") {
        Err(faults) => assert!(!faults.is_empty(), "refused for no reason: {tags:?}"),
        Ok(Some(managed)) => assert_eq!(tags["everleaf:certificate"], format!("everleaf/{}", managed.name)),
        Ok(None) => {}
    }
    let options = records::install::options(true, &tags);
    let both = options.services.intersection(&options.agent_services).count();
    assert_eq!(both, 0, "{options:?}");
    reads_back(&options);
    options != Default::default()
}
