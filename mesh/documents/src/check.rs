//! What no schema can say: that an address can be listened on, a file read, a name used. Collects every problem.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eastway_core::name::is_label;
use eastway_core::spiffe::is_trust_domain;
use eastway_core::text::{AddressText, DurationText, FileText};

use super::Source;
use super::problem::{Problem, Problems, Severity};

/// The checks of one file. Each returns what the text means, or a stand-in after it has recorded a problem, so that one
/// run finds everything.
#[derive(Debug)]
pub struct Checks<'a> {
    source: &'a Source,
    problems: Problems,
    listeners: Vec<(SocketAddr, String)>,
}

/// What stands for an address that could not be read: one that nobody can mean.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 0);

/// Whether `address` stands for one that could not be read, so that there is no more to be said about it.
pub fn is_stand_in(address: SocketAddr) -> bool {
    address == NOWHERE
}

impl<'a> Checks<'a> {
    /// No problem yet in `source`.
    pub fn new(source: &'a Source) -> Self {
        Self { source, problems: Problems::default(), listeners: Vec::new() }
    }

    /// Records that something is wrong at `path`.
    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(self.source.file(), self.source.line(path), path, message));
    }

    /// Records that something is wrong at `path`, and what to do about it.
    pub fn advise(&mut self, severity: Severity, path: &str, cause: impl Into<String>, suggestion: impl Into<String>) {
        let (file, line) = (self.source.file(), self.source.line(path));
        let problem = Problem::new(file, line, path, cause);
        self.problems.push(Problem { severity, suggestion: Some(suggestion.into()), ..problem });
    }

    /// Takes over problems that were found elsewhere.
    pub fn extend(&mut self, problems: Problems) {
        self.problems.extend(problems);
    }

    /// What was recorded.
    pub fn found(self) -> Problems {
        self.problems
    }

    /// `value`, if there is no problem.
    ///
    /// # Errors
    /// All problems recorded.
    pub fn finish<T>(self, value: T) -> Result<T, Problems> {
        self.problems.or(value)
    }

    /// A length of time within `range`.
    pub fn duration(&mut self, path: &str, text: &DurationText, range: RangeInclusive<Duration>) -> Duration {
        match text.duration() {
            Ok(duration) if range.contains(&duration) => duration,
            Ok(_) => {
                let show = humantime::format_duration;
                let (least, most) = (show(*range.start()), show(*range.end()));
                self.problem(path, format!("`{text}` is out of range: from {least} to {most}"));
                *range.end()
            }
            Err(error) => {
                self.problem(path, format!("`{text}` is not a duration such as 250ms, 30s or 5m: {error}"));
                *range.end()
            }
        }
    }

    /// An address to listen on. Port 0 takes a free port. No other listener of the file may have the same.
    pub fn listen(&mut self, path: &str, text: &AddressText) -> SocketAddr {
        let Some(address) = self.address(path, text) else { return NOWHERE };
        if let Some((_, other)) = self.listeners.iter().find(|(other, _)| conflict(*other, address)) {
            let message = format!("`{address}` conflicts with {other}: two listeners cannot share an address");
            self.problem(path, message);
        }
        self.listeners.push((address, path.to_owned()));
        address
    }

    /// An address to listen on that only this machine reaches.
    pub fn listen_locally(&mut self, path: &str, text: &AddressText, why: &str) -> SocketAddr {
        let address = self.listen(path, text);
        if !is_stand_in(address) && !address.ip().is_loopback() {
            self.problem(path, format!("`{address}` is not a loopback address: {why}"));
        }
        address
    }

    /// An address to connect to.
    pub fn target(&mut self, path: &str, text: &AddressText) -> SocketAddr {
        let Some(address) = self.address(path, text) else { return NOWHERE };
        if address.port() == 0 {
            self.problem(path, format!("`{address}` cannot be connected to: port 0 is no port"));
        } else if address.ip().is_unspecified() {
            self.problem(path, format!("`{address}` cannot be connected to: name one address"));
        }
        address
    }

    fn address(&mut self, path: &str, text: &AddressText) -> Option<SocketAddr> {
        let address = text.as_str().parse().ok();
        if address.is_none() {
            let hint = "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080";
            self.problem(path, format!("`{text}` is not an address: {hint}"));
        }
        address
    }

    /// A name that becomes part of host names, identities and keys: a DNS label.
    pub fn label(&mut self, path: &str, text: &str) -> String {
        if !is_label(text) {
            let rule = "1 to 63 of a-z, 0-9 and `-`, and no `-` at either end";
            self.problem(path, format!("`{text}` is not a name: {rule}"));
        }
        text.to_owned()
    }

    /// A domain: labels, joined by dots.
    pub fn domain(&mut self, path: &str, text: &str) -> String {
        if text.len() > 253 || !text.split('.').all(is_label) {
            self.problem(
                path,
                format!("`{text}` is not a domain: lower-case labels joined by dots, such as mesh.internal"),
            );
        }
        text.to_owned()
    }

    /// A SPIFFE trust domain.
    pub fn trust_domain(&mut self, path: &str, text: &str) -> String {
        if !is_trust_domain(text) {
            self.problem(path, format!("`{text}` is not a trust domain: at most 255 of a-z, 0-9, `.`, `-` and `_`"));
        }
        text.to_owned()
    }

    /// A URL with one of `schemes`, a host and a port, and nothing else.
    pub fn url(&mut self, path: &str, text: &str, schemes: &[&str]) -> String {
        let parts = text.split_once("://").filter(|(scheme, _)| schemes.contains(scheme));
        let rest = parts.map(|(_, rest)| rest.strip_suffix('/').unwrap_or(rest));
        if !rest.is_some_and(is_host_and_port) {
            let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST:PORT")).collect();
            self.problem(path, format!("`{text}` is not {}", forms.join(" or ")));
        }
        text.to_owned()
    }

    /// A file that can be read now.
    pub fn file(&mut self, path: &str, text: &FileText) -> PathBuf {
        let file = self.source.resolve(text.as_str());
        if let Err(error) = readable(&file) {
            self.problem(path, format!("cannot read `{}`: {error}", file.display()));
        }
        file
    }

    /// A file that is or can be created, in a folder that exists.
    pub fn output(&mut self, path: &str, text: &FileText) -> PathBuf {
        let file = self.source.resolve(text.as_str());
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        if file.is_dir() {
            self.problem(path, format!("cannot write `{}`: it is a folder", file.display()));
        } else if !folder.is_dir() {
            self.problem(path, format!("cannot write `{}`: its folder does not exist", file.display()));
        }
        file
    }

    /// A folder that exists or can be created.
    pub fn folder(&mut self, path: &str, text: &FileText) -> PathBuf {
        let folder = self.source.resolve(text.as_str());
        // The empty path stands for the current folder, which exists.
        let nearest = folder.ancestors().find(|part| !part.as_os_str().is_empty() && part.exists());
        if let Some(part) = nearest.filter(|part| !part.is_dir()) {
            self.problem(path, format!("`{}` cannot be a folder: `{}` is a file", folder.display(), part.display()));
        }
        folder
    }
}

/// Whether `text` is `HOST:PORT`: the host an IP address (IPv6 in brackets) or a name.
pub fn is_host_and_port(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = digits && port.parse::<u16>().is_ok_and(|port| port != 0);
    // A name of digits alone would be a mistyped IPv4 address.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let lower = host.to_ascii_lowercase();
    port && !numeric && host.len() <= 253 && lower.trim_end_matches('.').split('.').all(is_label)
}

/// Whether a file can be opened and is none of the things that are not read as files.
pub fn readable(file: &Path) -> std::io::Result<()> {
    if fs::metadata(file)?.is_dir() {
        return Err(std::io::Error::other("it is a folder"));
    }
    File::open(file).map(drop)
}

/// Whether one socket keeps the other from listening.
fn conflict(a: SocketAddr, b: SocketAddr) -> bool {
    // A listener on `::` takes IPv4 too, unless told otherwise.
    let all = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let any = |ip: IpAddr, other: IpAddr| ip.is_unspecified() && ip.is_ipv4() == other.is_ipv4();
    let (x, y) = (a.ip(), b.ip());
    a.port() != 0 && a.port() == b.port() && (x == y || all(x) || all(y) || any(x, y) || any(y, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_listeners_conflict() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().expect(a), b.parse().expect(b));
            assert_eq!(conflict(a, b), expected, "{a} {b}");
            assert_eq!(conflict(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        for good in ["10.0.0.1:15443", "[::1]:1", "gateway.eu-west.example:15443", "gw:65535"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", "gw", "gw:", "gw:0", "gw:+1", "gw:65536", "10.0.0:1", "10.0.0.256:1", "::1:80", "a b:1", "-a:1", ":80"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
