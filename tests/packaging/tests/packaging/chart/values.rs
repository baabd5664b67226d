//! The values: each is described, and those that can't work are refused in words that help.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{everything, helm, minimal, template};
use crate::files::{objects, read};

const SCHEMA: &str = "packaging/helm/mendix-agent/values.schema.json";
const VALUES: &str = "packaging/helm/mendix-agent/values.yaml";

/// Paths of the values that `defaults` holds. A map that a schema leaves open is one value.
fn paths(defaults: &Value, schema: &Value, whole: &Value, at: &str, into: &mut BTreeSet<String>) {
    let schema = resolve(schema, whole);
    match (defaults.as_object(), schema["properties"].as_object()) {
        (Some(map), Some(properties)) => {
            for (key, value) in map {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                paths(value, properties.get(key).unwrap_or(&Value::Null), whole, &at, into);
            }
        }
        _ => {
            into.insert(at.to_owned());
        }
    }
}

/// The same of the schema, with what is missing in it.
fn described(schema: &Value, whole: &Value, at: &str, into: &mut BTreeSet<String>) -> Vec<String> {
    let mut faults = vec![];
    let described_here = schema["description"].is_string();
    let schema = resolve(schema, whole);
    if !at.is_empty() && !described_here {
        faults.push(format!("{at} has no description"));
    }
    match schema["properties"].as_object() {
        Some(properties) => {
            if schema["additionalProperties"] != json!(false) {
                faults.push(format!("{at} takes keys that nobody reads"));
            }
            for (key, value) in properties.iter().filter(|(key, _)| *key != "global") {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                faults.extend(described(value, whole, &at, into));
            }
        }
        None => {
            into.insert(at.to_owned());
        }
    }
    faults
}

fn resolve<'a>(schema: &'a Value, whole: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

#[test]
fn every_value_is_described_and_has_a_default() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let defaults = objects(&read(VALUES)).remove(0);
    let (mut in_schema, mut in_defaults) = (BTreeSet::new(), BTreeSet::new());
    let faults = described(&schema, &schema, "", &mut in_schema);
    assert!(faults.is_empty(), "{SCHEMA}:\n{}", faults.join("\n"));
    paths(&defaults, &schema, &schema, "", &mut in_defaults);
    assert_eq!(in_schema, in_defaults, "schema (left) and values.yaml (right) know other values");
    assert!(in_schema.len() > 30, "{in_schema:?}");
}

#[test]
fn the_values_of_the_tests_leave_nothing_out() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let (mut all, mut given) = (BTreeSet::new(), BTreeSet::new());
    described(&schema, &schema, "", &mut all);
    paths(&everything(), &schema, &schema, "", &mut given);
    let left: Vec<_> = all.difference(&given).map(String::as_str).collect();
    // Alternatives to what is given, and what is right as it is.
    assert_eq!(
        left,
        [
            "admissionPolicy.install",
            "bootstrap.existingSecret",
            "crds.install",
            "image.tag",
            "logSharingPolicy.create",
            "managedNamespaces.create",
            "metrics.dashboard.labels",
            "metrics.podMonitor.interval",
            "metrics.serviceMonitor.labels",
            "networkPolicy.egress.apiServerPorts",
            "networkPolicy.enabled",
            "podDisruptionBudget.enabled",
            "proxy.caConfigMap",
            "trust.existingConfigMap",
        ]
    );
}

#[test]
fn values_that_cannot_work_are_refused_in_words_that_name_them() {
    let Some(helm) = helm() else { return };
    let merged = |patch: Value| {
        let mut values = minimal();
        merge(&mut values, patch);
        values
    };
    for (values, words) in [
        (json!({}), "endpoint is empty: give the control plane's private endpoint"),
        (merged(json!({"endpoint": "http://10.0.0.1:1"})), "endpoint: Does not match pattern"),
        (merged(json!({"endpoint": "https://u@10.0.0.1:1"})), "endpoint: Does not match pattern"),
        (merged(json!({"endpoint": "https://10.0.0.1:1/a"})), "endpoint: Does not match pattern"),
        (merged(json!({"endpiont": "x"})), "Additional property endpiont is not allowed"),
        (merged(json!({"image": {"repository": ""}})), "image.repository is empty"),
        (merged(json!({"image": {"digest": "sha256:12"}})), "image.digest: Does not match"),
        (merged(json!({"image": {"pullPolicy": "Sometimes"}})), "image.pullPolicy must be one of"),
        (merged(json!({"image": {"pullSecrets": [""]}})), "image.pullSecrets.0: Does not match"),
        (merged(json!({"replicas": 0})), "replicas: Must be greater than or equal to 1"),
        (merged(json!({"replicas": 9})), "replicas: Must be less than or equal to 3"),
        (merged(json!({"trust": {"rootJson": ""}})), "--set-file trust.rootJson=FILE"),
        (merged(json!({"trust": {"rootJson": "[]"}})), "trust.rootJson is not a JSON object"),
        (merged(json!({"trust": {"channelCaPem": "x"}})), "trust.channelCaPem holds no PEM"),
        (merged(json!({"trust": {"existingConfigMap": "a"}})), "exclude each other"),
        (
            merged(json!({"bootstrap": {"token": "a", "existingSecret": "b"}})),
            "bootstrap.token and bootstrap.existingSecret exclude each other",
        ),
        (
            merged(json!({"bootstrap": {"token": "Token of a cluster:\nmxb-1\n"}})),
            "bootstrap.token is more than one word",
        ),
        (merged(json!({"proxy": {"url": "10.0.0.1"}})), "proxy.url: Does not match pattern"),
        (merged(json!({"proxy": {"url": "http://10.0.0.1:1"}})), "proxy.url needs serverSpkiPins"),
        (merged(json!({"proxy": {"noProxy": ["a"]}})), "mean nothing without proxy.url"),
        (merged(json!({"serverSpkiPins": ["AAAA"]})), "serverSpkiPins.0: Does not match pattern"),
        (
            merged(json!({"proxy": {"url": "https://10.0.0.1:1"}, "serverSpkiPins": [pin()]})),
            "give the authority that vouches for the proxy",
        ),
        (merged(json!({"logging": {"format": "xml"}})), "logging.format must be one of"),
        (
            merged(json!({"networkPolicy": {"egress": {"endpointCidrs": ["10.0.0.1"]}}})),
            "networkPolicy.egress.endpointCidrs.0: Does not match pattern",
        ),
        (
            merged(json!({"networkPolicy": {"egress": {"endpointCidrs": ["10.0.0.1/32"]}}})),
            "would cut the agent off from its cluster",
        ),
        (
            merged(json!({"networkPolicy": {"egress": {"apiServerCidrs": ["10.0.0.1/32"]}}})),
            "would cut the agent off from the control plane",
        ),
        (merged(json!({"logSharingPolicy": {"mode": "Allow"}})), "logSharingPolicy.mode must be"),
        (
            merged(json!({"preflight": {"deadlineSeconds": 1}})),
            "preflight.deadlineSeconds: Must be",
        ),
    ] {
        let refused = template(&helm, &values, &[]).expect_err(words).to_string();
        assert!(refused.contains(words), "{words} is not said in\n{refused}");
    }
    let refused = template(&helm, &minimal(), &["--namespace", "default"]).unwrap_err().to_string();
    assert!(refused.contains("add --namespace mendix-agent"), "{refused}");
}

fn pin() -> String {
    format!("sha256/{}=", "A".repeat(43))
}

/// Merges maps, replaces everything else.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
