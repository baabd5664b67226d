//! An older release, validly signed, is offered to a cluster whose memory of newer ones was taken away:
//! the Secret alone, while the agent runs and while it does not, and then all that it ever wrote of
//! releases. What it falls back on is its records, and then the floor that release engineering signed.

mod restore;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use mendix_agent::crd::{
    agent_status::AgentStatus,
    managed_component::ManagedComponent,
    patch_bundle::{PatchBundle, PatchBundleStatus},
};
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use mendix_agent_proto::v1::{ReleaseRunReport, Section, report::Body};
use mendix_control_plane::{
    Running,
    manifests::{self, ComponentSpec, ReleaseSpec},
    repository::{self, Expiry, floor},
};
use mendix_e2e::install::NAMESPACE;
use mendix_test_kit::{apiserver::ApiServer, wait::eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    agent::{Agent, Launcher},
    plane::{self, Installed},
};

const COMPONENT: &str = "mendix-operator";
/// What the agent remembers of the release repository.
const MEMORY: &str = "mendix-agent-tuf";
/// How the cluster says that it remembers better.
const TOO_LOW: &str = "SequenceTooLow: sequence: 1 is below 2, which was accepted here. \
     Publish the content again under a higher sequence.";
/// How it says that it remembers nothing, and need not.
const BELOW_FLOOR: &str = "BelowFloor: sequence: 1 is below 2, the lowest that release engineering allows. \
     Publish the content again under a higher sequence.";
/// Longest wait for a release to end, and for what is told of it.
const RUN: Duration = Duration::from_secs(300);

struct World {
    launcher: Launcher,
    client: Client,
    uid: String,
    plane: Running,
    _folder: TempDir,
    server: ApiServer,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_release_is_refused_after_the_memory_of_newer_ones_was_lost() -> Result<()> {
    let world = World::new().await?;
    let result = refused(&world).await;
    world.launcher.explained(result)
}

async fn refused(world: &World) -> Result<()> {
    let agent = world.launcher.start()?;
    world.push(2)?;
    world.ended(2, "Committed").await?;
    ensure!(world.mark().await? == Some(2), "release 2 is not remembered");

    // Under a running agent: it knows better, and says so.
    world.lose_memory().await?;
    world.push(1)?;
    world.refused_as(TOO_LOW).await?;

    // While none runs: the records of release 2 are what is left.
    let agent = world.restart(agent, async || {
        world.lose_memory().await?;
        let refused = world.bundle(1).await?.context("release 1 has no record")?;
        world.api::<PatchBundle>().delete(&refused.name_any(), &DeleteParams::default()).await?;
        Ok(())
    });
    let agent = agent.await?;
    world.refused_as(TOO_LOW).await?;

    // Nothing is left. Below the signed floor nobody goes.
    let agent = world.restart(agent, async || {
        world.lose_memory().await?;
        let (all, some) = (ListParams::default(), DeleteParams::default());
        world.api::<PatchBundle>().delete_collection(&some, &all).await?;
        world.api::<ManagedComponent>().delete_collection(&some, &all).await?;
        floor::raise(world.plane.store(), &release_id(2), Expiry::default()).await?;
        Ok(())
    });
    let agent = agent.await?;
    world.refused_as(BELOW_FLOOR).await?;
    ensure!(world.mark().await?.is_none(), "a release that was refused is no memory");

    // What is newer is taken as ever.
    world.push(3)?;
    world.ended(3, "Committed").await?;
    ensure!(world.applied().await? == "3", "release 3 is not what runs");
    ensure!(world.mark().await? == Some(3), "release 3 is not remembered");
    agent.kill().await
}

impl World {
    /// The agent is installed, and three releases are published that differ in one value.
    async fn new() -> Result<Self> {
        let server = ApiServer::start(Default::default()).await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let Installed { client, uid, plane, launcher } =
            plane::installed(&server, folder.path()).await?;
        for number in 1..=3 {
            let draft = manifests::draft(&release(number, folder.path())?)?;
            let release =
                repository::publish(plane.store(), draft, None, Expiry::default()).await?;
            ensure!(release.sequence == number, "release {number} has {}", release.sequence);
        }
        Ok(Self { launcher, client, uid, plane, _folder: folder, server })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn push(&self, number: u64) -> Result<()> {
        self.plane.store().push_release(&release_id(number), Some(&self.uid))?;
        Ok(())
    }

    async fn lose_memory(&self) -> Result<()> {
        let secrets = self.api::<Secret>();
        secrets.delete(MEMORY, &DeleteParams::default()).await.context("delete the Secret")?;
        Ok(())
    }

    /// Kills the agent, does this to what it left, and starts another one.
    async fn restart(
        &self,
        agent: Agent,
        between: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Agent> {
        agent.kill().await?;
        between().await?;
        self.launcher.start()
    }

    async fn bundle(&self, number: u64) -> Result<Option<PatchBundle>> {
        let bundles = self.api::<PatchBundle>().list(&ListParams::default()).await?.items;
        Ok(bundles.into_iter().find(|bundle| bundle.spec.release_id == release_id(number)))
    }

    /// Waits until the run has ended in this state.
    async fn ended(&self, number: u64, state: &str) -> Result<PatchBundleStatus> {
        let ended = eventually(RUN, format!("release {number} ends"), async || {
            let status = self.bundle(number).await.ok()??.status?;
            ["Committed", "RolledBack", "Held", "Refused"]
                .contains(&status.state.as_str())
                .then_some(status)
        });
        let status = ended.await?;
        ensure!(status.state == state, "release {number}: {}, {:?}", status.state, status.message);
        Ok(status)
    }

    /// Waits until release 1 is refused for this reason and no other, as the object, the agent's status
    /// and its report say; nothing was changed, and the Secret is there again.
    async fn refused_as(&self, why: &str) -> Result<()> {
        let status = self.ended(1, "Refused").await?;
        ensure!(status.refusals == [why], "refused for {:?}", status.refusals);
        ensure!(status.message.as_deref() == Some(why), "it says {:?}", status.message);
        ensure!(status.started_at.is_none(), "it began: {status:?}");
        let said = format!("release {} Refused: {why}", release_id(1));
        eventually(RUN, "the agent's status says why", async || {
            let status = self.api::<AgentStatus>().list(&ListParams::default()).await.ok()?.items;
            let problem = status.into_iter().next()?.status?.problem?;
            (problem == said).then_some(())
        })
        .await?;
        eventually(RUN, "the control plane is told why", async || {
            let report = self.plane.agent(&self.uid)?.report(Section::ReleaseRun)?;
            let Body::ReleaseRun(ReleaseRunReport { sequence, state, refusals, .. }) = report
            else {
                return None;
            };
            (sequence == 1 && state == "Refused" && refusals == [why]).then_some(())
        })
        .await?;
        ensure!(self.applied().await? == "2", "something of release 1 was applied");
        self.api::<Secret>().get(MEMORY).await.context("the Secret is not made again")?;
        Ok(())
    }

    /// The highest sequence that the agent remembers.
    async fn mark(&self) -> Result<Option<u64>> {
        let secret = self.api::<Secret>().get(MEMORY).await?;
        let record = secret.data.as_ref().and_then(|data| data.get("state.json"));
        let record: Value = serde_json::from_slice(&record.context("no state.json")?.0)?;
        Ok(record.pointer("/high_water/sequence").and_then(Value::as_u64))
    }

    /// Which release's value is in the cluster.
    async fn applied(&self) -> Result<String> {
        let settings: Api<ConfigMap> = Api::namespaced(self.client.clone(), COMPONENT);
        let data = settings.get("settings").await?.data.unwrap_or_default();
        data.get("release").cloned().context("no value")
    }
}

fn release_id(number: u64) -> String {
    format!("2026.11.{number}")
}

/// One component of one object, its manifest written below `folder`.
fn release(number: u64, folder: &Path) -> Result<ReleaseSpec> {
    let dir = folder.join(release_id(number));
    fs::create_dir_all(&dir).context("make the component's folder")?;
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "settings", "namespace": COMPONENT },
        "data": { "release": number.to_string() },
    });
    fs::write(dir.join("settings.json"), settings.to_string()).context("write the manifest")?;
    // Its version is no reason to refuse it.
    let component = ComponentSpec::new(COMPONENT, "1.0.0", dir);
    Ok(ReleaseSpec {
        gates: Gates { timeout_seconds: 120, soak_seconds: 0 },
        components: vec![component],
        ..ReleaseSpec::new(release_id(number), ReleaseClass::Critical)
    })
}
