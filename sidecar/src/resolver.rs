//! How the host looks names up, and how it is set to ask the sidecar: `eastway sidecar dns`.
//!
//! Where systemd-resolved answers for the host it is told which names are whose, by a file of its own folder, and keeps all others
//! to itself. Elsewhere resolv.conf(5) names the sidecar alone, which asks the servers that stood there before; what was there is
//! kept beside it as it was, link or file, and put back by one rename.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use eastway_core::name::CLUSTERSET_SUFFIX;

/// What the C library reads.
const RESOLV_CONF: &str = "etc/resolv.conf";
/// What stood there before.
const BEFORE: &str = "etc/resolv.conf.before-eastway";
/// Where systemd-resolved keeps what it runs by; it is there while that runs.
const RESOLVED: &str = "run/systemd/resolve";
/// What it reads beside its own configuration.
const DROP_INS: &str = "etc/systemd/resolved.conf.d";
const DROP_IN: &str = "eastway.conf";

/// The first line of every file of ours.
const OURS: &str = "# Written by `eastway sidecar dns install`; `eastway sidecar dns remove` takes it back.";
/// In the second line of a drop-in whose folder was made for it.
const FOLDER_TOO: &str = "# Its folder was not there.";

/// The port that resolv.conf(5) knows.
const PORT: u16 = 53;

/// Why the host's resolver was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// resolv.conf has no place for a port.
    #[error(
        "this host looks names up as {} says, which has no place for a port: set `dns.listen` to {}:53 (the sidecar then needs \
         CAP_NET_BIND_SERVICE), or use systemd-resolved, which takes {0}",
        path.display(), listen.ip()
    )]
    Port {
        /// The file.
        path: PathBuf,
        /// Where the sidecar answers.
        listen: SocketAddr,
    },
    /// Somebody else has written the file since.
    #[error(
        "somebody else has changed {} since: it is left as it is; what stood there before is kept in {}, and `--force` puts that back",
        path.display(), before.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Where what stood there before is.
        before: PathBuf,
    },
    /// What is kept from before is in the way.
    #[error("{} is there, but {} is not ours: look at both, and move the former away", before.display(), path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        before: PathBuf,
    },
}

/// By whom the host looks names up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// systemd-resolved: it has to be restarted after a change.
    Resolved,
    /// The C library, by resolv.conf(5).
    ResolvConf,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// By whom the host looks names up.
    pub kind: Kind,
    /// The file that sends it to the sidecar, and what it holds; none if nothing is installed.
    pub installed: Option<(PathBuf, String)>,
}

/// A host's resolver.
#[derive(Clone, Debug)]
pub struct HostResolver {
    root: PathBuf,
}

/// Which servers were listed before the sidecar took their place; else those that are listed.
pub(crate) fn servers_file(root: &Path) -> PathBuf {
    let before = root.join(BEFORE);
    if before.exists() { before } else { root.join(RESOLV_CONF) }
}

impl HostResolver {
    /// That of the host whose files are below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// By whom the host looks names up.
    pub fn kind(&self) -> Kind {
        let link = fs::read_link(self.path(RESOLV_CONF)).unwrap_or_default();
        let resolved = self.path(RESOLVED).is_dir() && link.to_string_lossy().contains("systemd/resolve");
        if resolved { Kind::Resolved } else { Kind::ResolvConf }
    }

    /// How it stands.
    ///
    /// # Errors
    /// [`ResolverError::File`].
    pub fn standing(&self) -> Result<Standing, ResolverError> {
        let ours =
            |path: PathBuf| Ok::<_, ResolverError>(text(&path)?.filter(|text| is_ours(text)).map(|text| (path, text)));
        let installed = match ours(self.drop_in())? {
            None => ours(self.path(RESOLV_CONF))?,
            installed => installed,
        };
        let kind = if installed.is_some() && self.path(BEFORE).symlink_metadata().is_ok() {
            Kind::ResolvConf
        } else {
            self.kind()
        };
        Ok(Standing { kind, installed })
    }

    /// Has the host ask the sidecar at `listen` for the mesh's names, which end in `suffix`. What is in place already is written
    /// anew.
    ///
    /// # Errors
    /// [`ResolverError`]; nothing was changed.
    pub fn install(&self, listen: SocketAddr, suffix: &str) -> Result<Kind, ResolverError> {
        let Standing { kind, installed } = self.standing()?;
        match kind {
            Kind::Resolved => self.install_drop_in(listen, suffix)?,
            Kind::ResolvConf => self.install_resolv_conf(listen, installed.is_some())?,
        }
        Ok(kind)
    }

    /// Puts back what was there before. False if nothing was installed.
    ///
    /// # Errors
    /// [`ResolverError`]; nothing was changed.
    pub fn remove(&self, force: bool) -> Result<Option<Kind>, ResolverError> {
        let Standing { kind, installed } = self.standing()?;
        let (path, before) = (self.path(RESOLV_CONF), self.path(BEFORE));
        let Some((installed, said)) = installed else {
            if before.symlink_metadata().is_err() {
                return Ok(None);
            }
            if !force {
                return Err(ResolverError::Changed { path, before });
            }
            put_back(&before, &path)?;
            return Ok(Some(Kind::ResolvConf));
        };
        match kind {
            Kind::Resolved => {
                fs::remove_file(&installed).map_err(file("remove", &installed))?;
                if said.contains(FOLDER_TOO) {
                    // Unless somebody else has put something there since.
                    let _ = fs::remove_dir(self.path(DROP_INS));
                }
            }
            Kind::ResolvConf => put_back(&before, &path)?,
        }
        Ok(Some(kind))
    }

    fn install_drop_in(&self, listen: SocketAddr, suffix: &str) -> Result<(), ResolverError> {
        let (folder, path) = (self.path(DROP_INS), self.drop_in());
        let before = text(&path)?;
        let made = !folder.is_dir() || before.is_some_and(|before| before.contains(FOLDER_TOO));
        fs::create_dir_all(&folder).map_err(file("make", &folder))?;
        let folder_too = if made { format!("{FOLDER_TOO}\n") } else { String::new() };
        let text = format!("{OURS}\n{folder_too}[Resolve]\nDNS={listen}\nDomains=~{suffix} ~{CLUSTERSET_SUFFIX}\n");
        replace(&path, &text)
    }

    fn install_resolv_conf(&self, listen: SocketAddr, again: bool) -> Result<(), ResolverError> {
        let (path, before) = (self.path(RESOLV_CONF), self.path(BEFORE));
        if listen.port() != PORT {
            return Err(ResolverError::Port { path, listen });
        }
        if !again {
            if before.symlink_metadata().is_ok() {
                return Err(ResolverError::Kept { path, before });
            }
            keep(&path, &before)?;
        }
        let stood = text(&before)?.unwrap_or_default();
        let others = stood
            .lines()
            .filter(|line| matches!(line.split_whitespace().next(), Some("search" | "domain" | "options")));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        let text = format!("{OURS}\n# What stood here is in /{BEFORE}.\nnameserver {}\n{others}", listen.ip());
        replace(&path, &text).inspect_err(|_| {
            if !again {
                let _ = fs::remove_file(&before);
            }
        })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn drop_in(&self) -> PathBuf {
        self.path(DROP_INS).join(DROP_IN)
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResolverError {
    move |source| ResolverError::File { what, path: path.to_owned(), source }
}

/// What the file holds; `None` if there is none.
fn text(path: &Path) -> Result<Option<String>, ResolverError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

fn is_ours(text: &str) -> bool {
    text.starts_with(OURS)
}

/// Keeps what is at `path` at `before` as well: the very file or link, with all that belongs to it. A file that is mounted there
/// cannot have two names, and is copied.
fn keep(path: &Path, before: &Path) -> Result<(), ResolverError> {
    if fs::hard_link(path, before).is_ok() {
        return Ok(());
    }
    match fs::copy(path, before) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(before, "").map_err(file("write", before)),
        Err(error) => Err(file("copy to", before)(error)),
    }
}

/// Makes the file hold `text`, in one step.
fn replace(path: &Path, text: &str) -> Result<(), ResolverError> {
    let new = path.with_extension("eastway-new");
    let written = fs::File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(file("write", &new))?;
    let renamed = fs::rename(&new, path).or_else(|error| match error.kind() {
        // Something is mounted there.
        io::ErrorKind::ResourceBusy => {
            let written = fs::write(path, text);
            let _ = fs::remove_file(&new);
            written
        }
        _ => Err(error),
    });
    renamed.map_err(file("write", path))
}

/// The same with what is at `before`, which is gone then.
fn put_back(before: &Path, path: &Path) -> Result<(), ResolverError> {
    let renamed = fs::rename(before, path).or_else(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => {
            fs::read(before).and_then(|bytes| fs::write(path, bytes)).and_then(|()| fs::remove_file(before))
        }
        _ => Err(error),
    });
    renamed.map_err(file("put back", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);

    /// A host with this resolv.conf.
    fn host(resolv_conf: &str) -> (TempDir, HostResolver) {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("etc")).expect("made");
        fs::write(root.path().join(RESOLV_CONF), resolv_conf).expect("written");
        let resolver = HostResolver::new(root.path());
        (root, resolver)
    }

    /// Every file and link below the folder, with what it holds.
    fn everything(folder: &Path) -> Vec<String> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("there");
            let mode = meta.permissions().mode();
            all.push(match () {
                () if meta.is_symlink() => format!("{path:?} -> {:?}", fs::read_link(&path).expect("a link")),
                () if meta.is_dir() => format!("{path:?} {mode:o} {:?}", everything(&path)),
                () => format!("{path:?} {mode:o} {:?}", fs::read_to_string(&path).expect("text")),
            });
        }
        all.sort();
        all
    }

    #[test]
    fn resolv_conf_names_the_sidecar_alone_and_is_put_back_as_it_was() {
        let (root, resolver) = host("# by hand\nsearch corp.example\nnameserver 192.0.2.7\noptions ndots:2\n");
        fs::set_permissions(root.path().join(RESOLV_CONF), fs::Permissions::from_mode(0o640)).expect("changed");
        let before = everything(root.path());
        assert_eq!(resolver.standing().expect("read").installed, None);
        for _ in 0..2 {
            assert_eq!(resolver.install(LISTEN, "mesh.internal").expect("installed"), Kind::ResolvConf);
            let (_, text) = resolver.standing().expect("read").installed.expect("ours");
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, ["nameserver 127.0.0.1", "search corp.example", "options ndots:2"]);
            let servers = fs::read_to_string(servers_file(root.path())).expect("kept");
            assert!(servers.contains("nameserver 192.0.2.7"), "whom the sidecar asks: {servers}");
        }
        assert_eq!(resolver.remove(false).expect("removed"), Some(Kind::ResolvConf));
        assert_eq!(everything(root.path()), before);
        assert_eq!(resolver.remove(false).expect("nothing to do"), None);
        assert_eq!(servers_file(root.path()), root.path().join(RESOLV_CONF));
    }

    #[test]
    fn a_link_is_put_back_as_a_link_and_followed_meanwhile() {
        let (root, resolver) = host("");
        let path = root.path().join(RESOLV_CONF);
        fs::remove_file(&path).expect("removed");
        fs::write(root.path().join("etc/managed"), "nameserver 192.0.2.8\n").expect("written");
        symlink("managed", &path).expect("linked");
        let before = everything(root.path());
        resolver.install(LISTEN, "mesh.internal").expect("installed");
        fs::write(root.path().join("etc/managed"), "nameserver 192.0.2.9\n").expect("whoever manages it goes on");
        let servers = fs::read_to_string(servers_file(root.path())).expect("kept");
        assert_eq!(servers, "nameserver 192.0.2.9\n");
        fs::write(root.path().join("etc/managed"), "nameserver 192.0.2.8\n").expect("written");
        resolver.remove(false).expect("removed");
        assert_eq!(everything(root.path()), before);
    }

    #[test]
    fn systemd_resolved_is_told_which_names_are_whose() {
        let (root, resolver) = host("");
        let path = root.path().join(RESOLV_CONF);
        fs::create_dir_all(root.path().join(RESOLVED)).expect("made");
        fs::remove_file(&path).expect("removed");
        symlink("../run/systemd/resolve/stub-resolv.conf", &path).expect("linked");
        fs::create_dir_all(root.path().join("etc/systemd")).expect("made");
        let before = everything(root.path());
        let listen = ([127, 0, 0, 1], 15_053).into();
        for _ in 0..2 {
            assert_eq!(resolver.install(listen, "corp.example").expect("installed"), Kind::Resolved);
        }
        let (_, text) = resolver.standing().expect("read").installed.expect("ours");
        assert!(text.contains("DNS=127.0.0.1:15053\nDomains=~corp.example ~svc.clusterset.local\n"), "{text}");
        assert_eq!(resolver.remove(false).expect("removed"), Some(Kind::Resolved));
        assert_eq!(everything(root.path()), before, "the folder too");
    }

    #[test]
    fn what_cannot_work_or_is_somebody_elses_is_left_alone() {
        let (root, resolver) = host("nameserver 192.0.2.7\n");
        let before = everything(root.path());
        let port = resolver.install(([127, 0, 0, 1], 15_053).into(), "mesh.internal");
        assert!(matches!(port, Err(ResolverError::Port { .. })), "{port:?}");
        assert_eq!(everything(root.path()), before);

        resolver.install(LISTEN, "mesh.internal").expect("installed");
        fs::write(root.path().join(RESOLV_CONF), "nameserver 192.0.2.1\n").expect("written by a DHCP client");
        let changed = everything(root.path());
        assert!(matches!(resolver.remove(false), Err(ResolverError::Changed { .. })));
        assert!(matches!(resolver.install(LISTEN, "mesh.internal"), Err(ResolverError::Kept { .. })));
        assert_eq!(everything(root.path()), changed);
        resolver.remove(true).expect("put back");
        assert_eq!(everything(root.path()), before);
    }
}
