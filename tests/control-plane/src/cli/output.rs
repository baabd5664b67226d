//! What commands print: a table or sentences for people, one JSON document for machines.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences.
    Table,
    /// One JSON document on stdout.
    Json,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a result. A reader that went away (`| head`) is no failure.
    pub(super) fn print(self, json: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.format {
            Format::Table => text(),
            Format::Json => serde_json::to_string_pretty(json)
                .unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string())),
        };
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Prints why a command failed, on stderr.
    pub(super) fn failure(self, failure: &Failure) {
        let text = match self.format {
            Format::Table => format!("error: {failure}"),
            Format::Json => serde_json::json!({
                "error": failure.to_string(),
                "exit_code": failure.exit as u8,
            })
            .to_string(),
        };
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A table, or a sentence when there is nothing to show.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    let mut any = false;
    for row in rows {
        any = true;
        table.add_row(row.map(|cell| printable(&cell)));
    }
    if any { table.trim_fmt() } else { empty.to_owned() }
}

/// Text that came over the wire: without what would steer a terminal.
pub(super) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// `12 s ago`, coarse as people want it.
pub(super) fn ago(then: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(then).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `1.4 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut tenths = count.saturating_mul(10);
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_500_000), "1.4 MiB");
    }

    #[test]
    fn text_from_an_agent_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\u{202e}b"), "a\u{fffd}[31m\u{fffd}b");
    }
}
