//! How often something may happen: the generic cell rate algorithm, with the clock passed in.

use std::time::{Duration, Instant};

/// So many in each period, and at most as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 counts as 1.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// `count` in each second.
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// The time from one to the next when they come evenly.
    fn step(self) -> Duration {
        self.per / self.count.max(1)
    }
}

/// Holds one caller, or all of them together, to a [`Rate`].
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// When the next one would come if all had come evenly; in the past after a pause.
    even: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, even: None }
    }

    /// Takes one, or says after which time one is free.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let step = self.rate.step();
        let even = self.even.map_or(now, |even| even.max(now));
        // What may come at once has used up one period when the last of it has come.
        let early = self.rate.per.saturating_sub(step);
        let wait = even.saturating_duration_since(now).saturating_sub(early);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.even = Some(even + step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_follows_keeps_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(Rate::per_second(10));
        let passed = (0..50).filter(|_| pace.take(now).is_ok()).count();
        assert_eq!(passed, 10);
        let wait = pace.take(now).expect_err("used up");
        assert_eq!(wait, Duration::from_millis(100));
        assert!(pace.take(now + wait).is_ok());
        assert!(pace.take(now + wait).is_err());
    }

    #[test]
    fn over_a_long_time_no_more_pass_than_the_rate_and_one_burst() {
        let begin = Instant::now();
        let mut pace = Pace::new(Rate { count: 6, per: Duration::from_secs(60) });
        let passed = (0..36_000u32)
            .filter(|tenth| pace.take(begin + Duration::from_millis(100) * *tenth).is_ok())
            .count();
        assert!((360..=366).contains(&passed), "{passed}");
    }

    #[test]
    fn a_pause_is_worth_one_burst_and_not_more() {
        let begin = Instant::now();
        let mut pace = Pace::new(Rate::per_second(3));
        assert!(pace.take(begin).is_ok());
        let later = begin + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| pace.take(later).is_ok()).count(), 3);
    }

    #[test]
    fn a_rate_of_none_is_one() {
        let mut pace = Pace::new(Rate::per_second(0));
        assert!(pace.take(Instant::now()).is_ok());
    }
}
