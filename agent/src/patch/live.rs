//! Objects of any kind as they live in the cluster: read, apply, delete. Every call has a deadline;
//! what a failure means is said by [`super::failure`].

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{
    future::BoxFuture,
    stream::{self, Stream, StreamExt},
};
use kube::{
    Client, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, GetParams, Patch, PatchParams, Preconditions,
        PropagationPolicy,
    },
    core::{GroupVersionKind, Request},
    discovery::{self, Scope},
};
use mendix_agent_core::bundle::{
    canonical,
    object::{IdFields, ObjectId},
    version::Version,
};
use serde_json::{Value, json};

use super::{
    contents::{Sha256, sha256},
    failure::{CallCause, CallError},
};
use crate::cluster::{CALL_DEADLINE, Cluster};

/// First Kubernetes version whose API server validates fields strictly on request (KEP-2885). Older
/// ones ignore the parameter; server-side apply refuses unknown fields there anyway (measured on
/// 1.20).
const STRICT_VALIDATION_SINCE: &str = "1.25";
/// Objects of one run that are read or written at once.
pub const PARALLEL_CALLS: usize = 16;

type Kind = (String, String, String);

/// Access to objects of any kind; cheap to clone.
#[derive(Clone)]
pub struct Live {
    client: Client,
    kinds: Arc<RwLock<HashMap<Kind, Served>>>,
    forms: Arc<RwLock<HashMap<ObjectId, (Sha256, Sha256)>>>,
    strict: bool,
}

/// How an object is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For good.
    Persist,
    /// The server says what would happen, and does nothing.
    DryRun,
}

/// How the API server serves a kind.
#[derive(Clone, Debug)]
struct Served {
    resource: ApiResource,
    scope: Scope,
    has_status: bool,
}

impl Live {
    /// Access with the agent's own rights.
    pub fn new(cluster: &Cluster) -> Self {
        let at_least = |wanted: &str| match (
            cluster.server_version.parse::<Version>(),
            wanted.parse::<Version>(),
        ) {
            (Ok(version), Ok(wanted)) => version >= wanted,
            _ => false,
        };
        Self {
            client: cluster.client.clone(),
            kinds: Arc::default(),
            forms: Arc::default(),
            strict: at_least(STRICT_VALIDATION_SINCE),
        }
    }

    /// For calls about objects of known kinds.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How the API server serves the kind of `id`. Asks for one group version only, so that an
    /// aggregated API that is down elsewhere does no harm.
    ///
    /// # Errors
    /// [`CallCause::NoSuchKind`] when it doesn't (yet).
    pub async fn kind(&self, id: &ObjectId) -> Result<(ApiResource, Scope), CallError> {
        let served = self.served(id).await?;
        Ok((served.resource, served.scope))
    }

    /// Whether objects of this kind have a status of their own. A custom resource without one is
    /// configuration: nobody can report about it, and there is nothing to wait for.
    ///
    /// # Errors
    /// As [`Live::kind`].
    pub async fn has_status(&self, id: &ObjectId) -> Result<bool, CallError> {
        Ok(self.served(id).await?.has_status)
    }

    async fn served(&self, id: &ObjectId) -> Result<Served, CallError> {
        let key = (id.group.clone(), id.version.clone(), id.kind.clone());
        let known = self.kinds.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let gvk = GroupVersionKind::gvk(&id.group, &id.version, &id.kind);
        let found = self.deadline("discover", id, discovery::pinned_kind(&self.client, &gvk)).await;
        let (resource, capabilities) = found.map_err(|error| match &error.cause {
            CallCause::Api(kube::Error::Discovery(_)) => no_such_kind(id),
            CallCause::Api(kube::Error::Api(status)) if status.code == 404 => no_such_kind(id),
            _ => error,
        })?;
        let mut subresources = capabilities.subresources.iter();
        let has_status = subresources.any(|(subresource, _)| subresource.plural == "status");
        let served = Served { resource, scope: capabilities.scope, has_status };
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(key, served.clone());
        Ok(served)
    }

    /// `id` in a version that is served: its own, or, as long as the release that brings that one is
    /// not applied, the one the server prefers. `id` itself when the kind is not served at all.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn as_served(&self, id: &ObjectId) -> Result<ObjectId, CallError> {
        match self.served(id).await {
            Err(CallError { cause: CallCause::NoSuchKind(_), .. }) => {}
            result => return result.map(|_| id.clone()),
        }
        let found = self.deadline("discover", id, discovery::group(&self.client, &id.group)).await;
        let group = match found {
            Ok(group) => group,
            Err(error) if is_not_found(&error) || is_no_group(&error) => return Ok(id.clone()),
            Err(error) => return Err(error),
        };
        let version = group.recommended_kind(&id.kind).map(|(resource, _)| resource.version);
        Ok(ObjectId::from(IdFields {
            version: version.unwrap_or_else(|| id.version.clone()),
            ..IdFields::clone(id)
        }))
    }

    /// Forgets how kinds are served: after CRDs changed.
    pub fn forget_kinds(&self) {
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Notes that applying `body` gave an object of which the agent owns `owned`: the server writes
    /// some values in a form of its own (`1000m` of CPU is `1`).
    pub fn note_form(&self, id: &ObjectId, body: &Value, owned: &Value) {
        let form = (digest(body), digest(owned));
        self.forms.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), form);
    }

    /// Whether `owned` is what the server made of `body` the last time. Applying it again would
    /// change nothing, and yet be written: API servers before 1.22 then set a new time of change.
    pub fn is_form_of(&self, id: &ObjectId, body: &Value, owned: &Value) -> bool {
        let forms = self.forms.read().unwrap_or_else(PoisonError::into_inner);
        forms.get(id).is_some_and(|form| *form == (digest(body), digest(owned)))
    }

    /// The object as it is; none if it doesn't exist, also when its kind or namespace doesn't.
    ///
    /// # Errors
    /// When the API server can't say.
    pub async fn get(&self, id: &ObjectId) -> Result<Option<Value>, CallError> {
        let request = match self.request(id).await {
            Ok(request) => request,
            Err(CallError { cause: CallCause::NoSuchKind(_), .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let request = request.get(&id.name, &GetParams::default());
        match self.send("read", id, request).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Applies `body` under `manager`; `force` takes fields over from others.
    ///
    /// # Errors
    /// See [`super::failure::Meaning`].
    pub async fn apply(
        &self,
        id: &ObjectId,
        body: &Value,
        manager: &str,
        force: bool,
        mode: Mode,
    ) -> Result<Value, CallError> {
        let mut params = PatchParams::apply(manager);
        params.force = force;
        params.dry_run = mode == Mode::DryRun;
        if self.strict {
            params = params.validation_strict();
        }
        let request = self.request(id).await?.patch(&id.name, &params, &Patch::Apply(body));
        let action = if mode == Mode::DryRun { "dry-run" } else { "apply" };
        let result = self.send(action, id, request).await;
        if let Err(error) = &result
            && is_not_found(error)
        {
            // The kind may have gone, and come back under another path.
            self.forget_kinds();
        }
        result
    }

    /// Replaces who owns which field, if the object still is the one that was read.
    ///
    /// # Errors
    /// A conflict when it is not.
    pub async fn set_managed_fields(
        &self,
        id: &ObjectId,
        read: &Value,
        managed_fields: &Value,
        manager: &str,
    ) -> Result<Value, CallError> {
        // A JSON merge patch: the resourceVersion in it makes the server refuse a stale one.
        let patch = json!({"metadata": {
            "resourceVersion": text(read, "/metadata/resourceVersion"),
            "uid": text(read, "/metadata/uid"),
            "managedFields": managed_fields,
        }});
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..Default::default() };
        let request = self.request(id).await?.patch(&id.name, &params, &Patch::Merge(&patch));
        self.send("move fields of", id, request).await
    }

    /// Creates an object that must not exist yet.
    ///
    /// # Errors
    /// A conflict when it exists.
    pub async fn create(
        &self,
        id: &ObjectId,
        body: &Value,
        manager: &str,
    ) -> Result<Value, CallError> {
        let params =
            kube::api::PostParams { field_manager: Some(manager.to_owned()), ..Default::default() };
        let body = serde_json::to_vec(body)
            .map_err(|e| CallError::new("create", id, CallCause::Answer(e.to_string())))?;
        let request = self.request(id).await?.create(&params, body);
        self.send("create", id, request).await
    }

    /// Deletes exactly the object that was read: by UID and resourceVersion. An object that is gone
    /// already is no failure; its dependents are collected in the background.
    ///
    /// # Errors
    /// A conflict when it is another one or was changed since.
    pub async fn delete(&self, id: &ObjectId, read: &Value) -> Result<(), CallError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: text(read, "/metadata/uid"),
                resource_version: text(read, "/metadata/resourceVersion"),
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..Default::default()
        };
        let request = self.request(id).await?.delete(&id.name, &params);
        match self.send("delete", id, request).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn request(&self, id: &ObjectId) -> Result<Request, CallError> {
        let (resource, scope) = self.kind(id).await?;
        let namespace = match scope {
            Scope::Namespaced => id.namespace.as_deref(),
            Scope::Cluster => None,
        };
        Ok(Request::new(DynamicObject::url_path(&resource, namespace)))
    }

    async fn send(
        &self,
        action: &'static str,
        id: &ObjectId,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, CallError> {
        let request = request.map_err(|e| {
            CallError::new(action, id, CallCause::Api(kube::Error::BuildRequest(e)))
        })?;
        self.deadline(action, id, self.client.request::<Value>(request)).await
    }

    async fn deadline<T>(
        &self,
        action: &'static str,
        id: &ObjectId,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CallError::new(action, id, CallCause::Api(error))),
            Err(_) => Err(CallError::new(action, id, CallCause::Deadline)),
        }
    }
}

fn digest(value: &Value) -> Sha256 {
    sha256(&canonical::bytes(value))
}

fn no_such_kind(id: &ObjectId) -> CallError {
    let kind = format!("{} in {}", id.kind, id.api_version());
    CallError::new("find the kind of", id, CallCause::NoSuchKind(kind))
}

fn is_no_group(error: &CallError) -> bool {
    matches!(&error.cause, CallCause::Api(kube::Error::Discovery(_)))
}

fn is_not_found(error: &CallError) -> bool {
    matches!(&error.cause, CallCause::Api(kube::Error::Api(status)) if status.code == 404)
}

/// Carries out calls, at most [`PARALLEL_CALLS`] at once; the answers come in the order of the calls. Each
/// is made when its turn comes: thousands that wait would be thousands of buffers.
pub fn in_parallel<'a, T: 'a>(
    calls: impl Iterator<Item = BoxFuture<'a, T>> + Send + 'a,
) -> impl Stream<Item = T> + 'a {
    // Boxed for its type's sake: the compiler can't tell that the future that holds it is `Send` otherwise.
    let calls: Box<dyn Iterator<Item = BoxFuture<'a, T>> + Send + 'a> = Box::new(calls);
    stream::iter(calls).buffered(PARALLEL_CALLS)
}

/// A string in an object.
pub fn text(object: &Value, pointer: &str) -> Option<String> {
    object.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}
