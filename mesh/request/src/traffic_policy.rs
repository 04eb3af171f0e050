//! The numbers that hold for the requests to one service: the node's own, and what the operator says of the service instead.
//!
//! Made anew whenever discovery delivers other numbers; requests under way end by those that they began with.

use std::time::Duration;

use eastway_core::policy::ServicePolicy;
use eastway_resilience::attempts::RetryPolicy;

/// The numbers that hold for the requests to one service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrafficPolicy {
    /// How often, and when, a request is tried again.
    pub retries: RetryPolicy,
    /// For the first byte of one attempt's response.
    pub per_try: Option<Duration>,
    /// For the first byte of the response, over all attempts.
    pub request: Duration,
    /// Requests in flight to the service.
    pub requests: u32,
    /// Opaque streams to the service that are open.
    pub streams: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests in flight to one endpoint.
    pub endpoint_requests: u32,
    /// Connections of one worker to one endpoint.
    pub endpoint_connections: u32,
}

impl Default for TrafficPolicy {
    /// No limits but those of time: 15 s for the first byte of a response.
    fn default() -> Self {
        Self {
            retries: RetryPolicy::default(),
            per_try: None,
            request: Duration::from_secs(15),
            requests: u32::MAX,
            streams: u32::MAX,
            pending: u32::MAX,
            endpoint_requests: u32::MAX,
            endpoint_connections: u32::MAX,
        }
    }
}

impl TrafficPolicy {
    /// These, with what the operator says.
    #[must_use]
    pub fn with(mut self, set: &ServicePolicy) -> Self {
        let retries = &mut self.retries;
        if let Some(attempts) = set.retries.attempts {
            retries.attempts = attempts;
            retries.attempts_in_all = retries.attempts_in_all.max(attempts);
        }
        if let Some(backoff) = set.retries.backoff {
            retries.backoff.base = backoff;
            retries.backoff.max = retries.backoff.max.max(backoff);
        }
        self.per_try = set.retries.per_try;
        self.request = set.timeouts.request.unwrap_or(self.request);
        self.requests = set.limits.max_requests.unwrap_or(self.requests);
        self.streams = set.limits.max_requests.unwrap_or(self.streams);
        self.pending = set.limits.max_pending.unwrap_or(self.pending);
        self.endpoint_connections = set.limits.max_connections.unwrap_or(self.endpoint_connections);
        self
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::policy::{RetryRules, ServiceLimits};

    use super::*;

    #[test]
    fn what_the_operator_says_replaces_the_sidecars_own_numbers() {
        let own = TrafficPolicy { requests: 1_024, ..TrafficPolicy::default() };
        assert_eq!(own.with(&ServicePolicy::default()), own);
        let set = own.with(&ServicePolicy {
            limits: ServiceLimits { max_connections: Some(2), ..ServiceLimits::default() },
            retries: RetryRules {
                attempts: Some(6),
                per_try: Some(Duration::from_secs(1)),
                backoff: Some(Duration::from_secs(2)),
                ..RetryRules::default()
            },
            ..ServicePolicy::default()
        });
        assert_eq!((set.endpoint_connections, set.requests), (2, 1_024));
        assert_eq!((set.retries.attempts, set.retries.attempts_in_all), (6, 6));
        assert_eq!(
            (set.retries.backoff.base, set.retries.backoff.max),
            (Duration::from_secs(2), Duration::from_secs(2))
        );
        assert_eq!((set.per_try, set.request), (Some(Duration::from_secs(1)), Duration::from_secs(15)));
    }
}
