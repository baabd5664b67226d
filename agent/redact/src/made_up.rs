//! What looks made up, by people who choose a password or by what hands tokens out: judged by the word
//! alone, whatever stands around it.

use super::value;

/// A word that a sentence gives as a secret without saying so: long, mixed, and no name of anything.
pub(super) fn is_random_word(text: &[u8]) -> bool {
    value::looks_random(text) && !is_named(text) && !is_uuid(text) && !is_product(text)
        || is_bootstrap(text)
        || is_product_key(text)
        || is_base32(text)
}

/// `9d8sk2.0akd82mslq0d92ks`: lets a node join a cluster.
fn is_bootstrap(text: &[u8]) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() == 23
        && text.get(6) == Some(&b'.')
        && text.iter().filter(|b| lower(b)).count() == 22
        && text
            .get(7..)
            .is_some_and(|secret| secret.iter().filter(|b| b.is_ascii_digit()).count() >= 2)
}

/// Letters of both cases that change at every other place, as no name does.
pub(super) fn is_jumbled(text: &[u8]) -> bool {
    /// A longer one is judged by its head.
    const HEAD: usize = 256;
    if text.len() < 16 {
        return false;
    }
    let text = text.get(..text.len().min(HEAD)).unwrap_or_default();
    let kind = |b: u8| match b {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    // A capital and a small letter after it are one step, as in a name.
    let steps = text.windows(2).filter(|w| matches!(w, [a, b] if kind(*a) != kind(*b))).count();
    let signs = text.iter().filter(|b| kind(**b) == 3).count();
    signs * 6 <= text.len()
        && steps * 5 >= text.len() * 2
        && text.iter().any(u8::is_ascii_lowercase)
        && text.iter().any(u8::is_ascii_uppercase)
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(b))
}

/// `Go-http-client/2.0`: who speaks, and its version.
pub(super) fn is_product(text: &[u8]) -> bool {
    let Some(slash) = memchr::memchr(b'/', text) else { return false };
    let (name, version) = text.split_at_checked(slash).unwrap_or_default();
    let version = version.get(1..).unwrap_or_default();
    (2..=32).contains(&name.len())
        && name.iter().all(|b| b.is_ascii_alphabetic() || *b == b'-')
        && version.contains(&b'.')
        && version.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

/// The secret of a generator of one-time codes (RFC 4648 §6).
pub(super) fn is_base32(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    if !(16..=128).contains(&text.len()) {
        return false;
    }
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let body = text.split(|&b| b == b'=').next().unwrap_or_default();
    body.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
        && text.len() - body.len() <= 6
        && digits >= 2
        && digits * 2 < body.len()
}

/// `ABCDE-12FGH-…`: keys of licences, in groups of capitals and digits.
pub(super) fn is_product_key(text: &[u8]) -> bool {
    let group = |part: &[u8]| {
        (4..=8).contains(&part.len())
            && part.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    // Four groups and the dashes between them.
    text.len() >= 19
        && text.split(|&b| b == b'-').filter(|part| group(part)).count() >= 4
        && text.split(|&b| b == b'-').all(group)
        && text.iter().any(u8::is_ascii_digit)
        && text.iter().filter(|b| b.is_ascii_uppercase()).count() >= 6
}

/// Whether a word is written in it: small letters in a row, vowels among them.
fn is_named(text: &[u8]) -> bool {
    const NAME: usize = 8;
    /// In so long a word without order eight small letters come by chance.
    const LONG: usize = 40;
    if text.len() < NAME {
        return false;
    }
    if text.len() >= LONG && is_jumbled(text) {
        return false;
    }
    text.split(|b| !b.is_ascii_lowercase()).any(|run| {
        let vowels = run.iter().filter(|b| matches!(b, b'a' | b'e' | b'i' | b'o' | b'u')).count();
        run.len() >= NAME && vowels * 4 >= run.len()
    })
}

/// A word that looks like what people are made to choose: several kinds of characters.
pub(super) fn is_password_like(text: &[u8]) -> bool {
    const DIGIT: u8 = 4;
    const DIVIDER: u8 = 32;
    if text.len() < 6 {
        return false;
    }
    // A bit for each kind, in one pass: words of sentences are asked about one after another.
    let found = text.iter().fold(0, |found, b| {
        found
            | match b {
                b'a'..=b'z' => 1,
                b'A'..=b'Z' => 2,
                b'0'..=b'9' => DIGIT,
                b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'&' | b'*' | b'?' | b'+' | b'~'
                | b'|' | b'<' | b'>' | b'=' => 8,
                0x80.. => 16,
                b'_' | b'-' | b'.' | b':' | b',' | b';' => DIVIDER,
                _ => 0,
            }
    });
    let kinds = (found & !DIVIDER).count_ones();
    (kinds >= 3 || kinds >= 2 && found & DIVIDER != 0 && found & DIGIT != 0)
        && !text.starts_with(b"HTTP/")
        && !text.iter().all(|b| b.is_ascii_digit() || b"-:.TZ+".contains(b))
}

/// A word that stands where a sentence has a password and looks like one, or like nothing that people
/// write: letters with digits among them, or letters that no language puts in this order.
pub(super) fn is_made_up(text: &[u8]) -> bool {
    /// What names algorithms and versions begin with.
    const NAMES: &[&str] = &[
        "sha", "md5", "bcrypt", "pbkdf", "scram", "aes", "rsa", "ed25519", "oauth", "saml", "ldap",
        "rfc", "pkcs", "x509", "base64", "utf", "http", "krb", "kerberos", "tls", "ipv", "argon",
        "hmac", "v1", "v2", "v3", "iso", "win32",
    ];
    let head = text.get(..text.len().min(12)).unwrap_or_default().to_ascii_lowercase();
    // `sha256`, `aes-gcm`; `Shadow` and `Island` are words.
    let named = NAMES.iter().any(|name| {
        head.strip_prefix(name.as_bytes()).is_some_and(|rest| {
            let next = rest.first().copied().unwrap_or(b'-');
            !(next.is_ascii_lowercase() && matches!(*name, "sha" | "iso"))
        })
    });
    if is_password_like(text) && !named {
        return true;
    }
    if text.len() < 6
        || text.len() > 128
        || named
        || text.iter().any(|b| b"/\\(){}[]<>=\"'".contains(b))
        || is_uuid(text)
    {
        return false;
    }
    let count = |test: fn(&u8) -> bool| text.iter().filter(|b| test(b)).count();
    let (letters, digits) = (count(u8::is_ascii_alphabetic), count(u8::is_ascii_digit));
    let others = text.len() - letters - digits;
    let beyond = count(|b| *b >= 0x80);
    let enough = digits >= 2 || digits == 1 && letters >= 8;
    if letters + beyond >= 1 && enough && others == beyond {
        return true;
    }
    // Capitals inside of the word, again and again.
    let flips = text
        .windows(2)
        .filter(|w| matches!(w, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()))
        .count();
    let dull = text
        .split(|b| !b.is_ascii_lowercase())
        .any(|run| run.len() >= 5 && !run.iter().any(|b| b"aeiouy".contains(b)));
    let kinds = usize::from(count(u8::is_ascii_uppercase) > 0)
        + usize::from(digits > 0)
        + usize::from(others > 0);
    letters >= 6 && (flips >= 3 && !is_named(text) || dull && kinds >= 1)
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

pub(super) fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}
