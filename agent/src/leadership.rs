//! Who leads: this replica's part in the Lease `mendix-agent`.
//!
//! The decisions are made in `mendix_agent_core::leadership`; here they are carried out. [`run`] keeps
//! the Lease and publishes a [`Post`]; that of a leader holds the [`Term`] that everything needs that
//! writes.

mod lease;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::StatusCode;
use mendix_agent_core::leadership::{Candidate, RENEW_DEADLINE, Step, Written};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::lease::{LeaseError, Leases};
use crate::{clock::boot, cluster::Site, denials::Denials, errors::describe, term::Term};

/// Longest wait for one answer about the Lease.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A term is ended this long before its last write would have to begin, so that its tasks have ended
/// by then.
const ENDING: Duration = Duration::from_secs(1);
/// Longest sleep between two looks at the clock: timers stop in suspend, the clock does not.
const LOOK: Duration = Duration::from_secs(1);
/// A replica that has not seen the Lease for so long says that it is not ready.
const BLIND: Duration = Duration::from_secs(30);
/// Longest wait for the writes of a term to be answered before its Lease is released.
const SETTLE: Duration = Duration::from_secs(4);

/// What this replica does.
#[derive(Clone, Debug)]
pub enum Post {
    /// It has not seen the Lease, or not for a while; it could not take over.
    Blind {
        /// Why not.
        why: String,
    },
    /// It waits to take over.
    Standby {
        /// Who leads, as the Lease names it; `None` when nobody does.
        leader: Option<String>,
    },
    /// It leads.
    Leader(Term),
}

/// Keeps this replica's part in the Lease until `cancel`, then releases it if this replica leads and
/// its term's tasks have ended. `me` is unique per process.
///
/// # Errors
/// Never: what fails is said in the [`Post`] and tried again.
pub async fn run(
    site: Site,
    me: String,
    posts: Arc<watch::Sender<Post>>,
    cancel: CancellationToken,
) -> Result<(), Infallible> {
    let driver = Driver {
        leases: Leases::new(&site),
        denials: site.denials.clone(),
        // Nothing is known of earlier epochs yet; it is asked for before the first acquisition.
        candidate: Candidate::new(me.clone(), 0, boot()),
        floor_known: false,
        me,
        posts,
        led: None,
        seen: Instant::now(),
        problem: String::new(),
    };
    driver.run(cancel).await;
    Ok(())
}

struct Driver {
    leases: Leases,
    /// Where others see that it was refused, and look why while they still can say so.
    denials: Denials,
    candidate: Candidate,
    /// Whether the epochs that the agent's records name have been read.
    floor_known: bool,
    me: String,
    posts: Arc<watch::Sender<Post>>,
    /// The term that was published, with what ends it however this driver ends.
    led: Option<(Term, DropGuard)>,
    /// When the Lease was last read or written.
    seen: Instant,
    /// Why it could not be the last time that it could not.
    problem: String,
}

impl Driver {
    async fn run(mut self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            self.publish();
            let step = self.candidate.next(boot());
            // A term that can't be renewed in time ends in time, whatever hangs.
            let patience = self.candidate.tenure(boot()).map_or(ANSWER_DEADLINE, |tenure| {
                tenure.writes_until.saturating_sub(boot() + ENDING).min(ANSWER_DEADLINE)
            });
            match step {
                Step::Wait(until) => {
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        () = sleep(until.saturating_sub(boot()).min(LOOK).min(patience)) => {}
                    }
                }
                Step::Read => match timeout(patience, self.read()).await {
                    Ok(Ok(())) => self.seen = Instant::now(),
                    Ok(Err(error)) => self.refused(&error),
                    Err(_) => self.failed("no answer about the Lease"),
                },
                Step::Write(put) => {
                    let sent = boot();
                    let written = match timeout(patience, self.leases.write(&put)).await {
                        Ok(Ok(written)) => {
                            self.seen = Instant::now();
                            written
                        }
                        Ok(Err(error)) => {
                            self.refused(&error);
                            Written::Unknown
                        }
                        Err(_) => {
                            self.failed("no answer about the Lease");
                            Written::Unknown
                        }
                    };
                    self.candidate.written(sent, boot(), &put, written);
                }
            }
        }
        self.release().await;
    }

    async fn read(&mut self) -> Result<(), LeaseError> {
        let stored = self.leases.read().await?;
        if !self.floor_known || stored.is_none() {
            self.candidate.raise_floor(self.leases.recorded_epoch().await?);
            self.floor_known = true;
        }
        self.candidate.read(boot(), stored);
        Ok(())
    }

    fn refused(&mut self, error: &LeaseError) {
        if matches!(error, LeaseError::NoRights { .. }) {
            self.denials.count(StatusCode::FORBIDDEN);
        }
        self.failed(&describe(error));
    }

    fn failed(&mut self, why: &str) {
        tracing::warn!(why, "the Lease could not be read or written");
        why.clone_into(&mut self.problem);
    }

    /// Makes what others see of this replica equal to what the machine says.
    fn publish(&mut self) {
        let now = boot();
        if self.candidate.tenure(now).is_some_and(|it| it.writes_until <= now + ENDING) {
            self.candidate.resign(now);
        }
        let tenure = self.candidate.tenure(now);
        match (&self.led, tenure) {
            (Some((term, _)), Some(tenure)) if term.epoch() == tenure.epoch => {
                return term.extend(tenure);
            }
            (Some((term, _)), _) => {
                tracing::warn!(epoch = term.epoch(), "no longer the leader");
                term.end();
                self.led = None;
            }
            (None, _) => {}
        }
        if let Some(tenure) = tenure {
            let wait = tenure.writes_from.saturating_sub(now);
            tracing::info!(epoch = tenure.epoch, writes_after = ?wait, "this replica leads");
            let term = Term::new(&self.me, tenure);
            self.led = Some((term.clone(), term.over().clone().drop_guard()));
            self.posts.send_replace(Post::Leader(term));
            return;
        }
        if self.seen.elapsed() >= BLIND {
            let why = format!("the Lease was not seen for {} s: {}", BLIND.as_secs(), self.problem);
            self.posts.send_if_modified(|post| {
                let news = !matches!(post, Post::Blind { why: known } if *known == why);
                *post = Post::Blind { why: why.clone() };
                news
            });
            return;
        }
        if !self.floor_known {
            return;
        }
        let leader = self.candidate.holder().map(str::to_owned);
        self.posts.send_if_modified(|post| match post {
            Post::Standby { leader: known } if *known == leader => false,
            _ => {
                tracing::info!(leader, "this replica stands by");
                *post = Post::Standby { leader };
                true
            }
        });
    }

    async fn release(mut self) {
        let Some((term, _guard)) = self.led.take() else { return };
        let is_settled = term.settle(SETTLE).await;
        term.end();
        let put = self.candidate.release(boot());
        if !is_settled {
            tracing::warn!("the Lease is left to run out: a write may still be under way");
            return;
        }
        let Some(put) = put else { return };
        match timeout(ANSWER_DEADLINE, self.leases.write(&put)).await {
            Ok(Ok(Written::Done { .. })) => tracing::info!("the Lease is released"),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(why = describe(&error), "the Lease is not released"),
            Err(_) => tracing::warn!("the Lease is not released: no answer"),
        }
    }
}

// A term that can never begin would be a defect of these numbers.
const _: () = assert!(ENDING.as_secs() + ANSWER_DEADLINE.as_secs() < RENEW_DEADLINE.as_secs());
