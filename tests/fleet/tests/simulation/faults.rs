//! The network fails; the agents find back.

use std::{collections::BTreeMap, time::Duration};

use mendix_agent_core::session::Link;
use mendix_agent_proto::v1;
use mendix_test_kit::proxy::gateway::Backend;

use crate::{
    plane::{Answer, welcome},
    world::{PLANE, World},
};

const TICK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Longest backoff after an outage, with room for a dial.
const BACKOFF: Duration = Duration::from_secs(125);

fn connected(seed: u64, agents: u32) -> World {
    let mut world = World::new(seed, TICK);
    world.agents("agents", agents);
    world.until(MINUTE, "the first connection", World::all_connected);
    world
}

/// A flow whose packets vanish while others pass: what a load balancer does that forgot it.
fn forget_the_flow(idle: Duration) {
    let mut world = connected(1, 1);
    world.pass(idle);
    world.sim.partition("agents", PLANE);
    // A PING goes out every 30 s; once one is lost, what comes after it on this flow is too.
    world.pass(Duration::from_secs(31));
    world.sim.repair("agents", PLANE);
    let lost = world.until(MINUTE, "the silent flow is given up", |world| !world.all_connected());
    assert!(lost <= Duration::from_secs(45), "PING interval and timeout are 40 s: {lost:?}");
    world.until(MINUTE, "a new flow", World::all_connected);
    assert_eq!(world.plane.book().hellos.len(), 2);
    // The server's half of the dead flow goes as well.
    world.until(2 * MINUTE, "one session", |world| world.plane.sessions() == 1);
}

#[test]
fn a_flow_that_is_silently_dropped_after_four_minutes_is_replaced() {
    forget_the_flow(Duration::from_secs(240));
}

#[test]
fn a_flow_that_is_silently_dropped_after_350_seconds_is_replaced() {
    forget_the_flow(Duration::from_secs(350));
}

#[test]
fn a_server_that_answers_pings_and_no_heartbeats_is_left() {
    let mut world = World::new(2, TICK);
    world.plane.book().beats = false;
    world.agents("agents", 1);
    world.until(MINUTE, "the first connection", World::all_connected);
    let left = world.until(6 * MINUTE, "heartbeats are missed", |world| !world.all_connected());
    assert!(left >= 3 * MINUTE, "three misses, not one: {left:?}");
    assert!(world.agents[0].failure().contains("heartbeats"), "{}", world.agents[0].failure());
}

#[test]
fn a_gateway_that_answers_ping_for_a_dead_backend_is_left_by_heartbeats() {
    let mut world = World::new(7, TICK);
    let gateway = world.gateway("gateway");
    world.point("gateway");
    world.agents("agents", 1);
    world.until(MINUTE, "the first connection", World::all_connected);
    world.pass(10 * MINUTE);
    assert!(world.all_connected(), "{}", world.agents[0].failure());
    let answered = gateway.answered();
    assert!(answered >= 10, "PINGs end at the gateway: {answered}");

    gateway.set(Backend::Dead);
    let left = world.until(6 * MINUTE, "heartbeats are missed", |world| !world.all_connected());
    assert!(world.agents[0].failure().contains("heartbeats"), "{}", world.agents[0].failure());
    // The one that was answered last, and three that were not, each 60 s ±10 %.
    assert!(left >= 3 * 54 * SECOND && left <= 4 * 66 * SECOND, "{left:?}");
    assert!(gateway.answered() >= answered + 3, "PINGs were answered all the while");
    assert!(gateway.lost() > 0);
    world.pass(5 * MINUTE);
    assert!(!world.all_connected());
    assert!(world.agents[0].failure().contains("Welcome"), "{}", world.agents[0].failure());

    gateway.set(Backend::Alive);
    // A dial that began before gets no Welcome.
    world.until(BACKOFF + MINUTE, "it is back", World::all_connected);
}

#[test]
fn after_a_partition_of_twenty_minutes_agents_are_back_within_one_backoff() {
    let mut world = connected(3, 20);
    world.sim.partition("agents", PLANE);
    world.until(2 * MINUTE, "all notice", |world| world.connected() == 0);
    let before = world.plane.book().accepted.len();
    world.pass(20 * MINUTE);
    assert_eq!(world.plane.book().accepted.len(), before);
    world.sim.repair("agents", PLANE);
    world.until(BACKOFF, "all are back", World::all_connected);
}

#[test]
fn a_private_endpoint_that_moved_is_found_at_its_new_address() {
    let mut world = World::new(4, TICK);
    world.serve("moved");
    world.agents("agents", 5);
    world.until(MINUTE, "the first connection", World::all_connected);
    world.sim.crash(PLANE);
    world.until(2 * MINUTE, "all notice", |world| world.connected() == 0);
    world.plane.book().open.clear();
    world.point("moved");
    world.until(BACKOFF, "all are back", World::all_connected);
}

#[test]
fn hundreds_of_agents_are_back_after_a_crash_of_the_server() {
    let mut world = World::new(5, TICK);
    world.agents("agents-a", 100);
    world.agents("agents-b", 100);
    world.until(MINUTE, "the first connection", World::all_connected);
    world.sim.crash(PLANE);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.connected(), 0, "a dead server is noticed");
    world.sim.bounce(PLANE);
    world.until(BACKOFF, "none is starved", World::all_connected);
}

/// Nobody tells the agents anything: each finds out and dials by its backoff alone.
#[test]
fn after_a_short_outage_99_of_100_agents_are_back_within_two_seconds() {
    const AGENTS: u32 = 300;
    for (seed, away) in [(41, 300), (42, 1000), (43, 1900)] {
        let away = Duration::from_millis(away);
        let mut world = World::new(seed, TICK / 10);
        for host in ["agents-a", "agents-b", "agents-c"] {
            world.agents(host, AGENTS / 3);
        }
        world.until(MINUTE, "the first connection", World::all_connected);
        world.plane.away(true);
        world.pass(away);
        world.plane.book().hellos.clear();
        let back = world.sim.elapsed();
        world.plane.away(false);
        world.until(MINUTE, "none is starved", World::all_connected);
        let mut first = BTreeMap::new();
        for (at, hello) in &world.plane.book().hellos {
            first.entry(hello.cluster_uid.clone()).or_insert(*at - back);
        }
        let mut times: Vec<Duration> = first.into_values().collect();
        assert_eq!(times.len(), AGENTS as usize, "all of them had to come back");
        times.sort_unstable();
        let (half, p99) = (times[AGENTS as usize / 2], times[AGENTS as usize * 99 / 100]);
        eprintln!("away {away:?}: p50 {half:?}, p99 {p99:?}, last {:?}", times[times.len() - 1]);
        assert!(p99 <= 2 * SECOND, "away {away:?}: {p99:?}");
    }
}

/// Hours of a network that breaks with every hundredth message, until it is mended by another. A
/// broken link loses what is on the way, and with it the connections whose bytes those were.
#[test]
fn a_long_time_on_a_bad_network_leaves_nothing_behind() {
    let hours = match std::env::var("MENDIX_SIMULATION_HOURS") {
        Ok(text) => text.parse().expect("MENDIX_SIMULATION_HOURS is a number"),
        Err(_) => 6,
    };
    let mut world = World::new(6, Duration::from_millis(200));
    let age = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    world.plane.book().answer = Answer::Welcome(v1::Welcome { max_session_age: age, ..welcome() });
    for host in ["agents-a", "agents-b", "agents-c"] {
        world.agents(host, 2);
    }
    world.until(MINUTE, "the first connection", World::all_connected);
    world.pass(Duration::from_secs(60));
    let tasks = world.task_count();
    world.sim.set_fail_rate(0.01);
    for host in ["agents-a", "agents-b", "agents-c"] {
        world.sim.set_link_fail_rate(host, PLANE, 0.01);
    }
    let mut most = 0;
    for quarter in 0..hours * 4 {
        for agent in &world.agents {
            let report = v1::HealthReport { agent_rss_bytes: quarter, ..Default::default() };
            agent.reports.publish(v1::report::Body::Health(report));
        }
        world.pass(15 * MINUTE);
        most = most.max(world.task_count());
    }
    for host in ["agents-a", "agents-b", "agents-c"] {
        world.sim.set_link_fail_rate(host, PLANE, 0.0);
        world.sim.repair(host, PLANE);
    }
    world.until(2 * BACKOFF, "all are connected in the end", World::all_connected);
    // Two sessions overlap while one replaces the other; then one is left of each agent.
    world.until(5 * MINUTE, "one session each", |world| world.plane.sessions() == 6);
    world.pass(Duration::from_secs(30));
    let sessions = world.plane.book().hellos.len();
    eprintln!("{hours} h: {sessions} sessions, {tasks} tasks before, at most {most}");
    assert!(
        sessions > 20 * 6 * hours as usize / 6,
        "too few sessions to show anything: {sessions}"
    );
    assert!(most <= 2 * tasks + 12, "{tasks} tasks grew to {most}");
    assert!(world.task_count() <= tasks + 6, "{tasks} tasks became {}", world.task_count());
    let book = world.plane.book();
    let last = v1::Section::Health.into();
    for (number, agent) in world.agents.iter().enumerate() {
        assert!(matches!(&*agent.link.borrow(), Link::Connected { .. }));
        let uid = format!("00000000-0000-4000-8000-{number:012x}");
        let Some(v1::report::Body::Health(health)) = &book.reports[&(uid, last)].body else {
            panic!("no health report")
        };
        assert_eq!(health.agent_rss_bytes, hours * 4 - 1, "the last report arrived");
    }
}
