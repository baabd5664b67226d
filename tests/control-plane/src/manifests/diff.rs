//! What a release changes, object by object and field by field, against what was published before.
//!
//! Values of Secrets are never shown: that one changed is.

use std::collections::{BTreeMap, BTreeSet};

use mendix_agent_core::bundle::object::{Object, ObjectId};
use serde::Serialize;
use serde_json::Value;

/// Changed fields that are shown of one object; the rest is counted.
const MAX_FIELDS: usize = 20;
/// Longest value that is shown, characters.
const MAX_VALUE: usize = 60;
/// In place of any value of a Secret.
const HIDDEN: &str = "(secret)";

/// What a release changes about one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentDiff {
    /// The component.
    pub name: String,
    /// Release that it is compared with; none when no earlier one names the component.
    pub against: Option<String>,
    /// Version there.
    pub from: Option<String>,
    /// Version now.
    pub to: String,
    /// Objects that were not there.
    pub added: Vec<String>,
    /// Objects that are there no more: they are pruned.
    pub removed: Vec<String>,
    /// Objects that differ.
    pub changed: Vec<ObjectDiff>,
}

/// What changes in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectDiff {
    /// The object.
    pub object: String,
    /// `path: from → to`, at most 20 and the number of the others.
    pub fields: Vec<String>,
}

impl ComponentDiff {
    /// Whether it leaves everything as it is.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// For people: one line per object, indented lines per field.
    pub fn lines(&self) -> Vec<String> {
        let versions = match (&self.from, &self.against) {
            (Some(from), Some(against)) if *from != self.to => {
                format!("{} → {} (against release {against})", from, self.to)
            }
            (_, Some(against)) => format!("{} (against release {against})", self.to),
            _ => format!("{} (new)", self.to),
        };
        let mut lines = vec![format!("{} {versions}", self.name)];
        if self.is_empty() {
            lines.push("  no object changes".to_owned());
        }
        lines.extend(self.added.iter().map(|object| format!("  + {object}")));
        lines.extend(self.removed.iter().map(|object| format!("  - {object}")));
        for change in &self.changed {
            lines.push(format!("  ~ {}", change.object));
            lines.extend(change.fields.iter().map(|field| format!("      {field}")));
        }
        lines
    }
}

/// Compares the objects of a component. `before` is what was published last of it, if anything was.
pub(crate) fn compare(
    (name, to): (&str, &str),
    before: Option<(&str, &str, &[Object])>,
    now: &[Object],
) -> ComponentDiff {
    let by_id = |objects: &[Object]| -> BTreeMap<ObjectId, Value> {
        objects.iter().map(|object| (object.id.clone(), object.body.value())).collect()
    };
    let (old, new) = (by_id(before.map_or(&[], |(_, _, objects)| objects)), by_id(now));
    let only = |a: &BTreeMap<ObjectId, Value>, b: &BTreeMap<ObjectId, Value>| {
        a.keys().filter(|id| !b.contains_key(id)).map(ToString::to_string).collect()
    };
    let changed = new.iter().filter_map(|(id, body)| {
        let mut fields = Vec::new();
        let secret = id.group.is_empty() && id.kind == "Secret";
        differences(old.get(id)?, body, String::new(), secret, &mut fields);
        let more = fields.len().saturating_sub(MAX_FIELDS);
        fields.truncate(MAX_FIELDS);
        if more > 0 {
            fields.push(format!("and {more} more"));
        }
        (!fields.is_empty()).then(|| ObjectDiff { object: id.to_string(), fields })
    });
    ComponentDiff {
        name: name.to_owned(),
        against: before.map(|(release, _, _)| release.to_owned()),
        from: before.map(|(_, version, _)| version.to_owned()),
        to: to.to_owned(),
        added: only(&new, &old),
        removed: only(&old, &new),
        changed: changed.collect(),
    }
}

fn differences(old: &Value, new: &Value, path: String, secret: bool, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                pair(a.get(key), b.get(key), path, secret, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => match (named(a), named(b)) {
            (Some(a), Some(b)) => {
                for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                    let path = format!("{path}[{name}]");
                    pair(a.get(name).copied(), b.get(name).copied(), path, secret, found);
                }
            }
            _ => {
                for n in 0..a.len().max(b.len()) {
                    pair(a.get(n), b.get(n), format!("{path}[{n}]"), secret, found);
                }
            }
        },
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: {} → {}", shown(a, secret), shown(b, secret))),
    }
}

fn pair(
    old: Option<&Value>,
    new: Option<&Value>,
    path: String,
    secret: bool,
    found: &mut Vec<String>,
) {
    match (old, new) {
        (Some(old), Some(new)) => differences(old, new, path, secret, found),
        (Some(old), None) => found.push(format!("{path}: {} → (gone)", shown(old, secret))),
        (None, Some(new)) => found.push(format!("{path}: (new) {}", shown(new, secret))),
        (None, None) => {}
    }
}

/// List items by their name, where all have one of their own: containers, variables, ports, volumes.
fn named(items: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: BTreeMap<&str, &Value> = items
        .iter()
        .map(|item| Some((item.get("name")?.as_str()?, item)))
        .collect::<Option<_>>()?;
    (named.len() == items.len()).then_some(named)
}

fn shown(value: &Value, secret: bool) -> String {
    if secret {
        return HIDDEN.to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, rest: Value) -> Object {
        let mut body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let (Value::Object(body_fields), Value::Object(rest)) = (&mut body, rest) else {
            panic!("objects")
        };
        body_fields.extend(rest);
        Object::from_body(&body).expect("an object")
    }

    #[test]
    fn objects_and_fields_are_named() {
        let containers = |image: &str| json!({"spec": {"containers": [{"name": "b", "image": "x"}, {"name": "a", "image": image}]}});
        let old = [object("Pod", "p", containers("one")), object("ConfigMap", "gone", json!({}))];
        let reordered = json!({"spec": {"containers": [{"name": "a", "image": "two"}, {"name": "b", "image": "x"}]}});
        let new = [object("Pod", "p", reordered), object("ConfigMap", "new", json!({}))];
        let diff = compare(("op", "2"), Some(("r1", "1", &old)), &new);
        assert_eq!(
            diff.lines(),
            [
                "op 1 → 2 (against release r1)",
                "  + ConfigMap new",
                "  - ConfigMap gone",
                "  ~ Pod p",
                "      spec.containers[a].image: \"one\" → \"two\"",
            ]
        );
        let same = compare(("op", "2"), Some(("r1", "2", &new)), &new);
        assert!(same.is_empty());
        assert_eq!(same.lines(), ["op 2 (against release r1)", "  no object changes"]);
        assert_eq!(compare(("op", "2"), None, &new).lines()[0], "op 2 (new)");
    }

    #[test]
    fn values_of_secrets_are_not_shown() {
        let secret = |value: &str| object("Secret", "s", json!({"data": {"password": value}}));
        let diff =
            compare(("op", "2"), Some(("r1", "1", &[secret("aHVudGVyMg==")])), &[secret("eA==")]);
        assert_eq!(diff.changed[0].fields, ["data.password: (secret) → (secret)"]);
        let text = serde_json::to_string(&diff).expect("JSON");
        assert!(!text.contains("aHVudGVyMg") && !text.contains("eA=="));
    }

    #[test]
    fn long_values_and_many_fields_are_cut() {
        let long = "ä".repeat(500);
        let data = |n: usize, value: &str| {
            let data: BTreeMap<String, &str> =
                (0..n).map(|n| (format!("k{n:02}"), value)).collect();
            object("ConfigMap", "c", json!({ "data": data }))
        };
        let diff = compare(("op", "2"), Some(("r1", "1", &[data(30, "a")])), &[data(30, &long)]);
        let fields = &diff.changed[0].fields;
        assert_eq!((fields.len(), fields[MAX_FIELDS].as_str()), (21, "and 10 more"));
        assert!(fields[0].chars().count() < 100 && fields[0].ends_with('…'), "{}", fields[0]);
    }
}
