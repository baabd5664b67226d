//! The fence, between a client and an API server that the test plays.

use std::sync::Mutex;

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::PostParams,
    client::{Body, Client},
};

use super::*;
use crate::{denials::Denials, errors::describe};

/// A client whose requests are noted and answered with an empty ConfigMap, or never.
fn client(answers: bool) -> (Client, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            let body = Body::from(br#"{"metadata":{"name":"x"}}"#.to_vec());
            Ok::<_, std::convert::Infallible>(Response::new(body))
        }
    });
    (Client::new(service, "own"), seen)
}

fn term(from: Duration, until: Duration) -> Term {
    let now = boot();
    let tenure = Tenure { epoch: 3, writes_from: now + from, writes_until: now + until };
    Term::new("a", tenure)
}

fn maps(term: &Term, client: Client) -> Api<ConfigMap> {
    Api::default_namespaced(term.fence(client, "own", &Denials::default()))
}

fn map() -> ConfigMap {
    let metadata = ObjectMeta { name: Some("x".into()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_leader_writes_and_tells_the_server_when_to_give_up() {
    let (client, seen) = client(true);
    maps(&term(Duration::ZERO, LONG), client).create(&PostParams::default(), &map()).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(seen[0].starts_with("POST /api/v1/namespaces/own/configmaps?"), "{seen:?}");
    assert!(seen[0].ends_with("timeout=12s"), "{seen:?}");
}

#[tokio::test]
async fn after_its_deadline_a_leader_reads_and_does_not_write() {
    let (client, seen) = client(true);
    let term = term(Duration::ZERO, Duration::ZERO);
    let maps = maps(&term, client);
    let error = maps.create(&PostParams::default(), &map()).await.unwrap_err();
    assert!(describe(&error).contains("no longer leads (epoch 3)"), "{}", describe(&error));
    maps.get("x").await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["GET /api/v1/namespaces/own/configmaps/x"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_waits_out_the_writes_of_the_last_one() {
    let (client, seen) = client(true);
    // The time of the fence is the machine's, that of the wait is the runtime's: far apart.
    let term = term(LONG / 2, LONG);
    let maps = maps(&term, client);
    let (params, map) = (PostParams::default(), map());
    let write = maps.create(&params, &map);
    tokio::pin!(write);
    let early = timeout(LONG / 3, &mut write).await;
    assert!(early.is_err() && seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_write_under_way_is_dropped_when_the_term_ends() {
    let (client, seen) = client(false);
    let term = term(Duration::ZERO, LONG);
    let maps = maps(&term, client);
    let write = tokio::spawn(async move { maps.create(&PostParams::default(), &map()).await });
    while seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    term.end();
    let error = write.await.unwrap().unwrap_err();
    assert!(describe(&error).contains("no longer leads"), "{}", describe(&error));
    // Whether it landed is not known: the Lease must not be given away yet.
    assert!(term.0.unsettled.load(SeqCst) > nanos(boot()));
}

#[test]
fn a_record_of_a_later_leader_is_left_alone() {
    let (older, newer) = (Term::sole(), term(Duration::ZERO, LONG));
    let mut metadata = ObjectMeta::default();
    older.check(&metadata).unwrap();
    older.stamp(&mut metadata);
    newer.check(&metadata).unwrap();
    newer.stamp(&mut metadata);
    let error = older.check(&metadata).unwrap_err();
    assert_eq!((error.found, error.own), (3, 1));
}
