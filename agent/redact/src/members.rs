//! Lists and objects after a key, in JSON, YAML and Go's dumps.

use super::Class;
use super::judge::is_field;
use super::key::{Key, Strength};
use super::made_up::{is_made_up, is_password_like, is_random_word, is_uuid};
use super::mendix;
use super::scan::{Cue, Scan};
use super::value::{self, Reach, Value};
use super::words::HARMLESS;

/// Farthest end of a bracketed list or object that is looked for, bytes.
const LONGEST_LIST: usize = 16 * 1024;

/// `[…]` after a key: everything inside goes.
pub(super) fn list(scan: &mut Scan<'_>, key: &Key, open: usize) {
    let inside = open + 1;
    let end = matching(scan, open, b'[', b']')
        .unwrap_or_else(|| value::read(scan, inside, Reach::Word).end);
    let text = scan.slice(inside, end);
    let objects = matches!(text.trim_ascii().first(), Some(b'{'));
    // Lists of Secret names in pod specs.
    let alone = is_made_up(text) && !is_field(text);
    let names = key.class == Class::Secret && key.plural && !holds_random(text) && !alone;
    // `"password":[{"value":"x"}]`
    if objects && key.strength == Strength::Sure {
        let brace = inside + text.iter().take_while(|b| b.is_ascii_whitespace()).count();
        return object(scan, key.class, brace, true);
    }
    // `"keys":["…","…"]`: shares of a key in hexadecimal digits.
    let share = |word: &[u8]| word.len() == 66 && word.iter().all(u8::is_ascii_hexdigit);
    if key.strength == Strength::Weak {
        let mut at = inside;
        for word in text.split(|b| b", \"'\\".contains(b)) {
            if share(word) || word.len() >= 32 && is_random_word(word) {
                scan.add(at, at + word.len(), Class::Key);
            }
            at += word.len() + 1;
        }
        return;
    }
    if value::is_nothing(text) || objects || names || key.strength == Strength::Weak {
        return;
    }
    scan.accept(key, Value { start: inside, end, next: end, quoted: false });
}

/// Position of the bracket that closes the one at `open`.
pub(super) fn matching(scan: &Scan<'_>, open: usize, up: u8, down: u8) -> Option<usize> {
    let mut level = 0_u32;
    let reach = scan.rest(open);
    let reach = reach.get(..LONGEST_LIST).unwrap_or(reach);
    for at in memchr::memchr2_iter(up, down, reach) {
        if reach.get(at) == Some(&up) {
            level += 1;
        } else {
            level -= 1;
            if level == 0 {
                scan.spend(at / 4);
                return Some(open + at);
            }
        }
    }
    scan.spend(reach.len() / 4);
    None
}

/// `{…}` after a key. With `only_values`, just the members called `value` and the like: other
/// members have names that speak for themselves.
pub(super) fn object(scan: &mut Scan<'_>, class: Class, open: usize, only_values: bool) {
    members(scan, class, open, only_values, is_random);
}

/// `"tokens":{…}`, `"secrets":{…}`: members that look like one.
pub(super) fn plural_object(scan: &mut Scan<'_>, class: Class, open: usize) {
    members(scan, class, open, true, |text| {
        is_random(text) || is_password_like(text) && !is_uuid(text)
    });
}

fn is_random(text: &[u8]) -> bool {
    let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
    hex || is_random_word(text)
}

fn members(
    scan: &mut Scan<'_>,
    class: Class,
    open: usize,
    only_values: bool,
    telling: fn(&[u8]) -> bool,
) {
    let end = matching(scan, open, b'{', b'}').unwrap_or(scan.text.len()).min(open + LONGEST_LIST);
    scan.spend(end - open.min(end));
    let mut at = open + 1;
    let name = scan.run(at, 128, |b| b.is_ascii_alphanumeric() || b"._-".contains(b));
    let sign = if name > 0 && scan.at(at + name) == Some(b'=') { b'=' } else { b':' };
    while at < end && !scan.spent() {
        // A member: its name, a colon, its value; `{name=value, …}` in Java.
        let Some(colon) = scan.find2(b':', sign, at, end) else { return };
        let from = scan.skip_space(colon + 1);
        let value = match scan.at(from) {
            None => return,
            Some(b'{' | b'[') => match go_bytes(scan, from) {
                Some(bytes) => bytes,
                // Bytes in decimal numbers.
                None if class == Class::K8sSecret && scan.at(from) == Some(b'[') => {
                    let close = scan.find(b']', from, end).unwrap_or(end);
                    Value { start: from + 1, end: close, next: close + 1, quoted: true }
                }
                None => {
                    at = from + 1;
                    continue;
                }
            },
            Some(_) => value::read(scan, from, Reach::Word),
        };
        let name_end = colon - scan.run_before(colon, at, |b| !b.is_ascii_alphanumeric());
        let len = scan.run_before(name_end, at, u8::is_ascii_alphanumeric);
        let name = scan.slice(name_end - len, name_end);
        let text = scan.slice(value.start, value.end);
        // `"password":{"type":"string","minLength":12}`: what is said of passwords.
        let said = class == Class::Password
            && (HARMLESS.has(name) || text.len() <= 3 && text.iter().all(u8::is_ascii_digit));
        let chosen = !only_values && !said
            || [&b"value"[..], b"data", b"word", b"string", b"plain", b"raw"]
                .iter()
                .any(|w| name.eq_ignore_ascii_case(w));
        // `"Orders.Retries":"3"`
        let setting = class == Class::MendixConstant
            && (text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
                || mendix::is_setting(name, text));
        if (chosen || telling(text)) && !setting && !value::is_nothing(text) {
            // A brace inside of a string may have closed the object too early.
            let limit = if value.quoted { value.end } else { end };
            scan.add(value.start, value.end.min(limit), class);
        }
        at = value.next.max(from + 1);
    }
}

/// `"data":{…}` on a line that speaks of a secret: base64 of text.
pub(super) fn at_data(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// From the word to the data.
    const NEAR: usize = 160;
    let mut at = end;
    if scan.before(end) == Some(b'\\') {
        at += scan.run(at, 16, |&b| b == b'\\');
        if scan.at(at) != Some(b'"') {
            return;
        }
        at = scan.skip_space(at + 1);
        if scan.at(at) != Some(b':') {
            return;
        }
        at = scan.skip_space(at + 1) + 1;
    }
    let open = at - 1;
    let before = scan.slice(start.saturating_sub(NEAR).max(scan.body.min(start)), start);
    let said = memchr::memchr2_iter(b's', b'S', before)
        .any(|at| before.get(at..at + 6).is_some_and(|w| w.eq_ignore_ascii_case(b"secret")));
    if said && scan.at(open) == Some(b'{') {
        members(scan, Class::K8sSecret, open, true, is_text64);
    }
}

/// Printable text in UTF-8, the end of which may be cut.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default())
                .unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Base64 of printable text.
pub(super) fn is_text64(text: &[u8]) -> bool {
    use base64::Engine as _;
    let head = text.get(..text.len().min(64) / 4 * 4).unwrap_or_default();
    text.len() >= 8
        && base64::engine::general_purpose::STANDARD.decode(head).is_ok_and(|bytes| is_text(&bytes))
}

/// Whether an element of a list is random text.
fn holds_random(list: &[u8]) -> bool {
    list.split(|b| b", \"'\\".contains(b)).any(|word| {
        let hex = word.len() >= 32 && word.iter().all(u8::is_ascii_hexdigit);
        hex || is_uuid(word) || is_random_word(word)
    })
}

/// `[]uint8("…")`, `[]byte{0x70, …}`: bytes as Go prints them.
pub(super) fn go_bytes(scan: &Scan<'_>, at: usize) -> Option<Value> {
    let name = [&b"[]uint8"[..], b"[]byte"].into_iter().find(|name| scan.starts(at, name))?;
    let open = at + name.len();
    match scan.at(open)? {
        b'(' => value::quote_at(scan, open + 1)
            .map(|(slashes, quote)| value::quoted(scan, open + 1, slashes, quote)),
        b'{' => {
            let end = matching(scan, open, b'{', b'}')?;
            Some(Value { start: open + 1, end, next: end + 1, quoted: true })
        }
        _ => None,
    }
}

/// R28: `v1.Secret{… Data:map[string][]uint8{…}, StringData:map[string]string{…}}`.
pub(super) fn go_secret(scan: &mut Scan<'_>, open: usize) {
    let reach = scan.slice(open, open + LONGEST_LIST);
    scan.spend(reach.len() / 8);
    for kind in
        [&b"map[string][]uint8{"[..], b"map[string][]byte{", b"StringData:map[string]string{"]
    {
        if let Some(found) = memchr::memmem::find(reach, kind) {
            object(scan, Class::K8sSecret, open + found + kind.len() - 1, false);
        }
    }
}

/// R27, R28: `"MicroflowConstants": { "Module.Constant": "…" }`, `stringData:` and the lines below it:
/// a map all of whose values go.
pub(super) fn at_map(scan: &mut Scan<'_>, class: Class, start: usize, end: usize) {
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return;
    }
    let from = scan.skip_space(at + 1);
    match scan.at(from) {
        Some(b'{') => object(scan, class, from, false),
        Some(_) => {
            if let Some((slashes, quote)) = value::quote_at(scan, from) {
                let value = value::quoted(scan, from, slashes, quote);
                scan.add(value.start, value.end, class);
            } else if scan.starts(from, b"map[string]string{") {
                object(scan, class, from + 17, false);
            } else if scan.starts(from, b"map[") {
                let open = from + 3;
                let close = matching(scan, open, b'[', b']').unwrap_or(scan.text.len());
                scan.add(open + 1, close, class);
            }
        }
        None => {
            let indent = start - scan.body.min(start);
            scan.cues.next = Some(Cue::Map { indent, class });
        }
    }
}

/// R28 on one line: all members of `data` and `stringData` of an object that is a Secret.
pub(super) fn one_line_manifest(scan: &mut Scan<'_>) {
    for name in [&b"data"[..], b"stringData"] {
        for found in memchr::memmem::find_iter(scan.rest(scan.body), name) {
            if scan.spent() {
                return;
            }
            let start = scan.body + found;
            let mut at = start + name.len();
            let Some((slashes, _)) = value::quote_at(scan, at) else { continue };
            if !matches!(scan.before(start), Some(b'"')) {
                continue;
            }
            at = scan.skip_space(at + slashes + 1);
            if scan.at(at) != Some(b':') {
                continue;
            }
            let open = scan.skip_space(at + 1);
            if scan.at(open) == Some(b'{') {
                object(scan, Class::K8sSecret, open, false);
            }
        }
    }
}
