"""The child's side of a replica: pin, load, then run batches on command.

Messages come, and answers go, as lines of JSON through the two pipes of
:class:`~ipa_energy.measuring.child_process.ChildProcess`; what a library prints is not in their
way. The affinity and the thread counts are set before the pipeline's libraries are imported,
because they look at both when they load.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

PATIENCE_BATCHES = 3
"""Warm-up ends after this many batches in a row brought nothing new …"""

FALL_RATIO = 0.95
"""… where "new" is a batch time below this share of the fastest one before."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal to get when the parent dies. A replica left behind would go on using the
cores that the next sweep measures."""

Answer = dict[str, Any]


def main() -> None:
    """Load the replica of the first message and serve until the messages end.

    Or say what a pipeline sees of the GPU, if that is the first message; or import what its
    handlers need, and load then.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    numbers = [int(number) for number in sys.argv[1:]]
    for number in numbers:
        os.set_inheritable(number, False)
    with os.fdopen(numbers[0]) as messages, os.fdopen(numbers[1], "w", buffering=1) as answers:
        first = json.loads(messages.readline())
        if "gpu_of" in first:
            _answer(answers, _gpu_seen_by(first["gpu_of"]))
            return
        if "preload" in first:
            _answer(answers, _preload(first["preload"]))
            first = json.loads(messages.readline() or "{}")
        if "load" in first:
            _serve(first["load"], messages, answers)


def _gpu_seen_by(reference: str) -> Answer:
    """What ``gpu()`` of the pipeline returns, or the reason why it cannot.

    Asked in a process of its own: whoever looks makes a CUDA context, which draws watts until it
    ends.
    """
    from ipa_energy.errors import IpaEnergyError
    from ipa_energy.pipeline_models import gpu_pipeline, load_pipeline

    try:
        return gpu_pipeline(load_pipeline(reference)).gpu()
    except IpaEnergyError as error:
        return {"error": str(error)}


def _preload(reference: str) -> Answer:
    """Import what the pipeline's handlers need, or say why that cannot be."""
    from ipa_energy.errors import IpaEnergyError
    from ipa_energy.pipeline_models import load_pipeline, served_pipeline

    try:
        served_pipeline(load_pipeline(reference)).preload()
    except IpaEnergyError as error:
        return {"error": str(error)}
    return {"ok": True}


def _serve(spec: dict[str, Any], messages: Iterable[str], answers: TextIO) -> None:
    try:
        run_batch, size, gpu_memory = _load(spec)
    except Exception as error:
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        raise
    _answer(answers, {"ok": True})
    commands: dict[str, Callable[..., Answer]] = {
        "warm_up": _warm_up,
        "window": _window,
        "paced": _paced,
    }
    for line in messages:
        command = json.loads(line)
        try:
            answer = commands[command.pop("do")](run_batch, size, **command)
        except Exception as error:
            _answer(answers, {"error": f"{type(error).__name__}: {error}"})
            raise
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = {"peak_memory_bytes": peak_kib * 1024, "peak_gpu_memory_bytes": gpu_memory()}
        _answer(answers, answer | memory)


def _answer(answers: TextIO, answer: Answer) -> None:
    answers.write(json.dumps(answer) + "\n")


def _load(spec: dict[str, Any]) -> tuple[Callable[[], Any], int, Callable[[], int | None]]:
    """Pin this process and build the variant.

    Returns:
        a function that runs one batch, its size, and one that tells the most GPU memory held.
    """
    os.sched_setaffinity(0, spec["core_ids"])
    threads = len(spec["core_ids"])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    from ipa_energy.pipeline_models import (
        GPU_DEVICE,
        find_variant,
        gpu_pipeline,
        load_pipeline,
        served_pipeline,
    )

    pipeline = load_pipeline(spec["pipeline"])
    variant = find_variant(pipeline, spec["stage"], spec["variant"])
    if spec["serving"]:
        device = GPU_DEVICE if spec["gpu"] is not None else "cpu"
        gpu_memory = gpu_pipeline(pipeline).peak_gpu_memory_bytes if spec["gpu"] else lambda: None
        served = served_pipeline(pipeline)
        elements = served.requests(spec["seed"], spec["batch"], stage=spec["stage"])
        handler = served.handler(variant, weights=spec["weights"], threads=threads, device=device)
        handler(elements[:1])  # a live replica is ready when it has answered once
        return lambda: handler(elements), spec["batch"], gpu_memory
    batch = pipeline.sample(variant, spec["batch"], spec["seed"])
    how: dict[str, Any] = {"weights": spec["weights"], "threads": threads}
    if spec["precision"]:
        how["precision"] = spec["precision"]
    if spec["gpu"] is not None:
        on_gpu = gpu_pipeline(pipeline)
        runner = on_gpu.build(variant, **how, device=GPU_DEVICE)
        return lambda: runner(batch), spec["batch"], on_gpu.peak_gpu_memory_bytes
    runner = pipeline.build(variant, **how)
    return lambda: runner(batch), spec["batch"], lambda: None


def _timed(run_batch: Callable[[], Any], size: int) -> float:
    """Seconds of one batch, whose output must have one item per input."""
    start_s = time.perf_counter()
    output = run_batch()
    latency_s = time.perf_counter() - start_s
    if not hasattr(output, "__len__") or len(output) != size:
        found = f"{len(output)} items" if hasattr(output, "__len__") else type(output).__name__
        raise ValueError(f"the runner answered a batch of {size} with {found}")
    return latency_s


def _warm_up(run_batch: Callable[[], Any], size: int, *, min_s: float, max_s: float) -> Answer:
    """Run batches until their time stops falling; never start one that would pass ``max_s``."""
    latencies_s: list[float] = []
    fastest_s, since_new = float("inf"), 0
    start_s = time.perf_counter()
    while True:
        latency_s = _timed(run_batch, size)
        latencies_s.append(latency_s)
        since_new = 0 if latency_s < FALL_RATIO * fastest_s else since_new + 1
        fastest_s = min(fastest_s, latency_s)
        elapsed_s = time.perf_counter() - start_s
        if since_new >= PATIENCE_BATCHES and elapsed_s >= min_s:
            break
        if elapsed_s + latency_s > max_s:
            break
    return {"latencies_s": latencies_s, "settled": since_new >= PATIENCE_BATCHES}


def _window(
    run_batch: Callable[[], Any], size: int, *, min_s: float, min_batches: int, max_s: float
) -> Answer:
    """Run batches back to back for at least ``min_s`` and ``min_batches``, within ``max_s``.

    The first batch always runs; another is not started if it would pass ``max_s``.
    """
    latencies_s: list[float] = []
    start_s = time.perf_counter()
    while True:
        latency_s = _timed(run_batch, size)
        latencies_s.append(latency_s)
        elapsed_s = time.perf_counter() - start_s
        enough = elapsed_s >= min_s and len(latencies_s) >= min_batches
        if enough or elapsed_s + latency_s > max_s:
            break
    return {"latencies_s": latencies_s, "busy_s": elapsed_s}


def _paced(run_batch: Callable[[], Any], size: int, *, batches: int, period_s: float) -> Answer:
    """Run a batch every ``period_s``, or when the last one is done.

    The window ends a period after the last batch was due, so that each has its share of waiting.
    """
    latencies_s: list[float] = []
    start_s = time.perf_counter()
    for number in range(batches):
        time.sleep(max(0.0, start_s + number * period_s - time.perf_counter()))
        latencies_s.append(_timed(run_batch, size))
    time.sleep(max(0.0, start_s + batches * period_s - time.perf_counter()))
    return {"latencies_s": latencies_s, "busy_s": time.perf_counter() - start_s}


if __name__ == "__main__":
    main()
