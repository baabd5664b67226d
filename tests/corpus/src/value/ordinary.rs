//! What ordinary lines are full of: times, hashes, versions, counts.

use super::{ALNUM, DIGITS, HEX, LOWER, length, personal};
use crate::fill::Source;

pub(crate) struct Ordinary {
    pub(crate) text: String,
    /// It must come out of redaction as it was.
    pub(crate) readable: bool,
}

/// Kubernetes' alphabet for generated names: no vowels, nothing that looks like another letter.
const NAME: &str = "bcdfghjklmnpqrstvwxz2456789";
const MONTHS: &[&str] =
    &["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: &[&str] = &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

struct Moment {
    year: usize,
    month: usize,
    day: usize,
    clock: String,
}

fn moment(source: &mut Source<'_>) -> Moment {
    let random = &mut *source.random;
    Moment {
        year: random.between(2025, 2027),
        month: random.between(1, 12),
        day: random.between(1, 28),
        clock: format!("{:02}:{:02}:{:02}", random.below(24), random.below(60), random.below(60)),
    }
}

/// The value of a generator of ordinary text, or `None` if there is none of that name.
pub(crate) fn ordinary(name: &str, argument: &str, source: &mut Source<'_>) -> Option<Ordinary> {
    let text = match name {
        "ts" | "tsoff" | "tsn" | "tsc" | "tss" | "tsk" | "kd" | "tsng" | "tsgo" | "tsrfc"
        | "day" | "clock" => time(name, source),
        "epoch" => format!("17{}", source.random.letters(DIGITS, 8)),
        "epochms" => format!("17{}", source.random.letters(DIGITS, 11)),
        "epochf" => {
            format!("17{}.{}", source.random.letters(DIGITS, 8), source.random.letters(DIGITS, 7))
        }
        "uuid" => uuid(source),
        "sha1" => source.random.letters(HEX, 40),
        "sha256" => source.random.letters(HEX, 64),
        "sha7" => source.random.letters(HEX, 7),
        "digest" => format!("sha256:{}", source.random.letters(HEX, 64)),
        "trace" => source.random.letters(HEX, 32),
        "span" => source.random.letters(HEX, 16),
        "hex" => {
            let n = length(argument, source, (8, 8));
            source.random.letters(HEX, n)
        }
        // A certificate's, as OpenSSL prints it.
        "fp" => {
            let n = *source.random.pick(&[20, 32]);
            let bytes = source.random.bytes(n);
            bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
        }
        "ver" => format!(
            "{}.{}.{}",
            source.random.between(0, 32),
            source.random.below(40),
            source.random.below(30)
        ),
        "build" => format!(
            "10.{}.{}.{}",
            source.random.between(10, 30),
            source.random.below(20),
            source.random.between(20000, 99999)
        ),
        "port" => (*source.random.pick(&[
            80_usize, 443, 1433, 3000, 5432, 5671, 6379, 6443, 8000, 8080, 8090, 8443, 9090, 9093,
            9443, 10250, 10257, 15020,
        ]))
        .to_string(),
        "dur" => duration(source),
        "count" => (*source.random.pick(&[9_usize, 99, 999, 9999, 999_999]) as u64
            % (source.random.bits() % 1000 + 1))
            .to_string(),
        "int" => length(argument, source, (0, 100)).to_string(),
        "digits" => {
            let n = length(argument, source, (6, 6));
            let first = source.random.between(1, 9);
            format!("{first}{}", source.random.letters(DIGITS, n - 1))
        }
        "notcard" => failing(source, 16, personal::luhn),
        "notbsn" => failing(source, 9, personal::eleven),
        "notiban" => failing_iban(source),
        "pod" => format!(
            "{}-{}-{}",
            source.word("app"),
            source.random.letters(NAME, 9),
            source.random.letters(NAME, 5)
        ),
        "sfx" => source.random.letters(NAME, 5),
        "rs" => source.random.letters(NAME, 10),
        "lo" => {
            let n = length(argument, source, (6, 6));
            source.random.letters(LOWER, n)
        }
        "alnum" => {
            let n = length(argument, source, (8, 8));
            source.random.letters(ALNUM, n)
        }
        _ => return None,
    };
    let readable = !matches!(name, "sfx" | "lo" | "alnum" | "rs" | "hex");
    Some(Ordinary { text, readable })
}

/// Digits that look like something with a check digit and are not.
fn failing(source: &mut Source<'_>, digits: usize, passes: fn(&str) -> bool) -> String {
    loop {
        let first = source.random.between(1, 9);
        let number = format!("{first}{}", source.random.letters(DIGITS, digits - 1));
        if !passes(&number) {
            return number;
        }
    }
}

fn failing_iban(source: &mut Source<'_>) -> String {
    loop {
        let (check, account) =
            (source.random.letters(DIGITS, 2), source.random.letters(DIGITS, 10));
        if personal::mod_97(&format!("MXNL{account}NL{check}")) != 1 {
            return format!("NL{check}MXNL{account}");
        }
    }
}

pub(crate) fn uuid(source: &mut Source<'_>) -> String {
    let mut part = |n| source.random.letters(HEX, n);
    let (a, b, c, d, e) = (part(8), part(4), part(3), part(3), part(12));
    format!("{a}-{b}-4{c}-a{d}-{e}")
}

fn time(name: &str, source: &mut Source<'_>) -> String {
    let Moment { year, month, day, clock } = moment(source);
    let fraction = source.random.letters(DIGITS, 9);
    let (milli, micro) = (&fraction[..3], &fraction[..6]);
    let date = format!("{year}-{month:02}-{day:02}");
    let (weekday, month_name) = (*source.random.pick(DAYS), MONTHS[month - 1]);
    match name {
        "ts" => format!("{date}T{clock}.{milli}Z"),
        "tsoff" => format!("{date}T{clock}.{milli}+01:00"),
        "tsn" => format!("{date}T{clock}.{fraction}Z"),
        "tsc" => format!("{date} {clock},{milli}"),
        "tss" => format!("{date} {clock}.{milli}"),
        "tsk" => format!("{clock}.{micro}"),
        "kd" => format!("{month:02}{day:02}"),
        "tsng" => format!("{day:02}/{month_name}/{year}:{clock} +0000"),
        "tsgo" => format!("{year}/{month:02}/{day:02} {clock}"),
        "tsrfc" => format!("{weekday}, {day:02} {month_name} {year} {clock} GMT"),
        "clock" => clock,
        _ => date,
    }
}

fn duration(source: &mut Source<'_>) -> String {
    let (whole, part) = (source.random.between(0, 900), source.random.letters(DIGITS, 3));
    match source.random.below(5) {
        0 => format!("{whole}ms"),
        1 => format!("{whole}.{part}ms"),
        2 => format!("{}.{part}s", whole % 60),
        3 => format!("{}m{}s", whole % 60, whole % 59),
        _ => format!("{whole}.{part}µs"),
    }
}
