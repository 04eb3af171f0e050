//! Two sides joined in memory.

mod credit;
mod drain;
mod exchange;
mod fairness;
mod floods;
mod liveness;
mod properties;
mod violations;
mod wakeups;
