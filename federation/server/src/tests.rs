//! Servers and sidecars together: in memory on paused time, and over real TLS where identities matter.

mod applied;
mod gateways;
mod identities;
mod membership;
mod outages;
mod sidecars;
mod subscribers;
mod virtuals;
