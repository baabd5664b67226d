//! Checks on one object: where it lives, whether the component may own it, and that it holds
//! nothing that only servers, controllers or the agent itself may write.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AGENT_COMPONENT, ClusterFacts, DENIED_NAMESPACES, KindScope, Reason, Refusal};
use crate::bundle::{
    foundation::{AGENT_GROUP, FOUNDATION_COMPONENT},
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
            let body = object.body.value();
            let text = |pointer| body.pointer(pointer).and_then(Value::as_str);
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

/// Adds everything that is wrong with one object; `body` is what it holds.
pub(super) fn check(
    entry: &ComponentEntry,
    id: &ObjectId,
    body: &Value,
    facts: &ClusterFacts,
    scopes: &Scopes,
    refusals: &mut Vec<Refusal>,
) {
    let mut refuse = |reason, field: &str, found: String| {
        refusals.push(Refusal::object(entry, id, reason, field, found));
    };
    if id.kind.ends_with("List") && body.get("items").is_some() || id.kind == "List" {
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
        let of_agent = entry.name == AGENT_COMPONENT || entry.name == FOUNDATION_COMPONENT;
        if DENIED_NAMESPACES.contains(&namespace.as_str()) || own && !of_agent {
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
        && entry.name != FOUNDATION_COMPONENT
        && (id.name.ends_with(&format!(".{AGENT_GROUP}"))
            || body.pointer("/spec/group").and_then(Value::as_str) == Some(AGENT_GROUP))
    {
        refuse(Reason::AgentState, "spec.group", format!("{AGENT_GROUP} is defined by the agent"));
    }

    for (field, found) in stray_webhooks(entry, id, body) {
        refuse(Reason::WebhookOutside, &field, found);
    }

    if body.get("status").is_some() {
        refuse(Reason::FieldForbidden, "status", "is set".into());
    }
    let metadata = body.get("metadata").and_then(Value::as_object);
    for (key, value) in metadata.into_iter().flatten() {
        if FORBIDDEN_METADATA.contains(&key.as_str()) {
            let found = if value.is_null() { "is null" } else { "is set" };
            refuse(Reason::FieldForbidden, &format!("metadata.{key}"), found.into());
        }
    }
    if is_namespace && body.pointer("/spec/finalizers").is_some() {
        refuse(Reason::FieldForbidden, "spec.finalizers", "is set".into());
    }
}

/// Webhooks of admission and conversion that the API server would call anywhere else than in the
/// component's own namespaces: field and what was found. Objects of the whole cluster go there.
fn stray_webhooks(entry: &ComponentEntry, id: &ObjectId, body: &Value) -> Vec<(String, String)> {
    let clients: Vec<(String, Option<&Value>)> = match (id.group.as_str(), id.kind.as_str()) {
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => {
            let webhooks = body.get("webhooks").and_then(Value::as_array);
            let webhooks = webhooks.into_iter().flatten().enumerate();
            webhooks
                .map(|(n, webhook)| {
                    (format!("webhooks[{n}].clientConfig"), webhook.get("clientConfig"))
                })
                .collect()
        }
        _ if is_crd(id) => {
            let client = body.pointer("/spec/conversion/webhook/clientConfig");
            vec![("spec.conversion.webhook.clientConfig".to_owned(), client)]
        }
        _ => return vec![],
    };
    let clients = clients.into_iter().filter_map(|(field, client)| Some((field, client?)));
    clients
        .filter_map(|(field, client)| {
            if client.get("url").is_some_and(|url| !url.is_null()) {
                return Some((format!("{field}.url"), "leads out of the cluster".to_owned()));
            }
            let namespace = client.pointer("/service/namespace").and_then(Value::as_str);
            let namespace = namespace.unwrap_or_default();
            let own = entry.scope.namespaces.iter().any(|scope| scope == namespace);
            (!own).then(|| {
                (format!("{field}.service.namespace"), format!("{namespace:?} is not in scope"))
            })
        })
        .collect()
}
