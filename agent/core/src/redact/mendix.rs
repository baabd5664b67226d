//! Constants of Mendix apps: R27.

use super::Class;
use super::assign::after_key;
use super::judge::{is_password_like, is_value};
use super::key::{self, Key, Strength};
use super::scan::Scan;
use super::value::{self, Reach};

/// R27: `MX_Module_Constant=…`, the environment variable of a constant.
pub(super) fn at_mendix_variable(scan: &mut Scan<'_>, start: usize, end: usize) {
    if scan.slice(start, end) != b"MX_" || !key::starts_word(scan, start) || start < scan.done {
        return;
    }
    let (key_start, key_end) = key::extent(scan, start, end);
    let parts = scan.slice(end, key_end).iter().filter(|&&b| b == b'_').count();
    if key_start != start || parts == 0 {
        return;
    }
    let key = Key {
        start,
        end: key_end,
        class: Class::MendixConstant,
        strength: Strength::Sure,
        plural: false,
    };
    after_key(scan, key);
}

/// R27: `constant 'Module.Name' with value '…'`, as the runtime says what it was given.
pub(super) fn at_constant(scan: &mut Scan<'_>, end: usize) {
    let from = scan.skip_space(end);
    if from == end {
        return;
    }
    let name = value::read(scan, from, Reach::Word);
    // Module and constant.
    let text = scan.slice(name.start, name.end);
    let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let mut parts = text.split(|&b| b == b'.');
    let (Some(module), Some(constant), None) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    if module.is_empty() || constant.is_empty() || !module.iter().chain(constant).all(part) {
        return;
    }
    let key = Key {
        start: name.start,
        end: name.end,
        class: Class::MendixConstant,
        strength: Strength::Sure,
        plural: false,
    };
    let Some(at) = stated(scan, name.next) else { return };
    let value = value::read(scan, at, Reach::Word);
    // Limits and switches are no secrets.
    let text = scan.slice(value.start, value.end);
    if text.len() < 4 || text.iter().all(|b| b.is_ascii_digit() || *b == b'.') {
        return;
    }
    if is_value(scan, &key, scan.slice(value.start, value.end)) {
        scan.accept(&key, value);
    }
}

/// Where the value begins after ` with value `, ` to `, ` = ` and the like.
pub(super) fn stated(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = scan.skip_space(at);
    let mut said = false;
    for _ in 0..4 {
        let rest = scan.rest(at);
        let word = [
            &b"with"[..],
            b"has",
            b"set",
            b"to",
            b"value",
            b"is",
            b"of",
            b"overridden",
            b"changed",
        ]
        .into_iter()
        .find(|w| rest.starts_with(w) && rest.get(w.len()).is_none_or(|b| b" :=".contains(b)));
        let Some(word) = word else { break };
        said |= matches!(word, b"to" | b"value" | b"is");
        at = scan.skip_space(at + word.len());
    }
    if matches!(scan.at(at), Some(b'=' | b':')) {
        said = true;
        at = scan.skip_space(at + 1);
    }
    (said && at < scan.text.len()).then_some(at)
}

/// R27: `MxAdmin / …`, `MxAdmin:…`: the name of the administrator and a password.
pub(super) fn at_admin(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    while matches!(scan.at(at), Some(b' ' | b'/' | b':' | b',' | b'\'' | b'"')) && at < end + 4 {
        at += 1;
    }
    if at == end {
        return;
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let pair = text.iter().any(|b| matches!(b, b'=' | b':' | b'"'));
    if !value.quoted && !pair && is_password_like(text) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
