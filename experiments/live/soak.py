"""A live pipeline under changes, kills and freezes for as long as you like.

    python experiments/live/soak.py --seconds 120 --every 1

Two stages of stub models behind the router, 50 requests a second. Every few seconds one of these in
turn: both stages change variant, a replica is killed, batch size and replicas change, a replica is
frozen. Whatever the load generator sent is accounted for, and the plane's memory, descriptors and
children are looked at before and after, when the same configuration has settled again. Prints what
it found, writes ``results/soak.json`` and ends with status 1 if anything was lost or leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.meters.power_model import power_model_for_this_machine
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.local.backend import PlaneLoad
from ipa_energy.serving.local.plane import Job, Plane
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.local.sender import send_all
from ipa_energy.serving.served import Change, Event

OUT = Path(__file__).parent / "results" / "soak.json"
STAGES = ("one", "two")
SERVICE_S = {"small": 0.002, "large": 0.006}
MOST_GROWTH_MB = 5.0
CALL_TIMEOUT_S = 2.0
WARM_UP_S = 3


def option(variant: str, batch: int = 1) -> Option:
    """A stub on a core."""
    return Option(variant, Allocation.of(1.0), batch, 0.0, 0.0, 0.0, 1e9, 1.0, 0.0, 0.0, None)


def started() -> Plane:
    """Two stages that may run either variant."""
    servers = {}
    for variant, seconds in SERVICE_S.items():
        told = json.dumps({"name": variant, "batch_s": {"1": seconds}})
        command = (sys.executable, "-m", "ipa_energy.serving.local.stub_model", told)
        servers[variant, option(variant).allocation] = Launch(command, variant)
    return Plane(Job("pipe", dict.fromkeys(STAGES, servers), power_model_for_this_machine()))


def configure(plane: Plane, variant: str, *, replicas: int = 2, batch: int = 1) -> None:
    """Both stages from now on."""
    timeout_s = 0.01 if batch > 1 else 0.0
    wanted = Wanted(option(variant, batch), replicas, timeout_s, CALL_TIMEOUT_S)
    plane.want([[wanted]] * len(STAGES))


def seen(pid: int) -> dict[str, float]:
    """A process's memory, descriptors and children."""
    status = Path(f"/proc/{pid}/status").read_text()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "rss_mb": int(status.split("VmRSS:")[1].split()[0]) / 1024,
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "children": len(children),
    }


def victim(plane: Plane, generator: set[int]) -> int | None:
    """Some replica's process id."""
    children = Path(f"/proc/{plane.pid}/task/{plane.pid}/children").read_text().split()
    replicas = [int(pid) for pid in children if int(pid) not in generator]
    return replicas[0] if replicas else None


class Disturber:
    """Does the next bad thing each time it is asked.

    Attributes:
        counts: what was done, how often.
    """

    def __init__(self, plane: Plane, spared: set[int]) -> None:
        self._plane, self._spared = plane, spared
        self._acts = cycle(("variant", "kill", "variant", "batch", "variant", "freeze"))
        self._variants = cycle(("large", "small"))
        self.counts = dict.fromkeys(("variant", "batch", "kill", "freeze"), 0)

    def act(self) -> None:
        """One of them."""
        act = next(self._acts)
        self.counts[act] += 1
        if act == "variant":
            configure(self._plane, next(self._variants))
        elif act == "batch":
            configure(self._plane, "large", replicas=1, batch=4)
        elif (pid := victim(self._plane, self._spared)) is not None:
            os.kill(pid, signal.SIGKILL if act == "kill" else signal.SIGSTOP)


def soak(rps: int, seconds: int, every_s: float) -> dict[str, Any]:
    """The whole of it."""
    plane = started()
    try:
        configure(plane, "small")
        plane.wait(120)
        warm_up(plane, rps)
        before = seen(plane.pid)
        zero_s: list[float] = []
        load = PlaneLoad(
            TraceLoad(np.full(seconds, rps), seed=1), plane, model="pipe", on_start=zero_s.append
        )
        children = Path(f"/proc/{plane.pid}/task/{plane.pid}/children").read_text().split()
        disturber = Disturber(plane, {max(int(pid) for pid in children)})  # the generator came last
        load.start()
        tables, events, changes, until_s = [], list[Event](), list[Change](), 0.0
        along: list[dict[str, float]] = []  # every five minutes, whatever was just done
        while until_s < seconds - every_s - CALL_TIMEOUT_S:
            disturber.act()
            until_s += every_s
            time.sleep(max(0.0, zero_s[0] + until_s - time.perf_counter()))
            collected = plane.collect(until_s)
            tables.append(collected.rows(len(STAGES)))
            events += collected.report.events
            changes += collected.report.changes
            if until_s // 300 > len(along):
                along.append({"at_s": until_s, **seen(plane.pid)})
        configure(plane, "small")
        collected = plane.collect(math.inf)
        tables.append(collected.rows(len(STAGES)))
        events += collected.report.events
        plane.wait(120)
        time.sleep(1.0)
        after = seen(plane.pid)
    finally:
        plane.close()
    result = found(np.concatenate(tables), load, events, changes)
    done = {"done": disturber.counts, "before": before, "along": along, "after": after}
    return {**result, **done}


def warm_up(plane: Plane, rps: int) -> None:
    """A few seconds of the same load from a generator of its own."""
    trace = TraceLoad(np.full(WARM_UP_S, rps), seed=2)
    asyncio.run(send_all(trace.sending_s(0.0, math.inf), address=plane.address, model="pipe"))
    plane.report()


def found(
    table: Floats, load: PlaneLoad, events: list[Event], changes: list[Change]
) -> dict[str, Any]:
    """What came of the requests and the replicas."""
    sent_s = load.sending_s(0.0, math.inf)
    lost = table[:, 3] >= 0
    latency_ms = (table[:, 2] - sent_s[table[:, 0].astype(int)])[~lost] * 1e3
    born = {e.replica: e.at_s for e in events if e.phase == "asked"}
    whole = [change for change in changes if not math.isnan(change.gone_s)]
    repairs_s = [e.at_s - born[e.replica] for e in events if e.phase == "repaired"]
    return {
        "sent": len(sent_s),
        "answered": int((~lost).sum()),
        "dropped": int((lost & (table[:, 4] == 0)).sum()),
        "failed": int((table[:, 4] > 0).sum()),
        "unaccounted": len(sent_s) - len(table),
        "p50_ms": float(np.median(latency_ms)),
        "p99_ms": float(np.quantile(latency_ms, 0.99)),
        "repaired": len(repairs_s),
        "repair_max_s": max(repairs_s, default=None),
        "changes_ended": len(whole),
        "change_ready_p50_s": float(np.median([c.ready_s - c.asked_s for c in whole])),
        "change_gone_p50_s": float(np.median([c.gone_s - c.asked_s for c in whole])),
    }


def main() -> None:
    """Soak, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rps", type=int, default=50, help="requests a second (default: 50)")
    parser.add_argument("--seconds", type=int, default=120, help="of load (default: 120)")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between disturbances")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON to write")
    told = parser.parse_args()
    result = {
        "when": time.strftime("%Y-%m-%d"),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        **soak(told.rps, told.seconds, told.every),
        "load_average_after": os.getloadavg()[0],
    }
    show(result)
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_text(json.dumps(result, indent=1) + "\n")
    before, after = result["before"], result["after"]
    lost = result["dropped"] + result["failed"] + result["unaccounted"]
    leaked = (
        after["rss_mb"] - before["rss_mb"] > MOST_GROWTH_MB
        or after["descriptors"] != before["descriptors"]
        or after["children"] != before["children"]
    )
    sys.exit(1 if lost or leaked else 0)


def show(result: dict[str, Any]) -> None:
    """In words."""
    before, after = result["before"], result["after"]
    print(
        f"{result['cpus']} CPUs, load average {result['load_average_before']:.1f} before and"
        f" {result['load_average_after']:.1f} after\n"
        f"{result['sent']} sent: {result['answered']} answered, {result['dropped']} dropped,"
        f" {result['failed']} failed, {result['unaccounted']} unaccounted;"
        f" p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.0f} ms\n"
        f"{', '.join(f'{count} × {what}' for what, count in result['done'].items())};"
        f" {result['repaired']} repaired before the next change, the slowest in"
        f" {result['repair_max_s'] or 0:.2f} s; {result['changes_ended']} changes of a stage ended:"
        f" all serve after {result['change_ready_p50_s']:.2f} s, the old ones are gone after"
        f" {result['change_gone_p50_s']:.2f} s (medians)\n"
        + "; ".join(f"{name} {before[name]:.4g} → {after[name]:.4g}" for name in before)
    )


if __name__ == "__main__":
    main()
