//! Limits on everything that a release may hold, in one place, enforced while it is read.

/// How large a release may be. Sizes are bytes.
///
/// One value exists in production, [`Limits::BUILT_IN`]; no configuration changes it, since a limit
/// that an attacker's message could move is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Release index. It is kept in one Secret next to its manifest, compressed.
    pub index: usize,
    /// Levels of nesting, in the index and in each object.
    pub depth: usize,
    /// Components of a release.
    pub components: usize,
    /// Images, namespaces, kinds or exceptions of one component, each.
    pub entries_per_component: usize,
    /// Rings, `from`, `blocked_from`, `deletes` or `narrows`, each.
    pub entries_per_list: usize,
    /// One blob as it is transferred.
    pub blob_compressed: u64,
    /// One blob expanded.
    pub blob_expanded: u64,
    /// Expanded bytes per compressed byte; beyond it the blob is a bomb.
    pub expansion_ratio: u64,
    /// Expanded size up to which the ratio is not looked at: little and repetitive manifests are
    /// ordinary.
    pub expansion_ratio_from: u64,
    /// Objects of one blob.
    pub objects: usize,
    /// One object; etcd takes 1.5 MiB by default.
    pub object: usize,
    /// What the objects of one component take in its record in the cluster, which names them all; etcd takes
    /// 1.5 MiB by default, and the rest of the record comes on top.
    pub record: usize,
    /// What the agent may keep in Secrets for releases: blobs and pre-images of the committed, the
    /// previous and the one in flight.
    pub state: u64,
}

impl Limits {
    /// The limits of this build.
    pub const BUILT_IN: Self = Self {
        index: 512 * 1024,
        depth: 64,
        components: 64,
        entries_per_component: 256,
        entries_per_list: 1024,
        blob_compressed: 16 * 1024 * 1024,
        blob_expanded: 128 * 1024 * 1024,
        expansion_ratio: 100,
        expansion_ratio_from: 1024 * 1024,
        objects: 5_000,
        object: 1_468_006,
        record: 1_310_720,
        state: 64 * 1024 * 1024,
    };
}
