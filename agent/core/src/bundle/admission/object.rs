//! Checks on one object: where it lives, whether the component may own it, and that it holds
//! nothing that only servers, controllers or the agent itself may write.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    AGENT_COMPONENT, AGENT_GROUP, ClusterFacts, DENIED_NAMESPACES, KindScope, Reason, Refusal,
};
use crate::bundle::{
    index::ComponentEntry,
    kind,
    object::{Object, ObjectId},
};

/// Metadata that servers and controllers set. In a release it would take objects over, keep them
/// from being deleted, tie their life to others or pretend to somebody else's ownership.
const FORBIDDEN_METADATA: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Which kinds live in a namespace, as far as it is known.
pub(super) struct Scopes(BTreeMap<String, KindScope>);

impl Scopes {
    /// What discovery says, overruled by the CRDs of the release: they come first.
    pub(super) fn new<'a>(facts: &ClusterFacts, objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut scopes = facts.custom_kinds.clone();
        for object in objects.filter(|object| is_crd(&object.id)) {
            let text = |pointer| object.body.pointer(pointer).and_then(Value::as_str);
            if let (Some(group), Some(kind), Some(scope)) =
                (text("/spec/group"), text("/spec/names/kind"), text("/spec/scope"))
            {
                let scope = match scope {
                    "Namespaced" => KindScope::Namespaced,
                    _ => KindScope::Cluster,
                };
                scopes.insert(format!("{group}/{kind}"), scope);
            }
        }
        Self(scopes)
    }

    fn of(&self, id: &ObjectId) -> Option<KindScope> {
        match kind::is_namespaced(id) {
            Some(true) => Some(KindScope::Namespaced),
            Some(false) => Some(KindScope::Cluster),
            None => self.0.get(&id.group_kind()).copied(),
        }
    }
}

fn is_crd(id: &ObjectId) -> bool {
    id.group == "apiextensions.k8s.io" && id.kind == "CustomResourceDefinition"
}

/// Adds everything that is wrong with one object.
pub(super) fn check(
    entry: &ComponentEntry,
    object: &Object,
    facts: &ClusterFacts,
    scopes: &Scopes,
    refusals: &mut Vec<Refusal>,
) {
    let id = &object.id;
    let mut refuse = |reason, field: &str, found: String| {
        refusals.push(Refusal::object(entry, id, reason, field, found));
    };
    if id.kind.ends_with("List") && object.body.get("items").is_some() || id.kind == "List" {
        refuse(Reason::ListForbidden, "kind", format!("{} holds other objects", id.kind));
    }
    if !entry.scope.kinds.contains(&id.group_kind()) {
        refuse(Reason::KindOutOfScope, "kind", format!("{} is not in scope", id.group_kind()));
    }

    match (scopes.of(id), &id.namespace) {
        (Some(KindScope::Namespaced), None) => {
            refuse(Reason::NamespaceMissing, "metadata.namespace", "is missing".into());
        }
        (Some(KindScope::Cluster), Some(namespace)) => {
            let found = format!("is {namespace:?}, and {} has none", id.kind);
            refuse(Reason::NamespaceUnexpected, "metadata.namespace", found);
        }
        _ => {}
    }
    // A Namespace object counts as being inside the namespace it makes.
    let is_namespace = id.group.is_empty() && id.kind == "Namespace";
    let (field, namespace) = if is_namespace {
        ("metadata.name", Some(&id.name))
    } else {
        ("metadata.namespace", id.namespace.as_ref())
    };
    if let Some(namespace) = namespace {
        let own = *namespace == facts.agent_namespace;
        if DENIED_NAMESPACES.contains(&namespace.as_str()) || own && entry.name != AGENT_COMPONENT {
            refuse(Reason::NamespaceDenied, field, format!("{namespace} is not a component's"));
        } else if !entry.scope.namespaces.contains(namespace) {
            refuse(Reason::NamespaceOutOfScope, field, format!("{namespace} is not in scope"));
        }
        // The agent's identity, its trust state and its release state live in Secrets there.
        if own && id.group.is_empty() && id.kind == "Secret" {
            refuse(
                Reason::AgentState,
                "kind",
                "Secrets of the agent's namespace are its state".into(),
            );
        }
    }
    if id.group == AGENT_GROUP {
        refuse(
            Reason::AgentState,
            "apiVersion",
            format!("objects of {AGENT_GROUP} are not released"),
        );
    }
    if is_crd(id)
        && entry.name != AGENT_COMPONENT
        && (id.name.ends_with(&format!(".{AGENT_GROUP}"))
            || object.body.pointer("/spec/group").and_then(Value::as_str) == Some(AGENT_GROUP))
    {
        refuse(Reason::AgentState, "spec.group", format!("{AGENT_GROUP} is defined by the agent"));
    }

    if object.body.get("status").is_some() {
        refuse(Reason::FieldForbidden, "status", "is set".into());
    }
    let metadata = object.body.get("metadata").and_then(Value::as_object);
    for (key, value) in metadata.into_iter().flatten() {
        if FORBIDDEN_METADATA.contains(&key.as_str()) {
            let found = if value.is_null() { "is null" } else { "is set" };
            refuse(Reason::FieldForbidden, &format!("metadata.{key}"), found.into());
        }
    }
    if is_namespace && object.body.pointer("/spec/finalizers").is_some() {
        refuse(Reason::FieldForbidden, "spec.finalizers", "is set".into());
    }
}
