//! ManagedComponent: what a component owns in this cluster, and whether somebody else changed it.

use jiff::Timestamp;
use kube::CustomResource;
use mendix_agent_core::bundle::object::{IdFields, ObjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A component that releases manage, written by the agent alone. Its status holds the inventory from
/// which drift is found and what a release no longer names is pruned.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agent.mendix.com",
    version = "v1alpha1",
    kind = "ManagedComponent",
    plural = "managedcomponents",
    category = "mendix",
    namespaced,
    status = "ManagedComponentStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Version","type":"string","description":"Version of the last committed release that named it","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Health","type":"string","description":"Ready, Progressing, Degraded or Unknown","jsonPath":".status.health"}"#,
    printcolumn = r#"{"name":"Objects","type":"integer","description":"How many objects it owns","jsonPath":".status.objects"}"#,
    printcolumn = r#"{"name":"Drift","type":"integer","description":"Changes by others that were put back","jsonPath":".status.driftCorrected"}"#,
    printcolumn = r#"{"name":"Message","type":"string","description":"The first thing that needs attention","jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedComponentSpec {
    /// Name of the component.
    pub component: String,
}

/// What the agent knows of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedComponentStatus {
    /// Epoch of the leader that wrote this last; an earlier leader writes it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Version of the last committed release that named it; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_id: Option<String>,
    /// Sequence of that release; 0 before the first.
    pub sequence: u64,
    /// SHA-256 of that release's index, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_sha256: Option<String>,
    /// SHA-256 of the stored blob with its objects, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_sha256: Option<String>,
    /// Ready, Progressing, Degraded or Unknown; absent before it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The first thing that needs attention; absent when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many objects it owns.
    pub objects: u32,
    /// The objects it owns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory: Vec<OwnedObject>,
    /// The run that is about to change it, recorded before it does; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<ComponentRun>,
    /// Changes by others that were put back, since the component came.
    pub drift_corrected: u64,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drift: Option<LastDrift>,
}

impl ManagedComponent {
    /// Whether a release of it was committed here.
    pub fn has_release(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.version.is_some())
    }
}

/// An object that a component owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedObject {
    /// API group; absent for the core group. (No field of a record is ever an empty string: the oldest
    /// API server this runs on takes those for null and refuses them.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// API version inside the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID it had when the release was committed, or when it was made again since; absent if it was
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// First 16 hex digits of the SHA-256 of the object as the release wants it; absent for an object
    /// that no release names any more and that is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl OwnedObject {
    /// An entry of the inventory.
    pub fn new(id: &ObjectId, uid: Option<String>, hash: Option<String>) -> Self {
        let IdFields { group, version, kind, namespace, name } = IdFields::clone(id);
        let group = Some(group).filter(|group| !group.is_empty());
        Self { group, version, kind, namespace, name, uid, hash }
    }

    /// Whether it is this object.
    pub fn is(&self, id: &ObjectId) -> bool {
        let group = self.group.as_deref().unwrap_or_default();
        (group, &self.kind, &self.namespace, &self.name)
            == (&id.group, &id.kind, &id.namespace, &id.name)
    }

    /// Which object it is, and its UID.
    pub fn into_id(self) -> (ObjectId, Option<String>) {
        let Self { group, version, kind, namespace, name, uid, .. } = self;
        let id = ObjectId::from(IdFields {
            group: group.unwrap_or_default(),
            version,
            kind,
            namespace,
            name,
        });
        (id, uid)
    }
}

/// A run as a component sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentRun {
    /// Name of the PatchBundle.
    pub bundle: String,
    /// Version it brings.
    pub version: String,
    /// How many objects it is about to apply.
    pub objects: u32,
}

/// A change by somebody else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDrift {
    /// `Kind namespace/name`.
    pub object: String,
    /// Field paths that were put back; never values.
    pub fields: Vec<String>,
    /// Field managers that claim the change. Chosen by those clients: claims, not proofs.
    pub claimed_by: String,
    /// When it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub found_at: Option<Timestamp>,
    /// When it was put back; absent while it waits, because the other writer keeps coming back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::date_time")]
    pub corrected_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::bundle::admission::recorded_bytes;

    use super::*;

    #[test]
    fn admission_counts_what_an_object_takes_in_the_record() {
        let uid = "6e7a9c3e-1f0b-4f2e-9a59-3f6a2f9d7c11".to_owned();
        for (group, namespace) in [
            ("", None),
            ("", Some("shop")),
            ("apps", None),
            ("rbac.authorization.k8s.io", Some("shop")),
        ] {
            let id = ObjectId::from(IdFields {
                group: group.into(),
                version: "v1beta1".into(),
                kind: "RoleBinding".into(),
                namespace: namespace.map(str::to_owned),
                name: "system:auth-delegator.1_2".into(),
            });
            let owned = OwnedObject::new(&id, Some(uid.clone()), Some("0123456789abcdef".into()));
            let written = serde_json::to_vec(&owned).unwrap();
            // And the comma before the next one.
            assert_eq!(recorded_bytes(&id), written.len() + 1, "{id}");
        }
    }
}
