//! What the control plane and `kubectl` are told about runs and components. Names, states and field
//! paths only; never a value of an object.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt, runtime::events::EventType};
use mendix_agent_core::{audit::Event as Decision, bundle::run::State};
use mendix_agent_proto::v1::{self, report::Body};

use crate::{
    audit::Audit,
    channel::Reports,
    cluster::Cluster,
    crd::{managed_component::ManagedComponent, patch_bundle::PatchBundle},
    requests::wire_time,
};

/// Longest message of an event or a record; the API server takes 1 KiB in an event.
pub const MAX_MESSAGE: usize = 900;

/// Lines of a [`summary`].
pub const MAX_LINES: usize = 3;

/// Tells about runs and components.
#[derive(Clone)]
pub struct Reporter {
    cluster: Cluster,
    reports: Reports,
    audit: Audit,
    committed: Arc<Mutex<String>>,
}

impl Reporter {
    /// Reports through the channel, as Kubernetes Events and in the audit log.
    pub fn new(cluster: Cluster, reports: Reports, audit: Audit) -> Self {
        Self { cluster, reports, audit, committed: Arc::default() }
    }

    /// Sets the last committed release, which every report names.
    pub fn committed(&self, release_id: &str) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = release_id.to_owned();
    }

    /// Publishes the run as it is recorded; `paused` is said in place of its message.
    pub fn run(&self, bundle: &PatchBundle, paused: Option<String>) {
        let status = bundle.status.clone().unwrap_or_default();
        let state = match status.state.is_empty() {
            true => State::Offered.name().to_owned(),
            false => status.state,
        };
        self.reports.publish(Body::ReleaseRun(v1::ReleaseRunReport {
            release_id: bundle.spec.release_id.clone(),
            sequence: bundle.spec.sequence,
            index_sha256: bundle.spec.index_sha256.clone().unwrap_or_default(),
            state,
            component: status.component.unwrap_or_default(),
            message: paused.or(status.message).unwrap_or_default(),
            refusals: status.refusals,
            changed_at: status.changed_at.map(wire_time),
            committed_release: self
                .committed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }));
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
        let bad =
            matches!(to, State::Refused | State::RollingBack(_) | State::RolledBack | State::Held);
        let kind = if bad { EventType::Warning } else { EventType::Normal };
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
        self.event(&bundle.object_ref(&()), kind, to.name(), "Release", &text).await;
    }

    /// Notes in the audit log that an object was put back.
    pub fn corrected(&self, object: &str, fields: &[String], claimed_by: &str) {
        self.audit.drift(object, fields, claimed_by);
    }

    /// Records an Event.
    pub async fn event(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        text: &str,
    ) {
        self.cluster.event(about, kind, reason, action, cut(text)).await;
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
