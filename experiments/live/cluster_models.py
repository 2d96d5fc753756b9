"""The video pipeline's models in pods, with a change of all of them on the way.

    python experiments/live/cluster_models.py

The stand-in API server of ``tests/standin_cluster`` and its node, whose pods are MLServer
processes of this machine; ``run --backend kubernetes`` begins with the smallest models (yolov5n,
resnet18) and at its first decision wants the largest of ``configs/video-live.yaml`` (yolov5s,
resnet50). Prints what became of the requests, writes ``results/cluster_models.json`` and ends with
status 1 if one was lost or nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.runlog import read_run

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parent / "results" / "cluster_models.json"
PIPELINE = "configs/video-live.yaml"
SLA_S = 2.0


@contextmanager
def cluster(kubeconfig: Path) -> Iterator[None]:
    """One on this machine, while the block runs."""
    words = [sys.executable, "-m", "tests.standin_cluster", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()  # it listens
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def run(kubeconfig: Path, out: Path, *, rps: float, seconds: int) -> None:
    """A run to its end, in a folder."""
    load = f"workload_config={{loads_to_test: {rps:g}, load_duration: {seconds}}}"
    words = ["run", PIPELINE, "--backend", "kubernetes", "--kubeconfig", str(kubeconfig)]
    words += ["--out", str(out), "--set", load]
    subprocess.run([sys.executable, "-m", "ipa_energy", *words], check=True, cwd=ROOT)


def found_in(folder: Path) -> dict[str, Any]:
    """What became of the requests, before, during and after the change."""
    log = read_run(folder)
    requests = log.requests
    changes = [one for step in log.steps if step.live is not None for one in step.live.changes]
    changes = [one for one in changes if one.asked_s > 1.0]
    asked_s = min((one.asked_s for one in changes), default=np.inf)
    gone_s = max((one.gone_s for one in changes), default=np.inf)
    waits_s = requests.done_s - requests.sending_s
    is_served = requests.dropped_at < 0
    parts = {
        "before": requests.sending_s < asked_s,
        "during": (requests.sending_s >= asked_s) & (requests.sending_s <= gone_s),
        "after": requests.sending_s > gone_s,
    }
    return {
        "requests": len(waits_s),
        "lost": int((~is_served).sum()),
        "in_sla_percent": round(100 * float(np.mean(is_served & (waits_s <= SLA_S))), 1),
        "changes": [
            {"stage": one.stage, "to": one.to, "asked_s": round(one.asked_s, 1)}
            | {"ready_after_s": round(one.ready_s - one.asked_s, 1)}
            | {"old_gone_after_s": round(one.gone_s - one.asked_s, 1)}
            for one in changes
        ],
        "latency_s": {
            name: {
                "requests": int(mine.sum()),
                "p50": round(float(np.median(waits_s[mine])), 3),
                "longest": round(float(waits_s[mine].max()), 3),
            }
            for name, mine in parts.items()
            if mine.any()
        },
    }


def main() -> int:
    """Serve, and say what became of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rps", type=float, default=1.5, help="load (default: 1.5)")
    parser.add_argument("--seconds", type=int, default=60, help="of load (default: 60)")
    told = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig, out = Path(folder, "kubeconfig"), Path(folder, "run")
        with cluster(kubeconfig):
            run(kubeconfig, out, rps=told.rps, seconds=told.seconds)
        found = found_in(out)
    found |= {"rps": told.rps, "seconds": told.seconds, "cores": os.cpu_count()}
    found["load_average"] = [round(before, 1), round(os.getloadavg()[0], 1)]
    text = json.dumps(found, indent=2)
    print(text)
    OUT.write_text(text + "\n", encoding="utf-8")
    return int(found["lost"] > 0 or not found["changes"])


if __name__ == "__main__":
    raise SystemExit(main())
