//! Collects what may be collected: logs of the components' pods, events, status.
//!
//! First part of the pipeline. Everything here takes a [`Scope`], and there are two ways to one: the
//! [`ActiveConsent`] that only the gate makes, or a person at a terminal who looks with their own
//! rights at what would leave. Of each log that is being read one part is in plain text in memory, and
//! at most [`MAX_HELD`](mendix_agent_core::archive::MAX_HELD) compressed; the channel to the archive pushes back all the way to the
//! API.

mod apps;
mod found;
mod pods;
mod resources;
mod room;
mod status;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use mendix_agent_core::{
    archive::{EntryPath, Packed},
    consent::{
        gate::ActiveConsent,
        grant::{DataClass, Window},
    },
    ordered,
    redact::{Counts, Leak, Redaction, redact_text, scan_output},
};
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::room::Room;
use super::records::Reach;
use crate::{cluster::Cluster, crd::managed_component::ManagedComponent, errors::describe};

/// Streams that are read at once.
const STREAMS_AT_ONCE: usize = 4;
/// Entries that may wait for the archive.
pub(super) const ITEM_BACKLOG: usize = 1;
/// When no further log is opened, from the beginning on.
const OPEN_UNTIL: Duration = Duration::from_secs(600);
/// When none is read any further: what was read has to be sent as well before the snapshot's end.
const READ_UNTIL: Duration = Duration::from_secs(720);
/// Streams that are named when they were not read; more are counted.
const NAMED: usize = 10;

/// Something for the archive.
#[derive(Debug)]
pub(super) enum Item {
    /// A redacted entry.
    Entry(Packed),
    /// Something that is missing.
    Gap(Gap),
    /// Something has been read: bytes before redaction, and what was replaced.
    Read(u64, Counts),
}

/// Something that was to be collected and is not in the snapshot, or not whole. Both texts are
/// redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    /// `namespace/pod/container/run`, or what else it is about.
    pub(super) subject: String,
    /// Stable code.
    pub(super) reason: &'static str,
    /// For a person.
    pub(super) detail: String,
}

/// What may be collected, and with whose rights.
pub(super) struct Scope {
    cluster: Cluster,
    components: Vec<String>,
    excluded: Vec<String>,
    classes: BTreeSet<DataClass>,
    window: Window,
}

/// A person at a terminal, with their own rights in the cluster. What they see is shown to them and
/// sent to nobody: there is no way from here to an upload, which takes a consent.
pub(super) struct Caller(Cluster);

impl Caller {
    /// `cluster` was opened with the caller's kubeconfig.
    pub(super) fn new(cluster: Cluster) -> Self {
        Self(cluster)
    }
}

impl Scope {
    /// What a customer consented to, with the agent's rights.
    pub(super) fn consented(consent: &ActiveConsent, cluster: Cluster) -> Self {
        let classes = [
            DataClass::ComponentLogs,
            DataClass::RuntimeLogs,
            DataClass::Events,
            DataClass::Status,
        ];
        Self {
            cluster,
            components: consent.components().to_vec(),
            excluded: consent.excluded().to_vec(),
            classes: ordered::set(classes.into_iter().filter(|class| consent.allows(*class))),
            window: consent.window(),
        }
    }

    /// What a consent to this would cover, with the caller's rights.
    pub(super) fn preview(
        caller: Caller,
        components: Vec<String>,
        excluded: Vec<String>,
        classes: BTreeSet<DataClass>,
        window: Window,
    ) -> Self {
        Self { cluster: caller.0, components, excluded, classes, window }
    }

    pub(super) fn components(&self) -> &[String] {
        &self.components
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    fn allows(&self, class: DataClass) -> bool {
        self.classes.contains(&class)
    }
}

/// The second engine: looks at what redaction let through.
type Scan = fn(&[u8]) -> Result<(), Leak>;

/// What is collected with; one per snapshot.
pub(super) struct Collector {
    scope: Arc<Scope>,
    components: Vec<ManagedComponent>,
    redaction: Redaction,
    room: Room,
    reach: Reach,
    scan: Scan,
    began: Instant,
    /// Of all entries; seconds since 1970.
    mtime: u64,
    items: mpsc::Sender<Item>,
}

/// The archive has gone: there is nobody to collect for.
#[derive(Debug)]
pub(super) struct Closed;

impl Collector {
    /// `components` is the inventory as the gate saw it; `room` what may leave.
    pub(super) fn new(
        scope: Arc<Scope>,
        components: Vec<ManagedComponent>,
        redaction: Redaction,
        room: Room,
        started_at: Timestamp,
        items: mpsc::Sender<Item>,
    ) -> Self {
        let mtime = u64::try_from(started_at.as_second()).unwrap_or(0);
        Self {
            scope,
            components,
            redaction,
            room,
            reach: Reach::USUAL,
            scan: scan_output,
            began: Instant::now(),
            mtime,
            items,
        }
    }

    /// Collects everything; failures become gaps, not errors.
    pub(super) async fn run(self) {
        // The archive ends the snapshot when it goes; the collector has nothing to add to that.
        let _gone = self.collect().await;
    }

    async fn collect(self) -> Result<(), Closed> {
        for component in &self.scope.excluded {
            let detail = "LogSharingPolicy excludes this component".to_owned();
            self.gap(component, "ExcludedByPolicy", &detail).await?;
        }
        let found = pods::find(&self).await?;
        // Small, and of use even when not all logs fit.
        if self.scope.allows(DataClass::Status) {
            status::status(&self, &found).await?;
            resources::resources(&self, &found).await?;
        }
        if self.scope.allows(DataClass::Events) {
            status::events(&self, &found).await?;
        }
        let this = Arc::new(self);
        let streams = found.targets.into_iter().map(|target| {
            let this = Arc::clone(&this);
            async move { this.stream(target).await }
        });
        let mut streams = futures::stream::iter(streams).buffer_unordered(STREAMS_AT_ONCE);
        let mut unread: Vec<(String, Unread)> = vec![];
        while let Some(result) = streams.next().await {
            unread.extend(result?);
        }
        for why in [Unread::Late, Unread::Full] {
            let labels: Vec<_> = unread
                .iter()
                .filter(|(_, is)| *is == why)
                .map(|(label, _)| label.as_str())
                .collect();
            if !labels.is_empty() {
                let named = labels.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
                let detail = format!("{} logs were not read: {named}", labels.len());
                this.gap("logs", why.code(), &detail).await?;
            }
        }
        Ok(())
    }

    /// Reads one log, unless it is too late for it.
    async fn stream(
        self: Arc<Self>,
        target: found::Target,
    ) -> Result<Option<(String, Unread)>, Closed> {
        let label = target.label();
        if self.began.elapsed() >= OPEN_UNTIL {
            return Ok(Some((label, Unread::Late)));
        }
        if self.room.is_used_up() {
            return Ok(Some((label, Unread::Full)));
        }
        // A task of its own: a panic in it drops this stream and no other.
        let read = tokio::spawn(stream::read(Arc::clone(&self), target));
        match AbortOnDropHandle::new(read).await {
            Ok(result) => result?,
            Err(_panicked) => {
                let detail = "reading it failed inside the agent; it was left out";
                self.gap(&label, "Panicked", detail).await?;
            }
        }
        Ok(None)
    }

    async fn send(&self, item: Item) -> Result<(), Closed> {
        self.items.send(item).await.map_err(|_| Closed)
    }

    /// Scans an entry once more, packs and sends it; what can't be in the snapshot becomes a gap.
    async fn entry(&self, path: EntryPath, data: Vec<u8>) -> Result<(), Closed> {
        if data.is_empty() {
            return Ok(());
        }
        if (self.scan)(&data).is_err() {
            let detail = "the second scan found something that redaction had left";
            return self.gap(path.as_str(), "Quarantined", detail).await;
        }
        let packed = match Packed::new(path.clone(), &data, self.mtime) {
            Ok(packed) => packed,
            Err(error) => return self.gap(path.as_str(), "NotPacked", &describe(&error)).await,
        };
        if !self.room.take_all(packed.bytes.len()) {
            return self.gap(path.as_str(), Unread::Full.code(), "it does not fit").await;
        }
        self.send(Item::Entry(packed)).await
    }

    /// Declares a gap, after redaction.
    async fn gap(&self, subject: &str, reason: &'static str, detail: &str) -> Result<(), Closed> {
        let mut counts = Counts::default();
        let gap = Gap {
            subject: self.text(subject, &mut counts),
            reason,
            detail: self.text(detail, &mut counts),
        };
        self.send(Item::Read(0, counts)).await?;
        self.send(Item::Gap(gap)).await
    }

    /// A redacted text; what can't be redacted is left out.
    fn text(&self, text: &str, counts: &mut Counts) -> String {
        redact_text(&self.redaction, text, counts).unwrap_or_else(|_| "[left out]".into())
    }
}

/// Why a log was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// The time for reading was over.
    Late,
    /// Nothing more may be sent, or no more files are taken.
    Full,
}

impl Unread {
    fn code(self) -> &'static str {
        match self {
            Self::Late => "Deadline",
            Self::Full => "Budget",
        }
    }
}
