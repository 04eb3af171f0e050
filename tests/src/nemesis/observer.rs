//! What every gateway says of the mesh, asked all the time as an operator would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::namespace::enter;
use super::network::Network;
use super::plan::{Host, Role};
use crate::client;

/// What a gateway said.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// Which gateway.
    pub gateway: Host,
    /// When it was asked, from the begin of the run.
    pub asked: Duration,
    /// When it had answered.
    pub answered: Duration,
    /// What it said.
    pub said: Said,
}

/// What a gateway says of the mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Which life of the gateway this is.
    pub epoch: u64,
    /// Epoch and number of the last statement of every other gateway, by cluster and id. Siblings tell no number.
    pub versions: BTreeMap<(String, String), (u64, u64)>,
    /// The endpoints of its own cluster, by their names.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// How many endpoints of a service are ready in a zone, by cluster, service and zone: of every cluster.
    pub ready: BTreeMap<(String, String, String), u64>,
}

/// What a gateway says of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Such as `ready`.
    pub health: String,
    /// Why.
    pub why: String,
    /// Which life of it.
    pub incarnation: u64,
}

/// Observers in the background. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Observers {
    ended: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Observation>>>,
    threads: Vec<JoinHandle<()>>,
}

/// The time between two questions to a gateway.
const PACE: Duration = Duration::from_millis(500);

impl Observers {
    /// Starts one for each gateway.
    pub(super) fn start(network: &Network, begin: Instant) -> Self {
        let (ended, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let one = |gateway| {
            let (ended, seen, file) = (Arc::clone(&ended), Arc::clone(&seen), network.at(gateway).file());
            std::thread::spawn(move || observe(gateway, &file, begin, &ended, &seen))
        };
        let threads = Host::of(Role::Gateway).into_iter().map(one).collect();
        Self { ended, seen, threads }
    }

    /// Stops, and answers all that was seen, each gateway's in order.
    pub(super) fn finish(mut self) -> Vec<Observation> {
        self.end();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.end();
    }
}

fn observe(gateway: Host, file: &Path, begin: Instant, ended: &AtomicBool, seen: &Mutex<Vec<Observation>>) {
    enter(file);
    while !ended.load(Ordering::Relaxed) {
        let asked = begin.elapsed();
        // One that does not run or does not answer says nothing.
        if let Ok(said) = ask(gateway) {
            let observation = Observation { gateway, asked, answered: begin.elapsed(), said };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(observation);
        }
        std::thread::sleep(PACE);
    }
}

/// Asks the gateway of the namespace that the calling thread is in.
pub(super) fn ask(gateway: Host) -> Result<Said, String> {
    let admin: SocketAddr = ([127, 0, 0, 1], 15000).into();
    let get = |path: &str| {
        let answer = client::get(admin, path)?;
        serde_json::from_slice::<Value>(&answer.body).map_err(|error| format!("{error}: {answer:?}"))
    };
    let (status, services) = (get("/status")?, get("/view/endpoints")?);
    let own = gateway.cluster.name();
    let mut said = Said {
        epoch: status["federation"]["epoch"].as_u64().ok_or_else(|| format!("no epoch: {status}"))?,
        versions: versions(own, &status["federation"]),
        ..Said::default()
    };
    for service in list(&services) {
        let name = text(&service["service"]);
        for endpoint in list(&service["endpoints"]) {
            let health = text(&endpoint["health"]);
            if health == "ready" {
                *said.ready.entry((own.to_owned(), name.clone(), text(&endpoint["zone"]))).or_default() += 1;
            }
            let incarnation = endpoint["incarnation"].as_u64().unwrap_or_default();
            said.endpoints.insert(text(&endpoint["id"]), Endpoint { health, why: text(&endpoint["why"]), incarnation });
        }
        for cluster in list(&service["remote"]) {
            for zone in list(&cluster["zones"]) {
                let ready = zone["ready"].as_u64().unwrap_or_default();
                said.ready.insert((text(&cluster["cluster"]), name.clone(), text(&zone["zone"])), ready);
            }
        }
    }
    Ok(said)
}

fn versions(own: &str, federation: &Value) -> BTreeMap<(String, String), (u64, u64)> {
    let siblings = federation["siblings"].as_object().into_iter().flatten();
    let siblings =
        siblings.filter_map(|(id, sibling)| Some(((own.to_owned(), id.clone()), (sibling["epoch"].as_u64()?, 0))));
    let paths = list(&federation["peers"])
        .flat_map(|peer| list(&peer["paths"]).map(move |path| (text(&peer["cluster"]), path)));
    let paths = paths.filter_map(|(cluster, path)| {
        let gateway = path["gateway"].as_str()?;
        Some(((cluster, gateway.to_owned()), (path["epoch"].as_u64()?, path["seq"].as_u64()?)))
    });
    siblings.chain(paths).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
