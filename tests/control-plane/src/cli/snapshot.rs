//! `snapshot`: request and list; show, verify, decrypt, open and summarise what arrived.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{
    Failure, Output, one_cluster,
    output::{ago, bytes, printable, table},
};
use crate::{
    snapshots::{self, Summary, Timeline, UploadRecord, UploadState},
    store::{RequestKind, Store},
};

/// Files that are listed for people; the rest is counted.
const FILES_SHOWN: usize = 40;
/// Rows of a timeline that are listed for people; the rest is counted.
const ROWS_SHOWN: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask for one more snapshot under a ticket. The agent decides by the customer's consent.
    Request {
        /// The ticket; the agent refuses one without consent.
        #[arg(long)]
        ticket: String,
        /// The cluster; the ticket's, or the only one, when left out.
        #[arg(long)]
        cluster: Option<String>,
        /// Components by name, inside the grant's scope; all of it when left out.
        #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
        components: Vec<String>,
    },
    /// List requests with their outcomes, and uploads.
    List,
    /// Show what is recorded of one upload; nothing is decrypted.
    Show {
        /// The snapshot.
        id: String,
    },
    /// Read every byte of a finished snapshot: digest, seal and manifest. Writes nothing.
    Verify {
        /// The snapshot.
        id: String,
    },
    /// Decrypt a finished snapshot with its ticket's key into an archive for `tar xzf`.
    Decrypt {
        /// The snapshot.
        id: String,
        /// The archive to write; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Tell what went wrong, in order, across all logs and events. Writes nothing.
    Summary {
        /// The snapshot.
        id: String,
    },
    /// Open a finished snapshot with its ticket's key.
    #[command(visible_alias = "extract")]
    Open {
        /// The snapshot.
        id: String,
        /// Folder to unpack into; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
}

/// A snapshot as people follow it: the request, what became of it, what arrived.
#[derive(Debug, Serialize)]
struct View {
    request: Option<String>,
    ticket: String,
    cluster: String,
    outcome: String,
    reason: String,
    message: String,
    snapshot: Option<String>,
    upload: Option<&'static str>,
    sealed_size: Option<u64>,
    at: jiff::Timestamp,
}

impl Command {
    pub(super) fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        match self {
            Self::Request { ticket, cluster, components } => {
                // A request may name a ticket that does not exist: the agent must refuse it.
                let uid = match (store.ticket(&ticket), cluster) {
                    (Ok(known), None) => known.cluster_uid,
                    (_, cluster) => one_cluster(store, cluster.as_deref())?,
                };
                let kind = RequestKind::Snapshot { ticket_id: ticket.clone(), components };
                let request = store.place_request(&uid, kind)?;
                output.print(&request, || {
                    format!(
                        "Request {} was placed. `snapshot list` shows its outcome.",
                        request.request_id
                    )
                });
                Ok(())
            }
            Self::List => list(store, output),
            Self::Show { id } => {
                let upload = store.upload(&id)?;
                output.print(&upload, || shown(&upload));
                Ok(())
            }
            Self::Verify { id } => {
                let summary = snapshots::verify(store, &id)?;
                output.print(&summary, || {
                    format!(
                        "Snapshot {id} is whole: {} sealed, {} in {} files, as its manifest says.",
                        bytes(summary.sealed_size),
                        bytes(summary.size()),
                        summary.files.len(),
                    )
                });
                Ok(())
            }
            Self::Decrypt { id, out } => {
                let size = snapshots::decrypt(store, &id, &out)?;
                let result = serde_json::json!({ "snapshot": id, "archive": out, "bytes": size });
                output.print(&result, || {
                    format!("{} in {}; open it with `tar xzf`.", bytes(size), out.display())
                });
                Ok(())
            }
            Self::Summary { id } => {
                let timeline = snapshots::timeline(store, &id)?;
                output.print(&timeline, || summarised(&timeline));
                Ok(())
            }
            Self::Open { id, out } => {
                let summary = snapshots::open(store, &id, &out)?;
                output.print(&summary, || opened(&summary, &out));
                Ok(())
            }
        }
    }
}

fn upload_word(upload: &UploadRecord) -> (&'static str, Option<u64>) {
    match &upload.state {
        UploadState::Receiving => ("receiving", None),
        UploadState::Finished { size, .. } => ("finished", Some(*size)),
        UploadState::Aborted { .. } => ("aborted", None),
    }
}

fn views(store: &Store) -> Result<Vec<View>, Failure> {
    let mut uploads = store.uploads()?;
    let mut views = Vec::new();
    for cluster in store.clusters()? {
        for done in &cluster.done {
            let RequestKind::Snapshot { ticket_id, .. } = &done.request.kind else { continue };
            let upload = uploads.iter().position(|upload| upload.snapshot_id == done.snapshot_id);
            let upload = upload.map(|at| uploads.remove(at));
            let (word, size) = upload.as_ref().map(upload_word).unzip();
            views.push(View {
                request: Some(done.request.request_id.clone()),
                ticket: ticket_id.clone(),
                cluster: cluster.uid.clone(),
                outcome: done.outcome.clone(),
                reason: done.reason.clone(),
                message: done.message.clone(),
                snapshot: Some(done.snapshot_id.clone()).filter(|id| !id.is_empty()),
                upload: word,
                sealed_size: size.flatten(),
                at: done.received_at,
            });
        }
        for request in &cluster.requests.value {
            let RequestKind::Snapshot { ticket_id, .. } = &request.kind else { continue };
            views.push(View {
                request: Some(request.request_id.clone()),
                ticket: ticket_id.clone(),
                cluster: cluster.uid.clone(),
                outcome: "Waiting".to_owned(),
                reason: String::new(),
                message: String::new(),
                snapshot: None,
                upload: None,
                sealed_size: None,
                at: request.created_at,
            });
        }
    }
    // What arrived and is not reported yet, or was reported long ago.
    for upload in uploads {
        let (word, size) = upload_word(&upload);
        views.push(View {
            request: None,
            ticket: upload.ticket_id.clone(),
            cluster: upload.cluster_uid.clone(),
            outcome: String::new(),
            reason: match &upload.state {
                UploadState::Aborted { reason, .. } => reason.clone(),
                _ => String::new(),
            },
            message: String::new(),
            snapshot: Some(upload.snapshot_id.clone()),
            upload: Some(word),
            sealed_size: size,
            at: upload.begun_at,
        });
    }
    views.sort_by_key(|view| view.at);
    Ok(views)
}

fn list(store: &Store, output: Output) -> Result<(), Failure> {
    let views = views(store)?;
    output.print(&views, || {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let rows = views.iter().map(|view| {
            [
                or_dash(view.request.as_deref().unwrap_or_default()),
                view.ticket.clone(),
                or_dash(&view.outcome),
                or_dash(&view.reason),
                or_dash(view.snapshot.as_deref().unwrap_or_default()),
                or_dash(view.upload.unwrap_or_default()),
                view.sealed_size.map_or("-".to_owned(), bytes),
                ago(view.at),
            ]
        });
        table(
            ["REQUEST", "TICKET", "OUTCOME", "REASON", "SNAPSHOT", "UPLOAD", "SIZE", "WHEN"],
            rows,
            "No snapshot was asked for. `ticket open --grant` or `snapshot request` does it.",
        )
    });
    Ok(())
}

fn shown(upload: &UploadRecord) -> String {
    let (word, size) = upload_word(upload);
    let mut rows = vec![
        ["snapshot".to_owned(), upload.snapshot_id.clone()],
        ["ticket".to_owned(), upload.ticket_id.clone()],
        ["cluster".to_owned(), upload.cluster_uid.clone()],
        ["grant".to_owned(), upload.grant_sha256.clone()],
        ["begun".to_owned(), upload.begun_at.to_string()],
        ["state".to_owned(), word.to_owned()],
    ];
    if let Some(size) = size {
        rows.push(["sealed".to_owned(), bytes(size)]);
    }
    match &upload.state {
        UploadState::Finished { sha256, .. } => rows.push(["sha256".to_owned(), sha256.clone()]),
        UploadState::Aborted { reason, .. } => rows.push(["reason".to_owned(), reason.clone()]),
        UploadState::Receiving => {}
    }
    table(["", ""], rows, "")
}

fn summarised(timeline: &Timeline) -> String {
    let mut text = format!(
        "Snapshot {} for ticket {}, {} lines of logs",
        timeline.snapshot_id, timeline.ticket_id, timeline.lines
    );
    if let Some((from, to)) = &timeline.window {
        text.push_str(&format!(", from {from} to {to} (UTC)"));
    }
    text.push_str(".\n\nNot well when it was taken:");
    for pod in &timeline.unwell {
        text.push_str(&format!("\n  {}", printable(pod)));
    }
    if timeline.unwell.is_empty() {
        text.push_str(" nothing");
    }
    let rows = timeline.rows.iter().take(ROWS_SHOWN).map(|row| {
        [row.first.clone(), row.count.to_string(), row.source.clone(), row.text.clone()]
    });
    text.push_str("\n\n");
    text.push_str(&table(["FIRST", "COUNT", "WHERE", "WHAT"], rows, "No errors in any log."));
    if let Some(more) = timeline.rows.len().checked_sub(ROWS_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("\n… and {more} more (--output json)"));
    }
    if !timeline.replaced.is_empty() {
        let counts = timeline.replaced.iter().map(|(class, n)| format!("{class} {n}"));
        text.push_str(&format!("\n\nReplaced: {}", counts.collect::<Vec<_>>().join(", ")));
    }
    gaps(&timeline.gaps, &mut text);
    text
}

fn gaps(gaps: &[serde_json::Value], text: &mut String) {
    if gaps.is_empty() {
        return;
    }
    text.push_str(&format!("\n\nNot collected (errors.jsonl), {}:", gaps.len()));
    for gap in gaps.iter().take(FILES_SHOWN) {
        let part = |key: &str| gap[key].as_str().unwrap_or_default();
        let line = format!("{}: {} ({})", part("subject"), part("reason"), part("detail"));
        text.push_str(&format!("\n  {}", printable(&line)));
    }
}

fn opened(summary: &Summary, out: &std::path::Path) -> String {
    let shown = summary.files.iter().take(FILES_SHOWN);
    let rows = shown.map(|file| [file.path.clone(), bytes(file.size)]);
    let mut text = format!(
        "Snapshot {} of cluster {} for ticket {} is in {}.\n\
         The digest and every segment were checked: {} sealed, {} in {} files.\n\n{}",
        summary.snapshot_id,
        summary.cluster_uid,
        summary.ticket_id,
        out.display(),
        bytes(summary.sealed_size),
        bytes(summary.size()),
        summary.files.len(),
        table(["FILE", "SIZE"], rows, "It holds no files."),
    );
    if let Some(more) = summary.files.len().checked_sub(FILES_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("\n… and {more} more"));
    }
    if let Some(redaction) = &summary.redaction {
        let redaction = serde_json::to_string_pretty(redaction).unwrap_or_default();
        text.push_str(&format!("\n\nReplaced (redaction.json):\n{}", printable(&redaction)));
    }
    gaps(&summary.errors, &mut text);
    text
}
