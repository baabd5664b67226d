//! The objects that customers and SREs look at: `kubectl get mendix -A`.
//!
//! Group `agent.mendix.com`, version `v1alpha1`, category `mendix`, all namespaced, all in the
//! agent's namespace. `mendix-agent crds` prints them; a snapshot test keeps them reviewed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// API group of the agent's custom resources.
pub const GROUP: &str = "agent.mendix.com";

/// Every custom resource definition of the agent, in the order in which they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![]
}
