//! The log as it grows: which segment the next records go to, and which may be dropped for them.
//!
//! Pure: [`Log::plan`] says what is to be written, the edge writes it by compare-and-swap, and only
//! then [`Log::apply`] makes it true here.

use std::collections::VecDeque;

use jiff::Timestamp;
use thiserror::Error;

use super::{
    Event,
    record::{self, Checkpoint, Hash, MAX_RECORD, Record, RecordError},
};

/// Most bytes in a segment. Appending rewrites the newest one, so this is what a decision costs at
/// most; 32 of them hold about fifteen thousand decisions.
pub const MAX_SEGMENT: usize = 256 * 1024;
/// Segments that are kept.
pub const MAX_SEGMENTS: usize = 32;

/// A segment as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Counts from 1.
    pub number: u32,
    /// Records, one a line, each with a line end.
    pub records: String,
    /// Hash of its last record, hex.
    pub chain: String,
}

/// Why stored segments can't be continued.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// The first or last record of a segment can't be read.
    #[error("segment {segment}, line {line}")]
    Record {
        /// The segment.
        segment: u32,
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A segment holds nothing.
    #[error("segment {segment} holds no record")]
    Empty {
        /// The segment.
        segment: u32,
    },
    /// The newest segment was changed by somebody else.
    #[error("segment {segment}, line {line}: the chain is broken there")]
    Broken {
        /// The segment.
        segment: u32,
        /// Counts from 1.
        line: usize,
    },
    /// Records of another cluster.
    #[error("segment {segment} is of another cluster ({found})")]
    OtherCluster {
        /// The segment.
        segment: u32,
        /// The cluster it names.
        found: String,
    },
}

/// Why nothing can be appended.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// No room, and the oldest segment may not go.
    #[error(
        "the audit log is full: {MAX_SEGMENTS} segments, and the control plane has not acknowledged record {oldest_end}, the last of the oldest"
    )]
    Full {
        /// Last record of the oldest segment.
        oldest_end: u64,
    },
    /// A record is longer than a line may be.
    #[error("a record of {size} bytes; at most {MAX_RECORD} are written")]
    TooLong {
        /// Its size.
        size: usize,
    },
}

/// What is known of a segment that is not the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    number: u32,
    first: u64,
    last: u64,
    /// Hash of its last record.
    chain: Hash,
}

/// Where the hash of a record is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here it is.
    Known(Hash),
    /// In this older segment, which has to be read ([`find`]).
    In(u32),
    /// In a segment that was dropped.
    Dropped,
    /// The log has no such record yet.
    Beyond,
}

/// A log that can be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    cluster: String,
    /// Oldest first; the last is the newest, whose records are in `tail`.
    extents: VecDeque<Extent>,
    tail: String,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// To be deleted first, for room.
    pub drop: Option<u32>,
    /// The segment, whole.
    pub segment: Segment,
    /// Whether it does not exist yet.
    pub is_new: bool,
    /// How many of the events are in it; the rest needs another round.
    pub taken: usize,
    /// Where the log ends afterwards.
    pub end: Checkpoint,
    first: u64,
}

impl Log {
    /// A log without records.
    pub fn empty(cluster: &str) -> Self {
        Self { cluster: cluster.into(), extents: VecDeque::new(), tail: String::new() }
    }

    /// Reads the ends of stored segments, oldest first, and all of the newest. What is inside the
    /// others is for [`super::verify`] to judge: it can't be continued from.
    ///
    /// # Errors
    /// [`LoadError`]: a damaged log is not continued, since that would hide where it was damaged.
    pub fn load(
        cluster: &str,
        segments: impl IntoIterator<Item = Segment>,
    ) -> Result<Self, LoadError> {
        let mut log = Self::empty(cluster);
        for segment in segments {
            log.read(segment)?;
        }
        log.check_tail()?;
        Ok(log)
    }

    /// Reads one more stored segment, newer than those before it. [`Log::check_tail`] is to be
    /// called after the last.
    ///
    /// # Errors
    /// As [`Log::load`].
    pub fn read(&mut self, segment: Segment) -> Result<(), LoadError> {
        let number = segment.number;
        let mut lines = segment.records.lines();
        let first = lines.next().ok_or(LoadError::Empty { segment: number })?;
        let count = 1 + lines.clone().count();
        let last = lines.next_back().unwrap_or(first);
        let read = |line, text| {
            Record::parse(text).map_err(|source| LoadError::Record {
                segment: number,
                line,
                source,
            })
        };
        let (first, end) = (read(1, first)?, read(count, last)?);
        let chain = record::hash(last);
        if end.cluster != self.cluster {
            return Err(LoadError::OtherCluster { segment: number, found: end.cluster });
        }
        if segment.chain != hex::encode(chain) {
            return Err(LoadError::Broken { segment: number, line: count });
        }
        let (first, last) = (first.sequence, end.sequence);
        self.extents.push_back(Extent { number, first, last, chain });
        self.tail = segment.records;
        Ok(())
    }

    /// Checks every record of the newest segment.
    ///
    /// # Errors
    /// As [`Log::load`].
    pub fn check_tail(&self) -> Result<(), LoadError> {
        let Some(extent) = self.extents.back() else { return Ok(()) };
        let mut before: Option<(u64, Hash)> = None;
        for (index, line) in self.tail.lines().enumerate() {
            let at = |source| LoadError::Record { segment: extent.number, line: index + 1, source };
            let record = Record::parse(line).map_err(at)?;
            let previous = record.previous().map_err(at)?;
            let follows = before
                .is_none_or(|(sequence, hash)| record.sequence == sequence + 1 && previous == hash);
            if !follows {
                return Err(LoadError::Broken { segment: extent.number, line: index + 1 });
            }
            before = Some((record.sequence, record::hash(line)));
        }
        Ok(())
    }

    /// The newest record; none in an empty log.
    pub fn end(&self) -> Option<Checkpoint> {
        let extent = self.extents.back()?;
        Some(Checkpoint { sequence: extent.last, chain: extent.chain })
    }

    /// Hash of a record, or where to look for it. 0 is the beginning of every log.
    pub fn place(&self, sequence: u64) -> Place {
        if sequence == 0 {
            return Place::Known(record::genesis(&self.cluster));
        }
        let Some(newest) = self.extents.back() else { return Place::Beyond };
        if sequence > newest.last {
            return Place::Beyond;
        }
        if sequence >= newest.first {
            let found = find(&self.tail, sequence);
            return found.map_or(Place::Dropped, Place::Known);
        }
        match self.extents.iter().find(|e| (e.first..=e.last).contains(&sequence)) {
            Some(extent) if extent.last == sequence => Place::Known(extent.chain),
            Some(extent) => Place::In(extent.number),
            None => Place::Dropped,
        }
    }

    /// What to write for these events, as many as fit one segment. Up to `acknowledged`, the control
    /// plane has the chain.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is to be written then.
    pub fn plan(
        &self,
        events: &[(Timestamp, Event)],
        acknowledged: u64,
    ) -> Result<Append, AppendError> {
        let (mut sequence, mut chain) = match self.end() {
            Some(end) => (end.sequence, end.chain),
            None => (0, record::genesis(&self.cluster)),
        };
        let mut lines = Vec::new();
        for (at, event) in events {
            let line = Record::new(sequence + 1, &self.cluster, *at, &chain, event).line();
            if line.len() > MAX_RECORD {
                return Err(AppendError::TooLong { size: line.len() });
            }
            (sequence, chain) = (sequence + 1, record::hash(&line));
            lines.push((line, chain));
        }
        let fits = |used: usize| {
            let mut size = used;
            lines
                .iter()
                .take_while(|(line, _)| {
                    size += line.len() + 1;
                    size <= MAX_SEGMENT
                })
                .count()
        };
        let newest = self.extents.back();
        let into_newest = newest.map_or(0, |_| fits(self.tail.len()));
        // A batch goes on in the newest segment as far as it fits, and then in another.
        let (is_new, taken) = match into_newest {
            0 => (true, fits(0)),
            taken => (false, taken),
        };
        let drop = match self.extents.front() {
            Some(oldest) if is_new && self.extents.len() >= MAX_SEGMENTS => {
                if oldest.last > acknowledged {
                    return Err(AppendError::Full { oldest_end: oldest.last });
                }
                Some(oldest.number)
            }
            _ => None,
        };
        let mut records = if is_new { String::new() } else { self.tail.clone() };
        for (line, _) in &lines[..taken] {
            records.push_str(line);
            records.push('\n');
        }
        let before = self.end().map_or(0, |end| end.sequence);
        let end = match lines[..taken].last() {
            Some((_, chain)) => Checkpoint { sequence: before + taken as u64, chain: *chain },
            None => self.end().unwrap_or(Checkpoint { sequence: 0, chain }),
        };
        let number = match newest {
            Some(newest) if is_new => newest.number + 1,
            Some(newest) => newest.number,
            None => 1,
        };
        let segment = Segment { number, records, chain: hex::encode(end.chain) };
        Ok(Append { drop, segment, is_new, taken, end, first: before + 1 })
    }

    /// Makes true what was written.
    pub fn apply(&mut self, written: Append) {
        if written.drop.is_some() {
            self.extents.pop_front();
        }
        let Append { segment, is_new, end, first, .. } = written;
        match self.extents.back_mut().filter(|_| !is_new) {
            Some(newest) => (newest.last, newest.chain) = (end.sequence, end.chain),
            None => self.extents.push_back(Extent {
                number: segment.number,
                first,
                last: end.sequence,
                chain: end.chain,
            }),
        }
        self.tail = segment.records;
    }
}

/// Hash of a record of a segment.
pub fn find(records: &str, sequence: u64) -> Option<Hash> {
    let first = Record::parse(records.lines().next()?).ok()?.sequence;
    let line = records.lines().nth(usize::try_from(sequence.checked_sub(first)?).ok()?)?;
    (Record::parse(line).ok()?.sequence == sequence).then(|| record::hash(line))
}

#[cfg(test)]
#[path = "log/tests.rs"]
pub(in crate::audit) mod tests;
