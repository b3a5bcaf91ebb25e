//! What is not a good pair is never accepted: each thing that can be wrong with one, made from real ones.

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::leaf::{KeyAlgorithm, Serial, Usage};
use lifecycle::record::{KeyFormat, Specification};
use material::{Key, Material, Wanted};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;
use workflow::Stack;

use crate::scenario::run;

/// The current pair of a certificate, and what it was to be.
async fn pair(stack: &Stack, name: &str) -> (Material, Specification, OffsetDateTime) {
    let (_, text) = stack.records().value_at_stage(&name.parse().unwrap(), "AWSCURRENT").await.unwrap().unwrap();
    let record = stack.record(name).await.unwrap();
    let not_after = *record.current.as_ref().unwrap().not_after;
    (Material::read(&text).unwrap().unwrap(), record.specification().unwrap().clone(), not_after)
}

fn copy(material: &Material) -> Material {
    let key = material.key.as_ref().map(|key| Key { pem: key.pem.clone(), passphrase: key.passphrase.clone() });
    Material { certificate: material.certificate.clone(), certificate_chain: material.certificate_chain.clone(), key }
}

#[test]
fn each_thing_that_can_be_wrong_with_a_pair_is_found() {
    run(async {
        let stack = Stack::deploy().await;
        for (name, usage) in [("one", "client"), ("two", "client-and-server")] {
            let request = json!({"name": name, "usage": usage, "subject": {"common_name": name}, "subject_alternative_names": ["dns:a.example.com"]});
            stack.handle("issue-client-cert", request, name).await.unwrap();
        }
        let ((good, specification, not_after), (other, ..)) = (pair(&stack, "one").await, pair(&stack, "two").await);
        let now = stack.aws.now();
        let wanted = |specification| Wanted::Issued { specification, not_after, key_fingerprint: None };
        let leaf = good.verify(&wanted(&specification), now).unwrap();
        let refused = |material: Material, says: &str| {
            let why = material.verify(&wanted(&specification), now).expect_err(says);
            assert!(why.contains(says), "`{says}` is not in: {why}");
        };

        refused(Material { key: copy(&other).key, ..copy(&good) }, "does not belong to the certificate");
        let wrong = good
            .key
            .as_ref()
            .map(|key| Key { pem: key.pem.clone(), passphrase: copy(&other).key.and_then(|key| key.passphrase) });
        refused(Material { key: wrong, ..copy(&good) }, "the passphrase does not open the private key");
        let bare = good.key.as_ref().map(|key| Key { pem: key.pem.clone(), passphrase: None });
        refused(Material { key: bare, ..copy(&good) }, "no passphrase beside it");
        refused(Material { certificate: copy(&other).certificate, ..copy(&good) }, "does not belong");
        refused(Material { certificate: "no PEM".to_owned(), ..copy(&good) }, "not readable");
        refused(
            Material { certificate: good.certificate.clone() + &other.certificate, ..copy(&good) },
            "2 certificates in place of one leaf",
        );

        let end = "-----END CERTIFICATE-----\n";
        let (issuing, root) =
            good.certificate_chain.split_once(end).map(|(issuing, root)| (issuing.to_owned() + end, root.to_owned())).unwrap();
        let chain = |chain: String| Material { certificate_chain: chain, ..copy(&good) };
        refused(chain(String::new()), "there is no chain");
        refused(chain(root.clone() + &issuing), "out of order");
        refused(chain(root.clone()), "out of order");
        refused(chain(issuing.clone()), "out of order");
        // ACM's may end below the root, as public ones do; in order it has to be all the same.
        let exported = Wanted::Exported { serial: &leaf.serial };
        assert_eq!(chain(issuing.clone()).verify(&exported, now).unwrap(), leaf);
        for (wrong, says) in
            [(String::new(), "there is no chain"), (root.clone() + &issuing, "out of order"), (root.clone(), "out of order")]
        {
            let why = chain(wrong).verify(&exported, now).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        refused(chain(issuing + &root + good.key.as_ref().unwrap().pem.expose_secret()), "among the certificates");

        // One bit of the leaf's signature.
        let mut der = good.certificate.clone().into_bytes();
        let last = good.certificate.find("\n-----END").unwrap() - 6;
        der[last] = if der[last] == b'A' { b'B' } else { b'A' };
        let forged = Material { certificate: String::from_utf8(der).unwrap(), ..copy(&good) };
        refused(forged, "the chain does not verify");

        for (at, says) in
            [(leaf.not_after + time::Duration::SECOND, "does not verify"), (leaf.not_before - time::Duration::hours(2), "")]
        {
            let why = good.verify(&wanted(&specification), at).expect_err("its time has not come, or has gone");
            assert!(why.contains(says), "{why}");
        }
        let asked = |change: fn(&mut Specification), says: &str| {
            let mut specification = specification.clone();
            change(&mut specification);
            let wanted = Wanted::Issued { specification: &specification, not_after, key_fingerprint: None };
            let why = good.verify(&wanted, now).expect_err(says);
            assert_eq!(why, format!("its {says} is not what was asked for"));
        };
        asked(|wanted| wanted.subject.common_name = Some("two".to_owned()), "subject");
        asked(|wanted| wanted.subject.country = Some("DE".to_owned()), "subject");
        asked(|wanted| wanted.names = BTreeSet::new(), "subject alternative names");
        asked(|wanted| wanted.names = ["dns:b.example.com".parse().unwrap()].into(), "subject alternative names");
        asked(|wanted| wanted.key_algorithm = KeyAlgorithm::EcSecp384r1, "key algorithm");
        asked(|wanted| wanted.usage = Usage::Server, "extended key usage");
        let ends =
            |by: Duration| Wanted::Issued { specification: &specification, not_after: not_after + by, key_fingerprint: None };
        assert!(good.verify(&ends(Duration::from_secs(30)), now).is_ok());
        assert_eq!(good.verify(&ends(Duration::from_secs(90)), now).unwrap_err(), "its expiry is not what was asked for");
        let key = Wanted::Issued { specification: &specification, not_after, key_fingerprint: Some("00") };
        assert_eq!(good.verify(&key, now).unwrap_err(), "its key is not what was asked for");
        assert!(good.verify(&Wanted::Exported { serial: &leaf.serial }, now).is_ok());
        assert!(good.verify(&Wanted::Exported { serial: &Serial::from_hex("ab") }, now).unwrap_err().contains("not ab"));
        // Found long after it expired, it was a good pair; made to wait, it is due.
        assert!(good.verify(&Wanted::Found, leaf.not_after + time::Duration::days(30)).is_ok());
    });
}

#[test]
fn a_key_reads_back_the_same_in_either_form_and_says_nothing_of_itself() {
    run(async {
        let stack = Stack::deploy().await;
        let request = json!({"name": "one", "key_algorithm": "RSA_2048", "subject": {"common_name": "one"}});
        stack.handle("issue-client-cert", request, "one").await.unwrap();
        let (material, ..) = pair(&stack, "one").await;
        let key = material.key.as_ref().unwrap();
        let plain = Key::seal(key.open().unwrap().as_bytes(), KeyFormat::Plain).unwrap();
        let again = copy(&material).key.unwrap().reseal(KeyFormat::Plain).unwrap().reseal(KeyFormat::Encrypted).unwrap();
        for form in [&plain, &again] {
            assert_eq!(form.open().unwrap().as_bytes(), key.open().unwrap().as_bytes());
        }
        assert_ne!(again.pem.expose_secret(), key.pem.expose_secret(), "a fresh salt each time");
        assert!(!format!("{:?} {:?}", key.pem, key.passphrase).contains(key.pem.expose_secret().lines().nth(1).unwrap()));
    });
}
