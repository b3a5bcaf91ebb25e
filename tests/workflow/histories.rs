//! Random histories of CAs, trust stores and certificates, and what clients see of them at every change and every hour.
//!
//! In all of them:
//! 1. No client with a good certificate, current or previous, is refused by a store that declared its CA or held it when the pair
//!    became current, nor by one that declares it and has let the client in once.
//! 2. No revoked one is let in by any of those, or by one that declares its CA now, a day after the CRL that names it. Who was shut
//!    out with a CA that left, and comes in again by a root that is declared later, is the business of whoever declares the root.
//! 3. A store is never empty, and ALB is never given what it refuses.
//! 4. After two quiet days a store holds what is declared with the chains, the good extra objects and the CAs that pairs need;
//!    nothing is under way, everything issued here is good, and a further refresh writes nothing.
//!
//! What a person does stands against (1) and (2) only so long: a store that was changed by hand, until a refresh that works; a
//! declaration, until the invocations that began before it are over, and until it was accepted. Undeclaring a CA or retiring it
//! takes nothing back, and neither does the loss of the table. A renewal from the same CA waits for nobody, so it is let in where the
//! pair before it was.
//!
//! Who runs more seeds says which: `HISTORIES=1000..2000 cargo test -p workflow histories`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::authority::certificates;
use lifecycle::leaf::{Leaf, Serial};
use lifecycle::revocation::Reason;
use local_aws::{AwsError, Call, Fault, World, elbv2, pca, s3};
use serde_json::{Value, json};
use time::OffsetDateTime;
use workflow::Stack;
use workflow::dice::Dice;

use crate::account::staged;
use crate::scenario::{lose_deliveries, minutes, run, user};

/// About forty seconds of one core.
const SEEDS: Range<u64> = 0..16;

const CRLS: &str = "crls";

#[test]
fn whatever_happens_good_clients_get_in_and_revoked_ones_do_not() {
    let mut steps = BTreeMap::<&str, usize>::new();
    for seed in seeds() {
        for (step, count) in run(history(seed)) {
            *steps.entry(step).or_default() += count;
        }
    }
    eprintln!("{steps:#?}");
}

fn seeds() -> Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "for whoever has time for more seeds")]
    let asked = std::env::var("HISTORIES").ok();
    let range = asked.map(|asked| {
        let (from, to) = asked.split_once("..").unwrap();
        from.parse().unwrap()..to.parse().unwrap()
    });
    range.unwrap_or(SEEDS)
}

async fn history(seed: u64) -> BTreeMap<&'static str, usize> {
    let mut history = History::begin(seed).await;
    let mut steps = BTreeMap::new();
    for _ in 0..40 + history.dice.below(41) {
        let step = history.step().await;
        *steps.entry(step).or_default() += 1;
        history.look();
    }
    history.end().await;
    steps
}

struct History {
    seed: u64,
    dice: Dice,
    stack: Stack,
    seen: Arc<Mutex<Seen>>,
    /// When what goes wrong now ends.
    trouble_until: Option<OffsetDateTime>,
    /// Declarations that failed: a person sends them again.
    unanswered: BTreeMap<String, Value>,
    /// The CA that issues where an order names none.
    issuing: String,
    log: String,
}

/// What is known of the account from the outside, and what was wrong with it.
#[derive(Default)]
struct Seen {
    authorities: BTreeMap<String, Authority>,
    /// By their names.
    stores: BTreeMap<String, Store>,
    /// By their versions of secrets.
    pairs: BTreeMap<String, Pair>,
    revoked: BTreeMap<Serial, OffsetDateTime>,
    /// What spoils calls: how, and one in how many.
    fault: Option<(Spoils, usize)>,
    dice: Option<Dice>,
    calm_since: Option<OffsetDateTime>,
    /// Each since when.
    wrong: BTreeMap<String, OffsetDateTime>,
}

struct Authority {
    /// `CA 3`, the third that was made.
    name: String,
    /// All that it has had, the newest last, and that of the CA above when the newest was issued.
    certificates: Vec<String>,
    above: Option<String>,
    parent: Option<String>,
    retired: Option<(String, OffsetDateTime)>,
    crls: Vec<OffsetDateTime>,
}

struct Store {
    listener: String,
    by_hand: bool,
    declares: BTreeMap<String, OffsetDateTime>,
    extras: BTreeMap<String, String>,
    /// What was in objects: where one holds garbage now, the store may keep any of it.
    before: BTreeMap<String, Vec<String>>,
    changed_by_hand: Option<OffsetDateTime>,
    crls_removed_by_hand: Option<OffsetDateTime>,
}

struct Pair {
    certificate: String,
    serial: Serial,
    issuer: String,
    not_after: OffsetDateTime,
    /// As a client sends it.
    chain: String,
    /// The stores that must let it in.
    let_in: BTreeSet<String>,
    verdicts: BTreeMap<String, String>,
    /// When it was last seen as current or previous.
    lived: OffsetDateTime,
}

#[derive(Clone, Copy, Debug)]
enum Spoils {
    Throttle,
    ServerError,
    Reset,
    LoseAnswer,
    Crash,
}

const HOUR: time::Duration = time::Duration::HOUR;

/// A refresh comes once a day, and may take some time.
const A_DAY: time::Duration = time::Duration::hours(25);

/// How the codes begin by which Elastic Load Balancing says that it does not take what it was given.
const REFUSED: [&str; 4] = ["CaCertificates", "Invalid", "RevocationContent", "TooMany"];

/// An invocation that began before something was declared is over by then.
const INVOCATION: time::Duration = time::Duration::minutes(6);

impl Seen {
    /// The CAs that a store is to hold by its declaration: those and the ones that came after them; since when.
    fn declares(&self, store: &Store) -> BTreeMap<String, OffsetDateTime> {
        let mut all = store.declares.clone();
        let mut line: Vec<_> = all.clone().into_iter().collect();
        while let Some((authority, since)) = line.pop() {
            if let Some((successor, retired)) = &self.authorities[&authority].retired
                && !all.contains_key(successor)
            {
                all.insert(successor.clone(), since.max(*retired));
                line.push((successor.clone(), since.max(*retired)));
            }
        }
        all
    }

    /// With the names of CAs in the place of their ARNs.
    fn named(&self, text: String) -> String {
        self.authorities.iter().fold(text, |text, (arn, authority)| text.replace(arn, &authority.name))
    }

    /// In the order in which they were made, so that it does not hang on identifiers.
    fn in_order(&self, mut arns: Vec<String>) -> Vec<String> {
        arns.sort_by_key(|arn| self.authorities[arn].name[3..].parse::<usize>().unwrap());
        arns
    }

    /// Whether the last pair of a certificate is revoked.
    fn revoked_of(&self, certificate: &str) -> bool {
        let pairs = self.pairs.values().filter(|pair| pair.certificate == certificate);
        pairs.max_by_key(|pair| pair.not_after).is_some_and(|last| self.revoked.contains_key(&last.serial))
    }

    fn holds(&self, world: &World, store: &str, authority: &str) -> bool {
        let held = elbv2::trusted(world, store);
        self.authorities[authority].certificates.iter().any(|pem| held.contains(&der(pem)))
    }

    fn issuer(&self, certificate: &str) -> Option<&String> {
        let own = |authority: &Authority| authority.certificates.iter().any(|known| known.trim() == certificate.trim());
        self.authorities.iter().find(|(_, authority)| own(authority)).map(|(arn, _)| arn)
    }

    /// Takes in what was called and what was told; whether clients may see something else now.
    fn hear(&mut self, calls: &[Call], events: Vec<local_aws::events::BusEvent>) -> bool {
        for event in events {
            let (at, event) = (event.at, event.event);
            if event["source"] != "aws.acm-pca" || event["detail"]["result"] != "success" {
                continue;
            }
            let resource = |index: usize| event["resources"][index].as_str().unwrap_or_default();
            match event["detail-type"].as_str() {
                Some("ACM Private CA CRL Generation") => {
                    self.authorities.entry(resource(0).to_owned()).and_modify(|found| found.crls.push(at));
                }
                Some("ACM Private CA Certificate Revocation") => {
                    let serial = resource(1).rsplit('/').next().unwrap_or_default();
                    self.revoked.insert(Serial::from_hex(serial), at);
                }
                _ => {}
            }
        }
        let mut news = false;
        for call in calls.iter().filter(|call| call.writes()) {
            news |= ["elasticloadbalancing", "secretsmanager"].contains(&call.service);
            if call.caller != "refresh-truststore" || call.service != "elasticloadbalancing" {
                continue;
            }
            let store = call.input["TrustStoreArn"].as_str().and_then(|arn| arn.split('/').nth(1));
            let store = store.and_then(|name| self.stores.get_mut(name));
            match (&call.error, store) {
                // It was good when it was looked at.
                (Some(_), Some(store)) if store.changed_by_hand.is_some() && call.operation == "AddTrustStoreRevocations" => {}
                (Some(code), _) if REFUSED.iter().any(|part| code.starts_with(part)) => {
                    let refused = format!("{} was refused: {code}: {}", call.operation, call.input);
                    self.wrong.entry(refused).or_insert(call.at);
                }
                (None, Some(store)) if call.operation == "ModifyTrustStore" => store.changed_by_hand = None,
                _ => {}
            }
        }
        news
    }

    /// Asks every listener what it makes of every client, where that may have changed.
    fn look(&mut self, world: &mut World, now: OffsetDateTime, news: bool) {
        if news {
            self.pairs.values_mut().for_each(|pair| pair.verdicts.clear());
        }
        let live = self.live(world, now);
        let (mut pairs, mut wrong) = (std::mem::take(&mut self.pairs), Vec::new());
        for (version, pair) in &mut pairs {
            let (lives, revoked) = (live.contains(version), self.revoked.contains_key(&pair.serial));
            if pair.not_after <= now || !lives && !revoked {
                continue;
            }
            if !revoked {
                pair.lived = now;
            }
            for (name, store) in &self.stores {
                let ask = || elbv2::tls_verify_status(world, now, &store.listener, &pair.chain).unwrap();
                let verdict = pair.verdicts.entry(name.clone()).or_insert_with(ask).clone();
                let declared = self.declares(store).contains_key(&pair.issuer);
                if verdict == "Success" && declared && self.holds(world, name, &pair.issuer) {
                    pair.let_in.insert(name.clone());
                }
                if revoked && verdict == "Failed:ClientCertUntrusted" && store.changed_by_hand.is_none() {
                    pair.let_in.remove(name);
                }
                wrong.extend(self.wrong_verdict(name, pair, &verdict, now));
            }
        }
        self.pairs = pairs;
        for (name, store) in &self.stores {
            let late = |at: OffsetDateTime| self.calm_since.is_some_and(|calm| now > at.max(calm) + A_DAY);
            if store.changed_by_hand.is_some_and(late) {
                wrong.push(format!("`{name}` was changed by hand and nobody has put it right"));
            }
        }
        for what in wrong {
            self.wrong.entry(what).or_insert(now);
        }
    }

    fn wrong_verdict(&self, name: &str, pair: &Pair, verdict: &str, now: OffsetDateTime) -> Option<String> {
        let (store, Pair { certificate, serial, issuer, let_in, .. }) = (&self.stores[name], pair);
        let Some(revoked) = self.revoked.get(serial) else {
            let refused = let_in.contains(name) && !["Success", "-"].contains(&verdict) && store.changed_by_hand.is_none();
            return refused.then(|| format!("`{name}` refuses {serial} of `{certificate}`, issued by {issuer}: {verdict}"));
        };
        let declared = self.declares(store).get(issuer).filter(|_| self.authorities[issuer].retired.is_none()).copied();
        if verdict != "Success" || !let_in.contains(name) && declared.is_none() {
            return None;
        }
        let published = *self.authorities[issuer].crls.iter().find(|at| *at >= revoked)?;
        let by_hand = [declared, store.changed_by_hand, store.crls_removed_by_hand];
        let since = by_hand.into_iter().flatten().fold(published.max(self.calm_since?), OffsetDateTime::max);
        let lets_in = || {
            format!("`{name}` lets in {serial} of `{certificate}`, issued by {issuer}, revoked {revoked}, its CRL {published}")
        };
        (now > since + A_DAY).then(lets_in)
    }

    /// The versions that are current and previous. Those that were not seen before are noted.
    fn live(&mut self, world: &World, now: OffsetDateTime) -> BTreeSet<String> {
        let mut live = BTreeSet::new();
        for secret in world.secrets.secrets() {
            let stages = ["AWSPREVIOUS", "AWSCURRENT"].map(|stage| staged(secret, stage));
            let mut before: Option<String> = None;
            for version in stages.into_iter().flatten() {
                let text = version.secret_string.as_deref().unwrap_or_default();
                if text == "{}" {
                    continue;
                }
                live.insert(version.id.clone());
                if !self.pairs.contains_key(&version.id) {
                    let mut pair = self.pair(&secret.name, text, now);
                    let predecessor = before.as_ref().map(|id| &self.pairs[id]);
                    let from_the_same = predecessor.filter(|before| before.issuer == pair.issuer);
                    let must = |(name, store): (&String, &Store)| {
                        let declared = self.declares(store).get(&pair.issuer).is_some_and(|since| *since + INVOCATION <= now);
                        let promised = self.holds(world, name, &pair.issuer) && store.changed_by_hand.is_none() || declared;
                        let let_in = promised && from_the_same.is_none_or(|before| before.let_in.contains(name));
                        let_in.then(|| name.clone())
                    };
                    pair.let_in = self.stores.iter().filter_map(must).collect();
                    self.pairs.insert(version.id.clone(), pair);
                }
                before = Some(version.id.clone());
            }
        }
        live
    }

    fn pair(&self, secret: &str, text: &str, now: OffsetDateTime) -> Pair {
        let value: Value = serde_json::from_str(text).unwrap();
        let [leaf, above] = ["certificate", "certificate_chain"].map(|key| value[key].as_str().unwrap());
        let Leaf { serial, not_after, .. } = Leaf::from_pem(leaf).unwrap();
        const END: &str = "-----END CERTIFICATE-----";
        let issuer = &above[..above.find(END).unwrap() + END.len()];
        Pair {
            certificate: secret.trim_start_matches("everleaf/").to_owned(),
            serial,
            issuer: self.issuer(issuer).unwrap().clone(),
            not_after,
            chain: format!("{}\n{above}", leaf.trim_end()),
            let_in: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            lived: now,
        }
    }

    /// What becomes of a function's call.
    fn spoil(&mut self, call: &Call) -> Option<Fault> {
        let (spoils, one_in) = self.fault.filter(|_| call.caller != "user")?;
        self.dice.as_mut()?.one_in(one_in).then(|| match spoils {
            Spoils::Throttle => Fault::Refuse(AwsError::throttled()),
            Spoils::ServerError => Fault::Refuse(AwsError::internal()),
            Spoils::Reset => Fault::Reset,
            Spoils::LoseAnswer => Fault::LoseAnswer,
            Spoils::Crash => Fault::Crash,
        })
    }
}

fn der(pem: &str) -> Vec<u8> {
    certificates(pem).unwrap().remove(0)
}

impl History {
    async fn begin(seed: u64) -> Self {
        let mut dice = Dice::of(seed, 0);
        let parameters = [("SweepMinutes", "240"), ("CrlBucketArns", "arn:aws:s3:::crls")];
        let stack = Stack::deploy_on("EC_prime256v1", &parameters).await;
        let seen: Arc<Mutex<Seen>> = Arc::new(Mutex::new(Seen { dice: Some(Dice::of(seed, 1)), ..Seen::default() }));
        let issuing = stack.issuing_ca.clone();
        let mut history = Self {
            seed,
            dice: dice.clone(),
            stack,
            seen,
            trouble_until: None,
            unanswered: BTreeMap::new(),
            issuing,
            log: String::new(),
        };
        let (root, issuing) = (history.stack.root_ca.clone(), history.issuing.clone());
        history.stack.aws.world(|world, _| s3::create_bucket(world, CRLS));
        history.note_authority(&root, None);
        history.note_authority(&issuing, Some(&root));
        history.new_authority(true);
        history.watch();
        for name in ["clients", "partners"].into_iter().take(1 + dice.below(2)) {
            let listener = history.stack.aws.world(|world, now| elbv2::create_listener(world, now, name, 8443));
            let by_hand = dice.one_in(2);
            let first = dice.any_of(history.active()).unwrap();
            let since = history.stack.aws.now();
            let store = Store {
                listener,
                by_hand,
                declares: [(first, since)].into(),
                extras: BTreeMap::new(),
                before: BTreeMap::new(),
                changed_by_hand: None,
                crls_removed_by_hand: None,
            };
            history.seen().stores.insert(name.to_owned(), store);
        }
        history.calm();
        history.update().await;
        minutes(1).await;
        let names: Vec<String> = history.seen().stores.keys().cloned().collect();
        for name in names {
            history.declare(&name).await;
        }
        history.ask("refresh-truststore", json!({"refresh": true})).await.unwrap();
        let gateway = json!({
            "DomainName": "gateway.example.com", "KeyAlgorithm": "EC_prime256v1", "CertificateAuthorityArn": issuing,
            "Tags": [{"Key": "everleaf:certificate", "Value": "everleaf/gateway"}],
        });
        user(&history.stack, "acm:RequestCertificate", gateway).await;
        minutes(5).await;
        for _ in 0..2 + dice.below(2) {
            history.issue().await;
        }
        history.dice = dice;
        history.look();
        history
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let what = self.seen().named(what.to_string());
        writeln!(self.log, "{} {what}", lifecycle::date(self.stack.aws.now())).unwrap();
    }

    /// Looks at everything before each call that arrives, so that nothing stays unseen between two of them.
    fn watch(&self) {
        let (seen, aws) = (self.seen.clone(), self.stack.aws.clone());
        self.stack.aws.set_faults(Some(Box::new(move |call| {
            let mut seen = seen.lock().unwrap();
            let (calls, events) = (aws.take_calls(), aws.take_events());
            if seen.hear(&calls, events) {
                aws.world(|world, now| seen.look(world, now, true));
            }
            seen.spoil(call)
        })));
    }

    fn look(&self) {
        let (calls, events) = (self.stack.aws.take_calls(), self.stack.aws.take_events());
        self.stack.aws.take_invocations();
        let mut seen = self.seen();
        let news = seen.hear(&calls, events);
        self.stack.aws.world(|world, now| seen.look(world, now, news));
        let wrong = seen.named(format!("{:#?}", seen.wrong));
        let right = seen.wrong.is_empty();
        drop(seen);
        assert!(right, "{wrong}");
    }

    async fn pass(&mut self, hours: usize) {
        for _ in 0..hours {
            minutes(60).await;
            if self.trouble_until.is_some_and(|until| until <= self.stack.aws.now()) {
                self.note("all is well again");
                self.calm();
            }
            self.look();
        }
    }

    fn calm(&mut self) {
        self.trouble_until = None;
        self.stack.aws.set_deliveries(None);
        let now = self.stack.aws.now();
        let mut seen = self.seen();
        (seen.fault, seen.calm_since) = (None, Some(now));
    }

    fn trouble(&mut self, fault: Option<(Spoils, usize)>) {
        let hours = 1 + self.dice.below(36);
        self.trouble_until = Some(self.stack.aws.now() + HOUR * i32::try_from(hours).unwrap());
        let mut seen = self.seen();
        (seen.fault, seen.calm_since) = (fault, None);
    }

    /// What a person asks of a function. One that crashed never answers.
    async fn ask(&mut self, function: &str, event: Value) -> Option<Value> {
        let asked = tokio::time::timeout(Duration::from_secs(300), self.stack.handle(function, event.clone(), "by hand")).await;
        match asked {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.note(format!("  {}: {}", error.error_type, error.error_message));
                None
            }
            Err(_) => {
                self.note("  no answer");
                None
            }
        }
    }

    /// The CAs that may issue.
    fn active(&self) -> Vec<String> {
        let seen = self.seen();
        let active = seen.authorities.iter().filter(|(_, authority)| authority.parent.is_some() && authority.retired.is_none());
        seen.in_order(active.map(|(arn, _)| arn.clone()).collect())
    }

    fn note_authority(&self, arn: &str, parent: Option<&str>) {
        let certificate = self.stack.aws.world(|world, now| {
            pca::enable_crl(world, now, arn, CRLS, 7).unwrap();
            world.pca.certificate(arn).unwrap()
        });
        let mut seen = self.seen();
        let above = parent.and_then(|parent| seen.authorities[parent].certificates.last().cloned());
        let parent = parent.map(str::to_owned);
        let name = format!("CA {}", seen.authorities.len() + 1);
        let authority = Authority { name, certificates: vec![certificate], above, parent, retired: None, crls: Vec::new() };
        seen.authorities.insert(arn.to_owned(), authority);
    }

    /// A CA below the first root, or below one of its own.
    fn new_authority(&mut self, below_first: bool) -> String {
        let number = self.seen().authorities.len() + 1;
        let (root, arn) = self.stack.aws.world(|world, now| {
            let root = match below_first {
                true => self.stack.root_ca.clone(),
                false => pca::create_active_root(world, now, &format!("Root {number}"), "EC_prime256v1").unwrap(),
            };
            let arn = pca::create_active_subordinate(
                world,
                now,
                &root,
                &format!("CA {}", if below_first { number } else { number + 1 }),
                "EC_prime256v1",
            )
            .unwrap();
            (root, arn)
        });
        if !below_first {
            self.note_authority(&root, None);
        }
        self.note_authority(&arn, Some(&root));
        arn
    }

    /// Brings the stack's parameters in.
    async fn update(&mut self) {
        let active = self.active();
        let others = active.into_iter().filter(|arn| *arn != self.issuing).collect::<Vec<_>>().join(",");
        let (retired, stores) = {
            let seen = self.seen();
            let retired =
                seen.authorities.iter().filter_map(|(arn, authority)| Some(format!("{arn}={}", authority.retired.as_ref()?.0)));
            let stores = seen.stores.iter().filter(|(_, store)| !store.by_hand).map(|(name, store)| declaration(name, store));
            (retired.collect::<Vec<_>>().join(","), json!(stores.collect::<Vec<_>>()).to_string())
        };
        let issuing = self.issuing.clone();
        self.stack
            .update(&[("IssuingCaArn", &issuing), ("AllowedCaArns", &others), ("RetiredCas", &retired), ("TrustStores", &stores)])
            .await;
    }

    /// A store is declared as it stands in what was seen, by a request or by the parameter.
    async fn declare(&mut self, name: &str) {
        let (by_hand, declaration) = {
            let seen = self.seen();
            (seen.stores[name].by_hand, declaration(name, &seen.stores[name]))
        };
        if by_hand {
            self.unanswered.insert(name.to_owned(), json!({"declare": declaration}));
            self.ask_again().await;
        } else {
            self.update().await;
        }
    }

    async fn ask_again(&mut self) {
        for (name, request) in std::mem::take(&mut self.unanswered) {
            if self.ask("refresh-truststore", request.clone()).await.is_none() {
                self.unanswered.insert(name, request);
                continue;
            }
            // It counts from now on.
            let now = self.stack.aws.now();
            let mut seen = self.seen();
            let store = seen.stores.get_mut(&name).unwrap();
            store.declares.values_mut().filter(|since| **since > now).for_each(|since| *since = now);
        }
    }

    async fn step(&mut self) -> &'static str {
        self.ask_again().await;
        let choice = self.dice.below(100);
        let done = match choice {
            0..38 => None,
            38..44 => Some(self.issue().await),
            44..54 => self.replace().await,
            54..62 => self.revoke().await,
            62..67 => self.add_authority().await,
            67..71 => self.undeclare_authority().await,
            71..76 => Some(self.retire().await),
            76..80 => Some(self.renew_authority()),
            80..86 => self.change_extras(),
            86..90 => self.change_by_hand().await,
            90..93 => self.spoil_deliveries(),
            93..97 => self.spoil_calls(),
            97..98 => Some(self.empty_the_table().await),
            _ => Some(self.refresh().await),
        };
        match done {
            Some(step) => step,
            None => {
                let hours = 1 + self.dice.below(72);
                self.note(format!("{hours} hours pass"));
                self.pass(hours).await;
                "time passes"
            }
        }
    }

    fn certificates(&self) -> Vec<String> {
        let issued: BTreeSet<String> = self.seen().pairs.values().map(|pair| pair.certificate.clone()).collect();
        issued.into_iter().collect()
    }

    async fn issue(&mut self) -> &'static str {
        let name = format!("client-{}", 1 + self.dice.below(4));
        let authority = self.dice.any_of(self.active()).unwrap();
        self.order(&name, &authority).await;
        "a certificate is issued"
    }

    async fn order(&mut self, name: &str, authority: &str) {
        let days = 2 + self.dice.below(14);
        self.note(format!("`{name}` of {authority} is asked for, {days} days"));
        let order = json!({
            "name": name, "subject": {"common_name": name}, "validity": {"days": days}, "replace": true,
            "certificate_authority_arn": authority, "key_format": "plain",
        });
        if let Some(answer) = self.ask("issue-client-cert", order).await {
            self.note(format!("  {}", answer["outcome"]));
        }
    }

    async fn replace(&mut self) -> Option<&'static str> {
        let issued = self.certificates().into_iter().filter(|name| name != "gateway");
        let name = self.dice.any_of(issued)?;
        let authority = self.dice.any_of(self.active())?;
        self.order(&name, &authority).await;
        Some("a certificate is replaced")
    }

    async fn revoke(&mut self) -> Option<&'static str> {
        let now = self.stack.aws.now();
        let live = |pair: &&Pair| pair.lived > now - HOUR * 2 && pair.not_after > now;
        let of = |pair: &Pair| (pair.certificate.clone(), pair.not_after, pair.serial.clone(), pair.issuer.clone());
        let mut live: Vec<_> = self.seen().pairs.values().filter(live).map(of).collect();
        live.sort_by_key(|(certificate, not_after, ..)| (certificate.clone(), *not_after));
        let (certificate, _, serial, issuer) = self.dice.any_of(live)?;
        let reason = self.dice.any_of(Reason::ALL)?.as_str();
        self.note(format!("serial {serial} of `{certificate}` is to be revoked, {reason}"));
        let request = json!({
            "revoke": certificate, "serial_number": serial, "reason": reason, "certificate_authority_arn": issuer,
        });
        if let Some(answer) = self.ask("issue-client-cert", request).await {
            self.note(format!("  {}", answer["outcome"]));
        }
        Some("a certificate is revoked")
    }

    async fn add_authority(&mut self) -> Option<&'static str> {
        let room = self.seen().authorities.len() < 8;
        let authority = match room {
            true => {
                let below_first = self.dice.one_in(2);
                self.new_authority(below_first)
            }
            false => self.dice.any_of(self.active())?,
        };
        let names: Vec<String> = self.seen().stores.keys().cloned().collect();
        let name = self.dice.any_of(names)?;
        self.note(format!("`{name}` declares {authority}"));
        let now = self.stack.aws.now();
        {
            let mut seen = self.seen();
            let store = seen.stores.get_mut(&name).unwrap();
            // By hand it counts once it is accepted.
            let since = if store.by_hand { now + HOUR * 24 * 365 } else { now };
            store.declares.entry(authority.clone()).or_insert(since);
        }
        // The parameter says which CAs issue.
        self.update().await;
        self.declare(&name).await;
        self.order_soon(&authority).await;
        Some("a CA is declared")
    }

    /// Often somebody orders of a new CA before the stores have it.
    async fn order_soon(&mut self, authority: &str) {
        if self.dice.one_in(2) {
            minutes(7).await;
            let name = format!("client-{}", 1 + self.dice.below(4));
            self.order(&name, authority).await;
        }
    }

    async fn undeclare_authority(&mut self) -> Option<&'static str> {
        let several: Vec<_> = {
            let seen = self.seen();
            let several = seen.stores.iter().filter(|(_, store)| store.declares.len() > 1);
            let all = |store: &Store| seen.in_order(store.declares.keys().cloned().collect());
            several.flat_map(|(name, store)| all(store).into_iter().map(|arn| (name.clone(), arn))).collect()
        };
        let (name, authority) = self.dice.any_of(several)?;
        self.note(format!("`{name}` declares {authority} no longer"));
        self.seen().stores.get_mut(&name).unwrap().declares.remove(&authority);
        self.declare(&name).await;
        Some("a CA is undeclared")
    }

    async fn retire(&mut self) -> &'static str {
        let active = self.active();
        let retired = self.dice.any_of(active.clone()).unwrap();
        let others = active.into_iter().filter(|arn| *arn != retired);
        let successor = match self.dice.any_of(others) {
            Some(other) if self.seen().authorities.len() > 8 || self.dice.one_in(3) => other,
            _ => {
                let below_first = self.dice.one_in(2);
                self.new_authority(below_first)
            }
        };
        self.note(format!("{retired} is retired, {successor} issues in its place"));
        let now = self.stack.aws.now();
        self.seen().authorities.get_mut(&retired).unwrap().retired = Some((successor.clone(), now));
        if self.issuing == retired {
            self.issuing.clone_from(&successor);
        }
        self.update().await;
        self.order_soon(&successor).await;
        "a CA is retired"
    }

    fn renew_authority(&mut self) -> &'static str {
        let all = {
            let seen = self.seen();
            seen.in_order(seen.authorities.keys().cloned().collect())
        };
        let authority = self.dice.any_of(all).unwrap();
        self.note(format!("{authority} gets a new certificate"));
        let certificate = self.stack.aws.world(|world, now| {
            pca::renew_authority(world, now, &authority).unwrap();
            world.pca.certificate(&authority).unwrap()
        });
        let mut seen = self.seen();
        let parent = seen.authorities[&authority].parent.clone();
        let above = parent.and_then(|parent| seen.authorities[&parent].certificates.last().cloned());
        let renewed = seen.authorities.get_mut(&authority).unwrap();
        renewed.certificates.push(certificate);
        renewed.above = above;
        "a CA gets a new certificate"
    }

    fn bucket(&self) -> String {
        self.stack.template.function("refresh-truststore").unwrap().environment["EVERLEAF_BUCKET"].clone()
    }

    fn change_extras(&mut self) -> Option<&'static str> {
        let names: Vec<String> = self.seen().stores.keys().cloned().collect();
        let (name, bucket, number) = (self.dice.any_of(names)?, self.bucket(), self.dice.below(3));
        let key = format!("trust/extra/{name}/{number}.pem");
        let kind = self.dice.below(3);
        self.note(format!("{} {key}", ["a partner's CA is", "garbage is", "nothing is any more"][kind]));
        let put = self.stack.aws.world(|world, now| {
            let body = match kind {
                0 => {
                    let root = pca::create_active_root(world, now, &format!("Partner {number}"), "EC_prime256v1").unwrap();
                    world.pca.certificate(&root).unwrap()
                }
                1 => "garbage".to_owned(),
                _ => {
                    s3::delete(world, now, &bucket, &key).unwrap();
                    return None;
                }
            };
            s3::put(world, now, &bucket, &key, body.clone().into_bytes()).unwrap();
            (kind == 0).then_some(body)
        });
        let mut seen = self.seen();
        let store = seen.stores.get_mut(&name).unwrap();
        store.extras.remove(&key);
        match (put, kind) {
            (Some(pem), _) => {
                store.before.entry(key.clone()).or_default().push(pem.clone());
                store.extras.insert(key, pem);
            }
            (None, 1) => {}
            (None, _) => _ = store.before.remove(&key),
        }
        Some("an extra object is changed")
    }

    async fn change_by_hand(&mut self) -> Option<&'static str> {
        let stores = user(&self.stack, "elasticloadbalancing:DescribeTrustStores", json!({})).await;
        let stores: Vec<_> = stores["TrustStores"]
            .as_array()?
            .iter()
            .map(|store| (store["Name"].clone(), store["TrustStoreArn"].clone()))
            .collect();
        let (name, arn) = self.dice.any_of(stores)?;
        let name = name.as_str()?.to_owned();
        let now = self.stack.aws.now();
        match self.dice.below(3) {
            0 => {
                self.note(format!("somebody puts another CA in the place of what `{name}` holds"));
                self.stack.aws.world(|world, now| {
                    let root = pca::create_active_root(world, now, "Somebody's CA", "EC_prime256v1").unwrap();
                    let pem = world.pca.certificate(&root).unwrap();
                    s3::put(world, now, CRLS, "theirs.pem", pem.into_bytes()).unwrap();
                });
                self.seen().stores.get_mut(&name)?.changed_by_hand = Some(now);
                let theirs = json!({"TrustStoreArn": arn, "CaCertificatesBundleS3Bucket": CRLS, "CaCertificatesBundleS3Key": "theirs.pem"});
                user(&self.stack, "elasticloadbalancing:ModifyTrustStore", theirs).await;
            }
            1 => {
                let request = json!({"TrustStoreArn": arn});
                let lists = user(&self.stack, "elasticloadbalancing:DescribeTrustStoreRevocations", request).await;
                let ids: Vec<_> =
                    lists["TrustStoreRevocations"].as_array()?.iter().map(|list| list["RevocationId"].clone()).collect();
                let id = self.dice.any_of(ids)?;
                self.note(format!("somebody removes CRL {id} of `{name}`"));
                self.seen().stores.get_mut(&name)?.crls_removed_by_hand = Some(now);
                let remove = json!({"TrustStoreArn": arn, "RevocationIds": [id]});
                user(&self.stack, "elasticloadbalancing:RemoveTrustStoreRevocations", remove).await;
            }
            _ => {
                self.note(format!("somebody lets the listener of `{name}` verify nobody"));
                let listener = self.seen().stores[&name].listener.clone();
                let off = json!({"ListenerArn": listener, "MutualAuthentication": {"Mode": "off"}});
                user(&self.stack, "elasticloadbalancing:ModifyListener", off).await;
            }
        }
        Some("a store is changed by hand")
    }

    fn spoil_deliveries(&mut self) -> Option<&'static str> {
        if self.trouble_until.is_some() {
            return None;
        }
        self.trouble(None);
        let until = lifecycle::date(self.trouble_until?);
        match self.dice.below(3) {
            0 => {
                self.note(format!("until {until} no event and no schedule arrives"));
                lose_deliveries(&self.stack);
            }
            1 => {
                self.note(format!("until {until} each arrives twice"));
                self.stack.aws.set_deliveries(Some(Box::new(|_, _| vec![Duration::ZERO, Duration::from_millis(700)])));
            }
            _ => {
                self.note(format!("until {until} some arrive late, some never"));
                let mut dice = self.dice.clone();
                self.stack.aws.set_deliveries(Some(Box::new(move |_, _| match dice.below(4) {
                    0 => Vec::new(),
                    _ => vec![Duration::from_secs(dice.throw() % 20_000)],
                })));
            }
        }
        Some("deliveries are spoiled")
    }

    fn spoil_calls(&mut self) -> Option<&'static str> {
        if self.trouble_until.is_some() {
            return None;
        }
        let all =
            [(Spoils::Throttle, 2), (Spoils::ServerError, 3), (Spoils::Reset, 4), (Spoils::LoseAnswer, 5), (Spoils::Crash, 15)];
        let (spoils, one_in) = self.dice.any_of(all)?;
        self.trouble(Some((spoils, one_in)));
        self.note(format!("until {} one call in {one_in} goes wrong: {spoils:?}", lifecycle::date(self.trouble_until?)));
        Some("calls are spoiled")
    }

    async fn empty_the_table(&mut self) -> &'static str {
        self.note("the table is lost");
        crate::recovery::empty_the_table(&self.stack).await;
        "the table is emptied"
    }

    async fn refresh(&mut self) -> &'static str {
        self.note("a refresh is asked for");
        self.ask("refresh-truststore", json!({"refresh": true})).await;
        "a refresh by hand"
    }

    async fn end(mut self) {
        self.note("from now on all is quiet");
        self.calm();
        self.ask_again().await;
        assert!(self.unanswered.is_empty(), "{:?}", self.unanswered);
        self.pass(48).await;
        self.settled().await;
        self.ask("refresh-truststore", json!({"refresh": true})).await.unwrap();
        self.look();
        // What is seen of calls is taken by the watch.
        self.stack.aws.set_faults(None);
        self.stack.aws.take_calls();
        self.ask("refresh-truststore", json!({"refresh": true})).await.unwrap();
        let calls = self.stack.aws.take_calls();
        let writes: Vec<_> = calls.iter().filter(|call| call.writes()).map(Call::action).collect();
        assert!(writes.is_empty(), "a further refresh writes: {writes:?}");
    }

    /// Panics unless everything is as it is to be at rest.
    async fn settled(&self) {
        let now = self.stack.aws.now();
        let mut wrong = Vec::new();
        {
            let seen = self.seen();
            let chain = |arn: &String| {
                let Authority { certificates, above, .. } = &seen.authorities[arn];
                certificates.last().into_iter().chain(above).cloned().collect::<Vec<_>>()
            };
            let expand = |authorities: &BTreeSet<String>| authorities.iter().flat_map(chain).collect::<BTreeSet<String>>();
            for (name, store) in &seen.stores {
                let declares: BTreeSet<String> = seen.declares(store).into_keys().collect();
                let mut least: BTreeSet<String> =
                    declares.iter().filter(|arn| seen.authorities[*arn].retired.is_none()).cloned().collect();
                let mut most = least.clone();
                for pair in seen.pairs.values() {
                    let good = pair.not_after > now && !seen.revoked.contains_key(&pair.serial);
                    let needs = pair.let_in.contains(name) || declares.contains(&pair.issuer);
                    if good && pair.lived == now && needs {
                        least.insert(pair.issuer.clone());
                    }
                    // In three days two daily refreshes have come.
                    // A CRL goes on naming what has expired for some days.
                    let named = seen.revoked.contains_key(&pair.serial) && pair.not_after > now - HOUR * 240;
                    if pair.lived > now - HOUR * 72 || named {
                        most.insert(pair.issuer.clone());
                    }
                }
                let (least, most) = (expand(&least), expand(&most));
                let extras: BTreeSet<String> = store.extras.values().cloned().collect();
                let pem = |all: &BTreeSet<String>| all.union(&extras).map(|pem| der(pem)).collect::<BTreeSet<_>>();
                let spoiled = store.before.iter().filter(|(key, _)| !store.extras.contains_key(*key));
                let most = most.into_iter().chain(spoiled.flat_map(|(_, all)| all.clone())).collect();
                let held = self.stack.aws.world(|world, _| elbv2::trusted(world, name).iter().cloned().collect::<BTreeSet<_>>());
                let subjects = |all: Vec<&Vec<u8>>| -> Vec<String> {
                    all.into_iter().map(|der| lifecycle::authority::Authority::judge(der, now).unwrap().to_string()).collect()
                };
                for (what, some) in [
                    ("lacks", subjects(pem(&least).difference(&held).collect())),
                    ("has no reason to hold", subjects(held.difference(&pem(&most)).collect())),
                ] {
                    if !some.is_empty() {
                        wrong.push(format!("`{name}` {what} {some:?}"));
                    }
                }
            }
        }
        for name in self.certificates() {
            let Some(record) = self.stack.record(&name).await else {
                if name == "gateway" && self.seen().revoked_of("gateway") {
                    // ACM lists it no longer, and only a new one takes its place.
                    continue;
                }
                wrong.push(format!("there is no record of `{name}`"));
                continue;
            };
            if let Some(attempt) = &record.attempt {
                wrong.push(format!("an attempt at `{name}` is under way: {attempt:?}"));
            }
            let text = format!("{record:?}");
            let current = record.current.unwrap();
            let seen = self.seen();
            let retired = current.issuer.as_ref().is_none_or(|issuer| seen.authorities[issuer.as_str()].retired.is_some());
            if name != "gateway" && (!current.is_valid_at(now) || seen.revoked.contains_key(&current.serial) || retired) {
                wrong.push(format!("`{name}` is expired, revoked, or of a retired CA: {text}"));
            }
        }
        assert!(wrong.is_empty(), "{}", self.seen().named(format!("{wrong:#?}")));
    }
}

fn declaration(name: &str, store: &Store) -> Value {
    let authorities: Vec<_> = store.declares.keys().collect();
    json!({"name": name, "certificate_authority_arns": authorities, "listeners": [{"listener_arn": store.listener}]})
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HISTORIES={}..{}\n{}", self.seed, self.seed + 1, self.log);
        }
    }
}
