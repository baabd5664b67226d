//! What every command shares: how it prints its result, and how it ends.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::ValueEnum;
use owo_colors::{OwoColorize as _, Stream};
use serde::Serialize;

/// How a command ended; documented in docs/operations.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Success,
    /// 1: failed; the message says at what.
    Failed,
    /// 3: the configuration can't be used (2 is clap's, for wrong arguments).
    Config,
    /// 4: the Kubernetes API can't be reached or refused.
    Cluster,
    /// 5: a file does not verify, or what it holds would be refused; the message says why.
    NotVerified,
    /// 10: preflight passed with warnings.
    Warned,
    /// 11: a preflight check failed.
    PreflightFailed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Config => 3,
            Exit::Cluster => 4,
            Exit::NotVerified => 5,
            Exit::Warned => 10,
            Exit::PreflightFailed => 11,
        })
    }
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
    /// For machines whose people read it, too.
    Yaml,
}

/// Why a result could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It can't be written as JSON.
    #[error("write the result as JSON")]
    Json(#[source] serde_json::Error),
    /// It can't be written as YAML.
    #[error("write the result as YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
    /// Standard output does not take it.
    #[error("write to standard output")]
    Write(#[source] io::Error),
}

/// Whether somebody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// As far as one can tell.
    Listens,
    /// The other end of the pipe is closed, as `head` does. That is no failure.
    Gone,
}

impl Output {
    /// Prints `value`, or the `table` of it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn show(
        self,
        value: &impl Serialize,
        table: impl FnOnce() -> String,
    ) -> Result<Reader, ShowError> {
        print(&match self {
            Self::Table => painted(&table(), colours_are_wanted(Stream::Stdout)),
            Self::Json => {
                let mut text = serde_json::to_string_pretty(value).map_err(ShowError::Json)?;
                text.push('\n');
                text
            }
            Self::Yaml => serde_saphyr::to_string(value).map_err(ShowError::Yaml)?,
        })
    }
}

impl Output {
    /// What comes between one result and the next: on a terminal the new one replaces the old.
    pub fn between(self, first: bool) -> &'static str {
        match self {
            Self::Table if io::stdout().is_terminal() => "\x1b[2J\x1b[H",
            Self::Yaml => "---\n",
            Self::Table if !first => "\n",
            Self::Table | Self::Json => "",
        }
    }
}

/// Prints text.
///
/// # Errors
/// When standard output does not take it.
pub fn print(text: &str) -> Result<Reader, ShowError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(ShowError::Write(error)),
    }
}

/// On a terminal, unless `NO_COLOR` is set (no-color.org).
pub(crate) fn colours_are_wanted(stream: Stream) -> bool {
    !"x".if_supports_color(stream, |x| x.green()).to_string().eq("x")
}

/// Columns whose words say how something is.
const JUDGED: [&str; 5] = ["RESULT", "HEALTH", "STATE", "PHASE", "CONSENT"];
const GOOD: [&str; 7] =
    ["Pass", "Ready", "Healthy", "Committed", "Succeeded", "Active", "Connected"];
const BAD: [&str; 8] =
    ["Fail", "Failed", "Refused", "RolledBack", "Reverted", "Held", "Revoked", "Disconnected"];
const BETWEEN: [&str; 5] = ["Warn", "NotReady", "Degraded", "RollingBack", "WaitingForConnection"];

/// The table with its judging words in colour. Painted after it was laid out: a colour has no width.
fn painted(table: &str, colours: bool) -> String {
    if !colours {
        return table.to_owned();
    }
    let mut starts: Vec<usize> = vec![];
    let mut text = String::with_capacity(table.len() * 2);
    for line in table.split_inclusive('\n') {
        let header = line.contains(char::is_uppercase) && !line.contains(char::is_lowercase);
        if header {
            starts = JUDGED.iter().filter_map(|name| column(line, name)).collect();
        } else if line.trim().is_empty() {
            starts.clear();
        }
        let field = ["Link ", "Health "].iter().any(|name| line.starts_with(name));
        let own = field
            .then(|| line.len() - line.trim_start_matches(char::is_alphabetic).trim_start().len());
        let mut at: Vec<usize> = match (header, own) {
            (true, _) => vec![],
            (false, Some(own)) => vec![own],
            (false, None) => starts.iter().filter_map(|start| nth(line, *start)).collect(),
        };
        at.sort_unstable();
        let mut done = 0;
        for start in at {
            let word = line[start..].split(char::is_whitespace).next().unwrap_or_default();
            text.push_str(&line[done..start]);
            if GOOD.contains(&word) {
                text.push_str(&word.green().to_string());
            } else if BAD.contains(&word) {
                text.push_str(&word.red().to_string());
            } else if BETWEEN.contains(&word) {
                text.push_str(&word.yellow().to_string());
            } else {
                text.push_str(word);
            }
            done = start + word.len();
        }
        text.push_str(&line[done..]);
    }
    text
}

/// Where a column begins, in characters.
fn column(header: &str, name: &str) -> Option<usize> {
    let at = header.find(name)?;
    Some(header[..at].chars().count())
}

/// The byte where the n-th character begins, if a word begins there.
fn nth(line: &str, n: usize) -> Option<usize> {
    let (at, c) = line.char_indices().nth(n)?;
    (!c.is_whitespace()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_judge_are_coloured_in_their_column_and_nowhere_else() {
        let table = "Link         Connected since now\n\nReleases\n RELEASE   STATE     WHY\n \
                     Ready     Refused   Ready is not what it is\n\nPass\n";
        let shown = painted(table, true);
        let red = "Refused".red().to_string();
        assert!(shown.contains(&format!("Link         {} since", "Connected".green())), "{shown}");
        assert!(shown.contains(&format!(" Ready     {red}   Ready is not")), "{shown}");
        assert!(shown.ends_with("\n\nPass\n"), "{shown}");
        assert_eq!(painted(table, false), table);
    }

    #[test]
    fn wide_characters_before_a_column_do_not_move_it() {
        let table = " NAME   RESULT\n größe  Fail\n         wrapped Fail\n";
        let shown = painted(table, true);
        assert!(shown.contains(&format!(" größe  {}", "Fail".red())), "{shown}");
        assert!(shown.ends_with("wrapped Fail\n"), "{shown}");
    }
}
