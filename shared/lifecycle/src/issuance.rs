//! From a request to an order, or to every reason against it at once. Nothing is clamped and nothing is dropped.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fields::{Fields, Refusal};
use crate::leaf::{Csr, KeyAlgorithm, Leaf, Subject, Usage};
use crate::names::{Arn, AuthorityArn, BadName, CertificateName, Reload, San, ServiceName, TaggedService, is_dns_name};
use crate::record::{KeyFormat, Options, Origin, Record, Specification};
use crate::renewal;
use crate::trust::Successors;

/// What this stack may issue.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The CA that issues when a request names none.
    pub issuing_ca: Option<Arn>,
    pub other_cas: BTreeSet<Arn>,
    /// CAs that issue no more, and those that do in their place.
    pub successors: Successors,
    /// What DNS names, e-mail domains and IP addresses must be inside of; empty: anything goes.
    pub names: Vec<NameScope>,
    /// The SPIFFE trust domains that URIs must be of; empty: any URI goes.
    pub trust_domains: BTreeSet<String>,
    pub key_algorithms: BTreeSet<KeyAlgorithm>,
    pub longest_validity: Duration,
    /// How often the sweep looks. A certificate whose renewal window is shorter than three looks could be missed.
    pub sweep_interval: Duration,
}

/// A part of the name space that certificates may be issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameScope {
    /// `example.com`: the domain itself and everything below it.
    Domain(String),
    /// `10.0.0.0/8`
    Network(IpAddr, u8),
}

/// A request that was understood and is allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub name: CertificateName,
    pub specification: Specification,
    /// The end the caller gave as a date, where it did.
    pub end: Option<OffsetDateTime>,
    pub options: Options,
    /// The certificate in ACM that is to hold the pair as well, where the caller named one.
    pub import_into: Option<Arn>,
    /// The caller's CSR: the key stays with the caller.
    pub csr: Option<CallersCsr>,
    pub replace: bool,
    pub dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallersCsr {
    pub pem: String,
    pub key_fingerprint: String,
}

/// A lifetime when the request gives none: short enough to be renewed as a matter of routine.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What AWS Private CA takes: <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>.
const LONGEST_CSR: usize = 32 * 1024;

const KNOWN: &str = "name, subject, subject_alternative_names, key_algorithm, usage, validity, certificate_authority_arn, services, csr, \
                     key_format, renew_before, import_to_acm, canary, maintenance_window, \
                     paused, replace, dry_run";

/// Each service is a tag on the secret, which takes 50; the others are Everleaf's own and people's.
pub const MOST_SERVICES: usize = 35;

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Tag.html>
const LONGEST_TAG: usize = 256;

/// Reads a request and judges it by `policy`.
///
/// ```json
/// {"name": "orders-mtls", "subject": {"common_name": "orders"}, "subject_alternative_names": ["dns:orders.example.internal"]}
/// ```
pub fn order(request: &Value, policy: &Policy, now: OffsetDateTime) -> Result<Order, Refusal> {
    let mut fields = Fields::of(request, "request", "name")?;
    let name = fields.required::<CertificateName>("name", "the certificate's name inside the stack, such as `orders-mtls`");
    let by_csr = request.get("csr").is_some_and(|csr| !csr.is_null());
    let csr = fields.csr();
    let subject = fields.subject();
    let names = fields.list::<San>("subject_alternative_names");
    let key_algorithm = fields.text::<KeyAlgorithm>("key_algorithm");
    let (subject, names, key_algorithm) = match &csr {
        Some((_, csr)) => fields.of_csr(csr, subject, names, key_algorithm),
        None => {
            (subject.unwrap_or_default(), names.unwrap_or_default(), Some(key_algorithm.unwrap_or(KeyAlgorithm::EcPrime256v1)))
        }
    };
    let usage = fields.text::<Usage>("usage").unwrap_or_default();
    let (lifetime, end) = fields.validity(now);
    let certificate_authority_arn = fields.certificate_authority(policy);
    let (import_to_acm, import_into) = fields.import(by_csr, usage);
    let (services, agent_services) = fields.services(by_csr);
    let options = Options {
        services,
        agent_services,
        key_format: fields.key_format(by_csr),
        renew_before: fields.duration("renew_before"),
        import_to_acm,
        canary: fields.text("canary"),
        maintenance_window: fields.text("maintenance_window"),
        paused: fields.flag("paused"),
    };
    let (replace, dry_run) = (fields.flag("replace"), fields.flag("dry_run"));
    fields.nothing_else(KNOWN);

    // What an unreadable CSR asks for cannot be judged.
    if csr.is_some() || !by_csr {
        fields.judge_subject(&subject);
        fields.judge_names(&subject, &names, policy);
        fields.judge_key(key_algorithm, policy);
    }
    fields.judge_services(&options);
    if let Some(lifetime) = lifetime {
        fields.judge_lifetime(lifetime, options.renew_before, policy);
    }
    match (fields.reasons.is_empty(), name, key_algorithm, lifetime, certificate_authority_arn) {
        (true, Some(name), Some(key_algorithm), Some(lifetime), Some(certificate_authority_arn)) => Ok(Order {
            name,
            specification: Specification { subject, names, key_algorithm, usage, lifetime, certificate_authority_arn },
            end,
            options,
            import_into,
            csr: csr.map(|(pem, csr)| CallersCsr { pem, key_fingerprint: csr.key_fingerprint }),
            replace,
            dry_run,
        }),
        _ => Err(Refusal { reasons: fields.reasons }),
    }
}

/// The order of what replaces `leaf`, which was imported into ACM by hand: the same, of the stack's issuing CA, for as long as that
/// one, or as the stack allows.
pub fn replacement(leaf: Leaf, record: &Record, arn: &Arn, policy: &Policy, now: OffsetDateTime) -> Result<Order, Refusal> {
    let mut names = leaf.names;
    if names.is_empty()
        && let Some(name) = &leaf.subject.common_name
        && let Ok(name) = format!("dns:{}", name.to_ascii_lowercase()).parse::<San>()
    {
        // What has only a common name was made before clients stopped to read it: RFC 9525, section 2.
        names.insert(name);
    }
    let validity = Duration::try_from(leaf.not_after - leaf.not_before).unwrap_or_default();
    let hours = validity.min(policy.longest_validity).as_secs().div_ceil(3600);
    let agents = record.options.agent_services.iter().map(|service| json!({"service": service, "reload": "agent"}));
    let services: Vec<_> = record.options.services.iter().map(|service| json!(service)).chain(agents).collect();
    let request = json!({
        "name": record.name,
        "subject": leaf.subject,
        "subject_alternative_names": names,
        "key_algorithm": leaf.key_algorithm.map_or("another kind of key", KeyAlgorithm::as_str),
        // Without an extended key usage it could be used for anything.
        "usage": leaf.usage.unwrap_or(Usage::ClientAndServer),
        "validity": { "hours": hours },
        "services": services,
        "key_format": match record.options.key_format { KeyFormat::Encrypted => "encrypted", KeyFormat::Plain => "plain" },
        "canary": record.options.canary,
        "maintenance_window": record.options.maintenance_window,
        "import_to_acm": arn,
    });
    let left_out = leaf.beyond_judgement.iter().map(|part| format!("{arn}: {part}, which its replacement would lack"));
    let left_out: Vec<_> = left_out.collect();
    match order(&request, policy, now) {
        Ok(order) if left_out.is_empty() => Ok(order),
        Ok(_) => Err(Refusal { reasons: left_out }),
        Err(refusal) => Err(Refusal { reasons: left_out.into_iter().chain(refusal.reasons).collect() }),
    }
}

/// How many sweeps there must be in the time to renew, so that no renewal comes too late.
pub(crate) const LEAST_SWEEPS: u32 = 3;

/// What an order means for a certificate that may exist already.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It exists, is good, and is not due; or it is, and `held` says why it is not renewed now.
    Unchanged { held: Option<String> },
    /// Only what Everleaf does with it changes, not the certificate.
    Keep { held: Option<String> },
    /// A new certificate is wanted.
    Issue { reason: &'static str },
}

/// Compares an order with the record of that name. What is under way, or was given up for a permanent failure, is not there yet.
pub fn verdict(order: &Order, record: Option<&Record>, policy: &Policy, now: OffsetDateTime) -> Result<Verdict, Refusal> {
    let Some(record) = record else { return Ok(Verdict::Issue { reason: "asked for" }) };
    if let Origin::Adopted { certificate_arn } = &record.origin
        && !(order.options.import_to_acm && order.import_into.as_ref().is_none_or(|arn| arn == certificate_arn))
    {
        return Err(Refusal::because(format!(
            "import_to_acm: `{}` is the name of {certificate_arn}, which was imported by hand; name it here, or choose another name",
            order.name
        )));
    }
    if order.csr.as_ref().is_some_and(|csr| record.has_compromised(&csr.key_fingerprint)) {
        return Err(Refusal::because("csr: its key is compromised; make a new key, and a CSR with it"));
    }
    let mut differences = differences(order, record, &policy.successors);
    if record.revocation_of_current().is_some() {
        // The key is to be another one, and nobody need say so.
        differences.retain(|field| *field != "csr");
    }
    if !differences.is_empty() && !order.replace {
        return Err(Refusal::because(format!(
            "name: `{}` exists and differs in {}; ask for what it is, choose another name, or set `replace` to true",
            order.name,
            differences.join(", ")
        )));
    }
    if let (Some(arn), Some(has)) = (record.acm_certificate(), record.specification())
        && order.options.import_to_acm
        && order.import_into.as_ref().is_none_or(|into| into == arn)
        && order.specification.key_algorithm != has.key_algorithm
    {
        return Err(Refusal::because(format!(
            "key_algorithm: {arn} holds the pair too, and ACM takes none of another key algorithm than {} under that ARN; choose another name",
            has.key_algorithm
        )));
    }
    let Some(current) = &record.current else { return Ok(Verdict::Issue { reason: "asked for" }) };
    let only_options = differences
        .iter()
        .all(|field| ["services", "renew_before", "import_to_acm", "canary", "maintenance_window", "paused"].contains(field));
    if !only_options {
        return Ok(Verdict::Issue { reason: "replaced by request" });
    }
    if record.attempt.is_some() {
        return Ok(Verdict::Issue { reason: "left unfinished" });
    }
    let origin = Origin::Issued(order.specification.clone());
    let asked = Record { origin, options: order.options.clone(), ..record.clone() };
    // A caller's CSR is renewed by being sent again, and not otherwise.
    let held = renewal::held_up(&asked, policy.sweep_interval, now).filter(|_| order.csr.is_none());
    let is_due = !current.is_valid_at(now) || renewal::due(&asked, policy.sweep_interval).is_none_or(|due| due <= now);
    let is_retired = current.issuer.as_ref().is_some_and(|issuer| policy.successors.of(issuer).is_some());
    let reasons = [
        (record.halted.is_some(), "left unfinished"),
        (is_due, "due"),
        (record.revocation_of_current().is_some(), "revoked"),
        (is_retired, "issued by a retired CA"),
        (record.set_back().is_some() && order.csr.is_none(), "a deployment failed on the pair after it"),
    ];
    let reason = reasons.into_iter().find_map(|(is_so, reason)| (is_so && held.is_none()).then_some(reason));
    let held = held.map(|why| format!("it is due and not renewed now: {why}"));
    Ok(match reason {
        Some(reason) => Verdict::Issue { reason },
        None if differences.is_empty() => Verdict::Unchanged { held },
        None => Verdict::Keep { held },
    })
}

/// The fields in which an order asks for something else than the record holds.
fn differences(order: &Order, record: &Record, successors: &Successors) -> Vec<&'static str> {
    let Order { name: _, specification: wanted, end, options, import_into, csr, replace: _, dry_run: _ } = order;
    if let Origin::Adopted { .. } = record.origin {
        return Vec::new();
    }
    let ((Origin::Issued(has), None) | (Origin::CallerKey(has), Some(_))) = (&record.origin, csr) else { return vec!["origin"] };
    let same_validity = match (end, &record.current) {
        (Some(end), Some(current)) => (*end - *current.not_after).abs() < time::Duration::minutes(1),
        // The lifetime up to a date shrinks from try to try.
        (Some(_), None) => true,
        (None, _) => wanted.lifetime == has.lifetime,
    };
    let same_key = match (csr, &record.current) {
        (Some(csr), Some(current)) => csr.key_fingerprint == current.key_fingerprint,
        _ => true,
    };
    let Specification { subject, names, key_algorithm, usage, lifetime: _, certificate_authority_arn } = wanted;
    let Options { services, agent_services, key_format, renew_before, import_to_acm, canary, maintenance_window, paused } =
        options;
    let same_import = *import_to_acm == record.options.import_to_acm
        && import_into.as_ref().is_none_or(|arn| record.acm_certificate() == Some(arn));
    [
        ("subject", *subject == has.subject),
        ("subject_alternative_names", *names == has.names),
        ("key_algorithm", *key_algorithm == has.key_algorithm),
        ("usage", *usage == has.usage),
        ("validity", same_validity),
        ("csr", same_key),
        ("certificate_authority_arn", certificate_authority_arn == successors.active(&has.certificate_authority_arn)),
        ("services", *services == record.options.services && *agent_services == record.options.agent_services),
        ("key_format", *key_format == record.options.key_format),
        ("renew_before", *renew_before == record.options.renew_before),
        ("import_to_acm", same_import),
        ("canary", *canary == record.options.canary),
        ("maintenance_window", *maintenance_window == record.options.maintenance_window),
        ("paused", *paused == record.options.paused),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
    .collect()
}

/// What only an issuance's request holds.
impl Fields {
    fn subject(&mut self) -> Option<Subject> {
        let Value::Object(mut given) = self.take("subject")? else {
            self.refuse("subject", "is not an object such as {\"common_name\": \"orders\"}");
            return None;
        };
        let mut attribute = |field: &str| match given.remove(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.reasons.push(format!("subject.{field}: `{other}` is not text"));
                None
            }
        };
        let subject = Subject {
            common_name: attribute("common_name"),
            organization: attribute("organization"),
            organizational_unit: attribute("organizational_unit"),
            country: attribute("country"),
            state: attribute("state"),
            locality: attribute("locality"),
        };
        for field in given.keys() {
            let known = subject.attributes().map(|(name, ..)| name).join(", ");
            self.refuse(&format!("subject.{field}"), format_args!("is not known; it can be {known}"));
        }
        Some(subject)
    }

    fn csr(&mut self) -> Option<(String, Csr)> {
        let Value::String(pem) = self.take("csr")? else {
            self.refuse("csr", "is not text; give the CSR in PEM");
            return None;
        };
        if pem.len() > LONGEST_CSR {
            self.refuse("csr", format_args!("has more than the {LONGEST_CSR} characters that AWS Private CA takes"));
            return None;
        }
        match Csr::from_pem(&pem) {
            Ok(csr) => Some((pem, csr)),
            Err(error) => {
                self.refuse("csr", error);
                None
            }
        }
    }

    /// AWS Private CA copies subject and names from the CSR, so they are the CSR's; giving them beside it is allowed when they agree.
    fn of_csr(
        &mut self,
        csr: &Csr,
        subject: Option<Subject>,
        names: Option<BTreeSet<San>>,
        key_algorithm: Option<KeyAlgorithm>,
    ) -> (Subject, BTreeSet<San>, Option<KeyAlgorithm>) {
        let Csr { subject: asked, names: asked_names, key_algorithm: key, key_fingerprint: _, beyond_judgement } = csr;
        for part in beyond_judgement {
            self.refuse("csr", format_args!("{part}; only what the issuance policy can judge is signed"));
        }
        for (field, differs) in [
            ("subject", subject.is_some_and(|subject| subject != *asked)),
            ("subject_alternative_names", names.is_some_and(|names| names != *asked_names)),
            ("key_algorithm", key_algorithm.is_some_and(|algorithm| Some(algorithm) != *key)),
        ] {
            if differs {
                self.refuse(field, "is not what the CSR says; leave it out or make them agree");
            }
        }
        if key.is_none() {
            self.refuse("csr", format_args!("its key is not one of {}", KeyAlgorithm::ALL.map(KeyAlgorithm::as_str).join(", ")));
        }
        (asked.clone(), asked_names.clone(), *key)
    }

    /// `{"hours": 12}`, `{"days": 30}` or `{"end": "2027-01-01T00:00:00Z"}`.
    fn validity(&mut self, now: OffsetDateTime) -> (Option<Duration>, Option<OffsetDateTime>) {
        const FORMS: &str = "give one of {\"hours\": n}, {\"days\": n} and {\"end\": \"2027-01-01T00:00:00Z\"}";
        let Some(given) = self.take("validity") else { return (Some(DEFAULT_LIFETIME), None) };
        let one = given.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.iter().next());
        let counted = |value: &Value, unit: u64| {
            value.as_u64().filter(|n| (1..=100_000).contains(n)).map(|n| Duration::from_secs(n * unit))
        };
        let lifetime = match one.map(|(unit, value)| (unit.as_str(), value)) {
            Some(("hours", value)) => counted(value, 60 * 60),
            Some(("days", value)) => counted(value, 24 * 60 * 60),
            Some(("end", value)) => match value.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()) {
                Some(end) => match Duration::try_from(end - now) {
                    // Whole seconds, as a record keeps it.
                    Ok(left) => return (Some(Duration::from_secs(left.as_secs())), Some(end)),
                    Err(_) => {
                        self.refuse("validity.end", format_args!("{value} is past; give a later date"));
                        return (None, None);
                    }
                },
                None => None,
            },
            _ => None,
        };
        if lifetime.is_none() {
            self.refuse("validity", format_args!("{given} is not understood; {FORMS}"));
        }
        (lifetime, None)
    }

    fn certificate_authority(&mut self, policy: &Policy) -> Option<Arn> {
        const FIELD: &str = "certificate_authority_arn";
        let asked = match self.take(FIELD) {
            None => policy.issuing_ca.as_ref().map(|arn| policy.successors.active(arn).clone()),
            Some(value) => match value.as_str().unwrap_or_default().parse() {
                Ok(AuthorityArn(arn)) => Some(arn),
                Err(BadName(why)) => {
                    self.refuse(FIELD, why);
                    return None;
                }
            },
        };
        match asked {
            Some(arn) if policy.successors.of(&arn).is_some() => {
                let successor = policy.successors.active(&arn);
                self.refuse(
                    FIELD,
                    format_args!("{arn} is retired; leave it out, or name {successor}, which issues in its place"),
                );
                None
            }
            Some(arn)
                if policy.issuing_ca.as_ref() == Some(&arn)
                    || policy.other_cas.contains(&arn)
                    || policy.successors.all().contains(&arn) =>
            {
                Some(arn)
            }
            Some(arn) => {
                self.refuse(FIELD, format_args!("{arn} is not one of the stack's CAs; add it to the parameter AllowedCaArns"));
                None
            }
            None => {
                self.refuse(FIELD, "is missing and the stack has no issuing CA; set the parameter IssuingCaArn");
                None
            }
        }
    }

    /// The services to redeploy, and those whose agents reload.
    fn services(&mut self, callers_key: bool) -> (BTreeSet<ServiceName>, BTreeSet<ServiceName>) {
        let mut options = Options::default();
        let entries = match self.take("services") {
            None => Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                self.refuse("services", "is not a list such as [\"payments/orders\"]");
                Vec::new()
            }
        };
        for entry in entries {
            match service(&entry) {
                Ok(TaggedService { name, reload: Reload::Agent }) if callers_key => {
                    self.refuse("services", format_args!("`{name}` has an agent, which needs the key, and a CSR's is not here"));
                }
                Ok(service) => match options.add(service) {
                    Ok(true) => {}
                    Ok(false) => self.refuse("services", format_args!("{entry} stands twice")),
                    Err(BadName(why)) => self.refuse("services", why),
                },
                Err(Refusal { reasons }) => reasons.into_iter().for_each(|reason| self.refuse("services", reason)),
            }
        }
        (options.services, options.agent_services)
    }

    fn key_format(&mut self, callers_key: bool) -> KeyFormat {
        let Some(given) = self.take("key_format") else { return KeyFormat::default() };
        let format = match given.as_str() {
            Some("encrypted") => KeyFormat::Encrypted,
            Some("plain") => KeyFormat::Plain,
            _ => {
                self.refuse("key_format", format_args!("{given} is not one of \"encrypted\", \"plain\""));
                return KeyFormat::default();
            }
        };
        if callers_key {
            self.refuse("key_format", "has no meaning beside a CSR, whose key is not here; leave it out");
        }
        format
    }

    /// `true`, or the ARN of a certificate to reimport into.
    fn import(&mut self, callers_key: bool, usage: Usage) -> (bool, Option<Arn>) {
        const FIELD: &str = "import_to_acm";
        let wanted = match self.take(FIELD) {
            None | Some(Value::Bool(false)) => return (false, None),
            Some(Value::Bool(true)) => (true, None),
            Some(given) => match Arn::of(given.as_str().unwrap_or_default(), "acm", "certificate/") {
                Ok(arn) => (true, Some(arn)),
                Err(_) => {
                    self.refuse(FIELD, format_args!("{given} is neither true nor the ARN of a certificate in ACM"));
                    return (false, None);
                }
            },
        };
        if callers_key {
            self.refuse(FIELD, "has no meaning beside a CSR, whose key is not here; leave it out");
        } else if usage == Usage::Client {
            self.refuse(FIELD, "is for listeners, which are servers; set `usage` to `server` or `client-and-server`");
        }
        wanted
    }

    fn judge_subject(&mut self, subject: &Subject) {
        for (field, _, longest, value) in subject.attributes() {
            let Some(value) = value else { continue };
            let country = field == "country";
            if country && !(value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase())) {
                self.refuse("subject.country", format_args!("`{value}` is not a code of two capital letters, ISO 3166"));
            } else if value.is_empty()
                || value.chars().count() > longest
                || value.chars().any(char::is_control)
                || value.trim() != value
            {
                self.refuse(
                    &format!("subject.{field}"),
                    format_args!("`{value}` is not 1 to {longest} printable characters without space at its ends"),
                );
            }
        }
    }

    fn judge_names(&mut self, subject: &Subject, names: &BTreeSet<San>, policy: &Policy) {
        if subject.is_empty() && names.is_empty() && !self.is_refused("subject") {
            self.refuse(
                "subject",
                "is empty and there is no subject alternative name; name the certificate's holder in one of them",
            );
        }
        if let Some(common_name) = &subject.common_name
            && let Some(san) = reads_as(common_name)
            && let Some(why) = outside(&san, policy)
        {
            self.refuse("subject.common_name", why);
        }
        // Base64 makes four characters of three, and the key and the rest have 3 KB at most.
        let length: usize = names.iter().map(|san| san.to_string().len()).sum();
        if length > (LONGEST_CSR - 3072) / 3 * 2 {
            self.refuse("subject_alternative_names", "are more than a CSR holds that AWS Private CA takes; give fewer");
        }
        for san in names {
            if let Some(why) = outside(san, policy) {
                self.refuse("subject_alternative_names", why);
            }
        }
    }

    fn judge_key(&mut self, key_algorithm: Option<KeyAlgorithm>, policy: &Policy) {
        if let Some(key_algorithm) = key_algorithm
            && !policy.key_algorithms.contains(&key_algorithm)
            && !self.is_refused("key_algorithm")
        {
            let allowed: Vec<_> = policy.key_algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            self.refuse("key_algorithm", format_args!("{key_algorithm} is not allowed here; allowed are {}", allowed.join(", ")));
        }
    }

    fn judge_lifetime(&mut self, lifetime: Duration, renew_before: Option<Duration>, policy: &Policy) {
        if lifetime > policy.longest_validity {
            self.refuse(
                "validity",
                format_args!("{} is longer than the longest allowed, {}", in_words(lifetime), in_words(policy.longest_validity)),
            );
        }
        let window = renew_before.unwrap_or(lifetime / 3);
        let least = policy.sweep_interval * LEAST_SWEEPS;
        if window < least && !self.is_refused("renew_before") {
            let (field, remedy) = match renew_before {
                Some(_) => ("renew_before", "give more time"),
                None => ("validity", "give a longer one, or sweep more often"),
            };
            self.refuse(
                field,
                format_args!(
                    "leaves {} to renew in, less than three sweeps ({}), so that a renewal could come too late; {remedy}",
                    in_words(window),
                    in_words(least)
                ),
            );
        }
        if renew_before.is_some_and(|window| window >= lifetime) {
            self.refuse(
                "renew_before",
                format_args!("{} is not less than the lifetime, {}", in_words(window), in_words(lifetime)),
            );
        }
    }

    fn judge_services(&mut self, options: &Options) {
        let all = options.tagged_services().count();
        if all > MOST_SERVICES {
            self.refuse(
                "services",
                format_args!(
                    "are {all}, more than the {MOST_SERVICES} that one secret has tags for; spread them over several certificates"
                ),
            );
        }
        if let Some(canary) = options.canary.as_ref().filter(|canary| !options.services.contains(canary)) {
            self.refuse("canary", format_args!("`{canary}` is not one of the services that are redeployed; name it there too"));
        }
        for service in options.tagged_services().filter(|service| service.to_string().len() > LONGEST_TAG) {
            self.refuse("services", format_args!("`{service}` is longer than the {LONGEST_TAG} characters of a tag; shorten it"));
        }
    }
}

/// `"payments/orders"`, or `{"service": "payments/refunds", "reload": "agent"}`.
fn service(entry: &Value) -> Result<TaggedService, Refusal> {
    if let Value::String(name) = entry {
        let name = name.parse().map_err(|BadName(why)| Refusal::because(why))?;
        return Ok(TaggedService { name, reload: Reload::default() });
    }
    let mut fields = Fields::of(entry, "service", "service")?;
    let name = fields.required("service", "it as `cluster/service`");
    let reload = fields.text("reload").unwrap_or_default();
    fields.nothing_else("service, reload");
    match name {
        Some(name) if fields.reasons.is_empty() => Ok(TaggedService { name, reload }),
        _ => Err(Refusal { reasons: fields.reasons }),
    }
}

/// The name of another kind that a common name would be taken for: as a host's by whoever finds no other name in the leaf. Some
/// then pass over dots at its ends, let an asterisk stand for a part of a label, or compare as browsers write it, in any script.
fn reads_as(common_name: &str) -> Option<San> {
    // What else is a dot in a host's name, UTS #46.
    let written = common_name.replace(['\u{3002}', '\u{ff0e}', '\u{ff61}'], ".");
    let written = written.trim_matches('.');
    let of_host = |one: char| one.is_ascii_alphanumeric() || "-_.*".contains(one) || !one.is_ascii() && !one.is_whitespace();
    let top = written.rsplit('.').next().unwrap_or_default();
    if written.contains(['.', '*']) && written.chars().all(of_host) && !top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(San::Dns(written.to_ascii_lowercase()));
    }
    let ascii = written.replace(|one: char| !one.is_ascii(), "x");
    if let Ok(San::Email(_)) = format!("email:{ascii}").parse() {
        return Some(San::Email(written.to_ascii_lowercase()));
    }
    ["ip:", "uri:"].iter().find_map(|kind| format!("{kind}{written}").parse().ok())
}

/// Why a name is outside what the policy allows.
fn outside(san: &San, policy: &Policy) -> Option<String> {
    if let San::Uri(uri) = san {
        return match san.trust_domain() {
            _ if policy.trust_domains.is_empty() => None,
            Some(domain) if policy.trust_domains.contains(domain) => None,
            _ => {
                let allowed = policy.trust_domains.iter().cloned().collect::<Vec<_>>().join(", ");
                Some(format!("`{uri}` is not a SPIFFE ID of an allowed trust domain ({allowed})"))
            }
        };
    }
    if policy.names.is_empty() || policy.names.iter().any(|scope| scope.holds(san)) {
        return None;
    }
    let allowed: Vec<_> = policy.names.iter().map(ToString::to_string).collect();
    Some(format!("`{san}` is outside of what may be issued here ({})", allowed.join(", ")))
}

impl NameScope {
    fn holds(&self, san: &San) -> bool {
        let below =
            |name: &str, domain: &str| name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match (self, san) {
            (Self::Domain(domain), San::Dns(name)) => below(name, domain),
            (Self::Domain(domain), San::Email(address)) => address.rsplit_once('@').is_some_and(|(_, host)| below(host, domain)),
            (Self::Network(IpAddr::V4(network), length), San::Ip(IpAddr::V4(address))) => {
                let host = 32_u32.saturating_sub((*length).into());
                u32::from(*network).checked_shr(host).unwrap_or(0) == u32::from(*address).checked_shr(host).unwrap_or(0)
            }
            // Java takes an IPv4 address in the dress of IPv6 for the former.
            (Self::Network(IpAddr::V6(_), 0..96), San::Ip(IpAddr::V6(address))) if address.to_ipv4_mapped().is_some() => false,
            (Self::Network(IpAddr::V6(network), length), San::Ip(IpAddr::V6(address))) => {
                let host = 128_u32.saturating_sub((*length).into());
                u128::from(*network).checked_shr(host).unwrap_or(0) == u128::from(*address).checked_shr(host).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl FromStr for NameScope {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if let Some((address, length)) = text.split_once('/')
            && let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>())
            && length <= if address.is_ipv4() { 32 } else { 128 }
        {
            return Ok(Self::Network(address, length));
        }
        let domain = text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase();
        match is_dns_name(&domain) && !domain.starts_with('*') {
            true => Ok(Self::Domain(domain)),
            false => Err(BadName(format!("`{text}` is neither a domain such as example.com nor a network such as 10.0.0.0/8"))),
        }
    }
}

impl std::fmt::Display for NameScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(domain) => f.write_str(domain),
            Self::Network(address, length) => write!(f, "{address}/{length}"),
        }
    }
}

fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match minutes {
        _ if minutes.is_multiple_of(24 * 60) => format!("{} days", minutes / (24 * 60)),
        _ if minutes.is_multiple_of(60) => format!("{} hours", minutes / 60),
        _ => format!("{} hours {} minutes", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests;
