//! Custom resources of customers without their values: what shape they have, not what is in it.
//!
//! Before [`crate::redact`], for the specs that support looks at. Redaction finds what looks like a
//! secret; a spec holds passwords that are plain words, host names, and names of people. So the rule is
//! the other way round: keys, numbers and booleans stay, and of texts only those whose key says that
//! they are a kind, a version or a quantity.

use serde_json::Value;

use crate::ordered;

/// What stands for a text.
const MASK: &str = "[masked]";
/// Keys whose text stays.
const PLAIN: [&str; 12] = [
    "apiVersion",
    "class",
    "cpu",
    "ephemeral-storage",
    "kind",
    "memory",
    "mode",
    "operation",
    "runtimeVersion",
    "storage",
    "type",
    "version",
];
/// Keys below which nothing stays, numbers included: maps of the customer's own.
const OPAQUE: [&str; 9] = [
    "annotations",
    "constants",
    "data",
    "env",
    "environmentVariables",
    "labels",
    "scheduledEvents",
    "secrets",
    "stringData",
];
/// Deeper structure is masked whole.
const MAX_DEPTH: usize = 16;

/// A copy with its values masked.
pub fn masked(value: &Value) -> Value {
    mask("", value, MAX_DEPTH)
}

fn mask(key: &str, value: &Value, depth: usize) -> Value {
    if OPAQUE.contains(&key) {
        return opaque(value, depth);
    }
    match value {
        Value::String(text) if text.is_empty() || PLAIN.contains(&key) => value.clone(),
        Value::String(_) => MASK.into(),
        Value::Object(_) | Value::Array(_) if depth == 0 => MASK.into(),
        Value::Array(items) => items.iter().map(|item| mask(key, item, depth - 1)).collect(),
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(key, field)| (key.clone(), mask(key, field, depth - 1)));
            Value::Object(ordered::object(fields))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Only the keys of the outermost map stay; in a list of pairs their names.
fn opaque(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(ordered::object(fields.keys().map(|key| (key.clone(), MASK.into()))))
        }
        Value::Array(items) if depth > 0 => items
            .iter()
            .map(|item| match item.get("name") {
                Some(Value::String(name)) => serde_json::json!({ "name": name, "value": MASK }),
                _ => MASK.into(),
            })
            .collect(),
        _ => MASK.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shape_stays_and_the_values_go() {
        let spec = json!({
            "replicas": 2, "enabled": true, "runtimeVersion": "10.10.4", "name": "shop",
            "resources": { "limits": { "cpu": "500m", "memory": "1Gi" } },
            "endpoint": { "host": "shop.customer.example", "type": "ingress", "ports": [8080] },
            "constants": { "Shop.ApiPassword": "winter", "Shop.Retries": 4711 },
            "env": [{ "name": "DB_PASSWORD", "value": "spring" }, "autumn"],
            "domains": ["a.customer.example", "b.customer.example"],
            "empty": "", "nothing": null,
        });
        let masked = masked(&spec);
        assert_eq!(
            masked,
            json!({
                "replicas": 2, "enabled": true, "runtimeVersion": "10.10.4", "name": "[masked]",
                "resources": { "limits": { "cpu": "500m", "memory": "1Gi" } },
                "endpoint": { "host": "[masked]", "type": "ingress", "ports": [8080] },
                "constants": { "Shop.ApiPassword": "[masked]", "Shop.Retries": "[masked]" },
                "env": [{ "name": "DB_PASSWORD", "value": "[masked]" }, "[masked]"],
                "domains": ["[masked]", "[masked]"],
                "empty": "", "nothing": null,
            })
        );
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = json!({ "version": "1" });
        for _ in 0..100 {
            value = json!({ "next": value });
        }
        let text = masked(&value).to_string();
        assert_eq!(text.matches("next").count(), MAX_DEPTH);
        assert!(!text.contains("version"));
    }
}
