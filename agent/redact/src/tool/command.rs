//! Commands and files whose secrets stand in a place of their own, without a flag.

use super::table::Holds;
use super::{MOST, take};
use crate::Class;
use crate::made_up::{is_made_up, is_uuid};
use crate::phrase::{is_chosen, is_unlike_names};
use crate::scan::Scan;
use crate::value::{self, Reach};

/// `sqlplus bob/x@db`, `impdp bob/x`: the password of a user of Oracle's tools.
pub(crate) fn at_oracle(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    for _ in 0..4 {
        at = scan.skip_space(at);
        let len = scan.run(at, 256, |b| !b.is_ascii_whitespace() && !b"\"'".contains(b));
        let text = scan.slice(at, at + len);
        if len == 0 {
            return;
        }
        // Options, and the parameters that follow.
        if let Some(slash) =
            memchr::memchr(b'/', text).filter(|_| !text.starts_with(b"-") && !text.contains(&b'='))
        {
            let rest = text.get(slash + 1..).unwrap_or_default();
            let close = memchr::memrchr(b'@', rest).unwrap_or(rest.len());
            if slash > 0 && close > 0 {
                scan.add(at + slash + 1, at + slash + 1 + close, Class::Password);
            }
            return;
        }
        at += len;
    }
}

/// `connect bob/x@db`, `rman target bob/x`, `userid=bob/x`: a user of Oracle and a password that looks like
/// one, or has a database behind it.
pub(crate) fn at_connect(scan: &mut Scan<'_>, start: usize, end: usize) {
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    if start < scan.done || inside {
        return;
    }
    let mut at = scan.skip_space(end);
    for word in [&b"target"[..], b"catalog", b"auxiliary"] {
        if scan.starts(at, word) && matches!(scan.at(at + word.len()), Some(b' ' | b'=')) {
            at = scan.skip_space(at + word.len() + 1);
        }
    }
    at += scan.run(at, 4, |b| b"\"'\\".contains(b));
    let name = scan.run(at, 64, |b| b.is_ascii_alphanumeric() || b"_$#.".contains(b));
    let from = at + name + 1;
    let len = scan.run(from, 128, |b| !b.is_ascii_whitespace() && !b"\"'/\\;".contains(b));
    let text = scan.slice(from, from + len);
    let place = memchr::memrchr(b'@', text);
    let password = text.get(..place.unwrap_or(len)).unwrap_or_default();
    let known = place.is_some_and(|at| text.get(at + 1).is_none_or(u8::is_ascii_alphabetic));
    let telling = is_made_up(password) || is_chosen(password);
    let named = name > 0 && scan.at(at + name) == Some(b'/') && password.len() >= 3;
    if named && (known || telling && !matches!(scan.at(from + len), Some(b'/'))) {
        scan.add(from, from + password.len(), Class::Password);
        scan.done = scan.done.max(from + password.len());
    }
}

/// `vault kv put secret/x a=b c=d`: all that is put.
pub(crate) fn at_put(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    for _ in 0..MOST {
        at = scan.skip_space(at);
        let len = scan.run(at, 256, |b| b.is_ascii_alphanumeric() || b"_-./".contains(b));
        if len == 0 {
            return;
        }
        if scan.at(at + len) != Some(b'=') {
            at += len;
            continue;
        }
        let value = value::read(scan, at + len + 1, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if !scan.starts(at, b"-") && !text.starts_with(b"@") && !value::is_nothing(text) {
            scan.add(value.start, value.end, Class::Secret);
            scan.done = scan.done.max(value.end);
        }
        at = value.next.max(at + len + 1);
    }
}

/// `ConvertTo-SecureString 'x' -AsPlainText`
pub(crate) fn at_secure_string(scan: &mut Scan<'_>, end: usize) {
    let mut at = scan.skip_space(end);
    if scan.slice(at, at + 8).eq_ignore_ascii_case(b"-string ") {
        at = scan.skip_space(at + 8);
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    // `create_admin_user {"password":…}`: its members have names of their own.
    if scan.at(at) != Some(b'{')
        && !text.starts_with(b"-")
        && !text.starts_with(b"$")
        && !value::is_nothing(text)
        && !text.starts_with(b"(")
    {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `db.example.com:5432:name:bob:x`: a line of a file of passwords of PostgreSQL, from its port on.
pub(crate) fn at_pgpass(scan: &mut Scan<'_>, end: usize) {
    let name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.*".contains(b);
    let mut at = end;
    for _ in 0..2 {
        at += scan.run(at, 64, name);
        if scan.at(at) != Some(b':') || scan.before(at) == Some(b':') {
            return;
        }
        at += 1;
    }
    let value = value::read(scan, at, Reach::Word);
    if value.end > at + 2 && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `--creds user:password`, `--src-creds=user:password`: of tools that copy images.
pub(crate) fn at_creds(scan: &mut Scan<'_>, start: usize, end: usize) {
    let sign = scan.at(end);
    let flag = scan.before(start) == Some(b'-');
    // `creds=bob:x`
    let named = !scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    let flag = flag || named && sign == Some(b'=');
    // `creds: bob:x`
    let told = named && sign == Some(b':') && scan.at(end + 1) == Some(b' ');
    if !told && (!flag || !matches!(sign, Some(b'=' | b' '))) {
        return;
    }
    let value = value::read(scan, scan.skip_space(end + 1), Reach::Word);
    let text = scan.slice(value.start, value.end);
    let password = text.split(|&b| b == b':').nth(1).unwrap_or_default();
    if told && !(is_made_up(password) || is_chosen(password)) {
        return;
    }
    take(scan, Holds::Pair, value.start, value.end);
}

/// `echo x | docker login --password-stdin`, `echo x | base64 -d`: what is piped into something that
/// takes or decodes a secret.
pub(crate) fn at_echo(scan: &mut Scan<'_>, start: usize, end: usize) {
    if scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric()) && start > scan.body {
        return;
    }
    let mut from = scan.skip_space(end);
    while scan.at(from) == Some(b'-') {
        let flag = value::read(scan, from, Reach::Word);
        from = scan.skip_space(flag.next.max(from + 1));
    }
    let mut value = value::read(scan, from, Reach::Word);
    // `printf '%s' 'x'`
    if scan.slice(value.start, value.end).starts_with(b"%s") {
        value = value::read(scan, scan.skip_space(value.next), Reach::Word);
    }
    // `<<< x`
    if scan.at(start) == Some(b'<') {
        let text = scan.slice(value.start, value.end);
        let lead = scan.slice(start.saturating_sub(64).max(scan.body.min(start)), start);
        let asked = [&b"secret"[..], b"passw", b"token", b"versions add"]
            .iter()
            .any(|word| memchr::memmem::find(lead, word).is_some());
        let known = asked && (is_chosen(text) || is_uuid(text));
        if is_made_up(text) || known || value::looks_random(text) {
            scan.add(value.start, value.end, Class::Password);
            scan.done = scan.done.max(value.end);
        }
        return;
    }
    let pipe = scan.skip_space(value.next);
    if scan.at(pipe) != Some(b'|') {
        return;
    }
    let command = scan.slice(pipe, pipe + 160);
    let takes = [
        &b"stdin"[..],
        b"base64 -",
        b"sudo -S",
        b"chpasswd",
        b"kubeseal",
        b"kinit",
        b"passwd",
        b"cryptsetup",
        b"passphrase",
        b"-pass",
        b"secret create",
        b"secrets versions add",
    ];
    let taken = takes.iter().any(|t| memchr::memmem::find(command, t).is_some());
    if taken && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `* a1 LOGIN bob x`, as a client of IMAP sends it: a tag before the word, two words after it and no more.
pub(crate) fn at_login(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done || scan.slice(start, end) != b"LOGIN " || scan.before(start) != Some(b' ')
    {
        return;
    }
    let tag = scan.run_before(start - 1, scan.body.min(start - 1), |b| b.is_ascii_alphanumeric());
    let name = scan.slice(start - 1 - tag, start - 1);
    let user = value::read(scan, end, Reach::Word);
    let from = scan.skip_space(user.next);
    let value = value::read(scan, from, Reach::Word);
    let tagged = (1..=8).contains(&tag) && name.iter().any(u8::is_ascii_digit);
    // Without a tag the password is in quotes, as the protocol has it.
    let shown = value.quoted && from > user.next && !user.quoted;
    if !tagged && !shown {
        return;
    }
    let more = scan.skip_space(value.next);
    let ends = !tagged || scan.at(more).is_none_or(|b| b"\"'\\".contains(&b));
    if from > user.next && user.end > user.start && ends && value.end > value.start {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `send "x\r"`, where the line speaks of what asks for a password.
pub(crate) fn at_send(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// How far the question may be, to each side.
    const NEAR: usize = 96;
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    let mut from = scan.skip_space(end);
    if scan.starts(from, b"-- ") {
        from = scan.skip_space(from + 3);
    }
    if start < scan.done || inside || value::quote_at(scan, from).is_none() {
        return;
    }
    let value = value::read(scan, from, Reach::Word);
    let before = scan.slice(start.saturating_sub(NEAR).max(scan.body.min(start)), start);
    let after = scan.slice(value.next, value.next + NEAR);
    let asks = [&b"assword"[..], b"assphrase", b"PIN"].iter().any(|word| {
        memchr::memmem::find(before, word).is_some() || memchr::memmem::find(after, word).is_some()
    });
    let text = scan.slice(value.start, value.end);
    let line = text.iter().position(|&b| b == b'\\').filter(|at| {
        let rest = text.get(*at..).unwrap_or_default();
        let letter = rest.iter().find(|b| **b != b'\\');
        matches!(letter, Some(b'r' | b'n')) && rest.len() <= 8
    });
    let end = line.map_or(value.end, |at| value.start + at);
    let text = scan.slice(value.start, end);
    if asks && text.len() >= 3 && !text.starts_with(b"$") && !value::is_nothing(text) {
        scan.add(value.start, end, Class::Password);
        scan.done = scan.done.max(end);
    }
}

/// `snmp-server community x RO`, `rocommunity x 10.0.0.0/8`: what lets a reader of SNMP in.
pub(crate) fn at_community(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// How far before the word the line may speak of SNMP.
    const NEAR: usize = 32;
    let value = value::read(scan, scan.skip_space(end), Reach::Word);
    let text = scan.slice(value.start, value.end);
    let before = scan.slice(start.saturating_sub(NEAR).max(scan.body.min(start)), start);
    let lower = before.to_ascii_lowercase();
    let snmp = memchr::memmem::find(&lower, b"snmp").is_some();
    let joined = lower.ends_with(b"ro") || lower.ends_with(b"rw");
    let fits = is_made_up(text) || is_chosen(text) || snmp && !matches!(text, b"string" | b"name");
    if start >= scan.done && (snmp || joined) && fits && text.len() >= 4 {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `login("bob", "x")`, `new BasicAuthenticator("bob", "x")`: the last of the strings that a call which logs in
/// is given. The bracket stands before `end`.
pub(crate) fn at_call(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Most arguments.
    const MOST: usize = 4;
    if start < scan.done {
        return;
    }
    let mut at = end;
    let mut strings = 0;
    let mut last = None;
    for _ in 0..MOST {
        at = scan.skip_space(at);
        let value = if value::quote_at(scan, at).is_some() {
            let value = value::read(scan, at, Reach::Word);
            strings += 1;
            last = Some(value);
            value
        } else {
            let name = at + scan.run(at, 64, |b| b.is_ascii_alphanumeric() || b"_.".contains(b));
            value::Value { start: at, end: name, next: name, quoted: false }
        };
        at = scan.skip_space(value.next);
        if scan.at(at) != Some(b',') {
            break;
        }
        at += 1;
    }
    let Some(value) = last.filter(|value| value.quoted && strings >= 2) else { return };
    let text = scan.slice(value.start, value.end);
    let place = text.iter().any(|b| b"/\\ ".contains(b));
    if !place && (is_made_up(text) || is_unlike_names(text) || is_chosen(text)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
