//! Enrolment, renewal and recovery against a real server, with what is stored checked at each step.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    api::{self, Shelf},
    plane::{CLUSTER, Ca, DAY, Plane, TOKEN},
    soon,
};
use crate::channel::{
    enroll::{Enrollment, Settings},
    identity::{
        Credentials, Identity, IdentityError, Key, Parts, Standing,
        store::{Store, StoreError},
    },
};

struct Scene {
    plane: Plane,
    shelf: Arc<Mutex<Shelf>>,
    files: TempDir,
}

struct Running {
    standing: watch::Receiver<Standing>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Scene {
    async fn new() -> Self {
        Self {
            plane: Plane::start().await,
            shelf: Arc::default(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn token(&self, token: &str) {
        std::fs::write(self.files.path().join("token"), format!("{token}\n")).unwrap();
    }

    async fn store(&self) -> Store {
        Store::new(&api::cluster(&self.shelf).await)
    }

    async fn start(&self) -> Running {
        let settings = Settings {
            cluster_uid: CLUSTER.into(),
            agent_version: "1.2.3".into(),
            bootstrap_token_file: self.files.path().join("token"),
            service_account_token_file: Some(self.files.path().join("attestation")),
            channel_ca: vec![self.plane.ca.der.clone()],
        };
        let (sender, standing) =
            watch::channel(Standing::NotEnrolled { reason: "starting".into() });
        let enrollment = Enrollment::new(settings, self.plane.target(), self.store().await, sender);
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { enrollment.run(token).await });
        Running { standing, cancel, task }
    }

    /// Stores an identity as if it had been made at an earlier time.
    async fn stored(&self, parts: Parts) -> Identity {
        let identity = Identity::assemble(parts, CLUSTER).unwrap();
        let store = self.store().await;
        let stored = store.load(CLUSTER).await.unwrap();
        store.save_identity(stored, &identity, None, CLUSTER).await.unwrap();
        identity
    }
}

impl Running {
    async fn enrolled(&mut self) -> Arc<Credentials> {
        self.enrolled_other_than(None).await
    }

    async fn enrolled_other_than(&mut self, old: Option<&Identity>) -> Arc<Credentials> {
        let new = |standing: &Standing| match standing {
            Standing::Enrolled(now) => old.is_none_or(|old| old.leaf() != now.identity().leaf()),
            Standing::NotEnrolled { .. } => false,
        };
        let standing = soon("identity", self.standing.wait_for(new)).await.unwrap();
        let Standing::Enrolled(credentials) = &*standing else { unreachable!() };
        Arc::clone(credentials)
    }

    async fn refused(&mut self, with: &str) -> String {
        let says = |standing: &Standing| match standing {
            Standing::NotEnrolled { reason } => reason.contains(with),
            Standing::Enrolled(_) => false,
        };
        let standing = soon(with, self.standing.wait_for(says)).await.unwrap();
        let Standing::NotEnrolled { reason } = &*standing else { unreachable!() };
        reason.clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        soon("end", self.task).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_becomes_an_identity_that_is_stored_before_it_is_used() {
    let scene = Scene::new().await;
    scene.token(TOKEN);
    std::fs::write(scene.files.path().join("attestation"), "projected").unwrap();
    let mut agent = scene.start().await;
    let credentials = agent.enrolled().await;
    assert_eq!(credentials.identity().ring(), "early");
    {
        let shelf = scene.shelf.lock().unwrap();
        assert_eq!(shelf.writes, ["create", "update"], "key first, certificate second");
        assert!(shelf.data("tls.key").unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(shelf.data("pending.key"), None);
        assert_eq!(shelf.data("ring").unwrap(), "early");
        assert!(!format!("{:?}", shelf.data("token.sha256")).contains(TOKEN));
    }
    assert_eq!(scene.plane.book.lock().unwrap().attestation, "projected");
    scene.plane.target().connect(Arc::clone(credentials.tls())).await.unwrap();
    agent.stop().await;

    // The next process finds it, and spends nothing.
    let mut agent = scene.start().await;
    let again = agent.enrolled().await;
    assert_eq!(again.identity().leaf(), credentials.identity().leaf());
    assert_eq!(scene.plane.calls(), ["Enroll"]);
}

#[tokio::test]
async fn an_answer_lost_in_a_crash_is_asked_for_again_with_the_same_key() {
    let scene = Scene::new().await;
    scene.token(TOKEN);
    scene.plane.book.lock().unwrap().lose = 1;
    let mut agent = scene.start().await;
    let reason = agent.refused("the answer got lost").await;
    assert!(!reason.contains(TOKEN), "{reason}");
    agent.stop().await;
    assert!(scene.shelf.lock().unwrap().data("pending.key").is_some());

    let mut agent = scene.start().await;
    agent.enrolled().await;
    assert_eq!(scene.plane.calls(), ["Enroll", "Enroll"], "one token, one key, two answers");
}

#[tokio::test]
async fn a_certificate_that_could_not_be_stored_is_not_used() {
    let scene = Scene::new().await;
    scene.token(TOKEN);
    // Let the pending key be written and the identity not.
    let store = scene.store().await;
    let stored = store.load(CLUSTER).await.unwrap();
    store.save_pending(stored, &Key::generate().unwrap(), CLUSTER).await.unwrap();
    scene.shelf.lock().unwrap().refuse = 1;
    let mut agent = scene.start().await;
    agent.refused("Forbidden").await;
    agent.enrolled().await;
    assert_eq!(scene.plane.calls(), ["Enroll", "Enroll"]);
}

#[tokio::test]
async fn without_a_token_the_agent_says_where_it_looks_and_goes_on_when_there_is_one() {
    let scene = Scene::new().await;
    let mut agent = scene.start().await;
    let reason = agent.refused("no bootstrap token in ").await;
    assert!(reason.ends_with("/token"), "{reason}");
    agent.stop().await;
    scene.token(TOKEN);
    scene.start().await.enrolled().await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_not_repeated_to_people() {
    let scene = Scene::new().await;
    scene.token("wrong-token-with-secret");
    let reason = scene.start().await.refused("token is unknown or spent").await;
    assert!(!reason.contains("wrong-token-with-secret"), "{reason}");
}

#[tokio::test]
async fn half_way_through_its_life_a_certificate_is_renewed_with_a_new_key() {
    let scene = Scene::new().await;
    let now = SystemTime::now();
    let parts = scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now + 3 * DAY);
    let old = scene.stored(parts).await;
    let mut agent = scene.start().await;
    let new = agent.enrolled_other_than(Some(&old)).await;
    assert_ne!(new.identity().key().public_point(), old.key().public_point());
    assert_eq!(scene.plane.calls(), ["Renew"]);
    assert_eq!(new.identity().ring(), "early", "the ring is kept");
}

#[tokio::test]
async fn a_lost_renewal_keeps_the_old_certificate_in_use() {
    let scene = Scene::new().await;
    let now = SystemTime::now();
    let parts = scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now + 3 * DAY);
    let old = scene.stored(parts).await;
    scene.plane.book.lock().unwrap().lose = 1;
    let mut agent = scene.start().await;
    let first = agent.enrolled().await;
    assert_eq!(first.identity().leaf(), old.leaf());
    agent.enrolled_other_than(Some(&old)).await;
    assert_eq!(scene.plane.calls(), ["Renew", "Renew"]);
}

#[tokio::test]
async fn a_renewed_certificate_that_does_not_work_is_not_kept() {
    let scene = Scene::new().await;
    let now = SystemTime::now();
    let parts = scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now + 3 * DAY);
    let old = scene.stored(parts).await;
    // Sound in itself, but the server is not reached with it.
    scene.plane.book.lock().unwrap().issuer = Some(Ca::new("elsewhere"));
    let agent = scene.start().await;
    // The first renewal was looked at and dropped when the agent asks for the second.
    let renewed = async {
        while scene.plane.calls().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("second renewal", renewed).await;
    agent.stop().await;
    let kept = scene.store().await.load(CLUSTER).await.unwrap().identity.unwrap().unwrap();
    assert_eq!(kept.leaf(), old.leaf());
}

#[tokio::test]
async fn an_expired_certificate_is_recovered_with_its_key() {
    let scene = Scene::new().await;
    let now = SystemTime::now();
    let parts = scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now - DAY);
    let old = scene.stored(parts).await;
    let mut agent = scene.start().await;
    let new = agent.enrolled().await;
    assert_eq!(new.identity().key().public_point(), old.key().public_point());
    assert_eq!(scene.plane.calls(), ["Recover"]);
}

#[tokio::test]
async fn used_up_recoveries_are_reported_and_a_new_token_is_the_way_back() {
    let scene = Scene::new().await;
    scene.plane.book.lock().unwrap().recoveries = 0;
    let now = SystemTime::now();
    scene.stored(scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now - DAY)).await;
    let mut agent = scene.start().await;
    agent.refused("recoveries are used up").await;
    agent.stop().await;
    scene.token(TOKEN);
    scene.start().await.enrolled().await;
    assert_eq!(scene.plane.calls(), ["Recover", "Enroll"]);
}

#[tokio::test]
async fn a_new_token_that_is_no_good_does_not_take_a_good_identity_away() {
    let scene = Scene::new().await;
    let old = scene.stored(scene.plane.ca.parts(CLUSTER)).await;
    scene.token("not a token of this cluster");
    let mut agent = scene.start().await;
    assert_eq!(agent.enrolled().await.identity().leaf(), old.leaf());
    assert_eq!(scene.plane.calls(), ["Enroll"]);
}

#[tokio::test]
async fn a_damaged_secret_is_named_and_cured_by_a_new_token() {
    let scene = Scene::new().await;
    scene.stored(scene.plane.ca.parts(CLUSTER)).await;
    scene.shelf.lock().unwrap().set("tls.crt", "half a certif");
    let mut agent = scene.start().await;
    agent.refused("the stored identity can't be used").await;
    agent.stop().await;
    scene.token(TOKEN);
    scene.start().await.enrolled().await;
}

#[tokio::test]
async fn a_write_by_someone_else_is_not_overwritten() {
    let scene = Scene::new().await;
    let identity = scene.stored(scene.plane.ca.parts(CLUSTER)).await;
    let store = scene.store().await;
    let stale = store.load(CLUSTER).await.unwrap();
    scene.shelf.lock().unwrap().set("ring", "late");
    let refused = store.save_identity(stale, &identity, None, CLUSTER).await;
    assert!(matches!(refused, Err(StoreError::Conflict)));
    assert_eq!(scene.shelf.lock().unwrap().data("ring").unwrap(), "late");
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let ca = Ca::new("channel CA");
    let assemble = |parts| Identity::assemble(parts, CLUSTER).unwrap_err();
    let good = || ca.parts(CLUSTER);
    Identity::assemble(good(), CLUSTER).unwrap();

    let other_key = Parts { key: Key::generate().unwrap(), ..good() };
    assert!(matches!(assemble(other_key), IdentityError::OtherKey));
    let other_cluster = ca.parts("another-cluster");
    assert!(matches!(assemble(other_cluster), IdentityError::OtherCluster { .. }));
    let mut long = good();
    long.chain = vec![long.chain[0].clone(); 5];
    assert!(matches!(assemble(long), IdentityError::TooMuch(_)));
    let no_anchor = Parts { anchors: Vec::new(), ..good() };
    assert!(matches!(assemble(no_anchor), IdentityError::Missing(_)));
    let mut trailing = good();
    let mut der = trailing.chain[0].to_vec();
    der.push(0);
    trailing.chain = vec![der.into()];
    assert!(matches!(assemble(trailing), IdentityError::Certificate(_)));
}

#[test]
fn dates_and_chain_are_checked_at_the_moment_of_use() {
    let ca = Ca::new("channel CA");
    let now = SystemTime::now();
    let verify =
        |parts| Identity::assemble(parts, CLUSTER).unwrap().verify(Timestamp::now()).map(drop);
    assert!(matches!(
        verify(ca.parts_valid(CLUSTER, now - 2 * DAY, now - DAY)),
        Err(IdentityError::Expired { .. })
    ));
    assert!(matches!(
        verify(ca.parts_valid(CLUSTER, now + DAY, now + 2 * DAY)),
        Err(IdentityError::NotYetValid { .. })
    ));
    let slightly_ahead = now + Duration::from_secs(120);
    verify(ca.parts_valid(CLUSTER, slightly_ahead, now + DAY)).unwrap();
    let foreign = Parts { anchors: vec![Ca::new("other").der], ..ca.parts(CLUSTER) };
    assert!(matches!(verify(foreign), Err(IdentityError::Chain(_))));
}

#[test]
fn what_is_issued_is_bounded() {
    use mendix_agent_proto::{limits, v1};
    let issue = |chain_der, trust_anchors_der| {
        let issued = v1::IssuedCertificate { chain_der, trust_anchors_der, ..Default::default() };
        Parts::issued(Key::generate().unwrap(), Some(issued), String::new())
    };
    assert!(issue(vec![vec![0]], vec![vec![0]]).is_ok());
    let large = vec![0; limits::MAX_CERTIFICATE + 1];
    assert!(matches!(issue(vec![large], vec![]), Err(IdentityError::TooMuch(_))));
    let many = vec![vec![0]; limits::MAX_TRUST_ANCHORS + 1];
    assert!(matches!(issue(vec![], many), Err(IdentityError::TooMuch(_))));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let parts = Ca::new("channel CA").parts(CLUSTER);
    let key = format!("{:?}", parts.key);
    let identity = format!("{:?}", Identity::assemble(parts, CLUSTER).unwrap());
    assert_eq!(key, "Key(secret)");
    assert!(!identity.contains("308"), "{identity}");
}
