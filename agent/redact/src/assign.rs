//! From a sensitive key to its value: R01–R10, R12–R14, R22, R27, R41.

mod enclosed;
mod place;
mod read;

use self::enclosed::{
    argument, braced, bracketed, element, element_after, element_pair, escaped_head, held,
    next_cell, positional, set_variable, tuple, xml_content,
};
use self::place::{begins_body, begins_string, is_checksum, is_kind, is_parsers, is_typed};
use self::read::{
    after_slash, at_line_end, begins_field, in_list, introduced_later, is_command,
    is_compared_with_secret, is_go_field, is_listed_secret, is_program, is_progress,
    is_quoted_command, is_spoken_of, operator, past_index, phrase, quotable, said_after, skip_tab,
    typed,
};
use super::Class;
use super::block;
use super::bytes;
use super::columns;
use super::judge::is_value;
use super::key::{self, Key, Strength};
use super::members::{go_bytes, list, object, one_line_manifest, plural_object};
use super::near;
use super::pairs::{is_name_of_pair, listed_pair, name_value_pair, reversed_pair, siblings};
use super::placeholder;
use super::prose::{
    flag_or_prose, is_flag, random_before, random_word, said_before, session_before, stated_before,
    valued_after, valued_before,
};
use super::scan::{Cue, Scan};
use super::several;
use super::sql;
use super::stems::Rule;
use super::value::{self, Reach};

/// A stem of a sensitive key at `start..end`.
pub(super) fn at_stem(scan: &mut Scan<'_>, rule: Rule, start: usize, end: usize) {
    if start < scan.done {
        return;
    }
    if rule == Rule::Secret && scan.slice(start, end) == b"Secret" && is_kind(scan, start) {
        scan.cues.manifest = true;
        if !scan.manifest_read {
            scan.manifest_read = true;
            one_line_manifest(scan);
        }
        return;
    }
    if rule == Rule::Key && scan.slice(start, end) == b"Key" && sql::at_key_detail(scan, end) {
        return;
    }
    if !may_have_value(scan, rule, end) {
        // `webhook signature x did not match`
        if rule == Rule::Signature
            && let Some(key) = key::around(scan, rule, start, end)
        {
            near::take(scan, &key);
        }
        return;
    }
    let Some(key) = key::around(scan, rule, start, end) else { return };
    if scan.in_placeholder(key.start) || is_checksum(scan, &key) {
        return;
    }
    after_key(scan, key);
}

/// A cheap look at what follows the key: most stems in running text and class names end here.
fn may_have_value(scan: &Scan<'_>, rule: Rule, end: usize) -> bool {
    let is_key = |b: &u8| bytes::KEY.has(*b);
    let len = scan.run(end, 128, is_key);
    // `password........x`
    if scan.starts(end, b"..") {
        return true;
    }
    match scan.at(end + len) {
        None
        | Some(
            b'=' | b':' | b'"' | b'\'' | b'\\' | b'>' | b']' | b',' | b';' | b'`' | b'<' | b'('
            | b'[' | b'{' | b'}' | b'|' | b'/' | 0xe2,
        ) => true,
        Some(b' ' | b'\t') => {
            rule != Rule::Signature
                || matches!(
                    scan.at(scan.skip_space(end + len)),
                    None | Some(b'=' | b':' | b'"' | b'\'' | b'\\' | b'v' | b'V')
                )
        }
        // `密码是x`: words that no blank divides.
        Some(b) => b >= 0x80 && scan.before(end).is_some_and(|b| b >= 0x80),
    }
}

/// Finds what separates `key` from its value and takes the value.
pub(super) fn after_key(scan: &mut Scan<'_>, key: Key) {
    if let Some(tag_end) = element(scan, &key) {
        return xml_content(scan, &key, tag_end);
    }
    // `<Credential user='bob' secret='x'>`: its attributes are keys of their own.
    if scan.before(key.start) == Some(b'<') && scan.at(key.end) == Some(b' ') {
        if scan.starts(key.end + 1, b"value=") && key.strength == Strength::Sure {
            take(scan, key, key.end + 7, Form::Equals);
        }
        return;
    }
    let found = scan.spans.len();
    separated(scan, key);
    if scan.spans.len() == found && scan.cues.next.is_none() {
        unsaid(scan, &key);
    }
}

/// The key has no value beside it: one in the lines below, or before it.
fn unsaid(scan: &mut Scan<'_>, key: &Key) {
    if key.strength == Strength::Weak {
        near::take(scan, key);
        return;
    }
    if near::is_gone_near(scan, key) {
        return;
    }
    let stated = key.class == Class::Password && stated_before(scan, key);
    let row = begins_body(scan, key.start) && columns::at_setting(scan, key);
    if stated || row || columns::at_name(scan, key) || valued_after(scan, key) {
        return;
    }
    if key.class == Class::Password && valued_before(scan, key)
        || key.class == Class::Cookie && session_before(scan, key)
        || near::take(scan, key)
    {
        return;
    }
    // `Use the following password:`
    let own = matches!(key.class, Class::Password | Class::Secret | Class::Token | Class::Key);
    let asks = scan.before(scan.text_end) == Some(b':') && key.end < scan.text_end;
    let alone = scan.text_end == key.end && begins_body(scan, key.start);
    if own && (asks || alone || is_typed(scan)) {
        scan.cues.next = Some(Cue::Output(key.class));
    }
}

/// Takes the value that a sign, or none, separates from `key`.
fn separated(scan: &mut Scan<'_>, key: Key) {
    let mut at = key.end;
    let mut quoted_key = false;
    if let Some(mark) = value::quote_at(scan, at) {
        quoted_key = true;
        at += mark.0 + 1;
        // `""password"":""x""`, as a table in CSV has JSON.
        if scan.at(at + mark.0 + 1) == Some(b':') && value::quote_at(scan, at) == Some(mark) {
            at += mark.0 + 1;
        }
    }
    if scan.at(at) == Some(b']') {
        at += 1;
    }
    let index = at;
    at = past_index(scan, at);
    if is_program(scan, &key, index, at) {
        return;
    }
    // `argument 3 (password) = x`
    let sign = scan.skip_space(at + 1);
    if scan.at(at) == Some(b')')
        && scan.before(key.start) == Some(b'(')
        && matches!(scan.at(sign), Some(b'=' | b':'))
    {
        at += 1;
    }
    // `Sap.ApiSecret (constant) = x`
    let open = scan.skip_space(at);
    if scan.at(open) == Some(b'(') && open > at && key.strength == Strength::Sure {
        let close = open + 1 + scan.run(open + 1, 16, u8::is_ascii_alphabetic);
        let sign = scan.skip_space(close + 1);
        if scan.at(close) == Some(b')') && scan.at(sign) == Some(b'=') && sign > close + 1 {
            at = close + 1;
        }
    }
    // `getToken()`
    if scan.starts(at, b"()") {
        at += 2;
    }
    let sign = skip_tab(scan, scan.skip_space(at));
    let spaced = sign > at;
    if key.class == Class::Token && scan.at(key.end) != Some(b'=') && is_parsers(scan, &key) {
        return random_word(scan, &key, at);
    }
    match (scan.at(sign), scan.at(sign + 1)) {
        // `api_secret==x`, as some clients have a parameter; with blanks around it two things are compared.
        (Some(b'='), Some(b'=')) if sign == key.end && is_compared_with_secret(scan, sign + 2) => {
            take(scan, key, sign + 2, Form::Equals);
        }
        (Some(b'='), Some(b'=' | b'~')) => {}
        // An arrow whose head was escaped for HTML.
        (Some(b'='), Some(b'\\')) if escaped_head(scan, sign + 1).is_some() => {
            let from = escaped_head(scan, sign + 1).unwrap_or(sign + 1);
            take(scan, key, from, Form::Equals);
        }
        (Some(b'='), Some(b'>')) => take(scan, key, sign + 2, Form::Equals),
        (Some(b'='), _) => take(scan, key, sign + 1, Form::Equals),
        (Some(b':'), Some(b'=')) => take(scan, key, sign + 2, Form::Equals),
        // `userPassword:: …`, base64 in LDIF.
        (Some(b':'), Some(b':'))
            if key.class == Class::Password
                && scan.at(sign + 2) == Some(b' ')
                && (begins_body(scan, key.start) || begins_string(scan, key.start, sign)) =>
        {
            take(scan, key, sign + 2, Form::Yaml);
        }
        (Some(b':'), Some(b':')) => {}
        // `password........x`, as some frameworks list their settings.
        (Some(b'.'), Some(b'.')) => {
            let dots = scan.run(sign, 64, |&b| b == b'.');
            if dots > 2 {
                take(scan, key, sign + dots, Form::Equals);
            }
        }
        (Some(b':'), _) if scan.starts(sign, b"://") => {}
        // `https://x-access-token:…@host`: a user, and another rule's.
        (Some(b':'), _) if scan.slice(key.start.saturating_sub(3), key.start) == b"://" => {}
        (Some(b':'), _) if quoted_key => take(scan, key, sign + 1, Form::Json),
        (Some(b':'), next) => {
            let form =
                if next.is_none_or(|b| b == b' ' || b == b'\t') { Form::Yaml } else { Form::Go };
            take(scan, key, sign + 1, form);
        }
        (Some(b'>'), _) if quoted_key => xml_content(scan, &key, sign),
        (Some(b'?' | b'+' | b'<' | b'|' | 0xe2), _) if operator(scan, sign).is_some() => {
            let from = operator(scan, sign).unwrap_or(sign);
            take(scan, key, from, Form::Equals);
        }
        (None, _) => {
            let line = scan.slice(scan.body, key.start.min(scan.body + 128));
            if quoted_key && memchr::memmem::find(line, b"form-data").is_some() {
                scan.cues.next = Some(Cue::Output(key.class));
            } else if is_name_of_pair(scan, key.start) {
                scan.cues.next = Some(Cue::ValueOf(key.class));
            } else if scan.slice(scan.body, key.start).trim_ascii() == b"?" {
                scan.cues.next = Some(Cue::Explicit(key.class));
            } else if is_flag(scan, &key) {
                scan.cues.next = Some(Cue::Argument(key.class));
            } else if key.class != Class::Password || !said_before(scan, &key) {
                random_before(scan, &key);
            }
        }
        _ => {
            if name_value_pair(scan, &key, sign)
                || reversed_pair(scan, &key)
                || siblings(scan, &key, sign)
                || positional(scan, &key, sign)
                || quoted_key && listed_pair(scan, &key, sign)
                || held(scan, &key, sign)
                || tuple(scan, &key, sign)
                || next_cell(scan, &key, sign)
                || quoted_key && element_after(scan, &key, sign)
                || quoted_key && spaced && said_after(scan, &key, sign)
                || argument(scan, &key, sign)
            {
                return;
            }
            if scan.at(sign) == Some(b',') && scan.skip_space(sign + 1) >= scan.text.len() {
                if is_name_of_pair(scan, key.start) {
                    scan.cues.next = Some(Cue::ValueOf(key.class));
                }
                return;
            }
            if element_pair(scan, &key, sign)
                || bracketed(scan, &key, sign)
                || set_variable(scan, &key, sign)
            {
                return;
            }
            // `variable "db_password" {`
            if quoted_key && scan.at(sign) == Some(b'{') && sign + 1 >= scan.text_end {
                scan.cues.next = Some(Cue::ValueOf(key.class));
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
    let at = typed(scan, skip_tab(scan, scan.skip_space(at)));
    let Some(first) = scan.at(at) else {
        return at_line_end(scan, &key, form);
    };
    // What Terraform prints instead of a value; a command whose output is one.
    if first == b'('
        && (scan.starts(at, b"(sensitive value)") || scan.starts(at, b"(known after apply)"))
        || first == b'$' && is_command(scan, at)
        || is_quoted_command(scan, at)
        || form == Form::Json && is_spoken_of(scan, &key, at)
    {
        return;
    }
    // `bob@external-secrets-7x:/srv$`, where a shell is.
    if form == Form::Go && matches!(first, b'/' | b'~') && scan.before(key.start) == Some(b'@') {
        return;
    }
    scan.string_end = None;
    // `PASSWORD= HOST=db`: there is none.
    if form == Form::Equals && scan.before(at) == Some(b' ') && value::starts_assignment(scan, at) {
        return;
    }
    let starts_line = begins_body(scan, key.start)
        || matches!(form, Form::Equals | Form::Yaml) && begins_string(scan, key.start, at);
    if form == Form::Yaml && block::is_block_mark(scan.slice(at, scan.text_end.min(at + 16))) {
        let lead = key.start - scan.body.min(key.start);
        let indent = if begins_body(scan, key.start) { lead } else { 0 };
        scan.cues.next = Some(Cue::Block { indent, class: key.class });
        return;
    }
    // Its own rule takes the block, and knows where it ends.
    let (lead, _) = value::quote_at(scan, at).map_or((0, 0), |(slashes, q)| (slashes + 1, q));
    if scan.starts(at + lead, b"-----BEGIN") {
        return;
    }
    if let Some(bytes) = go_bytes(scan, at) {
        if is_value(scan, &key, scan.slice(bytes.start, bytes.end)) {
            scan.accept(&key, bytes);
        }
        return;
    }
    match first {
        b'[' if placeholder::end_at(scan.text, at).is_none() => return list(scan, &key, at),
        b'{' if braced(scan, &key, at) => return,
        b'{' if form != Form::Equals || key.class != Class::Password => {
            if key.plural && key.class != Class::Password {
                return plural_object(scan, key.class, at);
            }
            return object(scan, key.class, at, key.class != Class::Password);
        }
        _ => {}
    }
    let reach = match form {
        Form::Equals if starts_line => Reach::Line,
        // Passwords may have blanks in them; keys and tokens have none.
        Form::Yaml if starts_line && key.class == Class::Password => Reach::Line,
        Form::Go => Reach::GoField,
        _ => Reach::Word,
    };
    let mut value = value::read(scan, at, reach);
    if form == Form::Equals && !value.quoted && scan.before(key.start) == Some(b';') {
        value = in_list(scan, value);
    }
    // `token: Bearer x`: the scheme is no secret, what follows is.
    for scheme in [&b"bearer"[..], b"basic", b"token"] {
        let head = value.start + scheme.len();
        if scan.slice(value.start, head).eq_ignore_ascii_case(scheme) {
            let next = scan.skip_space(head);
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
    // `/page;jsessionid=x?lang=nl`: the query begins.
    if key.class == Class::Cookie && scan.before(key.start) == Some(b';') && !value.quoted {
        let query = memchr::memchr(b'?', scan.slice(value.start, value.end));
        value.end = query.map_or(value.end, |mark| value.start + mark);
    }
    let text = scan.slice(value.start, value.end);
    if form == Form::Yaml && !value.quoted && is_progress(scan.slice(value.start, value.start + 32))
    {
        return;
    }
    // `user/pass = bob / x`, `credentials: bob / x`
    let pair = key.class == Class::Secret || scan.before(key.start) == Some(b'/');
    if pair
        && !value.quoted
        && let Some(password) = after_slash(scan, value.end)
    {
        return scan.accept(&key, password);
    }
    if form == Form::Yaml
        && !value.quoted
        && let Some(phrase) = phrase(scan, &key, at)
    {
        return scan.accept(&key, phrase);
    }
    if form == Form::Yaml && !value.quoted && !quotable(scan, &key, &value, starts_line) {
        return introduced_later(scan, &key, at);
    }
    // `secret:  40 bytes`, as `kubectl describe` says its size.
    let size = text.iter().all(u8::is_ascii_digit) && scan.starts(value.end, b" byte");
    if size && key.class != Class::Password {
        return;
    }
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let bytes = digits > 0 && scan.starts(value.start + digits, b" byte");
    if bytes && !value.quoted && scan.slice(at.saturating_sub(2), at) == b"  " {
        return;
    }
    // `external-secrets: reconciled 3 objects`: who says it.
    let pairs = scan.slice(key.start, key.end).to_ascii_lowercase().ends_with(b"credentials");
    let says = key.plural && key.class != Class::Password && form != Form::Equals && !pairs;
    if says && !value.quoted && !is_listed_secret(text) {
        return;
    }
    // `{Password: Token: Host:x}`: a struct whose fields are empty.
    let field = begins_field(text) || begins_field(scan.slice(value.start, value.end + 1));
    if form == Form::Yaml && !value.quoted && field && is_go_field(scan, &key) {
        return;
    }
    if is_value(scan, &key, text) {
        several::accept(scan, &key, value);
    }
}

/// R28: `--from-literal=name=value` of `kubectl create secret`.
pub(super) fn at_literal(scan: &mut Scan<'_>, end: usize) {
    let mut at = end;
    if matches!(scan.at(at), Some(b'=' | b' ')) {
        at += 1;
    }
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let sign = at + scan.run(at, 128, is_name);
    if scan.at(sign) != Some(b'=') || sign == at {
        return;
    }
    let value = value::read(scan, sign + 1, Reach::Word);
    if !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::K8sSecret);
        scan.done = scan.done.max(value.end);
    }
}
