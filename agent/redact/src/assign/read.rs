//! Where a value after its sign begins and ends, and what is none.

use super::Form;
use super::place::begins_body;
use crate::Class;
use crate::block;
use crate::judge::is_field;
use crate::key::{self, Key, Strength};
use crate::made_up::{is_made_up, is_password_like, is_random_word, is_uuid};
use crate::phrase::is_chosen;
use crate::prose::{introduced, words_of_phrase};
use crate::scan::{Cue, Scan};
use crate::value::{self, Reach, Value};

/// `password: old x new y`
pub(super) fn introduced_later(scan: &mut Scan<'_>, key: &Key, at: usize) {
    if key.class == Class::Password {
        introduced(scan, key, at);
    }
}

/// `$(kubectl …`: a command whose output is the value. What may itself be given a secret, such as
/// `$(openssl passwd …` or `$(cat <<<…`, is none.
pub(super) fn is_command(scan: &Scan<'_>, at: usize) -> bool {
    const COMMANDS: &[&[u8]] = &[
        b"$(kubectl get ",
        b"$(oc get ",
        b"$(cat /",
        b"$(az keyvault secret show ",
        b"$(aws secretsmanager get-secret-value ",
        b"$(gcloud secrets versions access ",
        b"$(vault kv get ",
        b"$(vault read ",
        b"$(openssl rand ",
        b"$(terraform output ",
        b"$(sops -d ",
    ];
    COMMANDS.iter().any(|command| scan.starts(at, command))
}

/// `"$(cat /run/secrets/x)"`: such a command and nothing else in quotes.
pub(super) fn is_quoted_command(scan: &Scan<'_>, at: usize) -> bool {
    let Some((slashes, quote)) = value::quote_at(scan, at) else { return false };
    let start = at + slashes + 1;
    if !scan.starts(start, b"$(") || !is_command(scan, start) {
        return false;
    }
    let text = value::quoted(scan, at, slashes, quote);
    let inside = scan.slice(start + 2, text.end);
    inside.iter().position(|&b| b == b')') == inside.len().checked_sub(1)
}

/// `field 'newPassword': size must be …`, `table "x.api_key": index scans`: what is said of what has the name.
pub(super) fn is_spoken_of(scan: &Scan<'_>, key: &Key, at: usize) -> bool {
    const SAYING: &[&[u8]] = &[
        b"must", b"should", b"may", b"can", b"cannot", b"is", b"has", b"does", b"needs", b"was",
        b"length",
    ];
    const OBJECTS: &[&[u8]] = &[
        b"table",
        b"relation",
        b"index",
        b"column",
        b"constraint",
        b"view",
        b"sequence",
        b"schema",
    ];
    let first = scan.run(at, 24, u8::is_ascii_lowercase);
    if first < 2 || scan.at(at + first) != Some(b' ') {
        return false;
    }
    let next = at + first + 1;
    let second = scan.run(next, 12, u8::is_ascii_lowercase);
    let more = scan.at(next + second).is_some_and(|b| b == b' ');
    let said = more && SAYING.contains(&scan.slice(next, next + second));
    let before = scan.slice(key.start.saturating_sub(64).max(scan.body.min(key.start)), key.start);
    let name = |b: &&u8| b.is_ascii_alphanumeric() || b"_.\"\\".contains(b);
    let quoted = before.iter().rev().take_while(name).count();
    let lead = before.get(..before.len() - quoted).unwrap_or_default().trim_ascii_end();
    let word = lead.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    said || OBJECTS.contains(&word)
}

/// `secret: correct horse battery`: words to the end of the line, none of which speaks of a secret.
pub(super) fn phrase(scan: &Scan<'_>, key: &Key, at: usize) -> Option<Value> {
    if let Some(words) = words_of_phrase(scan, key, at) {
        return Some(words);
    }
    /// Most words of such a secret, and its longest form.
    const WORDS: usize = 8;
    const LONGEST: usize = 96;
    let named = scan.slice(key.start, key.end).to_ascii_lowercase().ends_with(b"secret");
    let end = scan.string_end.unwrap_or(scan.text_end).min(scan.text_end);
    if !named || key.class != Class::Secret || key.plural || end.saturating_sub(at) > LONGEST {
        return None;
    }
    let text = scan.slice(at, end);
    let fits = |word: &[u8]| {
        word.len() >= 3
            && word.iter().all(u8::is_ascii_lowercase)
            && value::may_be_secret_word(word)
    };
    let words = || text.split(|&b| b == b' ');
    let several = (2..=WORDS).contains(&words().count()) && words().all(fits);
    several.then_some(Value { start: at, end, next: end, quoted: false })
}

/// Whether a bare word after `secrets:` or `tokens:` is one.
pub(super) fn is_listed_secret(text: &[u8]) -> bool {
    let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
    // `tokens: prompt=120 completion=44`
    let sign = text.iter().position(|&b| b == b'=');
    let count = |sign: usize| text.len() - sign <= 6;
    if sign.is_some_and(|sign| count(sign) && text.iter().skip(sign + 1).all(u8::is_ascii_digit)) {
        return false;
    }
    !text.iter().any(|b| b"{[(/".contains(b))
        && (hex || is_random_word(text) || is_password_like(text))
}

/// `… / x`: the password after the name of a user.
pub(super) fn after_slash(scan: &Scan<'_>, at: usize) -> Option<Value> {
    let slash = scan.skip_space(at);
    let from = scan.skip_space(slash + 1);
    if scan.at(slash) != Some(b'/') || slash == at || from == slash + 1 {
        return None;
    }
    let value = value::read(scan, from, Reach::Word);
    let text = scan.slice(value.start, value.end);
    (is_made_up(text) || is_chosen(text)).then_some(value)
}

/// `Creation complete after 6s`, `Still creating... [10s elapsed]`: what Terraform says of a resource.
pub(super) fn is_progress(text: &[u8]) -> bool {
    let mut words = text.split(|&b| b == b' ');
    let first = words.next().unwrap_or_default();
    let second = words.next().unwrap_or_default();
    let done = [&b"Creation"[..], b"Modifications", b"Destruction", b"Read", b"Refresh", b"Import"];
    done.contains(&first) && second == b"complete"
        || first == b"Still" && second.ends_with(b"ing...")
        || first.first().is_some_and(u8::is_ascii_uppercase) && first.ends_with(b"ing...")
        || first == b"Refreshing" && second == b"state..."
}

/// Past the escape of a tab.
pub(super) fn skip_tab(scan: &Scan<'_>, at: usize) -> usize {
    let slashes = scan.run(at, 8, |&b| b == b'\\');
    let tab = matches!(slashes, 1 | 2 | 4) && scan.at(at + slashes) == Some(b't');
    if tab { scan.skip_space(at + slashes + 1) } else { at }
}

/// Past the type before a value: `(string) (len=3) "x"`, `[]string{"x"}`, `&"x"`.
pub(super) fn typed(scan: &Scan<'_>, at: usize) -> usize {
    let mut from = at;
    if scan.starts(at, b"string(") {
        // `string(12) "x"`, as PHP prints it.
        from = scan.skip_space(at + scan.run(at, 16, |&b| b != b')') + 1);
    } else if scan.at(at) == Some(b'(') && scan.starts(at, b"(string)") {
        from = scan.skip_space(at + 8);
        if scan.starts(from, b"(len=") {
            from += scan.run(from, 16, |&b| b != b')') + 1;
            from = scan.skip_space(from);
        }
    } else if scan.starts(at, b"[]string{") {
        from = at + 9;
    } else if scan.at(at) == Some(b'&') {
        from = at + 1;
    } else if scan.at(at).is_some_and(|b| b.is_ascii_uppercase()) {
        // `Some("x y")`, `SecretString("x")`, but not `Getenv("NAME")`.
        let name = scan.run(at, 24, |b| b.is_ascii_alphanumeric() || *b == b':');
        let open = at + name;
        if scan.at(open) == Some(b'(')
            && let Some((slashes, quote)) = value::quote_at(scan, open + 1)
        {
            let inside = value::quoted(scan, open + 1, slashes, quote);
            if scan.at(inside.next) == Some(b')') && !is_field(scan.slice(inside.start, inside.end))
            {
                from = open + 1;
            }
        }
    }
    // `!!binary |`, `&anchor >-`: what YAML puts before a block.
    if matches!(scan.at(at), Some(b'!' | b'&')) {
        let word = at + scan.run(at, 32, |b| !b.is_ascii_whitespace());
        let next = scan.skip_space(word);
        if next > word && block::is_block_mark(scan.slice(next, scan.text_end.min(next + 16))) {
            return next;
        }
    }
    if value::quote_at(scan, from).is_some() { from } else { at }
}

/// A value in a list that semicolons divide, blanks included.
pub(super) fn in_list(scan: &Scan<'_>, value: Value) -> Value {
    let rest = scan.slice(value.end, value.end + 128);
    let len = rest.iter().position(|b| matches!(b, b';' | b'"' | b'\'' | b'\\' | b'=' | b'<'));
    match len {
        Some(len) if rest.get(len) == Some(&b';') => {
            Value { end: value.end + len, next: value.end + len, ..value }
        }
        _ => value,
    }
}

/// Whether the word after `value` is the key of another pair.
pub(super) fn before_pair(scan: &Scan<'_>, value: &Value) -> bool {
    let at = scan.skip_space(value.end);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let len = scan.run(at, 64, is_name);
    len == 0 || matches!(scan.at(at + len), Some(b'=' | b':'))
}

/// Nothing stands after the key and its sign: the value may be on the next line.
pub(super) fn at_line_end(scan: &mut Scan<'_>, key: &Key, form: Form) {
    // `["password"]=>`, as PHP prints it.
    if form == Form::Equals && scan.before(scan.text_end) == Some(b'>') {
        scan.cues.next = Some(Cue::Argument(key.class));
    }
    if form == Form::Yaml && begins_body(scan, key.start) {
        let indent = key.start - scan.body.min(key.start);
        scan.cues.next = Some(Cue::Below { indent, class: key.class });
        if key.strength == Strength::Sure {
            scan.cues.members = true;
        }
    } else if form == Form::Yaml && key::is_named(scan, key) {
        // `Using certificate key:`
        scan.cues.next = Some(Cue::Output(Class::Key));
    }
}

/// `Token:`, `Host:db`: the next field of a Go struct.
pub(super) fn begins_field(text: &[u8]) -> bool {
    let name = text.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    text.first().is_some_and(u8::is_ascii_uppercase) && text.get(name) == Some(&b':')
}

/// Whether `key` is a field of a Go struct: a name in capitals right after the brace or after one blank, in
/// braces that hold no string, as those of JSON do.
pub(super) fn is_go_field(scan: &Scan<'_>, key: &Key) -> bool {
    let lead = scan.slice(key.start.saturating_sub(2), key.start);
    let divided = lead.ends_with(b"{")
        || lead.ends_with(b" ") && !matches!(lead.first(), Some(b' ' | b',' | b'n'));
    divided
        && scan.at(key.start).is_some_and(|b| b.is_ascii_uppercase())
        && scan.in_struct(key.start)
}

/// `property 'x.api-key' resolved: y`: a sign within a few words after a name in quotes.
pub(super) fn said_after(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    /// Most words between.
    const WORDS: usize = 4;
    if key.class == Class::Password || key.strength != Strength::Sure {
        return false;
    }
    let mut from = at;
    for _ in 0..WORDS {
        let len = scan.run(from, 24, |b| b.is_ascii_lowercase());
        let sign = from + len;
        if len == 0 {
            return false;
        }
        if matches!(scan.at(sign), Some(b':' | b'=')) && scan.at(sign + 1) == Some(b' ') {
            let value = value::read(scan, scan.skip_space(sign + 1), Reach::Word);
            let text = scan.slice(value.start, value.end);
            let hex = text.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit);
            let own = (hex || is_uuid(text) || is_random_word(text) || is_password_like(text))
                && !is_field(text);
            if own {
                scan.accept(key, value);
            }
            return own;
        }
        from = scan.skip_space(sign);
    }
    false
}

/// Past `[0]`, `[new]`, if the sign of an assignment follows.
pub(super) fn past_index(scan: &Scan<'_>, at: usize) -> usize {
    if scan.at(at) != Some(b'[') {
        return at;
    }
    let close = at + 1 + scan.run(at + 1, 16, u8::is_ascii_alphanumeric);
    let signed = matches!(scan.at(close + 1), Some(b'=' | b':'));
    if scan.at(close) == Some(b']') && signed { close + 1 } else { at }
}

/// `passwd[39574]: `: the program that writes the line, and its process; `index` is where the bracket is.
pub(super) fn is_program(scan: &Scan<'_>, key: &Key, index: usize, end: usize) -> bool {
    let name = scan.slice(key.start, key.end);
    let process = scan.slice(index + 1, end.saturating_sub(1));
    name.ends_with(b"passwd")
        && process.len() >= 2
        && process.iter().all(u8::is_ascii_digit)
        && scan.starts(end, b": ")
}

/// `?=`, `+=`, `<-`, `||=`, `≔`: where the value begins after an assignment that is none of the usual ones.
pub(super) fn operator(scan: &Scan<'_>, at: usize) -> Option<usize> {
    const SIGNS: &[&[u8]] = &[b"?=", b"+=", b"<-", b"||=", b"|=", "≔".as_bytes()];
    let sign = SIGNS.iter().find(|sign| scan.starts(at, sign))?;
    Some(at + sign.len())
}

/// Whether what follows `==` looks like a secret, and like no variable.
pub(super) fn is_compared_with_secret(scan: &Scan<'_>, at: usize) -> bool {
    let value = value::read(scan, at, Reach::Word);
    let text = scan.slice(value.start, value.end);
    value.start < value.end
        && (value.quoted || is_made_up(text) || is_random_word(text) || is_uuid(text))
        && !is_field(text)
}

/// Whether the unquoted word after `key: ` is a value and not the rest of a sentence.
pub(super) fn quotable(scan: &Scan<'_>, key: &Key, value: &Value, starts_line: bool) -> bool {
    let text = scan.slice(value.start, value.end);
    let first = text.split(|b| *b == b' ').next().unwrap_or_default();
    let more = first.len() < text.len() || scan.at(value.end) == Some(b' ');
    if starts_line && !more {
        return !value::is_plain_word(first);
    }
    // In a sentence a secret that is no password looks like one.
    let telling = first.len() >= 16 || first.iter().any(|b| !b.is_ascii_alphabetic() && *b != b'-');
    if key.class != Class::Password && !telling {
        return false;
    }
    if more && !starts_line && first.iter().all(u8::is_ascii_lowercase) && !before_pair(scan, value)
    {
        return false;
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
