//! Sets, maps and order, in little code.
//!
//! The library's stable sort is compiled anew for every type and every comparison, more than four
//! kilobytes each time, and what is collected into a set or a map is sorted by one of its own first.
//! Here entries go in one after the other, and there is one sort for all types
//! (docs/measurements.md, "The size of the image").

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Map, Value};

/// As `collect` does: of equal keys the last value counts.
pub fn map<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(entries);
    map
}

/// As `collect` does.
pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

/// A JSON object; of equal names the last value counts.
pub fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut object = Map::new();
    object.extend(fields);
    object
}

/// As the method of slices does: what is equal stays in its order.
pub fn sort_by<T>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    let mut sorted: Vec<usize> = (0..items.len()).collect();
    sort_places(&mut sorted, &|a, b| order(&items[a], &items[b]));
    // Where each item goes.
    let mut goes = vec![0; items.len()];
    for (to, from) in sorted.into_iter().enumerate() {
        goes[from] = to;
    }
    for at in 0..items.len() {
        while goes[at] != at {
            let to = goes[at];
            items.swap(at, to);
            goes.swap(at, to);
        }
    }
}

/// The one sort that is compiled.
fn sort_places(places: &mut [usize], order: &dyn Fn(usize, usize) -> Ordering) {
    places.sort_by(|a, b| order(*a, *b));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_is_as_the_library_has_it(pairs: Vec<(u8, u32)>) {
            let named = pairs.iter().map(|(key, value)| (key.to_string(), Value::from(*value)));
            prop_assert_eq!(map(pairs.clone()), pairs.iter().copied().collect::<BTreeMap<_, _>>());
            prop_assert_eq!(set(pairs.clone()), pairs.iter().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(object(named.clone()), named.collect::<Map<_, _>>());
            let (mut ours, mut theirs) = (pairs.clone(), pairs);
            // Keys repeat: their values tell whether equal ones have kept their order.
            sort_by(&mut ours, |a, b| a.0.cmp(&b.0));
            theirs.sort_by_key(|pair| pair.0);
            prop_assert_eq!(ours, theirs);
        }
    }
}
