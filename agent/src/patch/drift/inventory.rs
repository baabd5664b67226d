//! What is committed: every object that components own, as the release wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt;
use mendix_agent_core::{
    bundle::object::{Body, ObjectId},
    ordered,
};

use super::super::{
    driver::{Announced, Driver},
    failure::CallError,
    steps::exceptions,
    stored::{self, StoredError},
};
use crate::crd::managed_component::OwnedObject;

/// What is committed.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The objects.
    pub(super) objects: BTreeMap<ObjectId, Managed>,
    /// The components.
    pub(super) components: BTreeSet<Arc<str>>,
    /// Those of them that a run had its hands on.
    in_run: BTreeSet<String>,
    /// What had been announced before this was read.
    announced: Announced,
}

impl Inventory {
    /// Whether a run has its hands on a component: one that the records told of, or one that was announced
    /// since. Until the inventory is read again that stays so: what it holds is what the run replaces.
    pub(super) fn is_in_run(&self, component: &str, announced: &Announced) -> bool {
        self.in_run.contains(component) || self.announced.get(component) != announced.get(component)
    }
}

/// One managed object.
#[derive(Debug)]
pub(super) struct Managed {
    /// Its component.
    pub(super) component: Arc<str>,
    /// The release that wants it so.
    pub(super) release_id: Arc<str>,
    /// As that release wants it.
    pub(super) body: Body,
    /// The UID that the record knows it by.
    pub(super) uid: Option<String>,
    /// Dotted paths that others may own.
    pub(super) exceptions: Vec<String>,
}

/// Reads what is committed. A component whose release can't be read is left out and said in the
/// log: the others are still looked after.
///
/// # Errors
/// When the API server can't be reached.
pub(super) async fn load(driver: &Driver) -> Result<Inventory, CallError> {
    let contents = &driver.contents;
    // Before the records are read: what is announced after that shows in one or the other.
    let announced = driver.corrections.read().await.clone();
    let mut inventory = Inventory { announced, ..Inventory::default() };
    for component in driver.records.components().await? {
        let name = component.name_any();
        let Some(status) = component.status.filter(|status| status.sequence > 0) else { continue };
        let mut uids = ordered::map(status.inventory.into_iter().map(OwnedObject::into_id));
        let (Some(release_id), Some(index_sha256)) = (status.release_id, status.index_sha256)
        else {
            continue;
        };
        let index = stored::index(contents, &release_id, &index_sha256).await;
        let entry = match index {
            Ok(index) => index.components.iter().find(|entry| entry.name == name).cloned(),
            Err(StoredError::Call(error)) => return Err(error),
            Err(StoredError::Unusable(why)) => {
                tracing::error!(
                    component = name,
                    why,
                    "drift can't be found: the stored release is unusable"
                );
                continue;
            }
        };
        let Some(entry) = entry else { continue };
        let objects = match stored::objects(contents, &entry).await {
            Ok(objects) => objects,
            Err(StoredError::Call(error)) => return Err(error),
            Err(StoredError::Unusable(why)) => {
                tracing::error!(
                    component = name,
                    why,
                    "drift can't be found: the stored release is unusable"
                );
                continue;
            }
        };
        if status.run.is_some() {
            inventory.in_run.insert(name.clone());
        }
        let (name, release_id): (Arc<str>, Arc<str>) = (name.into(), release_id.into());
        inventory.components.insert(Arc::clone(&name));
        for object in objects.iter() {
            let managed = Managed {
                component: Arc::clone(&name),
                release_id: Arc::clone(&release_id),
                body: object.body.clone(),
                uid: uids.remove(&object.id).flatten(),
                exceptions: exceptions(&entry, &object.id).into_iter().map(str::to_owned).collect(),
            };
            inventory.objects.insert(object.id.clone(), managed);
        }
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_in_a_run_that_was_on_record_or_was_announced_since() {
        let announced = |counts: &[(&str, u64)]| -> Announced {
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let inventory = Inventory {
            in_run: ["resumed".to_owned()].into(),
            announced: announced(&[("operator", 1)]),
            ..Inventory::default()
        };
        let now = announced(&[("operator", 1)]);
        assert!(inventory.is_in_run("resumed", &now));
        assert!(!inventory.is_in_run("operator", &now), "that run is over");
        assert!(!inventory.is_in_run("ingress", &now));
        let later = announced(&[("ingress", 1), ("operator", 2)]);
        assert!(inventory.is_in_run("operator", &later));
        assert!(inventory.is_in_run("ingress", &later));
    }
}
