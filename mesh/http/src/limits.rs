//! Bounds of a head.

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Its bytes; 64 KiB by default.
    pub bytes: usize,
    /// Its fields; 256 by default, and never more than [`MAX_FIELDS`]. The bytes bound them before, in all but odd heads:
    /// browsers send each cookie of HTTP/2 as a field of its own, and some applications answer with hundreds.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, fields: 256 }
    }
}

/// The most fields that a head may have, however it is configured.
pub const MAX_FIELDS: usize = 1024;
