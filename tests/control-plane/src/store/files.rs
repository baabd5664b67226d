//! Files that survive a crash at any instant: written whole beside their place, synced, renamed.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// Longest wait for another process that changes the same state.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two tries to get the lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Mode 0600: private keys and what was derived from tokens.
    Owner,
    /// Mode 0644: certificates, public keys, metadata.
    Everyone,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        }
    }
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// What a file has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// A loss of power: synced before it is renamed.
    Power,
    /// The end of this process: left to the system's cache.
    Process,
}

/// Replaces `path` with `bytes` so that a reader sees the old or the new content, never a part.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), StoreError> {
    replace(path, bytes, access, Durability::Power)
}

fn replace(
    path: &Path,
    bytes: &[u8],
    access: Access,
    durability: Durability,
) -> Result<(), StoreError> {
    let parent = folder_of(path);
    create_dir(parent)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = parent.join(format!(".{name}.{}.{number}", std::process::id()));
    let result = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(access.mode()))?;
        file.write_all(bytes)?;
        match durability {
            Durability::Process => fs::rename(&temporary, path),
            Durability::Power => {
                file.sync_all()?;
                fs::rename(&temporary, path)?;
                sync_dir(parent)
            }
        }
    })();
    result.map_err(|source| {
        // The temporary file may not exist; what matters is the error that is reported.
        let _ = fs::remove_file(&temporary);
        StoreError::file("write", path, source)
    })
}

/// A bare name is in the working folder, which `parent` calls by no name at all.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// [`write()`] of `value` as indented JSON, readable by the owner only.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    write(path, &json(path, value)?, Access::Owner)
}

/// [`write_json`] for what is written often and is worth little: not synced.
pub(crate) fn write_observation<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    replace(path, &json(path, value)?, Access::Owner, Durability::Process)
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| StoreError::Json { path: path.to_path_buf(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a JSON file; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::file("read", path, source)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Json { path: path.to_path_buf(), source })
}

/// Reads a file that must be there.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| StoreError::file("read", path, source))
}

/// Names of the entries of a folder with `suffix` (stripped), sorted; none when there is no folder.
pub(crate) fn names(dir: &Path, suffix: &str) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::file("list", dir, source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| StoreError::file("list", dir, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(suffix)
            && !name.starts_with('.')
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Makes a folder and its parents.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(|source| StoreError::file("create", dir, source))
}

/// Makes a rename or a removal inside `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An exclusive lock on the state folder, held until it is dropped. Taken for every
/// read-change-write, by the server and by operator commands alike.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock, at most [`LOCK_DEADLINE`].
    pub(crate) fn acquire(path: PathBuf) -> Result<Self, StoreError> {
        Self::acquire_until(path, Instant::now() + LOCK_DEADLINE)
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_acquire(path: PathBuf) -> Result<Self, StoreError> {
        Self::acquire_until(path, Instant::now())
    }

    fn acquire_until(path: PathBuf, deadline: Instant) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(Access::Owner.mode())
            .open(&path)
            .map_err(|source| StoreError::file("open", &path, source))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Busy { path }),
                Err(fs::TryLockError::Error(source)) => {
                    return Err(StoreError::file("lock", &path, source));
                }
            }
        }
    }
}
