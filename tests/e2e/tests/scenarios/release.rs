//! The agent is killed in the middle of a release, at each state that a run persists, and a new
//! process takes over: the cluster must end exactly as it does when nobody dies.

mod contents;
mod state;
mod world;

use anyhow::{Context, Result, bail, ensure};

use self::{
    contents::{Content, MONITORING},
    world::{Point, World},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn release_survives_kill() -> Result<()> {
    let mut world = World::new().await?;
    let result = survives(&mut world).await;
    world.launcher.explained(result)
}

async fn survives(world: &mut World) -> Result<()> {
    // The very first release is killed while it makes its objects.
    let making = Point { state: "Applying".into(), component: Some(MONITORING.into()) };
    let died = world.killed_at(&making, Content::A).await?;
    let first = world.ended("Committed").await?;

    // How it ends when nobody dies. From here on each run changes A to B, or B to A.
    world.undisturbed(Content::B).await?;
    let b = world.ended("Committed").await?;
    world.undisturbed(Content::A).await?;
    let a = world.ended("Committed").await?;
    if let Some(difference) = first.difference(&a) {
        bail!("release 1, killed at {making}: {difference}");
    }
    let good = world.points().await?;
    let names: Vec<_> = good.iter().map(|point| point.state.as_str()).collect();
    ensure!(names.starts_with(&EARLY) && names.ends_with(&LATE), "the run went through {names:?}");

    let mut deaths = vec![(making.clone(), died)];
    let both = [(Content::B, &b), (Content::A, &a)];
    for (point, (content, reference)) in good.iter().zip(both.into_iter().cycle()) {
        let died = world.killed_at(point, content).await?;
        let end = world.ended_as("Committed", reference).await;
        end.with_context(|| format!("killed at {point}, died at {died}"))?;
        deaths.push((point.clone(), died));
    }

    // A bad release goes back to what was before, with the very same objects.
    world.undisturbed(Content::A).await?;
    let before = world.ended_as("Committed", &a).await?;
    world.undisturbed(Content::Bad).await?;
    let back = world.ended("RolledBack").await?;
    ensure!(back.is_back_at(&before), "a rollback without a kill is not exact");
    let bad = world.points().await?;
    let fails = bad.iter().position(|point| *point == making).context("it was never applied")?;
    let names: Vec<_> = bad[fails..].iter().map(|point| point.state.as_str()).collect();
    ensure!(names == BACK, "the bad run went on through {names:?}");
    for point in &bad[fails..] {
        world.forget().await?;
        let died = world.killed_at(point, Content::Bad).await?;
        let context = || format!("bad release, killed at {point}, died at {died}");
        let end = world.ended_as("RolledBack", &back).await.with_context(context)?;
        ensure!(end.is_back_at(&before), "{}: other objects than before", context());
        deaths.push((point.clone(), died));
    }

    let exact = deaths.iter().filter(|(aimed, died)| aimed == died).count();
    println!("{} kill points, {exact} of them hit exactly:", deaths.len());
    for (aimed, died) in deaths {
        println!("  at {aimed}, died at {died}");
    }
    Ok(())
}

/// How every run begins, and how a good one of two components ends.
const EARLY: [&str; 7] =
    ["Offered", "Receiving", "Verified", "Preflighted", "Scheduled", "Snapshotted", "Applying"];
const LATE: [&str; 4] = ["Applying", "Gating", "Soaking", "Committed"];
/// How a bad one ends, from where its second component is applied.
const BACK: [&str; 5] = ["Applying", "Gating", "RollingBack", "RollingBack", "RolledBack"];
