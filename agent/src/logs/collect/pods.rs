//! Which pods belong to the components of a consent.
//!
//! From the inventory that the patch path keeps: by namespace, through controlling owner references,
//! by UID (workload → ReplicaSet → pod), and by the labels that the owner selects. Each alone could be
//! copied onto a pod by whoever may create one; a pod that has all three is one that the workload's
//! controller counts as its own. Nothing from the wire takes part, and no pattern.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use mendix_agent_core::consent::grant::DataClass;

use super::{
    Closed, Collector, apps,
    found::{Found, MAX_PODS, MAX_STREAMS},
};
use crate::{
    cluster::{ApiError, call},
    crd::managed_component::OwnedObject,
    errors::describe,
    logs::pages::{PAGE, Pages},
    pods::{Pod, ReplicaSet},
};

/// Workloads that control pods without a ReplicaSet in between, as the inventory names them.
const CONTROLLERS: [&str; 3] = ["StatefulSet", "DaemonSet", "Job"];

/// Finds them. What can't be listed is declared as a gap.
pub(super) async fn find(collector: &Collector) -> Result<Found, Closed> {
    let mut found = Found::default();
    let wanted = collector.scope.components();
    let mut inventory = vec![];
    for component in &collector.components {
        if wanted.contains(&component.spec.component) {
            inventory.extend(component.status.iter().flat_map(|status| &status.inventory));
        }
    }
    found.uids.extend(inventory.iter().filter_map(|object| object.uid.clone()));
    found.namespaces.extend(inventory.iter().filter_map(|object| object.namespace.clone()));
    for namespace in found.namespaces.clone() {
        let in_it = |object: &&&OwnedObject| object.namespace.as_ref() == Some(&namespace);
        let inventory: Vec<_> = inventory.iter().filter(in_it).copied().collect();
        if let Err(error) = in_namespace(collector, &namespace, &inventory, &mut found).await {
            collector.gap(&namespace, "NotListed", &describe(&error)).await?;
        }
    }
    if collector.scope.allows(DataClass::RuntimeLogs) {
        apps::find(collector, &mut found).await?;
    }
    let over = found.finish();
    if let Some(streams) = over.streams {
        let detail = format!("{streams} logs; the first {MAX_STREAMS} are in");
        collector.gap("logs", "TooManyStreams", &detail).await?;
    }
    if let Some(pods) = over.pods {
        let detail = format!("{pods} pods; the first {MAX_PODS} are in");
        collector.gap("status", "TooManyPods", &detail).await?;
    }
    Ok(found)
}

/// Labels that an owner's pods have, by the owner's UID.
type Owners = HashMap<String, BTreeMap<String, String>>;

async fn in_namespace(
    collector: &Collector,
    namespace: &str,
    inventory: &[&OwnedObject],
    found: &mut Found,
) -> Result<(), ApiError> {
    let client = &collector.scope.cluster.client;
    let workloads: HashSet<&str> = inventory.iter().filter_map(|o| o.uid.as_deref()).collect();
    let mut owners = Owners::new();
    for object in inventory.iter().filter(|o| CONTROLLERS.contains(&o.kind.as_str())) {
        owners.extend(controller(collector, namespace, object).await?);
    }
    let replica_sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let page = || ListParams::default().limit(PAGE);
    let mut pages = Pages::new(replica_sets, page(), "list ReplicaSets");
    while let Some(sets) = pages.next().await? {
        for set in sets {
            let ours = owner(set.owner_references()).is_some_and(|uid| workloads.contains(uid));
            if let (Some(uid), true) = (set.uid(), ours) {
                found.uids.insert(uid.clone());
                owners.insert(uid, labels(set.spec.selector));
            }
        }
    }
    let logs = collector.scope.allows(DataClass::ComponentLogs);
    let own = namespace == collector.scope.cluster.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pages = Pages::new(pods, page(), "list pods");
    while let Some(pods) = pages.next().await? {
        for pod in pods.iter().filter(|pod| belongs(pod, &owners)) {
            found.take(namespace, pod, logs, own);
        }
    }
    Ok(())
}

/// The labels a workload of the inventory selects, if it is still the one that was recorded.
async fn controller(
    collector: &Collector,
    namespace: &str,
    object: &OwnedObject,
) -> Result<Option<(String, BTreeMap<String, String>)>, ApiError> {
    let kind = GroupVersionKind::gvk(
        object.group.as_deref().unwrap_or_default(),
        &object.version,
        &object.kind,
    );
    let client = collector.scope.cluster.client.clone();
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind));
    let live = call("get a workload", api.get_opt(&object.name)).await?;
    Ok(live.filter(|live| live.uid() == object.uid).and_then(|live| {
        let selector = live.data.get("spec")?.get("selector")?.clone();
        let selector: LabelSelector = serde_json::from_value(selector).ok()?;
        Some((live.uid()?, labels(selector)))
    }))
}

fn labels(selector: LabelSelector) -> BTreeMap<String, String> {
    selector.match_labels.unwrap_or_default()
}

/// UID of the controlling owner; other owners don't count.
fn owner(owners: &[OwnerReference]) -> Option<&str> {
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Whether a pod is controlled by one of `owners`, and has the labels that this owner selects.
fn belongs(pod: &Pod, owners: &Owners) -> bool {
    let selected = owner(pod.owner_references()).and_then(|uid| owners.get(uid));
    // An owner that selects by no label selects nothing.
    selected.is_some_and(|selected| {
        !selected.is_empty()
            && selected.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_controlling_owner_counts_and_only_with_the_labels_it_selects() {
        let select = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
        let owners =
            Owners::from([("a".to_owned(), select("x")), ("all".to_owned(), BTreeMap::new())]);
        let pod = |uid: &str, controller: Option<bool>, label: &str| {
            serde_json::from_value::<Pod>(json!({ "metadata": {
                "labels": { "app": label, "more": "m" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "X", "name": "n", "uid": "b" },
                    { "apiVersion": "v1", "kind": "X", "name": "n", "uid": uid,
                      "controller": controller },
                ],
            }}))
            .unwrap()
        };
        assert!(belongs(&pod("a", Some(true), "x"), &owners));
        assert!(!belongs(&pod("a", None, "x"), &owners));
        assert!(!belongs(&pod("a", Some(false), "x"), &owners));
        assert!(!belongs(&pod("a", Some(true), "y"), &owners), "an owner that it only claims");
        assert!(!belongs(&pod("c", Some(true), "x"), &owners), "a label that it only wears");
        assert!(!belongs(&pod("all", Some(true), "x"), &owners));
        assert!(!belongs(&Pod::default(), &owners));
    }
}
