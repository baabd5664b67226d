//! Finds stems and numbers in one pass that takes sixteen bytes a step.
//!
//! Every stem gives, for even and for odd positions, one window of four bytes that must show up at
//! an even offset when the stem is there. The windows, folded to lower case and hashed, are bits of
//! a table of 64 KiB; a set bit is looked up and compared. Against an
//! Aho-Corasick automaton, whose every step waits for the one before, this is many times faster on
//! log text, and finds the same (tested against it).
//!
//! What a set bit is looked up in is kept small as well: a look that misses the cache costs as much as
//! several steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::Reader;
use super::list::{KEY_STEMS, Rule};

/// Up to where the numbers of a text were read.
struct Next {
    digits: usize,
    address: usize,
}

/// Bytes of a step, and with those after them that its windows and numbers reach into.
const STEP: usize = 16;
const BLOCK: usize = STEP + 5;

/// A stem whose window was seen: it begins `back` bytes before (or, negative, after) the window.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Candidate {
    /// Where its letters begin in [`Stems::letters`], and how many they are.
    letters: u16,
    len: u8,
    back: i8,
    rule: Rule,
}

/// Candidates of windows, or of the three bytes of one that are known.
struct Windows {
    /// Open addressing, at most half full; no window is 0.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    window: u32,
    /// Range in [`Stems::candidates`].
    first: u16,
    end: u16,
}

/// The table.
pub(in super::super) struct Stems {
    /// Which windows may belong to a stem: two bits of one word each (a blocked Bloom filter).
    bits: Box<[u64; WORDS]>,
    /// Windows whose four bytes are known. Those of short stems have one that may be anything: the last
    /// one in `heads`, the first one in `tails`. A window that is in several is in `whole`, with the
    /// candidates of all of them.
    whole: Windows,
    heads: Windows,
    tails: Windows,
    /// By window, in the order of the list of stems.
    candidates: Vec<Candidate>,
    letters: Vec<u8>,
}

/// Words of the filter: 64 KiB. Half of that lets three times as many steps of an access log have
/// something in them; and what a log repeats of it fits the first-level cache.
const WORDS: usize = 1 << WORD_BITS;
const WORD_BITS: u32 = 13;
const FOLD: u32 = 0x2020_2020;
/// The first three bytes of a window.
const HEAD: u32 = 0x00ff_ffff;

/// The table of this policy.
pub(in super::super) static STEMS: LazyLock<Stems> = LazyLock::new(|| Stems::new(stems()));

/// What it is made of.
fn stems() -> impl Iterator<Item = (&'static str, Rule)> {
    let vendors = super::super::prefixed::VENDORS.iter().enumerate();
    // Fewer than 256 vendors, checked by a test.
    let vendors = vendors.map(|(index, vendor)| (vendor.prefix, Rule::Vendor(index as u8)));
    KEY_STEMS.iter().copied().chain(vendors)
}

/// Of what is multiplied only the highest bits depend on all four bytes: those are used.
const fn hash(window: u32) -> u64 {
    ((window | FOLD) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

const fn word(hash: u64) -> usize {
    (hash >> (64 - WORD_BITS)) as usize
}

/// The two bits of a window, as distances from the lowest.
const fn bits(hash: u64) -> (u64, u64) {
    ((hash >> (58 - WORD_BITS)) % 64, (hash >> (52 - WORD_BITS)) % 64)
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

/// Windows while the table is made, each with its candidates and their places in the list of stems.
type Enlisted = BTreeMap<u32, Vec<(usize, Candidate)>>;

impl Windows {
    /// Moves the candidates of `windows` to the end of `candidates`.
    fn new(windows: Enlisted, candidates: &mut Vec<Candidate>) -> Self {
        let mut slots = vec![Slot::default(); (windows.len() * 2).next_power_of_two()];
        for (window, mut listed) in windows {
            listed.sort_by_key(|&(place, _)| place);
            // A few thousand in all (tested).
            let first = candidates.len() as u16;
            candidates.extend(listed.into_iter().map(|(_, candidate)| candidate));
            let end = candidates.len() as u16;
            let mut at = Self::first_slot(window, slots.len());
            // Half of the slots are free.
            while slots.get(at).is_some_and(|slot| slot.window != 0) {
                at = (at + 1) % slots.len();
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Slot { window, first, end };
            }
        }
        Self { slots }
    }

    /// Of `size` slots, a power of two, the one to look at first.
    fn first_slot(window: u32, size: usize) -> usize {
        (hash(window) >> 32) as usize & (size - 1)
    }

    #[inline]
    fn find(&self, window: u32) -> Option<Slot> {
        let mut at = Self::first_slot(window, self.slots.len());
        loop {
            let slot = *self.slots.get(at)?;
            if slot.window == window {
                return Some(slot);
            }
            if slot.window == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

impl Stems {
    fn new(stems: impl Iterator<Item = (&'static str, Rule)>) -> Self {
        let mut letters = Vec::new();
        let [mut whole, mut heads, mut tails] = [const { Enlisted::new() }; 3];
        for (place, (stem, rule)) in stems.enumerate() {
            let folded: Vec<u8> = stem.bytes().map(|b| b | 0x20).collect();
            for parity in [0, 1] {
                let back = best_window(stem.as_bytes(), parity);
                // Stems are a few dozen bytes long, all of them a few thousand (tested).
                let candidate = Candidate {
                    letters: letters.len() as u16,
                    len: folded.len() as u8,
                    back,
                    rule,
                };
                let known = folded.get(usize::try_from(back).unwrap_or(0)..).unwrap_or_default();
                let (list, window) = match known {
                    [a, b, c, ..] if back < 0 => (&mut tails, [*a, *b, *c, 0]),
                    [a, b, c, d, ..] => (&mut whole, [*a, *b, *c, *d]),
                    [a, b, c] => (&mut heads, [*a, *b, *c, 0]),
                    // No stem is as short (tested).
                    _ => continue,
                };
                let window = u32::from_le_bytes(window);
                list.entry(window).or_default().push((place, candidate));
            }
            letters.extend_from_slice(&folded);
        }
        let mut bits = Box::new([0; WORDS]);
        let any = || (0..=u8::MAX).filter(|byte| byte & 0x20 != 0).map(u32::from);
        let some_heads = heads.keys().flat_map(|head| any().map(move |last| head | last << 24));
        let some_tails = tails.keys().flat_map(|tail| any().map(move |first| tail << 8 | first));
        for window in whole.keys().copied().chain(some_heads).chain(some_tails) {
            let hash = hash(window);
            let (one, two) = self::bits(hash);
            bits[word(hash)] |= 1 << one | 1 << two;
        }
        // What is looked up first knows all candidates.
        let both = heads.keys().flat_map(|head| {
            let follows = tails.keys().filter(move |tail| *head >> 8 == **tail & 0xffff);
            follows.map(move |tail| head | tail << 8)
        });
        let several: BTreeSet<u32> = whole.keys().copied().chain(both).collect();
        for window in several {
            let list = whole.entry(window).or_default();
            list.extend(heads.get(&(window & HEAD)).into_iter().flatten());
            list.extend(tails.get(&(window >> 8)).into_iter().flatten());
        }
        let mut candidates = Vec::new();
        Self {
            bits,
            whole: Windows::new(whole, &mut candidates),
            heads: Windows::new(heads, &mut candidates),
            tails: Windows::new(tails, &mut candidates),
            candidates,
            letters,
        }
    }

    /// Reads `text` from `from` on and calls `reader` at every stem and, if it wants to know, at
    /// numbers: at windows of four digits (every run of five or more has one), at dots between digits
    /// with another dot soon after, and at colons between what may be digits of any base.
    ///
    /// Sixteen bytes a step: nearly all steps have nothing in them, and find that out without a branch.
    pub(in super::super) fn scan<R: Reader>(&self, text: &[u8], from: usize, reader: &mut R) {
        let mut at = from;
        let mut next = Next { digits: from, address: from };
        while let Some(seen) = self.look::<R>(text, at) {
            self.read(text, from, &seen, &mut next, reader);
            at = seen.at + STEP;
        }
        // What is left, filled up with blanks.
        let len = text.len().saturating_sub(from);
        at = from + len.saturating_sub(BLOCK - STEP) / STEP * STEP;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let mut block = [b' '; BLOCK];
            let len = rest.len().min(BLOCK);
            if let (Some(room), Some(rest)) = (block.get_mut(..len), rest.get(..len)) {
                room.copy_from_slice(rest);
            }
            let seen = self.seen::<R>(at, &block);
            self.read(text, from, &seen, &mut next, reader);
            at += STEP;
        }
    }

    /// The first block from `at` on that may hold something; of whole blocks. In a function of its own, so
    /// that the registers are those of the loop alone.
    #[inline(never)]
    fn look<'t, R: Reader>(&self, text: &'t [u8], mut at: usize) -> Option<Seen<'t>> {
        while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let seen = self.seen::<R>(at, block);
            if seen.stem || seen.marks.any() {
                return Some(seen);
            }
            at += STEP;
        }
        None
    }

    #[inline(always)]
    fn seen<'t, R: Reader>(&self, at: usize, block: &'t [u8; BLOCK]) -> Seen<'t> {
        let mut stem = 0;
        for i in 0..STEP / 2 {
            stem |= self.maybe(hash(window(block, 2 * i)));
        }
        let marks = if R::NUMBERS { numbers(block) } else { Marks::NONE };
        Seen { at, block, stem: stem & 1 == 1, marks }
    }

    /// In the lowest bit, whether a window of this hash may belong to a stem.
    #[inline(always)]
    fn maybe(&self, hash: u64) -> u64 {
        let word = self.bits[word(hash)];
        let (one, two) = bits(hash);
        word >> one & word >> two
    }

    #[inline(always)]
    fn read<R: Reader>(
        &self,
        text: &[u8],
        from: usize,
        seen: &Seen<'_>,
        next: &mut Next,
        reader: &mut R,
    ) {
        let &Seen { at, block, stem, marks } = seen;
        if stem {
            // All windows first: a branch for each would be guessed wrong for the one that counts.
            let mut windows = 0;
            for i in 0..STEP / 2 {
                windows |= (self.maybe(hash(window(block, 2 * i))) & 1) << i;
            }
            while windows != 0 {
                let place = 2 * windows.trailing_zeros() as usize;
                let window = block.get(place..).and_then(<[u8]>::first_chunk);
                if let Some(window) = window {
                    self.verify(text, from, at + place, u32::from_le_bytes(*window), reader);
                }
                windows &= windows - 1;
            }
        }
        if marks.any() {
            let mut marks = Marks {
                digits: marks.digits & later(at, next.digits),
                // An address is told by the byte before its first sign.
                address: marks.address & later(at + 1, next.address),
            };
            if marks.any() {
                marks.read(at, next, reader);
            }
        }
    }

    #[inline(never)]
    fn verify<R: Reader>(&self, text: &[u8], from: usize, at: usize, window: u32, reader: &mut R) {
        let window = window | FOLD;
        let slot = self
            .whole
            .find(window)
            .or_else(|| self.heads.find(window & HEAD))
            .or_else(|| self.tails.find(window >> 8));
        let Some(slot) = slot else { return };
        let range = usize::from(slot.first)..usize::from(slot.end);
        for candidate in self.candidates.get(range).unwrap_or_default() {
            let Some(start) = at.checked_add_signed(-isize::from(candidate.back)) else { continue };
            let len = usize::from(candidate.len);
            let letters = usize::from(candidate.letters);
            let letters = self.letters.get(letters..letters + len).unwrap_or_default();
            let Some(here) = text.get(start..start + len) else { continue };
            if start >= from && here.iter().zip(letters).all(|(&a, &b)| a | 0x20 == b) {
                reader.stem(candidate.rule, start, start + len);
            }
        }
    }
}

/// The window of a block at `at`.
fn window(block: &[u8; BLOCK], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Where a block has numbers: four digits begin there (at odd places only those that no digit stands
/// before), and an address may have its first dot or colon one further. What counts as a digit here are
/// those of the digits' row of ASCII.
#[inline(always)]
fn numbers(block: &[u8; BLOCK]) -> Marks {
    let places = [may_begin(block, 0), may_begin(block, STEP / 2)];
    if places == [0; 2] { Marks::NONE } else { marks(block) }
}

/// The eight places from `from` on where [`numbers`] may have something, as the highest bits of their
/// bytes. Eight places at once, in registers of any processor: loops over sixteen become vector
/// instructions only where the whole program is built for speed, and the agent is not.
#[inline(always)]
fn may_begin(block: &[u8; BLOCK], from: usize) -> u64 {
    let [a, b, c, d] = [0, 1, 2, 3].map(|more| eight(block, from + more));
    let digits = not_zero(off_row(a) | off_row(b) | off_row(c) | off_row(d));
    let dot = not_zero((b ^ of_all(b'.')) | off_row(a) | off_row(c));
    // Digits of any base stand from the digits' row on.
    let from_row = |v: u64| (v & !HIGHEST).wrapping_add(of_all(0x80 - b'0'));
    let colon = not_zero(b ^ of_all(b':')) | !(from_row(a) & from_row(c));
    !(digits & dot & colon) & HIGHEST
}

/// [`numbers`], of a block that may have some.
#[inline(never)]
fn marks(block: &[u8; BLOCK]) -> Marks {
    let (first, second) = (marks_of_eight(block, 0), marks_of_eight(block, STEP / 2));
    Marks { digits: first.0 | second.0 << 8, address: first.1 | second.1 << 8 }
}

/// Of the eight places from `from` on, which is even: digits, and addresses.
#[inline(always)]
fn marks_of_eight(block: &[u8; BLOCK], from: usize) -> (u64, u64) {
    /// Even places; in front of an odd one stands the one before it.
    const EVEN: u64 = 0x0080_0080_0080_0080;
    let [a, b, c, d] = [0, 1, 2, 3].map(|more| eight(block, from + more));
    let [a_row, b_row, c_row, d_row] = [a, b, c, d].map(|v| !not_zero(off_row(v)) & HIGHEST);
    let digits = a_row & b_row & c_row & d_row & (EVEN | !(a_row << 8));
    // An octet has three digits at most, and a dot after it.
    let again = is(d, b'.') | is(eight(block, from + 4), b'.') | is(eight(block, from + 5), b'.');
    let dot = is(b, b'.') & a_row & c_row & again;
    let hex = |v: u64, row: u64| row | is(v & of_all(0xd0), 0x40);
    let colon = is(b, b':') & hex(a, a_row) & hex(c, c_row);
    (gather(digits), gather(dot | colon))
}

/// The eight bytes from `from` on.
#[inline(always)]
fn eight(block: &[u8; BLOCK], from: usize) -> u64 {
    // A block reaches farther than the last of these.
    let bytes = block.get(from..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Eight times `byte`.
#[inline(always)]
const fn of_all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

const HIGHEST: u64 = of_all(0x80);

/// The highest bit of each byte that is not 0; the other bits mean nothing.
#[inline(always)]
const fn not_zero(v: u64) -> u64 {
    (v & !HIGHEST).wrapping_add(!HIGHEST) | v
}

/// The highest bit of each byte that is `sign`.
#[inline(always)]
const fn is(v: u64, sign: u8) -> u64 {
    !not_zero(v ^ of_all(sign)) & HIGHEST
}

/// Not 0 where a byte is outside of the digits' row.
#[inline(always)]
const fn off_row(v: u64) -> u64 {
    (v ^ of_all(b'0')) & of_all(0xf0)
}

/// The highest bits of eight bytes, in their order.
#[inline(always)]
fn gather(highest: u64) -> u64 {
    (highest >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// What may be in a block.
struct Seen<'t> {
    at: usize,
    block: &'t [u8; BLOCK],
    stem: bool,
    marks: Marks,
}

/// Numbers of one block, a bit for each place, that of the first one the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    digits: u64,
    address: u64,
}

/// The places from `next` on, of a block that begins at `at`.
#[inline(always)]
fn later(at: usize, next: usize) -> u64 {
    // Beyond the block there is none, and a shift by more than 63 would be none either.
    u64::MAX << next.saturating_sub(at).min(STEP)
}

impl Marks {
    const NONE: Self = Self { digits: 0, address: 0 };

    #[inline(always)]
    fn any(self) -> bool {
        self.digits | self.address != 0
    }

    /// Calls `reader` at those that it has not read yet.
    #[inline(never)]
    fn read<R: Reader>(&mut self, at: usize, next: &mut Next, reader: &mut R) {
        while self.digits | self.address != 0 {
            let place = (self.digits | self.address).trailing_zeros();
            let here = at + place as usize;
            if self.digits >> place & 1 == 1 {
                next.digits = reader.digits(here).max(here + 1);
                self.digits &= later(at, next.digits);
            }
            if self.address >> place & 1 == 1 {
                next.address = reader.address(here + 1);
                self.address &= !(1 << place) & later(at + 1, next.address);
            }
        }
    }
}

/// Offset in the stem of the window to look for when the stem begins at an even (0) or odd (1)
/// position: inside when it fits, over an edge for short stems.
fn best_window(stem: &[u8], parity: i8) -> i8 {
    // Stems are a few dozen bytes long.
    let len = stem.len() as i8;
    let inside = (0..=len - 4).filter(|off| off % 2 == parity);
    let cost = |off: i8| {
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
