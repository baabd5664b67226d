//! Logs of real containers on a real node, read as a snapshot reads them: crashed, killed for memory,
//! flooding, binary, with endless lines, with two streams in one line.
//!
//! `logs preview` is the way in: the same path up to the finished archive, without a control plane.

mod rotation;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use mendix_agent::{cluster::Cluster, crd::managed_component::ManagedComponent, logs::preview};
use mendix_e2e::{install, stage};
use mendix_test_kit::{node::Node, skip, wait::eventually};
use serde_json::{Value, json};

use crate::site::alone;

/// Longest wait for the containers to have gone through what they go through.
const TROUBLE: Duration = Duration::from_secs(600);
const COMPONENT: &str = "trouble";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: preview::Arguments,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_real_containers_in_trouble() -> Result<()> {
    if let Some(obstacle) = Node::obstacle() {
        skip(&obstacle.to_string());
        return Ok(());
    }
    let _alone = alone().await;
    let node = Node::shared().await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let image = stage::workload_image(node, folder.path())?;
    node.import_image(&image.path).await?;
    let client = node.client().await?;
    install::foundation(&client).await?;
    deploy(&client, &image.by_digest).await?;
    let pod = in_trouble(&client).await?;
    let result = async {
        look(&client, &pod, folder.path()).await?;
        rotation::look(node, &client, &pod, folder.path()).await
    };
    let result = result.await;
    // Nothing of this scenario bothers the next.
    let components: Api<ManagedComponent> = Api::namespaced(client.clone(), install::NAMESPACE);
    components.delete(COMPONENT, &Default::default()).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete(COMPONENT, &Default::default()).await?;
    result
}

/// One pod with a container for each kind of trouble, as the inventory knows it.
async fn deploy(client: &Client, image: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({ "metadata": { "name": COMPONENT } });
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let container = |name: &str, script: &str, memory: &str| {
        json!({ "name": name, "image": image, "command": ["sh", "-c", script],
                "resources": { "limits": { "memory": memory } } })
    };
    const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let then_stay = |script: &str| format!("{script}; {STAY}");
    let labels = json!({ "app": COMPONENT });
    let deployment = json!({
        "metadata": { "name": COMPONENT, "namespace": COMPONENT },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                    "containers": [
                        container(
                            "crash",
                            "echo starting; sleep 1; echo 'panic: out of cheese'; exit 3",
                            "32Mi",
                        ),
                        container(
                            "oom",
                            "echo allocating; sleep 1; busybox tail /dev/zero",
                            "16Mi",
                        ),
                        container("flood", rotation::FLOOD, "64Mi"),
                        container(
                            "binary",
                            &then_stay("busybox head -c 300000 /dev/urandom; echo; echo text after it"),
                            "32Mi",
                        ),
                        container(
                            "long",
                            &then_stay(
                                "echo first; \
                                 busybox head -c 200000 /dev/zero | busybox tr '\\0' x; echo ' END'; \
                                 echo INFO after the long line",
                            ),
                            "32Mi",
                        ),
                        container(
                            "both",
                            &then_stay(
                                "echo first; \
                                 busybox head -c 20000 /dev/zero | busybox tr '\\0' x; sleep 1; \
                                 echo password=split-in >&2; sleep 1; echo two-Xy7Qz9 and the rest; \
                                 sleep 1; echo INFO whole again",
                            ),
                            "32Mi",
                        ),
                    ],
                },
            },
        },
    });
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), COMPONENT);
    let made =
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    let components: Api<ManagedComponent> = Api::namespaced(client.clone(), install::NAMESPACE);
    let component = json!({
        "apiVersion": "agent.mendix.com/v1alpha1", "kind": "ManagedComponent",
        "metadata": { "name": COMPONENT }, "spec": { "component": COMPONENT },
    });
    components.create(&PostParams::default(), &serde_json::from_value(component)?).await?;
    let status = json!({ "status": {
        "version": "1.0", "releaseId": "r1", "sequence": 1, "indexSha256": "00",
        "blobSha256": "00", "health": "Ready", "objects": 1, "driftCorrected": 0,
        "inventory": [{ "group": "apps", "version": "v1", "kind": "Deployment",
            "namespace": COMPONENT, "name": COMPONENT, "uid": made.uid(), "hash": "00" }],
    }});
    components.patch_status(COMPONENT, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until everything has happened; gives the pod's name.
async fn in_trouble(client: &Client) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), COMPONENT);
    let last_line = async |pod: &str, container: &str| {
        let params = kube::api::LogParams {
            container: Some(container.into()),
            tail_lines: Some(1),
            ..Default::default()
        };
        pods.logs(pod, &params).await.unwrap_or_default()
    };
    Ok(eventually(TROUBLE, "all containers are in trouble", async || {
        let pod = pods.list(&ListParams::default()).await.ok()?.items.pop()?;
        let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
        let ended = |name: &str| {
            let container = containers.iter().find(|container| container.name == name)?;
            container.last_state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
        };
        let crashed = ended("crash")? == 3 && ended("oom")? != 0;
        let name = pod.name_any();
        let said = [
            ("binary", "text after it\n"),
            ("long", "INFO after the long line\n"),
            ("both", "INFO whole again\n"),
        ];
        for (container, text) in said {
            if last_line(&name, container).await != text {
                return None;
            }
        }
        crashed.then_some(name)
    })
    .await?)
}

struct Seen {
    root: PathBuf,
    pod: String,
    gaps: Vec<Value>,
}

impl Seen {
    async fn of(client: &Client, pod: &str, root: PathBuf) -> Result<Self> {
        let cluster = Cluster::connect(client.clone(), install::NAMESPACE.into()).await?;
        let out = root.to_str().context("a path")?;
        let line = Line::parse_from(["preview", "--component", COMPONENT, "--output-dir", out]);
        preview::run(cluster, line.arguments).await?;
        let gaps = fs::read_to_string(root.join("errors.jsonl"))?;
        let gaps = gaps.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { root, pod: pod.to_owned(), gaps })
    }

    /// A log, its parts joined; empty when there is none.
    fn log(&self, container: &str, run: &str) -> String {
        let folder = self.root.join("logs").join(COMPONENT).join(&self.pod).join(container);
        let mut parts: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(run))
            })
            .collect();
        parts.sort();
        parts.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    fn gaps(&self, container: &str) -> Vec<&str> {
        let subject = |gap: &&Value| {
            let subject = gap["subject"].as_str().unwrap_or_default();
            subject.contains(&format!("/{container}/"))
        };
        self.gaps.iter().filter(subject).filter_map(|gap| gap["reason"].as_str()).collect()
    }
}

async fn look(client: &Client, pod: &str, folder: &Path) -> Result<()> {
    let seen = Seen::of(client, pod, folder.join("first")).await?;
    // The crash: its last words are there, in whichever run is the last one that ended.
    let crash = seen.log("crash", "previous") + &seen.log("crash", "current");
    ensure!(crash.contains("panic: out of cheese"), "{crash} {:?}", seen.gaps);
    let oom = seen.log("oom", "previous") + &seen.log("oom", "current");
    ensure!(oom.contains("allocating"), "{oom} {:?}", seen.gaps);
    let status = fs::read_to_string(seen.root.join("status.jsonl"))?;
    ensure!(status.contains("\"crash\"") && status.contains("\"restarts\""), "{status}");
    // Binary is refused whole, and said so.
    ensure!(seen.log("binary", "current").is_empty());
    ensure!(seen.gaps("binary").contains(&"RedactionRefused"), "{:?}", seen.gaps);
    // A line of 200 KB is one line, and what follows it is there.
    let long = seen.log("long", "current");
    ensure!(
        long.lines().any(|line| line.len() > 200_000 && line.ends_with(" END")),
        "{}",
        long.len()
    );
    ensure!(long.ends_with(" after the long line\n"), "{}", &long[long.len() - 80..]);
    // A line in pieces is one line, whatever the other stream wrote meanwhile; what is behind it may be
    // its rest and loses its first word.
    let both = seen.log("both", "current");
    let shape: String = both.replace(&"x".repeat(100), "");
    let joined = "x".repeat(20_000) + "two-Xy7Qz9 and the rest\n";
    ensure!(both.contains(&joined), "{shape}");
    ensure!(both.ends_with("Z [cut] whole again\n"), "{shape}");
    ensure!(seen.gaps("both").contains(&"Partial"), "{:?}", seen.gaps);
    Ok(())
}
