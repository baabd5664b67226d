//! Puts what was collected into one archive, and says about it what it knows: the middle of the
//! pipeline, between [`super::collect`] and whoever takes the archive.
//!
//! There are two takers: sealing, for an upload under a consent, and a customer's terminal. Both get
//! the same bytes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use mendix_agent_core::{
    archive::{self, ArchiveError, EntryPath, MAX_ENTRY, Packed},
    ordered,
    redact::{Counts, POLICY_VERSION},
    seal::SealError,
};
use serde::Serialize;
use tokio::sync::mpsc;

use super::collect::{Gap, Item, Scope};

/// Most gaps that are listed; more are counted.
const MAX_GAPS: usize = 1000;
/// Gaps that are repeated in the receipt.
const RECEIPT_GAPS: usize = 20;

/// What went into a snapshot; for the receipt.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) raw_bytes: u64,
    pub(super) sealed_bytes: u64,
    pub(super) files: u32,
    pub(super) counts: Counts,
    pub(super) gap_count: u32,
    pub(super) gaps: Vec<String>,
}

/// Why the archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// An entry could not be packed.
    #[error("the archive could not be written")]
    Archive(#[from] ArchiveError),
    /// Sealing failed.
    #[error("the archive could not be sealed")]
    Seal(#[from] SealError),
    /// A record could not be written as JSON.
    #[error("the archive's own records could not be written")]
    Json(#[from] serde_json::Error),
    /// Nobody takes the archive any more.
    #[error("the upload has gone")]
    Closed,
    /// The preview could not be written.
    #[error("the preview could not be written")]
    Write(#[source] std::io::Error),
}

/// Who takes the archive, piece by piece.
pub(super) trait Sink {
    /// The next bytes; returns when there is room for more.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), AssembleError>;
    /// There are no more.
    async fn finish(self) -> Result<(), AssembleError>;
}

/// What an archive is about.
pub(super) struct Subject<'a> {
    pub(super) snapshot_id: &'a str,
    pub(super) cluster_uid: &'a str,
    /// None in a preview.
    pub(super) ticket_id: Option<&'a str>,
    /// None in a preview.
    pub(super) grant_id: Option<&'a str>,
    pub(super) kubernetes_version: &'a str,
    pub(super) started_at: Timestamp,
}

/// A file of the archive, for the manifest.
#[derive(Debug, Serialize)]
struct File {
    path: String,
    bytes: usize,
    sha256: String,
}

/// Turns items into an archive.
pub(super) struct Assembler<'a, S> {
    subject: Subject<'a>,
    scope: &'a Scope,
    sink: S,
    files: Vec<File>,
    gaps: Vec<Gap>,
    tally: &'a Mutex<Tally>,
}

impl<'a, S: Sink> Assembler<'a, S> {
    pub(super) fn new(
        subject: Subject<'a>,
        scope: &'a Scope,
        sink: S,
        tally: &'a Mutex<Tally>,
    ) -> Self {
        Self { subject, scope, sink, files: vec![], gaps: vec![], tally }
    }

    fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes items until there are no more, and writes the archive's own records.
    pub(super) async fn run(
        mut self,
        mut items: mpsc::Receiver<Item>,
    ) -> Result<(), AssembleError> {
        while let Some(item) = items.recv().await {
            match item {
                Item::Read(raw, counts) => self.tally(|tally| {
                    tally.raw_bytes += raw;
                    tally.counts.add(&counts);
                }),
                Item::Gap(gap) => self.note(gap),
                Item::Entry(entry) => {
                    self.entry(entry).await?;
                    self.tally(|tally| tally.files += 1);
                }
            }
        }
        self.records().await?;
        self.sink.write(archive::end()?).await?;
        self.sink.finish().await
    }

    fn note(&mut self, gap: Gap) {
        self.tally(|tally| {
            tally.gap_count += 1;
            if tally.gaps.len() < RECEIPT_GAPS {
                tally.gaps.push(format!("{}: {} ({})", gap.subject, gap.reason, gap.detail));
            }
        });
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
        }
    }

    async fn entry(&mut self, entry: Packed) -> Result<(), AssembleError> {
        self.files.push(File {
            path: entry.path.as_str().to_owned(),
            bytes: entry.size,
            sha256: hex::encode(entry.sha256),
        });
        self.sink.write(entry.bytes).await
    }

    async fn record(&mut self, path: EntryPath, data: &[u8]) -> Result<(), AssembleError> {
        let mtime = u64::try_from(self.subject.started_at.as_second()).unwrap_or(0);
        self.entry(Packed::new(path, data, mtime)?).await
    }

    /// What the snapshot says about itself; the manifest last.
    async fn records(&mut self) -> Result<(), AssembleError> {
        let (counts, gap_count) = {
            let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            (tally.counts.clone(), tally.gap_count)
        };
        let mut errors = Vec::new();
        for gap in &self.gaps {
            serde_json::to_writer(&mut errors, gap)?;
            errors.push(b'\n');
            if errors.len() > MAX_ENTRY / 2 {
                break;
            }
        }
        self.record(EntryPath::errors(), &errors).await?;
        let redaction = Redaction {
            policy_version: POLICY_VERSION,
            replaced: ordered::map(counts.iter().map(|(class, n)| (class.name(), n))),
        };
        self.record(EntryPath::redaction(), &serde_json::to_vec_pretty(&redaction)?).await?;
        let window = self.scope.window();
        let manifest = serde_json::to_vec(&Manifest {
            version: 1,
            snapshot_id: self.subject.snapshot_id,
            cluster_uid: self.subject.cluster_uid,
            ticket_id: self.subject.ticket_id,
            grant_id: self.subject.grant_id,
            agent_version: env!("CARGO_PKG_VERSION"),
            kubernetes_version: self.subject.kubernetes_version,
            redaction_policy: POLICY_VERSION,
            components: self.scope.components(),
            window_from: window.from,
            window_to: window.to,
            started_at: self.subject.started_at,
            finished_at: Timestamp::now(),
            gap_count,
            files: &self.files,
        })?;
        self.record(EntryPath::manifest(), &manifest).await
    }
}

/// `redaction.json`.
#[derive(Serialize)]
struct Redaction {
    policy_version: u32,
    replaced: BTreeMap<&'static str, u64>,
}

/// `manifest.json`. All times are UTC.
#[derive(Serialize)]
struct Manifest<'a> {
    version: u32,
    snapshot_id: &'a str,
    cluster_uid: &'a str,
    ticket_id: Option<&'a str>,
    grant_id: Option<&'a str>,
    agent_version: &'static str,
    kubernetes_version: &'a str,
    redaction_policy: u32,
    components: &'a [String],
    window_from: Timestamp,
    window_to: Timestamp,
    started_at: Timestamp,
    finished_at: Timestamp,
    gap_count: u32,
    files: &'a [File],
}
