//! Waits until the objects of a component are ready, and stay ready, measured against what they were
//! before the run.

mod unready;

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, TryStreamExt};
use mendix_agent_core::bundle::{
    drift::is_recreated,
    object::ObjectId,
    readiness::{Patience, Readiness, Verdict, compare, is_judged, judge},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    failure::{CallError, StepError, patiently},
    live::{Live, in_parallel},
    report::{cut, summary},
};

/// How often objects that are not ready yet are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Health before the run, of objects that existed.
pub type Baseline = BTreeMap<ObjectId, Readiness>;

/// How a gate ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Nothing stands against the component; the lines say what is not ready all the same, because it
    /// was not before either or can't be judged.
    Passed(Vec<String>),
    /// Something that was fine before is not.
    Failed(Failure),
}

/// Why a gate failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was waited for in vain, with how long.
    pub what: String,
    /// The objects that are not ready and why, one line each.
    pub objects: Vec<String>,
}

impl Failure {
    /// In one line, such as `not ready within 20 s: Deployment shop/web: 0 of 1 updated pods are
    /// ready; pod web-5d9-x2x: container web runs; its readiness probe fails`.
    pub fn line(&self) -> String {
        cut(&format!("{}: {}", self.what, summary(&self.objects)))
    }
}

/// What a gate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long all has to be ready without a break.
    pub hold: Duration,
    /// Longest wait, without the time in which the API server could not be read.
    pub limit: Duration,
    /// Whether what was sick before the run gets that time, too.
    pub wait_for_sick: bool,
}

impl Terms {
    /// What did not come about, when `exhausted` tells whether the time is over.
    fn missed(&self, exhausted: bool) -> String {
        let (hold, limit) = (self.hold.as_secs(), self.limit.as_secs());
        match (exhausted, hold) {
            // A controller said so itself, or what was ready broke.
            (false, _) => "does not get ready".to_owned(),
            (true, 0) => format!("not ready within {limit} s"),
            (true, _) => format!("not ready for {hold} s on end within {limit} s"),
        }
    }
}

/// Waits for the objects under the terms.
///
/// # Errors
/// When the agent stops, or the API server refuses to show an object.
pub async fn pass(
    live: &Live,
    ids: &[ObjectId],
    baseline: &Baseline,
    terms: Terms,
    cancel: &CancellationToken,
    paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
) -> Result<Passage, StepError> {
    let mut deadline = Instant::now() + terms.limit;
    let mut ready_since: Option<Instant> = None;
    // Between full rounds only what is not ready yet is looked at. What has no health that could change
    // is looked at once: thousands of ConfigMaps need no reading all through a soak.
    let (mut round, lasting): (Vec<ObjectId>, Vec<ObjectId>) =
        (ids.to_vec(), ids.iter().filter(|id| is_judged(id)).cloned().collect());
    let mut due = round.clone();
    loop {
        let began = Instant::now();
        let outage = std::sync::atomic::AtomicBool::new(false);
        let noticed = |error: Option<&CallError>| {
            outage.store(true, std::sync::atomic::Ordering::Relaxed);
            paused(error);
        };
        let healths = patiently(cancel, &noticed, || async { look(live, &due).await }).await?;
        if outage.into_inner() {
            deadline += began.elapsed();
        }
        let exhausted = Instant::now() >= deadline;
        let full_round = due.len() == round.len();
        due.clear();
        let Sorted { waiting, failed, tolerated } = sorted(&healths, baseline, terms, exhausted);
        due.extend(waiting.iter().map(|(id, _)| id.clone()));
        if !failed.is_empty() {
            let objects = tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                objects = unready::lines(live, failed) => objects,
            };
            return Ok(Passage::Failed(Failure { what: terms.missed(exhausted), objects }));
        }
        if waiting.is_empty() && !full_round {
            due.clone_from(&round);
            continue;
        }
        if waiting.is_empty() {
            round.clone_from(&lasting);
            due.clone_from(&round);
            let since = *ready_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= terms.hold {
                return Ok(Passage::Passed(tolerated));
            }
        } else {
            ready_since = None;
            let first = waiting.first().map(|(id, reason)| format!("{id}: {reason}"));
            tracing::debug!(waiting = waiting.len(), first, "gate waits");
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(StepError::Stopped),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// What one look says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    /// Not ready yet, and why.
    waiting: Vec<(ObjectId, String)>,
    /// Fine before, and not ready in time.
    failed: Vec<(ObjectId, String)>,
    /// A line for each that is not ready and does not count.
    tolerated: Vec<String>,
}

/// Judges each health against the one before the run.
fn sorted(
    healths: &[(ObjectId, Readiness)],
    baseline: &Baseline,
    terms: Terms,
    exhausted: bool,
) -> Sorted {
    let mut sorted = Sorted::default();
    for (id, now) in healths {
        let before = baseline.get(id);
        let sick = before.is_some_and(|before| *before != Readiness::Ready);
        let patience = match exhausted || (sick && !terms.wait_for_sick) {
            true => Patience::Exhausted,
            false => Patience::Left,
        };
        match compare(before, now, patience) {
            Verdict::Passed => {}
            Verdict::Waiting { reason } => sorted.waiting.push((id.clone(), reason)),
            Verdict::NewFailure { reason } => sorted.failed.push((id.clone(), reason)),
            Verdict::SickBefore { reason } => {
                sorted.tolerated.push(format!("{id}: {reason} (as before)"));
            }
            Verdict::Unjudged { reason } => sorted.tolerated.push(format!("{id}: {reason}")),
        }
    }
    sorted
}

/// The health of each object now. A Job that is gone was removed by its own time to live.
///
/// # Errors
/// When one can't be read.
pub async fn look(live: &Live, ids: &[ObjectId]) -> Result<Vec<(ObjectId, Readiness)>, CallError> {
    let looks = ids.iter().map(|id| {
        async move {
            let health = match live.get(id).await? {
                Some(object) => match judge(&object) {
                    Readiness::Unknown { .. } if !live.has_status(id).await? => Readiness::Ready,
                    readiness => readiness,
                },
                None if !is_recreated(id) => Readiness::Ready,
                None => Readiness::Progressing { reason: "does not exist".into() },
            };
            Ok((id.clone(), health))
        }
        .boxed()
    });
    in_parallel(looks).try_collect().await
}

#[cfg(test)]
mod tests {
    use mendix_agent_core::bundle::object::IdFields;

    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId::from(IdFields {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: Some("shop".into()),
            name: name.into(),
        })
    }

    #[test]
    fn what_was_sick_before_is_waited_for_only_if_the_terms_say_so() {
        let late = || Readiness::Progressing { reason: "0 of 1".into() };
        let healths = [(id("sound"), Readiness::Ready), (id("sick"), late()), (id("hit"), late())];
        let baseline = Baseline::from([(id("sick"), late()), (id("hit"), Readiness::Ready)]);
        let terms = |wait_for_sick| Terms {
            hold: Duration::ZERO,
            limit: Duration::from_secs(20),
            wait_for_sick,
        };
        let names = |found: &[(ObjectId, String)]| -> Vec<String> {
            found.iter().map(|(id, _)| id.name.to_string()).collect()
        };

        let impatient = sorted(&healths, &baseline, terms(false), false);
        assert_eq!(names(&impatient.waiting), ["hit"]);
        assert!(impatient.failed.is_empty() && impatient.tolerated.len() == 1, "{impatient:?}");
        let patient = sorted(&healths, &baseline, terms(true), false);
        assert_eq!(names(&patient.waiting), ["sick", "hit"]);
        let late = sorted(&healths, &baseline, terms(true), true);
        assert_eq!(names(&late.failed), ["hit"]);
        assert!(late.waiting.is_empty() && late.tolerated.len() == 1, "{late:?}");
    }
}
