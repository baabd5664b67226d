//! What people see of the session.

use std::time::Duration;

use jiff::Timestamp;

use super::Capability;

/// Skew beyond which clocks are said to be wrong: dates of certificates and tokens are judged with
/// about this tolerance.
pub const SKEW_BOUND: Duration = Duration::from_secs(60);
/// Changes of skew below this are not told: the way of a message takes as long.
pub const SKEW_STEP: Duration = Duration::from_secs(1);

/// State of the session, for people and for paths that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// Never connected since the start.
    WaitingForConnection {
        /// Layer and cause of the last failure, if one happened.
        last_failure: Option<String>,
    },
    /// A session is up.
    Connected {
        /// Id the server gave it.
        session_id: String,
        /// Since when.
        since: Timestamp,
        /// Server clock minus own clock, milliseconds, at the beginning or at the last heartbeat that
        /// differed by [`SKEW_STEP`].
        clock_skew_millis: i64,
        /// Another process used this identity within the last day: what the server said of it.
        identity_conflict: Option<String>,
        /// What of ours this control plane lacks: it is not used.
        lacks: Vec<Capability>,
    },
    /// It was up, and is not now.
    Disconnected {
        /// Since when.
        since: Timestamp,
        /// Layer and cause.
        last_failure: String,
    },
    /// The cluster was deleted in the portal.
    Deregistered {
        /// What the server said.
        reason: String,
    },
}
