//! Preflight against servers that fail in one way each.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::channel::tests::plane::{Ca, Manner, Plane};
use crate::{
    channel::dial::KeyPin,
    config::{LogConfig, LogFormat, Proxy, Route},
};

fn config(endpoint: &str, trust: &Path) -> Config {
    Config {
        endpoint: endpoint.parse().unwrap(),
        allow_public_endpoint: false,
        allow_loopback_endpoint: true,
        route: Route::default(),
        trust_dir: trust.into(),
        bootstrap_token_file: trust.join("token"),
        service_account_token_file: None,
        identity_dir: None,
        namespace: "mendix-agent".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        upgrade_after: std::time::Duration::from_secs(600),
        log: LogConfig { filter: "info".into(), format: LogFormat::Text },
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
    for name in [
        "configuration",
        "trust",
        "DNS",
        "private address",
        "TCP",
        "proxy",
        "TLS",
        "TLS issuer",
        "TLS name and dates",
        "TLS pin",
        "TLS ALPN",
        "stream",
        "round trip",
        "clock",
    ] {
        assert_eq!(result(&report, name), Verdict::Pass, "{name}: {:?}", check(&report, name));
    }
    assert!(check(&report, "TLS issuer").detail.contains("channel CA"));
    assert_eq!(result(&report, "Kubernetes"), Verdict::Fail);
    for name in ["authentication", "permissions", "nodes", "CRDs"] {
        assert_eq!(result(&report, name), Verdict::Skip, "{name}");
    }
    assert_eq!(report.exit(), Exit::PreflightFailed);
    assert_eq!(report.to_proto().result, "Failed");
}

#[test]
fn a_token_file_with_more_than_a_token_fails_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("https://10.0.0.1", dir.path());
    for (content, result, says) in [
        (
            Some("Bootstrap token of a cluster:\nmxb-secret\n"),
            Verdict::Fail,
            "more than a bootstrap token",
        ),
        (Some("mxb-secret\n"), Verdict::Pass, "the agent enrols with the token"),
        (Some("\n"), Verdict::Fail, "there is no bootstrap token"),
        (None, Verdict::Fail, "there is no bootstrap token"),
    ] {
        match content {
            Some(content) => std::fs::write(&config.bootstrap_token_file, content).unwrap(),
            None => std::fs::remove_file(&config.bootstrap_token_file).unwrap(),
        }
        let check = service::unenrolled(&config, "not enrolled yet");
        assert_eq!(check.result, result, "{content:?}: {check:?}");
        assert!(check.detail.contains(says) && !check.detail.contains("secret"), "{check:?}");
    }
}

#[tokio::test]
async fn an_interception_ca_is_named() {
    let manner = Manner { interceptor: Some(Ca::new("Proxy Root 7")), ..Manner::default() };
    let report = report(&Plane::with(manner).await).await;
    let issuer = check(&report, "TLS issuer");
    assert_eq!(issuer.result, Verdict::Fail);
    assert!(issuer.detail.contains("issued by CN=Proxy Root 7"), "{}", issuer.detail);
    assert!(issuer.cause.contains("TLS interception"), "{}", issuer.cause);
    for name in ["TLS", "TLS pin", "TLS ALPN", "stream"] {
        assert_eq!(result(&report, name), Verdict::Skip, "{name}");
    }
}

#[tokio::test]
async fn what_follows_a_failed_layer_is_skipped_with_its_reason() {
    let dir = trust(&Ca::new("any"));
    let config = config("https://8.8.8.8", dir.path());
    let report = run(&config, Err("no kubeconfig".into())).await;
    assert_eq!(result(&report, "DNS"), Verdict::Pass);
    assert_eq!(result(&report, "private address"), Verdict::Fail);
    for name in ["TCP", "proxy", "TLS", "TLS ALPN"] {
        let check = check(&report, name);
        assert_eq!(check.result, Verdict::Skip);
        assert_eq!(check.detail, "not checked: private address failed");
    }
}

#[tokio::test]
async fn each_fault_of_tls_has_a_line_of_its_own() {
    let cases = [
        ("TLS ALPN", Manner { alpn: vec![], ..Manner::default() }),
        ("TLS name and dates", Manner { name: "other.example", ..Manner::default() }),
        ("TLS", Manner { version: &rustls::version::TLS12, ..Manner::default() }),
    ];
    for (name, manner) in cases {
        let report = report(&Plane::with(manner).await).await;
        let failed: Vec<&str> = report
            .checks
            .iter()
            .filter(|check| check.result == Verdict::Fail && check.name.starts_with("TLS"))
            .map(|check| check.name)
            .collect();
        assert_eq!(failed, [name], "{}", report.table());
        let check = check(&report, name);
        assert!(!check.cause.is_empty() && !check.remedy.is_empty(), "{check:?}");
    }
}

#[tokio::test]
async fn a_wrong_pin_is_a_line_of_its_own_and_a_right_one_is_shown() {
    let plane = Plane::start().await;
    let dir = trust(&plane.ca);
    let mut config = config(&format!("https://{}", plane.address), dir.path());
    config.route.pins = vec![plane.pin];
    let right = run(&config, Err("no kubeconfig".into())).await;
    assert_eq!(check(&right, "TLS pin").detail, format!("{}, as pinned", plane.pin));
    config.route.pins = vec![KeyPin::of(&Ca::new("any").der).unwrap()];
    let wrong = run(&config, Err("no kubeconfig".into())).await;
    assert_eq!(result(&wrong, "TLS pin"), Verdict::Fail, "{}", wrong.table());
    assert_eq!(result(&wrong, "TLS ALPN"), Verdict::Skip);
}

#[tokio::test]
async fn a_proxy_without_a_pin_fails_at_the_configuration_and_nothing_is_dialled() {
    let plane = Plane::start().await;
    let dir = trust(&plane.ca);
    let mut config = config("https://plane.example:8443", dir.path());
    let proxy = Proxy { host: "proxy.bank".into(), port: 3128, ca_bundle: None, credentials: None };
    config.route.proxy = Some(proxy);
    let report = run(&config, Err("no kubeconfig".into())).await;
    let line = check(&report, "configuration");
    assert_eq!(line.result, Verdict::Fail);
    assert!(line.remedy.contains("serverSpkiPins"), "{}", line.remedy);
    assert_eq!(check(&report, "DNS").detail, "not checked: configuration failed");
}

#[tokio::test]
async fn a_trust_folder_says_what_it_lacks() {
    let dir = trust(&Ca::new("any"));
    std::fs::remove_file(dir.path().join("root.json")).unwrap();
    let config = config("https://10.0.0.1", dir.path());
    let checked = trust::trust(&config).0;
    assert_eq!(checked.result, Verdict::Fail);
    assert!(checked.detail.ends_with("no root.json"), "{}", checked.detail);
    std::fs::write(dir.path().join("channel-ca.pem"), "not PEM").unwrap();
    let checked = trust::trust(&config).0;
    assert!(checked.detail.contains("no CA certificate in it"), "{}", checked.detail);
}

#[test]
fn the_worst_check_decides_and_a_skip_does_not() {
    let check = |result| Check::new("x", result, "", "", "");
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
            Check::new("TCP", Verdict::Fail, "TCP: 10.0.0.4 can't be reached", "a wall", "open it"),
        ],
    };
    let table = report.table();
    assert!(
        table.ends_with("\n\nTCP (Fail)\n  likely cause: a wall\n  what to do:   open it\n"),
        "{table}"
    );
    assert!(table.contains("agents.example:443 is 10.0.0.4"), "{table}");
    let json = report.body();
    assert_eq!(json["result"], "Failed");
    assert_eq!(json["checks"][1]["result"], "Fail");
    assert_eq!(json["checks"][1]["cause"], "a wall");
    assert_eq!(json["checks"][1]["remedy"], "open it");
    assert_eq!(findings(&report.to_proto()), ["TCP: TCP: 10.0.0.4 can't be reached; open it"]);
}
