//! Holds the trust state for the tasks that use it. It is read again for as long as it can't be used, and
//! looked after each time it is used: no restart is needed once somebody has repaired it.

use std::path::PathBuf;

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{ReleaseTrust, TrustError};
use crate::cluster::Cluster;

/// See the module.
pub struct Keeper {
    cluster: Cluster,
    trust_dir: PathBuf,
    trust: Mutex<Option<ReleaseTrust>>,
}

impl Keeper {
    /// The trust state of this cluster, not read yet.
    pub fn new(cluster: Cluster, trust_dir: PathBuf) -> Self {
        Self { cluster, trust_dir, trust: Mutex::default() }
    }

    /// The trust state, for one user at a time, as it is stored.
    ///
    /// # Errors
    /// Why it can't be read or put back; the next call tries again.
    pub async fn lock(&self) -> Result<MappedMutexGuard<'_, ReleaseTrust>, TrustError> {
        let mut held = self.trust.lock().await;
        match &mut *held {
            Some(trust) => trust.keep(&self.cluster).await?,
            none => *none = Some(ReleaseTrust::load(&self.cluster, &self.trust_dir).await?),
        }
        MutexGuard::try_map(held, Option::as_mut).map_err(|_| TrustError::Conflict)
    }
}
