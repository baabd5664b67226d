//! The words between a key and what it is said to be: `password has been set to x`.

use super::before::follows_user;
use super::{is_bare, word_at};
use crate::Class;
use crate::judge::is_field;
use crate::key::Key;
use crate::made_up::{
    is_jumbled, is_made_up, is_password_like, is_random_word, is_telling, is_uuid,
};
use crate::near::is_harmless;
use crate::phrase::{is_chosen, is_jagged};
use crate::scan::Scan;
use crate::several;
use crate::value::{self, Reach};

/// Where a sentence says that the value begins.
pub(super) fn told(scan: &mut Scan<'_>, key: &Key, at: usize) -> Option<usize> {
    /// Most words between the key and `is`.
    const WORDS: usize = 6;
    let is_password = key.class == Class::Password;
    let (mut word, mut next) = word_at(scan, at);
    let mut here = at;
    // `password (temporary) is x`, `password (bob): x`
    if word.starts_with(b"(")
        && let Some(close) = memchr::memchr(b')', scan.slice(at, at + 48))
    {
        here = at + close + 1;
        let sign = scan.skip_space(here);
        if matches!(scan.at(sign), Some(b':' | b'=')) {
            let from = scan.skip_space(sign + 1);
            return (from < scan.text.len()).then_some(from);
        }
        here = scan.skip_space(here);
        (word, next) = word_at(scan, here);
    }
    let whose = [
        "for", "of", "voor", "van", "für", "fuer", "von", "pour", "para", "de", "del", "on", "op",
        "di", "do", "du", "da", "till", "til", "för", "dla", "des",
    ];
    if whose.iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes())) {
        here = next;
        for _ in 0..WORDS {
            let (named, after) = word_at(scan, here);
            if named.is_empty() {
                return None;
            }
            if is_auxiliary(named) {
                word = named;
                break;
            }
            // `on core-01 from x to y`: several values
            if named == b"from" && is_made_up(word_at(scan, after).0) && is_password {
                return Some(after);
            }
            if matches!(named.last(), Some(b':' | b'=')) && is_password {
                return Some(after);
            }
            here = after;
        }
    }
    // `password 7 x`, `secret 5 x`, as routers write down how it was hidden.
    let kind = word.len() == 1 && matches!(word, b"0" | b"4" | b"5" | b"6" | b"7" | b"8" | b"9");
    if kind && matches!(key.class, Class::Password | Class::Secret | Class::Key) {
        let (hidden, after) = word_at(scan, next);
        let last = after >= scan.text_end || scan.at(next + hidden.len()).is_none();
        if hidden.len() >= 4 && (last || is_made_up(hidden)) {
            return Some(next);
        }
    }
    // `user ops insecure-password x`: a setting at the end of its line.
    let compound = scan.slice(key.start, key.end).iter().any(|b| b"-_".contains(b));
    let last = next >= scan.text_end && !word.is_empty();
    if is_password && compound && last && word.len() >= 4 && word.iter().any(u8::is_ascii_digit) {
        return Some(here);
    }
    if value::quote_at(scan, at).is_some() {
        let value = value::read(scan, at, Reach::Word);
        let text = scan.slice(value.start, value.end);
        // A key may be a UUID; the UUID of a Secret is not the secret.
        let uuid = matches!(key.class, Class::Key | Class::Token) && is_uuid(text);
        let uuid = uuid || key.class == Class::Secret && is_uuid(text) && !is_bare(scan, key);
        if value.quoted && (is_password || is_telling(text) || uuid) {
            return Some(at);
        }
    }
    // `API key 1b4e…`, `authentication token 1b4e…`
    let sign = |b: &u8| b"\"'.,;)\\".contains(b);
    let bare = word.split(sign).next().unwrap_or_default();
    if matches!(key.class, Class::Key | Class::Token) && is_uuid(bare) && says_whose(scan, key) {
        return Some(here);
    }
    // `enter your password to continue`
    if word == b"to" && here == at {
        let (purpose, _) = word_at(scan, next);
        let purpose = purpose.split(|b| b"\"\\.,!".contains(b)).next().unwrap_or_default();
        if purpose.iter().all(u8::is_ascii_lowercase) && !is_chosen(purpose) {
            return None;
        }
    }
    if let Some(value_at) = after_auxiliaries(scan, here) {
        return Some(value_at);
    }
    if is_foreign_copula(word) {
        let (_, next) = word_at(scan, here);
        let (value, _) = word_at(scan, next);
        let bare = value.split(|b| b"\"\\".contains(b)).next().unwrap_or_default();
        let body = bare.get(1..).unwrap_or_default();
        if is_password && is_chosen(bare) {
            return Some(next);
        }
        let plain = body.iter().all(|b| b.is_ascii_lowercase() || *b >= 0x80 || b".!,".contains(b));
        return (!plain || is_password && value::quote_at(scan, next).is_some()).then_some(next);
    }
    if is_password {
        let (word, _) = word_at(scan, at);
        let lead = word.iter().take_while(|b| b"<[({".contains(b)).count();
        let bare = word.get(lead..).unwrap_or_default();
        let bare = bare.split(|b| b">])}\"',;\\".contains(b)).next().unwrap_or_default();
        let pair = several::is_setting(bare);
        return (is_chosen(bare)
            || is_jagged(bare)
            || is_made_up(bare) && !pair
            || follows_user(scan, key) && value::may_be_secret_word(bare))
        .then_some(at + lead)
        .or_else(|| after_colon(scan, at));
    }
    // `JSESSIONID x`
    if key.class == Class::Cookie {
        let (word, _) = word_at(scan, at);
        let long = word.len() >= 16 && word.iter().any(u8::is_ascii_digit);
        return (long && !word.iter().any(|b| b"()/".contains(b))).then_some(at);
    }
    if key.class == Class::Secret {
        let is_password = |text: &[u8]| is_made_up(text) || is_chosen(text);
        // `default credentials in use: bob / x`
        let name = scan.slice(key.start, key.end).to_ascii_lowercase();
        let most = if name.starts_with(b"cred") { 4 } else { 0 };
        let mut from = at;
        for _ in 0..most {
            let (word, next) = word_at(scan, from);
            from = next;
            if word.ends_with(b":") {
                let (user, sign) = word_at(scan, next);
                let (slash, after) = word_at(scan, sign);
                let (text, _) = word_at(scan, after);
                let tail = text.iter().rev().take_while(|b| b".,;)\"\\".contains(b)).count();
                let text = text.get(..text.len() - tail).unwrap_or_default();
                if matches!(slash, b"/" | b"|") && (is_made_up(text) || is_chosen(text)) {
                    return Some(after);
                }
                // `in use: bob:x`
                let named = |b: &&u8| b.is_ascii_alphanumeric() || b"_-.@".contains(b);
                let colon = user.iter().take_while(named).count();
                if colon > 0
                    && user.get(colon) == Some(&b':')
                    && is_password(user.get(colon + 1..).unwrap_or_default())
                {
                    return Some(next + colon + 1);
                }
                break;
            }
        }
        // `credentials bob:x`, `credentials (bob / x)`
        let at = at + usize::from(scan.at(at) == Some(b'('));
        let (word, next) = word_at(scan, at);
        let word = word.split(|b| matches!(b, b'"' | b'\\')).next().unwrap_or_default();
        // `credentials password=x`: a key of its own.
        let pair = word.split(|&b| b == b'=').next().unwrap_or_default();
        if pair.len() < word.len() && is_field(pair) {
            return None;
        }
        if is_random_word(word) || is_jumbled(word) {
            return Some(at);
        }
        let colon = word.iter().position(|b| matches!(b, b':' | b'/')).unwrap_or(0);
        if colon > 0 && !word.contains(&b'=') && is_password(word.get(colon + 1..)?) {
            return Some(at + colon + 1);
        }
        let (sign, after) = word_at(scan, next);
        let (last, _) = word_at(scan, after);
        let last = last.split(|b| b")\"\\".contains(b)).next().unwrap_or_default();
        return (matches!(sign, b"/" | b":") && is_made_up(last)).then_some(after);
    }
    None
}

/// `api key`, `authentication token`: a key or token that lets its bearer in.
fn says_whose(scan: &Scan<'_>, key: &Key) -> bool {
    const WORDS: &[&[u8]] = &[
        b"api",
        b"access",
        b"auth",
        b"authentication",
        b"authorization",
        b"bearer",
        b"refresh",
        b"session",
        b"secret",
        b"deploy",
        b"license",
        b"licence",
        b"subscription",
        b"security",
        b"personal",
        b"service",
        b"instrumentation",
        b"master",
        b"admin",
        b"bot",
        b"apikey",
        b"accesskey",
        b"authtoken",
    ];
    let name = scan.slice(key.start, key.end).to_ascii_lowercase();
    let before = scan.slice(key.start.saturating_sub(24).max(scan.body.min(key.start)), key.start);
    let before = before.trim_ascii_end();
    let word = before.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known) || name.starts_with(known))
}

/// `password from environment: x`, `password resolved as x`: a few words on.
pub(super) fn after_colon(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut from = at;
    for _ in 0..3 {
        let (word, next) = word_at(scan, from);
        let plain = |b: &u8| b.is_ascii_alphabetic();
        let (sign, body) = word.split_last()?;
        if !body.iter().all(plain) || !(plain(sign) || *sign == b':') {
            return None;
        }
        if *sign == b':' || word == b"as" {
            let (value, _) = word_at(scan, next);
            let value = value.split(|b| b"\",\\".contains(b)).next().unwrap_or_default();
            return (is_made_up(value) && !is_harmless(value) || is_chosen(value)).then_some(next);
        }
        from = next;
    }
    None
}

/// Where the value begins after `is`, `was changed to`, `has been reset to`, `will be`.
pub(super) fn after_auxiliaries(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    let mut from = at;
    let mut stated = false;
    for _ in 0..6 {
        let (word, next) = word_at(scan, from);
        let link = is_copula(word) || [&b"as"[..], b"be", b"now", b"into"].contains(&word);
        // `was rewritten as x`, `resolved to x`: any participle before such a word.
        let participle = word.ends_with(b"ed")
            && !word.ends_with(b"eed")
            && matches!(word_at(scan, next).0, b"to" | b"as" | b"into" | b"to:" | b"as:");
        if !link && !is_auxiliary(word) && !is_changed(word) && !participle {
            break;
        }
        stated |= link || word.ends_with(b":");
        from = next;
        if matches!(word.last(), Some(b':')) {
            break;
        }
        // `wurde geändert in x`, `is generated for bob: x`, `changed from x to y`
        let (after, value) = word_at(scan, from);
        if is_auxiliary(word) && [&b"auf"[..], b"naar"].contains(&after) {
            return (value < scan.text.len()).then_some(value);
        }
        let to = after.strip_suffix(b":").unwrap_or(after);
        if is_changed(word) && [&b"in"[..], b"naar", b"auf", b"zu", b"en"].contains(&to) {
            return (value < scan.text.len()).then_some(value);
        }
        if is_changed(word) && after == b"for" {
            let (whom, value) = word_at(scan, value);
            return (whom.ends_with(b":") && value < scan.text.len()).then_some(value);
        }
        if is_changed(word) && after == b"from" {
            let (old, next) = word_at(scan, value);
            let (to, new) = word_at(scan, next);
            let chosen = is_password_like(old) || is_made_up(old) || is_jagged(old);
            if to == b"to" && (chosen || is_chosen(old)) {
                scan.add(value, value + old.len(), Class::Password);
                return Some(new);
            }
        }
    }
    (stated && from < scan.text.len()).then_some(from)
}

/// Words that say that there is a new value.
pub(super) fn is_changed(word: &[u8]) -> bool {
    [
        "changed",
        "rotated",
        "replaced",
        "generated",
        "reset",
        "set",
        "updated",
        "created",
        "gewijzigd",
        "veranderd",
        "ingesteld",
        "aangepast",
        "geändert",
        "gesetzt",
        "zurückgesetzt",
        "changé",
        "cambiada",
    ]
    .iter()
    .any(|w| w.as_bytes() == word)
}

/// Words between a key and its value that say nothing of either.
pub(super) fn is_auxiliary(word: &[u8]) -> bool {
    is_copula(word)
        || is_foreign_copula(word)
        || [
            &b"has"[..],
            b"have",
            b"had",
            b"been",
            b"be",
            b"will",
            b"now",
            b"set",
            b"changed",
            b"reset",
            b"updated",
            b"rotated",
            b"currently",
            b"to",
            b"as",
            b"still",
            b"being",
            b"generated",
            b"generated:",
            b"created",
            b"created:",
        ]
        .contains(&word)
}

pub(super) fn is_copula(word: &[u8]) -> bool {
    [&b"is"[..], b"was", b"is:", b"was:", b"are", b"are:", b"equals", b"to", b"to:", b"now:", b"="]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}

/// In German, Dutch, French and Spanish: what follows must look like a value.
pub(super) fn is_foreign_copula(word: &[u8]) -> bool {
    [
        "lautet", "lautet:", "ist", "ist:", "wurde", "luidt", "luidt:", "wordt", "werd", "est",
        "es", "->", "=>", "-", "è", "é", "jest", "är", "er", "to", "je", "este", "é:", "on:",
    ]
    .iter()
    .any(|w| word.eq_ignore_ascii_case(w.as_bytes()))
}
