//! Releases: what is published, how it is fetched, and what is refused before it is signed.

use std::{fs, path::Path, pin::Pin};

use futures::StreamExt;
use mendix_agent_core::bundle::{
    floor::FILE,
    index::{ReleaseClass, ReleaseIndex},
};
use mendix_agent_proto::{limits::MAX_FETCH_CHUNK, v1};
use mendix_control_plane::{
    manifests::{ComponentSpec, Problems, ReleaseSpec, draft},
    repository::{Expiry, RepositoryError, changes, changes_of, floor, publish},
    store::ReleaseRecord,
};
use tonic::{Code, Status, transport::Channel};
use tough::{
    IntoVec, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
use url::Url;

use crate::client::{Identity, Plane, bundle, connect, soon};

const DIGEST: &str = "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6";

/// Writes an operator's manifests: a namespace, a ConfigMap, a Deployment.
pub(crate) fn operator_manifests(dir: &Path) {
    fs::create_dir_all(dir.join("more")).expect("a folder");
    fs::write(
        dir.join("a.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: mendix-operator}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: mendix-operator}\n\
         data: {level: info}\n---\n",
    )
    .expect("manifests");
    fs::write(
        dir.join("more/deployment.yml"),
        format!(
            "apiVersion: apps/v1\nkind: Deployment\n\
             metadata: {{name: operator, namespace: mendix-operator}}\n\
             spec:\n  selector: {{matchLabels: {{app: operator}}}}\n  template:\n    \
             metadata: {{labels: {{app: operator}}}}\n    spec:\n      containers:\n      \
             - {{name: operator, image: registry.local/operator@{DIGEST}}}\n"
        ),
    )
    .expect("manifests");
    fs::write(dir.join("README.md"), "not a manifest").expect("a note");
}

pub(crate) fn spec(release_id: &str, dir: &Path) -> ReleaseSpec {
    ReleaseSpec {
        components: vec![ComponentSpec::new("operator", "1.2.3", dir)],
        ..ReleaseSpec::new(release_id, ReleaseClass::Weekly)
    }
}

#[test]
fn one_file_may_hold_as_many_objects_as_a_component() {
    let dir = tempfile::tempdir().expect("a folder");
    let object = |n| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}, namespace: mendix-operator}}\n\
             data: {{level: info}}\n"
        )
    };
    let all: Vec<String> = (0..5_000).map(object).collect();
    fs::write(dir.path().join("all.yaml"), all.join("---\n")).expect("manifests");
    draft(&spec("2026.11.1", dir.path())).expect("a draft");

    fs::write(dir.path().join("more.yaml"), object(5_000)).expect("manifests");
    let Err(refused) = draft(&spec("2026.11.1", dir.path())) else { panic!("one too many") };
    assert!(refused.to_string().contains("5000"), "{refused}");
}

pub(crate) async fn publish_one(plane: &Plane, release_id: &str) -> ReleaseRecord {
    let dir = plane.dir.path().join("operator");
    operator_manifests(&dir);
    let draft = draft(&spec(release_id, &dir)).expect("a draft");
    publish(plane.store(), draft, None, Expiry::default()).await.expect("publish")
}

/// Reads a file as an agent does.
async fn fetch(channel: &Channel, name: &str, offset: u64) -> Result<(Vec<u8>, u64), Status> {
    let request = v1::FetchRequest { name: name.into(), offset };
    let mut stream = soon(bundle(channel.clone()).fetch(request)).await?.into_inner();
    let (mut bytes, mut total) = (Vec::new(), 0);
    while let Some(chunk) = soon(stream.message()).await? {
        assert!(!chunk.data.is_empty() && chunk.data.len() <= MAX_FETCH_CHUNK);
        assert_eq!(chunk.total_size == 0, !bytes.is_empty());
        total = total.max(chunk.total_size);
        bytes.extend_from_slice(&chunk.data);
    }
    Ok((bytes, total))
}

/// tough's way to files, through Fetch.
#[derive(Clone, Debug)]
struct ThroughFetch(Channel);

#[async_trait::async_trait]
impl Transport for ThroughFetch {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().trim_start_matches('/').to_owned();
        match fetch(&self.0, &name, 0).await {
            Ok((bytes, _)) => {
                let stream = futures::stream::iter([Ok(bytes::Bytes::from(bytes))]);
                Ok(Box::pin(stream) as Pin<Box<_>>)
            }
            Err(status) => {
                let kind = match status.code() {
                    Code::NotFound => TransportErrorKind::FileNotFound,
                    _ => TransportErrorKind::Other,
                };
                Err(TransportError::new_with_cause(kind, url, status))
            }
        }
    }
}

async fn load(plane: &Plane, agent: &Identity) -> Result<tough::Repository, tough::error::Error> {
    let root = fs::read(plane.store().trust_dir().join("root.json")).expect("the root");
    let base = |folder| Url::parse(&format!("fetch://plane/{folder}/")).expect("a URL");
    let transport = ThroughFetch(agent.connect(plane).await);
    let loader = RepositoryLoader::new(&root, base("metadata"), base("targets"));
    soon(loader.transport(transport).load()).await
}

async fn target(repository: &tough::Repository, name: &str) -> Vec<u8> {
    let name = TargetName::new(name).expect("a name");
    let stream = repository.read_target(&name).await.expect("readable").expect("a target");
    stream.into_vec().await.expect("verified bytes")
}

#[tokio::test]
async fn a_published_release_is_verified_by_toughs_own_client_through_fetch() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let empty = load(&plane, &agent).await.expect("no release yet");
    let targets: Vec<&str> = empty.targets().signed.targets.keys().map(TargetName::raw).collect();
    assert_eq!(targets, ["release-floor.json"]);
    let published = publish_one(&plane, "r1").await;
    let repository = load(&plane, &agent).await.expect("verified");
    assert!(repository.root().signed.consistent_snapshot);
    let index: ReleaseIndex =
        serde_json::from_slice(&target(&repository, &published.index_target).await).expect("JSON");
    assert_eq!((index.release_id.as_str(), index.sequence), ("r1", 1));
    let component = &index.components[0];
    assert_eq!(component.scope.namespaces, ["mendix-operator"]);
    assert_eq!(component.scope.kinds, ["ConfigMap", "Namespace", "apps/Deployment"]);
    assert_eq!(component.images, [format!("registry.local/operator@{DIGEST}")]);
    let blob = target(&repository, &component.blob.target).await;
    assert_eq!(blob.len() as u64, component.blob.size);
    assert!(plane.running().counters().bundle_bytes > 0);
}

#[tokio::test]
async fn the_floor_is_signed_anew_with_every_release_and_only_rises() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let first = floor::published(plane.store()).await.expect("a floor from the start");
    assert_eq!((first.serial, first.sequence), (1, 1));
    publish_one(&plane, "r1").await;
    publish_one(&plane, "r2").await;
    let renewed = floor::published(plane.store()).await.expect("a floor");
    assert_eq!((renewed.serial, renewed.sequence), (3, 1));
    assert!(renewed.signed_at >= first.signed_at);

    let raised = floor::raise(plane.store(), "r2", Expiry::default()).await.expect("raised");
    assert_eq!((raised.serial, raised.sequence), (4, 2));
    let sinks = floor::raise(plane.store(), "r1", Expiry::default()).await;
    assert!(matches!(sinks, Err(RepositoryError::Floor { sequence: 1, floor: 2 })), "{sinks:?}");
    // What agents read is what was signed.
    let repository = load(&plane, &agent).await.expect("verified");
    let bytes = target(&repository, FILE).await;
    assert_eq!(mendix_agent_core::bundle::floor::read(&bytes), Ok(raised));
}

#[tokio::test]
async fn root_and_targets_need_two_signatures() {
    let plane = Plane::start().await;
    let metadata = plane.store().repository_dir().join("metadata");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(metadata.join(name)).expect("a file")).expect("JSON")
    };
    let root = read("1.root.json");
    for role in ["root", "targets"] {
        assert_eq!(root["signed"]["roles"][role]["threshold"], 2, "{role}");
    }
    for file in ["1.root.json", "1.targets.json"] {
        assert_eq!(read(file)["signatures"].as_array().map(Vec::len), Some(2), "{file}");
    }
}

#[tokio::test]
async fn expired_metadata_is_refused_until_the_next_publication() {
    let soon_over = jiff::SignedDuration::from_secs(-1);
    let expiry = Expiry { timestamp: soon_over, ..Expiry::default() };
    let plane = Plane::with_expiry(Default::default(), expiry).await;
    let agent = plane.enrolled().await;
    load(&plane, &agent).await.expect_err("the timestamp has expired");
    publish_one(&plane, "r1").await;
    load(&plane, &agent).await.expect("fresh");
}

#[tokio::test]
async fn a_release_never_changes_and_sequences_only_grow() {
    let mut plane = Plane::start().await;
    let dir = plane.dir.path().join("operator");
    assert_eq!(publish_one(&plane, "r1").await.sequence, 1);
    plane.crash_and_restart().await;
    assert_eq!(publish_one(&plane, "r2").await.sequence, 2);
    let again = draft(&spec("r1", &dir)).expect("a draft");
    let refused = publish(plane.store(), again, None, Expiry::default()).await;
    assert!(matches!(refused, Err(RepositoryError::Published { sequence: 1, .. })), "{refused:?}");
    let low = draft(&spec("r3", &dir)).expect("a draft");
    let refused = publish(plane.store(), low, Some(2), Expiry::default()).await;
    assert!(matches!(refused, Err(RepositoryError::Sequence { newest: 2, .. })), "{refused:?}");
    let jump = draft(&spec("r3", &dir)).expect("a draft");
    let release = publish(plane.store(), jump, Some(40), Expiry::default()).await.expect("r3");
    assert_eq!(release.sequence, 40);
    assert_eq!(publish_one(&plane, "r4").await.sequence, 41);
    // An unchanged component is the same blob: it is not fetched again.
    let blobs = fs::read_dir(plane.store().repository_dir().join("targets")).expect("targets");
    let blobs = blobs.filter(|entry| {
        entry.as_ref().expect("an entry").path().extension().is_some_and(|e| e == "gz")
    });
    assert_eq!(blobs.count(), 1);
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_release_is_said_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    operator_manifests(dir.path());
    for (file, text) in [
        ("bad-yaml.yaml", "a: [1, 2"),
        (
            "twice.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: mendix-operator}\n",
        ),
        ("nameless.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: x}\n"),
        (
            "tag.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: mendix-operator}\nspec: {containers: [{name: c, image: 'busybox:1'}]}\n",
        ),
        (
            "system.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: kube-system}\n",
        ),
        ("lost.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"),
        (
            "status.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: t, namespace: mendix-operator}\nstatus: {observed: 1}\n",
        ),
        (
            "own.yaml",
            "apiVersion: agent.mendix.com/v1alpha1\nkind: LogSharingPolicy\nmetadata: {name: default, namespace: mendix-operator}\n",
        ),
    ] {
        fs::write(dir.path().join(file), text).expect("a manifest");
    }
    let mut bad = spec("r1", dir.path());
    bad.components.push(ComponentSpec::new("monitoring", "1", dir.path().join("missing")));
    let Problems(problems) = draft(&bad).expect_err("refused");
    for expected in [
        "bad-yaml.yaml",
        "ConfigMap mendix-operator/settings is defined twice",
        "nameless.yaml: document 1: metadata.name: is missing",
        "ImageNotPinned: operator: Pod mendix-operator/p: spec.containers[0].image",
        "NamespaceDenied: operator: ConfigMap kube-system/c",
        "NamespaceMissing: operator: Service s",
        "FieldForbidden: operator: Service mendix-operator/t: status",
        "AgentState: operator: LogSharingPolicy mendix-operator/default",
        "monitoring: ",
    ] {
        assert!(
            problems.iter().any(|p| p.contains(expected)),
            "{expected} is not in {problems:#?}"
        );
    }
}

#[tokio::test]
async fn a_fetch_resumes_anywhere_and_tells_missing_from_failing() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    // More than one chunk.
    let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(plane.store().repository_dir().join("targets/large"), &large).expect("a file");
    let channel = agent.connect(&plane).await;
    let (bytes, total) = fetch(&channel, "targets/large", 0).await.expect("whole");
    assert!(bytes == large && total == 200_000);
    let (rest, total) = fetch(&channel, "targets/large", 123_456).await.expect("rest");
    assert!(rest == large[123_456..] && total == 200_000);
    assert!(fetch(&channel, "targets/large", 200_000).await.expect("end").0.is_empty());
    for (name, offset, code) in [
        ("targets/large", 200_001, Code::OutOfRange),
        ("metadata/2.root.json", 0, Code::NotFound),
        ("metadata/../trust/root.json", 0, Code::InvalidArgument),
        ("portal/consent.pk8", 0, Code::InvalidArgument),
    ] {
        let refused = fetch(&channel, name, offset).await.expect_err(name);
        assert_eq!(refused.code(), code, "{name}");
    }
    let anonymous = connect(&plane, None).await.expect("connect");
    let refused = fetch(&anonymous, "metadata/timestamp.json", 0).await.expect_err("anonymous");
    assert_eq!(refused.code(), Code::Unauthenticated);
    plane.store().delete_cluster(&agent.uid).expect("delete");
    let refused = fetch(&channel, "metadata/timestamp.json", 0).await.expect_err("deleted");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_release_for_some_rings_is_pushed_to_those() {
    let plane = Plane::start().await;
    plane.store().register_cluster("early-1", "early").expect("register");
    plane.store().register_cluster("stable-1", "stable").expect("register");
    let dir = plane.dir.path().join("operator");
    operator_manifests(&dir);
    let early = ReleaseSpec { audience: vec!["early".into()], ..spec("r1", &dir) };
    let early = draft(&early).expect("a draft");
    publish(plane.store(), early, None, Expiry::default()).await.expect("publish");
    assert_eq!(plane.store().push_release("r1", None).expect("push"), ["early-1"]);
}

#[tokio::test]
async fn a_stream_of_many_chunks_ends_when_the_agent_hangs_up() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let path = plane.store().repository_dir().join("targets/huge");
    fs::File::create(&path).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
    let channel = agent.connect(&plane).await;
    let request = v1::FetchRequest { name: "targets/huge".into(), offset: 0 };
    let stream = soon(bundle(channel.clone()).fetch(request)).await.expect("a stream");
    let first = soon(stream.into_inner().next()).await.expect("a chunk").expect("bytes");
    assert_eq!(first.total_size, 64 << 20);
    // The stream is dropped; the connection goes on.
    fetch(&channel, "metadata/timestamp.json", 0).await.expect("the next file");
    assert!(plane.running().counters().bundle_bytes < 32 << 20);
}

#[tokio::test]
async fn rendered_manifests_become_a_release_and_are_compared_with_the_last_one() {
    let plane = Plane::start().await;
    let folder = plane.dir.path().join("rendered");
    fs::create_dir_all(folder.join("chart")).expect("a folder");
    let release = |id: &str, level: &str, extra: &str| {
        // As a chart renders it with `helm template` for `-n mendix-operator`.
        let rendered = format!(
            "# Source: chart/templates/all.yaml\napiVersion: v1\nkind: Namespace\nmetadata: {{name: mendix-operator}}\n---\n\
             ---\n# Source: chart/templates/configmap.yaml\napiVersion: v1\nkind: ConfigMap\n\
             metadata: {{name: settings, creationTimestamp: null}}\ndata: {{level: {level}}}\n---\n\
             apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {{name: web}}\n  \
             spec: {{ports: [{{port: 80}}]}}\n  status: {{loadBalancer: {{}}}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: probe, annotations: {{helm.sh/hook: test}}}}\n{extra}"
        );
        fs::write(folder.join("chart/all.yaml"), rendered).expect("manifests");
        let file = folder.join("release.yaml");
        let text = format!(
            "releaseId: {id}\nclass: quarterly\napplyBy: 2027-03-31T00:00:00Z\nkubernetesVersions: {{min: '1.20'}}\n\
             gates: {{soakSeconds: 5}}\ncomponents:\n- name: operator\n  version: {id}\n  manifests: chart\n  \
             namespace: mendix-operator\n  gates: {{timeoutSeconds: 120}}\n"
        );
        fs::write(&file, text).expect("a release file");
        draft(&ReleaseSpec::from_file(&file).expect("a release file")).expect("a draft")
    };

    let first = release("r1", "info", "");
    let notes: Vec<String> = first.notes().flat_map(|(_, lines)| lines).collect();
    for expected in
        ["Pod probe is left out", "lists taken apart (1)", "empty status", "namespace written"]
    {
        assert!(notes.iter().any(|note| note.contains(expected)), "{expected}: {notes:?}");
    }
    let changes = changes(plane.store(), &first).await.expect("compared");
    assert_eq!(changes[0].against, None);
    assert_eq!(changes[0].added.len(), 3);
    publish(plane.store(), first, None, Expiry::default()).await.expect("publish");

    let more = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: operator}\n";
    let second = release("r2", "debug", more);
    publish(plane.store(), second, None, Expiry::default()).await.expect("publish");
    let changes = changes_of(plane.store(), "r2").await.expect("compared");
    assert_eq!(
        changes[0].lines(),
        [
            "operator r1 → r2 (against release r1)",
            "  + ServiceAccount mendix-operator/operator",
            "  ~ ConfigMap mendix-operator/settings",
            "      data.level: \"info\" → \"debug\"",
        ]
    );
    let record = plane.store().release("r2").expect("the record");
    assert_eq!(record.components[0].objects, 4);
}

#[test]
fn a_release_file_with_an_unknown_field_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("release.yaml");
    fs::write(&file, "releaseId: r1\nclass: weekly\ncomponents:\n- {name: a, manifest: x}\n")
        .expect("a file");
    let Problems(problems) = ReleaseSpec::from_file(&file).expect_err("refused");
    assert!(
        problems[0].contains("release.yaml")
            && problems[0].contains("manifest")
            && problems[0].contains('4'),
        "{problems:?}"
    );
}
