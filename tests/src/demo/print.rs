//! What a person gets to see: the timeline by months, progress meanwhile, and at the end how things stand.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use time::OffsetDateTime;

use crate::fleet::{FLEET, Origin};
use crate::watch::{Note, Promotion, Rollout, Watch};

pub(crate) struct Show {
    began: Instant,
    colour: bool,
    progress: bool,
    /// So many promotions were in the months before.
    shown: usize,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Show {
    #[expect(clippy::disallowed_methods, reason = "https://no-color.org, and Everleaf's settings are not concerned")]
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            began: Instant::now(),
            colour: io::stdout().is_terminal() && !plain,
            progress: io::stderr().is_terminal(),
            shown: 0,
        }
    }

    pub(crate) fn header(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}\n", self.paint(BOLD, "Everleaf: a year of a small fleet, without an AWS account"))?;
        writeln!(
            out,
            "The cluster `payments`: {} services and {} certificates. Two are ACM's, five are issued from AWS Private CA, one is on a\n\
             partner's CSR. `mesh` is shared by two services, `orders` has two certificates.\n\n\
             The four functions are the real ones, wired by template.yaml, with the real SDK; AWS is Local AWS, in this process, with\n\
             virtual time. After the first day nobody asks for a renewal. Each line: when, which certificate, what, and why.",
            crate::fleet::services().len(),
            FLEET.len(),
        )
    }

    /// Time has passed: shows how far the year is, and prints the month when it is over.
    pub(crate) fn passed(&mut self, from: OffsetDateTime, to: OffsetDateTime, watch: &mut Watch) -> io::Result<()> {
        if from.month() != to.month() {
            self.month(from, watch)?;
        }
        if self.progress && from.date() != to.date() {
            let done = usize::from(to.ordinal()) * 24 / 365;
            eprint!("\r{}-{:02} {}{}", to.year(), u8::from(to.month()), "▓".repeat(done), "░".repeat(24 - done));
            io::stderr().flush()?;
        }
        Ok(())
    }

    /// What is worth a line gets one; renewals that went like those before them are counted.
    fn month(&mut self, month: OffsetDateTime, watch: &mut Watch) -> io::Result<()> {
        let mut lines: Vec<(OffsetDateTime, String)> = watch.notes.drain(..).map(|note| (note.at, self.note(&note))).collect();
        let (mut routine, mut rollouts) = (BTreeMap::<&str, usize>::new(), 0);
        let fresh = self.shown..watch.promotions.len();
        self.shown = fresh.end;
        for promotion in &watch.promotions[fresh] {
            let acm = promotion.certificate.origin == Origin::Acm;
            if promotion.number < 2 || promotion.special || acm || promotion.certificate.origin == Origin::Caller {
                lines.push((promotion.at, self.promotion(promotion)));
            } else {
                *routine.entry(promotion.certificate.name).or_default() += 1;
                rollouts += promotion.rollouts.len();
            }
        }
        lines.sort();
        self.clear();
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}", self.paint(BOLD, &format!("{} {}", month.month(), month.year())))?;
        for (_, line) in lines {
            writeln!(out, "{line}")?;
        }
        if !routine.is_empty() {
            let each = routine.iter().map(|(name, times)| format!("{name} ×{times}")).collect::<Vec<_>>().join(", ");
            writeln!(out, "  {:12} renewed as before and rolled out: {each} {}", "", self.why(&count(rollouts, "deployment")))?;
        }
        Ok(())
    }

    fn note(&self, note: &Note) -> String {
        let what = match note.certificate.as_str() {
            "" => self.paint(YELLOW, &note.what),
            name => format!("{name:14} {}", note.what),
        };
        let what = if note.why.starts_with("promise ") { self.paint(RED, &note.what) } else { what };
        format!("  {} {what} {}", when(note.at), self.why(&note.why))
    }

    fn promotion(&self, promotion: &Promotion) -> String {
        let Promotion { at, certificate, number, serial, reason, rollouts, .. } = promotion;
        let how = match (certificate.origin, number) {
            (Origin::Acm, _) => "exported from ACM",
            (_, 0) => "issued",
            _ => "renewed",
        };
        let rollouts: Vec<_> = rollouts
            .iter()
            .map(|(service, rollout)| match rollout {
                Rollout::Done(done) => format!("{service} on it after {}", span(*done - *at)),
                _ => format!("{service} not yet"),
            })
            .collect();
        let rollouts = if rollouts.is_empty() { String::new() } else { format!("; {}", rollouts.join(", ")) };
        format!("  {} {:14} {how}, serial {}…{rollouts} {}", when(*at), certificate.name, &serial[..8], self.why(reason))
    }

    pub(crate) fn footer(&mut self, watch: &mut Watch) -> io::Result<()> {
        if let Some(last) = watch.last() {
            self.month(last, watch)?;
        }
        self.clear();
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}", self.paint(BOLD, "The fleet after a year"))?;
        writeln!(
            out,
            "  {:14} {:13} {:8} {:34} {:16} {:20} renewals",
            "certificate", "key", "lifetime", "serial", "expires", "services"
        )?;
        for certificate in FLEET {
            let mine: Vec<_> =
                watch.promotions.iter().filter(|promotion| promotion.certificate.name == certificate.name).collect();
            let Some(current) = mine.last() else { continue };
            writeln!(
                out,
                "  {:14} {:13} {:8} {:34} {:16} {:20} {:>4}",
                certificate.name,
                certificate.key_algorithm.as_str(),
                format!("{} d", certificate.days),
                current.serial,
                current.not_after.date(),
                certificate.services.join(", "),
                mine.len() - 1,
            )?;
        }
        let calls: u64 = watch.counts.calls.values().sum();
        let by_service: Vec<_> = watch.counts.calls.iter().map(|(service, calls)| format!("{service} {calls}")).collect();
        writeln!(out, "\n{} {calls} calls: {}", self.paint(BOLD, "AWS"), by_service.join(", "))?;
        writeln!(out, "    {} invocations, {} events", watch.counts.invocations, watch.counts.events)?;
        writeln!(out, "    365 days in {:.1} s\n", self.began.elapsed().as_secs_f64())?;
        for (promise, name, seen) in watch.verdicts() {
            match watch.broken.get(&promise) {
                None => writeln!(out, "{} {promise} {name:24} {}", self.paint(GREEN, "✓"), self.paint(DIM, &seen))?,
                Some(what) => writeln!(out, "{} {promise} {name:24} {}", self.paint(RED, "✗"), self.paint(RED, what))?,
            }
        }
        Ok(())
    }

    fn why(&self, why: &str) -> String {
        if why.is_empty() { String::new() } else { self.paint(DIM, &format!("· {why}")) }
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
