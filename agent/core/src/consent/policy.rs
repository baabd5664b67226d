//! The customer's own word: LogSharingPolicy `default`, as the gate sees it.

use std::{collections::BTreeSet, time::Duration};

use super::refusal::Refusal;
use crate::redact::custom::{CustomPatterns, PatternError};

/// While working, the policy must have been read this recently.
pub const MAX_AGE: Duration = Duration::from_secs(15);
/// How often it is read while working, besides the watch.
pub const REREAD: Duration = Duration::from_secs(5);

/// Whether logs may be shared at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With a ticket's consent.
    WithConsent,
    /// Never.
    Deny,
}

/// What the customer's object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Whether logs may be shared at all.
    pub mode: Mode,
    /// Stops sharing for now, running snapshots too.
    pub suspend: bool,
    /// Components that are never collected.
    pub excluded_components: BTreeSet<String>,
    /// Records older than this are not collected, hours; none: the grant's window alone counts.
    pub max_window_hours: Option<u32>,
    /// What is replaced besides what the rules find.
    pub extra_patterns: ExtraPatterns,
}

/// The customer's own patterns, compiled once when the policy is read; or why they can't be used,
/// and then nothing is shared.
#[derive(Clone, Debug)]
pub struct ExtraPatterns {
    texts: Vec<String>,
    compiled: Result<CustomPatterns, PatternError>,
}

impl ExtraPatterns {
    /// Compiles them.
    pub fn new(texts: Vec<String>) -> Self {
        let compiled = CustomPatterns::compile(&texts);
        Self { texts, compiled }
    }

    /// The compiled patterns.
    ///
    /// # Errors
    /// The first one that can't be used.
    pub fn compiled(&self) -> Result<&CustomPatterns, &PatternError> {
        self.compiled.as_ref()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.texts.len()
    }
}

impl Default for ExtraPatterns {
    fn default() -> Self {
        Self { texts: Vec::new(), compiled: Ok(CustomPatterns::default()) }
    }
}

/// The same texts are the same patterns.
impl PartialEq for ExtraPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for ExtraPatterns {}

/// Outcome of one attempt to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It says this.
    Present(LocalPolicy),
    /// It does not exist: a decision of the customer, and effective at once.
    Absent,
    /// It exists but holds what this build does not understand: effective at once.
    Invalid,
    /// The API server did not say. What was read before counts until [`MAX_AGE`].
    Failed,
}

/// What is known of the policy, and since when. Times are readings of one monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct PolicyView {
    last: Option<(Duration, Reading)>,
}

impl PolicyView {
    /// Takes the outcome of an attempt that was begun at `begun`: what was read is no newer.
    pub fn observe(&mut self, begun: Duration, reading: Reading) {
        let newer = self.last.as_ref().is_none_or(|(at, _)| *at <= begun);
        if newer && reading != Reading::Failed {
            self.last = Some((begun, reading));
        }
    }

    /// The policy, if it is fresh and allows sharing.
    ///
    /// # Errors
    /// Absent, invalid, stale, Deny, suspended and a pattern that can't be used all refuse.
    pub fn allows(&self, now: Duration) -> Result<&LocalPolicy, Refusal> {
        let (at, reading) = self.last.as_ref().ok_or(Refusal::PolicyUnreadable)?;
        let policy = match reading {
            Reading::Present(policy) => policy,
            Reading::Absent => return Err(Refusal::PolicyAbsent),
            Reading::Invalid | Reading::Failed => return Err(Refusal::PolicyUnreadable),
        };
        match policy.mode {
            Mode::Deny => return Err(Refusal::PolicyDenies),
            Mode::WithConsent if policy.suspend => return Err(Refusal::PolicySuspended),
            Mode::WithConsent => {}
        }
        if let Err(error) = policy.extra_patterns.compiled() {
            return Err(Refusal::PolicyPatterns(error.clone()));
        }
        if now.saturating_sub(*at) >= MAX_AGE {
            return Err(Refusal::PolicyUnreadable);
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn open() -> LocalPolicy {
        LocalPolicy {
            mode: Mode::WithConsent,
            suspend: false,
            excluded_components: BTreeSet::new(),
            max_window_hours: None,
            extra_patterns: ExtraPatterns::default(),
        }
    }

    fn code(view: &PolicyView, now: Duration) -> &'static str {
        view.allows(now).map_or_else(|refusal| refusal.code(), |_| "allowed")
    }

    #[test]
    fn silence_denies_from_the_start_and_after_fifteen_seconds() {
        let mut view = PolicyView::default();
        assert_eq!(code(&view, at(0)), "PolicyUnreadable");
        view.observe(at(0), Reading::Failed);
        assert_eq!(code(&view, at(0)), "PolicyUnreadable");
        view.observe(at(100), Reading::Present(open()));
        view.observe(at(105), Reading::Failed);
        assert_eq!(code(&view, at(114)), "allowed");
        assert_eq!(code(&view, at(115)), "PolicyUnreadable");
    }

    #[test]
    fn deletion_denial_and_suspension_count_at_once() {
        let denied = LocalPolicy { mode: Mode::Deny, ..open() };
        let suspended = LocalPolicy { suspend: true, ..open() };
        let broken = ExtraPatterns::new(vec!["order [0-9]+".into(), "(".into()]);
        let broken = LocalPolicy { extra_patterns: broken, ..open() };
        for (reading, expected) in [
            (Reading::Absent, "PolicyAbsent"),
            (Reading::Invalid, "PolicyUnreadable"),
            (Reading::Present(denied), "PolicyDenies"),
            (Reading::Present(suspended), "PolicySuspended"),
            (Reading::Present(broken), "PolicyPatterns"),
        ] {
            let mut view = PolicyView::default();
            view.observe(at(1), Reading::Present(open()));
            view.observe(at(2), reading);
            assert_eq!(code(&view, at(2)), expected);
        }
    }

    #[test]
    fn a_read_that_was_begun_earlier_does_not_undo_a_later_one() {
        let mut view = PolicyView::default();
        view.observe(at(10), Reading::Absent);
        view.observe(at(9), Reading::Present(open()));
        assert_eq!(code(&view, at(10)), "PolicyAbsent");
    }
}
