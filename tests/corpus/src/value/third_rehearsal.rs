//! Forms of values that the third part of the rehearsal set has for itself: what people choose, how they write down
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
        "issued" => issuer::issued(argument, source),
        "access" => access_token(source),
        "bound" => bound_token(source),
        "bearer" => bearer(source),
        "dob" => date_of_birth(source),
        "assertion" => assertion(source),
        "postcode" => format!(
            "{}{} {}",
            source.random.between(1, 9),
            source.random.letters(DIGITS, 3),
            source.random.letters("ABCDEFGHJKLMNPRSTVWXZ", 2)
        ),
        "gosess" => {
            let n = source.random.between(90, 200);
            format!(
                "MTc{}|{}",
                source.random.letters(ALNUM, 10),
                URL_SAFE_NO_PAD.encode(source.random.bytes(n))
            )
        }
        "wpcookie" => {
            let (hash, token) = (source.random.letters(HEX, 64), source.random.letters(ALNUM, 43));
            format!(
                "{}%7C17{}%7C{token}%7C{hash}",
                source.word("user"),
                source.random.letters(DIGITS, 8)
            )
        }
        "scram" => {
            let mut piece = |n| STANDARD.encode(source.random.bytes(n));
            let (salt, stored, server) = (piece(16), piece(32), piece(32));
            format!("SCRAM-SHA-256$4096:{salt}${stored}:{server}")
        }
        "shadow" => format!(
            "$6${}${}",
            source.random.letters(ALNUM, 16),
            source.random.letters(&format!("./{ALNUM}"), 86)
        ),
        _ => return None,
    })
}

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(14) {
        0 => {
            let by = *source.random.pick(&["", "!", "@", "#", "-", "_"]);
            format!("{word}{by}{}", source.random.between(1, 2027))
        }
        1 => format!(
            "{}{}{}",
            source.random.below(100),
            word.to_lowercase(),
            source.random.letters("!*", 1)
        ),
        2 | 3 => source.word("pwwalk"),
        4 => {
            let (second, by) = (source.word("pwword"), *source.random.pick(&["", "-", ".", "_"]));
            format!("{word}{by}{second}{}", source.random.below(100))
        }
        5 => {
            let leet: String = word
                .chars()
                .map(|c| match c {
                    'a' => '4',
                    'e' => '3',
                    'o' => '0',
                    's' => '$',
                    c => c,
                })
                .collect();
            format!("{leet}{}", source.random.below(100))
        }
        6 => {
            let n = source.random.between(12, 20);
            edged(source, symbols, n)
        }
        7 => {
            let n = source.random.between(24, 40);
            edged(source, symbols, n)
        }
        8 | 9 => {
            let n = *source.random.pick(&[10_usize, 12, 16, 18, 24, 32]);
            random_mixed(source, n)
        }
        10 => {
            let n = *source.random.pick(&[16_usize, 32]);
            source.random.letters(HEX, n)
        }
        11 => {
            let n = *source.random.pick(&[12_usize, 18, 30]);
            STANDARD.encode(source.random.bytes(n))
        }
        12 => source.word("pwunicode"),
        _ => {
            let parts: Vec<_> = (0..4).map(|_| source.random.letters(LOWER, 4)).collect();
            parts.join("-")
        }
    }
}

/// In the user info of a URL: mostly by the book, else as people write it.
fn url_password(source: &mut Source<'_>) -> String {
    let word = source.word("pwword");
    let n = source.random.below(3000);
    match source.random.below(10) {
        0 => format!("{word}%40{n}"),
        1 => format!("{n}%3F{word}"),
        2 => format!("{word}!{n}"),
        3 => format!("{word}@{n}"),
        4 => format!("{word}%24{n}%2F"),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    match source.random.below(12) {
        0 | 1 => {
            let n = *source.random.pick(&[20_usize, 32, 40, 48, 64]);
            random_mixed(source, n)
        }
        2 => source.random.letters(HEX, 32),
        3 => source.random.letters(HEX, 64),
        4 => source.random.letters(HEX, 40),
        5 => ordinary::uuid(source),
        6 => {
            let n = *source.random.pick(&[16_usize, 24, 32, 48]);
            STANDARD.encode(source.random.bytes(n))
        }
        7 => {
            let n = *source.random.pick(&[24_usize, 32, 64]);
            URL_SAFE_NO_PAD.encode(source.random.bytes(n))
        }
        8 => {
            let front = *source.random.pick(&["grd", "vlt", "api", "key", "tok"]);
            let by = *source.random.pick(&["_", "-"]);
            format!("{front}{by}{}", random_mixed(source, 32))
        }
        9 => source.random.letters(&format!("{UPPER}{DIGITS}"), 28),
        10 => {
            format!("{}:{}", source.random.letters(DIGITS, 6), random_mixed(source, 30))
        }
        _ => source.random.letters(&format!("{LOWER}{DIGITS}"), 36),
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    let (first, last) = (personal::plain(first), personal::plain(last));
    let initial = &first[..1];
    match source.random.below(11) {
        0..3 => format!("{first}.{last}"),
        3 => format!("{initial}.{last}"),
        4 => format!("{last}.{first}"),
        5 => format!("{first}_{last}{}", source.random.between(1, 30)),
        6 => format!("{first}.van.{last}"),
        7 => format!("{first}{last}"),
        8 => format!("{first}-{last}+grid"),
        9 => (*source.random.pick(&["facturen", "klantenservice", "it-beheer", "alerts", "sales"]))
            .to_owned(),
        _ => format!("a{}", source.random.letters(DIGITS, 5)),
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    let mut groups = |n: usize| personal::groups(source, n);
    let (one, two, three, four) = (groups(1), groups(2), groups(3), groups(4));
    match source.random.below(10) {
        0 => format!("2a02:a44{}:{two}:{four}", source.random.below(10)),
        1 => format!("2001:981:{three}:{three}"),
        2 => format!("2a00:1450:4{}::{one}", source.random.letters(HEX, 3)),
        3 => format!("fe80::{four}"),
        4 => format!("::ffff:{}", personal::ipv4(source)),
        5 => format!("fd00:{two}::{one}"),
        6 => format!("2a05:d018:{three}:{three}"),
        7 => format!("2603:10a6:{two}::{}", source.random.between(1, 99)),
        8 => format!("2a01:111:{one}::{}", source.random.between(2, 900)),
        _ => format!("fdfd:{one}::{}", source.random.between(1, 40)),
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("FR", 0, 23),
    ("LU", 0, 16),
    ("GB", 4, 14),
    ("AT", 0, 16),
    ("ES", 0, 20),
    ("SE", 0, 20),
    ("SK", 0, 20),
    ("EE", 0, 16),
    ("LV", 4, 13),
    ("SI", 0, 15),
];

const CARDS: Cards = Cards {
    amex: Some("37"),
    prefixes: &[
        "4", "4", "4", "4", "51", "52", "54", "2221", "2501", "6011", "644", "3530", "6763",
    ],
    rare: &[(8, "34", 15)],
};

/// A day of birth as forms and databases write it.
fn date_of_birth(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1936, 2010), random.between(1, 12), random.between(1, 28));
    match random.below(5) {
        0 => format!("{day:02}-{month:02}-{year}"),
        1 => format!("{year}{month:02}{day:02}"),
        2 => format!("{day}/{month}/{year}"),
        _ => format!("{year}-{month:02}-{day:02}"),
    }
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "06-%#######",
    "06-%### ####",
    "06 %# ## ## ##",
    "06%#######",
    "+31 6 %# ## ## ##",
    "+31 6%#######",
    "+316%#######",
    "+31 (0)6-%#######",
    "0031 6%#######",
    "020 - %## ## ##",
    "0%#-%######",
    "(0%#) %### ###",
    "+31 30 %### ###",
    "+31-70-%######",
    "088-%## ## ##",
    "+32 9 %## ## ##",
    "+32 4%# %# ## ##",
    "+49 221 %######",
    "+49 (0)151 %#######",
    "+49 176 %### ####",
    "0172 %######",
    "+44 (0)7%## ######",
    "+44 113 %## ####",
    "07%## %## ###",
    "+1 %##-%##-####",
    "+1 (650) %##-####",
    "(206) %##-####",
    "+33 (0)6 %# ## ## ##",
    "+337%#######",
    "+34 6%# ## ## ##",
    "+353 87 %## ####",
    "+48 5## ### ###",
    "+420 7## ### ###",
    "+41 78 %## ## ##",
    "+61 4%# ### ###",
];

fn json_part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A signed token of an identity provider.
fn access_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 22);
    let header = match source.random.below(5) {
        0 => format!(r#"{{"typ":"JWT","alg":"RS256","x5t":"{kid}","kid":"{kid}"}}"#),
        1 => format!(r#"{{"alg":"RS256","typ" : "JWT","kid" : "{kid}"}}"#),
        2 => r#"{"typ":"JWT","alg":"HS256"}"#.to_owned(),
        3 => format!(r#"{{"alg":"ES384","kid":"{kid}","typ":"at+jwt"}}"#),
        _ => r#"{"alg":"RS512"}"#.to_owned(),
    };
    let (subject, session) = (ordinary::uuid(source), ordinary::uuid(source));
    let (time, user) = (source.random.letters(DIGITS, 8), source.word("user"));
    let claims = match source.random.below(3) {
        0 => format!(
            r#"{{"aud":"api://{subject}","iss":"https://sts.windows.net/{session}/","iat":17{time},"nbf":17{time},"exp":17{time},"appid":"{subject}","oid":"{session}"}}"#
        ),
        1 => format!(
            r#"{{"exp":17{time},"iat":17{time},"jti":"{subject}","iss":"https://sso.voltaris.example/realms/grid","typ":"Bearer","azp":"portal","sid":"{session}","preferred_username":"{user}"}}"#
        ),
        _ => format!(r#"{{"sub":"{user}","role":"reader","iat":17{time}}}"#),
    };
    let n = *source.random.pick(&[32_usize, 64, 256, 256, 512]);
    let signature = source.random.bytes(n);
    format!("{}.{}.{}", json_part(&header), json_part(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A ServiceAccount's token, as kubelets project it or as a Secret holds it.
fn bound_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 43);
    let (namespace, account) = (source.word("ns"), source.word("app"));
    let (id, time) = (ordinary::uuid(source), source.random.letters(DIGITS, 8));
    let claims = if source.random.percent(60) {
        format!(
            r#"{{"aud":["https://grid-dns-1a2b.hcp.westeurope.azmk8s.io"],"exp":17{time},"iat":17{time},"iss":"https://westeurope.oic.prod-aks.azure.com/{id}/","jti":"{id}","kubernetes.io":{{"namespace":"{namespace}","node":{{"name":"aks-0"}},"pod":{{"name":"{account}","uid":"{id}"}},"serviceaccount":{{"name":"{account}","uid":"{id}"}}}},"nbf":17{time},"sub":"system:serviceaccount:{namespace}:{account}"}}"#
        )
    } else {
        format!(
            r#"{{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"{namespace}","kubernetes.io/serviceaccount/secret.name":"{account}-token","kubernetes.io/serviceaccount/service-account.name":"{account}","sub":"system:serviceaccount:{namespace}:{account}"}}"#
        )
    };
    let signature = source.random.bytes(256);
    format!(
        "{}.{}.{}",
        json_part(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)),
        json_part(&claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// What stands behind `Bearer`: signed tokens mostly, else opaque ones.
fn bearer(source: &mut Source<'_>) -> String {
    match source.random.below(6) {
        0..3 => access_token(source),
        3 => URL_SAFE_NO_PAD.encode(source.random.bytes(32)),
        4 => random_mixed(source, 40),
        _ => source.random.letters(HEX, 64),
    }
}

/// An assertion inside of a response, in Base64, as an identity provider posts it.
fn assertion(source: &mut Source<'_>) -> String {
    let (id, request) = (source.random.letters(HEX, 40), source.random.letters(HEX, 40));
    let digest = STANDARD.encode(source.random.bytes(32));
    let signature = STANDARD.encode(source.random.bytes(256));
    let user = source.word("user");
    STANDARD.encode(format!(
        r#"<samlp:Response ID="_{id}" Version="2.0" InResponseTo="_{request}" xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"><Issuer xmlns="urn:oasis:names:tc:SAML:2.0:assertion">https://adfs.voltaris.example/adfs/services/trust</Issuer><ds:DigestValue>{digest}</ds:DigestValue><ds:SignatureValue>{signature}</ds:SignatureValue><Assertion><Subject><NameID>{user}</NameID></Subject></Assertion></samlp:Response>"#
    ))
}
