//! How a run ended: every object of the components and the agent's own records, without what differs
//! from run to run in any case (identities, times, counters of the server).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use mendix_e2e::install::NAMESPACE;
use serde_json::{Value, json};

use super::contents::{MONITORING, OPERATOR};

/// Objects by `Kind namespace/name`.
pub(crate) type Objects = BTreeMap<String, Value>;

/// The state after a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    /// All objects in the components' namespaces and all cluster-scoped ones that are theirs.
    pub(crate) objects: Objects,
    /// What the agent says of the components and of the run.
    pub(crate) records: Objects,
    /// What the agent still has to do: steps that follow the end of a run.
    pub(crate) unfinished: Option<String>,
    /// Identities of the objects; not compared between runs that replace objects.
    pub(crate) uids: BTreeMap<String, String>,
}

const GROUP: &str = "agent.mendix.com";
/// Label of the Secrets in which contents are stored.
const CONTENT: &str = "agent.mendix.com/content";
/// Group, version, kind, plural; namespaced ones are read in both components' namespaces.
const NAMESPACED: [(&str, &str, &str, &str); 8] = [
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("apps", "v1", "Deployment", "deployments"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    ("privatecloud.mendix.com", "v1alpha1", "OperatorConfiguration", "operatorconfigurations"),
];
const CLUSTER: [(&str, &str, &str, &str); 3] = [
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
];

impl End {
    /// Reads it; the run is that of this release.
    pub(crate) async fn read(client: &Client, release_id: &str) -> Result<Self> {
        let (mut objects, mut uids) = (Objects::new(), BTreeMap::new());
        for kind in NAMESPACED {
            for namespace in [OPERATOR, MONITORING] {
                let listed = list(client, kind, Some(namespace)).await?;
                collect(&mut objects, &mut uids, kind.2, listed)?;
            }
        }
        for kind in CLUSTER {
            let ours = |object: &DynamicObject| {
                let name = object.name_any();
                name == OPERATOR || name.ends_with(".privatecloud.mendix.com")
            };
            let listed = list(client, kind, None).await?.into_iter().filter(ours).collect();
            collect(&mut objects, &mut uids, kind.2, listed)?;
        }
        let records = Records::read(client).await?;
        let unfinished = records.unfinished();
        Ok(Self { objects, records: records.plain(release_id), unfinished, uids })
    }

    /// Where two ends differ, for people; none when they don't.
    pub(crate) fn difference(&self, reference: &Self) -> Option<String> {
        let pairs = [(&self.objects, &reference.objects), (&self.records, &reference.records)];
        for (mine, theirs) in pairs {
            for name in mine.keys().chain(theirs.keys()) {
                let (mine, theirs) = (mine.get(name), theirs.get(name));
                if mine != theirs {
                    let text = |value: Option<&Value>| value.map(Value::to_string);
                    return Some(format!(
                        "{name} is\n  {}\nand was without a kill\n  {}",
                        text(mine).unwrap_or("gone".into()),
                        text(theirs).unwrap_or("not there".into()),
                    ));
                }
            }
        }
        self.unfinished.clone()
    }

    /// Whether all objects are those that were there before, with the same content.
    pub(crate) fn is_back_at(&self, before: &Self) -> bool {
        (&self.objects, &self.uids) == (&before.objects, &before.uids)
    }
}

async fn list(
    client: &Client,
    (group, version, kind, plural): (&str, &str, &str, &str),
    namespace: Option<&str>,
) -> Result<Vec<DynamicObject>> {
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let listed =
        api.list(&ListParams::default()).await.with_context(|| format!("list {plural}"))?;
    Ok(listed.items)
}

fn collect(
    objects: &mut Objects,
    uids: &mut BTreeMap<String, String>,
    kind: &str,
    listed: Vec<DynamicObject>,
) -> Result<()> {
    for object in listed {
        let place = object.namespace().unwrap_or_default();
        let name = format!("{kind} {place}/{}", object.name_any());
        uids.insert(name.clone(), object.uid().unwrap_or_default());
        objects.insert(name, plain(serde_json::to_value(&object)?));
    }
    Ok(())
}

/// An object without what no run determines.
fn plain(mut object: Value) -> Value {
    // Written by the platform's controllers, at their own pace.
    remove(&mut object, "", "status");
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        remove(&mut object, "/metadata", field);
    }
    remove(&mut object, "/metadata/annotations", "deployment.kubernetes.io/revision");
    // Names the release that made the object.
    if let Some(maker) = object.pointer_mut("/metadata/annotations/agent.mendix.com~1created-by") {
        *maker = json!("a release");
    }
    let nothing_else = |annotations: &Value| annotations == &json!({});
    if object.pointer("/metadata/annotations").is_some_and(nothing_else) {
        remove(&mut object, "/metadata", "annotations");
    }
    if let Some(Value::Array(managers)) = object.pointer_mut("/metadata/managedFields") {
        managers.retain(|entry| entry["subresource"] != "status");
        for entry in managers.iter_mut() {
            remove(entry, "", "time");
        }
        // For the annotation that was removed above.
        managers.retain(|entry| entry["manager"] != "kube-controller-manager");
        managers.sort_by_key(|entry| format!("{} {}", entry["manager"], entry["operation"]));
    }
    object
}

fn remove(object: &mut Value, pointer: &str, field: &str) {
    if let Some(Value::Object(map)) = object.pointer_mut(pointer) {
        map.remove(field);
    }
}

/// What the agent keeps about components and runs.
struct Records {
    components: Vec<Value>,
    bundles: Vec<Value>,
    /// Digests (their first 40 hex digits) of the contents that are stored.
    contents: BTreeSet<String>,
}

impl Records {
    async fn read(client: &Client) -> Result<Self> {
        let values = async |kind, plural| -> Result<Vec<Value>> {
            let listed = list(client, (GROUP, "v1alpha1", kind, plural), Some(NAMESPACE)).await?;
            Ok(listed.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
        };
        let secrets = list(client, NAMESPACED[1], Some(NAMESPACE)).await?;
        let label = |secret: &DynamicObject| secret.labels().get(CONTENT).cloned();
        Ok(Self {
            components: values("ManagedComponent", "managedcomponents").await?,
            bundles: values("PatchBundle", "patchbundles").await?,
            contents: secrets.iter().filter_map(label).collect(),
        })
    }

    fn committed(&self) -> Vec<&Value> {
        let mut committed: Vec<&Value> =
            self.bundles.iter().filter(|bundle| bundle["status"]["state"] == "Committed").collect();
        committed.sort_by_key(|bundle| std::cmp::Reverse(bundle["spec"]["sequence"].as_u64()));
        committed
    }

    /// After the end of a run the components are settled, looked at, and contents that nothing needs
    /// are removed.
    fn unfinished(&self) -> Option<String> {
        let committed = self.committed();
        let newest = committed.first().map(|bundle| &bundle["spec"]["sequence"]);
        let mut needed = BTreeSet::new();
        let mut need = |digest: &Value| {
            needed.extend(digest.as_str().and_then(|digest| digest.get(..40)).map(str::to_owned));
        };
        for component in &self.components {
            let status = &component["status"];
            if Some(&status["sequence"]) != newest || !status["run"].is_null() {
                return Some(format!("not settled: {component}"));
            }
            if status["health"] != "Ready" {
                return Some(format!("not ready: {component}"));
            }
            [&status["indexSha256"], &status["blobSha256"]].into_iter().for_each(&mut need);
        }
        // As many as `KEPT_RELEASES` of the agent.
        for bundle in committed.iter().take(2) {
            need(&bundle["spec"]["indexSha256"]);
            bundle["status"]["blobs"].as_array().into_iter().flatten().for_each(&mut need);
        }
        (self.contents != needed)
            .then(|| format!("contents {:?} are stored, {needed:?} are needed", self.contents))
    }

    /// Without what differs between two runs of the same contents.
    fn plain(self, release_id: &str) -> Objects {
        let mut records = Objects::new();
        for mut component in self.components {
            let mut status = component["status"].take();
            for field in ["releaseId", "sequence", "indexSha256", "epoch"] {
                remove(&mut status, "", field);
            }
            if let Some(Value::Array(inventory)) = status.pointer_mut("/inventory") {
                inventory.iter_mut().for_each(|owned| remove(owned, "", "uid"));
            }
            let name = component["metadata"]["name"].as_str().unwrap_or_default();
            records.insert(format!("ManagedComponent {name}"), status);
        }
        for mut bundle in self.bundles {
            if bundle["spec"]["releaseId"] != release_id {
                continue;
            }
            let mut status = bundle["status"].take();
            for field in ["dueAt", "startedAt", "finishedAt", "changedAt", "preImages", "epoch"] {
                remove(&mut status, "", field);
            }
            if let Some(Value::Array(history)) = status.pointer_mut("/history") {
                for transition in history {
                    remove(transition, "", "at");
                    forget_pods(transition);
                }
            }
            forget_pods(&mut status);
            records.insert("PatchBundle".into(), status);
        }
        records
    }
}

/// Messages name the pods that were seen; controllers choose those names.
fn forget_pods(record: &mut Value) {
    if let Some(Value::String(message)) = record.get_mut("message")
        && let Some(at) = message.find("; pod ")
    {
        message.truncate(at);
    }
}
