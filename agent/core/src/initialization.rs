//! Initialization: how far a cluster has come from the agent's first start to its first committed
//! release. Nobody is there to look, so what it waits for, and what failed, is kept and told.
//!
//! [`Record`] is what is kept (in AgentStatus) and reported. Nothing here makes anything happen: the
//! agent goes on trying after an attempt has failed, and a release that is committed in the end makes
//! the cluster initialized. An attempt that failed can be run again, by a person in the cluster or by
//! a request of the control plane; when that fails, too, the agent asks for an automatic ticket.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_proto::v1;

/// How long an attempt may take before it has failed: twice the quarter of an hour that people are
/// told it takes.
pub const ATTEMPT: Duration = Duration::from_secs(30 * 60);
/// The attempt from which on a failure asks for a ticket: the first rerun.
const TICKET_FROM: u32 = 2;
/// Longest message that is kept, bytes.
const MAX_MESSAGE: usize = 1024;

/// What an initialization goes through, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first look at network, cluster and rights.
    Preflight,
    /// Getting an identity.
    Enrollment,
    /// The first session.
    Connection,
    /// The first release.
    FirstRelease,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 4] =
        [Self::Preflight, Self::Enrollment, Self::Connection, Self::FirstRelease];

    /// The word in objects and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Preflight => "Preflight",
            Self::Enrollment => "Enrollment",
            Self::Connection => "Connection",
            Self::FirstRelease => "FirstRelease",
        }
    }
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Running,
    /// It took too long, or its release was refused or undone.
    Failed,
    /// A release is committed. Final.
    Initialized,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Failed, Self::Initialized];

    /// The word in objects and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Failed => "Failed",
            Self::Initialized => "Initialized",
        }
    }
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The check that fails: one of preflight, or "release".
    pub check: String,
    /// What was seen, and what to do.
    pub detail: String,
}

/// How far the first release is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstRelease {
    /// None was offered.
    Awaited,
    /// On its way; what it does.
    Running(String),
    /// It was refused, undone or held; why.
    Ended(String),
    /// It runs.
    Committed,
}

/// What the agent sees of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Preflight has had its first look.
    pub looked: bool,
    /// What preflight found to fail, if it did.
    pub failing: Option<Obstacle>,
    /// There is an identity.
    pub enrolled: bool,
    /// There is a session.
    pub connected: bool,
    /// Why there is none, as far as it is known.
    pub trouble: Option<String>,
    /// The release.
    pub release: FirstRelease,
    /// What a person wrote into the object to have a failed attempt run again; any other value than
    /// the last one is a wish.
    pub rerun: Option<String>,
}

/// The installation so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 1 is the installation, each rerun counts one up.
    pub attempt: u32,
    /// What has become of it.
    pub state: State,
    /// What it waits for, or failed at.
    pub phase: Phase,
    /// What stands in the way.
    pub obstacle: Option<Obstacle>,
    /// What it does at the moment; empty when there is nothing to say.
    pub message: String,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The wish for a rerun that was seen last.
    pub rerun: Option<String>,
    /// The control plane's request that began this attempt.
    pub request: Option<String>,
}

/// Why a request for a rerun is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerunRefused {
    /// The attempt goes on.
    #[error("attempt {0} still runs; it ends within half an hour of its start")]
    StillRunning(u32),
    /// There is nothing to run again.
    #[error("the cluster is initialized; to apply its release again place a recover request")]
    Initialized,
}

impl RerunRefused {
    /// Reason code of the outcome.
    pub fn code(self) -> &'static str {
        match self {
            Self::StillRunning(_) => "StillRunning",
            Self::Initialized => "AlreadyInitialized",
        }
    }
}

impl Record {
    /// The first attempt. A wish for a rerun that is there already is none.
    pub fn first(now: Timestamp, rerun: Option<String>) -> Self {
        Self {
            attempt: 1,
            state: State::Running,
            phase: Phase::Preflight,
            obstacle: None,
            message: String::new(),
            started_at: now,
            ended_at: None,
            rerun,
            request: None,
        }
    }

    fn next(&self, now: Timestamp) -> Self {
        Self { attempt: self.attempt.saturating_add(1), ..Self::first(now, self.rerun.clone()) }
    }

    /// What it is after these facts. Seeing the same facts again changes nothing.
    #[must_use]
    pub fn observe(&self, facts: &Facts, now: Timestamp) -> Self {
        if self.state == State::Initialized {
            return self.clone();
        }
        if facts.release == FirstRelease::Committed {
            let started_at = self.started_at.min(now);
            return Self {
                state: State::Initialized,
                phase: Phase::FirstRelease,
                obstacle: None,
                message: String::new(),
                started_at,
                ended_at: Some(now),
                ..self.clone()
            };
        }
        let mut record = self.clone();
        if record.state == State::Failed {
            if facts.rerun.is_none() || facts.rerun == record.rerun {
                return record;
            }
            record = record.next(now);
        }
        // Also while an attempt runs: a wish that was written then does not begin another one later.
        record.rerun = facts.rerun.clone().or(record.rerun);
        // A clock that was set back must not make an attempt endless.
        record.started_at = record.started_at.min(now);
        record.phase = phase(facts);
        (record.obstacle, record.message) = situation(facts, record.phase);
        // A process that has only begun to look does not know yet what stands in the way.
        let late = record.remaining(now).is_zero() && (facts.looked || facts.connected);
        let ended = matches!(facts.release, FirstRelease::Ended(_));
        // What a rerun finds is the release that ended in the attempt before: a new one may replace
        // it until the time is up.
        if late || (ended && record.attempt < TICKET_FROM) {
            record.state = State::Failed;
            record.ended_at = Some(now);
        }
        record
    }

    /// Begins another attempt because the control plane asks for it. The same request again is the
    /// attempt that it began.
    ///
    /// # Errors
    /// When there is no failed attempt.
    pub fn rerun(&self, request: &str, now: Timestamp) -> Result<Self, RerunRefused> {
        match self.state {
            _ if self.request.as_deref() == Some(request) => Ok(self.clone()),
            State::Running => Err(RerunRefused::StillRunning(self.attempt)),
            State::Initialized => Err(RerunRefused::Initialized),
            State::Failed => Ok(Self { request: Some(request.to_owned()), ..self.next(now) }),
        }
    }

    /// How long the attempt may still take; nothing when it is over.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        if self.state != State::Running {
            return Duration::ZERO;
        }
        let passed = now.duration_since(self.started_at);
        ATTEMPT.saturating_sub(Duration::try_from(passed).unwrap_or_default())
    }

    /// A rerun failed: somebody should look.
    pub fn wants_ticket(&self) -> bool {
        self.state == State::Failed && self.attempt >= TICKET_FROM
    }

    /// As the control plane is told.
    pub fn to_proto(&self) -> v1::InitializationReport {
        let time = |at: Timestamp| prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        };
        let initialized = self.state == State::Initialized;
        v1::InitializationReport {
            attempt: self.attempt,
            state: self.state.word().to_owned(),
            phase: if initialized { String::new() } else { self.phase.word().to_owned() },
            failing_check: self.obstacle.as_ref().map(|o| o.check.clone()).unwrap_or_default(),
            message: self.in_words(),
            started_at: Some(time(self.started_at)),
            ended_at: self.ended_at.map(time),
            wants_ticket: self.wants_ticket(),
        }
    }

    /// What stands in the way, or else what it does; empty when there is nothing to say.
    pub fn in_words(&self) -> String {
        self.obstacle.as_ref().map_or_else(|| self.message.clone(), |o| o.detail.clone())
    }
}

fn phase(facts: &Facts) -> Phase {
    if facts.connected {
        Phase::FirstRelease
    } else if facts.enrolled {
        Phase::Connection
    } else if facts.looked && facts.failing.is_none() {
        Phase::Enrollment
    } else {
        Phase::Preflight
    }
}

fn situation(facts: &Facts, phase: Phase) -> (Option<Obstacle>, String) {
    let obstacle = match (&facts.release, phase) {
        (FirstRelease::Ended(why), _) => {
            Some(Obstacle { check: "release".to_owned(), detail: bounded(why) })
        }
        // With a session, whatever else preflight found does not stand in the way.
        (_, Phase::FirstRelease) => None,
        _ => facts.failing.clone().map(|o| Obstacle { detail: bounded(&o.detail), ..o }),
    };
    let message = match (&facts.release, phase) {
        (FirstRelease::Running(what), _) => bounded(what),
        (_, Phase::FirstRelease) => "waiting for a release of the control plane".to_owned(),
        (_, Phase::Preflight) if !facts.looked => "preflight has its first look".to_owned(),
        _ => facts.trouble.as_deref().map(bounded).unwrap_or_default(),
    };
    (obstacle, message)
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

#[cfg(test)]
mod tests;
