//! What an agent says after its Hello, and what it is answered.

use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;
use mendix_agent_proto::v1;
use tonic::Status;

use super::{Session, now};
use crate::{portal, server::shared::blocking, store::ReportRecord};

/// Observed sections kept per agent, known and unknown ones.
const MAX_SECTIONS: usize = 32;

impl Session {
    pub(super) async fn take(&self, message: v1::AgentMessage) -> Result<(), Status> {
        use v1::agent_message::Body;
        match message.body {
            Some(Body::Heartbeat(heartbeat)) => self.heartbeat(&heartbeat).await,
            Some(Body::Report(report)) => self.report(report).await,
            Some(Body::LeaseRequest(request)) => self.lease(request).await,
            Some(Body::AuditCheckpoint(checkpoint)) => self.audit(&checkpoint).await,
            Some(Body::Hello(_)) => Err(Status::invalid_argument("a second Hello")),
            // From a newer agent; there is nothing to answer.
            None => {
                tracing::warn!(
                    uid = self.uid.as_str(),
                    "a message this control plane does not know"
                );
                Ok(())
            }
        }
    }

    async fn heartbeat(&self, heartbeat: &v1::Heartbeat) -> Result<(), Status> {
        let received = Timestamp::now();
        let skew = heartbeat.sent_at.and_then(|sent| {
            let sent = Timestamp::new(sent.seconds, sent.nanos).ok()?;
            Some(sent.as_millisecond() - received.as_millisecond())
        });
        self.shared.observe(self.uid.as_str(), |agent, _| {
            agent.last_heartbeat = Some(received);
            agent.clock_skew_millis = skew;
        });
        let ack = v1::HeartbeatAck { sequence: heartbeat.sequence, server_time: Some(now()) };
        self.send(v1::control_message::Body::HeartbeatAck(ack)).await
    }

    async fn report(&self, report: v1::Report) -> Result<(), Status> {
        let record = ReportRecord::new(&report, Timestamp::now());
        self.shared.observe(self.uid.as_str(), |agent, _| {
            if agent.reports.len() < MAX_SECTIONS || agent.reports.contains_key(&report.section) {
                agent.reports.insert(report.section, record);
            }
        });
        let (store, uid) = (self.shared.store.clone(), self.uid.clone());
        match report.body {
            Some(v1::report::Body::RequestOutcomes(outcomes)) => {
                blocking(move || store.complete_requests(&uid, &outcomes.outcomes)).await?;
            }
            Some(v1::report::Body::Initialization(report)) if report.wants_ticket => {
                let opened =
                    blocking(move || store.ticket_for_initialization(&uid, &report)).await?;
                if let Some(ticket) = opened {
                    let (uid, ticket) = (self.uid.as_str(), ticket.ticket_id);
                    tracing::warn!(uid, ticket, "initialization failed again; opened a ticket");
                }
            }
            _ => {}
        }
        let ack = v1::ReportAck { section: report.section, revision: report.revision };
        self.send(v1::control_message::Body::ReportAck(ack)).await
    }

    /// Says what is held of the audit log, once that is on disk: the agent drops what it has.
    async fn audit(&self, told: &v1::AuditCheckpoint) -> Result<(), Status> {
        if told.chain_sha256.len() != 32 || !matches!(told.after_chain_sha256.len(), 0 | 32) {
            return Err(Status::invalid_argument("an audit checkpoint has hashes of 32 bytes"));
        }
        let uid = self.uid.as_str();
        let (answer, alarm) = self.shared.observe(uid, |agent, _| {
            let before = agent.audit.alarm.clone();
            agent.audit.take(told, Timestamp::now());
            let alarm = agent.audit.alarm.clone().filter(|alarm| before.as_ref() != Some(alarm));
            (agent.audit.answer(), alarm)
        });
        if let Some(alarm) = alarm {
            tracing::error!(uid, ?alarm, "the audit log of a cluster was rewound");
        }
        let worker = self.shared.clone();
        blocking(move || worker.flush_agents()).await?;
        match answer {
            Some(ack) => self.send(v1::control_message::Body::AuditCheckpointAck(ack)).await,
            None => Ok(()),
        }
    }

    /// A lease while the ticket is active; silence otherwise.
    async fn lease(&self, request: v1::LeaseRequest) -> Result<(), Status> {
        if request.grant_sha256.len() != 32 || request.nonce.len() != 16 {
            return Err(Status::invalid_argument(
                "a lease request has a grant digest of 32 bytes and a nonce of 16",
            ));
        }
        let (store, uid) = (self.shared.store.clone(), self.uid.clone());
        let grant = hex::encode(&request.grant_sha256);
        let lease = blocking(move || portal::sign_lease(&store, &uid, &grant, &request.nonce));
        match lease.await? {
            Some(envelope) => {
                self.shared.count.leases.fetch_add(1, Relaxed);
                self.send(v1::control_message::Body::Lease(v1::Lease { envelope })).await
            }
            None => {
                tracing::info!(
                    uid = self.uid.as_str(),
                    "no lease: no active ticket with that grant"
                );
                Ok(())
            }
        }
    }
}
