//! Why the agent has no identity, or no new one.

use jiff::Timestamp;
use mendix_agent_core::session::Schedule;
use thiserror::Error;

use super::requests::ANSWER_DEADLINE;
use crate::channel::{
    dial::DialError,
    identity::{IdentityError, KeyError, mounted::MountedError, store::StoreError},
    session,
};

/// Why a step towards an identity failed.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// There is no identity and no token to get one with.
    #[error("no bootstrap token in {path}")]
    NoToken {
        /// Where it should be.
        path: String,
    },
    /// A file can't be read.
    #[error("{path} can't be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The control plane can't be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS could not be configured.
    #[error("TLS configuration")]
    Tls(
        #[from]
        #[source]
        rustls::Error,
    ),
    /// The control plane said no, or nothing.
    #[error("{call}: {}: {}", .status.code(), .status.message())]
    Answer {
        /// Enroll, Renew or Recover.
        call: &'static str,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// The control plane did not answer.
    #[error("{call}: no answer within {} s", ANSWER_DEADLINE.as_secs())]
    NoAnswer {
        /// Enroll, Renew or Recover.
        call: &'static str,
    },
    /// What it issued can't be used.
    #[error("{call}: what the control plane issued can't be used")]
    Issued {
        /// Enroll, Renew or Recover.
        call: &'static str,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// What it issued is not valid now by this node's clock.
    #[error(
        "{call}: the control plane just issued a certificate that is valid from {from} to {until}, and \
         this node's clock says {now}: set the node's clock"
    )]
    Clock {
        /// Enroll, Renew or Recover.
        call: &'static str,
        /// From when on it is valid.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
        /// This node's clock.
        now: Timestamp,
    },
    /// What it issued ran out before it could be used.
    #[error(
        "{call}: what the control plane issued ran out before its answer was read: this process stood \
         still, or its machine was suspended"
    )]
    Late {
        /// Enroll, Renew or Recover.
        call: &'static str,
    },
    /// The clock is as wrong as it was; nothing is asked for.
    #[error(
        "the certificate can't be recovered while this node's clock is wrong: set the node's clock"
    )]
    ClockNotSet,
    /// The identity that somebody else keeps.
    #[error(transparent)]
    Mounted(#[from] MountedError),
    /// What is stored can't be used.
    #[error("the stored identity can't be used, and there is no new bootstrap token")]
    Stored(#[source] IdentityError),
    /// The Secret.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl EnrollError {
    /// How soon to try again.
    pub(super) fn schedule(&self) -> Schedule {
        match self {
            Self::Dial(error) => error.failure().schedule,
            Self::Answer { status, .. } => session::schedule(status.code()),
            Self::Issued { .. } | Self::Clock { .. } => Schedule::Refusal,
            _ => Schedule::Outage,
        }
    }
}
