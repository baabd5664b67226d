//! The life of a node: it leaves nothing behind when it is stopped or its process is killed, and a
//! kept one outlives its process. In a binary of its own, since a shared node would hold the lock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use mendix_test_kit::{
    node::{Node, NodeError, NodeOptions},
    progress::Progress,
    skip,
    wait::eventually_blocking,
};
use tokio::sync::Notify;

const DEADLINE: Duration = Duration::from_secs(180);
const CHILD: &str = "MENDIX_TEST_KIT_CHILD";

/// What a node changes on the machine, as text.
fn machine() -> String {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let groups = output("sh", &["-c", "ls -d /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods"]);
    let folders =
        output("sh", &["-c", "ls -d /var/lib/kubelet /var/lib/cni /run/containerd /run/netns"]);
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let links = output("ip", &["-br", "link"]);
    let links: Vec<_> = links.lines().filter(|line| line.starts_with("mxa-")).collect();
    [
        &output("ip", &["-o", "address", "show", "dev", "lo"]),
        &groups,
        &folders,
        &forward,
        &links.join("\n"),
    ]
    .map(String::as_str)
    .join("\n")
}

/// This binary again, to run one of the `child_` functions.
fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    command
}

/// Runs one up to its line `READY`.
fn child(name: &str) -> Child {
    let mut child = command(name).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("READY")), "{name} failed");
    child
}

fn children_of(parent: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name in parentheses: state, then the parent.
            let ppid = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
            (ppid == parent.to_string()).then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

#[tokio::test]
async fn child_that_is_killed() {
    if env::var_os(CHILD).is_some() {
        let _node = Node::start(NodeOptions::default()).await.unwrap();
        println!("READY");
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn child_that_keeps_the_node() {
    if env::var_os(CHILD).is_some() {
        let options = NodeOptions { detached: true, ..NodeOptions::default() };
        drop(Node::start(options).await.unwrap());
    }
}

#[tokio::test]
async fn a_node_leaves_nothing_behind_and_a_kept_one_is_found_again() {
    if env::var_os(CHILD).is_some() {
        return;
    }
    if let Some(obstacle) = Node::obstacle() {
        return skip(&obstacle.to_string());
    }
    assert!(matches!(Node::attach().await, Err(NodeError::NoneKept)), "stop the kept node first");

    // Stopped in order. (What another process's node has left only now, the start waits for.)
    let node = Node::start(NodeOptions::default()).await.unwrap();
    let state = node.state_folder().to_owned();
    let during = machine();
    for trace in ["10.213.0.1", "10.213.2.1", "kubepods", "/var/lib/kubelet"] {
        assert!(during.contains(trace), "{during}");
    }
    node.stop().unwrap();
    let before = machine();
    for trace in ["10.213.", "kubepods", "mxa-"] {
        assert!(!before.contains(trace), "{before}");
    }
    assert!(!state.exists());

    // Killed, together with what would have cleaned up after it: the next start does.
    let mut killed = child("child_that_is_killed");
    let children = children_of(killed.id());
    assert!(!children.is_empty());
    Command::new("kill").arg("-KILL").args(children).status().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_ne!(machine(), before);

    // A kept node outlives its process, is found again and refuses a second one.
    assert!(command("child_that_keeps_the_node").status().unwrap().success());
    let refused = Node::start(NodeOptions::default()).await.unwrap_err();
    assert!(matches!(&refused, NodeError::Kept { state: kept } if *kept == state), "{refused}");
    let node = Node::attach().await.unwrap();
    let namespaces = Api::<Namespace>::all(node.client().await.unwrap());
    assert!(namespaces.list(&ListParams::default()).await.unwrap().items.len() >= 3);
    assert!(node.audit_log().is_some());
    node.stop().unwrap();
    assert_eq!(machine(), before);

    // Given up in the middle of a start, as by Ctrl-C; even of a node that is to be kept.
    let reached = Arc::new(Notify::new());
    let notify = Arc::clone(&reached);
    let progress = Progress::to(move |text| {
        if text.contains("containerd") {
            notify.notify_one();
        }
    });
    let options = NodeOptions { detached: true, progress, ..NodeOptions::default() };
    tokio::select! {
        node = Node::start(options) => panic!("was not given up: {node:?}"),
        () = reached.notified() => {}
    }
    assert_eq!(machine(), before);
    assert!(!state.exists());

    // Killed: the janitor puts the machine back without anybody's help.
    let mut killed = child("child_that_is_killed");
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually_blocking(DEADLINE, "the machine is as before", || {
        (machine() == before && !Path::new(&state).exists()).then_some(())
    })
    .unwrap();
}
