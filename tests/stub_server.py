"""A stub model's server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stub_server(seconds: float) -> Iterator[tuple[int, str]]:
    """Its process id and address; a request takes it so long."""
    told = json.dumps({"name": "m", "batch_s": {"1": seconds}})
    with subprocess.Popen(
        [sys.executable, "-m", "ipa_energy.serving.local.stub_model", told],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["port"]
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            process.kill()
