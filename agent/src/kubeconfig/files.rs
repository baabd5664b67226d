//! The files that a kubeconfig is made of: which they are, what each says, and where the paths in it lead.
//!
//! kube can do this, too, and makes a reader of YAML for each of the types that a kubeconfig has, which was
//! a good part of the YAML in the program. Here a document becomes a JSON value first, with the one reader
//! that the agent has for those, and a kubeconfig after that. So a value has the type that YAML gives it, as
//! for kubectl: `token: 123` is a number, and refused. And a kubeconfig holds credentials: where it is wrong is
//! told by line and column, without showing the text that stands there.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use kube::config::{Kubeconfig, KubeconfigError};
use serde::de::Error as _;
use serde_json::Value;

/// The files of a kubeconfig can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No file is named, and there is no place to look for one.
    #[error("KUBECONFIG names no file, and there is no home directory")]
    NoPlace,
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is no YAML.
    #[error("{} is no YAML: {problem}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A file is YAML, but no kubeconfig.
    #[error("{} is no kubeconfig", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Files contradict each other.
    #[error("{} does not go with the files before it", path.display())]
    Merge {
        /// The file that was added last.
        path: PathBuf,
        /// The cause.
        #[source]
        source: KubeconfigError,
    },
}

/// The files that `listed` names (KUBECONFIG), else `.kube/config` below `home`. As for kubectl, the first file that
/// says something wins.
///
/// # Errors
/// When one of them is missing or is no kubeconfig.
pub(super) fn read(
    listed: Option<OsString>,
    home: Option<PathBuf>,
) -> Result<Kubeconfig, FileError> {
    let listed = listed.unwrap_or_default();
    let mut paths: Vec<PathBuf> =
        std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if paths.is_empty() {
        paths.push(home.ok_or(FileError::NoPlace)?.join(".kube/config"));
    }
    let mut merged = Kubeconfig::default();
    for path in paths {
        for document in documents(&path)? {
            merged = merged
                .merge(document)
                .map_err(|source| FileError::Merge { path: path.clone(), source })?;
        }
    }
    Ok(merged)
}

/// What one file says. Its paths are relative to its folder; those that are returned are not.
fn documents(path: &Path) -> Result<Vec<Kubeconfig>, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Read { path: path.into(), source })?;
    let values: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        FileError::Yaml { path: path.into(), problem: error.without_snippet().to_string() }
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    values
        .into_iter()
        .map(|value| {
            let shape = |source| FileError::Shape { path: path.into(), source };
            if !value.is_object() {
                // What it is instead may be a token: a file that was named by mistake.
                return Err(shape(serde_json::Error::custom("it is not made of keys and values")));
            }
            Ok(based_on(folder, serde_json::from_value(value).map_err(shape)?))
        })
        .collect()
}

fn based_on(folder: &Path, mut config: Kubeconfig) -> Kubeconfig {
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        rebase(folder, &mut cluster.certificate_authority);
    }
    for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        rebase(folder, &mut user.client_certificate);
        rebase(folder, &mut user.client_key);
        rebase(folder, &mut user.token_file);
        // A command without a slash is looked up in PATH.
        if let Some(exec) = &mut user.exec
            && exec.command.as_ref().is_some_and(|command| command.contains('/'))
        {
            rebase(folder, &mut exec.command);
        }
    }
    config
}

/// An absolute path stays what it is.
fn rebase(folder: &Path, path: &mut Option<String>) {
    if let Some(path) = path {
        *path = folder.join(&*path).to_string_lossy().into_owned();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FIRST: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: one
  cluster:
    server: https://one.bank:6443
    certificate-authority: pki/ca.crt
    insecure-skip-tls-verify: false
contexts:
- name: one
  context: {cluster: one, user: one, namespace: apps}
users:
- name: one
  user:
    client-certificate: /etc/one.crt
    client-key: one.key
    tokenFile: ../token
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: bin/login
      args: [--tenant, bank]
      env: [{name: A, value: b}]
      interactiveMode: Never
";

    fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn one_file(text: &str) -> Result<Kubeconfig, FileError> {
        let folder = tempfile::tempdir().unwrap();
        read(Some(written(folder.path(), "config", text).into()), None)
    }

    #[test]
    fn a_file_is_read_as_kube_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "config", FIRST);
        let (ours, kubes) =
            (read(Some(path.clone().into()), None).unwrap(), Kubeconfig::read_from(&path).unwrap());
        assert_eq!(serde_json::to_value(&ours).unwrap(), serde_json::to_value(&kubes).unwrap());

        let at = |name: &str| Some(folder.path().join(name).to_str().unwrap().to_owned());
        let cluster = ours.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.certificate_authority, at("pki/ca.crt"));
        let user = ours.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.client_certificate.as_deref(), Some("/etc/one.crt"));
        assert_eq!((&user.client_key, &user.token_file), (&at("one.key"), &at("../token")));
        assert_eq!(user.exec.as_ref().unwrap().command, at("bin/login"));
    }

    #[test]
    fn a_command_without_a_folder_is_one_of_the_path() {
        let config = one_file(&FIRST.replace("bin/login", "login")).unwrap();
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.exec.as_ref().unwrap().command.as_deref(), Some("login"));
    }

    #[test]
    fn json_is_read_as_well() {
        let text = r#"{"clusters": [{"name": "j", "cluster": {"server": "https://j"}}], "current-context": "j"}"#;
        let config = one_file(text).unwrap();
        assert_eq!(
            (&*config.clusters[0].name, config.current_context.as_deref()),
            ("j", Some("j"))
        );
    }

    #[test]
    fn of_several_files_and_documents_the_first_that_says_something_wins() {
        let folder = tempfile::tempdir().unwrap();
        let first =
            written(folder.path(), "first", "current-context: a\n---\ncurrent-context: b\n");
        let second = written(folder.path(), "second", FIRST);
        let listed = std::env::join_paths([Path::new(""), &first, &second]).unwrap();
        let config = read(Some(listed), None).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("a"));
        assert_eq!(config.clusters[0].name, "one");
    }

    #[test]
    fn where_no_file_is_named_the_one_at_home_is_meant() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".kube")).unwrap();
        written(home.path(), ".kube/config", FIRST);
        for listed in [None, Some(OsString::new())] {
            let config = read(listed, Some(home.path().into())).unwrap();
            assert_eq!(config.current_context.as_deref(), Some("one"));
        }
        assert!(matches!(read(None, None), Err(FileError::NoPlace)));
        assert!(matches!(read(None, Some("/nowhere".into())), Err(FileError::Read { .. })));
    }

    #[test]
    fn what_is_wrong_is_told_without_what_stands_beside_it() {
        let error =
            one_file("users:\n- name: a\n  user: {token: open-sesame}\n  user: [\n").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, FileError::Yaml { .. }) && text.contains("line"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
        assert!(matches!(one_file("clusters: 1\n"), Err(FileError::Shape { .. })));
        let Err(FileError::Shape { source, .. }) = one_file("eyJhbGciOi\n") else { panic!("text") };
        assert!(!source.to_string().contains("eyJ"), "{source}");
        let mixed = "kind: Config\n---\nkind: Secret\n";
        assert!(matches!(one_file(mixed), Err(FileError::Merge { .. })));
    }

    #[test]
    fn a_number_is_no_token() {
        let text = "users: [{name: a, user: {token: 123}}]";
        assert!(matches!(one_file(text), Err(FileError::Shape { .. })));
        one_file(&text.replace("123", "'123'")).unwrap();
    }
}
