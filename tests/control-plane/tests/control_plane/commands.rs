//! The operator's commands, as processes.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::releases::operator_manifests;

fn run(state: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mendix-control-plane"))
        .arg("--state")
        .arg(state)
        .args(["--output", "json"])
        .args(arguments)
        .output()
        .expect("the command runs")
}

pub(crate) fn json(state: &Path, arguments: &[&str]) -> Value {
    let output = run(state, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub(crate) fn fails(state: &Path, arguments: &[&str], code: i32) -> Value {
    let output = run(state, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    serde_json::from_slice(&output.stderr).expect("JSON")
}

#[test]
fn an_operator_finds_the_way_from_init_to_a_ticket() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = &dir.path().join("state");
    fails(state, &["cluster", "list"], 6);
    json(state, &["init", "--dns", "plane.local", "--ip", "10.0.0.4"]);
    fails(state, &["init"], 5);
    for file in ["root.json", "consent-keys.json", "channel-ca.pem"] {
        assert!(state.join("trust").join(file).is_file(), "{file}");
    }

    let token = json(state, &["cluster", "register", "--uid", "c-1"]);
    assert!(token["token"].as_str().expect("a token").starts_with("mxb-"));
    fails(state, &["cluster", "register", "--uid", "c-1"], 5);
    fails(state, &["cluster", "register", "--uid", "../c"], 4);
    fails(state, &["cluster", "delete", "--uid", "unknown"], 3);

    let manifests = dir.path().join("operator");
    operator_manifests(&manifests);
    let component = format!("operator@2.0={}", manifests.display());
    let publish = ["release", "publish", "--id", "2026.11.3", "--class", "weekly", "--component"];
    let publish = [&publish[..], &[&component]].concat();
    json(state, &[&publish[..], &["--dry-run"]].concat());
    assert_eq!(json(state, &["release", "list"]).as_array().map(Vec::len), Some(0));
    let published = json(state, &publish);
    assert_eq!(published["release"]["components"][0]["version"], "2.0");
    assert!(published["changes"][0]["against"].is_null());
    fails(state, &publish, 5);
    fails(state, &["release", "push", "never"], 3);
    let pushed = json(state, &["release", "push", "2026.11.3"]);
    assert_eq!(pushed["clusters"][0], "c-1");
    let agents = json(state, &["agents"]);
    assert_eq!(agents[0]["state"], "WaitingForConnection");
    assert_eq!(agents[0]["release_wanted"], "2026.11.3");

    let bad = format!("operator={}", dir.path().join("missing").display());
    let problems = fails(
        state,
        &["release", "publish", "--id", "r", "--class", "critical", "--component", &bad],
        4,
    );
    assert!(problems["error"].as_str().expect("text").contains("missing"));

    let ticket = ["ticket", "open", "--title", "slow", "--severity", "high"];
    let opened = json(state, &[&ticket[..], &["--grant", "--components", "operator"]].concat());
    assert_eq!(opened["ticket"], "t-1001");
    assert!(opened["request"].is_string());
    let consent = dir.path().join("grant.json");
    let consent = consent.to_str().expect("text");
    let written = json(state, &["ticket", "consent", "t-1001", "--out", consent]);
    let bytes = std::fs::read(consent).expect("the consent");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    assert_eq!(written["grant_sha256"], hex::encode(digest));
    // A bare name is a file of the folder that one is in.
    let bare = Command::new(env!("CARGO_BIN_EXE_mendix-control-plane"))
        .arg("--state")
        .arg(state)
        .args(["ticket", "consent", "t-1001", "--out", "bare.json"])
        .current_dir(dir.path())
        .output();
    assert!(bare.expect("the command runs").status.success());
    assert_eq!(std::fs::read(dir.path().join("bare.json")).expect("the consent"), bytes);
    fails(state, &["ticket", "consent", "t-9", "--out", consent], 3);
    let waiting = json(state, &["snapshot", "list"]);
    assert_eq!(waiting[0]["outcome"], "Waiting");
    json(state, &["snapshot", "request", "--ticket", "t-1001"]);
    json(state, &["ticket", "hold", "t-1001"]);
    json(state, &["ticket", "solve", "t-1001"]);
    fails(state, &["ticket", "hold", "t-1001"], 4);
    fails(state, &["ticket", "solve", "t-9"], 3);
    let out = dir.path().join("out");
    fails(state, &["snapshot", "open", "none", "--out", &out.to_string_lossy()], 3);
    fails(state, &[&ticket[..], &["--grant", "--components", "*"]].concat(), 4);
    // clap: consent names its components.
    let usage = run(state, &[&ticket[..], &["--grant"]].concat());
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_channel_ca_is_replaced_step_by_step_and_in_no_other_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = &dir.path().join("state");
    json(state, &["init"]);
    let trusted = || {
        let pem =
            std::fs::read_to_string(state.join("trust/channel-ca.pem")).expect("the trust file");
        pem.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!((json(state, &["ca", "status"])["issuing"].as_str(), trusted()), (Some("ca"), 1));
    fails(state, &["ca", "switch"], 4);
    fails(state, &["ca", "finish"], 4);
    json(state, &["ca", "begin"]);
    assert_eq!(trusted(), 2);
    fails(state, &["ca", "begin"], 4);
    fails(state, &["ca", "finish"], 4);
    assert_eq!(json(state, &["ca", "switch"])["issuing"], "ca-2");
    assert_eq!(trusted(), 2);
    fails(state, &["ca", "begin"], 4);
    assert_eq!(json(state, &["ca", "finish"])["previous"], Value::Null);
    assert_eq!(trusted(), 1);
    assert!(!state.join("channel-ca/ca.key.pem").exists(), "the old key is gone");
    assert_eq!(json(state, &["ca", "begin"])["next"], "ca-3");
}

#[test]
fn keys_that_sign_service_account_tokens_are_checked_when_they_are_registered() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = &dir.path().join("state");
    json(state, &["init"]);
    let jwks = dir.path().join("jwks.json");
    let file = jwks.to_string_lossy().into_owned();
    let register =
        ["cluster", "register", "--uid", "c-1", "--issuer", "https://i", "--issuer-jwks"];
    std::fs::write(&jwks, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).expect("write");
    fails(state, &[&register[..], &[&file]].concat(), 4);
    assert_eq!(json(state, &["cluster", "list"]).as_array().map(Vec::len), Some(0));
    let key = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k"}]}"#;
    std::fs::write(&jwks, key).expect("write");
    json(state, &[&register[..], &[&file]].concat());
    json(
        state,
        &["cluster", "issuer", "--uid", "c-1", "--issuer", "https://i", "--issuer-jwks", &file],
    );
    // One without the other says nothing.
    let half = run(state, &["cluster", "register", "--uid", "c-2", "--issuer", "https://i"]);
    assert_eq!(half.status.code(), Some(2));
}

#[test]
fn private_keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let state = &dir.path().join("state");
    json(state, &["init"]);
    json(state, &["cluster", "register", "--uid", "c-1"]);
    json(state, &["ticket", "open", "--title", "t", "--grant", "--components", "operator"]);
    let mut keys = 0;
    for folder in ["channel-ca", "release-root", "release-online", "portal", "portal/tickets"] {
        for entry in std::fs::read_dir(state.join(folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".pk8", ".key.pem", ".x25519"].iter().any(|suffix| name.ends_with(suffix)) {
                let mode = entry.metadata().expect("metadata").permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{folder}/{name}");
                keys += 1;
            }
        }
    }
    // CA and server, four offline, two online, consent and status, one ticket.
    assert_eq!(keys, 11);
}

#[test]
fn one_server_runs_on_a_state_folder_and_ends_on_a_signal() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = &dir.path().join("state");
    json(state, &["init"]);
    let mut server = Command::new(env!("CARGO_BIN_EXE_mendix-control-plane"))
        .arg("--state")
        .arg(state)
        .args(["serve", "--listen", "127.0.0.1:0", "--drain", "10ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("stdout");
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
    fails(state, &["serve", "--listen", "127.0.0.1:0"], 5);
    // An operator works while it runs.
    json(state, &["cluster", "register", "--uid", "c-1"]);
    // The shell's own `kill`: the program of that name need not be installed.
    let kill = format!("kill -TERM {}", server.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("kill").success());
    assert!(server.wait().expect("it ends").success());
}
