//! The command `status`: what runs, what is pending, what was refused, what was shared. Reads the
//! agent's objects with the rights of whoever calls it; changes nothing.

use comfy_table::{Table, presets};
use jiff::Timestamp;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use mendix_agent_core::ordered;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cluster::CALL_DEADLINE,
    crd::{
        agent_status::{AgentStatus, Initialization},
        log_snapshot::LogSnapshot,
        managed_component::ManagedComponent,
        patch_bundle::PatchBundle,
        support_ticket::SupportTicket,
        upgrade_trial::UpgradeTrial,
    },
    patch::report::waits_until,
};

/// Objects of one kind that are shown at most; the newest come first.
const MAX_SHOWN: usize = 20;
/// Objects of one kind that are read at most.
const MAX_READ: u32 = 500;

/// Everything the command shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    agent: Vec<AgentStatus>,
    components: Vec<ManagedComponent>,
    bundles: Vec<PatchBundle>,
    trials: Vec<UpgradeTrial>,
    tickets: Vec<SupportTicket>,
    snapshots: Vec<LogSnapshot>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The API server refused or failed.
    #[error("list {kind} in namespace {namespace}; is the agent installed there (--namespace)?")]
    List {
        /// Plural name of the kind.
        kind: String,
        /// Where.
        namespace: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("list {kind} in namespace {namespace}: no answer within {} s", CALL_DEADLINE.as_secs())]
    Deadline {
        /// Plural name of the kind.
        kind: String,
        /// Where.
        namespace: String,
    },
}

impl Overview {
    /// Reads everything.
    ///
    /// # Errors
    /// When one of the kinds can't be listed.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, StatusError> {
        Ok(Self {
            agent: list(client, namespace).await?,
            components: list(client, namespace).await?,
            bundles: list(client, namespace).await?,
            trials: list(client, namespace).await?,
            tickets: list(client, namespace).await?,
            snapshots: list(client, namespace).await?,
        })
    }

    /// For people: one block per kind, the newest first.
    pub fn table(&self) -> String {
        let mut blocks = vec![self.agent(), self.components(), self.bundles()];
        // Most clusters have none for most of the year.
        if !self.trials.is_empty() {
            blocks.push(self.trials());
        }
        blocks.extend([self.tickets(), self.snapshots()]);
        blocks.join("\n")
    }

    fn agent(&self) -> String {
        let mut lines = String::new();
        for status in self.agent.iter().filter_map(|agent| agent.status.as_ref()) {
            let mut line = |name: &str, value: &str| {
                if !value.is_empty() {
                    lines.push_str(&format!("{name:<12} {value}\n"));
                }
            };
            let since = status.link_since.map(|at| format!("{} since {}", status.link, second(at)));
            line("Link", since.as_deref().unwrap_or(&status.link));
            line("Endpoint", &status.endpoint);
            line("Agent", &status.version);
            line("Kubernetes", &status.kubernetes_version);
            line("Cluster", &status.cluster_uid);
            line("Release", status.release.as_deref().unwrap_or("none yet"));
            line("Under way", status.run.as_deref().unwrap_or_default());
            line("Health", &status.health);
            line("Nodes", status.nodes.as_deref().unwrap_or_default());
            line("Mendix apps", status.apps.as_deref().unwrap_or_default());
            line(
                "Initialized",
                &status.initialization.as_ref().map(initialized).unwrap_or_default(),
            );
            line("Problem", status.problem.as_deref().unwrap_or("none"));
        }
        if lines.is_empty() {
            lines.push_str("The agent has not written its status yet.\n");
        }
        lines
    }

    fn components(&self) -> String {
        let rows = self.components.iter().map(|component| {
            let status = component.status.clone().unwrap_or_default();
            let drift = match &status.last_drift {
                Some(last) => format!(
                    "{} (last: {} by {})",
                    status.drift_corrected, last.object, last.claimed_by
                ),
                None => status.drift_corrected.to_string(),
            };
            [
                component.name_any(),
                status.version.unwrap_or_default(),
                status.health.unwrap_or_default(),
                status.objects.to_string(),
                drift,
                status.message.unwrap_or_default(),
            ]
        });
        block(
            "Components",
            ["name", "version", "health", "objects", "drift put back", "message"],
            rows,
        )
    }

    fn bundles(&self) -> String {
        let rows = newest(&self.bundles).map(|bundle| {
            let status = bundle.status.clone().unwrap_or_default();
            let due = waits_until(&status, Timestamp::now()).map(|due| format!("is due at {due}"));
            let why = match status.refusals.as_slice() {
                [] => status.message.or(due).unwrap_or_default(),
                [only] => only.clone(),
                [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            };
            let changed = status.changed_at.map(second).unwrap_or_default();
            [
                bundle.spec.release_id.clone(),
                bundle.spec.class.clone().unwrap_or_default(),
                bundle.spec.sequence.to_string(),
                status.state,
                changed,
                why,
            ]
        });
        block("Releases", ["release", "class", "sequence", "state", "since", "why"], rows)
    }

    fn trials(&self) -> String {
        let rows = newest(&self.trials).map(|trial| {
            let status = trial.status.clone().unwrap_or_default();
            let phase = trial.phase().map_or(status.phase, |phase| phase.name().to_owned());
            [
                trial.spec.version.clone(),
                trial.spec.release_id.clone(),
                phase,
                status.changed_at.map(second).unwrap_or_default(),
                status.cause.unwrap_or_default(),
                status.message.unwrap_or_default(),
            ]
        });
        block(
            "Upgrades of the agent",
            ["version", "release", "phase", "since", "cause", "message"],
            rows,
        )
    }

    fn tickets(&self) -> String {
        let rows = newest(&self.tickets).map(|ticket| {
            let status = ticket.status.clone().unwrap_or_default();
            let used = format!("{} of {}", status.snapshots_used, status.snapshots_allowed);
            let by = status.consented_by.unwrap_or_default();
            [
                ticket.spec.ticket_id.clone(),
                status.ticket_status,
                status.consent,
                status.reason.unwrap_or_default(),
                by,
                used,
            ]
        });
        block(
            "Tickets",
            ["ticket", "status", "consent", "reason", "consented by", "snapshots"],
            rows,
        )
    }

    fn snapshots(&self) -> String {
        let rows = newest(&self.snapshots).map(|snapshot| {
            let status = snapshot.status.clone().unwrap_or_default();
            [
                snapshot.name_any(),
                snapshot.spec.ticket_id.clone(),
                status.phase,
                status.reason.unwrap_or_default(),
                status.files.to_string(),
                status.replaced.to_string(),
                status.sealed_bytes.to_string(),
            ]
        });
        block(
            "Log snapshots",
            ["snapshot", "ticket", "phase", "reason", "files", "replaced", "bytes"],
            rows,
        )
    }
}

/// RFC 3339 without the fraction, which nobody reads.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, StatusError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let (kind, namespace) = (K::plural(&()).into_owned(), namespace.to_owned());
    match tokio::time::timeout(CALL_DEADLINE, api.list(&ListParams::default().limit(MAX_READ)))
        .await
    {
        Ok(Ok(list)) => Ok(list.items),
        Ok(Err(source)) => Err(StatusError::List { kind, namespace, source }),
        Err(_) => Err(StatusError::Deadline { kind, namespace }),
    }
}

fn newest<K: Resource>(objects: &[K]) -> impl Iterator<Item = &K> {
    let mut sorted: Vec<&K> = objects.iter().collect();
    ordered::sort_by(&mut sorted, |a, b| {
        let key = |object: &K| object.meta().creation_timestamp.clone();
        key(b).cmp(&key(a)).then_with(|| a.name_any().cmp(&b.name_any()))
    });
    sorted.into_iter().take(MAX_SHOWN)
}

/// How far the installation has come, in one line.
fn initialized(initialization: &Initialization) -> String {
    let Initialization { attempt, state, phase, failing_check, message, .. } = initialization;
    if let ("Initialized", Some(at)) = (state.as_str(), initialization.ended_at) {
        return format!("since {}", second(at));
    }
    let check = failing_check.as_ref().map(|check| format!(" ({check})")).unwrap_or_default();
    let message = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("no; attempt {attempt}, {state} at {phase}{check}{message}")
}

fn block<const N: usize>(
    title: &str,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row);
    }
    if table.is_empty() {
        return format!("{title}: none\n");
    }
    format!("{title}\n{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn overview(value: serde_json::Value) -> Overview {
        #[derive(Deserialize)]
        struct Parts {
            agent: Vec<AgentStatus>,
            components: Vec<ManagedComponent>,
            bundles: Vec<PatchBundle>,
            #[serde(default)]
            trials: Vec<UpgradeTrial>,
        }
        let parts: Parts = serde_json::from_value(value).unwrap();
        Overview {
            agent: parts.agent,
            components: parts.components,
            bundles: parts.bundles,
            trials: parts.trials,
            tickets: vec![],
            snapshots: vec![],
        }
    }

    #[test]
    fn the_table_says_what_runs_what_was_refused_and_what_was_not_shared() {
        let shown = overview(json!({
            "agent": [{
                "apiVersion": "agent.mendix.com/v1alpha1", "kind": "AgentStatus",
                "metadata": { "name": "agent" }, "spec": {},
                "status": {
                    "link": "Connected", "linkSince": "2026-11-22T08:00:00.123456Z",
                    "endpoint": "https://10.0.0.4:8443", "clusterUid": "u-1", "version": "0.1.0",
                    "kubernetesVersion": "v1.34.2", "release": "2026.11.1", "health": "Healthy",
                    "run": "2026.11.3 Scheduled: waits for a session",
                },
            }],
            "components": [{
                "apiVersion": "agent.mendix.com/v1alpha1", "kind": "ManagedComponent",
                "metadata": { "name": "mendix-operator" }, "spec": { "component": "mendix-operator" },
                "status": {
                    "version": "2.21.0", "releaseId": "2026.11.1", "sequence": 1, "indexSha256": "",
                    "blobSha256": "", "health": "Ready", "objects": 7, "driftCorrected": 1,
                    "lastDrift": { "object": "Deployment mendix-operator/mendix-operator",
                        "fields": [], "claimedBy": "kubectl-edit" },
                },
            }],
            "bundles": [{
                "apiVersion": "agent.mendix.com/v1alpha1", "kind": "PatchBundle",
                "metadata": { "name": "b2" },
                "spec": { "releaseId": "2026.11.2", "sequence": 2, "class": "weekly" },
                "status": { "state": "Refused", "refusals": ["first reason", "second reason"] },
            }],
        }))
        .table();
        for part in [
            "Link         Connected since 2026-11-22T08:00:00Z",
            "mendix-operator",
            "1 (last: Deployment mendix-operator/mendix-operator by kubectl-edit)",
            "first reason (and 1 more)",
            "Under way    2026.11.3 Scheduled: waits for a session",
            "Problem      none",
            "Tickets: none",
            "Log snapshots: none",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
        }
    }

    #[test]
    fn a_new_agent_that_was_put_back_is_said_with_why() {
        let shown = overview(json!({ "agent": [], "components": [], "bundles": [], "trials": [{
            "apiVersion": "agent.mendix.com/v1alpha1", "kind": "UpgradeTrial",
            "metadata": { "name": "t1" },
            "spec": { "bundle": "b1", "releaseId": "2026.11.4", "version": "1.5.0", "image": "i",
                "preImage": "{}", "lastsSeconds": 600, "holdSeconds": 30 },
            "status": { "phase": "Reverted", "cause": "CrashLoop",
                "message": "its process ends again and again" },
        }]}))
        .table();
        for part in [
            "Upgrades of the agent",
            "1.5.0",
            "2026.11.4",
            "Reverted",
            "CrashLoop",
            "again and again",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
        }
        let none = overview(json!({ "agent": [], "components": [], "bundles": [] })).table();
        assert!(!none.contains("Upgrades"), "{none}");
    }

    #[test]
    fn an_agent_that_never_ran_is_said() {
        let empty = overview(json!({ "agent": [], "components": [], "bundles": [] }));
        assert!(empty.table().starts_with("The agent has not written its status yet."));
    }
}
