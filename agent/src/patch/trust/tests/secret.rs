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
    patch::trust::{Keeper, ReleaseTrust, TrustError},
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
    Some(Vec<Value>),
}

/// A record of a run in this state.
fn bundle(sequence: u64, state: &str) -> Value {
    json!({"apiVersion": "agent.mendix.com/v1alpha1", "kind": "PatchBundle",
        "metadata": {"name": format!("r{sequence}")},
        "spec": {"releaseId": format!("r{sequence}"), "sequence": sequence, "indexSha256": hex::encode([7; 32])},
        "status": {"state": state}})
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
                let items = match &self.bundles {
                    Bundles::NoKind => return status(404, "NotFound"),
                    Bundles::Some(bundles) => bundles.clone(),
                };
                (200, json!({"metadata": {}, "items": items}))
            }
            (_, "/apis/agent.mendix.com/v1alpha1/namespaces/own/managedcomponents") => {
                (200, json!({"metadata": {}, "items": []}))
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
        assert_eq!(trust.marks().high_water, Some(MARK));
    }
}

#[tokio::test]
async fn a_lost_secret_comes_back_with_the_mark_that_the_records_show() {
    let records = vec![
        bundle(3, "Committed"),
        bundle(7, "RolledBack"),
        // What was not accepted says nothing, and need not even be authentic.
        bundle(8, "Verified"),
        bundle(u64::MAX, "Refused"),
    ];
    let world = World { bundles: Bundles::Some(records), ..World::default() };
    let world = Arc::new(Mutex::new(world));
    let cluster = cluster(&world).await;
    let mut trust = ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap();
    assert_eq!(trust.marks().high_water, Some(MARK));
    let lower = HighWater { sequence: 6, ..MARK };
    assert!(matches!(trust.accept(&cluster, lower).await, Err(TrustError::Sequence(_))));
    // Without any record it is a new cluster: what it accepts is bounded by the signed floor.
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = super::secret::cluster(&world).await;
    let trust = ReleaseTrust::load(&cluster, trust_dir().path()).await.unwrap();
    assert_eq!(trust.marks().high_water, None);
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_altered_while_the_agent_runs_is_put_back() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let directory = trust_dir();
    let keeper = Keeper::new(cluster.clone(), directory.path().to_owned());
    keeper.lock().await.unwrap().accept(&cluster, MARK).await.unwrap();
    let whole = world.lock().unwrap().secret.clone().unwrap()["data"].clone();
    for tamper in [(|world: &mut World| world.secret = None) as fn(&mut World), |world| {
        world.version += 1;
        let version = world.version.to_string();
        let secret = world.secret.as_mut().unwrap();
        secret["metadata"]["resourceVersion"] = json!(version);
        secret["data"] = json!({});
    }] {
        tamper(&mut world.lock().unwrap());
        let trust = keeper.lock().await.unwrap();
        assert_eq!(trust.marks().high_water, Some(MARK));
        let secret = world.lock().unwrap().secret.clone().unwrap();
        assert_eq!(secret["data"], whole);
    }
}

#[tokio::test]
async fn a_damaged_secret_is_used_as_soon_as_it_is_repaired() {
    let world = Arc::new(Mutex::new(World::default()));
    let cluster = cluster(&world).await;
    let directory = trust_dir();
    let mut trust = ReleaseTrust::load(&cluster, directory.path()).await.unwrap();
    trust.accept(&cluster, MARK).await.unwrap();
    let whole = world.lock().unwrap().secret.clone();
    world.lock().unwrap().secret.as_mut().unwrap()["data"] = json!({});
    let keeper = Keeper::new(cluster, directory.path().to_owned());
    let error = keeper.lock().await.expect_err("damaged");
    assert!(matches!(error, TrustError::Stored(_)) && !error.is_transient(), "{error:?}");
    world.lock().unwrap().secret = whole;
    assert_eq!(keeper.lock().await.unwrap().marks().high_water, Some(MARK));
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
