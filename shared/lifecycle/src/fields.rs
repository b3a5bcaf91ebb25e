//! A request's fields, read one by one, with everything that is wrong with them.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::names::BadName;

/// Every reason why a request cannot be served, each with its field and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", reasons.join("; "))]
pub struct Refusal {
    pub reasons: Vec<String>,
}

impl Refusal {
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()] }
    }
}

/// The fields of a request, or of a part of one, that are not read yet, and what is wrong with those that are.
pub(crate) struct Fields {
    what: &'static str,
    left: Map<String, Value>,
    pub(crate) reasons: Vec<String>,
}

impl Fields {
    /// `what` is being read, and `least` is the field that it cannot be without.
    pub(crate) fn of(value: &Value, what: &'static str, least: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(fields) => Ok(Self { what, left: fields.clone(), reasons: Vec::new() }),
            _ => Err(Refusal::because(format!("the {what} is not a JSON object; give one with at least `{least}`"))),
        }
    }

    pub(crate) fn refuse(&mut self, field: &str, why: impl std::fmt::Display) {
        self.reasons.push(format!("{field}: {why}"));
    }

    /// Whether something is wrong with a field already, so that nothing can be said of what would stand in its place.
    pub(crate) fn is_refused(&self, field: &str) -> bool {
        self.reasons.iter().any(|reason| reason.starts_with(field))
    }

    /// Takes a field; `null` counts as not given.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field).filter(|value| !value.is_null())
    }

    pub(crate) fn required<T: FromStr<Err = BadName>>(&mut self, field: &str, what: &str) -> Option<T> {
        if self.left.get(field).is_none_or(Value::is_null) {
            self.refuse(field, format_args!("is missing; give {what}"));
        }
        self.text(field)
    }

    pub(crate) fn text<T: FromStr<Err = BadName>>(&mut self, field: &str) -> Option<T> {
        let parsed = match self.take(field)? {
            Value::String(text) => text.parse().map_err(|BadName(why)| why),
            other => Err(format!("`{other}` is not text")),
        };
        parsed.map_err(|why| self.refuse(field, why)).ok()
    }

    pub(crate) fn flag(&mut self, field: &str) -> bool {
        match self.take(field) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.refuse(field, format_args!("`{other}` is neither true nor false"));
                false
            }
        }
    }

    pub(crate) fn list<T: FromStr<Err = BadName> + Ord>(&mut self, field: &str) -> Option<BTreeSet<T>> {
        let Value::Array(entries) = self.take(field)? else {
            self.refuse(field, "is not a list of text");
            return None;
        };
        let mut all = BTreeSet::new();
        for entry in entries {
            match entry.as_str().map(str::parse::<T>) {
                Some(Ok(parsed)) if !all.contains(&parsed) => _ = all.insert(parsed),
                Some(Ok(_)) => self.refuse(field, format_args!("{entry} stands twice")),
                Some(Err(BadName(why))) => self.refuse(field, why),
                None => self.refuse(field, format_args!("`{entry}` is not text")),
            }
        }
        Some(all)
    }

    /// `{"hours": n}` or `{"days": n}`.
    pub(crate) fn duration(&mut self, field: &str) -> Option<Duration> {
        let given = self.take(field)?;
        let one = given.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.iter().next());
        let lasts = one.and_then(|(unit, value)| {
            let n = value.as_u64().filter(|n| (1..=100_000).contains(n))?;
            match unit.as_str() {
                "hours" => Some(Duration::from_secs(n * 60 * 60)),
                "days" => Some(Duration::from_secs(n * 24 * 60 * 60)),
                _ => None,
            }
        });
        if lasts.is_none() {
            self.refuse(field, format_args!("{given} is not understood; give {{\"hours\": n}} or {{\"days\": n}}"));
        }
        lasts
    }

    /// Refuses every field that nobody asked for. `known` are those that there are.
    pub(crate) fn nothing_else(&mut self, known: &str) {
        let what = self.what;
        for field in std::mem::take(&mut self.left).keys() {
            self.refuse(field, format_args!("is not a field of a {what}; known are {known}"));
        }
    }
}
