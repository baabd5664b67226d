//! Unpacking an opened snapshot: regular files and folders, inside of one folder.
//!
//! It needs nothing of the control plane, and stands alone so that tests/fuzz can build it without.

use std::{
    fs,
    io::{self, Read},
    path::{Component, Path},
};

use flate2::read::MultiGzDecoder;
use serde::Serialize;

/// Most bytes that are unpacked.
const MAX_UNPACKED: u64 = 8 * 1024 * 1024 * 1024;
/// Most files that are unpacked.
const MAX_FILES: usize = 100_000;

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// Path inside the snapshot.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Unpacks regular files into `dir`, and reads to the authentic end.
///
/// # Errors
/// When it holds anything else, a path that leads out, a file twice, or more than is ever unpacked;
/// `dir` then holds what came before.
pub(super) fn unpack(plain: impl Read, dir: &Path) -> io::Result<Vec<FileSummary>> {
    walk(plain, |path, entry| {
        let target = dir.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&target)?;
        io::copy(entry, &mut file)
    })
}

/// Gives every regular file of the archive to `take`, which gives how long it was, and reads to the
/// authentic end.
pub(super) fn walk(
    plain: impl Read,
    mut take: impl FnMut(&Path, &mut dyn Read) -> io::Result<u64>,
) -> io::Result<Vec<FileSummary>> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut archive = tar::Archive::new(MultiGzDecoder::new(plain).take(MAX_UNPACKED));
    let mut files = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return refuse(format!("{} leads out of the archive", path.display()));
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return refuse(format!("{} is neither a file nor a folder", path.display()));
        }
        if files.len() >= MAX_FILES {
            return refuse(format!("more than {MAX_FILES} files"));
        }
        let size = take(&path, &mut entry)?;
        files.push(FileSummary { path: path.display().to_string(), size });
    }
    // The archive may end before the stream does; only its last segment says that it is complete.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    if rest.limit() == 0 {
        return refuse(format!("more than {MAX_UNPACKED} bytes"));
    }
    io::copy(rest.into_inner().get_mut(), &mut io::sink())?;
    Ok(files)
}
