use serde_json::json;

use super::*;
use crate::record::{Options, Pair, Specification};
use crate::rollout::{Lock, Progress};
use crate::samples::{self, CA, HOUR, arn, at, issued, pair};

const NOW: &str = "2026-11-22T06:00:00Z";
const STORE: &str = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:truststore/clients/0123456789abcdef";

/// The ARN of a CA of few words.
fn authority(name: &str) -> Arn {
    arn(&format!("arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/{name}"))
}

fn authorities<const N: usize>(names: [&str; N]) -> BTreeSet<Arn> {
    names.map(authority).into()
}

fn listener_arn(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:eu-central-1:111122223333:listener/app/{name}/0123456789abcdef/0123456789abcdef")
}

fn declaration<const N: usize>(name: &str, cas: [&str; N]) -> Declaration {
    Declaration { name: name.parse().unwrap(), certificate_authority_arns: authorities(cas), listeners: Vec::new() }
}

/// Holds these CAs, each with the certificate `<CA>-1` below `root`.
fn store<const N: usize, const H: usize>(declared: [&str; N], held: [&str; H]) -> Store {
    let chain = |name| (authority(name), vec![format!("{name}-1"), "root".to_owned()]);
    Store { held: held.map(chain).into(), ..Store::new(declaration("clients", declared), false) }
}

/// `a=b` for each retired CA.
fn successors(successions: &[&str]) -> Result<Successors, String> {
    let succession = |text: &&str| {
        let (retired, successor) = text.split_once('=').unwrap();
        format!("{}={}", authority(retired), authority(successor)).parse().unwrap()
    };
    Successors::new(successions.iter().map(succession).collect())
}

fn names(stores: &BTreeSet<StoreName>) -> Vec<String> {
    stores.iter().map(StoreName::to_string).collect()
}

fn assert_reasons(what: &Value, said: &[String], expected: &[(&str, &str)]) {
    assert_eq!(said.len(), expected.len(), "{what}: {said:#?}");
    for (said, (field, part)) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("{field}: ")) && said.contains(part), "{what}: {said}");
    }
}

#[test]
fn every_field_of_a_declaration_is_read() {
    let all = json!({
        "name": "clients",
        "certificate_authority_arns": [authority("a"), authority("b")],
        "listeners": [
            {"listener_arn": listener_arn("one")},
            {
                "listener_arn": listener_arn("two"),
                "mode": "verify",
                "ignore_client_certificate_expiry": true,
                "advertise_trust_store_ca_names": true,
                "clients": ["orders-client", "refunds-client"]
            },
            {"listener_arn": listener_arn("three"), "mode": "passthrough", "clients": null},
            {"listener_arn": listener_arn("four"), "mode": "off"}
        ]
    });
    let listener = |name: &str, mode, flag, clients: &[&str]| Listener {
        listener_arn: arn(&listener_arn(name)),
        authentication: Authentication { mode, ignore_client_certificate_expiry: flag, advertise_trust_store_ca_names: flag },
        clients: clients.iter().map(|name| name.parse().unwrap()).collect(),
    };
    let expected = Declaration {
        listeners: vec![
            listener("one", Mode::Verify, false, &[]),
            listener("two", Mode::Verify, true, &["orders-client", "refunds-client"]),
            listener("three", Mode::Passthrough, false, &[]),
            listener("four", Mode::Off, false, &[]),
        ],
        ..declaration("clients", ["a", "b"])
    };
    assert_eq!(Declaration::read(&all), Ok(expected.clone()));
    assert_eq!(json!([all]).to_string().parse(), Ok(Declarations(vec![expected])));
    assert_eq!(Declaration::read(&json!({"name": "clients"})), Ok(declaration("clients", [])));
}

#[test]
fn each_bad_declaration_is_refused_with_its_field_for_each_reason() {
    let long = "x".repeat(33);
    let not_a_name = "is not 1 to 32 letters and digits with single hyphens between them";
    let nlb = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:listener/net/x/0123456789abcdef/0123456789abcdef";
    let good = listener_arn("one");
    let of = |listener: Value| json!({"name": "clients", "listeners": [listener]});
    for (declaration, expected) in [
        (json!({}), &[("name", "is missing; give the trust store's name")][..]),
        (json!({"name": null}), &[("name", "is missing")]),
        (json!({"name": 7}), &[("name", "`7` is not text")]),
        (json!({"name": ""}), &[("name", not_a_name)]),
        (json!({"name": long}), &[("name", not_a_name)]),
        (json!({"name": "a--b"}), &[("name", not_a_name)]),
        (json!({"name": "-a"}), &[("name", not_a_name)]),
        (json!({"name": "a-"}), &[("name", not_a_name)]),
        (json!({"name": "a_b"}), &[("name", not_a_name)]),
        (
            json!({"name": "clients", "certificate_authority_arns": CA}),
            &[("certificate_authority_arns", "is not a list of text")],
        ),
        (json!({"name": "clients", "certificate_authority_arns": [CA, CA]}), &[("certificate_authority_arns", "stands twice")]),
        (
            json!({"name": "clients", "certificate_authority_arns": [7, "CA", samples::IN_ACM]}),
            &[
                ("certificate_authority_arns", "`7` is not text"),
                ("certificate_authority_arns", "`CA` is not an ARN"),
                ("certificate_authority_arns", "is not an ARN of the form arn:aws:acm-pca:"),
            ],
        ),
        (json!({"name": "clients", "listeners": good}), &[("listeners", "is not a list of objects such as")]),
        (of(json!(good)), &[("listeners[0]", "the listener is not a JSON object; give one with at least `listener_arn`")]),
        (of(json!({})), &[("listeners[0]", "listener_arn: is missing; give the ARN of an HTTPS listener")]),
        (of(json!({"listener_arn": CA})), &[("listeners[0]", "listener_arn: `arn:aws:acm-pca:")]),
        (of(json!({"listener_arn": nlb})), &[("listeners[0]", "is not an ARN of the form arn:aws:elasticloadbalancing:")]),
        (
            of(json!({"listener_arn": good, "mode": "on"})),
            &[("listeners[0]", "mode: `on` is not one of verify, passthrough, off")],
        ),
        (
            of(json!({"listener_arn": good, "ignore_client_certificate_expiry": "no"})),
            &[("listeners[0]", "ignore_client_certificate_expiry: `\"no\"` is neither true nor false")],
        ),
        (
            of(json!({"listener_arn": good, "advertise_trust_store_ca_names": 1})),
            &[("listeners[0]", "advertise_trust_store_ca_names: `1` is neither true nor false")],
        ),
        (
            of(json!({"listener_arn": good, "clients": ["orders client"]})),
            &[("listeners[0]", "clients: `orders client` has a character other than")],
        ),
        (
            of(json!({"listener_arn": good, "trust_store": "clients"})),
            &[("listeners[0]", "trust_store: is not a field of a listener; known are listener_arn, mode,")],
        ),
        (
            json!({"name": "clients", "listeners": [{"listener_arn": good}, {"listener_arn": good, "mode": "off"}]}),
            &[("listeners[1]", "stands twice")],
        ),
        (
            json!({"name": "clients", "region": "eu-central-1"}),
            &[("region", "known are name, certificate_authority_arns, listeners")],
        ),
        (
            json!({"name": "/", "certificate_authority_arns": {}, "listeners": [{"mode": 7}, 7], "extra": []}),
            &[
                ("name", not_a_name),
                ("certificate_authority_arns", "is not a list of text"),
                ("listeners[0]", "listener_arn: is missing"),
                ("listeners[0]", "mode: `7` is not text"),
                ("listeners[1]", "is not a JSON object"),
                ("extra", "is not a field"),
            ],
        ),
    ] {
        let refusal = Declaration::read(&declaration).expect_err(&declaration.to_string());
        assert_reasons(&declaration, &refusal.reasons, expected);
    }
    assert!(Declaration::read(&json!("clients")).is_err());
}

#[test]
fn a_list_of_declarations_is_read_whole_or_refused_with_every_reason() {
    let read = |text: &str| text.parse::<Declarations>();
    for nothing in ["", " \n", "[]"] {
        assert_eq!(read(nothing), Ok(Declarations::default()), "{nothing:?}");
    }
    let two = json!([{"name": "clients"}, {"name": "partners", "certificate_authority_arns": [authority("a")]}]);
    assert_eq!(read(&two.to_string()), Ok(Declarations(vec![declaration("clients", []), declaration("partners", ["a"])])));
    let listeners = |name: &str| json!([{"listener_arn": listener_arn(name)}]);
    for (list, expected) in [
        ("{}".to_owned(), &["it is not a JSON list (invalid type: map"][..]),
        ("clients".to_owned(), &["it is not a JSON list (expected value"]),
        (json!([{"name": "clients"}, {"name": "clients"}]).to_string(), &["`clients` is declared twice"]),
        (
            json!([{"name": "a", "listeners": listeners("x")}, {"name": "b", "listeners": listeners("x")}]).to_string(),
            &["listener/app/x/0123456789abcdef/0123456789abcdef is a listener of `a` and of `b`"],
        ),
        (
            json!([{"name": "/"}, {"name": "b", "x": 1}, {"name": "c"}, {"name": "c"}, 7]).to_string(),
            &[
                "name: `/`",
                "x: is not a field of a declaration",
                "`c` is declared twice",
                "the declaration is not a JSON object; give one with at least `name`",
            ],
        ),
    ] {
        let said = read(&list).expect_err(&list);
        for part in expected {
            assert!(said.contains(part), "{list}: {said}");
        }
    }
}

#[test]
fn a_listener_of_another_store_is_refused_and_one_of_the_same_store_is_not() {
    let with = |name: &str, listeners: &[&str]| {
        let listener = |name: &&str| Listener {
            listener_arn: arn(&listener_arn(name)),
            authentication: Authentication::default(),
            clients: BTreeSet::new(),
        };
        Declaration { listeners: listeners.iter().map(listener).collect(), ..declaration(name, []) }
    };
    let kept = [with("clients", &["x"]), with("partners", &["y", "z"])];
    let stores = Stores::default().declared_by(&kept);
    let trust = Trust { declared: kept.into(), ..Trust::default() };
    for (declaration, taken) in [
        (with("clients", &["x"]), &[][..]),
        (with("clients", &["new"]), &[]),
        (with("others", &[]), &[]),
        (with("others", &["new", "x"]), &[("x", "clients")]),
        (with("clients", &["y", "x", "z"]), &[("y", "partners"), ("z", "partners")]),
    ] {
        let reason = |(listener, store): &(&str, &str)| {
            format!("listeners: {} is a listener of `{store}`; take it out there", listener_arn(listener))
        };
        let reasons: Vec<_> = taken.iter().map(reason).collect();
        let expected = (!reasons.is_empty()).then_some(Refusal { reasons });
        assert_eq!(stores.collision(&declaration), expected, "{declaration:?}");
        let taken = taken.iter().map(|(listener, store)| (arn(&listener_arn(listener)), store.parse().unwrap()));
        assert_eq!(trust.taken(&Store::new(declaration, true)), taken.collect());
    }
}

#[test]
fn a_mode_reads_back_as_written_in_text_and_in_json() {
    for mode in Mode::ALL {
        assert_eq!(mode.as_str().parse(), Ok(mode));
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
    }
}

#[test]
fn a_retired_ca_has_the_last_of_its_successors() {
    let known = successors(&["a=b", "b=c", "x=c", "x=c"]).unwrap();
    for (retired, successor) in [("a", Some("c")), ("b", Some("c")), ("x", Some("c")), ("c", None), ("y", None)] {
        let (retired, successor) = (authority(retired), successor.map(authority));
        assert_eq!(known.of(&retired), successor.as_ref(), "{retired}");
        assert_eq!(known.active(&retired), successor.as_ref().unwrap_or(&retired));
    }
    assert_eq!(known.all(), [&authority("c")].into());
    assert_eq!(Successors::new(Vec::new()), Ok(Successors::default()));
}

#[test]
fn successors_that_lead_nowhere_are_refused() {
    for (successions, why) in [
        (&["a=a"][..], "is, by way of its successors, its own successor; name a CA that is not retired"),
        (&["a=b", "b=a"], "its own successor"),
        (&["a=b", "b=c", "c=a"], "its own successor"),
        (&["x=a", "a=b", "b=a"], "its own successor"),
        (&["a=b", "a=c"], "certificate-authority/a has two successors, arn:"),
    ] {
        let said = successors(successions).unwrap_err();
        assert!(said.contains(why), "{successions:?}: {said}");
    }
    let good = authority("a");
    for (text, why) in [
        (String::new(), "`` is not of the form retired=successor"),
        (good.to_string(), "is not of the form retired=successor, both ARNs of CAs"),
        (format!("{good}="), "`` is not an ARN"),
        (format!("={good}"), "`` is not an ARN"),
        (format!("{}={good}", samples::IN_ACM), "is not an ARN of the form arn:aws:acm-pca:"),
    ] {
        let BadName(said) = text.parse::<Succession>().unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn a_pair_waits_for_the_stores_that_declare_its_issuer_and_do_not_trust_it_and_those_that_it_is_leaving() {
    let leaving = |name| Store { leaving: [(authority(name), at(NOW).into())].into(), ..store(["a", "b"], ["a", "b"]) };
    for (what, store, successions, issuer, waits) in [
        ("declared, not held", store(["a"], []), &[][..], "a", true),
        ("declared and held", store(["a"], ["a"]), &[], "a", false),
        ("not declared", store(["b"], ["b"]), &[], "a", false),
        ("no longer declared", store([], ["a"]), &[], "a", false),
        ("declared beside another that is not held", store(["a", "b"], ["a"]), &[], "a", false),
        ("in place of a declared one, not held", store(["a"], ["a"]), &["a=b"], "b", true),
        ("in place of a declared one, held", store(["a"], ["a", "b"]), &["a=b"], "b", false),
        ("last in place of a declared one", store(["a"], ["a"]), &["a=b", "b=c"], "c", true),
        ("in place of a declared one and retired itself", store(["a"], ["a"]), &["a=b", "b=c"], "b", true),
        ("in place of one that is not declared", store(["x"], []), &["a=b"], "b", false),
        ("retired and held", store(["a"], ["a"]), &["a=b"], "a", false),
        ("retired and gone", store(["a"], ["b"]), &["a=b"], "a", true),
        ("leaving", leaving("a"), &[], "a", true),
        ("another is leaving", leaving("b"), &[], "a", false),
        ("no longer declared and leaving", Store { declaration: declaration("clients", ["b"]), ..leaving("a") }, &[], "a", true),
    ] {
        let trust = Trust { declared: vec![store.declaration.clone()], successors: successors(successions).unwrap() };
        let stores = Stores { stores: [(store.declaration.name.clone(), store)].into(), lock: None, revision: 1 };
        let missing = trust.missing(&stores, &authority(issuer));
        assert_eq!(names(&missing), if waits { vec!["clients"] } else { vec![] }, "{what}");
    }
}

#[test]
fn what_has_waited_for_stores_is_due_once_none_keeps_it_waiting() {
    use crate::attempt::{Attempt, Staged};
    let staged = |record: Record, issuer: Option<&str>| {
        let staged = Staged {
            version_id: "version-2".to_owned(),
            serial: crate::leaf::Serial::from_hex("0c03"),
            issuer: issuer.map(authority),
        };
        Record { attempt: Some(Attempt { staged: Some(staged), ..samples::attempt(at(NOW)) }), ..record }
    };
    let begun = Record { attempt: Some(samples::attempt(at(NOW))), ..issued() };
    let [held, missing] = [store(["a"], ["a"]), store(["a"], [])];
    for (what, record, store, awaited, due) in [
        ("issued here", staged(issued(), Some("a")), &held, Some(authority("a")), Some(Kind::CertificateDue)),
        ("ACM's", staged(samples::exported(), Some("a")), &held, Some(authority("a")), Some(Kind::ExportDue)),
        ("the store lacks its CA", staged(issued(), Some("a")), &missing, Some(authority("a")), None),
        ("a public one", staged(samples::exported(), None), &held, None, None),
        ("not staged yet", begun, &held, Some(arn(CA)), None),
        ("nothing under way", issued(), &held, Some(arn(CA)), None),
    ] {
        let trust = Trust { declared: vec![store.declaration.clone()], ..Trust::default() };
        let stores = Stores { stores: [(store.declaration.name.clone(), store.clone())].into(), ..Stores::default() };
        assert_eq!(trust.awaited(&record), awaited.as_ref(), "{what}");
        assert_eq!(trust.due(&stores, &record).map(|(kind, _)| kind), due, "{what}");
    }
    let trust = Trust { successors: successors(&["a=b"]).unwrap(), ..Trust::default() };
    let of_retired = Specification { certificate_authority_arn: authority("a"), ..samples::specification() };
    let record = Record { origin: Origin::Issued(of_retired), attempt: None, ..issued() };
    assert_eq!(trust.awaited(&record), Some(&authority("b")), "of a CA that has retired");
}

#[test]
fn the_parameter_wins_over_what_is_kept_and_what_it_no_longer_declares_is_forgotten() {
    let kept = |name: &str, by_hand| {
        let declaration = declaration(name, ["a"]);
        let store = Store { declaration, by_hand, arn: Some(arn(STORE)), ..store([], ["a"]) };
        (store.declaration.name.clone(), store)
    };
    let stores = Stores {
        stores: [kept("clients", false), kept("forgotten", false), kept("partners", true), kept("taken", true)].into(),
        lock: None,
        revision: 7,
    };
    let parameter = [declaration("clients", ["b"]), declaration("new", ["a"]), declaration("taken", ["a", "b"])];
    let declared = stores.declared_by(&parameter);
    assert_eq!(declared.revision, 7);
    let says = |store: &Store| (store.by_hand, store.declaration.certificate_authority_arns.len(), store.arn.is_some());
    let said: Vec<_> = declared.stores.iter().map(|(name, store)| (name.to_string(), says(store))).collect();
    assert_eq!(
        said,
        [
            ("clients".to_owned(), (false, 1, true)),
            ("new".to_owned(), (false, 1, false)),
            ("partners".to_owned(), (true, 1, true)),
            ("taken".to_owned(), (false, 2, true))
        ]
    );
    assert_eq!(declared.stores[&"clients".parse().unwrap()].declaration, parameter[0]);
    assert_eq!(declared.declared_by(&parameter), declared);

    // A pair waits for all of them by name, also for those that are only declared so far.
    let trust = Trust { declared: parameter.to_vec(), successors: Successors::default() };
    assert_eq!(names(&trust.missing(&stores, &authority("a"))), ["new"]);
    assert_eq!(names(&trust.missing(&stores, &authority("b"))), ["clients", "taken"]);
    assert_eq!(names(&trust.missing(&stores, &authority("c"))), [""; 0]);
}

#[test]
fn a_store_is_to_hold_what_is_declared_and_in_use_and_may_give_up_the_rest() {
    for (what, store, successions, wanted, retiring) in [
        ("declared", store(["a", "b"], ["a"]), &[][..], &["a", "b"][..], &[][..]),
        ("no longer declared", store(["a"], ["a", "b"]), &[], &["a"], &["b"]),
        ("retired", store(["a"], ["a"]), &["a=b"], &["b"], &["a"]),
        ("retired and gone", store(["a"], ["b"]), &["a=b"], &["b"], &["a"]),
        ("its successor is declared too", store(["a", "b"], []), &["a=b"], &["b"], &["a"]),
        ("twice retired", store(["a"], ["a", "b"]), &["a=b", "b=c"], &["c"], &["a", "b"]),
        ("another is retired", store(["a"], ["a"]), &["x=y"], &["a"], &[]),
        ("nothing is declared", store([], ["a"]), &[], &[], &["a"]),
    ] {
        let trust = Trust { declared: Vec::new(), successors: successors(successions).unwrap() };
        let set = |names: &[&str]| names.iter().map(|name| authority(name)).collect();
        let expected = Authorities { wanted: set(wanted), retiring: set(retiring) };
        assert_eq!(trust.authorities(&store), expected, "{what}");
    }
}

#[test]
fn a_ca_goes_an_hour_after_it_was_announced_unless_it_is_needed() {
    let needed_by: CertificateName = "orders-client".parse().unwrap();
    let announced = |at: OffsetDateTime| Store { leaving: [(authority("a"), at.into())].into(), ..store(["a"], ["a"]) };
    let now = at(NOW);
    let second = Duration::from_secs(1);
    let needed = Retiring::Needed { by: needed_by.clone() };
    for (what, store, needed_by, expected) in [
        ("not in the store", store(["a"], []), None, Retiring::Absent),
        ("not in the store, and needed", store(["a"], []), Some(&needed_by), needed.clone()),
        ("needed", store(["a"], ["a"]), Some(&needed_by), needed.clone()),
        ("not needed", store(["a"], ["a"]), None, Retiring::Leaving { since: now }),
        ("announced now", announced(now), None, Retiring::Leaving { since: now }),
        ("announced almost an hour ago", announced(now - HOUR + second), None, Retiring::Leaving { since: now - HOUR + second }),
        ("announced an hour ago", announced(now - HOUR), None, Retiring::Gone),
        ("announced two hours ago and needed again", announced(now - HOUR * 2), Some(&needed_by), needed),
        ("announced, and gone meanwhile", Store { held: BTreeMap::new(), ..announced(now - HOUR * 2) }, None, Retiring::Absent),
    ] {
        assert_eq!(retiring(&store, &authority("a"), needed_by, now), expected, "{what}");
    }
}

#[test]
fn a_listener_begins_to_verify_once_every_client_can_pass_and_all_else_is_done_at_once() {
    let (own, other) = (arn(STORE), arn(&STORE.replace("clients", "others")));
    let authentication =
        |mode, flag| Authentication { mode, ignore_client_certificate_expiry: flag, advertise_trust_store_ca_names: flag };
    let has = |mode, flag, store: Option<&Arn>| Attached { authentication: authentication(mode, flag), store: store.cloned() };
    let missing = ["`orders-client` is revoked".to_owned()];
    let wait = Attach::Wait { missing: missing.to_vec() };
    for (what, wanted, has, with_all, with_missing) in [
        ("off, to verify", (Mode::Verify, false), has(Mode::Off, false, None), Attach::Modify, wait.clone()),
        ("passes through, to verify", (Mode::Verify, false), has(Mode::Passthrough, false, None), Attach::Modify, wait.clone()),
        ("verifies by another", (Mode::Verify, false), has(Mode::Verify, false, Some(&other)), Attach::Modify, wait.clone()),
        ("verifies by none", (Mode::Verify, false), has(Mode::Verify, false, None), Attach::Modify, wait.clone()),
        ("off with the store", (Mode::Verify, false), has(Mode::Off, false, Some(&own)), Attach::Modify, wait),
        ("verifies", (Mode::Verify, false), has(Mode::Verify, false, Some(&own)), Attach::Keep, Attach::Keep),
        (
            "verifies, with other flags",
            (Mode::Verify, true),
            has(Mode::Verify, false, Some(&own)),
            Attach::Modify,
            Attach::Modify,
        ),
        ("verifies, to be off", (Mode::Off, false), has(Mode::Verify, true, Some(&own)), Attach::Modify, Attach::Modify),
        ("off", (Mode::Off, false), has(Mode::Off, false, None), Attach::Keep, Attach::Keep),
        ("off, with what means nothing there", (Mode::Off, true), has(Mode::Off, false, None), Attach::Keep, Attach::Keep),
        ("off, to pass through", (Mode::Passthrough, true), has(Mode::Off, false, None), Attach::Modify, Attach::Modify),
        ("passes through", (Mode::Passthrough, true), has(Mode::Passthrough, false, None), Attach::Keep, Attach::Keep),
    ] {
        let wanted = Listener {
            listener_arn: arn(&listener_arn("one")),
            authentication: authentication(wanted.0, wanted.1),
            clients: BTreeSet::new(),
        };
        assert_eq!(attach(&wanted, &has, Some(&own), &[]), with_all, "{what}");
        assert_eq!(attach(&wanted, &has, Some(&own), &missing), with_missing, "{what}, with a client that cannot pass");
    }
}

#[test]
fn a_client_passes_with_a_current_pair_of_a_held_ca_that_all_its_services_run() {
    let name: CertificateName = "orders-client".parse().unwrap();
    let service: ServiceName = "payments/orders".parse().unwrap();
    let store = Store { held: [(arn(CA), vec![])].into(), ..store([], []) };
    let bound = Record { options: Options { services: [service.clone()].into(), ..Options::default() }, ..issued() };
    let with_pair = |pair| Record { current: Some(pair), ..issued() };
    let by_agent = |since: OffsetDateTime| Record {
        options: Options { agent_services: [service.clone()].into(), ..Options::default() },
        ..with_pair(Pair { since: since.into(), ..pair() })
    };
    let mut revoked = issued();
    revoked.ask_to_revoke(crate::revocation::Revocation {
        serial: pair().serial,
        certificate_authority_arn: arn(CA),
        reason: crate::revocation::Reason::KeyCompromise,
        asked: at(NOW).into(),
        after_rollout: false,
        done: None,
        refused: None,
    });
    let asked = revoked.clone();
    revoked.revoked(&pair().serial, at(NOW));
    let since = *pair().since;
    let deployed = |began: OffsetDateTime, progress| Some(samples::followed(began, progress));
    let second = Duration::from_secs(1);
    let late = "the service payments/orders has not been redeployed since `orders-client` became current 2026-11-01 01:00 UTC";
    for (what, record, state, why) in [
        ("no record", None, None, Some("`orders-client` is not known")),
        ("no pair", Some(Record { current: None, ..issued() }), None, Some("`orders-client` has no valid certificate yet")),
        (
            "expired",
            Some(with_pair(Pair { not_after: at(NOW).into(), ..pair() })),
            None,
            Some("`orders-client` has no valid certificate yet"),
        ),
        ("revoked", Some(revoked), None, Some("`orders-client` is revoked")),
        ("to be revoked", Some(asked), None, None),
        (
            "another CA's",
            Some(with_pair(Pair { issuer: Some(authority("a")), ..pair() })),
            None,
            Some("certificate-authority/a, which this trust store does not hold"),
        ),
        (
            "no CA of AWS Private CA",
            Some(with_pair(Pair { issuer: None, ..pair() })),
            None,
            Some("`orders-client` is issued by a CA that is not in AWS Private CA, which"),
        ),
        ("no services", Some(issued()), None, None),
        ("a service that is not known", Some(bound.clone()), None, Some(late)),
        ("a service never deployed", Some(bound.clone()), Some(BindingState::default()), Some(late)),
        ("deployed before", Some(bound.clone()), deployed(since, Progress::Completed), Some(late)),
        ("being deployed", Some(bound.clone()), deployed(since + second, Progress::Running), Some(late)),
        ("its deployment failed", Some(bound.clone()), deployed(since + second, Progress::Failed), Some(late)),
        ("deployed since", Some(bound), deployed(since + second, Progress::Completed), None),
        ("by an agent, after an hour", Some(by_agent(at(NOW) - HOUR)), None, None),
        (
            "by an agent, in less than an hour",
            Some(by_agent(at(NOW) - HOUR + second)),
            None,
            Some("the agent of payments/orders may not have fetched `orders-client` before 2026-11-22 06:00 UTC"),
        ),
    ] {
        let services = state.map(|state| (service.clone(), state)).into_iter().collect();
        let said = unready(&name, record.as_ref(), &services, &store, at(NOW));
        assert_eq!(said.is_some(), why.is_some(), "{what}: {said:?}");
        assert!(said.unwrap_or_default().contains(why.unwrap_or_default()), "{what}");
    }
}

#[test]
fn a_crl_is_loaded_when_it_is_newer_and_told_of_when_it_has_ended() {
    let now = at(NOW);
    let published = |number: &str, age: u32, left: Option<i64>| Crl {
        der: Vec::new(),
        number: number.to_owned(),
        this_update: now - HOUR * age,
        next_update: left.map(|seconds| now + time::Duration::seconds(seconds)),
        entries: 1,
    };
    let loaded = |number: &str, age: u32| LoadedCrl {
        revocation_id: 1,
        number: number.to_owned(),
        this_update: (now - HOUR * age).into(),
        next_update: None,
        entries: 0,
        e_tag: None,
    };
    let ended = "ended 2026-11-22 06:00 UTC; see why the CA publishes no newer one";
    for (what, published, loaded, expected) in [
        ("the first", published("1", 1, Some(60)), None, Ok(Load::Add)),
        ("without an end", published("1", 1, None), None, Ok(Load::Add)),
        ("to its last second", published("1", 1, Some(1)), None, Ok(Load::Add)),
        ("the first, ended", published("1", 1, Some(0)), None, Err(ended)),
        ("the same", published("1", 1, Some(60)), Some(loaded("1", 1)), Ok(Load::Keep)),
        ("the same, ended", published("1", 1, Some(0)), Some(loaded("1", 1)), Err(ended)),
        ("newer", published("2", 1, Some(60)), Some(loaded("1", 2)), Ok(Load::Add)),
        ("newer, of the same moment", published("2", 1, Some(60)), Some(loaded("1", 1)), Ok(Load::Add)),
        ("newer, ended", published("2", 1, Some(0)), Some(loaded("1", 2)), Err(ended)),
        ("older", published("1", 2, Some(60)), Some(loaded("2", 1)), Ok(Load::Keep)),
        ("older, ended", published("1", 2, Some(0)), Some(loaded("2", 1)), Ok(Load::Keep)),
        ("counted anew", published("1", 1, Some(60)), Some(loaded("9", 2)), Ok(Load::Add)),
    ] {
        match (load(&published, loaded.as_ref(), now), expected) {
            (Err(said), Err(why)) => assert_eq!(said, format!("its CRL {} {why}", published.number), "{what}"),
            (said, expected) => assert_eq!(said, expected.map_err(str::to_owned), "{what}"),
        }
    }
}

#[test]
fn whoever_changes_stores_keeps_others_out() {
    let until = at("2026-11-22T06:02:30Z");
    let lock = Lock { holder: "me".to_owned(), until: until.into(), newest: None };
    let locked = Stores { lock: Some(lock), ..Stores::default() };
    for (what, stores, holder, expected) in [
        ("another's", &locked, "somebody", Some(until)),
        ("one's own", &locked, "me", None),
        ("nobody's", &Stores::default(), "somebody", None),
    ] {
        assert_eq!(stores.keeps_out(holder, at("2026-11-22T06:00:00Z")), expected, "{what}");
    }
}

/// Every field has something in it.
fn full() -> Stores {
    let moment = at("2026-11-22T05:47:00.123Z").into();
    let listener = Listener {
        listener_arn: arn(&listener_arn("one")),
        authentication: Authentication {
            mode: Mode::Passthrough,
            ignore_client_certificate_expiry: true,
            advertise_trust_store_ca_names: true,
        },
        clients: ["orders-client".parse().unwrap()].into(),
    };
    let crl = LoadedCrl {
        revocation_id: 7,
        number: "4097".to_owned(),
        this_update: moment,
        next_update: None,
        entries: 3,
        e_tag: Some("e1".to_owned()),
    };
    let clients = Store {
        declaration: Declaration { listeners: vec![listener], ..declaration("clients", ["a", "b"]) },
        by_hand: true,
        arn: Some(arn(STORE)),
        leaving: [(authority("b"), moment)].into(),
        crls: [(authority("a"), crl)].into(),
        told: [("crl".to_owned(), moment)].into(),
        ..store([], ["a", "b"])
    };
    let lock = Some(Lock { holder: "me".to_owned(), until: at("2026-11-22T05:49:30Z").into(), newest: None });
    Stores { stores: [(clients.declaration.name.clone(), clients)].into(), lock, revision: 12 }
}

#[test]
fn stores_read_back_as_they_were_written() {
    let new = Store::new(declaration("new", []), false);
    let mut fuller = full();
    for store in fuller.stores.values_mut() {
        store.bundle = ["a-1".to_owned(), "root".to_owned()].into();
        store.crls.values_mut().for_each(|loaded| loaded.next_update = Some(at(NOW).into()));
    }
    let bare = Stores { stores: [(new.declaration.name.clone(), new)].into(), lock: None, revision: 1 };
    for stores in [fuller, full(), bare, Stores::default()] {
        let text = serde_json::to_string(&stores).unwrap();
        assert_eq!(serde_json::from_str::<Stores>(&text).unwrap(), stores, "{text}");
    }
}

/// These texts stand in tables out there. A change that fails here needs another way; the texts never change.
#[test]
fn the_stores_of_version_0_1_are_readable() {
    assert_eq!(serde_json::from_str::<Stores>(include_str!("../../tests-data/stores-0.1.json")).unwrap(), full());
    assert_eq!(serde_json::from_str::<Stores>("{}").unwrap(), Stores::default());
    let least = json!({
        "stores": {"clients": {"declaration": {
            "name": "clients",
            "certificate_authority_arns": [],
            "listeners": [{"listener_arn": listener_arn("one")}]
        }}}
    });
    let stores: Stores = serde_json::from_value(least).unwrap();
    let store = &stores.stores[&"clients".parse().unwrap()];
    let listener = &store.declaration.listeners[0];
    assert_eq!((listener.authentication, listener.clients.len()), (Authentication::default(), 0));
    let declaration = store.declaration.clone();
    assert_eq!(*store, Store::new(declaration, false));
}

#[test]
fn a_person_is_told_of_each_subject_once_a_day_and_the_latest_are_kept() {
    let mut store = Store::new(declaration("clients", []), true);
    let (now, minute) = (at(NOW), Duration::from_secs(60));
    for (code, message, after, told) in [
        ("trust-store", "failed to read one: throttled", 0, true),
        ("trust-store", "failed to read one: denied", 1, false),
        ("trust-store", "failed to read two: denied", 2, true),
        ("trust-ca", "failed to read one: denied", 3, true),
        ("trust-store", "failed to read one: denied", 24 * 60 - 11, false),
        ("trust-store", "failed to read one: denied", 24 * 60 - 10, true),
        ("trust-store", "failed to read one: denied", 24 * 60, false),
    ] {
        assert_eq!(store.tells(code, message, now + minute * after), told, "{code}: {message}");
    }
    // The report shows it for two days.
    for (after, shown) in [(3 * 24 * 60 - 11, true), (3 * 24 * 60 - 10, false)] {
        store.tells("trust-store", "failed to read three", now + minute * after);
        assert_eq!(store.told.contains_key("trust-store: failed to read one"), shown, "{after}");
    }
    for number in 0..300 {
        assert!(store.tells("trust-store", &format!("failed to read {number}"), now + minute * (5_000 + number)));
    }
    assert_eq!(store.told.len(), MOST_TOLD);
    assert!((200..300).all(|number| store.told.contains_key(&format!("trust-store: failed to read {number}"))));
}

#[test]
fn a_store_uses_as_much_of_each_quota_as_it_holds() {
    let declaration = Declaration::read(&json!({"name": "clients", "certificate_authority_arns": [CA]})).unwrap();
    let mut store = Store::new(declaration, true);
    assert_eq!(store.usage().map(|(_, used, _)| used), [0, 0, 0]);
    store.bundle = (0..5).map(|number| number.to_string()).collect();
    for (number, entries) in [(1, 40), (2, 2)] {
        let crl = LoadedCrl {
            revocation_id: number,
            number: number.to_string(),
            this_update: at(NOW).into(),
            next_update: None,
            entries,
            e_tag: None,
        };
        store.crls.insert(arn(&format!("{CA}{number}")), crl);
    }
    assert_eq!(store.usage(), [("CaCertificates", 5, 25), ("Crls", 2, 30), ("CrlEntries", 42, 500_000)]);
}
