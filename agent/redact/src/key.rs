//! Is the key around a stem one whose value has to go?
//!
//! `passwordPolicy`, `tokenizer`, `secretName` and `token_count` contain a stem and hold nothing
//! secret; `db.passwordOld`, `X-Auth-Token2` and `SECRET_KEY_BASE` do. What follows the stem decides:
//! a word of `words::HARMLESS` at the end of the key clears it, any other word that is set apart does not.

use super::Class;
use super::bytes;
use super::scan::Scan;
use super::stems::Rule;
use super::words::{BEFORE_KEY, BEFORE_PASS, HARMLESS, JOINED, NO_KEY, NO_PASS, NO_TOKEN};

/// Longest key that is looked at, bytes to each side of the stem.
const REACH: usize = 96;

/// A key of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) class: Class,
    pub(super) strength: Strength,
    /// `tokens`, `secrets`: a bare number after it is a count.
    pub(super) plural: bool,
}

/// How much a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    /// The value goes, whatever it looks like.
    Sure,
    /// The value goes when it looks random.
    Weak,
}

/// Reads the key around the stem at `start..end`.
pub(super) fn around(scan: &Scan<'_>, rule: Rule, start: usize, end: usize) -> Option<Key> {
    let (key_start, key_end) = extent(scan, start, end);
    let before = scan.slice(key_start, start);
    let after = scan.slice(end, key_end);
    let stem = scan.slice(start, end);
    let key =
        |class, strength, plural| Key { start: key_start, end: key_end, class, strength, plural };

    let tail = Tail::of(stem, after);
    if scan.at(key_end) == Some(b' ') && is_logger(scan, key_start, key_end) {
        return None;
    }
    match rule {
        Rule::Pass => {
            // `requirepass` and `bindpass`, but not `bypass`.
            let word = before.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
            if !starts_word(scan, start) && NO_PASS.has(word) {
                return None;
            }
            let rest = match &*tail.folded {
                f if f.starts_with(b"wor")
                    || f.starts_with(b"phrase")
                    || f.starts_with(b"code")
                    || f.starts_with(b"wd")
                    || f == b"w" =>
                {
                    let cut = [&b"word"[..], b"wort", b"phrase", b"code", b"wd", b"w"];
                    cut.iter().find_map(|word| f.strip_prefix(*word))?
                }
                f => f,
            };
            let joined_rest = rest.len() == tail.folded.len();
            let plural = rest == b"s";
            let clear =
                if joined_rest { tail.clears() } else { Tail::clears_rest(after, rest, stem) };
            (!clear).then_some(key(Class::Password, Strength::Sure, plural))
        }
        Rule::Pwd | Rule::Password => {
            // `pwd` is also a directory: `PWD=/srv`, `OLDPWD=`.
            if rule == Rule::Pwd
                && (!starts_word(scan, start) && !BEFORE_PASS.ends(&fold::<24>(before), 2))
            {
                return None;
            }
            (!tail.clears()).then_some(key(Class::Password, Strength::Sure, tail.plural()))
        }
        Rule::ShortPassword => {
            // `pod-7l5pw:` is no key.
            let digit = scan.before(start).is_some_and(|b| b.is_ascii_digit());
            let named = key_end == end
                && !digit
                && (starts_word(scan, start) || BEFORE_PASS.ends(&fold::<24>(before), 2));
            named.then_some(key(Class::Password, Strength::Sure, false))
        }
        // Components of Kubernetes, which are called after what they look after.
        Rule::Secret
            if [&b"external-secrets"[..], b"sealed-secrets"]
                .contains(&scan.slice(key_start, key_end)) =>
        {
            None
        }
        Rule::Secret => {
            (!tail.clears()).then_some(key(Class::Secret, Strength::Sure, tail.plural()))
        }
        Rule::Credential => (!tail.clears() && !tail.is(b"id")).then_some(key(
            Class::Secret,
            Strength::Sure,
            tail.plural(),
        )),
        // It names an assembly of .NET: eight bytes of a hash.
        Rule::Token
            if before.ends_with(b"PublicKey")
                && scan.at(key_end) == Some(b'=')
                && scan.run(key_end + 1, 17, u8::is_ascii_hexdigit) == 16 =>
        {
            None
        }
        // `batchToken` says where to go on; `BATCH_TOKEN` is a variable of a job.
        Rule::Token
            if NO_TOKEN.ends(&fold::<24>(before), 4)
                && !(fold::<24>(before).ends_with(b"batch")
                    && before.ends_with(b"_")
                    && before.iter().all(|b| !b.is_ascii_lowercase())) =>
        {
            None
        }
        Rule::Token => (!tail.clears() && !tail.is(b"id")).then_some(key(
            Class::Token,
            Strength::Sure,
            tail.plural(),
        )),
        Rule::Key => {
            if tail.clears() || tail.is(b"id") {
                return None;
            }
            let folded = fold::<24>(before);
            if folded.ends_with(b"account") || folded.ends_with(b"sharedaccess") {
                return Some(key(Class::AzureKey, Strength::Sure, tail.plural()));
            }
            // What both sides of a tunnel or of a wireless network know.
            if folded.ends_with(b"preshared") {
                return Some(key(Class::Password, Strength::Sure, false));
            }
            if folded.ends_with(b"public") || folded.ends_with(b"mon") || folded.ends_with(b"don") {
                return None;
            }
            if BEFORE_KEY.ends(&folded, 2) {
                return Some(key(Class::Key, Strength::Sure, tail.plural()));
            }
            // PagerDuty's; elsewhere it is where a message goes.
            if folded.ends_with(b"routing") || folded.ends_with(b"machine") {
                return Some(key(Class::Key, Strength::Weak, false));
            }
            if NO_KEY.ends(&folded, 3) {
                return None;
            }
            starts_word(scan, start).then_some(key(Class::Entropy, Strength::Weak, false))
        }
        Rule::Pin => {
            let whole = starts_word(scan, start) && !before.ends_with(b"-");
            (whole && !tail.clears()).then_some(key(Class::Password, Strength::Sure, false))
        }
        Rule::Signature => {
            if tail.clears() {
                return None;
            }
            let azure = fold::<24>(before).ends_with(b"sharedaccess");
            let class = if azure { Class::AzureKey } else { Class::Signature };
            let strength = if azure { Strength::Sure } else { Strength::Weak };
            Some(key(class, strength, false))
        }
        Rule::Session => {
            // Names of session cookies; `sessionId` and `session_id` may also be plain identifiers.
            let whole = scan.slice(key_start, key_end);
            let shouted = whole.iter().all(|b| !b.is_ascii_lowercase());
            let last = whole.strip_prefix(b"cookie_").unwrap_or(whole);
            // `JSESSIONID.node1=`: the node that holds the session.
            let node =
                last.iter().position(|&b| b == b'.').filter(|_| !last.starts_with(b"connect"));
            let shouted = shouted
                || node.is_some_and(|dot| {
                    last.get(..dot).is_some_and(|name| name.iter().all(|b| !b.is_ascii_lowercase()))
                });
            let cookie = shouted
                || last.len() < whole.len() && last.iter().all(|b| !b.is_ascii_lowercase())
                || [
                    &b"sessionid"[..],
                    b"xasid",
                    b"connect.sid",
                    b"xassessionid",
                    b"jsessionid",
                    b"phpsessid",
                ]
                .contains(&last)
                || whole.ends_with(b"_SessionId");
            (!tail.clears()).then_some(if cookie {
                key(Class::Cookie, Strength::Sure, false)
            } else {
                key(Class::Entropy, Strength::Weak, false)
            })
        }
        // `apiSchluessel`, `cle_api`: what it opens stands beside the word.
        Rule::ForeignKey if opens(before, after) || opens(stem, b"") => ((starts_word(
            scan, start,
        ) || is_compound(stem))
            && !tail.clears())
        .then_some(key(Class::Key, Strength::Sure, false)),
        // `Sessiesleutel`, `Sitzungsschlüssel`: the last part of a word that two languages write as one.
        _ => ((starts_word(scan, start) || is_compound(stem)) && !tail.clears()).then_some(key(
            Class::Entropy,
            Strength::Weak,
            false,
        )),
    }
}

/// Whether a part of the name beside a word for a key says that the key lets its bearer in.
fn opens(before: &[u8], after: &[u8]) -> bool {
    const PARTS: &[&[u8]] = &[
        b"api", b"acces", b"toegang", b"zugriff", b"zugang", b"licen", b"lizenz", b"krypt",
        b"crypt", b"crift", b"secret", b"geheim", b"privat", b"client", b"dienst", b"master",
        b"acceso",
    ];
    [before, after].iter().any(|side| {
        let side = side.to_ascii_lowercase();
        PARTS.iter().any(|part| memchr::memmem::find(&side, part).is_some())
    })
}

/// Words for a key that end longer ones.
fn is_compound(stem: &[u8]) -> bool {
    ["sleutel", "schluessel", "schlüssel", "nyckel", "otp"]
        .iter()
        .any(|word| stem.eq_ignore_ascii_case(word.as_bytes()))
}

/// `INFO com.azure.identity.ClientSecretCredential : …`: a class that logs under its own name.
fn is_logger(scan: &Scan<'_>, start: usize, end: usize) -> bool {
    const LEVELS: &[&[u8]] = &[b"INFO", b"DEBUG", b"TRACE", b"WARN", b"ERROR"];
    let name = scan.slice(start, end);
    let class = name.rsplit(|&b| b == b'.').next().unwrap_or_default();
    let package = name.get(..name.len() - class.len()).unwrap_or_default();
    let named = package.iter().filter(|&&b| b == b'.').count() >= 2
        && package.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'.')
        && class.first().is_some_and(u8::is_ascii_uppercase)
        && (class.ends_with(b"Credential") || class.ends_with(b"Credentials"));
    if !named || scan.at(scan.skip_space(end)) == Some(b'=') {
        return false;
    }
    let before = scan.slice(start.saturating_sub(160).max(scan.body.min(start)), start);
    LEVELS.iter().any(|level| memchr::memmem::find(before, level).is_some())
}

/// `signing key`, `machine key`: the word before a bare `key` says which.
pub(super) fn is_named(scan: &Scan<'_>, key: &Key) -> bool {
    const WORDS: &[&[u8]] = &[
        b"encryption",
        b"decryption",
        b"signing",
        b"api",
        b"secret",
        b"machine",
        b"hmac",
        b"master",
        b"wrapping",
        b"shared",
        b"private",
        b"access",
        b"licence",
        b"license",
        b"webhook",
        b"unseal",
        b"aes",
        b"subscription",
        b"server",
        b"auth",
        b"deploy",
        b"client",
        b"write",
        b"ingest",
        b"storage",
        b"account",
        b"session",
        b"activation",
        b"registration",
        b"recovery",
        b"ingestion",
        b"enrollment",
        b"enrolment",
        b"join",
        b"integration",
        b"sdk",
        b"function",
        b"product",
        b"pairing",
        b"provisioning",
        b"device",
        b"app",
        b"application",
        b"bearer",
        b"admin",
        b"root",
        b"jwt",
        b"fernet",
        b"gossip",
        b"setup",
        b"host",
        b"security",
        b"backup",
        b"wireguard",
        b"certificate",
        b"feed",
        b"publish",
        b"subscribe",
        b"instrumentation",
        b"key",
    ];
    if key.class != Class::Entropy || !scan.slice(key.start, key.end).eq_ignore_ascii_case(b"key") {
        return false;
    }
    let before = scan.slice(key.start.saturating_sub(16).max(scan.body.min(key.start)), key.start);
    let Some(before) = before.strip_suffix(b" ") else { return false };
    let word = before.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// `Decryption failed with key=`: the sentence before a bare `key` says what it is for.
pub(super) fn is_for_ciphers(scan: &Scan<'_>, key: &Key) -> bool {
    const NEAR: usize = 40;
    const WORDS: &[&[u8]] = &[b"crypt", b"cipher", b"hmac", b"unseal", b"aes-", b"aes "];
    if key.class != Class::Entropy || !scan.slice(key.start, key.end).eq_ignore_ascii_case(b"key") {
        return false;
    }
    let floor = key.start.saturating_sub(NEAR).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start).to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&before, word).is_some())
}

/// First and last byte of the key that holds `start..end`.
pub(super) fn extent(scan: &Scan<'_>, start: usize, end: usize) -> (usize, usize) {
    let is_key = |b: &u8| bytes::KEY.has(*b);
    let floor = start.saturating_sub(REACH).max(scan.body.min(start));
    let left = scan.slice(floor, start).iter().rev().take_while(|b| is_key(b)).count();
    let right = scan.run(end, REACH, is_key);
    // Dots in a row divide a name from its value.
    let dots = scan.slice(end, end + right).windows(2).position(|pair| pair == b"..");
    let right = dots.unwrap_or(right);
    let mut key_end = end + right;
    // A full stop or dash at the end belongs to the sentence.
    while key_end > end && matches!(scan.before(key_end), Some(b'.' | b'-')) {
        key_end -= 1;
    }
    let mut key_start = start - left;
    while key_start < start && matches!(scan.at(key_start), Some(b'.' | b'-')) {
        key_start += 1;
    }
    // `\npassword`: the letter is part of an escape.
    if key_start < start
        && scan.before(key_start) == Some(b'\\')
        && matches!(scan.at(key_start), Some(b'n' | b't' | b'r'))
    {
        key_start += 1;
    }
    (key_start, key_end)
}

/// Whether a word begins at `start`: after a sign or digit, at a capital after a small letter, or
/// after an escape such as `\n`.
pub(super) fn starts_word(scan: &Scan<'_>, start: usize) -> bool {
    let Some(before) = scan.before(start) else { return true };
    if start == scan.body || !before.is_ascii_alphabetic() {
        return true;
    }
    let here = scan.at(start).unwrap_or(b' ');
    if before.is_ascii_lowercase() && here.is_ascii_uppercase() {
        return true;
    }
    // `DBPass`: capitals, then a word.
    let next = scan.at(start + 1).unwrap_or(b' ');
    if before.is_ascii_uppercase() && here.is_ascii_uppercase() && next.is_ascii_lowercase() {
        return true;
    }
    matches!(before, b'n' | b't' | b'r') && start >= 2 && scan.before(start - 1) == Some(b'\\')
}

/// Letters of a key or of a part of it, in a place of their own: keys are read far too often to ask
/// for memory.
struct Letters {
    bytes: [u8; REACH],
    len: usize,
}

impl Letters {
    /// The first [`REACH`] of `letters`, in lower case.
    fn of<'b>(letters: impl Iterator<Item = &'b u8>) -> Self {
        let mut folded = Self { bytes: [0; REACH], len: 0 };
        for (room, letter) in folded.bytes.iter_mut().zip(letters) {
            *room = letter.to_ascii_lowercase();
            folded.len += 1;
        }
        folded
    }
}

impl std::ops::Deref for Letters {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Letters and digits of the last `N` bytes of `text`, in lower case.
fn fold<const N: usize>(text: &[u8]) -> Letters {
    let from = text.len().saturating_sub(N);
    let tail = text.get(from..).unwrap_or_default();
    Letters::of(tail.iter().filter(|b| b.is_ascii_alphanumeric()))
}

/// What follows a stem inside its key.
struct Tail<'a> {
    /// Lower-case letters only.
    folded: Letters,
    /// The last word of them, as capitals and separators divide it.
    last: &'a [u8],
    /// The same word goes on: `tokenizer`, not `tokenName`.
    joined: bool,
}

impl<'a> Tail<'a> {
    fn of(stem: &[u8], after: &'a [u8]) -> Self {
        let folded = Letters::of(after.iter().filter(|b| b.is_ascii_alphabetic()));
        let joined = match (stem.last(), after.first()) {
            (Some(last), Some(first)) if first.is_ascii_alphabetic() => {
                !(last.is_ascii_lowercase() && first.is_ascii_uppercase())
            }
            _ => false,
        };
        let word = after.rsplit(|b| !b.is_ascii_alphabetic()).find(|word| !word.is_empty());
        let word = word.unwrap_or_default();
        // All capitals: one word up to the separator. Otherwise a capital begins one.
        let shouted = after.iter().all(|b| !b.is_ascii_lowercase());
        let begin =
            word.iter().take(word.len().saturating_sub(1)).rposition(u8::is_ascii_uppercase);
        let last = if shouted { word } else { word.get(begin.unwrap_or(0)..).unwrap_or_default() };
        Self { folded, last, joined }
    }

    fn is(&self, word: &[u8]) -> bool {
        *self.folded == *word
    }

    fn plural(&self) -> bool {
        self.is(b"s")
    }

    /// The key holds no secret after all.
    fn clears(&self) -> bool {
        if self.folded.is_empty() {
            return false;
        }
        // Short words only when they stand alone: `…Ref`, but not the end of another word.
        if HARMLESS.has(self.last) || HARMLESS.ends(&self.folded, 4) {
            return true;
        }
        self.joined && !JOINED.begins(&self.folded)
    }

    /// As [`Tail::clears`], after `pass` took `word`, `phrase` … of what follows.
    fn clears_rest(after: &[u8], rest: &[u8], stem: &[u8]) -> bool {
        let letters = rest.len();
        // The last `letters` letters of `after` are `rest`.
        let mut left = letters;
        let cut = after
            .iter()
            .rposition(|b| {
                if b.is_ascii_alphabetic() {
                    if left == 0 {
                        return true;
                    }
                    left -= 1;
                }
                false
            })
            .map_or(0, |at| at + 1);
        let (word, tail) = after.split_at_checked(cut).unwrap_or((after, b""));
        Tail::of(if word.is_empty() { stem } else { word }, tail).clears()
    }
}
