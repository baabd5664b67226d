//! A time of leading: what everything needs that writes to Kubernetes.
//!
//! [`crate::leadership`] makes a [`Term`] of the Lease it holds. A term makes a
//! [`Cluster`](crate::cluster::Cluster), whose client lets a write pass only while the term allows it
//! ([`fence`]), and nothing else does: a replica that doesn't lead has no client that writes. Records
//! are stamped with its epoch, and one that a later leader wrote is left alone ([`Superseded`]).

mod fence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use kube::api::ObjectMeta;
use mendix_agent_core::leadership::{Reading, Tenure};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::fence::Fenced;
use crate::clock::boot;

/// Annotation with the epoch of the leader that wrote an object last.
const EPOCH: &str = "agent.mendix.com/epoch";

/// A time of leading. Whoever holds one may write while it lasts; [`Term::over`] tells when it ends.
#[derive(Clone, Debug)]
pub struct Term(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: u64,
    holder: String,
    /// Nanoseconds of the boot clock, as the next one.
    from: AtomicU64,
    until: AtomicU64,
    /// Until when a write whose answer nobody saw may still land.
    unsettled: AtomicU64,
    /// Some task of the term did not end.
    abandoned: AtomicBool,
    over: CancellationToken,
    /// Writes under way.
    writes: TaskTracker,
}

/// Somebody with a higher epoch wrote a record.
#[derive(Debug, thiserror::Error)]
#[error("a newer leader (epoch {found}) has written it; this one has epoch {own} and stops")]
pub struct Superseded {
    /// Epoch in the record.
    pub found: u64,
    /// Epoch of this term.
    pub own: u64,
}

impl Term {
    /// As the machine that leads says it.
    pub(crate) fn new(holder: &str, tenure: Tenure) -> Self {
        let term = Self(Arc::new(Inner {
            epoch: tenure.epoch,
            holder: holder.to_owned(),
            from: AtomicU64::new(nanos(tenure.writes_from)),
            until: AtomicU64::new(0),
            unsettled: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            over: CancellationToken::new(),
            writes: TaskTracker::new(),
        }));
        term.0.writes.close();
        term.extend(tenure);
        term
    }

    /// The term of an agent that has no rival, with epoch 1 and no end: for commands that a person
    /// runs, and for tests. The daemon gets its terms from [`crate::leadership::run`].
    pub fn sole() -> Self {
        let end = Duration::from_nanos(u64::MAX);
        let tenure = Tenure { epoch: 1, writes_from: Duration::ZERO, writes_until: end };
        Self::new("sole", tenure)
    }

    /// The fencing epoch, at least 1.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Who holds it, as the Lease says.
    pub fn holder(&self) -> &str {
        &self.0.holder
    }

    /// Cancelled when the term is over: everything that works under it ends.
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// Says that something of the term still runs, so that its Lease is not released but runs out.
    pub fn abandon(&self) {
        self.0.abandoned.store(true, SeqCst);
    }

    /// Notes in an object that this term writes it.
    pub fn stamp(&self, metadata: &mut ObjectMeta) {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(EPOCH.to_owned(), self.epoch().to_string());
    }

    /// Whether an object that was read may be replaced: not when a later term wrote it.
    ///
    /// # Errors
    /// [`Superseded`].
    pub fn check(&self, metadata: &ObjectMeta) -> Result<(), Superseded> {
        let found = metadata.annotations.as_ref().and_then(|all| all.get(EPOCH));
        self.check_epoch(found.and_then(|epoch| epoch.parse().ok()))
    }

    /// The same for a record that has the epoch in a field of its own.
    ///
    /// # Errors
    /// [`Superseded`].
    pub fn check_epoch(&self, found: Option<u64>) -> Result<(), Superseded> {
        match found {
            Some(found) if found > self.epoch() => Err(Superseded { found, own: self.epoch() }),
            _ => Ok(()),
        }
    }

    /// Waits at most so long for its writes to be answered. Whether another may lead at once: no write
    /// may still land then, and no task was abandoned.
    pub(crate) async fn settle(&self, patience: Duration) -> bool {
        let is_answered = timeout(patience, self.0.writes.wait()).await.is_ok();
        is_answered
            && self.0.unsettled.load(SeqCst) <= nanos(boot())
            && !self.0.abandoned.load(SeqCst)
    }

    fn is_sole(&self) -> bool {
        self.0.until.load(SeqCst) == u64::MAX
    }

    /// Lets writes pass until the tenure's end.
    pub(crate) fn extend(&self, tenure: Tenure) {
        self.0.until.store(nanos(tenure.writes_until), SeqCst);
    }

    /// Ends it: no write passes any more.
    pub(crate) fn end(&self) {
        self.0.until.store(0, SeqCst);
        self.0.over.cancel();
    }
}

fn nanos(reading: Reading) -> u64 {
    u64::try_from(reading.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
