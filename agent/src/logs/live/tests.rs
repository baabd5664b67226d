//! Consent that ends while a snapshot is taken, in the runtime's own time: hours pass in milliseconds
//! and to the millisecond.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client, client::Body};
use mendix_agent_core::{
    consent::{
        gate::{self, Facts, Wish},
        grant::{Budget, DataClass, GRANT_PAYLOAD_TYPE, Grant, Scope, Window},
        keys::{ConsentKeys, Trust},
        lease::{LEASE_PAYLOAD_TYPE, Lease},
    },
    envelope::{SigningKey, sha256},
    redact::POLICY_VERSION,
    seal,
};
use tokio::task::JoinHandle;

use super::*;
use crate::logs::{clock::Clock, keys::Pinned};

const CLUSTER: &str = "c-1";
const TICKET: &str = "MX-1";

fn wall() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn trust(consent: u8, sequence: u64) -> Trust {
    let (consent, status) = (vec![key(consent).pinned()], vec![key(2).pinned()]);
    let keys = ConsentKeys { version: 1, sequence, consent, status };
    Trust::parse(&serde_json::to_vec(&keys).unwrap()).unwrap()
}

fn grant() -> Grant {
    let hours = SignedDuration::from_hours;
    Grant {
        version: 1,
        grant_id: "g-1".into(),
        cluster_uid: CLUSTER.into(),
        ticket_id: TICKET.into(),
        scopes: vec![Scope::LogSharing],
        consented_by: "somebody".into(),
        consented_at: wall() - hours(1),
        consented_how: "portal-ticket-form".into(),
        components: vec!["noisy".into()],
        data_classes: vec![DataClass::ComponentLogs],
        window: Window { from: wall() - hours(2), to: wall() + hours(1) },
        not_before: wall() - hours(1),
        expires_at: wall() + hours(1),
        budget: Budget { snapshots: 5, bytes: 1 << 20 },
        min_redaction_policy: 1,
        recipient_public_key: seal::generate_recipient_keypair().unwrap().0.to_base64(),
        status_key_id: key(2).keyid(),
    }
}

/// The API server's answers about the policy: what it says, or nothing at all.
#[derive(Default)]
struct PolicyServer {
    frozen: AtomicBool,
}

fn policy_api(state: Arc<PolicyServer>) -> Api<crate::crd::log_sharing_policy::LogSharingPolicy> {
    let service = tower::service_fn(move |request: Request<Body>| {
        let state = state.clone();
        async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
            let is_list = request.uri().path().ends_with("logsharingpolicies");
            if state.frozen.load(Ordering::Relaxed) || is_watch || is_list {
                std::future::pending::<()>().await;
            }
            let policy = serde_json::json!({
                "apiVersion": "agent.mendix.com/v1alpha1", "kind": "LogSharingPolicy",
                "metadata": { "name": "default" }, "spec": { "mode": "WithConsent" },
            });
            let response = Response::builder()
                .status(StatusCode::OK)
                .header("content-type", "application/json")
                .body(Full::new(bytes::Bytes::from(policy.to_string())))
                .unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Api::namespaced(Client::new(service, "agent"), "agent")
}

/// A snapshot's consent at work, the portal that renews it, and what each of them hangs on.
struct Scene {
    live: Arc<Live>,
    guard: JoinHandle<()>,
    portal: JoinHandle<()>,
    tickets: watch::Sender<Option<Revised<v1::TicketsSection>>>,
    link: watch::Sender<Link>,
    pinned: Pinned,
    api: Arc<PolicyServer>,
    /// Seconds for which the machine was suspended.
    slept: Arc<AtomicU64>,
    reading: JoinHandle<()>,
    envelope: Vec<u8>,
    envelopes: broadcast::Sender<Vec<u8>>,
}

fn lease(envelope: &[u8], sequence: u64, nonce: &[u8], status: &str) -> Vec<u8> {
    let lease = Lease {
        version: 1,
        grant_sha256: hex::encode(sha256(envelope)),
        cluster_uid: CLUSTER.into(),
        ticket_id: TICKET.into(),
        ticket_status: status.into(),
        sequence,
        nonce: hex::encode(nonce),
        issued_at: wall(),
    };
    key(2).sign(LEASE_PAYLOAD_TYPE, &serde_json::to_vec(&lease).unwrap())
}

fn section(envelope: &[u8], status: v1::TicketStatus) -> Option<Revised<v1::TicketsSection>> {
    let ticket = v1::Ticket {
        ticket_id: TICKET.into(),
        status: status.into(),
        grant_envelope: envelope.to_vec(),
        ..Default::default()
    };
    let value = v1::TicketsSection { tickets: vec![ticket], ..Default::default() };
    Some(Revised { revision: 1, value })
}

impl Scene {
    /// Everything in order, and watched over.
    async fn open() -> Self {
        let slept = Arc::new(AtomicU64::new(0));
        let clock = Clock::of_runtime(wall(), slept.clone());
        let envelope = key(1).sign(GRANT_PAYLOAD_TYPE, &serde_json::to_vec(&grant()).unwrap());
        let (tickets, listed) = watch::channel(section(&envelope, v1::TicketStatus::Open));
        let (link, linked) = watch::channel(Link::WaitingForConnection { last_failure: None });
        let (leases, mut requests) = crate::channel::leases();
        let envelopes = leases.envelopes.clone();
        let (signed, answers) = (envelope.clone(), envelopes.clone());
        let portal = tokio::spawn(async move {
            let mut sequence = 0;
            while let Some(request) = requests.recv().await {
                sequence += 1;
                let _no_reader = answers.send(lease(&signed, sequence, &request.nonce, "OPEN"));
            }
        });
        let sources = Sources { tickets: listed, link: linked, leases, clock: clock.clone() };
        let api = Arc::new(PolicyServer::default());
        let policy = Policy::new(policy_api(api.clone()), clock.clone());
        policy.read().await;
        let followed = policy.clone();
        let reading = tokio::spawn(async move { followed.follow().await });

        let pinned = Pinned::fixed(trust(1, 1));
        let ticket = sources.ticket(TICKET).unwrap();
        let managed = BTreeSet::from(["noisy".to_owned()]);
        let facts = Facts {
            cluster_uid: CLUSTER,
            trust: &trust(1, 1),
            managed: &managed,
            redaction_policy: POLICY_VERSION,
        };
        let told = Told { ticket: Some(&ticket), deregistered: false };
        let wish = Wish { ticket_id: TICKET, components: &[] };
        let ledger = Ledger::default();
        let candidate = gate::consider(facts, told, wish, &ledger, wall()).unwrap();
        let (lease, proven) = first_lease(&sources, &candidate).await;
        proven.unwrap();
        let consent = candidate.admit(&lease, &policy.view(), &ledger, clock.now()).unwrap();
        let live = Arc::new(Live::new(
            Arc::new(consent),
            lease,
            sources,
            pinned.clone(),
            policy,
            ledger,
            CancellationToken::new(),
        ));
        let guarded = live.clone();
        let guard = tokio::spawn(async move { guarded.guard().await });
        // Until it watches, nothing that is told reaches it.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Self {
            live,
            guard,
            portal,
            tickets,
            link,
            pinned,
            api,
            slept,
            reading,
            envelope,
            envelopes,
        }
    }

    /// How long it takes until nothing may be sent any more, and why.
    async fn ends(self) -> (Duration, &'static str) {
        let begun = Instant::now();
        self.guard.await.unwrap();
        self.portal.abort();
        self.reading.abort();
        let passed = begun.elapsed();
        assert!(!self.live.holds() && self.live.token().is_cancelled());
        (passed, self.live.take_refusal().unwrap().code())
    }
}

#[tokio::test(start_paused = true)]
async fn consent_that_is_renewed_holds_for_as_long_as_the_grant() {
    let scene = Scene::open().await;
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    assert!(scene.live.holds());
    let (passed, code) = scene.ends().await;
    assert_eq!(code, "Expired");
    assert!(passed <= Duration::from_secs(10 * 60 + 1), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_ends_consent_within_sixty_two_seconds_whenever_it_begins() {
    let mut longest = Duration::ZERO;
    // At every second of a renewal's round, and in between.
    for step in 0..45 {
        let scene = Scene::open().await;
        tokio::time::sleep(Duration::from_millis(100_000 + 487 * step)).await;
        assert!(scene.live.holds());
        scene.portal.abort();
        let (passed, code) = scene.ends().await;
        assert_eq!(code, "LeaseMissing");
        longest = longest.max(passed);
    }
    assert!(longest <= Duration::from_secs(62), "{longest:?}");
    assert!(longest > Duration::from_secs(58), "the test does not measure what it says");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_policy_ends_consent_within_fifteen_seconds_and_a_look() {
    for step in 0..12 {
        let scene = Scene::open().await;
        tokio::time::sleep(Duration::from_millis(30_000 + 457 * step)).await;
        scene.api.frozen.store(true, Ordering::Relaxed);
        let (passed, code) = scene.ends().await;
        assert_eq!(code, "PolicyUnreadable");
        assert!(passed <= Duration::from_millis(15_500), "{passed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspend_that_outlasts_a_lease_ends_consent_before_anything_else_is_sent() {
    let scene = Scene::open().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    // Shorter than anything that consent hangs on: the lease is 20 s old at most, the policy 5.
    scene.slept.store(9, Ordering::SeqCst);
    assert!(scene.live.holds());
    // No timer has gone off and nobody has said anything: only the clock tells.
    scene.slept.store(9 + 61, Ordering::SeqCst);
    assert!(!scene.live.holds());
    let (passed, code) = scene.ends().await;
    assert_eq!(passed, Duration::ZERO);
    assert!(["LeaseMissing", "PolicyUnreadable"].contains(&code), "{code}");
}

#[tokio::test(start_paused = true)]
async fn the_control_planes_word_ends_consent_at_once() {
    let now = Duration::from_millis(1);
    let scene = Scene::open().await;
    scene.tickets.send_replace(section(&scene.envelope, v1::TicketStatus::Solved));
    assert_eq!(scene.ends().await, (Duration::ZERO, "TicketInactive"));

    let scene = Scene::open().await;
    let none = Revised { revision: 2, value: v1::TicketsSection::default() };
    scene.tickets.send_replace(Some(none));
    assert_eq!(scene.ends().await, (Duration::ZERO, "NoTicket"));

    let scene = Scene::open().await;
    scene.link.send_replace(Link::Deregistered { reason: "deleted".into() });
    assert_eq!(scene.ends().await, (Duration::ZERO, "Deregistered"));

    let scene = Scene::open().await;
    scene.envelopes.send(lease(&scene.envelope, 99, &[0; 16], "SOLVED")).unwrap();
    let solved = scene.live.clone();
    let (passed, code) = scene.ends().await;
    assert!(passed <= now && solved.solved(), "{passed:?}");
    assert_eq!(code, "TicketInactive");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_ends_what_rests_on_it_at_once() {
    let scene = Scene::open().await;
    scene.pinned.replace(trust(9, 2));
    assert_eq!(scene.ends().await, (Duration::ZERO, "KeyRotated"));
}
