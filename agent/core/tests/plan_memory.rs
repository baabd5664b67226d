//! What a release of thousands of objects holds on its way from the stored bytes to the plan, counted by an
//! allocator that sees every byte: this is why it is a test binary of its own, with one test.
//!
//! Each step of a run makes the plan anew. Parsed JSON takes several times as much as its text; a plan
//! that kept it, or a second copy of the text, would be what most of the agent's memory is for.

#![expect(clippy::expect_used, reason = "the helpers of a test fail it as its body does")]

use aws_lc_rs::digest::{SHA256, digest};
use mendix_agent_core::bundle::{
    Authentic,
    admission::{ClusterFacts, admit},
    blob,
    index::{self, ComponentEntry, Gates, ReleaseClass, ReleaseIndex, SCHEMA, Scope, VersionRange},
    object::{Inventory, Object},
    plan::Plan,
};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const OBJECTS: usize = 4_000;
/// What an object may take beside its text: its identity, and places in lists, sets and maps.
const BESIDE: usize = 256;
/// What is held for one object or for the whole: a parsed object, buffers of the expansion, the index.
const ONCE: usize = 256 * 1024;

fn authentic(target: &str, bytes: &[u8]) -> Authentic {
    let sha256 = digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes");
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the TUF client")]
    Authentic::vouched_by_release_root(target.into(), sha256, bytes.to_vec())
}

/// ConfigMaps of about a kilobyte.
fn objects() -> Vec<Object> {
    // Not all the same: what expands to more than a hundred times its size is refused.
    let line = |n: usize| format!("what a component reads when it starts: {}\n", n * 7919);
    let object = |n: usize| {
        Object::from_body(&json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("object-{n}"), "namespace": "mendix", "labels": {"n": n.to_string()}},
            "data": {"text": (n..n + 21).map(line).collect::<String>()},
        }))
        .expect("an object")
    };
    (0..OBJECTS).map(object).collect()
}

#[test]
fn a_plan_holds_its_objects_once_and_as_text() {
    let objects = objects();
    let text: usize = objects.iter().map(|object| object.body.bytes().len()).sum();
    let encoded = blob::encode(&objects).expect("a blob");
    drop(objects);
    let entry = ComponentEntry {
        name: "component".into(),
        version: "1".into(),
        phase: 1,
        blob: encoded.reference.clone(),
        images: vec![],
        scope: Scope { namespaces: vec!["mendix".into()], kinds: vec!["ConfigMap".into()] },
        gates: Gates::default(),
        adopt: false,
        goes_back: false,
        exceptions: vec![],
    };
    let index = ReleaseIndex {
        schema: SCHEMA,
        release_id: "r1".into(),
        sequence: 1,
        class: ReleaseClass::Weekly,
        not_before: None,
        apply_by: None,
        audience: vec![],
        agent_versions: VersionRange::default(),
        kubernetes_versions: VersionRange::default(),
        from: vec![],
        blocked_from: vec![],
        components: vec![entry.clone()],
        deletes: vec![],
        narrows: vec![],
    };
    let index = authentic(&ReleaseIndex::target_name("r1"), &index.canonical_bytes());
    let index = index::verify(index).expect("an index");
    let bytes = authentic(&encoded.reference.target, &encoded.bytes);
    let facts = ClusterFacts {
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.34.2".into(),
        agent_namespace: "mendix-agent".into(),
        ..ClusterFacts::default()
    };

    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let verified = blob::verify(&entry, bytes).expect("the blob");
    let admitted = admit(index, vec![verified], &facts).expect("nothing against it");
    let plan = Plan::new(admitted, &Inventory::new());
    // What the steps do with it: each object is parsed, one after the other.
    for object in plan.components().iter().flat_map(|component| component.objects()) {
        assert!(object.body.value().is_object());
    }
    let copy = plan.clone();
    let (peak, held) = (HEAP.peak_usage() - before, HEAP.current_usage() - before);

    let bound = text + OBJECTS * BESIDE + ONCE;
    println!("{OBJECTS} objects of {text} bytes: {peak} at the peak, {held} held, bound {bound}");
    assert!(peak <= bound, "{peak} bytes at the peak, the bound is {bound}");
    assert!(held >= text, "nothing was counted");
    assert_eq!(copy.components().len(), 1);
}
