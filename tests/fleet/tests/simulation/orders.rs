//! What the control plane asks for: to come later, to move, to begin anew.

use std::time::Duration;

use mendix_agent_proto::v1::{self, control_message::Body as Down};
use prost_types::Duration as Wire;

use crate::{
    plane::{Answer, welcome},
    world::{PLANE, World},
};

const TICK: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

fn wire(seconds: i64) -> Option<Wire> {
    Some(Wire { seconds, nanos: 0 })
}

/// Times between Hellos of one agent that is throttled again and again.
fn throttled(retry_after: Option<Wire>, time: Duration) -> Vec<Duration> {
    let mut world = World::new(11, TICK);
    world.plane.book().answer = Answer::Say(Down::Throttle(v1::Throttle { retry_after }));
    world.agents("agents", 1);
    world.pass(time);
    let book = world.plane.book();
    assert!(book.hellos.len() > 1, "it came back");
    book.hellos.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

#[test]
fn retry_after_of_zero_or_less_is_a_second() {
    for said in [None, wire(0), wire(-5), wire(i64::MIN)] {
        let waits = throttled(said, MINUTE);
        let least = *waits.iter().min().expect("a wait");
        let most = *waits.iter().max().expect("a wait");
        assert!(least >= Duration::from_secs(1), "{said:?}: {least:?}");
        assert!(most <= Duration::from_secs(5), "{said:?}: {most:?}");
    }
}

#[test]
fn a_huge_retry_after_is_a_quarter_of_an_hour() {
    for said in [wire(1_000_000), wire(i64::MAX)] {
        let waits = throttled(said, 40 * MINUTE);
        let least = *waits.iter().min().expect("a wait");
        assert!(least >= 15 * MINUTE && least <= 17 * MINUTE, "{said:?}: {least:?}");
    }
}

#[test]
fn hundreds_of_agents_spread_over_a_restart() {
    const AGENTS: u32 = 300;
    const SPREAD: usize = 60;
    let mut world = World::new(12, TICK);
    for host in ["agents-a", "agents-b", "agents-c"] {
        world.agents(host, AGENTS / 3);
    }
    world.until(MINUTE, "the first connection", World::all_connected);
    let begin = world.sim.elapsed();
    world.plane.say(Down::Drain(v1::Drain { deadline: wire(2), spread: wire(60) }));
    world.pass(Duration::from_secs(2));
    world.sim.crash(PLANE);
    world.pass(Duration::from_secs(6));
    let back = world.sim.elapsed();
    world.sim.bounce(PLANE);
    world.until(2 * MINUTE, "none is starved", World::all_connected);
    let book = world.plane.book();
    let mut fives = [0; 40];
    for (at, _) in book.hellos.iter().filter(|(at, _)| *at >= back) {
        fives[(*at - begin).as_secs() as usize / 5] += 1;
    }
    let limit = 2 * AGENTS as usize * 5 / SPREAD;
    let peak = *fives.iter().max().expect("some");
    assert!(peak <= limit, "a herd: {peak} in five seconds, {limit} are bearable: {fives:?}");
    assert!(
        fives[12..14].iter().sum::<usize>() < 40,
        "the spread is over after a minute: {fives:?}"
    );
}

#[test]
fn a_session_at_its_greatest_age_is_replaced_before_it_ends() {
    let mut world = World::new(13, TICK);
    world.plane.book().answer =
        Answer::Welcome(v1::Welcome { max_session_age: wire(60), ..welcome() });
    world.agents("agents", 3);
    world.until(MINUTE, "the first connection", World::all_connected);
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        assert!(world.all_connected(), "never without a session: {}", world.agents[0].failure());
    }
    let book = world.plane.book();
    let sessions = book.hellos.len();
    assert!((25..=40).contains(&sessions), "3 agents, 10 minutes, a minute ±10 % each: {sessions}");
    assert_eq!(book.most_open, 2, "the new one beside the old one, and no third");
}

#[test]
fn a_deregistered_agent_asks_every_quarter_of_an_hour_and_returns_when_it_may() {
    let mut world = World::new(14, TICK);
    let gone = Down::Deregistered(v1::Deregistered { reason: "deleted".into() });
    world.plane.book().answer = Answer::Say(gone);
    world.agents("agents", 1);
    world.pass(60 * MINUTE);
    let polls = world.plane.book().hellos.len();
    assert!((4..=6).contains(&polls), "{polls}");
    world.plane.book().answer = Answer::Welcome(welcome());
    world.until(17 * MINUTE, "it is let in again", World::all_connected);
}
