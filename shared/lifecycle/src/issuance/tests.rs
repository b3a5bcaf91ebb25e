use serde_json::json;

use super::*;
use crate::import::Imported;
use crate::leaf::Serial;
use crate::record::Pair;
use crate::revocation::{Reason, Revocation};
use crate::samples::{self, CA, DAY, HOUR, IN_ACM, arn, at, exported, halt, issued, pair};
use crate::setback::Setback;

const NOW: &str = "2026-11-10T06:00:00.75Z";
const OTHER_CA: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/33333333-3333-3333-3333-333333333333";
const FOREIGN_CA: &str = "arn:aws:acm-pca:eu-central-1:999999999999:certificate-authority/11111111-1111-1111-1111-111111111111";

fn policy() -> Policy {
    Policy {
        issuing_ca: Some(arn(CA)),
        other_cas: [arn(OTHER_CA)].into(),
        successors: Successors::default(),
        names: ["example.com", "10.0.0.0/8", "2001:db8::/32"].map(|scope| scope.parse().unwrap()).into(),
        trust_domains: ["example.com".to_owned()].into(),
        key_algorithms: [KeyAlgorithm::EcPrime256v1, KeyAlgorithm::Rsa2048].into(),
        longest_validity: DAY * 90,
        sweep_interval: HOUR,
    }
}

fn anything_goes() -> Policy {
    let key_algorithms = KeyAlgorithm::ALL.into();
    Policy { names: Vec::new(), trust_domains: BTreeSet::new(), key_algorithms, ..policy() }
}

/// The request that is ordered as [`samples::issued`] is, with `fields` put over it.
fn request(fields: &Value) -> Value {
    let mut request = json!({
        "name": "orders-mtls",
        "subject": {"common_name": "orders"},
        "subject_alternative_names": ["dns:orders.example.com"]
    });
    for (field, value) in fields.as_object().unwrap() {
        request[field] = value.clone();
    }
    request
}

fn ordered(request: &Value, policy: &Policy) -> Order {
    order(request, policy, at(NOW)).unwrap_or_else(|refusal| panic!("{request}: {refusal}"))
}

fn reasons(request: &Value, policy: &Policy) -> Vec<String> {
    order(request, policy, at(NOW)).err().unwrap_or_else(|| panic!("{request} is accepted")).reasons
}

/// Each reason is about its field and says its part.
fn assert_reasons(what: &dyn std::fmt::Display, said: &[String], expected: &[(&str, &str)]) {
    assert_eq!(said.len(), expected.len(), "{what}: {said:#?}");
    for (said, (field, part)) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("{field}: ")) && said.contains(part), "{what}: {said}");
    }
}

#[test]
fn a_request_of_names_alone_gets_the_defaults() {
    assert_eq!(
        ordered(&request(&json!({})), &policy()),
        Order {
            name: "orders-mtls".parse().unwrap(),
            specification: samples::specification(),
            end: None,
            options: Options::default(),
            import_into: None,
            csr: None,
            replace: false,
            dry_run: false,
        }
    );
}

#[test]
fn every_field_of_a_request_is_in_the_order() {
    let all = json!({
        "name": "team/orders",
        "subject": {
            "common_name": "c".repeat(64), "organization": "Ö".repeat(64), "organizational_unit": "Payments", "country": "DE",
            "state": "S".repeat(128), "locality": "München"
        },
        "subject_alternative_names": [
            "dns:Orders.example.com", "uri:spiffe://example.com/orders", "ip:10.1.2.3", "ip:2001:DB8::1", "email:ops@example.com"
        ],
        "key_algorithm": "RSA_2048",
        "usage": "client-and-server",
        "validity": {"hours": 1000},
        "certificate_authority_arn": OTHER_CA,
        "services": [
            "payments/orders", "arn:aws:ecs:eu-central-1:111122223333:service/payments/refunds",
            {"service": "payments/mesh", "reload": "agent"}, {"service": "payments/edge"},
            {"service": "payments/billing", "reload": "deployment"}
        ],
        "key_format": "plain",
        "renew_before": {"days": 3},
        "import_to_acm": IN_ACM,
        "canary": "payments/edge",
        "maintenance_window": "Sat Sun 01:00-05:00",
        "paused": true,
        "replace": true,
        "dry_run": true
    });
    let text = |text: &str| Some(text.to_owned());
    let expected = Order {
        name: "team/orders".parse().unwrap(),
        specification: Specification {
            subject: Subject {
                common_name: Some("c".repeat(64)),
                organization: Some("Ö".repeat(64)),
                organizational_unit: text("Payments"),
                country: text("DE"),
                state: Some("S".repeat(128)),
                locality: text("München"),
            },
            names: [
                "dns:orders.example.com",
                "uri:spiffe://example.com/orders",
                "ip:10.1.2.3",
                "ip:2001:db8::1",
                "email:ops@example.com",
            ]
            .map(|name| name.parse().unwrap())
            .into(),
            key_algorithm: KeyAlgorithm::Rsa2048,
            usage: Usage::ClientAndServer,
            lifetime: HOUR * 1000,
            certificate_authority_arn: arn(OTHER_CA),
        },
        end: None,
        options: Options {
            services: ["payments/billing", "payments/edge", "payments/orders", "payments/refunds"]
                .map(|name| name.parse().unwrap())
                .into(),
            agent_services: ["payments/mesh".parse().unwrap()].into(),
            key_format: KeyFormat::Plain,
            renew_before: Some(DAY * 3),
            import_to_acm: true,
            canary: Some("payments/edge".parse().unwrap()),
            maintenance_window: Some("Sat Sun 01:00-05:00".parse().unwrap()),
            paused: true,
        },
        import_into: Some(arn(IN_ACM)),
        csr: None,
        replace: true,
        dry_run: true,
    };
    assert_eq!(ordered(&all, &policy()), expected);
}

#[test]
fn null_counts_as_not_given() {
    let nulls = json!({
        "key_algorithm": null, "usage": null, "validity": null, "certificate_authority_arn": null, "services": null, "csr": null,
        "key_format": null, "renew_before": null, "import_to_acm": null, "canary": null, "maintenance_window": null, "paused": null, "replace": null, "dry_run": null,
        "subject": {"common_name": "orders", "organization": null}
    });
    assert_eq!(ordered(&request(&nulls), &policy()), ordered(&request(&json!({})), &policy()));
}

#[test]
fn each_bad_value_is_refused_with_its_field_for_one_reason() {
    let mut services: Vec<Value> = (0..MOST_SERVICES).map(|n| json!(format!("payments/orders-{n}"))).collect();
    services.push(json!({"service": "payments/refunds", "reload": "agent"}));
    for (field, value, refused, part) in [
        ("name", json!(null), "name", "is missing; give"),
        ("name", json!(7), "name", "`7` is not text"),
        ("name", json!("orders client"), "name", "has a character other than"),
        ("subject", json!("CN=orders"), "subject", "is not an object such as"),
        ("subject", json!({"common_name": 7}), "subject.common_name", "`7` is not text"),
        ("subject", json!({"CN": "orders"}), "subject.CN", "is not known; it can be common_name, organization,"),
        ("subject", json!({"common_name": ""}), "subject.common_name", "is not 1 to 64 printable characters"),
        ("subject", json!({"common_name": "c".repeat(65)}), "subject.common_name", "is not 1 to 64 printable characters"),
        ("subject", json!({"organization": " Example"}), "subject.organization", "without space at its ends"),
        ("subject", json!({"organizational_unit": "a\u{0}b"}), "subject.organizational_unit", "printable"),
        ("subject", json!({"state": "S".repeat(129)}), "subject.state", "is not 1 to 128"),
        ("subject", json!({"locality": "Bonn\n"}), "subject.locality", "is not 1 to 128"),
        ("subject", json!({"country": "de"}), "subject.country", "two capital letters"),
        ("subject", json!({"country": "DEU"}), "subject.country", "two capital letters"),
        ("subject", json!({"country": ""}), "subject.country", "two capital letters"),
        ("subject_alternative_names", json!("dns:orders.example.com"), "subject_alternative_names", "is not a list of text"),
        ("subject_alternative_names", json!([7]), "subject_alternative_names", "`7` is not text"),
        ("subject_alternative_names", json!(["orders"]), "subject_alternative_names", "needs one of the prefixes"),
        (
            "subject_alternative_names",
            json!(["dns:a.example.com", "dns:A.example.com"]),
            "subject_alternative_names",
            "\"dns:A.example.com\" stands twice",
        ),
        ("key_algorithm", json!("EC_secp521r1"), "key_algorithm", "is not one of EC_prime256v1, EC_secp384r1,"),
        ("key_algorithm", json!(2048), "key_algorithm", "`2048` is not text"),
        (
            "key_algorithm",
            json!("RSA_4096"),
            "key_algorithm",
            "RSA_4096 is not allowed here; allowed are EC_prime256v1, RSA_2048",
        ),
        ("usage", json!("both"), "usage", "is not one of client, server, client-and-server"),
        ("validity", json!(30), "validity", "30 is not understood; give one of"),
        ("validity", json!({}), "validity", "is not understood"),
        ("validity", json!({"weeks": 4}), "validity", "is not understood"),
        ("validity", json!({"days": 1, "hours": 1}), "validity", "is not understood"),
        ("validity", json!({"days": 0}), "validity", "is not understood"),
        ("validity", json!({"days": -1}), "validity", "is not understood"),
        ("validity", json!({"days": 1.5}), "validity", "is not understood"),
        ("validity", json!({"days": "30"}), "validity", "is not understood"),
        ("validity", json!({"days": 100_001}), "validity", "is not understood"),
        ("validity", json!({"end": "2026-12-01"}), "validity", "is not understood"),
        ("validity", json!({"end": 1_800_000_000}), "validity", "is not understood"),
        ("validity", json!({"end": "2026-11-10T06:00:00Z"}), "validity.end", "is past"),
        ("validity", json!({"days": 91}), "validity", "91 days is longer than the longest allowed, 90 days"),
        ("validity", json!({"hours": 90 * 24 + 1}), "validity", "2161 hours is longer than the longest allowed, 90 days"),
        ("validity", json!({"end": "2027-02-08T06:00:02Z"}), "validity", "is longer than the longest allowed"),
        ("validity", json!({"hours": 8}), "validity", "leaves 2 hours 40 minutes to renew in, less than three sweeps (3 hours)"),
        ("certificate_authority_arn", json!(7), "certificate_authority_arn", "is not an ARN"),
        ("certificate_authority_arn", json!(IN_ACM), "certificate_authority_arn", "is not an ARN of the form"),
        ("certificate_authority_arn", json!(FOREIGN_CA), "certificate_authority_arn", "is not one of the stack's CAs"),
        ("services", json!("payments/orders"), "services", "is not a list such as [\"payments/orders\"]"),
        ("services", json!(["orders"]), "services", "is not a service"),
        ("services", json!([7]), "services", "the service is not a JSON object"),
        ("services", json!(["payments/orders reload=agent"]), "services", "is not a service"),
        ("services", json!([{"service": "orders"}]), "services", "is not a service"),
        ("services", json!([{"reload": "agent"}]), "services", "service: is missing; give it as `cluster/service`"),
        (
            "services",
            json!([{"service": "payments/orders", "reload": "signal"}]),
            "services",
            "reload: `signal` is not one of deployment, agent",
        ),
        ("services", json!([{"service": "payments/orders", "agent": true}]), "services", "agent: is not a field of a service"),
        (
            "services",
            json!([{"service": "a/b", "reload": "agent"}, {"service": "a/b", "reload": "agent"}]),
            "services",
            "stands twice",
        ),
        ("services", json!(["a/b", {"service": "a/b", "reload": "agent"}]), "services", "`a/b` is to reload both"),
        ("services", json!([{"service": "a/b", "reload": "agent"}, "a/b"]), "services", "`a/b` is to reload both"),
        (
            "services",
            json!([{"service": format!("c/{}", "s".repeat(242)), "reload": "agent"}]),
            "services",
            "is longer than the 256 characters of a tag",
        ),
        (
            "services",
            json!(["payments/orders", "arn:aws:ecs:eu-central-1:111122223333:service/payments/orders"]),
            "services",
            "stands twice",
        ),
        ("services", json!(services), "services", "are 36, more than the 35"),
        ("csr", json!(7), "csr", "is not text"),
        ("csr", json!("MIIB"), "csr", "the CSR is not readable: there is no PEM block"),
        ("key_format", json!("der"), "key_format", "is not one of \"encrypted\", \"plain\""),
        ("key_format", json!(true), "key_format", "is not one of"),
        ("renew_before", json!({"end": "2026-12-01T00:00:00Z"}), "renew_before", "is not understood; give {\"hours\": n} or"),
        ("renew_before", json!({"hours": 0}), "renew_before", "is not understood"),
        ("renew_before", json!({"hours": 2}), "renew_before", "leaves 2 hours to renew in, less than three sweeps (3 hours)"),
        ("renew_before", json!({"days": 30}), "renew_before", "30 days is not less than the lifetime, 30 days"),
        ("replace", json!("yes"), "replace", "`\"yes\"` is neither true nor false"),
        ("dry_run", json!(1), "dry_run", "`1` is neither true nor false"),
        ("passphrase", json!("secret"), "passphrase", "is not a field of a request; known are name,"),
    ] {
        let what = format!("{field} {}", value.to_string().chars().take(60).collect::<String>());
        assert_reasons(&what, &reasons(&request(&json!({field: value})), &policy()), &[(refused, part)]);
    }
}

#[test]
fn good_values_at_the_limits_are_taken() {
    let services: Vec<String> = (0..MOST_SERVICES).map(|n| format!("payments/orders-{n}")).collect();
    for (field, value) in [
        ("validity", json!({"days": 90})),
        ("validity", json!({"hours": 9})),
        ("validity", json!({"end": "2027-02-08T06:00:00Z"})),
        ("validity", json!({"end": "2027-02-08T07:00:00+01:00"})),
        ("renew_before", json!({"hours": 3})),
        ("renew_before", json!({"hours": 719})),
        ("services", json!(services)),
        ("services", json!([])),
        ("services", json!([{"service": format!("c/{}", "s".repeat(241)), "reload": "agent"}])),
        ("subject", json!({})),
        ("subject_alternative_names", json!([])),
        ("certificate_authority_arn", json!(CA)),
    ] {
        ordered(&request(&json!({field: value})), &policy());
    }
}

#[test]
fn a_request_wrong_in_every_field_is_told_all_of_it_at_once() {
    let wrong = json!({
        "name": "/",
        "subject": {"common_name": "evil.test", "country": "de", "title": "Dr"},
        "subject_alternative_names": ["dns:evil.test", "dns:a..b", "uri:spiffe://evil.test/x", "ip:192.168.0.1"],
        "key_algorithm": "RSA_4096",
        "usage": "both",
        "validity": {"days": 91},
        "certificate_authority_arn": FOREIGN_CA,
        "services": ["orders"],
        "key_format": "der",
        "renew_before": {"hours": 1},
        "replace": "yes",
        "dry_run": "no",
        "revoke": {}
    });
    let expected = [
        ("name", "an empty part"),
        ("subject.title", "is not known"),
        ("subject_alternative_names", "`dns:a..b`"),
        ("usage", "`both`"),
        ("certificate_authority_arn", "is not one of the stack's CAs"),
        ("services", "`orders`"),
        ("key_format", "\"der\""),
        ("replace", "neither true nor false"),
        ("dry_run", "neither true nor false"),
        ("revoke", "is not a field of a request"),
        ("subject.country", "`de`"),
        ("subject.common_name", "`dns:evil.test`"),
        ("subject_alternative_names", "`dns:evil.test`"),
        ("subject_alternative_names", "`spiffe://evil.test/x`"),
        ("subject_alternative_names", "`ip:192.168.0.1`"),
        ("key_algorithm", "RSA_4096 is not allowed"),
        ("validity", "91 days is longer"),
        ("renew_before", "leaves 1 hours"),
    ];
    let refusal = order(&wrong, &policy(), at(NOW)).unwrap_err();
    assert_reasons(&"everything", &refusal.reasons, &expected);
    assert_eq!(refusal.to_string(), refusal.reasons.join("; "));
}

#[test]
fn what_is_no_request_or_names_nobody_is_refused() {
    assert_eq!(reasons(&json!("orders"), &policy()), ["the request is not a JSON object; give one with at least `name`"]);
    assert_reasons(
        &"nothing",
        &reasons(&json!({}), &policy()),
        &[("name", "is missing"), ("subject", "is empty and there is no")],
    );
    assert_reasons(&"name only", &reasons(&json!({"name": "orders"}), &policy()), &[("subject", "is empty and there is no")]);
    // A name that is wrong is not told to be missing as well.
    let wrong = json!({"name": "orders", "subject_alternative_names": ["dns:a..b"]});
    assert_reasons(&"wrong name", &reasons(&wrong, &policy()), &[("subject_alternative_names", "`dns:a..b`")]);
}

#[test]
fn a_bad_value_is_not_judged_by_what_would_stand_in_its_place() {
    let strict = Policy { key_algorithms: [KeyAlgorithm::Rsa4096].into(), longest_validity: DAY * 7, ..policy() };
    for (field, value, only) in [("key_algorithm", json!("RSA_1024"), "key_algorithm"), ("csr", json!("MIIB"), "csr")] {
        let fields = json!({"validity": {"days": 7}, field: value});
        assert_reasons(&field, &reasons(&request(&fields), &strict), &[(only, "")]);
    }
    let fields = json!({"key_algorithm": "RSA_4096", "validity": "a week"});
    assert_reasons(&"validity", &reasons(&request(&fields), &strict), &[("validity", "is not understood")]);
    let fields = json!({"key_algorithm": "RSA_4096", "validity": {"hours": 8}, "renew_before": "soon"});
    assert_reasons(&"renew_before", &reasons(&request(&fields), &strict), &[("renew_before", "is not understood")]);
}

#[test]
fn a_stack_without_an_issuing_ca_asks_for_one() {
    let without = Policy { issuing_ca: None, ..policy() };
    let said = reasons(&request(&json!({})), &without);
    assert_reasons(&"no CA", &said, &[("certificate_authority_arn", "is missing and the stack has no issuing CA")]);
    ordered(&request(&json!({"certificate_authority_arn": OTHER_CA})), &without);
}

#[test]
fn an_end_date_is_kept_with_the_whole_seconds_left() {
    let order = ordered(&request(&json!({"validity": {"end": "2026-12-01T06:00:00Z"}})), &policy());
    assert_eq!(order.end, Some(at("2026-12-01T06:00:00Z")));
    assert_eq!(order.specification.lifetime, DAY * 21 - Duration::from_secs(1));
    let read: Specification = serde_json::from_value(serde_json::to_value(&order.specification).unwrap()).unwrap();
    assert_eq!(read, order.specification);
}

#[test]
fn names_are_issued_inside_the_policy_only() {
    for (inside, names) in [
        (
            true,
            [
                "dns:example.com",
                "dns:a.b.example.com",
                "dns:*.example.com",
                "dns:EXAMPLE.COM",
                "email:ops@example.com",
                "email:ops@mail.example.com",
                "ip:10.0.0.0",
                "ip:10.255.255.255",
                "ip:2001:db8::",
                "ip:2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "uri:spiffe://example.com",
                "uri:spiffe://example.com/orders",
            ]
            .as_slice(),
        ),
        (
            false,
            &[
                "dns:evilexample.com",
                "dns:example.com.evil.test",
                "dns:*.com",
                "dns:com",
                "dns:localhost",
                "email:ops@evilexample.com",
                "email:example.com@evil.test",
                "ip:9.255.255.255",
                "ip:11.0.0.0",
                "ip:2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "ip:2001:db9::",
                // An IPv4 address in another dress is judged as what it is written as.
                "ip:::ffff:10.0.0.1",
                "uri:spiffe://evil.test/example.com",
                "uri:spiffe://sub.example.com/orders",
                "uri:SPIFFE://example.com/orders",
                "uri:https://example.com/orders",
                "uri:urn:example.com",
            ],
        ),
    ] {
        for name in names {
            let request = request(&json!({"subject_alternative_names": [name]}));
            match inside {
                true => _ = ordered(&request, &policy()),
                false => {
                    assert_reasons(name, &reasons(&request, &policy()), &[("subject_alternative_names", "example.com")]);
                    ordered(&request, &anything_goes());
                }
            }
        }
    }
}

#[test]
fn a_common_name_that_reads_as_a_name_of_another_kind_is_judged_as_one() {
    for inside in [
        "orders",
        "Orders of the payments team",
        "localhost",
        "orders.example.com",
        "*.example.com",
        "Example.COM",
        "10.0.0.1",
        "2001:db8::1",
        "ops@example.com",
        "spiffe://example.com/orders",
        "release 1.2",
        "v1.2",
        "bücher.example.com",
        "Müller & Söhne",
    ] {
        ordered(&request(&json!({"subject": {"common_name": inside}})), &policy());
    }
    for outside in [
        "evil.test",
        "EVIL.test",
        "evilexample.com",
        "*.evil.test",
        // Some take a dot at the end, or an asterisk inside a label, for nothing out of the way.
        "evil.test.",
        "w*.evil.test",
        "*evilexample.com",
        "*example.com",
        "example.*",
        "192.168.0.1",
        "192.168.0.1.",
        "2001:db9::1",
        "ops@evil.test",
        "ops@localhost",
        "spiffe://evil.test/orders",
        "https://example.com/",
        "www..evil.test",
        ".evil.test",
        "*",
        "-evil.test",
        "bücher.evil.test",
        // Cyrillic, full width, a dot of another script, a space of no width
        "еxample.com",
        "ｅvil.test",
        "evil．test",
        "evil\u{200b}.test",
        "öps@evil.test",
    ] {
        let request = request(&json!({"subject": {"common_name": outside}}));
        assert_reasons(&outside, &reasons(&request, &policy()), &[("subject.common_name", "example.com")]);
        ordered(&request, &anything_goes());
    }
}

#[test]
fn networks_hold_addresses_by_their_prefix_alone() {
    for (scope, address, holds) in [
        ("0.0.0.0/0", "ip:203.0.113.9", true),
        ("0.0.0.0/0", "ip:2001:db8::1", false),
        ("::/0", "ip:2001:db8::1", true),
        ("::/0", "ip:203.0.113.9", false),
        ("::/0", "ip:::ffff:203.0.113.9", false),
        ("::/95", "ip:::ffff:203.0.113.9", false),
        ("::ffff:203.0.113.0/120", "ip:::ffff:203.0.113.9", true),
        ("::ffff:203.0.113.0/120", "ip:::ffff:203.0.114.9", false),
        ("10.1.2.3/32", "ip:10.1.2.3", true),
        ("10.1.2.3/32", "ip:10.1.2.4", false),
        ("10.1.2.3/8", "ip:10.9.9.9", true),
        ("10.0.0.0/9", "ip:10.127.255.255", true),
        ("10.0.0.0/9", "ip:10.128.0.0", false),
        ("2001:db8::1/128", "ip:2001:db8::1", true),
        ("2001:db8::1/128", "ip:2001:db8::2", false),
        ("2001:db8::/33", "ip:2001:db8:8000::", false),
        ("10.0.0.0/8", "dns:10.example.com", false),
    ] {
        let scope: NameScope = scope.parse().unwrap();
        assert_eq!(scope.holds(&address.parse().unwrap()), holds, "{scope} {address}");
    }
}

#[test]
fn a_scope_is_a_domain_or_a_network() {
    for (text, reads_as) in [
        ("example.com", "example.com"),
        (".Example.com", "example.com"),
        ("internal", "internal"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8::/32"),
    ] {
        assert_eq!(text.parse::<NameScope>().unwrap().to_string(), reads_as);
    }
    for bad in ["", ".", "*.example.com", "..example.com", "10.0.0.1", "10.0.0.0/33", "2001:db8::/129", "2001:db8::1", "a b"] {
        assert!(bad.parse::<NameScope>().is_err(), "{bad}");
    }
}

#[test]
fn a_callers_csr_is_ordered_as_it_asks() {
    let pem = samples::csr("full");
    let csr = Csr::from_pem(pem).unwrap();
    for beside in [
        json!({}),
        json!({"key_algorithm": "EC_prime256v1"}),
        json!({"subject": {
            "common_name": "orders", "organization": "Example", "organizational_unit": "Payments", "country": "DE",
            "state": "Bayern", "locality": "München"
        }}),
        json!({"subject_alternative_names": [
            "email:Ops@example.com", "ip:2001:db8::1", "ip:10.0.0.1", "uri:spiffe://example.com/orders", "dns:*.example.com",
            "dns:orders.example.com"
        ]}),
    ] {
        let mut request = json!({"name": "orders-mtls", "csr": pem});
        request.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        let order = ordered(&request, &policy());
        assert_eq!(order.csr, Some(CallersCsr { pem: pem.to_owned(), key_fingerprint: csr.key_fingerprint.clone() }));
        assert_eq!((order.specification.subject, order.specification.names), (csr.subject.clone(), csr.names.clone()));
        assert_eq!(order.specification.key_algorithm, KeyAlgorithm::EcPrime256v1);
    }
}

#[test]
fn a_callers_csr_is_judged_by_the_same_policy() {
    let strict =
        Policy { names: vec!["example.org".parse().unwrap()], trust_domains: ["example.org".to_owned()].into(), ..policy() };
    let unknown_key = ("csr", "its key is not one of EC_prime256v1, EC_secp384r1, RSA_2048, RSA_3072, RSA_4096");
    let unsigned = ("csr", "it is not signed by its own key");
    let attributes = ("csr", "has attributes other than one each of CN, O, OU, C, ST and L");
    for (name, policy, expected) in [
        ("key-p256", policy(), &[][..]),
        ("key-rsa2048", policy(), &[]),
        ("names-only", policy(), &[]),
        ("ca-wish", policy(), &[]),
        ("key-p384", anything_goes(), &[]),
        ("key-rsa3072", anything_goes(), &[]),
        ("key-rsa4096", anything_goes(), &[]),
        ("key-p384", policy(), &[("key_algorithm", "EC_secp384r1 is not allowed here")]),
        ("key-rsa4096", policy(), &[("key_algorithm", "RSA_4096 is not allowed here")]),
        ("key-rsa1024", anything_goes(), &[unknown_key]),
        ("key-p521", anything_goes(), &[unknown_key]),
        ("key-ed25519", anything_goes(), &[unknown_key]),
        ("key-rsa-pss", anything_goes(), &[unknown_key]),
        ("key-p256-explicit", anything_goes(), &[unknown_key]),
        ("serial-number", anything_goes(), &[attributes]),
        ("two-units", anything_goes(), &[attributes]),
        ("mail-attribute", anything_goes(), &[attributes]),
        // Its only attribute is one that cannot be read.
        ("bmp-string", anything_goes(), &[attributes, ("subject", "is empty and there is no")]),
        ("lower-country", anything_goes(), &[("subject.organization", "without space"), ("subject.country", "`de`")]),
        ("other-name", anything_goes(), &[("csr", "OtherName(1.3.6.1.4.1.311.20.2.3")]),
        ("dir-name", anything_goes(), &[("csr", "CN=admin"), ("csr", "RegisteredID(1.2.3.4)"), ("csr", "dns:a..b")]),
        ("unreadable-names", anything_goes(), &[("csr", "the extension 2.5.29.17 is not readable")]),
        ("two-requests", anything_goes(), &[("csr", "asks for extensions more than once"), unsigned]),
        ("two-values", anything_goes(), &[("csr", "asks for extensions more than once"), unsigned]),
        ("trailing", anything_goes(), &[("csr", "something follows it in its PEM block")]),
        (
            "full",
            strict,
            &[
                ("subject_alternative_names", "`dns:*.example.com`"),
                ("subject_alternative_names", "`dns:orders.example.com`"),
                ("subject_alternative_names", "`spiffe://example.com/orders`"),
                ("subject_alternative_names", "`ip:10.0.0.1`"),
                ("subject_alternative_names", "`ip:2001:db8::1`"),
                ("subject_alternative_names", "`email:Ops@example.com`"),
            ],
        ),
    ] {
        let request = json!({"name": "orders-mtls", "csr": samples::csr(name)});
        match expected {
            [] => _ = ordered(&request, &policy),
            _ => assert_reasons(&name, &reasons(&request, &policy), expected),
        }
    }
}

#[test]
fn no_csr_obtains_what_the_policy_does_not_allow() {
    let accepted: Vec<_> = samples::hostile()
        .filter(|(_, pem)| order(&json!({"name": "orders-mtls", "csr": pem}), &policy(), at(NOW)).is_ok())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(accepted, [""; 0]);
    assert!(samples::hostile().count() > 100);
}

#[test]
fn what_is_given_beside_a_csr_must_agree_with_it() {
    let disagrees = "is not what the CSR says; leave it out or make them agree";
    for (field, value, part) in [
        ("subject", json!({"common_name": "orders"}), disagrees),
        ("subject", json!({}), disagrees),
        ("subject_alternative_names", json!(["dns:orders.example.com"]), disagrees),
        ("subject_alternative_names", json!([]), disagrees),
        ("key_algorithm", json!("RSA_2048"), disagrees),
        ("key_format", json!("encrypted"), "has no meaning beside a CSR"),
        ("import_to_acm", json!(true), "has no meaning beside a CSR"),
        (
            "services",
            json!([{"service": "payments/orders", "reload": "agent"}]),
            "`payments/orders` has an agent, which needs the key",
        ),
    ] {
        let request = json!({"name": "orders-mtls", "csr": samples::csr("full"), field: value});
        assert_reasons(&field, &reasons(&request, &policy()), &[(field, part)]);
    }
    let all = json!({
        "name": "orders-mtls", "csr": samples::csr("dir-name"), "subject": {"common_name": "evil.test"},
        "subject_alternative_names": ["dns:evil.test"], "key_algorithm": "RSA_2048", "key_format": "plain"
    });
    let fields: Vec<String> =
        reasons(&all, &policy()).iter().filter_map(|said| Some(said.split_once(':')?.0.to_owned())).collect();
    assert_eq!(fields, ["csr", "csr", "csr", "subject", "subject_alternative_names", "key_algorithm", "key_format"]);
}

/// What the order of `fields` means for `record`, in a word.
fn said(fields: &Value, record: &Record, now: &str) -> String {
    let order = order(&request(fields), &anything_goes(), at(now)).unwrap();
    in_a_word(verdict(&order, Some(record), &policy(), at(now)))
}

fn in_a_word(verdict: Result<Verdict, Refusal>) -> String {
    let held = |held: Option<String>| held.map(|why| format!(": {why}")).unwrap_or_default();
    match verdict {
        Ok(Verdict::Unchanged { held: why }) => format!("unchanged{}", held(why)),
        Ok(Verdict::Keep { held: why }) => format!("keep{}", held(why)),
        Ok(Verdict::Issue { reason }) => format!("issue: {reason}"),
        Err(refusal) => {
            let text = refusal.to_string();
            let Some(start) = text.find("differs in ") else { return text };
            text[start..text.find(';').unwrap()].to_owned()
        }
    }
}

#[test]
fn asking_for_what_exists_changes_nothing_and_for_something_else_needs_replace() {
    for (fields, without, with) in [
        (json!({}), "unchanged", "unchanged"),
        (json!({"validity": {"days": 30}, "key_algorithm": "EC_prime256v1", "usage": "client"}), "unchanged", "unchanged"),
        (json!({"validity": {"hours": 720}, "certificate_authority_arn": CA}), "unchanged", "unchanged"),
        (json!({"validity": {"end": "2026-12-01T01:00:59Z"}}), "unchanged", "unchanged"),
        (json!({"validity": {"end": "2026-12-01T01:01:00Z"}}), "differs in validity", "issue: replaced by request"),
        (json!({"validity": {"end": "2026-12-01T00:59:00Z"}}), "differs in validity", "issue: replaced by request"),
        (json!({"validity": {"days": 31}}), "differs in validity", "issue: replaced by request"),
        (json!({"subject": {"common_name": "other"}}), "differs in subject", "issue: replaced by request"),
        (
            json!({"subject_alternative_names": ["dns:other.example.com"]}),
            "differs in subject_alternative_names",
            "issue: replaced by request",
        ),
        (json!({"key_algorithm": "RSA_2048"}), "differs in key_algorithm", "issue: replaced by request"),
        (json!({"usage": "server"}), "differs in usage", "issue: replaced by request"),
        (json!({"certificate_authority_arn": OTHER_CA}), "differs in certificate_authority_arn", "issue: replaced by request"),
        (json!({"key_format": "plain"}), "differs in key_format", "issue: replaced by request"),
        (json!({"services": ["payments/orders"]}), "differs in services", "keep"),
        (json!({"services": [{"service": "payments/orders", "reload": "agent"}]}), "differs in services", "keep"),
        (json!({"renew_before": {"days": 5}}), "differs in renew_before", "keep"),
        (json!({"services": ["payments/orders"], "renew_before": {"days": 5}}), "differs in services, renew_before", "keep"),
        (json!({"services": ["payments/orders"], "usage": "server"}), "differs in usage, services", "issue: replaced by request"),
    ] {
        assert_eq!(said(&fields, &issued(), NOW), without, "{fields}");
        let mut replacing = fields.clone();
        replacing["replace"] = json!(true);
        assert_eq!(said(&replacing, &issued(), NOW), with, "{fields} with replace");
    }
}

#[test]
fn what_is_to_be_imported_is_for_servers_and_says_where_to() {
    let server = |import: Value| request(&json!({"usage": "server", "import_to_acm": import}));
    for (import, wanted, into) in
        [(json!(false), false, None), (json!(true), true, None), (json!(IN_ACM), true, Some(arn(IN_ACM)))]
    {
        let order = ordered(&server(import), &policy());
        assert_eq!((order.options.import_to_acm, order.import_into), (wanted, into));
    }
    let part = "is neither true nor the ARN of a certificate in ACM";
    for import in [json!("yes"), json!(1), json!(CA), json!("arn:aws:acm:eu-central-1:111122223333:something/1")] {
        assert_reasons(&import, &reasons(&server(import.clone()), &policy()), &[("import_to_acm", part)]);
    }
    let client = request(&json!({"import_to_acm": true}));
    assert_reasons(&"client", &reasons(&client, &policy()), &[("import_to_acm", "set `usage` to `server`")]);
}

#[test]
fn a_certificate_can_be_brought_into_acm_later_and_taken_out_of_care() {
    const OTHER: &str = "arn:aws:acm:eu-central-1:111122223333:certificate/3";
    let server = |imported: Option<&str>| {
        let mut record = issued();
        record.origin = Origin::Issued(Specification { usage: Usage::Server, ..samples::specification() });
        record.options.import_to_acm = imported.is_some();
        record.imported = imported.map(|text| Imported { certificate_arn: text.parse().ok(), ..Imported::default() });
        record
    };
    let (differs, key) = ("differs in import_to_acm", "holds the pair too, and ACM takes none of another key algorithm");
    for (what, record, import, without, with) in [
        ("not asked, not there", server(None), json!(false), "unchanged", "unchanged"),
        ("new", server(None), json!(true), differs, "keep"),
        ("into one", server(None), json!(IN_ACM), differs, "keep"),
        ("as it is", server(Some(IN_ACM)), json!(true), "unchanged", "unchanged"),
        ("as it is, by name", server(Some(IN_ACM)), json!(IN_ACM), "unchanged", "unchanged"),
        ("begun, not answered", server(Some("")), json!(true), "unchanged", "unchanged"),
        ("into another", server(Some(IN_ACM)), json!(OTHER), differs, "keep"),
        ("no more", server(Some(IN_ACM)), json!(false), differs, "keep"),
    ] {
        let mut fields = json!({"usage": "server", "import_to_acm": import});
        assert_eq!(said(&fields, &record, NOW), without, "{what}");
        fields["replace"] = json!(true);
        assert_eq!(said(&fields, &record, NOW), with, "{what}, replacing");
    }
    let mut fields = json!({"usage": "server", "import_to_acm": true, "key_algorithm": "RSA_2048", "replace": true});
    let refusal = said(&fields, &server(Some(IN_ACM)), NOW);
    assert!(refusal.starts_with("key_algorithm: ") && refusal.contains(key), "{refusal}");
    fields["import_to_acm"] = json!(OTHER);
    assert_eq!(said(&fields, &server(Some(IN_ACM)), NOW), "issue: replaced by request");
}

#[test]
fn what_was_imported_by_hand_is_replaced_by_who_names_it() {
    let adopted = Record { origin: Origin::Adopted { certificate_arn: arn(IN_ACM) }, current: None, ..issued() };
    for (import, verdict) in [(json!(true), "issue: asked for"), (json!(IN_ACM), "issue: asked for")] {
        assert_eq!(said(&json!({"usage": "server", "import_to_acm": import}), &adopted, NOW), verdict);
    }
    for import in [json!(false), json!("arn:aws:acm:eu-central-1:111122223333:certificate/3")] {
        let refusal = said(&json!({"usage": "server", "import_to_acm": import, "replace": true}), &adopted, NOW);
        assert!(refusal.starts_with("import_to_acm: ") && refusal.contains(IN_ACM), "{refusal}");
    }
}

#[test]
fn what_does_not_exist_is_not_good_or_is_due_is_issued() {
    let due = renewal::due(&issued(), HOUR).unwrap();
    let (before, at_due) = (due - Duration::from_secs(1), due);
    let moment = |at: OffsetDateTime| at.format(&Rfc3339).unwrap();
    let rejected_before = Pair { not_before: at("2026-11-11T00:00:00Z").into(), ..pair() };
    for (what, record, now, expected) in [
        ("before it is due", issued(), &*moment(before), "unchanged"),
        ("when it is due", issued(), &moment(at_due), "issue: due"),
        ("when it has expired", issued(), "2027-06-01T00:00:00Z", "issue: due"),
        ("before it is valid", Record { current: Some(rejected_before), ..issued() }, NOW, "issue: due"),
        ("when nothing is current", Record { current: None, ..issued() }, NOW, "issue: asked for"),
        (
            "while an attempt is unfinished",
            Record { attempt: Some(samples::attempt(at(NOW))), ..issued() },
            NOW,
            "issue: left unfinished",
        ),
        ("after an attempt failed for good", Record { halted: Some(halt(at(NOW))), ..issued() }, NOW, "issue: left unfinished"),
        ("when ACM holds that name", exported(), NOW, "differs in origin"),
    ] {
        assert_eq!(said(&json!({}), &record, now), expected, "{what}");
    }
    assert_eq!(said(&json!({"replace": true}), &exported(), NOW), "issue: replaced by request");
    let new = ordered(&request(&json!({})), &policy());
    assert_eq!(verdict(&new, None, &policy(), at(NOW)), Ok(Verdict::Issue { reason: "asked for" }));
}

#[test]
fn what_is_due_is_not_issued_by_an_order_that_is_paused_outside_its_window_or_soon_after_a_setback() {
    let due = "2026-11-22T06:00:00Z";
    let saturdays = "Sat 01:00-05:00";
    let with =
        |fields: &Value| Record { options: order(&request(fields), &anything_goes(), at(NOW)).unwrap().options, ..issued() };
    let paused = || with(&json!({"paused": true}));
    let halted = |record| Record { halted: Some(halt(at(NOW))), ..record };
    let set_back = |in_a_row| Record { setback: Some(Setback { in_a_row, ..samples::setback() }), ..issued() };
    let early = Record { setback: Some(Setback { at: at("2026-11-10T05:00:00Z").into(), ..samples::setback() }), ..issued() };
    let retired = Record { current: Some(Pair { issuer: Some(arn(OTHER_CA)), ..pair() }), ..paused() };
    let revoked = |after_rollout| {
        let reason = if after_rollout { Reason::Superseded } else { Reason::KeyCompromise };
        let (certificate_authority_arn, asked) = (arn(CA), at(NOW).into());
        let serial = pair().serial;
        vec![Revocation { serial, certificate_authority_arn, reason, asked, after_rollout, done: None, refused: None }]
    };
    let (is_paused, opens) = (json!({"paused": true}), "its maintenance window opens 2026-11-28 01:00 UTC");
    let window = json!({"maintenance_window": saturdays});
    for (what, record, fields, now, expected) in [
        ("paused", paused(), is_paused.clone(), due, "unchanged: it is paused"),
        ("paused and expired", paused(), is_paused.clone(), "2027-06-01T00:00:00Z", "unchanged: it is paused"),
        ("paused and not due", paused(), is_paused.clone(), NOW, "unchanged"),
        ("paused by it", issued(), json!({"paused": true, "replace": true}), due, "keep: it is paused"),
        ("paused no more", paused(), json!({"replace": true}), due, "issue: due"),
        (
            "paused, another one",
            paused(),
            json!({"paused": true, "replace": true, "usage": "server"}),
            due,
            "issue: replaced by request",
        ),
        ("paused, of a CA that is not its own any more", retired, is_paused.clone(), NOW, "unchanged: it is paused"),
        ("paused, a renewal failed for good", halted(paused()), is_paused.clone(), due, "unchanged: it is paused"),
        ("paused, what was asked for failed for good", halted(paused()), is_paused.clone(), NOW, "issue: left unfinished"),
        ("paused and revoked", Record { revocations: revoked(true), ..paused() }, is_paused, NOW, "issue: revoked"),
        ("its window is closed", with(&window), window.clone(), due, &format!("unchanged: {opens}")),
        ("its window is open", with(&window), window.clone(), "2026-11-28T02:00:00Z", "issue: due"),
        ("it has none any more", with(&window), json!({"replace": true}), due, "issue: due"),
        ("a day after a setback", set_back(1), json!({}), "2026-11-23T05:00:00Z", "issue: due"),
        (
            "after a setback",
            set_back(1),
            json!({}),
            due,
            "unchanged: a deployment failed on the last pair; another one may be tried from 2026-11-23 05:00 UTC",
        ),
        (
            "a day after a setback, not due",
            early,
            json!({}),
            "2026-11-11T05:00:00Z",
            "issue: a deployment failed on the pair after it",
        ),
        (
            "after two",
            set_back(2),
            json!({}),
            "2026-11-28T05:00:00Z",
            "unchanged: deployments failed on new pairs in a row; see to its services, then invoke renew-on-expiry with {\"retry\": \"orders-client\"}",
        ),
        ("after two, its key is lost", Record { revocations: revoked(false), ..set_back(2) }, json!({}), due, "issue: due"),
    ] {
        assert_eq!(said(&fields, &record, now).replace("it is due and not renewed now: ", ""), expected, "{what}");
    }
    let ask = json!({"name": "orders-mtls", "csr": samples::csr("key-p256"), "paused": true});
    let callers = order(&ask, &anything_goes(), at(NOW)).unwrap();
    let origin = Origin::CallerKey(callers.specification.clone());
    let key_fingerprint = callers.csr.clone().unwrap().key_fingerprint;
    let current = Some(Pair { key_fingerprint, ..pair() });
    let record = Record { origin, current, options: callers.options.clone(), ..issued() };
    assert_eq!(verdict(&callers, Some(&record), &policy(), at(due)), Ok(Verdict::Issue { reason: "due" }));
}

#[test]
fn a_request_by_end_date_may_be_repeated_before_anything_was_issued() {
    let fields = json!({"validity": {"end": "2026-12-05T00:00:00Z"}});
    let specification = ordered(&request(&fields), &policy()).specification;
    let record = Record { origin: Origin::Issued(specification), current: None, ..issued() };
    for later in [NOW, "2026-11-10T06:01:00Z", "2026-11-10T08:00:00Z"] {
        assert_eq!(said(&fields, &record, later), "issue: asked for", "{later}");
    }
}

#[test]
fn a_refused_replacement_names_the_certificate_and_the_ways_out() {
    let order = ordered(&request(&json!({"usage": "server"})), &policy());
    let refusal = verdict(&order, Some(&issued()), &policy(), at(NOW)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "name: `orders-mtls` exists and differs in usage; ask for what it is, choose another name, or set `replace` to true"
    );
}

#[test]
fn the_same_csr_again_changes_nothing_and_another_key_needs_replace() {
    let ask = |csr: &str, replace: bool| {
        ordered(&json!({"name": "orders-mtls", "csr": samples::csr(csr), "replace": replace}), &anything_goes())
    };
    let first = ask("key-p256", false);
    let key_fingerprint = first.csr.clone().unwrap().key_fingerprint;
    let record = Record {
        origin: Origin::CallerKey(first.specification.clone()),
        current: Some(Pair { key_fingerprint, ..pair() }),
        ..issued()
    };
    let judge =
        |order: &Order, now: &str| verdict(order, Some(&record), &policy(), at(now)).map_err(|refusal| refusal.to_string());
    assert_eq!(judge(&first, NOW), Ok(Verdict::Unchanged { held: None }));
    // The other key is of the same kind, for the same names: only the CSR differs.
    let other =
        Order { csr: Some(CallersCsr { key_fingerprint: "other".to_owned(), ..first.csr.clone().unwrap() }), ..first.clone() };
    assert!(judge(&other, NOW).unwrap_err().contains("differs in csr;"));
    let replacing = Order { replace: true, ..other };
    assert_eq!(judge(&replacing, NOW), Ok(Verdict::Issue { reason: "replaced by request" }));
    assert!(judge(&ask("key-rsa2048", false), NOW).unwrap_err().contains("differs in key_algorithm, csr;"));
    // With a key of ours it is another thing altogether.
    let ours = Order { csr: None, ..first.clone() };
    assert!(judge(&ours, NOW).unwrap_err().contains("differs in origin;"));
    assert_eq!(judge(&first, "2026-11-30T00:00:00Z"), Ok(Verdict::Issue { reason: "due" }));
}

/// The stack issues from [`CA`], which [`OTHER_CA`] has followed, and that one `LAST_CA`.
fn rolled_over() -> Policy {
    let succession = |old: &str, new: &str| format!("{old}={new}").parse().unwrap();
    let successors = Successors::new(vec![succession(CA, OTHER_CA), succession(OTHER_CA, LAST_CA)]).unwrap();
    Policy { successors, ..anything_goes() }
}

const LAST_CA: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/44444444-4444-4444-4444-444444444444";

#[test]
fn a_retired_ca_is_refused_by_its_successor_and_left_out_it_is_taken_for_it() {
    for (named, expected) in [
        (json!({}), Ok(LAST_CA)),
        (json!({"certificate_authority_arn": LAST_CA}), Ok(LAST_CA)),
        (
            json!({"certificate_authority_arn": CA}),
            Err(format!("{CA} is retired; leave it out, or name {LAST_CA}, which issues")),
        ),
        (json!({"certificate_authority_arn": OTHER_CA}), Err(format!("{OTHER_CA} is retired; leave it out, or name {LAST_CA}"))),
        (json!({"certificate_authority_arn": FOREIGN_CA}), Err(format!("{FOREIGN_CA} is not one of the stack's CAs"))),
    ] {
        let request = request(&named);
        match expected {
            Ok(authority) => {
                let specification = ordered(&request, &rolled_over()).specification;
                assert_eq!(specification.certificate_authority_arn, arn(authority), "{named}");
            }
            Err(why) => {
                assert_reasons(&named, &reasons(&request, &rolled_over()), &[("certificate_authority_arn", &why)]);
            }
        }
    }
    // A successor issues also where it was never allowed by itself, and one that nobody is succeeded by does not.
    let alone = Policy { other_cas: BTreeSet::new(), ..rolled_over() };
    ordered(&request(&json!({"certificate_authority_arn": LAST_CA})), &alone);
    let without = Policy { successors: Successors::default(), ..alone };
    assert_reasons(
        &LAST_CA,
        &reasons(&request(&json!({"certificate_authority_arn": LAST_CA})), &without),
        &[("certificate_authority_arn", "is not one of the stack's CAs")],
    );
}

#[test]
fn a_certificate_that_was_revoked_or_is_of_a_retired_ca_is_issued_anew_when_asked_for_and_differs_in_nothing() {
    let revocation = Revocation {
        serial: pair().serial,
        certificate_authority_arn: arn(CA),
        reason: Reason::Superseded,
        asked: at(NOW).into(),
        after_rollout: true,
        done: None,
        refused: None,
    };
    let done = Revocation { done: Some(at(NOW).into()), ..revocation.clone() };
    let of = |revocations| Record { revocations, ..issued() };
    let replaced = Pair { serial: Serial::from_hex("0c03"), ..pair() };
    let by = |authority: &str| {
        let current = Some(Pair { issuer: Some(arn(authority)), ..pair() });
        let certificate_authority_arn = arn(authority);
        let wanted = Specification { certificate_authority_arn, ..samples::specification() };
        Record { origin: Origin::Issued(wanted), current, ..issued() }
    };
    // The next one is to be of the successor, and is not there yet.
    let under_way = Record { current: by(CA).current, ..by(LAST_CA) };
    for (what, record, policy, expected) in [
        ("to be revoked", of(vec![revocation.clone()]), policy(), "issue: revoked"),
        ("revoked", of(vec![done.clone()]), policy(), "issue: revoked"),
        ("replaced", Record { current: Some(replaced), ..of(vec![done]) }, policy(), "unchanged"),
        ("of a retired CA", by(CA), rolled_over(), "issue: issued by a retired CA"),
        ("of one retired later", by(OTHER_CA), rolled_over(), "issue: issued by a retired CA"),
        ("of the last one", by(LAST_CA), rolled_over(), "unchanged"),
        ("of a retired CA, the next one being of its successor", under_way, rolled_over(), "issue: issued by a retired CA"),
        ("of a retired CA and revoked", Record { revocations: vec![revocation], ..by(CA) }, rolled_over(), "issue: revoked"),
    ] {
        let judge = |fields: &Value| {
            let order = ordered(&request(fields), &policy);
            in_a_word(verdict(&order, Some(&record), &policy, at(NOW)))
        };
        assert_eq!(judge(&json!({})), expected, "{what}");
        // What else is asked for is told as before.
        assert_eq!(judge(&json!({"usage": "server"})), "differs in usage", "{what}");
        assert_eq!(judge(&json!({"usage": "server", "replace": true})), "issue: replaced by request", "{what}");
    }
}

#[test]
fn what_replaces_a_certificate_is_the_same_by_the_stacks_ca_and_for_no_longer_than_is_allowed() {
    let arn = arn(IN_ACM);
    let options = Options { agent_services: ["payments/mesh".parse().unwrap()].into(), ..Options::default() };
    let adopted = Record { origin: Origin::Adopted { certificate_arn: arn.clone() }, options, current: None, ..issued() };
    let common_name = Some("Web.Example.com".to_owned());
    let (not_before, longest) = (at("2026-01-01T00:00:00Z"), policy().longest_validity);
    let made = |lifetime: Duration| Leaf {
        subject: Subject { common_name: common_name.clone(), ..Subject::default() },
        names: BTreeSet::new(),
        usage: None,
        not_before,
        not_after: not_before + lifetime,
        ..Leaf::from_pem(samples::leaf("client")).unwrap()
    };
    let replacement = |leaf| replacement(leaf, &adopted, &arn, &anything_goes(), at(NOW));
    for (lifetime, expected) in [(DAY * 30, DAY * 30), (longest, longest), (longest * 20, longest)] {
        let order = replacement(made(lifetime)).unwrap();
        let Specification { names, usage, lifetime, certificate_authority_arn, .. } = order.specification;
        assert_eq!((names, usage), (["dns:web.example.com".parse().unwrap()].into(), Usage::ClientAndServer));
        assert_eq!((lifetime, certificate_authority_arn), (expected, samples::arn(CA)));
        assert_eq!((order.import_into.as_ref(), order.options.import_to_acm), (Some(&arn), true));
        assert_eq!(order.options.agent_services, adopted.options.agent_services);
    }
    let named = Leaf { names: ["ip:10.0.0.1".parse().unwrap()].into(), usage: Some(Usage::Server), ..made(DAY * 30) };
    let order = replacement(named).unwrap();
    assert_eq!(order.specification.names, ["ip:10.0.0.1".parse().unwrap()].into());
    let beyond = || vec!["the subject alternative name dns:*.*.example.com".to_owned()];
    let reasons = replacement(Leaf { beyond_judgement: beyond(), ..made(DAY * 30) }).unwrap_err().reasons;
    assert_reasons(
        &"a name that cannot be asked for",
        &reasons,
        &[(IN_ACM, "dns:*.*.example.com, which its replacement would lack")],
    );
    let beyond = Leaf { beyond_judgement: beyond(), key_algorithm: None, ..made(DAY * 30) };
    assert_eq!(replacement(beyond).unwrap_err().reasons.len(), 2);
    let reasons = replacement(Leaf { key_algorithm: None, usage: Some(Usage::Client), ..made(DAY * 30) }).unwrap_err().reasons;
    assert_reasons(
        &"another key, for clients",
        &reasons,
        &[("key_algorithm", "`another kind of key`"), ("import_to_acm", "set `usage`")],
    );
}

#[test]
fn a_compromised_key_is_not_signed_again() {
    use crate::revocation::{Reason, Revocation};
    let ask = |csr: &str| ordered(&json!({"name": "orders-mtls", "csr": samples::csr(csr)}), &anything_goes());
    let first = ask("key-p256");
    let current = Pair { key_fingerprint: first.csr.clone().unwrap().key_fingerprint, ..pair() };
    let other = CallersCsr { key_fingerprint: "other".to_owned(), ..first.csr.clone().unwrap() };
    let other = Order { csr: Some(other), ..first.clone() };
    for (order, reason, compromised) in
        [(&first, Reason::KeyCompromise, true), (&other, Reason::KeyCompromise, false), (&first, Reason::Superseded, false)]
    {
        let revocation = Revocation {
            serial: pair().serial,
            certificate_authority_arn: arn(CA),
            reason,
            asked: at(NOW).into(),
            after_rollout: false,
            done: None,
            refused: None,
        };
        let origin = Origin::CallerKey(first.specification.clone());
        let mut record = Record { origin, current: Some(current.clone()), ..issued() };
        record.ask_to_revoke(revocation);
        let expected = match compromised {
            true => Err(Refusal::because("csr: its key is compromised; make a new key, and a CSR with it")),
            false => Ok(Verdict::Issue { reason: "revoked" }),
        };
        assert_eq!(verdict(order, Some(&record), &policy(), at(NOW)), expected, "{reason:?}");
    }
}

#[test]
fn names_and_a_csr_may_be_as_long_as_private_ca_takes_and_no_longer() {
    let name = |n| format!("dns:{n:03}{}.{}.{}.example.com", "x".repeat(57), "y".repeat(60), "z".repeat(58));
    let mut names: Vec<String> = (0..101).map(name).collect();
    let with = |names: &[String]| request(&json!({"subject_alternative_names": names}));
    ordered(&with(&names), &policy());
    names[0].insert(4, 'a');
    assert_reasons(&"names", &reasons(&with(&names), &policy()), &[("subject_alternative_names", "are more than a CSR holds")]);

    let csr = samples::csr("key-p256");
    let padded = |length: usize| json!({"name": "orders-mtls", "csr": "\n".repeat(length - csr.len()) + csr});
    ordered(&padded(32_768), &policy());
    assert_reasons(&"a CSR", &reasons(&padded(32_769), &policy()), &[("csr", "has more than the 32768 characters")]);
}

#[test]
fn what_is_paused_is_not_moved_to_the_successor_of_its_ca() {
    let order = ordered(&request(&json!({"paused": true})), &rolled_over());
    let record = Record { options: order.options.clone(), ..issued() };
    let held = Some("it is due and not renewed now: it is paused".to_owned());
    assert_eq!(verdict(&order, Some(&record), &rolled_over(), at(NOW)), Ok(Verdict::Unchanged { held }));
}
