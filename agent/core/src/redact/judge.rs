//! Whether what stands after a key is something to hide.

use super::Class;
use super::key::{Key, Strength};
use super::line::Scan;
use super::value;

/// Whether `text` is something to hide under `key`.
pub(super) fn is_value(scan: &Scan<'_>, key: &Key, text: &[u8]) -> bool {
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

/// A word that a sentence gives as a secret without saying so: long, mixed, and no name of anything.
pub(super) fn is_random_word(text: &[u8]) -> bool {
    /// Small letters in a row that random text hardly has, and names of classes do.
    const NAME: usize = 8;
    let mut run = 0;
    let named = text.iter().any(|b| {
        run = if b.is_ascii_lowercase() { run + 1 } else { 0 };
        run >= NAME
    });
    !named && value::looks_random(text) && !is_uuid(text)
}

/// A word in quotes after a key that may be the name of the secret as well as the secret.
pub(super) fn is_telling(text: &[u8]) -> bool {
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    let mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let long = text.len() >= 20 && text.iter().all(u8::is_ascii_alphanumeric);
    text.len() >= 8
        && has(u8::is_ascii_digit)
        && (mixed || long)
        && !has(u8::is_ascii_whitespace)
        && !is_uuid(text)
}
