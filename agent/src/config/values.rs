//! What single values have to be. A refusal says what would be accepted; who asked adds the key, the value
//! and where it came from.

use std::path::PathBuf;

use url::Url;

use crate::logging;

pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let expected = "expected https://HOST:PORT without path, user or query";
    let url = Url::parse(text).map_err(|error| format!("{expected} ({error})"))?;
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

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
}

pub(super) fn dns_label(text: &str) -> Result<String, String> {
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

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    if text.contains('[') {
        // It would be taken for the name of a target, and match nothing.
        return Err("expected a filter such as \"info\", without spans and fields".to_owned());
    }
    logging::targets(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("expected a filter such as \"info\" ({error})"))
}
