//! ControlService: one session per agent. Desired state down, observed state up.
//!
//! What a session holds is multiplied by ten thousand: of its peer no more than two names, its queue
//! holds boxes, and what only a moment needs is boxed for that moment.

mod heard;
mod place;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::Map};
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
use tonic::{Request, Response, Status, Streaming};

use self::place::{Live, recent_conflict};
use super::{
    Shared,
    metrics::Refusal,
    peer::{Peer, authenticate},
    shared::blocking,
};
use crate::{crypto, store::Desired};

/// Longest wait for the first message.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Messages that may wait for the connection.
const OUTBOUND_BACKLOG: usize = 16;
/// Longest wait for an agent to take a message.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

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
    // What a greeting needs is given back before the long part begins.
    let greeted = Box::pin(greet(shared, peer, &mut inbound, out)).await?;
    match greeted {
        Some(Greeted { session, desired, live }) => {
            Box::pin(session.drive(inbound, desired, live)).await
        }
        None => Ok(()),
    }
}

/// A session whose Welcome is on its way.
struct Greeted {
    session: Session,
    desired: watch::Receiver<Arc<Desired>>,
    live: Live,
}

/// Answers Hello; `None` when that is all there is to say.
async fn greet(
    shared: &Arc<Shared>,
    peer: Peer,
    inbound: &mut Streaming<v1::AgentMessage>,
    out: &Outbound,
) -> Result<Option<Greeted>, Status> {
    let first = timeout(HELLO_DEADLINE, next(inbound))
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
        return deregister(out, &at.to_string()).await.map(|()| None);
    }
    let (worker, uid) = (shared.clone(), peer.uid().to_owned());
    blocking(move || worker.load_agent(&uid)).await?;
    if let Some((reason, retry_after)) = later(shared, peer.uid()) {
        shared.telemetry.refused(reason);
        let throttle = v1::Throttle { retry_after: Some(duration(retry_after)) };
        return send(out, v1::control_message::Body::Throttle(throttle)).await.map(|()| None);
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
    let (uid, leaf_sha256) = (peer.uid().to_owned(), peer.leaf_sha256);
    let session =
        Session { shared: shared.clone(), uid, leaf_sha256, out: out.clone(), told: held };
    Ok(Some(Greeted { session, desired, live }))
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
    /// UID of the cluster.
    uid: String,
    /// SHA-256 of the client certificate, hex.
    leaf_sha256: String,
    out: Outbound,
    /// Revision of each section that the agent holds.
    told: BTreeMap<i32, u64>,
}

impl Session {
    async fn drive(
        mut self,
        mut inbound: Streaming<v1::AgentMessage>,
        mut desired: watch::Receiver<Arc<Desired>>,
        live: Live,
    ) -> Result<(), Status> {
        let (low, high) = limits::HEARTBEAT_BOUNDS;
        let interval = self.shared.options.heartbeat_interval.clamp(low, high);
        // The agent redials after as many misses; a little later we know that it is gone.
        let silence = interval * (limits::HEARTBEAT_MISSES + 1);
        let mut heard = Instant::now();
        let mut leave_at: Option<Instant> = None;
        let current = desired.borrow_and_update().clone();
        if Box::pin(self.tell(&current)).await? == Told::Deregistered {
            return Ok(());
        }
        let drain = self.shared.drain.clone();
        loop {
            let deadline = leave_at.unwrap_or(heard + silence);
            tokio::select! {
                message = next(&mut inbound) => {
                    match message? {
                        // Boxed: else each session keeps room for the largest of messages.
                        Some(message) => Box::pin(self.take(message)).await?,
                        None => return Ok(()),
                    }
                    heard = Instant::now();
                }
                changed = desired.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is going down"))?;
                    let current = desired.borrow_and_update().clone();
                    if Box::pin(self.tell(&current)).await? == Told::Deregistered {
                        return Ok(());
                    }
                }
                () = drain.cancelled(), if leave_at.is_none() => {
                    let stay = self.shared.options.drain;
                    let drain = v1::Drain {
                        deadline: Some(duration(stay)),
                        spread: Some(duration(self.shared.spread())),
                    };
                    Box::pin(self.send(v1::control_message::Body::Drain(drain))).await?;
                    leave_at = Some(Instant::now() + stay);
                }
                () = live.replaced.cancelled() => {
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
        if desired.revoked.contains(&self.leaf_sha256) {
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
            tracing::error!(
                uid = self.uid,
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

    async fn send(&self, body: v1::control_message::Body) -> Result<(), Status> {
        send(&self.out, body).await
    }
}

#[derive(PartialEq)]
enum Told {
    Current,
    Deregistered,
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
