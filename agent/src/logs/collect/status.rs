//! Events of the components' objects, and the status of components, pods and nodes: one JSON object
//! a line, every text in it redacted.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use mendix_agent_core::{
    archive::{EntryPath, MAX_ENTRY},
    ordered,
    redact::Counts,
};
use serde_json::{Value, json};

use super::{Closed, Collector, Item, found::Found};
use crate::{
    errors::describe,
    logs::{objects::list, pages::Pages},
    nodes::Node,
};

/// Events in one page of a list.
const PAGE: u32 = 500;

/// Lines of one entry.
pub(super) struct Lines<'a> {
    collector: &'a Collector,
    what: &'static str,
    data: Vec<u8>,
    counts: Counts,
    over: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(collector: &'a Collector, what: &'static str) -> Self {
        Self { collector, what, data: Vec::new(), counts: Counts::default(), over: 0 }
    }

    /// Adds one; its texts and keys are redacted.
    pub(super) fn push(&mut self, value: Value) {
        let mut line = self.redacted(value).to_string().into_bytes();
        line.push(b'\n');
        if self.data.len() + line.len() > MAX_ENTRY {
            self.over += 1;
        } else {
            self.data.append(&mut line);
        }
    }

    fn redacted(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => self.collector.text(&text, &mut self.counts).into(),
            Value::Array(items) => items.into_iter().map(|item| self.redacted(item)).collect(),
            Value::Object(fields) => {
                let redacted = fields.into_iter().map(|(key, field)| {
                    (self.collector.text(&key, &mut self.counts), self.redacted(field))
                });
                Value::Object(ordered::object(redacted))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    pub(super) async fn send(self, path: EntryPath) -> Result<(), Closed> {
        self.collector.send(Item::Read(self.data.len() as u64, self.counts)).await?;
        if self.over > 0 {
            let detail = format!("{} lines did not fit", self.over);
            self.collector.gap(self.what, "TooLong", &detail).await?;
        }
        self.collector.entry(path, self.data).await
    }
}

/// Events about the components' workloads, ReplicaSets and pods, inside the window.
pub(super) async fn events(collector: &Collector, found: &Found) -> Result<(), Closed> {
    let window = collector.scope.window();
    let mut lines = Lines::new(collector, "events");
    for namespace in &found.namespaces {
        let api: Api<Event> = Api::namespaced(collector.scope.cluster.client.clone(), namespace);
        let params = ListParams::default().limit(PAGE);
        let mut pages = Pages::new(api, params, "list events");
        loop {
            let events = match pages.next().await {
                Ok(Some(events)) => events,
                Ok(None) => break,
                Err(error) => {
                    collector.gap(namespace, "NotListed", &describe(&error)).await?;
                    break;
                }
            };
            for event in &events {
                let about = &event.involved_object;
                let ours = about.uid.as_ref().is_some_and(|uid| found.uids.contains(uid));
                if let Some(at) = time(event)
                    && ours
                    && window.from <= at
                    && at <= window.to
                {
                    lines.push(json!({
                        "time": at.to_string(), "type": event.type_, "reason": event.reason,
                        "kind": about.kind, "namespace": about.namespace, "name": about.name,
                        "message": event.message, "count": event.count,
                    }));
                }
            }
        }
    }
    lines.send(EntryPath::events()).await
}

/// When an event last happened.
fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    series
        .or_else(|| event.last_timestamp.as_ref().map(|t| t.0))
        .or_else(|| event.event_time.as_ref().map(|t| t.0))
        .or_else(|| event.first_timestamp.as_ref().map(|t| t.0))
}

/// The components as the patch path knows them, their pods, and the nodes.
pub(super) async fn status(collector: &Collector, found: &Found) -> Result<(), Closed> {
    let mut lines = Lines::new(collector, "status");
    lines.push(json!({
        "kind": "Cluster", "kubernetesVersion": collector.scope.cluster.server_version,
        "agentVersion": env!("CARGO_PKG_VERSION"),
    }));
    for component in &collector.components {
        if let Some(status) = &component.status
            && collector.scope.components().contains(&component.spec.component)
        {
            lines.push(json!({
                "kind": "ManagedComponent", "name": component.spec.component,
                "version": status.version, "release": status.release_id,
                "health": status.health, "message": status.message, "objects": status.objects,
                "driftCorrected": status.drift_corrected,
            }));
        }
    }
    for (_, pod) in &found.pods {
        lines.push(pod.clone());
    }
    let nodes: Api<Node> = Api::all(collector.scope.cluster.client.clone());
    match list(&nodes, "list nodes").await {
        Ok(nodes) => nodes.iter().for_each(|node| lines.push(node_line(node))),
        Err(error) => collector.gap("nodes", "NotListed", &describe(&error)).await?,
    }
    lines.send(EntryPath::status()).await
}

fn node_line(node: &Node) -> Value {
    let info = node.info();
    let conditions: Vec<_> = node
        .conditions()
        .iter()
        .map(|c| json!({ "type": c.kind, "status": c.status, "reason": c.reason }))
        .collect();
    let image = node.labels().get("kubernetes.azure.com/node-image-version");
    json!({
        "kind": "Node", "name": node.name_any(), "image": image,
        "kubelet": info.map(|i| &i.kubelet_version), "kernel": info.map(|i| &i.kernel_version),
        "unschedulable": node.is_cordoned(),
        "conditions": conditions,
    })
}
