//! What the control plane says, and what follows from it.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};
use v1::control_message::Body;

use super::{
    Action, CloseReason, DEREGISTERED_POLL, Failure, Heart, Link, Live, Next, Note, SKEW_STEP,
    Schedule, Session, Step, StreamId, Wait, backoff::about, backoff::fraction,
    capabilities::lacking,
};

impl Session {
    pub(super) fn received(
        &mut self,
        stream: StreamId,
        message: v1::ControlMessage,
        step: &mut Step<'_>,
    ) {
        let greeting = matches!(self.next, Next::Greeting { stream: s, .. } if s == stream);
        let live = self.live.as_ref().is_some_and(|live| live.stream == stream);
        match message.body {
            _ if !greeting && !live => {} // a stream that was ended: its last words don't count
            Some(Body::Throttle(throttle)) => self.throttled(throttle, greeting, step),
            Some(Body::Deregistered(said)) => self.deregister(said, step),
            Some(Body::Welcome(welcome)) if greeting => self.welcomed(stream, welcome, step),
            _ if greeting => {
                let text = "stream: the control plane's first message was not Welcome";
                self.give_up(stream, CloseReason::Protocol, text, step);
            }
            Some(Body::Welcome(_)) => step.note(Note::RepeatedWelcome),
            Some(Body::HeartbeatAck(ack)) => {
                let answered =
                    self.live.as_mut().is_some_and(|live| live.heart.acknowledged(ack.sequence));
                if answered {
                    self.measure(ack.server_time, step);
                    self.outbox.heartbeat_acknowledged(ack.sequence);
                    self.send_reports(step);
                }
            }
            Some(Body::DesiredState(state)) => {
                let updates = self.intake.take(state);
                step.actions.extend(updates.into_iter().map(Action::Desired));
                self.report_unsupported(step);
            }
            Some(Body::ReportAck(ack)) => {
                self.outbox.acknowledged(ack);
                self.send_reports(step);
            }
            Some(Body::Lease(lease)) => {
                let bytes = lease.envelope.len();
                if bytes > limits::MAX_LEASE_ENVELOPE {
                    step.note(Note::LeaseTooLarge { bytes });
                } else {
                    step.actions.push(Action::Lease(lease.envelope));
                }
            }
            Some(Body::AuditCheckpointAck(ack)) => step.actions.push(Action::AuditAck(ack)),
            Some(Body::Drain(drain)) => self.drained(drain, step),
            None => {
                self.intake.unknown_message();
                step.note(Note::UnknownMessage);
                self.report_unsupported(step);
            }
        }
    }

    fn welcomed(&mut self, stream: StreamId, welcome: v1::Welcome, step: &mut Step<'_>) {
        if !(limits::PROTOCOL_MIN..=limits::PROTOCOL_MAX).contains(&welcome.protocol) {
            step.actions.push(Action::Close(stream, CloseReason::Protocol));
            let text = format!(
                "stream: the control plane chose protocol {}, this agent speaks {} to {}",
                welcome.protocol,
                limits::PROTOCOL_MIN,
                limits::PROTOCOL_MAX
            );
            return self.closed(stream, Failure { schedule: Schedule::Refusal, text }, step);
        }
        let now = step.now.monotonic;
        let interval =
            tuned(welcome.heartbeat_interval, limits::HEARTBEAT_BOUNDS, limits::HEARTBEAT_DEFAULT);
        let age =
            tuned(welcome.max_session_age, limits::SESSION_AGE_BOUNDS, limits::SESSION_AGE_DEFAULT);
        let lacks = lacking(welcome.capabilities.as_ref());
        for lack in &lacks {
            step.note(Note::Lacks(*lack));
        }
        let live = Live {
            stream,
            welcomed_at: now,
            heart: Heart::new(interval, now, (step.random)()),
            replace_at: now + about(age, (step.random)()),
            close_at: None,
            lacks: lacks.clone(),
        };
        self.settle(now);
        if let Some(old) = self.live.replace(live) {
            step.actions.push(Action::Close(old.stream, CloseReason::Replaced));
        }
        self.next = Next::Idle;
        self.deregistered = false;
        self.back_by = None;
        let link = Link::Connected {
            session_id: welcome.session_id,
            since: step.now.wall,
            clock_skew_millis: welcome.server_time.map_or(0, |server| skew(server, step.now.wall)),
            identity_conflict: welcome.identity_conflict.map(conflict),
            lacks,
        };
        self.publish(link, step);
        self.outbox.begin_session();
        self.send_reports(step);
        self.send_checkpoint(step);
    }

    /// Tells of a skew that is another than the one told last.
    fn measure(&mut self, server: Option<prost_types::Timestamp>, step: &mut Step<'_>) {
        let Some(server) = server else { return };
        let now = skew(server, step.now.wall);
        let mut link = self.link.clone();
        if let Link::Connected { clock_skew_millis, .. } = &mut link
            && u128::from(now.abs_diff(*clock_skew_millis)) >= SKEW_STEP.as_millis()
        {
            *clock_skew_millis = now;
            self.publish(link, step);
        }
    }

    fn drained(&mut self, drain: v1::Drain, step: &mut Step<'_>) {
        let now = step.now.monotonic;
        let bounds = (Duration::ZERO, limits::DRAIN_SPREAD_MAX);
        let spread = tuned(drain.spread, bounds, Duration::ZERO);
        let bounds = (Duration::ZERO, limits::SESSION_AGE_BOUNDS.1);
        let deadline = tuned(drain.deadline, bounds, limits::DRAIN_SPREAD_MAX);
        if let Some(live) = &mut self.live {
            live.close_at = Some(now + deadline);
        }
        self.back_by = Some(now + spread);
        if self.next == Next::Idle {
            self.settle(now);
            let until = now + spread.mul_f64(fraction((step.random)()));
            self.next = Next::Waiting { until, why: Wait::Ordered };
        }
    }

    fn throttled(&mut self, throttle: v1::Throttle, greeting: bool, step: &mut Step<'_>) {
        let bounds = limits::RETRY_AFTER_BOUNDS;
        let wait = tuned(throttle.retry_after, bounds, bounds.0);
        self.settle(step.now.monotonic);
        match (greeting, self.next_stream()) {
            // A successor that is told to wait leaves the session it was to replace alone.
            (true, Some(successor)) => {
                step.actions.push(Action::Close(successor, CloseReason::ServerAsked));
            }
            _ => self.close_all(CloseReason::ServerAsked, step),
        }
        // Never earlier than asked, and up to 10 % later, so that those who were told the same
        // don't come back at the same moment.
        let wait = wait.mul_f64(1.0 + fraction((step.random)()) / 10.0);
        self.next = Next::Waiting { until: step.now.monotonic + wait, why: Wait::Ordered };
        if self.live.is_none() {
            let seconds = wait.as_secs();
            self.publish_failure(
                format!("stream: throttled by the control plane for {seconds} s"),
                step,
            );
        }
    }

    fn deregister(&mut self, said: v1::Deregistered, step: &mut Step<'_>) {
        self.close_all(CloseReason::ServerAsked, step);
        self.deregistered = true;
        self.intake.void();
        step.actions.push(Action::VoidConsent);
        let wait = about(DEREGISTERED_POLL, (step.random)());
        self.next = Next::Waiting { until: step.now.monotonic + wait, why: Wait::Ordered };
        self.publish(Link::Deregistered { reason: said.reason }, step);
    }

    fn report_unsupported(&mut self, step: &mut Step<'_>) {
        let report = self.intake.unsupported();
        if report == self.not_taken {
            return;
        }
        self.not_taken = report.clone();
        if let Some(report) = &report {
            step.note(Note::NotTaken(report.clone()));
        }
        // An empty report takes the last one back.
        let body = v1::report::Body::Unsupported(report.unwrap_or_default());
        self.report(v1::Section::Unsupported, body, step);
    }
}

/// The server's clock minus ours, milliseconds.
fn skew(server: prost_types::Timestamp, ours: Timestamp) -> i64 {
    let millis =
        server.seconds.saturating_mul(1000).saturating_add(i64::from(server.nanos) / 1_000_000);
    millis.saturating_sub(ours.as_millisecond())
}

/// One line about another process with this identity. Its text is the server's: shortened.
fn conflict(said: v1::IdentityConflict) -> String {
    let other: String =
        said.other_boot_id.chars().filter(|c| c.is_ascii_hexdigit()).take(32).collect();
    let seen = said.seen_at.and_then(|at| Timestamp::from_second(at.seconds).ok());
    let seen = seen.map(|at| format!(", last at {at}")).unwrap_or_default();
    format!("process {other} used this cluster's identity as well ({} times{seen})", said.count)
}

/// A duration that the server may tune, inside its bounds; `default` when it says nothing.
fn tuned(
    said: Option<prost_types::Duration>,
    (least, most): (Duration, Duration),
    default: Duration,
) -> Duration {
    said.map_or(default, |said| {
        // Not by the conversion of prost, which overflows on the most negative of seconds.
        let nanos = i128::from(said.seconds) * 1_000_000_000 + i128::from(said.nanos);
        let nanos = u128::try_from(nanos).unwrap_or(0);
        let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        Duration::new(seconds, (nanos % 1_000_000_000) as u32).clamp(least, most)
    })
}
