//! Uploads that are open in this process, from their begin to their end or to where nobody resumed them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use mendix_agent_proto::limits::RESUME_WINDOW;
use tonic::Status;

use crate::{
    snapshots::{SealedWriter, UploadRecord, UploadState},
    store::{Store, StoreError},
};

/// How long an upload without connection is kept. A little more than agents may take to resume.
const KEPT: Duration = Duration::from_secs(RESUME_WINDOW.as_secs() + 10);

/// Uploads that are open in this process.
#[derive(Default)]
pub(super) struct Uploads {
    open: Mutex<HashMap<String, Arc<Upload>>>,
    /// What an earlier server left open has been looked at.
    swept: AtomicBool,
}

/// One open upload.
pub(super) struct Upload {
    pub(super) record: UploadRecord,
    /// Where its segments go.
    pub(super) writer: Mutex<SealedWriter>,
    puts: AtomicUsize,
    touched: Mutex<Instant>,
}

/// What ends an RPC: the caller's fault, or ours.
pub(super) enum Refusal {
    Caller(Status),
    State(StoreError),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Caller(status)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::State(error)
    }
}

/// A lock whose holder may have panicked: what it guards is on disk, and read from there.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    /// The open upload of this id; one from before a restart is opened again.
    pub(super) fn get(&self, store: &Store, uid: &str, id: &str) -> Result<Arc<Upload>, Refusal> {
        let mut open = locked(&self.open);
        if let Some(upload) = open.get(id) {
            return if upload.record.cluster_uid == uid {
                Ok(upload.clone())
            } else {
                Err(unknown(id))
            };
        }
        let record = find(store, id)?.filter(|record| record.cluster_uid == uid);
        match record.ok_or_else(|| unknown(id))? {
            record if record.state == UploadState::Receiving => {
                let writer = store.sealed_for_append(&record)?;
                let upload = Arc::new(Upload {
                    record,
                    writer: Mutex::new(writer),
                    puts: AtomicUsize::new(0),
                    touched: Mutex::new(Instant::now()),
                });
                open.insert(id.to_owned(), upload.clone());
                Ok(upload)
            }
            record => Err(ended(&record)),
        }
    }

    /// Ends uploads that nobody resumed in time, as their agent has: those that are open here, and
    /// those that were when an earlier server ended.
    pub(super) fn expire(&self, store: &Store, started: Instant) -> Result<(), StoreError> {
        let mut open = locked(&self.open);
        let stale = |upload: &Upload| {
            upload.puts.load(Relaxed) == 0 && locked(&upload.touched).elapsed() > KEPT
        };
        let mut expired: Vec<_> =
            open.extract_if(|_, upload| stale(upload)).map(|(_, u)| u.record.clone()).collect();
        if started.elapsed() > KEPT && !self.swept.swap(true, Relaxed) {
            expired.extend(store.uploads()?.into_iter().filter(|record| {
                record.state == UploadState::Receiving && !open.contains_key(&record.snapshot_id)
            }));
        }
        drop(open);
        for record in expired {
            store.abort_upload(record, "NotResumed")?;
        }
        Ok(())
    }

    /// It has ended well.
    pub(super) fn close(&self, id: &str) {
        locked(&self.open).remove(id);
    }

    /// Ends an upload and discards what was received.
    pub(super) fn abort(
        &self,
        store: &Store,
        record: UploadRecord,
        reason: &str,
    ) -> Result<(), StoreError> {
        let open = locked(&self.open).remove(&record.snapshot_id);
        // A writer that is still held elsewhere writes to a file without a name.
        let _writer = open.as_ref().map(|upload| locked(&upload.writer));
        store.abort_upload(record, reason).map(drop)
    }
}

impl Upload {
    /// Something came of it.
    pub(super) fn touch(&self) {
        *locked(&self.touched) = Instant::now();
    }
}

/// The record of an id; a name that can't be one belongs to nothing.
pub(super) fn find(store: &Store, id: &str) -> Result<Option<UploadRecord>, StoreError> {
    match store.find_upload(id) {
        Err(StoreError::Name { .. }) => Ok(None),
        found => found,
    }
}

fn unknown(id: &str) -> Refusal {
    let id: String = id.chars().take(64).collect();
    Status::failed_precondition(format!("no upload {id:?} was begun by this cluster")).into()
}

/// Nothing more is taken of an upload that has ended.
pub(super) fn ended(record: &UploadRecord) -> Refusal {
    Status::failed_precondition(format!("upload {} has ended", record.snapshot_id)).into()
}

/// Marks an upload as connected while a Put is open.
pub(super) struct PutGuard(Arc<Upload>);

impl PutGuard {
    pub(super) fn new(upload: Arc<Upload>) -> Self {
        upload.puts.fetch_add(1, Relaxed);
        Self(upload)
    }

    pub(super) fn upload(&self) -> &Arc<Upload> {
        &self.0
    }
}

impl Drop for PutGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.puts.fetch_sub(1, Relaxed);
    }
}
