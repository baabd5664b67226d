//! Enrolment, renewal and recovery against a real server, with what is stored checked at each step.

use std::{
    path::{Path, PathBuf},
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
    DialError, Dialer,
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
        let (plane, files) = (Plane::start().await, tempfile::tempdir().unwrap());
        std::fs::write(files.path().join("channel-ca.pem"), &plane.ca.pem).unwrap();
        Self { plane, shelf: Arc::default(), files }
    }

    fn token(&self, token: &str) {
        std::fs::write(self.files.path().join("token"), format!("{token}\n")).unwrap();
    }

    async fn store(&self) -> Store {
        Store::new(&api::cluster(&self.shelf).await)
    }

    async fn start(&self) -> Running {
        self.start_with(None).await
    }

    async fn start_with(&self, identity_dir: Option<PathBuf>) -> Running {
        let settings = Settings {
            cluster_uid: CLUSTER.into(),
            agent_version: "1.2.3".into(),
            bootstrap_token_file: self.files.path().join("token"),
            service_account_token_file: Some(self.files.path().join("attestation")),
            channel_ca: vec![self.plane.ca.der.clone()],
            trust_dir: self.files.path().into(),
            identity_dir,
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

/// What an identity looks like in a volume: files behind a link that is swapped as a whole.
struct Volume(TempDir);

impl Volume {
    fn new() -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            let target = Path::new("..data").join(name);
            std::os::unix::fs::symlink(target, volume.0.path().join(name)).unwrap();
        }
        volume
    }

    /// Puts other files in, as the kubelet does.
    fn put(&self, version: &str, key: &Key, parts: &Parts) {
        let folder = self.0.path().join(version);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.key"), pem("PRIVATE KEY", key.pkcs8())).unwrap();
        std::fs::write(folder.join("tls.crt"), pem("CERTIFICATE", &parts.chain[0])).unwrap();
        std::fs::write(folder.join("ca.crt"), pem("CERTIFICATE", &parts.anchors[0])).unwrap();
        let link = self.0.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        std::fs::rename(link, self.0.path().join("..data")).unwrap();
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[tokio::test]
async fn an_identity_that_others_keep_is_taken_over_as_its_files_are_swapped() {
    let scene = Scene::new().await;
    let volume = Volume::new();
    let first = scene.plane.ca.parts(CLUSTER);
    volume.put("..1", &first.key, &first);
    let mut agent = scene.start_with(Some(volume.0.path().into())).await;
    let old = agent.enrolled().await;
    assert_eq!(old.identity().leaf(), &first.chain[0]);

    // Files that do not fit together change nothing, and what comes next does.
    let second = scene.plane.ca.parts(CLUSTER);
    volume.put("..2", &first.key, &second);
    volume.put("..3", &second.key, &second);
    let new = agent.enrolled_other_than(Some(old.identity())).await;
    assert_eq!(new.identity().leaf(), &second.chain[0]);
    scene.plane.target().connect(Arc::clone(new.tls())).await.unwrap();
    assert_eq!(scene.plane.calls(), [] as [&str; 0], "nothing is asked for");
    assert!(scene.shelf.lock().unwrap().writes.is_empty(), "nothing is stored");
}

#[tokio::test]
async fn files_of_another_cluster_or_key_are_named_and_not_used() {
    let scene = Scene::new().await;
    let volume = Volume::new();
    let mut agent = scene.start_with(Some(volume.0.path().into())).await;
    agent.refused("no private key (tls.key)").await;
    let foreign = scene.plane.ca.parts("another-cluster");
    volume.put("..1", &foreign.key, &foreign);
    agent.refused("names \"another-cluster\"").await;
    let parts = scene.plane.ca.parts(CLUSTER);
    volume.put("..2", &Key::generate().unwrap(), &parts);
    agent.refused("for another key").await;
}

#[tokio::test(start_paused = true)]
async fn a_file_event_that_was_missed_is_made_up_for_by_a_slow_look() {
    let scene = Scene::new().await;
    let volume = Volume::new();
    // There is no such folder yet, so there is nothing to watch.
    let folder = volume.0.path().join("later");
    let mut agent = scene.start_with(Some(folder.clone())).await;
    agent.refused("tls.key").await;
    let parts = scene.plane.ca.parts(CLUSTER);
    volume.put("later", &parts.key, &parts);
    let enrolled = |standing: &Standing| matches!(standing, Standing::Enrolled(_));
    let looked = tokio::time::timeout(DAY, agent.standing.wait_for(enrolled)).await;
    looked.unwrap().unwrap();
}

#[tokio::test]
async fn a_channel_ca_that_changes_on_disk_is_trusted_without_a_restart() {
    let scene = Scene::new().await;
    scene.stored(scene.plane.ca.parts(CLUSTER)).await;
    let mut agent = scene.start().await;
    assert_eq!(agent.enrolled().await.identity().anchors().len(), 1);
    let next = Ca::new("next channel CA");
    let file = scene.files.path().join("channel-ca.pem");
    // What can't be read does not take away what was trusted before.
    std::fs::write(&file, "half a certif").unwrap();
    std::fs::write(&file, format!("{}{}", scene.plane.ca.pem, next.pem)).unwrap();
    let both = |standing: &Standing| match standing {
        Standing::Enrolled(now) => now.identity().anchors().contains(&next.der),
        Standing::NotEnrolled { .. } => false,
    };
    soon("both CAs are trusted", agent.standing.wait_for(both)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_whose_ca_was_replaced_while_the_agent_was_away_is_recovered_once() {
    let scene = Scene::new().await;
    let retired = Ca::new("retired channel CA");
    let old = scene.stored(retired.parts(CLUSTER)).await;
    let mut agent = scene.start().await;
    agent.enrolled().await;
    let dialer = Dialer::new(scene.plane.target(), agent.standing.clone());
    // The new CA is known from disk; the server does not know the old one any more.
    let error = dialer.connect().await.unwrap_err();
    assert!(matches!(error, DialError::Rejected { .. }), "{error}");
    agent.enrolled_other_than(Some(&old)).await;
    dialer.connect().await.unwrap();
    assert_eq!(scene.plane.calls(), ["Recover"]);
}

#[tokio::test]
async fn under_a_clock_that_is_a_day_off_recoveries_are_not_used_up() {
    for (life, ahead) in [(Duration::ZERO, Duration::ZERO), (DAY, DAY)] {
        let scene = Scene::new().await;
        {
            // What is issued now is over already, or begins tomorrow.
            let mut book = scene.plane.book.lock().unwrap();
            (book.life, book.ahead) = (life, ahead);
        }
        let now = SystemTime::now();
        scene.stored(scene.plane.ca.parts_valid(CLUSTER, now - 7 * DAY, now - DAY)).await;
        let mut agent = scene.start().await;
        agent.refused("set the node's clock").await;
        // Something changes, so it looks again at once.
        scene.token("");
        agent.refused("can't be recovered while this node's clock is wrong").await;
        assert_eq!(scene.plane.calls(), ["Recover"]);
    }
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
    scene.token("token-of-another-cluster");
    let mut agent = scene.start().await;
    assert_eq!(agent.enrolled().await.identity().leaf(), old.leaf());
    assert_eq!(scene.plane.calls(), ["Enroll"]);
}

#[tokio::test]
async fn a_file_with_more_than_a_token_is_named_and_not_sent() {
    let scene = Scene::new().await;
    scene.token(&format!("Bootstrap token of {CLUSTER}, shown once:\n{TOKEN}"));
    let mut agent = scene.start().await;
    let reason = agent.refused("holds more than a bootstrap token").await;
    assert!(reason.contains("/token: ") && !reason.contains(TOKEN), "{reason}");
    assert_eq!(scene.plane.calls(), Vec::<String>::new());
    // The token alone is noticed, and good.
    scene.token(TOKEN);
    agent.enrolled().await;
    agent.stop().await;
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
