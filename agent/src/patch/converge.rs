//! Makes one live object what a release wants, whoever asks: a run that applies it, a rollback, or
//! the correction of drift.
//!
//! Nothing is written when the object already is what is wanted. An object that has to be replaced
//! because a field can't be changed in place is deleted and made again only if its kind holds no state.

use std::time::Duration;

use mendix_agent_core::bundle::{
    drift::{analyse, changed_paths, is_applied_by},
    object::ObjectId,
    ownership::applied_by,
};
use serde_json::{Value, json};

use super::{
    failure::{CallCause, CallError, Meaning},
    live::{Live, Mode, text},
};
use crate::cluster::FIELD_MANAGER;

/// Field manager that holds the fields a release stopped setting and that keep their value.
pub const HANDOVER_MANAGER: &str = "mendix-agent-handover";
/// Annotation of an object that a run created, with the name of the run: a rollback deletes exactly
/// those.
pub const CREATED_BY: &str = "agent.mendix.com/created-by";
/// Rounds of reading and writing for one object: taking an object over, then stripping what its
/// former owner added, takes two.
const MAX_ROUNDS: usize = 4;
/// How long an object that is replaced may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// How often is looked whether it has gone.
const GONE_POLL: Duration = Duration::from_millis(500);

/// What an object is to become.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which object.
    pub id: &'a ObjectId,
    /// The object as the release wants it.
    pub body: &'a Value,
    /// Component it belongs to, for messages.
    pub component: &'a str,
    /// Name of the run, noted on objects that are created.
    pub run: &'a str,
    /// Dotted paths that others may own.
    pub exceptions: &'a [&'a str],
    /// Whether an object that the agent never applied may be taken over.
    pub adoption: Adoption<'a>,
}

/// Which objects may be taken over.
#[derive(Clone, Copy, Debug)]
pub enum Adoption<'a> {
    /// Any: the release says so, or it is a rollback.
    Any,
    /// Only what the agent applied, and the object with this UID from the inventory.
    Ours(Option<&'a str>),
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing had to be done.
    Unchanged(Value),
    /// It did not exist.
    Created(Value),
    /// It differed.
    Changed {
        /// As it was.
        before: Value,
        /// As it is now.
        after: Value,
        /// Field managers that claim what differed.
        claimants: Vec<String>,
    },
}

impl Outcome {
    /// The object as it is now.
    pub fn live(&self) -> &Value {
        match self {
            Self::Unchanged(live) | Self::Created(live) | Self::Changed { after: live, .. } => live,
        }
    }
}

/// Makes the live object what is wanted.
///
/// # Errors
/// See [`Meaning`]. Whatever was done before an error is safe to be done again.
pub async fn converge(live: &Live, wanted: Wanted<'_>) -> Result<Outcome, CallError> {
    let mut first: Option<Value> = None;
    let mut claimants = vec![];
    for _ in 0..MAX_ROUNDS {
        let Some(current) = live.get(wanted.id).await? else {
            let body = noted(wanted.body, wanted.run);
            let after = apply(live, wanted.id, &body).await?;
            live.note_form(wanted.id, &body, &owned(&after));
            return Ok(Outcome::Created(after));
        };
        may_take(&wanted, &current)?;
        let run = created_by(&current);
        let body = match &run {
            Some(run) => noted(wanted.body, run),
            None => wanted.body.clone(),
        };
        let correction = analyse(wanted.id, &body, &current, FIELD_MANAGER, wanted.exceptions);
        let Some(correction) = correction else {
            return Ok(ended(first, current, claimants));
        };
        let in_form = live.is_form_of(wanted.id, &correction.body, &owned(&current));
        if in_form && correction.managed_fields.is_none() && correction.hand_over.is_none() {
            return Ok(ended(first, current, claimants));
        }
        for claimant in correction.claimants {
            if !claimants.contains(&claimant) {
                claimants.push(claimant);
            }
        }
        let version = |object: &Value| text(object, "/metadata/resourceVersion");
        let mut read = version(&current);
        if let Some(kept) = &correction.hand_over {
            let kept = live.apply(wanted.id, kept, HANDOVER_MANAGER, false, Mode::Persist).await?;
            read = version(&kept);
        }
        if let Some(fields) = &correction.managed_fields {
            let moved = live.set_managed_fields(wanted.id, &current, fields, FIELD_MANAGER).await;
            match moved {
                // Somebody wrote in between: look again.
                Err(error) if error.is_conflict() => continue,
                result => read = version(&result?),
            };
        }
        let after = match apply(live, wanted.id, &based_on(&correction.body, read)).await {
            Err(error) if error.is_conflict() => continue,
            Err(error) if error.meaning == Meaning::Immutable && is_replaceable(wanted.id) => {
                remove(live, wanted.id, &current).await?;
                apply(live, wanted.id, &noted(wanted.body, wanted.run)).await?
            }
            Err(error) if error.is_stale_version() => {
                let fields = in_served_version(&current, &wanted.id.api_version());
                live.set_managed_fields(wanted.id, &current, &fields, FIELD_MANAGER).await?;
                continue;
            }
            result => result?,
        };
        live.note_form(wanted.id, &correction.body, &owned(&after));
        let was_ours = is_applied_by(&current, FIELD_MANAGER);
        let unchanged = version(&after) == version(&current)
            || (correction.managed_fields.is_none() && changed_paths(&current, &after).is_empty());
        if was_ours && unchanged {
            // The server writes some values in a form of its own; that is no difference.
            return Ok(ended(first, after, claimants));
        }
        // An object that was just taken over is looked at again: its former owner may have added to it.
        let settled = correction.managed_fields.is_some() || was_ours;
        first.get_or_insert(current);
        if settled {
            return Ok(ended(first, after, claimants));
        }
    }
    let why = "somebody else keeps writing to it".to_owned();
    let mut error = CallError::new("apply", wanted.id, CallCause::Found(why));
    error.meaning = Meaning::Blocked;
    Err(error)
}

/// The managedFields of an object with all entries in one version of its group: who owns what stays
/// known when the version that the owner spoke has gone.
fn in_served_version(object: &Value, api_version: &str) -> Value {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entries = entries.into_iter().flatten().cloned().map(|mut entry| {
        entry["apiVersion"] = json!(api_version);
        entry
    });
    Value::Array(entries.collect())
}

fn ended(first: Option<Value>, now: Value, claimants: Vec<String>) -> Outcome {
    match first {
        None => Outcome::Unchanged(now),
        Some(before) => Outcome::Changed { before, after: now, claimants },
    }
}

/// Refuses an object that is going away, or that is not the agent's to take.
///
/// # Errors
/// [`CallCause::Terminating`] and [`CallCause::NotOurs`].
pub fn may_take(wanted: &Wanted<'_>, current: &Value) -> Result<(), CallError> {
    if current.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return Err(CallError::new("apply", wanted.id, CallCause::Terminating));
    }
    let ours = match wanted.adoption {
        Adoption::Any => true,
        Adoption::Ours(uid) => {
            is_applied_by(current, FIELD_MANAGER)
                || uid.is_some_and(|uid| text(current, "/metadata/uid").as_deref() == Some(uid))
        }
    };
    if ours {
        return Ok(());
    }
    let cause = CallCause::NotOurs(wanted.component.to_owned());
    Err(CallError::new("apply", wanted.id, cause))
}

/// The run that created an object, if one did.
pub fn created_by(object: &Value) -> Option<String> {
    object.get("metadata")?.get("annotations")?.get(CREATED_BY)?.as_str().map(str::to_owned)
}

/// The object with the note which run created it.
pub fn noted(body: &Value, run: &str) -> Value {
    let mut body = body.clone();
    body["metadata"]["annotations"][CREATED_BY] = json!(run);
    body
}

/// The body for an object that is still in the version that was read: what was decided about it was
/// decided about that one, and a late write of a leader that has been followed fails (ADR 0007).
pub(super) fn based_on(body: &Value, read: Option<String>) -> Value {
    let mut body = body.clone();
    if let Some(version) = read {
        body["metadata"]["resourceVersion"] = Value::String(version);
    }
    body
}

/// The part of an object that the agent owns.
fn owned(object: &Value) -> Value {
    applied_by(object, FIELD_MANAGER).unwrap_or_default().extract(object)
}

async fn apply(live: &Live, id: &ObjectId, body: &Value) -> Result<Value, CallError> {
    live.apply(id, body, FIELD_MANAGER, true, Mode::Persist).await
}

/// Deletes an object and waits until it is gone.
///
/// # Errors
/// [`CallCause::Terminating`] when it does not go in time.
pub async fn remove(live: &Live, id: &ObjectId, read: &Value) -> Result<(), CallError> {
    live.delete(id, read).await?;
    let uid = text(read, "/metadata/uid");
    let gone = async {
        loop {
            match live.get(id).await? {
                Some(now) if text(&now, "/metadata/uid") == uid => {}
                _ => return Ok(()),
            }
            tokio::time::sleep(GONE_POLL).await;
        }
    };
    match tokio::time::timeout(GONE_WITHIN, gone).await {
        Ok(result) => result,
        Err(_) => Err(CallError::new("delete", id, CallCause::Terminating)),
    }
}

/// Kinds that may be deleted and made again because a field can't be changed in place: they hold no
/// state. Never a PVC, PV, CRD, Namespace or StatefulSet.
pub fn is_replaceable(id: &ObjectId) -> bool {
    matches!(
        (id.group.as_str(), id.kind.as_str()),
        ("batch", "Job") | ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
    )
}
