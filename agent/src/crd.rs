//! The objects that customers and SREs look at: `kubectl get mendix -A`.
//!
//! Group `agent.mendix.com`, version `v1alpha1`, category `mendix`, all namespaced, all in the
//! agent's namespace. `mendix-agent crds` prints `packaging/manifests/00-crds.yaml`; a test keeps that file
//! equal to what these types say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, Resource};

pub mod agent_status;
pub mod log_sharing_policy;
pub mod log_snapshot;
pub mod managed_component;
pub mod patch_bundle;
pub mod support_ticket;
pub mod upgrade_trial;

/// API group of the agent's custom resources.
pub const GROUP: &str = "agent.mendix.com";

/// All definitions as YAML documents, as they are installed.
pub const YAML: &str = include_str!("../../packaging/manifests/00-crds.yaml");

/// Every custom resource definition of the agent, in the order in which they are installed. What made
/// [`YAML`]: the program has no use for it, since a definition is several hundred times as large as
/// what is asked of it at run time ([`served`]).
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

/// A kind of the agent's, as an API server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Group and version, such as `agent.mendix.com/v1alpha1`.
    pub api_version: String,
    /// Plural name, such as `agentstatuses`.
    pub plural: String,
}

/// What an API server serves when all definitions are installed, in their order.
pub fn served() -> [Served; 7] {
    fn of<K: Resource<DynamicType = ()>>() -> Served {
        let (api_version, plural) = (K::api_version(&()), K::plural(&()));
        Served { api_version: api_version.into_owned(), plural: plural.into_owned() }
    }
    [
        of::<agent_status::AgentStatus>(),
        of::<managed_component::ManagedComponent>(),
        of::<patch_bundle::PatchBundle>(),
        of::<upgrade_trial::UpgradeTrial>(),
        of::<support_ticket::SupportTicket>(),
        of::<log_snapshot::LogSnapshot>(),
        of::<log_sharing_policy::LogSharingPolicy>(),
    ]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_installed() {
        let installed: Vec<Served> = all()
            .into_iter()
            .flat_map(|crd| {
                let (group, plural) = (crd.spec.group, crd.spec.names.plural);
                crd.spec.versions.into_iter().filter(|version| version.storage).map(
                    move |version| Served {
                        api_version: format!("{group}/{}", version.name),
                        plural: plural.clone(),
                    },
                )
            })
            .collect();
        assert_eq!(served().to_vec(), installed);
    }
}
