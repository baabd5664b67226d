//! Custom resources against the definition that comes with them: the server can't be asked about a kind
//! that it doesn't serve yet, so what it would refuse is found here, before anything is touched.
//!
//! Judged is what a structural schema says plainly: types, required and unknown fields, enumerations,
//! bounds of numbers and lengths. Patterns, formats, combinations (`anyOf`, `not`) and CEL rules are left
//! to the server, which judges when the object is applied.

use serde_json::{Map, Value};

use crate::ordered;

/// Findings of one object that are told; one tells as much as a hundred.
const MAX_FINDINGS: usize = 16;
/// Fields of the root that the API machinery itself defines.
const OF_EVERY_OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// What a definition says of one of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served<'a> {
    /// It is served, with this schema.
    As(&'a Value),
    /// It is served without a schema, or not by a definition of `v1`: nothing is judged.
    Unjudged,
    /// It is not served.
    No,
}

/// What `definition`, a CustomResourceDefinition, says of `version`.
pub fn served<'a>(definition: &'a Value, version: &str) -> Served<'a> {
    let Some(versions) = definition.pointer("/spec/versions").and_then(Value::as_array) else {
        return Served::Unjudged;
    };
    let named = versions.iter().find(|v| v.get("name").and_then(Value::as_str) == Some(version));
    let Some(named) = named.filter(|v| v.get("served").is_none_or(|served| *served == true)) else {
        return Served::No;
    };
    match named.pointer("/schema/openAPIV3Schema") {
        Some(schema) => Served::As(schema),
        None => Served::Unjudged,
    }
}

/// Where an object is not as its schema wants it: dotted path and what was found.
pub fn findings(schema: &Value, object: &Value) -> Vec<(String, String)> {
    let mut found = Findings(vec![]);
    if let Some(fields) = object.as_object() {
        let own = fields
            .iter()
            .filter(|(name, _)| !OF_EVERY_OBJECT.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()));
        found.object(schema, &ordered::object(own), "");
    }
    found.0
}

struct Findings(Vec<(String, String)>);

impl Findings {
    fn say(&mut self, path: &str, what: impl Into<String>) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push((path.to_owned(), what.into()));
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
        if value.is_null() {
            // A null where none may be is dropped by the server before it looks.
            return;
        }
        if flag("x-kubernetes-int-or-string") {
            if !(value.is_i64() || value.is_u64() || value.is_string()) {
                self.say(path, "is neither a whole number nor a text");
            }
            return;
        }
        match (schema.get("type").and_then(Value::as_str), value) {
            (Some("object"), Value::Object(fields)) => self.object(schema, fields, path),
            (Some("array"), Value::Array(items)) => self.items(schema, items, path),
            (Some("string"), Value::String(text)) => {
                let length = text.chars().count() as u64;
                self.length(schema, ["minLength", "maxLength"], length, "characters", path);
            }
            (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some("integer"), Value::Number(number))
                if number.is_i64() || number.is_u64() || number.as_f64().is_some_and(whole) =>
            {
                self.number(schema, number.as_f64(), path);
            }
            (Some("number"), Value::Number(number)) => self.number(schema, number.as_f64(), path),
            (Some(wanted), _) => {
                self.say(path, format!("is not of type {wanted}"));
                return;
            }
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.say(path, format!("is none of {}", names.join(", ")));
        }
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = |name: &str| properties.and_then(|properties| properties.get(name));
        let at =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = name.as_str() else { continue };
            let by_default = known(name).is_some_and(|schema| schema.get("default").is_some());
            let of_machinery = path.is_empty() && OF_EVERY_OBJECT.contains(&name);
            if !fields.contains_key(name) && !by_default && !of_machinery {
                self.say(&at(name), "is missing");
            }
        }
        let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
        let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        for (name, value) in fields {
            match (known(name), schema.get("additionalProperties")) {
                (Some(schema), _) => self.value(schema, value, &at(name)),
                (None, Some(Value::Object(_))) => {
                    self.value(&schema["additionalProperties"], value, &at(name));
                }
                (None, Some(Value::Bool(true))) => {}
                (None, _) if open => {}
                (None, _) if embedded && OF_EVERY_OBJECT.contains(&name.as_str()) => {}
                (None, _) => self.say(&at(name), "is not a field of the definition"),
            }
        }
    }

    fn items(&mut self, schema: &Value, items: &[Value], path: &str) {
        self.length(schema, ["minItems", "maxItems"], items.len() as u64, "items", path);
        if let Some(schema) = schema.get("items") {
            for (n, item) in items.iter().enumerate() {
                self.value(schema, item, &format!("{path}[{n}]"));
            }
        }
    }

    fn length(&mut self, schema: &Value, [min, max]: [&str; 2], found: u64, of: &str, path: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        if let Some(min) = bound(min).filter(|min| found < *min) {
            self.say(path, format!("has {found} {of}; at least {min} are needed"));
        }
        if let Some(max) = bound(max).filter(|max| found > *max) {
            self.say(path, format!("has {found} {of}; at most {max} are allowed"));
        }
    }

    fn number(&mut self, schema: &Value, found: Option<f64>, path: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let exclusive = |name: &str| schema.get(name) == Some(&Value::Bool(true));
        let Some(found) = found else { return };
        if let Some(min) = bound("minimum")
            && (found < min || found == min && exclusive("exclusiveMinimum"))
        {
            self.say(path, format!("{found} is below the minimum, {min}"));
        }
        if let Some(max) = bound("maximum")
            && (found > max || found == max && exclusive("exclusiveMaximum"))
        {
            self.say(path, format!("{found} is above the maximum, {max}"));
        }
    }
}

fn whole(number: f64) -> bool {
    number.fract() == 0.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size", "mode"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "mode": {"type": "string", "enum": ["fast", "safe"], "default": "safe"},
            "name": {"type": "string", "minLength": 2, "maxLength": 3},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "object", "properties": {"a": {"type": "boolean"}}}},
        }}}})
    }

    fn object(spec: Value) -> Value {
        json!({"apiVersion": "g/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn what_fits_is_left_alone_and_a_default_stands_in_for_a_required_field() {
        for spec in [
            json!({"size": 3}),
            json!({"size": 3.0, "mode": "fast", "port": "http", "labels": {"x": "y"},
                "free": {"any": {"thing": 1}}, "list": [{"a": true}], "name": null}),
            json!({"size": 9, "port": 80, "name": "äö"}),
        ] {
            assert_eq!(findings(&schema(), &object(spec.clone())), [], "{spec}");
        }
    }

    #[test]
    fn everything_that_does_not_fit_is_named_with_its_field() {
        for (spec, field, found) in [
            (json!({}), "spec.size", "is missing"),
            (json!({"size": "3"}), "spec.size", "is not of type integer"),
            (json!({"size": 1.5}), "spec.size", "is not of type integer"),
            (json!({"size": 0}), "spec.size", "0 is below the minimum, 1"),
            (json!({"size": 10}), "spec.size", "10 is above the maximum, 9"),
            (json!({"size": 1, "mode": "slow"}), "spec.mode", "is none of \"fast\", \"safe\""),
            (json!({"size": 1, "sice": 2}), "spec.sice", "is not a field of the definition"),
            (
                json!({"size": 1, "name": "a"}),
                "spec.name",
                "has 1 characters; at least 2 are needed",
            ),
            (json!({"size": 1, "port": true}), "spec.port", "is neither a whole number nor a text"),
            (json!({"size": 1, "labels": {"x": 1}}), "spec.labels.x", "is not of type string"),
            (
                json!({"size": 1, "list": [{"b": 1}]}),
                "spec.list[0].b",
                "is not a field of the definition",
            ),
            (
                json!({"size": 1, "list": [{}, {}]}),
                "spec.list",
                "has 2 items; at most 1 are allowed",
            ),
        ] {
            let all = findings(&schema(), &object(spec.clone()));
            assert_eq!(all, [(field.to_owned(), found.to_owned())], "{spec}");
        }
        let missing = json!({"apiVersion": "g/v1", "kind": "Thing", "metadata": {}});
        assert_eq!(findings(&schema(), &missing), [("spec".into(), "is missing".into())]);
    }

    #[test]
    fn findings_are_bounded() {
        let spec: Map<String, Value> = (0..99).map(|n| (format!("x{n}"), json!(1))).collect();
        assert_eq!(findings(&schema(), &object(Value::Object(spec))).len(), MAX_FINDINGS);
    }

    #[test]
    fn a_version_that_is_not_served_is_told_from_one_without_schema() {
        let definition = json!({"spec": {"versions": [
            {"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v1beta1", "served": false}, {"name": "v2", "served": true}]}});
        assert!(matches!(served(&definition, "v1"), Served::As(_)));
        assert_eq!(served(&definition, "v1beta1"), Served::No);
        assert_eq!(served(&definition, "v3"), Served::No);
        assert_eq!(served(&definition, "v2"), Served::Unjudged);
        assert_eq!(served(&json!({}), "v1"), Served::Unjudged);
    }
}
