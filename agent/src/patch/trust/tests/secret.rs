//! The Secret around the trust state, against an API server in memory (a service under
//! `kube::Client`).

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use kube::client::Body;
use mendix_agent_core::bundle::admission::HighWater;
use serde_json::{Value, json};
use tower::service_fn;

use super::{now, repository::Repo};
use crate::{
    cluster::Cluster,
    patch::trust::{ReleaseTrust, TrustError},
};

const MARK: HighWater = HighWater { sequence: 7, index_sha256: [7; 32] };

/// What the API server holds.
#[derive(Default)]
struct World {
    secret: Option<Value>,
    version: u64,
    bundles: Bundles,
}

#[derive(Default)]
enum Bundles {
    /// The CRD is not installed.
    #[default]
    NoKind,
    None,
    Some,
}

impl World {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
            )
        };
        match (method, path) {
            (_, "/api/v1/namespaces/kube-system") => (200, json!({"metadata": {"uid": "u"}})),
            (_, "/version") => (
                200,
                json!({
                    "major": "1", "minor": "34", "gitVersion": "v1.34.2", "gitCommit": "",
                    "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
                }),
            ),
            (_, "/apis/agent.mendix.com/v1alpha1/namespaces/own/patchbundles") => {
                let items = match self.bundles {
                    Bundles::NoKind => return status(404, "NotFound"),
                    Bundles::None => json!([]),
                    Bundles::Some => json!([{"metadata": {"name": "2026.11.1"}}]),
                };
                (200, json!({"metadata": {}, "items": items}))
            }
            (&Method::GET, "/api/v1/namespaces/own/secrets/mendix-agent-tuf") => {
                self.secret.clone().map_or_else(|| status(404, "NotFound"), |secret| (200, secret))
            }
            (&Method::POST, "/api/v1/namespaces/own/secrets") if self.secret.is_some() => {
                status(409, "AlreadyExists")
            }
            (&Method::PUT, _) if self.secret.is_none() => status(404, "NotFound"),
            (&Method::PUT, _)
                if body.pointer("/metadata/resourceVersion")
                    != Some(&json!(self.version.to_string())) =>
            {
                status(409, "Conflict")
            }
            (&Method::POST | &Method::PUT, _) => {
                self.version += 1;
                let mut secret = body;
                secret["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.secret = Some(secret.clone());
                (200, secret)
            }
            _ => status(500, "unexpected call"),
        }
    }
}

async fn cluster(world: &Arc<Mutex<World>>) -> Cluster {
    let world = world.clone();
    let service = service_fn(move |request: Request<Body>| {
        let world = world.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (code, answer) =
                world.lock().unwrap().answer(&parts.method, parts.uri.path(), body);
            let response = Response::builder()
                .status(code)
                .body(Body::from(serde_json::to_vec(&answer).unwrap()))
                .unwrap();
            Ok::<_, tower::BoxError>(response)
        }
    });
    Cluster::connect(kube::Client::new(service, "own"), "own".into()).await.unwrap()
}

fn trust_dir() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let repo = Repo::new(now() + SignedDuration::from_hours(24));
    std::fs::write(directory.path().join("root.json"), repo.root_bytes(1)).unwrap();
    directory
}

#[tokio::test]
async fn the_installed_root_is_trusted_once_and_the_secret_from_then_on() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let mut trust = ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap();
    trust.accept(&cluster, MARK).await.unwrap();
    // Another root in the trust folder changes nothing, and neither does its absence.
    for directory in [trust_dir(), tempfile::tempdir().unwrap()] {
        let trust = ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
        assert_eq!(trust.high_water(), Some(MARK));
    }
}

#[tokio::test]
async fn a_lost_secret_is_not_made_again_in_a_cluster_that_received_releases() {
    let world = Arc::new(Mutex::new(World { bundles: Bundles::Some, ..World::default() }));
    let cluster = cluster(&world).await;
    let error = ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap_err();
    assert!(matches!(error, TrustError::Lost { .. }), "{error:?}");
    assert!(!error.is_transient());
    assert!(world.lock().unwrap().secret.is_none());
    // Without any release it is a new cluster.
    world.lock().unwrap().bundles = Bundles::None;
    ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_was_deleted_while_the_agent_runs_is_not_made_again() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let mut trust = ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap();
    world.lock().unwrap().secret = None;
    trust.accept(&cluster, MARK).await.unwrap_err();
    assert!(world.lock().unwrap().secret.is_none());
    assert_eq!(trust.high_water(), None, "what was not stored does not count");
}

#[tokio::test]
async fn a_second_writer_is_noticed() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let directory = trust_dir();
    let mut first = ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
    let mut second = ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
    second.accept(&cluster, MARK).await.unwrap();
    let lower = HighWater { sequence: 6, ..MARK };
    let error = first.accept(&cluster, lower).await.unwrap_err();
    assert!(matches!(error, TrustError::Conflict), "{error:?}");
    let mut first = ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
    assert!(matches!(first.accept(&cluster, lower).await, Err(TrustError::Sequence(_))));
}

#[tokio::test]
async fn a_secret_with_a_cut_off_entry_is_an_error() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let directory = trust_dir();
    ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
    for data in [json!({}), json!({"root.json": "e30=", "state.json": "ew=="}), Value::Null] {
        world.lock().unwrap().secret.as_mut().unwrap()["data"] = data;
        let error = ReleaseTrust::load(&cluster, directory.path()).await.unwrap_err();
        assert!(matches!(error, TrustError::Stored(_)), "{error:?}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_trust_folder_without_a_usable_root_is_named() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let error = ReleaseTrust::load(&cluster, directory.path()).await.unwrap_err();
    assert!(error.to_string().contains("root.json"), "{error}");
    std::fs::write(directory.path().join("root.json"), b"{}").unwrap();
    let error = ReleaseTrust::load(&cluster, directory.path()).await.unwrap_err();
    assert!(matches!(error, TrustError::BadRoot { .. }), "{error:?}");
    assert!(world.lock().unwrap().secret.is_none());
}
