//! What things are called. Each name is parsed once, where it comes in, and is good from there on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that cannot be one, with what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(pub String);

/// The one of `all` that is spelled so.
pub(crate) fn one_of<T: Copy, const N: usize>(text: &str, all: [T; N], spelled: fn(T) -> &'static str) -> Result<T, BadName> {
    let found = all.into_iter().find(|one| spelled(*one) == text);
    found.ok_or_else(|| BadName(format!("`{text}` is not one of {}", all.map(spelled).join(", "))))
}

/// The name of a certificate inside its stack: the secret is called `<prefix>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateName(String);

impl FromStr for CertificateName {
    type Err = BadName;

    /// Secrets Manager's rules for names, and room for a prefix within the 256 characters that a tag's value may have.
    fn from_str(name: &str) -> Result<Self, BadName> {
        let problem = if name.is_empty() || name.len() > 200 {
            "is empty or longer than 200 characters"
        } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte)) {
            "has a character other than letters, digits and /_+=.@-"
        } else if name.starts_with('/') || name.ends_with('/') || name.contains("//") {
            "has an empty part between slashes"
        } else if looks_like_arn_suffix(name) {
            "ends in a hyphen and six characters that are no word, which Secrets Manager would confuse with the end of an ARN"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(BadName(format!("`{name}` {problem}")))
    }
}

/// `…-AbCd3F`: see the note on names at <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.
/// A word of six letters, such as `…-client` and `…-server`, is none.
fn looks_like_arn_suffix(name: &str) -> bool {
    let mut from_the_end = name.rsplitn(2, '-');
    let last = from_the_end.next().unwrap_or_default();
    from_the_end.next().is_some()
        && last.len() == 6
        && last.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !last.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// An ECS service by cluster: `payments/orders`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub cluster: String,
    pub service: String,
}

impl FromStr for ServiceName {
    type Err = BadName;

    /// `cluster/service`, or the long form of a service's ARN, which holds both.
    fn from_str(name: &str) -> Result<Self, BadName> {
        let short = match name.strip_prefix("arn:") {
            Some(arn) => arn.rsplit_once(":service/").map_or("", |(_, resource)| resource),
            None => name,
        };
        let good = |part: &str| {
            (1..=255).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        match short.split_once('/') {
            Some((cluster, service)) if good(cluster) && good(service) && short.len() <= 256 => {
                Ok(Self { cluster: cluster.to_owned(), service: service.to_owned() })
            }
            _ => Err(BadName(format!(
                "`{name}` is not a service: write `cluster/service`, or the service's ARN with the cluster in it"
            ))),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.service)
    }
}

/// How a service comes by a new pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reload {
    /// It is deployed anew, and its tasks read the pair when they start.
    #[default]
    Deployment,
    /// An agent in its tasks fetches the pair and has the program read it: the service is left running.
    Agent,
}

impl Reload {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Agent => "agent",
        }
    }
}

impl FromStr for Reload {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        one_of(text, [Self::Deployment, Self::Agent], Self::as_str)
    }
}

/// A service as a tag names it: `payments/orders`, or `payments/refunds reload=agent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedService {
    pub name: ServiceName,
    pub reload: Reload,
}

impl FromStr for TaggedService {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (name, reload) = match text.split_once(" reload=") {
            Some((name, reload)) => (name, reload.parse()?),
            None => (text, Reload::default()),
        };
        Ok(Self { name: name.parse()?, reload })
    }
}

impl fmt::Display for TaggedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reload {
            Reload::Deployment => self.name.fmt(f),
            Reload::Agent => write!(f, "{} reload=agent", self.name),
        }
    }
}

/// The name of an ALB trust store.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTrustStore.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreName(String);

impl FromStr for StoreName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match name.len() <= 32 && name.split('-').all(part) {
            true => Ok(Self(name.to_owned())),
            false => Err(BadName(format!("`{name}` is not 1 to 32 letters and digits with single hyphens between them"))),
        }
    }
}

/// An Amazon Resource Name, its partition kept: `arn:aws-cn:acm:…` stays what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arn(String);

impl Arn {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn partition(&self) -> &str {
        self.part(1)
    }

    pub fn service(&self) -> &str {
        self.part(2)
    }

    /// What follows the account: `certificate/12345678-…`.
    pub fn resource(&self) -> &str {
        self.0.splitn(6, ':').nth(5).unwrap_or_default()
    }

    fn part(&self, index: usize) -> &str {
        self.0.split(':').nth(index).unwrap_or_default()
    }

    /// The ARN, when it is one of `service` and its resource starts with `kind`.
    pub fn of(text: &str, service: &str, kind: &str) -> Result<Self, BadName> {
        let arn: Self = text.parse()?;
        if arn.service() == service && arn.resource().starts_with(kind) && arn.resource().len() > kind.len() {
            Ok(arn)
        } else {
            Err(BadName(format!("`{text}` is not an ARN of the form arn:aws:{service}:region:account:{kind}…")))
        }
    }
}

impl FromStr for Arn {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts[..] {
            ["arn", partition, service, _, _, resource]
                if partition.starts_with("aws") && !service.is_empty() && !resource.is_empty() =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadName(format!("`{text}` is not an ARN"))),
        }
    }
}

/// The ARN of a CA in AWS Private CA, while it is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuthorityArn(pub Arn);

impl FromStr for AuthorityArn {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Arn::of(text, "acm-pca", "certificate-authority/").map(Self)
    }
}

/// One entry of a certificate's subject alternative names, RFC 5280 section 4.2.1.6: `dns:`, `uri:`, `ip:` or `email:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum San {
    Dns(String),
    Uri(String),
    Ip(IpAddr),
    Email(String),
}

impl FromStr for San {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why: &str| Err(BadName(format!("`{text}` {why}")));
        match text.split_once(':') {
            Some(("dns", name)) => match is_dns_name(name) {
                true => Ok(Self::Dns(name.to_ascii_lowercase())),
                false => bad(
                    "is not a DNS name: labels of letters, digits and hyphens, the last not of digits alone, a wildcard only as the whole first label",
                ),
            },
            Some(("ip", address)) => match address.parse() {
                Ok(address) => Ok(Self::Ip(address)),
                Err(_) => bad("is not an IPv4 or IPv6 address"),
            },
            Some(("email", address)) => match address.split_once('@') {
                Some((local, domain))
                    if (1..=64).contains(&local.len())
                        && local.bytes().all(|byte| byte.is_ascii_graphic())
                        && is_dns_name(domain)
                        && !domain.starts_with('*') =>
                {
                    Ok(Self::Email(format!("{local}@{}", domain.to_ascii_lowercase())))
                }
                _ => bad("is not an e-mail address in printable ASCII"),
            },
            Some(("uri", uri)) => match uri.split_once(':') {
                Some(("spiffe", _)) if !is_spiffe_id(uri) => {
                    bad("is not a SPIFFE ID: spiffe://trust-domain/path, without port, query or fragment")
                }
                Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() && uri.len() <= 253 && is_uri_text(rest) => {
                    Ok(Self::Uri(uri.to_owned()))
                }
                _ => bad("is not an absolute URI of at most 253 characters"),
            },
            _ => bad("needs one of the prefixes dns:, uri:, ip:, email:"),
        }
    }
}

impl San {
    /// The trust domain of a SPIFFE ID, and nothing for any other name.
    pub fn trust_domain(&self) -> Option<&str> {
        match self {
            Self::Uri(uri) => uri.strip_prefix("spiffe://").map(|rest| rest.split('/').next().unwrap_or_default()),
            _ => None,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Email(address) => write!(f, "email:{address}"),
        }
    }
}

/// A host's name, or a wildcard for one label. What ends in digits alone is an IPv4 address or nothing, RFC 3696 section 2.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = labels.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && labels.split('.').all(label) && !top.bytes().all(|byte| byte.is_ascii_digit())
}

/// <https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>, section 2.
fn is_spiffe_id(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let domain_good = (1..=255).contains(&domain.len())
        && domain.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte));
    let segment = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    domain_good && path.is_none_or(|path| path.split('/').all(segment))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

fn is_uri_text(rest: &str) -> bool {
    rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

/// Text in, text out: these types stand in JSON, in the table and in messages as what they parse from.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Arn, CertificateName, San, ServiceName, StoreName);

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

display_inner!(Arn, CertificateName, StoreName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_a_service_and_how_it_reloads() {
        for (text, name, reload, written) in [
            ("payments/orders", "payments/orders", Reload::Deployment, "payments/orders"),
            ("payments/orders reload=deployment", "payments/orders", Reload::Deployment, "payments/orders"),
            ("payments/orders reload=agent", "payments/orders", Reload::Agent, "payments/orders reload=agent"),
        ] {
            let tagged: TaggedService = text.parse().unwrap();
            assert_eq!(tagged, TaggedService { name: name.parse().unwrap(), reload });
            assert_eq!(tagged.to_string(), written);
        }
        for bad in
            ["payments/orders reload=", "payments/orders reload=Agent", "payments/orders  reload=agent", "orders reload=agent"]
        {
            assert!(bad.parse::<TaggedService>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_name_is_one_that_secrets_manager_takes() {
        let longest = "x".repeat(200);
        for good in [
            "orders",
            "team/orders.client",
            "a",
            "x-12345",
            "x-1234567",
            "UPPER_lower+=.@",
            "orders-client",
            "orders-server",
            "client",
            "-a",
            &longest,
        ] {
            assert_eq!(good.parse::<CertificateName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", "is empty"),
            (&*"x".repeat(201), "longer than 200"),
            ("with space", "a character other than"),
            ("new\nline", "a character other than"),
            ("ümlaut", "a character other than"),
            ("a:b", "a character other than"),
            ("/lead", "an empty part"),
            ("trail/", "an empty part"),
            ("a//b", "an empty part"),
            ("name-AbCdEf", "the end of an ARN"),
            ("name-a1b2c3", "the end of an ARN"),
            ("a-b-123456", "the end of an ARN"),
        ] {
            let BadName(said) = bad.parse::<CertificateName>().unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn a_trust_store_is_called_as_elastic_load_balancing_allows() {
        for good in ["clients", "c", "payments-clients-2", &"x".repeat(32)] {
            assert_eq!(good.parse::<StoreName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "a--b", "a_b", "a.b", "a b", "ä", &"x".repeat(33)] {
            assert!(bad.parse::<StoreName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_is_named_by_cluster_and_service_or_by_its_long_arn() {
        let service: ServiceName = "arn:aws:ecs:eu-central-1:111122223333:service/payments/orders".parse().unwrap();
        assert_eq!(service, "payments/orders".parse().unwrap());
        assert_eq!(service.to_string(), "payments/orders");
        let longest = format!("c/{}", "s".repeat(254));
        assert!(longest.parse::<ServiceName>().is_ok());
        for bad in [
            "",
            "orders",
            "a/b/c",
            "a/",
            "/orders",
            "pay ments/orders",
            "arn:aws:ecs:eu-central-1:111122223333:service/orders",
            "arn:aws:ecs:eu-central-1:111122223333:cluster/payments",
            // A tag's value has room for 256 characters.
            &format!("{longest}s"),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_arn_keeps_its_partition() {
        let arn = Arn::of("arn:aws-cn:acm:cn-north-1:111122223333:certificate/1", "acm", "certificate/").unwrap();
        assert_eq!((arn.partition(), arn.service(), arn.resource()), ("aws-cn", "acm", "certificate/1"));
        assert_eq!(arn.as_str(), "arn:aws-cn:acm:cn-north-1:111122223333:certificate/1");
        let with_colons: Arn = "arn:aws:secretsmanager:r:1:secret:everleaf/orders-AbCd3F".parse().unwrap();
        assert_eq!(with_colons.resource(), "secret:everleaf/orders-AbCd3F");
        for bad in [
            "arn:aws:acm:r:1:certificate/",
            "arn:aws:acm:r:1:account",
            "arn:aws:acm-pca:r:1:certificate/1",
            "arn:aws:s3:::bucket",
            "arn:azure:acm:r:1:certificate/1",
            "arn:aws:acm:r:1",
            "certificate/1",
            "",
        ] {
            assert!(Arn::of(bad, "acm", "certificate/").is_err(), "{bad}");
        }
    }

    #[test]
    fn every_kind_of_subject_alternative_name_reads_back_as_written() {
        let longest_name = format!("dns:*.{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(62), "d".repeat(60));
        let longest_uri = format!("uri:urn:{}", "x".repeat(249));
        for good in [
            "dns:orders.example.com",
            "dns:*.example.com",
            "dns:_tls.a-b.example.c0m",
            "dns:localhost",
            "dns:1.2.3.4a",
            &longest_name,
            "uri:spiffe://example.com",
            "uri:spiffe://example.com/ns/payments/sa/orders",
            "uri:https://example.com/a?b#c",
            &longest_uri,
            "ip:10.0.0.1",
            "ip:2001:db8::1",
            "ip:::ffff:10.0.0.1",
            "email:ops@example.com",
            "email:First.Last+tag@example.com",
        ] {
            assert_eq!(good.parse::<San>().map(|san| san.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "orders.example.com",
            "DNS:orders.example.com",
            "dns:",
            "dns:*",
            "dns:*.",
            "dns:a..b",
            "dns:a.*.b",
            "dns:*a.b",
            "dns:*.*.b",
            "dns:-a.b",
            "dns:a-.b",
            "dns:a.b.",
            "dns:a b.c",
            "dns:ümlaut.example.com",
            "dns:10.0.0.1",
            "dns:*.0.0.1",
            &format!("{longest_name}d"),
            &format!("dns:{}.com", "a".repeat(64)),
            "ip:10.0.0",
            "ip:10.0.0.0/8",
            "ip:010.0.0.1",
            "ip:fe80::1%eth0",
            "email:nobody",
            "email:@a.b",
            "email:a@b@c.d",
            "email:a b@c.d",
            "email:a\r\nb@c.d",
            "email:ä@c.d",
            "email:a@*.c.d",
            "email:a@10.0.0.1",
            &format!("email:{}@a.b", "x".repeat(65)),
            "uri:relative",
            "uri:a:",
            "uri:1a:b",
            "uri:a:b c",
            "uri:a:<b>",
            &format!("{longest_uri}x"),
            "uri:spiffe:x",
            "uri:spiffe://",
            "uri:spiffe://Example.com/x",
            "uri:spiffe://example.com:80/x",
            "uri:spiffe://example.com//x",
            "uri:spiffe://example.com/",
            "uri:spiffe://example.com/../x",
            "uri:spiffe://example.com/x?y",
            "uri:spiffe://example.com/x#y",
            "uri:spiffe://user@example.com/x",
        ] {
            assert!(bad.parse::<San>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_mean_the_same_are_equal() {
        for (one, other) in [
            ("dns:Orders.EXAMPLE.com", "dns:orders.example.com"),
            ("email:Ops@Example.COM", "email:Ops@example.com"),
            ("ip:2001:0DB8:0:0::1", "ip:2001:db8::1"),
        ] {
            assert_eq!(one.parse::<San>(), other.parse::<San>());
        }
        assert_ne!("email:Ops@example.com".parse::<San>(), "email:ops@example.com".parse::<San>());
    }

    #[test]
    fn only_a_spiffe_id_has_a_trust_domain() {
        for (san, domain) in [
            ("uri:spiffe://example.com/orders", Some("example.com")),
            ("uri:spiffe://example.com", Some("example.com")),
            ("uri:SPIFFE://example.com/orders", None),
            ("uri:https://example.com/orders", None),
            ("dns:example.com", None),
        ] {
            assert_eq!(san.parse::<San>().unwrap().trust_domain(), domain, "{san}");
        }
    }

    #[test]
    fn in_json_a_name_is_its_text_and_is_parsed_again_when_it_is_read() {
        let name: CertificateName = serde_json::from_str("\"orders\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"orders\"");
        assert!(serde_json::from_str::<CertificateName>("\"/orders\"").is_err());
        assert!(serde_json::from_str::<San>("\"orders.example.com\"").is_err());
    }
}
