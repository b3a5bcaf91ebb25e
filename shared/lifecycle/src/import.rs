//! A pair that ACM holds as well, so that listeners use it: imported once, then reimported under the same ARN each time another
//! one is current. <https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html>

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::attempt::LEASE;
use crate::export::Held;
use crate::leaf::{KeyAlgorithm, Serial};
use crate::names::Arn;
use crate::record::{Moment, Options, Origin, Record};
use crate::renewal;
use crate::window::Hold;

/// A certificate in ACM that is to hold the current pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// `None` until ACM has answered the first import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_arn: Option<Arn>,
    /// What ACM holds, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// When ACM was first asked for what it has not answered yet. A first import has no token: what it may have left is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Moment>,
    /// When ACM refused it for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Moment>,
}

/// Two imports at once could leave the older pair in ACM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub holder: String,
    pub until: Moment,
}

/// What is to be done about ACM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Nothing,
    Import,
    /// Another invocation is at it until then.
    Busy {
        until: OffsetDateTime,
    },
    /// ACM refused it: the sweep does not ask again before then.
    Rest {
        until: OffsetDateTime,
    },
}

/// What ACM refuses, a person has to see to.
const REST: Duration = Duration::from_secs(24 * 60 * 60);

/// Whose turn it is. `holder` names this invocation, as for [`crate::attempt::turn`].
pub fn turn(record: &Record, holder: &str, now: OffsetDateTime) -> Turn {
    let wanted = record.current.as_ref().filter(|current| record.options.import_to_acm && current.is_valid_at(now));
    let Some(current) = wanted else { return Turn::Nothing };
    let Some(imported) = &record.imported else { return Turn::Import };
    match imported.busy(holder, now) {
        _ if imported.serial.as_ref() == Some(&current.serial) => Turn::Nothing,
        Some(until) => Turn::Busy { until },
        None => match imported.refused.map(|refused| *refused + REST) {
            Some(until) if now < until => Turn::Rest { until },
            _ => Turn::Import,
        },
    }
}

impl Imported {
    /// Until when another invocation is at it.
    pub fn busy(&self, holder: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.lease.as_ref().filter(|lease| *lease.until > now && lease.holder != holder).map(|lease| *lease.until)
    }
}

impl Record {
    pub fn is_adopted(&self) -> bool {
        matches!(self.origin, Origin::Adopted { .. })
    }

    /// The certificate in ACM that is to hold the current pair, or that is to be replaced by one of ours.
    pub fn acm_certificate(&self) -> Option<&Arn> {
        match &self.origin {
            Origin::Adopted { certificate_arn } => Some(certificate_arn),
            _ => self.imported.as_ref()?.certificate_arn.as_ref(),
        }
    }

    /// The certificate in ACM that this one is, or is to be in.
    pub fn in_acm(&self) -> Option<&Arn> {
        match &self.origin {
            Origin::Exported { certificate_arn } => Some(certificate_arn),
            _ => self.acm_certificate(),
        }
    }

    /// Makes `certificate_arn` the certificate in ACM that is to hold the current pair; `None`: the one that does already, or a new
    /// one. Gives what is let go of.
    pub fn import_into(&mut self, certificate_arn: Option<Arn>) -> Option<Imported> {
        let has = self.imported.as_ref().and_then(|imported| imported.certificate_arn.as_ref());
        match certificate_arn {
            _ if !self.options.import_to_acm => self.imported.take(),
            Some(arn) if has != Some(&arn) => {
                self.imported.replace(Imported { certificate_arn: Some(arn), ..Imported::default() })
            }
            _ => None,
        }
    }

    /// Notes what ACM was seen to hold; `None`: it does not know the certificate any more.
    pub fn found_in_acm(&mut self, held: Option<&Held>) {
        if let Some(imported) = &mut self.imported {
            imported.serial = held.and_then(|held| held.serial.clone());
        }
    }

    /// Takes up an import. The sweep looks again when its lease is over.
    pub fn take_up_import(&mut self, holder: &str, now: OffsetDateTime) {
        let until = now + LEASE;
        let imported = self.imported.get_or_insert_default();
        imported.lease = Some(Lease { holder: holder.to_owned(), until: until.into() });
        imported.asked.get_or_insert_with(|| now.into());
        self.look_at = self.look_at.min(until.unix_timestamp());
    }
}

/// Why a certificate that was imported by hand, and is to be replaced, stays as it is for now. Its time comes with the last third of
/// its lifetime, but not before ACM would renew one of its own.
pub fn adoption_hold(
    options: &Options,
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
    now: OffsetDateTime,
) -> Option<Hold> {
    let window = adoption_window(not_before, not_after);
    let due = not_after - window;
    if now < due {
        return Some(Hold::Until(due));
    }
    options.hold(not_after - window / 2, now)
}

pub(crate) fn adoption_window(not_before: OffsetDateTime, not_after: OffsetDateTime) -> Duration {
    (Duration::try_from(not_after - not_before).unwrap_or_default() / 3).min(renewal::ACM_RENEWS)
}

/// Whether ACM takes a pair that is issued here under the ARN of what it holds, or why not. A reimport keeps the key algorithm,
/// lets go of no usage but client authentication, and adds none where there was none:
/// <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-prerequisites.html>.
pub fn admits(held: &Held, wanted: KeyAlgorithm) -> Result<(), String> {
    let arn = &held.certificate_arn;
    match held.key_algorithm {
        Some(has) if has == wanted => usages_stay(held),
        has => Err(format!(
            "{arn} has a key of {}, and ACM takes none of {wanted} under that ARN",
            has.map_or("another kind", KeyAlgorithm::as_str)
        )),
    }
}

/// As [`admits`], where the key is of the same kind.
pub(crate) fn usages_stay(held: &Held) -> Result<(), String> {
    // <https://docs.aws.amazon.com/privateca/latest/userguide/template-definitions.html>
    const OURS: [&str; 4] =
        ["DIGITAL_SIGNATURE", "KEY_ENCIPHERMENT", "TLS_WEB_SERVER_AUTHENTICATION", "TLS_WEB_CLIENT_AUTHENTICATION"];
    let Held { certificate_arn: arn, key_usages, extended_key_usages, .. } = held;
    for (kind, usages) in [("key usage", key_usages), ("extended key usage", extended_key_usages)] {
        let why = match usages.iter().find(|usage| !OURS.contains(&usage.as_str())) {
            Some(usage) => format!("has the {kind} {usage}, and ACM lets go of none"),
            None if usages.is_empty() => format!("has no {kind}, and ACM adds none"),
            None => continue,
        };
        return Err(format!(
            "{arn} {why} under that ARN; ask for a certificate of another name with `\"import_to_acm\": true`, give its ARN to the listeners, and take the tag everleaf:certificate off this one"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Pair;
    use crate::samples::{self, DAY, HOUR, IN_ACM, arn, at, held, issued, pair};

    const NOON: &str = "2026-11-22T12:00:00Z";

    fn with(imported: Option<Imported>) -> Record {
        let options = Options { import_to_acm: true, ..Options::default() };
        Record { options, imported, ..issued() }
    }

    fn leased(holder: &str, until: OffsetDateTime) -> Imported {
        let lease = Some(Lease { holder: holder.to_owned(), until: until.into() });
        Imported { lease, ..Imported::default() }
    }

    #[test]
    fn acm_gets_what_is_current_from_one_at_a_time() {
        let (now, known) = (at(NOON), || Some(arn(IN_ACM)));
        let holding = |serial| Imported { certificate_arn: known(), serial: Some(serial), ..Imported::default() };
        let refused = |at: OffsetDateTime| Imported { refused: Some(at.into()), ..Imported::default() };
        let expired = Pair { not_after: now.into(), ..pair() };
        for (what, record, holder, expected) in [
            ("not to be there", issued(), "me", Turn::Nothing),
            ("nothing is current", Record { current: None, ..with(None) }, "me", Turn::Nothing),
            ("what is current has expired", Record { current: Some(expired), ..with(None) }, "me", Turn::Nothing),
            ("never yet", with(None), "me", Turn::Import),
            ("the current pair", with(Some(holding(pair().serial))), "me", Turn::Nothing),
            ("another pair", with(Some(holding(Serial::from_hex("0c03")))), "me", Turn::Import),
            ("nobody knows what", with(Some(Imported { serial: None, ..holding(pair().serial) })), "me", Turn::Import),
            ("somebody is at it", with(Some(leased("you", now + HOUR))), "me", Turn::Busy { until: now + HOUR }),
            ("I was at it", with(Some(leased("me", now + HOUR))), "me", Turn::Import),
            ("somebody was at it", with(Some(leased("you", now))), "me", Turn::Import),
            ("refused", with(Some(refused(now - DAY + HOUR))), "me", Turn::Rest { until: now + HOUR }),
            ("refused a day ago", with(Some(refused(now - DAY))), "me", Turn::Import),
        ] {
            assert_eq!(turn(&record, holder, now), expected, "{what}");
        }
    }

    #[test]
    fn who_takes_up_an_import_is_looked_after_when_the_lease_is_over() {
        let mut record = Record { look_at: i64::MAX, ..with(None) };
        record.take_up_import("me", at(NOON));
        assert_eq!(turn(&record, "you", at(NOON)), Turn::Busy { until: at(NOON) + LEASE });
        assert_eq!(record.look_at, (at(NOON) + LEASE).unix_timestamp());
        record.look_at = 7;
        record.take_up_import("me", at(NOON) + HOUR);
        assert_eq!(record.look_at, 7);
        assert_eq!(record.imported.unwrap().asked, Some(at(NOON).into()), "nothing has been heard since");
    }

    #[test]
    fn the_certificate_in_acm_is_the_one_that_was_named_or_that_was_made() {
        let of = |record: &Record| record.acm_certificate().map(ToString::to_string);
        let mut record = with(None);
        assert_eq!(record.import_into(None), None);
        assert_eq!((of(&record), record.imported.as_ref()), (None, None));
        assert_eq!(record.import_into(Some(arn(IN_ACM))), None);
        assert_eq!(of(&record).as_deref(), Some(IN_ACM));

        record.found_in_acm(Some(&held()));
        let known = record.clone();
        assert_eq!(known.imported.as_ref().unwrap().serial, Some(pair().serial));
        for same in [None, Some(arn(IN_ACM))] {
            assert_eq!(record.import_into(same), None);
            assert_eq!(record, known);
        }
        record.found_in_acm(None);
        assert_eq!(record.imported.as_ref().unwrap().serial, None);
        let gone = record.import_into(Some(arn(samples::CA)));
        assert_eq!((gone.unwrap().certificate_arn, of(&record).as_deref()), (Some(arn(IN_ACM)), Some(samples::CA)));

        record.options.import_to_acm = false;
        let gone = record.import_into(None);
        assert_eq!((gone.unwrap().certificate_arn, record.imported), (Some(arn(samples::CA)), None));
        let origin = Origin::Adopted { certificate_arn: arn(IN_ACM) };
        assert_eq!(of(&Record { origin, ..issued() }).as_deref(), Some(IN_ACM));
    }

    #[test]
    fn a_certificate_is_in_acm_where_it_is_acms_own_or_imported_there() {
        let imported = with(Some(Imported { certificate_arn: Some(arn(samples::CA)), ..Imported::default() }));
        let adopted = Record { origin: Origin::Adopted { certificate_arn: arn(IN_ACM) }, ..issued() };
        for (record, expected) in
            [(samples::exported(), Some(IN_ACM)), (adopted, Some(IN_ACM)), (imported, Some(samples::CA)), (issued(), None)]
        {
            assert_eq!(record.in_acm(), expected.map(arn).as_ref(), "{:?}", record.origin);
        }
    }

    #[test]
    fn acm_takes_the_same_key_algorithm_and_every_usage_that_it_holds() {
        let of = |key: &[&str], extended: &[&str]| Held {
            key_usages: key.iter().map(|usage| (*usage).to_owned()).collect(),
            extended_key_usages: extended.iter().map(|usage| (*usage).to_owned()).collect(),
            ..held()
        };
        let (signs, serves) = ("DIGITAL_SIGNATURE", "TLS_WEB_SERVER_AUTHENTICATION");
        for (what, held, refusal) in [
            ("as ours", held(), None),
            ("some of ours", of(&[signs], &[serves]), None),
            ("for clients alone", of(&[signs], &["TLS_WEB_CLIENT_AUTHENTICATION"]), None),
            ("a CA's", of(&[signs, "CERTIFICATE_SIGNING"], &[serves]), Some("has the key usage CERTIFICATE_SIGNING, and")),
            ("more than TLS", of(&[signs], &["CODE_SIGNING", serves]), Some("has the extended key usage CODE_SIGNING, and")),
            ("for anything", of(&["ANY"], &[serves]), Some("has the key usage ANY, and ACM lets go of none")),
            ("no key usage", of(&[], &[serves]), Some("has no key usage, and ACM adds none")),
            ("no extended one", of(&[signs], &[]), Some("has no extended key usage, and ACM adds none")),
            ("another key", Held { key_algorithm: Some(KeyAlgorithm::Rsa2048), ..held() }, Some("has a key of RSA_2048")),
            ("an unknown key", Held { key_algorithm: None, ..held() }, Some("has a key of another kind")),
        ] {
            let said = admits(&held, KeyAlgorithm::EcPrime256v1).err();
            assert_eq!(said.is_some(), refusal.is_some(), "{what}: {said:?}");
            assert!(said.unwrap_or_default().contains(refusal.unwrap_or_default()), "{what}");
        }
    }

    #[test]
    fn what_was_imported_by_hand_is_replaced_in_its_last_third_or_its_last_sixty_days() {
        let begin = at("2026-01-01T00:00:00Z");
        for (days, due) in [(3650, 3590), (365, 305), (180, 120), (90, 60), (3, 2)] {
            let hold = |now| adoption_hold(&Options::default(), (begin, begin + DAY * days), now);
            let due = begin + DAY * due;
            assert_eq!(hold(due - Duration::from_secs(1)), Some(Hold::Until(due)), "{days}");
            assert_eq!(hold(due), None, "{days}");
        }
    }

    #[test]
    fn what_was_imported_by_hand_waits_for_its_window_until_it_is_late_and_while_it_is_paused() {
        let (begin, end) = (at("2026-09-01T00:00:00Z"), at("2026-11-30T00:00:00Z"));
        // Due from 31 October, a Saturday, and late from 15 November, a Sunday.
        let (due, late) = (at("2026-10-31T00:00:00Z"), at("2026-11-15T00:00:00Z"));
        let opens = |at: OffsetDateTime| Some(Hold::Until(at));
        for (what, window, paused, now, expected) in [
            ("not due, in its window", Some("Fri 01:00-05:00"), false, due - HOUR * 22, opens(due)),
            ("due, closed", Some("Wed 01:00-05:00"), false, due, opens(at("2026-11-04T01:00:00Z"))),
            ("due, open", Some("Wed 01:00-05:00"), false, at("2026-11-04T01:00:00Z"), None),
            (
                "a second before it is late",
                Some("Wed 01:00-05:00"),
                false,
                late - Duration::from_secs(1),
                opens(at("2026-11-18T01:00:00Z")),
            ),
            ("late", Some("Wed 01:00-05:00"), false, late, None),
            ("paused", None, true, due, Some(Hold::Paused)),
            ("paused, late and open", Some("Sun 00:00-05:00"), true, late, Some(Hold::Paused)),
        ] {
            let maintenance_window = window.map(|window| window.parse().unwrap());
            let options = Options { maintenance_window, paused, ..Options::default() };
            assert_eq!(adoption_hold(&options, (begin, end), now), expected, "{what}");
        }
    }
}
