//! Control planes of other versions, as bytes that were recorded once (`proto/recorded`): what this
//! build makes of what the first one said, and of what one to come may say.

use std::collections::BTreeMap;

use prost::Message as _;
use v1::{agent_message::Body as Up, request::Kind};

use super::*;
use crate::consent::ticket::{Status, Ticket};

const FIRST: &str = include_str!("../../../../proto/recorded/plane-first.txt");
const TO_COME: &str = include_str!("../../../../proto/recorded/plane-to-come.txt");

/// A machine, and what a control plane says by name.
struct Play {
    session: Session,
    script: BTreeMap<&'static str, v1::ControlMessage>,
    now: Instant,
}

impl Play {
    fn new(recorded: &'static str) -> Self {
        let lines = recorded.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let script = lines.map(|line| {
            let (name, bytes) = line.split_once(' ').unwrap();
            let bytes = hex::decode(bytes).unwrap();
            (name, v1::ControlMessage::decode(&bytes[..]).unwrap())
        });
        let now = Instant::now();
        let about = About { cluster_uid: "uid".into(), ..About::default() };
        Self { session: Session::new(about, now), script: script.collect(), now }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        self.session.handle(Now { monotonic: self.now, wall }, event, &mut || u64::MAX / 2)
    }

    /// Lets a session begin, by the recorded Welcome.
    fn welcomed(recorded: &'static str) -> (Self, StreamId, Vec<Action>) {
        let mut play = Self::new(recorded);
        let [Action::Dial(stream)] = play.tell(Event::Tick)[..] else { panic!("no dial") };
        play.tell(Event::Dialled(stream));
        let actions = play.say(stream, "welcome");
        (play, stream, actions)
    }

    fn say(&mut self, stream: StreamId, name: &str) -> Vec<Action> {
        let message = self.script[name].clone();
        self.tell(Event::Received(stream, message))
    }
}

fn link(actions: &[Action]) -> &Link {
    let mut links = actions.iter().filter_map(|action| match action {
        Action::Publish(link) => Some(link),
        _ => None,
    });
    links.next_back().unwrap_or_else(|| panic!("no news of the session: {actions:?}"))
}

fn updates(actions: &[Action]) -> Vec<&Update> {
    let updates = actions.iter().filter_map(|action| match action {
        Action::Desired(update) => Some(update),
        _ => None,
    });
    updates.collect()
}

fn unsupported(actions: &[Action]) -> v1::UnsupportedReport {
    let mut reports = actions.iter().filter_map(|action| match action {
        Action::Send(_, v1::AgentMessage { body: Some(Up::Report(report)) }) => report.body.clone(),
        _ => None,
    });
    match reports.next_back() {
        Some(v1::report::Body::Unsupported(report)) => report,
        other => panic!("no report of what is not supported: {other:?}"),
    }
}

fn ended(actions: &[Action], stream: StreamId) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close(it, _) if *it == stream))
}

#[test]
fn all_that_the_first_control_plane_said_still_means_the_same() {
    let (mut play, stream, actions) = Play::welcomed(FIRST);
    let Link::Connected { session_id, clock_skew_millis, identity_conflict, lacks, .. } =
        link(&actions)
    else {
        panic!("{actions:?}")
    };
    assert_eq!((session_id.as_str(), *clock_skew_millis), ("s-1", 0));
    assert_eq!((identity_conflict, &lacks[..]), (&None, &[][..]), "it named no abilities");
    let beat = play.session.next_deadline().unwrap() - play.now;
    assert!((54..=66).contains(&beat.as_secs()), "a heartbeat a minute, as it asked: {beat:?}");

    let actions = play.say(stream, "desired_state");
    let [
        Update::Release { revision: 1, value: release },
        Update::Tickets { revision: 2, value: tickets },
        Update::Requests { revision: 3, value: requests },
    ] = updates(&actions)[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((release.index_target.as_str(), release.sequence), ("release-r1.json", 7));
    assert_eq!(tickets.consent_keys_sequence, 0, "no other keys than the installed ones");
    let [ticket] = &tickets.tickets[..] else { panic!("{tickets:?}") };
    assert_eq!(ticket.grant_envelope, b"{}");
    let ticket = Ticket::from_wire(ticket).unwrap();
    assert_eq!((ticket.status, ticket.title.as_str()), (Status::Open, "the operator restarts"));
    let [snapshot, recover] = &requests.requests[..] else { panic!("{requests:?}") };
    let wanted =
        v1::SnapshotRequest { ticket_id: "t-1".into(), components: vec!["operator".into()] };
    assert_eq!(
        (snapshot.request_id.as_str(), &snapshot.kind),
        ("r-1", &Some(Kind::Snapshot(wanted)))
    );
    let recovery = Some(Kind::Recover(v1::RecoverComponentsRequest {}));
    assert_eq!((recover.request_id.as_str(), &recover.kind), ("r-2", &recovery));

    // A report is out, a heartbeat is out: both answers are taken for what they are.
    let health = v1::HealthReport { state: "Healthy".into(), ..Default::default() };
    play.tell(Event::Report(v1::Section::Health, v1::report::Body::Health(health)));
    play.now = play.session.next_deadline().unwrap();
    play.tell(Event::Tick);
    play.say(stream, "report_ack");
    let actions = play.say(stream, "heartbeat_ack");
    assert!(matches!(link(&actions), Link::Connected { clock_skew_millis: 60_000, .. }));
    let again = v1::HealthReport { state: "Degraded".into(), ..Default::default() };
    let actions = play.tell(Event::Report(v1::Section::Health, v1::report::Body::Health(again)));
    assert!(
        matches!(&actions[..], [Action::Send(_, v1::AgentMessage { body: Some(Up::Report(_)) })]),
        "the report before was acknowledged: {actions:?}"
    );
    assert_eq!(play.say(stream, "lease"), [Action::Lease(b"{}".to_vec())]);

    play.say(stream, "drain");
    let within = play.session.next_deadline().unwrap() - play.now;
    assert!(within <= Duration::from_secs(60), "it comes back within the spread: {within:?}");
}

#[test]
fn the_first_control_planes_ways_to_send_an_agent_off_still_do() {
    let (mut play, stream, _) = Play::welcomed(FIRST);
    let actions = play.say(stream, "throttle");
    assert!(ended(&actions, stream), "{actions:?}");
    let wait = play.session.next_deadline().unwrap() - play.now;
    assert!((45..=50).contains(&wait.as_secs()), "{wait:?}");

    let (mut play, stream, _) = Play::welcomed(FIRST);
    let actions = play.say(stream, "deregistered");
    assert!(ended(&actions, stream) && actions.contains(&Action::VoidConsent), "{actions:?}");
    assert_eq!(link(&actions), &Link::Deregistered { reason: "deleted".into() });
}

#[test]
fn of_a_control_plane_to_come_what_is_known_is_taken_and_the_rest_is_named() {
    let (mut play, stream, actions) = Play::welcomed(TO_COME);
    assert!(matches!(link(&actions), Link::Connected { lacks, .. } if lacks.is_empty()));

    let actions = play.say(stream, "desired_state");
    let [
        Update::Release { revision: 5, value: release },
        Update::Tickets { revision: 6, value: tickets },
        Update::Requests { revision: 7, value: requests },
    ] = updates(&actions)[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(release.index_target, "release-r2.json");
    let ticket = Ticket::from_wire(&tickets.tickets[0]).unwrap();
    assert_eq!(ticket.status, Status::Unknown, "which is inactive");
    assert!(matches!(requests.requests[0].kind, Some(Kind::Snapshot(_))));
    let report = unsupported(&actions);
    assert_eq!(
        (&report.sections[..], &report.request_ids[..]),
        (&[42][..], &["r-9".to_owned()][..])
    );

    // The answer to one report makes way for the next.
    let acknowledge = |play: &mut Play, revision| {
        let section = v1::Section::Unsupported.into();
        let ack = v1::ReportAck { section, revision };
        let body = Some(v1::control_message::Body::ReportAck(ack));
        play.tell(Event::Received(stream, v1::ControlMessage { body }))
    };
    acknowledge(&mut play, 1);
    let actions = play.say(stream, "new_body");
    assert_eq!(updates(&actions), Vec::<&Update>::new());
    let [rejected] = &unsupported(&actions).rejected[..] else { panic!("{actions:?}") };
    assert_eq!((rejected.section, rejected.revision), (1, 9));
    assert_eq!(play.session.intake.held()[0].revision, 5, "the last good one stays");
    acknowledge(&mut play, 2);
    assert_eq!(unsupported(&play.say(stream, "new_message")).unknown_messages, 1);

    for said in ["report_ack", "heartbeat_ack", "drain"] {
        let actions = play.say(stream, said);
        assert!(!ended(&actions, stream), "{said}: {actions:?}");
    }
    assert!(play.session.live.is_some(), "and the session goes on");
}
