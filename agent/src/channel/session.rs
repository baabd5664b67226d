//! Drives the session: does what the machine in `mendix_agent_core::session` decides.
//!
//! One task per stream dials, reads and ends; this loop feeds the machine and carries out its
//! actions. Nothing here decides.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use mendix_agent_core::session::{
    About, Action, Event, Failure, Link, Now, Schedule, Session, StreamId, Update,
};
use mendix_agent_proto::v1;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Code;

use super::{
    DesiredWriter, Dialer, Revised,
    dial::{control_client, describe},
    identity::Standing,
};

/// Messages that may wait to be sent on one stream: a Hello, one report per section, unanswered
/// heartbeats and lease requests. More means that the other side does not read.
const OUTBOUND: usize = 64;
/// Messages and ends of streams that may wait for the machine. A reader that is ahead waits, which
/// HTTP/2's window passes on to the server.
const EVENTS: usize = 64;
/// How long a stream that the agent ended may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the driver is connected to.
pub struct Wiring {
    /// What `Hello` says.
    pub about: About,
    /// Opens the connections.
    pub dialer: Dialer,
    /// Tells when there is a new identity.
    pub standing: watch::Receiver<Standing>,
    /// Where desired state goes.
    pub desired: DesiredWriter,
    /// What is to be reported.
    pub reports: watch::Receiver<BTreeMap<v1::Section, v1::report::Body>>,
    /// Lease requests to send.
    pub lease_requests: mpsc::Receiver<v1::LeaseRequest>,
    /// Where leases go.
    pub envelopes: broadcast::Sender<Vec<u8>>,
    /// Where the audit log ends.
    pub checkpoints: watch::Receiver<Option<v1::AuditCheckpoint>>,
    /// Where goes what the control plane holds of it.
    pub audit_acks: watch::Sender<Option<v1::AuditCheckpointAck>>,
    /// Where the state of the session goes.
    pub link: watch::Sender<Link>,
    /// Source of jitter, uniform over all of `u64`.
    pub random: Random,
}

/// See [`Wiring::random`].
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Runs the session until it is cancelled; it never gives up by itself.
pub async fn run(wiring: &mut Wiring, cancel: CancellationToken) {
    let (events, incoming) = mpsc::channel(EVENTS);
    let driver = Driver {
        session: Session::new(wiring.about.clone(), Instant::now().into_std()),
        streams: BTreeMap::new(),
        tasks: TaskTracker::new(),
        end: CancellationToken::new(),
        dialer: wiring.dialer.clone(),
        desired: wiring.desired.clone(),
        envelopes: wiring.envelopes.clone(),
        audit_acks: wiring.audit_acks.clone(),
        link: wiring.link.clone(),
        random: wiring.random.clone(),
        events,
        queue: VecDeque::new(),
    };
    driver.run(wiring, incoming, cancel).await;
}

/// One stream, seen from the loop. Dropping `outbound` ends the agent's half of it.
struct Stream {
    outbound: mpsc::Sender<v1::AgentMessage>,
    end: CancellationToken,
}

struct Driver {
    session: Session,
    streams: BTreeMap<StreamId, Stream>,
    tasks: TaskTracker,
    /// Ends every stream.
    end: CancellationToken,
    dialer: Dialer,
    desired: DesiredWriter,
    envelopes: broadcast::Sender<Vec<u8>>,
    audit_acks: watch::Sender<Option<v1::AuditCheckpointAck>>,
    link: watch::Sender<Link>,
    random: Random,
    events: mpsc::Sender<Event>,
    /// Events that carrying out an action gave rise to.
    queue: VecDeque<Event>,
}

impl Driver {
    async fn run(
        mut self,
        wiring: &mut Wiring,
        mut incoming: mpsc::Receiver<Event>,
        cancel: CancellationToken,
    ) {
        // Also when this future is dropped or panics, no stream outlives it.
        let _guard = self.end.clone().drop_guard();
        // What was published before the loop began is news to the machine.
        wiring.reports.mark_changed();
        wiring.checkpoints.mark_changed();
        self.step(Event::Tick);
        while let Some(deadline) = self.session.next_deadline() {
            tokio::select! {
                () = cancel.cancelled() => self.step(Event::Shutdown),
                () = sleep_until(deadline.into()) => self.step(Event::Tick),
                Some(event) = incoming.recv() => self.step(event),
                Ok(()) = wiring.reports.changed() => {
                    let reports = wiring.reports.borrow_and_update().clone();
                    for (section, body) in reports {
                        self.step(Event::Report(section, body));
                    }
                }
                Some(request) = wiring.lease_requests.recv() => {
                    self.step(Event::LeaseRequest(request));
                }
                Ok(()) = wiring.checkpoints.changed() => {
                    let checkpoint = wiring.checkpoints.borrow_and_update().clone();
                    if let Some(checkpoint) = checkpoint {
                        self.step(Event::AuditCheckpoint(checkpoint));
                    }
                }
                Ok(()) = wiring.standing.changed() => {
                    let enrolled =
                        matches!(&*wiring.standing.borrow_and_update(), Standing::Enrolled(_));
                    if enrolled {
                        self.step(Event::NewIdentity);
                    }
                }
            }
        }
        // The streams' tasks end by themselves; they must not wait for a loop that is gone.
        drop(incoming);
        self.tasks.close();
        if timeout(FAREWELL * 2, self.tasks.wait()).await.is_err() {
            tracing::debug!("a stream did not end in time");
        }
    }

    fn step(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            let now = Now { monotonic: Instant::now().into_std(), wall: Timestamp::now() };
            for action in self.session.handle(now, event, &mut || (self.random)()) {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial(id) => self.dial(id),
            Action::Send(id, message) => {
                let Some(stream) = self.streams.get(&id) else { return };
                if stream.outbound.try_send(message).is_err() {
                    let text = "stream: the control plane does not read what is sent";
                    let failure = Failure { schedule: Schedule::Outage, text: text.into() };
                    if let Some(stream) = self.streams.remove(&id) {
                        stream.end.cancel();
                    }
                    self.queue.push_back(Event::Closed(id, failure));
                }
            }
            Action::Close(id, reason) => {
                tracing::debug!(?id, ?reason, "ending a session");
                if let Some(stream) = self.streams.remove(&id) {
                    stream.end.cancel();
                }
            }
            Action::Desired(update) => self.hand_on(update),
            Action::VoidConsent => {
                tracing::warn!("the cluster was deregistered: tickets and requests are void");
                let nothing = || Revised { revision: 0, value: Default::default() };
                self.desired.tickets.send_replace(Some(nothing()));
                self.desired
                    .requests
                    .send_replace(Some(Revised { revision: 0, value: Default::default() }));
            }
            Action::Lease(envelope) => {
                // No reader: no snapshot is being taken.
                let _ = self.envelopes.send(envelope);
            }
            Action::AuditAck(ack) => {
                self.audit_acks.send_replace(Some(ack));
            }
            Action::Publish(link) => {
                tracing::info!(?link, "session");
                self.link.send_replace(link);
            }
            Action::Note(note) => tracing::warn!("{note}"),
        }
    }

    fn hand_on(&self, update: Update) {
        match update {
            Update::Release { revision, value } => {
                self.desired.release.send_replace(Some(Revised { revision, value }));
            }
            Update::Tickets { revision, value } => {
                self.desired.tickets.send_replace(Some(Revised { revision, value }));
            }
            Update::Requests { revision, value } => {
                self.desired.requests.send_replace(Some(Revised { revision, value }));
            }
        }
    }

    fn dial(&mut self, id: StreamId) {
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let end = self.end.child_token();
        let task = stream(id, self.dialer.clone(), messages, self.events.clone(), end.clone());
        self.tasks.spawn(task);
        // What is left of streams that ended from the other side.
        self.streams.retain(|_, stream| !stream.outbound.is_closed());
        self.streams.insert(id, Stream { outbound, end });
    }
}

/// Dials one stream and reads it to its end, or until the agent ends it.
async fn stream(
    id: StreamId,
    dialer: Dialer,
    messages: mpsc::Receiver<v1::AgentMessage>,
    events: mpsc::Sender<Event>,
    end: CancellationToken,
) {
    let failure = tokio::select! {
        failure = talk(id, &dialer, messages, &events, &end) => failure,
        () = farewell(&end) => return,
    };
    // Nobody listens any more when the loop has ended.
    let _ = events.send(Event::Closed(id, failure)).await;
}

/// Over once the agent ended the stream and its time to say goodbye is up.
async fn farewell(end: &CancellationToken) {
    end.cancelled().await;
    tokio::time::sleep(FAREWELL).await;
}

pub(super) async fn talk(
    id: StreamId,
    dialer: &Dialer,
    messages: mpsc::Receiver<v1::AgentMessage>,
    events: &mpsc::Sender<Event>,
    end: &CancellationToken,
) -> Failure {
    let over = || Failure { schedule: Schedule::Outage, text: "stream: ended".into() };
    let channel = tokio::select! {
        dialled = dialer.connect() => match dialled {
            Ok(channel) => channel,
            Err(error) => return error.failure(),
        },
        () = end.cancelled() => return over(),
    };
    if events.send(Event::Dialled(id)).await.is_err() {
        return over();
    }
    // The server may answer only once it has seen Hello: the queue is read from here on.
    let mut client = control_client(channel);
    let mut incoming = match client.session(ReceiverStream::new(messages)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return broken(dialer, &status),
    };
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if events.send(Event::Received(id, message)).await.is_err() {
                    return over();
                }
            }
            Ok(None) => {
                let text = "stream: the control plane ended the session".into();
                return Failure { schedule: Schedule::Outage, text };
            }
            Err(status) => return broken(dialer, &status),
        }
    }
}

fn broken(dialer: &Dialer, status: &tonic::Status) -> Failure {
    if too_many_pings(status) {
        dialer.target().calm_down();
    }
    failure(status)
}

/// Whether the other side ended the connection for being spoken to too often.
fn too_many_pings(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        cause = error.source();
    }
    false
}

/// How soon to try again after an answer with this code.
pub(super) fn schedule(code: Code) -> Schedule {
    match code {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::ResourceExhausted
        | Code::Unimplemented => Schedule::Refusal,
        _ => Schedule::Outage,
    }
}

fn failure(status: &tonic::Status) -> Failure {
    let layer = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => "authentication",
        _ => "stream",
    };
    let cause = std::error::Error::source(status)
        .map(|source| format!(": {}", describe(source)))
        .unwrap_or_default();
    let text = format!("{layer}: {}: {}{cause}", status.code(), status.message());
    Failure { schedule: schedule(status.code()), text }
}
