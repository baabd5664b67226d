//! Copies of a line that are easier to read than the line, with the way back for every byte.
//!
//! Two steps, each only when a line needs it. `cleaned`: terminal colours and zero-width characters
//! gone, full-width letters, typographic quotes and no-break spaces made plain. `decoded`: percent,
//! `\u` and `\x` escapes resolved, up to three times over. Quotes that are escaped with
//! backslashes need no shadow: the value scanner reads them as they stand, at any depth.

/// How often `%2525…` is unwrapped.
const DECODE_ROUNDS: usize = 3;
/// Capacity, in bytes, above which a shadow gives its memory back after the line.
const KEPT: usize = 64 * 1024;

/// Where a stretch of a shadow came from.
#[derive(Clone, Copy)]
struct Piece {
    /// Where it begins in the shadow.
    at: u32,
    /// Where its source begins.
    from: u32,
    /// Bytes of the source that one byte stands for; 0: the stretch was copied as it is.
    width: u32,
}

/// One step of reading a text anew: what came of it, and the way back.
#[derive(Default)]
struct Layer {
    text: Vec<u8>,
    /// In the order of their places.
    pieces: Vec<Piece>,
}

impl Layer {
    /// Bytes `from..to` of `line` as they are.
    fn copy(&mut self, line: &[u8], from: usize, to: usize) {
        if from < to {
            // Lines are at most 256 KiB long.
            self.pieces.push(Piece { at: self.text.len() as u32, from: from as u32, width: 0 });
            self.text.extend_from_slice(line.get(from..to).unwrap_or_default());
        }
    }

    /// One byte for `from..to`.
    fn instead(&mut self, byte: u8, from: usize, to: usize) {
        let width = (to - from) as u32;
        self.pieces.push(Piece { at: self.text.len() as u32, from: from as u32, width });
        self.text.push(byte);
    }

    /// Source of the byte at `at`.
    fn source_of(&self, at: usize) -> Option<(usize, usize)> {
        let next = self.pieces.partition_point(|piece| piece.at as usize <= at);
        let piece = self.pieces.get(next.checked_sub(1)?)?;
        let from = piece.from as usize;
        Some(match piece.width {
            0 => (from + at - piece.at as usize, from + at - piece.at as usize + 1),
            width => (from, from + width as usize),
        })
    }

    fn source(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        if end > self.text.len() {
            return None;
        }
        Some((self.source_of(start)?.0, self.source_of(end.checked_sub(1)?)?.1))
    }

    fn clear(&mut self) {
        if self.text.capacity() > KEPT || self.pieces.capacity() > KEPT / size_of::<Piece>() {
            *self = Self::default();
        }
        self.text.clear();
        self.pieces.clear();
    }

    /// Empties it and takes the room that a line of this length can need, no more.
    fn make_room(&mut self, len: usize) {
        self.clear();
        self.text.reserve_exact(len);
    }

    /// The cleaned text of `line`.
    fn clean(&mut self, line: &[u8]) {
        self.make_room(line.len());
        if line.is_ascii() && memchr::memchr(0x1b, line).is_none() {
            return self.copy(line, 0, line.len());
        }
        let mut copied = 0;
        let mut at = 0;
        let odd = |b: &u8| matches!(b, 0x1b | 0xc2 | 0xe2 | 0xef);
        while let Some(ahead) = line.get(at..).unwrap_or_default().iter().position(odd) {
            at += ahead;
            let rest = line.get(at..).unwrap_or_default();
            let found = match rest.first() {
                Some(0x1b) => Some((escape_sequence(rest), None)),
                _ => plain_form(rest),
            };
            let Some((width, instead)) = found else {
                at += 1;
                continue;
            };
            self.copy(line, copied, at);
            if let Some(instead) = instead {
                self.instead(instead, at, at + width);
            }
            at += width;
            copied = at;
        }
        self.copy(line, copied, line.len());
    }

    /// The decoded text of `line`; false when there was nothing to decode.
    fn decode(&mut self, line: &[u8]) -> bool {
        self.make_room(line.len());
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) =
            memchr::memchr3(b'%', b'\\', b'&', line.get(at..).unwrap_or_default())
        {
            at += found;
            let Some((character, width)) = escaped(line.get(at..).unwrap_or_default()) else {
                at += 1;
                continue;
            };
            self.copy(line, copied, at);
            for &byte in character.bytes() {
                self.instead(byte, at, at + width);
            }
            at += width;
            copied = at;
        }
        if copied > 0 {
            self.copy(line, copied, line.len());
        }
        copied > 0
    }
}

/// A copy of a line, and where each of its bytes came from.
#[derive(Default)]
pub(super) struct Shadow {
    /// As many as were needed, each read from the one before.
    layers: [Layer; DECODE_ROUNDS],
    used: usize,
}

impl Shadow {
    pub(super) fn text(&self) -> &[u8] {
        let last = self.used.checked_sub(1).and_then(|last| self.layers.get(last));
        last.map_or(&[], |layer| &layer.text)
    }

    fn text_mut(&mut self) -> &mut Vec<u8> {
        let [first, second, third] = &mut self.layers;
        let last = match self.used {
            0 | 1 => first,
            2 => second,
            _ => third,
        };
        &mut last.text
    }

    /// Span in the source of a span that is not empty.
    pub(super) fn source(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let layers = self.layers.get(..self.used)?;
        layers.iter().rev().try_fold((start, end), |(start, end), layer| layer.source(start, end))
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.layers.iter_mut().for_each(Layer::clear);
    }

    /// Fills the shadow with the cleaned text of `line`.
    pub(super) fn clean(&mut self, line: &[u8]) {
        let [first, ..] = &mut self.layers;
        first.clean(line);
        self.used = 1;
    }

    /// Fills the shadow with the decoded text of `line`; false when there was nothing to decode.
    pub(super) fn decode(&mut self, line: &[u8]) -> bool {
        let [first, second, third] = &mut self.layers;
        self.used = usize::from(first.decode(line));
        if self.used == 1 && second.decode(&first.text) {
            self.used = if third.decode(&second.text) { 3 } else { 2 };
        }
        self.used > 0
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

/// Most backslashes of an escape that is read: JSON in JSON in JSON.
const MOST_SLASHES: usize = 8;

/// A character in UTF-8, and its bytes.
struct Character([u8; 4], usize);

impl Character {
    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// The printable character or line end that an escape at the start of `rest` stands for, and its width. Words
/// for a password have letters beyond ASCII in many languages: percent signs hide each of their bytes.
fn escaped(rest: &[u8]) -> Option<(Character, usize)> {
    let is_plain = |byte: u8| matches!(byte, 0x20..=0x7e | b'\n');
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0, |n, &b| Some(n * 16 + char::from(b).to_digit(16)?))
    };
    // A letter that was escaped more than once has several backslashes before it.
    let slashes = rest.iter().take(MOST_SLASHES).take_while(|&&b| b == b'\\').count();
    if slashes > 0 && rest.get(slashes) == Some(&b'u') {
        let character = char::from_u32(hex(rest.get(slashes + 1..slashes + 5)?)?)?;
        let mut bytes = [0; 4];
        let len = character.encode_utf8(&mut bytes).len();
        let fits = (!character.is_control() || character == '\n')
            && (slashes == 1 || !character.is_ascii());
        return fits.then_some((Character(bytes, len), slashes + 5));
    }
    match rest {
        [b'\\', b'x', digits @ ..] => {
            let byte = hex(digits.get(..2)?)? as u8;
            is_plain(byte).then_some((Character([byte, 0, 0, 0], 1), 4))
        }
        [b'%', digits @ ..] => {
            let first = hex(digits.get(..2)?)? as u8;
            let len = match first {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ if is_plain(first) => 1,
                _ => return None,
            };
            // `%ADMIN%` is no byte: all bytes of the character have to be there.
            let mut bytes = [first, 0, 0, 0];
            for (index, byte) in bytes.iter_mut().enumerate().take(len).skip(1) {
                let escape = rest.get(3 * index..3 * index + 3)?;
                *byte = hex(escape.strip_prefix(b"%")?)? as u8;
            }
            let character = Character(bytes, len);
            std::str::from_utf8(character.bytes()).is_ok().then_some((character, 3 * len))
        }
        [b'&', ..] => entity(rest).map(|(byte, width)| (Character([byte, 0, 0, 0], 1), width)),
        _ => None,
    }
}

/// A character that XML and HTML write by name or number.
fn entity(rest: &[u8]) -> Option<(u8, usize)> {
    const NAMES: &[(&[u8], u8)] = &[
        (b"&amp;", b'&'),
        (b"&lt;", b'<'),
        (b"&gt;", b'>'),
        (b"&quot;", b'"'),
        (b"&apos;", b'\''),
        (b"&#34;", b'"'),
        (b"&#39;", b'\''),
    ];
    let (name, byte) = NAMES.iter().find(|(name, _)| rest.starts_with(name))?;
    Some((*byte, name.len()))
}

/// Room for reading one value after another.
#[derive(Default)]
pub(super) struct Plain {
    cleaned: Layer,
    decoded: Shadow,
}

impl Plain {
    /// A value as it reads without colours and escapes, so that one secret gets one placeholder however
    /// it was written.
    pub(super) fn of<'v>(&'v mut self, value: &'v [u8]) -> &'v [u8] {
        if memchr::memchr3(0x1b, b'%', b'\\', value).is_none() && value.is_ascii() {
            return value;
        }
        self.cleaned.clean(value);
        let decoded = self.decoded.decode(&self.cleaned.text);
        let text = if decoded { self.decoded.text_mut() } else { &mut self.cleaned.text };
        text.retain(|&b| b != b'\\');
        text
    }

    pub(super) fn clear(&mut self) {
        self.cleaned.clear();
        self.decoded.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(line: &str) -> String {
        let mut shadow = Shadow::default();
        shadow.clean(line.as_bytes());
        String::from_utf8(shadow.text().to_vec()).expect("text")
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
        assert_eq!(shadow.text(), b"x=&A");
        assert_eq!(shadow.source(1, 2), Some((1, 8)));
        assert_eq!(shadow.source(2, 4), Some((8, 17)));
    }

    #[test]
    fn letters_beyond_ascii_unwrap_whole_or_not_at_all() {
        let mut shadow = Shadow::default();
        let line = b"f%C3%BCr has\\u0142o %ADMIN% %C3x %E2%82 \\ud83d";
        assert!(shadow.decode(line));
        assert_eq!(shadow.text(), "für hasło %ADMIN% %C3x %E2%82 \\ud83d".as_bytes());
        assert_eq!(shadow.source(1, 3), Some((1, 7)));
    }

    #[test]
    fn percent_signs_that_are_no_escape_stay() {
        let mut shadow = Shadow::default();
        assert!(!shadow.decode(b"50% of 10%zz %0"));
    }
}
