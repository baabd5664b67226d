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

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use flate2::{Compression, GzBuilder};
use thiserror::Error;

use crate::envelope::sha256;

/// Most plaintext in one entry.
pub const MAX_ENTRY: usize = 1024 * 1024;
/// Most compressed bytes of one log that wait for its end; beyond, the oldest entries go. Ordinary
/// logs shrink to a tenth or less, so this is about 60 MiB of text, and more than a node keeps of
/// one container (50 MB on AKS). Four logs are read at once.
pub const MAX_HELD: usize = 6 * 1024 * 1024;
/// Length of a block of tar.
const BLOCK: usize = 512;
/// Longest part of a path.
const MAX_COMPONENT: usize = 253;

/// Why something can't go into an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A part of a path that could lead elsewhere.
    #[error(
        "{part:?} can't be part of a path: 1 to {MAX_COMPONENT} of [A-Za-z0-9._-], not dots alone"
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

/// Which run of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    /// The one that runs, or the last one.
    Current,
    /// The one before the last restart.
    Previous,
}

impl Run {
    /// `current` or `previous`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// A path inside the archive; only the shapes above can be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

impl EntryPath {
    /// Path of a log. `part` counts from 1 in a log of several entries; none if it is the only one.
    ///
    /// Names may have been redacted: the placeholder's brackets and colons become underscores.
    ///
    /// # Errors
    /// [`ArchiveError::Path`].
    pub fn log(
        namespace: &str,
        pod: &str,
        container: &str,
        run: Run,
        part: Option<u32>,
    ) -> Result<Self, ArchiveError> {
        let (namespace, pod, container) =
            (component(namespace)?, component(pod)?, component(container)?);
        let run = run.name();
        Ok(Self(match part {
            None => format!("logs/{namespace}/{pod}/{container}/{run}.log"),
            Some(part) => format!("logs/{namespace}/{pod}/{container}/{run}.{part:04}.log"),
        }))
    }

    /// `events.jsonl`.
    pub fn events() -> Self {
        Self("events.jsonl".into())
    }

    /// `resources.jsonl`.
    pub fn resources() -> Self {
        Self("resources.jsonl".into())
    }

    /// `status.jsonl`.
    pub fn status() -> Self {
        Self("status.jsonl".into())
    }

    /// `errors.jsonl`.
    pub fn errors() -> Self {
        Self("errors.jsonl".into())
    }

    /// `redaction.json`.
    pub fn redaction() -> Self {
        Self("redaction.json".into())
    }

    /// `manifest.json`.
    pub fn manifest() -> Self {
        Self("manifest.json".into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn component(part: &str) -> Result<String, ArchiveError> {
    let safe: String =
        part.chars().map(|c| if matches!(c, '[' | ']' | ':') { '_' } else { c }).collect();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let only_dots = safe.bytes().all(|b| b == b'.');
    if safe.len() > MAX_COMPONENT || !safe.bytes().all(plain) || only_dots {
        return Err(ArchiveError::Path { part: part.chars().take(MAX_COMPONENT).collect() });
    }
    Ok(safe)
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
            return Err(ArchiveError::TooLarge { path: path.0, size: data.len() });
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(mtime);
        header.set_entry_type(tar::EntryType::Regular);
        // The header alone, long names included; the content follows without a copy of it.
        let mut head = tar::Builder::new(Vec::new());
        head.append_data(&mut header, &path.0, io::empty())?;
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

/// The newest entries of one log, at most [`MAX_HELD`] bytes of them.
#[derive(Debug, Default)]
pub struct Held {
    entries: VecDeque<Packed>,
    bytes: usize,
    dropped: u64,
}

impl Held {
    /// Adds the next entry; the oldest ones go when there is no room.
    pub fn push(&mut self, entry: Packed) {
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
        self.shrink(MAX_HELD, usize::MAX);
    }

    /// Keeps the newest entries that fit into `bytes` and `files`.
    pub fn shrink(&mut self, bytes: usize, files: usize) {
        while self.bytes > bytes || self.entries.len() > files {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
            self.dropped += oldest.size as u64;
        }
    }

    /// Compressed bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries are held.
    pub fn files(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of text that were dropped, all of them older than what is held.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The entries, oldest first.
    pub fn into_entries(self) -> impl Iterator<Item = Packed> {
        self.entries.into_iter()
    }
}

/// Cuts a redacted log into entries of at most [`MAX_ENTRY`], between lines where there is one.
#[derive(Debug, Default)]
pub struct Parts {
    buffer: Vec<u8>,
    emitted: u32,
}

/// One entry's worth of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number from 1; none if the log has only this one.
    pub number: Option<u32>,
    /// Its content, never empty.
    pub data: Vec<u8>,
}

impl Parts {
    /// Where redacted bytes are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The next part, once more than one entry is buffered.
    pub fn ready(&mut self) -> Option<Part> {
        if self.buffer.len() <= MAX_ENTRY {
            return None;
        }
        let cut = memchr::memrchr(b'\n', &self.buffer[..MAX_ENTRY]).map_or(MAX_ENTRY, |at| at + 1);
        let rest = self.buffer.split_off(cut);
        let data = std::mem::replace(&mut self.buffer, rest);
        self.emitted += 1;
        Some(Part { number: Some(self.emitted), data })
    }

    /// The last part; none if there is nothing left. Call [`Parts::ready`] until it is empty first.
    pub fn last(self) -> Option<Part> {
        if self.buffer.is_empty() {
            return None;
        }
        let number = (self.emitted > 0).then_some(self.emitted + 1);
        Some(Part { number, data: self.buffer })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;
    use proptest::prelude::*;

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
    fn the_newest_entries_are_the_ones_that_are_held() {
        // Numbers that hardly compress: a full entry takes about half of its length.
        let mut state = 1u64;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"0123456789abcdef"[(state >> 60) as usize]
        };
        let data: Vec<u8> = (0..MAX_ENTRY).map(|_| noise()).collect();
        let mut held = Held::default();
        let count = 30;
        for n in 1..=count {
            held.push(Packed::new(log(Some(n)), &data, 0).unwrap());
            assert!(held.bytes() <= MAX_HELD);
        }
        let kept = held.files();
        assert!((5..20).contains(&kept), "{kept}");
        assert_eq!(held.dropped(), (count as u64 - kept as u64) * MAX_ENTRY as u64);
        held.shrink(usize::MAX, 2);
        let last: Vec<_> = held.into_entries().map(|entry| entry.path).collect();
        assert_eq!(last, [log(Some(count - 1)), log(Some(count))]);
    }

    #[test]
    fn no_name_leads_out_of_the_archive() {
        for part in ["", ".", "..", "...", "a/b", "a\\b", "/", "a\0b", "a\nb", "é", "\u{202e}a"] {
            assert!(
                EntryPath::log(part, "pod", "c", Run::Current, None).is_err()
                    && EntryPath::log("ns", part, "c", Run::Current, None).is_err()
                    && EntryPath::log("ns", "pod", part, Run::Current, None).is_err(),
                "{part:?}"
            );
        }
        let long = "a".repeat(254);
        assert!(EntryPath::log("ns", &long, "c", Run::Current, None).is_err());
    }

    #[test]
    fn a_redacted_name_becomes_a_plain_one() {
        let path = EntryPath::log("ns", "x-[R:email:0a1b2c3d]", "c", Run::Current, None).unwrap();
        assert_eq!(path.as_str(), "logs/ns/x-_R_email_0a1b2c3d_/c/current.log");
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

    #[test]
    fn a_short_log_is_one_entry_and_an_empty_one_is_none() {
        let mut parts = Parts::default();
        parts.buffer().extend_from_slice(b"line\n");
        assert_eq!(parts.ready(), None);
        assert_eq!(parts.last(), Some(Part { number: None, data: b"line\n".to_vec() }));
        assert_eq!(Parts::default().last(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn parts_join_to_the_log_and_break_between_lines(
            lines in proptest::collection::vec(1usize..300_000, 1..12),
        ) {
            let mut parts = Parts::default();
            let (mut all, mut cut) = (vec![], vec![]);
            for len in lines {
                let mut line = vec![b'x'; len];
                line.push(b'\n');
                all.extend_from_slice(&line);
                parts.buffer().extend_from_slice(&line);
                while let Some(part) = parts.ready() {
                    cut.push(part);
                }
            }
            cut.extend(parts.last());
            for (n, part) in cut.iter().enumerate() {
                prop_assert!(part.data.len() <= MAX_ENTRY && part.data.ends_with(b"\n"));
                let number = u32::try_from(n + 1).unwrap();
                prop_assert_eq!(part.number, (cut.len() > 1).then_some(number));
            }
            prop_assert_eq!(cut.into_iter().flat_map(|part| part.data).collect::<Vec<_>>(), all);
        }
    }
}
