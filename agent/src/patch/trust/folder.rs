//! The folder in which tough keeps what it verified while one update runs.
//!
//! A process that is killed then leaves its folder behind, and in a pod `/tmp` is memory that outlives the
//! container: the next update sweeps what nobody holds any longer. Several agents may share a `/tmp`, on a
//! machine with systemd or in tests: each holds a lock on its folder, which the kernel gives back when the
//! process ends, however it ends.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use tempfile::TempDir;

/// What all of these folders are called, before what tells them apart.
const PREFIX: &str = "mendix-agent-tuf-";
/// The file that is locked while its folder is in use.
const LOCK: &str = "lock";

/// A folder that is gone when it is dropped, or swept after a death.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes one under `parent`, and removes those there that a dead process left.
    ///
    /// # Errors
    /// When it can't be made. That others can't be removed is no error: the next update tries again.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // It has its name only once it is locked: a folder with a lock that can be taken is nobody's.
        let unnamed = folder.path().join("lock-to-be");
        let lock = File::create_new(&unnamed)?;
        lock.lock()?;
        fs::rename(&unnamed, folder.path().join(LOCK))?;
        if let Err(error) = sweep(parent, fs::metadata(folder.path())?.uid()) {
            tracing::debug!(folder = %parent.display(), %error, "left-over folders can't be listed");
        }
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the user's folders whose lock nobody holds.
fn sweep(parent: &Path, user: u32) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not through a link, and nothing of another user, who may have put anything there.
        let is_theirs = |about: fs::Metadata| !about.is_dir() || about.uid() != user;
        if !ours || entry.metadata().map_or(true, is_theirs) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(folder = %entry.path().display(), %error, "a left-over folder stays");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(parent: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(parent).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn name(folder: &Folder) -> String {
        folder.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// What a process leaves that was killed: its lock is free.
    fn left_behind(parent: &Path) -> String {
        let Folder { folder, _lock } = Folder::make(parent).unwrap();
        fs::write(folder.path().join("snapshot.json"), "{}").unwrap();
        folder.keep().file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_folder_goes_with_its_update() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(parent.path()).unwrap();
        fs::write(folder.path().join("snapshot.json"), "{}").unwrap();
        drop(folder);
        assert_eq!(names(parent.path()), BTreeSet::new());
    }

    #[test]
    fn what_a_killed_process_left_is_swept_by_the_next_update() {
        let parent = tempfile::tempdir().unwrap();
        let left = left_behind(parent.path());
        assert_eq!(names(parent.path()), BTreeSet::from([left]));
        let folder = Folder::make(parent.path()).unwrap();
        assert_eq!(names(parent.path()), BTreeSet::from([name(&folder)]));
    }

    #[test]
    fn what_another_agent_uses_and_what_is_not_an_agents_stays() {
        let parent = tempfile::tempdir().unwrap();
        let other = Folder::make(parent.path()).unwrap();
        // Made, and not locked yet.
        let young = format!("{PREFIX}young");
        fs::create_dir(parent.path().join(&young)).unwrap();
        fs::create_dir(parent.path().join("somebodys")).unwrap();
        File::create_new(parent.path().join("somebodys").join(LOCK)).unwrap();
        let target = parent.path().join("somebodys");
        let link = format!("{PREFIX}link");
        std::os::unix::fs::symlink(&target, parent.path().join(&link)).unwrap();
        let folder = Folder::make(parent.path()).unwrap();
        let all = [name(&other), name(&folder), young, link, "somebodys".to_owned()];
        assert_eq!(names(parent.path()), BTreeSet::from(all));
        assert!(target.join(LOCK).exists());
    }

    #[test]
    fn nothing_of_another_user_is_touched() {
        let parent = tempfile::tempdir().unwrap();
        let left = left_behind(parent.path());
        let user = fs::metadata(parent.path()).unwrap().uid();
        sweep(parent.path(), user + 1).unwrap();
        assert_eq!(names(parent.path()), BTreeSet::from([left]));
        sweep(parent.path(), user).unwrap();
        assert_eq!(names(parent.path()), BTreeSet::new());
    }
}
