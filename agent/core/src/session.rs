//! The session: one outbound stream that brings desired state down and carries observed state up,
//! as a state machine without I/O.
//!
//! The driver (`mendix-agent`, channel/session.rs) tells it what happened ([`Event`]) and does what
//! it says ([`Action`]); it sleeps until [`Session::next_deadline`] and then says [`Event::Tick`].
//! Clock and randomness are passed in.
//!
//! ```text
//!             ┌────────────── backoff, Throttle ◀─────────────┐
//!             ▼                                               │
//! next:    Waiting ──▶ Dialling ──▶ Greeting ──Welcome──┐     │ closed, misses
//!                                                       ▼     │
//! live:                                   (old one closes) Live ──▶ age, Drain, new certificate:
//!                                                                   `next` dials while it lives on
//! ```
//!
//! At most two streams exist: the live one, and one on its way to replace it.

mod action;
mod address;
mod backoff;
mod capabilities;
mod desired;
mod event;
mod heartbeat;
mod incoming;
#[cfg(test)]
mod invariants;
mod link;
mod no_proxy;
#[cfg(test)]
mod orders;
mod outbox;
mod proxy_answer;
#[cfg(test)]
mod recorded;
mod renewal;
#[cfg(test)]
mod scenarios;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};

pub use self::{
    action::{Action, CloseReason, Note},
    address::{AddressPolicy, AddressRefused, alternate},
    backoff::{Backoff, STABLE_AFTER, Schedule},
    capabilities::{CAPABILITIES, Capability},
    desired::Update,
    event::{About, Event, Failure, Now, StreamId},
    link::{Link, SKEW_BOUND, SKEW_STEP},
    no_proxy::NoProxy,
    outbox::TooLarge,
    proxy_answer::{MAX_PROXY_HEAD, ProxyAnswer, ProxyNonsense},
    renewal::renew_at,
};
use self::{
    backoff::{about, fraction},
    desired::Intake,
    heartbeat::Heart,
    outbox::Outbox,
};

/// Longest a dial may take before the machine gives it up. The dialler has shorter deadlines of its
/// own; this one makes sure that nothing it forgets can stop the session for good.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(60);
/// How often a deregistered agent asks whether that still holds, ±10 %.
pub const DEREGISTERED_POLL: Duration = Duration::from_secs(900);

/// The machine.
#[derive(Debug)]
pub struct Session {
    about: About,
    intake: Intake,
    outbox: Outbox,
    live: Option<Live>,
    next: Next,
    backoff: Backoff,
    /// End of the time over which a server that drained wants its agents back.
    back_by: Option<Instant>,
    link: Link,
    deregistered: bool,
    ended: bool,
    streams: u64,
    /// Where the audit log ends.
    checkpoint: Option<v1::AuditCheckpoint>,
    /// What was last reported as not taken.
    not_taken: Option<v1::UnsupportedReport>,
}

/// What is on its way to become the live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Idle,
    Waiting { until: Instant, why: Wait },
    Dialling { stream: StreamId, deadline: Instant },
    Greeting { stream: StreamId, deadline: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Our own choice: a new certificate may cut it short.
    Backoff,
    /// The server's: nothing cuts it short.
    Ordered,
}

#[derive(Debug)]
struct Live {
    stream: StreamId,
    welcomed_at: Instant,
    heart: Heart,
    /// Its successor is dialled then.
    replace_at: Instant,
    /// The server goes away then.
    close_at: Option<Instant>,
    /// What of ours the server can't.
    lacks: Vec<Capability>,
}

impl Live {
    fn lacks(&self, capability: Capability) -> bool {
        self.lacks.contains(&capability)
    }
}

/// Source of randomness: uniform over all of `u64`.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

impl Session {
    /// A machine that dials at its first [`Event::Tick`].
    pub fn new(about: About, now: Instant) -> Self {
        Self {
            about,
            intake: Intake::default(),
            outbox: Outbox::default(),
            live: None,
            next: Next::Waiting { until: now, why: Wait::Backoff },
            backoff: Backoff::default(),
            back_by: None,
            link: Link::WaitingForConnection { last_failure: None },
            deregistered: false,
            ended: false,
            streams: 0,
            checkpoint: None,
            not_taken: None,
        }
    }

    /// When [`Event::Tick`] is due; `None` only after [`Event::Shutdown`].
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let next = match self.next {
            Next::Idle => None,
            Next::Waiting { until, .. } => Some(until),
            Next::Dialling { deadline, .. } | Next::Greeting { deadline, .. } => Some(deadline),
        };
        let live = self.live.as_ref().map(|live| {
            let replace = (self.next == Next::Idle).then_some(live.replace_at);
            [Some(live.heart.due()), replace, live.close_at].into_iter().flatten().min()
        });
        [next, live.flatten()].into_iter().flatten().min()
    }

    /// One step.
    pub fn handle(&mut self, now: Now, event: Event, random: Random<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.ended {
            return actions;
        }
        let mut step = Step { now, random, actions: &mut actions };
        match event {
            Event::Dialled(stream) => self.dialled(stream, &mut step),
            Event::Closed(stream, failure) => self.closed(stream, failure, &mut step),
            Event::Received(stream, message) => self.received(stream, message, &mut step),
            Event::Tick => self.tick(&mut step),
            Event::Report(section, body) => self.report(section, body, &mut step),
            Event::LeaseRequest(request) => match &self.live {
                Some(live) if live.lacks(Capability::LogSnapshots) => {
                    step.note(Note::LeaseRequestUseless);
                }
                Some(live) => {
                    let stream = live.stream;
                    step.send(stream, v1::agent_message::Body::LeaseRequest(request));
                }
                None => step.note(Note::LeaseRequestDropped),
            },
            Event::AuditCheckpoint(checkpoint) => {
                self.checkpoint = Some(checkpoint);
                self.send_checkpoint(&mut step);
            }
            Event::NewIdentity => self.new_identity(now.monotonic),
            Event::Shutdown => {
                self.close_all(CloseReason::Shutdown, &mut step);
                self.next = Next::Idle;
                self.ended = true;
            }
        }
        actions
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        let now = step.now.monotonic;
        self.tick_live(step);
        match self.next {
            Next::Waiting { until, .. } if until <= now => {
                self.streams += 1;
                let stream = StreamId(self.streams);
                self.next = Next::Dialling { stream, deadline: now + DIAL_DEADLINE };
                step.actions.push(Action::Dial(stream));
            }
            Next::Dialling { stream, deadline } if deadline <= now => {
                self.give_up(stream, CloseReason::Deadline, "stream: the dial took too long", step);
            }
            Next::Greeting { stream, deadline } if deadline <= now => {
                let text = "stream: no Welcome from the control plane in time";
                self.give_up(stream, CloseReason::Deadline, text, step);
            }
            _ => {}
        }
    }

    fn tick_live(&mut self, step: &mut Step<'_>) {
        let now = step.now.monotonic;
        let Some(live) = &mut self.live else { return };
        let stream = live.stream;
        if live.close_at.is_some_and(|at| at <= now) {
            let text = "stream: the control plane went away as announced";
            return self.give_up(stream, CloseReason::ServerAsked, text, step);
        }
        if live.heart.due() <= now {
            match live.heart.beat(now, (step.random)()) {
                Some(sequence) => step.send(
                    stream,
                    v1::agent_message::Body::Heartbeat(v1::Heartbeat {
                        sequence,
                        sent_at: Some(timestamp(step.now.wall)),
                    }),
                ),
                None => {
                    let text = "stream: heartbeats were not answered";
                    return self.give_up(stream, CloseReason::HeartbeatsLost, text, step);
                }
            }
        }
        if live.replace_at <= now && self.next == Next::Idle {
            self.replace(now);
        }
    }

    /// Lets a successor be dialled at `at`, beside the live session.
    fn replace(&mut self, at: Instant) {
        self.settle(at);
        self.next = Next::Waiting { until: at, why: Wait::Backoff };
    }

    /// Forgets old failures once the live session has shown itself stable.
    fn settle(&mut self, now: Instant) {
        if let Some(live) = &self.live
            && now.saturating_duration_since(live.welcomed_at) >= STABLE_AFTER
        {
            self.backoff.reset();
        }
    }

    fn dialled(&mut self, stream: StreamId, step: &mut Step<'_>) {
        if !matches!(self.next, Next::Dialling { stream: dialling, .. } if dialling == stream) {
            return;
        }
        let deadline = step.now.monotonic + limits::WELCOME_DEADLINE;
        self.next = Next::Greeting { stream, deadline };
        let about = &self.about;
        step.send(
            stream,
            v1::agent_message::Body::Hello(v1::Hello {
                cluster_uid: about.cluster_uid.clone(),
                agent_version: about.agent_version.clone(),
                boot_id: about.boot_id.clone(),
                lease_epoch: about.lease_epoch,
                protocol_min: limits::PROTOCOL_MIN,
                protocol_max: limits::PROTOCOL_MAX,
                capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
                held: self.intake.held(),
                kubernetes_version: about.kubernetes_version.clone(),
            }),
        );
    }

    /// Ends a stream from this side and treats it as failed.
    fn give_up(&mut self, stream: StreamId, reason: CloseReason, text: &str, step: &mut Step<'_>) {
        step.actions.push(Action::Close(stream, reason));
        self.closed(stream, Failure { schedule: Schedule::Outage, text: text.into() }, step);
    }

    fn closed(&mut self, stream: StreamId, failure: Failure, step: &mut Step<'_>) {
        let was_next = self.next_stream() == Some(stream);
        let was_live = self.live.as_ref().is_some_and(|live| live.stream == stream);
        if was_live {
            self.settle(step.now.monotonic);
            self.live = None;
        }
        if was_next || (was_live && self.next == Next::Idle) {
            self.wait_after(&failure, step);
        }
        if (was_next || was_live) && self.live.is_none() {
            self.publish_failure(failure.text, step);
        }
    }

    fn wait_after(&mut self, failure: &Failure, step: &mut Step<'_>) {
        let now = step.now.monotonic;
        let random = (step.random)();
        let wait = if self.deregistered {
            about(DEREGISTERED_POLL, random)
        } else {
            let backoff = self.backoff.next(failure.schedule, random);
            // Too early after a Drain: those who failed must not come back all at once when the
            // server does, so the rest of its time is shared out anew.
            let rest = self.back_by.map_or(Duration::ZERO, |by| by.saturating_duration_since(now));
            backoff.max(rest.mul_f64(fraction(random)))
        };
        self.next = Next::Waiting { until: step.now.monotonic + wait, why: Wait::Backoff };
    }

    fn publish_failure(&mut self, text: String, step: &mut Step<'_>) {
        let link = match &self.link {
            Link::WaitingForConnection { .. } => {
                Link::WaitingForConnection { last_failure: Some(text) }
            }
            Link::Connected { .. } => {
                Link::Disconnected { since: step.now.wall, last_failure: text }
            }
            Link::Disconnected { since, .. } => {
                Link::Disconnected { since: *since, last_failure: text }
            }
            Link::Deregistered { .. } => return,
        };
        self.publish(link, step);
    }

    fn publish(&mut self, link: Link, step: &mut Step<'_>) {
        if self.link != link {
            self.link = link.clone();
            step.actions.push(Action::Publish(link));
        }
    }

    fn next_stream(&self) -> Option<StreamId> {
        match self.next {
            Next::Dialling { stream, .. } | Next::Greeting { stream, .. } => Some(stream),
            Next::Idle | Next::Waiting { .. } => None,
        }
    }

    fn close_all(&mut self, reason: CloseReason, step: &mut Step<'_>) {
        let live = self.live.take().map(|live| live.stream);
        for stream in [live, self.next_stream()].into_iter().flatten() {
            step.actions.push(Action::Close(stream, reason));
        }
    }

    fn new_identity(&mut self, now: Instant) {
        match self.next {
            Next::Idle => self.replace(now),
            Next::Waiting { why: Wait::Backoff, .. } if !self.deregistered => {
                self.next = Next::Waiting { until: now, why: Wait::Backoff };
            }
            _ => {}
        }
    }

    fn report(&mut self, section: v1::Section, body: v1::report::Body, step: &mut Step<'_>) {
        if let Err(refused) = self.outbox.set(section, body, step.now.wall) {
            step.note(Note::ReportTooLarge(refused));
        }
        self.send_reports(step);
    }

    fn send_checkpoint(&self, step: &mut Step<'_>) {
        if let (Some(live), Some(checkpoint)) = (&self.live, &self.checkpoint)
            && !live.lacks(Capability::AuditCheckpoints)
        {
            let body = v1::agent_message::Body::AuditCheckpoint(checkpoint.clone());
            step.send(live.stream, body);
        }
    }

    fn send_reports(&mut self, step: &mut Step<'_>) {
        if let Some(live) = &self.live {
            for report in self.outbox.due(live.heart.sent()) {
                step.send(live.stream, v1::agent_message::Body::Report(report));
            }
        }
    }
}

/// What one step works with.
struct Step<'a> {
    now: Now,
    random: Random<'a>,
    actions: &'a mut Vec<Action>,
}

impl Step<'_> {
    fn send(&mut self, stream: StreamId, body: v1::agent_message::Body) {
        self.actions.push(Action::Send(stream, v1::AgentMessage { body: Some(body) }));
    }

    fn note(&mut self, note: Note) {
        self.actions.push(Action::Note(note));
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    // Protobuf wants nanoseconds counted forward, also before 1970.
    let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}
