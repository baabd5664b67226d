//! Names and values that stand in members of their own: R08.

mod siblings;

pub(super) use self::siblings::siblings;
use super::Class;
use super::judge::{is_value, names_secret};
use super::key::{Key, Strength};
use super::made_up::is_made_up;
use super::phrase::{is_chosen, is_phrase};
use super::scan::Scan;
use super::value::{self, Reach};

/// Words that say that their value is the name of something.
const NAMES: &[&[u8]] = &[
    b"name",
    b"key",
    b"field",
    b"property",
    b"path",
    b"header",
    b"constant",
    b"setting",
    b"variable",
    b"type",
    b"attribute",
    b"parameter",
    b"param",
    b"label",
    b"first",
    b"id",
    b"tag",
    b"column",
    b"option",
    b"claim",
];

/// Ends of words that say that what follows is the value of what was just named.
const VALUES: &[&[u8]] = &[b"value", b"default", b"input"];

/// Whether `name:` or `key=` stands before the quote, space or path before `at`.
pub(super) fn is_name_of_pair(scan: &Scan<'_>, at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(64).max(scan.body.min(at)), at);
    // `"path":"/spec/password"`
    let path = |b: &&u8| b.is_ascii_alphanumeric() || b"/_.-".contains(b);
    let steps = before.iter().rev().take_while(path).count();
    let lead = before.get(before.len() - steps..).and_then(<[u8]>::first);
    let before = match lead {
        Some(b'/') => before.get(..before.len() - steps).unwrap_or_default(),
        _ => before,
    };
    let signs = |b: &u8| matches!(b, b'"' | b'\'' | b'\\' | b' ');
    let trim = |text: &[u8]| text.iter().rev().take_while(|b| signs(b)).count();
    let before = before.get(..before.len() - trim(before)).unwrap_or_default();
    let Some((b':' | b'=', before)) = before.split_last() else { return false };
    let before = before.get(..before.len() - trim(before)).unwrap_or_default();
    // `{"k":"password","v":"…"}`
    if let Some((b'k' | b'K' | b'n' | b'N', rest)) = before.split_last()
        && rest.last().is_none_or(|b| !b.is_ascii_alphanumeric())
    {
        return true;
    }
    NAMES.iter().any(|name| {
        before
            .len()
            .checked_sub(name.len())
            .and_then(|at| before.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(name))
    })
}

/// Where the value begins, if the member at `at` is the value of a name.
pub(super) fn value_member(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = at;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    let len = scan.run(at, 32, |b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
    let name = scan.slice(at, at + len);
    let short = name.eq_ignore_ascii_case(b"v") || name.eq_ignore_ascii_case(b"val");
    let says = short
        || VALUES.iter().any(|value| {
            len.checked_sub(value.len())
                .and_then(|at| name.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(value))
        });
    if !says {
        return None;
    }
    at += len;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    matches!(scan.at(at), Some(b':' | b'=')).then(|| scan.skip_space(at + 1))
}

/// R08: `"name":"DB_PASSWORD","value":"…"`, `Name:DB_PASSWORD,Value:…`, `name="…" value="…"`.
pub(super) fn name_value_pair(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let mut at = at;
    if scan.at(at) == Some(b',') {
        at = scan.skip_space(at + 1);
    }
    let Some(from) = value_member(scan, at).or_else(|| later_member(scan, key, at)) else {
        return false;
    };
    if !is_name_of_pair(scan, key.start) && !is_in_path(scan, key) {
        return false;
    }
    let mut value = value::read(scan, from, Reach::Word);
    // `"v":1`, the version of who writes the line.
    let version = scan.slice(value.start, value.end);
    if !value.quoted && version.len() < 3 && version.iter().all(u8::is_ascii_digit) {
        return true;
    }
    // `"oldValue":"…","newValue":"…"`
    for _ in 0..2 {
        if is_value(scan, key, scan.slice(value.start, value.end)) {
            scan.accept(key, value);
        }
        if !value.quoted || scan.at(value.next) != Some(b',') {
            break;
        }
        let Some(from) = value_member(scan, scan.skip_space(value.next + 1)) else { break };
        value = value::read(scan, from, Reach::Word);
    }
    true
}

/// `"loc":["body","password"]`: the last step of where a field is.
fn is_in_path(scan: &Scan<'_>, key: &Key) -> bool {
    let before = scan.slice(key.start.saturating_sub(48).max(scan.body.min(key.start)), key.start);
    let Some(open) = memchr::memrchr(b'[', before) else { return false };
    let name = before.get(..open).unwrap_or_default();
    let tail = name.iter().rev().take_while(|b| !b.is_ascii_alphabetic()).count();
    let name = name.get(..name.len() - tail).unwrap_or_default();
    let close =
        value::quote_at(scan, key.end).map_or(key.end, |(slashes, _)| key.end + slashes + 1);
    scan.at(close) == Some(b']') && (name.ends_with(b"loc") || name.ends_with(b"path"))
}

/// `"param":"password","msg":"too short","value":"x"`, `"loc":["body","password"],"input":"x"`: the
/// value of the field that a complaint names, after other members of it.
fn later_member(scan: &Scan<'_>, key: &Key, at: usize) -> Option<usize> {
    /// From the name to the value.
    const REACH: usize = 256;
    const NAMES: &[&[u8]] =
        &[b"value", b"input", b"received", b"rejectedvalue", b"actual", b"given"];
    let own = matches!(key.class, Class::Password | Class::Secret | Class::Token | Class::Key);
    if !own || key.strength == Strength::Weak || scan.at(at.checked_sub(1)?) != Some(b',') {
        return None;
    }
    let near = scan.slice(at, at + REACH);
    let near = near.get(..memchr::memchr(b'}', near).unwrap_or(near.len()))?;
    scan.spend(near.len() / 4);
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'"', near.get(from..)?) {
        let start = from + found + 1;
        let rest = near.get(start..)?;
        let name = NAMES.iter().find(|name| {
            rest.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
        });
        if let Some(name) = name {
            let close = at + start + name.len();
            let quote = value::quote_at(scan, close);
            let sign = scan.skip_space(quote.map_or(close, |(slashes, _)| close + slashes + 1));
            if quote.is_some() && scan.at(sign) == Some(b':') {
                return Some(scan.skip_space(sign + 1));
            }
        }
        from = start;
    }
    None
}

/// `["x-api-key","…"]`: a list of two.
pub(super) fn listed_pair(scan: &mut Scan<'_>, key: &Key, comma: usize) -> bool {
    let open =
        key.start - scan.run_before(key.start, scan.body.min(key.start), |b| b"\"'\\".contains(b));
    // A list of more begins with the name of a user.
    let blanks = scan.run_before(open, scan.body.min(open), |&b| b == b' ');
    let opens = open - blanks <= scan.body
        || matches!(scan.before(open - blanks), Some(b'[' | b',' | b'(' | b'{'));
    if scan.at(comma) != Some(b',') || !opens {
        return false;
    }
    let value = value::read(scan, scan.skip_space(comma + 1), Reach::Word);
    let text = scan.slice(value.start, value.end);
    let telling = is_made_up(text) || value::looks_random(text);
    // In a longer list, such as one of headers, names look like much, too.
    let name = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b);
    let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
    let closed = scan.at(value.next) == Some(b']') && blanks == 0;
    let sure = closed && telling
        || !names_secret(text)
            && !matches!(scan.at(scan.skip_space(value.next)), Some(b':' | b'='))
            && (hex || telling && !text.iter().all(name));
    if value.quoted && sure && is_value(scan, key, text) {
        scan.accept(key, value);
        return true;
    }
    false
}

/// `"value":"…","name":"DB_PASSWORD"`.
pub(super) fn reversed_pair(scan: &mut Scan<'_>, key: &Key) -> bool {
    const REACH: usize = 512;
    if !is_name_of_pair(scan, key.start) {
        return false;
    }
    let floor = key.start.saturating_sub(REACH).max(scan.body);
    let before = scan.slice(floor, key.start);
    let found = before.windows(5).rposition(|w| w.eq_ignore_ascii_case(b"value"));
    let Some(found) = found.map(|at| floor + at) else { return false };
    let mut at = found + 5;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return false;
    }
    let from = scan.skip_space(at + 1);
    let value = value::read(scan, from, Reach::Word);
    let between = scan.slice(value.next, key.start);
    let near = value.next <= key.start
        && between.iter().filter(|&&b| b != b'\\').count() <= 24
        && !between.iter().any(|b| b"{}".contains(b))
        // Another element of the list.
        && memchr::memmem::find(between, b"- ").is_none();
    if near && is_value(scan, key, scan.slice(value.start, value.end)) {
        scan.accept(key, value);
    }
    near
}

/// R08: `- value: …` above the line that says its name: what looks like a password, since the name comes
/// too late to be asked.
pub(super) fn at_lone_value(scan: &mut Scan<'_>, end: usize) {
    let value = value::read(scan, scan.skip_space(end), Reach::Word);
    let text = scan.slice(value.start, value.end);
    let next = scan.skip_space(value.next);
    let alone = next >= scan.text_end || matches!(scan.at(next), Some(b'#' | b'\\' | b','));
    let address = memchr::memmem::find(text, b"://").is_some();
    let chosen = is_phrase(text) || value.quoted && is_chosen(text);
    if alone && !address && (is_made_up(text) || chosen || value::looks_random(text)) {
        scan.add(value.start, value.end, Class::Entropy);
    }
}

/// R13: `"keyName":"key1","permissions":"FULL","value":"…"`, as Azure lists the keys of an account.
pub(super) fn at_key_name(scan: &mut Scan<'_>, end: usize) {
    /// Between the name and the value: the name's own value and the permissions.
    const REACH: usize = 160;
    let near = scan.slice(end, end + REACH);
    let near = near.get(..memchr::memchr(b'}', near).unwrap_or(near.len())).unwrap_or_default();
    let Some(found) = memchr::memmem::find(near, b"value") else { return };
    let mut at = end + found + 5;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return;
    }
    let value = value::read(scan, scan.skip_space(at + 1), Reach::Word);
    let key =
        Key { start: end, end, class: Class::AzureKey, strength: Strength::Weak, plural: false };
    if is_value(scan, &key, scan.slice(value.start, value.end)) {
        scan.accept(&key, value);
    }
}

/// `"type":"random_password", … "result":"x"`: the state of a resource of Terraform.
pub(super) fn at_generated(scan: &mut Scan<'_>, end: usize) {
    /// From the kind of the resource to its result.
    const REACH: usize = 1024;
    let near = scan.slice(end, end + REACH);
    scan.spend(near.len() / 8);
    let Some(found) = memchr::memmem::find(near, b"\"result") else { return };
    let name = end + found + 7;
    let Some((slashes, _)) = value::quote_at(scan, name) else { return };
    let sign = scan.skip_space(name + slashes + 1);
    if scan.at(sign) != Some(b':') {
        return;
    }
    let value = value::read(scan, scan.skip_space(sign + 1), Reach::Word);
    if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
