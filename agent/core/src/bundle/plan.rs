//! The plan: what will be done, in which order. Made only from what was admitted.

use super::index::{ComponentEntry, ReleaseIndex};
use super::object::{Object, ObjectId};

/// What a run will do, in order. The only thing the apply path takes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) index: ReleaseIndex,
    pub(super) index_sha256: [u8; 32],
    pub(super) components: Vec<PlannedComponent>,
}

impl Plan {
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

    /// Objects the component owned before and no longer names, in the order of their deletion.
    pub fn prune(&self) -> &[ObjectId] {
        &self.prune
    }

    /// All objects, in the order in which they are applied.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.stages.iter().flat_map(|(_, objects)| objects)
    }
}

/// Order inside a component: what others need comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Namespaces and CustomResourceDefinitions; CRDs must be Established before the next stage.
    Definitions,
    /// RBAC, ServiceAccounts, ConfigMaps, Secrets, Services, policies: what workloads need.
    Configuration,
    /// Deployments, StatefulSets, DaemonSets, Jobs, Pods.
    Workloads,
    /// Objects of kinds that a CRD defines.
    CustomResources,
    /// Admission webhooks and APIServices, once what serves them runs.
    Webhooks,
}
