use serde_json::json;

use super::*;
use crate::attempt::{Attempt, Staged};
use crate::record::{Options, RenewalAsked, Specification};
use crate::revocation::{Reason, Revocation};
use crate::rollout::Fault;
use crate::samples::{self, DAY, HOUR, arn, at, attempt, exported, followed, halt, issued, pair};
use crate::setback::Setback;
use crate::trust::{Declaration, LoadedCrl, Successors};

/// `orders-client` is due from 21 November, late from the 26th, 01:00, and ends on 1 December, 01:00.
const EARLY: &str = "2026-11-10T06:00:00Z";
const DUE: &str = "2026-11-24T06:00:00Z";
const LATE: &str = "2026-11-26T06:00:00Z";
const ENDED: &str = "2026-12-01T01:00:00Z";

const OTHER_CA: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/22222222-2222-2222-2222-222222222222";

fn with(change: impl FnOnce(&mut Record)) -> Record {
    let mut record = issued();
    change(&mut record);
    record
}

fn told(record: Record, code: &str, message: &str, when: &str) -> Record {
    let mut record = record;
    record.told.insert(code.to_owned(), at(when).into());
    record.messages.insert(code.to_owned(), message.to_owned());
    record
}

fn setback(in_a_row: u32, done: bool) -> Setback {
    Setback { at: at(DUE).into(), in_a_row, done, ..samples::setback() }
}

fn revocation(reason: Reason) -> Revocation {
    Revocation {
        serial: pair().serial,
        certificate_authority_arn: arn(samples::CA),
        reason,
        asked: at(EARLY).into(),
        after_rollout: !reason.is_compromise(),
        done: None,
        refused: None,
    }
}

fn staged() -> Attempt {
    let staged = Staged { version_id: "version-2".to_owned(), serial: Serial::from_hex("0c03"), issuer: Some(arn(samples::CA)) };
    Attempt { staged: Some(staged), ..attempt(at(DUE)) }
}

/// `clients` declares the CA of [`pair`]; the store holds it or does not.
fn stores(held: bool) -> Stores {
    let declaration = Declaration {
        name: "clients".parse().unwrap(),
        certificate_authority_arns: [arn(samples::CA)].into(),
        listeners: Vec::new(),
    };
    let mut store = Store::new(declaration, true);
    if held {
        store.held.insert(arn(samples::CA), vec!["f0".to_owned()]);
    }
    Stores { stores: [("clients".parse().unwrap(), store)].into(), ..Stores::default() }
}

fn retired() -> Trust {
    let successors = Successors::new(vec![format!("{}={OTHER_CA}", samples::CA).parse().unwrap()]).unwrap();
    Trust { successors, ..Trust::default() }
}

fn row(record: &Record, services: &[(&str, BindingState)], trust: &Trust, stores: &Stores, now: &str) -> Row {
    let services = services.iter().map(|(name, state)| (name.parse().unwrap(), state.clone())).collect();
    Row::of(record, &services, trust, stores, HOUR, at(now))
}

#[test]
fn each_state_has_its_reason_and_what_is_worse_goes_before_what_is_not() {
    let (none, nobody, holds, lacks) = (Trust::default(), Stores::default(), stores(true), stores(false));
    let not_issued = || Record { current: None, ..issued() };
    let callers = || Record { origin: Origin::CallerKey(samples::specification()), ..issued() };
    let halted = |record: Record, when: &str| Record { halted: Some(halt(at(when))), ..record };
    let paused = |record: Record| Record { options: Options { paused: true, ..record.options.clone() }, ..record };
    let windowed = with(|record| record.options.maintenance_window = Some("Sat 01:00-05:00".parse().unwrap()));
    let of = |origin: Specification| Record { origin: Origin::Issued(origin), ..issued() };
    let elsewhere = of(Specification { certificate_authority_arn: arn(OTHER_CA), ..samples::specification() });
    let set_back = |in_a_row, done| with(|record| record.setback = Some(setback(in_a_row, done)));
    let set_back_early = with(|record| record.setback = Some(Setback { at: at(EARLY).into(), ..setback(1, true) }));
    let compromised = with(|record| {
        (record.setback, record.revocations) = (Some(setback(1, true)), vec![revocation(Reason::KeyCompromise)]);
    });
    let revoked = |reason| with(|record| record.revocations = vec![revocation(reason)]);
    let other_serial = with(|record| {
        record.revocations = vec![Revocation { serial: Serial::from_hex("0f"), ..revocation(Reason::Superseded) }];
    });
    let asked = Record {
        renewal_asked: Some(RenewalAsked { at: at("2026-12-20T06:00:00Z").into(), serial: pair().serial }),
        ..exported()
    };
    let adopted = Record { origin: Origin::Adopted { certificate_arn: arn(samples::IN_ACM) }, ..not_issued() };
    let imported = with(|record| record.options.import_to_acm = true);
    let first = Record { attempt: Some(staged()), ..not_issued() };
    for (what, record, trust, stores, now, state, reason) in [
        ("good", issued(), &none, &holds, EARLY, State::Good, ""),
        ("due by its time", issued(), &none, &holds, DUE, State::Due, "it expires 2026-12-01 01:00 UTC"),
        (
            "under way",
            Record { attempt: Some(attempt(at(DUE))), ..issued() },
            &none,
            &holds,
            DUE,
            State::Due,
            "attempt 7 is under way: due",
        ),
        ("of another CA than it is to be", elsewhere, &none, &holds, EARLY, State::Due, "it is to be issued by arn:"),
        ("of a retired CA", issued(), &retired(), &nobody, EARLY, State::Due, "is retired and arn:"),
        (
            "of a retired CA whose successor no store holds",
            issued(),
            &retired(),
            &holds,
            EARLY,
            State::Waiting,
            "in its place; it waits for clients",
        ),
        (
            "to be revoked",
            revoked(Reason::Superseded),
            &none,
            &holds,
            EARLY,
            State::Due,
            "serial a01 is to be revoked (SUPERSEDED)",
        ),
        ("an older serial is to be revoked", other_serial, &none, &holds, EARLY, State::Due, "serial f is to be revoked"),
        ("on its way back", set_back(1, false), &none, &holds, DUE, State::Due, "it goes back to the pair before: it failed"),
        ("to be imported", imported, &none, &holds, EARLY, State::Due, "it is imported into ACM"),
        (
            "waits for trust",
            Record { attempt: Some(staged()), ..issued() },
            &none,
            &lacks,
            DUE,
            State::Waiting,
            "it waits for clients to hold arn:",
        ),
        (
            "has waited for trust",
            Record { attempt: Some(staged()), ..issued() },
            &none,
            &holds,
            DUE,
            State::Due,
            "attempt 7 is under way",
        ),
        (
            "waits for its window",
            windowed.clone(),
            &none,
            &holds,
            DUE,
            State::Waiting,
            "its maintenance window opens 2026-11-28 01:00 UTC",
        ),
        ("its window is open", windowed.clone(), &none, &holds, "2026-11-28T02:00:00Z", State::Attention, "is not renewed yet"),
        ("has a window and is not due", windowed.clone(), &none, &holds, EARLY, State::Good, ""),
        (
            "rests after a setback",
            set_back(1, true),
            &none,
            &holds,
            DUE,
            State::Waiting,
            "another one is tried 2026-11-25 06:00 UTC",
        ),
        (
            "rests after a setback, and is not due",
            set_back_early,
            &none,
            &holds,
            EARLY,
            State::Waiting,
            "a deployment failed on the last pair; another one is tried",
        ),
        ("has rested", set_back(1, true), &none, &holds, "2026-11-25T06:00:00Z", State::Due, "it expires"),
        ("compromised and set back", compromised, &none, &holds, DUE, State::Due, "is to be revoked (KEY_COMPROMISE)"),
        ("rejected twice", set_back(2, true), &none, &holds, DUE, State::Attention, "{\"retry\": \"orders-client\"}"),
        ("paused, and its window is closed", paused(windowed), &none, &holds, DUE, State::Paused, "it is paused"),
        ("paused, and it rests after a setback", paused(set_back(1, true)), &none, &holds, DUE, State::Paused, "it is paused"),
        ("paused", paused(issued()), &none, &holds, EARLY, State::Paused, "it is paused"),
        ("paused and due", paused(issued()), &none, &holds, DUE, State::Paused, "it is paused, although it expires 2026-12-01"),
        (
            "paused and late",
            paused(issued()),
            &none,
            &holds,
            LATE,
            State::Attention,
            "it expires 2026-12-01 01:00 UTC and is not renewed yet",
        ),
        ("late", issued(), &none, &holds, LATE, State::Attention, "is not renewed yet"),
        (
            "ACM's, paused and late",
            paused(exported()),
            &none,
            &holds,
            "2027-01-01T00:00:00Z",
            State::Attention,
            "is not renewed yet",
        ),
        (
            "waits for trust and is late",
            Record { attempt: Some(staged()), ..issued() },
            &none,
            &lacks,
            LATE,
            State::Attention,
            "is not renewed yet: a new pair is ready; it waits for clients",
        ),
        ("failed for good", halted(issued(), DUE), &none, &holds, DUE, State::Attention, "the CA is disabled"),
        (
            "failed for good, and not told anew yet",
            halted(issued(), DUE),
            &none,
            &holds,
            "2026-11-25T07:59:59Z",
            State::Attention,
            "the CA is disabled",
        ),
        ("failed for good long ago", halted(issued(), DUE), &none, &holds, "2026-11-25T08:00:00Z", State::Due, "it expires"),
        (
            "failed for good before the pair",
            halted(issued(), "2026-11-01T00:00:00Z"),
            &none,
            &holds,
            "2026-11-01T02:00:00Z",
            State::Good,
            "",
        ),
        (
            "told of",
            told(issued(), "secret-missing", "the secret is gone", EARLY),
            &none,
            &holds,
            EARLY,
            State::Attention,
            "the secret is gone",
        ),
        (
            "told of, and not again",
            told(issued(), "secret-missing", "the secret is gone", EARLY),
            &none,
            &holds,
            "2026-11-11T08:00:00Z",
            State::Good,
            "",
        ),
        (
            "told of before the pair",
            told(issued(), "look-failed", "no", "2026-11-01T01:00:05Z"),
            &none,
            &holds,
            "2026-11-01T02:00:00Z",
            State::Good,
            "",
        ),
        ("told of what is over", told(issued(), "rolled-back", "it went back", EARLY), &none, &holds, EARLY, State::Good, ""),
        ("a caller's is due", callers(), &none, &holds, DUE, State::Attention, "its key is its caller's; send a CSR again"),
        ("a caller's is good", callers(), &none, &holds, EARLY, State::Good, ""),
        ("ended", issued(), &none, &holds, ENDED, State::Expired, "it expired 2026-12-01 01:00 UTC; no renewal has succeeded"),
        (
            "ended, and a person knows why",
            halted(issued(), ENDED),
            &none,
            &holds,
            ENDED,
            State::Expired,
            "UTC; the CA is disabled",
        ),
        ("a second before its end", issued(), &none, &holds, "2026-12-01T00:59:59Z", State::Attention, "is not renewed yet"),
        ("not issued", not_issued(), &none, &holds, EARLY, State::NotIssued, "not issued yet"),
        ("its first pair waits", first, &none, &lacks, DUE, State::Waiting, "it waits for clients"),
        ("its first failed", halted(not_issued(), EARLY), &none, &holds, EARLY, State::Attention, "the CA is disabled"),
        (
            "its first is under way",
            Record { attempt: Some(attempt(at(EARLY))), ..not_issued() },
            &none,
            &holds,
            EARLY,
            State::NotIssued,
            "attempt 7",
        ),
        ("adopted", adopted, &none, &holds, EARLY, State::NotIssued, "imported into ACM by hand"),
        (
            "not exported",
            Record { current: None, ..exported() },
            &none,
            &holds,
            EARLY,
            State::NotIssued,
            "not exported from ACM yet",
        ),
        ("ACM's, and its time is far", exported(), &none, &holds, "2026-12-16T23:59:59Z", State::Good, ""),
        (
            "ACM's, and ACM has not renewed it",
            exported(),
            &none,
            &holds,
            "2026-12-17T00:00:00Z",
            State::Due,
            "it expires 2027-01-31",
        ),
        (
            "ACM's, and ACM was asked",
            asked,
            &none,
            &holds,
            "2026-12-20T07:00:00Z",
            State::Due,
            "ACM was asked to renew it 2026-12-20 06:00 UTC",
        ),
    ] {
        let told = row(&record, &[], trust, stores, now);
        assert_eq!(told.state, state, "{what}: {}", told.reason);
        assert!(told.reason.contains(reason) && told.reason.is_empty() == reason.is_empty(), "{what}: {}", told.reason);
    }
}

#[test]
fn a_certificate_is_not_good_before_its_services_are() {
    let record =
        with(|record| record.options.services = ["payments/orders", "payments/refunds"].map(|name| name.parse().unwrap()).into());
    let canary = Record {
        options: Options { canary: Some("payments/orders".parse().unwrap()), ..record.options.clone() },
        ..record.clone()
    };
    let later = at("2026-11-01T02:00:00Z");
    let (on, runs, failed) =
        (followed(later, Progress::Completed), followed(later, Progress::Running), followed(later, Progress::Failed));
    let gone =
        BindingState { fault: Some(Fault { at: later.into(), reason: "ECS knows no such service".to_owned() }), ..on.clone() };
    let older = followed(at("2026-11-01T01:00:00Z"), Progress::Completed);
    let failed_before = followed(*pair().since, Progress::Failed);
    for (what, record, orders, refunds, state, reason) in [
        ("both are on it", &record, Some(&on), Some(&on), State::Good, ""),
        ("one is deployed", &record, Some(&on), Some(&runs), State::Due, "payments/refunds is redeployed with the new pair"),
        ("one is older", &record, Some(&older), Some(&on), State::Due, "payments/orders is redeployed"),
        ("one failed before", &record, Some(&failed_before), Some(&on), State::Due, "payments/orders is redeployed"),
        ("nothing is known", &record, None, None, State::Due, "payments/orders, payments/refunds is redeployed"),
        (
            "one is not there",
            &record,
            Some(&on),
            Some(&gone),
            State::Attention,
            "payments/refunds cannot be redeployed: ECS knows no such service",
        ),
        (
            "one failed",
            &record,
            Some(&failed),
            Some(&on),
            State::Attention,
            "the last deployment of the service payments/orders failed",
        ),
        (
            "the canary is tried",
            &canary,
            Some(&runs),
            Some(&older),
            State::Waiting,
            "payments/refunds until the new pair works in payments/orders",
        ),
        ("the canary works", &canary, Some(&on), Some(&older), State::Due, "payments/refunds is redeployed"),
        ("the canary was first, and the other is done", &canary, Some(&on), Some(&on), State::Good, ""),
    ] {
        let known = [("payments/orders", orders), ("payments/refunds", refunds)];
        let known: Vec<_> = known.into_iter().filter_map(|(name, state)| Some((name, state?.clone()))).collect();
        let told = row(record, &known, &Trust::default(), &Stores::default(), EARLY);
        assert_eq!(told.state, state, "{what}: {}", told.reason);
        assert!(told.reason.contains(reason) && told.reason.is_empty() == reason.is_empty(), "{what}: {}", told.reason);
    }
}

#[test]
fn a_row_holds_the_facts_of_its_record_by_names_that_never_change() {
    let record = told(issued(), "secret-missing", "the secret is gone", EARLY);
    let record = told(record, "acm-missing", "ACM has it no more", DUE);
    let mut record =
        Record { options: Options { services: ["payments/orders".parse().unwrap()].into(), ..Options::default() }, ..record };
    record.options.agent_services.insert("payments/mesh".parse().unwrap());
    record.imported = Some(import::Imported { certificate_arn: Some(arn(samples::IN_ACM)), ..Default::default() });
    let expected = json!({
        "certificate": "orders-client", "state": "attention", "reason": "ACM has it no more", "origin": "issued",
        "not_before": "2026-11-01T00:00:00Z", "not_after": "2026-12-01T01:00:00Z", "renews_at": Moment::from(due(&record, HOUR).unwrap()),
        "serial_number": "a01", "issuer": samples::CA, "subject": "CN=orders", "names": ["dns:orders.example.com"],
        "key_algorithm": "EC_prime256v1", "services": ["payments/orders", "payments/mesh reload=agent"],
        "acm_certificate_arn": samples::IN_ACM,
        "told": [
            {"at": "2026-11-24T06:00:00Z", "message": "ACM has it no more"},
            {"at": "2026-11-10T06:00:00Z", "message": "the secret is gone"},
        ],
    });
    let told = serde_json::to_value(row(&record, &[], &Trust::default(), &Stores::default(), DUE)).unwrap();
    assert_eq!(told, expected);
    let least =
        serde_json::to_value(row(&Record { current: None, ..exported() }, &[], &Trust::default(), &Stores::default(), DUE));
    let expected = json!({
        "certificate": "orders-client", "state": "not-issued", "reason": "not exported from ACM yet", "origin": "exported",
        "services": [], "acm_certificate_arn": samples::IN_ACM,
    });
    assert_eq!(least.unwrap(), expected);
    let of_acm = Record { contents: Some(samples::held().contents()), ..exported() };
    let told = serde_json::to_value(row(&of_acm, &[], &Trust::default(), &Stores::default(), DUE)).unwrap();
    assert_eq!(
        (&told["subject"], &told["names"], &told["key_algorithm"]),
        (&json!("CN=orders.example.com"), &json!(["dns:*.example.com", "dns:orders.example.com"]), &json!("EC_prime256v1"))
    );
    // What a specification says, nobody else does.
    let ours = Record { contents: of_acm.contents, ..issued() };
    let told = row(&ours, &[], &Trust::default(), &Stores::default(), DUE);
    assert_eq!(told.subject.as_deref(), Some("CN=orders"));
    let unreadable = serde_json::to_value(Row::unreadable("orders".parse().unwrap(), "no".to_owned())).unwrap();
    assert_eq!(unreadable, json!({"certificate": "orders", "state": "attention", "reason": "no", "services": []}));
}

#[test]
fn a_trust_store_tells_what_it_holds_what_it_lacks_and_what_leaves_it() {
    let now = at(EARLY);
    let mut kept = stores(true);
    let store = kept.stores.get_mut(&"clients".parse::<StoreName>().unwrap()).unwrap();
    store.declaration.certificate_authority_arns.insert(arn(OTHER_CA));
    store.bundle = ["f0", "f1"].map(str::to_owned).into();
    store.extras.insert("trust/extra/clients/partner.pem".to_owned(), "f1".to_owned());
    let crl = LoadedCrl {
        revocation_id: 1,
        number: "12".to_owned(),
        this_update: at("2026-11-09T00:00:00Z").into(),
        next_update: Some(at("2026-11-16T00:00:00Z").into()),
        entries: 3,
        e_tag: None,
    };
    store.crls.insert(arn(samples::CA), crl);
    let told = |kept: &Stores, trust: &Trust, now| serde_json::to_value(trust_stores(trust, kept, HOUR, now)).unwrap();
    let expected = json!([{
        "trust_store": "clients", "state": "waiting", "reason": format!("it does not hold {OTHER_CA} yet"),
        "declared_by": "request", "certificates": 2,
        "certificate_authorities": [
            {"certificate_authority_arn": samples::CA, "state": "held"},
            {"certificate_authority_arn": OTHER_CA, "state": "missing"},
        ],
        "extras": ["trust/extra/clients/partner.pem"],
        "revocation_lists": [{
            "certificate_authority_arn": samples::CA, "crl_number": "12", "this_update": "2026-11-09T00:00:00Z",
            "next_update": "2026-11-16T00:00:00Z", "entries": 3,
        }],
        "listeners": [],
    }]);
    assert_eq!(told(&kept, &Trust::default(), now), expected);

    // The CA is retired for the other one, which the store holds by now.
    let store = kept.stores.get_mut(&"clients".parse::<StoreName>().unwrap()).unwrap();
    store.held.insert(arn(OTHER_CA), vec!["f2".to_owned()]);
    let needed = json!([
        {"certificate_authority_arn": OTHER_CA, "state": "held"},
        {"certificate_authority_arn": samples::CA, "state": "needed"},
    ]);
    let said = told(&kept, &retired(), now);
    assert_eq!(
        (&said[0]["certificate_authorities"], &said[0]["state"], &said[0]["reason"]),
        (&needed, &json!("good"), &json!(""))
    );
    kept.stores.get_mut(&"clients".parse::<StoreName>().unwrap()).unwrap().leaving.insert(arn(samples::CA), now.into());
    let leaving = json!({"certificate_authority_arn": samples::CA, "state": "leaving", "leaves_at": "2026-11-10T07:00:00Z"});
    assert_eq!(told(&kept, &retired(), now)[0]["certificate_authorities"][1], leaving);

    // A CRL that has ended is a person's business, and so is what a person was told within the day.
    let ended = told(&kept, &retired(), at("2026-11-16T00:00:00Z"));
    assert_eq!(ended[0]["state"], "attention");
    assert!(ended[0]["reason"].as_str().unwrap().starts_with("its CRL 12 ended 2026-11-16"), "{ended}");
    let store = kept.stores.get_mut(&"clients".parse::<StoreName>().unwrap()).unwrap();
    store.told.insert("trust-store: failed to read".to_owned(), now.into());
    let again = DAY + HOUR * 2;
    for (since, state) in [(HOUR, "attention"), (again - Duration::from_secs(1), "attention"), (again, "good")] {
        let said = told(&kept, &retired(), now + since);
        assert_eq!(said[0]["state"], state, "{said}");
        assert_eq!(said[0]["told"], json!([{"at": EARLY, "message": "trust-store: failed to read"}]));
    }

    // A retired CA that is not there is not spoken of.
    let only = json!([{"certificate_authority_arn": OTHER_CA, "state": "missing"}]);
    assert_eq!(told(&stores(false), &retired(), now)[0]["certificate_authorities"], only);

    // What the parameter declares is there before anything was done about it.
    let parameter = Trust { declared: vec![kept.stores.into_values().next().unwrap().declaration], ..Trust::default() };
    let said = told(&Stores::default(), &parameter, now);
    assert_eq!(
        (&said[0]["declared_by"], &said[0]["state"], &said[0]["certificates"]),
        (&json!("parameter"), &json!("waiting"), &json!(0))
    );
}
