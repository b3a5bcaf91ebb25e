//! What `make bench` times of keys and certificates, built as the functions are. Prints a line of JSON for each operation and
//! algorithm: how many microseconds each run took.
#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::error::Error;
use std::time::Instant;

use lifecycle::record::KeyFormat;
use material::{Key, Material, Wanted};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize,
    SignatureAlgorithm,
};
use serde_json::json;
use time::OffsetDateTime;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ALGORITHMS: [(&str, &SignatureAlgorithm, Option<RsaKeySize>); 5] = [
    ("EC_prime256v1", &rcgen::PKCS_ECDSA_P256_SHA256, None),
    ("EC_secp384r1", &rcgen::PKCS_ECDSA_P384_SHA384, None),
    ("RSA_2048", &rcgen::PKCS_RSA_SHA256, Some(RsaKeySize::_2048)),
    ("RSA_3072", &rcgen::PKCS_RSA_SHA256, Some(RsaKeySize::_3072)),
    ("RSA_4096", &rcgen::PKCS_RSA_SHA256, Some(RsaKeySize::_4096)),
];

/// Takes a folder, into which it writes what it has used, for others to do the same work on.
fn main() -> Outcome<()> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).ok_or("give a folder")?);
    for (name, algorithm, size) in ALGORITHMS {
        let generate = || match size {
            Some(size) => KeyPair::generate_rsa_for(algorithm, size),
            None => KeyPair::generate_for(algorithm),
        };
        let key = generate()?;
        report("key", name, if size.is_some() { 12 } else { 300 }, || generate().map(drop).map_err(Into::into))?;
        let mut request = CertificateParams::new(vec!["orders.example.internal".to_owned()])?;
        request.distinguished_name.push(DnType::CommonName, "orders");
        report("CSR", name, 100, || request.serialize_request(&key)?.pem().map(drop).map_err(Into::into))?;

        let pkcs8 = key.serialize_der();
        report("PKCS#8 encrypted", name, 100, || Key::seal(&pkcs8, KeyFormat::Encrypted).map(drop).map_err(Into::into))?;
        let sealed = Key::seal(&pkcs8, KeyFormat::Encrypted)?;
        report("PKCS#8 decrypted", name, 100, || sealed.open().map(drop).map_err(Into::into))?;

        let mut material = chain(&generate, &key)?;
        #[expect(clippy::disallowed_methods, reason = "a program for the command line")]
        let now = OffsetDateTime::now_utc();
        // The key is found to be whole, and to belong to the leaf.
        report("pair verified", name, 100, || material.verify(&Wanted::Found, now).map(drop).map_err(Into::into))?;
        material.key = None;
        report("chain verified", name, 100, || material.verify(&Wanted::Found, now).map(drop).map_err(Into::into))?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        std::fs::write(folder.join(format!("{name}.pem")), &material.certificate)?;
        std::fs::write(folder.join(format!("{name}.chain.pem")), &material.certificate_chain)?;
    }
    Ok(())
}

/// A leaf with a chain of an issuing CA and a root, all keys of one algorithm.
fn chain(generate: &impl Fn() -> Result<KeyPair, rcgen::Error>, key: &KeyPair) -> Outcome<Material> {
    let authority = |name: &str| -> Outcome<_> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, name);
        Ok((params, generate()?))
    };
    let ((root, root_key), (issuing, issuing_key)) = (authority("Example Root CA")?, authority("Example Issuing CA")?);
    let root_pem = root.self_signed(&root_key)?.pem();
    let issuing_pem = issuing.signed_by(&issuing_key, &Issuer::new(root, root_key))?.pem();
    let mut leaf = CertificateParams::new(vec!["orders.example.internal".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "orders");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(key, &Issuer::new(issuing, issuing_key))?.pem();
    let key = Some(Key::seal(&key.serialize_der(), KeyFormat::Plain)?);
    Ok(Material { certificate, certificate_chain: issuing_pem + &root_pem, key })
}

fn report(operation: &str, algorithm: &str, runs: usize, mut work: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    let mut took = Vec::new();
    work()?;
    for _ in 0..runs {
        let began = Instant::now();
        work()?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    println!("{}", json!({"crypto": operation, "algorithm": algorithm, "us": took}));
    Ok(())
}
