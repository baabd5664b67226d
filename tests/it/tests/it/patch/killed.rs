//! A process that is killed at any of its calls to the API server: before the call reaches it, or
//! after it was carried out and before the answer arrives.
//!
//! Twice: a driver in this process that takes no further step, at every third or fourth call of a small
//! release, which takes a minute; and, in the nightly run, a process of its own that gets SIGKILL, at
//! every single call of a larger one. That process is this test program, started again for one test.

mod process;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use mendix_agent::{cluster::Cluster, patch, upgrade::Own};
use mendix_agent_core::bundle::Authentic;
use mendix_test_kit::apiserver::ApiServer;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::world::{LONG, Parts, World, state};

/// At which call the process dies in each round, and when. Odd steps meet all kinds of calls.
fn points() -> impl Iterator<Item = (usize, Moment)> {
    let moments = [Moment::BeforeCall, Moment::AfterCall];
    (1..).map(move |round: usize| (round * 7 / 2, moments[round % 2]))
}

/// When the process dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    BeforeCall,
    AfterCall,
}

#[derive(Clone)]
struct Killer {
    calls: Arc<AtomicUsize>,
    at: usize,
    moment: Moment,
    died: Arc<Notify>,
}

#[derive(Clone)]
struct Mortal<S> {
    inner: S,
    killer: Killer,
}

impl<S> Layer<S> for Killer {
    type Service = Mortal<S>;

    fn layer(&self, inner: S) -> Mortal<S> {
        Mortal { inner, killer: self.clone() }
    }
}

impl<S, R> Service<R> for Mortal<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Killer { calls, at, moment, died } = self.killer.clone();
        let number = calls.fetch_add(1, Ordering::SeqCst);
        if number < at {
            return Box::pin(self.inner.call(request));
        }
        // From its death on, nothing that the process does is carried out.
        let last =
            (number == at && matches!(moment, Moment::AfterCall)).then(|| self.inner.call(request));
        Box::pin(async move {
            if let Some(last) = last {
                let _lost_answer = last.await;
            }
            died.notify_one();
            std::future::pending().await
        })
    }
}

/// A client whose process dies at this call. Connecting takes two calls, which are not counted.
async fn mortal(kubeconfig: &Path, at: usize, moment: Moment) -> (Client, Killer) {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let at = at.saturating_add(2);
    let killer = Killer { calls: Arc::default(), at, moment, died: Arc::default() };
    let client = ClientBuilder::try_from(config).unwrap().with_layer(&killer).build();
    (client, killer)
}

/// Carries a release on with a process that dies at a call; says whether it lived long enough to
/// finish.
pub(super) async fn die_at(world: &World, index: Authentic, at: usize, moment: Moment) -> bool {
    die_as(world, None, index, at, moment).await
}

/// The same with a process that knows this of its own upgrade.
pub(super) async fn die_as(
    world: &World,
    own: Option<Own>,
    index: Authentic,
    at: usize,
    moment: Moment,
) -> bool {
    let server = ApiServer::shared().await.unwrap();
    let (client, killer) = mortal(server.kubeconfig_path(), at, moment).await;
    let cluster = Cluster::connect(client, world.cluster.namespace.clone()).await.unwrap();
    let driver = world.driver_of(cluster, own);
    let token = CancellationToken::new();
    let work = patch::take(&driver, index, &world.supply, &token, &token);
    tokio::select! {
        ended = tokio::time::timeout(LONG, work) => {
            ended.expect("the run ends").expect("the run is driven");
            true
        }
        () = killer.died.notified() => false,
    }
}

/// A new process: goes on with what was interrupted, then with what is wanted.
pub(super) async fn come_back(world: &World, index: Authentic) -> String {
    let token = CancellationToken::new();
    patch::resume(&world.driver(), &token).await.unwrap();
    let bundle = world.take(index).await;
    state(&bundle).to_owned()
}

#[tokio::test]
async fn a_process_killed_at_any_call_of_a_good_release_ends_as_if_it_had_lived() {
    let world = World::new().await;
    let parts = Parts(&world);
    let mut deaths = 0;
    for (round, (call, moment)) in (1_u64..).zip(points()) {
        let changing = if round % 2 == 0 { "even" } else { "odd" };
        let index = world.publish(
            round,
            &[
                parts.config("settings", json!({"round": round.to_string()})),
                parts.config(changing, json!({})),
                parts.deployment(&format!("good-{round}"), Some(1)),
            ],
        );
        let lived = die_at(&world, index.clone(), call, moment).await;
        assert_eq!(come_back(&world, index).await, "Committed", "call {call} {moment:?}");
        let contents = world.contents().await;
        let names: Vec<&str> = contents.keys().map(String::as_str).collect();
        let changing = format!("ConfigMap/{changing}");
        assert_eq!(names, [changing.as_str(), "ConfigMap/settings", "Deployment/operator"]);
        assert_eq!(contents["ConfigMap/settings"]["data"]["round"], round.to_string());
        let status = world.component().await.unwrap().status.unwrap();
        assert_eq!((status.sequence, status.run, status.inventory.len()), (round, None, 3));
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 10, "only {deaths} deaths");
    println!("{deaths} kill points of a good release: all ended as an undisturbed one");
}

#[tokio::test]
async fn a_process_killed_at_any_call_of_a_bad_release_leaves_what_was_before() {
    let world = World::new().await;
    let parts = Parts(&world);
    let good = world.publish(
        1,
        &[parts.config("settings", json!({"a": "1"})), parts.deployment("good", Some(1))],
    );
    assert_eq!(state(&world.take(good).await), "Committed");
    let before = world.contents().await;
    let component = world.component().await.unwrap().status.unwrap();
    let mut deaths = 0;
    for (round, (call, moment)) in (1_u64..).zip(points()) {
        let index = world.publish(
            1 + round,
            &[
                parts.config("settings", json!({"b": "2"})),
                parts.config("created", json!({})),
                parts.deployment("bad", None),
            ],
        );
        let lived = die_at(&world, index.clone(), call, moment).await;
        assert_eq!(come_back(&world, index).await, "RolledBack", "call {call} {moment:?}");
        assert_eq!(world.contents().await, before, "call {call} {moment:?}");
        assert_eq!(world.component().await.unwrap().status.unwrap(), component);
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 10, "only {deaths} deaths");
    println!("{deaths} kill points of a release that goes back: all left what was before");
}
