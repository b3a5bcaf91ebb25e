use std::io::Write;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

use super::*;
use crate::authority::certificates;
use crate::samples::{Ca, at, authority, below, ca, root};

const NOW: &str = "2027-01-01T00:00:00Z";

/// Objects whose keys are in the order of their bodies.
fn extras(bodies: &[Vec<u8>]) -> Vec<Extra> {
    let key = |index| format!("trust/extra/clients/{index:02}.pem");
    bodies.iter().enumerate().map(|(index, body)| Extra { key: key(index), body: body.clone() }).collect()
}

fn chain(cas: &[&Ca]) -> Vec<Vec<u8>> {
    cas.iter().map(|ca| ca.der().to_vec()).collect()
}

fn one(body: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
    vec![body.as_ref().to_vec()]
}

fn files(cas: &[&Ca]) -> Vec<Vec<u8>> {
    cas.iter().map(|ca| ca.pem().into_bytes()).collect()
}

/// A CA of `tests-data/authorities.pem` as a file.
fn file(name: &str) -> String {
    format!("{}\n", authority(name).trim_end())
}

fn der(name: &str) -> Vec<u8> {
    certificates(authority(name)).unwrap().remove(0)
}

fn pem(der: &[u8], width: usize) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> = (0..base64.len()).step_by(width).map(|at| &base64[at..base64.len().min(at + width)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// [`ca`] with changes.
fn with(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = ca("Odd");
    change(&mut params);
    params
}

fn at_most(below: u8, name: &str) -> CertificateParams {
    let mut params = ca(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params
}

fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// The last object alone is refused, for this reason: the declared CA and the objects before it are in the bundle.
fn assert_last_is_refused(what: &str, bodies: &[Vec<u8>], declared: &Ca, why: &str) {
    let bundle = Bundle::of(&[chain(&[declared])], &extras(bodies), &[], at(NOW));
    let [refused] = &bundle.refused[..] else { panic!("{what}: {:#?}", bundle.refused) };
    let key = &extras(bodies)[bodies.len() - 1].key;
    assert!(refused.what.starts_with(key) && refused.why.contains(why), "{what}: {refused}");
    assert_eq!((bundle.authorities.len(), bundle.unfit()), (bodies.len(), None), "{what}");
    assert!(bundle.authorities.iter().any(|known| known.der == **declared.der()), "{what}");
}

#[test]
fn an_object_that_is_not_the_file_of_one_certificate_is_refused_and_the_rest_stays() {
    let declared = root(ca("Declared"));
    let good = &file("plain");
    let der = &der("plain");
    let key = KeyPair::generate().unwrap().serialize_pem();
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let end = "-----END CERTIFICATE-----\n";
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    let cut = &good[..good.len() - end.len()];
    for (what, body, why) in [
        ("nothing", vec![], "it is empty"),
        ("a large file", format!("{good}{:#<1$}", "", LARGEST_OBJECT + 1 - good.len()).into(), "it has more than 65536 bytes"),
        ("nothing but space", b" \n\n".to_vec(), "it is empty"),
        ("a word", b"clients\n".to_vec(), "line 1: it is neither PEM nor a comment"),
        ("a page of HTML", b"<html>\n<body>404</body>\n".to_vec(), "line 1: it is neither PEM nor a comment"),
        ("comments alone", b"# to come\n".to_vec(), "there is no certificate in it"),
        ("a CSR", file("csr").into(), "it holds a `CERTIFICATE REQUEST`; put the PEM block CERTIFICATE of a CA into it"),
        ("a CRL", file("crl-plain").into(), "it holds a `X509 CRL`"),
        ("PKCS#7", file("pkcs7").into(), "it holds a `PKCS7`"),
        ("OpenSSL's own form", file("trusted").into(), "it holds a `TRUSTED CERTIFICATE`"),
        ("a private key", key.clone().into(), "it holds a `PRIVATE KEY`: delete it, and take the key for lost"),
        ("a private key with a name", key.replace("PRIVATE", "EC PRIVATE").into(), "it holds a `EC PRIVATE KEY`: delete it"),
        ("a CA with its key", format!("{good}{key}").into(), "take the key for lost"),
        ("a private key of Windows", key.replace('\n', "\r\n").into(), "take the key for lost"),
        ("DER", der.clone(), "it is DER; convert it"),
        ("UTF-8 with a mark", [b"\xef\xbb\xbf", good.as_bytes()].concat(), "it begins with a byte order mark"),
        ("UTF-16 of Windows", [vec![0xff, 0xfe], utf16(u16::to_le_bytes)].concat(), "it is UTF-16"),
        ("UTF-16 of others", [vec![0xfe, 0xff], utf16(u16::to_be_bytes)].concat(), "it is UTF-16"),
        ("UTF-16 without a mark", utf16(u16::to_le_bytes), "line 1: it is neither PEM nor a comment"),
        ("a comment beyond ASCII", format!("# Zürich\n{good}").into(), "it holds something other than ASCII"),
        ("a comment in Latin-1", [b"# Z\xfcrich\n", good.as_bytes()].concat(), "it holds something other than ASCII"),
        ("CR LF", good.replace('\n', "\r\n").into(), "its lines end in CR LF"),
        ("one CR LF", good.replacen('\n', "\r\n", 1).into(), "its lines end in CR LF"),
        ("a comment with a dash", format!("# CA - old\n{good}").into(), "line 1: it is a comment with a `-` in it"),
        ("a comment with a dash below", format!("{good}# CA - old\n").into(), "it is a comment with a `-` in it"),
        ("a comment in the block", good.replacen('\n', "\n# here\n", 1).into(), "line 2: there is a comment within"),
        ("an indented comment", format!(" # here\n{good}").into(), "line 1: it is neither PEM nor a comment"),
        ("a blank line above", format!("\n{good}").into(), "line 1: it is blank"),
        ("a blank line between", format!("# CA\n\n{good}").into(), "line 2: it is blank"),
        ("a blank line in the block", good.replacen('\n', "\n\n", 1).into(), "line 2: it is blank"),
        ("a blank line below", format!("{good}\n").into(), "it is blank"),
        ("OpenSSL's text above", format!("Certificate:\n    Data:\n{good}").into(), "line 1: it is neither PEM nor a comment"),
        ("text below", format!("{good}That was it.\n").into(), "it is neither PEM nor a comment"),
        ("a NUL below", format!("{good}\0").into(), "it is neither PEM nor a comment"),
        ("four dashes", good.replace("-----", "----").into(), "line 1: it is neither PEM nor a comment"),
        ("a space after the first line", good.replacen('\n', " \n", 1).into(), "line 1: it is neither PEM nor a comment"),
        ("two certificates", format!("{good}{}", file("rsa-sha256")).into(), "there are 2 certificates in it"),
        ("no end", cut.into(), "it was cut off"),
        ("half an end", good[..good.len() - 6].into(), "it was cut off"),
        ("no begin", good[begin.len()..].into(), "line 1: it is neither PEM nor a comment"),
        ("a begin within", format!("{cut}{good}").into(), "a certificate begins before the last one has ended"),
        ("no lines between", format!("{begin}{end}").into(), "it is not readable"),
        ("a line missing", good.replacen(&good[begin.len()..begin.len() + 65], "", 1).into(), "it is not readable"),
        ("no Base64", good.replace('M', "!").into(), "its certificate is not Base64"),
        ("a space before a line", format!("{begin} {}", &good[begin.len()..]).into(), "its certificate is not Base64"),
        ("padding within", good.replacen("\nM", "\n=", 1).into(), "its certificate is not Base64"),
        ("headers", good.replacen('\n', "\nProc-Type: 4\n", 1).into(), "its certificate is not Base64"),
        ("a byte after the DER", pem(&[der.as_slice(), &[0]].concat(), 64).into(), "something follows the certificate"),
        ("a byte less of the DER", pem(&der[..der.len() - 1], 64).into(), "it is not readable"),
        ("no DER", pem(b"0 is no certificate", 64).into(), "it is not readable"),
    ] {
        assert_last_is_refused(what, &one(body), &declared, why);
    }
}

#[test]
fn a_certificate_that_alb_does_not_take_is_refused_and_the_rest_stays() {
    let declared = root(ca("Declared"));
    let made = |params: CertificateParams| root(params).pem();
    let octets = |n: u16| [[0x04, 0x82].as_slice(), &n.to_be_bytes(), &vec![0; n.into()]].concat();
    let two_algorithms = {
        let (mut der, sha256) = (der("plain"), [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
        let last = der.windows(8).rposition(|window| window == sha256).unwrap();
        der[last + 7] = 0x03;
        pem(&der, 64)
    };
    let tampered = {
        let (mut der, name) = (der("rsa-sha256"), b"rsa-sha256");
        for at in 0..der.len() - name.len() {
            if der[at..].starts_with(name) {
                der[at] = b'R';
            }
        }
        pem(&der, 64)
    };
    let signature_is_not_its_own = "its signature is not its own key's";
    for (what, file, why) in [
        ("a leaf", file("leaf"), "it is not a CA's: its basic constraints do not say so"),
        ("without basic constraints", made(with(|ca| ca.is_ca = IsCa::NoCa)), "it is not a CA's"),
        ("X.509 version 1", file("version-1"), "it is not of X.509 version 3"),
        ("expired", made(with(|ca| ca.not_after = at("2026-12-31T00:00:00Z"))), "it expired 2026-12-31 00:00 UTC"),
        ("expired this second", made(with(|ca| ca.not_after = at(NOW))), "it expired 2027-01-01 00:00 UTC"),
        ("not yet valid", made(with(|ca| ca.not_before = at("2027-01-01T00:00:01Z"))), "it is not valid before 2027-01-01"),
        (
            "may not sign certificates",
            made(with(|ca| ca.key_usages = vec![KeyUsagePurpose::CrlSign])),
            "its key usage does not allow it to sign certificates",
        ),
        (
            "for servers alone",
            made(with(|ca| ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            "its extended key usage leaves out client authentication",
        ),
        (
            "for code alone",
            made(with(|ca| ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
            "its extended key usage leaves out client authentication",
        ),
        ("an RSA key of 1024 bits", file("rsa-1024"), "its RSA key has 1024 bits"),
        ("an RSA key of 2046 bits", file("rsa-2046"), "its RSA key has 2046 bits"),
        ("an RSA key of 8194 bits", file("rsa-8194"), "its RSA key has 8194 bits"),
        ("an RSA key for PSS alone", file("pss-key"), "its key is neither RSA nor EC"),
        ("an Ed25519 key", file("ed25519"), "its key is neither RSA nor EC"),
        ("a key on secp256k1", file("secp256k1"), "its EC key is on a curve other than"),
        ("a key on brainpoolP256r1", file("brainpool"), "its EC key is on a curve other than"),
        ("a key on a curve of its own words", file("P256-explicit"), "its EC key is on a curve other than"),
        ("MD5", file("rsa-md5"), "it is signed by the algorithm 1.2.840.113549.1.1.4"),
        ("SHA-1", file("rsa-sha1"), "it is signed by the algorithm 1.2.840.113549.1.1.5"),
        ("ECDSA with SHA-1", file("P256-sha1"), "it is signed by the algorithm 1.2.840.10045.4.1"),
        ("ECDSA with SHA-224", file("P256-sha224"), "it is signed by the algorithm 1.2.840.10045.4.3.1"),
        ("ECDSA with SHA-3", file("P256-sha3"), "it is signed by the algorithm 2.16.840.1.101.3.4.3.10"),
        ("RSASSA-PSS with SHA-1", file("pss-sha1"), "it is signed by the algorithm 1.2.840.113549.1.1.10"),
        ("RSASSA-PSS with a short salt", file("pss-salt"), signature_is_not_its_own),
        ("two signature algorithms", two_algorithms, "it names two different signature algorithms"),
        ("name constraints", file("name-constraints"), "it has name constraints"),
        ("policy constraints", file("policy-constraints"), "it has the critical extension 2.5.29.36"),
        (
            "an unknown critical extension",
            made(with(|ca| ca.custom_extensions = vec![extension(&[1, 2, 3, 4], true, &[5, 0])])),
            "it has the critical extension 1.2.3.4",
        ),
        (
            "an unreadable extension",
            made(with(|ca| {
                ca.key_usages.clear();
                ca.custom_extensions = vec![extension(&[2, 5, 29, 15], false, &[5, 0])];
            })),
            "its extension 2.5.29.15 is not readable",
        ),
        (
            "an extension twice",
            made(with(|ca| ca.custom_extensions = vec![extension(&[2, 5, 29, 19], true, &[0x30, 3, 1, 1, 0xff])])),
            "it has the extension 2.5.29.19 twice",
        ),
        ("an empty subject", made(with(|ca| ca.distinguished_name = DistinguishedName::new())), "its subject is empty"),
        ("a negative serial number", file("negative-serial"), "its serial number is negative"),
        (
            "17 KiB",
            made(with(|ca| ca.custom_extensions = vec![extension(&[1, 2, 3, 4], false, &octets(12_500))])),
            "bytes, more than the 16384 that ALB takes",
        ),
        ("tampered", tampered, signature_is_not_its_own),
        (
            "a root signed by another key",
            Ca::signed_by(ca("Root"), KeyPair::generate().unwrap(), &root(ca("Root"))).unwrap().pem(),
            signature_is_not_its_own,
        ),
    ] {
        assert_last_is_refused(what, &one(file), &declared, why);
    }
}

#[test]
fn a_certificate_that_does_not_fit_in_with_the_others_is_refused_and_they_stay() {
    let declared = root(ca("Declared"));
    let (top, other) = (root(ca("Root")), root(ca("Other")));
    let middle = below(&top, ca("Middle"));
    let low = below(&middle, ca("Low"));
    let forged = below(&root(ca("Root")), ca("Forged"));
    let crossed = Ca::signed_by(ca("Other"), KeyPair::generate().unwrap(), &top).unwrap();
    let (none_below, one_below) = (root(at_most(0, "None below")), root(at_most(1, "One below")));
    let narrow = below(&top, at_most(0, "Narrow"));
    let wide = below(&one_below, ca("Wide"));
    let boastful = below(&one_below, at_most(3, "Boastful"));
    let twenty_five: Vec<Ca> = (0..25).map(|n| root(ca(&format!("CA {n}")))).collect();
    let long_names = ["a", "b", "c", "d"].map(|letter| root(ca(&letter.repeat(3000))));
    let no_issuer = "no CA of this trust store has issued it; put its issuers into the store too";
    let path_length = "the path length of its issuer allows no CA below it";
    for (what, bodies, why) in [
        (
            "the same as an object",
            [files(&[&top]), one(top.pem())].concat(),
            "it is the same certificate as trust/extra/clients/00.pem",
        ),
        ("the same as a declared CA", one(declared.pem()), "it is the same certificate as a declared CA"),
        (
            "the same as a declared CA in another form",
            one(format!("# mine\n{}", pem(declared.der(), 76))),
            "it is the same certificate as a declared CA: `CN=Declared` (SHA-256 ",
        ),
        ("an intermediate without its root", one(middle.pem()), no_issuer),
        ("two steps below the root, without the step between", files(&[&top, &low]), no_issuer),
        ("the right issuer's name, another's key", files(&[&top, &forged]), no_issuer),
        ("cross-signed, with the root of its name alone", files(&[&other, &crossed]), no_issuer),
        (
            "five certificates with the leaf",
            files(&[&top, &middle, &low, &below(&low, ca("Lowest"))]),
            "its chain has more than four certificates with the leaf",
        ),
        ("below a root that allows none", files(&[&none_below, &below(&none_below, ca("Below"))]), path_length),
        ("below an intermediate that allows none", files(&[&top, &narrow, &below(&narrow, ca("Below"))]), path_length),
        ("two below a root that allows one", files(&[&one_below, &wide, &below(&wide, ca("Below"))]), path_length),
        (
            "two below a root that allows one, the first allowing three",
            files(&[&one_below, &boastful, &below(&boastful, ca("Below"))]),
            path_length,
        ),
        (
            "the twenty-sixth",
            files(&twenty_five.iter().collect::<Vec<_>>()),
            "there is no room for it: its CAs and their chains are 26 certificates, and a trust store holds 25; delete another",
        ),
        (
            "too long a name",
            files(&long_names.each_ref()),
            "there is no room for it: the subjects of its CAs have 12105 bytes together, and ALB takes 10000; delete another",
        ),
    ] {
        assert_last_is_refused(what, &bodies, &declared, why);
    }
}

/// What is in the bundle beside the declared CA: every object.
fn assert_all_are_taken(what: &str, bodies: &[Vec<u8>]) -> Bundle {
    let declared = root(ca("Declared"));
    let bundle = Bundle::of(&[chain(&[&declared])], &extras(bodies), &[], at(NOW));
    assert_eq!((bundle.refused.as_slice(), bundle.unfit()), (&[][..], None), "{what}");
    assert_eq!(bundle.authorities.len(), bodies.len() + 1, "{what}");
    bundle
}

#[test]
fn an_odd_object_that_alb_takes_is_in_the_bundle_in_the_one_form() {
    let good = &file("plain");
    let der = &der("plain");
    for (what, body) in [
        ("comments", format!("# of the payments team\n#\n{good}# until 2030\n")),
        ("as many comments as there is room for", format!("{good}{:#<1$}", "", LARGEST_OBJECT - good.len())),
        ("no final newline", good.trim_end().to_owned()),
        ("one line of Base64", pem(der, 10_000)),
        ("lines of 76", pem(der, 76)),
        ("lines of one", pem(der, 1)),
    ] {
        let bundle = assert_all_are_taken(what, &one(body));
        assert!(bundle.pem().contains(good), "{what}");
    }
}

#[test]
fn every_key_and_signature_that_alb_documents_is_taken() {
    for name in [
        "rsa-sha256",
        "rsa-sha384",
        "rsa-sha512",
        "rsa-8192",
        "pss-sha256",
        "pss-sha384",
        "pss-sha512",
        "P256-sha256",
        "P256-sha384",
        "P256-sha512",
        "P384-sha256",
        "P384-sha384",
        "P384-sha512",
        "P521-sha256",
        "P521-sha384",
        "P521-sha512",
    ] {
        assert_all_are_taken(name, &one(file(name)));
    }
}

#[test]
fn odd_certificates_and_sets_that_alb_takes_are_in_the_bundle() {
    let made = |params: CertificateParams| one(root(params).pem());
    let (top, other) = (root(ca("Root")), root(ca("Other")));
    let key = |ca: &Ca| KeyPair::try_from(ca.key().serialized_der()).unwrap();
    let renewed = |ca: &Ca, params: CertificateParams| Ca::self_signed(params, key(ca)).unwrap();
    let crossed = Ca::signed_by(ca("Other"), key(&other), &top).unwrap();
    let namesake = root(ca("Root"));
    let rekeyed = Ca::signed_by(ca("Root"), key(&namesake), &top).unwrap();
    let middle = below(&top, ca("Middle"));
    let low = below(&middle, ca("Low"));
    let one_below = root(at_most(1, "One below"));
    let wide = below(&one_below, ca("Wide"));
    let narrow = root(at_most(0, "Narrow"));
    let twenty_four: Vec<Ca> = (0..24).map(|n| root(ca(&format!("CA {n}")))).collect();
    let mut later = ca("Root");
    later.not_after = at("2029-01-01T00:00:00Z");
    for (what, bodies) in [
        ("a root without key usage", made(with(|ca| ca.key_usages.clear()))),
        ("for any use", made(with(|ca| ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]))),
        (
            "for clients and servers",
            made(with(|ca| {
                ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            })),
        ),
        (
            "basic constraints that are not critical",
            made(with(|ca| {
                ca.is_ca = IsCa::NoCa;
                ca.custom_extensions = vec![extension(&[2, 5, 29, 19], false, &[0x30, 3, 1, 1, 0xff])];
            })),
        ),
        ("an unknown extension", made(with(|ca| ca.custom_extensions = vec![extension(&[1, 2, 3, 4], false, &[5, 0])]))),
        ("valid from this second", made(with(|ca| ca.not_before = at(NOW)))),
        ("valid to the next second", made(with(|ca| ca.not_after = at("2027-01-01T00:00:01Z")))),
        ("a serial number of twenty bytes", made(with(|ca| ca.serial_number = Some(SerialNumber::from_slice(&[0x7f; 20]))))),
        ("a subject beyond ASCII", made(ca("Zürich"))),
        (
            "a subject without a common name",
            made(with(|ca| {
                ca.distinguished_name = DistinguishedName::new();
                ca.distinguished_name.push(DnType::OrganizationName, "Example");
            })),
        ),
        ("cross-signed, with both issuers", files(&[&top, &other, &crossed])),
        ("cross-signed, with the other issuer alone", files(&[&top, &crossed, &below(&other, ca("Below"))])),
        ("one name, two keys", files(&[&top, &namesake, &middle, &below(&namesake, ca("Below"))])),
        ("renewed with its key", files(&[&top, &renewed(&top, later)])),
        ("rekeyed, the new key signed by the old one", files(&[&top, &rekeyed, &below(&namesake, ca("Below"))])),
        ("four certificates with the leaf", files(&[&top, &middle, &low])),
        ("issuers after what they issued", files(&[&low, &middle, &top])),
        (
            "short by one way and long by the other",
            files(&[
                &top,
                &middle,
                &low,
                &crossed,
                &Ca::signed_by(ca("Low"), key(&low), &top).unwrap(),
                &below(&low, ca("Lowest")),
            ]),
        ),
        ("one below a root that allows one", files(&[&one_below, &below(&one_below, at_most(0, "Below"))])),
        (
            "below a root of two certificates, one of which allows none",
            files(&[&narrow, &renewed(&narrow, ca("Narrow")), &below(&narrow, ca("Below"))]),
        ),
        (
            "two below a root of two certificates, one of which allows but one",
            files(&[&renewed(&one_below, ca("One below")), &one_below, &wide, &below(&wide, ca("Below"))]),
        ),
        ("twenty-five", files(&twenty_four.iter().collect::<Vec<_>>())),
    ] {
        let bundle = assert_all_are_taken(what, &bodies);
        assert_openssl_reads(&bundle);
    }
}

/// A second opinion on what is written.
fn assert_openssl_reads(bundle: &Bundle) {
    let openssl = |arguments: &str, input: &[u8]| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let pkcs7 = openssl("crl2pkcs7 -nocrl -certfile /dev/stdin", bundle.pem().as_bytes());
    let read = String::from_utf8(openssl("pkcs7 -print_certs", &pkcs7)).unwrap();
    let read: Vec<Vec<u8>> = certificates(&read).unwrap();
    assert_eq!(read, bundle.authorities.iter().map(|authority| authority.der.clone()).collect::<Vec<_>>());
}

#[test]
fn a_certificate_may_be_as_large_as_alb_takes_and_no_larger() {
    let mut taken = BTreeSet::new();
    for content in (11_600..11_900_u16).step_by(3) {
        let octets = [[0x04, 0x82].as_slice(), &content.to_be_bytes(), &vec![0; content.into()]].concat();
        let large = root(with(|ca| ca.custom_extensions = vec![extension(&[1, 2, 3, 4], false, &octets)]));
        let is_taken = Authority::judge(large.der(), at(NOW)).is_ok();
        assert_eq!(is_taken, pem(large.der(), 64).len() <= 16 * 1024, "{content}");
        taken.insert(is_taken);
    }
    assert_eq!(taken.len(), 2, "both sides of the limit");
}

#[test]
fn the_same_input_in_any_order_gives_the_same_bundle() {
    let (top, other) = (root(ca("Root")), root(ca("Other")));
    let middle = below(&top, ca("Middle"));
    let expired = root(with(|ca| ca.not_after = at("2026-12-31T00:00:00Z")));
    let mut chains = vec![
        chain(&[&middle, &top]),
        chain(&[&other]),
        chain(&[&top]),
        chain(&[&expired]),
        chain(&[&below(&expired, ca("Below")), &expired]),
    ];
    let mut bodies: Vec<Vec<u8>> = (0..26).map(|n| root(ca(&format!("Extra {}", n % 5))).pem().into()).collect();
    bodies.extend([one("no PEM"), files(&[&top, &other, &other, &expired])].concat());
    bodies.push(bodies[3].clone());
    let mut extras = extras(&bodies);
    let expected = Bundle::of(&chains, &extras, &[], at(NOW));
    assert_eq!((expected.authorities.len(), expected.unfit()), (MOST_AUTHORITIES, None));
    let said = expected.refused.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(said.len(), expected.refused.len(), "nothing is said twice: {said:#?}");
    for turn in 0..extras.len() {
        extras.rotate_left(7);
        extras.swap(0, turn);
        chains.rotate_left(1);
        chains[turn % 5].reverse();
        let bundle = Bundle::of(&chains, &extras, &[], at(NOW));
        assert_eq!(bundle.pem(), expected.pem());
        assert_eq!(bundle.refused, expected.refused);
        assert_eq!(bundle.fingerprints(), expected.fingerprints());
    }
}

#[test]
fn a_root_of_several_declared_cas_is_in_the_bundle_once() {
    let top = root(ca("Root"));
    let chains = ["a", "b"].map(|name| chain(&[&below(&top, ca(name)), &top]));
    let bundle = Bundle::of(&chains, &[], &[], at(NOW));
    let subjects: Vec<_> = bundle.authorities.iter().map(|authority| authority.subject.as_str()).collect();
    assert_eq!((subjects, bundle.refused), (vec!["CN=Root", "CN=a", "CN=b"], vec![]));
}

#[test]
fn what_stands_on_a_refused_ca_is_refused_with_it() {
    let declared = root(ca("Declared"));
    let expired = root(with(|ca| ca.not_after = at("2026-12-31T00:00:00Z")));
    let bad = below(&expired, ca("Below"));
    let bundle =
        Bundle::of(&[chain(&[&bad, &expired]), chain(&[&declared])], &extras(&files(&[&below(&bad, ca("Low"))])), &[], at(NOW));
    assert_eq!(bundle.authorities.iter().map(|authority| authority.subject.as_str()).collect::<Vec<_>>(), ["CN=Declared"]);
    let said: Vec<String> = bundle.refused.iter().map(ToString::to_string).collect();
    for (said, (what, why)) in said.iter().zip([
        ("`CN=Below` (SHA-256 ", "no CA of this trust store has issued it"),
        ("`CN=Odd` (SHA-256 ", "it expired 2026-12-31 00:00 UTC"),
        ("trust/extra/clients/00.pem: `CN=Low` (SHA-256 ", "no CA of this trust store has issued it"),
    ]) {
        assert!(said.starts_with(what) && said.contains(why), "{said}");
    }
    assert_eq!(said.len(), 3);
}

#[test]
fn declared_cas_come_before_objects_and_an_object_takes_what_stands_on_it_along() {
    let declared: Vec<Ca> = (0..23).map(|n| root(ca(&format!("CA {n}")))).collect();
    let chains: Vec<_> = declared.iter().map(|ca| chain(&[ca])).collect();
    let top = root(ca("Root"));
    let middle = below(&top, ca("Middle"));
    let (first, last) = (root(ca("A first")), root(ca("A last")));
    let subjects = |objects: &[&Ca]| {
        let bundle = Bundle::of(&chains, &extras(&files(objects)), &[], at(NOW));
        assert_eq!(bundle.unfit(), None);
        assert_eq!(bundle.authorities.len() + bundle.refused.len(), declared.len() + objects.len());
        let subject = |authority: &Authority| authority.subject.clone();
        bundle.authorities.iter().map(subject).filter(|subject| !subject.starts_with("CN=CA ")).collect::<Vec<_>>()
    };
    assert_eq!(subjects(&[&first, &last]), ["CN=A first", "CN=A last"]);
    assert_eq!(subjects(&[&top, &middle, &last]), ["CN=Middle", "CN=Root"]);
    assert_eq!(subjects(&[&first, &middle, &top]), ["CN=A first"]);
}

#[test]
fn an_object_that_is_in_the_store_gives_way_to_nothing_new() {
    let declared: Vec<Ca> = (0..24).map(|n| root(ca(&format!("CA {n}")))).collect();
    let (first, last) = (root(ca("A first")), root(ca("A last")));
    let of = |declared: &[Ca], held: &[&Ca]| {
        let chains: Vec<_> = declared.iter().map(|ca| chain(&[ca])).collect();
        Bundle::of(&chains, &extras(&files(&[&first, &last])), &chain(held), at(NOW))
    };
    for (held, stays, leaves) in [(&first, &first, "01.pem"), (&last, &last, "00.pem")] {
        let bundle = of(&declared, &[held]);
        assert_eq!((bundle.authorities.len(), bundle.unfit()), (25, None));
        assert!(bundle.authorities.iter().any(|one| one.der == **stays.der()), "{}", bundle.pem());
        let [refused] = &bundle.refused[..] else { panic!("{:#?}", bundle.refused) };
        assert!(refused.what.contains(leaves) && refused.why.starts_with("there is no room for it"), "{refused}");
    }
    let bundle = of(&declared, &[&first, &last]);
    assert_eq!((bundle.authorities.len(), &bundle.refused[..]), (26, &[][..]), "nor to a declared CA");
    assert!(bundle.unfit().is_some_and(|why| why.contains("are 26 certificates")));
}

#[test]
fn a_bundle_of_nothing_or_of_too_much_is_unfit() {
    let authority = Authority::judge(&der("plain"), at(NOW)).unwrap();
    let of = |sizes: &[usize]| {
        let authorities = sizes.iter().map(|size| Authority { subject_size: *size, ..authority.clone() }).collect();
        Bundle { authorities, refused: Vec::new() }.unfit()
    };
    for (sizes, why) in [
        (vec![], Some("nothing would be left in it, and an empty trust store locks every client out")),
        (vec![10_000], None),
        (
            vec![5_000, 5_001],
            Some(
                "the subjects of its CAs have 10001 bytes together, and ALB takes 10000; declare fewer CAs in it, or delete some of its objects under trust/extra/",
            ),
        ),
        (vec![400; 25], None),
        (
            vec![1; 26],
            Some(
                "its CAs and their chains are 26 certificates, and a trust store holds 25; declare fewer CAs in it, or delete some of its objects under trust/extra/",
            ),
        ),
    ] {
        assert_eq!(of(&sizes).as_deref(), why, "{sizes:?}");
    }
    let declared: Vec<Ca> = (0..26).map(|n| root(ca(&format!("CA {n}")))).collect();
    let bundle = Bundle::of(&declared.iter().map(|ca| chain(&[ca])).collect::<Vec<_>>(), &[], &[], at(NOW));
    assert_eq!((bundle.authorities.len(), bundle.refused.len(), bundle.unfit().is_some()), (26, 0, true));
}

#[test]
fn a_bundle_is_written_by_subject_and_fingerprint() {
    let cas = ["b", "a", "b", "c"].map(|name| root(ca(name)));
    let bundle = Bundle::of(&cas.each_ref().map(|ca| chain(&[ca])), &[], &[], at(NOW));
    let order: Vec<_> = bundle.authorities.iter().map(|authority| (&authority.subject, &authority.fingerprint)).collect();
    assert!(order.is_sorted(), "{order:?}");
    let written = bundle.pem();
    let in_order: String = bundle.authorities.iter().map(Authority::pem).collect();
    assert_eq!(written, in_order);
    assert_eq!(certificates(&written).unwrap().len(), 4);
    assert!(bundle.authorities.iter().all(|authority| bundle.holds(&authority.fingerprint)) && !bundle.holds("f1"));
    assert_eq!(Bundle::of(&[certificates(&written).unwrap()], &[], &[], at(NOW)), bundle, "what is written reads back");
}
