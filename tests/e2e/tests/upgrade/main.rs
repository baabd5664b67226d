//! Releases that upgrade the agent, with real pods: versions that are good, that end, that hang and
//! look healthy, that can't connect, that can't read their state; without a control plane, without a
//! guard, and over a power failure of the node. One node and one installation; one scenario after the
//! other, each from an agent that runs and is connected. A bad version is a good program that is
//! started wrongly, in an image of another digest.
//!
//! A binary of its own, since the agent of the other scenarios runs on this machine and not in a pod.

mod world;

use anyhow::{Result, ensure};
use mendix_agent_core::bundle::index::Gates;
use mendix_test_kit::{node::Node, skip};
use serde_json::json;

use world::{Change, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_upgraded_on_trial_and_put_back_when_they_fail() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let mut world = World::new().await?;
    let played = play(&mut world).await;
    if played.is_err() {
        world.explain().await;
    }
    played
}

async fn play(world: &mut World) -> Result<()> {
    a_good_version(world).await?;
    a_version_that_ends_again_and_again(world).await?;
    a_version_that_hangs_and_looks_healthy(world).await?;
    a_version_that_can_not_connect(world).await?;
    a_version_that_can_not_read_its_state(world).await?;
    the_control_plane_goes_away_during_a_trial(world).await?;
    a_version_that_ends_and_no_guard(world).await?;
    the_node_goes_down_while_a_good_version_is_on_trial(world).await?;
    the_node_goes_down_while_a_bad_version_is_on_trial(world).await
}

async fn a_good_version(world: &mut World) -> Result<()> {
    world.scenario("a good version");
    let image = world.next_image().await?;
    world.release(&image, Change::None, 600).await?;
    world.ended("Committed").await?;
    ensure!(world.trial().await?.phase == "Committed");
    ensure!(world.image("mendix-agent").await? == image);
    ensure!(world.image("mendix-agent-guard").await? == image, "the guard follows");
    world.sound().await
}

async fn a_version_that_ends_again_and_again(world: &mut World) -> Result<()> {
    world.scenario("a crash loop");
    // Long before the deadline.
    let args = json!({"args": ["run", "--no-such-flag"]});
    world.reverted(Change::Container(args), 900, "CrashLoop").await
}

async fn a_version_that_hangs_and_looks_healthy(world: &mut World) -> Result<()> {
    world.scenario("hangs and looks healthy");
    world.reverted(hangs(), 60, "DeadlinePassed").await
}

/// It answers its probes and does nothing else.
fn hangs() -> Change {
    let serve = ["/usr/bin/busybox", "httpd", "-f", "-p", "9090", "-h", "/www"];
    Change::Container(json!({"command": serve, "args": []}))
}

async fn a_version_that_can_not_connect(world: &mut World) -> Result<()> {
    world.scenario("can't connect");
    let env = json!({"env": [{"name": "MENDIX_AGENT_ENDPOINT", "value": "https://10.213.2.1:9"}]});
    world.reverted(Change::Container(env), 60, "DeadlinePassed").await
}

async fn a_version_that_can_not_read_its_state(world: &mut World) -> Result<()> {
    world.scenario("can't read its state");
    // It leads and holds a session; the keys of the support portal that it finds are none.
    world.trust_without_keys("mendix-agent-trust-unreadable").await?;
    let volume = json!([{"name": "trust", "configMap": {"name": "mendix-agent-trust-unreadable"}}]);
    world.reverted(Change::Volumes(volume), 75, "DeadlinePassed").await
}

async fn the_control_plane_goes_away_during_a_trial(world: &mut World) -> Result<()> {
    world.scenario("the control plane goes away");
    let image = world.next_image().await?;
    let before = world.image("mendix-agent").await?;
    world.release(&image, Change::None, 60).await?;
    world.on_trial().await?;
    world.stop_plane().await?;
    // The guard needs no control plane to put the former version back, which can't connect either.
    world.ended("Postponed").await?;
    ensure!(world.image("mendix-agent").await? == before);
    // Once it can, the same release is tried again and is good.
    world.start_plane().await?;
    world.ended("Committed").await?;
    ensure!(world.image("mendix-agent").await? == image);
    world.sound().await
}

async fn a_version_that_ends_and_no_guard(world: &mut World) -> Result<()> {
    world.scenario("agent and guard both dead");
    let before = world.image("mendix-agent").await?;
    let image = world.next_image().await?;
    let args = json!({"args": ["run", "--no-such-flag"]});
    world.release(&image, Change::Container(args), 45).await?;
    world.on_trial().await?;
    world.scale_guard(0).await?;
    world.deadline_passed().await?;
    ensure!(world.trial().await?.phase == "Trial", "nobody but the guard reverts");
    world.scale_guard(1).await?;
    world.ended("RolledBack").await?;
    ensure!(world.image("mendix-agent").await? == before);
    world.sound().await
}

async fn the_node_goes_down_while_a_good_version_is_on_trial(world: &mut World) -> Result<()> {
    world.scenario("the node goes down, a good version on trial");
    let image = world.next_image().await?;
    // It has to hold its session for longer than it takes to pull the plug.
    let gates = Gates { timeout_seconds: 900, soak_seconds: 60 };
    world.release_with(&image, Change::None, gates).await?;
    world.on_trial().await?;
    world.power_failure().await?;
    world.ended("Committed").await?;
    ensure!(world.image("mendix-agent").await? == image);
    world.sound().await
}

async fn the_node_goes_down_while_a_bad_version_is_on_trial(world: &mut World) -> Result<()> {
    world.scenario("the node goes down, a version on trial that hangs");
    let before = world.before().await?;
    let image = world.next_image().await?;
    world.release(&image, hangs(), 90).await?;
    world.on_trial().await?;
    // Neither the agent nor the guard is there when the deadline comes near, or passes.
    world.power_failure().await?;
    world.put_back(before, "DeadlinePassed").await
}
