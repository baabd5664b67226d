//! AgentStatus: is it connected, which version runs, is anything wrong.

use jiff::Timestamp;
use kube::CustomResource;
use mendix_agent_core::initialization::{Obstacle, Phase, Record, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the one AgentStatus object.
pub const NAME: &str = "agent";

/// The agent's own state, written by the agent; there is one object, named `agent`. To have a failed
/// initialization run again, set the annotation `agent.mendix.com/rerun` to any new value.
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
    /// The release that is under way: its state, and what it does or waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
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
    /// How far the installation has come: from the agent's first start to its first committed release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialization: Option<Initialization>,
}

/// One attempt at the installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Initialization {
    /// 1 is the installation, each rerun counts one up.
    pub attempt: u32,
    /// Running, Failed or Initialized.
    pub state: String,
    /// What it waits for, or failed at: Preflight, Enrollment, Connection or FirstRelease.
    pub phase: String,
    /// The check that fails: one of preflight, or release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_check: Option<String>,
    /// What was seen and what to do, or else what it does at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the attempt began.
    #[schemars(schema_with = "super::date_time")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub ended_at: Option<Timestamp>,
    /// The value of the annotation agent.mendix.com/rerun that was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// The control plane's request that began this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A word that this version does not write.
#[derive(Debug, thiserror::Error)]
#[error("status.initialization.{field} is {word:?}, which this version does not know")]
pub struct UnknownWord {
    field: &'static str,
    word: String,
}

impl From<&Record> for Initialization {
    fn from(record: &Record) -> Self {
        let words = record.in_words();
        Self {
            attempt: record.attempt,
            state: record.state.word().to_owned(),
            phase: record.phase.word().to_owned(),
            failing_check: record.obstacle.as_ref().map(|obstacle| obstacle.check.clone()),
            message: (!words.is_empty()).then_some(words),
            started_at: record.started_at,
            ended_at: record.ended_at,
            rerun: record.rerun.clone(),
            request: record.request.clone(),
        }
    }
}

impl TryFrom<&Initialization> for Record {
    type Error = UnknownWord;

    fn try_from(kept: &Initialization) -> Result<Self, UnknownWord> {
        let unknown = |field, word: &str| UnknownWord { field, word: word.to_owned() };
        let state = State::ALL.into_iter().find(|state| state.word() == kept.state);
        let phase = Phase::ALL.into_iter().find(|phase| phase.word() == kept.phase);
        let words = kept.message.clone().unwrap_or_default();
        let obstacle = kept.failing_check.as_ref();
        let obstacle =
            obstacle.map(|check| Obstacle { check: check.clone(), detail: words.clone() });
        Ok(Self {
            attempt: kept.attempt,
            state: state.ok_or_else(|| unknown("state", &kept.state))?,
            phase: phase.ok_or_else(|| unknown("phase", &kept.phase))?,
            message: if obstacle.is_some() { String::new() } else { words },
            obstacle,
            started_at: kept.started_at,
            ended_at: kept.ended_at,
            rerun: kept.rerun.clone(),
            request: kept.request.clone(),
        })
    }
}
