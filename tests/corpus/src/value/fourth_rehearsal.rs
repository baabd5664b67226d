//! Forms of values that the fourth part of the rehearsal set has for itself: what people choose, how they write down
//! addresses and numbers, and what issuers hand out that no other set asks for.

mod issuer;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::credential::{self, edged, random_mixed};
use super::{ALNUM, Cards, DIGITS, Forms, HEX, LOWER, UPPER, URL_SAFE, ordinary, personal};
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
        "minted" => issuer::minted(argument, source),
        "signed" => signed_token(source),
        "mounted" => mounted_token(source),
        "presented" => presented(source),
        "birthday" => birthday(source),
        "zip" => zip(source),
        "posted" => posted_response(source),
        "mxsession" => {
            format!("{}.{}", ordinary::uuid(source), source.random.letters(HEX, 32))
        }
        "springsession" => STANDARD.encode(ordinary::uuid(source)),
        "phpsession" => source.random.letters(&format!("{LOWER}{DIGITS}"), 26),
        "chunk" => {
            let n = source.random.between(700, 1600);
            source.random.letters(URL_SAFE, n)
        }
        "grant" => match source.random.below(4) {
            0 => format!("1.A{}", source.random.letters(URL_SAFE, 380)),
            1 => random_mixed(source, 32),
            2 => URL_SAFE_NO_PAD.encode(source.random.bytes(30)),
            _ => source.random.letters(HEX, 40),
        },
        "dockercfg" => registry_config(source),
        "pin" => source.random.letters(DIGITS, 6),
        _ => return None,
    })
}

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(16) {
        0 | 1 => {
            let by = *source.random.pick(&["", "", "!", "@", "#", "_", "."]);
            let end = *source.random.pick(&["", "", "!", "*", "?", "$"]);
            format!("{word}{by}{}{end}", source.random.between(1, 2027))
        }
        2 => {
            let second = source.word("pwword").to_lowercase();
            format!("{}{second}{}", word.to_lowercase(), source.random.below(1000))
        }
        3 => source.word("pwwalk"),
        4 => syllables(source),
        5 => {
            let (second, third) = (source.word("pwword"), source.word("pwword"));
            let by = *source.random.pick(&["-", "_", "."]);
            format!("{word}{by}{second}{by}{third}").to_lowercase()
        }
        6 => format!(
            "{}{}{}",
            source.random.letters(UPPER, 1),
            source.random.letters(LOWER, 5),
            source.random.letters(DIGITS, 4)
        ),
        7 => {
            let n = source.random.between(10, 16);
            edged(source, symbols, n)
        }
        8 => {
            let n = source.random.between(20, 32);
            edged(source, symbols, n)
        }
        9 | 10 => {
            let n = *source.random.pick(&[12_usize, 14, 16, 20, 22, 30]);
            random_mixed(source, n)
        }
        11 => {
            let n = *source.random.pick(&[20_usize, 32, 40]);
            source.random.letters(HEX, n)
        }
        12 => {
            let n = *source.random.pick(&[9_usize, 15, 24, 32]);
            STANDARD.encode(source.random.bytes(n))
        }
        13 => source.word("pwunicode"),
        14 => {
            let mut group = || source.random.letters(ALNUM, 5);
            format!("{}-{}-{}", group(), group(), group())
        }
        _ => format!("{}{}", source.word("org"), source.random.between(1, 99)),
    }
}

/// What generators that aim at pronounceable passwords make.
fn syllables(source: &mut Source<'_>) -> String {
    let count = source.random.between(3, 4);
    let mut out: String = (0..count)
        .map(|_| source.random.letters("bdfghklmnprstvwz", 1) + &source.random.letters("aeiouy", 2))
        .collect();
    let rest = out.split_off(1);
    format!("{}{rest}{}", out.to_uppercase(), source.random.letters(DIGITS, 2))
}

/// In the user info of a URL: mostly by the book, else as people write it.
fn url_password(source: &mut Source<'_>) -> String {
    let (word, other) = (source.word("pwword"), source.word("pwword"));
    let n = source.random.below(5000);
    match source.random.below(12) {
        0 => format!("{word}%40{other}"),
        1 => format!("{word}%23{n}%21"),
        2 => format!("{word}!{n}"),
        3 => format!("{word}@{n}"),
        4 => format!("{word}%2f{other}{n}"),
        5 => format!("{n}${word}"),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    match source.random.below(13) {
        0..3 => {
            let n = *source.random.pick(&[22_usize, 24, 32, 36, 43, 50, 64]);
            random_mixed(source, n)
        }
        3 => source.random.letters(HEX, 32),
        4 => source.random.letters(HEX, 64),
        5 => source.random.letters(HEX, 40),
        6 => ordinary::uuid(source),
        7 => {
            let n = *source.random.pick(&[20_usize, 24, 32, 40]);
            STANDARD.encode(source.random.bytes(n))
        }
        8 => {
            let n = *source.random.pick(&[24_usize, 33, 48]);
            URL_SAFE_NO_PAD.encode(source.random.bytes(n))
        }
        9 => {
            let front = *source.random.pick(&["mdn", "pk", "int", "ext", "psd2", "sbx"]);
            format!("{front}_{}", random_mixed(source, 28))
        }
        10 => ordinary::uuid(source).replace('-', ""),
        11 => format!(
            "{}.{}",
            source.random.letters(URL_SAFE, 11) + &source.random.letters(ALNUM, 1),
            random_mixed(source, 32)
        ),
        _ => source.random.letters(&format!("{UPPER}{DIGITS}"), 32),
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    let (first, last) = (personal::plain(first), personal::plain(last));
    let initial = &first[..1];
    match source.random.below(13) {
        0..4 => format!("{first}.{last}"),
        4 => format!("{initial}{last}"),
        5 => format!("{initial}.{last}"),
        6 => format!("{last}{}", source.random.between(1, 99)),
        7 => format!("{first}_{last}"),
        8 => format!("{first}.{last}.external"),
        9 => format!("{first}{}", source.random.between(1960, 2008)),
        10 => format!("{last}.{first}+{}", source.random.pick(&["bank", "iban", "demo"])),
        11 => format!("{}{}", source.random.pick(&["x", "c", "pt"]), source.random.below(90_000)),
        _ => (*source.random.pick(&[
            "treasury",
            "helpdesk",
            "no-reply",
            "compliance.desk",
            "buchhaltung",
            "contabilidad",
            "devops",
        ]))
        .to_owned(),
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    let mut groups = |n: usize| personal::groups(source, n);
    let (one, two, three, four) = (groups(1), groups(2), groups(3), groups(4));
    match source.random.below(10) {
        0 => format!("2a02:8108:{two}:{four}"),
        1 => format!("2001:1c00:{two}:{four}"),
        2 => format!("2a01:cb{}:{two}:{four}", source.random.letters(HEX, 2)),
        3 => format!("2603:1026:{two}::{one}"),
        4 => format!("fe80::{four}"),
        5 => format!("fd12:{three}::{one}"),
        6 => format!("::ffff:{}", personal::ipv4(source)),
        7 => format!("2a00:f41:{two}:{four}"),
        8 => format!("2001:67c:{one}::{}", source.random.between(1, 900)),
        _ => {
            format!("2a04:4e42:{}::{}", source.random.between(1, 90), source.random.between(1, 999))
        }
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("DE", 0, 18),
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("FR", 0, 23),
    ("ES", 0, 20),
    ("PL", 0, 24),
    ("PT", 0, 21),
    ("IT", 1, 22),
    ("IE", 4, 14),
    ("FI", 0, 14),
    ("HU", 0, 24),
    ("RO", 4, 16),
    ("CH", 0, 17),
    ("GB", 4, 14),
];

const CARDS: Cards = Cards {
    amex: Some("34"),
    prefixes: &[
        "4", "4", "4", "4", "51", "53", "55", "2223", "2645", "6011", "650", "3566", "6759", "5018",
    ],
    rare: &[(6, "37", 15), (4, "36", 14)],
};

/// A day of birth as forms and databases write it.
fn birthday(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1941, 2009), random.between(1, 12), random.between(1, 28));
    match random.below(4) {
        0 => format!("{day:02}.{month:02}.{year}"),
        1 => format!("{day:02}/{month:02}/{year}"),
        _ => format!("{year}-{month:02}-{day:02}"),
    }
}

/// A postcode as several countries write it.
fn zip(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let digits = random.letters(DIGITS, 3);
    let first = random.between(1, 9);
    match random.below(4) {
        0 => format!("{first}{digits}{}", random.letters("ABCDEGHJKLNPRSTVWXZ", 2)),
        1 => format!("{first}{digits} {}", random.letters("ABCDEGHJKLNPRSTVWXZ", 2)),
        2 => format!("{first}{digits}{}", random.below(10)),
        _ => format!("{}-{digits}", random.between(10, 99)),
    }
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "06 %#######",
    "06-%## ## ###",
    "06%#######",
    "+31 6 %### ####",
    "+31 6 %## ## ###",
    "+316%#######",
    "+31(0)6 %# ## ## ##",
    "0031 6 %# ## ## ##",
    "020 %## ####",
    "(030) %## ## ##",
    "+31 20 %## ####",
    "+31-10-%######",
    "+32 2 %## ## ##",
    "+32 47# ## ## ##",
    "0470 %# ## ##",
    "+49 69 %#######",
    "+49 (0)171 %######",
    "+49 1522 %######",
    "0160-%#######",
    "+33 1 %# ## ## ##",
    "06 %# ## ## ##",
    "+336%#######",
    "+34 91 %## ## ##",
    "+34 6## ## ## ##",
    "+351 91% ### ###",
    "+39 06 %### ####",
    "+39 34% ### ####",
    "+48 22 %## ## ##",
    "+48 6## ### ###",
    "+44 20 7%## ####",
    "+44 7%## ### ###",
    "+1 312-%##-####",
    "+1 (917) %##-####",
    "+41 44 %## ## ##",
    "+43 664 %######",
    "+45 %# ## ## ##",
    "+358 40 %######",
];

fn json_part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A signed token of an identity provider or of an application's own.
fn signed_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 27);
    let header = match source.random.below(6) {
        0 => format!(r#"{{"typ":"JWT","alg":"RS256","kid":"{kid}"}}"#),
        1 => format!(r#"{{"kid":"{kid}","alg":"ES256"}}"#),
        2 => r#"{"alg":"HS512","typ":"JWT"}"#.to_owned(),
        3 => format!(r#"{{"alg":"PS256","typ":"JWT","kid":"{kid}"}}"#),
        4 => r#"{"alg":"EdDSA"}"#.to_owned(),
        _ => format!(r#"{{"alg":"RS256","x5t":"{kid}","typ":"JWT"}}"#),
    };
    let (subject, session) = (ordinary::uuid(source), ordinary::uuid(source));
    let (time, user) = (source.random.letters(DIGITS, 8), source.word("user"));
    let claims = match source.random.below(4) {
        0 => format!(
            r#"{{"aud":"{subject}","iss":"https://login.microsoftonline.com/{session}/v2.0","iat":17{time},"exp":17{time},"oid":"{subject}","tid":"{session}","ver":"2.0"}}"#
        ),
        1 => format!(
            r#"{{"iss":"https://id.meridiaan.example/realms/retail","sub":"{subject}","azp":"mobile","scope":"openid profile","sid":"{session}","exp":17{time}}}"#
        ),
        2 => format!(r#"{{"user":"{user}","roles":["TELLER"],"exp":17{time}}}"#),
        _ => format!(r#"{{"jti":"{session}","sub":"{user}","nbf":17{time},"exp":17{time}}}"#),
    };
    let n = *source.random.pick(&[32_usize, 64, 64, 256, 384]);
    let signature = source.random.bytes(n);
    format!("{}.{}.{}", json_part(&header), json_part(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A ServiceAccount's token, as kubelets mount it.
fn mounted_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 43);
    let (namespace, account) = (source.word("ns"), source.word("app"));
    let (id, time) = (ordinary::uuid(source), source.random.letters(DIGITS, 8));
    let claims = format!(
        r#"{{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":17{time},"iat":17{time},"iss":"https://kubernetes.default.svc.cluster.local","kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{account}","uid":"{id}"}}}},"nbf":17{time},"sub":"system:serviceaccount:{namespace}:{account}"}}"#
    );
    let signature = source.random.bytes(256);
    format!(
        "{}.{}.{}",
        json_part(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)),
        json_part(&claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// A whole registry configuration in Base64, as Secrets and headers hold it.
fn registry_config(source: &mut Source<'_>) -> String {
    let (user, password) = (source.word("user"), random_mixed(source, 20));
    let auth = STANDARD.encode(format!("{user}:{password}"));
    STANDARD.encode(format!(
        r#"{{"auths":{{"harbor.meridiaan.example":{{"username":"{user}","password":"{password}","auth":"{auth}"}}}}}}"#
    ))
}

/// What a client presents behind `Bearer`: signed tokens mostly, else opaque ones.
fn presented(source: &mut Source<'_>) -> String {
    match source.random.below(7) {
        0..4 => signed_token(source),
        4 => URL_SAFE_NO_PAD.encode(source.random.bytes(36)),
        5 => random_mixed(source, 48),
        _ => source.random.letters(HEX, 40),
    }
}

/// A response with its assertion, in Base64, as a browser posts it.
fn posted_response(source: &mut Source<'_>) -> String {
    let (id, request) = (source.random.letters(HEX, 36), source.random.letters(HEX, 36));
    let signature = STANDARD.encode(source.random.bytes(256));
    let user = source.word("user");
    let front = *source.random.pick(&["", r#"<?xml version="1.0"?>"#]);
    STANDARD.encode(format!(
        r#"{front}<saml2p:Response xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol" ID="id{id}" InResponseTo="_{request}" Version="2.0"><saml2:Issuer xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion">https://id.meridiaan.example/saml</saml2:Issuer><ds:SignatureValue>{signature}</ds:SignatureValue><saml2:Assertion><saml2:Subject><saml2:NameID>{user}</saml2:NameID></saml2:Subject></saml2:Assertion></saml2p:Response>"#
    ))
}
