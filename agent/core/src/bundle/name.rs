//! Names that a release may use. Everything that becomes part of a path, a URL, a label or a line on
//! a terminal is held to a small ASCII alphabet, so that `../`, NUL and marks that turn the
//! direction of writing never get further than here.

/// Longest DNS label (RFC 1123).
const LABEL: usize = 63;
/// Longest DNS subdomain, and longest name of a Kubernetes object.
const SUBDOMAIN: usize = 253;

fn only(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(allowed)
}

fn edges(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| allowed(*b)) && bytes.last().is_some_and(|b| allowed(*b))
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes: components, namespaces, rings.
pub fn is_label(text: &str) -> bool {
    only(text, LABEL, |b| lower_alphanumeric(b) || b == b'-') && edges(text, lower_alphanumeric)
}

/// Labels joined by dots, at most 253 bytes: API groups.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN && text.split('.').all(is_label)
}

/// `[a-z0-9.-]{1,63}` that begins and ends alphanumeric and holds no `..`: release ids.
pub fn is_release_id(text: &str) -> bool {
    only(text, LABEL, |b| lower_alphanumeric(b) || b == b'-' || b == b'.')
        && edges(text, lower_alphanumeric)
        && !text.contains("..")
}

/// `[A-Za-z0-9._+-]{1,64}`: the version people know a component by.
pub fn is_version_label(text: &str) -> bool {
    only(text, 64, |b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
}

/// `v1`, `v1beta2`, …: `[a-z0-9]{1,63}`.
pub fn is_api_version(text: &str) -> bool {
    only(text, LABEL, lower_alphanumeric)
}

/// `[A-Za-z][A-Za-z0-9]{0,62}`.
pub fn is_kind(text: &str) -> bool {
    only(text, LABEL, |b| b.is_ascii_alphanumeric())
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
}

/// Name of an object: `[A-Za-z0-9._:-]{1,253}`, not `.` or `..`. Wider than a DNS name because RBAC
/// objects are called `system:auth-delegator`; narrower than what RBAC allows.
pub fn is_object_name(text: &str) -> bool {
    only(text, SUBDOMAIN, |b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
        && !text.contains("..")
        && text != "."
}

/// `group/Kind`, or `Kind` in the core group.
pub fn is_group_kind(text: &str) -> bool {
    match text.split_once('/') {
        Some((group, kind)) => is_subdomain(group) && is_kind(kind),
        None => is_kind(text),
    }
}

/// 64 lower-case hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `registry/name@sha256:<hex>`, without a tag: a tag next to a digest says nothing and invites to
/// be believed.
pub fn is_pinned_image(text: &str) -> bool {
    let Some((name, digest)) = text.split_once("@sha256:") else { return false };
    let path = name.rsplit_once('/').map_or(name, |(_, last)| last);
    is_sha256(digest)
        && only(name, SUBDOMAIN, |b| lower_alphanumeric(b) || b"._-/:".contains(&b))
        && !path.is_empty()
        && !path.contains(':')
        && !name.contains("..")
        && !name.contains("//")
        && !name.starts_with('/')
}

/// Dotted path of a field, `[A-Za-z0-9._/-]` with `[n]`, `[key=value]` steps; at most 253 bytes.
pub fn is_field_path(text: &str) -> bool {
    only(text, SUBDOMAIN, |b| b.is_ascii_alphanumeric() || b"._-/[]=\"~".contains(&b))
        && !text.contains("..")
        && !text.starts_with('.')
        && !text.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_everywhere() {
        let hostile = [
            "",
            ".",
            "..",
            "../etc",
            "a/../b",
            "a\0b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200f}b",
            "a b",
            "a\nb",
            "ä",
            "%2e%2e",
            &"a".repeat(300),
        ];
        for name in hostile {
            for (what, check) in [
                ("label", is_label as fn(&str) -> bool),
                ("subdomain", is_subdomain),
                ("release id", is_release_id),
                ("version", is_version_label),
                ("API version", is_api_version),
                ("kind", is_kind),
                ("object", is_object_name),
                ("group and kind", is_group_kind),
                ("digest", is_sha256),
                ("image", is_pinned_image),
                ("field", is_field_path),
            ] {
                // A version may be dots: it is printed and never part of a path.
                if what == "version" && name.chars().all(|c| c == '.') {
                    continue;
                }
                assert!(!check(name), "{what}: {name:?}");
            }
        }
    }

    #[test]
    fn ordinary_names_are_accepted() {
        assert!(is_label("mendix-operator"));
        assert!(!is_label("-a") && !is_label("a-") && !is_label("A") && !is_label("a.b"));
        assert!(is_subdomain("privatecloud.mendix.com"));
        assert!(is_release_id("2026.11.3"));
        assert!(is_version_label("2.21.0-rc.1+build"));
        assert!(is_kind("HorizontalPodAutoscaler") && !is_kind("1Kind"));
        assert!(is_object_name("system:auth-delegator"));
        assert!(is_group_kind("apps/Deployment") && is_group_kind("Pod"));
        assert!(is_field_path("spec.template.spec.containers[0].image"));
    }

    #[test]
    fn images_are_pinned_by_digest_and_nothing_else() {
        let digest = "a".repeat(64);
        assert!(is_pinned_image(&format!("registry.local:5000/mendix/operator@sha256:{digest}")));
        assert!(is_pinned_image(&format!("operator@sha256:{digest}")));
        for image in [
            "operator:latest".to_owned(),
            "operator".to_owned(),
            format!("operator:1.0@sha256:{digest}"),
            format!("operator@sha256:{}", "A".repeat(64)),
            format!("operator@sha256:{}", "a".repeat(63)),
            format!("@sha256:{digest}"),
            format!("a/@sha256:{digest}"),
            format!("a//b@sha256:{digest}"),
            format!("operator@sha512:{digest}"),
        ] {
            assert!(!is_pinned_image(&image), "{image}");
        }
    }
}
