//! Many agents, and agents that come too often: rates, drain, metrics, bulk registration.

use std::{net::SocketAddr, time::Duration};

use mendix_agent_proto::v1::control_message::Body as Down;
use mendix_control_plane::{ControlPlane, Options, provision, server::Rate};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

use crate::client::{Identity, PATIENCE, Plane, Session, UID, soon};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_identity_that_opens_sessions_too_often_is_told_when_to_come_back() {
    let rate = Rate { count: 2, per: HOUR };
    let plane = Plane::with(Options { sessions_per_identity: rate, ..Options::default() }).await;
    let busy = plane.enrolled().await;
    drop((busy.session(&plane).await, busy.session(&plane).await));
    let mut third = Session::open(busy.connect(&plane).await, busy.hello()).await;
    match third.next().await {
        Ok(Some(Down::Throttle(throttle))) => {
            let seconds = throttle.retry_after.expect("when").seconds;
            assert!((1700..=1800).contains(&seconds), "{seconds}");
        }
        other => panic!("expected Throttle, got {other:?}"),
    }
    // Others are not made to wait for it.
    plane.enrolled_as("other").await.session(&plane).await;
}

#[tokio::test]
async fn too_many_enrolments_at_once_are_put_off() {
    let enrolments = Rate { count: 1, per: HOUR };
    let plane = Plane::with(Options { enrolments, ..Options::default() }).await;
    plane.enrolled().await;
    let token = plane.store().register_cluster("other", "stable").expect("register");
    let refused = Identity::new("other").enroll(&plane, &token.0).await.expect_err("too many");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("try again in"), "{refused}");
}

#[tokio::test]
async fn a_draining_server_lets_nobody_in_and_spreads_agents_by_their_number() {
    let options = Options { comebacks: Rate { count: 1, per: HOUR }, ..Options::default() };
    let mut plane = Plane::with(options).await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.desired().await;
    let address = plane.running().address();
    let running = plane.running.take().expect("it runs");
    let shutdown = tokio::spawn(running.shutdown());
    match session.next().await {
        // One agent would take an hour; a minute is the most.
        Ok(Some(Down::Drain(drain))) => assert_eq!(drain.spread.expect("spread").seconds, 60),
        other => panic!("expected Drain, got {other:?}"),
    }
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    soon(shutdown).await.expect("joined").expect("shutdown");

    // With the usual rate one agent need not wait.
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.desired().await;
    let running = plane.running.take().expect("it runs");
    let shutdown = tokio::spawn(running.shutdown());
    match session.next().await {
        Ok(Some(Down::Drain(drain))) => assert_eq!(drain.spread.expect("spread").seconds, 0),
        other => panic!("expected Drain, got {other:?}"),
    }
    soon(shutdown).await.expect("joined").expect("shutdown");
}

#[tokio::test]
async fn provisioned_agents_need_no_enrolment() {
    let plane = Plane::start().await;
    let mut agents: Vec<_> =
        (0..3).map(|number| Identity::new(&format!("cluster-{number}"))).collect();
    let requests: Vec<_> = agents.iter().map(|agent| (agent.uid.clone(), agent.csr())).collect();
    let issued = provision(plane.store(), "stable", HOUR, &requests).expect("provision");
    for (agent, issued) in agents.iter_mut().zip(issued) {
        agent.take(issued);
        agent.session(&plane).await;
    }
    // The bootstrap token of a provisioned cluster is spent.
    assert!(provision(plane.store(), "stable", HOUR, &requests).is_err(), "registered twice");
}

async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut page = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut page))
        .await
        .expect("in time")
        .expect("read");
    page
}

#[tokio::test]
async fn metrics_show_sessions_refusals_and_handshakes_and_name_no_cluster() {
    let metrics = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let plane = Plane::with(Options { metrics, ..Options::default() }).await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.desired().await;
    session.settle().await;
    let mut stranger = agent.hello();
    stranger.cluster_uid = "another".into();
    Session::open(agent.connect(&plane).await, stranger).await.refusal().await;

    let address = plane.running().metrics().expect("an address");
    let page_text = page(address, "/metrics").await;
    for line in [
        "mendix_control_plane_sessions_open 1",
        "mendix_control_plane_sessions_total 1",
        "mendix_control_plane_refusals_total{reason=\"Identity\"} 1",
        "mendix_control_plane_handshake_seconds_count 3",
        "mendix_control_plane_certificates_total 1",
    ] {
        assert!(page_text.contains(line), "{line} is missing in\n{page_text}");
    }
    assert!(!page_text.contains("mendix_control_plane_received_bytes_total 0\n"), "{page_text}");
    assert!(!page_text.contains(UID), "labels are bounded");
    assert!(page(address, "/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_are_refused_on_an_address_that_others_reach() {
    let plane = Plane::start().await;
    let store = plane.store().clone();
    let mut plane = plane;
    soon(plane.running.take().expect("it runs").shutdown()).await.expect("shutdown");
    let metrics = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let refused = ControlPlane::start(store, Options { metrics, ..Options::default() }).await;
    assert!(refused.expect_err("refused").to_string().contains("loopback"));
}
