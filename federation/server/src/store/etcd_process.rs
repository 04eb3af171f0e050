//! Real etcd servers for tests, and a relay that breaks their connections.
//!
//! etcd cannot listen on a port of the system's choice, so every server gets a loopback address of its own. A server is
//! killed when its handle is dropped. Without etcd on the PATH the tests fail: they prove nothing without it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::suite::{DEADLINE, eventually};
use super::{EtcdOptions, EtcdTls};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// One server.
#[derive(Debug)]
pub(super) struct Etcd {
    pub(super) address: IpAddr,
    name: String,
    arguments: Vec<String>,
    scheme: &'static str,
    directory: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

impl Etcd {
    /// A cluster of one, already serving.
    pub(super) async fn start() -> Self {
        let address = free_address();
        Self::prepare(address, "one", "http").run(&format!("one=http://{address}:{PEER_PORT}")).await
    }

    /// A cluster of one that speaks TLS and wants certificates of the same CA from its clients.
    pub(super) async fn start_tls(certificates: &Certificates) -> Self {
        let address = free_address();
        let mut etcd = Self::prepare(address, "one", "https");
        let files = certificates.write(etcd.directory.path(), address);
        etcd.arguments = vec!["--client-cert-auth".to_owned()];
        for (flag, file) in ["--trusted-ca-file", "--cert-file", "--key-file"].iter().zip(files) {
            etcd.arguments.extend([(*flag).to_owned(), file.display().to_string()]);
        }
        let initial = format!("one=http://{address}:{PEER_PORT}");
        etcd.run(&initial).await
    }

    /// A cluster of three.
    pub(super) async fn start_three() -> Vec<Self> {
        let members: Vec<Self> =
            ["one", "two", "three"].into_iter().map(|name| Self::prepare(free_address(), name, "http")).collect();
        let initial: Vec<String> =
            members.iter().map(|etcd| format!("{}=http://{}:{PEER_PORT}", etcd.name, etcd.address)).collect();
        let initial = initial.join(",");
        let mut started = Vec::new();
        for etcd in members {
            started.push(etcd.launch(&initial));
        }
        for etcd in &started {
            etcd.wait_until_listening().await;
        }
        started
    }

    fn prepare(address: IpAddr, name: &str, scheme: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { address, name: name.to_owned(), arguments: Vec::new(), scheme, directory, child: Mutex::new(None) }
    }

    async fn run(self, initial: &str) -> Self {
        let etcd = self.launch(initial);
        etcd.wait_until_listening().await;
        etcd
    }

    fn launch(mut self, initial: &str) -> Self {
        let (client, peer) = (self.url(), format!("http://{}:{PEER_PORT}", self.address));
        let data = self.data().display().to_string();
        let fixed = [
            ("--name", self.name.as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", initial),
            ("--logger", "zap"),
            ("--log-level", "warn"),
        ];
        self.arguments.extend(fixed.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]));
        self.spawn();
        self
    }

    fn spawn(&self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("these tests need a real `etcd` on the PATH ({error}): install the package `etcd-server`")
            });
        *self.child.lock() = Some(child);
    }

    async fn wait_until_listening(&self) {
        eventually("etcd listens", async || {
            let exited = self.child.lock().as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = exited {
                panic!("etcd ended with {status}:\n{}", std::fs::read_to_string(self.log()).unwrap_or_default());
            }
            TcpStream::connect(self.client_address()).await.ok()
        })
        .await;
    }

    /// Kills the server, as a crash would.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.child.lock().take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    /// Starts a killed server again, with what it had on disk.
    pub(super) async fn restart(&self) {
        self.kill();
        self.spawn();
        self.wait_until_listening().await;
    }

    /// Forgets everything that a killed server had on disk.
    pub(super) fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("removed");
    }

    /// Options that reach this server, patient enough for a busy machine.
    pub(super) fn options(&self) -> EtcdOptions {
        patient([self.url()])
    }

    /// The client address.
    pub(super) fn client_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, CLIENT_PORT)
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.client_address())
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Options for tests: the operation as a whole may take long, because the machine may be busy.
pub(super) fn patient(endpoints: impl IntoIterator<Item = String>) -> EtcdOptions {
    EtcdOptions { operation_timeout: DEADLINE, ..EtcdOptions::new(endpoints) }
}

/// A loopback address that no other test uses: of this process by its number, of others because nothing listens there.
fn free_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let octet = |bits: u32, from: u32, count: u32| u8::try_from(from + bits % count).expect("in range");
        let address = Ipv4Addr::new(127, octet(process / 250, 40, 180), octet(process, 1, 250), octet(number, 2, 250));
        let is_free = |port| StdListener::bind((address, port)).is_ok();
        if is_free(CLIENT_PORT) && is_free(PEER_PORT) {
            return address.into();
        }
        assert!(number < 1000, "no free loopback address");
    }
}

/// A CA and what it issues, made for one test.
#[derive(Debug)]
pub(super) struct Certificates {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: String,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let ca = params.self_signed(&key).expect("signed").pem();
        Self { issuer: rcgen::Issuer::new(params, key), ca }
    }

    /// A certificate and key for both sides of TLS.
    fn issue(&self, name: String) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name]).expect("parameters");
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    /// What a client needs, with or without a certificate of its own.
    pub(super) fn client(&self, with_identity: bool) -> EtcdTls {
        let identity = with_identity.then(|| {
            let (certificate, key) = self.issue("gateway".to_owned());
            (certificate.into_bytes(), key.into_bytes())
        });
        EtcdTls { ca: self.ca.clone().into_bytes(), identity, server_name: None }
    }

    /// Writes the CA's certificate, and a server's certificate and key.
    fn write(&self, directory: &Path, address: IpAddr) -> [PathBuf; 3] {
        let (certificate, key) = self.issue(address.to_string());
        [("ca.pem", &self.ca), ("server.pem", &certificate), ("server.key", &key)].map(|(name, text)| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("written");
            path
        })
    }
}

/// What a relay does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Passes everything on.
    Open,
    /// Drops what there is, and refuses to serve what comes.
    Cut,
    /// Takes requests to the server, and loses the answers.
    Deaf,
    /// Accepts, and never reads.
    Mute,
}

/// Stands between a client and a server.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    target: Arc<Mutex<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let target = Arc::new(Mutex::new(target));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&mode), Arc::clone(&target)));
        Self { address, mode, target, _tasks: tasks }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Sends new connections elsewhere, and drops the old ones.
    pub(super) fn redirect(&self, target: SocketAddr) {
        *self.target.lock() = target;
        self.set(Mode::Cut);
        self.set(Mode::Open);
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, mode: Arc<watch::Sender<Mode>>, target: Arc<Mutex<SocketAddr>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let target = *target.lock();
        connections.spawn(relay(client, target, mode.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let born = *mode.borrow_and_update();
    if born == Mode::Cut {
        return;
    }
    if born == Mode::Mute {
        // Until the mode changes.
        let _ = mode.changed().await;
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut request, mut answer) = ([0; 16384], [0; 16384]);
    loop {
        tokio::select! {
            // Every change of mode cuts, except the one that makes an open connection deaf.
            _ = mode.changed() => {
                if *mode.borrow_and_update() != Mode::Deaf {
                    return;
                }
            }
            read = client.read(&mut request) => match read {
                Ok(count) if count > 0 && server.write_all(&request[..count]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut answer) => match read {
                Ok(count) if count > 0 => {
                    if *mode.borrow() != Mode::Deaf && client.write_all(&answer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// A short patience, for tests in which members are mute on purpose.
pub(super) const SHORT: Duration = Duration::from_millis(300);
