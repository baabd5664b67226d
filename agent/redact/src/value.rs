//! Where a value ends, and whether it is one.

mod nothing;

use std::sync::LazyLock;

pub(super) use self::nothing::is_nothing;
use super::bytes;
use super::placeholder;
use super::scan::Scan;
use super::words::PLAIN;

/// A value: what goes, and where reading may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    /// After the closing quote, if any.
    pub(super) next: usize,
    pub(super) quoted: bool,
}

/// How far an unquoted value reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the next white space.
    Word,
    /// To the end of the line, or where another `key=` begins.
    Line,
    /// To ` Word:` or the closing brace, as in a Go struct.
    GoField,
}

/// Backslashes at `at`, and the quote after them.
pub(super) fn quote_at(scan: &Scan<'_>, at: usize) -> Option<(usize, u8)> {
    let slashes = scan.run(at, 64, |&b| b == b'\\');
    match scan.at(at + slashes) {
        Some(quote @ (b'"' | b'\'' | b'`')) => Some((slashes, quote)),
        _ => None,
    }
}

/// Reads the string whose opening quote, after `slashes` backslashes, is at `at`.
///
/// A quote inside a string that was escaped `d` times has `2^d - 1` backslashes; content adds
/// multiples of `2^(d+1)`. That tells the closing quote from one that belongs to the value, at any
/// depth, without unescaping. A string that does not end on its line goes up to the end of the line.
pub(super) fn quoted(scan: &Scan<'_>, at: usize, slashes: usize, quote: u8) -> Value {
    let start = at + slashes + 1;
    let depth = (slashes + 1).ilog2();
    let outer = (1_usize << depth) - 1;
    let period = 1_usize << (depth + 1);
    let mut from = start;
    while let Some(mark) = scan.find(quote, from, scan.text.len()) {
        let run = scan.run_before(mark, start, |&b| b == b'\\');
        let doubled = scan.at(mark + 1) == Some(quote) && mark > start && slashes == 0;
        if run < outer || run % period == outer && !doubled {
            // The backslashes of the closing quote stay with it.
            scan.spend(mark - at);
            return Value { start, end: mark - run.min(outer), next: mark + 1, quoted: true };
        }
        from = mark + 1 + usize::from(doubled && run % period == outer);
    }
    scan.spend(scan.text.len() - at);
    let end = trimmed_end(scan, start, scan.text.len());
    Value { start, end, next: scan.text.len(), quoted: true }
}

/// Reads the value at `at`, quoted or not.
pub(super) fn read(scan: &Scan<'_>, at: usize, reach: Reach) -> Value {
    if let Some((slashes, quote)) = quote_at(scan, at) {
        if let Some(value) = doubled(scan, at, (slashes, quote)) {
            return value;
        }
        let value = quoted(scan, at, slashes, quote);
        if closes_string_around(scan, &value) {
            return Value { start: at, end: at, next: at, quoted: false };
        }
        return value;
    }
    // b'…', u"…", N'…'
    if matches!(scan.at(at), Some(b'b' | b'u' | b'N' | b'r' | b'@'))
        && let Some((slashes, quote)) = quote_at(scan, at + 1)
        && quote != b'`'
    {
        return quoted(scan, at + 1, slashes, quote);
    }
    // `{…}` of ODBC.
    if scan.at(at) == Some(b'{')
        && scan.at(at + 1) != Some(b'{')
        && let Some(close) = memchr::memchr(b'}', scan.slice(at, at + 512))
    {
        return Value { start: at + 1, end: at + close, next: at + close + 1, quoted: true };
    }
    let word_end = word_end(scan, at);
    let end = match reach {
        Reach::Word => word_end,
        Reach::Line => line_end(scan, at, word_end),
        Reach::GoField => go_field_end(scan, at, word_end),
    };
    scan.spend(end - at);
    Value { start: at, end, next: end, quoted: false }
}

/// `""x""`, as CSV writes quotes in a cell that has quotes of its own; or two quotes of a shell.
fn doubled(scan: &Scan<'_>, at: usize, mark: (usize, u8)) -> Option<Value> {
    /// Longest value in such quotes.
    const LONGEST: usize = 1024;
    let (slashes, quote) = mark;
    let width = 2 * (slashes + 1);
    let start = at + width;
    if quote_at(scan, at + width / 2) != Some(mark) {
        return None;
    }
    let first = scan.at(start)?;
    if b" \t\r,;:}])>\"'`\\&|./#=".contains(&first) {
        return None;
    }
    let text = scan.slice(start, start + LONGEST);
    let marks = scan.slice(at, start);
    let len = memchr::memmem::find(text, marks)?;
    scan.spend(len);
    let plain = !text.get(..len)?.contains(&quote);
    let end = start + len;
    plain.then_some(Value { start, end, next: end + width, quoted: true })
}

/// Whether the quote that seemed to open `value` closes the string that its key stands in, as in
/// `{"log":"password=","n":1}`.
fn closes_string_around(scan: &Scan<'_>, value: &Value) -> bool {
    let text = scan.slice(value.start, value.end);
    let sign = |b: &u8| matches!(b, b'}' | b']' | b')' | b',' | b';' | b':' | b'"' | b'\\' | b' ');
    if text.iter().all(sign) {
        return true;
    }
    // What follows a closing quote is no letter.
    text.first().is_some_and(|b| matches!(b, b',' | b'}' | b']'))
        && scan.at(value.next).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// End of an unquoted value: at white space, or at a sign that closes what the value stands in.
fn word_end(scan: &Scan<'_>, start: usize) -> usize {
    // `{{ … }}` of a template.
    if scan.starts(start, b"{{")
        && let Some(close) = memchr::memmem::find(scan.slice(start, start + 512), b"}}")
    {
        return start + close + 2;
    }
    let mut at = start;
    let mut open = [0_u32; 4];
    while let Some(byte) = scan.at(at) {
        let next = scan.at(at + 1);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => break,
            b'(' => open[0] += 1,
            b'[' => {
                if let Some(end) = placeholder::end_at(scan.text, at) {
                    at = end;
                    continue;
                }
                open[1] += 1;
            }
            b'{' => open[2] += 1,
            b')' | b']' | b'}' => {
                let level = &mut open[match byte {
                    b')' => 0,
                    b']' => 1,
                    _ => 2,
                }];
                let up = if byte == b')' { b'(' } else { byte - 2 };
                if *level > 0 {
                    *level -= 1;
                } else if closes(scan, at + 1) && scan.is_open(start, up, byte) {
                    break;
                }
            }
            b'"' | b'\'' | b'`' if closes(scan, at + 1) && scan.is_quoted(start, byte) => break,
            b',' | b';' | b'|' if separates(scan, at + 1) => break,
            b'&' if separates(scan, at + 1) || scan.starts(at, b"&amp;") => break,
            b'<' if matches!(next, Some(b'/') | None)
                || next.is_some_and(|b| b.is_ascii_alphabetic() || b == b'>')
                    && scan.slice(start.saturating_sub(256), start).contains(&b'>') =>
            {
                break;
            }
            b'<' => open[3] += 1,
            b'>' if open[3] > 0 => open[3] -= 1,
            b'>' if closes(scan, at + 1) => break,
            // `\n`, `\"`: an escape of the string around.
            b'\\' => {
                let run = scan.run(at, usize::MAX, |&b| b == b'\\');
                match scan.at(at + run) {
                    Some(b'"' | b'\'') if closes(scan, at + run + 1) => break,
                    Some(b'n' | b'r' | b't') => break,
                    // `&` and `<`, as JSON escapes them for HTML.
                    Some(b'u')
                        if scan.starts(at + run, b"u0026") && starts_pair(scan, at + run + 5) =>
                    {
                        break;
                    }
                    _ => at += run - 1,
                }
            }
            // Most bytes of a value say nothing.
            _ => at += scan.run(at + 1, usize::MAX, |b| bytes::KEY.has(*b)),
        }
        at += 1;
    }
    // What follows the value in a list or sentence. A full stop or exclamation mark may be its own.
    if at > start + 1
        && matches!(scan.before(at), Some(b':' | b',' | b';'))
        && at - start > 3
        && scan.at(at).is_none_or(|b| b == b' ')
    {
        at -= 1;
    }
    at
}

/// Whether a closing sign before `at` closes something: nothing, white space or more signs follow.
fn closes(scan: &Scan<'_>, at: usize) -> bool {
    match scan.at(at) {
        None => true,
        Some(b) => matches!(
            b,
            b' ' | b'\t'
                | b'\r'
                | b','
                | b';'
                | b'}'
                | b']'
                | b')'
                | b':'
                | b'"'
                | b'\''
                | b'\\'
                | b'>'
                | b'&'
                | b'.'
                | b'/'
                | b'<'
        ),
    }
}

/// Whether a separator before `at` ends the value: white space, the end, a quote or `key=` follows.
fn separates(scan: &Scan<'_>, at: usize) -> bool {
    match scan.at(at) {
        None | Some(b' ' | b'\t' | b'\r' | b'"' | b'\'' | b'\\' | b'}' | b']' | b')') => true,
        Some(_) => starts_pair(scan, at),
    }
}

/// Whether `key=` or `key:` begins at `at`.
fn starts_pair(scan: &Scan<'_>, at: usize) -> bool {
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b' ');
    if !scan.at(at).is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') {
        return false;
    }
    let len = scan.run(at, 48, name);
    len > 0 && matches!(scan.at(at + len), Some(b'=' | b':'))
}

/// Whether `key=` begins at `at`.
pub(super) fn starts_assignment(scan: &Scan<'_>, at: usize) -> bool {
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let len = scan.run(at, 64, name);
    let letter = scan.at(at).is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    // Base64 ends in such a sign.
    let padded = len >= 20 && scan.at(at + len + 1).is_none_or(|b| b == b' ' || b == b',');
    letter && scan.at(at + len) == Some(b'=') && scan.at(at + len + 1) != Some(b'=') && !padded
}

/// End of a value that has the rest of its line, unless another pair or the end of the string
/// around it comes first.
fn line_end(scan: &Scan<'_>, start: usize, word_end: usize) -> usize {
    let mut at = word_end;
    // A value that closed early stands in something larger than a line of its own.
    if !matches!(scan.at(at), Some(b' ' | b'\t'))
        || placeholder::end_at(scan.text, start) == Some(at)
    {
        return at;
    }
    let end = trimmed_end(scan, start, scan.string_end.unwrap_or(scan.text.len()).max(start));
    while at < end
        && let Some(space) = scan.find2(b' ', b'\t', at, end)
    {
        at = space + 1;
        let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let word = scan.run(at, 64, name);
        let pair = match (scan.at(at + word), scan.at(at + word + 1)) {
            (Some(b'='), _) => word > 0,
            (Some(b':'), next) => word > 0 && next.is_none_or(|b| b == b' '),
            _ => false,
        };
        let flag = scan.at(at) == Some(b'-')
            && scan.at(at + 1).is_some_and(|b| b == b'-' || b.is_ascii_alphabetic());
        if pair || flag || scan.at(at) == Some(b'#') {
            return trimmed_end(scan, start, at);
        }
    }
    end
}

/// End of a field of a Go struct printed with `%+v`.
fn go_field_end(scan: &Scan<'_>, start: usize, word_end: usize) -> usize {
    // Fields are short; beyond this the word alone goes.
    const LONGEST: usize = 512;
    let mut at = start;
    while at < start + LONGEST {
        match scan.at(at) {
            None | Some(b'}' | b'"' | b'\\') => break,
            // `{Username:,Password:x,Auth:,}`, as well.
            Some(b' ' | b',') => {
                let word = scan.run(at + 1, 64, u8::is_ascii_alphanumeric);
                let named = scan.at(at) == Some(b' ')
                    || scan.at(at + 1).is_some_and(|b| b.is_ascii_uppercase());
                if word > 0 && named && scan.at(at + 1 + word) == Some(b':') {
                    return at;
                }
            }
            Some(_) => {}
        }
        at += 1;
    }
    if scan.at(at) == Some(b'}') { at.max(word_end.min(at)) } else { word_end }
}

pub(super) fn trimmed_end(scan: &Scan<'_>, start: usize, end: usize) -> usize {
    let end = if end >= scan.text.len() { scan.text_end.max(start) } else { end };
    end - scan.run_before(end, start, u8::is_ascii_whitespace)
}

/// Longest value that is judged as a whole, bytes; longer ones are judged by their head.
const HEAD: usize = 256;

/// Shannon entropy in bits a byte, of [`HEAD`] bytes at most.
fn entropy(value: &[u8]) -> f64 {
    /// `n · log2 n`.
    static WEIGHTS: LazyLock<[f64; HEAD + 1]> = LazyLock::new(|| {
        std::array::from_fn(|n| if n == 0 { 0.0 } else { n as f64 * (n as f64).log2() })
    });
    let weights = &*WEIGHTS;
    let weight = |n: u16| weights.get(usize::from(n)).copied().unwrap_or_default();
    let mut counts = [0_u16; 256];
    let mut sum = 0.0;
    for &byte in value.iter().take(HEAD) {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            sum += weight(*count + 1) - weight(*count);
            *count += 1;
        }
    }
    let total = value.len().min(HEAD) as f64;
    total.log2() - sum / total
}

/// What a byte may be in random text.
mod sign {
    pub(super) const LOWER: u8 = 1;
    pub(super) const UPPER: u8 = 2;
    pub(super) const DIGIT: u8 = 4;
    pub(super) const OTHER: u8 = 8;
    /// In no such text.
    pub(super) const FOREIGN: u8 = 16;

    pub(super) const KINDS: [u8; 256] = {
        let mut kinds = [FOREIGN; 256];
        let mut byte = 0;
        while byte < 256 {
            kinds[byte] = match byte as u8 {
                b'a'..=b'z' => LOWER,
                b'A'..=b'Z' => UPPER,
                b'0'..=b'9' => DIGIT,
                b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'~' | b'%' | b'!' | b'$' | b'*'
                | b'#' | b'@' | b'^' => OTHER,
                _ => FOREIGN,
            };
            byte += 1;
        }
        kinds
    };
}

/// R41: looks random enough to be a secret, and like none of the identifiers that must stay.
pub(super) fn looks_random(value: &[u8]) -> bool {
    if value.len() < 16 {
        return false;
    }
    let head = value.get(..value.len().min(HEAD)).unwrap_or_default();
    let kinds = head.iter().fold(0, |kinds, &b| kinds | sign::KINDS[usize::from(b)]);
    kinds & !sign::OTHER == sign::LOWER | sign::UPPER | sign::DIGIT
        && entropy(head) >= 4.0_f64.min((head.len() as f64).log2() - 0.4)
}

/// A word that may be a password in a sentence: not one of the words that sentences about
/// passwords are made of.
pub(super) fn may_be_secret_word(word: &[u8]) -> bool {
    /// Longest participle that is thought of, bytes.
    const LONGEST: usize = 64;
    let word = word.trim_ascii();
    let end = word.iter().rev().take_while(|b| b"!?.,;:".contains(b)).count();
    let word = word.get(..word.len() - end).unwrap_or_default();
    if word.len() > LONGEST {
        return true;
    }
    if PLAIN.has(word) {
        return false;
    }
    // Participles and the like of one case: `expired`, `rotating`, `readable`.
    let one_case =
        word.iter().all(u8::is_ascii_alphabetic) && word.iter().skip(1).all(u8::is_ascii_lowercase);
    let lower = word.to_ascii_lowercase();
    !(one_case && [&b"ed"[..], b"ing", b"able", b"ible"].iter().any(|end| lower.ends_with(end)))
}

/// Whether `word` is a common word of sentences about secrets.
pub(super) fn is_plain_word(word: &[u8]) -> bool {
    PLAIN.has(word.trim_ascii())
}
