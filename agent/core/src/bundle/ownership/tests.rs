use proptest::prelude::*;
use serde_json::json;

use super::*;

fn live() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "1",
            "labels": {"app": "web", "team": "blue"},
            "managedFields": [
                {"manager": "mendix-agent", "operation": "Apply", "apiVersion": "apps/v1",
                 "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:template": {"f:spec": {
                        "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {},
                            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                        "f:volumes": {"k:{\"name\":\"tmp\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}}}}}}},
                {"manager": "kubectl-edit", "operation": "Update", "apiVersion": "apps/v1",
                 "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:team": {}}},
                    "f:spec": {"f:template": {"f:spec": {
                        "f:hostNetwork": {},
                        "f:containers": {"k:{\"name\":\"spy\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}}},
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "apps/v1",
                 "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:replicas": {}}}},
            ],
        },
        "spec": {"replicas": 1, "template": {"spec": {
            "hostNetwork": true, "dnsPolicy": "ClusterFirst",
            "containers": [
                {"name": "web", "image": "web@sha256:1", "imagePullPolicy": "IfNotPresent",
                 "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "spy", "image": "spy"}],
            "volumes": [{"name": "tmp", "emptyDir": {}}]}}},
        "status": {"replicas": 1},
    })
}

fn desired() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"template": {"spec": {
            "containers": [{"name": "web", "image": "web@sha256:1", "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "tmp", "emptyDir": {}}]}}},
    })
}

#[test]
fn an_object_matches_when_we_own_exactly_what_is_wanted_with_these_values() {
    assert!(matches(&desired(), &live(), "mendix-agent"));
    assert!(!matches(&desired(), &live(), "kubectl-edit"));
    let mut other_image = live();
    other_image["spec"]["template"]["spec"]["containers"][0]["image"] = "evil".into();
    assert!(!matches(&desired(), &other_image, "mendix-agent"));
    let mut fewer = desired();
    fewer["metadata"].as_object_mut().unwrap().remove("labels");
    assert!(!matches(&fewer, &live(), "mendix-agent"), "a dropped field has to be removed");
    let mut more = desired();
    more["spec"]["paused"] = true.into();
    assert!(!matches(&more, &live(), "mendix-agent"));
}

#[test]
fn subresources_are_no_owners() {
    let managers: Vec<String> = owners(&live()).into_iter().map(|o| o.manager).collect();
    assert_eq!(managers, ["mendix-agent", "kubectl-edit"]);
}

#[test]
fn paths_name_items_by_their_keys_and_stop_at_whole_items() {
    let foreign = &owners(&live())[1].fields;
    assert_eq!(
        foreign.paths(),
        [
            "metadata.labels.team",
            "spec.template.spec.containers[name=spy]",
            "spec.template.spec.hostNetwork"
        ]
    );
    let template = foreign.within(&["spec", "template"]);
    assert_eq!(template.paths().len(), 2);
    assert_eq!(foreign.without(&["spec", "template"]).paths(), ["metadata.labels.team"]);
    assert!(foreign.within(&["spec", "selector"]).is_empty());
}

#[test]
fn a_star_stands_for_list_items_only() {
    let fields = Fields::parse(&json!({"f:webhooks": {
        "k:{\"name\":\"a\"}": {".": {}, "f:rules": {}, "f:clientConfig": {"f:caBundle": {}}}}}));
    assert_eq!(fields.within(&["webhooks", "*", "rules"]).paths(), ["webhooks[name=a].rules"]);
    assert!(fields.within(&["*"]).is_empty());
    assert!(!fields.within(&["webhooks", "[name=a]", "rules"]).is_empty());
    assert!(fields.within(&["webhooks", "[name=b]", "rules"]).is_empty());
}

#[test]
fn keys_can_be_left_out_wherever_they_are() {
    let fields = Fields::parse(&json!({"f:metadata": {"f:annotations": {
        ".": {}, "f:kubectl.kubernetes.io/restartedAt": {}, "f:mine": {}}}}));
    let kept = fields.without_keys(|key| key.contains("kubernetes.io/"));
    assert_eq!(kept.paths(), ["metadata.annotations.mine"]);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = Just(json!({}));
    leaf.prop_recursive(4, 24, 4, |inner| {
        (prop::collection::btree_map("(f:[a-c]|v:[0-3]|i:[0-3])", inner, 1..4), any::<bool>())
            .prop_map(|(map, member)| {
                let mut map: Map<String, Value> = map.into_iter().collect();
                if member {
                    map.insert(".".into(), json!({}));
                }
                Value::Object(map)
            })
    })
}

fn set() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("f:[a-c]", tree(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn reading_and_writing_fields_v1_is_lossless(tree in set()) {
        prop_assert_eq!(Fields::parse(&tree).to_fields_v1(), tree);
    }

    #[test]
    fn set_operations_obey_their_laws(a in set(), b in set()) {
        let (a, b) = (Fields::parse(&a), Fields::parse(&b));
        let union = a.union(&b);
        prop_assert_eq!(&a.minus(&b).union(&a.intersection(&b)), &a);
        prop_assert_eq!(&union, &b.union(&a));
        prop_assert!(a.minus(&union).is_empty());
        prop_assert!(a.minus(&b).intersection(&b).is_empty());
        prop_assert_eq!(&union.minus(&b), &a.minus(&b));
    }
}
