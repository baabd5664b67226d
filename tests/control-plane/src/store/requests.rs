//! One-off requests: they stay in the desired state until the agent reports an outcome.

use jiff::Timestamp;
use mendix_agent_proto::v1;
use serde::{Deserialize, Serialize};

use super::{ClusterRecord, Revised, Store, StoreError, clusters::refuse_deleted};
use crate::crypto;

/// Finished requests that are remembered, for people.
const DONE_KEPT: usize = 64;

/// A one-off request that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRecord {
    /// Its id.
    pub request_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What is asked for.
    pub kind: RequestKind,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum RequestKind {
    /// One log snapshot under a ticket's grant.
    Snapshot {
        /// The ticket.
        ticket_id: String,
        /// Components by name; empty: all of the grant's scope.
        components: Vec<String>,
    },
    /// The last committed release once more.
    Recover,
    /// Another attempt at an initialization that failed.
    RerunInitialization,
}

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoneRequest {
    /// The request.
    pub request: RequestRecord,
    /// `Succeeded`, `Refused`, `Failed`, `Revoked` or `Unsupported`.
    pub outcome: String,
    /// Reason code; empty on success.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// The snapshot it led to; empty otherwise.
    pub snapshot_id: String,
    /// When the outcome arrived.
    pub received_at: Timestamp,
}

/// What an agent is told of them.
pub(super) fn section(requests: &Revised<Vec<RequestRecord>>) -> v1::DesiredSection {
    let listed = requests.value.iter().map(RequestRecord::to_proto).collect();
    v1::DesiredSection {
        section: v1::Section::Requests.into(),
        revision: requests.revision,
        body: Some(v1::desired_section::Body::Requests(v1::RequestsSection { requests: listed })),
    }
}

impl RequestRecord {
    pub(super) fn new(kind: RequestKind) -> Result<Self, StoreError> {
        let request_id = format!("req-{}", hex::encode(crypto::random::<8>()?));
        Ok(Self { request_id, created_at: Timestamp::now(), kind })
    }

    fn to_proto(&self) -> v1::Request {
        let kind = match &self.kind {
            RequestKind::Snapshot { ticket_id, components } => {
                v1::request::Kind::Snapshot(v1::SnapshotRequest {
                    ticket_id: ticket_id.clone(),
                    components: components.clone(),
                })
            }
            RequestKind::Recover => v1::request::Kind::Recover(v1::RecoverComponentsRequest {}),
            RequestKind::RerunInitialization => {
                v1::request::Kind::RerunInitialization(v1::RerunInitializationRequest {})
            }
        };
        v1::Request { request_id: self.request_id.clone(), kind: Some(kind) }
    }
}

impl Store {
    /// Places a request; it stays until the agent reports its outcome.
    ///
    /// # Errors
    /// When the cluster does not exist or was deleted, or its desired state would grow over the
    /// limit of the protocol.
    pub fn place_request(&self, uid: &str, kind: RequestKind) -> Result<RequestRecord, StoreError> {
        let request = RequestRecord::new(kind)?;
        self.change_desired(uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.requests.revise().push(request.clone());
            Ok(())
        })?;
        Ok(request)
    }

    /// Takes the requests that have a terminal outcome out of the desired state.
    pub(crate) fn complete_requests(
        &self,
        uid: &str,
        outcomes: &[v1::RequestOutcome],
    ) -> Result<(), StoreError> {
        let waiting = |cluster: &ClusterRecord, outcome: &v1::RequestOutcome| {
            let waits = |request: &RequestRecord| request.request_id == outcome.request_id;
            outcome_word(outcome.outcome()).zip(cluster.requests.value.iter().position(waits))
        };
        // Agents repeat outcomes until the request is gone: only a new one is worth the lock.
        let known = self.cluster(uid)?;
        if !outcomes.iter().any(|outcome| waiting(&known, outcome).is_some()) {
            return Ok(());
        }
        self.change_desired(uid, |cluster| {
            for outcome in outcomes {
                let Some((word, at)) = waiting(cluster, outcome) else { continue };
                let request = cluster.requests.revise().remove(at);
                cluster.done.push(DoneRequest {
                    request,
                    outcome: word.to_owned(),
                    reason: outcome.reason.clone(),
                    message: outcome.message.clone(),
                    snapshot_id: outcome.snapshot_id.clone(),
                    received_at: Timestamp::now(),
                });
            }
            let surplus = cluster.done.len().saturating_sub(DONE_KEPT);
            cluster.done.drain(..surplus);
            Ok(())
        })
    }
}

fn outcome_word(outcome: v1::Outcome) -> Option<&'static str> {
    match outcome {
        v1::Outcome::Unspecified => None,
        v1::Outcome::Succeeded => Some("Succeeded"),
        v1::Outcome::Refused => Some("Refused"),
        v1::Outcome::Failed => Some("Failed"),
        v1::Outcome::Revoked => Some("Revoked"),
        v1::Outcome::Unsupported => Some("Unsupported"),
    }
}
