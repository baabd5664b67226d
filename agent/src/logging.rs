//! The agent's own log: what is written, how it looks, and how the level changes while the agent runs.
//!
//! `logFilter` is read again on SIGHUP (`systemctl reload mendix-agent`) and whenever the
//! configuration file says something else, as it does in a pod about a minute after its ConfigMap was
//! changed. A filter that can't be used leaves the old one. Every other key counts from the next start.

use std::{path::PathBuf, time::Duration};

use owo_colors::Stream;
use tokio::signal::unix::Signal;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{ConfigError, Layer, LogConfig, LogFormat, Sources, targets},
    console::colours_are_wanted,
    errors::describe,
};

/// How often the file is read again: it is small, and a missed event would leave the wrong level.
const LOOK: Duration = Duration::from_secs(10);

type Change = Box<dyn Fn(Targets) -> Result<(), reload::Error> + Send + Sync>;

/// The levels of a filter that was checked as it was read.
fn checked(filter: &str) -> Targets {
    targets(filter).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

/// The level, and where it is read from.
pub struct Level {
    change: Change,
    started_with: String,
    flags: Layer,
    file: Option<PathBuf>,
}

impl Level {
    /// Begins to write the log, to standard error.
    pub fn start(config: &LogConfig, flags: Layer, file: Option<PathBuf>) -> Self {
        let (filter, handle) = reload::Layer::new(checked(&config.filter));
        let all = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(colours_are_wanted(Stream::Stderr))
            .with_writer(std::io::stderr);
        match config.format {
            LogFormat::Json => all.with(lines.json().flatten_event(true)).init(),
            LogFormat::Text => all.with(lines).init(),
        }
        let change: Change = Box::new(move |filter| handle.reload(filter));
        Self { change, started_with: config.filter.clone(), flags, file }
    }

    /// Keeps the level what the sources say, as long as it is polled.
    pub async fn follow(self, mut hangups: Signal) {
        let mut now = self.started_with.clone();
        let mut refused = None;
        loop {
            let asked = tokio::select! {
                _ = hangups.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            match self.read() {
                Ok(wanted) if wanted == now => refused = None,
                Ok(wanted) => match (self.change)(checked(&wanted)) {
                    Ok(()) => {
                        // At the level that is seen by most filters: it explains what follows.
                        tracing::warn!(from = now, to = wanted, "the log filter was changed");
                        (now, refused) = (wanted, None);
                    }
                    Err(error) => tracing::error!(%error, "the log filter can't be changed"),
                },
                // Said once, and whenever somebody asked.
                Err(error) => {
                    let why = describe(&error);
                    if asked || refused.as_ref() != Some(&why) {
                        tracing::warn!(error = why, "the log filter stays as it is");
                        refused = Some(why);
                    }
                }
            }
        }
    }

    fn read(&self) -> Result<String, ConfigError> {
        let env = |name: &str| std::env::var(name).ok();
        Sources::read(&self.flags, &env, self.file.as_deref())?.log_filter()
    }
}
