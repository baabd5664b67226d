use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::bundle::index::{Gates, Scope};

fn config_map(name: &str, data: &str) -> Object {
    Object::from_body(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "mendix"},
        "data": {"key": data},
    }))
    .unwrap()
}

fn entry(reference: BlobRef) -> ComponentEntry {
    ComponentEntry {
        name: "component".into(),
        version: "1".into(),
        phase: 1,
        blob: reference,
        images: vec![],
        scope: Scope::default(),
        gates: Gates::default(),
        adopt: false,
        goes_back: false,
        exceptions: vec![],
    }
}

fn authentic(target: &str, bytes: &[u8]) -> Authentic {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let sha256 = digest.as_ref().try_into().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the TUF client")]
    Authentic::vouched_by_release_root(target.into(), sha256, bytes.to_vec())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

fn expanded(text: &[u8]) -> Result<Vec<Object>, BlobError> {
    expand(&gzip(text), &Limits::BUILT_IN)
}

#[test]
fn objects_come_back_as_they_were_encoded() {
    let objects = [config_map("b", "2"), config_map("a", "1")];
    let encoded = encode(&objects).unwrap();
    let entry = entry(encoded.reference.clone());
    let verified = verify(&entry, authentic(&encoded.reference.target, &encoded.bytes)).unwrap();
    assert_eq!(*verified, [objects[1].clone(), objects[0].clone()]);
    assert_eq!(hex::encode(verified.sha256()), encoded.reference.sha256);
}

#[test]
fn the_same_objects_in_another_order_are_the_same_blob() {
    let (a, b) = (config_map("a", "1"), config_map("b", "2"));
    assert_eq!(encode(&[a.clone(), b.clone()]).unwrap(), encode(&[b, a]).unwrap());
}

#[test]
fn a_blob_is_the_one_that_the_index_names() {
    let encoded = encode(&[config_map("a", "1")]).unwrap();
    let other = encode(&[config_map("a", "2")]).unwrap();
    let entry = entry(encoded.reference.clone());
    for authentic in [
        authentic("other.ndjson.gz", &encoded.bytes),
        authentic(&encoded.reference.target, &other.bytes),
        authentic(&encoded.reference.target, &[&encoded.bytes[..], b"\0"].concat()),
    ] {
        assert!(matches!(verify(&entry, authentic), Err(BlobError::OtherBlob { .. })));
    }
    // Other content of the announced size: only the digest tells.
    let same_size = BlobRef { size: other.reference.size, ..encoded.reference.clone() };
    let swapped = authentic(&encoded.reference.target, &other.bytes);
    let refused = verify(&super::tests::entry(same_size), swapped);
    assert!(matches!(refused, Err(BlobError::OtherBlob { .. })));
    let wrong_size = BlobRef { size: 1, ..encoded.reference.clone() };
    let authentic = authentic(&encoded.reference.target, &encoded.bytes);
    let refused = verify(&super::tests::entry(wrong_size), authentic);
    assert!(matches!(refused, Err(BlobError::OtherBlob { .. })));
}

#[test]
fn a_bomb_is_stopped_at_its_ratio() {
    // One line that compresses 1000:1.
    let bomb = gzip(&vec![b'a'; 8 * 1024 * 1024]);
    let limits = Limits { object: usize::MAX, ..Limits::BUILT_IN };
    let error = expand(&bomb, &limits).unwrap_err();
    assert!(matches!(error, BlobError::Expanded { rule: "expansion ratio", .. }), "{error}");
}

#[test]
fn expansion_is_bounded_also_at_a_harmless_ratio() {
    let objects: Vec<_> = (0..50).map(|n| config_map(&format!("c{n}"), "x")).collect();
    let encoded = encode(&objects).unwrap();
    let limits = Limits { blob_expanded: 1000, ..Limits::BUILT_IN };
    let error = expand(&encoded.bytes, &limits).unwrap_err();
    assert!(matches!(error, BlobError::Expanded { max: 1000, rule: "expanded size" }), "{error}");
    let limits = Limits { blob_compressed: 10, ..Limits::BUILT_IN };
    assert!(matches!(expand(&encoded.bytes, &limits), Err(BlobError::Compressed { .. })));
}

#[test]
fn objects_are_counted_and_measured() {
    let encoded = encode(&[config_map("a", "1"), config_map("b", "2")]).unwrap();
    let limits = Limits { objects: 1, ..Limits::BUILT_IN };
    assert!(matches!(expand(&encoded.bytes, &limits), Err(BlobError::TooManyObjects(1))));
    let limits = Limits { object: 50, ..Limits::BUILT_IN };
    assert!(matches!(
        expand(&encoded.bytes, &limits),
        Err(BlobError::ObjectTooLarge { line: 1, max: 50 })
    ));
    // An object larger than one step of expansion.
    let large = config_map("a", &"xyz".repeat(EXPAND_STEP));
    assert_eq!(
        expand(&encode(std::slice::from_ref(&large)).unwrap().bytes, &Limits::BUILT_IN).unwrap(),
        [large]
    );
    // A line without an end is stopped at the same size.
    let endless: Vec<u8> =
        (0..2_000_000_u32).flat_map(u32::to_le_bytes).filter(|b| *b != b'\n').collect();
    assert!(matches!(expanded(&endless), Err(BlobError::ObjectTooLarge { line: 1, .. })));
}

#[test]
fn each_line_is_one_canonical_object() {
    let good = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#;
    let line = |text: &str| expanded(format!("{text}\n").as_bytes());
    assert!(expanded(&[&good[..], b"\n"].concat()).is_ok());
    assert!(matches!(expanded(good), Err(BlobError::CutOff(1))));
    assert!(matches!(expanded(b"\n"), Err(BlobError::Json { line: 1, .. })));
    assert!(matches!(line("{}"), Err(BlobError::Object { line: 1, .. })));
    assert!(matches!(line("[]"), Err(BlobError::Object { .. })));
    let spaced = r#"{"apiVersion":"v1", "kind":"Pod","metadata":{"name":"a"}}"#;
    assert!(matches!(line(spaced), Err(BlobError::NotCanonical(1))));
    let unsorted = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#;
    assert!(matches!(line(unsorted), Err(BlobError::NotCanonical(1))));
    let duplicate = r#"{"apiVersion":"v1","kind":"Pod","kind":"Job","metadata":{"name":"a"}}"#;
    assert!(matches!(line(duplicate), Err(BlobError::Json { .. })));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    assert!(matches!(line(&deep), Err(BlobError::Json { .. })));
    let twice = [&good[..], b"\n", good, b"\n"].concat();
    assert!(matches!(expanded(&twice), Err(BlobError::Twice { line: 2, .. })));
}

#[test]
fn a_blob_is_one_gzip_stream_and_nothing_else() {
    let encoded = encode(&[config_map("a", "1")]).unwrap().bytes;
    let check = |bytes: &[u8]| expand(bytes, &Limits::BUILT_IN).unwrap_err();
    assert!(matches!(check(&[&encoded[..], b"x"].concat()), BlobError::Trailing(1)));
    // A second member would be read by some tools and not by others.
    assert!(matches!(check(&[&encoded[..], &encoded].concat()), BlobError::Trailing(_)));
    assert!(matches!(check(&encoded[..encoded.len() - 1]), BlobError::Gzip(_)));
    assert!(matches!(check(b"plain"), BlobError::Gzip(_)));
    let mut wrong_sum = encoded.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    assert!(matches!(check(&wrong_sum), BlobError::Gzip(_)));
}

#[test]
fn the_publisher_learns_what_the_agent_would_refuse() {
    let object = config_map("a", "1");
    assert!(matches!(encode(&[object.clone(), object]), Err(BlobError::Twice { .. })));
    let mut inexact = config_map("a", "1").body.value();
    inexact["data"]["key"] = json!(-3.931836409904614e+215);
    let inexact = Object::from_body(&inexact).unwrap();
    assert!(matches!(encode(&[inexact]), Err(BlobError::NotCanonical(1))));
}

#[test]
fn a_component_may_be_without_objects() {
    assert_eq!(expand(&encode(&[]).unwrap().bytes, &Limits::BUILT_IN).unwrap(), []);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = expand(&bytes, &Limits::BUILT_IN);
        let _ = expanded(&bytes);
    }

    #[test]
    fn no_blob_expands_beyond_its_limits(
        text in prop::collection::vec(any::<u8>(), 0..5_000),
        blob_expanded in 1_u64..5_000,
        objects in 0_usize..5,
        object in 1_usize..200,
    ) {
        let limits = Limits { blob_expanded, objects, object, ..Limits::BUILT_IN };
        if let Ok(found) = expand(&gzip(&text), &limits) {
            prop_assert!(text.len() as u64 <= blob_expanded);
            prop_assert!(found.len() <= objects);
        }
    }
}
