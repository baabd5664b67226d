//! Canonical JSON: one value, one form.

use mendix_agent_core::bundle::canonical;

/// Levels of nesting; the product's own bound.
const DEPTH: usize = 64;

/// Strictly read bytes.
pub fn canonical(bytes: &[u8]) -> bool {
    let Ok(value) = canonical::parse(bytes, DEPTH) else { return false };
    // Whoever reads it leniently must see the same value: no key that counts twice, no number that
    // others read differently.
    let lenient: serde_json::Value = serde_json::from_slice(bytes).expect("strict is also lenient");
    assert_eq!(value, lenient);
    let written = canonical::bytes(&value);
    let read = canonical::parse(&written, DEPTH).expect("its own form is strict");
    let twice = canonical::bytes(&read);
    if !fractions(&value) {
        assert_eq!(read, value);
        assert_eq!(twice, written, "the canonical form is a fixed point");
    }
    assert!(canonical::parse(&[&written[..], b"x"].concat(), DEPTH).is_err());
    true
}

/// Fractions may come back one unit off in the last place, as `canonical::parse` says.
fn fractions(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(fractions),
        Value::Object(map) => map.values().any(fractions),
        _ => false,
    }
}
