//! More than one value after a key: what was and what is, what was expected and what came, lists in
//! sentences (R01, R02, R10).

use super::Class;
use super::judge::{is_constants, is_field};
use super::key::{Key, Strength};
use super::made_up::{is_jumbled, is_made_up, is_random_word};
use super::phrase::{is_chosen, is_grouped};
use super::scan::Scan;
use super::value::{self, Reach, Value};

/// Most values after the first.
const MOST: usize = 4;
/// Most words between two values.
const WORDS: usize = 5;

/// Words and signs that may stand between two values of a key.
const LINKS: &[&str] = &[
    "->",
    "=>",
    "→",
    "/",
    "|",
    "!=",
    "<>",
    "and",
    "or",
    "to",
    "by",
    "with",
    "new",
    "old",
    "got",
    "was",
    "is",
    "now",
    "the",
    "one",
    "vs",
    "vs.",
    "but",
    "not",
    "actual",
    "expected",
    "received",
    "en",
    "und",
    "et",
    "y",
    "naar",
    "in",
    "auf",
    "oder",
    "of",
    "ou",
    "instead",
    "then",
    "new:",
    "old:",
    "got:",
    "expected:",
    "was:",
    "now:",
    "ours",
    "theirs",
    "computed",
    "want",
    "wanted",
    "have",
    "given",
    "calculated",
    "nieuw:",
];

/// Takes the value of `key`, and those that follow it.
pub(super) fn accept(scan: &mut Scan<'_>, key: &Key, value: Value) {
    scan.accept(key, value);
    let mut at = value.next.max(value.end);
    // `from x to y`: there is another.
    let lead = scan.slice(value.start.saturating_sub(6), value.start);
    let open = lead.iter().rev().take_while(|b| b"\"'`<([ ".contains(b)).count();
    let word = lead.get(..lead.len() - open).unwrap_or_default();
    let sure = [&b"from"[..], b" van", b" von", b" od"].iter().any(|from| word.ends_with(from));
    for _ in 0..MOST {
        let Some(next) = another(scan, key, at, sure) else { return };
        scan.accept(key, next);
        at = next.next.max(next.end);
    }
}

/// The value that follows the one that ends at `end`, after a comma or a word such as `to`.
fn another(scan: &Scan<'_>, key: &Key, end: usize, sure: bool) -> Option<Value> {
    let mut at = end + scan.run(end, 4, |b| b"\"'`\\)]>".contains(b));
    let comma = scan.at(at) == Some(b',');
    at += usize::from(comma);
    let mut linked = comma;
    let mut sure = sure;
    for _ in 0..=WORDS {
        let from = scan.skip_space(at);
        if from == at {
            return None;
        }
        let len = scan.run(from, 24, |b| !b.is_ascii_whitespace());
        let word = scan.slice(from, from + len);
        if LINKS.iter().any(|link| link.as_bytes() == word) {
            linked = true;
            sure |= !matches!(
                word,
                b"and" | b"or" | b"to" | b"in" | b"of" | b"by" | b"with" | b"en" | b"y"
            );
            at = from + len;
            continue;
        }
        return linked.then(|| read(scan, key, from, sure)).flatten();
    }
    None
}

/// `Port:5432`, `timeout=30s`: a name and its value.
pub(super) fn is_pair(text: &[u8]) -> bool {
    let name = text.iter().take_while(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b)).count();
    name > 0 && name + 1 < text.len() && matches!(text.get(name), Some(b':' | b'='))
}

/// `uid=5562`, `timeout=30s`: a name and a value that is none of a password.
pub(super) fn is_setting(text: &[u8]) -> bool {
    let value = text.iter().position(|b| matches!(b, b':' | b'=')).map(|sign| sign + 1);
    let value = value.and_then(|value| text.get(value..)).unwrap_or_default();
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let unit = value.get(digits..).unwrap_or_default();
    let plain = unit.iter().all(|b| b.is_ascii_lowercase() || b"-_./:".contains(b));
    is_pair(text) && plain && (digits == 0 || unit.len() <= 2)
}

/// The value at `from`, if it looks like one; after a mere `and` or comma names of hosts look like it, too.
fn read(scan: &Scan<'_>, key: &Key, from: usize, sure: bool) -> Option<Value> {
    let mut value = value::read(scan, from, Reach::Word);
    if !value.quoted && scan.before(value.end) == Some(b'.') && value.end - value.start > 3 {
        value.end -= 1;
    }
    let text = scan.slice(value.start, value.end);
    let name = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b);
    let sign = scan.at(scan.skip_space(value.next));
    let pair = matches!(sign, Some(b':' | b'=')) || !value.quoted && is_pair(text);
    let fits = match key.class {
        Class::Password if sure => {
            let digits = (6..=12).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
            let flips = text.windows(2).filter(
                |w| matches!(w, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()),
            );
            is_made_up(text) || digits || is_grouped(text) || text.len() >= 8 && flips.count() >= 2
        }
        _ if is_constants(scan, key) && !pair => is_made_up(text) || is_chosen(text),
        Class::Password => {
            is_made_up(text) && (value.quoted || !text.iter().all(name)) || is_grouped(text)
        }
        _ if key.strength == Strength::Weak => {
            is_random_word(text) || text.len() >= 32 && text.iter().all(u8::is_ascii_hexdigit)
        }
        _ => {
            is_random_word(text)
                || is_jumbled(text)
                || is_grouped(text)
                || text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit)
        }
    };
    (fits && !pair && !is_field(text) && !value::is_nothing(text)).then_some(value)
}
