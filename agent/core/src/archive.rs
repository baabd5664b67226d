//! The archive: a tar stream in gzip members, written piece by piece.
//!
//! After [`crate::redact`], before [`crate::seal`]. `tar xzf` opens it.
//!
//! | entry | content |
//! |---|---|
//! | `logs/<namespace>/<pod>/<container>/current.log` | redacted records, newest last |
//! | `logs/…/previous.log` | the same of the run before the last restart |
//! | `events.jsonl`, `status.jsonl` | Kubernetes events and component status |
//! | `errors.jsonl` | everything that could not be collected, with its reason |
//! | `redaction.json` | counts by class, never values |
//! | `manifest.json` | last: what is in it, with lengths and SHA-256 |
//!
//! A tar header holds its entry's length, and the length of a log is known only at its end. So a
//! log is buffered up to [`MAX_ENTRY`]; a longer one becomes numbered entries `current.0001.log`,
//! `current.0002.log` …, cut between lines, which `cat current.*.log` joins again. Each gzip member
//! holds [`MEMBER`] bytes of tar: memory stays bounded and a reader can start at any member.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use thiserror::Error;

/// Most plaintext in one entry.
pub const MAX_ENTRY: usize = 1024 * 1024;
/// Bytes of tar in one gzip member.
pub const MEMBER: usize = 1024 * 1024;
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

/// Writes entries; what is ready comes out of each call. Holds at most one entry and one member.
pub struct ArchiveWriter {
    tar: tar::Builder<Vec<u8>>,
    member: Option<GzEncoder<Vec<u8>>>,
    in_member: usize,
    mtime: u64,
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveWriter").field("in_member", &self.in_member).finish_non_exhaustive()
    }
}

impl ArchiveWriter {
    /// A new archive. Every entry gets `mtime`, seconds since 1970.
    pub fn new(mtime: u64) -> Self {
        Self { tar: tar::Builder::new(Vec::new()), member: None, in_member: 0, mtime }
    }

    /// Appends an entry; compressed bytes that are ready are appended to `out`.
    ///
    /// # Errors
    /// [`ArchiveError::TooLarge`] (nothing is written), [`ArchiveError::Io`].
    pub fn append(
        &mut self,
        path: &EntryPath,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        if data.len() > MAX_ENTRY {
            return Err(ArchiveError::TooLarge { path: path.0.clone(), size: data.len() });
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        header.set_entry_type(tar::EntryType::Regular);
        self.tar.append_data(&mut header, &path.0, data)?;
        let ready = std::mem::take(self.tar.get_mut());
        self.compress(&ready, out)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.tar.finish()?;
        let end = std::mem::take(self.tar.get_mut());
        self.compress(&end, out)?;
        self.close_member(out)
    }

    fn compress(&mut self, mut tar: &[u8], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        while !tar.is_empty() {
            let take = tar.len().min(MEMBER - self.in_member);
            let (now, later) = tar.split_at(take);
            let member = self
                .member
                .get_or_insert_with(|| GzBuilder::new().write(Vec::new(), Compression::default()));
            member.write_all(now)?;
            self.in_member += take;
            tar = later;
            if self.in_member == MEMBER {
                self.close_member(out)?;
            }
        }
        Ok(())
    }

    fn close_member(&mut self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if let Some(member) = self.member.take() {
            out.append(&mut member.finish()?);
        }
        self.in_member = 0;
        Ok(())
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

    #[test]
    fn entries_come_back_through_ordinary_tar_and_gzip() {
        let mut writer = ArchiveWriter::new(1_700_000_000);
        let mut out = vec![];
        let big = vec![b'x'; MAX_ENTRY];
        writer.append(&log(Some(1)), &big, &mut out).unwrap();
        writer.append(&log(Some(2)), b"tail\n", &mut out).unwrap();
        writer.append(&EntryPath::manifest(), b"{}", &mut out).unwrap();
        writer.finish(&mut out).unwrap();
        let entries = read_back(&out);
        let paths: Vec<_> = entries.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "logs/mendix-operator/operator-5f6d/manager/current.0001.log",
                "logs/mendix-operator/operator-5f6d/manager/current.0002.log",
                "manifest.json"
            ]
        );
        assert_eq!(entries[0].1, big);
        assert_eq!(entries[1].1, b"tail\n");
    }

    #[test]
    fn names_at_their_longest_survive() {
        let pod = "p".repeat(253);
        let name = "n".repeat(63);
        let path = EntryPath::log(&name, &pod, &name, Run::Previous, None).unwrap();
        let mut writer = ArchiveWriter::new(0);
        let mut out = vec![];
        writer.append(&path, b"x", &mut out).unwrap();
        writer.finish(&mut out).unwrap();
        assert_eq!(read_back(&out), [(path.as_str().to_owned(), b"x".to_vec())]);
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
        let mut writer = ArchiveWriter::new(0);
        let mut out = vec![];
        writer.append(&log(None), &forged, &mut out).unwrap();
        writer.finish(&mut out).unwrap();
        assert_eq!(read_back(&out), [(log(None).as_str().to_owned(), forged)]);
    }

    #[test]
    fn output_appears_member_by_member() {
        let mut writer = ArchiveWriter::new(0);
        let mut out = vec![];
        for n in 0..4 {
            writer.append(&log(Some(n)), &vec![b'a'; MEMBER / 2], &mut out).unwrap();
        }
        // Two full members are out already; each is a gzip file of its own.
        let members = memchr::memmem::find_iter(&out, &[0x1f, 0x8b, 8, 0]).count();
        assert_eq!(members, 2);
        assert!(writer.append(&log(None), &vec![0; MAX_ENTRY + 1], &mut out).is_err());
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
