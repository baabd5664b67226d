//! What is neither a word nor harmless.

use crate::judge::is_field;
use crate::made_up::{is_jumbled, is_made_up, is_product, is_random_word, is_uuid};
use crate::phrase::{is_grouped, is_phrase, is_scrambled, is_unlike_names};
use crate::value;
use crate::words::COMMON;

/// Whether `text` is what people or generators choose for a password, and nothing that logs have besides.
pub(super) fn is_choice(text: &[u8]) -> bool {
    let text = without_padding(text);
    if text.len() < 6 || text.len() > 64 || is_elsewhere(text) || value::is_nothing(text) {
        return false;
    }
    let base = text.len() - text.iter().rev().take_while(|b| b"!?#$%*".contains(b)).count();
    if text.get(..base).is_some_and(|base| COMMON.has(base)) {
        return text.iter().any(|b| !b.is_ascii_alphabetic());
    }
    if is_phrase(text) || is_grouped(text) || is_dated(text) || is_mash(text) || is_scrawl(text) {
        return true;
    }
    (is_made_up(text) || is_hex(text, 20, 64)) && !is_name(text)
        || is_unlike_names(text) && !is_code(text)
}

/// Base64 without the signs it was filled up with.
fn without_padding(text: &[u8]) -> &[u8] {
    let body = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let whole = text.len() >= 16 && text.len().is_multiple_of(4) && !body.contains(&b'=');
    if whole { body } else { text }
}

/// Whether `text` is what people choose where a word right before it says that it is the value: a name that
/// could be one of a class, a short number in hexadecimal digits.
pub(super) fn is_told_choice(text: &[u8]) -> bool {
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let letters = text.get(..text.len() - digits).unwrap_or_default();
    let capital = text.first().is_some_and(u8::is_ascii_uppercase);
    let word = text.len() >= 8
        && (if capital { 1..=4 } else { 2..=4 }).contains(&digits)
        && letters.iter().all(u8::is_ascii_alphabetic)
        && letters.iter().skip(1).any(u8::is_ascii_lowercase);
    word || is_hex(text, 16, 64) || is_uuid(text) || COMMON.has(text)
}

/// Whether `text` is what people choose, and nothing that an object of a cluster could be called.
pub(super) fn is_choice_for_secret(text: &[u8]) -> bool {
    let foreign = |b: &u8| !(b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b));
    let named = !text.iter().any(foreign) && !is_scrambled(text);
    text.iter().any(u8::is_ascii_digit) && !named && is_choice(text)
}

/// Whether `text` is a key or token; hexadecimal digits are one if `hex`.
pub(super) fn is_key_material(text: &[u8], hex: bool) -> bool {
    if text.len() < 16 || text.starts_with(b"/") || is_algorithm(text) || is_public(text) {
        return false;
    }
    let body = text.split(|&b| b == b'=').next().unwrap_or_default();
    let plain = text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=_.~-".contains(b));
    plain
        && text.len() - body.len() <= 2
        && (is_random_word(text)
            || is_jumbled(text) && (hex || text.len() >= 24)
            || is_scrawl(text)
            || is_seed(text) && text.len() >= 24 && text.iter().any(u8::is_ascii_digit)
            || hex && is_hex_in_parts(text))
}

/// `sha256WithRSAEncryption`, `ecdsa-with-SHA256`: how something is signed.
fn is_algorithm(text: &[u8]) -> bool {
    text.len() <= 32
        && [&b"with"[..], b"With", b"WITH"].iter().any(|w| memchr::memmem::find(text, w).is_some())
        && [&b"sha"[..], b"SHA", b"RSA", b"md5"]
            .iter()
            .any(|w| memchr::memmem::find(text, w).is_some())
}

/// `AAAAC3NzaC1lZDI1NTE5…`: a public key of SSH, whose first bytes say its kind.
fn is_public(text: &[u8]) -> bool {
    [&b"AAAAC3NzaC1"[..], b"AAAAB3NzaC1", b"AAAAE2VjZHNh"].iter().any(|head| text.starts_with(head))
}

/// The secret of a generator of one-time codes (RFC 4648 §6), whatever letters it has.
pub(crate) fn is_seed(text: &[u8]) -> bool {
    (16..=64).contains(&text.len())
        && text.len().is_multiple_of(8)
        && text.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
}

/// Hexadecimal digits, with a dot in them where their halves are made apart.
fn is_hex_in_parts(text: &[u8]) -> bool {
    text.len() >= 32 && text.split(|&b| b == b'.').all(|part| is_hex(part, 12, 128))
}

pub(super) fn is_hex(text: &[u8], least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len())
        && text.iter().all(u8::is_ascii_hexdigit)
        && text.iter().any(u8::is_ascii_digit)
        && text.iter().any(u8::is_ascii_alphabetic)
}

/// Whether `text` looks made up to other rules and is none to hide for all that.
pub(crate) fn is_harmless(text: &[u8]) -> bool {
    let pair = text.iter().any(|b| b":=".contains(b))
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-._:=,/".contains(b));
    pair || is_code(text) || is_class(text)
}

/// Addresses, paths, pairs, calls: what says where something is or what it has.
fn is_elsewhere(text: &[u8]) -> bool {
    let slashes = text.iter().filter(|&&b| b == b'/').count();
    // `398.450µs`
    let number = text.iter().take_while(|b| b.is_ascii_digit() || b".,".contains(b)).count();
    let strange = is_strange(text);
    slashes > 0 && !strange
        || memchr::memmem::find(text, b"://").is_some()
        || text.starts_with(b"/")
        || text.starts_with(b"u00")
        || number > 0 && text.len() - number <= 3
        || !strange && text.iter().any(|b| b"=:;,|".contains(b))
        || text.iter().any(|b| b"(){}[]<>\"'`\\".contains(b))
        || text.contains(&b'@') && text.contains(&b'.') && !strange
        || is_dotted(text)
        || matches!(text.first(), Some(b'$' | b'%' | b'&' | b'@' | b'-' | b'.'))
        || is_product(text)
        || is_field(text)
        || is_uuid(text)
}

/// `org.postgresql.Driver`, `db.prod.example`: dots between names, unless they are the words of a phrase.
fn is_dotted(text: &[u8]) -> bool {
    let parts = || text.split(|&b| b == b'.');
    let capital = |part: &[u8]| part.first().is_some_and(u8::is_ascii_uppercase);
    let class = parts().next_back().is_some_and(capital) && !parts().next().is_some_and(capital);
    parts().count() >= 3 && (class || !is_phrase(text))
}

/// `RabbmCJsm`: letters alone with capitals where no word has them: few of the parts that begin with one are
/// words. `ZuG-OJGDAk-In-p`: with dashes, too.
pub(crate) fn is_scrawl(text: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphabetic() || b"-_".contains(b);
    if !(8..=64).contains(&text.len()) || !text.iter().all(fits) {
        return false;
    }
    let capitals = text.iter().filter(|b| b.is_ascii_uppercase()).count();
    let signed = text.iter().any(|b| b"-_".contains(b));
    text.iter().any(u8::is_ascii_lowercase) && (capitals > 2 || !signed) && is_without_words(text)
}

fn is_without_words(text: &[u8]) -> bool {
    let (mut parts, mut words) = (0, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let signs = rest.iter().take_while(|b| b"-_".contains(b)).count();
        rest = rest.get(signs..).unwrap_or_default();
        let upper = rest.iter().take_while(|b| b.is_ascii_uppercase()).count();
        let lower = rest.iter().skip(upper).take_while(|b| b.is_ascii_lowercase()).count();
        let (part, tail) = rest.split_at_checked(upper + lower).unwrap_or((rest, b""));
        let vowels = part.iter().filter(|b| b"aeiouyAEIOUY".contains(b)).count();
        parts += usize::from(!part.is_empty());
        words += usize::from(upper > 2 && lower == 0 || vowels > 0 && lower >= 2);
        rest = tail;
    }
    parts >= 3 && words * 2 < parts || parts >= 4 && words * 2 == parts
}

/// `7=uAv!BE~du/z`: letters of both cases and digits with a sign that neither a pair nor a path has.
fn is_strange(text: &[u8]) -> bool {
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    let name = text.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'_').count();
    let pair = name >= 3 && matches!(text.get(name), Some(b'=' | b':'));
    text.len() >= 8
        && !pair
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && (has(|b| b"!#$^*?~".contains(b)) || has_loose_percent(text))
}

/// A sign of percent that escapes nothing.
fn has_loose_percent(text: &[u8]) -> bool {
    text.windows(3)
        .any(|w| w.first() == Some(&b'%') && !w.iter().skip(1).all(u8::is_ascii_hexdigit))
}

/// `winter2025`: a word and a year.
fn is_dated(text: &[u8]) -> bool {
    let Some((word, year)) = text.split_at_checked(text.len().saturating_sub(4)) else {
        return false;
    };
    (4..=14).contains(&word.len())
        && word.iter().all(u8::is_ascii_lowercase)
        && (year.starts_with(b"19") || year.starts_with(b"20"))
        && year.iter().all(u8::is_ascii_digit)
}

/// `poiuz098zhn`, `qazplm741852`: small letters, and three digits or more among or after them.
fn is_mash(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = text.iter().filter(|b| b.is_ascii_lowercase()).count();
    let last = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    (8..=24).contains(&text.len())
        && letters + digits == text.len()
        && letters >= 3
        && digits >= 3
        && (last == 0 || last >= 5)
        && text.first().is_some_and(u8::is_ascii_lowercase)
        && !text.iter().all(u8::is_ascii_hexdigit)
}

/// `ORA-01017`, `KB5034441`, `ERR_X509`: capitals, then digits.
fn is_code(text: &[u8]) -> bool {
    let sign = |b: &u8| b"-_".contains(b);
    text.first().is_some_and(u8::is_ascii_uppercase)
        && text.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || sign(b))
        && (text.iter().any(sign) && !is_grouped(text)
            || text.iter().skip_while(|b| b.is_ascii_uppercase()).all(u8::is_ascii_digit))
}

/// A name that software gives: of a host, pod, class, thread; or of a release.
fn is_name(text: &[u8]) -> bool {
    let small = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(b);
    if text.iter().all(small) {
        return !is_scrambled(text) && !is_hex(text, 20, 64);
    }
    is_code(text) || is_class(text)
}

/// `Login2Controller`, `Argon2id`, `Jan.Jansen2`, `ForkJoinPool-1-worker-3`: words with a digit or two
/// inside, or one at the end.
pub(crate) fn is_class(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let last = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
    // `Sha256Digest`
    let size = [&b"128"[..], b"224", b"256", b"384", b"512"];
    let sized = digits == 3 && text.windows(3).any(|w| size.contains(&w));
    (digits <= 2 || sized)
        && last <= 1
        && text.iter().all(plain)
        && text.split(|b| !b.is_ascii_alphabetic()).all(|run| run.is_empty() || is_wordy(run))
}

/// Letters as words have them: capitals begin words, and there are vowels.
fn is_wordy(run: &[u8]) -> bool {
    let upper = run.iter().filter(|b| b.is_ascii_uppercase()).count();
    let shouted = upper == run.len() && run.len() <= 6;
    let vowels = run.iter().filter(|b| b"aeiouyAEIOUY".contains(b)).count();
    shouted || vowels > 0 && upper * 3 <= run.len() && vowels * 8 >= run.len()
}
