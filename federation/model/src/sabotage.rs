//! Rules that are broken on purpose, each outside of the production code: a simulation that does not notice proves nothing.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Writes of slices do not compare the key of the epoch.
    Fencing,
    /// What vanishes without explanation is let go at once.
    Hold,
    /// A stream with a hole is read on.
    Gap,
    /// Slices are collected without waiting.
    CollectionWait,
    /// Who collects does not compare the key of the election.
    Leadership,
    /// A gateway begins its life without regard to those before it.
    Epoch,
    /// A write that conflicts is taken for done.
    Conflict,
    /// A position that was lost is not made up for by a listing.
    Relisting,
    /// Every silent endpoint is taken for down.
    Probing,
    /// A snapshot is taken before its end.
    HalfSnapshot,
    /// What a gateway says of its siblings to a peer is not heard.
    Siblings,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Fencing,
        Self::Hold,
        Self::Gap,
        Self::CollectionWait,
        Self::Leadership,
        Self::Epoch,
        Self::Conflict,
        Self::Relisting,
        Self::Probing,
        Self::HalfSnapshot,
        Self::Siblings,
    ];
}
