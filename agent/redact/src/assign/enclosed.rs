//! Keys and values that something encloses: tuples, arguments, elements, brackets.

use crate::Class;
use crate::judge::{is_constants, is_field, is_value};
use crate::key::{Key, Strength};
use crate::made_up::{is_made_up, is_password_like, is_random_word, is_uuid};
use crate::members::object;
use crate::pairs::is_name_of_pair;
use crate::phrase::{is_chosen, is_unlike_names};
use crate::scan::{Cue, Scan};
use crate::value::{self, Reach, Value};

/// After `\u003e`, however often it was escaped.
pub(super) fn escaped_head(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let slashes = scan.run(at, 8, |&b| b == b'\\');
    scan.starts(at + slashes, b"u003e").then_some(at + slashes + 5)
}

/// `{password,<<"x">>}`, as Erlang prints it; `{password, "x"}`.
pub(super) fn tuple(scan: &mut Scan<'_>, key: &Key, comma: usize) -> bool {
    // `setAttribute(Password, x)`
    if scan.at(comma) == Some(b',') && scan.before(key.start) == Some(b'(') {
        let from = scan.skip_space(comma + 1);
        let len = scan.run(from, 128, |b| !b" ,)\"'".contains(b));
        let text = scan.slice(from, from + len);
        let own = scan.at(from + len) == Some(b')')
            && key.class == Class::Password
            && is_made_up(text)
            && !is_field(text);
        if own {
            scan.accept(
                key,
                Value { start: from, end: from + len, next: from + len, quoted: false },
            );
        }
        return own;
    }
    if scan.at(comma) != Some(b',')
        || scan.before(key.start) != Some(b'{') && !is_definition(scan, key)
    {
        return false;
    }
    let mut from = scan.skip_space(comma + 1);
    if scan.starts(from, b"<<") {
        from += 2;
    }
    if value::quote_at(scan, from).is_none() {
        return false;
    }
    let value = value::read(scan, from, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let own = key.strength == Strength::Sure && !is_field(text) && is_value(scan, key, text);
    if own {
        scan.accept(key, value);
    }
    own
}

/// `define('DB_PASSWORD', 'x')`, `setProperty("db.password", "x")`
fn is_definition(scan: &Scan<'_>, key: &Key) -> bool {
    let lead = scan.slice(key.start.saturating_sub(12).max(scan.body.min(key.start)), key.start);
    let lead = lead
        .iter()
        .rposition(|b| !b"'\" \\".contains(b))
        .and_then(|at| lead.get(..=at))
        .unwrap_or_default();
    [&b"define("[..], b"Property(", b"Variable(", b"put("].iter().any(|call| lead.ends_with(call))
}

/// `NetworkCredential("bob", "x")`: what is called with a user and a password.
pub(super) fn argument(scan: &mut Scan<'_>, key: &Key, open: usize) -> bool {
    if !matches!(scan.at(open), Some(b'(' | b'[')) || open != key.end {
        return false;
    }
    let Some((slashes, quote)) = value::quote_at(scan, open + 1) else {
        return bare_argument(scan, key, open + 1);
    };
    if scan.at(open) == Some(b'[') || key.class != Class::Secret {
        return false;
    }
    let user = value::quoted(scan, open + 1, slashes, quote);
    let from = scan.skip_space(user.next + 1);
    if scan.at(user.next) != Some(b',') || value::quote_at(scan, from).is_none() {
        return false;
    }
    let value = value::read(scan, from, Reach::Word);
    if !is_value(scan, key, scan.slice(value.start, value.end)) {
        return false;
    }
    scan.accept(key, value);
    true
}

/// `Credentials(bob, x)`, `UsernamePasswordToken[bob, x]`: without quotes what follows the user has to look
/// like a password.
fn bare_argument(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let name = |b: &u8| b.is_ascii_alphanumeric() || b"_.@-".contains(b);
    let user = scan.run(at, 64, name);
    let from = scan.skip_space(at + user + 1);
    let len = scan.run(from, 128, |b| !b" ,)]\"'".contains(b));
    let text = scan.slice(from, from + len);
    let listed = user > 0 && scan.at(at + user) == Some(b',') && from > at + user + 1;
    let closed = matches!(scan.at(from + len), Some(b')' | b']' | b','));
    let own = listed
        && closed
        && key.strength == Strength::Sure
        && is_made_up(text)
        && !text.contains(&b'=')
        && !is_field(text);
    if own {
        scan.accept(key, Value { start: from, end: from + len, next: from + len, quoted: false });
    }
    own
}

/// `<name>password</name><value>x</value>`, with the value on this line or on the next.
pub(super) fn element_pair(scan: &mut Scan<'_>, key: &Key, close: usize) -> bool {
    if !scan.starts(close, b"</") || key.strength != Strength::Sure {
        return false;
    }
    let name = scan.run(close + 2, 32, |b| b.is_ascii_alphanumeric() || b":_-.".contains(b));
    if ![&b"name"[..], b"key"]
        .iter()
        .any(|end| scan.slice(close + 2, close + 2 + name).to_ascii_lowercase().ends_with(end))
    {
        return false;
    }
    let open = scan.skip_space(close + 2 + name + 1);
    if open >= scan.text_end {
        scan.cues.next = Some(Cue::ValueOf(key.class));
        return true;
    }
    if scan.at(open) != Some(b'<') || scan.at(open + 1) == Some(b'/') {
        return false;
    }
    let tag = scan.run(open, 32, |&b| b != b'>');
    let kind = scan.slice(open + 1, open + tag).to_ascii_lowercase();
    let value = [&b"value"[..], b"string", b"text", b"data"].iter().any(|end| kind.ends_with(end));
    if value && scan.at(open + tag) == Some(b'>') {
        xml_content(scan, key, open + tag);
    }
    true
}

/// `setenv DB_PASSWORD x`, `config set //host/:_authToken x`, `m2ee set_constant Sap.ApiKey x`: the word after
/// the name of what is set.
pub(super) fn set_variable(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    /// From the verb to the key: the name may have a path before it.
    const NEAR: usize = 96;
    const VERBS: &[&[u8]] = &[
        b"setenv",
        b"set",
        b"put",
        b"set_constant",
        b"set-constant",
        b"set_config",
        b"setconfig",
        b"setx",
        b"set-variable",
        b"set_variable",
        b"update_constant",
    ];
    let before =
        scan.slice(key.start.saturating_sub(NEAR).max(scan.body.min(key.start)), key.start);
    let path = before.iter().rev().take_while(|b| !b.is_ascii_whitespace()).count();
    let before = before.get(..before.len() - path).unwrap_or_default();
    let spaced = before.last() == Some(&b' ') && at > key.end && scan.before(at) == Some(b' ');
    let verb = before.trim_ascii_end();
    let verb = verb.rsplit(|b| !b.is_ascii_alphanumeric() && !b"_-".contains(b)).next();
    if key.strength != Strength::Sure || !spaced || !VERBS.contains(&verb.unwrap_or_default()) {
        return false;
    }
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let after = scan.at(value.next);
    let ends = matches!(after, None | Some(b'"' | b'\'' | b'\\' | b'\r'))
        || value.next >= scan.text_end
        || scan.starts(value.next, b" -");
    let telling = is_made_up(text) || is_chosen(text) || is_random_word(text) || is_uuid(text);
    let own = (verb == Some(b"setenv") || ends && telling) && is_value(scan, key, text);
    if own {
        scan.accept(key, value);
    }
    own
}

/// `token(x)`, `key[x]`, `setPassword("x")`, `password | x |`: a value that looks like one.
pub(super) fn bracketed(scan: &mut Scan<'_>, key: &Key, open: usize) -> bool {
    let width = match scan.at(open) {
        // Base64 may begin with a slash.
        Some(b'/') if open > key.end && scan.at(open + 1) != Some(b' ') => return false,
        Some(b'(' | b'[' | b'{' | b'|' | b'/') => 1,
        // An arrow.
        Some(0xe2) if scan.starts(open, "→".as_bytes()) => 3,
        _ => return false,
    };
    let from = scan.skip_space(open + width);
    // `Token{Value:"x"}`
    let member = scan.run(from, 24, u8::is_ascii_alphanumeric);
    let own = key.strength == Strength::Sure && key.class != Class::Password;
    if own && scan.at(open) == Some(b'{') && member > 0 && scan.at(from + member) == Some(b':') {
        object(scan, key.class, open, true);
        return false;
    }
    let value = value::read(scan, from, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let text = text.split(|b| b"()[]{}|,".contains(b)).next().unwrap_or_default();
    let end = value.start + text.len();
    let sure = key.strength == Strength::Sure && scan.at(open) != Some(b'/');
    let own = key.class == Class::Password || is_constants(scan, key);
    let telling = if sure && own {
        // A bar may be that of a template: `{{ .password | b64enc }}`.
        let closed = scan.at(scan.skip_space(end)) == Some(b'|');
        let chosen = if width == 1 && scan.at(open) == Some(b'|') && !closed {
            is_password_like(text)
        } else {
            is_made_up(text) || is_chosen(text)
        };
        chosen || value::looks_random(text)
    } else {
        let digits = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
        let close = matches!(scan.at(end), Some(b')' | b']' | b'}' | b'"' | b'\''));
        // `Task refresh_token[…] succeeded`: the number of a run stands in square brackets.
        let called = open == key.end && scan.at(open) == Some(b'(');
        let identifier = called && close && is_uuid(text);
        value::looks_random(text) && is_random_word(text) || sure && (digits || identifier)
    };
    if telling && is_value(scan, key, text) {
        scan.accept(key, Value { start: value.start, end, next: end, quoted: value.quoted });
        return true;
    }
    false
}

/// `password;x`, `"password";"x"`: the next cell of a line that semicolons divide, if it is none of a name.
pub(super) fn next_cell(scan: &mut Scan<'_>, key: &Key, sign: usize) -> bool {
    if scan.at(sign) != Some(b';') || key.strength != Strength::Sure {
        return false;
    }
    let from = sign + 1;
    let value = match value::quote_at(scan, from) {
        Some((slashes, quote)) => value::quoted(scan, from, slashes, quote),
        None => {
            let len = scan.run(from, 128, |b| !b"; \"'\\\t\r".contains(b));
            Value { start: from, end: from + len, next: from + len, quoted: false }
        }
    };
    let text = scan.slice(value.start, value.end);
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) && is_made_up(text);
    let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
    let own = (mixed || hex || is_unlike_names(text))
        && !text.contains(&b'=')
        && !is_field(text)
        && is_value(scan, key, text);
    if own {
        scan.accept(key, value);
    }
    own
}

/// `<setting name="ApiKey" serializeAs="String"><value>x</value>`: the text of the element whose attribute
/// the name is.
pub(super) fn element_after(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    /// Longest rest of the tag.
    const NEAR: usize = 64;
    let rest = scan.slice(at, at + NEAR);
    let Some(close) = rest.iter().position(|b| b"<>{}".contains(b)) else { return false };
    let attribute = rest.contains(&b'=') && rest.get(close) == Some(&b'>');
    let named = is_name_of_pair(scan, key.start) && scan.before(at + close) != Some(b'/');
    let found = scan.spans.len();
    if attribute && named && key.strength == Strength::Sure {
        xml_content(scan, key, at + close);
    }
    scan.spans.len() > found
}

/// `secret={x}`: braces around a value, and no members in them.
pub(super) fn braced(scan: &mut Scan<'_>, key: &Key, open: usize) -> bool {
    /// Shortest such value.
    const LEAST: usize = 6;
    let start = open + 1;
    let end = start + scan.run(start, 512, |b| !b"{}:=\"'\\, ".contains(b));
    let closed = scan.at(end) == Some(b'}') && end - start >= LEAST;
    let own = closed && is_value(scan, key, scan.slice(start, end));
    if own {
        scan.accept(key, Value { start, end, next: end + 1, quoted: true });
    }
    own
}

/// For `<password …`, where its tag ends.
pub(super) fn element(scan: &Scan<'_>, key: &Key) -> Option<usize> {
    let before = scan.slice(key.start.saturating_sub(16), key.start);
    let open = match before.split_last()? {
        (b'<', _) => true,
        (b':', rest) => {
            let prefix = rest.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
            rest.len() > prefix && rest.get(rest.len() - prefix - 1) == Some(&b'<')
        }
        _ => false,
    };
    if !open {
        return None;
    }
    let tag = scan.slice(key.end, key.end + 256);
    let close = memchr::memchr(b'>', tag)?;
    // `<Credential user='bob' secret='x'>`, as Python prints an object: nothing closes it.
    let attributes = tag.get(..close).unwrap_or_default().contains(&b'=');
    if attributes && !scan.slice(key.end + close, key.end + close + 256).contains(&b'/') {
        return None;
    }
    (scan.before(key.end + close) != Some(b'/')).then_some(key.end + close)
}

/// The text between a tag that ends at `close` and the next tag.
pub(super) fn xml_content(scan: &mut Scan<'_>, key: &Key, close: usize) {
    let start = close + 1;
    let end = scan.find(b'<', start, scan.text.len()).unwrap_or(scan.text.len());
    scan.spend(end - start.min(end));
    // `<constant name="Sap.Secret"><value>x</value>`
    if end == start && scan.slice(end, end + 7).eq_ignore_ascii_case(b"<value>") {
        return xml_content(scan, key, end + 6);
    }
    // `expected "Bearer <token>"`, `apiKey: <your-api-key>}`: a mark in a usage text, and no element.
    let closed = matches!(scan.at(end + 1), Some(b'/' | b'\\'));
    let mark =
        scan.at(start).is_none_or(|b| b.is_ascii_whitespace() || b"\"'`\\}]),.".contains(&b));
    if mark && !closed {
        return;
    }
    let end = end - scan.run_before(end, start, |&b| b == b'\\');
    if is_value(scan, key, scan.slice(start, end)) {
        scan.accept(key, Value { start, end, next: end, quoted: false });
    }
}

/// `AuthToken{value='x', expires=1}`: an object that is called after what it holds.
pub(super) fn held(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    const NAMES: &[&[u8]] = &[b"value", b"raw", b"rawvalue", b"content", b"text", b"plain"];
    if at != key.end || !matches!(scan.at(at), Some(b'{' | b'(' | b'[')) {
        return false;
    }
    let from = scan.skip_space(at + 1);
    let len = scan.run(from, 12, u8::is_ascii_alphabetic);
    let name = scan.slice(from, from + len).to_ascii_lowercase();
    let sign = from + len;
    if !NAMES.contains(&&*name) || !matches!(scan.at(sign), Some(b'=' | b':')) {
        return false;
    }
    let value = value::read(scan, scan.skip_space(sign + 1), Reach::Word);
    let own = is_value(scan, key, scan.slice(value.start, value.end));
    if own {
        scan.accept(key, value);
    }
    own
}

/// `{API_TOKEN x nil}`: a variable of the environment, as Go prints a struct without names.
pub(super) fn positional(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let variable = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let name = scan.slice(key.start, key.end);
    let named = name.contains(&b'_') && name.iter().any(u8::is_ascii_uppercase);
    if scan.before(key.start) != Some(b'{')
        || key.strength != Strength::Sure
        || at != key.end + 1
        || !named
        || !name.iter().all(variable)
    {
        return false;
    }
    let len = scan.run(at, 256, |b| !b" }".contains(b));
    let text = scan.slice(at, at + len);
    let own = matches!(scan.at(at + len), Some(b' ' | b'}')) && is_value(scan, key, text);
    if own {
        scan.accept(key, Value { start: at, end: at + len, next: at + len, quoted: false });
    }
    own
}
