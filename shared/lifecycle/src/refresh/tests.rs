use std::time::Duration;

use rcgen::{CertificateRevocationListParams, GeneralSubtree, KeyIdMethod, KeyPair, NameConstraints, SerialNumber};

use super::*;
use crate::bundle::MOST_AUTHORITIES;
use crate::record::Pair;
use crate::samples::{Ca, DAY, HOUR, arn, at, below, ca, issued, pair, root};
use crate::trust::{Authentication, Declaration, NOTICE, Successors, Trust};

const NOW: &str = "2027-01-01T00:00:00Z";
const STORE: &str = "arn:aws:elasticloadbalancing:eu-central-1:111122223333:truststore/clients/0123456789abcdef";
const LISTENER: &str =
    "arn:aws:elasticloadbalancing:eu-central-1:111122223333:listener/app/one/0123456789abcdef/0123456789abcdef";

fn authority(name: &str) -> Arn {
    arn(&format!("arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/{name}"))
}

/// CAs by their names, all below one root.
struct Cas {
    root: Ca,
    below: BTreeMap<&'static str, Ca>,
}

impl Cas {
    fn new<const N: usize>(names: [&'static str; N]) -> Self {
        let root = root(ca("root"));
        let below = names.map(|name| (name, below(&root, ca(name)))).into();
        Self { root, below }
    }

    fn chain(&self, name: &str) -> Vec<Vec<u8>> {
        vec![self.below[name].der().to_vec(), self.root.der().to_vec()]
    }

    /// The store `clients` is declared with these CAs, and nothing was made yet.
    fn declared(&self, names: &[&str]) -> Site {
        let declaration = Declaration {
            name: "clients".parse().unwrap(),
            certificate_authority_arns: names.iter().map(|name| authority(name)).collect(),
            listeners: Vec::new(),
        };
        let chains = self.below.keys().map(|name| (authority(name), Ok(self.chain(name)))).collect();
        let facts = Facts { chains, ..Facts::default() };
        Site { store: Store::new(declaration, false), successors: Successors::default(), facts, now: at(NOW) }
    }

    /// The same once the store holds them.
    fn held(&self, names: &[&str]) -> Site {
        let declared = self.declared(names);
        declared.after(&declared.plan())
    }
}

/// A store and everything that a look at it shows.
#[derive(Clone)]
struct Site {
    store: Store,
    successors: Successors,
    facts: Facts,
    now: OffsetDateTime,
}

impl Site {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut site = self.clone();
        change(&mut site);
        site
    }

    fn retired(&self, successions: &[(&str, &str)]) -> Self {
        let succession = |(old, new): &(&str, &str)| format!("{}={}", authority(old), authority(new)).parse().unwrap();
        let successors = Successors::new(successions.iter().map(succession).collect()).unwrap();
        Self { successors, ..self.clone() }
    }

    fn listening(&self, mode: Mode, clients: &[&str], has: Option<Attached>) -> Self {
        self.with(|site| {
            let clients = clients.iter().map(|name| name.parse().unwrap()).collect();
            let authentication = Authentication { mode, ..Authentication::default() };
            site.store.declaration.listeners = vec![Listener { listener_arn: arn(LISTENER), authentication, clients }];
            site.facts.listeners = has.map(|has| (arn(LISTENER), has)).into_iter().collect();
        })
    }

    fn publishes(&self, name: &str, published: Result<Published, &str>) -> Self {
        self.with(|site| _ = site.facts.published.insert(authority(name), published.map_err(str::to_owned)))
    }

    fn plan(&self) -> Plan {
        let trust = Trust { declared: Vec::new(), successors: self.successors.clone() };
        plan(&self.store, &trust.authorities(&self.store), &self.facts, self.now)
    }

    /// What is there once the plan was carried out, as `refresh-truststore` does it.
    fn after(&self, plan: &Plan) -> Self {
        self.with(|Self { store, facts, .. }| {
            if plan.upload.is_some() {
                facts.arn.get_or_insert_with(|| arn(STORE));
                facts.held = plan.bundle.authorities.iter().map(|one| one.der.clone()).collect();
            }
            if let Some(arn) = &facts.arn {
                store.arn = plan.fits.then(|| arn.clone()).or_else(|| store.arn.clone());
                store.bundle = facts.held.iter().map(|der| fingerprint(der)).collect();
                (store.held, store.leaving, store.crls) = (plan.held.clone(), plan.leaving.clone(), plan.crls.clone());
                store.extras = if plan.fits { plan.extras.clone() } else { store.extras.clone() };
                for (authority, crl, e_tag) in &plan.add_crls {
                    let id = facts.loaded.keys().max().map_or(1, |last| last + 1);
                    facts.loaded.insert(id, None);
                    store.crls.insert(authority.clone(), LoadedCrl::of(crl, id, e_tag.clone()));
                }
                facts.loaded.retain(|id, _| !plan.remove_crls.iter().any(|(_, gone)| gone == id));
                store.crls.values().for_each(|noted| _ = facts.loaded.insert(noted.revocation_id, None));
            }
            for listener in &store.declaration.listeners {
                if plan.listeners.contains(&(listener.listener_arn.clone(), Attach::Modify)) {
                    let verifies = listener.authentication.mode == Mode::Verify;
                    let attached =
                        Attached { authentication: listener.authentication, store: facts.arn.clone().filter(|_| verifies) };
                    facts.listeners.insert(listener.listener_arn.clone(), attached);
                }
            }
            for (authority, published) in &mut facts.published {
                let known = store.crls.get(authority).and_then(|loaded| loaded.e_tag.clone());
                if let Ok(Published::Crl { e_tag, .. }) = published
                    && known.is_some()
                    && known == *e_tag
                {
                    *published = Ok(Published::Same);
                }
            }
        })
    }

    /// The plan, which leads to a state in which there is nothing left to do and the same is told and kept.
    fn settles(&self, what: &str) -> Plan {
        let plan = self.plan();
        let after = self.after(&plan);
        let again = after.plan();
        assert!(again.changes_nothing(), "{what}: {again:#?}");
        assert_eq!(again.tell, plan.tell, "{what}");
        let kept = (&again.held, &again.leaving, &again.crls);
        assert!(after.facts.arn.is_none() || kept == (&after.store.held, &after.store.leaving, &after.store.crls), "{what}");
        plan
    }
}

/// The common names out of subjects.
fn names(subjects: &[String]) -> Vec<&str> {
    subjects.iter().filter_map(|one| Some(one.strip_prefix("`CN=")?.split_once('`')?.0)).collect()
}

fn held(plan: &Plan) -> Vec<&str> {
    plan.held.keys().map(|authority| authority.resource().rsplit('/').next().unwrap()).collect()
}

/// Each is told by its code with what it says, in this order, and nothing else is.
fn assert_told(what: &str, plan: &Plan, expected: &[(&str, &str)]) {
    assert_eq!(plan.tell.len(), expected.len(), "{what}: {:#?}", plan.tell);
    for ((code, said), (expected, part)) in plan.tell.iter().zip(expected) {
        assert!(code == expected && said.contains(part), "{what}: {code}: {said}");
    }
}

fn assert_noted(what: &str, plan: &Plan, expected: &[&str]) {
    assert_eq!(plan.notes.len(), expected.len(), "{what}: {:#?}", plan.notes);
    for (said, part) in plan.notes.iter().zip(expected) {
        assert!(said.contains(part), "{what}: {said}");
    }
}

#[test]
fn a_bundle_is_uploaded_when_the_store_does_not_hold_it_and_drift_is_told_as_such() {
    let cas = Cas::new(["a", "b", "theirs"]);
    let held = cas.held(&["a"]);
    let (new, drift, changed) = (
        "there is no such trust store yet",
        "somebody else has changed what it holds; it is put right",
        "what it is to hold has changed",
    );
    let theirs = || cas.below["theirs"].der().to_vec();
    for (what, site, upload, added, removed) in [
        ("nothing differs", held.clone(), None, &[][..], &[][..]),
        ("a new store", cas.declared(&["a"]), Some(new), &["a", "root"], &[]),
        (
            "a store that was deleted",
            held.with(|site| (site.facts.arn, site.facts.held) = (None, Vec::new())),
            Some(new),
            &["a", "root"],
            &[],
        ),
        (
            "another CA is declared",
            held.with(|site| _ = site.store.declaration.certificate_authority_arns.insert(authority("b"))),
            Some(changed),
            &["b"],
            &[],
        ),
        (
            "an extra object",
            held.with(|site| {
                let body = root(ca("partner")).pem().replace("\r\n", "\n").into_bytes();
                site.facts.extras = vec![Extra { key: "trust/extra/clients/partner.pem".to_owned(), body }];
            }),
            Some(changed),
            &["partner"],
            &[],
        ),
        ("one more by hand", held.with(|site| site.facts.held.push(theirs())), Some(drift), &[], &["theirs"]),
        ("one less by hand", held.with(|site| _ = site.facts.held.remove(0)), Some(drift), &["a"], &[]),
        ("everything else by hand", held.with(|site| site.facts.held = vec![theirs()]), Some(drift), &["a", "root"], &["theirs"]),
        (
            "by hand while another was declared",
            held.with(|site| {
                site.facts.held.push(theirs());
                site.store.declaration.certificate_authority_arns.insert(authority("b"));
            }),
            Some(drift),
            &["b"],
            &["theirs"],
        ),
        (
            "kept by a version that did not know the bundle",
            held.with(|site| {
                site.store.bundle.clear();
                site.facts.held.remove(0);
            }),
            Some(changed),
            &["a"],
            &[],
        ),
        ("made by a try that was not recorded", held.with(|site| site.store = cas.declared(&["a"]).store), None, &[], &[]),
    ] {
        let plan = site.settles(what);
        assert_eq!(plan.upload.as_deref(), upload, "{what}");
        assert_eq!((names(&plan.added), names(&plan.removed)), (added.to_vec(), removed.to_vec()), "{what}");
        assert_eq!(plan.changes_nothing(), upload.is_none(), "{what}");
        assert_told(what, &plan, &[]);
    }
}

#[test]
fn what_may_not_be_uploaded_leaves_the_store_as_it_is_and_no_listener_begins_to_verify() {
    let cas = Cas::new(["a", "theirs"]);
    let many: Vec<Ca> = (0..MOST_AUTHORITIES).map(|n| below(&cas.root, ca(&format!("ca {n}")))).collect();
    let too_many = |site: &mut Site| {
        for (n, ca) in many.iter().enumerate() {
            let arn = authority(&n.to_string());
            site.store.declaration.certificate_authority_arns.insert(arn.clone());
            site.facts.chains.insert(arn, Ok(vec![ca.der().to_vec(), cas.root.der().to_vec()]));
        }
    };
    let nothing = |site: &mut Site| site.store.declaration.certificate_authority_arns.clear();
    let foreign = cas.declared(&["a"]).with(|site| {
        site.facts.arn = Some(arn(STORE));
        site.facts.held = vec![cas.below["theirs"].der().to_vec()];
    });
    let anew = |site: &mut Site| {
        site.facts.arn = Some(arn(&STORE.replace("0123456789abcdef", "fedcba9876543210")));
        site.facts.held = vec![cas.below["theirs"].der().to_vec()];
    };
    let beside = foreign.with(|site| site.facts.held.extend(cas.chain("a")));
    let off = || Some(Attached { authentication: Authentication { mode: Mode::Off, ..Authentication::default() }, store: None });
    let full = "its CAs and their chains are 26 certificates, and a trust store holds 25";
    for (what, site, holds, why) in [
        ("empty, and nothing was made", cas.declared(&[]), &[][..], "nothing would be left in it"),
        (
            "emptied, its CA needed by nobody",
            cas.held(&["a"]).with(nothing).with(|site| {
                site.store.leaving.insert(authority("a"), (site.now - NOTICE).into());
            }),
            &["a"],
            "nothing would be left in it",
        ),
        ("too many, and nothing was made", cas.declared(&[]).with(too_many), &[], full),
        ("too many", cas.held(&["a"]).with(too_many), &["a"], "its CAs and their chains are 27 certificates"),
        ("from before Everleaf", foreign, &[], "the store was there before Everleaf and holds `CN=theirs`"),
        (
            "made anew by somebody else",
            cas.held(&["a"]).with(anew),
            &[],
            "the store was there before Everleaf and holds `CN=theirs`",
        ),
        (
            "from before Everleaf, with what is declared beside others",
            beside,
            &["a"],
            "put each as PEM under trust/extra/clients/",
        ),
    ] {
        let site = site.listening(Mode::Verify, &[], off());
        let plan = site.settles(what);
        assert!(plan.changes_nothing(), "{what}: {plan:#?}");
        assert_eq!(held(&plan), holds, "{what}");
        assert_told(what, &plan, &[("trust-bundle", why)]);
        let missing = vec!["the trust store `clients` does not hold what is declared".to_owned()];
        assert_eq!(plan.listeners, [(arn(LISTENER), Attach::Wait { missing })], "{what}");
    }
}

#[test]
fn a_declaration_that_names_no_ca_and_lets_no_listener_verify_needs_no_store() {
    let off = Attached { authentication: Authentication { mode: Mode::Off, ..Authentication::default() }, store: None };
    for (what, mode, step) in [("off", Mode::Off, Attach::Keep), ("passthrough", Mode::Passthrough, Attach::Modify)] {
        let plan = Cas::new([]).declared(&[]).listening(mode, &[], Some(off.clone())).settles(what);
        assert_eq!(plan.listeners, [(arn(LISTENER), step)], "{what}");
        assert_eq!((plan.upload.as_deref(), &plan.tell[..]), (None, &[][..]), "{what}");
    }
}

#[test]
fn a_ca_that_cannot_be_read_keeps_what_the_store_holds_of_it_and_is_told() {
    let cas = Cas::new(["a", "b"]);
    let unreadable = |site: &mut Site| _ = site.facts.chains.insert(authority("b"), Err("it is disabled".to_owned()));
    let told = |rest: &'static str| [("trust-ca", rest)];
    for (what, site, holds, removed, rest) in [
        (
            "held",
            cas.held(&["a", "b"]).with(unreadable),
            &["a", "b"][..],
            &[][..],
            "it is disabled; what the store holds of it stays",
        ),
        (
            "not held",
            cas.held(&["a"]).with(|site| {
                unreadable(site);
                site.store.declaration.certificate_authority_arns.insert(authority("b"));
            }),
            &["a"],
            &[],
            "it is disabled; it is left out",
        ),
        ("the only one", cas.held(&["b"]).with(unreadable), &["b"], &[], "what the store holds of it stays"),
    ] {
        let plan = site.settles(what);
        assert_eq!((held(&plan), names(&plan.removed)), (holds.to_vec(), removed.to_vec()), "{what}");
        assert_told(what, &plan, &told(rest));
    }
    let nobody_needs_it = cas.held(&["a", "b"]).with(|site| {
        unreadable(site);
        site.store.declaration.certificate_authority_arns.remove(&authority("b"));
        site.store.leaving.insert(authority("b"), (site.now - NOTICE).into());
    });
    let plan = nobody_needs_it.settles("leaving");
    assert_eq!((held(&plan), names(&plan.removed)), (vec!["a"], vec!["b"]), "what leaves needs no look");
    assert_told("leaving", &plan, &[]);
}

#[test]
fn a_wanted_ca_is_replaced_by_its_renewal_and_never_dropped_while_clients_get_in_by_it() {
    let cas = Cas::new(["a", "b"]);
    let site = cas.held(&["a", "b"]);
    let again = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = ca("a");
        change(&mut params);
        let key = KeyPair::try_from(cas.below["a"].key().serialized_der()).unwrap();
        let renewed = Ca::signed_by(params, key, &cas.root).unwrap();
        vec![renewed.der().to_vec(), cas.root.der().to_vec()]
    };
    let becomes = |chain: Vec<Vec<u8>>| site.with(|site| _ = site.facts.chains.insert(authority("a"), Ok(chain)));
    let renewed = again(|params| params.not_after = at("2029-01-01T00:00:00Z"));
    let refused = again(|params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });

    let plan = becomes(renewed.clone()).settles("renewed");
    assert_eq!((names(&plan.added), names(&plan.removed)), (vec!["a"], vec!["a"]));
    assert_eq!(plan.held[&authority("a")], [fingerprint(&renewed[0]), fingerprint(&renewed[1])]);

    let refusal = ("trust-refused", "`CN=a`");
    let plan = becomes(refused.clone()).settles("renewed to what ALB does not take");
    assert!(plan.upload.is_none(), "{plan:#?}");
    assert_eq!(plan.held, site.store.held, "no pair of the new certificate may become current");
    let stays =
        "would be left out, and clients of arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/a get in by it";
    assert_told("refused", &plan, &[refusal, ("trust-bundle", stays)]);

    // With nobody inside there is nobody to shut out.
    let new = cas.declared(&["a", "b"]).with(|site| _ = site.facts.chains.insert(authority("a"), Ok(refused)));
    let plan = new.settles("never held");
    assert_eq!((names(&plan.added), held(&plan)), (vec!["b", "root"], vec!["b"]));
    assert_told("never held", &plan, &[refusal]);

    let short = cas.declared(&["a", "b"]).with(|site| {
        _ = site.facts.chains.insert(authority("a"), Ok(again(|params| params.not_after = at("2027-01-02T00:00:00Z"))));
    });
    let expired = short.after(&short.plan()).with(|site| site.now += DAY);
    let plan = expired.settles("expired");
    assert_eq!((names(&plan.removed), held(&plan)), (vec!["a"], vec!["b"]));
    assert_told(
        "expired",
        &plan,
        &[("trust-refused", "it expired 2027-01-02 00:00 UTC; it is left out of the trust store `clients`")],
    );
}

#[test]
fn a_ca_that_is_retired_or_undeclared_stays_while_it_is_needed_is_announced_and_goes() {
    let cas = Cas::new(["a", "b"]);
    let needed = |site: &mut Site| _ = site.facts.needed.insert(authority("a"), "orders-client".parse().unwrap());
    let undeclared = |site: &mut Site| _ = site.store.declaration.certificate_authority_arns.remove(&authority("a"));
    let since =
        |passed: Duration| move |site: &mut Site| _ = site.store.leaving.insert(authority("a"), (site.now - passed).into());
    let unheard = |site: &mut Site| {
        let chain = site.store.held.remove(&authority("a")).unwrap();
        site.store.adding.insert(authority("a"), chain);
    };
    let was_to_come = |site: &mut Site| {
        let chain = cas.chain("a").iter().map(|der| fingerprint(der)).collect();
        site.store.adding.insert(authority("a"), chain);
    };
    let other = root(ca("other root"));
    let apart = cas.declared(&["a", "b"]).with(|site| {
        let alone = below(&other, ca("a"));
        site.facts.chains.insert(authority("a"), Ok(vec![alone.der().to_vec(), other.der().to_vec()]));
    });
    let apart = apart.after(&apart.plan());
    let (stays, announced, goes) =
        ("stays although it is retired", "it leaves at a refresh an hour from now", "leaves: no unexpired");
    let root_stays = "leaves: no unexpired pair needs it; its root stays, so what it issued gets in until";
    let with_its_crl = "stays with its CRL although no unexpired pair needs it";
    // Its CRL revokes this many.
    let revokes = |entries: usize| {
        move |site: &mut Site| {
            let loaded = LoadedCrl {
                revocation_id: 9,
                number: "1".to_owned(),
                this_update: site.now.into(),
                next_update: None,
                entries,
                e_tag: None,
            };
            site.store.crls.insert(authority("a"), loaded);
            site.facts.loaded.insert(9, None);
            site.facts.published.insert(authority("a"), Ok(Published::Same));
        }
    };
    let published = |entries: usize| {
        let crl = Crl { entries, ..crl(&cas.below["a"], 2, Duration::ZERO, 3_600) };
        Ok(Published::Crl { crl, e_tag: Some("e2".to_owned()) })
    };
    let in_a_new_table = "stays until the daily walk has found every certificate";
    for (what, site, leaving, removed, notes) in [
        ("undeclared and needed", cas.held(&["a", "b"]).with(undeclared).with(needed), false, &[][..], &[stays][..]),
        ("undeclared", cas.held(&["a", "b"]).with(undeclared), true, &[], &[announced]),
        ("announced", cas.held(&["a", "b"]).with(undeclared).with(since(HOUR / 2)), true, &[], &[announced]),
        ("its time has come", cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)), false, &["a"], &[root_stays]),
        (
            "it has revoked nothing",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(revokes(0)),
            false,
            &["a"],
            &[root_stays],
        ),
        (
            "its root would let in what it has revoked",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(revokes(1)),
            false,
            &[],
            &[with_its_crl],
        ),
        (
            "its root would let in what it revokes since",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(revokes(0)).publishes("a", published(1)),
            false,
            &[],
            &[with_its_crl],
        ),
        (
            "what it had revoked has expired",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(revokes(1)).publishes("a", published(0)),
            false,
            &["a"],
            &[root_stays],
        ),
        (
            "not every certificate is known",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(|site| site.facts.table_is_new = true),
            false,
            &[],
            &[in_a_new_table],
        ),
        (
            "nobody would let in what it has revoked",
            apart.with(undeclared).with(since(NOTICE)).with(revokes(1)),
            false,
            &["a", "other root"],
            &[goes],
        ),
        ("with a root of its own", apart.with(undeclared).with(since(NOTICE)), false, &["a", "other root"], &[goes]),
        (
            "its time has come and it is needed again",
            cas.held(&["a", "b"]).with(undeclared).with(since(NOTICE)).with(needed),
            false,
            &[],
            &[stays],
        ),
        ("declared again", cas.held(&["a", "b"]).with(since(NOTICE)), false, &[], &[]),
        (
            "added unheard of, undeclared and needed",
            cas.held(&["a", "b"]).with(unheard).with(undeclared).with(needed),
            false,
            &[],
            &[stays],
        ),
        ("added unheard of, and undeclared", cas.held(&["a", "b"]).with(unheard).with(undeclared), true, &[], &[announced]),
        ("was to be added and never was, and undeclared", cas.held(&["b"]).with(was_to_come).with(undeclared), false, &[], &[]),
        ("retired and needed", cas.held(&["a", "b"]).retired(&[("a", "b")]).with(needed), false, &[], &[stays]),
        ("retired", cas.held(&["a", "b"]).retired(&[("a", "b")]), true, &[], &[announced]),
        (
            "retired, its time has come",
            cas.held(&["a", "b"]).retired(&[("a", "b")]).with(since(NOTICE)),
            false,
            &["a"],
            &[root_stays],
        ),
        (
            "retired and never held",
            cas.held(&["b"]).retired(&[("a", "b")]).with(|site| {
                site.store.declaration.certificate_authority_arns.insert(authority("a"));
            }),
            false,
            &[],
            &[],
        ),
    ] {
        let plan = site.settles(what);
        assert_eq!(plan.leaving.contains_key(&authority("a")), leaving, "{what}");
        assert_eq!(names(&plan.removed), removed, "{what}");
        assert_eq!(plan.held.contains_key(&authority("a")), removed.is_empty() && !what.contains("never"), "{what}");
        assert_noted(what, &plan, notes);
        assert_told(what, &plan, &[]);
    }
    // One that is needed and not held yet is taken up: its pair is refused without it.
    let site = cas.held(&["b"]).retired(&[("a", "b")]).with(needed);
    let site = site.with(|site| _ = site.store.declaration.certificate_authority_arns.insert(authority("a")));
    assert_eq!(names(&site.settles("needed and not held").added), ["a"]);
    // The successor of a declared one is taken up by itself, and announced once means announced for good.
    let site = cas.held(&["a"]).retired(&[("a", "b")]);
    let plan = site.settles("taken up");
    assert_eq!((names(&plan.added), plan.leaving[&authority("a")]), (vec!["b"], site.now.into()));
    let later = site.after(&plan).with(|site| site.now += HOUR / 2);
    assert_eq!(later.settles("half an hour later").leaving[&authority("a")], site.now.into());
    assert_eq!(
        later.with(|site| site.now += HOUR / 2).settles("an hour later").held.keys().collect::<Vec<_>>(),
        [&authority("b")]
    );
}

/// Its root stays, and it is as if nobody needed the CA any more.
#[test]
fn what_a_retired_ca_has_revoked_stays_refused_when_it_cannot_be_read_or_somebody_spoils_its_crl() {
    let cas = Cas::new(["a", "b"]);
    let site = cas.held(&["a", "b"]).with(|site| {
        site.store.declaration.certificate_authority_arns.remove(&authority("a"));
        site.store.leaving.insert(authority("a"), (site.now - NOTICE).into());
        let loaded = LoadedCrl { entries: 1, ..LoadedCrl::of(&crl(&cas.below["a"], 5, HOUR, 3_600), 9, None) };
        site.store.crls.insert(authority("a"), loaded);
        site.facts.loaded.insert(9, None);
        site.facts.published.insert(authority("a"), Ok(Published::Same));
    });
    let unreadable = |name| move |site: &mut Site| _ = site.facts.chains.insert(authority(name), Err("it is gone".to_owned()));
    let publishes = |crl: Crl| site.publishes("a", Ok(Published::Crl { crl, e_tag: None }));
    let a = &cas.below["a"];
    let cannot_be_read = ("trust-ca", "cannot be read: it is gone; what the store holds of it stays");
    for (what, site, told) in [
        ("it cannot be read", site.with(unreadable("a")), &[][..]),
        ("nor can the other", site.with(unreadable("a")).with(unreadable("b")), &[cannot_be_read]),
        ("nor can its CRL", site.publishes("a", Err("it is gone")), &[]),
        (
            "its CRL is signed by another",
            publishes(crl(&root(ca("a")), 6, Duration::ZERO, 3_600)),
            &[("trust-crl", "its CRL 6 is not signed by it")],
        ),
        ("its CRL has ended", publishes(crl(a, 6, HOUR / 2, 0)), &[("trust-crl", "its CRL 6 ended")]),
        ("its CRL is an older one", publishes(crl(a, 4, HOUR * 2, 3_600)), &[]),
    ] {
        let plan = site.settles(what);
        assert!(plan.upload.is_none() && plan.remove_crls.is_empty(), "{what}: {plan:#?}");
        assert_eq!((held(&plan), &plan.crls), (vec!["a", "b"], &site.store.crls), "{what}");
        assert!(plan.notes[0].contains("stays with its CRL although no unexpired pair needs it"), "{what}: {:?}", plan.notes);
        assert_told(what, &plan, told);
    }
    let plan = publishes(crl(a, 6, HOUR / 2, 3_600)).settles("a newer one names nobody any more");
    assert_eq!((held(&plan), names(&plan.removed)), (vec!["b"], vec!["a"]));
}

#[test]
fn an_extra_that_is_spoiled_stays_as_it_was_and_one_that_is_deleted_leaves() {
    let cas = Cas::new(["a"]);
    let partner = root(ca("partner")).pem().replace("\r\n", "\n");
    let put = |body: &str| {
        let extra = Extra { key: "trust/extra/clients/partner.pem".to_owned(), body: body.as_bytes().to_vec() };
        move |site: &mut Site| site.facts.extras = vec![extra.clone()]
    };
    let good = cas.held(&["a"]).with(put(&partner));
    let good = good.after(&good.settles("put"));
    let spoiled = good.with(put(&partner.replace('\n', "\r\n")));
    let plan = spoiled.settles("spoiled");
    assert!(plan.upload.is_none(), "{plan:#?}");
    assert_told("spoiled", &plan, &[("trust-refused", "what it held before stays, `CN=partner`")]);
    let replaced = spoiled.with(put(&root(ca("other partner")).pem().replace("\r\n", "\n")));
    let plan = replaced.settles("replaced");
    assert_eq!((names(&plan.added), names(&plan.removed)), (vec!["other partner"], vec!["partner"]));
    let deleted = spoiled.with(|site| site.facts.extras.clear());
    assert_eq!(names(&deleted.settles("deleted").removed), ["partner"]);
}

#[test]
fn an_extra_that_the_store_holds_keeps_its_place_when_another_or_a_declared_ca_comes() {
    let cas = Cas::new(["a", "b"]);
    let partners: Vec<Ca> = (0..MOST_AUTHORITIES - 2).map(|n| root(ca(&format!("partner {n}")))).collect();
    let extra = |key: &str, ca: &Ca| {
        let body = ca.pem().replace("\r\n", "\n").into_bytes();
        Extra { key: format!("trust/extra/clients/{key}.pem"), body }
    };
    let full = cas.held(&["a"]).with(|site| {
        site.facts.extras = partners.iter().enumerate().map(|(n, ca)| extra(&format!("partner-{n:02}"), ca)).collect();
    });
    let full = full.after(&full.settles("full"));
    assert_eq!(full.facts.held.len(), MOST_AUTHORITIES);
    let another = full.with(|site| site.facts.extras.insert(0, extra("another", &root(ca("another")))));
    let plan = another.settles("another");
    assert!(plan.changes_nothing(), "{plan:#?}");
    assert_told("another", &plan, &[("trust-refused", "`CN=another`")]);
    let declared = full.with(|site| _ = site.store.declaration.certificate_authority_arns.insert(authority("b")));
    let plan = declared.settles("declared");
    assert!(plan.changes_nothing() && plan.held == full.store.held, "{plan:#?}");
    assert_told("declared", &plan, &[("trust-bundle", "are 26 certificates, and a trust store holds 25; declare fewer CAs")]);
    let deleted = declared.with(|site| _ = site.facts.extras.pop());
    let plan = deleted.settles("one is deleted");
    assert_eq!((names(&plan.added), names(&plan.removed)), (vec!["b"], vec!["partner 22"]));
}

#[test]
fn what_is_refused_of_the_extras_is_told_and_the_rest_goes_in() {
    let cas = Cas::new(["a"]);
    let partner = root(ca("partner")).pem().replace("\r\n", "\n").into_bytes();
    let site = cas.held(&["a"]).with(|site| {
        let extra = |key: &str, body: &[u8]| Extra { key: format!("trust/extra/clients/{key}"), body: body.to_vec() };
        site.facts.extras = vec![extra("bad.pem", b"bad\n"), extra("partner.pem", &partner)];
    });
    let plan = site.settles("one is bad");
    assert_eq!(names(&plan.added), ["partner"]);
    let refused = "trust/extra/clients/bad.pem: line 1: it is neither PEM nor a comment";
    assert_told("one is bad", &plan, &[("trust-refused", refused)]);
    let gone = site.after(&plan).with(|site| site.facts.extras.clear());
    assert_eq!(names(&gone.settles("deleted").removed), ["partner"]);
    // All objects together, and each CA by itself.
    let many = cas.declared(&["a"]).with(|site| {
        let expired = root({
            let mut params = ca("expired");
            params.not_after = site.now;
            params
        });
        site.facts.chains.insert(authority("expired"), Ok(vec![expired.der().to_vec()]));
        site.store.declaration.certificate_authority_arns.insert(authority("expired"));
        let key = |number| format!("trust/extra/clients/{number}.pem");
        site.facts.extras = (0..7).map(|number| Extra { key: key(number), body: b"bad\n".to_vec() }).collect();
    });
    let plan = many.settles("many are bad");
    let objects = "objects under trust/extra/clients/ are refused: trust/extra/clients/0.pem: line 1";
    assert_told("many are bad", &plan, &[("trust-refused", "`CN=expired`"), ("trust-refused", objects)]);
    let said = &plan.tell[1].1;
    assert!(said.contains("/4.pem") && !said.contains("/5.pem") && said.ends_with("; and 2 more"), "{said}");
}

/// A CRL of that number which `issuer` signs, from `age` ago to `left` from now.
fn crl(issuer: &Ca, number: u8, age: Duration, left: i64) -> Crl {
    let params = CertificateRevocationListParams {
        this_update: at(NOW) - age,
        next_update: at(NOW) + time::Duration::seconds(left),
        crl_number: SerialNumber::from_slice(&[number]),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Crl::read(params.signed_by(issuer).unwrap().der()).unwrap()
}

#[test]
fn the_newest_crl_of_each_ca_is_added_and_what_it_supersedes_removed() {
    let cas = Cas::new(["a", "b"]);
    let a = &cas.below["a"];
    let of = |number, age| crl(a, number, age, 3_600);
    let published = |crl: Crl| Ok(Published::Crl { e_tag: Some(format!("e{}", crl.number)), crl });
    let site = cas.held(&["a", "b"]);
    let first = site.publishes("a", published(of(1, HOUR)));
    let first = first.after(&first.plan());
    let loads = |ids: &'static [(i64, u8)]| {
        let found: Vec<_> = ids.iter().map(|(id, number)| (*id, Some(of(*number, HOUR * (10 - u32::from(*number)))))).collect();
        move |site: &mut Site| site.facts.loaded.extend(found.clone())
    };
    let foreign = crl(&root(ca("theirs")), 9, HOUR, 3_600);
    let ended = "its CRL 2 ended 2027-01-01 00:00 UTC; see why the CA publishes no newer one";
    for (what, site, added, removed, kept, told) in [
        ("the first", site.publishes("a", published(of(1, HOUR))), Some("1"), &[][..], None, &[][..]),
        (
            "the first, in a store that is made",
            cas.declared(&["a"]).publishes("a", published(of(1, HOUR))),
            Some("1"),
            &[],
            None,
            &[],
        ),
        ("a newer one", first.publishes("a", published(of(2, HOUR / 2))), Some("2"), &[1], Some((1, "e1")), &[]),
        ("the same object", first.clone(), None, &[], Some((1, "e1")), &[]),
        (
            "the same number in another object",
            first.publishes("a", Ok(Published::Crl { crl: of(1, HOUR), e_tag: Some("other".to_owned()) })),
            None,
            &[],
            Some((1, "other")),
            &[],
        ),
        ("an older one", first.publishes("a", published(of(0, HOUR * 2))), None, &[], Some((1, "e1")), &[]),
        ("not published yet", site.publishes("a", Ok(Published::Missing)), None, &[], None, &[]),
        ("not published any more", first.publishes("a", Ok(Published::Missing)), None, &[], Some((1, "e1")), &[]),
        (
            "signed by another",
            first.publishes("a", published(foreign.clone())),
            None,
            &[],
            Some((1, "e1")),
            &[("trust-crl", "its CRL 9 is not signed by it")],
        ),
        ("ended", first.publishes("a", published(crl(a, 2, HOUR / 2, 0))), None, &[], Some((1, "e1")), &[("trust-crl", ended)]),
        ("the first, ended", site.publishes("a", published(crl(a, 2, HOUR, 0))), None, &[], None, &[("trust-crl", ended)]),
        (
            "the same object, ended since",
            first.with(|site| site.now += HOUR),
            None,
            &[],
            Some((1, "e1")),
            &[("trust-crl", "its CRL 1 ended 2027-01-01 01:00 UTC; see why")],
        ),
        (
            "not published any more, and ended since",
            first.publishes("a", Ok(Published::Missing)).with(|site| site.now += HOUR),
            None,
            &[],
            Some((1, "e1")),
            &[("trust-crl", "its CRL 1 ended 2027-01-01 01:00 UTC; see why")],
        ),
        (
            "not to be read",
            first.publishes("a", Err("it is partitioned")),
            None,
            &[],
            Some((1, "e1")),
            &[("trust-crl", "the CRL of arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/a was not brought into")],
        ),
        (
            "one that nobody noted",
            site.publishes("a", published(of(5, HOUR * 5))).with(loads(&[(7, 5)])),
            None,
            &[],
            Some((7, "e5")),
            &[],
        ),
        (
            "the newest of those that nobody noted",
            site.publishes("a", published(of(5, HOUR * 5))).with(loads(&[(7, 5), (8, 4), (9, 5)])),
            None,
            &[7, 8],
            Some((9, "e5")),
            &[],
        ),
        (
            "one that nobody noted, and a newer one",
            site.publishes("a", published(of(6, HOUR * 4))).with(loads(&[(7, 5)])),
            Some("6"),
            &[7],
            Some((7, "")),
            &[],
        ),
        ("others beside the one that is noted", first.with(loads(&[(7, 5), (8, 4)])), None, &[7, 8], Some((1, "e1")), &[]),
        (
            "one of somebody else's",
            first.with(|site| _ = site.facts.loaded.insert(7, Some(foreign.clone()))),
            None,
            &[],
            Some((1, "e1")),
            &[],
        ),
        ("one that cannot be read", first.with(|site| _ = site.facts.loaded.insert(7, None)), None, &[], Some((1, "e1")), &[]),
        (
            "removed by hand",
            first.with(|site| site.facts.loaded.clear()).publishes("a", published(of(1, HOUR))),
            Some("1"),
            &[],
            None,
            &[],
        ),
        ("its CA publishes none any more", first.with(|site| site.facts.published.clear()), None, &[], Some((1, "e1")), &[]),
        (
            "its CA leaves",
            first.with(|site| {
                site.store.declaration.certificate_authority_arns.remove(&authority("a"));
                site.store.leaving.insert(authority("a"), (site.now - NOTICE).into());
                site.facts.published.clear();
            }),
            None,
            &[1],
            None,
            &[],
        ),
    ] {
        let plan = site.settles(what);
        let adds: Vec<_> = plan.add_crls.iter().map(|(of, crl, _)| (of.clone(), crl.number.as_str())).collect();
        assert_eq!(adds, added.map(|number| (authority("a"), number)).into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(plan.remove_crls.iter().map(|(_, id)| *id).collect::<Vec<_>>(), removed, "{what}");
        let keeps =
            plan.crls.get(&authority("a")).map(|loaded| (loaded.revocation_id, loaded.e_tag.as_deref().unwrap_or_default()));
        assert_eq!(keeps, kept, "{what}");
        assert_told(what, &plan, told);
    }
}

#[test]
fn a_store_from_before_everleaf_keeps_its_crls_until_it_is_taken_over() {
    let cas = Cas::new(["a", "theirs"]);
    let of = |number, age| crl(&cas.below["a"], number, age, 3_600);
    let before = cas.held(&["a"]).publishes("a", Ok(Published::Crl { crl: of(3, HOUR), e_tag: None })).with(|site| {
        site.store = cas.declared(&["a"]).store;
        site.facts.held.push(cas.below["theirs"].der().to_vec());
        site.facts.loaded = [(7, Some(of(1, HOUR * 3))), (8, Some(of(2, HOUR * 2)))].into();
    });
    let plan = before.settles("from before");
    assert!(plan.changes_nothing() && plan.crls.is_empty(), "{plan:#?}");
    let anew = before.with(|site| {
        site.store.arn = Some(arn(&STORE.replace("0123456789abcdef", "fedcba9876543210")));
        site.store.crls.insert(authority("a"), LoadedCrl::of(&of(1, HOUR * 3), 7, None));
    });
    let plan = anew.settles("made anew by somebody else");
    assert!(plan.changes_nothing() && plan.crls == anew.store.crls, "{plan:#?}");
    let known = cas.held(&["a"]).publishes("a", Ok(Published::Crl { crl: of(3, HOUR), e_tag: None })).with(|site| {
        site.store.declaration.certificate_authority_arns.clear();
        site.store.leaving.insert(authority("a"), (site.now - NOTICE).into());
    });
    let plan = known.settles("one of Everleaf's own that would be empty");
    assert_eq!((plan.fits, plan.add_crls.len()), (false, 1));
    let declared = before.with(|site| _ = site.store.declaration.certificate_authority_arns.insert(authority("theirs")));
    let plan = declared.settles("declared as a whole");
    assert_eq!((plan.add_crls.len(), plan.remove_crls.len(), &plan.upload), (1, 2, &None));
}

#[test]
fn a_listener_is_kept_changed_or_waits_for_each_reason() {
    let cas = Cas::new(["a", "b"]);
    let record = |issuer: &str| Record { current: Some(Pair { issuer: Some(authority(issuer)), ..pair() }), ..issued() };
    // Valid since November.
    let site = |declared: Site| declared.with(|site| site.now = at("2026-11-22T06:00:00Z"));
    let with_client =
        |site: Site, issuer| site.with(|site| _ = site.facts.clients.insert("orders-client".parse().unwrap(), record(issuer)));
    let attached = |mode, store: Option<&str>| {
        Some(Attached { authentication: Authentication { mode, ..Authentication::default() }, store: store.map(arn) })
    };
    let (held, new) = (site(cas.held(&["a"])), site(cas.declared(&["a"])));
    let own = || attached(Mode::Verify, Some(STORE));
    let others =
        || attached(Mode::Verify, Some("arn:aws:elasticloadbalancing:eu-central-1:111122223333:truststore/o/0123456789abcdef"));
    let off = || attached(Mode::Off, None);
    let (unknown, other_ca) = ("`orders-client` is not known", "b, which this trust store does not hold");
    let orders = &["orders-client"][..];
    for (what, site, mode, clients, has, expected) in [
        ("verifies", held.clone(), Mode::Verify, &[][..], own(), Some("keep")),
        ("verifies, and a client cannot pass", held.clone(), Mode::Verify, orders, own(), Some("keep")),
        ("off", held.clone(), Mode::Verify, &[], off(), Some("modify")),
        ("off, in a store that is made", new.clone(), Mode::Verify, &[], off(), Some("modify")),
        ("off, every client can pass", with_client(held.clone(), "a"), Mode::Verify, orders, off(), Some("modify")),
        ("off, every client can pass what is made", with_client(new.clone(), "a"), Mode::Verify, orders, off(), Some("modify")),
        ("off, an unknown client", held.clone(), Mode::Verify, orders, off(), Some(unknown)),
        ("off, an unknown client, in a store that is made", new.clone(), Mode::Verify, orders, off(), Some(unknown)),
        ("off, a client of another CA", with_client(held.clone(), "b"), Mode::Verify, orders, off(), Some(other_ca)),
        ("verifies by another, an unknown client", held.clone(), Mode::Verify, orders, others(), Some(unknown)),
        (
            "verifies by another, every client can pass",
            with_client(held.clone(), "a"),
            Mode::Verify,
            orders,
            others(),
            Some("modify"),
        ),
        (
            "verifies by the store, to be made again",
            held.with(|site| (site.facts.arn, site.facts.held) = (None, Vec::new())),
            Mode::Verify,
            &[],
            own(),
            Some("modify"),
        ),
        ("off, to pass through", held.clone(), Mode::Passthrough, orders, off(), Some("modify")),
        ("off, to pass through, in a store that is made", new.clone(), Mode::Passthrough, &[], off(), Some("modify")),
        ("passes through", held.clone(), Mode::Passthrough, &[], attached(Mode::Passthrough, None), Some("keep")),
        ("verifies, to be off", held.clone(), Mode::Off, orders, own(), Some("modify")),
        ("off, to be so", new, Mode::Off, &[], off(), Some("keep")),
        ("not there", held.clone(), Mode::Verify, &[], None, None),
        (
            "another store's",
            held.with(|site| _ = site.facts.taken.insert(arn(LISTENER), "others".parse().unwrap())),
            Mode::Verify,
            &[],
            off(),
            None,
        ),
    ] {
        let plan = site.listening(mode, clients, has).settles(what);
        let [(_, step)] = &plan.listeners[..] else {
            assert_eq!(expected, None, "{what}");
            let why = match what {
                "not there" => "there is no listener arn:aws:elasticloadbalancing:",
                _ => {
                    "is a listener of `others` by the stack's parameter TrustStores; take it out of the declaration of `clients`"
                }
            };
            assert_told(what, &plan, &[("trust-listener", why)]);
            continue;
        };
        let said = match step {
            Attach::Keep => "keep".to_owned(),
            Attach::Modify => "modify".to_owned(),
            Attach::Wait { missing } => {
                assert_noted(what, &plan, &[&format!("{LISTENER} does not verify clients yet: {}", missing.join("; "))]);
                missing.join("; ")
            }
        };
        assert!(expected.is_some_and(|expected| said.contains(expected)), "{what}: {said}");
        assert_told(what, &plan, &[]);
    }
}

#[test]
fn a_refresh_looks_at_the_stores_that_it_is_about() {
    let cas = Cas::new(["a", "b", "c"]);
    let store = |name: &str, site: Site| {
        let declaration = Declaration { name: name.parse().unwrap(), ..site.store.declaration };
        (declaration.name.clone(), Store { declaration, by_hand: true, ..site.store })
    };
    let stores = Stores {
        stores: [
            store("both", cas.held(&["a", "b"])),
            store("new", cas.declared(&["a"])),
            store("former", cas.held(&["a"]).with(|site| site.store.declaration.certificate_authority_arns.clear())),
        ]
        .into(),
        ..Stores::default()
    };
    let of_ca = |name: &str| {
        let specification = crate::record::Specification {
            certificate_authority_arn: authority(name),
            ..issued().specification().unwrap().clone()
        };
        Record { origin: crate::record::Origin::Issued(specification), ..issued() }
    };
    let named = |name: &str| name.parse::<StoreName>().unwrap();
    let waiting = || Scope::Waiting("orders-client".parse().unwrap());
    for (what, scope, record, expected) in [
        ("all", Scope::All, None, Ok(&["both", "former", "new"][..])),
        ("one", Scope::One(named("new")), None, Ok(&["new"])),
        ("one that is not declared", Scope::One(named("other")), None, Err("`other` is not declared; declare it")),
        ("its extra objects", Scope::Extra(named("new")), None, Ok(&["new"])),
        ("extra objects of one that is not declared yet", Scope::Extra(named("other")), None, Ok(&[])),
        ("a CA, also of one that no longer declares it", Scope::Of(authority("a")), None, Ok(&["both", "former", "new"])),
        ("a CA of one of them", Scope::Of(authority("b")), None, Ok(&["both"])),
        ("a CA of none", Scope::Of(authority("c")), None, Ok(&[])),
        ("a certificate that a store keeps waiting", waiting(), Some(of_ca("a")), Ok(&["new"])),
        ("a certificate that none keeps waiting", waiting(), Some(of_ca("b")), Ok(&[])),
        ("a certificate that is not known", waiting(), None, Ok(&[])),
    ] {
        let names = scope.names(&Trust::default(), &stores, record.as_ref());
        match (names, expected) {
            (Ok(names), Ok(expected)) => {
                assert_eq!(names.iter().map(StoreName::to_string).collect::<Vec<_>>(), expected, "{what}");
            }
            (Err(why), Err(part)) => assert!(why.starts_with(part), "{what}: {why}"),
            (names, _) => panic!("{what}: {names:?}"),
        }
    }
}

#[test]
fn a_change_takes_the_lock_and_a_new_ca_is_noted_and_copied_before_a_store_gets_it() {
    let cas = Cas::new(["a", "b"]);
    let held = cas.held(&["a"]).with(|site| _ = site.facts.chains.remove(&authority("b")));
    let to_hold_both = cas.held(&["a"]).with(|site| _ = site.store.declaration.certificate_authority_arns.insert(authority("b")));
    let listening = held.listening(Mode::Verify, &[], Some(Attached::default()));
    let spoiled = held.with(|site| _ = site.facts.held.pop());
    for (what, site, lock, adding) in [
        ("nothing differs", held, false, &[][..]),
        ("a listener is to verify", listening, true, &[]),
        ("a new store", cas.declared(&["a"]), true, &["a"]),
        ("a new CA", to_hold_both, true, &["b"]),
        ("somebody has taken a certificate out", spoiled, true, &[]),
    ] {
        let name = site.store.declaration.name.clone();
        let mut stores = Stores { stores: [(name.clone(), site.store.clone())].into(), ..Stores::default() };
        let first = announce(&mut stores, [(&name, &site.plan())].into_iter());
        assert_eq!(first, First { lock, copy: !adding.is_empty() }, "{what}");
        let noted: Vec<_> = stores.stores[&name].adding.keys().cloned().collect();
        assert_eq!(noted, adding.iter().map(|name| authority(name)).collect::<Vec<_>>(), "{what}");
    }
}
