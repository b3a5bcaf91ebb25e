//! What load balancers read: bundles of CA certificates and lists of revoked ones, and the signatures below them.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::*;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Version};

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
const MOST_AUTHORITIES: usize = 25;
const MOST_CERTIFICATE_BYTES: usize = 16 * 1024;
const MOST_SUBJECT_BYTES: usize = 10_000;
const MOST_LIST_BYTES: usize = 50 * 1024 * 1024;

/// A certificate revocation list of a trust store.
pub(super) struct RevocationList {
    pub(super) content: Vec<u8>,
    pub(super) der: Vec<u8>,
    pub(super) entries: usize,
}

/// The certificates of a bundle, in DER, or why it is refused.
pub(super) fn authorities(bundle: &[u8], now: OffsetDateTime) -> Result<Vec<Vec<u8>>, String> {
    let authorities = blocks(bundle, "CERTIFICATE")?;
    if !(1..=MOST_AUTHORITIES).contains(&authorities.len()) {
        return Err(format!("it holds {} certificates, not 1 to {MOST_AUTHORITIES}", authorities.len()));
    }
    let (mut subject_bytes, mut has_root) = (0, false);
    for (place, der) in (1..).zip(&authorities) {
        let refused = |reason: &str| Err(format!("certificate {place} {reason}"));
        if der.len() > MOST_CERTIFICATE_BYTES {
            return refused("is larger than 16 KB");
        }
        let Some(certificate) = parsed(der) else { return refused("cannot be read") };
        if !may_sign_certificates(&certificate) {
            return refused("is not that of a CA");
        }
        if !is_supported(&certificate) {
            return refused("has a key or a signature of a kind that is not supported");
        }
        if now > certificate.validity().not_after.to_datetime() {
            return refused("has expired");
        }
        subject_bytes += certificate.subject().as_raw().len();
        has_root |= is_signed_by(&certificate, &certificate);
    }
    if subject_bytes > MOST_SUBJECT_BYTES {
        return Err(format!("the subject names take {subject_bytes} bytes, more than {MOST_SUBJECT_BYTES}"));
    }
    if has_root { Ok(authorities) } else { Err("it holds no root".into()) }
}

impl RevocationList {
    /// A list in PEM that one of the authorities has signed, or why it is refused.
    pub(super) fn read(content: Vec<u8>, authorities: &[Vec<u8>]) -> Result<Self, String> {
        if content.len() > MOST_LIST_BYTES {
            return Err("it is larger than 50 MB".into());
        }
        let [der] = <[_; 1]>::try_from(blocks(&content, "X509 CRL")?).map_err(|_| "it is not one list")?;
        let list = CertificateRevocationList::from_der(&der).ok().filter(|(rest, _)| rest.is_empty());
        let (_, list) = list.ok_or("it cannot be read")?;
        let mut authorities = authorities.iter().filter_map(|der| parsed(der));
        if !authorities.any(|authority| is_list_of(&list, &authority)) {
            return Err("no CA of the trust store has signed it".into());
        }
        let entries = list.iter_revoked_certificates().count();
        if list.iter_revoked_certificates().any(|revoked| revoked.raw_serial().first().is_some_and(|byte| byte & 0x80 != 0)) {
            return Err("it holds a negative serial number".into());
        }
        Ok(Self { entries, der, content })
    }
}

/// The contents of PEM blocks with nothing around them but comments, as load balancers take them: lines that begin with `#` and
/// hold no hyphen, and no blank ones.
fn blocks(text: &[u8], label: &str) -> Result<Vec<Vec<u8>>, String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let text = std::str::from_utf8(text).map_err(|_| "it is not PEM")?;
    let (mut blocks, mut inside) = (Vec::new(), None::<String>);
    for (number, line) in (1..).zip(text.lines()) {
        match (&mut inside, line) {
            (_, "") => return Err(format!("line {number} is blank")),
            (None, line) if line == begin => inside = Some(String::new()),
            (None, line) if line.starts_with('#') && !line.contains('-') => {}
            (Some(base64), line) if line == end => {
                blocks.push(BASE64.decode(base64).map_err(|error| format!("the block before line {number}: {error}"))?);
                inside = None;
            }
            (Some(base64), line) => base64.push_str(line),
            (None, _) => return Err(format!("line {number} is neither {label} in PEM nor a comment")),
        }
    }
    if inside.is_some() { Err("its last block has no end".into()) } else { Ok(blocks) }
}

pub(super) fn parsed(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// X.509v3 with a key and a signature of the kinds that load balancers take.
pub(super) fn is_supported(certificate: &X509Certificate<'_>) -> bool {
    certificate.version() == X509Version::V3
        && key_kind(certificate.public_key()).is_some()
        && signature_kind(&certificate.signature_algorithm).is_some()
}

pub(super) fn may_sign_certificates(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    let usage = certificate.key_usage().ok().flatten();
    constraints.is_some_and(|constraints| constraints.value.ca) && usage.is_none_or(|usage| usage.value.key_cert_sign())
}

pub(super) fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && verifies(
            issuer.public_key(),
            &certificate.signature_algorithm,
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
}

/// Whether it is the CA's own list.
pub(super) fn is_list_of(list: &CertificateRevocationList<'_>, authority: &X509Certificate<'_>) -> bool {
    let usage = authority.key_usage().ok().flatten();
    list.issuer().as_raw() == authority.subject().as_raw()
        && usage.is_none_or(|usage| usage.value.crl_sign())
        && verifies(authority.public_key(), &list.signature_algorithm, list.tbs_cert_list.as_ref(), &list.signature_value.data)
}

#[derive(Clone, Copy, PartialEq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
}

#[derive(Clone, Copy)]
enum SignatureKind {
    Pkcs1,
    Pss,
    Ecdsa,
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> Option<KeyKind> {
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => (2048..=8192).contains(&rsa.key_size()).then_some(KeyKind::Rsa),
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curves = [(OID_EC_P256, KeyKind::P256), (OID_NIST_EC_P384, KeyKind::P384), (OID_NIST_EC_P521, KeyKind::P521)];
            curves.into_iter().find(|(oid, _)| *oid == curve).map(|(_, kind)| kind)
        }
        _ => None,
    }
}

/// With the bits of the hash.
fn signature_kind(algorithm: &AlgorithmIdentifier<'_>) -> Option<(SignatureKind, u16)> {
    let known = [
        (OID_PKCS1_SHA256WITHRSA, SignatureKind::Pkcs1, 256),
        (OID_PKCS1_SHA384WITHRSA, SignatureKind::Pkcs1, 384),
        (OID_PKCS1_SHA512WITHRSA, SignatureKind::Pkcs1, 512),
        (OID_SIG_ECDSA_WITH_SHA256, SignatureKind::Ecdsa, 256),
        (OID_SIG_ECDSA_WITH_SHA384, SignatureKind::Ecdsa, 384),
        (OID_SIG_ECDSA_WITH_SHA512, SignatureKind::Ecdsa, 512),
    ];
    if let Some((_, kind, hash)) = known.into_iter().find(|(oid, ..)| *oid == algorithm.algorithm) {
        return Some((kind, hash));
    }
    let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm) else { return None };
    let hashes = [(OID_NIST_HASH_SHA256, 256), (OID_NIST_HASH_SHA384, 384), (OID_NIST_HASH_SHA512, 512)];
    let hash = hashes.into_iter().find(|(oid, _)| oid == parameters.hash_algorithm_oid());
    hash.map(|(_, bits)| (SignatureKind::Pss, bits))
}

fn verifies(key: &SubjectPublicKeyInfo<'_>, algorithm: &AlgorithmIdentifier<'_>, message: &[u8], signature: &[u8]) -> bool {
    let (Some(key_kind), Some((kind, hash))) = (key_kind(key), signature_kind(algorithm)) else { return false };
    let verification: &'static dyn VerificationAlgorithm = match (key_kind, kind, hash) {
        (KeyKind::Rsa, SignatureKind::Pkcs1, 256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa, SignatureKind::Pkcs1, 384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa, SignatureKind::Pkcs1, 512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Rsa, SignatureKind::Pss, 256) => &signature::RSA_PSS_2048_8192_SHA256,
        (KeyKind::Rsa, SignatureKind::Pss, 384) => &signature::RSA_PSS_2048_8192_SHA384,
        (KeyKind::Rsa, SignatureKind::Pss, 512) => &signature::RSA_PSS_2048_8192_SHA512,
        (KeyKind::P256, SignatureKind::Ecdsa, 256) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P256, SignatureKind::Ecdsa, 384) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::P256, SignatureKind::Ecdsa, 512) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::P384, SignatureKind::Ecdsa, 256) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::P384, SignatureKind::Ecdsa, 384) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P384, SignatureKind::Ecdsa, 512) => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyKind::P521, SignatureKind::Ecdsa, 256) => &signature::ECDSA_P521_SHA256_ASN1,
        (KeyKind::P521, SignatureKind::Ecdsa, 384) => &signature::ECDSA_P521_SHA384_ASN1,
        (KeyKind::P521, SignatureKind::Ecdsa, 512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return false,
    };
    UnparsedPublicKey::new(verification, &key.subject_public_key.data).verify(message, signature).is_ok()
}
