//! The documents in Secrets Manager, and the keys in them.

use material::{Key, Material, Waiting, Wanted};
use secrecy::{ExposeSecret, SecretString};

use crate::{NOW, text};

fn secret(input: &[u8]) -> Option<SecretString> {
    text(input).map(SecretString::from)
}

fn parts(key: &Key) -> (&str, Option<&str>) {
    (key.pem.expose_secret(), key.passphrase.as_ref().map(ExposeSecret::expose_secret))
}

/// The secret of a certificate; what is in it, when it is a good pair.
pub(crate) fn accepted_material(input: &[u8]) -> Option<Material> {
    let material = Material::read(&secret(input)?).ok()??;
    let again = Material::read(&material.text()).expect("what was written can be read").expect("and is not empty");
    assert_eq!((&again.certificate, &again.certificate_chain), (&material.certificate, &material.certificate_chain));
    assert_eq!(again.key.as_ref().map(parts), material.key.as_ref().map(parts));
    material.verify(&Wanted::Found, NOW).ok()?;
    Some(material)
}

pub(crate) fn material(input: &[u8]) -> bool {
    accepted_material(input).is_some()
}

/// A key that waits for its certificate.
pub(crate) fn waiting(input: &[u8]) -> bool {
    let Some(Ok(waiting)) = secret(input).map(|text| Waiting::read(&text)) else { return false };
    let again = Waiting::read(&waiting.text()).expect("what was written can be read");
    assert_eq!((&again.csr, again.attempt, parts(&again.key)), (&waiting.csr, waiting.attempt, parts(&waiting.key)));
    true
}

/// A key in PEM, after its passphrase on a line of its own; an empty line where it has none.
pub(crate) fn key(input: &[u8]) -> bool {
    let Some((passphrase, pem)) = text(input).and_then(|text| text.split_once('\n')) else { return false };
    let passphrase = Some(passphrase).filter(|passphrase| !passphrase.is_empty()).map(SecretString::from);
    let Ok(opened) = (Key { pem: pem.into(), passphrase }).open() else { return false };
    for format in [lifecycle::record::KeyFormat::Plain, lifecycle::record::KeyFormat::Encrypted] {
        let Ok(sealed) = Key::seal(opened.as_bytes(), format) else { continue };
        assert_eq!(sealed.open().expect("what was sealed can be opened").as_bytes(), opened.as_bytes());
    }
    true
}
