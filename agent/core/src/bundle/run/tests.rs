use proptest::prelude::*;

use super::*;

const EVENTS: [Event; 15] = [
    Event::Started,
    Event::Received,
    Event::PreflightPassed,
    Event::Timed,
    Event::PreImagesStored,
    Event::Begun,
    Event::Applied,
    Event::Ready,
    Event::Soaked,
    Event::Restored,
    Event::Excused,
    Event::Failed,
    Event::Stuck,
    Event::Refused,
    Event::Offered,
];

fn states(components: u32) -> Vec<State> {
    use State as S;
    let mut all = vec![
        S::Offered,
        S::Receiving,
        S::Verified,
        S::Preflighted,
        S::Scheduled,
        S::Snapshotted,
        S::Committed,
        S::RolledBack,
        S::Postponed,
        S::Held,
        S::Refused,
    ];
    for k in 0..components {
        all.extend([S::Applying(k), S::Gating(k), S::Soaking(k), S::RollingBack(k)]);
    }
    all
}

/// What the edge may report for a step: the good outcome first.
fn outcomes(step: Step) -> &'static [Event] {
    match step {
        Step::Start => &[Event::Started, Event::Refused],
        Step::Receive => &[Event::Received, Event::Refused],
        Step::Preflight => &[Event::PreflightPassed, Event::Refused],
        Step::Time => &[Event::Timed, Event::Refused],
        Step::Snapshot => &[Event::PreImagesStored, Event::Refused],
        Step::Begin => &[Event::Begun, Event::Failed],
        Step::Apply(_) => &[Event::Applied, Event::Failed],
        Step::Gate(_) => &[Event::Ready, Event::Failed],
        Step::Soak { .. } => &[Event::Soaked, Event::Failed],
        Step::Restore(0) => &[Event::Restored, Event::Stuck, Event::Excused],
        Step::Restore(_) => &[Event::Restored, Event::Stuck],
        Step::None => &[],
    }
}

#[test]
fn every_outcome_of_every_step_is_legal_and_everything_else_is_not() {
    for components in 1..4 {
        for state in states(components) {
            let legal = outcomes(state.step(components));
            for event in EVENTS {
                let reoffered = state.is_offered_again() && event == Event::Offered;
                assert_eq!(
                    next(&state, components, event).is_ok(),
                    legal.contains(&event) || reoffered,
                    "{state} {event:?}"
                );
            }
        }
    }
}

#[test]
fn the_good_way_goes_through_every_component_once_and_commits() {
    let mut state = State::Offered;
    let mut seen = vec![];
    while !state.ended() {
        seen.push(state.to_string());
        state = next(&state, 2, outcomes(state.step(2))[0]).unwrap().to;
    }
    assert_eq!(state, State::Committed);
    insta::assert_snapshot!(seen.join(" "), @"Offered Receiving Verified Preflighted Scheduled Snapshotted Applying(0) Gating(0) Soaking(0) Applying(1) Gating(1) Soaking(1)");
}

#[test]
fn a_component_index_outside_the_plan_is_refused() {
    for state in [State::Applying(2), State::Gating(2), State::Soaking(9), State::RollingBack(2)] {
        for event in EVENTS {
            assert!(next(&state, 2, event).is_err(), "{state} {event:?}");
        }
    }
    assert!(next(&State::Soaking(u32::MAX), 2, Event::Soaked).is_err());
}

#[test]
fn names_and_states_are_one_to_one() {
    for state in states(3) {
        assert_eq!(State::parse(state.name(), state.component()), Some(state));
    }
    assert_eq!(State::parse("Applying", None), None);
    assert_eq!(State::parse("Committed", Some(0)), None);
    assert_eq!(State::parse("", None), None);
}

#[test]
fn only_failed_runs_quarantine_their_digest() {
    let barred: Vec<String> = states(2)
        .into_iter()
        .filter(|state| offer(Some(state)) == Offer::Quarantined)
        .map(|state| state.to_string())
        .collect();
    assert_eq!(barred, ["RolledBack", "Held"]);
    assert_eq!(offer(None), Offer::New);
    assert_eq!(offer(Some(&State::Committed)), Offer::Done);
    assert_eq!(offer(Some(&State::Refused)), Offer::Resume);
    assert_eq!(offer(Some(&State::Postponed)), Offer::Resume);
}

proptest! {
    /// A process is killed at any moment: before its step, after it, or after the new state was
    /// persisted. Whatever the outcomes, the run ends, and nothing is applied before the
    /// pre-images are stored.
    #[test]
    fn a_run_that_is_killed_at_any_instant_ends(
        components in 1u32..5,
        script in prop::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 0..60),
    ) {
        let mut script = script.into_iter();
        let mut persisted = State::Offered;
        let mut pre_images = false;
        let mut applied = vec![0u32; components as usize];
        let mut steps = 0;
        while !persisted.ended() {
            steps += 1;
            prop_assert!(steps < 200, "does not end");
            let (pick, die_before, die_after) = script.next().unwrap_or((0, false, false));
            if die_before {
                continue;
            }
            let step = persisted.step(components);
            match step {
                Step::Snapshot => pre_images = true,
                Step::Apply(k) => {
                    prop_assert!(pre_images);
                    applied[k as usize] += 1;
                }
                Step::Restore(k) => applied[k as usize] = 0,
                _ => {}
            }
            if die_after {
                continue;
            }
            let event = outcomes(step)[pick % outcomes(step).len()];
            persisted = next(&persisted, components, event).unwrap().to;
        }
        match persisted {
            State::Committed => prop_assert!(applied.iter().all(|n| *n > 0)),
            State::RolledBack | State::Postponed => {
                prop_assert!(applied.iter().all(|n| *n == 0));
            }
            State::Refused => prop_assert!(applied.iter().all(|n| *n == 0)),
            State::Held => prop_assert!(pre_images),
            other => prop_assert!(false, "ended in {other}"),
        }
    }
}
