//! The Debian package, built as `packaging/deb/build.sh` does, from a debug build.

use std::process::Command;

use mendix_test_kit::deb::{self, DebError};

use crate::files::program;

fn text(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, words) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{command:?}: {words}");
    String::from_utf8(out).unwrap()
}

#[test]
fn the_package_holds_the_program_the_unit_and_what_they_need() {
    let built = {
        let _alone = program();
        deb::build()
    };
    let package = match built {
        Ok(package) => package,
        Err(error @ DebError::NoBuilder) => {
            mendix_test_kit::skip(&error.to_string());
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let list = text(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let has = |mode: &str, path: &str| {
        let found = list.lines().find(|line| line.ends_with(&format!(" .{path}")));
        let line = found.unwrap_or_else(|| panic!("{path} is not in the package:\n{list}"));
        assert!(line.starts_with(mode), "{line}");
        assert!(line.contains(" 0/0 "), "not root's: {line}");
    };
    has("-rwxr-xr-x", "/usr/bin/mendix-agent");
    has("-rw-r--r--", "/usr/lib/systemd/system/mendix-agent.service");
    has("-rw-r--r--", "/usr/lib/sysusers.d/mendix-agent.conf");
    has("-rw-r--r--", "/usr/lib/tmpfiles.d/mendix-agent.conf");
    has("-rw-r--r--", "/usr/share/doc/mendix-agent/examples/config.yaml");
    // The page that the unit's Documentation= names.
    has("-rw-r--r--", "/usr/share/doc/mendix-agent/operations.md");
    // Nothing of the configuration is the package's: upgrades never ask about it.
    assert!(!list.contains(" ./etc/"), "{list}");

    let about = text(Command::new("dpkg-deb").arg("--field").arg(&package));
    assert!(about.contains(&format!("Version: {}", env!("CARGO_PKG_VERSION"))), "{about}");
    for needed in ["systemd (>= 252)", "init-system-helpers", "libc6"] {
        assert!(about.contains(needed), "{needed} is no dependency:\n{about}");
    }
    let folder = tempfile::tempdir().unwrap();
    text(Command::new("dpkg-deb").arg("--control").arg(&package).arg(folder.path()));
    for script in ["postinst", "prerm", "postrm"] {
        text(Command::new("sh").arg("-n").arg(folder.path().join(script)));
    }
}
