//! What the checks of several kinds share.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use eastway_documents::{Checks, DurationText};

pub(crate) fn time(
    checks: &mut Checks<'_>,
    path: &str,
    text: Option<&DurationText>,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    text.map(|text| checks.duration(path, text, range))
}

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn repeated(checks: &mut Checks<'_>, path: &str, texts: &[String]) {
    let mut seen = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        if !seen.insert(text) {
            checks.problem(&format!("{path}[{index}]"), format!("`{text}` is listed twice"));
        }
    }
}
