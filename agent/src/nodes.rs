//! Nodes, as far as the agent reads them (see `pods.rs` for why not whole).

use std::collections::BTreeMap;

use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// A node.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Node")]
pub(crate) struct Node {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    spec: Option<NodeSpec>,
    status: Option<NodeStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NodeSpec {
    unschedulable: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    conditions: Option<Vec<NodeCondition>>,
    node_info: Option<NodeInfo>,
    allocatable: Option<BTreeMap<String, String>>,
}

/// One thing that its kubelet says of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeCondition {
    /// Such as `Ready`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
}

/// What runs on it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeInfo {
    pub(crate) kubelet_version: String,
    pub(crate) kernel_version: String,
}

impl Node {
    pub(crate) fn is_cordoned(&self) -> bool {
        self.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    #[cfg(test)]
    pub(crate) fn cordoned(mut self) -> Self {
        self.spec = Some(NodeSpec { unschedulable: Some(true) });
        self
    }

    pub(crate) fn conditions(&self) -> &[NodeCondition] {
        self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    }

    pub(crate) fn info(&self) -> Option<&NodeInfo> {
        self.status.as_ref()?.node_info.as_ref()
    }

    /// What pods may use of `resource`, as a Kubernetes quantity.
    pub(crate) fn allocatable(&self, resource: &str) -> Option<&str> {
        self.status.as_ref()?.allocatable.as_ref()?.get(resource).map(String::as_str)
    }
}

impl NodeCondition {
    pub(crate) fn is_true(&self) -> bool {
        self.status == "True"
    }
}
