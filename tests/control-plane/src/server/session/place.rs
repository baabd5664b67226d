//! A session's place among those of its cluster: which process counts, and which has to go.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    server::{
        Shared,
        shared::{LiveSession, blocking},
    },
    store::{AgentRecord, IdentityConflict},
};

/// How long agents are told of a conflict after it was seen last.
const CONFLICT_TOLD: SignedDuration = SignedDuration::from_hours(24);
/// Longest text of a Hello that is kept.
const MAX_TEXT: usize = 128;

/// A session's entry in what is known of its agent; taken out when it is dropped.
pub(super) struct Live {
    shared: Arc<Shared>,
    uid: String,
    number: u64,
    /// Another process took its place.
    pub(super) replaced: CancellationToken,
}

impl Live {
    /// Enters a session of an agent that was loaded: refuses a stale epoch, and ends the sessions of
    /// another process that uses the same identity. A session of the same process may overlap: it is
    /// being replaced because of its age.
    pub(super) async fn open(
        shared: &Arc<Shared>,
        uid: &str,
        hello: &v1::Hello,
    ) -> Result<Self, Status> {
        let number = shared.count.sessions.fetch_add(1, Relaxed) + 1;
        let replaced = CancellationToken::new();
        let text = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let boot_id = text(&hello.boot_id);
        let connected = Timestamp::now();
        let raised = shared.observe(uid, |agent, live| {
            if hello.lease_epoch < agent.lease_epoch {
                return Err(Status::failed_precondition(format!(
                    "lease epoch {} is stale: {} has been seen; this process no longer leads, or its \
                     cluster was restored from a backup and needs a new bootstrap token",
                    hello.lease_epoch, agent.lease_epoch
                )));
            }
            let raised = hello.lease_epoch > agent.lease_epoch;
            for other in live.iter().filter(|other| other.boot_id != boot_id) {
                other.replaced.cancel();
                // A higher epoch is a failover: the older process has lost its Lease.
                if !raised {
                    let count = agent.conflict.as_ref().map_or(0, |conflict| conflict.count);
                    tracing::warn!(
                        uid,
                        older = other.boot_id,
                        newer = boot_id,
                        "identity conflict"
                    );
                    agent.conflict = Some(IdentityConflict {
                        older_boot_id: other.boot_id.clone(),
                        newer_boot_id: boot_id.clone(),
                        seen_at: connected,
                        count: count + 1,
                    });
                }
            }
            if agent.boot_id != boot_id {
                // Revisions of reports count within one process.
                agent.reports.clear();
            }
            agent.lease_epoch = hello.lease_epoch;
            agent.agent_version = text(&hello.agent_version);
            agent.kubernetes_version = text(&hello.kubernetes_version);
            agent.capabilities = hello.capabilities.iter().take(32).map(|c| text(c)).collect();
            agent.boot_id.clone_from(&boot_id);
            agent.connected_since = Some(connected);
            agent.sessions += 1;
            live.push(LiveSession { number, boot_id, replaced: replaced.clone() });
            Ok(raised)
        })?;
        shared.count.sessions_open.fetch_add(1, Relaxed);
        let live = Self { shared: shared.clone(), uid: uid.to_owned(), number, replaced };
        if raised {
            // A restart must not forget an epoch it has acted on.
            let worker = shared.clone();
            blocking(move || worker.flush_agents()).await?;
        }
        Ok(live)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.count.sessions_open.fetch_sub(1, Relaxed);
        self.shared.observe(&self.uid, |agent, live| {
            live.retain(|session| session.number != self.number);
            if live.is_empty() {
                agent.connected_since = None;
                agent.disconnected_at = Some(Timestamp::now());
            }
        });
    }
}

/// What the agent is told of another process that used its identity.
pub(super) fn recent_conflict(agent: &AgentRecord) -> Option<v1::IdentityConflict> {
    let conflict = agent.conflict.as_ref()?;
    let other = match agent.boot_id == conflict.newer_boot_id {
        true => &conflict.older_boot_id,
        false => &conflict.newer_boot_id,
    };
    let recent = Timestamp::now().duration_since(conflict.seen_at) < CONFLICT_TOLD;
    recent.then(|| v1::IdentityConflict {
        other_boot_id: other.clone(),
        seen_at: Some(prost_types::Timestamp { seconds: conflict.seen_at.as_second(), nanos: 0 }),
        count: conflict.count,
    })
}
