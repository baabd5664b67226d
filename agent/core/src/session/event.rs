//! What the machine is told: what happened, when, and who it speaks for.

use std::time::Instant;

use jiff::Timestamp;
use mendix_agent_proto::v1;

use super::Schedule;

/// Clock readings of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back; all deadlines are on it.
    pub monotonic: Instant,
    /// What people and the server call the time; never decides anything here.
    pub wall: Timestamp,
}

/// Names a stream for as long as the machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

/// What the agent says about itself in `Hello`.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// UID of namespace kube-system.
    pub cluster_uid: String,
    /// SemVer of the binary.
    pub agent_version: String,
    /// Random, new with each term of leading.
    pub boot_id: String,
    /// Fencing epoch of the leader's Lease.
    pub lease_epoch: u64,
    /// Kubernetes server version, such as `v1.34.2`.
    pub kubernetes_version: String,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The connection for a stream is up.
    Dialled(StreamId),
    /// A dial failed, or a stream ended from the other side.
    Closed(StreamId, Failure),
    /// A message came.
    Received(StreamId, v1::ControlMessage),
    /// Time passed.
    Tick,
    /// An observed section has this content now.
    Report(v1::Section, v1::report::Body),
    /// Ask for a proof that a ticket is active. Dropped while there is no session: its nonce ages.
    LeaseRequest(v1::LeaseRequest),
    /// The audit log ends here now; sent again on each new session.
    AuditCheckpoint(v1::AuditCheckpoint),
    /// There is a new client certificate: use it from the next moment on.
    NewIdentity,
    /// End all streams, and do nothing any more.
    Shutdown,
}

/// Why a dial failed or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How soon to try again.
    pub schedule: Schedule,
    /// Layer and cause, one line for people.
    pub text: String,
}
