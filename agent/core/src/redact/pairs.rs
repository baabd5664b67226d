//! Names and values that stand in members of their own: R08.

use super::Class;
use super::judge::is_value;
use super::key::{Key, Strength};
use super::scan::Scan;
use super::value::{self, Reach};

/// Whether `name:` or `key=` stands before the quote or space before `at`.
pub(super) fn is_name_of_pair(scan: &Scan<'_>, at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(24), at);
    let signs = |b: &u8| matches!(b, b'"' | b'\'' | b'\\' | b' ');
    let trim = |text: &[u8]| text.iter().rev().take_while(|b| signs(b)).count();
    let before = before.get(..before.len() - trim(before)).unwrap_or_default();
    let Some((b':' | b'=', before)) = before.split_last() else { return false };
    let before = before.get(..before.len() - trim(before)).unwrap_or_default().to_ascii_lowercase();
    before.ends_with(b"name") || before.ends_with(b"key")
}

/// R08: `"name":"DB_PASSWORD","value":"…"`, `Name:DB_PASSWORD,Value:…`, `name="…" value="…"`.
pub(super) fn name_value_pair(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let mut at = at;
    if scan.at(at) == Some(b',') {
        at = scan.skip_space(at + 1);
    }
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    if !scan.slice(at, at + 5).eq_ignore_ascii_case(b"value") {
        return false;
    }
    at += 5;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    if !matches!(scan.at(at), Some(b':' | b'=')) || !is_name_of_pair(scan, key.start) {
        return false;
    }
    let from = scan.skip_space(at + 1);
    let value = value::read(scan, from, Reach::Word);
    if is_value(scan, key, scan.slice(value.start, value.end)) {
        scan.accept(key, value);
    }
    true
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
        && !between.iter().any(|b| b"{}".contains(b));
    if near && is_value(scan, key, scan.slice(value.start, value.end)) {
        scan.accept(key, value);
    }
    near
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
