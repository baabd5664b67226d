//! What agents reported. Written by the server only, at most once a second per agent.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use mendix_agent_proto::v1;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{AuditRecord, Store, StoreError, files};

/// The last that was heard of a cluster's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRecord {
    /// Version of the agent.
    pub agent_version: String,
    /// Version of its Kubernetes.
    pub kubernetes_version: String,
    /// Start of the process it speaks for.
    pub boot_id: String,
    /// Highest fencing epoch seen; lower ones are refused.
    pub lease_epoch: u64,
    /// Optional abilities it named.
    pub capabilities: Vec<String>,
    /// Since when a session is up; none while it is not.
    pub connected_since: Option<Timestamp>,
    /// When the last session ended.
    pub disconnected_at: Option<Timestamp>,
    /// When the last heartbeat arrived.
    pub last_heartbeat: Option<Timestamp>,
    /// Its clock minus ours at the last heartbeat, milliseconds.
    pub clock_skew_millis: Option<i64>,
    /// Sessions since the cluster was registered.
    pub sessions: u64,
    /// Another process with the same identity at the same time.
    pub conflict: Option<IdentityConflict>,
    /// What is held of its audit log.
    #[serde(default)]
    pub audit: AuditRecord,
    /// Last report per section.
    pub reports: BTreeMap<i32, ReportRecord>,
}

/// Two processes that used one identity at the same time: a cloned identity, or two leaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConflict {
    /// Process whose session was ended.
    pub older_boot_id: String,
    /// Process whose session was kept.
    pub newer_boot_id: String,
    /// When it was seen last.
    pub seen_at: Timestamp,
    /// How often it was seen.
    pub count: u64,
}

/// A report as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRecord {
    /// Its revision.
    pub revision: u64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The encoded `Report`, base64.
    message: String,
}

impl ReportRecord {
    pub(crate) fn new(report: &v1::Report, received_at: Timestamp) -> Self {
        Self {
            revision: report.revision,
            received_at,
            message: BASE64_STANDARD.encode(report.encode_to_vec()),
        }
    }

    /// The report; `None` when the file was changed by hand.
    pub fn decode(&self) -> Option<v1::Report> {
        let bytes = BASE64_STANDARD.decode(&self.message).ok()?;
        v1::Report::decode(bytes.as_slice()).ok()
    }
}

impl AgentRecord {
    /// The last report of a section.
    pub fn report(&self, section: v1::Section) -> Option<v1::report::Body> {
        self.reports.get(&i32::from(section))?.decode()?.body
    }
}

impl Store {
    fn observed_path(&self, uid: &str) -> std::path::PathBuf {
        self.dir.join("observed").join(format!("{uid}.json"))
    }

    /// The last that was heard of a cluster's agent; `None` when it never connected.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn agent(&self, uid: &str) -> Result<Option<AgentRecord>, StoreError> {
        super::check_id("cluster", uid)?;
        files::read_json(&self.observed_path(uid))
    }

    pub(crate) fn write_agent(&self, uid: &str, record: &AgentRecord) -> Result<(), StoreError> {
        files::write_observation(&self.observed_path(uid), record)
    }

    /// Clusters whose agent has connected at least once.
    pub(crate) fn observed_uids(&self) -> Result<Vec<String>, StoreError> {
        files::names(&self.dir.join("observed"), ".json")
    }
}
