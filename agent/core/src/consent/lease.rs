//! The lease: a status key's word that a ticket is still active, good for 60 s.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// DSSE payload type of a lease.
pub const LEASE_PAYLOAD_TYPE: &str = "application/vnd.mendix.ticket-lease.v1+json";

/// Payload of a lease's envelope. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Always 1.
    pub version: u32,
    /// SHA-256 of the grant's envelope as it was received, hex.
    pub grant_sha256: String,
    /// The cluster.
    pub cluster_uid: String,
    /// The ticket.
    pub ticket_id: String,
    /// `OPEN`, `ON_HOLD`, `AWAITING_YOUR_REPLY`, `SOLVED` or another word; only the first three
    /// are active.
    pub ticket_status: String,
    /// Increases with each lease of this grant.
    pub sequence: u64,
    /// The agent's nonce, hex; binds the lease to the moment the agent asked.
    pub nonce: String,
    /// When it was signed; for people, no decision is made on it.
    pub issued_at: Timestamp,
}
