//! What is done to the mesh.

use std::fmt;
use std::time::Duration;

use super::plan::{Cluster, Host};

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// All processes of a host are killed, and started again at the end.
    Kill(Host),
    /// All processes of a host are stopped by SIGSTOP, and go on at the end.
    Freeze(Host),
    /// No packet passes from any of the first to any of the second; nor back, if it is cut both ways.
    Cut {
        /// Who sends.
        from: Vec<Host>,
        /// Who hears nothing.
        to: Vec<Host>,
        /// The way back is cut as well.
        both: bool,
    },
    /// 5 % of the packets that arrive at each of these are lost.
    Loss(Vec<Host>),
    /// What the gateways of two clusters send to one another takes `ONE_WAY` longer.
    Delay([Cluster; 2]),
    /// The disk on which a host keeps its state is full.
    FullDisk(Host),
    /// The wall clock of a host is so many seconds off.
    Clock(Host, i64),
}

/// How much longer packets take while they are delayed, one way.
pub(super) const ONE_WAY: Duration = Duration::from_millis(50);

impl What {
    /// The host whose processes do not do what they should.
    pub const fn host(&self) -> Option<Host> {
        match self {
            Self::Kill(host) | Self::Freeze(host) | Self::FullDisk(host) | Self::Clock(host, _) => Some(*host),
            Self::Cut { .. } | Self::Loss(_) | Self::Delay(_) => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[Host]| match hosts {
            many if many.len() > 6 => format!("all {} others", many.len()),
            few => few.iter().map(Host::to_string).collect::<Vec<_>>().join(" "),
        };
        match self {
            Self::Kill(host) => write!(f, "kill -9 {host}"),
            Self::Freeze(host) => write!(f, "SIGSTOP {host}"),
            Self::Cut { from, to, both } => {
                write!(f, "cut {} {} {}", list(from), if *both { "<->" } else { "-->" }, list(to))
            }
            Self::Loss(hosts) => write!(f, "5 % loss towards {}", list(hosts)),
            Self::Delay([one, other]) => {
                write!(f, "{ONE_WAY:?} more each way between {} and {}", one.name(), other.name())
            }
            Self::FullDisk(host) => write!(f, "full disk of {host}"),
            Self::Clock(host, seconds) => write!(f, "clock of {host} {seconds:+} s"),
        }
    }
}
