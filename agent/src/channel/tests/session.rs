//! The driver, end to end: what the machine decides happens on the wire and in the handles.

use std::{collections::BTreeMap, sync::Arc};

use mendix_agent_core::session::About;
use mendix_agent_proto::v1::{
    self, Section, agent_message::Body as Up, control_message::Body as Down, desired_section,
    report,
};
use prost_types::Duration as Wire;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    plane::{CLUSTER, Plane},
    soon,
};
use crate::channel::{
    Desired, Dialer, Leases, Link, Reports, Target, desired, identity::Standing, leases, session,
};

pub(super) struct Agent {
    desired: Desired,
    reports: Reports,
    leases: Leases,
    pub(super) link: watch::Receiver<Link>,
    standing: watch::Sender<Standing>,
    pub(super) cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(plane: &Plane, standing: Standing) -> Self {
        Self::dialling(plane.target(), standing)
    }

    pub(super) fn dialling(target: Target, standing: Standing) -> Self {
        let (standing, standing_rx) = watch::channel(standing);
        let (writer, desired) = desired();
        let (leases, lease_requests) = leases();
        let reports = Reports::default();
        let (link_tx, link) = watch::channel(Link::WaitingForConnection { last_failure: None });
        let mut wiring = session::Wiring {
            about: About {
                cluster_uid: CLUSTER.into(),
                agent_version: "1.2.3".into(),
                boot_id: "boot".into(),
                lease_epoch: 7,
                kubernetes_version: "v1.34.2".into(),
            },
            dialer: Dialer::new(target, standing_rx.clone()),
            standing: standing_rx,
            desired: writer,
            reports: reports.subscribe(),
            lease_requests,
            envelopes: leases.envelopes.clone(),
            checkpoints: watch::channel(None).1,
            audit_acks: watch::channel(None).0,
            link: link_tx,
            random: Arc::new(crate::channel::random),
        };
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { session::run(&mut wiring, token).await });
        Self { desired, reports, leases, link, standing, cancel, task }
    }

    async fn until(&mut self, what: &str, state: impl Fn(&Link) -> bool) -> Link {
        soon(what, self.link.wait_for(|link| state(link))).await.unwrap().clone()
    }
}

pub(super) fn enrolled(plane: &Plane) -> Standing {
    Standing::Enrolled(Arc::new(plane.ca.credentials()))
}

fn health(state: &str) -> report::Body {
    report::Body::Health(v1::HealthReport { state: state.into(), ..Default::default() })
}

fn release(revision: u64, target: &str) -> Down {
    Down::DesiredState(v1::DesiredState {
        sections: vec![v1::DesiredSection {
            section: Section::Release.into(),
            revision,
            body: Some(desired_section::Body::Release(v1::ReleaseSection {
                index_target: target.into(),
                sequence: revision,
            })),
        }],
    })
}

#[tokio::test]
async fn state_flows_both_ways_and_survives_a_reconnect() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    agent.reports.publish(health("Healthy"));

    let mut peer = plane.peer().await;
    let hello = peer.hello().await;
    assert_eq!((hello.cluster_uid.as_str(), hello.lease_epoch), (CLUSTER, 7));
    assert_eq!(hello.held, []);
    peer.welcome("first").await;
    let Up::Report(report) = peer.hear().await else { panic!("not a report") };
    assert_eq!((report.revision, report.body), (1, Some(health("Healthy"))));
    peer.say(release(4, "release-1.json")).await;
    let wanted = soon("release", agent.desired.release.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(wanted.as_ref().unwrap().value.index_target, "release-1.json");
    drop(wanted);
    agent.until("connection", |link| matches!(link, Link::Connected { .. })).await;

    peer.fail(Status::unavailable("restarting")).await;
    let link = agent.until("disconnection", |link| matches!(link, Link::Disconnected { .. })).await;
    let Link::Disconnected { last_failure, .. } = link else { unreachable!() };
    assert!(last_failure.starts_with("stream: "), "{last_failure}");
    assert!(last_failure.contains("restarting"), "{last_failure}");

    let mut peer = plane.peer().await;
    let held = peer.hello().await.held;
    assert_eq!(held, [v1::SectionRevision { section: Section::Release.into(), revision: 4 }]);
    peer.welcome("second").await;
    let Up::Report(report) = peer.hear().await else { panic!("not a report") };
    assert_eq!(report.revision, 1, "the report is sent again as it was");
    assert!(agent.desired.release.borrow().is_some(), "the last good state stays");
    agent.cancel.cancel();
    peer.ended().await;
    soon("end", agent.task).await.unwrap();
}

#[tokio::test]
async fn lease_requests_go_up_and_leases_come_down() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    let mut envelopes = agent.leases.envelopes.subscribe();
    let mut peer = plane.peer().await;
    peer.hello().await;
    peer.welcome("one").await;
    agent.until("connection", |link| matches!(link, Link::Connected { .. })).await;
    let request = v1::LeaseRequest { grant_sha256: vec![1; 32], nonce: vec![2; 16] };
    agent.leases.requests.try_send(request.clone()).unwrap();
    assert_eq!(peer.hear().await, Up::LeaseRequest(request));
    peer.say(Down::Lease(v1::Lease { envelope: b"signed".to_vec() })).await;
    assert_eq!(soon("lease", envelopes.recv()).await.unwrap(), b"signed");
}

#[tokio::test]
async fn a_new_identity_replaces_the_session_before_the_old_one_ends() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    let mut old = plane.peer().await;
    old.hello().await;
    old.welcome("old").await;
    agent.until("connection", |link| matches!(link, Link::Connected { .. })).await;

    agent.standing.send_replace(enrolled(&plane));
    let mut new = plane.peer().await;
    new.hello().await;
    // The old one still works until the new one is welcomed.
    agent.reports.publish(health("Healthy"));
    assert!(matches!(old.hear().await, Up::Report(_)));
    new.welcome("new").await;
    assert!(matches!(new.hear().await, Up::Report(_)));
    old.ended().await;
    let link = agent.link.borrow().clone();
    assert!(matches!(link, Link::Connected { session_id, .. } if session_id == "new"));
}

#[tokio::test]
async fn an_agent_that_enrols_later_connects_at_once() {
    let plane = Plane::start().await;
    let nobody = Standing::NotEnrolled { reason: "no bootstrap token".into() };
    let mut agent = Agent::start(&plane, nobody);
    let link = agent
        .until("failure", |link| {
            matches!(link, Link::WaitingForConnection { last_failure: Some(_) })
        })
        .await;
    let Link::WaitingForConnection { last_failure } = link else { unreachable!() };
    assert_eq!(last_failure.unwrap(), "authentication: not enrolled: no bootstrap token");
    agent.standing.send_replace(enrolled(&plane));
    plane.peer().await.hello().await;
}

#[tokio::test]
async fn deregistered_voids_tickets_and_requests_and_keeps_the_release() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    let mut peer = plane.peer().await;
    peer.hello().await;
    peer.welcome("one").await;
    peer.say(release(1, "release-1.json")).await;
    peer.say(Down::DesiredState(v1::DesiredState {
        sections: vec![v1::DesiredSection {
            section: Section::Tickets.into(),
            revision: 1,
            body: Some(desired_section::Body::Tickets(v1::TicketsSection {
                tickets: vec![v1::Ticket { ticket_id: "t-1".into(), ..Default::default() }],
                ..Default::default()
            })),
        }],
    }))
    .await;
    let has = |want: usize| {
        move |tickets: &Option<crate::channel::Revised<v1::TicketsSection>>| {
            tickets.as_ref().is_some_and(|it| it.value.tickets.len() == want)
        }
    };
    drop(soon("ticket", agent.desired.tickets.wait_for(has(1))).await.unwrap());
    peer.say(Down::Deregistered(v1::Deregistered { reason: "deleted".into() })).await;
    drop(soon("void tickets", agent.desired.tickets.wait_for(has(0))).await.unwrap());
    agent.until("deregistration", |link| matches!(link, Link::Deregistered { .. })).await;
    assert!(agent.desired.release.borrow().is_some());
    peer.ended().await;
}

#[tokio::test]
async fn throttle_ends_the_session_and_the_agent_comes_back_later() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    let mut peer = plane.peer().await;
    peer.hello().await;
    let retry_after = Some(Wire { seconds: 0, nanos: 0 });
    peer.say(Down::Throttle(v1::Throttle { retry_after })).await;
    agent
        .until("throttling", |link| {
            matches!(link, Link::WaitingForConnection { last_failure: Some(_) })
        })
        .await;
    peer.ended().await;
    plane.peer().await.hello().await;
}

#[tokio::test]
async fn a_refusal_by_the_session_service_is_an_authentication_failure() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    plane.peer().await.fail(Status::unauthenticated("certificate revoked")).await;
    let link = agent
        .until("failure", |link| {
            matches!(link, Link::WaitingForConnection { last_failure: Some(_) })
        })
        .await;
    let Link::WaitingForConnection { last_failure: Some(text) } = link else { unreachable!() };
    assert!(text.starts_with("authentication: "), "{text}");
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_session_and_says_so() {
    let plane = Plane::start().await;
    let mut agent = Agent::start(&plane, enrolled(&plane));
    let mut peer = plane.peer().await;
    peer.hello().await;
    peer.welcome("one").await;
    let huge = "x".repeat(mendix_agent_proto::limits::MAX_CONTROL_MESSAGE);
    peer.say(release(1, &huge)).await;
    let link = agent.until("disconnection", |link| matches!(link, Link::Disconnected { .. })).await;
    let Link::Disconnected { last_failure, .. } = link else { unreachable!() };
    assert!(last_failure.contains("too large"), "{last_failure}");
    assert_eq!(*agent.desired.release.borrow(), None);
}

#[tokio::test]
async fn stopping_while_it_dials_a_silent_server_takes_no_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::start().await;
    let (_standing, standing) = watch::channel(enrolled(&plane));
    let (writer, _desired) = desired();
    let (leases, _) = leases();
    let mut wiring = session::Wiring {
        about: About::default(),
        dialer: Dialer::new(super::plane::target(listener.local_addr().unwrap()), standing.clone()),
        standing,
        desired: writer,
        reports: watch::channel(BTreeMap::new()).1,
        lease_requests: mpsc::channel(1).1,
        envelopes: leases.envelopes.clone(),
        checkpoints: watch::channel(None).1,
        audit_acks: watch::channel(None).0,
        link: watch::channel(Link::WaitingForConnection { last_failure: None }).0,
        random: Arc::new(crate::channel::random),
    };
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let task = tokio::spawn(async move { session::run(&mut wiring, token).await });
    let (_silent, _) = soon("dial", listener.accept()).await.unwrap();
    cancel.cancel();
    soon("end", task).await.unwrap();
}
