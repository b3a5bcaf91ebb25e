//! When a certificate may be replaced: `Sat Sun 01:00-05:00`, in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime, Time, UtcOffset, Weekday};

use crate::date;
use crate::names::BadName;
use crate::record::{Options, Record};
use crate::renewal;

/// Some hours of some days of the week. One that ends before it begins lasts into the next day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Monday first.
    days: Vec<Weekday>,
    from: Time,
    to: Time,
}

const WEEK: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

impl Window {
    /// When the window is open next: `now` while it is.
    pub fn next(&self, now: OffsetDateTime) -> OffsetDateTime {
        let now = now.to_offset(UtcOffset::UTC);
        let openings = (-1..=7).filter_map(|days| {
            let date = now.date().checked_add(Duration::days(days))?;
            let begins = date.with_time(self.from).assume_utc();
            let lasts = match self.to - self.from {
                lasts if lasts.is_positive() => lasts,
                over_midnight => over_midnight + Duration::DAY,
            };
            (self.days.contains(&date.weekday()) && now < begins + lasts).then_some(begins)
        });
        openings.min().map_or(now, |begins| begins.max(now))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = WEEK.iter().filter(|(_, day)| self.days.contains(day)).map(|(name, _)| *name).collect();
        let days = if days.len() == WEEK.len() { "daily".to_owned() } else { days.join(" ") };
        let Self { from, to, .. } = self;
        write!(f, "{days} {:02}:{:02}-{:02}:{:02}", from.hour(), from.minute(), to.hour(), to.minute())
    }
}

impl FromStr for Window {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(format!("`{text}` is not a window such as `Sat Sun 01:00-05:00` or `daily 22:00-04:00`, in UTC"));
        let (days, hours) = text.rsplit_once(' ').ok_or_else(bad)?;
        let (from, to) = hours.split_once('-').ok_or_else(bad)?;
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':').filter(|_| text.len() == 5 && !text.contains('+'))?;
            Time::from_hms(hour.parse().ok()?, minute.parse().ok()?, 0).ok()
        };
        let day = |name: &str| WEEK.iter().find(|(known, _)| *known == name).map(|(_, day)| *day);
        let days: Option<Vec<_>> = match days {
            "daily" => Some(WEEK.map(|(_, day)| day).into()),
            days => days.split(' ').map(day).collect(),
        };
        let (days, from, to) = days.zip(time(from)).zip(time(to)).map(|((days, from), to)| (days, from, to)).ok_or_else(bad)?;
        if from == to {
            return Err(BadName(format!("`{text}` ends when it begins; leave it out, or give it some hours")));
        }
        Ok(Self { days, from, to })
    }
}

impl TryFrom<String> for Window {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// Why a certificate is not to be replaced now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Until(OffsetDateTime),
    Paused,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("it is paused"),
            Self::Until(opens) => write!(f, "its maintenance window opens {}", date(*opens)),
        }
    }
}

impl Record {
    /// Why the current pair is to stay as it is for now. One that is to be revoked is replaced whenever that is asked.
    pub fn held_back(&self, now: OffsetDateTime) -> Option<Hold> {
        let current = self.current.as_ref().filter(|_| self.revocation_of_current().is_none())?;
        self.options.hold(renewal::late(self, current), now)
    }
}

impl Options {
    /// Why nothing is to be replaced now. A maintenance window is not waited for from when the renewal is `late`.
    pub(crate) fn hold(&self, late: OffsetDateTime, now: OffsetDateTime) -> Option<Hold> {
        if self.paused {
            return Some(Hold::Paused);
        }
        let opens = self.maintenance_window.as_ref()?.next(now);
        (now < opens && now < late).then_some(Hold::Until(opens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::at;

    #[test]
    fn a_window_is_open_now_or_opens_on_one_of_its_days() {
        // 2026-11-26 is a Thursday.
        for (window, now, next) in [
            ("Thu 01:00-05:00", "2026-11-26T01:00:00Z", "2026-11-26T01:00:00Z"),
            ("Thu 01:00-05:00", "2026-11-26T04:59:59Z", "2026-11-26T04:59:59Z"),
            ("Thu 01:00-05:00", "2026-11-26T05:00:00Z", "2026-12-03T01:00:00Z"),
            ("Thu 01:00-05:00", "2026-11-26T00:59:59Z", "2026-11-26T01:00:00Z"),
            ("Sat Sun 01:00-05:00", "2026-11-26T02:00:00Z", "2026-11-28T01:00:00Z"),
            ("daily 01:00-05:00", "2026-11-26T06:00:00Z", "2026-11-27T01:00:00Z"),
            ("Wed 22:00-04:00", "2026-11-26T03:59:59Z", "2026-11-26T03:59:59Z"),
            ("Wed 22:00-04:00", "2026-11-26T04:00:00Z", "2026-12-02T22:00:00Z"),
            ("Thu 01:00-05:00", "2026-11-26T04:30:00+02:00", "2026-11-26T02:30:00Z"),
            ("Fri 01:00-05:00", "2026-11-27T00:30:00+02:00", "2026-11-27T01:00:00Z"),
        ] {
            assert_eq!(window.parse::<Window>().unwrap().next(at(now)), at(next), "{window} at {now}");
        }
    }

    #[test]
    fn a_window_reads_back_as_it_was_written() {
        for text in ["Sat Sun 01:00-05:00", "daily 22:00-04:30", "Mon 00:00-23:59"] {
            let window = text.parse::<Window>().unwrap();
            assert_eq!(window.to_string(), text);
            assert_eq!(serde_json::to_value(&window).unwrap(), text);
            assert_eq!(serde_json::from_value::<Window>(text.into()).unwrap(), window);
        }
        assert_eq!("Sun Sat Sun 01:00-05:00".parse::<Window>().unwrap().to_string(), "Sat Sun 01:00-05:00");
        for text in [
            "",
            "Sat",
            "sat 01:00-05:00",
            "Sat 1:00-05:00",
            "Sat 01:00",
            "Sat 01:00-24:00",
            "Sat,Sun 01:00-05:00",
            "Sat 01:00-05:60",
            "Sat 01:00-+5:00",
        ] {
            assert!(text.parse::<Window>().unwrap_err().0.contains("is not a window such as"), "{text}");
        }
        assert!("Sat 01:00-01:00".parse::<Window>().unwrap_err().0.contains("ends when it begins"));
    }

    #[test]
    fn a_certificate_waits_for_its_window_until_it_is_late_and_for_ever_while_it_is_paused() {
        use crate::samples::issued;
        let with = |window: Option<&str>, paused| {
            let maintenance_window = window.map(|window| window.parse().unwrap());
            Record { options: Options { maintenance_window, paused, ..Options::default() }, ..issued() }
        };
        // It is renewed from 2026-11-21, late from 2026-11-26T01:00, and ends 2026-12-01T01:00.
        let (open, late) = (Hold::Until(at("2026-11-28T01:00:00Z")), "2026-11-26T01:00:00Z");
        for (what, record, now, hold) in [
            ("nothing is asked", issued(), "2026-11-24T02:00:00Z", None),
            ("closed", with(Some("Sat 01:00-05:00"), false), "2026-11-24T02:00:00Z", Some(open)),
            ("open", with(Some("Tue 01:00-05:00"), false), "2026-11-24T02:00:00Z", None),
            ("a second before it is late", with(Some("Sat 01:00-05:00"), false), "2026-11-26T00:59:59Z", Some(open)),
            ("late", with(Some("Sat 01:00-05:00"), false), late, None),
            ("paused", with(None, true), "2026-11-24T02:00:00Z", Some(Hold::Paused)),
            ("paused and late", with(Some("Tue 01:00-05:00"), true), late, Some(Hold::Paused)),
            ("nothing is current", Record { current: None, ..with(Some("Sat 01:00-05:00"), true) }, late, None),
        ] {
            assert_eq!(record.held_back(at(now)), hold, "{what}");
        }
    }
}
