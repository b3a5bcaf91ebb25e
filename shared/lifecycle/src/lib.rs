//! What Everleaf decides. Nothing here calls AWS, waits, or reads a clock: facts and the time come in, a decision goes out.
//!
//! A certificate's life, in the order of the modules:
//!
//! ```text
//!            order (issuance)            verified, promoted            due (renewal)
//!  nothing ───────────────────▶ attempt ───────────────────▶ current ───────────────▶ attempt ─▶ …
//!                                  │ crash: resumed,            │
//!                                  ▼ or dead after 4 minutes    ▼ every service older than the pair (rollout)
//!                               next attempt                 redeployed
//! ```
//!
//! - [`names`]: what things are called: certificates, services, ARNs, subject alternative names
//! - [`leaf`]: what a certificate says of itself
//! - [`record`]: what is kept of a certificate between two looks at it
//! - [`attempt`]: who may work on a certificate now, and the tokens that make every repeat harmless
//! - [`issuance`]: request and policy in, order or every reason against it out
//! - [`export`]: what ACM holds and what the secret holds, compared
//! - [`import`]: what ACM is to hold as well, for listeners
//! - [`renewal`]: record, what AWS shows, now → what to do and why
//! - [`pace`]: what the sweep asks for → how long the account's quotas take to grant it
//! - [`window`]: when a certificate may be replaced
//! - [`rollout`]: a service and the pairs it uses → redeploy or not
//! - [`setback`]: a deployment that failed on a new pair → back to the one before
//! - [`revocation`]: a serial that is to be revoked → now, or once it is replaced everywhere
//! - [`retirement`]: what goes with a certificate that is not wanted any more
//! - [`authority`]: CA certificates and CRLs, judged by what an ALB trust store takes
//! - [`bundle`]: CAs and objects that were named → what a trust store is to hold, and what is refused
//! - [`trust`]: what was declared of trust stores, and who waits for them
//! - [`refresh`]: a trust store as it is and as it is to be → what to do with it
//! - [`report`]: record and trust stores → what a person is shown of them
//! - [`events`]: what the functions tell one another and the outside

pub mod attempt;
pub mod authority;
pub mod bundle;
pub mod events;
pub mod export;
mod fields;
pub mod import;
pub mod issuance;
pub mod leaf;
pub mod names;
pub mod pace;
pub mod record;
pub mod refresh;
pub mod renewal;
pub mod report;
pub mod retirement;
pub mod revocation;
pub mod rollout;
#[cfg(test)]
mod samples;
pub mod setback;
pub mod trust;
pub mod window;

use sha2::{Digest, Sha256};

pub use crate::fields::Refusal;

/// Text for people: `2026-11-22 05:47 UTC`.
pub fn date(at: time::OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
}

/// A number from 0 up to 1 that stays the same for a name: by it, what many do does not happen at once.
pub fn fraction(name: &str) -> f64 {
    let digest = Sha256::digest(name);
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::at;

    #[test]
    fn a_date_for_people_is_in_utc_and_has_two_digits_everywhere() {
        for (moment, text) in [
            ("2026-11-22T05:47:59.9Z", "2026-11-22 05:47 UTC"),
            ("2026-01-02T03:04:00Z", "2026-01-02 03:04 UTC"),
            ("2026-12-31T23:30:00-01:00", "2027-01-01 00:30 UTC"),
        ] {
            assert_eq!(date(at(moment)), text);
        }
    }
}
