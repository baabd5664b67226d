//! Custom resources of the Mendix Operator: what support asks for first, with their values masked.
//!
//! Where the agent may read them: in the managed namespaces, and in that of the apps MendixApps, and the
//! others where a customer gave the right. What is not readable is declared, once for a namespace.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use mendix_agent_core::{archive::EntryPath, masked};
use serde_json::json;

use super::{Closed, Collector, apps, found::Found, status::Lines};
use crate::{errors::describe, logs::objects::list};

/// Group and version of the kinds.
const GROUP: (&str, &str) = ("privatecloud.mendix.com", "v1alpha1");
/// The kinds.
const KINDS: [&str; 8] = [
    "OperatorConfiguration",
    "OperatorVersion",
    "MendixApp",
    "Build",
    "Endpoint",
    "Runtime",
    "StorageInstance",
    "StoragePlan",
];

/// All of them in the components' namespaces and the apps'.
pub(super) async fn resources(collector: &Collector, found: &Found) -> Result<(), Closed> {
    let mut lines = Lines::new(collector, "resources");
    let mut namespaces = found.namespaces.clone();
    namespaces.insert(apps::NAMESPACE.to_owned());
    for namespace in namespaces {
        let mut unreadable = vec![];
        let mut why = None;
        for kind in KINDS {
            let gvk = GroupVersionKind::gvk(GROUP.0, GROUP.1, kind);
            let client = collector.scope.cluster.client.clone();
            let api: Api<DynamicObject> =
                Api::namespaced_with(client, &namespace, &ApiResource::from_gvk(&gvk));
            match list(&api, "list resources of the Operator").await {
                Ok(objects) => objects.into_iter().for_each(|object| {
                    lines.push(json!({
                        "kind": kind, "namespace": namespace, "name": object.metadata.name,
                        "generation": object.metadata.generation,
                        "created": object.metadata.creation_timestamp,
                        "deleted": object.metadata.deletion_timestamp,
                        "spec": object.data.get("spec").map(masked::masked),
                        "status": object.data.get("status"),
                    }));
                }),
                // No such kind: no such object.
                Err(error) if error.is(404) => {}
                Err(error) => {
                    unreadable.push(kind);
                    why.get_or_insert_with(|| describe(&error));
                }
            }
        }
        if let Some(why) = why {
            let detail = format!("{}: {why}", unreadable.join(", "));
            collector.gap(&format!("{namespace}/resources"), "NotListed", &detail).await?;
        }
    }
    lines.send(EntryPath::resources()).await
}
