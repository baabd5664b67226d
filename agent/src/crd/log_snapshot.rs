//! LogSnapshot: the receipt of one log snapshot.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The receipt of one log snapshot: by which consent, what was sent, what was replaced, how it
/// ended. Written by the agent before the first log is read. The name is the snapshot's id.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "LogSnapshot",
    plural = "logsnapshots",
    category = "mendix",
    namespaced,
    status = "LogSnapshotStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ticket","type":"string","description":"The ticket it was taken for","jsonPath":".spec.ticketId"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","description":"Started, Succeeded, Revoked or Failed","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why it did not succeed","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Files","type":"integer","description":"Log files in it","jsonPath":".status.files"}"#,
    printcolumn = r#"{"name":"Replaced","type":"integer","description":"Values that redaction replaced","jsonPath":".status.replaced"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","description":"Sealed bytes sent","jsonPath":".status.sealedBytes"}"#,
    printcolumn = r#"{"name":"Gaps","type":"integer","description":"Things that could not be collected","jsonPath":".status.gapCount"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LogSnapshotSpec {
    /// The ticket.
    pub ticket_id: String,
    /// The control plane's request that it answers.
    pub request_id: String,
    /// Id of the grant.
    pub grant_id: String,
    /// SHA-256 of the grant's envelope, hex.
    pub grant_sha256: String,
    /// Who consented, as the portal knows them.
    pub consented_by: String,
    /// Components that were collected.
    pub components: Vec<String>,
    /// Data classes that the consent names.
    pub data_classes: Vec<String>,
    /// First instant of the records.
    #[schemars(schema_with = "super::instant")]
    pub window_from: Timestamp,
    /// Last instant of the records, fixed at the start.
    #[schemars(schema_with = "super::instant")]
    pub window_to: Timestamp,
    /// Version of the redaction rules.
    pub redaction_policy: u32,
    /// Public key it is sealed to, base64.
    pub recipient_public_key: String,
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogSnapshotStatus {
    /// Started, Succeeded, Revoked (consent ended midway) or Failed. Only a Succeeded one can be
    /// opened by its recipient.
    pub phase: String,
    /// Code of why it did not succeed; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for a person; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub started_at: Option<Timestamp>,
    /// When it ended; absent while Started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub finished_at: Option<Timestamp>,
    /// Bytes read from the cluster before redaction.
    pub raw_bytes: u64,
    /// Sealed bytes handed to the wire.
    pub sealed_bytes: u64,
    /// SHA-256 of the sealed stream, hex; on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Log files in it.
    pub files: u32,
    /// Values that redaction replaced, in all.
    pub replaced: u64,
    /// Values that redaction replaced, by class; never the values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced_by_class: BTreeMap<String, u64>,
    /// How many things could not be collected; the snapshot's errors.jsonl lists all.
    pub gap_count: u32,
    /// The first of them, redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}
