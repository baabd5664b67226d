//! Stops a gate's clock while pods find no node because the nodes are under pressure, being drained or
//! out of reach. Nothing is wrong with the release then, and what was there before would find none
//! either.

use std::{collections::BTreeSet, time::Duration};

use mendix_agent_core::bundle::{disruption, object::ObjectId};
use tokio::time::Instant;

use super::{
    super::{
        failure::{CallCause, CallError},
        live::Live,
    },
    unready,
};

/// How often pods are asked what they wait for.
const LOOK: Duration = Duration::from_secs(10);
/// Objects whose pods are asked at once.
const MAX_ASKED: usize = 8;

/// The clock of one gate, as far as nodes stop it.
pub(super) struct Nodes {
    looked_at: Option<Instant>,
    stopped_at: Option<Instant>,
    /// How much longer it may be stopped in all.
    left: Duration,
    /// What nodes have held up.
    held: BTreeSet<ObjectId>,
}

/// What a look at the pods did to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// It stands, or runs, as before.
    AsBefore,
    /// It runs again: what was held up begins only now.
    Restarted,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self {
            looked_at: None,
            stopped_at: None,
            left: disruption::MAX_HOLD.unsigned_abs(),
            held: BTreeSet::new(),
        }
    }

    pub(super) fn stop_the_clock(&self) -> bool {
        self.stopped_at.is_some_and(|at| at.elapsed() < self.left)
    }

    /// Whether nodes have held this object up. What its controller says of it may be of that time.
    pub(super) fn have_held(&self, id: &ObjectId) -> bool {
        self.held.contains(id)
    }

    /// Asks the pods of what is waited for, every now and then or at once, and tells `paused` when the
    /// clock stops and when it runs again.
    pub(super) async fn look(
        &mut self,
        live: &Live,
        unready: &[ObjectId],
        at_once: bool,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
    ) -> Clock {
        let lately = self.looked_at.is_some_and(|at| at.elapsed() < LOOK);
        if lately && !at_once && !unready.is_empty() {
            return Clock::AsBefore;
        }
        self.looked_at = (!unready.is_empty()).then(Instant::now);
        let mut why = None;
        for id in unready.iter().take(MAX_ASKED) {
            if let Some(pod) = unready::ask(live, id).await.filter(|pod| pod.held_by_nodes) {
                self.held.insert(id.clone());
                let found = CallCause::Found(pod.says);
                why.get_or_insert_with(|| CallError::new("wait for", id, found));
            }
        }
        let stood = self.stopped_at.map_or(Duration::ZERO, |at| at.elapsed());
        match why.filter(|_| stood < self.left) {
            Some(why) => {
                self.stopped_at.get_or_insert_with(Instant::now);
                paused(Some(&why));
                Clock::AsBefore
            }
            None if self.stopped_at.take().is_some() => {
                self.left = self.left.saturating_sub(stood);
                paused(None);
                Clock::Restarted
            }
            None => Clock::AsBefore,
        }
    }
}
