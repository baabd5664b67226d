//! Copies of a line that are easier to read than the line, with the way back for every byte.
//!
//! Two steps, each only when a line needs it. `cleaned`: terminal colours and zero-width characters
//! gone, full-width letters, typographic quotes and no-break spaces made plain. `decoded`: percent,
//! `\u00XX` and `\xXX` escapes resolved, up to three times over. Quotes that are escaped with
//! backslashes need no shadow: the value scanner reads them as they stand, at any depth.

use std::borrow::Cow;

/// How often `%2525…` is unwrapped.
const DECODE_ROUNDS: usize = 3;
/// Capacity, in bytes, above which a shadow gives its memory back after the line.
const KEPT: usize = 64 * 1024;

/// A copy of a line, and where each of its bytes came from.
#[derive(Default)]
pub(super) struct Shadow {
    pub(super) text: Vec<u8>,
    /// For each byte of `text`, begin and end of its source.
    from: Vec<(u32, u32)>,
}

impl Shadow {
    /// Span in the source of a span that is not empty.
    pub(super) fn source(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let first = self.from.get(start)?;
        let last = self.from.get(end.checked_sub(1)?)?;
        Some((first.0 as usize, last.1 as usize))
    }

    pub(super) fn clear(&mut self) {
        if self.text.capacity() > KEPT {
            *self = Self::default();
        }
        self.text.clear();
        self.from.clear();
    }

    /// Empties the shadow and takes the room that a line of this length can need, no more.
    fn make_room(&mut self, len: usize) {
        self.clear();
        self.text.reserve_exact(len);
        self.from.reserve_exact(len);
    }

    fn push(&mut self, byte: u8, start: usize, end: usize) {
        self.text.push(byte);
        // Lines are at most 256 KiB long.
        self.from.push((start as u32, end as u32));
    }

    /// Fills the shadow with the cleaned text of `line`.
    pub(super) fn clean(&mut self, line: &[u8]) {
        self.make_room(line.len());
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            let rest = line.get(at..).unwrap_or_default();
            let (width, instead) = match byte {
                0x1b => (escape_sequence(rest), None),
                0xc2 | 0xe2 | 0xef => match plain_form(rest) {
                    Some((width, instead)) => (width, instead),
                    None => (1, Some(byte)),
                },
                _ => (1, Some(byte)),
            };
            if let Some(instead) = instead {
                self.push(instead, at, at + width);
            }
            at += width;
        }
    }

    /// Fills the shadow with the decoded text of `line`; false when there was nothing to decode.
    pub(super) fn decode(&mut self, line: &[u8]) -> bool {
        self.make_room(line.len());
        let mut changed = false;
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            let (byte, width) = match escaped(line.get(at..).unwrap_or_default()) {
                Some(found) => found,
                None => (byte, 1),
            };
            changed |= width > 1;
            self.push(byte, at, at + width);
            at += width;
        }
        for _ in 1..DECODE_ROUNDS {
            if !changed || !self.decode_again() {
                break;
            }
        }
        changed
    }

    /// Another round, in place: the text only gets shorter.
    fn decode_again(&mut self) -> bool {
        let (mut read, mut write) = (0, 0);
        while let Some(&byte) = self.text.get(read) {
            let found = escaped(self.text.get(read..).unwrap_or_default());
            let (byte, width) = found.unwrap_or((byte, 1));
            let source = self.source(read, read + width).unwrap_or_default();
            if let (Some(text), Some(from)) = (self.text.get_mut(write), self.from.get_mut(write)) {
                *text = byte;
                *from = (source.0 as u32, source.1 as u32);
            }
            read += width;
            write += 1;
        }
        let changed = write < self.text.len();
        self.text.truncate(write);
        self.from.truncate(write);
        changed
    }
}

/// Whether `line` holds characters that [`Shadow::clean`] would change, beyond escape sequences.
pub(super) fn has_odd_characters(line: &[u8]) -> bool {
    memchr::memchr3_iter(0xc2, 0xe2, 0xef, line)
        .any(|at| plain_form(line.get(at..).unwrap_or_default()).is_some())
}

/// Length of the terminal sequence at the start of `rest`, which begins with ESC.
fn escape_sequence(rest: &[u8]) -> usize {
    // Sequences in logs are a few bytes; an endless one is no reason to skip the line.
    const LONGEST: usize = 64;
    match rest.get(1) {
        Some(b'[') => {
            let end = rest.iter().take(LONGEST).skip(2).position(|b| (0x40..=0x7e).contains(b));
            end.map_or(2, |end| end + 3)
        }
        // Operating system command: up to BEL or ST.
        Some(b']') => {
            let end = rest.iter().take(LONGEST).position(|&b| b == 0x07);
            end.map_or(2, |end| end + 1)
        }
        Some(b'(' | b')') if rest.len() > 2 => 3,
        Some(0x40..=0x7e) => 2,
        _ => 1,
    }
}

/// Width of an odd character at the start of `rest` and what stands for it, if anything.
fn plain_form(rest: &[u8]) -> Option<(usize, Option<u8>)> {
    let (&[a, b], third) = (rest.first_chunk()?, rest.get(2).copied());
    match (a, b, third) {
        // No-break space; soft hyphen.
        (0xc2, 0xa0, _) => Some((2, Some(b' '))),
        (0xc2, 0xad, _) => Some((2, None)),
        // Zero-width space, joiners, direction marks; word joiner and invisible operators.
        (0xe2, 0x80, Some(0x8b..=0x8f | 0xaa..=0xae)) => Some((3, None)),
        (0xe2, 0x81, Some(0xa0..=0xa4 | 0xa6..=0xa9)) => Some((3, None)),
        // Spaces of many widths; typographic quotes.
        (0xe2, 0x80, Some(0x80..=0x8a | 0xaf)) => Some((3, Some(b' '))),
        (0xe2, 0x80, Some(0x98..=0x9b)) => Some((3, Some(b'\''))),
        (0xe2, 0x80, Some(0x9c..=0x9f)) => Some((3, Some(b'"'))),
        (0xe2, 0x80, Some(0x90..=0x95)) => Some((3, Some(b'-'))),
        // Byte order mark; full-width forms of the printable ASCII characters.
        (0xef, 0xbb, Some(0xbf)) => Some((3, None)),
        (0xef, 0xbc, Some(c @ 0x81..=0xbf)) => Some((3, Some(c - 0x60))),
        (0xef, 0xbd, Some(c @ 0x80..=0x9e)) => Some((3, Some(c - 0x20))),
        _ => None,
    }
}

/// The printable ASCII character or line end that an escape at the start of `rest` stands for, and its width.
fn escaped(rest: &[u8]) -> Option<(u8, usize)> {
    let (digits, width) = match rest {
        [b'%', high, low, ..] => ([*high, *low], 3),
        [b'\\', b'u', b'0', b'0', high, low, ..] => ([*high, *low], 6),
        [b'\\', b'x', high, low, ..] => ([*high, *low], 4),
        [b'&', b'a', b'm', b'p', b';', ..] => return Some((b'&', 5)),
        _ => return None,
    };
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    let byte = (high? * 16 + low?) as u8;
    (matches!(byte, 0x20..=0x7e) || byte == b'\n').then_some((byte, width))
}

/// A value as it reads without colours and escapes, so that one secret gets one placeholder however
/// it was written.
pub(super) fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr3(0x1b, b'%', b'\\', value).is_none() && value.is_ascii() {
        return Cow::Borrowed(value);
    }
    let mut shadow = Shadow::default();
    shadow.clean(value);
    let cleaned = std::mem::take(&mut shadow.text);
    shadow.decode(&cleaned);
    shadow.text.retain(|&b| b != b'\\');
    Cow::Owned(shadow.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(line: &str) -> String {
        let mut shadow = Shadow::default();
        shadow.clean(line.as_bytes());
        String::from_utf8(shadow.text).expect("text")
    }

    #[test]
    fn colours_and_invisible_characters_vanish() {
        assert_eq!(cleaned("\u{1b}[1;32mpass\u{200b}wo\u{ad}rd\u{1b}[0m=x"), "password=x");
        assert_eq!(cleaned("\u{feff}a\u{a0}b \u{201c}c\u{201d}"), "a b \"c\"");
        assert_eq!(cleaned("\u{ff50}\u{ff57}\u{ff44}\u{ff1d}\u{ff5e}"), "pwd=~");
        assert_eq!(cleaned("caf\u{e9} \u{2713} \u{20ac}"), "caf\u{e9} \u{2713} \u{20ac}");
    }

    #[test]
    fn escapes_unwrap_three_deep_and_spans_lead_back() {
        let mut shadow = Shadow::default();
        let line = b"x%25253d\\u0026%41";
        assert!(shadow.decode(line));
        assert_eq!(shadow.text, b"x=&A");
        assert_eq!(shadow.source(1, 2), Some((1, 8)));
        assert_eq!(shadow.source(2, 4), Some((8, 17)));
    }

    #[test]
    fn percent_signs_that_are_no_escape_stay() {
        let mut shadow = Shadow::default();
        assert!(!shadow.decode(b"50% of 10%zz %0"));
        assert_eq!(shadow.text, b"50% of 10%zz %0");
    }
}
