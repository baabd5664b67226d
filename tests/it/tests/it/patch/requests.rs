//! How many requests a release costs that changes nothing, and a check of everything: what is asked for
//! each object is bounded, and nothing that names all objects is asked for each of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use kube::{
    Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use mendix_agent::{
    cluster::Cluster,
    patch::{drift::Drift, take},
};
use mendix_test_kit::apiserver::ApiServer;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::world::{Parts, World, message, state};

/// ConfigMaps of the two releases that are compared: more than are read or written at once.
const FEW: usize = 20;
/// See [`FEW`].
const MANY: usize = 80;
/// Reads of each object in a release of the same content: before the dry run, as pre-image, before it is
/// applied, at the gate, and for the inventory.
const READS: usize = 5;

/// Counts what reaches the API server, by what is done and path.
#[derive(Clone, Default)]
struct Counter(Arc<Mutex<BTreeMap<(Verb, String), usize>>>);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Read,
    DryRun,
    Write,
}

impl Verb {
    fn of<B>(request: &http::Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            http::Method::GET => Self::Read,
            _ if query.contains("dryRun=All") => Self::DryRun,
            _ => Self::Write,
        }
    }
}

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    counter: Counter,
}

impl<S> Layer<S> for Counter {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counter: self.clone() }
    }
}

impl<S, B> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        let key = (Verb::of(&request), request.uri().path().to_owned());
        let mut counts = self.counter.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(key).or_default() += 1;
        drop(counts);
        self.inner.call(request)
    }
}

impl Counter {
    /// Requests whose path holds `part`, by what they do.
    fn of(&self, part: &str) -> Asked {
        let mut asked = Asked::default();
        for ((verb, path), count) in &*self.0.lock().unwrap() {
            if path.contains(part) {
                *match verb {
                    Verb::Read => &mut asked.reads,
                    Verb::DryRun => &mut asked.dry_runs,
                    Verb::Write => &mut asked.writes,
                } += count;
            }
        }
        asked
    }

    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// Requests of one sort.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    reads: usize,
    dry_runs: usize,
    writes: usize,
}

/// What a release of the same content asked for, and a check of everything after it.
#[derive(Debug)]
struct Costs {
    objects: usize,
    release: Asked,
    release_records: Asked,
    check: Asked,
    check_records: Asked,
}

/// A new process that takes a second release of the same objects, and then checks them all.
async fn costs(objects: usize) -> Costs {
    let world = World::new().await;
    let parts = Parts(&world);
    let maps: Vec<_> = (0..objects)
        .map(|n| parts.config(&format!("map-{n}"), json!({"n": n.to_string()})))
        .collect();
    assert_eq!(state(&world.take(world.publish(1, &maps)).await), "Committed");

    let server = ApiServer::shared().await.unwrap();
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig_path()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let counter = Counter::default();
    let client = ClientBuilder::try_from(config.unwrap()).unwrap().with_layer(&counter).build();
    let namespace = world.cluster.namespace.clone();
    let driver = world.driver_on(Cluster::connect(client, namespace).await.unwrap());

    counter.forget();
    let token = CancellationToken::new();
    let index = world.publish(2, &maps);
    let bundle = take(&driver, index, &world.supply, &token, &token).await.unwrap();
    assert_eq!(state(&bundle), "Committed", "{}", message(&bundle));
    let configs = format!("namespaces/{}/configmaps/", world.target);
    let release = counter.of(&configs);
    let release_records = counter.of("/managedcomponents");

    counter.forget();
    let recovery = Drift::new(&driver).recover(&token).await.unwrap();
    assert_eq!((recovery.objects, recovery.corrected), (objects, 0), "{:?}", recovery.failures);
    Costs {
        objects,
        release,
        release_records,
        check: counter.of(&configs),
        check_records: counter.of("/managedcomponents"),
    }
}

/// `times` for each of so many. A call that had no answer in time is tried again: less than one more for
/// each is no more for each.
fn is_each(found: usize, times: usize, objects: usize) -> bool {
    (times * objects..(times + 1) * objects).contains(&found)
}

#[tokio::test]
async fn a_release_that_changes_nothing_reads_each_object_a_few_times_and_the_record_no_more_often()
{
    let (few, many) = tokio::join!(costs(FEW), costs(MANY));
    for costs in [&few, &many] {
        let n = costs.objects;
        assert_eq!((costs.release.writes, costs.check.writes, costs.check.dry_runs), (0, 0, 0));
        assert!(is_each(costs.release.dry_runs, 1, n), "{costs:?}");
        assert!(is_each(costs.release.reads, READS, n), "{costs:?}");
        assert!(is_each(costs.check.reads, 1, n), "{costs:?}");
        assert!(is_each(costs.check_records.reads, 0, n), "{costs:?}");
    }
    let records = |costs: &Costs| costs.release_records.reads + costs.release_records.writes;
    assert!(records(&many) < records(&few) + FEW, "{few:?} {many:?}");
}
