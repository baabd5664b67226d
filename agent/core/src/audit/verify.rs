//! Verification of a log from outside: what is wrong, and where exactly.
//!
//! A record is intact when a record after it, the end of its segment or a checkpoint names its
//! hash. From there:
//! - a record that nothing names, with an intact one after it, was altered;
//! - a record whose only witness was altered or removed can't be proven, and is listed as that;
//! - numbers say what was removed, repeated or moved;
//! - checkpoints from outside say whether the end was cut off, or everything written anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use thiserror::Error;

use super::{
    log::Segment,
    record::{self, Checkpoint, Hash, Record, RecordError},
};
use crate::ordered;

/// Something that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// A record holds something else than when it was written.
    #[error("record {sequence} was altered (segment {segment}, line {line})")]
    Altered {
        /// The record: by its number if that can be believed, else by its place.
        sequence: u64,
        /// Where it is.
        segment: u32,
        /// Counts from 1.
        line: usize,
    },
    /// Records are gone.
    #[error("records {first} to {last} were removed")]
    Removed {
        /// First of them.
        first: u64,
        /// Last of them.
        last: u64,
    },
    /// A record is not where it was written.
    #[error("record {sequence} was moved (to segment {segment}, line {line})")]
    Moved {
        /// The record.
        sequence: u64,
        /// Where it is now.
        segment: u32,
        /// Counts from 1.
        line: usize,
    },
    /// A record is there more than once.
    #[error("record {sequence} is there again (segment {segment}, line {line})")]
    Repeated {
        /// The record.
        sequence: u64,
        /// Where it is again.
        segment: u32,
        /// Counts from 1.
        line: usize,
    },
    /// A line that is no record, and stands for none.
    #[error("segment {segment}, line {line} is no record: {why}")]
    NoRecord {
        /// Where it is.
        segment: u32,
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        why: RecordError,
    },
    /// A record of another cluster.
    #[error("record {sequence} is of cluster {cluster}")]
    OtherCluster {
        /// The record.
        sequence: u64,
        /// The cluster it names.
        cluster: String,
    },
    /// The first record does not begin the log of its cluster.
    #[error("record 1 does not begin the log of cluster {cluster}")]
    Beginning {
        /// The cluster.
        cluster: String,
    },
    /// A segment ends otherwise than it says.
    #[error(
        "segment {segment} does not end with the record that it says: its last one was altered, or records after it were removed"
    )]
    SegmentEnd {
        /// The segment.
        segment: u32,
    },
    /// The end is missing.
    #[error(
        "the end was cut off: the log ends with record {end}, and checkpoint {checkpoint} was beyond it"
    )]
    CutOff {
        /// Last record that is there; 0 when there is none.
        end: u64,
        /// Number in the checkpoint.
        checkpoint: u64,
    },
    /// Consistent in itself, and not the log that the checkpoint was taken of.
    #[error(
        "record {sequence} is not the one that the checkpoint was taken of: the log was written anew up to there, or earlier"
    )]
    Rewritten {
        /// Number in the checkpoint.
        sequence: u64,
    },
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records that are there.
    pub records: usize,
    /// Number of the first; 0 when there is none. Above 1 when older segments were dropped.
    pub first: u64,
    /// The last, with its hash; none when there is none.
    pub end: Option<Checkpoint>,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// Records that are not known to be wrong, and whose only witness is.
    pub unproven: Vec<u64>,
    /// Checkpoints that the log agrees with.
    pub confirmed: Vec<Checkpoint>,
    /// Checkpoints of records that were dropped long ago: nothing can be said about them.
    pub not_covered: Vec<Checkpoint>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// A line and what it says of itself.
struct Line {
    segment: u32,
    line: usize,
    hash: Hash,
    record: Result<Record, RecordError>,
}

impl Line {
    fn sequence(&self) -> Option<u64> {
        self.record.as_ref().ok().map(|record| record.sequence)
    }

    fn previous(&self) -> Option<Hash> {
        self.record.as_ref().ok().and_then(|record| record.previous().ok())
    }
}

/// Verifies segments, in any order, against checkpoints that were kept elsewhere. `cluster` is the
/// UID that the log has to belong to; without it, the one that its first record names.
pub fn verify(
    mut segments: Vec<Segment>,
    cluster: Option<&str>,
    checkpoints: &[Checkpoint],
) -> Verdict {
    ordered::sort_by(&mut segments, |a, b| a.number.cmp(&b.number));
    let lines: Vec<Line> = segments.iter().flat_map(lines_of).collect();
    let mut verdict = Verdict { records: lines.len(), ..Verdict::default() };
    let witnesses = witnesses(&lines, &segments, checkpoints);
    let intact: Vec<bool> = lines.iter().map(|line| witnesses.contains(&line.hash)).collect();
    let numbers = numbers(&lines, &intact);

    let mut found = Found::default();
    altered_or_unproven(&lines, &intact, &numbers, &mut found);
    order(&lines, &intact, &numbers, &mut found);
    belongs(&lines, &intact, cluster, &mut found);
    ends(&lines, &segments, &mut found);

    let numbered = lines.iter().zip(&numbers).rev();
    let present = ordered::map(numbered.filter_map(|(line, n)| Some(((*n)?, line))));
    verdict.first = present.keys().next().copied().unwrap_or(0);
    verdict.end = present
        .last_key_value()
        .map(|(sequence, line)| Checkpoint { sequence: *sequence, chain: line.hash });
    compare(&present, cluster, checkpoints, &mut verdict, &mut found);
    verdict.findings = found.sorted();
    found.unproven.sort_unstable();
    verdict.unproven = found.unproven;
    verdict
}

/// Findings with the number they are about, to be told in the order of the log.
#[derive(Default)]
struct Found {
    findings: Vec<(u64, Finding)>,
    unproven: Vec<u64>,
}

impl Found {
    fn add(&mut self, at: u64, finding: Finding) {
        if !self.findings.iter().any(|(_, known)| *known == finding) {
            self.findings.push((at, finding));
        }
    }

    fn sorted(&mut self) -> Vec<Finding> {
        ordered::sort_by(&mut self.findings, |a, b| a.0.cmp(&b.0));
        self.findings.drain(..).map(|(_, finding)| finding).collect()
    }
}

fn lines_of(segment: &Segment) -> impl Iterator<Item = Line> + '_ {
    segment.records.lines().enumerate().map(|(index, text)| Line {
        segment: segment.number,
        line: index + 1,
        hash: record::hash(text),
        record: Record::parse(text),
    })
}

/// Every hash that something names.
fn witnesses(lines: &[Line], segments: &[Segment], checkpoints: &[Checkpoint]) -> HashSet<Hash> {
    let named = lines.iter().filter_map(Line::previous);
    let ends = segments.iter().filter_map(|segment| record::parse_hash(&segment.chain));
    named.chain(ends).chain(checkpoints.iter().map(|checkpoint| checkpoint.chain)).collect()
}

/// The number of each line: what an intact record says; else what its place says, where lines
/// before and after leave exactly the room for it; else what it says. None when there is neither.
fn numbers(lines: &[Line], intact: &[bool]) -> Vec<Option<u64>> {
    let mut numbers: Vec<Option<u64>> = lines
        .iter()
        .zip(intact)
        .map(|(line, intact)| if *intact { line.sequence() } else { None })
        .collect();
    let mut start = 0;
    while start < lines.len() {
        if numbers[start].is_some() {
            start += 1;
            continue;
        }
        let end = (start..lines.len()).find(|i| numbers[*i].is_some()).unwrap_or(lines.len());
        let before = start.checked_sub(1).and_then(|i| numbers[i]);
        let after = numbers.get(end).copied().flatten();
        let count = (end - start) as u64;
        let from = match (before, after) {
            (Some(before), Some(after)) if before + count + 1 == after => Some(before + 1),
            // Nothing after it vouches for the end; its own word has to do below.
            (None, Some(after)) if after > count => Some(after - count),
            _ => None,
        };
        for (offset, index) in (start..end).enumerate() {
            numbers[index] = from.map(|from| from + offset as u64).or(lines[index].sequence());
        }
        start = end;
    }
    numbers
}

fn altered_or_unproven(
    lines: &[Line],
    intact: &[bool],
    numbers: &[Option<u64>],
    found: &mut Found,
) {
    let numbered = numbers.iter().enumerate().rev();
    let by_number = ordered::map(numbered.filter_map(|(i, n)| Some(((*n)?, i))));
    for (index, line) in lines.iter().enumerate() {
        let number = numbers[index];
        // A hash that fits says that it was written so; it may be a newer agent's.
        if let Err(why) = &line.record
            && (intact[index] || number.is_none())
        {
            let (segment, line) = (line.segment, line.line);
            let finding = Finding::NoRecord { segment, line, why: why.clone() };
            found.add(number.unwrap_or(u64::MAX), finding);
        }
        let Some(sequence) = number.filter(|_| !intact[index]) else { continue };
        // Its witness is the record after it. When that one is gone or altered itself, this one
        // may be as it was.
        let witness = by_number.get(&(sequence + 1));
        let has_honest_witness = witness.is_some_and(|i| intact[*i]);
        let is_last = witness.is_none() && by_number.keys().next_back() == Some(&sequence);
        let says_otherwise = line.record.is_err() || line.sequence() != Some(sequence);
        if has_honest_witness || says_otherwise {
            let (segment, line) = (line.segment, line.line);
            found.add(sequence, Finding::Altered { sequence, segment, line });
        } else if !is_last {
            found.unproven.push(sequence);
        }
    }
}

/// Removed, repeated and moved records.
fn order(lines: &[Line], intact: &[bool], numbers: &[Option<u64>], found: &mut Found) {
    let mut seen = BTreeSet::new();
    let mut sequence_of_lines = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        let Some(sequence) = *number else { continue };
        if seen.insert(sequence) {
            sequence_of_lines.push((sequence, index));
        } else {
            let (segment, line) = (lines[index].segment, lines[index].line);
            found.add(sequence, Finding::Repeated { sequence, segment, line });
        }
    }
    let in_order = longest_increasing(&sequence_of_lines);
    for (sequence, index) in sequence_of_lines {
        if !in_order.contains(&sequence) && intact[index] {
            let (segment, line) = (lines[index].segment, lines[index].line);
            found.add(sequence, Finding::Moved { sequence, segment, line });
        }
    }
    let mut before: Option<u64> = None;
    for sequence in seen {
        if let Some(before) = before.filter(|before| before + 1 < sequence) {
            found.add(before + 1, Finding::Removed { first: before + 1, last: sequence - 1 });
        }
        before = Some(sequence);
    }
}

/// The most records that are in order; the others were moved.
fn longest_increasing(sequences: &[(u64, usize)]) -> BTreeSet<u64> {
    // Patience sorting: `ends[k]` is the position of the smallest end of a run of length k + 1.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; sequences.len()];
    for (position, (sequence, _)) in sequences.iter().enumerate() {
        let k = ends.partition_point(|end| sequences[*end].0 < *sequence);
        before[position] = k.checked_sub(1).map(|k| ends[k]);
        match ends.get_mut(k) {
            Some(end) => *end = position,
            None => ends.push(position),
        }
    }
    let mut run = BTreeSet::new();
    let mut at = ends.last().copied();
    while let Some(position) = at {
        run.insert(sequences[position].0);
        at = before[position];
    }
    run
}

/// All of one cluster, beginning where its log begins.
fn belongs(lines: &[Line], intact: &[bool], cluster: Option<&str>, found: &mut Found) {
    let records = lines
        .iter()
        .zip(intact)
        .filter_map(|(line, intact)| line.record.as_ref().ok().filter(|_| *intact));
    let mut expected = cluster.map(str::to_owned);
    for record in records {
        let cluster = expected.get_or_insert_with(|| record.cluster.clone());
        if record.cluster != *cluster {
            let (sequence, cluster) = (record.sequence, record.cluster.clone());
            found.add(sequence, Finding::OtherCluster { sequence, cluster });
        }
        if record.sequence == 1 && record.previous() != Ok(record::genesis(cluster)) {
            found.add(1, Finding::Beginning { cluster: cluster.clone() });
        }
    }
}

fn ends(lines: &[Line], segments: &[Segment], found: &mut Found) {
    for segment in segments {
        let last = lines.iter().rev().find(|line| line.segment == segment.number);
        let hash = last.map(|line| hex::encode(line.hash)).unwrap_or_default();
        if hash != segment.chain {
            let at = last.and_then(Line::sequence).unwrap_or(u64::MAX);
            found.add(at, Finding::SegmentEnd { segment: segment.number });
        }
    }
}

fn compare(
    present: &BTreeMap<u64, &Line>,
    cluster: Option<&str>,
    checkpoints: &[Checkpoint],
    verdict: &mut Verdict,
    found: &mut Found,
) {
    let end = verdict.end.map_or(0, |end| end.sequence);
    let named = present.values().find_map(|line| line.record.as_ref().ok());
    let cluster = cluster.or(named.map(|record| record.cluster.as_str()));
    for checkpoint in checkpoints {
        let sequence = checkpoint.sequence;
        let own = match present.get(&sequence) {
            Some(line) => Some(line.hash),
            None if sequence == 0 => cluster.map(record::genesis),
            None => present.get(&(sequence + 1)).and_then(|line| line.previous()),
        };
        match own {
            Some(own) if own == checkpoint.chain => verdict.confirmed.push(*checkpoint),
            Some(_) => found.add(sequence, Finding::Rewritten { sequence }),
            None if sequence > end => {
                found.add(u64::MAX, Finding::CutOff { end, checkpoint: sequence });
            }
            None if sequence < verdict.first => verdict.not_covered.push(*checkpoint),
            // It is missing from the middle, which was found above.
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "verify/tests.rs"]
mod tests;
