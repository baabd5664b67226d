//! Personal data whose checksums hold.

use super::{Cards, DIGITS, HEX, UPPER, rehearsal};
use crate::fill::Source;
use crate::template::Hand;

/// The value of a generator of personal data, or `None` if there is none of that name.
pub(crate) fn value(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    Some(match name {
        "email" => email(source),
        "ip4" => ipv4(source),
        "ip6" => ipv6(source),
        "iban" => iban(argument, source),
        "card" => card(argument, source),
        "bsn" => bsn(argument, source),
        "birth" => rehearsal::birth(source),
        "guestupn" => rehearsal::guest(source),
        "phone" => phone(argument, source),
        _ => return None,
    })
}

fn email(source: &mut Source<'_>) -> String {
    let (first, last) = (source.word("first"), source.word("last"));
    if let Hand::Own(forms) = source.part.hand {
        let local = (forms.mailbox)(source, &first, &last);
        return format!("{local}@{}", source.word("maildomain"));
    }
    let (lower_first, lower_last) = (first.to_lowercase(), last.to_lowercase());
    let initial = &lower_first[..1];
    let local = match (source.part.hand, source.random.below(6)) {
        (_, 0) => format!("{lower_first}.{lower_last}"),
        (_, 1) => format!("{initial}{lower_last}{}", source.random.between(1, 99)),
        (Hand::Development, 2) => format!("{first}.{last}+mendix"),
        (Hand::Development, 3) => format!("{lower_last}_{initial}"),
        (Hand::Development, 4) => format!("{initial}.van.{lower_last}"),
        (Hand::Development, _) => lower_first,
        (Hand::Validation, 2) => format!("{lower_first}-{lower_last}"),
        (Hand::Validation, 3) => {
            format!("{initial}.{}.{lower_last}", source.random.letters("abcdehjmrst", 1))
        }
        (Hand::Validation, 4) => {
            format!("{lower_last}.{lower_first}.ext+sso{}", source.random.below(9))
        }
        (_, _) => {
            format!("{}{}", source.random.letters(UPPER, 1), source.random.letters(DIGITS, 6))
        }
    };
    format!("{local}@{}", source.word("maildomain"))
}

pub(super) fn ipv4(source: &mut Source<'_>) -> String {
    let random = &mut *source.random;
    let (a, b, c, d) =
        (random.below(256), random.below(256), random.below(256), random.between(1, 254));
    match random.below(6) {
        0 => format!("10.{b}.{c}.{d}"),
        1 => format!("172.{}.{c}.{d}", random.between(16, 31)),
        2 => format!("192.168.{c}.{d}"),
        3 => format!("100.{}.{c}.{d}", random.between(64, 127)),
        _ => {
            let first = *random
                .pick(&[20, 31, 40, 51, 52, 62, 77, 80, 85, 92, 104, 145, 178, 185, 194, 213]);
            format!("{first}.{}.{c}.{d}", if a == 0 { b } else { a })
        }
    }
}

fn ipv6(source: &mut Source<'_>) -> String {
    match source.part.hand {
        Hand::Own(forms) => (forms.ipv6)(source),
        _ => usual_ipv6(source),
    }
}

/// As the first two sets have them.
pub(super) fn usual_ipv6(source: &mut Source<'_>) -> String {
    let mut of = |n| groups(source, n);
    let (two, three, four, five) = (of(2), of(3), of(4), of(5));
    match source.random.below(7) {
        0 => format!("2001:db8::{two}"),
        1 => format!("2a02:a4{}:{three}::{two}", source.random.letters(HEX, 2)),
        2 => format!("fd{}:{five}:{two}", source.random.letters(HEX, 2)),
        3 => format!("fe80::{four}"),
        4 => format!(
            "2603:1020:{}::{}",
            source.random.between(200, 900),
            source.random.between(1, 99)
        ),
        5 => format!("2A01:{}::{}", three.to_uppercase(), source.random.between(1, 9)),
        _ => format!("::ffff:{}", ipv4(source)),
    }
}

/// The letters of a name, as they stand in a mailbox's.
pub(super) fn plain(name: &str) -> String {
    name.to_lowercase().chars().filter(char::is_ascii_alphabetic).collect()
}

/// Groups of an IPv6 address as most write them: lower case, without leading zeros.
pub(super) fn groups(source: &mut Source<'_>, n: usize) -> String {
    let mut group = || {
        let n = source.random.between(1, 4);
        source.random.letters("123456789abcdef", 1) + &source.random.letters(HEX, n - 1)
    };
    (0..n).map(|_| group()).collect::<Vec<_>>().join(":")
}

/// Country, length of the bank's letters, length of the digits behind.
const IBANS: &[(&str, usize, usize)] = &[
    ("NL", 4, 10),
    ("DE", 0, 18),
    ("BE", 0, 12),
    ("GB", 4, 14),
    ("FR", 0, 23),
    ("AT", 0, 16),
    ("IE", 4, 14),
    ("ES", 0, 20),
    ("PL", 0, 24),
    ("NO", 0, 11),
];
const DUTCH_BANKS: &[&str] = &["ABNA", "RABO", "INGB", "TRIO", "KNAB", "BUNQ", "SNSB"];

fn iban(argument: &str, source: &mut Source<'_>) -> String {
    let (country, letters, digits) = match (source.random.below(2), source.part.hand) {
        (0, _) => IBANS[0],
        (_, Hand::Own(forms)) => *source.random.pick(forms.ibans),
        _ => *source.random.pick(IBANS),
    };
    let bank = match country {
        "NL" => (*source.random.pick(DUTCH_BANKS)).to_owned(),
        _ => source.random.letters(UPPER, letters),
    };
    let body = format!("{bank}{}", source.random.letters(DIGITS, digits));
    let check = 98 - mod_97(&format!("{body}{country}00"));
    let iban = format!("{country}{check:02}{body}");
    match argument {
        "spaced" => grouped(&iban, ' '),
        "lower" => iban.to_lowercase(),
        _ => iban,
    }
}

/// The remainder that ISO 13616 asks for: letters count from 10.
pub(crate) fn mod_97(text: &str) -> u32 {
    text.chars().filter_map(|c| c.to_digit(36)).fold(0, |rest, digit| {
        if digit < 10 { (rest * 10 + digit) % 97 } else { (rest * 100 + digit) % 97 }
    })
}

pub(super) fn grouped(text: &str, by: char) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            out.push(by);
        }
        out.push(c);
    }
    out
}

fn card(argument: &str, source: &mut Source<'_>) -> String {
    if let Hand::Own(forms) = source.part.hand {
        return own_card(&forms.cards, argument, source);
    }
    let (prefix, length) = *source.random.pick(&[
        ("4", 16),
        ("4", 16),
        ("51", 16),
        ("55", 16),
        ("2221", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("6759", 16),
        ("4", 13),
    ]);
    // Where groups are asked for, only numbers that are printed in fours.
    let (prefix, length) =
        if argument.is_empty() || length == 16 { (prefix, length) } else { ("53", 16) };
    let number = card_number(prefix, length, source);
    match argument {
        "spaced" => grouped(&number, ' '),
        "dashed" => grouped(&number, '-'),
        _ => number,
    }
}

fn own_card(cards: &Cards, argument: &str, source: &mut Source<'_>) -> String {
    if let Some(prefix) = cards.amex.filter(|_| argument == "amex") {
        let number = card_number(prefix, 15, source);
        return format!("{} {} {}", &number[..4], &number[4..10], &number[10..]);
    }
    let prefix = *source.random.pick(cards.prefixes);
    let number = card_number(prefix, 16, source);
    match argument {
        "spaced" => return grouped(&number, ' '),
        "dashed" => return grouped(&number, '-'),
        _ => {}
    }
    let mut rare = cards.rare.iter();
    match rare.find(|(percent, ..)| source.random.percent(*percent)) {
        Some((_, prefix, length)) => card_number(prefix, *length, source),
        None => number,
    }
}

/// `length` digits behind `prefix`, the last of them the check digit.
pub(super) fn card_number(prefix: &str, length: usize, source: &mut Source<'_>) -> String {
    let digits = source.random.letters(DIGITS, length - prefix.len() - 1);
    let body = format!("{prefix}{digits}");
    let check = (0..10).find(|c| luhn(&format!("{body}{c}"))).unwrap_or_default();
    format!("{body}{check}")
}

/// Whether the digits pass ISO/IEC 7812's check.
pub(crate) fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(at, d)| {
            if at % 2 == 0 {
                d
            } else if d > 4 {
                d * 2 - 9
            } else {
                d * 2
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn bsn(argument: &str, source: &mut Source<'_>) -> String {
    loop {
        let first = source.random.between(1, 9);
        let number = format!("{first}{}", source.random.letters(DIGITS, 8));
        if eleven(&number) {
            return match argument {
                "dotted" => format!("{}.{}.{}", &number[..4], &number[4..6], &number[6..]),
                _ => number,
            };
        }
    }
}

/// Whether nine digits pass the 11-test: weights 9 to 2, and -1 for the last.
pub(crate) fn eleven(digits: &str) -> bool {
    let weights = [9, 8, 7, 6, 5, 4, 3, 2, -1];
    let sum: i32 =
        digits.chars().filter_map(|c| c.to_digit(10)).zip(weights).map(|(d, w)| d as i32 * w).sum();
    sum % 11 == 0 && digits.len() == 9
}

/// `#` is a digit, `%` one from 1 to 9. The development set's, and the
/// validation set's.
const PHONES: (&[&str], &[&str]) = (
    &[
        "+31 6 %#######",
        "+316########",
        "06-%#######",
        "06 ## ## ## ##",
        "+31 (0)20 ### ## ##",
        "020-%######",
        "0031 6 %#######",
        "+49 30 %#######",
        "+49 170 %######",
        "0151 %#######",
        "+1 (415) %##-####",
        "+1-212-%##-####",
        "+44 20 %### ####",
        "+32 475 ## ## ##",
    ],
    &[
        "+31-6-%#######",
        "+31 %# ### ####",
        "06 %## ## ###",
        "(020) %## ####",
        "0%0-%######",
        "+31(0)6 %#######",
        "+49 (0)89 %#######",
        "+49 1%# %### ####",
        "0049 211 %#####",
        "(312) %##-####",
        "+1 646.%##.####",
        "+1%##%######",
        "+44 7%## ######",
        "+33 6 ## ## ## ##",
        "+353 1 %## ####",
        "+48 %## ### ###",
    ],
);

/// With the argument `intl` one that begins with a plus, with `tight` one that has nothing else but
/// digits.
fn phone(argument: &str, source: &mut Source<'_>) -> String {
    let notations = match source.part.hand {
        Hand::Development => PHONES.0,
        Hand::Validation => PHONES.1,
        Hand::Own(forms) => forms.phones,
    };
    let fits = |notation: &&&str| match argument {
        "intl" => notation.starts_with('+'),
        "tight" => {
            notation.starts_with('+')
                && notation[1..].chars().all(|c| c.is_ascii_digit() || "#%".contains(c))
        }
        _ => true,
    };
    let fit: Vec<_> = notations.iter().filter(fits).collect();
    let notation = source.random.pick(&fit).to_owned();
    notation
        .chars()
        .map(|c| match c {
            '#' => char::from(*source.random.pick(DIGITS.as_bytes())),
            '%' => char::from(*source.random.pick(&DIGITS.as_bytes()[1..])),
            c => c,
        })
        .collect()
}
