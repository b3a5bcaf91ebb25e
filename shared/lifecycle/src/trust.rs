//! Trust stores: what was declared of them, what they hold, and who has to wait for them.
//!
//! A certificate becomes current only when every store that declares its issuing CA holds that CA. A CA that is no longer declared,
//! or is retired, leaves a store in two steps: it is announced, which closes the way for pairs of that CA that are still under
//! way, and an hour or more later it goes, unless a pair needs it after all.
//!
//! ```text
//!   declared ─▶ held ─▶ retired or undeclared ─▶ no unexpired pair needs it ─▶ leaving ─▶ an hour later, still none ─▶ gone
//!                 └── pairs of this CA may become current ──┘                  └── pairs of this CA wait ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::authority::Crl;
use crate::bundle::MOST_AUTHORITIES;
use crate::date;
use crate::events::Kind;
use crate::fields::{Fields, Refusal};
use crate::names::{Arn, AuthorityArn, BadName, CertificateName, ServiceName, StoreName, one_of};
use crate::record::{Moment, Origin, Record};
use crate::rollout::{AGENT_GRACE, BindingState, Lock};

/// What a trust store is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    pub name: StoreName,
    /// The CAs in AWS Private CA whose clients are let in.
    pub certificate_authority_arns: BTreeSet<Arn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
}

/// What a listener of an ALB is to do with client certificates.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_MutualAuthenticationAttributes.html>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub listener_arn: Arn,
    #[serde(flatten)]
    pub authentication: Authentication,
    /// Managed certificates whose services are clients of this listener: it does not begin to verify before all of them can pass.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clients: BTreeSet<CertificateName>,
}

/// How a listener authenticates clients, apart from the trust store it does it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub mode: Mode,
    pub ignore_client_certificate_expiry: bool,
    pub advertise_trust_store_ca_names: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    #[default]
    Verify,
    Passthrough,
    Off,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Verify, Self::Passthrough, Self::Off];

    /// As Elastic Load Balancing spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Passthrough => "passthrough",
            Self::Off => "off",
        }
    }
}

impl FromStr for Mode {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        one_of(text, Self::ALL, Self::as_str)
    }
}

impl Declaration {
    /// Reads a declaration.
    ///
    /// ```json
    /// {"name": "clients", "certificate_authority_arns": ["arn:aws:acm-pca:…"], "listeners": [{"listener_arn": "arn:aws:elasticloadbalancing:…"}]}
    /// ```
    pub fn read(declaration: &Value) -> Result<Self, Refusal> {
        let mut fields = Fields::of(declaration, "declaration", "name")?;
        let name = fields.required::<StoreName>("name", "the trust store's name in Elastic Load Balancing, such as `clients`");
        let authorities = fields.list::<AuthorityArn>("certificate_authority_arns").unwrap_or_default();
        let mut listeners = Vec::new();
        match fields.take("listeners") {
            None => {}
            Some(Value::Array(all)) => {
                for (index, listener) in all.iter().enumerate() {
                    match self::listener(listener) {
                        Ok(Listener { listener_arn, .. }) if names_listener(&listeners, &listener_arn) => {
                            fields.refuse(&format!("listeners[{index}]"), format_args!("{listener_arn} stands twice"));
                        }
                        Ok(listener) => listeners.push(listener),
                        Err(Refusal { reasons }) => {
                            reasons.into_iter().for_each(|reason| fields.refuse(&format!("listeners[{index}]"), reason));
                        }
                    }
                }
            }
            Some(_) => fields.refuse("listeners", "is not a list of objects such as {\"listener_arn\": \"arn:…\"}"),
        }
        fields.nothing_else("name, certificate_authority_arns, listeners");
        match name {
            Some(name) if fields.reasons.is_empty() => Ok(Self {
                name,
                certificate_authority_arns: authorities.into_iter().map(|AuthorityArn(arn)| arn).collect(),
                listeners,
            }),
            _ => Err(Refusal { reasons: fields.reasons }),
        }
    }
}

fn names_listener(listeners: &[Listener], arn: &Arn) -> bool {
    listeners.iter().any(|listener| listener.listener_arn == *arn)
}

fn listener(listener: &Value) -> Result<Listener, Refusal> {
    let mut fields = Fields::of(listener, "listener", "listener_arn")?;
    let arn = fields.required::<ListenerArn>("listener_arn", "the ARN of an HTTPS listener of an Application Load Balancer");
    let authentication = Authentication {
        mode: fields.text("mode").unwrap_or_default(),
        ignore_client_certificate_expiry: fields.flag("ignore_client_certificate_expiry"),
        advertise_trust_store_ca_names: fields.flag("advertise_trust_store_ca_names"),
    };
    let clients = fields.list("clients").unwrap_or_default();
    fields.nothing_else("listener_arn, mode, ignore_client_certificate_expiry, advertise_trust_store_ca_names, clients");
    match arn {
        Some(ListenerArn(listener_arn)) if fields.reasons.is_empty() => Ok(Listener { listener_arn, authentication, clients }),
        _ => Err(Refusal { reasons: fields.reasons }),
    }
}

/// A list of declarations as JSON text: the form of the stack's parameter. Empty text declares nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations(pub Vec<Declaration>);

impl FromStr for Declarations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        const FORM: &str = r#"give a JSON list such as [{"name": "clients", "certificate_authority_arns": ["arn:…"]}]"#;
        let list: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("it is not a JSON list ({error}); {FORM}"))?;
        let (mut all, mut reasons) = (Vec::<Declaration>::new(), Vec::new());
        for declaration in &list {
            match Declaration::read(declaration) {
                Ok(declaration) if all.iter().any(|known| known.name == declaration.name) => {
                    reasons.push(format!("`{}` is declared twice", declaration.name));
                }
                Ok(declaration) => {
                    // A listener has one trust store at most.
                    for Listener { listener_arn, .. } in &declaration.listeners {
                        if let Some(other) = all.iter().find(|known| names_listener(&known.listeners, listener_arn)) {
                            reasons
                                .push(format!("{listener_arn} is a listener of `{}` and of `{}`", other.name, declaration.name));
                        }
                    }
                    all.push(declaration);
                }
                Err(refusal) => reasons.extend(refusal.reasons),
            }
        }
        if reasons.is_empty() { Ok(Self(all)) } else { Err(reasons.join("; ")) }
    }
}

struct ListenerArn(Arn);

impl FromStr for ListenerArn {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Arn::of(text, "elasticloadbalancing", "listener/app/").map(Self)
    }
}

/// Retired CAs, each with the CA that issues in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successors(BTreeMap<Arn, Arn>);

/// `retired=successor`, both ARNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession(Arn, Arn);

impl FromStr for Succession {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.split_once('=') {
            Some((retired, successor)) => Ok(Self(retired.parse::<AuthorityArn>()?.0, successor.parse::<AuthorityArn>()?.0)),
            None => Err(BadName(format!("`{text}` is not of the form retired=successor, both ARNs of CAs"))),
        }
    }
}

impl Successors {
    pub fn new(successions: Vec<Succession>) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for Succession(retired, successor) in successions {
            if let Some(other) = all.insert(retired.clone(), successor.clone())
                && other != successor
            {
                return Err(format!("{retired} has two successors, {other} and {successor}; name one"));
            }
        }
        let successors = Self(all);
        match successors.0.keys().find(|retired| successors.of(retired).is_none()) {
            Some(retired) => {
                Err(format!("{retired} is, by way of its successors, its own successor; name a CA that is not retired"))
            }
            None => Ok(successors),
        }
    }

    /// The CA that issues in the place of this one; `None` for one that is not retired.
    pub fn of(&self, authority: &Arn) -> Option<&Arn> {
        let mut successor = self.0.get(authority)?;
        // A circle is as long as the map at most.
        for _ in 0..self.0.len() {
            match self.0.get(successor) {
                Some(next) => successor = next,
                None => return Some(successor),
            }
        }
        None
    }

    /// The CA itself where it is not retired, else the one in its place.
    pub fn active<'a>(&'a self, authority: &'a Arn) -> &'a Arn {
        self.of(authority).unwrap_or(authority)
    }

    /// Every CA that issues in the place of a retired one.
    pub fn all(&self) -> BTreeSet<&Arn> {
        self.0.keys().filter_map(|retired| self.of(retired)).collect()
    }

    /// With each CA those that came or come after it, also the ones that are retired in their turn.
    fn with_successors(&self, authorities: &BTreeSet<Arn>) -> BTreeSet<Arn> {
        let line = |authority| std::iter::successors(Some(authority), |retired| self.0.get(*retired));
        authorities.iter().flat_map(line).cloned().collect()
    }
}

/// What the stack's parameters say of trust.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    pub declared: Vec<Declaration>,
    pub successors: Successors,
}

/// What is kept of all trust stores of a stack: one item of the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stores {
    #[serde(default)]
    pub stores: BTreeMap<StoreName, Store>,
    /// Whoever is about to change a store, until when: some of what is done to a store would be done twice by two at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Grows by one with each write; 0 is not written yet.
    #[serde(default)]
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Store {
    pub declaration: Declaration,
    /// Declared by a request; the others are declared by the stack's parameter.
    #[serde(default)]
    pub by_hand: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<Arn>,
    /// The fingerprints of all certificates that it was last seen to hold.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub bundle: BTreeSet<String>,
    /// The CAs that it was last seen to hold, each with the fingerprints of its certificate and of those above it.
    #[serde(default)]
    pub held: BTreeMap<Arn, Vec<String>>,
    /// The CAs that an upload is to add, likewise: whether it did is not known before the next look, should nobody hear of its end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adding: BTreeMap<Arn, Vec<String>>,
    /// The extra objects in it by their keys, each with the fingerprint of its certificate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extras: BTreeMap<String, String>,
    /// The CAs among them that are about to leave, since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaving: BTreeMap<Arn, Moment>,
    /// The CRLs in it, by their issuing CA.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub crls: BTreeMap<Arn, LoadedCrl>,
    /// What a person was told of it, by reason, and when last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, Moment>,
}

/// A CRL that a trust store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedCrl {
    pub revocation_id: i64,
    pub number: String,
    pub this_update: Moment,
    /// When a newer one is to be there, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Moment>,
    /// How many certificates it revokes.
    #[serde(default)]
    pub entries: usize,
    /// The entity tag of the object that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
}

impl Store {
    pub fn new(declaration: Declaration, by_hand: bool) -> Self {
        Self {
            declaration,
            by_hand,
            arn: None,
            bundle: BTreeSet::new(),
            held: BTreeMap::new(),
            adding: BTreeMap::new(),
            extras: BTreeMap::new(),
            leaving: BTreeMap::new(),
            crls: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// What ALB counts of a store, how much there is of it, and how much ALB allows where nobody had the quota raised.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
    pub fn usage(&self) -> [(&'static str, usize, usize); 3] {
        [
            ("CaCertificates", self.bundle.len(), MOST_AUTHORITIES),
            ("Crls", self.crls.len(), 30),
            ("CrlEntries", self.crls.values().map(|crl| crl.entries).sum(), 500_000),
        ]
    }

    /// Whether a person is to be told of this, which is then noted: once a day for each subject, which is what stands before the
    /// colon. Behind it stands what AWS says, which differs at each try.
    pub fn tells(&mut self, code: &str, message: &str, now: OffsetDateTime) -> bool {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        self.told.retain(|_, last| now - **last < DAY * 2);
        let subject = format!("{code}: {}", message.split(": ").next().unwrap_or_default());
        if self.told.get(&subject).is_some_and(|last| now - **last < DAY - Duration::from_secs(10 * 60)) {
            return false;
        }
        self.told.insert(subject, now.into());
        // Subjects name what others may name as they like, and an item of the table has room for 400 KB.
        while self.told.len() > MOST_TOLD
            && let Some(oldest) = self.told.iter().min_by_key(|(_, last)| ***last).map(|(subject, _)| subject.clone())
        {
            self.told.remove(&oldest);
        }
        true
    }

    fn trusts(&self, authority: &Arn) -> bool {
        !self.leaving.contains_key(authority) && self.held.contains_key(authority)
    }
}

/// The subjects of which it is kept that a person was told.
const MOST_TOLD: usize = 100;

impl Stores {
    /// Why a declaration cannot stand beside the others: a listener has one trust store at most.
    pub fn collision(&self, declaration: &Declaration) -> Option<Refusal> {
        let others = || self.stores.iter().filter(|(name, _)| **name != declaration.name);
        let taken = declaration.listeners.iter().flat_map(|Listener { listener_arn, .. }| {
            let names = move |(_, store): &(&StoreName, &Store)| names_listener(&store.declaration.listeners, listener_arn);
            others()
                .filter(names)
                .map(move |(name, _)| format!("listeners: {listener_arn} is a listener of `{name}`; take it out there"))
        });
        let reasons: Vec<_> = taken.collect();
        (!reasons.is_empty()).then_some(Refusal { reasons })
    }

    /// Until when somebody else may be changing stores.
    pub fn keeps_out(&self, holder: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.lock.as_ref()?.keeps_out(holder, now)
    }

    /// The stores as they are declared now: `parameter` wins over what is kept, and what it no longer declares is forgotten.
    pub fn declared_by(&self, parameter: &[Declaration]) -> Self {
        let mut stores: BTreeMap<_, _> = self.stores.clone();
        stores.retain(|name, store| store.by_hand || parameter.iter().any(|declaration| declaration.name == *name));
        for declaration in parameter {
            let store = stores.entry(declaration.name.clone()).or_insert_with(|| Store::new(declaration.clone(), false));
            (store.declaration, store.by_hand) = (declaration.clone(), false);
        }
        Self { stores, lock: self.lock.clone(), revision: self.revision }
    }
}

impl Trust {
    /// The stores that declare the CA `issuer` and do not hold it, and those that it is leaving. A CA of AWS Private CA has one key for
    /// life, so that each of its certificates will do.
    pub fn missing(&self, stores: &Stores, issuer: &Arn) -> BTreeSet<StoreName> {
        let stores = stores.declared_by(&self.declared).stores;
        let declares =
            |store: &Store| self.successors.with_successors(&store.declaration.certificate_authority_arns).contains(issuer);
        let closed = |store: &Store| store.leaving.contains_key(issuer) || declares(store) && !store.trusts(issuer);
        stores.into_iter().filter(|(_, store)| closed(store)).map(|(name, _)| name).collect()
    }

    /// The listeners of a store that the stack's parameter gives to another one: a listener has one trust store at most.
    pub fn taken(&self, store: &Store) -> BTreeMap<Arn, StoreName> {
        let Declaration { name, listeners, .. } = &store.declaration;
        let taken = listeners.iter().filter_map(|Listener { listener_arn, .. }| {
            let names = |other: &&Declaration| other.name != *name && names_listener(&other.listeners, listener_arn);
            Some((listener_arn.clone(), self.declared.iter().find(names)?.name.clone()))
        });
        taken.collect()
    }

    /// The CA that a certificate waits for stores to hold.
    pub fn awaited<'a>(&'a self, record: &'a Record) -> Option<&'a Arn> {
        let staged = record.attempt.as_ref().and_then(|attempt| attempt.staged.as_ref());
        let asked = || record.specification().map(|wanted| self.successors.active(&wanted.certificate_authority_arn));
        staged.and_then(|staged| staged.issuer.as_ref()).or_else(asked)
    }

    /// What is due of a certificate that has waited for its stores, once they are ready, and the CA that they hold.
    pub fn due<'a>(&self, stores: &Stores, record: &'a Record) -> Option<(Kind, &'a Arn)> {
        let authority = record.attempt.as_ref()?.staged.as_ref()?.issuer.as_ref()?;
        let kind = match record.origin {
            Origin::Exported { .. } => Kind::ExportDue,
            Origin::Issued(_) | Origin::CallerKey(_) | Origin::Adopted { .. } => Kind::CertificateDue,
        };
        self.missing(stores, authority).is_empty().then_some((kind, authority))
    }

    /// What a store has to do with CAs: those that it is to hold, and those that it may give up once nobody needs them.
    pub fn authorities(&self, store: &Store) -> Authorities {
        let declared = self.successors.with_successors(&store.declaration.certificate_authority_arns);
        let (retired, wanted): (BTreeSet<Arn>, BTreeSet<Arn>) =
            declared.iter().cloned().partition(|authority| self.successors.of(authority).is_some());
        let undeclared = store.held.keys().chain(store.adding.keys()).filter(|held| !declared.contains(held)).cloned();
        Authorities { retiring: undeclared.chain(retired).collect(), wanted }
    }
}

/// The CAs of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    pub wanted: BTreeSet<Arn>,
    /// Retired, or no longer declared.
    pub retiring: BTreeSet<Arn>,
}

/// A CA goes no sooner after it was announced: longer than any invocation lasts, and than the table's indexes lag behind.
pub const NOTICE: Duration = Duration::from_secs(60 * 60);

/// What becomes of a CA that is retired or no longer declared.
#[derive(Clone, Debug, PartialEq)]
pub enum Retiring {
    /// It is not in the store, and nobody needs it.
    Absent,
    /// This certificate's pair needs it.
    Needed {
        by: CertificateName,
    },
    /// Nobody needs it any more; it goes at a refresh after the notice.
    Leaving {
        since: OffsetDateTime,
    },
    Gone,
}

/// `needed_by` is a certificate with an unexpired pair, current or previous, of this CA.
pub fn retiring(store: &Store, authority: &Arn, needed_by: Option<&CertificateName>, now: OffsetDateTime) -> Retiring {
    if let Some(name) = needed_by {
        return Retiring::Needed { by: name.clone() };
    }
    match (store.held.contains_key(authority), store.leaving.get(authority)) {
        (false, _) => Retiring::Absent,
        (true, Some(since)) if now - **since >= NOTICE => Retiring::Gone,
        (true, Some(since)) => Retiring::Leaving { since: **since },
        (true, None) => Retiring::Leaving { since: now },
    }
}

/// How a listener authenticates clients now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    pub authentication: Authentication,
    pub store: Option<Arn>,
}

/// What is to be done with a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    Keep,
    Modify,
    /// These clients would be refused.
    Wait {
        missing: Vec<String>,
    },
}

/// Judges a listener. `store` is `None` where it is still to be made. `missing` says of each client that cannot pass yet why; it
/// counts only where the listener would begin to verify by this store.
pub fn attach(wanted: &Listener, has: &Attached, store: Option<&Arn>, missing: &[String]) -> Attach {
    let verifies = wanted.authentication.mode == Mode::Verify;
    let to_be = match wanted.authentication.mode {
        Mode::Verify => Attached { authentication: wanted.authentication, store: store.cloned() },
        // The other attributes have a meaning with `verify` alone.
        mode => Attached { authentication: Authentication { mode, ..Authentication::default() }, store: None },
    };
    let by_it = has.authentication.mode == Mode::Verify && store.is_some() && has.store.as_ref() == store;
    match verifies && !by_it {
        true if !missing.is_empty() => Attach::Wait { missing: missing.to_vec() },
        false if *has == to_be => Attach::Keep,
        _ => Attach::Modify,
    }
}

/// Why a client of a listener would be refused by a store, were the listener to verify now.
pub fn unready(
    name: &CertificateName,
    record: Option<&Record>,
    services: &BTreeMap<ServiceName, BindingState>,
    store: &Store,
    now: OffsetDateTime,
) -> Option<String> {
    let Some(record) = record else {
        return Some(format!("`{name}` is not known; issue it, or take it off the listener's clients"));
    };
    let Some(current) = record.current.as_ref().filter(|pair| pair.is_valid_at(now)) else {
        return Some(format!("`{name}` has no valid certificate yet"));
    };
    if record.is_revoked(&current.serial) {
        return Some(format!("`{name}` is revoked; issue it anew"));
    }
    if !current.issuer.as_ref().is_some_and(|issuer| store.held.contains_key(issuer)) {
        let issuer = current.issuer.as_ref().map_or_else(|| "a CA that is not in AWS Private CA".to_owned(), Arn::to_string);
        return Some(format!("`{name}` is issued by {issuer}, which this trust store does not hold"));
    }
    let is_late = |service: &&ServiceName| !services.get(*service).is_some_and(|state| state.is_on(*current.since));
    if let Some(late) = record.options.services.iter().find(is_late) {
        return Some(format!(
            "the service {late} has not been redeployed since `{name}` became current {}",
            date(*current.since)
        ));
    }
    let fetched = *current.since + AGENT_GRACE;
    let agent = record.options.agent_services.first().filter(|_| now < fetched)?;
    Some(format!("the agent of {agent} may not have fetched `{name}` before {}", date(fetched)))
}

/// What is to be done with the CRL of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// The store has it.
    Keep,
    /// Add it, then remove what it supersedes.
    Add,
}

impl LoadedCrl {
    pub fn of(crl: &Crl, revocation_id: i64, e_tag: Option<String>) -> Self {
        let Crl { der: _, number, this_update, next_update, entries } = crl;
        let (this_update, next_update) = ((*this_update).into(), next_update.map(Into::into));
        Self { revocation_id, number: number.clone(), this_update, next_update, entries: *entries, e_tag }
    }

    /// The CA has published nothing since: whether it should have.
    pub fn still_holds(&self, now: OffsetDateTime) -> Result<(), String> {
        match self.next_update {
            Some(end) if *end <= now => Err(ended(&self.number, *end)),
            _ => Ok(()),
        }
    }
}

fn ended(number: &str, end: OffsetDateTime) -> String {
    format!("its CRL {number} ended {}; see why the CA publishes no newer one", date(end))
}

/// Compares the CRL that a CA has published with the one that the store holds.
pub fn load(published: &Crl, loaded: Option<&LoadedCrl>, now: OffsetDateTime) -> Result<Load, String> {
    match (loaded, published.next_update) {
        (Some(loaded), _) if published.this_update < *loaded.this_update => Ok(Load::Keep),
        (_, Some(end)) if end <= now => Err(ended(&published.number, end)),
        (Some(loaded), _) if loaded.number == published.number => Ok(Load::Keep),
        _ => Ok(Load::Add),
    }
}

#[cfg(test)]
mod tests;
