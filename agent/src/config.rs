//! Configuration: a file, then environment variables, then flags; the last one that says something
//! wins. Every error names the key, where its value came from, and what would be accepted.
//!
//! ```yaml
//! # /etc/mendix-agent/config.yaml
//! endpoint: https://10.20.0.4:8443
//! trustDir: /etc/mendix-agent/trust
//! ```

mod route;
mod sources;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use thiserror::Error;
use url::Url;

pub(crate) use self::values::targets;
pub use self::{
    route::{Proxy, ProxyCredentials, Route},
    sources::{Layer, Source, Sources},
};
use self::{
    sources::{
        ALLOW_LOOPBACK, ALLOW_PUBLIC, BOOTSTRAP_TOKEN, ENDPOINT, IDENTITY_DIR, LISTEN, LOG_FILTER,
        LOG_FORMAT, NAMESPACE, SERVICE_ACCOUNT_TOKEN, TRUST_DIR, UPGRADE_AFTER,
    },
    values::{absolute, boolean, dns_label, endpoint, log_filter},
};

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

impl Sources<'_> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

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
