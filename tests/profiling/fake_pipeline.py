"""A pipeline without networks: variants that work, and variants that fail in every way."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from ipa_energy.pipeline_models import Variant

MODES = (
    "steady",
    "slower",
    "falling",
    "sleepy",
    "raises",
    "exits",
    "killed",
    "hangs",
    "short",
    "nothing",
    "no-build",
    "chatty",
    "late",
    "spinner",
)
VARIANTS = tuple(Variant("work", mode, 0.5, "made up", (2,)) for mode in MODES)


def versions():
    return {"fake": "1"}


def sample(variant, batch, seed):
    return [[seed] * variant.input_shape[0]] * batch


def spin(cpu_s):
    end_s = time.process_time() + cpu_s
    while time.process_time() < end_s:
        pass


def linger():
    end_s = time.perf_counter() + 0.3
    while time.perf_counter() < end_s:
        pass


def build(variant, *, weights, threads):
    if variant.name == "no-build":
        raise RuntimeError("no such network")
    if variant.name == "chatty":
        print("a library that prints when it loads")  # noqa: T201
        spin(0.2)
        os.write(1, b"and one that writes to the descriptor\n")
    calls = 0

    def run(batch):
        nonlocal calls
        calls += 1
        if weights is not None:  # where the test wants to know what runs where, and how often
            with Path(weights).open("a") as file:
                file.write(f"{variant.name} {sorted(os.sched_getaffinity(0))} {threads}\n")
        return behave(variant.name, batch, calls)

    return run


def behave(name, batch, calls):
    if name == "raises":
        raise ValueError("bad input tensor")
    if name == "exits":
        sys.stderr.write("out of something\n")
        os._exit(3)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "late" and calls > 4:
        raise ValueError("only now")
    if name == "short":
        return batch[:-1]
    if name == "nothing":
        return None
    if name == "hangs":
        time.sleep(60)
    elif name == "sleepy":
        time.sleep(0.01)
    else:
        if name == "spinner":  # as the threads of a parallel loop do, ready for the next one
            threading.Thread(target=linger, daemon=True).start()
        spin(0.002 * len(batch) * {"slower": 3, "falling": max(1, 12 - 2 * calls)}.get(name, 1))
    return batch
