//! gRPC through the mesh: an official client and server (tonic), with the discovery contract as the service that is
//! called, because it has a stream in both directions.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::discovery_server::{Discovery, DiscoveryServer};
use eastway_proto::discovery::v1::{
    RegisterAccepted, RegisterRequest, RegisterResponse, Registration, SubscribeRequest, SubscribeResponse,
    register_request, register_response,
};
use eastway_tests::lab::{Lab, StoreKind};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::http_within::{STOREFRONT, known};

/// The application: it answers each message of a stream with its endpoint's name, and a single call with the caller.
struct Answering;

#[tonic::async_trait]
impl Discovery for Answering {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<RegisterResponse, Status>> + Send>>;
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let answers = request.into_inner().map(|message| match message?.event {
            Some(register_request::Event::Registration(registration)) => Ok(accepted(registration.endpoint)),
            _ => Err(Status::data_loss("that was the last one")),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn subscribe(
        &self,
        _: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::resource_exhausted("as the scenario wants it"))
    }
}

#[tonic::async_trait]
impl TraceService for Answering {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let caller = request.metadata().get("eastway-source").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let partial_success = ExportTracePartialSuccess { error_message: caller.to_owned(), ..Default::default() };
        Ok(Response::new(ExportTraceServiceResponse { partial_success: Some(partial_success) }))
    }
}

fn accepted(gateway: String) -> RegisterResponse {
    let accepted = RegisterAccepted { gateway, epoch: 0 };
    RegisterResponse { event: Some(register_response::Event::Accepted(accepted)) }
}

fn message(endpoint: &str) -> RegisterRequest {
    let registration = Registration { endpoint: endpoint.to_owned(), ..Default::default() };
    RegisterRequest { event: Some(register_request::Event::Registration(registration)) }
}

fn serve(runtime: &Runtime, address: SocketAddr) {
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).expect("the lab's address is free");
    let server =
        Server::builder().add_service(DiscoveryServer::new(Answering)).add_service(TraceServiceServer::new(Answering));
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
}

fn channel(proxy: SocketAddr, host: &str) -> Channel {
    let origin = format!("http://{host}:50051").parse().expect("an origin");
    let endpoint = Endpoint::from_shared(format!("http://{proxy}")).expect("an address");
    endpoint.origin(origin).timeout(Duration::from_secs(30)).connect_lazy()
}

/// A lab whose payments application, in `cluster`, speaks gRPC, called from us-east.
fn lab(runtime: &Runtime, clusters: &[&str], cluster: &str) -> (Lab, SocketAddr) {
    let mut lab = Lab::new();
    lab.clusters(clusters, StoreKind::Embedded);
    let ip = lab.host();
    serve(runtime, (ip, 8080).into());
    lab.beside(cluster, "a", ip, "");
    let proxy = lab.storefront("us-east", "a").proxy();
    known(proxy, "payments.shop.mesh.internal");
    (lab, proxy)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

#[test]
fn calls_streams_and_trailers_pass_within_a_cluster() {
    let runtime = runtime();
    let (_lab, proxy) = lab(&runtime, &["us-east"], "us-east");
    runtime.block_on(calls_streams_and_trailers(proxy));
}

#[test]
fn calls_streams_and_trailers_pass_across_clusters() {
    let runtime = runtime();
    let (_lab, proxy) = lab(&runtime, &["us-east", "eu-west"], "eu-west");
    runtime.block_on(calls_streams_and_trailers(proxy));
}

async fn calls_streams_and_trailers(proxy: SocketAddr) {
    let channel = channel(proxy, "payments.shop.mesh.internal");
    let mut unary = TraceServiceClient::new(channel.clone());
    let answer = unary.export(ExportTraceServiceRequest::default()).await.expect("an answer").into_inner();
    assert_eq!(answer.partial_success.map(|success| success.error_message).as_deref(), Some(STOREFRONT));

    // Each message is sent only after the one before was answered: nothing waits for the end of anything.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut streaming = DiscoveryClient::new(channel);
    sender.send(message("0")).await.expect("the stream is open");
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = streaming.register(receiver).await.expect("an answer").into_inner();
    for number in 0..100 {
        let answer = answers.message().await.expect("the stream lives").expect("an answer");
        assert_eq!(answer, accepted(number.to_string()));
        sender.send(message(&(number + 1).to_string())).await.expect("the stream is open");
    }
    answers.message().await.expect("the stream lives").expect("the answer to the hundredth");
    sender.send(RegisterRequest::default()).await.expect("the stream is open");
    let end = answers.message().await.expect_err("the application's own end");
    assert_eq!((end.code(), end.message()), (Code::DataLoss, "that was the last one"));

    let refused = streaming.subscribe(tokio_stream::empty()).await.expect_err("the application's own refusal");
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "as the scenario wants it"));
}

#[test]
fn a_refusal_by_the_mesh_is_a_grpc_status_with_its_reason() {
    let runtime = runtime();
    let (_lab, _, storefront) = Lab::one_cluster();
    let refused = runtime.block_on(async {
        let mut client = TraceServiceClient::new(channel(storefront.proxy(), "nothing.shop.mesh.internal"));
        client.export(ExportTraceServiceRequest::default()).await.expect_err("nobody serves it")
    });
    assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    let status = refused.metadata().get("proxy-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(status.contains("unknown_service"), "{refused:?}");
}
