"""The closed form of the wait for a replica (``latency_model: queue``) against the simulator.

    python experiments/benchmarks/queue_wait.py [--seeds N] [--out FILE.md]

One stage, Poisson arrivals, service times that scatter as a profile's do, p99 1.2 times the mean.
Planned is what is planned at the 99 % quantile until a batch starts; simulated is that quantile of
the time from the queue to the start of the batch, over all seeds together. *late* is the share of
requests that took longer than the planned latency, by ``service`` and by ``queue``, each with the
p99 of the service.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.queue_wait import planned_wait_s
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.simulated.backend import SimulatedBackend

REPLICAS, BATCHES, BUSY = (1, 2, 4, 8, 16), (1, 4, 8), (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
REQUESTS = 4_000
P99_OVER_MEAN = 1.2


def made_options() -> dict[int, Option]:
    """Batch → an option whose batches take 60 ms and 20 ms a request."""
    found = {}
    for batch in BATCHES:
        service_s = 0.06 + 0.02 * batch
        p99_s = P99_OVER_MEAN * service_s
        found[batch] = Option(
            variant="v",
            allocation=Allocation.of(1),
            batch=batch,
            latency_s=p99_s,
            latency_avg_s=service_s,
            latency_p99_s=p99_s,
            throughput_rps=batch / service_s,
            accuracy=0.5,
            dynamic_energy_j=1.0,
            idle_power_w=1.0,
            provenance=None,
        )
    return found


def simulated(stage: Stage, option: Option, replicas: int, load_rps: float, seed: int) -> Floats:
    """(requests, 2): seconds until the batch starts, and until it is done; warm-up left out."""
    random = np.random.default_rng(seed)
    sending_s = np.cumsum(random.exponential(1 / load_rps, REQUESTS))
    runs = (DeployedStage(stage.name, option, replicas),)
    backend = SimulatedBackend([stage], runs, seed=seed, batch_timeout_s=[60.0])
    end_s = float(sending_s[-1]) + 1
    parts = [backend.serve(sending_s, end_s), backend.finish()]
    waited = np.concatenate([(p.requests.started_s - p.requests.queued_s)[:, 0] for p in parts])
    took = np.concatenate([(p.requests.served_s - p.requests.queued_s)[:, 0] for p in parts])
    return np.stack([waited, took], axis=1)[REQUESTS // 10 :]


def table(seeds: int) -> list[str]:
    """Lines of Markdown, and the errors in short."""
    options = made_options()
    stage = Stage("one", "one", tuple(options.values()))
    names = ("replicas", "batch", "busy", "planned s", "simulated s", "off %")
    head = "| " + " | ".join([*names, "late, service %", "late, queue %"]) + " |"
    lines = [head, "|" + "---|" * 8]
    errors, late = [], []
    for replicas in REPLICAS:
        for batch, option in options.items():
            for busy in BUSY:
                load_rps = busy * replicas * option.throughput_rps
                fill_s = (batch - 1) / load_rps
                queue_s = planned_wait_s(option, replicas, load_rps)
                runs = [simulated(stage, option, replicas, load_rps, seed) for seed in range(seeds)]
                waited, took = np.concatenate(runs).T
                found_s = float(np.quantile(waited, 0.99))
                planned_s = fill_s + queue_s
                off_ = (planned_s - found_s) / (found_s + option.latency_avg_s)
                served_s = option.latency_s + fill_s
                shares = [100 * float(np.mean(took > s)) for s in (served_s, served_s + queue_s)]
                errors.append(off_)
                late.append(shares)
                lines.append(
                    f"| {replicas} | {batch} | {busy} | {planned_s:.3f} | {found_s:.3f} |"
                    f" {100 * off_:+.0f} | {shares[0]:.1f} | {shares[1]:.1f} |"
                )
    percent, shares_ = 100 * np.array(errors), np.array(late)
    off, service, queue = np.abs(percent), shares_[:, 0], shares_[:, 1]
    return [
        f"*off*, of wait and service together: median {np.median(off):.0f} %, 90 % of the settings"
        f" within {np.quantile(off, 0.9):.0f} %, least {percent.min():+.0f} %, most"
        f" {percent.max():+.0f} %. Late by `service`: {service.mean():.1f} % of the requests in"
        f" the mean, {service.max():.0f} % at worst; by `queue`: {queue.mean():.1f} % and"
        f" {queue.max():.1f} %.",
        "",
        *lines,
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="Markdown; default stdout")
    options = parser.parse_args(arguments)
    command = f"    python experiments/benchmarks/queue_wait.py --seeds {options.seeds}"
    head = ["# The planned wait for a replica against the simulator", "", command, ""]
    text = "\n".join([*head, *table(options.seeds)]) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
