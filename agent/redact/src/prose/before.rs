//! A value that stands before its key (R01, R02, R10).

use super::introduced::{is_choice, is_place};
use super::is_path_like;
use crate::judge::is_field;
use crate::key::Key;
use crate::made_up::{is_made_up, is_random_word};
use crate::near::is_harmless;
use crate::phrase::{is_chosen, is_unlike_names};
use crate::scan::Scan;
use crate::value::Value;

/// `'x' is not a valid password`, `012345 is your verification code`: what a sentence about the key began
/// with.
pub(crate) fn stated_before(scan: &mut Scan<'_>, key: &Key) -> bool {
    /// How far before, in bytes, and most words between.
    const NEAR: usize = 160;
    const WORDS: usize = 8;
    const LINKS: &[&[u8]] = &[
        b"is",
        b"not",
        b"a",
        b"an",
        b"the",
        b"valid",
        b"invalid",
        b"wrong",
        b"for",
        b"field",
        b"as",
        b"your",
        b"my",
        b"this",
        b"no",
        b"correct",
        b"incorrect",
        b"new",
        b"current",
        b"temporary",
        b"initial",
        b"default",
        b"was",
        b"used",
        b"been",
        b"has",
        b"one-time",
        b"property",
        b"attribute",
        b"parameter",
        b"een",
        b"geldig",
        b"geen",
        b"uw",
        b"je",
        b"acceptable",
        b"allowed",
        b"login",
    ];
    let floor = key.start.saturating_sub(NEAR).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    let opened = before.iter().rev().take_while(|b| b"\"'`\\".contains(b)).count();
    let before = before.get(..before.len() - opened).unwrap_or_default();
    if before.last() != Some(&b' ') {
        return false;
    }
    let mut end = before.len();
    let mut links = 0;
    loop {
        let text = before.get(..end).unwrap_or_default();
        end = text.trim_ascii_end().len();
        let text = before.get(..end).unwrap_or_default();
        let word = text.rsplit(|&b| b == b' ').next().unwrap_or_default();
        if word.is_empty() {
            return false;
        }
        // In JSON the first word of a string follows its quote.
        let tail = word.iter().rev().take_while(|b| b"\"\\".contains(b)).count();
        let inner = word.get(..word.len() - tail).unwrap_or_default();
        let cut = memchr::memrchr(b'"', inner).map_or(0, |quote| quote + 1);
        let opened = cut > 0;
        let word = word.get(cut..).unwrap_or_default();
        let start = end - word.len();
        if LINKS.iter().any(|link| word.eq_ignore_ascii_case(link)) {
            links += 1;
            end = start;
            if links > WORDS {
                return false;
            }
            continue;
        }
        // What the floor cut is no whole word.
        let whole = start > 0 || floor == scan.body;
        let sign = |b: &&u8| b"\"'`\\<>()[]:,".contains(b);
        let head = word.iter().take_while(sign).count();
        let tail = word.iter().rev().take_while(sign).count();
        let text = word.get(head..word.len().saturating_sub(tail)).unwrap_or_default();
        let named = scan.slice(key.start, key.end).to_ascii_lowercase();
        let code = (4..=8).contains(&text.len())
            && text.iter().all(u8::is_ascii_digit)
            && (named.ends_with(b"code") || named.ends_with(b"pin"));
        let quoted = (head > 0 || opened) && tail > 0;
        let chosen =
            is_made_up(text) && (quoted || is_choice(text)) && !is_place(text) && !is_field(text);
        // `kubelet[8792]:` says it.
        let speaker = !quoted
            && word.get(word.len().saturating_sub(tail)..).is_some_and(|t| t.contains(&b':'));
        let torn = text.iter().any(|b| b"\"{}\\[]=".contains(b));
        if links == 0 || !whole || !(code || chosen) || torn || speaker || is_harmless(text) {
            return false;
        }
        scan.add(floor + start + head, floor + start + head + text.len(), key.class);
        return true;
    }
}

/// `with x as password`, `x als wachtwoord`: the value came first.
pub(crate) fn said_before(scan: &mut Scan<'_>, key: &Key) -> bool {
    let floor = key.start.saturating_sub(160).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    let words = [
        &b" as your one-time "[..],
        b" as your ",
        b" as ",
        b" as the ",
        b" as my ",
        b" as initial ",
        b" as default ",
        b" as a ",
        b" as its ",
        b" als ",
        b" as new ",
        b" as admin ",
    ];
    let Some(lead) = words.iter().find(|w| before.ends_with(w)) else { return false };
    let text = before.get(..before.len() - lead.len()).unwrap_or_default();
    let word = text.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    let trim = |b: &&u8| b"\"'`\\<>()[]".contains(b);
    let tail = word.iter().rev().take_while(trim).count();
    let head = word.iter().take_while(trim).count();
    let end = floor + text.len() - tail;
    let start = floor + text.len() - word.len() + head;
    let word = scan.slice(start, end);
    let code = lead.ends_with(b"one-time ") && word.iter().all(u8::is_ascii_digit);
    // `gave him Kkaw-atY-u as password`: capitals that begin no word.
    let odd = word.len() >= 8
        && word.iter().any(u8::is_ascii_lowercase)
        && word.iter().skip(1).any(u8::is_ascii_uppercase)
        && word.iter().all(|b| b.is_ascii_alphabetic() || b"-_".contains(b))
        && word.iter().any(|b| b"-_".contains(b))
        && !is_field(word);
    if start >= end || !(is_made_up(word) || is_chosen(word) || odd || code && word.len() >= 4) {
        return false;
    }
    scan.accept(key, Value { start, end, next: key.end, quoted: false });
    true
}

/// `user bob and password x`, `bob / password x`: after the name of a user even a plain word is one.
pub(crate) fn follows_user(scan: &Scan<'_>, key: &Key) -> bool {
    let before = scan.slice(key.start.saturating_sub(64).max(scan.body.min(key.start)), key.start);
    if before.ends_with(b" / ") {
        return true;
    }
    let Some(head) = before.strip_suffix(b" and ").or(before.strip_suffix(b" en ")) else {
        return false;
    };
    let user = head.rsplit(|&b| b == b' ').nth(1).unwrap_or_default();
    [&b"user"[..], b"username", b"login", b"gebruiker"].iter().any(|w| user.eq_ignore_ascii_case(w))
}

/// R41: `x is no valid token`, `using x as key`: a random word shortly before the key.
pub(crate) fn random_before(scan: &mut Scan<'_>, key: &Key) {
    /// Most words and bytes before the key.
    const WORDS: usize = 5;
    const NEAR: usize = 160;
    let floor = key.start.saturating_sub(NEAR).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    let mut end = before.len();
    // In JSON the first word of a string follows its quote.
    for word in before.rsplit(|b| matches!(b, b' ' | b'"')).take(WORDS + 2) {
        let start = end - word.len();
        let trim = |b: &&u8| b"\"'`\\<>()[]{}:;,.".contains(b);
        let head = word.iter().take_while(trim).count();
        let tail = word.iter().rev().take_while(trim).count();
        let text = word.get(head..word.len().saturating_sub(tail)).unwrap_or_default();
        // `realmId=x`
        let pair = text.iter().take_while(|b| **b != b'=').count() + 2 < text.len();
        let plain = text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(b)) && !pair;
        // What the floor cut is no whole word.
        let whole = start > 0 || floor == scan.body;
        if whole && plain && text.len() >= 20 && !is_path_like(text) && is_random_word(text) {
            let (start, end) = (floor + start + head, floor + start + head + text.len());
            scan.add(start, end, key.class);
            return;
        }
        end = start.saturating_sub(1);
    }
}

/// `value [x] of the password field`, `typed "x" where the password belongs`: what a sentence that ends in
/// the key says to be a value, or what can be nothing else.
pub(crate) fn valued_before(scan: &mut Scan<'_>, key: &Key) -> bool {
    /// Most words and bytes before the key.
    const WORDS: usize = 10;
    const NEAR: usize = 160;
    const VERBS: &[&[u8]] = &[
        b"value",
        b"typed",
        b"entered",
        b"tried",
        b"used",
        b"gave",
        b"supplied",
        b"sent",
        b"submitted",
        b"got",
        b"using",
        b"chose",
        b"pasted",
        b"with",
        b"given",
        b"provided",
        b"input",
        b"put",
    ];
    let floor = key.start.saturating_sub(NEAR).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    let mut end = before.len();
    for _ in 0..WORDS {
        end = before.get(..end).unwrap_or_default().trim_ascii_end().len();
        let text = before.get(..end).unwrap_or_default();
        let start = memchr::memrchr(b' ', text).map_or(0, |space| space + 1);
        let word = text.get(start..).unwrap_or_default();
        // Another clause; what the floor cut is no whole word.
        if word.is_empty()
            || start == 0 && floor > scan.body
            || word.ends_with(b".") && word.len() > 1
        {
            return false;
        }
        let sign = |b: &&u8| b"\"'`\\<>()[]:,".contains(b);
        let head = word.iter().take_while(sign).count();
        let tail = word.iter().rev().take_while(sign).count();
        let bare = word.get(head..word.len().saturating_sub(tail)).unwrap_or_default();
        // `[value=x] for password`
        if let Some(value) = bare.strip_prefix(b"value=")
            && value.len() >= 4
            && !is_field(value)
        {
            let from = floor + start + head + 6;
            scan.add(from, from + value.len(), key.class);
            return true;
        }
        let lead = text.get(..start).unwrap_or_default().trim_ascii_end();
        let verb = lead.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
        let told = VERBS.iter().any(|known| verb.eq_ignore_ascii_case(known));
        let torn = bare.iter().any(|b| b"\"{}\\[]=<>()".contains(b));
        let enclosed = head > 0 && tail > 0 && verb.eq_ignore_ascii_case(b"value");
        let fits = enclosed && bare.len() >= 4
            || told && (is_made_up(bare) || is_chosen(bare))
            || is_unlike_names(bare);
        // `[bob@host dir]$ `: where the command is typed.
        let prompt = floor + start == scan.body && word.starts_with(b"[") && bare.contains(&b'@');
        let plain = !is_place(bare) && !is_field(bare) && (enclosed || !is_harmless(bare));
        if fits && !torn && !prompt && plain {
            scan.add(floor + start + head, floor + start + head + bare.len(), key.class);
            return true;
        }
        end = start;
    }
    false
}

/// `session ID x is invalid, creating a new session for cookie JSESSIONID`: an identifier in the sentence
/// that names the cookie it belongs to.
pub(crate) fn session_before(scan: &mut Scan<'_>, key: &Key) -> bool {
    /// How far before, bytes.
    const NEAR: usize = 160;
    let floor = key.start.saturating_sub(NEAR).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    let said = before
        .windows(8)
        .position(|w| w.eq_ignore_ascii_case(b"session ") || w.eq_ignore_ascii_case(b"sessions"));
    let Some(said) = said else { return false };
    let mut at = said + 8;
    while let Some(rest) = before.get(at..).filter(|rest| !rest.is_empty()) {
        let len =
            rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)).count();
        let word = rest.get(..len).unwrap_or_default();
        let digits = word.split(|&b| b == b'.').next().unwrap_or_default();
        let hex = digits.len() >= 24 && digits.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
        if hex || is_random_word(word) {
            let end = len - usize::from(word.ends_with(b"."));
            scan.add(floor + at, floor + at + end, key.class);
            return true;
        }
        at += len + 1;
    }
    false
}
