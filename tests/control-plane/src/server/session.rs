//! ControlService: one session per agent. Desired state down, observed state up.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::{StreamExt as _, stream::Map};
use jiff::{SignedDuration, Timestamp};
use mendix_agent_proto::{
    limits,
    v1::{self, control_service_server::ControlService},
};
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Shared,
    metrics::Refusal,
    peer::{Peer, authenticate},
    shared::{LiveSession, blocking},
};
use crate::{
    crypto, portal,
    store::{AgentRecord, Desired, IdentityConflict, ReportRecord},
};

/// Longest wait for the first message.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Messages that may wait for the connection.
const OUTBOUND_BACKLOG: usize = 16;
/// Longest wait for an agent to take a message.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Observed sections kept per agent, known and unknown ones.
const MAX_SECTIONS: usize = 32;
/// How long agents are told of a conflict after it was seen last.
const CONFLICT_TOLD: SignedDuration = SignedDuration::from_hours(24);
/// Longest text of a Hello that is kept.
const MAX_TEXT: usize = 128;

/// What this control plane can, for `Welcome` (docs/protocol.md).
const CAPABILITIES: [&str; 4] =
    ["audit-checkpoints", "log-snapshots", "patch-bundles", "recover-components"];

/// Boxed: a queue keeps room for 32 at least, in every session.
type Outbound = mpsc::Sender<Box<Result<v1::ControlMessage, Status>>>;
type Unboxed = fn(Box<Result<v1::ControlMessage, Status>>) -> Result<v1::ControlMessage, Status>;

pub(super) struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl ControlService for Control {
    type SessionStream = Map<ReceiverStream<Box<Result<v1::ControlMessage, Status>>>, Unboxed>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer =
            authenticate(&self.shared, request.extensions()).await.inspect_err(|status| {
                self.shared.telemetry.refused(Refusal::of(status));
            })?;
        let inbound = request.into_inner();
        let (out, receiver) = mpsc::channel(OUTBOUND_BACKLOG);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let uid = peer.uid().to_owned();
            let end = Box::pin(run(&shared, peer, inbound, &out)).await;
            tracing::info!(uid, reason = end.as_ref().err().map(Status::message), "session ended");
            if let Err(status) = end {
                shared.telemetry.refused(Refusal::of(&status));
                let _ = timeout(SEND_DEADLINE, out.send(Box::new(Err(status)))).await;
            }
        });
        let unboxed: Unboxed = |message| *message;
        Ok(Response::new(ReceiverStream::new(receiver).map(unboxed)))
    }
}

/// One session, from Hello to its end.
async fn run(
    shared: &Arc<Shared>,
    peer: Peer,
    mut inbound: Streaming<v1::AgentMessage>,
    out: &Outbound,
) -> Result<(), Status> {
    let first = timeout(HELLO_DEADLINE, next(&mut inbound))
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
    let hello = match first.and_then(|message| message.body) {
        Some(v1::agent_message::Body::Hello(hello)) => hello,
        _ => return Err(Status::invalid_argument("the first message must be Hello")),
    };
    if hello.cluster_uid != peer.uid() {
        return Err(Status::unauthenticated(format!(
            "Hello names another cluster than the certificate, which is for {}",
            peer.uid()
        )));
    }
    let protocol = common_protocol(&hello)?;
    if let Some(at) = peer.cluster.deleted_at {
        shared.telemetry.refused(Refusal::Deregistered);
        return deregister(out, &at.to_string()).await;
    }
    let (worker, uid) = (shared.clone(), peer.uid().to_owned());
    blocking(move || worker.load_agent(&uid)).await?;
    if let Some((reason, retry_after)) = later(shared, peer.uid()) {
        shared.telemetry.refused(reason);
        let throttle = v1::Throttle { retry_after: Some(duration(retry_after)) };
        return send(out, v1::control_message::Body::Throttle(throttle)).await;
    }

    let live = Live::open(shared, peer.uid(), &hello).await?;
    let (worker, uid) = (shared.clone(), peer.uid().to_owned());
    let desired = blocking(move || worker.follow(&uid)).await?;
    let welcome = v1::Welcome {
        session_id: format!(
            "s-{}",
            hex::encode(crypto::random::<8>().map_err(|_| no_randomness())?)
        ),
        server_time: Some(now()),
        protocol,
        heartbeat_interval: Some(duration(shared.options.heartbeat_interval)),
        max_session_age: Some(duration(shared.options.max_session_age)),
        identity_conflict: shared.agent(peer.uid()).and_then(|agent| recent_conflict(&agent)),
        capabilities: Some(v1::Capabilities {
            names: CAPABILITIES.iter().map(ToString::to_string).collect(),
        }),
    };
    send(out, v1::control_message::Body::Welcome(welcome)).await?;
    let held = hello.held.iter().map(|held| (held.section, held.revision)).collect();
    let session = Session { shared: shared.clone(), peer, out: out.clone(), told: held };
    session.drive(inbound, desired, &live.replaced).await
}

/// Whether this agent is to come back later, why, and when.
fn later(shared: &Shared, uid: &str) -> Option<(Refusal, Duration)> {
    let options = &shared.options;
    if shared.drain.is_cancelled() {
        return Some((Refusal::Draining, options.drain + shared.spread()));
    }
    if shared.counters().sessions_open >= options.max_sessions as u64 {
        return Some((Refusal::Full, options.retry_after));
    }
    let wait = shared.admit_session(uid).err()?;
    Some((Refusal::IdentityRate, wait))
}

struct Session {
    shared: Arc<Shared>,
    peer: Peer,
    out: Outbound,
    /// Revision of each section that the agent holds.
    told: HashMap<i32, u64>,
}

impl Session {
    async fn drive(
        mut self,
        mut inbound: Streaming<v1::AgentMessage>,
        mut desired: watch::Receiver<Arc<Desired>>,
        replaced: &CancellationToken,
    ) -> Result<(), Status> {
        let (low, high) = limits::HEARTBEAT_BOUNDS;
        let interval = self.shared.options.heartbeat_interval.clamp(low, high);
        // The agent redials after as many misses; a little later we know that it is gone.
        let silence = interval * (limits::HEARTBEAT_MISSES + 1);
        let mut heard = Instant::now();
        let mut leave_at: Option<Instant> = None;
        let current = desired.borrow_and_update().clone();
        if self.tell(&current).await? == Told::Deregistered {
            return Ok(());
        }
        let drain = self.shared.drain.clone();
        loop {
            let deadline = leave_at.unwrap_or(heard + silence);
            tokio::select! {
                message = next(&mut inbound) => {
                    match message? {
                        Some(message) => self.take(message).await?,
                        None => return Ok(()),
                    }
                    heard = Instant::now();
                }
                changed = desired.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is going down"))?;
                    let current = desired.borrow_and_update().clone();
                    if self.tell(&current).await? == Told::Deregistered {
                        return Ok(());
                    }
                }
                () = drain.cancelled(), if leave_at.is_none() => {
                    let stay = self.shared.options.drain;
                    let drain = v1::Drain {
                        deadline: Some(duration(stay)),
                        spread: Some(duration(self.shared.spread())),
                    };
                    self.send(v1::control_message::Body::Drain(drain)).await?;
                    leave_at = Some(Instant::now() + stay);
                }
                () = replaced.cancelled() => {
                    return Err(Status::aborted(
                        "another process with this identity opened a session",
                    ));
                }
                () = self.out.closed() => return Ok(()),
                () = sleep_until(deadline) => {
                    return match leave_at {
                        Some(_) => Ok(()),
                        None => Err(Status::deadline_exceeded(format!(
                            "nothing was heard for {} s", silence.as_secs()
                        ))),
                    };
                }
            }
        }
    }

    /// Sends what the agent does not hold yet.
    async fn tell(&mut self, desired: &Desired) -> Result<Told, Status> {
        if desired.deleted {
            deregister(&self.out, "now").await?;
            return Ok(Told::Deregistered);
        }
        if desired.revoked.contains(&self.peer.leaf_sha256) {
            return Err(Status::unauthenticated("the client certificate was revoked"));
        }
        let news: Vec<_> = desired
            .sections
            .iter()
            .filter(|section| self.told.get(&section.section) != Some(&section.revision))
            .cloned()
            .collect();
        if news.is_empty() {
            return Ok(Told::Current);
        }
        let state = v1::DesiredState { sections: news };
        if state.encoded_len() > limits::MAX_DESIRED_STATE {
            // The store refuses such a change; here it could only come from a file edited by hand.
            let uid = self.peer.uid();
            tracing::error!(
                uid,
                size = state.encoded_len(),
                "desired state over the limit, not sent"
            );
            return Ok(Told::Current);
        }
        let told: Vec<_> =
            state.sections.iter().map(|section| (section.section, section.revision)).collect();
        self.send(v1::control_message::Body::DesiredState(state)).await?;
        self.told.extend(told);
        Ok(Told::Current)
    }

    async fn take(&mut self, message: v1::AgentMessage) -> Result<(), Status> {
        use v1::agent_message::Body;
        match message.body {
            Some(Body::Heartbeat(heartbeat)) => self.heartbeat(&heartbeat).await,
            Some(Body::Report(report)) => self.report(report).await,
            Some(Body::LeaseRequest(request)) => self.lease(request).await,
            Some(Body::AuditCheckpoint(checkpoint)) => self.audit(&checkpoint).await,
            Some(Body::Hello(_)) => Err(Status::invalid_argument("a second Hello")),
            // From a newer agent; there is nothing to answer.
            None => {
                tracing::warn!(uid = self.peer.uid(), "a message this control plane does not know");
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
        self.shared.observe(self.peer.uid(), |agent, _| {
            agent.last_heartbeat = Some(received);
            agent.clock_skew_millis = skew;
        });
        let ack = v1::HeartbeatAck { sequence: heartbeat.sequence, server_time: Some(now()) };
        self.send(v1::control_message::Body::HeartbeatAck(ack)).await
    }

    async fn report(&self, report: v1::Report) -> Result<(), Status> {
        let record = ReportRecord::new(&report, Timestamp::now());
        self.shared.observe(self.peer.uid(), |agent, _| {
            if agent.reports.len() < MAX_SECTIONS || agent.reports.contains_key(&report.section) {
                agent.reports.insert(report.section, record);
            }
        });
        if let Some(v1::report::Body::RequestOutcomes(outcomes)) = report.body {
            let (store, uid) = (self.shared.store.clone(), self.peer.uid().to_owned());
            blocking(move || store.complete_requests(&uid, &outcomes.outcomes)).await?;
        }
        let ack = v1::ReportAck { section: report.section, revision: report.revision };
        self.send(v1::control_message::Body::ReportAck(ack)).await
    }

    /// Says what is held of the audit log, once that is on disk: the agent drops what it has.
    async fn audit(&self, told: &v1::AuditCheckpoint) -> Result<(), Status> {
        if told.chain_sha256.len() != 32 || !matches!(told.after_chain_sha256.len(), 0 | 32) {
            return Err(Status::invalid_argument("an audit checkpoint has hashes of 32 bytes"));
        }
        let uid = self.peer.uid();
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
        let (store, uid) = (self.shared.store.clone(), self.peer.uid().to_owned());
        let grant = hex::encode(&request.grant_sha256);
        let lease = blocking(move || portal::sign_lease(&store, &uid, &grant, &request.nonce));
        match lease.await? {
            Some(envelope) => {
                self.shared.count.leases.fetch_add(1, Relaxed);
                self.send(v1::control_message::Body::Lease(v1::Lease { envelope })).await
            }
            None => {
                tracing::info!(uid = self.peer.uid(), "no lease: no active ticket with that grant");
                Ok(())
            }
        }
    }

    async fn send(&self, body: v1::control_message::Body) -> Result<(), Status> {
        send(&self.out, body).await
    }
}

#[derive(PartialEq)]
enum Told {
    Current,
    Deregistered,
}

/// A session's entry in what is known of its agent; taken out when it is dropped.
struct Live {
    shared: Arc<Shared>,
    uid: String,
    number: u64,
    replaced: CancellationToken,
}

impl Live {
    /// Enters a session of an agent that was loaded: refuses a stale epoch, and ends the sessions of another process that uses
    /// the same identity. A session of the same process may overlap: it is being replaced because
    /// of its age.
    async fn open(shared: &Arc<Shared>, uid: &str, hello: &v1::Hello) -> Result<Self, Status> {
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
fn recent_conflict(agent: &AgentRecord) -> Option<v1::IdentityConflict> {
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

/// The newest protocol version that both speak.
fn common_protocol(hello: &v1::Hello) -> Result<u32, Status> {
    let version = hello.protocol_max.min(limits::PROTOCOL_MAX);
    if version < hello.protocol_min.max(limits::PROTOCOL_MIN) {
        return Err(Status::failed_precondition(format!(
            "no common protocol version: the agent speaks {} to {}, this control plane {} to {}",
            hello.protocol_min,
            hello.protocol_max,
            limits::PROTOCOL_MIN,
            limits::PROTOCOL_MAX
        )));
    }
    Ok(version)
}

/// The next message; one over the limit ends the session with RESOURCE_EXHAUSTED.
async fn next(
    inbound: &mut Streaming<v1::AgentMessage>,
) -> Result<Option<v1::AgentMessage>, Status> {
    inbound.message().await.map_err(|status| match status.code() {
        tonic::Code::OutOfRange => Status::resource_exhausted(format!(
            "a message over {} bytes",
            limits::MAX_AGENT_MESSAGE
        )),
        _ => status,
    })
}

async fn deregister(out: &Outbound, since: &str) -> Result<(), Status> {
    let reason = format!("the cluster was deleted in the portal ({since})");
    send(out, v1::control_message::Body::Deregistered(v1::Deregistered { reason })).await
}

async fn send(out: &Outbound, body: v1::control_message::Body) -> Result<(), Status> {
    let message = v1::ControlMessage { body: Some(body) };
    match timeout(SEND_DEADLINE, out.send(Box::new(Ok(message)))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the agent hung up")),
        Err(_) => Err(Status::deadline_exceeded("the agent does not read")),
    }
}

fn no_randomness() -> Status {
    Status::internal("the system gives no randomness")
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_overlap_agree_on_the_newest_common_one() {
        let hello =
            |min, max| v1::Hello { protocol_min: min, protocol_max: max, ..v1::Hello::default() };
        assert_eq!(common_protocol(&hello(1, 1)).ok(), Some(1));
        assert_eq!(common_protocol(&hello(1, 7)).ok(), Some(1));
        assert!(common_protocol(&hello(2, 7)).is_err());
        assert!(common_protocol(&hello(0, 0)).is_err());
    }
}
