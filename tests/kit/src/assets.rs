//! The Kubernetes programs that the kit starts: found, or built from Debian packages.
//!
//! For an API server alone: `KUBEBUILDER_ASSETS` (the envtest convention: a folder with
//! kube-apiserver and etcd) wins, so that tests can meet a newer server. Everything else comes from
//! the cache (`$MENDIX_AGENT_CACHE`, else `$XDG_CACHE_HOME/mendix-agent`, else
//! `~/.cache/mendix-agent`), where `tests/cluster/build.sh` puts it once.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use thiserror::Error;

use crate::{process::tail, progress::Progress};

/// The recipe, carried along so that a test binary works from any folder.
const BUILD_SCRIPT: &str = include_str!("../../cluster/build.sh");
/// The line of the script that names its result.
const RECIPE_LINE: &str = "RECIPE=";
/// The file that the script writes last.
const COMPLETE: &str = "complete";

const ALTERNATIVES: &str = "What else works: run as root on Debian 12 (missing tools are then \
installed), or install the named tools yourself; set KUBEBUILDER_ASSETS to a folder with \
kube-apiserver and etcd (tests that need only an API server); for the demo, KUBECONFIG or --context \
names an existing cluster";

/// Why there are no Kubernetes programs.
#[derive(Debug, Error)]
pub enum AssetError {
    /// `KUBEBUILDER_ASSETS` points at something else.
    #[error("KUBEBUILDER_ASSETS is {}, but {missing} is not there", folder.display())]
    Envtest {
        /// The folder.
        folder: PathBuf,
        /// The missing program.
        missing: &'static str,
    },
    /// No place for the cache.
    #[error("no cache folder: HOME is not set; set MENDIX_AGENT_CACHE")]
    NoHome,
    /// The cache can't be written.
    #[error("can't write {} in the cache folder; set MENDIX_AGENT_CACHE", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The build could not start.
    #[error("can't run bash to build Kubernetes")]
    NoShell(#[source] io::Error),
    /// The build failed.
    #[error("building Kubernetes failed ({status}); log {}:\n{tail}\n{ALTERNATIVES}", log.display())]
    Build {
        /// How the script ended.
        status: ExitStatus,
        /// What it printed to standard error.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Assets {
    bin: PathBuf,
    node: Option<PathBuf>,
}

impl Assets {
    /// kube-apiserver and etcd: those of `KUBEBUILDER_ASSETS`, else the built ones.
    ///
    /// Blocks for minutes when it must build.
    ///
    /// # Errors
    /// [`AssetError`], which lists the alternatives.
    pub fn for_api_server(progress: &Progress) -> Result<Self, AssetError> {
        match env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
            Some(folder) => Self::envtest(PathBuf::from(folder)),
            None => Self::built(progress),
        }
    }

    /// The whole set, with controllers, kubelet, containerd and kubectl: always the built ones.
    ///
    /// Blocks for minutes when it must build.
    ///
    /// # Errors
    /// [`AssetError`], which lists the alternatives.
    pub fn built(progress: &Progress) -> Result<Self, AssetError> {
        let cache = cache_folder()?;
        let set = cache.join(format!("kube-{}", recipe()));
        if !set.join(COMPLETE).is_file() {
            build(&cache, &set, progress)?;
        }
        Ok(Self { bin: set.join("bin"), node: Some(set.join("node")) })
    }

    fn envtest(folder: PathBuf) -> Result<Self, AssetError> {
        for missing in ["kube-apiserver", "etcd"] {
            if !folder.join(missing).is_file() {
                return Err(AssetError::Envtest { folder, missing });
            }
        }
        Ok(Self { bin: folder, node: None })
    }

    /// A program of the control plane or `kubectl`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The folder of containerd, runc, busybox and the CNI plugins; `None` for envtest folders.
    #[must_use]
    pub fn node_folder(&self) -> Option<&Path> {
        self.node.as_deref()
    }
}

/// The folder that outlives builds of the project: the programs, the kit's state.
///
/// # Errors
/// [`AssetError::NoHome`].
pub fn cache_folder() -> Result<PathBuf, AssetError> {
    cache_folder_in(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn cache_folder_in(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, AssetError> {
    if let Some(own) = variable("MENDIX_AGENT_CACHE") {
        return Ok(PathBuf::from(own));
    }
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        // The base directory specification ignores relative paths.
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.map(|base| base.join("mendix-agent")).ok_or(AssetError::NoHome)
}

/// What the script builds, such as `1.20.2-r1`: part of the folder's name, so that a changed recipe
/// never meets an old result.
fn recipe() -> &'static str {
    BUILD_SCRIPT.lines().find_map(|line| line.strip_prefix(RECIPE_LINE)).unwrap_or("unnamed")
}

fn build(cache: &Path, set: &Path, progress: &Progress) -> Result<(), AssetError> {
    let cache_error = |path: &Path| {
        let path = path.to_owned();
        move |source| AssetError::Cache { path, source }
    };
    fs::create_dir_all(cache).map_err(cache_error(cache))?;
    // A log of its own: of several callers one builds while the others wait in the script.
    let log = cache.join(format!("kube-{}-{}.build.log", recipe(), std::process::id()));
    let errors = File::create(&log).map_err(cache_error(&log))?;
    progress.say("building Kubernetes from Debian packages (once, about 5 minutes)");
    let mut child = Command::new("bash")
        .args(["-c", BUILD_SCRIPT, "build.sh"])
        .arg(set)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(AssetError::NoShell)?;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let Ok(line) = line else { break };
        progress.say(format!("building Kubernetes {line}"));
    }
    let status = child.wait().map_err(AssetError::NoShell)?;
    if status.success() {
        let _ = fs::remove_file(&log);
        Ok(())
    } else {
        Err(AssetError::Build { status, tail: tail(&log), log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(variables: &[(&str, &str)]) -> Result<PathBuf, AssetError> {
        cache_folder_in(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_the_variables_say() {
        let all = [("MENDIX_AGENT_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(folder(&all).unwrap(), Path::new("/a"));
        assert_eq!(folder(&all[1..]).unwrap(), Path::new("/b/mendix-agent"));
        assert_eq!(folder(&all[2..]).unwrap(), Path::new("/c/.cache/mendix-agent"));
        let relative = [("XDG_CACHE_HOME", "b"), ("HOME", "/c")];
        assert_eq!(folder(&relative).unwrap(), Path::new("/c/.cache/mendix-agent"));
        assert!(matches!(folder(&[]), Err(AssetError::NoHome)));
    }

    #[test]
    fn the_recipe_names_its_result() {
        let (version, revision) = recipe().split_once("-r").unwrap();
        assert_eq!(version.split('.').count(), 3);
        revision.parse::<u32>().unwrap();
    }

    #[test]
    fn an_envtest_folder_without_etcd_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kube-apiserver"), "").unwrap();
        let error = Assets::envtest(folder.path().to_owned()).unwrap_err();
        assert!(error.to_string().ends_with("but etcd is not there"), "{error}");
    }
}
