//! Pods of the customer's Mendix apps, for a consent that names their logs.
//!
//! Runtime logs are the customer's application data: a class of their own that a grant has to name,
//! and a namespace that the agent may not read unless the customer installs
//! `packaging/optional/runtime-logs.yaml`. An app is a MendixApp object; its pods carry its name in a
//! label and are controlled by a ReplicaSet of its Deployments `<app>-master` and `<app>-worker`.

use std::collections::BTreeSet;

use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};

use super::{Closed, Collector, found::Found};
use crate::{
    cluster::ApiError,
    errors::describe,
    logs::{
        objects::list,
        pages::{PAGE, Pages},
    },
    pods::Pod,
};

/// The namespace that apps run in.
pub(super) const NAMESPACE: &str = "mendix";
/// The label that names a pod's app.
const LABEL: &str = "privatecloud.mendix.com/app";

/// Adds the pods of all apps. What can't be read is declared.
pub(super) async fn find(collector: &Collector, found: &mut Found) -> Result<(), Closed> {
    match pods(collector, found).await {
        Err(error) if error.is(404) => {
            collector.gap("runtime-logs", "NoApps", "this cluster has no Mendix apps").await
        }
        Ok(0) => collector.gap("runtime-logs", "NoApps", "there is no Mendix app here").await,
        Ok(_) => Ok(()),
        Err(error) => collector.gap("runtime-logs", "NotListed", &describe(&error)).await,
    }
}

/// Gives how many apps there are.
async fn pods(collector: &Collector, found: &mut Found) -> Result<usize, ApiError> {
    let client = &collector.scope.cluster.client;
    let kind = GroupVersionKind::gvk("privatecloud.mendix.com", "v1alpha1", "MendixApp");
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind));
    let apps: BTreeSet<String> =
        list(&api, "list MendixApps").await?.iter().map(ResourceExt::name_any).collect();
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let params = ListParams::default().limit(PAGE).labels(LABEL);
    let mut pages = Pages::new(api, params, "list pods of apps");
    while let Some(pods) = pages.next().await? {
        for pod in pods.iter().filter(|pod| runs_app(pod, &apps)) {
            found.take(NAMESPACE, pod, true, false);
        }
    }
    Ok(apps.len())
}

fn runs_app(pod: &Pod, apps: &BTreeSet<String>) -> bool {
    let Some(app) = pod.labels().get(LABEL).filter(|app| apps.contains(*app)) else {
        return false;
    };
    pod.owner_references().iter().any(|owner| {
        let of = |role: &str| {
            let hash =
                owner.name.strip_prefix(app.as_str()).and_then(|rest| rest.strip_prefix(role));
            hash.is_some_and(|hash| !hash.is_empty() && !hash.contains('-'))
        };
        owner.controller == Some(true)
            && owner.kind == "ReplicaSet"
            && (of("-master-") || of("-worker-"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_apps_pods_are_known_by_label_and_owner() {
        let apps = BTreeSet::from(["shop".to_owned()]);
        let pod = |label: &str, kind: &str, owner: &str, controller: bool| {
            let pod: Pod = serde_json::from_value(json!({ "metadata": {
                "labels": { LABEL: label },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": owner,
                                      "uid": "u", "controller": controller }],
            }}))
            .unwrap();
            runs_app(&pod, &apps)
        };
        assert!(pod("shop", "ReplicaSet", "shop-master-5f6d", true));
        assert!(pod("shop", "ReplicaSet", "shop-worker-5f6d", true));
        assert!(!pod("shop", "ReplicaSet", "shop-database-5f6d", true));
        assert!(!pod("shop", "ReplicaSet", "shop-master-two-5f6d", true));
        assert!(!pod("shop", "ReplicaSet", "shop-master-5f6d", false));
        assert!(!pod("shop", "Job", "shop-master-5f6d", true));
        assert!(!pod("other", "ReplicaSet", "other-master-5f6d", true));
    }
}
