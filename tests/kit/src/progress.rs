//! Showing that a long step is under way: a spinner on a terminal, plain lines elsewhere, or
//! whatever the caller does with the text.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Where the kit says what it is doing. Cheap to clone; the spinner goes away with the last clone.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Standard error: a spinner when it is a terminal, otherwise one line a step. It is written
    /// directly, so that a test runner that captures output doesn't hide minutes of building.
    #[must_use]
    pub fn stderr() -> Self {
        if std::io::stderr().is_terminal() {
            let spinner = Spinner::new();
            Self::to(move |text| spinner.0.set_message(text.to_owned()))
        } else {
            Self::to(|text| {
                let _ = writeln!(std::io::stderr(), "test kit: {text}");
            })
        }
    }

    /// Calls `show` for each step. It must not block.
    #[must_use]
    pub fn to(show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }

    /// Says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::to(|_| {})
    }

    /// Says what is being done now.
    pub fn say(&self, text: impl AsRef<str>) {
        (self.0)(text.as_ref());
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::stderr()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Clears its line when dropped: what stays on the screen is the caller's own output.
struct Spinner(ProgressBar);

impl Spinner {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
