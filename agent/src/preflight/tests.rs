//! Preflight against servers that fail in one way each.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::channel::tests::plane::{Ca, Manner, Plane};
use crate::config::{LogFormat, Route};

fn config(endpoint: &str, trust: &Path) -> Config {
    Config {
        endpoint: endpoint.parse().unwrap(),
        allow_public_endpoint: false,
        allow_loopback_endpoint: true,
        route: Route::default(),
        trust_dir: trust.into(),
        bootstrap_token_file: trust.join("token"),
        service_account_token_file: None,
        namespace: "mendix-agent".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        log_filter: "info".into(),
        log_format: LogFormat::Text,
    }
}

fn trust(ca: &Ca) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("channel-ca.pem"), &ca.pem).unwrap();
    std::fs::write(dir.path().join("root.json"), "{}").unwrap();
    std::fs::write(dir.path().join("consent-keys.json"), "{}").unwrap();
    dir
}

async fn report(plane: &Plane) -> Report {
    let dir = trust(&plane.ca);
    let config = config(&format!("https://{}", plane.address), dir.path());
    run(&config, Err("no kubeconfig".into())).await
}

fn result(report: &Report, name: &str) -> Verdict {
    check(report, name).result
}

fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap()
}

#[tokio::test]
async fn a_good_network_passes_and_a_missing_cluster_fails_alone() {
    let report = report(&Plane::start().await).await;
    for name in ["trust", "DNS", "private address", "TCP", "TLS"] {
        assert_eq!(result(&report, name), Verdict::Pass, "{name}: {:?}", check(&report, name));
    }
    assert!(check(&report, "TLS").detail.contains("channel CA"));
    assert_eq!(result(&report, "Kubernetes"), Verdict::Fail);
    for name in ["authentication", "clock", "permissions", "CRDs"] {
        assert_eq!(result(&report, name), Verdict::Skip, "{name}");
    }
    assert_eq!(report.exit(), Exit::PreflightFailed);
    assert_eq!(report.to_proto().result, "Failed");
}

#[tokio::test]
async fn an_interception_ca_is_named() {
    let manner = Manner { interceptor: Some(Ca::new("Proxy Root 7")), ..Manner::default() };
    let report = report(&Plane::with(manner).await).await;
    let tls = check(&report, "TLS");
    assert_eq!(tls.result, Verdict::Fail);
    assert!(tls.detail.contains("issued by CN=Proxy Root 7"), "{}", tls.detail);
    assert!(tls.remedy.contains("TLS interception"), "{}", tls.remedy);
}

#[tokio::test]
async fn what_follows_a_failed_layer_is_skipped_with_its_reason() {
    let dir = trust(&Ca::new("any"));
    let config = config("https://8.8.8.8", dir.path());
    let report = run(&config, Err("no kubeconfig".into())).await;
    assert_eq!(result(&report, "DNS"), Verdict::Pass);
    assert_eq!(result(&report, "private address"), Verdict::Fail);
    for name in ["TCP", "TLS"] {
        let check = check(&report, name);
        assert_eq!(check.result, Verdict::Skip);
        assert_eq!(check.detail, "not checked: private address failed");
    }
}

#[tokio::test]
async fn a_trust_folder_says_what_it_lacks() {
    let dir = trust(&Ca::new("any"));
    std::fs::remove_file(dir.path().join("root.json")).unwrap();
    let config = config("https://10.0.0.1", dir.path());
    let checked = network::trust(&config).check;
    assert_eq!(checked.result, Verdict::Fail);
    assert!(checked.detail.ends_with("no root.json"), "{}", checked.detail);
    std::fs::write(dir.path().join("channel-ca.pem"), "not PEM").unwrap();
    let checked = network::trust(&config).check;
    assert!(checked.detail.contains("no CA certificate in it"), "{}", checked.detail);
}

#[test]
fn the_worst_check_decides_and_a_skip_does_not() {
    let check = |result| Check::new("x", result, "", "");
    for (results, exit) in [
        (vec![Verdict::Pass, Verdict::Skip], Exit::Success),
        (vec![Verdict::Pass, Verdict::Warn], Exit::Warned),
        (vec![Verdict::Warn, Verdict::Fail, Verdict::Pass], Exit::PreflightFailed),
    ] {
        let report = Report { checks: results.into_iter().map(check).collect() };
        assert_eq!(report.exit(), exit);
    }
}

#[test]
fn the_table_ends_with_the_remedies_and_json_says_the_same() {
    let report = Report {
        checks: vec![
            Check::pass("DNS", "agents.example:443 is 10.0.0.4"),
            Check::new("TCP", Verdict::Fail, "TCP: 10.0.0.4 can't be reached", "open the port"),
        ],
    };
    let table = report.table();
    assert!(table.ends_with("\n\nTCP (Fail):\n  open the port\n"), "{table}");
    assert!(table.contains("agents.example:443 is 10.0.0.4"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["result"], "Failed");
    assert_eq!(json["checks"][1]["result"], "Fail");
    assert_eq!(json["checks"][1]["remedy"], "open the port");
}
