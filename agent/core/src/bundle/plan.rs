//! The plan: what will be done, in which order. Made only from what was admitted.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    admission::Admitted,
    index::{ComponentEntry, ReleaseIndex},
    kind,
    object::{Object, ObjectId},
};
use crate::ordered;

pub use super::{kind::Stage, object::Inventory};

/// What a run will do, in order. The only thing the apply path takes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) index: ReleaseIndex,
    pub(super) index_sha256: [u8; 32],
    pub(super) components: Vec<PlannedComponent>,
}

impl Plan {
    /// Orders what was admitted. `inventory` is what the components owned before; what a component
    /// of this release owned and no component names any more is pruned, except for data that only a
    /// signed `deletes` entry may remove (see [`PlannedComponent::kept`]).
    ///
    /// The same release and inventory give the same plan, in whatever order their parts come.
    pub fn new(admitted: Admitted, inventory: &Inventory) -> Self {
        let Admitted { index, index_sha256, objects } = admitted;
        // An object that moves from one component to another is not pruned from the first, and one
        // that two inventories name is not pruned while its other owner keeps it.
        let mut named = ordered::set(objects.values().flatten().map(|object| object.id.clone()));
        named.extend(
            inventory
                .iter()
                .filter(|(component, _)| !objects.contains_key(*component))
                .flat_map(|(_, owned)| owned.iter().cloned()),
        );
        let deletes = ordered::set(&index.deletes);

        let mut entries = index.components.clone();
        ordered::sort_by(&mut entries, |a, b| (a.phase, &a.name).cmp(&(b.phase, &b.name)));
        let mut objects = objects;
        let components = entries
            .into_iter()
            .map(|entry| {
                let stages = stages(objects.remove(&entry.name).unwrap_or_default());
                let (prune, kept) =
                    prune(inventory.get(&entry.name).map_or(&[], Vec::as_slice), &named, &deletes);
                PlannedComponent { entry, stages, prune, kept }
            })
            .collect();
        Self { index, index_sha256, components }
    }

    /// The release this plan carries out.
    pub fn release(&self) -> &ReleaseIndex {
        &self.index
    }

    /// SHA-256 of the signed index.
    pub fn index_sha256(&self) -> &[u8; 32] {
        &self.index_sha256
    }

    /// Components in the order in which they are applied and gated.
    pub fn components(&self) -> &[PlannedComponent] {
        &self.components
    }
}

/// One component: its objects by stage, and what is pruned once it is healthy.
#[derive(Clone, Debug)]
pub struct PlannedComponent {
    pub(super) entry: ComponentEntry,
    pub(super) stages: Vec<(Stage, Vec<Object>)>,
    pub(super) prune: Vec<ObjectId>,
    pub(super) kept: Vec<ObjectId>,
}

impl PlannedComponent {
    /// The component's entry in the index.
    pub fn entry(&self) -> &ComponentEntry {
        &self.entry
    }

    /// Objects by stage, in order; stages without objects are left out.
    pub fn stages(&self) -> &[(Stage, Vec<Object>)] {
        &self.stages
    }

    /// Objects the component owned before and no longer names, in the order of their deletion:
    /// the reverse of the order in which they would be applied.
    pub fn prune(&self) -> &[ObjectId] {
        &self.prune
    }

    /// Objects the component owned before, no longer names, and that stay all the same: deleting a
    /// PVC, PV, CRD or Namespace loses data, and the index doesn't name them in `deletes`. To be
    /// reported, and to stay in the component's inventory.
    pub fn kept(&self) -> &[ObjectId] {
        &self.kept
    }

    /// All objects, in the order in which they are applied.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.stages.iter().flat_map(|(_, objects)| objects)
    }
}

fn stages(objects: Vec<Object>) -> Vec<(Stage, Vec<Object>)> {
    let mut by_stage: BTreeMap<Stage, Vec<Object>> = BTreeMap::new();
    for object in objects {
        by_stage.entry(kind::stage(&object.id)).or_default().push(object);
    }
    for objects in by_stage.values_mut() {
        ordered::sort_by(objects, |a, b| order(&a.id).cmp(&order(&b.id)));
    }
    by_stage.into_iter().collect()
}

/// Total order of the objects of one stage.
fn order(id: &ObjectId) -> (u8, &ObjectId) {
    (kind::rank(id), id)
}

fn prune(
    owned: &[ObjectId],
    named: &BTreeSet<ObjectId>,
    deletes: &BTreeSet<&ObjectId>,
) -> (Vec<ObjectId>, Vec<ObjectId>) {
    let gone = ordered::set(owned.iter().filter(|id| !named.contains(id)).cloned());
    let mut gone: Vec<ObjectId> = gone.into_iter().collect();
    ordered::sort_by(&mut gone, |a, b| (kind::stage(b), order(b)).cmp(&(kind::stage(a), order(a))));
    gone.into_iter().partition(|id| !kind::holds_data(id) || deletes.contains(id))
}

#[cfg(test)]
mod tests;
