//! The state of the control plane: one folder of plain files.
//!
//! The server and operator commands work on the same folder, also from different processes. Every
//! read-change-write happens under a lock file; every file is replaced whole by a rename. What
//! changes the desired state of a cluster also steps `change`, the one small file that the server
//! polls; it then reloads the clusters that are connected.
//!
//! ```text
//! lock  change  server.lock         who may write; what to poll; one server per folder
//! channel-ca/                       channel CA and the server's key: "being connected"
//! release-root/  release-online/    TUF keys: offline (root, targets) and online (snapshot, timestamp)
//! repository/{metadata,targets}/    the TUF repository that BundleService serves
//! portal/  portal/tickets/          consent and status key; one X25519 key per ticket
//! trust/                            what an agent is installed with
//! clusters/<uid>.json               registration, identities, release wish, tickets, requests
//! releases/<id>.json                what was published
//! observed/<uid>.json               last reports (written by the server only)
//! snapshots/<id>/                   sealed uploads (written by the server only)
//! ```
//!
//! The folders of private keys are named after their holder and would be three different places in
//! production; the code that uses one never reads another.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::pki::ServerNames;

mod audit;
mod clusters;
mod desired;
pub(crate) mod files;
mod observed;
mod releases;
mod requests;
mod tickets;

pub use audit::{AuditAlarm, AuditRecord, HeldCheckpoint};
pub use clusters::{BootstrapToken, ClusterRecord, Issued, MAX_RECOVERIES};
pub(crate) use desired::Desired;
pub use desired::{ReleaseWish, Revised};
pub use observed::{AgentRecord, IdentityConflict, ReportRecord};
pub use releases::{ReleaseComponent, ReleaseRecord};
pub use requests::{DoneRequest, RequestKind, RequestRecord};
pub use tickets::{
    MAX_TITLE, TicketGrant, TicketOrigin, TicketRecord, TicketSeverity, TicketStatus,
};

use files::Lock;

/// Longest name of a cluster, ticket, request or snapshot.
pub const MAX_ID: usize = 64;

/// Why state could not be read or changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("can't {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A state file is not what this build writes.
    #[error("{} is not a state file of this version", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Another process holds the lock.
    #[error("{} is held by another process; wait for it, or end it", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder holds no state.
    #[error("{} holds no control plane; make one with `init --state {}`", path.display(), path.display())]
    NotInitialized {
        /// The folder.
        path: PathBuf,
    },
    /// The folder already holds state.
    #[error("{} already holds a control plane; choose another folder, or remove it", path.display())]
    AlreadyInitialized {
        /// The folder.
        path: PathBuf,
    },
    /// There is no such thing.
    #[error("there is no {what} {name:?}; `{list}` shows those there are")]
    NotFound {
        /// Cluster, ticket, release, request or snapshot.
        what: &'static str,
        /// Its name.
        name: String,
        /// The command that lists them.
        list: &'static str,
    },
    /// It exists already.
    #[error("{what} {name:?} exists already{hint}")]
    Exists {
        /// Cluster, ticket or release.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// A name can't be used.
    #[error("{name:?} can't be the name of a {what}: {rule}")]
    Name {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// The action does not fit the state.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_path_buf(), source }
    }
}

/// Handle to the state folder; cheap to clone. Its methods block on the file system for
/// milliseconds: call them from async code through `spawn_blocking`.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens a folder that [`crate::init()`] has made.
    ///
    /// # Errors
    /// [`StoreError::NotInitialized`] when it holds no state.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { dir: dir.into() };
        if !store.trust_dir().join("root.json").is_file() {
            return Err(StoreError::NotInitialized { path: store.dir });
        }
        Ok(store)
    }

    /// A handle to a folder that is about to be filled.
    pub(crate) fn unchecked(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What an agent is installed with: `root.json`, `consent-keys.json`, `channel-ca.pem`.
    pub fn trust_dir(&self) -> PathBuf {
        self.dir.join("trust")
    }

    pub(crate) fn channel_ca_dir(&self) -> PathBuf {
        self.dir.join("channel-ca")
    }

    pub(crate) fn portal_dir(&self) -> PathBuf {
        self.dir.join("portal")
    }

    /// The TUF repository: `metadata/` and `targets/`.
    pub fn repository_dir(&self) -> PathBuf {
        self.dir.join("repository")
    }

    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn write_server_names(&self, names: &ServerNames) -> Result<(), StoreError> {
        files::write_json(&self.channel_ca_dir().join("server-names.json"), names)
    }

    /// Names the server's certificate carries.
    pub(crate) fn server_names(&self) -> Result<ServerNames, StoreError> {
        let names = files::read_json(&self.channel_ca_dir().join("server-names.json"))?;
        Ok(names.unwrap_or_default())
    }

    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        Lock::acquire(self.dir.join("lock"))
    }

    /// Held by the one server of this folder while it runs.
    pub(crate) fn server_lock(&self) -> Result<Lock, StoreError> {
        Lock::try_acquire(self.dir.join("server.lock"))
    }

    /// Number that steps with each change of any cluster's desired state.
    pub(crate) fn change(&self) -> Result<u64, StoreError> {
        Ok(files::read_json(&self.dir.join("change"))?.unwrap_or(0))
    }

    /// Steps [`Store::change`]; the caller holds the lock.
    fn step_change(&self, _lock: &Lock) -> Result<(), StoreError> {
        let next = self.change()?.wrapping_add(1);
        files::write_json(&self.dir.join("change"), &next)
    }
}

/// Refuses names that could leave their folder or that Kubernetes could not carry.
pub(crate) fn check_id(what: &'static str, name: &str) -> Result<(), StoreError> {
    let fits = !name.is_empty()
        && name.len() <= MAX_ID
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(())
    } else {
        Err(StoreError::Name {
            what,
            name: name.chars().take(2 * MAX_ID).collect(),
            rule: "1 to 64 of a-z, 0-9 and '-', not at its ends",
        })
    }
}
