//! What is collected, from an API whose answers are made here: the faults that a real one shows only
//! now and then. Time stands still unless all wait.

mod fake;

use std::{collections::BTreeMap, io::Read};

use flate2::read::MultiGzDecoder;
use mendix_agent_core::{consent::grant::DataClass, redact::SnapshotKey};
use serde_json::{Value, json};

use self::fake::{Fake, Log, NAMESPACE, line};
use super::*;

/// What came out of a collection.
struct Out {
    files: BTreeMap<String, String>,
    gaps: Vec<Gap>,
    order: Vec<String>,
}

impl Out {
    /// The gaps about something, by reason.
    fn gaps(&self, subject: &str) -> Vec<&'static str> {
        self.gaps.iter().filter(|gap| gap.subject == subject).map(|gap| gap.reason).collect()
    }

    fn log(&self, pod: &str) -> Option<&str> {
        let path = format!("logs/{NAMESPACE}/{pod}/main/current.log");
        self.files.get(&path).map(String::as_str)
    }
}

async fn collect(fake: Fake) -> Out {
    collect_with(fake, |_| {}).await
}

async fn collect_with(fake: Fake, change: impl FnOnce(&mut Collector)) -> Out {
    let classes = [DataClass::ComponentLogs, DataClass::Events, DataClass::Status].into();
    collect_classes(fake, classes, change).await
}

async fn collect_classes(
    fake: Fake,
    classes: BTreeSet<DataClass>,
    change: impl FnOnce(&mut Collector),
) -> Out {
    let component = fake.component();
    let cluster = fake.cluster().await;
    let names = vec![component.spec.component.clone()];
    let scope = Scope::preview(Caller::new(cluster), names, vec![], classes, fake::window());
    let (items, mut incoming) = mpsc::channel(ITEM_BACKLOG);
    let redaction = Redaction::new(SnapshotKey::new([7; 32]), vec![]);
    let room = Room::of(u64::MAX);
    let now = fake::window().to;
    let mut collector =
        Collector::new(Arc::new(scope), vec![component], redaction, room, now, items);
    change(&mut collector);
    let taken = async {
        let mut out = Out { files: BTreeMap::new(), gaps: vec![], order: vec![] };
        while let Some(item) = incoming.recv().await {
            match item {
                Item::Entry(entry) => {
                    out.order.push(entry.path.as_str().to_owned());
                    out.files.insert(entry.path.as_str().to_owned(), content(&entry));
                }
                Item::Gap(gap) => out.gaps.push(gap),
                Item::Read(..) => {}
            }
        }
        out
    };
    tokio::join!(collector.run(), taken).1
}

fn content(entry: &Packed) -> String {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(entry.bytes.as_slice()));
    let mut file = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

fn label(pod: &str) -> String {
    format!("{NAMESPACE}/{pod}/main/current")
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_dies_in_the_middle_of_its_stream_leaves_its_whole_lines() {
    let mut fake = Fake::default();
    fake.pod("dying", Log::Breaks(line(1, "a") + &line(2, "b") + "2026-11-20T10:00:03Z passw"));
    fake.pod("well", Log::Whole(line(1, "still here")));
    let out = collect(fake).await;
    assert_eq!(out.log("dying").unwrap(), line(1, "a") + &line(2, "b"));
    assert_eq!(out.gaps(&label("dying")), ["ReadFailed", "Partial"]);
    assert_eq!(out.log("well").unwrap(), line(1, "still here"));
    assert_eq!(out.gaps(&label("well")), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_ends_and_the_others_go_on() {
    let mut fake = Fake::default();
    for n in 0..6 {
        fake.pod(&format!("stalled-{n}"), Log::Stalls(line(1, "a")));
    }
    fake.pod("well", Log::Whole(line(1, "still here")));
    let began = Instant::now();
    let out = collect(fake).await;
    assert_eq!(out.log("stalled-0").unwrap(), line(1, "a"));
    assert_eq!(out.gaps(&label("stalled-5")), ["Stalled"]);
    assert_eq!(out.log("well").unwrap(), line(1, "still here"));
    // Two rounds of four, each with the log and the look at its beginning.
    assert!(began.elapsed() < Duration::from_secs(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_429_is_declared_and_ends() {
    let mut fake = Fake::default();
    for n in 0..300 {
        fake.pod(&format!("busy-{n:03}"), Log::Refused(429));
    }
    fake.answers_after(Duration::from_secs(29));
    let began = Instant::now();
    let out = collect(fake).await;
    // Each refusal takes as long as the client's own retries may: no more are begun after a while.
    assert!(began.elapsed() < Duration::from_secs(900), "{:?}", began.elapsed());
    assert_eq!(out.gaps(&label("busy-000")), ["NotOpened"]);
    let [late] = out.gaps.iter().filter(|g| g.reason == "Deadline").collect::<Vec<_>>()[..] else {
        panic!("{:?}", out.gaps);
    };
    assert!(late.detail.contains("logs were not read: "), "{late:?}");
    assert!(out.files.contains_key("status.jsonl"));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pods_are_bounded_and_the_sick_come_first() {
    let mut fake = Fake::default();
    for n in 0..10_000 {
        let sick = n % 100 == 99;
        fake.pod_that(
            &format!("p-{n:05}"),
            Log::Whole(line(1, "x")),
            json!({
                "restartCount": i32::from(sick),
            }),
        );
    }
    let asked = fake.asked();
    let out = collect(fake).await;
    let logs: Vec<_> = out.order.iter().filter(|path| path.starts_with("logs/")).collect();
    assert_eq!(logs.len(), found::MAX_STREAMS);
    let sick: Vec<_> = logs.iter().take(96).filter(|path| path.contains("99/main")).collect();
    assert_eq!(sick.len(), 96, "four are read at once, so the order is theirs at the seams only");
    assert_eq!(out.gaps("logs"), ["TooManyStreams"]);
    assert_eq!(out.gaps("status"), ["TooManyPods"]);
    assert!(out.files["status.jsonl"].len() <= mendix_agent_core::archive::MAX_ENTRY);
    let asked = asked.lock().unwrap();
    let lists = asked.iter().filter(|uri| uri.contains("/pods?")).collect::<Vec<_>>();
    assert_eq!(lists.len(), 40);
    assert!(lists.iter().all(|uri| uri.contains("limit=250")));
}

#[tokio::test(start_paused = true)]
async fn names_that_lead_elsewhere_are_declared_and_make_no_file() {
    let mut fake = Fake::default();
    for name in ["..", "../../etc/cron.d", "a/b"] {
        fake.pod(name, Log::Whole(line(1, "x")));
    }
    let out = collect(fake).await;
    assert!(out.files.keys().all(|path| !path.contains("..") && !path.contains("a/b")));
    assert!(out.order.iter().all(|path| !path.starts_with("logs/")), "{:?}", out.order);
    for name in ["..", "../../etc/cron.d", "a/b"] {
        let about = out.gaps.iter().filter(|gap| gap.subject == label(name));
        let reasons: Vec<_> = about.map(|gap| gap.reason).collect();
        // The API has no such path, or the archive takes no such name.
        assert!(matches!(reasons[..], ["NotOpened"] | ["BadName"]), "{name}: {reasons:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hit_of_the_second_engine_withholds_the_whole_log() {
    let mut text = String::new();
    for n in 0..40_000 {
        text.push_str(&line(n % 60, "INFO nothing to see in this line of the log"));
    }
    let mut fake = Fake::default();
    fake.pod("leaky", Log::Whole(text.clone() + &line(59, "INFO what only it knows")));
    fake.pod("clean", Log::Whole(text));
    // Whatever the first engine learns: this one finds something at the end of one log.
    let scan: Scan = |bytes| match bytes.windows(18).position(|text| text == b"what only it knows")
    {
        Some(offset) => Err(Leak { pattern: "test", offset }),
        None => Ok(()),
    };
    let out = collect_with(fake, |collector| collector.scan = scan).await;
    assert_eq!(out.gaps(&label("leaky")), ["Quarantined"]);
    assert!(out.order.iter().all(|path| !path.contains("leaky")), "{:?}", out.order);
    let clean = out.order.iter().filter(|path| path.contains("clean")).count();
    assert!(clean > 1, "the log has parts that were ready before its end");
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_log_drops_that_log_alone() {
    let mut fake = Fake::default();
    fake.pod("fatal", Log::Whole(line(1, "INFO fine so far") + &line(2, "what breaks us")));
    fake.pod("well", Log::Whole(line(1, "still here")));
    let scan: Scan = |bytes| {
        assert!(!bytes.windows(14).any(|text| text == b"what breaks us"), "a fault of ours");
        Ok(())
    };
    let out = collect_with(fake, |collector| collector.scan = scan).await;
    assert_eq!(out.gaps(&label("fatal")), ["Panicked"]);
    assert_eq!(out.log("fatal"), None);
    assert_eq!(out.log("well").unwrap(), line(1, "still here"));
}

#[tokio::test(start_paused = true)]
async fn of_a_log_that_is_too_long_the_newest_lines_are_read() {
    // Ten times as much as is read at once.
    let mut text = String::new();
    for n in 0..4000u32 {
        let filler = "x".repeat(90);
        text.push_str(&format!("2026-11-20T10:{:02}:{:02}Z line {n} {filler}\n", n / 600, n % 60));
    }
    text.push_str(&line(3599, "panic: the crash"));
    let reach = Reach::test(4000, text.len() as u64 / 10);
    let mut fake = Fake::default();
    fake.pod("long", Log::Whole(text));
    let asked = fake.asked();
    let out = collect_with(fake, |collector| collector.reach = reach).await;
    let log = out.log("long").unwrap();
    assert!(log.ends_with(&line(3599, "panic: the crash")), "{}", &log[log.len() - 200..]);
    assert!(log.len() < 60_000, "{}", log.len());
    assert_eq!(out.gaps(&label("long")), ["Partial"]);
    let tails: Vec<_> = asked.lock().unwrap().iter().filter_map(|uri| tail(uri)).collect();
    assert!(tails.len() == 2 && tails[0] > tails[1], "{tails:?}");
}

fn tail(uri: &str) -> Option<u64> {
    uri.split_once("tailLines=")?.1.split('&').next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_fit_into_the_budget_keeps_its_end() {
    let mut state = 1u64;
    let mut text = String::new();
    for n in 0..60_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&line(
            n / 20,
            &format!("INFO row {} of {}", state >> 44, (state >> 20) & 0xfffff),
        ));
    }
    text.push_str(&line(3599, "panic: the crash"));
    let mut fake = Fake::default();
    fake.pod_that("long", Log::Whole(text), json!({ "restartCount": 1 }));
    fake.pod("another", Log::Whole(line(1, "small")));
    let out = collect_with(fake, |collector| collector.room = Room::of(600_000)).await;
    assert_eq!(out.gaps(&label("long")), ["Budget"]);
    let parts: Vec<_> = out.order.iter().filter(|path| path.contains("long")).collect();
    assert!(!parts.is_empty());
    assert!(out.files[parts[parts.len() - 1]].ends_with("panic: the crash\n"));
    assert!(!parts[0].contains("current.0001"), "{parts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_before_the_read_is_declared_and_one_after_it_is_not() {
    let mut fake = Fake::default();
    // Running since before the window; what the node has begins at 10:20.
    fake.pod("rotated", Log::Whole(line(1200, "cut?") + &line(1201, "a")));
    // Rotated after it was read: its beginning is then later than what was read.
    fake.pod("later", Log::Rotating(line(1, "cut?") + &line(2, "a"), line(1300, "new")));
    // Everything of the window went by: only later lines are there.
    fake.pod("hot", Log::Whole(line(3700, "after the window")));
    // Quiet since long before.
    fake.pod("quiet", Log::Whole(line(-90_000, "started") + &line(1800, "a")));
    let out = collect(fake).await;
    assert_eq!(out.gaps(&label("rotated")), ["Partial", "Rotated"]);
    assert_eq!(out.gaps(&label("later")), [""; 0]);
    assert_eq!(out.gaps(&label("hot")), ["Rotated"]);
    assert_eq!(out.gaps(&label("quiet")), ["Partial"]);
    let gap = out.gaps.iter().find(|gap| gap.reason == "Rotated").unwrap();
    assert!(gap.detail.contains("2026-11-20T1"), "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_needs_the_owner_the_label_and_the_namespace() {
    let mut fake = Fake::default();
    fake.pod("ours", Log::Whole(line(1, "ours")));
    fake.pod_with(
        "only-labelled",
        Log::Whole(line(1, "x")),
        json!({
            "labels": { "app": "noisy" }, "ownerReferences": [],
        }),
    );
    fake.pod_with(
        "only-owned",
        Log::Whole(line(1, "x")),
        json!({
            "labels": { "app": "shop" },
        }),
    );
    fake.pod_with(
        "other-owner",
        Log::Whole(line(1, "x")),
        json!({
            "labels": { "app": "noisy" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "noisy-1",
                                  "uid": "forged", "controller": true }],
        }),
    );
    let asked = fake.asked();
    let out = collect(fake).await;
    let logs: Vec<_> = out.order.iter().filter(|path| path.starts_with("logs/")).collect();
    assert_eq!(logs, [&format!("logs/{NAMESPACE}/ours/main/current.log")]);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().filter(|uri| uri.contains("/log?")).all(|uri| uri.contains("/ours/")));
    assert!(!out.files["status.jsonl"].contains("only-"), "{}", out.files["status.jsonl"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_a_name_or_in_an_errors_text_is_redacted() {
    let mut fake = Fake::default();
    fake.pod("token-ghp_abcdefghijklmnopqrstuvwxyz0123456789", Log::Whole(line(1, "x")));
    fake.pod("refused", Log::RefusedWith("dial https://ops:hunter2Tr0ub@registry.example failed"));
    let out = collect(fake).await;
    let shown = format!("{:?} {:?}", out.files, out.gaps);
    assert!(!shown.contains("ghp_abcdefghijkl"), "{shown}");
    assert!(!shown.contains("hunter2Tr0ub"), "{shown}");
    assert!(out.gaps.iter().any(|gap| gap.detail.contains("[R:")), "{:?}", out.gaps);
}

#[tokio::test(start_paused = true)]
async fn runtime_logs_need_the_class_and_the_right() {
    let app = |fake: &mut Fake| {
        fake.app("shop");
        fake.app_pod("shop-master-5f6d-x", "shop", Log::Whole(line(1, "the customer's data")));
    };
    // Not in the grant: nobody looks.
    let mut fake = Fake::default();
    app(&mut fake);
    let asked = fake.asked();
    let out = collect(fake).await;
    assert!(!out.order.iter().any(|path| path.starts_with("logs/mendix/")));
    let looked = |asked: &Arc<std::sync::Mutex<Vec<String>>>| {
        asked.lock().unwrap().iter().any(|uri| uri.contains("/namespaces/mendix/pods"))
    };
    assert!(!looked(&asked));
    // In the grant, and no right: a declared gap.
    let classes = || BTreeSet::from([DataClass::ComponentLogs, DataClass::RuntimeLogs]);
    let mut fake = Fake::default();
    app(&mut fake);
    fake.forbid("mendix");
    let asked = fake.asked();
    let out = collect_classes(fake, classes(), |_| {}).await;
    assert_eq!(out.gaps("runtime-logs"), ["NotListed"]);
    assert!(!looked(&asked));
    // Both.
    let mut fake = Fake::default();
    app(&mut fake);
    let out = collect_classes(fake, classes(), |_| {}).await;
    let path = "logs/mendix/shop-master-5f6d-x/main/current.log";
    assert_eq!(out.files[path], line(1, "the customer's data"));
}

#[tokio::test(start_paused = true)]
async fn resources_of_the_operator_come_with_their_values_masked() {
    let mut fake = Fake::default();
    fake.pod("ours", Log::Whole(line(1, "ours")));
    fake.app("shop");
    let out = collect(fake).await;
    let found: Vec<Value> =
        out.files["resources.jsonl"].lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let [app] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&app["kind"], &app["name"]), (&json!("MendixApp"), &json!("shop")));
    assert_eq!(app["spec"]["runtimeVersion"], "10.10.4");
    assert_eq!(app["spec"]["constants"]["Shop.Password"], "[masked]");
    assert_eq!(app["status"]["appState"], "Running");
    assert!(!out.files["resources.jsonl"].contains("winter"), "{}", out.files["resources.jsonl"]);
}
