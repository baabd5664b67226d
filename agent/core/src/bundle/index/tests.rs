use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn sha(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

/// The smallest index with everything in it, as a value.
fn sample() -> Value {
    json!({
        "schema": 1,
        "release_id": "2026.11.3",
        "sequence": 7,
        "class": "critical",
        "not_before": "2026-11-01T00:00:00Z",
        "apply_by": "2026-12-31T00:00:00Z",
        "audience": ["early"],
        "agent_versions": {"min": "0.1"},
        "kubernetes_versions": {"min": "1.30", "max": "1.34"},
        "from": [5, 6],
        "blocked_from": [4],
        "components": [{
            "name": "mendix-operator",
            "version": "2.21.0",
            "phase": 1,
            "blob": {"target": format!("{}.ndjson.gz", sha('a')), "sha256": sha('a'), "size": 10},
            "images": [format!("registry.local/operator@sha256:{}", sha('b'))],
            "scope": {"namespaces": ["mendix"], "kinds": ["apps/Deployment", "ConfigMap"]},
            "gates": {"timeout_seconds": 600, "soak_seconds": 30},
            "adopt": false,
            "exceptions": [{
                "object": {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "mendix", "name": "operator"},
                "path": "spec.replicas",
            }],
        }],
        "deletes": [{"group": "", "version": "v1", "kind": "PersistentVolumeClaim", "namespace": "mendix", "name": "old"}],
        "narrows": [{"group": "rbac.authorization.k8s.io", "version": "v1", "kind": "ClusterRole", "name": "mendix-agent"}],
    })
}

/// `sample` with one place changed; an absent value removes it.
fn changed(pointer: &str, value: Option<Value>) -> Vec<u8> {
    let mut index = sample();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = index.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(map), Some(value)) => {
            map.insert(key.into(), value);
        }
        (Value::Object(map), None) => {
            map.remove(key).unwrap();
        }
        (Value::Array(items), Some(value)) => items.push(value),
        _ => panic!("{pointer}"),
    }
    canonical::bytes(&index)
}

/// The path at which the change is refused.
fn refused_at(pointer: &str, value: Option<Value>) -> String {
    match read(&changed(pointer, value)) {
        Err(IndexError::Field { path, .. } | IndexError::Shape { path, .. }) => path,
        other => panic!("{pointer}: {other:?}"),
    }
}

fn authentic(target: &str, bytes: Vec<u8>) -> Authentic {
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the TUF client")]
    Authentic::vouched_by_release_root(target.into(), [9; 32], bytes)
}

#[test]
fn an_index_is_read_back_as_it_was_written() {
    let bytes = canonical::bytes(&sample());
    let index = verify(authentic("release-2026.11.3.json", bytes.clone())).unwrap();
    assert_eq!(index.canonical_bytes(), bytes);
    assert_eq!(index.sha256(), &[9; 32]);
    assert_eq!(index.components[0].gates.soak_seconds, 30);
}

#[test]
fn a_target_under_another_name_is_refused() {
    let bytes = canonical::bytes(&sample());
    let error = verify(authentic("release-2026.11.2.json", bytes)).unwrap_err();
    assert!(matches!(error, IndexError::Target { .. }), "{error}");
}

#[test]
fn every_field_is_checked_and_named() {
    let long = "a".repeat(64);
    let many = |n: usize| json!((1..=n).collect::<Vec<_>>());
    for (pointer, value, path) in [
        ("/schema", Some(json!(2)), "schema"),
        ("/release_id", Some(json!("../etc")), "release_id"),
        ("/release_id", Some(json!("a\u{202e}b")), "release_id"),
        ("/release_id", Some(json!("a\0b")), "release_id"),
        ("/release_id", Some(json!(long)), "release_id"),
        ("/sequence", Some(json!(0)), "sequence"),
        ("/sequence", Some(json!(u64::MAX)), "sequence"),
        ("/sequence", Some(json!(-1)), "sequence"),
        ("/sequence", Some(json!(1.5)), "sequence"),
        ("/sequence", None, "."),
        ("/class", Some(json!("urgent")), "class"),
        ("/apply_by", Some(json!("2026-10-01T00:00:00Z")), "apply_by"),
        ("/apply_by", Some(json!("tomorrow")), "apply_by"),
        ("/audience/1", Some(json!("a b")), "audience[1]"),
        ("/agent_versions/max", Some(json!("new")), "agent_versions.max"),
        ("/agent_versions/exact", Some(json!("1")), "agent_versions.exact"),
        ("/kubernetes_versions/min", Some(json!("1.35")), "kubernetes_versions"),
        ("/from/2", Some(json!(0)), "from[2]"),
        ("/blocked_from", Some(many(1025)), "blocked_from"),
        ("/components", Some(json!([])), "components"),
        ("/components/1", Some(sample()["components"][0].clone()), "components[1].name"),
        ("/components/0/name", Some(json!("a.b")), "components[0].name"),
        ("/components/0/version", Some(json!("1\n2")), "components[0].version"),
        ("/components/0/phase", Some(json!(-1)), "components[0].phase"),
        ("/components/0/blob/sha256", Some(json!("A")), "components[0].blob.sha256"),
        ("/components/0/blob/target", Some(json!("x")), "components[0].blob.target"),
        ("/components/0/blob/size", Some(json!(0)), "components[0].blob.size"),
        ("/components/0/blob/size", Some(json!(17 << 20)), "components[0].blob.size"),
        ("/components/0/images/1", Some(json!("operator:latest")), "components[0].images[1]"),
        (
            "/components/0/scope/namespaces/1",
            Some(json!("mendix")),
            "components[0].scope.namespaces[1]",
        ),
        ("/components/0/scope/kinds/1", Some(json!("*")), "components[0].scope.kinds[2]"),
        ("/components/0/scope/verbs", Some(json!([])), "components[0].scope.verbs"),
        (
            "/components/0/gates/timeout_seconds",
            Some(json!(9)),
            "components[0].gates.timeout_seconds",
        ),
        ("/components/0/gates/soak_seconds", Some(json!(3601)), "components[0].gates.soak_seconds"),
        (
            "/components/0/exceptions/0/path",
            Some(json!("spec..x")),
            "components[0].exceptions[0].path",
        ),
        (
            "/components/0/exceptions/0/object/name",
            Some(json!("../x")),
            "components[0].exceptions[0].object.name",
        ),
        ("/deletes/0/kind", Some(json!("")), "deletes[0].kind"),
        ("/deletes/0/uid", Some(json!("")), "deletes[0].uid"),
        ("/narrows/0/name", Some(json!("a b")), "narrows[0].name"),
        ("/narrows/0/field", Some(json!("rules")), "narrows[0].field"),
        ("/hooks", Some(json!([])), "hooks"),
    ] {
        assert_eq!(refused_at(pointer, value.clone()), path, "{pointer} = {value:?}");
    }
}

#[test]
fn too_many_components_are_refused() {
    let mut index = sample();
    let component = index["components"][0].clone();
    let components = (0..=Limits::BUILT_IN.components).map(|n| {
        let mut component = component.clone();
        component["name"] = json!(format!("c{n}"));
        component
    });
    index["components"] = components.collect();
    let error = read(&canonical::bytes(&index)).unwrap_err();
    assert!(matches!(error, IndexError::Field { ref path, .. } if path == "components"), "{error}");
}

#[test]
fn what_parsers_read_differently_is_refused() {
    let text = String::from_utf8(canonical::bytes(&sample())).unwrap();
    let json = |text: &str| match read(text.as_bytes()).unwrap_err() {
        IndexError::Json(error) => error,
        other => panic!("{other:?}"),
    };
    let duplicate = text.replace("\"sequence\":7", "\"sequence\":7,\"sequence\":8");
    assert_eq!(json(&duplicate).path, "sequence");
    json(&format!("{text}{text}"));
    json(&text.replace("\"sequence\":7", "\"sequence\":NaN"));
    json(&text.replace("\"sequence\":7", "\"sequence\":1e999"));
    json(&text.replace("\"sequence\":7", &format!("\"sequence\":{}", "[".repeat(100_000))));
    for other_form in [
        format!("{text}\n"),
        text.replace("\"schema\":1", "\"schema\": 1"),
        text.replace("critical", "criti\\u0063al"),
        text.replace("2026-11-01T00:00:00Z", "2026-11-01T00:00:00+00:00"),
        text.replace("\"adopt\":false,", ""),
        text.replace("\"audience\":[\"early\"]", "\"audience\":[]"),
    ] {
        assert_ne!(other_form, text);
        let error = read(other_form.as_bytes()).unwrap_err();
        assert!(matches!(error, IndexError::NotCanonical(_)), "{other_form}: {error}");
    }
}

#[test]
fn an_index_over_the_limit_is_not_even_parsed() {
    let error = read(&vec![b' '; Limits::BUILT_IN.index + 1]).unwrap_err();
    assert!(matches!(error, IndexError::TooLarge { .. }));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_json_in_any_field_panics(
        field in prop::sample::select(vec![
            "/release_id", "/sequence", "/apply_by", "/audience", "/agent_versions", "/components",
            "/components/0", "/components/0/blob", "/components/0/images", "/components/0/scope",
            "/components/0/exceptions", "/deletes", "/deletes/0", "/narrows", "/narrows/0",
        ]),
        value in canonical::tests::any_json(),
    ) {
        let mut index = sample();
        *index.pointer_mut(field).unwrap() = value;
        if let Ok(index) = read(&canonical::bytes(&index)) {
            prop_assert_eq!(read(&index.canonical_bytes()).unwrap(), index);
        }
    }
}
