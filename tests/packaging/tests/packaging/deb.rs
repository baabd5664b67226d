//! The Debian package, built as `packaging/deb/build.sh` does, from a debug build.

use std::process::Command;

use crate::files::root;

fn text(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, words) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{command:?}: {words}");
    String::from_utf8(out).unwrap()
}

#[test]
fn the_package_holds_the_program_the_unit_and_what_they_need() {
    let cache = mendix_test_kit::assets::cache_folder().unwrap();
    if !cache.join("tools/bin/cargo-deb").is_file() {
        // Compiling it takes minutes: not something that a test does unasked.
        mendix_test_kit::skip(
            "cargo-deb is not in the cache; packaging/deb/build.sh puts it there",
        );
        return;
    }
    let build = root().join("packaging/deb/build.sh");
    let package = text(Command::new(build).args(["--profile", "dev"]));
    let list = text(Command::new("dpkg-deb").args(["--contents", package.trim()]));
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

    let about = text(Command::new("dpkg-deb").args(["--field", package.trim()]));
    assert!(about.contains(&format!("Version: {}", env!("CARGO_PKG_VERSION"))), "{about}");
    for needed in ["systemd (>= 252)", "init-system-helpers", "libc6"] {
        assert!(about.contains(needed), "{needed} is no dependency:\n{about}");
    }
    let folder = tempfile::tempdir().unwrap();
    text(Command::new("dpkg-deb").args(["--control", package.trim()]).arg(folder.path()));
    for script in ["postinst", "prerm", "postrm"] {
        text(Command::new("sh").arg("-n").arg(folder.path().join(script)));
    }
}
