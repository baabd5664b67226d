//! What a label says: the class of a secret, whether it is a credential or personal data, and the
//! shape of the text it stands in.

use std::fmt;
use std::str::FromStr;

/// What leaks if a class is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Lets whoever reads it in.
    Credential,
    /// Tells something about a person.
    Personal,
}

/// A word in a template header that names no class or shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

macro_rules! classes {
    ($($name:ident $id:literal $kind:ident $doc:literal,)*) => {
        /// The class of a secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class { $(#[doc = $doc] $name,)* }

        impl Class {
            /// Every class, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its number, such as `R07`.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// Credential or personal data.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

classes! {
    Password "R01" Credential "`key=value` passwords and passphrases.",
    Token "R02" Credential "Secrets, tokens, API and licence keys under prefixed and camelCase keys.",
    Json "R03" Credential "Values of sensitive keys in JSON.",
    NestedJson "R04" Credential "JSON inside a JSON string.",
    Yaml "R05" Credential "Values of sensitive keys in YAML.",
    GoStruct "R06" Credential "Go's `%+v` and `%#v` dumps.",
    Environment "R07" Credential "Dumps of the environment.",
    EnvPair "R08" Credential "Kubernetes `name`/`value` pairs.",
    Flag "R09" Credential "Command-line flags.",
    Prose "R10" Credential "Sentences that say a password.",
    UserInfo "R11" Credential "Passwords in the user info of URLs.",
    ConnectionString "R12" Credential "JDBC, ADO and libpq connection strings.",
    AccountKey "R13" Credential "Azure storage account keys.",
    SharedAccessKey "R14" Credential "Shared access keys of Service Bus, Event Hubs and IoT hubs.",
    SasSignature "R15" Credential "`sig` of a shared access signature.",
    EntraSecret "R16" Credential "Client secrets of Entra ID.",
    Authorization "R17" Credential "Bearer, Basic and Negotiate.",
    Jwt "R18" Credential "JWS and JWE in compact form.",
    ServiceAccountToken "R19" Credential "Kubernetes ServiceAccount tokens.",
    DockerAuth "R20" Credential "`auth` of a registry configuration.",
    Pem "R21" Credential "The body of a private key in PEM.",
    KeyBlob "R22" Credential "PKCS#12 and other keys in Base64.",
    Prefixed "R23" Credential "Tokens whose prefix names their issuer.",
    Cookie "R24" Credential "Values of session cookies.",
    OAuth "R25" Credential "Code, state and tokens in a query.",
    Saml "R26" Credential "SAML messages.",
    Mendix "R27" Credential "Mendix constants and the password of MxAdmin.",
    SecretManifest "R28" Credential "Data of Secret manifests.",
    Email "R29" Personal "E-mail addresses.",
    Ipv4 "R30" Personal "IPv4 addresses.",
    Ipv6 "R31" Personal "IPv6 addresses.",
    Iban "R32" Personal "IBANs.",
    Card "R33" Personal "Payment cards.",
    Bsn "R34" Personal "Dutch citizen service numbers.",
    Phone "R35" Personal "Telephone numbers.",
    SqlLiteral "R37" Personal "Literals and bind parameters in SQL.",
    Entropy "R41" Credential "Random text after a sensitive stem.",
}

macro_rules! shapes {
    ($($name:ident $word:literal $doc:literal,)*) => {
        /// The shape of the text around a secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Shape { $(#[doc = $doc] $name,)* }

        impl Shape {
            /// Every shape.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Shape {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $word,)* })
            }
        }
    };
}

shapes! {
    JsonLog "json" "One JSON object a line.",
    Klog "klog" "Kubernetes' klog.",
    Logfmt "logfmt" "`key=value` pairs.",
    Java "java" "Log4j, logback and stack traces.",
    Access "access" "Access logs of nginx and others.",
    Mendix "mendix" "Lines of the Mendix runtime and its sidecar.",
    Yaml "yaml" "YAML: manifests and configuration.",
    Env "env" "Dumps of the environment.",
    Describe "describe" "What `kubectl describe` prints.",
    Prose "prose" "Messages for people.",
    GoStruct "gostruct" "Go's dumps of structs.",
    Url "url" "URLs and connection strings.",
    Pem "pem" "PEM blocks.",
    Sql "sql" "SQL and what drivers say about it.",
    Cli "cli" "Shell and command lines.",
    Headers "headers" "Dumps of HTTP headers.",
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Class {
    type Err = Unknown;

    fn from_str(id: &str) -> Result<Self, Unknown> {
        Self::ALL.iter().find(|c| c.id() == id).copied().ok_or_else(|| Unknown(id.to_owned()))
    }
}

impl FromStr for Shape {
    type Err = Unknown;

    fn from_str(word: &str) -> Result<Self, Unknown> {
        Self::ALL
            .iter()
            .find(|s| s.to_string() == word)
            .copied()
            .ok_or_else(|| Unknown(word.to_owned()))
    }
}
