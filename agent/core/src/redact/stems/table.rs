//! Finds stems and numbers in one pass that takes sixteen bytes a step.
//!
//! Every stem gives, for even and for odd positions, one window of four bytes that must show up at
//! an even offset when the stem is there. The windows, folded to lower case and hashed, are bits of
//! a table that fits the first-level cache; a set bit is looked up and compared. Against an
//! Aho-Corasick automaton, whose every step waits for the one before, this is many times faster on
//! log text, and finds the same (tested against it).

use std::sync::LazyLock;

use super::Reader;
use super::list::{KEY_STEMS, Rule};

/// Up to where the numbers of a text were read.
struct Next {
    digits: usize,
    address: usize,
}

/// Bytes of a step, and with those after them that its windows reach into.
const STEP: usize = 16;
const BLOCK: usize = STEP + 3;

/// A stem as the table knows it.
struct Entry {
    folded: Vec<u8>,
    rule: Rule,
}

/// A stem whose window was seen: it begins `back` bytes before (or, negative, after) the window.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Candidate {
    entry: u16,
    back: i16,
}

/// The table.
pub(in super::super) struct Stems {
    /// Which windows may belong to a stem: two bits of one word each (a blocked Bloom filter).
    bits: Box<[u64; WORDS]>,
    /// Per slot, an index into `lists`; 0 is the empty list.
    slots: Vec<u16>,
    lists: Vec<Vec<Candidate>>,
    entries: Vec<Entry>,
}

const SLOT_BITS: u32 = 17;
const SLOTS: usize = 1 << SLOT_BITS;
/// Words of the filter: 32 KiB.
const WORDS: usize = 1 << WORD_BITS;
const WORD_BITS: u32 = 12;
const FOLD: u32 = 0x2020_2020;

/// The table of this policy.
pub(in super::super) static STEMS: LazyLock<Stems> = LazyLock::new(|| {
    let vendors = super::super::prefixed::VENDORS.iter().enumerate();
    Stems::new(KEY_STEMS.iter().copied().chain(
        // Fewer than 256, checked by a test.
        vendors.map(|(index, vendor)| (vendor.prefix, Rule::Vendor(index as u8))),
    ))
});

const fn hash(window: u32) -> u32 {
    (window | FOLD).wrapping_mul(0x9E37_79B1)
}

const fn slot(hash: u32) -> usize {
    (hash >> (32 - SLOT_BITS)) as usize
}

const fn word(hash: u32) -> usize {
    (hash >> (32 - WORD_BITS)) as usize
}

/// The two bits of a window, as distances from the lowest.
const fn bits(hash: u32) -> (u32, u32) {
    ((hash >> 15) % 64, (hash >> 9) % 64)
}

/// Rough rank of how often a byte occurs in logs: windows of rare letters are preferred.
fn weight(byte: u8) -> u32 {
    match byte {
        b'e' | b'a' | b't' | b'i' | b'n' | b'o' | b's' | b'r' => 8,
        b'l' | b'd' | b'c' | b'u' | b'm' | b'p' | b'.' | b'-' | b'_' | b':' => 5,
        b'g' | b'h' | b'f' | b'b' | b'y' | b'=' => 3,
        b'0'..=b'9' => 6,
        _ => 1,
    }
}

impl Stems {
    fn new<'s>(stems: impl Iterator<Item = (&'s str, Rule)>) -> Self {
        let mut table = Self {
            bits: Box::new([0; WORDS]),
            slots: vec![0; SLOTS],
            lists: vec![Vec::new()],
            entries: Vec::new(),
        };
        for (stem, rule) in stems {
            let folded: Vec<u8> = stem.bytes().map(|b| b | 0x20).collect();
            // Fewer than 65536, as the tables are written above.
            let entry = table.entries.len() as u16;
            for parity in [0, 1] {
                let back = best_window(stem.as_bytes(), parity);
                table.enlist(&folded, Candidate { entry, back });
            }
            table.entries.push(Entry { folded, rule });
        }
        table
    }

    /// Registers one window; bytes of it outside of the stem may be anything.
    fn enlist(&mut self, folded: &[u8], candidate: Candidate) {
        let mut windows = vec![0_u32];
        for i in 0..4 {
            let at = i32::from(candidate.back) + i;
            let byte = usize::try_from(at).ok().and_then(|at| folded.get(at)).copied();
            let choices: Vec<u8> = match byte {
                Some(byte) => vec![byte],
                None => (0..=255).filter(|b| b & 0x20 != 0).collect(),
            };
            windows = windows
                .iter()
                .flat_map(|w| choices.iter().map(move |&c| w | u32::from(c) << (8 * i)))
                .collect();
        }
        for window in windows {
            let hash = hash(window);
            let (slot, (one, two)) = (slot(hash), bits(hash));
            self.bits[word(hash)] |= 1 << one | 1 << two;
            let mut list = self.lists[usize::from(self.slots[slot])].clone();
            if list.contains(&candidate) {
                continue;
            }
            list.push(candidate);
            let index = self.lists.iter().position(|l| *l == list).unwrap_or_else(|| {
                self.lists.push(list);
                self.lists.len() - 1
            });
            // At most one list a slot, and far fewer than 65536 in practice (tested).
            self.slots[slot] = index as u16;
        }
    }

    /// Reads `text` from `from` on and calls `reader` at every stem and, if it wants to know, at
    /// numbers: at windows of four digits (every run of five or more has one), at dots between digits
    /// and at colons between what may be digits of any base.
    ///
    /// Sixteen bytes a step: nearly all steps have nothing in them, and find that out without a branch.
    pub(in super::super) fn scan<R: Reader>(&self, text: &[u8], from: usize, reader: &mut R) {
        let mut at = from;
        let mut next = Next { digits: from, address: from };
        let tail = text.get(from..).unwrap_or_default();
        for block in tail.array_windows::<BLOCK>().step_by(STEP) {
            self.step(text, from, at, block, &mut next, reader);
            at += STEP;
        }
        // What is left, filled up with blanks.
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let mut block = [b' '; BLOCK];
            for (byte, &b) in block.iter_mut().zip(rest) {
                *byte = b;
            }
            self.step(text, from, at, &block, &mut next, reader);
            at += STEP;
        }
    }

    /// In the lowest bit, whether a window of this hash may belong to a stem.
    #[inline(always)]
    fn maybe(&self, hash: u32) -> u64 {
        let word = self.bits[word(hash)];
        let (one, two) = bits(hash);
        word >> one & word >> two
    }

    #[inline(always)]
    fn step<R: Reader>(
        &self,
        text: &[u8],
        from: usize,
        at: usize,
        block: &[u8; BLOCK],
        next: &mut Next,
        reader: &mut R,
    ) {
        let mut stem = 0;
        for i in 0..STEP / 2 {
            stem |= self.maybe(hash(window(block, 2 * i)));
        }
        let numbers = if R::NUMBERS { numbers(block) } else { [0; STEP] };
        let numbers = u128::from_le_bytes(numbers);
        if stem & 1 == 0 && numbers == 0 {
            return;
        }
        if stem & 1 == 1 {
            for i in 0..STEP / 2 {
                let hash = hash(window(block, 2 * i));
                if self.maybe(hash) & 1 == 1 {
                    self.verify(text, from, at + 2 * i, slot(hash), reader);
                }
            }
        }
        if numbers != 0 {
            at_numbers(numbers, at, next, reader);
        }
    }

    #[inline(never)]
    fn verify<R: Reader>(&self, text: &[u8], from: usize, at: usize, slot: usize, reader: &mut R) {
        let list = self.slots.get(slot).and_then(|&i| self.lists.get(usize::from(i)));
        for candidate in list.into_iter().flatten() {
            let Some(entry) = self.entries.get(usize::from(candidate.entry)) else { continue };
            let Some(start) = at.checked_add_signed(-isize::from(candidate.back)) else { continue };
            let end = start + entry.folded.len();
            let Some(here) = text.get(start..end) else { continue };
            if start >= from && here.iter().zip(&entry.folded).all(|(&a, &b)| a | 0x20 == b) {
                reader.stem(entry.rule, start, end);
            }
        }
    }
}

/// The window of a block at `at`.
fn window(block: &[u8; BLOCK], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

const DIGITS: u8 = 1;
const ADDRESS: u8 = 2;

/// For each place of a block: four digits begin here ([`DIGITS`], at odd places only those
/// that no digit stands before), and an address
/// may have its first dot or colon one further ([`ADDRESS`]). Written so that it compiles to vector
/// instructions; what counts as a digit here are those of the digits' row of ASCII.
#[inline(always)]
fn numbers(block: &[u8; BLOCK]) -> [u8; STEP] {
    let mut marks = [0; STEP];
    for (i, mark) in marks.iter_mut().enumerate() {
        let [a, b, c, d] = [block[i], block[i + 1], block[i + 2], block[i + 3]];
        let row = |byte: u8| byte & 0xf0 == 0x30;
        let hex = |byte: u8| row(byte) | (byte & 0xd0 == 0x40);
        let begins = (i % 2 == 0) | !row(block[i.saturating_sub(1)]);
        let digits = row(a) & row(b) & row(c) & row(d) & begins;
        let dot = (b == b'.') & row(a) & row(c);
        let colon = (b == b':') & hex(a) & hex(c);
        *mark = (u8::from(digits) * DIGITS) | (u8::from(dot | colon) * ADDRESS);
    }
    marks
}

/// Calls `reader` at the marks of one block.
#[inline(never)]
fn at_numbers<R: Reader>(mut marks: u128, at: usize, next: &mut Next, reader: &mut R) {
    while marks != 0 {
        let byte = marks.trailing_zeros() as usize / 8;
        let mark = (marks >> (8 * byte)) as u8;
        marks &= !(0xff << (8 * byte));
        let at = at + byte;
        if mark & DIGITS != 0 && at >= next.digits {
            next.digits = reader.digits(at).max(at + 1);
        }
        if mark & ADDRESS != 0 && at + 1 >= next.address {
            next.address = reader.address(at + 1);
        }
    }
}

/// Offset in the stem of the window to look for when the stem begins at an even (0) or odd (1)
/// position: inside when it fits, over an edge for short stems.
fn best_window(stem: &[u8], parity: i16) -> i16 {
    // Stems are a few dozen bytes long.
    let len = stem.len() as i16;
    let inside = (0..=len - 4).filter(|off| off % 2 == parity);
    let cost = |off: i16| {
        let window = stem.iter().skip(usize::try_from(off).unwrap_or(0)).take(4);
        window.map(|&b| weight(b)).sum::<u32>()
    };
    match (inside.min_by_key(|&off| cost(off)), parity) {
        (Some(off), _) => off,
        (None, 0) => 0,
        // Three letters after one free byte, also for stems of four.
        (None, _) => -1,
    }
}

#[cfg(test)]
mod tests;
