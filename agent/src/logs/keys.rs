//! The pinned keys of the support portal, and how newer ones take their place.
//!
//! The installed file is the beginning. Whatever the release root vouches for later and has a higher
//! sequence is stored first, then used: a running snapshot whose key is gone ends, and a restart does
//! not bring an old key back. Of the installed and the stored file the one with the higher sequence
//! counts, so reinstalling the agent with an old trust folder revives nothing.

use std::{path::Path, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use mendix_agent_core::{
    audit::Event,
    bundle::Authentic,
    consent::keys::{ConsentKeysError, FILE, Trust},
    ordered,
};
use tokio::{sync::watch, time::sleep};

use super::LogsError;
use crate::{
    audit::Audit,
    cluster::{ApiError, Cluster, FIELD_MANAGER, call},
    errors::describe,
};

/// Name of the Secret with the newest file.
pub(super) const SECRET: &str = "mendix-agent-consent-keys";
/// Pause after a failure of the Kubernetes API.
const RETRY: Duration = Duration::from_secs(5);

/// The keys that count now; cheap to clone.
#[derive(Clone)]
pub(super) struct Pinned {
    current: watch::Sender<Arc<Trust>>,
}

impl Pinned {
    fn new(trust: Trust) -> Self {
        Self { current: watch::channel(Arc::new(trust)).0 }
    }

    /// For tests of what uses the keys.
    #[cfg(test)]
    pub(super) fn fixed(trust: Trust) -> Self {
        Self::new(trust)
    }

    /// The keys.
    pub(super) fn current(&self) -> Arc<Trust> {
        Arc::clone(&self.current.borrow())
    }

    /// Wakes when they change.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.current.subscribe()
    }

    /// Reads the installed and the stored file.
    ///
    /// # Errors
    /// [`LogsError`]: a stored file that can't be read is not passed over, since it may be the one
    /// that took a stolen key away.
    pub(super) async fn load(
        cluster: &Cluster,
        trust_dir: &Path,
        audit: &Audit,
    ) -> Result<Self, LogsError> {
        let path = trust_dir.join(FILE);
        let installed = tokio::fs::read(&path)
            .await
            .map_err(|source| LogsError::KeysFile { path: path.display().to_string(), source })?;
        let installed = Trust::parse(&installed)?;
        let stored = read(&cluster.own()).await?;
        let (trust, source) = match stored.map(|stored| Trust::parse(&stored)).transpose() {
            Ok(None) => (installed, "installed"),
            Ok(Some(stored)) => match stored.succeed(installed) {
                Ok(Some(installed)) => (installed, "installed"),
                Ok(None) | Err(ConsentKeysError::Backwards { .. }) => (stored, "rotated"),
                Err(error) => {
                    tracing::error!(error = describe(&error), "the installed keys are not used");
                    (stored, "rotated")
                }
            },
            Err(error) => return Err(LogsError::StoredKeys(error)),
        };
        tell(audit, &trust, source);
        Ok(Self::new(trust))
    }

    /// Takes newer files as they are found; never ends.
    pub(super) async fn follow(
        &self,
        cluster: &Cluster,
        audit: &Audit,
        mut found: watch::Receiver<Option<Authentic>>,
    ) {
        found.mark_changed();
        while found.changed().await.is_ok() {
            let file = found.borrow_and_update().clone();
            let Some(file) = file else { continue };
            match self.current().rotate(&file) {
                Ok(Some(next)) => self.take(cluster, audit, &file, next).await,
                Ok(None) => {}
                Err(error) => {
                    let error = describe(&error);
                    tracing::error!(error, "keys of the release repository are refused");
                }
            }
        }
        std::future::pending().await
    }

    /// Stores, writes down, uses: in this order.
    async fn take(&self, cluster: &Cluster, audit: &Audit, file: &Authentic, next: Trust) {
        let api: Api<Secret> = cluster.own();
        while let Err(error) = write(&api, file.bytes()).await {
            tracing::warn!(error = describe(&error), "newer keys can't be stored yet");
            sleep(RETRY).await;
        }
        tracing::warn!(sequence = next.sequence(), "the support portal has new keys");
        tell(audit, &next, "rotated");
        self.replace(next);
    }

    /// Lets other keys count.
    pub(super) fn replace(&self, next: Trust) {
        self.current.send_replace(Arc::new(next));
    }
}

fn tell(audit: &Audit, trust: &Trust, source: &str) {
    audit.note(Event::ConsentKeys {
        sequence: trust.sequence(),
        sha256: hex::encode(trust.sha256()),
        source: source.into(),
        consent: trust.consent_keys().map(str::to_owned).collect(),
        status: trust.status_keys().map(str::to_owned).collect(),
    });
}

async fn read(api: &Api<Secret>) -> Result<Option<Vec<u8>>, ApiError> {
    let secret = call("get Secret mendix-agent-consent-keys", api.get_opt(SECRET)).await?;
    // A Secret without the entry is damaged, not absent: the empty file does not parse.
    Ok(secret.map(|secret| {
        let mut data = secret.data.unwrap_or_default();
        data.remove(FILE).map(|bytes| bytes.0).unwrap_or_default()
    }))
}

/// Puts a file in the place of an older one. Two writers write the same bytes, or the one that is
/// behind finds that out when it starts.
async fn write(api: &Api<Secret>, file: &[u8]) -> Result<(), ApiError> {
    let stored = call("get Secret mendix-agent-consent-keys", api.get_opt(SECRET)).await?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            resource_version: stored.as_ref().and_then(|s| s.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        data: Some(ordered::map([(FILE.to_owned(), ByteString(file.to_vec()))])),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let what = "write Secret mendix-agent-consent-keys";
    match stored {
        Some(_) => call(what, api.replace(SECRET, &params, &secret)).await.map(drop),
        None => call(what, api.create(&params, &secret)).await.map(drop),
    }
}
