//! URLs and what is posted to them: R11, R12 (Oracle), R15, R25, R26.

mod oauth;

pub(super) use self::oauth::{at_oauth, at_oauth_member};
use super::Class;
use super::follow;
use super::made_up::{is_jumbled, is_password_like, is_random_word};
use super::scan::{Cue, Scan};
use super::value::{self, Reach};

/// Longest user info that is looked for before an `@`, bytes.
const USER_INFO: usize = 1024;

/// End of a query value: at `&`, white space, a quote or a bracket.
fn query_value_end(scan: &Scan<'_>, start: usize) -> usize {
    let stop = |b: &u8| {
        matches!(
            b,
            b'&' | b' '
                | b'\t'
                | b'\r'
                | b'"'
                | b'\''
                | b'`'
                | b'<'
                | b'>'
                | b'\\'
                | b'#'
                | b';'
                | b')'
                | b']'
                | b'}'
                | b','
        )
    };
    start + scan.long_run(start, |b| !stop(b))
}

/// R15: `sig=…` of a SAS URL; `"sig":"…"`.
pub(super) fn at_sig(scan: &mut Scan<'_>, start: usize) {
    let longer =
        scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    let mut at = start + 3;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at = scan.skip_space(at + slashes + 1);
        if !matches!(scan.at(at), Some(b':' | b'=')) {
            return;
        }
    }
    let at = scan.skip_space(at + 1);
    let (at, end) = match value::quote_at(scan, at) {
        Some((slashes, quote)) => {
            let value = value::quoted(scan, at, slashes, quote);
            (value.start, value.end)
        }
        None => (at, query_value_end(scan, at)),
    };
    let text = scan.slice(at, end);
    let fits = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'+' | b'/' | b'=' | b'%' | b'-' | b'_' | b' ' | b'.')
    };
    // `sig=…: exit status 32`
    let len = text.iter().take_while(|b| fits(b)).count();
    let end = at + len;
    let text = scan.slice(at, end);
    let sure = !longer || len >= 40 && value::looks_random(text);
    if len >= 16 && sure {
        scan.add(at, end, Class::Signature);
        scan.done = scan.done.max(end);
    }
}

/// `/reset-password/x`: the step after one that lets its bearer in; it ends at `end`.
pub(super) fn at_path(scan: &mut Scan<'_>, end: usize) {
    /// Longest step.
    const LONGEST: usize = 512;
    let len = scan.run(end, LONGEST, |b| b.is_ascii_alphanumeric() || b"_-.~=".contains(b));
    let text = scan.slice(end, end + len);
    let hex = (32..=256).contains(&len) && text.iter().all(u8::is_ascii_hexdigit);
    let digits = text.iter().any(u8::is_ascii_digit);
    if end >= scan.done && digits && (hex || is_random_word(text) || is_jumbled(text)) {
        scan.add(end, end + len, Class::Token);
        scan.done = scan.done.max(end + len);
    }
}

/// R26: `SAMLResponse=…`, `"RelayState":"…"`.
pub(super) fn at_saml(scan: &mut Scan<'_>, _start: usize, end: usize) {
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at = scan.skip_space(at + slashes + 1);
        // `name="SAMLResponse" value="…"` of an auto-submitted form.
        if scan.slice(at, at + 5).eq_ignore_ascii_case(b"value") {
            at += 5;
        }
    }
    at = scan.skip_space(at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return;
    }
    let at = scan.skip_space(at + 1);
    let (start, end) = match value::quote_at(scan, at) {
        Some((slashes, quote)) => {
            let value = value::quoted(scan, at, slashes, quote);
            (value.start, value.end)
        }
        None => (at, query_value_end(scan, at)),
    };
    if end - start >= 8 && !value::is_nothing(scan.slice(start, end)) {
        scan.add(start, end, Class::Saml);
        scan.done = scan.done.max(end);
    }
}

/// R26: `<saml:Assertion …>…</saml:Assertion>`, on this line or on many.
pub(super) fn at_assertion(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done || scan.slice(start, end) != b"Assertion" {
        return;
    }
    let lead = scan.slice(start.saturating_sub(16), start);
    let prefix = lead.iter().rev().take_while(|b| b.is_ascii_alphanumeric() || **b == b':').count();
    let opens = lead.len() > prefix && lead.get(lead.len() - prefix - 1) == Some(&b'<');
    if !opens || !matches!(scan.at(end), Some(b' ' | b'>' | b'\t' | b'\r') | None) {
        return;
    }
    let close = follow::find_close(scan.rest(end));
    scan.spend(close.unwrap_or(scan.text.len() - end) / 8);
    match close {
        Some(len) => {
            scan.add(end, end + len, Class::Saml);
            scan.done = scan.done.max(end + len);
        }
        None => {
            // `<Assertion>` of some other vocabulary is no reason to swallow what follows.
            let tag = scan.slice(end, end + 256);
            let saml = prefix > 0 || memchr::memmem::find(tag, b"SAML").is_some();
            if saml {
                scan.add(end, value::trimmed_end(scan, end, scan.text.len()), Class::Saml);
                scan.done = scan.text.len();
                scan.cues.next = Some(Cue::Saml);
            }
        }
    }
}

/// R12: `jdbc:oracle:thin:user/password@host`.
pub(super) fn at_oracle(scan: &mut Scan<'_>, end: usize) {
    let value = value::read(scan, end, Reach::Word);
    let text = scan.slice(value.start, value.end);
    if let Some(at) = memchr::memrchr(b'@', text)
        && let Some(slash) = memchr::memchr(b'/', text.get(..at).unwrap_or_default())
    {
        scan.add(value.start + slash + 1, value.start + at, Class::UrlUser);
    }
}

/// R11: a URL as Go dumps its fields, `Opaque: User:bob:x Host:db:5432`.
pub(super) fn at_go_user(scan: &mut Scan<'_>, end: usize) {
    let text = scan.slice(end, end + USER_INFO);
    scan.spend(1 + text.len() / 16);
    let user = memchr::memmem::find(text, b" Host:").and_then(|len| text.get(..len));
    if let Some(user) = user
        && let Some(colon) = memchr::memchr(b':', user)
    {
        scan.add(end + colon + 1, end + user.len(), Class::UrlUser);
    }
}

/// R11: user info before the `@` at `at`. Returns where reading goes on, if this is user info.
///
/// The password may hold `@`, `:` and `/`. Without an `@` before the first slash the slash is taken
/// for a part of the password only when what precedes it can't be a port.
pub(super) fn user_info(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    let floor = at.saturating_sub(USER_INFO).max(scan.body);
    let before = scan.slice(floor, at);
    // A vector search: sixteen bytes cost about as much as one elsewhere.
    scan.spend(1 + before.len() / 16);
    let is_end = |b: &u8| matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'<' | b'>' | b'`');
    let slashes = memchr::memrchr_iter(b':', before)
        .find(|&colon| before.get(colon + 1..colon + 3) == Some(b"//"))?;
    let start = floor + slashes + 3;
    // Scheme and `@` stand in the same word.
    if scan.slice(start, at).iter().any(is_end)
        || !scan.before(start - 3).is_some_and(|b| b.is_ascii_alphanumeric())
    {
        return None;
    }
    // The authority and what might still be password: up to the end of the word.
    let word_len = scan.run(start, USER_INFO, |b| !is_end(b) && !matches!(b, b'\\' | b'\r'));
    scan.spend(word_len);
    let word = scan.slice(start, start + word_len);
    let colon = memchr::memchr(b':', word);
    let first_at = memchr::memchr(b'@', word)?;
    let Some(colon) = colon.filter(|&c| c < first_at) else {
        // A user without password: a token, when it is long.
        let user = word.get(..first_at).unwrap_or_default();
        let token = user.len() >= 20
            && user.iter().all(|b| b.is_ascii_alphanumeric() || b"_-~%".contains(b));
        // NATS takes a token there, of any length.
        let lead = scan.slice(start.saturating_sub(7).max(scan.body.min(start)), start);
        let own = lead == b"nats://";
        let own = own && user.len() >= 5 && user.iter().any(u8::is_ascii_digit);
        if token || own {
            scan.add(start, start + first_at, Class::UrlUser);
        }
        let plain_user = !user.iter().any(|b| b"/?#;{".contains(b));
        return plain_user.then_some(start + first_at + 1);
    };
    let user = word.get(..colon).unwrap_or_default();
    if user.iter().any(|b| b"/?#".contains(b)) {
        return None;
    }
    // `host:8080/path@x`: a port, not a password.
    let digits = word.iter().skip(colon + 1).take_while(|b| b.is_ascii_digit()).count();
    if digits > 0 && matches!(word.get(colon + 1 + digits), Some(b'/' | b'?' | b'#')) {
        return None;
    }
    // Another URL in the same word (lists of endpoints) ends this one.
    let next_url = memchr::memmem::find(word, b"://").map_or(word.len(), |p| p);
    let query = memchr::memchr2(b'?', b'#', word).filter(|&q| q > first_at).unwrap_or(word.len());
    let comma = word
        .iter()
        .enumerate()
        .skip(first_at)
        .find(|(_, b)| matches!(b, b',' | b')'))
        .map_or(word.len(), |(i, _)| i);
    let limit = query.min(next_url).min(comma);
    // `https://token:x-oauth-basic@host`
    if user.len() >= 16 && (is_random_word(user) || user.iter().all(u8::is_ascii_hexdigit)) {
        scan.add(start, start + colon, Class::UrlUser);
    }
    let last_at = memchr::memrchr(b'@', word.get(..limit).unwrap_or_default()).unwrap_or(first_at);
    scan.add(start + colon + 1, start + last_at, Class::UrlUser);
    Some(start + last_at + 1)
}

/// `bob/x@db.example.com:1521/NAME`: a user of Oracle, or what follows `thin:` in its URL.
fn oracle_user(scan: &mut Scan<'_>, start: usize, at: usize) -> Option<usize> {
    let word = scan.slice(start, at);
    let slash = memchr::memchr(b'/', word)?;
    let (lead, password) = (word.get(..slash)?, word.get(slash + 1..)?);
    let user = lead.rsplit(|&b| b == b':').next().unwrap_or_default();
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let host = scan.run(at + 1, 128, name);
    let port = scan.run(at + 2 + host, 6, u8::is_ascii_digit);
    let ends = !scan.at(at + 2 + host + port).is_some_and(|b| b.is_ascii_alphanumeric());
    let place = host > 1 && scan.at(at + 1 + host) == Some(b':') && (4..=5).contains(&port) && ends;
    let named = !user.is_empty() && user.iter().all(name);
    if !place || !named || password.len() < 3 || password.contains(&b'/') {
        return None;
    }
    scan.add(start + slash + 1, at, Class::UrlUser);
    Some(at + 1)
}

/// R11 without a scheme: `user:password@host:port`. Returns where reading goes on.
pub(super) fn bare_user_info(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    /// Longest user and password together.
    const LONGEST: usize = 128;
    let floor = at.saturating_sub(LONGEST).max(scan.body.min(at));
    let before = scan.slice(floor, at);
    let lead = before.iter().rev().position(|b| b" \t\"'`=(<>,;{[".contains(b));
    let start = at - lead.unwrap_or(before.len());
    let word = scan.slice(start, at);
    if let Some(next) = oracle_user(scan, start, at) {
        return Some(next);
    }
    let colon = memchr::memchr(b':', word)?;
    let (user, password) = (word.get(..colon)?, word.get(colon + 1..)?);
    let is_user = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let scheme = [&b"mailto"[..], b"sip", b"xmpp", b"acct", b"smtp", b"to", b"from", b"cc", b"bcc"];
    let named = !user.is_empty() && user.iter().all(is_user) && !scheme.contains(&user);
    let host = scan.run(at + 1, 128, is_user);
    let name = scan.slice(at + 1, at + 1 + host);
    let follows = matches!(scan.at(at + 1 + host), Some(b':' | b'/')) || name.contains(&b'.');
    // `user:password@tcp(host:3306)/db`, of Go's driver for MySQL.
    let driver = matches!(name, b"tcp" | b"tcp6" | b"unix") && scan.at(at + 1 + host) == Some(b'(');
    let telling = follows && is_password_like(password) && !password.contains(&b'/');
    if named && host > 1 && !password.is_empty() && (driver || telling) {
        scan.add(start + colon + 1, at, Class::UrlUser);
        return Some(at + 1);
    }
    None
}
