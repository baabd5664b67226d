//! AgentStatus: is it connected, which version runs, is anything wrong.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the one AgentStatus object.
pub const NAME: &str = "agent";

/// The agent's own state, written by the agent; there is one object, named `agent`. Nothing is
/// read from it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "AgentStatus",
    plural = "agentstatuses",
    category = "mendix",
    namespaced,
    status = "AgentStatusStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Link","type":"string","description":"State of the session with the control plane","jsonPath":".status.link"}"#,
    printcolumn = r#"{"name":"Version","type":"string","description":"Version of the agent","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Release","type":"string","description":"Last committed release","jsonPath":".status.release"}"#,
    printcolumn = r#"{"name":"Health","type":"string","description":"Health of the managed components","jsonPath":".status.health"}"#,
    printcolumn = r#"{"name":"Problem","type":"string","description":"The first thing that needs attention","jsonPath":".status.problem"}"#,
    printcolumn = r#"{"name":"Since","type":"date","description":"When the link last changed","jsonPath":".status.linkSince"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatusSpec {}

/// What the agent observes of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatusStatus {
    /// State of the session with the control plane: WaitingForConnection, Connected, Disconnected
    /// or Deregistered.
    pub link: String,
    /// When the link last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub link_since: Option<Timestamp>,
    /// Id of the session, while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Control plane's clock minus the agent's, milliseconds, measured when the session began and
    /// whenever it changed by a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_millis: Option<i64>,
    /// Layer and cause of the last failure to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Endpoint of the control plane.
    pub endpoint: String,
    /// UID of this cluster (of its kube-system namespace).
    pub cluster_uid: String,
    /// Version of the agent.
    pub version: String,
    /// The replica that leads, and wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Fencing epoch of its term; a later leader has a higher one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Version of the Kubernetes API server.
    pub kubernetes_version: String,
    /// Last committed release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Healthy, Degraded, Progressing or Unknown: the worst of the managed components.
    pub health: String,
    /// Nodes of the cluster: how many are ready, of how many, and how many AKS could not upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// The customer's Mendix apps: how many, and how many run a version that is not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<String>,
    /// Result of the last preflight: Passed, Warned or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<String>,
    /// What it found that failed, or else what is worth a look: the check, the detail, and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight_findings: Vec<String>,
    /// The first thing that needs attention; absent when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
