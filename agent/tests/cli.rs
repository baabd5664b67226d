//! The agent's binary as people and scripts call it: exit codes, formats, colours, completions, and the
//! log level that changes while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(180);

/// A cluster that is not there: the connection is refused at once.
const KUBECONFIG: &str = r#"{
  "apiVersion": "v1", "kind": "Config", "current-context": "none",
  "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
  "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
  "users": [{"name": "none", "user": {"token": "none"}}]
}"#;

/// The agent in a folder with a kubeconfig and nothing else.
fn agent(folder: &Path, arguments: &[&str]) -> Command {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mendix-agent"));
    command.args(arguments).env_clear().env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    agent(folder.path(), arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_exit_code_ends_a_command_for_the_documented_reason() {
    let folder = tempfile::tempdir().unwrap();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let no_release = folder.path().join("no-release");
    std::fs::write(&no_release, "nothing").unwrap();
    let no_release = no_release.to_str().unwrap();
    let altered = folder.path().join("audit.yaml");
    let map =
        "kind: ConfigMap\nmetadata: {name: audit-000001}\ndata: {records: \"no record\\n\"}\n";
    std::fs::write(&altered, map).unwrap();
    let altered = altered.to_str().unwrap();
    let endpoint = ["--endpoint", "https://127.0.0.1:1"];
    let cases: [(i32, Vec<&str>, &str); 7] = [
        (0, vec!["crds"], ""),
        (2, vec!["--no-such-flag"], "unexpected argument"),
        (3, vec!["run", "--endpoint", "http://10.0.0.1:1"], "https://HOST:PORT"),
        (4, vec!["status"], "list agentstatuses"),
        (1, vec!["bundle", "inspect", no_release], "no-release"),
        (5, vec!["audit", "verify", "--from", altered], ""),
        (11, [&["preflight"][..], &endpoint].concat(), ""),
    ];
    let mut produced = BTreeMap::new();
    for (code, arguments, words) in cases {
        let output = agent(folder.path(), &arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        produced.insert(code, ());
    }
    let output = agent(folder.path(), &["crds"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("write to standard output"));
    produced.insert(1, ());
    // Warnings without a failure take a cluster and a control plane: `preflight_ends_with_10_…` in
    // tests/e2e/tests/scenarios runs into them.
    produced.insert(10, ());

    let documented: Vec<i32> = include_str!("../../docs/operations.md")
        .split("## Exit codes")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(documented, produced.into_keys().collect::<Vec<_>>(), "documented and produced");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let mut child = agent(tempfile::tempdir().unwrap().path(), &["crds"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn machines_get_json_or_yaml_of_the_same() {
    let preflight = |format: &str| {
        let output = run(&["preflight", "--endpoint", "https://127.0.0.1:1", "-o", format]);
        text(&output.stdout)
    };
    let json: serde_json::Value = serde_json::from_str(&preflight("json")).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&preflight("yaml")).unwrap();
    assert_eq!(json["result"], "Failed");
    let names = |value: &serde_json::Value| -> Vec<String> {
        let checks = value["checks"].as_array().unwrap();
        checks.iter().map(|check| format!("{} {}", check["name"], check["result"])).collect()
    };
    assert_eq!(names(&json), names(&yaml));
    assert!(names(&json).len() > 5);
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |variable: Option<&str>| {
        let arguments = ["preflight", "--endpoint", "https://127.0.0.1:1"];
        let mut command = agent(folder.path(), &arguments);
        command.envs(variable.map(|name| (name, "1")));
        text(&command.output().unwrap().stdout)
    };
    assert!(!shown(None).contains('\x1b'), "a pipe is no terminal");
    assert!(shown(Some("FORCE_COLOR")).contains("\x1b[31mFail\x1b[39m"));
    assert!(!shown(Some("NO_COLOR")).contains('\x1b'));
}

#[test]
fn the_completions_of_each_shell_are_taken_by_it() {
    for (shell, check) in
        [("bash", vec!["-n"]), ("zsh", vec!["-n"]), ("fish", vec!["--no-execute"])]
    {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = text(&output.stdout);
        for word in ["preflight", "status", "accept-warnings", "spki-pins"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        std::fs::write(&file, script).unwrap();
        // zsh and fish are rarely there; bash is.
        match Command::new(shell).args(check).arg(&file).output() {
            Ok(output) => assert!(output.status.success(), "{}", text(&output.stderr)),
            Err(_) => assert_ne!(shell, "bash"),
        }
    }
}

#[test]
fn status_that_watches_outlives_a_cluster_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = agent(folder.path(), &["status", "--watch=1"]);
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let watching = Ended(command.spawn().unwrap());
    // Said once a look, and looked again.
    until("two looks", || {
        std::fs::read_to_string(&log).unwrap().matches("list agentstatuses").count() >= 2
    });
    drop(watching);
}

/// Makes the folder one that the agent can start with.
fn trust(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("channel-ca.pem"), pem).unwrap();
}

#[test]
fn a_log_that_goes_to_no_terminal_has_no_colours() {
    let folder = tempfile::tempdir().unwrap();
    trust(folder.path());
    let log = folder.path().join("log");
    let arguments = ["run", "--endpoint", "https://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let mut command = agent(folder.path(), &arguments);
    command.args(["--log-format", "text", "--trust-dir"]).arg(folder.path());
    command.stderr(File::create(&log).unwrap());
    let running = Ended(command.spawn().unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    until("it runs", || said().contains("starting"));
    assert!(!said().contains('\x1b'), "{}", said());
    drop(running);
}

#[test]
fn the_log_level_changes_while_the_agent_runs_and_a_wrong_one_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    trust(folder.path());
    let config = folder.path().join("config.yaml");
    let configure = |filter: &str| {
        let trust = folder.path().display();
        let text = format!(
            "endpoint: https://127.0.0.1:1\nlisten: 127.0.0.1:0\ntrustDir: {trust}\nlogFilter: {filter}\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    configure("info");
    let log = folder.path().join("log");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let mut command = agent(folder.path(), &arguments);
    command.stderr(File::create(&log).unwrap());
    let running = Ended(command.spawn().unwrap());
    let has = |words: &str| std::fs::read_to_string(&log).unwrap().contains(words);
    until("it runs", || has("starting"));
    let reload = |what: &str, words: &str| {
        until(what, || {
            let pid = running.0.id().to_string();
            Command::new("kill").args(["-HUP", &pid]).status().unwrap();
            has(words)
        });
    };
    configure("a=b=c");
    reload("a wrong filter is named", "the log filter stays as it is");
    configure("info,mendix_agent=debug");
    reload("a right one counts", r#""to":"info,mendix_agent=debug""#);
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A program that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
