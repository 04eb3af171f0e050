"""Envoy's configurations. They repeat themselves, so they are put together here and written as JSON.

TLS 1.3 with client certificates on each hop, HTTP/2 between proxies, limits far from what the loads need. What is not said keeps
Envoy's default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy.extensions"
MANAGER = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
MANY = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}


def _tls(certificates: Path, own: str, other: str, context: str, protocols: list[str]) -> Json:
    """A transport socket that shows `own` and wants `other`."""
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": f"{certificates}/{own}.crt"},
                "private_key": {"filename": f"{certificates}/{own}.key"},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{certificates}/ca.crt"},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": f"spiffe://bench/ns/default/sa/{other}"}}
            ],
        },
        "alpn_protocols": protocols,
    }
    settings: Json = {"@type": f"{TYPES}.transport_sockets.tls.v3.{context}", "common_tls_context": common}
    settings |= {"require_client_certificate": True} if context.startswith("Down") else {"sni": f"{other}.bench"}
    return {"name": "tls", "typed_config": settings}


def accepting(certificates: Path, http: bool = True) -> Json:
    """The side that is called."""
    return _tls(certificates, "b", "a", "DownstreamTlsContext", ["h2"] if http else [])


def calling(certificates: Path, http: bool = True) -> Json:
    """The side that calls."""
    return _tls(certificates, "a", "b", "UpstreamTlsContext", ["h2"] if http else [])


def http_listener(name: str, port: int, cluster: str, tls: Json | None = None) -> Json:
    """Takes HTTP/1.1 or HTTP/2, whichever comes."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    manager = {
        "@type": MANAGER,
        "stat_prefix": name,
        "http2_protocol_options": {"max_concurrent_streams": 1024},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
        ],
    }
    return _listener(name, port, manager, tls)


def tcp_listener(name: str, port: int, cluster: str, tls: Json | None = None) -> Json:
    """Takes anything."""
    proxy = {"@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": cluster}
    return _listener(name, port, proxy, tls)


def _listener(name: str, port: int, proxy: Json, tls: Json | None) -> Json:
    chain: Json = {"filters": [{"name": "proxy", "typed_config": proxy}]} | ({"transport_socket": tls} if tls else {})
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def cluster(name: str, port: int, tls: Json | None = None, http2: bool = False) -> Json:
    """One endpoint."""
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    settings: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [MANY]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        options = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
        protocol = {"http2_protocol_options": {"max_concurrent_streams": 1024}}
        settings["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": protocol,
            }
        }
    return settings | ({"transport_socket": tls} if tls else {})


def write(folder: Path, certificates: Path) -> None:
    """All configurations, each as NAME.json."""
    take, call = accepting(certificates), calling(certificates)
    take_tcp, call_tcp = accepting(certificates, http=False), calling(certificates, http=False)
    files: dict[str, tuple[list[Json], list[Json]]] = {
        "envoy-near": (
            [http_listener("http", 19000, "http"), http_listener("grpc", 19030, "grpc"), tcp_listener("tcp", 19020, "tcp")],
            [cluster("http", 19001, call, True), cluster("grpc", 19031, call, True), cluster("tcp", 19021, call_tcp)],
        ),
        "envoy-far": (
            [
                http_listener("http", 19001, "http", take),
                http_listener("grpc", 19031, "grpc", take),
                tcp_listener("tcp", 19021, "tcp", take_tcp),
            ],
            [cluster("http", 18080), cluster("grpc", 18081, http2=True), cluster("tcp", 18090)],
        ),
        # Four, each of which ends TLS and begins it anew: the way across clusters that has gateways read HTTP.
        "envoy-4-near": ([http_listener("http", 19000, "http")], [cluster("http", 19101, call, True)]),
        "envoy-4-leaving": ([http_listener("http", 19101, "http", take)], [cluster("http", 19102, call, True)]),
        "envoy-4-entering": ([http_listener("http", 19102, "http", take)], [cluster("http", 19001, call, True)]),
        # One gateway that passes bytes on: the way of a gateway that looks at the server name only.
        "envoy-tcp-near": ([http_listener("http", 19000, "http")], [cluster("http", 19111, call, True)]),
        "envoy-tcp-gateway": ([tcp_listener("tcp", 19111, "tcp")], [cluster("tcp", 19001)]),
    }
    for name, (listeners, clusters) in files.items():
        resources = {"static_resources": {"listeners": listeners, "clusters": clusters}}
        (folder / f"{name}.json").write_text(json.dumps(resources, indent=1))
