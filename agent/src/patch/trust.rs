//! The release root: which bytes may be acted upon.
//!
//! ```text
//! Secret mendix-agent-tuf ─ strict parse ─▶ TrustState ─ client::update (tough) ─▶ TrustState'
//!                    ▲                                                        │
//!                    └──────────────── compare-and-swap ◀─────────────────────┘
//!                                                     then: Releases ─ fetch_target ─▶ Authentic
//! ```
//!
//! tough does TUF. Around it stands what was measured to be missing: stored metadata is parsed and
//! verified before tough sees it and an unreadable one is an error ([`state`]); the store is a Secret
//! that is written back whole ([`store`]); a failure to fetch the next root is never taken for its
//! absence, and delegations have no way in ([`guard`]); expiry is judged by a clock with a floor
//! ([`client`]). The transport ([`transport`]) is trusted with nothing.
//!
//! The state also holds the high-water mark of releases. It is raised when a release is *accepted*,
//! before anything of it is applied: a replayed older release is refused also while a newer one is
//! in flight and after it was rolled back. The vendor goes back by publishing the older content under
//! a higher sequence.
//!
//! The Secret is made from the root in the trust folder. What the agent remembers outlives it: a Secret
//! that is gone or altered while the agent runs is put back; one that is gone when the agent starts is
//! made again with the mark that the agent's records show. And below all of that lies the signed floor
//! ([`mendix_agent_core::bundle::floor`]): it is read with the metadata, and a repository without one is
//! not accepted, so that nobody who deletes what is stored in the cluster makes it begin at zero (ADR
//! 0013).

mod client;
mod folder;
mod guard;
mod keeper;
mod state;
mod store;
mod transport;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mendix_agent_core::bundle::{
    admission::{HighWater, Marks},
    floor::{self, FILE as FLOOR, FloorError},
};
use thiserror::Error;
use tonic::transport::Channel;
use tough::{Transport, TransportErrorKind, schema::RoleType};

pub use client::Releases;
pub(super) use guard::{MAX_METADATA, file_name, is_repository_file};
pub use keeper::Keeper;
pub use state::StateError;
pub use store::SECRET;
pub use transport::{FetchError, Interruption};

use crate::{
    cluster::{ApiError, Cluster},
    term::Superseded,
};

/// File in the trust folder with the root that the agent is installed with.
pub const ROOT_FILE: &str = "root.json";

/// Why bytes can't be vouched for.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The root that the agent is installed with can't be read.
    #[error("can't read the release root {}; install the agent with its trust folder", path.display())]
    NoRoot {
        /// Where it was looked for.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The root that the agent is installed with is not one.
    #[error("the release root {} is not usable", path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: StateError,
    },
    /// The Secret holds something else than it should.
    #[error(
        "Secret {SECRET} does not hold sound trust state, so no release is accepted. Restore it \
         from a backup of the cluster, or delete it: the agent then begins again at the newest release \
         that its records show, and not below the signed floor"
    )]
    Stored(#[source] StateError),
    /// A later leader wrote the Secret.
    #[error("Secret {SECRET}")]
    Superseded(#[from] Superseded),
    /// Somebody else wrote the Secret in between.
    #[error("Secret {SECRET} was written by somebody else in the meantime; load it again")]
    Conflict,
    /// The API server did not do what was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No private folder for tough's files.
    #[error("can't use a temporary folder; mount a memory-backed volume at the one TMPDIR names")]
    Directory(#[source] std::io::Error),
    /// The built-in base URL is wrong.
    #[error("the repository's base URL is no URL")]
    Url(#[source] url::ParseError),
    /// A file could not be fetched.
    #[error("the release repository can't be read")]
    Transport(#[source] Box<tough::error::Error>),
    /// Metadata or a target is not what was signed, or goes back.
    #[error("the release repository is not accepted")]
    Rejected(#[source] Box<tough::error::Error>),
    /// What tough left behind does not hold together.
    #[error("the release repository's metadata is not accepted")]
    Fetched(#[source] StateError),
    /// Metadata is too old to be accepted.
    #[error(
        "the {role} role expired at {expires}, judged at {judged_at}; release engineering has to sign it again"
    )]
    Expired {
        /// The role.
        role: RoleType,
        /// When it expired.
        expires: Timestamp,
        /// The time it was judged at: the clock, or its floor when that is later.
        judged_at: Timestamp,
    },
    /// The repository delegates targets.
    #[error("the repository delegates targets to other roles, which this product does not use")]
    Delegations,
    /// The repository's chain of roots ends before the one the agent was installed with.
    #[error(
        "the repository offers roots up to version {reached}, and version {shipped} exists: it is withheld"
    )]
    RootWithheld {
        /// Newest root that was offered.
        reached: u64,
        /// Root that the agent was installed with.
        shipped: u64,
    },
    /// The repository has no floor.
    #[error(
        "the release repository has no {FLOOR}; without it no release is accepted, since nobody vouches \
         for how old one may be. Release engineering has to publish it"
    )]
    NoFloor,
    /// The floor is signed and can't be used.
    #[error("the signed floor of releases is not usable")]
    Floor(#[source] FloorError),
    /// The repository doesn't name this target.
    #[error("the release repository has no target {0:?}")]
    NoSuchTarget(String),
    /// The target is larger than any may be.
    #[error("target {name:?} has {length} bytes; at most {max} are allowed")]
    TargetTooLarge {
        /// The target.
        name: String,
        /// Its signed length.
        length: u64,
        /// Largest length.
        max: u64,
    },
    /// A release below the high-water mark was to be accepted.
    #[error("the release can't be accepted")]
    Sequence(#[source] StateError),
}

impl TrustError {
    fn from_tough(error: tough::error::Error) -> Self {
        let tough::error::Error::Transport { source, .. } = &error else {
            return Self::Rejected(Box::new(error));
        };
        // tough reports a wrong digest and too many bytes as failures of the transport.
        let cause = std::error::Error::source(source);
        let refused = |cause: &(dyn std::error::Error + 'static)| {
            cause.is::<tough::error::Error>() || cause.is::<guard::GuardError>()
        };
        if cause.is_some_and(refused) {
            return Self::Rejected(Box::new(error));
        }
        Self::Transport(Box::new(error))
    }

    /// Whether the same call may succeed later, without anybody doing anything: a failure of
    /// the connection, the repository's server or the API server, and never a refusal.
    pub fn is_transient(&self) -> bool {
        match self {
            // A term that is over ends by itself; nothing is refused because of it.
            Self::Superseded(_) | Self::Conflict | Self::Api(_) => true,
            Self::Transport(error) => {
                let tough::error::Error::Transport { source, .. } = error.as_ref() else {
                    return false;
                };
                let cause = std::error::Error::source(source)
                    .and_then(|cause| cause.downcast_ref::<FetchError>());
                source.kind() == TransportErrorKind::FileNotFound
                    || cause.is_some_and(FetchError::is_transient)
            }
            _ => false,
        }
    }
}

/// The trust state of this cluster, loaded from its Secret. One process holds one at a time;
/// another writer is noticed by the compare-and-swap.
#[derive(Debug)]
pub struct ReleaseTrust {
    stored: store::Stored,
    shipped_root: Option<u64>,
}

impl ReleaseTrust {
    /// Loads the state, or makes it from `trust_dir/root.json` in a cluster that has none: one that
    /// never had one, or one that lost it, whose records then show how far it had come.
    ///
    /// # Errors
    /// [`TrustError::Stored`] stays until a person acts; the rest as [`TrustError::is_transient`] says.
    pub async fn load(cluster: &Cluster, trust_dir: &Path) -> Result<Self, TrustError> {
        let path = trust_dir.join(ROOT_FILE);
        if let Some(stored) = store::read(cluster).await? {
            // Only a lower bound for what the repository must offer, so its absence is no failure.
            let shipped_root = match tokio::fs::read(&path).await {
                Ok(root) => state::version_of_root(&root)
                    .inspect_err(|error| {
                        tracing::warn!(path = %path.display(), %error, "the installed release root is not usable");
                    })
                    .ok(),
                Err(_) => None,
            };
            return Ok(Self { stored, shipped_root });
        }
        let root = tokio::fs::read(&path)
            .await
            .map_err(|source| TrustError::NoRoot { path: path.clone(), source })?;
        let mut state = state::TrustState::initial(root)
            .map_err(|source| TrustError::BadRoot { path, source })?;
        let shipped_root = Some(state.root_version());
        if let Some(mark) = store::recorded_mark(cluster).await? {
            tracing::error!(
                sequence = mark.sequence,
                "Secret {SECRET} is gone although releases were received; it is made again with the \
                 newest release that the records show, and the signed floor is read before any other \
                 is accepted"
            );
            state = state.raise(mark).map_err(TrustError::Sequence)?;
        }
        tracing::info!(
            root_version = shipped_root,
            "trusting the installed release root from now on"
        );
        Ok(Self { stored: store::create(cluster, state).await?, shipped_root })
    }

    /// Puts the Secret back if it is not as this process left it.
    ///
    /// # Errors
    /// Failures of the API server, and a later leader.
    async fn keep(&mut self, cluster: &Cluster) -> Result<(), TrustError> {
        if let Some(stored) = store::put_back(cluster, &self.stored).await? {
            tracing::error!("Secret {SECRET} was deleted or altered; it is put back as it was");
            self.stored = stored;
        }
        Ok(())
    }

    /// Reads the repository's metadata over `channel` (of [`crate::channel::Dialer::connect`]), and
    /// stores what was learnt. What is returned was stored first.
    ///
    /// # Errors
    /// Any [`TrustError`]. Also after an error, what was verified on the way is stored.
    pub async fn refresh(
        &mut self,
        cluster: &Cluster,
        channel: Channel,
    ) -> Result<Releases, TrustError> {
        let transport = transport::BundleTransport::new(channel);
        let now = Timestamp::now();
        let update =
            Box::pin(client::update(&self.stored.state, transport, now, self.shipped_root));
        let client::Update { mut state, mut outcome } = update.await;
        if let Ok(releases) = &outcome {
            match releases.floor(&state).await {
                Ok(with_floor) => state = with_floor,
                Err(error) => outcome = Err(error),
            }
        }
        self.store(cluster, state).await?;
        outcome
    }

    /// What is held against an older release.
    pub fn marks(&self) -> Marks {
        let state = &self.stored.state;
        Marks {
            high_water: state.high_water(),
            floor: state.floor().map_or(0, |floor| floor.sequence),
        }
    }

    /// Records that a release is accepted, before anything of it is applied. The release at the mark
    /// itself may be accepted again (that is how a run is resumed).
    ///
    /// # Errors
    /// [`TrustError::Sequence`] for a release below the mark or another one at it, and failures of the
    /// API server.
    pub async fn accept(
        &mut self,
        cluster: &Cluster,
        release: HighWater,
    ) -> Result<(), TrustError> {
        let state = self.stored.state.raise(release).map_err(TrustError::Sequence)?;
        self.store(cluster, state).await
    }

    async fn store(
        &mut self,
        cluster: &Cluster,
        state: state::TrustState,
    ) -> Result<(), TrustError> {
        if state != self.stored.state {
            self.stored = store::replace(cluster, &self.stored, state).await?;
        }
        Ok(())
    }
}

/// Reads and verifies a repository that starts from `root`, the content of the file `path`, without
/// any history: for a release in a file, away from a cluster. Nothing is stored.
///
/// # Errors
/// [`TrustError::BadRoot`], and what the repository is refused for.
pub(super) async fn offline<T: Transport + Clone + 'static>(
    path: &Path,
    root: Vec<u8>,
    repository: T,
    now: Timestamp,
) -> Result<Releases, TrustError> {
    let state = state::TrustState::initial(root)
        .map_err(|source| TrustError::BadRoot { path: path.to_owned(), source })?;
    Box::pin(client::update(&state, repository, now, None)).await.outcome
}

impl Releases {
    /// The state with the floor that the repository holds.
    async fn floor(&self, state: &state::TrustState) -> Result<state::TrustState, TrustError> {
        let authentic = match self.fetch_target(FLOOR).await {
            Err(TrustError::NoSuchTarget(_)) => return Err(TrustError::NoFloor),
            result => result?,
        };
        let floor = floor::verify(&authentic).map_err(TrustError::Floor)?;
        state.with_floor(&floor).map_err(TrustError::Fetched)
    }
}

#[cfg(test)]
mod tests;
