//! A component's blob: gzip of newline-delimited canonical JSON, one Kubernetes object a line.
//!
//! [`verify`] stands between the TUF client and admission, [`encode`] in the publisher. Expansion is
//! streamed, so that a bomb costs one buffer and not the memory it claims.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use thiserror::Error;

use super::{
    Authentic, Verified,
    canonical::{self, JsonError},
    index::{BlobRef, ComponentEntry},
    limits::Limits,
    object::{Object, ObjectError, ObjectId},
};
use crate::ordered;

/// Bytes expanded at a time.
const EXPAND_STEP: usize = 64 * 1024;

/// Why bytes are not the blob of a component.
#[derive(Debug, Error)]
pub enum BlobError {
    /// Not the target that the index names.
    #[error("component {component}: the index wants {wanted}, and this is {found}")]
    OtherBlob {
        /// The component.
        component: String,
        /// Target, digest or size in the index.
        wanted: String,
        /// What was found instead.
        found: String,
    },
    /// More compressed bytes than allowed.
    #[error("the blob has {found} compressed bytes; at most {max} are allowed")]
    Compressed {
        /// Its length.
        found: u64,
        /// Largest length.
        max: u64,
    },
    /// More expanded bytes than allowed, or too many for its compressed size.
    #[error("the blob expands to more than {max} bytes ({rule})")]
    Expanded {
        /// Bytes at which expansion was stopped.
        max: u64,
        /// Which limit it was.
        rule: &'static str,
    },
    /// Not one gzip member.
    #[error("the blob is not gzip")]
    Gzip(#[source] io::Error),
    /// Bytes after the gzip member.
    #[error("the blob has {0} bytes after its gzip stream")]
    Trailing(usize),
    /// The last line has no end.
    #[error("object {0} is cut off: the blob doesn't end with a line feed")]
    CutOff(usize),
    /// More objects than allowed.
    #[error("the blob has more than {0} objects")]
    TooManyObjects(usize),
    /// An object larger than allowed.
    #[error("object {line} has more than {max} bytes")]
    ObjectTooLarge {
        /// Number of its line, from 1.
        line: usize,
        /// Largest length.
        max: usize,
    },
    /// A line that is not strict JSON.
    #[error("object {line} is not strict JSON")]
    Json {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: JsonError,
    },
    /// A line in another than the canonical form.
    #[error("object {0} is not canonical JSON")]
    NotCanonical(usize),
    /// JSON, and not a Kubernetes object.
    #[error("object {line} has no usable identity")]
    Object {
        /// Its number, from 1.
        line: usize,
        /// The field and what is wrong with it.
        #[source]
        source: ObjectError,
    },
    /// Two lines with one identity.
    #[error("object {line}: {id} is in the blob twice")]
    Twice {
        /// Number of the second line, from 1.
        line: usize,
        /// The identity.
        id: Box<ObjectId>,
    },
}

/// Reads the objects of `entry` from bytes that the release root vouches for.
///
/// # Errors
/// The first thing that is wrong, with the number of its line.
pub fn verify(
    entry: &ComponentEntry,
    authentic: Authentic,
) -> Result<Verified<Vec<Object>>, BlobError> {
    verify_within(entry, &authentic, &Limits::BUILT_IN)
}

fn verify_within(
    entry: &ComponentEntry,
    authentic: &Authentic,
    limits: &Limits,
) -> Result<Verified<Vec<Object>>, BlobError> {
    let other = |wanted: &dyn ToString, found: &dyn ToString| {
        Err(BlobError::OtherBlob {
            component: entry.name.clone(),
            wanted: wanted.to_string(),
            found: found.to_string(),
        })
    };
    if authentic.target() != entry.blob.target {
        return other(&entry.blob.target, &authentic.target());
    }
    let digest = hex::encode(authentic.sha256());
    if digest != entry.blob.sha256 {
        return other(&format!("sha256:{}", entry.blob.sha256), &format!("sha256:{digest}"));
    }
    let size = authentic.bytes().len() as u64;
    if size != entry.blob.size {
        return other(&format!("{} bytes", entry.blob.size), &format!("{size} bytes"));
    }
    let objects = expand(authentic.bytes(), limits)?;
    Ok(Verified::new(objects, *authentic.sha256()))
}

/// Expands and parses, holding one parsed object and one step of expansion at a time besides the objects
/// as text.
fn expand(compressed: &[u8], limits: &Limits) -> Result<Vec<Object>, BlobError> {
    let size = compressed.len() as u64;
    if size > limits.blob_compressed {
        return Err(BlobError::Compressed { found: size, max: limits.blob_compressed });
    }
    let by_ratio = size.saturating_mul(limits.expansion_ratio).max(limits.expansion_ratio_from);
    let (max, rule) = if by_ratio < limits.blob_expanded {
        (by_ratio, "expansion ratio")
    } else {
        (limits.blob_expanded, "expanded size")
    };

    let mut decoder = GzDecoder::new(compressed);
    let mut step = vec![0; EXPAND_STEP];
    let mut line = Vec::new();
    let mut reader = Lines { limits, objects: Vec::new(), seen: BTreeSet::new() };
    let mut expanded = 0_u64;
    loop {
        let read = decoder.read(&mut step).map_err(BlobError::Gzip)?;
        if read == 0 {
            break;
        }
        expanded += read as u64;
        if expanded > max {
            return Err(BlobError::Expanded { max, rule });
        }
        let mut rest = step.get(..read).unwrap_or_default();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            reader.grow(&mut line, head)?;
            reader.take(&line)?;
            line.clear();
            rest = tail.get(1..).unwrap_or_default();
        }
        reader.grow(&mut line, rest)?;
    }
    if !line.is_empty() {
        return Err(BlobError::CutOff(reader.objects.len() + 1));
    }
    match decoder.into_inner().len() {
        0 => Ok(reader.objects),
        trailing => Err(BlobError::Trailing(trailing)),
    }
}

/// Turns lines into objects.
struct Lines<'a> {
    limits: &'a Limits,
    objects: Vec<Object>,
    seen: BTreeSet<ObjectId>,
}

impl Lines<'_> {
    fn grow(&self, line: &mut Vec<u8>, more: &[u8]) -> Result<(), BlobError> {
        if line.len() + more.len() > self.limits.object {
            let line = self.objects.len() + 1;
            return Err(BlobError::ObjectTooLarge { line, max: self.limits.object });
        }
        line.extend_from_slice(more);
        Ok(())
    }

    fn take(&mut self, text: &[u8]) -> Result<(), BlobError> {
        if self.objects.len() == self.limits.objects {
            return Err(BlobError::TooManyObjects(self.limits.objects));
        }
        let line = self.objects.len() + 1;
        let value = canonical::parse(text, self.limits.depth)
            .map_err(|source| BlobError::Json { line, source })?;
        if canonical::bytes(&value) != text {
            return Err(BlobError::NotCanonical(line));
        }
        let object = Object::from_canonical(&value, text)
            .map_err(|source| BlobError::Object { line, source })?;
        if !self.seen.insert(object.id.clone()) {
            return Err(BlobError::Twice { line, id: Box::new(object.id) });
        }
        self.objects.push(object);
        Ok(())
    }
}

/// A blob ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBlob {
    /// Compressed bytes: the content of the TUF target.
    pub bytes: Vec<u8>,
    /// What the index says about them.
    pub reference: BlobRef,
}

/// Writes objects as a blob. The same objects in any order give the same bytes, so that an
/// unchanged component keeps its digest and is not fetched again.
///
/// # Errors
/// When [`verify`] would refuse the result: the publisher learns it before anything is signed.
pub fn encode(objects: &[Object]) -> Result<EncodedBlob, BlobError> {
    let mut sorted: Vec<&Object> = objects.iter().collect();
    ordered::sort_by(&mut sorted, |a, b| a.id.cmp(&b.id));
    // No name, no time, and a fixed operating system in the header.
    let mut gzip =
        GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    for object in sorted {
        gzip.write_all(object.body.bytes()).map_err(BlobError::Gzip)?;
        gzip.write_all(b"\n").map_err(BlobError::Gzip)?;
    }
    let bytes = gzip.finish().map_err(BlobError::Gzip)?;
    expand(&bytes, &Limits::BUILT_IN)?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let sha256 = hex::encode(digest);
    let reference =
        BlobRef { target: BlobRef::target_name(&sha256), sha256, size: bytes.len() as u64 };
    Ok(EncodedBlob { bytes, reference })
}

#[cfg(test)]
mod tests;
