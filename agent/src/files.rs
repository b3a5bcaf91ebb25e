//! A pair as the files that programs read.

use std::collections::BTreeMap;
use std::path::Path;

use lifecycle::leaf::Leaf;
use material::{Material, Wanted, certificates, passphrase};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use pkcs8::der::pem::{LineEnding, encode_string};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::health::rfc3339;
use crate::settings::Formats;

pub const VERSION: &str = "version";
pub const CERTIFICATE: &str = "cert.pem";
pub const PASSWORD: &str = "keystore.password";

/// One file of a set.
pub struct File {
    pub content: Zeroizing<Vec<u8>>,
    /// Whether it is for its owner's eyes only.
    pub private: bool,
}

/// The names of the files of a whole set.
pub fn names(formats: Formats) -> impl Iterator<Item = &'static str> {
    let pem = [CERTIFICATE, "chain.pem", "fullchain.pem", "key.pem", "ca.pem", VERSION];
    let java = ["keystore.p12", "truststore.p12", PASSWORD].into_iter().filter(move |_| formats.java);
    let envoy = ["sds-certificate.yaml", "sds-ca.yaml"].into_iter().filter(move |_| formats.envoy);
    pem.into_iter().chain(java).chain(envoy)
}

/// The secret's value as a set of files that will stand in `directory`; an error when it is not a good pair now. `password` is what
/// opened the PKCS#12 files so far.
pub fn files(
    value: &SecretString,
    version: &str,
    formats: Formats,
    directory: &Path,
    password: Option<String>,
    now: OffsetDateTime,
) -> Result<BTreeMap<&'static str, File>, String> {
    let material = Material::read(value)?.ok_or("the certificate is not issued yet")?;
    let key = material.key.as_ref().ok_or("the secret holds no key: it stayed with whoever sent the CSR")?;
    let Leaf { not_before, not_after, .. } = material.verify(&Wanted::Found, now)?;
    if now < not_before || not_after <= now {
        let [from, to, now] = [not_before, not_after, now].map(rfc3339);
        return Err(format!("the certificate is valid from {from} to {to}, and now is {now}"));
    }
    let leaf = certificates(&material.certificate)?;
    let chain = certificates(&material.certificate_chain)?;
    let (roots, intermediates): (Vec<_>, Vec<_>) = chain.iter().partition(|certificate| is_root(certificate));
    // A public chain ends at a cross-signed root: that one is trusted, and sent too, for a client may know only its signer.
    let trusted = if roots.is_empty() { chain.last().into_iter().collect() } else { roots };
    let key = key.open()?;
    let key_pem = key.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| error.to_string())?;

    let mut files = BTreeMap::new();
    let mut add = |name, private, content: &[u8]| files.insert(name, File { content: Zeroizing::new(content.to_vec()), private });
    add(CERTIFICATE, false, pem(&leaf)?.as_bytes());
    add("chain.pem", false, pem(&chain)?.as_bytes());
    add("fullchain.pem", false, pem(leaf.iter().chain(intermediates.iter().copied()))?.as_bytes());
    add("key.pem", true, key_pem.as_bytes());
    add("ca.pem", false, pem(trusted.iter().copied())?.as_bytes());
    add(VERSION, false, format!("{version}\n").as_bytes());
    if formats.java {
        let password: SecretString = password.map_or_else(passphrase, SecretString::from);
        let unfit = |error: p12_keystore::error::Error| format!("PKCS#12: {error}");
        let read = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).map_err(unfit);
        let path = leaf.iter().chain(&chain).map(read).collect::<Result<Vec<_>, _>>()?;
        let private = PrivateKey::from_der(key.as_bytes()).map_err(unfit)?;
        let mut keys = KeyStore::new();
        keys.add_entry("everleaf", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new([1].to_vec(), private, path)));
        let mut anchors = KeyStore::new();
        for (place, anchor) in trusted.iter().enumerate() {
            anchors.add_entry(&format!("ca-{place}"), KeyStoreEntry::Certificate(read(anchor)?));
        }
        // The password has 258 random bits: stretching it would add time and nothing else.
        let write = |store: &KeyStore| {
            let writer = store.writer(password.expose_secret()).encryption_iterations(2048).mac_iterations(2048);
            writer.write().map(Zeroizing::new).map_err(unfit)
        };
        add("keystore.p12", true, &write(&keys)?);
        add("truststore.p12", true, &write(&anchors)?);
        // No line's end: Spring's config tree and most readers take the file as it is.
        add(PASSWORD, true, password.expose_secret().as_bytes());
    }
    if formats.envoy {
        let file = |name: &str| quoted(&directory.join("current").join(name));
        let (watched, chain, key, ca) = (quoted(directory), file("fullchain.pem"), file("key.pem"), file("ca.pem"));
        // Envoy takes one secret from a file.
        let sds = |name: &str, secret: String| {
            let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
            let watched = format!("    watched_directory: {{ path: {watched} }}\n");
            format!("resources:\n- \"@type\": {kind}\n  name: {name}\n{secret}{watched}")
        };
        let chain = format!("    certificate_chain: {{ filename: {chain} }}\n    private_key: {{ filename: {key} }}\n");
        add("sds-certificate.yaml", false, sds("certificate", format!("  tls_certificate:\n{chain}")).as_bytes());
        let trusted = format!("  validation_context:\n    trusted_ca: {{ filename: {ca} }}\n");
        add("sds-ca.yaml", false, sds("ca", trusted).as_bytes());
    }
    debug_assert!(names(formats).all(|name| files.contains_key(name)) && files.len() == names(formats).count());
    Ok(files)
}

/// Self-issued: of a chain that was verified, only a root is, and the end of a public one is not.
fn is_root(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}

fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Result<String, String> {
    let encoded = |certificate: &CertificateDer<'_>| encode_string("CERTIFICATE", LineEnding::LF, certificate);
    certificates.into_iter().map(encoded).collect::<Result<String, _>>().map_err(|error| error.to_string())
}

/// A path as a scalar of YAML, whatever is in it.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
