//! Codes, states and the like of OAuth and OpenID Connect: in redirects, in what is posted, in dumps and in
//! sentences (R25).

use super::query_value_end;
use crate::Class;
use crate::made_up::{is_jumbled, is_random_word, is_uuid};
use crate::scan::Scan;
use crate::value::{self, Reach};

/// R25: `code`, `state` and the like, when they are parameters of a redirect.
pub(crate) fn at_oauth(scan: &mut Scan<'_>, start: usize, end: usize) {
    // `session_state=`, `device_code=`: the part before the stem belongs to the name.
    let lead = scan.slice(start.saturating_sub(8), start);
    let longer =
        [&b"session_"[..], b"device_", b"user_", b"auth_"].into_iter().find(|l| lead.ends_with(l));
    let first = start - longer.map_or(0, |l| l.len());
    let sign = scan.before(first).unwrap_or(b' ');
    let quoted = !matches!(sign, b'?' | b'&' | b'#' | b';');
    if sign.is_ascii_alphanumeric() || matches!(sign, b'_' | b'-' | b'.') {
        return;
    }
    let end = end + usize::from(quoted && matches!(scan.at(end), Some(b'"' | b'\'' | b'[')));
    let value_end = query_value_end(scan, end);
    let text = scan.slice(end, value_end);
    let kinds = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    let mixed = kinds.iter().filter(|kind| text.iter().any(kind)).count();
    // `?code=200`, `&state=open`, `?code=E1234`.
    let redirect = || {
        let near = scan.slice(start.saturating_sub(1024), start + 1024);
        memchr::memmem::find(near, b"redirect_uri").is_some() || is_callback(scan, start)
    };
    let random = text.len() >= 8 && mixed >= 2
        || text.len() >= 24 && mixed >= 1
        || text.len() >= 6 && redirect();
    let granted = || {
        let near = scan.slice(start.saturating_sub(256), start + 256);
        memchr::memmem::find(near, b"grant_type").is_some()
    };
    let random = random
        && (!quoted
            || text.len() >= 16
                && mixed >= 2
                && (!is_uuid(text)
                    || granted()
                    || longer != Some(&b"session_"[..]) && speaks_of_login(scan, start)));
    let typed = longer == Some(&b"user_"[..]) && is_user_code(text);
    if (random || typed) && !value::is_nothing(text) {
        scan.add(end, value_end, Class::Oauth);
        scan.done = scan.done.max(value_end);
    }
}

/// R25: `"code":"…"`, `state:[…]`, `code …`: as members of a dump, or in a sentence. The stem ends with
/// the sign after the name.
pub(crate) fn at_oauth_member(scan: &mut Scan<'_>, start: usize, end: usize) {
    const NAMES: &[&[u8]] = &[
        b"code",
        b"state",
        b"authcode",
        b"authorizationcode",
        b"devicecode",
        b"sessionstate",
        b"oauthstate",
        b"oauthcode",
        b"usercode",
    ];
    if start < scan.done {
        return;
    }
    let name_end = end - 1;
    let lead = scan.run_before(start, start.saturating_sub(20).max(scan.body.min(start)), |b| {
        b.is_ascii_alphabetic() || *b == b'_'
    });
    let name = scan.slice(start - lead, name_end);
    // `\ncode`: a letter of an escape is none of the name.
    let folded: Vec<u8> = name.iter().filter(|b| **b != b'_').map(u8::to_ascii_lowercase).collect();
    // `Autorisierungscode`, `autorisatiecode`
    let authorizes = folded.starts_with(b"aut") && folded.ends_with(b"code");
    if !NAMES.contains(&&*folded) && !authorizes {
        return;
    }
    if folded == b"state" && scan.before(end) == Some(b' ') {
        states_told(scan, end);
    }
    let mut at =
        value::quote_at(scan, name_end).map_or(name_end, |(slashes, _)| name_end + slashes + 1);
    at = scan.skip_space(at);
    let signed = matches!(scan.at(at), Some(b':' | b'='));
    if signed {
        at = scan.skip_space(at + 1);
    }
    for open in [&b"[]string{"[..], b"["] {
        if scan.starts(at, open) {
            at += open.len();
        }
    }
    if folded == b"usercode" && signed {
        let value = value::read(scan, at, Reach::Word);
        if is_user_code(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end, Class::Oauth);
        }
        return;
    }
    // Most are words and numbers.
    if value::quote_at(scan, at).is_none() && scan.run(at, 20, |b| !b.is_ascii_whitespace()) < 20 {
        return;
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let text = text.strip_suffix(b"]").or(text.strip_suffix(b"}")).unwrap_or(text);
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~/+=%".contains(b);
    if text.len() < 20 || !text.iter().all(fits) {
        return;
    }
    let plain = is_identifier(text);
    // `authorization code x`
    let lead = scan.slice(start.saturating_sub(24).max(scan.body.min(start)), start);
    let lead = lead.trim_ascii_end().to_ascii_lowercase();
    let authorizes = authorizes
        || [&b"authorization"[..], b"authorisation", b"auth", b"oauth"]
            .iter()
            .any(|word| lead.ends_with(word));
    let near = || {
        let around = scan.slice(start.saturating_sub(512).max(scan.body.min(start)), start + 512);
        let has = |word: &[u8]| memchr::memmem::find(around, word).is_some();
        let state = folded.ends_with(b"state");
        let code = has(b"state") || has(b"redirect_uri") || has(b"authorization_code");
        state && has(b"code") || !state && code
    };
    let answer = || {
        let lower = text.iter().any(u8::is_ascii_lowercase);
        let mixed = lower && text.iter().any(u8::is_ascii_uppercase);
        let words = text.split(|b| !b.is_ascii_lowercase()).any(|run| run.len() >= 5);
        signed && mixed && !words && near()
    };
    let long = text.len() >= 70;
    let jumbled = signed && is_jumbled(text) && !is_uuid(text);
    // `code … has expired`
    let rest = scan.slice(value.next, value.next + 16);
    let said = [&b" has "[..], b" was ", b" is ", b" expired", b" already", b" not "]
        .iter()
        .any(|word| rest.starts_with(word));
    let granted = || {
        let before = scan.slice(start.saturating_sub(96).max(scan.body.min(start)), start);
        memchr::memmem::find(before, b"grant").is_some()
    };
    let refused = plain && !signed && said && granted();
    let spoken = || long || near() || folded != b"sessionstate" && speaks_of_login(scan, start);
    let own = plain && (authorizes || signed && spoken());
    if is_code(text) || jumbled || refused || own || answer() {
        scan.add(value.start, value.start + text.len(), Class::Oauth);
        scan.done = scan.done.max(value.start + text.len());
    }
}

/// `state mismatch: expected x, got y`: the identifiers in a sentence about the state of a login.
fn states_told(scan: &mut Scan<'_>, end: usize) {
    /// Most words, and the longest one.
    const WORDS: usize = 10;
    const LONGEST: usize = 160;
    let mut at = end;
    for _ in 0..WORDS {
        at = scan.skip_space(at);
        at += scan.run(at, 4, |b| b"\"'\\`([<".contains(b));
        let len = scan.run(at, LONGEST, |b| b.is_ascii_alphanumeric() || b"-._".contains(b));
        let text = scan.slice(at, at + len);
        let text = text.strip_suffix(b".").unwrap_or(text);
        if is_identifier(text) && speaks_of_login(scan, end) {
            scan.add(at, at + text.len(), Class::Oauth);
            scan.done = scan.done.max(at + text.len());
        }
        at += len;
        at += scan.run(at, 4, |b| b"\"'\\`)]>,:;".contains(b));
        if scan.at(at) != Some(b' ') {
            return;
        }
    }
}

/// `WDJB-MJHT`: what a person types in to let a device in (RFC 8628).
fn is_user_code(text: &[u8]) -> bool {
    let letter = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'-';
    (8..=11).contains(&text.len()) && text.iter().all(letter)
}

/// Hexadecimal digits and what divides them, as many as an identifier has.
fn is_identifier(text: &[u8]) -> bool {
    (32..=256).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'.'))
        && text.iter().any(u8::is_ascii_digit)
}

/// Letters of both cases and a few digits, in no order.
fn is_code(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let mixed = text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase);
    value::looks_random(text) && !is_uuid(text)
        || mixed && digits >= 2 && is_random_word(text)
        || mixed && digits >= 3 && !text.iter().any(|b| b"/+=%.".contains(b))
}

/// Whether the text around `at` is about people who log in, so that a state or a code there is theirs.
fn speaks_of_login(scan: &Scan<'_>, at: usize) -> bool {
    /// How far, to each side.
    const NEAR: usize = 256;
    const WORDS: &[&[u8]] = &[
        b"auth",
        b"oidc",
        b"openid",
        b"callback",
        b"redirect",
        b"autoris",
        b"grant",
        b"provider",
        b"sso",
        b"csrf",
        b"login",
        b"mismatch",
        b"signin",
        b"sign-in",
        b"id_token",
    ];
    let around = scan.slice(at.saturating_sub(NEAR).max(scan.body.min(at)), at + NEAR);
    scan.spend(around.len() / 2);
    let around = around.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&around, word).is_some())
}

/// Whether the path before a parameter is one that identity providers send people back to.
fn is_callback(scan: &Scan<'_>, at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(192), at);
    let before = before.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    [&b"callback"[..], b"/cb?", b"oauth", b"oidc", b"signin-", b"/sso"]
        .iter()
        .any(|path| memchr::memmem::find(before, path).is_some())
}
