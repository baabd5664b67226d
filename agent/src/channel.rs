//! The channel: one outbound mTLS session that brings desired state down and carries observed
//! state up.
//!
//! The other paths see only this module's handles: [`Desired`] (what the control plane wants),
//! [`Reports`] (what is to be told), [`Leases`] (proof that a ticket is active) and [`Dialer`]
//! (a connection of its own for a transfer, so that a stalled upload can't starve heartbeats).

mod changes;
pub mod dial;
pub mod enroll;
pub mod identity;
mod own;
pub mod session;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use mendix_agent_core::session::About;
use mendix_agent_proto::v1;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use mendix_agent_core::session::Link;

pub use self::dial::{
    DialError, Dialer, Layer, Target, bundle_client, snapshot_client, tls::TrustError,
};
use self::identity::Standing;
pub use self::own::OwnCredentials;
use crate::{cluster::Cluster, config::Config};

/// Leases that may be on their way to a reader; they are tiny and only the newest counts.
const LEASE_BACKLOG: usize = 16;
/// Lease requests that may wait for the session; more means that the session is down.
const LEASE_REQUEST_BACKLOG: usize = 16;

/// A section of desired state with the revision it came with.
#[derive(Clone, Debug, PartialEq)]
pub struct Revised<T> {
    /// Revision of the section; 0 before the control plane has said anything.
    pub revision: u64,
    /// Its content.
    pub value: T,
}

/// What the control plane wants, section by section. Each receiver always holds the last good
/// state, across reconnects; a restart of the agent begins with none (`None`).
#[derive(Clone, Debug)]
pub struct Desired {
    /// The release to run.
    pub release: watch::Receiver<Option<Revised<v1::ReleaseSection>>>,
    /// Active tickets and their grants.
    pub tickets: watch::Receiver<Option<Revised<v1::TicketsSection>>>,
    /// One-off requests.
    pub requests: watch::Receiver<Option<Revised<v1::RequestsSection>>>,
}

/// The sending side of [`Desired`], held by the session driver.
#[derive(Clone, Debug)]
pub struct DesiredWriter {
    /// See [`Desired::release`].
    pub release: watch::Sender<Option<Revised<v1::ReleaseSection>>>,
    /// See [`Desired::tickets`].
    pub tickets: watch::Sender<Option<Revised<v1::TicketsSection>>>,
    /// See [`Desired::requests`].
    pub requests: watch::Sender<Option<Revised<v1::RequestsSection>>>,
}

/// Makes both ends of the desired state.
pub fn desired() -> (DesiredWriter, Desired) {
    let (release_tx, release) = watch::channel(None);
    let (tickets_tx, tickets) = watch::channel(None);
    let (requests_tx, requests) = watch::channel(None);
    (
        DesiredWriter { release: release_tx, tickets: tickets_tx, requests: requests_tx },
        Desired { release, tickets, requests },
    )
}

/// Observed state on its way up: the last value per section, sent when it changed and again after
/// every reconnect.
#[derive(Clone, Debug)]
pub struct Reports {
    sections: Arc<watch::Sender<BTreeMap<v1::Section, v1::report::Body>>>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { sections: Arc::new(watch::channel(BTreeMap::new()).0) }
    }
}

impl Reports {
    /// Sets what is reported for the section that `body` belongs to. An unchanged body is not sent
    /// again.
    pub fn publish(&self, body: v1::report::Body) {
        let section = section_of(&body);
        self.sections.send_if_modified(|sections| {
            if sections.get(&section) == Some(&body) {
                return false;
            }
            sections.insert(section, body);
            true
        });
    }

    /// Follows all sections.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<v1::Section, v1::report::Body>> {
        self.sections.subscribe()
    }
}

/// The section a report's body belongs to.
pub fn section_of(body: &v1::report::Body) -> v1::Section {
    use v1::{Section, report::Body};
    match body {
        Body::Health(_) => Section::Health,
        Body::Components(_) => Section::Components,
        Body::ReleaseRun(_) => Section::ReleaseRun,
        Body::TicketStates(_) => Section::TicketStates,
        Body::RequestOutcomes(_) => Section::RequestOutcomes,
        Body::Preflight(_) => Section::Preflight,
        Body::Unsupported(_) => Section::Unsupported,
        Body::Initialization(_) => Section::Initialization,
    }
}

/// Lease requests up, lease envelopes down; opaque to the channel.
#[derive(Clone, Debug)]
pub struct Leases {
    /// Requests for the session to send; `try_send` fails while it is down.
    pub requests: mpsc::Sender<v1::LeaseRequest>,
    /// Envelopes as they arrive.
    pub envelopes: broadcast::Sender<Vec<u8>>,
}

/// Makes the lease link; the receiver goes to the session driver.
pub fn leases() -> (Leases, mpsc::Receiver<v1::LeaseRequest>) {
    let (requests, receiver) = mpsc::channel(LEASE_REQUEST_BACKLOG);
    (Leases { requests, envelopes: broadcast::channel(LEASE_BACKLOG).0 }, receiver)
}

/// What the other paths get of the channel.
#[derive(Clone)]
pub struct Handles {
    /// What is wanted.
    pub desired: Desired,
    /// What is to be told.
    pub reports: Reports,
    /// Proof that tickets are active.
    pub leases: Leases,
    /// Where the audit log ends, to be told.
    pub checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>,
    /// What the control plane holds of the audit log.
    pub audit_acks: watch::Receiver<Option<v1::AuditCheckpointAck>>,
    /// State of the session.
    pub link: watch::Receiver<Link>,
    /// Connections of their own for transfers.
    pub dialer: Dialer,
    /// The agent's identity, with the cluster's release ring.
    pub standing: watch::Receiver<Standing>,
    /// What redaction has to know.
    pub own: OwnCredentials,
}

/// Everything the channel runs: keeps the identity alive and holds the session.
#[derive(Clone)]
pub struct Worker {
    enrollment: Arc<enroll::Enrollment>,
    /// Taken by whoever runs; free again when that ends, however it ends.
    wiring: Arc<Mutex<session::Wiring>>,
}

/// Why the channel can't be set up. A restart alone does not cure it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The endpoint.
    #[error(transparent)]
    Endpoint(#[from] DialError),
    /// The channel CA.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Whether the channel could be set up, so that an agent that is installed wrongly says so at once.
///
/// # Errors
/// As [`open`].
pub fn check(config: &Config) -> Result<(), OpenError> {
    Target::from_config(config)?;
    dial::tls::channel_ca(&config.trust_dir)?;
    Ok(())
}

/// Sets up the channel; nothing is dialled until [`Worker::run`]. `Hello` carries the epoch of the
/// cluster's term.
///
/// # Errors
/// When the endpoint can't be read, or `channel-ca.pem` can't be used.
pub fn open(config: &Config, cluster: &Cluster) -> Result<(Handles, Worker), OpenError> {
    let target = Target::from_config(config)?;
    let version = env!("CARGO_PKG_VERSION");
    let settings = enroll::Settings {
        cluster_uid: cluster.uid.clone(),
        agent_version: version.into(),
        bootstrap_token_file: config.bootstrap_token_file.clone(),
        service_account_token_file: config.service_account_token_file.clone(),
        channel_ca: dial::tls::channel_ca(&config.trust_dir)?,
        trust_dir: config.trust_dir.clone(),
        identity_dir: config.identity_dir.clone(),
    };
    let (standing, standing_rx) = watch::channel(Standing::NotEnrolled {
        reason: "the stored identity was not read yet".into(),
    });
    let dialer = Dialer::new(target.clone(), standing_rx.clone());
    let (writer, desired) = desired();
    let (leases, lease_requests) = leases();
    let reports = Reports::default();
    let (checkpoints, checkpoints_rx) = watch::channel(None);
    let (audit_acks_tx, audit_acks) = watch::channel(None);
    let (link_tx, link) = watch::channel(Link::WaitingForConnection { last_failure: None });
    let about = About {
        cluster_uid: cluster.uid.clone(),
        agent_version: version.into(),
        boot_id: format!("{:016x}{:016x}", random(), random()),
        lease_epoch: cluster.term().epoch(),
        kubernetes_version: cluster.server_version.clone(),
    };
    let wiring = session::Wiring {
        about,
        dialer: dialer.clone(),
        standing: standing_rx.clone(),
        desired: writer,
        reports: reports.subscribe(),
        lease_requests,
        envelopes: leases.envelopes.clone(),
        checkpoints: checkpoints_rx,
        audit_acks: audit_acks_tx,
        link: link_tx,
        random: Arc::new(random),
    };
    let store = identity::store::Store::new(cluster);
    let enrollment = enroll::Enrollment::new(settings, target, store, standing);
    let own = OwnCredentials::new(config, standing_rx.clone());
    let handles = Handles {
        desired,
        reports,
        leases,
        checkpoints,
        audit_acks,
        link,
        dialer,
        standing: standing_rx,
        own,
    };
    let worker = Worker { enrollment: Arc::new(enrollment), wiring: Arc::new(Mutex::new(wiring)) };
    Ok((handles, worker))
}

impl Worker {
    /// Runs until it is cancelled; may be run again after that, or after a panic. Whatever goes wrong
    /// on the way is shown in [`Handles::link`] and tried again: there is nothing that a restart of
    /// the process would cure, so there is no error.
    ///
    /// # Errors
    /// None.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), Infallible> {
        let mut wiring = self.wiring.lock().await;
        tokio::join!(
            self.enrollment.run(cancel.clone()),
            session::run(&mut wiring, cancel.clone()),
        );
        Ok(())
    }
}

/// Uniform over all of `u64`: for jitter and ids.
#[expect(clippy::expect_used, reason = "without randomness no key and no TLS handshake either")]
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's source of randomness works");
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
