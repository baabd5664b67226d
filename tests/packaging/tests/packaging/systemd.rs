//! The unit, the user and the folders, judged by systemd's own programs (Debian package systemd).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use mendix_agent::{
    config::{Layer, Sources},
    console::Exit,
};

use crate::files::{read, root};

const UNIT: &str = "systemd/mendix-agent.service";
/// Ten times the exposure that `systemd-analyze security` may find: what is left is the network, the
/// socket to systemd and host figures from /proc.
const MOST_EXPOSURE: u32 = 12;

/// Runs a program; nothing after a SKIP where it is missing or too old.
fn output(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new(program).args(arguments).env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8(text).unwrap()))
        }
        Err(error) => {
            mendix_test_kit::skip(&format!("{program} is missing (package systemd): {error}"));
            None
        }
    }
}

/// `--offline` and credentials are known since 250.
fn new_enough() -> Option<()> {
    let (_, text) = output("systemd-analyze", &["--version"])?;
    let version: u32 = text.split_whitespace().nth(1)?.parse().ok()?;
    if version < 250 {
        mendix_test_kit::skip(&format!("systemd {version} is too old to judge the unit"));
        return None;
    }
    Some(())
}

/// The unit with a program that is there, so that all else can be judged.
fn unit_in(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let path = folder.join("mendix-agent.service");
    std::fs::write(&path, change(read(UNIT)).replace("=/usr/bin/mendix-agent run", "=/bin/true"))
        .unwrap();
    path
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let Some(()) = new_enough() else { return };
    let folder = tempfile::tempdir().unwrap();
    let verify = |path: &Path| output("systemd-analyze", &["verify", path.to_str().unwrap()]);
    let (passed, words) = verify(&unit_in(folder.path(), |unit| unit)).unwrap();
    assert!(passed && words.is_empty(), "{words}");
    // It does say something about a line that it does not understand.
    let wrong = unit_in(folder.path(), |unit| unit.replace("WatchdogSec=60s", "WatchdogSec=soon"));
    assert!(verify(&wrong).unwrap().1.contains("Failed to parse"));
}

#[test]
fn the_unit_exposes_the_machine_as_little_as_it_says() {
    let Some(()) = new_enough() else { return };
    let folder = tempfile::tempdir().unwrap();
    let security = |path: &Path| {
        let threshold = format!("--threshold={MOST_EXPOSURE}");
        output(
            "systemd-analyze",
            &["security", "--offline=true", &threshold, "--no-pager", path.to_str().unwrap()],
        )
        .unwrap()
    };
    let (passed, words) = security(&unit_in(folder.path(), |unit| unit));
    assert!(passed, "{words}");
    let open = unit_in(folder.path(), |unit| unit.replace("CapabilityBoundingSet=\n", "\n"));
    assert!(!security(&open).0, "a unit that keeps its capabilities passes as well");
}

#[test]
fn the_agent_reads_what_the_unit_hands_over() {
    let unit = read(UNIT);
    let credentials = "/run/credentials/mendix-agent.service";
    let variables: Vec<(String, String)> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%d", credentials)))
        .collect();
    let env = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name)?;
        Some(found.1.clone())
    };
    let flags = Layer { endpoint: Some("https://10.20.0.4:8443".into()), ..Layer::default() };
    let config = Sources::read(&flags, &env, None).unwrap().resolve().unwrap();
    assert_eq!(config.bootstrap_token_file, Path::new(credentials).join("bootstrap-token"));
    assert!(config.listen.ip().is_loopback(), "a virtual machine has no pod network around it");
    for credential in ["kubeconfig", "bootstrap-token"] {
        assert!(unit.contains(&format!("LoadCredential={credential}:/etc/mendix-agent/")));
    }
    assert!(env("KUBECONFIG").unwrap().ends_with("/kubeconfig"));
    // As the image has it.
    for (name, value) in mendix_agent_image::agent::HEAPS {
        assert_eq!(env(name).as_deref(), Some(value));
        assert!(read("packaging/image/Dockerfile").contains(&format!("\nENV {name}={value}\n")));
    }

    // Starting again does not help against wrong arguments (clap's 2) and a wrong configuration.
    let line = unit.lines().find_map(|l| l.strip_prefix("RestartPreventExitStatus=")).unwrap();
    let config: std::process::ExitCode = Exit::Config.into();
    assert_eq!(format!("{config:?}"), format!("{:?}", std::process::ExitCode::from(3)));
    assert_eq!(line, "2 3");
}

#[test]
fn the_package_makes_one_user_without_a_shell_and_folders_that_hide_what_is_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let at = format!("--root={}", folder.path().display());
    std::fs::create_dir_all(folder.path().join("etc/mendix-agent")).unwrap();
    for secret in ["kubeconfig", "bootstrap-token"] {
        let path = folder.path().join("etc/mendix-agent").join(secret);
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let config = |name: &str| root().join("packaging/deb").join(name);
    let users = config("sysusers.conf");
    let Some((passed, words)) = output("systemd-sysusers", &[&at, users.to_str().unwrap()]) else {
        return;
    };
    assert!(passed, "{words}");
    let passwd = std::fs::read_to_string(folder.path().join("etc/passwd")).unwrap();
    let entry = passwd.lines().find(|line| line.starts_with("mendix-agent:")).unwrap();
    assert!(entry.ends_with(":/usr/sbin/nologin"), "{entry}");

    let modes = config("tmpfiles.conf");
    if is_root() {
        let (passed, words) =
            output("systemd-tmpfiles", &[&at, "--create", modes.to_str().unwrap()]).unwrap();
        assert!(passed, "{words}");
        let mode = |name: &str| {
            let path = folder.path().join("etc/mendix-agent").join(name);
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode("trust"), 0o755);
        assert_eq!((mode("kubeconfig"), mode("bootstrap-token")), (0o600, 0o600));
    } else {
        mendix_test_kit::skip("only root can give files to root");
    }
}

/// Files of root can be made by root alone.
fn is_root() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let owner = std::fs::metadata(folder.path()).unwrap();
    std::os::unix::fs::MetadataExt::uid(&owner) == 0
}
