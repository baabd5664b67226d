//! Attacks on the release repository, each against real TUF metadata signed in the test.

mod fetch;
mod floor;
mod repository;
mod secret;

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::bundle::admission::HighWater;
use tough::{IntoVec, Transport};
use url::Url;

use self::repository::{Key, Memory, Repo};
use super::{
    TrustError,
    client::{Releases, Update, update},
    guard::{Guarded, MAX_METADATA, REPOSITORY},
    state::{StateError, TrustState},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

async fn run(state: &TrustState, repo: &Memory, now: Timestamp) -> Update {
    update(state, repo.clone(), now, None).await
}

async fn accepted(state: &TrustState, repo: &Memory, now: Timestamp) -> (TrustState, Releases) {
    let Update { state, outcome } = run(state, repo, now).await;
    (state, outcome.unwrap())
}

async fn refused(state: &TrustState, repo: &Memory, now: Timestamp) -> TrustError {
    run(state, repo, now).await.outcome.unwrap_err()
}

fn initial(repo: &Repo) -> TrustState {
    TrustState::initial(repo.root_bytes(1)).unwrap()
}

#[tokio::test]
async fn a_target_is_fetched_with_the_digest_that_was_signed() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target("release-1.json", b"{}");
    let (_, releases) = accepted(&initial(&repo), &repo.publish(), now()).await;
    let authentic = releases.fetch_target("release-1.json").await.unwrap();
    assert_eq!(authentic.bytes(), b"{}");
    assert_eq!(authentic.target(), "release-1.json");
    assert_eq!(
        hex::encode(authentic.sha256()),
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    );
}

#[tokio::test]
async fn a_target_with_a_wrong_last_byte_is_refused_and_not_taken_for_a_broken_connection() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target("release-1.json", b"content");
    let memory = repo.publish();
    let (_, releases) = accepted(&initial(&repo), &memory, now()).await;
    memory.change("targets/", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let error = releases.fetch_target("release-1.json").await.unwrap_err();
    assert!(matches!(error, TrustError::Rejected(_)), "{error:?}");
    assert!(!error.is_transient());
    // Cut off, and with more than was signed.
    for change in [|bytes: &mut Vec<u8>| bytes.truncate(3), |bytes: &mut Vec<u8>| bytes.push(0)] {
        memory.change("targets/", change);
        assert!(matches!(
            releases.fetch_target("release-1.json").await,
            Err(TrustError::Rejected(_))
        ));
    }
}

#[tokio::test]
async fn targets_outside_the_repository_have_no_name() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target("release-1.json", b"content");
    let (_, releases) = accepted(&initial(&repo), &repo.publish(), now()).await;
    for name in ["release-2.json", "../release-1.json", "x/../release-1.json", "", "a\0b", "."] {
        let error = releases.fetch_target(name).await.unwrap_err();
        assert!(matches!(error, TrustError::NoSuchTarget(_)), "{name:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_rollback_with_an_intact_store_is_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.target("release-1.json", b"1");
    let old = repo.publish();
    repo.target("release-2.json", b"2");
    let new = repo.publish();
    let (state, _) = accepted(&initial(&repo), &new, now()).await;
    let Update { state: after, outcome } = run(&state, &old, now()).await;
    assert!(matches!(outcome, Err(TrustError::Rejected(_))));
    assert_eq!(after, state, "a refused update changes nothing");
}

#[tokio::test]
async fn a_half_written_store_is_an_error_and_not_an_empty_history() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let (state, _) = accepted(&initial(repo), &repo.publish(), now()).await;
    for entry in ["root.json", "timestamp.json", "snapshot.json", "state.json"] {
        for cut in [0, 1, 100] {
            let mut entries = state.to_entries();
            let bytes = entries.get_mut(entry).unwrap();
            bytes.truncate(cut.min(bytes.len() - 1));
            let error = TrustState::from_entries(&entries).unwrap_err();
            assert!(matches!(error, StateError::Json { .. }), "{entry} cut at {cut}: {error:?}");
        }
        let mut entries = state.to_entries();
        entries.remove(entry);
        assert!(
            matches!(TrustState::from_entries(&entries), Err(StateError::Missing(missing)) if missing == entry),
            "{entry} missing"
        );
    }
    assert_eq!(TrustState::from_entries(&state.to_entries()).unwrap(), state);
}

#[tokio::test]
async fn a_store_with_metadata_from_elsewhere_is_refused() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let (state, _) = accepted(&initial(repo), &repo.publish(), now()).await;
    let other = &mut Repo::new(now() + 24 * HOUR);
    let (foreign, _) = accepted(&initial(other), &other.publish(), now()).await;
    for entry in ["timestamp.json", "snapshot.json"] {
        let mut entries = state.to_entries();
        entries.insert(entry.into(), foreign.to_entries()[entry].clone());
        assert!(matches!(TrustState::from_entries(&entries), Err(StateError::Signature { .. })));
    }
    // Genuine, and older than the record says: somebody put an old copy back.
    let first = state.to_entries();
    let (later, _) = accepted(&state, &repo.publish(), now()).await;
    let mut entries = later.to_entries();
    entries.insert("timestamp.json".into(), first["timestamp.json"].clone());
    assert!(matches!(TrustState::from_entries(&entries), Err(StateError::Version { .. })));
    // An entry that the record doesn't know.
    let mut entries = initial(repo).to_entries();
    entries.insert("timestamp.json".into(), first["timestamp.json"].clone());
    assert!(matches!(TrustState::from_entries(&entries), Err(StateError::Unexpected(_))));
}

#[tokio::test]
async fn a_revoked_online_key_stays_revoked_when_the_newer_root_is_withheld() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.publish();
    let stolen = repo.online.clone();
    let thief = &mut repo.clone();
    repo.rotate_root(|root| root.online = Key::generate());
    let (state, _) = accepted(&initial(&repo), &repo.publish(), now()).await;
    assert_eq!(state.root_version(), 2);

    // The thief signs a newer timestamp and snapshot with the old key, and hides root 2.
    thief.online = stolen;
    for _ in 0..5 {
        thief.publish();
    }
    let evil = thief.publish();
    let error = refused(&state, &evil, now()).await;
    assert!(matches!(error, TrustError::Rejected(_)), "{error:?}");
    // A cluster that was installed with root 2 and never refreshed doesn't fall for it either.
    let fresh = TrustState::initial(repo.root_bytes(2)).unwrap();
    assert!(matches!(refused(&fresh, &evil, now()).await, TrustError::Rejected(_)));
    // And one that knows that root 2 exists notices that it is withheld.
    let outcome = update(&initial(&repo), evil, now(), Some(2)).await.outcome;
    assert!(matches!(outcome, Err(TrustError::RootWithheld { reached: 1, shipped: 2 })));
}

#[tokio::test]
async fn a_transport_error_on_the_next_root_is_not_taken_for_its_absence() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    memory.break_file("metadata/2.root.json");
    let state = initial(repo);
    let Update { state: after, outcome } = run(&state, &memory, now()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, TrustError::Transport(_)), "{error:?}");
    assert_eq!(after, state);
}

#[tokio::test]
async fn a_newer_root_is_kept_also_when_the_update_fails_after_it() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    let (state, _) = accepted(&initial(&repo), &repo.publish(), now()).await;
    repo.rotate_root(|root| root.online = Key::generate());
    let memory = repo.publish();
    memory.break_file("metadata/timestamp.json");
    let Update { state, outcome } = run(&state, &memory, now()).await;
    assert!(matches!(outcome, Err(TrustError::Transport(_))));
    assert_eq!(state.root_version(), 2);
    let stored = TrustState::from_entries(&state.to_entries()).unwrap();
    memory.mend();
    accepted(&stored, &memory, now()).await;
}

#[tokio::test]
async fn rotating_the_online_key_recovers_from_versions_that_a_thief_raised() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    let mut thief = repo.clone();
    thief.version = 1_000_000;
    let (state, _) = accepted(&initial(&repo), &thief.publish(), now()).await;
    assert!(matches!(refused(&state, &repo.publish(), now()).await, TrustError::Rejected(_)));
    repo.rotate_root(|root| root.online = Key::generate());
    let (state, _) = accepted(&state, &repo.publish(), now()).await;
    assert_eq!(state.root_version(), 2);
}

#[tokio::test]
async fn a_clock_that_was_once_ahead_does_no_lasting_harm() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    let (state, _) = accepted(&initial(repo), &memory, now() + 20 * HOUR).await;
    let (state, _) = accepted(&state, &memory, now()).await;
    assert_eq!(state.judged_at(now()), now() + 20 * HOUR, "the floor doesn't follow it back");
    // Ten years ahead: nothing is accepted, and nothing is remembered of it.
    let ahead = now() + 87_600 * HOUR;
    let Update { state: after, outcome } = run(&state, &memory, ahead).await;
    assert!(matches!(outcome, Err(TrustError::Expired { .. })));
    assert_eq!(after, state);
    accepted(&after, &memory, now()).await;
}

#[tokio::test]
async fn a_clock_that_was_turned_back_does_not_make_old_metadata_fresh() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    let (state, _) = accepted(&initial(repo), &memory, now() + 2 * HOUR).await;
    // The repository is frozen at what expires in an hour.
    repo.expires = now() + HOUR;
    let frozen = repo.publish();
    for back in [now(), now() - 87_600 * HOUR] {
        let error = refused(&state, &frozen, back).await;
        assert!(
            matches!(error, TrustError::Expired { judged_at, .. } if judged_at == now() + 2 * HOUR)
        );
    }
    // Fresh metadata is accepted whatever the clock says.
    repo.expires = now() + 24 * HOUR;
    accepted(&state, &repo.publish(), now() - 87_600 * HOUR).await;
}

#[tokio::test]
async fn expired_metadata_is_not_accepted_and_names_the_role() {
    let repo = &mut Repo::new(now());
    let error = refused(&initial(repo), &repo.publish(), now()).await;
    assert!(matches!(error, TrustError::Expired { .. }), "{error:?}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn metadata_that_expires_during_a_run_does_not_stop_it() {
    // Accepted at a time before its expiry; by the real clock it has expired since.
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let mut repo = Repo::new(past + HOUR);
    repo.target("release-1.json", b"content");
    let (_, releases) = accepted(&initial(&repo), &repo.publish(), past).await;
    assert_eq!(releases.fetch_target("release-1.json").await.unwrap().bytes(), b"content");
}

#[tokio::test]
async fn one_signature_twice_does_not_make_a_threshold_of_two() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.root_threshold = 2;
    repo.root_keys = vec![Key::generate(), Key::generate()];
    repo.resign_first_root();
    TrustState::initial(repo.root_bytes(1)).unwrap();
    let one = repo.root_keys[0].clone();
    repo.root_keys = vec![one.clone(), one];
    repo.resign_first_root_with_declared_keys_kept();
    let error = TrustState::initial(repo.root_bytes(1)).unwrap_err();
    assert!(matches!(error, StateError::Signature { .. }), "{error:?}");
}

#[tokio::test]
async fn a_skipped_root_version_is_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.rotate_root(|_| {});
    repo.rotate_root(|_| {});
    let memory = repo.publish();
    let third = repo.root_bytes(3);
    memory.change("metadata/2.root.json", |bytes| *bytes = third.clone());
    let error = refused(&initial(&repo), &memory, now()).await;
    assert!(matches!(error, TrustError::Rejected(_)), "{error:?}");
}

#[tokio::test]
async fn a_long_chain_of_roots_is_walked() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    for _ in 0..5 {
        repo.rotate_root(|root| root.root_keys = vec![Key::generate()]);
    }
    let (state, _) = accepted(&initial(&repo), &repo.publish(), now()).await;
    assert_eq!(state.root_version(), 6);
}

#[tokio::test]
async fn a_root_that_its_predecessor_did_not_sign_is_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    let mut other = Repo::new(now() + 24 * HOUR);
    other.rotate_root(|_| {});
    let memory = repo.publish();
    let foreign = other.root_bytes(2);
    memory.insert("metadata/2.root.json", foreign);
    assert!(matches!(refused(&initial(&repo), &memory, now()).await, TrustError::Rejected(_)));
}

#[tokio::test]
async fn delegations_are_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.delegate = true;
    let error = refused(&initial(&repo), &repo.publish(), now()).await;
    assert!(matches!(error, TrustError::Delegations | TrustError::Rejected(_)), "{error:?}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_root_without_consistent_snapshots_is_refused() {
    let mut repo = Repo::new(now() + 24 * HOUR);
    repo.consistent_snapshot = false;
    repo.resign_first_root();
    assert!(matches!(TrustState::initial(repo.root_bytes(1)), Err(StateError::Inconsistent)));
}

#[tokio::test]
async fn endless_metadata_is_cut_off() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    memory.change("metadata/timestamp.json", |bytes| bytes.resize(5 * 1024 * 1024, b' '));
    let error = refused(&initial(repo), &memory, now()).await;
    assert!(matches!(error, TrustError::Rejected(_)), "{error:?}");
}

#[tokio::test]
async fn a_long_file_is_cut_off_also_where_signed_metadata_gives_its_length() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    let name = "metadata/1.targets.json";
    let url = Url::parse(REPOSITORY).unwrap().join(name).unwrap();
    for (size, fits) in [(MAX_METADATA, true), (MAX_METADATA + 1, false)] {
        memory.insert(name, vec![b' '; usize::try_from(size).unwrap()]);
        let stream = Guarded(memory.clone()).fetch(url.clone()).await.unwrap();
        assert_eq!(stream.into_vec().await.is_ok(), fits, "{size}");
    }
}

#[tokio::test]
async fn a_refresh_that_learns_nothing_has_nothing_to_store() {
    let repo = &mut Repo::new(now() + 24 * HOUR);
    let memory = repo.publish();
    let (state, _) = accepted(&initial(repo), &memory, now()).await;
    let (again, _) = accepted(&state, &memory, now() + SignedDuration::from_mins(9)).await;
    assert_eq!(again, state);
    let (later, _) = accepted(&state, &memory, now() + HOUR).await;
    assert_eq!(later.judged_at(now()), now() + HOUR);
}

#[test]
fn the_high_water_mark_only_rises() {
    let repo = Repo::new(now() + 24 * HOUR);
    let mark = |sequence, digest| HighWater { sequence, index_sha256: [digest; 32] };
    let state = initial(&repo).raise(mark(5, 1)).unwrap();
    assert_eq!(state.high_water(), Some(mark(5, 1)));
    assert_eq!(state.raise(mark(5, 1)).unwrap(), state, "the same release is a resumed run");
    for lower in [mark(4, 1), mark(4, 2), mark(5, 2)] {
        assert!(matches!(state.raise(lower), Err(StateError::Sequence { .. })), "{lower:?}");
    }
    let state = state.raise(mark(6, 2)).unwrap();
    let stored = TrustState::from_entries(&state.to_entries()).unwrap();
    assert_eq!(stored.high_water(), Some(mark(6, 2)));
}

#[test]
fn a_record_of_a_newer_schema_or_with_a_bad_digest_is_refused() {
    let repo = Repo::new(now() + 24 * HOUR);
    let mark = HighWater { sequence: 5, index_sha256: [0xab; 32] };
    let entries = initial(&repo).raise(mark).unwrap().to_entries();
    let changed = |from: &str, to: &str| {
        let mut entries = entries.clone();
        let record = String::from_utf8(entries["state.json"].clone()).unwrap();
        assert!(record.contains(from), "{record}");
        entries.insert("state.json".into(), record.replace(from, to).into_bytes());
        TrustState::from_entries(&entries).unwrap_err()
    };
    assert!(matches!(changed("\"schema\":1", "\"schema\":2"), StateError::Schema(2)));
    assert!(matches!(changed("abab\"", "ab\""), StateError::Digest));
    assert!(matches!(
        changed("\"root_version\":1", "\"root_version\":2"),
        StateError::Version { .. }
    ));
    assert!(matches!(
        changed("\"schema\":1", "\"schema\":1,\"schema\":1"),
        StateError::Json { .. }
    ));
}
