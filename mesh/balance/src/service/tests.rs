mod harness;

mod attempts;
mod beside;
mod exhaustive;
mod explaining;
mod failing;
mod following;
#[cfg(eastway_interleave)]
mod interleave;
mod invariants;
mod learning;
mod outages;
mod picking;
mod policies;
mod properties;
mod remote;
mod returning;
mod sessions;
mod sleeping;
mod turning;
