use super::super::tests::*;
use super::super::*;
use super::*;
use crate::pca::revoke;
use crate::s3;

const BUCKET: &str = "crls";

impl Account {
    /// A root that publishes CRLs in [`BUCKET`], and the first one is there.
    fn revoking_root(&mut self, key_algorithm: &str, days: u16) -> String {
        s3::create_bucket(&mut self.world, BUCKET);
        let root = self.root(key_algorithm);
        enable_crl(&mut self.world, self.now, &root, BUCKET, days).expect("CRLs");
        assert_eq!(crl_events(&self.wait(FIRST_CRL)), [json!("success")]);
        root
    }

    fn revoke(&mut self, authority: &str, serial: &str) {
        self.pca("RevokeCertificate", revocation_of(authority, serial, "KEY_COMPROMISE"));
    }

    /// A leaf for so many days, in PEM, with its serial.
    fn leaf(&mut self, authority: &str, days: i64) -> (String, String) {
        let algorithm = self.world.pca.authorities[authority].algorithm.name;
        let more = json!({"SigningAlgorithm": algorithm, "Validity": {"Type": "DAYS", "Value": days}});
        let pem = string(&self.issue(authority, &csr(), more)["Certificate"]);
        let serial = serial_of(&pem);
        (pem, serial)
    }

    fn crl(&self, authority: &str) -> Option<&[u8]> {
        let id = authority.rsplit('/').next().expect("an identifier");
        self.world.s3.object(BUCKET, &format!("crl/{id}.crl"))
    }

    /// What openssl reads in the CRL.
    fn crl_text(&self, authority: &str) -> String {
        let openssl = OpenSsl::with(&[]);
        openssl.write("crl", self.crl(authority).expect("a CRL"));
        openssl.run("crl -inform DER -in crl -noout -text")
    }

    fn crl_number(&self, authority: &str) -> u64 {
        let text = self.crl_text(authority);
        let number = text.split("X509v3 CRL Number: \n").nth(1).and_then(|rest| rest.lines().next()).expect("a number");
        number.trim().parse().expect("a number")
    }
}

fn serial_of(pem: &str) -> String {
    Certificate::all_from_pem(pem.as_bytes()).expect("a certificate")[0].serial.clone()
}

fn revocation_of(authority: &str, serial: &str, reason: &str) -> Value {
    json!({"CertificateAuthorityArn": authority, "CertificateSerial": serial, "RevocationReason": reason})
}

fn crl_events(events: &[Value]) -> Vec<Value> {
    let crl = events.iter().filter(|event| event["detail-type"] == "ACM Private CA CRL Generation");
    crl.map(|event| event["detail"]["result"].clone()).collect()
}

/// How openssl prints a serial in a CRL.
fn printed(serial: &str) -> String {
    format!("Serial Number: {}\n", serial.replace(':', "").to_uppercase())
}

#[test]
fn half_an_hour_after_a_revocation_openssl_finds_the_certificate_in_the_crl() {
    for key_algorithm in ["EC_prime256v1", "EC_secp384r1", "RSA_2048"] {
        let mut account = Account::new();
        let root = account.revoking_root(key_algorithm, 7);
        let (leaf, serial) = account.leaf(&root, 30);
        let (other, _) = account.leaf(&root, 30);
        let root_pem = account.world.pca.certificate(&root).expect("a certificate");
        let openssl = OpenSsl::with(&[("root", &root_pem), ("leaf", &leaf), ("other", &other)]);
        let check = |account: &Account, name: &str| {
            openssl.write("crl", account.crl(&root).expect("a CRL"));
            openssl.run("crl -inform DER -in crl -out crl.pem");
            let time = account.now.unix_timestamp();
            format!("verify -crl_check -x509_strict -attime {time} -CAfile root -CRLfile crl.pem {name}")
        };
        openssl.run(&check(&account, "leaf"));
        assert!(account.crl_text(&root).contains("No Revoked Certificates."));
        // RFC 5280 wants no list then, not an empty one.
        assert!(!openssl.run("asn1parse -inform DER -in crl").contains("l=   0 cons: SEQUENCE"));

        account.revoke(&root, &serial);
        let revoked_at = account.now;
        account.wait(Duration::minutes(30) - Duration::milliseconds(1));
        openssl.run(&check(&account, "leaf"));
        let events = account.wait(Duration::milliseconds(1));
        assert_eq!(crl_events(&events), [json!("success")]);
        assert!(openssl.fails(&check(&account, "leaf")).contains("certificate revoked"));
        openssl.run(&check(&account, "other"));
        openssl.run("crl -inform DER -in crl -noout -CAfile root -verify");

        let text = account.crl_text(&root);
        let minute = |at: OffsetDateTime| format!("{:02}:{:02}:{:02} ", at.hour(), at.minute(), at.second());
        let identifier = openssl.run("x509 -in root -noout -ext subjectKeyIdentifier");
        let identifier = identifier.lines().nth(1).expect("an identifier").trim().to_owned();
        let published_at = account.now;
        for expected in [
            "Version 2 (0x1)".to_owned(),
            format!("Last Update: Nov 22 {}", minute(published_at - Duration::hours(1))),
            format!("Next Update: Nov 29 {}", minute(published_at)),
            identifier,
            format!("X509v3 CRL Number: \n                {}\n", published_at.unix_timestamp_nanos() / 1_000_000),
            printed(&serial),
            format!("Revocation Date: Nov 22 {}", minute(revoked_at)),
            "Key Compromise".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
        assert_eq!(text.matches("Serial Number:").count(), 1);
    }
}

#[test]
fn a_crl_comes_halfway_through_the_last_one_and_its_number_rises() {
    for (days, half) in [(1, Duration::hours(6)), (7, Duration::hours(84)), (5000, Duration::days(2500))] {
        let mut account = Account::new();
        let root = account.revoking_root("EC_prime256v1", days);
        for _ in 0..2 {
            let number = account.crl_number(&root);
            assert_eq!(account.wait(half - Duration::milliseconds(1)), Vec::<Value>::new(), "{days}");
            assert_eq!(crl_events(&account.wait(Duration::milliseconds(1))), [json!("success")], "{days}");
            assert!(account.crl_number(&root) > number);
        }
        // The clock of the CA does not decide alone.
        let number = account.crl_number(&root);
        let revocation = &mut account.world.pca.authorities.get_mut(&root).expect("a CA").revocation;
        (revocation.last, revocation.next) = (Some((number + 1_000, account.now)), Some(account.now));
        publish(&mut account.world, account.now, &root);
        assert_eq!(account.crl_number(&root), number + 1_001);
    }
}

#[test]
fn a_crl_that_cannot_be_written_is_tried_again_every_quarter_of_an_hour() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 7);
    let (_, serial) = account.leaf(&root, 30);
    let bucket = |account: &mut Account, name: &str| {
        let authority = account.world.pca.authorities.get_mut(&root).expect("a CA");
        authority.revocation.configuration["CrlConfiguration"]["S3BucketName"] = json!(name);
    };
    bucket(&mut account, "gone");
    account.revoke(&root, &serial);
    let events = account.wait(Duration::minutes(30));
    let failure = json!({"result": "failure", "reason": "Failed to write CRL to S3. Check your S3 bucket permissions."});
    assert_eq!((&events[1]["detail"], &events[1]["resources"]), (&failure, &json!([root])));
    assert_eq!(account.wait(Duration::minutes(15) - Duration::milliseconds(1)), Vec::<Value>::new());
    assert_eq!(crl_events(&account.wait(Duration::milliseconds(1))), [json!("failure")]);
    bucket(&mut account, BUCKET);
    let events = account.wait(Duration::minutes(15));
    let url = format!("http://crls.s3.eu-central-1.amazonaws.com/crl/{}.crl", root.rsplit('/').next().expect("an identifier"));
    assert_eq!(events[0]["detail"], json!({"result": "success", "CrlUrl": url}));
    assert!(account.crl_text(&root).contains(&printed(&serial)));
}

#[test]
fn an_expired_certificate_is_in_one_more_crl() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 4);
    let (_, short) = account.leaf(&root, 3);
    let (_, long) = account.leaf(&root, 30);
    account.revoke(&root, &short);
    account.revoke(&root, &long);
    account.wait(PUBLICATION_TIME);
    for listed in [true, true, true, false] {
        let text = account.crl_text(&root);
        assert_eq!(text.contains(&printed(&short)), listed, "{}", account.now);
        assert!(text.contains(&printed(&long)));
        account.wait(Duration::days(2));
    }
    // Who enables CRLs later begins with what has not expired.
    let (mut account, days) = (Account::new(), Duration::days(4));
    let root = account.root("EC_prime256v1");
    let serials = [3, 30].map(|days| account.leaf(&root, days).1);
    serials.iter().for_each(|serial| account.revoke(&root, serial));
    account.wait(days);
    s3::create_bucket(&mut account.world, BUCKET);
    enable_crl(&mut account.world, account.now, &root, BUCKET, 7).expect("CRLs");
    account.wait(FIRST_CRL);
    assert_eq!(serials.map(|serial| account.crl_text(&root).contains(&printed(&serial))), [false, true]);
}

#[test]
fn a_serial_may_have_colons_and_leading_zeros() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let forms: [fn(&str) -> String; 4] = [
        str::to_owned,
        |serial| serial.replace(':', ""),
        |serial| format!("00:{}", serial.to_uppercase()),
        |serial| format!("0000{}", serial.replace(':', "")),
    ];
    for form in forms {
        let arn = string(&account.pca("IssueCertificate", order(&root, &csr(), json!({})))["CertificateArn"]);
        account.wait(ISSUANCE_TIME);
        let get = json!({"CertificateAuthorityArn": root, "CertificateArn": arn});
        let serial = serial_of(&string(&account.pca("GetCertificate", get.clone())["Certificate"]));
        let input = revocation_of(&root, &form(&serial), "SUPERSEDED");
        account.pca("RevokeCertificate", input.clone());
        let events = account.wait(Duration::ZERO);
        assert_eq!((events.len(), &events[0]["detail-type"]), (1, &json!("ACM Private CA Certificate Revocation")));
        assert_eq!((&events[0]["resources"], &events[0]["detail"]), (&json!([root, arn]), &json!({"result": "success"})));
        assert_eq!(account.pca_error("RevokeCertificate", input), "RequestAlreadyProcessedException");
        assert_eq!(account.wait(Duration::ZERO), Vec::<Value>::new());
        account.pca("GetCertificate", get);
    }
}

#[test]
fn what_cannot_be_revoked_is_refused() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let (_, serial) = account.leaf(&root, 3);
    let (_, revoked) = account.leaf(&root, 3);
    account.revoke(&root, &revoked);
    let another = account.root("EC_prime256v1");
    let own = serial_of(&account.world.pca.certificate(&root).expect("a certificate"));
    let pending = account.pca("IssueCertificate", order(&root, &csr(), json!({})))["CertificateArn"].clone();
    let pending = string(&pending).rsplit('/').next().expect("a serial").to_owned();
    let rows = [
        ("nonsense", serial.as_str(), "UNSPECIFIED", "InvalidArnException"),
        (&format!("{root}0"), &serial, "UNSPECIFIED", "ResourceNotFoundException"),
        (&another, &serial, "UNSPECIFIED", "ResourceNotFoundException"),
        (&root, "0a", "UNSPECIFIED", "ResourceNotFoundException"),
        (&root, &"f".repeat(128), "UNSPECIFIED", "ResourceNotFoundException"),
        (&root, &"0".repeat(129), "UNSPECIFIED", "ValidationException"),
        (&root, "nonsense", "UNSPECIFIED", "ValidationException"),
        (&root, "", "UNSPECIFIED", "ValidationException"),
        (&root, &serial, "CA_COMPROMISE", "ValidationException"),
        (&root, &own, "UNSPECIFIED", "InvalidRequestException"),
        (&root, &pending, "UNSPECIFIED", "RequestInProgressException"),
    ];
    for (authority, serial, reason, code) in rows {
        let input = revocation_of(authority, serial, reason);
        assert_eq!(account.pca_error("RevokeCertificate", input.clone()), code, "{input}");
    }
    let by_hand = account.create("ROOT", "EC_prime256v1", "SHA256WITHECDSA");
    account.activate(&by_hand, &by_hand, "RootCACertificate", "SHA256WITHECDSA");
    let own = serial_of(&account.world.pca.certificate(&by_hand).expect("a certificate"));
    for _ in 0..2 {
        let input = revocation_of(&by_hand, &own, "UNSPECIFIED");
        assert_eq!(account.pca_error("RevokeCertificate", input), "InvalidRequestException");
        renew_authority(&mut account.world, account.now, &by_hand).expect("another certificate");
    }

    let pending = account.pca("IssueCertificate", order(&root, &csr(), json!({})))["CertificateArn"].clone();
    let pending = string(&pending).rsplit('/').next().expect("a serial").to_owned();
    enable(&mut account.world, account.now, &root, false).expect("disabled");
    account.wait(ISSUANCE_TIME);
    let failed = revocation_of(&root, &pending, "UNSPECIFIED");
    assert_eq!(account.pca_error("RevokeCertificate", failed), "RequestFailedException");
    account.wait(Duration::days(3));
    for (serial, code) in [(serial, "InvalidRequestException"), (revoked, "RequestAlreadyProcessedException")] {
        assert_eq!(account.pca_error("RevokeCertificate", revocation_of(&root, &serial, "UNSPECIFIED")), code);
    }
}

#[test]
fn every_reason_has_its_code_in_the_crl() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 7);
    for (reason, printed_as) in [
        ("KEY_COMPROMISE", "Key Compromise"),
        ("CERTIFICATE_AUTHORITY_COMPROMISE", "CA Compromise"),
        ("AFFILIATION_CHANGED", "Affiliation Changed"),
        ("SUPERSEDED", "Superseded"),
        ("CESSATION_OF_OPERATION", "Cessation Of Operation"),
        ("PRIVILEGE_WITHDRAWN", "Privilege Withdrawn"),
        ("A_A_COMPROMISE", "AA Compromise"),
        ("UNSPECIFIED", ""),
    ] {
        let (_, serial) = account.leaf(&root, 3);
        account.pca("RevokeCertificate", revocation_of(&root, &serial, reason));
        account.wait(PUBLICATION_TIME);
        let text = account.crl_text(&root);
        let entry = text.split(&printed(&serial)).nth(1).expect("an entry");
        let entry = entry.split("Serial Number").next().and_then(|entry| entry.split("Signature Algorithm").next());
        let code = entry.and_then(|entry| entry.split("X509v3 CRL Reason Code: \n").nth(1)).map_or("", str::trim);
        assert_eq!(code, printed_as, "{reason}");
    }
}

#[test]
fn the_state_of_a_ca_decides_on_revocation_and_crls() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 7);
    let leaves = [(); 2].map(|()| account.leaf(&root, 30).1);
    let pending = account.create("ROOT", "EC_prime256v1", "SHA256WITHECDSA");
    let input = revocation_of(&pending, &leaves[0], "SUPERSEDED");
    assert_eq!(account.pca_error("RevokeCertificate", input), "InvalidStateException");

    enable(&mut account.world, account.now, &root, false).expect("disabled");
    account.revoke(&root, &leaves[0]);
    assert_eq!(crl_events(&account.wait(PUBLICATION_TIME)), [json!("success")]);
    assert!(account.crl_text(&root).contains(&printed(&leaves[0])));
    enable(&mut account.world, account.now, &root, true).expect("enabled");

    account.wait(Duration::days(20 * 365));
    assert_eq!(account.status(&root), "EXPIRED");
    let number = account.crl_number(&root);
    assert_eq!(crl_events(&account.wait(Duration::days(30))), Vec::<Value>::new());
    let input = revocation_of(&root, &leaves[1], "SUPERSEDED");
    assert_eq!(account.pca_error("RevokeCertificate", input), "InvalidStateException");
    renew_authority(&mut account.world, account.now, &root).expect("a new certificate");
    assert_eq!(crl_events(&account.wait(FIRST_CRL)), [json!("success")]);
    assert!(account.crl_number(&root) > number);
}

#[test]
fn a_ca_below_a_root_is_revoked_at_the_root() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 7);
    let helper = create_active_subordinate(&mut account.world, account.now, &root, "Issuing", "EC_prime256v1").expect("a CA");
    let by_hand = account.create("SUBORDINATE", "EC_prime256v1", "SHA256WITHECDSA");
    account.activate(&by_hand, &root, "SubordinateCACertificate_PathLen0", "SHA256WITHECDSA");
    renew_authority(&mut account.world, account.now, &helper).expect("a new certificate");
    for issuing in [helper, by_hand] {
        let serial = serial_of(&account.world.pca.certificate(&issuing).expect("a certificate"));
        let input = revocation_of(&issuing, &serial, "SUPERSEDED");
        assert_eq!(account.pca_error("RevokeCertificate", input), "ResourceNotFoundException");
        account.revoke(&root, &serial);
        account.wait(PUBLICATION_TIME);
        assert!(account.crl_text(&root).contains(&printed(&serial)));
        assert_eq!(account.status(&issuing), "ACTIVE");
    }
}

#[test]
fn a_revocation_configuration_is_checked_kept_and_changed() {
    let mut account = Account::new();
    s3::create_bucket(&mut account.world, BUCKET);
    let root = account.root("EC_prime256v1");
    let good = json!({
        "Enabled": true, "ExpirationInDays": 7, "S3BucketName": BUCKET, "S3ObjectAcl": "BUCKET_OWNER_FULL_CONTROL",
        "CustomCname": "crl.example.org", "CustomPath": "pki/issuing", "CrlType": "COMPLETE",
    });
    let with = |member: &str, value: Value| {
        let mut changed = good.clone();
        changed[member] = value;
        changed
    };
    let rows = [
        (with("Enabled", Value::Null), "ValidationException"),
        (with("ExpirationInDays", json!(0)), "ValidationException"),
        (with("ExpirationInDays", json!(5001)), "ValidationException"),
        (with("ExpirationInDays", Value::Null), "InvalidArgsException"),
        (with("S3BucketName", Value::Null), "InvalidArgsException"),
        (with("S3BucketName", json!("no such bucket")), "ValidationException"),
        (with("S3BucketName", json!("elsewhere")), "ValidationException"),
        (with("S3ObjectAcl", Value::Null), "ValidationException"),
        (with("S3ObjectAcl", json!("PUBLIC_READ")), "ValidationException"),
        (with("S3ObjectAcl", json!("PRIVATE")), "ValidationException"),
        (with("CustomCname", json!("http://crl.example.org")), "InvalidArgsException"),
        (with("CustomCname", json!("x".repeat(254))), "ValidationException"),
        (with("CustomPath", json!("/pki")), "ValidationException"),
        (with("CustomPath", json!("p ki")), "ValidationException"),
        (json!({"Enabled": false, "S3ObjectAcl": "PRIVATE"}), "ValidationException"),
        (with("CrlType", json!("PARTITIONED")), "InvalidArgsException"),
        (with("CrlType", json!("DELTA")), "ValidationException"),
    ];
    let keys = json!({"KeyAlgorithm": "EC_prime256v1", "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {"CommonName": "x"}});
    let creation = |crl: &Value| {
        json!({
            "CertificateAuthorityType": "ROOT", "CertificateAuthorityConfiguration": keys,
            "RevocationConfiguration": {"CrlConfiguration": crl},
        })
    };
    let change = |revocation: Value| json!({"CertificateAuthorityArn": root, "RevocationConfiguration": revocation});
    for (crl, code) in rows {
        assert_eq!(account.pca_error("CreateCertificateAuthority", creation(&crl)), code, "{crl}");
        assert_eq!(account.pca_error("UpdateCertificateAuthority", change(json!({"CrlConfiguration": crl}))), code, "{crl}");
    }
    let ocsp = json!({"OcspConfiguration": {"OcspCustomCname": "ocsp.example.org"}});
    assert_eq!(account.pca_error("UpdateCertificateAuthority", change(ocsp)), "ValidationException");
    let described = |account: &mut Account, arn: &str| {
        let answer = account.pca("DescribeCertificateAuthority", json!({"CertificateAuthorityArn": arn}));
        answer["CertificateAuthority"]["RevocationConfiguration"].clone()
    };
    let off = json!({"Enabled": false});
    assert_eq!(described(&mut account, &root), json!({"CrlConfiguration": off, "OcspConfiguration": off}));

    account.pca("UpdateCertificateAuthority", change(json!({"CrlConfiguration": good})));
    let ocsp = json!({"Enabled": true});
    account.pca("UpdateCertificateAuthority", change(json!({"OcspConfiguration": ocsp})));
    assert_eq!(described(&mut account, &root), json!({"CrlConfiguration": good, "OcspConfiguration": ocsp}));
    account.wait(FIRST_CRL);
    let key = |arn: &str, path: &str| format!("{path}{}.crl", arn.rsplit('/').next().expect("an identifier"));
    assert!(account.world.s3.object(BUCKET, &key(&root, "pki/issuing/")).is_some());

    account.pca("UpdateCertificateAuthority", change(json!({"CrlConfiguration": off})));
    assert_eq!(described(&mut account, &root), json!({"CrlConfiguration": off, "OcspConfiguration": ocsp}));
    assert_eq!(account.wait(Duration::days(9)), Vec::<Value>::new());

    // A CA that is made with CRLs has the first one when it is active.
    let created = account.pca("CreateCertificateAuthority", creation(&with("CustomPath", json!("/"))));
    let created = string(&created["CertificateAuthorityArn"]);
    assert_eq!(crl_events(&account.wait(Duration::days(1))), Vec::<Value>::new());
    account.activate(&created, &created, "RootCACertificate", "SHA256WITHECDSA");
    assert_eq!(crl_events(&account.wait(FIRST_CRL)), [json!("success")]);
    assert!(account.world.s3.object(BUCKET, &key(&created, "")).is_some());
}

#[test]
fn certificates_name_where_the_crl_is() {
    let mut account = Account::new();
    let root = account.revoking_root("EC_prime256v1", 7);
    let id = root.rsplit('/').next().expect("an identifier").to_owned();
    let configured = account.world.pca.authorities[&root].revocation.configuration["CrlConfiguration"].clone();
    let rows = [
        (json!({}), Some(format!("URI:http://crls.s3.eu-central-1.amazonaws.com/crl/{id}.crl"))),
        (json!({"CustomCname": "crl.example.org"}), Some(format!("URI:http://crl.example.org/crl/{id}.crl"))),
        (json!({"CustomPath": "pki/x"}), Some(format!("URI:http://crls.s3.eu-central-1.amazonaws.com/pki/x/{id}.crl"))),
        (json!({"CrlDistributionPointExtensionConfiguration": {"OmitExtension": true}}), None),
        (json!({"Enabled": false}), None),
    ];
    let extensions = |pem: &str| OpenSsl::with(&[("pem", pem)]).run("x509 -in pem -noout -text");
    for (more, url) in rows {
        let mut crl = configured.clone();
        crl.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let revocation = json!({"CrlConfiguration": crl});
        account
            .pca("UpdateCertificateAuthority", json!({"CertificateAuthorityArn": root, "RevocationConfiguration": revocation}));
        let text = extensions(&account.leaf(&root, 3).0);
        match &url {
            Some(url) => assert!(text.contains(url) && text.contains("CRL Distribution Points: \n"), "{text}"),
            None => assert!(!text.contains("CRL Distribution Points"), "{text}"),
        }
    }

    enable_crl(&mut account.world, account.now, &root, BUCKET, 7).expect("CRLs");
    let ocsp = json!({"OcspConfiguration": {"Enabled": true}});
    account.pca("UpdateCertificateAuthority", json!({"CertificateAuthorityArn": root, "RevocationConfiguration": ocsp}));
    let arn = account.acm(
        "RequestCertificate",
        json!({"DomainName": "a.example.org", "CertificateAuthorityArn": root, "KeyAlgorithm": "EC_prime256v1"}),
    )["CertificateArn"]
        .clone();
    account.wait(Duration::minutes(1));
    let text = extensions(&string(&account.acm("GetCertificate", json!({"CertificateArn": arn}))["Certificate"]));
    assert!(text.contains(&format!("/crl/{id}.crl")), "{text}");
    assert!(text.contains("OCSP - URI:http://ocsp.acm-pca.eu-central-1.amazonaws.com"), "{text}");
    renew_authority(&mut account.world, account.now, &root).expect("a new certificate");
    let own = extensions(&account.world.pca.certificate(&root).expect("a certificate"));
    assert!(!own.contains("URI:"), "{own}");
}

#[test]
fn acm_shows_as_revoked_what_it_holds_and_its_ca_revoked() {
    for (reason, shown) in [("CERTIFICATE_AUTHORITY_COMPROMISE", "CA_COMPROMISE"), ("KEY_COMPROMISE", "KEY_COMPROMISE")] {
        let mut account = Account::new();
        let root = account.root("EC_prime256v1");
        let request = json!({"DomainName": "a.example.org", "CertificateAuthorityArn": root, "KeyAlgorithm": "EC_prime256v1"});
        let this = json!({"CertificateArn": account.acm("RequestCertificate", request)["CertificateArn"]});
        account.wait(Duration::minutes(1));
        let serial = |account: &mut Account| string(&account.acm("DescribeCertificate", this.clone())["Certificate"]["Serial"]);
        let old = serial(&mut account);
        account.acm("ExportCertificate", json!({"CertificateArn": this["CertificateArn"], "Passphrase": base64("secret99")}));
        account.acm("RenewCertificate", this.clone());
        account.wait(Duration::minutes(2));
        let new = serial(&mut account);
        assert_ne!(old, new);

        account.pca("RevokeCertificate", revocation_of(&root, &old, reason));
        assert_eq!(account.wait(Duration::ZERO).len(), 1);
        let detail = account.acm("DescribeCertificate", this.clone())["Certificate"].clone();
        assert_eq!((&detail["Status"], &detail["RevokedAt"]), (&json!("ISSUED"), &Value::Null));

        account.pca("RevokeCertificate", revocation_of(&root, &new, reason));
        let events = account.wait(Duration::ZERO);
        assert_eq!((&events[1]["detail-type"], events.len()), (&json!("ACM Certificate Revoked"), 2));
        assert_eq!(events[1]["resources"], json!([this["CertificateArn"]]));
        let detail = account.acm("DescribeCertificate", this.clone())["Certificate"].clone();
        assert_eq!((&detail["Status"], &detail["RevocationReason"]), (&json!("REVOKED"), &json!(shown)));
        assert_eq!(detail["RevokedAt"].as_f64().map(|at| at as i64), Some(account.now.unix_timestamp()));
        let listed = account.acm("ListCertificates", json!({"Includes": {"keyTypes": ["EC_prime256v1"]}}));
        assert_eq!(listed["CertificateSummaryList"][0]["RevokedAt"], detail["RevokedAt"]);
    }
}

#[test]
fn a_shared_ca_is_revoked_from_by_its_owner() {
    let mut account = Account::new();
    s3::create_bucket(&mut account.world, BUCKET);
    let root = account.root("EC_prime256v1");
    enable_crl(&mut account.world, account.now, &root, BUCKET, 7).expect("CRLs");
    let shared = share(&mut account.world, account.now, &root, DEFAULT_SHARE).expect("a share");
    account.wait(FIRST_CRL);
    assert!(account.crl(&shared).is_some());
    let (_, serial) = account.leaf(&shared, 30);
    let input = revocation_of(&shared, &serial, "SUPERSEDED");
    assert_eq!(account.pca_error("RevokeCertificate", input), "AccessDeniedException");
    revoke(&mut account.world, account.now, &shared, &serial, "SUPERSEDED").expect("revoked");
    assert_eq!(account.wait(PUBLICATION_TIME), Vec::<Value>::new(), "the events are the owner's");
    assert!(account.crl_text(&shared).contains(&printed(&serial)));
    account.wait(Duration::days(4));
    let last = account.world.pca.authorities[&shared].revocation.last.expect("a CRL");
    assert!(account.now - last.1 < Duration::hours(84));
}
