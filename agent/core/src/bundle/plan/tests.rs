use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::bundle::{
    admission::tests::{Draft, facts, object},
    object::IdFields,
};

fn body(kind: &str, name: &str) -> Value {
    let (api_version, namespaced) = match kind {
        "Namespace" | "PersistentVolume" => ("v1", false),
        "CustomResourceDefinition" => ("apiextensions.k8s.io/v1", false),
        "ClusterRole" | "ClusterRoleBinding" => ("rbac.authorization.k8s.io/v1", false),
        "Deployment" => ("apps/v1", true),
        "Job" => ("batch/v1", true),
        "ValidatingWebhookConfiguration" => ("admissionregistration.k8s.io/v1", false),
        "Build" => ("privatecloud.mendix.com/v1alpha1", true),
        _ => ("v1", true),
    };
    object(api_version, kind, namespaced.then_some("mendix"), name)
}

fn id(kind: &str, name: &str) -> ObjectId {
    Object::from_body(&body(kind, name)).unwrap().id
}

fn names<'a>(ids: impl IntoIterator<Item = &'a ObjectId>) -> Vec<String> {
    ids.into_iter().map(|id| format!("{} {}", id.kind, id.name)).collect()
}

fn plan(draft: Draft, inventory: &Inventory) -> Plan {
    Plan::new(draft.admit(&facts()).unwrap(), inventory)
}

#[test]
fn components_go_by_phase_and_then_by_name() {
    let draft = Draft::new(1)
        .component("zeta", 1, vec![body("ConfigMap", "z")])
        .component("alpha", 2, vec![body("ConfigMap", "a")])
        .component("beta", 1, vec![body("ConfigMap", "b")]);
    let plan = plan(draft, &Inventory::new());
    let order: Vec<_> = plan.components().iter().map(|c| c.entry().name.as_str()).collect();
    assert_eq!(order, ["beta", "zeta", "alpha"]);
}

#[test]
fn what_others_need_comes_first() {
    let bodies = vec![
        body("ValidatingWebhookConfiguration", "w"),
        body("Build", "b"),
        body("Job", "j"),
        body("Deployment", "d"),
        body("Service", "s"),
        body("ClusterRoleBinding", "rb"),
        body("ConfigMap", "c2"),
        body("ConfigMap", "c1"),
        body("ClusterRole", "r"),
        body("ServiceAccount", "sa"),
        body("CustomResourceDefinition", "builds.privatecloud.mendix.com"),
        body("Namespace", "mendix"),
    ];
    let plan = plan(Draft::new(1).component("a", 1, bodies), &Inventory::new());
    let component = &plan.components()[0];
    let stages: Vec<_> = component.stages().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(
        stages,
        [
            Stage::Definitions,
            Stage::Configuration,
            Stage::Workloads,
            Stage::CustomResources,
            Stage::Webhooks
        ]
    );
    assert_eq!(
        names(component.objects().map(|object| &object.id)),
        [
            "Namespace mendix",
            "CustomResourceDefinition builds.privatecloud.mendix.com",
            "ServiceAccount sa",
            "ClusterRole r",
            "ClusterRoleBinding rb",
            "ConfigMap c1",
            "ConfigMap c2",
            "Service s",
            "Deployment d",
            "Job j",
            "Build b",
            "ValidatingWebhookConfiguration w",
        ]
    );
}

#[test]
fn what_is_no_longer_named_is_pruned_in_reverse_order() {
    let inventory = Inventory::from([(
        "a".into(),
        vec![
            id("ConfigMap", "kept"),
            id("ConfigMap", "gone"),
            id("ServiceAccount", "gone"),
            id("Deployment", "gone"),
            id("ValidatingWebhookConfiguration", "gone"),
        ],
    )]);
    let draft = Draft::new(1).component("a", 1, vec![body("ConfigMap", "kept")]);
    let plan = plan(draft, &inventory);
    assert_eq!(
        names(plan.components()[0].prune()),
        [
            "ValidatingWebhookConfiguration gone",
            "Deployment gone",
            "ConfigMap gone",
            "ServiceAccount gone"
        ]
    );
    assert!(plan.components()[0].kept().is_empty());
}

#[test]
fn data_is_deleted_only_when_the_index_names_it() {
    let data = [
        id("PersistentVolumeClaim", "one"),
        id("PersistentVolumeClaim", "two"),
        id("PersistentVolume", "v"),
        id("Namespace", "old"),
        id("CustomResourceDefinition", "x.example.com"),
    ];
    let inventory = Inventory::from([("a".into(), data.to_vec())]);
    let mut draft = Draft::new(1).component("a", 1, vec![body("ConfigMap", "c")]);
    draft.index.deletes = vec![id("PersistentVolumeClaim", "one")];
    let plan = plan(draft, &inventory);
    let component = &plan.components()[0];
    assert_eq!(names(component.prune()), ["PersistentVolumeClaim one"]);
    assert_eq!(
        names(component.kept()),
        [
            "PersistentVolumeClaim two",
            "PersistentVolume v",
            "CustomResourceDefinition x.example.com",
            "Namespace old",
        ]
    );
}

#[test]
fn an_object_that_moves_to_another_component_is_not_pruned() {
    let inventory = Inventory::from([("a".into(), vec![id("ConfigMap", "moved")])]);
    let draft = Draft::new(1).component("a", 1, vec![body("ConfigMap", "other")]).component(
        "b",
        1,
        vec![body("ConfigMap", "moved")],
    );
    assert!(plan(draft, &inventory).components().iter().all(|c| c.prune().is_empty()));
}

#[test]
fn components_outside_the_release_are_left_alone() {
    let inventory = Inventory::from([
        ("outside".into(), vec![id("ConfigMap", "theirs"), id("ConfigMap", "shared")]),
        ("a".into(), vec![id("ConfigMap", "shared")]),
    ]);
    let draft = Draft::new(1).component("a", 1, vec![body("ConfigMap", "mine")]);
    let plan = plan(draft, &inventory);
    assert_eq!(plan.components().len(), 1);
    assert!(plan.components()[0].prune().is_empty());
}

#[test]
fn a_new_api_version_of_an_object_is_the_same_object() {
    let old = IdFields { version: "v1beta1".into(), ..IdFields::clone(&id("Deployment", "d")) };
    let inventory = Inventory::from([("a".into(), vec![old.into()])]);
    let draft = Draft::new(1).component("a", 1, vec![body("Deployment", "d")]);
    assert!(plan(draft, &inventory).components()[0].prune().is_empty());
}

proptest! {
    #[test]
    fn the_plan_does_not_depend_on_the_order_of_its_parts(
        kinds in prop::collection::vec(
            prop::sample::select(vec![
                "Namespace", "ConfigMap", "Secret", "Deployment", "Job", "Build", "ClusterRole",
                "PersistentVolumeClaim", "CustomResourceDefinition",
            ]),
            1..12,
        ),
        seed in any::<prop::sample::Index>(),
    ) {
        let mut bodies: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(n, kind)| {
                // A Namespace has to be in the component's scope, which holds one.
                if *kind == "Namespace" { body("Secret", &format!("n{n}")) } else { body(kind, &format!("x{n}")) }
            })
            .collect();
        let gone: Vec<_> = kinds.iter().enumerate().map(|(n, kind)| id(kind, &format!("gone{n}"))).collect();
        let draft = |bodies: Vec<Value>, swap: bool| {
            let other = vec![body("ConfigMap", "other")];
            if swap {
                Draft::new(1).component("b", 1, other).component("a", 1, bodies)
            } else {
                Draft::new(1).component("a", 1, bodies).component("b", 1, other)
            }
        };
        let orders = |plan: &Plan| -> Vec<_> {
            plan.components()
                .iter()
                .map(|c| (
                    c.entry().name.clone(),
                    names(c.objects().map(|object| &object.id)),
                    names(c.prune()),
                    names(c.kept()),
                ))
                .collect()
        };
        let inventory = Inventory::from([("a".into(), gone.clone())]);
        let one = plan(draft(bodies.clone(), false), &inventory);
        let turn = seed.index(bodies.len());
        bodies.rotate_left(turn);
        bodies.reverse();
        let mut turned = gone;
        turned.rotate_left(turn);
        let two = plan(draft(bodies, true), &Inventory::from([("a".into(), turned)]));
        prop_assert_eq!(orders(&one), orders(&two));
        // Every object that was owned is either pruned or kept, and once.
        let a = &one.components()[0];
        prop_assert_eq!(a.prune().len() + a.kept().len(), kinds.len());
    }
}
