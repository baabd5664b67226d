//! Where settings come from: flags, environment variables and the file, each with the same keys, and which
//! of them wins. What a value has to be is said where it is asked for (`config.rs`, `route.rs`).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ConfigError, DEFAULT_FILE, MAX_FILE};

/// One way of saying things. Values are text until they are checked, so that a wrong one can be
/// reported with its source.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[command(next_help_heading = "Configuration, also in the file and the environment")]
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

/// Names of one key on the three surfaces; the environment variable is derived.
pub(super) struct Key {
    pub(super) file: &'static str,
    pub(super) flag: &'static str,
    of: fn(&Layer) -> &Option<String>,
}

macro_rules! keys {
    ($($constant:ident: $field:ident, $file:literal, $flag:literal;)*) => {
        $(pub(super) const $constant: Key = Key { file: $file, flag: $flag, of: |layer| &layer.$field };)*
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
    pub(super) fn env(&self) -> String {
        format!("MENDIX_AGENT_{}", self.flag.to_uppercase().replace('-', "_"))
    }
}

/// All three sources, strongest first.
pub struct Sources<'a> {
    pub(super) flags: &'a Layer,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) file: Option<(PathBuf, Layer)>,
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

    pub(super) fn find(&self, key: &Key) -> Option<(String, Source)> {
        if let Some(value) = (key.of)(self.flags) {
            return Some((value.clone(), Source::Flag(key.flag)));
        }
        if let Some(value) = (self.env)(&key.env()) {
            return Some((value, Source::Environment(key.env())));
        }
        let (path, layer) = self.file.as_ref()?;
        (key.of)(layer).clone().map(|value| (value, Source::File(path.clone())))
    }

    pub(super) fn parsed<T>(
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
}
