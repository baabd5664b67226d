use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn index(class: ReleaseClass, not_before: Option<&str>, apply_by: Option<&str>) -> ReleaseIndex {
    ReleaseIndex {
        schema: 1,
        release_id: "1".into(),
        sequence: 1,
        class,
        not_before: not_before.map(at),
        apply_by: apply_by.map(at),
        audience: vec![],
        agent_versions: Default::default(),
        kubernetes_versions: Default::default(),
        from: vec![],
        blocked_from: vec![],
        components: vec![],
        deletes: vec![],
        narrows: vec![],
    }
}

#[test]
fn critical_releases_and_those_without_a_date_start_at_once() {
    let (now, apply_by) = (at("2026-11-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
    let later = Some("2026-12-01T00:00:00Z");
    assert_eq!(due(&index(ReleaseClass::Critical, later, None), apply_by, 7, now), now);
    assert_eq!(due(&index(ReleaseClass::Weekly, None, None), apply_by, 7, now), now);
}

#[test]
fn past_apply_by_the_spread_is_ignored() {
    let now = at("2026-11-10T00:00:00Z");
    let late = index(ReleaseClass::Quarterly, Some("2026-11-01T00:00:00Z"), None);
    assert!(due(&late, at("2026-11-02T00:00:00Z"), 12_345, now) <= now);
}

#[test]
fn without_a_date_a_release_has_to_be_in_by_the_end_of_its_quarter() {
    for (offered, not_before, by) in [
        ("2026-11-22T10:00:00Z", None, "2027-01-01T00:00:00Z"),
        ("2026-03-31T23:59:59Z", None, "2026-04-01T00:00:00Z"),
        ("2026-04-01T00:00:00Z", None, "2026-07-01T00:00:00Z"),
        ("2026-06-30T00:00:00Z", Some("2026-07-02T00:00:00Z"), "2026-10-01T00:00:00Z"),
        ("2026-08-30T00:00:00Z", Some("2026-02-02T00:00:00Z"), "2026-10-01T00:00:00Z"),
    ] {
        let index = index(ReleaseClass::Weekly, not_before, None);
        assert_eq!(apply_by(&index, at(offered)), at(by), "offered {offered}");
    }
    let dated = index(ReleaseClass::Weekly, None, Some("2026-11-30T00:00:00Z"));
    assert_eq!(apply_by(&dated, at("2026-12-22T10:00:00Z")), at("2026-11-30T00:00:00Z"));
    assert_eq!(quarter_end(Timestamp::MAX), Timestamp::MAX);
}

#[test]
fn whatever_is_not_committed_in_time_is_overdue() {
    let by = at("2027-01-01T00:00:00Z");
    let before = by - SignedDuration::from_secs(1);
    for state in
        [State::Scheduled, State::Applying(0), State::RolledBack, State::Held, State::Refused]
    {
        assert!(overdue(&state, by, by), "{state}");
        assert!(!overdue(&state, by, before), "{state}");
    }
    assert!(!overdue(&State::Committed, by, by));
}

proptest! {
    #[test]
    fn the_spread_never_starts_early_and_never_reaches_apply_by(seed: u64, hours in 1i64..1000) {
        let not_before = at("2026-11-01T00:00:00Z");
        let apply_by = not_before + SignedDuration::from_hours(hours);
        let index = index(ReleaseClass::Quarterly, Some("2026-11-01T00:00:00Z"), None);
        let due = due(&index, apply_by, seed, not_before);
        prop_assert!(due >= not_before && due < apply_by);
        prop_assert!(due.duration_since(not_before) <= MAX_SPREAD);
    }

    #[test]
    fn the_default_is_always_ahead_and_within_a_quarter(seconds in 0i64..4_000_000_000) {
        let offered = Timestamp::from_second(seconds).unwrap();
        let by = apply_by(&index(ReleaseClass::Weekly, None, None), offered);
        prop_assert!(by > offered);
        prop_assert!(by.duration_since(offered) <= SignedDuration::from_hours(24 * 92));
    }
}
