//! A value further on in the sentence than its key (R01, R02, R10).

use super::word_at;
use crate::redact::Class;
use crate::redact::judge::{is_field, is_jumbled, is_made_up, is_product, is_random_word};
use crate::redact::key::Key;
use crate::redact::scan::Scan;
use crate::redact::several;
use crate::redact::value::{self, Reach};

/// `password you entered, "x"`, `password of bob does not match: got x`: a value further on in the sentence,
/// in quotes or after a word that introduces one.
pub(in crate::redact) fn introduced(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    /// Most words of the sentence.
    const MOST: usize = 12;
    const SURE: &[&[u8]] = &[
        b"got",
        b"expected",
        b"received",
        b"entered",
        b"given",
        b"tried",
        b"typed",
        b"value",
        b"new",
        b"old",
        b"supplied",
        b"provided",
        b"is",
        b"was",
        b"used",
        b"specified",
        b"input",
        b"actual",
        b"following",
        b"be",
        b"still",
        b"es",
        b"est",
        b"ist",
        b"lautet",
        b"luidt",
        "è".as_bytes(),
        b"jest",
    ];
    const WEAK: &[&[u8]] = &[
        b"from", b"to", b"with", b"using", b"and", b"as", b"or", b"naar", b"in", b"auf", b"met",
        b"mit", b"/",
    ];
    const NAMES: &[&[u8]] = &[
        b"user",
        b"for",
        b"of",
        b"on",
        b"host",
        b"account",
        b"client",
        b"by",
        b"at",
        b"id",
        b"voor",
        b"van",
        b"database",
        b"server",
        b"realm",
        b"service",
        b"pod",
        b"namespace",
        b"name",
        b"file",
        b"template",
    ];
    let (mut sure, mut weak, mut named) = (false, false, false);
    let mut from = at;
    let mut last: &[u8] = b"";
    for _ in 0..MOST {
        let (word, next) = word_at(scan, from);
        scan.spend(word.len() / 8 + 1);
        if word.is_empty() || word.contains(&b'=') {
            return false;
        }
        let lead = word.iter().take_while(|b| b"<[(".contains(b)).count();
        let mut value = value::read(scan, from + lead, Reach::Word);
        if !value.quoted {
            let text = scan.slice(value.start, value.end);
            let tail = text.iter().rev().take_while(|b| b".,;:)]>".contains(b)).count();
            value.end -= tail.min(text.len());
        }
        let text = scan.slice(value.start, value.end);
        let pair =
            matches!(scan.at(scan.skip_space(value.next)), Some(b':' | b'=')) && value.quoted;
        let password = key.class == Class::Password;
        let choice = sure
            || value.quoted && !named
            || password
                && (weak || lead > 0 && !named)
                && is_choice(text)
                && (last != b"from" || matches!(word_at(scan, next).0, b"to" | b"naar"));
        let fits = if password {
            is_made_up(text)
        } else {
            let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
            is_random_word(text) || is_jumbled(text) || hex
        };
        let pair = pair || !value.quoted && several::is_pair(text);
        if choice && !pair && fits && !is_place(text) && !is_field(text) {
            several::accept(scan, key, value);
            return true;
        }
        if matches!(word.last(), Some(b'.' | b';' | b'}' | b'{')) {
            return false;
        }
        let tail = word.iter().rev().take_while(|b| b":,".contains(b)).count();
        let bare = word.get(..word.len() - tail).unwrap_or_default();
        let folded = bare.to_ascii_lowercase();
        sure = SURE.contains(&&*folded) || word.ends_with(b":") && !NAMES.contains(&&*folded);
        weak = WEAK.contains(&&*folded);
        named = NAMES.contains(&&*folded);
        sure &= !named;
        from = next;
        last = bare;
    }
    false
}

/// Whether a made-up word is none of a host, pod or file.
pub(super) fn is_choice(text: &[u8]) -> bool {
    !text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b))
}

/// Addresses, names of classes and of those who speak.
pub(super) fn is_place(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"://").is_some()
        || is_product(text)
        || text.iter().filter(|&&b| b == b'.').count() >= 2
        || text.contains(&b'@') && text.contains(&b'.')
        || text.starts_with(b"/")
}
