//! Reads one container's log: API → records inside the window → redaction → second scan → parts.

use std::{sync::Arc, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use mendix_agent_core::{
    archive::{EntryPath, Part, Parts, Run},
    redact::{Counts, RedactError, Redactor, scan_output},
};
use tokio::time::timeout;

use super::{Closed, Collector, Item, pods::Target};
use crate::{
    cluster::CALL_DEADLINE,
    errors::describe,
    logs::records::{LeftOut, Records, Source},
};

/// Lines asked of each stream, counted from its end. More than the kubelet keeps by default; the
/// bound that keeps the newest, where `limitBytes` would keep the oldest.
const TAIL: u32 = 400_000;
/// Bytes of one stream before redaction; what comes after is declared as missing.
const MAX_RAW: u64 = 64 * 1024 * 1024;
/// Longest silence of the API while a log is read.
const IDLE: Duration = Duration::from_secs(20);
/// Longest time one stream may take, waiting for the archive included.
const TOTAL: Duration = Duration::from_secs(300);

/// Why a stream is not, or not wholly, in the snapshot.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the log could not be opened")]
    Open(#[source] Box<kube::Error>),
    #[error("the log could not be opened within {} s", CALL_DEADLINE.as_secs())]
    OpenDeadline,
    #[error("reading the log failed midway")]
    Read(#[source] std::io::Error),
    #[error("the log was silent for {} s", IDLE.as_secs())]
    Idle,
    #[error("more than {} MiB; what is newer is missing", MAX_RAW / (1024 * 1024))]
    TooLong,
    #[error("redaction refused it")]
    Redaction(#[source] RedactError),
    #[error("the second scan found something that redaction had left; the rest was withheld")]
    Quarantined,
    #[error("its name can't be part of a path")]
    Name(#[source] mendix_agent_core::archive::ArchiveError),
}

impl Cut {
    fn code(&self) -> &'static str {
        match self {
            Self::Open(_) | Self::OpenDeadline => "NotOpened",
            Self::Read(_) => "ReadFailed",
            Self::Idle => "Stalled",
            Self::TooLong => "TooLong",
            Self::Redaction(_) => "RedactionRefused",
            Self::Quarantined => "Quarantined",
            Self::Name(_) => "BadName",
        }
    }
}

/// Either the stream or the whole snapshot ends.
enum End {
    Cut(Cut),
    Closed,
}

impl From<Cut> for End {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

impl From<Closed> for End {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// Reads one stream; what is missing is declared.
pub(super) async fn read(collector: Arc<Collector>, target: Target) -> Result<(), Closed> {
    let label = target.label();
    let mut reader = Reader::new(&collector, &target);
    let ended = match timeout(TOTAL, reader.run()).await {
        Ok(Ok(left_out)) => {
            declare(&collector, &label, left_out).await?;
            None
        }
        Ok(Err(End::Closed)) => return Err(Closed),
        Ok(Err(End::Cut(cut))) => Some((cut.code(), describe(&cut))),
        Err(_) => Some(("TooSlow", format!("not read within {} s", TOTAL.as_secs()))),
    };
    let (raw, mut counts) = (reader.raw, reader.names);
    counts.add(reader.redactor.counts());
    collector.send(Item::Read(raw, counts)).await?;
    match ended {
        Some((reason, detail)) => collector.gap(&label, reason, &detail).await,
        None => Ok(()),
    }
}

async fn declare(collector: &Collector, label: &str, left: LeftOut) -> Result<(), Closed> {
    let mut notes = vec![];
    if left.first {
        notes.push("the first line may have been cut and was dropped".to_owned());
    }
    if left.last {
        notes.push("the last line had no end and was dropped".to_owned());
    }
    if left.unstamped > 0 {
        notes.push(format!("{} lines without a time were dropped", left.unstamped));
    }
    if left.too_long > 0 {
        notes.push(format!("{} lines over 256 KiB were replaced", left.too_long));
    }
    if left.tail_reached {
        notes.push(format!("only the newest {TAIL} lines were read"));
    }
    if notes.is_empty() {
        return Ok(());
    }
    collector.gap(label, "Partial", &notes.join("; ")).await
}

struct Reader<'a> {
    collector: &'a Collector,
    target: &'a Target,
    redactor: Redactor,
    parts: Parts,
    names: Counts,
    raw: u64,
}

impl<'a> Reader<'a> {
    fn new(collector: &'a Collector, target: &'a Target) -> Self {
        Self {
            collector,
            target,
            redactor: Redactor::new(&collector.redaction),
            parts: Parts::default(),
            names: Counts::default(),
            raw: 0,
        }
    }

    async fn open(&self) -> Result<impl AsyncBufRead + use<>, Cut> {
        let target = self.target;
        let pods: Api<Pod> =
            Api::namespaced(self.collector.cluster.client.clone(), &target.namespace);
        let params = LogParams {
            container: Some(target.container.clone()),
            previous: target.run == Run::Previous,
            since_time: Some(self.collector.consent.window().from),
            tail_lines: Some(TAIL.into()),
            timestamps: true,
            ..LogParams::default()
        };
        timeout(CALL_DEADLINE, pods.log_stream(&target.pod, &params))
            .await
            .map_err(|_| Cut::OpenDeadline)?
            .map_err(|error| Cut::Open(Box::new(error)))
    }

    async fn run(&mut self) -> Result<LeftOut, End> {
        let mut input = Box::pin(self.open().await?);
        let source = Source { started_at: self.target.started_at, tail: TAIL.into() };
        let mut records = Records::new(self.collector.consent.window(), source);
        let mut lines = Vec::new();
        loop {
            let read = timeout(IDLE, input.fill_buf()).await.map_err(|_| Cut::Idle)?;
            let bytes = read.map_err(Cut::Read)?;
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len();
            records.push(bytes, &mut lines);
            input.as_mut().consume(length);
            self.raw += length as u64;
            if self.raw > MAX_RAW {
                // What was read so far is kept, and said to be cut.
                self.take(&mut lines).await?;
                self.end().await?;
                return Err(Cut::TooLong.into());
            }
            self.take(&mut lines).await?;
        }
        let left_out = records.finish();
        self.end().await?;
        Ok(left_out)
    }

    /// Redacts whole lines and passes on what is full.
    async fn take(&mut self, lines: &mut Vec<u8>) -> Result<(), End> {
        self.redactor.push(lines, self.parts.buffer()).map_err(Cut::Redaction)?;
        lines.clear();
        while let Some(part) = self.parts.ready() {
            self.pass_on(part).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), End> {
        self.redactor.finish(self.parts.buffer()).map_err(Cut::Redaction)?;
        while let Some(part) = self.parts.ready() {
            self.pass_on(part).await?;
        }
        match std::mem::take(&mut self.parts).last() {
            Some(part) => self.pass_on(part).await,
            None => Ok(()),
        }
    }

    async fn pass_on(&mut self, part: Part) -> Result<(), End> {
        if scan_output(&part.data).is_err() {
            return Err(Cut::Quarantined.into());
        }
        let target = self.target;
        let mut name = |name: &str| self.collector.text(name, &mut self.names);
        let (namespace, pod, container) =
            (name(&target.namespace), name(&target.pod), name(&target.container));
        let path = EntryPath::log(&namespace, &pod, &container, target.run, part.number)
            .map_err(Cut::Name)?;
        Ok(self.collector.send(Item::Entry(path, part.data)).await?)
    }
}
