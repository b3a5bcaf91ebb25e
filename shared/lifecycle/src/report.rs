//! The fleet as a person wants to see it: of each certificate its state and why, of each trust store what it holds and what leaves.
//!
//! Rows are made of public facts alone: records hold no others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use crate::date;
use crate::leaf::{KeyAlgorithm, Serial};
use crate::names::{Arn, CertificateName, San, ServiceName, StoreName};
use crate::record::{Contents, Moment, Origin, Pair, Record, Specification};
use crate::renewal::{ACM_WINDOW, due, late, rest};
use crate::rollout::{self, BindingState, Progress};
use crate::trust::{Listener, NOTICE, Store, Stores, Trust};
use crate::window::Hold;
use crate::{import, setback};

/// How things stand with a certificate. What is further up goes before what is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Expired,
    /// A person has to act.
    Attention,
    /// A person wants it to stay as it is.
    Paused,
    /// For trust stores, a window, a canary, or a day after a setback.
    Waiting,
    /// Something is under way, or will be at the next sweep.
    Due,
    NotIssued,
    Good,
}

/// What is told of a certificate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub certificate: CertificateName,
    pub state: State,
    /// Empty where all is good.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Moment>,
    /// From when on a new pair is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<Serial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Arn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<San>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
    /// As tags name them.
    pub services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acm_certificate_arn: Option<Arn>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

/// What a person was told, and when last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    pub at: Moment,
    pub message: String,
}

impl Row {
    /// `services` is what is known of those of the record.
    pub fn of(
        record: &Record,
        services: &BTreeMap<ServiceName, BindingState>,
        trust: &Trust,
        stores: &Stores,
        sweep_interval: Duration,
        now: OffsetDateTime,
    ) -> Self {
        let view = View { record, services, trust, stores, sweep_interval, now };
        let (state, reason) = view.state();
        let current = record.current.as_ref();
        let contents = match record.specification() {
            Some(Specification { subject, names, key_algorithm, .. }) => {
                Contents { subject: subject.to_string(), names: names.clone(), key_algorithm: Some(*key_algorithm) }
            }
            None => record.contents.clone().unwrap_or_default(),
        };
        let exported = match &record.origin {
            Origin::Exported { certificate_arn } => Some(certificate_arn),
            _ => None,
        };
        let message = |code: &String| record.messages.get(code).unwrap_or(code).clone();
        let mut told: Vec<_> = record.told.iter().map(|(code, at)| Told { at: *at, message: message(code) }).collect();
        told.sort_by_key(|told| std::cmp::Reverse(told.at));
        Self {
            certificate: record.name.clone(),
            state,
            reason,
            origin: Some(record.origin.as_str()),
            not_before: current.map(|pair| pair.not_before),
            not_after: current.map(|pair| pair.not_after),
            renews_at: current.and_then(|pair| view.renews_at(pair)).map(Moment::from),
            serial_number: current.map(|pair| pair.serial.clone()),
            issuer: current.and_then(|pair| pair.issuer.clone()),
            subject: Some(contents.subject).filter(|subject| !subject.is_empty()),
            names: contents.names,
            key_algorithm: contents.key_algorithm,
            services: record.options.tagged_services().map(|service| service.to_string()).collect(),
            acm_certificate_arn: record.acm_certificate().or(exported).cloned(),
            told,
        }
    }

    /// Of a certificate whose record cannot be read.
    pub fn unreadable(name: CertificateName, why: String) -> Self {
        Self {
            certificate: name,
            state: State::Attention,
            reason: why,
            origin: None,
            not_before: None,
            not_after: None,
            renews_at: None,
            serial_number: None,
            issuer: None,
            subject: None,
            names: BTreeSet::new(),
            key_algorithm: None,
            services: Vec::new(),
            acm_certificate_arn: None,
            told: Vec::new(),
        }
    }
}

/// A record and what else its state depends on.
struct View<'a> {
    record: &'a Record,
    services: &'a BTreeMap<ServiceName, BindingState>,
    trust: &'a Trust,
    stores: &'a Stores,
    sweep_interval: Duration,
    now: OffsetDateTime,
}

/// What is told once, and whose end the record itself shows.
const SHOWN_OTHERWISE: [&str; 5] = ["expired", "renewal-late", "rolled-back", "rollout-failed", "service-refused"];

impl View<'_> {
    fn state(&self) -> (State, String) {
        let Self { record, now, .. } = self;
        let Some(current) = &record.current else {
            return match (self.needs_a_person(None), self.staged()) {
                (Some(why), _) => (State::Attention, why),
                (None, Some(why)) => (State::Waiting, why),
                (None, None) => (State::NotIssued, self.not_issued()),
            };
        };
        let needs_a_person = self.needs_a_person(Some(current));
        if *current.not_after <= *now {
            let why = needs_a_person.unwrap_or_else(|| "no renewal has succeeded".to_owned());
            return (State::Expired, format!("it expired {}; {why}", date(*current.not_after)));
        }
        if let Some(why) = needs_a_person {
            return (State::Attention, why);
        }
        if record.options.paused {
            let wants = self.wants(current).map(|why| format!(", although {why}")).unwrap_or_default();
            return (State::Paused, format!("it is paused{wants}"));
        }
        if let Some(why) = self.waits(current) {
            return (State::Waiting, why);
        }
        match self.under_way(current) {
            Some(what) => (State::Due, what),
            None => (State::Good, String::new()),
        }
    }

    /// What no sweep can mend.
    fn needs_a_person(&self, current: Option<&Pair>) -> Option<String> {
        let Self { record, now, .. } = self;
        let is_new = |at: Moment| *now - *at < stays_open(self.sweep_interval) && current.is_none_or(|pair| at >= pair.since);
        let halted = record.halted.as_ref().filter(|halt| is_new(halt.at)).map(|halt| halt.reason.clone());
        if halted.is_some() {
            return halted;
        }
        let open = record.told.iter().filter(|(code, at)| !SHOWN_OTHERWISE.contains(&code.as_str()) && is_new(**at));
        if let Some((code, _)) = open.max_by_key(|(_, at)| **at) {
            return Some(record.messages.get(code).unwrap_or(code).clone());
        }
        let current = current?;
        if record.set_back().is_some_and(setback::Setback::waits_for_a_person) {
            let retry = format!("{{\"retry\": \"{}\"}}", record.name);
            return Some(format!(
                "deployments failed on new pairs in a row; see to its services, then invoke renew-on-expiry with {retry}"
            ));
        }
        if let Some(why) = record.options.services.iter().find_map(|service| self.fault(service, current)) {
            return Some(why);
        }
        match &record.origin {
            Origin::CallerKey(_) => {
                self.wants(current).map(|why| format!("{why}, and its key is its caller's; send a CSR again"))
            }
            Origin::Issued(_) | Origin::Exported { .. } if (late(record, current)..*current.not_after).contains(now) => {
                let why = self.waits(current).map(|why| format!(": {why}")).unwrap_or_default();
                Some(format!("it expires {} and is not renewed yet{why}", date(*current.not_after)))
            }
            _ => None,
        }
    }

    fn fault(&self, service: &ServiceName, current: &Pair) -> Option<String> {
        let state = self.services.get(service)?;
        if let Some(fault) = &state.fault {
            return Some(format!("the service {service} cannot be redeployed: {}", fault.reason));
        }
        let deployment = state.deployment.as_ref()?;
        let failed = deployment.progress == Progress::Failed && deployment.began > current.since;
        failed.then(|| format!("the last deployment of the service {service} failed; see to the service"))
    }

    fn not_issued(&self) -> String {
        match (&self.record.origin, &self.record.attempt) {
            (_, Some(attempt)) => format!("attempt {} is under way: {}", attempt.number, attempt.reason),
            (Origin::Adopted { .. }, _) => "imported into ACM by hand; replaced before that expires".to_owned(),
            (Origin::Exported { .. }, _) => "not exported from ACM yet".to_owned(),
            (Origin::Issued(_) | Origin::CallerKey(_), _) => "not issued yet".to_owned(),
        }
    }

    /// Why a new pair is wanted.
    fn wants(&self, current: &Pair) -> Option<String> {
        let Self { record, now, .. } = self;
        if let Some(revocation) = record.revocation_of_current() {
            return Some(revocation.in_words());
        }
        if self.renews_at(current).is_some_and(|at| at <= *now) {
            return Some(format!("it expires {}", date(*current.not_after)));
        }
        if record.set_back().is_some() && matches!(record.origin, Origin::Issued(_)) {
            return Some("a deployment failed on the pair after it".to_owned());
        }
        let issuer = current.issuer.as_ref()?;
        if let Some(successor) = self.trust.successors.of(issuer) {
            return Some(format!("{issuer} is retired and {successor} issues in its place"));
        }
        let asked = &record.specification()?.certificate_authority_arn;
        (asked != issuer).then(|| format!("it is to be issued by {asked}"))
    }

    fn renews_at(&self, current: &Pair) -> Option<OffsetDateTime> {
        match &self.record.origin {
            // ACM does it by itself two weeks earlier.
            Origin::Exported { .. } => Some(*current.not_after - ACM_WINDOW),
            _ => due(self.record, self.sweep_interval),
        }
    }

    fn waits(&self, current: &Pair) -> Option<String> {
        let Self { record, now, .. } = self;
        if record.setback.as_ref().is_some_and(|setback| !setback.done) {
            return None;
        }
        if let Some(why) = self.staged() {
            return Some(why);
        }
        if let Some(canary) = &record.options.canary {
            let waits = |service: &&ServiceName| {
                let is_behind = self.services.get(*service).is_none_or(|state| state.lags(*current.since));
                is_behind && rollout::waits(service, std::slice::from_ref(record), |service| self.services.get(service), *now)
            };
            let waiting: Vec<_> = record.options.services.iter().filter(waits).map(ToString::to_string).collect();
            if !waiting.is_empty() {
                return Some(format!("{} until the new pair works in {canary}", waiting.join(", ")));
            }
        }
        let why = self.wants(current).filter(|_| record.attempt.is_none() && !record.is_compromised())?;
        if let Some(at) = record.set_back().and_then(|setback| setback.next(rest(record, self.sweep_interval)))
            && *now < at
        {
            return Some(format!("a deployment failed on the last pair; another one is tried {}", date(at)));
        }
        let successor = current.issuer.as_ref().and_then(|issuer| self.trust.successors.of(issuer));
        if let Some(missing) = successor.and_then(|successor| self.missing(successor)) {
            return Some(format!("{why}; {missing}"));
        }
        match record.held_back(*now)? {
            Hold::Until(opens) => Some(format!("{why}; its maintenance window opens {}", date(opens))),
            Hold::Paused => None,
        }
    }

    /// The trust stores that a new pair, verified and kept ready, waits for.
    fn staged(&self) -> Option<String> {
        let staged = self.record.attempt.as_ref()?.staged.as_ref()?;
        Some(format!("a new pair is ready; {}", self.missing(staged.issuer.as_ref()?)?))
    }

    fn missing(&self, authority: &Arn) -> Option<String> {
        let missing: Vec<_> = self.trust.missing(self.stores, authority).iter().map(ToString::to_string).collect();
        (!missing.is_empty()).then(|| format!("it waits for {} to hold {authority}", missing.join(", ")))
    }

    fn under_way(&self, current: &Pair) -> Option<String> {
        let Self { record, now, .. } = self;
        if let Some(setback) = record.setback.as_ref().filter(|setback| !setback.done) {
            return Some(format!("it goes back to the pair before: {}", setback.reason));
        }
        if let Some(attempt) = &record.attempt {
            return Some(format!("attempt {} is under way: {}", attempt.number, attempt.reason));
        }
        if let Some(why) = self.wants(current) {
            let asked = record.renewal_asked.as_ref().filter(|asked| asked.serial == current.serial);
            let asked = asked.map(|asked| format!("; ACM was asked to renew it {}", date(*asked.at))).unwrap_or_default();
            return Some(format!("{why}{asked}"));
        }
        let lags = |service: &&ServiceName| self.services.get(*service).is_none_or(|state| state.lags(*current.since));
        let lagging: Vec<_> = record.options.services.iter().filter(lags).map(ToString::to_string).collect();
        if !lagging.is_empty() {
            return Some(format!("{} is redeployed with the new pair", lagging.join(", ")));
        }
        if import::turn(record, "", *now) != import::Turn::Nothing {
            return Some("it is imported into ACM".to_owned());
        }
        let pending = record.revocations.iter().find(|revocation| revocation.done.is_none());
        pending.map(|revocation| revocation.in_words())
    }
}

/// What is told of a trust store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreRow {
    pub trust_store: StoreName,
    pub state: State,
    /// Empty where all is good.
    pub reason: String,
    pub declared_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_store_arn: Option<Arn>,
    /// How many certificates of CAs it holds.
    pub certificates: usize,
    pub certificate_authorities: Vec<AuthorityRow>,
    /// The keys of further CAs in the bucket.
    pub extras: Vec<String>,
    pub revocation_lists: Vec<CrlRow>,
    pub listeners: Vec<Listener>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

/// A CA of a trust store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuthorityRow {
    pub certificate_authority_arn: Arn,
    pub state: AuthorityState,
    /// From when on a CA that leaves may be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves_at: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityState {
    Held,
    /// Declared, and not in the store yet.
    Missing,
    /// Retired or no longer declared, and still needed by a pair.
    Needed,
    Leaving,
}

/// A CRL of a trust store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrlRow {
    pub certificate_authority_arn: Arn,
    pub crl_number: String,
    pub this_update: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Moment>,
    /// How many certificates it revokes.
    pub entries: usize,
}

/// The trust stores that are declared now.
pub fn trust_stores(trust: &Trust, stores: &Stores, sweep_interval: Duration, now: OffsetDateTime) -> Vec<StoreRow> {
    let stores = stores.declared_by(&trust.declared).stores;
    stores.into_iter().map(|(name, store)| store_row(name, store, trust, sweep_interval, now)).collect()
}

/// What a person was told of stays open as long as it is told anew every day.
fn stays_open(sweep_interval: Duration) -> Duration {
    Duration::from_secs(24 * 60 * 60) + sweep_interval * 2
}

fn store_row(name: StoreName, store: Store, trust: &Trust, sweep_interval: Duration, now: OffsetDateTime) -> StoreRow {
    let mut authorities = Vec::new();
    let known = trust.authorities(&store);
    for authority in known.wanted.iter().chain(known.retiring.iter().filter(|retiring| store.held.contains_key(*retiring))) {
        let leaving = store.leaving.get(authority);
        let state = match (leaving, store.held.contains_key(authority), known.retiring.contains(authority)) {
            (Some(_), ..) => AuthorityState::Leaving,
            (None, false, _) => AuthorityState::Missing,
            (None, true, true) => AuthorityState::Needed,
            (None, true, false) => AuthorityState::Held,
        };
        let leaves_at = leaving.map(|since| (**since + NOTICE).into());
        authorities.push(AuthorityRow { certificate_authority_arn: authority.clone(), state, leaves_at });
    }
    let mut told: Vec<_> = store.told.iter().map(|(subject, at)| Told { at: *at, message: subject.clone() }).collect();
    told.sort_by_key(|told| std::cmp::Reverse(told.at));
    let ended = store.crls.values().find_map(|crl| crl.still_holds(now).err());
    let open = told.iter().find(|told| now - *told.at < stays_open(sweep_interval)).map(|told| told.message.clone());
    let missing: Vec<_> = authorities.iter().filter(|authority| authority.state == AuthorityState::Missing).collect();
    let (state, reason) = match (ended.or(open), &missing[..]) {
        (Some(why), _) => (State::Attention, why),
        (None, []) => (State::Good, String::new()),
        (None, [first, ..]) => (State::Waiting, format!("it does not hold {} yet", first.certificate_authority_arn)),
    };
    let crls = store.crls.into_iter().map(|(certificate_authority_arn, crl)| CrlRow {
        certificate_authority_arn,
        crl_number: crl.number,
        this_update: crl.this_update,
        next_update: crl.next_update,
        entries: crl.entries,
    });
    StoreRow {
        trust_store: name,
        state,
        reason,
        declared_by: if store.by_hand { "request" } else { "parameter" },
        trust_store_arn: store.arn,
        certificates: store.bundle.len(),
        certificate_authorities: authorities,
        extras: store.extras.into_keys().collect(),
        revocation_lists: crls.collect(),
        listeners: store.declaration.listeners,
        told,
    }
}

#[cfg(test)]
mod tests;
