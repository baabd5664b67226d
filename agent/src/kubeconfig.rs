//! Where the Kubernetes API is: a kubeconfig, or the pod's service account.

use http::Uri;
use kube::{Config, config::InferConfigError};

/// As kube finds it, but never through a proxy of the environment.
///
/// # Errors
/// When there is neither a usable kubeconfig nor a service account.
pub async fn infer() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    if inherited(config.proxy_url.as_ref(), |name| std::env::var(name).ok()) {
        config.proxy_url = None;
    }
    Ok(config)
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
