//! Promise 5 from the outside: which CAs the trust store holds whenever it changes and whenever a pair becomes current, and whom its
//! listener lets in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use local_aws::{Call, World, elbv2};
use time::{Duration, OffsetDateTime};

use crate::fleet::CLIENTS;
use crate::watch::Note;

/// A store learns of a CRL by an event, and without it by the daily look.
const CRL_LIMIT: Duration = Duration::days(1);

#[derive(Default)]
pub(crate) struct Trust {
    pub(crate) notes: Vec<Note>,
    listener: String,
    /// A client of a CA that nobody here knows, in PEM.
    stranger: String,
    authorities: Vec<Authority>,
    /// By certificate, the oldest first.
    pairs: BTreeMap<&'static str, Vec<Pair>>,
    /// The certificates that the store was given last; `None` before there is one.
    bundle: Option<BTreeSet<String>>,
    verifies: bool,
    /// Something may be seen otherwise than at the last look.
    moved: bool,
    /// What was last said of the clients.
    said: String,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    trusted: usize,
    let_in: usize,
    revoked: usize,
    /// Strangers, and who has no certificate.
    others: usize,
}

/// A CA of the account. Certificates are in here as the Base64 of their PEM.
struct Authority {
    arn: String,
    name: &'static str,
    certificate: String,
    root: String,
    standing: Standing,
}

/// What a CA is to the trust store.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Standing {
    Undeclared,
    Declared,
    Retired,
    /// In the place of a retired one.
    Successor,
}

struct Pair {
    serial: String,
    /// With its own certificate, in PEM.
    chain: String,
    issuer: String,
    not_after: OffsetDateTime,
    revoked: Option<Revoked>,
}

struct Revoked {
    at: OffsetDateTime,
    authority_arn: String,
    /// When the CA published it.
    published: Option<OffsetDateTime>,
}

/// What the listener makes of a client.
struct Seen {
    name: &'static str,
    issuer: String,
    /// 0 is the current pair, 1 the one before.
    age: usize,
    revoked: bool,
    overdue: bool,
    verdict: String,
}

impl Trust {
    pub(crate) fn begin(&mut self, listener: &str, stranger: String) {
        (self.listener, self.stranger) = (listener.to_owned(), stranger);
    }

    pub(crate) fn knows(&mut self, world: &World, arn: &str, root: &str, name: &'static str, standing: Standing) {
        let certificate = |arn| world.pca.certificate(arn).iter().flat_map(|pem| certificates(pem)).next().unwrap_or_default();
        let (certificate, root) = (certificate(arn), certificate(root));
        self.authorities.push(Authority { arn: arn.to_owned(), name, certificate, root, standing });
    }

    pub(crate) fn stands(&mut self, arn: &str, standing: Standing) {
        let known = self.authorities.iter_mut().filter(|authority| authority.arn == arn);
        known.for_each(|authority| authority.standing = standing);
    }

    /// Whether a chain leads from a CA of the account to its root.
    pub(crate) fn leads_to_root(&self, chain: &str) -> bool {
        let chain: Vec<_> = certificates(chain).collect();
        let (first, last) = (chain.first().map_or("", String::as_str), chain.last());
        self.issuer(first).is_some_and(|issuer| Some(&issuer.root) == last)
    }

    /// The same text in fewer words: names of CAs instead of their ARNs, and only how serials begin.
    pub(crate) fn in_short(&self, text: &str) -> String {
        let text = self.authorities.iter().fold(text.to_owned(), |text, Authority { arn, name, standing, .. }| {
            let name = match standing {
                Standing::Retired => "the old CA",
                Standing::Successor => "the new CA",
                Standing::Declared | Standing::Undeclared => name,
            };
            text.replace(arn, name)
        });
        let serials = self.pairs.values().flatten().map(|pair| &pair.serial);
        serials.fold(text, |text, serial| text.replace(serial, &format!("{}…", serial.get(..8).unwrap_or(serial))))
    }

    /// A call to a CA or a load balancer; what it breaks.
    pub(crate) fn call(&mut self, world: &World, call: &Call) -> Option<String> {
        match call.action().as_str() {
            "elasticloadbalancing:CreateTrustStore" | "elasticloadbalancing:ModifyTrustStore" => return self.filled(world, call),
            "elasticloadbalancing:ModifyListener" => {
                self.verifies = call.input["MutualAuthentication"]["Mode"] == "verify";
                let what = if self.verifies { "begins to verify clients" } else { "verifies nobody any more" };
                self.note(call.at, LISTENER, what, "each of its clients is current, in every service");
            }
            "acm-pca:RevokeCertificate" => {
                let text = |member: &str| call.input[member].as_str().unwrap_or_default();
                let serial = number(text("CertificateSerial"));
                let revoked = self.pairs.values_mut().flatten().find(|pair| number(&pair.serial) == serial);
                if let Some(pair) = revoked {
                    let authority_arn = text("CertificateAuthorityArn").to_owned();
                    pair.revoked = Some(Revoked { at: call.at, authority_arn, published: None });
                }
            }
            _ => {}
        }
        self.moved |= call.writes();
        None
    }

    /// A CA has published a CRL.
    pub(crate) fn published(&mut self, authority_arn: &str, at: OffsetDateTime) {
        for revoked in self.pairs.values_mut().flatten().filter_map(|pair| pair.revoked.as_mut()) {
            if revoked.authority_arn == authority_arn && revoked.at < at {
                revoked.published.get_or_insert(at);
            }
        }
    }

    /// A pair has become current, `pem` with its chain: the store must hold its CA by now.
    pub(crate) fn promoted(
        &mut self,
        name: &'static str,
        serial: &str,
        not_after: OffsetDateTime,
        pem: [&str; 2],
    ) -> Option<String> {
        let issuer = certificates(pem[1]).next().unwrap_or_default();
        let untrusted = self.is_declared(&issuer) && !self.holds(&issuer);
        self.counts.trusted += usize::from(self.is_declared(&issuer) && !untrusted);
        let pair = Pair { serial: serial.to_owned(), chain: pem.concat(), issuer, not_after, revoked: None };
        self.pairs.entry(name).or_default().push(pair);
        self.moved = true;
        untrusted.then(|| format!("`{name}` became current before the trust store held its CA"))
    }

    /// The store was given another bundle: no pair in use may lose its CA.
    fn filled(&mut self, world: &World, call: &Call) -> Option<String> {
        let text = |member: &str| call.input[member].as_str().unwrap_or_default();
        let object = world.s3.object(text("CaCertificatesBundleS3Bucket"), text("CaCertificatesBundleS3Key"));
        let bundle: BTreeSet<_> = certificates(&String::from_utf8_lossy(object.unwrap_or_default())).collect();
        let before = self.bundle.replace(bundle.clone());
        let (new, gone) = (self.names(&bundle, before.as_ref()), self.names(&before.clone().unwrap_or_default(), Some(&bundle)));
        if !new.is_empty() {
            let why = if before.is_none() { "it is made for them" } else { "a successor is trusted before it issues" };
            self.note(call.at, STORE, format!("takes up {new}"), why);
        }
        if !gone.is_empty() {
            let needed = self.unrevoked().filter(|(_, pair)| self.is_declared(&pair.issuer) && !bundle.contains(&pair.issuer));
            let last = needed.max_by_key(|(_, pair)| pair.not_after).map_or("", |(name, _)| name);
            let why = format!("the last pair that needed it, of `{last}`, has expired");
            self.note(call.at, STORE, format!("gives up {gone}"), &why);
        }
        self.moved = true;
        let mut in_use = self.unrevoked().filter(|(_, pair)| pair.not_after > call.at);
        let lost = in_use.find(|(_, pair)| self.is_declared(&pair.issuer) && !bundle.contains(&pair.issuer));
        lost.map(|(name, _)| format!("the trust store gave up the CA of a pair of `{name}` that is in use"))
    }

    /// Whom the listener lets in now; what that breaks.
    pub(crate) fn look(&mut self, world: &mut World, now: OffsetDateTime) -> Vec<String> {
        if self.listener.is_empty() || !std::mem::take(&mut self.moved) && now.hour() != 0 {
            return Vec::new();
        }
        let (mut faults, seen) = (Vec::new(), self.seen(world, now));
        for Seen { name, revoked, overdue, verdict, age, .. } in seen.iter().filter(|seen| seen.age < 2 || seen.revoked) {
            let is_let_in = ["Success", "-"].contains(&verdict.as_str());
            self.counts.let_in += usize::from(!revoked && verdict == "Success");
            self.counts.revoked += usize::from(*revoked && !is_let_in);
            if !revoked && !is_let_in {
                let which = if *age == 0 { "current" } else { "previous" };
                faults.push(format!("the listener refuses the {which} pair of `{name}`: {verdict}"));
            }
            if *overdue && is_let_in {
                faults.push(format!("the listener lets in a pair of `{name}` a day after its CA published that it is revoked"));
            }
        }
        if self.verifies {
            let [stranger, nobody] = [self.stranger.as_str(), ""].map(|chain| self.verdict(world, now, chain));
            for verdict in [&stranger, &nobody] {
                match verdict.starts_with("Failed:") {
                    true => self.counts.others += 1,
                    false => faults.push("the listener lets in who is no client".to_owned()),
                }
            }
            let said = self.clients(&seen);
            if said != self.said {
                let refusal = if self.said.is_empty() { stranger.replace("Failed:", ": ") } else { String::new() };
                self.note(now, LISTENER, format!("{said}  ✗ stranger{refusal}  ✗ none"), "");
                self.said = said;
            }
        }
        faults
    }

    /// The story comes to a client: what the listener says of its current pair and of those that are revoked.
    pub(crate) fn tell(&mut self, world: &mut World, now: OffsetDateTime, client: &str, why: &str) {
        let seen = self.seen(world, now).into_iter().filter(|seen| seen.name == client && (seen.age == 0 || seen.revoked));
        let said = seen.map(|Seen { revoked, verdict, .. }| {
            let which = if revoked { "its revoked pair" } else { client };
            match verdict.strip_prefix("Failed:") {
                Some(refusal) => format!("✗ {which}: {refusal}"),
                None => format!("✓ {which}"),
            }
        });
        let said = said.collect::<Vec<_>>().join("  ");
        self.note(now, LISTENER, said, why);
    }

    pub(crate) fn is_untested(&self) -> bool {
        let Counts { trusted, let_in, revoked, others } = self.counts;
        [trusted, let_in, revoked, others].contains(&0)
    }

    pub(crate) fn holds_a_retired_ca(&self) -> bool {
        self.authorities.iter().any(|known| known.standing == Standing::Retired && self.holds(&known.certificate))
    }

    pub(crate) fn seen_of_it(&self) -> String {
        let Counts { trusted, let_in, revoked, others } = &self.counts;
        format!(
            "{trusted} pairs current once the store held their CA; {let_in} times let in, {} others refused",
            revoked + others
        )
    }

    /// `✓ old CA: ledger, mesh  ✓ new CA: reports  ✗ partner: ClientCertUntrusted`
    fn clients(&self, seen: &[Seen]) -> String {
        let mut groups: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for Seen { name, issuer, verdict, .. } in seen.iter().filter(|seen| seen.age == 0) {
            let label = match self.issuer(issuer).map(|issuer| issuer.standing) {
                Some(Standing::Retired) => "old CA: ",
                Some(Standing::Successor) => "new CA: ",
                _ => "",
            };
            // The old one first.
            let refusal = verdict.strip_prefix("Failed:").unwrap_or_default();
            groups.entry((refusal, Reverse(label))).or_default().push(name);
        }
        let group = |((refusal, Reverse(label)), names): (&(&str, Reverse<&str>), &Vec<&str>)| match *refusal {
            "" => format!("✓ {label}{}", names.join(", ")),
            refusal => format!("✗ {label}{}: {refusal}", names.join(", ")),
        };
        groups.iter().map(group).collect::<Vec<_>>().join("  ")
    }

    /// What the listener makes of every unexpired pair of each client.
    fn seen(&self, world: &mut World, now: OffsetDateTime) -> Vec<Seen> {
        let mut all = Vec::new();
        for name in CLIENTS {
            for (age, pair) in self.pairs.get(name).into_iter().flat_map(|pairs| pairs.iter().rev().enumerate()) {
                if pair.not_after > now {
                    let published = pair.revoked.as_ref().and_then(|revoked| revoked.published);
                    let overdue = published.is_some_and(|published| now - published > CRL_LIMIT);
                    let verdict = self.verdict(world, now, &pair.chain);
                    all.push(Seen { name, issuer: pair.issuer.clone(), age, revoked: pair.revoked.is_some(), overdue, verdict });
                }
            }
        }
        all
    }

    fn verdict(&self, world: &mut World, now: OffsetDateTime, chain: &str) -> String {
        elbv2::tls_verify_status(world, now, &self.listener, chain).unwrap_or_else(|error| format!("Failed:{}", error.code))
    }

    /// The pairs, current and previous, that are not revoked.
    fn unrevoked(&self) -> impl Iterator<Item = (&'static str, &Pair)> {
        let last = self.pairs.iter().flat_map(|(name, pairs)| pairs.iter().rev().take(2).map(move |pair| (*name, pair)));
        last.filter(|(_, pair)| pair.revoked.is_none())
    }

    fn issuer(&self, certificate: &str) -> Option<&Authority> {
        self.authorities.iter().find(|authority| authority.certificate == certificate)
    }

    fn is_declared(&self, certificate: &str) -> bool {
        self.issuer(certificate).is_some_and(|issuer| issuer.standing != Standing::Undeclared)
    }

    fn holds(&self, certificate: &str) -> bool {
        self.bundle.as_ref().is_some_and(|bundle| bundle.contains(certificate))
    }

    /// The names of the CAs that are among `some` and not among `others`.
    fn names(&self, some: &BTreeSet<String>, others: Option<&BTreeSet<String>>) -> String {
        let only = some.iter().filter(|certificate| others.is_none_or(|others| !others.contains(*certificate)));
        let names: BTreeSet<_> =
            only.map(|certificate| self.issuer(certificate).map_or("an unknown CA", |issuer| issuer.name)).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    }

    fn note(&mut self, at: OffsetDateTime, about: &str, what: impl Into<String>, why: &str) {
        self.notes.push(Note { at, certificate: about.to_owned(), what: what.into(), why: why.to_owned() });
    }
}

const LISTENER: &str = "the listener";
const STORE: &str = "trust store";

fn number(serial: &str) -> Option<u128> {
    u128::from_str_radix(&serial.replace(':', ""), 16).ok()
}

/// The certificates of a text in PEM, each as its Base64 in one line.
fn certificates(pem: &str) -> impl Iterator<Item = String> {
    pem.split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .map(|rest| rest.split("-----END").next().unwrap_or_default().split_whitespace().collect())
}
