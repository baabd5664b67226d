//! A release in a file: what `bundle inspect` and `bundle verify` say about it, away from any cluster.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use mendix_agent::patch::exported::{self, Cluster, Exported, ReleaseView, VerifyError};
use mendix_agent_core::bundle::index::ReleaseClass;
use mendix_control_plane::{
    init,
    manifests::{self, ComponentSpec, ReleaseSpec},
    pki::ServerNames,
    repository::{self, Expiry},
    store::Store,
};
use tempfile::TempDir;

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\n\
    metadata: {name: settings, namespace: mendix-operator}\ndata: {level: info}\n";

struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let names = ServerNames { dns: vec!["localhost".into()], ips: vec![] };
        let store = init(&dir.path().join("state"), &names, Expiry::default())
            .await
            .expect("a control plane's state");
        Self { dir, store }
    }

    /// Publishes and exports a release of one ConfigMap.
    async fn exported(&self, release_id: &str, audience: &[&str]) -> PathBuf {
        let manifests = self.dir.path().join("manifests");
        fs::create_dir_all(&manifests).expect("a folder");
        fs::write(manifests.join("settings.yaml"), CONFIG).expect("manifests");
        let spec = ReleaseSpec {
            audience: audience.iter().map(|ring| (*ring).to_owned()).collect(),
            components: vec![ComponentSpec::new("mendix-operator", "2.1.0", manifests)],
            ..ReleaseSpec::new(release_id, ReleaseClass::Weekly)
        };
        let draft = manifests::draft(&spec).expect("a draft");
        repository::publish(&self.store, draft, None, Expiry::default()).await.expect("published");
        let file = self.dir.path().join(format!("{release_id}.tar"));
        repository::export(&self.store, release_id, &file).await.expect("exported");
        file
    }

    fn root(&self) -> (PathBuf, Vec<u8>) {
        let path = self.store.trust_dir().join("root.json");
        let bytes = fs::read(&path).expect("the root");
        (path, bytes)
    }

    async fn verify(
        &self,
        file: &std::path::Path,
        cluster: &Cluster,
        at: Timestamp,
    ) -> Result<ReleaseView, VerifyError> {
        let exported = Exported::open(file).expect("an exported release");
        let (path, root) = self.root();
        exported::verify(&exported, (&path, root), cluster, at).await
    }
}

#[tokio::test]
async fn a_release_is_verified_from_its_file_and_shown_whole() {
    let world = World::new().await;
    world.exported("1.0", &[]).await;
    let file = world.exported("1.1", &[]).await;

    let claimed = exported::claims(&Exported::open(&file).expect("open")).expect("an index");
    assert!(!claimed.verified && claimed.components[0].objects.is_none());
    assert!(exported::table(&claimed, Timestamp::now()).contains("NOT VERIFIED"));

    let view = world.verify(&file, &Cluster::default(), Timestamp::now()).await.expect("verified");
    assert!(view.verified && view.problems.is_empty(), "{view:?}");
    assert_eq!((view.release_id.as_str(), view.sequence), ("1.1", 2));
    let objects = view.components[0].objects.clone().unwrap_or_default();
    assert_eq!(objects, ["ConfigMap mendix-operator/settings"]);
    let table = exported::table(&view, Timestamp::now());
    assert!(table.contains("VERIFIED:") && table.contains("ConfigMap mendix-operator/settings"));
}

#[tokio::test]
async fn a_changed_byte_a_foreign_root_and_a_late_look_do_not_verify() {
    let world = World::new().await;
    let file = world.exported("1.0", &[]).await;
    let now = Timestamp::now();

    // Half a year later the metadata has expired; as of today it has not.
    let later = now + SignedDuration::from_hours(24 * 120);
    let error = world.verify(&file, &Cluster::default(), later).await.expect_err("expired");
    assert!(mendix_agent::errors::describe(&error).contains("expired"), "{error:?}");

    let other = World::new().await;
    let (path, root) = other.root();
    let exported = Exported::open(&file).expect("open");
    exported::verify(&exported, (&path, root), &Cluster::default(), now)
        .await
        .expect_err("another root");

    // Flip one byte at a time through the content of the blob's and the index's entries.
    let bytes = fs::read(&file).expect("the file");
    let needles: [&[u8]; 2] = [b"mendix-operator", b"\x1f\x8b"];
    for needle in needles {
        let at = bytes.windows(needle.len()).position(|window| window == needle).expect("there");
        let mut changed = bytes.clone();
        changed[at + needle.len()] ^= 1;
        let path = world.dir.path().join("changed.tar");
        fs::write(&path, changed).expect("write");
        let error = world.verify(&path, &Cluster::default(), now).await.expect_err("changed");
        assert!(matches!(error, VerifyError::Trust { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_release_is_judged_for_the_cluster_that_is_named() {
    let world = World::new().await;
    let file = world.exported("1.0", &["early"]).await;
    let now = Timestamp::now();
    let fits = Cluster { ring: Some("early".into()), kubernetes_version: Some("v1.34.1".into()) };
    assert!(world.verify(&file, &fits, now).await.expect("verified").problems.is_empty());
    let view = world
        .verify(&file, &Cluster { ring: Some("late".into()), ..Cluster::default() }, now)
        .await
        .expect("verified");
    assert!(view.problems[0].starts_with("Audience: "), "{:?}", view.problems);
}

#[tokio::test]
async fn what_is_no_exported_release_is_said_with_its_place() {
    let world = World::new().await;
    let tar = |entries: &[(&str, &[u8])]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *bytes).expect("append");
        }
        let path = world.dir.path().join("other.tar");
        fs::write(&path, archive.into_inner().expect("a tar")).expect("write");
        Exported::open(&path).map(|_| ()).expect_err("refused").to_string()
    };
    assert!(tar(&[("etc/passwd", b"x")]).contains("entry \"etc/passwd\""));
    assert!(tar(&[("metadata/1.root.json", b"{}")]).contains("holds 0 release indexes"));
    let name = |n: u8| format!("targets/{}.release-{n}.json", "ab".repeat(32));
    assert!(tar(&[(&name(1), b"{}"), (&name(2), b"{}")]).contains("holds 2 release indexes"));
    let text = world.dir.path().join("text");
    fs::write(&text, "no tar at all").expect("write");
    let error = Exported::open(&text).expect_err("no tar").to_string();
    assert!(error.contains("is not a whole tar"), "{error}");
    let missing = Exported::open(&world.dir.path().join("nothing.tar")).expect_err("missing");
    assert!(mendix_agent::errors::describe(&missing).contains("nothing.tar"));
}
