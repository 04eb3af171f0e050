mod harness;

mod crowd;
mod failing;
mod following;
#[cfg(eastway_interleave)]
mod interleave;
mod picking;
mod policies;
mod properties;
mod remote;
mod returning;
