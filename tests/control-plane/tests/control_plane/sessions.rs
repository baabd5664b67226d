//! Sessions: desired state down, observed state up, leases.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_core::{
    consent::{
        grant::{GRANT_PAYLOAD_TYPE, Grant},
        keys::ConsentKeys,
        lease::{LEASE_PAYLOAD_TYPE, Lease},
    },
    envelope::{self, KeyRing},
    session::CAPABILITIES,
};
use mendix_agent_proto::{
    limits,
    v1::{
        self, Section, agent_message::Body as Up, control_message::Body as Down,
        desired_section::Body as Desired, report::Body as Report,
    },
};
use mendix_control_plane::{
    Options,
    portal::{GrantTerms, NewTicket, open_ticket},
    store::{RequestKind, TicketOrigin, TicketSeverity, TicketStatus},
};
use tonic::Code;

use crate::{
    client::{Plane, Session, UID, soon},
    releases::publish_one,
};

pub(crate) fn ticket(grant: bool) -> NewTicket {
    NewTicket {
        ticket_id: None,
        cluster_uid: UID.into(),
        title: "the operator restarts".into(),
        severity: TicketSeverity::High,
        origin: TicketOrigin::Customer,
        grant: grant.then(|| GrantTerms::for_components(vec!["operator".into()])),
    }
}

fn release(section: &v1::DesiredSection) -> &v1::ReleaseSection {
    match &section.body {
        Some(Desired::Release(release)) => release,
        other => panic!("expected a release, got {other:?}"),
    }
}

fn tickets(section: &v1::DesiredSection) -> &[v1::Ticket] {
    match &section.body {
        Some(Desired::Tickets(tickets)) => &tickets.tickets,
        other => panic!("expected tickets, got {other:?}"),
    }
}

fn requests(section: &v1::DesiredSection) -> &[v1::Request] {
    match &section.body {
        Some(Desired::Requests(requests)) => &requests.requests,
        other => panic!("expected requests, got {other:?}"),
    }
}

#[tokio::test]
async fn a_new_session_is_told_everything_it_does_not_hold() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = Session::open(agent.connect(&plane).await, agent.hello()).await;
    let welcome = session.welcome().await;
    assert_eq!(welcome.protocol, 1);
    assert_eq!(welcome.heartbeat_interval.expect("an interval").seconds, 60);
    let can = welcome.capabilities.expect("what it can").names;
    assert!(CAPABILITIES.iter().all(|wanted| can.iter().any(|it| it == wanted.as_str())));
    let state = session.desired().await;
    assert_eq!(state.sections.len(), 3);
    assert!(state.sections.iter().all(|section| section.revision == 1));

    // A reconnect that holds two of them is sent the third.
    let held = [Section::Release, Section::Tickets];
    let held = held.map(|section| v1::SectionRevision { section: section.into(), revision: 1 });
    let hello = v1::Hello { held: held.to_vec(), ..agent.hello() };
    let mut again = Session::open(agent.connect(&plane).await, hello).await;
    again.welcome().await;
    let state = again.desired().await;
    assert_eq!(state.sections.len(), 1);
    assert_eq!(state.sections[0].section(), Section::Requests);
}

#[tokio::test]
async fn a_pushed_release_reaches_a_live_session() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    publish_one(&plane, "r1").await;
    let mut session = agent.session(&plane).await;
    assert_eq!(release(&session.section(Section::Release).await).index_target, "");
    // As an operator's command in another process would: through the folder alone.
    let elsewhere = mendix_control_plane::Store::open(plane.state()).expect("state");
    assert_eq!(elsewhere.push_release("r1", None).expect("push"), [UID]);
    let section = session.section(Section::Release).await;
    assert_eq!(section.revision, 2);
    assert_eq!(release(&section).index_target, "release-r1.json");
    assert_eq!(release(&section).sequence, 1);
    assert!(elsewhere.push_release("r1", None).expect("push again").is_empty());
}

#[tokio::test]
async fn desired_state_and_reports_outlive_a_crash_of_the_server() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    publish_one(&plane, "r1").await;
    plane.store().push_release("r1", Some(UID)).expect("push");
    let (opened, request) = open_ticket(plane.store(), ticket(true)).expect("open");
    let mut session = agent.session(&plane).await;
    session.settle().await;
    plane.crash_and_restart().await;

    let mut session = agent.session(&plane).await;
    let state = session.desired().await;
    assert_eq!(release(&state.sections[0]).index_target, "release-r1.json");
    assert_eq!(tickets(&state.sections[1])[0].ticket_id, opened.ticket_id);
    let request = request.expect("a request");
    assert_eq!(requests(&state.sections[2])[0].request_id, request.request_id);
}

#[tokio::test]
async fn heartbeats_and_reports_are_acknowledged_and_kept() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.desired().await;
    session
        .send(Up::Heartbeat(v1::Heartbeat {
            sequence: 7,
            sent_at: Some(std::time::SystemTime::now().into()),
        }))
        .await;
    match session.next().await {
        Ok(Some(Down::HeartbeatAck(ack))) => assert_eq!(ack.sequence, 7),
        other => panic!("expected HeartbeatAck, got {other:?}"),
    }
    let run = v1::ReleaseRunReport { state: "Committed".into(), ..Default::default() };
    session.send(report(Section::ReleaseRun, 3, Report::ReleaseRun(run.clone()))).await;
    match session.next().await {
        Ok(Some(Down::ReportAck(ack))) => {
            assert_eq!((ack.section(), ack.revision), (Section::ReleaseRun, 3));
        }
        other => panic!("expected ReportAck, got {other:?}"),
    }
    // A section of a later protocol version is kept and acknowledged, too.
    let unknown = v1::Report { section: 177, revision: 1, ..Default::default() };
    session.send(Up::Report(unknown)).await;
    assert!(matches!(session.next().await, Ok(Some(Down::ReportAck(ack))) if ack.section == 177));

    plane.restart().await;
    let known = plane.store().agent(UID).expect("state").expect("an agent");
    assert_eq!(known.agent_version, "0.1.0");
    assert_eq!(known.report(Section::ReleaseRun), Some(Report::ReleaseRun(run)));
    assert!(known.last_heartbeat.is_some() && known.connected_since.is_none());
}

fn report(section: Section, revision: u64, body: Report) -> Up {
    Up::Report(v1::Report {
        section: section.into(),
        revision,
        observed_at: None,
        body: Some(body),
    })
}

#[tokio::test]
async fn a_rerun_that_failed_gets_one_automatic_ticket_per_attempt_and_none_beside_an_open_one() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.settle().await;
    let failed = |attempt, wants_ticket, check: &str| {
        Report::Initialization(v1::InitializationReport {
            attempt,
            state: "Failed".into(),
            phase: "Preflight".into(),
            failing_check: check.into(),
            wants_ticket,
            ..Default::default()
        })
    };
    let steps = [(1, false, 0), (2, true, 1), (2, true, 1), (3, true, 1)];
    for (revision, (attempt, wants, tickets)) in steps.into_iter().enumerate() {
        let body = failed(attempt, wants, "TCP");
        session.send(report(Section::Initialization, revision as u64 + 1, body)).await;
        session.settle().await;
        assert_eq!(plane.store().tickets().expect("tickets").len(), tickets, "attempt {attempt}");
    }
    let opened = plane.store().tickets().expect("tickets").remove(0);
    assert_eq!(opened.title, "Initialization failed again: attempt 2 at Preflight (TCP)");
    assert_eq!((opened.origin, opened.grant), (TicketOrigin::Automatic, None));
    // Solved, and the next rerun fails with words that are no title.
    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    let body = failed(4, true, &format!("a\nb{}", "x".repeat(400)));
    session.send(report(Section::Initialization, 9, body)).await;
    session.settle().await;
    let tickets = plane.store().tickets().expect("tickets");
    assert_eq!(tickets.len(), 2);
    assert!(tickets[1].title.len() <= 256 && tickets[1].title.contains("(abx"));
}

#[tokio::test]
async fn a_request_stays_until_its_outcome_is_reported() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    assert!(requests(&session.section(Section::Requests).await).is_empty());
    let placed = plane.store().place_request(UID, RequestKind::Recover).expect("place");
    let asked = session.section(Section::Requests).await;
    assert_eq!(requests(&asked)[0].request_id, placed.request_id);

    let outcome = |outcome: v1::Outcome| {
        let outcome = v1::RequestOutcome {
            request_id: placed.request_id.clone(),
            outcome: outcome.into(),
            reason: "NoRelease".into(),
            ..Default::default()
        };
        Report::RequestOutcomes(v1::RequestOutcomesReport { outcomes: vec![outcome] })
    };
    // Not an outcome: it stays.
    let unfinished = outcome(v1::Outcome::Unspecified);
    session.send(report(Section::RequestOutcomes, 1, unfinished)).await;
    session.settle().await;
    assert_eq!(plane.store().cluster(UID).expect("cluster").requests.value.len(), 1);

    let finished = outcome(v1::Outcome::Failed);
    session.send(report(Section::RequestOutcomes, 2, finished.clone())).await;
    assert!(matches!(session.next().await, Ok(Some(Down::ReportAck(_)))));
    assert!(requests(&session.section(Section::Requests).await).is_empty());
    // Agents repeat an outcome until the request is gone.
    session.send(report(Section::RequestOutcomes, 3, finished)).await;
    session.settle().await;
    let cluster = plane.store().cluster(UID).expect("cluster");
    assert_eq!(cluster.done.len(), 1);
    assert_eq!(
        (cluster.done[0].outcome.as_str(), cluster.done[0].reason.as_str()),
        ("Failed", "NoRelease")
    );
}

#[tokio::test]
async fn a_stale_lease_epoch_is_refused_even_after_a_crash() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let hello =
        |epoch, boot: &str| v1::Hello { lease_epoch: epoch, boot_id: boot.into(), ..agent.hello() };
    let mut leader = Session::open(agent.connect(&plane).await, hello(5, "new")).await;
    leader.welcome().await;
    let mut stale = Session::open(agent.connect(&plane).await, hello(4, "old")).await;
    assert_eq!(stale.refusal().await.code(), Code::FailedPrecondition);
    plane.crash_and_restart().await;
    let mut stale = Session::open(agent.connect(&plane).await, hello(4, "old")).await;
    assert_eq!(stale.refusal().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn two_processes_with_one_identity_are_noticed() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut first = agent.session(&plane).await;
    // A session of the same process may overlap: it is being replaced because of its age.
    let mut overlap = agent.session(&plane).await;
    first.settle().await;
    overlap.settle().await;
    assert!(plane.running().agent(UID).expect("known").conflict.is_none());

    let clone = v1::Hello { boot_id: "boot-2".into(), ..agent.hello() };
    let mut clone = Session::open(agent.connect(&plane).await, clone).await;
    clone.welcome().await;
    assert_eq!(first.refusal().await.code(), Code::Aborted);
    let conflict = plane.running().agent(UID).expect("known").conflict.expect("a conflict");
    assert_eq!(conflict.newer_boot_id, "boot-2");
    assert_eq!(conflict.older_boot_id, "boot-1");
}

#[tokio::test]
async fn a_failover_to_a_higher_epoch_is_no_conflict() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut old = agent.session(&plane).await;
    let hello = v1::Hello { boot_id: "boot-2".into(), lease_epoch: 2, ..agent.hello() };
    let mut new = Session::open(agent.connect(&plane).await, hello).await;
    new.welcome().await;
    assert_eq!(old.refusal().await.code(), Code::Aborted);
    assert!(plane.running().agent(UID).expect("known").conflict.is_none());
}

#[tokio::test]
async fn what_is_not_a_session_is_refused() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let heartbeat = Up::Heartbeat(v1::Heartbeat::default());
    let mut session = Session::open_with(agent.connect(&plane).await, heartbeat).await;
    assert_eq!(session.refusal().await.code(), Code::InvalidArgument);

    let newer = v1::Hello { protocol_min: 2, protocol_max: 3, ..agent.hello() };
    let mut session = Session::open(agent.connect(&plane).await, newer).await;
    assert_eq!(session.refusal().await.code(), Code::FailedPrecondition);

    let mut session = agent.session(&plane).await;
    session.send(Up::Hello(agent.hello())).await;
    assert_eq!(session.refusal().await.code(), Code::InvalidArgument);

    let mut session = agent.session(&plane).await;
    let reasons = vec!["x".repeat(limits::MAX_AGENT_MESSAGE)];
    let huge = v1::HealthReport { reasons, ..Default::default() };
    session.send(report(Section::Health, 1, Report::Health(huge))).await;
    assert_eq!(session.refusal().await.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_deleted_cluster_is_deregistered_now_and_later() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    open_ticket(plane.store(), ticket(true)).expect("open");
    let mut session = agent.session(&plane).await;
    session.desired().await;
    plane.store().delete_cluster(UID).expect("delete");
    assert!(matches!(session.next().await, Ok(Some(Down::Deregistered(_)))));
    assert!(matches!(session.next().await, Ok(None)));
    let mut again = Session::open(agent.connect(&plane).await, agent.hello()).await;
    assert!(matches!(again.next().await, Ok(Some(Down::Deregistered(_)))));
    assert!(plane.store().tickets().expect("tickets").is_empty());
}

#[tokio::test]
async fn a_shutdown_tells_sessions_to_move() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    session.desired().await;
    let running = plane.running.take().expect("it runs");
    let shutdown = tokio::spawn(running.shutdown());
    match session.next().await {
        Ok(Some(Down::Drain(drain))) => assert!(drain.deadline.is_some() && drain.spread.is_some()),
        other => panic!("expected Drain, got {other:?}"),
    }
    assert!(matches!(session.next().await, Ok(None)));
    soon(shutdown).await.expect("joined").expect("shutdown");
}

#[tokio::test]
async fn a_full_server_asks_to_come_back_later() {
    let options =
        Options { max_sessions: 1, retry_after: Duration::from_secs(17), ..Options::default() };
    let plane = Plane::with(options).await;
    let first = plane.enrolled().await;
    let second = plane.enrolled_as("other").await;
    let _session = first.session(&plane).await;
    let mut throttled = Session::open(second.connect(&plane).await, second.hello()).await;
    match throttled.next().await {
        Ok(Some(Down::Throttle(throttle))) => {
            assert_eq!(throttle.retry_after.expect("when").seconds, 17);
        }
        other => panic!("expected Throttle, got {other:?}"),
    }
}

#[tokio::test]
async fn a_lease_is_signed_while_its_ticket_is_active_and_not_after() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let (opened, _) = open_ticket(plane.store(), ticket(true)).expect("open");
    let mut session = agent.session(&plane).await;
    let section = session.section(Section::Tickets).await;
    let keys = std::fs::read(plane.store().trust_dir().join("consent-keys.json")).expect("keys");
    let keys: ConsentKeys = serde_json::from_slice(&keys).expect("keys");
    let status = KeyRing::new(&keys.status).expect("keys");
    let consent = KeyRing::new(&keys.consent).expect("keys");

    let bytes = &tickets(&section)[0].grant_envelope;
    let grant =
        envelope::verify::<Grant>(bytes, GRANT_PAYLOAD_TYPE, limits::MAX_GRANT_ENVELOPE, &consent)
            .expect("signed by the consent key");
    assert_eq!((grant.cluster_uid.as_str(), &grant.ticket_id), (UID, &opened.ticket_id));
    assert_eq!(grant.status_key_id, keys.status[0].keyid);
    assert!(grant.expires_at > Timestamp::now());
    let digest = *grant.envelope_sha256();

    let request = |nonce: u8| {
        Up::LeaseRequest(v1::LeaseRequest { grant_sha256: digest.to_vec(), nonce: vec![nonce; 16] })
    };
    let mut last = 0;
    for (nonce, word) in
        [(1, TicketStatus::Open), (2, TicketStatus::OnHold), (3, TicketStatus::AwaitingYourReply)]
    {
        plane.store().set_ticket_status(&opened.ticket_id, word).expect("status");
        session.send(request(nonce)).await;
        let bytes = loop {
            match session.next().await {
                Ok(Some(Down::Lease(lease))) => break lease.envelope,
                Ok(Some(Down::DesiredState(_))) => {}
                other => panic!("expected Lease, got {other:?}"),
            }
        };
        let lease = envelope::verify::<Lease>(
            &bytes,
            LEASE_PAYLOAD_TYPE,
            limits::MAX_LEASE_ENVELOPE,
            &status,
        )
        .expect("signed by the status key");
        assert_eq!(lease.nonce, hex::encode([nonce; 16]));
        assert_eq!(lease.grant_sha256, hex::encode(digest));
        assert_eq!(lease.ticket_status, word.word());
        assert!(lease.sequence > last);
        last = lease.sequence;
    }

    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    session.send(request(4)).await;
    // The answer to the heartbeat comes, one to the request does not.
    session.settle().await;
    assert_eq!(plane.running().counters().leases, 3);
    plane
        .store()
        .set_ticket_status(&opened.ticket_id, TicketStatus::Open)
        .expect_err("a solved ticket stays solved");
}

#[tokio::test]
async fn another_clusters_grant_gets_no_lease() {
    let plane = Plane::start().await;
    plane.enrolled().await;
    let other = plane.enrolled_as("other").await;
    let (opened, _) = open_ticket(plane.store(), ticket(true)).expect("open");
    let digest = hex::decode(opened.grant.expect("a grant").sha256).expect("hex");
    let mut session = other.session(&plane).await;
    session
        .send(Up::LeaseRequest(v1::LeaseRequest { grant_sha256: digest, nonce: vec![1; 16] }))
        .await;
    session.settle().await;
    assert_eq!(plane.running().counters().leases, 0);
}

#[tokio::test]
async fn consent_that_no_agent_accepts_is_not_signed() {
    let plane = Plane::start().await;
    plane.enrolled().await;
    let refused = |change: fn(&mut NewTicket)| {
        let mut new = ticket(true);
        change(&mut new);
        open_ticket(plane.store(), new).expect_err("refused")
    };
    refused(|new| new.grant.as_mut().expect("terms").components.clear());
    refused(|new| new.grant.as_mut().expect("terms").components.push("*".into()));
    refused(|new| new.grant.as_mut().expect("terms").hours = 73);
    refused(|new| new.origin = TicketOrigin::Automatic);
    refused(|new| new.title = "two\nlines".into());
    refused(|new| new.cluster_uid = "unknown".into());
    assert!(plane.store().tickets().expect("tickets").is_empty());
}

/// Sends a checkpoint and gives the sequence that the server says it holds.
async fn checkpoint(session: &mut Session, told: v1::AuditCheckpoint) -> u64 {
    session.send(Up::AuditCheckpoint(told)).await;
    loop {
        match soon(session.next()).await.expect("a message") {
            Some(Down::AuditCheckpointAck(ack)) => return ack.sequence,
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}

#[tokio::test]
async fn an_audit_log_that_was_rewound_is_noticed_also_after_a_crash() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let told = |sequence, chain, after_sequence, after: Option<u8>| v1::AuditCheckpoint {
        sequence,
        chain_sha256: vec![chain; 32],
        after_sequence,
        after_chain_sha256: after.map(|byte| vec![byte; 32]).unwrap_or_default(),
    };
    let mut session = agent.session(&plane).await;
    assert_eq!(checkpoint(&mut session, told(5, 5, 0, None)).await, 5);
    assert_eq!(checkpoint(&mut session, told(8, 8, 5, Some(5))).await, 8);
    plane.crash_and_restart().await;
    // The log was rewound to 5 and has grown again: the agent names 8 as its log has it now.
    let mut session = agent.session(&plane).await;
    assert_eq!(checkpoint(&mut session, told(12, 1, 0, None)).await, 8, "8 has to be named first");
    assert_eq!(checkpoint(&mut session, told(12, 1, 8, Some(2))).await, 12);
    let audit = plane.store().agent(UID).expect("read").expect("an agent").audit;
    let alarm = audit.alarm.expect("an alarm");
    assert_eq!((alarm.what.as_str(), alarm.held.sequence, alarm.told), ("Rewritten", 8, 12));
    assert_eq!(audit.held.expect("held").sequence, 12);
}

#[tokio::test]
async fn a_solved_ticket_is_opened_again_only_with_a_new_grant() {
    let plane = Plane::start().await;
    plane.enrolled().await;
    let (opened, _) = open_ticket(plane.store(), ticket(true)).expect("open");
    let first = opened.grant.expect("a grant");
    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    let terms = GrantTerms::for_components(vec!["operator".into()]);
    let (again, request) =
        mendix_control_plane::portal::grant_ticket(plane.store(), &opened.ticket_id, &terms)
            .expect("grant");
    assert_eq!(again.status, TicketStatus::Open);
    let second = again.grant.expect("a grant");
    assert_ne!(first.sha256, second.sha256);
    assert_ne!(first.recipient, second.recipient, "a key of its own");
    let cluster = plane.store().cluster(UID).expect("cluster");
    assert!(cluster.requests.value.iter().any(|r| r.request_id == request.request_id));
}
