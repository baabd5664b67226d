//! Flags of any tool that takes a user and a password (R09).

use super::super::Class;
use super::super::judge::{is_locator, names_secret};
use super::super::made_up::is_made_up;
use super::super::phrase::{is_chosen, is_jagged, is_scrambled, is_unlike_names};
use super::super::scan::Scan;
use super::super::value::{self, Reach};

/// `-u bob -p x`, `-u bob:x`, `--user=bob -A x -X y`: after the user comes the password, whatever the tool
/// is called. The flag ends at `end`.
pub(crate) fn at_user_flag(scan: &mut Scan<'_>, end: usize) {
    /// From the user to the last of the passwords.
    const NEAR: usize = 120;
    /// Most flags after that of the user.
    const MOST: usize = 5;
    if end < scan.done {
        return;
    }
    let from = scan.skip_space(end);
    let from = from + usize::from(matches!(scan.at(from), Some(b'"' | b'\'')));
    let len = scan.run(from, 256, |b| !b.is_ascii_whitespace() && !b"\"'\\|".contains(b));
    let user = value::Value { start: from, end: from + len, next: from + len, quoted: false };
    if pair(scan, user) {
        return;
    }
    let mut at = user.next.max(end);
    let limit = (end + NEAR).min(scan.text.len());
    for _ in 0..MOST {
        let Some(dash) = scan.find(b'-', at, limit) else { return };
        // `| tool -p x`: of another command.
        if scan.slice(at, dash).iter().any(|b| b"|;&".contains(b)) {
            return;
        }
        at = dash + 1;
        let letter = scan.at(dash + 1).unwrap_or(b' ');
        let short = scan.before(dash) == Some(b' ') && letter.is_ascii_alphabetic();
        if !short {
            continue;
        }
        let own = matches!(letter, b'p' | b'P' | b'w' | b'W');
        let mut from = dash + 2;
        if scan.at(from) == Some(b'=') {
            from += 1;
        } else if scan.at(from) != Some(b' ') && !own {
            continue;
        }
        let value = value::read(scan, scan.skip_space(from), Reach::Word);
        let text = scan.slice(value.start, value.end);
        let place = is_place(text) || text.starts_with(b"-");
        let odd = is_unlike_names(text) || is_scrambled(text);
        let fits = if own { is_made_up(text) || is_chosen(text) || is_jagged(text) } else { odd };
        if !place && fits {
            scan.add(value.start, value.end, Class::Password);
            scan.done = scan.done.max(value.end);
            if own {
                return;
            }
            at = value.next.max(at);
        }
    }
}

/// `8080:80`, `a/b`, `proto=tcp`: names and numbers with a sign that divides them. A sign that no name has
/// makes a password of it.
fn is_place(text: &[u8]) -> bool {
    let sign = text.iter().position(|b| b"/:=,".contains(b));
    let odd = text.iter().any(|b| b"!#$%^*?<>~".contains(b));
    sign.is_some_and(|at| at == 0 || !odd) || memchr::memmem::find(text, b"://").is_some()
}

/// `bob:x`, `bob,x`, `bob%x`: takes the password of a user that was given with it.
fn pair(scan: &mut Scan<'_>, user: value::Value) -> bool {
    let text = scan.slice(user.start, user.end);
    let Some(sign) = text.iter().position(|b| b":,%".contains(b)) else { return false };
    let (name, rest) = text.split_at_checked(sign).unwrap_or_default();
    let password = rest.get(1..).unwrap_or_default();
    let named = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"_-.@\\".contains(b));
    let place = password.starts_with(b"//") || password.iter().any(|b| b"=".contains(b));
    let fits = is_made_up(password) || is_chosen(password);
    if !named || place || !fits {
        return false;
    }
    scan.add(user.start + sign + 1, user.end, Class::Password);
    scan.done = scan.done.max(user.end);
    true
}

/// `--name Sap.Passphrase --value x`: the value of what another flag names. The flag is at `start..end`.
pub(crate) fn at_value_flag(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// From the name to the value.
    const NEAR: usize = 160;
    const NAMES: &[&[u8]] = &[
        b"name",
        b"key",
        b"constant",
        b"variable",
        b"secret",
        b"id",
        b"n",
        b"k",
        b"setting",
        b"parameter",
        b"config",
        b"property",
        b"var",
    ];
    if start < scan.done {
        return;
    }
    let floor = start.saturating_sub(NEAR).max(scan.body.min(start));
    let before = scan.slice(floor, start);
    scan.spend(before.len() / 8);
    let mut words = before.split(|b| b.is_ascii_whitespace() || *b == b'=');
    let mut named = false;
    while let Some(word) = words.next() {
        let flag = word.iter().take_while(|&&b| b == b'-').count();
        let name = word.get(flag..).unwrap_or_default();
        let sign = |b: &u8| b"\"'\\".contains(b);
        if (1..=2).contains(&flag) && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            let what = words.next().unwrap_or_default();
            let lead = what.iter().take_while(|b| sign(b)).count();
            let what = what.get(lead..).unwrap_or_default();
            let tail = what.iter().rev().take_while(|b| sign(b)).count();
            named = names_secret(what.get(..what.len() - tail).unwrap_or_default());
        }
    }
    let value = value::read(scan, scan.skip_space(end), Reach::Word);
    let text = scan.slice(value.start, value.end);
    if named && !value::is_nothing(text) && !text.starts_with(b"-") && !is_locator(text) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `/p:x`, as tools of Windows have it.
pub(crate) fn at_slash_flag(scan: &mut Scan<'_>, end: usize) {
    let value = value::read(scan, end, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let setting = text.iter().any(|b| b"=/\\".contains(b));
    if end >= scan.done && !setting && (is_made_up(text) || is_chosen(text)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}

/// `ACL SETUSER bob on >x ~* +@all`: the rules of a user of Redis.
pub(crate) fn at_rule_of_user(scan: &mut Scan<'_>, end: usize) {
    /// Most rules.
    const MOST: usize = 24;
    let mut at = end;
    for _ in 0..MOST {
        at = scan.skip_space(at);
        let len = scan.run(at, 256, |b| !b.is_ascii_whitespace() && !b"\"'".contains(b));
        if len == 0 {
            return;
        }
        if matches!(scan.at(at), Some(b'>' | b'<')) && len > 3 {
            scan.add(at + 1, at + len, Class::Password);
            scan.done = scan.done.max(at + len);
        }
        at += len + usize::from(scan.at(at + len).is_some_and(|b| !b.is_ascii_whitespace()));
    }
}

/// `-p x` of any tool: ports, paths and projects have it as well, so only what can be nothing else.
pub(crate) fn at_short_flag(scan: &mut Scan<'_>, end: usize) {
    let value = value::read(scan, scan.skip_space(end), Reach::Word);
    let text = scan.slice(value.start, value.end);
    if end >= scan.done && is_unlike_names(text) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
