//! Where the Kubernetes API is: a kubeconfig, or the pod's service account.
//!
//! The files are read in `kubeconfig/files.rs`; what is in them is kube's to understand.

mod files;

use http::Uri;
use kube::{
    Config,
    config::{InClusterError, KubeConfigOptions, KubeconfigError},
};

pub use files::FileError;

/// Neither a kubeconfig nor a service account can be used.
#[derive(Debug, thiserror::Error)]
#[error("no service account ({in_cluster}), and no kubeconfig")]
pub struct NoAccess {
    in_cluster: Box<InClusterError>,
    /// The one that a person may have got wrong.
    #[source]
    kubeconfig: NoKubeconfig,
}

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
enum NoKubeconfig {
    /// Its files can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in them names no cluster that can be reached.
    #[error(transparent)]
    Content(#[from] KubeconfigError),
}

/// The current context of the kubeconfig, else the pod's service account; but never through a proxy of the
/// environment.
///
/// # Errors
/// When there is neither.
pub async fn infer() -> Result<Config, NoAccess> {
    let mut config = match of_files().await {
        Ok(config) => config,
        Err(kubeconfig) => Config::incluster()
            .map_err(|in_cluster| NoAccess { in_cluster: Box::new(in_cluster), kubeconfig })?,
    };
    if inherited(config.proxy_url.as_ref(), |name| std::env::var(name).ok()) {
        config.proxy_url = None;
    }
    Ok(config)
}

async fn of_files() -> Result<Config, NoKubeconfig> {
    let merged = files::read(std::env::var_os("KUBECONFIG"), std::env::home_dir())?;
    Ok(Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await?)
}

/// Whether kube took the proxy from the environment. Those variables are for the way out of the
/// network; the API server is inside, also where NO_PROXY forgets to say so. A `proxy-url` of the
/// kubeconfig is not touched.
fn inherited(proxy: Option<&Uri>, env: impl Fn(&str) -> Option<String>) -> bool {
    let Some(proxy) = proxy else { return false };
    ["HTTPS_PROXY", "https_proxy"]
        .into_iter()
        .filter_map(env)
        .any(|value| value.parse::<Uri>().is_ok_and(|value| value == *proxy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_of_the_environment_is_not_for_kubernetes_and_one_of_the_kubeconfig_is() {
        let env = |name: &str| (name == "https_proxy").then(|| "http://proxy.bank:3128".to_owned());
        let given: Uri = "http://proxy.bank:3128".parse().unwrap();
        let own: Uri = "http://jump.bank:8080".parse().unwrap();
        assert!(inherited(Some(&given), env));
        assert!(!inherited(Some(&own), env));
        assert!(!inherited(None, env));
    }
}
