//! Pins: the control plane's public key, known in advance. Whoever ends TLS in between, with
//! whatever certificate, has another key.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPin([u8; digest::SHA256_OUTPUT_LEN]);

impl KeyPin {
    /// The pin of a certificate; `None` when it can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
        hash.as_ref().try_into().ok().map(Self)
    }
}

impl FromStr for KeyPin {
    type Err = &'static str;

    /// Reads `sha256/BASE64`, or the Base64 alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected sha256/ and the Base64 of 32 bytes";
        let hash = BASE64_STANDARD
            .decode(text.strip_prefix("sha256/").unwrap_or(text))
            .map_err(|_| expected)?;
        hash.try_into().map(Self).map_err(|_| expected)
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        let text = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin: KeyPin = text.parse().unwrap();
        assert_eq!(pin.to_string(), text);
        assert_eq!(text.trim_start_matches("sha256/").parse(), Ok(pin));
        for bad in ["", "sha256/", "sha256/AAAA", "sha1/2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "sha256/?"] {
            assert!(bad.parse::<KeyPin>().is_err(), "{bad}");
        }
    }
}
