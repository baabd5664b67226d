//! The Kubernetes Events that the agent and its guard make: every one of them, with its reason, its weight,
//! the object that it is about and what it means.
//!
//! An Event can't be made but of one of these ([`crate::cluster::Cluster::event`]), so the table of
//! the customer guide, which a test writes from [`ALL`], leaves none out. A test waits for each.

use kube::runtime::events::{Event, EventType};
use mendix_agent_core::bundle::run::State;

/// Something that people are told of by a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// Reason of the Event, in CamelCase.
    pub reason: &'static str,
    /// Whether somebody should look: type Warning instead of Normal.
    pub warns: bool,
    /// Kind of the object that the Event is about.
    pub about: &'static str,
    /// What it means, in a few words.
    pub means: &'static str,
    /// What the agent was doing, in CamelCase.
    action: &'static str,
}

/// What one subject tells: the kind of its objects and what the agent does with them.
struct Subject(&'static str, &'static str);

impl Subject {
    const fn normal(&self, reason: &'static str, means: &'static str) -> Occasion {
        Occasion { reason, warns: false, about: self.0, means, action: self.1 }
    }

    const fn warning(&self, reason: &'static str, means: &'static str) -> Occasion {
        Occasion { reason, warns: true, about: self.0, means, action: self.1 }
    }
}

const CONNECTION: Subject = Subject("AgentStatus", "Connect");
const INSTALLATION: Subject = Subject("AgentStatus", "Initialize");
const PREFLIGHT: Subject = Subject("AgentStatus", "Preflight");
const RELEASE: Subject = Subject("PatchBundle", "Release");
const DRIFT: Subject = Subject("ManagedComponent", "Correct");
const TRIAL: Subject = Subject("UpgradeTrial", "Upgrade");
const GUARD: Subject = Subject("UpgradeTrial", "Guard");
const TICKET: Subject = Subject("SupportTicket", "FollowTicket");
const REQUEST: Subject = Subject("SupportTicket", "RefuseSnapshot");
const POLICY: Subject = Subject("LogSharingPolicy", "ReadPolicy");
const SNAPSHOT: Subject = Subject("LogSnapshot", "TakeSnapshot");

macro_rules! occasions {
    ($($name:ident = $subject:ident.$weight:ident($reason:literal, $means:literal);)*) => {
        $(#[doc = $means] pub const $name: Occasion = $subject.$weight($reason, $means);)*

        /// All of them, in the order in which people read them.
        pub const ALL: &[Occasion] = &[$($name),*];
    };
}

occasions! {
    INITIALIZING = INSTALLATION.normal("Initializing", "the installation took a step towards its first release");
    INITIALIZED = INSTALLATION.normal("Initialized", "the first release is committed");
    INITIALIZATION_FAILED = INSTALLATION.warning("InitializationFailed", "the installation stopped; the message says at which check");
    PREFLIGHT_PASSED = PREFLIGHT.normal("PreflightPassed", "other checks fail than before: none any more");
    PREFLIGHT_WARNED = PREFLIGHT.warning("PreflightWarned", "other checks fail than before: some may hurt later");
    PREFLIGHT_FAILED = PREFLIGHT.warning("PreflightFailed", "other checks fail than before: something the agent needs is missing");
    IDENTITY_CONFLICT = CONNECTION.warning("IdentityConflict", "another process used this cluster's identity");
    CLOCK_SKEW = CONNECTION.warning("ClockSkew", "the node's clock is off by more than a minute");
    CONTROL_PLANE_LACKS = CONNECTION.warning("ControlPlaneLacks", "the control plane can't do something the agent can, and what comes of it");
    RECEIVING = RELEASE.normal("Receiving", "a release is wanted and is being fetched");
    VERIFIED = RELEASE.normal("Verified", "every byte of it is verified");
    PREFLIGHTED = RELEASE.normal("Preflighted", "nothing speaks against it");
    SCHEDULED = RELEASE.normal("Scheduled", "it waits for its time");
    SNAPSHOTTED = RELEASE.normal("Snapshotted", "what it will touch is stored, so that it can be put back");
    APPLYING = RELEASE.normal("Applying", "a component is being changed");
    GATING = RELEASE.normal("Gating", "that component has to become ready");
    SOAKING = RELEASE.normal("Soaking", "and to stay ready");
    COMMITTED = RELEASE.normal("Committed", "the cluster runs this release");
    ROLLING_BACK = RELEASE.warning("RollingBack", "a component is being put back");
    ROLLED_BACK = RELEASE.warning("RolledBack", "all is as before; this release is not tried again");
    POSTPONED = RELEASE.warning("Postponed", "all is as before; the release was not at fault and is tried again");
    HELD = RELEASE.warning("Held", "neither forward nor back is safe; a person or a higher release has to help");
    REFUSED = RELEASE.warning("Refused", "the release was not begun; the message says everything that is wrong with it");
    OVERDUE = RELEASE.warning("Overdue", "the release was to be committed by now");
    DRIFT_CORRECTED = DRIFT.warning("DriftCorrected", "a change by somebody else was put back");
    DRIFT_FIGHT = DRIFT.warning("DriftFight", "it was put back again and again; the next time waits");
    TRIAL_PROPOSED = TRIAL.normal("TrialProposed", "a new version of the agent is to be tried");
    TRIAL_BEGUN = GUARD.normal("TrialBegun", "the guard watches; the new version has to prove itself");
    TRIAL_COMMITTED = TRIAL.normal("TrialCommitted", "it has, and stays");
    TRIAL_REVERTING = GUARD.warning("TrialReverting", "it has not; the former version is being put back");
    TRIAL_REVERTED = GUARD.warning("TrialReverted", "the former version is back");
    TRIAL_WITHDRAWN = TRIAL.warning("TrialWithdrawn", "no guard took the trial up; nothing was changed");
    CONSENT_ACTIVE = TICKET.normal("ConsentActive", "logs may leave from now on");
    CONSENT_INACTIVE = TICKET.normal("ConsentInactive", "logs may not leave, or no longer");
    SNAPSHOT_REFUSED = REQUEST.warning("the refusal's code, such as NoGrant", "a snapshot was asked for and refused; nothing left (on the Namespace while the cluster does not know the ticket)");
    POLICY_PATTERNS = POLICY.warning("PolicyPatterns", "a pattern of the policy can't be used, so nothing is shared");
    SNAPSHOT_STARTED = SNAPSHOT.normal("SnapshotStarted", "a snapshot began, with whose consent");
    SNAPSHOT_SUCCEEDED = SNAPSHOT.normal("SnapshotSucceeded", "it was sent");
    SNAPSHOT_REVOKED = SNAPSHOT.warning("SnapshotRevoked", "consent ended under way; what was sent opens for nobody");
    SNAPSHOT_FAILED = SNAPSHOT.warning("SnapshotFailed", "it ended early; what was sent opens for nobody");
}

impl Occasion {
    /// A run of a release came to this state; none is told of the first, in which nothing happened.
    pub fn release(state: &State) -> Option<Self> {
        Some(match state {
            State::Offered => return None,
            State::Receiving => RECEIVING,
            State::Verified => VERIFIED,
            State::Preflighted => PREFLIGHTED,
            State::Scheduled => SCHEDULED,
            State::Snapshotted => SNAPSHOTTED,
            State::Applying(_) => APPLYING,
            State::Gating(_) => GATING,
            State::Soaking(_) => SOAKING,
            State::Committed => COMMITTED,
            State::RollingBack(_) => ROLLING_BACK,
            State::RolledBack => ROLLED_BACK,
            State::Postponed => POSTPONED,
            State::Held => HELD,
            State::Refused => REFUSED,
        })
    }

    /// A snapshot was refused; the reason is the code of the refusal.
    pub fn refused(code: &'static str) -> Self {
        Self { reason: code, ..SNAPSHOT_REFUSED }
    }

    /// A snapshot came to this phase.
    pub fn snapshot(phase: &str) -> Self {
        match phase {
            "Started" => SNAPSHOT_STARTED,
            "Succeeded" => SNAPSHOT_SUCCEEDED,
            "Revoked" => SNAPSHOT_REVOKED,
            _ => SNAPSHOT_FAILED,
        }
    }

    /// The Event, with what there is to say about this case.
    pub(crate) fn event(self, note: String) -> Event {
        Event {
            type_: if self.warns { EventType::Warning } else { EventType::Normal },
            reason: self.reason.into(),
            note: Some(note),
            action: self.action.into(),
            secondary: None,
        }
    }
}
