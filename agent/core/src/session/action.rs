//! What the machine says: what is to be done, and what is odd.

use mendix_agent_proto::{limits, v1};

use super::{Capability, Link, StreamId, TooLarge, Update};

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Dial now; answer with [`Dialled`](super::Event::Dialled) or [`Closed`](super::Event::Closed).
    Dial(StreamId),
    /// Send on a stream that was dialled.
    Send(StreamId, v1::AgentMessage),
    /// End a stream, or a dial that is under way. No event is expected for it any more.
    Close(StreamId, CloseReason),
    /// Hand a section of desired state on.
    Desired(Update),
    /// Drop every ticket and request: the cluster was deregistered.
    VoidConsent,
    /// Hand a lease envelope on.
    Lease(Vec<u8>),
    /// Hand on what the control plane holds of the audit log.
    AuditAck(v1::AuditCheckpointAck),
    /// The state of the session changed.
    Publish(Link),
    /// Something for the log.
    Note(Note),
}

/// Why the agent ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The agent stops.
    Shutdown,
    /// A newer session took over.
    Replaced,
    /// The server asked for it (Drain, Throttle, Deregistered).
    ServerAsked,
    /// Heartbeats were not answered.
    HeartbeatsLost,
    /// No answer to a dial or to `Hello` in time.
    Deadline,
    /// The server broke the protocol.
    Protocol,
}

/// Something odd that does not change the course.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Note {
    /// Not known to this agent; counted in the report about unsupported content.
    #[error("the control plane sent a message of a kind this agent does not know")]
    UnknownMessage,
    /// A second `Welcome` on one stream.
    #[error("the control plane sent a second Welcome on one session")]
    RepeatedWelcome,
    /// Some desired content could not be taken; the report says which.
    #[error("part of the desired state was not taken: {0:?}")]
    NotTaken(v1::UnsupportedReport),
    /// A report was not taken.
    #[error("the report on {:?} has {} bytes, more than a message may have; the last one stays", .0.section, .0.bytes)]
    ReportTooLarge(TooLarge),
    /// A lease envelope was dropped.
    #[error("a lease of {bytes} bytes was dropped; {} are allowed", limits::MAX_LEASE_ENVELOPE)]
    LeaseTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// There is no session to ask for a lease.
    #[error("a lease request was dropped: there is no session")]
    LeaseRequestDropped,
    /// The control plane has no leases to give.
    #[error("a lease request was dropped: the control plane lacks {}", Capability::LogSnapshots)]
    LeaseRequestUseless,
    /// The control plane lacks something of ours.
    #[error("the control plane lacks {}: {}", .0, .0.loss())]
    Lacks(Capability),
}
