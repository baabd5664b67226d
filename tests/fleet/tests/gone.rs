//! A control plane whose host vanishes: two hosts of the real kernel, so that nothing answers for the
//! one that is gone.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test needs and can't have fails it"
)]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use mendix_agent::channel::{Link, Target, dial::network::System, session};
use mendix_agent_core::session::AddressPolicy;
use mendix_agent_proto::v1::{self, report::Body};
use mendix_control_plane::{
    ControlPlane, Options, Store, init, pki::ServerNames, repository::Expiry,
};
use mendix_fleet::agents::{Member, members, wire};
use mendix_test_kit::{
    hosts::{Host, Hosts, HostsError},
    skip,
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

/// Instead of the 30 s of production: with them the same is told by an unanswered PING soon after.
const USER_TIMEOUT: Duration = Duration::from_secs(2);
/// Less than the first PING takes to be sent and missed.
const BEFORE_PING: Duration = Duration::from_secs(35);
const PATIENCE: Duration = Duration::from_secs(180);

/// A control plane on the far host, until it is dropped: then it ends without a word.
struct Plane {
    _stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), HostsError>>,
}

impl Plane {
    fn start(hosts: &Hosts, state: PathBuf, address: SocketAddr) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let options = Options { listen: address, ..Options::default() };
            let _running = ControlPlane::start(Store::open(state).unwrap(), options).await.unwrap();
            ready.send(()).unwrap();
            let _ = stopped.await;
        };
        let thread = hosts.run(Host::Far, move || runtime().block_on(serve));
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { _stop: stop, thread }
    }

    fn end(self) {
        drop(self._stop);
        self.thread.join().unwrap().unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn health(round: u64) -> Body {
    Body::Health(v1::HealthReport { agent_rss_bytes: round, ..Default::default() })
}

#[test]
fn a_host_that_is_gone_is_given_up_by_what_it_does_not_acknowledge() {
    if let Some(why) = Hosts::obstacle() {
        return skip(&why.to_string());
    }
    let hosts = Hosts::join().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("plane");
    let address = SocketAddr::from((Host::Far.address(), 8443));
    let names = ServerNames { dns: vec![], ips: vec![address.ip()] };
    runtime().block_on(init(&state, &names, Expiry::default())).unwrap();
    let member = members(&Store::open(state.clone()).unwrap(), 1).unwrap().remove(0);
    let plane = Plane::start(&hosts, state.clone(), address);
    let far = hosts.clone();
    let agent = hosts.run(Host::Near, move || {
        runtime().block_on(live_through_it(&far, &member, plane, state, address));
    });
    agent.join().unwrap().unwrap();
}

async fn live_through_it(
    hosts: &Hosts,
    member: &Member,
    plane: Plane,
    state: PathBuf,
    address: SocketAddr,
) {
    let policy = AddressPolicy { allow_public: false, allow_loopback: false };
    let endpoint = format!("https://{address}").parse().unwrap();
    let network = Arc::new(System { user_timeout: USER_TIMEOUT });
    let target = Target::new(&endpoint, policy).unwrap().over(network);
    let (mut wiring, mut light) = wire(member.uid(), 0, target, member.credentials().clone());
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let running = tokio::spawn(async move { session::run(&mut wiring, token).await });
    let up = |link: &Link| matches!(link, Link::Connected { .. });
    timeout(PATIENCE, light.link.wait_for(up)).await.expect("a session").unwrap();

    hosts.vanish().unwrap();
    plane.end();
    // On its way when nobody is there to take it any more.
    light.reports.publish(health(1));
    let down = |link: &Link| matches!(link, Link::Disconnected { .. });
    let lost = timeout(BEFORE_PING, light.link.wait_for(down)).await.expect("given up").unwrap();
    let Link::Disconnected { last_failure, .. } = lost.clone() else { unreachable!() };
    drop(lost);
    assert!(last_failure.starts_with("stream: "), "{last_failure}");
    // By the kernel, and not by a PING or heartbeats.
    assert!(last_failure.ends_with("connection: timed out"), "{last_failure}");

    hosts.reappear().unwrap();
    let plane = Plane::start(hosts, state, address);
    timeout(PATIENCE, light.link.wait_for(up)).await.expect("back").unwrap();
    cancel.cancel();
    running.await.unwrap();
    plane.end();
}
