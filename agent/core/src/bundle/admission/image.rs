//! Checks on images: pinned by digest, and exactly those that the index lists.
//!
//! Containers are looked for in the whole object and not at known places, so that a pod template
//! inside a custom resource counts too. CRDs are left out: `containers` there is the name of a
//! property in a schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Reason, Refusal};
use crate::bundle::{index::ComponentEntry, kind, name, object::ObjectId};

/// The images of one component, collected object by object.
pub(super) struct Images<'a> {
    entry: &'a ComponentEntry,
    used: BTreeSet<String>,
    refusals: Vec<Refusal>,
}

impl<'a> Images<'a> {
    /// None yet.
    pub(super) fn new(entry: &'a ComponentEntry) -> Self {
        Self { entry, used: BTreeSet::new(), refusals: vec![] }
    }

    /// Looks at one object; `body` is what it holds.
    pub(super) fn look(&mut self, id: &ObjectId, body: &Value) {
        if id.kind == "CustomResourceDefinition" {
            return;
        }
        let Self { entry, used, refusals } = self;
        let mut found = Vec::new();
        walk(body, &mut String::new(), kind::is_built_in_group(&id.group), &mut found);
        for Found { path, what } in found {
            let (reason, text) = match what {
                What::Ephemeral => (Reason::EphemeralContainers, "is set".to_owned()),
                What::Missing => (Reason::ImageNotPinned, "is not a string".to_owned()),
                What::Image(image) if !name::is_pinned_image(image) => {
                    let image: String = image.chars().take(128).collect();
                    (Reason::ImageNotPinned, format!("{image:?} is not pinned by digest"))
                }
                What::Image(image) => {
                    if !used.contains(image) {
                        used.insert(image.to_owned());
                    }
                    if entry.images.iter().any(|listed| listed == image) {
                        continue;
                    }
                    (Reason::ImageNotListed, format!("{image} is not in the index"))
                }
            };
            refusals.push(Refusal::object(entry, id, reason, &path, text));
        }
    }

    /// Everything that is wrong with them.
    pub(super) fn refusals(self) -> Vec<Refusal> {
        let Self { entry, used, mut refusals } = self;
        for (n, image) in entry.images.iter().enumerate() {
            if !used.contains(image) {
                let field = format!("images[{n}]");
                let found = format!("no container uses {image}");
                refusals.push(Refusal::component(entry, Reason::ImageNotUsed, &field, found));
            }
        }
        refusals
    }
}

struct Found<'a> {
    path: String,
    what: What<'a>,
}

enum What<'a> {
    Image(&'a str),
    Missing,
    Ephemeral,
}

/// Collects the images of every container and image volume below `value`. `strict`: a container
/// has to name an image, as in every built-in kind.
fn walk<'a>(value: &'a Value, path: &mut String, strict: bool, found: &mut Vec<Found<'a>>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match (key.as_str(), inner) {
                    ("containers" | "initContainers", Value::Array(containers)) => {
                        for (n, container) in containers.iter().enumerate() {
                            let image = container.get("image");
                            let at = format!("{path}[{n}].image");
                            match image {
                                Some(Value::String(image)) => {
                                    found.push(Found { path: at, what: What::Image(image) });
                                }
                                Some(_) => found.push(Found { path: at, what: What::Missing }),
                                None if strict => {
                                    found.push(Found { path: at, what: What::Missing })
                                }
                                None => {}
                            }
                        }
                    }
                    ("ephemeralContainers", Value::Array(containers)) if !containers.is_empty() => {
                        found.push(Found { path: path.clone(), what: What::Ephemeral });
                    }
                    ("volumes", Value::Array(volumes)) => {
                        for (n, volume) in volumes.iter().enumerate() {
                            if let Some(image) = volume.pointer("/image/reference") {
                                let at = format!("{path}[{n}].image.reference");
                                let what = image.as_str().map_or(What::Missing, What::Image);
                                found.push(Found { path: at, what });
                            }
                        }
                    }
                    _ => {}
                }
                walk(inner, path, strict, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{n}]"));
                walk(item, path, strict, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
