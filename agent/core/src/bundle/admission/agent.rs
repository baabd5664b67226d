//! Checks on the component that upgrades the agent itself: it is exactly what the guard can put back,
//! the specification of one Deployment. Definitions and rights come in a component of their own
//! (`super::foundation`), everything else of the agent with its installation.

use serde_json::Value;

use super::{AGENT_CONTAINER, AGENT_DEPLOYMENT, ClusterFacts, Reason, Refusal};
use crate::bundle::{
    index::ComponentEntry,
    object::{IdFields, Object, ObjectId},
};

/// Metadata that the Deployment may name: the trial puts nothing else back.
const METADATA: [&str; 2] = ["name", "namespace"];
/// What of the pods the trial relies on.
const FIXED: [&str; 2] = ["/spec/strategy", "/spec/paused"];

/// The agent's own Deployment, as the agent finds it.
pub fn own_deployment(namespace: &str) -> ObjectId {
    ObjectId::from(IdFields {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: Some(namespace.to_owned()),
        name: AGENT_DEPLOYMENT.into(),
    })
}

/// Adds everything that is wrong with the agent's component.
pub(super) fn check(
    entry: &ComponentEntry,
    objects: &[Object],
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    let own = own_deployment(&facts.agent_namespace);
    for object in objects.iter().filter(|object| object.id != own) {
        let found = format!("is not {own}");
        let refusal = Refusal::object(entry, &object.id, Reason::AgentComponent, "kind", found);
        refusals.push(refusal);
    }
    let Some(deployment) = objects.iter().find(|object| object.id == own) else {
        let found = format!("{own} is missing");
        refusals.push(Refusal::component(entry, Reason::AgentComponent, "blob", found));
        return;
    };
    let mut refuse = |field: &str, found: &str| {
        let reason = Reason::AgentComponent;
        refusals.push(Refusal::object(entry, &own, reason, field, found.to_owned()));
    };
    let body = deployment.body.value();
    for key in body["metadata"].as_object().into_iter().flat_map(|metadata| metadata.keys()) {
        if !METADATA.contains(&key.as_str()) {
            refuse(&format!("metadata.{key}"), "is set");
        }
    }
    for pointer in FIXED {
        if body.pointer(pointer).is_some() {
            refuse(&pointer[1..].replace('/', "."), "is set, and trials rely on it");
        }
    }
    if body.pointer("/spec/replicas") == Some(&Value::from(0)) {
        refuse("spec.replicas", "is 0");
    }
    let template = &body["spec"]["template"];
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    for key in annotations.into_iter().flat_map(|annotations| annotations.keys()) {
        if key.starts_with("agent.mendix.com/") {
            refuse(&format!("spec.template.metadata.annotations[{key}]"), "is set by the agent");
        }
    }
    let account = template.pointer("/spec/serviceAccountName").and_then(Value::as_str);
    if account.is_some_and(|account| account != AGENT_DEPLOYMENT) {
        refuse("spec.template.spec.serviceAccountName", "is not the agent's");
    }
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    let has_image = containers
        .into_iter()
        .flatten()
        .any(|container| container["name"] == AGENT_CONTAINER && container["image"].is_string());
    if !has_image {
        refuse("spec.template.spec.containers", "has no container agent with an image");
    }
}
