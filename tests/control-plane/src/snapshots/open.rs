//! Opening a snapshot: what support does with the ticket's key.
//!
//! Digest of the sealed stream first, then one straight stream: unseal, gunzip, untar. What is written
//! goes to a place beside the wanted one, which is renamed only when the last segment was authentic. A
//! snapshot that was cut off leaves nothing behind.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_STANDARD};
use mendix_agent_core::{
    seal::{self, FileKey, Header, Opener, SealError, WrappedKey},
    transfer::{ReceiveError, Receiver},
};
use mendix_agent_proto::limits::MAX_SNAPSHOT_CHUNK;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{
    UploadRecord, UploadState,
    unpack::{FileSummary, unpack, walk},
};
use crate::{
    portal::{self, PortalError},
    store::{Store, StoreError},
};

/// Largest of the files that are read to summarise: `redaction.json`, `manifest.json`, `errors.jsonl`.
const MAX_SUMMARISED: u64 = 16 * 1024 * 1024;

/// Why a snapshot could not be opened. Nothing is left behind then.
#[derive(Debug, Error)]
pub enum OpenError {
    /// State can't be read, or the target folder can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ticket's key can't be used.
    #[error("can't get the ticket's key")]
    Portal(#[from] PortalError),
    /// It is not complete.
    #[error("snapshot {snapshot_id} is {state}; only a finished one can be opened by anybody")]
    NotFinished {
        /// Its id.
        snapshot_id: String,
        /// Where it stands.
        state: String,
    },
    /// The stored stream is not the one that was finished.
    #[error("the stored stream is not the one that the agent finished")]
    Digest(#[source] ReceiveError),
    /// It does not open.
    #[error("it does not open with the ticket's key")]
    Seal(#[source] SealError),
    /// It opens, and a file in it is not what its manifest says.
    #[error("{path} is not what the manifest says")]
    Manifest {
        /// The file.
        path: String,
    },
    /// It opens, and what is inside can't be unpacked.
    #[error("its archive can't be unpacked")]
    Archive(#[source] io::Error),
}

/// What was in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Its id.
    pub snapshot_id: String,
    /// The cluster it comes from.
    pub cluster_uid: String,
    /// The ticket it was taken for.
    pub ticket_id: String,
    /// Sealed bytes.
    pub sealed_size: u64,
    /// SHA-256 of the sealed stream, hex; it was checked.
    pub sealed_sha256: String,
    /// Files in the order of the archive.
    pub files: Vec<FileSummary>,
    /// `redaction.json`: how much was replaced, by rule; never what.
    pub redaction: Option<Value>,
    /// `manifest.json`.
    pub manifest: Option<Value>,
    /// Lines of `errors.jsonl`: what could not be collected.
    pub errors: Vec<Value>,
}

impl Summary {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// A finished snapshot whose digest was checked and whose key was unwrapped.
pub(super) struct Checked {
    pub(super) upload: UploadRecord,
    pub(super) size: u64,
    pub(super) sha256: String,
    header: Header,
    key: FileKey,
}

impl Checked {
    /// Checks everything that can be before the body is read.
    pub(super) fn new(store: &Store, snapshot_id: &str) -> Result<Self, OpenError> {
        let upload = store.upload(snapshot_id)?;
        let UploadState::Finished { size, sha256, encapsulated_key, wrapped_key, .. } =
            &upload.state
        else {
            let state = match &upload.state {
                UploadState::Aborted { reason, .. } => format!("aborted ({reason})"),
                _ => "still being received".to_owned(),
            };
            return Err(OpenError::NotFinished { snapshot_id: snapshot_id.to_owned(), state });
        };
        let unreadable = |source| StoreError::file("read", Path::new(snapshot_id), source);
        let stored =
            Receiver::restored(u64::MAX, store.sealed(snapshot_id)?).map_err(unreadable)?;
        stored
            .finish(*size, &hex::decode(sha256).unwrap_or_default())
            .map_err(OpenError::Digest)?;
        let header = Header::parse(&upload.header_bytes()).map_err(OpenError::Seal)?;
        let key = portal::ticket_key(store, &upload.ticket_id, &upload.recipient)?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).unwrap_or_default();
        let wrapped = WrappedKey {
            encapsulated_key: decode(encapsulated_key),
            wrapped_key: decode(wrapped_key),
        };
        let key = seal::unwrap_key(&wrapped, &header, &key).map_err(OpenError::Seal)?;
        let (size, sha256) = (*size, sha256.clone());
        Ok(Self { upload, size, sha256, header, key })
    }

    /// The archive. Its end comes only after the last segment was authentic.
    pub(super) fn archive(&self, store: &Store) -> Result<impl Read + use<>, OpenError> {
        let opener = Opener::new(&self.key, &self.header).map_err(OpenError::Seal)?;
        Ok(Unsealed::new(store.sealed(&self.upload.snapshot_id)?, opener))
    }

    fn summary(&self, files: Vec<FileSummary>) -> Summary {
        Summary {
            snapshot_id: self.upload.snapshot_id.clone(),
            cluster_uid: self.upload.cluster_uid.clone(),
            ticket_id: self.upload.ticket_id.clone(),
            sealed_size: self.size,
            sealed_sha256: self.sha256.clone(),
            files,
            redaction: None,
            manifest: None,
            errors: vec![],
        }
    }
}

fn refuse_existing(out: &Path, what: &'static str) -> Result<(), StoreError> {
    if out.exists() {
        let name = out.display().to_string();
        return Err(StoreError::Exists { what, name, hint: "; choose another --out" });
    }
    Ok(())
}

/// The folder that `path` is in; made if need be.
fn parent(path: &Path) -> Result<&Path, StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| StoreError::file("create", parent, source))?;
    Ok(parent)
}

/// Opens a finished snapshot into `out`, a folder that does not exist yet.
///
/// # Errors
/// When it is not finished, altered, not for the key of its ticket, or holds what an archive of
/// logs has no need for (links, devices, paths that lead out).
pub fn open(store: &Store, snapshot_id: &str, out: &Path) -> Result<Summary, OpenError> {
    refuse_existing(out, "folder")?;
    let checked = Checked::new(store, snapshot_id)?;
    let parent = parent(out)?;
    let partial = tempfile::Builder::new()
        .prefix(".snapshot-")
        .tempdir_in(parent)
        .map_err(|source| StoreError::file("create a folder in", parent, source))?;
    let files = unpack(checked.archive(store)?, partial.path()).map_err(OpenError::Archive)?;
    let summary = Summary {
        redaction: json(partial.path(), "redaction.json"),
        manifest: json(partial.path(), "manifest.json"),
        errors: lines(partial.path(), "errors.jsonl"),
        ..checked.summary(files)
    };
    fs::rename(partial.path(), out).map_err(|source| StoreError::file("write", out, source))?;
    // Renamed: there is nothing left to clean up.
    let _ = partial.keep();
    Ok(summary)
}

/// Writes the archive of a finished snapshot to `out`, a file that does not exist yet: what
/// `tar xzf` takes. Gives its length.
///
/// # Errors
/// As [`open`].
pub fn decrypt(store: &Store, snapshot_id: &str, out: &Path) -> Result<u64, OpenError> {
    refuse_existing(out, "file")?;
    let checked = Checked::new(store, snapshot_id)?;
    let parent = parent(out)?;
    let mut partial = tempfile::Builder::new()
        .prefix(".snapshot-")
        .tempfile_in(parent)
        .map_err(|source| StoreError::file("create a file in", parent, source))?;
    let written =
        io::copy(&mut checked.archive(store)?, &mut partial).map_err(OpenError::Archive)?;
    partial
        .persist_noclobber(out)
        .map_err(|failed| StoreError::file("write", out, failed.error))?;
    Ok(written)
}

/// Reads every byte of a finished snapshot and holds it against its manifest; writes nothing.
///
/// # Errors
/// As [`open`], and when a file is not what the manifest says.
pub fn verify(store: &Store, snapshot_id: &str) -> Result<Summary, OpenError> {
    let checked = Checked::new(store, snapshot_id)?;
    let mut found = Vec::new();
    let mut manifest = Vec::new();
    let files = walk(checked.archive(store)?, |path, entry| {
        let mut digest = Context::new(&SHA256);
        let mut data = vec![0; MAX_SNAPSHOT_CHUNK];
        let mut size = 0;
        let kept = path == Path::new("manifest.json");
        loop {
            let read = entry.read(&mut data)?;
            let piece = data.get(..read).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            digest.update(piece);
            size += read as u64;
            if kept && size <= MAX_SUMMARISED {
                manifest.extend_from_slice(piece);
            }
        }
        found.push((path.display().to_string(), size, hex::encode(digest.finish())));
        Ok(size)
    })
    .map_err(OpenError::Archive)?;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let listed: Vec<_> = manifest["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| {
            let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
            (text("path"), file["bytes"].as_u64().unwrap_or(0), text("sha256"))
        })
        .collect();
    // The manifest lists all that came before it.
    found.pop();
    if let Some((path, ..)) = found.iter().zip(&listed).find(|(a, b)| a != b).map(|(a, _)| a) {
        return Err(OpenError::Manifest { path: path.clone() });
    }
    if found.len() != listed.len() {
        return Err(OpenError::Manifest { path: "manifest.json".into() });
    }
    Ok(Summary { manifest: Some(manifest), ..checked.summary(files) })
}

fn json(dir: &Path, name: &str) -> Option<Value> {
    serde_json::from_slice(&small(dir, name)?).ok()
}

fn lines(dir: &Path, name: &str) -> Vec<Value> {
    let text = small(dir, name).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn small(dir: &Path, name: &str) -> Option<Vec<u8>> {
    let path = dir.join(name);
    let size = fs::metadata(&path).ok()?.len();
    if size <= MAX_SUMMARISED { fs::read(path).ok() } else { None }
}

/// The plaintext of a sealed stream. Its end is only reported when the last segment was authentic.
struct Unsealed<R> {
    sealed: R,
    opener: Option<Opener>,
    plain: Vec<u8>,
    at: usize,
}

impl<R: Read> Unsealed<R> {
    fn new(sealed: R, opener: Opener) -> Self {
        Self { sealed, opener: Some(opener), plain: Vec::new(), at: 0 }
    }

    fn refill(&mut self) -> io::Result<bool> {
        self.plain.clear();
        self.at = 0;
        let mut chunk = vec![0; MAX_SNAPSHOT_CHUNK];
        while self.plain.is_empty() {
            let Some(opener) = &mut self.opener else { return Ok(false) };
            match self.sealed.read(&mut chunk)? {
                0 => {
                    if let Some(opener) = self.opener.take() {
                        opener.finish(&mut self.plain).map_err(io::Error::other)?;
                    }
                }
                read => opener
                    .push(chunk.get(..read).unwrap_or_default(), &mut self.plain)
                    .map_err(io::Error::other)?,
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.plain.len() && !self.refill()? {
            return Ok(0);
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let size = rest.len().min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        self.at += size;
        Ok(size)
    }
}
