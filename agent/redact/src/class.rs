//! What is taken out, and how often it was.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a placeholder stands for. The rule numbers are those of the redaction policy.
        ///
        /// R01–R10 are the shapes in which a key meets its value (assignment, JSON, JSON in JSON,
        /// YAML, Go struct, environment, name/value pair, flag, prose); they end up in the class of
        /// the key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class {
            $($(#[$doc])* $variant,)*
        }

        impl Class {
            /// Every class, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name inside the placeholder.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

classes! {
    /// R01, R12: password, passphrase, pwd, in any of the shapes R01–R10.
    Password = "password",
    /// R02: secret, credential, license key, private key and the like.
    Secret = "secret",
    /// R02: token.
    Token = "token",
    /// R02: API key, access key, signing key and the like.
    Key = "key",
    /// R11: user info of a URL.
    UrlUser = "url-user",
    /// R13, R14: Azure account keys, shared access keys and signatures.
    AzureKey = "azure-key",
    /// R15: signature of a SAS URL, and signatures of signed requests.
    Signature = "signature",
    /// R16: Entra client secret.
    Entra = "entra",
    /// R17: credentials of an authorization header.
    Authorization = "authorization",
    /// R18: JWT and JWE.
    Jwt = "jwt",
    /// R19: Kubernetes service-account token.
    ServiceAccount = "sa-token",
    /// R20: Docker registry auth.
    Docker = "docker-auth",
    /// R21: body of a PEM block, whatever its label.
    Pem = "pem",
    /// R22: PKCS#12, key stores, DER or OpenSSH keys and certificates in base64; private members of JSON
    /// web keys.
    KeyBlob = "key-blob",
    /// R23: tokens with a vendor's prefix.
    VendorToken = "vendor-token",
    /// R24: cookie values.
    Cookie = "cookie",
    /// R25: OAuth code, state and the like in a query.
    Oauth = "oauth",
    /// R26: SAML assertions and messages, and the text of their elements.
    Saml = "saml",
    /// R27: values of Mendix constants.
    MendixConstant = "mx-constant",
    /// R28: values of a Secret manifest.
    K8sSecret = "k8s-secret",
    /// R29: e-mail address.
    Email = "email",
    /// R30: IPv4 address.
    Ipv4 = "ipv4",
    /// R31: IPv6 address.
    Ipv6 = "ipv6",
    /// R32: IBAN.
    Iban = "iban",
    /// R33: payment card number.
    Card = "card",
    /// R34: Dutch citizen service number.
    Bsn = "bsn",
    /// R35: phone number.
    Phone = "phone",
    /// R37: literals and parameters of SQL.
    Sql = "sql",
    /// R38: what a client sent.
    Body = "body",
    /// R39: a credential of the agent itself.
    AgentSecret = "agent-secret",
    /// R40: what a pattern of the customer matches.
    Custom = "custom",
    /// R41: random-looking value after a stem that alone would not be enough.
    Entropy = "entropy",
    /// A line over [`super::MAX_LINE`].
    Line = "line",
}

/// How many values of each class were replaced. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u64; Class::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Class::ALL.len()])
    }
}

impl Counts {
    /// Replacements of one class.
    #[must_use]
    pub fn of(&self, class: Class) -> u64 {
        self.0.get(class as usize).copied().unwrap_or(0)
    }

    /// Replacements in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Classes that occurred, with their counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        Class::ALL.iter().copied().zip(self.0.iter().copied()).filter(|&(_, count)| count > 0)
    }

    /// Adds the counts of another stream.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub(super) fn note(&mut self, class: Class) {
        if let Some(count) = self.0.get_mut(class as usize) {
            *count += 1;
        }
    }
}

/// A map from class name to count, of the classes that occurred.
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (class, count) in self.iter() {
            map.serialize_entry(class.name(), &count)?;
        }
        map.end()
    }
}
