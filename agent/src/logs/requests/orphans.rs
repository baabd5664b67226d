//! Snapshots that an earlier process left in the middle: their receipts are closed, and the control
//! plane is asked what it has of them.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Logs,
        objects::{Receipts, STARTED},
        upload::{self, Settled, UploadError},
    },
    RETRY,
    receipts::{announce, finished_after_all, write_down},
};
use crate::{
    channel::Link, cluster::ApiError, crd::log_snapshot::LogSnapshotStatus, errors::describe,
};

const AGENT_RESTARTED: &str = "AgentRestarted";

/// Whether a snapshot ended for a reason that leaves its request unanswered.
pub(super) fn was_cut_off(reason: Option<&str>) -> bool {
    matches!(reason, Some(AGENT_RESTARTED | "Shutdown"))
}

/// Ids of snapshots that are to be settled with the control plane.
pub(super) struct Orphans(BTreeSet<String>);

impl Orphans {
    /// Ends what an earlier process left in state Started; none when it is time to stop.
    pub(super) async fn find(
        logs: &Arc<Logs>,
        receipts: &Receipts,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        loop {
            match close(logs, receipts).await {
                Ok(orphans) => return Some(Self(orphans)),
                Err(error) => {
                    tracing::warn!(error = describe(&error), "receipts could not be read");
                    tokio::select! {
                        () = shutdown.cancelled() => return None,
                        () = sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    pub(super) fn add(&mut self, id: &str) {
        self.0.insert(id.to_owned());
    }

    /// Settles them as soon as there is a session. One that turns out to be complete gets the
    /// receipt it deserves.
    pub(super) async fn settle(&mut self, logs: &Logs, receipts: &Receipts) {
        let connected = matches!(*logs.sources.link.borrow(), Link::Connected { .. });
        if !connected {
            return;
        }
        while let Some(id) = self.0.first().cloned() {
            match upload::settle(&logs.dialer, &id, AGENT_RESTARTED).await {
                Ok(Settled::Discarded) => {}
                Ok(Settled::Finished { size }) => {
                    if let Err(error) = correct(logs, receipts, &id, size).await {
                        tracing::warn!(
                            error = describe(&error),
                            snapshot = id,
                            "receipt not corrected"
                        );
                        return;
                    }
                }
                Err(error @ UploadError::Unreachable(_)) => {
                    tracing::warn!(error = describe(&error), snapshot = id, "not settled yet");
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = describe(&error), snapshot = id, "can't be settled");
                }
            }
            self.0.remove(&id);
        }
    }
}

async fn close(logs: &Logs, receipts: &Receipts) -> Result<BTreeSet<String>, ApiError> {
    let mut orphans = BTreeSet::new();
    for receipt in receipts.all().await? {
        let started = receipt.status.as_ref().is_none_or(|status| status.phase == STARTED);
        if !started {
            continue;
        }
        let status = LogSnapshotStatus {
            phase: "Failed".into(),
            reason: Some(AGENT_RESTARTED.into()),
            message: Some("the agent was restarted before it was complete".into()),
            finished_at: Some(Timestamp::now()),
            ..receipt.status.clone().unwrap_or_default()
        };
        let id = receipt.name_any();
        write_down(logs, &id, &status).await;
        let receipt = receipts.update(&id, &status).await?;
        announce(logs, &receipt).await;
        orphans.insert(id);
    }
    Ok(orphans)
}

async fn correct(logs: &Logs, receipts: &Receipts, id: &str, size: u64) -> Result<(), ApiError> {
    let Some(receipt) = receipts.all().await?.into_iter().find(|r| r.name_any() == id) else {
        return Ok(());
    };
    let status = finished_after_all(receipt.status.unwrap_or_default(), size);
    write_down(logs, id, &status).await;
    let receipt = receipts.update(id, &status).await?;
    announce(logs, &receipt).await;
    Ok(())
}
