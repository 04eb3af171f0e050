//! What callers of one locality see of a service: in which order its localities come.

use std::sync::Arc;

use eastway_core::ZoneId;

use super::CallerView;
use crate::distance::RingKeeper;
use crate::utilisation::Factor;

/// A view behind the service's lock.
#[derive(Debug)]
pub(super) struct ViewControl {
    pub(super) view: Arc<CallerView>,
    /// The localities in priority order, as the plan's.
    pub(super) places: Vec<Place>,
    /// One for each priority.
    pub(super) factors: Vec<Factor>,
}

/// Where a locality stands in a view.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) zone: ZoneId,
    /// Its index among the control's localities.
    pub(super) at: usize,
    pub(super) ring: RingKeeper,
    pub(super) priority: usize,
    pub(super) level: usize,
}

/// Of a locality that was not arranged yet.
const NO_PRIORITY: usize = usize::MAX;

impl Place {
    pub(super) fn new(zone: ZoneId) -> Self {
        Self { zone, at: 0, ring: RingKeeper::default(), priority: NO_PRIORITY, level: 0 }
    }
}

impl ViewControl {
    pub(super) fn new(view: Arc<CallerView>) -> Self {
        Self { view, places: Vec::new(), factors: Vec::new() }
    }
}
