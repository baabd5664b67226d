//! A log that the node rotates again and again while it is read: what is in a snapshot is whole and in
//! order, and what is not is declared. The node's own files say what there was.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use mendix_test_kit::node::Node;

use super::{COMPONENT, Seen};

/// Half a megabyte of numbered lines a second: the node rotates the file each time it looks. It begins
/// with one line, so that no file is full before the container has been up for some seconds.
pub(super) const FLOOD: &str = "\
    text='and so on'; for i in 1 2 3 4 5 6; do text=\"$text, $text\"; done; \
    echo \"INFO line 1 $text\"; sleep 5; n=1; \
    while :; do for i in 1 2 3 4 5 6 7 8 9 10; do for j in 1 2 3 4 5 6 7 8 9 10; do \
    n=$((n+1)); echo \"INFO line $n $text\"; done; done; sleep 0.1; done";
/// Rotations that are waited for.
const ROTATIONS: usize = 3;
/// Pause between two looks of the node at its logs (`logMonitorPeriod` of the kubelet).
const LOOK: Duration = Duration::from_secs(10);
/// Snapshots in which they have to have happened; one takes a second and more.
const MOST: usize = 90;

pub(super) async fn look(node: &Node, client: &Client, pod: &str, folder: &Path) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), COMPONENT);
    let uid = pods.get(pod).await?.uid().context("the pod has no UID")?;
    let logs = node.state_folder().join(format!("log/pods/{COMPONENT}_{pod}_{uid}/flood"));
    let (mut rotations, mut midway, mut declared) = (0, 0, 0);
    let mut last_file = Kept::on(&logs)?.first;
    for turn in 0..MOST {
        let (began, before) = (Instant::now(), Kept::on(&logs)?);
        let seen = Seen::of(client, pod, folder.join(format!("rotated-{turn}"))).await?;
        let after = Kept::on(&logs)?;
        let told = ["Rotated", "PerhapsRotated"].iter().any(|it| seen.gaps("flood").contains(it));
        let twice = began.elapsed() > LOOK;
        check(&seen, &before, &after, told, twice)
            .with_context(|| format!("{before:?}, then {after:?}: {:?}", seen.gaps("flood")))?;
        declared += usize::from(told);
        midway += usize::from(before.first != after.first);
        rotations += usize::from(after.first != last_file);
        last_file = after.first;
        if rotations >= ROTATIONS {
            let turns = turn + 1;
            println!(
                "{turns} snapshots, {rotations} rotations, {midway} of them during one, {declared} declared"
            );
            return Ok(());
        }
    }
    anyhow::bail!("{rotations} rotations in {MOST} snapshots")
}

/// The first and the last line that the node has in reach of the API.
#[derive(Debug)]
struct Kept {
    first: u64,
    last: u64,
}

impl Kept {
    fn on(logs: &Path) -> Result<Self> {
        loop {
            // The newest run of the container; it does not restart.
            let text = fs::read_to_string(logs.join("0.log")).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let mut numbers = whole.lines().filter_map(number);
            if let Some(first) = numbers.next() {
                return Ok(Self { first, last: numbers.next_back().unwrap_or(first) });
            }
            ensure!(logs.is_dir(), "the node has no {}", logs.display());
        }
    }
}

fn number(line: &str) -> Option<u64> {
    line.split_once(" line ")?.1.split(' ').next()?.parse().ok()
}

fn check(seen: &Seen, before: &Kept, after: &Kept, told: bool, twice: bool) -> Result<()> {
    let log = seen.log("flood", "current");
    let mut expected = None;
    for line in log.lines() {
        let number = number(line).with_context(|| format!("not a line: {line}"))?;
        let first_word = line.split(' ').nth(1).unwrap_or_default();
        let words = if expected.is_none() { &["INFO", "[cut]"][..] } else { &["INFO"] };
        ensure!(words.contains(&first_word) && line.ends_with(", and so on"), "not whole: {line}");
        ensure!(expected.is_none_or(|expected| expected == number), "{number}, not {expected:?}");
        expected = Some(number + 1);
    }
    let Some((first, end)) = log.lines().next().and_then(number).zip(expected) else {
        ensure!(told && before.first != after.first, "nothing was read");
        return Ok(());
    };
    ensure!(first == 1 || told, "lines before {first} are missing, and nothing says so");
    // One file was read, to the line that was the last one when the snapshot began.
    let dropped = u64::from(seen.gaps("flood").contains(&"Partial"));
    let begins = |kept: &Kept| (kept.first..=kept.first + dropped).contains(&first);
    let between = twice && (before.first..after.first).contains(&first);
    ensure!(begins(before) || begins(after) || between, "it begins at {first}");
    ensure!(end > before.last, "it ends before {end}");
    Ok(())
}
