//! What the releases bring: two components with all kinds that a component has, in two variants that
//! differ in every object that can differ, and a bad variant that never gets ready.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use mendix_control_plane::manifests::{ComponentSpec, ReleaseSpec};
use serde_json::{Value, json};

pub(crate) const OPERATOR: &str = "mendix-operator";
pub(crate) const MONITORING: &str = "mendix-monitoring";
/// No pod ever starts here, so that nobody looks for the image.
const IMAGE: &str = "registry.invalid/component@sha256:\
     1111111111111111111111111111111111111111111111111111111111111111";

/// Which variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    A,
    B,
    /// B, with a workload that can't get ready.
    Bad,
}

impl Content {
    fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B | Self::Bad => "b",
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::B | Self::Bad => 2,
        }
    }
}

/// A release of both components, its manifests written below `folder`.
pub(crate) fn release(release_id: &str, content: Content, folder: &Path) -> Result<ReleaseSpec> {
    let mut components = vec![];
    for (name, objects) in [(OPERATOR, operator(content)), (MONITORING, monitoring(content))] {
        let dir = folder.join(release_id).join(name);
        fs::create_dir_all(&dir).context("make the component's folder")?;
        for (number, object) in objects.iter().enumerate() {
            let file = dir.join(format!("{number:02}.json"));
            fs::write(file, object.to_string()).context("write a manifest")?;
        }
        let version = format!("{}.0.0", content.number());
        // From B to A is a way back, which the signed index has to allow.
        let goes_back = true;
        components.push(ComponentSpec { goes_back, ..ComponentSpec::new(name, version, dir) });
    }
    Ok(ReleaseSpec {
        gates: Gates { timeout_seconds: 120, soak_seconds: 0 },
        components,
        ..ReleaseSpec::new(release_id, ReleaseClass::Critical)
    })
}

fn operator(content: Content) -> Vec<Value> {
    let letter = content.letter();
    let rules = json!([{
        "apiGroups": ["privatecloud.mendix.com"],
        "resources": ["operatorconfigurations"],
        "verbs": if content == Content::A { json!(["get"]) } else { json!(["get", "list", "watch"]) },
    }]);
    let group = "rbac.authorization.k8s.io";
    let subjects = json!([{ "kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR }]);
    vec![
        definition(content),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": OPERATOR, "namespace": OPERATOR, "labels": { "variant": letter } },
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
            "metadata": { "name": OPERATOR }, "rules": rules,
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
            "metadata": { "name": OPERATOR }, "subjects": subjects,
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": OPERATOR },
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role",
            "metadata": { "name": OPERATOR, "namespace": OPERATOR }, "rules": rules,
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": { "name": OPERATOR, "namespace": OPERATOR }, "subjects": subjects,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": OPERATOR },
        }),
        settings(OPERATOR, content),
        variant(OPERATOR, content),
        service(OPERATOR, content),
        deployment(OPERATOR, content),
    ]
}

fn monitoring(content: Content) -> Vec<Value> {
    let mut workload = deployment(MONITORING, content);
    if content == Content::Bad {
        workload["spec"]["replicas"] = json!(1);
        // Other pods than those of B: the controller gives up on new ones when the deadline is over.
        workload["spec"]["template"]["metadata"]["annotations"] = json!({ "is": "bad" });
    }
    vec![
        settings(MONITORING, content),
        variant(MONITORING, content),
        service(MONITORING, content),
        workload,
    ]
}

fn definition(content: Content) -> Value {
    let mut version = json!({
        "name": "v1alpha1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": {
            "type": "object",
            "properties": {
                "runtimeLogLevel": { "type": "string" },
                "reconcileSeconds": { "type": "integer", "minimum": 1 },
            },
        } } } },
    });
    if content != Content::A {
        version["additionalPrinterColumns"] =
            json!([{ "name": "Level", "type": "string", "jsonPath": ".spec.runtimeLogLevel" }]);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "operatorconfigurations.privatecloud.mendix.com" },
        "spec": {
            "group": "privatecloud.mendix.com", "scope": "Namespaced",
            "names": {
                "kind": "OperatorConfiguration", "listKind": "OperatorConfigurationList",
                "plural": "operatorconfigurations", "singular": "operatorconfiguration",
            },
            "versions": [version],
        },
    })
}

/// Has a key that the other variant does not have.
fn settings(component: &str, content: Content) -> Value {
    let letter = content.letter();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": component, "namespace": component },
        "data": { "variant": letter, format!("only-in-{letter}"): "yes" },
    })
}

/// The other variant does not have it.
fn variant(component: &str, content: Content) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": format!("variant-{}", content.letter()), "namespace": component },
    })
}

fn service(component: &str, content: Content) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": component, "namespace": component },
        "spec": {
            "selector": { "app": component },
            "ports": [{ "name": "http", "port": 8080 + content.number(), "protocol": "TCP" }],
        },
    })
}

/// Without replicas it is ready as soon as the controllers have seen it.
fn deployment(component: &str, content: Content) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": component, "namespace": component, "labels": { "variant": content.letter() },
        },
        "spec": {
            "replicas": 0,
            "progressDeadlineSeconds": 2,
            "selector": { "matchLabels": { "app": component } },
            "template": {
                "metadata": { "labels": { "app": component } },
                "spec": { "containers": [{
                    "name": "main", "image": IMAGE,
                    "env": [{ "name": "VARIANT", "value": content.letter() }],
                }] },
            },
        },
    })
}
