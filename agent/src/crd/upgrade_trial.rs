//! UpgradeTrial: a new version of the agent that has to prove itself, and what became of it.

use std::time::Duration;

use jiff::Timestamp;
use kube::CustomResource;
use mendix_agent_core::upgrade::Phase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A new version of the agent, opened by the agent and ended by whichever comes first: the new
/// version, which commits it, or `mendix-agent-guard`, which puts the former version back.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "UpgradeTrial",
    plural = "upgradetrials",
    category = "mendix",
    namespaced,
    status = "UpgradeTrialStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Release","type":"string","description":"The release that brings it","jsonPath":".spec.releaseId"}"#,
    printcolumn = r#"{"name":"Version","type":"string","description":"The version on trial","jsonPath":".spec.version"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","description":"Proposed, Trial, Committed, Reverting, Reverted or Withdrawn","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Cause","type":"string","description":"Why it was reverted","jsonPath":".status.cause"}"#,
    printcolumn = r#"{"name":"Deadline","type":"string","description":"Until when the new version has to commit","jsonPath":".status.deadline"}"#,
    printcolumn = r#"{"name":"Message","type":"string","description":"What was seen","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"When it was opened","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeTrialSpec {
    /// The PatchBundle whose last component this is.
    pub bundle: String,
    /// Name of its release.
    pub release_id: String,
    /// Version of the agent that the release names.
    pub version: String,
    /// Image of the agent on trial, by digest.
    pub image: String,
    /// `spec` of Deployment mendix-agent before the trial, as JSON: what the guard puts back.
    pub pre_image: String,
    /// How long the new version has to commit, seconds from the beginning of the trial.
    pub lasts_seconds: u32,
    /// For how long on end it has to hold a session with the control plane, seconds.
    pub hold_seconds: u32,
}

/// How far a trial is. Every change is a compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeTrialStatus {
    /// Proposed: the guard has not taken it up yet. Trial: the new version has to commit until the
    /// deadline. Committed: it has. Reverting and Reverted: it has not, and the guard puts the former
    /// version back. Withdrawn: no guard took it up, and nothing was changed.
    pub phase: String,
    /// Until when the new version has to commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub deadline: Option<Timestamp>,
    /// When the guard took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub began_at: Option<Timestamp>,
    /// How often Lease mendix-agent had changed hands then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<u64>,
    /// Why the guard ended it: DeadlinePassed, CrashLoop or Flapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What was seen, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the phase last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub changed_at: Option<Timestamp>,
}

impl UpgradeTrial {
    /// Its phase; none if the record names one that this build does not know. One without status was
    /// made and not yet taken up.
    pub fn phase(&self) -> Option<Phase> {
        match &self.status {
            None => Some(Phase::Proposed),
            Some(status) => Phase::parse(&status.phase),
        }
    }

    /// How long it lasts.
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(self.spec.lasts_seconds.into())
    }

    /// For how long on end a session has to be held.
    pub fn hold(&self) -> Duration {
        Duration::from_secs(self.spec.hold_seconds.into())
    }
}
