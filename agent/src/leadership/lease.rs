//! The Lease object, read and written by compare-and-swap.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use mendix_agent_core::leadership::{Put, Record, Stored, Written};
use thiserror::Error;

use crate::{
    cluster::{FIELD_MANAGER, Site},
    crd::agent_status::{self, AgentStatus},
};

/// Name of the Lease, in the agent's namespace.
pub(super) const NAME: &str = "mendix-agent";

/// Why the Lease could not be used.
#[derive(Debug, Error)]
pub(super) enum LeaseError {
    /// The API server refused or failed.
    #[error("{what}")]
    Api {
        /// The call.
        what: &'static str,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Somebody took the rights away without which nobody can lead.
    #[error(
        "{what}: the agent's rights in its namespace are gone; apply packaging/manifests/20-rbac.yaml, \
         or upgrade the chart, again"
    )]
    NoRights {
        /// The call.
        what: &'static str,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The Lease counts no further.
    #[error(
        "Lease {NAME}: leaseTransitions can't count beyond {}; delete the Lease and the epoch of AgentStatus",
        i32::MAX
    )]
    Exhausted,
}

impl LeaseError {
    fn of(what: &'static str, source: kube::Error) -> Self {
        match &source {
            kube::Error::Api(status) if status.code == 403 => Self::NoRights { what, source },
            _ => Self::Api { what, source },
        }
    }
}

/// Reads and writes the Lease. Its client is not fenced: the Lease is the fence.
pub(super) struct Leases {
    leases: Api<Lease>,
    statuses: Api<AgentStatus>,
    /// The object as it was seen last: what others put on it stays.
    last: Option<Lease>,
}

impl Leases {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            leases: Api::namespaced(site.for_the_lease().clone(), &site.namespace),
            statuses: Api::namespaced(site.for_the_lease().clone(), &site.namespace),
            last: None,
        }
    }

    pub(super) async fn read(&mut self) -> Result<Option<Stored>, LeaseError> {
        let lease = self.leases.get_opt(NAME).await;
        let lease = lease.map_err(|source| LeaseError::of("get Lease mendix-agent", source))?;
        self.last.clone_from(&lease);
        Ok(lease.map(stored))
    }

    /// The highest epoch that the agent's own status names; 0 where none was written yet.
    pub(super) async fn recorded_epoch(&self) -> Result<u64, LeaseError> {
        match self.statuses.get_opt(agent_status::NAME).await {
            Ok(status) => Ok(status.and_then(|it| it.status).and_then(|it| it.epoch).unwrap_or(0)),
            Err(source) => Err(LeaseError::of("read the last epoch from AgentStatus", source)),
        }
    }

    pub(super) async fn write(&mut self, put: &Put) -> Result<Written, LeaseError> {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = self.last.clone().unwrap_or_default();
        if put.replaces.is_none() {
            lease.metadata = ObjectMeta::default();
        }
        lease.metadata.name = Some(NAME.into());
        lease.metadata.resource_version.clone_from(&put.replaces);
        lease.metadata.managed_fields = None;
        let transitions = i32::try_from(put.transitions).map_err(|_| LeaseError::Exhausted)?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(put.holder.clone());
        spec.lease_duration_seconds = i32::try_from(put.duration.as_secs()).ok();
        spec.lease_transitions = Some(transitions);
        spec.renew_time.clone_from(&now);
        if put.acquires {
            spec.acquire_time = now;
        }
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let (what, written) = match &put.replaces {
            Some(_) => {
                ("update Lease mendix-agent", self.leases.replace(NAME, &params, &lease).await)
            }
            None => ("create Lease mendix-agent", self.leases.create(&params, &lease).await),
        };
        match written {
            Ok(lease) => {
                self.last = Some(lease.clone());
                let Stored { version, record } = stored(lease);
                Ok(Written::Done { version, record })
            }
            // Also "not found": somebody deleted it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Ok(Written::Conflict)
            }
            Err(source) => Err(LeaseError::of(what, source)),
        }
    }
}

fn stored(lease: Lease) -> Stored {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok());
    let time = |time: &MicroTime| time.0.to_string();
    Stored {
        version: lease.metadata.resource_version.unwrap_or_default(),
        record: Record {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds.unwrap_or_default()),
            transitions: spec.lease_transitions.and_then(|it| u64::try_from(it).ok()).unwrap_or(0),
            renewed: spec.renew_time.as_ref().map(time).unwrap_or_default(),
        },
    }
}
