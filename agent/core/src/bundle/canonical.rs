//! Canonical JSON: the one way in which a release writes a value, and the strict reader for it.
//!
//! Everything in a release is signed as bytes and judged as a value. Both ends of that must agree
//! on what the bytes mean, so [`parse`] refuses what parsers read differently: a key twice (which
//! one counts?), numbers that don't fit, bytes after the value, and nesting deep enough to exhaust
//! somebody's stack. [`bytes()`] writes keys in byte order, without white space, strings with the
//! shortest escapes and numbers as serde_json prints them.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::ordered;

/// Why bytes are not a JSON value that everybody reads alike.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {reason}")]
pub struct JsonError {
    /// Where: dotted path from the root, `$` for the root itself.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// Reads one value that fills `bytes` completely and nests at most `depth` levels.
///
/// Fractions of more than about 15 digits may come back one unit off in the last place, so that
/// writing them again gives other bytes. A release can't hold such a number: its reader compares
/// the bytes and refuses.
///
/// # Errors
/// Invalid JSON or UTF-8, a duplicate key, a number that is not finite or doesn't fit 64 bits, deeper
/// nesting, bytes after the value.
pub fn parse(bytes: &[u8], depth: usize) -> Result<Value, JsonError> {
    let path = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { path: &path, room: depth }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| JsonError { path: render(&path.into_inner()), reason: error.to_string() })
}

/// Writes a value canonically.
pub fn bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            // Sorted here and not left to the map: a feature of serde_json that any crate of the
            // build may switch on makes maps keep the order of insertion.
            let mut entries: Vec<_> = map.iter().collect();
            ordered::sort_by(&mut entries, |a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_scalar(&Value::String(key.clone()), out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    // `Value`'s Display is compact JSON, and can't fail on a scalar.
    out.extend_from_slice(value.to_string().as_bytes());
}

/// One step from a value to a value inside it.
enum Step {
    Key(String),
    Index(usize),
}

fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&key.escape_default().to_string());
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "$".into() } else { text }
}

/// Reads a value while keeping its path; on an error the path stays where it happened.
struct Strict<'a> {
    path: &'a RefCell<Vec<Step>>,
    /// Levels of nesting that are left.
    room: usize,
}

impl Strict<'_> {
    fn inside<E: de::Error>(&self) -> Result<usize, E> {
        self.room.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let room = self.inside()?;
        let mut items = Vec::new();
        loop {
            self.path.borrow_mut().push(Step::Index(items.len()));
            let Some(item) = access.next_element_seed(Strict { path: self.path, room })? else {
                self.path.borrow_mut().pop();
                return Ok(Value::Array(items));
            };
            self.path.borrow_mut().pop();
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let room = self.inside()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            self.path.borrow_mut().push(Step::Key(key.clone()));
            if map.contains_key(&key) {
                return Err(de::Error::custom("the key appears twice"));
            }
            let value = access.next_value_seed(Strict { path: self.path, room })?;
            self.path.borrow_mut().pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> JsonError {
        parse(text.as_bytes(), 64).unwrap_err()
    }

    #[test]
    fn a_duplicate_key_is_refused_where_it_is() {
        let error = refused(r#"{"a":[{"b":1,"c":{"x":1,"x":2}}]}"#);
        assert_eq!(error.path, "a[0].c.x");
        assert!(error.reason.contains("twice"), "{error}");
    }

    #[test]
    fn a_duplicate_key_in_another_spelling_is_refused() {
        assert!(refused(r#"{"a":1,"\u0061":2}"#).reason.contains("twice"));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        for text in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"] {
            refused(text);
        }
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        refused("{} {}");
        refused("{}\0");
    }

    #[test]
    fn nesting_is_bounded_and_does_not_exhaust_the_stack() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        parse(nested(64).as_bytes(), 64).unwrap();
        assert!(refused(&nested(65)).reason.contains("deeply"));
        refused(&nested(100_000));
        refused(&"{\"a\":".repeat(100_000));
    }

    #[test]
    fn canonical_bytes_sort_keys_and_keep_no_white_space() {
        let value =
            parse(b"{ \"b\" : [1, 2.5], \"a\\u0000\" : null, \"B\": \"\\u00e9/\" }", 64).unwrap();
        assert_eq!(
            String::from_utf8(bytes(&value)).unwrap(),
            "{\"B\":\"é/\",\"a\\u0000\":null,\"b\":[1,2.5]}"
        );
    }

    /// Any JSON value of moderate size.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Fractions that JSON readers agree on to the last bit; see `parse`.
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_as_the_same_value(value in any_json()) {
            let written = bytes(&value);
            let read = parse(&written, 64).unwrap();
            prop_assert_eq!(bytes(&read), written);
        }

        #[test]
        fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&input, 64);
        }
    }

    #[test]
    fn equal_values_have_equal_bytes_whatever_the_order_of_insertion() {
        let mut one = Map::new();
        one.insert("x".into(), json!(1));
        one.insert("a".into(), json!(2));
        let mut two = Map::new();
        two.insert("a".into(), json!(2));
        two.insert("x".into(), json!(1));
        assert_eq!(bytes(&Value::Object(one)), bytes(&Value::Object(two)));
    }
}
