//! Keeps the agent's long-running tasks going: a task that ends early or panics is started again
//! after a pause, said in the log, counted, and shown by `/readyz`, until the agent shuts down.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::errors::describe;

/// Pauses between restarts of a task, doubling from the first to the second.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long tasks get to end after the shutdown began, before they are dropped. Shorter than the
/// 30 s that Kubernetes waits before it kills.
const GRACE: Duration = Duration::from_secs(20);

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskState {
    /// Times it was started again.
    pub restarts: u64,
    /// Why it is not running now; `None` while it runs.
    pub down: Option<String>,
}

/// The tasks' states, readable while they run.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    states: Arc<Mutex<BTreeMap<&'static str, TaskState>>>,
}

impl Tasks {
    /// A copy of all states.
    pub fn states(&self) -> BTreeMap<&'static str, TaskState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, name: &'static str, change: impl FnOnce(&mut TaskState)) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        change(states.entry(name).or_default());
    }
}

/// Owns the tasks.
pub struct Supervisor {
    tasks: Tasks,
    set: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// A supervisor whose tasks end when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: Tasks::default(), set: JoinSet::new(), shutdown }
    }

    /// The states of the tasks.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Runs what `start` makes, again and again, until shutdown. `start` gets a token that is
    /// cancelled then; a task that returns `Ok` before is restarted like one that failed.
    pub fn spawn<F, Fut, E>(&mut self, name: &'static str, start: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (tasks, shutdown) = (self.tasks.clone(), self.shutdown.clone());
        tasks.update(name, |_| {});
        self.set.spawn(async move {
            let mut pause = RESTART_PAUSE.0;
            loop {
                let mut attempt = JoinSet::new();
                attempt.spawn(start(shutdown.child_token()));
                let ended = attempt.join_next().await;
                if shutdown.is_cancelled() {
                    return;
                }
                let why = match ended {
                    Some(Ok(Ok(()))) | None => "ended without a reason".to_owned(),
                    Some(Ok(Err(error))) => describe(&error),
                    // Its text stays unsaid: it could quote what was being worked on.
                    Some(Err(_)) => "panicked; the log says where".to_owned(),
                };
                tracing::error!(task = name, why, pause_seconds = pause.as_secs(), "task ended");
                tasks.update(name, |state| state.down = Some(why));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => return,
                }
                pause = (pause * 2).min(RESTART_PAUSE.1);
                tasks.update(name, |state| {
                    state.restarts += 1;
                    state.down = None;
                });
            }
        });
    }

    /// Waits until every task has ended after the shutdown, at most [`GRACE`]; then drops the rest
    /// and returns their number.
    pub async fn join(mut self) -> usize {
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_ok() {
            return 0;
        }
        let left = self.set.len();
        self.set.shutdown().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_or_panics_is_started_again_and_says_why() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let tasks = supervisor.tasks();
        let starts = Arc::new(AtomicU32::new(0));
        let (third, reached) = tokio::sync::oneshot::channel();
        let third = Arc::new(Mutex::new(Some(third)));
        let counter = starts.clone();
        supervisor.spawn("worker", move |token| {
            let (start, third) = (counter.fetch_add(1, Ordering::SeqCst), third.clone());
            async move {
                match start {
                    0 => Err(std::io::Error::other("no answer")),
                    #[expect(clippy::panic, reason = "the scenario")]
                    1 => panic!("a bug"),
                    _ => {
                        if let Some(third) = third.lock().unwrap().take() {
                            let _ = third.send(());
                        }
                        token.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        reached.await.unwrap();
        assert_eq!(tasks.states()["worker"], TaskState { restarts: 2, down: None });
        shutdown.cancel();
        assert_eq!(supervisor.join().await, 0);
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_shutdown_is_dropped_after_the_grace() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        supervisor.spawn("stuck", |_| std::future::pending::<Result<(), std::io::Error>>());
        shutdown.cancel();
        assert_eq!(supervisor.join().await, 1);
    }
}
