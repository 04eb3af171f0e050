//! Endpoints: one instance of a service, its health and its load.

use std::fmt;
use std::sync::Arc;

use litemap::LiteMap;
use serde::{Deserialize, Serialize};

/// The name of a workload instance, unique within its cluster and stable over restarts of the same instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(Arc<str>);

/// The most endpoints that one tunnel stream may ask to avoid. A caller names those that its request tried and those that
/// its sessions lead to, which are far fewer; whoever names more wants to keep a gateway busy, and is refused.
pub const MAX_EXCLUDED: usize = 32;

impl EndpointId {
    /// The endpoint named `id`.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of an endpoint's ability to serve. Ejection by a caller's breaker is not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its sidecar never saw the application ready in this incarnation: counted nowhere.
    #[default]
    Warming,
    /// Serves.
    Ready,
    /// Serves, but should get less: second choice in its priority.
    Degraded,
    /// Is going away in good order: no new work, but still in the denominator.
    Draining,
    /// The application's probe fails: in the denominator, without traffic.
    Unready,
    /// Positive evidence that the host or the sidecar is gone: a refused connection, or failed probes.
    Down,
}

impl Health {
    /// Every state, in the order of the wire's numbers.
    pub const ALL: [Self; 6] = [Self::Warming, Self::Ready, Self::Degraded, Self::Draining, Self::Unready, Self::Down];

    /// Whether the endpoint belongs in the denominator of its locality's availability.
    pub const fn counts(self) -> bool {
        !matches!(self, Self::Warming)
    }

    /// Whether new work may be sent at all, short of a panic.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }
}

/// What the called sidecar says of its own load. Rates and ratios are averages that the sidecar formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests in flight, all callers together.
    #[serde(alias = "rif")] // its former name
    pub active_requests: u32,
    /// Use of the endpoint's capacity, 0 to 1 and above when overloaded; `None` if unknown.
    pub utilisation: Option<f32>,
    /// Share of responses that were server errors, 0 to 1.
    pub error_rate: f32,
}

impl LoadReport {
    /// The form in the `eastway-load` header: `active=3;util=0.41;err=0.01`, with `rif`, the former name, beside `active`.
    pub fn to_header(&self) -> String {
        let Self { active_requests, utilisation, error_rate } = self;
        match utilisation {
            Some(u) => format!("active={active_requests};rif={active_requests};util={u:.3};err={error_rate:.4}"), // a former name
            None => format!("active={active_requests};rif={active_requests};err={error_rate:.4}"), // a former name
        }
    }

    /// Reads the header form; unknown keys are ignored, and anything malformed, negative or not finite gives `None`.
    pub fn from_header(text: &str) -> Option<Self> {
        let mut report = Self::default();
        // By bytes: it comes with every answer.
        for pair in text.as_bytes().split(|byte| *byte == b';') {
            let pair = std::str::from_utf8(pair).ok()?.trim();
            let equals = pair.bytes().position(|byte| byte == b'=')?;
            let (key, value) = (&pair[..equals], &pair[equals + 1..]);
            match key {
                "active" | "rif" => report.active_requests = value.parse().ok()?, // a former name
                "util" => report.utilisation = Some(ratio(value)?),
                "err" => report.error_rate = ratio(value)?,
                _ => {}
            }
        }
        Some(report)
    }
}

fn ratio(text: &str) -> Option<f32> {
    text.parse::<f32>().ok().filter(|value| value.is_finite() && *value >= 0.0)
}

/// What an endpoint's registration says of it besides, by key: kept once for everything that tells of the endpoint.
pub type Labels = Arc<LiteMap<String, String>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_reports_round_trip_through_the_header() {
        let full = LoadReport { active_requests: 7, utilisation: Some(0.5), error_rate: 0.25 };
        assert_eq!(LoadReport::from_header(&full.to_header()), Some(full));
        assert!(full.to_header().contains("active=7;rif=7"), "{}", full.to_header()); // a former name
        let unknown = LoadReport { active_requests: 0, utilisation: None, error_rate: 0.0 };
        assert_eq!(LoadReport::from_header(&unknown.to_header()), Some(unknown));
    }

    #[test]
    fn a_report_of_a_newer_or_an_earlier_version_is_still_read() {
        assert_eq!(LoadReport::from_header("active=2;queue=9").map(|r| r.active_requests), Some(2));
        assert_eq!(LoadReport::from_header("rif=2;err=0").map(|r| r.active_requests), Some(2)); // a former name
    }

    #[test]
    fn malformed_reports_are_ignored_whole() {
        for text in ["", "active", "active=-1", "util=NaN", "err=-0.1", "active=99999999999"] {
            assert_eq!(LoadReport::from_header(text), None, "{text}");
        }
    }

    #[test]
    fn only_ready_and_degraded_serve_and_only_warming_is_uncounted() {
        let serving: Vec<_> = Health::ALL.into_iter().filter(|h| h.serves()).collect();
        assert_eq!(serving, [Health::Ready, Health::Degraded]);
        let uncounted: Vec<_> = Health::ALL.into_iter().filter(|h| !h.counts()).collect();
        assert_eq!(uncounted, [Health::Warming]);
    }
}
