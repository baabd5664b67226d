//! Etcd is restored from a backup: everything in the cluster, what the agent remembers and has written
//! down included, is as it was some releases ago. The backup and the restore are real; versions of
//! objects go back, too.

use anyhow::{Result, ensure};
use mendix_agent::crd::agent_status::AgentStatus;
use mendix_control_plane::repository::{Expiry, floor};
use mendix_test_kit::wait::eventually;

use super::{RUN, World, release_id};

/// How a cluster refuses that remembers release 1, after 3 was made the lowest that is allowed.
const BELOW_FLOOR: &str = "BelowFloor: sequence: 2 is below 3, the lowest that release engineering allows. \
     Publish the content again under a higher sequence.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_of_etcd_the_wanted_release_runs_again_and_none_below_the_floor()
-> Result<()> {
    let mut world = World::new().await?;
    let result = restored(&mut world).await;
    world.launcher.explained(result)
}

async fn restored(world: &mut World) -> Result<()> {
    let agent = world.launcher.start()?;
    world.push(1)?;
    world.runs(1).await?;
    agent.kill().await?;
    let backup = world.server.backup().await?;
    world.reconnect().await?;
    let agent = world.launcher.start()?;
    world.push(3)?;
    world.runs(3).await?;

    // Under a running agent, which goes on: what is wanted runs again.
    world.server.restore(&backup).await?;
    world.reconnect().await?;
    world.runs(3).await?;
    agent.kill().await?;

    // While none runs. The control plane has seen later terms of leading than the cluster knows of, and
    // takes up with it again when somebody has said that this is well.
    world.server.restore(&backup).await?;
    world.reconnect().await?;
    ensure!(world.mark().await? == Some(1) && world.applied().await? == "1", "nothing went back");
    let agent = world.launcher.start()?;
    world.says("its cluster was restored from a backup and needs a new bootstrap token").await?;
    let token = world.plane.store().renew_token(&world.uid)?;
    // Nobody in the cluster knows of release 3 then, and an older one is wanted: what was signed of the
    // lowest decides.
    floor::raise(world.plane.store(), &release_id(3), Expiry::default()).await?;
    world.push(2)?;
    world.launcher.give(&token.0)?;
    let refused = world.ended(2, "Refused").await?;
    ensure!(refused.refusals == [BELOW_FLOOR], "refused for {:?}", refused.refusals);
    ensure!(refused.started_at.is_none(), "it began: {refused:?}");
    ensure!(world.applied().await? == "1", "something of release 2 was applied");
    world.push(3)?;
    world.runs(3).await?;
    agent.kill().await
}

impl World {
    /// Waits until the release is what runs, is remembered and is written down as committed. Anything
    /// else may be seen before: what was restored.
    async fn runs(&self, number: u64) -> Result<()> {
        eventually(RUN, format!("release {number} runs"), async || {
            let state = self.bundle(number).await.ok()??.status?.state;
            let is_there = self.applied().await.ok()? == number.to_string();
            let is_known = self.mark().await.ok()? == Some(number);
            (state == "Committed" && is_there && is_known).then_some(())
        })
        .await?;
        Ok(())
    }

    /// Waits until the agent's status says this of its link.
    async fn says(&self, words: &str) -> Result<()> {
        eventually(RUN, format!("the agent says: {words}"), async || {
            let status = self.api::<AgentStatus>().get("agent").await.ok()?.status?;
            serde_json::to_string(&status).ok()?.contains(words).then_some(())
        })
        .await?;
        Ok(())
    }

    /// Connections of their own: those of before have ended with the API server.
    async fn reconnect(&mut self) -> Result<()> {
        self.client = self.server.client().await?;
        Ok(())
    }
}
