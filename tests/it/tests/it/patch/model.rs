//! Random releases over random cluster states, with random faults, against what has to hold whatever
//! comes: an object is as it was or as it is to be and nothing else; what nobody owns is not touched;
//! the inventory names all that exists; going back brings back every owned field.
//!
//! The seed is the same in each run, unless `MENDIX_MODEL_SEED` gives another, as the nightly run does;
//! `MENDIX_MODEL_ROUNDS` makes it longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use mendix_agent::patch::drift::Drift;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    killed::{Moment, come_back, die_at},
    world::{Parts, World, message, state, until},
};

/// Unless the environment says another: what one change is judged by, the next one is, too.
const SEED: u64 = 20_261_122;
/// Rounds unless the environment says another number.
const ROUNDS: u64 = 16;
/// Names that releases choose from.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// ConfigMaps that nobody owns.
const FOREIGN: [&str; 2] = ["theirs-1", "theirs-2"];
/// One that only says how far the watch has come.
const MARK: &str = "mark";

/// SplitMix64: small, seeded, good enough to choose with.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Data of ConfigMaps by name.
type Data = BTreeMap<String, Value>;

/// Every content in which a ConfigMap was ever seen since the last look.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl Seen {
    fn watch(world: &World) -> (Self, tokio::task::AbortHandle) {
        let seen = Self::default();
        let api: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.target);
        let sink = seen.clone();
        let task = tokio::spawn(async move {
            let mut changes = watcher::watcher(api, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                let Ok(map) = change else { continue };
                let data = json!(map.data.clone().unwrap_or_default()).to_string();
                sink.0.lock().unwrap().entry(map.name_any()).or_default().insert(data);
            }
        });
        (seen, task.abort_handle())
    }

    /// Asserts that everything up to now is allowed, and forgets it.
    async fn check(&self, world: &World, allowed: &[&Data], context: &str) {
        // Changes come in their order: when the mark is seen, everything before it was.
        let api: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.target);
        let mark = json!({"metadata": {"name": MARK}});
        let mark = serde_json::from_value(mark).unwrap();
        api.create(&PostParams::default(), &mark).await.unwrap();
        until("the watch has seen the mark", async || self.0.lock().unwrap().contains_key(MARK))
            .await;
        api.delete(MARK, &DeleteParams::default()).await.unwrap();
        for (name, contents) in std::mem::take(&mut *self.0.lock().unwrap()) {
            if FOREIGN.contains(&name.as_str()) || name == MARK || name == "kube-root-ca.crt" {
                continue;
            }
            for data in contents {
                let data: Value = serde_json::from_str(&data).unwrap();
                let fits = allowed.iter().any(|all| all.get(&name) == Some(&data));
                assert!(fits, "{context}: ConfigMap {name} was seen as {data}");
            }
        }
    }
}

struct Model {
    world: World,
    dice: Dice,
    seen: Seen,
    watch: tokio::task::AbortHandle,
    /// What the last committed release wants.
    committed: Data,
    /// Whether it has the Deployment.
    deployed: bool,
    /// Versions of the objects that nobody owns.
    foreign: BTreeMap<String, String>,
    sequence: u64,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Model {
    async fn new(seed: u64) -> Self {
        let world = World::new().await;
        let api: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.target);
        let mut foreign = BTreeMap::new();
        for name in FOREIGN {
            let map = json!({"metadata": {"name": name}, "data": {"whose": "theirs"}});
            let map = serde_json::from_value(map).unwrap();
            let made = api.create(&PostParams::default(), &map).await.unwrap();
            foreign.insert(name.to_owned(), made.resource_version().unwrap());
        }
        let (seen, watch) = Seen::watch(&world);
        Self {
            world,
            dice: Dice(seed),
            seen,
            watch,
            committed: Data::new(),
            deployed: false,
            foreign,
            sequence: 0,
        }
    }

    /// A random choice of ConfigMaps with random content.
    fn wish(&mut self) -> Data {
        let mut data = Data::new();
        for name in NAMES {
            if self.dice.below(3) > 0 {
                let mut content = serde_json::Map::new();
                for key in ["x", "y", "z"] {
                    if self.dice.coin() {
                        content.insert(key.into(), self.dice.below(3).to_string().into());
                    }
                }
                data.insert(name.to_owned(), Value::Object(content));
            }
        }
        // A release without any object is none.
        data.entry("always".into()).or_insert_with(|| json!({"n": self.sequence.to_string()}));
        data
    }

    fn objects(&self, wish: &Data, image: Option<&str>) -> Vec<Value> {
        let parts = Parts(&self.world);
        let maps = wish.iter().map(|(name, data)| parts.config(name, data.clone()));
        maps.chain(image.map(|image| parts.deployment(image, Some(1)))).collect()
    }

    /// Carries a release to its end, through some deaths of the process.
    async fn run(&mut self, objects: &[Value]) -> (String, String) {
        self.sequence += 1;
        let index = self.world.publish(self.sequence, objects);
        for _ in 0..self.dice.below(3) {
            let call = usize::try_from(self.dice.below(60)).unwrap();
            let moment = if self.dice.coin() { Moment::BeforeCall } else { Moment::AfterCall };
            if Box::pin(die_at(&self.world, index.clone(), call, moment)).await {
                break;
            }
        }
        let _state = Box::pin(come_back(&self.world, index.clone())).await;
        let bundle = self.world.take(index).await;
        (state(&bundle).to_owned(), message(&bundle).to_owned())
    }

    async fn maps(&self) -> Data {
        let mut data = Data::new();
        for (key, object) in self.world.contents().await {
            let Some(name) = key.strip_prefix("ConfigMap/") else { continue };
            if !FOREIGN.contains(&name) && name != "kube-root-ca.crt" {
                let content = object.get("data").cloned().unwrap_or_else(|| json!({}));
                data.insert(name.to_owned(), content);
            }
        }
        data
    }

    /// Somebody else adds a key to an owned ConfigMap, or deletes one; drift correction is not running.
    async fn meddle(&mut self) -> Data {
        let mut now = self.maps().await;
        let names: Vec<String> = now.keys().cloned().collect();
        if names.is_empty() {
            return now;
        }
        let pick = usize::try_from(self.dice.below(names.len() as u64)).unwrap();
        let name = &names[pick];
        if self.dice.coin() {
            let patch = json!({"data": {"foreign": self.dice.below(9).to_string()}});
            self.world.meddle("ConfigMap", name, patch).await;
        } else {
            let api: Api<ConfigMap> =
                Api::namespaced(self.world.client.clone(), &self.world.target);
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
        now.extend(self.maps().await);
        now
    }

    async fn good(&mut self) {
        let before = self.maps().await;
        let meddled = self.meddle().await;
        let wish = self.wish();
        let deployed = self.dice.coin();
        let objects = self.objects(&wish, deployed.then_some("good"));
        let (ended, why) = self.run(&objects).await;
        assert_eq!(ended, "Committed", "{why}");
        assert_eq!(self.maps().await, wish, "the cluster is what the release says");
        assert_eq!(self.world.get("Deployment", "operator").await.is_some(), deployed);
        self.seen.check(&self.world, &[&before, &meddled, &wish], "a good release").await;
        (self.committed, self.deployed) = (wish, deployed);
    }

    async fn bad(&mut self) {
        let before = self.world.contents().await;
        let old = self.maps().await;
        let wish = self.wish();
        let objects = self.objects(&wish, Some("bad"));
        let (ended, why) = self.run(&objects).await;
        assert_eq!(ended, "RolledBack", "{why}");
        assert_eq!(self.world.contents().await, before, "every field is as before");
        self.seen.check(&self.world, &[&old, &wish], "a bad release").await;
    }

    async fn refused(&mut self) {
        let before = self.world.contents().await;
        let mut wish = self.wish();
        wish.insert(FOREIGN[0].into(), json!({"whose": "ours"}));
        let objects = self.objects(&wish, None);
        let (ended, why) = self.run(&objects).await;
        assert_eq!(ended, "Refused", "{why}");
        assert!(why.contains("NotAdopted"), "{why}");
        assert_eq!(self.world.contents().await, before, "nothing was touched");
        self.seen.check(&self.world, &[&self.maps().await], "a refused release").await;
    }

    async fn recovered(&mut self) {
        let before = self.maps().await;
        let meddled = self.meddle().await;
        let drift = Drift::new(&self.world.driver());
        let recovery = drift.recover(&CancellationToken::new()).await.unwrap();
        assert!(recovery.failures.is_empty(), "{:?}", recovery.failures);
        let now = self.maps().await;
        assert_eq!(now, self.committed, "what was committed is there again");
        self.seen.check(&self.world, &[&before, &meddled, &now], "a recovery").await;
    }

    /// What has to hold after every round.
    async fn check(&self) {
        let api: Api<ConfigMap> = Api::namespaced(self.world.client.clone(), &self.world.target);
        for (name, version) in &self.foreign {
            let now = api.get(name).await.unwrap().resource_version();
            assert_eq!(now.as_ref(), Some(version), "{name} is nobody's to touch");
        }
        let Some(component) = self.world.component().await else {
            assert!(self.committed.is_empty());
            return;
        };
        let status = component.status.unwrap();
        assert_eq!(status.run, None, "no run is announced when none is under way");
        let owned: BTreeSet<String> =
            status.inventory.iter().map(|owned| format!("{}/{}", owned.kind, owned.name)).collect();
        for (key, object) in self.world.contents().await {
            let ours = object["metadata"]["annotations"]
                .as_object()
                .is_some_and(|all| all.contains_key("agent.mendix.com/created-by"));
            assert!(!ours || owned.contains(&key), "{key} is not in the inventory {owned:?}");
        }
    }
}

#[tokio::test]
async fn whatever_releases_faults_and_meddling_come_in_whatever_order_the_promises_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = number("MENDIX_MODEL_SEED").unwrap_or(SEED);
    let rounds = number("MENDIX_MODEL_ROUNDS").unwrap_or(ROUNDS);
    println!("MENDIX_MODEL_SEED={seed}");
    let mut model = Model::new(seed).await;
    model.good().await;
    for round in 1..rounds {
        let choice = model.dice.below(8);
        println!("round {round}: {choice}");
        match choice {
            0..=2 => model.good().await,
            3..=5 => model.bad().await,
            6 => model.refused().await,
            _ => model.recovered().await,
        }
        model.check().await;
    }
}
