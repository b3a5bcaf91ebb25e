//! What a person gets to see: the timeline by months, progress meanwhile, and at the end how things stand.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use time::OffsetDateTime;
use workflow::START;

use crate::END;
use crate::fleet::{FLEET, Origin, services};
use crate::watch::{Note, Promotion, Rollout, Watch};

pub(crate) struct Show {
    began: Instant,
    colour: bool,
    progress: bool,
    /// Up to then everything is printed.
    shown: OffsetDateTime,
}

const COLUMNS: usize = 120;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Show {
    #[expect(clippy::disallowed_methods, reason = "https://no-color.org is no setting of Everleaf's")]
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let (colour, progress) = (io::stdout().is_terminal() && !plain, io::stderr().is_terminal());
        Self { began: Instant::now(), colour, progress, shown: START }
    }

    pub(crate) fn header(&self) -> io::Result<()> {
        let title = self.paint(BOLD, "Everleaf: a year of a small fleet, without an AWS account");
        let (services, certificates) = (services().len(), FLEET.len());
        writeln!(
            io::stdout(),
            "{title}\n\n\
             {certificates} certificates and {services} services in the ECS cluster `payments`. ACM renews two of the certificates; five are issued\n\
             from AWS Private CA, and one on the CSR of a partner. `mesh` is used by two services; `orders` uses two certificates.\n\
             Five are clients of an internal load balancer, which lets in whom its trust store trusts.\n\n\
             The functions are the real ones, with the real SDK, wired by template.yaml. AWS is Local AWS, in this process, where\n\
             time is virtual. After the first day nobody asks for a renewal. On the way a key is lost, then the table, a rollout fails,\n\
             AWS throttles, the CA is replaced, and disabled, every event comes twice, and none comes at all.\n\
             Each line: when, which certificate, what, and why."
        )
    }

    /// Time has passed: shows how far the year is, and prints the month when it is over.
    pub(crate) fn passed(&mut self, from: OffsetDateTime, to: OffsetDateTime, watch: &mut Watch) -> io::Result<()> {
        if from.month() != to.month() {
            self.month(watch, to)?;
        }
        if self.progress && from.date() != to.date() {
            let done = ((to - START) / (END - START) * 24.0) as usize;
            eprint!("\r{}-{:02} {:░<24}", to.year(), u8::from(to.month()), "▓".repeat(done));
            io::stderr().flush()?;
        }
        Ok(())
    }

    /// What is worth a line gets one; renewals that went like those before them are counted.
    fn month(&mut self, watch: &mut Watch, end: OffsetDateTime) -> io::Result<()> {
        let month = std::mem::replace(&mut self.shown, end)..end;
        let mut lines: Vec<_> = watch.notes.drain(..).map(|note| (note.at, self.note(&note))).collect();
        let (mut routine, mut rollouts) = (BTreeMap::<&str, usize>::new(), 0);
        for promotion in watch.all().filter(|promotion| month.contains(&promotion.at)) {
            if promotion.number < 2 || promotion.special || promotion.certificate.origin != Origin::Everleaf {
                lines.push((promotion.at, self.promotion(promotion)));
            } else {
                *routine.entry(promotion.certificate.name).or_default() += 1;
                rollouts += promotion.rollouts.len();
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        if lines.is_empty() && routine.is_empty() {
            return Ok(());
        }
        self.clear();
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}", self.paint(BOLD, &format!("{} {}", month.start.month(), month.start.year())))?;
        for (_, line) in lines {
            writeln!(out, "{line}")?;
        }
        if !routine.is_empty() {
            let each: Vec<_> = routine.iter().map(|(name, times)| format!("{name} ×{times}")).collect();
            let line = format!("  renewed likewise: {}", each.join(", "));
            writeln!(out, "{}", self.explained(line, &count(rollouts, "rollout")))?;
        }
        Ok(())
    }

    fn note(&self, Note { at, certificate, what, why }: &Note) -> String {
        let what = match certificate.as_str() {
            _ if why.starts_with("promise ") => self.paint(RED, &format!("✗ {what}")),
            "" => self.paint(YELLOW, &format!("▸ {what}")),
            name => format!("{name:13} {what}").replace('✓', &self.paint(GREEN, "✓")).replace('✗', &self.paint(RED, "✗")),
        };
        self.explained(format!("  {} {what}", when(*at)), why)
    }

    fn promotion(&self, promotion: &Promotion) -> String {
        let Promotion { at, certificate, back, number, serial, reason, rollouts, .. } = promotion;
        let what = match (certificate.origin, number) {
            _ if *back => "current again",
            (Origin::Acm, _) => "exported from ACM",
            (_, 0) => "issued",
            _ => "renewed",
        };
        let slowest = rollouts.values().map(|rollout| if let Rollout::Done(done) = rollout { *done } else { END }).max();
        let rollout = slowest.map_or_else(String::new, |done| {
            let services = rollouts.keys().copied().collect::<Vec<_>>().join(" and ");
            format!(", {services} redeployed in {}", span(done - *at))
        });
        let name = certificate.name;
        let line = format!("  {} {name:13} {what} as {}…{rollout}", when(*at), serial.get(..8).unwrap_or(serial));
        // What follows is how it is done.
        self.explained(line, reason.split("; ").next().unwrap_or_default())
    }

    /// How things stand at the end, and what became of the promises.
    pub(crate) fn footer(&mut self, watch: &mut Watch) -> io::Result<()> {
        self.month(watch, END)?;
        self.clear();
        let mut out = io::stdout().lock();
        let title = ["certificate", "key", "lifetime", "serial", "expires", "services", "renewals"].map(str::to_owned);
        let rows = watch.promotions.values().filter_map(|promotions| {
            let current = promotions.last()?;
            let asked = current.certificate;
            Some([
                asked.name.to_owned(),
                asked.key_algorithm.to_string(),
                format!("{} days", asked.days),
                current.serial.clone(),
                current.not_after.date().to_string(),
                asked.services.join(", "),
                (promotions.iter().filter(|promotion| !promotion.back).count() - 1).to_string(),
            ])
        });
        writeln!(out, "\n{}", self.paint(BOLD, "The fleet after a year"))?;
        for [name, key, lifetime, serial, expires, services, renewals] in [title].into_iter().chain(rows) {
            writeln!(out, "  {name:13} {key:13} {lifetime:8} {serial:32} {expires:10} {services:16} {renewals:>8}")?;
        }
        let counts = &watch.counts;
        let short = |service: &&'static str| if *service == "elasticloadbalancing" { "elb" } else { *service };
        let calls: Vec<_> = counts.calls.iter().map(|(service, calls)| format!("{} {calls}", short(service))).collect();
        let (all, seconds) = (counts.calls.values().sum::<usize>(), self.began.elapsed().as_secs_f64());
        writeln!(out, "\n  {all} AWS calls: {}", calls.join(", "))?;
        writeln!(out, "  {} invocations, {} events", counts.invocations, counts.events)?;
        writeln!(out, "  {} days in {seconds:.0} seconds\n", (END - START).whole_days())?;
        for (promise, name, seen) in watch.verdicts() {
            let (mark, seen) = match watch.broken.get(&promise) {
                None => (self.paint(GREEN, "✓"), self.paint(DIM, &seen)),
                Some(what) => (self.paint(RED, "✗"), self.paint(RED, what)),
            };
            writeln!(out, "  {mark} {promise} {name:25} {seen}")?;
        }
        Ok(())
    }

    /// A line and the reason for it, below where there is no room beside.
    fn explained(&self, line: String, why: &str) -> String {
        if why.is_empty() {
            return line;
        }
        let fits = width(&line) + 3 + why.chars().count() <= COLUMNS;
        let between = if fits { " ".to_owned() } else { format!("\n{:17}", "") };
        format!("{line}{between}{}", self.paint(DIM, &format!("· {why}")))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Takes the progress away, so that a line can stand in its place.
    fn clear(&self) {
        if self.progress {
            eprint!("\r\x1b[K");
        }
    }
}

/// The columns of a text that may be painted.
fn width(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let plain = parts.next().unwrap_or_default();
    let painted = parts.filter_map(|part| part.split_once('m')).map(|(_, text)| text);
    painted.chain([plain]).map(|text| text.chars().count()).sum()
}

/// `Mon 04 09:00`
fn when(at: OffsetDateTime) -> String {
    format!("{:.3} {:02} {:02}:{:02}", at.weekday().to_string(), at.day(), at.hour(), at.minute())
}

fn span(duration: time::Duration) -> String {
    match duration.whole_minutes() {
        0..2 => format!("{} s", duration.whole_seconds()),
        minutes @ 2..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
