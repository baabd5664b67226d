//! How the agent calls a real API server: over few connections, none of which can hold up the rest.

use std::time::Duration;

use futures::{StreamExt, future::join_all};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, Config,
    api::{PostParams, WatchEvent, WatchParams},
    client::Body,
    config::Kubeconfig,
};
use mendix_agent::cluster::Connections;
use mendix_test_kit::{apiserver::ApiServer, proxy::FaultProxy};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(120);

/// Clients as the agent makes them, through a network that misbehaves on demand.
struct Scene {
    connections: Connections,
    proxy: FaultProxy,
    namespace: String,
    maps: Api<ConfigMap>,
}

impl Scene {
    async fn new() -> Self {
        let server = ApiServer::shared().await.unwrap();
        let host = server.url().trim_start_matches("https://").parse().unwrap();
        let proxy = FaultProxy::start(host).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig_path()).unwrap();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        config.cluster_url = format!("https://{}", proxy.address()).parse().unwrap();
        let connections = Connections::new(config).unwrap();
        let namespace = server.namespace("connections").await.unwrap();
        let maps = Api::namespaced(connections.shared.clone(), &namespace);
        Self { connections, proxy, namespace, maps }
    }

    async fn make(&self, map: serde_json::Value) {
        let map = serde_json::from_value(map).unwrap();
        self.maps.create(&PostParams::default(), &map).await.unwrap();
    }
}

async fn answers(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let call = tokio::time::timeout(PATIENCE, namespaces.get("kube-system"));
    call.await.expect("in time").unwrap();
}

#[tokio::test]
async fn hundreds_of_watches_share_a_few_connections_and_calls_go_between_them() {
    let scene = Scene::new().await;
    let Scene { connections, proxy, maps, .. } = &scene;
    answers(&connections.shared).await;
    assert_eq!(proxy.seen().connections, 1);

    let params = WatchParams::default().timeout(290);
    let watches = join_all((0..300).map(|_| maps.watch(&params, "0"))).await;
    let mut watches: Vec<_> = watches.into_iter().map(|watch| Box::pin(watch.unwrap())).collect();
    for _ in 0..50 {
        answers(&connections.shared).await;
    }
    // Five of them for 300, one for calls if they left no room, and the one that found out.
    assert!(proxy.seen().connections <= 7, "{:?}", proxy.seen());
    let made = json!({"metadata": {"name": "seen"}, "data": {"key": "value"}});
    scene.make(made).await;
    for watch in &mut watches {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
        assert!(matches!(event, Some(Ok(WatchEvent::Added(map))) if map.data.is_some()));
    }

    // With their room back, nothing is dialled for what follows.
    drop(watches);
    let before = proxy.seen().connections;
    join_all((0..40).map(|_| answers(&connections.shared))).await;
    assert_eq!(proxy.seen().connections, before);
}

#[tokio::test]
async fn a_connection_that_is_dead_without_a_word_takes_its_watches_along_and_nothing_else() {
    let scene = Scene::new().await;
    let Scene { connections, proxy, maps, .. } = &scene;
    answers(&connections.shared).await;
    let watch = maps.watch(&WatchParams::default().timeout(290), "0").await.unwrap();
    let mut watch = Box::pin(watch);
    // The first call found out what the server speaks; the watch came after it.
    assert_eq!(proxy.seen().connections, 2);
    proxy.hold(2);

    answers(&connections.apart).await;
    let end = tokio::time::timeout(PATIENCE, watch.next()).await.expect("noticed");
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    answers(&connections.shared).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_up_no_other() {
    let scene = Scene::new().await;
    let Scene { connections, proxy, namespace, .. } = &scene;
    let large = json!({"metadata": {"name": "large"}, "data": {"key": "x".repeat(900_000)}});
    scene.make(large).await;

    let path = format!("/api/v1/namespaces/{namespace}/configmaps/large");
    let unread = join_all((0..60).map(|_| {
        let request = Request::get(&path).body(Body::empty()).unwrap();
        connections.shared.send(request)
    }))
    .await;
    let unread: Vec<_> = unread.into_iter().map(|answer| answer.unwrap().into_body()).collect();
    answers(&connections.shared).await;
    assert!(proxy.seen().connections <= 2, "{:?}", proxy.seen());
    drop(unread);
}
