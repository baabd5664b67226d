//! What collectors, loggers and terminals do to a line after it was written.

use crate::fill::Source;
use crate::labelled::{self, Labelled};
use crate::value;

/// How a sample's text was wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrap {
    /// As the template has it.
    Plain,
    /// Inside as many JSON strings (1 to 3).
    Json(u8),
    /// Every line in a record of the CRI: time, stream, tag.
    Cri,
    /// CRI records whose text is one JSON string.
    CriJson,
    /// A time in front of every line, as `kubectl logs --timestamps` prints.
    Timestamps,
    /// Every line coloured.
    ColouredLines,
    /// The secrets (without one: the last decoy, or the first word) coloured.
    ColouredValues,
    /// Percent-encoded, as a query parameter.
    Percent,
}

impl Wrap {
    pub(crate) fn drawn(source: &mut Source<'_>) -> Self {
        match source.random.below(100) {
            0..52 => Self::Plain,
            52..61 => Self::Json(1),
            61..66 => Self::Json(2),
            66..69 => Self::Json(3),
            69..79 => Self::Cri,
            79..83 => Self::CriJson,
            83..88 => Self::Timestamps,
            88..93 => Self::ColouredLines,
            93..98 => Self::ColouredValues,
            _ => Self::Percent,
        }
    }

    pub(crate) fn around(self, text: Labelled, source: &mut Source<'_>) -> Labelled {
        match self {
            Self::Plain => text,
            Self::Json(levels) => (0..levels).fold(text, |text, _| in_json(&text, source)),
            Self::Cri => {
                let stream = *source.random.pick(&["stdout", "stderr"]);
                in_front(text, source, |time| format!("{time} {stream} F "), "tsn")
            }
            Self::CriJson => {
                let inner = in_json(&text, source);
                in_front(inner, source, |time| format!("{time} stderr F "), "tsn")
            }
            Self::Timestamps => in_front(text, source, |time| format!("{time} "), "tsn"),
            Self::ColouredLines => {
                let colour = source.random.between(31, 37);
                coloured_lines(text, &format!("\u{1b}[{colour}m"))
            }
            Self::ColouredValues => coloured_values(text, source),
            Self::Percent => {
                let front = source.word("query_front");
                let mut out = Labelled::default();
                out.push(&front);
                out.append(text.encoded(labelled::percent));
                out
            }
        }
    }
}

fn in_json(text: &Labelled, source: &mut Source<'_>) -> Labelled {
    let around = source.word("json_around");
    let (front, back) = around.split_once('†').unwrap_or((&around, ""));
    let mut out = Labelled::default();
    out.push(front);
    out.append(if source.random.percent(30) {
        text.encoded(labelled::json_html)
    } else {
        text.encoded(labelled::json)
    });
    out.push(back);
    out
}

fn in_front(
    mut text: Labelled,
    source: &mut Source<'_>,
    front: impl Fn(&str) -> String,
    clock: &str,
) -> Labelled {
    let time = value::ordinary(clock, "", source).map(|t| t.text).unwrap_or_default();
    // One write, many lines: the collector's time differs in its last digits.
    let (stem, _) = time.split_at(time.len().saturating_sub(5));
    for at in text.line_starts().into_iter().rev() {
        let front = front(&format!("{stem}{:04}Z", source.random.below(10_000)));
        text.insert(at, &front);
    }
    text
}

const RESET: &str = "\u{1b}[0m";

fn coloured_lines(mut text: Labelled, colour: &str) -> Labelled {
    for at in text.line_starts().into_iter().rev() {
        let end = text.text[at..].find('\n').map_or(text.text.len(), |n| at + n);
        text.insert(end, RESET);
        text.insert(at, colour);
    }
    text
}

/// Loggers for terminals colour values apart from their keys.
fn coloured_values(mut text: Labelled, source: &mut Source<'_>) -> Labelled {
    let colour = format!("\u{1b}[{};{}m", source.random.below(2), source.random.between(31, 37));
    let mut ranges: Vec<_> = text.secrets.iter().map(|p| p.range.clone()).collect();
    if ranges.is_empty() {
        let first_word = 0..text.text.find(' ').unwrap_or(text.text.len());
        ranges.push(text.decoys.last().cloned().unwrap_or(first_word));
    }
    ranges.sort_by_key(|r| std::cmp::Reverse(r.start));
    for range in ranges {
        text.insert(range.end, RESET);
        text.insert(range.start, &colour);
    }
    text
}
