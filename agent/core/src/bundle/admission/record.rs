//! Checks on the record of a component (`ManagedComponent`): it names every object that the component owns, in
//! one object of the cluster, and etcd takes no larger one. Only when a run has committed it is written, too
//! late to find out.

use super::{ClusterFacts, Reason, Refusal};
use crate::bundle::{
    index::ComponentEntry,
    kind,
    limits::Limits,
    object::{Object, ObjectId},
};
use crate::ordered;

/// What an object takes in the record beside its names: keys and punctuation, a UID of 36 and a hash of 16
/// characters, and the comma before the next one.
const AROUND: usize = 106;
/// Key and punctuation of a group, which the core group has not.
const GROUP: usize = 11;
/// The same of a namespace.
const NAMESPACE: usize = 15;

/// Bytes of an object in the record of its component. Names that a release may use are written as they are.
pub fn recorded_bytes(id: &ObjectId) -> usize {
    let group = if id.group.is_empty() { 0 } else { GROUP + id.group.len() };
    let namespace = id.namespace.as_ref().map_or(0, |namespace| NAMESPACE + namespace.len());
    AROUND + group + namespace + id.version.len() + id.kind.len() + id.name.len()
}

/// Adds a refusal if the component would own more than its record can name. Also counted is what stays with
/// it although this release names it no more. A run that has begun is not judged by it: its way back needs
/// no other record than the one of before.
pub(super) fn check(
    entry: &ComponentEntry,
    objects: &[Object],
    deletes: &[ObjectId],
    facts: &ClusterFacts,
    refusals: &mut Vec<Refusal>,
) {
    if facts.has_begun {
        return;
    }
    let named = ordered::set(objects.iter().map(|object| &object.id));
    let owned = facts.inventory.get(&entry.name).into_iter().flatten();
    let kept =
        owned.filter(|id| kind::holds_data(id) && !named.contains(id) && !deletes.contains(id));
    let bytes: usize = named.iter().copied().chain(kept).map(recorded_bytes).sum();
    let max = Limits::BUILT_IN.record;
    if bytes > max {
        let found =
            format!("its record would name its objects in {bytes} bytes; at most {max} are taken");
        refusals.push(Refusal::component(entry, Reason::RecordTooLarge, "blob", found));
    }
}
