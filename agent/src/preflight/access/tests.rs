//! The table against the manifest, both ways.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use super::*;

const MANIFEST: &str = include_str!("../../../../packaging/manifests/20-rbac.yaml");

#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<PolicyRule>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

type Flat = (Scope, String, String, String, String);

fn flatten(
    scope: Scope,
    groups: &[String],
    resources: &[String],
    names: &[String],
    verbs: &[String],
    all: &mut BTreeSet<Flat>,
) {
    let any = [String::new()];
    let names = if names.is_empty() { &any } else { names };
    for group in groups {
        for resource in resources {
            for name in names {
                for verb in verbs {
                    all.insert((
                        scope,
                        group.clone(),
                        resource.clone(),
                        name.clone(),
                        verb.clone(),
                    ));
                }
            }
        }
    }
}

#[test]
fn the_table_and_the_manifest_grant_the_same() {
    let mut granted = BTreeSet::new();
    for text in MANIFEST.split("\n---\n") {
        let document: Document = serde_saphyr::from_str(text).unwrap();
        let scope = match (document.kind.as_str(), document.metadata.name.as_str()) {
            ("Role", "mendix-agent") => Scope::Own,
            // The guard's rights are not the agent's.
            ("Role", "mendix-agent-guard") => continue,
            ("ClusterRole", "mendix-agent-managed-namespace") => Scope::Managed,
            ("ClusterRole", "mendix-agent") => Scope::Cluster,
            ("ServiceAccount" | "RoleBinding" | "ClusterRoleBinding", _) => continue,
            (kind, name) => panic!("{kind} {name} is in the manifest and not in this test"),
        };
        for rule in document.rules {
            let or_none = Option::unwrap_or_default;
            let (groups, names) = (or_none(rule.api_groups), or_none(rule.resource_names));
            let resources = or_none(rule.resources);
            flatten(scope, &groups, &resources, &names, &rule.verbs, &mut granted);
        }
    }
    let mut required = BTreeSet::new();
    let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    for access in REQUIRED {
        let (group, resources) = ([access.group.to_owned()], owned(access.resources));
        let (names, verbs) = (owned(access.names), owned(access.verbs));
        flatten(access.scope, &group, &resources, &names, &verbs, &mut required);
    }
    let ungranted: Vec<_> = required.difference(&granted).collect();
    let unlisted: Vec<_> = granted.difference(&required).collect();
    assert!(ungranted.is_empty(), "in REQUIRED and not in the manifest: {ungranted:#?}");
    assert!(unlisted.is_empty(), "in the manifest and not in REQUIRED: {unlisted:#?}");
}

#[test]
fn a_right_reads_like_kubectl() {
    let rights = rights("mendix-agent");
    let shown: Vec<String> = rights.iter().map(ToString::to_string).collect();
    assert!(shown.contains(&"create secrets in mendix-agent".to_owned()));
    assert!(shown.contains(&"get pods/log in mendix-monitoring".to_owned()));
    assert!(shown.contains(&"get namespaces kube-system".to_owned()));
}
