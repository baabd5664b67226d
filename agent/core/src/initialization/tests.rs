//! What each situation is called, and what holds in any order of situations.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds as i64).unwrap()
}

fn obstacle(check: &str) -> Obstacle {
    Obstacle { check: check.into(), detail: format!("{check}: what was seen; what to do") }
}

/// An agent that was installed a moment ago.
fn installed() -> Facts {
    Facts {
        looked: false,
        failing: None,
        enrolled: false,
        connected: false,
        trouble: None,
        release: FirstRelease::Awaited,
        rerun: None,
    }
}

fn connected() -> Facts {
    Facts { looked: true, enrolled: true, connected: true, ..installed() }
}

fn undone() -> Facts {
    let why = "release r1 RolledBack: operator never became ready".to_owned();
    Facts { release: FirstRelease::Ended(why), ..connected() }
}

fn first() -> Record {
    Record::first(at(0), None)
}

#[test]
fn an_installation_goes_through_its_phases_to_the_first_release() {
    let mut record = first();
    let steps = [
        (installed(), Phase::Preflight, "preflight has its first look"),
        (Facts { looked: true, ..installed() }, Phase::Enrollment, ""),
        (Facts { looked: true, enrolled: true, ..installed() }, Phase::Connection, ""),
        (connected(), Phase::FirstRelease, "waiting for a release of the control plane"),
    ];
    for (facts, phase, message) in steps {
        record = record.observe(&facts, at(1));
        assert_eq!((record.phase, record.message.as_str()), (phase, message));
        assert_eq!((record.state, record.attempt), (State::Running, 1));
    }
    let running = FirstRelease::Running("release r1 Applying operator".into());
    record = record.observe(&Facts { release: running, ..connected() }, at(2));
    assert_eq!(record.message, "release r1 Applying operator");
    record = record.observe(&Facts { release: FirstRelease::Committed, ..connected() }, at(3));
    assert_eq!((record.state, record.ended_at), (State::Initialized, Some(at(3))));
    let told = record.to_proto();
    assert_eq!((told.state.as_str(), told.phase.as_str()), ("Initialized", ""));
}

#[test]
fn what_keeps_it_from_connecting_is_the_failing_check() {
    let facts = Facts { looked: true, failing: Some(obstacle("TCP")), ..installed() };
    let record = first().observe(&facts, at(1));
    assert_eq!((record.phase, record.obstacle), (Phase::Preflight, Some(obstacle("TCP"))));
    let told = first().observe(&facts, at(1)).to_proto();
    assert_eq!(told.failing_check, "TCP");
    assert_eq!(told.message, "TCP: what was seen; what to do");
    // Connected all the same: then it is not what stands in the way.
    let record = first().observe(&Facts { failing: Some(obstacle("nodes")), ..connected() }, at(1));
    assert_eq!((record.phase, record.obstacle), (Phase::FirstRelease, None));
}

#[test]
fn a_first_release_that_was_undone_fails_the_installation_at_once() {
    let record = first().observe(&undone(), at(60));
    assert_eq!((record.state, record.ended_at), (State::Failed, Some(at(60))));
    assert_eq!(record.to_proto().failing_check, "release");
    assert!(!record.wants_ticket(), "nobody has tried again");
}

#[test]
fn an_attempt_fails_when_its_time_is_up_and_keeps_why() {
    let facts = Facts { looked: true, failing: Some(obstacle("DNS")), ..installed() };
    let before = at(ATTEMPT.as_secs() - 1);
    let record = first().observe(&facts, before);
    assert_eq!(record.state, State::Running);
    assert_eq!(record.remaining(before), Duration::from_secs(1));
    let record = record.observe(&facts, at(ATTEMPT.as_secs()));
    assert_eq!(record.state, State::Failed);
    // The network comes back, and no release with it: that is not why this attempt failed.
    let later = record.observe(&connected(), at(ATTEMPT.as_secs() + 9));
    assert_eq!(later, record);
    assert_eq!(later.to_proto().failing_check, "DNS");
}

#[test]
fn an_attempt_that_ran_out_while_the_agent_was_away_is_judged_by_what_it_finds() {
    let late = at(2 * ATTEMPT.as_secs());
    let begun = first().observe(&installed(), late);
    assert_eq!(begun.state, State::Running);
    let found = Facts { looked: true, failing: Some(obstacle("TCP")), ..installed() };
    let over = begun.observe(&found, late);
    assert_eq!((over.state, over.obstacle), (State::Failed, Some(obstacle("TCP"))));
    let good = Facts { release: FirstRelease::Committed, ..connected() };
    assert_eq!(begun.observe(&good, late).state, State::Initialized);
}

#[test]
fn a_failed_installation_that_comes_good_is_initialized() {
    let failed = first().observe(&undone(), at(60));
    let good = Facts { release: FirstRelease::Committed, ..connected() };
    assert_eq!(failed.observe(&good, at(90)).state, State::Initialized);
}

#[test]
fn a_cluster_that_runs_a_release_is_initialized_by_an_agent_that_never_kept_a_record() {
    let good = Facts { release: FirstRelease::Committed, ..installed() };
    assert_eq!(first().observe(&good, at(0)).state, State::Initialized);
}

#[test]
fn only_a_rerun_that_fails_asks_for_a_ticket() {
    let failed = first().observe(&undone(), at(60));
    let rerun = failed.observe(&Facts { rerun: Some("again".into()), ..undone() }, at(100));
    assert_eq!((rerun.attempt, rerun.state), (2, State::Running));
    assert_eq!(rerun.started_at, at(100));
    // The old release is no news: another one may come until the time is up.
    let again = Facts { rerun: Some("again".into()), ..undone() };
    let waiting = rerun.observe(&again, at(200));
    assert_eq!((waiting.state, waiting.wants_ticket()), (State::Running, false));
    let over = waiting.observe(&again, at(100 + ATTEMPT.as_secs()));
    assert_eq!(over.state, State::Failed);
    assert!(over.wants_ticket() && over.to_proto().wants_ticket);
}

#[test]
fn a_wish_is_one_rerun_and_one_that_came_too_early_is_none() {
    let wish = Facts { rerun: Some("1".into()), ..undone() };
    // It was there when the agent was installed.
    let failed = Record::first(at(0), Some("1".into())).observe(&wish, at(60));
    assert_eq!(failed.observe(&wish, at(61)), failed);
    // It came while the attempt ran.
    let failed = first().observe(&Facts { rerun: Some("1".into()), ..connected() }, at(1));
    let failed = failed.observe(&wish, at(60));
    assert_eq!((failed.attempt, failed.state), (1, State::Failed));
    assert_eq!(failed.observe(&wish, at(61)), failed);
    // And taking it away is no wish, nor is writing the same again.
    let gone = failed.observe(&undone(), at(62));
    assert_eq!(gone.observe(&wish, at(63)).attempt, 1);
    let other = Facts { rerun: Some("2".into()), ..undone() };
    assert_eq!(gone.observe(&other, at(64)).attempt, 2);
}

#[test]
fn a_request_begins_one_attempt_however_often_it_is_seen() {
    assert_eq!(first().rerun("req-1", at(9)), Err(RerunRefused::StillRunning(1)));
    let failed = first().observe(&undone(), at(60));
    let second = failed.rerun("req-1", at(70)).unwrap();
    assert_eq!((second.attempt, second.state), (2, State::Running));
    assert_eq!(second.rerun("req-1", at(71)), Ok(second.clone()));
    let over = second.observe(&undone(), at(70 + ATTEMPT.as_secs()));
    assert_eq!(
        over.rerun("req-1", at(9_999)),
        Ok(over.clone()),
        "it is that attempt, which failed"
    );
    assert_eq!(over.rerun("req-2", at(9_999)).unwrap().attempt, 3);
    let good = Facts { release: FirstRelease::Committed, ..connected() };
    let good = over.observe(&good, at(10_000));
    assert_eq!(good.rerun("req-3", at(10_001)), Err(RerunRefused::Initialized));
}

#[test]
fn a_clock_that_is_set_back_does_not_make_an_attempt_endless() {
    let late = Record::first(at(1_000_000), None);
    let record = late.observe(&connected(), at(0));
    assert_eq!(record.started_at, at(0));
    assert_eq!(record.observe(&connected(), at(ATTEMPT.as_secs())).state, State::Failed);
}

fn facts() -> impl Strategy<Value = Facts> {
    let release = prop_oneof![
        4 => Just(FirstRelease::Awaited),
        4 => "[a-z]{1,4}".prop_map(FirstRelease::Running),
        3 => "[a-z]{1,4}".prop_map(FirstRelease::Ended),
        1 => Just(FirstRelease::Committed),
    ];
    let failing = prop::option::of("[a-z]{1,4}".prop_map(|check| obstacle(&check)));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (flags, failing, prop::option::of("[a-z]{1,4}"), release, prop::option::of("[12]")).prop_map(
        |((looked, enrolled, connected), failing, trouble, release, rerun)| Facts {
            looked,
            failing,
            enrolled,
            connected,
            trouble,
            release,
            rerun,
        },
    )
}

proptest! {
    #[test]
    fn in_any_order_of_situations_attempts_count_up_and_ends_are_ends(
        steps in prop::collection::vec((facts(), 0u64..2_000, prop::option::of("req-[12]")), 1..40),
    ) {
        let mut record = first();
        let mut now = 0;
        for (facts, passed, request) in steps {
            now += passed;
            let before = record.clone();
            if let Some(request) = request
                && let Ok(next) = before.rerun(&request, at(now))
            {
                prop_assert!(next == before || before.state == State::Failed);
                record = next;
            }
            let asked = record.clone();
            record = asked.observe(&facts, at(now));
            prop_assert_eq!(record.observe(&facts, at(now)), record.clone(), "seeing it again");
            prop_assert_eq!(record.ended_at.is_some(), record.state != State::Running);
            prop_assert!(record.attempt >= before.attempt && record.attempt <= before.attempt + 2);
            if record.attempt > asked.attempt {
                prop_assert!(asked.state == State::Failed && facts.rerun != asked.rerun);
            }
            if before.state == State::Initialized {
                prop_assert_eq!(&record, &before);
            }
            if facts.release == FirstRelease::Committed {
                prop_assert_eq!(record.state, State::Initialized);
            }
            prop_assert!(!record.wants_ticket() || record.attempt > 1);
            let knows = facts.looked || facts.connected;
            let over = record.remaining(at(now)).is_zero();
            prop_assert!(record.state != State::Running || !over || !knows);
            prop_assert_eq!(record.wants_ticket(), record.to_proto().wants_ticket);
        }
    }
}
