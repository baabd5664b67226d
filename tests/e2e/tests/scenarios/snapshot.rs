//! The agent is killed in the middle of a snapshot, at every step that can be told apart from outside,
//! and a new process takes over: the request is answered once, nobody can open what was interrupted,
//! and no more than the budget is spent.

use std::{fmt, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt,
    runtime::watcher::{self, Event},
};
use mendix_agent::crd::log_snapshot::{LogSnapshot, LogSnapshotStatus};
use mendix_agent_core::consent::grant::Budget;
use mendix_control_plane::{
    portal::GrantTerms,
    snapshots::{self, OpenError, UploadRecord, UploadState},
    store::DoneRequest,
};
use mendix_test_kit::{
    node::Node,
    proxy::{Direction, Rule},
    skip,
    wait::eventually,
};
use serde::de::DeserializeOwned;

use crate::{
    agent::Agent,
    site::{self, Site, terms},
};

/// Longest wait for a moment to come.
const MOMENT: Duration = Duration::from_secs(240);
/// Longest wait for the control plane to be told of an interrupted upload.
const SETTLED: Duration = Duration::from_secs(240);
/// What each 16 KiB of the upload wait, so that its middle lasts.
const SLOW: Duration = Duration::from_millis(300);
/// What the control plane's answers wait, so that the agent dies before it hears them.
const LATE: Duration = Duration::from_secs(2);
/// What every test's grant allows.
const BUDGET: Budget = Budget { snapshots: 2, bytes: 64 * 1024 * 1024 };

/// When the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The budget is spent; nothing else has happened.
    Spent,
    /// The receipt says Started; no byte has left.
    Started,
    /// The control plane has some of the bytes.
    Sending,
    /// The control plane has all of it and the key; the agent does not know.
    Delivered,
    /// The receipt says Succeeded; the control plane has no answer to its request.
    Recorded,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_survives_kill() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let site = Site::take().await?;
    let result = survives(&site).await;
    site.launcher.explained(result)
}

async fn survives(site: &Site) -> Result<()> {
    let mut agent = site.agent().await?;
    for moment in
        [Moment::Spent, Moment::Started, Moment::Sending, Moment::Delivered, Moment::Recorded]
    {
        let ticket = format!("killed-{moment}").to_lowercase();
        let what = || format!("killed at {moment}");
        let received = site.plane.counters().snapshot_bytes;
        let request = killed_at(site, agent, moment, &ticket).await.with_context(what)?;
        agent = site.agent().await?;
        let outcome = site.outcome(&request).await.with_context(what)?;
        let line = accounted_for(site, &ticket, &outcome, received).await.with_context(what)?;
        let again = matches!(moment, Moment::Started | Moment::Sending);
        ensure!(outcome.outcome == "Succeeded", "{}: {outcome:?}", what());
        let taken = site.receipts(&ticket).await?.len();
        ensure!(moment == Moment::Spent || taken == 1 + usize::from(again), "{}: {line}", what());
        println!("{}: {line}", what());
    }

    // Killed until nothing is left of the budget.
    let ticket = "killed-twice";
    let what = || "killed twice while sending".to_owned();
    let received = site.plane.counters().snapshot_bytes;
    let request = killed_at(site, agent, Moment::Sending, ticket).await.with_context(what)?;
    site.proxy.set(Direction::Up, Rule::Delay(SLOW));
    agent = site.agent().await?;
    sending(site, ticket, 1).await.with_context(what)?;
    agent.kill().await?;
    site.proxy.set_both(Rule::Pass);
    let _agent = site.agent().await?;
    let outcome = site.outcome(&request).await.with_context(what)?;
    ensure!(
        (outcome.outcome.as_str(), outcome.reason.as_str()) == ("Refused", "SnapshotsSpent"),
        "{}: {outcome:?}",
        what()
    );
    let line = accounted_for(site, ticket, &outcome, received).await.with_context(what)?;
    println!("{}: {line}", what());
    Ok(())
}

/// Opens a ticket with consent and kills the agent when it has come so far with the snapshot. Gives the
/// id of the request.
async fn killed_at(site: &Site, agent: Agent, moment: Moment, ticket: &str) -> Result<String> {
    let mut receipts = watch(site.api::<LogSnapshot>()).await?;
    let mut secrets = watch(site.api::<Secret>()).await?;
    match moment {
        Moment::Spent | Moment::Started | Moment::Sending => {
            site.proxy.set(Direction::Up, Rule::Delay(SLOW));
        }
        Moment::Delivered | Moment::Recorded => site.proxy.set(Direction::Down, Rule::Delay(LATE)),
    }
    let terms = GrantTerms { budget: BUDGET, ..terms() };
    let request = site.open_ticket(ticket, Some(terms))?.1.context("nothing was requested")?;
    let come = async {
        match moment {
            Moment::Spent => seen(&mut secrets, |it| is_spent(it, ticket)).await,
            Moment::Started => seen(&mut receipts, |it| in_phase(it, ticket, "Started")).await,
            Moment::Sending => sending(site, ticket, 0).await,
            Moment::Delivered => delivered(site, ticket).await,
            Moment::Recorded => {
                // Before the agent hears that it is: it can record it and tell nobody.
                delivered(site, ticket).await?;
                site.proxy.set(Direction::Up, Rule::Stall);
                seen(&mut receipts, |it| in_phase(it, ticket, "Succeeded")).await
            }
        }
    };
    let come = tokio::time::timeout(MOMENT, come).await.context("it did not come so far")?;
    agent.kill().await?;
    site.proxy.set_both(Rule::Pass);
    come?;
    let answered = site.store().cluster(&site.uid)?.done;
    let answered = answered.iter().any(|done| done.request.request_id == request);
    ensure!(!answered, "the request was answered before the agent died");
    Ok(request)
}

/// The control plane has a part of a ticket's first, second, … upload, and not all. (What a dead agent
/// had sent may still arrive: bytes are not counted over all uploads.)
async fn sending(site: &Site, ticket: &str, number: usize) -> Result<()> {
    let some = async || {
        let uploads = uploads(site, ticket).ok()?;
        let upload = uploads.get(number).filter(|it| it.state == UploadState::Receiving)?;
        let sealed = folder_of(site, &upload.snapshot_id).join("sealed");
        fs::metadata(sealed).is_ok_and(|file| file.len() > 0).then_some(())
    };
    Ok(eventually(MOMENT, "some bytes arrived", some).await?)
}

/// Where the control plane keeps an upload.
fn folder_of(site: &Site, snapshot_id: &str) -> PathBuf {
    site.store().dir().join("snapshots").join(snapshot_id)
}

async fn delivered(site: &Site, ticket: &str) -> Result<()> {
    let finished = |upload: &UploadRecord| matches!(upload.state, UploadState::Finished { .. });
    let all = async || uploads(site, ticket).ok()?.iter().any(finished).then_some(());
    Ok(eventually(MOMENT, "the upload is complete", all).await?)
}

fn uploads(site: &Site, ticket: &str) -> Result<Vec<UploadRecord>> {
    let mut uploads = site.store().uploads()?;
    uploads.retain(|upload| upload.ticket_id == ticket);
    Ok(uploads)
}

fn is_spent(secret: &Secret, ticket: &str) -> bool {
    site::ledger_in(secret).is_ok_and(|ledger| ledger.of_ticket(ticket).next().is_some())
}

fn in_phase(receipt: &LogSnapshot, ticket: &str, phase: &str) -> bool {
    receipt.spec.ticket_id == ticket
        && receipt.status.as_ref().is_some_and(|status| status.phase == phase)
}

/// Everything that was begun for a ticket has an end that explains itself, and the budget holds.
/// `before` are the bytes that the control plane had received before the ticket was opened.
async fn accounted_for(
    site: &Site,
    ticket: &str,
    outcome: &DoneRequest,
    before: u64,
) -> Result<String> {
    let receipts = site.receipts(ticket).await?;
    let mut ends = vec![];
    for receipt in &receipts {
        let id = receipt.name_any();
        let status = receipt.status.clone().unwrap_or_default();
        ensure!(status.finished_at.is_some(), "receipt {id} has no end: {status:?}");
        if status.phase == "Succeeded" {
            ensure!(outcome.snapshot_id == id, "{id} succeeded, and nobody was told: {outcome:?}");
            can_be_opened(site, &id)?;
        } else {
            is_discarded(site, &id, &status).await?;
        }
        ends.push([status.phase, status.reason.unwrap_or_default()].concat());
    }
    for upload in uploads(site, ticket)? {
        let known = receipts.iter().any(|receipt| receipt.name_any() == upload.snapshot_id);
        ensure!(known, "upload {} has no receipt", upload.snapshot_id);
    }

    let ledger = site.ledger().await?;
    let mut entries = ledger.of_ticket(ticket);
    let spent = entries.next().context("the ledger does not know the ticket")?;
    ensure!(entries.next().is_none(), "the ledger knows the ticket twice");
    let begun = u32::try_from(receipts.len())?;
    ensure!((begun..=BUDGET.snapshots).contains(&spent.snapshots), "{begun} begun: {spent:?}");
    let received = site.plane.counters().snapshot_bytes - before;
    let within = (received..=BUDGET.bytes).contains(&spent.bytes);
    ensure!(within, "{received} bytes were received: {spent:?}");
    Ok(format!(
        "{} ({}); receipts {ends:?}; {} of {} snapshots, {received} of {} bytes",
        outcome.outcome, outcome.reason, spent.snapshots, BUDGET.snapshots, spent.bytes
    ))
}

fn can_be_opened(site: &Site, id: &str) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let out = folder.path().join("opened");
    let summary = snapshots::open(site.store(), id, &out)?;
    ensure!(summary.files.iter().any(|file| file.path.contains("/bulk")), "it is not whole");
    Ok(())
}

/// An interrupted snapshot: what the control plane has of it is gone, and never had a key.
async fn is_discarded(site: &Site, id: &str, status: &LogSnapshotStatus) -> Result<()> {
    let end = (status.phase.as_str(), status.reason.as_deref());
    ensure!(end == ("Failed", Some("AgentRestarted")), "receipt {id} ended as {end:?}");
    let upload = eventually(SETTLED, format!("upload {id} is discarded"), async || {
        match site.store().find_upload(id).ok()? {
            Some(upload) if upload.state == UploadState::Receiving => None,
            settled => Some(settled),
        }
    });
    let Some(upload) = upload.await? else {
        // Nothing of it ever arrived.
        return Ok(());
    };
    let UploadState::Aborted { reason, .. } = &upload.state else {
        bail!("upload {id} is {:?}", upload.state);
    };
    ensure!(reason == "AgentRestarted", "upload {id} was aborted for {reason}");
    let folder = folder_of(site, id);
    let names = fs::read_dir(&folder).context("list what is kept of the upload")?;
    let names: Vec<_> = names.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names == ["upload.json"], "of upload {id} are kept: {names:?}");
    let record = fs::read_to_string(folder.join("upload.json")).context("read its record")?;
    ensure!(!record.contains("wrapped_key"), "there is a key for upload {id}");
    let out = folder.join("opened");
    match snapshots::open(site.store(), id, &out) {
        Err(OpenError::NotFinished { .. }) => Ok(()),
        other => bail!("upload {id} can be opened: {other:?}"),
    }
}

type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// Events from now on: those of objects that are there have been consumed.
async fn watch<K>(api: Api<K>) -> Result<Events<K>>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.try_next().await.context("watch")? {
        if matches!(event, Event::InitDone) {
            return Ok(events);
        }
    }
    bail!("the watch ended")
}

async fn seen<K>(events: &mut Events<K>, wanted: impl Fn(&K) -> bool) -> Result<()> {
    while let Some(event) = events.try_next().await.context("watch")? {
        if let Event::Apply(object) | Event::InitApply(object) = event
            && wanted(&object)
        {
            return Ok(());
        }
    }
    bail!("the watch ended")
}
