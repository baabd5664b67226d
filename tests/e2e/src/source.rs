//! Pods and their logs, made up in front of a real API server: for measuring what the agent does with
//! logs without measuring a node.

use std::{io, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::Body,
};
use mendix_agent::crd::managed_component::ManagedComponent;
use serde_json::{Value, json};

use crate::install;

/// The component whose logs they are.
pub const COMPONENT: &str = "measured";
/// Its namespace.
const NAMESPACE: &str = "mendix-operator";
/// Bytes in one piece of a log, as a connection would give them.
const PIECE: usize = 16 * 1024;

type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// Logs of equal content and length, one per pod.
pub struct Source {
    log: Bytes,
    streams: usize,
}

impl Source {
    /// `bytes` of logs in all.
    pub fn new(bytes: usize, streams: usize) -> Self {
        Self { log: log(bytes / streams).into(), streams }
    }

    /// Bytes of all logs.
    pub fn bytes(&self) -> usize {
        self.log.len() * self.streams
    }

    /// Writes all logs one after the other.
    ///
    /// # Errors
    /// As writing.
    pub fn write_all(&self, out: &mut impl io::Write) -> io::Result<()> {
        (0..self.streams).try_for_each(|_| out.write_all(&self.log))
    }

    /// A client that sees these pods and logs, and of everything else what `real` sees.
    pub fn before(self: Arc<Self>, real: Client) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (this, real) = (Arc::clone(&self), real.clone());
            async move {
                match this.answer(request.uri().path()) {
                    Some(answer) => Ok(answer),
                    None => {
                        let answer = real.send(request).await?;
                        Ok::<_, kube::Error>(
                            answer.map(|body| body.map_err(io::Error::other).boxed_unsync()),
                        )
                    }
                }
            }
        });
        Client::new(service, install::NAMESPACE)
    }

    fn answer(&self, path: &str) -> Option<Response<Answer>> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["apis", "apps", "v1", "namespaces", NAMESPACE, "replicasets"] => {
                Some(list(&[json!({
                    "metadata": { "name": "measured-1", "uid": "set",
                        "ownerReferences": [owner("Deployment", "deployment")] },
                    "spec": { "selector": { "matchLabels": { "app": COMPONENT } } },
                })]))
            }
            ["api", "v1", "namespaces", NAMESPACE, "pods"] => {
                Some(list(&(0..self.streams).map(pod).collect::<Vec<_>>()))
            }
            ["api", "v1", "namespaces", NAMESPACE, "pods", _, "log"] => {
                let log = self.log.clone();
                let pieces = (0..log.len())
                    .step_by(PIECE)
                    .map(move |at| Ok(Frame::data(log.slice(at..log.len().min(at + PIECE)))));
                Some(Response::new(StreamBody::new(stream::iter(pieces).boxed()).boxed_unsync()))
            }
            _ => None,
        }
    }
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": kind, "name": COMPONENT, "uid": uid,
            "controller": true })
}

fn pod(number: usize) -> Value {
    json!({
        "metadata": {
            "name": format!("measured-1-{number:05}"), "namespace": NAMESPACE,
            "uid": format!("pod-{number}"), "labels": { "app": COMPONENT },
            "ownerReferences": [owner("ReplicaSet", "set")],
        },
        "status": { "phase": "Running", "containerStatuses": [{
            "name": "main", "ready": true, "restartCount": 0, "image": "x", "imageID": "",
            "state": { "running": { "startedAt": null } },
        }] },
    })
}

fn list(items: &[Value]) -> Response<Answer> {
    let body = json!({ "metadata": {}, "items": items }).to_string();
    Response::new(Full::from(body).map_err(|never| match never {}).boxed_unsync())
}

/// Lines of four kinds as components write them, within the last half hour; one in twenty has
/// something to redact.
fn log(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut at = Timestamp::now() - SignedDuration::from_mins(30);
    let mut out = Vec::with_capacity(bytes + 512);
    while out.len() < bytes {
        let (a, b, c) = (next(), next(), next());
        at += SignedDuration::from_millis(1 + (a % 20) as i64);
        let text = match a % 20 {
            0 => {
                format!("WARN cannot connect with password=Zx{b:x}{c:x} retrying in {} ms", b % 900)
            }
            1..=6 => format!(
                "{{\"level\":\"info\",\"ts\":{a}.{b},\"logger\":\"controller.mendixapp\",\"msg\":\"reconciled\",\
                 \"app\":\"app-{}\",\"generation\":{},\"duration\":\"{}ms\"}}",
                b % 40,
                c % 90,
                b % 3000
            ),
            7..=11 => format!(
                "I1120 {:02}:{:02}:{:02}.{b:06} 1 reconciler.go:{}] \"Updated status\" object=\"mendix/app-{}\" \
                 resourceVersion={c}",
                a % 24,
                b % 60,
                c % 60,
                a % 900,
                b % 40
            ),
            12..=16 => format!(
                "10.{}.{}.{} - - \"GET /rest/orders/{b} HTTP/1.1\" {} {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" 0.{:03}",
                a % 256,
                b % 256,
                c % 256,
                200 + c % 4,
                b % 90_000,
                c % 1000
            ),
            _ => format!(
                "INFO  MxRuntime - Core: action {} of user session {b:08x}-{c:04x} took {} ms, {} rows",
                a % 500,
                c % 5000,
                b % 1000
            ),
        };
        out.extend_from_slice(format!("{at} {text}\n").as_bytes());
    }
    out
}

/// Tells the agent of the component, as a committed release does.
///
/// # Errors
/// When the API server refuses.
pub async fn install_component(client: &Client) -> Result<()> {
    let api: Api<ManagedComponent> = Api::namespaced(client.clone(), install::NAMESPACE);
    let component = json!({
        "apiVersion": "agent.mendix.com/v1alpha1", "kind": "ManagedComponent",
        "metadata": { "name": COMPONENT }, "spec": { "component": COMPONENT },
    });
    api.create(&PostParams::default(), &serde_json::from_value(component)?).await?;
    let status = json!({ "status": {
        "version": "1.0", "releaseId": "r1", "sequence": 1, "indexSha256": "00",
        "blobSha256": "00", "health": "Ready", "objects": 1, "driftCorrected": 0,
        "inventory": [{ "group": "apps", "version": "v1", "kind": "Deployment",
            "namespace": NAMESPACE, "name": COMPONENT, "uid": "deployment", "hash": "00" }],
    }});
    api.patch_status(COMPONENT, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}
