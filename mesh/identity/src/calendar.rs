//! The calendar time, which certificates are made of and checked by. Nothing else in the mesh is decided by it.

use std::time::{Duration, SystemTime};

/// The calendar time now.
#[expect(clippy::disallowed_methods, reason = "certificates are valid between two calendar times")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970, as certificates count, as the standard library counts; before it is taken as 1970.
pub(crate) fn system_time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}
