//! Notices that mounted files changed: trust, a bootstrap token, an identity that others keep.
//!
//! Folders are watched, not files: the kubelet swaps a link in them. Events can be missed, so whoever
//! waits here also looks by itself now and then.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// After a first event the rest of the same change is waited for.
const SETTLED: Duration = Duration::from_millis(200);

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The folder.
    pub(super) folder: PathBuf,
    /// The only file in it that counts, where others may live beside it; none: all do.
    pub(super) file: Option<OsString>,
}

/// Watches some folders.
pub(super) struct Changes {
    changed: Arc<Notify>,
    /// None where the system gives no watches; then the slow look is all.
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// Watches those of `places` that exist.
    pub(super) fn of(places: Vec<Place>) -> Self {
        let changed = Arc::new(Notify::new());
        let (notify, watched) = (changed.clone(), places.clone());
        let seen = move |event: Result<notify::Event, notify::Error>| {
            if event.is_ok_and(|event| concerns(&event, &watched)) {
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
        for Place { folder, .. } in &places {
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

/// Whether an event is news. A read is an event as well, and our own; so is a write of a log that
/// happens to lie beside a token. A kubelet swaps the link `..data`, whatever the files are called.
fn concerns(event: &notify::Event, places: &[Place]) -> bool {
    let counts = |path: &Path, place: &Place| match path.strip_prefix(&place.folder) {
        Err(_) => false,
        Ok(name) => {
            let name = name.as_os_str();
            name.is_empty()
                || name.as_encoded_bytes().starts_with(b"..")
                || place.file.as_ref().is_none_or(|file| file == name)
        }
    };
    !event.kind.is_access()
        && (event.paths.is_empty()
            || event.paths.iter().any(|path| places.iter().any(|place| counts(path, place))))
}

#[cfg(test)]
mod tests {
    use notify::{
        Event, EventKind,
        event::{AccessKind, ModifyKind},
    };

    use super::*;

    #[test]
    fn what_lies_beside_a_token_is_no_news_and_neither_is_a_read() {
        let places = [
            Place { folder: "/trust".into(), file: None },
            Place { folder: "/token".into(), file: Some("token".into()) },
        ];
        let news = |kind, path: &str| concerns(&Event::new(kind).add_path(path.into()), &places);
        let written = EventKind::Modify(ModifyKind::Any);
        for path in ["/trust/root.json", "/trust/..data", "/token/token", "/token/..data", "/token"]
        {
            assert!(news(written, path), "{path}");
            assert!(!news(EventKind::Access(AccessKind::Any), path), "{path}");
        }
        assert!(!news(written, "/token/agent.log"));
        assert!(concerns(&Event::new(written), &places), "events were lost: look at everything");
    }
}
