//! How an etcd cluster is reached.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::StoreError;

/// How an etcd cluster is reached. Start from [`EtcdOptions::new`].
#[derive(Clone)]
pub struct EtcdOptions {
    /// The members' client addresses: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT`.
    pub endpoints: Vec<String>,
    /// User name and password, if the cluster has authentication enabled.
    pub user: Option<(String, String)>,
    /// Certificates, if the members speak TLS. All of them must, or none.
    pub tls: Option<EtcdTls>,
    /// Reads `user` and `tls` anew, before each connection to a member: they are renewed while the store is open. Default: they
    /// stay as they are.
    pub renewal: Option<Renewal>,
    /// Stands before every key, so that several meshes can share one etcd. Default: nothing.
    pub prefix: String,
    /// The cluster's identity, if known from before. Default: that of the first member that answers.
    pub cluster_id: Option<u64>,
    /// How long a connection to a member may take. Default 1 s.
    pub connect_timeout: Duration,
    /// How long one attempt at one member may take. Default 2 s.
    pub try_timeout: Duration,
    /// How long an operation may take, over all attempts. Default 10 s.
    pub operation_timeout: Duration,
    /// How often an idle connection is probed. Default 5 s.
    pub keep_alive_interval: Duration,
    /// How long a probe may stay unanswered. Default 3 s.
    pub keep_alive_timeout: Duration,
    /// The largest answer that is accepted, in bytes. Default 16 MiB.
    pub max_message: usize,
    /// The most keys in one page of a list. Default 512.
    pub page: u32,
}

/// Reads what a connection needs, as it is now.
pub type Renewal = Arc<dyn Fn() -> io::Result<EtcdCredentials> + Send + Sync>;

/// What proves to etcd who we are, and to us who it is.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// As [`EtcdOptions::user`].
    pub user: Option<(String, String)>,
    /// As [`EtcdOptions::tls`].
    pub tls: Option<EtcdTls>,
}

/// Certificates for etcd, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The CA certificates that members are verified with.
    pub ca: Vec<u8>,
    /// Our certificate chain and its key, if the members want one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that members' certificates must have. Default: the host of the address.
    pub server_name: Option<String>,
}

impl EtcdOptions {
    /// The defaults, for the members at `endpoints`.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            tls: None,
            renewal: None,
            prefix: String::new(),
            cluster_id: None,
            connect_timeout: Duration::from_secs(1),
            try_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(3),
            max_message: 16 << 20,
            page: 512,
        }
    }

    /// The members' URLs, with the scheme that fits.
    pub(super) fn urls(&self) -> Result<Vec<String>, StoreError> {
        if self.endpoints.is_empty() {
            return Err(StoreError::Options("no etcd endpoint".to_owned()));
        }
        self.endpoints.iter().map(|endpoint| self.url(endpoint.trim_end_matches('/'))).collect()
    }

    fn url(&self, endpoint: &str) -> Result<String, StoreError> {
        let wrong = |why: &str| Err(StoreError::Options(format!("etcd endpoint `{endpoint}`: {why}")));
        match (endpoint.split_once("://"), &self.tls) {
            (Some(("http", _)), Some(_)) => wrong("certificates are given, so it must be https"),
            (Some(("https", _)), None) => wrong("https needs the CA's certificate"),
            (Some(("http" | "https", "")), _) | (None, _) if endpoint.is_empty() => wrong("no address"),
            (Some(("http" | "https", _)), _) => Ok(endpoint.to_owned()),
            (Some(_), _) => wrong("neither http nor https"),
            (None, Some(_)) => Ok(format!("https://{endpoint}")),
            (None, None) => Ok(format!("http://{endpoint}")),
        }
    }

    /// What a connection needs now. What cannot be read stays as it was.
    fn credentials(&self) -> EtcdCredentials {
        let given = || EtcdCredentials { user: self.user.clone(), tls: self.tls.clone() };
        match self.renewal.as_ref().map(|renewal| renewal()) {
            None => given(),
            Some(Ok(renewed)) => renewed,
            Some(Err(error)) => {
                tracing::warn!(%error, "what etcd wants to see cannot be read again: it is shown what was read at the start");
                given()
            }
        }
    }

    /// The options in the client's words, with the user if one is to log in.
    pub(super) fn connect_options(&self, logs_in: bool) -> etcd_client::ConnectOptions {
        let EtcdCredentials { user, tls } = self.credentials();
        // `new` and not `default`: only with the former are idle connections probed.
        let mut options = etcd_client::ConnectOptions::new()
            .with_connect_timeout(self.connect_timeout)
            .with_keep_alive(self.keep_alive_interval, self.keep_alive_timeout)
            .with_require_leader(true);
        if let Some(tls) = tls {
            let mut config = etcd_client::TlsOptions::new().ca_certificate(etcd_client::Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                config = config.identity(etcd_client::Identity::from_pem(certificate, key));
            }
            if let Some(name) = &tls.server_name {
                config = config.domain_name(name);
            }
            options = options.with_tls(config);
        }
        match user.filter(|_| logs_in) {
            Some((name, password)) => options.with_user(name, password).with_auto_token_refresh(true),
            None => options,
        }
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdCredentials").field("user", &user).field("tls", &self.tls).finish()
    }
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(endpoints: &[&str], tls: bool) -> Result<Vec<String>, StoreError> {
        let mut options = EtcdOptions::new(endpoints.iter().copied());
        options.tls = tls.then(|| EtcdTls { ca: Vec::new(), identity: None, server_name: None });
        options.urls()
    }

    #[test]
    fn the_scheme_follows_from_the_certificates() {
        assert_eq!(
            urls(&["127.0.0.1:2379", "http://b:1/"], false).expect("fits"),
            ["http://127.0.0.1:2379", "http://b:1"]
        );
        assert_eq!(urls(&["etcd:2379", "https://b:1"], true).expect("fits"), ["https://etcd:2379", "https://b:1"]);
        for (endpoints, tls) in [
            (&["https://b:1"][..], false),
            (&["http://b:1"], true),
            (&["unix:///x"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert!(matches!(urls(endpoints, tls), Err(StoreError::Options(_))), "{endpoints:?} {tls}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = EtcdOptions::new(["a:1"]);
        options.user = Some(("root".to_owned(), "hunter2".to_owned()));
        options.tls =
            Some(EtcdTls { ca: Vec::new(), identity: Some((b"c".to_vec(), b"hunter2".to_vec())), server_name: None });
        let shown = format!("{options:?}");
        assert!(shown.contains("root") && !shown.contains("hunter2"), "{shown}");
    }
}
