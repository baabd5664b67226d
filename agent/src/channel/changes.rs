//! Notices that mounted files changed: trust, a bootstrap token, an identity that others keep.
//!
//! Folders are watched, not files: the kubelet swaps a link in them. Events can be missed, so whoever
//! waits here also looks by itself now and then.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// After a first event the rest of the same change is waited for.
const SETTLED: Duration = Duration::from_millis(200);

/// Watches some folders.
pub(super) struct Changes {
    changed: Arc<Notify>,
    /// None where the system gives no watches; then the slow look is all.
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// Watches those of `folders` that exist.
    pub(super) fn of<'a>(folders: impl Iterator<Item = &'a Path>) -> Self {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let seen = move |event: Result<notify::Event, notify::Error>| {
            // A read is an event as well, and our own.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                notify.notify_one();
            }
        };
        let mut watcher = match notify::recommended_watcher(seen) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "mounted files are not watched, but looked at now and then");
                return Self { changed, _watcher: None };
            }
        };
        for folder in folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                let folder = folder.display();
                tracing::debug!(%error, %folder, "not watched, but looked at now and then");
            }
        }
        Self { changed, _watcher: Some(watcher) }
    }

    /// The next change.
    pub(super) async fn next(&self) {
        self.changed.notified().await;
        tokio::time::sleep(SETTLED).await;
    }
}
