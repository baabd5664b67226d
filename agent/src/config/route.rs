//! How the control plane is reached: through which proxy, and by which key it is known.
//!
//! | key | without it |
//! |---|---|
//! | `proxy` | `HTTPS_PROXY`, then `https_proxy`; `direct` turns both off |
//! | `noProxy` | `NO_PROXY`, then `no_proxy` |
//! | `proxyCredentialsFile` | user and password of the proxy's URL, if it has any |
//! | `caBundleFile` | needed only for an `https://` proxy |
//! | `serverSpkiPins` | needed only through a proxy |
//!
//! This concerns the channel alone: the Kubernetes API is never reached through a proxy of the
//! environment.

use std::path::PathBuf;

use mendix_agent_core::session::NoProxy;
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::{
    ConfigError, Source, Sources,
    sources::{CA_BUNDLE, Key, NO_PROXY, PROXY, PROXY_CREDENTIALS, SERVER_PINS},
    values::absolute,
};
use crate::channel::dial::KeyPin;

/// Word that turns proxies of the environment off.
const DIRECT: &str = "direct";
/// Most pins: the key in use, its successor, and room for mistakes.
const MAX_PINS: usize = 8;

/// How the control plane is reached.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Proxy to go through.
    pub proxy: Option<Proxy>,
    /// Endpoints that are reached without it.
    pub no_proxy: NoProxy,
    /// Keys of the control plane, one of which its certificate must have; empty for any key that the
    /// channel CA vouches for.
    pub pins: Vec<KeyPin>,
}

/// An HTTP CONNECT proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// CA certificates for an `https://` proxy, PEM; `None` for `http://`.
    pub ca_bundle: Option<PathBuf>,
    /// Who the agent is to it.
    pub credentials: Option<ProxyCredentials>,
}

/// User and password for Basic authentication.
#[derive(Clone, Debug)]
pub enum ProxyCredentials {
    /// `user:password` as it stood in the URL.
    Given(SecretString),
    /// A file that holds `user:password`, read at each dial.
    File(PathBuf),
}

impl Sources<'_> {
    /// Puts the route together.
    ///
    /// # Errors
    /// The first value that can't be used. The text of a proxy's URL is never repeated: it may hold
    /// a password.
    pub(super) fn route(&self) -> Result<Route, ConfigError> {
        let proxy = match self.find_or_inherit(&PROXY, &["HTTPS_PROXY", "https_proxy"]) {
            Some((text, _)) if text == DIRECT => None,
            Some((text, from)) => Some(self.proxy(&text, &from)?),
            None => None,
        };
        let no_proxy = self.find_or_inherit(&NO_PROXY, &["NO_PROXY", "no_proxy"]);
        Ok(Route {
            proxy,
            no_proxy: no_proxy.map(|(list, _)| NoProxy::parse(&list)).unwrap_or_default(),
            pins: self.parsed(&SERVER_PINS, Some(""), pins)?,
        })
    }

    fn proxy(&self, text: &str, from: &Source) -> Result<Proxy, ConfigError> {
        let refuse = |problem| ConfigError::Proxy { from: from.clone(), problem };
        let (mut proxy, secure) = proxy(text).map_err(refuse)?;
        if self.find(&PROXY_CREDENTIALS).is_some() {
            let file = self.parsed(&PROXY_CREDENTIALS, None, absolute)?;
            proxy.credentials = Some(ProxyCredentials::File(file));
        }
        if secure {
            proxy.ca_bundle = Some(self.parsed(&CA_BUNDLE, None, absolute)?);
        }
        Ok(proxy)
    }

    /// A key, or else the first of the usual variables that is not empty.
    fn find_or_inherit(&self, key: &Key, names: &[&str]) -> Option<(String, Source)> {
        self.find(key).or_else(|| {
            names.iter().find_map(|name| {
                let value = (self.env)(name).filter(|value| !value.is_empty())?;
                Some((value, Source::Environment((*name).to_owned())))
            })
        })
    }
}

/// Reads `http[s]://[user:password@]host[:port]`, or `host:port` as Go does; tells whether it is
/// reached by TLS.
fn proxy(text: &str) -> Result<(Proxy, bool), &'static str> {
    let expected = "expected http://HOST:PORT, https://HOST:PORT or direct";
    let url =
        if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.map_err(|_| expected)?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let secure = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(expected),
    };
    let (Some(host), Some(port), true) = (url.host_str(), url.port_or_known_default(), bare) else {
        return Err(expected);
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let (user, password) =
            (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        ProxyCredentials::Given(SecretString::from(format!("{user}:{password}")))
    });
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok((Proxy { host, port, ca_bundle: None, credentials }, secure))
}

fn pins(text: &str) -> Result<Vec<KeyPin>, String> {
    let pins = text
        .split(',')
        .map(str::trim)
        .filter(|pin| !pin.is_empty())
        .map(str::parse)
        .collect::<Result<Vec<KeyPin>, _>>()
        .map_err(|expected| format!("{expected}, several separated by commas"))?;
    if pins.len() > MAX_PINS {
        return Err(format!("expected at most {MAX_PINS} pins"));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::{super::Layer, *};

    const PIN: &str = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn route(layer: Layer, env: &[(&str, &str)]) -> Result<Route, ConfigError> {
        let env = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Sources { flags: &layer, env: &env, file: None }.route()
    }

    fn proxy_of(text: &str) -> Result<Route, ConfigError> {
        route(
            Layer {
                proxy: Some(text.into()),
                ca_bundle_file: Some("/ca.pem".into()),
                ..Layer::default()
            },
            &[],
        )
    }

    #[test]
    fn a_proxy_is_a_url_or_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://proxy.bank:3128", "proxy.bank", 3128),
            ("http://proxy.bank", "proxy.bank", 80),
            ("https://proxy.bank", "proxy.bank", 443),
            ("proxy.bank:3128", "proxy.bank", 3128),
            ("http://[fd00::1]:3128/", "fd00::1", 3128),
            ("10.0.0.9:3128", "10.0.0.9", 3128),
        ] {
            let proxy = proxy_of(text).unwrap().proxy.unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
            assert_eq!(proxy.ca_bundle.is_some(), text.starts_with("https"), "{text}");
        }
        for bad in ["", "socks5://proxy.bank:1080", "http://proxy.bank/path", "http://", "://"] {
            let error = proxy_of(bad).unwrap_err();
            assert!(error.to_string().contains("expected http://HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let route = proxy_of("http://agent:s3cr%3At@proxy.bank:3128").unwrap();
        assert!(!format!("{route:?}").contains("s3cr"), "{route:?}");
        let Some(ProxyCredentials::Given(pair)) = route.proxy.unwrap().credentials else {
            panic!("no credentials")
        };
        assert_eq!(pair.expose_secret(), "agent:s3cr:t");
        let error = proxy_of("ftp://agent:s3cret@proxy.bank").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }

    #[test]
    fn a_credentials_file_wins_over_the_url() {
        let layer = Layer {
            proxy: Some("http://old:pair@proxy.bank:3128".into()),
            proxy_credentials_file: Some("/run/proxy".into()),
            ..Layer::default()
        };
        let credentials = route(layer, &[]).unwrap().proxy.unwrap().credentials;
        assert!(matches!(credentials, Some(ProxyCredentials::File(path)) if path == *"/run/proxy"));
    }

    #[test]
    fn the_usual_variables_count_unless_the_keys_say_otherwise() {
        let env =
            [("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:2"), ("no_proxy", "x.y")];
        let found = route(Layer::default(), &env).unwrap();
        assert_eq!(found.proxy.unwrap().host, "a");
        assert!(found.no_proxy.matches("z.x.y", 443));
        let lower = [("HTTPS_PROXY", ""), ("https_proxy", "http://b:2")];
        assert_eq!(route(Layer::default(), &lower).unwrap().proxy.unwrap().host, "b");
        let other = [("HTTP_PROXY", "http://c:3"), ("ALL_PROXY", "http://d:4")];
        assert!(route(Layer::default(), &other).unwrap().proxy.is_none());
        let layer = Layer { proxy: Some("direct".into()), ..Layer::default() };
        assert!(route(layer, &env).unwrap().proxy.is_none());
        let error = route(Layer::default(), &[("HTTPS_PROXY", "socks5://p:1")]).unwrap_err();
        assert!(error.to_string().contains("environment variable HTTPS_PROXY"), "{error}");
    }

    #[test]
    fn an_https_proxy_needs_its_ca() {
        let layer = Layer { proxy: Some("https://proxy.bank".into()), ..Layer::default() };
        let error = route(layer, &[]).unwrap_err();
        assert!(error.to_string().starts_with("caBundleFile is not set"), "{error}");
    }

    #[test]
    fn pins_are_a_list() {
        let pins = |text: &str| {
            route(Layer { server_spki_pins: Some(text.into()), ..Layer::default() }, &[])
        };
        assert_eq!(pins(&format!("{PIN}, {PIN}")).unwrap().pins.len(), 2);
        assert!(pins("").unwrap().pins.is_empty());
        assert!(pins("sha256/short").unwrap_err().to_string().contains("Base64 of 32 bytes"));
        assert!(pins(&[PIN; 9].join(",")).is_err());
    }
}
