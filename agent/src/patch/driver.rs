//! Carries out a run: does the step of its state, asks the state machine where that leads, persists
//! the answer, and goes on. A restarted process finds the record and does the same.
//!
//! The state is persisted before its step is done, and every step starts from live state, so it
//! makes no difference at which instant a process dies.

mod components;
mod plan;
mod receive;
mod schedule;
mod step;
mod transition;
mod upgrade;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use mendix_agent_core::bundle::run::{Event, IllegalEvent, State};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::{
    contents::Contents,
    failure::{CallError, StepError},
    live::Live,
    records::{Records, state_of},
    report::{Reporter, cut, summary},
    supply::Supply,
};
use crate::{cluster::Cluster, crd::patch_bundle::PatchBundle, upgrade::Own};

/// Longest sleep while a release waits for its time: the wall clock may be set meanwhile.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// What admission is told about this agent.
#[derive(Clone)]
pub struct Identity {
    /// Version of the running agent.
    pub agent_version: String,
    /// Tells the release ring that was set at enrolment; empty: none. Asked at each admission, since
    /// drift is put back before there is an identity and enrolment may set another ring.
    pub ring: Arc<dyn Fn() -> String + Send + Sync>,
    /// What this process knows of its own upgrade; none where releases don't upgrade it.
    pub own: Option<Own>,
}

/// Why a run was left where it is.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The agent is stopping; the next process goes on.
    #[error("the agent is stopping")]
    Stopped,
    /// The record can't be read or written as it has to be.
    #[error("the record of release {release}")]
    Record {
        /// The release.
        release: String,
        /// The cause.
        #[source]
        source: Box<CallError>,
    },
    /// The record holds a state that this build does not know.
    #[error("the record of release {release} is in state {state:?}, which this agent doesn't know")]
    UnknownState {
        /// The release.
        release: String,
        /// What the record says.
        state: String,
    },
    /// A defect.
    #[error("release {release}")]
    Illegal {
        /// The release.
        release: String,
        /// The cause.
        #[source]
        source: IllegalEvent,
    },
}

/// How often this process has announced a run on each component. Under its term nobody else announces
/// one, so whoever knows the count of the moment before it read the records knows of every run since.
pub(super) type Announced = BTreeMap<String, u64>;

/// Carries out runs, one at a time.
#[derive(Clone)]
pub struct Driver {
    pub(super) cluster: Cluster,
    pub(super) live: Live,
    pub(super) contents: Contents,
    pub(super) records: Records,
    pub(super) reporter: Reporter,
    /// Held for reading while an object is put back, for writing while a run announces itself: after
    /// that, drift correction leaves the run's components alone.
    pub(super) corrections: Arc<RwLock<Announced>>,
    pub(super) identity: Identity,
}

/// What a step led to.
struct Done {
    event: Event,
    note: Note,
}

/// What is recorded along with a transition.
#[derive(Default)]
struct Note {
    reason: Option<&'static str>,
    message: Option<String>,
    refusals: Vec<String>,
    due_at: Option<Timestamp>,
    pre_images: Option<String>,
    blobs: Option<Vec<String>>,
}

impl Done {
    fn on(event: Event) -> Self {
        Self { event, note: Note::default() }
    }

    fn because(event: Event, reason: &'static str, message: String) -> Self {
        let message = Some(cut(&message));
        Self { event, note: Note { reason: Some(reason), message, ..Default::default() } }
    }

    fn refused(refusals: Vec<String>) -> Self {
        let mut done = Self::because(Event::Refused, "Refused", summary(&refusals));
        done.note.refusals = refusals;
        done
    }
}

impl Driver {
    /// A driver for this cluster.
    pub fn new(cluster: Cluster, reporter: Reporter, identity: Identity) -> Self {
        Self {
            live: Live::new(&cluster),
            contents: Contents::new(&cluster),
            records: Records::new(&cluster),
            cluster,
            reporter,
            corrections: Arc::default(),
            identity,
        }
    }

    /// Carries a run on to its end. `given_up` is cancelled when another release is wanted; that
    /// ends the run as long as nothing was touched.
    ///
    /// # Errors
    /// See [`DriveError`]; the record then says where to go on.
    pub async fn drive(
        &self,
        mut bundle: PatchBundle,
        supply: &dyn Supply,
        given_up: &CancellationToken,
        cancel: &CancellationToken,
    ) -> Result<PatchBundle, DriveError> {
        let components = u32::try_from(bundle.spec.components.len()).unwrap_or(u32::MAX);
        loop {
            let state = self.state(&bundle)?;
            if state.ended() {
                return Ok(bundle);
            }
            self.reporter.run(&bundle, None);
            let paused = |error: Option<&CallError>| {
                if let Some(error) = error {
                    tracing::warn!(error = error.line(), "the run waits");
                }
                self.reporter
                    .run(&bundle, error.map(|error| cut(&format!("waits: {}", error.line()))));
            };
            let step = state.step(components);
            let step = Box::pin(self.step(&bundle, step, supply, &paused, cancel));
            let done = if state.untouched() {
                tokio::select! {
                    done = step => done,
                    () = given_up.cancelled() => Ok(Done::because(
                        Event::Refused,
                        "Superseded",
                        "another release is wanted".into(),
                    )),
                }
            } else {
                step.await
            };
            let done = match done {
                Ok(done) => done,
                Err(StepError::Stopped) => return Err(DriveError::Stopped),
                Err(StepError::Call(error)) => failed(&state, &error),
            };
            bundle = self.enter(bundle, &state, components, done, cancel).await?;
        }
    }

    fn state(&self, bundle: &PatchBundle) -> Result<State, DriveError> {
        state_of(bundle).ok_or_else(|| DriveError::UnknownState {
            release: bundle.spec.release_id.clone(),
            state: bundle.status.as_ref().map(|s| s.state.clone()).unwrap_or_default(),
        })
    }
}

/// What a failure that stays means in a state.
fn failed(state: &State, error: &CallError) -> Done {
    match state {
        State::RollingBack(_) => Done::because(Event::Stuck, "CannotRestore", error.line()),
        state if state.untouched() => {
            Done::refused(vec![format!("ServerRefused: {}", error.line())])
        }
        _ => Done::because(Event::Failed, "ApplyFailed", error.line()),
    }
}
