//! Cookies, in headers, in structs and in sentences (R24).

use super::{first_element, value_start};
use crate::Class;
use crate::key;
use crate::members;
use crate::scan::Scan;
use crate::value::{self, Reach, Value};

/// Attributes of `Set-Cookie` that may stay.
const ATTRIBUTES: &[&str] = &[
    "path",
    "domain",
    "expires",
    "max-age",
    "samesite",
    "secure",
    "httponly",
    "priority",
    "partitioned",
    "version",
];

/// `Cookie: a=b; c=d` and `Set-Cookie: a=b; Path=/`.
pub(crate) fn at_cookie(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done {
        return;
    }
    let (key_start, key_end) = key::extent(scan, start, end);
    let name = scan.slice(key_start, key_end).to_ascii_lowercase();
    let known = [
        &b"cookie"[..],
        b"cookies",
        b"set-cookie",
        b"cookie2",
        b"set-cookie2",
        b"setcookie",
        b"set_cookie",
        b"http_cookie",
        b"http-cookie",
        b"x-cookie",
    ];
    let tail = name.rsplit(|&b| b == b'.').next().unwrap_or_default();
    if scan.in_placeholder(key_start) {
        return;
    }
    if !known.contains(&tail) {
        return named_cookie(scan, &name, key_end);
    }
    let Some(at) = value_start(scan, key_end) else { return said_cookie(scan, key_end) };
    let at = first_element(scan, at);
    let range = match value::quote_at(scan, at) {
        Some((slashes, quote)) => value::quoted(scan, at, slashes, quote),
        None => {
            let end = at + scan.long_run(at, |b| !matches!(b, b'"' | b']' | b'}' | b'\''));
            // `\"`: the backslashes belong to the quote.
            let end = end - scan.run_before(end, at, |&b| b == b'\\');
            let end = value::trimmed_end(scan, at, end);
            // `cookie=a=b status=200`: pairs that blanks divide; those of a header have a `;` before.
            let logged = scan.before(at) == Some(b'=');
            let blank = memchr::memchr(b' ', scan.slice(at, end))
                .filter(|blank| logged && *blank > 0 && scan.at(at + blank - 1) != Some(b';'));
            let end = blank.map_or(end, |blank| at + blank);
            Value { start: at, end, next: end, quoted: false }
        }
    };
    // `"cookies":{"name":"value"}`
    if scan.at(range.start) == Some(b'{') && !range.quoted {
        // `{"name":"sid","value":"x","secure":true}` describes one.
        let near = scan.slice(range.start, range.start + 24);
        let described = memchr::memmem::find(near, b"name").is_some();
        return members::object(scan, Class::Cookie, range.start, described);
    }
    if cookies(scan, range.start, range.end) {
        scan.done = scan.done.max(range.end);
    }
    // `["a=b","c=d"]`
    let mut next = range.next;
    for _ in 0..MOST_COOKIES {
        if !range.quoted || scan.at(next) != Some(b',') {
            return;
        }
        let from = scan.skip_space(next + 1);
        let Some((slashes, quote)) = value::quote_at(scan, from) else { return };
        let value = value::quoted(scan, from, slashes, quote);
        // `,"status":200`: a member, no element.
        if scan.at(value.next) == Some(b':') {
            return;
        }
        cookies(scan, value.start, value.end);
        next = value.next;
    }
}

/// Most elements of a list of cookies that are read.
const MOST_COOKIES: usize = 32;

/// `sessionCookie=…`, `"cookie_value":"…"`: a random value, or pairs.
fn named_cookie(scan: &mut Scan<'_>, name: &[u8], key_end: usize) {
    let ends = [&b"cookie"[..], b"cookies", b"cookievalue", b"cookie_value", b"cookie-value"];
    if !ends.iter().any(|end| name.ends_with(end)) {
        return;
    }
    let Some(at) = value_start(scan, key_end) else { return };
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    if value::looks_random(text) && !text.contains(&b'=') {
        scan.add(value.start, value.end, Class::Cookie);
        scan.done = scan.done.max(value.end);
    } else if text.contains(&b'=') {
        cookies(scan, value.start, value.end);
    }
}

/// `received cookie sid=…`: the pair within the next words.
fn said_cookie(scan: &mut Scan<'_>, end: usize) {
    const WORDS: usize = 3;
    /// A shorter value is a setting.
    const LEAST: usize = 16;
    // `cookies [ 'sid=…`
    let mut at = scan.skip_space(end);
    at += scan.run(at, 8, |b| b"[ \"'\\".contains(b));
    for _ in 0..WORDS {
        let len = scan.run(at, 512, |b| !b.is_ascii_whitespace() && !b"\"'\\".contains(b));
        let word = scan.slice(at, at + len);
        if let Some(sign) = memchr::memchr(b'=', word)
            && len - sign > LEAST
        {
            let end =
                at + len - usize::from(matches!(word.last(), Some(b'.' | b',' | b';' | b')')));
            scan.add(at + sign + 1, end, Class::Cookie);
            scan.done = scan.done.max(end);
            return;
        }
        at = scan.skip_space(at + len);
    }
}

/// `http.Cookie{Name:"sid", Value:"…", Path:"/"}`, as Go prints one.
pub(crate) fn at_go_cookie(scan: &mut Scan<'_>, open: usize) {
    /// From the brace to the value.
    const NEAR: usize = 128;
    let Some(found) = memchr::memmem::find(scan.slice(open, open + NEAR), b"Value:") else {
        return;
    };
    let value = value::read(scan, scan.skip_space(open + found + 6), Reach::GoField);
    if !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Cookie);
    }
}

/// `_ga=…`, `_pk_id…=…`, `consent=1`, `…_expiry=…`: cookies that count visits, settings and times.
fn says_nothing(name: &[u8], value: &[u8]) -> bool {
    const COUNTERS: &[&str] =
        &["_ga", "_gid", "_gat", "_gcl", "_pk_", "_hj", "_fbp", "_utm", "__utm"];
    const LIKES: &[&str] = &[
        "theme",
        "lang",
        "language",
        "locale",
        "taal",
        "sprache",
        "langue",
        "tz",
        "timezone",
        "currency",
        "country",
        "region",
        "devicetype",
        "profile",
        "consent",
        "cookieconsent",
        "cookie_consent",
        "cookieconsent_status",
        "mode",
        "view",
        "layout",
        "skin",
        "density",
        "env",
        "i18n",
        "i18next",
    ];
    let counter = COUNTERS.iter().any(|head| name.starts_with(head.as_bytes()));
    let number = value.iter().all(u8::is_ascii_digit);
    // `theme=dark; lang=nl`: what a person likes; no session is a short word.
    let likes = value.len() <= 16
        && (value.len() <= 5 || value.iter().any(|b| b"aeiouAEIOU".contains(b)))
        && value.iter().all(|b| b.is_ascii_alphabetic() || b"-_/".contains(b))
        && LIKES.iter().any(|like| name.eq_ignore_ascii_case(like.as_bytes()));
    let time =
        [&b"_expiry"[..], b"_expires", b"_at", b"_time"].iter().any(|end| name.ends_with(end));
    counter || likes || number && (value.len() <= 3 || time && value.len() <= 13)
}

/// `sid=x copied from the browser of Bob`: a sentence goes on after a value, which has no blanks.
fn spoken_end(scan: &Scan<'_>, start: usize, end: usize) -> usize {
    let value = scan.slice(start, end);
    let Some(blank) = memchr::memchr(b' ', value).filter(|&blank| blank > 0) else { return end };
    let word = scan.run(start + blank + 1, 32, u8::is_ascii_alphabetic);
    let spoken = word > 1 && scan.at(start + blank + 1 + word).is_none_or(|b| b == b' ');
    if spoken { start + blank } else { end }
}

/// `[sid=x, lang=nl]`: where the comma before the next pair stands, as Java prints a list of cookies.
fn next_of_list(scan: &Scan<'_>, from: usize, end: usize) -> Option<usize> {
    let text = scan.slice(from, end);
    memchr::memchr_iter(b',', text).map(|comma| from + comma).find(|comma| {
        let name = scan.run(comma + 2, 48, |b| b.is_ascii_alphanumeric() || b"_-.".contains(b));
        let sign = comma + 2 + name;
        scan.at(comma + 1) == Some(b' ')
            && name > 0
            && scan.at(sign) == Some(b'=')
            && sign + 1 < end
            && scan.at(sign + 1) != Some(b'=')
    })
}

/// Takes the values of `name=value; …`; false if there is no such pair.
pub(crate) fn cookies(scan: &mut Scan<'_>, start: usize, end: usize) -> bool {
    let mut from = start;
    let mut pairs = 0;
    let mut semicolon = start;
    while from < end {
        if semicolon <= from {
            semicolon = scan.find(b';', from, end).unwrap_or(end);
        }
        let piece_end = next_of_list(scan, from, semicolon).unwrap_or(semicolon);
        let piece_start = scan.skip_space(from).min(piece_end);
        let piece = scan.slice(piece_start, piece_end);
        if let Some(equals) = memchr::memchr(b'=', piece) {
            let name = piece.get(..equals).unwrap_or_default();
            let attribute = ATTRIBUTES.iter().any(|a| name.eq_ignore_ascii_case(a.as_bytes()));
            let value_start = piece_start + equals + 1;
            let attribute = attribute || says_nothing(name, scan.slice(value_start, piece_end));
            if !attribute && !value::is_nothing(scan.slice(value_start, piece_end)) {
                let end = value::trimmed_end(scan, value_start, piece_end);
                scan.add(value_start, spoken_end(scan, value_start, end), Class::Cookie);
            }
            pairs += 1;
        } else if pairs == 0 && value::looks_random(piece) {
            scan.add(piece_start, piece_end, Class::Cookie);
        }
        from = piece_end + 1;
    }
    pairs > 0
}
