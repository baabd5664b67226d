//! The records of runs and components: PatchBundle and ManagedComponent objects, written by
//! compare-and-swap.
//!
//! The agent is the only writer. Each record holds the epoch of the leader that wrote it last. A record
//! that somebody else changed meanwhile is read again, and written only if its state still is the one
//! that this process left it in and no later leader wrote it: two agents can't carry on one run. A new
//! leader claims the records before it goes on ([`Records::claim`]), so that a write of the last one
//! that is still on its way fails.

use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use mendix_agent_core::bundle::run::State;
use serde::{Serialize, de::DeserializeOwned};

use super::failure::{CallCause, CallError};
use crate::{
    cluster::{CALL_DEADLINE, Cluster, FIELD_MANAGER, STATUS_MANAGER},
    crd::{
        managed_component::{ManagedComponent, ManagedComponentSpec, ManagedComponentStatus},
        patch_bundle::{PatchBundle, PatchBundleSpec, PatchBundleStatus},
    },
    term::Term,
};

/// Attempts of one compare-and-swap, one after the other: metadata of a record may be edited by people.
/// The last conflict is handed on, for the caller to wait a while as with any ([`patiently`]).
///
/// [`patiently`]: super::failure::patiently
const SWAP_ATTEMPTS: usize = 5;

/// The records in the agent's namespace.
#[derive(Clone)]
pub struct Records {
    bundles: Api<PatchBundle>,
    components: Api<ManagedComponent>,
    term: Term,
}

impl Records {
    /// Records of this cluster.
    pub fn new(cluster: &Cluster) -> Self {
        Self { bundles: cluster.own(), components: cluster.own(), term: cluster.term().clone() }
    }

    /// All runs.
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn bundles(&self) -> Result<Vec<PatchBundle>, CallError> {
        list(&self.bundles).await
    }

    /// All components.
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn components(&self) -> Result<Vec<ManagedComponent>, CallError> {
        list(&self.components).await
    }

    /// One run, as it is now.
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn bundle(&self, name: &str) -> Result<Option<PatchBundle>, CallError> {
        deadline("read", about("PatchBundle", name), self.bundles.get_opt(name)).await
    }

    /// Takes the records over from earlier leaders: writes this one's epoch into all that are still to
    /// be changed.
    ///
    /// # Errors
    /// When a later leader has done so, or the API server refuses or can't be reached.
    pub async fn claim(&self) -> Result<(), CallError> {
        let mine = Some(self.term.epoch());
        for bundle in self.bundles().await? {
            let ended = state_of(&bundle).is_none_or(|state| state.ended());
            if let Some(status) = bundle.status.clone()
                && !ended
                && status.epoch != mine
            {
                self.save(&bundle, status).await?;
            }
        }
        for component in self.components().await? {
            if component.status.is_some_and(|status| status.epoch != mine) {
                let name = component.metadata.name.unwrap_or_default();
                self.update_component(&name, |status| {
                    Some(ManagedComponentStatus { epoch: mine, ..status })
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Makes a record of a run, or returns the one that is there.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn open(&self, name: &str, spec: PatchBundleSpec) -> Result<PatchBundle, CallError> {
        if let Some(bundle) = self.bundle(name).await? {
            return Ok(bundle);
        }
        let bundle = PatchBundle::new(name, spec);
        let params = writer(FIELD_MANAGER);
        let call = self.bundles.create(&params, &bundle);
        deadline("create", about("PatchBundle", name), call).await
    }

    /// Deletes the record of a run.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn drop_bundle(&self, name: &str) -> Result<(), CallError> {
        let params = DeleteParams::default();
        let call = self.bundles.delete(name, &params);
        match deadline("delete", about("PatchBundle", name), call).await {
            Err(error) if !is_status(&error, 404) => Err(error),
            _ => Ok(()),
        }
    }

    /// One component, as it is now.
    ///
    /// # Errors
    /// When the API server can't be reached.
    pub async fn component(&self, name: &str) -> Result<Option<ManagedComponent>, CallError> {
        deadline("read", about("ManagedComponent", name), self.components.get_opt(name)).await
    }

    /// Deletes the record of a component.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached.
    pub async fn drop_component(&self, name: &str) -> Result<(), CallError> {
        let params = DeleteParams::default();
        let call = self.components.delete(name, &params);
        match deadline("delete", about("ManagedComponent", name), call).await {
            Err(error) if !is_status(&error, 404) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the status of a run that this process read as `bundle`.
    ///
    /// # Errors
    /// When the record's state is no longer the one in `bundle`, or a later leader has written it:
    /// another process carries on. When others keep changing the record.
    pub async fn save(
        &self,
        bundle: &PatchBundle,
        mut status: PatchBundleStatus,
    ) -> Result<PatchBundle, CallError> {
        let name = bundle.name_any();
        status.epoch = Some(self.term.epoch());
        let expected = state_of(bundle);
        let mut base = bundle.clone();
        let params = writer(STATUS_MANAGER);
        let mut left = SWAP_ATTEMPTS;
        loop {
            left -= 1;
            let epoch = base.status.as_ref().and_then(|status| status.epoch);
            self.not_superseded(epoch, || about("PatchBundle", &name))?;
            base.status = Some(status.clone());
            let call = self.bundles.replace_status(&name, &params, &base);
            match deadline("update", about("PatchBundle", &name), call).await {
                Err(error) if is_status(&error, 409) && left > 0 => {}
                result => return result,
            }
            base = deadline("read", about("PatchBundle", &name), self.bundles.get(&name)).await?;
            if state_of(&base) != expected {
                let why = "another process carries on this run";
                return Err(answer("update", about("PatchBundle", &name), why));
            }
        }
    }

    /// Changes the status of a component, making its object if there is none. `change` is called
    /// with what is there now, again after each conflict; none from it means: leave it.
    ///
    /// # Errors
    /// When the API server refuses or can't be reached, or others keep changing the object.
    pub async fn update_component(
        &self,
        name: &str,
        change: impl Fn(ManagedComponentStatus) -> Option<ManagedComponentStatus> + Send + Sync,
    ) -> Result<ManagedComponent, CallError> {
        let object = || about("ManagedComponent", name);
        let (spec_writer, status_writer) = (writer(FIELD_MANAGER), writer(STATUS_MANAGER));
        let mut left = SWAP_ATTEMPTS;
        loop {
            left -= 1;
            let found = deadline("read", object(), self.components.get_opt(name)).await?;
            let mut component = match found {
                Some(component) => component,
                None => {
                    let spec = ManagedComponentSpec { component: name.to_owned() };
                    let new = ManagedComponent::new(name, spec);
                    let call = self.components.create(&spec_writer, &new);
                    match deadline("create", object(), call).await {
                        Err(error) if is_status(&error, 409) && left > 0 => continue,
                        result => result?,
                    }
                }
            };
            // Taken and not copied: it names all objects of the component.
            let before = component.status.take();
            self.not_superseded(before.as_ref().and_then(|status| status.epoch), object)?;
            match change(before.clone().unwrap_or_default()) {
                Some(after) if before.as_ref() != Some(&after) => {
                    let epoch = Some(self.term.epoch());
                    component.status = Some(ManagedComponentStatus { epoch, ..after });
                }
                _ => {
                    component.status = before;
                    return Ok(component);
                }
            }
            drop(before);
            let call = self.components.replace_status(name, &status_writer, &component);
            match deadline("update", object(), call).await {
                Err(error) if is_status(&error, 409) && left > 0 => {}
                result => return result,
            }
        }
    }
}

impl Records {
    fn not_superseded(
        &self,
        epoch: Option<u64>,
        object: impl Fn() -> String,
    ) -> Result<(), CallError> {
        self.term.check_epoch(epoch).map_err(|error| answer("update", object(), &error.to_string()))
    }
}

/// The state that a record stands for. One without status was made and not yet written to: it is
/// an offer.
pub fn state_of(bundle: &PatchBundle) -> Option<State> {
    match &bundle.status {
        None => Some(State::Offered),
        Some(status) => State::parse(&status.state, status.component_index),
    }
}

/// Spec and status have writers of their own: API servers before 1.22 don't tell a subresource's
/// fields from the object's.
fn writer(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.to_owned()), ..Default::default() }
}

async fn list<K>(api: &Api<K>) -> Result<Vec<K>, CallError>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let params = ListParams::default();
    Ok(deadline("list", kind, api.list(&params)).await?.items)
}

fn about(kind: &str, name: &str) -> String {
    format!("{kind} {name}")
}

fn answer(action: &'static str, object: String, why: &str) -> CallError {
    CallError::about(action, object, CallCause::Answer(why.to_owned()))
}

pub(crate) fn is_status(error: &CallError, code: u16) -> bool {
    matches!(&error.cause, CallCause::Api(kube::Error::Api(status)) if status.code == code)
}

/// A call with a deadline, its failure with what it was about.
pub(crate) async fn deadline<T>(
    action: &'static str,
    object: String,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    let cause = match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => CallCause::Api(error),
        Err(_) => CallCause::Deadline,
    };
    Err(CallError::about(action, object, cause))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use http::{Method, Request, Response};
    use kube::client::{Body, Client};
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::{super::failure::patiently, *};

    /// Records on an API server that the test plays: of each object somebody else is faster `conflicts`
    /// times.
    fn contested(conflicts: usize) -> (Records, Arc<AtomicUsize>) {
        // As either kind has it.
        let mut status = serde_json::to_value(ManagedComponentStatus::default()).unwrap();
        status["state"] = json!("Gating");
        status["componentIndex"] = json!(0);
        let puts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&puts);
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_put = request.method() == Method::PUT;
            let late = is_put && counted.fetch_add(1, SeqCst) < conflicts;
            let found = json!({
                "metadata": { "name": "r1", "resourceVersion": "7" },
                "spec": { "releaseId": "r1", "sequence": 1, "component": "r1" },
                "status": status,
            });
            let conflict = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409,
                "reason": "Conflict", "message": "the object has been modified",
            });
            async move {
                let (code, body) = if late { (409, conflict) } else { (200, found) };
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(
                    Response::builder().status(code).body(body).expect("a response"),
                )
            }
        });
        let client = Client::new(service, "own");
        let (bundles, components) =
            (Api::default_namespaced(client.clone()), Api::default_namespaced(client));
        (Records { bundles, components, term: Term::sole() }, puts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_others_keep_changing_is_written_between_two_of_them() {
        let conflicts = 4 * SWAP_ATTEMPTS;
        let cancel = CancellationToken::new();

        let (records, puts) = contested(conflicts);
        let bundle = records.bundle("r1").await.unwrap().unwrap();
        let status = bundle.status.clone().unwrap();
        let error = records.save(&bundle, status.clone()).await.unwrap_err();
        assert!(error.is_conflict(), "{}", error.line());
        assert_eq!(puts.load(SeqCst), SWAP_ATTEMPTS);
        let save =
            patiently(&cancel, &|_| {}, || async { records.save(&bundle, status.clone()).await });
        save.await.unwrap();
        assert_eq!(puts.load(SeqCst), conflicts + 1);

        let (records, puts) = contested(conflicts);
        let update = patiently(&cancel, &|_| {}, || async {
            let change = |mut status: ManagedComponentStatus| {
                status.version = Some("2".into());
                Some(status)
            };
            records.update_component("r1", change).await
        });
        update.await.unwrap();
        assert_eq!(puts.load(SeqCst), conflicts + 1);
    }
}
