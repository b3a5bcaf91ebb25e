//! What a certificate says of itself. A leaf is its own specification: if the table is lost, this is where it comes from.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::asn1_rs::{Header, Oid, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::{X509CertificationRequest, X509CertificationRequestInfo};
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo, X509Name};

use crate::authority::is_signed;
use crate::names::{BadName, San, one_of};

/// The distinguished name of a leaf, in the attributes that AWS Private CA copies from a CSR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub common_name: Option<String>,
    pub organization: Option<String>,
    pub organizational_unit: Option<String>,
    pub country: Option<String>,
    pub state: Option<String>,
    pub locality: Option<String>,
}

impl Subject {
    /// Each attribute with its name as a request spells it, its short name of RFC 4514, and the longest value X.520 allows.
    pub fn attributes(&self) -> [(&'static str, &'static str, usize, Option<&str>); 6] {
        let Self { common_name, organization, organizational_unit, country, state, locality } = self;
        [
            ("common_name", "CN", 64, common_name.as_deref()),
            ("organization", "O", 64, organization.as_deref()),
            ("organizational_unit", "OU", 64, organizational_unit.as_deref()),
            ("country", "C", 2, country.as_deref()),
            ("state", "ST", 128, state.as_deref()),
            ("locality", "L", 128, locality.as_deref()),
        ]
    }

    pub fn is_empty(&self) -> bool {
        self.attributes().iter().all(|(.., value)| value.is_none())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.attributes().iter().filter_map(|(_, short, _, value)| value.map(|value| format!("{short}={value}"))).collect();
        f.write_str(&parts.join(", "))
    }
}

/// A leaf's key, by the names that ACM and AWS Private CA use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    #[serde(rename = "EC_prime256v1")]
    EcPrime256v1,
    #[serde(rename = "EC_secp384r1")]
    EcSecp384r1,
    #[serde(rename = "RSA_2048")]
    Rsa2048,
    #[serde(rename = "RSA_3072")]
    Rsa3072,
    #[serde(rename = "RSA_4096")]
    Rsa4096,
}

impl KeyAlgorithm {
    pub const ALL: [Self; 5] = [Self::EcPrime256v1, Self::EcSecp384r1, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcPrime256v1 => "EC_prime256v1",
            Self::EcSecp384r1 => "EC_secp384r1",
            Self::Rsa2048 => "RSA_2048",
            Self::Rsa3072 => "RSA_3072",
            Self::Rsa4096 => "RSA_4096",
        }
    }

    fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        match key.parsed().ok()? {
            PublicKey::RSA(rsa) => match rsa.key_size() {
                2048 => Some(Self::Rsa2048),
                3072 => Some(Self::Rsa3072),
                4096 => Some(Self::Rsa4096),
                _ => None,
            },
            PublicKey::EC(_) => match key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => Some(Self::EcPrime256v1),
                "1.3.132.0.34" => Some(Self::EcSecp384r1),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        one_of(text, Self::ALL, Self::as_str)
    }
}

/// What a leaf may be used for: its extended key usage, RFC 5280 section 4.2.1.12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    #[default]
    Client,
    Server,
    ClientAndServer,
}

impl Usage {
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::ClientAndServer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::ClientAndServer => "client-and-server",
        }
    }

    /// The template of AWS Private CA whose leaves have this usage and nothing that the CSR asks for beside its names.
    pub fn template(self) -> &'static str {
        match self {
            Self::Client => "EndEntityClientAuthCertificate/V1",
            Self::Server => "EndEntityServerAuthCertificate/V1",
            Self::ClientAndServer => "EndEntityCertificate/V1",
        }
    }
}

impl FromStr for Usage {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        one_of(text, Self::ALL, Self::as_str)
    }
}

/// A certificate's serial number as lower-case hexadecimal without separators or leading zeros, whatever the source wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(String);

impl Serial {
    /// From text such as ACM's `67:07:44:…`.
    pub fn from_hex(text: &str) -> Self {
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Self(hex.trim_start_matches('0').to_ascii_lowercase())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The facts of one leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub subject: Subject,
    pub names: BTreeSet<San>,
    /// `None` for a key of a kind that Everleaf does not issue.
    pub key_algorithm: Option<KeyAlgorithm>,
    /// `None` when the leaf allows something other than TLS.
    pub usage: Option<Usage>,
    pub serial: Serial,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// What another leaf, issued here, could not have: attributes of the subject, kinds of names.
    pub beyond_judgement: Vec<String>,
    /// SHA-256 over the DER, lower-case hexadecimal.
    pub fingerprint: String,
    /// SHA-256 over the DER of the public key (SubjectPublicKeyInfo), lower-case hexadecimal.
    pub key_fingerprint: String,
}

/// AWS Private CA sets a leaf's `NotBefore` this long before it was asked for.
/// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// A certificate or CSR that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not readable: {why}")]
pub struct Unreadable {
    what: &'static str,
    why: String,
}

impl Leaf {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Unreadable> {
        let unreadable = |why: String| Unreadable { what: "the certificate", why };
        let der = first_pem(pem, "CERTIFICATE").map_err(unreadable)?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| unreadable(error.to_string()))?;
        let subject = subject_of(certificate.subject());
        let names = certificate.subject_alternative_name().ok().flatten();
        let (names, mut beyond_judgement) = names.map(|names| sans_of(&names.value.general_names)).unwrap_or_default();
        beyond_judgement.extend(beyond(certificate.subject(), &subject));
        Ok(Self {
            subject,
            names,
            beyond_judgement,
            key_algorithm: KeyAlgorithm::of(certificate.public_key()),
            usage: usage_of(&certificate),
            serial: Serial::from_hex(&format!("{:x}", certificate.serial)),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            fingerprint: hex(&Sha256::digest(&der)),
            key_fingerprint: hex(&Sha256::digest(certificate.public_key().raw)),
        })
    }

    /// How long this leaf was meant to live, to the hour: its validity less the hour by which it is backdated.
    pub fn lifetime(&self) -> Duration {
        let validity = Duration::try_from(self.not_after - self.not_before).unwrap_or_default().saturating_sub(BACKDATED);
        Duration::from_secs(validity.as_secs().saturating_add(1800) / 3600 * 3600)
    }
}

/// What a CSR asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    pub subject: Subject,
    pub names: BTreeSet<San>,
    pub key_algorithm: Option<KeyAlgorithm>,
    /// As [`Leaf::key_fingerprint`].
    pub key_fingerprint: String,
    /// Parts that would end in the certificate and that Everleaf cannot judge: attributes of the subject, kinds of names.
    pub beyond_judgement: Vec<String>,
}

impl Csr {
    /// Reads the only PEM block of a text: what is judged here must be what the CA reads in it.
    pub fn from_pem(pem: &str) -> Result<Self, Unreadable> {
        let unreadable = |why: String| Unreadable { what: "the CSR", why };
        let der = first_pem(pem, "CERTIFICATE REQUEST").map_err(unreadable)?;
        if pem.matches("-----BEGIN").count() > 1 {
            return Err(unreadable("there is more than one PEM block in it".to_owned()));
        }
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|error| unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows it in its PEM block".to_owned()));
        }
        let info = &request.certification_request_info;
        let subject = subject_of(&info.subject);
        let mut beyond_judgement: Vec<_> = beyond(&info.subject, &subject).into_iter().collect();
        if !is_read_whole(&der, info) {
            beyond_judgement.push("there is more in it than can be read".to_owned());
        }
        let mut names = BTreeSet::new();
        let mut requests = 0;
        for attribute in info.iter_attributes() {
            if attribute.oid == MICROSOFT_EXTENSION_REQUEST {
                beyond_judgement.push("it asks for extensions in the manner of Microsoft; use that of PKCS#9".to_owned());
            }
            let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else { continue };
            requests += if is_set_of_one(attribute.value) { 1 } else { 2 };
            let mut seen = false;
            for extension in &request.extensions {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectAlternativeName(alternative) => {
                        if std::mem::replace(&mut seen, true) {
                            beyond_judgement.push("it has subject alternative names twice".to_owned());
                        }
                        let (known, unknown) = sans_of(&alternative.general_names);
                        names.extend(known);
                        beyond_judgement.extend(unknown);
                    }
                    ParsedExtension::ParseError { .. } => {
                        beyond_judgement.push(format!("the extension {} is not readable", extension.oid));
                    }
                    _ => {}
                }
            }
        }
        if requests > 1 {
            beyond_judgement.push("it asks for extensions more than once".to_owned());
        }
        let key_algorithm = KeyAlgorithm::of(&info.subject_pki);
        let signed = is_signed(&info.subject_pki, &request.signature_algorithm, info.raw, &request.signature_value);
        if key_algorithm.is_some() && !signed {
            beyond_judgement.push("it is not signed by its own key with SHA-256, SHA-384 or SHA-512".to_owned());
        }
        Ok(Self { subject, names, key_algorithm, key_fingerprint: hex(&Sha256::digest(info.subject_pki.raw)), beyond_judgement })
    }
}

/// Whether a SET, from its header to the end of its first member, has no other.
fn is_set_of_one(up_to_first: &[u8]) -> bool {
    Header::from_der(up_to_first).is_ok_and(|(first, set)| set.length().definite() == Ok(first.len()))
}

/// The CA honours it, or does not: that is not documented.
const MICROSOFT_EXTENSION_REQUEST: Oid<'static> = oid!(1.3.6.1.4.1.311.2.1.14);

/// Whether everything in a CSR that may end in a certificate was read. The library passes over what it does not understand at the
/// end of a list, where the CA may find another name.
fn is_read_whole(csr: &[u8], read: &X509CertificationRequestInfo<'_>) -> bool {
    const BOOLEAN: u8 = 1;
    let whole = || {
        let [info, _, _] = members(csr)?[..] else { return None };
        let [_, subject, _, attributes] = members(info)?[..] else { return None };
        let mut in_subject = 0;
        for part in members(subject)? {
            for attribute in members(part)? {
                let [_, _] = members(attribute)?[..] else { return None };
                in_subject += 1;
            }
        }
        let attributes = members(attributes)?;
        for (attribute, read) in attributes.iter().zip(read.attributes()) {
            let [_, values] = members(attribute)?[..] else { return None };
            let ParsedCriAttribute::ExtensionRequest(request) = read.parsed_attribute() else { continue };
            let extensions = members(members(values)?.first()?)?;
            for (extension, read) in extensions.iter().zip(&request.extensions) {
                match members(extension)?[..] {
                    [_, _] => {}
                    [_, [BOOLEAN, ..], _] => {}
                    _ => return None,
                }
                if let ParsedExtension::SubjectAlternativeName(names) = read.parsed_extension()
                    && members(read.value)?.len() != names.general_names.len()
                {
                    return None;
                }
            }
            if extensions.len() != request.extensions.len() {
                return None;
            }
        }
        Some(in_subject == read.subject.iter_attributes().count() && attributes.len() == read.attributes().len())
    };
    whole() == Some(true)
}

/// What a SEQUENCE or SET holds, each member from its header to its end; `None` when their lengths and its own do not agree.
fn members(value: &[u8]) -> Option<Vec<&[u8]>> {
    let length = |value| {
        let (content, header) = Header::from_der(value).ok()?;
        let length = header.length().definite().ok()?;
        Some((content, value.len() - content.len() + length)).filter(|_| length <= content.len())
    };
    let (mut left, whole) = length(value)?;
    let mut members = Vec::new();
    while !left.is_empty() {
        let (member, after) = left.split_at(length(left)?.1);
        members.push(member);
        left = after;
    }
    (whole == value.len()).then_some(members)
}

fn first_pem(text: &str, label: &str) -> Result<Vec<u8>, String> {
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        let pem = pem.map_err(|error| error.to_string())?;
        if pem.label == label || (label == "CERTIFICATE REQUEST" && pem.label == "NEW CERTIFICATE REQUEST") {
            return Ok(pem.contents);
        }
    }
    Err(format!("there is no PEM block `{label}` in it"))
}

fn subject_of(name: &X509Name<'_>) -> Subject {
    let first = |values: &mut dyn Iterator<Item = &AttributeTypeAndValue<'_>>| {
        values.next().and_then(|value| value.as_str().ok()).map(str::to_owned)
    };
    Subject {
        common_name: first(&mut name.iter_common_name()),
        organization: first(&mut name.iter_organization()),
        organizational_unit: first(&mut name.iter_organizational_unit()),
        country: first(&mut name.iter_country()),
        state: first(&mut name.iter_state_or_province()),
        locality: first(&mut name.iter_locality()),
    }
}

/// What a subject has beyond what was read of it.
fn beyond(name: &X509Name<'_>, read: &Subject) -> Option<String> {
    let kept = read.attributes().iter().filter(|(.., value)| value.is_some()).count();
    let more = name.iter_attributes().count() > kept;
    more.then(|| format!("the subject `{name}` has attributes other than one each of CN, O, OU, C, ST and L"))
}

/// The names of the kinds that Everleaf knows, and the others in words.
fn sans_of(names: &[GeneralName<'_>]) -> (BTreeSet<San>, Vec<String>) {
    let mut known = BTreeSet::new();
    let mut unknown = Vec::new();
    for name in names {
        let text = match name {
            GeneralName::DNSName(name) => format!("dns:{name}"),
            GeneralName::URI(uri) => format!("uri:{uri}"),
            GeneralName::RFC822Name(address) => format!("email:{address}"),
            GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => format!("ip:{}", std::net::Ipv4Addr::from(v4)),
                (_, Ok(v6)) => format!("ip:{}", std::net::Ipv6Addr::from(v6)),
                _ => name.to_string(),
            },
            other => other.to_string(),
        };
        match text.parse() {
            Ok(san) => _ = known.insert(san),
            Err(_) => unknown.push(format!("the subject alternative name {text}")),
        }
    }
    (known, unknown)
}

fn usage_of(certificate: &X509Certificate<'_>) -> Option<Usage> {
    let usage = certificate.extended_key_usage().ok()??.value;
    let beyond_tls = usage.any || usage.code_signing || usage.email_protection || usage.time_stamping || usage.ocsp_signing;
    match (usage.client_auth, usage.server_auth) {
        _ if beyond_tls || !usage.other.is_empty() => None,
        (true, false) => Some(Usage::Client),
        (false, true) => Some(Usage::Server),
        (true, true) => Some(Usage::ClientAndServer),
        (false, false) => None,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, at};

    fn csr(name: &str) -> Csr {
        Csr::from_pem(samples::csr(name)).unwrap()
    }

    fn leaf(name: &str) -> Leaf {
        Leaf::from_pem(samples::leaf(name)).unwrap()
    }

    fn full_subject() -> Subject {
        let text = |text: &str| Some(text.to_owned());
        Subject {
            common_name: text("orders"),
            organization: text("Example"),
            organizational_unit: text("Payments"),
            country: text("DE"),
            state: text("Bayern"),
            locality: text("München"),
        }
    }

    fn all_kinds_of_names() -> BTreeSet<San> {
        [
            "dns:orders.example.com",
            "dns:*.example.com",
            "uri:spiffe://example.com/orders",
            "ip:10.0.0.1",
            "ip:2001:db8::1",
            "email:Ops@example.com",
        ]
        .map(|name| name.parse().unwrap())
        .into()
    }

    #[test]
    fn a_leaf_for_more_than_tls_has_no_usage_of_ours() {
        use rcgen::ExtendedKeyUsagePurpose::{
            Any, ClientAuth, CodeSigning, EmailProtection, OcspSigning, Other, ServerAuth, TimeStamping,
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let usage_with = |more: &[rcgen::ExtendedKeyUsagePurpose]| {
            let mut params = rcgen::CertificateParams::default();
            params.extended_key_usages = [&[ClientAuth], more].concat();
            Leaf::from_pem(&params.self_signed(&key).unwrap().pem()).unwrap().usage
        };
        assert_eq!(usage_with(&[]), Some(Usage::Client));
        assert_eq!(usage_with(&[ServerAuth]), Some(Usage::ClientAndServer));
        for more in [Any, CodeSigning, EmailProtection, TimeStamping, OcspSigning, Other(vec![1, 3, 6, 1, 5, 2, 3, 4])] {
            assert_eq!(usage_with(std::slice::from_ref(&more)), None, "{more:?}");
        }
    }

    #[test]
    fn what_of_a_leaf_cannot_be_asked_for_is_named() {
        use rcgen::{DnType, SanType};
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "web");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "0815");
        params.subject_alt_names =
            ["web.example.com", "*.*.example.com"].map(|name| SanType::DnsName(name.try_into().unwrap())).into();
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let leaf = Leaf::from_pem(&pem).unwrap();
        assert_eq!(leaf.names, ["dns:web.example.com".parse().unwrap()].into());
        let [name, subject] = &leaf.beyond_judgement[..] else { panic!("{:?}", leaf.beyond_judgement) };
        assert!(name.contains("dns:*.*.example.com") && subject.contains("attributes other than"), "{name}, {subject}");
    }

    #[test]
    fn a_leaf_reads_as_openssl_reads_it() {
        let expected = Leaf {
            subject: full_subject(),
            names: all_kinds_of_names(),
            key_algorithm: Some(KeyAlgorithm::EcPrime256v1),
            usage: Some(Usage::Client),
            beyond_judgement: Vec::new(),
            serial: Serial("a6707447683a9b7f4055627ffd55ceb".to_owned()),
            not_before: at("2026-11-01T00:00:00Z"),
            not_after: at("2026-12-01T01:00:00Z"),
            fingerprint: "9fbbdd8fbb7f6a0d399d2009d46b98934f2cf44529afd1af7ecdc767141ecb3d".to_owned(),
            key_fingerprint: "8e12ea461cac5dc7e19b1a8cb31236a3ca16c1bbc7918bb0d33a880c231e9fbc".to_owned(),
        };
        assert_eq!(leaf("client"), expected);
        let with_chain = format!("Bag Attributes\n{}\n{}\n", samples::leaf("client"), samples::leaf("server"));
        assert_eq!(Leaf::from_pem(&with_chain), Ok(expected));
    }

    #[test]
    fn a_leaf_has_a_usage_only_when_it_is_for_tls_alone() {
        for (name, usage) in [
            ("client", Some(Usage::Client)),
            ("server", Some(Usage::Server)),
            ("both", Some(Usage::ClientAndServer)),
            ("code", None),
            ("other-usage", None),
            ("any", None),
            ("no-usage", None),
        ] {
            assert_eq!(leaf(name).usage, usage, "{name}");
        }
    }

    #[test]
    fn a_leafs_lifetime_leaves_out_the_backdated_hour_and_is_rounded_to_hours() {
        let day = at("2026-11-01T00:00:00Z");
        for (minutes, hours) in
            [(0, 0), (59, 0), (60, 0), (89, 0), (90, 1), (13 * 60, 12), (13 * 60 + 29, 12), (13 * 60 + 30, 13)]
        {
            let leaf = Leaf { not_before: day, not_after: day + time::Duration::minutes(minutes), ..leaf("client") };
            assert_eq!(leaf.lifetime(), samples::HOUR * hours, "{minutes} minutes");
        }
        assert_eq!(leaf("client").lifetime(), samples::DAY * 30);
        let ends_before_it_begins = Leaf { not_before: day, not_after: day - samples::DAY, ..leaf("client") };
        assert_eq!(ends_before_it_begins.lifetime(), Duration::ZERO);
    }

    #[test]
    fn a_key_is_of_a_known_algorithm_or_none() {
        for (name, algorithm) in [
            ("key-p256", Some(KeyAlgorithm::EcPrime256v1)),
            ("key-p384", Some(KeyAlgorithm::EcSecp384r1)),
            ("key-rsa2048", Some(KeyAlgorithm::Rsa2048)),
            ("key-rsa3072", Some(KeyAlgorithm::Rsa3072)),
            ("key-rsa4096", Some(KeyAlgorithm::Rsa4096)),
            ("key-rsa1024", None),
            ("key-rsa-pss", None),
            ("key-p521", None),
            ("key-p256-explicit", None),
            ("key-ed25519", None),
        ] {
            assert_eq!(csr(name).key_algorithm, algorithm, "{name}");
        }
        assert_eq!(leaf("server").key_algorithm, Some(KeyAlgorithm::Rsa2048));
        assert_eq!(leaf("p521").key_algorithm, None);
    }

    #[test]
    fn a_csr_says_subject_names_and_key_as_its_leaf_will() {
        let Csr { subject, names, key_algorithm, key_fingerprint, beyond_judgement } = csr("full");
        let leaf = leaf("client");
        assert_eq!((subject, names), (leaf.subject, leaf.names));
        assert_eq!((key_algorithm, key_fingerprint), (leaf.key_algorithm, leaf.key_fingerprint));
        assert_eq!(beyond_judgement, [""; 0]);
        assert_eq!(csr("names-only").subject, Subject::default());
        assert_eq!(csr("names-only").names, ["dns:orders.example.com".parse().unwrap()].into());
    }

    #[test]
    fn what_a_csr_asks_for_beyond_judgement_is_named() {
        let subject = "has attributes other than one each of";
        for (name, parts) in [
            ("key-p256", &[][..]),
            // Basic constraints come from the template.
            ("ca-wish", &[]),
            ("serial-number", &[subject]),
            ("two-units", &[subject]),
            ("mail-attribute", &[subject]),
            ("bmp-string", &[subject]),
            ("other-name", &["the subject alternative name OtherName(1.3.6.1.4.1.311.20.2.3, [...])"]),
            (
                "dir-name",
                &[
                    "the subject alternative name DirectoryName(CN=admin)",
                    "the subject alternative name RegisteredID(1.2.3.4)",
                    "the subject alternative name dns:a..b",
                ],
            ),
            ("unreadable-names", &["the extension 2.5.29.17 is not readable"]),
            ("two-requests", &["asks for extensions more than once", "not signed by its own key"]),
            ("two-values", &["asks for extensions more than once", "not signed by its own key"]),
        ] {
            let said = csr(name).beyond_judgement;
            assert_eq!(said.len(), parts.len(), "{name}: {said:?}");
            for (said, part) in said.iter().zip(parts) {
                assert!(said.contains(part), "{name}: {said}");
            }
        }
    }

    #[test]
    fn an_unreadable_text_says_why_and_shows_nothing_of_itself() {
        let good = samples::csr("key-p256");
        for (text, why) in [
            ("", "there is no PEM block `CERTIFICATE REQUEST` in it"),
            (samples::leaf("client"), "there is no PEM block `CERTIFICATE REQUEST` in it"),
            (samples::csr("trailing"), "something follows it"),
            (&format!("{good}\n{}", samples::csr("full")), "more than one PEM block"),
            (&good.replace("M", "!"), "is not readable"),
            ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "is not readable"),
            ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "there is no PEM block"),
        ] {
            let said = Csr::from_pem(text).unwrap_err().to_string();
            assert!(said.starts_with("the CSR is not readable: ") && said.contains(why), "{said}");
            assert!(!said.contains("c2VjcmV0"));
        }
        let said = Leaf::from_pem(good).unwrap_err().to_string();
        assert_eq!(said, "the certificate is not readable: there is no PEM block `CERTIFICATE` in it");
    }

    #[test]
    fn a_csr_of_older_tools_and_with_text_around_it_is_read() {
        let good = samples::csr("full");
        let expected = csr("full");
        for text in [
            good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
            good.replace('\n', "\r\n"),
            format!("Certificate Request:\n    Data:\n{good}\n\n"),
        ] {
            assert_eq!(Csr::from_pem(&text).as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn a_serial_is_the_same_whoever_writes_it() {
        for (text, serial) in [("0A:67:07", "a6707"), ("00a6707", "a6707"), ("a6707", "a6707"), ("01", "1"), ("", "")] {
            assert_eq!(Serial::from_hex(text).as_str(), serial, "{text}");
        }
    }

    #[test]
    fn algorithms_and_usages_read_back_as_written_in_text_and_in_json() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
        }
        for (usage, template) in [
            (Usage::Client, "EndEntityClientAuthCertificate/V1"),
            (Usage::Server, "EndEntityServerAuthCertificate/V1"),
            (Usage::ClientAndServer, "EndEntityCertificate/V1"),
        ] {
            assert_eq!(usage.as_str().parse(), Ok(usage));
            assert_eq!(serde_json::to_value(usage).unwrap(), usage.as_str());
            assert_eq!(usage.template(), template);
        }
        assert_eq!(
            "RSA_1024".parse::<KeyAlgorithm>().unwrap_err().to_string(),
            "`RSA_1024` is not one of EC_prime256v1, EC_secp384r1, RSA_2048, RSA_3072, RSA_4096"
        );
        assert_eq!("both".parse::<Usage>().unwrap_err().to_string(), "`both` is not one of client, server, client-and-server");
    }

    #[test]
    fn a_subject_reads_in_the_short_names_of_rfc_4514() {
        assert_eq!(full_subject().to_string(), "CN=orders, O=Example, OU=Payments, C=DE, ST=Bayern, L=München");
        assert_eq!(Subject::default().to_string(), "");
        assert!(Subject::default().is_empty() && !full_subject().is_empty());
    }
}
