//! Ends of different versions. There is one version of the protocol so far; what differs between
//! builds within it is what one of them does not know or does not do.

use std::time::Duration;

use mendix_agent_core::session::{CAPABILITIES, Capability, Link};
use mendix_agent_proto::v1::{self, Section, report::Body};
use tonic::Code;

use crate::{
    plane::{Answer, welcome},
    world::World,
};

const TICK: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);
const UID: &str = "00000000-0000-4000-8000-000000000000";

fn report(world: &World, section: Section) -> Option<Body> {
    let key = (UID.to_owned(), i32::from(section));
    world.plane.book().reports.get(&key).and_then(|report| report.body.clone())
}

#[test]
fn sections_and_messages_of_a_newer_control_plane_are_answered_as_unsupported() {
    let mut world = World::new(21, TICK);
    let unknown = v1::DesiredSection { section: 42, revision: 7, body: None };
    let state = v1::DesiredState { sections: vec![unknown] };
    let desired = v1::control_message::Body::DesiredState(state);
    // A message of a kind that is not known has, once decoded, no body.
    world.plane.book().then =
        vec![v1::ControlMessage { body: None }, v1::ControlMessage { body: Some(desired) }];
    world.agents("agents", 1);
    world.until(MINUTE, "the answer", |world| {
        matches!(
            report(world, Section::Unsupported),
            Some(Body::Unsupported(said)) if said.sections == [42] && said.unknown_messages == 1
        )
    });
    world.pass(10 * MINUTE);
    assert!(world.all_connected(), "and the session goes on");
    assert_eq!(world.plane.book().hellos.len(), 1);
}

#[test]
fn a_control_plane_of_long_ago_that_says_and_acknowledges_little_is_enough() {
    let mut world = World::new(22, TICK);
    {
        let mut book = world.plane.book();
        book.acknowledges = false;
        // No id, no time, no intervals.
        book.answer = Answer::Welcome(v1::Welcome { protocol: 1, ..v1::Welcome::default() });
    }
    world.agents("agents", 1);
    world.until(MINUTE, "the connection", World::all_connected);
    for round in 1..=3 {
        let health = v1::HealthReport { agent_rss_bytes: round, ..v1::HealthReport::default() };
        world.agents[0].reports.publish(Body::Health(health.clone()));
        // An answered heartbeat says as much as an acknowledgement, a little later.
        world.until(3 * MINUTE, "each report arrives", move |world| {
            report(world, Section::Health) == Some(Body::Health(health.clone()))
        });
    }
    assert_eq!(world.plane.book().hellos.len(), 1);
}

#[test]
fn a_control_plane_that_speaks_only_newer_versions_is_asked_seldom_and_named() {
    let mut world = World::new(23, TICK);
    world.plane.book().answer = Answer::Welcome(v1::Welcome { protocol: 3, ..welcome() });
    world.agents("agents", 1);
    world.pass(30 * MINUTE);
    let hellos = world.plane.book().hellos.len();
    assert!((2..=8).contains(&hellos), "a refusal is not an outage: {hellos}");
    assert!(
        world.agents[0].failure().contains("chose protocol 3"),
        "{}",
        world.agents[0].failure()
    );

    world.plane.book().answer = Answer::Refuse(Code::FailedPrecondition, "no common version");
    world.pass(30 * MINUTE);
    assert!(world.agents[0].failure().contains("no common version"));
    world.plane.book().answer = Answer::Welcome(welcome());
    world.until(16 * MINUTE, "once both are upgraded", World::all_connected);
}

/// What the agent asked of a control plane that says this of itself, and what it misses there.
fn asked(capabilities: Option<&[&str]>) -> (Vec<&'static str>, Vec<Capability>) {
    let mut world = World::new(24, TICK);
    let capabilities = capabilities
        .map(|names| v1::Capabilities { names: names.iter().map(ToString::to_string).collect() });
    world.plane.book().answer = Answer::Welcome(v1::Welcome { capabilities, ..welcome() });
    world.agents("agents", 1);
    world.until(MINUTE, "the connection", World::all_connected);
    let agent = &world.agents[0];
    agent.checkpoints.send_replace(Some(v1::AuditCheckpoint { sequence: 1, ..Default::default() }));
    let request = v1::LeaseRequest { grant_sha256: vec![1; 32], nonce: vec![2; 16] };
    agent.leases.requests.try_send(request).expect("room");
    world.pass(10 * MINUTE);
    assert!(world.all_connected(), "and the session goes on");
    assert_eq!(world.plane.book().hellos.len(), 1);
    let Link::Connected { lacks, .. } = world.agents[0].link.borrow().clone() else {
        unreachable!()
    };
    let mut asked = std::mem::take(&mut world.plane.book().asked);
    asked.sort_unstable();
    (asked, lacks)
}

#[test]
fn a_control_plane_from_before_capabilities_were_named_is_used_as_ever() {
    assert_eq!(asked(None), (vec!["AuditCheckpoint", "LeaseRequest"], vec![]));
}

#[test]
fn what_a_control_plane_lacks_is_not_asked_of_it_and_is_told() {
    let (used, lacks) = asked(Some(&[]));
    assert_eq!((used, &lacks[..]), (vec![], CAPABILITIES));
    let newer = ["log-snapshots", "patch-bundles", "recover-components", "of-the-year-2030"];
    assert_eq!(asked(Some(&newer)), (vec!["LeaseRequest"], vec![Capability::AuditCheckpoints]));
}
