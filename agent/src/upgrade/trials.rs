//! The UpgradeTrial objects, changed by compare-and-swap, and only by the party whose step it is.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, ResourceExt, api::PostParams};
use mendix_agent_core::upgrade::{Party, Phase, may};

use super::GUARD;
use crate::{
    cluster::{FIELD_MANAGER, STATUS_MANAGER},
    crd::upgrade_trial::{UpgradeTrial, UpgradeTrialSpec, UpgradeTrialStatus},
    patch::{
        failure::{CallCause, CallError},
        records::{deadline, is_status},
    },
};

/// The trials, as one party changes them.
#[derive(Clone)]
pub struct Trials {
    api: Api<UpgradeTrial>,
    party: Party,
}

impl Trials {
    /// Trials in the agent's namespace.
    pub fn new(client: Client, namespace: &str, party: Party) -> Self {
        Self { api: Api::namespaced(client, namespace), party }
    }

    /// For watching them.
    pub fn api(&self) -> &Api<UpgradeTrial> {
        &self.api
    }

    /// One trial, as it is now.
    ///
    /// # Errors
    /// When the API server can't be reached or refuses.
    pub async fn get(&self, name: &str) -> Result<Option<UpgradeTrial>, CallError> {
        deadline("read", about(name), self.api.get_opt(name)).await
    }

    /// Opens a trial, or gives the one of this name. It goes when `owner` does.
    ///
    /// # Errors
    /// As [`Trials::get`].
    pub async fn open(
        &self,
        name: &str,
        spec: UpgradeTrialSpec,
        owner: OwnerReference,
    ) -> Result<UpgradeTrial, CallError> {
        let mut trial = UpgradeTrial::new(name, spec);
        trial.metadata.owner_references = Some(vec![owner]);
        let params = writer(FIELD_MANAGER);
        match deadline("create", about(name), self.api.create(&params, &trial)).await {
            Err(error) if is_status(&error, 409) => {
                deadline("read", about(name), self.api.get(name)).await
            }
            result => result,
        }
    }

    /// Takes a trial that was read to another phase; none when somebody changed it since.
    ///
    /// # Errors
    /// When this party may not make the step, or as [`Trials::get`].
    pub async fn advance(
        &self,
        read: &UpgradeTrial,
        to: Phase,
        change: impl FnOnce(&mut UpgradeTrialStatus),
    ) -> Result<Option<UpgradeTrial>, CallError> {
        let name = read.name_any();
        let from = read.phase();
        if !from.is_some_and(|from| may(self.party, from, to)) {
            let from = from.map_or("no known phase", Phase::name);
            let why = format!("the {:?} does not take it from {from} to {to}", self.party);
            return Err(CallError::about("update", about(&name), CallCause::Answer(why)));
        }
        let mut trial = read.clone();
        let mut status = trial.status.take().unwrap_or_default();
        change(&mut status);
        to.name().clone_into(&mut status.phase);
        status.changed_at = Some(Timestamp::now());
        trial.status = Some(status);
        let manager = match self.party {
            Party::Agent => STATUS_MANAGER,
            Party::Guard => GUARD,
        };
        let params = writer(manager);
        let call = self.api.replace_status(&name, &params, &trial);
        match deadline("update", about(&name), call).await {
            Err(error) if is_status(&error, 409) => Ok(None),
            result => result.map(Some),
        }
    }
}

fn writer(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.to_owned()), ..Default::default() }
}

fn about(name: &str) -> String {
    format!("UpgradeTrial {name}")
}
