//! What systemd is told when the agent runs as a service: that it is ready, what it is doing (the
//! line in `systemctl status`), that it is alive, that it stops. In a pod nobody listens, and nothing
//! is sent.
//!
//! Ready means: the configuration holds, and signals are taken. Waiting for Kubernetes or the control
//! plane is not a failed start, so neither is waited for.

use std::{convert::Infallible, time::Duration};

use sd_notify::NotifyState;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{agent_status, leadership::Post, metrics::Work, supervise::Tasks};

/// Pings are this much more frequent than the watchdog asks for.
const PINGS_PER_TIMEOUT: u32 = 3;
/// How often the line is made anew when the link doesn't change.
const LOOK: Duration = Duration::from_secs(10);
/// Longest line.
const MAX_LINE: usize = 200;

/// The agent as a service; while it lives, the watchdog is kept quiet.
#[derive(Debug)]
pub struct Service {
    pings: Option<JoinHandle<()>>,
}

impl Service {
    /// Tells systemd that the agent is ready, and from then on, when the unit has a watchdog, that the
    /// runtime still schedules.
    pub fn ready() -> Self {
        tell(&[NotifyState::Ready, NotifyState::Status("waiting for the Kubernetes API")]);
        let pings = sd_notify::watchdog_enabled().filter(|_| is_listened_to()).map(|timeout| {
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(timeout / PINGS_PER_TIMEOUT);
                loop {
                    tick.tick().await;
                    tell(&[NotifyState::Watchdog]);
                }
            })
        });
        Self { pings }
    }
}

/// Tells systemd that the agent is about to end.
pub fn stopping(why: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&line(why))]);
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(pings) = &self.pings {
            pings.abort();
        }
    }
}

/// Whether there is somebody to tell.
pub fn is_listened_to() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Keeps the line of `systemctl status` true until shutdown.
///
/// # Errors
/// None.
pub async fn follow(
    tasks: Tasks,
    mut posts: watch::Receiver<Post>,
    mut work: watch::Receiver<Option<Work>>,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut told = String::new();
    loop {
        let now = {
            let (post, work) = (posts.borrow_and_update(), work.borrow_and_update());
            what_it_does(&tasks, &post, work.as_ref())
        };
        if now != told {
            tell(&[NotifyState::Status(&now)]);
            told = now;
        }
        tokio::select! {
            changed = posts.changed() => if changed.is_err() { return Ok(()) },
            changed = work.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// A task that is down comes first, then the session of a leader, then who leads.
fn what_it_does(tasks: &Tasks, post: &Post, work: Option<&Work>) -> String {
    let mut states = tasks.states();
    states.extend(work.iter().flat_map(|work| work.tasks.states()));
    let down = states
        .into_iter()
        .find_map(|(name, state)| state.down.map(|why| format!("task {name} is down: {why}")));
    line(&down.unwrap_or_else(|| match (work, post) {
        (Some(work), _) => agent_status::in_one_line(&work.link.borrow()),
        (None, Post::Leader(_)) => "beginning to lead".into(),
        (None, Post::Standby { leader: Some(leader) }) => format!("standby, {leader} leads"),
        (None, Post::Standby { leader: None }) => "standby, nobody leads".into(),
        (None, Post::Blind { why }) => format!("can't lead: {why}"),
    }))
}

/// One line: a line break would begin another message to systemd, and parts of the text come from the
/// control plane.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect()
}

/// A message that can't be sent is said in the log: without it the watchdog will end the agent.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Link, Reports};

    fn told(link: Link) -> String {
        let (_keep, link) = watch::channel(link);
        let (reports, tasks) = (Reports::default(), Tasks::default());
        let (audit, _) = crate::audit::tests::audit(&Default::default());
        let work = Work { epoch: 1, link, reports, audit, tasks };
        what_it_does(&Tasks::default(), &Post::Standby { leader: None }, Some(&work))
    }

    #[test]
    fn the_line_says_what_a_leader_and_a_standby_do() {
        let since = jiff::Timestamp::UNIX_EPOCH;
        let link = Link::Connected {
            session_id: "s".into(),
            since,
            clock_skew_millis: 0,
            identity_conflict: None,
            lacks: Vec::new(),
        };
        assert_eq!(told(link), "Connected");
        let standby = Post::Standby { leader: Some("a_1".into()) };
        assert_eq!(what_it_does(&Tasks::default(), &standby, None), "standby, a_1 leads");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_down_is_told_before_everything_else() {
        let shutdown = CancellationToken::new();
        let mut supervisor = crate::supervise::Supervisor::new(shutdown.clone());
        let tasks = supervisor.tasks();
        supervisor.spawn("patch", |_| async { Err(std::io::Error::other("no trust")) });
        while tasks.states().values().all(|state| state.down.is_none()) {
            tokio::task::yield_now().await;
        }
        let blind = Post::Blind { why: "it was not read yet".into() };
        assert_eq!(what_it_does(&tasks, &blind, None), "task patch is down: no trust");
        shutdown.cancel();
    }

    #[test]
    fn words_of_the_control_plane_can_not_become_another_message() {
        let link = Link::Deregistered { reason: "bye\nMAINPID=1\r\0STOPPING=1".into() };
        assert_eq!(told(link), "Deregistered, deregistered: bye MAINPID=1  STOPPING=1");
        let long = Link::WaitingForConnection { last_failure: Some("x".repeat(5000)) };
        assert_eq!(told(long).chars().count(), MAX_LINE);
    }
}
