//! What a seed makes of a simulation: the fleet, and everything that goes wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use time::Duration;
use workflow::dice::Dice;

/// What is asked for on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// Three to six, by the seed, unless it says.
    pub(crate) certificates: Option<usize>,
    pub(crate) years: f64,
    pub(crate) faults: Faults,
    /// Whether AWS's own events arrive at all.
    pub(crate) aws_events: bool,
    /// Of all that goes wrong only these.
    pub(crate) only: Option<BTreeSet<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    Light,
    Heavy,
}

pub(crate) struct Plan {
    pub(crate) sweep_minutes: i64,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) services: Vec<Service>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) lasts: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) lifetime: Duration,
    pub(crate) usage: &'static str,
    pub(crate) encrypted: bool,
    /// Its services, the canary first where it has one.
    pub(crate) services: Vec<String>,
    pub(crate) canary: bool,
    pub(crate) maintenance_window: Option<&'static str>,
    /// When it is asked for, after the beginning.
    pub(crate) ordered: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Issued,
    /// Issued, and imported into ACM.
    Imported,
    /// ACM's own.
    Exported,
}

pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) tasks: u32,
    pub(crate) breaker: bool,
    pub(crate) rollback: bool,
}

/// Something that goes wrong, between two moments after the beginning, or at the first of them.
#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) number: usize,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One call in so many, of one service of AWS or of all.
    Calls {
        spoilt: Spoilt,
        service: Option<&'static str>,
        one_in: usize,
    },
    /// Events of AWS, or Everleaf's own, and the schedules with them.
    Events {
        own: bool,
        delivered: Delivered,
    },
    AuthorityDisabled,
    AuthorityReplaced,
    /// The next deployments of a service fail, whoever begins them.
    DeploymentFails {
        service: String,
        count: u32,
    },
    /// Somebody deploys a service, perhaps in another version.
    SomebodyDeploys {
        service: String,
        version: bool,
    },
    /// Somebody deploys a service of this certificate between its next version and the promotion of that.
    SomebodyDeploysMeanwhile {
        certificate: String,
    },
    /// By hand, `AWSCURRENT` goes back to the pair before.
    LabelMoved {
        certificate: String,
    },
    /// The same between its next version and the promotion of that.
    LabelMovedMeanwhile {
        certificate: String,
    },
    /// Somebody has Secrets Manager rotate the secret.
    Rotated {
        certificate: String,
    },
    TagsRemoved {
        certificate: String,
    },
    ItemDeleted {
        certificate: String,
    },
    /// The record forgets its pairs, and is not due for a year.
    ItemAltered {
        certificate: String,
    },
    TableEmptied,
    SweptTwice,
    /// How many seconds the clocks of ECS, Secrets Manager and Lambda go before the account's.
    Clocks {
        ecs: i64,
        secretsmanager: i64,
        lambda: i64,
    },
    IndexesLate {
        seconds: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Spoilt {
    Throttled,
    Failed,
    Reset,
    AnswerLost,
    /// No answer, and nothing done.
    TimedOut,
    /// Done, and the answer comes after so many seconds; the SDK waits for eight.
    Slow(u64),
    Crashed,
    Stale,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Delivered {
    Never,
    Twice,
    /// Late by up to so many minutes, and so in another order.
    Late(u64),
    /// All of that, and some as they should be.
    Anyhow,
}

/// To the minute.
fn between(dice: &mut Dice, least: Duration, most: Duration) -> Duration {
    let minutes = (most - least).whole_minutes().max(0) as usize;
    least + Duration::minutes(dice.below(minutes + 1) as i64)
}

/// What comes before all incidents, so that the first of them meet something.
const FIRST_DAY: Duration = Duration::hours(6);

/// The time to renew of a certificate that lives so long leaves a day for a lost record to come back.
const LONG_ENOUGH: Duration = Duration::days(5);

impl Plan {
    pub(crate) fn of(settings: &Settings) -> Self {
        let dice = &mut Dice::of(settings.seed, 0);
        let lasts = Duration::minutes((settings.years * 365.0 * 24.0 * 60.0) as i64);
        let sweep_minutes = dice.one_of(&[60, 120, 240, 240, 240]);
        let count = settings.certificates.unwrap_or_else(|| 3 + dice.below(4));
        let services: Vec<_> = (1..=count).map(|number| Service::of(dice, number)).collect();
        let certificates: Vec<_> =
            (1..=count).map(|number| Certificate::of(dice, number, &services, lasts, sweep_minutes)).collect();
        let mut plan = Self { sweep_minutes, certificates, services, incidents: Vec::new(), lasts };
        match settings.faults {
            Faults::None => {}
            Faults::Light => plan.light(&mut Dice::of(settings.seed, 1)),
            Faults::Heavy => plan.heavy(&mut Dice::of(settings.seed, 2)),
        }
        plan.incidents.sort_by_key(|incident| incident.from);
        for (number, incident) in plan.incidents.iter_mut().enumerate() {
            incident.number = number;
        }
        if let Some(only) = &settings.only {
            plan.incidents.retain(|incident| only.contains(&incident.number));
        }
        plan
    }

    /// How long before its expiry the shortest-lived certificate is renewed.
    fn shortest_window(&self) -> Duration {
        self.certificates.iter().map(|certificate| certificate.lifetime / 3).min().unwrap_or(Duration::DAY)
    }

    fn add(&mut self, from: Duration, lasts: Duration, what: What) {
        if from < self.lasts {
            self.incidents.push(Incident { number: 0, from, to: (from + lasts).min(self.lasts), what });
        }
    }

    fn light(&mut self, dice: &mut Dice) {
        self.add(Duration::ZERO, self.lasts, What::Events { own: false, delivered: Delivered::Late(90) });
        let window = self.shortest_window();
        let mut at = FIRST_DAY;
        while at < self.lasts {
            let service = dice.one_of(&AWS);
            let spoilt = dice.one_of(&[Spoilt::Throttled, Spoilt::Failed, Spoilt::Reset, Spoilt::Stale]);
            let lasts = between(dice, Duration::HOUR, window / 6);
            let what = match dice.below(4) {
                0 => What::Events { own: true, delivered: dice.one_of(&[Delivered::Twice, Delivered::Late(30)]) },
                1 => What::SomebodyDeploys { service: self.service(dice), version: dice.one_in(2) },
                _ => What::Calls { spoilt, service, one_in: 10 + dice.below(20) },
            };
            self.add(at, lasts, what);
            at += between(dice, window / 2, window * 2);
        }
    }

    fn heavy(&mut self, dice: &mut Dice) {
        let seconds = |dice: &mut Dice| dice.below(360) as i64 - 180;
        let clocks = What::Clocks { ecs: seconds(dice), secretsmanager: seconds(dice), lambda: seconds(dice) };
        self.add(Duration::ZERO, self.lasts, clocks);
        self.add(Duration::ZERO, self.lasts, What::IndexesLate { seconds: dice.below(120) as u64 });
        self.add(Duration::ZERO, self.lasts, What::Events { own: false, delivered: Delivered::Anyhow });
        let window = self.shortest_window();
        let mut at = FIRST_DAY;
        while at < self.lasts {
            let lasts = between(dice, Duration::HOUR / 2, window / 6);
            let what = self.trouble(dice);
            self.add(at, lasts, what);
            at += between(dice, window / 4, window);
        }
        let (mut at, mut lost) = (FIRST_DAY, Duration::DAY * -2);
        while at < self.lasts {
            let what = self.somebody(dice);
            // What is lost or moved is put right within a day. Who takes away the tags and the record as well within that time has
            // taken away all that could be put right.
            let loses = match &what {
                What::TagsRemoved { certificate } | What::ItemDeleted { certificate } | What::ItemAltered { certificate } => {
                    self.certificate(certificate).map(|certificate| certificate.lifetime)
                }
                What::TableEmptied => Some(self.shortest_window() * 3),
                _ => None,
            };
            if let Some(lifetime) = loses {
                if at < lost + Duration::DAY * 2 || lifetime < LONG_ENOUGH {
                    at += Duration::HOUR;
                    continue;
                }
                lost = at;
            }
            self.add(at, Duration::ZERO, what);
            at += between(dice, Duration::HOUR * 3, window * 2);
        }
        // A pair that is rejected is followed by the next after a day: that has to fit into its window.
        let mut at = FIRST_DAY;
        while at < self.lasts && window >= Duration::DAY * 3 {
            let what = What::DeploymentFails { service: self.service(dice), count: 1 + dice.below(2) as u32 };
            self.add(at, Duration::ZERO, what);
            at += between(dice, window * 2, window * 6);
        }
        if dice.one_in(3) {
            let at = between(dice, self.lasts / 4, self.lasts * 3 / 4);
            self.add(at, Duration::ZERO, What::AuthorityReplaced);
        }
    }

    /// Something of AWS that works badly for a time.
    fn trouble(&mut self, dice: &mut Dice) -> What {
        let service = dice.one_of(&AWS);
        let one_in: usize = dice.one_of(&[2, 3, 5, 8, 13, 20]);
        let some = one_in + 4;
        let (spoilt, one_in) = match dice.below(11) {
            0 => return What::AuthorityDisabled,
            1 => {
                let delivered = dice.one_of(&[Delivered::Never, Delivered::Twice, Delivered::Late(60), Delivered::Anyhow]);
                return What::Events { own: true, delivered };
            }
            2 => return What::Events { own: false, delivered: dice.one_of(&[Delivered::Never, Delivered::Twice]) },
            3 => (Spoilt::Throttled, one_in),
            4 => (Spoilt::Failed, one_in),
            5 => (Spoilt::Reset, one_in),
            6 => (Spoilt::AnswerLost, some),
            7 => (Spoilt::TimedOut, some),
            8 => (Spoilt::Slow(dice.one_of(&[4, 9, 60])), some),
            9 => (Spoilt::Stale, 1),
            _ => (Spoilt::Crashed, some * 2),
        };
        // Few calls go to these, and each of them matters.
        let rare = matches!(service, Some("acm-pca" | "acm" | "ecs" | "events" | "elasticloadbalancing"));
        What::Calls { spoilt, service, one_in: if rare { one_in.div_ceil(4) } else { one_in } }
    }

    /// Something that somebody does.
    fn somebody(&mut self, dice: &mut Dice) -> What {
        let certificate = dice.one_of(&self.certificates).name;
        match dice.below(13) {
            10 => What::LabelMovedMeanwhile { certificate },
            11 | 12 => What::Rotated { certificate },
            0 | 1 => What::SomebodyDeploys { service: self.service(dice), version: dice.one_in(2) },
            2 | 3 => What::SomebodyDeploysMeanwhile { certificate },
            4 => What::LabelMoved { certificate },
            5 => What::TagsRemoved { certificate },
            6 => What::ItemDeleted { certificate },
            7 => What::ItemAltered { certificate },
            8 => What::SweptTwice,
            _ if dice.one_in(4) => What::TableEmptied,
            _ => What::SweptTwice,
        }
    }

    fn service(&self, dice: &mut Dice) -> String {
        self.services[dice.below(self.services.len())].name.clone()
    }

    pub(crate) fn certificate(&self, name: &str) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| certificate.name == name)
    }

    /// The certificates that the tasks of a service read.
    pub(crate) fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Certificate> {
        self.certificates.iter().filter(move |certificate| certificate.services.iter().any(|name| name == service))
    }
}

/// What goes wrong with calls goes wrong with those of one service, or with all.
const AWS: [Option<&str>; 9] = [
    None,
    None,
    Some("secretsmanager"),
    Some("dynamodb"),
    Some("acm-pca"),
    Some("ecs"),
    Some("events"),
    Some("acm"),
    Some("elasticloadbalancing"),
];

impl Service {
    fn of(dice: &mut Dice, number: usize) -> Self {
        let breaker = !dice.one_in(6);
        Self { name: format!("service-{number}"), tasks: 1 + dice.below(3) as u32, breaker, rollback: breaker && dice.one_in(2) }
    }
}

impl Certificate {
    fn of(dice: &mut Dice, number: usize, services: &[Service], lasts: Duration, sweep_minutes: i64) -> Self {
        let origin = match dice.below(8) {
            0 | 1 => Origin::Exported,
            2 => Origin::Imported,
            _ => Origin::Issued,
        };
        let longest = Duration::clamp(lasts / 3, Duration::days(2), Duration::days(395));
        // Nine sweeps at least, and an hour beside.
        let shortest = Duration::max(longest / 8, Duration::minutes(sweep_minutes * 10));
        let issued = between(dice, shortest, longest.max(shortest));
        let mut of_services = BTreeSet::new();
        for _ in 0..[0, 1, 1, 2, 2, 2][dice.below(6)] {
            of_services.insert(services[dice.below(services.len())].name.clone());
        }
        Self {
            name: format!("certificate-{number}"),
            origin,
            lifetime: if origin == Origin::Exported { Duration::days(395) } else { Duration::hours(issued.whole_hours()) },
            usage: if origin == Origin::Issued {
                dice.one_of(&["client", "server", "client-and-server"])
            } else {
                "client-and-server"
            },
            encrypted: dice.one_in(3),
            canary: origin != Origin::Exported && of_services.len() == 2 && dice.one_in(2),
            maintenance_window: (origin == Origin::Issued && dice.one_in(6))
                .then(|| dice.one_of(&["daily 22:00-04:00", "daily 01:00-13:00"])),
            ordered: if of_services.is_empty() && dice.one_in(2) {
                // A certificate of ACM is there from the beginning, and is good for a year.
                between(dice, Duration::ZERO, lasts / 4).min(Duration::days(90))
            } else {
                Duration::ZERO
            },
            services: of_services.into_iter().collect(),
        }
    }
}

impl Incident {
    pub(crate) fn is_on(&self, after: Duration) -> bool {
        (self.from..self.to).contains(&after)
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", day(self.from))?;
        if self.to > self.from {
            write!(f, " to {}", day(self.to))?;
        }
        write!(f, ": {:?}", self.what)
    }
}

/// A moment after the beginning, as people tell it.
pub(crate) fn day(after: Duration) -> String {
    let (hours, minutes, seconds) = (after.whole_hours() % 24, after.whole_minutes() % 60, after.whole_seconds() % 60);
    format!("day {} {hours:02}:{minutes:02}:{seconds:02}", after.whole_days())
}

/// Counts by name.
pub(crate) type Counts = BTreeMap<String, u64>;
