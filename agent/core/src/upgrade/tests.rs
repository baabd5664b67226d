use jiff::SignedDuration;

use super::*;

const LASTS: Duration = Duration::from_secs(600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + seconds)
}

/// A trial that began at second 0 and is looked at `seconds` later by the guard that began it.
fn look(seconds: u64) -> Look {
    Look {
        phase: Phase::Trial,
        now: at(i64::try_from(seconds).unwrap()),
        deadline: Some(at(600)),
        lasts: LASTS,
        watched: Duration::from_secs(seconds),
        restarts: 0,
        handovers: 0,
    }
}

#[test]
fn each_step_belongs_to_one_party_and_an_end_is_an_end() {
    let mut steps = vec![];
    for party in [Party::Agent, Party::Guard] {
        for from in Phase::ALL {
            for to in Phase::ALL.into_iter().filter(|to| may(party, from, *to)) {
                assert!(!from.ended(), "{from} ended");
                steps.push(format!("{party:?}: {from} {to}"));
            }
        }
    }
    assert_eq!(
        steps,
        [
            "Agent: Proposed Withdrawn",
            "Agent: Trial Committed",
            "Guard: Proposed Trial",
            "Guard: Trial Reverting",
            "Guard: Reverting Reverted",
        ]
    );
}

#[test]
fn names_and_phases_are_one_to_one() {
    for phase in Phase::ALL {
        assert_eq!(Phase::parse(phase.name()), Some(phase));
    }
    assert_eq!(Phase::parse(""), None);
    for cause in [Cause::DeadlinePassed, Cause::CrashLoop, Cause::Flapping] {
        assert_eq!(Cause::parse(cause.name()), cause);
    }
    assert_eq!(Cause::parse("of a later build"), Cause::DeadlinePassed);
}

#[test]
fn the_guard_waits_for_the_deadline_and_no_longer() {
    assert_eq!(guard(&Look { phase: Phase::Proposed, deadline: None, ..look(0) }), Move::Begin);
    assert_eq!(guard(&look(0)), Move::Rest);
    assert_eq!(guard(&look(599)), Move::Rest);
    assert_eq!(guard(&look(600)), Move::Revert(Cause::DeadlinePassed));
    assert_eq!(guard(&Look { phase: Phase::Reverting, ..look(601) }), Move::Restore);
    for phase in Phase::ALL.into_iter().filter(|phase| phase.ended()) {
        assert_eq!(guard(&Look { phase, ..look(9999) }), Move::Rest);
    }
}

#[test]
fn a_process_that_keeps_ending_or_a_lease_that_wanders_ends_the_trial_at_once() {
    assert_eq!(guard(&Look { restarts: MAX_RESTARTS - 1, ..look(30) }), Move::Rest);
    let crashing = Look { restarts: MAX_RESTARTS, ..look(30) };
    assert_eq!(guard(&crashing), Move::Revert(Cause::CrashLoop));
    assert_eq!(guard(&Look { handovers: MAX_HANDOVERS, ..look(30) }), Move::Rest);
    let wandering = Look { handovers: MAX_HANDOVERS + 1, ..look(30) };
    assert_eq!(guard(&wandering), Move::Revert(Cause::Flapping));
}

#[test]
fn a_guard_that_was_away_over_the_deadline_gives_the_agent_time_to_show_itself() {
    let back = |watched| Look { watched: Duration::from_secs(watched), ..look(7200) };
    assert_eq!(guard(&back(0)), Move::Rest);
    assert_eq!(guard(&back(119)), Move::Rest);
    assert_eq!(guard(&back(120)), Move::Revert(Cause::DeadlinePassed));
    // A trial that is shorter than that time is not made longer.
    let short = Look { lasts: Duration::from_secs(20), ..back(20) };
    assert_eq!(guard(&short), Move::Revert(Cause::DeadlinePassed));
}

#[test]
fn a_clock_that_is_set_makes_no_trial_endless_and_none_end_in_its_first_moments() {
    let years = SignedDuration::from_hours(24 * 3650);
    let back = |watched: u64| Look { now: at(0) - years, ..look(watched) };
    assert_eq!(guard(&back(599)), Move::Rest);
    assert_eq!(guard(&back(600)), Move::Revert(Cause::DeadlinePassed));
    assert_eq!(guard(&Look { now: at(0) + years, ..look(119) }), Move::Rest);
    // A record without a deadline is over when it has been watched for long enough.
    assert_eq!(guard(&Look { deadline: None, ..look(60) }), Move::Rest);
}

#[test]
fn only_the_new_version_commits_and_only_with_its_state_and_a_session_that_holds() {
    let hold = Duration::from_secs(30);
    let good = Standing { is_new: true, has_state: true, session: Some(hold) };
    assert_eq!(agent(Phase::Trial, &good, hold), Verdict::Commit);
    for standing in [
        Standing { is_new: false, ..good },
        Standing { has_state: false, ..good },
        Standing { session: None, ..good },
        Standing { session: Some(Duration::from_secs(29)), ..good },
    ] {
        assert!(matches!(agent(Phase::Trial, &standing, hold), Verdict::Wait(_)), "{standing:?}");
    }
    for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Trial) {
        assert_ne!(agent(phase, &good, hold), Verdict::Commit, "{phase}");
    }
    assert_eq!(agent(Phase::Committed, &good, hold), Verdict::Passed);
    assert_eq!(agent(Phase::Withdrawn, &good, hold), Verdict::Over);
    // What it failed by it can't judge itself.
    assert!(matches!(agent(Phase::Reverted, &good, hold), Verdict::Wait(_)));
    let former = Standing { is_new: false, ..good };
    assert_eq!(agent(Phase::Reverted, &former, hold), Verdict::Over);
}

#[test]
fn a_version_is_not_blamed_for_a_network_that_fails_the_former_one_too() {
    let of = |cause, connected, looked| blame(cause, connected, Duration::from_secs(looked), LASTS);
    assert_eq!(of(Cause::DeadlinePassed, true, 0), Blame::Version);
    assert_eq!(of(Cause::DeadlinePassed, false, 179), Blame::Open);
    assert_eq!(of(Cause::DeadlinePassed, false, 180), Blame::Network);
    assert_eq!(of(Cause::Flapping, false, 180), Blame::Network);
    assert_eq!(of(Cause::CrashLoop, false, 0), Blame::Version);
    let short = Duration::from_secs(20);
    assert_eq!(blame(Cause::DeadlinePassed, false, short, short), Blame::Network);
}
