//! How this sidecar treats one service: its own configuration, and what the operator says of the service instead.
//!
//! Made anew whenever discovery delivers other numbers; requests under way end by those that they began with.

use std::time::Duration;

use eastway_core::policy::ServicePolicy;
use eastway_http::client::{H2Options, Ping};
use eastway_resilience::attempts::RetryPolicy;

use crate::config::{Config, Limits};

/// What an HTTP/2 connection may hold, on either side of it.
pub(crate) fn h2(limits: &Limits, ping: Option<Ping>) -> H2Options {
    H2Options {
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
        max_streams: limits.streams,
        send_buffer: limits.send_buffer,
        ping,
        ..H2Options::default()
    }
}

/// The numbers that hold for the requests to one service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrafficPolicy {
    pub(crate) retries: RetryPolicy,
    /// For the first byte of one attempt's response.
    pub(crate) per_try: Option<Duration>,
    /// For the first byte of the response, over all attempts.
    pub(crate) request: Duration,
    /// Requests in flight to the service.
    pub(crate) requests: u32,
    /// Opaque streams to the service that are open.
    pub(crate) streams: u32,
    /// Requests that wait for a connection.
    pub(crate) pending: u32,
    /// Requests in flight to one endpoint.
    pub(crate) endpoint_requests: u32,
    /// Connections of one worker to one endpoint.
    pub(crate) endpoint_connections: u32,
}

impl TrafficPolicy {
    /// Those of a service of which the operator says nothing.
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            retries: RetryPolicy {
                attempts: limits.attempts,
                attempts_in_all: limits.unsent_attempts,
                kept_body: limits.kept_body,
                held_response: limits.held_response,
                ..RetryPolicy::default()
            },
            per_try: None,
            request: config.timeouts.request,
            requests: limits.requests,
            streams: limits.opaque_streams,
            pending: limits.pending,
            endpoint_requests: limits.endpoint_requests,
            endpoint_connections: limits.endpoint_connections,
        }
    }

    /// These, with what the operator says.
    pub(crate) fn with(mut self, set: &ServicePolicy) -> Self {
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
        let own = TrafficPolicy {
            retries: RetryPolicy::default(),
            per_try: None,
            request: Duration::from_secs(15),
            requests: 1_024,
            streams: 4_096,
            pending: 1_024,
            endpoint_requests: 1_024,
            endpoint_connections: 1_024,
        };
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
