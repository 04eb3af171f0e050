//! The end-to-end scenarios: real processes of the real binary, on loopback addresses, with certificates made at run time.
//!
//! Every test builds a small mesh of its own (`eastway_tests::lab`), does something to it, and waits for what must
//! come true. Each module is one question:

// What do applications see of HTTP through two sidecars of one cluster?
#[path = "e2e/http.rs"]
mod http_within;
// Do gRPC calls and streams pass, with their trailers, within a cluster and across?
#[path = "e2e/grpc.rs"]
mod grpc;
// Do bytes pass that are no HTTP, with the ends of their streams?
#[path = "e2e/opaque.rs"]
mod opaque;
// Is a caller told the same whichever way its request goes?
#[path = "e2e/ways.rs"]
mod ways;
// Does all of it work across clusters, and what can a gateway read of it?
#[path = "e2e/across.rs"]
mod across;
// Does anybody lose a request when zones, regions, gateways and sidecars die, restart or drain?
#[path = "e2e/failover.rs"]
mod failover;
#[path = "e2e/fleets.rs"]
mod fleets;
#[path = "e2e/restart.rs"]
mod restart;
// Do resources that operators apply act everywhere, or not at all?
#[path = "e2e/applied.rs"]
mod applied;
// Are operators of the cluster, and nobody else, taken from elsewhere?
#[path = "e2e/operators.rs"]
mod operators;
// Do clusters become peers by a token, and only by that?
#[path = "e2e/joining.rs"]
mod joining;
#[path = "e2e/names.rs"]
mod names;
// Does the host lead to the sidecar what is meant for the mesh, and nothing else?
#[path = "e2e/capture.rs"]
mod capture;
#[path = "e2e/on_demand.rs"]
mod on_demand;
// Does traffic come home in one go when a path heals?
#[path = "e2e/distance.rs"]
mod distance;
// Do clusters reach one another where UDP does not pass?
#[path = "e2e/blocked_udp.rs"]
mod blocked_udp;
// Who is let in, and what may they say of themselves?
#[path = "e2e/identity.rs"]
mod identity;
// Is a key shown anywhere?
#[path = "e2e/secrets.rs"]
mod secrets;
// What do clusters show one another?
#[path = "e2e/federation.rs"]
mod federation;
// What becomes of malformed, oversized, odd, slow and interrupted HTTP?
#[path = "e2e/interrupted.rs"]
mod interrupted;
#[path = "e2e/malformed.rs"]
mod malformed;
#[path = "e2e/odd.rs"]
mod odd;
#[path = "e2e/revoked.rs"]
mod revoked;
#[path = "e2e/uploads.rs"]
mod uploads;
// Does one bad actor stop the others?
#[path = "e2e/exhaustion.rs"]
mod exhaustion;
// Does the mesh outlive its etcd?
#[path = "e2e/etcd.rs"]
mod etcd;
#[path = "e2e/etcd_operated.rs"]
mod etcd_operated;
#[path = "e2e/etcd_secured.rs"]
mod etcd_secured;
// Does a gateway outlive a full disk?
#[path = "e2e/full_disk.rs"]
mod full_disk;
// What if a host is silent instead of dead, and what if the clock jumps?
#[path = "e2e/clock.rs"]
mod clock;
#[path = "e2e/vanished.rs"]
mod vanished;
// And what if all of that happens, in any order, to three clusters?
#[path = "e2e/nemesis.rs"]
mod nemesis;
// Are mistakes in configuration found, all at once, and are changes taken?
#[path = "e2e/configuration.rs"]
mod configuration;
// Does what is said of calls have its effect, and does what is explained come true?
#[path = "e2e/explain.rs"]
mod explain;
#[path = "e2e/traffic_policy.rs"]
mod traffic_policy;
// Can an operator see what is wrong, and what happened?
#[path = "e2e/metrics.rs"]
mod metrics;
#[path = "e2e/records.rs"]
mod records;
#[path = "e2e/status.rs"]
mod status;
#[path = "e2e/traces.rs"]
mod traces;
// Do the demo and the walk in the README work as they are written?
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/walk.rs"]
mod walk;

// What several of them use: a collector of traces, a forger of packets, an HTTP/2 client, curl, TLS without the mesh's care.
#[path = "e2e/collector.rs"]
mod collector;
#[path = "e2e/curl.rs"]
mod curl;
#[path = "e2e/forger.rs"]
mod forger;
#[path = "e2e/h2.rs"]
mod h2;
#[path = "e2e/tls.rs"]
mod tls;
