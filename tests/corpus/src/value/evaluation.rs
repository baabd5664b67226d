//! Forms of values that the evaluation set has for itself: what people and password managers choose,
//! what identity providers and cloud services hand out, how people write down addresses and numbers.

mod issuer;
mod provider;

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
        "byissuer" => issuer::minted(argument, source),
        "azid" => issuer::azure(argument, source),
        "oidc" => provider::signed_token(source),
        "kubelet" => provider::mounted_token(source),
        "shown" => provider::presented(source),
        "onetime" => source.random.letters(DIGITS, 6),
        "geboren" => born(source),
        "zipcode" => format!(
            "{} {}",
            source.random.between(1011, 9999),
            source.random.letters("ABCDEGHJKLNPRSTVWXZ", 2)
        ),
        "fullname" => {
            let first = source.word("first");
            format!("{first} {}", source.word("last"))
        }
        // Random bytes, as `openssl rand -base64` prints them.
        "osslrand" => {
            let n = *source.random.pick(&[16_usize, 24, 32, 32, 48]);
            STANDARD.encode(source.random.bytes(n))
        }
        "sasig" => STANDARD.encode(source.random.bytes(32)),
        "grantcode" => match source.random.below(4) {
            0 | 1 => {
                format!(
                    "1.A{}{}",
                    source.random.letters("QSTUVWXY", 1),
                    source.random.letters(URL_SAFE, 380)
                )
            }
            2 => {
                let (one, two) = (ordinary::uuid(source), ordinary::uuid(source));
                format!("{one}.{two}.{}", ordinary::uuid(source))
            }
            _ => random_mixed(source, 32),
        },
        "refreshtok" => match source.random.below(3) {
            0 => format!("1.AR8A{}", source.random.letters(URL_SAFE, 480)),
            1 => format!("0.AXkA{}", source.random.letters(URL_SAFE, 560)),
            _ => provider::signed_token(source),
        },
        "nonced" => URL_SAFE_NO_PAD.encode(source.random.bytes(32)),
        "spnego" => {
            let n = source.random.between(180, 420);
            format!("YIIH{}", STANDARD.encode(source.random.bytes(n)))
        }
        "registryauth" => {
            let password = random_mixed(source, 32);
            match source.random.below(3) {
                0 => STANDARD.encode(format!(
                    "00000000-0000-0000-0000-000000000000:{}",
                    provider::signed_token(source)
                )),
                _ => {
                    let user = source.word("user");
                    STANDARD.encode(format!("{user}:{password}"))
                }
            }
        }
        "pullconfig" => {
            let (user, password) = (source.word("user"), random_mixed(source, 28));
            let auth = STANDARD.encode(format!("{user}:{password}"));
            STANDARD.encode(format!(
                r#"{{"auths":{{"images.duinrand.example":{{"username":"{user}","password":"{password}","email":"unused","auth":"{auth}"}}}}}}"#
            ))
        }
        // The lines between BEGIN and END of a key as ssh-keygen writes it.
        "opensshbody" => {
            let lines = length(argument, source, (6, 38));
            let text = format!(
                "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB{}",
                STANDARD.encode(source.random.bytes(lines * 52 - 60))
            );
            let lines: Vec<_> = text.as_bytes().chunks(70).map(String::from_utf8_lossy).collect();
            lines.join("\n")
        }
        "p12" => {
            // A PKCS#12 file: a sequence, its version, and the data that its MAC is over.
            let n = source.random.between(700, 1500);
            let head = [0x30_u8, 0x82, 0x0a, 0x31, 0x02, 0x01, 0x03, 0x30, 0x82, 0x09, 0xf7];
            STANDARD.encode([&head[..], &source.random.bytes(n)].concat())
        }
        "idpresponse" => provider::saml_response(source),
        "idprequest" => {
            // Deflated: bytes as zlib begins a request with.
            let n = source.random.between(220, 380);
            STANDARD.encode([&[0x85_u8, 0x91][..], &source.random.bytes(n)].concat())
        }
        "xassession" => ordinary::uuid(source),
        "netsession" => format!("CfDJ8{}", source.random.letters(URL_SAFE, 260)),
        "nodesession" => {
            let id = source.random.letters(URL_SAFE, 32);
            format!("s%3A{id}.{}", random_mixed(source, 43))
        }
        "railsession" => {
            let n = source.random.between(90, 160);
            format!(
                "{}--{}",
                STANDARD.encode(source.random.bytes(n)),
                source.random.letters(HEX, 40)
            )
        }
        "flasksession" => format!(
            "eyJ{}.{}.{}",
            source.random.letters(ALNUM, 60),
            source.random.letters(URL_SAFE, 6),
            source.random.letters(URL_SAFE, 27)
        ),
        "javasession" => source.random.letters("0123456789ABCDEF", 32),
        "phpsid26" => source.random.letters(&format!("{LOWER}{DIGITS}"), 26),
        _ => return None,
    })
}

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(20) {
        0..=2 => {
            let end = *source.random.pick(&["!", "", "!", "#", "!!", "@", "*"]);
            format!("{word}{}{end}", source.random.between(2017, 2027))
        }
        3 => {
            let end = *source.random.pick(&["!", "", "?", "$"]);
            format!("{word}{}{end}", source.random.letters(DIGITS, 3))
        }
        4 => {
            let by = *source.random.pick(&["@", "_", "#", "-"]);
            format!("{word}{by}{}", source.random.between(1, 9999))
        }
        5 | 6 => source.word("pwwalk"),
        7 => {
            let (second, third) = (source.word("pwword"), source.word("pwword"));
            let by = *source.random.pick(&["-", "-", ".", "_"]);
            let last = source.random.between(1, 99);
            [word, second, third, last.to_string()].join(by)
        }
        8 => {
            let app = source.word("org").to_lowercase();
            format!(
                "{app}{}{}",
                source.random.pick(&["@", "_", "-"]),
                source.random.between(100, 2027)
            )
        }
        9..=11 => {
            let n = source.random.between(12, 24);
            edged(source, symbols, n)
        }
        12..=15 => {
            let n = *source.random.pick(&[10_usize, 12, 14, 16, 16, 20, 24, 32]);
            random_mixed(source, n)
        }
        16 => {
            let n = *source.random.pick(&[24_usize, 32, 32, 40]);
            source.random.letters(HEX, n)
        }
        17 => {
            let n = *source.random.pick(&[12_usize, 16, 24, 32]);
            STANDARD.encode(source.random.bytes(n))
        }
        18 => {
            // What phones propose: three groups of six.
            let mut group = || source.random.letters(&format!("{LOWER}{LOWER}{UPPER}{DIGITS}"), 6);
            format!("{}-{}-{}", group(), group(), group())
        }
        _ if source.random.percent(40) => source.word("pwunicode"),
        _ => ordinary::uuid(source),
    }
}

/// In the user info of a URL: encoded as it ought to be, at times raw.
fn url_password(source: &mut Source<'_>) -> String {
    let word = source.word("pwword");
    let n = source.random.between(1, 2027);
    match source.random.below(12) {
        0 => format!("{word}%40{n}"),
        1 => format!("{word}{n}%21"),
        2 => format!("{word}%23{n}%24"),
        3 => format!("{word}{n}!"),
        4 => format!("{word}@{n}"),
        5 => format!("{}%2B{}%3D", random_mixed(source, 14), random_mixed(source, 16)),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    match source.random.below(12) {
        0..4 => {
            let n = *source.random.pick(&[24_usize, 32, 32, 36, 40, 43, 64]);
            random_mixed(source, n)
        }
        4..6 => {
            let n = *source.random.pick(&[32_usize, 32, 40, 64]);
            source.random.letters(HEX, n)
        }
        6 => ordinary::uuid(source),
        7 | 8 => {
            let n = *source.random.pick(&[24_usize, 32, 32, 64]);
            STANDARD.encode(source.random.bytes(n))
        }
        9 => URL_SAFE_NO_PAD.encode(source.random.bytes(32)),
        10 => {
            let front = *source.random.pick(&["dk", "api", "live", "test", "prod", "pk1"]);
            format!("{front}_{}", random_mixed(source, 28))
        }
        _ => {
            let n = source.random.between(28, 40);
            format!("{}.{}", random_mixed(source, 8), random_mixed(source, n))
        }
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    let (first, last) = (personal::plain(first), personal::plain(last));
    let initial = &first[..1];
    match source.random.below(14) {
        0..6 => format!("{first}.{last}"),
        6 => format!("{initial}{last}"),
        7 => format!("{initial}.{last}"),
        8 => format!("{first}{last}{}", source.random.between(1, 99)),
        9 => first,
        10 => format!("{first}_{last}"),
        11 => format!("{last}.{initial}"),
        12 => format!("{first}.{last}+{}", source.random.pick(&["mendix", "acc", "bank"])),
        _ => {
            (*source.random.pick(&["noreply", "info", "support", "claims", "devops", "it-beheer"]))
                .to_owned()
        }
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    let mut groups = |n: usize| personal::groups(source, n);
    let (one, two, three, four) = (groups(1), groups(2), groups(3), groups(4));
    match source.random.below(8) {
        0 | 1 => format!("2a02:a45{}:{two}:{four}", source.random.letters(HEX, 1)),
        2 => format!("2001:1c0{}:{two}:{four}", source.random.letters(HEX, 1)),
        3 => format!("2603:10a6:{one}:{three}::{}", source.random.between(1, 40)),
        4 => format!("fd{}:{three}::{one}", source.random.letters(HEX, 2)),
        5 => format!("fe80::{four}"),
        6 => format!("::ffff:{}", personal::ipv4(source)),
        _ => format!("2a00:{three}::{two}"),
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("DE", 0, 18),
    ("DE", 0, 18),
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("BE", 0, 12),
    ("FR", 0, 23),
    ("ES", 0, 20),
    ("GB", 4, 14),
    ("AT", 0, 16),
    ("CH", 0, 17),
    ("PL", 0, 24),
    ("LU", 0, 16),
];

const CARDS: Cards = Cards {
    amex: None,
    prefixes: &["4", "4", "4", "4", "51", "52", "53", "54", "55", "2221", "2655", "6011", "6763"],
    rare: &[(5, "34", 15), (5, "37", 15)],
};

/// A day of birth as databases and forms write it.
fn born(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1941, 2006), random.between(1, 12), random.between(1, 28));
    match random.below(3) {
        0 => format!("{day:02}-{month:02}-{year}"),
        _ => format!("{year}-{month:02}-{day:02}"),
    }
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "06-%#######",
    "06-%#######",
    "06%#######",
    "06 %### ####",
    "06 %# ## ## ##",
    "+316%#######",
    "+316%#######",
    "+31 6 %#######",
    "+31 6 %# ## ## ##",
    "+31 (0)6 %#######",
    "0031 6 %#######",
    "020-%######",
    "020 %## ## ##",
    "030-%## ####",
    "+31 20 %## ####",
    "+31 88 %## ## ##",
    "+31 (0)30 %######",
    "+32 2 %## ## ##",
    "+3247#######",
    "0475/%#.##.##",
    "+49 151 %#######",
    "+4917%########",
    "0176 %#######",
    "+49 69 %######",
    "+49 (0)221 %#######",
    "089/%######",
    "+44 7700 9#####",
    "+44 20 7### ####",
    "07700 9#####",
    "+33 6 %# ## ## ##",
    "+1 (312) 555-####",
    "+1-646-555-####",
    "+34 6## ### ###",
    "+48 60# ### ###",
    "+41 79 %## ## ##",
];
