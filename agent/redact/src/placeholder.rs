//! `[R:class:8hex]`: HMAC-SHA256 of the value under the key of the snapshot, cut to 32 bits.
//!
//! The class is not part of the hashed bytes, so that one value found by two rules can still be
//! recognised as one value. Addresses repeat so often that hashing them anew would take longer than
//! finding them: short values are remembered in a small table that is wiped when the stream ends.

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroize as _;

use super::{Class, SnapshotKey};

/// Longest placeholder, bytes (tested).
pub(super) const LONGEST: usize = 26;

/// Remembered values; a power of two.
const REMEMBERED: usize = 1024;
/// Longest remembered value, bytes.
const REMEMBERED_LEN: usize = 55;

/// In one line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Entry {
    len: u8,
    value: [u8; REMEMBERED_LEN],
    hex: [u8; 8],
}

const EMPTY: Entry = Entry { len: 0, value: [0; REMEMBERED_LEN], hex: [0; 8] };

/// Makes placeholders under one key.
pub(super) struct Placeholders {
    key: hmac::Key,
    remembered: Vec<Entry>,
}

impl Placeholders {
    pub(super) fn new(key: &SnapshotKey) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key.0), remembered: Vec::new() }
    }

    /// Appends the placeholder of `value`.
    pub(super) fn write(&mut self, class: Class, value: &[u8], out: &mut Vec<u8>) {
        let hex = self.hex(value);
        write_hex(class, hex, out);
    }

    fn hex(&mut self, value: &[u8]) -> [u8; 8] {
        if value.is_empty() || value.len() > REMEMBERED_LEN {
            return sign(&self.key, value);
        }
        if self.remembered.is_empty() {
            self.remembered.resize(REMEMBERED, EMPTY);
        }
        let Some(entry) = self.remembered.get_mut(slot(value)) else {
            return sign(&self.key, value);
        };
        if entry.value.get(..usize::from(entry.len)) != Some(value) {
            *entry = EMPTY;
            entry.hex = sign(&self.key, value);
            // Shorter than 56, see above.
            entry.len = value.len() as u8;
            if let Some(room) = entry.value.get_mut(..value.len()) {
                room.copy_from_slice(value);
            }
        }
        entry.hex
    }

    /// Begins a placeholder over bytes that arrive in pieces.
    pub(super) fn begin(&self) -> Pieces {
        Pieces(hmac::Context::with_key(&self.key))
    }
}

impl Drop for Placeholders {
    fn drop(&mut self) {
        for entry in &mut self.remembered {
            // What is behind it was never written, or emptied when the value took the place of another.
            let len = usize::from(entry.len);
            entry.value.get_mut(..len).unwrap_or_default().zeroize();
        }
    }
}

/// Where `value` is remembered. An adversary who makes all values collide gains only a slower stream.
fn slot(value: &[u8]) -> usize {
    let (words, rest) = value.as_chunks::<8>();
    let mut last = [0; 8];
    for (room, &byte) in last.iter_mut().zip(rest) {
        *room = byte;
    }
    let words = words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word));
    let hash = words.fold(value.len() as u64, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ mixed >> 32
    });
    hash as usize % REMEMBERED
}

/// A value that is never in memory as a whole.
pub(super) struct Pieces(hmac::Context);

impl Pieces {
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(super) fn write(self, class: Class, out: &mut Vec<u8>) {
        write_hex(class, cut(self.0.sign().as_ref()), out);
    }
}

fn write_hex(class: Class, hex: [u8; 8], out: &mut Vec<u8>) {
    out.reserve(LONGEST);
    out.extend_from_slice(b"[R:");
    out.extend_from_slice(class.name().as_bytes());
    out.push(b':');
    out.extend_from_slice(&hex);
    out.push(b']');
}

/// What a placeholder says of `value`. Signs into a place of its own: a tag that is handed back carries the
/// state of the key with it, and moving that takes as long as the hash.
fn sign(key: &hmac::Key, value: &[u8]) -> [u8; 8] {
    let mut tag = [0; digest::SHA256_OUTPUT_LEN];
    // Fails for a shorter place only; then nothing of the value is said.
    hmac::sign_to_buffer(key, value, &mut tag).map_or([b'0'; 8], |tag| cut(tag))
}

fn cut(tag: &[u8]) -> [u8; 8] {
    let mut hex = [b'0'; 8];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(tag) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        }
    }
    hex
}

/// Whether `text` may hold a placeholder.
pub(super) fn is_in(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"[R:").is_some()
}

/// End of the placeholder that begins at `at`, if one does.
pub(super) fn end_at(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(b"[R:")?;
    // Longest class name and the hex digits are well inside 32 bytes.
    let colon = rest.iter().take(24).position(|&b| b == b':')?;
    let name = rest.get(..colon)?;
    if name.is_empty()
        || !name.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return None;
    }
    let hex = rest.get(colon + 1..colon + 9)?;
    let is_hex = hex.iter().all(|&b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && rest.get(colon + 9) == Some(&b']')).then_some(at + 3 + colon + 10)
}

/// The placeholder that `at` lies inside of, not at its edges.
pub(super) fn around(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let from = at.saturating_sub(LONGEST - 1);
    memchr::memrchr_iter(b'[', text.get(from..at)?).find_map(|bracket| {
        let start = from + bracket;
        let end = end_at(text, start)?;
        (at < end).then_some((start, end))
    })
}
