//! The signed floor, against real TUF metadata signed in the test.

use jiff::Timestamp;
use mendix_agent_core::bundle::floor::{FILE, KnownFloor, ReleaseFloor, SCHEMA};

use super::{HOUR, StateError, TrustError, TrustState, accepted, initial, now, repository::Repo};

fn floor(serial: u64, sequence: u64, signed_at: Timestamp) -> Vec<u8> {
    ReleaseFloor { schema: SCHEMA, serial, signed_at, sequence }.canonical_bytes()
}

#[tokio::test]
async fn a_repository_without_a_floor_is_not_accepted_and_zero_never_assumed() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    let (state, releases) = accepted(&initial(&repo), &repo.publish(), now()).await;
    let error = releases.floor(&state).await.unwrap_err();
    assert!(matches!(error, TrustError::NoFloor) && !error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_floor_is_known_from_then_on_and_neither_goes_back_nor_sinks() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target(FILE, &floor(2, 12, now()));
    let (state, releases) = accepted(&initial(&repo), &repo.publish(), now()).await;
    let state = releases.floor(&state).await.unwrap();
    assert_eq!(state.floor(), Some(KnownFloor { serial: 2, sequence: 12 }));
    for (serial, sequence) in [(1, 12), (3, 11)] {
        repo.target(FILE, &floor(serial, sequence, now()));
        let (next, releases) = accepted(&state, &repo.publish(), now()).await;
        let error = releases.floor(&next).await.unwrap_err();
        let back = matches!(error, TrustError::Fetched(StateError::Floor(_)));
        assert!(back && !error.is_transient(), "{error:?}");
    }
    repo.target(FILE, &floor(3, 15, now()));
    let (next, releases) = accepted(&state, &repo.publish(), now()).await;
    let next = releases.floor(&next).await.unwrap();
    assert_eq!(next.floor(), Some(KnownFloor { serial: 3, sequence: 15 }));
    // It outlives a restart, with the rest of the state.
    let read = TrustState::from_entries(&next.to_entries()).unwrap();
    assert_eq!(read.floor(), next.floor());
}

#[tokio::test]
async fn the_date_of_a_floor_is_past_also_for_a_clock_that_was_turned_back() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target(FILE, &floor(1, 1, now()));
    let years_ago = now() - 24 * 365 * HOUR;
    let (state, releases) = accepted(&initial(&repo), &repo.publish(), years_ago).await;
    let state = releases.floor(&state).await.unwrap();
    assert_eq!(state.judged_at(years_ago), now());
}

#[tokio::test]
async fn a_floor_that_is_signed_and_unusable_is_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    for bytes in [b"{}".to_vec(), floor(1, 0, now()), [floor(1, 1, now()), b" ".to_vec()].concat()]
    {
        repo.target(FILE, &bytes);
        let (state, releases) = accepted(&initial(&repo), &repo.publish(), now()).await;
        let error = releases.floor(&state).await.unwrap_err();
        assert!(matches!(error, TrustError::Floor(_)) && !error.is_transient(), "{error:?}");
    }
}
