//! What a trust store is to hold: from the CAs and objects that were named to one file that ALB takes whole, or to every reason
//! against parts of it.
//!
//! ```text
//!   declared CAs, CAs still needed ─┐
//!                                   ├─▶ each judged ─▶ each with its issuers up to a root ─▶ at most 25 ─▶ canonical order
//!   extra objects ──────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;

use crate::authority::{Authority, Refused};

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
pub const MOST_AUTHORITIES: usize = 25;

/// The bytes that the subjects of all CAs in a trust store may have together.
const LARGEST_NAMES: usize = 10_000;

/// ALB follows a chain of four certificates, the leaf being one of them.
const LONGEST_CHAIN: usize = 4;

/// Room for the largest certificate that ALB takes, and for comments.
pub const LARGEST_OBJECT: usize = 64 * 1024;

/// The CAs of a bundle, in the one order in which they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bundle {
    pub authorities: Vec<Authority>,
    /// What was named and is left out. It does not keep the rest out.
    pub refused: Vec<Refused>,
}

/// A file that a person put under `trust/extra/<store>/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    pub key: String,
    /// As much of it as tells whether it has more than [`LARGEST_OBJECT`] bytes.
    pub body: Vec<u8>,
}

impl Extra {
    /// The CA in it.
    pub fn read(&self, now: OffsetDateTime) -> Result<Authority, Refused> {
        let der = only_certificate(&self.body).map_err(|why| Refused { what: self.key.clone(), why })?;
        Authority::judge(&der, now).map_err(|Refused { what, why }| Refused { what: format!("{}: {what}", self.key), why })
    }
}

impl Bundle {
    /// Puts a bundle together: `chains` are the certificates (DER) of each CA up to its root. Where there is no room for all, they and
    /// the extras that the store has (`held`, DER) come before the other extras.
    pub fn of(chains: &[Vec<Vec<u8>>], extras: &[Extra], held: &[Vec<u8>], now: OffsetDateTime) -> Self {
        let mut refused = Vec::new();
        let mut authorities: Vec<Authority> = Vec::new();
        for der in chains.iter().flatten() {
            if authorities.iter().any(|known| known.der == *der) {
                continue;
            }
            match Authority::judge(der, now) {
                Ok(authority) => authorities.push(authority),
                Err(refusal) => refused.push(refusal),
            }
        }
        let named = authorities.len();
        let mut objects: BTreeMap<String, &str> = BTreeMap::new();
        let mut extras: Vec<&Extra> = extras.iter().collect();
        extras.sort_by_key(|extra| &extra.key);
        for extra in extras {
            let key = &extra.key;
            let authority = match extra.read(now) {
                Ok(authority) => authority,
                Err(refusal) => {
                    refused.push(refusal);
                    continue;
                }
            };
            match authorities.iter().position(|known| known.der == authority.der) {
                Some(known) => {
                    let other = objects.get(&authority.fingerprint).map_or("a declared CA", |key| *key);
                    let why = format!("it is the same certificate as {}: {}; delete this object", other, authorities[known]);
                    refused.push(Refused { what: key.clone(), why });
                }
                None => {
                    objects.insert(authority.fingerprint.clone(), key);
                    authorities.push(authority);
                }
            }
        }
        let place = |authority: &Authority, why: &str| match objects.get(&authority.fingerprint) {
            Some(key) => Refused { what: format!("{key}: {authority}"), why: why.to_owned() },
            None => authority.refused(why),
        };
        let new = authorities[named..].iter().filter(|authority| !held.contains(&authority.der));
        let new: BTreeSet<String> = new.map(|authority| authority.fingerprint.clone()).collect();
        let (mut authorities, unfounded) = founded(authorities);
        refused.extend(unfounded.into_iter().map(|(authority, why)| place(&authority, why)));

        // Too many: new extras go, the last of them first, and with each whatever stands on it. Nobody who gets in now is shut out for
        // want of room: rather the bundle stays too large.
        while let Some(excess) = excess(&authorities)
            && let Some(last) = authorities.iter().rposition(|authority| new.contains(&authority.fingerprint))
        {
            let removed = authorities.remove(last);
            refused.push(place(&removed, &format!("there is no room for it: {excess}; delete another object")));
            let (rest, unfounded) = founded(authorities);
            authorities = rest;
            refused.extend(unfounded.into_iter().map(|(authority, why)| place(&authority, why)));
        }
        authorities.sort_by(|left, right| (&left.subject, &left.fingerprint).cmp(&(&right.subject, &right.fingerprint)));
        refused.sort();
        refused.dedup();
        Self { authorities, refused }
    }

    pub fn pem(&self) -> String {
        self.authorities.iter().map(Authority::pem).collect()
    }

    pub fn fingerprints(&self) -> BTreeSet<String> {
        self.authorities.iter().map(|authority| authority.fingerprint.clone()).collect()
    }

    pub fn holds(&self, fingerprint: &str) -> bool {
        self.authorities.iter().any(|authority| authority.fingerprint == fingerprint)
    }

    /// Why this bundle must not be uploaded, as a whole.
    pub fn unfit(&self) -> Option<String> {
        match self.authorities.is_empty() {
            true => Some("nothing would be left in it, and an empty trust store locks every client out".to_owned()),
            false => excess(&self.authorities)
                .map(|excess| format!("{excess}; declare fewer CAs in it, or delete some of its objects under trust/extra/")),
        }
    }
}

/// What there is too much of for one trust store.
fn excess(authorities: &[Authority]) -> Option<String> {
    let count = authorities.len();
    let names: usize = authorities.iter().map(|authority| authority.subject_size).sum();
    if count > MOST_AUTHORITIES {
        Some(format!("its CAs and their chains are {count} certificates, and a trust store holds {MOST_AUTHORITIES}"))
    } else if names > LARGEST_NAMES {
        Some(format!("the subjects of its CAs have {names} bytes together, and ALB takes {LARGEST_NAMES}"))
    } else {
        None
    }
}

/// Those CAs that lead to a root among them by a chain that ALB follows, and the others with the reason.
fn founded(authorities: Vec<Authority>) -> (Vec<Authority>, Vec<(Authority, &'static str)>) {
    // How many CAs there are from each one up to its root, the shortest way; those that are not in here have no way yet.
    let mut chains: BTreeMap<usize, usize> = BTreeMap::new();
    // The number of CAs that may stand below each, by the most generous of its ways.
    let mut room: BTreeMap<usize, Option<u32>> = BTreeMap::new();
    for (index, root) in authorities.iter().enumerate() {
        if root.self_signed && root.is_issued_by(root) {
            chains.insert(index, 1);
            room.insert(index, root.path_length);
        }
    }
    let mut constrained = BTreeSet::new();
    for length in 2..=authorities.len() {
        for (index, authority) in authorities.iter().enumerate() {
            if chains.contains_key(&index) {
                continue;
            }
            let issuers = chains.iter().filter(|(_, above)| **above == length - 1).map(|(issuer, _)| *issuer);
            let issuers: Vec<usize> = issuers.filter(|issuer| authority.is_issued_by(&authorities[*issuer])).collect();
            let below = issuers.iter().filter_map(|issuer| match room[issuer] {
                None => Some(authority.path_length),
                Some(0) => None,
                Some(more) => Some(Some(authority.path_length.map_or(more - 1, |own| own.min(more - 1)))),
            });
            let below: Vec<Option<u32>> = below.collect();
            if issuers.is_empty() {
                continue;
            }
            match below.iter().max_by_key(|room| room.map_or(u64::MAX, u64::from)) {
                Some(best) => {
                    chains.insert(index, length);
                    room.insert(index, *best);
                }
                None => _ = constrained.insert(index),
            }
        }
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (index, authority) in authorities.into_iter().enumerate() {
        match chains.get(&index) {
            Some(length) if *length < LONGEST_CHAIN => good.push(authority),
            Some(_) => {
                bad.push((authority, "its chain has more than four certificates with the leaf, and ALB follows no longer one"))
            }
            None if constrained.contains(&index) => bad.push((authority, "the path length of its issuer allows no CA below it")),
            None if authority.self_signed => bad.push((authority, "its signature is not its own key's")),
            None => bad
                .push((authority, "no CA of this trust store has issued it; put its issuers into the store too, up to the root")),
        }
    }
    (good, bad)
}

/// The one certificate (DER) of an object, which must be what ALB itself would take.
fn only_certificate(body: &[u8]) -> Result<Vec<u8>, String> {
    let refuse = |why: &str| Err(why.to_owned());
    if body.len() > LARGEST_OBJECT {
        return Err(format!("it has more than {LARGEST_OBJECT} bytes; put one certificate into it, and few comments"));
    }
    if body.starts_with(&[0xef, 0xbb, 0xbf]) {
        return refuse("it begins with a byte order mark; save it as plain ASCII");
    }
    if body.starts_with(&[0xff, 0xfe]) || body.starts_with(&[0xfe, 0xff]) {
        return refuse("it is UTF-16; save it as plain ASCII");
    }
    // A SEQUENCE of more than 255 bytes.
    if body.starts_with(&[0x30, 0x82]) {
        return refuse("it is DER; convert it with `openssl x509 -inform DER`");
    }
    let text = std::str::from_utf8(body).ok().filter(|text| text.is_ascii());
    let Some(text) = text else { return refuse("it holds something other than ASCII; keep nothing but PEM in it") };
    if text.trim().is_empty() {
        return refuse("it is empty; put a CA's certificate into it, PEM, or delete it");
    }
    if let Some(label) = label_of_anything_else(text) {
        return Err(match label.ends_with("PRIVATE KEY") {
            true => format!("it holds a `{label}`: delete it, and take the key for lost; a trust store holds certificates only"),
            false => format!("it holds a `{label}`; put the PEM block CERTIFICATE of a CA into it"),
        });
    }
    if text.contains('\r') {
        return refuse("its lines end in CR LF, which ALB does not take; convert it with `tr -d '\\r'`");
    }
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let (mut found, mut block): (Vec<String>, Option<String>) = (Vec::new(), None);
    for (number, line) in text.strip_suffix('\n').unwrap_or(text).split('\n').enumerate() {
        let at = |why: &str| Err(format!("line {}: {why}", number + 1));
        block = match (block, line) {
            (_, "") => return at("it is blank, which ALB does not take; remove it"),
            (None, BEGIN) => Some(String::new()),
            (None, comment) if comment.starts_with('#') => match comment.contains('-') {
                true => return at("it is a comment with a `-` in it, which ALB does not take; remove it"),
                false => None,
            },
            (None, _) => return at("it is neither PEM nor a comment; keep nothing else in it"),
            (Some(base64), END) => {
                found.push(base64);
                None
            }
            (Some(_), line) if line == BEGIN => return at("a certificate begins before the last one has ended"),
            (Some(_), line) if line.starts_with('#') => return at("there is a comment within the certificate; remove it"),
            (Some(base64), line) => Some(base64 + line),
        };
    }
    if block.is_some() {
        return refuse("its certificate has no end; it was cut off");
    }
    let base64 = match &found[..] {
        [base64] => base64,
        [] => return refuse("there is no certificate in it; put a CA's into it, PEM, or delete it"),
        more => {
            return Err(format!(
                "there are {} certificates in it; put each into an object of its own, so that each can leave by itself",
                more.len()
            ));
        }
    };
    BASE64.decode(base64).map_err(|error| format!("its certificate is not Base64: {error}"))
}

/// The label of the first PEM block that is not a certificate.
fn label_of_anything_else(text: &str) -> Option<&str> {
    let labels = text.lines().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    labels.into_iter().find(|label| *label != "CERTIFICATE")
}

#[cfg(test)]
mod tests;
