//! Who is who: SPIFFE X.509 identities, the cluster's CA, reload without restart, and the rustls configurations.
//!
//! A node loads its [`Identity`] from files and hands it to [`client_config`] or [`server_config`] together with whom it
//! [`Expected`]. Every handshake then checks the other side's certificate against the bundle of *that certificate's own*
//! trust domain, so that no cluster can speak for another, and its only URI name against the expectation.
//!
//! What a handshake admitted is verified again when certificates expire or bundles change: transports [hold](Held) their
//! connections.
//!
//! What this crate never does: talk to the network, know tokio, resume a TLS session (a resumed session would skip the
//! check of the certificate), accept anything older than TLS 1.3, or fall back to a process-wide crypto provider.

mod calendar;
mod digest;
mod error;
mod expected;
mod files;
#[cfg(test)]
mod fixture;
mod held;
mod identity;
mod introduction;
mod lifetime;
mod provider;
mod roots;
mod tls;
mod verifier;

pub mod ca;

pub use ca::{Ca, CaError, IssueOptions, Issued};
pub use digest::{secret, sha256};
pub use error::{IdentityError, LoadError, Refusal};
pub use expected::Expected;
pub use files::{IdentityFiles, Overwrite};
pub use held::{ClientTls, Held, Revoked, ServerTls, Tls};
pub use identity::Identity;
pub use identity::watch::{Watch, WatchOptions};
pub use introduction::{IntroductionError, bundle_hash, introducing_client, introducing_server, vouched_gateway};
pub use lifetime::Lifetime;
pub use provider::provider;
pub use roots::certificates_from_pem;
pub use tls::{client_config, server_config, server_name};
pub use verifier::peer_id;
