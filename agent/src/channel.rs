//! The channel: one outbound mTLS session that brings desired state down and carries observed
//! state up.
//!
//! The other paths see only this module's handles: [`Desired`] (what the control plane wants),
//! [`Reports`] (what is to be told), [`Leases`] (proof that a ticket is active) and [`Dialer`]
//! (a connection of its own for a transfer, so that a stalled upload can't starve heartbeats).

use std::{collections::BTreeMap, sync::Arc};

use mendix_agent_proto::v1;
use tokio::sync::{broadcast, mpsc, watch};

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
#[derive(Debug)]
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

/// State of the session, for people and for paths that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// Never connected since the start.
    WaitingForConnection {
        /// Layer and cause of the last failure, if one happened.
        last_failure: Option<String>,
    },
    /// A session is up.
    Connected {
        /// Id the server gave it.
        session_id: String,
        /// Since when.
        since: jiff::Timestamp,
        /// Server clock minus own clock, milliseconds.
        clock_skew_millis: i64,
    },
    /// It was up, and is not now.
    Disconnected {
        /// Since when.
        since: jiff::Timestamp,
        /// Layer and cause.
        last_failure: String,
    },
    /// The cluster was deleted in the portal.
    Deregistered {
        /// What the server said.
        reason: String,
    },
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
    /// State of the session.
    pub link: watch::Receiver<Link>,
    /// Connections of their own for transfers.
    pub dialer: Dialer,
}

/// Opens mTLS connections to the control plane with the agent's current identity. (Owner of this
/// type: channel/dial.rs; transfers call [`Dialer::connect`].)
#[derive(Clone)]
pub struct Dialer {}

impl Dialer {
    /// A new TCP connection with the current identity, for BundleService or SnapshotService. Has a
    /// connect deadline; names the layer that failed.
    pub async fn connect(&self) -> Result<tonic::transport::Channel, DialError> {
        Err(DialError {})
    }
}

/// Which layer failed: DNS, private-address policy, TCP, proxy, TLS, authentication, stream.
#[derive(Debug, thiserror::Error)]
#[error("dialling is not built yet")]
pub struct DialError {}
