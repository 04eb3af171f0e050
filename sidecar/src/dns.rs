//! Names of the mesh by DNS: each has an address of its own on this host ([`Virtuals`]), so that an application needs to be told
//! nothing. All other names are asked of the host's own servers, and a name of the mesh never is.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use eastway_node::NodeError;
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::throttled;
use eastway_telemetry::logging::listening;
use eastway_transport::tcp;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::Semaphore;

use crate::config::Dns;
use crate::node::SidecarNode;
use crate::virtuals::Virtuals;
use forward::{Forwarder, Servers};
use question::Asked;
use zone::Zone;

mod forward;
mod question;
mod zone;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow reader of a connection.
const ANSWERS: usize = 64;
/// Questions at once; further ones are refused.
const QUESTIONS: usize = 1_024;
/// The largest answer over UDP, whatever a client would take: beyond it, packets are cut into fragments, which get lost (DNS flag
/// day 2020).
const PAYLOAD: u16 = 1_232;
/// How often a port is looked for that is free for both UDP and TCP.
const TRIES: usize = 16;

/// The bound sockets.
pub(crate) struct DnsSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Binds both sockets, to the same port.
///
/// # Errors
/// [`NodeError::Listen`].
pub(crate) fn bind(dns: &Dns) -> Result<DnsSockets, NodeError> {
    let failed = |source| NodeError::listen("dns.listen", dns.listen)(source);
    let mut tries = 0;
    loop {
        let tcp = tcp::bind(dns.listen).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        match UdpSocket::bind(address) {
            Ok(udp) => {
                udp.set_nonblocking(true).map_err(failed)?;
                listening("dns.listen", address);
                return Ok(DnsSockets { udp, tcp });
            }
            // Another one may be free for both.
            Err(_) if dns.listen.port() == 0 && tries < TRIES => tries += 1,
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Answers on the sockets until the tasks are stopped.
///
/// # Errors
/// [`NodeError::Listen`] if a bound socket cannot be used.
pub(crate) fn start(
    tasks: &TaskGroup,
    node: &Arc<SidecarNode>,
    (dns, virtuals): (&Dns, &Arc<Virtuals>),
    sockets: DnsSockets,
) -> Result<(), NodeError> {
    let failed = |source| NodeError::listen("dns.listen", dns.listen)(source);
    let own = sockets.tcp.local_addr().map_err(failed)?;
    let servers = match &dns.upstreams {
        Some(servers) => Servers::Listed(servers.clone()),
        None => Servers::Host("/".into()),
    };
    let forward = Forwarder::new(servers, own);
    tasks.spawn_loop("servers for other names", Arc::clone(&forward).follow());
    let handler = Handler {
        suffix: node.config.suffix.clone(),
        zone: Zone::new(node, virtuals),
        forward,
        places: Semaphore::new(QUESTIONS),
    };
    let mut server = Server::new(handler);
    server.register_socket(tokio::net::UdpSocket::from_std(sockets.udp).map_err(failed)?);
    server.register_listener(tokio::net::TcpListener::from_std(sockets.tcp).map_err(failed)?, SILENCE, ANSWERS);
    tasks.spawn_loop("dns", async move {
        if let Err(error) = server.block_until_done().await {
            tracing::error!(%error, "names are not answered any more");
        }
        std::future::pending().await
    });
    Ok(())
}

/// What is answered.
struct Answer {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Answer {
    /// Nothing but this.
    const fn of(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }

    /// Nobody can say at present: the client may ask again.
    const fn failed() -> Self {
        Self::of(ResponseCode::ServFail)
    }
}

struct Handler {
    suffix: String,
    zone: Zone,
    forward: Arc<Forwarder>,
    places: Semaphore,
}

impl Handler {
    async fn answer(&self, request: &Request) -> Answer {
        if request.metadata.op_code != OpCode::Query {
            return Answer::of(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Answer::of(ResponseCode::FormErr) };
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Answer::of(ResponseCode::BADVERS);
        }
        let (question, kind) = (info.query.original(), info.query.query_type());
        let whole = matches!(kind, RecordType::AXFR | RecordType::IXFR);
        if info.query.query_class() != DNSClass::IN || whole {
            return Answer::of(ResponseCode::Refused);
        }
        let Ok(_place) = self.places.try_acquire() else {
            throttled!(warn, "refused a question: too many are waiting for their answers");
            return Answer::of(ResponseCode::Refused);
        };
        let mut name = question.name().to_ascii();
        name.make_ascii_lowercase();
        let asked = question::read(name.trim_end_matches('.'), &self.suffix);
        match asked {
            Asked::Outside => self.forward.answer(question.name(), kind).await,
            asked => self.zone.answer(&asked, question.name(), kind).await,
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let answer = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        metadata.authoritative = answer.authoritative;
        metadata.response_code = answer.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, PAYLOAD)).set_rcode_high(answer.code.high());
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let (answers, authorities) = (answer.answers.iter(), answer.authorities.iter());
        let response = builder.build(metadata, answers, authorities, [], answer.additionals.iter());
        to.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer cannot be sent");
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}
