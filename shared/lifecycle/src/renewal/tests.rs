use super::*;
use crate::attempt::{A_DAY, Attempts, Staged};
use crate::export::Renewal;
use crate::import::Imported;
use crate::leaf::Serial;
use crate::record::{Moment, RenewalAsked};
use crate::revocation::{Reason, Revocation};
use crate::rollout::{Fault, Progress};
use crate::samples::{self, DAY, HOUR, at, attempt, exported, followed, halt, held, issued, pair};
use crate::setback::Setback;

/// Neither due nor anything else.
const QUIET: &str = "2026-11-10T06:00:00Z";
/// When [`issued`] is due: the last third of its thirty days begins at 01:00 on that day.
const DUE: &str = "2026-11-21T02:36:30.234375Z";
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn facts() -> Facts {
    Facts {
        secret: Secret::Good,
        astray: None,
        replicas: BTreeMap::new(),
        held: Some(held()),
        untagged: false,
        services: BTreeMap::new(),
        rollover: None,
        waits_for: BTreeSet::new(),
    }
}

fn named(name: &str) -> Record {
    Record { name: name.parse().unwrap(), ..issued() }
}

fn with_services(record: Record) -> Record {
    let services = ["payments/orders", "payments/refunds"].map(|name| name.parse().unwrap()).into();
    Record { options: crate::record::Options { services, ..record.options.clone() }, ..record }
}

/// ACM held an older pair when it was last looked at.
fn imported() -> Record {
    let mut record = issued();
    record.options.import_to_acm = true;
    record.imported = Some(Imported { certificate_arn: Some(samples::arn(samples::IN_ACM)), ..Imported::default() });
    record
}

fn adopted() -> Record {
    Record { origin: Origin::Adopted { certificate_arn: samples::arn(samples::IN_ACM) }, current: None, ..issued() }
}

fn callers() -> Record {
    Record { origin: Origin::CallerKey(samples::specification()), ..issued() }
}

/// The CA of [`pair`] is retired, and these trust stores do not hold its successor yet.
fn rollover<const N: usize>(missing: [&str; N]) -> Rollover {
    let successor = samples::arn("arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/new");
    Rollover { retired: samples::arn(samples::CA), successor, missing: missing.map(|name| name.parse().unwrap()).into() }
}

/// Of the current pair of [`issued`].
fn revocation(reason: Reason) -> Revocation {
    Revocation {
        serial: pair().serial,
        certificate_authority_arn: samples::arn(samples::CA),
        reason,
        asked: at(QUIET).into(),
        after_rollout: !reason.is_compromise(),
        done: None,
        refused: None,
    }
}

fn done(revocation: Revocation) -> Revocation {
    Revocation { done: Some(at(QUIET).into()), ..revocation }
}

/// A complete pair of attempt 7 that waits for trust stores.
fn staged(started: OffsetDateTime) -> attempt::Attempt {
    let staged =
        Staged { version_id: "version-2".to_owned(), serial: Serial::from_hex("0c03"), issuer: Some(rollover([]).successor) };
    attempt::Attempt {
        certificate_arn: Some(samples::arn(samples::CA)),
        staged: Some(staged),
        lease: started.into(),
        ..attempt(started)
    }
}

fn pair_of(record: &Record) -> Pair {
    record.current.clone().unwrap()
}

fn living(hours: u32) -> Record {
    let not_after = at("2026-11-01T01:00:00Z") + HOUR * hours;
    Record { current: Some(Pair { not_after: not_after.into(), ..pair() }), ..issued() }
}

/// The steps say what is expected, in that order, and the next look is at `look_at`.
fn assert_plan(what: &str, (record, facts): (&Record, &Facts), now: OffsetDateTime, steps: &[&str], look_at: OffsetDateTime) {
    let plan = plan(record, facts, HOUR, now);
    let said: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), steps.len(), "{what}: {said:#?}");
    for (said, expected) in said.iter().zip(steps) {
        assert!(said.starts_with(expected), "{what}: {said}");
    }
    assert_eq!(plan.look_at, look_at, "{what}");
}

#[test]
fn a_certificate_is_due_in_the_first_tenth_of_its_last_third_always_at_the_same_moment() {
    assert_eq!(due(&issued(), HOUR), Some(at(DUE)));
    assert_eq!(due(&Record { current: None, ..issued() }, HOUR), None);

    let window = at("2026-11-21T01:00:00Z");
    let all: Vec<_> = (0..1000).map(|n| due(&named(&format!("orders-{n}")), HOUR).unwrap() - window).collect();
    let tenth = time::Duration::hours(24);
    assert!(all.iter().all(|spread| (time::Duration::ZERO..tenth).contains(spread)));
    // Spread evenly enough that no hour has more than three times its share.
    for hour in 0..24 {
        let in_hour = all.iter().filter(|spread| spread.whole_hours() == hour).count();
        assert!((10..125).contains(&in_hour), "{in_hour} in hour {hour}");
    }
}

#[test]
fn the_window_is_what_is_asked_for_or_the_last_third() {
    let with = |hours: u32| {
        let mut record = issued();
        record.options.renew_before = Some(HOUR * hours);
        record
    };
    for (what, record, window) in [
        ("nothing asked", issued(), HOUR * 240),
        ("less than a third", with(48), HOUR * 48),
        ("more than a third", with(500), HOUR * 500),
        ("just less than the lifetime", with(719), HOUR * 719),
        ("the whole lifetime", with(720), HOUR * 240),
        ("more than the lifetime", with(2000), HOUR * 240),
        ("a short one", living(9), HOUR * 3),
    ] {
        let end = *pair_of(&record).not_after;
        let begin = end - window;
        let due = due(&record, HOUR).unwrap();
        assert!((begin..begin + window / 10).contains(&due), "{what}: {due}");
    }
}

#[test]
fn at_least_two_sweeps_are_left_when_a_certificate_is_due() {
    for n in 0..200 {
        for (hours, sweep) in [(9, HOUR), (9, MINUTE * 70), (9, MINUTE * 85), (9, MINUTE * 90), (720, HOUR * 119)] {
            let record = Record { name: format!("orders-{n}").parse().unwrap(), ..living(hours) };
            let left = *pair_of(&record).not_after - due(&record, sweep).unwrap();
            assert!(left >= sweep * 2, "{left} for {hours} hours, swept every {sweep:?}");
        }
    }
    // A window shorter than that is used whole.
    let (short, sweep) = (living(3), HOUR);
    assert_eq!(due(&short, sweep), Some(*pair_of(&short).not_after - HOUR));
}

#[test]
fn a_certificate_issued_here_is_renewed_when_it_is_due() {
    let unfinished = |started: OffsetDateTime| Record { attempt: Some(attempt(started)), ..issued() };
    let used_up = |on_day, day: &str| Record { attempts: Attempts { last: 9, day: Some(at(day).date()), on_day }, ..issued() };
    let halted = |since: OffsetDateTime| Record { halted: Some(halt(since)), ..issued() };
    let new = Record { current: None, ..issued() };
    let (quiet, due) = (at(QUIET), at(DUE));
    let end = at("2026-12-01T01:00:00Z");
    let late = at("2026-11-26T01:00:00Z");
    let issue = "issue a new pair: expires 2026-12-01 01:00 UTC";
    let tell_late = "tell a person: renewal-late: `orders-client` expires 2026-12-01 01:00 UTC and is not renewed yet";
    let tell_expired = "tell a person: expired: `orders-client` expired 2026-12-01 01:00 UTC; no renewal has succeeded";
    let tell_used_up = "tell a person: attempts-exhausted: 5 attempts at `orders-client` began today, which is all for a day; the next is made 2026-11-27 00:00 UTC";
    for (what, record, now, steps, look_at) in [
        ("long before", issued(), quiet, &[][..], quiet + DAY),
        ("a day and a second before it is due", issued(), due - DAY - SECOND, &[], due - SECOND),
        ("less than a day before it is due", issued(), due - HOUR, &[], due),
        ("when it is due", issued(), due, &[issue], due + HOUR),
        ("when half of the window is gone", issued(), late, &[issue, tell_late], late + HOUR),
        ("just before half of the window is gone", issued(), late - MINUTE, &[issue], late),
        ("just before it expires", issued(), end - SECOND, &[issue, tell_late], end),
        ("when it expires", issued(), end, &[issue, tell_expired], end + HOUR),
        ("a year after it expired", issued(), end + DAY * 365, &[issue, tell_expired], end + DAY * 365 + HOUR),
        ("never issued", new.clone(), quiet, &["issue a new pair: not issued yet"], quiet + HOUR),
        ("an attempt that somebody is at", unfinished(quiet), quiet + SECOND, &[], quiet + attempt::LEASE),
        (
            "an attempt left unfinished",
            unfinished(quiet),
            quiet + attempt::LEASE,
            &["issue a new pair: attempt 7 was left unfinished"],
            quiet + attempt::LEASE + HOUR,
        ),
        (
            "an attempt that is dead",
            unfinished(quiet),
            quiet + HOUR * 3,
            &["issue a new pair: attempt 7 was left unfinished"],
            quiet + HOUR * 4,
        ),
        (
            "a first attempt left unfinished",
            Record { attempt: Some(attempt(quiet)), ..new },
            quiet + HOUR,
            &["issue a new pair: attempt 7 was left unfinished"],
            quiet + HOUR * 2,
        ),
        (
            "today's attempts used up",
            used_up(A_DAY, "2026-11-26T05:00:00Z"),
            at("2026-11-26T23:00:00Z"),
            &[tell_used_up, tell_late],
            at("2026-11-27T00:00:00Z"),
        ),
        (
            "yesterday's attempts used up",
            used_up(A_DAY, "2026-11-26T05:00:00Z"),
            at("2026-11-27T00:00:00Z"),
            &[issue, tell_late],
            at("2026-11-27T01:00:00Z"),
        ),
        (
            "one attempt left today",
            used_up(A_DAY - 1, "2026-11-26T05:00:00Z"),
            at("2026-11-26T23:00:00Z"),
            &[issue, tell_late],
            at("2026-11-27T00:00:00Z"),
        ),
        ("used up and not due", used_up(A_DAY, QUIET), quiet, &[], quiet + DAY),
        ("a permanent failure, an hour ago", halted(due + HOUR), due + HOUR * 2, &[], due + HOUR + DAY),
        ("a permanent failure, a day ago", halted(due), due + DAY, &[issue], due + DAY + HOUR),
        ("a permanent failure, and late", halted(late - HOUR), late, &[tell_late], late - HOUR + DAY),
        ("a permanent failure, late before the day is over", halted(late - HOUR * 2), late - HOUR, &[], late),
        ("a permanent failure just before it expires", halted(end - HOUR / 2), end - HOUR / 4, &[tell_late], end),
        ("a permanent failure at the first attempt", Record { current: None, ..halted(quiet) }, quiet + HOUR, &[], quiet + DAY),
    ] {
        assert_plan(what, (&record, &facts()), now, steps, look_at);
    }
}

#[test]
fn a_permanent_failure_stands_for_a_quarter_of_a_short_window_but_never_less_than_a_sweep() {
    for (what, hours, rest) in [
        ("a window of 96 hours", 288, DAY),
        ("one of 48 hours", 144, HOUR * 12),
        ("one of eight hours", 24, HOUR * 2),
        ("one of three hours", 9, HOUR),
    ] {
        let record = living(hours);
        let since = *pair_of(&record).not_after - window(&record, &pair_of(&record));
        let record = Record { halted: Some(halt(since)), ..record };
        let over = since + rest;
        let issues = |now| plan(&record, &facts(), HOUR, now).steps.iter().any(|step| matches!(step, Step::Issue { .. }));
        assert_eq!((issues(over - SECOND), issues(over)), (false, true), "{what}");
    }
}

#[test]
fn a_permanent_failure_stands_for_a_quarter_of_what_is_left_where_that_is_less() {
    let lives_on = issued();
    let end = *pair_of(&lives_on).not_after;
    for (what, left, rest) in [
        ("four days", DAY * 4, DAY),
        ("26 hours, of a pair that somebody moved the label back to", HOUR * 26, HOUR * 26 / 4),
        ("three hours", HOUR * 3, HOUR),
        ("nothing", Duration::ZERO, HOUR),
    ] {
        let failed = end - left;
        let record = Record { halted: Some(halt(failed)), ..lives_on.clone() };
        let over = failed + rest;
        let issues = |now| plan(&record, &facts(), HOUR, now).steps.iter().any(|step| matches!(step, Step::Issue { .. }));
        assert_eq!((issues(over - SECOND), issues(over)), (false, true), "{what}");
    }
}

#[test]
fn a_callers_certificate_is_never_renewed_and_the_caller_is_told_in_time() {
    let due = at(DUE);
    let started = due - HOUR * 30;
    let unfinished = Record { attempt: Some(attempt(started)), ..callers() };
    let new = Record { current: None, ..callers() };
    let tell = "tell a person: callers-key-due: `orders-client` expires 2026-12-01 01:00 UTC and its key is its caller's; send a CSR again";
    let tell_unfinished =
        "tell a person: callers-key-unfinished: attempt 7 at `orders-client` was left unfinished and its key is its caller's";
    for (what, record, now, steps, look_at) in [
        ("long before", callers(), due - DAY * 3, &[][..], due - DAY * 2),
        ("less than a day before", callers(), due - HOUR, &[], due),
        ("when it is due", callers(), due, &[tell], due + DAY),
        ("when it has expired", callers(), due + DAY * 90, &[tell], due + DAY * 91),
        ("never issued, nothing under way", new.clone(), due, &[], due + DAY),
        ("somebody is at it", unfinished.clone(), started + SECOND, &[], started + attempt::LEASE),
        ("left unfinished", unfinished, started + HOUR, &[tell_unfinished], started + HOUR + DAY),
        (
            "the first left unfinished",
            Record { attempt: Some(attempt(started)), ..new },
            started + HOUR,
            &[tell_unfinished],
            started + HOUR + DAY,
        ),
    ] {
        assert_plan(what, (&record, &facts()), now, steps, look_at);
    }
}

#[test]
fn acm_renews_its_own_first_is_asked_from_45_days_and_each_renewal_is_exported() {
    let quiet = at("2026-06-01T00:00:00Z");
    let end = at("2027-01-31T00:00:00Z");
    let window = end - DAY * 45;
    let with_held = |held: Held| Facts { held: Some(held), ..facts() };
    let renewed = with_held(Held { serial: Some(Serial::from_hex("0c03")), not_after: Some(end + DAY * 390), ..held() });
    let ineligible = with_held(Held { eligible: false, ..held() });
    let failing = |reason: Option<&str>, eligible| {
        let renewal = Renewal { status: "FAILED".to_owned(), reason: reason.map(str::to_owned) };
        with_held(Held { renewal: Some(renewal), eligible, ..held() })
    };
    let succeeded = with_held(Held { renewal: Some(Renewal { status: "SUCCESS".to_owned(), reason: None }), ..held() });
    let asked = |at: OffsetDateTime, serial: &str| Record {
        renewal_asked: Some(RenewalAsked { at: at.into(), serial: Serial::from_hex(serial) }),
        ..exported()
    };
    let new = Record { current: None, ..exported() };
    let halted = Record { halted: Some(halt(quiet)), ..exported() };
    let used_up = Record { attempts: Attempts { last: 5, day: Some(quiet.date()), on_day: A_DAY }, ..exported() };
    let unfinished = Record { attempt: Some(attempt(quiet)), ..exported() };
    let pending = with_held(Held { status: "PENDING_VALIDATION".to_owned(), serial: None, not_after: None, ..held() });
    let failed = with_held(Held { status: "FAILED".to_owned(), ..held() });
    let untagged = Facts { untagged: true, ..renewed.clone() };
    let mut paused = exported();
    paused.options.paused = true;
    let late = end - DAY * 30;
    let tell_late = "tell a person: renewal-late: `orders-client` expires 2027-01-31 00:00 UTC and is not renewed yet";
    let told = "tell a person: acm-untagged: arn:aws:acm:";
    let renew = "ask ACM to renew it: expires 2027-01-31 00:00 UTC and ACM has not renewed it";
    let stuck = "tell a person: renewal-stuck: ACM was asked to renew arn:aws:acm:";
    for (what, record, facts, now, steps, look_at) in [
        ("long before", exported(), facts(), quiet, &[][..], quiet + DAY),
        ("hours before 45 days are left", exported(), facts(), window - HOUR, &[], window),
        ("when 45 days are left", exported(), facts(), window, &[renew], window + HOUR),
        (
            "with what ACM tells of its own try",
            exported(),
            failing(Some("PCA_ACCESS_DENIED"), true),
            window,
            &["ask ACM to renew it: expires 2027-01-31 00:00 UTC and ACM has not renewed it (FAILED: PCA_ACCESS_DENIED)"],
            window + HOUR,
        ),
        (
            "with a try of which ACM tells no reason",
            exported(),
            failing(None, true),
            window,
            &["ask ACM to renew it: expires 2027-01-31 00:00 UTC and ACM has not renewed it (FAILED)"],
            window + HOUR,
        ),
        ("with the success of the renewal before", exported(), succeeded.clone(), window, &[renew], window + HOUR),
        ("asked just now", asked(window, "0a01"), facts(), window + HOUR, &[], window + HOUR * 2),
        (
            "asked almost 72 hours ago",
            asked(window, "0a01"),
            facts(),
            window + HOUR * 72 - SECOND,
            &[],
            window + HOUR * 73 - SECOND,
        ),
        (
            "asked 72 hours ago",
            asked(window, "0a01"),
            facts(),
            window + HOUR * 72,
            &[stuck, "ask ACM to renew it: the renewal asked for before came to nothing"],
            window + HOUR * 73,
        ),
        (
            "asked 72 hours ago and ineligible since",
            asked(window, "0a01"),
            ineligible.clone(),
            window + HOUR * 72,
            &[stuck],
            window + HOUR * 72 + DAY,
        ),
        ("asked about the serial before", asked(window, "0909"), facts(), window + HOUR, &[renew], window + HOUR * 2),
        ("ineligible", exported(), ineligible.clone(), window, &["tell a person: renewal-refused: arn:aws:acm:"], window + DAY),
        ("ineligible since it was asked", asked(window, "0a01"), ineligible.clone(), window + HOUR, &[], window + HOUR * 2),
        ("ineligible before that matters", exported(), ineligible, quiet, &[], quiet + DAY),
        ("renewed", exported(), renewed.clone(), quiet, &["export it from ACM: renewed by ACM"], quiet + HOUR),
        (
            "renewed after it was asked",
            asked(window, "0a01"),
            renewed.clone(),
            window + HOUR,
            &["export it from ACM: renewed by ACM"],
            window + HOUR * 2,
        ),
        (
            "renewed after it expired",
            exported(),
            renewed.clone(),
            end + DAY,
            &[
                "export it from ACM: renewed by ACM",
                "tell a person: expired: `orders-client` expired 2027-01-31 00:00 UTC; no renewal has succeeded",
            ],
            end + DAY + HOUR,
        ),
        ("renewed while it is paused", paused.clone(), renewed.clone(), quiet, &[], quiet + HOUR),
        ("renewed while it is paused, soon late", paused.clone(), renewed.clone(), late - HOUR, &[], late),
        ("renewed while it is paused, and late", paused.clone(), renewed.clone(), late, &[tell_late], late + HOUR),
        ("to be renewed while it is paused, and late", paused, facts(), late, &[tell_late], late + HOUR),
        ("asked for anew, and late", asked(late, "0a01"), facts(), late, &[tell_late], late + HOUR),
        ("issued", new.clone(), facts(), quiet, &["export it from ACM: issued by ACM"], quiet + HOUR),
        ("renewed, and somebody exports it", unfinished.clone(), renewed.clone(), quiet + SECOND, &[], quiet + attempt::LEASE),
        (
            "renewed, and an export was left",
            unfinished,
            renewed.clone(),
            quiet + HOUR,
            &["export it from ACM: renewed by ACM"],
            quiet + HOUR * 2,
        ),
        (
            "renewed, and exports failed five times",
            used_up,
            renewed.clone(),
            quiet + HOUR,
            &["tell a person: attempts-exhausted: 5 attempts"],
            quiet + DAY,
        ),
        ("renewed, and the export failed for good", halted.clone(), renewed.clone(), quiet + HOUR, &[], quiet + DAY),
        (
            "renewed, and the export failed for good a day ago",
            halted,
            renewed,
            quiet + DAY,
            &["export it from ACM: renewed by ACM"],
            quiet + DAY + HOUR,
        ),
        ("not issued yet", new.clone(), pending, quiet, &[], quiet + HOUR),
        ("failed", new, failed, quiet, &["tell a person: acm-refused: arn:aws:acm:"], quiet + DAY),
        ("expired in ACM", exported(), facts(), end, &["tell a person: acm-refused: arn:aws:acm:"], end + DAY),
        (
            "gone from ACM",
            exported(),
            Facts { held: None, ..facts() },
            quiet,
            &["tell a person: acm-missing: ACM has no arn:aws:acm:"],
            quiet + DAY,
        ),
        ("renewed, and its tag is gone", exported(), untagged.clone(), quiet, &[told], quiet + DAY),
        (
            "in its last 45 days, and its tag is gone",
            exported(),
            Facts { held: Some(held()), ..untagged },
            window,
            &[told],
            window + DAY,
        ),
    ] {
        assert_plan(what, (&record, &facts), now, steps, look_at);
    }
    // The renewal before this one says nothing of this one.
    assert_eq!(plan(&exported(), &succeeded, HOUR, window).steps.iter().map(ToString::to_string).collect::<Vec<_>>(), [renew]);
}

#[test]
fn a_secret_that_is_not_as_it_should_be_is_a_persons_and_nothing_is_overwritten() {
    let due = at(DUE);
    let unreadable = Secret::Unreadable("it is empty".to_owned());
    let new = |record: Record| Record { current: None, ..record };
    let deleted = "tell a person: secret-deleted: the secret of `orders-client` is scheduled for deletion";
    let missing = "tell a person: secret-missing: the secret of `orders-client` is gone";
    let broken =
        "tell a person: secret-unreadable: the current version of the secret of `orders-client` is not a good pair (it is empty)";
    for (what, record, secret, steps, next) in [
        ("to be deleted", issued(), Secret::PendingDeletion, &[deleted][..], DAY),
        ("to be deleted, ACM's", exported(), Secret::PendingDeletion, &[deleted], DAY),
        ("to be deleted before anything was issued", new(issued()), Secret::PendingDeletion, &[deleted], DAY),
        ("gone", issued(), Secret::Missing, &[missing], DAY),
        ("gone, a caller's", callers(), Secret::Missing, &[missing], DAY),
        ("gone, ACM's", exported(), Secret::Missing, &[missing], DAY),
        ("not there yet", new(issued()), Secret::Missing, &["issue a new pair: not issued yet"], HOUR),
        ("not there yet, ACM's", new(exported()), Secret::Missing, &["export it from ACM: issued by ACM"], HOUR),
        ("unreadable", issued(), unreadable.clone(), &[broken], DAY),
        ("unreadable before anything was issued", new(issued()), unreadable.clone(), &[broken], DAY),
        ("unreadable, with services behind", with_services(issued()), unreadable, &[broken], DAY),
    ] {
        assert_plan(what, (&record, &Facts { secret, ..facts() }), due, steps, due + next);
    }
}

#[test]
fn tags_that_do_not_say_what_the_record_says_are_written_anew() {
    let has = BTreeMap::from([("everleaf:serial".to_owned(), "1".to_owned())]);
    let facts = |secret| Facts { secret, astray: Some(has.clone()), ..facts() };
    let (quiet, day) = (at(QUIET), at(QUIET) + DAY);
    for (what, record, secret, steps) in [
        ("current", issued(), Secret::Good, &["write the tags of its secret anew"][..]),
        ("to be deleted", issued(), Secret::PendingDeletion, &["tell a person: secret-deleted"]),
    ] {
        assert_plan(what, (&record, &facts(secret)), quiet, steps, day);
    }
    let new = plan(&Record { current: None, ..issued() }, &facts(Secret::Good), HOUR, quiet);
    assert!(!new.steps.iter().any(|step| matches!(step, Step::Tag { .. })), "what is not issued is tagged as it is: {new:?}");
}

#[test]
fn a_region_without_a_replica_gets_one_and_a_replica_that_failed_is_told() {
    let (quiet, day) = (at(QUIET), at(QUIET) + DAY);
    let failed = Replica::Failed("a secret of that name exists".to_owned());
    let (replicate, tell) = ("replicate its secret to eu-west-1, eu-west-3", "tell a person: replica-failed");
    for (what, record, replicas, steps) in [
        ("missing", issued(), [("eu-west-1", Replica::Missing), ("eu-west-3", Replica::Missing)], &[replicate][..]),
        ("failed", issued(), [("eu-west-1", failed.clone()), ("eu-west-3", failed.clone())], &[tell, tell]),
        (
            "both",
            issued(),
            [("eu-west-1", failed), ("eu-west-3", Replica::Missing)],
            &["replicate its secret to eu-west-3", tell],
        ),
    ] {
        let replicas = replicas.map(|(region, replica)| (region.to_owned(), replica)).into();
        assert_plan(what, (&record, &Facts { replicas, ..facts() }), quiet, steps, day);
    }
}

#[test]
fn a_person_is_told_of_deployments_that_run_for_six_hours() {
    let since = *pair().since;
    let began = since + SECOND;
    let record = with_services(issued());
    let running = || followed(began, Progress::Running);
    let orders = format!("payments/orders (since {})", date(began));
    for (what, orders_is, refunds_is, now, slow) in [
        ("both for six hours", running(), running(), began + HOUR * 6, Some(format!("{orders}, payments/refunds (since "))),
        ("one for six hours", running(), followed(began, Progress::Completed), began + HOUR * 6, Some(format!("{orders}; "))),
        ("not for so long", running(), running(), began + HOUR * 6 - SECOND, None),
        ("they failed", followed(began, Progress::Failed), followed(began, Progress::Failed), began + HOUR * 6, None),
        ("for an older pair", followed(since, Progress::Running), followed(since, Progress::Running), began + HOUR * 6, None),
    ] {
        let [orders, refunds] = ["payments/orders", "payments/refunds"].map(|name| name.parse().unwrap());
        let services = [(orders, orders_is), (refunds, refunds_is)].into();
        let plan = plan(&record, &Facts { services, ..facts() }, HOUR, now);
        let told: Vec<_> = plan.steps.iter().map(ToString::to_string).filter(|step| step.contains("rollout-slow")).collect();
        assert_eq!(told.len(), usize::from(slow.is_some()), "{what}: {told:?}");
        assert!(slow.is_none_or(|slow| told[0].contains(&slow)), "{what}: {told:?}");
    }
}

#[test]
fn services_older_than_the_pair_are_asked_for_again() {
    let since = *pair().since;
    let quiet = at(QUIET);
    let record = with_services(issued());
    let faulty = |at: OffsetDateTime| BindingState {
        fault: Some(Fault { at: at.into(), reason: "it is DRAINING".to_owned() }),
        ..BindingState::default()
    };
    let good = || followed(since + SECOND, Progress::Completed);
    let failed = |at| BindingState { fault: faulty(at).fault, ..followed(since + SECOND, Progress::Failed) };
    let both = "redeploy payments/orders, payments/refunds";
    for (what, orders, refunds, now, steps, look_at) in [
        ("both deployed since", Some(good()), Some(good()), quiet, &[][..], quiet + DAY),
        ("nothing known of either", None, None, quiet, &[both], quiet + HOUR),
        ("one deployed since", Some(good()), None, quiet, &["redeploy payments/refunds"], quiet + HOUR),
        (
            "deployed before",
            Some(followed(since - SECOND, Progress::Completed)),
            Some(good()),
            quiet,
            &["redeploy payments/orders"],
            quiet + HOUR,
        ),
        (
            "deployed at the same moment",
            Some(followed(since, Progress::Completed)),
            Some(good()),
            quiet,
            &["redeploy payments/orders"],
            quiet + HOUR,
        ),
        (
            "still deploying",
            Some(followed(since + SECOND, Progress::Running)),
            Some(good()),
            quiet,
            &["tell a person: rollout-slow", "redeploy payments/orders"],
            quiet + HOUR,
        ),
        ("failed since", Some(followed(since + SECOND, Progress::Failed)), Some(good()), quiet, &[], quiet + DAY),
        ("failed since, and told", Some(failed(quiet)), Some(good()), quiet + HOUR, &[], quiet + DAY),
        (
            "failed since, and told a day ago",
            Some(failed(quiet)),
            Some(good()),
            quiet + DAY,
            &["redeploy payments/orders"],
            quiet + DAY + HOUR,
        ),
        (
            "deployed since, and refused",
            Some(BindingState { fault: faulty(quiet).fault, ..good() }),
            Some(good()),
            quiet + DAY,
            &[],
            quiet + DAY * 2,
        ),
        ("right after the promotion", None, None, since + SECOND, &[], since + ROLLOUT_GRACE),
        ("ten minutes after the promotion", None, None, since + ROLLOUT_GRACE, &[both], since + ROLLOUT_GRACE + HOUR),
        (
            "one that cannot be deployed",
            Some(faulty(quiet)),
            None,
            quiet + HOUR,
            &["redeploy payments/refunds"],
            quiet + HOUR * 2,
        ),
        ("only one that cannot be deployed", Some(faulty(quiet)), Some(good()), quiet + HOUR, &[], quiet + DAY),
        (
            "one that could not be deployed a day ago",
            Some(faulty(quiet)),
            Some(good()),
            quiet + DAY,
            &["redeploy payments/orders"],
            quiet + DAY + HOUR,
        ),
    ] {
        let states = [("payments/orders", orders), ("payments/refunds", refunds)];
        let services = states.into_iter().filter_map(|(name, state)| Some((name.parse().unwrap(), state?))).collect();
        assert_plan(what, (&record, &Facts { services, ..facts() }), now, steps, look_at);
    }
    let new = Record { current: None, ..record.clone() };
    assert_plan("nothing issued", (&new, &facts()), quiet, &["issue a new pair: not issued yet"], quiet + HOUR);
    for record in [callers(), exported()] {
        let record = with_services(record);
        assert_plan("of another origin", (&record, &facts()), quiet, &[both], quiet + HOUR);
    }
    assert_plan("due as well", (&record, &facts()), at(DUE), &["issue a new pair: expires", both], at(DUE) + HOUR);
}

#[test]
fn a_certificate_of_a_retired_ca_is_replaced_once_every_store_holds_the_successor() {
    let (quiet, due) = (at(QUIET), at(DUE));
    let late = at("2026-11-26T01:00:00Z");
    let retired = format!("{} is retired; {} issues in its place", rollover([]).retired, rollover([]).successor);
    let waits =
        |reason: &str| format!("refresh trust stores: clients, partners does not hold {} yet; {reason}", rollover([]).successor);
    let (issue, trust) = (format!("issue a new pair: {retired}"), waits(&retired));
    let tell_callers = format!("tell a person: callers-key-retired: `orders-client` is issued by {}", rollover([]).retired);
    let tell_acms = format!("tell a person: acm-ca-retired: {} is issued by {}", samples::IN_ACM, rollover([]).retired);
    let expires = "expires 2026-12-01 01:00 UTC";
    let unfinished = |attempt| Record { attempt: Some(attempt), ..issued() };
    let halted = Record { halted: Some(halt(quiet)), ..issued() };
    let used_up = Record { attempts: Attempts { last: 5, day: Some(quiet.date()), on_day: A_DAY }, ..issued() };
    let revoked = Record { revocations: vec![revocation(Reason::KeyCompromise)], ..issued() };
    let tell_late = "tell a person: renewal-late: `orders-client` expires 2026-12-01 01:00 UTC and is not renewed yet";
    let tell_used_up = "tell a person: attempts-exhausted: 5 attempts at `orders-client` began today, which is all for a day; the next is made 2026-11-11 00:00 UTC";
    let (all, none) = (["clients", "partners"], []);
    let missing = || rollover(all);
    for (what, record, rollover, now, steps, look_at) in [
        ("every store holds it", issued(), rollover(none), quiet, &[&*issue][..], quiet + HOUR),
        ("stores do not hold it", issued(), missing(), quiet, &[&trust], quiet + HOUR),
        ("due", issued(), rollover(none), due, &[&format!("issue a new pair: {expires}")], due + HOUR),
        ("due, and stores do not hold it", issued(), missing(), due, &[&waits(expires)], due + HOUR),
        ("late, and stores do not hold it", issued(), missing(), late, &[&waits(expires), tell_late], late + HOUR),
        (
            "revoked, and stores do not hold it",
            revoked,
            missing(),
            quiet,
            &[&waits("serial a01 is to be revoked (KEY_COMPROMISE)"), "revoke: serial a01 is to be revoked (KEY_COMPROMISE)"],
            quiet + HOUR,
        ),
        (
            "never issued, and stores do not hold it",
            Record { current: None, ..issued() },
            missing(),
            quiet,
            &[&waits("not issued yet")],
            quiet + HOUR,
        ),
        ("somebody is at it", unfinished(attempt(quiet)), missing(), quiet + SECOND, &[], quiet + attempt::LEASE),
        (
            "left unfinished at the retired one",
            unfinished(attempt(quiet)),
            missing(),
            quiet + HOUR,
            &["issue a new pair: attempt 7 was left unfinished"],
            quiet + HOUR * 2,
        ),
        (
            "staged, and stores do not hold it",
            unfinished(staged(quiet)),
            missing(),
            quiet + HOUR,
            &["issue a new pair: attempt 7 waits for trust stores to hold its CA"],
            quiet + HOUR * 2,
        ),
        (
            "staged, every store holds it",
            unfinished(staged(quiet)),
            rollover(none),
            quiet + HOUR,
            &["issue a new pair: attempt 7 waits for trust stores to hold its CA"],
            quiet + HOUR * 2,
        ),
        ("a permanent failure stands against it", halted, rollover(none), quiet + HOUR, &[], quiet + DAY),
        ("today's attempts used up", used_up, rollover(none), quiet, &[tell_used_up], at("2026-11-11T00:00:00Z")),
        ("a caller's", callers(), rollover(none), quiet, &[&tell_callers], quiet + DAY),
        ("a caller's, and stores do not hold it", callers(), missing(), quiet, &[&tell_callers], quiet + DAY),
        (
            "a caller's, staged",
            Record { attempt: Some(staged(quiet)), ..callers() },
            missing(),
            quiet,
            &["issue a new pair: attempt 7 waits for trust stores to hold its CA", &tell_callers],
            quiet + HOUR,
        ),
        ("ACM's", exported(), rollover(none), quiet, &[&tell_acms], quiet + DAY),
        ("ACM's, and stores do not hold it", exported(), missing(), quiet, &[&tell_acms], quiet + DAY),
    ] {
        assert_plan(what, (&record, &Facts { rollover: Some(rollover), ..facts() }), now, steps, look_at);
    }
    let renewed = Held { serial: Some(Serial::from_hex("0c03")), not_after: Some(at("2027-12-31T00:00:00Z")), ..held() };
    let moved = Held { certificate_authority_arn: Some(rollover(none).successor), ..renewed.clone() };
    let moved = Facts { held: Some(moved), rollover: Some(missing()), ..facts() };
    assert_plan(
        "ACM's, another of the successor",
        (&exported(), &moved),
        quiet,
        &["export it from ACM: renewed by ACM"],
        quiet + HOUR,
    );
    let facts = Facts { held: Some(renewed), rollover: Some(missing()), ..facts() };
    assert_plan(
        "ACM's, renewed",
        (&exported(), &facts),
        quiet,
        &[&tell_acms, "export it from ACM: renewed by ACM"],
        quiet + HOUR,
    );
}

#[test]
fn a_pair_that_waits_for_trust_is_asked_for_again_whatever_its_origin() {
    let quiet = at(QUIET);
    let reason = "issue a new pair: attempt 7 waits for trust stores to hold its CA";
    for (what, record) in [("issued", issued()), ("a caller's", callers())] {
        let record = Record { attempt: Some(staged(quiet)), ..record };
        assert_plan(what, (&record, &facts()), quiet, &[reason], quiet + HOUR);
        // Waiting uses no attempts up, however long it lasts.
        let used_up = Record { attempts: Attempts { last: 7, day: Some(quiet.date()), on_day: A_DAY }, ..record.clone() };
        assert_plan(what, (&used_up, &facts()), quiet, &[reason], quiet + HOUR);
        let first = Record { current: None, attempt: Some(attempt::Attempt { replaces: None, ..staged(quiet) }), ..record };
        assert_plan(what, (&first, &facts()), quiet + DAY * 9, &[reason], quiet + DAY * 9 + HOUR);
    }
    let acms = Record { current: None, attempt: Some(attempt::Attempt { replaces: None, ..staged(quiet) }), ..exported() };
    assert_plan("ACM's", (&acms, &facts()), quiet, &["export it from ACM: issued by ACM"], quiet + HOUR);
}

#[test]
fn what_is_to_be_revoked_is_asked_for_once_it_is_ready_and_a_current_pair_is_replaced() {
    let quiet = at(QUIET);
    let (compromised, superseded) = (revocation(Reason::KeyCompromise), revocation(Reason::Superseded));
    let of = |record: Record, revocation: &Revocation| Record { revocations: vec![revocation.clone()], ..record };
    let replaced = |record: Record| {
        let current = record.current.clone().map(|pair| Pair { serial: Serial::from_hex("0c03"), ..pair });
        Record { current, ..record }
    };
    let (to_be, was) = ("serial a01 is to be revoked", "serial a01 was revoked");
    let issue = |words: &str| format!("issue a new pair: {words}");
    let revoke = "revoke: serial a01 is to be revoked";
    let tell_callers = "tell a person: callers-key-revoked: the certificate of `orders-client` is revoked, or is to be";
    let renew = |words: &str| format!("ask ACM to renew it: {words}");
    let asked = RenewalAsked { at: quiet.into(), serial: pair().serial };
    let shown_revoked = Facts { held: Some(Held { status: "REVOKED".to_owned(), ..held() }), ..facts() };
    let ineligible = Facts { held: Some(Held { eligible: false, ..held() }), ..facts() };
    let (soon, later) = (quiet + HOUR, quiet + DAY);
    for (what, record, facts, steps, look_at) in [
        ("compromised", of(issued(), &compromised), facts(), &[&*issue(to_be), revoke][..], soon),
        ("compromised and revoked", of(issued(), &done(compromised.clone())), facts(), &[&issue(was)], soon),
        ("superseded", of(issued(), &superseded), facts(), &[&issue(to_be)], soon),
        (
            "superseded and replaced, its services being redeployed",
            of(with_services(replaced(issued())), &superseded),
            facts(),
            &["redeploy payments/orders, payments/refunds"],
            soon,
        ),
        ("superseded, replaced and rolled out", of(replaced(issued()), &superseded), facts(), &[revoke], soon),
        ("done after its replacement", of(replaced(issued()), &done(superseded.clone())), facts(), &[], later),
        (
            "compromised before anything was issued",
            of(Record { current: None, ..issued() }, &compromised),
            facts(),
            &[&issue("not issued yet"), revoke],
            soon,
        ),
        ("a caller's, compromised", of(callers(), &compromised), facts(), &[tell_callers, revoke], soon),
        ("a caller's, superseded", of(callers(), &superseded), facts(), &[tell_callers], soon),
        ("a caller's, revoked", of(callers(), &done(compromised.clone())), facts(), &[tell_callers], later),
        ("a caller's, replaced", of(replaced(callers()), &superseded), facts(), &[revoke], soon),
        ("ACM's, compromised", of(exported(), &compromised), facts(), &[&renew(to_be), revoke], soon),
        (
            "ACM's, revoked",
            of(exported(), &done(compromised.clone())),
            shown_revoked,
            &["tell a person: acm-refused: arn:aws:acm:"],
            later,
        ),
        (
            "ACM's, revoked, and ACM does not show it yet",
            of(exported(), &done(compromised.clone())),
            facts(),
            &[&renew(was)],
            soon,
        ),
        ("ACM's, superseded", of(exported(), &superseded), facts(), &[&renew(to_be)], soon),
        (
            "ACM's, superseded, and ACM was asked",
            of(Record { renewal_asked: Some(asked), ..exported() }, &superseded),
            facts(),
            &[],
            soon,
        ),
        (
            "ACM's, superseded, and ACM cannot",
            of(exported(), &superseded),
            ineligible,
            &["tell a person: renewal-refused: arn:aws:acm:"],
            soon,
        ),
    ] {
        assert_plan(what, (&record, &facts), quiet, steps, look_at);
    }
    // The sweep asks once for all that are ready, by the first.
    let older = |serial: &str| Revocation { serial: Serial::from_hex(serial), after_rollout: false, ..superseded.clone() };
    let several = Record { revocations: vec![superseded.clone(), older("0d04"), older("0e05")], ..issued() };
    let steps = [&*issue(to_be), "revoke: serial d04 is to be revoked (SUPERSEDED)"];
    assert_plan("several", (&several, &facts()), quiet, &steps, soon);
}

#[test]
fn acm_is_brought_to_hold_what_is_current() {
    let quiet = at(QUIET);
    let facts = |held| Facts { held, ..facts() };
    let (soon, tomorrow) = (quiet + HOUR, quiet + DAY);
    let with = |change: fn(&mut Imported, OffsetDateTime)| {
        let mut record = imported();
        record.imported.iter_mut().for_each(|imported| change(imported, quiet));
        record
    };
    let first = Record { imported: None, ..imported() };
    let same = with(|imported, _| imported.serial = Some(pair().serial));
    let leased = |imported: &mut Imported, now: OffsetDateTime| {
        imported.lease = Some(import::Lease { holder: "somebody".to_owned(), until: (now + MINUTE).into() });
    };
    let refused = |imported: &mut Imported, now: OffsetDateTime| imported.refused = Some((now - HOUR * 2).into());
    let long_refused = |imported: &mut Imported, now: OffsetDateTime| imported.refused = Some((now - DAY).into());
    for (what, record, held, steps, look_at) in [
        ("never yet", first, None, &["import it into ACM: ACM holds nothing of it"][..], soon),
        ("an older pair", imported(), Some(held()), &["import it into ACM: ACM holds serial a01"], soon),
        ("this pair", same, Some(held()), &[], tomorrow),
        (
            "gone",
            imported(),
            None,
            &["tell a person: acm-missing: ACM has no arn", "import it into ACM: ACM holds nothing of it"],
            soon,
        ),
        ("somebody is at it", with(leased), Some(held()), &[], quiet + MINUTE),
        ("refused", with(refused), Some(held()), &[], quiet + HOUR * 22),
        ("refused a day ago", with(long_refused), Some(held()), &["import it into ACM: "], soon),
        ("not to be there", issued(), None, &[], tomorrow),
    ] {
        assert_plan(what, (&record, &facts(held)), quiet, steps, look_at);
    }
    // With a new pair on its way, that one is imported.
    assert_plan("due", (&imported(), &facts(Some(held()))), at(DUE), &["issue a new pair: expires"], at(DUE) + HOUR);
}

#[test]
fn what_was_imported_by_hand_is_replaced_before_it_expires() {
    let living = |days: u32| {
        let not_before = at("2026-01-01T00:00:00Z");
        Held { kind: "IMPORTED".to_owned(), not_before: Some(not_before), not_after: Some(not_before + DAY * days), ..held() }
    };
    let facts = |held| Facts { secret: Secret::Missing, held, ..facts() };
    let begin = at("2026-01-01T00:00:00Z");
    let issue = &["issue a new pair: arn:aws:acm:"][..];
    for (what, held, passed, steps, look_at) in [
        ("a year, with more than 60 days left", living(365), DAY * 304, &[][..], begin + DAY * 305),
        ("a year, with 60 days left", living(365), DAY * 305, issue, begin + DAY * 305 + HOUR),
        (
            "a year, with 30 days left",
            living(365),
            DAY * 335,
            &["issue a new pair: ", "tell a person: renewal-late: "],
            begin + DAY * 335 + HOUR,
        ),
        ("a month, at its last third", living(30), DAY * 20, issue, begin + DAY * 20 + HOUR),
        ("a month, before that", living(30), DAY * 20 - SECOND, &[], begin + DAY * 20),
        ("expired", living(30), DAY * 30, &["issue a new pair: ", "tell a person: expired: "], begin + DAY * 30 + HOUR),
    ] {
        assert_plan(what, (&adopted(), &facts(Some(held))), begin + passed, steps, look_at);
    }
    let with = |change: fn(&mut crate::record::Options)| {
        let mut record = adopted();
        change(&mut record.options);
        record
    };
    // Due on 2 November, a Monday, and late on 2 December.
    let (paused, due) = (with(|options| options.paused = true), begin + DAY * 305);
    let windowed = with(|options| options.maintenance_window = "Mon 12:00-16:00".parse().ok());
    let late = &["tell a person: renewal-late: "][..];
    for (what, record, now, steps, look_at) in [
        ("its window is closed", &windowed, due, &[][..], due + HOUR * 12),
        ("its window is open", &windowed, due + HOUR * 12, issue, due + HOUR * 13),
        ("paused", &paused, due, &[], due + DAY),
        ("paused and late", &paused, due + DAY * 30, late, due + DAY * 31),
    ] {
        assert_plan(what, (record, &facts(Some(living(365)))), now, steps, look_at);
    }
    // It has begun, and nothing has come of it yet.
    let begun = Record { current: None, ..imported() };
    let is_late = "tell a person: renewal-late: `orders-client` expires 2026-01-31 00:00 UTC";
    let (half, soon) = (begin + DAY * 25, begin + DAY * 25 + HOUR);
    assert_plan("begun", (&begun, &facts(Some(living(30)))), half, &["issue a new pair: not issued yet", is_late], soon);
    let waits = Record { attempt: Some(staged(half - HOUR)), ..begun };
    let waiting = Facts { waits_for: ["clients".parse().unwrap()].into(), ..facts(Some(living(30))) };
    assert_plan("it waits for trust", (&waits, &waiting), half, &["refresh trust stores: clients", is_late], soon);
    let first = Record { current: None, attempt: waits.attempt, ..exported() };
    assert_plan("ACM's own waits for trust", (&first, &waiting), half, &["refresh trust stores: clients", is_late], soon);
    let quiet = at(QUIET);
    assert_plan("gone", (&adopted(), &facts(None)), quiet, &[], quiet + DAY);
    let refused = Held { key_usages: BTreeSet::new(), ..living(30) };
    let told = ["tell a person: adoption-refused: `orders-client` cannot be replaced: arn:aws:acm:"];
    let due = begin + DAY * 20;
    assert_plan("its usages do not stay", (&adopted(), &facts(Some(refused.clone()))), due, &told, due + DAY);
    assert_plan("they do not, and it is early", (&adopted(), &facts(Some(refused))), due - SECOND, &[], due);
    let taken = Record { current: issued().current, ..adopted() };
    let of_another = Facts { secret: Secret::Good, ..facts(Some(living(30))) };
    assert_plan("its name is taken", (&taken, &of_another), quiet, &["tell a person: adoption-refused: the tag"], quiet + DAY);
}

/// Every combination of what a record and AWS can show at `now`.
fn everything(now: OffsetDateTime, mut see: impl FnMut(&Record, &Facts)) {
    let ago = |hours: u32| Moment::from(now - HOUR * hours);
    let day = 86_400;
    let left = [-day, 0, 1, 3_600, 4 * day, 9 * day, 30 * day, 45 * day, 46 * day];
    let currents = left.map(|seconds| {
        let not_after = now + time::Duration::seconds(seconds);
        Some(Pair { not_after: not_after.into(), not_before: (not_after - DAY * 30 - HOUR).into(), ..pair() })
    });
    let begun = |seconds| Some(attempt(now - SECOND * seconds));
    let answered = Some(attempt::Attempt { certificate_arn: Some(samples::arn(samples::CA)), ..attempt(now - DAY * 2) });
    let attempts = [None, begun(0), begun(149), begun(150), begun(240), answered, Some(staged(now - HOUR))];
    let older = Revocation { serial: Serial::from_hex("0d04"), after_rollout: false, ..revocation(Reason::Superseded) };
    let trust = [
        (None, vec![]),
        (None, vec![revocation(Reason::KeyCompromise)]),
        (None, vec![done(revocation(Reason::KeyCompromise))]),
        (Some(rollover([])), vec![older]),
        (Some(rollover(["clients"])), vec![revocation(Reason::Superseded)]),
    ];
    let helds = [
        None,
        Some(held()),
        Some(Held { eligible: false, ..held() }),
        Some(Held { serial: Some(Serial::from_hex("0c03")), ..held() }),
        Some(Held { status: "PENDING_VALIDATION".to_owned(), ..held() }),
        Some(Held { status: "EXPIRED".to_owned(), ..held() }),
    ];
    let faulty = BindingState { fault: Some(Fault { at: ago(1), reason: String::new() }), ..BindingState::default() };
    let services = [BTreeMap::new(), [("payments/orders".parse().unwrap(), faulty)].into()];
    for origin in [issued(), callers(), exported(), imported(), adopted()] {
        for current in currents.iter().chain([&None]) {
            for attempt in &attempts {
                for (halted, on_day, asked) in [(0, 0, 0), (1, 0, 1), (25, A_DAY, 73), (0, A_DAY, 1), (25, 0, 0)] {
                    let record = Record {
                        current: current.clone(),
                        attempt: attempt.clone(),
                        attempts: Attempts { last: 7, day: Some(now.date()), on_day },
                        halted: (halted > 0).then(|| halt(*ago(halted))),
                        renewal_asked: (asked > 0).then(|| RenewalAsked { at: ago(asked), serial: pair().serial }),
                        ..with_services(origin.clone())
                    };
                    for held in &helds {
                        let not_after = current.as_ref().map(|pair| *pair.not_after);
                        let held = held.clone().map(|held| Held { not_after, ..held });
                        for (services, (rollover, revocations)) in
                            services.iter().flat_map(|one| trust.iter().map(move |two| (one, two)))
                        {
                            let (services, rollover) = (services.clone(), rollover.clone());
                            let record = Record { revocations: revocations.clone(), ..record.clone() };
                            see(
                                &record,
                                &Facts {
                                    secret: Secret::Good,
                                    astray: None,
                                    replicas: BTreeMap::new(),
                                    held: held.clone(),
                                    untagged: false,
                                    services,
                                    rollover,
                                    waits_for: BTreeSet::new(),
                                },
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_looked_at_again_at_once_or_forgotten_for_more_than_a_day() {
    let now = at("2026-11-26T12:00:00Z");
    let mut seen = 0;
    everything(now, |record, facts| {
        let plan = plan(record, facts, HOUR, now);
        assert!(now < plan.look_at && plan.look_at <= now + DAY, "{plan:?} for {record:?} {facts:?}");
        // What is worked at is looked at soon.
        if plan.steps.iter().any(|step| !matches!(step, Step::Tell { .. })) {
            assert!(plan.look_at <= now + HOUR, "{plan:?} for {record:?} {facts:?}");
        }
        seen += 1;
    });
    assert_eq!(seen, 105_000);
}

#[test]
fn once_a_step_is_under_way_it_is_not_planned_again() {
    let now = at("2026-11-26T12:00:00Z");
    let mut taken = BTreeMap::<&str, u32>::new();
    everything(now, |record, facts| {
        let (mut record, mut facts) = (record.clone(), facts.clone());
        let before = plan(&record, &facts, HOUR, now);
        for step in &before.steps {
            let kind = match step {
                Step::Issue { .. } | Step::Export { .. } => {
                    let replaces = record.current.as_ref().map(|pair| pair.version_id.clone());
                    match attempt::turn(&record, "me", "due", replaces.as_deref(), now) {
                        Turn::Begin(attempt) | Turn::Resume(attempt) => record.take_up(attempt),
                        turn => panic!("{step:?}, but {turn:?}"),
                    }
                    "attempt"
                }
                Step::Renew { .. } => {
                    record.renewal_asked = Some(RenewalAsked { at: now.into(), serial: pair().serial });
                    "renewal"
                }
                Step::Redeploy { services } => {
                    let state = followed(now, Progress::Completed);
                    facts.services.extend(services.iter().map(|service| (service.clone(), state.clone())));
                    "deployment"
                }
                Step::Revoke { .. } => {
                    let pending =
                        record.revocations.iter().filter(|revocation| revocation.is_ready(&record, &facts.services, now));
                    let ready: Vec<Serial> = pending.map(|revocation| revocation.serial.clone()).collect();
                    ready.iter().for_each(|serial| record.revoked(serial, now));
                    "revocation"
                }
                Step::Import { .. } => {
                    record.take_up_import("me", now);
                    "import"
                }
                // Once the stores hold the successor the certificate is asked for by their event.
                Step::Trust { .. } => {
                    facts.rollover.iter_mut().for_each(|rollover| rollover.missing.clear());
                    let replaces = record.current.as_ref().map(|pair| pair.version_id.clone());
                    match attempt::turn(&record, "me", "due", replaces.as_deref(), now) {
                        Turn::Begin(attempt) => record.take_up(attempt),
                        // Noted against it, or nothing is to be done today.
                        turn => assert!(matches!(turn, Turn::Exhausted { .. }), "{turn:?}"),
                    }
                    "trust"
                }
                Step::Tag { .. } => {
                    facts.astray = None;
                    "tags"
                }
                Step::Replicate { .. } => {
                    facts.replicas.clear();
                    "replicas"
                }
                // Whoever tells a person asks the record first.
                Step::Tell { .. } => continue,
            };
            *taken.entry(kind).or_default() += 1;
        }
        let after = plan(&record, &facts, HOUR, now);
        assert!(after.steps.iter().all(|step| matches!(step, Step::Tell { .. })), "{after:?} after {before:?}");
    });
    assert!(
        ["attempt", "renewal", "deployment", "revocation", "import", "trust"].iter().all(|kind| taken[kind] > 50),
        "{taken:?}"
    );
}

#[test]
fn a_record_that_is_looked_at_when_it_wants_to_be_is_renewed_within_a_sweep_of_its_due_time() {
    for (n, hours, sweep) in
        [(0, 720, HOUR), (1, 720, MINUTE * 15), (2, 9, HOUR), (3, 24, HOUR * 2), (4, 8760, HOUR), (5, 9, MINUTE)]
    {
        let record = Record { name: format!("orders-{n}").parse().unwrap(), ..living(hours) };
        let (due, mut now) = (due(&record, sweep).unwrap(), *pair_of(&record).since);
        let (mut looks, mut look_at) = (0, now);
        loop {
            if look_at <= now {
                looks += 1;
                let plan = plan(&record, &facts(), sweep, now);
                if matches!(plan.steps[..], [Step::Issue { .. }]) {
                    break;
                }
                assert_eq!(plan.steps, [], "{n} at {now}");
                look_at = plan.look_at;
            }
            now += sweep;
            assert!(now < due + DAY, "{n} is not renewed");
        }
        assert!(due <= now && now < due + sweep, "{n} at {now}, due {due}");
        // Once a day, and once more for the first and the last.
        assert!(looks <= hours / 24 + 2, "{n} was looked at {looks} times");
    }
}

#[test]
fn five_failing_attempts_a_day_are_made_until_one_succeeds_and_a_person_knows() {
    let mut record = issued();
    let (mut now, end) = (at(DUE), at("2026-12-01T01:00:00Z"));
    let mut told = BTreeMap::<&str, u32>::new();
    let mut on_day = BTreeMap::<time::Date, u32>::new();
    while now < end {
        let plan = plan(&record, &facts(), HOUR, now);
        for step in &plan.steps {
            match step {
                Step::Issue { .. } => {
                    let Turn::Begin(attempt) = attempt::turn(&record, "me", "due", Some("version-1"), now) else {
                        panic!("its turn has not come at {now}")
                    };
                    record.take_up(attempt);
                    *on_day.entry(now.date()).or_default() += 1;
                }
                Step::Tell { code, .. } if record.may_tell(code, now) => {
                    record.told.insert((*code).to_owned(), now.into());
                    *told.entry(code).or_default() += 1;
                }
                Step::Tell { .. } => {}
                step => panic!("{step:?}"),
            }
        }
        assert!(now < plan.look_at, "{plan:?} at {now}");
        now = plan.look_at;
    }
    // The last day is its first hour.
    let days: Vec<u32> = on_day.into_values().collect();
    assert_eq!(days, [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 1]);
    // On the second day they are used up earlier than on the first, when it is not a day since.
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [("attempts-exhausted", 9), ("renewal-late", 5)]);
}

/// Pairs were rejected `in_a_row`, the last of them `at`, and the secret has gone back to the current one.
fn set_back(record: Record, at: OffsetDateTime, in_a_row: u32) -> Record {
    let serial = Serial::from_hex("0c03");
    let setback = Setback { at: at.into(), serial: serial.clone(), in_a_row, ..samples::setback() };
    Record { setback: Some(setback), rejected: [serial].into(), ..record }
}

#[test]
fn a_new_pair_is_wanted_for_each_reason() {
    let (quiet, due) = (at(QUIET), at(DUE));
    let revoked = |reason| Record { revocations: vec![revocation(reason)], ..issued() };
    let of_another_ca = Pair { issuer: Some(rollover([]).successor), ..pair() };
    let unfinished = Record { attempt: Some(attempt(quiet)), ..issued() };
    let twice = |record| set_back(record, quiet, 2);
    for (what, record, now, is_due) in [
        ("nothing", issued(), due - SECOND, false),
        ("it is time", issued(), due, true),
        ("nothing is current", Record { current: None, ..issued() }, quiet, true),
        ("an attempt was left unfinished", unfinished.clone(), quiet, true),
        ("it is of another CA", Record { current: Some(of_another_ca), ..issued() }, quiet, true),
        ("it is to be revoked", revoked(Reason::Superseded), quiet, true),
        ("its key is lost", revoked(Reason::KeyCompromise), quiet, true),
        ("it is time, and the next may be tried", set_back(issued(), quiet, 1), due, true),
        ("it came back, and rests", set_back(issued(), quiet, 1), quiet + DAY - SECOND, false),
        ("it came back, and has rested", set_back(issued(), quiet, 1), quiet + DAY, true),
        ("it came back, and a person has seen to it", set_back(issued(), quiet, 0), quiet, true),
        ("it is time, and a person has to see to it", twice(issued()), due, false),
        ("a person has to see to it, and its key is lost", twice(revoked(Reason::KeyCompromise)), quiet, true),
        ("a person has to see to it, and an attempt was left", twice(unfinished), quiet, true),
    ] {
        assert_eq!(super::is_due(&record, HOUR, now), is_due, "{what}");
    }
}

#[test]
fn a_setback_is_finished_first_and_the_next_pair_waits_for_its_rest() {
    let due = at(DUE);
    let rested = due + DAY;
    let mut unfinished = set_back(with_services(issued()), due, 1);
    unfinished.setback.as_mut().unwrap().done = false;
    let compromised = Record { revocations: vec![revocation(Reason::KeyCompromise)], ..issued() };
    let left = Record { attempt: Some(attempt(due - HOUR)), ..issued() };
    let issue = "issue a new pair: ";
    let after = "issue a new pair: a deployment failed on the pair after it";
    let again = "tell a person: rejected-again: deployments failed on 2 new pairs of `orders-client` in a row";
    for (what, record, now, steps, look_at) in [
        ("not finished", unfinished, due, &["redeploy payments/orders, payments/refunds"][..], due + HOUR),
        ("finished", set_back(issued(), due - DAY * 9, 1), due - DAY * 9, &[], due - DAY * 8),
        (
            "its rest is over, and it is not due",
            set_back(issued(), due - DAY * 9, 1),
            due - DAY * 8,
            &[after],
            due - DAY * 8 + HOUR,
        ),
        ("before its rest is over", set_back(issued(), due, 1), rested - SECOND, &[], rested),
        ("its rest is over", set_back(issued(), due, 1), rested, &[issue], rested + HOUR),
        ("a second in a row", set_back(issued(), due, 2), rested, &[again], rested + DAY),
        ("compromised", set_back(compromised, due, 1), due, &[issue, "revoke: "], due + HOUR),
        ("an attempt was left", set_back(left, due, 1), due, &[issue], due + HOUR),
    ] {
        assert_plan(what, (&record, &facts()), now, steps, look_at);
    }
}

#[test]
fn what_acm_has_and_was_rejected_is_renewed_after_its_rest() {
    let quiet = at("2026-06-01T00:00:00Z");
    let (rested, patience) = (quiet + DAY, quiet + HOUR * 72);
    let rejected = Held { serial: Some(Serial::from_hex("0c03")), ..held() };
    let ineligible = Held { eligible: false, ..rejected.clone() };
    let once = |record| set_back(record, quiet, 1);
    let asked = |serial: &str| {
        let asked = RenewalAsked { at: quiet.into(), serial: Serial::from_hex(serial) };
        once(Record { renewal_asked: Some(asked), ..exported() })
    };
    let revoked = Revocation { serial: Serial::from_hex("0c03"), ..done(revocation(Reason::Superseded)) };
    let revoked = Record { revocations: vec![revoked], ..exported() };
    let renew = "ask ACM to renew it: a deployment failed on what ACM holds";
    let again = "tell a person: rejected-again: deployments failed on 2 new pairs";
    let refused = "tell a person: renewal-refused: ";
    for (what, record, held, now, steps, look_at) in [
        ("before its rest is over", once(exported()), &rejected, rested - SECOND, &[][..], rested),
        ("its rest is over", once(exported()), &rejected, rested, &[renew], rested + HOUR),
        ("a second in a row", set_back(exported(), quiet, 2), &rejected, rested, &[again], rested + DAY),
        ("a second in a row, exported anew each time", set_back(exported(), quiet, 2), &held(), rested, &[again], rested + DAY),
        ("one of those", once(exported()), &held(), rested, &[], rested + DAY),
        ("ACM was asked", asked("0a01"), &rejected, patience - SECOND, &[], patience - SECOND + HOUR),
        ("ACM was asked 72 hours ago", asked("0a01"), &rejected, patience, &[renew], patience + HOUR),
        ("ACM was asked about another", asked("0909"), &rejected, rested, &[renew], rested + HOUR),
        ("ACM cannot", once(exported()), &ineligible, rested, &[refused], rested + DAY),
        ("it was revoked", once(revoked), &rejected, rested, &["tell a person: acm-refused: "], rested + DAY),
    ] {
        assert_plan(what, (&record, &Facts { held: Some(held.clone()), ..facts() }), now, steps, look_at);
    }
}

#[test]
fn a_staged_pair_waits_for_the_stores_and_for_nothing_else() {
    let (quiet, late) = (at(QUIET), at("2026-11-26T01:00:00Z"));
    let new = rollover([]).successor;
    let waits = &*format!("refresh trust stores: clients, partners does not hold {new} yet; a new pair waits");
    let tell_late = "tell a person: renewal-late: ";
    let tell_acms = "tell a person: acm-ca-retired: ";
    let waiting = |record: Record| Record { attempt: Some(staged(quiet)), ..record };
    for (what, record, now, steps, look_at) in [
        ("issued", waiting(issued()), quiet, &[waits][..], quiet + HOUR),
        ("issued, and late", waiting(issued()), late, &[waits, tell_late], late + HOUR),
        ("a caller's", waiting(callers()), quiet, &[waits], quiet + HOUR),
        ("ACM's", waiting(exported()), quiet, &[waits, tell_acms], quiet + HOUR),
        ("not staged yet", Record { attempt: Some(attempt(quiet)), ..issued() }, quiet, &[], quiet + attempt::LEASE),
    ] {
        let waits_for = ["clients", "partners"].map(|name| name.parse().unwrap()).into();
        assert_plan(what, (&record, &Facts { waits_for, rollover: Some(rollover([])), ..facts() }), now, steps, look_at);
    }
}

#[test]
fn nothing_is_begun_while_it_is_held_back() {
    let due = at(DUE);
    let late = at("2026-11-26T01:00:00Z");
    let mut paused = issued();
    paused.options.paused = true;
    let during = |window: &str| {
        let mut record = issued();
        record.options.maintenance_window = window.parse().ok();
        record
    };
    // 2026-11-21 is a Saturday.
    let (open, closed) = (during("Sat 01:00-05:00"), during("Sat 02:45-06:00"));
    for (what, record, now, steps, look_at) in [
        ("paused", &paused, due, &[][..], due + HOUR),
        ("paused, and late", &paused, late, &["tell a person: renewal-late: "], late + HOUR),
        ("open", &open, due, &["issue a new pair: "], due + HOUR),
        ("closed", &closed, due, &[], at("2026-11-21T02:45:00Z")),
    ] {
        assert_plan(what, (record, &facts()), now, steps, look_at);
    }
}

#[test]
fn what_was_imported_by_hand_and_is_not_described_yet_is_looked_at_again_soon() {
    let facts = Facts { secret: Secret::Missing, held: Some(Held { not_after: None, ..held() }), ..facts() };
    assert_plan("no dates", (&adopted(), &facts), at(QUIET), &[], at(QUIET) + HOUR);
}

#[test]
fn a_pair_is_not_imported_while_the_next_one_is_made() {
    let quiet = at(QUIET);
    let halted = halt(quiet);
    let record = Record { attempt: Some(attempt(quiet)), halted: Some(halted), ..imported() };
    let over = quiet + attempt::LEASE;
    for (what, now, steps, look_at) in [
        ("it is being made", over - SECOND, &[][..], quiet + DAY),
        ("it was left, and may not be made now", over, &["import it into ACM: "], over + HOUR),
    ] {
        assert_plan(what, (&record, &facts()), now, steps, look_at);
    }
}

#[test]
fn who_waits_for_the_canary_is_looked_at_again_soon() {
    let quiet = at(QUIET);
    let mut record = with_services(issued());
    let canary = record.options.services.first().cloned().unwrap();
    record.options.canary = Some(canary.clone());
    let fault = Some(Fault { at: quiet.into(), reason: String::new() });
    let services = [(canary, BindingState { fault, ..BindingState::default() })].into();
    assert_plan("its canary failed", (&record, &Facts { services, ..facts() }), quiet, &[], quiet + HOUR);
}
