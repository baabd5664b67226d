//! Keys and values with no sign between them: flags and sentences (R09, R10, R41).

use super::Class;
use super::judge::{
    is_field, is_hex_secret, is_jumbled, is_made_up, is_password_like, is_product, is_random_word,
    is_telling, is_uuid, is_value,
};
use super::key::{self, Key, Strength};
use super::scan::Scan;
use super::several;
use super::value::{self, Reach, Value};
use super::words::COMMON;

/// Longest word of a sentence, bytes.
const WORD: usize = 512;

/// Whether `key` is a flag: `--password`, `-password`.
pub(super) fn is_flag(scan: &Scan<'_>, key: &Key) -> bool {
    let before = scan.slice(key.start.saturating_sub(2).max(scan.body.min(key.start)), key.start);
    let Some((b'-', before)) = before.split_last() else { return false };
    before.last().is_none_or(|b| matches!(b, b'-' | b' ' | b'"' | b'\'' | b'[' | b'\t'))
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
            from = scan.skip_space(at + 1);
        } else if !spaced {
            return;
        }
        let value = value::read(scan, from, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if text.first() != Some(&b'-') && is_value(scan, &key, text) {
            scan.accept(&key, value);
        }
    } else if let Some(from) = with_value(scan, at).filter(|_| spaced) {
        let value = value::read(scan, from, Reach::Word);
        if is_value(scan, &key, scan.slice(value.start, value.end)) {
            scan.accept(&key, value);
        } else if !quoted_key {
            prose(scan, &key, at);
        }
    } else if spaced && !quoted_key {
        prose(scan, &key, at);
    } else if spaced && let Some(from) = said_of_name(scan, at) {
        let value = value::read(scan, from, Reach::Word);
        if value.quoted && is_value(scan, &key, scan.slice(value.start, value.end)) {
            scan.accept(&key, value);
        }
    } else if quoted_key && spaced && key.class == Class::Password && introduced(scan, &key, at) {
        // `'password' changed from 'x' to 'y'`
    } else if quoted_key {
        if key.class != Class::Password || !said_before(scan, &key) {
            random_before(scan, &key);
        }
    } else {
        in_apposition(scan, &key, at);
    }
}

/// `'db.password' has been set to 'x'`: where the quoted value begins after the quoted name.
fn said_of_name(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut from = at;
    for _ in 0..5 {
        if from > at && value::quote_at(scan, from).is_some() {
            return Some(from);
        }
        let (word, next) = word_at(scan, from);
        if !(is_auxiliary(word)
            || is_changed(word)
            || matches!(word, b"with" | b"value" | b"value:"))
        {
            return None;
        }
        from = next;
    }
    None
}

/// Where the value begins after `with value `, `value:` and the like.
fn with_value(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = at;
    for lead in [&b"with "[..], b"to ", b"has ", b"the "] {
        if scan.slice(at, at + lead.len()).eq_ignore_ascii_case(lead) {
            at = scan.skip_space(at + lead.len());
        }
    }
    if !scan.slice(at, at + 5).eq_ignore_ascii_case(b"value") {
        return None;
    }
    at += 5;
    if matches!(scan.at(at), Some(b':' | b'=')) {
        at += 1;
    }
    let from = scan.skip_space(at);
    (from > at && from < scan.text.len()).then_some(from)
}

/// The word at `from`, and where the next one begins.
fn word_at<'a>(scan: &Scan<'a>, from: usize) -> (&'a [u8], usize) {
    let len = scan.run(from, WORD, |b| !b.is_ascii_whitespace());
    (scan.slice(from, from + len), scan.skip_space(from + len))
}

/// R10: `password is x`, `password for bob was changed to x`, `with password x`, `password 'x'`; and
/// R41: a random word close to any key.
fn prose(scan: &mut Scan<'_>, key: &Key, at: usize) {
    if key.class == Class::Password && said_before(scan, key) {
        return;
    }
    let told = if key.strength == Strength::Weak { None } else { told(scan, key, at) };
    if let Some(from) = told {
        let mut value = value::read(scan, from, Reach::Word);
        // The full stop of the sentence.
        if !value.quoted && scan.before(value.end) == Some(b'.') && value.end - value.start > 3 {
            value.end -= 1;
        }
        if stands_for_itself(scan, key, &value)
            && is_value(scan, key, scan.slice(value.start, value.end))
        {
            return several::accept(scan, key, value);
        }
    }
    let own = matches!(key.class, Class::Password | Class::Secret | Class::Token | Class::Key);
    if own && introduced(scan, key, at) {
        return;
    }
    random_word(scan, key, at);
}

/// `password you entered, "x"`, `password of bob does not match: got x`: a value further on in the sentence,
/// in quotes or after a word that introduces one.
pub(super) fn introduced(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
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
fn is_choice(text: &[u8]) -> bool {
    !text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b))
}

/// Addresses, names of classes and of those who speak.
fn is_place(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"://").is_some()
        || is_product(text)
        || text.iter().filter(|&&b| b == b'.').count() >= 2
        || text.contains(&b'@') && text.contains(&b'.')
        || text.starts_with(b"/")
}

/// `'x' is not a valid password`, `012345 is your verification code`: what a sentence about the key began
/// with.
pub(super) fn stated_before(scan: &mut Scan<'_>, key: &Key) -> bool {
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
        if links == 0 || !whole || !(code || chosen) || torn || speaker {
            return false;
        }
        scan.add(floor + start + head, floor + start + head + text.len(), key.class);
        return true;
    }
}

/// Whether the key is `secret` and no more.
fn is_bare(scan: &Scan<'_>, key: &Key) -> bool {
    scan.slice(key.start, key.end).eq_ignore_ascii_case(b"secret")
}

/// `the password, x, expires`: in apposition.
fn in_apposition(scan: &mut Scan<'_>, key: &Key, comma: usize) -> bool {
    if scan.at(comma) != Some(b',') || key.strength == Strength::Weak || key.plural {
        return false;
    }
    let from = scan.skip_space(comma + 1);
    let (word, _) = word_at(scan, from);
    let Some(text) = word.strip_suffix(b",") else { return false };
    let fits = if key.class == Class::Password { is_made_up(text) } else { is_random_word(text) };
    if from > comma + 1 && fits {
        let end = from + text.len();
        scan.accept(key, Value { start: from, end, next: end, quoted: false });
        return true;
    }
    false
}

/// Whether `value` can be one in a sentence.
fn stands_for_itself(scan: &Scan<'_>, key: &Key, value: &Value) -> bool {
    let text = scan.slice(value.start, value.end);
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    // `Using a password on the command line interface can be insecure.`
    let warning = text == b"insecure"
        && !value.quoted
        && scan.slice(value.start.saturating_sub(7), value.start) == b"can be ";
    if text.len() < 3 || warning || !value::may_be_secret_word(text) {
        return false;
    }
    if key.class != Class::Password {
        return text.len() >= 6 && digits > 0;
    }
    // A word of small letters or a short number inside of a sentence belongs to it.
    let plain = text.iter().all(u8::is_ascii_lowercase) || digits == text.len() && digits < 4;
    let last = scan.slice(value.next, value.next + 2);
    let ends = last.is_empty() || !last.starts_with(b" ") || value.quoted;
    !plain || ends
}

/// `with x as password`, `x als wachtwoord`: the value came first.
pub(super) fn said_before(scan: &mut Scan<'_>, key: &Key) -> bool {
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
    let digits = (6..=12).contains(&word.len()) && word.iter().all(u8::is_ascii_digit);
    if start >= end || !(is_made_up(word) || digits || COMMON.has(word) || code && word.len() >= 4)
    {
        return false;
    }
    scan.accept(key, Value { start, end, next: key.end, quoted: false });
    true
}

/// Where a sentence says that the value begins.
fn told(scan: &mut Scan<'_>, key: &Key, at: usize) -> Option<usize> {
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
    let whose =
        ["for", "of", "voor", "van", "für", "fuer", "von", "pour", "para", "de", "del", "on", "op"];
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
            if matches!(named.last(), Some(b':' | b'=')) && is_password {
                return Some(after);
            }
            here = after;
        }
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
    if let Some(value_at) = after_auxiliaries(scan, here) {
        return Some(value_at);
    }
    if is_foreign_copula(word) {
        let (_, next) = word_at(scan, here);
        let (value, _) = word_at(scan, next);
        let body = value.get(1..).unwrap_or_default();
        let plain = body.iter().all(|b| b.is_ascii_lowercase() || b".!,".contains(b));
        return (!plain || is_password && value::quote_at(scan, next).is_some()).then_some(next);
    }
    if is_password {
        let (word, _) = word_at(scan, at);
        let lead = word.iter().take_while(|b| b"<[({".contains(b)).count();
        let bare = word.get(lead..).unwrap_or_default();
        let bare = bare.split(|b| b">])}\"',;\\".contains(b)).next().unwrap_or_default();
        let digits = (6..=12).contains(&bare.len()) && bare.iter().all(u8::is_ascii_digit);
        let known = digits || COMMON.has(bare);
        return (known
            || is_made_up(bare)
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
        // `credentials bob:x`, `credentials (bob / x)`
        let at = at + usize::from(scan.at(at) == Some(b'('));
        let (word, next) = word_at(scan, at);
        let word = word.split(|b| matches!(b, b'"' | b'\\')).next().unwrap_or_default();
        if is_random_word(word) || is_jumbled(word) {
            return Some(at);
        }
        let colon = word.iter().position(|b| matches!(b, b':' | b'/')).unwrap_or(0);
        if colon > 0 && is_made_up(word.get(colon + 1..)?) {
            return Some(at + colon + 1);
        }
        let (sign, after) = word_at(scan, next);
        let (last, _) = word_at(scan, after);
        let last = last.split(|b| b")\"\\".contains(b)).next().unwrap_or_default();
        return (matches!(sign, b"/" | b":") && is_made_up(last)).then_some(after);
    }
    None
}

/// `password from environment: x`, `password resolved as x`: a few words on.
fn after_colon(scan: &Scan<'_>, at: usize) -> Option<usize> {
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
            return (is_made_up(value) || COMMON.has(value)).then_some(next);
        }
        from = next;
    }
    None
}

/// `user bob and password x`, `bob / password x`: after the name of a user even a plain word is one.
fn follows_user(scan: &Scan<'_>, key: &Key) -> bool {
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

/// `your PIN is 0123`, `one-time code 012345`, `use code 012345`: the digits of a code within a few words.
pub(super) fn at_code(scan: &mut Scan<'_>, start: usize, end: usize) {
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphabetic());
    if start < scan.done || inside && scan.at(start) != Some(b'-') {
        return;
    }
    let mut from = end;
    for _ in 0..4 {
        let (word, next) = word_at(scan, from);
        let lead = word.iter().take_while(|b| b"\"'`<([\\".contains(b)).count();
        let body = word.get(lead..).unwrap_or_default();
        let body = body.split(|b| b"\"\\<".contains(b)).next().unwrap_or_default();
        let digits = body.iter().take_while(|b| b.is_ascii_digit()).count();
        let rest = body.get(digits..).unwrap_or_default();
        if digits > 0 {
            let alone = rest.iter().all(|b| b"\"'`>)]\\.,;!}".contains(b));
            // `enter 012345 to confirm`
            let asked = !scan.slice(start, end).eq_ignore_ascii_case(b"enter ")
                || digits == 6 && asks(scan, from + lead + digits);
            if (4..=8).contains(&digits) && alone && asked {
                scan.add(from + lead, from + lead + digits, Class::Password);
                scan.done = scan.done.max(from + lead + digits);
            }
            return;
        }
        let link =
            is_copula(word) || [&b"for"[..], b"voor", b"code", b"code:", b":"].contains(&word);
        if !link {
            return;
        }
        from = next;
        // `PIN for Bob is 0123`
        let (_, after) = word_at(scan, from);
        if word == b"for" && is_copula(word_at(scan, after).0) {
            from = after;
        }
    }
}

/// ` to confirm`, ` to log in`
fn asks(scan: &Scan<'_>, at: usize) -> bool {
    const VERBS: &[&[u8]] =
        &[b"confirm", b"verify", b"log", b"sign", b"complete", b"reset", b"proceed", b"continue"];
    let (verb, _) = word_at(scan, at + 4);
    let verb = verb.split(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    scan.starts(at, b" to ") && VERBS.contains(&verb)
}

/// Where the value begins after `is`, `was changed to`, `has been reset to`, `will be`.
fn after_auxiliaries(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    let mut from = at;
    let mut stated = false;
    for _ in 0..6 {
        let (word, next) = word_at(scan, from);
        let link = is_copula(word) || [&b"as"[..], b"be", b"now"].contains(&word);
        if !link && !is_auxiliary(word) && !is_changed(word) {
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
        if is_changed(word) && [&b"in"[..], b"naar", b"auf", b"zu", b"en"].contains(&after) {
            return (value < scan.text.len()).then_some(value);
        }
        if is_changed(word) && after == b"for" {
            let (whom, value) = word_at(scan, value);
            return (whom.ends_with(b":") && value < scan.text.len()).then_some(value);
        }
        if is_changed(word) && after == b"from" {
            let (old, next) = word_at(scan, value);
            let (to, new) = word_at(scan, next);
            if to == b"to" && is_password_like(old) {
                scan.add(value, value + old.len(), Class::Password);
                return Some(new);
            }
        }
    }
    (stated && from < scan.text.len()).then_some(from)
}

/// Words that say that there is a new value.
fn is_changed(word: &[u8]) -> bool {
    [
        "changed",
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
fn is_auxiliary(word: &[u8]) -> bool {
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

fn is_copula(word: &[u8]) -> bool {
    [&b"is"[..], b"was", b"is:", b"was:", b"are", b"are:", b"equals", b"to", b"to:", b"now:", b"="]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}

/// In German, Dutch, French and Spanish: what follows must look like a value.
fn is_foreign_copula(word: &[u8]) -> bool {
    [
        "lautet", "lautet:", "ist", "ist:", "wurde", "luidt", "luidt:", "wordt", "werd", "est",
        "es", "->", "=>", "-", "è", "é", "jest", "är",
    ]
    .iter()
    .any(|w| word.eq_ignore_ascii_case(w.as_bytes()))
}

/// R41: the first words after the key, if one of them is random.
pub(super) fn random_word(scan: &mut Scan<'_>, key: &Key, at: usize) {
    let (words, sure) = (6, key.strength == Strength::Sure);
    let named = key::is_named(scan, key);
    let mut from = at;
    let mut expected = true;
    for _ in 0..words {
        let (word, next) = word_at(scan, from);
        scan.spend(word.len() / 8);
        let lead = word.iter().take_while(|b| b"<[({\"'`\\".contains(b)).count();
        let mut start = from + lead;
        // `key k1=x`
        let name = scan.run(start, 24, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if name > 0 && name < 24 && scan.at(start + name) == Some(b'=') {
            start += name + 1;
        }
        let is_text = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_.~-".contains(b);
        let mut len = scan.long_run(start, is_text);
        let whole = len >= 24 && len.is_multiple_of(4);
        while len > 0
            && matches!(scan.before(start + len), Some(b'.' | b'-' | b'/'))
            && !(whole && scan.before(start + len) == Some(b'/'))
            && !(len >= 24 && scan.before(start + len) == Some(b'-'))
        {
            len -= 1;
        }
        let text = scan.slice(start, start + len);
        let hex = (sure || named || is_hex_secret(scan.slice(key.start, key.end), text))
            && !key.plural
            && expected
            && (24..=128).contains(&len)
            && text.iter().all(u8::is_ascii_hexdigit)
            && text.iter().any(u8::is_ascii_digit)
            && text.iter().any(u8::is_ascii_alphabetic);
        let body = text.split(|&b| b == b'=').next().unwrap_or_default();
        let padded = text.len() - body.len() <= 2;
        // Right after the key or `is`, what looks random is no name.
        let looks = value::looks_random(text) || (sure || named) && is_jumbled(text);
        let random =
            expected && looks && !is_uuid(text) && !is_product(text) || is_random_word(text);
        let plain = padded && !is_path_like(text) && scan.at(start + len) != Some(b':');
        if plain && (hex || random) {
            let end = start + len;
            return several::accept(scan, key, Value { start, end, next: end, quoted: false });
        }
        if word.is_empty() || matches!(word.last(), Some(b'.' | b';' | b',')) {
            return;
        }
        // `secret (base64) x`
        if expected && word.starts_with(b"(") && word.ends_with(b")") {
            from = next;
            continue;
        }
        expected = matches!(word, b"as" | b"value" | b"(value" | b"material" | b"value:")
            || is_copula(word)
            || is_foreign_copula(word);
        from = next;
    }
    random_before(scan, key);
}

/// A path: base64 may begin with a slash, too.
fn is_path_like(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(64)).unwrap_or_default();
    text.starts_with(b"/") && !(head.len() >= 32 && is_jumbled(head))
}

/// R41: `x is no valid token`, `using x as key`: a random word shortly before the key.
pub(super) fn random_before(scan: &mut Scan<'_>, key: &Key) {
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
        let plain = text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(b));
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
