//! Metadata watches over the inventory: one per kind and namespace, or one per object where the agent's
//! rights name the objects.

use std::{borrow::Borrow, cmp::Ordering, collections::BTreeMap};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{DynamicObject, PartialObjectMeta},
    discovery::Scope,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use mendix_agent_core::bundle::{kind, object::ObjectId};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{
        contents::{Sha256, sha256},
        failure::pauses,
        live::Live,
    },
    Notice,
};

/// Objects that are listed at once when a watch is set up: who owns which field of them is more than the
/// rest of their metadata, and one watch of each kind begins at the same time.
const PAGE: u32 = 100;

/// The objects of one kind in one namespace, or one of them.
pub(super) struct Group {
    /// Any of them: for the kind and the namespace.
    sample: ObjectId,
    /// By name.
    objects: BTreeMap<Named, Seen>,
}

/// An object, found by its name: within a group it has no other.
struct Named(ObjectId);

/// What a watch has said of an object.
#[derive(Default)]
struct Seen {
    /// Since the watch was set up last.
    lately: bool,
    /// The last [`fingerprint`].
    print: Option<Sha256>,
}

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

/// The groups that a set of objects falls into.
pub(super) fn groups<'a>(objects: impl Iterator<Item = &'a ObjectId>) -> Vec<Group> {
    type Key<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Option<&'a str>);
    let mut groups: BTreeMap<Key<'_>, Group> = BTreeMap::new();
    for id in objects {
        let alone = kind::is_read_by_name(id).then_some(id.name.as_str());
        let key = (
            id.group.as_str(),
            id.version.as_str(),
            id.kind.as_str(),
            id.namespace.as_deref(),
            alone,
        );
        groups
            .entry(key)
            .or_insert_with(|| Group { sample: id.clone(), objects: BTreeMap::new() })
            .objects
            .insert(Named(id.clone()), Seen::default());
    }
    groups.into_values().collect()
}

impl Group {
    /// Watches until nobody listens. A kind that is not served (any more) is waited for: its
    /// definition may be put back meanwhile.
    pub(super) async fn watch(mut self, live: Live, client: Client, notices: mpsc::Sender<Notice>) {
        let mut pauses = pauses();
        let (resource, scope) = loop {
            match live.kind(&self.sample).await {
                Ok(kind) => break kind,
                Err(error) => {
                    tracing::warn!(error = error.line(), "a managed kind can't be watched yet");
                    live.forget_kinds();
                }
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        };
        let api: Api<PartialObjectMeta<DynamicObject>> = match (&scope, &self.sample.namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client, namespace, &resource)
            }
            _ => Api::all_with(client, &resource),
        };
        let mut config = Config::default().page_size(PAGE);
        if self.objects.len() == 1 {
            // One object needs no look at its neighbours.
            config = config.fields(&format!("metadata.name={}", self.sample.name));
        }
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let mut said = vec![];
            match event {
                Ok(Event::Init) => self.objects.values_mut().for_each(|seen| seen.lately = false),
                Ok(Event::InitApply(meta)) | Ok(Event::Apply(meta)) => {
                    said.extend(self.notice(&meta));
                }
                Ok(Event::Delete(meta)) => {
                    let name = meta.metadata.name.unwrap_or_default();
                    if let Some(seen) = self.objects.get_mut(name.as_str()) {
                        seen.print = None;
                    }
                    let object = self.objects.get_key_value(name.as_str());
                    said.extend(object.map(|(object, _)| Notice::Changed(object.0.clone())));
                }
                Ok(Event::InitDone) => {
                    let missing = self.objects.iter().filter(|(_, seen)| !seen.lately);
                    said.extend(missing.map(|(object, _)| Notice::Changed(object.0.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, kind = self.sample.kind, "a watch is set up again");
                }
            }
            for notice in said {
                if notices.send(notice).await.is_err() {
                    return;
                }
            }
        }
    }

    fn notice(&mut self, meta: &PartialObjectMeta<DynamicObject>) -> Option<Notice> {
        let name = meta.metadata.name.as_deref()?;
        let id = self.objects.get_key_value(name)?.0.0.clone();
        let seen = self.objects.get_mut(name)?;
        seen.lately = true;
        let print = fingerprint(meta);
        let changed = seen.print.replace(print) != Some(print);
        Some(if changed { Notice::Changed(id) } else { Notice::Touched(id) })
    }
}

/// What changes when anybody but a controller writing status changes the object: its UID and who
/// owns which field since when.
fn fingerprint(meta: &PartialObjectMeta<DynamicObject>) -> Sha256 {
    let entries = meta.metadata.managed_fields.iter().flatten();
    let entries = entries.filter(|entry| entry.subresource.as_deref().is_none_or(str::is_empty));
    let entries: Vec<Value> = entries
        .filter_map(|entry| {
            let mut fields = entry.fields_v1.as_ref()?.0.clone();
            // API servers before 1.22 don't tell the status from the object.
            if let Some(map) = fields.as_object_mut() {
                map.remove("f:status");
                if map.is_empty() {
                    return None;
                }
            }
            Some(json!([entry.manager, entry.operation, entry.time, fields]))
        })
        .collect();
    let print = json!([meta.metadata.uid, meta.metadata.deletion_timestamp, entries]);
    sha256(print.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::bundle::object::IdFields;

    use super::*;

    fn meta(managed_fields: Value) -> PartialObjectMeta<DynamicObject> {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "web", "uid": "1", "managedFields": managed_fields}}))
        .unwrap()
    }

    fn entry(manager: &str, time: &str, fields: Value, subresource: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time,
               "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": subresource})
    }

    #[test]
    fn a_status_update_is_no_change_and_a_write_of_the_same_field_is_one() {
        let spec = json!({"f:spec": {"f:replicas": {}}});
        let status = json!({"f:status": {"f:replicas": {}}});
        let before =
            fingerprint(&meta(json!([entry("a", "2026-11-01T00:00:00Z", spec.clone(), "")])));
        let with_status = |subresource: &str| {
            fingerprint(&meta(json!([
                entry("a", "2026-11-01T00:00:00Z", spec.clone(), ""),
                entry("kcm", "2026-11-01T00:00:09Z", status.clone(), subresource)
            ])))
        };
        assert_eq!(before, with_status("status"));
        assert_eq!(before, with_status(""), "an API server before 1.22");
        let again =
            fingerprint(&meta(json!([entry("a", "2026-11-01T00:00:05Z", spec.clone(), "")])));
        assert_ne!(before, again);
    }

    #[test]
    fn objects_are_watched_by_kind_and_namespace() {
        let id = |kind: &str, namespace: &str, name: &str| {
            ObjectId::from(IdFields {
                group: String::new(),
                version: "v1".into(),
                kind: kind.into(),
                namespace: Some(namespace.into()),
                name: name.into(),
            })
        };
        let sizes = |ids: &[ObjectId]| -> Vec<usize> {
            groups(ids.iter()).iter().map(|group| group.objects.len()).collect()
        };
        let ids = [
            id("ConfigMap", "a", "1"),
            id("ConfigMap", "a", "2"),
            id("ConfigMap", "b", "1"),
            id("Pod", "a", "1"),
        ];
        assert_eq!(sizes(&ids), [2, 1, 1]);
        // The agent can't list Secrets, only read those that it may by their names.
        assert_eq!(sizes(&[id("Secret", "a", "1"), id("Secret", "a", "2")]), [1, 1]);
    }
}
