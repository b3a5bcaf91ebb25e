use std::time::Duration as StdDuration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose as Usage, RevokedCertParams, SerialNumber,
};
use time::macros::datetime;

use super::*;
use crate::pca::tests::OpenSsl;
use crate::wire::{self, Reply};
use crate::{Fault, LocalAws, NoAnswer};

const START: OffsetDateTime = datetime!(2026-11-22 06:07:08.25 UTC);
const BUCKET: &str = "everleaf-bundles";

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate valid from an hour ago for a year, for `name`.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (START - Duration::hours(1), START + Duration::days(365));
    params
}

/// As [`params`], for a CA.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign];
    params
}

fn client_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.key_usages = vec![Usage::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ClientAuth];
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn same_key(authority: &Authority) -> KeyPair {
    KeyPair::from_pem(&authority.key().serialize_pem()).unwrap()
}

fn root(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), key()).unwrap()
}

fn pem(authority: &Authority) -> String {
    authority.as_ref().pem().replace("\r\n", "\n")
}

fn below(issuer: &Authority, params: CertificateParams) -> Authority {
    CertifiedIssuer::signed_by(params, key(), issuer).unwrap()
}

fn client(issuer: &Authority, params: CertificateParams) -> String {
    params.signed_by(&key(), issuer).unwrap().pem()
}

fn revocation_list(issuer: &Authority, serials: &[u8]) -> rcgen::CertificateRevocationList {
    let revoked = |serial: &u8| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[*serial]),
        revocation_time: START,
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: START,
        next_update: START + Duration::days(7),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap()
}

/// An account whose time is moved by hand.
struct Account {
    world: World,
    now: OffsetDateTime,
}

impl Account {
    fn new() -> Self {
        let mut world = World::new("111122223333", "eu-central-1");
        s3::create_bucket(&mut world, BUCKET);
        Self { world, now: START }
    }

    #[track_caller]
    fn ask(&mut self, operation: &str, input: Value) -> Value {
        call(&mut self.world, self.now, operation, &input).unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    #[track_caller]
    fn refused(&mut self, operation: &str, input: Value) -> String {
        let error = call(&mut self.world, self.now, operation, &input).expect_err(operation);
        assert_eq!(error.status, 400);
        error.code
    }

    fn put(&mut self, key: &str, content: impl Into<Vec<u8>>) {
        s3::put(&mut self.world, self.now, BUCKET, key, content.into()).unwrap();
    }

    /// The ARN of a store that is active, with this bundle.
    #[track_caller]
    fn trust_store(&mut self, name: &str, bundle: &str) -> String {
        self.put(name, bundle);
        let created = self.ask("CreateTrustStore", from_s3(json!({"Name": name}), name));
        self.now += CREATION_TIME;
        string(&created["TrustStores"][0]["TrustStoreArn"])
    }

    /// The ARN of a listener that verifies by the store.
    fn verifying_listener(&mut self, port: u16, trust_store_arn: &str) -> String {
        let arn = create_listener(&mut self.world, self.now, "clients", port);
        self.ask("ModifyListener", verify(&arn, trust_store_arn));
        arn
    }

    fn revoke(&mut self, trust_store_arn: &str, issuer: &Authority, serials: &[u8]) -> Value {
        self.put("crl", revocation_list(issuer, serials).pem().unwrap());
        self.ask("AddTrustStoreRevocations", revocations(trust_store_arn, &["crl"]))
    }

    #[track_caller]
    fn status(&mut self, listener_arn: &str, chain: &str) -> String {
        tls_verify_status(&mut self.world, self.now, listener_arn, chain).unwrap()
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

/// The same block of PEM without the last byte of its content.
fn cut(pem: &str) -> String {
    let lines: Vec<_> = pem.lines().collect();
    let [begin, base64 @ .., end] = lines.as_slice() else { panic!("{pem}") };
    let content = BASE64.decode(base64.concat()).unwrap();
    format!("{begin}\n{}\n{end}\n", BASE64.encode(&content[..content.len() - 1]))
}

fn from_s3(mut input: Value, key: &str) -> Value {
    (input["CaCertificatesBundleS3Bucket"], input["CaCertificatesBundleS3Key"]) = (json!(BUCKET), json!(key));
    input
}

fn revocations(trust_store_arn: &str, keys: &[&str]) -> Value {
    let contents: Vec<_> = keys.iter().map(|key| json!({"S3Bucket": BUCKET, "S3Key": key, "RevocationType": "CRL"})).collect();
    json!({"TrustStoreArn": trust_store_arn, "RevocationContents": contents})
}

fn verify(listener_arn: &str, trust_store_arn: &str) -> Value {
    json!({"ListenerArn": listener_arn, "MutualAuthentication": {"Mode": "verify", "TrustStoreArn": trust_store_arn}})
}

#[test]
fn a_trust_store_is_ready_after_a_while_and_keeps_what_it_has_read() {
    let mut account = Account::new();
    let (old, new) = (root("Old"), root("New"));
    account.put("bundle", format!("# of 2026\n{}", pem(&old)));
    let created = account.ask("CreateTrustStore", from_s3(json!({"Name": "clients"}), "bundle"));
    let mut expected = json!({
        "Name": "clients", "TrustStoreArn": created["TrustStores"][0]["TrustStoreArn"], "Status": "CREATING",
        "NumberOfCaCertificates": 1, "TotalRevokedEntries": 0,
    });
    assert_eq!(created["TrustStores"], json!([expected]));
    let arn = string(&expected["TrustStoreArn"]);
    assert!(arn.starts_with("arn:aws:elasticloadbalancing:eu-central-1:111122223333:truststore/clients/"), "{arn}");
    let listener = create_listener(&mut account.world, START, "clients", 8443);
    assert_eq!(account.refused("ModifyListener", verify(&listener, &arn)), "TrustStoreNotReady");
    account.now += CREATION_TIME;
    account.ask("ModifyListener", verify(&listener, &arn));
    let leaf_of_new = client(&new, client_params("orders"));
    account.put("bundle", pem(&old) + &pem(&new));
    expected["Status"] = json!("ACTIVE");
    assert_eq!(account.ask("DescribeTrustStores", json!({"Names": ["clients"]}))["TrustStores"], json!([expected]));
    assert_eq!(account.status(&listener, &leaf_of_new), "Failed:ClientCertUntrusted", "what lies in S3 changes nothing");
    for _ in 0..2 {
        let modified = account.ask("ModifyTrustStore", from_s3(json!({"TrustStoreArn": arn}), "bundle"));
        expected["NumberOfCaCertificates"] = json!(2);
        assert_eq!(modified["TrustStores"], json!([expected]));
        assert_eq!(account.status(&listener, &leaf_of_new), "Success");
    }
}

#[test]
fn a_bundle_of_an_old_version_can_be_loaded() {
    let mut account = Account::new();
    let old = root("Old");
    let version = s3::put(&mut account.world, START, BUCKET, "bundle", pem(&old).into()).unwrap();
    account.put("bundle", "rubbish");
    let mut input = from_s3(json!({"Name": "clients"}), "bundle");
    assert_eq!(account.refused("CreateTrustStore", input.clone()), "InvalidCaCertificatesBundle");
    input["CaCertificatesBundleS3ObjectVersion"] = json!(version);
    account.ask("CreateTrustStore", input);
}

#[test]
fn a_bundle_holds_nothing_but_good_certificates_of_cas() {
    let (root, other) = (root("Root"), root("Other"));
    let (root_pem, other_pem) = (pem(&root), pem(&other));
    let issuing = pem(&below(&root, authority_params("Issuing")));
    let with_params = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = authority_params("Special");
        change(&mut params);
        pem(&CertifiedIssuer::self_signed(params, key()).unwrap())
    };
    let expired = with_params(&|params| params.not_after = START - Duration::seconds(1));
    let not_a_signer = with_params(&|params| params.key_usages = vec![Usage::CrlSign]);
    let huge = with_params(&|params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![4; 16 * 1024])];
    });
    let long_name = with_params(&|params| params.distinguished_name.push(DnType::OrganizationName, "x".repeat(5_000)));
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = pem(&CertifiedIssuer::self_signed(authority_params("Ed25519"), ed25519).unwrap());
    let many: String = (0..26).map(|_| root_pem.as_str()).collect();
    let openssl = OpenSsl::with(&[("leaf.cnf", "[req]\ndistinguished_name=n\n[n]\n")]);
    let made = |arguments: &str| {
        openssl.run(&format!("req -x509 -newkey {arguments} -noenc -keyout key -out made -subj /CN=Made -days 30"));
        openssl.read("made")
    };
    let (sha1, rsa_1024) = (made("rsa:2048 -sha1"), made("rsa:1024"));
    let k1 = made("ec -pkeyopt ec_paramgen_curve:secp256k1");
    let version_1 = {
        openssl.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout key -out csr -subj /CN=Made");
        openssl.run("x509 -req -in csr -key key -out made")
    };
    let version_1 = version_1 + &openssl.read("made");
    let good = [
        ("RSA", made("rsa:2048")),
        ("RSASSA-PSS", made("rsa:2048 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sha256")),
        ("P-384", made("ec -pkeyopt ec_paramgen_curve:P-384 -sha384")),
        ("P-521", made("ec -pkeyopt ec_paramgen_curve:P-521 -sha512")),
        ("comments", format!("# one: root\n{root_pem}# and another\n{other_pem}#")),
        ("an intermediate with its root", format!("{issuing}{root_pem}")),
        ("no line feed at the end", root_pem.trim_end().to_owned()),
        ("CRLF", root_pem.replace('\n', "\r\n")),
        ("twenty-five", many[..root_pem.len() * 25].to_owned()),
    ];
    let bad = [
        ("nothing", String::new(), "0 certificates"),
        ("a comment alone", "# nothing\n".into(), "0 certificates"),
        ("twenty-six", many, "26 certificates"),
        ("a blank line between", format!("{root_pem}\n{other_pem}"), "is blank"),
        ("a blank line at the end", format!("{root_pem}\n"), "is blank"),
        ("a blank line in the base64", root_pem.replacen("\n", "\n\n", 1), "is blank"),
        ("a comment with a hyphen", format!("# self-signed\n{root_pem}"), "line 1 is neither"),
        ("a text before", format!("Root CA\n{root_pem}"), "line 1 is neither"),
        ("no line feed between", format!("{}{other_pem}", root_pem.trim_end()), "the block"),
        ("a cut end", root_pem[..root_pem.len() - 30].to_owned(), "no end"),
        ("a dump", format!("Certificate:\n    Data:\n{root_pem}"), "line 1 is neither"),
        ("a key", KeyPair::serialize_pem(root.key()) + &root_pem, "line 1 is neither"),
        ("DER", "\u{0}0".into(), "line 1 is neither"),
        ("broken base64", root_pem.replacen("\nMII", "\nM!I", 1), "the block before"),
        ("broken DER", cut(&root_pem), "certificate 1 cannot be read"),
        ("a leaf", root_pem.clone() + &client(&root, client_params("leaf")), "certificate 2 is not that of a CA"),
        ("a CA that may not sign", not_a_signer, "not that of a CA"),
        ("an expired CA", root_pem.clone() + &expired, "certificate 2 has expired"),
        ("a large certificate", huge, "larger than 16 KB"),
        ("long names", long_name.repeat(2), "subject names take"),
        ("an intermediate alone", issuing, "no root"),
        ("SHA-1", sha1, "not supported"),
        ("RSA 1024", rsa_1024, "not supported"),
        ("secp256k1", k1, "not supported"),
        ("Ed25519", ed25519, "not supported"),
        ("X.509 version 1", version_1, "not that of a CA"),
    ];
    let mut account = Account::new();
    let arn = account.trust_store("clients", &root_pem);
    for (what, bundle) in good {
        account.put("bundle", bundle);
        let outcome = call(&mut account.world, START, "ModifyTrustStore", &from_s3(json!({"TrustStoreArn": arn}), "bundle"));
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
    }
    let before = account.ask("DescribeTrustStores", json!({}));
    for (what, bundle, reason) in bad {
        account.put("bundle", bundle);
        let input = from_s3(json!({"TrustStoreArn": arn}), "bundle");
        let error = call(&mut account.world, START, "ModifyTrustStore", &input).expect_err(what);
        assert_eq!(error.code, "InvalidCaCertificatesBundle", "{what}");
        assert!(error.message.contains(reason), "{what}: {}", error.message);
    }
    assert_eq!(account.ask("DescribeTrustStores", json!({})), before, "a refused bundle changes nothing");
}

#[test]
fn what_does_not_fit_is_refused_with_the_code_of_the_wire() {
    let mut account = Account::new();
    let root = pem(&root("Root"));
    let arn = account.trust_store("clients", &root);
    let listener = create_listener(&mut account.world, account.now, "clients", 8443);
    let load_balancer = string(&account.ask("DescribeLoadBalancers", json!({}))["LoadBalancers"][0]["LoadBalancerArn"]);
    let named = |name: &str| from_s3(json!({"Name": name}), "clients");
    let store = |more: Value| {
        let mut input = json!({"TrustStoreArn": arn});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let mutual = |settings: Value| json!({"ListenerArn": listener, "MutualAuthentication": settings});
    let new_listener = |more: Value| {
        let mut input = json!({
            "LoadBalancerArn": load_balancer, "Port": 9443, "Protocol": "HTTPS", "Certificates": [{"CertificateArn": "arn:x"}],
            "DefaultActions": [{"Type": "fixed-response"}],
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let key = |key: &str, value: &str| json!({"Key": key, "Value": value});
    let none = arn.replace("truststore/clients", "truststore/none");
    let tags: Vec<_> = (0..51).map(|place| key(&place.to_string(), "x")).collect();
    let ocsp = json!({"S3Bucket": BUCKET, "S3Key": "clients", "RevocationType": "OCSP"});
    let tagged = |mut input: Value| {
        input["Tags"] = json!(tags);
        input
    };
    let version = |version: &str| {
        let mut input = named("new");
        input["CaCertificatesBundleS3ObjectVersion"] = json!(version);
        input
    };
    let rows = [
        ("CreateTrustStore", named("clients"), "DuplicateTrustStoreName"),
        ("CreateTrustStore", named("a--b"), "ValidationError"),
        ("CreateTrustStore", named("-a"), "ValidationError"),
        ("CreateTrustStore", named(&"a".repeat(33)), "ValidationError"),
        ("CreateTrustStore", json!({"Name": "new"}), "ValidationError"),
        ("CreateTrustStore", from_s3(json!({"Name": "new"}), "none"), "CaCertificatesBundleNotFound"),
        ("CreateTrustStore", version("none"), "CaCertificatesBundleNotFound"),
        ("CreateTrustStore", tagged(named("new")), "TooManyTags"),
        ("ModifyTrustStore", from_s3(json!({"TrustStoreArn": none}), "clients"), "TrustStoreNotFound"),
        ("ModifyTrustStore", from_s3(store(json!({})), "none"), "CaCertificatesBundleNotFound"),
        ("DescribeTrustStores", json!({"TrustStoreArns": [arn, none]}), "TrustStoreNotFound"),
        ("DescribeTrustStores", json!({"Names": ["none"]}), "TrustStoreNotFound"),
        ("DescribeTrustStores", json!({"Names": ["clients"], "TrustStoreArns": [arn]}), "ValidationError"),
        ("DescribeTrustStores", json!({"PageSize": 401}), "ValidationError"),
        ("DescribeTrustStores", json!({"Marker": "x"}), "ValidationError"),
        ("DeleteTrustStore", json!({"TrustStoreArn": none}), "TrustStoreNotFound"),
        ("GetTrustStoreCaCertificatesBundle", json!({"TrustStoreArn": none}), "TrustStoreNotFound"),
        ("DescribeTrustStoreAssociations", json!({"TrustStoreArn": none}), "TrustStoreNotFound"),
        ("AddTrustStoreRevocations", revocations(&none, &["crl"]), "TrustStoreNotFound"),
        ("AddTrustStoreRevocations", revocations(&arn, &["none"]), "RevocationContentNotFound"),
        ("AddTrustStoreRevocations", store(json!({"RevocationContents": [ocsp]})), "ValidationError"),
        ("AddTrustStoreRevocations", revocations(&arn, &["clients"]), "InvalidRevocationContent"),
        ("RemoveTrustStoreRevocations", store(json!({"RevocationIds": [7]})), "RevocationIdNotFound"),
        ("RemoveTrustStoreRevocations", store(json!({})), "ValidationError"),
        ("DescribeTrustStoreRevocations", store(json!({"RevocationIds": [7]})), "RevocationIdNotFound"),
        ("GetTrustStoreRevocationContent", store(json!({"RevocationId": 7})), "RevocationIdNotFound"),
        ("ModifyListener", json!({"ListenerArn": format!("{listener}0")}), "ListenerNotFound"),
        ("ModifyListener", verify(&listener, &none), "TrustStoreNotFound"),
        ("ModifyListener", mutual(json!({"Mode": "verify"})), "InvalidConfigurationRequest"),
        ("ModifyListener", mutual(json!({"Mode": "off", "TrustStoreArn": arn})), "InvalidConfigurationRequest"),
        ("ModifyListener", mutual(json!({"Mode": "on"})), "ValidationError"),
        (
            "ModifyListener",
            mutual(json!({"Mode": "verify", "TrustStoreArn": arn, "AdvertiseTrustStoreCaNames": "yes"})),
            "ValidationError",
        ),
        ("ModifyListener", json!({"ListenerArn": listener, "SslPolicy": "none"}), "SSLPolicyNotFound"),
        ("ModifyListener", json!({"ListenerArn": listener, "Protocol": "TLS"}), "UnsupportedProtocol"),
        ("CreateListener", new_listener(json!({"LoadBalancerArn": "none"})), "LoadBalancerNotFound"),
        ("CreateListener", new_listener(json!({"Port": 8443})), "DuplicateListener"),
        ("CreateListener", new_listener(json!({"Port": 0})), "ValidationError"),
        ("CreateListener", new_listener(json!({"Certificates": []})), "ValidationError"),
        ("CreateListener", new_listener(json!({"DefaultActions": []})), "ValidationError"),
        ("CreateListener", new_listener(json!({"Protocol": "HTTP"})), "InvalidConfigurationRequest"),
        (
            "CreateListener",
            new_listener(json!({"Protocol": "HTTP", "Certificates": null, "MutualAuthentication": {"Mode": "passthrough"}})),
            "InvalidConfigurationRequest",
        ),
        ("DescribeListeners", json!({}), "ValidationError"),
        ("DescribeListeners", json!({"LoadBalancerArn": "none"}), "LoadBalancerNotFound"),
        ("DescribeListeners", json!({"ListenerArns": ["none"]}), "ListenerNotFound"),
        ("DescribeLoadBalancers", json!({"Names": ["none"]}), "LoadBalancerNotFound"),
        ("CreateLoadBalancer", json!({"Name": "one", "Subnets": ["subnet-1"]}), "ValidationError"),
        ("CreateLoadBalancer", json!({"Name": "a".repeat(33), "Subnets": ["a", "b"]}), "ValidationError"),
        ("CreateLoadBalancer", json!({"Name": "one", "Subnets": ["a", "b"], "Type": "network"}), "ValidationError"),
        ("CreateLoadBalancer", json!({"Name": "clients", "Subnets": ["a", "b"]}), "DuplicateLoadBalancerName"),
        ("AddTags", json!({"ResourceArns": [none], "Tags": [key("a", "b")]}), "TrustStoreNotFound"),
        ("AddTags", json!({"ResourceArns": [arn], "Tags": [key("a", "b"), key("a", "c")]}), "DuplicateTagKeys"),
        ("AddTags", json!({"ResourceArns": [arn], "Tags": tags}), "TooManyTags"),
        ("DescribeTags", json!({"ResourceArns": ["arn:aws:s3:::x"]}), "ValidationError"),
        ("DescribeTags", json!({"ResourceArns": []}), "ValidationError"),
        ("DescribeRules", json!({}), "InvalidAction"),
    ];
    for (operation, input, code) in rows {
        assert_eq!(account.refused(operation, input.clone()), code, "{operation} {input}");
    }
    account.ask("AddTags", json!({"ResourceArns": [arn], "Tags": tags[..50]}));
    let one_more = json!({"ResourceArns": [arn], "Tags": [key("one", "more")]});
    assert_eq!(account.refused("AddTags", one_more), "TooManyTags");
    for place in 1..20 {
        account.ask("CreateTrustStore", named(&format!("store-{place}")));
    }
    assert_eq!(account.refused("CreateTrustStore", named("one-more")), "TooManyTrustStores");
}

#[test]
fn descriptions_come_in_pages() {
    let mut account = Account::new();
    let issuer = root("Root");
    let names = ["a", "b", "c", "d", "e"];
    let arns: Vec<_> = names.iter().map(|name| account.trust_store(name, &pem(&issuer))).collect();
    for _ in 0..5 {
        account.revoke(&arns[0], &issuer, &[1]);
    }
    let listeners: Vec<_> = (1..=5).map(|port| create_listener(&mut account.world, START, "clients", port)).collect();
    for name in names {
        create_listener(&mut account.world, START, name, 443);
    }
    account.ask("ModifyListener", verify(&listeners[0], &arns[0]));
    account.ask("ModifyListener", verify(&listeners[1], &arns[0]));
    let clients = listeners[0].replace(":listener/", ":loadbalancer/");
    let clients = clients.rsplit_once('/').unwrap().0;
    let of_first = json!({"TrustStoreArn": arns[0]});
    let rows = [
        ("DescribeTrustStores", json!({}), "TrustStores", "Name", 5),
        ("DescribeTrustStores", json!({"TrustStoreArns": arns[1..]}), "TrustStores", "TrustStoreArn", 4),
        ("DescribeTrustStoreRevocations", of_first.clone(), "TrustStoreRevocations", "RevocationId", 5),
        ("DescribeTrustStoreAssociations", of_first, "TrustStoreAssociations", "ResourceArn", 2),
        ("DescribeListeners", json!({"LoadBalancerArn": clients}), "Listeners", "ListenerArn", 5),
        ("DescribeListeners", json!({"ListenerArns": listeners[..3]}), "Listeners", "ListenerArn", 3),
        ("DescribeLoadBalancers", json!({}), "LoadBalancers", "LoadBalancerName", 6),
    ];
    for (operation, input, member, key, count) in rows {
        let whole: Vec<_> = account.ask(operation, input.clone())[member].as_array().unwrap().clone();
        let keys: std::collections::BTreeSet<_> = whole.iter().map(|item| item[key].to_string()).collect();
        assert_eq!((whole.len(), keys.len()), (count, count), "{operation}");
        for size in 1..=count + 1 {
            let (mut input, mut found, mut pages) = (input.clone(), Vec::new(), 0);
            input["PageSize"] = json!(size);
            loop {
                let page = account.ask(operation, input.clone());
                let items = page[member].as_array().unwrap().clone();
                assert!(items.len() <= size);
                (pages, found) = (pages + 1, [found, items].concat());
                match page.get("NextMarker") {
                    Some(marker) => input["Marker"] = marker.clone(),
                    None => break,
                }
            }
            assert_eq!((&found, pages), (&whole, count.div_ceil(size)), "{operation} by {size}");
        }
    }
}

#[test]
fn revocation_lists_add_up_and_their_identifiers_rise() {
    let mut account = Account::new();
    let issuer = root("Root");
    let arn = account.trust_store("clients", &pem(&issuer));
    let first = account.revoke(&arn, &issuer, &[1, 2]);
    let list = |id: i64, entries: u64| json!({"TrustStoreArn": arn, "RevocationId": id, "RevocationType": "CRL", "NumberOfRevokedEntries": entries});
    assert_eq!(first["TrustStoreRevocations"], json!([list(1, 2)]));
    assert_eq!(account.revoke(&arn, &issuer, &[1, 2])["TrustStoreRevocations"], json!([list(2, 2)]), "the same again");
    let described = account.ask("DescribeTrustStores", json!({}));
    assert_eq!(described["TrustStores"][0]["TotalRevokedEntries"], 4);
    account.ask("RemoveTrustStoreRevocations", json!({"TrustStoreArn": arn, "RevocationIds": [2]}));
    assert_eq!(account.revoke(&arn, &issuer, &[])["TrustStoreRevocations"], json!([list(3, 0)]), "2 is never used again");
    let input = json!({"TrustStoreArn": arn});
    let described = account.ask("DescribeTrustStoreRevocations", input.clone());
    assert_eq!(described["TrustStoreRevocations"], json!([list(1, 2), list(3, 0)]));
    let keys = ["crl"; 28];
    account.ask("AddTrustStoreRevocations", revocations(&arn, &keys));
    assert_eq!(account.refused("AddTrustStoreRevocations", revocations(&arn, &["crl"])), "TooManyTrustStoreRevocationEntries");
    let ids: Vec<i64> = (1..=31).filter(|id| *id != 2).collect();
    account.ask("RemoveTrustStoreRevocations", json!({"TrustStoreArn": arn, "RevocationIds": ids}));
    assert_eq!(account.ask("DescribeTrustStoreRevocations", input)["TrustStoreRevocations"], json!([]));
}

#[test]
fn a_revocation_list_is_pem_that_a_ca_of_the_store_has_signed() {
    let issuer = root("Root");
    let of_root = revocation_list(&issuer, &[1]);
    let pem_of_root = of_root.pem().unwrap();
    let no_signer = {
        let mut params = authority_params("No Signer");
        params.key_usages = vec![Usage::KeyCertSign];
        CertifiedIssuer::self_signed(params, key()).unwrap()
    };
    let config = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n";
    let index = "R\t301122000000Z\t261122000000Z\t-01\tunknown\t/CN=x\n";
    let openssl = OpenSsl::with(&[("ca.cnf", config), ("index", index)]);
    openssl.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout key -out root -subj /CN=Negative");
    openssl.run("ca -config ca.cnf -gencrl -keyfile key -cert root -out crl");
    let mut account = Account::new();
    let arn = account.trust_store("clients", &(pem(&issuer) + &pem(&no_signer) + &openssl.read("root")));
    let forged = CertifiedIssuer::self_signed(authority_params("Root"), key()).unwrap();
    let same_key = CertifiedIssuer::self_signed(authority_params("Another"), same_key(&issuer)).unwrap();
    let signature = pem_of_root.trim_end().lines().rev().nth(1).unwrap();
    let turned: String = signature.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    let rows = [
        ("DER", of_root.der().to_vec(), "not PEM"),
        ("of a stranger", revocation_list(&root("Other"), &[1]).pem().unwrap().into(), "no CA"),
        ("of a namesake", revocation_list(&forged, &[1]).pem().unwrap().into(), "no CA"),
        ("of a CA that may not", openssl_signed(&no_signer).into(), "no CA"),
        ("two at once", format!("{pem_of_root}{pem_of_root}").into(), "not one list"),
        ("nothing", Vec::new(), "not one list"),
        ("a certificate", pem(&issuer).into(), "neither X509 CRL"),
        ("broken", cut(&pem_of_root).into(), "cannot be read"),
        ("a broken signature", pem_of_root.replace(signature, &turned).into(), "it"),
        ("of one with the same key", revocation_list(&same_key, &[1]).pem().unwrap().into(), "no CA"),
        ("more than 50 MB", vec![b'#'; 50 * 1024 * 1024 + 1], "50 MB"),
        ("a negative serial number", openssl.read("crl").into(), "negative"),
    ];
    account.put("good", pem_of_root.clone());
    for (what, content, reason) in rows {
        account.put("crl", content);
        let input = revocations(&arn, &["good", "crl"]);
        let error = call(&mut account.world, account.now, "AddTrustStoreRevocations", &input).expect_err(what);
        assert_eq!(error.code, "InvalidRevocationContent", "{what}");
        assert!(error.message.contains(reason), "{what}: {}", error.message);
    }
    let described = account.ask("DescribeTrustStoreRevocations", json!({"TrustStoreArn": arn}));
    assert_eq!(described["TrustStoreRevocations"], json!([]), "all of a request or nothing");
    account.ask("AddTrustStoreRevocations", revocations(&arn, &["good"]));
}

/// A list by a CA whose key usage does not allow it, which rcgen would not sign.
fn openssl_signed(issuer: &Authority) -> String {
    let config = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n";
    let key = issuer.key().serialize_pem();
    let openssl = OpenSsl::with(&[("ca.cnf", config), ("index", ""), ("key", &key), ("root", &pem(issuer))]);
    openssl.run("ca -config ca.cnf -gencrl -keyfile key -cert root -out crl");
    openssl.read("crl")
}

#[test]
fn a_store_in_use_stays_and_its_associations_are_listed() {
    let mut account = Account::new();
    let arn = account.trust_store("clients", &pem(&root("Root")));
    let listener = account.verifying_listener(8443, &arn);
    let input = json!({"TrustStoreArn": arn});
    let associations = account.ask("DescribeTrustStoreAssociations", input.clone());
    assert_eq!(associations["TrustStoreAssociations"], json!([{"ResourceArn": listener}]));
    assert_eq!(account.refused("DeleteTrustStore", input.clone()), "TrustStoreInUse");
    account.ask("ModifyListener", json!({"ListenerArn": listener, "MutualAuthentication": {"Mode": "off"}}));
    account.ask("DeleteTrustStore", input.clone());
    assert_eq!(account.refused("DeleteTrustStore", input), "TrustStoreNotFound");
    assert_eq!(account.ask("DescribeTrustStores", json!({}))["TrustStores"], json!([]));
}

#[test]
fn a_listener_changes_only_where_it_is_asked_to() {
    let mut account = Account::new();
    let arn = account.trust_store("clients", &pem(&root("Root")));
    let listener = create_listener(&mut account.world, account.now, "clients", 8443);
    assert_eq!(create_listener(&mut account.world, account.now, "clients", 8443), listener, "it is made once");
    let mut expected = account.ask("DescribeListeners", json!({"ListenerArns": [listener]}))["Listeners"][0].clone();
    assert_eq!(expected["MutualAuthentication"], json!({"Mode": "off"}));
    expected["MutualAuthentication"] = json!({
        "Mode": "verify", "TrustStoreArn": arn, "IgnoreClientCertificateExpiry": false, "AdvertiseTrustStoreCaNames": "off",
        "TrustStoreAssociationStatus": "active",
    });
    for _ in 0..2 {
        assert_eq!(account.ask("ModifyListener", verify(&listener, &arn))["Listeners"], json!([expected]));
    }
    expected["Port"] = json!(8444);
    assert_eq!(account.ask("ModifyListener", json!({"ListenerArn": listener, "Port": 8444}))["Listeners"], json!([expected]));
    assert_eq!(account.ask("DescribeListeners", json!({"ListenerArns": [listener]}))["Listeners"], json!([expected]));
}

#[test]
fn two_listeners_of_a_load_balancer_can_verify() {
    let mut account = Account::new();
    let arn = account.trust_store("clients", &pem(&root("Root")));
    for port in [1, 2] {
        account.verifying_listener(port, &arn);
    }
    let third = create_listener(&mut account.world, account.now, "clients", 3);
    assert_eq!(account.refused("ModifyListener", verify(&third, &arn)), "InvalidConfigurationRequest");
    let elsewhere = create_listener(&mut account.world, account.now, "others", 3);
    account.ask("ModifyListener", verify(&elsewhere, &arn));
}

#[test]
fn a_load_balancer_and_a_listener_are_described_as_they_were_made() {
    let mut account = Account::new();
    let input =
        json!({"Name": "edge", "Scheme": "internal", "Subnets": ["subnet-1", "subnet-2"], "Tags": [{"Key": "a", "Value": "b"}]});
    let made = account.ask("CreateLoadBalancer", input)["LoadBalancers"][0].clone();
    assert_eq!(
        (&made["State"]["Code"], &made["Scheme"], &made["Type"]),
        (&json!("provisioning"), &json!("internal"), &json!("application"))
    );
    account.now += CREATION_TIME;
    let described = account.ask("DescribeLoadBalancers", json!({"Names": ["edge"]}))["LoadBalancers"][0].clone();
    assert_eq!(described["State"]["Code"], "active");
    let listener = account.ask(
        "CreateListener",
        json!({
            "LoadBalancerArn": made["LoadBalancerArn"], "Port": 443, "Protocol": "HTTPS",
            "Certificates": [{"CertificateArn": "arn:aws:acm:eu-central-1:111122223333:certificate/1"}],
            "DefaultActions": [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}],
        }),
    )["Listeners"][0]
        .clone();
    assert_eq!(listener["SslPolicy"], "ELBSecurityPolicy-2016-08");
    assert_eq!(listener["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"], "200");
    assert!(string(&listener["ListenerArn"]).contains(":listener/app/edge/"), "{listener}");
    let arns = json!([made["LoadBalancerArn"], listener["ListenerArn"]]);
    account.ask("AddTags", json!({"ResourceArns": arns, "Tags": [{"Key": "c", "Value": "d"}]}));
    let tags = account.ask("DescribeTags", json!({"ResourceArns": arns}))["TagDescriptions"].clone();
    assert_eq!(tags[0]["Tags"], json!([{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]));
    assert_eq!(tags[1], json!({"ResourceArn": listener["ListenerArn"], "Tags": [{"Key": "c", "Value": "d"}]}));
}

#[test]
fn each_verdict_has_its_reason() {
    let trusted = root("Root");
    let stranger = root("Stranger");
    let special = |name: &str, above: &Authority, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = authority_params(name);
        change(&mut params);
        below(above, params)
    };
    let issuing = special("Issuing", &trusted, &|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let middle = below(&trusted, authority_params("Middle"));
    let (lower, below_issuing) = (below(&middle, authority_params("Lower")), below(&issuing, authority_params("Below")));
    let lowest = below(&lower, authority_params("Lowest"));
    let changed = |issuer: &Authority, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = client_params("orders");
        change(&mut params);
        client(issuer, params)
    };
    let plain = |issuer: &Authority| changed(issuer, &|_| {});
    let late = |params: &mut CertificateParams| params.not_after = START - Duration::seconds(1);
    let early = |params: &mut CertificateParams| params.not_before = START + Duration::hours(1);
    let not_a_ca = below(&trusted, client_params("Not a CA"));
    let no_signer = special("No Signer", &trusted, &|params| params.key_usages = vec![Usage::CrlSign]);
    let old = special("Old", &trusted, &|params| params.not_after = START - Duration::days(1));
    let servers = special("Servers", &trusted, &|params| params.extended_key_usages = vec![Purpose::ServerAuth]);
    let namesake = root("Root");
    let same_key = CertifiedIssuer::self_signed(authority_params("Another"), same_key(&trusted)).unwrap();
    let openssl = OpenSsl::with(&[("root", &pem(&trusted)), ("root-key", &trusted.key().serialize_pem())]);
    openssl.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout key -out csr -subj /CN=orders");
    openssl.run("x509 -req -in csr -CA root -CAkey root-key -set_serial 9 -out version-1");
    let critical = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let huge = |params: &mut CertificateParams| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![4; 64 * 1024])];
    };
    let ed25519 = client_params("orders").signed_by(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), &trusted).unwrap();
    let serial =
        |serial: u8| move |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    let revoked_issuing = special("Revoked", &trusted, &serial(3));
    let chain = |leaf: String, sent: &[&Authority]| leaf + &sent.iter().map(|authority| pem(authority)).collect::<String>();
    let rows = [
        ("by the root", plain(&trusted), "Success"),
        ("with the root sent too", chain(plain(&trusted), &[&trusted]), "Success"),
        ("by an issuing CA that is sent", chain(plain(&issuing), &[&issuing]), "Success"),
        ("by an issuing CA that is not sent", plain(&issuing), "Failed:ClientCertUntrusted"),
        ("by an issuing CA in the store", plain(&middle), "Success"),
        ("in no order", chain(plain(&lower), &[&trusted, &lower]), "Success"),
        ("for any purpose that is not named", changed(&trusted, &|params| params.extended_key_usages.clear()), "Success"),
        ("without a key usage", changed(&trusted, &|params| params.key_usages.clear()), "Success"),
        ("nothing", String::new(), "Failed:UnmappedConnectionError"),
        ("rubbish", "rubbish".into(), "Failed:ClientCertInvalid"),
        ("broken PEM", plain(&trusted).replacen("\nMII", "\nM!I", 1), "Failed:ClientCertInvalid"),
        ("broken DER", cut(&plain(&trusted)), "Failed:ClientCertInvalid"),
        ("an unknown critical extension", changed(&trusted, &critical), "Failed:ClientCertInvalid"),
        ("64 KB", changed(&trusted, &huge), "Failed:ClientCertMaxSizeExceeded"),
        ("Ed25519", ed25519.pem(), "Failed:ClientCertTypeUnsupported"),
        ("X.509 version 1", openssl.read("version-1"), "Failed:ClientCertTypeUnsupported"),
        ("by another with the root's key", plain(&same_key), "Failed:ClientCertUntrusted"),
        ("by a stranger", plain(&stranger), "Failed:ClientCertUntrusted"),
        ("by a stranger that is sent", chain(plain(&stranger), &[&stranger]), "Failed:ClientCertUntrusted"),
        ("by a namesake of the root", plain(&namesake), "Failed:ClientCertUntrusted"),
        ("by what is not a CA", chain(plain(&not_a_ca), &[&not_a_ca]), "Failed:ClientCertUntrusted"),
        ("by a CA that may not sign", chain(plain(&no_signer), &[&no_signer]), "Failed:ClientCertUntrusted"),
        ("longer than a path length", chain(plain(&below_issuing), &[&below_issuing, &issuing]), "Failed:ClientCertUntrusted"),
        ("four links", chain(plain(&lower), &[&lower, &middle]), "Success"),
        ("five links", chain(plain(&lowest), &[&lowest, &lower]), "Failed:ClientCertMaxChainDepthExceeded"),
        ("five certificates", chain(plain(&trusted), &[&trusted; 4]), "Failed:ClientCertMaxChainDepthExceeded"),
        ("not yet valid", changed(&trusted, &early), "Failed:ClientCertNotYetValid"),
        ("expired", changed(&trusted, &late), "Failed:ClientCertExpired"),
        ("by an expired CA", chain(plain(&old), &[&old]), "Failed:ClientCertExpired"),
        (
            "for servers",
            changed(&trusted, &|params| params.extended_key_usages = vec![Purpose::ServerAuth]),
            "Failed:ClientCertPurposeInvalid",
        ),
        (
            "for encipherment",
            changed(&trusted, &|params| params.key_usages = vec![Usage::KeyEncipherment]),
            "Failed:ClientCertPurposeInvalid",
        ),
        ("by a CA for servers", chain(plain(&servers), &[&servers]), "Failed:ClientCertPurposeInvalid"),
        ("revoked", changed(&trusted, &serial(1)), "Failed:ClientCertCrlHit"),
        ("not revoked", changed(&trusted, &serial(2)), "Success"),
        ("by a revoked CA", chain(plain(&revoked_issuing), &[&revoked_issuing]), "Failed:ClientCertCrlHit"),
        ("revoked by another CA", changed(&middle, &serial(1)), "Success"),
    ];
    let mut account = Account::new();
    account.now = START - CREATION_TIME;
    let arn = account.trust_store("clients", &(pem(&trusted) + &pem(&middle)));
    let listener = account.verifying_listener(8443, &arn);
    account.revoke(&arn, &trusted, &[1, 3]);
    for (what, chain, status) in &rows {
        assert_eq!(account.status(&listener, chain), *status, "{what}");
    }
    let off = create_listener(&mut account.world, START, "clients", 9443);
    let passthrough = create_listener(&mut account.world, START, "clients", 9444);
    account.ask("ModifyListener", json!({"ListenerArn": passthrough, "MutualAuthentication": {"Mode": "passthrough"}}));
    for listener in [off, passthrough] {
        assert_eq!(account.status(&listener, &plain(&stranger)), "-");
    }
    let mut ignoring = verify(&listener, &arn);
    ignoring["MutualAuthentication"]["IgnoreClientCertificateExpiry"] = json!(true);
    account.ask("ModifyListener", ignoring);
    assert_eq!(account.status(&listener, &changed(&trusted, &late)), "Success");
    assert_eq!(account.status(&listener, &changed(&trusted, &early)), "Failed:ClientCertNotYetValid");
    assert_eq!(account.status(&listener, &chain(plain(&old), &[&old])), "Failed:ClientCertExpired", "the leaf's expiry only");
    let unknown = tls_verify_status(&mut account.world, START, "none", "").unwrap_err();
    assert_eq!(unknown.code, "ListenerNotFound");
}

#[test]
fn a_client_is_let_in_while_the_store_has_both_roots_and_a_list_is_in_force_until_it_is_removed() {
    let mut account = Account::new();
    let (old, new) = (root("Root"), root("Root"));
    let arn = account.trust_store("clients", &(pem(&old) + &pem(&new)));
    let listener = account.verifying_listener(8443, &arn);
    let leaf = |issuer: &Authority| {
        let mut params = client_params("orders");
        params.serial_number = Some(SerialNumber::from_slice(&[1]));
        client(issuer, params)
    };
    let (of_old, of_new) = (leaf(&old), leaf(&new));
    assert_eq!((account.status(&listener, &of_old), account.status(&listener, &of_new)), ("Success".into(), "Success".into()));
    account.revoke(&arn, &old, &[1]);
    let hit = "Failed:ClientCertCrlHit".to_owned();
    assert_eq!((account.status(&listener, &of_old), account.status(&listener, &of_new)), (hit.clone(), "Success".into()));
    account.now += Duration::days(30);
    assert_eq!(account.status(&listener, &of_old), hit, "beyond its next update");
    account.ask("RemoveTrustStoreRevocations", json!({"TrustStoreArn": arn, "RevocationIds": [1]}));
    assert_eq!(account.status(&listener, &of_old), "Success");
    account.put("bundle", pem(&new));
    account.ask("ModifyTrustStore", from_s3(json!({"TrustStoreArn": arn}), "bundle"));
    assert_eq!(account.status(&listener, &of_old), "Failed:ClientCertUntrusted");
}

#[test]
fn the_path_that_came_furthest_tells() {
    let mut account = Account::new();
    let current = root("Root");
    let mut outgoing = authority_params("Root");
    outgoing.not_after = START + Duration::days(1);
    let outgoing = CertifiedIssuer::self_signed(outgoing, same_key(&current)).unwrap();
    let mut params = client_params("orders");
    params.serial_number = Some(SerialNumber::from_slice(&[1]));
    let leaf = client(&current, params);
    for (name, bundle) in [("first", pem(&outgoing) + &pem(&current)), ("last", pem(&current) + &pem(&outgoing))] {
        account.now = START;
        let arn = account.trust_store(name, &bundle);
        let listener = account.verifying_listener(8443, &arn);
        account.now = START + Duration::days(2);
        assert_eq!(account.status(&listener, &leaf), "Success", "{name}");
        account.revoke(&arn, &current, &[1]);
        assert_eq!(account.status(&listener, &leaf), "Failed:ClientCertCrlHit", "{name}");
    }
}

/// Sends a form as it stands on the wire.
async fn send(aws: &LocalAws, form: &str) -> (u16, String) {
    let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let host = "elasticloadbalancing.eu-central-1.amazonaws.com";
    let request = wire::Request { method: "POST", host, path: "/", query: "", headers, body: form.as_bytes() };
    match wire::reply(aws, "tester", request).await {
        Ok(Reply { status, body, .. }) => (status, String::from_utf8(body).unwrap()),
        Err(NoAnswer::Error(error)) => panic!("{error:?}"),
        Err(NoAnswer::ConnectionReset) => (0, String::new()),
    }
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn the_query_protocol_takes_forms_and_answers_xml() {
    let aws = LocalAws::new(START, StdDuration::ZERO);
    let bundle = pem(&root("Root"));
    aws.world(|world, now| {
        s3::create_bucket(world, BUCKET);
        s3::put(world, now, BUCKET, "a b", bundle.clone().into()).unwrap();
    });
    let create = "Action=CreateTrustStore&Version=2015-12-01&Name=clients&CaCertificatesBundleS3Bucket=everleaf-bundles\
                  &CaCertificatesBundleS3Key=a+b&Tags.member.1.Key=sha%2F256&Tags.member.1.Value=%26&Tags.member.2.Key=x";
    let (status, created) = send(&aws, create).await;
    assert_eq!(status, 200, "{created}");
    assert!(created.contains("<CreateTrustStoreResponse xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/\">"));
    let store = element(element(element(&created, "CreateTrustStoreResult"), "TrustStores"), "member");
    assert_eq!((element(store, "Status"), element(store, "NumberOfCaCertificates")), ("CREATING", "1"));
    let arn = element(store, "TrustStoreArn");
    let (_, tags) = send(&aws, &format!("Action=DescribeTags&Version=2015-12-01&ResourceArns.member.1={arn}")).await;
    assert!(tags.contains("<member><Key>sha/256</Key><Value>&amp;</Value></member><member><Key>x</Key><Value></Value></member>"));
    let listener = aws.world(|world, now| create_listener(world, now, "clients", 8443));
    let modify = format!(
        "Action=ModifyListener&Version=2015-12-01&ListenerArn={listener}&MutualAuthentication.Mode=verify\
         &MutualAuthentication.TrustStoreArn={arn}&MutualAuthentication.IgnoreClientCertificateExpiry=true"
    );
    let (status, refused) = send(&aws, &modify).await;
    assert_eq!((status, element(&refused, "Code"), element(&refused, "Type")), (400, "TrustStoreNotReady", "Sender"));
    tokio::time::sleep(StdDuration::from_secs(5)).await;
    let (status, modified) = send(&aws, &modify).await;
    assert_eq!((status, element(&modified, "IgnoreClientCertificateExpiry")), (200, "true"));
    let remove = format!(
        "Action=RemoveTrustStoreRevocations&Version=2015-12-01&TrustStoreArn={arn}&RevocationIds.member.1=1&RevocationIds.member.2=2"
    );
    assert_eq!(element(&send(&aws, &remove).await.1, "Code"), "RevocationIdNotFound");
    let calls = aws.take_calls();
    let seen: Vec<_> = calls.iter().map(|call| (call.action(), call.writes(), call.error.as_deref())).collect();
    let action = |operation: &str| format!("elasticloadbalancing:{operation}");
    assert_eq!(
        seen,
        [
            (action("CreateTrustStore"), true, None),
            (action("DescribeTags"), false, None),
            (action("ModifyListener"), true, Some("TrustStoreNotReady")),
            (action("ModifyListener"), true, None),
            (action("RemoveTrustStoreRevocations"), true, Some("RevocationIdNotFound")),
        ]
    );
    let tags = json!([{"Key": "sha/256", "Value": "&"}, {"Key": "x"}]);
    assert_eq!(calls[0].input, {
        let mut input = json!({"Name": "clients", "CaCertificatesBundleS3Bucket": BUCKET, "Tags": tags});
        input["CaCertificatesBundleS3Key"] = json!("a b");
        input
    });
    assert_eq!(calls[3].input["MutualAuthentication"]["IgnoreClientCertificateExpiry"], true);
    assert_eq!(calls[4].input["RevocationIds"], json!([1, 2]));
    for (form, code) in [
        ("Action=DescribeTrustStores&Version=2012-06-01", "InvalidAction"),
        ("Action=Nothing&Version=2015-12-01", "InvalidAction"),
        ("Action=DescribeTrustStores&Version=2015-12-01&PageSize=x", "MalformedInput"),
        ("Action=DescribeTrustStores&Version=2015-12-01&Names.member.0=x", "MalformedInput"),
        ("Action=DescribeTrustStores&Version=2015-12-01&Names.member.1001=x", "MalformedInput"),
    ] {
        let (status, refused) = send(&aws, form).await;
        assert_eq!((status, element(&refused, "Code")), (400, code), "{form}");
    }
}

#[tokio::test(start_paused = true)]
async fn faults_and_throttling_speak_the_protocol_too() {
    let aws = LocalAws::new(START, StdDuration::ZERO);
    let describe = "Action=DescribeTrustStores&Version=2015-12-01";
    aws.set_faults(Some(Box::new(|_| Some(Fault::Refuse(AwsError::internal())))));
    let (status, refused) = send(&aws, describe).await;
    assert_eq!((status, element(&refused, "Type"), element(&refused, "Code")), (500, "Receiver", "InternalServerError"));
    let instead = json!({"TrustStores": [{"Name": "a<b"}], "NextMarker": "x"});
    aws.set_faults(Some(Box::new(move |_| Some(Fault::Answer(instead.clone())))));
    let (_, answered) = send(&aws, describe).await;
    assert_eq!(
        element(&answered, "DescribeTrustStoresResult"),
        "<NextMarker>x</NextMarker><TrustStores><member><Name>a&lt;b</Name></member></TrustStores>"
    );
    aws.set_faults(Some(Box::new(|_| Some(Fault::LoseAnswer))));
    assert_eq!(send(&aws, describe).await.0, 0);
    aws.set_faults(None);
    tokio::time::sleep(StdDuration::from_secs(60)).await;
    for _ in 0..40 {
        assert_eq!(send(&aws, describe).await.0, 200);
    }
    let (status, refused) = send(&aws, describe).await;
    assert_eq!((status, element(&refused, "Code"), element(&refused, "Message")), (400, "Throttling", "Rate exceeded"));
}

#[tokio::test(start_paused = true)]
async fn the_urls_of_a_bundle_and_of_a_list_open_what_the_store_holds() {
    let aws = LocalAws::new(START, StdDuration::ZERO);
    let issuer = root("Root");
    let (bundle, list) = (pem(&issuer), revocation_list(&issuer, &[1]).pem().unwrap());
    aws.world(|world, now| {
        s3::create_bucket(world, BUCKET);
        s3::put(world, now, BUCKET, "bundle", bundle.clone().into()).unwrap();
        s3::put(world, now, BUCKET, "crl", list.clone().into()).unwrap();
    });
    let create = from_s3(json!({"Name": "clients"}), "bundle");
    let created = aws.call("elasticloadbalancing:CreateTrustStore", create).await.unwrap();
    let arn = string(&created["TrustStores"][0]["TrustStoreArn"]);
    aws.call("elasticloadbalancing:AddTrustStoreRevocations", revocations(&arn, &["crl"])).await.unwrap();
    for key in ["bundle", "crl"] {
        let delete = json!({"Bucket": BUCKET, "Key": key});
        aws.call("s3:DeleteObject", delete).await.unwrap();
    }
    let rows = [
        ("GetTrustStoreCaCertificatesBundle", json!({"TrustStoreArn": arn}), bundle),
        ("GetTrustStoreRevocationContent", json!({"TrustStoreArn": arn, "RevocationId": 1}), list),
    ];
    for (operation, input, content) in rows {
        let answer = aws.call(&format!("elasticloadbalancing:{operation}"), input).await.unwrap();
        let url = string(&answer["Location"]);
        let (host, rest) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
        assert_eq!(host, "elb-trust-stores.s3.eu-central-1.amazonaws.com");
        let (path, query) = rest.split_once('?').unwrap();
        let path = format!("/{path}");
        let request = wire::Request { method: "GET", host, path: &path, query, headers: vec![], body: b"" };
        let Ok(reply) = wire::reply(&aws, "tester", request).await else { panic!("no answer") };
        assert_eq!((reply.status, String::from_utf8(reply.body).unwrap()), (200, content), "{operation}");
    }
}
