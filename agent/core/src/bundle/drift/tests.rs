use serde_json::json;

use super::*;
use crate::bundle::object::IdFields;

const MANAGER: &str = "mendix-agent";

fn id(group: &str, kind: &str) -> ObjectId {
    ObjectId::from(IdFields {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: "web".into(),
    })
}

fn entry(manager: &str, operation: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
           "fieldsV1": fields})
}

fn deployment(foreign: Value) -> (Value, Value) {
    let desired = json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [
        {"name": "web", "image": "good"}]}}}});
    let live = json!({
        "metadata": {"managedFields": [
            entry(MANAGER, "Apply", json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}})),
            entry("kubectl-edit", "Update", foreign)]},
        "spec": {"replicas": 2, "template": {
            "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now", "x.io/y": "z"}},
            "spec": {"hostNetwork": true, "containers": [
                {"name": "web", "image": "good"}, {"name": "spy", "image": "spy"}]}}}});
    (desired, live)
}

fn ours(correction: &Correction) -> super::super::ownership::Fields {
    let live = json!({"metadata": {"managedFields": correction.managed_fields}});
    applied_by(&live, MANAGER).unwrap()
}

#[test]
fn a_foreign_sidecar_and_host_network_move_into_our_entry() {
    let (desired, live) = deployment(json!({
        "f:metadata": {"f:labels": {"f:team": {}}},
        "f:spec": {"f:template": {"f:spec": {"f:hostNetwork": {},
            "f:containers": {"k:{\"name\":\"spy\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}}));
    let correction = analyse(&id("apps", "Deployment"), &desired, &live, MANAGER, &[]).unwrap();
    assert_eq!(correction.claimants, ["kubectl-edit"]);
    assert!(ours(&correction).paths().contains(&"spec.template.spec.hostNetwork".into()));
    assert!(ours(&correction).paths().contains(&"spec.template.spec.containers[name=spy]".into()));
    let entries = correction.managed_fields.unwrap();
    assert_eq!(
        entries[1]["fieldsV1"],
        json!({"f:metadata": {"f:labels": {"f:team": {}}}}),
        "a foreign label stays theirs"
    );
}

#[test]
fn what_is_outside_the_positive_list_is_left_alone() {
    let (desired, live) = deployment(json!({
        "f:metadata": {"f:labels": {"f:team": {}}, "f:annotations": {"f:x": {}}},
        "f:spec": {"f:strategy": {"f:type": {}}}}));
    assert_eq!(analyse(&id("apps", "Deployment"), &desired, &live, MANAGER, &[]), None);
}

#[test]
fn a_restart_by_annotation_is_no_drift_but_other_annotations_of_the_template_are() {
    let template = |key: &str| json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {format!("f:{key}"): {}}}}}});
    let deployment_id = id("apps", "Deployment");
    let (desired, live) = deployment(template("kubectl.kubernetes.io/restartedAt"));
    assert_eq!(analyse(&deployment_id, &desired, &live, MANAGER, &[]), None);
    let (desired, live) = deployment(template("x.io/y"));
    assert!(analyse(&deployment_id, &desired, &live, MANAGER, &[]).is_some());
}

#[test]
fn our_name_in_an_update_is_a_claim_and_does_not_protect() {
    let (desired, mut live) =
        deployment(json!({"f:spec": {"f:template": {"f:spec": {"f:hostNetwork": {}}}}}));
    live["metadata"]["managedFields"][1]["manager"] = MANAGER.into();
    let correction = analyse(&id("apps", "Deployment"), &desired, &live, MANAGER, &[]).unwrap();
    assert!(ours(&correction).paths().contains(&"spec.template.spec.hostNetwork".into()));
}

#[test]
fn an_exception_is_neither_stripped_nor_taken_back() {
    let (desired, mut live) = deployment(json!({"f:spec": {"f:replicas": {}}}));
    live["spec"]["replicas"] = 5.into();
    // The other writer took the field over: it is no longer ours.
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        .as_object_mut()
        .unwrap()
        .remove("f:replicas");
    let deployment_id = id("apps", "Deployment");
    let correction = analyse(&deployment_id, &desired, &live, MANAGER, &[]).unwrap();
    assert_eq!(
        (correction.claimants.as_slice(), &correction.body),
        (&["kubectl-edit".to_owned()][..], &desired)
    );
    assert_eq!(analyse(&deployment_id, &desired, &live, MANAGER, &["spec.replicas"]), None);
}

#[test]
fn replicas_that_a_release_stops_setting_keep_their_value() {
    let (mut desired, live) = deployment(json!({"f:metadata": {"f:labels": {"f:team": {}}}}));
    desired["spec"].as_object_mut().unwrap().remove("replicas");
    let correction = analyse(&id("apps", "Deployment"), &desired, &live, MANAGER, &[]).unwrap();
    assert_eq!(
        correction.hand_over.unwrap(),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
               "metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 2}})
    );
}

#[test]
fn extra_keys_of_config_maps_and_rules_of_plain_roles_are_stripped_aggregated_rules_are_not() {
    let object = |fields: Value, rest: Value| {
        let mut live = rest;
        live["metadata"] = json!({"managedFields": [
            entry(MANAGER, "Apply", json!({"f:data": {"f:a": {}}})), entry("x", "Update", fields)]});
        live
    };
    let desired = json!({"data": {"a": "1"}});
    let extra = object(json!({"f:data": {"f:b": {}}}), json!({"data": {"a": "1", "b": "2"}}));
    assert!(analyse(&id("", "ConfigMap"), &desired, &extra, MANAGER, &[]).is_some());
    let rules = object(json!({"f:rules": {}}), json!({"data": {"a": "1"}, "rules": [{}]}));
    let role = id("rbac.authorization.k8s.io", "ClusterRole");
    assert!(analyse(&role, &desired, &rules, MANAGER, &[]).is_some());
    let mut aggregated = rules;
    aggregated["aggregationRule"] = json!({});
    assert_eq!(analyse(&role, &desired, &aggregated, MANAGER, &[]), None);
    let token = object(
        json!({"f:data": {"f:token": {}}}),
        json!({"type": "kubernetes.io/service-account-token", "data": {"a": "1", "token": "t"}}),
    );
    assert_eq!(analyse(&id("", "Secret"), &desired, &token, MANAGER, &[]), None);
}

#[test]
fn only_rules_of_webhooks_are_ours_alone() {
    let webhooks = |fields: Value| {
        json!({"metadata": {"managedFields": [
            entry(MANAGER, "Apply", json!({"f:webhooks": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}})),
            entry("enforcer", "Update", json!({"f:webhooks": {"k:{\"name\":\"a\"}": fields}}))]},
            "webhooks": [{"name": "a", "rules": [{}], "clientConfig": {"caBundle": "x"}, "namespaceSelector": {}}]})
    };
    let desired = json!({"webhooks": [{"name": "a"}]});
    let id = id("admissionregistration.k8s.io", "ValidatingWebhookConfiguration");
    let platform =
        webhooks(json!({"f:clientConfig": {"f:caBundle": {}}, "f:namespaceSelector": {}}));
    assert_eq!(analyse(&id, &desired, &platform, MANAGER, &[]), None);
    assert!(analyse(&id, &desired, &webhooks(json!({"f:rules": {}})), MANAGER, &[]).is_some());
}

#[test]
fn changed_paths_name_fields_and_never_values() {
    let before = json!({"metadata": {"resourceVersion": "1", "labels": {"a.io/b": "1"}}, "status": 1,
        "data": {"password": "hunter2"}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]}});
    let after = json!({"metadata": {"resourceVersion": "2", "labels": {"a.io/b": "2"}}, "status": 2,
        "data": {}, "spec": {"containers": [{"name": "a", "image": "y"}]}});
    assert_eq!(
        changed_paths(&before, &after),
        [
            "data.password",
            "metadata.labels[a.io/b]",
            "spec.containers[name=a].image",
            "spec.containers[name=b]"
        ]
    );
    assert!(changed_paths(&before, &before).is_empty());
}

#[test]
fn a_fight_waits_longer_each_time_up_to_a_bound_and_is_forgotten() {
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let mut fight = Fight::default();
    let mut waits = vec![];
    let mut now = start;
    for _ in 0..40 {
        fight.corrected(now);
        let next = fight.not_before().unwrap_or(now);
        waits.push(next.duration_since(now).as_secs());
        now = next;
    }
    assert_eq!(waits[..6], [0, 0, 10, 20, 40, 80]);
    assert_eq!(waits[39], 1800);
    fight.corrected(now + Fight::FORGOTTEN_AFTER);
    assert!(!fight.is_on());
}

#[test]
fn an_exception_can_name_an_item_of_a_list() {
    let (desired, mut live) = deployment(json!({"f:spec": {"f:template": {"f:spec": {
        "f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}}}}}));
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "canary".into();
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
        ["f:containers"]["k:{\"name\":\"web\"}"]
        .as_object_mut()
        .unwrap()
        .remove("f:image");
    let id = id("apps", "Deployment");
    assert!(analyse(&id, &desired, &live, MANAGER, &[]).is_some());
    let image = "spec.template.spec.containers[name=web].image";
    assert_eq!(analyse(&id, &desired, &live, MANAGER, &[image]), None);
    let other = "spec.template.spec.containers[name=spy].image";
    assert!(analyse(&id, &desired, &live, MANAGER, &[other]).is_some());
}

#[test]
fn paths_are_read_step_by_step() {
    assert_eq!(steps("spec.replicas"), ["spec", "replicas"]);
    assert_eq!(steps("a[name=x.y].b"), ["a", "[name=x.y]", "b"]);
    assert_eq!(steps("metadata.labels[a.io/b]"), ["metadata", "labels", "a.io/b"]);
    assert_eq!(steps("a[b"), ["a", "[b"]);
    assert_eq!(steps(""), Vec::<&str>::new());
}
