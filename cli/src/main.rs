//! `eastway`: the roles and the operator's commands, a file a verb.
//!
//! Exit codes: 0 success, 1 failure (of `status`: or something is wrong), 2 a mistake on the command line, 3 a configuration
//! that cannot be used.

mod app;
mod apply;
mod ca;
mod connections;
mod context;
mod delete;
mod demo;
mod diff;
mod division;
mod endpoints;
mod explain;
mod get;
mod instead;
mod operator;
mod peer;
mod peers;
mod resources;
mod role;
mod rollback;
mod services;
mod sidecar;
mod simulate;
mod status;
mod what_if;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The data path allocates per request: a faster allocator is felt there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of `diff` when something differs.
const DIFFERS: u8 = 2;

/// A multi-cluster gateway mesh with locality-aware failover.
#[derive(Debug, Parser)]
#[command(name = "eastway", version, propagate_version = true)]
struct Eastway {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a gateway: discovery for the cluster's sidecars, tunnels to other clusters.
    Gateway(role::RoleCommand),
    /// Run the sidecar of a workload, or set up the host around it.
    Sidecar(sidecar::SidecarCommand),
    /// Make a cluster's CA and issue certificates.
    Ca(ca::CaCommand),
    /// Say how a cluster stands with itself and with others, and what is wrong. Exits with 0 only if nothing is.
    Status(status::StatusCommand),
    /// List the services: ports, endpoints, clusters.
    Services(services::ServicesCommand),
    /// List the endpoints of the cluster, and who says how each does.
    Endpoints(endpoints::EndpointsCommand),
    /// List the connections and other streams of bytes that are open through a sidecar.
    Connections(connections::ConnectionsCommand),
    /// List the paths to other clusters, and how old their word is.
    Peers(peers::PeersCommand),
    /// Make other clusters peers by a token, list them, and end them.
    Peer(peer::PeerCommand),
    /// Make the cluster's resources be as files say.
    Apply(apply::ApplyCommand),
    /// Say what `apply` would change. Exits with 2 if that is anything.
    Diff(diff::DiffCommand),
    /// List the resources that count, and whose each is.
    Get(get::GetCommand),
    /// Delete resources that were applied.
    Delete(delete::DeleteCommand),
    /// Make what is applied be as it was before.
    Rollback(rollback::RollbackCommand),
    /// Say where a service's requests go, and why.
    Explain(explain::ExplainCommand),
    /// Say where a service's requests would go after a loss, and whether the rest could bear it.
    WhatIf(what_if::WhatIfCommand),
    /// Run a scenario with the production decision code, in simulated time.
    Simulate(simulate::SimulateCommand),
    /// Show two regions losing a zone and a region, with live traffic, on this machine.
    Demo(demo::DemoCommand),
    /// Run the sample application of the demo.
    App(app::AppCommand),
    /// Become another program that must not outlive the demo.
    #[command(hide = true)]
    Instead(instead::InsteadCommand),
}

fn main() -> ExitCode {
    role::die_with_parent();
    let outcome = match Eastway::parse().verb {
        Verb::Gateway(command) => return command.gateway(),
        Verb::Sidecar(command) => return command.run(),
        Verb::Ca(command) => command.run().map(|()| true),
        Verb::Status(command) => command.run(),
        Verb::Services(command) => command.run().map(|()| true),
        Verb::Endpoints(command) => command.run().map(|()| true),
        Verb::Connections(command) => command.run().map(|()| true),
        Verb::Peers(command) => command.run().map(|()| true),
        Verb::Peer(command) => command.run().map(|()| true),
        Verb::Apply(command) => command.run().map(|()| true),
        Verb::Diff(command) => match command.run() {
            Ok(true) => return ExitCode::from(DIFFERS),
            same => same.map(|_| true),
        },
        Verb::Get(command) => command.run().map(|()| true),
        Verb::Delete(command) => command.run().map(|()| true),
        Verb::Rollback(command) => command.run().map(|()| true),
        Verb::Explain(command) => command.run().map(|()| true),
        Verb::WhatIf(command) => command.run().map(|()| true),
        Verb::Simulate(command) => command.run().map(|()| true),
        Verb::Demo(command) => command.run(),
        Verb::App(command) => command.run().map(|()| true),
        Verb::Instead(command) => command.run().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => role::failed(&error),
    }
}
