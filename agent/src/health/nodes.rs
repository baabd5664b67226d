//! The nodes of the cluster.

use kube::{Api, api::ListParams};
use mendix_agent_proto::v1;

use crate::{
    cluster::{Cluster, call},
    errors::describe,
    nodes::Node,
};

/// Nodes that are reported one by one; a cluster has more rarely, and the report stays small.
const MAX_NODES: u32 = 200;
/// AKS's label for the version of a node's image.
const NODE_IMAGE: &str = "kubernetes.azure.com/node-image-version";
/// AKS's label for an upgrade of the node that got stuck.
const UPGRADE_STATUS: &str = "kubernetes.azure.com/upgrade-status";

pub(super) async fn list(cluster: &Cluster) -> Result<Vec<v1::NodeHealth>, String> {
    let api: Api<Node> = Api::all(cluster.client.clone());
    let params = ListParams::default().limit(MAX_NODES);
    let list = call("list nodes", api.list(&params)).await.map_err(|error| describe(&error))?;
    Ok(list.items.iter().map(node).collect())
}

fn node(node: &Node) -> v1::NodeHealth {
    let labels = node.metadata.labels.as_ref();
    let label = |name| labels.and_then(|labels| labels.get(name)).cloned().unwrap_or_default();
    let true_ones = || node.conditions().iter().filter(|it| it.is_true()).map(|it| &it.kind);
    v1::NodeHealth {
        name: node.metadata.name.clone().unwrap_or_default(),
        kubelet_version: node.info().map(|it| it.kubelet_version.clone()).unwrap_or_default(),
        node_image: label(NODE_IMAGE),
        ready: true_ones().any(|kind| kind == "Ready"),
        pressures: true_ones().filter(|kind| kind.ends_with("Pressure")).cloned().collect(),
        upgrade_status: label(UPGRADE_STATUS),
        cordoned: node.is_cordoned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn image_pressure_quarantine_and_cordon_are_read() {
        let seen = node(
            &serde_json::from_value(json!({
                "metadata": { "name": "n1", "labels": {
                    NODE_IMAGE: "AKSUbuntu-2404gen2containerd-202611.02.0",
                    UPGRADE_STATUS: "Quarantined",
                }},
                "spec": { "unschedulable": true },
                "status": { "conditions": [
                    { "type": "Ready", "status": "True" },
                    { "type": "MemoryPressure", "status": "True" },
                    { "type": "DiskPressure", "status": "False" },
                ]},
            }))
            .unwrap(),
        );
        assert_eq!(seen.node_image, "AKSUbuntu-2404gen2containerd-202611.02.0");
        assert_eq!(seen.upgrade_status, "Quarantined");
        assert_eq!(seen.pressures, ["MemoryPressure"]);
        assert!(seen.ready && seen.cordoned);
    }
}
