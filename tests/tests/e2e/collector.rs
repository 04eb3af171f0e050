//! A collector of traces in the test's own process: the official protobuf types, served by tonic.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// A span as it was exported, with what a test asks of it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// `service.name` of the exporter's resource.
    pub(crate) exporter: String,
    /// `eastway.cluster` of the exporter's resource.
    pub(crate) cluster: String,
    pub(crate) name: String,
    /// OTLP's number: 2 server, 3 client.
    pub(crate) kind: i32,
    /// In hexadecimal.
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: HashMap<String, String>,
}

impl Span {
    /// The attribute `name`, empty if there is none.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The collector. Dropping it closes its listener.
#[derive(Debug)]
pub(crate) struct Collector {
    spans: Spans,
    address: SocketAddr,
    _runtime: Runtime,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens on a free port.
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let spans = Spans::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let service = TraceServiceServer::new(spans.clone()).accept_compressed(CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { spans, address, _runtime: runtime }
    }

    /// The configuration by which a role exports every span hither.
    pub(crate) fn telemetry(&self) -> String {
        format!("telemetry: {{ otlp: {{ endpoint: 'http://{}' }}, sampling: 1.0 }}\n", self.address)
    }

    /// The spans of one trace so far.
    pub(crate) fn trace(&self, trace: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// All spans so far.
    pub(crate) fn all(&self) -> Vec<Span> {
        self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource_spans in request.into_inner().resource_spans {
            let resource = attributes(resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default());
            let of_resource = |name: &str| resource.get(name).cloned().unwrap_or_default();
            let (exporter, cluster) = (of_resource("service.name"), of_resource("eastway.cluster"));
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            all.extend(spans.map(|span| Span {
                exporter: exporter.clone(),
                cluster: cluster.clone(),
                name: span.name,
                kind: span.kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: attributes(span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(all: Vec<KeyValue>) -> HashMap<String, String> {
    all.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
