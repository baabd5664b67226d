//! Pods, ReplicaSets and Deployments, as far as the agent reads them: who they are, and how they are doing. What is
//! left out, what a pod should be, is a hundred types whose decoding is more code than that of any other
//! kind that the agent knows.

use k8s_openapi::{api::core::v1::PodStatus, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{Resource, api::ObjectMeta};
use serde::Deserialize;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub(crate) struct Pod {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: Option<PodSpec>,
    pub(crate) status: Option<PodStatus>,
}

/// What a pod should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    /// Where it runs; none before that was decided.
    pub(crate) node_name: Option<String>,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::apps::v1::ReplicaSet")]
pub(crate) struct ReplicaSet {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ReplicaSetSpec,
}

/// What a ReplicaSet should be.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReplicaSetSpec {
    /// Which pods are its own.
    pub(crate) selector: LabelSelector,
}

/// A Deployment.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "k8s_openapi::api::apps::v1::Deployment")]
pub(crate) struct Deployment {
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: Option<DeploymentStatus>,
}

/// How a Deployment is doing.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeploymentStatus {
    /// Pods that have been ready for as long as it asks.
    pub(crate) available_replicas: Option<i32>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_pods_and_replica_sets_are_read() {
        let spec = json!({ "nodeName": "n1", "containers": [{ "name": "a", "image": "b" }] });
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "uid": "u" }, "spec": spec,
            "status": { "phase": "Running" },
        }))
        .unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("p"));
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("n1"));
        assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
        assert_eq!((&*Pod::kind(&()), &*Pod::api_version(&())), ("Pod", "v1"));

        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": { "name": "s" },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "x" } },
                      "template": { "spec": spec } },
        }))
        .unwrap();
        assert_eq!(set.spec.selector.match_labels.unwrap()["app"], "x");
        assert_eq!(
            &*ReplicaSet::url_path(&(), Some("ns")),
            "/apis/apps/v1/namespaces/ns/replicasets"
        );
    }
}
