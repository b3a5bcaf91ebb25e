//! What is kept of trust stores, and which certificates need a CA.

use lifecycle::names::{Arn, CertificateName};
use lifecycle::trust::{Declarations, Stores, Successors, Trust};
use runtime::Failure;
use runtime::vars::Vars;
use time::OffsetDateTime;

use crate::Records;
use crate::table::Saved;

/// What the stack's parameters say of trust, for a function that has to heed it.
pub fn settings(vars: &mut Vars<'_>) -> Trust {
    let Declarations(declared) = vars.optional("EVERLEAF_TRUST_STORES").unwrap_or_default();
    let successors = Successors::new(vars.list("EVERLEAF_RETIRED_CAS"));
    let successors = successors.map_err(|why| vars.fault("EVERLEAF_RETIRED_CAS", why)).unwrap_or_default();
    Trust { declared, successors }
}

impl Records {
    /// What is kept of the stack's trust stores; `None` when nothing was ever kept, or the table was lost.
    pub async fn stores(&self) -> Result<Option<Stores>, Failure> {
        self.read(STORES).await
    }

    /// Writes it if nobody has written it since it was read.
    pub async fn save_stores(&self, stores: &mut Stores) -> Result<Saved, Failure> {
        let read = stores.revision;
        stores.revision += 1;
        let saved = self.write(STORES, stores, read, "save what is known of the trust stores").await;
        if !matches!(saved, Ok(Saved::Done)) {
            stores.revision = read;
        }
        saved
    }

    /// A certificate with an unexpired pair, current or previous, that this CA has issued and not revoked.
    pub async fn needs(&self, authority: &Arn, now: OffsetDateTime) -> Result<Option<CertificateName>, Failure> {
        for index in ["issuer", "previous_issuer"] {
            if let Some(name) = self.first_of(index, authority, now).await? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

const STORES: &str = "trust";
