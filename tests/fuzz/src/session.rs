//! The session machine, told anything in any order by a control plane and a network that mean harm.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mendix_agent_core::session::{
    About, Action, CAPABILITIES, DEREGISTERED_POLL, Event, Failure, Link, Now, Schedule, Session,
    StreamId,
};
use mendix_agent_proto::{limits, v1};
use v1::control_message::Body as Down;

use crate::input::Input;

mod frames;

pub use frames::frames;

/// The machine's own invariants, as its tests in core hold them; coverage picks the orders here.
#[path = "../../../agent/core/src/session/invariants.rs"]
mod invariants;

use invariants::{Happening, World, reconnects, report};

/// Happenings of one run; orders that matter are shorter.
const MOST: usize = 400;

/// Orders of events, each a byte and its choices.
pub fn session(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let ending = input.byte();
    let mut world = World::new(input.long());
    let mut happened = false;
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        let next = happening(&mut input);
        world.live(next);
        happened = true;
    }
    end(world, ending);
    happened
}

/// After anything: a shutdown silences the machine, and without one a good server gets it back.
fn end(mut world: World, ending: u8) {
    if ending & 1 == 0 {
        world.step(Event::Shutdown);
        world.step(Event::NewIdentity);
        world.step(Event::Report(v1::Section::Health, report(0, 9).1));
    } else {
        reconnects(world);
    }
}

fn happening(input: &mut Input<'_>) -> Happening {
    let tag = input.byte();
    let at = usize::from(tag >> 6);
    match tag & 15 {
        0 => Happening::Wait(input.word().into()),
        1 | 2 => Happening::ToTheDeadline,
        3 => Happening::Dialled(at),
        4 => Happening::Closed(at, input.flag()),
        5 | 6 => Happening::Down(at, Box::new(down(input))),
        7 => Happening::AckReport(at, input.byte().into()),
        8 => Happening::AckHeartbeat(at, input.byte().into()),
        9 | 10 => Happening::Report(input.byte() % 3, input.byte()),
        11 if at > 1 => Happening::AuditCheckpoint(input.byte().into()),
        11 => Happening::LeaseRequest,
        12 => Happening::NewIdentity,
        13 => Happening::Again(input.byte().into()),
        _ => Happening::Serve(at),
    }
}

fn down(input: &mut Input<'_>) -> Option<Down> {
    Some(match input.byte() % 8 {
        0 => return None,
        1 => Down::Welcome(v1::Welcome {
            session_id: "s".into(),
            protocol: if input.byte() == 255 { 2 } else { 1 },
            heartbeat_interval: duration(input),
            max_session_age: duration(input),
            server_time: duration(input)
                .map(|at| prost_types::Timestamp { seconds: at.seconds, nanos: at.nanos }),
            identity_conflict: None,
            capabilities: capabilities(input.byte()),
        }),
        2 => {
            let sections = (0..input.byte() % 4).map(|_| section(input)).collect();
            Down::DesiredState(v1::DesiredState { sections })
        }
        3 => Down::Drain(v1::Drain { deadline: duration(input), spread: duration(input) }),
        4 => Down::Throttle(v1::Throttle { retry_after: duration(input) }),
        5 => Down::Deregistered(v1::Deregistered { reason: "gone".into() }),
        6 => {
            let size = limits::MAX_LEASE_ENVELOPE + usize::from(input.flag());
            Down::Lease(v1::Lease { envelope: vec![0; size] })
        }
        _ => {
            let sequence = input.long();
            Down::HeartbeatAck(v1::HeartbeatAck { sequence, server_time: None })
        }
    })
}

/// Bits of the choice are what the control plane can; none of them: it does not say.
fn capabilities(choice: u8) -> Option<v1::Capabilities> {
    let bit = |at: usize| choice & (2 << at) != 0;
    let names = CAPABILITIES.iter().enumerate().filter(|(at, _)| bit(*at));
    let names = names.map(|(_, capability)| capability.to_string()).collect();
    (choice & 1 == 1).then_some(v1::Capabilities { names })
}

fn section(input: &mut Input<'_>) -> v1::DesiredSection {
    use v1::desired_section::Body;
    let body = match input.byte() % 5 {
        0 => None,
        1 => Some(Body::Release(v1::ReleaseSection::default())),
        2 => Some(Body::Tickets(v1::TicketsSection::default())),
        3 => Some(Body::Requests(v1::RequestsSection {
            requests: vec![v1::Request { request_id: "r".into(), kind: None }],
        })),
        _ => Some(Body::Release(v1::ReleaseSection {
            index_target: "x".repeat(limits::MAX_DESIRED_STATE),
            ..Default::default()
        })),
    };
    v1::DesiredSection {
        section: i32::from(input.byte()) - 2,
        revision: u64::from(input.byte() % 4),
        body,
    }
}

fn duration(input: &mut Input<'_>) -> Option<prost_types::Duration> {
    match input.byte() % 4 {
        0 => None,
        1 => Some(prost_types::Duration { seconds: input.word().into(), nanos: 0 }),
        2 => Some(prost_types::Duration { seconds: -i64::from(input.word()), nanos: 0 }),
        _ => {
            Some(prost_types::Duration { seconds: input.long() as i64, nanos: input.long() as i32 })
        }
    }
}
