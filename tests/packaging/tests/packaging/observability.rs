//! Alert rules and dashboard, judged by promtool and run by a real Prometheus that scrapes the
//! agent's page.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use mendix_test_kit::{prometheus::Prometheus, wait::eventually_blocking};
use serde_json::Value;

use crate::files::{objects, read, root};

const RULES: &str = "packaging/observability/alerts.yaml";
const DASHBOARD: &str = "packaging/observability/dashboard.json";
const TESTS: &str = "tests/packaging/alerts.test.yaml";
/// What the agent's own tests hold equal to its `/metrics`.
const PAGE: &str = "agent/src/metrics/page.txt";
const DEADLINE: Duration = Duration::from_secs(240);

fn prometheus() -> Option<Prometheus> {
    match Prometheus::find() {
        Ok(found) => Some(found),
        Err(error) => {
            mendix_test_kit::skip(&format!("{error}: {:?}", std::error::Error::source(&error)));
            None
        }
    }
}

fn path(file: &str) -> String {
    root().join(file).canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// Title and expression of every query of the dashboard.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = vec![];
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            queries.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

/// Names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("mendix_agent_"))
        .map(str::to_owned)
        .collect()
}

fn on_the_page() -> BTreeSet<String> {
    let page = read(PAGE);
    let names = page.lines().filter(|line| !line.starts_with('#'));
    names.map(|line| line[..line.find(['{', ' ']).unwrap()].to_owned()).collect()
}

#[test]
fn rules_and_dashboard_ask_only_for_metrics_that_the_agent_has() {
    let exported = on_the_page();
    let rules = objects(&read(RULES)).remove(0);
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut asked: Vec<(String, String)> = queries();
    for rule in rules {
        let text = |key: &str| rule[key].as_str().unwrap().to_owned();
        asked.push((text("alert"), text("expr")));
    }
    assert!(asked.len() > 25, "{asked:?}");
    let mut used = BTreeSet::new();
    for (who, expression) in asked {
        let names = metrics_in(&expression);
        let unknown: Vec<_> = names.difference(&exported).collect();
        assert!(unknown.is_empty(), "{who} asks for {unknown:?}, which the agent does not have");
        used.extend(names);
    }
    let unused: Vec<_> = exported.difference(&used).collect();
    assert!(unused.is_empty(), "neither shown nor alerted on: {unused:?}");
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let rules = objects(&read(RULES)).remove(0);
    let tests = read(TESTS);
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(tests.contains(&format!("ALERTS{{alertname=\"{name}\"}}")), "{name} has no test");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let next = rule["annotations"]["description"].as_str().unwrap();
        assert!(next.len() > 40, "{name} does not say what to do");
    }
    let Some(prometheus) = prometheus() else { return };
    prometheus.promtool(&["check", "rules", &path(RULES)]).unwrap_or_else(|e| panic!("{e}"));
    prometheus.promtool(&["test", "rules", &path(TESTS)]).unwrap_or_else(|e| panic!("{e}"));
}

/// Answers every request with the agent's page, as the agent would.
fn serve(page: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; \
                        version=1.0.0; charset=utf-8\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        }
    });
    address
}

/// `GET path` of Prometheus's API; its `data`.
fn get(address: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    assert_ne!(body["status"], "error", "{path}: {body}");
    Some(body["data"].clone())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_real_prometheus_that_scrapes_the_agent_answers_every_query_of_the_dashboard() {
    let Some(prometheus) = prometheus() else { return };
    let page: &'static str = read(PAGE).leak();
    let agent = serve(page);
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("prometheus.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n\
         - job_name: agent\n  static_configs: [{{targets: ['{agent}'], labels: {{pod: a}}}}]\n",
        path(RULES)
    );
    std::fs::write(&configuration, text).unwrap();
    let mut server = prometheus.start(&configuration, folder.path()).unwrap();
    let mut up = || {
        server.check().unwrap();
        let data = get(server.address(), "/api/v1/query?query=up")?;
        (data["result"][0]["value"][1] == "1").then_some(())
    };
    eventually_blocking(DEADLINE, "Prometheus takes the page", &mut up).unwrap();
    for (panel, expression) in queries() {
        // Grafana's own variable: at least four scrapes.
        let expression = expression.replace("$__rate_interval", "30s");
        let query = format!("/api/v1/query?query={}", encoded(&expression));
        let what = format!("panel {panel} shows something for {expression}");
        eventually_blocking(DEADLINE, what, || {
            let data = get(server.address(), &query)?;
            (!data["result"].as_array()?.is_empty()).then_some(())
        })
        .unwrap();
    }
    // The rules, too, are evaluated without a fault.
    eventually_blocking(DEADLINE, "every rule was evaluated", || {
        let data = get(server.address(), "/api/v1/rules")?;
        let rules = data["groups"][0]["rules"].as_array()?.clone();
        let unknown = rules.iter().filter(|rule| rule["health"] != "ok").count();
        (!rules.is_empty() && unknown == 0).then_some(())
    })
    .unwrap();
}
