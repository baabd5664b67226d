//! What became of a snapshot: in the audit log, in its receipt, as an Event, and to the control plane.

use jiff::Timestamp;
use mendix_agent_core::{audit::Event, ordered, redact::POLICY_VERSION};
use mendix_agent_proto::v1::Outcome;
use tokio::time::sleep;

use super::{
    super::{
        Logs,
        assemble::Tally,
        live::Live,
        objects::{Receipts, STARTED, reference},
        snapshot::Ending,
    },
    RETRY,
};
use crate::{
    cluster::ApiError,
    crd::log_snapshot::{LogSnapshot, LogSnapshotSpec, LogSnapshotStatus},
    errors::describe,
    occasion::Occasion,
};

/// What a snapshot may hold.
pub(super) fn spec(request_id: &str, live: &Live) -> LogSnapshotSpec {
    let consent = live.consent();
    let grant = consent.grant();
    let window = consent.window();
    LogSnapshotSpec {
        ticket_id: grant.ticket_id.clone(),
        request_id: request_id.to_owned(),
        grant_id: grant.grant_id.clone(),
        grant_sha256: hex::encode(consent.grant_sha256()),
        consented_by: grant.consented_by.clone(),
        components: consent.components().to_vec(),
        data_classes: grant.data_classes.iter().map(|class| class.name().to_owned()).collect(),
        window_from: window.from,
        window_to: window.to,
        redaction_policy: POLICY_VERSION,
        recipient_public_key: consent.recipient().to_base64(),
    }
}

/// How it ended.
pub(super) fn ended(
    ending: &Ending,
    tally: Tally,
    started_at: Option<Timestamp>,
) -> LogSnapshotStatus {
    let mut status = LogSnapshotStatus {
        started_at,
        finished_at: Some(Timestamp::now()),
        raw_bytes: tally.raw_bytes,
        sealed_bytes: tally.sealed_bytes,
        files: tally.files,
        replaced: tally.counts.total(),
        replaced_by_class: ordered::map(
            tally.counts.iter().map(|(class, n)| (class.name().to_owned(), n)),
        ),
        gap_count: tally.gap_count,
        gaps: tally.gaps,
        ..Default::default()
    };
    match ending {
        Ending::Succeeded(totals) => {
            status.phase = "Succeeded".into();
            status.sha256 = Some(hex::encode(totals.sha256));
        }
        Ending::Revoked(refusal) => {
            status.phase = "Revoked".into();
            status.reason = Some(refusal.code().into());
            status.message = Some(refusal.sentence());
        }
        Ending::Failed { reason, message } => {
            status.phase = "Failed".into();
            status.reason = Some((*reason).into());
            status.message = Some(message.clone());
        }
    }
    status
}

/// It was allowed, and its receipt could not be made.
pub(super) fn never_began(error: &ApiError) -> LogSnapshotStatus {
    LogSnapshotStatus {
        phase: "Failed".into(),
        reason: Some("NoReceipt".into()),
        message: Some(describe(error)),
        ..Default::default()
    }
}

/// The server has all of it and the key, although we did not hear so.
pub(super) fn finished_after_all(status: LogSnapshotStatus, size: u64) -> LogSnapshotStatus {
    LogSnapshotStatus {
        phase: "Succeeded".into(),
        reason: None,
        message: Some("complete at the control plane; its answer came late".into()),
        sealed_bytes: size,
        ..status
    }
}

/// Writes the end into the audit log. It is a fact by now: what can't be written waits.
pub(super) async fn write_down(logs: &Logs, id: &str, status: &LogSnapshotStatus) {
    logs.audit
        .tell(Event::SnapshotEnded {
            snapshot: id.into(),
            phase: status.phase.clone(),
            reason: status.reason.clone(),
            sealed_bytes: status.sealed_bytes,
            sha256: status.sha256.clone(),
            replaced: status.replaced_by_class.clone(),
        })
        .await;
}

/// How the control plane is told.
pub(super) fn outcome(status: &LogSnapshotStatus) -> (Outcome, String, String) {
    let kind = match status.phase.as_str() {
        "Succeeded" => Outcome::Succeeded,
        "Revoked" => Outcome::Revoked,
        _ => Outcome::Failed,
    };
    let reason = status.reason.clone().unwrap_or_default();
    let message = status.message.clone().unwrap_or_else(|| {
        format!(
            "{} files, {} sealed bytes, {} values replaced",
            status.files, status.sealed_bytes, status.replaced
        )
    });
    (kind, reason, message)
}

/// Writes the final receipt; tries a few times, since it is all that is left of a snapshot. If it
/// stays Started, the next start closes it.
pub(super) async fn close(
    receipts: &Receipts,
    id: &str,
    status: &LogSnapshotStatus,
) -> Option<LogSnapshot> {
    for _ in 0..3 {
        match receipts.update(id, status).await {
            Ok(receipt) => return Some(receipt),
            Err(error) => tracing::warn!(error = describe(&error), id, "receipt not written"),
        }
        sleep(RETRY).await;
    }
    None
}

/// An Event for each phase a snapshot reaches.
pub(super) async fn announce(logs: &Logs, receipt: &LogSnapshot) {
    let Some(status) = &receipt.status else { return };
    let note = if status.phase == STARTED {
        format!(
            "ticket {}: {} by consent of {}",
            receipt.spec.ticket_id,
            receipt.spec.components.join(", "),
            receipt.spec.consented_by
        )
    } else {
        let (_, reason, message) = outcome(status);
        if reason.is_empty() { message } else { format!("{reason}: {message}") }
    };
    logs.cluster.event(&reference(receipt), Occasion::snapshot(&status.phase), note).await;
}
