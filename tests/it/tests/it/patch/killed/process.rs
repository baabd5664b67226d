//! The whole sweep, with processes that are killed: SIGKILL before and after every single call to the
//! API server of a release that goes well and of one that is rolled back. The next process, a new one
//! each time, goes on; its end is compared object by object with that of a run that nobody disturbed.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mendix_agent::{cluster::Cluster, patch};
use mendix_agent_core::bundle::Authentic;
use mendix_test_kit::{apiserver::ApiServer, wait::POLL};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    super::world::{Parts, Shelf, World, driver, state},
    Moment, mortal,
};

/// Set to `full`, the sweep is done.
const SWEEP: &str = "MENDIX_SWEEP";
/// Least number of kill points that make a sweep.
const FULL: usize = 500;
/// Tells the started process what it is: the release repository, the wanted index, the agent's
/// namespace, the kubeconfig, where to say that it may be killed, and at which call.
const ROLE: &str = "MENDIX_SWEEP_PROCESS";
/// Longest life of one process.
const LIFE: Duration = Duration::from_secs(300);
/// Where a call stands when its process dies.
const MOMENTS: [Moment; 2] = [Moment::BeforeCall, Moment::AfterCall];

/// What a started process needs to know.
#[derive(serde::Serialize, serde::Deserialize)]
struct Role {
    shelf: PathBuf,
    index: String,
    namespace: String,
    kubeconfig: PathBuf,
    doomed: PathBuf,
    at: usize,
    after: bool,
}

/// The started process. As a test among the others it has no role and ends at once.
#[tokio::test]
async fn a_process_of_the_sweep() {
    let Ok(role) = env::var(ROLE) else { return };
    let role: Role = serde_json::from_str(&role).unwrap();
    let moment = MOMENTS[usize::from(role.after)];
    let (client, killer) = mortal(&role.kubeconfig, role.at, moment).await;
    let cluster = Cluster::connect(client, role.namespace).await.unwrap();
    let driver = driver(cluster, &Default::default(), None);
    let (supply, index) = Shelf::read(&role.shelf, &role.index);
    let token = CancellationToken::new();
    let work = async {
        patch::resume(&driver, &token).await.unwrap();
        patch::take(&driver, index, &supply, &token, &token).await.unwrap()
    };
    tokio::select! {
        ended = work => {
            supply.write_mark(&role.shelf);
            println!("ended as {}", state(&ended));
        }
        () = killer.died.notified() => {
            supply.write_mark(&role.shelf);
            std::fs::write(&role.doomed, []).unwrap();
            // The other end kills this process; nothing that it does from here on is carried out.
            std::future::pending::<()>().await;
        }
    }
}

/// A world, and the releases in a folder that processes read.
struct Sweep {
    world: World,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
}

impl Sweep {
    async fn new() -> Self {
        let server = ApiServer::shared().await.unwrap();
        Self {
            world: World::new().await,
            folder: tempfile::tempdir().unwrap(),
            kubeconfig: server.kubeconfig_path().to_owned(),
        }
    }

    fn shelf(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a process that is killed at this call; whether it was, or ended before.
    async fn killed_at(&self, index: &Authentic, at: usize, moment: Moment) -> bool {
        let doomed = self.shelf().join("doomed");
        let _not_there_yet = std::fs::remove_file(&doomed);
        let role = Role {
            shelf: self.shelf().to_owned(),
            index: index.target().to_owned(),
            namespace: self.world.cluster.namespace.clone(),
            kubeconfig: self.kubeconfig.clone(),
            doomed: doomed.clone(),
            at,
            after: matches!(moment, Moment::AfterCall),
        };
        self.world.supply.write(self.shelf());
        let log = std::fs::File::create(self.shelf().join("process.log")).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "patch::killed::process::a_process_of_the_sweep", "--nocapture"])
            .env(ROLE, serde_json::to_string(&role).unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let born = Instant::now();
        let killed = loop {
            if doomed.exists() {
                // SIGKILL.
                child.kill().unwrap();
                child.wait().unwrap();
                break true;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "the process failed: {}", self.log());
                break false;
            }
            if born.elapsed() > LIFE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("call {at} {moment:?}: the process neither dies nor ends: {}", self.log());
            }
            tokio::time::sleep(POLL).await;
        };
        self.world.supply.read_mark(self.shelf());
        killed
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.shelf().join("process.log")).unwrap_or_default()
    }

    /// A process that nobody kills; how the run ended.
    async fn undisturbed(&self, index: &Authentic) -> String {
        assert!(!self.killed_at(index, usize::MAX, Moment::BeforeCall).await);
        let log = self.log();
        let ended = log.lines().find_map(|line| line.split_once("ended as "));
        ended.unwrap_or_else(|| panic!("no end in: {log}")).1.to_owned()
    }
}

/// The objects of one content: 12 that stay, change or come and go.
fn objects(parts: &Parts<'_>, content: &str, image: &str) -> Vec<Value> {
    let mut objects = vec![
        parts.role(),
        parts.binding("operator"),
        parts.claim("data"),
        parts.deployment(image, Some(1)),
        parts.config(&format!("only-{content}"), json!({"content": content})),
    ];
    objects.extend((0..7).map(|n| {
        // Half of them are the same in every content.
        let value = if n % 2 == 0 { content } else { "always" };
        parts.config(&format!("settings-{n}"), json!({"value": value}))
    }));
    objects
}

#[tokio::test]
async fn processes_killed_at_every_call_leave_what_an_undisturbed_one_leaves() {
    if env::var(SWEEP).is_err() {
        println!("SKIP the full sweep takes an hour: {SWEEP}=full, or `.ci/nightly sweep`");
        return;
    }
    let sweep = Sweep::new().await;
    let parts = Parts(&sweep.world);
    let mut sequence = 0;
    let mut publish = |content: &str, image: &str| {
        sequence += 1;
        (sequence, sweep.world.publish(sequence, &objects(&parts, content, image)))
    };

    // Contents a and b in turns; the ends of both when nobody dies. Objects of before, since the very
    // first release makes others.
    let mut ends = BTreeMap::new();
    for content in ["b", "a", "b", "a"] {
        let (_, index) = publish(content, &format!("good-{content}"));
        assert_eq!(sweep.undisturbed(&index).await, "Committed", "{}", sweep.log());
        ends.insert(content, plain(sweep.world.contents().await));
    }
    let mut good = 0;
    let mut contents = ["b", "a"].into_iter().cycle();
    'good: for call in 0.. {
        for moment in MOMENTS {
            let content = contents.next().unwrap();
            let (sequence, index) = publish(content, &format!("good-{content}"));
            let killed = sweep.killed_at(&index, call, moment).await;
            assert_eq!(sweep.undisturbed(&index).await, "Committed", "call {call} {moment:?}");
            let end = plain(sweep.world.contents().await);
            assert_eq!(end, ends[content], "call {call} {moment:?}");
            let status = sweep.world.component().await.unwrap().status.unwrap();
            assert_eq!((status.sequence, status.run), (sequence, None), "call {call} {moment:?}");
            if !killed {
                break 'good;
            }
            good += 1;
        }
    }

    // A bad release leaves the very objects of before.
    let before = sweep.world.contents().await;
    let component = sweep.world.component().await.unwrap().status.unwrap();
    let mut bad = 0;
    'bad: for call in 0.. {
        for moment in MOMENTS {
            let (_, index) = publish("c", "bad");
            let killed = sweep.killed_at(&index, call, moment).await;
            assert_eq!(sweep.undisturbed(&index).await, "RolledBack", "call {call} {moment:?}");
            assert_eq!(sweep.world.contents().await, before, "call {call} {moment:?}");
            assert_eq!(sweep.world.component().await.unwrap().status.unwrap(), component);
            if !killed {
                break 'bad;
            }
            bad += 1;
        }
    }
    println!(
        "{} kill points: {good} of a release that goes well, all ended as an undisturbed one; {bad} of one \
         that is rolled back, all left what was before",
        good + bad
    );
    assert!(good + bad >= FULL, "only {} kill points; a sweep has at least {FULL}", good + bad);
}

/// Objects without their identities, which differ between runs that make objects anew.
fn plain(mut objects: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for object in objects.values_mut() {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for key in ["uid", "creationTimestamp"] {
            metadata.remove(key);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("agent.mendix.com/created-by");
        }
    }
    objects
}
