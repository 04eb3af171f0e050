//! An OTLP collector within the test's process, of the official protobuf types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// What the collector does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes it.
    Take,
    /// Says nothing until its manner changes.
    Stall,
    /// Refuses it for good.
    Refuse,
}

/// A collector; it ends with the value.
pub(crate) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<ResourceSpans>>>,
    manner: watch::Sender<Manner>,
    calls: watch::Receiver<usize>,
    task: AbortHandle,
}

impl Collector {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let received = Arc::default();
        let (manner, watched) = watch::channel(manner);
        let (counter, calls) = watch::channel(0);
        let service = Service { received: Arc::clone(&received), manner: watched, calls: counter };
        let service = TraceServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder().add_service(service);
        let task = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener))).abort_handle();
        Self { address, received, manner, calls, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Waits until `count` exports were tried.
    pub(crate) async fn called(&self, count: usize) {
        let mut calls = self.calls.clone();
        let called = calls.wait_for(|seen| *seen >= count);
        tokio::time::timeout(Duration::from_secs(10), called).await.expect("an export").expect("the collector runs");
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let received = self.received.lock();
        received.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).cloned().collect()
    }

    pub(crate) fn resource(&self, key: &str) -> Option<String> {
        let received = self.received.lock();
        text(&received.first()?.resource.as_ref()?.attributes, key)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service {
    received: Arc<Mutex<Vec<ResourceSpans>>>,
    manner: watch::Receiver<Manner>,
    calls: watch::Sender<usize>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.calls.send_modify(|calls| *calls += 1);
        let mut manner = self.manner.clone();
        let manner = *manner.wait_for(|manner| *manner != Manner::Stall).await.expect("the test runs");
        if manner == Manner::Refuse {
            return Err(Status::invalid_argument("not today"));
        }
        self.received.lock().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// An attribute's value as text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref() {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => Some(number.to_string()),
        Some(AnyValue { value: Some(Value::BoolValue(truth)) }) => Some(truth.to_string()),
        other => Some(format!("{other:?}")),
    }
}
