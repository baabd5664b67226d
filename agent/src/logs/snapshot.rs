//! One snapshot, from an active consent to its end: collect → archive → seal → upload, as one stream
//! with backpressure from end to end. No spool, no plaintext outside memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use jiff::Timestamp;
use mendix_agent_core::{
    archive::{ArchiveError, ArchiveWriter, EntryPath, MAX_ENTRY},
    consent::{Refusal, gate::ActiveConsent},
    redact::{self, Counts, Finder, POLICY_VERSION, SnapshotKey},
    seal::{FileKey, Header, SealError, Sealer, wrap_key},
    transfer::Totals,
};
use mendix_agent_proto::v1::BeginRequest;
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use zeroize::Zeroizing;

use super::{
    collect::{Collector, Gap, ITEM_BACKLOG, Item},
    ledger::Budget,
    live::Live,
    upload::{self, Upload, UploadError},
};
use crate::{
    channel::Dialer, cluster::Cluster, crd::managed_component::ManagedComponent, errors::describe,
};

/// Longest time a snapshot may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(900);
/// Sealed segments that wait for the connection.
const SEGMENT_BACKLOG: usize = 1;
/// Most log files in a snapshot: bounds the manifest.
const MAX_FILES: usize = 2048;
/// Most gaps that are listed; more are counted.
const MAX_GAPS: usize = 1000;
/// Gaps that are repeated in the receipt.
const RECEIPT_GAPS: usize = 20;
/// The server may learn of a ticket's end a moment before we do.
const SAME_MOMENT: Duration = Duration::from_secs(2);

/// How a snapshot ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// Complete, and its key handed over.
    Succeeded(Totals),
    /// Consent ended; what the server holds can't be opened.
    Revoked(Refusal),
    /// Something else ended it; what the server holds can't be opened.
    Failed {
        /// Stable code.
        reason: &'static str,
        /// For a person.
        message: String,
    },
}

impl Ending {
    fn failed(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failed { reason, message: describe(error) }
    }
}

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

/// A new random id in the form of a UUID (version 4).
pub(super) fn new_id() -> Result<String, SealError> {
    let mut b = [0; 16];
    SystemRandom::new().fill(&mut b).map_err(|_| SealError::Crypto)?;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex::encode(b);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// One snapshot that may begin: its consent is in force and its budget spent.
pub(super) struct Snapshot<'a> {
    pub(super) id: &'a str,
    pub(super) cluster: &'a Cluster,
    pub(super) dialer: &'a Dialer,
    pub(super) live: &'a Live,
    pub(super) components: Vec<ManagedComponent>,
    /// What redaction looks for besides its rules.
    pub(super) finders: Vec<Box<dyn Finder>>,
    pub(super) budget: &'a mut Budget,
}

/// Why the archive could not be made.
#[derive(Debug, thiserror::Error)]
enum AssembleError {
    #[error("the archive could not be written")]
    Archive(#[from] ArchiveError),
    #[error("the archive could not be sealed")]
    Seal(#[from] SealError),
    #[error("the archive's own records could not be written")]
    Json(#[from] serde_json::Error),
    #[error("the upload has gone")]
    Closed,
}

/// Whatever ends the pipeline before its end.
enum Stop {
    Assemble(AssembleError),
    Upload(UploadError),
}

impl Snapshot<'_> {
    /// Takes it. Returns what went in, also when it did not succeed.
    pub(super) async fn run(mut self) -> (Ending, Tally) {
        let sent = AtomicU64::new(0);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let ending = match self.take(&sent, &tally).await {
            Ok(ending) | Err(ending) => ending,
        };
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tally.sealed_bytes = sent.load(Ordering::Relaxed);
        (ending, tally)
    }

    async fn take(
        &mut self,
        sent: &AtomicU64,
        tally: &Arc<Mutex<Tally>>,
    ) -> Result<Ending, Ending> {
        let consent = Arc::clone(self.live.consent());
        let crypto = |error: SealError| Ending::failed("SealFailed", &error);
        let header = consent.header(self.id).map_err(crypto)?;
        let file_key = FileKey::generate().map_err(crypto)?;
        let totals = self.stream(&consent, &header, &file_key, sent, tally).await?;
        // From here the recipient can read it: the last moment at which the answer counts.
        let wrapped = wrap_key(&file_key, &header, consent.recipient()).map_err(crypto)?;
        if !self.live.holds() {
            return Err(self.ended());
        }
        // Not cut short when consent ends from here on: the key is on its way, and whether it
        // arrived has to be known for the receipt.
        upload::finish(self.dialer, self.id, totals, wrapped)
            .await
            .map_err(|error| Ending::failed("FinishFailed", &error))?;
        Ok(Ending::Succeeded(totals))
    }

    /// Everything up to the last acknowledged byte.
    async fn stream(
        &mut self,
        consent: &Arc<ActiveConsent>,
        header: &Header,
        file_key: &FileKey,
        sent: &AtomicU64,
        tally: &Arc<Mutex<Tally>>,
    ) -> Result<Totals, Ending> {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(key.as_mut())
            .map_err(|_| Ending::failed("SealFailed", &SealError::Crypto))?;
        let (items, incoming) = mpsc::channel(ITEM_BACKLOG);
        let (segments, mut outgoing) = mpsc::channel(SEGMENT_BACKLOG);
        let collector = Collector::new(
            self.cluster.clone(),
            Arc::clone(consent),
            std::mem::take(&mut self.components),
            redact::Redaction::new(SnapshotKey::new(*key), std::mem::take(&mut self.finders)),
            items,
        );
        let sealer =
            Sealer::new(file_key, header).map_err(|error| Ending::failed("SealFailed", &error))?;
        let assembler = Assembler::new(consent, self.cluster, self.id, sealer, segments, tally);
        let begin = BeginRequest {
            snapshot_id: self.id.to_owned(),
            ticket_id: consent.grant().ticket_id.clone(),
            header: header.to_bytes(),
            grant_sha256: consent.grant_sha256().to_vec(),
        };
        let upload = Upload::new(self.dialer, self.live, begin, self.budget, sent);
        let work = async {
            tokio::try_join!(
                async {
                    collector.run().await;
                    Ok(())
                },
                async { assembler.run(incoming).await.map_err(Stop::Assemble) },
                async { upload.run(&mut outgoing).await.map_err(Stop::Upload) },
            )
        };
        let token = self.live.token();
        let result = tokio::select! {
            biased;
            // Dropping `work` drops the connection, the open logs and every buffer.
            () = token.cancelled() => return Err(self.ended()),
            () = self.live.guard() => return Err(self.ended()),
            result = timeout(DEADLINE, Box::pin(work)) => result,
        };
        match result {
            Ok(Ok(((), (), totals))) => Ok(totals),
            Ok(Err(stop)) => Err(self.stopped(stop).await),
            Err(_) => Err(Ending::Failed {
                reason: "Deadline",
                message: format!("not finished within {} s", DEADLINE.as_secs()),
            }),
        }
    }

    async fn stopped(&self, stop: Stop) -> Ending {
        match stop {
            Stop::Upload(UploadError::ConsentEnded) => self.ended(),
            Stop::Upload(UploadError::Budget(refusal)) => {
                Ending::Failed { reason: refusal.code(), message: refusal.sentence() }
            }
            Stop::Upload(error @ (UploadError::Refused(_) | UploadError::Lost { .. })) => {
                let guard = timeout(SAME_MOMENT, self.live.guard()).await;
                match guard {
                    Ok(()) => self.ended(),
                    Err(_) => Ending::failed("StoreRefused", &error),
                }
            }
            Stop::Upload(error) => Ending::failed("UploadFailed", &error),
            Stop::Assemble(AssembleError::Closed) => Ending::Failed {
                reason: "UploadFailed",
                message: AssembleError::Closed.to_string(),
            },
            Stop::Assemble(error) => Ending::failed("ArchiveFailed", &error),
        }
    }

    /// The token fired: by consent, or by whoever is above.
    fn ended(&self) -> Ending {
        match self.live.take_refusal() {
            Some(refusal) => Ending::Revoked(refusal),
            None => Ending::Failed {
                reason: "Shutdown",
                message: "the agent was told to stop; ask again".into(),
            },
        }
    }
}

/// A file of the archive, for the manifest.
#[derive(Debug, Serialize)]
struct File {
    path: String,
    bytes: usize,
    sha256: String,
}

/// Turns items into sealed segments.
struct Assembler<'a> {
    consent: &'a ActiveConsent,
    cluster: &'a Cluster,
    id: &'a str,
    started_at: Timestamp,
    archive: ArchiveWriter,
    sealer: Sealer,
    segments: mpsc::Sender<Option<Vec<u8>>>,
    files: Vec<File>,
    gaps: Vec<Gap>,
    tally: &'a Mutex<Tally>,
}

impl<'a> Assembler<'a> {
    fn new(
        consent: &'a ActiveConsent,
        cluster: &'a Cluster,
        id: &'a str,
        sealer: Sealer,
        segments: mpsc::Sender<Option<Vec<u8>>>,
        tally: &'a Mutex<Tally>,
    ) -> Self {
        let started_at = Timestamp::now();
        let mtime = u64::try_from(started_at.as_second()).unwrap_or(0);
        Self {
            consent,
            cluster,
            id,
            started_at,
            archive: ArchiveWriter::new(mtime),
            sealer,
            segments,
            files: vec![],
            gaps: vec![],
            tally,
        }
    }

    fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), AssembleError> {
        while let Some(item) = items.recv().await {
            match item {
                Item::Read(raw, counts) => self.tally(|tally| {
                    tally.raw_bytes += raw;
                    tally.counts.add(&counts);
                }),
                Item::Gap(gap) => self.note(gap),
                Item::Entry(path, data) if self.files.len() < MAX_FILES => {
                    self.entry(&path, &data).await?;
                    self.tally(|tally| tally.files += 1);
                }
                Item::Entry(path, _) => self.note(Gap {
                    subject: path.as_str().to_owned(),
                    reason: "TooManyFiles",
                    detail: format!("a snapshot holds at most {MAX_FILES} files"),
                }),
            }
        }
        self.records().await?;
        let mut compressed = Vec::new();
        self.archive.finish(&mut compressed)?;
        let mut ready = Vec::new();
        self.sealer.push(&compressed, &mut ready)?;
        ready.push(self.sealer.finish()?);
        for segment in ready {
            self.segments.send(Some(segment)).await.map_err(|_| AssembleError::Closed)?;
        }
        self.segments.send(None).await.map_err(|_| AssembleError::Closed)
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

    /// Appends an entry and passes on what is sealed.
    async fn entry(&mut self, path: &EntryPath, data: &[u8]) -> Result<(), AssembleError> {
        let mut compressed = Vec::new();
        self.archive.append(path, data, &mut compressed)?;
        self.files.push(File {
            path: path.as_str().to_owned(),
            bytes: data.len(),
            sha256: hex::encode(digest(&SHA256, data)),
        });
        let mut ready = Vec::new();
        self.sealer.push(&compressed, &mut ready)?;
        for segment in ready {
            self.segments.send(Some(segment)).await.map_err(|_| AssembleError::Closed)?;
        }
        Ok(())
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
        self.entry(&EntryPath::errors(), &errors).await?;
        let redaction = Redaction {
            policy_version: POLICY_VERSION,
            replaced: counts.iter().map(|(class, n)| (class.name(), n)).collect(),
        };
        let redaction = serde_json::to_vec_pretty(&redaction)?;
        self.entry(&EntryPath::redaction(), &redaction).await?;
        let grant = self.consent.grant();
        let window = self.consent.window();
        let manifest = serde_json::to_vec(&Manifest {
            version: 1,
            snapshot_id: self.id,
            cluster_uid: &grant.cluster_uid,
            ticket_id: &grant.ticket_id,
            grant_id: &grant.grant_id,
            agent_version: env!("CARGO_PKG_VERSION"),
            kubernetes_version: &self.cluster.server_version,
            redaction_policy: POLICY_VERSION,
            components: self.consent.components(),
            window_from: window.from,
            window_to: window.to,
            started_at: self.started_at,
            finished_at: Timestamp::now(),
            gap_count,
            files: &self.files,
        })?;
        self.entry(&EntryPath::manifest(), &manifest).await
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
    ticket_id: &'a str,
    grant_id: &'a str,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(a.as_bytes()[14], b'4');
        assert!(a.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-'));
    }
}
