//! A network of a test's own, and programs that look names up where the test says. Needs root.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

use nix::sched::{CloneFlags, unshare};

use crate::process::required;

/// Puts the calling thread, and all that it starts from now on, into a network that nobody else is on: every loopback address and
/// every port is free. It is gone with the last of them.
///
/// # Panics
/// Without root.
pub fn network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own needs root, or CAP_SYS_ADMIN");
    let up = Command::new(required("ip", "iproute2")).args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "no loopback interface");
}

/// Runs a script of the shell where `file` is mounted at `/etc/resolv.conf`, which it may change.
///
/// # Panics
/// If it cannot be started.
pub fn with_resolv_conf(file: &Path, script: &str) -> Output {
    let mut command = Command::new(required("unshare", "util-linux"));
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    // What is written beside it is not to be seen outside.
    let mounts = "mount -t tmpfs none /mnt && cp -a /etc/. /mnt/ && rm -f /mnt/resolv.conf && cp \"$0\" /mnt/resolv.conf && \
                  mount --bind /mnt /etc";
    command.arg(format!("{mounts} && {script}")).arg(file);
    without_proxy(&mut command).output().expect("it starts")
}

/// Runs a program that looks every name up at `server`, port 53, as if the host were set up so; `words` are more lines of
/// resolv.conf(5). The file of that is put into `folder`.
///
/// # Panics
/// If it cannot be started.
pub fn resolving(server: Ipv4Addr, words: &str, folder: &Path, program: &Path, arguments: &[&str]) -> Output {
    let file = folder.join(format!("resolv-{server}.conf"));
    fs::write(&file, format!("nameserver {server}\n{words}\n")).expect("the folder is writable");
    let mut command = Command::new(required("unshare", "util-linux"));
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(&file).arg(program).args(arguments);
    without_proxy(&mut command).output().expect("it starts")
}

/// The program is told of no proxy, whatever the test's own environment says.
fn without_proxy(command: &mut Command) -> &mut Command {
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    names.into_iter().fold(command, Command::env_remove)
}
