//! Upgrades whose processes die at any call, or whose writes arrive late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Method, Request};
use kube::{
    Config,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use mendix_agent::{
    cluster::Cluster,
    patch::{resume, take},
    upgrade::{Own, trial_of},
};
use mendix_test_kit::apiserver::ApiServer;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::{
    super::{
        killed::{Moment, die_as},
        world::{image_ref, message, state},
    },
    AGENT, PATIENCE, Site, connected, ended,
};

/// Holds the first write of the agent's Deployment back until it is let go.
#[derive(Clone, Default)]
struct Slow {
    held: Arc<AtomicBool>,
    reached: Arc<Notify>,
    go: Arc<Notify>,
}

#[derive(Clone)]
struct Delayed<S> {
    inner: S,
    slow: Slow,
}

impl<S> Layer<S> for Slow {
    type Service = Delayed<S>;

    fn layer(&self, inner: S) -> Delayed<S> {
        Delayed { inner, slow: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Delayed<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let uri = request.uri();
        let writes = *request.method() == Method::PATCH
            && uri.path().ends_with("/deployments/mendix-agent")
            && !uri.query().is_some_and(|query| query.contains("dryRun"));
        if !writes || self.slow.held.swap(true, Ordering::SeqCst) {
            return Box::pin(self.inner.call(request));
        }
        let Slow { reached, go, .. } = self.slow.clone();
        // Not sent before it is polled.
        let call = self.inner.call(request);
        Box::pin(async move {
            reached.notify_one();
            go.notified().await;
            call.await
        })
    }
}

#[tokio::test]
async fn a_rollout_that_is_paused_before_its_write_changes_nothing_after_the_guard_reverted() {
    let mut site = Site::new().await;
    site.start_guard();
    let server = ApiServer::shared().await.unwrap();
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig_path()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    let slow = Slow::default();
    let builder = ClientBuilder::try_from(config.await.unwrap()).unwrap();
    let client = builder.with_layer(&slow).build();
    let cluster = Cluster::connect(client, site.world.cluster.namespace.clone()).await.unwrap();
    let process = site.process_on(cluster, "", connected());
    // Shorter than the deadline of a call.
    let work = process.take(&site, site.release(1, "agent-2", 10));
    tokio::time::timeout(PATIENCE, slow.reached.notified()).await.expect("it rolls out");
    site.trial_is("Reverted").await;
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
    slow.go.notify_one();
    let bundle = ended(work).await.unwrap();
    assert_eq!(state(&bundle), "RolledBack", "{}", message(&bundle));
    assert_eq!(site.image(AGENT).await, image_ref("agent-1"));
}

#[tokio::test]
async fn a_process_killed_at_any_call_of_an_upgrade_is_followed_by_one_that_commits_it() {
    let mut site = Site::new().await;
    site.start_guard();
    let (mut deaths, mut lived_on_end) = (0, 0);
    for round in 1_u64.. {
        let image = format!("agent-{}", round + 1);
        let index = site.release(round, &image, 600);
        let before = trial_of(&site.deployment(AGENT).await).unwrap_or_default().to_owned();
        let moment = [Moment::BeforeCall, Moment::AfterCall][usize::try_from(round % 2).unwrap()];
        let at = usize::try_from(round).unwrap() * 11 / 2;
        let own = |trial: &str| Own { trial: trial.into(), ..site.own(connected()) };
        let dies = die_as(&site.world, Some(own(&before)), index.clone(), at, moment);
        let lived = tokio::select! {
            lived = dies => lived,
            () = replaced(&site, &before) => true,
        };
        // Its pod is replaced by one that the Deployment asks for now.
        let mut state_now = String::new();
        let end = tokio::time::Instant::now() + PATIENCE;
        while !["Committed", "RolledBack"].contains(&&*state_now) {
            assert!(tokio::time::Instant::now() < end, "call {at} {moment:?}: {state_now}");
            let trial = trial_of(&site.deployment(AGENT).await).unwrap_or_default().to_owned();
            let driver = site.world.driver_of(site.world.cluster.clone(), Some(own(&trial)));
            let token = CancellationToken::new();
            let (given_up, ends) = (CancellationToken::new(), token.clone());
            let work = async {
                resume(&driver, &token).await.ok()?;
                take(&driver, index.clone(), &site.world.supply, &given_up, &token).await.ok()
            };
            let told_to_go = async {
                replaced(&site, &trial).await;
                ends.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                bundle = work => if let Some(bundle) = bundle {
                    state_now = state(&bundle).to_owned();
                },
                () = told_to_go => {}
            }
        }
        assert_eq!(state_now, "Committed", "call {at} {moment:?}");
        assert_eq!(site.image(AGENT).await, image_ref(&image), "call {at} {moment:?}");
        assert_eq!(site.image(super::GUARD).await, image_ref(&image), "call {at} {moment:?}");
        // One that was replaced may have died just then.
        lived_on_end = if lived { lived_on_end + 1 } else { 0 };
        deaths += usize::from(!lived);
        if lived_on_end == 2 {
            break;
        }
    }
    assert!(deaths > 5, "only {deaths} deaths");
    println!("{deaths} kill points of an upgrade: all were committed");
}

/// Waits until the Deployment asks for pods of another trial than this.
async fn replaced(site: &Site, trial: &str) {
    while trial_of(&site.deployment(AGENT).await).unwrap_or_default() == trial {
        tokio::time::sleep(mendix_test_kit::wait::POLL).await;
    }
}
