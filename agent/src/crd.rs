//! The objects that customers and SREs look at: `kubectl get mendix -A`.
//!
//! Group `agent.mendix.com`, version `v1alpha1`, category `mendix`, all namespaced, all in the
//! agent's namespace. `mendix-agent crds` prints them; a test keeps `packaging/manifests/00-crds.yaml`
//! equal to what these types say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub mod agent_status;
pub mod log_sharing_policy;
pub mod log_snapshot;
pub mod managed_component;
pub mod patch_bundle;
pub mod support_ticket;
pub mod upgrade_trial;

/// API group of the agent's custom resources.
pub const GROUP: &str = "agent.mendix.com";

/// Every custom resource definition of the agent, in the order in which they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        agent_status::AgentStatus::crd(),
        managed_component::ManagedComponent::crd(),
        patch_bundle::PatchBundle::crd(),
        upgrade_trial::UpgradeTrial::crd(),
        support_ticket::SupportTicket::crd(),
        log_snapshot::LogSnapshot::crd(),
        log_sharing_policy::LogSharingPolicy::crd(),
    ]
}

/// All definitions as YAML documents: what `packaging/manifests/00-crds.yaml` holds.
///
/// # Errors
/// When a definition can't be written as YAML.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::from(
        "# Written by `mendix-agent crds`; a test keeps it equal to the types in agent/src/crd.\n",
    );
    for crd in all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(text)
}

/// Schema of an optional RFC 3339 time, for fields of type `Option<jiff::Timestamp>`:
/// `#[schemars(schema_with = "super::date_time")]`. `kubectl` shows such a column as an age.
fn date_time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}

/// Schema of an RFC 3339 time that is always there: `#[schemars(schema_with = "super::instant")]`.
fn instant(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "format": "date-time" })
}
