//! Open files: as many as the system grants, checked against what the configuration may need, and a few kept for those who
//! operate the process.
//!
//! A process without a free descriptor can accept nobody, connect nowhere and write no file. So listeners for the network
//! turn connections away while some are left ([`spare`]): administration, `/live` and the control plane go on.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The lowest number of a descriptor that the data path may not have.
static CEILING: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Kept free for administration, probes, files and the store, or a quarter of all if that is less.
const RESERVE: u64 = 192;

/// Raises the soft limit of open files to the hard one, and answers it.
///
/// # Errors
/// What the operating system says.
pub fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        // More than the kernel's own bound: then what there was must do.
        Err(_) => soft,
    };
    CEILING.store(ceiling(limit), Ordering::Relaxed);
    Ok(limit)
}

/// Raises the limit, and warns if what the bounds of the configuration add up to does not fit; `bounds` names them.
pub fn prepare(needed: u64, bounds: &str) {
    match raise() {
        Ok(limit) if limit >= needed.saturating_add(RESERVE) => {}
        Ok(limit) => tracing::warn!(
            limit,
            needed = needed.saturating_add(RESERVE),
            "{bounds} may need more open files than the process may have: connections beyond are turned away; raise the \
             hard limit (`ulimit -Hn`, `LimitNOFILE=`) or lower these limits"
        ),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Whether descriptors are scarce, by the number of one that was just opened: the kernel hands out the lowest free one. Then
/// whoever serves the network must close it.
pub fn spare(just_opened: &impl AsRawFd) -> bool {
    just_opened.as_raw_fd() < CEILING.load(Ordering::Relaxed)
}

fn ceiling(limit: u64) -> RawFd {
    RawFd::try_from(limit - RESERVE.min(limit / 4)).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_any_limit_is_kept() {
        assert_eq!((ceiling(64), ceiling(1024), ceiling(1 << 20)), (48, 832, (1 << 20) - 192));
        assert_eq!(ceiling(u64::MAX), RawFd::MAX);
    }
}
