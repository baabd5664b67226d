//! Where a run gets what is not stored in the cluster yet: from the release repository through TUF,
//! or, for a run that was interrupted after everything was stored, from nowhere.

use async_trait::async_trait;
use mendix_agent_core::bundle::{
    Authentic,
    admission::{HighWater, Marks},
};

use super::trust::{Keeper, Releases, TrustError};
use crate::cluster::Cluster;

/// Why something can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SupplyError {
    /// Whether the same may succeed later without anybody doing anything.
    pub is_transient: bool,
    /// The whole chain of causes in one line.
    pub message: String,
}

impl SupplyError {
    /// From a failure of the release repository.
    pub fn of_trust(error: &TrustError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { is_transient: error.is_transient(), message }
    }
}

/// What a run needs besides the cluster.
#[async_trait]
pub trait Supply: Send + Sync {
    /// The bytes of a TUF target, vouched for by the release root.
    async fn fetch(&self, target: &str) -> Result<Authentic, SupplyError>;

    /// What is held against an older release; nothing where everything was accepted before.
    async fn marks(&self) -> Result<Marks, SupplyError>;

    /// Records that a release is accepted, before anything of it is applied.
    async fn accept(&self, release: HighWater) -> Result<(), SupplyError>;
}

/// The release repository as it was verified for this offer.
pub struct Repository<'a> {
    /// The cluster that keeps the trust state.
    pub cluster: &'a Cluster,
    /// The trust state.
    pub trust: &'a Keeper,
    /// What the repository holds.
    pub releases: &'a Releases,
}

#[async_trait]
impl Supply for Repository<'_> {
    async fn fetch(&self, target: &str) -> Result<Authentic, SupplyError> {
        self.releases.fetch_target(target).await.map_err(|error| SupplyError::of_trust(&error))
    }

    async fn marks(&self) -> Result<Marks, SupplyError> {
        let trust = self.trust.lock().await.map_err(|error| SupplyError::of_trust(&error))?;
        Ok(trust.marks())
    }

    async fn accept(&self, release: HighWater) -> Result<(), SupplyError> {
        let trust = self.trust.lock().await;
        let mut trust = trust.map_err(|error| SupplyError::of_trust(&error))?;
        trust.accept(self.cluster, release).await.map_err(|error| SupplyError::of_trust(&error))
    }
}

/// Only what is stored in the cluster: enough for every run whose objects may have been touched. Such
/// a run was accepted before, so it needs neither the network nor metadata that has not expired.
pub struct StoredOnly;

#[async_trait]
impl Supply for StoredOnly {
    async fn fetch(&self, target: &str) -> Result<Authentic, SupplyError> {
        Err(SupplyError {
            is_transient: false,
            message: format!("{target} is not stored in the cluster any more"),
        })
    }

    async fn marks(&self) -> Result<Marks, SupplyError> {
        Ok(Marks::default())
    }

    async fn accept(&self, _: HighWater) -> Result<(), SupplyError> {
        Ok(())
    }
}
