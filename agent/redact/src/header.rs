//! Authorization headers and registry auth: R17, R20; cookies (R24) are in `cookie`.

mod cookie;

use base64::Engine as _;

pub(super) use self::cookie::{at_cookie, at_go_cookie, cookies};
use super::Class;
use super::assign;
use super::key::{self, Key, Strength};
use super::made_up::is_made_up;
use super::pairs::{is_name_of_pair, name_value_pair};
use super::phrase::is_chosen;
use super::scan::{Cue, Scan};
use super::stems::Rule;
use super::value::{self, Reach, Value};

/// Characters of `token68` (RFC 9110 §11.2).
fn is_token68(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

/// Reads the separator and the quote after a key, and where its value begins.
fn value_start(scan: &Scan<'_>, end: usize) -> Option<usize> {
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    match (scan.at(at), scan.at(at + 1)) {
        (Some(b'='), Some(b'=')) => None,
        (Some(b'='), Some(b'>')) => Some(scan.skip_space(at + 2)),
        (Some(b':' | b'='), _) => Some(scan.skip_space(at + 1)),
        // `-H 'Authorization', 'Bearer …'` and header lists `["Authorization","…"]`; or the name of a
        // pair, `"name":"Authorization","value":"…"`.
        (Some(b','), _) if at > end => {
            let next = scan.skip_space(at + 1);
            let lead = value::quote_at(scan, next).map_or(0, |(slashes, _)| slashes + 1);
            if scan.slice(next + lead, next + lead + 5).eq_ignore_ascii_case(b"value") {
                return value_start(scan, next + lead + 5);
            }
            Some(next)
        }
        _ => None,
    }
}

/// `auth`: `Authorization: …`, `"auth":"…"`.
pub(super) fn at_auth(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done {
        return;
    }
    let (key_start, key_end) = key::extent(scan, start, end);
    if scan.in_placeholder(key_start) {
        return;
    }
    let name = scan.slice(key_start, key_end).to_ascii_lowercase();
    // `* a1 LOGIN bob x` has its own rule; `"AUTH" "bob" "x"` is what a monitor of Redis shows.
    if name == b"auth" && quoted_words(scan, key_end) {
        return;
    }
    if name.ends_with(b"authorization") {
        authorization(scan, key_end);
    } else if name.ends_with(b"m2ee-authentication") {
        m2ee(scan, key_end);
    } else if name.ends_with(b"auth")
        && !(name == b"auth" && (smtp(scan, key_end) || redis(scan, key_start, key_end)))
        && !environment(scan, key_start, key_end)
        && !registry(scan, key_end)
        && !pair_near(scan, key_end)
    {
        assign::at_stem(scan, Rule::Weak, start, end);
    } else if name.ends_with(b"auth_b64")
        || name.ends_with(b"authbase64")
        || name.ends_with(b"auths")
    {
        pair_near(scan, key_end);
    }
}

/// `"AUTH" "x"`, `"AUTH" "bob" "x"`: the last of the strings after the word.
fn quoted_words(scan: &mut Scan<'_>, key_end: usize) -> bool {
    let Some((slashes, quote)) = value::quote_at(scan, key_end) else { return false };
    let mut at = key_end + slashes + 1;
    let mut last = None;
    for _ in 0..2 {
        let from = scan.skip_space(at);
        if from == at || value::quote_at(scan, from) != Some((slashes, quote)) {
            break;
        }
        let value = value::quoted(scan, from, slashes, quote);
        at = value.next;
        last = Some(value);
    }
    let Some(value) = last else { return false };
    if !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
    true
}

/// `REGISTRY_AUTH_B64=…`, `using auth … for registry`: base64 of a user and a password within the next words.
fn pair_near(scan: &mut Scan<'_>, from: usize) -> bool {
    /// From the word to the value, and fewest letters of it.
    const NEAR: usize = 48;
    const LEAST: usize = 12;
    let sign = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(b);
    let mut at = from;
    while at < from + NEAR && at < scan.text.len() {
        at += scan.run(at, NEAR, |b| !sign(b) || b"=-".contains(b));
        let len = scan.long_run(at, sign);
        let text = scan.slice(at, at + len);
        // `auth_b64=…`: the name before it is of the same letters.
        let lead = match memchr::memchr(b'=', text) {
            Some(sign) if sign + 2 < len => sign + 1,
            _ => 0,
        };
        let text = text.get(lead..).unwrap_or_default();
        if text.len() >= LEAST && is_pair64(text) {
            scan.add(at + lead, at + len, Class::Docker);
            scan.done = scan.done.max(at + len);
            return true;
        }
        if len == 0 {
            break;
        }
        at += len;
    }
    false
}

/// Base64 of `user:password`.
fn is_pair64(text: &[u8]) -> bool {
    /// Longest that is decoded.
    const LONGEST: usize = 512;
    let body = text.iter().take_while(|b| **b != b'=').count();
    let text = text.get(..body).unwrap_or_default();
    if text.len() > LONGEST {
        return false;
    }
    let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text) else {
        return false;
    };
    let Ok(pair) = std::str::from_utf8(&bytes) else { return false };
    let Some((user, password)) = pair.split_once(':') else { return false };
    user.len() >= 2
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@$+/".contains(&b))
        && password.len() >= 3
        && !pair.contains(char::is_control)
}

fn authorization(scan: &mut Scan<'_>, key_end: usize) {
    let Some(at) = value_start(scan, key_end) else { return };
    let at = first_element(scan, at);
    let mut value = value::read(scan, at, Reach::Word);
    let first = scan.slice(value.start, value.end);
    if !value.quoted {
        let next = scan.skip_space(value.end);
        let scheme =
            first.iter().all(|b| b.is_ascii_alphabetic() || *b == b'-' || b.is_ascii_digit())
                && first.len() <= 20;
        if scheme && next > value.end && !first.is_empty() {
            value = credentials(scan, first, next);
            if is_spoken(first, scan.slice(value.start, value.end)) {
                return;
            }
        }
    } else if let Some(space) = memchr::memchr(b' ', first)
        && first.iter().take(space).all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    {
        value.start += space + 1;
    }
    let text = scan.slice(value.start, value.end);
    let telling = text.len() >= 8 || text.iter().any(u8::is_ascii_digit);
    if telling
        && !value::is_nothing(text)
        && value::may_be_secret_word(text)
        && !text.starts_with(b"{")
    {
        scan.add(value.start, value.end, Class::Authorization);
        scan.done = scan.done.max(value.end);
    }
}

/// `authorization: rule 14 allowed x`: a sentence of a component, whose first word is no scheme, and whose
/// next one is a word or a number.
fn is_spoken(first: &[u8], next: &[u8]) -> bool {
    const SCHEMES: &[&[u8]] =
        &[b"basic", b"bearer", b"negotiate", b"digest", b"ntlm", b"token", b"apikey", b"hmac"];
    let known = SCHEMES.iter().any(|scheme| first.eq_ignore_ascii_case(scheme));
    let number = next.len() <= 4 && next.iter().all(u8::is_ascii_digit);
    let words = next.iter().all(|b| b.is_ascii_alphabetic() || b"-,".contains(b));
    // `authorization=RBAC mode=strict`
    let sign = next.iter().position(|&b| b == b'=').unwrap_or(0);
    let pair = sign > 0
        && sign + 1 < next.len()
        && next.len() <= 32
        && next.iter().all(|b| b.is_ascii_lowercase() || *b == b'=');
    !known && (pair || number || words && next.len() <= 20 && !is_made_up(next) && !is_chosen(next))
}

/// Past the opening of a list: `[`, or `[]string{` as Go prints header values.
fn first_element(scan: &Scan<'_>, at: usize) -> usize {
    let mut at = at;
    if scan.starts(at, b"[]string{") {
        at += "[]string{".len();
    }
    while scan.at(at) == Some(b'[') {
        at = scan.skip_space(at + 1);
    }
    at
}

/// Digest and AWS signatures are lists of parameters: up to the end of the header.
fn credentials(scan: &Scan<'_>, scheme: &[u8], at: usize) -> Value {
    let listed = scheme.eq_ignore_ascii_case(b"digest")
        || scheme.starts_with(b"AWS4-HMAC")
        || scheme.eq_ignore_ascii_case(b"oauth")
        || scheme.eq_ignore_ascii_case(b"hawk");
    if !listed {
        return value::read(scan, at, Reach::Word);
    }
    let end = value::trimmed_end(scan, at, scan.text.len());
    scan.spend(end - at);
    Value { start: at, end, next: end, quoted: false }
}

/// R27: `X-M2EE-Authentication`, base64 of the admin password.
fn m2ee(scan: &mut Scan<'_>, key_end: usize) {
    let Some(at) = value_start(scan, key_end) else { return };
    let value = value::read(scan, at, Reach::Word);
    if !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `AUTH PLAIN …`, as a mail client sends it.
fn smtp(scan: &mut Scan<'_>, key_end: usize) -> bool {
    const MECHANISMS: &[&str] = &["plain ", "login ", "xoauth2 ", "external "];
    let Some(mechanism) = MECHANISMS.iter().find(|name| {
        scan.slice(key_end + 1, key_end + 1 + name.len()).eq_ignore_ascii_case(name.as_bytes())
    }) else {
        return false;
    };
    let from = scan.skip_space(key_end + 1 + mechanism.len());
    let len = scan.long_run(from, |&b| is_token68(b));
    let text = scan.slice(from, from + len);
    let telling =
        text.len() >= 12 && (text.iter().any(u8::is_ascii_uppercase) || text.ends_with(b"="));
    if telling {
        scan.add(from, from + len, Class::Authorization);
        scan.done = scan.done.max(from + len);
    }
    telling
}

/// `AUTH x`, `AUTH bob x`: a command of Redis.
fn redis(scan: &mut Scan<'_>, key_start: usize, key_end: usize) -> bool {
    if scan.slice(key_start, key_end) != b"AUTH" || scan.at(key_end) != Some(b' ') {
        return false;
    }
    let mut from = scan.skip_space(key_end);
    for user in [true, false] {
        let value = value::read(scan, from, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if is_made_up(text) || is_chosen(text) {
            scan.add(value.start, value.end, Class::Password);
            scan.done = scan.done.max(value.end);
            return true;
        }
        let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !user || value.quoted || text.is_empty() || !text.iter().all(name) {
            break;
        }
        from = scan.skip_space(value.next);
    }
    false
}

/// `REDISCLI_AUTH: x`, `"name":"REDISCLI_AUTH","value":"x"`: a variable that holds a password.
fn environment(scan: &mut Scan<'_>, key_start: usize, key_end: usize) -> bool {
    let name = scan.slice(key_start, key_end);
    let shouted = (name.ends_with(b"_AUTH") || name == b"AUTH")
        && name.iter().all(|b| !b.is_ascii_lowercase());
    if !shouted {
        return false;
    }
    let key = Key {
        start: key_start,
        end: key_end,
        class: Class::Password,
        strength: Strength::Sure,
        plural: false,
    };
    let mut at = key_end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    let at = scan.skip_space(at);
    let found = match value_start(scan, key_end) {
        // `SMTP_AUTH: login`
        Some(from) if matches!(scan.at(at), Some(b':' | b'=')) => {
            let value = value::read(scan, from, Reach::Word);
            let text = scan.slice(value.start, value.end);
            let fits = is_made_up(text) || is_chosen(text);
            if fits && !value::is_nothing(text) {
                scan.accept(&key, value);
            }
            fits
        }
        _ => name_value_pair(scan, &key, at),
    };
    if !found && at >= scan.text_end && is_name_of_pair(scan, key_start) {
        scan.cues.next = Some(Cue::ValueOf(Class::Password));
        return true;
    }
    found
}

/// R20: base64 of `user:password`, or something as random.
fn registry(scan: &mut Scan<'_>, key_end: usize) -> bool {
    let Some(at) = value_start(scan, key_end) else {
        // `with auth "…"`
        let from = scan.skip_space(key_end);
        let value = value::read(scan, from, Reach::Word);
        let found =
            from > key_end && value.quoted && holds_pair(scan.slice(value.start, value.end));
        if found {
            scan.add(value.start, value.end, Class::Docker);
            scan.done = scan.done.max(value.end);
        }
        return found;
    };
    // `auth: {enabled: true, …}`: its members have names of their own.
    if scan.at(at) == Some(b'{') {
        return false;
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    // `"auth":"bob:x"`
    if let Some(colon) = memchr::memchr(b':', text) {
        let (user, password) = text.split_at_checked(colon).unwrap_or_default();
        let password = password.get(1..).unwrap_or_default();
        let name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.@".contains(b);
        if colon > 0 && user.iter().all(name) && (is_made_up(password) || is_chosen(password)) {
            scan.add(value.start + colon + 1, value.end, Class::Password);
            scan.done = scan.done.max(value.end);
            return true;
        }
    }
    let found = holds_pair(text) || value::looks_random(text);
    if found {
        scan.add(value.start, value.end, Class::Docker);
        scan.done = scan.done.max(value.end);
    }
    found
}

/// Base64 of printable text with a colon in it.
fn holds_pair(text: &[u8]) -> bool {
    let trimmed = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    // A colon comes early in user names.
    let head = trimmed.get(..trimmed.len().min(1024) / 4 * 4).unwrap_or_default();
    let head = if trimmed.len() <= 1024 { trimmed } else { head };
    let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(head) else {
        return false;
    };
    text.len() >= 8
        && bytes.contains(&b':')
        && std::str::from_utf8(&bytes).is_ok_and(|t| !t.contains(char::is_control))
}

/// `Bearer x`, `Basic x`, `Negotiate x` without a key before them.
pub(super) fn at_scheme(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done || !key::starts_word(scan, start) {
        return;
    }
    // One blank; `%20` and `+` are blanks of the decoded shadow and of forms.
    let mut at = end;
    if scan.at(at) == Some(b':') {
        at += 1;
    }
    let from = scan.skip_space(at);
    if from == at && scan.at(at) != Some(b'+') {
        return;
    }
    let from = if scan.at(from) == Some(b'+') { from + 1 } else { from };
    let len = scan.long_run(from, |&b| is_token68(b));
    let mut value_end = from + len;
    while matches!(scan.before(value_end), Some(b'.' | b',')) && value_end > from {
        value_end -= 1;
    }
    let text = scan.slice(from, value_end);
    let genuine = match scan.at(start).map(|b| b | 0x20) {
        Some(b'b') if end - start == 5 => holds_pair(text) || value::looks_random(text),
        Some(b'n') => text.len() >= 16,
        _ => {
            let digit = text.iter().any(u8::is_ascii_digit);
            let mixed =
                text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase);
            text.len() >= 8 && (digit || mixed && text.len() >= 16 || text.len() >= 32)
        }
    };
    // `Bearer realm=x` is a challenge; a token has `=` at its end only.
    if genuine && (!text.contains(&b'=') || text.ends_with(b"=")) {
        scan.add(from, value_end, Class::Authorization);
        scan.done = scan.done.max(value_end);
    }
}
