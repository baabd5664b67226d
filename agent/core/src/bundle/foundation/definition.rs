//! The agent's definitions: whether every object that the present one takes is taken by the new one, in
//! every version that is served. Columns, descriptions and examples are free; a keyword that is not known
//! here has to stay as it is.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{AGENT_GROUP, Finding};
use crate::ordered;

/// Findings of one definition that are told.
const MAX_FINDINGS: usize = 16;

/// What a definition of the agent may never hold.
pub(super) fn findings(body: &Value) -> Vec<Finding> {
    let mut found = vec![];
    if text(body, "/spec/group") != Some(AGENT_GROUP) {
        found.push(("spec.group".to_owned(), format!("is not {AGENT_GROUP}")));
    }
    let converts = body.pointer("/spec/conversion/strategy").is_some_and(|it| it != "None");
    if converts || body.pointer("/spec/conversion/webhook").is_some() {
        let what = "objects of the agent are not converted by a webhook".to_owned();
        found.push(("spec.conversion".to_owned(), what));
    }
    found
}

/// What `new` takes away of `live`.
pub(super) fn narrowing(live: &Value, new: &Value) -> Vec<Finding> {
    let mut found = Findings(vec![]);
    for field in ["group", "scope", "names.plural", "names.kind"] {
        let pointer = format!("/spec/{}", field.replace('.', "/"));
        if text(live, &pointer) != text(new, &pointer) {
            found.say(&format!("spec.{field}"), "is another");
        }
    }
    // The server fills these in.
    let kind = text(live, "/spec/names/kind").unwrap_or_default();
    for (field, otherwise) in
        [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))]
    {
        let pointer = format!("/spec/names/{field}");
        let [before, after] = [live, new].map(|it| text(it, &pointer).unwrap_or(&otherwise));
        if before != after {
            found.say(&format!("spec.names.{field}"), "is another");
        }
    }
    for field in ["shortNames", "categories"] {
        let pointer = format!("/spec/names/{field}");
        found.kept(&format!("spec.names.{field}"), live.pointer(&pointer), new.pointer(&pointer));
    }
    for before in versions(live).filter(|version| is(version, "served") || is(version, "storage")) {
        let name = before.get("name").and_then(Value::as_str).unwrap_or_default();
        let path = format!("spec.versions[{name}]");
        let Some(after) = versions(new).find(|version| version.get("name") == before.get("name"))
        else {
            found.say(&path, "is missing");
            continue;
        };
        if is(before, "served") && !is(after, "served") {
            found.say(&format!("{path}.served"), "is served no more");
        }
        if is(before, "storage") && !is(after, "storage") {
            found.say(&format!("{path}.storage"), "is stored no more");
        }
        found.version(&path, before, after);
    }
    found.0
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn is(value: &Value, flag: &str) -> bool {
    value.get(flag) == Some(&Value::Bool(true))
}

struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, path: &str, what: &str) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push((path.to_owned(), what.to_owned()));
        }
    }

    /// Every item of the list of before is in the one of after.
    fn kept(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>) {
        let items =
            |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
        let after = items(after);
        for item in items(before).iter().filter(|item| !after.contains(item)) {
            self.say(path, &format!("{item} is missing"));
        }
    }

    fn version(&mut self, path: &str, before: &Value, after: &Value) {
        let keys = keys(before, after);
        for key in keys {
            let at = format!("{path}.{key}");
            match (key.as_str(), before.get(key), after.get(key)) {
                ("name" | "served" | "storage" | "additionalPrinterColumns", ..)
                | ("deprecated" | "deprecationWarning", ..) => {}
                ("schema", before, after) => {
                    let of =
                        |it: Option<&Value>| it.and_then(|it| it.get("openAPIV3Schema")).cloned();
                    match (of(before), of(after)) {
                        (Some(before), Some(after)) => self.schema(&at, &before, &after),
                        (None, Some(_)) => self.say(&at, "was not there"),
                        _ => {}
                    }
                }
                ("subresources", before, after) => {
                    for (name, value) in before.and_then(Value::as_object).into_iter().flatten() {
                        if after.and_then(|after| after.get(name)) != Some(value) {
                            self.say(&format!("{at}.{name}"), "is not as it was");
                        }
                    }
                    // A status of its own can't be written along with the object any more.
                    let has_status =
                        |it: Option<&Value>| it.is_some_and(|it| it.get("status").is_some());
                    if has_status(after) && !has_status(before) {
                        self.say(&format!("{at}.status"), "was not there");
                    }
                }
                ("selectableFields", before, after) => self.kept(&at, before, after),
                (_, before, after) if before != after => self.say(&at, "is not as it was"),
                _ => {}
            }
        }
    }

    fn schema(&mut self, path: &str, before: &Value, after: &Value) {
        let keys = keys(before, after);
        for key in keys {
            self.keyword(path, key, before, after);
        }
    }

    fn keyword(&mut self, path: &str, key: &str, before: &Value, after: &Value) {
        let at = format!("{path}.{key}");
        let (old, new) = (before.get(key), after.get(key));
        match (key, old, new) {
            ("description" | "title" | "example" | "externalDocs", ..) => {}
            ("enum", old, Some(new)) => match old {
                Some(old) => self.kept(&at, Some(old), Some(new)),
                None => self.say(&at, "limits more than before"),
            },
            ("required" | "x-kubernetes-validations", old, Some(new)) => {
                self.nothing_new(&at, old, new);
            }
            ("enum" | "required" | "x-kubernetes-validations", _, None) => {}
            // What limits may go, or loosen.
            (limit, old, Some(new)) if LIMITS.contains(&limit) && tightens(limit, old, new) => {
                self.say(&at, "limits more than before");
            }
            (limit, ..) if LIMITS.contains(&limit) => {}
            ("nullable" | "x-kubernetes-preserve-unknown-fields", old, new) => {
                let on = Some(&Value::Bool(true));
                if old == on && new != on {
                    self.say(&at, "is no more");
                }
            }
            // One that comes fills in what nobody wrote before; one that goes or changes alters what
            // is read.
            ("default", None, Some(_)) => {}
            ("properties", old, new) => self.properties(path, old, new, before),
            ("items", Some(old), Some(new)) => self.schema(&at, old, new),
            // Names that were dropped are taken now. Where they were kept as they came, this limits.
            ("additionalProperties", None, Some(_)) if !takes_any_name(before) => {}
            ("additionalProperties", Some(_), Some(Value::Bool(true))) => {}
            (
                "additionalProperties",
                Some(old @ Value::Object(_)),
                Some(new @ Value::Object(_)),
            ) => {
                self.schema(&at, old, new);
            }
            (_, old, new) if old != new => self.say(&at, "is not as it was"),
            _ => {}
        }
    }

    /// Every item of the list of after was in the one of before: nothing more is asked for.
    fn nothing_new(&mut self, path: &str, before: Option<&Value>, after: &Value) {
        let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
        for item in after.as_array().into_iter().flatten().filter(|item| !before.contains(item)) {
            self.say(path, &format!("{item} is new"));
        }
    }

    fn properties(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>, before: &Value) {
        let get = |properties: Option<&Value>| -> Map<String, Value> {
            properties.and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let (old, new) = (get(old), get(new));
        for (name, schema) in &old {
            let at = format!("{path}.properties.{name}");
            match new.get(name) {
                Some(after) => self.schema(&at, schema, after),
                None => self.say(&at, "is missing"),
            }
        }
        // Where any name was taken, a field that is described is one that is limited.
        let any = takes_any_name(before);
        for name in new.keys().filter(|name| any && !old.contains_key(*name)) {
            self.say(&format!("{path}.properties.{name}"), "was free before");
        }
    }
}

fn takes_any_name(schema: &Value) -> bool {
    is(schema, "x-kubernetes-preserve-unknown-fields")
        || schema.get("additionalProperties").is_some_and(|it| *it != Value::Bool(false))
}

/// Keywords that take objects away; absent, they take none.
const LIMITS: [&str; 18] = [
    "format",
    "pattern",
    "multipleOf",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "uniqueItems",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minimum",
    "minLength",
    "minItems",
    "minProperties",
    "maximum",
    "maxLength",
    "maxItems",
    "maxProperties",
];

/// Whether a limit that is set takes more away than the one of before.
fn tightens(keyword: &str, old: Option<&Value>, new: &Value) -> bool {
    match old {
        Some(old) if keyword.starts_with("min") => !at_most(new, old),
        Some(old) if keyword.starts_with("max") => !at_most(old, new),
        // What a pattern or a combination takes can't be compared.
        old => old != Some(new) && *new != Value::Bool(false),
    }
}

fn at_most(lower: &Value, upper: &Value) -> bool {
    // Whole numbers first: as floating-point ones, large neighbours are equal.
    match (lower.as_i64(), upper.as_i64()) {
        (Some(lower), Some(upper)) => lower <= upper,
        _ => lower.as_f64().zip(upper.as_f64()).is_some_and(|(lower, upper)| lower <= upper),
    }
}

/// The names in either of two objects.
fn keys<'a>(before: &'a Value, after: &'a Value) -> BTreeSet<&'a String> {
    ordered::set([before, after].into_iter().filter_map(Value::as_object).flat_map(Map::keys))
}

#[cfg(test)]
mod tests;
