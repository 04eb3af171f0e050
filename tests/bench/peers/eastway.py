"""Eastway's configurations and identities: a pair in one cluster, and a chain across two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .processes import output

SUFFIX = "shop.mesh.internal"
# Where callers send requests, for every peer, and where opaque streams go in.
ENTRY = 19000
TCP_ENTRY = 19010


@dataclass(frozen=True)
class Cluster:
    """One cluster: its gateway has the address 127.9.N.1, its workloads the following ones."""

    name: str
    number: int

    def address(self, host: int, port: int) -> str:
        """Of one of its hosts."""
        return f"127.9.{self.number}.{host}:{port}"

    def identity(self, name: str) -> str:
        """The line of a configuration."""
        own = f"certificate: {self.name}/{name}.crt, key: {self.name}/{name}.key"
        return f"identity: {{ {own}, bundle: {self.name}-ca/ca.crt }}"

    def gateway(self, resources: str, more: str = "") -> str:
        """The configuration of its gateway."""
        return f"""\
cluster: {self.name}
region: {self.name}
gateway: gateway-1
zones: {{ a: {{}}, b: {{}} }}
{self.identity('gateway')}
tunnel: {{ listen: '{self.address(1, 15443)}' }}
discovery: {{ listen: '{self.address(1, 15010)}' }}
admin: {{ listen: '{self.address(1, 15000)}' }}
metrics: {{ listen: '{self.address(1, 15020)}' }}
store: {{ embedded: {{ path: {self.name}-state }} }}
resources: [{resources}]
{more}"""

    def sidecar(self, name: str, host: int, proxy: str = "", app: str = "", more: str = "") -> str:
        """The configuration of the sidecar of a workload, which serves the service of its name if it has an `app`."""
        serving = f", service: {name}" if app else ""
        inbound = f"inbound: {{ listen: '{self.address(host, 15008)}', app: '{app}' }}\n" if app else ""
        listener = f"{{ listen: '127.0.0.1:{TCP_ENTRY}', service: shop/sink, port: 9000 }}"
        listeners = f", listeners: [{listener}]" if proxy else ""
        gateway = f"{{ discovery: '{self.address(1, 15010)}', tunnel: '{self.address(1, 15443)}' }}"
        return f"""\
cluster: {self.name}
zone: a
workload: {{ name: {name}-1, namespace: shop{serving} }}
{self.identity(name)}
gateways: [{gateway}]
outbound: {{ proxy: '{proxy or self.address(host, 15080)}'{listeners} }}
admin: {{ listen: '{self.address(host, 15000)}' }}
metrics: {{ listen: '{self.address(host, 15020)}' }}
{inbound}{more}"""


def service(name: str, ports: str = "") -> str:
    """A service that is exported to every cluster."""
    spec = "export: ['*']" + (f", ports: [{ports}]" if ports else "")
    meta = f"metadata: {{ name: {name}, namespace: shop }}"
    return f"apiVersion: eastway.dev/v1\nkind: Service\n{meta}\nspec: {{ {spec} }}\n"


def peer(of: Cluster, imports: str = "") -> str:
    """What makes another cluster a peer."""
    spec = f"gateways: ['{of.address(1, 15443)}'], trustBundle: {of.name}-ca/ca.crt{imports}"
    return f"apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: {of.name} }}\nspec: {{ {spec} }}\n"


HOME = Cluster("home", 0)
NEAR = Cluster("near", 1)
FAR = Cluster("far", 2)

SERVICES = (service("web"), service("grpc"), service("sink", "{ port: 9000, protocol: tcp }"))
APPS = {"web": "127.0.0.1:18080", "grpc": "127.0.0.1:18081", "sink": "127.0.0.1:18090"}


def files(slow: bool = False) -> dict[str, str]:
    """All configurations. With `slow`, time limits are such that a process may be fifty times slower than usual."""
    gateway = sidecar = ""
    if slow:
        common = "connect: 30s, handshake: 30s, streamOpen: 30s, tcpUserTimeout: 60s"
        gateway = f"timeouts: {{ {common} }}\n"
        sidecar = f"timeouts: {{ {common}, pingAfter: 30s, pingTimeout: 30s, request: 60s, discovery: 30s }}\n"
    caller = f"127.0.0.1:{ENTRY}"
    written = {
        "gateway.yaml": HOME.gateway("resources.yaml", gateway),
        "resources.yaml": "---\n".join(SERVICES),
        "caller.yaml": HOME.sidecar("caller", 2, proxy=caller, more=sidecar),
        "near-gateway.yaml": NEAR.gateway("near-resources.yaml", gateway),
        "near-resources.yaml": peer(FAR, ", imports: ['shop/*']"),
        "near-caller.yaml": NEAR.sidecar("caller", 2, proxy=caller, more=sidecar),
        "far-gateway.yaml": FAR.gateway("far-resources.yaml", gateway),
        "far-resources.yaml": "---\n".join((peer(NEAR), *SERVICES)),
    }
    for host, (name, app) in enumerate(APPS.items(), 3):
        written[f"{name}.yaml"] = HOME.sidecar(name, host, app=app, more=sidecar)
        written[f"far-{name}.yaml"] = FAR.sidecar(name, host, app=app, more=sidecar)
    for name in ("caller", "web"):
        for workers in (1, 2):
            limit = f"limits: {{ workers: {workers} }}\n"
            text = written[f"{name}.yaml"]
            written[f"{name}-workers-{workers}.yaml"] = text + limit
    return written


def crowd_files(services: int) -> dict[str, str]:
    """A pair for many endpoints of `web`, or many further services; `@` stands for the folder of the identities."""
    names = [f"crowd-{number}" for number in range(services)]
    crowd = [service(name).replace("export: ['*']", "accounts: [web]") for name in names]
    texts = {
        "gateway.yaml": HOME.gateway("resources.yaml", "registration: { perAccount: 50000 }\n"),
        "resources.yaml": "---\n".join([*SERVICES, *(crowd if services > 1 else [])]),
        "caller.yaml": HOME.sidecar("caller", 2, proxy=f"127.0.0.1:{ENTRY}", more="limits: { subscriptions: 2000 }\n"),
        "web.yaml": HOME.sidecar("web", 3, app=APPS["web"]),
    }
    folders = (f"{HOME.name}/", f"{HOME.name}-ca/")
    for folder in folders:
        texts = {name: text.replace(f": {folder}", f": @{folder}") for name, text in texts.items()}
    return texts


def write(folder: Path, eastway: str, slow: bool = False) -> None:
    """The configurations, and, if they are missing, the identities that they name."""
    for name, text in files(slow).items():
        (folder / name).write_text(text)
    for cluster in (HOME, NEAR, FAR):
        authority = folder / f"{cluster.name}-ca"
        if authority.exists():
            continue
        output([eastway, "ca", "init", "--cluster", cluster.name, "--out", str(authority)], 20)
        issue = [eastway, "ca", "issue", "--ca", str(authority), "--out", str(folder / cluster.name)]
        output([*issue, "--gateway", "gateway-1", "--name", "gateway"], 20)
        for name in ("caller", *APPS):
            output([*issue, "--workload", f"shop/{name}", "--name", name], 20)
