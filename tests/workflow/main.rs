//! The whole flow on Local AWS.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

#[macro_use]
mod scenario;

mod account;
mod agents;
mod alarms;
mod answers;
mod authorities;
mod canary;
mod crashes;
mod faults;
mod histories;
mod imports;
mod input;
mod keys;
mod kinds;
mod pairs;
mod recovery;
mod replicas;
mod report;
mod retirement;
mod rollbacks;
mod rotation;
mod stacks;
mod storms;
mod triggers;
mod trust;
mod upgrades;
mod windows;
mod wiring;
