//! Tokens that say in the middle whose they are, and hashes that say how they were made (R23, R41).

use super::begins_token;
use crate::Class;
use crate::bytes;
use crate::scan::Scan;
use crate::value;

/// `123456789:AA…`: a bot of Telegram. The stem is `:AA`.
pub(crate) fn at_bot(scan: &mut Scan<'_>, start: usize) {
    let floor = start.saturating_sub(11).max(scan.body.min(start));
    let digits = scan.run_before(start, floor, u8::is_ascii_digit);
    let tail = scan.run(start + 1, 64, |b| b.is_ascii_alphanumeric() || b"_-".contains(b));
    if start >= scan.done
        && scan.starts(start, b":AA")
        && (8..=10).contains(&digits)
        && (34..=36).contains(&tail)
    {
        scan.add(start - digits, start + 1 + tail, Class::VendorToken);
        scan.done = scan.done.max(start + 1 + tail);
    }
}

/// `/services/T…/B…/…`: the path of a webhook of Slack, without its host.
pub(crate) fn at_hook(scan: &mut Scan<'_>, end: usize) {
    let upper = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    let team = scan.run(end - 1, 16, upper);
    let app = end + team;
    let id = scan.run(app, 16, upper);
    let last = app + id + 1;
    let token = scan.run(last, 48, u8::is_ascii_alphanumeric);
    let divided = scan.at(app - 1) == Some(b'/') && scan.at(last - 1) == Some(b'/');
    if divided && scan.at(app) == Some(b'B') && team >= 8 && id >= 8 && token >= 20 {
        scan.add(end - 1, last + token, Class::VendorToken);
        scan.done = scan.done.max(last + token);
    }
}

/// Letters that Microsoft puts into the keys of its services, so that they are known when they leak.
const MARKS: &[&[u8]] = &[
    b"AzFu",
    b"AzSe",
    b"AzCa",
    b"+ACR",
    b"JQQJ99",
    b"+ASt",
    b"ACDb",
    b"+ASb",
    b"+AEh",
    b"+ARm",
    b"AIoT",
    b"AZEG",
    b"+AMC",
    b"FFFFNRAL",
];

/// `…AzFu…==`: such a key, of which the stem is a part.
pub(crate) fn at_mark(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Shortest and longest of them, without padding.
    const KEY: std::ops::RangeInclusive<usize> = 40..=90;
    let sign = |b: &u8| bytes::ANY_BASE64.has(*b) && *b != b'=';
    if start < scan.done || !MARKS.contains(&scan.slice(start, end)) {
        return;
    }
    let floor = start.saturating_sub(100).max(scan.body.min(start));
    let from = start - scan.run_before(start, floor, sign);
    let to = end + scan.run(end, 100, sign);
    let text = scan.slice(from, to);
    // `…FFFFNRAL`: hexadecimal digits before it.
    let hex = scan.slice(start, end) == b"FFFFNRAL"
        && text.len() == 40
        && text.iter().take(32).all(u8::is_ascii_hexdigit);
    if hex || KEY.contains(&text.len()) && value::looks_random(text) {
        let to = to + scan.run(to, 2, |&b| b == b'=');
        scan.add(from, to, Class::VendorToken);
        scan.done = scan.done.max(to);
    }
}

/// `$2b$12$…`, `$argon2id$…`, `SCRAM-SHA-256$4096:…`: the hash of a password, which can be guessed at.
pub(crate) fn at_hash(scan: &mut Scan<'_>, start: usize, end: usize) {
    const LEAST: usize = 34;
    let scram = scan.slice(start, end).eq_ignore_ascii_case(b"scram-sha-256$");
    if start < scan.done || !begins_token(scan, start) {
        return;
    }
    let sign = |b: &u8| b.is_ascii_alphanumeric() || b"./$=,+_-".contains(b) || scram && *b == b':';
    let mut len = scan.long_run(start, sign);
    while len > 0 && matches!(scan.before(start + len), Some(b'.' | b',' | b'-')) && len < 56 {
        len -= 1;
    }
    let text = scan.slice(start, start + len);
    let kinds = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    if len >= LEAST && kinds.iter().all(|kind| text.iter().any(kind)) {
        scan.add(start, start + len, Class::Password);
        scan.done = scan.done.max(start + len);
    }
}
