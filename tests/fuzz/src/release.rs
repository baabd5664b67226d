//! Releases: index, blob, and what admission makes of both.

use std::collections::{BTreeMap, BTreeSet};

use flate2::{Compression, write::GzEncoder};
use mendix_agent_core::{
    bundle::{
        Authentic,
        admission::{self, AGENT_COMPONENT, ClusterFacts, DENIED_NAMESPACES, HighWater, Marks},
        blob, canonical,
        floor::{self, KnownFloor},
        foundation::FOUNDATION_COMPONENT,
        index::{self, BlobRef, ComponentEntry, Gates, ReleaseIndex, Scope},
        kind,
        limits::Limits,
        object::{Object, ObjectId},
        plan::Plan,
    },
    envelope::sha256,
};
use serde_json::{Value, json};

use crate::input::Input;

/// Namespace of the agent in admission's facts.
const AGENT_NAMESPACE: &str = "mendix-agent";

#[expect(clippy::disallowed_methods, reason = "stands in for the TUF client")]
fn authentic(target: &str, bytes: &[u8]) -> Authentic {
    Authentic::vouched_by_release_root(target.to_owned(), sha256(bytes), bytes.to_vec())
}

/// An index as it was signed, and its canonical spelling.
pub fn index(bytes: &[u8]) -> bool {
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        published(&canonical::bytes(&value));
    }
    published(bytes)
}

fn published(bytes: &[u8]) -> bool {
    let Ok(index) = index::read(bytes) else { return false };
    assert_eq!(index.canonical_bytes(), bytes);
    let target = ReleaseIndex::target_name(&index.release_id);
    let verified = index::verify(authentic(&target, bytes)).expect("what reads also verifies");
    assert_eq!(*verified, index);
    assert!(index::verify(authentic("release-.json", bytes)).is_err());
    let names: BTreeSet<_> = index.components.iter().map(|entry| &entry.name).collect();
    assert!(!names.is_empty() && names.len() == index.components.len());
    true
}

/// Floors in the order in which they come, one a line, as they were signed and in canonical spelling.
pub fn floor(bytes: &[u8]) -> bool {
    let mut known: Option<KnownFloor> = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        known = follow(line, known).or(known);
        if let Ok(value) = serde_json::from_slice::<Value>(line) {
            known = follow(&canonical::bytes(&value), known).or(known);
        }
    }
    known.is_some()
}

/// What is remembered after one more file; none if it was not accepted.
fn follow(bytes: &[u8], known: Option<KnownFloor>) -> Option<KnownFloor> {
    let floor = floor::read(bytes).ok()?;
    assert_eq!(floor.canonical_bytes(), bytes);
    let verified = floor::verify(&authentic(floor::FILE, bytes)).expect("what reads also verifies");
    assert_eq!(*verified, floor);
    assert!(floor::verify(&authentic("release-1.json", bytes)).is_err());
    let next = floor.follow(known).ok()?;
    assert_eq!((next.serial, next.sequence), (floor.serial, floor.sequence));
    let before = known.map_or((0, 0), |known| (known.serial, known.sequence));
    assert!(next.serial >= before.0 && next.sequence >= before.1, "{before:?} to {next:?}");
    Some(next)
}

/// A blob as it was signed, or lines that become one.
pub fn blob(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let form = input.byte();
    let rest = input.rest();
    let compressed = match form % 3 {
        0 => rest.to_vec(),
        1 => gzip(rest),
        _ => {
            let mut lines = Vec::new();
            for line in rest.split(|byte| *byte == b'\n') {
                if let Ok(value) = serde_json::from_slice::<Value>(line) {
                    lines.extend(canonical::bytes(&value));
                    lines.push(b'\n');
                }
            }
            gzip(&lines)
        }
    };
    if compressed.is_empty() {
        return false;
    }
    let reference = reference(&compressed);
    let entry = entry(reference.clone());
    let Ok(objects) = blob::verify(&entry, authentic(&reference.target, &compressed)) else {
        return false;
    };
    let limits = Limits::BUILT_IN;
    assert!(objects.len() <= limits.objects);
    let ids: BTreeSet<&ObjectId> = objects.iter().map(|object| &object.id).collect();
    assert_eq!(ids.len(), objects.len(), "an identity twice");
    let again = blob::encode(&objects).expect("what was read can be written");
    let entry = self::entry(again.reference.clone());
    let read = blob::verify(&entry, authentic(&again.reference.target, &again.bytes))
        .expect("what was written can be read");
    let mut sorted = objects.to_vec();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(*read, sorted);
    !objects.is_empty()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn reference(compressed: &[u8]) -> BlobRef {
    let sha256 = hex::encode(sha256(compressed));
    BlobRef { target: BlobRef::target_name(&sha256), sha256, size: compressed.len() as u64 }
}

fn entry(blob: BlobRef) -> ComponentEntry {
    ComponentEntry {
        name: "mendix-operator".into(),
        version: "1".into(),
        phase: 0,
        blob,
        images: Vec::new(),
        scope: Scope::default(),
        gates: Gates::default(),
        adopt: false,
        goes_back: false,
        exceptions: Vec::new(),
    }
}

/// A release and a cluster as one JSON document: `index`, `blobs` (a list of objects for each
/// component in turn) and `facts`. Digests and sizes are filled in, since chance finds none.
pub fn admission(bytes: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return false };
    let facts = facts(&document["facts"]);
    let lists: Vec<Value> = document["blobs"].as_array().cloned().unwrap_or_default();
    let mut index = document["index"].clone();
    let components = index["components"].as_array().map_or(0, Vec::len);
    if components == 0
        || !index["components"].as_array().into_iter().flatten().all(Value::is_object)
    {
        return false;
    }
    index["schema"] = json!(index::SCHEMA);
    let mut blobs = Vec::new();
    for n in 0..components {
        let objects: Vec<Object> = lists
            .get(n)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|body| Object::from_body(body).ok())
            .collect();
        let Ok(encoded) = blob::encode(&objects) else { return false };
        index["components"][n]["blob"] = json!(encoded.reference);
        blobs.push(encoded);
    }
    let bytes = canonical::bytes(&index);
    let Ok(read) = index::read(&bytes) else { return false };
    let target = ReleaseIndex::target_name(&read.release_id);
    let index = index::verify(authentic(&target, &bytes)).expect("it reads");
    let blobs: Vec<_> = read
        .components
        .iter()
        .zip(&blobs)
        .map(|(entry, encoded)| {
            let authentic = authentic(&encoded.reference.target, &encoded.bytes);
            blob::verify(entry, authentic).expect("as it was encoded")
        })
        .collect();
    match admission::admit(index, blobs.clone(), &facts) {
        Err(refusals) => {
            assert!(!refusals.is_empty());
            false
        }
        Ok(admitted) => {
            let plan = Plan::new(admitted.clone(), &facts.inventory);
            allowed(&read, &blobs.iter().flat_map(|b| b.iter()).collect::<Vec<_>>(), &plan, &facts);
            let again = Plan::new(admitted, &facts.inventory);
            assert_eq!(order(&plan), order(&again), "a plan is a function of its release");
            true
        }
    }
}

fn order(plan: &Plan) -> Vec<(String, ObjectId)> {
    plan.components()
        .iter()
        .flat_map(|component| {
            let name = &component.entry().name;
            component.objects().map(|object| (name.clone(), object.id.clone()))
        })
        .collect()
}

/// What a plan may do, checked without admission's code.
fn allowed(index: &ReleaseIndex, objects: &[&Object], plan: &Plan, facts: &ClusterFacts) {
    let mut planned = BTreeSet::new();
    let mut phase = 0;
    for component in plan.components() {
        let entry = component.entry();
        assert!(entry.phase >= phase, "phases go up");
        phase = entry.phase;
        assert!(component.stages().windows(2).all(|pair| pair[0].0 < pair[1].0));
        for Object { id, body } in component.objects() {
            assert!(planned.insert(id.clone()), "{id} is planned twice");
            assert!(entry.scope.kinds.contains(&id.group_kind()), "{id} is outside of its scope");
            if let Some(namespace) = &id.namespace {
                assert!(entry.scope.namespaces.contains(namespace), "{id} is outside of its scope");
                assert!(!DENIED_NAMESPACES.contains(&namespace.as_str()), "{id}");
                let of_agent =
                    [AGENT_COMPONENT, FOUNDATION_COMPONENT].contains(&entry.name.as_str());
                assert!(namespace != AGENT_NAMESPACE || of_agent, "{id}");
            }
            let own = admission::own_deployment(AGENT_NAMESPACE);
            assert!(entry.name != AGENT_COMPONENT || *id == own, "{id} is of the agent");
            let reserved = id.group == "rbac.authorization.k8s.io" && id.name == "mendix-agent"
                || id.name.ends_with(".agent.mendix.com") && id.kind == "CustomResourceDefinition";
            assert!(!reserved || entry.name == FOUNDATION_COMPONENT, "{id} is of the foundation");
            let owner = facts.inventory.iter().find(|(_, owned)| owned.contains(id));
            if let Some((owner, _)) = owner {
                let outside = index.components.iter().all(|entry| entry.name != *owner);
                assert!(!outside, "{id} belongs to {owner}");
            }
            assert!(body.value().is_object());
        }
    }
    assert_eq!(planned.len(), objects.len(), "everything that was signed is planned");
    for component in plan.components() {
        for id in component.prune() {
            assert!(!planned.contains(id), "{id} is applied and pruned");
            assert!(!kind::holds_data(id) || index.deletes.contains(id), "{id} holds data");
        }
        let owned = facts.inventory.get(&component.entry().name);
        for id in component.prune().iter().chain(component.kept()) {
            assert!(owned.is_some_and(|owned| owned.contains(id)), "{id} was never owned");
        }
    }
    assert!(facts.marks.high_water.is_none_or(|high| index.sequence >= high.sequence));
    assert!(index.sequence >= facts.marks.floor);
}

fn facts(value: &Value) -> ClusterFacts {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let inventory = value["inventory"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(component, ids)| {
            let ids: Vec<ObjectId> = serde_json::from_value(ids.clone()).unwrap_or_default();
            (component.clone(), ids)
        })
        .collect();
    let foundation = value["foundation"].as_array().into_iter().flatten();
    let foundation = foundation.filter_map(|body| Object::from_body(body).ok());
    ClusterFacts {
        agent_version: text("agent_version"),
        kubernetes_version: text("kubernetes_version"),
        agent_namespace: AGENT_NAMESPACE.into(),
        ring: text("ring"),
        marks: Marks {
            high_water: value["high_water"]
                .as_u64()
                .map(|sequence| HighWater { sequence, index_sha256: [0; 32] }),
            floor: value["floor"].as_u64().unwrap_or_default(),
        },
        committed_sequence: value["committed"].as_u64(),
        quarantined: BTreeSet::new(),
        inventory,
        custom_kinds: BTreeMap::new(),
        versions: BTreeMap::new(),
        foundation: foundation.map(|object| (object.id, object.body.value())).collect(),
        state_bytes: value["state_bytes"].as_u64().unwrap_or_default(),
        has_begun: false,
        agent_is_deployment: true,
    }
}
