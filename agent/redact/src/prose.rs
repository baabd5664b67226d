//! Keys and values with no sign between them: flags and sentences (R09, R10, R41).

mod before;
mod introduced;
mod told;
mod usage;

pub(super) use self::before::{
    random_before, said_before, session_before, stated_before, valued_before,
};
pub(super) use self::introduced::{at_attempt, introduced, valued_after};
use self::told::{is_auxiliary, is_changed, is_copula, is_foreign_copula, told};
use self::usage::{begins_pair, is_usage};
use super::Class;
use super::judge::{is_field, is_hex_secret, is_value};
use super::key::{self, Key, Strength};
use super::made_up::{is_jumbled, is_made_up, is_product, is_random_word, is_uuid};
use super::near;
use super::phrase::{is_chosen, is_jagged};
use super::scan::Scan;
use super::several;
use super::value::{self, Reach, Value};

/// Longest word of a sentence, bytes.
const WORD: usize = 512;

/// Whether `key` is a flag: `--password`, `-password`.
pub(super) fn is_flag(scan: &Scan<'_>, key: &Key) -> bool {
    let before = scan.slice(key.start.saturating_sub(2).max(scan.body.min(key.start)), key.start);
    let Some((b'-', before)) = before.split_last() else { return false };
    before.last().is_none_or(|b| matches!(b, b'-' | b' ' | b'"' | b'\'' | b'[' | b'\t'))
}

/// `--password x`, `["--password","x"]`, and sentences.
pub(super) fn flag_or_prose(
    scan: &mut Scan<'_>,
    key: Key,
    at: usize,
    spaced: bool,
    quoted_key: bool,
) {
    if scan.before(key.start) == Some(b'=') && spaced && !quoted_key && begins_pair(scan, at) {
        return;
    }
    if scan.before(key.start) == Some(b'-') {
        let mut from = at;
        let listed = scan.at(at) == Some(b',') && scan.at(at + 1) == Some(b' ');
        if listed && !quoted_key {
            // `[gpg, --passphrase, x, -d]`
            let from = at + 2;
            let len = scan.run(from, 256, |b| !b",]".contains(b));
            let text = scan.slice(from, from + len);
            if text.first() != Some(&b'-') && is_value(scan, &key, text) {
                let end = from + len;
                scan.accept(&key, Value { start: from, end, next: end, quoted: false });
            }
            return;
        }
        // `"--password","x"`; in `{"msg":"… --password","level":"x"}` the string began before.
        let dashes = scan.run_before(key.start, scan.body.min(key.start), |&b| b == b'-');
        let own = matches!(scan.before(key.start - dashes), Some(b'"' | b'\'' | b'`'));
        if scan.starts(key.start, b"no-") {
            return;
        }
        if quoted_key && own && scan.at(at) == Some(b',') {
            from = scan.skip_space(at + 1);
        } else if quoted_key && own && spaced && scan.at(at) == Some(b'a') {
            // `a1="--password" a2="x"`, as the kernel notes the arguments of a command.
            let digits = scan.run(at + 1, 3, u8::is_ascii_digit);
            if digits == 0 || scan.at(at + 1 + digits) != Some(b'=') {
                return;
            }
            from = at + 2 + digits;
        } else if !spaced {
            return;
        }
        let value = value::read(scan, from, Reach::Word);
        let text = scan.slice(value.start, value.end);
        // `--secret dbPassword x`: the flag says what kind of thing is named.
        let name = key.class == Class::Secret
            && is_field(text)
            && text.iter().skip(1).any(|b| b.is_ascii_uppercase() || *b == b'_');
        let usage = !value.quoted && is_usage(scan, &value);
        if text.first() != Some(&b'-') && !name && !usage && is_value(scan, &key, text) {
            scan.accept(&key, value);
        }
    } else if let Some(from) = with_value(scan, at).filter(|_| spaced) {
        let value = value::read(scan, from, Reach::Word);
        if is_value(scan, &key, scan.slice(value.start, value.end)) {
            scan.accept(&key, value);
        } else if !quoted_key {
            prose(scan, &key, at);
        }
    } else if spaced && !quoted_key {
        prose(scan, &key, at);
    } else if spaced && let Some(from) = said_of_name(scan, at) {
        let value = value::read(scan, from, Reach::Word);
        if value.quoted && is_value(scan, &key, scan.slice(value.start, value.end)) {
            scan.accept(&key, value);
        }
    } else if quoted_key && spaced && key.class == Class::Password && introduced(scan, &key, at) {
        // `'password' changed from 'x' to 'y'`
    } else if quoted_key {
        if key.class != Class::Password || !said_before(scan, &key) {
            random_before(scan, &key);
        }
    } else {
        in_apposition(scan, &key, at);
    }
}

/// `'db.password' has been set to 'x'`: where the quoted value begins after the quoted name.
fn said_of_name(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut from = at;
    for _ in 0..5 {
        if from > at && value::quote_at(scan, from).is_some() {
            return Some(from);
        }
        let (word, next) = word_at(scan, from);
        if !(is_auxiliary(word)
            || is_changed(word)
            || matches!(word, b"with" | b"value" | b"value:"))
        {
            return None;
        }
        from = next;
    }
    None
}

/// Where the value begins after `with value `, `value:` and the like.
fn with_value(scan: &Scan<'_>, at: usize) -> Option<usize> {
    let mut at = at;
    for lead in [&b"with "[..], b"to ", b"has ", b"the "] {
        if scan.slice(at, at + lead.len()).eq_ignore_ascii_case(lead) {
            at = scan.skip_space(at + lead.len());
        }
    }
    if !scan.slice(at, at + 5).eq_ignore_ascii_case(b"value") {
        return None;
    }
    at += 5;
    if matches!(scan.at(at), Some(b':' | b'=')) {
        at += 1;
    }
    let from = scan.skip_space(at);
    (from > at && from < scan.text.len()).then_some(from)
}

/// The word at `from`, and where the next one begins.
fn word_at<'a>(scan: &Scan<'a>, from: usize) -> (&'a [u8], usize) {
    let len = scan.run(from, WORD, |b| !b.is_ascii_whitespace());
    // What is cut is no word, and its rest none either.
    if len == WORD {
        return (scan.slice(from, from + len), scan.text.len());
    }
    (scan.slice(from, from + len), scan.skip_space(from + len))
}

/// R10: `password is x`, `password for bob was changed to x`, `with password x`, `password 'x'`; and
/// R41: a random word close to any key.
fn prose(scan: &mut Scan<'_>, key: &Key, at: usize) {
    if key.class == Class::Password && said_before(scan, key) {
        return;
    }
    if let Some(words) = words_of_phrase(scan, key, at) {
        return scan.accept(key, words);
    }
    if let Some(value) = of_router(scan, key, at) {
        return scan.accept(key, value);
    }
    let told = if key.strength == Strength::Weak { None } else { told(scan, key, at) };
    if let Some(from) = told {
        // What Terraform prints instead of a value.
        if scan.starts(from, b"(sensitive value)") || scan.starts(from, b"(known after apply)") {
            return;
        }
        if let Some(words) = words_of_phrase(scan, key, from) {
            return scan.accept(key, words);
        }
        let mut value = value::read(scan, from, Reach::Word);
        // The full stop of the sentence.
        if !value.quoted && scan.before(value.end) == Some(b'.') && value.end - value.start > 3 {
            value.end -= 1;
        }
        if stands_for_itself(scan, key, &value)
            && is_value(scan, key, scan.slice(value.start, value.end))
        {
            let word = scan.slice(value.start, value.end);
            several::accept(scan, key, value);
            // `was lost, I set it to x`: a word may be one of the sentence, and the value yet to come.
            if !value.quoted && word.iter().all(|b| b.is_ascii_lowercase() || *b >= 0x80) {
                near::take(scan, key);
            }
            return;
        }
    }
    let own = matches!(key.class, Class::Password | Class::Secret | Class::Token | Class::Key);
    let named = key::is_named(scan, key) || key::is_for_ciphers(scan, key);
    // `deploy API key 1b4e…`
    let uuid = scan.slice(at, at + 36);
    let ends = !scan.at(at + 36).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'-');
    if named && ends && is_uuid(uuid) {
        return scan.accept(key, Value { start: at, end: at + 36, next: at + 36, quoted: false });
    }
    if (own || named) && introduced(scan, key, at) {
        return;
    }
    random_word(scan, key, at);
}

/// `passphrase is tundra velvet anchor`: words of small letters up to the end of the line, of the string or
/// of the sentence.
pub(super) fn words_of_phrase(scan: &Scan<'_>, key: &Key, from: usize) -> Option<Value> {
    /// Fewest and most words, and longest phrase.
    const WORDS: std::ops::RangeInclusive<usize> = 3..=24;
    const LONGEST: usize = 256;
    let name = scan.slice(key.start, key.end).to_ascii_lowercase();
    if ![&b"phrase"[..], b"mnemonic"].iter().any(|end| name.ends_with(end)) {
        return None;
    }
    let len = scan.run(from, LONGEST, |b| b.is_ascii_lowercase() || *b == b' ');
    let end = from + scan.slice(from, from + len).trim_ascii_end().len();
    // `use passphrase tundra velvet anchor comet then press enter`
    let mut own = 0;
    for word in scan.slice(from, end).split(|&b| b == b' ') {
        if word.len() < 3 || !value::may_be_secret_word(word) {
            break;
        }
        own += word.len() + 1;
    }
    let head = scan.slice(from, (from + own).saturating_sub(1).min(end));
    if from + own < end && head.split(|&b| b == b' ').count() > *WORDS.start() {
        let end = from + head.len();
        return Some(Value { start: from, end, next: end, quoted: false });
    }
    let ends = scan.at(end).is_none_or(|b| b"\"'`\\.,;)".contains(&b));
    let words = || scan.slice(from, end).split(|&b| b == b' ');
    let several = WORDS.contains(&words().count()) && words().all(|word| word.len() >= 3);
    let spoken = words().filter(|word| !value::may_be_secret_word(word)).count() * 2;
    let own = ends && several && spoken < words().count();
    own.then_some(Value { start: from, end, next: end, quoted: false })
}

/// `enable secret x`, `radius-server key 7 x`: a line of the configuration of a router or switch.
fn of_router(scan: &Scan<'_>, key: &Key, at: usize) -> Option<Value> {
    /// From the line's begin to the key.
    const NEAR: usize = 64;
    const WORDS: &[&[u8]] = &[
        b"enable ",
        b"radius",
        b"tacacs",
        b"neighbor ",
        b"crypto ",
        b"set security ",
        b"ntp auth",
    ];
    let lead = scan.slice(key.start.saturating_sub(NEAR).max(scan.body.min(key.start)), key.start);
    // In JSON the line begins after a quote.
    let lead = lead.rsplit(|&b| b == b'"').next().unwrap_or_default().trim_ascii_start();
    if !WORDS.iter().any(|word| lead.starts_with(word)) {
        return None;
    }
    let (word, next) = word_at(scan, at);
    // How it was hidden, or what kind of text it is.
    let kind = word.len() == 1 && word.iter().all(u8::is_ascii_digit);
    let kind = kind || matches!(word, b"ascii-text" | b"hexadecimal" | b"address");
    let mut value = value::read(scan, if kind { next } else { at }, Reach::Word);
    value.end -= usize::from(!value.quoted && scan.before(value.end) == Some(b';'));
    let text = scan.slice(value.start, value.end);
    (is_made_up(text) && !value::is_nothing(text)).then_some(value)
}

/// Whether the key is `secret` and no more.
fn is_bare(scan: &Scan<'_>, key: &Key) -> bool {
    scan.slice(key.start, key.end).eq_ignore_ascii_case(b"secret")
}

/// `the password, x, expires`: in apposition.
fn in_apposition(scan: &mut Scan<'_>, key: &Key, comma: usize) -> bool {
    if scan.at(comma) != Some(b',') || key.strength == Strength::Weak || key.plural {
        return false;
    }
    let from = scan.skip_space(comma + 1);
    let (word, _) = word_at(scan, from);
    // `the password, it is now x`
    let goes_on = [&b"it"[..], b"it's", b"which", b"now", b"namely"].contains(&word);
    if goes_on && key.class == Class::Password {
        return introduced(scan, key, from);
    }
    let Some(text) = word.strip_suffix(b",") else { return false };
    let fits = match key.class {
        // `type=UPDATE_PASSWORD, realmId=acc, …`: one pair after another.
        _ if begins_pair(scan, from) => false,
        Class::Password => is_made_up(text) || is_jagged(text) || is_chosen(text),
        _ => is_random_word(text),
    };
    if from > comma + 1 && fits {
        let end = from + text.len();
        scan.accept(key, Value { start: from, end, next: end, quoted: false });
        return true;
    }
    false
}

/// Whether `value` can be one in a sentence.
fn stands_for_itself(scan: &Scan<'_>, key: &Key, value: &Value) -> bool {
    let text = scan.slice(value.start, value.end);
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    // `Using a password on the command line interface can be insecure.`
    let warning = text == b"insecure"
        && !value.quoted
        && scan.slice(value.start.saturating_sub(7), value.start) == b"can be ";
    if text.len() < 3 || warning || !value::may_be_secret_word(text) {
        return false;
    }
    if key.class != Class::Password {
        return text.len() >= 6 && digits > 0;
    }
    // A word of small letters or a short number inside of a sentence belongs to it.
    let plain = text.iter().all(u8::is_ascii_lowercase) || digits == text.len() && digits < 4;
    let last = scan.slice(value.next, value.next + 2);
    let ends = last.is_empty() || !last.starts_with(b" ") || value.quoted;
    !plain || ends || is_chosen(text)
}

/// `your PIN is 0123`, `one-time code 012345`, `use code 012345`, `unlock PIN for tablet 460 is 650649`: the
/// digits of a code right after its name, or further on after a word that says so.
pub(super) fn at_code(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Most words between.
    const WORDS: usize = 8;
    const LINKS: &[&[u8]] = &[
        b"code",
        b"code:",
        b":",
        b"from",
        b"entered",
        b"entered:",
        b"reset",
        b"set",
        b"the",
        b"received",
        b"received:",
        b"changed",
    ];
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphabetic());
    if start < scan.done || inside && scan.at(start) != Some(b'-') {
        return;
    }
    let asks_only = scan.slice(start, end).eq_ignore_ascii_case(b"enter ");
    let mut from = scan.skip_space(end);
    let mut told = true;
    for _ in 0..WORDS {
        let (word, next) = word_at(scan, from);
        let lead = word.iter().take_while(|b| b"\"'`<([\\".contains(b)).count();
        let body = word.get(lead..).unwrap_or_default();
        let body = body.split(|b| b"\"\\<".contains(b)).next().unwrap_or_default();
        let digits = body.iter().take_while(|b| b.is_ascii_digit()).count();
        let rest = body.get(digits..).unwrap_or_default();
        // `activation pin 08Vk5pmOSLHX4Q3i5ISB`
        if told && !asks_only && is_random_word(body) {
            let start = from + lead;
            scan.add(start, start + body.len(), Class::Password);
            scan.done = scan.done.max(start + body.len());
            return;
        }
        if digits > 0 && told {
            let alone = rest.iter().all(|b| b"\"'`>)]\\.,;!}".contains(b));
            // `enter 012345 to confirm`
            let coded = scan.before(from) == Some(b' ')
                && scan.slice(from.saturating_sub(5), from).eq_ignore_ascii_case(b"code ");
            let asked = coded || !asks_only || digits == 6 && asks(scan, from + lead + digits);
            if (4..=8).contains(&digits) && alone && asked {
                take_code(scan, from + lead, digits, next);
            }
            return;
        }
        let link = is_copula(word) || is_foreign_copula(word) || LINKS.contains(&word);
        // `PIN for tablet 460 is 0123`: what it is for is no code.
        let plain = |b: &u8| b.is_ascii_alphanumeric() || *b >= 0x80 || b"-._@'".contains(b);
        let goes_on =
            !asks_only && !word.is_empty() && word.iter().all(plain) && !word.ends_with(b".");
        let colon = word.ends_with(b":") && !asks_only;
        if !link && !goes_on && !colon {
            return;
        }
        told = link || word.ends_with(b":");
        from = next;
    }
}

/// Takes the digits of a code, and those of another after it: `from 0123 to 4567`.
fn take_code(scan: &mut Scan<'_>, from: usize, digits: usize, next: usize) {
    scan.add(from, from + digits, Class::Password);
    scan.done = scan.done.max(from + digits);
    let (to, after) = word_at(scan, next);
    let digits = scan.run(after, 9, u8::is_ascii_digit);
    let ends = !scan.at(after + digits).is_some_and(|b| b.is_ascii_alphanumeric());
    if to == b"to" && (4..=8).contains(&digits) && ends {
        scan.add(after, after + digits, Class::Password);
    }
}

/// ` to confirm`, ` to log in`
fn asks(scan: &Scan<'_>, at: usize) -> bool {
    const VERBS: &[&[u8]] =
        &[b"confirm", b"verify", b"log", b"sign", b"complete", b"reset", b"proceed", b"continue"];
    let (verb, _) = word_at(scan, at + 4);
    let verb = verb.split(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    scan.starts(at, b" to ") && VERBS.contains(&verb)
}

/// R41: the first words after the key, if one of them is random.
pub(super) fn random_word(scan: &mut Scan<'_>, key: &Key, at: usize) {
    let (words, sure) = (6, key.strength == Strength::Sure);
    let named = key::is_named(scan, key);
    let mut from = at;
    let mut expected = true;
    for _ in 0..words {
        let (word, next) = word_at(scan, from);
        scan.spend(word.len() / 8);
        let lead = word.iter().take_while(|b| b"<[({\"'`\\".contains(b)).count();
        let mut start = from + lead;
        // `key k1=x`
        let name =
            scan.run(start, 40, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if name > 0 && name < 40 && scan.at(start + name) == Some(b'=') {
            start += name + 1;
        }
        let is_text = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_.~-".contains(b);
        let mut len = scan.long_run(start, is_text);
        let whole = len >= 24 && len.is_multiple_of(4);
        while len > 0
            && matches!(scan.before(start + len), Some(b'.' | b'-' | b'/'))
            && !(whole && scan.before(start + len) == Some(b'/'))
            && !(len >= 24 && scan.before(start + len) == Some(b'-'))
        {
            len -= 1;
        }
        let text = scan.slice(start, start + len);
        let hex = (sure || named || is_hex_secret(scan.slice(key.start, key.end), text))
            && !key.plural
            && expected
            && (24..=128).contains(&len)
            && text.iter().all(u8::is_ascii_hexdigit)
            && text.iter().any(u8::is_ascii_digit)
            && text.iter().any(u8::is_ascii_alphabetic);
        let body = text.split(|&b| b == b'=').next().unwrap_or_default();
        let padded = text.len() - body.len() <= 2;
        // Right after the key or `is`, what looks random is no name.
        let looks = value::looks_random(text) || (sure || named) && is_jumbled(text);
        let random = expected && looks && !is_uuid(text) && !is_product(text)
            || is_random_word(text) && !near::is_class(text);
        let plain = padded && !is_path_like(text) && scan.at(start + len) != Some(b':');
        if plain && (hex || random) {
            let end = start + len;
            return several::accept(scan, key, Value { start, end, next: end, quoted: false });
        }
        // A flag has a value of its own.
        let flag = word.starts_with(b"--") && word.get(2).is_some_and(u8::is_ascii_alphabetic);
        if word.is_empty() || flag || matches!(word.last(), Some(b'.' | b';' | b',')) {
            break;
        }
        // `secret (base64) x`
        if expected && word.starts_with(b"(") && word.ends_with(b")") {
            from = next;
            continue;
        }
        expected = matches!(word, b"as" | b"value" | b"(value" | b"material" | b"value:")
            || is_copula(word)
            || is_foreign_copula(word);
        from = next;
    }
    random_before(scan, key);
}

/// A path: base64 may begin with a slash, too.
fn is_path_like(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(64)).unwrap_or_default();
    text.starts_with(b"/") && !(head.len() >= 32 && is_jumbled(head))
}
