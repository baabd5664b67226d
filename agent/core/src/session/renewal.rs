//! When a certificate is renewed.

use jiff::{SignedDuration, Timestamp};

use super::backoff::fraction;

/// The moment at which a certificate valid from `not_before` to `not_after` is renewed: at 50 % of
/// its life ±10 % of it, so that a fleet enrolled together doesn't renew together, and half its life
/// is left for trying again. A certificate that ends before it begins is due at once.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, random: u64) -> Timestamp {
    let life = not_after.duration_since(not_before);
    if life <= SignedDuration::ZERO {
        return not_before;
    }
    let into = life.as_secs_f64() * (0.4 + 0.2 * fraction(random));
    not_before.checked_add(SignedDuration::from_secs(into as i64)).unwrap_or(not_after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renews_between_40_and_60_percent_of_life(start in 0i64..4_000_000_000, life in 10i64..40_000_000, random: u64) {
            let begin = Timestamp::from_second(start).unwrap();
            let end = Timestamp::from_second(start + life).unwrap();
            let due = renew_at(begin, end, random).as_second() - start;
            prop_assert!(due >= life * 4 / 10 - 1 && due <= life * 6 / 10 + 1);
        }
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_due_at_once() {
        let now = Timestamp::from_second(1_000).unwrap();
        let before = Timestamp::from_second(900).unwrap();
        assert_eq!(renew_at(now, before, 7), now);
    }
}
