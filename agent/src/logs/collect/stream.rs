//! Reads one container's log: API → records inside the window → redaction → second scan → packed.
//!
//! Nothing of a log leaves this module before the log has been read to its end: what the second scan
//! finds at the end of it withholds all of it, and of a log that is too long the newest part stays.

use std::{sync::Arc, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::LogParams};
use mendix_agent_core::{
    archive::{ArchiveError, EntryPath, Held, Packed, Part, Parts, Run},
    redact::{Counts, RedactError, Redactor},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Closed, Collector, Item, READ_UNTIL, Unread, found::Target};
use crate::{
    cluster::CALL_DEADLINE,
    errors::describe,
    logs::records::{self, LeftOut, Lost, Records, Source, Tail},
};

/// Longest silence of the API while a log is read.
const IDLE: Duration = Duration::from_secs(20);
/// Longest time the reading of one log may take.
const TOTAL: Duration = Duration::from_secs(300);
/// What is read of a log's oldest record: its time, and hardly anything else.
const BEGINNING: i64 = 40;
/// What is scanned again of one part together with the next: longer than what the second engine looks
/// for.
const SEAM: usize = 4 * 1024;

/// Why a stream is not, or not wholly, in the snapshot.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the log could not be opened")]
    Open(#[source] Box<kube::Error>),
    #[error("the log could not be opened within {} s", CALL_DEADLINE.as_secs())]
    OpenDeadline,
    #[error("reading the log failed midway; what is newer is missing")]
    Read(#[source] std::io::Error),
    #[error("the log was silent for {} s; what is newer is missing", IDLE.as_secs())]
    Idle,
    #[error("not read in time ({} s at most); what is newer is missing", TOTAL.as_secs())]
    TooSlow,
    #[error("too long however near to its end it is read; what is newer is missing")]
    TooLong,
    #[error("redaction refused it")]
    Redaction(#[source] RedactError),
    #[error("the second scan found something that redaction had left; all of it was withheld")]
    Quarantined,
    #[error("it can't be part of the archive")]
    Archive(#[source] ArchiveError),
}

impl Cut {
    fn code(&self) -> &'static str {
        match self {
            Self::Open(_) | Self::OpenDeadline => "NotOpened",
            Self::Read(_) => "ReadFailed",
            Self::Idle => "Stalled",
            Self::TooSlow => "TooSlow",
            Self::TooLong => "TooLong",
            Self::Redaction(_) => "RedactionRefused",
            Self::Quarantined => "Quarantined",
            Self::Archive(_) => "BadName",
        }
    }

    /// Whether what was read before it may leave.
    fn keeps_the_rest(&self) -> bool {
        match self {
            Self::Read(_) | Self::Idle | Self::TooSlow | Self::TooLong => true,
            Self::Open(_)
            | Self::OpenDeadline
            | Self::Redaction(_)
            | Self::Quarantined
            | Self::Archive(_) => false,
        }
    }
}

/// Reads one log; what is missing is declared.
pub(super) async fn read(collector: Arc<Collector>, target: Target) -> Result<(), Closed> {
    let label = target.label();
    let until = (Instant::now() + TOTAL).min(collector.began + READ_UNTIL);
    let (mut raw, mut tail) = (0, collector.reach.first());
    let (mut reader, mut cut) = loop {
        let mut reader = Reader::new(&collector, &target, tail);
        let ended = timeout_at(until, reader.run()).await.unwrap_or(Err(Cut::TooSlow));
        raw += reader.raw;
        let nearer = collector.reach.nearer(tail, reader.records.seen());
        if let (Err(Cut::TooLong), Some(nearer)) = (&ended, nearer) {
            tail = nearer;
            continue;
        }
        break (reader, ended.err());
    };
    if cut.as_ref().is_none_or(Cut::keeps_the_rest)
        && let Err(worse) = reader.end()
    {
        cut = Some(worse);
    }
    let (counts, first_at) = (reader.counts(), reader.records.first_at());
    collector.send(Item::Read(raw, counts)).await?;
    if let Some(cut) = &cut {
        collector.gap(&label, cut.code(), &describe(cut)).await?;
        if !cut.keeps_the_rest() {
            return Ok(());
        }
    }
    let Reader { held, records, .. } = reader;
    declare(&collector, &label, records.finish(), &held).await?;
    let (begins, window) = (beginning(&collector, &target).await, collector.scope.window);
    match records::lost_to_rotation(begins, first_at, target.started_at, window) {
        Some(Lost::Before(oldest)) => {
            let detail = format!("what was logged before {oldest} was rotated away on the node");
            collector.gap(&label, "Rotated", &detail).await?;
        }
        Some(Lost::PerhapsBefore(oldest)) => {
            let detail = format!(
                "what was logged before {oldest}, if anything, was rotated away on the node"
            );
            collector.gap(&label, "PerhapsRotated", &detail).await?;
        }
        None => {}
    }
    pass_on(&collector, &label, held).await
}

async fn declare(
    collector: &Collector,
    label: &str,
    left: LeftOut,
    held: &Held,
) -> Result<(), Closed> {
    if held.dropped() > 0 {
        let detail = format!("{} bytes of older lines did not fit", held.dropped());
        collector.gap(label, "OldestDropped", &detail).await?;
    }
    match left.sentence() {
        Some(sentence) => collector.gap(label, "Partial", &sentence).await,
        None => Ok(()),
    }
}

/// Gives the archive the newest entries that fit.
async fn pass_on(collector: &Collector, label: &str, mut held: Held) -> Result<(), Closed> {
    let before = held.dropped();
    collector.room.take(|bytes, files| {
        held.shrink(bytes, files);
        (held.bytes(), held.files(), held.dropped() == before)
    });
    if held.dropped() > before {
        let detail = format!("{} bytes of older lines exceed the budget", held.dropped() - before);
        collector.gap(label, Unread::Full.code(), &detail).await?;
    }
    for entry in held.into_entries() {
        collector.send(Item::Entry(entry)).await?;
    }
    Ok(())
}

/// The time of the oldest record that the node still has of this log; none when it does not say.
async fn beginning(collector: &Collector, target: &Target) -> Option<Timestamp> {
    let params = LogParams { limit_bytes: Some(BEGINNING), ..params(target) };
    let read = async {
        let mut input = Box::pin(open(collector, target, &params).await.ok()?);
        let mut head = Vec::new();
        (&mut input).take(BEGINNING.unsigned_abs()).read_to_end(&mut head).await.ok()?;
        records::stamp(&head).map(|(at, _)| at)
    };
    timeout(IDLE, read).await.ok()?
}

fn params(target: &Target) -> LogParams {
    LogParams {
        container: Some(target.container.clone()),
        previous: target.run == Run::Previous,
        timestamps: true,
        ..LogParams::default()
    }
}

async fn open(
    collector: &Collector,
    target: &Target,
    params: &LogParams,
) -> Result<impl AsyncBufRead + use<>, Cut> {
    let client = Client::clone(&collector.scope.cluster.apart);
    let pods: Api<Pod> = Api::namespaced(client, &target.namespace);
    timeout(CALL_DEADLINE, pods.log_stream(&target.pod, params))
        .await
        .map_err(|_| Cut::OpenDeadline)?
        .map_err(|error| Cut::Open(Box::new(error)))
}

struct Reader<'a> {
    collector: &'a Collector,
    target: &'a Target,
    tail: Tail,
    records: Records,
    redactor: Redactor,
    parts: Parts,
    /// End of the part before.
    seam: Vec<u8>,
    held: Held,
    names: Counts,
    raw: u64,
}

impl<'a> Reader<'a> {
    fn new(collector: &'a Collector, target: &'a Target, tail: Tail) -> Self {
        let source = Source { started_at: target.started_at, tail };
        Self {
            collector,
            target,
            tail,
            records: Records::new(collector.scope.window, source),
            redactor: Redactor::new(&collector.redaction),
            parts: Parts::default(),
            seam: Vec::new(),
            held: Held::default(),
            names: Counts::default(),
            raw: 0,
        }
    }

    async fn run(&mut self) -> Result<(), Cut> {
        let params = LogParams {
            since_time: Some(self.collector.scope.window.from),
            tail_lines: i64::try_from(self.tail.records()).ok(),
            ..params(self.target)
        };
        let mut input = Box::pin(open(self.collector, self.target, &params).await?);
        let mut lines = Vec::new();
        loop {
            let read = timeout(IDLE, input.fill_buf()).await.map_err(|_| Cut::Idle)?;
            let bytes = read.map_err(Cut::Read)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let length = bytes.len();
            self.records.push(bytes, &mut lines);
            input.as_mut().consume(length);
            self.raw += length as u64;
            self.take(&mut lines)?;
            if self.raw > self.collector.reach.bytes {
                return Err(Cut::TooLong);
            }
        }
    }

    /// Redacts whole lines and packs what is full.
    fn take(&mut self, lines: &mut Vec<u8>) -> Result<(), Cut> {
        self.redactor.push(lines, self.parts.buffer()).map_err(Cut::Redaction)?;
        lines.clear();
        while let Some(part) = self.parts.ready() {
            self.hold(part)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Cut> {
        self.redactor.finish(self.parts.buffer()).map_err(Cut::Redaction)?;
        while let Some(part) = self.parts.ready() {
            self.hold(part)?;
        }
        match std::mem::take(&mut self.parts).last() {
            Some(part) => self.hold(part),
            None => Ok(()),
        }
    }

    fn hold(&mut self, part: Part) -> Result<(), Cut> {
        // What begins in one part and ends in the next is seen as well.
        self.seam.extend_from_slice(&part.data[..part.data.len().min(SEAM)]);
        (self.collector.scan)(&self.seam).map_err(|_| Cut::Quarantined)?;
        (self.collector.scan)(&part.data).map_err(|_| Cut::Quarantined)?;
        self.seam.clear();
        self.seam.extend_from_slice(&part.data[part.data.len().saturating_sub(SEAM)..]);
        let target = self.target;
        let mut name = |name: &str| self.collector.text(name, &mut self.names);
        let (namespace, pod, container) =
            (name(&target.namespace), name(&target.pod), name(&target.container));
        let path = EntryPath::log(&namespace, &pod, &container, target.run, part.number)
            .map_err(Cut::Archive)?;
        let packed = Packed::new(path, &part.data, self.collector.mtime).map_err(Cut::Archive)?;
        self.held.push(packed);
        Ok(())
    }

    fn counts(&self) -> Counts {
        let mut counts = self.names.clone();
        counts.add(self.redactor.counts());
        counts
    }
}
