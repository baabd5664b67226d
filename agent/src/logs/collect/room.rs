//! How much a snapshot may still hold, shared by all that is collected at once.
//!
//! Known before anything is sent: what does not fit is left out and declared, and the snapshot ends
//! with its manifest instead of running into the end of its budget.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most files in a snapshot: bounds the manifest.
const MAX_FILES: usize = 1800;
/// Kept for what the snapshot says about itself: `errors.jsonl`, `redaction.json`, `manifest.json`.
const RECORDS: u64 = 256 * 1024;
/// Sealing adds 16 bytes to 64 KiB; this is more.
const SEALING: u64 = 2048;

/// Compressed bytes and files that are left.
#[derive(Debug)]
pub(in crate::logs) struct Room(Mutex<(usize, usize)>);

impl Room {
    /// For a snapshot of at most `sealed` bytes on the wire.
    pub(in crate::logs) fn of(sealed: u64) -> Self {
        let content = sealed - sealed / SEALING - RECORDS.min(sealed / 2);
        Self(Mutex::new((usize::try_from(content).unwrap_or(usize::MAX), MAX_FILES)))
    }

    fn left(&self) -> MutexGuard<'_, (usize, usize)> {
        // Two numbers, replaced together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no point in reading more.
    pub(super) fn is_used_up(&self) -> bool {
        let (bytes, files) = *self.left();
        bytes == 0 || files == 0
    }

    /// Takes room for one file, all of it or nothing.
    pub(super) fn take_all(&self, bytes: usize) -> bool {
        let mut left = self.left();
        let fits = bytes <= left.0 && left.1 > 0;
        if fits {
            *left = (left.0 - bytes, left.1 - 1);
        }
        fits
    }

    /// Lets `fit` choose what of it to use, given bytes and files that are left; it gives what it
    /// used. When something did not fit there is no room for anything after it either.
    pub(super) fn take(&self, fit: impl FnOnce(usize, usize) -> (usize, usize, bool)) {
        let mut left = self.left();
        let (bytes, files, all) = fit(left.0, left.1);
        *left = if all { (left.0 - bytes, left.1 - files) } else { (0, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_says_about_itself_always_has_room() {
        let room = Room::of(1024 * 1024);
        assert!(!room.take_all(1024 * 1024 - 256 * 1024));
        assert!(room.take_all(760 * 1024));
        let tiny = Room::of(100);
        assert!(!tiny.take_all(51));
        assert!(tiny.take_all(50));
        assert!(tiny.is_used_up());
        assert!(Room::of(0).is_used_up());
    }

    #[test]
    fn a_log_that_did_not_fit_is_the_last_one() {
        let room = Room::of(1024 * 1024);
        room.take(|bytes, files| (bytes / 2, files / 2, true));
        assert!(!room.is_used_up());
        room.take(|bytes, _| (bytes, 1, false));
        assert!(room.is_used_up());
    }
}
