//! Looks for a text in every place where this process could have put it outside its memory.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Larger files are none that a spool of these tests could be.
const MAX: u64 = 256 * 1024 * 1024;

/// How deep the folders for temporary files are searched: others keep theirs there as well.
const TEMPORARY: usize = 2;

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Files that were read.
    pub(crate) read: usize,
    /// Those that hold the text, plain or compressed.
    pub(crate) holding: Vec<String>,
}

/// Looks into all regular files that this process has open, deleted ones included, into everything
/// mapped from a file, into `folder`, and into the folders for temporary files as far as they are
/// younger than `folder`.
pub(crate) fn files_that_hold(text: &str, folder: &Path) -> Looked {
    let mut looked = Looked::default();
    let born = fs::metadata(folder).unwrap().created().unwrap_or(SystemTime::UNIX_EPOCH);
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        look(&entry.path(), text, &mut looked);
    }
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
        let ours = !name.contains("/target/") && !name.contains("/lib");
        assert!(!name.starts_with("/memfd:"), "{name}");
        if name.starts_with('/') && ours {
            look(Path::new(name), text, &mut looked);
        }
    }
    walk(folder, usize::MAX, born, text, &mut looked);
    for root in [&std::env::temp_dir(), Path::new("/var/tmp"), Path::new("/dev/shm")] {
        walk(root, TEMPORARY, born, text, &mut looked);
    }
    looked.holding.sort();
    looked.holding.dedup();
    looked
}

fn walk(folder: &Path, depth: usize, born: SystemTime, text: &str, looked: &mut Looked) {
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), depth - 1, born, text, looked);
        } else if metadata.modified().is_ok_and(|at| at >= born) {
            look(&entry.path(), text, looked);
        }
    }
}

fn look(path: &Path, text: &str, looked: &mut Looked) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if !metadata.is_file() || metadata.len() > MAX {
        return;
    }
    let Ok(data) = fs::read(path) else { return };
    looked.read += 1;
    if memchr::memmem::find(&data, text.as_bytes()).is_some() {
        let name: PathBuf = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
        looked.holding.push(name.display().to_string());
    }
}
