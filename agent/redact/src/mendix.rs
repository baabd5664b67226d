//! Constants of Mendix apps: R27.

use super::Class;
use super::assign::after_key;
use super::judge::names_secret;
use super::key::{self, Key, Strength};
use super::made_up::is_made_up;
use super::members;
use super::pairs::value_member;
use super::phrase::is_chosen;
use super::scan::{Cue, Scan};
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
    // `MX_LOG_LEVEL=INFO`: modules have small letters in their names.
    let shouted = scan.slice(end, key_end).iter().all(|b| !b.is_ascii_lowercase());
    let word = scan.run(key_end + 1, 16, u8::is_ascii_alphabetic);
    let ends = scan
        .at(key_end + 1 + word)
        .is_none_or(|b| b.is_ascii_whitespace() || b"\"'\\".contains(&b));
    // `name: MX_LOG_LEVEL`, and its value on the next line.
    if shouted && key_end >= scan.text_end {
        return;
    }
    if shouted && scan.at(key_end) == Some(b'=') && (2..=8).contains(&word) && ends {
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

/// Whether `name` is that of a constant: module and constant.
pub(super) fn is_constant(name: &[u8]) -> bool {
    let part = |text: &[u8]| {
        text.first().is_some_and(u8::is_ascii_alphabetic)
            && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    };
    let mut parts = name.split(|&b| b == b'.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(module), Some(constant), None) => part(module) && part(constant),
        _ => false,
    }
}

/// `Portal.Environment` is `acceptance`, `OIDC.ClientID` is `tariff-api`: the name says that it is a setting,
/// and the value is made of words, or says where something is.
pub(super) fn is_setting(name: &[u8], value: &[u8]) -> bool {
    /// What names of settings end in, whatever stands before.
    const SURE: &[&str] = &["policy", "policytext", "timeout", "lifetime"];
    /// The same, if it is an address.
    const PLACES: &[&str] = &["url", "uri", "endpoint"];
    /// The same where nothing else in the name speaks of a secret.
    const PLAIN: &[&str] = &[
        "host",
        "hostname",
        "folder",
        "directory",
        "bucket",
        "region",
        "locale",
        "language",
        "timezone",
        "encoding",
        "charset",
        "format",
        "interval",
        "level",
        "environment",
        "text",
        "label",
        "title",
        "message",
        "clientid",
        "tenant",
        "realm",
        "issuer",
        "audience",
        "scope",
        "scopes",
        "mode",
        "type",
        "enabled",
        "version",
        "appname",
        "displayname",
        "queuename",
        "topicname",
        "filename",
        "schedule",
        "country",
        "currency",
        "theme",
        "themename",
        "provider",
    ];
    /// A longer one may hold anything.
    const LONGEST: usize = 160;
    let name = name.to_ascii_lowercase();
    let ends = |list: &[&str]| list.iter().any(|end| name.ends_with(end.as_bytes()));
    let address = value.starts_with(b"/") || memchr::memmem::find(value, b"://").is_some();
    let known = ends(SURE) || ends(PLACES) && address || ends(PLAIN) && !names_secret(&name);
    if value.len() > LONGEST || !known {
        return false;
    }
    // Of an address the host may have digits.
    let place = value.strip_prefix(b"https://").or(value.strip_prefix(b"http://"));
    let path = place.map(|place| place.iter().position(|&b| b == b'/').unwrap_or(place.len()));
    let told = path.and_then(|at| place?.get(at..)).unwrap_or(value);
    let host = path.and_then(|at| place?.get(..at)).unwrap_or_default();
    let sign = |b: &u8| b.is_ascii_alphanumeric() || b" -_./:,".contains(b);
    host.iter().all(sign)
        && told.iter().all(sign)
        && told
            .split(|b| b" /:,".contains(b))
            .all(|word| !is_made_up(word) && !is_chosen(word) && !value::looks_random(word))
}

/// Takes the value at `at` of the constant `name`; limits, switches and settings are no secrets.
pub(super) fn take_constant(scan: &mut Scan<'_>, name: &[u8], at: usize, reach: Reach) -> usize {
    let value = value::read(scan, at, reach);
    let text = scan.slice(value.start, value.end);
    let number = text.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    // A block of PEM has a rule of its own.
    let block = text.starts_with(b"-----BEGIN");
    let setting = number || is_setting(name, text);
    if text.len() >= 4 && !setting && !block && !value::is_nothing(text) {
        scan.add(value.start, value.end, Class::MendixConstant);
        scan.done = scan.done.max(value.end);
    }
    value.next.max(at)
}

/// The name of a constant at `at`, past a quote and `MicroflowConstants.`: where it begins, where it
/// ends, and where reading goes on.
fn name_at(scan: &Scan<'_>, at: usize) -> Option<(usize, usize)> {
    let start = value::quote_at(scan, at).map_or(at, |(slashes, _)| at + slashes + 1);
    let len = scan.run(start, 128, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    is_constant(scan.slice(start, start + len)).then(|| {
        let end = start + len;
        (end, value::quote_at(scan, end).map_or(end, |(slashes, _)| end + slashes + 1))
    })
}

/// R27: `constant 'Module.Name' with value '…'`, as the runtime says what it was given, `'…' for constant
/// Module.Name`, and `"constant":"Module.Name","value":"…"`. The word ends at `end`.
pub(super) fn at_constant(scan: &mut Scan<'_>, start: usize, end: usize) {
    let mut from = end;
    if let Some((slashes, _)) = value::quote_at(scan, from) {
        from += slashes + 1;
    }
    from = scan.skip_space(from);
    if matches!(scan.at(from), Some(b':' | b'=')) {
        from = scan.skip_space(from + 1);
    }
    if from == end {
        return;
    }
    let Some((name_end, next)) = name_at(scan, from) else { return };
    let name = scan.slice(from, name_end);
    let before = scan.slice(start.saturating_sub(5).max(scan.body.min(start)), start);
    if before.ends_with(b" for ") {
        let close = start - 5;
        if let Some(quote @ (b'"' | b'\'')) = scan.at(close.saturating_sub(1)) {
            let floor = close.saturating_sub(256).max(scan.body.min(close));
            let text = scan.slice(floor, close - 1);
            if let Some(open) = memchr::memrchr(quote, text) {
                let slashes = scan.run_before(close - 1, floor, |&b| b == b'\\');
                let (from, to) = (floor + open + 1, close - 1 - slashes);
                if !is_setting(name, scan.slice(from, to)) {
                    scan.add(from, to, Class::MendixConstant);
                }
            }
        }
        return;
    }
    if scan.at(next) == Some(b',')
        && let Some(at) = value_member(scan, scan.skip_space(next + 1))
    {
        take_constant(scan, name, at, Reach::Word);
    } else if let Some(at) = stated(scan, next) {
        take_constant(scan, name, at, Reach::Word);
    }
}

/// R27: `constants: {Module.Name=…, …}`, a list of objects with a name and a value, and the lines below.
pub(super) fn at_constants(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Longest list that is read, bytes.
    const LONGEST: usize = 16 * 1024;
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    if scan.at(at) == Some(b'.') {
        at += 1;
    } else {
        at = scan.skip_space(at);
        if !matches!(scan.at(at), Some(b':' | b'=' | b'{' | b'[' | b'-')) {
            return;
        }
        at += scan.run(at, 8, |b| matches!(b, b':' | b'=' | b'-' | b'>' | b' '));
    }
    if at >= scan.text_end {
        let (key_start, _) = super::key::extent(scan, start, end);
        let indent = key_start - scan.body.min(key_start);
        scan.cues.next = Some(Cue::Constants { indent });
        return;
    }
    let list = matches!(scan.at(at), Some(b'{' | b'['));
    let close = match scan.at(at) {
        Some(b'{') => members::matching(scan, at, b'{', b'}'),
        Some(b'[') => members::matching(scan, at, b'[', b']'),
        _ => None,
    };
    let limit = close.unwrap_or(scan.text.len()).min(at + LONGEST);
    // Words up to the next that is the name of a constant.
    while at < limit && !scan.spent() {
        if let Some((name_end, next)) = name_at(scan, at) {
            let from = if scan.at(next) == Some(b',') {
                value_member(scan, scan.skip_space(next + 1))
            } else {
                let sign = scan.skip_space(next);
                let signs = scan.run(sign, 2, |b| matches!(b, b'=' | b':' | b'-' | b'>'));
                (signs > 0).then(|| scan.skip_space(sign + signs))
            };
            at = match from {
                Some(from) => {
                    take_constant(scan, scan.slice(at, name_end), from, Reach::Word).max(name_end)
                }
                None => next.max(name_end),
            };
            if !list {
                return;
            }
        }
        at += scan.run(at, LONGEST, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        at += scan.run(at, LONGEST, |b| !b.is_ascii_alphabetic());
    }
    scan.spend(limit.saturating_sub(end) / 2);
}

/// Where the value begins after ` with value `, ` to `, ` = ` and the like.
pub(super) fn stated(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = scan.skip_space(at);
    // `(String)`, `(default value empty)`
    if scan.at(at) == Some(b'(') {
        let len = scan.run(at, 48, |&b| b != b')');
        at = scan.skip_space(at + len + 1);
    }
    let mut said = false;
    for _ in 0..6 {
        let rest = scan.slice(at, at + 16);
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
            b"resolved",
            b"replaced",
            b"configured",
            b"loaded",
            b"initialised",
            b"initialized",
            b"was",
            b"now",
            b"by",
            b"as",
            b"environment",
            b"the",
            b"from",
            b"in",
            b"deployment",
            b"override",
            b"new",
            b"at",
            b"runtime",
            b"variable",
            b"got",
            b"gets",
            b"updated",
            b"applied",
            b"assigned",
            b"using",
        ]
        .into_iter()
        .find(|w| rest.starts_with(w) && rest.get(w.len()).is_none_or(|b| b" :=".contains(b)));
        let Some(word) = word else { break };
        said |= matches!(word, b"to" | b"value" | b"is" | b"with" | b"by" | b"as" | b"was");
        at = scan.skip_space(at + word.len());
    }
    let arrows = [&b"->"[..], b"=>", b"<-", b":=", b"=", b":"];
    if let Some(arrow) = arrows.iter().find(|arrow| scan.starts(at, arrow)) {
        said = true;
        at = scan.skip_space(at + arrow.len());
    }
    (said && at < scan.text.len()).then_some(at)
}

/// R27: `MxAdmin / …`, `MxAdmin:…`: the name of the administrator and a password.
pub(super) fn at_admin(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    while matches!(scan.at(at), Some(b' ' | b'/' | b':' | b',' | b'\'' | b'"' | b'-' | b'>'))
        && at < end + 4
    {
        at += 1;
    }
    if at == end {
        return;
    }
    // `login of MxAdmin with x failed`
    for word in [&b"with "[..], b"using ", b"and "] {
        at += if scan.starts(at, word) { word.len() } else { 0 };
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let pair = text.iter().any(|b| matches!(b, b'=' | b':' | b'"'));
    let known = is_chosen(text);
    if !value.quoted && !pair && (known || is_made_up(text)) {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
