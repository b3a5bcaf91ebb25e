//! Which trust stores are looked at, and one look at one of them: what it is to hold and what it really holds come in; what to do,
//! what is refused and what a person has to see to goes out.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::authority::{Authority, Crl, Refused};
use crate::bundle::{Bundle, Extra};
use crate::leaf::hex;
use crate::names::{Arn, CertificateName, ServiceName, StoreName};
use crate::record::{Moment, Record};
use crate::rollout::BindingState;
use crate::trust::{
    Attach, Attached, Authorities, Listener, Load, LoadedCrl, Mode, Retiring, Store, Stores, Trust, attach, load,
    retiring as retiring_of, unready,
};

/// Which stores are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    One(StoreName),
    /// The one whose extra objects changed. They may be there before it is declared.
    Extra(StoreName),
    /// Those that have to do with this CA.
    Of(Arn),
    /// Those that a certificate waits for.
    Waiting(CertificateName),
}

impl Scope {
    /// The stores that are meant, or why there are none. `waiting`: the certificate that waits, where it is known.
    pub fn names(&self, trust: &Trust, stores: &Stores, waiting: Option<&Record>) -> Result<Vec<StoreName>, String> {
        let concerns = |store: &Store, authority: &Arn| {
            let Authorities { wanted, retiring } = trust.authorities(store);
            wanted.contains(authority) || retiring.contains(authority)
        };
        let stores_of = |authority: &Arn| {
            stores.stores.iter().filter(|(_, store)| concerns(store, authority)).map(|(name, _)| name.clone()).collect()
        };
        Ok(match self {
            Self::All => stores.stores.keys().cloned().collect(),
            Self::One(name) | Self::Extra(name) if stores.stores.contains_key(name) => vec![name.clone()],
            Self::Extra(_) => Vec::new(),
            Self::One(name) => {
                return Err(format!(
                    "`{name}` is not declared; declare it by a request, or in the stack's parameter TrustStores"
                ));
            }
            Self::Of(authority) => stores_of(authority),
            Self::Waiting(_) => match waiting.and_then(|record| trust.awaited(record)) {
                Some(authority) => trust.missing(stores, authority).into_iter().collect(),
                None => Vec::new(),
            },
        })
    }
}

/// What AWS shows of a store and of everything that goes into it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The store in Elastic Load Balancing; `None` when there is none of its name.
    pub arn: Option<Arn>,
    /// The certificates (DER) that it really holds.
    pub held: Vec<Vec<u8>>,
    /// Each CA's certificate and those above it (DER), or why they cannot be had.
    pub chains: BTreeMap<Arn, Result<Vec<Vec<u8>>, String>>,
    /// Of the CAs that are retired or no longer declared, those that an unexpired pair needs.
    pub needed: BTreeMap<Arn, CertificateName>,
    /// The table may lack certificates, so that it is not known of the others that nobody needs them.
    pub table_is_new: bool,
    pub extras: Vec<Extra>,
    /// The CRL of each CA that publishes one, or why it cannot be had.
    pub published: BTreeMap<Arn, Result<Published, String>>,
    /// The CRLs that the store holds, by their ids; read where it is not known which they are.
    pub loaded: BTreeMap<i64, Option<Crl>>,
    pub listeners: BTreeMap<Arn, Attached>,
    /// Those of its listeners that the stack's parameter gives to another store.
    pub taken: BTreeMap<Arn, StoreName>,
    /// The clients of all listeners that are known.
    pub clients: BTreeMap<CertificateName, Record>,
    pub services: BTreeMap<ServiceName, BindingState>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// The object from which the loaded one was made.
    Same,
    Crl {
        crl: Crl,
        e_tag: Option<String>,
    },
    /// The CA has published none yet, or somebody has deleted it.
    Missing,
}

/// What to do with a store, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub bundle: Bundle,
    /// Whether the store then holds the bundle; `false`: it is left as it is.
    pub fits: bool,
    /// Why the bundle is to be uploaded; `None`: the store holds it.
    pub upload: Option<String>,
    /// Subjects and fingerprints.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub add_crls: Vec<(Arn, Crl, Option<String>)>,
    /// Each with its CA: it goes once that one's new CRL has come.
    pub remove_crls: Vec<(Arn, i64)>,
    pub listeners: Vec<(Arn, Attach)>,
    /// What is to be kept of the store once that is done, the ids of new CRLs aside.
    pub held: BTreeMap<Arn, Vec<String>>,
    pub extras: BTreeMap<String, String>,
    pub leaving: BTreeMap<Arn, Moment>,
    /// With those that new ones are to supersede.
    pub crls: BTreeMap<Arn, LoadedCrl>,
    /// What a person has to see to, by reason.
    pub tell: Vec<(&'static str, String)>,
    /// What a person may want to know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether nothing in AWS is to change.
    pub fn changes_nothing(&self) -> bool {
        let modifies = |(_, attach): &(Arn, Attach)| *attach == Attach::Modify;
        self.upload.is_none() && self.add_crls.is_empty() && self.remove_crls.is_empty() && !self.listeners.iter().any(modifies)
    }
}

/// What has to be done before any store is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct First {
    /// Keep everybody else from changing one.
    pub lock: bool,
    /// Copy what is kept of them: a CA is not taken out of a store by one that does not know what it is there for.
    pub copy: bool,
}

/// Notes what plans are to add to their stores, and says what has to come before they are carried out.
pub fn announce<'a>(stores: &mut Stores, plans: impl Iterator<Item = (&'a StoreName, &'a Plan)>) -> First {
    let mut first = First::default();
    for (name, plan) in plans {
        first.lock |= !plan.changes_nothing();
        let Some(store) = stores.stores.get_mut(name).filter(|_| plan.upload.is_some()) else { continue };
        let new = plan.held.iter().filter(|(authority, _)| !store.held.contains_key(*authority));
        store.adding.extend(new.map(|(authority, chain)| (authority.clone(), chain.clone())));
        first.copy |= !store.adding.is_empty();
    }
    first
}

pub fn plan(store: &Store, authorities: &Authorities, facts: &Facts, now: OffsetDateTime) -> Plan {
    let mut plan = Plan::default();
    let store = &added(store, &facts.held);
    let chains = plan.chains(store, authorities, facts, now);
    let all: Vec<_> = chains.values().cloned().collect();
    let (extras, spoiled) = plan.extras(store, facts, now);
    plan.bundle = Bundle::of(&all, &extras, &facts.held, now);
    plan.bundle.refused.extend(spoiled);
    let read = extras.iter().filter_map(|extra| Some((extra.key.clone(), extra.read(now).ok()?.fingerprint)));
    plan.extras = read.filter(|(_, one)| plan.bundle.holds(one)).collect();
    let name = &store.declaration.name;
    let (objects, cas): (Vec<_>, Vec<_>) =
        plan.bundle.refused.iter().partition(|refused| refused.what.starts_with("trust/extra/"));
    for refused in cas {
        plan.tell.push(("trust-refused", format!("{refused}; it is left out of the trust store `{name}`")));
    }
    if let Some(some) = some_of(&objects) {
        plan.tell.push(("trust-refused", format!("objects under trust/extra/{name}/ are refused: {some}")));
    }
    plan.fits = plan.upload(store, &chains, facts, now);
    let bundle = if plan.fits {
        plan.held = held(&chains, &plan.bundle.fingerprints());
        plan.bundle.authorities.clone()
    } else {
        let real: BTreeSet<String> = facts.held.iter().map(|der| fingerprint(der)).collect();
        // Also what was to leave, or to be replaced.
        plan.held = store.held.clone();
        plan.held.retain(|_, chain| chain.iter().all(|one| real.contains(one)));
        plan.held.extend(held(&chains, &real));
        plan.leaving.extend(
            store.leaving.iter().filter(|(gone, _)| !chains.contains_key(*gone)).map(|(gone, since)| (gone.clone(), *since)),
        );
        facts.held.iter().filter_map(|der| Authority::judge(der, now).ok()).collect()
    };
    plan.leaving.retain(|authority, _| plan.held.contains_key(authority));
    plan.crls(store, authorities, &bundle, facts, now);
    plan.listeners(store, authorities, facts, now);
    plan
}

impl Plan {
    /// The certificates (DER) of each CA that is to be in the store.
    fn chains(
        &mut self,
        store: &Store,
        authorities: &Authorities,
        facts: &Facts,
        now: OffsetDateTime,
    ) -> BTreeMap<Arn, Vec<Vec<u8>>> {
        let mut stay: BTreeSet<&Arn> = authorities.wanted.iter().collect();
        let retiring = authorities.retiring.iter();
        let retiring: Vec<_> = retiring.map(|one| (one, retiring_of(store, one, facts.needed.get(one), now))).collect();
        for (authority, what) in &retiring {
            if let Retiring::Needed { by } = what {
                stay.insert(authority);
                self.notes.push(format!("{authority} stays although it is retired or not declared: `{by}` needs it"));
            }
        }
        let stays: Vec<_> = stay.iter().filter_map(|authority| chain(store, facts, authority)).collect();
        let stays = Bundle::of(&stays, &facts.extras, &facts.held, now);
        for (authority, what) in retiring {
            // By key, not by certificate: a root may have got another one since it issued this CA's.
            let is_let_in = |der: &Vec<u8>| {
                let judged = Authority::judge(der, now);
                judged.is_ok_and(|one| stays.authorities.iter().any(|above| one.is_issued_by(above)))
            };
            let chain = chain(store, facts, authority).unwrap_or_default();
            let root_stays = || chain.iter().any(is_let_in);
            match what {
                Retiring::Needed { .. } => {}
                // Without it nothing in the store could say any more what it has revoked, and its root would let that in.
                Retiring::Leaving { .. } | Retiring::Gone if revokes(store, facts, authority, &chain, now) && root_stays() => {
                    stay.insert(authority);
                    self.notes.push(format!(
                        "{authority} stays with its CRL although no unexpired pair needs it: its root stays, which would let in what it has revoked"
                    ));
                }
                Retiring::Leaving { .. } | Retiring::Gone if facts.table_is_new => {
                    stay.insert(authority);
                    self.notes.push(format!("{authority} stays until the daily walk has found every certificate"));
                }
                Retiring::Leaving { since } => {
                    stay.insert(authority);
                    self.leaving.insert(authority.clone(), since.into());
                    let shut_out = match root_stays() {
                        true => ROOT_STAYS,
                        false => "",
                    };
                    self.notes.push(format!(
                        "no unexpired pair needs {authority} any more; it leaves at a refresh an hour from now or later{shut_out}"
                    ));
                }
                Retiring::Gone => {
                    let shut_out = if root_stays() { ROOT_STAYS } else { "" };
                    self.notes.push(format!("{authority} leaves: no unexpired pair needs it{shut_out}"));
                }
                Retiring::Absent => {}
            }
        }
        let mut chains = BTreeMap::new();
        for authority in stay {
            let chain = chain(store, facts, authority);
            if let Some(Err(why)) = facts.chains.get(authority) {
                let rest = if chain.is_none() { "it is left out" } else { "what the store holds of it stays" };
                let name = &store.declaration.name;
                let said = format!("the CA {authority} of the trust store `{name}` cannot be read: {why}; {rest}");
                match is_used(authorities, facts, authority) {
                    true => self.tell.push(("trust-ca", said)),
                    false => self.notes.push(said),
                }
            }
            chains.extend(chain.map(|chain| (authority.clone(), chain)));
        }
        chains
    }

    /// Decides whether the bundle is uploaded; whether the store holds it then.
    fn upload(&mut self, store: &Store, chains: &BTreeMap<Arn, Vec<Vec<u8>>>, facts: &Facts, now: OffsetDateTime) -> bool {
        let name = &store.declaration.name;
        let (wanted, real): (BTreeSet<String>, BTreeSet<String>) =
            (self.bundle.fingerprints(), facts.held.iter().map(|der| fingerprint(der)).collect());
        if facts.arn.is_some() && wanted == real {
            return true;
        }
        let known = is_known(store, facts);
        let unfit = self.bundle.unfit().or_else(|| self.shuts_out(store, chains, facts, now)).or_else(|| {
            let foreign: Vec<_> = facts.held.iter().filter(|der| !wanted.contains(&fingerprint(der))).map(|der| in_words(der, now)).collect();
            (!known && !foreign.is_empty()).then(|| {
                format!(
                    "the store was there before Everleaf and holds {}, which the declaration does not; put each as PEM under trust/extra/{name}/, or take it out of the store",
                    foreign.join(", ")
                )
            })
        });
        let verifies = |listener: &Listener| listener.authentication.mode == Mode::Verify;
        let unnamed = chains.is_empty() && facts.extras.is_empty() && !store.declaration.listeners.iter().any(verifies);
        if facts.arn.is_none() && unnamed {
            return false;
        }
        if let Some(why) = unfit {
            self.tell.push(("trust-bundle", format!("the trust store `{name}` was left as it is: {why}")));
            return false;
        }
        self.added =
            self.bundle.authorities.iter().filter(|one| !real.contains(&one.fingerprint)).map(ToString::to_string).collect();
        self.removed =
            facts.held.iter().filter(|der| !wanted.contains(&fingerprint(der))).map(|der| in_words(der, now)).collect();
        self.upload = Some(match (&facts.arn, known) {
            (None, _) => "there is no such trust store yet".to_owned(),
            (Some(_), true) if !store.bundle.is_empty() && real != store.bundle => {
                "somebody else has changed what it holds; it is put right".to_owned()
            }
            _ => "what it is to hold has changed".to_owned(),
        });
        true
    }

    /// Why the bundle would refuse clients that get in now.
    fn shuts_out(
        &self,
        store: &Store,
        chains: &BTreeMap<Arn, Vec<Vec<u8>>>,
        facts: &Facts,
        now: OffsetDateTime,
    ) -> Option<String> {
        let gets_in = |authority: &Arn| {
            let own = store.held.get(authority).and_then(|chain| chain.first())?;
            let der = facts.held.iter().find(|der| fingerprint(der) == *own)?;
            Authority::judge(der, now).ok()
        };
        chains.iter().find_map(|(authority, chain)| {
            let holds = chain.first().is_some_and(|own| self.bundle.holds(&fingerprint(own)));
            let lost = gets_in(authority).filter(|_| !holds)?;
            Some(format!(
                "{lost} would be left out, and clients of {authority} get in by it now; mend the reason why it is refused"
            ))
        })
    }

    /// The extra objects. One that was good and was spoiled since does not shut out those whom it let in: it stays as it was.
    fn extras(&mut self, store: &Store, facts: &Facts, now: OffsetDateTime) -> (Vec<Extra>, Vec<Refused>) {
        let mut spoiled = Vec::new();
        let mut as_before = |extra: &Extra| {
            let Refused { what, why } = extra.read(now).err()?;
            let before = store.extras.get(&extra.key)?;
            let held = facts.held.iter().find(|der| fingerprint(der) == *before)?;
            let authority = Authority::judge(held, now).ok()?;
            spoiled.push(Refused { what, why: format!("{why}; what it held before stays, {authority}") });
            Some(Extra { key: extra.key.clone(), body: authority.pem().into_bytes() })
        };
        let extras = facts.extras.iter().map(|extra| as_before(extra).unwrap_or_else(|| extra.clone())).collect();
        (extras, spoiled)
    }

    fn crls(&mut self, store: &Store, authorities: &Authorities, bundle: &[Authority], facts: &Facts, now: OffsetDateTime) {
        let name = &store.declaration.name;
        if !self.fits && !is_known(store, facts) {
            self.crls = store.crls.clone();
            self.crls.retain(|_, loaded| facts.loaded.contains_key(&loaded.revocation_id));
            return;
        }
        let mut known: BTreeSet<i64> = BTreeSet::new();
        for (authority, published) in &facts.published {
            let own = self.held.get(authority).and_then(|chain| chain.first());
            let Some(issuer) = own.and_then(|own| bundle.iter().find(|one| one.fingerprint == *own)) else { continue };
            let mut loaded = store.crls.get(authority).filter(|loaded| facts.loaded.contains_key(&loaded.revocation_id)).cloned();
            known.extend(loaded.as_ref().map(|loaded| loaded.revocation_id));
            // Those that nobody noted: an earlier try added them, or a person.
            let mut found: Vec<_> = facts
                .loaded
                .iter()
                .filter_map(|(id, crl)| Some((*id, crl.as_ref().filter(|crl| crl.is_issued_by(issuer))?)))
                .collect();
            found.sort_by_key(|(id, crl)| (crl.this_update, *id));
            if loaded.is_none()
                && let Some((id, newest)) = found.pop()
            {
                known.insert(id);
                loaded = Some(LoadedCrl::of(newest, id, None));
            }
            self.remove_crls.extend(found.iter().map(|(id, _)| (authority.clone(), *id)));
            known.extend(found.iter().map(|(id, _)| *id));
            let add = match published {
                Ok(Published::Crl { crl, .. }) if !crl.is_issued_by(issuer) => {
                    Err(format!("its CRL {} is not signed by it; see who writes to where it publishes", crl.number))
                }
                Ok(Published::Crl { crl, e_tag }) => {
                    load(crl, loaded.as_ref(), now).map(|load| (load == Load::Add).then_some((crl, e_tag)))
                }
                Ok(Published::Same | Published::Missing) => {
                    loaded.as_ref().map_or(Ok(()), |loaded| loaded.still_holds(now)).map(|()| None)
                }
                Err(why) => Err(why.clone()),
            };
            match add {
                Ok(Some((crl, e_tag))) => {
                    self.add_crls.push((authority.clone(), crl.clone(), e_tag.clone()));
                    self.remove_crls.extend(loaded.iter().map(|superseded| (authority.clone(), superseded.revocation_id)));
                }
                Ok(None) => {
                    if let (Some(loaded), Ok(Published::Crl { crl, e_tag })) = (&mut loaded, published)
                        && loaded.number == crl.number
                    {
                        loaded.e_tag.clone_from(e_tag);
                    }
                }
                Err(why) => {
                    let said = format!("the CRL of {authority} was not brought into the trust store `{name}`: {why}");
                    match published.is_ok() || is_used(authorities, facts, authority) {
                        true => self.tell.push(("trust-crl", said)),
                        false => self.notes.push(said),
                    }
                }
            }
            if let Some(loaded) = loaded {
                self.crls.insert(authority.clone(), loaded);
            }
        }
        // CAs that are gone take their CRLs with them.
        for (authority, loaded) in &store.crls {
            let id = loaded.revocation_id;
            if !known.contains(&id) && facts.loaded.contains_key(&id) {
                match self.held.contains_key(authority) {
                    true => _ = self.crls.insert(authority.clone(), loaded.clone()),
                    false => self.remove_crls.push((authority.clone(), id)),
                }
            }
        }
        self.remove_crls.sort_unstable();
        self.remove_crls.dedup();
    }

    fn listeners(&mut self, store: &Store, authorities: &Authorities, facts: &Facts, now: OffsetDateTime) {
        let becomes = Store { held: self.held.clone(), ..store.clone() };
        for listener in &store.declaration.listeners {
            let (arn, name) = (&listener.listener_arn, &store.declaration.name);
            let has = match (facts.taken.get(arn), facts.listeners.get(arn)) {
                (None, Some(has)) => has,
                (Some(other), _) => {
                    let why = format!("{arn} is a listener of `{other}` by the stack's parameter TrustStores");
                    self.tell.push(("trust-listener", format!("{why}; take it out of the declaration of `{name}`")));
                    continue;
                }
                (None, None) => {
                    let why = format!("there is no listener {arn}; take it out of the declaration of `{name}`");
                    self.tell.push(("trust-listener", why));
                    continue;
                }
            };
            let missing: Vec<String> = match listener.authentication.mode {
                Mode::Verify if !self.fits => {
                    vec![format!("the trust store `{}` does not hold what is declared", store.declaration.name)]
                }
                Mode::Verify => {
                    let client = |client| unready(client, facts.clients.get(client), &facts.services, &becomes, now);
                    let absent = authorities.wanted.iter().filter(|wanted| !self.held.contains_key(*wanted));
                    let absent = absent.map(|wanted| format!("{wanted} is declared and not in the trust store"));
                    absent.chain(listener.clients.iter().filter_map(client)).collect()
                }
                Mode::Passthrough | Mode::Off => Vec::new(),
            };
            let step = attach(listener, has, facts.arn.as_ref(), &missing);
            if let Attach::Wait { missing } = &step {
                self.notes.push(format!("{arn} does not verify clients yet: {}", missing.join("; ")));
            }
            self.listeners.push((arn.clone(), step));
        }
    }
}

/// A CA below a root that stays is not shut out by leaving.
const ROOT_STAYS: &str = "; its root stays, so what it issued gets in until it expires, or until the root revokes the CA itself (declare the root too, so that its CRL comes into this store)";

/// The store with the CAs that an upload has added of which nobody heard.
fn added(store: &Store, real: &[Vec<u8>]) -> Store {
    let real: BTreeSet<String> = real.iter().map(|der| fingerprint(der)).collect();
    let mut store = store.clone();
    store
        .held
        .extend(std::mem::take(&mut store.adding).into_iter().filter(|(_, chain)| chain.iter().all(|one| real.contains(one))));
    store
}

/// The first few: whoever may put objects there may put thousands.
fn some_of(refused: &[&Refused]) -> Option<String> {
    const FEW: usize = 5;
    let few: Vec<_> = refused.iter().take(FEW).map(ToString::to_string).collect();
    let more = match refused.len().saturating_sub(FEW) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!few.is_empty()).then(|| few.join("; ") + &more)
}

/// Whether anything is issued by this CA, or needs it. Of any other nobody has to mend that it cannot be read.
pub fn is_used(authorities: &Authorities, facts: &Facts, authority: &Arn) -> bool {
    authorities.wanted.contains(authority) || facts.needed.contains_key(authority)
}

/// Whether the store that is there has been Everleaf's to change. Any other is left as it is until it holds nothing else.
fn is_known(store: &Store, facts: &Facts) -> bool {
    store.arn.is_some() && store.arn == facts.arn
}

/// The certificates (DER) of a CA and of those above it. Where they cannot be read, what the store holds of them is as good as it was.
fn chain(store: &Store, facts: &Facts, authority: &Arn) -> Option<Vec<Vec<u8>>> {
    match facts.chains.get(authority)? {
        Ok(chain) => Some(chain.clone()),
        Err(_) => {
            let known = store.held.get(authority)?.iter();
            let known: Vec<_> = known.filter_map(|one| facts.held.iter().find(|der| fingerprint(der) == *one)).cloned().collect();
            (!known.is_empty()).then_some(known)
        }
    }
}

/// Whether a CA's CRL revokes anything: the published one where it is good and newer than what the store holds, else that.
fn revokes(store: &Store, facts: &Facts, authority: &Arn, chain: &[Vec<u8>], now: OffsetDateTime) -> bool {
    let loaded = store.crls.get(authority);
    let own = chain.first().and_then(|own| Authority::judge(own, now).ok());
    match facts.published.get(authority) {
        Some(Ok(Published::Crl { crl, .. }))
            if own.is_some_and(|own| crl.is_issued_by(&own)) && load(crl, loaded, now) == Ok(Load::Add) =>
        {
            crl.entries > 0
        }
        _ => loaded.is_some_and(|loaded| loaded.entries > 0),
    }
}

/// Those CAs whose own certificate is among these, each with the fingerprints of its chain.
fn held(chains: &BTreeMap<Arn, Vec<Vec<u8>>>, fingerprints: &BTreeSet<String>) -> BTreeMap<Arn, Vec<String>> {
    let of = |chain: &Vec<Vec<u8>>| -> Vec<String> { chain.iter().map(|der| fingerprint(der)).collect() };
    let chains = chains.iter().map(|(authority, chain)| (authority.clone(), of(chain)));
    chains.filter(|(_, chain)| !chain.is_empty() && chain.iter().all(|one| fingerprints.contains(one))).collect()
}

/// SHA-256, lower-case hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex(&Sha256::digest(der))
}

fn in_words(der: &[u8], now: OffsetDateTime) -> String {
    match Authority::judge(der, now) {
        Ok(authority) => authority.to_string(),
        Err(refused) => refused.what,
    }
}

#[cfg(test)]
mod tests;
