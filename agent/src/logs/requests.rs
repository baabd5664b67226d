//! Follows the requests for snapshots and answers each: refused by the gate, or taken and ended.
//!
//! One at a time. A request stays wanted until its outcome was seen, so a restart comes back to it:
//! what had succeeded is not taken again, what the restart cut off begins anew while budget lasts.
//!
//! [`admission`] asks the gate and writes its answer down, [`receipts`] says what became of a
//! snapshot, [`orphans`] closes what an earlier process left open.

mod admission;
mod orphans;
mod receipts;

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;
use mendix_agent_proto::v1::{self, Outcome, request::Kind};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::{
    admission::{Admitted, admit, refuse, void_grant},
    orphans::{Orphans, was_cut_off},
    receipts::{announce, close, ended, finished_after_all, outcome, spec, write_down},
};
use super::{
    Logs,
    assemble::Tally,
    ledger::Budget,
    live::Live,
    news::News,
    objects::Receipts,
    snapshot::{self, Ending, Snapshot},
    upload::{self, Settled},
};
use crate::{
    audit::RecordedSnapshot,
    cluster::ApiError,
    crd::{
        log_snapshot::{LogSnapshot, LogSnapshotStatus},
        managed_component::ManagedComponent,
    },
    errors::describe,
};

/// Pause after a failure of the Kubernetes API.
const RETRY: Duration = Duration::from_secs(5);

/// Answers requests until shutdown.
pub(super) async fn follow(logs: &Arc<Logs>, shutdown: &CancellationToken) {
    let receipts = Receipts::new(&logs.cluster);
    let Some(mut orphans) = Orphans::find(logs, &receipts, shutdown).await else { return };
    let mut news = News::of(logs);
    loop {
        orphans.settle(logs, &receipts).await;
        if let Some((id, request)) = next(logs) {
            let handled =
                Box::pin(handle(logs, &receipts, &mut orphans, &id, &request, shutdown)).await;
            if let Err(error) = handled {
                tracing::warn!(error = describe(&error), request = id, "request put off");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(RETRY) => {}
                }
            }
            if shutdown.is_cancelled() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            woken = news.next() => if woken.is_err() { return },
        }
    }
}

/// The next unanswered request for a snapshot; none before the tickets are known.
fn next(logs: &Logs) -> Option<(String, v1::SnapshotRequest)> {
    logs.sources.tickets.borrow().as_ref()?;
    let section = logs.wanted.borrow();
    section.as_ref()?.value.requests.iter().find_map(|request| match &request.kind {
        Some(Kind::Snapshot(snapshot)) if !logs.outcomes.is_finished(&request.request_id) => {
            Some((request.request_id.clone(), snapshot.clone()))
        }
        _ => None,
    })
}

/// Answers one request. An error leaves it unanswered, to be tried again.
async fn handle(
    logs: &Arc<Logs>,
    receipts: &Receipts,
    orphans: &mut Orphans,
    id: &str,
    request: &v1::SnapshotRequest,
    shutdown: &CancellationToken,
) -> Result<(), ApiError> {
    if let Some(receipt) = answered(receipts, id).await? {
        tell(logs, &receipt);
        return Ok(());
    }
    let components = logs.managed().await?;
    let snapshot_id = match snapshot::new_id() {
        Ok(snapshot_id) => snapshot_id,
        Err(error) => {
            let message = error.to_string();
            logs.outcomes.finish(id, Outcome::Failed, "SealFailed", &message, None);
            return Ok(());
        }
    };
    let admitted = admit(logs, id, request, &components, snapshot_id, shutdown).await;
    let Admitted { live, recorded, budget } = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            refuse(logs, id, request, &refusal).await;
            return Ok(());
        }
    };
    // What was asked is shown before it is done.
    let receipt = match receipts.start(recorded.id(), spec(id, &live)).await {
        Ok(receipt) => receipt,
        Err(error) => {
            // It is tried again, under another id and with this budget back.
            budget.close().await;
            write_down(logs, recorded.id(), &receipts::never_began(&error)).await;
            return Err(error);
        }
    };
    announce(logs, &receipt).await;
    let (ending, tally) = take(logs, &recorded, &live, budget, components).await;
    let started_at = receipt.status.as_ref().and_then(|status| status.started_at);
    let mut status = ended(&ending, tally, started_at);
    if !matches!(ending, Ending::Succeeded(_)) {
        status = settle(logs, orphans, recorded.id(), status).await;
    }
    write_down(logs, recorded.id(), &status).await;
    admission::remember(logs, id, &request.ticket_id, &status);
    if let Some(receipt) = close(receipts, recorded.id(), &status).await {
        announce(logs, &receipt).await;
    }
    let was_shutdown = shutdown.is_cancelled() && matches!(ending, Ending::Failed { .. });
    if !was_shutdown {
        let (outcome, reason, message) = outcome(&status);
        logs.outcomes.finish(id, outcome, &reason, &message, Some(recorded.id()));
    }
    if let Err(error) = receipts.prune().await {
        tracing::warn!(error = describe(&error), "old receipts could not be deleted");
    }
    Ok(())
}

/// Takes the snapshot, gives back what it did not spend, and voids the grant when its ticket was solved
/// meanwhile.
async fn take(
    logs: &Arc<Logs>,
    recorded: &RecordedSnapshot,
    live: &Live,
    mut budget: Budget,
    components: Vec<ManagedComponent>,
) -> (Ending, Tally) {
    let snapshot = Snapshot {
        recorded,
        cluster: &logs.cluster,
        dialer: &logs.dialer,
        live,
        components,
        finders: vec![Box::new(logs.own.secrets().await), Box::new(live.consent().patterns())],
        budget: &mut budget,
    };
    let taken = Box::pin(snapshot.run()).await;
    budget.close().await;
    logs.spent.send_modify(|n| *n += 1);
    if live.solved() {
        void_grant(logs, live.consent().grant()).await;
    }
    taken
}

/// Has the control plane discard what it holds of a snapshot that did not succeed. It may be complete
/// there all the same, and then it did.
async fn settle(
    logs: &Logs,
    orphans: &mut Orphans,
    snapshot_id: &str,
    status: LogSnapshotStatus,
) -> LogSnapshotStatus {
    let reason = status.reason.clone().unwrap_or_default();
    match upload::settle(&logs.dialer, snapshot_id, &reason).await {
        Ok(Settled::Discarded) => status,
        Ok(Settled::Finished { size }) => finished_after_all(status, size),
        Err(error) => {
            let why = describe(&error);
            tracing::warn!(error = why, snapshot = snapshot_id, "not settled yet");
            orphans.add(snapshot_id);
            status
        }
    }
}

/// A terminal receipt of an earlier process for this request; one that a restart cut off is none.
async fn answered(receipts: &Receipts, id: &str) -> Result<Option<LogSnapshot>, ApiError> {
    let all = receipts.all().await?;
    Ok(all.into_iter().find(|receipt| {
        let status = receipt.status.as_ref();
        receipt.spec.request_id == id
            && status.is_some_and(|status| {
                status.finished_at.is_some() && !was_cut_off(status.reason.as_deref())
            })
    }))
}

fn tell(logs: &Logs, receipt: &LogSnapshot) {
    if let Some(status) = &receipt.status {
        let (kind, reason, message) = outcome(status);
        let name = receipt.name_any();
        logs.outcomes.finish(&receipt.spec.request_id, kind, &reason, &message, Some(&name));
    }
}
