//! What the tests of this crate share: a service, its time, and a recorder that writes lines.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Policy, Service};
use eastway_core::head::{Fields, HttpVersion, RequestHead};
use eastway_core::resource::{ClusterMeta, Protocol, ServicePort};
use eastway_core::trace::{TraceContext, TraceParent};
use eastway_core::view::{
    EndpointView, MeshView, PathState, PeerView, RemoteZone, ServiceSpec, ServiceView, Staleness, ZoneSummary,
};
use eastway_core::{EndpointId, Health, Locality, ServiceName, Timestamp};

use crate::outbound::OutboundOptions;
use crate::record::{AttemptFacts, Recorder, RequestFacts};
use crate::service::ServiceEntry;
use crate::traffic_policy::TrafficPolicy;

/// The head of a request to a service of the mesh.
pub(crate) fn head<'a>(method: &'a str, target: &'a str, fields: &'a dyn Fields) -> RequestHead<'a> {
    RequestHead {
        method,
        target,
        authority: "payments.shop.mesh.internal",
        version: HttpVersion::Http11,
        upgrade: false,
        fields,
    }
}

/// Writes a line for each attempt and each request that has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    lines: Rc<RefCell<Vec<String>>>,
    /// Counts what is under way.
    pub(crate) under_way: Rc<()>,
}

impl Lines {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.borrow_mut())
    }

    fn write(&self, line: String) {
        self.lines.borrow_mut().push(line);
    }
}

impl Recorder for Lines {
    type Counted = Rc<()>;

    fn sample(&self, parent: Option<TraceParent>, rng: &mut fastrand::Rng) -> TraceContext {
        TraceContext::begin(parent, parent.is_some_and(|parent| parent.sampled), false, rng)
    }

    fn wants_details(&self, _: &TraceContext) -> bool {
        true
    }

    fn begin(&self, _: &RequestFacts) -> Rc<()> {
        Rc::clone(&self.under_way)
    }

    fn begin_attempt(&self, _: &AttemptFacts, _: &RequestFacts) -> Rc<()> {
        Rc::clone(&self.under_way)
    }

    fn end_attempt(&self, _: Rc<()>, attempt: &AttemptFacts, _: &RequestFacts) {
        let said = match (attempt.status, attempt.reason) {
            (Some(status), None) => status.to_string(),
            (Some(status), Some(reason)) => format!("{status} {reason}"),
            (None, Some(reason)) => reason.to_string(),
            (None, None) => "nothing".to_owned(),
        };
        self.write(format!("{} at {}: {said}, {:?}", attempt.number, attempt.zone.zone, attempt.result));
    }

    fn end(&self, _: Rc<()>, request: &RequestFacts) {
        let status = request.status.map_or_else(|| "nothing".to_owned(), |status| status.to_string());
        let grpc = request.grpc_status.map(|code| format!(" grpc {code}")).unwrap_or_default();
        let failure = request.failure().map(|reason| format!(" {reason}")).unwrap_or_default();
        self.write(format!("request: {status}{grpc}{failure}"));
    }

    fn streamed(&self, _: &RequestFacts, sent: u64, received: u64) {
        self.write(format!("streamed {sent} {received}"));
    }
}

/// A service of the cluster us-east as called from its zone a.
pub(crate) struct World {
    pub(crate) entry: Arc<ServiceEntry>,
    pub(crate) options: Arc<OutboundOptions>,
    pub(crate) recorder: Lines,
    pub(crate) now: Timestamp,
    pub(crate) rng: fastrand::Rng,
    pub(crate) mesh: MeshView,
}

fn cluster(name: &str) -> ClusterMeta {
    ClusterMeta {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        region: name.to_owned(),
        trust_domain: format!("{name}.mesh.internal"),
        zones: Default::default(),
    }
}

impl World {
    /// With one endpoint for each letter, in the zone of this name; `A` is of the cluster eu-west.
    pub(crate) fn new(endpoints: &str, traffic_policy: TrafficPolicy) -> Self {
        let name = ServiceName::new("shop", "payments");
        let policy = Policy { ramp_jitter: Duration::ZERO, ..Policy::default() };
        let service = Service::new(name.clone(), Locality::new("us-east", "us-east", "a"), policy);
        let peer = PeerView {
            cluster: cluster("eu-west"),
            trust_bundle: Vec::new(),
            path: PathState::Up,
            min_rtt: None,
            staleness: Staleness::Fresh,
        };
        let mesh = MeshView { cluster: cluster("us-east"), peers: vec![peer] };
        let mut view = view(name, endpoints);
        Arc::make_mut(&mut view.spec.policy).retries.per_try = traffic_policy.per_try;
        let view = Arc::new(view);
        let now = Timestamp::from_millis(1_000_000);
        service.update(&mesh, &view, now);
        let entry = ServiceEntry::new(service, traffic_policy);
        entry.follow(&view, traffic_policy);
        let options = OutboundOptions {
            suffix: "mesh.internal".to_owned(),
            cluster: "us-east".into(),
            via: true,
            idle: Duration::from_secs(300),
        };
        let rng = fastrand::Rng::with_seed(11);
        Self { entry, options: Arc::new(options), recorder: Lines::default(), now, rng, mesh }
    }
}

fn view(name: ServiceName, endpoints: &str) -> ServiceView {
    let endpoint = |(number, zone): (usize, char)| {
        Arc::new(EndpointView {
            id: EndpointId::new(format!("p-{number}")),
            zone: zone.to_string().as_str().into(),
            address: ([127, 0, 0, 1], 15_008).into(),
            weight: 1.0,
            health: Health::Ready,
            incarnation: 1,
            capacity: 0,
            labels: Default::default(),
            load: None,
        })
    };
    let near = endpoints.chars().enumerate().filter(|(_, zone)| zone.is_lowercase());
    let far = endpoints.chars().filter(|zone| zone.is_uppercase()).count() as u32;
    let remote = (far > 0).then(|| RemoteZone {
        zone: "eu-west/A".parse().expect("a zone"),
        accounts: ["payments".to_owned()].into(),
        summary: ZoneSummary { total: far, ready: far, ..ZoneSummary::default() },
    });
    let port = |port, protocol| ServicePort::new(port, protocol);
    let ports = vec![port(5432, Protocol::Tcp), port(80, Protocol::Http), port(50_051, Protocol::Grpc)];
    let spec = ServiceSpec {
        ports,
        accounts: ["payments".to_owned()].into(),
        export: Some(vec!["eu-west".to_owned()]),
        ..ServiceSpec::default()
    };
    let endpoints = near.map(endpoint).collect();
    ServiceView { name, spec, endpoints, remote: remote.into_iter().collect(), returned: Default::default() }
}
