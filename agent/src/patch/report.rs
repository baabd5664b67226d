//! What the control plane and `kubectl` are told about runs and components. Names, states and field
//! paths only; never a value of an object.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use mendix_agent_core::{
    audit::Event as Decision,
    bundle::{cadence, run::State},
};
use mendix_agent_proto::v1::{self, report::Body};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Audit,
    channel::Reports,
    cluster::Cluster,
    crd::{
        managed_component::ManagedComponent,
        patch_bundle::{PatchBundle, PatchBundleStatus},
    },
    occasion::{self, Occasion},
    patch::records::state_of,
    requests::wire_time,
};

/// Longest message of an event or a record; the API server takes 1 KiB in an event.
pub const MAX_MESSAGE: usize = 900;

/// Lines of a [`summary`].
pub const MAX_LINES: usize = 3;

/// How late it may be said that a release is overdue.
const LATE_CHECK: Duration = Duration::from_secs(60);

/// Tells about runs and components.
#[derive(Clone)]
pub struct Reporter {
    cluster: Cluster,
    reports: Reports,
    audit: Audit,
    committed: Arc<Mutex<String>>,
    told: Arc<Mutex<Option<Told>>>,
}

/// The run that was told last; time alone can make it overdue.
#[derive(Clone)]
struct Told {
    bundle: PatchBundle,
    paused: Option<String>,
}

impl Reporter {
    /// Reports through the channel, as Kubernetes Events and in the audit log.
    pub fn new(cluster: Cluster, reports: Reports, audit: Audit) -> Self {
        Self { cluster, reports, audit, committed: Arc::default(), told: Arc::default() }
    }

    /// Sets the last committed release, which every report names.
    pub fn committed(&self, release_id: &str) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = release_id.to_owned();
    }

    /// Publishes the run as it is recorded; `paused` is said in place of its message.
    pub fn run(&self, bundle: &PatchBundle, paused: Option<String>) {
        let told = Told { bundle: bundle.clone(), paused };
        self.publish(&told, Timestamp::now());
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    fn publish(&self, told: &Told, now: Timestamp) {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.reports.publish(Body::ReleaseRun(run_report(told, committed, now)));
    }

    /// Says when the run that was told last becomes overdue, until cancelled.
    pub async fn watch_deadline(&self, cancel: &CancellationToken) {
        let mut called = None;
        loop {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(told) = told {
                let now = Timestamp::now();
                self.publish(&told, now);
                let late = is_overdue(&told.bundle, now);
                let digest = told.bundle.spec.index_sha256.clone();
                if late && called != digest {
                    self.overdue(&told.bundle).await;
                    called = digest;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LATE_CHECK) => {}
            }
        }
    }

    async fn overdue(&self, bundle: &PatchBundle) {
        let release = &bundle.spec.release_id;
        let by = bundle.spec.apply_by.map(|by| by.to_string()).unwrap_or_default();
        let state = bundle.status.as_ref().map(|status| status.state.clone()).unwrap_or_default();
        tracing::warn!(release, by, state, "the wanted release is overdue");
        let text = format!("release {release} was to be committed by {by}; it is {state}");
        let about = bundle.object_ref(&());
        self.event(&about, occasion::OVERDUE, &text).await;
    }

    /// Publishes all components as they are recorded.
    pub fn components(&self, components: &[ManagedComponent]) {
        let components = components
            .iter()
            .filter_map(|component| {
                let status = component.status.as_ref()?;
                Some(v1::ComponentState {
                    name: component.name_any(),
                    version: status.version.clone().unwrap_or_default(),
                    health: status.health.clone().unwrap_or_else(|| "Unknown".into()),
                    message: status.message.clone().unwrap_or_default(),
                    objects: status.objects,
                    drift_corrected: status.drift_corrected,
                    last_drift: status.last_drift.as_ref().map(|drift| v1::DriftRecord {
                        object: drift.object.clone(),
                        fields: drift.fields.clone(),
                        claimed_by: drift.claimed_by.clone(),
                        found_at: drift.found_at.map(wire_time),
                        corrected_at: drift.corrected_at.map(wire_time),
                    }),
                })
            })
            .collect();
        self.reports.publish(Body::Components(v1::ComponentsReport { components }));
    }

    /// Records the transition of a run in the audit log, and as an Event on its PatchBundle.
    pub async fn transition(&self, bundle: &PatchBundle, to: &State, note: Option<&str>) {
        let status = bundle.status.as_ref();
        let component = status.and_then(|status| status.component.as_deref());
        self.audit
            .tell(Decision::Release {
                release: bundle.spec.release_id.clone(),
                sequence: bundle.spec.sequence,
                index_sha256: bundle.spec.index_sha256.clone(),
                state: to.name().into(),
                component: component.map(str::to_owned),
                reason: status.and_then(|status| status.reason.clone()),
            })
            .await;
        let release = &bundle.spec.release_id;
        let mut text = match component {
            Some(component) => format!("release {release}: {}, component {component}", to.name()),
            None => format!("release {release}: {}", to.name()),
        };
        if let Some(note) = note {
            text = format!("{text}: {note}");
        }
        if let Some(occasion) = Occasion::release(to) {
            self.event(&bundle.object_ref(&()), occasion, &text).await;
        }
    }

    /// Notes in the audit log that an object was put back.
    pub fn corrected(&self, object: &str, fields: &[String], claimed_by: &str) {
        self.audit.drift(object, fields, claimed_by);
    }

    /// Records an Event.
    pub async fn event(&self, about: &ObjectReference, occasion: Occasion, text: &str) {
        self.cluster.event(about, occasion, cut(text)).await;
    }
}

/// When a release that waits for its time may start, to the second.
pub(crate) fn waits_until(status: &PatchBundleStatus, now: Timestamp) -> Option<Timestamp> {
    let due = status.due_at.filter(|due| status.state == State::Scheduled.name() && *due > now)?;
    Timestamp::from_second(due.as_second()).ok()
}

fn is_overdue(bundle: &PatchBundle, now: Timestamp) -> bool {
    let state = state_of(bundle).unwrap_or(State::Offered);
    bundle.spec.apply_by.is_some_and(|by| cadence::overdue(&state, by, now))
}

fn run_report(told: &Told, committed_release: String, now: Timestamp) -> v1::ReleaseRunReport {
    let Told { bundle, paused } = told;
    let status = bundle.status.clone().unwrap_or_default();
    let due = waits_until(&status, now).map(|due| format!("is due at {due}"));
    let state = match status.state.is_empty() {
        true => State::Offered.name().to_owned(),
        false => status.state,
    };
    v1::ReleaseRunReport {
        release_id: bundle.spec.release_id.clone(),
        sequence: bundle.spec.sequence,
        index_sha256: bundle.spec.index_sha256.clone().unwrap_or_default(),
        state,
        component: status.component.unwrap_or_default(),
        message: paused.clone().or(status.message).or(due).unwrap_or_default(),
        refusals: status.refusals,
        changed_at: status.changed_at.map(wire_time),
        committed_release,
        apply_by: bundle.spec.apply_by.map(wire_time),
        overdue: is_overdue(bundle, now),
    }
}

/// The text, cut to [`MAX_MESSAGE`] bytes.
pub fn cut(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let mut end = MAX_MESSAGE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Lines as one message: the first ones and how many more there are.
pub fn summary(lines: &[String]) -> String {
    let shown = lines.iter().take(MAX_LINES).cloned().collect::<Vec<_>>().join("; ");
    match lines.len().checked_sub(MAX_LINES) {
        None | Some(0) => cut(&shown),
        Some(more) => cut(&format!("{shown}; and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::patch_bundle::PatchBundleSpec;

    #[test]
    fn a_run_that_is_not_committed_in_time_is_reported_as_overdue() {
        let by: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let report = |state: &str, apply_by, now| {
            let spec = PatchBundleSpec {
                release_id: "r1".into(),
                sequence: 1,
                class: None,
                index_sha256: None,
                apply_by,
                components: vec![],
            };
            let mut bundle = PatchBundle::new("r1", spec);
            bundle.status = Some(PatchBundleStatus { state: state.into(), ..Default::default() });
            run_report(&Told { bundle, paused: None }, String::new(), now)
        };
        let before = by - jiff::SignedDuration::from_secs(1);
        assert!(!report("Scheduled", Some(by), before).overdue);
        let late = report("Scheduled", Some(by), by);
        assert!(late.overdue && late.apply_by == Some(wire_time(by)));
        assert!(report("RolledBack", Some(by), by).overdue);
        assert!(!report("Committed", Some(by), by).overdue);
        assert!(!report("Refused", None, by).overdue, "nobody signed a date");
    }

    #[test]
    fn a_release_that_waits_for_its_time_says_when_that_is() {
        let due: Timestamp = "2026-11-22T23:00:27.5Z".parse().unwrap();
        let before = due - jiff::SignedDuration::from_secs(1);
        let waits = |state: &str, now| {
            let status =
                PatchBundleStatus { state: state.into(), due_at: Some(due), ..Default::default() };
            waits_until(&status, now).map(|due| due.to_string())
        };
        assert_eq!(waits("Scheduled", before).as_deref(), Some("2026-11-22T23:00:27Z"));
        assert_eq!(waits("Scheduled", due), None, "it may start");
        assert_eq!(waits("Applying", before), None, "it has begun");
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let long = "ä".repeat(MAX_MESSAGE);
        assert!(cut(&long).len() <= MAX_MESSAGE);
        assert!(cut(&long).ends_with('…'));
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn a_summary_says_how_many_lines_it_leaves_out() {
        let lines: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        assert_eq!(summary(&lines), "0; 1; 2; and 2 more");
        assert_eq!(summary(&lines[..3]), "0; 1; 2");
        assert_eq!(summary(&[]), "");
    }
}
