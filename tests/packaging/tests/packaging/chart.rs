//! The Helm chart, rendered by a real Helm.

mod cluster;
mod rendered;
mod values;

use std::path::PathBuf;

use mendix_test_kit::helm::{Helm, HelmError};
use serde_json::{Value, json};

use crate::files::root;

/// Enough of the release root to be one JSON object; the agent is not started here.
const ROOT: &str = r#"{"signed": {"_type": "root"}}"#;
const KEYS: &str = r#"{"version": 1, "consent": [], "status": []}"#;
const CA: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

/// Helm, or nothing after a SKIP that says why.
fn helm() -> Option<Helm> {
    match Helm::find() {
        Ok(helm) => Some(helm),
        // What is fetched and is not what was pinned is no reason to go on without.
        Err(error @ HelmError::Digest { .. }) => panic!("{error}"),
        Err(error) => {
            mendix_test_kit::skip(&error.to_string());
            None
        }
    }
}

fn chart() -> PathBuf {
    root().join("packaging/helm/mendix-agent")
}

/// The least that must be given.
fn minimal() -> Value {
    json!({
        "endpoint": "https://10.20.0.4:8443",
        "image": { "repository": "localhost/mendix-agent", "tag": "dev" },
        "trust": { "rootJson": ROOT, "consentKeysJson": KEYS, "channelCaPem": CA },
    })
}

/// A value for everything that can be given.
fn everything() -> Value {
    json!({
        "endpoint": "https://control.privatelink.example:8443",
        "allowPublicEndpoint": true,
        "trust": { "rootJson": ROOT, "consentKeysJson": KEYS, "channelCaPem": CA },
        "bootstrap": { "token": "once" },
        "identity": { "existingSecret": "identity-of-cert-manager" },
        "proxy": {
            "url": "https://proxy.example:3128",
            "noProxy": [".svc", "10.0.0.0/8"],
            "credentialsSecret": "proxy-credentials",
            "caPem": CA,
        },
        "serverSpkiPins": ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
        "logging": { "filter": "debug", "format": "text" },
        "image": {
            "repository": "registry.example/mendix-agent",
            "digest": format!("sha256:{}", "0".repeat(64)),
            "pullPolicy": "Always",
            "pullSecrets": ["registry"],
        },
        "replicas": 3,
        "resources": { "requests": { "cpu": "50m" }, "limits": { "memory": "512Mi" } },
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "key": "CriticalAddonsOnly", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{
                "matchExpressions": [{ "key": "kubernetes.azure.com/mode", "operator": "In", "values": ["system"] }],
            }] },
        } },
        "podAnnotations": { "example.com/owner": "platform" },
        "podLabels": { "team": "platform" },
        "namespace": { "create": true },
        "uninstall": { "keepReceipts": true },
        "logSharingPolicy": { "mode": "Deny" },
        "networkPolicy": {
            "scrapers": [{ "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } }],
            "egress": {
                "endpointCidrs": ["10.20.0.0/28", "fd00::/64"],
                "apiServerCidrs": ["10.0.0.1/32"],
                "dnsCidrs": ["10.0.0.10/32"],
            },
        },
        "metrics": {
            "podMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
            "serviceMonitor": { "enabled": true, "interval": "15s" },
            "rules": { "enabled": true, "labels": { "release": "prometheus" } },
            "dashboard": { "enabled": true },
        },
        "preflight": { "onInstall": true, "deadlineSeconds": 60 },
    })
}

/// What `helm template` prints for the values.
fn template(helm: &Helm, values: &Value, more: &[&str]) -> Result<String, HelmError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string()).unwrap();
    let chart = chart();
    let mut arguments = vec!["template", "mendix-agent", chart.to_str().unwrap(), "--values"];
    arguments.push(file.to_str().unwrap());
    if !more.contains(&"--namespace") {
        arguments.extend(["--namespace", "mendix-agent"]);
    }
    arguments.extend(more);
    helm.run(None, arguments)
}

/// `value` with the field at `path` (dots between keys) set.
fn with(mut value: Value, path: &str, field: Value) -> Value {
    value
        .pointer_mut(&format!("/{}", path.replace('.', "/")))
        .map_or_else(|| panic!("there is no {path}"), |place| *place = field);
    value
}
