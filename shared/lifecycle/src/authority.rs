//! CA certificates and CRLs as an ALB trust store takes them: read, and judged one by one.
//!
//! The rules are those of <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/mutual-authentication.html>; what
//! that page leaves open is refused, because a bundle that ALB does not take whole would lock every client out.

use std::fmt;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::asn1_rs::BitString;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::*;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Version};

use crate::date;
use crate::leaf::hex;

/// The certificate of a CA that an ALB trust store can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub der: Vec<u8>,
    /// SHA-256 over the DER, lower-case hexadecimal.
    pub fingerprint: String,
    pub subject: String,
    /// The bytes of the subject's DER.
    pub subject_size: usize,
    pub not_after: OffsetDateTime,
    pub self_signed: bool,
    /// How many CAs may stand between this one and a leaf; `None`: any number.
    pub path_length: Option<u32>,
}

/// Something that cannot go into a trust store, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Refused {
    /// The certificate's subject and fingerprint, or the object it was to be read from.
    pub what: String,
    pub why: String,
}

/// ALB's limit on one CA certificate.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
pub const LARGEST: usize = 16 * 1024;

impl Authority {
    /// Reads a certificate (DER) and judges what can be judged of it alone; the first rule that it breaks.
    pub fn judge(der: &[u8], now: OffsetDateTime) -> Result<Self, Refused> {
        let fingerprint = hex(&Sha256::digest(der));
        let unreadable = |why: String| Refused { what: format!("a certificate (SHA-256 {fingerprint})"), why };
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| unreadable(format!("it is not readable: {error}")))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows the certificate in its PEM block".to_owned()));
        }
        let subject = printable(&certificate.subject().to_string());
        if let Some(why) = broken_rule(&certificate, der, now) {
            return Err(Refused { what: format!("`{subject}` (SHA-256 {fingerprint})"), why });
        }
        let constraints = certificate.basic_constraints().ok().flatten();
        Ok(Self {
            der: der.to_vec(),
            fingerprint,
            not_after: certificate.validity().not_after.to_datetime(),
            subject_size: certificate.subject().as_raw().len(),
            self_signed: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
            subject,
        })
    }

    /// Whether `issuer` signed this certificate.
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let (Ok((_, certificate)), Ok((_, above))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&issuer.der))
        else {
            return false;
        };
        certificate.issuer().as_raw() == above.subject().as_raw()
            && is_signed(
                above.public_key(),
                &certificate.signature_algorithm,
                certificate.tbs_certificate.as_ref(),
                &certificate.signature_value,
            )
    }

    /// The one form in which it is written: the same certificate always gives the same bytes.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub fn refused(&self, why: impl Into<String>) -> Refused {
        Refused { what: self.to_string(), why: why.into() }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (SHA-256 {})", self.subject, self.fingerprint)
    }
}

/// A name as it may stand in a message, whatever its author put into it.
fn printable(name: &str) -> String {
    const LONGEST: usize = 256;
    let name = name.replace(char::is_control, "\u{fffd}");
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

fn broken_rule(certificate: &X509Certificate<'_>, der: &[u8], now: OffsetDateTime) -> Option<String> {
    let validity = certificate.validity();
    let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    let size = pem("CERTIFICATE", der).len();
    let broken = [
        (certificate.version() != X509Version::V3, "it is not of X.509 version 3".to_owned()),
        (LARGEST < size, format!("its PEM has {size} bytes, more than the {LARGEST} that ALB takes")),
        (certificate.subject().iter_rdn().next().is_none(), "its subject is empty".to_owned()),
        (
            is_negative(certificate.raw_serial()),
            "its serial number is negative, and no CRL that ALB takes could name it".to_owned(),
        ),
        (not_after <= now, format!("it expired {}", date(not_after))),
        (not_before > now, format!("it is not valid before {}; it can join from then on", date(not_before))),
    ];
    let broken = broken.into_iter().find_map(|(broken, why)| broken.then_some(why));
    broken
        .or_else(|| broken_extension(certificate))
        .or_else(|| unfit_key(certificate.public_key()))
        .or_else(|| unfit_signature(certificate))
}

fn broken_extension(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut is_ca = false;
    let mut seen = Vec::new();
    for extension in certificate.extensions() {
        if seen.contains(&&extension.oid) {
            return Some(format!("it has the extension {} twice", extension.oid));
        }
        seen.push(&extension.oid);
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => is_ca = constraints.ca,
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() => {}
            ParsedExtension::KeyUsage(_) => return Some("its key usage does not allow it to sign certificates".to_owned()),
            ParsedExtension::ExtendedKeyUsage(usage) if usage.any || usage.client_auth => {}
            ParsedExtension::ExtendedKeyUsage(_) => {
                return Some("its extended key usage leaves out client authentication".to_owned());
            }
            ParsedExtension::NameConstraints(_) => {
                return Some("it has name constraints, and AWS does not say what ALB makes of them".to_owned());
            }
            ParsedExtension::ParseError { .. } => return Some(format!("its extension {} is not readable", extension.oid)),
            _ if extension.critical => {
                return Some(format!(
                    "it has the critical extension {}, and AWS does not say what ALB makes of it",
                    extension.oid
                ));
            }
            _ => {}
        }
    }
    (!is_ca).then(|| "it is not a CA's: its basic constraints do not say so; a trust store holds CAs only".to_owned())
}

fn unfit_key(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => match bits(rsa.modulus) {
            2048..=8192 => None,
            size => Some(format!("its RSA key has {size} bits; ALB takes 2048 to 8192")),
        },
        Ok(PublicKey::EC(_)) if curve(key).is_some() => None,
        Ok(PublicKey::EC(_)) => Some("its EC key is on a curve other than P-256, P-384 and P-521, which ALB takes".to_owned()),
        _ => Some("its key is neither RSA nor EC; ALB takes no other".to_owned()),
    }
}

fn bits(number: &[u8]) -> usize {
    let number = &number[number.iter().take_while(|byte| **byte == 0).count()..];
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// Whether the bytes of a DER integer are those of a negative one: its first bit is set.
fn is_negative(integer: &[u8]) -> bool {
    integer.first().is_some_and(|byte| byte & 0x80 != 0)
}

fn unfit_signature(certificate: &X509Certificate<'_>) -> Option<String> {
    let algorithm = &certificate.signature_algorithm;
    if *algorithm != certificate.tbs_certificate.signature {
        return Some("it names two different signature algorithms".to_owned());
    }
    hash(algorithm).is_none().then(|| {
        format!(
            "it is signed by the algorithm {}; ALB takes SHA-256, SHA-384 or SHA-512 with RSA, RSASSA-PSS or ECDSA",
            algorithm.algorithm
        )
    })
}

/// A CRL as AWS Private CA writes it and ALB takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    pub der: Vec<u8>,
    /// Decimal. RFC 5280, section 5.2.3: it rises with each CRL of an issuer.
    pub number: String,
    pub this_update: OffsetDateTime,
    pub next_update: Option<OffsetDateTime>,
    pub entries: usize,
}

impl Crl {
    /// Reads a CRL, DER or PEM.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let der = match bytes.starts_with(b"-----") {
            true => match Pem::iter_from_buffer(bytes).next() {
                Some(Ok(pem)) if pem.label == "X509 CRL" => pem.contents,
                _ => return Err("it is PEM and not of a CRL".to_owned()),
            },
            false => bytes.to_vec(),
        };
        let (rest, crl) = CertificateRevocationList::from_der(&der).map_err(|error| format!("it is not a CRL: {error}"))?;
        if !rest.is_empty() {
            return Err("something follows the CRL".to_owned());
        }
        let number = crl.crl_number().map(ToString::to_string).ok_or("it has no CRL number")?;
        if let Some(critical) = crl.extensions().iter().find(|extension| extension.critical) {
            return Err(format!(
                "it has the critical extension {}, as partitioned CRLs do, and AWS does not say what ALB makes of it; let the CA publish complete CRLs",
                critical.oid
            ));
        }
        if crl.iter_revoked_certificates().any(|entry| is_negative(entry.raw_serial())) {
            return Err("it has a negative serial number, which ALB does not take".to_owned());
        }
        let (this_update, next_update) = (crl.last_update().to_datetime(), crl.next_update().map(|at| at.to_datetime()));
        let entries = crl.iter_revoked_certificates().count();
        Ok(Self { number, this_update, next_update, entries, der })
    }

    pub fn is_issued_by(&self, issuer: &Authority) -> bool {
        let (Ok((_, crl)), Ok((_, certificate))) =
            (CertificateRevocationList::from_der(&self.der), X509Certificate::from_der(&issuer.der))
        else {
            return false;
        };
        crl.issuer().as_raw() == certificate.subject().as_raw()
            && is_signed(certificate.public_key(), &crl.signature_algorithm, crl.tbs_cert_list.as_ref(), &crl.signature_value)
    }

    pub fn pem(&self) -> String {
        pem("X509 CRL", &self.der)
    }
}

/// The certificates (DER) of a PEM text that AWS gives.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let block = |pem: Result<Pem, x509_parser::error::PEMError>| match pem {
        Ok(pem) if pem.label == "CERTIFICATE" => Ok(pem.contents),
        Ok(pem) => Err(format!("there is a PEM block `{}` among the certificates", pem.label)),
        Err(error) => Err(error.to_string()),
    };
    Pem::iter_from_buffer(text.as_bytes()).map(block).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + &format!("-----END {label}-----\n")
}

#[derive(Clone, Copy, PartialEq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
    Pss256,
    Pss384,
    Pss512,
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
    P521,
}

/// What a signature is made with; `None` when ALB does not take it.
fn hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    let oid = &algorithm.algorithm;
    if *oid == OID_PKCS1_RSASSAPSS {
        let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
        let known =
            [(OID_NIST_HASH_SHA256, Hash::Pss256), (OID_NIST_HASH_SHA384, Hash::Pss384), (OID_NIST_HASH_SHA512, Hash::Pss512)];
        return known.into_iter().find(|(oid, _)| parameters.hash_algorithm_oid() == oid).map(|(_, hash)| hash);
    }
    let known = [
        (OID_PKCS1_SHA256WITHRSA, Hash::Sha256),
        (OID_PKCS1_SHA384WITHRSA, Hash::Sha384),
        (OID_PKCS1_SHA512WITHRSA, Hash::Sha512),
        (OID_SIG_ECDSA_WITH_SHA256, Hash::Sha256),
        (OID_SIG_ECDSA_WITH_SHA384, Hash::Sha384),
        (OID_SIG_ECDSA_WITH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(known, _)| known == oid).map(|(_, hash)| hash)
}

fn curve(key: &SubjectPublicKeyInfo<'_>) -> Option<Curve> {
    let oid = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let known = [(OID_EC_P256, Curve::P256), (OID_NIST_EC_P384, Curve::P384), (OID_NIST_EC_P521, Curve::P521)];
    known.into_iter().find(|(known, _)| *known == oid).map(|(_, curve)| curve)
}

pub(crate) fn is_signed(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    text: &[u8],
    signature: &BitString<'_>,
) -> bool {
    let Some(hash) = hash(algorithm) else { return false };
    let rsa = matches!(key.parsed(), Ok(PublicKey::RSA(_)));
    // The RSA algorithms hold their key's kind in their OID, the EC ones leave the curve to the key.
    let by_rsa = [OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA];
    if rsa != by_rsa.contains(&algorithm.algorithm) {
        return false;
    }
    let verification: &dyn VerificationAlgorithm = match (rsa, curve(key), hash) {
        (true, _, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (true, _, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (true, _, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (true, _, Hash::Pss256) => &signature::RSA_PSS_2048_8192_SHA256,
        (true, _, Hash::Pss384) => &signature::RSA_PSS_2048_8192_SHA384,
        (true, _, Hash::Pss512) => &signature::RSA_PSS_2048_8192_SHA512,
        (false, Some(Curve::P256), Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (false, Some(Curve::P256), Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (false, Some(Curve::P256), Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (false, Some(Curve::P384), Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (false, Some(Curve::P384), Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (false, Some(Curve::P384), Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (false, Some(Curve::P521), Hash::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (false, Some(Curve::P521), Hash::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (false, Some(Curve::P521), Hash::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return false,
    };
    signature.unused_bits == 0
        && UnparsedPublicKey::new(verification, &key.subject_public_key.data).verify(text, &signature.data).is_ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair, PublicKeyData, RevokedCertParams,
        SerialNumber, SigningKey,
    };

    use super::*;
    use crate::samples::{self, Ca, at, below, ca, root};

    const NOW: &str = "2027-01-01T00:00:00Z";

    /// A CA of `tests-data/authorities.pem`.
    fn made(name: &str) -> Authority {
        Authority::judge(&certificates(samples::authority(name)).unwrap()[0], at(NOW)).unwrap()
    }

    fn judged(ca: &Ca) -> Authority {
        Authority::judge(ca.der(), at(NOW)).unwrap()
    }

    /// With one bit changed, of each byte of what is signed and of the signature in turn.
    fn tampered(der: &[u8], signed: &[u8], signature: &[u8]) -> Vec<Vec<u8>> {
        let after_signed = der.windows(signed.len()).position(|window| window == signed).unwrap() + signed.len();
        // The byte before the signature tells how many of its last bits do not count.
        let places = (0..after_signed).chain(der.len() - signature.len() - 1..der.len());
        let change = |at: usize| {
            let mut tampered = der.to_vec();
            tampered[at] ^= 1;
            tampered
        };
        places.map(change).collect()
    }

    fn crl(serials: &[&[u8]], issuer: &Ca) -> Vec<u8> {
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(NOW),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(NOW),
            next_update: at("2027-01-08T00:00:00Z"),
            crl_number: SerialNumber::from_slice(&[0xff; 20]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).unwrap().der().to_vec()
    }

    #[test]
    fn a_ca_is_read_with_what_it_says_of_itself() {
        let top = root(ca("Root"));
        let mut params = ca("Middle");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
        let middle = below(&top, params);
        let Authority { der, fingerprint, subject, subject_size, not_after, self_signed, path_length } = judged(&middle);
        assert_eq!((der.as_slice(), fingerprint.as_str()), (&**middle.der(), hex(&Sha256::digest(middle.der())).as_str()));
        assert_eq!((subject.as_str(), subject_size, path_length, self_signed), ("CN=Middle", 19, Some(2), false));
        assert_eq!(not_after, at("2028-01-01T00:00:00Z"));
        assert_eq!((judged(&top).path_length, judged(&top).self_signed), (None, true));
        let refused = judged(&middle).refused("it is odd");
        assert_eq!(refused.to_string(), format!("`CN=Middle` (SHA-256 {fingerprint}): it is odd"));
        assert_eq!(made("plain").pem().trim_end(), samples::authority("plain"), "as openssl writes it");
    }

    #[test]
    fn each_signature_is_that_of_its_issuers_key_over_what_was_signed_and_no_other() {
        for name in ["rsa", "pss", "P256", "P384", "P521"] {
            for hash in ["sha256", "sha384", "sha512"] {
                let name = format!("{name}-{hash}");
                let authority = made(&name);
                assert!(authority.is_issued_by(&authority), "{name}");
                let namesake = judged(&root(ca(&name)));
                assert!(!authority.is_issued_by(&namesake), "{name}");
                assert!(!namesake.is_issued_by(&authority), "{name}");
                let (_, parsed) = X509Certificate::from_der(&authority.der).unwrap();
                for der in tampered(&authority.der, parsed.tbs_certificate.as_ref(), &parsed.signature_value.data) {
                    let passes = Authority::judge(&der, at(NOW)).is_ok_and(|tampered| tampered.is_issued_by(&authority));
                    assert!(!passes, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_name_in_a_message_is_short_and_has_no_control_characters() {
        for (name, text) in [
            ("Zürich \"one\"".to_owned(), "CN=Zürich \"one\"".to_owned()),
            ("a\n{\"level\":\"INFO\"}\u{1b}".to_owned(), "CN=a\u{fffd}{\"level\":\"INFO\"}\u{fffd}".to_owned()),
            ("ü".repeat(253), format!("CN={}", "ü".repeat(253))),
            ("ü".repeat(254), format!("CN={}…", "ü".repeat(253))),
        ] {
            assert_eq!(judged(&root(ca(&name))).subject, text);
        }
    }

    /// Signs by RSA and says that it was ECDSA.
    struct Liar(KeyPair);

    impl PublicKeyData for Liar {
        fn der_bytes(&self) -> &[u8] {
            self.0.public_key_raw()
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }

    impl SigningKey for Liar {
        fn sign(&self, text: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.0.sign(text)
        }
    }

    #[test]
    fn a_signature_of_another_kind_than_it_says_is_none() {
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let issuer = Authority::judge(ca("Root").self_signed(&rsa).unwrap().der(), at(NOW)).unwrap();
        assert!(issuer.is_issued_by(&issuer));
        let middle = ca("Middle").signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca("Root"), Liar(rsa))).unwrap();
        assert!(!Authority::judge(middle.der(), at(NOW)).unwrap().is_issued_by(&issuer));
    }

    #[test]
    fn an_issuer_is_it_by_name_and_by_key() {
        let (top, other) = (root(ca("Root")), root(ca("Other")));
        let same_key = Ca::self_signed(ca("Same key"), KeyPair::try_from(top.key().serialized_der()).unwrap()).unwrap();
        let renewed = Ca::self_signed(ca("Root"), KeyPair::try_from(top.key().serialized_der()).unwrap()).unwrap();
        let middle = judged(&below(&top, ca("Middle")));
        for (issuer, is_issuer) in
            [(&top, true), (&renewed, true), (&same_key, false), (&other, false), (&root(ca("Root")), false)]
        {
            assert_eq!(middle.is_issued_by(&judged(issuer)), is_issuer, "{}", judged(issuer));
        }
    }

    #[test]
    fn a_crl_reads_alike_from_der_and_pem_and_is_written_as_openssl_writes_it() {
        let text = format!("{}\n", samples::authority("crl-plain"));
        let crl = Crl::read(text.as_bytes()).unwrap();
        let Crl { der, number, this_update, next_update, entries } = crl.clone();
        assert_eq!((number.as_str(), entries), ("4097", 2));
        assert_eq!((this_update, next_update), (at(NOW), Some(at("2027-01-08T00:00:00Z"))));
        assert_eq!(Crl::read(&der), Ok(crl.clone()));
        assert_eq!(crl.pem(), text);
    }

    #[test]
    fn a_crl_may_be_empty_and_its_number_as_long_as_rfc_5280_allows() {
        let issuer = root(ca("Root"));
        let read = Crl::read(&crl(&[], &issuer)).unwrap();
        assert_eq!((read.entries, read.number.as_str()), (0, "1461501637330902918203684832716283019655932542975"));
        assert_eq!(Crl::read(&crl(&[&[0x80], &[0x7f; 20]], &issuer)).unwrap().entries, 2);
    }

    #[test]
    fn a_crl_that_alb_does_not_take_or_that_is_none_is_refused() {
        let block = |name| samples::authority(name).as_bytes().to_vec();
        let mut negative = crl(&[&[0x12, 0x34, 0x56]], &root(ca("Root")));
        let serial = negative.windows(5).position(|window| window == [2, 3, 0x12, 0x34, 0x56]).unwrap();
        negative[serial + 2] = 0x92;
        let good = crl(&[], &root(ca("Root")));
        for (what, bytes, why) in [
            ("partitioned", block("crl-partitioned"), "it has the critical extension 2.5.29.28, as partitioned CRLs do"),
            ("of changes alone", block("crl-delta"), "it has the critical extension 2.5.29.27"),
            ("without a number", block("crl-unnumbered"), "it has no CRL number"),
            ("with a negative serial number", negative, "it has a negative serial number"),
            ("with a byte after it", [good.as_slice(), &[0]].concat(), "something follows the CRL"),
            ("cut off", good[..good.len() - 1].to_vec(), "it is not a CRL"),
            ("nothing", vec![], "it is not a CRL"),
            ("text", b"no CRL".to_vec(), "it is not a CRL"),
            ("a CA", made("plain").der, "it is not a CRL"),
            ("a CA's PEM", block("plain"), "it is PEM and not of a CRL"),
            ("half a PEM", block("crl-plain")[..100].to_vec(), "it is PEM and not of a CRL"),
            (
                "a PEM of a CA by the name of a CRL",
                made("plain").pem().replace("CERTIFICATE", "X509 CRL").into(),
                "it is not a CRL",
            ),
        ] {
            let said = Crl::read(&bytes).expect_err(what);
            assert!(said.starts_with(why), "{what}: {said}");
        }
    }

    #[test]
    fn a_crl_is_its_issuers_by_name_and_by_key() {
        let authority = made("plain");
        let crl = Crl::read(samples::authority("crl-plain").as_bytes()).unwrap();
        assert!(crl.is_issued_by(&authority));
        assert!(!crl.is_issued_by(&made("P256-sha256")));
        assert!(!crl.is_issued_by(&judged(&root(ca("plain")))));
        let (_, parsed) = CertificateRevocationList::from_der(&crl.der).unwrap();
        for der in tampered(&crl.der, parsed.tbs_cert_list.as_ref(), &parsed.signature_value.data) {
            assert!(!Crl::read(&der).is_ok_and(|tampered| tampered.is_issued_by(&authority)));
        }
        let issuer = root(ca("Root"));
        let same_key = Ca::self_signed(ca("Same key"), KeyPair::try_from(issuer.key().serialized_der()).unwrap()).unwrap();
        let crl = Crl::read(&self::crl(&[], &issuer)).unwrap();
        assert!(crl.is_issued_by(&judged(&issuer)) && !crl.is_issued_by(&judged(&same_key)));
    }

    #[test]
    fn the_certificates_of_a_text_come_in_its_order_or_it_is_told_what_else_is_there() {
        let (first, second) = (made("plain"), made("P256-sha256"));
        let text = format!("{}{}", first.pem(), second.pem());
        assert_eq!(certificates(&text), Ok(vec![first.der.clone(), second.der.clone()]));
        assert_eq!(certificates(&text.replace('\n', "\r\n")), Ok(vec![first.der.clone(), second.der]));
        assert_eq!(certificates(""), Ok(vec![]));
        let said = certificates(&(first.pem() + samples::authority("csr"))).unwrap_err();
        assert_eq!(said, "there is a PEM block `CERTIFICATE REQUEST` among the certificates");
        assert!(certificates(&first.pem()[..200]).is_err());
        assert!(certificates(&first.pem().replace('M', "!")).is_err());
    }
}
