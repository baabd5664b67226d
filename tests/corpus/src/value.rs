//! Generators of values. Secrets are what must not be readable afterwards; of the ordinary values
//! most must be.

pub(crate) mod credential;
mod development;
mod evaluation;
mod fourth_rehearsal;
mod issued;
mod ordinary;
pub(crate) mod personal;
mod rehearsal;
mod second_rehearsal;
mod third_rehearsal;

pub(crate) use ordinary::ordinary;

use crate::fill::Source;

pub(crate) const DIGITS: &str = "0123456789";
pub(crate) const HEX: &str = "0123456789abcdef";
pub(crate) const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub(crate) const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub(crate) const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
pub(crate) const URL_SAFE: &str =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The value of a secret generator, or `None` if there is none of that name.
pub(crate) fn secret(name: &str, argument: &str, source: &mut Source<'_>) -> Option<String> {
    credential::value(name, argument, source)
        .or_else(|| development::value(name, argument, source))
        .or_else(|| issued::value(name, argument, source))
        .or_else(|| second_rehearsal::value(name, argument, source))
        .or_else(|| third_rehearsal::value(name, argument, source))
        .or_else(|| fourth_rehearsal::value(name, argument, source))
        .or_else(|| evaluation::value(name, argument, source))
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
