//! Which signs a line may hold, from searches that run ahead through its whole chunk.
//!
//! Most lines hold none of these. Asked line by line, each search would begin anew with every line; here
//! it stays where the sign was found until the lines have caught up with it.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;

/// Two signs of padding, as base64 of a key of 64 bytes has them.
pub(super) static PADDING: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"=="));

/// What every placeholder of ours begins with.
static OWN: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"[R:"));

/// Bytes that are looked at together for those beyond ASCII.
const BLOCK: usize = 256;

/// What a line may hold; false is certain.
#[derive(Clone, Copy)]
pub(super) struct Signs {
    /// The escape character, a percent sign or a tilde.
    pub(super) odd: bool,
    pub(super) backslash: bool,
    pub(super) at: bool,
    pub(super) plus: bool,
    /// [`PADDING`].
    pub(super) padding: bool,
    /// A placeholder, of text that was redacted before.
    pub(super) own: bool,
    /// Bytes beyond ASCII.
    pub(super) wide: bool,
}

impl Signs {
    /// Of a line that nothing is known of.
    pub(super) const ANY: Self = Self {
        odd: true,
        backslash: true,
        at: true,
        plus: true,
        padding: true,
        own: true,
        wide: true,
    };
}

/// The searches through one chunk.
pub(super) struct Ahead<'c> {
    chunk: &'c [u8],
    odd: usize,
    backslash: usize,
    at: usize,
    plus: usize,
    padding: usize,
    own: usize,
    wide: usize,
}

impl<'c> Ahead<'c> {
    pub(super) fn new(chunk: &'c [u8]) -> Self {
        Self { chunk, odd: 0, backslash: 0, at: 0, plus: 0, padding: 0, own: 0, wide: 0 }
    }

    /// Of the line at `line`, which stands behind the one before.
    #[inline]
    pub(super) fn of(&mut self, line: Range<usize>) -> Signs {
        let Self { chunk, odd, backslash, at, plus, padding, own, wide } = self;
        Signs {
            odd: within(odd, chunk, &line, |text| memchr::memchr3(0x1b, b'%', b'~', text)),
            backslash: within(backslash, chunk, &line, |text| memchr::memchr(b'\\', text)),
            at: within(at, chunk, &line, |text| memchr::memchr(b'@', text)),
            plus: within(plus, chunk, &line, |text| memchr::memchr(b'+', text)),
            padding: within(padding, chunk, &line, |text| PADDING.find(text)),
            own: within(own, chunk, &line, |text| OWN.find(text)),
            wide: within(wide, chunk, &line, |text| {
                Some(BLOCK * text.chunks(BLOCK).position(|block| !block.is_ascii())?)
            }),
        }
    }
}

/// Whether `line` holds what `find` finds; `next` is where it was found last.
#[inline(always)]
fn within(
    next: &mut usize,
    chunk: &[u8],
    line: &Range<usize>,
    find: impl FnOnce(&[u8]) -> Option<usize>,
) -> bool {
    if *next < line.start {
        let found = find(chunk.get(line.start..).unwrap_or_default());
        *next = found.map_or(usize::MAX, |found| line.start + found);
    }
    *next < line.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sign_of_a_line_is_left_out() {
        let lines = [
            "a", "", "b@c", "@", "\\n+", "x==", "=", "= =", "~", "+~%@\\==", "", "[R", "[R:é", "z",
        ];
        for first in 0..lines.len() {
            let chunk = lines[first..].join("\n");
            let mut ahead = Ahead::new(chunk.as_bytes());
            let mut start = 0;
            for (index, line) in lines[first..].iter().enumerate() {
                let signs = ahead.of(start..start + line.len());
                for (said, sign) in [
                    (signs.odd, "~"),
                    (signs.backslash, "\\"),
                    (signs.at, "@"),
                    (signs.plus, "+"),
                    (signs.padding, "=="),
                    (signs.own, "[R:"),
                ] {
                    // Of the first line nothing is certain.
                    let holds = line.contains(sign) || index == 0 && !line.is_empty();
                    assert_eq!(said, holds, "{sign} in {line:?} of {chunk:?}");
                }
                // Of its neighbours in the block it may be said as well.
                assert!(signs.wide || line.is_ascii(), "{line:?} of {chunk:?}");
                start += line.len() + 1;
            }
        }
    }
}
