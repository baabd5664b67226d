//! The way back, looked at before the way forward is taken: what a rollback could not undo. A release may
//! do such a thing (a new storage version comes no other way), but nobody should learn of it only when the
//! run is held.

use serde_json::Value;

use super::{
    kind,
    object::{Object, ObjectId},
};

/// Whether there can be anything to find: the live object need not be read otherwise.
pub fn concerns(object: &Object) -> bool {
    is_definition(&object.id) || is_claim(&object.id) || becomes_immutable(object)
}

/// What applying `object` over `live` does that can't be undone; none when all of it can.
pub fn obstacle(object: &Object, live: &Value) -> Option<String> {
    let id = &object.id;
    if is_definition(id) {
        let versions = |definition: &Value| -> Vec<String> {
            let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
            let names = versions.into_iter().flatten().filter_map(|v| v.get("name")?.as_str());
            names.map(str::to_owned).collect()
        };
        let body = object.body.value();
        let all = body.pointer("/spec/versions").and_then(Value::as_array);
        let stored =
            all.into_iter().flatten().find(|v| v.get("storage") == Some(&Value::Bool(true)));
        let stored = stored?.get("name")?.as_str()?;
        return (!versions(live).iter().any(|version| version == stored)).then(|| {
            format!("objects are stored as {stored} from here on, which the definition of before doesn't know")
        });
    }
    if is_claim(id) {
        let size = |claim: &Value| {
            let size = claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
            size.map(str::to_owned)
        };
        let (wanted, now) = (size(&object.body.value())?, size(live)?);
        // The server refuses a smaller one on the way there; what differs, grows.
        return (wanted != now)
            .then(|| format!("a volume that has grown to {wanted} does not shrink"));
    }
    let frozen = live.get("immutable") == Some(&Value::Bool(true));
    (becomes_immutable(object) && !frozen)
        .then(|| "it becomes immutable, and its content can't be put back".to_owned())
}

fn is_definition(id: &ObjectId) -> bool {
    kind::stage(id) == kind::Stage::Definitions && id.kind == "CustomResourceDefinition"
}

fn is_claim(id: &ObjectId) -> bool {
    id.group.is_empty() && id.kind == "PersistentVolumeClaim"
}

fn becomes_immutable(object: &Object) -> bool {
    object.id.group.is_empty()
        && matches!(object.id.kind.as_str(), "ConfigMap" | "Secret")
        && object.body.value().get("immutable") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(new: Value, live: &Value) -> Option<String> {
        let object = Object::from_body(&new).unwrap();
        concerns(&object).then(|| obstacle(&object, live)).flatten()
    }

    #[test]
    fn a_storage_version_that_was_not_there_before_is_no_way_back() {
        let definition = |versions: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "things.example.com"}, "spec": {"versions": versions}})
        };
        let version = |name: &str, storage: bool| json!({"name": name, "storage": storage});
        let before = definition(json!([version("v1alpha1", true)]));
        let both = definition(json!([version("v1alpha1", false), version("v1", true)]));
        assert!(found(both.clone(), &before).unwrap().contains("stored as v1 "));
        // The version came with the release before; only now it is the one that is stored.
        let prepared = definition(json!([version("v1alpha1", true), version("v1", false)]));
        assert_eq!(found(both, &prepared), None);
    }

    #[test]
    fn a_grown_volume_and_a_frozen_object_are_no_way_back() {
        let claim = |size: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a", "namespace": "n"},
                "spec": {"resources": {"requests": {"storage": size}}}})
        };
        assert!(found(claim("2Gi"), &claim("1Gi")).unwrap().contains("grown to 2Gi"));
        assert_eq!(found(claim("1Gi"), &claim("1Gi")), None);
        for kind in ["ConfigMap", "Secret"] {
            let object = |immutable: bool| {
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "n"},
                    "immutable": immutable})
            };
            assert!(found(object(true), &object(false)).unwrap().contains("immutable"));
            assert_eq!(found(object(true), &object(true)), None);
            assert_eq!(found(object(false), &object(false)), None);
        }
    }
}
