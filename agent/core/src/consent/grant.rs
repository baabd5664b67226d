//! The consent grant: what a customer allowed when a ticket was opened, signed by the consent key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// DSSE payload type of a grant.
pub const GRANT_PAYLOAD_TYPE: &str = "application/vnd.mendix.consent-grant.v1+json";

/// Payload of a grant's envelope. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Always 1.
    pub version: u32,
    /// Unique name of this grant (UUID).
    pub grant_id: String,
    /// The cluster it is for; no other may use it.
    pub cluster_uid: String,
    /// The ticket it belongs to.
    pub ticket_id: String,
    /// What was consented to. Only [`Scope::LogSharing`] concerns this agent.
    pub scopes: Vec<Scope>,
    /// Who consented, as the portal knows them.
    pub consented_by: String,
    /// When.
    pub consented_at: Timestamp,
    /// By which act, such as `portal-ticket-form`.
    pub consented_how: String,
    /// Managed components by exact name; no patterns.
    pub components: Vec<String>,
    /// Which kinds of data may leave.
    pub data_classes: Vec<DataClass>,
    /// Records of this span only.
    pub window: Window,
    /// Not valid before.
    pub not_before: Timestamp,
    /// Not valid from then on; at most 72 h after `not_before`.
    pub expires_at: Timestamp,
    /// What may be spent in all.
    pub budget: Budget,
    /// Oldest redaction policy version that is good enough.
    pub min_redaction_policy: u32,
    /// X25519 public key of the ticket, standard base64: the only one who can read the snapshot.
    pub recipient_public_key: String,
    /// Key id of the status key whose leases count for this grant.
    pub status_key_id: String,
}

/// What a customer can consent to; the two are separate acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Scope {
    /// Logs of managed components, redacted.
    LogSharing,
    /// A person may look at the environment. Never implies logs.
    DirectEnvironmentAccess,
}

/// A kind of data in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataClass {
    /// Container logs of managed components.
    ComponentLogs,
    /// Logs of the customer's Mendix apps: off unless named.
    RuntimeLogs,
    /// Kubernetes events of managed components.
    Events,
    /// Status of managed components and nodes.
    Status,
}

/// A span of time, from ≤ to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// First instant.
    pub from: Timestamp,
    /// Last instant. May lie ahead while a ticket is worked on.
    pub to: Timestamp,
}

/// What a grant allows to be spent; spent before sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Snapshots.
    pub snapshots: u32,
    /// Sealed bytes over all snapshots.
    pub bytes: u64,
}
