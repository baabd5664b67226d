//! Generators of values. Secrets are what must not be readable afterwards; of the ordinary values
//! most must be.

pub(crate) mod credential;
mod development;
pub(crate) mod evaluation;
pub(crate) mod fifth_rehearsal;
pub(crate) mod fourth_rehearsal;
mod issued;
mod ordinary;
pub(crate) mod personal;
pub(crate) mod rehearsal;
pub(crate) mod second_rehearsal;
pub(crate) mod third_rehearsal;

pub(crate) use ordinary::ordinary;

use crate::fill::Source;

pub(crate) const DIGITS: &str = "0123456789";
pub(crate) const HEX: &str = "0123456789abcdef";
pub(crate) const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub(crate) const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub(crate) const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
pub(crate) const URL_SAFE: &str =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a part of a set has for itself: what people choose there, how they write down addresses and
/// numbers, and what issuers hand out.
#[derive(Debug)]
pub(crate) struct Forms {
    /// The value of a generator of secrets that no other part has, or `None` if there is none of that
    /// name. Templates of other parts may ask for it, too.
    value: fn(&str, &str, &mut Source<'_>) -> Option<String>,
    /// A password; one with other symbols than those named is thought up anew.
    candidate: fn(&mut Source<'_>, &str) -> String,
    /// In the user info of a URL.
    url_password: fn(&mut Source<'_>) -> String,
    token: fn(&mut Source<'_>) -> String,
    /// What stands before the `@`, of a first and a last name.
    mailbox: fn(&mut Source<'_>, &str, &str) -> String,
    ipv6: fn(&mut Source<'_>) -> String,
    /// Country, length of the bank's letters, length of the digits behind.
    ibans: &'static [(&'static str, usize, usize)],
    cards: Cards,
    /// `#` is a digit, `%` one from 1 to 9.
    phones: &'static [&'static str],
}

/// Which cards a part has.
#[derive(Debug)]
pub(crate) struct Cards {
    /// What the numbers of fifteen digits begin with that are written in the groups of such a card.
    amex: Option<&'static str>,
    /// What most numbers begin with, of sixteen digits.
    prefixes: &'static [&'static str],
    /// How many percent of those without groups begin otherwise, with what, and how long they are.
    rare: &'static [(usize, &'static str, usize)],
}

const FORMS: &[&Forms] = &[
    &second_rehearsal::FORMS,
    &third_rehearsal::FORMS,
    &fourth_rehearsal::FORMS,
    &fifth_rehearsal::FORMS,
    &evaluation::FORMS,
];

/// The value of a secret generator, or `None` if there is none of that name.
pub(crate) fn secret(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    credential::value(name, argument, source)
        .or_else(|| development::value(name, argument, source))
        .or_else(|| issued::value(name, argument, source))
        .or_else(|| FORMS.iter().find_map(|forms| (forms.value)(name, argument, source)))
        .or_else(|| personal::value(name, argument, source))
}

/// The length that an argument such as `40` or `20-60` asks for.
fn length(argument: &str, source: &mut Source<'_>, default: (usize, usize)) -> usize {
    let number = |text: &str| text.parse::<usize>().ok();
    let (low, high) = match argument.split_once('-') {
        Some((low, high)) => number(low).zip(number(high)).unwrap_or(default),
        None => number(argument).map_or(default, |n| (n, n)),
    };
    source.random.between(low, high)
}
