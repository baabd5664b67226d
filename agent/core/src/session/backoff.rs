//! When to dial again, as a function of how it failed before and of randomness that is passed in.
//!
//! After an outage: full jitter up to a ceiling, which is the time waited so far, between a second and
//! two minutes. So an agent is back no later after the control plane than that was away, or a second.
//! A ceiling that doubled with each failure was twice the outage or more before it was half over: of
//! agents whose server was away for a second, one in a hundred came back after 4.4 s (computed; now
//! 0.9 s, for 2.7 dials instead of 2.3, and 12 instead of 7 in the first minute of a long outage).
//!
//! After a refusal, which time alone seldom cures: a ceiling that doubles, and at least half of it.

use std::time::Duration;

/// A session has to last this long before the failures before it are forgotten. Resetting on the
/// mere success of a dial would let a server that accepts and closes be dialled every second.
pub const STABLE_AFTER: Duration = Duration::from_secs(600);

/// Lowest and highest ceiling after an outage.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// First and highest ceiling after a refusal, which another try seldom cures.
const REFUSAL: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// Shortest wait, whatever chance says: a tick that fails a dial must not make the next one due.
const LEAST: Duration = Duration::from_millis(10);

/// What kind of failure it was, which decides how soon to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Something between the agent and the control plane is down: full jitter up to 1 s at first, and
    /// up to 120 s in the end.
    Outage,
    /// The control plane, or a rule of the agent, said no: 30 s to 15 min, never less than half the
    /// ceiling.
    Refusal,
}

/// Remembers failures and says how long to wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    refusals: u32,
    /// All waits after outages together, up to the highest ceiling.
    waited: Duration,
}

impl Backoff {
    /// The wait after one more failure. `random` is uniform over all of `u64`.
    pub fn next(&mut self, schedule: Schedule, random: u64) -> Duration {
        match schedule {
            Schedule::Outage => {
                let ceiling = self.waited.clamp(OUTAGE.0, OUTAGE.1);
                let wait = ceiling.mul_f64(fraction(random)).max(LEAST);
                self.waited = (self.waited + wait).min(OUTAGE.1);
                wait
            }
            Schedule::Refusal => {
                let doublings = self.refusals.min(16);
                self.refusals = self.refusals.saturating_add(1);
                let ceiling = REFUSAL.0.saturating_mul(1 << doublings).min(REFUSAL.1);
                ceiling.mul_f64(0.5 + fraction(random) / 2.0)
            }
        }
    }

    /// Forgets past failures.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A uniform `u64` as a number in `[0, 1)`.
pub(super) fn fraction(random: u64) -> f64 {
    // 53 bits are what an f64 holds exactly.
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// `duration` ±10 %.
pub(super) fn about(duration: Duration, random: u64) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fraction(random))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_chance_makes_the_wait_nothing() {
        for random in [0, 1, 2048] {
            assert_eq!(Backoff::default().next(Schedule::Outage, random), LEAST);
        }
    }

    #[test]
    fn the_ceiling_is_what_was_waited_between_a_second_and_two_minutes() {
        let mut backoff = Backoff::default();
        let most: Vec<u64> = (0..10)
            .map(|_| backoff.next(Schedule::Outage, u64::MAX).as_secs_f64().ceil() as u64)
            .collect();
        assert_eq!(most, [1, 1, 2, 4, 8, 16, 32, 64, 120, 120]);
    }

    #[test]
    fn a_refusal_waits_at_least_half_its_ceiling() {
        let mut backoff = Backoff::default();
        let least: Vec<u64> =
            (0..7).map(|_| backoff.next(Schedule::Refusal, 0).as_secs()).collect();
        assert_eq!(least, [15, 30, 60, 120, 240, 450, 450]);
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            backoff.next(Schedule::Outage, u64::MAX);
        }
        backoff.reset();
        assert!(backoff.next(Schedule::Outage, u64::MAX) <= Duration::from_secs(1));
    }

    #[test]
    fn an_outage_after_refusals_begins_at_the_floor() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next(Schedule::Refusal, u64::MAX);
        }
        assert!(backoff.next(Schedule::Outage, u64::MAX) <= OUTAGE.0);
    }

    proptest! {
        #[test]
        fn an_agent_is_back_no_later_than_the_outage_was_long_or_a_second(
            away in 0u64..120_000, rolls in prop::collection::vec(any::<u64>(), 1..200)
        ) {
            let (away, mut backoff) = (Duration::from_millis(away), Backoff::default());
            let mut now = Duration::ZERO;
            // A dial that fails at once: those that take longer only make the ceiling lower.
            for random in rolls {
                now += backoff.next(Schedule::Outage, random);
                if now >= away {
                    prop_assert!(now - away <= away.max(OUTAGE.0));
                    return Ok(());
                }
            }
        }

        #[test]
        fn waits_stay_in_their_bounds(rolls in prop::collection::vec((any::<bool>(), any::<u64>()), 0..100)) {
            let mut backoff = Backoff::default();
            for (refused, random) in rolls {
                let schedule = if refused { Schedule::Refusal } else { Schedule::Outage };
                let wait = backoff.next(schedule, random);
                match schedule {
                    Schedule::Outage => prop_assert!(wait <= OUTAGE.1),
                    Schedule::Refusal => prop_assert!(wait >= REFUSAL.0 / 2 && wait <= REFUSAL.1),
                }
            }
        }
    }
}
