//! A value further on in the sentence than its key (R01, R02, R10).

use super::word_at;
use crate::Class;
use crate::judge::{is_constants, is_field};
use crate::key::{Key, Strength};
use crate::made_up::{is_jumbled, is_made_up, is_product, is_random_word};
use crate::near;
use crate::phrase::{is_chosen, is_phrase, is_scrambled, is_unlike_names};
use crate::placeholder;
use crate::scan::Scan;
use crate::several;
use crate::value::{self, Reach};

/// `password you entered, "x"`, `password of bob does not match: got x`: a value further on in the sentence,
/// in quotes or after a word that introduces one.
pub(crate) fn introduced(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
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
        b"stays",
        b"remains",
        b"becomes",
        b"it's",
        b"reads",
        b"says",
        b"chosen",
        b"sent",
        b"submitted",
        b"es",
        b"est",
        b"ist",
        b"lautet",
        b"luidt",
        "è".as_bytes(),
        b"jest",
    ];
    const WEAK: &[&[u8]] = &[
        b"from",
        b"to",
        b"with",
        b"using",
        b"and",
        b"as",
        b"or",
        b"naar",
        b"in",
        b"auf",
        b"met",
        b"mit",
        b"/",
        b"para",
        b"na",
        b"til",
        b"till",
        b"zu",
        b"en",
        b"a",
        b"su",
        b"por",
        b"com",
        b"con",
        "à".as_bytes(),
        b"do",
        b"ke",
        "på".as_bytes(),
        b"pelo",
        b"avec",
        b"op",
    ];
    /// Beginnings of participles that say that there is a new one: what follows `to` is it.
    const CHANGES: &[&str] = &[
        "staat",
        "gewijzigd",
        "veranderd",
        "aangepast",
        "ingesteld",
        "gezet",
        "hersteld",
        "vervangen",
        "gereset",
        "geändert",
        "gesetzt",
        "zurückgesetzt",
        "umgestellt",
        "changé",
        "modifié",
        "réinitialisé",
        "remplacé",
        "cambiad",
        "restablecid",
        "actualizad",
        "establecid",
        "alterad",
        "repost",
        "redefinid",
        "definid",
        "atualizad",
        "cambiat",
        "reimpostat",
        "modificat",
        "impostat",
        "ustawion",
        "zmienion",
        "zresetowan",
        "změněn",
        "nastaven",
        "ændret",
        "nulstillet",
        "ändrat",
        "ändrades",
        "återställ",
        "endret",
        "tilbakestilt",
        "vaihdettu",
        "changed",
        "reset",
        "rotated",
        "updated",
        "rewritten",
        "replaced",
    ];
    /// Words that change nothing of what was said before them.
    const ADVERBS: &[&[u8]] = &[
        b"now",
        b"currently",
        b"just",
        b"simply",
        b"probably",
        b"actually",
        b"again",
        b"only",
        b"temporarily",
        b"nu",
        b"jetzt",
        b"nun",
        b"maintenant",
        b"ahora",
        b"agora",
        b"adesso",
        b"ora",
        b"teraz",
        b"nyt",
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
    let (mut sure, mut weak, mut named, mut changed) = (false, false, false, false);
    let mut from = at;
    let mut last: &[u8] = b"";
    for _ in 0..MOST {
        let (word, next) = word_at(scan, from);
        scan.spend(word.len() / 8 + 1);
        // A flag has a value of its own.
        let flag = word.starts_with(b"--") && word.get(2).is_some_and(u8::is_ascii_alphabetic);
        if word.is_empty() || flag || word.contains(&b'=') && several::is_setting(word) {
            return false;
        }
        // `credentials password=x`: a key of its own.
        let sign = memchr::memchr(b'=', word).unwrap_or(0);
        if sign > 0 && is_field(word.get(..sign).unwrap_or_default()) {
            return false;
        }
        // `Secret is up to date {"hash":"x"}`: its members have names of their own.
        if key.class != Class::Password
            && word.windows(2).any(|w| matches!(w, [b'{', b'"' | b'\\']))
        {
            return false;
        }
        // It is gone already, and what else belongs to it.
        let quotes = word.iter().take_while(|b| b"\"'`\\(<".contains(b)).count();
        if scan.own && placeholder::end_at(scan.text, from + quotes).is_some() {
            return true;
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
        let password = key.class == Class::Password || is_constants(scan, key);
        let spoken = text.iter().filter(|&&b| b == b' ').count() >= 2;
        let choice = sure
            || password && weak && changed && is_chosen(text)
            || value.quoted && !named
            || !password && weak && is_random_word(text)
            || password
                && (weak || lead > 0 && !named)
                && (is_choice(text)
                    || is_phrase(text) && !named
                    || lead > 0 && text.len() >= 32 && text.iter().all(u8::is_ascii_hexdigit))
                && (last != b"from" || matches!(word_at(scan, next).0, b"to" | b"naar"))
            || password && is_unlike_names(text);
        let fits = || {
            if password {
                (is_made_up(text) || is_chosen(text) || is_unlike_names(text)) && !spoken
            } else {
                let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
                is_random_word(text) || is_jumbled(text) || hex
            }
        };
        let pair = || pair || !value.quoted && several::is_pair(text);
        if choice
            && !pair()
            && fits()
            && !is_place(text)
            && !is_call(text)
            && (!is_field(text) || sure && is_chosen(text))
        {
            several::accept(scan, key, value);
            return true;
        }
        // `The password was set. It's x`
        let goes_on = word.ends_with(b".")
            && (scan.slice(next, next + 2).eq_ignore_ascii_case(b"it")
                || scan.slice(next, next + 4).eq_ignore_ascii_case(b"new "));
        if matches!(word.last(), Some(b'.' | b';' | b'}' | b'{')) && !goes_on {
            return false;
        }
        let tail = word.iter().rev().take_while(|b| b":,".contains(b)).count();
        let bare = word.get(lead..word.len().saturating_sub(tail)).unwrap_or_default();
        let folded = bare.to_ascii_lowercase();
        if ADVERBS.contains(&&*folded) && tail == 0 {
            from = next;
            continue;
        }
        sure = SURE.contains(&&*folded) || word.ends_with(b":") && !NAMES.contains(&&*folded);
        weak = WEAK.contains(&&*folded);
        named = NAMES.contains(&&*folded);
        sure &= !named;
        changed = weak && {
            let last = String::from_utf8_lossy(last).to_lowercase();
            CHANGES.iter().any(|change| last.starts_with(change))
        };
        sure |= changed && matches!(key.class, Class::Password);
        from = next;
        last = bare;
    }
    false
}

/// `login as bob with x`, `bind failed for cn=bob using x`: who tried to get in, and with what.
pub(crate) fn at_attempt(scan: &mut Scan<'_>, start: usize, end: usize) {
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    if start < scan.done || inside || scan.in_placeholder(start) {
        return;
    }
    let key = Key { start, end, class: Class::Password, strength: Strength::Sure, plural: false };
    if !introduced(scan, &key, scan.skip_space(end)) {
        near::take(scan, &key);
    }
}

/// Whether a made-up word is none of a host, pod or file.
pub(super) fn is_choice(text: &[u8]) -> bool {
    is_scrambled(text)
        || !text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b))
}

/// Addresses, names of classes and of those who speak.
pub(super) fn is_place(text: &[u8]) -> bool {
    // `398.450µs`
    let number = text.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    memchr::memmem::find(text, b"://").is_some()
        || number > 0 && text.get(number..) == Some("µs".as_bytes())
        || is_product(text)
        || text.iter().filter(|&&b| b == b'.').count() >= 2
        || text.contains(&b'@') && text.contains(&b'.')
        || text.starts_with(b"/")
}

/// `on field 'password': rejected value [x]`: what is in brackets or quotes after the word `value`.
pub(crate) fn valued_after(scan: &mut Scan<'_>, key: &Key) -> bool {
    /// From the key to the word.
    const NEAR: usize = 48;
    let near = scan.slice(key.end, key.end + NEAR);
    let Some(found) = memchr::memmem::find(near, b"value") else { return false };
    let end = key.end + found + 5;
    let before = near.get(..found).unwrap_or_default();
    let clause = before.iter().any(|b| b"{}=;".contains(b));
    let mut at = end + usize::from(matches!(scan.at(end), Some(b':' | b'=')));
    at = scan.skip_space(at);
    if clause || at == end {
        return false;
    }
    let value = if scan.at(at) == Some(b'[') {
        let len = scan.run(at + 1, 128, |b| !b"[]".contains(b));
        let close = at + 1 + len;
        if scan.at(close) != Some(b']') {
            return false;
        }
        value::Value { start: at + 1, end: close, next: close + 1, quoted: true }
    } else {
        let mut value = value::read(scan, at, Reach::Word);
        value.end -= usize::from(!value.quoted && scan.before(value.end) == Some(b','));
        value
    };
    let text = scan.slice(value.start, value.end);
    let fits = match key.class {
        Class::Password => text.len() >= 4,
        _ => is_random_word(text) || is_made_up(text),
    };
    let said = value.quoted || is_made_up(text) || is_phrase(text);
    let own = said && fits && !is_field(text) && !value::is_nothing(text);
    if own {
        scan.accept(key, value);
    }
    own
}

/// `passwordHistory(3`: a rule and its limit, without the bracket that closes it.
fn is_call(text: &[u8]) -> bool {
    let name = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let limit = text.get(name + 1..).unwrap_or_default();
    name >= 4
        && text.get(name) == Some(&b'(')
        && (1..=3).contains(&limit.len())
        && limit.iter().all(u8::is_ascii_digit)
}
