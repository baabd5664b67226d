//! Credentials: made-up values of the shapes that their issuers hand out and people choose.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{ALNUM, DIGITS, HEX, LOWER, UPPER, URL_SAFE, length, ordinary};
use crate::fill::Source;
use crate::template::Hand;

/// The value of a generator of credentials, or `None` if there is none of that name.
pub(crate) fn value(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    Some(match name {
        // Passwords, by what the place they stand in can hold.
        "pw" => password(source, "!@#$%^*-_+=.?:/~"),
        "pwq" => spaced(source, "!@#$%^&*()-_+=.?:/~,;'<>[]{}| "),
        "pwsq" => spaced(source, "!@#$%^&*()-_+=.?:/~,;\"<>[]{}| "),
        "pwany" => spaced(source, "!@#$%^&*()-_+=.?:/~,;\"'\\<>[]{}| "),
        "pwcs" => password(source, "!@#$%^*-_+.?:/~()"),
        "pwurl" => url_password(source),
        "pwsafe" => password(source, "-_"),
        "phrase" => {
            let words: Vec<_> = (0..source.random.between(3, 6))
                .map(|_| source.word("pwword").to_lowercase())
                .collect();
            words.join(" ")
        }
        "tok" => token(source),
        "rand" => {
            let n = length(argument, source, (24, 48));
            random_mixed(source, n)
        }
        "hexkey" => {
            let n = length(argument, source, (32, 64));
            source.random.letters(HEX, n)
        }
        "alnumkey" => {
            let n = length(argument, source, (20, 44));
            source.random.letters(ALNUM, n)
        }
        "b64key" => {
            let n = length(argument, source, (18, 64));
            STANDARD.encode(source.random.bytes(n))
        }
        "urlkey" => {
            let n = length(argument, source, (24, 64));
            source.random.letters(URL_SAFE, n)
        }
        "digitkey" => {
            let n = length(argument, source, (6, 8));
            source.random.letters(DIGITS, n)
        }
        "uuidkey" => ordinary::uuid(source),
        "azkey" => STANDARD.encode(source.random.bytes(64)),
        "saskey" => STANDARD.encode(source.random.bytes(32)),
        "entra" => format!(
            "{}{}Q~{}",
            source.random.letters(ALNUM, 3),
            source.random.letters("78", 1),
            source
                .random
                .letters("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~.-", 33)
                + &source.random.letters(ALNUM, 1)
        ),
        "jwt" => jwt(source),
        "jwe" => jwe(source),
        "sajwt" => service_account(source),
        "basic" => {
            let user = source.word("user");
            let password = password(source, "!@#$%^*-_+=.?:/~");
            STANDARD.encode(format!("{user}:{password}"))
        }
        "negotiate" => {
            let n = source.random.between(60, 300);
            format!("YII{}", STANDARD.encode(source.random.bytes(n)))
        }
        "pem" => pem(argument, source),
        "der" => {
            let n = length(argument, source, (300, 1200));
            format!("MII{}", STANDARD.encode([&[0x2b_u8], &source.random.bytes(n)[..]].concat()))
        }
        "akia" => format!(
            "{}{}",
            source.random.pick(&["AKIA", "ASIA"]),
            source.random.letters("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
        ),
        "awssecret" => source
            .random
            .letters("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 40),
        "github" => match source.random.below(4) {
            0 => format!(
                "github_pat_{}_{}",
                source.random.letters(ALNUM, 22),
                source.random.letters(ALNUM, 59)
            ),
            1 => format!("gho_{}", source.random.letters(ALNUM, 36)),
            2 => format!("ghs_{}", source.random.letters(ALNUM, 36)),
            _ => format!("ghp_{}", source.random.letters(ALNUM, 36)),
        },
        "gitlab" => format!(
            "{}{}",
            source.random.pick(&["glpat-", "glrt-", "gldt-"]),
            source.random.letters(URL_SAFE, 20)
        ),
        "slack" => slack(source),
        "npm" => format!("npm_{}", source.random.letters(ALNUM, 36)),
        "saml" => {
            let n = source.random.between(400, 1500);
            format!("PHNhbWxwOlJlc3BvbnNl{}", STANDARD.encode(source.random.bytes(n / 3 * 3)))
        }
        "samlget" => {
            // A deflated message: it begins as raw deflate of XML does.
            let n = source.random.between(200, 600);
            STANDARD.encode([&[0xad_u8, 0x92][..], &source.random.bytes(n)].concat())
        }
        "entracode" => {
            format!("{}.A{}", source.random.pick(&["0", "1"]), source.random.letters(URL_SAFE, 200))
        }
        _ => return None,
    })
}

/// A password as people and generators make them, with symbols only of `symbols`.
pub(super) fn password(source: &mut Source<'_>, symbols: &str) -> String {
    while let Hand::Own(forms) = source.part.hand {
        let text = (forms.candidate)(source, symbols);
        if text.chars().all(|c| c.is_alphanumeric() || symbols.contains(c)) {
            return text;
        }
    }
    // A first and a last character that no reader takes for punctuation around the value.
    let symbol = |source: &mut Source<'_>| source.random.letters(symbols.trim(), 1);
    let word = source.word("pwword");
    let year = source.random.between(1950, 2027);
    match (source.part.hand, source.random.below(9)) {
        (Hand::Development, 0) => format!("{word}{year}!"),
        (Hand::Development, 1) => format!("{word}{}{}", symbol(source), source.random.below(1000)),
        (Hand::Development, 2) => {
            let other = source.word("pwword");
            format!("{word}-{other}-{}", source.random.below(100))
        }
        (Hand::Development, 3) => {
            let n = source.random.between(8, 16);
            edged(source, symbols, n)
        }
        (Hand::Development, 4) => {
            let n = source.random.between(20, 40);
            edged(source, symbols, n)
        }
        (Hand::Development, 5) => source.random.letters(HEX, 32),
        (Hand::Development, 6) => source.random.letters(ALNUM, 16),
        (Hand::Development, 7) => source.word("pwunicode"),
        (Hand::Development, _) => {
            format!("P{}{}", symbol(source), source.random.letters("ssw0rd", 6))
        }
        (Hand::Validation, 0) => leet(&word) + &source.random.below(100).to_string(),
        (Hand::Validation, 1) => source.word("pwwalk"),
        (Hand::Validation, 2) => {
            let n = source.random.between(4, 6);
            source.random.letters(LOWER, n) + &source.random.letters(DIGITS, 2)
        }
        (Hand::Validation, 3) => {
            let n = source.random.between(10, 24);
            edged(source, symbols, n)
        }
        (Hand::Validation, 4) => {
            let n = source.random.between(40, 72);
            source.random.letters(ALNUM, n)
        }
        (Hand::Validation, 5) => {
            let part = |source: &mut Source<'_>| {
                source.random.letters(LOWER, 3) + &source.random.letters(ALNUM, 3)
            };
            format!("{}-{}-{}", part(source), part(source), part(source))
        }
        (Hand::Validation, 6) => {
            source.random.letters(URL_SAFE, 27) + &source.random.letters(ALNUM, 1)
        }
        (Hand::Validation, 7) => source.word("pwunicode"),
        (_, _) => {
            let other = source.word("pwword");
            format!("{}{}{}{other}", word.to_lowercase(), symbol(source), source.random.below(100))
        }
    }
}

/// Mixed characters that begin and end with a letter or digit.
pub(super) fn edged(source: &mut Source<'_>, symbols: &str, n: usize) -> String {
    let inner = format!("{ALNUM}{symbols}{symbols}");
    let middle = source.random.letters(&inner, n - 2);
    format!("{}{middle}{}", source.random.letters(ALNUM, 1), source.random.letters(ALNUM, 1))
}

/// A password for a place between quotes: now and then with white space.
fn spaced(source: &mut Source<'_>, symbols: &str) -> String {
    match source.random.below(4) {
        0 => {
            let n = source.random.between(9, 28);
            edged(source, symbols, n)
        }
        1 => {
            let (one, two) = (source.word("pwword"), source.word("pwword"));
            format!("{one} {two} {}", source.random.below(10_000))
        }
        _ => password(source, "!@#$%^*-_+=.?:/~"),
    }
}

/// In the user info of a URL, written raw: what a parser by the book would trip over.
fn url_password(source: &mut Source<'_>) -> String {
    if let Hand::Own(forms) = source.part.hand {
        return (forms.url_password)(source);
    }
    let (word, other) = (source.word("pwword"), source.word("pwword"));
    let n = source.random.below(1000);
    match source.random.below(6) {
        0 => format!("{word}@{n}"),
        1 => format!("{word}/{other}{n}"),
        2 => format!("{word}:{n}:{other}"),
        3 => format!("{word}@{other}/{n}"),
        4 => format!("{word}!${n}*"),
        _ => password(source, "-_.~"),
    }
}

fn leet(word: &str) -> String {
    word.chars()
        .map(|c| match c {
            'a' => '4',
            'e' => '3',
            'i' => '1',
            'o' => '0',
            's' => '5',
            c => c,
        })
        .collect()
}

fn token(source: &mut Source<'_>) -> String {
    if let Hand::Own(forms) = source.part.hand {
        return (forms.token)(source);
    }
    let n = source.random.between(20, 60);
    match (source.part.hand, source.random.below(6)) {
        (_, 0) => source.random.letters(ALNUM, n),
        (_, 1) => random_mixed(source, n),
        (Hand::Development, 2) => source.random.letters(HEX, 40),
        (Hand::Development, 3) => ordinary::uuid(source),
        (Hand::Development, 4) => source.random.letters(URL_SAFE, n - 1) + "k",
        (Hand::Development, _) => STANDARD.encode(source.random.bytes(n)),
        (Hand::Validation, 2) => source.random.letters(HEX, 64).to_uppercase(),
        (Hand::Validation, 3) => {
            let parts: Vec<_> =
                (0..5).map(|_| source.random.letters(&(UPPER.to_owned() + DIGITS), 5)).collect();
            parts.join("-")
        }
        (Hand::Validation, 4) => {
            format!("{}_{}", source.random.letters(LOWER, 3), source.random.letters(ALNUM, n))
        }
        (_, _) => {
            format!("{}.{}", source.random.letters(URL_SAFE, 12), source.random.letters(ALNUM, n))
        }
    }
}

/// Random, with letters of both cases and digits among them for sure: at least 4 bits a character.
pub(super) fn random_mixed(source: &mut Source<'_>, n: usize) -> String {
    loop {
        let text = source.random.letters(ALNUM, n);
        let has = |f: fn(&char) -> bool| text.chars().any(|c| f(&c));
        if has(char::is_ascii_digit)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_uppercase)
        {
            return text;
        }
    }
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

fn jwt(source: &mut Source<'_>) -> String {
    let header = *source.random.pick(&[
        r#"{"alg":"RS256","typ":"JWT"}"#,
        r#"{"typ":"JWT","alg":"RS256","x5t":"nOo3ZDrODXEK1jKWhXslHR_KXEg","kid":"nOo3ZDrODXEK"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{ "alg": "ES256", "kid": "2026-03" }"#,
    ]);
    let (subject, expiry) = (ordinary::uuid(source), source.random.letters(DIGITS, 8));
    let claims =
        format!(r#"{{"sub":"{subject}","iss":"https://login.example.org","exp":17{expiry}}}"#);
    let n = *source.random.pick(&[32_usize, 64, 256]);
    format!("{}.{}.{}", part(header), part(&claims), URL_SAFE_NO_PAD.encode(source.random.bytes(n)))
}

fn jwe(source: &mut Source<'_>) -> String {
    let header = part(r#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#);
    let n = source.random.between(60, 240);
    let mut piece = |n| URL_SAFE_NO_PAD.encode(source.random.bytes(n));
    format!("{header}.{}.{}.{}.{}", piece(256), piece(12), piece(n), piece(16))
}

fn service_account(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 43);
    let (namespace, account) = (source.word("ns"), source.word("app"));
    let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
    let claims = format!(
        r#"{{"aud":["https://kubernetes.default.svc"],"exp":17{},"iss":"https://kubernetes.default.svc","kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{account}"}}}},"sub":"system:serviceaccount:{namespace}:{account}"}}"#,
        source.random.letters(DIGITS, 8)
    );
    format!(
        "{}.{}.{}",
        part(&header),
        part(&claims),
        URL_SAFE_NO_PAD.encode(source.random.bytes(256))
    )
}

fn slack(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (team, bot) = (random.letters(DIGITS, 12), random.letters(DIGITS, 13));
    match random.below(3) {
        0 => format!("xoxp-{team}-{bot}-{}", random.letters(HEX, 32)),
        1 => format!(
            "xapp-1-A{}-{team}-{}",
            random.letters(&(UPPER.to_owned() + DIGITS), 10),
            random.letters(HEX, 64)
        ),
        _ => format!("xoxb-{team}-{bot}-{}", random.letters(ALNUM, 24)),
    }
}

/// The lines between BEGIN and END, 64 characters each but the last; the argument is their number.
pub(super) fn pem(argument: &str, source: &mut Source<'_>) -> String {
    let lines = length(argument, source, (3, 27));
    let bytes = source.random.bytes(48 * (lines - 1) + 33);
    let text = format!("MII{}", &STANDARD.encode(bytes)[3..]);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.join("\n")
}
