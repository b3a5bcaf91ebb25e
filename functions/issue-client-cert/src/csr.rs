//! The key and the CSR of an attempt: made once, and durable before anyone is asked to sign.

use lifecycle::attempt::Attempt;
use lifecycle::leaf::{KeyAlgorithm, Subject};
use lifecycle::names::San;
use lifecycle::record::{KeyFormat, Record, Specification};
use material::{Key, Waiting};
use rcgen::string::{Ia5String, PrintableString};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, RsaKeySize, SanType};
use records::Records;
use records::secrets::{KEY, Put};
use runtime::Failure;
use zeroize::Zeroizing;

/// The attempt's key and CSR. Where an earlier try has stored them, those are the ones.
pub(crate) async fn durable_key(
    records: &Records,
    record: &Record,
    wanted: &Specification,
    attempt: &Attempt,
) -> Result<Waiting, Failure> {
    let name = &record.name;
    let token = attempt.token(&records.settings.prefix, name, "key");
    let (specification, format, number) = (wanted.clone(), record.options.key_format, attempt.number);
    let make = move || make(&specification, format, number);
    let made = match wanted.key_algorithm {
        KeyAlgorithm::EcPrime256v1 | KeyAlgorithm::EcSecp384r1 => make(),
        // Those take long enough to make that nothing else should wait for them.
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string()).flatten()
        }
    };
    let waiting = made.map_err(|why| Failure::permanent(format!("make a key for `{name}`"), why))?;
    match records.put_version(name, &token, KEY, &waiting.text()).await? {
        Put::Written => Ok(waiting),
        Put::AlreadyThere => {
            let doing = || format!("read the key that waits in the secret of `{name}`, version {token}");
            let stored = records.value_of_version(name, &token).await?;
            let stored = stored.ok_or_else(|| Failure::retryable(doing(), "it is not there"))?;
            Waiting::read(&stored).map_err(|why| Failure::permanent(doing(), why))
        }
    }
}

fn make(wanted: &Specification, format: KeyFormat, attempt: u32) -> Result<Waiting, String> {
    let key = match wanted.key_algorithm {
        KeyAlgorithm::EcPrime256v1 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcSecp384r1 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    let key = key.map_err(|error| error.to_string())?;
    let mut request = CertificateParams::default();
    request.distinguished_name = distinguished_name(&wanted.subject)?;
    request.subject_alt_names = wanted.names.iter().map(alternative_name).collect::<Result<_, _>>()?;
    let csr = request.serialize_request(&key).and_then(|request| request.pem()).map_err(|error| error.to_string())?;
    let pkcs8 = Zeroizing::new(key.serialize_der());
    Ok(Waiting { key: Key::seal(&pkcs8, format)?, csr, attempt })
}

/// In the order in which distinguished names are usually written, the widest part first.
fn distinguished_name(subject: &Subject) -> Result<DistinguishedName, String> {
    let Subject { common_name, organization, organizational_unit, country, state, locality } = subject;
    let mut name = DistinguishedName::new();
    if let Some(country) = country {
        // RFC 5280, appendix A: X520countryName is a PrintableString.
        let country = PrintableString::try_from(country.as_str()).map_err(|error| error.to_string())?;
        name.push(DnType::CountryName, DnValue::PrintableString(country));
    }
    for (kind, value) in [
        (DnType::StateOrProvinceName, state),
        (DnType::LocalityName, locality),
        (DnType::OrganizationName, organization),
        (DnType::OrganizationalUnitName, organizational_unit),
        (DnType::CommonName, common_name),
    ] {
        if let Some(value) = value {
            name.push(kind, value.as_str());
        }
    }
    Ok(name)
}

fn alternative_name(san: &San) -> Result<SanType, String> {
    let ascii = |text: &str| Ia5String::try_from(text).map_err(|error| error.to_string());
    Ok(match san {
        San::Dns(name) => SanType::DnsName(ascii(name)?),
        San::Uri(uri) => SanType::URI(ascii(uri)?),
        San::Ip(address) => SanType::IpAddress(*address),
        San::Email(address) => SanType::Rfc822Name(ascii(address)?),
    })
}
