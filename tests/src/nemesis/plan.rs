//! The mesh that the nemesis torments: three clusters of nine hosts each, and who calls whom. It never changes, so that a seed
//! alone says what a run does.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// One of the three clusters, each a region of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cluster(u8);

/// What runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// One of two gateways of a cluster.
    Gateway,
    /// One of three members of a cluster's etcd.
    Member,
    /// An application with its sidecar: it serves, and calls everybody else.
    Workload,
}

/// A host: a network namespace with an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// The cluster that it belongs to.
    pub cluster: Cluster,
    /// What runs there.
    pub role: Role,
    /// Which one of its role, from 1.
    pub number: u8,
}

/// What a request asks for: a service, of any cluster or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its name in the namespace shop.
    pub service: &'static str,
    /// The only cluster that may answer.
    pub cluster: Option<Cluster>,
}

const NAMES: [&str; 3] = ["us-east", "eu-west", "ap-south"];
/// What the workloads of every cluster serve, and in which zone, in the order of their numbers.
const WORKLOADS: [(&str, &str); 4] = [("payments", "a"), ("payments", "b"), ("ledger", "a"), ("ledger", "b")];
/// The services that there are.
pub(super) const SERVICES: [&str; 2] = ["payments", "ledger"];

impl Cluster {
    /// All three.
    pub const ALL: [Self; 3] = [Self(0), Self(1), Self(2)];

    /// Its name.
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// The other two.
    pub fn others(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |other| *other != self)
    }

    /// Its hosts of a role.
    pub fn hosts(self, role: Role) -> Vec<Host> {
        (1..=role.size()).map(|number| Host { cluster: self, role, number }).collect()
    }

    /// Its part of the network, for a routing table.
    pub fn network(self) -> String {
        format!("10.77.{}.0/24", self.0 + 1)
    }
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Member, Self::Workload];

    const fn size(self) -> u8 {
        match self {
            Self::Gateway => 2,
            Self::Member => 3,
            Self::Workload => WORKLOADS.len() as u8,
        }
    }
}

impl Host {
    /// Every host of every cluster.
    pub fn all() -> Vec<Self> {
        Cluster::ALL
            .into_iter()
            .flat_map(|cluster| Role::ALL.into_iter().flat_map(move |role| cluster.hosts(role)))
            .collect()
    }

    /// Every host of a role, in all clusters.
    pub fn of(role: Role) -> Vec<Self> {
        Cluster::ALL.into_iter().flat_map(|cluster| cluster.hosts(role)).collect()
    }

    /// Its address. It means nothing outside the namespaces of a run.
    pub const fn ip(self) -> Ipv4Addr {
        let tens = match self.role {
            Role::Gateway => 10,
            Role::Member => 20,
            Role::Workload => 30,
        };
        Ipv4Addr::new(10, 77, self.cluster.0 + 1, tens + self.number)
    }

    /// Its address at a port.
    pub const fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(self.ip()), port)
    }

    /// What a workload serves.
    pub const fn service(self) -> &'static str {
        WORKLOADS[self.number as usize - 1].0
    }

    /// The zone that a workload is in.
    pub const fn zone(self) -> &'static str {
        WORKLOADS[self.number as usize - 1].1
    }
}

impl Target {
    /// All that every workload calls.
    pub fn all() -> Vec<Self> {
        let places = || std::iter::once(None).chain(Cluster::ALL.into_iter().map(Some));
        SERVICES.into_iter().flat_map(|service| places().map(move |cluster| Self { service, cluster })).collect()
    }

    /// What is asked for under this name.
    pub fn host(self) -> String {
        match self.cluster {
            None => format!("{}.shop.mesh.internal", self.service),
            Some(cluster) => format!("{}.shop.{}.mesh.internal", self.service, cluster.name()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, number) = (self.cluster.name(), self.number);
        match self.role {
            Role::Gateway => write!(f, "{cluster}-gateway-{number}"),
            Role::Member => write!(f, "{cluster}-etcd-{number}"),
            Role::Workload => write!(f, "{cluster}-{}-{}", self.service(), self.zone()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}
