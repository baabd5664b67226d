//! What support does with a finished snapshot, by the operator's commands and by ordinary tools.

use std::{fs, process::Command};

use mendix_agent_core::{
    archive::{EntryPath, Run},
    envelope::sha256,
};
use mendix_control_plane::portal::open_ticket;
use serde_json::{Value, json};

use crate::{
    client::Plane,
    commands::{fails, json as json_of},
    sessions::ticket,
    snapshots::{ID, Sealed, upload},
};

/// A snapshot of a component whose second pod crashed. `altered`: the manifest says something else of
/// a log.
fn entries(altered: bool) -> Vec<(EntryPath, Vec<u8>)> {
    let log = |pod: &str, run, part, text: &str| {
        let path = EntryPath::log("mendix-operator", pod, "manager", run, part).expect("a path");
        (path, text.as_bytes().to_vec())
    };
    let mut noise = String::new();
    for n in 0..20_000u64 {
        let value = n.wrapping_mul(6_364_136_223_846_793_005);
        noise.push_str(&format!("2026-11-20T10:00:00.{n:09}Z INFO row {value}\n"));
    }
    let (first, second) = noise.split_at(noise.len() / 2);
    let crash = "2026-11-20T10:31:00Z INFO last words\n2026-11-20T10:31:01Z panic: out of cheese\n";
    let failures: String = (10..40)
        .map(|n| format!("2026-11-20T10:{n}:00Z ERROR request {n} failed after {n}0 ms\n"))
        .collect();
    let mut entries = vec![
        log("op-1", Run::Current, Some(1), first),
        log("op-1", Run::Current, Some(2), &format!("{second}{failures}")),
        log("op-2", Run::Previous, None, crash),
        (EntryPath::events(), json!({
            "type": "Warning", "time": "2026-11-20T10:31:02Z", "reason": "BackOff", "kind": "Pod",
            "namespace": "mendix-operator", "name": "op-2", "message": "restarting failed container",
        }).to_string().into_bytes()),
        (EntryPath::status(), json!({
            "kind": "Pod", "namespace": "mendix-operator", "name": "op-2",
            "containers": [{ "name": "manager", "restarts": 1, "reason": null }],
        }).to_string().into_bytes()),
        (EntryPath::errors(), b"{\"subject\":\"mendix-operator/op-1/manager/current\",\
            \"reason\":\"Rotated\",\"detail\":\"older\"}\n".to_vec()),
        (EntryPath::redaction(), b"{\"policy_version\":1,\"replaced\":{\"email\":4}}".to_vec()),
    ];
    let files: Vec<Value> = entries
        .iter()
        .map(|(path, data)| {
            let bytes = data.len() + usize::from(altered && path.as_str().contains("op-2"));
            json!({ "path": path.as_str(), "bytes": bytes, "sha256": hex::encode(sha256(data)) })
        })
        .collect();
    let manifest = json!({
        "version": 1, "files": files, "window_from": "2026-11-20T10:00:00Z",
        "window_to": "2026-11-20T11:00:00Z",
    });
    entries.push((EntryPath::manifest(), manifest.to_string().into_bytes()));
    entries
}

async fn scene(altered: bool) -> Plane {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let (opened, _) = open_ticket(plane.store(), ticket(true)).expect("open");
    upload(&plane, &agent, &Sealed::of(&opened, ID, &entries(altered))).await;
    plane
}

#[tokio::test]
async fn ordinary_tools_open_what_was_decrypted() {
    let plane = scene(false).await;
    let state = &plane.state();
    let archive = plane.dir.path().join("snapshot.tar.gz");
    let out = archive.to_str().expect("a path");
    let decrypted = json_of(state, &["snapshot", "decrypt", ID, "--out", out]);
    assert_eq!(decrypted["bytes"], fs::metadata(&archive).expect("an archive").len());
    fails(state, &["snapshot", "decrypt", ID, "--out", out], 5);
    let folder = plane.dir.path().join("untarred");
    fs::create_dir(&folder).expect("a folder");
    let tar = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&folder).output();
    let tar = tar.expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    for (path, data) in entries(false) {
        assert_eq!(fs::read(folder.join(path.as_str())).expect("a file"), data, "{path:?}");
    }
    // gzip alone: members one after the other are one file to it.
    assert!(Command::new("gzip").arg("-t").arg(&archive).status().expect("gzip runs").success());
}

#[tokio::test]
async fn a_summary_shows_the_crash_the_gaps_and_what_was_replaced() {
    let plane = scene(false).await;
    let told = json_of(&plane.state(), &["snapshot", "summary", ID]);
    let rows = told["rows"].as_array().expect("rows");
    let of = |row: &Value| (row["source"].as_str().map(str::to_owned), row["count"].as_u64());
    let rows: Vec<_> = rows.iter().map(of).collect();
    let source = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows,
        [
            (source("mendix-operator/op-1/manager/current"), Some(30)),
            (source("mendix-operator/op-2/manager/previous"), Some(1)),
            (source("event"), Some(1)),
        ]
    );
    assert_eq!(told["rows"][1]["text"], "panic: out of cheese");
    assert_eq!(told["lines"], 20_033);
    assert_eq!(told["replaced"]["email"], 4);
    assert_eq!(told["gaps"][0]["reason"], "Rotated");
    assert_eq!(told["unwell"][0], "mendix-operator/op-2: manager restarted 1 times");
    assert_eq!(told["window"][0], "2026-11-20T10:00:00Z");
}

#[tokio::test]
async fn what_the_manifest_does_not_say_is_not_whole() {
    let whole = scene(false).await;
    let verified = json_of(&whole.state(), &["snapshot", "verify", ID]);
    assert_eq!(verified["files"].as_array().map(Vec::len), Some(8));
    let shown = json_of(&whole.state(), &["snapshot", "show", ID]);
    assert_eq!(shown["snapshot_id"], ID);
    let altered = scene(true).await;
    let error = fails(&altered.state(), &["snapshot", "verify", ID], 1);
    assert!(error["error"].as_str().expect("text").contains("op-2"), "{error}");
    fails(&altered.state(), &["snapshot", "verify", "none"], 3);
    // Nothing of it was written anywhere.
    let snapshots = altered.state().join("snapshots").join(ID);
    let names: Vec<_> = fs::read_dir(snapshots).expect("a folder").flatten().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
