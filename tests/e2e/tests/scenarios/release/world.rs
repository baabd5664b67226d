//! An API server with controllers and no node, a control plane, and an agent that can die.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
    runtime::watcher::{self, Event},
};
use mendix_agent::crd::patch_bundle::{PatchBundle, PatchBundleStatus};
use mendix_control_plane::{Running, manifests, repository};
use mendix_e2e::install::NAMESPACE;
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    wait::eventually,
};
use tempfile::TempDir;

use super::{
    contents::{self, Content},
    state::End,
};
use crate::{
    agent::{Agent, Launcher},
    plane::{self, Installed},
};

/// Longest wait for a state of a run, and for its end.
const RUN: Duration = Duration::from_secs(300);
/// Longest wait for what follows the end of a run.
const SETTLED: Duration = Duration::from_secs(240);
/// States in which a run stays.
const ENDS: [&str; 4] = ["Committed", "RolledBack", "Held", "Refused"];

/// A state that a run persists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) state: String,
    pub(crate) component: Option<String>,
}

impl Point {
    fn of(status: &PatchBundleStatus) -> Self {
        Self { state: status.state.clone(), component: status.component.clone() }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.component {
            Some(component) => write!(f, "{}({component})", self.state),
            None => f.write_str(&self.state),
        }
    }
}

pub(crate) struct World {
    pub(crate) launcher: Launcher,
    client: Client,
    uid: String,
    plane: Running,
    agent: Option<Agent>,
    releases: u32,
    folder: TempDir,
    _server: ApiServer,
}

impl World {
    /// The agent is installed, enrolled by its first start, and idle.
    pub(crate) async fn new() -> Result<Self> {
        let options =
            ApiServerOptions { audit: true, controllers: true, ..ApiServerOptions::default() };
        let server = ApiServer::start(options).await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let Installed { client, uid, plane, launcher } =
            plane::installed(&server, folder.path()).await?;
        let agent = Some(launcher.start()?);
        Ok(Self { launcher, client, uid, plane, agent, releases: 0, folder, _server: server })
    }

    /// Publishes and pushes another release.
    async fn push(&mut self, content: Content) -> Result<()> {
        self.releases += 1;
        let id = self.release_id();
        let spec = contents::release(&id, content, &self.folder.path().join("releases"))?;
        let draft = manifests::draft(&spec)?;
        let store = self.plane.store();
        repository::publish(store, draft, None, repository::Expiry::default()).await?;
        store.push_release(&id, Some(&self.uid))?;
        Ok(())
    }

    /// Forgets what the Deployments once ran, so that a bad release is new to their controller again:
    /// it never gives up on pods that it has had before.
    pub(crate) async fn forget(&self) -> Result<()> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), contents::MONITORING);
        sets.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        Ok(())
    }

    fn release_id(&self) -> String {
        format!("2026.11.{}", self.releases)
    }

    fn bundles(&self) -> Api<PatchBundle> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn bundle(&self) -> Result<Option<PatchBundle>> {
        let bundles = self.bundles().list(&ListParams::default()).await?.items;
        let id = self.release_id();
        Ok(bundles.into_iter().find(|bundle| bundle.spec.release_id == id))
    }

    /// A release that nobody disturbs.
    pub(crate) async fn undisturbed(&mut self, content: Content) -> Result<()> {
        self.push(content).await
    }

    /// A release whose agent is killed as soon as it is seen at this point. Another agent is started.
    /// Returns where the dead one had come to.
    pub(crate) async fn killed_at(&mut self, point: &Point, content: Content) -> Result<Point> {
        let mut events = self.watch().await?;
        self.push(content).await?;
        let id = self.release_id();
        let reached = async {
            while let Some(event) = events.try_next().await.context("watch PatchBundles")? {
                let (Event::Apply(bundle) | Event::InitApply(bundle)) = event else { continue };
                let at = bundle.status.as_ref().map_or_else(offered, Point::of);
                if bundle.spec.release_id != id {
                    continue;
                }
                if at == *point {
                    return Ok(());
                }
                ensure!(!ENDS.contains(&at.state.as_str()), "it ended as {at}");
            }
            bail!("the watch of PatchBundles ended")
        };
        let deadline = tokio::time::timeout(RUN, reached).await;
        deadline.with_context(|| format!("release {id} never came to {point}"))??;
        let agent = self.agent.take().context("no agent runs")?;
        agent.kill().await?;
        let bundle = self.bundle().await?.context("the record of the run is gone")?;
        self.agent = Some(self.launcher.start()?);
        Ok(bundle.status.as_ref().map_or_else(offered, Point::of))
    }

    /// Events from now on: those of the records that are there have been consumed.
    async fn watch(&self) -> Result<BoxStream<'static, watcher::Result<Event<PatchBundle>>>> {
        let mut events = watcher::watcher(self.bundles(), watcher::Config::default()).boxed();
        while let Some(event) = events.try_next().await.context("watch PatchBundles")? {
            if matches!(event, Event::InitDone) {
                return Ok(events);
            }
        }
        bail!("the watch of PatchBundles ended")
    }

    /// Waits until the run has ended in this state, and all is done that follows.
    pub(crate) async fn ended(&self, state: &str) -> Result<End> {
        self.end_of_run(state).await?;
        let id = self.release_id();
        let settled = eventually(SETTLED, format!("release {id} is settled"), async || {
            let end = End::read(&self.client, &id).await.ok()?;
            end.unfinished.is_none().then_some(end)
        });
        match settled.await {
            Ok(end) => Ok(end),
            Err(error) => {
                let end = End::read(&self.client, &id).await?;
                bail!("{error}: {}", end.unfinished.unwrap_or_default())
            }
        }
    }

    /// Waits until the run has ended in this state, and all is as in the reference.
    pub(crate) async fn ended_as(&self, state: &str, reference: &End) -> Result<End> {
        self.end_of_run(state).await?;
        let id = self.release_id();
        let same =
            eventually(SETTLED, format!("release {id} ends as without a kill"), async || {
                let end = End::read(&self.client, &id).await.ok()?;
                (end.difference(reference).is_none()).then_some(end)
            });
        match same.await {
            Ok(end) => Ok(end),
            Err(error) => {
                let end = End::read(&self.client, &id).await?;
                bail!("{error}: {}", end.difference(reference).unwrap_or_default())
            }
        }
    }

    async fn end_of_run(&self, state: &str) -> Result<()> {
        let id = self.release_id();
        let status = eventually(RUN, format!("release {id} ends"), async || {
            let status = self.bundle().await.ok()??.status?;
            ENDS.contains(&status.state.as_str()).then_some(status)
        })
        .await?;
        ensure!(
            status.state == state,
            "release {id} ended as {}: {:?}",
            status.state,
            status.message
        );
        Ok(())
    }

    /// Every state that the last run persisted, from its history.
    pub(crate) async fn points(&self) -> Result<Vec<Point>> {
        let status = self.bundle().await?.and_then(|bundle| bundle.status);
        let history = status.context("the run has no status")?.history;
        let of_history = history
            .into_iter()
            .map(|transition| Point { state: transition.state, component: transition.component });
        Ok([offered()].into_iter().chain(of_history).collect())
    }
}

/// A record that was just made.
fn offered() -> Point {
    Point { state: "Offered".into(), component: None }
}
