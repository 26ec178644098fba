//! What an operator allows Mimeo to use: how many copies at once, how fast, at which hours, with how much memory.

use std::{collections::BTreeMap, fmt, num::NonZeroU64, num::NonZeroUsize, str::FromStr};

use jiff::{civil::Time, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{StoreName, Timestamp};

/// All limits. They may change while copies run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Images read at the same time.
    pub concurrency: NonZeroUsize,
    /// Bytes that all images together hold in memory on their way. Each of `concurrency` gets an equal share.
    pub memory: NonZeroUsize,
    /// Bytes per second, read and written, of everything together.
    pub bandwidth: Option<NonZeroU64>,
    /// When copies are started.
    pub hours: Hours,
    pub stores: BTreeMap<StoreName, StoreLimits>,
}

/// The limits of one store, which count beside those of all together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreLimits {
    /// Copies written to it at the same time.
    pub concurrency: Option<NonZeroUsize>,
    /// Bytes per second, to it and from it.
    pub bandwidth: Option<NonZeroU64>,
    /// When copies to it are started.
    pub hours: Hours,
}

impl Limits {
    /// What one image may hold in memory.
    pub fn window(&self) -> usize {
        self.memory.get() / self.concurrency
    }

    /// When copies to the store may start again; `None`: now.
    pub fn opens(&self, store: &StoreName, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let own = self.stores.get(store).and_then(|limits| limits.hours.opens(now, zone));
        self.hours.opens(now, zone).max(own)
    }
}

/// Spans of the day, in local time. None at all: always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hours(pub Vec<Span>);

impl Hours {
    /// When the next span begins; `None` within one.
    pub fn opens(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = now.to_zoned(zone.clone());
        if self.0.iter().any(|span| span.contains(local.time())) {
            return None;
        }
        let begins = |span: &Span| {
            let today = local.date().to_datetime(span.from);
            // A time that a change of clocks leaves out or doubles is taken as the calendar does.
            let days = [Some(today), today.tomorrow().ok()].into_iter().flatten();
            let mut times = days.filter_map(|at| Some(at.to_zoned(zone.clone()).ok()?.timestamp()));
            times.find(|at| *at > now)
        };
        self.0.iter().filter_map(begins).min()
    }
}

/// From one time of the day to another, past midnight if need be. The end does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    from: Time,
    /// `None`: the midnight at the day's end.
    to: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no span of hours; write it like \"22:00-06:00\"")]
pub struct InvalidSpan(String);

const DAYS_END: &str = "24:00";

impl Span {
    fn contains(self, time: Time) -> bool {
        match self.to {
            None => self.from <= time,
            Some(to) if self.from < to => self.from <= time && time < to,
            Some(to) => self.from <= time || time < to,
        }
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let span = text.split_once('-').and_then(|(from, to)| {
            let to = if to.trim() == DAYS_END { None } else { Some(minute(to)?) };
            Some(Self { from: minute(from)?, to })
        });
        span.filter(|span| Some(span.from) != span.to).ok_or_else(|| InvalidSpan(text.to_owned()))
    }
}

/// `HH:MM`.
fn minute(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |text: &&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| Some(text).filter(digits)?.parse::<i8>().ok();
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Time| format!("{:02}:{:02}", time.hour(), time.minute());
        write!(f, "{}-{}", time(&self.from), self.to.as_ref().map_or(DAYS_END.to_owned(), time))
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(spans: &[&str]) -> Hours {
        Hours(spans.iter().map(|span| span.parse().unwrap()).collect())
    }

    fn opens(spans: &[&str], now: &str, zone: &str) -> Option<String> {
        let zone = TimeZone::get(zone).unwrap();
        let now = now.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap().timestamp();
        hours(spans).opens(now, &zone).map(|at| at.to_zoned(zone).datetime().to_string())
    }

    #[test]
    fn a_span_is_open_from_its_first_minute_to_before_its_last_and_past_midnight() {
        for (now, open) in [("21:59:59", false), ("22:00", true), ("00:00", true), ("05:59:59", true), ("06:00", false)]
        {
            let found = opens(&["22:00-06:00"], &format!("2026-03-01T{now}"), "UTC");
            assert_eq!(found.is_none(), open, "{now}: {found:?}");
        }
    }

    #[test]
    fn it_opens_at_the_next_beginning_of_any_span_in_local_time() {
        let spans = &["12:00-13:00", "22:00-24:00"];
        assert_eq!(opens(spans, "2026-03-01T08:00", "Asia/Tokyo").unwrap(), "2026-03-01T12:00:00");
        assert_eq!(opens(spans, "2026-03-01T13:00", "Asia/Tokyo").unwrap(), "2026-03-01T22:00:00");
        assert_eq!(opens(&["12:00-13:00"], "2026-03-01T13:00", "Asia/Tokyo").unwrap(), "2026-03-02T12:00:00");
        assert_eq!(opens(&[], "2026-03-01T13:00", "UTC"), None);
    }

    #[test]
    fn a_change_of_clocks_moves_it_by_no_more_than_that() {
        // At 02:00 on that day the clocks of Berlin go to 03:00.
        assert_eq!(opens(&["02:30-04:00"], "2026-03-29T01:59", "Europe/Berlin").unwrap(), "2026-03-29T03:30:00");
    }

    #[test]
    fn what_is_no_span_is_refused_and_a_good_one_is_written_as_it_was_read() {
        for bad in ["", "22:00", "22-06", "22:00-22:00", "25:00-06:00", "22:60-06:00", "2:00-06:00", "+2:00-06:00"] {
            assert!(bad.parse::<Span>().unwrap_err().to_string().contains(bad), "{bad}");
        }
        for good in ["22:00-06:00", "20:00-24:00", "00:00-24:00"] {
            assert_eq!(good.parse::<Span>().unwrap().to_string(), good);
        }
        assert_eq!(opens(&["00:00-24:00"], "2026-03-01T00:00", "UTC"), None);
        assert_eq!(serde_json::to_string(&hours(&["08:30-09:00"])).unwrap(), r#"["08:30-09:00"]"#);
    }

    #[test]
    fn of_two_closed_gates_the_later_to_open_counts() {
        let name: StoreName = "far".parse().unwrap();
        let own = StoreLimits { hours: hours(&["23:00-04:00"]), ..StoreLimits::default() };
        let limits = Limits {
            concurrency: NonZeroUsize::MIN,
            memory: NonZeroUsize::MIN,
            bandwidth: None,
            hours: hours(&["22:00-06:00"]),
            stores: BTreeMap::from([(name.clone(), own)]),
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let opens = |now| limits.opens(&name, at(now), &TimeZone::UTC);
        assert_eq!(opens("2026-03-01T12:00Z"), Some(at("2026-03-01T23:00Z")));
        assert_eq!(opens("2026-03-01T22:30Z"), Some(at("2026-03-01T23:00Z")));
        assert_eq!(opens("2026-03-01T23:30Z"), None);
    }
}
