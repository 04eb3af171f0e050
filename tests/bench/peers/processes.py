"""Processes that the benchmark starts, and ends by the handles that it got."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

PATIENCE = 20.0


class Failed(Exception):
    """Something did not come up, or a load did not run; the message says what."""


@dataclass(frozen=True)
class Spec:
    """A process of a peer."""

    name: str
    # proxy, sidecar or gateway: what its memory is compared with.
    role: str
    command: tuple[str, ...]


class Running:
    """Started processes; leaving the context ends them, the last one first."""

    def __init__(self, specs: Sequence[Spec], folder: Path) -> None:
        self._folder = folder
        self._started: list[tuple[Spec, subprocess.Popen[bytes]]] = []
        try:
            for spec in specs:
                self.start(spec)
        except OSError as error:
            self.end()
            raise Failed(str(error)) from error

    def start(self, spec: Spec) -> int:
        """Starts one more, and gives its pid. Its output goes to a file of its own."""
        with open(self._folder / f"{spec.name}.log", "ab") as log:
            process = subprocess.Popen(
                spec.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        self._started.append((spec, process))
        return process.pid

    def kill(self, name: str) -> None:
        """Ends one of them at once, without a farewell to those that know it."""
        for entry in [entry for entry in self._started if entry[0].name == name]:
            entry[1].kill()
            entry[1].wait()
            self._started.remove(entry)

    def pids(self) -> dict[str, int]:
        """By name."""
        return {spec.name: process.pid for spec, process in self._started}

    def roles(self) -> dict[str, str]:
        """By name."""
        return {spec.name: spec.role for spec, _ in self._started}

    def check(self) -> None:
        """Fails if any of them has ended."""
        for spec, process in self._started:
            if process.poll() is not None:
                log = (self._folder / f"{spec.name}.log").read_text(errors="replace")
                raise Failed(f"{spec.name} ended with {process.returncode}: {log[-800:]}")

    def wait(self, what: str, ready: Callable[[], bool], patience: float = PATIENCE, pause: float = 0.02) -> None:
        """Until `ready`, as long as all of them live."""
        deadline = time.monotonic() + patience
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{what} is not ready after {patience:g} s; logs in {self._folder}")
            time.sleep(pause)

    def end(self) -> None:
        """Asks each to end, waits, and kills what does not; only what was started here."""
        for _, process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for _, process in reversed(self._started):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def accepts(address: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((address, port), 0.2).close()
    except OSError:
        return False
    return True


def answers(address: str, port: int, path: str, host: str = "bench") -> bool:
    """Whether a GET of `path` is answered with 200."""
    try:
        with socket.create_connection((address, port), 0.5) as connection:
            connection.settimeout(1)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def output(command: Sequence[str], limit: float) -> str:
    """What a command prints, within `limit` seconds; `Failed` if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, env=os.environ)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    return done.stdout
