//! One snapshot, from an active consent to its end: collect → assemble → seal → upload, as one stream
//! with backpressure from end to end. No spool, no plaintext outside memory.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use jiff::Timestamp;
use mendix_agent_core::{
    consent::{Refusal, gate::ActiveConsent},
    redact::{Finder, Redaction, SnapshotKey},
    seal::{FileKey, Header, SealError, Sealer, wrap_key},
    transfer::Totals,
};
use mendix_agent_proto::v1::BeginRequest;
use tokio::{sync::mpsc, time::timeout};
use zeroize::Zeroizing;

use super::{
    assemble::{AssembleError, Assembler, Sink, Subject, Tally},
    collect::{Collector, ITEM_BACKLOG, Room, Scope},
    ledger::Budget,
    live::Live,
    upload::{self, Upload, UploadError},
};
use crate::{
    audit::RecordedSnapshot, channel::Dialer, cluster::Cluster,
    crd::managed_component::ManagedComponent, errors::describe,
};

/// Longest time a snapshot may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(900);
/// Sealed segments that wait for the connection.
const SEGMENT_BACKLOG: usize = 1;
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

/// A new random id in the form of a UUID (version 4).
pub(super) fn new_id() -> Result<String, SealError> {
    let mut b = [0; 16];
    SystemRandom::new().fill(&mut b).map_err(|_| SealError::Crypto)?;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex::encode(b);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// A new key for the placeholders of one snapshot.
pub(super) fn placeholder_key() -> Result<SnapshotKey, SealError> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(key.as_mut()).map_err(|_| SealError::Crypto)?;
    Ok(SnapshotKey::new(*key))
}

/// One snapshot that may begin: its consent is in force and written down, its budget spent.
pub(super) struct Snapshot<'a> {
    /// Says that the audit log has it, and names it.
    pub(super) recorded: &'a RecordedSnapshot,
    pub(super) cluster: &'a Cluster,
    pub(super) dialer: &'a Dialer,
    pub(super) live: &'a Live,
    pub(super) components: Vec<ManagedComponent>,
    /// What redaction looks for besides its rules.
    pub(super) finders: Vec<Box<dyn Finder>>,
    pub(super) budget: &'a mut Budget,
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
        let header = consent.header(self.recorded.id()).map_err(crypto)?;
        let file_key = FileKey::generate().map_err(crypto)?;
        let totals = self.stream(&consent, &header, &file_key, sent, tally).await?;
        // From here the recipient can read it: the last moment at which the answer counts.
        let wrapped = wrap_key(&file_key, &header, consent.recipient()).map_err(crypto)?;
        if !self.live.holds() {
            return Err(self.ended());
        }
        // Not cut short when consent ends from here on: the key is on its way, and whether it
        // arrived has to be known for the receipt.
        upload::finish(self.dialer, self.recorded.id(), totals, wrapped)
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
        let key = placeholder_key().map_err(|error| Ending::failed("SealFailed", &error))?;
        let (items, incoming) = mpsc::channel(ITEM_BACKLOG);
        let (segments, mut outgoing) = mpsc::channel(SEGMENT_BACKLOG);
        let started_at = Timestamp::now();
        let scope = Arc::new(Scope::consented(consent, self.cluster.clone()));
        let collector = Collector::new(
            Arc::clone(&scope),
            std::mem::take(&mut self.components),
            Redaction::new(key, std::mem::take(&mut self.finders)),
            Room::of(self.budget.allowance()),
            started_at,
            items,
        );
        let sealer =
            Sealer::new(file_key, header).map_err(|error| Ending::failed("SealFailed", &error))?;
        let sink = Sealing { sealer, segments };
        let grant = consent.grant();
        let subject = Subject {
            snapshot_id: self.recorded.id(),
            cluster_uid: &grant.cluster_uid,
            ticket_id: Some(&grant.ticket_id),
            grant_id: Some(&grant.grant_id),
            kubernetes_version: &self.cluster.server_version,
            started_at,
        };
        let assembler = Assembler::new(subject, &scope, sink, tally);
        let begin = BeginRequest {
            snapshot_id: self.recorded.id().to_owned(),
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

/// Seals the archive and hands it to the upload.
struct Sealing {
    sealer: Sealer,
    segments: mpsc::Sender<Option<Vec<u8>>>,
}

impl Sink for Sealing {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), AssembleError> {
        let mut ready = Vec::new();
        self.sealer.push(&bytes, &mut ready)?;
        for segment in ready {
            self.segments.send(Some(segment)).await.map_err(|_| AssembleError::Closed)?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<(), AssembleError> {
        let last = self.sealer.finish()?;
        self.segments.send(Some(last)).await.map_err(|_| AssembleError::Closed)?;
        self.segments.send(None).await.map_err(|_| AssembleError::Closed)
    }
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
