//! Who owns which field of an object: the `managedFields` that the API server keeps for server-side
//! apply, read as sets of field paths.
//!
//! Used to see whether a live object already is what a release wants (so that applying it can be
//! skipped), to find what others added ([`super::drift`]), and to put objects back on a rollback.
//! The notation (`f:`, `k:`, `v:`, `i:`, `.`) is that of FieldsV1 in the Kubernetes API.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ordered;

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    nodes: BTreeMap<String, Node>,
}

/// One path element: whether the path that ends here is in the set, and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: Fields,
}

/// One entry of `metadata.managedFields` that is about the object itself, not about a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the field manager. Chosen by the client: a claim, not a proof.
    pub manager: String,
    /// Whether it came from server-side apply.
    pub applied: bool,
    /// The API version its paths are written in.
    pub api_version: String,
    /// What it owns.
    pub fields: Fields,
}

/// The owners of an object's fields. Entries of subresources (`status`, `scale`) are left out, as
/// are entries that can't be read.
pub fn owners(live: &Value) -> Vec<Owner> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| about_the_object(entry))
        .filter_map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            Some(Owner {
                manager: text("manager")?,
                applied: text("operation")? == "Apply",
                api_version: text("apiVersion")?,
                fields: Fields::parse(entry.get("fieldsV1")?),
            })
        })
        .collect()
}

fn about_the_object(entry: &Value) -> bool {
    entry.get("subresource").and_then(Value::as_str).is_none_or(str::is_empty)
}

/// What `manager` owns through server-side apply; none if it never applied the object.
pub fn applied_by(live: &Value, manager: &str) -> Option<Fields> {
    owners(live)
        .into_iter()
        .find(|owner| owner.applied && owner.manager == manager)
        .map(|owner| owner.fields)
}

/// Whether `manager` owns exactly the fields that `desired` sets, with these values: applying it
/// again would change nothing. Says no when in doubt (the server writes quantities and the like in a
/// form of its own).
pub fn matches(desired: &Value, live: &Value, manager: &str) -> bool {
    match applied_by(live, manager) {
        Some(fields) => fields.extract(live) == without_identity(desired),
        None => false,
    }
}

/// The object without what says which object it is: those fields have no owner.
pub fn without_identity(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.remove("namespace");
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    object
}

impl Fields {
    /// Reads FieldsV1. What is not an object counts as empty.
    pub fn parse(fields_v1: &Value) -> Self {
        let mut fields = Self::default();
        for (key, below) in fields_v1.as_object().into_iter().flatten() {
            if key == "." {
                continue;
            }
            let member =
                below.as_object().is_none_or(|map| map.is_empty() || map.contains_key("."));
            fields.nodes.insert(key.clone(), Node { member, below: Self::parse(below) });
        }
        fields
    }

    /// Writes FieldsV1.
    pub fn to_fields_v1(&self) -> Value {
        let nodes = self.nodes.iter().map(|(key, node)| {
            let mut below = match node.below.to_fields_v1() {
                Value::Object(map) => map,
                _ => Map::new(),
            };
            if node.member && !below.is_empty() {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            (key.clone(), Value::Object(below))
        });
        Value::Object(ordered::object(nodes))
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All paths of both.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (key, node) in &other.nodes {
            let mine = all.nodes.entry(key.clone()).or_default();
            mine.member |= node.member;
            mine.below = mine.below.union(&node.below);
        }
        all
    }

    /// Paths that are in this set and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && !theirs)
    }

    /// Paths that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && theirs)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let absent = Node::default();
        let nodes = self.nodes.iter().filter_map(|(key, mine)| {
            let theirs = other.nodes.get(key).unwrap_or(&absent);
            let member = keep(mine.member, theirs.member);
            let below = mine.below.combine(&theirs.below, keep);
            (member || !below.is_empty()).then(|| (key.clone(), Node { member, below }))
        });
        Self { nodes: ordered::map(nodes) }
    }

    /// Paths at or below `prefix`, a sequence of field names; `*` stands for any list item,
    /// `[name=web]` for the one with that key.
    pub fn within(&self, prefix: &[&str]) -> Self {
        let Some((first, rest)) = prefix.split_first() else { return self.clone() };
        let nodes = self.nodes.iter().filter(|(key, _)| step_matches(key, first));
        let nodes = nodes.filter_map(|(key, node)| {
            let below = node.below.within(rest);
            let member = rest.is_empty() && node.member;
            (member || !below.is_empty()).then(|| (key.clone(), Node { member, below }))
        });
        Self { nodes: ordered::map(nodes) }
    }

    /// Paths that are not at or below `prefix` (as in [`Self::within`]).
    pub fn without(&self, prefix: &[&str]) -> Self {
        self.minus(&self.within(prefix))
    }

    /// Without map keys (annotations, labels) for which `drop` says so, wherever they are.
    pub fn without_keys(&self, drop: fn(&str) -> bool) -> Self {
        let nodes = self.nodes.iter().filter_map(|(key, node)| {
            if key.strip_prefix("f:").is_some_and(drop) {
                return None;
            }
            let below = node.below.without_keys(drop);
            (node.member || !below.is_empty())
                .then(|| (key.clone(), Node { member: node.member, below }))
        });
        Self { nodes: ordered::map(nodes) }
    }

    /// The part of `object` that is in the set.
    pub fn extract(&self, object: &Value) -> Value {
        match object {
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| {
                        let (_, node) =
                            self.nodes.iter().find(|(key, _)| item_matches(key, index, item))?;
                        Some(node.extract(item))
                    })
                    .collect(),
            ),
            Value::Object(map) => {
                let parts = self.nodes.iter().filter_map(|(key, node)| {
                    let name = key.strip_prefix("f:")?;
                    Some((name.to_owned(), node.extract(map.get(name)?)))
                });
                Value::Object(ordered::object(parts))
            }
            scalar => scalar.clone(),
        }
    }

    /// Paths in the set whose value in `live` is not the one that `desired` has for them. Paths that
    /// `desired` says nothing about are left out.
    pub fn differing(&self, desired: &Value, live: &Value) -> Self {
        let nodes = self.nodes.iter().filter_map(|(key, node)| {
            let (desired, live) = (find(desired, key)?, find(live, key));
            let live = live.unwrap_or(&Value::Null);
            let below = node.below.differing(desired, live);
            let member = node.member && node.below.is_empty() && desired != live;
            (member || !below.is_empty()).then(|| (key.clone(), Node { member, below }))
        });
        Self { nodes: ordered::map(nodes) }
    }

    /// The paths in the set for people, such as `spec.template.spec.containers[name=web].image`. Below a
    /// list item that is in the set as a whole nothing is listed. Shows names, keys of list items and
    /// members of sets, no other value.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![];
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        for (key, node) in &self.nodes {
            let path = match key.split_once(':') {
                Some(("f", name)) if prefix.is_empty() => name.to_owned(),
                Some(("f", name)) if name.contains('.') => format!("{prefix}[{name}]"),
                Some(("f", name)) => format!("{prefix}.{name}"),
                Some(("k", keys)) => format!("{prefix}[{}]", item_name(keys)),
                Some(("v", value)) => format!("{prefix}[{}]", value.trim_matches('"')),
                Some((_, index)) => format!("{prefix}[{index}]"),
                None => format!("{prefix}.{key}"),
            };
            let whole_item = node.member && !key.starts_with("f:");
            if whole_item || node.below.is_empty() {
                paths.push(path);
            } else {
                node.below.collect_paths(&path, paths);
            }
        }
    }
}

impl Node {
    fn extract(&self, value: &Value) -> Value {
        if self.below.is_empty() && self.member { value.clone() } else { self.below.extract(value) }
    }
}

fn step_matches(key: &str, step: &str) -> bool {
    match key.split_once(':') {
        Some(("f", name)) => name == step,
        Some(("k", keys)) if step.starts_with('[') => {
            step.strip_prefix('[').and_then(|s| s.strip_suffix(']')) == Some(&item_name(keys))
        }
        _ => step == "*",
    }
}

/// What a path element stands for in a value.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find(|(index, item)| item_matches(key, *index, item)).map(|(_, item)| item)
        }
        _ => value.get(key.strip_prefix("f:")?),
    }
}

/// Whether a list item is the one that a path element names.
fn item_matches(key: &str, index: usize, item: &Value) -> bool {
    match key.split_once(':') {
        Some(("k", keys)) => match serde_json::from_str::<Map<String, Value>>(keys) {
            Ok(keys) => keys.iter().all(|(name, value)| item.get(name) == Some(value)),
            Err(_) => false,
        },
        Some(("v", value)) => {
            serde_json::from_str::<Value>(value).is_ok_and(|value| &value == item)
        }
        Some(("i", at)) => at.parse::<usize>().is_ok_and(|at| at == index),
        _ => false,
    }
}

/// `{"name":"web"}` as `name=web`.
fn item_name(keys: &str) -> String {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(keys) else { return keys.to_owned() };
    let named = keys.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    named.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
