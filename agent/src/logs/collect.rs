//! Collects what a consent allows: logs of the components' pods, events, status.
//!
//! First part of the pipeline. Everything here takes the [`ActiveConsent`] that only the gate makes:
//! without one there is no way to make a call to `pods/log`. Nothing is buffered beyond one part of
//! each stream that is being read; the channel to the archive pushes back all the way to the API.

mod pods;
mod status;
mod stream;

use std::sync::Arc;

use futures::StreamExt;
use mendix_agent_core::{
    archive::EntryPath,
    consent::{gate::ActiveConsent, grant::DataClass},
    redact::{Counts, Redaction, redact_text},
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{cluster::Cluster, crd::managed_component::ManagedComponent};

/// Streams that are read at once.
const STREAMS_AT_ONCE: usize = 4;
/// Parts that may wait for the archive: one per stream would be four times the memory.
pub(super) const ITEM_BACKLOG: usize = 1;

/// Something for the archive.
#[derive(Debug)]
pub(super) enum Item {
    /// A redacted entry, or a part of one.
    Entry(EntryPath, Vec<u8>),
    /// Something that is missing.
    Gap(Gap),
    /// A stream has been read: bytes before redaction, and what was replaced.
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

/// What is collected with; one per snapshot.
pub(super) struct Collector {
    cluster: Cluster,
    consent: Arc<ActiveConsent>,
    components: Vec<ManagedComponent>,
    redaction: Redaction,
    items: mpsc::Sender<Item>,
}

/// The archive has gone: there is nobody to collect for.
#[derive(Debug)]
pub(super) struct Closed;

impl Collector {
    /// `components` is the inventory as the gate saw it.
    pub(super) fn new(
        cluster: Cluster,
        consent: Arc<ActiveConsent>,
        components: Vec<ManagedComponent>,
        redaction: Redaction,
        items: mpsc::Sender<Item>,
    ) -> Self {
        Self { cluster, consent, components, redaction, items }
    }

    /// Collects everything; failures become gaps, not errors.
    pub(super) async fn run(self) {
        // The archive ends the snapshot when it goes; the collector has nothing to add to that.
        let _gone = self.collect().await;
    }

    async fn collect(self) -> Result<(), Closed> {
        for component in self.consent.excluded() {
            let detail = "LogSharingPolicy excludes this component".to_owned();
            self.gap(component, "ExcludedByPolicy", &detail).await?;
        }
        if self.consent.allows(DataClass::RuntimeLogs) {
            let detail = "this version of the agent does not collect logs of Mendix apps";
            self.gap("runtime-logs", "NotCollected", detail).await?;
        }
        let found = pods::find(&self).await?;
        let this = Arc::new(self);
        if this.consent.allows(DataClass::ComponentLogs) {
            let streams = found.targets.iter().cloned().map(|target| {
                let this = Arc::clone(&this);
                async move {
                    let label = target.label();
                    // A task of its own: a panic in it drops this stream and no other.
                    let read = tokio::spawn(stream::read(Arc::clone(&this), target));
                    match AbortOnDropHandle::new(read).await {
                        Ok(result) => result,
                        Err(_panicked) => {
                            let detail = "reading it failed inside the agent; it was left out";
                            this.gap(&label, "Panicked", detail).await
                        }
                    }
                }
            });
            let mut streams = futures::stream::iter(streams).buffer_unordered(STREAMS_AT_ONCE);
            while let Some(result) = streams.next().await {
                result?;
            }
        }
        if this.consent.allows(DataClass::Events) {
            status::events(&this, &found).await?;
        }
        if this.consent.allows(DataClass::Status) {
            status::status(&this, &found).await?;
        }
        Ok(())
    }

    async fn send(&self, item: Item) -> Result<(), Closed> {
        self.items.send(item).await.map_err(|_| Closed)
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
