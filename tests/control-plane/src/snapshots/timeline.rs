//! What went wrong, in order: the errors of all logs, warnings among the events, and what was not
//! collected, read from a finished snapshot without writing any of it to a disk.
//!
//! A line that comes again and again is one row with its count. Numbers and identifiers don't make two
//! lines different.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, BufReader, Read},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    open::{Checked, OpenError},
    unpack::walk,
};
use crate::store::Store;

/// Most rows that are told apart; of more, those that came first.
const MAX_ROWS: usize = 10_000;
/// Most of a line that is shown.
const MAX_TEXT: usize = 240;
/// Most of a line that is compared.
const MAX_KEY: usize = 160;
/// Longest line that is read; the rest of a longer one is skipped.
const MAX_LINE: u64 = 1024 * 1024;

/// What a snapshot tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// The snapshot.
    pub snapshot_id: String,
    /// The ticket it was taken for.
    pub ticket_id: String,
    /// The cluster it comes from.
    pub cluster_uid: String,
    /// Beginning and end of the window, as the manifest says.
    pub window: Option<(String, String)>,
    /// Lines of all logs.
    pub lines: u64,
    /// Rows in the order in which they came first.
    pub rows: Vec<Row>,
    /// Pods that were not well when the snapshot was taken.
    pub unwell: Vec<String>,
    /// What was not collected, or not whole.
    pub gaps: Vec<Value>,
    /// What was replaced, by class.
    pub replaced: BTreeMap<String, u64>,
}

/// A line that stands for all that are like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// When it came first, as the log says it.
    pub first: String,
    /// When it came last.
    pub last: String,
    /// How often it came.
    pub count: u64,
    /// `namespace/pod/container/run`, or `event`.
    pub source: String,
    /// The line, cut.
    pub text: String,
}

/// Reads a finished snapshot.
///
/// # Errors
/// As [`super::open()`].
pub fn timeline(store: &Store, snapshot_id: &str) -> Result<Timeline, OpenError> {
    let checked = Checked::new(store, snapshot_id)?;
    let mut rows = Rows::default();
    let mut told = Timeline {
        snapshot_id: snapshot_id.to_owned(),
        ticket_id: checked.upload.ticket_id.clone(),
        cluster_uid: checked.upload.cluster_uid.clone(),
        ..Timeline::default()
    };
    walk(checked.archive(store)?, |path, entry| {
        let mut counted = Counted { inner: entry, bytes: 0 };
        match path.to_str().unwrap_or_default() {
            "events.jsonl" => lines(&mut counted, |line| rows.event(line))?,
            "errors.jsonl" => lines(&mut counted, |line| told.gaps.extend(object(line)))?,
            "status.jsonl" => lines(&mut counted, |line| told.unwell.extend(unwell(line)))?,
            "redaction.json" => {
                let replaced = whole(&mut counted)?["replaced"].take();
                told.replaced = serde_json::from_value(replaced).unwrap_or_default();
            }
            "manifest.json" => {
                let manifest = whole(&mut counted)?;
                let text = |key: &str| manifest[key].as_str().map(str::to_owned);
                told.window = text("window_from").zip(text("window_to"));
            }
            log => {
                let source = source(log);
                lines(&mut counted, |line| {
                    told.lines += 1;
                    rows.log(&source, line);
                })?;
            }
        }
        // What was not read of it counts as well.
        io::copy(&mut counted, &mut io::sink())?;
        Ok(counted.bytes)
    })
    .map_err(OpenError::Archive)?;
    told.rows = rows.sorted();
    Ok(told)
}

/// `logs/ns/pod/container/run.0001.log` without what is the same everywhere.
fn source(path: &str) -> String {
    let path = path.strip_prefix("logs/").unwrap_or(path);
    let path = path.strip_suffix(".log").unwrap_or(path);
    match path.rsplit_once('.') {
        Some((run, part)) if part.bytes().all(|b| b.is_ascii_digit()) => run.to_owned(),
        _ => path.to_owned(),
    }
}

struct Counted<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn lines(input: &mut impl Read, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut input).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        take(String::from_utf8_lossy(&line).trim_end());
    }
}

fn whole(input: &mut impl Read) -> io::Result<Value> {
    let mut text = Vec::new();
    input.take(16 * MAX_LINE).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

fn object(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().filter(Value::is_object)
}

/// A pod of the status with a container that is not ready, was restarted, or says a reason.
fn unwell(line: &str) -> Option<String> {
    let pod = object(line).filter(|object| object["kind"] == "Pod")?;
    let containers: Vec<_> = pod["containers"].as_array()?.iter().filter_map(told).collect();
    let name = |key: &str| pod[key].as_str().unwrap_or("?").to_owned();
    (!containers.is_empty())
        .then(|| format!("{}/{}: {}", name("namespace"), name("name"), containers.join("; ")))
}

fn told(container: &Value) -> Option<String> {
    let name = container["name"].as_str().unwrap_or("?");
    let restarts = container["restarts"].as_u64().unwrap_or(0);
    let reason = container["reason"].as_str().filter(|reason| *reason != "Completed");
    if restarts == 0 && reason.is_none() {
        return None;
    }
    let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
    Some(format!("{name} restarted {restarts} times{reason}"))
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    index: HashMap<(String, String), usize>,
}

impl Rows {
    fn log(&mut self, source: &str, line: &str) {
        let Some((at, text)) = line.split_once(' ') else { return };
        if is_error(text) && at.parse::<Timestamp>().is_ok() {
            self.add(at, source, text);
        }
    }

    fn event(&mut self, line: &str) {
        let Some(event) = object(line).filter(|event| event["type"] == "Warning") else { return };
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let about = format!(
            "{} {}/{}: {} {}",
            text("kind"),
            text("namespace"),
            text("name"),
            text("reason"),
            text("message")
        );
        self.add(text("time"), "event", &about);
    }

    fn add(&mut self, at: &str, source: &str, text: &str) {
        let key = (source.to_owned(), shape(text));
        if let Some(row) = self.index.get(&key).and_then(|at| self.rows.get_mut(*at)) {
            row.count += 1;
            at.clone_into(&mut row.last);
        } else if self.rows.len() < MAX_ROWS {
            self.index.insert(key, self.rows.len());
            self.rows.push(Row {
                first: at.to_owned(),
                last: at.to_owned(),
                count: 1,
                source: source.to_owned(),
                text: text.chars().take(MAX_TEXT).collect(),
            });
        }
    }

    fn sorted(mut self) -> Vec<Row> {
        // As times: the same moment is written in more than one way.
        self.rows.sort_by_key(|row| row.first.parse::<Timestamp>().ok());
        self.rows
    }
}

/// What two lines have to have in common to count as one: everything but numbers and identifiers.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()).take(MAX_KEY) {
        if word.bytes().any(|b| b.is_ascii_digit()) {
            shape.push('#');
        } else {
            shape.push_str(word);
        }
        if shape.len() > MAX_KEY {
            break;
        }
    }
    shape
}

/// Whether a line says that something failed: by its level, or in the words of a crash.
fn is_error(text: &str) -> bool {
    const LEVELS: [&str; 7] = ["ERROR", "CRITICAL", "FATAL", "SEVERE", "PANIC", "EMERG", "ALERT"];
    const SAID: [&str; 8] = [
        "panic:",
        "Traceback (most recent call last)",
        "Exception in thread",
        "OutOfMemoryError",
        "Segmentation fault",
        "fatal error:",
        "out of memory",
        "level=error",
    ];
    let head: String = text.chars().take(MAX_TEXT).collect();
    klog_error(&head)
        || SAID.iter().any(|said| head.contains(said))
        || json_level(&head)
        || head
            .split(|c: char| !c.is_ascii_alphanumeric())
            .take(12)
            .any(|word| LEVELS.contains(&word))
}

/// `E1120 10:00:00.000000` and `F1120 …`.
fn klog_error(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'E' | b'F'))
        && bytes.len() > 6
        && bytes[1..5].iter().all(u8::is_ascii_digit)
        && bytes[5] == b' '
}

/// `"level": "error"` and what is like it.
fn json_level(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("\"level\"") else { return false };
    let value = rest.trim_start_matches([' ', ':', '"']).to_ascii_lowercase();
    ["error", "critical", "fatal", "panic"].iter().any(|level| value.starts_with(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_known_in_the_shapes_that_logs_have() {
        for line in [
            "ERROR cannot connect",
            "2026-11-20 10:00:00 CRITICAL Core: stopped",
            "E1120 10:00:00.000000 1 leaderelection.go:330] error",
            r#"{"level":"error","ts":1,"msg":"x"}"#,
            r#"{"node":"Core","level": "CRITICAL"}"#,
            "panic: runtime error: index out of range",
            "time=\"…\" level=error msg=x",
            "java.lang.OutOfMemoryError: Java heap space",
        ] {
            assert!(is_error(line), "{line}");
        }
        for line in [
            "INFO no error here",
            "I1120 10:00:00.000000 1 main.go:1] ready",
            r#"{"level":"info","msg":"errors: 0"}"#,
            "Endpoint ready",
            "",
        ] {
            assert!(!is_error(line), "{line}");
        }
    }

    #[test]
    fn lines_that_differ_in_numbers_are_one_row() {
        let mut rows = Rows::default();
        for n in 0..5 {
            rows.log("a/b/c/current", &format!("2026-11-20T10:00:0{n}Z ERROR request {n} failed"));
        }
        rows.log("a/b/c/previous", "2026-11-20T09:59:00Z panic: out of cheese");
        rows.log("a/b/c/current", "2026-11-20T10:00:09Z INFO fine");
        rows.log("a/b/c/current", "no time ERROR");
        rows.event(r#"{"type":"Warning","time":"2026-11-20T10:00:02Z","reason":"BackOff","kind":"Pod","namespace":"a","name":"b","message":"m"}"#);
        rows.event(r#"{"type":"Normal","time":"2026-11-20T10:00:02Z"}"#);
        let rows = rows.sorted();
        let short: Vec<_> = rows.iter().map(|row| (row.source.as_str(), row.count)).collect();
        assert_eq!(short, [("a/b/c/previous", 1), ("a/b/c/current", 5), ("event", 1)]);
        assert_eq!(rows[1].last, "2026-11-20T10:00:04Z");
        assert_eq!(rows[2].text, "Pod a/b: BackOff m");
    }

    #[test]
    fn a_log_is_named_without_its_part() {
        assert_eq!(source("logs/n/p/c/current.0012.log"), "n/p/c/current");
        assert_eq!(source("logs/n/p.1/c/previous.log"), "n/p.1/c/previous");
    }

    #[test]
    fn pods_that_are_not_well_are_named() {
        let pod = |containers: &str| {
            unwell(&format!(
                r#"{{"kind":"Pod","namespace":"n","name":"p","containers":{containers}}}"#
            ))
        };
        assert_eq!(
            pod(r#"[{"name":"c","restarts":3,"reason":"CrashLoopBackOff"}]"#).unwrap(),
            "n/p: c restarted 3 times, CrashLoopBackOff"
        );
        assert_eq!(pod(r#"[{"name":"c","restarts":0,"reason":"Completed"}]"#), None);
        assert_eq!(pod(r#"[{"name":"c","restarts":0,"reason":null}]"#), None);
    }
}
