//! Keys and values with no sign between them: flags and sentences (R09, R10, R41).

use super::Class;
use super::assign::{accept, skip_space};
use super::judge::{is_random_word, is_telling, is_value};
use super::key::{Key, Strength};
use super::line::Scan;
use super::value::{self, Reach, Value};

/// Longest word of a sentence, bytes.
const WORD: usize = 512;

/// Whether `key` is a flag: `--password`.
pub(super) fn is_flag(scan: &Scan<'_>, key: &Key) -> bool {
    scan.slice(key.start.saturating_sub(2), key.start) == b"--"
}

/// `--password x`, `["--password","x"]`, and sentences.
pub(super) fn flag_or_prose(
    scan: &mut Scan<'_>,
    key: Key,
    at: usize,
    spaced: bool,
    quoted_key: bool,
) {
    if scan.before(key.start) == Some(b'-') {
        let mut from = at;
        if quoted_key && scan.at(at) == Some(b',') {
            from = skip_space(scan, at + 1);
        } else if !spaced {
            return;
        }
        let value = value::read(scan, from, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if text.first() != Some(&b'-') && is_value(scan, &key, text) {
            accept(scan, &key, value);
        }
    } else if let Some(from) = with_value(scan, at).filter(|_| spaced) {
        let value = value::read(scan, from, Reach::Word);
        if is_value(scan, &key, scan.slice(value.start, value.end)) {
            accept(scan, &key, value);
        }
    } else if spaced && !quoted_key {
        prose(scan, &key, at);
    }
}

/// Where the value begins after `with value `, `value:` and the like.
fn with_value(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = at;
    for lead in [&b"with "[..], b"to ", b"has ", b"the "] {
        if scan.slice(at, at + lead.len()).eq_ignore_ascii_case(lead) {
            at = skip_space(scan, at + lead.len());
        }
    }
    if !scan.slice(at, at + 5).eq_ignore_ascii_case(b"value") {
        return None;
    }
    at += 5;
    if matches!(scan.at(at), Some(b':' | b'=')) {
        at += 1;
    }
    let from = skip_space(scan, at);
    (from > at && from < scan.text.len()).then_some(from)
}

/// The word at `from`, and where the next one begins.
fn word_at<'a>(scan: &Scan<'a>, from: usize) -> (&'a [u8], usize) {
    let rest = scan.rest(from).iter().take(WORD);
    let len = rest.take_while(|b| !b.is_ascii_whitespace()).count();
    (scan.slice(from, from + len), skip_space(scan, from + len))
}

/// R10: `password is x`, `password for bob was changed to x`, `with password x`, `password 'x'`; and
/// R41: a random word close to any key.
fn prose(scan: &mut Scan<'_>, key: &Key, at: usize) {
    let told = if key.strength == Strength::Weak { None } else { told(scan, key, at) };
    if let Some(from) = told {
        let mut value = value::read(scan, from, Reach::Word);
        // The full stop of the sentence.
        if !value.quoted && scan.before(value.end) == Some(b'.') && value.end - value.start > 3 {
            value.end -= 1;
        }
        let text = scan.slice(value.start, value.end);
        let telling = text.len() >= 6 && text.iter().any(u8::is_ascii_digit);
        if (key.class == Class::Password || telling)
            && value::may_be_secret_word(text)
            && text.len() >= 3
            && is_value(scan, key, text)
        {
            return accept(scan, key, value);
        }
    }
    random_word(scan, key, at);
}

/// Where a sentence says that the value begins.
fn told(scan: &Scan<'_>, key: &Key, at: usize) -> Option<usize> {
    /// Most words between the key and `is`.
    const WORDS: usize = 6;
    let is_password = key.class == Class::Password;
    let (mut word, mut next) = word_at(scan, at);
    let whose =
        ["for", "of", "voor", "van", "für", "fuer", "von", "pour", "para", "de", "del", "on", "op"];
    if whose.iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes())) {
        for _ in 0..WORDS {
            (word, next) = word_at(scan, next);
            if word.is_empty() {
                return None;
            }
            if is_copula(word) {
                break;
            }
            if matches!(word.last(), Some(b':' | b'=')) && is_password {
                return Some(next);
            }
        }
    }
    if value::quote_at(scan, at).is_some() {
        let value = value::read(scan, at, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if value.quoted && (is_password || is_telling(text)) {
            return Some(at);
        }
    }
    if is_copula(word) {
        let (second, after) = word_at(scan, next);
        let filler = [&b"now"[..], b"set", b"changed", b"reset", b"currently", b"updated"];
        return Some(if filler.iter().any(|f| second.eq_ignore_ascii_case(f)) {
            let (third, last) = word_at(scan, after);
            if third == b"to" { last } else { after }
        } else {
            next
        });
    }
    if is_foreign_copula(word) {
        let (value, _) = word_at(scan, next);
        return value
            .iter()
            .any(|b| !b.is_ascii_alphabetic() && !b".!,".contains(b))
            .then_some(next);
    }
    if [&b"set"[..], b"changed", b"reset", b"updated"].contains(&word) {
        let (second, after) = word_at(scan, next);
        return (second == b"to").then_some(after);
    }
    if is_password {
        let before = scan
            .slice(key.start.saturating_sub(12), key.start)
            .trim_ascii_end()
            .to_ascii_lowercase();
        let led = [&b"with"[..], b"using", b"the", b"by", b"identified", b"new", b"mit", b"met"]
            .iter()
            .any(|w| before.ends_with(w));
        let telling =
            word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
        return (led && telling).then_some(at);
    }
    None
}

fn is_copula(word: &[u8]) -> bool {
    [&b"is"[..], b"was", b"is:", b"was:", b"are", b"equals", b"to"]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}

/// In German, Dutch, French and Spanish: what follows must look like a value.
fn is_foreign_copula(word: &[u8]) -> bool {
    [
        "lautet", "lautet:", "ist", "ist:", "luidt", "luidt:", "wordt", "werd", "est", "es", "->",
        "=>",
    ]
    .iter()
    .any(|w| word.eq_ignore_ascii_case(w.as_bytes()))
}

/// R41: the first words after the key, if one of them is random.
fn random_word(scan: &mut Scan<'_>, key: &Key, at: usize) {
    let (words, sure) = if key.strength == Strength::Sure { (6, true) } else { (2, false) };
    let mut from = at;
    let mut expected = true;
    for _ in 0..words {
        let (word, next) = word_at(scan, from);
        scan.spend(word.len() / 8);
        let lead = word.iter().take_while(|b| b"<[({\"'`\\".contains(b)).count();
        let start = from + lead;
        let is_text = |b: &&u8| b.is_ascii_alphanumeric() || b"+/=_.~-".contains(b);
        let mut len = scan.rest(start).iter().take(WORD).take_while(is_text).count();
        while len > 0 && matches!(scan.before(start + len), Some(b'.' | b'-' | b'/')) {
            len -= 1;
        }
        let text = scan.slice(start, start + len);
        let hex = sure
            && expected
            && (24..=128).contains(&len)
            && text.iter().all(u8::is_ascii_hexdigit)
            && text.iter().any(u8::is_ascii_digit)
            && text.iter().any(u8::is_ascii_alphabetic);
        let body = text.split(|&b| b == b'=').next().unwrap_or_default();
        let padded = text.len() - body.len() <= 2;
        let plain = padded && !text.starts_with(b"/") && scan.at(start + len) != Some(b':');
        if plain && (hex || is_random_word(text)) {
            let end = start + len;
            return accept(scan, key, Value { start, end, next: end, quoted: false });
        }
        if word.is_empty() || matches!(word.last(), Some(b'.' | b';' | b',')) {
            return;
        }
        expected = is_copula(word) || is_foreign_copula(word);
        from = next;
    }
}
