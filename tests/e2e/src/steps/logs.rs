//! Job 3: refused without consent, shared under a grant with the secrets gone, refused again once the
//! ticket is solved.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};
use mendix_control_plane::store::Store;
use mendix_test_kit::{apiserver::AuditLog, wait::eventually};
use serde_json::Value;

use super::OUTCOME;
use crate::{install::NAMESPACE, stage::Stage};

/// What the monitoring component writes into its log and nobody must ever see (see
/// `releases/good/mendix-monitoring`).
const PLANTED: [&str; 5] = [
    "hunter2-planted",
    "planted-bearer-0123456789",
    "cGxhbnRlZC1hY2NvdW50LWtleS0",
    "planted.person@customer.example",
    "203.0.113.77",
];

/// A ticket without a grant: the request is refused with its reason, and not one log byte is read.
///
/// # Errors
/// When it is not refused, when a log was read, or a byte arrived.
pub async fn refused_without_consent(stage: &Stage) -> Result<()> {
    let ticket = ["ticket", "open", "--id", "t-1", "--title", "operator is slow"];
    stage.operator(&ticket).await?;
    let asked = stage.operator(&["snapshot", "request", "--ticket", "t-1"]).await?;
    let outcome = outcome(stage, &asked).await?;
    ensure!(outcome["outcome"] == "Refused", "the request ended as {outcome}");
    stage.ui.line(format!("refused: {} — {}", word(&outcome, "reason"), word(&outcome, "message")));
    nothing_left(stage, 0)?;
    stage.look(&["-n", NAMESPACE, "get", "supporttickets"]).await
}

/// A ticket with the customer's consent: a snapshot arrives, only the ticket's key opens it, the planted
/// secrets are gone and the crash is there.
///
/// # Errors
/// When it does not arrive, or a planted secret is in it.
pub async fn shared_with_consent(stage: &Stage) -> Result<()> {
    let open =
        ["ticket", "open", "--id", "t-2", "--title", "scrapes fail", "--grant", "--components"];
    let components =
        ["mendix-monitoring,mendix-operator", "--consented-by", "j.doe@customer.example"];
    stage.operator(&[&open[..], &components[..]].concat()).await?;
    let view = eventually(OUTCOME, "the snapshot of ticket t-2 ends", async || {
        let views = views(stage).await.ok()?;
        views.into_iter().find(|view| view["ticket"] == "t-2" && is_over(view))
    })
    .await?;
    ensure!(view["outcome"] == "Succeeded", "the snapshot ended as {view}");
    let id = view["snapshot"].as_str().context("no snapshot id was reported")?;
    let out = stage.folder.join("snapshot");
    let out_text = out.display().to_string();
    let summary = stage.operator(&["snapshot", "open", id, "--out", &out_text]).await?;
    let mut all = String::new();
    read_all(&out, &mut all)?;
    for secret in PLANTED {
        ensure!(!all.contains(secret), "{secret} is in the snapshot");
    }
    ensure!(all.contains("scrape"), "the ordinary log lines of mendix-monitoring are missing");
    ensure!(all.contains("reconcile"), "the ordinary log lines of mendix-operator are missing");
    for line in all.lines().filter(|line| line.contains("[R:")).take(5) {
        stage.ui.line(line);
    }
    stage.ui.line(format!("redaction.json: {}", summary["redaction"]));
    if let Some(audit) = stage.audit() {
        let reads = log_reads(&audit)?;
        ensure!(
            reads > 0,
            "the audit log shows no pods/log read: it can't prove that there were none"
        );
        stage.ui.line(format!("the API server's audit log shows {reads} reads of pods/log"));
    }
    stage.look(&["-n", NAMESPACE, "get", "logsnapshots"]).await
}

/// The ticket is solved: the next request is refused.
///
/// # Errors
/// When it is not, or another log was read.
pub async fn refused_once_solved(stage: &Stage) -> Result<()> {
    let reads = stage.audit().map(|audit| log_reads(&audit)).transpose()?;
    stage.operator(&["ticket", "solve", "t-2"]).await?;
    let asked = stage.operator(&["snapshot", "request", "--ticket", "t-2"]).await?;
    let outcome = outcome(stage, &asked).await?;
    ensure!(outcome["outcome"] == "Refused", "the request ended as {outcome}");
    stage.ui.line(format!("refused: {} — {}", word(&outcome, "reason"), word(&outcome, "message")));
    if let Some(reads) = reads {
        nothing_left(stage, reads)?;
    }
    Ok(())
}

/// The record of it all.
///
/// # Errors
/// When it can't be shown.
pub async fn record(stage: &Stage) -> Result<()> {
    stage.look(&["get", "mendix", "-A"]).await?;
    let status = ["-n", NAMESPACE, "exec", "deploy/mendix-agent", "--", "mendix-agent", "status"];
    stage.look(&status).await
}

/// Proves from outside that nothing was read and nothing arrived: by the API server's audit log and by
/// the control plane's store.
fn nothing_left(stage: &Stage, reads_before: usize) -> Result<()> {
    if let Some(audit) = stage.audit() {
        let reads = log_reads(&audit)?;
        ensure!(reads == reads_before, "pods/log was read {} times", reads - reads_before);
        stage.ui.line("the API server's audit log shows no read of pods/log for it");
    }
    let bytes = received(&stage.store()?, "t-1")?;
    ensure!(bytes == 0, "{bytes} snapshot bytes arrived for a ticket without consent");
    stage.ui.line("no upload was begun at the control plane");
    Ok(())
}

/// Reads of any pod's log in any namespace, by anybody.
fn log_reads(audit: &AuditLog) -> Result<usize> {
    let reads: BTreeSet<String> = audit
        .events()?
        .into_iter()
        .filter(|event| event["objectRef"]["subresource"] == "log")
        .map(|event| event["auditID"].to_string())
        .collect();
    Ok(reads.len())
}

fn received(store: &Store, ticket: &str) -> Result<usize> {
    Ok(store.uploads()?.iter().filter(|upload| upload.ticket_id == ticket).count())
}

async fn views(stage: &Stage) -> Result<Vec<Value>> {
    let views = stage.quiet_operator(&["snapshot", "list"]).await?;
    Ok(serde_json::from_value(views)?)
}

/// Waits for the terminal outcome of a request.
async fn outcome(stage: &Stage, asked: &Value) -> Result<Value> {
    let id = asked["request_id"].as_str().context("no request id was printed")?;
    Ok(eventually(OUTCOME, format!("request {id} ends"), async || {
        let views = views(stage).await.ok()?;
        views.into_iter().find(|view| view["request"] == id && is_over(view))
    })
    .await?)
}

/// Whether the agent has reported how a request ended; an upload alone has no outcome.
fn is_over(view: &Value) -> bool {
    !["", "Waiting"].contains(&word(view, "outcome"))
}

fn word<'a>(view: &'a Value, field: &str) -> &'a str {
    view[field].as_str().unwrap_or("?")
}

fn read_all(folder: &Path, all: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder).context("read the opened snapshot")? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, all)?;
        } else {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            all.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}
