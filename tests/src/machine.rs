//! What all tests of a process share: the machine. Most run beside each other; what loads it for long runs alone.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::process::required;

static MACHINE: RwLock<()> = RwLock::new(());

/// A test that others may run beside.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    // A test that failed holds nothing that could be broken.
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A test that needs the machine for itself.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A host whose packets vanish: whoever sends to it hears nothing, not even a refusal. Dropping it heals the network.
#[derive(Debug)]
pub struct Blackhole {
    table: String,
}

impl Blackhole {
    /// Drops every packet to `host`, by a table of packet filter rules of its own. Needs root.
    ///
    /// # Panics
    /// If the rules cannot be set.
    pub fn around(host: Ipv4Addr) -> Self {
        Self::dropping(host, "")
    }

    /// Drops one of so many TCP packets to a `port` of `host`.
    ///
    /// # Panics
    /// As [`Blackhole::around`].
    pub fn of_one_in(packets: u32, host: Ipv4Addr, port: u16) -> Self {
        Self::dropping(host, &format!("tcp dport {port} numgen random mod {packets} == 0"))
    }

    fn dropping(host: Ipv4Addr, which: &str) -> Self {
        let [_, b, c, d] = host.octets();
        let table = format!("eastway_test_{}_{b}_{c}_{d}", std::process::id());
        // At the input hook the sender has sent already, and sees nothing of what happens here.
        let rules = format!(
            "table ip {table} {{ chain input {{ type filter hook input priority -10; policy accept; ip daddr {} {which} drop; }}; }}",
            IpAddr::V4(host)
        );
        nft(&rules);
        Self { table }
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        nft(&format!("delete table ip {}", self.table));
    }
}

/// A small disk of its own at a folder, which can be filled and freed again. Dropping it takes it away.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one with room for `megabytes` at `folder`, which is made. Needs root.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn at(folder: &Path, megabytes: u32) -> Self {
        std::fs::create_dir_all(folder).expect("the lab's folder is writable");
        let size = format!("size={megabytes}m,mode=0755");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        let output = output.expect("mount starts");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount: {words} (mounting needs root, or CAP_SYS_ADMIN)");
        Self { folder: folder.to_owned() }
    }

    /// Leaves no room for another byte.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the disk has room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Takes back what filled it.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}

/// How many TCP connections are open to a listener.
///
/// # Panics
/// If the kernel does not say.
pub fn connections_to(listener: SocketAddrV4) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(listener.ip().octets()), listener.port());
    let open = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(local.as_str()) && columns.nth(1) == Some("01")
    };
    table.lines().filter(open).count()
}

fn nft(rules: &str) {
    let output = Command::new(required("nft", "nftables")).arg(rules).output().expect("nft starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {rules}: {words} (dropping packets needs root, or CAP_NET_ADMIN)");
}
