//! X.509 as AWS's CAs write it: certificates are DER written by hand, so that what a CSR brings passes through byte for byte,
//! and read by x509-parser.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, UnparsedPublicKey, VerificationAlgorithm};
use aws_lc_rs::{digest, iv, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use x509_parser::asn1_rs::oid;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::*;
use x509_parser::pem::Pem;
use x509_parser::prelude::{ExtendedKeyUsage, FromDer, GeneralName, KeyUsage, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::AwsError;

/// What goes wrong in here goes wrong inside AWS.
impl From<Unspecified> for AwsError {
    fn from(_: Unspecified) -> Self {
        Self::internal()
    }
}

/// A private key of one of the kinds that CAs and ACM certificates may have.
pub(crate) struct PrivateKey {
    /// As AWS's `KeyAlgorithm`.
    pub(crate) algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl PrivateKey {
    pub(crate) fn generate(algorithm: &str) -> Result<Self, Unspecified> {
        let rsa = |size| RsaKeyPair::generate(size).map(Pair::Rsa);
        let ec = |curve| EcdsaKeyPair::generate(curve).map(Pair::Ec);
        let (algorithm, pair) = match algorithm {
            "RSA_2048" => ("RSA_2048", rsa(KeySize::Rsa2048)?),
            "RSA_3072" => ("RSA_3072", rsa(KeySize::Rsa3072)?),
            "RSA_4096" => ("RSA_4096", rsa(KeySize::Rsa4096)?),
            "EC_prime256v1" => ("EC_prime256v1", ec(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)?),
            "EC_secp384r1" => ("EC_secp384r1", ec(&signature::ECDSA_P384_SHA384_ASN1_SIGNING)?),
            _ => return Err(Unspecified),
        };
        Ok(Self { algorithm, pair })
    }

    /// Reads PKCS#8, PKCS#1 or SEC 1, unencrypted.
    pub(crate) fn from_pem(pem: &[u8]) -> Option<Self> {
        const CURVES: [(&str, &EcdsaSigningAlgorithm); 2] = [
            ("EC_prime256v1", &signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            ("EC_secp384r1", &signature::ECDSA_P384_SHA384_ASN1_SIGNING),
        ];
        let pem = Pem::iter_from_buffer(pem).next()?.ok()?;
        let rsa = RsaKeyPair::from_pkcs8(&pem.contents).or_else(|_| RsaKeyPair::from_der(&pem.contents));
        if let Ok(pair) = rsa {
            let algorithm = rsa_algorithm(pair.public_modulus_len() * 8)?;
            return Some(Self { algorithm, pair: Pair::Rsa(pair) });
        }
        CURVES.into_iter().find_map(|(algorithm, curve)| {
            let pair = EcdsaKeyPair::from_private_key_der(curve, &pem.contents).ok()?;
            Some(Self { algorithm, pair: Pair::Ec(pair) })
        })
    }

    /// The SubjectPublicKeyInfo.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>, Unspecified> {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der()?,
            Pair::Ec(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }

    /// Encrypts the key as ACM exports it: PBES2 of PBKDF2, its PRF left at the default HMAC-SHA1, and AES-256-CBC. Salted anew
    /// each time.
    pub(crate) fn encrypted_pem(&self, passphrase: &[u8]) -> Result<String, Unspecified> {
        const ITERATIONS: u16 = 2048;
        let iterations = NonZeroU32::new(ITERATIONS.into()).ok_or(Unspecified)?;
        let (mut salt, mut initial, mut key) = ([0; 8], [0; 16], [0; 32]);
        rand::fill(&mut salt)?;
        rand::fill(&mut initial)?;
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, iterations, &salt, passphrase, &mut key);
        let mut secret = match &self.pair {
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref().to_vec(),
            Pair::Ec(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
        };
        let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &key)?)?;
        cipher.less_safe_encrypt(&mut secret, EncryptionContext::Iv128(iv::FixedLength::from(initial)))?;

        let rounds = der(INTEGER, &[ITERATIONS.to_be_bytes()]);
        let derivation = sequence(&[object(oid!(1.2.840.113549.1.5.12)), sequence(&[der(OCTET_STRING, &[salt]), rounds])]);
        let encryption = sequence(&[object(OID_NIST_ENC_AES256_CBC), der(OCTET_STRING, &[initial])]);
        let scheme = sequence(&[object(oid!(1.2.840.113549.1.5.13)), sequence(&[derivation, encryption])]);
        Ok(pem("ENCRYPTED PRIVATE KEY", &sequence(&[scheme, der(OCTET_STRING, &[secret])])))
    }

    /// Fails for an EC key asked to sign with another hash than its curve's own, which AWS would do and aws-lc-rs does not offer.
    fn sign(&self, algorithm: &SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let rng = rand::SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding = match algorithm.name {
                    "SHA256WITHRSA" => &signature::RSA_PKCS1_SHA256,
                    "SHA384WITHRSA" => &signature::RSA_PKCS1_SHA384,
                    "SHA512WITHRSA" => &signature::RSA_PKCS1_SHA512,
                    _ => return Err(Unspecified),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ec(pair) if algorithm.signs_with(self.algorithm) => Ok(pair.sign(&rng, message)?.as_ref().to_vec()),
            Pair::Ec(_) => Err(Unspecified),
        }
    }
}

/// How certificates and CSRs are signed.
#[derive(Debug)]
pub(crate) struct SignatureAlgorithm {
    /// As AWS's `SigningAlgorithm`.
    pub(crate) name: &'static str,
    oid: Oid<'static>,
}

static SIGNATURE_ALGORITHMS: [SignatureAlgorithm; 6] = [
    SignatureAlgorithm { name: "SHA256WITHRSA", oid: OID_PKCS1_SHA256WITHRSA },
    SignatureAlgorithm { name: "SHA384WITHRSA", oid: OID_PKCS1_SHA384WITHRSA },
    SignatureAlgorithm { name: "SHA512WITHRSA", oid: OID_PKCS1_SHA512WITHRSA },
    SignatureAlgorithm { name: "SHA256WITHECDSA", oid: OID_SIG_ECDSA_WITH_SHA256 },
    SignatureAlgorithm { name: "SHA384WITHECDSA", oid: OID_SIG_ECDSA_WITH_SHA384 },
    SignatureAlgorithm { name: "SHA512WITHECDSA", oid: OID_SIG_ECDSA_WITH_SHA512 },
];

impl SignatureAlgorithm {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        SIGNATURE_ALGORITHMS.iter().find(|algorithm| algorithm.name == name)
    }

    /// Whether it is of the family of a key.
    pub(crate) fn fits(&self, key_algorithm: &str) -> bool {
        self.name.ends_with("RSA") == key_algorithm.starts_with("RSA")
    }

    /// Whether [`PrivateKey::sign`] can do it.
    pub(crate) fn signs_with(&self, key_algorithm: &str) -> bool {
        match key_algorithm {
            "EC_prime256v1" => self.name == "SHA256WITHECDSA",
            "EC_secp384r1" => self.name == "SHA384WITHECDSA",
            _ => self.fits(key_algorithm),
        }
    }

    fn der(&self) -> Vec<u8> {
        let parameters = if self.name.ends_with("RSA") { der::<[u8; 0]>(NULL, &[]) } else { Vec::new() };
        sequence(&[object(self.oid.clone()), parameters])
    }
}

/// What a CSR gives to a certificate. Whatever else it asks for is ignored.
#[derive(Debug)]
pub(crate) struct Request {
    /// The Name, byte for byte.
    pub(crate) subject: Vec<u8>,
    /// The extension, byte for byte.
    alternative_names: Option<Vec<u8>>,
    /// The SubjectPublicKeyInfo, byte for byte.
    pub(crate) public_key: Vec<u8>,
}

impl Request {
    /// Reads a CSR in PEM and verifies that it was signed with its own key.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let pem = match Pem::iter_from_buffer(pem).next() {
            Some(Ok(pem)) if ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&pem.label.as_str()) => pem,
            _ => return Err("it is not a certificate request in PEM".into()),
        };
        let (rest, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
        let info = &csr.certification_request_info;
        if !rest.is_empty() {
            return Err("there are bytes after its end".into());
        }
        if key_algorithm(&info.subject_pki).is_none() {
            return Err("its key is of an unknown kind".into());
        }
        if !verifies(&info.subject_pki, &csr.signature_algorithm, info.raw, &csr.signature_value.data) {
            return Err("its signature does not verify".into());
        }
        let mut extensions = info.iter_attributes().flat_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => requested.extensions.as_slice(),
            _ => &[],
        });
        let alternative_names = match extensions.find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
            Some(found) => match found.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(_) => Some(extension(found.oid.clone(), found.critical, found.value)),
                _ => return Err("its subject alternative names cannot be read".into()),
            },
            None => None,
        };
        if info.subject.iter_rdn().next().is_none() && alternative_names.is_none() {
            return Err("it has neither a subject nor a subject alternative name".into());
        }
        Ok(Self { subject: info.subject.as_raw().to_vec(), alternative_names, public_key: info.subject_pki.raw.to_vec() })
    }

    /// A request for a subject, and for names where there are any.
    pub(crate) fn new(subject: Vec<u8>, dns_names: &[String], key: &PrivateKey) -> Result<Self, Unspecified> {
        const DNS_NAME: u8 = 0x82;
        let names: Vec<_> = dns_names.iter().map(|name| der(DNS_NAME, &[name])).collect();
        let names = (!names.is_empty()).then(|| extension(OID_X509_EXT_SUBJECT_ALT_NAME, false, &sequence(&names)));
        Ok(Self { subject, alternative_names: names, public_key: key.public_key()? })
    }

    /// The CSR in PEM.
    pub(crate) fn signed(&self, key: &PrivateKey, algorithm: &SignatureAlgorithm) -> Result<String, Unspecified> {
        const ATTRIBUTES: u8 = 0xa0;
        let version = der(INTEGER, &[[0]]);
        let info = sequence(&[version, self.subject.clone(), self.public_key.clone(), der::<[u8; 0]>(ATTRIBUTES, &[])]);
        let signature = bit_string(0, &key.sign(algorithm, &info)?);
        Ok(pem("CERTIFICATE REQUEST", &sequence(&[info, algorithm.der(), signature])))
    }
}

/// A Name of one attribute each, in order; the country as a PrintableString, the rest in UTF-8.
pub(crate) fn name<'a>(attributes: impl IntoIterator<Item = (Oid<'static>, &'a str)>) -> Vec<u8> {
    let attributes = attributes.into_iter().map(|(oid, text)| {
        const UTF8_STRING: u8 = 0x0c;
        const PRINTABLE_STRING: u8 = 0x13;
        let printable = [OID_X509_COUNTRY_NAME, OID_X509_SERIALNUMBER, OID_X509_DN_QUALIFIER].contains(&oid);
        let tag = if printable { PRINTABLE_STRING } else { UTF8_STRING };
        der(SET, &[sequence(&[object(oid), der(tag, &[text])])])
    });
    sequence(&attributes.collect::<Vec<_>>())
}

/// What a template decides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    Leaf { server: bool, client: bool },
    Authority { path_length: Option<u8> },
}

/// A certificate to be signed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) request: Request,
    pub(crate) profile: Profile,
    pub(crate) serial: [u8; 16],
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    /// Where the issuer publishes its CRL.
    pub(crate) crl_url: Option<String>,
    /// Where the issuer answers OCSP.
    pub(crate) ocsp_url: Option<String>,
}

impl Draft {
    /// Signs in the name of `issuer`, or as the subject's own where there is none.
    ///
    /// Extensions as in <https://docs.aws.amazon.com/privateca/latest/userguide/template-definitions.html>.
    pub(crate) fn sign(
        &self,
        issuer: Option<&Certificate>,
        key: &PrivateKey,
        algorithm: &SignatureAlgorithm,
    ) -> Result<Certificate, Unspecified> {
        const VERSION: u8 = 0xa0;
        const EXTENSIONS: u8 = 0xa3;
        let mut extensions: Vec<_> = self.request.alternative_names.iter().cloned().collect();
        let (critical, constraints) = match self.profile {
            Profile::Leaf { .. } => (false, Vec::new()),
            Profile::Authority { path_length } => {
                let path_length = path_length.map(|length| der(INTEGER, &[[length]]));
                (true, [der(BOOLEAN, &[[0xff]]), path_length.unwrap_or_default()].concat())
            }
        };
        extensions.push(extension(OID_X509_EXT_BASIC_CONSTRAINTS, critical, &sequence(&[constraints])));
        if let Some(issuer) = issuer {
            extensions.push(authority_key_identifier(issuer)?);
        }
        let value = der(OCTET_STRING, &[key_identifier(&self.request.public_key)?]);
        extensions.push(extension(OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, false, &value));
        let key_usage = match self.profile {
            Profile::Leaf { .. } => bit_string(5, &[0b1010_0000]),
            Profile::Authority { .. } => bit_string(1, &[0b1000_0110]),
        };
        extensions.push(extension(OID_X509_EXT_KEY_USAGE, true, &key_usage));
        if let Profile::Leaf { server, client } = self.profile {
            let server = server.then(|| object(oid!(1.3.6.1.5.5.7.3.1)));
            let client = client.then(|| object(oid!(1.3.6.1.5.5.7.3.2)));
            let usages: Vec<_> = server.into_iter().chain(client).collect();
            extensions.push(extension(OID_X509_EXT_EXTENDED_KEY_USAGE, false, &sequence(&usages)));
        }
        if let (Some(url), Some(_)) = (&self.crl_url, issuer) {
            const NAME: u8 = 0xa0;
            let name = der(NAME, &[der(NAME, &[der(URI, &[url])])]);
            extensions.push(extension(OID_X509_EXT_CRL_DISTRIBUTION_POINTS, false, &sequence(&[sequence(&[name])])));
        }
        if let (Some(url), Some(_)) = (&self.ocsp_url, issuer) {
            let access = sequence(&[object(oid!(1.3.6.1.5.5.7.48.1)), der(URI, &[url])]);
            extensions.push(extension(OID_PKIX_AUTHORITY_INFO_ACCESS, false, &sequence(&[access])));
        }
        let body = sequence(&[
            der(VERSION, &[der(INTEGER, &[[2]])]),
            positive_integer(&self.serial),
            algorithm.der(),
            issuer.map_or(&self.request.subject, |issuer| &issuer.subject).clone(),
            sequence(&[time(self.not_before), time(self.not_after)]),
            self.request.subject.clone(),
            self.request.public_key.clone(),
            der(EXTENSIONS, &[sequence(&extensions)]),
        ]);
        let signature = bit_string(0, &key.sign(algorithm, &body)?);
        Certificate::from_der(&sequence(&[body, algorithm.der(), signature])).ok_or(Unspecified)
    }
}

/// A CRL to be signed.
pub(crate) struct RevocationList {
    pub(crate) number: u64,
    pub(crate) this_update: OffsetDateTime,
    pub(crate) next_update: OffsetDateTime,
    pub(crate) entries: Vec<RevokedEntry>,
}

pub(crate) struct RevokedEntry {
    pub(crate) serial: u128,
    pub(crate) revoked_at: OffsetDateTime,
    /// As in <https://www.rfc-editor.org/rfc/rfc5280#section-5.3.1>, where 0 says nothing and is left out.
    pub(crate) reason: u8,
}

impl RevocationList {
    /// The CRL in DER: <https://www.rfc-editor.org/rfc/rfc5280#section-5.1>.
    pub(crate) fn sign(
        &self,
        issuer: &Certificate,
        key: &PrivateKey,
        algorithm: &SignatureAlgorithm,
    ) -> Result<Vec<u8>, Unspecified> {
        const ENUMERATED: u8 = 0x0a;
        const EXTENSIONS: u8 = 0xa0;
        let entries = self.entries.iter().map(|entry| {
            let reason = extension(OID_X509_EXT_REASON_CODE, false, &der(ENUMERATED, &[[entry.reason]]));
            let extensions = if entry.reason == 0 { Vec::new() } else { sequence(&[reason]) };
            sequence(&[positive_integer(&entry.serial.to_be_bytes()), time(entry.revoked_at), extensions])
        });
        let entries: Vec<_> = entries.collect();
        let number = extension(OID_X509_EXT_CRL_NUMBER, false, &positive_integer(&self.number.to_be_bytes()));
        let body = sequence(&[
            der(INTEGER, &[[1]]),
            algorithm.der(),
            issuer.subject.clone(),
            time(self.this_update),
            time(self.next_update),
            if entries.is_empty() { Vec::new() } else { sequence(&entries) },
            der(EXTENSIONS, &[sequence(&[authority_key_identifier(issuer)?, number])]),
        ]);
        let signature = bit_string(0, &key.sign(algorithm, &body)?);
        Ok(sequence(&[body, algorithm.der(), signature]))
    }
}

fn authority_key_identifier(issuer: &Certificate) -> Result<Vec<u8>, Unspecified> {
    const KEY_IDENTIFIER: u8 = 0x80;
    let value = sequence(&[der(KEY_IDENTIFIER, &[key_identifier(&issuer.public_key)?])]);
    Ok(extension(OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, false, &value))
}

fn key_identifier(public_key: &[u8]) -> Result<digest::Digest, Unspecified> {
    let (_, info) = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| Unspecified)?;
    Ok(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &info.subject_public_key.data))
}

/// A certificate with what AWS's answers tell of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    /// Hexadecimal, a colon between the bytes.
    pub(crate) serial: String,
    pub(crate) subject: Vec<u8>,
    pub(crate) subject_text: String,
    pub(crate) common_name: Option<String>,
    issuer: Vec<u8>,
    /// The issuer's organization, or else its common name.
    pub(crate) issuer_text: String,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) public_key: Vec<u8>,
    pub(crate) key_algorithm: &'static str,
    pub(crate) signature_algorithm: &'static str,
    pub(crate) dns_names: Vec<String>,
    /// As ACM names them.
    pub(crate) key_usages: Vec<&'static str>,
    /// As ACM names them, with their OIDs.
    pub(crate) extended_key_usages: Vec<(&'static str, String)>,
    /// Of a CA, with its path length.
    pub(crate) authority: Option<Option<u32>>,
}

impl Certificate {
    /// Every certificate of a PEM text; `None` when there is anything else, or one of a kind unknown here.
    pub(crate) fn all_from_pem(pem: &[u8]) -> Option<Vec<Self>> {
        let read = |pem: Pem| (pem.label == "CERTIFICATE").then(|| Self::from_der(&pem.contents)).flatten();
        Pem::iter_from_buffer(pem).map(|pem| pem.ok().and_then(read)).collect()
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let serial = certificate.tbs_certificate.raw_serial();
        let serial = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
        let serial: Vec<_> = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        let issuer = certificate.issuer();
        let issuer_text = issuer.iter_organization().chain(issuer.iter_common_name()).find_map(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let constraints = certificate.basic_constraints().ok()?.filter(|constraints| constraints.value.ca);
        Some(Self {
            der: der.to_vec(),
            serial: serial.join(":"),
            subject: certificate.subject().as_raw().to_vec(),
            subject_text: certificate.subject().to_string(),
            common_name: certificate.subject().iter_common_name().find_map(|name| name.as_str().ok()).map(str::to_owned),
            issuer: issuer.as_raw().to_vec(),
            issuer_text: issuer_text.unwrap_or_default().to_owned(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            public_key: certificate.public_key().raw.to_vec(),
            key_algorithm: key_algorithm(certificate.public_key())?,
            signature_algorithm: signature_algorithm(&certificate.signature_algorithm)?.name,
            dns_names: names.collect(),
            key_usages: certificate.key_usage().ok()?.map(|usage| key_usages(usage.value)).unwrap_or_default(),
            extended_key_usages: certificate.extended_key_usage().ok()?.map(|usage| purposes(usage.value)).unwrap_or_default(),
            authority: constraints.map(|constraints| constraints.value.path_len_constraint),
        })
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub(crate) fn is_self_signed(&self) -> bool {
        self.is_signed_by(self)
    }

    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        let (Ok((_, certificate)), Ok((_, key))) =
            (X509Certificate::from_der(&self.der), SubjectPublicKeyInfo::from_der(&issuer.public_key))
        else {
            return false;
        };
        let body = certificate.tbs_certificate.as_ref();
        self.issuer == issuer.subject && verifies(&key, &certificate.signature_algorithm, body, &certificate.signature_value.data)
    }

    pub(crate) fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

fn key_usages(usage: &KeyUsage) -> Vec<&'static str> {
    const NAMES: [&str; 9] = [
        "DIGITAL_SIGNATURE",
        "NON_REPUDIATION",
        "KEY_ENCIPHERMENT",
        "DATA_ENCIPHERMENT",
        "KEY_AGREEMENT",
        "CERTIFICATE_SIGNING",
        "CRL_SIGNING",
        "ENCIPHER_ONLY",
        "DECIPHER_ONLY",
    ];
    NAMES.into_iter().enumerate().filter(|(bit, _)| usage.flags >> bit & 1 == 1).map(|(_, name)| name).collect()
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<(&'static str, String)> {
    let known = [
        (usage.any, "ANY", "2.5.29.37.0"),
        (usage.server_auth, "TLS_WEB_SERVER_AUTHENTICATION", "1.3.6.1.5.5.7.3.1"),
        (usage.client_auth, "TLS_WEB_CLIENT_AUTHENTICATION", "1.3.6.1.5.5.7.3.2"),
        (usage.code_signing, "CODE_SIGNING", "1.3.6.1.5.5.7.3.3"),
        (usage.email_protection, "EMAIL_PROTECTION", "1.3.6.1.5.5.7.3.4"),
        (usage.time_stamping, "TIME_STAMPING", "1.3.6.1.5.5.7.3.8"),
        (usage.ocsp_signing, "OCSP_SIGNING", "1.3.6.1.5.5.7.3.9"),
    ];
    let known = known.into_iter().filter(|(set, ..)| *set).map(|(_, name, oid)| (name, oid.to_owned()));
    known.chain(usage.other.iter().map(|oid| ("CUSTOM", oid.to_id_string()))).collect()
}

fn key_algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<&'static str> {
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => rsa_algorithm(rsa.key_size()),
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curves = [(OID_EC_P256, "EC_prime256v1"), (OID_NIST_EC_P384, "EC_secp384r1"), (OID_NIST_EC_P521, "EC_secp521r1")];
            curves.into_iter().find(|(oid, _)| *oid == curve).map(|(_, name)| name)
        }
        _ => None,
    }
}

fn rsa_algorithm(bits: usize) -> Option<&'static str> {
    let sizes = [(1024, "RSA_1024"), (2048, "RSA_2048"), (3072, "RSA_3072"), (4096, "RSA_4096")];
    sizes.into_iter().find(|(size, _)| *size == bits).map(|(_, name)| name)
}

fn signature_algorithm(identifier: &AlgorithmIdentifier<'_>) -> Option<&'static SignatureAlgorithm> {
    SIGNATURE_ALGORITHMS.iter().find(|algorithm| algorithm.oid == identifier.algorithm)
}

fn verifies(key: &SubjectPublicKeyInfo<'_>, algorithm: &AlgorithmIdentifier<'_>, message: &[u8], signature: &[u8]) -> bool {
    let (Some(key_algorithm), Some(algorithm)) = (key_algorithm(key), signature_algorithm(algorithm)) else { return false };
    let verification: &'static dyn VerificationAlgorithm = match (key_algorithm, algorithm.name) {
        ("RSA_2048" | "RSA_3072" | "RSA_4096", "SHA256WITHRSA") => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("RSA_2048" | "RSA_3072" | "RSA_4096", "SHA384WITHRSA") => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("RSA_2048" | "RSA_3072" | "RSA_4096", "SHA512WITHRSA") => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("EC_prime256v1", "SHA256WITHECDSA") => &signature::ECDSA_P256_SHA256_ASN1,
        ("EC_prime256v1", "SHA384WITHECDSA") => &signature::ECDSA_P256_SHA384_ASN1,
        ("EC_prime256v1", "SHA512WITHECDSA") => &signature::ECDSA_P256_SHA512_ASN1,
        ("EC_secp384r1", "SHA256WITHECDSA") => &signature::ECDSA_P384_SHA256_ASN1,
        ("EC_secp384r1", "SHA384WITHECDSA") => &signature::ECDSA_P384_SHA384_ASN1,
        ("EC_secp384r1", "SHA512WITHECDSA") => &signature::ECDSA_P384_SHA512_ASN1,
        ("EC_secp521r1", "SHA256WITHECDSA") => &signature::ECDSA_P521_SHA256_ASN1,
        ("EC_secp521r1", "SHA384WITHECDSA") => &signature::ECDSA_P521_SHA384_ASN1,
        ("EC_secp521r1", "SHA512WITHECDSA") => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return false,
    };
    UnparsedPublicKey::new(verification, &key.subject_public_key.data).verify(message, signature).is_ok()
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// A GeneralName.
const URI: u8 = 0x86;

/// One DER value: the tag, the length, the parts one after another.
fn der<Part: AsRef<[u8]>>(tag: u8, parts: &[Part]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    let mut value = vec![tag];
    match u8::try_from(length) {
        Ok(short @ ..0x80) => value.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            value.push(0x80 | bytes.len() as u8);
            value.extend(bytes);
        }
    }
    parts.iter().for_each(|part| value.extend(part.as_ref()));
    value
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(SEQUENCE, parts)
}

fn object(oid: Oid<'static>) -> Vec<u8> {
    der(OBJECT_IDENTIFIER, &[oid.as_bytes()])
}

fn bit_string(unused: u8, bits: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[unused], bits])
}

/// From bytes of which the first is below 0x80.
fn positive_integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
    der(INTEGER, &[&bytes[zeros..]])
}

fn extension(oid: Oid<'_>, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(BOOLEAN, &[[0xff]]) } else { Vec::new() };
    sequence(&[der(OBJECT_IDENTIFIER, &[oid.as_bytes()]), critical, der(OCTET_STRING, &[value])])
}

/// Two digits for the year before 2050, four from then on: <https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5>.
fn time(at: OffsetDateTime) -> Vec<u8> {
    let (tag, year) = if at.year() < 2050 { (0x17, format!("{:02}", at.year() % 100)) } else { (0x18, at.year().to_string()) };
    let (month, day, hour, minute, second) = (u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    der(tag, &[format!("{year}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z")])
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
