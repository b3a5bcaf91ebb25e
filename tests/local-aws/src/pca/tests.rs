use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::macros::datetime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::*;
use crate::acm;

pub(crate) const START: OffsetDateTime = datetime!(2026-11-22 06:07:08.25 UTC);

/// An account whose time is moved by hand.
pub(crate) struct Account {
    pub(crate) world: World,
    pub(crate) now: OffsetDateTime,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { world: World::new("111122223333", "eu-central-1"), now: START }
    }

    #[track_caller]
    pub(crate) fn pca(&mut self, operation: &str, input: Value) -> Value {
        call(&mut self.world, self.now, operation, &input).unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    #[track_caller]
    pub(crate) fn pca_error(&mut self, operation: &str, input: Value) -> String {
        call(&mut self.world, self.now, operation, &input).expect_err(operation).code
    }

    #[track_caller]
    pub(crate) fn acm(&mut self, operation: &str, input: Value) -> Value {
        acm::call(&mut self.world, self.now, operation, &input).unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    #[track_caller]
    pub(crate) fn acm_error(&mut self, operation: &str, input: Value) -> AwsError {
        acm::call(&mut self.world, self.now, operation, &input).expect_err(operation)
    }

    /// Lets time pass, and returns the events of that time.
    pub(crate) fn wait(&mut self, time: Duration) -> Vec<Value> {
        let end = self.now + time;
        while let Some(next) = self.world.next_timer().filter(|next| *next <= end) {
            self.world.advance(next);
        }
        self.now = end;
        self.world.take_outbox()
    }

    #[track_caller]
    pub(crate) fn root(&mut self, key_algorithm: &str) -> String {
        create_active_root(&mut self.world, self.now, "Root", key_algorithm).expect("a root")
    }

    pub(super) fn status(&mut self, arn: &str) -> String {
        let authority = self.pca("DescribeCertificateAuthority", json!({"CertificateAuthorityArn": arn}));
        string(&authority["CertificateAuthority"]["Status"])
    }

    pub(super) fn create(&mut self, kind: &str, key_algorithm: &str, signing_algorithm: &str) -> String {
        let subject = json!({"Country": "DE", "Organization": "Größe AG", "CommonName": kind, "Locality": "Ulm"});
        let keys = json!({"KeyAlgorithm": key_algorithm, "SigningAlgorithm": signing_algorithm, "Subject": subject});
        let input = json!({"CertificateAuthorityConfiguration": keys, "CertificateAuthorityType": kind});
        let arn = string(&self.pca("CreateCertificateAuthority", input)["CertificateAuthorityArn"]);
        self.wait(CREATION_TIME);
        arn
    }

    /// Issues from a CSR, waits, and returns the answer of `GetCertificate`.
    #[track_caller]
    pub(super) fn issue(&mut self, authority: &str, csr: &str, more: Value) -> Value {
        let arn = self.pca("IssueCertificate", order(authority, csr, more))["CertificateArn"].clone();
        self.wait(ISSUANCE_TIME);
        self.pca("GetCertificate", json!({"CertificateAuthorityArn": authority, "CertificateArn": arn}))
    }

    /// Certifies `authority` by `issuer` and imports the certificate, as a user does.
    pub(super) fn activate(&mut self, authority: &str, issuer: &str, template: &str, signing_algorithm: &str) {
        let csr = string(&self.pca("GetCertificateAuthorityCsr", json!({"CertificateAuthorityArn": authority}))["Csr"]);
        let template = format!("arn:aws:acm-pca:::template/{template}/V1");
        let years = json!({"Type": "YEARS", "Value": if authority == issuer { 10 } else { 5 }});
        let more = json!({"TemplateArn": template, "Validity": years, "SigningAlgorithm": signing_algorithm});
        let issued = self.issue(issuer, &csr, more);
        self.pca("ImportCertificateAuthorityCertificate", import_of(authority, &issued));
    }
}

pub(super) fn import_of(authority: &str, issued: &Value) -> Value {
    let mut import = json!({"CertificateAuthorityArn": authority, "Certificate": base64(&string(&issued["Certificate"]))});
    if let Some(chain) = issued["CertificateChain"].as_str() {
        import["CertificateChain"] = base64(chain);
    }
    import
}

pub(super) fn order(authority: &str, csr: &str, more: Value) -> Value {
    let mut order = json!({
        "CertificateAuthorityArn": authority, "Csr": base64(csr), "SigningAlgorithm": "SHA256WITHECDSA",
        "Validity": {"Type": "DAYS", "Value": 30},
    });
    order.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    order
}

pub(crate) fn base64(text: &str) -> Value {
    json!(BASE64.encode(text))
}

pub(crate) fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

/// A directory for openssl to work in.
pub(crate) struct OpenSsl(PathBuf);

impl OpenSsl {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("local-aws-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        for (name, content) in files {
            std::fs::write(directory.join(name), content).expect("a file");
        }
        Self(directory)
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &str) -> String {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it says when it fails.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &str) -> String {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().expect("openssl");
        assert!(!output.status.success(), "openssl {arguments} succeeds");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.join(name), content).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("a file")
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A CSR that asks for every kind of name and for much that a template does not give.
pub(super) fn csr() -> String {
    let config = "[req]\ndistinguished_name = subject\nreq_extensions = extensions\nattributes = attributes\nprompt = no\nutf8 = yes\n\
        [subject]\nC = DE\nO = Größe AG\nCN = orders\n[attributes]\nchallengePassword = secret99\nunstructuredName = x\n\
        [extensions]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\nextendedKeyUsage = codeSigning\n\
        1.2.3.4.5 = critical, ASN1:UTF8String:x\ntlsfeature = status_request\nsubjectAltName = @names\n\
        [names]\nDNS = orders.example.internal\nURI = spiffe://example.org/orders\nIP.1 = 10.1.2.3\nIP.2 = 2001:db8::1\n\
        email = ops@example.org\ndirName = subject\notherName = 1.2.3.4;UTF8:x\n";
    let openssl = OpenSsl::with(&[("req.cnf", config)]);
    openssl.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout key -out csr -config req.cnf");
    openssl.read("csr")
}

pub(super) fn der(pem: &str) -> Vec<u8> {
    Pem::iter_from_buffer(pem.as_bytes()).next().expect("PEM").expect("PEM").contents
}

#[test]
fn openssl_accepts_every_chain_and_the_leaf_has_the_names_of_the_csr_byte_for_byte() {
    let csr = csr();
    for (key_algorithm, signing_algorithm) in [
        ("RSA_2048", "SHA256WITHRSA"),
        ("RSA_3072", "SHA512WITHRSA"),
        ("EC_prime256v1", "SHA256WITHECDSA"),
        ("EC_secp384r1", "SHA384WITHECDSA"),
    ] {
        let mut account = Account::new();
        let root = account.create("ROOT", key_algorithm, signing_algorithm);
        account.activate(&root, &root, "RootCACertificate", signing_algorithm);
        let subordinate = account.create("SUBORDINATE", key_algorithm, signing_algorithm);
        account.activate(&subordinate, &root, "SubordinateCACertificate_PathLen0", signing_algorithm);
        assert_eq!(account.status(&subordinate), "ACTIVE");

        let issued_at = account.now;
        let issued = account.issue(&subordinate, &csr, json!({"SigningAlgorithm": signing_algorithm}));
        let (leaf, chain) = (string(&issued["Certificate"]), string(&issued["CertificateChain"]));
        let above = account.pca("GetCertificateAuthorityCertificate", json!({"CertificateAuthorityArn": subordinate}));
        let root_pem = string(&above["CertificateChain"]);
        assert_eq!(chain, format!("{}\n{root_pem}", string(&above["Certificate"])));
        assert_eq!(account.world.pca.certificate(&root), Some(format!("{root_pem}\n")));
        let openssl = OpenSsl::with(&[("root", &root_pem), ("chain", &chain), ("leaf", &leaf)]);
        let time = account.now.unix_timestamp();
        for purpose in ["sslserver", "sslclient"] {
            openssl.run(&format!("verify -x509_strict -purpose {purpose} -attime {time} -CAfile root -untrusted chain leaf"));
        }
        assert!(openssl.run("x509 -in chain -noout -subject").contains("C = DE, O = Gr"));
        assert_eq!(
            openssl.run("x509 -in chain -noout -ext basicConstraints").matches("critical\n    CA:TRUE, pathlen:0").count(),
            1
        );

        let (leaf, csr) = (der(&leaf), der(&csr));
        let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
        let (_, csr) = X509CertificationRequest::from_der(&csr).expect("a CSR");
        assert_eq!(leaf.subject().as_raw(), csr.certification_request_info.subject.as_raw());
        assert_eq!(leaf.public_key().raw, csr.certification_request_info.subject_pki.raw);
        let attributes = csr.certification_request_info.attributes().iter();
        let asked = attributes.map(|attribute| attribute.value.to_vec()).collect::<Vec<_>>().concat();
        let names = leaf.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME).expect("one").expect("names");
        assert!(asked.windows(names.value.len()).any(|window| window == names.value) && !names.critical);
        assert_eq!(leaf.validity().not_before.timestamp(), issued_at.unix_timestamp() - 3600);
        assert_eq!(leaf.validity().not_after.timestamp(), issued_at.unix_timestamp() + 30 * 86_400);
    }
}

#[test]
fn a_leaf_has_the_extensions_of_its_template_and_no_other() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let csr = csr();
    let (server, client) = ("06082b06010505070301", "06082b06010505070302");
    for (template, usages) in [
        ("EndEntityCertificate", format!("3014{server}{client}")),
        ("EndEntityClientAuthCertificate", format!("300a{client}")),
        ("EndEntityServerAuthCertificate", format!("300a{server}")),
    ] {
        let template = format!("arn:aws:acm-pca:::template/{template}/V1");
        let issued = account.issue(&root, &csr, json!({"TemplateArn": template}));
        let (leaf, authority) = (der(&string(&issued["Certificate"])), der(&string(&issued["CertificateChain"])));
        let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
        let (_, authority) = X509Certificate::from_der(&authority).expect("a certificate");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let identifiers = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(hex(identifier.0)),
            _ => None,
        });
        let has: Vec<_> = leaf.extensions().iter().skip(1).map(|e| (e.oid.to_id_string(), e.critical, hex(e.value))).collect();
        let key_identifier = has[2].2.clone();
        let wanted = [
            ("2.5.29.19".to_owned(), false, "3000".to_owned()),
            ("2.5.29.35".to_owned(), false, format!("30168014{}", identifiers.expect("a key identifier"))),
            ("2.5.29.14".to_owned(), false, key_identifier.clone()),
            ("2.5.29.15".to_owned(), true, "030205a0".to_owned()),
            ("2.5.29.37".to_owned(), false, usages),
        ];
        assert_eq!(has, wanted);
        assert!(key_identifier.starts_with("0414") && key_identifier.len() == 44);
        assert_eq!(leaf.extensions()[0].oid, OID_X509_EXT_SUBJECT_ALT_NAME);
        assert_eq!(
            authority.extensions().iter().map(|e| e.oid.to_id_string()).collect::<Vec<_>>(),
            ["2.5.29.19", "2.5.29.14", "2.5.29.15"]
        );
    }
}

#[test]
fn a_certificate_comes_a_moment_after_its_arn_with_an_event() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn = string(&account.pca("IssueCertificate", order(&root, &csr(), json!({})))["CertificateArn"]);
    let get = json!({"CertificateAuthorityArn": root, "CertificateArn": arn});
    assert_eq!(account.wait(ISSUANCE_TIME - Duration::milliseconds(1)), Vec::<Value>::new());
    assert_eq!(account.pca_error("GetCertificate", get.clone()), "RequestInProgressException");
    let events = account.wait(Duration::milliseconds(1));
    assert_eq!(events[0]["detail-type"], "ACM Private CA Certificate Issuance");
    assert_eq!((&events[0]["resources"], &events[0]["detail"]), (&json!([root, arn]), &json!({"result": "success"})));
    let leaf = der(&string(&account.pca("GetCertificate", get)["Certificate"]));
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
    let serial = u128::from_str_radix(&leaf.raw_serial_as_string().replace(':', ""), 16).expect("a serial");
    assert!(arn.ends_with(&format!("/certificate/{serial:032x}")), "{arn}");
    assert!(leaf.raw_serial()[0] < 0x80 && leaf.raw_serial().len() <= 16);
}

#[test]
fn a_token_counts_for_five_minutes() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let input = order(&root, &csr(), json!({"IdempotencyToken": "same"}));
    let first = account.pca("IssueCertificate", input.clone());
    account.wait(Duration::minutes(5) - Duration::milliseconds(1));
    assert_eq!(account.pca("IssueCertificate", input.clone()), first);
    account.wait(Duration::milliseconds(1));
    let second = account.pca("IssueCertificate", input);
    assert_ne!(second, first);
    assert_ne!(account.pca("IssueCertificate", order(&root, &csr(), json!({"IdempotencyToken": "other"}))), second);

    let keys = json!({"KeyAlgorithm": "EC_prime256v1", "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {"CommonName": "x"}});
    let input =
        json!({"CertificateAuthorityConfiguration": keys, "CertificateAuthorityType": "ROOT", "IdempotencyToken": "same"});
    let first = account.pca("CreateCertificateAuthority", input.clone());
    assert_eq!(account.pca("CreateCertificateAuthority", input.clone()), first);
    account.wait(Duration::minutes(5));
    assert_ne!(account.pca("CreateCertificateAuthority", input), first);
}

#[test]
fn a_request_that_private_ca_would_refuse_is_refused() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let csr = csr();
    let tampered = BASE64.encode([&der(&csr)[..60], b"X", &der(&csr)[61..]].concat());
    let tampered = format!("-----BEGIN CERTIFICATE REQUEST-----\n{tampered}\n-----END CERTIFICATE REQUEST-----\n");
    let openssl = OpenSsl::with(&[]);
    openssl.run("req -new -newkey ed25519 -noenc -keyout key -out edwards -subj /CN=x");
    openssl.run("req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout key -out nameless -subj /");
    let template = |name: &str| json!({"TemplateArn": format!("arn:aws:acm-pca:::template/{name}/V1")});
    let validity = |kind: &str, value: i64| json!({"Validity": {"Type": kind, "Value": value}});
    let now = account.now.unix_timestamp();
    let rows = [
        (csr.clone(), json!({"CertificateAuthorityArn": "nonsense"}), "InvalidArnException"),
        (csr.clone(), json!({"CertificateAuthorityArn": format!("{root}0")}), "ResourceNotFoundException"),
        ("nonsense".to_owned(), json!({}), "MalformedCSRException"),
        (tampered, json!({}), "MalformedCSRException"),
        (openssl.read("edwards"), json!({}), "MalformedCSRException"),
        (openssl.read("nameless"), json!({}), "MalformedCSRException"),
        (csr.clone(), json!({"Csr": "?"}), "SerializationException"),
        (csr.clone(), json!({"SigningAlgorithm": "SHA256WITHRSA"}), "InvalidArgsException"),
        (csr.clone(), json!({"SigningAlgorithm": null}), "ValidationException"),
        (csr.clone(), json!({"IdempotencyToken": "x".repeat(37)}), "ValidationException"),
        (csr.clone(), json!({"Validity": null}), "ValidationException"),
        (csr.clone(), validity("DAYS", 0), "ValidationException"),
        (csr.clone(), validity("WEEKS", 1), "ValidationException"),
        (csr.clone(), validity("YEARS", 21), "ValidationException"),
        (csr.clone(), validity("YEARS", i64::MAX), "ValidationException"),
        (csr.clone(), validity("ABSOLUTE", now), "ValidationException"),
        (csr.clone(), validity("END_DATE", 20_261_301_000_000), "ValidationException"),
        (csr.clone(), json!({"ValidityNotBefore": {"Type": "DAYS", "Value": 1}}), "InvalidArgsException"),
        (csr.clone(), json!({"ValidityNotBefore": {"Type": "ABSOLUTE", "Value": now + 31 * 86_400}}), "ValidationException"),
        (csr.clone(), json!({"TemplateArn": "EndEntityCertificate/V1"}), "InvalidArnException"),
        (csr.clone(), template("BlankEndEntityCertificate_APIPassthrough"), "InvalidArgsException"),
        (csr.clone(), template("RootCACertificate"), "InvalidArgsException"),
    ];
    for (csr, more, code) in rows {
        assert_eq!(account.pca_error("IssueCertificate", order(&root, &csr, more.clone())), code, "{more}");
    }
    let subordinate = create_active_subordinate(&mut account.world, START, &root, "Issuing", "EC_prime256v1").expect("a CA");
    let pathlen = template("SubordinateCACertificate_PathLen0");
    assert_eq!(account.pca_error("IssueCertificate", order(&subordinate, &csr, pathlen.clone())), "ValidationException");
    account.issue(&root, &csr, pathlen);
    let issued = account.issue(&root, &csr, validity("DAYS", 20 * 365 - 1));
    assert!(issued["CertificateChain"].is_string());
}

#[test]
fn a_validity_ends_when_it_says() {
    let now = datetime!(2024-01-31 12:00 UTC);
    for (kind, value, end) in [
        ("DAYS", 30_i64, datetime!(2024-03-01 12:00 UTC)),
        ("MONTHS", 1, datetime!(2024-02-29 12:00 UTC)),
        ("MONTHS", 11, datetime!(2024-12-31 12:00 UTC)),
        ("YEARS", 2, datetime!(2026-01-31 12:00 UTC)),
        ("ABSOLUTE", 2_524_608_000, datetime!(2050-01-01 0:00 UTC)),
        ("END_DATE", 491_231_235_959, datetime!(2049-12-31 23:59:59 UTC)),
        ("END_DATE", 50_102_030_405, datetime!(2005-01-02 03:04:05 UTC)),
        ("END_DATE", 500_101_000_000, datetime!(1950-01-01 0:00 UTC)),
        ("END_DATE", 20_500_102_030_405, datetime!(2050-01-02 03:04:05 UTC)),
    ] {
        assert_eq!(validity(now, &json!({"Type": kind, "Value": value})), Ok(end), "{kind} {value}");
    }
}

#[test]
fn a_short_lived_ca_issues_for_seven_days_and_not_through_acm() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    make_short_lived(&mut account.world, &root).expect("a CA");
    let described = account.pca("DescribeCertificateAuthority", json!({"CertificateAuthorityArn": root}));
    assert_eq!(described["CertificateAuthority"]["UsageMode"], "SHORT_LIVED_CERTIFICATE");
    account.issue(&root, &csr(), json!({"Validity": {"Type": "DAYS", "Value": 7}}));
    let longer = order(&root, &csr(), json!({"Validity": {"Type": "DAYS", "Value": 8}}));
    assert_eq!(account.pca_error("IssueCertificate", longer), "ValidationException");
    let names = ["a.example.com".to_owned()];
    let refused = issue_for_acm(&mut account.world, START, &root, &names, "EC_prime256v1", Duration::days(395)).err();
    assert_eq!(refused, Some("PCA_INVALID_DURATION"));
}

#[test]
fn the_state_of_a_ca_decides_what_it_does() {
    let mut account = Account::new();
    let keys = json!({"KeyAlgorithm": "EC_prime256v1", "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {"CommonName": "x"}});
    let input = json!({"CertificateAuthorityConfiguration": keys, "CertificateAuthorityType": "ROOT"});
    let root = string(&account.pca("CreateCertificateAuthority", input)["CertificateAuthorityArn"]);
    let this = json!({"CertificateAuthorityArn": root});
    assert_eq!(account.status(&root), "CREATING");
    assert_eq!(account.pca_error("GetCertificateAuthorityCsr", this.clone()), "RequestInProgressException");
    let events = account.wait(CREATION_TIME);
    assert_eq!((&events[0]["detail-type"], &events[0]["resources"]), (&json!("ACM Private CA Creation"), &json!([root])));
    assert_eq!(account.status(&root), "PENDING_CERTIFICATE");
    let leaf = order(&root, &csr(), json!({}));
    for operation in ["GetCertificateAuthorityCertificate", "UpdateCertificateAuthority"] {
        assert_eq!(account.pca_error(operation, this.clone()), "InvalidStateException", "{operation}");
    }
    assert_eq!(account.pca_error("IssueCertificate", leaf.clone()), "InvalidStateException");

    account.activate(&root, &root, "RootCACertificate", "SHA256WITHECDSA");
    assert_eq!(account.status(&root), "ACTIVE");
    let pending = account.pca("IssueCertificate", leaf.clone())["CertificateArn"].clone();
    enable(&mut account.world, account.now, &root, false).expect("disabled");
    assert_eq!(account.status(&root), "DISABLED");
    assert_eq!(account.pca_error("IssueCertificate", leaf.clone()), "InvalidStateException");
    assert_eq!(account.wait(ISSUANCE_TIME)[0]["detail"], json!({"result": "failure"}));
    let get = json!({"CertificateAuthorityArn": root, "CertificateArn": pending});
    assert_eq!(account.pca_error("GetCertificate", get), "RequestFailedException");
    let itself = account.pca("GetCertificateAuthorityCertificate", this.clone());
    assert_eq!(account.pca_error("ImportCertificateAuthorityCertificate", import_of(&root, &itself)), "InvalidStateException");

    enable(&mut account.world, account.now, &root, true).expect("enabled");
    account.issue(&root, &csr(), json!({}));
    account.wait(Duration::days(10 * 366));
    assert_eq!(account.status(&root), "EXPIRED");
    assert_eq!(account.pca_error("IssueCertificate", leaf), "InvalidStateException");
    assert_eq!(account.pca_error("UpdateCertificateAuthority", this), "InvalidStateException");
    account.activate(&root, &root, "RootCACertificate", "SHA256WITHECDSA");
    assert_eq!(account.status(&root), "ACTIVE");
}

#[test]
fn only_a_fitting_ca_certificate_is_imported() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let issuing = create_active_subordinate(&mut account.world, START, &root, "Issuing", "EC_prime256v1").expect("a CA");
    let subordinate = account.create("SUBORDINATE", "EC_prime256v1", "SHA256WITHECDSA");
    let csr = string(&account.pca("GetCertificateAuthorityCsr", json!({"CertificateAuthorityArn": subordinate}))["Csr"]);
    let as_authority = json!({"TemplateArn": "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1"});
    let good = account.issue(&root, &csr, as_authority);
    let leaf = account.issue(&root, &csr, json!({}));
    let own = account.pca("GetCertificateAuthorityCertificate", json!({"CertificateAuthorityArn": issuing}));
    let namesake = account.root("EC_prime256v1");
    let namesake = account.pca("GetCertificateAuthorityCertificate", json!({"CertificateAuthorityArn": namesake}));
    let with = |certificate: &Value, chain: &Value| json!({"Certificate": certificate, "CertificateChain": chain});
    let rows = [
        (own.clone(), "CertificateMismatchException"),
        (leaf, "MalformedCertificateException"),
        (with(&good["Certificate"], &Value::Null), "InvalidRequestException"),
        (with(&good["Certificate"], &own["Certificate"]), "MalformedCertificateException"),
        (with(&good["Certificate"], &namesake["Certificate"]), "MalformedCertificateException"),
        (with(&json!("nonsense"), &good["CertificateChain"]), "MalformedCertificateException"),
    ];
    for (issued, code) in rows {
        let import = import_of(&subordinate, &issued);
        assert_eq!(account.pca_error("ImportCertificateAuthorityCertificate", import), code, "{issued}");
    }
    // Path length 0 of `issuing` allows no CA below: Private CA itself would not sign this one, openssl's user might.
    let request = Request::from_pem(csr.as_bytes()).expect("a CSR");
    let authority = &account.world.pca.authorities[&issuing];
    let profile = Profile::Authority { path_length: None };
    let order = authority.order(request, profile, [1; 16], account.now, account.now + Duration::days(9));
    let (certificate, chain) = authority.sign(&order).expect("a certificate");
    let deep = with_chain(&certificate, &chain);
    assert_eq!(
        account.pca_error("ImportCertificateAuthorityCertificate", import_of(&subordinate, &deep)),
        "CertificateMismatchException"
    );

    account.pca("ImportCertificateAuthorityCertificate", import_of(&subordinate, &good));
    assert_eq!(account.status(&subordinate), "ACTIVE");
    assert_eq!(
        account.pca_error("ImportCertificateAuthorityCertificate", import_of(&root, &good)),
        "CertificateMismatchException"
    );
}

#[test]
fn permissions_are_given_once_and_lists_come_in_pages() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let permission = json!({"CertificateAuthorityArn": root, "Principal": "acm.amazonaws.com", "Actions": ["IssueCertificate"]});
    assert_eq!(account.pca_error("CreatePermission", permission.clone()), "PermissionAlreadyExistsException");
    account.pca("DeletePermission", permission.clone());
    account.pca("CreatePermission", permission.clone());
    let listed = account.pca("ListPermissions", permission.clone());
    assert_eq!(listed["Permissions"][0]["Actions"], json!(["IssueCertificate"]));
    let names = ["a.example.com".to_owned()];
    let refused = issue_for_acm(&mut account.world, START, &root, &names, "EC_prime256v1", Duration::days(395)).err();
    assert_eq!(refused, Some("PCA_ACCESS_DENIED"));
    let mut other = permission;
    other["Actions"] = json!(["RevokeCertificate"]);
    assert_eq!(account.pca_error("CreatePermission", other), "ValidationException");

    let mut arns = vec![root, account.root("EC_prime256v1"), account.root("EC_prime256v1")];
    arns.sort();
    let first = account.pca("ListCertificateAuthorities", json!({"MaxResults": 2}));
    let second = account.pca("ListCertificateAuthorities", json!({"MaxResults": 2, "NextToken": first["NextToken"]}));
    let both = [&first, &second].map(|page| page["CertificateAuthorities"].as_array().cloned().unwrap_or_default()).concat();
    assert_eq!(both.iter().map(|authority| string(&authority["Arn"])).collect::<Vec<_>>(), arns);
    assert!(second["NextToken"].is_null());
    assert_eq!(account.pca_error("ListCertificateAuthorities", json!({"NextToken": "x"})), "InvalidNextTokenException");
}

#[test]
fn a_renewed_ca_has_another_certificate_for_the_same_key() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let issuing = create_active_subordinate(&mut account.world, START, &root, "Issuing", "EC_prime256v1").expect("a CA");
    let leaf = string(&account.issue(&issuing, &csr(), json!({}))["Certificate"]);
    let certificate = |account: &mut Account, arn: &str| {
        account.pca("GetCertificateAuthorityCertificate", json!({"CertificateAuthorityArn": arn}))
    };
    let old = certificate(&mut account, &issuing);
    let old_root = certificate(&mut account, &root);
    account.wait(Duration::days(7));
    renew_authority(&mut account.world, account.now, &root).expect("a new root");
    renew_authority(&mut account.world, account.now, &issuing).expect("a new certificate");
    let (new, new_root) = (certificate(&mut account, &issuing), certificate(&mut account, &root));
    assert_eq!(new["CertificateChain"], new_root["Certificate"]);
    assert_ne!(old_root["Certificate"], new_root["Certificate"]);
    let text = |value: &Value| string(value);
    let (old, new, new_root) = (text(&old["Certificate"]), text(&new["Certificate"]), text(&new_root["Certificate"]));
    let openssl = OpenSsl::with(&[("old", &old), ("new", &new), ("root", &new_root), ("leaf", &leaf)]);
    let time = account.now.unix_timestamp();
    openssl.run(&format!("verify -x509_strict -attime {time} -CAfile root -untrusted new leaf"));
    let of = |what: &str, name: &str| openssl.run(&format!("x509 -in {name} -noout -{what}"));
    assert_eq!(of("pubkey", "old"), of("pubkey", "new"));
    for what in ["serial", "enddate", "startdate"] {
        assert_ne!(of(what, "old"), of(what, "new"), "{what}");
    }

    account.wait(Duration::days(20 * 365 + 9));
    assert_eq!(account.status(&issuing), "EXPIRED");
    for arn in [&root, &issuing] {
        renew_authority(&mut account.world, account.now, arn).expect("a new certificate");
        assert_eq!(account.status(arn), "ACTIVE");
    }
    enable(&mut account.world, account.now, &issuing, false).expect("disabled");
    let refused = renew_authority(&mut account.world, account.now, &issuing).expect_err("disabled");
    assert_eq!(refused.code, "InvalidStateException");
}

#[test]
fn a_ca_of_another_account_does_what_its_share_allows() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let issuing = create_active_subordinate(&mut account.world, START, &root, "Issuing", "EC_prime256v1").expect("a CA");
    let shared = share(&mut account.world, account.now, &issuing, DEFAULT_SHARE).expect("a share");
    assert_eq!(shared, issuing.replace("111122223333", "999988887777"));

    let list = |account: &mut Account, owner: Value| {
        let listed = account.pca("ListCertificateAuthorities", json!({"ResourceOwner": owner}));
        listed["CertificateAuthorities"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!(list(&mut account, json!("SELF")), list(&mut account, Value::Null));
    assert_eq!(list(&mut account, json!("SELF"))[0]["Arn"], json!(root));
    let others = list(&mut account, json!("OTHER_ACCOUNTS"));
    assert_eq!((others.len(), &others[0]["Arn"], &others[0]["OwnerAccount"]), (1, &json!(shared), &json!("999988887777")));
    assert_eq!(account.pca_error("ListCertificateAuthorities", json!({"ResourceOwner": "NOBODY"})), "ValidationException");

    let this = json!({"CertificateAuthorityArn": shared});
    let from = |name: &str| json!({"TemplateArn": format!("arn:aws:acm-pca:::template/{name}/V1")});
    let rows = [
        ("IssueCertificate", order(&shared, &csr(), from("EndEntityClientAuthCertificate")), true),
        ("IssueCertificate", order(&shared, &csr(), from("SubordinateCACertificate_PathLen0")), true),
        ("IssueCertificate", order(&shared, &csr(), from("EndEntityCertificate")), false),
        ("IssueCertificate", order(&shared, &csr(), json!({})), false),
        ("DescribeCertificateAuthority", this.clone(), false),
        ("GetCertificateAuthorityCertificate", this.clone(), false),
        ("ListPermissions", this.clone(), false),
        ("GetCertificateAuthorityCsr", this.clone(), true),
        ("UpdateCertificateAuthority", this.clone(), true),
        ("ImportCertificateAuthorityCertificate", this.clone(), true),
        ("RevokeCertificate", this.clone(), true),
        ("CreatePermission", this.clone(), true),
        ("DeletePermission", this, true),
    ];
    for (operation, input, denied) in rows {
        match call(&mut account.world, account.now, operation, &input) {
            Ok(_) => assert!(!denied, "{operation} {input}"),
            Err(error) => {
                let message = format!(
                    "User: arn:aws:sts::111122223333:assumed-role/local/local is not authorized to perform: acm-pca:{operation} on \
                     resource: {shared} because no resource-based policy allows the acm-pca:{operation} action"
                );
                assert_eq!((denied, error.code.as_str(), error.message), (true, "AccessDeniedException", message));
            }
        }
    }
    let arn = account.pca("IssueCertificate", order(&shared, &csr(), json!({})))["CertificateArn"].clone();
    assert_eq!(account.wait(ISSUANCE_TIME), Vec::<Value>::new(), "the events are the owner's");
    let issued = account.pca("GetCertificate", json!({"CertificateAuthorityArn": shared, "CertificateArn": arn}));
    assert!(issued["CertificateChain"].is_string());

    let names = ["a.example.com".to_owned()];
    issue_for_acm(&mut account.world, START, &shared, &names, "EC_prime256v1", Duration::days(395)).expect("a certificate");
    let clients = share(&mut account.world, account.now, &root, &["EndEntityClientAuthCertificate/V1"]).expect("a share");
    account.issue(&clients, &csr(), from("EndEntityClientAuthCertificate"));
    assert_eq!(account.pca_error("IssueCertificate", order(&clients, &csr(), json!({}))), "AccessDeniedException");
    let refused = issue_for_acm(&mut account.world, START, &clients, &names, "EC_prime256v1", Duration::days(395)).err();
    assert_eq!(refused, Some("PCA_ACCESS_DENIED"));
}
