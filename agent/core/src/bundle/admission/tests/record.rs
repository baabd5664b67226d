//! Components that own more than their record can name.

use super::*;
use crate::bundle::{admission::recorded_bytes, limits::Limits};

fn many(count: usize, name_length: usize) -> Vec<Value> {
    let account = |n: usize| {
        let name = format!("{n:0name_length$}");
        object("v1", "ServiceAccount", Some("mendix"), &name)
    };
    (0..count).map(account).collect()
}

#[test]
fn as_many_objects_as_a_blob_holds_fit_into_the_record_if_their_names_are_labels() {
    one(many(Limits::BUILT_IN.objects, 63)).admit(&facts()).unwrap();
}

#[test]
fn a_component_whose_record_would_be_too_large_is_refused_before_anything_is_touched() {
    let refused = one(many(Limits::BUILT_IN.objects, 253)).admit(&facts()).unwrap_err();
    let [refusal] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(refusal.reason, Reason::RecordTooLarge);
    let line = refusal.to_string();
    assert!(line.contains("mendix-operator") && line.contains("1310720"), "{line}");
    // What a run that has begun may not do any more was decided before.
    let begun = ClusterFacts { has_begun: true, ..facts() };
    one(many(Limits::BUILT_IN.objects, 253)).admit(&begun).unwrap();
}

#[test]
fn a_record_may_be_as_large_as_its_limit_and_what_stays_with_the_component_counts() {
    let of_one = recorded_bytes(&Object::from_body(&many(1, 253)[0]).unwrap().id);
    let most = Limits::BUILT_IN.record / of_one;
    one(many(most, 253)).admit(&facts()).unwrap();
    let too_large = only(Reason::RecordTooLarge, "blob");
    assert_eq!(refusals(one(many(most + 1, 253)), &facts()), too_large);

    let claim = object("v1", "PersistentVolumeClaim", Some("mendix"), &"c".repeat(253));
    let id = Object::from_body(&claim).unwrap().id;
    let inventory = Inventory::from([("mendix-operator".to_owned(), vec![id.clone()])]);
    let owns_data = ClusterFacts { inventory, ..facts() };
    assert_eq!(refusals(one(many(most, 253)), &owns_data), too_large);
    // It goes with this release; and one that is named is not counted twice.
    one(many(most, 253)).change(|index| index.deletes = vec![id]).admit(&owns_data).unwrap();
    let mut named = many(most - 2, 253);
    named.push(claim);
    one(named).admit(&owns_data).unwrap();
}
