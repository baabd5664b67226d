//! The whole channel through an HTTP CONNECT proxy, and what the agent says when it can't connect.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::HashMap;

use kube::Api;
use mendix_agent::{
    agent_status,
    channel::Link,
    config::{Config, Proxy, ProxyCredentials, Route},
    crd::agent_status::AgentStatus,
    occasion,
    preflight::{self, Verdict},
};
use mendix_test_kit::{
    port,
    proxy::connect::{Answer, ConnectProxy},
    wait::eventually,
};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Agent, PATIENCE, Plane, cluster},
    events::told,
    manifests,
};

const NAME: &str = "plane.example";
const USER: &str = "agent:of the bank";

/// The pin that preflight shows of a control plane that is reached directly.
async fn pin(config: &Config) -> String {
    let report = preflight::run(config, Err("not asked for".into())).await;
    let line = report.checks.iter().find(|check| check.name == "TLS pin").unwrap();
    line.detail.split(',').next().unwrap().to_owned()
}

/// A control plane that only the proxy can find, and the configuration that leads there.
async fn hidden() -> (Plane, ConnectProxy, Config) {
    let plane = Plane::called(vec![NAME.to_owned()]).await;
    let mut config = plane.config("unused");
    let pins = vec![pin(&config).await.parse().unwrap()];
    let destination = format!("{NAME}:{}", plane.running.address().port());
    let names = HashMap::from([(destination.clone(), plane.running.address())]);
    let proxy = ConnectProxy::start(names, Some(USER)).await.unwrap();
    let file = config.bootstrap_token_file.with_file_name("proxy");
    std::fs::write(&file, USER).unwrap();
    let way = Proxy {
        host: proxy.address().ip().to_string(),
        port: proxy.address().port(),
        ca_bundle: None,
        credentials: Some(ProxyCredentials::File(file)),
    };
    config.endpoint = format!("https://{destination}").parse().unwrap();
    config.route = Route { proxy: Some(way), pins, ..Route::default() };
    (plane, proxy, config)
}

#[tokio::test]
async fn an_agent_enrols_and_holds_its_session_through_a_proxy() {
    let (plane, proxy, mut config) = hidden().await;
    let cluster = cluster().await;
    config.namespace.clone_from(&cluster.namespace);
    plane.register(&cluster.uid);
    let agent = Agent::start(&config, &cluster);
    agent.connected().await;
    let asked = proxy.asked();
    assert!(asked.len() >= 2, "enrolment and session: {asked:?}");
    assert!(asked.iter().all(|it| it.starts_with("plane.example:")), "{asked:?}");

    // The proxy loses the way: the agent says so, and comes back when it is there again.
    proxy.answer(Answer::Status(502));
    proxy.cut();
    let lost = |link: &Link| match link {
        Link::Disconnected { last_failure, .. } => last_failure.contains("502"),
        _ => false,
    };
    agent.link("told of the proxy", lost).await;
    let report = preflight::run(&config, Ok(cluster.client.clone())).await;
    let line = report.checks.iter().find(|check| check.name == "proxy").unwrap();
    assert_eq!(line.result, Verdict::Fail, "{}", report.table());
    assert!(line.cause.contains("does not know the endpoint's name"), "{}", line.cause);
    proxy.answer(Answer::Tunnel);
    agent.connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn each_fault_of_a_proxy_is_a_line_of_preflight() {
    let (_plane, proxy, mut config) = hidden().await;
    for (answer, cause) in [
        (Answer::Status(403), "rules do not allow this destination"),
        (Answer::Status(504), "has no route to it"),
        (Answer::CloseAfter200, "inspects what follows CONNECT"),
    ] {
        proxy.answer(answer);
        let report = preflight::run(&config, Err("not asked for".into())).await;
        let line = report.checks.iter().find(|check| check.name == "proxy").unwrap();
        assert!(line.cause.contains(cause), "{answer:?}: {}", report.table());
        let above = report.checks.iter().find(|check| check.name == "TLS").unwrap();
        assert_eq!(above.detail, "not checked: proxy failed");
    }
    proxy.answer(Answer::Tunnel);
    let report = preflight::run(&config, Err("not asked for".into())).await;
    let stream = report.checks.iter().find(|check| check.name == "stream").unwrap();
    assert_eq!(stream.result, Verdict::Pass, "{}", report.table());
    config.route.proxy.as_mut().unwrap().credentials = None;
    let report = preflight::run(&config, Err("not asked for".into())).await;
    assert!(report.table().contains("407, Basic"), "{}", report.table());
}

#[tokio::test]
async fn an_agent_that_cannot_connect_says_why_in_its_status_and_in_an_event() {
    let plane = Plane::called(vec![]).await;
    let cluster = cluster().await;
    manifests::apply(&cluster.client, &["00-crds.yaml"]).await;
    let mut config = plane.config(&cluster.namespace);
    plane.register(&cluster.uid);
    // Nothing listens there.
    let nobody = port::free().unwrap();
    config.endpoint = format!("https://127.0.0.1:{nobody}").parse().unwrap();
    let agent = Agent::start(&config, &cluster);
    let stop = CancellationToken::new();
    let (link, reports) = (agent.handles.link.clone(), agent.handles.reports.clone());
    let watching = tokio::spawn(preflight::watch::run(
        cluster.clone(),
        config.clone(),
        link.clone(),
        reports.clone(),
        stop.clone(),
    ));
    let token = stop.clone();
    let (to, of) = (cluster.clone(), config.clone());
    let telling =
        tokio::spawn(async move { agent_status::run(to, of, link, reports, token).await });

    let api: Api<AgentStatus> = cluster.own();
    let status = eventually(PATIENCE, "AgentStatus tells of preflight", async || {
        api.get("agent").await.ok()?.status.filter(|status| status.preflight.is_some())
    })
    .await
    .unwrap();
    assert_eq!(status.preflight.as_deref(), Some("Failed"));
    let finding = status.preflight_findings.iter().find(|it| it.starts_with("TCP: ")).unwrap();
    assert!(finding.contains("can't be reached"), "{finding}");
    assert!(finding.contains("check the port in `endpoint`"), "{finding}");
    let event = told(&cluster.client, &cluster.namespace, occasion::PREFLIGHT_FAILED).await;
    assert!(event.note.unwrap().contains("TCP: "));
    stop.cancel();
    watching.await.unwrap().unwrap();
    telling.await.unwrap().unwrap();
    agent.stop().await;
}
