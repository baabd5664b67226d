//! How a command fails: one message with its causes, and an exit code that says what kind it is.

use std::{error::Error, fmt};

use crate::{
    InitError, StoreError, attestation::AttestationError, manifests::Problems, pki::PkiError,
    portal::PortalError, repository::RepositoryError, server::ServeError, snapshots::OpenError,
};

/// Exit codes. 0 is success; 2 is clap's, for a command line that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A file, a key or the network failed.
    Failed = 1,
    /// What was named does not exist.
    NotFound = 3,
    /// The action was understood and is not possible: bad manifests, bad terms, a state that does
    /// not fit.
    Refused = 4,
    /// It exists already, or another process is at it.
    Conflict = 5,
    /// The state folder holds no control plane.
    NotInitialized = 6,
}

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the process ends with.
    pub(super) exit: Exit,
    error: Box<dyn Error>,
}

impl Failure {
    fn new(exit: Exit, error: impl Error + 'static) -> Self {
        Self { exit, error: Box::new(error) }
    }
}

/// The message, and each cause on a line of its own.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            write!(f, "\n  because: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::File { .. } | StoreError::Json { .. } => Exit::Failed,
        StoreError::NotFound { .. } => Exit::NotFound,
        StoreError::Name { .. } | StoreError::Refused(_) => Exit::Refused,
        StoreError::Busy { .. }
        | StoreError::AlreadyInitialized { .. }
        | StoreError::Exists { .. } => Exit::Conflict,
        StoreError::NotInitialized { .. } => Exit::NotInitialized,
    }
}

fn portal_exit(error: &PortalError) -> Exit {
    match error {
        PortalError::Store(error) => store_exit(error),
        PortalError::Grant(_) => Exit::Refused,
        PortalError::Publish(error) => repository_exit(error),
        PortalError::Key { .. }
        | PortalError::NoRandomness { .. }
        | PortalError::Pins(_)
        | PortalError::TicketKey { .. } => Exit::Failed,
    }
}

fn repository_exit(error: &RepositoryError) -> Exit {
    match error {
        RepositoryError::Store(error) => store_exit(error),
        RepositoryError::Published { .. } => Exit::Conflict,
        RepositoryError::Sequence { .. } | RepositoryError::Floor { .. } => Exit::Refused,
        RepositoryError::Tuf { .. }
        | RepositoryError::Schema { .. }
        | RepositoryError::NoTarget { .. }
        | RepositoryError::Key { .. } => Exit::Failed,
    }
}

fn pki_exit(error: &PkiError) -> Exit {
    match error {
        PkiError::Store(error) => store_exit(error),
        _ => Exit::Failed,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(store_exit(&error), error)
    }
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        Self::new(pki_exit(&error), error)
    }
}

impl From<AttestationError> for Failure {
    fn from(error: AttestationError) -> Self {
        Self::new(Exit::Refused, error)
    }
}

impl From<PortalError> for Failure {
    fn from(error: PortalError) -> Self {
        Self::new(portal_exit(&error), error)
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        Self::new(repository_exit(&error), error)
    }
}

impl From<Problems> for Failure {
    fn from(error: Problems) -> Self {
        Self::new(Exit::Refused, error)
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        let exit = match &error {
            InitError::Store(error) => store_exit(error),
            InitError::Pki(error) => pki_exit(error),
            InitError::Repository(error) => repository_exit(error),
            InitError::Portal(error) => portal_exit(error),
        };
        Self::new(exit, error)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let exit = match &error {
            ServeError::Store(error) => store_exit(error),
            ServeError::Pki(error) => pki_exit(error),
            ServeError::Tls(_)
            | ServeError::Verifier(_)
            | ServeError::Listen { .. }
            | ServeError::MetricsAddress { .. }
            | ServeError::Ended(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::Store(error) => store_exit(error),
            OpenError::Portal(error) => portal_exit(error),
            OpenError::NotFinished { .. } => Exit::Refused,
            OpenError::Digest(_)
            | OpenError::Seal(_)
            | OpenError::Manifest { .. }
            | OpenError::Archive(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
