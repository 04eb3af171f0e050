"""What /proc says: processor time, memory, the machine itself, and how much of it others take."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Iterable

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                found += family(int(child))
        except OSError:
            continue
    return found


def cpu(pids: Iterable[int]) -> float:
    """Seconds on a processor of these processes and their descendants, all threads that live or lived."""
    total = 0.0
    for pid in (member for root in pids for member in family(root)):
        try:
            # The processor-time clock of another process, as clock_getcpuclockid(3) makes it. It counts nanoseconds;
            # /proc/PID/stat counts ticks of ten milliseconds, and /proc/PID/schedstat one thread.
            total += time.clock_gettime(~pid << 3 | 2)
        except OSError:
            continue
    return total


def memory(pid: int, key: str) -> float:
    """`VmRSS`, `VmHWM` or `Pss` over a process and its descendants, in MiB."""
    kibibytes = 0
    for member in family(pid):
        path = Path(f"/proc/{member}/{'smaps_rollup' if key == 'Pss' else 'status'}")
        try:
            match = re.search(rf"^{key}:\s+(\d+)", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        kibibytes += int(match.group(1)) if match else 0
    return kibibytes / 1024


class Background:
    """How many cores what does not belong to the benchmark has taken since this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _wait, hard, soft, stolen = fields
        times = os.times()
        # What has ended was waited for, and is counted with this process; what lives is a descendant of it.
        own = cpu([os.getpid()]) + times.children_user + times.children_system
        return (user + nice + system + hard + soft + stolen) / TICKS, own

    def cores(self) -> float:
        """The mean over that time."""
        busy, own = self._read()
        elapsed = time.monotonic() - self._began
        return max(0.0, round((busy - self._busy - (own - self._own)) / max(elapsed, 1e-3), 2))


def facts() -> dict[str, str | int]:
    """What must be known of a machine to read its figures."""
    information = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", information, re.MULTILINE)
    return {
        "cores": os.cpu_count() or 1,
        "processor": model.group(1) if model else platform.machine(),
        "virtual": "yes" if "hypervisor" in information else "no",
        "kernel": platform.release(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
    }
