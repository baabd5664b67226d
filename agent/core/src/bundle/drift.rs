//! What has to be done so that a live object is what a release wants, and who made it differ.
//!
//! Forced server-side apply sets the fields that a release names, but it leaves what others added:
//! a sidecar, an environment variable, `hostNetwork`, a ConfigMap key (measured). Those are found in
//! `managedFields` and moved into the agent's own entry, so that the apply that follows drops them.
//! That is done only below the paths of [`owned_whole`]: everything else may be a platform
//! controller's. The move is safe to be interrupted: fields that the agent owns and doesn't want
//! are dropped by the next apply, whoever makes it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::object::ObjectId;
use super::ownership::{Owner, applied_by, matches, owners};
use crate::ordered;

/// Field paths named in one report; more are counted.
pub const MAX_REPORTED_FIELDS: usize = 32;

/// The calls that make a live object what is wanted, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// A field that the release stops setting and that keeps its value: to be applied (not forced)
    /// under a second manager first, since dropping an owned field resets it.
    pub hand_over: Option<Value>,
    /// New `metadata.managedFields`, with the fields of others that must go moved into the agent's
    /// entry. To be written with a test on the resourceVersion that was analysed.
    pub managed_fields: Option<Value>,
    /// The object to apply, forced.
    pub body: Value,
    /// Field managers that own what differs. Chosen by the clients: claims, not proofs.
    pub claimants: Vec<String>,
}

/// What has to be done so that `live` is what `desired` says, with `manager` as the agent's field
/// manager; none if nothing has to. `exceptions` are dotted paths that others may own.
pub fn analyse(
    id: &ObjectId,
    desired: &Value,
    live: &Value,
    manager: &str,
    exceptions: &[&str],
) -> Option<Correction> {
    let exceptions: Vec<Vec<&str>> = exceptions.iter().map(|path| steps(path)).collect();
    let is_ours = |owner: &&Owner| owner.applied && owner.manager == manager;
    let owners = owners(live);
    let ours = owners.iter().find(is_ours);
    let foreign: Vec<&Owner> = owners.iter().filter(|owner| !is_ours(owner)).collect();

    let mut body = desired.clone();
    for path in &exceptions {
        let theirs = foreign.iter().any(|owner| !owner.fields.within(path).is_empty());
        let mine = ours.is_some_and(|owner| !owner.fields.within(path).is_empty());
        if theirs && !mine {
            remove(&mut body, path);
        }
    }

    let mut claimants = vec![];
    let mut moved = vec![];
    for owner in &foreign {
        let contested = owner.fields.differing(&body, live);
        // Paths of another API version can't be compared; after the apply they can.
        let comparable = ours.filter(|ours| ours.api_version == owner.api_version);
        let strip = comparable.map(|ours| {
            let mut strip = owned_whole(id, live)
                .iter()
                .map(|prefix| owner.fields.within(prefix))
                .fold(Default::default(), |all: super::ownership::Fields, part| all.union(&part))
                .without(&["spec", "conversion", "webhook", "clientConfig", "caBundle"])
                .without_keys(is_platform_key)
                .minus(&ours.fields);
            for path in &exceptions {
                strip = strip.without(path);
            }
            strip
        });
        let strip = strip.unwrap_or_default();
        if (!strip.is_empty() || !contested.is_empty()) && !claimants.contains(&owner.manager) {
            claimants.push(owner.manager.clone());
        }
        if !strip.is_empty() {
            moved.push(((*owner).clone(), strip));
        }
    }
    if moved.is_empty() && matches(&body, live, manager) {
        return None;
    }
    let managed_fields = (!moved.is_empty()).then(|| move_fields(live, manager, &moved));
    let hand_over = ours.and_then(|ours| hand_over(id, &body, live, ours, &exceptions));
    Some(Correction { hand_over, managed_fields, body, claimants })
}

/// Whether the object is one that the agent has applied before.
pub fn is_applied_by(live: &Value, manager: &str) -> bool {
    applied_by(live, manager).is_some()
}

/// Paths below which nobody but the release has a say, as sequences of field names (`*`: any list
/// item). Nothing else of an object is ever stripped.
pub fn owned_whole(id: &ObjectId, live: &Value) -> &'static [&'static [&'static str]] {
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => {
            &[&["spec", "template"]]
        }
        ("batch", "CronJob") => &[&["spec", "jobTemplate"]],
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole")
            if live.get("aggregationRule").is_none_or(Value::is_null) =>
        {
            &[&["rules"]]
        }
        ("", "ConfigMap") => &[&["data"], &["binaryData"]],
        // The token of a ServiceAccount is filled in by a controller.
        ("", "Secret")
            if live.get("type").and_then(Value::as_str)
                != Some("kubernetes.io/service-account-token") =>
        {
            &[&["data"]]
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => &[&["webhooks", "*", "rules"]],
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &[&["spec"]],
        _ => &[],
    }
}

/// Whether a missing object is made again. A finished Job may have been removed by its own time to
/// live; running it twice is worse than missing it.
pub fn is_recreated(id: &ObjectId) -> bool {
    !(id.group == "batch" && id.kind == "Job")
}

/// Annotations and labels of the platform: `kubernetes.io/…`, `*.kubernetes.io/…`.
fn is_platform_key(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(domain, _)| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

fn move_fields(live: &Value, manager: &str, moved: &[(Owner, super::ownership::Fields)]) -> Value {
    let Some(entries) = live.pointer("/metadata/managedFields").and_then(Value::as_array) else {
        return Value::Array(vec![]);
    };
    let about_object =
        |entry: &Value| entry.get("subresource").and_then(Value::as_str).is_none_or(str::is_empty);
    let is = |entry: &Value, key: &str, value: &str| {
        entry.get(key).and_then(Value::as_str) == Some(value)
    };
    let entries = entries.iter().filter_map(|entry| {
        let mut entry = entry.clone();
        if !about_object(&entry) {
            return Some(entry);
        }
        let fields = super::ownership::Fields::parse(entry.get("fieldsV1")?);
        let fields = if is(&entry, "manager", manager) && is(&entry, "operation", "Apply") {
            moved.iter().fold(fields, |all, (_, strip)| all.union(strip))
        } else {
            let of_this = moved.iter().find(|(owner, _)| {
                is(&entry, "manager", &owner.manager)
                    && is(&entry, "apiVersion", &owner.api_version)
                    && is(&entry, "operation", if owner.applied { "Apply" } else { "Update" })
            });
            match of_this {
                Some((_, strip)) => fields.minus(strip),
                None => fields,
            }
        };
        entry["fieldsV1"] = fields.to_fields_v1();
        (!fields.is_empty()).then_some(entry)
    });
    Value::Array(entries.collect())
}

/// The fields that keep their value though the release no longer sets them: replicas, and what the
/// index excepts.
fn hand_over(
    id: &ObjectId,
    body: &Value,
    live: &Value,
    ours: &Owner,
    exceptions: &[Vec<&str>],
) -> Option<Value> {
    let scaled = matches!(id.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet");
    let replicas: &[&[&str]] =
        if scaled && id.group == "apps" { &[&["spec", "replicas"]] } else { &[] };
    let mut kept = Value::Object(Map::new());
    let mut any = false;
    // Items of lists are left out: to name one takes its key, and that the release no longer gives.
    let whole = exceptions.iter().filter(|path| !path.iter().any(|step| step.starts_with('[')));
    for path in replicas.iter().copied().chain(whole.map(Vec::as_slice)) {
        let owned = !ours.fields.within(path).is_empty();
        if let (true, None, Some(value)) = (owned, get(body, path), get(live, path)) {
            insert(&mut kept, path, value.clone());
            any = true;
        }
    }
    any.then(|| {
        kept["apiVersion"] = id.api_version().into();
        kept["kind"] = id.kind.clone().into();
        kept["metadata"]["name"] = id.name.clone().into();
        if let Some(namespace) = &id.namespace {
            kept["metadata"]["namespace"] = namespace.clone().into();
        }
        kept
    })
}

/// The steps of a path such as `spec.containers[name=web].image` or `metadata.labels[a.io/b]`: names
/// of fields, and `[key=value]` for an item of a list.
fn steps(path: &str) -> Vec<&str> {
    let mut steps = vec![];
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let end = match rest.strip_prefix('[') {
            Some(inner) => inner.find(']').map_or(rest.len(), |at| at + 2),
            None => rest.find(['.', '[']).unwrap_or(rest.len()),
        };
        let (step, tail) = rest.split_at(end);
        let name = step.strip_prefix('[').and_then(|step| step.strip_suffix(']'));
        steps.push(name.filter(|name| !name.contains('=')).unwrap_or(step));
        if tail.len() == rest.len() {
            break;
        }
        rest = tail;
    }
    steps
}

/// Place in a list of the item that a step `[key=value]` names.
fn item(items: &[Value], step: &str) -> Option<usize> {
    let (key, wanted) = step.strip_prefix('[')?.strip_suffix(']')?.split_once('=')?;
    items.iter().position(|item| match item.get(key) {
        Some(Value::String(text)) => text == wanted,
        Some(other) => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| *other == wanted),
        None => false,
    })
}

fn get<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(item(items, step)?),
        _ => value.get(step),
    })
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => {
            let at = item(items, step)?;
            items.get_mut(at)
        }
        _ => value.get_mut(*step),
    });
    match parent {
        Some(Value::Object(map)) => {
            map.remove(*last);
        }
        Some(Value::Array(items)) => {
            if let Some(at) = item(items, last) {
                items.remove(at);
            }
        }
        _ => {}
    }
}

fn insert(value: &mut Value, path: &[&str], new: Value) {
    let slot = path.iter().fold(value, |value, name| &mut value[*name]);
    *slot = new;
}

/// Paths whose values differ between two versions of one object, at most [`MAX_REPORTED_FIELDS`];
/// names only, never values. Bookkeeping of the server and `status` don't count.
pub fn changed_paths(before: &Value, after: &Value) -> Vec<String> {
    let mut paths = vec![];
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    let mut names = keys(before).unwrap_or_default();
    names.extend(keys(after).unwrap_or_default());
    ordered::sort_by(&mut names, Ord::cmp);
    names.dedup();
    for name in names.iter().filter(|name| *name != "status") {
        let part = |object: &Value| {
            let mut part = object.get(name).cloned().unwrap_or(Value::Null);
            if name == "metadata"
                && let Some(map) = part.as_object_mut()
            {
                for key in ["managedFields", "resourceVersion", "generation", "selfLink"] {
                    map.remove(key);
                }
            }
            part
        };
        compare(name, &part(before), &part(after), &mut paths);
    }
    if paths.len() > MAX_REPORTED_FIELDS {
        let more = paths.len() - MAX_REPORTED_FIELDS;
        paths.truncate(MAX_REPORTED_FIELDS);
        paths.push(format!("and {more} more"));
    }
    paths
}

fn compare(path: &str, before: &Value, after: &Value, paths: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            ordered::sort_by(&mut names, Ord::cmp);
            names.dedup();
            for name in names {
                let below = match name.contains('.') {
                    true => format!("{path}[{name}]"),
                    false => format!("{path}.{name}"),
                };
                let at = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
                compare(&below, &at(old), &at(new), paths);
            }
        }
        (Value::Array(old), Value::Array(new)) if named(old) && named(new) => {
            let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
            let mut names: Vec<String> = old.iter().chain(new).map(name).collect();
            ordered::sort_by(&mut names, Ord::cmp);
            names.dedup();
            for wanted in names {
                let at = |items: &[Value]| items.iter().find(|item| name(item) == wanted).cloned();
                let below = format!("{path}[name={wanted}]");
                match (at(old), at(new)) {
                    (Some(old), Some(new)) => compare(&below, &old, &new, paths),
                    _ => paths.push(below),
                }
            }
        }
        _ if before == after => {}
        _ => paths.push(path.to_owned()),
    }
}

fn named(items: &[Value]) -> bool {
    items.iter().all(|item| item.get("name").is_some_and(Value::is_string))
}

/// How often one object had to be put back lately, and how long to wait before the next time: a
/// fight with another writer must neither loop nor go unseen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fight {
    corrections: u32,
    last: Option<Timestamp>,
}

impl Fight {
    /// Corrections that are made at once; from then on each waits twice as long as the last.
    pub const FREE_CORRECTIONS: u32 = 3;
    /// The first wait.
    pub const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
    /// The longest wait.
    pub const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(30);
    /// A time without correction after which all is forgotten.
    pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(2);

    /// Notes that the object was put back.
    pub fn corrected(&mut self, now: Timestamp) {
        if self.last.is_some_and(|last| now.duration_since(last) >= Self::FORGOTTEN_AFTER) {
            self.corrections = 0;
        }
        self.corrections = self.corrections.saturating_add(1);
        self.last = Some(now);
    }

    /// Earliest time of the next correction; none: at once.
    pub fn not_before(&self) -> Option<Timestamp> {
        let doublings = self.corrections.checked_sub(Self::FREE_CORRECTIONS)?;
        let factor = 1i32.checked_shl(doublings).filter(|factor| *factor > 0).unwrap_or(i32::MAX);
        let wait = Self::FIRST_WAIT.checked_mul(factor).unwrap_or(Self::LONGEST_WAIT);
        self.last?.checked_add(wait.min(Self::LONGEST_WAIT)).ok()
    }

    /// Corrections since it was last quiet.
    pub fn corrections(&self) -> u32 {
        self.corrections
    }

    /// Whether it goes back and forth.
    pub fn is_on(&self) -> bool {
        self.corrections >= Self::FREE_CORRECTIONS
    }
}

#[cfg(test)]
mod tests;
