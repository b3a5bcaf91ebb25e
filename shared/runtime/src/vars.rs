//! Settings from environment variables: parsed into types, all faults told at once. A bad setting stops the start; none becomes a
//! default.

use std::fmt::Display;
use std::str::FromStr;

type LookUp<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The variables of a function, and what is wrong with those read so far.
pub struct Vars<'a> {
    look_up: Box<LookUp<'a>>,
    faults: Vec<String>,
}

impl Vars<'static> {
    /// The process's own.
    #[expect(clippy::disallowed_methods, reason = "the one place where a function reads its environment")]
    pub fn of_environment() -> Self {
        Vars::new(|name| std::env::var(name).ok())
    }
}

impl<'a> Vars<'a> {
    pub fn new(look_up: impl Fn(&str) -> Option<String> + 'a) -> Self {
        Self { look_up: Box::new(look_up), faults: Vec::new() }
    }

    /// A variable that must be set. The placeholder that stands in for a faulty one never gets out: [`finish`](Self::finish) fails.
    pub fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let value = self.optional(name);
        if value.is_none() && !self.faults.iter().any(|fault| fault.starts_with(name)) {
            self.faults.push(format!("{name} is not set"));
        }
        value
    }

    /// A variable that may be missing or empty.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = (self.look_up)(name).filter(|text| !text.is_empty())?;
        text.parse().map_err(|error| self.faults.push(format!("{name}: {error}"))).ok()
    }

    /// Values between commas; none when it is missing or empty.
    pub fn list<T: FromStr<Err: Display>>(&mut self, name: &str) -> Vec<T> {
        let text = (self.look_up)(name).unwrap_or_default();
        let mut values = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(value) => values.push(value),
                Err(error) => self.faults.push(format!("{name}: {error}")),
            }
        }
        values
    }

    /// Notes what is wrong with a variable beyond its form.
    pub fn fault(&mut self, name: &str, why: impl Display) {
        self.faults.push(format!("{name}: {why}"));
    }

    /// What was built from the variables, or everything that is wrong with them. `built` is `None` when a required one was missing.
    pub fn finish<T>(self, built: Option<T>) -> Result<T, String> {
        match built {
            Some(built) if self.faults.is_empty() => Ok(built),
            _ => Err(format!("settings: {}", self.faults.join("; "))),
        }
    }
}
