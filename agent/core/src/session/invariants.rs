//! What holds whatever happens, in whatever order:
//!
//! 1. At most two streams exist, at most one of them not welcomed yet.
//! 2. On every stream `Hello` comes first and once; nothing but `Hello` before `Welcome`; nothing
//!    after the stream ended.
//! 3. Until shutdown there is always a next deadline, and a tick at it makes progress: the machine
//!    can neither get stuck nor spin.
//! 4. What `Hello` says is held is what was handed on last, section by section.
//! 5. At most one report per section is unacknowledged on a stream, with growing revisions.
//! 6. At most three heartbeats are unanswered.
//! 7. The link is never published twice in a row with the same content, and says `Connected`
//!    exactly while there is a live stream.
//! 8. After shutdown nothing happens.
//! 9. When the server said when to come back, nothing is dialled before.
//! 10. Given a server that works, the agent connects again, whatever happened before, and the server
//!     then has the last report of every section.
//! 11. What a control plane lacks is not used on its sessions.
//!
//! Chance picks the orders in `orders`; tests/fuzz builds this file once more and lets coverage pick
//! them.

use std::collections::BTreeMap;

use mendix_agent_proto::v1::{agent_message::Body as Up, control_message::Body as Down};

use super::*;

/// Something that happens; streams are chosen among those that exist or existed.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Wait(u32),
    ToTheDeadline,
    Dialled(usize),
    Closed(usize, bool),
    Down(usize, Box<Option<Down>>),
    AckReport(usize, u64),
    AckHeartbeat(usize, u64),
    Report(u8, u8),
    LeaseRequest,
    AuditCheckpoint(u64),
    NewIdentity,
    /// Something that was said earlier is said again: the network repeated or delayed it.
    Again(usize),
    /// The server does what a good one does next on this stream.
    Serve(usize),
}

pub(super) fn report(section: u8, state: u8) -> (v1::Section, v1::report::Body) {
    use v1::report::Body;
    let text = state.to_string();
    match section {
        0 => {
            let body = v1::HealthReport { state: text, ..Default::default() };
            (v1::Section::Health, Body::Health(body))
        }
        1 => {
            let body = v1::ReleaseRunReport { state: text, ..Default::default() };
            (v1::Section::ReleaseRun, Body::ReleaseRun(body))
        }
        _ => {
            let body = v1::PreflightReport { result: text, ..Default::default() };
            (v1::Section::Preflight, Body::Preflight(body))
        }
    }
}

/// What the world knows of one stream.
#[derive(Default)]
struct Seen {
    hello: bool,
    welcomed: bool,
    /// What its Welcome named, if it named anything.
    capabilities: Option<v1::Capabilities>,
    heartbeats: u64,
    acknowledged: u64,
    /// Per section: last revision sent, and the heartbeat before it, while unacknowledged.
    unacknowledged: BTreeMap<i32, (u64, u64)>,
    reported: BTreeMap<i32, (u64, v1::report::Body)>,
}

/// Watches the machine and checks the invariants at every step.
pub(super) struct World {
    session: Session,
    now: Instant,
    random: u64,
    open: BTreeMap<StreamId, Seen>,
    ever: Vec<StreamId>,
    handed_on: BTreeMap<v1::Section, u64>,
    link: Option<Link>,
    shut: bool,
    /// Everything that was said, for [`Happening::Again`].
    said: Vec<(StreamId, v1::ControlMessage)>,
    /// No dial before, by order of the server.
    not_before: Option<Instant>,
}

impl World {
    pub(super) fn new(random: u64) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(About::default(), now),
            now,
            random,
            open: BTreeMap::new(),
            ever: Vec::new(),
            handed_on: BTreeMap::new(),
            link: None,
            shut: false,
            said: Vec::new(),
            not_before: None,
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        // What the other side does shows before the machine hears of it.
        match &event {
            Event::Closed(stream, _) => drop(self.open.remove(stream)),
            Event::Received(stream, message) => {
                self.said.push((*stream, message.clone()));
                if let Some(seen) = self.open.get_mut(stream) {
                    seen.hears(message);
                    if seen.hello {
                        self.ordered(message);
                    }
                }
            }
            _ => {}
        }
        let shutdown = matches!(event, Event::Shutdown);
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let now = Now { monotonic: self.now, wall };
        let random = &mut self.random;
        let actions = self.session.handle(now, event, &mut || {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *random
        });
        assert!(!self.shut || actions.is_empty(), "8: {actions:?}");
        self.shut |= shutdown;
        for action in actions {
            self.check(action);
        }
        let unwelcomed = self.open.values().filter(|seen| !seen.welcomed).count();
        assert!(self.open.len() <= 2 && unwelcomed <= 1, "1: {} open", self.open.len());
        let connected = matches!(self.link, Some(Link::Connected { .. }));
        if self.shut {
            assert!(self.open.is_empty() && self.session.next_deadline().is_none(), "8");
        } else {
            assert!(self.session.next_deadline().is_some(), "3");
            let live = self.open.values().any(|seen| seen.welcomed);
            assert_eq!(connected, live, "7");
        }
    }

    /// Notes until when the server told the agent to stay away.
    fn ordered(&mut self, message: &v1::ControlMessage) {
        let (least, most) = limits::RETRY_AFTER_BOUNDS;
        let wait = match &message.body {
            Some(Down::Throttle(v1::Throttle { retry_after: None })) => least,
            Some(Down::Throttle(v1::Throttle { retry_after: Some(said) })) => {
                let seconds = said.seconds as f64 + f64::from(said.nanos) / 1e9;
                Duration::from_secs_f64(seconds.clamp(least.as_secs_f64(), most.as_secs_f64()))
                    .saturating_sub(Duration::from_millis(1))
            }
            Some(Down::Deregistered(_)) => DEREGISTERED_POLL.mul_f64(0.89),
            _ => return,
        };
        self.not_before = Some(self.now + wait);
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Dial(stream) => {
                assert!(self.not_before.is_none_or(|at| at <= self.now), "9: too early");
                self.ever.push(stream);
                assert!(self.open.insert(stream, Seen::default()).is_none(), "1");
            }
            Action::Send(stream, message) => {
                let body = message.body.expect("a body");
                self.open.get_mut(&stream).expect("2: sent on an ended stream").says(&body);
                if let Up::Hello(hello) = body {
                    let held = hello
                        .held
                        .into_iter()
                        .map(|held| (v1::Section::try_from(held.section).unwrap(), held.revision));
                    assert_eq!(held.collect::<BTreeMap<_, _>>(), self.handed_on, "4");
                }
            }
            Action::Close(stream, _) => {
                assert!(self.open.remove(&stream).is_some(), "2: ended twice");
            }
            Action::Desired(update) => {
                let (section, revision) = update.held();
                self.handed_on.insert(section, revision);
            }
            Action::VoidConsent => {
                self.handed_on.remove(&v1::Section::Tickets);
                self.handed_on.remove(&v1::Section::Requests);
            }
            Action::Publish(link) => {
                assert_ne!(self.link.as_ref(), Some(&link), "7");
                self.link = Some(link);
            }
            Action::Lease(_) | Action::AuditAck(_) | Action::Note(_) => {}
        }
    }

    fn pick(&self, at: usize) -> Option<StreamId> {
        // The newest streams first, ended ones among them.
        self.ever.iter().rev().nth(at).copied()
    }

    fn tick(&mut self) {
        let due = self.session.next_deadline().expect("a deadline");
        self.now = self.now.max(due);
        self.step(Event::Tick);
        let next = self.session.next_deadline().expect("3");
        assert!(next > self.now, "3: the machine spins");
    }

    pub(super) fn live(&mut self, happening: Happening) {
        match happening {
            Happening::Wait(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                self.step(Event::Tick);
            }
            Happening::ToTheDeadline => self.tick(),
            Happening::Dialled(at) => {
                if let Some(stream) = self.pick(at) {
                    self.step(Event::Dialled(stream));
                }
            }
            Happening::Closed(at, refused) => {
                if let Some(stream) = self.pick(at) {
                    let schedule = if refused { Schedule::Refusal } else { Schedule::Outage };
                    self.step(Event::Closed(stream, Failure { schedule, text: "x".into() }));
                }
            }
            Happening::Down(at, body) => self.hear(at, *body),
            Happening::AckReport(at, revision) => {
                let section = v1::Section::Health.into();
                self.hear(at, Some(Down::ReportAck(v1::ReportAck { section, revision })));
            }
            Happening::AckHeartbeat(at, sequence) => {
                let ack = v1::HeartbeatAck { sequence, server_time: None };
                self.hear(at, Some(Down::HeartbeatAck(ack)));
            }
            Happening::Report(section, state) => {
                let (section, body) = report(section, state);
                self.step(Event::Report(section, body));
            }
            Happening::LeaseRequest => {
                self.step(Event::LeaseRequest(v1::LeaseRequest::default()));
            }
            Happening::AuditCheckpoint(sequence) => {
                let checkpoint = v1::AuditCheckpoint { sequence, ..Default::default() };
                self.step(Event::AuditCheckpoint(checkpoint));
            }
            Happening::NewIdentity => self.step(Event::NewIdentity),
            Happening::Again(at) => {
                let earlier = self.said.iter().rev().nth(at).cloned();
                if let Some((stream, message)) = earlier
                    && self.open.get(&stream).is_none_or(|seen| seen.hello)
                {
                    self.step(Event::Received(stream, message));
                }
            }
            Happening::Serve(at) => {
                if let Some(stream) = self.pick(at) {
                    self.serve(stream);
                }
            }
        }
    }

    /// What a good server can: chance decides.
    fn capabilities(&self) -> Option<v1::Capabilities> {
        let chance = self.random >> 40;
        let has = |(bit, _): &(usize, _)| chance & (2 << bit) != 0;
        let names = CAPABILITIES.iter().enumerate().filter(has);
        let names = names.map(|(_, capability)| capability.to_string()).collect();
        (chance & 1 == 1).then_some(v1::Capabilities { names })
    }

    /// What a good server does next on a stream.
    fn serve(&mut self, stream: StreamId) {
        let Some(seen) = self.open.get(&stream) else { return };
        let body = match seen {
            Seen { hello: false, .. } => return self.step(Event::Dialled(stream)),
            Seen { welcomed: false, .. } => {
                let capabilities = self.capabilities();
                Down::Welcome(v1::Welcome { protocol: 1, capabilities, ..Default::default() })
            }
            Seen { heartbeats: sequence, .. } => {
                Down::HeartbeatAck(v1::HeartbeatAck { sequence: *sequence, server_time: None })
            }
        };
        self.step(Event::Received(stream, v1::ControlMessage { body: Some(body) }));
    }

    fn hear(&mut self, at: usize, body: Option<Down>) {
        // A server speaks only on a stream whose Hello it got, or on none.
        let Some(stream) = self.pick(at) else { return };
        if self.open.get(&stream).is_none_or(|seen| seen.hello) {
            self.step(Event::Received(stream, v1::ControlMessage { body }));
        }
    }
}

impl Seen {
    fn says(&mut self, body: &Up) {
        match body {
            Up::Hello(_) => {
                assert!(!self.hello, "2: a second Hello");
                self.hello = true;
                return;
            }
            Up::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.sequence, self.heartbeats + 1, "6");
                self.heartbeats += 1;
                assert!(self.heartbeats - self.acknowledged <= 3, "6");
            }
            Up::Report(report) => {
                let sent = (report.revision, self.heartbeats);
                let earlier = self.unacknowledged.insert(report.section, sent);
                assert_eq!(earlier, None, "5: two in flight");
                let body = report.body.clone().expect("a body");
                if let Some((last, _)) =
                    self.reported.insert(report.section, (report.revision, body))
                {
                    assert!(last < report.revision, "5: sent again without a change");
                }
            }
            Up::LeaseRequest(_) => self.uses("log-snapshots"),
            Up::AuditCheckpoint(_) => self.uses("audit-checkpoints"),
        }
        assert!(self.welcomed, "2: {body:?} before Welcome");
    }

    fn uses(&self, name: &str) {
        let named = self.capabilities.as_ref();
        assert!(named.is_none_or(|it| it.names.iter().any(|n| n == name)), "11: {name} is lacking");
    }

    fn hears(&mut self, message: &v1::ControlMessage) {
        match &message.body {
            Some(Down::Welcome(welcome))
                if welcome.protocol == 1 && self.hello && !self.welcomed =>
            {
                self.welcomed = true;
                self.capabilities.clone_from(&welcome.capabilities);
            }
            Some(Down::HeartbeatAck(ack)) if ack.sequence <= self.heartbeats => {
                self.acknowledged = self.acknowledged.max(ack.sequence);
                self.unacknowledged.retain(|_, (_, before)| *before >= ack.sequence);
            }
            Some(Down::ReportAck(ack)) => {
                let revision = ack.revision;
                self.unacknowledged
                    .retain(|section, sent| *section != ack.section || sent.0 != revision);
            }
            _ => {}
        }
    }
}

/// 10: from any state, with a server that does its part.
pub(super) fn reconnects(mut world: World) {
    let (section, body) = report(0, 77);
    world.step(Event::Report(section, body.clone()));
    for _ in 0..200 {
        let open: Vec<StreamId> = world.open.keys().copied().collect();
        for stream in open {
            // Its connection, its Welcome, its acknowledgement.
            for _ in 0..3 {
                world.serve(stream);
            }
        }
        let told = world.open.values().any(|seen| {
            let last = seen.reported.get(&v1::Section::Health.into());
            seen.welcomed && last.is_some_and(|(_, last)| *last == body)
        });
        if told {
            return;
        }
        world.tick();
    }
    panic!("10: never connected, or never told: {:?}", world.session);
}
