"""Start until ready, and memory while nothing is asked: a single process of each peer."""

from __future__ import annotations

import time
from typing import Callable, Iterator

from . import machine
from .eastway import HOME
from .figures import Record
from .processes import Running, Spec, accepts, answers
from .workspace import Workspace

# How long a process is left alone before its memory is read.
REST = 2.0
# How often it is asked whether it is ready.
PAUSE = 0.001


def measure(workspace: Workspace, round_: str) -> Iterator[Record]:
    """Each of them once. Eastway's sidecar finds its gateway running, and is ready when it says so."""
    configs = workspace.configs
    single = {
        "envoy": f"{workspace.program('envoy')} -c {configs}/envoy-near.json --concurrency 1 --disable-hot-restart -l error",
        "haproxy": f"{workspace.program('haproxy')} -db -f {configs}/haproxy-near.cfg",
        "nginx": f"{workspace.program('nginx')} -e {configs}/nginx-near.log -p {configs} -c {configs}/nginx-near.conf",
    }
    for name, command in single.items():
        with Running([], configs) as running:
            spec = Spec(f"idle-{name}", "proxy", tuple(command.split()))
            yield _start(running, spec, lambda: accepts("127.0.0.1", 19000), round_, name)
    eastway = workspace.program("eastway")
    with Running([], configs) as running:
        for role, config, host in (("gateway", "gateway", 1), ("sidecar", "caller", 2)):
            spec = Spec(config, role, (eastway, role, "--config", f"{configs}/{config}.yaml"))
            address = HOME.address(host, 15020).split(":")[0]
            ready = lambda address=address: answers(address, 15020, "/ready")
            yield _start(running, spec, ready, round_, f"eastway-{role}")


def _start(running: Running, spec: Spec, ready: Callable[[], bool], round_: str, peer: str) -> Record:
    background = machine.Background()
    began = time.perf_counter()
    pid = running.start(spec)
    running.wait(peer, ready, pause=PAUSE)
    took = (time.perf_counter() - began) * 1e3
    time.sleep(REST)
    values = {"ready": took, "rss": machine.memory(pid, "VmRSS"), "pss": machine.memory(pid, "Pss")}
    return Record(round_, "idle", peer, values, background.cores())
