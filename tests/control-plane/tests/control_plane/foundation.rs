//! The agent's definitions and rights as a component of a release, made from the manifests that it is
//! installed with.

use std::{collections::BTreeSet, fs, path::Path};

use mendix_agent_core::bundle::{foundation::FOUNDATION_COMPONENT, index::ReleaseClass};
use mendix_control_plane::{
    manifests::{ComponentSpec, Problems, ReleaseSpec, draft},
    repository::{Expiry, narrowed, objects, publish},
};

use crate::{client::Plane, releases::operator_manifests};

/// The manifests that the agent is installed with, one file changed.
fn own_manifests(folder: &Path, file: &str, change: impl Fn(String) -> String) {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/manifests");
    for entry in fs::read_dir(manifests).expect("the manifests") {
        let entry = entry.expect("a manifest");
        let text = fs::read_to_string(entry.path()).expect("text");
        let name = entry.file_name();
        let text = if name == file { change(text) } else { text };
        fs::write(folder.join(name), text).expect("a copy");
    }
}

#[tokio::test]
async fn the_agents_own_manifests_become_its_foundation_and_what_is_wrong_with_it_is_said() {
    let plane = Plane::start().await;
    let dir = plane.dir.path().join("foundation");
    fs::create_dir_all(&dir).expect("a folder");
    own_manifests(&dir, "", |text| text);
    let component = || ComponentSpec::new(FOUNDATION_COMPONENT, "1.0.0", &dir);
    let spec = |id: &str| ReleaseSpec {
        components: vec![component()],
        ..ReleaseSpec::new(id, ReleaseClass::Weekly)
    };

    // What comes with the installation is left out, and said.
    let first = draft(&spec("r1")).unwrap_or_else(|problems| panic!("{problems}"));
    let notes: Vec<String> = first.notes().flat_map(|(_, lines)| lines).collect();
    for left_out in
        ["ServiceAccount mendix-agent", "Deployment mendix-agent", "Namespace mendix-agent"]
    {
        let told = format!("{left_out} is left out");
        assert!(notes.iter().any(|note| note.starts_with(&told)), "{told}: {notes:?}");
    }
    assert_eq!(narrowed(plane.store(), &first).await.expect("compared"), Vec::<String>::new());
    publish(plane.store(), first, None, Expiry::default()).await.expect("publish");
    let published = objects(plane.store(), "r1").await.expect("published");
    let kinds: BTreeSet<String> =
        published[FOUNDATION_COMPONENT].1.iter().map(|object| object.id.group_kind()).collect();
    let rbac = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
        .map(|kind| format!("rbac.authorization.k8s.io/{kind}"));
    let crd = "apiextensions.k8s.io/CustomResourceDefinition".to_owned();
    assert_eq!(kinds, ["Namespace".to_owned(), crd].into_iter().chain(rbac).collect());

    // It comes before all others.
    let operator = plane.dir.path().join("operator");
    operator_manifests(&operator);
    fs::remove_file(operator.join("a.yaml")).expect("the namespace is the foundation's");
    let late = ReleaseSpec {
        components: vec![ComponentSpec::new("operator", "1", &operator), component()],
        ..ReleaseSpec::new("r2", ReleaseClass::Weekly)
    };
    let Problems(problems) = draft(&late).expect_err("it is not the first");
    assert!(problems[0].starts_with("FoundationNotFirst: "), "{problems:?}");

    // What no release may give is named with object and field.
    own_manifests(&dir, "20-rbac.yaml", |text| text.replace("[pods/log]", "[pods/log, pods/exec]"));
    let Problems(problems) = draft(&spec("r2")).expect_err("a right that nobody gets");
    let expected = "RightForbidden: mendix-agent-foundation: ClusterRole mendix-agent-managed-namespace: rules[";
    assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
    assert!(problems[0].contains("].resources: pods/exec "), "{problems:?}");
    own_manifests(&dir, "20-rbac.yaml", |text| {
        let foreign = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: other}\n";
        format!("{text}{foreign}")
    });
    let Problems(problems) = draft(&spec("r2")).expect_err("a role of somebody else");
    assert!(problems.len() == 1 && problems[0].starts_with("FoundationObject: "), "{problems:?}");

    // More is a release like any other; less has to be meant.
    own_manifests(&dir, "20-rbac.yaml", |text| {
        text.replace(
            "[mendix-operator, mendix-ingress, mendix-certificates]",
            "[mendix-operator, mendix-ingress]",
        )
    });
    let less = draft(&spec("r2")).expect("alone it is sound");
    let problems = narrowed(plane.store(), &less).await.expect("compared");
    let expected =
        "Narrowed: mendix-agent-foundation: ClusterRole mendix-agent: rules: takes away: ";
    assert!(
        problems.len() == 12 && problems.iter().all(|it| it.starts_with(expected)),
        "{problems:?}"
    );
    let role = serde_json::json!({"group": "rbac.authorization.k8s.io", "version": "v1",
        "kind": "ClusterRole", "name": "mendix-agent"});
    let narrows = vec![serde_json::from_value(role).expect("an object")];
    let meant = draft(&ReleaseSpec { narrows, ..spec("r2") }).expect("a draft");
    assert_eq!(narrowed(plane.store(), &meant).await.expect("compared"), Vec::<String>::new());
    own_manifests(&dir, "20-rbac.yaml", |text| {
        text.replace("mendix-certificates]", "mendix-certificates, mendix-new]")
    });
    let more = draft(&spec("r2")).expect("a draft");
    assert_eq!(narrowed(plane.store(), &more).await.expect("compared"), Vec::<String>::new());
}
