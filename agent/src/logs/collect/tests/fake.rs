//! An API server in memory, under `kube::Client`: lists in pages, and logs as a kubelet gives them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use jiff::Timestamp;
use kube::{Client, client::Body};
use mendix_agent_core::consent::grant::Window;
use serde_json::{Value, json};

use crate::{cluster::Cluster, crd::managed_component::ManagedComponent};

type Answer = UnsyncBoxBody<Bytes, std::io::Error>;

/// Namespace of the component.
pub(super) const NAMESPACE: &str = "mendix-operator";
/// The component.
const COMPONENT: &str = "noisy";

/// What a container's log is.
#[derive(Clone)]
pub(super) enum Log {
    Whole(String),
    /// Then the connection breaks.
    Breaks(String),
    /// Then nothing more comes, and no end.
    Stalls(String),
    /// The second is what is there once the first was read.
    Rotating(String, String),
    Refused(u16),
    RefusedWith(&'static str),
}

#[derive(Clone, Default)]
pub(super) struct Fake {
    pods: Vec<Value>,
    apps: Vec<Value>,
    app_pods: Vec<Value>,
    logs: HashMap<String, Log>,
    forbidden: Option<&'static str>,
    log_delay: Duration,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A line of the log, so many seconds after 10:00.
pub(super) fn line(seconds: i64, text: &str) -> String {
    format!("{} {text}\n", window().from + jiff::SignedDuration::from_secs(seconds))
}

/// From 10:00 to 11:00.
pub(super) fn window() -> Window {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    Window { from: time("2026-11-20T10:00:00Z"), to: time("2026-11-20T11:00:00Z") }
}

impl Fake {
    /// A pod of the component.
    pub(super) fn pod(&mut self, name: &str, log: Log) {
        self.pod_that(name, log, json!({}));
    }

    /// With this in its container's status.
    pub(super) fn pod_that(&mut self, name: &str, log: Log, status: Value) {
        let pod = pod(name, NAMESPACE, json!({}), status);
        self.pods.push(pod);
        self.logs.insert(name.to_owned(), log);
    }

    /// With this in its metadata.
    pub(super) fn pod_with(&mut self, name: &str, log: Log, metadata: Value) {
        self.pods.push(pod(name, NAMESPACE, metadata, json!({})));
        self.logs.insert(name.to_owned(), log);
    }

    /// A MendixApp.
    pub(super) fn app(&mut self, name: &str) {
        self.apps.push(json!({
            "apiVersion": "privatecloud.mendix.com/v1alpha1", "kind": "MendixApp",
            "metadata": { "name": name, "namespace": "mendix" },
            "spec": { "runtimeVersion": "10.10.4", "constants": { "Shop.Password": "winter" } },
            "status": { "appState": "Running" },
        }));
    }

    pub(super) fn app_pod(&mut self, name: &str, app: &str, log: Log) {
        let set = name.rsplit_once('-').unwrap().0;
        let metadata = json!({
            "labels": { "privatecloud.mendix.com/app": app },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set,
                                  "uid": "app-set", "controller": true }],
        });
        self.app_pods.push(pod(name, "mendix", metadata, json!({})));
        self.logs.insert(name.to_owned(), log);
    }

    /// There is no right to anything in this namespace.
    pub(super) fn forbid(&mut self, namespace: &'static str) {
        self.forbidden = Some(namespace);
    }

    /// Logs are answered so late.
    pub(super) fn answers_after(&mut self, delay: Duration) {
        self.log_delay = delay;
    }

    /// What was asked for: paths with their queries.
    pub(super) fn asked(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.asked)
    }

    pub(super) fn component(&self) -> ManagedComponent {
        serde_json::from_value(json!({
            "apiVersion": "agent.mendix.com/v1alpha1", "kind": "ManagedComponent",
            "metadata": { "name": COMPONENT }, "spec": { "component": COMPONENT },
            "status": {
                "version": "1.0", "releaseId": "r1", "sequence": 1, "indexSha256": "00",
                "blobSha256": "00", "health": "Ready", "objects": 1, "driftCorrected": 0,
                "inventory": [{ "group": "apps", "version": "v1", "kind": "Deployment",
                    "namespace": NAMESPACE, "name": COMPONENT, "uid": "deployment" }],
            },
        }))
        .unwrap()
    }

    pub(super) async fn cluster(self) -> Cluster {
        let this = Arc::new(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = Arc::clone(&this);
            async move { Ok::<_, std::io::Error>(this.answer(request.uri()).await) }
        });
        Cluster::connect(Client::new(service, "default"), "mendix-agent".into()).await.unwrap()
    }

    async fn answer(&self, uri: &Uri) -> Response<Answer> {
        self.asked.lock().unwrap().push(uri.to_string());
        let path: Vec<_> = uri.path().trim_matches('/').split('/').collect();
        if let Some(namespace) = self.forbidden
            && path.windows(2).any(|pair| pair == ["namespaces", namespace])
        {
            return status(403, "no right to that");
        }
        match path[..] {
            ["version"] => json_body(&json!({
                "major": "1", "minor": "34", "gitVersion": "v1.34.2", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "",
                "platform": "",
            })),
            ["api", "v1", "namespaces", "kube-system"] => {
                json_body(&json!({ "metadata": { "name": "kube-system", "uid": "cluster" } }))
            }
            ["apis", "apps", "v1", "namespaces", NAMESPACE, "replicasets"] => page(
                uri,
                &[json!({
                    "metadata": { "name": "noisy-1", "uid": "set", "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "Deployment", "name": COMPONENT,
                        "uid": "deployment", "controller": true }] },
                    "spec": { "selector": { "matchLabels": { "app": COMPONENT } } },
                })],
            ),
            ["api", "v1", "namespaces", NAMESPACE, "pods"] => page(uri, &self.pods),
            ["api", "v1", "namespaces", "mendix", "pods"] => page(uri, &self.app_pods),
            ["api", "v1", "nodes"] | ["api", "v1", "namespaces", _, "events"] => page(uri, &[]),
            [
                "apis",
                "privatecloud.mendix.com",
                "v1alpha1",
                "namespaces",
                "mendix",
                "mendixapps",
            ] => page(uri, &self.apps),
            ["api", "v1", "namespaces", _, "pods", pod, "log"] => {
                tokio::time::sleep(self.log_delay).await;
                match self.logs.get(pod) {
                    Some(log) => kubelet(log, uri),
                    None => status(404, "there is no such pod"),
                }
            }
            _ => status(404, "there is no such thing"),
        }
    }
}

fn pod(name: &str, namespace: &str, metadata: Value, status: Value) -> Value {
    let mut all = json!({
        "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
        "labels": { "app": COMPONENT },
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "noisy-1",
                              "uid": "set", "controller": true }],
    });
    merge(&mut all, metadata);
    let mut container = json!({
        "name": "main", "ready": true, "restartCount": 0, "image": "x", "imageID": "",
        "state": { "running": { "startedAt": "2026-11-20T10:00:00Z" } },
    });
    merge(&mut container, status);
    json!({ "metadata": all, "status": { "phase": "Running", "containerStatuses": [container] } })
}

fn merge(into: &mut Value, from: Value) {
    if let Value::Object(fields) = from {
        for (key, value) in fields {
            into[key] = value;
        }
    }
}

fn query<'a>(uri: &'a Uri, key: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn page(uri: &Uri, items: &[Value]) -> Response<Answer> {
    let from: usize = query(uri, "continue").and_then(|text| text.parse().ok()).unwrap_or(0);
    let limit: usize = query(uri, "limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let to = from.saturating_add(limit).min(items.len());
    let next = if to < items.len() { to.to_string() } else { String::new() };
    json_body(&json!({ "metadata": { "continue": next }, "items": items[from..to] }))
}

fn json_body(value: &Value) -> Response<Answer> {
    Response::new(Full::from(value.to_string()).map_err(|never| match never {}).boxed_unsync())
}

fn status(code: u16, message: &str) -> Response<Answer> {
    let value = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": "",
    });
    let mut response = json_body(&value);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

/// The API's parameters as the kubelet understands them: records from the end, then the time, then
/// bytes from the beginning.
fn kubelet(log: &Log, uri: &Uri) -> Response<Answer> {
    let limit: Option<usize> = query(uri, "limitBytes").and_then(|text| text.parse().ok());
    let text = match log {
        Log::Refused(code) => return status(*code, "too many requests"),
        Log::RefusedWith(message) => return status(500, message),
        Log::Rotating(_, later) if limit.is_some() => later,
        Log::Whole(text) | Log::Breaks(text) | Log::Stalls(text) | Log::Rotating(text, _) => text,
    };
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if let Some(tail) = query(uri, "tailLines").and_then(|text| text.parse::<usize>().ok()) {
        lines = lines.split_off(lines.len().saturating_sub(tail));
    }
    if let Some(since) = query(uri, "sinceTime") {
        let since: Timestamp = since.replace("%3A", ":").parse().unwrap();
        lines.retain(|line| {
            let at = line.split(' ').next().and_then(|at| at.parse::<Timestamp>().ok());
            at.is_none_or(|at| at >= since)
        });
    }
    let mut text = lines.concat().into_bytes();
    text.truncate(limit.unwrap_or(usize::MAX));
    let chunks: Vec<_> = text.chunks(10_000).map(Bytes::copy_from_slice).collect();
    let whole = futures::stream::iter(chunks).map(|chunk| Ok(Frame::data(chunk)));
    let body = match log {
        Log::Breaks(_) => {
            let broken = futures::stream::once(async {
                Err::<Frame<Bytes>, _>(std::io::Error::other("the pod has gone"))
            });
            StreamBody::new(whole.chain(broken)).boxed_unsync()
        }
        Log::Stalls(_) => StreamBody::new(whole.chain(futures::stream::pending())).boxed_unsync(),
        _ => StreamBody::new(whole).boxed_unsync(),
    };
    Response::new(body)
}
