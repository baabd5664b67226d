//! Configuration: a file, then environment variables, then flags; the last one that says something
//! wins. Every error names the key, where its value came from, and what would be accepted.
//!
//! ```yaml
//! # /etc/mendix-agent/config.yaml
//! endpoint: https://10.20.0.4:8443
//! trustDir: /etc/mendix-agent/trust
//! ```

mod route;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;
use url::{ParseError, Url};

pub use self::route::{Proxy, ProxyCredentials, Route};
use crate::logging;

/// Where the configuration file is looked for when no flag names one. It may be absent.
pub const DEFAULT_FILE: &str = "/etc/mendix-agent/config.yaml";
/// The agent's own namespace, unless it is told another.
pub const DEFAULT_NAMESPACE: &str = "mendix-agent";
/// kube-rs reports every answer that is not a success as an error, also the 404 that says that an object
/// is to be created; the callers tell those that matter.
const DEFAULT_LOG_FILTER: &str = "info,kube_client=off";
/// Longest time, in seconds, that a session may have to last before an upgrade: a day.
const MAX_UPGRADE_AFTER: u64 = 86_400;
/// Largest configuration file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// What the agent was told, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port` of the control plane's private endpoint.
    pub endpoint: Url,
    /// Accept addresses outside RFC 1918 and ULA. Off unless a customer decides otherwise.
    pub allow_public_endpoint: bool,
    /// Accept loopback addresses; for development and tests.
    pub allow_loopback_endpoint: bool,
    /// How it is reached: proxy and pins.
    pub route: Route,
    /// Folder with `root.json` (release root), `consent-keys.json` and `channel-ca.pem`.
    pub trust_dir: PathBuf,
    /// One-time enrolment token; read only while the agent has no identity.
    pub bootstrap_token_file: PathBuf,
    /// Projected ServiceAccount token for attestation at enrolment; absent outside a pod.
    pub service_account_token_file: Option<PathBuf>,
    /// Folder with an identity (`tls.crt`, `tls.key`, `ca.crt`) that somebody else keeps, such as
    /// cert-manager; without it the agent enrols and keeps its own.
    pub identity_dir: Option<PathBuf>,
    /// The agent's own namespace.
    pub namespace: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// How long a session has to last before a new version of the agent is tried.
    pub upgrade_after: Duration,
    /// The agent's own log.
    pub log: LogConfig,
}

/// What the guard was told, complete and checked: nothing of the control plane.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// The agent's own namespace.
    pub namespace: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// The guard's own log.
    pub log: LogConfig,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Which log lines are written: levels, for all and by the beginning of a target's name, such as
    /// `info,kube_client=off`.
    pub filter: String,
    /// How they are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// One way of saying things. Values are text until they are checked, so that a wrong one can be
/// reported with its source.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Layer {
    /// Private endpoint of the control plane, https://HOST:PORT.
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Accept endpoint addresses outside RFC 1918 and ULA (true or false).
    #[arg(long, global = true, value_name = "BOOL", hide_short_help = true)]
    pub allow_public_endpoint: Option<String>,
    /// Accept loopback endpoint addresses, for development (true or false).
    #[arg(long, global = true, value_name = "BOOL", hide_short_help = true)]
    pub allow_loopback_endpoint: Option<String>,
    /// HTTP CONNECT proxy for the channel, http://HOST:PORT, or "direct" for none; the default is
    /// HTTPS_PROXY. The Kubernetes API is never reached through it.
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub proxy: Option<String>,
    /// Endpoints to reach without the proxy, by the rules of Go; the default is NO_PROXY.
    #[arg(long, global = true, value_name = "LIST", hide_short_help = true)]
    pub no_proxy: Option<String>,
    /// File with user:password for the proxy, read at each dial.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub proxy_credentials_file: Option<String>,
    /// CA certificates (PEM) for a proxy that is itself reached by https.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub ca_bundle_file: Option<String>,
    /// Public keys the control plane may have, sha256/BASE64, separated by commas; required through a
    /// proxy.
    #[arg(long, global = true, value_name = "PINS", hide_short_help = true)]
    pub server_spki_pins: Option<String>,
    /// Folder with root.json, consent-keys.json and channel-ca.pem.
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub trust_dir: Option<String>,
    /// File with the one-time enrolment token.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub bootstrap_token_file: Option<String>,
    /// File with the projected ServiceAccount token (audience mendix-control-plane).
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub service_account_token_file: Option<String>,
    /// Folder with tls.crt, tls.key and ca.crt that somebody else keeps, such as cert-manager.
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub identity_dir: Option<String>,
    /// The agent's own namespace.
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, global = true, value_name = "ADDR:PORT", hide_short_help = true)]
    pub listen: Option<String>,
    /// How long a session has to last before a new version of the agent is tried, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", hide_short_help = true)]
    pub upgrade_after_seconds: Option<String>,
    /// Which log lines to write, such as "info" or "info,mendix_agent::patch=debug".
    #[arg(long, global = true, value_name = "FILTER", hide_short_help = true)]
    pub log_filter: Option<String>,
    /// How to write them: json or text.
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    pub log_format: Option<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag on the command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// The configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("built-in default"),
        }
    }
}

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than anything that makes sense.
    #[error("configuration file {} is larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error("configuration file {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and cause, from the YAML parser.
        message: String,
    },
    /// A key without which nothing works was given nowhere.
    #[error(
        "{key} is not set; give it as {key} in the configuration file, as {env} in the \
         environment, or as --{flag}"
    )]
    Missing {
        /// Name in the file.
        key: &'static str,
        /// Name of the environment variable.
        env: String,
        /// Name of the flag.
        flag: &'static str,
    },
    /// The proxy's URL can't be used. It is not repeated: it may hold a password.
    #[error("proxy from {from} can't be used: {problem}")]
    Proxy {
        /// Where it came from.
        from: Source,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value that can't be used.
    #[error("{key} from {from} is {value:?}: {expected}")]
    Invalid {
        /// Name in the file.
        key: &'static str,
        /// Where the value came from.
        from: Source,
        /// The value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
}

/// Names of one key on the three surfaces; the environment variable is derived.
struct Key {
    file: &'static str,
    flag: &'static str,
    of: fn(&Layer) -> &Option<String>,
}

macro_rules! keys {
    ($($constant:ident: $field:ident, $file:literal, $flag:literal;)*) => {
        $(const $constant: Key = Key { file: $file, flag: $flag, of: |layer| &layer.$field };)*
    };
}

keys! {
    ENDPOINT: endpoint, "endpoint", "endpoint";
    ALLOW_PUBLIC: allow_public_endpoint, "allowPublicEndpoint", "allow-public-endpoint";
    ALLOW_LOOPBACK: allow_loopback_endpoint, "allowLoopbackEndpoint", "allow-loopback-endpoint";
    PROXY: proxy, "proxy", "proxy";
    NO_PROXY: no_proxy, "noProxy", "no-proxy";
    PROXY_CREDENTIALS: proxy_credentials_file, "proxyCredentialsFile", "proxy-credentials-file";
    CA_BUNDLE: ca_bundle_file, "caBundleFile", "ca-bundle-file";
    SERVER_PINS: server_spki_pins, "serverSpkiPins", "server-spki-pins";
    TRUST_DIR: trust_dir, "trustDir", "trust-dir";
    BOOTSTRAP_TOKEN: bootstrap_token_file, "bootstrapTokenFile", "bootstrap-token-file";
    SERVICE_ACCOUNT_TOKEN: service_account_token_file, "serviceAccountTokenFile", "service-account-token-file";
    IDENTITY_DIR: identity_dir, "identityDir", "identity-dir";
    NAMESPACE: namespace, "namespace", "namespace";
    LISTEN: listen, "listen", "listen";
    UPGRADE_AFTER: upgrade_after_seconds, "upgradeAfterSeconds", "upgrade-after-seconds";
    LOG_FILTER: log_filter, "logFilter", "log-filter";
    LOG_FORMAT: log_format, "logFormat", "log-format";
}

impl Key {
    fn env(&self) -> String {
        format!("MENDIX_AGENT_{}", self.flag.to_uppercase().replace('-', "_"))
    }
}

/// All three sources, strongest first.
pub struct Sources<'a> {
    flags: &'a Layer,
    env: &'a dyn Fn(&str) -> Option<String>,
    file: Option<(PathBuf, Layer)>,
}

impl<'a> Sources<'a> {
    /// Reads the file: `path` when one was named (it must exist), else [`DEFAULT_FILE`] if there.
    ///
    /// # Errors
    /// When the file can't be read, is too large, or is not a map of known keys.
    pub fn read(
        flags: &'a Layer,
        env: &'a dyn Fn(&str) -> Option<String>,
        path: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_FILE));
        let read = |source| ConfigError::Read { path: path.into(), source };
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Self { flags, env, file: None });
            }
            Err(error) => return Err(read(error)),
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(ConfigError::TooLarge { path: path.into() });
            }
            Ok(_) => std::fs::read_to_string(path).map_err(read)?,
        };
        let layer = if text.trim().is_empty() {
            Layer::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| ConfigError::Parse {
                path: path.into(),
                message: error.to_string(),
            })?
        };
        Ok(Self { flags, env, file: Some((path.into(), layer)) })
    }

    fn find(&self, key: &Key) -> Option<(String, Source)> {
        if let Some(value) = (key.of)(self.flags) {
            return Some((value.clone(), Source::Flag(key.flag)));
        }
        if let Some(value) = (self.env)(&key.env()) {
            return Some((value, Source::Environment(key.env())));
        }
        let (path, layer) = self.file.as_ref()?;
        (key.of)(layer).clone().map(|value| (value, Source::File(path.clone())))
    }

    fn parsed<T>(
        &self,
        key: &Key,
        default: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (value, from) = match (self.find(key), default) {
            (Some(found), _) => found,
            (None, Some(default)) => (default.to_owned(), Source::Default),
            (None, None) => {
                return Err(ConfigError::Missing { key: key.file, env: key.env(), flag: key.flag });
            }
        };
        parse(&value).map_err(|expected| ConfigError::Invalid {
            key: key.file,
            from,
            value,
            expected,
        })
    }

    /// The namespace alone, for commands that only look at the cluster.
    ///
    /// # Errors
    /// When it is not a DNS label.
    pub fn namespace(&self) -> Result<String, ConfigError> {
        self.parsed(&NAMESPACE, Some(DEFAULT_NAMESPACE), dns_label)
    }

    /// Which log lines to write, alone: it may change while the agent runs.
    ///
    /// # Errors
    /// When it is no filter.
    pub fn log_filter(&self) -> Result<String, ConfigError> {
        self.parsed(&LOG_FILTER, Some(DEFAULT_LOG_FILTER), log_filter)
    }

    /// Puts the sources together and checks every value.
    ///
    /// # Errors
    /// The first value that is missing or can't be used, with its source and what would do.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        let service_account = self.find(&SERVICE_ACCOUNT_TOKEN);
        Ok(Config {
            endpoint: self.parsed(&ENDPOINT, None, endpoint)?,
            allow_public_endpoint: self.parsed(&ALLOW_PUBLIC, Some("false"), boolean)?,
            allow_loopback_endpoint: self.parsed(&ALLOW_LOOPBACK, Some("false"), boolean)?,
            route: self.route()?,
            trust_dir: self.parsed(&TRUST_DIR, Some("/etc/mendix-agent/trust"), absolute)?,
            bootstrap_token_file: self.parsed(
                &BOOTSTRAP_TOKEN,
                Some("/etc/mendix-agent/bootstrap/token"),
                absolute,
            )?,
            service_account_token_file: match service_account {
                None => None,
                Some(_) => Some(self.parsed(&SERVICE_ACCOUNT_TOKEN, None, absolute)?),
            },
            identity_dir: match self.find(&IDENTITY_DIR) {
                None => None,
                Some(_) => Some(self.parsed(&IDENTITY_DIR, None, absolute)?),
            },
            namespace: self.namespace()?,
            listen: self.listen()?,
            upgrade_after: self.parsed(&UPGRADE_AFTER, Some("600"), |text| {
                let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_UPGRADE_AFTER);
                let expected = || format!("expected seconds, at most {MAX_UPGRADE_AFTER}");
                seconds.map(Duration::from_secs).ok_or_else(expected)
            })?,
            log: self.log()?,
        })
    }

    /// What the guard needs of it.
    ///
    /// # Errors
    /// As [`Sources::resolve`].
    pub fn guard(&self) -> Result<GuardConfig, ConfigError> {
        Ok(GuardConfig { namespace: self.namespace()?, listen: self.listen()?, log: self.log()? })
    }

    fn listen(&self) -> Result<SocketAddr, ConfigError> {
        self.parsed(&LISTEN, Some("0.0.0.0:9090"), |text| {
            text.parse().map_err(|_| "expected ADDRESS:PORT, such as 0.0.0.0:9090".to_owned())
        })
    }

    fn log(&self) -> Result<LogConfig, ConfigError> {
        let format = self.parsed(&LOG_FORMAT, Some("json"), |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("expected json or text".to_owned()),
        })?;
        Ok(LogConfig { filter: self.log_filter()?, format })
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let expected = "expected https://HOST:PORT without path, user or query";
    let url = Url::parse(text).map_err(|error| match error {
        // Names are not translated: what looks alike to a reader is told apart here, and the tables for
        // it are not in the agent.
        ParseError::IdnaError => format!("{expected}; HOST in ASCII, as DNS has it (xn--…)"),
        error => format!("{expected} ({error})"),
    })?;
    let bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match (url.scheme(), url.host(), bare) {
        ("https", Some(_), true) => Ok(url),
        _ => Err(expected.to_owned()),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
}

fn dns_label(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a DNS label: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends".to_owned())
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    if text.contains('[') {
        // It would be taken for the name of a target, and match nothing.
        return Err("expected a filter such as \"info\", without spans and fields".to_owned());
    }
    logging::targets(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("expected a filter such as \"info\" ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn resolve(
        flags: &Layer,
        env: &dyn Fn(&str) -> Option<String>,
        file: &str,
    ) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, file).unwrap();
        Sources::read(flags, env, Some(&path))?.resolve()
    }

    #[test]
    fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
        let file = "endpoint: https://10.0.0.1:1\nnamespace: from-file\nlisten: 127.0.0.1:1\n";
        let env = |name: &str| match name {
            "MENDIX_AGENT_ENDPOINT" => Some("https://10.0.0.2:2".to_owned()),
            "MENDIX_AGENT_NAMESPACE" => Some("from-env".to_owned()),
            _ => None,
        };
        let flags = Layer { endpoint: Some("https://10.0.0.3:3".into()), ..Layer::default() };
        let config = resolve(&flags, &env, file).unwrap();
        assert_eq!(config.endpoint.as_str(), "https://10.0.0.3:3/");
        assert_eq!(config.namespace, "from-env");
        assert_eq!(config.listen, "127.0.0.1:1".parse().unwrap());
    }

    #[test]
    fn a_missing_endpoint_says_the_three_ways_to_give_it() {
        let error = resolve(&Layer::default(), &none, "").unwrap_err().to_string();
        for part in ["endpoint", "MENDIX_AGENT_ENDPOINT", "--endpoint"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused_by_name() {
        let error = resolve(&Layer::default(), &none, "endpiont: x\n").unwrap_err().to_string();
        assert!(error.contains("endpiont") && error.contains("config.yaml"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_source() {
        for (key, value, hint) in [
            ("MENDIX_AGENT_ENDPOINT", "http://10.0.0.1:1", "https://HOST:PORT"),
            ("MENDIX_AGENT_ENDPOINT", "https://user@10.0.0.1:1", "without path, user"),
            ("MENDIX_AGENT_ENDPOINT", "https://mendıx.bank:1", "xn--"),
            ("MENDIX_AGENT_TRUST_DIR", "relative/dir", "absolute"),
            ("MENDIX_AGENT_NAMESPACE", "Not_A_Label", "DNS label"),
            ("MENDIX_AGENT_LISTEN", "9090", "ADDRESS:PORT"),
            ("MENDIX_AGENT_ALLOW_PUBLIC_ENDPOINT", "maybe", "true or false"),
            ("MENDIX_AGENT_UPGRADE_AFTER_SECONDS", "soon", "expected seconds"),
            ("MENDIX_AGENT_UPGRADE_AFTER_SECONDS", "86401", "at most 86400"),
            ("MENDIX_AGENT_LOG_FORMAT", "xml", "json or text"),
            ("MENDIX_AGENT_LOG_FILTER", "a=b=c", "filter"),
            ("MENDIX_AGENT_LOG_FILTER", "info,[span]=debug", "filter"),
        ] {
            let env = |name: &str| (name == key).then(|| value.to_owned());
            let flags = Layer {
                endpoint: (key != "MENDIX_AGENT_ENDPOINT").then(|| "https://10.0.0.1:1".into()),
                ..Layer::default()
            };
            let error = resolve(&flags, &env, "").unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains(value) && error.contains(hint),
                "{error}"
            );
        }
    }

    #[test]
    fn a_name_that_dns_writes_in_ascii_is_taken_as_it_is() {
        let flags =
            Layer { endpoint: Some("https://Xn--MNCHEN-3ya.bank:1".into()), ..Layer::default() };
        let config = resolve(&flags, &none, "").unwrap();
        assert_eq!(config.endpoint.as_str(), "https://xn--mnchen-3ya.bank:1/");
    }

    #[test]
    fn the_guard_needs_no_endpoint() {
        let env = |name: &str| (name == "MENDIX_AGENT_NAMESPACE").then(|| "elsewhere".to_owned());
        let flags = Layer::default();
        let config = Sources::read(&flags, &env, None).unwrap().guard().unwrap();
        assert_eq!(config.namespace, "elsewhere");
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn the_file_may_write_booleans_as_yaml_does() {
        let file = "endpoint: https://10.0.0.1:1\nallowLoopbackEndpoint: true\n";
        assert!(resolve(&Layer::default(), &none, file).unwrap().allow_loopback_endpoint);
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_one_need_not() {
        let flags = Layer::default();
        assert!(Sources::read(&flags, &none, Some(Path::new("/nonexistent/config"))).is_err());
        assert!(Sources::read(&flags, &none, None).is_ok());
    }
}
