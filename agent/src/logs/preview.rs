//! `mendix-agent logs preview`: what would leave, on the terminal of whoever wants to know.
//!
//! The same path as a snapshot, from the pods' logs to the finished archive, with the caller's own
//! rights and another taker at its end. Nothing is sealed and nothing is sent, so it takes no consent.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use clap::{ArgGroup, Args};
use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use mendix_agent_core::{
    consent::{
        grant::{DataClass, MAX_WINDOW, Window},
        policy::ExtraPatterns,
    },
    ordered,
    redact::{Redaction, custom::CustomPatterns},
    seal::SealError,
};
use tokio::sync::mpsc;

use super::{
    assemble::{AssembleError, Assembler, Sink, Subject, Tally},
    collect::{Caller, Collector, ITEM_BACKLOG, Room, Scope},
    objects, snapshot,
};
use crate::{
    cluster::{ApiError, Cluster, call},
    crd::{
        log_sharing_policy::{LogSharingPolicy, NAME, SharingMode},
        managed_component::ManagedComponent,
    },
    errors::describe,
};

/// What a grant allows unless the ticket says otherwise, bytes.
const USUAL_BUDGET: u64 = 256 * 1024 * 1024;

/// Shows what a log snapshot would hold now, after redaction. Nothing is sent, so no consent is
/// needed; what can be read is what your own kubeconfig may read. Placeholders are new in every
/// snapshot: the same value gets another one in the next.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("to").multiple(false))]
pub struct Arguments {
    /// Components by exact name (`kubectl get managedcomponents`); all of them when left out.
    #[arg(long = "component", value_name = "NAME")]
    components: Vec<String>,
    /// How far to reach back, such as `90m` or `24h`.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    since: SignedDuration,
    /// Also the logs of Mendix apps, which a consent has to name.
    #[arg(long)]
    runtime_logs: bool,
    /// Unpack into this folder, which must not exist, instead of printing.
    #[arg(long, value_name = "DIR", group = "to")]
    output_dir: Option<PathBuf>,
    /// Write the archive as it would be sealed: a new file, or `-` for standard output.
    #[arg(long, value_name = "FILE", group = "to")]
    archive: Option<PathBuf>,
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The components or the policy can't be read.
    #[error(transparent)]
    Record(#[from] ApiError),
    /// A component that no release manages here.
    #[error("{name:?} is no managed component; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The time is no span that a grant could name.
    #[error("--since has to be between 1 second and {} hours", MAX_WINDOW.as_hours())]
    Since,
    /// The target can't be written.
    #[error("write to {path}")]
    Target {
        /// The target.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no randomness for placeholders.
    #[error("no randomness for the placeholders")]
    Random(#[source] SealError),
    /// The archive can't be made or written.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
}

/// Where a preview goes.
enum Target {
    /// The archive as it is.
    Archive(Box<dyn Write + Send>),
    /// Files below this folder.
    Folder(PathBuf),
    /// One file after the other, under its name; control characters are shown, not obeyed.
    Text { out: Box<dyn Write + Send>, terminal: bool },
}

/// Takes the archive for a person.
struct Shown {
    target: Target,
    bytes: Arc<Mutex<u64>>,
}

impl Sink for Shown {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), AssembleError> {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) += bytes.len() as u64;
        self.show(&bytes).map_err(AssembleError::Write)
    }

    async fn finish(mut self) -> Result<(), AssembleError> {
        match &mut self.target {
            Target::Archive(out) | Target::Text { out, .. } => {
                out.flush().map_err(AssembleError::Write)
            }
            Target::Folder(_) => Ok(()),
        }
    }
}

impl Shown {
    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Target::Archive(out) = &mut self.target {
            return out.write_all(bytes);
        }
        // Each piece is a gzip member that holds one entry, or the end.
        let mut member = tar::Archive::new(GzDecoder::new(bytes));
        for entry in member.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            match &mut self.target {
                Target::Archive(_) => {}
                Target::Folder(folder) => write_new(&folder.join(path), &data)?,
                Target::Text { out, terminal } => {
                    writeln!(out, "==> {} <==", path.display())?;
                    let shown = if *terminal { visible(&data) } else { data };
                    out.write_all(&shown)?;
                    if !shown.is_empty() && !shown.ends_with(b"\n") {
                        out.write_all(b"\n")?;
                    }
                    out.write_all(b"\n")?;
                }
            }
        }
        Ok(())
    }
}

fn write_new(path: &Path, data: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create_new(path)?.write_all(data)
}

/// A log may hold escape sequences that a terminal would obey.
fn visible(data: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(data.len());
    for c in String::from_utf8_lossy(data).chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into_bytes()
}

/// Makes the preview; `cluster` was opened with the caller's kubeconfig. Gives what to say about it
/// on standard error.
///
/// # Errors
/// [`PreviewError`]; what can't be collected is no error but a gap in it.
pub async fn run(cluster: Cluster, arguments: Arguments) -> Result<String, PreviewError> {
    if arguments.since < SignedDuration::from_secs(1) || arguments.since > MAX_WINDOW {
        return Err(PreviewError::Since);
    }
    let mut managed = objects::list(&cluster.own(), "list ManagedComponents").await?;
    managed.retain(ManagedComponent::has_release);
    let wanted = chosen(&arguments.components, &managed)?;
    let to = Timestamp::now();
    let from = to.saturating_sub(arguments.since).unwrap_or(to);
    let policies: Api<LogSharingPolicy> = cluster.own();
    let policy = call("get LogSharingPolicy", policies.get_opt(NAME)).await;
    let Limited { components, excluded, patterns, window, notes } =
        limited(policy, wanted, Window { from, to });
    let mut classes = vec![DataClass::ComponentLogs, DataClass::Events, DataClass::Status];
    if arguments.runtime_logs {
        classes.push(DataClass::RuntimeLogs);
    }
    let bytes = Arc::default();
    let sink = Shown { target: target(&arguments)?, bytes: Arc::clone(&bytes) };
    let classes = ordered::set(classes);
    let (uid, version) = (cluster.uid.clone(), cluster.server_version.clone());
    let scope =
        Arc::new(Scope::preview(Caller::new(cluster), components, excluded, classes, window));
    let (items, incoming) = mpsc::channel(ITEM_BACKLOG);
    let key = snapshot::placeholder_key().map_err(PreviewError::Random)?;
    let redaction = Redaction::new(key, vec![Box::new(patterns)]);
    let room = Room::of(USUAL_BUDGET);
    let collector = Collector::new(Arc::clone(&scope), managed, redaction, room, to, items);
    let subject = Subject {
        snapshot_id: "preview",
        cluster_uid: &uid,
        ticket_id: None,
        grant_id: None,
        kubernetes_version: &version,
        started_at: to,
    };
    let tally = Mutex::new(Tally::default());
    let assembler = Assembler::new(subject, &scope, sink, &tally);
    let ((), assembled) = tokio::join!(collector.run(), assembler.run(incoming));
    assembled?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let bytes = *bytes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(said(&tally, bytes, &notes))
}

/// What of a preview the customer's policy leaves, and what there is to say about it.
struct Limited {
    components: Vec<String>,
    excluded: Vec<String>,
    patterns: CustomPatterns,
    window: Window,
    notes: Vec<String>,
}

/// A policy that shares nothing limits nothing here: the preview shows what would leave without it,
/// and says so.
fn limited(
    policy: Result<Option<LogSharingPolicy>, ApiError>,
    components: Vec<String>,
    mut window: Window,
) -> Limited {
    let mut notes = vec![];
    let spec = match policy {
        Ok(Some(policy)) => policy.spec,
        missing => {
            notes.push(match missing {
                Err(error) => format!("LogSharingPolicy not considered: {}", describe(&error)),
                Ok(_) => "there is no LogSharingPolicy: none of this would leave".into(),
            });
            let patterns = CustomPatterns::default();
            return Limited { components, excluded: vec![], patterns, window, notes };
        }
    };
    if spec.mode == SharingMode::Deny || spec.suspend {
        notes.push("LogSharingPolicy stops all sharing now: none of this would leave".into());
    }
    let (excluded, components) =
        components.into_iter().partition(|name| spec.excluded_components.contains(name));
    let patterns = match ExtraPatterns::new(spec.extra_patterns).compiled() {
        Ok(compiled) => compiled.clone(),
        Err(error) => {
            notes.push(format!("none of this would leave: {error}"));
            CustomPatterns::default()
        }
    };
    if let Some(hours) = spec.max_window_hours {
        let most = SignedDuration::from_hours(hours.into());
        window.from = window.from.max(window.to.saturating_sub(most).unwrap_or(window.to));
    }
    Limited { components, excluded, patterns, window, notes }
}

/// The components asked for, or all.
fn chosen(wanted: &[String], managed: &[ManagedComponent]) -> Result<Vec<String>, PreviewError> {
    let known: Vec<_> = managed.iter().map(|c| c.spec.component.clone()).collect();
    if let Some(name) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(PreviewError::Unknown { name: name.clone(), known: known.join(", ") });
    }
    Ok(if wanted.is_empty() { known } else { wanted.to_vec() })
}

fn target(arguments: &Arguments) -> Result<Target, PreviewError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        |source| PreviewError::Target { path, source }
    };
    Ok(match (&arguments.archive, &arguments.output_dir) {
        (Some(path), _) if path == Path::new("-") => Target::Archive(Box::new(io::stdout())),
        (Some(path), _) => {
            Target::Archive(Box::new(fs::File::create_new(path).map_err(failed(path))?))
        }
        (None, Some(folder)) => {
            fs::create_dir(folder).map_err(failed(folder))?;
            Target::Folder(folder.clone())
        }
        (None, None) => {
            Target::Text { out: Box::new(io::stdout()), terminal: io::stdout().is_terminal() }
        }
    })
}

fn said(tally: &Tally, bytes: u64, notes: &[String]) -> String {
    let mut said = format!(
        "{} files from {} bytes of logs; {} values replaced; {bytes} bytes would be sealed; nothing was sent\n",
        tally.files,
        tally.raw_bytes,
        tally.counts.total(),
    );
    for note in notes {
        said.push_str(&format!("note: {note}\n"));
    }
    if tally.gap_count > 0 {
        said.push_str(&format!("{} gaps (errors.jsonl); the first:\n", tally.gap_count));
        for gap in &tally.gaps {
            said.push_str(&format!("  {}\n", String::from_utf8_lossy(&visible(gap.as_bytes()))));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_of_escape_sequences_and_does_not_obey_them() {
        let shown = visible(b"a\x1b[2Jb\tc\nd\x07\r\n");
        assert_eq!(shown, b"a\\u{1b}[2Jb\tc\nd\\u{7}\\r\n");
    }

    #[test]
    fn only_managed_components_can_be_looked_at() {
        let error = chosen(&["nginx".into()], &[]).unwrap_err();
        assert!(matches!(error, PreviewError::Unknown { .. }), "{error}");
    }

    #[test]
    fn a_policy_takes_components_and_time_away_and_is_told_when_it_stops_everything() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let window =
            Window { from: time("2026-11-20T08:00:00Z"), to: time("2026-11-20T12:00:00Z") };
        let wanted = || vec!["ingress".to_owned(), "mendix-operator".to_owned()];
        let policy = |spec: serde_json::Value| {
            let spec = serde_json::from_value(spec).unwrap();
            limited(Ok(Some(LogSharingPolicy::new(NAME, spec))), wanted(), window)
        };
        let narrow = policy(serde_json::json!({
            "mode": "WithConsent", "excludedComponents": ["ingress"], "maxWindowHours": 1,
        }));
        assert_eq!(narrow.components, ["mendix-operator"]);
        assert_eq!(narrow.excluded, ["ingress"]);
        assert_eq!(narrow.window, Window { from: time("2026-11-20T11:00:00Z"), ..window });
        assert!(narrow.notes.is_empty(), "{:?}", narrow.notes);

        let open = serde_json::json!({ "mode": "WithConsent", "maxWindowHours": 24 });
        assert_eq!(policy(open).window, window, "it never widens");
        for stops in [
            serde_json::json!({ "mode": "Deny" }),
            serde_json::json!({ "mode": "WithConsent", "suspend": true }),
            serde_json::json!({ "mode": "WithConsent", "extraPatterns": ["("] }),
        ] {
            let shown = policy(stops);
            assert_eq!(shown.components, wanted());
            assert!(shown.notes[0].contains("none of this would leave"), "{:?}", shown.notes);
        }
        let none = limited(Ok(None), wanted(), window);
        assert!(none.notes[0].contains("there is no LogSharingPolicy"), "{:?}", none.notes);
    }
}
