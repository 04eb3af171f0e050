//! `crowd`: many registrations at a gateway, each as a sidecar would make and keep it, so that a caller knows many services or
//! many endpoints. They all lead to one address. Nobody needs to run ten thousand sidecars to see what knowing them costs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::{Link, LinkOptions, Registrar, TlsConnector, Workload};
use eastway_core::{EndpointId, Health, ServiceName};
use eastway_identity::{Identity, IdentityFiles};
use eastway_transport::tcp::DialOptions;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::arguments::Arguments;

/// Registrations over one connection. A gateway grants a connection 16 streams.
const BY_LINK: u64 = 14;
/// Registrations under way at once: those of eight links, so that no more handshakes are under way than a gateway grants an address.
const AT_ONCE: u64 = 8 * BY_LINK;

/// Prints a line once all are registered, and keeps them until it is ended from outside.
///
/// `each` endpoints of `services` services: of `web` if it is one, else of `crowd-0`, `crowd-1`, …; the first `near` endpoints of
/// each are in the zone `a`, the others in `b`.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(register(arguments))
}

async fn register(arguments: &Arguments) -> Result<Value, String> {
    let file = |name: &str| arguments.required::<PathBuf>(name);
    let files = IdentityFiles { certificate: file("certificate")?, key: file("key")?, bundle: file("bundle")? };
    let identity = Identity::load(&files).map_err(|error| error.to_string())?;
    let (services, each) = (arguments.or("services", 1_u64)?, arguments.or("each", 1_u64)?);
    let (gateway, near) = (arguments.required::<String>("gateway")?, arguments.or("near", u64::MAX)?);
    let address = arguments.address()?;
    let (mut registrars, mut running, mut current) = (Vec::new(), JoinSet::new(), None);
    for number in 0..services * each {
        if number % AT_ONCE == 0 {
            registered(&registrars).await;
        }
        let link = match current.take().filter(|_| number % BY_LINK != 0) {
            Some(link) => link,
            None => connect(&identity, &gateway),
        };
        let service = if services == 1 { "web".to_owned() } else { format!("crowd-{}", number / each) };
        let workload = Workload {
            service: ServiceName::new("shop", service),
            endpoint: EndpointId::new(format!("crowd-{number}")),
            zone: if number % each < near { "a" } else { "b" }.to_owned(),
            address,
            weight: 1.0,
            capacity: 0,
            labels: BTreeMap::new(),
            incarnation: 1,
        };
        let (registrar, run) = Registrar::new(link.clone(), workload);
        current = Some(link);
        registrar.set_health(Health::Ready, "");
        registrars.push(registrar);
        running.spawn(run);
    }
    registered(&registrars).await;
    println!("registered");
    while running.join_next().await.is_some() {}
    Ok(Value::Null)
}

fn connect(identity: &Arc<Identity>, gateway: &str) -> Link {
    let dial = DialOptions { connect_timeout: Duration::from_secs(5), ..DialOptions::default() };
    let connector = TlsConnector::new(identity, &identity.id().trust_domain, dial);
    let options = LinkOptions { connect_timeout: Duration::from_secs(5), ..LinkOptions::default() };
    Link::new(vec![gateway.to_owned()], Arc::new(connector), options)
}

/// Waits for the last of them; who came before was registered before.
async fn registered(registrars: &[Arc<Registrar>]) {
    let last = registrars.len().saturating_sub(usize::try_from(AT_ONCE).unwrap_or(1));
    for registrar in &registrars[last..] {
        registrar.registered().await;
    }
}
