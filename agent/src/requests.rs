//! Outcomes of one-off requests (`take a snapshot`, `recover`), in one place.
//!
//! A request stays in the desired state until the control plane has seen a terminal outcome for its
//! id, so the agent keeps each outcome and reports all of them together until the request is gone.
//! The patch path and the log path call [`RequestOutcomes::finish`]; requests of a kind that this
//! build doesn't know are answered here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use mendix_agent_core::ordered;
use mendix_agent_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::channel::{Reports, Revised};

/// Outcomes kept at once. A desired state of 256 KiB can't usefully hold more requests; beyond it
/// the oldest outcome is dropped and its request would be answered again.
const MAX_OUTCOMES: usize = 1024;

/// Requests as they are wanted now.
type Wanted = watch::Receiver<Option<Revised<v1::RequestsSection>>>;

/// Terminal outcomes by request id; cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestOutcomes {
    wanted: Wanted,
    reports: Reports,
    kept: Arc<Mutex<BTreeMap<String, v1::RequestOutcome>>>,
}

impl RequestOutcomes {
    /// Begins with no outcomes: a restarted agent reports again what it finishes again.
    pub fn new(wanted: Wanted, reports: Reports) -> Self {
        Self { wanted, reports, kept: Arc::default() }
    }

    /// Records that a request has ended and reports it. The first outcome of an id stays: a
    /// terminal outcome never changes. `reason` is a code and empty on success, `message` one
    /// sentence for a person, `snapshot_id` the name of the LogSnapshot object if there is one.
    pub fn finish(
        &self,
        request_id: &str,
        outcome: v1::Outcome,
        reason: &str,
        message: &str,
        snapshot_id: Option<&str>,
    ) {
        let mut kept = self.kept();
        if kept.contains_key(request_id) {
            return;
        }
        kept.insert(
            request_id.to_owned(),
            v1::RequestOutcome {
                request_id: request_id.to_owned(),
                outcome: outcome.into(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                snapshot_id: snapshot_id.unwrap_or_default().to_owned(),
                finished_at: Some(wire_time(Timestamp::now())),
            },
        );
        self.settle(kept);
    }

    /// Whether the request has a terminal outcome already, so that nothing has to be done for it.
    pub fn is_finished(&self, request_id: &str) -> bool {
        self.kept().contains_key(request_id)
    }

    /// Follows the desired state: forgets outcomes whose request has left it, and answers requests
    /// of unknown kind. Ends when cancelled or when the channel has gone.
    pub async fn run(self, cancel: CancellationToken) {
        let mut wanted = self.wanted.clone();
        loop {
            self.answer_unknown();
            self.settle(self.kept());
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    fn answer_unknown(&self) {
        let unknown: Vec<String> = match &*self.wanted.borrow() {
            Some(section) => (section.value.requests.iter())
                .filter(|request| request.kind.is_none())
                .map(|request| request.request_id.clone())
                .collect(),
            None => return,
        };
        for id in unknown {
            let message = "this agent does not know the kind of this request; upgrade the agent";
            self.finish(&id, v1::Outcome::Unsupported, "UnknownRequest", message, None);
        }
    }

    /// Drops what nobody waits for, then reports the rest.
    fn settle(&self, mut kept: MutexGuard<'_, BTreeMap<String, v1::RequestOutcome>>) {
        // Before the control plane has said anything nothing is dropped: it may still want to know.
        if let Some(section) = &*self.wanted.borrow() {
            let requests = section.value.requests.iter();
            let wanted = ordered::set(requests.map(|request| request.request_id.as_str()));
            kept.retain(|id, _| wanted.contains(id.as_str()));
        }
        while kept.len() > MAX_OUTCOMES {
            let oldest = kept
                .values()
                .min_by_key(|o| o.finished_at.map(|at| (at.seconds, at.nanos)))
                .map(|o| o.request_id.clone());
            let Some(oldest) = oldest else { break };
            kept.remove(&oldest);
        }
        let outcomes = kept.values().cloned().collect();
        self.reports
            .publish(v1::report::Body::RequestOutcomes(v1::RequestOutcomesReport { outcomes }));
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, v1::RequestOutcome>> {
        // Every change to the map is a single insert or retain: a panic elsewhere can't leave it
        // half-changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point in time as the wire carries it.
pub(crate) fn wire_time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(requests: &[(&str, bool)]) -> Option<Revised<v1::RequestsSection>> {
        let requests = requests
            .iter()
            .map(|(id, known)| v1::Request {
                request_id: (*id).into(),
                kind: known.then_some(v1::request::Kind::Recover(v1::RecoverComponentsRequest {})),
            })
            .collect();
        Some(Revised { revision: 1, value: v1::RequestsSection { requests } })
    }

    fn reported(reports: &Reports) -> Vec<(String, v1::Outcome)> {
        match reports.subscribe().borrow().get(&v1::Section::RequestOutcomes) {
            Some(v1::report::Body::RequestOutcomes(report)) => report
                .outcomes
                .iter()
                .map(|outcome| (outcome.request_id.clone(), outcome.outcome()))
                .collect(),
            _ => vec![],
        }
    }

    #[test]
    fn outcomes_of_both_paths_are_reported_together() {
        let (_tx, wanted) = watch::channel(section(&[("a", true), ("b", true)]));
        let reports = Reports::default();
        let outcomes = RequestOutcomes::new(wanted, reports.clone());
        outcomes.finish("a", v1::Outcome::Succeeded, "", "done", None);
        outcomes.clone().finish("b", v1::Outcome::Refused, "NoGrant", "no grant", None);
        assert_eq!(
            reported(&reports),
            [("a".into(), v1::Outcome::Succeeded), ("b".into(), v1::Outcome::Refused)]
        );
    }

    #[test]
    fn a_terminal_outcome_never_changes() {
        let (_tx, wanted) = watch::channel(section(&[("a", true)]));
        let reports = Reports::default();
        let outcomes = RequestOutcomes::new(wanted, reports.clone());
        outcomes.finish("a", v1::Outcome::Failed, "Broken", "broke", None);
        outcomes.finish("a", v1::Outcome::Succeeded, "", "done", None);
        assert_eq!(reported(&reports), [("a".into(), v1::Outcome::Failed)]);
    }

    #[test]
    fn outcomes_survive_until_the_control_plane_has_spoken() {
        let (tx, wanted) = watch::channel(None);
        let reports = Reports::default();
        let outcomes = RequestOutcomes::new(wanted, reports.clone());
        outcomes.finish("a", v1::Outcome::Succeeded, "", "done", None);
        assert!(outcomes.is_finished("a"));
        tx.send_replace(section(&[]));
        outcomes.settle(outcomes.kept());
        assert!(!outcomes.is_finished("a"));
        assert_eq!(reported(&reports), []);
    }

    #[tokio::test]
    async fn a_request_of_unknown_kind_is_answered_and_forgotten_when_it_leaves() {
        let (tx, wanted) = watch::channel(section(&[("new-kind", false), ("known", true)]));
        let reports = Reports::default();
        let mut seen = reports.subscribe();
        let outcomes = RequestOutcomes::new(wanted, reports.clone());
        let cancel = CancellationToken::new();
        let run = tokio::spawn(outcomes.run(cancel.clone()));
        seen.wait_for(|_| reported(&reports).len() == 1).await.unwrap();
        assert_eq!(reported(&reports), [("new-kind".into(), v1::Outcome::Unsupported)]);
        tx.send_replace(section(&[("known", true)]));
        seen.wait_for(|_| reported(&reports).is_empty()).await.unwrap();
        cancel.cancel();
        run.await.unwrap();
    }
}
