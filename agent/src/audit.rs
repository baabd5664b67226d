//! The audit log of this cluster: decisions, written down before they are acted upon.
//!
//! ```text
//! logs: consent, snapshots ─┐ record: waits until it is written, or refuses
//! patch: runs, drift ───────┼────────────────▶ store: ConfigMaps audit-NNNNNN, compare-and-swap
//! channel: identity ────────┘ note: queued             │ end of the log
//!                                                      ▼
//!                    checkpoints ──▶ session ──▶ control plane ──▶ what it holds ──▶ upkeep
//! ```
//!
//! Sending a log line takes a [`RecordedSnapshot`], which only [`Audit::allow_snapshot`] makes, and
//! only after its record was stored. Decisions that send nothing (a patch, a correction) don't wait
//! for the log to be writable: they are queued, and if the queue overflows the log says how many are
//! lost. What the records mean and how they are chained is `mendix_agent_core::audit`'s.

mod drift;
pub mod show;
mod store;
mod upkeep;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use mendix_agent_core::{
    audit::{
        Checkpoint, Event, Hash,
        event::GrantName,
        log::{AppendError, LoadError, Log, Place},
    },
    consent::{Refusal, gate::ActiveConsent, grant::Grant},
    envelope::{Signed, sha256},
    redact::POLICY_VERSION,
};
use mendix_agent_proto::v1;
use tokio::sync::{Notify, watch};

pub use self::upkeep::run;
use self::{
    drift::Minutes,
    store::{Newest, Store, Written},
};
use crate::{
    cluster::{ApiError, Cluster},
    errors::describe,
};

/// Decisions that may wait to be written; more are counted and given up.
const MAX_WAITING: usize = 512;
/// Writers that may get in between before an append is given up.
const ATTEMPTS: usize = 5;

/// Why a decision could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The stored log was changed by somebody else, or is not this cluster's.
    #[error(
        "the stored audit log is damaged; run `mendix-agent audit verify`, keep the ConfigMaps audit-… for whoever looks into it, then delete them: the control plane will show that the log began anew"
    )]
    Damaged(#[source] LoadError),
    /// No room, or a record that is too long.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The API server did not do what was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Another process writes the same log.
    #[error("other writers kept changing the audit log")]
    Contended,
}

impl AuditError {
    /// How the gate says it: nothing is sent.
    pub fn refusal(&self) -> Refusal {
        let what = describe(self);
        match self {
            Self::Append(AppendError::Full { .. }) => Refusal::AuditFull { what },
            _ => Refusal::AuditUnavailable { what },
        }
    }
}

/// A snapshot whose permission stands in the audit log; only [`Audit::allow_snapshot`] makes one, and
/// without one nothing is read.
#[derive(Debug)]
pub struct RecordedSnapshot {
    id: String,
    sequence: u64,
}

impl RecordedSnapshot {
    /// Id of the snapshot that may be taken; no other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of the record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Figures for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Number of the newest record; 0 before the log was read.
    pub records: u64,
    /// Newest record that the control plane holds.
    pub acknowledged: u64,
    /// Decisions that wait to be written.
    pub waiting: usize,
    /// Decisions that were given up.
    pub lost: u64,
    /// Refused and revoked snapshots, by code.
    pub refusals: BTreeMap<String, u64>,
}

/// The audit log; cheap to clone. Used by whoever leads, and by nobody else.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Audit").field(&self.figures()).finish()
    }
}

struct Inner {
    store: Store,
    cluster: String,
    /// One append at a time.
    state: tokio::sync::Mutex<State>,
    waiting: Mutex<Waiting>,
    checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>,
    /// Something was noted.
    noted: Notify,
}

#[derive(Default)]
struct State {
    /// None before it was read, and after a write of which nobody knows whether it arrived.
    log: Option<(Log, Option<Newest>)>,
    /// What the control plane said it holds, with the hash that this log has there.
    held: Option<(u64, Option<Hash>)>,
    /// Newest record that the control plane holds as this log has it.
    acknowledged: u64,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(Timestamp, Event)>,
    /// Given up since the log last said so.
    lost: u64,
    drift: Minutes,
    figures: Figures,
}

impl Audit {
    /// The log of a cluster. Nothing is read or written yet.
    pub fn new(cluster: &Cluster, checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>) -> Self {
        Self::over(cluster.own(), &cluster.uid, checkpoints)
    }

    fn over(
        api: Api<ConfigMap>,
        cluster: &str,
        checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>,
    ) -> Self {
        Self(Arc::new(Inner {
            store: Store::new(api),
            cluster: cluster.into(),
            state: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
            checkpoints,
            noted: Notify::new(),
        }))
    }

    /// Writes a decision down, after those that wait. Gives its number.
    ///
    /// # Errors
    /// [`AuditError`]: it is not known to be written, and must not be acted upon.
    pub async fn record(&self, event: Event) -> Result<u64, AuditError> {
        self.flush(Some(event)).await
    }

    /// Writes a decision down that is carried out in any case. When it can't be written now it
    /// waits.
    pub async fn tell(&self, event: Event) {
        if let Err(error) = self.record(event.clone()).await {
            tracing::warn!(error = describe(&error), "a decision waits to be written down");
            self.note(event);
        }
    }

    /// Lets a decision wait to be written, at most for some seconds.
    pub fn note(&self, event: Event) {
        let mut waiting = self.waiting();
        if waiting.events.len() < MAX_WAITING {
            waiting.events.push_back((Timestamp::now(), event));
        } else {
            waiting.lost += 1;
            waiting.figures.lost += 1;
        }
        drop(waiting);
        self.0.noted.notify_one();
    }

    /// Notes that an object was put back; one record per object and minute.
    pub fn drift(&self, object: &str, fields: &[String], claimed_by: &str) {
        self.waiting().drift.add(object, fields, claimed_by, Timestamp::now());
    }

    /// Writes down that a snapshot may be taken under a consent.
    ///
    /// # Errors
    /// [`AuditError`]: nothing may be read then.
    pub async fn allow_snapshot(
        &self,
        id: String,
        request: &str,
        consent: &ActiveConsent,
    ) -> Result<RecordedSnapshot, AuditError> {
        let grant = consent.grant();
        let window = consent.window();
        let sequence = self
            .record(Event::SnapshotAllowed {
                snapshot: id.clone(),
                request: request.into(),
                ticket: grant.ticket_id.clone(),
                grant: grant_name(grant),
                components: consent.components().to_vec(),
                data_classes: grant.data_classes.iter().map(|class| class.name().into()).collect(),
                window_from: window.from,
                window_to: window.to,
                redaction_policy: POLICY_VERSION,
                extra_patterns: u32::try_from(consent.pattern_count()).unwrap_or(u32::MAX),
                recipient_sha256: hex::encode(sha256(consent.recipient().to_base64().as_bytes())),
            })
            .await?;
        Ok(RecordedSnapshot { id, sequence })
    }

    /// Counts a refusal or a revocation, for the metric.
    pub fn count_refusal(&self, code: &str) {
        *self.waiting().figures.refusals.entry(code.to_owned()).or_default() += 1;
    }

    /// Figures for the metrics.
    pub fn figures(&self) -> Figures {
        let waiting = self.waiting();
        Figures { waiting: waiting.events.len(), ..waiting.figures.clone() }
    }

    /// Writes what waits, and then `event`. Gives the number of the newest record.
    async fn flush(&self, event: Option<Event>) -> Result<u64, AuditError> {
        let mut state = self.0.state.lock().await;
        let mut batch: Vec<(Timestamp, Event)> = Vec::new();
        let lost = {
            let waiting = self.waiting();
            if waiting.lost > 0 {
                batch.push((Timestamp::now(), Event::Lost { records: waiting.lost }));
            }
            batch.extend(waiting.events.iter().cloned());
            waiting.lost
        };
        let told = usize::from(lost > 0);
        let waited = batch.len() - told;
        batch.extend(event.map(|event| (Timestamp::now(), event)));
        let (written, result) = self.append(&mut state, &batch).await;
        {
            // What was written waits no more, also when the rest could not be written.
            let mut waiting = self.waiting();
            if written >= told {
                waiting.lost -= lost;
            }
            waiting.events.drain(..written.saturating_sub(told).min(waited));
        }
        self.publish(&state);
        result?;
        Ok(state.end().map_or(0, |end| end.sequence))
    }

    /// Gives also how many were written before it failed.
    async fn append(
        &self,
        state: &mut State,
        events: &[(Timestamp, Event)],
    ) -> (usize, Result<(), AuditError>) {
        let mut done = 0;
        let mut attempts = 0;
        while done < events.len() {
            if attempts == ATTEMPTS {
                return (done, Err(AuditError::Contended));
            }
            match self.append_once(state, &events[done..]).await {
                Ok(Some(taken)) => (done, attempts) = (done + taken, 0),
                Ok(None) => attempts += 1,
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Gives how many were taken; none when somebody else was faster.
    async fn append_once(
        &self,
        state: &mut State,
        events: &[(Timestamp, Event)],
    ) -> Result<Option<usize>, AuditError> {
        let acknowledged = state.acknowledged;
        let (log, newest) = self.loaded(state).await?;
        let plan = log.plan(events, acknowledged)?;
        match self.0.store.write(&plan, newest.as_ref()).await {
            Ok(Written::Stored(now)) => {
                let taken = plan.taken;
                log.apply(plan);
                *newest = Some(now);
                Ok(Some(taken))
            }
            Ok(Written::Conflict) => {
                state.log = None;
                Ok(None)
            }
            // It may have arrived all the same: what is stored decides, the next time.
            Err(error) => {
                state.log = None;
                Err(error)
            }
        }
    }

    async fn loaded<'a>(
        &self,
        state: &'a mut State,
    ) -> Result<&'a mut (Log, Option<Newest>), AuditError> {
        let loaded = match state.log.take() {
            Some(loaded) => loaded,
            None => self.0.store.load(&self.0.cluster).await?,
        };
        Ok(state.log.insert(loaded))
    }

    /// Takes what the control plane holds. When this log has another record there, one of the two
    /// was rewound: that is written down, and told with the next checkpoint.
    async fn held(&self, ack: &v1::AuditCheckpointAck) -> Result<(), AuditError> {
        let Ok(chain) = Hash::try_from(ack.chain_sha256.as_slice()) else {
            tracing::warn!("the control plane holds a checkpoint without a hash");
            return Ok(());
        };
        let mut state = self.0.state.lock().await;
        let place = self.loaded(&mut state).await?.0.place(ack.sequence);
        let own = match place {
            Place::Known(hash) => Some(hash),
            Place::In(segment) => self.0.store.hash_in(segment, ack.sequence).await?,
            Place::Dropped | Place::Beyond => None,
        };
        let news = state.held != Some((ack.sequence, own));
        state.held = Some((ack.sequence, own));
        let matches = own == Some(chain);
        if matches {
            state.acknowledged = state.acknowledged.max(ack.sequence);
        }
        self.publish(&state);
        drop(state);
        if !matches && news {
            tracing::error!(
                sequence = ack.sequence,
                "the control plane holds a checkpoint that this audit log does not have"
            );
            self.note(Event::CheckpointMismatch {
                sequence: ack.sequence,
                held: hex::encode(chain),
                own: own.map(hex::encode),
            });
        }
        Ok(())
    }

    /// Tells where the log ends, if that is news.
    fn publish(&self, state: &State) {
        let Some(end) = state.end() else { return };
        {
            let mut waiting = self.waiting();
            waiting.figures.records = end.sequence;
            waiting.figures.acknowledged = state.acknowledged;
        }
        let (after_sequence, after) = state.held.unwrap_or_default();
        let checkpoint = v1::AuditCheckpoint {
            sequence: end.sequence,
            chain_sha256: end.chain.to_vec(),
            after_sequence,
            after_chain_sha256: after.map(|hash| hash.to_vec()).unwrap_or_default(),
        };
        self.0.checkpoints.send_if_modified(|told| {
            let news = told.as_ref() != Some(&checkpoint);
            *told = Some(checkpoint);
            news
        });
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is a push, a drain or a count: a panic elsewhere leaves none half-done.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> Option<Checkpoint> {
        self.log.as_ref().and_then(|(log, _)| log.end())
    }
}

/// How a record names a grant.
pub fn grant_name(grant: &Signed<Grant>) -> GrantName {
    GrantName {
        id: grant.grant_id.clone(),
        sha256: hex::encode(grant.envelope_sha256()),
        keyid: grant.keyid().into(),
        consented_by: grant.consented_by.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
