//! What Helm, Kustomize and controller-gen render, made fit for a release.
//!
//! Only what says nothing is taken away (an empty `status`, a `creationTimestamp` of null) and only
//! what the API server would fill in is added. Whatever carries meaning and can't be kept is a problem
//! that names the object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use mendix_agent_core::bundle::{
    kind,
    object::{IdFields, ObjectId},
};
use serde_json::{Map, Value, json};

const HOOK: &str = "helm.sh/hook";
/// Hooks that only `helm test` runs.
const TEST_HOOKS: [&str; 3] = ["test", "test-success", "test-failure"];

/// What was changed in a component's manifests, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    counts: BTreeMap<&'static str, usize>,
    left_out: Vec<String>,
}

impl Notes {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let counts = self.counts.iter().map(|(what, count)| format!("{what} ({count})"));
        self.left_out.iter().cloned().chain(counts).collect()
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

/// The objects of one YAML document: none, one, or the items of a list.
///
/// # Errors
/// When the document holds something that no release can keep.
pub(super) fn objects(document: Value, notes: &mut Notes) -> Result<Vec<Value>, String> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
    if document.is_null() {
        return Ok(vec![]);
    }
    if !kind.ends_with("List") || document.get("items").is_none() {
        return Ok(object(document, notes)?.into_iter().collect());
    }
    let Value::Object(mut list) = document else { return Ok(vec![]) };
    match list.remove("items") {
        Some(Value::Array(items)) => {
            notes.count("lists taken apart");
            let mut all = Vec::new();
            for item in items {
                all.extend(object(item, notes)?);
            }
            Ok(all)
        }
        _ => Err("items: is not a list".to_owned()),
    }
}

fn object(mut body: Value, notes: &mut Notes) -> Result<Option<Value>, String> {
    if let Some(hook) = body.pointer("/metadata/annotations").and_then(|all| all.get(HOOK)) {
        let hooks: Vec<&str> =
            hook.as_str().unwrap_or_default().split(',').map(str::trim).collect();
        let name = shown(&body);
        if !hooks.iter().all(|hook| TEST_HOOKS.contains(hook)) {
            return Err(format!(
                "{name} is a Helm hook ({}), and hooks are not run: render with --no-hooks, or make it an object of \
                 the component by removing the annotation {HOOK}",
                hooks.join(", ")
            ));
        }
        notes.left_out.push(format!("{name} is left out: only `helm test` runs it"));
        return Ok(None);
    }
    if let Value::Object(fields) = &mut body
        && fields.get("status").is_some_and(says_nothing)
    {
        fields.remove("status");
        notes.count("empty status taken away");
    }
    drop_null_timestamps(&mut body, notes);
    default_protocols(&mut body, notes);
    Ok(Some(body))
}

/// Whether the object of the agent's manifests is one that a release of its foundation may bring. Everything
/// else of them comes with the installation, and is left out; what is a definition, a role or a binding is not,
/// so that a wrong one is refused and not overlooked.
pub(super) fn is_foundation(body: &Value, own: &str, notes: &mut Notes) -> bool {
    let text = |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let stays = match text("/kind") {
        "Namespace" => text("/metadata/name") != own,
        "CustomResourceDefinition"
        | "Role"
        | "ClusterRole"
        | "RoleBinding"
        | "ClusterRoleBinding" => true,
        _ => false,
    };
    if !stays {
        let name = shown(body);
        notes.left_out.push(format!("{name} is left out: it comes with the agent's installation"));
    }
    stays
}

fn shown(body: &Value) -> String {
    let text = |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Go's encoder writes the zero time as null wherever an object has metadata.
fn drop_null_timestamps(value: &mut Value, notes: &mut Notes) {
    match value {
        Value::Object(fields) => {
            if fields.get("creationTimestamp").is_some_and(Value::is_null) {
                fields.remove("creationTimestamp");
                notes.count("creationTimestamp of null taken away");
            }
            fields.values_mut().for_each(|inner| drop_null_timestamps(inner, notes));
        }
        Value::Array(items) => items.iter_mut().for_each(|i| drop_null_timestamps(i, notes)),
        _ => {}
    }
}

/// Ports are merged by number and protocol. Where the protocol is left to the default, servers before
/// 1.21 can't apply a change of them (measured on 1.20.2: 500).
fn default_protocols(body: &mut Value, notes: &mut Notes) {
    let spec = match body.get("kind").and_then(Value::as_str) {
        Some("Service") => {
            set_protocols(body.pointer_mut("/spec/ports"), notes);
            return;
        }
        Some("Pod") => "/spec",
        Some("CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    for list in ["initContainers", "containers"] {
        let containers = body.pointer_mut(&format!("{spec}/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            set_protocols(container.get_mut("ports"), notes);
        }
    }
}

fn set_protocols(ports: Option<&mut Value>, notes: &mut Notes) {
    for port in ports.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(port) = port
            && !port.contains_key("protocol")
        {
            port.insert("protocol".to_owned(), json!("TCP"));
            notes.count("protocol TCP of ports written out");
        }
    }
}

/// Writes `namespace` into the namespaced objects that name none, as `helm install -n` and
/// `kubectl apply -n` would do. `namespaced` holds the `group/Kind` of custom kinds that CRDs of the
/// release declare as namespaced.
pub(super) fn set_namespace(
    body: &mut Value,
    namespace: &str,
    namespaced: &BTreeSet<String>,
    notes: &mut Notes,
) {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let id = ObjectId::from(IdFields {
        group: group.to_owned(),
        version: version.to_owned(),
        kind,
        namespace: None,
        name: String::new(),
    });
    let wanted = kind::is_namespaced(&id).unwrap_or_else(|| namespaced.contains(&id.group_kind()));
    let metadata = body.get_mut("metadata").and_then(Value::as_object_mut);
    let absent = |metadata: &&mut Map<String, Value>| !metadata.contains_key("namespace");
    if let (true, Some(metadata)) = (wanted, metadata.filter(absent)) {
        metadata.insert("namespace".to_owned(), json!(namespace));
        notes.count("namespace written into objects that named none");
    }
}

/// `group/Kind` of the namespaced kinds that CRDs among the bodies declare.
pub(super) fn namespaced_kinds<'a>(bodies: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    bodies
        .filter(|body| body.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition"))
        .filter(|body| body.pointer("/spec/scope").is_some_and(|scope| scope == "Namespaced"))
        .filter_map(|body| {
            let text = |pointer| body.pointer(pointer).and_then(Value::as_str);
            Some(format!("{}/{}", text("/spec/group")?, text("/spec/names/kind")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(body: Value) -> (Value, Notes) {
        let mut notes = Notes::default();
        let mut objects = objects(body, &mut notes).expect("fit");
        (objects.remove(0), notes)
    }

    #[test]
    fn what_says_nothing_is_taken_away_and_what_says_something_stays() {
        let (body, notes) = one(json!({
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"template": {"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}}},
            "status": {"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": null},
        }));
        assert_eq!(
            body,
            json!({
                "kind": "CustomResourceDefinition", "metadata": {"name": "a"},
                "spec": {"template": {"metadata": {"labels": {"a": "b"}}}},
            })
        );
        assert_eq!(
            notes.to_string(),
            "creationTimestamp of null taken away (2); empty status taken away (1)"
        );
        let kept =
            json!({"kind": "X", "metadata": {"creationTimestamp": "2026"}, "status": {"a": 0}});
        assert_eq!(one(kept.clone()), (kept, Notes::default()), "admission refuses it by name");
    }

    #[test]
    fn lists_are_taken_apart() {
        let mut notes = Notes::default();
        let list = json!({"kind": "List", "items": [{"kind": "A"}, {"kind": "B", "status": {}}]});
        let items = objects(list, &mut notes).expect("items");
        assert_eq!(items, [json!({"kind": "A"}), json!({"kind": "B"})]);
        assert_eq!(
            objects(json!({"kind": "List", "items": 1}), &mut notes),
            Err("items: is not a list".into())
        );
        assert_eq!(objects(Value::Null, &mut notes), Ok(vec![]));
    }

    #[test]
    fn hooks_of_helm_are_refused_and_its_tests_left_out() {
        let hook = |hook: &str| json!({"kind": "Job", "metadata": {"name": "j", "annotations": {"helm.sh/hook": hook}}});
        let mut notes = Notes::default();
        assert_eq!(objects(hook("test"), &mut notes), Ok(vec![]));
        assert_eq!(notes.lines(), ["Job j is left out: only `helm test` runs it"]);
        let refused = objects(hook("pre-install, test"), &mut notes).expect_err("a hook");
        assert!(refused.contains("Job j is a Helm hook (pre-install, test)"), "{refused}");
    }

    #[test]
    fn protocols_are_written_out_where_lists_are_merged_by_them() {
        let ports = json!([{"port": 80}, {"port": 53, "protocol": "UDP"}]);
        let (body, _) = one(json!({"kind": "Service", "spec": {"ports": ports}}));
        assert_eq!(body.pointer("/spec/ports/0/protocol"), Some(&json!("TCP")));
        assert_eq!(body.pointer("/spec/ports/1/protocol"), Some(&json!("UDP")));
        let pod = json!({"containers": [{"ports": [{"containerPort": 1}]}]});
        for (kind, spec, at) in [
            ("Pod", pod.clone(), "/spec"),
            ("Deployment", json!({"template": {"spec": pod}}), "/spec/template/spec"),
            (
                "CronJob",
                json!({"jobTemplate": {"spec": {"template": {"spec": pod}}}}),
                "/spec/jobTemplate/spec/template/spec",
            ),
        ] {
            let (body, _) = one(json!({"kind": kind, "spec": spec}));
            let at = format!("{at}/containers/0/ports/0/protocol");
            assert_eq!(body.pointer(&at), Some(&json!("TCP")), "{kind}");
        }
        let crd = json!({"kind": "OperatorConfiguration", "spec": {"ports": [{"port": 80}]}});
        assert_eq!(one(crd.clone()), (crd, Notes::default()));
    }

    #[test]
    fn a_namespace_is_written_into_namespaced_objects_that_name_none() {
        let crd = json!({
            "kind": "CustomResourceDefinition",
            "spec": {"group": "g.io", "scope": "Namespaced", "names": {"kind": "Thing"}},
        });
        let kinds = namespaced_kinds([&crd].into_iter());
        let namespace = |api: &str, kind: &str, own: Option<&str>| {
            let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x"}});
            if let Some(own) = own {
                body["metadata"]["namespace"] = json!(own);
            }
            set_namespace(&mut body, "ns", &kinds, &mut Notes::default());
            body.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned)
        };
        assert_eq!(namespace("v1", "Secret", None).as_deref(), Some("ns"));
        assert_eq!(namespace("v1", "Secret", Some("own")).as_deref(), Some("own"));
        assert_eq!(namespace("g.io/v1", "Thing", None).as_deref(), Some("ns"));
        assert_eq!(namespace("g.io/v1", "Other", None), None, "nobody says where it lives");
        assert_eq!(namespace("rbac.authorization.k8s.io/v1", "ClusterRole", None), None);
    }
}
