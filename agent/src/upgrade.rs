//! The agent's own upgrade: the last component of a release is the agent's Deployment, rolled out on
//! trial, and put back by `mendix-agent-guard` unless the new version proves itself in time.
//!
//! The decisions are `mendix_agent_core::upgrade`; the leader's side is in
//! [`crate::patch::driver`], the guard's is [`guard`]. Both know the trial by one UpgradeTrial object
//! ([`trials`]) and by what they write into the Deployment, which is here.

pub mod guard;
mod sight;
pub mod trials;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use mendix_agent_core::{
    bundle::{
        admission::AGENT_CONTAINER,
        object::{IdFields, ObjectId},
    },
    upgrade::Standing,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::{channel::Link, crd::patch_bundle::PatchBundle, supervise::Tasks};

/// Name of the guard's Deployment, and of its service account and field manager.
pub const GUARD: &str = "mendix-agent-guard";
/// The guard's container in it.
pub const GUARD_CONTAINER: &str = "guard";
/// Annotation of the agent's pods with the trial that made them.
pub const TRIAL: &str = "agent.mendix.com/trial";
/// Annotation of the agent's Deployment with the trial that was reverted last. It is always written
/// when one is: a write that was decided before then fails.
pub const REVERTED_TRIAL: &str = "agent.mendix.com/reverted-trial";
/// Environment variable through which a process learns its pod's trial. Without it the agent does
/// not run as a Deployment that a release may upgrade.
pub const TRIAL_VARIABLE: &str = "MENDIX_AGENT_TRIAL";

/// What this process knows of its own upgrade.
#[derive(Clone, Debug)]
pub struct Own {
    /// The trial that made this pod; empty: it was installed.
    pub trial: String,
    /// The session with the control plane.
    pub link: watch::Receiver<Link>,
    /// How long a session has to last before a trial begins.
    pub stable_for: Duration,
    /// Whether the trust state of releases could be read.
    pub has_trust: Arc<AtomicBool>,
    /// The leader's tasks: each of them reads its part of the state when it starts.
    pub tasks: Tasks,
}

impl Own {
    /// For how long there has been a session.
    pub fn session(&self) -> Option<Duration> {
        match &*self.link.borrow() {
            Link::Connected { since, .. } => Some(
                Duration::try_from(Timestamp::now().duration_since(*since)).unwrap_or_default(),
            ),
            _ => None,
        }
    }

    /// What this process can say of itself in a trial. Its tasks have to run for as long as a session
    /// has to be held: one that can't read its part of the state ends, and is started again.
    pub fn standing(&self, trial: &str, steady: Duration, hold: Duration) -> Standing {
        Standing {
            is_new: self.trial == trial,
            has_state: steady >= hold && self.has_trust.load(SeqCst),
            session: self.session(),
        }
    }
}

/// The guard's Deployment.
pub fn guard_deployment(namespace: &str) -> ObjectId {
    ObjectId::from(IdFields {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: Some(namespace.to_owned()),
        name: GUARD.into(),
    })
}

/// Name of the trial of a run. An attempt has its own: it began at another time.
pub fn trial_name(bundle: &PatchBundle) -> String {
    let started = bundle.status.as_ref().and_then(|status| status.started_at);
    let started = started.map_or(0, Timestamp::as_second);
    format!("{}-{started:x}", bundle.name_any())
}

/// The trial whose pods a Deployment asks for; none: they were installed.
pub fn trial_of(deployment: &Value) -> Option<&str> {
    deployment.pointer("/spec/template/metadata/annotations")?.get(TRIAL)?.as_str()
}

/// The agent's Deployment as a release wants it, with pods that know which trial made them.
pub fn dressed(body: &Value, trial: &str) -> Value {
    let mut body = body.clone();
    let template = &mut body["spec"]["template"];
    template["metadata"]["annotations"][TRIAL] = json!(trial);
    let containers = template.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    let agent = containers.and_then(|all| all.iter_mut().find(|c| c["name"] == AGENT_CONTAINER));
    if let Some(agent) = agent {
        let path = format!("metadata.annotations['{TRIAL}']");
        let variable = json!({
            "name": TRIAL_VARIABLE,
            "valueFrom": {"fieldRef": {"fieldPath": path}},
        });
        match agent["env"].as_array_mut() {
            Some(env) => {
                env.retain(|entry| entry["name"] != TRIAL_VARIABLE);
                env.push(variable);
            }
            None => agent["env"] = json!([variable]),
        }
    }
    body
}

/// The same as its pods are now: of the trial that `live` asks for, if of any.
pub fn dressed_like(body: &Value, live: &Value) -> Value {
    match trial_of(live) {
        Some(trial) => dressed(body, trial),
        None => body.clone(),
    }
}

/// The agent's image in a Deployment.
pub fn image_of(deployment: &Value) -> Option<&str> {
    let containers = deployment.pointer("/spec/template/spec/containers")?.as_array()?;
    let agent = containers.iter().find(|container| container["name"] == AGENT_CONTAINER)?;
    agent["image"].as_str()
}

/// Since when all tasks of the leader have run without a break.
#[derive(Debug)]
pub struct Steady {
    restarts: u64,
    since: Instant,
}

impl Steady {
    /// From now on.
    pub fn begin(own: &Own) -> Self {
        Self { restarts: restarts(&own.tasks), since: Instant::now() }
    }

    /// For how long they have run, looked at again and again.
    pub fn look(&mut self, own: &Own) -> Duration {
        let down = own.tasks.states().values().any(|state| state.down.is_some());
        let restarts = restarts(&own.tasks);
        if down || restarts != self.restarts {
            *self = Self { restarts, since: Instant::now() };
            return Duration::ZERO;
        }
        self.since.elapsed()
    }
}

fn restarts(tasks: &Tasks) -> u64 {
    tasks.states().values().map(|state| state.restarts).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dressed_deployment_tells_its_pods_their_trial_and_keeps_what_the_release_says() {
        let body = json!({"metadata": {"name": "mendix-agent"}, "spec": {"template": {
            "metadata": {"annotations": {"example.com/owner": "platform"}},
            "spec": {"containers": [
                {"name": "agent", "image": "i", "env": [
                    {"name": "A", "value": "1"}, {"name": TRIAL_VARIABLE, "value": "forged"}]},
                {"name": "side", "image": "s"}]}}}});
        let on_trial = dressed(&body, "t1");
        assert_eq!(trial_of(&on_trial), Some("t1"));
        assert_eq!(image_of(&on_trial), Some("i"));
        let template = &on_trial["spec"]["template"];
        assert_eq!(template["metadata"]["annotations"]["example.com/owner"], "platform");
        let path = "metadata.annotations['agent.mendix.com/trial']";
        assert_eq!(
            template["spec"]["containers"][0]["env"],
            json!([{"name": "A", "value": "1"},
                   {"name": TRIAL_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}])
        );
        assert_eq!(template["spec"]["containers"][1], json!({"name": "side", "image": "s"}));
        assert_eq!(dressed(&on_trial, "t1"), on_trial, "dressing twice is dressing once");
        assert_eq!(dressed_like(&body, &on_trial), on_trial);
        assert_eq!(dressed_like(&body, &body), body);
    }
}
