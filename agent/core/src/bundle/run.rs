//! The state machine of a run: carrying out one release, from the offer to its end.
//!
//! ```text
//! Offered → Receiving → Verified → Preflighted → Scheduled → Snapshotted
//!    │           │          │            │            │            │
//!    └───────────┴──── Refused ──────────┴────────────┘            ▼
//!                                            ┌──────────▶ Applying(k) → Gating(k) → Soaking(k)
//!                                            │ k+1             │           │            │
//!                                            └─────────────────┼───────────┼────────────┤ last k
//!                                                              ▼           ▼            ▼
//!                              RolledBack, Postponed ◀── RollingBack(k … 0)           Committed
//!                                        Held ◀──────────────┘
//! ```
//!
//! The machine is pure: [`next`] says which state an event leads to, [`State::step`] what has to be
//! done in a state. The edge persists a state *before* it does the step of that state, so a process
//! that finds a record simply does its step: there is no separate way for resuming. Every step
//! re-reads live state and may be done any number of times.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// The signed index is known; nothing else is.
    Offered,
    /// Blobs are being fetched and verified.
    Receiving,
    /// Every byte is verified and stored in the cluster.
    Verified,
    /// Admission and the server's dry run found nothing.
    Preflighted,
    /// Waits for its time. The last state in which another release may take its place.
    Scheduled,
    /// Pre-images of all it will touch are stored. From here on it ends in [`State::Committed`],
    /// [`State::RolledBack`] or [`State::Held`].
    Snapshotted,
    /// Objects of the component at this place of the plan are being applied.
    Applying(u32),
    /// Waits for that component to become ready.
    Gating(u32),
    /// Watches that it stays ready; after the last component, what is no longer named is pruned.
    Soaking(u32),
    /// Done: this release is what the cluster runs.
    Committed,
    /// That component is being put back; then those before it.
    RollingBack(u32),
    /// All is as it was before; the digest is quarantined.
    RolledBack,
    /// All is as it was before, and the release was not at fault; it is tried again while it is wanted.
    Postponed,
    /// Neither forward nor back is safe; a person or a higher release has to help.
    Held,
    /// Not started; nothing was touched.
    Refused,
}

/// What happened in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Work on the offer begins.
    Started,
    /// All blobs are verified and stored.
    Received,
    /// Admission and dry run found nothing.
    PreflightPassed,
    /// The time at which it may start is known.
    Timed,
    /// It is due and the pre-images are stored.
    PreImagesStored,
    /// The intent is recorded; changes begin.
    Begun,
    /// All objects of the component are applied.
    Applied,
    /// The component is ready.
    Ready,
    /// It stayed ready; for the last component: pruning is done too.
    Soaked,
    /// The component is as before.
    Restored,
    /// Something that trying again will not cure.
    Failed,
    /// The last component to be put back is as before, and what failed was not the release's fault.
    Excused,
    /// The component can't be put back.
    Stuck,
    /// Before anything was touched: the release is not acceptable, or another one is wanted.
    Refused,
    /// A refused or postponed release is wanted again.
    Offered,
}

/// What has to be done in a state. Every step starts from live state and may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Note that work begins.
    Start,
    /// Fetch what is not stored yet, verify it, store it.
    Receive,
    /// Admission, then the server's dry run.
    Preflight,
    /// Find out when it may start.
    Time,
    /// Wait until it is due, then store pre-images.
    Snapshot,
    /// Record what is about to be owned.
    Begin,
    /// Apply this component's objects.
    Apply(u32),
    /// Wait for this component.
    Gate(u32),
    /// Watch this component; after the last one, prune.
    Soak {
        /// Which one.
        component: u32,
        /// Whether it is the last one, so that pruning follows.
        last: bool,
    },
    /// Put this component back.
    Restore(u32),
    /// Nothing: the run has ended.
    None,
}

/// A state and what leads on from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state to persist before anything else is done.
    pub to: State,
}

/// An event that makes no sense in a state; a defect of the caller, or a record that was tampered
/// with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{event:?} can't happen to a run that is {state} ({components} components)")]
pub struct IllegalEvent {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
    /// Components of the plan.
    pub components: u32,
}

/// The state that `event` leads to. `components` is the number of components of the plan (at least
/// one once a release was verified).
///
/// # Errors
/// When the event can't happen in this state.
pub fn next(state: &State, components: u32, event: Event) -> Result<Transition, IllegalEvent> {
    use State as S;
    let to = match (state, event) {
        (S::Offered, Event::Started) => S::Receiving,
        (S::Receiving, Event::Received) => S::Verified,
        (S::Verified, Event::PreflightPassed) => S::Preflighted,
        (S::Preflighted, Event::Timed) => S::Scheduled,
        (S::Scheduled, Event::PreImagesStored) => S::Snapshotted,
        (S::Snapshotted, Event::Begun) if components > 0 => S::Applying(0),
        (S::Applying(k), Event::Applied) if *k < components => S::Gating(*k),
        (S::Gating(k), Event::Ready) if *k < components => S::Soaking(*k),
        (S::Soaking(k), Event::Soaked) if k.saturating_add(1) < components => S::Applying(k + 1),
        (S::Soaking(k), Event::Soaked) if k.saturating_add(1) == components => S::Committed,

        // Nothing is applied yet: the way back is to do nothing.
        (S::Snapshotted, Event::Failed) => S::RolledBack,
        (S::Applying(k) | S::Gating(k) | S::Soaking(k), Event::Failed) if *k < components => {
            S::RollingBack(*k)
        }
        (S::RollingBack(0), Event::Restored) => S::RolledBack,
        (S::RollingBack(0), Event::Excused) => S::Postponed,
        (S::RollingBack(k), Event::Restored) if *k < components => S::RollingBack(k - 1),
        (S::RollingBack(k), Event::Stuck) if *k < components => S::Held,

        (before, Event::Refused) if before.untouched() && !before.ended() => S::Refused,
        (S::Refused | S::Postponed, Event::Offered) => S::Offered,
        _ => return Err(IllegalEvent { state: state.clone(), event, components }),
    };
    Ok(Transition { from: state.clone(), to })
}

impl State {
    /// What has to be done now, on the way or after a restart. `components` as for [`next`].
    pub fn step(&self, components: u32) -> Step {
        match *self {
            Self::Offered => Step::Start,
            Self::Receiving => Step::Receive,
            Self::Verified => Step::Preflight,
            Self::Preflighted => Step::Time,
            Self::Scheduled => Step::Snapshot,
            Self::Snapshotted => Step::Begin,
            Self::Applying(k) => Step::Apply(k),
            Self::Gating(k) => Step::Gate(k),
            Self::Soaking(k) => {
                Step::Soak { component: k, last: k.saturating_add(1) >= components }
            }
            Self::RollingBack(k) => Step::Restore(k),
            Self::Committed | Self::RolledBack | Self::Postponed | Self::Held | Self::Refused => {
                Step::None
            }
        }
    }

    /// Whether the run has ended.
    pub fn ended(&self) -> bool {
        matches!(
            self,
            Self::Committed | Self::RolledBack | Self::Postponed | Self::Held | Self::Refused
        )
    }

    /// Whether a run that ended so begins anew when its release is wanted again.
    pub fn is_offered_again(&self) -> bool {
        matches!(self, Self::Refused | Self::Postponed)
    }

    /// Whether no object of the release can have been changed yet.
    pub fn untouched(&self) -> bool {
        matches!(
            self,
            Self::Offered
                | Self::Receiving
                | Self::Verified
                | Self::Preflighted
                | Self::Scheduled
                | Self::Refused
        )
    }

    /// Whether this end bars the same digest from being tried again.
    pub fn quarantines(&self) -> bool {
        matches!(self, Self::RolledBack | Self::Held)
    }

    /// Place of the component being worked on, if it is about one.
    pub fn component(&self) -> Option<u32> {
        match *self {
            Self::Applying(k) | Self::Gating(k) | Self::Soaking(k) | Self::RollingBack(k) => {
                Some(k)
            }
            _ => None,
        }
    }

    /// Its name, as objects and reports show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offered => "Offered",
            Self::Receiving => "Receiving",
            Self::Verified => "Verified",
            Self::Preflighted => "Preflighted",
            Self::Scheduled => "Scheduled",
            Self::Snapshotted => "Snapshotted",
            Self::Applying(_) => "Applying",
            Self::Gating(_) => "Gating",
            Self::Soaking(_) => "Soaking",
            Self::Committed => "Committed",
            Self::RollingBack(_) => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Postponed => "Postponed",
            Self::Held => "Held",
            Self::Refused => "Refused",
        }
    }

    /// The state that a record's name and component index stand for; none if they stand for none.
    pub fn parse(name: &str, component: Option<u32>) -> Option<Self> {
        Some(match (name, component) {
            ("Offered", None) => Self::Offered,
            ("Receiving", None) => Self::Receiving,
            ("Verified", None) => Self::Verified,
            ("Preflighted", None) => Self::Preflighted,
            ("Scheduled", None) => Self::Scheduled,
            ("Snapshotted", None) => Self::Snapshotted,
            ("Applying", Some(k)) => Self::Applying(k),
            ("Gating", Some(k)) => Self::Gating(k),
            ("Soaking", Some(k)) => Self::Soaking(k),
            ("Committed", None) => Self::Committed,
            ("RollingBack", Some(k)) => Self::RollingBack(k),
            ("RolledBack", None) => Self::RolledBack,
            ("Postponed", None) => Self::Postponed,
            ("Held", None) => Self::Held,
            ("Refused", None) => Self::Refused,
            _ => return None,
        })
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.component() {
            Some(k) => write!(f, "{}({k})", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// What to do about a release that the control plane wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing is known about this digest: a new run.
    New,
    /// Its run goes on, or starts over after it was refused or postponed.
    Resume,
    /// It is what the cluster runs, or ran.
    Done,
    /// It failed here; only a release with another digest is tried.
    Quarantined,
}

/// What to do about a wanted release, given the state of the run with the same digest, if there is
/// one. Sequences are the admission's business, not this function's.
pub fn offer(same_digest: Option<&State>) -> Offer {
    match same_digest {
        None => Offer::New,
        Some(State::Committed) => Offer::Done,
        Some(state) if state.quarantines() => Offer::Quarantined,
        Some(_) => Offer::Resume,
    }
}

#[cfg(test)]
mod tests;
