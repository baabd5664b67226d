//! What the chart renders, against the plain manifests, the agent's own reading of it, the
//! restricted Pod Security standard, and snapshots.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{chart, everything, helm, minimal, template, with};
use crate::files::{objects, read, root};

/// kind, namespace, name.
type Key = (String, String, String);

/// Written by the chart on top of what the manifests say.
const ADDED_ANNOTATIONS: [&str; 4] =
    ["checksum/config", "checksum/trust", "checksum/proxy-ca", "helm.sh/resource-policy"];

fn key(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    (text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

/// The objects by key, without what only the chart adds.
fn by_key(all: impl IntoIterator<Item = Value>) -> BTreeMap<Key, Value> {
    all.into_iter()
        .map(|mut object| {
            for at in ["/metadata", "/spec/template/metadata"] {
                let Some(meta) = object.pointer_mut(at) else { continue };
                let Some(annotations) = meta["annotations"].as_object_mut() else {
                    meta.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                    continue;
                };
                annotations.retain(|name, _| {
                    !ADDED_ANNOTATIONS.contains(&name.as_str()) && !name.starts_with("helm.sh/hook")
                });
                if annotations.is_empty() {
                    meta.as_object_mut().unwrap().remove("annotations");
                }
            }
            (key(&object), object)
        })
        .collect()
}

fn manifests() -> BTreeMap<Key, Value> {
    let mut files: Vec<_> = std::fs::read_dir(root().join("packaging/manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    by_key(files.iter().flat_map(|file| objects(&read(&format!("packaging/manifests/{file}")))))
}

#[test]
fn with_its_defaults_the_chart_renders_the_plain_manifests() {
    let Some(helm) = helm() else { return };
    let mut values = minimal();
    values["namespace"] = json!({ "create": true });
    let text = template(&helm, &values, &["--kube-version", "1.31.0"]).unwrap();
    let mut rendered = by_key(objects(&text));
    // What differs per cluster and so is in no manifest, and the test of the release.
    for (kind, name) in [
        ("ConfigMap", "mendix-agent-config"),
        ("ConfigMap", "mendix-agent-trust"),
        ("Job", "mendix-agent-preflight"),
    ] {
        let key = (kind.to_owned(), "mendix-agent".to_owned(), name.to_owned());
        assert!(rendered.remove(&key).is_some(), "{kind} {name} is not rendered");
    }
    let plain = manifests();
    let keys = |objects: &BTreeMap<Key, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&plain), keys(&rendered), "manifests (left) and chart (right)");
    for (key, object) in &plain {
        assert_eq!(
            serde_json::to_string_pretty(object).unwrap(),
            serde_json::to_string_pretty(&rendered[key]).unwrap(),
            "{key:?}: the manifest (left) is not what the chart renders (right)"
        );
    }
}

#[test]
fn rendered_objects_are_as_their_snapshots_say() {
    let Some(helm) = helm() else { return };
    for (name, values) in [("minimal", minimal()), ("everything", everything())] {
        let text = template(&helm, &values, &["--kube-version", "1.31.0"]).unwrap();
        // What comes from the manifests as it is has a test of its own, and a history of its own.
        let plain = manifests();
        let mut shown = vec![];
        for object in objects(&text) {
            let from_a_file = plain.get(&key(&object)) == Some(&object)
                || key(&object).2 == "mendix-agent-dashboard"
                || ["PrometheusRule", "CustomResourceDefinition"]
                    .iter()
                    .any(|k| object["kind"] == **k);
            if !from_a_file {
                shown.push(serde_saphyr::to_string(&object).unwrap());
            }
        }
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("chart-{name}"), shown.join("---\n"));
        });
    }
}

#[test]
fn a_server_without_admission_policies_gets_none_and_an_old_one_its_own_disruption_budget() {
    let Some(helm) = helm() else { return };
    let kinds = |values: &Value, version: &str| -> Vec<(String, String)> {
        let text = template(&helm, values, &["--kube-version", version]).unwrap();
        let text_of = |object: &Value, at: &str| object[at].as_str().unwrap().to_owned();
        objects(&text).iter().map(|o| (text_of(o, "apiVersion"), text_of(o, "kind"))).collect()
    };
    let has = |kinds: &[(String, String)], version: &str, kind: &str| {
        kinds.iter().any(|(v, k)| v == version && k == kind)
    };
    for (version, budget) in [("1.20.2", "policy/v1beta1"), ("1.21.0", "policy/v1")] {
        let rendered = kinds(&minimal(), version);
        assert!(has(&rendered, budget, "PodDisruptionBudget"), "{rendered:?}");
        assert!(!rendered.iter().any(|(_, kind)| kind.starts_with("ValidatingAdmission")));
    }
    // Servers that call themselves what AKS does.
    assert!(has(&kinds(&minimal(), "v1.33.4"), "policy/v1", "PodDisruptionBudget"));
}

#[test]
fn the_agent_reads_the_configuration_that_the_chart_writes() {
    let Some(helm) = helm() else { return };
    for values in [minimal(), everything()] {
        let text = template(&helm, &values, &[]).unwrap();
        let map = objects(&text)
            .into_iter()
            .find(|object| object["metadata"]["name"] == "mendix-agent-config")
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, map["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let flags = mendix_agent::config::Layer::default();
        let config = mendix_agent::config::Sources::read(&flags, &|_| None, Some(&file))
            .and_then(|sources| sources.resolve())
            .unwrap_or_else(|error| panic!("{error}"));
        let endpoint = config.endpoint.as_str().trim_end_matches('/');
        assert_eq!(endpoint, values["endpoint"].as_str().unwrap());
        let proxy = config.route.proxy.map(|proxy| proxy.host);
        assert_eq!(proxy.as_deref(), values["proxy"]["url"].as_str().map(|_| "proxy.example"));
        assert_eq!(config.route.pins.len(), usize::from(proxy.is_some()));
        assert_eq!(config.allow_public_endpoint, values["allowPublicEndpoint"] == json!(true));
    }
}

#[test]
fn the_agent_takes_the_arguments_that_the_chart_gives() {
    let Some(helm) = helm() else { return };
    let mut taken = vec![];
    for object in objects(&template(&helm, &everything(), &[]).unwrap()) {
        let Some(container) = object.pointer("/spec/template/spec/containers/0") else { continue };
        let mut words = vec!["mendix-agent"];
        words.extend(container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()));
        let matches = mendix_agent::cli::commands().try_get_matches_from(&words);
        let matches = matches.unwrap_or_else(|error| panic!("{words:?}: {error}"));
        taken.push(matches.subcommand_name().unwrap().to_owned());
    }
    taken.sort();
    assert_eq!(taken, ["guard", "preflight", "run"]);
}

#[test]
fn a_chart_that_was_packaged_renders_the_same() {
    let Some(helm) = helm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let chart = chart();
    let to = folder.path().to_str().unwrap();
    helm.run(None, ["package", chart.to_str().unwrap(), "--destination", to]).unwrap();
    let package = folder.path().join(format!("mendix-agent-{}.tgz", env!("CARGO_PKG_VERSION")));
    assert!(package.is_file(), "the chart's version is not the workspace's");
    let values = folder.path().join("values.json");
    std::fs::write(&values, minimal().to_string()).unwrap();
    let packaged = helm
        .run(
            None,
            [
                "template",
                "mendix-agent",
                package.to_str().unwrap(),
                "--namespace",
                "mendix-agent",
                "--values",
                values.to_str().unwrap(),
            ],
        )
        .unwrap();
    assert_eq!(packaged, template(&helm, &minimal(), &[]).unwrap());
}

/// What the restricted Pod Security standard asks of a pod's specification, for the fields that the
/// chart uses; each fault is one line.
fn against_restricted(pod: &Value) -> Vec<String> {
    let mut faults = vec![];
    let mut ask = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        ask(pod[field].is_null(), format!("{field} is set"));
    }
    let pod_wide = &pod["securityContext"];
    ask(pod_wide["runAsNonRoot"] == json!(true), "runAsNonRoot".into());
    ask(pod_wide["seccompProfile"]["type"] == json!("RuntimeDefault"), "seccompProfile".into());
    ask(pod_wide["runAsUser"] != json!(0), "runAsUser 0".into());
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let allowed = ["configMap", "secret", "projected", "emptyDir"];
        let fits = volume
            .as_object()
            .unwrap()
            .keys()
            .all(|k| k == "name" || allowed.contains(&k.as_str()));
        ask(fits, format!("volume {volume}"));
    }
    let lists = ["containers", "initContainers"];
    for container in lists.iter().flat_map(|list| pod[*list].as_array().into_iter().flatten()) {
        let own = &container["securityContext"];
        ask(own["allowPrivilegeEscalation"] == json!(false), "allowPrivilegeEscalation".into());
        ask(own["capabilities"]["drop"] == json!(["ALL"]), "capabilities".into());
        ask(own["capabilities"]["add"].is_null(), "added capabilities".into());
        ask(own["privileged"].is_null(), "privileged".into());
        // Not asked by the standard, but promised in SECURITY.md.
        ask(own["readOnlyRootFilesystem"] == json!(true), "readOnlyRootFilesystem".into());
    }
    faults
}

#[test]
fn rules_and_dashboard_reach_the_cluster_as_the_files_say() {
    let Some(helm) = helm() else { return };
    let all = objects(&template(&helm, &everything(), &[]).unwrap());
    let of = |kind: &str, name: &str| {
        let found = all.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("{kind} {name} is not rendered"))
    };
    let rules = objects(&read("packaging/observability/alerts.yaml")).remove(0);
    assert_eq!(of("PrometheusRule", "mendix-agent")["spec"], rules);
    let map = of("ConfigMap", "mendix-agent-dashboard");
    let dashboard = read("packaging/observability/dashboard.json");
    assert_eq!(map["data"]["mendix-agent.json"].as_str().unwrap(), dashboard);
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
}

#[test]
fn every_pod_keeps_to_the_restricted_pod_security_standard() {
    let Some(helm) = helm() else { return };
    let mut pods = 0;
    for values in [minimal(), everything()] {
        for object in objects(&template(&helm, &values, &[]).unwrap()) {
            let Some(pod) = object.pointer("/spec/template/spec") else { continue };
            let faults = against_restricted(pod);
            assert!(faults.is_empty(), "{:?}: {}", key(&object), faults.join(", "));
            pods += 1;
        }
    }
    assert_eq!(pods, 6, "agent, guard and preflight, twice");
    // The check is one: what it must find, it finds.
    let good = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "volumes": [{ "name": "a", "emptyDir": {} }],
        "containers": [{ "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        } }],
    });
    assert!(against_restricted(&good).is_empty());
    for (path, value) in [
        ("securityContext.runAsNonRoot", json!(false)),
        ("securityContext.seccompProfile.type", json!("Unconfined")),
        ("containers.0.securityContext.capabilities.drop", json!([])),
        ("containers.0.securityContext.allowPrivilegeEscalation", json!(true)),
        ("volumes.0", json!({ "name": "a", "hostPath": {} })),
    ] {
        assert_eq!(against_restricted(&with(good.clone(), path, value)).len(), 1, "{path}");
    }
}
