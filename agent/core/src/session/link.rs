//! What people see of the session.

use jiff::Timestamp;

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
        /// Server clock minus own clock, milliseconds.
        clock_skew_millis: i64,
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
