//! The session's course, told as stories.

use mendix_agent_proto::v1::{agent_message::Body as Up, control_message::Body as Down};

use super::*;

/// A machine with a clock and a die of its own.
struct Story {
    session: Session,
    now: Instant,
    roll: u64,
    actions: Vec<Action>,
}

impl Story {
    fn new() -> Self {
        let now = Instant::now();
        let about = About { cluster_uid: "uid".into(), ..About::default() };
        Self { session: Session::new(about, now), now, roll: u64::MAX, actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) -> &[Action] {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let now = Now { monotonic: self.now, wall };
        let roll = self.roll;
        self.actions = self.session.handle(now, event, &mut || roll);
        &self.actions
    }

    /// Lets time pass, tick by tick as the driver does, and returns all that happened.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(due) = self.session.next_deadline()
            && due <= end
        {
            self.now = due.max(self.now);
            all.extend_from_slice(self.tell(Event::Tick));
        }
        self.now = end;
        all
    }

    /// Waits for the next dial and returns its stream and how long it took.
    fn dial(&mut self) -> (StreamId, Duration) {
        let before = self.now;
        for _ in 0..100 {
            self.now = self.session.next_deadline().unwrap().max(self.now);
            let now = self.now;
            if let Some(Action::Dial(stream)) =
                self.tell(Event::Tick).iter().find(|it| matches!(it, Action::Dial(_)))
            {
                return (*stream, now - before);
            }
        }
        panic!("no dial")
    }

    fn say(&mut self, stream: StreamId, body: Down) -> &[Action] {
        self.tell(Event::Received(stream, v1::ControlMessage { body: Some(body) }))
    }

    fn connect(&mut self) -> StreamId {
        let (stream, _) = self.dial();
        self.tell(Event::Dialled(stream));
        self.say(stream, welcome());
        stream
    }

    fn lose(&mut self, stream: StreamId) -> &[Action] {
        self.tell(Event::Closed(stream, outage("stream: reset")))
    }
}

fn outage(text: &str) -> Failure {
    Failure { schedule: Schedule::Outage, text: text.into() }
}

fn welcome() -> Down {
    Down::Welcome(v1::Welcome { session_id: "s".into(), protocol: 1, ..Default::default() })
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn sent(actions: &[Action]) -> Vec<&Up> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(_, message) => message.body.as_ref(),
            _ => None,
        })
        .collect()
}

fn heartbeats(actions: &[Action]) -> Vec<u64> {
    sent(actions)
        .into_iter()
        .filter_map(|body| match body {
            Up::Heartbeat(heartbeat) => Some(heartbeat.sequence),
            _ => None,
        })
        .collect()
}

fn closes(actions: &[Action]) -> Vec<(StreamId, CloseReason)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Close(stream, reason) => Some((*stream, *reason)),
            _ => None,
        })
        .collect()
}

fn health(state: &str) -> Event {
    let report = v1::HealthReport { state: state.into(), ..Default::default() };
    Event::Report(v1::Section::Health, v1::report::Body::Health(report))
}

#[test]
fn the_first_dial_is_at_once_and_hello_comes_first() {
    let mut story = Story::new();
    let (stream, waited) = story.dial();
    assert_eq!(waited, Duration::ZERO);
    story.tell(health("Healthy"));
    let actions = story.tell(Event::Dialled(stream)).to_vec();
    let [Up::Hello(hello)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((hello.protocol_min, hello.protocol_max), (1, 1));
    let actions = story.say(stream, welcome()).to_vec();
    assert!(matches!(sent(&actions)[..], [Up::Report(_)]));
    assert!(actions.iter().any(|it| matches!(it, Action::Publish(Link::Connected { .. }))));
}

#[test]
fn three_unanswered_heartbeats_end_the_session() {
    let mut story = Story::new();
    let stream = story.connect();
    let actions = story.pass(Duration::from_secs(66 * 4));
    assert_eq!(heartbeats(&actions), [1, 2, 3]);
    assert_eq!(closes(&actions), [(stream, CloseReason::HeartbeatsLost)]);
    let (again, _) = story.dial();
    assert_ne!(again, stream);
}

#[test]
fn answered_heartbeats_keep_the_session_for_its_whole_age() {
    let mut story = Story::new();
    let stream = story.connect();
    for beat in 1..=50 {
        let actions = story.pass(Duration::from_secs(66));
        assert_eq!(heartbeats(&actions), [beat], "60 s +10 %");
        assert_eq!(closes(&actions), []);
        let ack = v1::HeartbeatAck { sequence: beat, server_time: None };
        story.say(stream, Down::HeartbeatAck(ack));
    }
}

#[test]
fn an_answer_to_a_heartbeat_that_was_never_sent_proves_nothing() {
    let mut story = Story::new();
    let stream = story.connect();
    let ack = v1::HeartbeatAck { sequence: u64::MAX, server_time: None };
    story.say(stream, Down::HeartbeatAck(ack));
    let actions = story.pass(Duration::from_secs(66 * 4));
    assert_eq!(closes(&actions), [(stream, CloseReason::HeartbeatsLost)]);
}

#[test]
fn what_the_server_tunes_is_clamped() {
    let bounds = limits::HEARTBEAT_BOUNDS;
    for (said, expected) in [
        (seconds(0), bounds.0),
        (seconds(-5), bounds.0),
        (seconds(1), bounds.0),
        (seconds(20), Duration::from_secs(20)),
        (seconds(i64::MAX), bounds.1),
        (None, limits::HEARTBEAT_DEFAULT),
    ] {
        let mut story = Story::new();
        let (stream, _) = story.dial();
        story.tell(Event::Dialled(stream));
        let welcome = v1::Welcome { protocol: 1, heartbeat_interval: said, ..Default::default() };
        story.roll = 0;
        story.say(stream, Down::Welcome(welcome));
        let due = story.session.next_deadline().unwrap() - story.now;
        assert_eq!(due, expected.mul_f64(0.9), "{said:?}");
    }
}

#[test]
fn a_server_that_accepts_and_closes_is_dialled_ever_more_slowly() {
    let mut story = Story::new();
    let mut waits = Vec::new();
    for _ in 0..9 {
        let stream = story.connect();
        story.pass(Duration::from_secs(5));
        story.lose(stream);
        let (next, waited) = story.dial();
        waits.push(waited.as_secs_f64().ceil() as u64);
        story.lose(next);
        // The next round connects on the dial after this failed one.
    }
    assert!(waits.is_sorted(), "{waits:?}");
    assert_eq!(*waits.last().unwrap(), 120);
}

#[test]
fn a_session_that_was_stable_forgets_old_failures() {
    let mut story = Story::new();
    for _ in 0..10 {
        let (stream, _) = story.dial();
        story.lose(stream);
    }
    let stream = story.connect();
    for beat in 1..=10 {
        story.pass(Duration::from_secs(66));
        let ack = v1::HeartbeatAck { sequence: beat, server_time: None };
        story.say(stream, Down::HeartbeatAck(ack));
    }
    story.lose(stream);
    let (_, waited) = story.dial();
    assert!(waited <= Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_refusal_is_tried_again_more_slowly_than_an_outage() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    let refusal = Failure { schedule: Schedule::Refusal, text: "authentication: no".into() };
    story.tell(Event::Closed(stream, refusal));
    story.roll = 0;
    let (_, waited) = story.dial();
    assert!(waited >= Duration::from_secs(15), "{waited:?}");
}

#[test]
fn retry_after_wins_over_backoff_and_is_clamped() {
    for (said, least, most) in [(seconds(30), 30, 33), (seconds(0), 1, 2), (seconds(-1), 1, 2)]
        .into_iter()
        .chain([(seconds(1_000_000), 900, 990), (None, 1, 2)])
        .chain([(seconds(i64::MIN), 1, 2), (seconds(i64::MAX), 900, 990)])
    {
        let mut story = Story::new();
        let stream = story.connect();
        let throttle = Down::Throttle(v1::Throttle { retry_after: said });
        assert_eq!(closes(story.say(stream, throttle)), [(stream, CloseReason::ServerAsked)]);
        story.tell(Event::NewIdentity);
        let (_, waited) = story.dial();
        let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
        assert!(bounds.contains(&waited), "{said:?}: {waited:?}");
    }
}

#[test]
fn a_throttled_successor_leaves_the_live_session_alone() {
    let mut story = Story::new();
    story.connect();
    story.tell(Event::NewIdentity);
    let (successor, _) = story.dial();
    story.tell(Event::Dialled(successor));
    let throttle = Down::Throttle(v1::Throttle { retry_after: seconds(60) });
    let actions = story.say(successor, throttle).to_vec();
    assert_eq!(closes(&actions), [(successor, CloseReason::ServerAsked)]);
    assert!(!actions.iter().any(|it| matches!(it, Action::Publish(_))));
    assert!(matches!(sent(story.tell(health("Healthy")))[..], [Up::Report(_)]));
}

#[test]
fn drain_opens_a_new_session_within_the_spread_before_it_ends_the_old() {
    let mut story = Story::new();
    let old = story.connect();
    let drain = v1::Drain { deadline: seconds(50), spread: seconds(20) };
    story.say(old, Down::Drain(drain));
    let (new, waited) = story.dial();
    assert!(waited <= Duration::from_secs(20), "{waited:?}");
    story.tell(Event::Dialled(new));
    assert_eq!(closes(story.say(new, welcome())), [(old, CloseReason::Replaced)]);
}

#[test]
fn drain_ends_the_session_at_its_deadline_even_without_a_new_one() {
    let mut story = Story::new();
    let old = story.connect();
    let drain = v1::Drain { deadline: seconds(30), spread: seconds(0) };
    story.say(old, Down::Drain(drain));
    let (new, _) = story.dial();
    let actions = story.pass(Duration::from_secs(30));
    assert_eq!(closes(&actions), [(old, CloseReason::ServerAsked)]);
    assert!(actions.iter().any(|it| matches!(it, Action::Publish(Link::Disconnected { .. }))));
    story.tell(Event::Dialled(new));
    let actions = story.say(new, welcome()).to_vec();
    assert!(actions.iter().any(|it| matches!(it, Action::Publish(Link::Connected { .. }))));
}

#[test]
fn at_its_age_a_session_is_replaced_before_it_ends() {
    let mut story = Story::new();
    let (old, _) = story.dial();
    story.tell(Event::Dialled(old));
    let short = v1::Welcome { protocol: 1, max_session_age: seconds(60), ..Default::default() };
    story.roll = 0;
    story.say(old, Down::Welcome(short));
    let (new, waited) = story.dial();
    assert_eq!(waited, Duration::from_secs(54), "60 s -10 %");
    assert!(matches!(sent(story.tell(health("Healthy")))[..], [Up::Report(_)]), "still live");
    story.tell(Event::Dialled(new));
    let actions = story.say(new, welcome()).to_vec();
    assert_eq!(closes(&actions), [(old, CloseReason::Replaced)]);
    assert!(matches!(sent(&actions)[..], [Up::Report(_)]), "the new server gets everything");
    // The old stream's last words change nothing.
    assert_eq!(story.lose(old), []);
    assert_eq!(story.say(old, Down::Deregistered(v1::Deregistered::default())), []);
}

#[test]
fn a_successor_that_fails_leaves_the_live_session_alone() {
    let mut story = Story::new();
    story.connect();
    story.tell(Event::NewIdentity);
    let (successor, _) = story.dial();
    assert_eq!(story.lose(successor), []);
    story.dial();
    assert!(matches!(sent(story.tell(health("Healthy")))[..], [Up::Report(_)]));
}

#[test]
fn deregistered_voids_consent_and_asks_again_every_quarter_hour() {
    let mut story = Story::new();
    let stream = story.connect();
    let tickets = v1::DesiredState {
        sections: vec![v1::DesiredSection {
            section: v1::Section::Tickets.into(),
            revision: 9,
            body: Some(v1::desired_section::Body::Tickets(v1::TicketsSection::default())),
        }],
    };
    story.say(stream, Down::DesiredState(tickets));
    let said = v1::Deregistered { reason: "deleted".into() };
    let actions = story.say(stream, Down::Deregistered(said)).to_vec();
    assert!(actions.contains(&Action::VoidConsent));
    let link = Link::Deregistered { reason: "deleted".into() };
    assert!(actions.contains(&Action::Publish(link)));
    assert_eq!(closes(&actions), [(stream, CloseReason::ServerAsked)]);
    for _ in 0..20 {
        story.tell(Event::NewIdentity);
        let (next, waited) = story.dial();
        let minutes = Duration::from_secs(13 * 60)..=Duration::from_secs(17 * 60);
        assert!(minutes.contains(&waited), "{waited:?}");
        assert_eq!(story.lose(next), [], "still deregistered, and quiet about it");
    }
    let (back, _) = story.dial();
    let actions = story.tell(Event::Dialled(back)).to_vec();
    let [Up::Hello(hello)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(hello.held, [], "voided tickets are not held");
    let actions = story.say(back, welcome()).to_vec();
    assert!(actions.iter().any(|it| matches!(it, Action::Publish(Link::Connected { .. }))));
}

#[test]
fn a_first_message_that_is_not_welcome_ends_the_stream() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    let actions = story.say(stream, Down::DesiredState(v1::DesiredState::default()));
    assert_eq!(closes(actions), [(stream, CloseReason::Protocol)]);
}

#[test]
fn a_protocol_that_is_not_spoken_is_a_refusal() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    let welcome = v1::Welcome { protocol: 99, ..Default::default() };
    assert_eq!(
        closes(story.say(stream, Down::Welcome(welcome))),
        [(stream, CloseReason::Protocol)]
    );
    story.roll = 0;
    let (_, waited) = story.dial();
    assert!(waited >= Duration::from_secs(15));
}

#[test]
fn a_server_that_never_says_welcome_is_given_up() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    let actions = story.pass(limits::WELCOME_DEADLINE);
    assert_eq!(closes(&actions), [(stream, CloseReason::Deadline)]);
}

#[test]
fn a_dial_that_never_ends_is_given_up() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    let actions = story.pass(DIAL_DEADLINE);
    assert_eq!(closes(&actions), [(stream, CloseReason::Deadline)]);
    story.dial();
}

#[test]
fn an_unknown_message_is_reported_and_the_session_goes_on() {
    let mut story = Story::new();
    let stream = story.connect();
    let event = Event::Received(stream, v1::ControlMessage { body: None });
    let actions = story.tell(event).to_vec();
    let [Up::Report(report)] = sent(&actions)[..] else { panic!("{actions:?}") };
    let Some(v1::report::Body::Unsupported(unsupported)) = &report.body else { panic!() };
    assert_eq!(unsupported.unknown_messages, 1);
    assert_eq!(closes(&actions), []);
}

#[test]
fn leases_pass_in_their_size_and_only_while_there_is_a_session() {
    let mut story = Story::new();
    let request = v1::LeaseRequest { grant_sha256: vec![0; 32], nonce: vec![0; 16] };
    let dropped = [Action::Note(Note::LeaseRequestDropped)];
    assert_eq!(story.tell(Event::LeaseRequest(request.clone())), dropped);
    let stream = story.connect();
    assert!(matches!(sent(story.tell(Event::LeaseRequest(request)))[..], [Up::LeaseRequest(_)]));
    let fits = vec![7; limits::MAX_LEASE_ENVELOPE];
    let lease = Down::Lease(v1::Lease { envelope: fits.clone() });
    assert_eq!(story.say(stream, lease), [Action::Lease(fits)]);
    let bytes = limits::MAX_LEASE_ENVELOPE + 1;
    let lease = Down::Lease(v1::Lease { envelope: vec![7; bytes] });
    assert_eq!(story.say(stream, lease), [Action::Note(Note::LeaseTooLarge { bytes })]);
}

#[test]
fn skew_is_the_servers_clock_minus_ours() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    let server_time = Some(prost_types::Timestamp { seconds: 1_799_999_990, nanos: 500_000_000 });
    let welcome = v1::Welcome { protocol: 1, server_time, ..Default::default() };
    let actions = story.say(stream, Down::Welcome(welcome)).to_vec();
    let skew = actions.iter().find_map(|action| match action {
        Action::Publish(Link::Connected { clock_skew_millis, .. }) => Some(*clock_skew_millis),
        _ => None,
    });
    assert_eq!(skew, Some(-9_500));
}

#[test]
fn a_clock_that_is_set_during_a_session_is_noticed_at_the_next_heartbeat() {
    let mut story = Story::new();
    let stream = story.connect();
    let skew = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Publish(Link::Connected { clock_skew_millis, .. }) => Some(*clock_skew_millis),
            _ => None,
        })
    };
    let ack = |story: &mut Story, sequence, ahead: i64| {
        story.now = story.session.next_deadline().unwrap();
        story.tell(Event::Tick);
        let seconds = 1_800_000_000 + ahead;
        let server_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        let ack = v1::HeartbeatAck { sequence, server_time };
        skew(story.say(stream, Down::HeartbeatAck(ack)))
    };
    assert_eq!(ack(&mut story, 1, 86_400), Some(86_400_000));
    assert_eq!(ack(&mut story, 2, 86_400), None, "the same again is no news");
    assert_eq!(ack(&mut story, 3, 0), Some(0));
}

#[test]
fn what_the_server_says_of_a_second_process_is_passed_on() {
    let mut story = Story::new();
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    let conflict = v1::IdentityConflict {
        other_boot_id: "c0ffee\u{202e}<b>".into(),
        seen_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
        count: 3,
    };
    let welcome =
        v1::Welcome { protocol: 1, identity_conflict: Some(conflict), ..Default::default() };
    let actions = story.say(stream, Down::Welcome(welcome)).to_vec();
    let told = actions.iter().find_map(|action| match action {
        Action::Publish(Link::Connected { identity_conflict, .. }) => identity_conflict.clone(),
        _ => None,
    });
    let told = told.unwrap();
    assert!(told.contains("process c0ffeeb used") && told.contains("3 times"), "{told}");
}

#[test]
fn shutdown_ends_everything_for_good() {
    let mut story = Story::new();
    let live = story.connect();
    story.tell(Event::NewIdentity);
    let (successor, _) = story.dial();
    let actions = story.tell(Event::Shutdown).to_vec();
    assert_eq!(
        closes(&actions),
        [(live, CloseReason::Shutdown), (successor, CloseReason::Shutdown)]
    );
    assert_eq!(story.session.next_deadline(), None);
    assert_eq!(story.tell(Event::Tick), []);
}

#[test]
fn the_end_of_the_audit_log_is_told_on_each_session_and_the_answer_handed_on() {
    let told = |actions: &[Action]| {
        let checkpoints = sent(actions).into_iter().filter_map(|body| match body {
            Up::AuditCheckpoint(checkpoint) => Some(checkpoint.sequence),
            _ => None,
        });
        checkpoints.collect::<Vec<_>>()
    };
    let checkpoint =
        |sequence| Event::AuditCheckpoint(v1::AuditCheckpoint { sequence, ..Default::default() });
    let mut story = Story::new();
    assert_eq!(told(story.tell(checkpoint(1))), [0; 0], "there is no session yet");
    story.tell(checkpoint(2));
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    assert_eq!(told(story.say(stream, welcome())), [2]);
    assert_eq!(told(story.tell(checkpoint(3))), [3]);
    let ack = v1::AuditCheckpointAck { sequence: 3, chain_sha256: vec![1; 32] };
    let actions = story.say(stream, Down::AuditCheckpointAck(ack.clone()));
    assert!(actions.contains(&Action::AuditAck(ack)));
    story.lose(stream);
    let (stream, _) = story.dial();
    story.tell(Event::Dialled(stream));
    assert_eq!(told(story.say(stream, welcome())), [3]);
}

#[test]
fn a_dial_that_comes_too_early_after_a_drain_is_repeated_within_the_spread() {
    let mut story = Story::new();
    let live = story.connect();
    story.roll = 0;
    story.say(live, Down::Drain(v1::Drain { deadline: seconds(2), spread: seconds(60) }));
    let (early, waited) = story.dial();
    assert_eq!(waited, Duration::ZERO, "it drew the first moment of the spread");
    story.roll = u64::MAX;
    story.tell(Event::Closed(early, outage("tcp: refused")));
    let (again, waited) = story.dial();
    let whole = Duration::from_secs(60);
    assert!(waited > whole - Duration::from_secs(1) && waited <= whole, "{waited:?}");
    // Afterwards it is an outage like any other.
    story.tell(Event::Closed(again, outage("tcp: refused")));
    assert!(story.dial().1 <= Duration::from_secs(2));
}

#[test]
fn a_drain_that_is_over_says_nothing_about_the_next_outage() {
    let mut story = Story::new();
    let live = story.connect();
    story.roll = 0;
    story.say(live, Down::Drain(v1::Drain { deadline: seconds(2), spread: seconds(600) }));
    let moved = story.connect();
    story.roll = u64::MAX;
    story.lose(moved);
    assert!(story.dial().1 <= Duration::from_secs(1));
}

#[test]
fn what_the_control_plane_lacks_is_not_used_and_said_once_a_session() {
    let can = |names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        let capabilities = Some(v1::Capabilities { names });
        Down::Welcome(v1::Welcome { protocol: 1, capabilities, ..Default::default() })
    };
    let greet = |story: &mut Story, welcome| {
        let (stream, _) = story.dial();
        story.tell(Event::Dialled(stream));
        (stream, story.say(stream, welcome).to_vec())
    };
    let mut story = Story::new();
    story.tell(Event::AuditCheckpoint(v1::AuditCheckpoint { sequence: 1, ..Default::default() }));
    let (old, actions) = greet(&mut story, can(&["patch-bundles", "recover-components", "new"]));
    assert_eq!(sent(&actions), [] as [&Up; 0], "no checkpoint");
    let lacks = vec![Capability::AuditCheckpoints, Capability::LogSnapshots];
    for lack in &lacks {
        assert!(actions.contains(&Action::Note(Note::Lacks(*lack))));
    }
    assert!(actions.iter().any(
        |it| matches!(it, Action::Publish(Link::Connected { lacks: said, .. }) if *said == lacks)
    ));
    let request = v1::LeaseRequest { grant_sha256: vec![0; 32], nonce: vec![0; 16] };
    let useless = [Action::Note(Note::LeaseRequestUseless)];
    assert_eq!(story.tell(Event::LeaseRequest(request.clone())), useless);
    let checkpoint = v1::AuditCheckpoint { sequence: 2, ..Default::default() };
    assert_eq!(story.tell(Event::AuditCheckpoint(checkpoint.clone())), []);

    // It was upgraded: the next session has all of it, and gets what the last one could not.
    story.lose(old);
    let (_, actions) =
        greet(&mut story, can(&["log-snapshots", "audit-checkpoints", "patch-bundles"]));
    assert_eq!(sent(&actions), [&Up::AuditCheckpoint(checkpoint)]);
    assert!(matches!(sent(story.tell(Event::LeaseRequest(request)))[..], [Up::LeaseRequest(_)]));
}
