//! What stands after a name that is spoken of and holds nothing: in usage texts, in pairs of a log.

use crate::scan::Scan;
use crate::value::{self, Value};

/// `source=external-secrets traceID=1b4e`: the value of one pair, and the name of the next at `at`.
pub(super) fn begins_pair(scan: &Scan<'_>, at: usize) -> bool {
    let name = scan.run(at, 48, |b| b.is_ascii_alphanumeric() || b"_.".contains(b));
    let word = scan.at(at).is_some_and(|b| b.is_ascii_alphabetic());
    word && name < 48 && scan.at(at + name) == Some(b'=') && scan.at(at + name + 1) != Some(b'=')
}

/// `--password string   The password`, `Using --password via the CLI is insecure`: what a
/// usage text or a sentence says of a flag.
pub(super) fn is_usage(scan: &Scan<'_>, value: &Value) -> bool {
    const TYPES: &[&[u8]] = &[b"string", b"text", b"value", b"str", b"arg", b"file", b"path"];
    const WORDS: &[&[u8]] = &[
        b"via",
        b"has",
        b"flag",
        b"flags",
        b"option",
        b"options",
        b"instead",
        b"requires",
        b"needs",
        b"argument",
        b"parameter",
        b"shows",
        b"does",
        b"takes",
        b"expects",
        b"cannot",
        b"over",
    ];
    let text = scan.slice(value.start, value.end);
    let kind = TYPES.iter().any(|kind| text.eq_ignore_ascii_case(kind));
    // In the columns of a usage text two blanks stand before what a flag is for.
    if kind && (scan.starts(value.end, b"  ") || scan.at(value.end) == Some(b']')) {
        return true;
    }
    let spoken = WORDS.contains(&text) || !value::may_be_secret_word(text);
    let next = scan.skip_space(value.end);
    let word = scan.run(next, 32, u8::is_ascii_alphabetic);
    spoken
        && next == value.end + 1
        && word > 1
        && text.iter().all(u8::is_ascii_lowercase)
        && scan.at(next + word).is_none_or(|b| b" .,".contains(&b))
}
