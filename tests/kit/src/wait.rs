//! Waiting in tests: on a condition, with a deadline, never a sleep in the hope that it was enough.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use thiserror::Error;

/// Pause between two looks: short enough not to be what a test waits for, long enough not to load
/// an API server.
pub const POLL: Duration = Duration::from_millis(50);

/// The condition did not become true in time.
#[derive(Debug, Error)]
#[error("{what}: not within {} s", deadline.as_secs_f32())]
pub struct NotInTime {
    /// The condition, as the caller named it.
    pub what: String,
    /// How long it was waited for.
    pub deadline: Duration,
}

/// Looks until `look` answers `Some`, at most for `deadline`. A look that is under way at the
/// deadline is abandoned.
///
/// # Errors
/// [`NotInTime`], which names `what`.
pub async fn eventually<T, F>(
    deadline: Duration,
    what: impl Into<String>,
    mut look: impl FnMut() -> F,
) -> Result<T, NotInTime>
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(deadline, looking)
        .await
        .map_err(|_| NotInTime { what: what.into(), deadline })
}

/// The same for a condition that needs no runtime.
///
/// # Errors
/// [`NotInTime`], which names `what`.
pub fn eventually_blocking<T>(
    deadline: Duration,
    what: impl Into<String>,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, NotInTime> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() >= deadline {
            return Err(NotInTime { what: what.into(), deadline });
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_becomes_true_is_returned_at_once() {
        let mut looks = 0;
        let seen = eventually(Duration::from_secs(120), "third look", || {
            looks += 1;
            let now = looks;
            async move { (now == 3).then_some(now) }
        })
        .await
        .unwrap();
        assert_eq!(seen, 3);
    }

    #[tokio::test]
    async fn the_deadline_names_what_was_waited_for_even_when_a_look_hangs() {
        let error = eventually(Duration::from_millis(20), "a pod that never starts", || {
            std::future::pending::<Option<()>>()
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "a pod that never starts: not within 0.02 s");
    }

    #[test]
    fn the_blocking_form_ends_at_its_deadline() {
        let error = eventually_blocking(Duration::ZERO, "nothing", || None::<()>).unwrap_err();
        assert_eq!(error.what, "nothing");
    }
}
