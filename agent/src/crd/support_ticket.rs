//! SupportTicket: a support ticket and what it allows.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A support ticket of this cluster and the consent it carries, written by the agent. Nothing is read
/// from it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "SupportTicket",
    plural = "supporttickets",
    category = "mendix",
    namespaced,
    status = "SupportTicketStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Status","type":"string","description":"Status in the portal","jsonPath":".status.ticketStatus"}"#,
    printcolumn = r#"{"name":"Consent","type":"string","description":"Active: logs may be shared; Inactive: nothing leaves","jsonPath":".status.consent"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why consent is inactive","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","description":"When the consent ends","jsonPath":".status.expiresAt"}"#,
    printcolumn = r#"{"name":"Snapshots","type":"integer","description":"Snapshots taken","jsonPath":".status.snapshotsUsed"}"#,
    printcolumn = r#"{"name":"Title","type":"string","priority":1,"description":"What it is about","jsonPath":".status.title"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SupportTicketSpec {
    /// Id of the ticket in the portal.
    pub ticket_id: String,
}

/// What is known of a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupportTicketStatus {
    /// OPEN, ON_HOLD, AWAITING_YOUR_REPLY, SOLVED, or UNKNOWN; DELETED when the control plane no
    /// longer lists it.
    pub ticket_status: String,
    /// CUSTOMER, AUTOMATIC (raised by the platform; carries no consent by itself) or UNKNOWN.
    pub origin: String,
    /// CRITICAL, HIGH, MEDIUM, LOW or UNKNOWN.
    pub severity: String,
    /// One line from the ticket; absent when it has none.
    // Not an empty text: kube-apiserver 1.20 takes that for null and refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Active while a signed consent, the ticket's status, the local policy and the budget all allow
    /// a snapshot; Inactive otherwise. A snapshot needs a fresh proof of the ticket's status besides.
    pub consent: String,
    /// Code of the first gate that refuses; absent while Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence with what to do; absent while Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who consented, as the portal knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consented_by: Option<String>,
    /// Components whose logs may be shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Id of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// SHA-256 of the grant's envelope, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_sha256: Option<String>,
    /// When the consent ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub expires_at: Option<Timestamp>,
    /// Snapshots begun under the grant.
    pub snapshots_used: u32,
    /// Snapshots the grant allows.
    pub snapshots_allowed: u32,
    /// Sealed bytes spent of the grant.
    pub bytes_used: u64,
    /// Sealed bytes the grant allows.
    pub bytes_allowed: u64,
    /// The last snapshot for this ticket that was refused, or ended because consent did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<LastRefusal>,
}

/// A snapshot that was not taken, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRefusal {
    /// The control plane's request.
    pub request_id: String,
    /// Code of the gate.
    pub reason: String,
    /// One sentence with what to do.
    pub message: String,
    /// When.
    #[schemars(schema_with = "super::instant")]
    pub at: Timestamp,
}
