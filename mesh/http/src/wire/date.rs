//! The date that an answer without one is given (RFC 9110, section 6.6.1).

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a date.
const LENGTH: usize = 29;

thread_local! {
    /// The second that was written last, and how.
    static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b' '; LENGTH])) };
}

/// The date of now.
#[expect(clippy::disallowed_methods, reason = "a caller is told the time of the day; nothing is decided by it")]
pub(super) fn now() -> [u8; LENGTH] {
    at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn at(second: u64) -> [u8; LENGTH] {
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let text = date.as_bytes().try_into().unwrap_or(text);
    LAST.set((second, text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_second() {
        for (second, date) in [(0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT")] {
            for _ in 0..2 {
                assert_eq!(at(second), date.as_bytes());
            }
        }
    }
}
