//! The rule of last resort for loose text: near a word for a credential goes what is neither a word nor
//! harmless, whatever stands between the two (R01, R02, R10, R41). Other rules know how values are told;
//! this one knows what else is in sentences, and is asked when none of the others took anything.
//!
//! Near is: in the same string, up to [`AFTER`] after the word or [`BEFORE`] before it. The first that
//! fits after the word goes, or else the nearest before it. What is harmless, `shape` says; and what the
//! word before it says it is: a user, a host, an id.
//!
//! Where a placeholder stands that near nothing is taken: the value is gone already.

mod shape;
mod words;

pub(super) use self::shape::is_harmless;
use self::shape::{is_choice, is_choice_for_secret, is_key_material, is_told_choice};
pub(super) use self::shape::{is_class, is_scrawl, is_seed};
use self::words::{CIPHERS, HARMLESS_KEYS, KEYS, NAMES, TELLS};
use super::Class;
use super::judge::is_constants;
use super::key::{self, Key, Strength};
use super::made_up::is_uuid;
use super::placeholder;
use super::scan::Scan;
use super::several;
use super::value::Value;

/// How far away a value may be: most words, most bytes.
const AFTER: (usize, usize) = (14, 160);
const BEFORE: (usize, usize) = (9, 112);
/// Longest value, bytes.
const LONGEST: usize = 512;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What people choose.
    Password,
    /// What generators make.
    Material {
        /// Hexadecimal digits as well.
        hex: bool,
        /// Base32 without a digit as well.
        seed: bool,
        /// What people choose as well.
        chosen: bool,
    },
    /// Of a Mendix app: anything.
    Constant,
}

impl Kind {
    fn of(scan: &Scan<'_>, key: &Key) -> Self {
        let name = scan.slice(key.start, key.end);
        if is_constants(scan, key) {
            return Self::Constant;
        }
        if key.class == Class::Password || is_credentials(name) {
            return Self::Password;
        }
        let says = |words: &str, before: usize, after: usize| {
            let floor = key.start.saturating_sub(before).max(scan.body.min(key.start));
            let near = String::from_utf8_lossy(scan.slice(floor, key.end + after)).to_lowercase();
            words.split(' ').any(|word| near.contains(word))
        };
        Self::Material {
            hex: key.strength == Strength::Sure
                || key.class == Class::Signature
                || says(CIPHERS, 48, 64)
                || is_key(name) && !says(HARMLESS_KEYS, 48, 64),
            seed: says("otp 2fa mfa authenticator", 16, 0),
            chosen: key.class == Class::Secret || says("shared", 12, 0),
        }
    }

    /// Whether `word` says that what follows is something else.
    fn named(self, word: &[u8]) -> bool {
        NAMES.has(word) && (self == Self::Password || !matches!(word, b"by" | b"on"))
    }

    /// Whether `text` is it; `told` by the word before.
    fn fits(self, text: &[u8], told: bool) -> bool {
        match self {
            Self::Password => is_choice(text) || told && is_told_choice(text),
            Self::Material { hex, seed, chosen } => {
                is_key_material(text, hex)
                    || seed && is_seed(text)
                    || told && hex && is_uuid(text)
                    || chosen && is_choice_for_secret(text)
            }
            Self::Constant => is_choice(text) || is_key_material(text, true) || is_uuid(text),
        }
    }
}

/// Whether `text`, alone in a line below its name, is the value.
pub(super) fn stands_below(class: Class, text: &[u8]) -> bool {
    let fits = if class == Class::Password {
        is_choice(text) || is_told_choice(text)
    } else {
        is_key_material(text, true)
    };
    fits && !text.iter().any(|b| b.is_ascii_whitespace())
}

/// Takes what stands near `key`, if anything does. Says whether.
pub(super) fn take(scan: &mut Scan<'_>, key: &Key) -> bool {
    if !is_word_of_sentence(scan, key) || is_gone_near(scan, key) {
        return false;
    }
    let kind = Kind::of(scan, key);
    let later = if ends_string(scan, key) { None } else { after(scan, key, kind) };
    let Some(value) = later.or_else(|| before(scan, key, kind)) else { return false };
    if later.is_some() {
        several::accept(scan, key, value);
    } else {
        scan.add(value.start, value.end, key.class);
    }
    true
}

/// `logged in with bob / x`, `x is the login`, `unlocking the vault with x`: what lets somebody in.
pub(super) fn at_entry(scan: &mut Scan<'_>, start: usize, end: usize) {
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    if start >= scan.done && !inside && !scan.in_placeholder(start) {
        // The blank at its end belongs to the sentence.
        let end = end - usize::from(scan.before(end) == Some(b' '));
        let (class, strength) = (Class::Password, Strength::Sure);
        take(scan, &Key { start, end, class, strength, plural: false });
    }
}

/// Whether `key` is a word of running text: no flag, no member, no part of a path or of code.
fn is_word_of_sentence(scan: &Scan<'_>, key: &Key) -> bool {
    let known = matches!(
        key.class,
        Class::Password
            | Class::Secret
            | Class::Token
            | Class::Key
            | Class::Signature
            | Class::Entropy
    );
    let name = scan.slice(key.start, key.end);
    let before = scan.before(key.start).filter(|_| key.start > scan.body);
    let code = matches!(before, Some(b'-' | b'/' | b'$' | b'<' | b'&' | b'?' | b'@' | b'.' | b'='))
        && !scan.slice(key.start.saturating_sub(5), key.start).eq_ignore_ascii_case(b"name/");
    // A member of an object, or a name and its value.
    let signed = matches!(scan.at(key.end), Some(b'=' | b'(' | b'.' | b'/' | b'"' | b'\\' | b'['))
        && scan.skip_space(key.end + 1) < scan.text_end
        && !ends_string(scan, key);
    // `get('db.password') returned x`, `DB_PASSWORD you supplied, x`
    let called = scan.slice(key.end, key.end + 3).contains(&b')');
    let shouted = !name.iter().any(u8::is_ascii_lowercase);
    let named = (name.contains(&b'.') || shouted && name.contains(&b'_'))
        && !called
        && !is_constants(scan, key);
    let many = key.plural
        && !matches!(key.class, Class::Password | Class::Signature)
        && !is_credentials(name);
    known && !code && !signed && !named && !many
}

/// `… - invalid password","n":1}`: the last word of a string of several.
fn ends_string(scan: &Scan<'_>, key: &Key) -> bool {
    let signs = scan.run(key.end, 16, |b| b"\"\\".contains(b));
    signs > 0
        && scan.before(key.start) == Some(b' ')
        && matches!(scan.at(key.end + signs), Some(b',' | b'}'))
}

/// `key`, `clé`: words for a key in the languages of the rules.
fn is_key(name: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(name).to_lowercase();
    KEYS.split(' ').any(|end| lower.ends_with(end))
}

/// `credentials`: a name and a password.
fn is_credentials(name: &[u8]) -> bool {
    name.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"cred"))
}

/// Whether what stands near was taken before: text that was redacted once passes unchanged.
pub(super) fn is_gone_near(scan: &Scan<'_>, key: &Key) -> bool {
    let floor = key.start.saturating_sub(AFTER.1).max(scan.body.min(key.start));
    scan.own && placeholder::is_in(scan.slice(floor, key.end + AFTER.1))
}

/// Signs around a value that are none of it.
fn is_opening(b: &u8) -> bool {
    b"\"'`<[({\\*|".contains(b)
}

fn is_closing(b: &u8) -> bool {
    b"\"'`>])}\\*|.,;:".contains(b)
}

/// What was read of a word.
struct Token<'a> {
    /// Where its core begins in the text.
    start: usize,
    core: &'a [u8],
    /// A string ended in it.
    closes: bool,
    /// A sign after it says that it is the name of something.
    names: bool,
    /// What it is was said in it: `HEX:x`.
    labelled: bool,
}

/// The word at `from`, without the signs around it.
fn token<'a>(scan: &Scan<'a>, from: usize, word: &'a [u8]) -> Token<'a> {
    const LABELS: &[&[u8]] =
        &[b"hex", b"base64", b"b64", b"ascii", b"raw", b"value", b"val", b"x", b"is", b"pw"];
    let lead = word.iter().take_while(|b| is_opening(b)).count();
    let body = word.get(lead..).unwrap_or_default();
    let opened = word.iter().take(lead).any(|&b| b == b'"');
    let quote = body.iter().position(|&b| b == b'"');
    let inside = body.get(..quote.unwrap_or(body.len())).unwrap_or_default();
    let tail = inside.iter().rev().take_while(|b| is_closing(b)).count();
    let core = inside.get(..inside.len() - tail).unwrap_or_default();
    let rest = body.get(core.len()..).unwrap_or_default();
    let label = core.iter().position(|b| b":=".contains(b)).filter(|&sign| {
        let name = core.get(..sign).unwrap_or_default();
        LABELS.iter().any(|label| name.eq_ignore_ascii_case(label))
    });
    let skip = label.map_or(0, |sign| sign + 1);
    Token {
        start: from + lead + skip,
        core: core.get(skip..).unwrap_or_default(),
        closes: quote.is_some_and(|quote| !opened || quote + 3 < body.len()),
        names: rest.first() == Some(&b':') || scan.at(from + word.len() + 1) == Some(b'='),
        labelled: label.is_some(),
    }
}

/// The value in `token`, if it fits; of `bob:x` and `bob/x@db` the password.
fn value_in(kind: Kind, token: &Token<'_>, told: bool) -> Option<Value> {
    let found = |skip: usize, len: usize| {
        let (start, end) = (token.start + skip, token.start + skip + len);
        Value { start, end, next: end, quoted: false }
    };
    if kind.fits(token.core, told) {
        return Some(found(0, token.core.len()));
    }
    let user = |b: &&u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let name = token.core.iter().take_while(user).count();
    let rest = token.core.get(name + 1..)?;
    let signed = matches!(token.core.get(name), Some(b':' | b'/'));
    let named = token.core.first().is_some_and(u8::is_ascii_lowercase);
    if kind != Kind::Password || !signed || !named || rest.first() == Some(&b'/') {
        return None;
    }
    let host = memchr::memrchr(b'@', rest).filter(|_| token.core.get(name) == Some(&b'/'));
    let password = rest.get(..host.unwrap_or(rest.len()))?;
    is_choice(password).then(|| found(name + 1, password.len()))
}

/// The first value after `key` that fits.
fn after(scan: &Scan<'_>, key: &Key, kind: Kind) -> Option<Value> {
    let mut at = key.end + scan.run(key.end, 4, |b| !b.is_ascii_whitespace() && is_closing(b));
    let end = key.end + AFTER.1;
    // `Unknown API key "x"`
    let own = matches!(key.class, Class::Token | Class::Secret | Class::Key) && !key.plural;
    let (mut named, mut told) = (false, own || key::is_named(scan, key));
    for _ in 0..AFTER.0 {
        let from = scan.skip_space(at);
        let len = scan.run(from, LONGEST, |b| !b.is_ascii_whitespace());
        if len == 0 || from >= end {
            return None;
        }
        scan.spend(len);
        let word = scan.text.get(from..from + len)?;
        let token = token(scan, from, word);
        let value = || value_in(kind, &token, told).filter(|_| !named || token.labelled);
        if !token.names
            && let Some(value) = value()
        {
            return Some(value);
        }
        if token.closes || word.contains(&b'{') {
            return None;
        }
        if !token.core.is_empty() {
            named = kind.named(token.core);
            told = word.ends_with(b":") || TELLS.has(token.core);
        }
        at = from + len;
    }
    None
}

/// The nearest value before `key` that fits.
fn before(scan: &Scan<'_>, key: &Key, kind: Kind) -> Option<Value> {
    let floor = key.start.saturating_sub(BEFORE.1).max(scan.body.min(key.start));
    let text = scan.text.get(floor..key.start)?;
    scan.spend(text.len());
    let mut end = text.len();
    // `x - that is the new password`: one word before a dash.
    let mut dash = false;
    for _ in 0..BEFORE.0 {
        end = text.get(..end)?.trim_ascii_end().len();
        let head = text.get(..end)?;
        let start = memchr::memrchr(b' ', head).map_or(0, |space| space + 1);
        let word = head.get(start..)?;
        // What the floor cut is no whole word. Before a lone sign, a colon or in brackets stands who says it.
        let cut_off = start == 0 && floor > scan.body;
        if matches!(word, b"-" | b"\xe2\x80\x93") && !dash && key.class == Class::Password {
            (dash, end) = (true, start);
            continue;
        }
        let speaks = matches!(word, b"-" | b"--" | b"---" | b":" | b"|");
        // `bash-5.1$ passwd`, `[bob@ctl01 payments]$ passwd`
        let prompt = matches!(word, [.., b']' | b'~' | b'/', b'$' | b'#'])
            || floor + start == scan.body && matches!(word.last(), Some(b'$' | b'#' | b'>'));
        let speaks = speaks || prompt || word.ends_with(b"]");
        if word.is_empty() || cut_off || speaks || word.contains(&b'}') {
            return None;
        }
        // In JSON the first word of a string follows its quote.
        let tail = word.iter().rev().take_while(|b| is_closing(b)).count();
        let inner = word.get(..word.len() - tail)?;
        let cut = memchr::memrchr(b'"', inner).map_or(0, |quote| quote + 1);
        let token = token(scan, floor + start + cut, word.get(cut..)?);
        let lead = head.get(..start)?.trim_ascii_end();
        let said = lead.rsplit(|&b| b == b' ').next().unwrap_or_default();
        let named = cut == 0 && kind.named(said) && !token.labelled;
        // Loggers stand before a dash, too.
        let logger = dash && !token.core.iter().any(|b| b.is_ascii_digit() || b"!#$*".contains(b));
        if !token.names
            && !named
            && !logger
            && let Some(value) = value_in(kind, &token, false)
        {
            return Some(value);
        }
        if cut > 1 || dash || word.ends_with(b":") {
            return None;
        }
        end = start;
    }
    None
}
