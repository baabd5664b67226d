//! Forms of values that the fifth part of the rehearsal set has for itself: what people choose, how they write down
//! addresses and numbers, and what issuers hand out that no other set asks for.

mod issuer;

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
        "coined" => issuer::coined(argument, source),
        "idp" => provider_token(source),
        "projected" => projected_token(source),
        "carried" => carried(source),
        "nascita" => day_of_birth(source),
        "postal" => postal_code(source),
        "samlpost" => saml_post(source),
        "samlredirect" => {
            // Raw deflate of a request that begins with its name and namespace.
            let n = source.random.between(190, 420);
            STANDARD.encode([&[0x7d_u8, 0x52, 0x4d][..], &source.random.bytes(n)].concat())
        }
        "tomcatsid" => source.random.letters("0123456789ABCDEF", 32),
        "sid26" => source.random.letters(&format!("{LOWER}{DIGITS}"), 26),
        "guidsid" => ordinary::uuid(source),
        "dataprotected" => {
            // ASP.NET Core's data protection begins all it encrypts with the same four bytes.
            let n = source.random.between(160, 420);
            format!("CfDJ8{}", source.random.letters(URL_SAFE, n))
        }
        "signedcookie" => {
            let id = source.random.letters(URL_SAFE, 32);
            format!("s%3A{id}.{}", source.random.letters(ALNUM, 43))
        }
        "authcode" => match source.random.below(4) {
            0 => format!("1.AS8A{}", source.random.letters(URL_SAFE, 420)),
            1 => {
                let (one, two) = (ordinary::uuid(source), ordinary::uuid(source));
                format!("{one}.{two}.{}", ordinary::uuid(source))
            }
            2 => random_mixed(source, 43),
            _ => URL_SAFE_NO_PAD.encode(source.random.bytes(24)),
        },
        "refreshed" => match source.random.below(3) {
            0 => format!("1.AV4A{}", source.random.letters(URL_SAFE, 520)),
            1 => URL_SAFE_NO_PAD.encode(source.random.bytes(48)),
            _ => provider_token(source),
        },
        "pullsecret" => {
            let (user, password) = (source.word("user"), random_mixed(source, 24));
            let auth = STANDARD.encode(format!("{user}:{password}"));
            STANDARD.encode(format!(
                r#"{{"auths":{{"oci.ostara.example":{{"username":"{user}","password":"{password}","auth":"{auth}"}}}}}}"#
            ))
        }
        "krbtoken" => {
            let n = source.random.between(120, 400);
            format!("YIIG{}", STANDARD.encode(source.random.bytes(n)))
        }
        "otp" => {
            let n = length(argument, source, (6, 6));
            source.random.letters(DIGITS, n)
        }
        _ => return None,
    })
}

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(17) {
        0 | 1 => {
            let end = *source.random.pick(&["", "", "!", "!!", "#", "?", "*", "$"]);
            format!("{word}{}{end}", source.random.between(1, 2028))
        }
        2 => {
            let by = *source.random.pick(&["@", "_", "-", "#", "."]);
            format!("{word}{by}{}", source.random.between(10, 9999))
        }
        3 => source.word("pwwalk"),
        4 => {
            let (second, third) = (source.word("pwword"), source.word("pwword"));
            format!("{word}-{second}-{third}-{}", source.random.below(100))
        }
        5 => {
            let second = source.word("pwword");
            format!("{word}{second}{}", source.random.below(100))
        }
        6 => format!(
            "{}{}{}",
            source.random.letters(LOWER, 3),
            source.random.letters(DIGITS, 3),
            source.random.letters(UPPER, 3)
        ),
        7 | 8 => {
            let n = source.random.between(12, 20);
            edged(source, symbols, n)
        }
        9 => {
            let n = source.random.between(24, 40);
            edged(source, symbols, n)
        }
        10 | 11 => {
            let n = *source.random.pick(&[10_usize, 12, 16, 18, 24, 32]);
            random_mixed(source, n)
        }
        12 => {
            let n = *source.random.pick(&[16_usize, 24, 32, 64]);
            source.random.letters(HEX, n)
        }
        13 => {
            let n = *source.random.pick(&[12_usize, 16, 18, 32]);
            STANDARD.encode(source.random.bytes(n))
        }
        14 => source.word("pwunicode"),
        15 => {
            // Groups of six, as the managers of two operating systems make them.
            let mut group = || source.random.letters(&format!("{LOWER}{LOWER}{DIGITS}"), 6);
            format!("{}-{}-{}", group(), group(), group())
        }
        _ => format!("{}{}!", source.word("org"), source.random.between(2019, 2027)),
    }
}

/// In the user info of a URL: mostly by the book, else as people write it.
fn url_password(source: &mut Source<'_>) -> String {
    let (word, other) = (source.word("pwword"), source.word("pwword"));
    let n = source.random.below(3000);
    match source.random.below(14) {
        0 => format!("{word}%40{n}"),
        1 => format!("{word}%21%23{n}"),
        2 => format!("{word}{n}!"),
        3 => format!("{word}@{other}{n}"),
        4 => format!("{word}%3A{other}"),
        5 => format!("{word}${n}"),
        6 => format!("{n}%2F{word}%3D"),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    match source.random.below(12) {
        0..3 => {
            let n = *source.random.pick(&[20_usize, 24, 28, 32, 40, 48, 64]);
            random_mixed(source, n)
        }
        3 | 4 => {
            let n = *source.random.pick(&[32_usize, 40, 48, 64]);
            source.random.letters(HEX, n)
        }
        5 => ordinary::uuid(source),
        6 => {
            let n = *source.random.pick(&[16_usize, 24, 32, 48]);
            STANDARD.encode(source.random.bytes(n))
        }
        7 => {
            let n = *source.random.pick(&[18_usize, 32, 36]);
            URL_SAFE_NO_PAD.encode(source.random.bytes(n))
        }
        8 => {
            let front = *source.random.pick(&["ost", "key", "tk", "live", "svc", "prod", "acc"]);
            format!("{front}_{}", random_mixed(source, 32))
        }
        9 => ordinary::uuid(source).replace('-', "").to_uppercase(),
        10 => {
            let (id, n) = (source.random.letters(HEX, 8), source.random.between(24, 36));
            format!("{id}.{}", random_mixed(source, n))
        }
        _ => {
            let mut group = || source.random.letters(&format!("{UPPER}{DIGITS}"), 5);
            format!("{}-{}-{}-{}-{}", group(), group(), group(), group(), group())
        }
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    let (first, last) = (personal::plain(first), personal::plain(last));
    let initial = &first[..1];
    match source.random.below(14) {
        0..5 => format!("{first}.{last}"),
        5 => format!("{initial}{last}"),
        6 => format!("{initial}.{last}"),
        7 => format!("{first}{}", source.random.between(1, 999)),
        8 => format!("{last}_{first}"),
        9 => format!("{first}-{last}"),
        10 => format!("{first}.{last}+{}", source.random.pick(&["newsletter", "test", "meter"])),
        11 => format!("ext.{initial}{last}"),
        12 => format!(
            "{}{}",
            source.random.pick(&["e", "u", "os"]),
            source.random.between(10_000, 99_999)
        ),
        _ => (*source.random.pick(&[
            "servicedesk",
            "facturatie",
            "klantenservice",
            "rechnungen",
            "atencion.cliente",
            "planning",
            "oncall",
        ]))
        .to_owned(),
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    let mut groups = |n: usize| personal::groups(source, n);
    let (one, two, three, four) = (groups(1), groups(2), groups(3), groups(4));
    match source.random.below(9) {
        0 => format!("2a02:a21{}:{two}:{four}", source.random.letters(HEX, 1)),
        1 => format!("2003:e{}:{two}:{four}", source.random.letters(HEX, 1)),
        2 => format!("2a10:3781:{one}::{one}"),
        3 => format!("2603:1027:{one}:{two}::{}", source.random.between(1, 99)),
        4 => format!("fe80::{four}"),
        5 => format!("fd{}:{three}::{two}", source.random.letters(HEX, 2)),
        6 => format!("::ffff:{}", personal::ipv4(source)),
        7 => format!("2001:4860:{one}:{three}::{one}"),
        _ => format!("2a05:d018:{two}:{four}"),
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("DE", 0, 18),
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("BE", 0, 12),
    ("FR", 0, 23),
    ("ES", 0, 20),
    ("AT", 0, 16),
    ("LU", 0, 16),
    ("DK", 0, 14),
    ("SE", 0, 20),
    ("IT", 1, 22),
    ("PT", 0, 21),
    ("CZ", 0, 20),
    ("GB", 4, 14),
];

const CARDS: Cards = Cards {
    amex: None,
    prefixes: &[
        "4", "4", "4", "4", "52", "53", "54", "2233", "2720", "6011", "645", "3528", "6759", "6304",
    ],
    rare: &[(7, "37", 15)],
};

/// A day of birth as forms and databases write it.
fn day_of_birth(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1938, 2007), random.between(1, 12), random.between(1, 28));
    match random.below(4) {
        0 => format!("{day:02}-{month:02}-{year}"),
        1 => format!("{day:02}.{month:02}.{year}"),
        _ => format!("{year}-{month:02}-{day:02}"),
    }
}

/// A postcode as several countries write it.
fn postal_code(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let number = random.between(1011, 9999);
    match random.below(3) {
        0 => format!("{number} {}", random.letters("ABCDEGHJKLNPRSTVWXZ", 2)),
        1 => format!("{number}{}", random.letters("ABCDEGHJKLNPRSTVWXZ", 2)),
        _ => format!("{number}{}", random.below(10)),
    }
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "06-%#######",
    "06 %#######",
    "06-%# ## ## ##",
    "+31 6 %#######",
    "+316%#######",
    "+31 (0)6 %### ####",
    "+31(0)6-%#######",
    "0031 6%#######",
    "010-%## ## ##",
    "+31 10 %## ## ##",
    "(020) %## ## ##",
    "+32 3 %## ## ##",
    "+32 49# ## ## ##",
    "0032 47# ######",
    "+49 40 %######",
    "+49 (0) 160 %######",
    "+49 1577 %######",
    "0172 %######",
    "+33 6 %# ## ## ##",
    "+33 (0)4 %# ## ## ##",
    "07 %# ## ## ##",
    "+34 93 %## ## ##",
    "+346########",
    "+351 21 %## ####",
    "+39 02 %#######",
    "+48 5## ### ###",
    "+44 161 %## ####",
    "+44 (0)7%## ######",
    "+1 646-%##-####",
    "+1 (206) %##-####",
    "+45 %### ####",
    "+46 70 %## ## ##",
    "+43 1 %######",
    "+353 87 %## ####",
];

/// A signed token of an identity provider or of an application's own.
fn provider_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 27);
    let header = match source.random.below(5) {
        0 => format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"at+jwt"}}"#),
        1 => format!(r#"{{"typ":"JWT","alg":"RS256","x5t":"{kid}","kid":"{kid}"}}"#),
        2 => r#"{"typ":"JWT","alg":"HS256"}"#.to_owned(),
        3 => format!(r#"{{"kid":"{kid}","typ":"JWT","alg":"ES384"}}"#),
        _ => r#"{"alg":"RS512","cty":"JWT"}"#.to_owned(),
    };
    let (subject, session) = (ordinary::uuid(source), ordinary::uuid(source));
    let (time, user) = (source.random.letters(DIGITS, 8), source.word("user"));
    let claims = match source.random.below(3) {
        0 => format!(
            r#"{{"aud":"api://{subject}","iss":"https://sts.windows.net/{session}/","iat":17{time},"nbf":17{time},"exp":17{time},"appid":"{subject}","tid":"{session}","ver":"1.0"}}"#
        ),
        1 => format!(
            r#"{{"exp":17{time},"iss":"https://sso.ostara.example/realms/workforce","sub":"{subject}","typ":"Bearer","azp":"field-app","preferred_username":"{user}","sid":"{session}"}}"#
        ),
        _ => format!(r#"{{"sub":"{user}","role":"planner","iat":17{time},"exp":17{time}}}"#),
    };
    let n = *source.random.pick(&[32_usize, 64, 96, 256, 512]);
    let signature = source.random.bytes(n);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", coded(&header), coded(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A ServiceAccount's token, as kubelets mount it; one in four as controllers made them before.
fn projected_token(source: &mut Source<'_>) -> String {
    let kid = source.random.letters(URL_SAFE, 43);
    let (namespace, account) = (source.word("ns"), source.word("app"));
    let (id, time) = (ordinary::uuid(source), source.random.letters(DIGITS, 8));
    let claims = match source.random.below(4) {
        0 => format!(
            r#"{{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"{namespace}","kubernetes.io/serviceaccount/service-account.name":"{account}","kubernetes.io/serviceaccount/service-account.uid":"{id}","sub":"system:serviceaccount:{namespace}:{account}"}}"#
        ),
        _ => format!(
            r#"{{"aud":["https://westeurope.oic.prod-aks.azure.com/{id}/"],"exp":17{time},"iat":17{time},"iss":"https://westeurope.oic.prod-aks.azure.com/{id}/","kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{account}","uid":"{id}"}}}},"sub":"system:serviceaccount:{namespace}:{account}"}}"#
        ),
    };
    let signature = source.random.bytes(256);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = coded(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
    format!("{header}.{}.{}", coded(&claims), URL_SAFE_NO_PAD.encode(signature))
}

/// What a client presents behind `Bearer`: signed tokens mostly, else opaque ones.
fn carried(source: &mut Source<'_>) -> String {
    match source.random.below(8) {
        0..5 => provider_token(source),
        5 => random_mixed(source, 40),
        6 => URL_SAFE_NO_PAD.encode(source.random.bytes(32)),
        _ => source.random.letters(HEX, 64),
    }
}

/// A response with its assertion, in Base64, as a browser posts it.
fn saml_post(source: &mut Source<'_>) -> String {
    let (id, request) = (source.random.letters(HEX, 32), source.random.letters(HEX, 32));
    let digest = STANDARD.encode(source.random.bytes(32));
    let signature = STANDARD.encode(source.random.bytes(256));
    let user = source.word("user");
    let response = *source.random.pick(&["samlp", "saml2p", "ns2"]);
    STANDARD.encode(format!(
        r#"<{response}:Response xmlns:{response}="urn:oasis:names:tc:SAML:2.0:protocol" ID="_{id}" Version="2.0" InResponseTo="_{request}"><Issuer xmlns="urn:oasis:names:tc:SAML:2.0:assertion">https://sts.ostara.example/adfs/services/trust</Issuer><ds:DigestValue>{digest}</ds:DigestValue><ds:SignatureValue>{signature}</ds:SignatureValue><Assertion><Subject><NameID>{user}</NameID></Subject></Assertion></{response}:Response>"#
    ))
}
