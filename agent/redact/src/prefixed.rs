//! Secrets that say what they are: PEM, JWT, base64 of keys, vendors' prefixes, Entra secrets
//! (R16, R18, R19, R21–R23).

use std::sync::LazyLock;

use base64::Engine as _;
use memchr::memmem::Finder;

mod inside;
mod vendors;

pub(super) use self::inside::{at_bot, at_hash, at_hook, at_mark};
pub(super) use self::vendors::VENDORS;
use super::Class;
use super::bytes;
use super::scan::{Cue, Scan};
use super::signs::PADDING;

/// A vendor's token: prefix, then at least `min` characters of `set`.
pub(super) struct Vendor {
    pub(super) prefix: &'static str,
    min: usize,
    set: Set,
}

/// What a token may be made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Upper,
    Word,
    /// Letters, digits, `-` and `_`.
    Url,
    /// As `Url`, and `.`.
    Dotted,
    /// As `Dotted`, and `=`.
    Signed,
    /// As `Url`, and `/`; the prefix of these three is the address of a service, and stays.
    Path,
    /// As `Path`, and `@`.
    Wide,
    /// As `Url`, and `:`.
    Colon,
}

const fn vendor(prefix: &'static str, min: usize, set: Set) -> Vendor {
    Vendor { prefix, min, set }
}

fn in_set(set: Set, b: u8) -> bool {
    match set {
        Set::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
        Set::Word => b.is_ascii_alphanumeric() || b == b'_',
        Set::Url => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
        Set::Dotted => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'),
        Set::Signed => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'='),
        Set::Path => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/'),
        Set::Wide => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'@'),
        Set::Colon => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':'),
    }
}

/// Whether a token may begin at `start`: not in the middle of a longer word, unless the letter
/// before belongs to an escape such as `\n`.
fn begins_token(scan: &Scan<'_>, start: usize) -> bool {
    start == scan.body
        || !scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric())
        || super::key::starts_word(scan, start)
            && scan.before(start).is_some_and(|b| matches!(b, b'n' | b't' | b'r'))
}

pub(super) fn at_vendor(scan: &mut Scan<'_>, index: u8, start: usize, end: usize) {
    let Some(vendor) = VENDORS.get(usize::from(index)) else { return };
    let webhook = matches!(vendor.set, Set::Path | Set::Wide | Set::Colon);
    if scan.slice(start, end) != vendor.prefix.as_bytes() || !webhook && !begins_token(scan, start)
    {
        return;
    }
    let mut len = scan.long_run(end, |&b| in_set(vendor.set, b));
    // The full stop of the sentence.
    if matches!(vendor.set, Set::Dotted | Set::Signed) && scan.before(end + len) == Some(b'.') {
        len = len.saturating_sub(1);
    }
    let tail = scan.slice(end, end + len);
    let telling = vendor.set == Set::Upper
        || len >= 24 && (vendor.prefix.len() > 5 || tail.iter().any(u8::is_ascii_digit))
        || tail.iter().any(u8::is_ascii_digit)
        || tail.iter().any(u8::is_ascii_uppercase) && tail.iter().any(u8::is_ascii_lowercase);
    if len >= vendor.min && telling {
        // `x.atlasv1.y`: the name of the token is before its prefix.
        let named = vendor.prefix == "atlasv1" && scan.before(start) == Some(b'.');
        let lead = if named {
            1 + scan.run_before(start - 1, scan.body.max(start.saturating_sub(32)), |b| {
                b.is_ascii_alphanumeric()
            })
        } else {
            0
        };
        scan.add(if webhook { end } else { start - lead }, end + len, Class::VendorToken);
        scan.done = scan.done.max(end + len);
    }
}

/// R18, R19: `eyJ…` begins base64 of a JSON object: JWT, JWE, or a whole configuration.
pub(super) fn at_jwt(scan: &mut Scan<'_>, start: usize) {
    let head = scan.slice(start, start + 3);
    // `{"`, and `{ "` or `{\n`, of which base64 is less telling.
    let spaced = matches!(head, b"eyA" | b"ewo");
    if !spaced && head != b"eyJ" || !begins_token(scan, start) {
        return;
    }
    let is_base64 = |b: &u8| bytes::ANY_BASE64.has(*b);
    let mut end = start;
    let mut parts = 0;
    loop {
        let len = scan.long_run(end, is_base64);
        // Part two of a JWE with a direct key is empty.
        if len == 0 && parts != 1 {
            break;
        }
        end += len;
        parts += 1;
        if parts == 5 || scan.at(end) != Some(b'.') {
            break;
        }
        end += 1;
    }
    if scan.before(end) == Some(b'.') {
        end -= 1;
    }
    if end - start < 16 || spaced && parts < 3 {
        return;
    }
    let class = if parts == 3 && is_service_account(scan.slice(start, end)) {
        Class::ServiceAccount
    } else {
        Class::Jwt
    };
    // `sk.eyJ…`, of Mapbox.
    let lead = scan.slice(start.saturating_sub(3).max(scan.body.min(start)), start);
    let lead = if matches!(lead, b"sk." | b"tk.") && begins_token(scan, start - 3) { 3 } else { 0 };
    scan.add(start - lead, end, class);
    scan.done = scan.done.max(end);
}

/// Whether the claims name a service account, as base64 has the words at each of three places.
fn is_service_account(token: &[u8]) -> bool {
    /// Claims name the account well inside of this.
    const NEAR: usize = 2048;
    static WORDS: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
        ["kubernetes.io", "system:serviceaccount"]
            .into_iter()
            .flat_map(|word| [0, 1, 2].map(|pad| inside_base64(word, pad)))
            .map(|word| Finder::new(&word).into_owned())
            .collect()
    });
    let Some(payload) = token.split(|&b| b == b'.').nth(1) else { return false };
    let head = payload.get(..payload.len().min(NEAR)).unwrap_or_default();
    WORDS.iter().any(|word| word.find(head).is_some())
}

/// What base64 of a text has for `word`, when `pad` bytes of a group of three stand before it: the
/// letters that depend on nothing else.
fn inside_base64(word: &str, pad: usize) -> Vec<u8> {
    let text = "x".repeat(pad) + word;
    let letters = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text).into_bytes();
    let first = (pad * 8).div_ceil(6);
    let last = text.len() * 8 / 6;
    letters.get(first..last).unwrap_or_default().to_vec()
}

/// R22, R26: base64 of a DER sequence (`MII…`: PKCS#12, keys, certificates), of PEM, of an OpenSSH
/// key, or of a SAML message.
pub(super) fn at_blob(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done || !begins_token(scan, start) {
        return;
    }
    let prefix = scan.slice(start, end);
    let (least, class) = match prefix {
        b"MII" => (64, Class::KeyBlob),
        b"LS0tLS1CRUdJTi" | b"b3BlbnNzaC1rZXkt" => (24, Class::KeyBlob),
        b"TlRMTVNTUAA" => (40, Class::Authorization),
        b"PHNhbW" if matches!(scan.at(end), Some(b'w' | b'x')) => (40, Class::Saml),
        // `<?xml`, `<Asser`, `<Respo`, `<Authn`, `<Logou`, `<Encry`, of SAML or of anything else.
        b"PD94bW" | b"PEFzc2Vy" | b"PFJlc3Bv" | b"PEF1dGhu" | b"PExvZ291" | b"PEVuY3J5"
            if says_saml(scan, start) =>
        {
            (40, Class::Saml)
        }
        // Key stores of Java.
        b"/u3+7Q" | b"zs7OzgAAAA" | b"zs7OzgAA" | b"zs7Ozg" => (64, Class::KeyBlob),
        _ => return,
    };
    let rest = scan.rest(start);
    let mut len = 0;
    while let Some(&byte) = rest.get(len) {
        if bytes::ANY_BASE64.has(byte) {
            len += 1;
        } else if byte == b'\\' && len > 0 {
            // An escaped line end inside of the blob.
            let run = rest.iter().skip(len).take(16).take_while(|&&b| b == b'\\').count();
            let escape = rest.get(len + run).is_some_and(|b| matches!(b, b'n' | b'r' | b'/'));
            let more = rest.get(len + run + 1).is_some_and(u8::is_ascii_alphanumeric)
                || rest.get(len + run + 1) == Some(&b'\\');
            if !(escape && more) {
                break;
            }
            len += run + 1;
        } else {
            break;
        }
    }
    scan.spend(len);
    if len >= least {
        scan.add(start, start + len, class);
        scan.done = scan.done.max(start + len);
    }
}

/// Whether the base64 at `start` is that of a text that speaks of SAML early on.
fn says_saml(scan: &Scan<'_>, start: usize) -> bool {
    const HEAD: usize = 1024;
    let len = scan.run(start, HEAD, |b| bytes::BASE64_LETTERS.has(*b));
    scan.spend(len);
    let text = scan.slice(start, start + len / 4 * 4);
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).unwrap_or_default();
    [&b"saml"[..], b"SAML", b"Assertion"]
        .iter()
        .any(|w| memchr::memmem::find(&decoded, w).is_some())
}

/// R21: `-----BEGIN … -----`, with its body on this line or on the next ones.
pub(super) fn at_pem(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done {
        return;
    }
    // The label is a few words.
    let label = scan.slice(end, end + 64);
    let Some(close) = memchr::memmem::find(label, b"-----") else { return };
    let body = end + close + 5;
    let rest = scan.rest(body);
    let mark = memchr::memmem::find(rest, b"-----END");
    scan.spend(mark.unwrap_or(rest.len()) / 8);
    if let Some(mark) = mark {
        add_pem(scan, body, body + mark);
        scan.done = scan.done.max(body + mark);
        return;
    }
    // No end mark: as far as it can be base64, white space, or escapes of line ends.
    let mut len = 0;
    let word = rest.trim_ascii_start();
    let sign = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    // A sentence about such a mark.
    let (word, comma) =
        word.strip_prefix(b",").map_or((word, false), |w| (w.trim_ascii_start(), true));
    let sentence = word.first().is_some_and(|b| *b != b'\\')
        && (word.len() < rest.len() || comma)
        && word.iter().take_while(sign).count() < 16
        && !word.starts_with(b"Proc-Type");
    if sentence {
        return;
    }
    while let Some(&byte) = rest.get(len) {
        let fits = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'+' | b'/' | b'=' | b' ' | b'\t' | b'\r' | b'\\' | b':' | b'-' | b','
            );
        if !fits {
            break;
        }
        len += 1;
    }
    scan.spend(len);
    let blank = !add_pem(scan, body, body + len);
    scan.done = scan.done.max(body + len);
    if body + len >= scan.text.len() || blank && !rest.contains(&b'{') {
        let column = start - scan.body.min(start);
        scan.cues.next = Some(Cue::Pem { column });
    }
}

/// Notes what is between the marks of a PEM block on one line, without the white space and escapes
/// at its edges; false when there is nothing else.
fn add_pem(scan: &mut Scan<'_>, start: usize, end: usize) -> bool {
    let text = scan.slice(start, end);
    let mut lead = 0;
    while let Some(byte) = text.get(lead) {
        let escape =
            lead > 0 && text.get(lead - 1) == Some(&b'\\') && matches!(byte, b'n' | b'r' | b't');
        if !(byte.is_ascii_whitespace() || *byte == b'\\' || escape) {
            break;
        }
        lead += 1;
    }
    let mut keep = end;
    while keep > start + lead {
        match (scan.before(keep), scan.before(keep - 1)) {
            (Some(b'n' | b'r' | b't'), Some(b'\\')) => keep -= 2,
            (Some(b'\\' | b' ' | b'\t' | b'\r'), _) => keep -= 1,
            _ => break,
        }
    }
    if keep <= start + lead {
        return false;
    }
    scan.add(start + lead, keep, Class::Pem);
    true
}

/// R13: 64 bytes in base64 are the key of a storage account or of Cosmos DB.
pub(super) fn azure(scan: &mut Scan<'_>) {
    /// Letters before the padding.
    const LETTERS: usize = 86;
    let is_base64 = |b: &u8| bytes::BASE64_LETTERS.has(*b);
    let body = scan.body;
    // Not the padding of anything shorter.
    for found in PADDING.find_iter(scan.rest(body + LETTERS)) {
        let start = body + found;
        let end = start + LETTERS;
        let letters = scan.slice(start, end);
        // `sha512-…`, the digest of a package, is as long.
        let digest = scan.slice(start.saturating_sub(7), start).eq_ignore_ascii_case(b"sha512-");
        let longer = scan.before(start).is_some_and(|b| is_base64(&b)) && start > body;
        // `\n` of a string around.
        let escape = start >= body + 2
            && matches!(scan.before(start), Some(b'n' | b'r' | b't'))
            && scan.before(start - 1) == Some(b'\\');
        let longer = longer && !escape;
        if letters.iter().all(is_base64)
            && !digest
            && !longer
            && letters.iter().any(u8::is_ascii_uppercase)
            && letters.iter().any(u8::is_ascii_lowercase)
        {
            scan.add(start, end + 2, Class::AzureKey);
        }
    }
}

/// R16: an Entra client secret has `7Q~` or `8Q~` after three characters and 40 in all.
pub(super) fn entra(scan: &mut Scan<'_>) {
    let text = scan.text;
    let is_secret = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'.' | b'-');
    for tilde in memchr::memchr_iter(b'~', text) {
        if scan.before(tilde) != Some(b'Q') || tilde < 5 {
            continue;
        }
        let start = tilde - 5;
        let head = scan.slice(start, tilde - 1);
        let version = scan.before(tilde - 1).is_some_and(|b| b.is_ascii_digit());
        let tail = scan.run(tilde + 1, 40, is_secret);
        if version && head.iter().all(is_secret) && (31..=37).contains(&tail) {
            let tail = if scan.before(tilde + 1 + tail) == Some(b'.') { tail - 1 } else { tail };
            scan.add(start, tilde + 1 + tail, Class::Entra);
        }
    }
}
