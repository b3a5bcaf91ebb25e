//! Keys and certificates as they stand in a secret, and what makes them a good pair.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use lifecycle::leaf::{Leaf, Serial, Usage};
use lifecycle::record::{KeyFormat, Specification};
use pkcs8::der::Decode;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use rustls_pki_types::{CertificateDer, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use time::OffsetDateTime;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyUsage, anchor_from_trusted_cert};
use x509_parser::pem::Pem;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::Zeroizing;

/// The four values of a managed secret. Only [`text`](Self::text) writes the key down, and only for Secrets Manager.
pub struct Material {
    /// The leaf, PEM.
    pub certificate: String,
    /// Issuing CA … root, PEM.
    pub certificate_chain: String,
    /// `None` for a caller's key.
    pub key: Option<Key>,
}

/// A private key as it stands in a secret.
pub struct Key {
    /// PKCS#8, PEM.
    pub pem: SecretString,
    /// What the PEM is encrypted with, when it is.
    pub passphrase: Option<SecretString>,
}

/// A key that waits for its certificate.
pub struct Waiting {
    pub key: Key,
    /// PEM.
    pub csr: String,
    /// The number of the attempt that made it.
    pub attempt: u32,
}

/// What a new pair has to be.
pub enum Wanted<'a> {
    /// Everything that was asked for.
    Issued { specification: &'a Specification, not_after: OffsetDateTime, key_fingerprint: Option<&'a str> },
    /// The certificate that ACM described.
    Exported { serial: &'a Serial },
    /// Whatever it is, as long as it is a good pair: found in a secret.
    Found,
}

/// A long random text in letters and digits: what ACM takes as a passphrase, and every other tool.
/// <https://docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html>
pub fn passphrase() -> SecretString {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes = random::<43>();
    bytes.iter().map(|byte| ALPHABET[usize::from(byte % 64)] as char).collect::<String>().into()
}

/// Bytes from AWS-LC's generator.
pub fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    // AWS-LC's generator cannot fail once the process runs: it aborts where the system gives no entropy.
    SystemRandom::new().fill(bytes.as_mut()).expect("the system gives random bytes");
    bytes
}

impl Key {
    /// Puts a PKCS#8 key (DER) into the form that it will have in the secret.
    pub fn seal(pkcs8: &[u8], format: KeyFormat) -> Result<Self, String> {
        let unreadable = |error: pkcs8::Error| format!("the key is not PKCS#8: {error}");
        match format {
            KeyFormat::Plain => {
                let document = SecretDocument::try_from(pkcs8).map_err(|error| unreadable(error.into()))?;
                Ok(Self { pem: pem(&document, "PRIVATE KEY")?, passphrase: None })
            }
            KeyFormat::Encrypted => {
                let passphrase = passphrase();
                let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(unreadable)?;
                // The passphrase has 258 random bits: stretching it would add time and nothing else. OpenSSL, BoringSSL and Java
                // read these parameters; they are ACM's, with SHA-256 in place of SHA-1.
                let parameters =
                    pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(2048, random::<16>().as_ref(), *random::<16>())
                        .map_err(|error| error.to_string())?;
                let document =
                    info.encrypt_with_params(parameters, passphrase.expose_secret()).map_err(|error| error.to_string())?;
                Ok(Self { pem: pem(&document, "ENCRYPTED PRIVATE KEY")?, passphrase: Some(passphrase) })
            }
        }
    }

    /// The key itself: PKCS#8, DER. ACM encrypts with PBES2 under HMAC-SHA1 or HMAC-SHA256.
    pub fn open(&self) -> Result<SecretDocument, String> {
        let (label, document) =
            SecretDocument::from_pem(self.pem.expose_secret()).map_err(|_| "the private key is not PEM".to_owned())?;
        match (&self.passphrase, label) {
            (None, "PRIVATE KEY") => Ok(document),
            (Some(passphrase), "ENCRYPTED PRIVATE KEY") => {
                let encrypted = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes())
                    .map_err(|_| "the encrypted private key is not PKCS#8".to_owned())?;
                if !is_cheap(&encrypted) {
                    return Err(format!(
                        "the private key is not encrypted with PBKDF2 of at most {MOST_ITERATIONS} iterations; encrypt it so"
                    ));
                }
                encrypted
                    .decrypt(passphrase.expose_secret())
                    .map_err(|_| "the passphrase does not open the private key".to_owned())
            }
            _ => Err(format!(
                "the private key is a `{label}`, {} passphrase beside it",
                if self.passphrase.is_some() { "a" } else { "no" }
            )),
        }
    }

    /// The same key in another form.
    pub fn reseal(self, format: KeyFormat) -> Result<Self, String> {
        match (format, &self.passphrase) {
            (KeyFormat::Encrypted, Some(_)) | (KeyFormat::Plain, None) => Ok(self),
            _ => Self::seal(self.open()?.as_bytes(), format),
        }
    }
}

/// ACM, OpenSSL and Everleaf take 2048; OWASP advises 600,000.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Whether a key can be opened without the time and memory that its own text asks for: scrypt takes gigabytes where it is told to.
fn is_cheap(key: &EncryptedPrivateKeyInfoRef<'_>) -> bool {
    let kdf = key.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf);
    kdf.and_then(pbes2::Kdf::pbkdf2).is_some_and(|kdf| kdf.iteration_count <= MOST_ITERATIONS)
}

fn pem(document: &SecretDocument, label: &'static str) -> Result<SecretString, String> {
    let text = document.to_pem(label, LineEnding::LF).map_err(|error| error.to_string())?;
    Ok(text.as_str().into())
}

/// The public key (SubjectPublicKeyInfo, DER) of a private one.
fn public_key(pkcs8: &[u8]) -> Result<Vec<u8>, String> {
    if let Ok(pair) = rsa::KeyPair::from_pkcs8(pkcs8) {
        let key: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| "the RSA key has no public half".to_owned())?;
        return Ok(key.as_ref().to_vec());
    }
    for curve in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, pkcs8) {
            let key: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| "the EC key has no public half".to_owned())?;
            return Ok(key.as_ref().to_vec());
        }
    }
    Err("the private key is neither RSA nor EC on P-256 or P-384".to_owned())
}

impl Material {
    /// Whether this is a good pair and the one wanted: the leaf's facts, or the first thing wrong with it.
    ///
    /// The key belongs to the leaf; the chain is in order and builds to its end, RFC 5280 section 6, which AWS Private CA's root is;
    /// every certificate is valid now; names, key, usage and dates are those asked for.
    pub fn verify(&self, wanted: &Wanted<'_>, now: OffsetDateTime) -> Result<Leaf, String> {
        let leaf = Leaf::from_pem(&self.certificate).map_err(|error| error.to_string())?;
        let certificates = certificates(&self.certificate)?;
        let [certificate] = &certificates[..] else {
            return Err(format!("there are {} certificates in place of one leaf", certificates.len()));
        };
        if let Some(key) = &self.key {
            let public_key = public_key(key.open()?.as_bytes())?;
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
            if parsed.public_key().raw != public_key {
                return Err("the private key does not belong to the certificate".to_owned());
            }
        }
        leaf.is_wanted(wanted)?;
        // A pair that is found may have expired since it was good: then it is due, not bad.
        let at = match wanted {
            Wanted::Found if leaf.not_before <= leaf.not_after => now.clamp(leaf.not_before, leaf.not_after),
            _ => now,
        };
        let to_the_root = matches!(wanted, Wanted::Issued { .. });
        verify_chain(certificate, &self.certificate_chain, to_the_root, leaf.usage, at)?;
        Ok(leaf)
    }

    /// The JSON of a secret's version, keys in this order: the same material always gives the same bytes.
    pub fn text(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
        text.push('{');
        field(&mut text, "certificate", &self.certificate);
        field(&mut text, "certificate_chain", &self.certificate_chain);
        if let Some(key) = &self.key {
            key.fields(&mut text);
        }
        text.push('}');
        text.as_str().into()
    }

    /// Reads a version. `None` when it is `{}`: not issued yet.
    pub fn read(text: &SecretString) -> Result<Option<Self>, String> {
        let Fields { certificate, certificate_chain, private_key, passphrase, .. } = Fields::read(text)?;
        let key = private_key.map(|pem| Key { pem, passphrase });
        match (certificate, certificate_chain, key) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(certificate_chain), key) => Ok(Some(Self { certificate, certificate_chain, key })),
            _ => Err("`certificate` or `certificate_chain` is missing".to_owned()),
        }
    }
}

impl Waiting {
    pub fn text(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(8 * 1024));
        text.push('{');
        self.key.fields(&mut text);
        field(&mut text, "csr", &self.csr);
        field(&mut text, "attempt", &self.attempt.to_string());
        text.push('}');
        text.as_str().into()
    }

    pub fn read(text: &SecretString) -> Result<Self, String> {
        match Fields::read(text)? {
            Fields { private_key: Some(pem), passphrase, csr: Some(csr), attempt: Some(attempt), .. } => Ok(Self {
                key: Key { pem, passphrase },
                csr,
                attempt: attempt.parse().map_err(|_| "`attempt` is not a number".to_owned())?,
            }),
            _ => Err("`private_key`, `csr` or `attempt` is missing".to_owned()),
        }
    }
}

impl Key {
    fn fields(&self, text: &mut String) {
        field(text, "private_key", self.pem.expose_secret());
        if let Some(passphrase) = &self.passphrase {
            field(text, "passphrase", passphrase.expose_secret());
        }
    }
}

/// Appends a member of a JSON object.
fn field(text: &mut String, name: &str, value: &str) {
    if !text.ends_with('{') {
        text.push(',');
    }
    text.push('"');
    text.push_str(name);
    text.push_str("\":\"");
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '"' | '\\' => text.extend(['\\', character]),
            // Between its blocks PEM may hold anything.
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[derive(Deserialize)]
struct Fields {
    certificate: Option<String>,
    certificate_chain: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    private_key: Option<SecretString>,
    #[serde(default, deserialize_with = "secret")]
    passphrase: Option<SecretString>,
    csr: Option<String>,
    attempt: Option<String>,
}

impl Fields {
    fn read(text: &SecretString) -> Result<Self, String> {
        // The parser's own message could quote what it read.
        serde_json::from_str(text.expose_secret())
            .map_err(|error| format!("it is not a JSON object of texts (line {}, column {})", error.line(), error.column()))
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

trait IsWanted {
    fn is_wanted(&self, wanted: &Wanted<'_>) -> Result<(), String>;
}

impl IsWanted for Leaf {
    fn is_wanted(&self, wanted: &Wanted<'_>) -> Result<(), String> {
        match wanted {
            Wanted::Found => Ok(()),
            Wanted::Exported { serial } if self.serial == **serial => Ok(()),
            Wanted::Exported { serial } => Err(format!("its serial is {}, not {serial}", self.serial)),
            Wanted::Issued { specification, not_after, key_fingerprint } => {
                let Specification { subject, names, key_algorithm, usage, lifetime: _, certificate_authority_arn: _ } =
                    specification;
                let differs = [
                    ("subject", self.subject == *subject),
                    ("subject alternative names", self.names == *names),
                    ("key algorithm", self.key_algorithm == Some(*key_algorithm)),
                    ("extended key usage", self.usage == Some(*usage)),
                    ("expiry", (self.not_after - *not_after).abs() < time::Duration::minutes(1)),
                    ("key", key_fingerprint.is_none_or(|key| self.key_fingerprint == key)),
                ];
                match differs.iter().find(|(_, same)| !same) {
                    Some((what, _)) => Err(format!("its {what} is not what was asked for")),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The chain in a server's order, and a path through it that RFC 5280 accepts. A public one of ACM's ends at a root of Amazon's that
/// another has signed, which clients know by itself: only where it has to reach `to_the_root` its end is issued by itself.
fn verify_chain(
    leaf: &CertificateDer<'_>,
    chain: &str,
    to_the_root: bool,
    usage: Option<Usage>,
    now: OffsetDateTime,
) -> Result<(), String> {
    let chain = certificates(chain)?;
    let Some(top) = chain.last() else { return Err("there is no chain".to_owned()) };
    let now_in_x509 = ASN1Time::from_timestamp(now.unix_timestamp()).map_err(|error| error.to_string())?;
    let mut below = leaf;
    for above in chain.iter().chain(to_the_root.then_some(top)) {
        let ((_, issued), (_, issuer)) = match (X509Certificate::from_der(below), X509Certificate::from_der(above)) {
            (Ok(issued), Ok(issuer)) => (issued, issuer),
            (Err(error), _) | (_, Err(error)) => return Err(format!("a certificate of the chain is not readable: {error}")),
        };
        if issued.issuer().as_raw() != issuer.subject().as_raw() {
            return Err(format!("the chain is out of order: `{}` is not issued by `{}`", issued.subject(), issuer.subject()));
        }
        // The path's validation takes its end on trust, its dates too.
        if !issuer.validity().is_valid_at(now_in_x509) {
            return Err(format!("`{}` of the chain is not valid now", issuer.subject()));
        }
        below = above;
    }
    let anchor = anchor_from_trusted_cert(top).map_err(|error| format!("the end of the chain is not usable: {error}"))?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| format!("the leaf is not usable: {error}"))?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unix_timestamp().try_into().unwrap_or_default()));
    let (client, server) = (KeyUsage::client_auth(), KeyUsage::server_auth());
    let usages: &[KeyUsage] = match usage {
        Some(Usage::Client) => &[client],
        Some(Usage::Server) => &[server],
        Some(Usage::ClientAndServer) => &[client, server],
        None => return Err("its extended key usage is neither client nor server authentication".to_owned()),
    };
    for usage in usages {
        end_entity
            .verify_for_usage(ALL_VERIFICATION_ALGS, std::slice::from_ref(&anchor), &chain, at, Borrowed(usage), None, None)
            .map_err(|error| format!("the chain does not verify: {error}"))?;
    }
    Ok(())
}

/// The library takes its usage by value and does not let it be copied.
struct Borrowed<'a>(&'a KeyUsage);

impl ExtendedKeyUsageValidator for Borrowed<'_> {
    fn validate(&self, usages: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        self.0.validate(usages)
    }
}

/// The certificates of a PEM text, and nothing else.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    Pem::iter_from_buffer(pem.as_bytes())
        .map(|pem| match pem {
            Ok(pem) if pem.label == "CERTIFICATE" => Ok(pem.contents.into()),
            Ok(pem) => Err(format!("there is a `{}` among the certificates", pem.label)),
            Err(error) => Err(format!("the certificates are not PEM: {error}")),
        })
        .collect()
}
