//! What `mendix-agent logs preview` shows is what a snapshot holds, and nothing leaves for it.

use std::{path::Path, process::Command};

use clap::Parser;
use mendix_agent::{cluster::Cluster, logs::preview};
use mendix_control_plane::snapshots::open;

use super::{
    noisy_world, read, walk,
    world::{World, consent},
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: preview::Arguments,
}

async fn preview(world: &World, arguments: &[&str]) -> Result<String, preview::PreviewError> {
    // A person's own rights, not the agent's.
    let cluster =
        Cluster::connect(world.admin.clone(), world.agent_namespace.clone()).await.unwrap();
    let line = ["preview"].iter().chain(arguments);
    preview::run(cluster, Line::parse_from(line).arguments).await
}

/// Relative paths and contents, placeholders made equal: they are new in each snapshot.
fn tree(root: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = walk(root)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            (name, without_hashes(&read(&path)))
        })
        .collect();
    all.sort();
    all
}

fn without_hashes(text: &str) -> String {
    let mut out = String::new();
    let mut pieces = text.split("[R:");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (inside, rest) = piece.split_once(']').unwrap();
        let (class, hash) = inside.rsplit_once(':').unwrap();
        assert_eq!(hash.len(), 8);
        out.push_str(&format!("[R:{class}]{rest}"));
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_the_bytes_of_a_snapshot_and_sends_none() {
    let mut world = noisy_world().await;
    let (unpacked, archive) = (world.dir.path().join("preview"), world.dir.path().join("p.tar.gz"));
    let said = preview(
        &world,
        &["--component", "noisy", "--since", "24h", "--output-dir", unpacked.to_str().unwrap()],
    )
    .await
    .unwrap();
    assert!(said.contains("nothing was sent"), "{said}");
    preview(&world, &["--since", "24h", "--archive", archive.to_str().unwrap()]).await.unwrap();
    // No control plane was involved: there is no agent.
    let counters = world.plane.counters();
    assert_eq!((counters.snapshot_begins, counters.snapshot_bytes), (0, 0));

    world.start_agent().await;
    let (_, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    let out = world.dir.path().join("opened");
    open(world.plane.store(), &done.snapshot_id, &out).unwrap();
    let logs = |root: &Path| {
        let mut tree = tree(root);
        tree.retain(|(path, _)| path.starts_with("logs/"));
        tree
    };
    assert_eq!(logs(&unpacked), logs(&out));
    assert!(logs(&out).iter().any(|(_, text)| text.contains("[R:")));
    let names = |root: &Path| tree(root).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(names(&unpacked), names(&out));

    // The archive is one for ordinary tools.
    let untarred = world.dir.path().join("untarred");
    std::fs::create_dir(&untarred).unwrap();
    let tar =
        Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&untarred).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_eq!(logs(&untarred), logs(&unpacked));
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_says_what_the_policy_and_the_inventory_do_to_it() {
    let world = noisy_world().await;
    let error = preview(&world, &["--component", "shop"]).await.unwrap_err();
    assert!(error.to_string().contains("there are: noisy"), "{error}");
    let (first, second) = (world.dir.path().join("1"), world.dir.path().join("2"));
    world.set_policy(serde_json::json!({ "mode": "Deny" })).await;
    let said = preview(&world, &["--output-dir", first.to_str().unwrap()]).await.unwrap();
    assert!(said.contains("none of this would leave"), "{said}");
    let excluded = serde_json::json!({ "mode": "WithConsent", "excludedComponents": ["noisy"] });
    world.set_policy(excluded).await;
    let said = preview(&world, &["--output-dir", second.to_str().unwrap()]).await.unwrap();
    assert!(said.contains("ExcludedByPolicy"), "{said}");
    assert!(!second.join("logs").exists());
    // What is there is not overwritten.
    assert!(preview(&world, &["--output-dir", first.to_str().unwrap()]).await.is_err());
}
