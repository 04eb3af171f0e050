mod harness;

mod crowd;
mod failing;
mod following;
mod picking;
mod policies;
mod properties;
mod remote;
mod returning;
