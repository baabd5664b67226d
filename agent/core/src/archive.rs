//! The archive: a tar stream in gzip members, written piece by piece.
//!
//! After [`crate::redact`], before [`crate::seal`]. `tar xzf` opens it.
//!
//! | entry | content |
//! |---|---|
//! | `logs/<namespace>/<pod>/<container>/current.log` | redacted records, newest last |
//! | `logs/…/previous.log` | the same of the run before the last restart |
//! | `events.jsonl`, `status.jsonl` | Kubernetes events and component status |
//! | `resources.jsonl` | custom resources of the Mendix Operator, their values masked |
//! | `errors.jsonl` | everything that could not be collected, with its reason |
//! | `redaction.json` | counts by class, never values |
//! | `manifest.json` | last: what is in it, with lengths and SHA-256 |
//!
//! A tar header holds its entry's length, and the length of a log is known only at its end. So a
//! log is cut into entries of at most [`MAX_ENTRY`], between lines: `current.0001.log`,
//! `current.0002.log` …, which `cat current.*.log` joins again. Each entry is a gzip member of its
//! own ([`Packed`]): it can be made where the log is read, concatenated members are a gzip file
//! again, and a reader can start at any of them.
//!
//! The entries of one log wait in a [`Held`] until the log has been read to its end. That is what
//! makes two promises possible in one pass and in bounded memory: a log in which something is found
//! at its end leaves nothing behind, and of a log that is too long the newest entries are kept.

mod log;
mod path;

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use thiserror::Error;

pub use self::{
    log::{Held, MAX_HELD, Part, Parts},
    path::{EntryPath, Run},
};
use crate::envelope::sha256;

/// Most plaintext in one entry.
pub const MAX_ENTRY: usize = 1024 * 1024;
/// Length of a block of tar.
const BLOCK: usize = 512;

/// Why something can't go into an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A part of a path that could lead elsewhere.
    #[error(
        "{part:?} can't be part of a path: 1 to {} of [A-Za-z0-9._-], not dots alone",
        path::MAX_COMPONENT
    )]
    Path {
        /// The part.
        part: String,
    },
    /// An entry over [`MAX_ENTRY`].
    #[error("entry {path} has {size} bytes; at most {MAX_ENTRY} fit")]
    TooLarge {
        /// Its path.
        path: String,
        /// Its size.
        size: usize,
    },
    /// Compression failed.
    #[error("write the archive")]
    Io(#[from] io::Error),
}

/// One entry of an archive, compressed: a whole gzip member. Archives are made by writing one after
/// the other and [`end`] last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its path.
    pub path: EntryPath,
    /// Length of its content.
    pub size: usize,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// The gzip member.
    pub bytes: Vec<u8>,
}

impl Packed {
    /// Packs an entry; `mtime` in seconds since 1970.
    ///
    /// # Errors
    /// [`ArchiveError::TooLarge`], [`ArchiveError::Io`].
    pub fn new(path: EntryPath, data: &[u8], mtime: u64) -> Result<Self, ArchiveError> {
        if data.len() > MAX_ENTRY {
            return Err(ArchiveError::TooLarge { path: path.as_str().into(), size: data.len() });
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(mtime);
        header.set_entry_type(tar::EntryType::Regular);
        // The header alone, long names included; the content follows without a copy of it.
        let mut head = tar::Builder::new(Vec::new());
        head.append_data(&mut header, path.as_str(), io::empty())?;
        let head = std::mem::take(head.get_mut());
        let mut member = GzBuilder::new().write(Vec::new(), Compression::default());
        member.write_all(&head)?;
        member.write_all(data)?;
        member.write_all(&[0; BLOCK][..data.len().next_multiple_of(BLOCK) - data.len()])?;
        let (size, sha256) = (data.len(), sha256(data));
        Ok(Self { path, size, sha256, bytes: member.finish()? })
    }
}

/// The end of an archive: two empty blocks, in a gzip member.
///
/// # Errors
/// [`ArchiveError::Io`].
pub fn end() -> Result<Vec<u8>, ArchiveError> {
    let mut member = GzBuilder::new().write(Vec::new(), Compression::default());
    member.write_all(&[0; 2 * BLOCK])?;
    Ok(member.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;

    use super::*;

    fn log(part: Option<u32>) -> EntryPath {
        EntryPath::log("mendix-operator", "operator-5f6d", "manager", Run::Current, part).unwrap()
    }

    fn read_back(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
        tar.entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut data = vec![];
                entry.read_to_end(&mut data).unwrap();
                (path, data)
            })
            .collect()
    }

    fn archive(entries: &[(EntryPath, &[u8])]) -> Vec<u8> {
        let mut out = vec![];
        for (path, data) in entries {
            out.extend(Packed::new(path.clone(), data, 1_700_000_000).unwrap().bytes);
        }
        out.extend(end().unwrap());
        out
    }

    #[test]
    fn entries_come_back_through_ordinary_tar_and_gzip() {
        let big = vec![b'x'; MAX_ENTRY];
        let entries = read_back(&archive(&[
            (log(Some(1)), &big),
            (log(Some(2)), b"tail\n"),
            (EntryPath::events(), b""),
            (EntryPath::manifest(), b"{}"),
        ]));
        let paths: Vec<_> = entries.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "logs/mendix-operator/operator-5f6d/manager/current.0001.log",
                "logs/mendix-operator/operator-5f6d/manager/current.0002.log",
                "events.jsonl",
                "manifest.json"
            ]
        );
        assert_eq!(entries[0].1, big);
        assert_eq!(entries[1].1, b"tail\n");
        let over = vec![0; MAX_ENTRY + 1];
        assert!(matches!(Packed::new(log(None), &over, 0), Err(ArchiveError::TooLarge { .. })));
    }

    #[test]
    fn every_entry_is_a_gzip_file_of_its_own() {
        let packed = Packed::new(log(None), b"line\n", 0).unwrap();
        assert_eq!(read_back(&packed.bytes), [(log(None).as_str().to_owned(), b"line\n".to_vec())]);
        assert_eq!((packed.size, packed.sha256), (5, sha256(b"line\n")));
    }

    #[test]
    fn names_at_their_longest_survive() {
        let pod = "p".repeat(253);
        let name = "n".repeat(63);
        let path = EntryPath::log(&name, &pod, &name, Run::Previous, None).unwrap();
        let entries = read_back(&archive(&[(path.clone(), b"x"), (log(None), b"y")]));
        assert_eq!(entries[0], (path.as_str().to_owned(), b"x".to_vec()));
        assert_eq!(entries[1].1, b"y");
    }

    #[test]
    fn a_log_that_looks_like_a_tar_header_stays_inside_its_entry() {
        let mut inner = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        inner.append_data(&mut header, "manifest.json", b"{}".as_slice()).unwrap();
        let forged = inner.into_inner().unwrap();
        let entries = read_back(&archive(&[(log(None), &forged)]));
        assert_eq!(entries, [(log(None).as_str().to_owned(), forged)]);
    }
}
