//! What the services share: state, counters, what each connected cluster is to be told, and what
//! agents said last.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Options,
    metrics::{Refusal, Telemetry},
    rates::Pace,
};
use crate::{
    pki::ChannelCa,
    store::{AgentRecord, Desired, Store, StoreError},
};

/// How often the server looks whether an operator changed something.
const POLL: Duration = Duration::from_millis(200);
/// How often it reloads without a hint: an operator's command that died between its two writes left
/// none.
const FULL_RELOAD: Duration = Duration::from_secs(30);
/// How often reports are written to disk.
const FLUSH: Duration = Duration::from_secs(1);

/// What the server has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections accepted.
    pub connects: u64,
    /// TLS handshakes that failed.
    pub failed_handshakes: u64,
    /// Sessions that got past `Hello`.
    pub sessions: u64,
    /// Sessions that are open.
    pub sessions_open: u64,
    /// Sealed bytes of snapshots that were accepted.
    pub snapshot_bytes: u64,
    /// Calls of SnapshotService.Begin, refused ones included.
    pub snapshot_begins: u64,
    /// Bytes of the repository that were sent.
    pub bundle_bytes: u64,
    /// Leases that were signed.
    pub leases: u64,
    /// Certificates that were issued.
    pub certificates: u64,
}

#[derive(Default)]
pub(super) struct Count {
    pub(super) connects: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) sessions_open: AtomicU64,
    pub(super) snapshot_bytes: AtomicU64,
    pub(super) snapshot_begins: AtomicU64,
    pub(super) bundle_bytes: AtomicU64,
    pub(super) leases: AtomicU64,
    pub(super) certificates: AtomicU64,
}

/// One live session of a cluster.
#[derive(Clone)]
pub(super) struct LiveSession {
    pub(super) number: u64,
    pub(super) boot_id: String,
    /// Ends it: another process took its place.
    pub(super) replaced: CancellationToken,
}

#[derive(Default)]
struct Observed {
    record: AgentRecord,
    changed: bool,
    live: Vec<LiveSession>,
    /// How often it opens sessions.
    pace: Option<Pace>,
}

/// State that outlives a call.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) ca: ChannelCa,
    pub(super) options: Options,
    pub(super) count: Count,
    /// The server is going: sessions are to move.
    pub(super) drain: CancellationToken,
    /// Over which time agents come back, once the server is going.
    spread: OnceLock<Duration>,
    pub(super) telemetry: Telemetry,
    enrolments: Mutex<Pace>,
    /// Sealed uploads in progress.
    pub(super) uploads: super::uploads::Uploads,
    desired: Mutex<HashMap<String, watch::Sender<Arc<Desired>>>>,
    observed: Mutex<BTreeMap<String, Observed>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Runs file work off the async threads; a failure is logged here and reported without its details,
/// which are the operator's to know.
pub(super) async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "the control plane's state");
            Err(Status::unavailable("the control plane can't use its state; try again"))
        }
        Err(error) => {
            tracing::error!(%error, "a task of the control plane died");
            Err(Status::internal("a task of the control plane died"))
        }
    }
}

/// A lock that a panicked holder can't take from the others: every change below is one assignment
/// or complete in itself.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(store: Store, ca: ChannelCa, options: Options) -> Self {
        Self {
            store,
            ca,
            enrolments: Mutex::new(Pace::new(options.enrolments)),
            options,
            count: Count::default(),
            drain: CancellationToken::new(),
            spread: OnceLock::new(),
            telemetry: Telemetry::default(),
            uploads: super::uploads::Uploads::default(),
            desired: Mutex::default(),
            observed: Mutex::default(),
        }
    }

    pub(super) fn count_connect(&self) {
        self.count.connects.fetch_add(1, Relaxed);
    }

    pub(super) fn count_failed_handshake(&self) {
        self.count.failed_handshakes.fetch_add(1, Relaxed);
        self.telemetry.refused(Refusal::Handshake);
    }

    /// Lets nobody in any more and tells those who are there to move.
    pub(super) fn begin_drain(&self) {
        let Options { spread, comebacks, .. } = self.options;
        let sessions = u32::try_from(self.count.sessions_open.load(Relaxed)).unwrap_or(u32::MAX);
        let needed = comebacks.per.saturating_mul(sessions) / comebacks.count.max(1);
        let spread = *self.spread.get_or_init(|| spread.min(needed));
        tracing::info!(sessions, ?spread, "draining");
        self.drain.cancel();
    }

    /// Over which time agents are told to come back.
    pub(super) fn spread(&self) -> Duration {
        self.spread.get().copied().unwrap_or_default()
    }

    /// Whether another certificate may be asked for now.
    pub(super) fn admit_enrolment(&self) -> Result<(), Status> {
        locked(&self.enrolments).take(Instant::now()).map_err(|wait| {
            self.telemetry.refused(Refusal::EnrolmentRate);
            Status::unavailable(format!(
                "too many certificates are asked for at once; try again in {} s",
                wait.as_secs() + 1
            ))
        })
    }

    /// Whether this agent, which was loaded, may open another session now; if not, after which time.
    pub(super) fn admit_session(&self, uid: &str) -> Result<(), Duration> {
        let mut observed = locked(&self.observed);
        // An entry made here would hide what is on disk.
        let Some(observed) = observed.get_mut(uid) else { return Ok(()) };
        let rate = self.options.sessions_per_identity;
        observed.pace.get_or_insert_with(|| Pace::new(rate)).take(Instant::now())
    }

    pub(super) fn counters(&self) -> Counters {
        let count = &self.count;
        Counters {
            connects: count.connects.load(Relaxed),
            failed_handshakes: count.failed_handshakes.load(Relaxed),
            sessions: count.sessions.load(Relaxed),
            sessions_open: count.sessions_open.load(Relaxed),
            snapshot_bytes: count.snapshot_bytes.load(Relaxed),
            snapshot_begins: count.snapshot_begins.load(Relaxed),
            bundle_bytes: count.bundle_bytes.load(Relaxed),
            leases: count.leases.load(Relaxed),
            certificates: count.certificates.load(Relaxed),
        }
    }

    /// Follows what a cluster is to be told, from now on.
    pub(super) fn follow(&self, uid: &str) -> Result<watch::Receiver<Arc<Desired>>, StoreError> {
        // Entered before it is read, so that a change in between is seen by the poll.
        let placeholder = Arc::new(Desired { deleted: false, revoked: vec![], sections: vec![] });
        let sender = locked(&self.desired)
            .entry(uid.to_owned())
            .or_insert_with(|| watch::channel(placeholder).0)
            .clone();
        let receiver = sender.subscribe();
        sender.send_replace(Arc::new(self.store.desired(uid)?));
        Ok(receiver)
    }

    /// Reloads what connected clusters are to be told.
    fn reload(&self) {
        let senders: Vec<_> = {
            let mut desired = locked(&self.desired);
            desired.retain(|_, sender| sender.receiver_count() > 0);
            desired.iter().map(|(uid, sender)| (uid.clone(), sender.clone())).collect()
        };
        for (uid, sender) in senders {
            match self.store.desired(&uid) {
                Ok(new) => {
                    sender.send_if_modified(|old| {
                        let changed = **old != new;
                        if changed {
                            *old = Arc::new(new);
                        }
                        changed
                    });
                }
                Err(error) => tracing::error!(%error, uid, "can't read what a cluster should run"),
            }
        }
    }

    /// The newest that is known of an agent.
    pub(super) fn agent(&self, uid: &str) -> Option<AgentRecord> {
        if let Some(observed) = locked(&self.observed).get(uid) {
            return Some(observed.record.clone());
        }
        self.store.agent(uid).ok().flatten()
    }

    /// Reads what is known of an agent from disk, once.
    pub(super) fn load_agent(&self, uid: &str) -> Result<(), StoreError> {
        if locked(&self.observed).contains_key(uid) {
            return Ok(());
        }
        let record = self.store.agent(uid)?.unwrap_or_default();
        locked(&self.observed)
            .entry(uid.to_owned())
            .or_insert_with(|| Observed { record, ..Observed::default() });
        Ok(())
    }

    /// Changes what is known of an agent, and who speaks for it.
    pub(super) fn observe<T>(
        &self,
        uid: &str,
        change: impl FnOnce(&mut AgentRecord, &mut Vec<LiveSession>) -> T,
    ) -> T {
        let mut observed = locked(&self.observed);
        let observed = observed.entry(uid.to_owned()).or_default();
        observed.changed = true;
        change(&mut observed.record, &mut observed.live)
    }

    /// Writes what changed since the last time.
    pub(super) fn flush_agents(&self) -> Result<(), StoreError> {
        let changed: Vec<_> = locked(&self.observed)
            .iter_mut()
            .filter_map(|(uid, observed)| {
                std::mem::take(&mut observed.changed)
                    .then(|| (uid.clone(), observed.record.clone()))
            })
            .collect();
        for (uid, record) in changed {
            if let Err(error) = self.store.write_agent(&uid, &record) {
                if let Some(observed) = locked(&self.observed).get_mut(&uid) {
                    observed.changed = true;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// After a crash files may say that an agent is connected; nobody is yet.
    pub(super) fn disconnect_all(&self) -> Result<(), StoreError> {
        for uid in self.store.observed_uids()? {
            if let Some(mut record) = self.store.agent(&uid)?
                && record.connected_since.take().is_some()
            {
                record.disconnected_at = record.last_heartbeat.or(Some(Timestamp::now()));
                self.store.write_agent(&uid, &record)?;
            }
        }
        Ok(())
    }
}

/// Follows the state folder and writes reports, until `stop`.
pub(super) async fn upkeep(shared: Arc<Shared>, stop: CancellationToken) {
    // Apart from each other: a push must not wait until thousands of reports are written.
    tokio::join!(follow_state(&shared, &stop), write_reports(&shared, &stop));
}

async fn follow_state(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut seen = None;
    let mut reloaded = Instant::now();
    while wait(POLL, stop).await {
        let due = reloaded.elapsed() >= FULL_RELOAD;
        let worker = shared.clone();
        let step = tokio::task::spawn_blocking(move || {
            let change = worker.store.change()?;
            let stale = due || seen != Some(change);
            if stale {
                worker.reload();
            }
            Ok::<_, StoreError>((change, stale))
        });
        if let Some((change, stale)) = logged(step.await) {
            seen = Some(change);
            if stale {
                reloaded = Instant::now();
            }
        }
    }
}

async fn write_reports(shared: &Arc<Shared>, stop: &CancellationToken) {
    let started = Instant::now();
    while wait(FLUSH, stop).await {
        let worker = shared.clone();
        let step = tokio::task::spawn_blocking(move || {
            worker.uploads.expire(&worker.store, started)?;
            worker.flush_agents()
        });
        logged(step.await);
    }
}

/// Waits; false when it is time to stop.
async fn wait(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_err()
}

/// The result of file work that is tried again anyway; a failure is logged.
fn logged<T>(step: Result<Result<T, StoreError>, tokio::task::JoinError>) -> Option<T> {
    match step {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => tracing::error!(%error, "the control plane's state"),
        Err(error) => tracing::error!(%error, "the control plane's upkeep"),
    }
    None
}
