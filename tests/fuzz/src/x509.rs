//! Certificates, CSRs and CRLs: of callers, of AWS, and of whoever may write into the bucket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifecycle::authority::{self, Authority, Crl};
use lifecycle::bundle::{Bundle, Extra, MOST_AUTHORITIES};
use lifecycle::leaf::{Csr, Leaf};
use serde_json::json;

use crate::requests::judge;
use crate::{NOW, text};

/// PEM as it stands, or the DER in it: most of what is wrong with a certificate is behind its Base64.
fn pem(label: &str, input: &[u8]) -> Option<String> {
    match input.starts_with(b"-----") || input.starts_with(b"#") {
        true => text(input).map(str::to_owned),
        false => {
            let lines: Vec<_> =
                BASE64.encode(input).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            Some(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")))
        }
    }
}

/// A caller's CSR; its text, when it is accepted.
pub(crate) fn accepted_csr(input: &[u8]) -> Option<String> {
    let pem = pem("CERTIFICATE REQUEST", input)?;
    if let Ok(csr) = Csr::from_pem(&pem) {
        assert_eq!(csr.key_fingerprint.len(), 64);
    }
    judge(&json!({"name": "orders", "csr": pem})).then_some(pem)
}

pub(crate) fn csr(input: &[u8]) -> bool {
    accepted_csr(input).is_some()
}

pub(crate) fn leaf(input: &[u8]) -> bool {
    let Some(pem) = pem("CERTIFICATE", input) else { return false };
    let Ok(leaf) = Leaf::from_pem(&pem) else { return false };
    assert!(leaf.serial.as_str().is_empty() || leaf.serial.as_str().parse() == Ok(leaf.serial.clone()), "{leaf:?}");
    for name in &leaf.names {
        assert_eq!(name.to_string().parse().as_ref(), Ok(name));
    }
    let whole = std::time::Duration::try_from(leaf.not_after - leaf.not_before).unwrap_or_default();
    assert!(leaf.lifetime() <= whole, "{leaf:?}");
    true
}

/// The PEM of several certificates: a CA's chain as AWS gives it, and the bundle that is made of it.
pub(crate) fn chain(input: &[u8]) -> bool {
    let Some(pem) = pem("CERTIFICATE", input) else { return false };
    let Ok(chain) = authority::certificates(&pem) else { return false };
    let again = material::certificates(&pem).expect("both readers take the same text");
    assert!(again.iter().map(AsRef::as_ref).eq(chain.iter().map(Vec::as_slice)));

    let bundle = Bundle::of(&[chain], &[], &[], NOW);
    if bundle.unfit().is_some() {
        return false;
    }
    let held = authority::certificates(&bundle.pem()).expect("a bundle can be read");
    assert!(held.len() <= MOST_AUTHORITIES && bundle.fingerprints().len() == held.len());
    // The bundle of a bundle is the same, whatever order the certificates came in.
    assert_eq!(Bundle::of(&[held.into_iter().rev().collect()], &[], &[], NOW).authorities, bundle.authorities);
    true
}

/// An object under `trust/extra/`.
pub(crate) fn extra(input: &[u8]) -> bool {
    let extra = |body: &[u8]| Extra { key: "trust/extra/clients/ca.pem".to_owned(), body: body.to_vec() }.read(NOW);
    let Some(pem) = pem("CERTIFICATE", input) else { return false };
    let mut accepted = false;
    // As it stands, too: bytes that are no text are the object's to refuse.
    for read in [extra(input), extra(pem.as_bytes())] {
        let Ok(authority) = read else { continue };
        assert_eq!(extra(authority.pem().as_bytes()).as_ref(), Ok(&authority));
        assert_eq!(Authority::judge(&authority.der, NOW).as_ref(), Ok(&authority));
        assert!(!authority.to_string().contains(char::is_control));
        accepted = true;
    }
    accepted
}

pub(crate) fn crl(input: &[u8]) -> bool {
    let Ok(crl) = Crl::read(input) else { return false };
    assert_eq!(Crl::read(crl.pem().as_bytes()).as_ref(), Ok(&crl));
    assert!(crl.number.bytes().all(|digit| digit.is_ascii_digit()), "{}", crl.number);
    true
}
