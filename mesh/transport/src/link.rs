//! The link ([`eastway_link`]) over any byte stream: who reads and writes, and what the tasks that use its streams share.
//!
//! One task drives a connection ([`Driver`]). What streams want to have written is gathered until the other tasks that are ready
//! have run, and then goes out in one write. `mesh/http` makes requests and answers of the streams; tunnels over TCP use them as
//! opaque bytes ([`Opaque`]).

mod driver;
mod opaque;
mod state;

pub use driver::Driver;
pub use opaque::Opaque;
pub use state::{Link, Opened, Shared, State, Stream, StreamFault};
