//! Checks on the component that brings the agent's definitions and rights, and on all others, which may
//! not touch them (`crate::bundle::foundation`, ADR 0015).

use std::collections::BTreeMap;

use super::{AGENT_COMPONENT, ClusterFacts, Reason, Refusal};
use crate::bundle::{
    foundation::{
        FOUNDATION_COMPONENT, Part, bound_elsewhere, findings, is_own_definition, is_reserved,
        narrowing, part,
    },
    index::{ComponentEntry, ReleaseIndex},
    object::{Object, ObjectId},
};
use crate::ordered;

/// Adds everything by which the release would touch what the agent stands on and may not.
pub(super) fn check(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    for entry in &index.components {
        let of_component = objects.get(&entry.name).map(Vec::as_slice).unwrap_or_default();
        if entry.name == FOUNDATION_COMPONENT {
            place(entry, index, refusals);
            contents(entry, of_component, facts, refusals);
            narrower(entry, of_component, index, facts, refusals);
        } else {
            for object in of_component {
                foreign(entry, object, facts, refusals);
            }
        }
    }
    narrows(index, objects, facts, refusals);
    for (n, id) in index.deletes.iter().enumerate().filter(|(_, id)| is_own_definition(id)) {
        let object = Some(id.clone());
        let found = "is the agent's; its objects would go with it";
        let field = format!("deletes[{n}]");
        refusals.push(Refusal { object, ..Refusal::release(Reason::AgentState, &field, found) });
    }
}

fn place(entry: &ComponentEntry, index: &ReleaseIndex, refusals: &mut Vec<Refusal>) {
    let others = index.components.iter().filter(|other| other.name != entry.name);
    let early = others.filter(|other| other.phase <= entry.phase).min_by_key(|other| other.phase);
    if let Some(early) = early {
        let found = format!("{} is not below {} of {}", entry.phase, early.phase, early.name);
        refusals.push(Refusal::component(entry, Reason::FoundationNotFirst, "phase", found));
    }
    if !entry.exceptions.is_empty() {
        let found = "nobody else has a say in the agent's definitions and rights";
        refusals.push(Refusal::component(entry, Reason::FoundationObject, "exceptions", found));
    }
}

fn contents(
    entry: &ComponentEntry,
    objects: &[Object],
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    let own = facts.agent_namespace.as_str();
    let parts = || objects.iter().map(|object| (object, part(&object.id, own)));
    let bound = parts()
        .filter(|(_, part)| *part == Some(Part::ManagedBinding))
        .filter_map(|(object, _)| object.id.namespace.as_deref());
    let bound = ordered::set(bound);
    for (object, part) in parts() {
        let id = &object.id;
        let mut refuse = |reason, field: &str, found: String| {
            refusals.push(Refusal::object(entry, id, reason, field, found));
        };
        let Some(part) = part else {
            refuse(Reason::FoundationObject, "kind", format!("{id} is not of the foundation"));
            continue;
        };
        if part == Part::Namespace && !bound.contains(id.name.as_str()) {
            let found = "the agent is not bound there by this component".to_owned();
            refuse(Reason::FoundationObject, "metadata.name", found);
        }
        for (field, found) in findings(part, object, own) {
            refuse(Reason::RightForbidden, &field, found);
        }
    }
}

/// What the component takes away of what is there, unless the signed index names the object.
fn narrower(
    entry: &ComponentEntry,
    objects: &[Object],
    index: &ReleaseIndex,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    let own = facts.agent_namespace.as_str();
    for object in objects.iter().filter(|object| !index.narrows.contains(&object.id)) {
        let (Some(part), Some(live)) = (part(&object.id, own), facts.foundation.get(&object.id))
        else {
            continue;
        };
        for (field, found) in narrowing(part, live, object) {
            refusals.push(Refusal::object(entry, &object.id, Reason::Narrowed, &field, found));
        }
    }
    // What is owned and not named any more would be pruned.
    let owned = facts.inventory.get(FOUNDATION_COMPONENT).into_iter().flatten();
    for id in owned.filter(|id| !objects.iter().any(|object| object.id == **id)) {
        let refusal = match part(id, own) {
            // It stays where it is.
            Some(Part::Namespace) => continue,
            Some(Part::ManagedBinding) if index.narrows.contains(id) => continue,
            Some(Part::ManagedBinding) => (Reason::Narrowed, "is owned, and missing here"),
            _ => (Reason::FoundationObject, "is owned, and missing here: it can't leave"),
        };
        refusals.push(Refusal::object(entry, id, refusal.0, "metadata.name", refusal.1));
    }
}

/// `narrows` names what is there to be narrowed, and never while a new agent is on trial: the former one
/// may have to come back.
fn narrows(
    index: &ReleaseIndex,
    objects: &BTreeMap<String, Vec<Object>>,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    let released = objects.get(FOUNDATION_COMPONENT).map(Vec::as_slice).unwrap_or_default();
    let leaves = |id: &ObjectId| part(id, &facts.agent_namespace) == Some(Part::ManagedBinding);
    for (n, id) in index.narrows.iter().enumerate() {
        let field = format!("narrows[{n}]");
        if !released.iter().any(|object| object.id == *id) && !leaves(id) {
            let object = Some(id.clone());
            let found = format!("{id} is not an object of component {FOUNDATION_COMPONENT}");
            refusals
                .push(Refusal { object, ..Refusal::release(Reason::NarrowUnused, &field, found) });
        }
    }
    if !index.narrows.is_empty() && index.components.iter().any(|it| it.name == AGENT_COMPONENT) {
        let found = "is set in a release that puts a new agent on trial";
        refusals.push(Refusal::release(Reason::NarrowsOnTrial, "narrows", found));
    }
}

/// No other component owns what is the foundation's, binds it, or gives rights to the agent's accounts.
fn foreign(
    entry: &ComponentEntry,
    object: &Object,
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    // Definitions are told with their group (`super::object`).
    if is_reserved(&object.id) && !is_own_definition(&object.id) {
        let found = format!("{} is the agent's own", object.id);
        refusals.push(Refusal::object(
            entry,
            &object.id,
            Reason::FoundationElsewhere,
            "metadata.name",
            found,
        ));
    }
    for (field, found) in bound_elsewhere(object, &facts.agent_namespace) {
        refusals.push(Refusal::object(entry, &object.id, Reason::RightForbidden, &field, found));
    }
}
