//! LogSharingPolicy: the customer's switch for log sharing. The agent only reads it.

use kube::CustomResource;
use mendix_agent_core::{
    consent::policy::{ExtraPatterns, LocalPolicy, Mode},
    ordered,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the one LogSharingPolicy object that counts.
pub const NAME: &str = "default";

/// Whether logs of managed components may leave this cluster; written by the customer. The one
/// object named `default` counts; while it does not exist, nothing is shared.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "LogSharingPolicy",
    plural = "logsharingpolicies",
    category = "mendix",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Mode","type":"string","description":"WithConsent or Deny","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Suspend","type":"boolean","description":"Whether sharing is stopped for now","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Max window","type":"integer","description":"Hours that a snapshot may reach back","jsonPath":".spec.maxWindowHours"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSharingPolicySpec {
    /// WithConsent: a snapshot may leave while a support ticket with your consent is active. Deny:
    /// never.
    pub mode: SharingMode,
    /// Stops sharing for now; a snapshot that is being sent ends within a second.
    #[serde(default)]
    pub suspend: bool,
    /// Components whose logs never leave, by exact name (see `kubectl get managedcomponents`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_components: Vec<String>,
    /// How many hours a snapshot may reach back; absent: as far as the consent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 168))]
    pub max_window_hours: Option<u32>,
    /// Regular expressions of your own: what they match is replaced before a log leaves, besides what
    /// the agent finds by itself. With capturing groups, only what those match. Each line is looked
    /// at for itself. A pattern that can't be used stops all sharing; the agent says which, in an
    /// event about this object and on every SupportTicket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    pub extra_patterns: Vec<String>,
}

/// Whether logs may be shared at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SharingMode {
    /// With a ticket's consent.
    WithConsent,
    /// Never.
    Deny,
}

impl From<&LogSharingPolicySpec> for LocalPolicy {
    fn from(spec: &LogSharingPolicySpec) -> Self {
        Self {
            mode: match spec.mode {
                SharingMode::WithConsent => Mode::WithConsent,
                SharingMode::Deny => Mode::Deny,
            },
            suspend: spec.suspend,
            excluded_components: ordered::set(spec.excluded_components.iter().cloned()),
            max_window_hours: spec.max_window_hours,
            extra_patterns: ExtraPatterns::new(spec.extra_patterns.clone()),
        }
    }
}
