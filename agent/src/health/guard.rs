//! The guard of the agent's upgrades: without one no upgrade begins, which should be known before one
//! is due.

use kube::Api;

use crate::{
    cluster::{Cluster, call},
    errors::describe,
    pods::Deployment,
    upgrade::GUARD,
};

/// Whether a pod of the guard is available; one that was never installed is not.
pub(super) async fn is_available(cluster: &Cluster) -> Result<bool, String> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let guard = call("get Deployment mendix-agent-guard", api.get_opt(GUARD)).await;
    let guard = guard.map_err(|error| describe(&error))?;
    let status = guard.and_then(|guard| guard.status);
    Ok(status.and_then(|status| status.available_replicas).is_some_and(|pods| pods > 0))
}
