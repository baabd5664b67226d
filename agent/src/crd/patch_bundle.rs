//! PatchBundle: one release that came to this cluster, and how far its run got.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Transitions kept in one record; the oldest are dropped first.
pub const MAX_HISTORY: usize = 64;
/// Refusals kept in one record; more are counted in the last one.
pub const MAX_REFUSALS: usize = 64;

/// One release that was offered to this cluster, written by the agent alone. Its status is the
/// record from which an interrupted run goes on.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "PatchBundle",
    plural = "patchbundles",
    category = "mendix",
    namespaced,
    status = "PatchBundleStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Release","type":"string","description":"Name of the release","jsonPath":".spec.releaseId"}"#,
    printcolumn = r#"{"name":"Class","type":"string","description":"quarterly, weekly or critical","jsonPath":".spec.class"}"#,
    printcolumn = r#"{"name":"Sequence","type":"integer","description":"Its place in the order of all releases","jsonPath":".spec.sequence"}"#,
    printcolumn = r#"{"name":"State","type":"string","description":"How far it got","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Component","type":"string","description":"The component being worked on","jsonPath":".status.component"}"#,
    printcolumn = r#"{"name":"Message","type":"string","description":"Why it is in this state","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Apply By","type":"string","description":"By when it has to be committed","jsonPath":".spec.applyBy","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"When it was offered","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PatchBundleSpec {
    /// Name of the release, such as `2026.11.3`.
    pub release_id: String,
    /// Its place in the order of all releases; a cluster never goes back by itself. What the control
    /// plane claimed, if the release could not be verified.
    pub sequence: u64,
    /// quarterly, weekly or critical; absent if the release could not be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// SHA-256 of the signed index, hex; absent if it could not be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_sha256: Option<String>,
    /// By when it has to be committed: as the signed index says, else the end of the quarter in which
    /// it may begin. Past it the spread over clusters is ignored and the release is OVERDUE. Absent if
    /// the release could not be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub apply_by: Option<Timestamp>,
    /// Its components with their versions, in the order of the index.
    #[serde(default)]
    pub components: Vec<BundleComponent>,
}

/// A component as a release names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleComponent {
    /// Its name.
    pub name: String,
    /// The version that the release brings.
    pub version: String,
}

/// The record of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchBundleStatus {
    /// Epoch of the leader that wrote this last; an earlier leader writes it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Offered, Receiving, Verified, Preflighted, Scheduled, Snapshotted, Applying, Gating, Soaking,
    /// Committed, RollingBack, RolledBack, Postponed, Held or Refused.
    pub state: String,
    /// Place of the component being worked on in the order of the plan, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_index: Option<u32>,
    /// Name of that component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Stable code of why it is in this state; absent while all goes well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this state, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Everything for which the release was refused, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// When it may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub due_at: Option<Timestamp>,
    /// When its objects began to be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub finished_at: Option<Timestamp>,
    /// When the state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub changed_at: Option<Timestamp>,
    /// SHA-256 of the stored pre-images of all objects that the run touches, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_images: Option<String>,
    /// SHA-256 of the stored blobs, hex, in the order of the index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<String>,
    /// Transitions so far, at most 64, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<BundleTransition>,
}

/// One transition of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleTransition {
    /// The state that was entered.
    pub state: String,
    /// The component it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub at: Option<Timestamp>,
    /// Why, where it was not the way forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
