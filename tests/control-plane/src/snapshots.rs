//! Uploaded snapshots on disk: sealed bytes that the server can't read.
//!
//! `snapshots/<id>/upload.json` says what it is and how far; `sealed` holds the chunks, each framed
//! with its length and SHA-256, so that after a crash a chunk is there whole or not at all and the
//! sender is asked for the next one at a boundary it knows.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use mendix_agent_core::{seal::Header, transfer::Receiver};
use mendix_agent_proto::limits::MAX_SNAPSHOT_CHUNK;
use serde::{Deserialize, Serialize};

use crate::{
    crypto,
    store::{Store, StoreError, check_id, files},
};

mod open;
mod timeline;
mod unpack;

pub use open::{OpenError, Summary, decrypt, open, verify};
pub use timeline::{Row, Timeline, timeline};
pub use unpack::FileSummary;

/// Length and SHA-256 before each chunk.
const FRAME: usize = 4 + 32;

/// One upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadRecord {
    /// Its id, made by the agent.
    pub snapshot_id: String,
    /// The cluster it comes from.
    pub cluster_uid: String,
    /// The ticket it is for.
    pub ticket_id: String,
    /// SHA-256 of the grant's envelope, hex.
    pub grant_sha256: String,
    /// Public key of the ticket, base64.
    pub recipient: String,
    /// Canonical header, base64.
    header: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Most sealed bytes it may have.
    pub limit: u64,
    /// Where it stands.
    pub state: UploadState,
}

/// Where an upload stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "state")]
pub enum UploadState {
    /// Bytes arrive.
    Receiving,
    /// Complete.
    Finished {
        /// When.
        at: Timestamp,
        /// Length of the sealed stream.
        size: u64,
        /// Its SHA-256, hex.
        sha256: String,
        /// HPKE encapsulated key, base64.
        encapsulated_key: String,
        /// The sealed file key, base64.
        wrapped_key: String,
    },
    /// Ended without result; its bytes are gone.
    Aborted {
        /// When.
        at: Timestamp,
        /// Reason code.
        reason: String,
    },
}

impl UploadRecord {
    pub(crate) fn new(header: &Header, recipient: String, limit: u64) -> Self {
        Self {
            snapshot_id: header.snapshot_id().to_owned(),
            cluster_uid: header.cluster_uid().to_owned(),
            ticket_id: header.ticket_id().to_owned(),
            grant_sha256: hex::encode(header.grant_sha256()),
            recipient,
            header: BASE64_STANDARD.encode(header.to_bytes()),
            begun_at: Timestamp::now(),
            limit,
            state: UploadState::Receiving,
        }
    }

    pub(crate) fn header_bytes(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.header).unwrap_or_default()
    }
}

impl Store {
    fn upload_dir(&self, snapshot_id: &str) -> PathBuf {
        self.snapshots_dir().join(snapshot_id)
    }

    /// All uploads, oldest first.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn uploads(&self) -> Result<Vec<UploadRecord>, StoreError> {
        let mut uploads = Vec::new();
        for id in files::names(&self.snapshots_dir(), "")? {
            uploads.extend(self.find_upload(&id)?);
        }
        uploads.sort_by_key(|upload| upload.begun_at);
        Ok(uploads)
    }

    /// One upload; `None` when nothing of this id was begun.
    ///
    /// # Errors
    /// When state can't be read, or the id can't be one.
    pub fn find_upload(&self, snapshot_id: &str) -> Result<Option<UploadRecord>, StoreError> {
        check_id("snapshot", snapshot_id)?;
        files::read_json(&self.upload_dir(snapshot_id).join("upload.json"))
    }

    /// One upload.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nothing of this id was begun.
    pub fn upload(&self, snapshot_id: &str) -> Result<UploadRecord, StoreError> {
        self.find_upload(snapshot_id)?.ok_or_else(|| StoreError::NotFound {
            what: "snapshot",
            name: snapshot_id.to_owned(),
            list: "snapshot list",
        })
    }

    pub(crate) fn write_upload(&self, upload: &UploadRecord) -> Result<(), StoreError> {
        files::write_json(&self.upload_dir(&upload.snapshot_id).join("upload.json"), upload)
    }

    /// Ends an upload and removes its bytes.
    pub(crate) fn abort_upload(
        &self,
        mut upload: UploadRecord,
        reason: &str,
    ) -> Result<UploadRecord, StoreError> {
        let reason = reason.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
        upload.state = UploadState::Aborted { at: Timestamp::now(), reason };
        self.write_upload(&upload)?;
        let path = self.upload_dir(&upload.snapshot_id).join("sealed");
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::file("remove", &path, source))
            }
            _ => Ok(upload),
        }
    }

    /// The sealed stream of an upload, to be read.
    pub(crate) fn sealed(
        &self,
        snapshot_id: &str,
    ) -> Result<SealedReader<BufReader<File>>, StoreError> {
        let path = self.upload_dir(snapshot_id).join("sealed");
        let file = File::open(&path).map_err(|source| StoreError::file("open", &path, source))?;
        Ok(SealedReader::new(BufReader::new(file)))
    }

    /// The sealed stream of an upload, to be continued: a chunk that a crash cut off is dropped.
    pub(crate) fn sealed_for_append(
        &self,
        upload: &UploadRecord,
    ) -> Result<SealedWriter, StoreError> {
        let path = self.upload_dir(&upload.snapshot_id).join("sealed");
        let failed = |source| StoreError::file("continue", &path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut reader = SealedReader::new(BufReader::new(&mut file));
        let receiver = Receiver::restored(upload.limit, &mut reader).map_err(failed)?;
        let end = reader.whole;
        file.set_len(end).map_err(failed)?;
        file.seek(SeekFrom::Start(end)).map_err(failed)?;
        files::sync_dir(&self.upload_dir(&upload.snapshot_id)).map_err(failed)?;
        Ok(SealedWriter { file, end, receiver })
    }
}

/// Continues a sealed stream. What [`SealedWriter::append`] returned is on disk.
#[derive(Debug)]
pub(crate) struct SealedWriter {
    file: File,
    end: u64,
    /// What is stored.
    pub(crate) receiver: Receiver,
}

impl SealedWriter {
    /// Stores a chunk that `next` (a checked copy of [`SealedWriter::receiver`]) has accepted.
    pub(crate) fn append(&mut self, next: Receiver, data: &[u8], sha256: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(FRAME + data.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(sha256);
        frame.extend_from_slice(data);
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Back to the last whole chunk; if even this fails, the next reader drops the rest.
            let _ = self.file.set_len(self.end);
            let _ = self.file.seek(SeekFrom::Start(self.end));
            return Err(error);
        }
        self.end += frame.len() as u64;
        self.receiver = next;
        Ok(())
    }
}

/// Reads chunks back, without their frames, up to the last whole one.
#[derive(Debug)]
pub(crate) struct SealedReader<R> {
    inner: R,
    /// Bytes of the file up to the end of the last whole chunk that was read.
    whole: u64,
    chunk: Vec<u8>,
    at: usize,
}

impl<R: Read> SealedReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, whole: 0, chunk: Vec::new(), at: 0 }
    }

    /// Loads the next chunk; false at the end, or where a crash cut one off.
    fn load(&mut self) -> io::Result<bool> {
        let mut frame = [0; FRAME];
        if !fill(&mut self.inner, &mut frame)? {
            return Ok(false);
        }
        let (length, sha256) = frame.split_at(4);
        let length = length.try_into().map(u32::from_be_bytes).unwrap_or_default() as usize;
        if length == 0 || length > MAX_SNAPSHOT_CHUNK {
            return Ok(false);
        }
        self.chunk.resize(length, 0);
        self.at = length;
        if !fill(&mut self.inner, &mut self.chunk)? || crypto::sha256(&self.chunk) != *sha256 {
            return Ok(false);
        }
        self.at = 0;
        self.whole += (FRAME + length) as u64;
        Ok(true)
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.chunk.len() && !self.load()? {
            return Ok(0);
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let size = rest.len().min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        self.at += size;
        Ok(size)
    }
}

/// Fills `buffer`; false when the source ends before.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match source.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
