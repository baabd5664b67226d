use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::bundle::schema;

fn definition(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.agent.mendix.com"},
        "spec": {"group": "agent.mendix.com", "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing", "categories": ["mendix"]},
            "versions": [
                {"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema}},
                {"name": "v1alpha0", "served": false, "storage": false}]}})
}

fn thing() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "description": "what", "properties": {
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "name": {"type": "string", "maxLength": 5, "pattern": "^x"},
            "list": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "maybe": {"type": "string", "nullable": true}}}}})
}

/// `definition` of [`thing`], with a value at a place below `spec`, or without what is there.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut changed = definition(thing());
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(&format!("/spec{parent}")).unwrap();
    match (parent, value) {
        (Value::Object(map), Some(value)) => drop(map.insert(key.to_owned(), value)),
        (Value::Object(map), None) => drop(map.remove(key).unwrap()),
        _ => panic!("{pointer}"),
    }
    changed
}

const SPEC: &str = "/versions/0/schema/openAPIV3Schema/properties/spec";

#[test]
fn what_only_adds_or_explains_is_wider() {
    let live = definition(thing());
    assert_eq!(narrowing(&live, &live), []);
    for (place, value) in [
        (format!("{SPEC}/description"), json!("said better")),
        (
            format!("{SPEC}/properties/more"),
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
        ),
        (format!("{SPEC}/properties/mode/enum"), json!(["c", "b", "a"])),
        (format!("{SPEC}/properties/size/minimum"), json!(0)),
        (format!("{SPEC}/properties/size/maximum"), json!(10)),
        (format!("{SPEC}/properties/name/maxLength"), json!(6)),
        (format!("{SPEC}/properties/list/maxItems"), json!(3)),
        (format!("{SPEC}/properties/size/nullable"), json!(true)),
        (format!("{SPEC}/properties/name/default"), json!("x")),
        ("/names/listKind".to_owned(), json!("ThingList")),
        ("/names/shortNames".to_owned(), json!(["th"])),
        ("/versions/0/additionalPrinterColumns".to_owned(), json!([{"name": "A"}])),
    ] {
        assert_eq!(narrowing(&live, &with(&place, Some(value))), [], "{place}");
    }
    for place in ["properties/mode/enum", "properties/name/pattern", "properties/size/maximum"] {
        assert_eq!(narrowing(&live, &with(&format!("{SPEC}/{place}"), None)), [], "{place}");
    }
    let root = "/versions/0/schema/openAPIV3Schema/required";
    assert_eq!(narrowing(&live, &with(root, None)), []);
    let mut second = live.clone();
    let mut version = live["spec"]["versions"][0].clone();
    version["name"] = json!("v1");
    version["storage"] = json!(false);
    second["spec"]["versions"].as_array_mut().unwrap().push(version);
    assert_eq!(narrowing(&live, &second), []);
}

#[test]
fn everything_that_takes_away_is_named_with_its_field() {
    let live = definition(thing());
    let at = |tail: &str| format!("spec.versions[v1alpha1].schema.properties.spec.{tail}");
    for (place, value, field) in [
        ("properties/mode".to_owned(), None, at("properties.mode")),
        ("properties/mode/enum".to_owned(), Some(json!(["a"])), at("properties.mode.enum")),
        ("properties/mode/default".to_owned(), Some(json!("b")), at("properties.mode.default")),
        ("properties/mode/default".to_owned(), None, at("properties.mode.default")),
        ("properties/size/type".to_owned(), Some(json!("number")), at("properties.size.type")),
        ("properties/size/minimum".to_owned(), Some(json!(2)), at("properties.size.minimum")),
        ("properties/size/maximum".to_owned(), Some(json!(8)), at("properties.size.maximum")),
        ("properties/size/enum".to_owned(), Some(json!([1])), at("properties.size.enum")),
        (
            "properties/size/exclusiveMinimum".to_owned(),
            Some(json!(true)),
            at("properties.size.exclusiveMinimum"),
        ),
        ("properties/name/pattern".to_owned(), Some(json!("^y")), at("properties.name.pattern")),
        ("properties/name/format".to_owned(), Some(json!("date")), at("properties.name.format")),
        ("properties/name/minLength".to_owned(), Some(json!(1)), at("properties.name.minLength")),
        ("properties/list/maxItems".to_owned(), Some(json!(1)), at("properties.list.maxItems")),
        (
            "properties/list/items/type".to_owned(),
            Some(json!("integer")),
            at("properties.list.items.type"),
        ),
        (
            "properties/list/x-kubernetes-list-type".to_owned(),
            Some(json!("set")),
            at("properties.list.x-kubernetes-list-type"),
        ),
        (
            "properties/labels/additionalProperties/maxLength".to_owned(),
            Some(json!(2)),
            at("properties.labels.additionalProperties.maxLength"),
        ),
        (
            "properties/labels/additionalProperties".to_owned(),
            None,
            at("properties.labels.additionalProperties"),
        ),
        (
            "properties/free/properties".to_owned(),
            Some(json!({"a": {"type": "string"}})),
            at("properties.free.properties.a"),
        ),
        (
            "properties/free/additionalProperties".to_owned(),
            Some(json!({"type": "string"})),
            at("properties.free.additionalProperties"),
        ),
        (
            "properties/free/x-kubernetes-preserve-unknown-fields".to_owned(),
            None,
            at("properties.free.x-kubernetes-preserve-unknown-fields"),
        ),
        ("properties/maybe/nullable".to_owned(), None, at("properties.maybe.nullable")),
        ("required".to_owned(), Some(json!(["size"])), at("required")),
        (
            "x-kubernetes-validations".to_owned(),
            Some(json!([{"rule": "self.size > 1"}])),
            at("x-kubernetes-validations"),
        ),
        ("x-of-tomorrow".to_owned(), Some(json!(1)), at("x-of-tomorrow")),
    ] {
        let found = narrowing(&live, &with(&format!("{SPEC}/{place}"), value));
        let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, [field], "{place}");
    }
    for (place, value, field) in [
        ("/group", Some(json!("example.com")), "spec.group"),
        ("/scope", Some(json!("Cluster")), "spec.scope"),
        ("/names/kind", Some(json!("Other")), "spec.names.kind"),
        ("/names/plural", Some(json!("others")), "spec.names.plural"),
        ("/names/singular", Some(json!("one")), "spec.names.singular"),
        ("/names/categories", Some(json!([])), "spec.names.categories"),
        ("/versions/0/served", Some(json!(false)), "spec.versions[v1alpha1].served"),
        ("/versions/0/storage", Some(json!(false)), "spec.versions[v1alpha1].storage"),
        ("/versions/0/name", Some(json!("v1")), "spec.versions[v1alpha1]"),
        ("/versions/0/subresources", None, "spec.versions[v1alpha1].subresources.status"),
    ] {
        let found = narrowing(&live, &with(place, value));
        assert!(found.iter().any(|(at, _)| at == field), "{place}: {found:?}");
    }
}

#[test]
fn large_bounds_are_compared_to_the_last_digit() {
    let bounded = |most: u64| {
        definition(
            json!({"type": "object", "properties": {"a": {"type": "integer", "maximum": most}}}),
        )
    };
    let (less, more) = ((1 << 60) + 1, (1 << 60) + 2);
    assert_eq!(narrowing(&bounded(less), &bounded(more)), []);
    assert_eq!(narrowing(&bounded(more), &bounded(less)).len(), 1);
}

#[test]
fn a_definition_of_another_group_or_with_a_webhook_is_refused() {
    assert_eq!(findings(&definition(thing())), []);
    let mut foreign = definition(thing());
    foreign["spec"]["group"] = json!("example.com");
    assert_eq!(findings(&foreign)[0].0, "spec.group");
    for conversion in [json!({"strategy": "Webhook"}), json!({"strategy": "None", "webhook": {}})] {
        let mut converted = definition(thing());
        converted["spec"]["conversion"] = conversion;
        assert_eq!(findings(&converted)[0].0, "spec.conversion");
    }
}

/// Keywords by chance, of a scalar.
fn scalar() -> impl Strategy<Value = Value> {
    let bound = || prop::option::of(0..4_i64);
    prop_oneof![
        (bound(), bound(), any::<bool>()).prop_map(|(min, max, exclusive)| {
            let mut schema = json!({"type": "integer"});
            if let Some(min) = min {
                schema["minimum"] = json!(min);
                schema["exclusiveMinimum"] = json!(exclusive);
            }
            if let Some(max) = max {
                schema["maximum"] = json!(max);
            }
            schema
        }),
        (
            bound(),
            bound(),
            prop::option::of(prop::sample::subsequence(vec!["", "a", "bb", "ccc"], 1..4))
        )
            .prop_map(|(min, max, values)| {
                let mut schema = json!({"type": "string"});
                if let Some(min) = min {
                    schema["minLength"] = json!(min);
                }
                if let Some(max) = max {
                    schema["maxLength"] = json!(max);
                }
                if let Some(values) = values {
                    schema["enum"] = json!(values);
                }
                schema
            }),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-int-or-string": true})),
    ]
}

fn any_schema() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 8, 3, |inner| {
        let named = prop::collection::btree_map(prop::sample::select(vec!["a", "b"]), inner.clone(), 0..3);
        prop_oneof![
            3 => (named, prop::sample::subsequence(vec!["a", "b"], 0..=2), any::<bool>()).prop_map(|(named, required, open)| {
                let required: Vec<&str> = required.into_iter().filter(|it| named.contains_key(it)).collect();
                let mut schema = json!({"type": "object", "properties": named});
                if !required.is_empty() {
                    schema["required"] = json!(required);
                }
                if open {
                    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
                }
                schema
            }),
            1 => inner.clone().prop_map(|of| json!({"type": "object", "additionalProperties": of})),
            1 => (inner, prop::option::of(0..3_u64)).prop_map(|(of, most)| match most {
                Some(most) => json!({"type": "array", "items": of, "maxItems": most}),
                None => json!({"type": "array", "items": of}),
            }),
        ]
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0..5_i64).prop_map(|n| json!(n)),
        prop::sample::select(vec!["", "a", "bb", "ccc", "dddd"]).prop_map(|text| json!(text)),
        any::<bool>().prop_map(|flag| json!(flag)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), inner.clone(), 0..3)
                .prop_map(|map| json!(map)),
            1 => prop::collection::vec(inner, 0..3).prop_map(|list| json!(list)),
        ]
    })
}

/// One keyword changed somewhere: most chance pairs of schemas differ in everything.
fn altered(schema: &Value, other: &Value, mut pick: usize) -> Value {
    fn places(value: &Value, at: String, all: &mut Vec<String>) {
        if let Value::Object(map) = value {
            for (key, inner) in map {
                let at = format!("{at}/{key}");
                places(inner, at.clone(), all);
                all.push(at);
            }
        }
    }
    let (mut mine, mut theirs) = (vec![], vec![]);
    places(schema, String::new(), &mut mine);
    places(other, String::new(), &mut theirs);
    let mut changed = schema.clone();
    if mine.is_empty() || theirs.is_empty() {
        return changed;
    }
    let at = &mine[pick % mine.len()];
    pick /= mine.len();
    let (parent, key) = at.rsplit_once('/').unwrap();
    let of_same_kind: Vec<&String> =
        theirs.iter().filter(|it| it.rsplit_once('/').unwrap().1 == key).collect();
    let map = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match of_same_kind.get(pick % (of_same_kind.len() + 1)) {
        Some(from) => drop(map.insert(key.to_owned(), other.pointer(from).unwrap().clone())),
        None => drop(map.remove(key)),
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_counts_as_wider_takes_every_object_that_was_taken(
        before in any_schema(), other in any_schema(), pick in any::<usize>(), value in any_value(),
        backwards in any::<bool>(),
    ) {
        let of = |spec: &Value| json!({"type": "object", "properties": {"spec": spec}});
        let mut pair = [before.clone(), altered(&before, &other, pick)];
        if backwards {
            pair.reverse();
        }
        let [before, after] = pair.map(|schema| of(&schema));
        let object = json!({"apiVersion": "agent.mendix.com/v1alpha1", "kind": "Thing", "spec": value});
        let wider = narrowing(&definition(before.clone()), &definition(after.clone())).is_empty();
        // The judge of objects knows nothing of the comparison.
        if wider && schema::findings(&before, &object).is_empty() {
            prop_assert_eq!(schema::findings(&after, &object), vec![], "{} -> {}", before, after);
        }
    }

    #[test]
    fn every_definition_covers_itself(spec in any_schema()) {
        let live = definition(json!({"type": "object", "properties": {"spec": spec}}));
        prop_assert_eq!(narrowing(&live, &live), vec![]);
    }
}
