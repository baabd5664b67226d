//! Forms of values that the rehearsal set has for itself: what people choose, and how they write
//! down addresses and numbers. The first two sets' forms are beside their generators.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::credential::{self, edged, random_mixed};
use super::{ALNUM, Cards, DIGITS, Forms, HEX, LOWER, URL_SAFE, ordinary, personal};
use crate::fill::Source;

pub(crate) const FORMS: Forms = Forms {
    value: |_, _, _| None,
    candidate,
    url_password,
    token,
    mailbox,
    ipv6,
    ibans: IBANS,
    cards: CARDS,
    phones: PHONES,
};

/// A password; one with other symbols than `symbols` is thought up anew.
fn candidate(source: &mut Source<'_>, symbols: &str) -> String {
    let word = source.word("pwword");
    match source.random.below(11) {
        0 => format!("{word}{}{:02}", source.random.letters(symbols, 1), source.random.below(100)),
        1 => source.word("pwwalk"),
        2 => {
            let (second, third) = (source.word("pwword"), source.word("pwword"));
            let by = *source.random.pick(&['-', '_', '.']);
            format!("{word}{by}{second}{by}{third}{}", source.random.below(10))
        }
        3 => {
            let n = source.random.between(12, 20);
            edged(source, symbols, n)
        }
        4 => {
            let n = *source.random.pick(&[12_usize, 16, 24]);
            STANDARD.encode(source.random.bytes(n))
        }
        5 => {
            let n = 2 * source.random.between(8, 20);
            source.random.letters(HEX, n)
        }
        6 | 7 => {
            let n = *source.random.pick(&[10_usize, 12, 16, 20, 32]);
            random_mixed(source, n)
        }
        8 => source.word("pwunicode"),
        9 => {
            let name = source.word("first").to_lowercase();
            format!("{name}{}", source.random.between(1948, 2012))
        }
        _ => format!("20{}", source.random.letters(DIGITS, 6)),
    }
}

/// In the user info of a URL: by the book, or as people write it.
fn url_password(source: &mut Source<'_>) -> String {
    let (word, other) = (source.word("pwword"), source.word("pwword"));
    let n = source.random.below(1000);
    match source.random.below(7) {
        0 => format!("{word}%40{n}"),
        1 => format!("{word}%2F{other}%21"),
        2 => format!("{n}@{word}!"),
        3 => format!("{word}${other}&{n}"),
        4 => format!("{word}={n}+"),
        _ => credential::password(source, "-_.~"),
    }
}

fn token(source: &mut Source<'_>) -> String {
    let n = source.random.between(20, 64);
    match source.random.below(9) {
        0 | 1 => random_mixed(source, n),
        2 => source.random.letters(HEX, 32),
        3 => source.random.letters(HEX, 48),
        4 => STANDARD.encode(source.random.bytes(n)),
        5 => ordinary::uuid(source).to_uppercase(),
        6 => source.random.letters("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 32),
        7 => {
            let stage = *source.random.pick(&["live", "prod", "acc"]);
            format!(
                "{}_{stage}_{}",
                source.random.letters(LOWER, 2),
                source.random.letters(ALNUM, 32)
            )
        }
        _ => source.random.letters(URL_SAFE, n) + &source.random.letters(ALNUM, 1),
    }
}

/// What stands before the `@`.
fn mailbox(source: &mut Source<'_>, first: &str, last: &str) -> String {
    // Directories write names without their accents.
    let first: String = first.to_lowercase().chars().filter(char::is_ascii).collect();
    let last = last.to_lowercase();
    let initial = &first[..1];
    match source.random.below(9) {
        0 | 1 => format!("{first}.{last}"),
        2 => format!("{initial}{last}"),
        3 => format!("{first}_{last}"),
        4 => format!("{initial}.van.der.{last}"),
        5 => format!("s{}", source.random.letters(DIGITS, 7)),
        6 => format!("{first}+{}", source.random.pick(&["orders", "github", "test1"])),
        7 => (*source.random.pick(&["info", "administratie", "noreply", "J.O'Brien"])).to_owned(),
        _ => format!("{}.{}", last.to_uppercase(), first.to_uppercase()),
    }
}

/// A guest of an Entra tenant, as its user principal name has it.
pub(super) fn guest(source: &mut Source<'_>) -> String {
    let (last, domain) = (source.word("last").to_lowercase(), source.word("maildomain"));
    let initial = source.random.letters(LOWER, 1);
    format!("{initial}.{last}_{domain}#EXT#@contoso.onmicrosoft.com")
}

fn ipv6(source: &mut Source<'_>) -> String {
    if !source.random.percent(50) {
        return personal::usual_ipv6(source);
    }
    let mut group = || source.random.letters(HEX, 4);
    let (a, b, c, d) = (group(), group(), group(), group());
    match source.random.below(5) {
        0 => format!("2001:0db8:85a3:0000:0000:{a}:{b}:{c}"),
        1 => format!("2a00:1450:400e:80{}::200e", &a[..1]),
        2 => format!("64:ff9b::{}", personal::ipv4(source)),
        3 => format!("2a10:3781:{}:1:{a}:{b}:{c}:{d}", source.random.between(1000, 9999)),
        _ => format!(
            "fd00:10:244:{}::{:x}",
            source.random.between(1, 90),
            source.random.between(2, 4000)
        ),
    }
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("NL", 4, 10),
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("IT", 1, 22),
    ("CH", 0, 17),
    ("LU", 0, 16),
    ("SE", 0, 20),
    ("DK", 0, 14),
    ("PT", 0, 21),
    ("CZ", 0, 20),
];

const CARDS: Cards = Cards {
    amex: Some("37"),
    prefixes: &["4", "4", "52", "54", "2720", "6011", "3528", "6799"],
    rare: &[(10, "36", 14), (10, "34", 15)],
};

/// A day on which people who have an account were born.
pub(super) fn birth(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (year, month, day) =
        (random.between(1938, 2008), random.between(1, 12), random.between(1, 28));
    format!("{year}-{month:02}-{day:02}")
}

/// `#` is a digit, `%` one from 1 to 9.
const PHONES: &[&str] = &[
    "+316%#######",
    "+31 (0)6 %### ####",
    "+31 (0) 6 %#######",
    "+31.6.%#######",
    "06%#######",
    "06 %### ####",
    "0031-6-%#######",
    "010 - %## ## ##",
    "088 %## ####",
    "+49-170-%######",
    "+49151%#######",
    "030/%######",
    "+44 (0)20 7%## ####",
    "07%## ######",
    "+4479########",
    "+1 (212) %##-####",
    "212-%##-####",
    "415.%##.####",
    "+32 (0)2 %## ## ##",
    "+32470######",
    "+336########",
    "+34 6## ### ###",
    "+39 33% #######",
    "+41 79 %## ## ##",
    "+46 70 %## ## ##",
];
