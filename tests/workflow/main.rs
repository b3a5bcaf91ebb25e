//! The whole flow on Local AWS.

#[macro_use]
mod scenario;

mod account;
mod crashes;
mod faults;
mod triggers;
