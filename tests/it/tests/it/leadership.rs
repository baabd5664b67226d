//! Two replicas of the agent, as processes of their own that can be killed and stopped, on one API
//! server and one control plane.
//!
//! A replica is this test program once more, told by its environment to be an agent
//! ([`a_replica_in_a_process_of_its_own`]).

mod replica;
mod suspend;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use mendix_agent::crd::agent_status::AgentStatus;
use mendix_agent_core::leadership::WRITE_DEADLINE;
use mendix_control_plane::Options;
use mendix_test_kit::{proxy::Rule, wait::eventually};

use self::replica::{Pause, Replica, Town};
pub(crate) use self::replica::{page, spawn_agent};

const PATIENCE: Duration = Duration::from_secs(240);

/// Not a test: what [`Replica::start`] starts. Without its environment it does nothing.
#[test]
fn a_replica_in_a_process_of_its_own() {
    replica::be_one();
}

async fn lease(town: &Town) -> Lease {
    Api::namespaced(town.admin.clone(), &town.namespace).get("mendix-agent").await.unwrap()
}

/// What the cluster and the control plane both say of who leads, once they agree on a term after
/// `epoch`.
async fn led_after(town: &Town, epoch: u64) -> (u64, String) {
    let statuses: Api<AgentStatus> = Api::namespaced(town.admin.clone(), &town.namespace);
    let what = format!("somebody leads, writes and is connected after epoch {epoch}");
    eventually(PATIENCE, what, async || {
        let status = statuses.get_opt("agent").await.unwrap()?.status?;
        let agent = town.plane.agent(&town.uid)?;
        let leads = status.epoch? > epoch && status.link == "Connected";
        (leads && agent.lease_epoch == status.epoch? && agent.connected_since.is_some())
            .then_some((status.epoch?, status.leader?))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", town.logs()))
}

/// Leader and standby of two replicas.
fn tell_apart<'a>(leader: &str, a: &'a mut Replica, b: &'a mut Replica) -> [&'a mut Replica; 2] {
    if leader.starts_with(a.name()) { [a, b] } else { [b, a] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_followed_and_a_stopped_one_gives_its_lease_up() {
    let town = Town::new().await;
    let (mut a, mut b) =
        (Replica::start(&town, "replica-a").await, Replica::start(&town, "replica-b").await);
    let (epoch, leader) = led_after(&town, 0).await;
    let [leading, standby] = tell_apart(&leader, &mut a, &mut b);
    let ready = eventually(PATIENCE, "the other says that it stands by", async || {
        let page = standby.page("/readyz").await?;
        page.contains(&format!("standby, {leader} leads")).then_some(page)
    });
    ready.await.unwrap();
    assert!(standby.page("/metrics").await.unwrap().contains("mendix_agent_leader 0"));
    assert!(standby.page("/livez").await.unwrap().contains("ok"));
    assert!(leading.page("/metrics").await.unwrap().contains("mendix_agent_leader 1"));

    leading.kill();
    // Within 35 s, which the simulation of the core shows in virtual time.
    let (second, follower) = led_after(&town, epoch).await;
    assert!(follower.starts_with(standby.name()), "{follower} leads");
    assert_eq!(second, epoch + 1);
    assert_eq!(town.plane.agent(&town.uid).unwrap().conflict, None, "a failover is no clone");

    // A rolling update: a fresh replica stands by, and the leader is told to stop.
    let (mut leader, mut fresh, mut epoch) = (standby, leading, second);
    for tries in 1.. {
        fresh.start_again();
        eventually(PATIENCE, "a fresh replica stands by", async || {
            fresh.page("/readyz").await.filter(|page| page.contains("standby"))
        })
        .await
        .unwrap();
        // It may release only when the writes of the one before it can't land any more.
        let held_since = lease(&town).await.spec.unwrap().acquire_time.unwrap().0;
        eventually(PATIENCE, "writes of the leader before are over", async || {
            let held = Timestamp::now().duration_since(held_since);
            (held.as_secs() > WRITE_DEADLINE.as_secs().cast_signed() + 1).then_some(())
        })
        .await
        .unwrap();
        leader.terminate();
        let (next, follower) = led_after(&town, epoch).await;
        assert!(follower.starts_with(fresh.name()), "{follower} leads");
        assert_eq!(next, epoch + 1);
        assert_eq!(town.plane.agent(&town.uid).unwrap().conflict, None);
        if leader.log().contains("the Lease is released") {
            return;
        }
        // Unless a write of its own was under way just then.
        assert!(tries < 4, "the Lease is never released:\n{}", town.logs());
        epoch = next;
        std::mem::swap(&mut leader, &mut fresh);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_from_the_api_server_gives_up_its_session_before_another_leads() {
    let town = Town::new().await;
    let cut_off = Replica::start(&town, "replica-cut").await;
    let (epoch, leader) = led_after(&town, 0).await;
    assert!(leader.starts_with("replica-cut"));
    let other = Replica::start(&town, "replica-other").await;
    eventually(PATIENCE, "the other stands by", async || {
        other.page("/readyz").await.filter(|page| page.contains("standby"))
    })
    .await
    .unwrap();

    cut_off.proxy.set_both(Rule::Stall);
    // As soon as the other holds the Lease, the first one must lead no longer.
    eventually(PATIENCE, "the other holds the Lease", async || {
        let holder = lease(&town).await.spec?.holder_identity?;
        holder.starts_with("replica-other").then_some(())
    })
    .await
    .unwrap();
    let page = cut_off.page("/metrics").await.unwrap();
    assert!(page.contains("mendix_agent_leader 0"), "two leaders\n{page}");
    let (second, leader) = led_after(&town, epoch).await;
    assert!(leader.starts_with("replica-other"));

    cut_off.proxy.set_both(Rule::Pass);
    eventually(PATIENCE, "the first one stands by", async || {
        let page = cut_off.page("/readyz").await?;
        page.contains("standby, replica-other").then_some(())
    })
    .await
    .unwrap();
    let agent = town.plane.agent(&town.uid).unwrap();
    assert_eq!((agent.lease_epoch, agent.conflict), (second, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_writes_nothing_when_it_resumes_late() {
    resumes_late(Pause::Frozen).await;
}

/// By its timers and its monotonic clock it would lead on: only the clock since boot says that the
/// Lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_machine_was_suspended_writes_nothing_when_it_wakes() {
    resumes_late(Pause::Suspended).await;
}

async fn resumes_late(pause: Pause) {
    let town = Town::new().await;
    let mut paused = Replica::that_pauses(&town, "replica-paused", pause).await;
    let (epoch, leader) = led_after(&town, 0).await;
    assert!(leader.starts_with("replica-paused"));
    let other = Replica::start(&town, "replica-other").await;
    eventually(PATIENCE, "the other stands by", async || {
        other.page("/readyz").await.filter(|page| page.contains("standby"))
    })
    .await
    .unwrap();

    paused.pause();
    let (second, leader) = led_after(&town, epoch).await;
    assert!(leader.starts_with("replica-other"));
    let before = town.writes_by(paused.name());
    assert!(before > 0, "the audit log tells nothing of its writes");
    paused.resume();
    eventually(PATIENCE, "the paused one stands by", async || {
        let page = paused.page("/readyz").await?;
        page.contains("standby, replica-other").then_some(())
    })
    .await
    .unwrap();
    let agent = town.plane.agent(&town.uid).unwrap();
    assert_eq!((agent.lease_epoch, agent.conflict), (second, None));
    assert_eq!(town.writes_by(paused.name()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_frozen_past_its_certificates_expiry_recovers_when_it_resumes() {
    recovers(Pause::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_machine_was_suspended_past_its_certificates_expiry_recovers_when_it_wakes()
{
    recovers(Pause::Suspended).await;
}

async fn recovers(pause: Pause) {
    // Long enough that a busy machine does not let it expire time after time before the pause: an
    // identity is recovered five times at most.
    let life = Duration::from_secs(20);
    let town = Town::with(Options { certificate_lifetime: life, ..Options::default() }).await;
    let began = Instant::now();
    let mut frozen = Replica::that_pauses(&town, "replica-frozen", pause).await;
    led_after(&town, 0).await;
    let known = || town.plane.store().cluster(&town.uid).unwrap();

    frozen.pause();
    let before = known().recoveries;
    // Once in half its life, less a tenth.
    let (issued, passed) = (known().issued.len() as u64, began.elapsed().as_secs());
    assert!(issued <= 2 + passed / 8, "{issued} in {passed} s: it is renewed again and again");
    eventually(PATIENCE, "all of its certificates have expired", async || {
        let now = Timestamp::now();
        known().issued.iter().all(|issued| issued.not_after < now).then_some(())
    })
    .await
    .unwrap();
    let resumed = Timestamp::now();
    frozen.resume();
    eventually(PATIENCE, "it has recovered and holds a new session", async || {
        let since = town.plane.agent(&town.uid)?.connected_since?;
        (known().recoveries > before && since > resumed).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", town.logs()));
    assert_eq!(town.plane.agent(&town.uid).unwrap().conflict, None, "it is no clone of itself");
}
