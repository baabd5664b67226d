//! Asks the API server what it would say to each object of a plan, before anything is touched.

use futures::{FutureExt, TryStreamExt};
use mendix_agent_core::bundle::{
    index::ComponentEntry,
    kind,
    object::{Object, ObjectId},
    plan::Plan,
};
use serde_json::Value;

use super::{
    super::{
        converge::{is_replaceable, may_take, noted},
        failure::{CallCause, CallError, Meaning, StepError, promptly, rights_missing},
        live::{Mode, in_parallel, text},
    },
    Steps, exceptions,
};
use crate::cluster::FIELD_MANAGER;

impl Steps<'_> {
    /// Asks the server what it would say to each object, and returns everything it would refuse.
    /// Objects whose namespace, kind or version comes with the release can't be asked for yet.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn preview(&self, plan: &Plan) -> Result<Vec<String>, StepError> {
        let mut coming: Vec<(usize, Brings)> = vec![];
        for (place, component) in plan.components().iter().enumerate() {
            for object in component.objects() {
                if kind::stage(&object.id) != kind::Stage::Definitions {
                    continue;
                }
                let live = promptly(self.cancel, self.paused, || self.live.get(&object.id));
                match live.await {
                    Ok(live) => {
                        coming.extend(Brings::of(object, live.as_ref()).map(|it| (place, it)))
                    }
                    // Told when it is asked about itself.
                    Err(StepError::Call(error)) if error.lacks_rights() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // What a later component brings is not there yet when this one is applied.
        let comes_before = |at: usize, id: &ObjectId| {
            coming.iter().any(|(place, brings)| *place <= at && brings.it(id))
        };
        let asked = plan.components().iter().enumerate().flat_map(|(place, component)| {
            component.objects().map(move |object| (place, component.entry(), object))
        });
        let asked = asked.filter(|(place, _, object)| !comes_before(*place, &object.id));
        let answers = in_parallel(asked.map(|(_, entry, object)| self.ask(entry, object).boxed()));
        let refusals: Vec<Option<String>> = answers.try_collect().await?;
        Ok(refusals.into_iter().flatten().collect())
    }

    async fn ask(
        &self,
        entry: &ComponentEntry,
        object: &Object,
    ) -> Result<Option<String>, StepError> {
        let exceptions = exceptions(entry, &object.id);
        let body = object.body.value();
        let wanted = self.wanted(entry, object, &body, &exceptions);
        let answer = promptly(self.cancel, self.paused, || async {
            if let Some(current) = self.live.get(&object.id).await? {
                may_take(&wanted, &current)?;
            }
            let body = noted(&body, self.run);
            self.live.apply(&object.id, &body, FIELD_MANAGER, true, Mode::DryRun).await
        });
        match answer.await {
            Ok(_) => Ok(None),
            Err(StepError::Stopped) => Err(StepError::Stopped),
            Err(StepError::Call(error)) if error.meaning == Meaning::Immutable => {
                let replaceable = is_replaceable(&object.id);
                Ok((!replaceable).then(|| refusal(entry, "Immutable", &error)))
            }
            Err(StepError::Call(error)) if refuses_dry_run(&error) => {
                tracing::warn!(object = %object.id, error = error.line(), "a webhook can't be asked beforehand");
                Ok(None)
            }
            Err(StepError::Call(error)) if error.lacks_rights() => {
                Ok(Some(rights_missing(&entry.name, &error)))
            }
            Err(StepError::Call(error)) => {
                let code = match &error.cause {
                    CallCause::NotOurs(_) => "NotAdopted",
                    CallCause::NoSuchKind(_) => "NoSuchKind",
                    _ => "ServerRefused",
                };
                Ok(Some(refusal(entry, code, &error)))
            }
        }
    }
}

/// What can only be asked about once a namespace or a definition of the plan is applied. Of a definition
/// that is only what it says of itself: the whole may be as large as an object can be.
enum Brings {
    /// What is in a namespace that is not there yet.
    Namespace(String),
    /// A kind, but for the versions that are served already.
    Kind { group: String, kind: String, served: Vec<String> },
}

impl Brings {
    /// What `new` brings, with the object of its name that is there now.
    fn of(new: &Object, live: Option<&Value>) -> Option<Self> {
        if new.id.kind == "Namespace" {
            return live.is_none().then(|| Self::Namespace(new.id.name.clone()));
        }
        let body = new.body.value();
        let versions = live.and_then(|live| live.pointer("/spec/versions")?.as_array());
        let served = versions.into_iter().flatten().filter(|it| it["served"] == true);
        Some(Self::Kind {
            group: text(&body, "/spec/group")?,
            kind: text(&body, "/spec/names/kind")?,
            served: served.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect(),
        })
    }

    /// Whether an object is of it.
    fn it(&self, id: &ObjectId) -> bool {
        match self {
            Self::Namespace(name) => id.namespace.as_ref() == Some(name),
            Self::Kind { group, kind, served } => {
                id.group == *group && id.kind == *kind && !served.contains(&id.version)
            }
        }
    }
}

fn refusal(entry: &ComponentEntry, code: &str, error: &CallError) -> String {
    format!("{code}: {}: {}", entry.name, error.line())
}

/// A webhook with side effects that doesn't take part in dry runs: the server says so with 400.
fn refuses_dry_run(error: &CallError) -> bool {
    matches!(&error.cause, CallCause::Api(kube::Error::Api(status))
        if status.code == 400 && status.message.contains("dry run"))
}
