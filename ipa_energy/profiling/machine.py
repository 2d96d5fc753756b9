"""What a profile was measured on, as its meta file tells it: no host names, no paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def describe_machine(proc: Path = PROC) -> dict[str, Any]:
    """CPU, cores, memory, kernel, and whether a hypervisor is in between."""
    cpu = _first_cpu(proc / "cpuinfo")
    memory_kib = next(
        (
            int(line.split()[1])
            for line in (proc / "meminfo").read_text().splitlines()
            if line.startswith("MemTotal:")
        ),
        0,
    )
    return {
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family": cpu.get("cpu family"),
        "cpu_model": cpu.get("model"),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "virtualised": "hypervisor" in cpu.get("flags", "").split(),
        "python": platform.python_version(),
    }


def _first_cpu(cpuinfo: Path) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    return facts
