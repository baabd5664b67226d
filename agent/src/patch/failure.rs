//! What a failed call to the Kubernetes API means for a run: wait, give way, or give up.
//!
//! Judged by `reason` and `details.causes`, not by the status code alone: the API server answers 500
//! both for a webhook that is down (it passes) and for an unknown field (it never does).

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kube::core::Status;
use mendix_agent_core::bundle::{foundation::FOUNDATION_COMPONENT, object::ObjectId};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::CALL_DEADLINE;

/// Longest wait for what usually passes but may never (a webhook that is down, a namespace that is
/// being deleted, a write conflict). Then the run fails.
pub const BLOCKED_PATIENCE: Duration = Duration::from_secs(120);
/// How long rights that an earlier release has just brought may take until every API server knows them:
/// each learns of roles by watches, within a second where nothing else is wrong.
pub const RIGHTS_ARRIVE_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between attempts, growing from the first to the second, with jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The API server can't be reached, is overloaded, or a quota or etcd is full: nothing is wrong
    /// with the release. Waited for without limit.
    Outage,
    /// Something is in the way that usually passes. Waited for up to [`BLOCKED_PATIENCE`].
    Blocked,
    /// A field that can't be changed in place.
    Immutable,
    /// Trying again gives the same answer.
    Refused,
}

/// A failed call about one object.
#[derive(Debug, Error)]
#[error("{action} {object}")]
pub struct CallError {
    /// What was tried, such as `apply`.
    pub action: &'static str,
    /// `Kind namespace/name`, or whatever the call was about.
    pub object: String,
    /// What it means.
    pub meaning: Meaning,
    /// The cause.
    #[source]
    pub cause: CallCause,
}

/// The cause of a [`CallError`].
#[derive(Debug, Error)]
pub enum CallCause {
    /// No answer in time.
    #[error("no answer from the Kubernetes API within {} s", CALL_DEADLINE.as_secs())]
    Deadline,
    /// The API server refused, or could not be reached.
    #[error("{}", plain(.0))]
    Api(kube::Error),
    /// The kind is not served.
    #[error("the API server doesn't serve {0}")]
    NoSuchKind(String),
    /// The object is on its way out.
    #[error("it is being deleted")]
    Terminating,
    /// The object exists and nobody said that it may be taken over.
    #[error("it exists already, and the release doesn't say that component {0} may adopt it")]
    NotOurs(String),
    /// The cluster is not as it has to be; the text says how.
    #[error("{0}")]
    Found(String),
    /// What the server sent is not what was asked for.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

impl CallError {
    /// A failure of a call about `object`.
    pub fn new(action: &'static str, object: &ObjectId, cause: CallCause) -> Self {
        Self::about(action, object.to_string(), cause)
    }

    /// As [`Self::new`], for what is not an object of a release.
    pub fn about(action: &'static str, object: String, cause: CallCause) -> Self {
        let meaning = match &cause {
            CallCause::Deadline => Meaning::Outage,
            CallCause::Api(error) => meaning(error),
            CallCause::NoSuchKind(_) | CallCause::Terminating => Meaning::Blocked,
            CallCause::NotOurs(_) | CallCause::Found(_) | CallCause::Answer(_) => Meaning::Refused,
        };
        Self { action, object, meaning, cause }
    }

    /// Whether the API server said that somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        matches!(&self.cause, CallCause::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// Whether the server can't read what the object's managedFields say, since an entry is in a version
    /// of the kind that is served no more (measured on 1.20.2: 500; newer servers leave it out).
    pub fn is_stale_version(&self) -> bool {
        matches!(&self.cause, CallCause::Api(kube::Error::Api(status))
            if status.code == 500 && status.message.contains("to an invalid group/version"))
    }

    /// Whether the agent lacks the rights for the call.
    pub fn lacks_rights(&self) -> bool {
        matches!(&self.cause, CallCause::Api(kube::Error::Api(status)) if lacks_rights(status))
    }

    /// The whole chain in one line, for messages that people read.
    pub fn line(&self) -> String {
        format!("{self}: {}", self.cause)
    }
}

/// One line without the debug form that kube's own Display adds. Values of Secrets don't appear in
/// it: the API server names fields, and cuts the values it quotes from other kinds.
fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => {
            status.message.chars().take(512).collect()
        }
        kube::Error::Api(status) => format!("status {} {}", status.code, status.reason),
        other => {
            let mut line = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_line = cause.to_string();
                if !line.contains(&cause_line) {
                    line = format!("{line}: {cause_line}");
                }
                source = cause.source();
            }
            line
        }
    }
}

fn meaning(error: &kube::Error) -> Meaning {
    match error {
        kube::Error::Api(status) => of_status(status),
        kube::Error::HyperError(_)
        | kube::Error::Service(_)
        | kube::Error::ReadEvents(_)
        | kube::Error::Auth(_) => Meaning::Outage,
        kube::Error::Discovery(_) => Meaning::Blocked,
        _ => Meaning::Refused,
    }
}

fn of_status(status: &Status) -> Meaning {
    let says = |text: &str| status.message.contains(text);
    let caused = |reason: &str| {
        status.details.iter().flat_map(|details| &details.causes).any(|c| c.reason == reason)
    };
    match status.code {
        // An expired token of a pod is replaced within a minute.
        401 | 408 | 429 | 502 | 503 | 504 => Meaning::Outage,
        403 if caused("NamespaceTerminating") => Meaning::Blocked,
        403 if says("exceeded quota") => Meaning::Outage,
        // Rights of the agent that were taken away; whoever did so may give them back.
        403 if lacks_rights(status) => Meaning::Blocked,
        // The namespace, or the kind, is not there (any more); both may come back.
        404 | 409 => Meaning::Blocked,
        422 if is_immutable(status) => Meaning::Immutable,
        500 if says("request is too large") => Meaning::Refused,
        500 if says("failed calling webhook") => Meaning::Blocked,
        500 if says("etcdserver:") || says("context deadline exceeded") => Meaning::Outage,
        _ => Meaning::Refused,
    }
}

/// RBAC's own words: `User "…" cannot patch resource "…" in API group "…"`. Admission plugins, which
/// also answer 403, say other things.
fn lacks_rights(status: &Status) -> bool {
    status.reason == "Forbidden" && status.message.contains("\" cannot ")
}

fn is_immutable(status: &Status) -> bool {
    const SAYINGS: [&str; 4] =
        ["field is immutable", "may not change once set", "cannot change roleRef", "is immutable"];
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut texts = causes.map(|cause| &cause.message).chain([&status.message]);
    texts.any(|text| SAYINGS.iter().any(|saying| text.contains(saying)))
}

/// Why a step of a run ended without its result.
#[derive(Debug, Error)]
pub enum StepError {
    /// The agent is stopping; the next process goes on.
    #[error("the agent is stopping")]
    Stopped,
    /// Trying again will not help.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Tries a call until it succeeds, the failure is one that stays, or the agent stops. `paused` is
/// told what is being waited for, and `None` when it goes on.
///
/// # Errors
/// See [`StepError`].
pub async fn patiently<T, F>(
    cancel: &CancellationToken,
    paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
    mut call: impl FnMut() -> F,
) -> Result<T, StepError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut pauses = pauses();
    let mut blocked_since: Option<Instant> = None;
    let mut waited = false;
    loop {
        let result = tokio::select! {
            () = cancel.cancelled() => return Err(StepError::Stopped),
            result = call() => result,
        };
        let error = match result {
            Ok(value) => {
                if waited {
                    paused(None);
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        match error.meaning {
            Meaning::Outage => blocked_since = None,
            Meaning::Blocked => {
                let since = *blocked_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= BLOCKED_PATIENCE {
                    return Err(error.into());
                }
            }
            Meaning::Immutable | Meaning::Refused => return Err(error.into()),
        }
        paused(Some(&error));
        waited = true;
        let pause = pauses.next().unwrap_or(PAUSES.1);
        tokio::select! {
            () = cancel.cancelled() => return Err(StepError::Stopped),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// As [`patiently`], for what is asked before anything is touched: there is no reason to wait for rights any
/// longer than they take to arrive.
///
/// # Errors
/// See [`StepError`].
pub async fn promptly<T, F>(
    cancel: &CancellationToken,
    paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
    mut call: impl FnMut() -> F,
) -> Result<T, StepError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let began = Instant::now();
    patiently(cancel, paused, || {
        let answer = call();
        async move {
            answer.await.map_err(|error| {
                match error.lacks_rights() && began.elapsed() >= RIGHTS_ARRIVE_WITHIN {
                    true => CallError { meaning: Meaning::Refused, ..error },
                    false => error,
                }
            })
        }
    })
    .await
}

/// The refusal of a component for want of rights, with the next step.
pub fn rights_missing(component: &str, error: &CallError) -> String {
    format!(
        "RightsMissing: {component}: {}. Bring the right in an earlier release, in component {FOUNDATION_COMPONENT}; a first one \
         needs the rights that come with the installation of this version",
        error.line()
    )
}

/// Endless pauses between attempts.
pub fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn status(code: u16, message: &str, cause: (&str, &str)) -> Status {
        let causes = vec![StatusCause {
            reason: cause.0.into(),
            message: cause.1.into(),
            field: String::new(),
        }];
        Status {
            code,
            message: message.into(),
            details: Some(StatusDetails {
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes,
                retry_after_seconds: 0,
            }),
            ..Default::default()
        }
    }

    /// As measured against API servers; see the taxonomy in the design.
    #[test]
    fn answers_of_the_api_server_mean_what_they_were_measured_to_mean() {
        let none = ("", "");
        for (meaning, status) in [
            (Meaning::Outage, status(503, "apiserver is shutting down", none)),
            (Meaning::Outage, status(504, "the server was unable to return a response", none)),
            (Meaning::Outage, status(429, "too many requests", none)),
            (Meaning::Outage, status(403, "pods \"x\" is forbidden: exceeded quota: q", none)),
            (Meaning::Outage, status(500, "etcdserver: mvcc: database space exceeded", none)),
            (Meaning::Blocked, status(403, "being terminated", ("NamespaceTerminating", ""))),
            (Meaning::Blocked, status(500, "failed calling webhook \"x\"", none)),
            (Meaning::Blocked, status(409, "the object has been modified", none)),
            (
                Meaning::Immutable,
                status(422, "Job is invalid", ("FieldValueInvalid", "field is immutable")),
            ),
            (
                Meaning::Immutable,
                status(
                    422,
                    "RoleBinding is invalid",
                    ("FieldValueInvalid", "cannot change roleRef"),
                ),
            ),
            (
                Meaning::Refused,
                status(422, "is invalid", ("FieldValueForbidden", "spec is forbidden")),
            ),
            (Meaning::Refused, status(500, "field not declared in schema", none)),
            (Meaning::Refused, status(500, "etcdserver: request is too large", none)),
            (Meaning::Refused, status(403, "denied by policy", none)),
        ] {
            assert_eq!(of_status(&status), meaning, "{}", status.message);
        }
    }

    fn error(code: u16) -> CallError {
        let cause = CallCause::Api(kube::Error::Api(status(code, "x", ("", "")).boxed()));
        CallError::about("apply", "ConfigMap a/b".into(), cause)
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_an_hour_is_waited_for() {
        let start = Instant::now();
        let cancel = CancellationToken::new();
        let result = patiently(&cancel, &|_| {}, || async {
            if start.elapsed() < Duration::from_secs(3600) { Err(error(503)) } else { Ok(1) }
        });
        assert_eq!(result.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_in_the_way_is_given_up_after_its_patience() {
        let start = Instant::now();
        let result: Result<(), _> =
            patiently(&CancellationToken::new(), &|_| {}, || async { Err(error(409)) }).await;
        assert!(matches!(result, Err(StepError::Call(_))));
        assert!(start.elapsed() >= BLOCKED_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn rights_that_are_just_arriving_are_waited_for_before_anything_is_touched() {
        let lacks = || {
            let mut status =
                status(403, "User \"agent\" cannot patch resource \"roles\"", ("", ""));
            status.reason = "Forbidden".into();
            let cause = CallCause::Api(kube::Error::Api(status.boxed()));
            CallError::about("dry-run", "Role a/b".into(), cause)
        };
        let (cancel, start) = (CancellationToken::new(), Instant::now());
        let arrives = promptly(&cancel, &|_| {}, || async {
            if start.elapsed() < RIGHTS_ARRIVE_WITHIN / 2 { Err(lacks()) } else { Ok(1) }
        });
        assert_eq!(arrives.await.unwrap(), 1);
        let start = Instant::now();
        let never: Result<(), _> = promptly(&cancel, &|_| {}, || async { Err(lacks()) }).await;
        let Err(StepError::Call(error)) = never else { panic!("it never had the right") };
        assert!(rights_missing("c", &error).starts_with("RightsMissing: c: dry-run Role a/b: "));
        assert!(start.elapsed() < BLOCKED_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated_and_a_stop_is_no_failure() {
        let calls = std::cell::Cell::new(0);
        let result: Result<(), _> = patiently(&CancellationToken::new(), &|_| {}, || async {
            calls.set(calls.get() + 1);
            Err(error(422))
        })
        .await;
        assert!(matches!(result, Err(StepError::Call(_))));
        assert_eq!(calls.get(), 1);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let result: Result<(), _> = patiently(&cancel, &|_| {}, || async { Err(error(503)) }).await;
        assert!(matches!(result, Err(StepError::Stopped)));
    }
}
