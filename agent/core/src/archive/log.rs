//! One log on its way into the archive: cut into entries ([`Parts`]), which wait for its end ([`Held`]).

use std::collections::VecDeque;

use super::{MAX_ENTRY, Packed};

/// Most compressed bytes of one log that wait for its end; beyond, the oldest entries go. Ordinary
/// logs shrink to a tenth or less, so this is about 60 MiB of text, and more than a node keeps of
/// one container (50 MB on AKS). Four logs are read at once.
pub const MAX_HELD: usize = 6 * 1024 * 1024;

/// The newest entries of one log, at most [`MAX_HELD`] bytes of them.
#[derive(Debug, Default)]
pub struct Held {
    entries: VecDeque<Packed>,
    bytes: usize,
    dropped: u64,
}

impl Held {
    /// Adds the next entry; the oldest ones go when there is no room.
    pub fn push(&mut self, entry: Packed) {
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
        self.shrink(MAX_HELD, usize::MAX);
    }

    /// Keeps the newest entries that fit into `bytes` and `files`.
    pub fn shrink(&mut self, bytes: usize, files: usize) {
        while self.bytes > bytes || self.entries.len() > files {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
            self.dropped += oldest.size as u64;
        }
    }

    /// Compressed bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries are held.
    pub fn files(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of text that were dropped, all of them older than what is held.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The entries, oldest first.
    pub fn into_entries(self) -> impl Iterator<Item = Packed> {
        self.entries.into_iter()
    }
}

/// Cuts a redacted log into entries of at most [`MAX_ENTRY`], between lines where there is one.
#[derive(Debug, Default)]
pub struct Parts {
    buffer: Vec<u8>,
    emitted: u32,
}

/// One entry's worth of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number from 1; none if the log has only this one.
    pub number: Option<u32>,
    /// Its content, never empty.
    pub data: Vec<u8>,
}

impl Parts {
    /// Where redacted bytes are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The next part, once more than one entry is buffered.
    pub fn ready(&mut self) -> Option<Part> {
        if self.buffer.len() <= MAX_ENTRY {
            return None;
        }
        let cut = memchr::memrchr(b'\n', &self.buffer[..MAX_ENTRY]).map_or(MAX_ENTRY, |at| at + 1);
        let rest = self.buffer.split_off(cut);
        let data = std::mem::replace(&mut self.buffer, rest);
        self.emitted += 1;
        Some(Part { number: Some(self.emitted), data })
    }

    /// The last part; none if there is nothing left. Call [`Parts::ready`] until it is empty first.
    pub fn last(self) -> Option<Part> {
        if self.buffer.is_empty() {
            return None;
        }
        let number = (self.emitted > 0).then_some(self.emitted + 1);
        Some(Part { number, data: self.buffer })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::{EntryPath, Run};

    fn log(part: u32) -> EntryPath {
        EntryPath::log("ns", "pod", "c", Run::Current, Some(part)).unwrap()
    }

    #[test]
    fn the_newest_entries_are_the_ones_that_are_held() {
        // Numbers that hardly compress: a full entry takes about half of its length.
        let mut state = 1u64;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"0123456789abcdef"[(state >> 60) as usize]
        };
        let data: Vec<u8> = (0..MAX_ENTRY).map(|_| noise()).collect();
        let mut held = Held::default();
        let count = 30;
        for n in 1..=count {
            held.push(Packed::new(log(n), &data, 0).unwrap());
            assert!(held.bytes() <= MAX_HELD);
        }
        let kept = held.files();
        assert!((5..20).contains(&kept), "{kept}");
        assert_eq!(held.dropped(), (count as u64 - kept as u64) * MAX_ENTRY as u64);
        held.shrink(usize::MAX, 2);
        let last: Vec<_> = held.into_entries().map(|entry| entry.path).collect();
        assert_eq!(last, [log(count - 1), log(count)]);
    }

    #[test]
    fn a_short_log_is_one_entry_and_an_empty_one_is_none() {
        let mut parts = Parts::default();
        parts.buffer().extend_from_slice(b"line\n");
        assert_eq!(parts.ready(), None);
        assert_eq!(parts.last(), Some(Part { number: None, data: b"line\n".to_vec() }));
        assert_eq!(Parts::default().last(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn parts_join_to_the_log_and_break_between_lines(
            lines in proptest::collection::vec(1usize..300_000, 1..12),
        ) {
            let mut parts = Parts::default();
            let (mut all, mut cut) = (vec![], vec![]);
            for len in lines {
                let mut line = vec![b'x'; len];
                line.push(b'\n');
                all.extend_from_slice(&line);
                parts.buffer().extend_from_slice(&line);
                while let Some(part) = parts.ready() {
                    cut.push(part);
                }
            }
            cut.extend(parts.last());
            for (n, part) in cut.iter().enumerate() {
                prop_assert!(part.data.len() <= MAX_ENTRY && part.data.ends_with(b"\n"));
                let number = u32::try_from(n + 1).unwrap();
                prop_assert_eq!(part.number, (cut.len() > 1).then_some(number));
            }
            prop_assert_eq!(cut.into_iter().flat_map(|part| part.data).collect::<Vec<_>>(), all);
        }
    }
}
