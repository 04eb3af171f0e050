//! The wire contracts: generated code for `proto/eastway/*/v1/*.proto`, and no logic.
//!
//! The code under `gen/` is committed, so that building Eastway's own contracts needs no protobuf compiler.
//! `cargo test -p eastway-tests --test tidy` fails when it is stale; `make proto` writes it anew.
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::use_self)]

pub mod tunnel {
    //! Opening a stream between gateways.
    pub mod v1 {
        include!("gen/eastway.tunnel.v1.rs");
    }
}

pub mod discovery {
    //! Sidecars and their gateway.
    pub mod v1 {
        include!("gen/eastway.discovery.v1.rs");
    }
}

pub mod federation {
    //! Gateways among themselves.
    pub mod v1 {
        include!("gen/eastway.federation.v1.rs");
    }
}
