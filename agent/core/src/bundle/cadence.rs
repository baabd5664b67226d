//! Cadence: when a release may start, by when it has to be in, and when it is overdue.
//!
//! The class and the dates are signed in the index; the record of the run keeps what they mean for
//! this cluster. Pure functions: the edge waits, and says what is late.

use jiff::{SignedDuration, Timestamp, Zoned, civil::Date, tz::TimeZone};

use super::{
    index::{ReleaseClass, ReleaseIndex},
    run::State,
};

/// Longest time over which clusters are spread after `not_before`.
pub const MAX_SPREAD: SignedDuration = SignedDuration::from_hours(4);

/// By when a release that was offered at `offered_at` has to be in: as its index says, else by the
/// end of the quarter (UTC) in which it may begin. That is the product's promise: patches come as
/// soon as possible, and at the end of the quarter at the latest.
pub fn apply_by(index: &ReleaseIndex, offered_at: Timestamp) -> Timestamp {
    let begins = index.not_before.map_or(offered_at, |not_before| not_before.max(offered_at));
    index.apply_by.unwrap_or_else(|| quarter_end(begins))
}

/// The first instant after the quarter (UTC) that holds `at`; at the end of the calendar, `at` itself.
fn quarter_end(at: Timestamp) -> Timestamp {
    let date = at.to_zoned(TimeZone::UTC).date();
    let (year, month) = match (date.month() - 1) / 3 {
        3 => (date.year().saturating_add(1), 1),
        quarter => (date.year(), quarter * 3 + 4),
    };
    let next = Date::new(year, month, 1).and_then(|date| date.to_zoned(TimeZone::UTC));
    next.as_ref().map_or(at, Zoned::timestamp)
}

/// When a release may start, seen at `now`. Critical releases start at once. Others wait for
/// `not_before` plus a share of [`MAX_SPREAD`] (at most half of the time until `apply_by`) that
/// `seed`, a number of this cluster's own, picks; past `apply_by` the spread is ignored. Without
/// `not_before` there is nothing to spread and it starts at once.
pub fn due(index: &ReleaseIndex, apply_by: Timestamp, seed: u64, now: Timestamp) -> Timestamp {
    let (Some(not_before), false) = (index.not_before, index.class == ReleaseClass::Critical)
    else {
        return now;
    };
    if now >= apply_by {
        return not_before.min(now);
    }
    let window = (apply_by.duration_since(not_before) / 2).min(MAX_SPREAD);
    let seconds = u64::try_from(window.as_secs()).unwrap_or(0);
    let share = if seconds == 0 { 0 } else { seed % seconds };
    let share = SignedDuration::from_secs(i64::try_from(share).unwrap_or(0));
    not_before.saturating_add(share).unwrap_or(not_before)
}

/// Whether a wanted release is late. One that failed here is late too: the cluster still lacks what
/// it was to have by then, until a higher release is wanted.
pub fn overdue(state: &State, apply_by: Timestamp, now: Timestamp) -> bool {
    *state != State::Committed && now >= apply_by
}

#[cfg(test)]
mod tests;
