//! The steps of a run that touch objects: preview, pre-images, apply, gate, prune, restore. Each
//! starts from live state and may be done again.

mod preview;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::wait::await_condition,
};
use mendix_agent_core::bundle::{
    admission::AGENT_COMPONENT,
    drift::is_applied_by,
    foundation::FOUNDATION_COMPONENT,
    index::ComponentEntry,
    kind,
    object::{Object, ObjectId},
    plan::{Plan, PlannedComponent},
    readiness::is_judged,
    way_back,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    contents::{Packed, Packer},
    converge::{Adoption, Wanted, converge},
    failure::{CallCause, CallError, Meaning, StepError, patiently},
    gate::{self, Baseline, Passage, Terms},
    live::{Live, in_parallel, text},
    preimage::{self, PreImage, Restored, restore, touched},
};
use crate::cluster::FIELD_MANAGER;

/// How long a CRD may take to be served (measured: 14 ms, at most 107 ms).
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);

/// Told what a step waits for, and `None` when it goes on.
pub type Paused<'a> = &'a (dyn Fn(Option<&CallError>) + Send + Sync);

/// UIDs of what components own, from their inventories.
pub type Owned = BTreeMap<ObjectId, String>;

/// What the steps of one run need.
pub struct Steps<'a> {
    /// The cluster's objects.
    pub live: &'a Live,
    /// For watches of CRDs.
    pub client: &'a Client,
    /// Name of the run.
    pub run: &'a str,
    /// What the components own already.
    pub owned: &'a Owned,
    /// Ends the step when the agent stops.
    pub cancel: &'a CancellationToken,
    /// Told about pauses.
    pub paused: Paused<'a>,
}

impl Steps<'_> {
    /// What the plan does that a rollback could not undo, one line each.
    ///
    /// # Errors
    /// When the agent stops or an object can't be read.
    pub async fn no_way_back(&self, plan: &Plan) -> Result<Vec<String>, StepError> {
        let mut obstacles = vec![];
        let absent = self.absent_namespaces(plan).await?;
        let objects = plan.components().iter().flat_map(PlannedComponent::objects);
        for object in objects.filter(|object| way_back::concerns(object)) {
            if is_in(&absent, &object.id) {
                continue;
            }
            let live = patiently(self.cancel, self.paused, || self.live.get(&object.id)).await?;
            let obstacle = live.and_then(|live| way_back::obstacle(object, &live));
            obstacles.extend(obstacle.map(|why| format!("{}: {why}", object.id)));
        }
        Ok(obstacles)
    }

    /// Namespaces that come with the plan and are not there yet. What is in them is not there either, and
    /// the right to look may come with them.
    async fn absent_namespaces(&self, plan: &Plan) -> Result<BTreeSet<String>, StepError> {
        let mut absent = BTreeSet::new();
        for object in plan.components().iter().flat_map(PlannedComponent::objects) {
            if object.id.group.is_empty() && object.id.kind == "Namespace" {
                let live = patiently(self.cancel, self.paused, || self.live.get(&object.id));
                if live.await?.is_none() {
                    absent.insert(object.id.name.clone());
                }
            }
        }
        Ok(absent)
    }

    fn wanted<'b>(
        &'b self,
        entry: &'b ComponentEntry,
        object: &'b Object,
        body: &'b Value,
        exceptions: &'b [&'b str],
    ) -> Wanted<'b> {
        // The agent's own objects were installed by others and are its own all the same.
        let own = [AGENT_COMPONENT, FOUNDATION_COMPONENT].contains(&entry.name.as_str());
        let adoption = match entry.adopt || own {
            true => Adoption::Any,
            false => Adoption::Ours(self.owned.get(&object.id).map(String::as_str)),
        };
        Wanted { id: &object.id, body, component: &entry.name, run: self.run, exceptions, adoption }
    }

    /// Reads every object that the plan touches, and packs it as it comes.
    ///
    /// # Errors
    /// When the agent stops or an object can't be read.
    pub async fn pre_images(&self, plan: &Plan) -> Result<Packed, StepError> {
        let absent = self.absent_namespaces(plan).await?;
        let reads = touched(plan).into_iter().map(|(place, id)| {
            let is_absent = is_in(&absent, &id);
            async move {
                patiently(self.cancel, self.paused, || async {
                    let id = self.live.as_served(&id).await?;
                    let live = match is_absent {
                        true => None,
                        false => self.live.get(&id).await?,
                    };
                    Ok(PreImage { place, id, live })
                })
                .await
            }
            .boxed()
        });
        let unwritten = |error: io::Error| {
            let cause = CallCause::Answer(error.to_string());
            CallError::about("write", "pre-images".into(), cause)
        };
        let mut images = in_parallel(reads);
        let mut packer = Packer::default();
        while let Some(image) = images.try_next().await? {
            preimage::write(&mut packer, &image).map_err(unwritten)?;
        }
        Ok(packer.finish().map_err(unwritten)?)
    }

    /// Applies a component, stage by stage. CRDs are served and Jobs are done before what comes after
    /// them begins; within the stage of workloads Jobs come first.
    ///
    /// # Errors
    /// The first failure that stays.
    pub async fn apply(&self, component: &PlannedComponent) -> Result<(), StepError> {
        for (stage, objects) in component.stages() {
            let is_job = |object: &&Object| object.id.group == "batch" && object.id.kind == "Job";
            let (jobs, others): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(is_job);
            self.apply_all(component.entry(), &jobs).await?;
            self.await_jobs(component.entry(), &jobs).await?;
            self.apply_all(component.entry(), &others).await?;
            if *stage == kind::Stage::Definitions {
                self.await_definitions(objects).await?;
            }
        }
        Ok(())
    }

    async fn apply_all(
        &self,
        entry: &ComponentEntry,
        objects: &[&Object],
    ) -> Result<(), StepError> {
        let calls = objects.iter().map(|object| {
            async move {
                let exceptions = exceptions(entry, &object.id);
                let body = object.body.value();
                let wanted = self.wanted(entry, object, &body, &exceptions);
                let call = patiently(self.cancel, self.paused, || converge(self.live, wanted));
                call.await.map(drop)
            }
            .boxed()
        });
        in_parallel(calls).try_collect::<()>().await
    }

    async fn await_jobs(&self, entry: &ComponentEntry, jobs: &[&Object]) -> Result<(), StepError> {
        let ids: Vec<ObjectId> = jobs.iter().map(|job| job.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let terms = Terms { hold: Duration::ZERO, limit: timeout(entry), wait_for_sick: true };
        let none = Baseline::new();
        match gate::pass(self.live, &ids, &none, terms, self.cancel, self.paused).await? {
            Passage::Passed(_) => Ok(()),
            Passage::Failed(failure) => {
                let what = format!("Jobs of {}", entry.name);
                Err(CallError::about("wait for", what, CallCause::Found(failure.line())).into())
            }
        }
    }

    async fn await_definitions(&self, objects: &[Object]) -> Result<(), StepError> {
        let kind = ApiResource::erase::<CustomResourceDefinition>(&());
        let definitions: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        for object in objects.iter().filter(|o| o.id.kind == "CustomResourceDefinition") {
            let served = patiently(self.cancel, self.paused, || async {
                let served = await_condition(definitions.clone(), &object.id.name, is_established);
                match tokio::time::timeout(ESTABLISHED_WITHIN, served).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => {
                        let why = CallCause::Answer(error.to_string());
                        let mut error = CallError::new("wait for", &object.id, why);
                        error.meaning = Meaning::Blocked;
                        Err(error)
                    }
                    Err(_) => {
                        let within = ESTABLISHED_WITHIN.as_secs();
                        let why = CallCause::Found(format!("not established within {within} s"));
                        Err(CallError::new("wait for", &object.id, why))
                    }
                }
            });
            served.await?;
        }
        self.live.forget_kinds();
        Ok(())
    }

    /// Waits until a component is ready.
    ///
    /// # Errors
    /// When the agent stops or an object can't be read.
    pub async fn gate(
        &self,
        component: &PlannedComponent,
        baseline: &Baseline,
    ) -> Result<Passage, StepError> {
        let entry = component.entry();
        let terms = Terms { hold: Duration::ZERO, limit: timeout(entry), wait_for_sick: true };
        gate::pass(self.live, &ids(component), baseline, terms, self.cancel, self.paused).await
    }

    /// Watches that a component stays ready. A break starts the soak again, within the gate's timeout.
    ///
    /// # Errors
    /// When the agent stops or an object can't be read.
    pub async fn soak(
        &self,
        component: &PlannedComponent,
        baseline: &Baseline,
    ) -> Result<Passage, StepError> {
        let hold = Duration::from_secs(component.entry().gates.soak_seconds.into());
        let limit = hold + timeout(component.entry());
        let terms = Terms { hold, limit, wait_for_sick: false };
        // The gate has just seen that the others are there, and they have no health that could change.
        let lasting: Vec<ObjectId> = ids(component).into_iter().filter(is_judged).collect();
        gate::pass(self.live, &lasting, baseline, terms, self.cancel, self.paused).await
    }

    /// Deletes what no component names any more. What the server refuses to delete stays, and is
    /// returned; it is no reason to go back.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn prune(&self, plan: &Plan) -> Result<Vec<String>, StepError> {
        let mut stay = vec![];
        for id in plan.components().iter().flat_map(PlannedComponent::prune) {
            let deleted = patiently(self.cancel, self.paused, || async {
                let Some(current) = self.live.get(id).await? else { return Ok(()) };
                if !self.is_ours(id, &current) {
                    return Ok(());
                }
                self.live.delete(id, &current).await
            });
            match deleted.await {
                Err(StepError::Call(error)) => stay.push(error.line()),
                result => result?,
            }
        }
        Ok(stay)
    }

    /// An object of the same name that somebody else made since is not the one that was owned.
    fn is_ours(&self, id: &ObjectId, current: &Value) -> bool {
        match self.owned.get(id).filter(|uid| !uid.is_empty()) {
            Some(uid) => text(current, "/metadata/uid").as_deref() == Some(uid),
            None => is_applied_by(current, FIELD_MANAGER),
        }
    }

    /// Puts back all objects of one component, in the reverse order. Returns what the run created
    /// and what stays, because deleting it could lose data.
    ///
    /// # Errors
    /// The failures that stay, as one.
    pub async fn restore(&self, images: &[PreImage]) -> Result<Vec<String>, StepError> {
        let mut reversed: Vec<&PreImage> = images.iter().collect();
        reversed.reverse();
        let (mut stay, mut stuck) = (vec![], vec![]);
        // What was applied together is put back together.
        for group in reversed.chunk_by(|a, b| kind::stage(&a.id) == kind::stage(&b.id)) {
            let calls = group.iter().map(|image| {
                async move {
                    let call = || restore(self.live, image, self.run);
                    (*image, patiently(self.cancel, self.paused, call).await)
                }
                .boxed()
            });
            let mut restored = in_parallel(calls);
            while let Some((image, result)) = restored.next().await {
                match result {
                    Ok(Restored::AsBefore) => {}
                    Ok(Restored::LeftInPlace) => stay.push(image.id.to_string()),
                    Err(StepError::Call(error)) => stuck.push(error.line()),
                    Err(StepError::Stopped) => return Err(StepError::Stopped),
                }
            }
        }
        if stuck.is_empty() {
            return Ok(stay);
        }
        let why = CallCause::Found(stuck.join("; "));
        Err(CallError::about("put back", "component".into(), why).into())
    }
}

fn is_in(namespaces: &BTreeSet<String>, id: &ObjectId) -> bool {
    id.namespace.as_ref().is_some_and(|namespace| namespaces.contains(namespace))
}

/// Whether a definition is served. Read as plain JSON: types for the schema in it would be code for nothing.
fn is_established(definition: Option<&DynamicObject>) -> bool {
    let conditions = definition.and_then(|it| it.data.pointer("/status/conditions"));
    conditions.and_then(Value::as_array).into_iter().flatten().any(|condition| {
        condition.get("type").is_some_and(|it| it == "Established")
            && condition.get("status").is_some_and(|it| it == "True")
    })
}

/// Fields of an object that others may own.
pub fn exceptions<'a>(entry: &'a ComponentEntry, id: &ObjectId) -> Vec<&'a str> {
    let of_object = entry.exceptions.iter().filter(|exception| exception.object == *id);
    of_object.map(|exception| exception.path.as_str()).collect()
}

fn ids(component: &PlannedComponent) -> Vec<ObjectId> {
    component.objects().map(|object| object.id.clone()).collect()
}

fn timeout(entry: &ComponentEntry) -> Duration {
    Duration::from_secs(entry.gates.timeout_seconds.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_served_once_it_is_established() {
        let with = |conditions: Value| {
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": "things.example.com" }, "spec": {},
                "status": { "conditions": conditions },
            });
            is_established(Some(&serde_json::from_value(definition).unwrap()))
        };
        let accepted = json!({ "type": "NamesAccepted", "status": "True" });
        assert!(with(json!([accepted, { "type": "Established", "status": "True" }])));
        assert!(!with(json!([accepted, { "type": "Established", "status": "False" }])));
        assert!(!with(json!([accepted])));
        assert!(!with(Value::Null));
        assert!(!is_established(None));
    }
}
