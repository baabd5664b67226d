//! Every object of a cluster by name: what somebody left behind is what is in a later inventory and was
//! not in an earlier one.

use std::collections::BTreeSet;

use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    discovery::{Discovery, verbs},
};

/// The namespaces that every cluster has. The API server makes them while it serves already.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// What the cluster writes by itself, and what is only another name for it.
const OF_THE_CLUSTER: [&str; 4] = ["Event", "Lease", "Endpoints", "EndpointSlice"];

/// Every object, as `KIND NAMESPACE/NAME`; nothing while a group of the API comes or goes, or when the
/// API server did not answer.
pub async fn inventory(client: &Client) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let served = Discovery::new(client.clone()).run().await.ok()?;
    for group in served.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let own = OF_THE_CLUSTER.contains(&&*resource.kind);
            if own || !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = match api.list(&ListParams::default()).await {
                Ok(list) => list,
                // A kind that went away since it was discovered has no objects.
                Err(kube::Error::Api(answer)) if answer.code < 500 => continue,
                Err(_) => return None,
            };
            for object in list.items {
                let (namespace, name) = (
                    object.metadata.namespace.unwrap_or_default(),
                    object.metadata.name.unwrap_or_default(),
                );
                all.insert(format!("{} {namespace}/{name}", resource.kind));
            }
        }
    }
    Some(all)
}

/// What keeps a cluster from being as it will be until somebody makes an object: the API server and the
/// controllers write their first objects one after the other, for seconds after the cluster is ready. An
/// inventory that is taken before misses some, and later takes them for somebody's.
#[must_use]
pub fn unsettled(inventory: &BTreeSet<String>) -> Option<String> {
    let authentication = "ConfigMap kube-system/extension-apiserver-authentication";
    let mut wanted = vec![authentication.to_owned()];
    for namespace in NAMESPACES {
        wanted.push(format!("Namespace /{namespace}"));
        wanted.push(format!("ServiceAccount {namespace}/default"));
        wanted.push(format!("ConfigMap {namespace}/kube-root-ca.crt"));
    }
    wanted.into_iter().find(|wanted| !inventory.contains(wanted))
}

/// Whether an entry is what the controllers put into every namespace.
#[must_use]
pub fn made_by_controllers(entry: &str) -> bool {
    let is = |kind: &str, name: &str| entry.starts_with(kind) && entry.contains(name);
    is("ServiceAccount ", "/default")
        || is("Secret ", "/default-token-")
        || is("ConfigMap ", "/kube-root-ca.crt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_settled_when_each_of_its_namespaces_has_what_the_controllers_put_there() {
        let mut now: BTreeSet<String> =
            ["ConfigMap kube-system/extension-apiserver-authentication".to_owned()].into();
        for namespace in NAMESPACES {
            now.insert(format!("Namespace /{namespace}"));
            now.insert(format!("ServiceAccount {namespace}/default"));
            now.insert(format!("ConfigMap {namespace}/kube-root-ca.crt"));
        }
        assert_eq!(unsettled(&now), None);
        for entry in now.clone() {
            let mut less = now.clone();
            less.remove(&entry);
            assert_eq!(unsettled(&less), Some(entry));
        }
    }
}
