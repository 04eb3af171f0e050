//! Where operators reach clusters from elsewhere: contexts, each with the gateways of a cluster and the operator's identity there.
//!
//! ```yaml
//! contexts:
//!   us-east:
//!     gateways: ['gw1.us-east.example:15001', 'gw2.us-east.example:15001']
//!     identity: { certificate: ann.crt, key: ann.key, bundle: us-east-ca.crt }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use eastway_documents::check::{Checks, is_host_and_port};
use eastway_documents::{Loaded, load};
use eastway_identity::{Expected, Identity, IdentityFiles, client_config};
use eastway_runtime::sections::RawIdentity;
use eastway_transport::{Io, tcp, tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For a connection to one gateway, its handshake included.
const PATIENCE: Duration = Duration::from_secs(3);

/// The file of contexts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawContexts {
    /// The contexts, by their names.
    contexts: BTreeMap<String, RawContext>,
}

/// How an operator reaches one cluster.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawContext {
    /// `HOST:PORT` of `operators.listen` of its gateways, in the order in which they are tried.
    #[schemars(length(min = 1))]
    gateways: Vec<String>,
    /// The operator's certificate, key and the cluster's CA, in PEM files relative to this one.
    identity: RawIdentity,
}

/// A context that can be used.
pub(crate) struct Context {
    name: String,
    gateways: Vec<String>,
    identity: Arc<Identity>,
}

impl Context {
    /// The context `name` of `file`, or of the operator's own file.
    ///
    /// # Errors
    /// What is wrong with the file, or which contexts there are.
    pub(crate) fn find(name: &str, file: Option<&Path>) -> anyhow::Result<Self> {
        let file = file.map_or_else(own_file, |file| Ok(file.to_owned()))?;
        let Loaded { value, source } = load::<RawContexts>(&file)?;
        let Some(context) = value.contexts.get(name) else {
            let known: Vec<&str> = value.contexts.keys().map(String::as_str).collect();
            bail!("{} has no context `{name}`; it has: {}", file.display(), known.join(", "));
        };
        let mut checks = Checks::new(&source);
        let at = |key: &str| format!("contexts.{name}.{key}");
        for (index, gateway) in context.gateways.iter().enumerate().filter(|(_, gateway)| !is_host_and_port(gateway)) {
            checks.problem(&at(&format!("gateways[{index}]")), format!("`{gateway}` is not HOST:PORT"));
        }
        let RawIdentity { certificate, key, bundle } = &context.identity;
        let files = IdentityFiles {
            certificate: checks.file(&at("identity.certificate"), certificate),
            key: checks.file(&at("identity.key"), key),
            bundle: checks.file(&at("identity.bundle"), bundle),
        };
        let files = checks.finish(files)?;
        let identity = Identity::load(&files).with_context(|| format!("the identity of the context `{name}`"))?;
        if identity.id().operator().is_none() {
            bail!(
                "{} is the certificate of {}, which is no operator: make one with `eastway ca issue --operator NAME`",
                files.certificate.display(),
                identity.id()
            );
        }
        Ok(Self { name: name.to_owned(), gateways: context.gateways.clone(), identity })
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A connection to the first of its gateways that answers.
    ///
    /// # Errors
    /// None does; why not, of each.
    pub(crate) async fn connect(&self) -> anyhow::Result<Io> {
        let mut failures = Vec::new();
        for gateway in &self.gateways {
            match tokio::time::timeout(PATIENCE, self.connect_to(gateway)).await {
                Ok(Ok(io)) => return Ok(io),
                Ok(Err(error)) => failures.push(format!("{gateway}: {error:#}")),
                Err(_) => failures.push(format!("{gateway}: no answer within {PATIENCE:?}")),
            }
        }
        bail!(
            "no gateway of the context `{}` can be reached (their `operators.listen`): {}",
            self.name,
            failures.join("; ")
        )
    }

    async fn connect_to(&self, gateway: &str) -> anyhow::Result<Io> {
        let trust_domain = self.identity.id().trust_domain.clone();
        let client = client_config(&self.identity, Expected::Gateway { trust_domain }, &[b"http/1.1"]);
        let options = tcp::DialOptions { connect_timeout: PATIENCE, ..tcp::DialOptions::default() };
        let mut failure = anyhow::anyhow!("the name has no address");
        for address in tokio::net::lookup_host(gateway).await? {
            match tcp::dial(address, &options).await {
                Ok(stream) => return Ok(tls::connect(Io::from(stream), client).await?),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }
}

/// Where an operator's contexts are, unless told otherwise.
fn own_file() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let base = base.context("there is no home folder: name the file of contexts with --contexts")?;
    Ok(base.join("eastway/contexts.yaml"))
}
