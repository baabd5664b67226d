//! Pre-images: every object that a run will touch, as it is before, and the way back to it.
//!
//! They are read and stored before anything is changed. Restoring needs nothing but them and the
//! live objects: it works for a run whose plan can't be made any more.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
};

use mendix_agent_core::bundle::{
    drift::is_recreated,
    kind::holds_data,
    object::ObjectId,
    ownership::{Fields, applied_by, owners},
    plan::Plan,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    converge::{based_on, created_by, is_replaceable, remove},
    failure::{CallCause, CallError, Meaning},
    live::{Live, Mode, text},
};
use crate::cluster::FIELD_MANAGER;

/// An object before the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreImage {
    /// Place of its component in the plan.
    pub place: u32,
    /// Which object.
    pub id: ObjectId,
    /// The whole object; none if it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Value>,
}

/// What became of one object on the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is as before.
    AsBefore,
    /// The run created it and it stays, because deleting it could lose data.
    LeftInPlace,
}

/// What a plan touches, in the order in which it does, each object once.
pub fn touched(plan: &Plan) -> Vec<(u32, ObjectId)> {
    let mut seen = BTreeSet::new();
    let components = plan.components().iter().zip(0u32..);
    components
        .flat_map(|(component, place)| {
            let applied = component.objects().map(|object| object.id.clone());
            applied.chain(component.prune().iter().cloned()).map(move |id| (place, id))
        })
        .filter(|(_, id)| seen.insert(id.clone()))
        .collect()
}

/// Writes a pre-image as a line of JSON.
///
/// # Errors
/// When it can't be written as JSON, or `lines` takes no more.
pub fn write(lines: &mut impl Write, image: &PreImage) -> io::Result<()> {
    // In one piece: JSON comes in very small ones.
    let mut line = serde_json::to_vec(image)?;
    line.push(b'\n');
    lines.write_all(&line)
}

/// Reads what [`write()`] wrote, one after the other: all of them at once may be more than memory is for.
///
/// # Errors
/// When a line is something else.
pub fn read(lines: impl Read) -> impl Iterator<Item = io::Result<PreImage>> {
    let lines = BufReader::new(lines).split(b'\n');
    lines.map(|line| Ok(serde_json::from_slice(&line?)?))
}

/// Puts one object back. `run` is the run that is undone.
///
/// # Errors
/// See [`Meaning`]; [`Meaning::Refused`] and [`Meaning::Immutable`] mean that it can't be put back.
pub async fn restore(live: &Live, image: &PreImage, run: &str) -> Result<Restored, CallError> {
    let current = live.get(&image.id).await?;
    match (&image.live, current) {
        (None, None) => Ok(Restored::AsBefore),
        (None, Some(current)) => undo_creation(live, &image.id, &current, run).await,
        (Some(before), None) => {
            if is_recreated(&image.id) {
                recreate(live, &image.id, before).await?;
            }
            Ok(Restored::AsBefore)
        }
        (Some(before), Some(current)) => {
            put_back(live, &image.id, before, &current).await?;
            Ok(Restored::AsBefore)
        }
    }
}

async fn undo_creation(
    live: &Live,
    id: &ObjectId,
    current: &Value,
    run: &str,
) -> Result<Restored, CallError> {
    // Made by somebody else since: not ours to delete.
    if created_by(current).as_deref() != Some(run) {
        return Ok(Restored::AsBefore);
    }
    // Deleting it could take more with it than the run made.
    if holds_data(id) {
        return Ok(Restored::LeftInPlace);
    }
    if current.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null) {
        live.delete(id, current).await?;
    }
    Ok(Restored::AsBefore)
}

async fn recreate(live: &Live, id: &ObjectId, before: &Value) -> Result<(), CallError> {
    match applied_by(before, FIELD_MANAGER) {
        Some(ours) => {
            let body = with_identity(ours.extract(before), before);
            live.apply(id, &body, FIELD_MANAGER, true, Mode::Persist).await?;
        }
        None => {
            let mut body = before.clone();
            if let Some(map) = body.as_object_mut() {
                map.remove("status");
            }
            if let Some(metadata) = body["metadata"].as_object_mut() {
                for key in [
                    "uid",
                    "resourceVersion",
                    "generation",
                    "creationTimestamp",
                    "managedFields",
                    "selfLink",
                ] {
                    metadata.remove(key);
                }
            }
            live.create(id, &body, FIELD_MANAGER).await?;
        }
    }
    Ok(())
}

async fn put_back(
    live: &Live,
    id: &ObjectId,
    before: &Value,
    current: &Value,
) -> Result<(), CallError> {
    if current.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return Err(CallError::new("put back", id, CallCause::Terminating));
    }
    let ours_before = applied_by(before, FIELD_MANAGER);
    let ours_now = applied_by(current, FIELD_MANAGER).unwrap_or_default();
    let others = owners(before)
        .into_iter()
        .filter(|owner| !(owner.applied && owner.manager == FIELD_MANAGER))
        .fold(Fields::default(), |all, owner| all.union(&owner.fields));
    // Besides what was ours: what the run took from others, or all, if it took the whole object.
    let taken = match &ours_before {
        Some(_) => ours_now.intersection(&others),
        None => others,
    };
    let ours_before = ours_before.unwrap_or_default();
    let wanted = ours_before.union(&taken);
    let body = wanted.extract(before);
    let same_fields = ours_now == ours_before && taken.minus(&ours_before).is_empty();
    if same_fields && ours_before.extract(current) == body {
        return Ok(());
    }
    let body = based_on(&with_identity(body, before), text(current, "/metadata/resourceVersion"));
    let after = match live.apply(id, &body, FIELD_MANAGER, true, Mode::Persist).await {
        Err(error) if error.meaning == Meaning::Immutable && is_replaceable(id) => {
            remove(live, id, current).await?;
            return recreate(live, id, before).await;
        }
        result => result?,
    };
    let same_object = text(before, "/metadata/uid") == text(&after, "/metadata/uid");
    if same_object && !taken.minus(&ours_before).is_empty() {
        let managed_fields = owners_as_before(before, &after);
        live.set_managed_fields(id, &after, &managed_fields, FIELD_MANAGER).await?;
    }
    Ok(())
}

/// Gives the fields of an object that is as before the owners of before, too. One that somebody has
/// changed since is left as it is.
///
/// # Errors
/// As [`restore`].
pub async fn own_as_before(live: &Live, image: &PreImage) -> Result<(), CallError> {
    let (Some(before), Some(current)) = (&image.live, live.get(&image.id).await?) else {
        return Ok(());
    };
    let managed_fields = owners_as_before(before, &current);
    let same = before["spec"] == current["spec"];
    if !same || current.pointer("/metadata/managedFields") == Some(&managed_fields) {
        return Ok(());
    }
    live.set_managed_fields(&image.id, &current, &managed_fields, FIELD_MANAGER).await.map(drop)
}

/// The owners of before, with what subresources own now.
fn owners_as_before(before: &Value, after: &Value) -> Value {
    let entries = |object: &Value, of_subresource: bool| -> Vec<Value> {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let subresource = |entry: &Value| {
            entry.get("subresource").and_then(Value::as_str).is_some_and(|name| !name.is_empty())
        };
        let entries = entries.into_iter().flatten();
        entries.filter(|entry| subresource(entry) == of_subresource).cloned().collect()
    };
    Value::Array([entries(before, false), entries(after, true)].concat())
}

fn with_identity(mut body: Value, object: &Value) -> Value {
    if !body.is_object() {
        body = Value::Object(Default::default());
    }
    for key in ["apiVersion", "kind"] {
        body[key] = object[key].clone();
    }
    for key in ["name", "namespace"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            body["metadata"][key] = value.clone();
        }
    }
    body
}
