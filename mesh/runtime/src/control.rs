//! The control runtime: gRPC, administration, metrics, exporters, probes. Never data.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

/// Two threads, also on one core: an exporter that blocks one of them must not stop the other.
const THREADS: usize = 2;

/// Builds the runtime on which everything runs that is not the data path.
///
/// # Errors
/// The threads or the I/O driver cannot be created.
pub fn runtime() -> io::Result<Runtime> {
    let next = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name_fn(move || format!("control-{}", next.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build()
}
