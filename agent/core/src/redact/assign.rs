//! From a sensitive key to its value: R01–R10, R12–R14, R22, R27, R41.

use super::Class;
use super::follow::{self, Cue};
use super::key::{self, Key, Strength};
use super::line::Scan;
use super::placeholder;
use super::stems::Rule;
use super::value::{self, Reach, Value};

/// Farthest end of a bracketed list or object that is looked for, bytes.
const LONGEST_LIST: usize = 16 * 1024;
/// Most white space between a key, its separator and its value.
const MOST_SPACE: usize = 64;

/// A stem of a sensitive key at `start..end`.
pub(super) fn at_stem(scan: &mut Scan<'_>, rule: Rule, start: usize, end: usize) {
    if start < scan.done {
        return;
    }
    if rule == Rule::Secret && scan.slice(start, end) == b"Secret" && is_kind(scan, start) {
        scan.cues.manifest = true;
        if !scan.manifest_read {
            scan.manifest_read = true;
            follow::one_line_manifest(scan);
        }
        return;
    }
    if !may_have_value(scan, rule, end) {
        return;
    }
    let Some(key) = key::around(scan, rule, start, end) else { return };
    if in_placeholder(scan, key.start) {
        return;
    }
    after_key(scan, key);
}

/// A cheap look at what follows the key: most stems in running text and class names end here.
fn may_have_value(scan: &Scan<'_>, rule: Rule, end: usize) -> bool {
    let is_key = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let len = scan.rest(end).iter().take(128).take_while(is_key).count();
    match scan.at(end + len) {
        None | Some(b'=' | b':' | b'"' | b'\'' | b'\\' | b'>' | b']' | b',' | b'`') => true,
        Some(b' ' | b'\t') => {
            let prose = !matches!(rule, Rule::Weak | Rule::Session | Rule::Signature);
            let next = scan.at(skip_space(scan, end + len));
            prose || matches!(next, None | Some(b'=' | b':' | b'"' | b'\'' | b'\\' | b'v' | b'V'))
        }
        Some(_) => false,
    }
}

/// Whether the word at `start` is the value of `kind`.
fn is_kind(scan: &Scan<'_>, start: usize) -> bool {
    let before = scan.slice(start.saturating_sub(24), start);
    let signs =
        before.iter().rev().take_while(|b| matches!(b, b'"' | b'\\' | b':' | b' ' | b'=')).count();
    signs > 0
        && before
            .get(..before.len() - signs)
            .is_some_and(|b| b.ends_with(b"kind") || b.ends_with(b"Kind"))
}

/// Whether `at` is the class name of a placeholder.
pub(super) fn in_placeholder(scan: &Scan<'_>, at: usize) -> bool {
    at >= 3 && placeholder::end_at(scan.text, at - 3).is_some()
}

pub(super) fn skip_space(scan: &Scan<'_>, at: usize) -> usize {
    let space = scan.rest(at).iter().take(MOST_SPACE);
    at + space.take_while(|&&b| b == b' ' || b == b'\t').count()
}

/// Finds what separates `key` from its value and takes the value.
pub(super) fn after_key(scan: &mut Scan<'_>, key: Key) {
    if let Some(tag_end) = element(scan, &key) {
        return xml_content(scan, &key, tag_end);
    }
    let mut at = key.end;
    let mut quoted_key = false;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        quoted_key = true;
        at += slashes + 1;
    }
    if scan.at(at) == Some(b']') {
        at += 1;
    }
    let sign = skip_space(scan, at);
    let spaced = sign > at;
    match (scan.at(sign), scan.at(sign + 1)) {
        (Some(b'='), Some(b'=' | b'~')) => {}
        (Some(b'='), Some(b'>')) => take(scan, key, sign + 2, Form::Equals),
        (Some(b'='), _) => take(scan, key, sign + 1, Form::Equals),
        (Some(b':'), Some(b'=')) => take(scan, key, sign + 2, Form::Equals),
        (Some(b':'), Some(b':')) => {}
        (Some(b':'), _) if scan.rest(sign).starts_with(b"://") => {}
        (Some(b':'), _) if quoted_key => take(scan, key, sign + 1, Form::Json),
        (Some(b':'), next) => {
            let form =
                if next.is_none_or(|b| b == b' ' || b == b'\t') { Form::Yaml } else { Form::Go };
            take(scan, key, sign + 1, form);
        }
        (Some(b'>'), _) if quoted_key => xml_content(scan, &key, sign),
        (None, _) => {
            if is_name_of_pair(scan, key.start) {
                scan.cues.next = Some(Cue::ValueOf(key.class));
            }
        }
        _ => {
            if name_value_pair(scan, &key, sign) || reversed_pair(scan, &key) {
                return;
            }
            if scan.at(sign) == Some(b',') && skip_space(scan, sign + 1) >= scan.text.len() {
                if is_name_of_pair(scan, key.start) {
                    scan.cues.next = Some(Cue::ValueOf(key.class));
                }
                return;
            }
            flag_or_prose(scan, key, sign, spaced, quoted_key);
        }
    }
}

/// How a key and its value stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Equals,
    /// `"key":`
    Json,
    /// `key: `
    Yaml,
    /// `Key:value`
    Go,
}

/// Takes the value at `at`.
fn take(scan: &mut Scan<'_>, key: Key, at: usize, form: Form) {
    let at = skip_space(scan, at);
    let Some(first) = scan.at(at) else {
        return;
    };
    scan.string_end = None;
    let starts_line = begins_body(scan, key.start)
        || matches!(form, Form::Equals | Form::Yaml) && begins_string(scan, key.start);
    if form == Form::Yaml && is_block_mark(scan.rest(at)) {
        let indent = key.start - scan.body.min(key.start);
        scan.cues.next = Some(Cue::Block { indent, class: key.class });
        return;
    }
    match first {
        b'[' if placeholder::end_at(scan.text, at).is_none() => return list(scan, &key, at),
        b'{' if form != Form::Equals || key.class != Class::Password => {
            return object(scan, key.class, at, key.class != Class::Password);
        }
        _ => {}
    }
    let reach = match form {
        Form::Equals | Form::Yaml if starts_line => Reach::Line,
        Form::Go => Reach::GoField,
        _ => Reach::Word,
    };
    let mut value = value::read(scan, at, reach);
    // `token: Bearer x`: the scheme is no secret, what follows is.
    for scheme in [&b"bearer"[..], b"basic", b"token"] {
        let head = value.start + scheme.len();
        if scan.slice(value.start, head).eq_ignore_ascii_case(scheme) {
            let next = skip_space(scan, head);
            if next == head {
                continue;
            }
            if next < value.end {
                value.start = next;
            } else if !value.quoted {
                value = value::read(scan, next, Reach::Word);
            }
        }
    }
    let text = scan.slice(value.start, value.end);
    if form == Form::Yaml && !value.quoted && !quotable(scan, &key, &value, starts_line) {
        return;
    }
    if is_value(scan, &key, text) {
        accept(scan, &key, value);
    }
}

/// Whether the unquoted word after `key: ` is a value and not the rest of a sentence.
fn quotable(scan: &Scan<'_>, key: &Key, value: &Value, starts_line: bool) -> bool {
    let text = scan.slice(value.start, value.end);
    let first = text.split(|b| *b == b' ').next().unwrap_or_default();
    let more = first.len() < text.len() || scan.at(value.end) == Some(b' ');
    if starts_line && !more {
        return !value::is_plain_word(first);
    }
    // `Unexpected token: }`
    if key.class == Class::Token {
        let before = scan.slice(key.start.saturating_sub(12), key.start).to_ascii_lowercase();
        if [&b"unexpected "[..], b"illegal ", b"invalid "].iter().any(|w| before.ends_with(w))
            && first.len() < 8
        {
            return false;
        }
    }
    value::may_be_secret_word(first)
}

/// Whether `text` is something to hide under `key`.
fn is_value(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    if value::is_nothing(text) {
        return false;
    }
    if key.plural && text.iter().all(u8::is_ascii_digit) {
        return false;
    }
    if key.class == Class::Signature {
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_%-.".contains(b);
        return text.len() >= 16 && text.iter().all(fits) && text.iter().any(u8::is_ascii_digit);
    }
    if key.strength == Strength::Weak {
        return value::looks_random(text) && !is_uuid(text);
    }
    if key.class != Class::Password && (is_path(text) || is_pointer(text)) {
        return false;
    }
    !(key.class == Class::Secret && is_object_name(scan, key, text))
}

fn accept(scan: &mut Scan<'_>, key: &Key, value: Value) {
    scan.add(value.start, value.end, key.class);
    scan.done = scan.done.max(value.end);
}

pub(super) fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// A file name of two parts or more, in small letters.
fn is_path(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"file:").unwrap_or(text);
    text.first() == Some(&b'/')
        && text.iter().filter(|&&b| b == b'/').count() >= 2
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(b))
}

/// A Go pointer, such as `(*string)(0xc000123456)`.
fn is_pointer(text: &[u8]) -> bool {
    text.starts_with(b"(*") || text.starts_with(b"0xc000") || text.starts_with(b"&")
}

/// `secret="namespace/name"`: the way Kubernetes components log an object.
fn is_object_name(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
    let name = scan.slice(key.start, key.end);
    let plain = name.eq_ignore_ascii_case(b"secret") || name.eq_ignore_ascii_case(b"secrets");
    let dns = |part: &[u8]| {
        !part.is_empty()
            && part
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b))
    };
    let mut parts = text.split(|&b| b == b'/');
    plain
        && match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(name), None) => dns(namespace) && dns(name),
            _ => false,
        }
}

/// Whether only indentation, a list dash, a quote, or `export` stands before `at` in the line.
fn begins_body(scan: &Scan<'_>, at: usize) -> bool {
    // Indentation and the words below; anything longer is text.
    const FAR: usize = 64;
    if at - scan.body.min(at) > FAR {
        return false;
    }
    let mut before = scan.slice(scan.body, at);
    before = before.strip_suffix(b"\"").or(before.strip_suffix(b"'")).unwrap_or(before);
    for word in [&b"- "[..], b"-e ", b"export ", b"set ", b"ENV "] {
        before = before.strip_suffix(word).unwrap_or(before);
    }
    before.trim_ascii().is_empty()
}

/// Whether `at` is the first word of a quoted string; notes where that string ends.
fn begins_string(scan: &mut Scan<'_>, at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(32).max(scan.body.min(at)), at);
    let spaces = before.iter().rev().take_while(|&&b| b == b' ').count();
    let Some((quote, before)) = before.get(..before.len() - spaces).and_then(|b| b.split_last())
    else {
        return false;
    };
    let slashes = before.iter().rev().take_while(|&&b| b == b'\\').count();
    let opens = before.get(..before.len() - slashes).and_then(|b| b.last());
    let opens = opens.is_none_or(|b| matches!(b, b':' | b'=' | b',' | b'[' | b'(' | b'{' | b' '));
    if !matches!(quote, b'"' | b'\'') || !opens {
        return false;
    }
    let string = value::quoted(scan, at - spaces - 1 - slashes, slashes, *quote);
    scan.string_end = Some(string.end);
    true
}

/// `|`, `|-`, `>+2` and nothing else: the value is on the lines that follow.
fn is_block_mark(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_end();
    matches!(rest.first(), Some(b'|' | b'>'))
        && rest.len() <= 3
        && rest.iter().skip(1).all(|b| matches!(b, b'+' | b'-' | b'0'..=b'9'))
}

/// `[…]` after a key: everything inside goes.
fn list(scan: &mut Scan<'_>, key: &Key, open: usize) {
    let inside = open + 1;
    let end = matching(scan, open, b'[', b']')
        .unwrap_or_else(|| value::read(scan, inside, Reach::Word).end);
    let text = scan.slice(inside, end);
    let objects = matches!(text.trim_ascii().first(), Some(b'{'));
    // Lists of Secret names in pod specs.
    let names = key.class == Class::Secret && key.plural;
    if value::is_nothing(text) || objects || names || key.strength == Strength::Weak {
        return;
    }
    accept(scan, key, Value { start: inside, end, next: end, quoted: false });
}

/// Position of the bracket that closes the one at `open`.
fn matching(scan: &Scan<'_>, open: usize, up: u8, down: u8) -> Option<usize> {
    let mut level = 0_u32;
    let reach = scan.slice(open, open + LONGEST_LIST).len();
    scan.spend(reach / 8);
    for at in memchr::memchr2_iter(up, down, scan.slice(open, open + LONGEST_LIST)) {
        if scan.at(open + at) == Some(up) {
            level += 1;
        } else {
            level -= 1;
            if level == 0 {
                return Some(open + at);
            }
        }
    }
    None
}

/// `{…}` after a key. With `only_values`, just the members called `value` and the like: other
/// members have names that speak for themselves.
pub(super) fn object(scan: &mut Scan<'_>, class: Class, open: usize, only_values: bool) {
    let end = matching(scan, open, b'{', b'}').unwrap_or(scan.text.len()).min(open + LONGEST_LIST);
    scan.spend(end - open.min(end));
    let mut at = open + 1;
    while at < end {
        // A member: its name, a colon, its value.
        let Some(colon) = memchr::memchr(b':', scan.slice(at, end)).map(|c| at + c) else { return };
        let from = skip_space(scan, colon + 1);
        let value = match scan.at(from) {
            None => return,
            Some(b'{' | b'[') => {
                at = from + 1;
                continue;
            }
            Some(_) => value::read(scan, from, Reach::Word),
        };
        let name = scan.slice(at, colon).trim_ascii_end();
        let letters = |b: &&u8| b.is_ascii_alphanumeric();
        let name: Vec<u8> = name
            .iter()
            .rev()
            .skip_while(|b| !b.is_ascii_alphanumeric())
            .take_while(letters)
            .copied()
            .collect();
        let chosen = !only_values
            || [&b"eulav"[..], b"atad", b"drow"].iter().any(|w| name.eq_ignore_ascii_case(w));
        if chosen && !value::is_nothing(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end.min(end), class);
        }
        at = value.next.max(from + 1);
    }
}

/// For `<password …`, where its tag ends.
fn element(scan: &Scan<'_>, key: &Key) -> Option<usize> {
    let before = scan.slice(key.start.saturating_sub(16), key.start);
    let open = match before.split_last()? {
        (b'<', _) => true,
        (b':', rest) => {
            let prefix = rest.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
            rest.len() > prefix && rest.get(rest.len() - prefix - 1) == Some(&b'<')
        }
        _ => false,
    };
    let close = memchr::memchr(b'>', scan.slice(key.end, key.end + 256))?;
    (open && scan.before(key.end + close) != Some(b'/')).then_some(key.end + close)
}

/// The text between a tag that ends at `close` and the next tag.
fn xml_content(scan: &mut Scan<'_>, key: &Key, close: usize) {
    let start = close + 1;
    let end = memchr::memchr(b'<', scan.rest(start)).map_or(scan.text.len(), |len| start + len);
    scan.spend(end - start.min(end));
    if is_value(scan, key, scan.slice(start, end)) {
        accept(scan, key, Value { start, end, next: end, quoted: false });
    }
}

/// Whether `name:` or `key=` stands before the quote or space before `at`.
fn is_name_of_pair(scan: &Scan<'_>, at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(24), at);
    let signs = |b: &u8| matches!(b, b'"' | b'\'' | b'\\' | b' ');
    let trim = |text: &[u8]| text.iter().rev().take_while(|b| signs(b)).count();
    let before = before.get(..before.len() - trim(before)).unwrap_or_default();
    let Some((b':' | b'=', before)) = before.split_last() else { return false };
    let before = before.get(..before.len() - trim(before)).unwrap_or_default().to_ascii_lowercase();
    before.ends_with(b"name") || before.ends_with(b"key")
}

/// R08: `"name":"DB_PASSWORD","value":"…"`, `Name:DB_PASSWORD,Value:…`, `name="…" value="…"`.
fn name_value_pair(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let mut at = at;
    if scan.at(at) == Some(b',') {
        at = skip_space(scan, at + 1);
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
    at = skip_space(scan, at);
    if !matches!(scan.at(at), Some(b':' | b'=')) || !is_name_of_pair(scan, key.start) {
        return false;
    }
    let from = skip_space(scan, at + 1);
    let value = value::read(scan, from, Reach::Word);
    if is_value(scan, key, scan.slice(value.start, value.end)) {
        accept(scan, key, value);
    }
    true
}

/// `"value":"…","name":"DB_PASSWORD"`.
fn reversed_pair(scan: &mut Scan<'_>, key: &Key) -> bool {
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
    at = skip_space(scan, at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return false;
    }
    let from = skip_space(scan, at + 1);
    let value = value::read(scan, from, Reach::Word);
    let between = scan.slice(value.next, key.start);
    let near = value.next <= key.start
        && between.iter().filter(|&&b| b != b'\\').count() <= 24
        && !between.iter().any(|b| b"{}".contains(b));
    if near && is_value(scan, key, scan.slice(value.start, value.end)) {
        accept(scan, key, value);
    }
    near
}

/// `--password x`, `["--password","x"]`, and sentences.
fn flag_or_prose(scan: &mut Scan<'_>, key: Key, at: usize, spaced: bool, quoted_key: bool) {
    if scan.before(key.start) == Some(b'-') {
        let mut from = at;
        if quoted_key && scan.at(at) == Some(b',') {
            from = skip_space(scan, at + 1);
        } else if !spaced {
            return;
        }
        let value = value::read(scan, from, Reach::Word);
        let text = scan.slice(value.start, value.end);
        if text.first() != Some(&b'-') && is_value(scan, &key, text) {
            accept(scan, &key, value);
        }
    } else if spaced && !quoted_key {
        prose(scan, key, at);
    }
}

/// R10: `password is x`, `password for bob was changed to x`, `with password x`, `password 'x'`.
fn prose(scan: &mut Scan<'_>, key: Key, at: usize) {
    /// Most words between the key and `is`.
    const WORDS: usize = 6;
    if key.strength == Strength::Weak {
        return;
    }
    let word_at = |from: usize| {
        let len = scan.rest(from).iter().take(64).take_while(|b| !b.is_ascii_whitespace()).count();
        (scan.slice(from, from + len), skip_space(scan, from + len))
    };
    let is_password = key.class == Class::Password;
    let (mut word, mut next) = word_at(at);
    let mut value_at = None;
    if word.eq_ignore_ascii_case(b"for") || word.eq_ignore_ascii_case(b"of") {
        for _ in 0..WORDS {
            (word, next) = word_at(next);
            if word.is_empty() {
                return;
            }
            if is_copula(word) {
                break;
            }
            if matches!(word.last(), Some(b':' | b'=')) && is_password {
                value_at = Some(next);
                break;
            }
        }
    }
    if is_password && value::quote_at(scan, at).is_some_and(|(slashes, _)| slashes == 0) {
        value_at = Some(at);
    } else if value_at.is_some() {
    } else if is_copula(word) {
        let (second, after) = word_at(next);
        let filler = [&b"now"[..], b"set", b"changed", b"reset", b"currently", b"updated"];
        value_at = Some(if filler.iter().any(|f| second.eq_ignore_ascii_case(f)) {
            let (third, last) = word_at(after);
            if third == b"to" { last } else { after }
        } else {
            next
        });
    } else if [&b"set"[..], b"changed", b"reset", b"updated"].contains(&word) {
        let (second, after) = word_at(next);
        if second == b"to" {
            value_at = Some(after);
        }
    } else if is_password {
        let before = scan
            .slice(key.start.saturating_sub(12), key.start)
            .trim_ascii_end()
            .to_ascii_lowercase();
        let led = [&b"with"[..], b"using", b"the", b"by", b"identified"]
            .iter()
            .any(|w| before.ends_with(w));
        let telling =
            word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
        if led && telling {
            value_at = Some(at);
        }
    }
    let Some(from) = value_at else { return };
    let value = value::read(scan, from, Reach::Word);
    let text = scan.slice(value.start, value.end);
    let telling = text.len() >= 6 && text.iter().any(u8::is_ascii_digit);
    if (is_password || telling)
        && value::may_be_secret_word(text)
        && text.len() >= 3
        && is_value(scan, &key, text)
    {
        accept(scan, &key, value);
    }
}

fn is_copula(word: &[u8]) -> bool {
    [&b"is"[..], b"was", b"is:", b"was:", b"are", b"equals", b"to"]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}

/// R27: `"MicroflowConstants": { "Module.Constant": "…" }`.
pub(super) fn at_constants(scan: &mut Scan<'_>, start: usize, end: usize) {
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = skip_space(scan, at);
    if !matches!(scan.at(at), Some(b':' | b'=')) {
        return;
    }
    let from = skip_space(scan, at + 1);
    match scan.at(from) {
        Some(b'{') => object(scan, Class::MendixConstant, from, false),
        Some(_) => {
            if let Some((slashes, quote)) = value::quote_at(scan, from) {
                let value = value::quoted(scan, from, slashes, quote);
                scan.add(value.start, value.end, Class::MendixConstant);
            } else if scan.rest(from).starts_with(b"map[") {
                let open = from + 3;
                let close = matching(scan, open, b'[', b']').unwrap_or(scan.text.len());
                scan.add(open + 1, close, Class::MendixConstant);
            }
        }
        None => {
            let indent = start - scan.body.min(start);
            scan.cues.next = Some(Cue::Map { indent, class: Class::MendixConstant });
        }
    }
}

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
