//! What the demo shows: a heading per step, what happens under it, and the summary at the end.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::{OwoColorize, Stream, Style};

/// The terminal, or whatever stands in for it.
pub struct Ui {
    rows: Vec<Row>,
    interactive: bool,
}

struct Row {
    title: &'static str,
    outcome: Outcome,
    took: Duration,
    look: &'static str,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It showed what it should.
    Shown,
    /// It did not.
    Failed,
}

/// A line that lives while something long goes on: a spinner on a terminal, plain lines elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// Says what is going on now.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => println!("    [{:>3}s] {text}", self.started.elapsed().as_secs()),
        }
    }

    /// A function that says, for those who want one.
    pub fn sayer(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (bar, started) = (self.bar.clone(), self.started);
        move |text| Self { bar: bar.clone(), started }.say(text)
    }

    /// Ends it with a last word that stays.
    pub fn done(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        println!("    {text} ({:.0} s)", self.started.elapsed().as_secs_f32());
    }
}

impl Default for Ui {
    fn default() -> Self {
        Self { rows: Vec::new(), interactive: std::io::stdout().is_terminal() }
    }
}

impl Ui {
    /// Begins a step.
    pub fn heading(&self, number: usize, title: &str) {
        let style = Style::new().bold().cyan();
        let line = format!("{number}. {title}");
        println!("\n{}", line.if_supports_color(Stream::Stdout, |text| text.style(style)));
    }

    /// One line under the heading.
    pub fn line(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("    {line}");
        }
    }

    /// A command as a person would type it.
    pub fn command(&self, text: &str) {
        let line = format!("$ {text}");
        println!("    {}", line.if_supports_color(Stream::Stdout, |text| text.dimmed()));
    }

    /// Something long begins.
    pub fn progress(&self, text: &str) -> Progress {
        let bar = self.interactive.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("    {spinner} [{elapsed}] {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let progress = Progress { bar, started: Instant::now() };
        progress.say(text);
        progress
    }

    /// Writes down how a step ended, and what to look at to see it.
    pub fn record(
        &mut self,
        title: &'static str,
        outcome: Outcome,
        took: Duration,
        look: &'static str,
    ) {
        self.rows.push(Row { title, outcome, took, look });
    }

    /// The summary table of all steps so far.
    pub fn summary(&self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "step",
            "result",
            "seconds",
            "where to look",
        ]);
        for row in &self.rows {
            let outcome = match row.outcome {
                Outcome::Shown => "shown",
                Outcome::Failed => "FAILED",
            };
            let seconds = format!("{:.1}", row.took.as_secs_f32());
            table.add_row([row.title, outcome, &seconds, row.look]);
        }
        println!("\n{table}");
    }
}
