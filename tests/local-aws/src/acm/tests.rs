use super::*;
use crate::pca::tests::{Account, OpenSsl, START, base64, string};
use crate::pca::{create_active_subordinate, enable};

impl Account {
    /// Requests a certificate and waits until something has become of it.
    fn request(&mut self, authority: Option<&str>, name: &str, more: Value) -> Value {
        let mut input = json!({"DomainName": name, "KeyAlgorithm": "EC_prime256v1"});
        if let Some(authority) = authority {
            input["CertificateAuthorityArn"] = json!(authority);
        }
        input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let arn = self.acm("RequestCertificate", input)["CertificateArn"].clone();
        self.wait(VALIDATION_TIME);
        arn
    }

    #[track_caller]
    fn describe(&mut self, arn: &Value) -> Value {
        self.acm("DescribeCertificate", json!({"CertificateArn": arn}))["Certificate"].clone()
    }

    #[track_caller]
    fn export(&mut self, arn: &Value) -> Value {
        self.acm("ExportCertificate", json!({"CertificateArn": arn, "Passphrase": base64("secret word")}))
    }

    fn import(&mut self, openssl: &OpenSsl, certificate: &str, key: &str, more: Value) -> Result<Value, AwsError> {
        let mut input = json!({"Certificate": base64(&openssl.read(certificate)), "PrivateKey": base64(&openssl.read(key))});
        input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        call(&mut self.world, self.now, "ImportCertificate", &input)
    }
}

/// `days before the end: event`, of ACM's events alone.
fn calendar(events: &[Value]) -> Vec<String> {
    let events = events.iter().filter(|event| event["source"] == "aws.acm");
    let line = |event: &Value| {
        let what = string(&event["detail-type"]).replace("ACM Certificate ", "");
        format!("{} {what}", event["detail"]["DaysToExpiry"])
    };
    events.map(line).collect()
}

#[test]
fn a_private_certificate_is_issued_some_seconds_after_it_was_requested() {
    let mut account = Account::new();
    let root = account.root("RSA_2048");
    let issuing = create_active_subordinate(&mut account.world, START, &root, "Issuing", "RSA_2048").expect("a CA");
    let input = json!({
        "DomainName": "orders.example.com", "SubjectAlternativeNames": ["orders.example.com", "*.example.com"],
        "CertificateAuthorityArn": issuing, "IdempotencyToken": "abc", "Tags": [{"Key": "team", "Value": "blue"}],
    });
    let arn = account.acm("RequestCertificate", input.clone())["CertificateArn"].clone();
    let pending = account.describe(&arn);
    assert_eq!((&pending["Status"], &pending["NotAfter"]), (&json!("PENDING_VALIDATION"), &Value::Null));
    let this = json!({"CertificateArn": arn, "Passphrase": base64("secret")});
    for operation in ["GetCertificate", "ExportCertificate", "RenewCertificate"] {
        assert_eq!(account.acm_error(operation, this.clone()).code, "RequestInProgressException", "{operation}");
    }
    let events = account.wait(VALIDATION_TIME);
    let available = events.iter().find(|event| event["source"] == "aws.acm").expect("an event");
    assert_eq!(available["detail-type"], "ACM Certificate Available");
    assert_eq!(available["resources"], json!([arn]));
    let detail = json!({
        "Action": "ISSUANCE", "CertificateType": "PRIVATE", "CommonName": "orders.example.com", "DaysToExpiry": 395,
        "CertificateCreatedDate": "2026-11-22T06:07:08Z", "CertificateExpirationDate": "2027-12-22T06:07:16Z",
        "InUse": false, "Exported": false,
    });
    assert_eq!(available["detail"], detail);
    assert!(events.iter().any(|event| event["detail-type"] == "ACM Private CA Certificate Issuance"));

    let described = account.describe(&arn);
    for (member, value) in [
        ("Status", json!("ISSUED")),
        ("Type", json!("PRIVATE")),
        ("DomainName", json!("orders.example.com")),
        ("SubjectAlternativeNames", json!(["orders.example.com", "*.example.com"])),
        ("KeyAlgorithm", json!("RSA-2048")),
        ("SignatureAlgorithm", json!("SHA256WITHRSA")),
        ("Subject", json!("CN=orders.example.com")),
        ("Issuer", json!("Issuing")),
        ("CertificateAuthorityArn", json!(issuing)),
        ("RenewalEligibility", json!("INELIGIBLE")),
        ("InUseBy", json!([])),
        ("KeyUsages", json!([{"Name": "DIGITAL_SIGNATURE"}, {"Name": "KEY_ENCIPHERMENT"}])),
        (
            "ExtendedKeyUsages",
            json!([
                {"Name": "TLS_WEB_SERVER_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.1"},
                {"Name": "TLS_WEB_CLIENT_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.2"},
            ]),
        ),
        ("CreatedAt", json!(START.unix_timestamp() as f64 + 0.25)),
        ("NotAfter", json!((START.unix_timestamp() + 8 + 395 * 86_400) as f64)),
        ("NotBefore", json!((START.unix_timestamp() + 8 - 3600) as f64)),
        ("IssuedAt", Value::Null),
        ("RenewalSummary", Value::Null),
    ] {
        assert_eq!(described[member], value, "{member}");
    }
    let got = account.acm("GetCertificate", json!({"CertificateArn": arn}));
    let openssl = OpenSsl::with(&[("leaf", &string(&got["Certificate"])), ("chain", &string(&got["CertificateChain"]))]);
    let serial = string(&described["Serial"]).replace(':', "").trim_start_matches('0').to_uppercase();
    assert_eq!(openssl.run("x509 -in leaf -noout -serial").trim_end().replace("serial=0", "serial="), format!("serial={serial}"));
    openssl.run(&format!("verify -x509_strict -attime {} -CAfile chain leaf", account.now.unix_timestamp()));

    account.wait(Duration::hours(1) - VALIDATION_TIME - Duration::milliseconds(1));
    assert_eq!(account.acm("RequestCertificate", input.clone())["CertificateArn"], arn);
    account.wait(Duration::milliseconds(1));
    assert_ne!(account.acm("RequestCertificate", input)["CertificateArn"], arn);
}

#[test]
fn what_private_ca_refuses_shows_as_the_reason_of_a_failure() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let disabled = account.root("EC_prime256v1");
    enable(&mut account.world, START, &disabled, false).expect("disabled");
    let unpermitted = account.root("EC_prime256v1");
    account.pca("DeletePermission", json!({"CertificateAuthorityArn": unpermitted, "Principal": "acm.amazonaws.com"}));
    let nowhere = format!("{root}0");
    for (authority, key, reason) in [
        (&disabled, "EC_prime256v1", "PCA_INVALID_STATE"),
        (&unpermitted, "EC_prime256v1", "PCA_ACCESS_DENIED"),
        (&nowhere, "EC_prime256v1", "PCA_RESOURCE_NOT_FOUND"),
        (&root, "RSA_2048", "PCA_INVALID_ARGS"),
    ] {
        let arn = account.request(Some(authority), "a.example.com", json!({"KeyAlgorithm": key}));
        let described = account.describe(&arn);
        assert_eq!((&described["Status"], &described["FailureReason"]), (&json!("FAILED"), &json!(reason)));
        assert_eq!(account.acm_error("GetCertificate", json!({"CertificateArn": arn})).code, "ResourceNotFoundException");
    }
    account.wait(Duration::days(19 * 365));
    let late = account.request(Some(&root), "a.example.com", json!({}));
    assert_eq!(account.describe(&late)["FailureReason"], "PCA_INVALID_DURATION");
}

#[test]
fn a_request_that_acm_would_refuse_is_refused() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let names: Vec<_> = (0..10).map(|number| format!("n{number}.example.com")).collect();
    let tags: Vec<_> = (0..51).map(|number| json!({"Key": format!("k{number}")})).collect();
    for (more, code) in [
        (json!({"DomainName": "localhost"}), "ValidationException"),
        (json!({"DomainName": "a.*.example.com"}), "ValidationException"),
        (json!({"DomainName": format!("{}.{}.com", "a".repeat(40), "b".repeat(40))}), "InvalidParameterException"),
        (json!({"SubjectAlternativeNames": names}), "LimitExceededException"),
        (json!({"SubjectAlternativeNames": ["-a.example.com"]}), "ValidationException"),
        (json!({"KeyAlgorithm": "RSA_4096"}), "ValidationException"),
        (json!({"IdempotencyToken": "a-b"}), "ValidationException"),
        (json!({"CertificateAuthorityArn": "arn:aws:acm:eu-central-1:111122223333:certificate/x"}), "InvalidArnException"),
        (json!({"Options": {"Export": "ENABLED"}}), "ValidationException"),
        (json!({"Tags": tags}), "TooManyTagsException"),
        (json!({"Tags": [{"Key": "aws:x"}]}), "InvalidTagException"),
    ] {
        let mut input = json!({"DomainName": "a.example.com", "CertificateAuthorityArn": root});
        input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        assert_eq!(account.acm_error("RequestCertificate", input).code, code, "{more}");
    }
    for (arn, code) in
        [("nonsense", "InvalidArnException"), ("arn:aws:acm:eu-central-1:1:certificate/x", "ResourceNotFoundException")]
    {
        for operation in ["DescribeCertificate", "GetCertificate", "ExportCertificate", "RenewCertificate", "DeleteCertificate"] {
            assert_eq!(account.acm_error(operation, json!({"CertificateArn": arn})).code, code, "{operation}");
        }
    }
}

#[test]
fn openssl_decrypts_an_export_and_its_key_belongs_to_the_leaf() {
    let mut account = Account::new();
    for key in ["RSA_2048", "EC_prime256v1", "EC_secp384r1"] {
        let root = account.root(key);
        let arn = account.request(Some(&root), "orders.example.com", json!({"KeyAlgorithm": key}));
        let exported = account.export(&arn);
        let private_key = string(&exported["PrivateKey"]);
        assert!(private_key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        let (leaf, chain) = (string(&exported["Certificate"]), string(&exported["CertificateChain"]));
        let openssl = OpenSsl::with(&[("key", &private_key), ("leaf", &leaf), ("chain", &chain), ("word", "secret word")]);
        openssl.run("pkcs8 -in key -passin file:word -out plain");
        assert_eq!(openssl.run("pkey -in plain -pubout"), openssl.run("x509 -in leaf -noout -pubkey"));
        openssl.run(&format!("verify -attime {} -CAfile chain leaf", account.now.unix_timestamp()));
        let scheme = openssl.run("asn1parse -in key");
        for part in ["PBES2", "PBKDF2", "INTEGER           :0800", "aes-256-cbc"] {
            assert_eq!(scheme.matches(part).count(), 1, "{part} in {scheme}");
        }
        assert!(!scheme.contains("hmac"), "the PRF is the default, and so left out: {scheme}");
        assert_ne!(account.export(&arn)["PrivateKey"], exported["PrivateKey"]);
    }
    let arn = account.acm("ListCertificates", json!({}))["CertificateSummaryList"][0]["CertificateArn"].clone();
    for passphrase in ["abc", "", &"x".repeat(129), "pass#word", "pass$word", "pass%word", "päss"] {
        let refused = account.acm_error("ExportCertificate", json!({"CertificateArn": arn, "Passphrase": base64(passphrase)}));
        assert_eq!(refused.code, "ValidationException", "{passphrase}");
    }
    for passphrase in ["abcd", &"x".repeat(128), " !\"&'()*+,-./:;<=>?@[]^_`{|}~"] {
        account.acm("ExportCertificate", json!({"CertificateArn": arn, "Passphrase": base64(passphrase)}));
    }
}

#[test]
fn a_renewal_is_for_exported_certificates_and_comes_later_under_the_same_arn() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn = account.request(Some(&root), "orders.example.com", json!({}));
    let this = json!({"CertificateArn": arn});
    let refused = account.acm_error("RenewCertificate", this.clone());
    assert_eq!(refused.code, "ValidationException");
    let text =
        format!("Certificate ARN {} has not been exported so it is not eligible for the Renew Certificate API.", string(&arn));
    assert_eq!(refused.message, text);

    let exported = account.export(&arn);
    let before = account.describe(&arn);
    assert_eq!(before["RenewalEligibility"], "ELIGIBLE");
    assert_eq!(account.acm("RenewCertificate", this.clone()), json!({}));
    assert_eq!(account.acm_error("RenewCertificate", this.clone()).code, "RequestInProgressException");
    assert_eq!(account.wait(RENEWAL_TIME - Duration::seconds(1)), Vec::<Value>::new());
    let running = account.describe(&arn);
    assert_eq!(running["RenewalSummary"]["RenewalStatus"], "PENDING_AUTO_RENEWAL");
    assert_eq!(running["Serial"], before["Serial"]);
    assert_eq!(account.export(&arn)["Certificate"], exported["Certificate"]);
    let events = account.wait(Duration::seconds(1));
    let available = events.iter().find(|event| event["source"] == "aws.acm").expect("an event");
    assert_eq!((&available["detail"]["Action"], &available["detail"]["Exported"]), (&json!("RENEWAL"), &json!(true)));
    let after = account.describe(&arn);
    assert_ne!(after["Serial"], before["Serial"]);
    assert_eq!(after["RenewalSummary"]["RenewalStatus"], "SUCCESS");
    assert_eq!(after["RenewalEligibility"], "INELIGIBLE");
    assert_eq!(after["CreatedAt"], before["CreatedAt"]);
    assert_eq!(account.acm_error("RenewCertificate", this.clone()).code, "ValidationException");

    let renewed = account.export(&arn);
    let openssl = OpenSsl::with(&[("old", &string(&exported["Certificate"])), ("new", &string(&renewed["Certificate"]))]);
    assert_ne!(openssl.run("x509 -in old -noout -pubkey"), openssl.run("x509 -in new -noout -pubkey"));
    enable(&mut account.world, account.now, &root, false).expect("disabled");
    account.acm("RenewCertificate", this);
    assert_eq!(calendar(&account.wait(RENEWAL_TIME)), Vec::<String>::new());
    let failed = &account.describe(&arn)["RenewalSummary"];
    assert_eq!((&failed["RenewalStatus"], &failed["RenewalStatusReason"]), (&json!("FAILED"), &json!("PCA_INVALID_STATE")));
}

#[test]
fn who_exports_after_each_renewal_sees_nothing_but_renewals_for_two_years() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn = account.request(Some(&root), "orders.example.com", json!({}));
    account.export(&arn);
    let mut renewals = Vec::new();
    for day in 1..=730 {
        for line in calendar(&account.wait(Duration::days(1))) {
            renewals.push(format!("day {day}: {line}"));
            account.export(&arn);
        }
    }
    assert_eq!(renewals, ["day 336: 395 Available", "day 671: 395 Available"]);
    // In use is as good as exported.
    let used = account.request(Some(&root), "used.example.com", json!({}));
    account.world.acm.set_in_use_by(&string(&used), &["arn:aws:elasticloadbalancing:eu-central-1:111122223333:loadbalancer/x"]);
    assert_eq!(account.acm_error("DeleteCertificate", json!({"CertificateArn": used})).code, "ResourceInUseException");
    let events = account.wait(Duration::days(336));
    let available = events.iter().find(|event| event["resources"][0] == used).expect("an event");
    assert_eq!((&available["detail"]["Action"], &available["detail"]["InUse"]), (&json!("RENEWAL"), &json!(true)));
}

#[test]
fn who_never_exports_is_warned_daily_from_45_days_and_then_told_of_the_end() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn = account.request(Some(&root), "orders.example.com", json!({}));
    let mut wanted: Vec<_> = (1..=45).rev().map(|days| format!("{days} Approaching Expiration")).collect();
    wanted.push("null Expired".into());
    let events = account.wait(Duration::days(730));
    assert_eq!(calendar(&events), wanted);
    assert_eq!(events[0]["detail"], json!({"DaysToExpiry": 45, "CommonName": "orders.example.com"}));
    assert_eq!((&events[0]["time"], &events[45]["time"]), (&json!("2027-11-07T06:07:16Z"), &json!("2027-12-22T06:07:16Z")));
    let expired = json!({
        "CertificateType": "PRIVATE", "CommonName": "orders.example.com", "CertificateCreatedDate": "2026-11-22T06:07:08Z",
        "CertificateExpirationDate": "2027-12-22T06:07:16Z", "InUse": false, "Exported": false,
    });
    assert_eq!(events[45]["detail"], expired);
    assert_eq!(account.describe(&arn)["Status"], "EXPIRED");
    let export = json!({"CertificateArn": arn, "Passphrase": base64("secret")});
    assert_eq!(account.acm_error("ExportCertificate", export).code, "ValidationException");
}

#[test]
fn a_renewal_that_fails_is_tried_daily_and_calls_for_action_on_five_days() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn = account.request(Some(&root), "orders.example.com", json!({}));
    account.export(&arn);
    enable(&mut account.world, account.now, &root, false).expect("disabled");
    assert_eq!(calendar(&account.wait(Duration::days(336))), Vec::<String>::new());
    let summary = account.describe(&arn)["RenewalSummary"].clone();
    assert_eq!(
        (&summary["RenewalStatus"], &summary["RenewalStatusReason"]),
        (&json!("PENDING_AUTO_RENEWAL"), &json!("PCA_INVALID_STATE"))
    );
    let events = account.wait(Duration::hours(29 * 24 + 12));
    let actions: Vec<_> =
        events.iter().filter(|event| event["detail-type"] == "ACM Certificate Renewal Action Required").collect();
    let detail = json!({
        "CertificateType": "PRIVATE", "CommonName": "orders.example.com", "RenewalStatusReason": "PCA_INVALID_STATE",
        "DaysToExpiry": 45, "CertificateCreatedDate": "2026-11-22T06:07:08Z", "CertificateExpirationDate": "2027-12-22T06:07:16Z",
        "InUse": false, "Exported": true,
    });
    assert_eq!(actions[0]["detail"], detail);
    assert_eq!(actions.iter().map(|event| event["detail"]["DaysToExpiry"].clone()).collect::<Vec<_>>(), [45, 30]);
    // The next daily attempt after the CA is back succeeds, and the warnings end.
    enable(&mut account.world, account.now, &root, true).expect("enabled");
    assert_eq!(calendar(&account.wait(Duration::days(60))), ["29 Approaching Expiration", "395 Available"]);

    account.export(&arn);
    account.world.acm.renewal_fails = Some("PCA_REQUEST_FAILED".into());
    let events = account.wait(Duration::days(400));
    let days: Vec<_> = events
        .iter()
        .filter(|event| event["detail"]["RenewalStatusReason"] == "PCA_REQUEST_FAILED")
        .map(|event| event["detail"]["DaysToExpiry"].clone())
        .collect();
    assert_eq!(days, [45, 30, 15, 3, 1]);
    let described = account.describe(&arn);
    assert_eq!((&described["Status"], &described["RenewalSummary"]["RenewalStatus"]), (&json!("EXPIRED"), &json!("FAILED")));
}

#[test]
fn a_public_certificate_is_exported_if_it_was_requested_so_and_renewed_at_45_days() {
    let mut account = Account::new();
    let options = json!({"Options": {"Export": "ENABLED"}, "ValidationMethod": "DNS"});
    let arn = account.request(None, "www.example.com", options);
    let plain = account.request(None, "www.example.com", json!({}));
    let described = account.describe(&arn);
    assert_eq!((&described["Type"], &described["Issuer"]), (&json!("AMAZON_ISSUED"), &json!("Amazon")));
    assert_eq!(described["ExtendedKeyUsages"], json!([{"Name": "TLS_WEB_SERVER_AUTHENTICATION", "OID": "1.3.6.1.5.5.7.3.1"}]));
    assert_eq!(described["Options"]["Export"], "ENABLED");
    assert_eq!(described["DomainValidationOptions"][0]["ValidationStatus"], "SUCCESS");
    assert!(described["IssuedAt"].is_f64());
    let refused = account.acm_error("ExportCertificate", json!({"CertificateArn": plain, "Passphrase": base64("secret")}));
    assert_eq!(refused.code, "ValidationException");
    account.acm("DeleteCertificate", json!({"CertificateArn": plain}));

    account.export(&arn);
    let events = account.wait(Duration::days(198));
    assert_eq!(calendar(&events), ["198 Available"]);
    assert_eq!(events[0]["time"], "2027-04-24T06:08:16Z");
    assert_eq!(events[0]["detail"]["DomainValidationMethod"], "DNS");
    let mut wanted: Vec<_> = (1..=30).rev().map(|days| format!("{days} Approaching Expiration")).collect();
    wanted.push("null Expired".into());
    assert_eq!(calendar(&account.wait(Duration::days(198))), wanted);
}

#[test]
fn the_account_decides_when_warnings_begin() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    account.request(Some(&root), "orders.example.com", json!({}));
    assert_eq!(account.acm("GetAccountConfiguration", json!({})), json!({"ExpiryEvents": {"DaysBeforeExpiry": 45}}));
    let put = |days: i64, token: &str| json!({"ExpiryEvents": {"DaysBeforeExpiry": days}, "IdempotencyToken": token});
    for refused in [put(46, "a"), put(0, "a"), put(5, "a-b"), json!({"ExpiryEvents": {"DaysBeforeExpiry": 5}})] {
        assert_eq!(account.acm_error("PutAccountConfiguration", refused).code, "ValidationException");
    }
    account.acm("PutAccountConfiguration", put(2, "first"));
    account.acm("PutAccountConfiguration", put(9, "first"));
    assert_eq!(account.acm("GetAccountConfiguration", json!({})), json!({"ExpiryEvents": {"DaysBeforeExpiry": 2}}));
    let wanted = ["2 Approaching Expiration", "1 Approaching Expiration", "null Expired"];
    assert_eq!(calendar(&account.wait(Duration::days(400))), wanted);
}

#[test]
fn lists_hide_elliptic_curves_unless_asked_and_come_in_pages() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let first = account.request(Some(&root), "a.example.com", json!({}));
    let second = account.request(Some(&root), "b.example.com", json!({}));
    let third = account.request(Some(&root), "c.example.com", json!({"KeyAlgorithm": "EC_secp384r1"}));
    let failed = account.request(Some(&root), "d.example.com", json!({"KeyAlgorithm": "RSA_2048"}));
    account.export(&first);
    let arns = |answer: &Value| -> Vec<Value> {
        let list = answer["CertificateSummaryList"].as_array().cloned().unwrap_or_default();
        list.iter().map(|summary| summary["CertificateArn"].clone()).collect()
    };
    assert_eq!(arns(&account.acm("ListCertificates", json!({}))), vec![failed.clone()]);
    let all = json!(["RSA_2048", "EC_prime256v1", "EC_secp384r1"]);
    let list = |more: Value| {
        let mut input = json!({"Includes": {"keyTypes": all}});
        input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        input
    };
    let page = account.acm("ListCertificates", list(json!({"MaxItems": 3})));
    assert_eq!(arns(&page), [first.clone(), second.clone(), third.clone()]);
    assert_eq!(arns(&account.acm("ListCertificates", list(json!({"NextToken": page["NextToken"]})))), vec![failed.clone()]);
    let summary = &page["CertificateSummaryList"][0];
    assert_eq!((&summary["KeyAlgorithm"], &summary["Exported"]), (&json!("EC-prime256v1"), &json!(true)));
    assert_eq!((&summary["RenewalEligibility"], &summary["InUse"]), (&json!("ELIGIBLE"), &json!(false)));
    assert_eq!(summary["KeyUsages"], json!(["DIGITAL_SIGNATURE", "KEY_ENCIPHERMENT"]));
    assert_eq!(arns(&account.acm("ListCertificates", list(json!({"CertificateStatuses": ["FAILED"]})))), vec![failed.clone()]);
    let newest = account.acm("ListCertificates", list(json!({"SortBy": "CREATED_AT", "SortOrder": "DESCENDING"})));
    assert_eq!(arns(&newest), [failed, third, second, first]);
    for refused in [json!({"MaxItems": 0}), json!({"MaxItems": 1001}), json!({"NextToken": "x"}), json!({"SortBy": "CREATED_AT"})]
    {
        assert_eq!(account.acm_error("ListCertificates", list(refused)).code, "ValidationException");
    }
}

#[test]
fn an_import_is_checked_and_a_reimport_keeps_the_arn() {
    let mut account = Account::new();
    let openssl = OpenSsl::with(&[]);
    let make =
        "req -x509 -noenc -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -addext subjectAltName=DNS:b.example.com -days 60";
    for name in ["a", "b"] {
        openssl.run(&format!("{make} -subj /O=Shop/CN={name}.example.com -keyout {name}.key -out {name}"));
    }
    for (name, usage) in [("u", "keyUsage=digitalSignature"), ("x", "extendedKeyUsage=serverAuth")] {
        openssl.run(&format!("{make} -subj /CN={name}.example.com -addext {usage} -keyout {name}.key -out {name}"));
    }
    openssl.run("req -x509 -noenc -newkey rsa:2048 -subj /CN=r.example.com -keyout r.key -out r -days 60");
    account.now = Certificate::all_from_pem(openssl.read("r").as_bytes()).expect("certificates")[0].not_before;
    openssl.run("rsa -in r.key -traditional -out r.traditional");
    openssl.run("ec -in b.key -out b.traditional");
    openssl.run("rsa -in r.key -aes128 -passout pass:secret -out r.locked");
    for (certificate, key, more) in [
        ("a", "b.key", json!({})),
        ("a", "a", json!({})),
        ("a.key", "a.key", json!({})),
        ("r", "r.locked", json!({})),
        ("a", "a.key", json!({"CertificateChain": base64(&openssl.read("b"))})),
        ("a", "a.key", json!({"CertificateChain": base64("nonsense")})),
    ] {
        assert_eq!(account.import(&openssl, certificate, key, more).expect_err("refused").code, "ValidationException");
    }
    account.now += Duration::days(61);
    assert_eq!(account.import(&openssl, "a", "a.key", json!({})).expect_err("expired").code, "ValidationException");
    account.now -= Duration::days(61);

    account.import(&openssl, "r", "r.traditional", json!({})).expect("PKCS#1");
    let tags = json!({"Tags": [{"Key": "team", "Value": "blue"}]});
    let arn = account.import(&openssl, "a", "a.key", tags.clone()).expect("an import")["CertificateArn"].clone();
    let events = account.wait(Duration::ZERO);
    assert_eq!((&events[1]["detail"]["Action"], &events[1]["detail"]["CertificateType"]), (&json!("IMPORT"), &json!("IMPORTED")));
    let before = account.describe(&arn);
    assert_eq!(
        (&before["Issuer"], &before["SubjectAlternativeNames"]),
        (&json!("Shop"), &json!(["a.example.com", "b.example.com"]))
    );
    let onto = json!({"CertificateArn": arn});
    assert_eq!(account.import(&openssl, "r", "r.key", onto.clone()).expect_err("another key type").code, "ValidationException");
    for (name, extension) in [("u", "KeyUsage"), ("x", "ExtendedKeyUsage")] {
        let refused = account.import(&openssl, name, &format!("{name}.key"), onto.clone()).expect_err(extension);
        assert!(refused.message.contains(extension), "{refused:?}");
    }
    let tagged = json!({"CertificateArn": arn, "Tags": tags["Tags"]});
    assert_eq!(account.import(&openssl, "b", "b.key", tagged).expect_err("tags").code, "ValidationException");
    let nowhere = json!({"CertificateArn": "arn:aws:acm:eu-central-1:111122223333:certificate/x"});
    assert_eq!(account.import(&openssl, "b", "b.key", nowhere).expect_err("nowhere").code, "ResourceNotFoundException");
    assert_eq!(account.import(&openssl, "b", "b.traditional", onto.clone()).expect("a reimport")["CertificateArn"], arn);
    assert_eq!(account.wait(Duration::ZERO)[0]["detail"]["Action"], "REIMPORT");
    let after = account.describe(&arn);
    assert_eq!((&after["CreatedAt"], &after["Subject"]), (&before["CreatedAt"], &json!("O=Shop, CN=b.example.com")));
    assert_eq!(account.acm("ListTagsForCertificate", onto.clone()), tags);
    let export = json!({"CertificateArn": arn, "Passphrase": base64("secret")});
    assert_eq!(account.acm_error("ExportCertificate", export).code, "ValidationException");
    assert_eq!(account.acm_error("RenewCertificate", onto).code, "ValidationException");
    let events = account.wait(Duration::days(61));
    let warnings = events.iter().filter(|event| event["resources"][0] == arn).count();
    assert_eq!((warnings, account.describe(&arn)["Status"].clone()), (45, json!("EXPIRED")));
}

#[test]
fn tags_are_added_removed_and_limited() {
    let mut account = Account::new();
    let root = account.root("EC_prime256v1");
    let arn =
        account.request(Some(&root), "a.example.com", json!({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]}));
    let with = |tags: Value| json!({"CertificateArn": arn, "Tags": tags});
    account.acm("AddTagsToCertificate", with(json!([{"Key": "b", "Value": "3"}, {"Key": "c"}])));
    account.acm("RemoveTagsFromCertificate", with(json!([{"Key": "a"}, {"Key": "b", "Value": "2"}])));
    let tags = json!([{"Key": "b", "Value": "3"}, {"Key": "c", "Value": ""}]);
    assert_eq!(account.acm("ListTagsForCertificate", json!({"CertificateArn": arn}))["Tags"], tags);
    let many: Vec<_> = (0..49).map(|number| json!({"Key": format!("k{number}")})).collect();
    assert_eq!(account.acm_error("AddTagsToCertificate", with(json!(many))).code, "TooManyTagsException");
    account.acm("DeleteCertificate", json!({"CertificateArn": arn}));
    assert_eq!(account.acm_error("DescribeCertificate", json!({"CertificateArn": arn})).code, "ResourceNotFoundException");
    assert_eq!(account.wait(Duration::days(400)), Vec::<Value>::new());
}
