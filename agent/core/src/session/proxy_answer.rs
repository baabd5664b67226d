//! What a proxy answers to CONNECT (RFC 9110, section 9.3.6), judged from the bytes that have come so
//! far. The dialler reads until there is a verdict; what follows an open tunnel is not this module's.
//!
//! Strict where the RFC is generous: 200 alone opens the tunnel, and with its head nothing may come
//! that the control plane did not say.

use httparse::{Error as ParseError, Header, Response, Status};
use thiserror::Error;

/// Largest head of an answer, bytes, interim answers included.
pub const MAX_PROXY_HEAD: usize = 16 * 1024;
/// Most headers of one answer.
const MAX_HEADERS: usize = 64;
/// Longest authentication scheme that is repeated to people, bytes.
const MAX_SCHEME: usize = 32;
/// Most authentication schemes that are repeated to people.
const MAX_SCHEMES: usize = 4;

/// What the proxy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyAnswer {
    /// 200: the tunnel is open.
    Open,
    /// 407: it wants to know who asks.
    Authentication {
        /// What it takes: names of schemes, at most four.
        schemes: Vec<String>,
    },
    /// Any other answer.
    Refused {
        /// Its status.
        status: u16,
    },
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProxyNonsense {
    /// It is no HTTP.
    #[error("it is no answer of HTTP")]
    NotHttp(#[source] ParseError),
    /// Its head does not end.
    #[error("its head is longer than {MAX_PROXY_HEAD} bytes")]
    TooLong,
    /// Something came with the head of a 200.
    #[error("{0} bytes came with it that the control plane can't have said")]
    Early(usize),
}

impl ProxyAnswer {
    /// Judges the bytes that have come so far; `None` while the answer is not complete.
    ///
    /// # Errors
    /// When more bytes can't make an answer of these.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ProxyNonsense> {
        let mut rest = bytes;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = Response::new(&mut headers);
            let head = match response.parse(rest).map_err(ProxyNonsense::NotHttp)? {
                Status::Complete(head) => head,
                Status::Partial if bytes.len() >= MAX_PROXY_HEAD => {
                    return Err(ProxyNonsense::TooLong);
                }
                Status::Partial => return Ok(None),
            };
            if bytes.len() - rest.len() + head > MAX_PROXY_HEAD {
                return Err(ProxyNonsense::TooLong);
            }
            rest = &rest[head..];
            return match response.code.unwrap_or_default() {
                // Interim: the answer is yet to come. 101 would be another protocol on this connection.
                100 | 102..=199 => continue,
                200 if rest.is_empty() => Ok(Some(Self::Open)),
                200 => Err(ProxyNonsense::Early(rest.len())),
                407 => Ok(Some(Self::Authentication { schemes: schemes(response.headers) })),
                status => Ok(Some(Self::Refused { status })),
            };
        }
    }
}

/// What `Proxy-Authenticate` offers, as far as it is worth repeating.
fn schemes(headers: &[Header<'_>]) -> Vec<String> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"))
        .filter_map(|header| std::str::from_utf8(header.value).ok()?.split_whitespace().next())
        .filter(|scheme| scheme.len() <= MAX_SCHEME && scheme.chars().all(|c| c.is_ascii_graphic()))
        .take(MAX_SCHEMES)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<ProxyAnswer>, ProxyNonsense> {
        ProxyAnswer::read(text.as_bytes())
    }

    #[test]
    fn only_200_opens_the_tunnel() {
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n"), Ok(Some(ProxyAnswer::Open)));
        assert_eq!(read("HTTP/1.0 200 Tunnel\r\nVia: a\r\n\r\n"), Ok(Some(ProxyAnswer::Open)));
        for status in [101, 201, 204, 302, 403, 502] {
            let head = format!("HTTP/1.1 {status} Other\r\n\r\n");
            for text in [head.clone(), format!("{head}with a body")] {
                assert_eq!(read(&text), Ok(Some(ProxyAnswer::Refused { status })));
            }
        }
    }

    #[test]
    fn what_comes_with_a_200_is_not_the_control_planes() {
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nhello"), Err(ProxyNonsense::Early(5)));
    }

    #[test]
    fn interim_answers_are_passed_over_and_count_towards_the_limit() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n";
        assert_eq!(read(interim), Ok(None));
        assert_eq!(read(&format!("{interim}HTTP/1.1 200 OK\r\n\r\n")), Ok(Some(ProxyAnswer::Open)));
        let endless = interim.repeat(MAX_PROXY_HEAD / interim.len() + 1);
        assert_eq!(read(&endless), Err(ProxyNonsense::TooLong));
    }

    #[test]
    fn a_head_that_does_not_end_and_one_with_too_many_headers_are_given_up() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_PROXY_HEAD));
        assert_eq!(read(&long), Err(ProxyNonsense::TooLong));
        assert_eq!(read(&format!("{long}\r\n\r\n")), Err(ProxyNonsense::TooLong));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(read(&many), Err(ProxyNonsense::NotHttp(ParseError::TooManyHeaders)));
    }

    #[test]
    fn the_schemes_that_are_repeated_are_few_and_short() {
        let long = "x".repeat(MAX_SCHEME + 1);
        let text = format!(
            "HTTP/1.1 407 No\r\nproxy-authenticate: Negotiate\r\nProxy-Authenticate: {long}\r\n\
             PROXY-AUTHENTICATE: Basic realm=\"a b\"\r\n{}\r\n",
            "Proxy-Authenticate: More\r\n".repeat(9)
        );
        let schemes = ["Negotiate", "Basic", "More", "More"].map(str::to_owned).to_vec();
        assert_eq!(read(&text), Ok(Some(ProxyAnswer::Authentication { schemes })));
    }

    #[test]
    fn something_else_than_http_is_named_at_once() {
        for text in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/2 200\r\n\r\n", "\u{16}\u{3}\u{1}"] {
            assert!(matches!(read(text), Err(ProxyNonsense::NotHttp(_))), "{text:?}");
        }
        assert_eq!(read(""), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_verdict_or_in_a_wish_for_more(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = ProxyAnswer::read(&bytes);
        }
    }
}
