//! Follows the initialization of the cluster: keeps its [`Record`] in AgentStatus, tells the control
//! plane, and begins another attempt when somebody asks for one. What it means is decided in
//! `mendix_agent_core::initialization`; the other tasks do the work.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use mendix_agent_core::initialization::{Facts, FirstRelease, Obstacle, Record, State};
use mendix_agent_proto::v1::{self, report::Body};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Handles, Link, identity::Standing},
    cluster::{CALL_DEADLINE, Cluster},
    crd::agent_status::{AgentStatus, NAME},
    occasion,
    requests::RequestOutcomes,
};

/// Annotation of AgentStatus by which a person asks for another attempt, with any new value.
pub const RERUN: &str = "agent.mendix.com/rerun";
/// Field manager of `status.initialization`.
const MANAGER: &str = "mendix-agent-initialization";
/// How often the annotation, and the clock, are looked at until the cluster is initialized.
const LOOK: Duration = Duration::from_secs(15);
/// Pause before AgentStatus is looked for again; another task makes it.
const ABSENT: Duration = Duration::from_secs(1);
/// Longest note of a Kubernetes Event is 1 KiB.
const MAX_NOTE: usize = 1000;
/// How much of the annotation counts, bytes; Kubernetes takes 256 KiB.
const MAX_WISH: usize = 256;

/// Why the record can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum InitializationError {
    /// The API server refused or failed.
    #[error("{what} status.initialization of AgentStatus {namespace}/{NAME}")]
    Call {
        /// "read" or "write".
        what: &'static str,
        /// Where.
        namespace: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error(
        "{what} status.initialization of AgentStatus {namespace}/{NAME}: no answer within {} s",
        CALL_DEADLINE.as_secs()
    )]
    Deadline {
        /// "read" or "write".
        what: &'static str,
        /// Where.
        namespace: String,
    },
}

/// Follows it until shutdown.
///
/// # Errors
/// When AgentStatus can't be read or written; the supervisor tries again.
pub async fn run(
    cluster: Cluster,
    mut handles: Handles,
    outcomes: RequestOutcomes,
    shutdown: CancellationToken,
) -> Result<(), InitializationError> {
    let keeper = Keeper { api: cluster.own(), cluster };
    let Some(mut object) = keeper.first(&shutdown).await? else { return Ok(()) };
    let mut kept = object.status.as_ref().and_then(|status| status.initialization.clone());
    let mut record = match kept.as_ref().map(Record::try_from) {
        Some(Ok(record)) => record,
        Some(Err(unknown)) => {
            tracing::warn!(%unknown, "the record of the initialization is begun anew");
            Record::first(Timestamp::now(), wish(&object))
        }
        None => Record::first(Timestamp::now(), wish(&object)),
    };
    let mut sections = handles.reports.subscribe();
    // Not a pause that begins anew with each change: of those there may be one every second.
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut next = record.clone();
        let mut begun = vec![];
        for request in asked(&handles, &outcomes) {
            let asked = next.rerun(&request, Timestamp::now());
            if let Ok(rerun) = &asked {
                next = rerun.clone();
            }
            begun.push((request, asked.map(|rerun| rerun.attempt)));
        }
        let facts = facts(
            &handles.link.borrow_and_update(),
            &handles.standing.borrow_and_update(),
            &sections.borrow_and_update(),
            wish(&object),
        );
        next = next.observe(&facts, Timestamp::now());
        let shown = (&next).into();
        if kept.as_ref() != Some(&shown) {
            object = keeper.write(&shown).await?;
            keeper.tell(&object, (kept.is_some()).then_some(&record), &next).await;
            kept = Some(shown);
        }
        record = next;
        handles.reports.publish(Body::Initialization(record.to_proto()));
        answer(&outcomes, begun);
        let done = record.state == State::Initialized;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = handles.desired.requests.changed() => if changed.is_err() { return Ok(()) },
            changed = handles.link.changed(), if !done => if changed.is_err() { return Ok(()) },
            changed = handles.standing.changed(), if !done => if changed.is_err() { return Ok(()) },
            changed = sections.changed(), if !done => if changed.is_err() { return Ok(()) },
            _ = look.tick(), if !done => {
                if let Some(found) = keeper.read().await? {
                    object = found;
                }
            }
        }
    }
}

/// Requests for a rerun that have no outcome yet.
fn asked(handles: &Handles, outcomes: &RequestOutcomes) -> Vec<String> {
    let wanted = handles.desired.requests.borrow();
    let requests = wanted.iter().flat_map(|section| &section.value.requests);
    requests
        .filter(|r| matches!(r.kind, Some(v1::request::Kind::RerunInitialization(_))))
        .map(|request| request.request_id.clone())
        .filter(|id| !outcomes.is_finished(id))
        .collect()
}

/// Says what became of each request, after what it began is kept.
fn answer(
    outcomes: &RequestOutcomes,
    begun: Vec<(String, Result<u32, mendix_agent_core::initialization::RerunRefused>)>,
) {
    for (request, asked) in begun {
        match asked {
            Ok(attempt) => {
                let message = format!("attempt {attempt} of the initialization began");
                outcomes.finish(&request, v1::Outcome::Succeeded, "", &message, None);
            }
            Err(why) => {
                let (code, message) = (why.code(), why.to_string());
                outcomes.finish(&request, v1::Outcome::Refused, code, &message, None);
            }
        }
    }
}

/// The wish for a rerun. Anybody who may annotate the object writes it, and it is kept in the status.
fn wish(object: &AgentStatus) -> Option<String> {
    let value = object.annotations().get(RERUN)?;
    Some(value[..value.floor_char_boundary(MAX_WISH)].to_owned())
}

fn facts(
    link: &Link,
    standing: &Standing,
    sections: &BTreeMap<v1::Section, Body>,
    rerun: Option<String>,
) -> Facts {
    let preflight = match sections.get(&v1::Section::Preflight) {
        Some(Body::Preflight(report)) => Some(report),
        _ => None,
    };
    let failing = preflight.and_then(|report| {
        let check = report.checks.iter().find(|check| check.result == "Fail")?;
        let detail = format!("{}; {}", check.detail, check.remedy);
        Some(Obstacle { check: check.name.clone(), detail })
    });
    let release = match sections.get(&v1::Section::ReleaseRun) {
        Some(Body::ReleaseRun(run)) => first_release(run),
        _ => FirstRelease::Awaited,
    };
    let (connected, trouble) = match link {
        Link::Connected { .. } => (true, None),
        Link::WaitingForConnection { last_failure } => (false, last_failure.clone()),
        Link::Disconnected { last_failure, .. } => (false, Some(last_failure.clone())),
        Link::Deregistered { reason } => (false, Some(format!("deregistered: {reason}"))),
    };
    let enrolled = matches!(standing, Standing::Enrolled(_));
    Facts { looked: preflight.is_some(), failing, enrolled, connected, trouble, release, rerun }
}

fn first_release(run: &v1::ReleaseRunReport) -> FirstRelease {
    if !run.committed_release.is_empty() {
        return FirstRelease::Committed;
    }
    let place =
        if run.component.is_empty() { String::new() } else { format!(" {}", run.component) };
    let why = if run.message.is_empty() { String::new() } else { format!(": {}", run.message) };
    let text = format!("release {} {}{place}{why}", run.release_id, run.state);
    match run.state.as_str() {
        "Refused" | "RolledBack" | "Held" => FirstRelease::Ended(text),
        _ => FirstRelease::Running(text),
    }
}

/// Where the record is kept.
struct Keeper {
    cluster: Cluster,
    api: Api<AgentStatus>,
}

impl Keeper {
    /// AgentStatus as soon as it has a status; `None` when it is time to stop.
    async fn first(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<AgentStatus>, InitializationError> {
        loop {
            match self.read().await? {
                Some(object) if object.status.is_some() => return Ok(Some(object)),
                _ => tokio::select! {
                    () = tokio::time::sleep(ABSENT) => {}
                    () = shutdown.cancelled() => return Ok(None),
                },
            }
        }
    }

    async fn read(&self) -> Result<Option<AgentStatus>, InitializationError> {
        self.call("read", self.api.get_opt(NAME)).await
    }

    async fn write(
        &self,
        shown: &crate::crd::agent_status::Initialization,
    ) -> Result<AgentStatus, InitializationError> {
        let body = json!({
            "apiVersion": "agent.mendix.com/v1alpha1",
            "kind": "AgentStatus",
            "metadata": { "name": NAME },
            "status": { "initialization": shown },
        });
        let params = PatchParams::apply(MANAGER).force();
        self.call("write", self.api.patch_status(NAME, &params, &Patch::Apply(body))).await
    }

    async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, InitializationError> {
        let namespace = || self.cluster.namespace.clone();
        timeout(CALL_DEADLINE, call)
            .await
            .map_err(|_| InitializationError::Deadline { what, namespace: namespace() })?
            .map_err(|source| InitializationError::Call { what, namespace: namespace(), source })
    }

    /// An Event and a line in the log for each step.
    async fn tell(&self, object: &AgentStatus, before: Option<&Record>, now: &Record) {
        let step = |record: &Record| (record.attempt, record.state, record.phase);
        if before.map(step) == Some(step(now)) {
            return;
        }
        let (attempt, why) = (now.attempt, now.in_words());
        let check = now.obstacle.as_ref().map(|o| format!(" ({})", o.check)).unwrap_or_default();
        let phase = now.phase.word();
        let (occasion, mut note) = match now.state {
            State::Initialized => (
                occasion::INITIALIZED,
                format!("the first release is committed, in attempt {attempt}"),
            ),
            State::Running => {
                (occasion::INITIALIZING, format!("attempt {attempt}, {phase}{check}: {why}"))
            }
            State::Failed => (
                occasion::INITIALIZATION_FAILED,
                format!("attempt {attempt} failed at {phase}{check}: {why}"),
            ),
        };
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        tracing::info!(reason = occasion.reason, attempt, phase, why, "initialization");
        self.cluster.event(&object.object_ref(&()), occasion, note).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_of_any_size_is_kept_in_bounds() {
        let mut object = AgentStatus::new(NAME, Default::default());
        assert_eq!(wish(&object), None);
        object.annotations_mut().insert(RERUN.into(), "é".repeat(100_000));
        let kept = wish(&object).unwrap();
        assert_eq!(kept, "é".repeat(MAX_WISH / 2));
    }
}
