//! Forms of values that the second part of the rehearsal set has for itself: what people choose, how they write down
//! addresses and numbers, and what issuers hand out that no other set asks for.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::credential::{self, edged, random_mixed};
use super::{ALNUM, Cards, DIGITS, Forms, HEX, LOWER, UPPER, URL_SAFE, length, ordinary, personal};
use crate::fill::Source;

pub(crate) const FORMS: Forms = Forms {
    value,
    candidate,
    url_password,
    token,
    mailbox,
    ipv6,
    ibans: IBANS,
    cards: CARDS,
    phones: PHONES,
};

/// The value of a generator of secrets, or `None` if there is none of that name.
fn value(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    Some(match name {
        "idtoken" => id_token(source),
        "handle" => opaque(source),
        "pkcs8" => {
            der_lines("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ", 64, argument, source)
        }
        "pkcs1" => der_lines("MIIEowIBAAKCAQEA", 64, argument, source),
        "sec1" => der_lines("MHcCAQEEI", 64, "3", source),
        "enckey" => {
            der_lines("MIIFLTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG9w0BBQwwHAQI", 64, argument, source)
        }
        "sshkey" => {
            der_lines("b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAA", 70, argument, source)
        }
        "pgpkey" => der_lines("lQdGBGXy", 64, argument, source),
        "vendor" => vendor(argument, source),
        "refresh" => {
            let n = source.random.between(300, 700);
            format!("{}.AX{}", source.random.below(2), source.random.letters(URL_SAFE, n))
        }
        "oapcookie" => {
            let n = source.random.between(120, 300);
            let body = URL_SAFE_NO_PAD.encode(source.random.bytes(n));
            let signature = URL_SAFE_NO_PAD.encode(source.random.bytes(32));
            format!("{body}|17{}|{signature}=", source.random.letters(DIGITS, 8))
        }
        "rackcookie" => {
            let body =
                STANDARD.encode(source.random.bytes(96)).replace('+', "%2B").replace('/', "%2F");
            format!("{body}--{}", source.random.letters(HEX, 40))
        }
        "flaskcookie" => {
            let json = format!(r#"{{"_fresh":true,"_user_id":"{}"}}"#, source.random.below(9000));
            let body = URL_SAFE_NO_PAD.encode(json);
            let (time, signature) =
                (source.random.letters(URL_SAFE, 6), source.random.letters(URL_SAFE, 27));
            format!("{body}.{time}.{signature}")
        }
        "djangocookie" => source.random.letters(&format!("{LOWER}{DIGITS}"), 32),
        "deflated" => {
            let n = source.random.between(240, 560);
            let front =
                *source.random.pick(&[[0x7d_u8, 0x92], [0x9d, 0x53], [0x8d, 0x51], [0xb5, 0x54]]);
            STANDARD.encode([&front[..], &source.random.bytes(n)].concat())
        }
        "samlresp" => saml_response(source),
        "born" => born(source),
        "ppk" => {
            let text = STANDARD.encode(source.random.bytes(48 * 12));
            let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
            lines.join("\n")
        }
        _ => return None,
    })
}

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(14) {
        0 => format!("{word}{}!", source.random.between(2019, 2027)),
        1 => format!("{word}{}", source.random.between(10, 9999)),
        2 => source.word("pwwalk"),
        3 => {
            let name = source.word("first");
            let by = *source.random.pick(&["", "@", "_", "#"]);
            format!(
                "{name}{by}{:02}{:02}",
                source.random.between(1, 28),
                source.random.between(1, 12)
            )
        }
        4 => {
            let words: Vec<_> = (0..source.random.between(3, 5))
                .map(|_| source.word("pwword").to_lowercase())
                .collect();
            words.join("-")
        }
        5 => {
            let leet: String = word
                .chars()
                .map(|c| match c {
                    'a' => '@',
                    'o' => '0',
                    'i' => '1',
                    'e' => '3',
                    c => c,
                })
                .collect();
            format!("{leet}{}", source.random.between(1, 99))
        }
        6 => {
            let n = source.random.between(14, 24);
            edged(source, symbols, n)
        }
        7 => random_mixed(source, 10),
        8 => {
            let n = *source.random.pick(&[16_usize, 20, 24, 32, 64]);
            random_mixed(source, n)
        }
        9 => {
            let n = *source.random.pick(&[24_usize, 40]);
            source.random.letters(HEX, n)
        }
        10 => STANDARD.encode(source.random.bytes(24)),
        11 => source.word("pwunicode"),
        12 => {
            // As the keychain of a well-known system proposes: three groups of six.
            let mut group = || source.random.letters(&format!("{LOWER}{DIGITS}"), 6);
            let (one, two, three) = (group(), group(), group());
            format!("{one}-{two}-{three}")
        }
        _ => format!("{}#{}", source.word("org"), source.random.between(2020, 2027)),
    }
}

/// In the user info of a URL: mostly by the book, else as people write it.
fn url_password(source: &mut Source<'_>) -> String {
    let word = source.word("pwword");
    let n = source.random.below(10_000);
    match source.random.below(8) {
        0 => format!("{word}%23{n}"),
        1 => format!("{word}%21%40{n}"),
        2 => format!("{word}!{n}"),
        3 => format!("{word}*{n}$"),
        4 => format!("{word}%2B{n}%3D"),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    match source.random.below(11) {
        0 => random_mixed(source, 32),
        1 => random_mixed(source, 40),
        2 => source.random.letters(HEX, 64),
        3 => source.random.letters(HEX, 32),
        4 => source.random.letters(HEX, 40),
        5 => URL_SAFE_NO_PAD.encode(source.random.bytes(32)),
        6 => {
            let n = *source.random.pick(&[24_usize, 32, 48, 64]);
            STANDARD.encode(source.random.bytes(n))
        }
        7 => ordinary::uuid(source),
        8 => format!("{}.{}", source.random.letters(HEX, 16), source.random.letters(HEX, 32)),
        9 => {
            let front = source.random.letters(LOWER, 3);
            format!("{front}_{}", random_mixed(source, 36))
        }
        _ => random_mixed(source, 24),
    }
}

/// What an authorization server hands out that is no JWT.
fn opaque(source: &mut Source<'_>) -> String {
    match source.random.below(4) {
        0 => URL_SAFE_NO_PAD.encode(source.random.bytes(48)),
        1 => source.random.letters(HEX, 64),
        2 => ordinary::uuid(source),
        _ => random_mixed(source, 43),
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    let (lower_first, lower_last) = (personal::plain(first), personal::plain(last));
    let initial = &lower_first[..1];
    match source.random.below(10) {
        0..3 => format!("{lower_first}.{lower_last}"),
        3 => format!("{initial}{lower_last}"),
        4 => format!("{initial}.de.{lower_last}"),
        5 => format!("{lower_first}{}", source.random.between(50, 99)),
        6 => format!("{lower_last}{initial}"),
        7 => format!(
            "{lower_first}.{lower_last}+{}",
            source.random.pick(&["jira", "test", "portal"])
        ),
        8 => format!("ext-{initial}{lower_last}"),
        _ => format!(
            "{}{}",
            source.random.pick(&["u", "EX", "nl"]),
            source.random.letters(DIGITS, 6)
        ),
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    let mut groups = |n: usize| personal::groups(source, n);
    let (one, three, four) = (groups(1), groups(3), groups(4));
    match source.random.below(9) {
        0 => format!("2001:1c00:{three}:{three}"),
        1 => format!("2a02:{three}:{four}"),
        2 => format!("2a01:4f8:{one}::{}", source.random.between(1, 9)),
        3 => format!("fe80::{four}"),
        4 => format!("::ffff:{}", personal::ipv4(source)),
        5 => format!("2001:DB8:{}::{}", one.to_uppercase(), source.random.between(10, 99)),
        6 => format!("fd{}:{three}::{one}", source.random.letters(HEX, 2)),
        7 => format!(
            "2603:1026:{}:{}::{one}",
            source.random.between(100, 999),
            source.random.below(90)
        ),
        _ => format!("2600:1f18:{four}:{}:0", source.random.between(1, 9)),
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("FR", 0, 23),
    ("GB", 4, 14),
    ("FI", 0, 14),
    ("HR", 0, 17),
    ("RO", 4, 16),
    ("LT", 0, 16),
    ("ES", 0, 20),
    ("PL", 0, 24),
    ("IE", 4, 14),
    ("GR", 0, 23),
];

const CARDS: Cards = Cards {
    amex: Some("34"),
    prefixes: &[
        "4", "4", "4", "51", "53", "55", "2223", "2699", "6011", "65", "3566", "62", "5018",
    ],
    rare: &[(8, "37", 15)],
};

/// A day of birth as the country of the form writes it.
fn born(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1941, 2009), random.between(1, 12), random.between(1, 28));
    match random.below(4) {
        0 => format!("{day:02}-{month:02}-{year}"),
        1 => format!("{day:02}.{month:02}.{year}"),
        2 => format!("{year}-{month:02}-{day:02}T00:00:00"),
        _ => format!("{year}-{month:02}-{day:02}"),
    }
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "+31 6 %### ####",
    "+316########",
    "+31 20 %## ####",
    "+31(0)10-%######",
    "06-########",
    "06 #### ####",
    "06########",
    "0%# - ### ## ##",
    "0318-%#####",
    "0031 6########",
    "+32 4## ## ## ##",
    "+3247%######",
    "0032 3 %## ## ##",
    "+49 171 %######",
    "+49 (0) 40 %#######",
    "+4915########",
    "0170/%######",
    "+33 1 %# ## ## ##",
    "+337########",
    "+44 7### ######",
    "+44 1%## ######",
    "+1 (312) %##-####",
    "+1-650-%##-####",
    "(617) %##-####",
    "+1202%######",
    "+34 91 %## ## ##",
    "+39 06 %### ####",
    "+48 6## ### ###",
    "+41 44 %## ## ##",
    "+43 664 %######",
    "+45 %# ## ## ##",
    "+351 91# ### ###",
    "+91 9#### #####",
    "+90 532 %## ## ##",
];

/// The Base64 of DER that begins as DER of its kind does, in lines; the argument is their number.
fn der_lines(front: &str, width: usize, argument: &str, source: &mut Source<'_>) -> String {
    let lines = length(argument, source, (4, 26));
    let size = width * (lines - 1) + source.random.between(5, width / 4) * 4 - front.len() % 4;
    let alphabet = format!("{ALNUM}+/");
    let text = format!("{front}{}", source.random.letters(&alphabet, size - front.len().min(size)));
    let text = match text.len() % 4 {
        0 => text,
        1 => format!("{text}A=="),
        2 => format!("{text}=="),
        _ => format!("{text}="),
    };
    let lines: Vec<_> = text.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
    lines.join("\n")
}

fn id_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 27);
    let header = match source.random.below(4) {
        0 => format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#),
        1 => format!(r#"{{"kid":"{kid}","alg":"EdDSA"}}"#),
        2 => r#"{"alg":"HS512","typ":"JWT"}"#.to_owned(),
        _ => format!(r#"{{"alg":"PS256","typ":"at+jwt","kid":"{kid}"}}"#),
    };
    let (subject, audience) = (ordinary::uuid(source), ordinary::uuid(source));
    let name = format!("{} {}", source.word("first"), source.word("last"));
    let expiry = source.random.letters(DIGITS, 8);
    let claims = format!(
        r#"{{"exp":17{expiry},"iat":17{expiry},"iss":"https://sso.example/realms/main","aud":"{audience}","sub":"{subject}","name":"{name}","scope":"openid profile"}}"#
    );
    let n = *source.random.pick(&[32_usize, 64, 256]);
    let signature = source.random.bytes(n);
    let part = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(header.as_bytes()), part(claims.as_bytes()), part(&signature))
}

/// A SAML response as an identity provider posts it.
fn saml_response(source: &mut Source<'_>) -> String {
    let (id, issuer) = (ordinary::uuid(source), ordinary::uuid(source));
    let signature = STANDARD.encode(source.random.bytes(256));
    let user = source.word("last").to_lowercase();
    let xml = format!(
        r#"<saml2p:Response Destination="https://app.example/SSO/assertion" ID="_{id}" Version="2.0" xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol"><saml2:Issuer>https://sts.windows.net/{issuer}/</saml2:Issuer><ds:SignatureValue>{signature}</ds:SignatureValue><saml2:Assertion><saml2:NameID>{user}</saml2:NameID></saml2:Assertion></saml2p:Response>"#
    );
    STANDARD.encode(xml)
}

/// Tokens of services whose first letters name them.
fn vendor(name: &str, source: &mut Source<'_>) -> String {
    let upper = format!("{UPPER}{DIGITS}");
    let random = &mut *source.random;
    match name {
        "atlassian" => format!(
            "ATATT3xFfGF0{}={}",
            random.letters(URL_SAFE, 171),
            random.letters("0123456789ABCDEF", 8)
        ),
        "digitalocean" => format!("dop_v1_{}", random.letters(HEX, 64)),
        "shopify" => format!("shpat_{}", random.letters(HEX, 32)),
        "huggingface" => format!("hf_{}", random.letters(ALNUM, 34)),
        "openai" => format!("sk-proj-{}", random.letters(URL_SAFE, 90)),
        "databricks" => format!("dapi{}", random.letters(HEX, 32)),
        "pulumi" => format!("pul-{}", random.letters(HEX, 40)),
        "newrelic" => format!("NRAK-{}", random.letters(&upper, 27)),
        "docker" => format!("dckr_pat_{}", random.letters(URL_SAFE, 27)),
        "dynatrace" => {
            format!("dt0c01.{}.{}", random.letters(&upper, 24), random.letters(&upper, 64))
        }
        "terraform" => {
            format!("{}.atlasv1.{}", random.letters(ALNUM, 14), random.letters(ALNUM, 67))
        }
        "google" => format!("GOCSPX-{}", random.letters(URL_SAFE, 28)),
        "googleaccess" => format!("ya29.a0{}", random.letters(URL_SAFE, 160)),
        "linear" => format!("lin_api_{}", random.letters(ALNUM, 40)),
        "doppler" => format!("dp.pt.{}", random.letters(ALNUM, 43)),
        "sentry" => format!("sntrys_{}", random.letters(URL_SAFE, 120)),
        "postman" => format!("PMAK-{}-{}", random.letters(HEX, 24), random.letters(HEX, 34)),
        _ => panic!("no vendor {name}"),
    }
}
