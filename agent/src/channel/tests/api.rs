//! An API server that knows one Secret, and compares resource versions as the real one does.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Value, json};

use super::plane::CLUSTER;
use crate::cluster::Cluster;

/// What it holds.
#[derive(Default)]
pub(super) struct Shelf {
    secret: Option<Value>,
    version: u64,
    /// Writes that fail before they do anything, from the next one on.
    pub(super) refuse: usize,
    /// Verbs of the writes that succeeded.
    pub(super) writes: Vec<&'static str>,
}

impl Shelf {
    /// Decoded data of the Secret.
    pub(super) fn data(&self, key: &str) -> Option<String> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let value = self.secret.as_ref()?["data"][key].as_str()?;
        Some(String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
    }

    /// As if someone else had written it.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        self.version += 1;
        let secret = self.secret.as_mut().expect("a Secret");
        secret["data"][key] = STANDARD.encode(value).into();
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": reason, "reason": reason, "code": code.as_u16() });
            (code, body)
        };
        let done = |value: Value| (StatusCode::OK, value);
        if path == "/version" {
            return done(json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.2",
                "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "",
                "compiler": "", "platform": "" }));
        }
        if path == "/api/v1/namespaces/kube-system" {
            return done(json!({ "kind": "Namespace", "apiVersion": "v1",
                "metadata": { "name": "kube-system", "uid": CLUSTER } }));
        }
        if method == Method::GET {
            return self
                .secret
                .clone()
                .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), done);
        }
        if self.refuse > 0 {
            self.refuse -= 1;
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let current = self.secret.as_ref().map(|it| it["metadata"]["resourceVersion"].clone());
        let verb = match (method, current) {
            (&Method::POST, None) => "create",
            (&Method::PUT, Some(version)) if body["metadata"]["resourceVersion"] == version => {
                "update"
            }
            _ => return failure(StatusCode::CONFLICT, "Conflict"),
        };
        self.version += 1;
        let mut secret = body;
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.secret = Some(secret.clone());
        self.writes.push(verb);
        done(secret)
    }
}

/// A cluster whose API is the shelf.
pub(super) async fn cluster(shelf: &Arc<Mutex<Shelf>>) -> Cluster {
    let shelf = Arc::clone(shelf);
    let service = tower::service_fn(move |request: Request<Body>| {
        let shelf = Arc::clone(&shelf);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = shelf.lock().unwrap().answer(&head.method, head.uri.path(), body);
            let answer = Full::new(bytes::Bytes::from(answer.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let client = kube::Client::new(service, "mendix-agent");
    Cluster::connect(client, "mendix-agent".into()).await.unwrap()
}
