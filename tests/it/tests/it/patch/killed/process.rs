//! The whole sweep, with processes that are killed: SIGKILL before and after every single call to the
//! API server of a release that goes well and of one that is rolled back. The next process, a new one
//! each time, goes on; its end is compared object by object with that of a run that nobody disturbed.
//!
//! Points are independent of each other, so several lanes share them, each in a world of its own.

use std::{
    cell::Cell,
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mendix_agent::{cluster::Cluster, patch};
use mendix_agent_core::bundle::Authentic;
use mendix_test_kit::{apiserver::ApiServer, wait::POLL};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    super::world::{Parts, Shelf, World, driver, state},
    Moment, mortal,
};

/// Set to 1, the sweep is done at every point; to n, at every n-th.
const SWEEP: &str = "MENDIX_SWEEP";
/// Least number of kill points that make a whole sweep.
const FULL: usize = 500;
/// Worlds that share the points of one kind of release.
const LANES: usize = 4;
/// This program, also after its file was replaced by a newer build.
const SELF: &str = "/proc/self/exe";
/// Tells the started process what it is: the release repository, the wanted index, the agent's
/// namespace, the kubeconfig, where to say that it may be killed, and at which call.
const ROLE: &str = "MENDIX_SWEEP_PROCESS";
/// Longest life of one process.
const LIFE: Duration = Duration::from_secs(300);
/// Where a call stands when its process dies.
const MOMENTS: [Moment; 2] = [Moment::BeforeCall, Moment::AfterCall];

/// Where a process dies: at its n-th call, from 0.
#[derive(Clone, Copy, Debug)]
struct Point {
    call: usize,
    moment: Moment,
}

impl Point {
    /// No process gets there.
    const NEVER: Self = Self { call: usize::MAX, moment: Moment::BeforeCall };

    /// Of every `stride`-th point, those of one lane, without an end.
    fn of_lane(lane: usize, stride: usize) -> impl Iterator<Item = Self> {
        let numbers = (0..).step_by(stride).skip(lane).step_by(LANES);
        numbers.map(|number| Self { call: number / 2, moment: MOMENTS[number % 2] })
    }
}

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
            let calls = killer.calls.load(Ordering::SeqCst);
            println!("after {calls} calls ended as {}", state(&ended));
        }
        () = killer.died.notified() => {
            supply.write_mark(&role.shelf);
            std::fs::write(&role.doomed, []).unwrap();
            // The other end kills this process; nothing that it does from here on is carried out.
            std::future::pending::<()>().await;
        }
    }
}

/// A process that is gone, whatever becomes of the test.
struct Process(Child);

impl Process {
    /// SIGKILL.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already unless the test fails.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// How a process ended that nobody killed.
struct Undisturbed {
    state: String,
    calls: usize,
}

/// A world, and the releases in a folder that processes read.
struct Sweep {
    world: World,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    sequence: Cell<u64>,
}

impl Sweep {
    async fn new() -> Self {
        let server = ApiServer::shared().await.unwrap();
        Self {
            world: World::new().await,
            folder: tempfile::tempdir().unwrap(),
            kubeconfig: server.kubeconfig_path().to_owned(),
            sequence: Cell::new(0),
        }
    }

    fn shelf(&self) -> &Path {
        self.folder.path()
    }

    /// The next release, with this content and image.
    fn publish(&self, content: &str, image: &str) -> (u64, Authentic) {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let objects = objects(&Parts(&self.world), content, image);
        (sequence, self.world.publish(sequence, &objects))
    }

    /// Runs a process that is killed at this point; whether it was, or ended before.
    async fn killed_at(&self, index: &Authentic, point: Point) -> bool {
        let doomed = self.shelf().join("doomed");
        let _not_there_yet = std::fs::remove_file(&doomed);
        let role = Role {
            shelf: self.shelf().to_owned(),
            index: index.target().to_owned(),
            namespace: self.world.cluster.namespace.clone(),
            kubeconfig: self.kubeconfig.clone(),
            doomed: doomed.clone(),
            at: point.call,
            after: matches!(point.moment, Moment::AfterCall),
        };
        self.world.supply.write(self.shelf());
        let log = std::fs::File::create(self.shelf().join("process.log")).unwrap();
        let child = Command::new(SELF)
            .args(["--exact", "patch::killed::process::a_process_of_the_sweep", "--nocapture"])
            .env(ROLE, serde_json::to_string(&role).unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let born = Instant::now();
        let killed = loop {
            if doomed.exists() {
                process.kill();
                break true;
            }
            if let Some(status) = process.0.try_wait().unwrap() {
                assert!(status.success(), "{point:?}: the process failed: {}", self.log());
                break false;
            }
            if born.elapsed() > LIFE {
                panic!("{point:?}: the process neither dies nor ends: {}", self.log());
            }
            tokio::time::sleep(POLL).await;
        };
        self.world.supply.read_mark(self.shelf());
        killed
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.shelf().join("process.log")).unwrap_or_default()
    }

    /// A process that nobody kills.
    async fn undisturbed(&self, index: &Authentic) -> Undisturbed {
        assert!(!self.killed_at(index, Point::NEVER).await);
        let log = self.log();
        let ended = log.lines().find_map(|line| {
            let (calls, state) = line.split_once("after ")?.1.split_once(" calls ended as ")?;
            Some(Undisturbed { state: state.to_owned(), calls: calls.parse().ok()? })
        });
        ended.unwrap_or_else(|| panic!("no end in: {log}"))
    }
}

/// The points of one kind of release that have passed, in all its lanes.
struct Tally {
    what: &'static str,
    /// Every how many-th point is done.
    stride: usize,
    begun: Instant,
    passed: Cell<usize>,
    expected: Cell<usize>,
}

impl Tally {
    fn new(what: &'static str, stride: usize) -> Self {
        Self { what, stride, begun: Instant::now(), passed: Cell::new(0), expected: Cell::new(0) }
    }

    /// What an undisturbed process took to do says how many points there are, give or take a few
    /// looks of a gate.
    fn expect(&self, undisturbed: &Undisturbed) {
        self.expected.set(undisturbed.calls * MOMENTS.len() / self.stride);
    }

    fn pass(&self) {
        self.passed.set(self.passed.get() + 1);
        let (passed, expected) = (self.passed.get(), self.expected.get());
        if passed.is_multiple_of(10) {
            let minutes = self.begun.elapsed().as_secs_f32() / 60.0;
            println!("{}: point {passed} of about {expected}, after {minutes:.1} min", self.what);
        }
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

/// Good releases whose processes die, point after point: the end is that of an undisturbed one.
async fn go_well(points: impl Iterator<Item = Point>, tally: &Tally) {
    let sweep = Sweep::new().await;
    // Contents a and b in turns; the ends of both when nobody dies. Objects of before, since the very
    // first release makes others.
    let mut ends = BTreeMap::new();
    for content in ["b", "a", "b", "a"] {
        let (_, index) = sweep.publish(content, &format!("good-{content}"));
        let undisturbed = sweep.undisturbed(&index).await;
        assert_eq!(undisturbed.state, "Committed", "{}", sweep.log());
        tally.expect(&undisturbed);
        ends.insert(content, plain(sweep.world.contents().await));
    }
    for (point, content) in points.zip(["b", "a"].into_iter().cycle()) {
        let (sequence, index) = sweep.publish(content, &format!("good-{content}"));
        let killed = sweep.killed_at(&index, point).await;
        assert_eq!(sweep.undisturbed(&index).await.state, "Committed", "{point:?}");
        assert_eq!(plain(sweep.world.contents().await), ends[content], "{point:?}");
        let status = sweep.world.component().await.unwrap().status.unwrap();
        assert_eq!((status.sequence, status.run), (sequence, None), "{point:?}");
        if !killed {
            break;
        }
        tally.pass();
    }
}

/// Bad releases whose processes die, point after point: they leave the very objects of before.
async fn go_back(points: impl Iterator<Item = Point>, tally: &Tally) {
    let sweep = Sweep::new().await;
    for content in ["b", "a"] {
        let (_, index) = sweep.publish(content, &format!("good-{content}"));
        assert_eq!(sweep.undisturbed(&index).await.state, "Committed", "{}", sweep.log());
    }
    let before = sweep.world.contents().await;
    let component = sweep.world.component().await.unwrap().status.unwrap();
    let (_, index) = sweep.publish("c", "bad");
    let undisturbed = sweep.undisturbed(&index).await;
    assert_eq!(undisturbed.state, "RolledBack", "{}", sweep.log());
    assert_eq!(sweep.world.contents().await, before);
    tally.expect(&undisturbed);
    for point in points {
        let (_, index) = sweep.publish("c", "bad");
        let killed = sweep.killed_at(&index, point).await;
        assert_eq!(sweep.undisturbed(&index).await.state, "RolledBack", "{point:?}");
        assert_eq!(sweep.world.contents().await, before, "{point:?}");
        assert_eq!(sweep.world.component().await.unwrap().status.unwrap(), component);
        if !killed {
            break;
        }
        tally.pass();
    }
}

#[tokio::test]
async fn processes_killed_at_every_call_leave_what_an_undisturbed_one_leaves() {
    let Ok(stride) = env::var(SWEEP) else {
        println!("SKIP the full sweep takes long: {SWEEP}=1, or `.ci/nightly sweep`");
        return;
    };
    let stride: usize = stride.parse().expect("every how many-th point, from 1");
    let good = Tally::new("a release that goes well", stride);
    let bad = Tally::new("a release that is rolled back", stride);
    let lanes = || (0..LANES).map(|lane| Point::of_lane(lane, stride));
    tokio::join!(
        join_all(lanes().map(|points| go_well(points, &good))),
        join_all(lanes().map(|points| go_back(points, &bad))),
    );
    let (good, bad) = (good.passed.get(), bad.passed.get());
    println!(
        "{} kill points, all passed: {good} of a release that goes well, which ended as an undisturbed one; \
         {bad} of one that is rolled back, which left what was before",
        good + bad
    );
    assert!(good.min(bad) > 0, "no kill points: the stride of {stride} is too long");
    assert!(stride > 1 || good + bad >= FULL, "only {} kill points of {FULL}", good + bad);
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
