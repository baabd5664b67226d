//! The trial of a new agent: the last component of a release is the agent itself, and what replaced
//! the process that would have to undo it can't be undone by that process.
//!
//! ```text
//!            agent                guard                     agent, of the new version
//!   ─────▶ Proposed ───────────▶ Trial ────────────────────────────▶ Committed
//!             │ agent              │ guard
//!             ▼                    ▼
//!         Withdrawn            Reverting ──── guard ────▶ Reverted
//! ```
//!
//! One object holds the phase, and every step is a compare-and-swap on it: [`may`] says whose step it
//! is, so that commit and revert can't both happen. The Deployment of the agent is written by two
//! parties; a write of the agent that was decided before the guard reverted must not land after it. So
//! the agent reads the Deployment *before* it reads the phase, and writes only what it read
//! ([`rolls_out`]); the guard always writes the Deployment when it reverts, also where nothing has to
//! be put back ([`Restoration`]). `upgrade/exploration.rs` tries every interleaving.

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// How long the guard watches before it acts on a deadline that passed while it was away: after an
/// outage of the node, the agent gets that long to show itself. Never longer than the trial.
pub const GRACE: Duration = Duration::from_secs(120);
/// Restarts of one container of the new version that end its trial.
pub const MAX_RESTARTS: u32 = 3;
/// Times that the Lease may change hands during a trial. A good rollout of two replicas takes up to
/// three; a node that is drained meanwhile two more.
pub const MAX_HANDOVERS: u32 = 8;
/// How long the agent waits for the guard to take up a proposal, after which it is withdrawn. Never
/// longer than the trial.
pub const GUARD_ANSWERS: Duration = Duration::from_secs(120);
/// How long an agent that finds its successor reverted looks for a session of its own before it
/// holds the network at fault. Never longer than the trial was.
pub const BLAME_PATIENCE: Duration = Duration::from_secs(180);

/// How far a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The agent wants it; nothing is changed before the guard watches.
    Proposed,
    /// The guard watches; the new version may be rolled out, and has to prove itself.
    Trial,
    /// The new version has proved itself. It stays.
    Committed,
    /// It has not. The guard is putting the former one back.
    Reverting,
    /// The former version is back.
    Reverted,
    /// No guard took it up; nothing was changed.
    Withdrawn,
}

/// Who wants to change the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The agent, of either version.
    Agent,
    /// The guard.
    Guard,
}

/// Whether this party may make this step.
pub fn may(party: Party, from: Phase, to: Phase) -> bool {
    use Phase as P;
    matches!(
        (party, from, to),
        (Party::Agent, P::Proposed, P::Withdrawn)
            | (Party::Agent, P::Trial, P::Committed)
            | (Party::Guard, P::Proposed, P::Trial)
            | (Party::Guard, P::Trial, P::Reverting)
            | (Party::Guard, P::Reverting, P::Reverted)
    )
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Proposed,
        Self::Trial,
        Self::Committed,
        Self::Reverting,
        Self::Reverted,
        Self::Withdrawn,
    ];

    /// Its name in the object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "Proposed",
            Self::Trial => "Trial",
            Self::Committed => "Committed",
            Self::Reverting => "Reverting",
            Self::Reverted => "Reverted",
            Self::Withdrawn => "Withdrawn",
        }
    }

    /// The phase of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Whether nothing comes after it.
    pub fn ended(self) -> bool {
        matches!(self, Self::Committed | Self::Reverted | Self::Withdrawn)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the guard ended a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nobody committed in time: it hangs, can't connect, can't read its state, or never became ready.
    DeadlinePassed,
    /// Its process ends again and again.
    CrashLoop,
    /// The Lease wanders between its replicas.
    Flapping,
}

impl Cause {
    /// Its code in the object.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadlinePassed => "DeadlinePassed",
            Self::CrashLoop => "CrashLoop",
            Self::Flapping => "Flapping",
        }
    }

    /// The cause of this code. One that this build does not know is taken for the deadline.
    pub fn parse(name: &str) -> Self {
        match name {
            "CrashLoop" => Self::CrashLoop,
            "Flapping" => Self::Flapping,
            _ => Self::DeadlinePassed,
        }
    }
}

/// What the guard sees of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its phase.
    pub phase: Phase,
    /// The wall clock.
    pub now: Timestamp,
    /// Until when the new version has to commit; none before the trial begins.
    pub deadline: Option<Timestamp>,
    /// How long a trial lasts.
    pub lasts: Duration,
    /// For how long this guard's process has watched it, by a clock that nobody sets.
    pub watched: Duration,
    /// Most restarts of one container of the new version.
    pub restarts: u32,
    /// How often the Lease has changed hands since the trial began.
    pub handovers: u32,
}

/// What the guard does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Nothing.
    Rest,
    /// Set the deadline: `Proposed` to `Trial`.
    Begin,
    /// `Trial` to `Reverting`.
    Revert(Cause),
    /// Put the Deployment back, then `Reverting` to `Reverted`.
    Restore,
}

/// What the guard does about what it sees.
pub fn guard(look: &Look) -> Move {
    match look.phase {
        Phase::Proposed => Move::Begin,
        Phase::Reverting => Move::Restore,
        Phase::Committed | Phase::Reverted | Phase::Withdrawn => Move::Rest,
        Phase::Trial if look.restarts >= MAX_RESTARTS => Move::Revert(Cause::CrashLoop),
        Phase::Trial if look.handovers > MAX_HANDOVERS => Move::Revert(Cause::Flapping),
        Phase::Trial if is_over(look) => Move::Revert(Cause::DeadlinePassed),
        Phase::Trial => Move::Rest,
    }
}

/// The wall clock says so after a restart of the guard; a clock that was set back is overruled by the
/// time that this process has watched.
fn is_over(look: &Look) -> bool {
    let passed = look.deadline.is_none_or(|deadline| look.now >= deadline);
    look.watched >= look.lasts || (passed && look.watched >= GRACE.min(look.lasts))
}

/// What the guard does to the Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Restoration {
    /// The new version is rolled out: put the former one back, and mark the Deployment.
    PutBack,
    /// It is not, or somebody has replaced it by hand: only mark it, so that a write which was decided
    /// before can't land any more.
    Mark,
    /// It is marked already.
    Done,
}

/// What has to be done to a Deployment whose pods are those of this trial (`of_trial`) and that bears
/// this trial's mark (`marked`).
pub fn restoration(of_trial: bool, marked: bool) -> Restoration {
    match (of_trial, marked) {
        (true, _) => Restoration::PutBack,
        (false, false) => Restoration::Mark,
        (false, true) => Restoration::Done,
    }
}

/// Whether the agent may write the new version into the Deployment that it read before it read
/// `phase`.
pub fn rolls_out(phase: Phase) -> bool {
    phase == Phase::Trial
}

/// What an agent that leads can say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether this process is the version on trial.
    pub is_new: bool,
    /// Whether it could read all of its state, and all its tasks run.
    pub has_state: bool,
    /// For how long it has had a session with the control plane.
    pub session: Option<Duration>,
}

/// What the leader makes of a trial that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again; the text says for what.
    Wait(&'static str),
    /// This process is the new version and has proved itself: `Trial` to `Committed`.
    Commit,
    /// The new version stays.
    Passed,
    /// The former version is back, or nothing was changed.
    Over,
}

/// What the leader does about a trial. A new version has to hold a session for `hold` on end.
pub fn agent(phase: Phase, standing: &Standing, hold: Duration) -> Verdict {
    match phase {
        Phase::Committed => Verdict::Passed,
        // Whose fault it was is for the former version to find.
        Phase::Reverted if standing.is_new => Verdict::Wait("the former version to lead"),
        Phase::Reverted | Phase::Withdrawn => Verdict::Over,
        Phase::Proposed => Verdict::Wait("the guard"),
        Phase::Reverting => Verdict::Wait("the guard, which puts the former version back"),
        Phase::Trial if !standing.is_new => Verdict::Wait("the new version to lead"),
        Phase::Trial if !standing.has_state => Verdict::Wait("the agent's state to be read"),
        Phase::Trial => match standing.session {
            Some(held) if held >= hold => Verdict::Commit,
            Some(_) => Verdict::Wait("the session to have held for long enough"),
            None => Verdict::Wait("a session with the control plane"),
        },
    }
}

/// Whose fault a reverted trial was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The version's: its release is quarantined.
    Version,
    /// Not the version's: the former one can't connect either. It is tried again.
    Network,
    /// Not known yet.
    Open,
}

/// Whose fault it was, found by the agent after it: whether it has a session (`connected`), and for
/// how long it has looked for one. `lasts` is how long the trial could last.
pub fn blame(cause: Cause, connected: bool, looked: Duration, lasts: Duration) -> Blame {
    match cause {
        // A process that ends by itself does so without the network's help.
        Cause::CrashLoop => Blame::Version,
        Cause::DeadlinePassed | Cause::Flapping if connected => Blame::Version,
        Cause::DeadlinePassed | Cause::Flapping if looked >= BLAME_PATIENCE.min(lasts) => {
            Blame::Network
        }
        Cause::DeadlinePassed | Cause::Flapping => Blame::Open,
    }
}

#[cfg(test)]
mod exploration;
#[cfg(test)]
mod tests;
