//! What keeps the audit log going beside those who write to it: what waits is written, what the
//! control plane holds is taken in, and what the channel decided is noted.

use std::{convert::Infallible, time::Duration};

use jiff::Timestamp;
use mendix_agent_core::{audit::Event, envelope::sha256};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Audit;
use crate::{
    channel::{Handles, Link, identity::Standing},
    errors::describe,
};

/// How often it is looked whether a minute of drift has ended.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last records may take when the agent stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// Keeps the log until cancelled.
///
/// # Errors
/// None: what fails is tried again.
pub async fn run(
    audit: Audit,
    handles: Handles,
    cancel: CancellationToken,
) -> Result<(), Infallible> {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = write(&audit) => {}
        () = take_in(&audit, handles.audit_acks.clone()) => {}
        () = follow_channel(&audit, handles.standing.clone(), handles.link.clone()) => {}
    }
    audit.gather(None);
    match timeout(FAREWELL, audit.flush(None)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(error = describe(&error), "last records not written"),
        Err(_) => tracing::warn!("the last records could not be written in time"),
    }
    Ok(())
}

/// Writes what waits. The first round reads the log, so that its end is told.
async fn write(audit: &Audit) {
    let mut read = false;
    loop {
        audit.gather(Some(Timestamp::now()));
        let due = !read || audit.figures().waiting > 0;
        let result = match due {
            true if read => audit.flush(None).await.map(drop),
            true => audit.open().await,
            false => Ok(()),
        };
        match result {
            Ok(()) => {
                read = true;
                tokio::select! {
                    () = audit.0.noted.notified() => {}
                    () = sleep(LOOK) => {}
                }
            }
            Err(error) => {
                tracing::warn!(error = describe(&error), "the audit log can't be written yet");
                sleep(RETRY).await;
            }
        }
    }
}

async fn take_in(
    audit: &Audit,
    mut acks: watch::Receiver<Option<mendix_agent_proto::v1::AuditCheckpointAck>>,
) {
    acks.mark_changed();
    while acks.changed().await.is_ok() {
        let ack = acks.borrow_and_update().clone();
        let Some(ack) = ack else { continue };
        while let Err(error) = audit.held(&ack).await {
            tracing::warn!(error = describe(&error), "an acknowledgement can't be judged yet");
            sleep(RETRY).await;
        }
    }
    std::future::pending().await
}

/// Notes which identity is used, and that the cluster was deleted.
async fn follow_channel(
    audit: &Audit,
    mut standing: watch::Receiver<Standing>,
    mut link: watch::Receiver<Link>,
) {
    standing.mark_changed();
    link.mark_changed();
    let mut used = None;
    let mut deregistered = false;
    loop {
        tokio::select! {
            Ok(()) = standing.changed() => {
                if let Some(identity) = identity(&standing.borrow_and_update())
                    && used.as_ref() != Some(&identity)
                {
                    audit.note(identity.clone());
                    used = Some(identity);
                }
            }
            Ok(()) = link.changed() => {
                let now = matches!(&*link.borrow_and_update(), Link::Deregistered { .. });
                if now && !deregistered {
                    audit.note(Event::Deregistered {});
                }
                deregistered = now;
            }
            else => std::future::pending().await,
        }
    }
}

fn identity(standing: &Standing) -> Option<Event> {
    let Standing::Enrolled(credentials) = standing else { return None };
    let identity = credentials.identity();
    Some(Event::Identity {
        certificate_sha256: hex::encode(sha256(identity.leaf())),
        expires_at: identity.not_after(),
        ring: identity.ring().into(),
    })
}

impl Audit {
    /// Reads the log, so that its end can be told.
    async fn open(&self) -> Result<(), super::AuditError> {
        let mut state = self.0.state.lock().await;
        self.loaded(&mut state).await?;
        self.publish(&state);
        Ok(())
    }

    /// Queues the drift whose minute has ended; all of it without a time.
    fn gather(&self, now: Option<Timestamp>) {
        let ended = self.waiting().drift.take(now);
        for (_, event) in ended {
            self.note(event);
        }
    }
}
