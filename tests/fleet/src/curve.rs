//! From moments to figures.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::record::{Moment, What};

/// How many of a kind happened in each second after `begin`.
pub fn per_second(moments: &[Moment], what: What, begin: Instant) -> Vec<u32> {
    let mut counts = Vec::new();
    for moment in moments.iter().filter(|moment| moment.what == what && moment.at >= begin) {
        let second = moment.at.duration_since(begin).as_secs() as usize;
        if counts.len() <= second {
            counts.resize(second + 1, 0);
        }
        counts[second] += 1;
    }
    counts
}

/// For each agent that connected since `begin`, how long after `back` that was the first time;
/// sorted.
pub fn comebacks(moments: &[Moment], begin: Instant, back: Instant) -> Vec<Duration> {
    let mut first: HashMap<u32, Instant> = HashMap::new();
    for moment in moments.iter().filter(|m| m.what == What::Connected && m.at >= begin) {
        first.entry(moment.agent).or_insert(moment.at);
    }
    let mut times: Vec<_> = first.values().map(|at| at.saturating_duration_since(back)).collect();
    times.sort_unstable();
    times
}

/// The value that `percent` of them don't exceed; zero when there are none.
pub fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(agent: u32, what: What, at: Instant) -> Moment {
        Moment { agent, what, at }
    }

    #[test]
    fn moments_fall_into_the_second_they_happened_in() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let moments = [
            moment(1, What::Dialled, at(0)),
            moment(2, What::Dialled, at(999)),
            moment(1, What::Connected, at(1000)),
            moment(3, What::Dialled, at(2500)),
        ];
        assert_eq!(per_second(&moments, What::Dialled, begin), [2, 0, 1]);
        assert_eq!(per_second(&moments, What::Dialled, at(500)), [1, 0, 1]);
    }

    #[test]
    fn an_agent_comes_back_once() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let moments = [
            moment(1, What::Connected, at(300)),
            moment(2, What::Connected, at(100)),
            moment(1, What::Connected, at(900)),
        ];
        let times = comebacks(&moments, begin, at(50));
        assert_eq!(times, [Duration::from_millis(50), Duration::from_millis(250)]);
        assert_eq!(percentile(&times, 50.0), Duration::from_millis(50));
        assert_eq!(percentile(&times, 99.0), Duration::from_millis(250));
        assert_eq!(percentile(&[], 99.0), Duration::ZERO);
    }
}
