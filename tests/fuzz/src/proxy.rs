//! Answers of a proxy to CONNECT: one verdict, however the bytes are cut, and no tunnel that was not
//! opened.

use mendix_agent_core::session::{MAX_PROXY_HEAD, ProxyAnswer, ProxyNonsense};

/// A head up to this length is cut everywhere.
const SHORT: usize = 4096;

/// What a proxy says, as the dialler reads it: piece by piece.
pub fn proxy(bytes: &[u8]) -> bool {
    let mut verdict = None;
    for end in (0..=bytes.len().min(MAX_PROXY_HEAD + 64)).filter(|end| is_cut(bytes, *end)) {
        let read = ProxyAnswer::read(&bytes[..end]);
        match (&read, &verdict) {
            (Ok(None), None) => {
                assert!(end < MAX_PROXY_HEAD, "it wants more than an answer may have");
            }
            (_, None) => {
                first(&bytes[..end], &read);
                verdict = Some(read);
            }
            (later, Some(first)) => agrees(later, first),
        }
    }
    matches!(verdict, Some(Ok(Some(_))))
}

/// Each look reads from the start: one after each byte of the longest head would be most of what a run
/// does. An answer is complete at the end of a line, and no sooner.
fn is_cut(bytes: &[u8], end: usize) -> bool {
    end <= SHORT || end.is_multiple_of(16) || end == bytes.len() || bytes[..end].ends_with(b"\n")
}

/// The verdict of the dialler, who asks after each byte.
fn first(head: &[u8], read: &Result<Option<ProxyAnswer>, ProxyNonsense>) {
    match read {
        Ok(Some(ProxyAnswer::Open)) => {
            assert!(head.ends_with(b"\n"), "the tunnel begins before the head ends");
            assert_eq!(status_of_last(head), Some(*b"200"), "nobody said 200");
        }
        Ok(Some(ProxyAnswer::Authentication { schemes })) => {
            assert!(schemes.len() <= 4 && schemes.iter().all(|scheme| scheme.len() <= 32));
            assert!(schemes.iter().all(|scheme| scheme.chars().all(|c| c.is_ascii_graphic())));
        }
        Ok(Some(ProxyAnswer::Refused { status })) => assert!(![200, 407].contains(status)),
        Err(ProxyNonsense::Early(_)) => panic!("nothing came early yet"),
        Ok(None) | Err(ProxyNonsense::NotHttp(_) | ProxyNonsense::TooLong) => {}
    }
}

/// More bytes change nothing, except that a tunnel into which somebody talked is none.
fn agrees(
    later: &Result<Option<ProxyAnswer>, ProxyNonsense>,
    first: &Result<Option<ProxyAnswer>, ProxyNonsense>,
) {
    match first {
        Ok(Some(ProxyAnswer::Open)) => assert!(matches!(later, Err(ProxyNonsense::Early(1..)))),
        Ok(_) => assert_eq!(later, first),
        Err(_) => assert!(later.is_err(), "nonsense became an answer"),
    }
}

/// A reading of its own: the status of the last head of those that came, one after the other.
fn status_of_last(heads: &[u8]) -> Option<[u8; 3]> {
    let text: Vec<u8> = heads.iter().copied().filter(|byte| *byte != b'\r').collect();
    let text = text.strip_suffix(b"\n\n")?;
    let mut last = text;
    let mut from = 0;
    while let Some(at) = text[from..].windows(2).position(|pair| pair == b"\n\n") {
        from += at + 2;
        last = &text[from..];
    }
    let line: Vec<u8> = last.iter().copied().skip_while(|byte| *byte == b'\n').collect();
    line.strip_prefix(b"HTTP/1.0 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.1 "))?
        .get(..3)?
        .try_into()
        .ok()
}
