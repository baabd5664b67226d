//! Light agents: everything of an agent's channel, nothing of its cluster.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use mendix_agent::channel::{
    Desired, Dialer, Leases, Link, Reports, Target, desired,
    identity::{Credentials, Identity, Key, Parts, Standing},
    leases, session,
};
use mendix_agent_core::session::{About, AddressPolicy};
use mendix_agent_proto::v1;
use mendix_control_plane::{Store, provision};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    network::Loopback,
    record::{Record, What},
};

/// How long the certificates are valid: longer than any run.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Longest wait for all agents to end.
const FAREWELL: Duration = Duration::from_secs(30);
/// Nodes that each agent reports.
const NODES: usize = 3;

/// An agent before it runs.
#[derive(Clone, Debug)]
pub struct Member {
    uid: String,
    credentials: Arc<Credentials>,
}

impl Member {
    /// UID of its cluster.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its identity.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }
}

/// Registers `count` clusters and makes an identity for each, through the control plane's CA.
///
/// # Errors
/// When the state can't be written, or holds such clusters already.
pub fn members(store: &Store, count: u32) -> Result<Vec<Member>> {
    let mut keys = Vec::new();
    let mut requests = Vec::new();
    for number in 0..count {
        let uid = format!("00000000-0000-4000-8000-{number:012x}");
        let key = Key::generate()?;
        requests.push((uid.clone(), key.request(&uid)?));
        keys.push((uid, key));
    }
    let issued = provision(store, "default", LIFETIME, &requests)?;
    let now = Timestamp::now();
    keys.into_iter()
        .zip(issued)
        .map(|((uid, key), issued)| {
            let parts = Parts::issued(key, Some(issued), "default".into())?;
            let credentials = Arc::new(Identity::assemble(parts, &uid)?.verify(now)?);
            Ok(Member { uid, credentials })
        })
        .collect()
}

/// Agents that run. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    links: Vec<watch::Receiver<Link>>,
    reports: Vec<Reports>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Fleet {
    /// Starts an agent for each member, `per_second` of them, towards the control plane at `plane`.
    ///
    /// # Errors
    /// When `plane` can't be an endpoint.
    pub async fn start(
        members: &[Member],
        plane: SocketAddr,
        per_second: u32,
        record: &Record,
    ) -> Result<Self> {
        let cancel = CancellationToken::new();
        let mut fleet =
            Self { links: Vec::new(), reports: Vec::new(), tasks: TaskTracker::new(), cancel };
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        for (number, member) in (0..).zip(members) {
            pace.tick().await;
            fleet.spawn(number, member, plane, record)?;
        }
        Ok(fleet)
    }

    fn spawn(
        &mut self,
        number: u32,
        member: &Member,
        plane: SocketAddr,
        record: &Record,
    ) -> Result<()> {
        let policy = AddressPolicy { allow_public: false, allow_loopback: true };
        let endpoint = Url::parse(&format!("https://{plane}")).context("the endpoint")?;
        let network = Arc::new(Loopback::new(number, record.clone()));
        let target = Target::new(&endpoint, policy)?.over(network);
        let (mut wiring, light) = wire(&member.uid, number, target, member.credentials.clone());
        let link = light.link.clone();
        let reports = light.reports.clone();
        for body in observed() {
            reports.publish(body);
        }
        let (record, mut seen, cancel) = (record.clone(), link.clone(), self.cancel.clone());
        let watching = async move {
            let mut up = false;
            while seen.changed().await.is_ok() {
                let now_up = matches!(&*seen.borrow_and_update(), Link::Connected { .. });
                if now_up != up {
                    record.note(number, if now_up { What::Connected } else { What::Lost });
                    up = now_up;
                }
            }
        };
        self.tasks.spawn(async move {
            // What a whole agent would hold on to.
            let _held = light;
            tokio::select! {
                () = Box::pin(session::run(&mut wiring, cancel)) => {}
                () = watching => {}
            }
        });
        self.links.push(link);
        self.reports.push(reports);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// How many have a session.
    pub fn connected(&self) -> usize {
        let up = |link: &&watch::Receiver<Link>| matches!(*link.borrow(), Link::Connected { .. });
        self.links.iter().filter(up).count()
    }

    /// Why some agents have no session, at most three of them, for people.
    pub fn failures(&self) -> Vec<String> {
        let failure = |link: &watch::Receiver<Link>| match &*link.borrow() {
            Link::Connected { .. } => None,
            other => Some(format!("{other:?}")),
        };
        self.links.iter().filter_map(failure).take(3).collect()
    }

    /// Lets every agent report something new.
    pub fn report(&self, round: u64) {
        for reports in &self.reports {
            reports.publish(health(round));
        }
    }

    /// Ends all agents and waits for them.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        // What is left after that ends with the process.
        let _ = tokio::time::timeout(FAREWELL, self.tasks.wait()).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The other paths' ends of a light agent's channel.
#[derive(Debug)]
pub struct Light {
    /// State of the session.
    pub link: watch::Receiver<Link>,
    /// What is wanted.
    pub desired: Desired,
    /// What is told.
    pub reports: Reports,
    /// Lease requests and leases.
    pub leases: Leases,
    /// Where the audit log would end.
    pub checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>,
    /// Where a new identity would go.
    pub standing: watch::Sender<Standing>,
}

/// Wires the session of agent `number`, which is of cluster `uid`, towards `target`.
pub fn wire(
    uid: &str,
    number: u32,
    target: Target,
    credentials: Arc<Credentials>,
) -> (session::Wiring, Light) {
    let (standing_tx, standing) = watch::channel(Standing::Enrolled(credentials));
    let (writer, desired) = desired();
    let (leases, lease_requests) = leases();
    let reports = Reports::default();
    let (checkpoints_tx, checkpoints) = watch::channel(None);
    let (link_tx, link) = watch::channel(Link::WaitingForConnection { last_failure: None });
    let wiring = session::Wiring {
        about: About {
            cluster_uid: uid.into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: format!("fleet-{number}"),
            lease_epoch: 1,
            kubernetes_version: "v1.34.2".into(),
        },
        dialer: Dialer::new(target, standing.clone()),
        standing,
        desired: writer,
        reports: reports.subscribe(),
        lease_requests,
        envelopes: leases.envelopes.clone(),
        checkpoints,
        audit_acks: watch::channel(None).0,
        link: link_tx,
        random: random(number),
    };
    let (standing, checkpoints) = (standing_tx, checkpoints_tx);
    (wiring, Light { link, desired, reports, leases, checkpoints, standing })
}

/// SplitMix64, one stream for each agent: jitter needs no secrets, and a run can be repeated.
pub fn random(seed: u32) -> session::Random {
    let state = AtomicU64::new(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    Arc::new(move || {
        let mut z =
            state.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

fn health(round: u64) -> v1::report::Body {
    let node = |number| v1::NodeHealth {
        name: format!("aks-default-12345678-vmss{number:06}"),
        kubelet_version: "v1.34.2".into(),
        node_image: "AKSUbuntu-2404gen2containerd-202611.02.0".into(),
        ready: true,
        ..Default::default()
    };
    v1::report::Body::Health(v1::HealthReport {
        state: "Healthy".into(),
        agent_rss_bytes: (40 + round) << 20,
        nodes: (0..NODES).map(node).collect(),
        ..Default::default()
    })
}

/// What a small cluster reports.
fn observed() -> Vec<v1::report::Body> {
    let component = |name: &str| v1::ComponentState {
        name: name.into(),
        version: "2.24.1".into(),
        health: "Ready".into(),
        objects: 24,
        ..Default::default()
    };
    let components = ["mendix-operator", "mendix-monitoring"].map(component).to_vec();
    vec![health(0), v1::report::Body::Components(v1::ComponentsReport { components })]
}
