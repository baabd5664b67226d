//! Writes the objects that show the customer what was asked, allowed and sent.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use mendix_agent_core::{consent::ticket::MAX_TICKETS, ordered};
use serde_json::json;

use super::pages::{PAGE, Pages};
use crate::{
    cluster::{ApiError, Cluster, FIELD_MANAGER, STATUS_MANAGER, call},
    crd::{
        log_snapshot::{LogSnapshot, LogSnapshotSpec, LogSnapshotStatus},
        support_ticket::{SupportTicket, SupportTicketSpec, SupportTicketStatus},
    },
};

/// Receipts that are kept; beyond, the oldest finished ones are deleted.
const MAX_RECEIPTS: usize = 200;
/// Tickets that are kept; beyond, the oldest deleted ones go.
const MAX_MIRRORS: usize = 2 * MAX_TICKETS;

/// All objects of a kind in the agent's namespace, page by page.
pub(super) async fn list<K>(api: &Api<K>, what: &'static str) -> Result<Vec<K>, ApiError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut all = Vec::new();
    let mut pages = Pages::new(api.clone(), ListParams::default().limit(PAGE), what);
    while let Some(objects) = pages.next().await? {
        all.extend(objects);
    }
    Ok(all)
}

/// Receipts of snapshots.
#[derive(Clone)]
pub(super) struct Receipts {
    api: Api<LogSnapshot>,
}

/// Phase of a receipt whose snapshot is under way.
pub(super) const STARTED: &str = "Started";

impl Receipts {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { api: cluster.own() }
    }

    /// All receipts.
    pub(super) async fn all(&self) -> Result<Vec<LogSnapshot>, ApiError> {
        list(&self.api, "list LogSnapshots").await
    }

    /// Records a snapshot that is about to begin.
    pub(super) async fn start(
        &self,
        id: &str,
        spec: LogSnapshotSpec,
    ) -> Result<LogSnapshot, ApiError> {
        let object = LogSnapshot {
            metadata: ObjectMeta { name: Some(id.into()), ..Default::default() },
            spec,
            status: None,
        };
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        call("create LogSnapshot", self.api.create(&params, &object)).await?;
        let status = LogSnapshotStatus {
            phase: STARTED.into(),
            started_at: Some(Timestamp::now()),
            ..Default::default()
        };
        self.update(id, &status).await
    }

    /// Writes how it stands.
    pub(super) async fn update(
        &self,
        id: &str,
        status: &LogSnapshotStatus,
    ) -> Result<LogSnapshot, ApiError> {
        // Applied, not merged: what an earlier status had and this one has not goes away.
        let patch = Patch::Apply(json!({
            "apiVersion": LogSnapshot::api_version(&()), "kind": LogSnapshot::kind(&()),
            "metadata": { "name": id }, "status": status,
        }));
        let params = PatchParams::apply(STATUS_MANAGER).force();
        call("apply LogSnapshot status", self.api.patch_status(id, &params, &patch)).await
    }

    /// Deletes the oldest finished receipts beyond what is kept.
    pub(super) async fn prune(&self) -> Result<(), ApiError> {
        let mut finished: Vec<_> = self
            .all()
            .await?
            .into_iter()
            .filter(|r| r.status.as_ref().is_some_and(|s| s.finished_at.is_some()))
            .collect();
        let at = |r: &LogSnapshot| r.status.as_ref().and_then(|s| s.finished_at);
        ordered::sort_by(&mut finished, |a, b| at(a).cmp(&at(b)));
        let excess = finished.len().saturating_sub(MAX_RECEIPTS);
        for receipt in finished.into_iter().take(excess) {
            let (name, params) = (receipt.name_any(), DeleteParams::default());
            call("delete LogSnapshot", self.api.delete(&name, &params)).await?;
        }
        Ok(())
    }
}

/// Mirrors of tickets.
#[derive(Clone)]
pub(super) struct Mirrors {
    api: Api<SupportTicket>,
}

/// Status of a ticket that the control plane no longer lists.
pub(super) const DELETED: &str = "DELETED";

impl Mirrors {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { api: cluster.own() }
    }

    /// All mirrors.
    pub(super) async fn all(&self) -> Result<Vec<SupportTicket>, ApiError> {
        list(&self.api, "list SupportTickets").await
    }

    /// Creates or updates the mirror of a ticket.
    pub(super) async fn write(
        &self,
        name: &str,
        ticket_id: &str,
        status: &SupportTicketStatus,
    ) -> Result<SupportTicket, ApiError> {
        let mut object =
            SupportTicket::new(name, SupportTicketSpec { ticket_id: ticket_id.into() });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call("apply SupportTicket", self.api.patch(name, &params, &Patch::Apply(&object))).await?;
        object.status = Some(status.clone());
        let params = PatchParams::apply(STATUS_MANAGER).force();
        // What an earlier status had and this one has not is dropped by the server: one manager
        // owns all of it.
        let patch = Patch::Apply(&object);
        call("apply SupportTicket status", self.api.patch_status(name, &params, &patch)).await
    }

    /// Deletes the oldest mirrors of deleted tickets beyond what is kept.
    pub(super) async fn prune(&self, mirrors: &[SupportTicket]) -> Result<(), ApiError> {
        let mut gone: Vec<_> = mirrors
            .iter()
            .filter(|t| t.status.as_ref().is_some_and(|s| s.ticket_status == DELETED))
            .collect();
        let at = |t: &SupportTicket| t.creation_timestamp().map(|time| time.0);
        ordered::sort_by(&mut gone, |a, b| at(a).cmp(&at(b)));
        let excess = mirrors.len().saturating_sub(MAX_MIRRORS).min(gone.len());
        for mirror in &gone[..excess] {
            let params = DeleteParams::default();
            call("delete SupportTicket", self.api.delete(&mirror.name_any(), &params)).await?;
        }
        Ok(())
    }
}

/// Reference for an Event about one of the objects.
pub(super) fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource<DynamicType = ()>,
{
    object.object_ref(&())
}
